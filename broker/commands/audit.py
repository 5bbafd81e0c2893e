# SPDX-License-Identifier: Apache-2.0
"""What the commands about audits do: bundles, grants, erasures, conclusions, time stamps; who audits."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain, table
from broker.auditing.authority import stamped
from broker.auditing.timestamps import text_of, trusted
from broker.clock import SystemClock
from broker.commands.contract_names import whole_digest
from broker.commands.proposals import proposed
from broker.errors import UsageError
from broker.settings import Settings, settings_file
from policies.encoding import b64
from policies.identity import fingerprint, parse_key
from policies.log.bundle_head import look
from policies.log.checkpoint import parse_checkpoint
from policies.ports import iso_s
from policies.signing import parse_envelope_json

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from broker.commands import Where
    from broker.remote import OperatorClient

__all__ = [
    "audit_bundle",
    "audit_conclude",
    "audit_disclosures",
    "audit_erase",
    "audit_grant",
    "audit_grants",
    "audit_policy",
    "audit_revoke",
    "audit_timestamp",
    "audit_vectors",
    "auditor_add",
    "auditor_list",
    "auditor_revoke",
    "auditor_witness",
]

_POLICY_WARNING = (
    "# WARNING: this is the broker's own word. An auditor compares each key below (the log's,",
    "# and every witness's) by another way (telephone, paper, a member's copy) before trusting what uses it.",
)
_EVERY_FIELD = "*"
_ASK = "ask an operator who is missing (iriai-broker status), and take a newer one"
_SIGNED_TOO = "iriai-broker status says which witnesses are missing"
_OR_SIGNED = _SIGNED_TOO + "; audit bundle --signed takes the newest head without them"


# --- what an auditor is given ---


def audit_bundle(where: Where, out: Path, *, as_auditor: bool, since: int, signed: bool) -> Result:
    """Takes a bundle: the operators', or an enrolled auditor's own.

    Raises:
        UsageError: There is a file of that name.
        OSError: The folder or the disk does not take it; no half of it is left.
    """
    if out.exists():
        raise UsageError(need=f"no file at {out}", found="one", remedy="name a new file")
    path = f"/audit/bundle?grade=auditor&since={since}" if as_auditor else "/operator/audit/bundle"
    if signed and not as_auditor:
        path += "?signed=1"
    with where.client() as client:
        name = _download(client, path, out)
    head, now_ms = look(out), SystemClock().now_ms()
    remedy = _ASK if as_auditor else _SIGNED_TOO if signed else _OR_SIGNED
    data = {"file": str(out), "digest": name, "size_bytes": out.stat().st_size}
    return Result(
        data=data | ({} if head is None else {"head": head.to_json(now_ms)}),
        text=(
            f"bundle       {out}  {name}",
            *(() if head is None else head.words(now_ms, remedy)),
            f"next: the auditor runs: iriai-verify {out} --policy POLICY",
        ),
    )


def _download(client: OperatorClient, path: str, out: Path) -> str:
    """A file whole or none."""
    try:
        return client.download(path, out)
    except BaseException:
        out.unlink(missing_ok=True)
        raise


def audit_vectors(directory: Path, run: str, out: Path) -> Result:
    """Copies masked vectors, on the broker's host, within the contract's retention."""
    from broker.federation.secure.vectors import export

    folder = Settings.load(directory).dir if settings_file(directory).exists() else directory
    names = export(folder, run, out, SystemClock().now_ms())
    return Result(
        data={"folder": str(out), "vectors": names},
        text=(
            f"vectors      {len(names)} in {out}, each named by its SHA-256",
            "next: the auditor redoes the sums of the bundle's transcripts with them",
        ),
    )


def audit_policy(where: Where, contracts: list[str]) -> Result:
    """Prints a policy file as the broker sees itself."""
    with where.client() as client:
        text = client.get("/operator/audit/policy")["policy"]
        named = [whole_digest(client, one) for one in contracts]
    lines = str(text).splitlines()
    lines[-1:-1] = [f"contract {one}" for one in named]  # before the quorum line
    policy = "\n".join([*_POLICY_WARNING, *lines]) + "\n"
    return Result(data={"policy": policy}, text=(), plain_output=policy.rstrip("\n"))


def audit_disclosures(where: Where, start: int) -> Result:
    """Prints one page of what the caller's grants open, one JSON line for each value."""
    with where.client() as client:
        page = client.get(f"/audit/disclosures?from={start}", logged=True)
    lines = [json.dumps(one, sort_keys=True) for one in page["disclosures"]]
    more = "the end of the log" if page["next"] is None else f"go on with --from {page['next']}"
    text = (f"values       {len(lines)} of the entries from {page['from']} on; {more}",)
    return Result(data=page, text=text, plain_output="\n".join(lines) or None)


# --- what an auditor may be shown ---


def audit_grant(where: Where, name: str, fields: str, *, start: int, days: int | None) -> Result:
    """Opens confidential fields to an auditor."""
    listed = None if fields == _EVERY_FIELD else [one.strip() for one in fields.split(",")]
    body = {"grantee": name, "fields": listed, "from_index": start, "days": days}
    with where.client() as client:
        done = client.post("/operator/audit/grants", body)
    return Result(
        data=done,
        text=(
            f"grant        {plain(done['grant'])} for {plain(done['grantee'])}: {_fields(done)}",
            f"until        {plain(done['until'] or 'it is revoked')}",
        ),
        plain_output=str(done["grant"]),
    )


def audit_grants(where: Where) -> Result:
    """Lists grants."""
    with where.client() as client:
        listed = client.get("/operator/audit/grants")["grants"]
    rows = [
        (one["grant"], one["grantee"], one["state"], _fields(one), one["from_index"], one["until"] or "-")
        for one in listed
    ]
    head = ("GRANT", "AUDITOR", "STATE", "FIELDS", "FROM", "UNTIL")
    return Result(data={"grants": listed}, text=table(head, rows, empty="none; iriai-broker audit grant …"))


def _fields(grant: dict[str, Any]) -> str:
    return "every field" if grant["fields"] is None else " ".join(grant["fields"])


def audit_revoke(where: Where, grant: str) -> Result:
    """Ends a grant."""
    with where.client() as client:
        done = client.post(f"/operator/audit/grants/{grant}/revoke", {})
    return Result(data=done, text=(f"{plain(done['grant'])}: over; what was shown stays told",))


def audit_erase(where: Where, *, indexes: Sequence[int], fields: Sequence[str], reason: str) -> Result:
    """Erases confidential values of entries."""
    body = {"indexes": list(indexes), "fields": list(fields), "reason": reason}
    with where.client() as client:
        done = client.post("/operator/audit/erasures", body)
    return Result(
        data=done,
        text=(
            f"erased       {plain(' '.join(done['fields']))} of {len(done['indexes'])} entries",
            f"on record    entry {done['entry']}",
            "backups of private.db, and bundles that were taken before, still hold it: delete them too",
        ),
    )


# --- what an auditor gives ---


def audit_conclude(where: Where, file: Path) -> Result:
    """Hands in a conclusion, as the auditor or for the auditor.

    Raises:
        UsageError: No such file, or no JSON in it.
    """
    envelope = _envelope(file, "iriai-verify conclude writes it")
    with where.client() as client:
        done = client.post("/audit/conclusions", envelope)
    return Result(
        data=done,
        text=(
            f"concluded    entry {done['index']}",
            f"next: keep {plain(file)}.checkpoint, from `iriai-verify conclude`: the next audit's --since",
        ),
    )


def _envelope(file: Path, remedy: str) -> Any:  # noqa: ANN401  JSON, for the broker to check
    try:
        return parse_envelope_json(file.read_bytes())
    except OSError as error:
        raise UsageError(need=f"a file at {file}", found=error.strerror or "none", remedy=remedy) from error


def audit_timestamp(where: Where, *, authority: str, anchors: Path) -> Result:
    """Has the newest witnessed checkpoint stamped by an authority, and hands the token to the broker.

    Raises:
        AuthorityError: No certificates in the file, or nobody answers.
        TimestampInvalidError: The answer is no time stamp that holds.
        TimestampsMissingError: The library is not installed.
    """
    try:
        pem = anchors.read_bytes()
    except OSError as error:
        raise UsageError(
            need=f"the authority's certificates at {anchors}",
            found=error.strerror or "none",
            remedy="get them from the authority itself",
        ) from error
    with where.client() as client:
        text = text_of(client.published("/log/checkpoint").decode("utf-8"))
        size = parse_checkpoint(text.decode("utf-8")).size
        reply, made_ms = stamped(text, authority, trusted(pem))
        done = client.post("/operator/audit/timestamps", {"size": size, "reply": b64(reply)})
    kept = "kept" if done["kept"] else "not kept: this size has one already"
    return Result(
        data=done | {"time": iso_s(made_ms)},
        text=(f"time stamp   size {size} at {iso_s(made_ms)} by {plain(authority)}; {kept}",),
    )


# --- who audits ---


def auditor_add(where: Where, name: str, key: str) -> Result:
    """Enrols an auditor."""
    shown = fingerprint(parse_key(key))
    with where.client() as client:
        done = client.post("/operator/auditors", {"name": name, "key": key})
    return Result(
        data=done,
        text=(
            f"auditor      {plain(done['name'])}",
            f"fingerprint  {shown}; compare it with the auditor by telephone",
            f"next: iriai-broker audit grant {plain(done['name'])} --fields …; without it nothing is opened",
        ),
    )


def auditor_list(where: Where) -> Result:
    """Lists auditors."""
    with where.client() as client:
        listed = client.get("/operator/auditors")["auditors"]
    rows = [(one["name"], one["state"], one["since"], one["fingerprint"], one["key"]) for one in listed]
    head = ("AUDITOR", "STATE", "SINCE", "FINGERPRINT", "KEY")
    return Result(data={"auditors": listed}, text=table(head, rows, empty="none; iriai-broker auditor add …"))


def auditor_revoke(where: Where, name: str, *, reason: str) -> Result:
    """Ends an auditor's access."""
    with where.client() as client:
        done = client.post(f"/operator/auditors/{name}/revoke", {"reason": reason})
    text = [f"{plain(done['name'])}: revoked, with {done['grants_ended']} grants"]
    if done.get("votes_on") is not None:
        text.append(f"its witness votes on; next: iriai-broker witness remove {plain(done['votes_on'])}")
    return Result(data=done, text=tuple(text))


def auditor_witness(where: Where, statement: Path) -> Result:
    """Registers the witness of an enrolled auditor, and proposes its vote.

    Raises:
        UsageError: No such file, or no JSON in it.
    """
    envelope = _envelope(statement, "iriai-verify witness --key FILE --statement FILE writes it")
    with where.client() as client:
        done = client.post("/witness/keys", {"statement": envelope})
    if done["proposal"] is not None:
        return proposed(done)
    waits = "is known; an operator proposes its vote with the same command"
    told = "counts" if done["votes"] else waits
    return Result(data=done, text=(f"witness      of {plain(done['owner'])} {told}",))
