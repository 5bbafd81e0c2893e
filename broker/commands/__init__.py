# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-broker`` do. `broker.cli` imports this module only when one of them runs."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain, short, table
from broker.clock import SystemClock
from broker.commands.witnesses import witness_lines
from broker.entropy import SystemEntropy
from broker.errors import FingerprintError, NotConfirmedError, OperatorKeyError, UsageError
from broker.keyfiles import make_key
from broker.membership.approvals import APPROVAL_TYPE, approval_subject
from broker.remote import OperatorClient, load_operator_key, target_of
from policies.encoding import b64, digest
from policies.identity import fingerprint, key_text, parse_key
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


__all__ = ["Where"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Where:
    """Which broker a command talks to, and as whom; ``dry_run``: nothing that changes anything is sent."""

    directory: Path | None
    url: str | None
    tls_sha256: str | None
    key: Path | None
    dry_run: bool = False

    def client(self) -> OperatorClient:
        """A connection to it.

        Raises:
            OperatorKeyError: No key file was named, or it cannot be used.
        """
        if self.key is None:
            raise OperatorKeyError(
                need="--key FILE, your operator key",
                found="none",
                remedy="name the file that `iriai-broker operator new` wrote",
            )
        key = load_operator_key(self.key)
        target = target_of(self.directory, self.url, self.tls_sha256)
        return OperatorClient(
            target, key=key, clock=SystemClock(), entropy=SystemEntropy(), dry_run=self.dry_run
        )


# --- on the broker's host ---


def operator_new(path: Path) -> Result:
    """Makes an operator's key file."""
    key = make_key(path, SystemEntropy())
    data = {"file": str(path), "key": key_text(key.public), "fingerprint": fingerprint(key.public)}
    return Result(
        data=data,
        text=(
            f"key file     {path} (mode 0600; keep it, it is you)",
            f"fingerprint  {data['fingerprint']}",
            "next: give the public key to whoever runs `iriai-broker init --operator NAME=KEY`:",
        ),
        plain_output=data["key"],
    )


def own_tls(certificate: Path | None, key: Path | None) -> tuple[Path, Path] | None:
    """The operator's own certificate and key, if both were named.

    Raises:
        UsageError: Only one of them.
    """
    if certificate is None and key is None:
        return None
    if certificate is None or key is None:
        raise UsageError(
            need="--tls-cert and --tls-key together", found="one of them", remedy="name both files"
        )
    return certificate, key


def init(
    directory: Path,
    url: str,
    operators: list[str],
    *,
    listen_host: str | None,
    origin: str | None,
    tls: tuple[Path, Path] | None,
    database: str | None = None,
    private_database: str | None = None,
    database_owner: str | None = None,
    config: Path | None = None,
) -> Result:
    """Makes a broker's folder, or completes it."""
    from broker.boot import initialise, parse_operators

    made = initialise(
        directory,
        url=url,
        operators=parse_operators(operators),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        listen_host=listen_host,
        tls=tls,
        origin=origin,
        database=database,
        private_database=private_database,
        database_owner=database_owner,
        config=config,
    )
    data = {
        "dir": str(directory),
        "url": made.settings.public_url,
        "origin": made.settings.origin,
        "broker_key": made.broker_key,
        "fingerprint": made.fingerprint,
        "log_vkey": made.log_vkey,
        "tls_sha256": made.tls_sha256,
        "operators": list(made.operators),
        "fresh": made.fresh,
    }
    text = [
        f"broker       {made.settings.public_url} in {directory}" + ("" if made.fresh else " (was there)"),
        f"fingerprint  {made.fingerprint}",
        f"certificate  sha256:{made.tls_sha256}",
        f"log          {made.log_vkey}",
        f"operators    {', '.join(made.operators) or 'none'}",
    ]
    if len(made.operators) < 2:  # noqa: PLR2004  two-person approval
        text.append(
            "warning: approving a member takes two operators; add one by repeating init --operator NAME=KEY"
        )
    text.append(f"next: iriai-broker serve --dir {directory}")
    return Result(data=data, text=tuple(text))


# --- members ---


def invite(where: Where, *, name: str, country: str, group: str) -> Result:
    """Makes an invitation."""
    with where.client() as client:
        made = client.post("/operator/invites", {"legal_name": name, "country": country, "group": group})
    return Result(
        data=made,
        text=(
            f"invitation   {plain(made['id'])} for {name} ({country}, group {group})",
            f"until        {plain(made['expires'])}",
            "It works once. Hand over this text; it is stored nowhere:",
        ),
        plain_output=str(made["invite"]),
    )


def members(where: Where) -> Result:
    """Lists everybody enrolled."""
    with where.client() as client:
        listed = client.get("/operator/organisations")["organisations"]
    rows = [
        (
            one["org"],
            one["state"],
            "yes" if one.get("online") else "no",
            iso_s(one["seen_ms"]) if one.get("seen_ms") else "not since the broker started",
            one["legal_name"],
            one["country"],
            one["group"],
            one["node_fingerprint"],
            one["node_key"],
            " ".join(one["approved_by"]) or "-",
        )
        for one in listed
    ]
    head = (
        "ORGANISATION",
        "STATE",
        "ONLINE",
        "LAST SEEN",
        "NAME",
        "COUNTRY",
        "GROUP",
        "NODE FINGERPRINT",
        "NODE KEY",
        "APPROVED BY",
    )
    empty = "nobody yet; iriai-broker invite create --name … --country … --group … --key FILE"
    return Result(data={"organisations": listed}, text=table(head, rows, empty=empty))


def approve(where: Where, org: str, *, expected: str | None, confirm: Callable[[str], bool]) -> Result:
    """Signs and sends one operator's approval of what is shown, nothing else.

    Raises:
        UsageError: No such organisation.
        FingerprintError: Its key has another fingerprint than ``expected``.
        NotConfirmedError: ``confirm`` said no.
    """
    with where.client() as client:
        listed = client.get("/operator/organisations")["organisations"]
        found = next((one for one in listed if one["org"] == org), None)
        if found is None:
            raise UsageError(need="an organisation that joined", found=org, remedy="iriai-broker org list")
        subject = approval_subject(
            org=found["org"],
            node=found["node"],
            node_key=found["node_key"],
            fleet_key=found["fleet_key_pem"],
            name=found["legal_name"],
            group=found["group"],
            country=found["country"],
        )
        shown = fingerprint(parse_key(found["node_key"]))
        if expected is not None and _begins(shown, expected):
            raise FingerprintError(
                need="the whole fingerprint, which is what is compared",
                found=f"only its first {len(_packed(expected))} of {len(_packed(shown))} characters",
                remedy="give all of it, as the member reads it out; so far it is the same",
            )
        if expected is not None and _packed(expected) != _packed(shown):
            raise FingerprintError(
                need=f"the fingerprint {expected}", found=shown, remedy="do not approve; telephone the member"
            )
        who = f"{plain(found['legal_name'])} ({plain(found['country'])}, group {plain(found['group'])})"
        if not confirm(f"{who}, node key {shown}"):
            raise NotConfirmedError(
                need=f"a fingerprint that a person compared: {shown}",
                found="no confirmation",
                remedy="compare it by telephone, then repeat the command (--fingerprint, or --yes)",
            )
        signature = Envelope.seal(subject, APPROVAL_TYPE, client.key).signatures[0][1]
        done = client.post(
            f"/operator/organisations/{org}/approve",
            {"subject_digest": digest(subject), "signature": b64(signature)},
        )
    return Result(
        data=done,
        text=(f"{org}: {plain(done['state'])}, approved by {plain(', '.join(done['approved_by']))}",),
    )


def _packed(text: str) -> str:
    return text.replace(" ", "")


def _begins(shown: str, given: str) -> bool:
    """Whether something was given, and it is the beginning of a fingerprint and not all of it."""
    packed = _packed(given)
    return bool(packed) and packed != _packed(shown) and _packed(shown).startswith(packed)


# --- releases ---


def release_list(where: Where) -> Result:
    """Lists candidates and releases."""
    with where.client() as client:
        waiting = client.get("/candidates")["candidates"]
        listed = client.get("/releases")["releases"]
    rows = [(one["model"], one["tier"], one["recipe_id"], short(one["contract"])) for one in listed]
    votes = [(one["candidate"], one["state"], _votes(one), _held_back(one), one["run"]) for one in waiting]
    text = (
        *table(("MODEL", "TIER", "RECIPE", "CONTRACT"), rows, empty="nothing was released yet"),
        "",
        *table(
            ("CANDIDATE", "STATE", "VOTES", "HELD BACK BY", "RUN"),
            votes,
            empty="no candidate waits at the gate",
        ),
    )
    return Result(data={"releases": listed, "candidates": waiting}, text=text)


def _votes(one: dict[str, Any]) -> str:
    """How many voted, and how many for what, as far as the caller is told."""
    counts = Counter((one.get("votes") or {}).values())
    told = ", ".join(f"{counts[verdict]} {verdict}" for verdict in ("approve", "veto") if counts[verdict])
    return f"{one['voted']}: {told}" if told else str(one["voted"])


def _held_back(one: dict[str, Any]) -> str:
    """Clauses that refused a candidate, or that it waits for, and when the clock may open the gate."""
    waits = sorted({str(found["clause"]) for found in one.get("waits_for", ())})
    until = one.get("opens_ms")
    shown = " ".join(one["refused_by"] or waits) or "-"
    return shown if until is None else f"{shown} until {iso_s(until)}"


# --- the broker ---


def status(where: Where) -> Result:
    """How the broker is."""
    with where.client() as client:
        found = client.get("/operator/status")
    text = (
        f"broker       {plain(found['url'])}",
        f"broker key   {plain(found['broker_key'])}",
        f"log          {plain(found['origin'])} size {found['log']['size']}"
        + (f" FROZEN: {plain(found['log']['frozen'])}" if found["log"]["frozen"] else ""),
        *witness_lines(found.get("witnesses")),
        "members      "
        + (", ".join(f"{plain(k)} {v}" for k, v in sorted(found["members"].items())) or "none")
        + f"; {sum(one['state'] == 'online' for one in found.get('nodes', ()))} online",
        f"runs         {found['runs']['open']} open of {found['runs']['all']}",
        *_kept_up(found),
    )
    return Result(data=found, text=text)


def _kept_up(found: dict[str, Any]) -> list[str]:
    """What waits for people, and how old the backups are; nothing of a broker that does not say."""
    lines = []
    if "proposals" in found:
        lines.append(
            f"proposals    {found['proposals']} wait for a second person: iriai-broker proposal list"
        )
    if "backup" in found:
        told = [
            f"{words} {iso_s(ms) if ms is not None else 'never'}"
            for words, ms in (("last", found["backup"]["last_ms"]), ("tested", found["backup"]["tested_ms"]))
        ]
        lines.append(f"backup       {', '.join(told)}")
    if "version" in found:
        lines.append(f"version      {plain(found['version'])}")
    return lines
