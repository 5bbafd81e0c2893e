# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker backup`` does."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from broker.answers import Result, plain, table
from broker.backup import Plan, Targets, create, record, verify
from broker.backup.manifest import MANIFEST
from broker.clock import SystemClock
from broker.errors import UsageError
from broker.keyfiles import load_key
from broker.settings import Settings, database_url
from policies.identity import fingerprint, key_text, parse_key
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.backup import Manifest, Verified

__all__ = ["backup_create", "backup_list", "backup_restore", "backup_verify"]

_NEEDS_PEOPLE: Final = 7


def backup_create(place: Path, out: Path, *, private: bool) -> Result:
    """Makes a backup in a new folder, also while the broker serves."""
    made = create(Settings.load(place), out, clock=SystemClock(), private=private)
    return Result(
        data={"path": str(out.absolute()), **_facts(made)},
        text=(
            *_lines(made),
            "keys         not in it: copy keys/ by hand, once, to where no backup goes",
            "signer       not in it: a restored log is compared with what was signed",
            f"next: iriai-broker backup verify {out}, then move it to another disk",
        ),
        plain_output=made.digest,
    )


def backup_list(place: Path) -> Result:
    """Lists what was made, and when one was restored on trial."""
    facts = record(Settings.load(place))
    rows = [
        (
            iso_s(one.at_ms),
            one.size,
            one.bytes,
            "-" if one.private_until_ms is None else iso_s(one.private_until_ms),
            "yes" if (Path(one.path) / MANIFEST).exists() else "no, or moved",
            one.path,
        )
        for one in facts.backups
    ]
    head = ("MADE", "ENTRIES", "BYTES", "PRIVATE UNTIL", "STILL THERE", "FOLDER")
    empty = "none yet; iriai-broker backup create --out DIR"
    tested = "never" if facts.tested is None else f"{iso_s(facts.tested.at_ms)}, {facts.tested.path}"
    problem = () if facts.problem is None else (f"problem      {plain(facts.problem)}",)
    return Result(
        data={
            "backups": [asdict(one) for one in facts.backups],
            "tested": None if facts.tested is None else asdict(facts.tested),
            "problem": facts.problem,
        },
        text=(*table(head, rows, empty=empty), f"last tested  {tested}", *problem),
    )


def backup_verify(
    place: Path | None, folder: Path, *, broker_key: str | None, server: str | None = None
) -> Result:
    """Restores a backup on trial; remembered if the broker's place is known.

    A trial of dumps is made on the server that is named, else on the broker's own.

    Raises:
        UsageError: Nothing says whose backup it should be.
    """
    key, settings = _pinned(place, broker_key)
    own = None if settings is None else settings.database_url or settings.private_db_url
    where = own if server is None else database_url("--server", server)
    found = verify(folder, broker_key=key, clock=SystemClock(), settings=settings, server=where)
    return Result(
        data={"path": str(folder.absolute()), **_checked(found), "remembered": settings is not None},
        text=(
            *_lines(found.manifest),
            f"signed       {found.signed} entries, root sha256:{found.root.hex()}",
            f"broker key   {key_text(found.manifest.broker_key)}",
            *(["private      its time is over: delete private.db from this folder"] * found.overdue),
            "restored on trial: every file, page, entry, tile and envelope holds"
            + ("" if settings is not None else " (not remembered: no --dir)"),
        ),
    )


def backup_restore(
    folder: Path,
    into: Path,
    approvals: Sequence[Path],
    *,
    place: Path | None = None,
    broker_key: str | None = None,
    targets: Targets | None = None,
) -> Result:
    """Restores into an empty folder; without approvals says what two operators sign.

    Raises:
        UsageError: Nothing says whose backup it should be.
    """
    key, present = _pinned(place, broker_key)
    for option, url in _named(targets):
        database_url(option, url)
    plan = Plan.of(folder, into, broker_key=key, clock=SystemClock(), present=present, targets=targets)
    subject = plan.subject()
    told = (
        *_lines(plan.found.manifest),
        f"broker key   {key_text(plan.found.manifest.broker_key)}",
        f"fingerprint  {fingerprint(plan.found.manifest.broker_key)}",
        f"operators    {', '.join(sorted(plan.found.operators.values())) or 'none'}",
        f"into         {plan.into}",
        *(f"database     {plain(url)}" for url in plan.databases.values()),
    )
    facts: dict[str, Any] = _checked(plan.found) | {"into": str(plan.into), "databases": plan.databases}
    if not approvals:
        return Result(
            data={**facts, "document": json.loads(subject), "approved_by": []},
            text=(
                *told,
                "nothing was changed. Two operators sign this document:",
                "iriai-broker log approve FILE --key KEY; then repeat this with --approval FILE, twice:",
            ),
            plain_output=subject.decode("ascii"),
            exit_code=_NEEDS_PEOPLE,
        )
    names = plan.apply([path.read_bytes() for path in approvals])
    return Result(
        data={**facts, "approved_by": list(names)},
        text=(
            *told,
            f"approved by  {', '.join(names)}",
            f"next: put keys/ back into {plan.into}/keys, mode 0600, and the newest signer.db where the",
            "      settings say; then iriai-broker log status: rolled-back if more was signed since",
        ),
        plain_output=str(plan.into),
    )


def _named(targets: Targets | None) -> list[tuple[str, str]]:
    """URLs of options, with the option's name."""
    if targets is None:
        return []
    options = ("--database-url", "--private-db-url", "--database-owner", "--server")
    urls = (targets.main, targets.private, targets.owner, targets.server)
    return [(option, url) for option, url in zip(options, urls, strict=True) if url is not None]


def _pinned(place: Path | None, broker_key: str | None) -> tuple[bytes, Settings | None]:
    """The key of the broker whose backup it should be, and its settings if its folder is at hand."""
    settings = None if place is None else Settings.load(place)
    own = None if settings is None else load_key(settings.keys / "broker.key").public
    said = own if broker_key is None else parse_key(broker_key)
    if said is None:
        raise UsageError(
            need="whose backup it should be",
            found="neither --broker-key nor --dir",
            remedy="give --broker-key ed25519:… as init and status print it, or the broker's folder as --dir",
        )
    if own is not None and own != said:
        raise UsageError(need=f"the key of {place}", found=key_text(said), remedy="give one of the two")
    return said, settings


def _facts(made: Manifest) -> dict[str, Any]:
    until = made.private_until_ms
    return {
        "manifest": made.digest,
        "origin": made.origin,
        "made": iso_s(made.made_ms),
        "entries": made.size,
        "files": len(made.files),
        "bytes": made.bytes,
        "private_until": None if until is None else iso_s(until),
        "broker_key": key_text(made.broker_key),
    }


def _checked(found: Verified) -> dict[str, Any]:
    return _facts(found.manifest) | {
        "signed": found.signed,
        "root": f"sha256:{found.root.hex()}",
        "private": found.private,
        "private_overdue": found.overdue,
    }


def _lines(made: Manifest) -> tuple[str, ...]:
    private = "none" if made.private_until_ms is None else f"until {iso_s(made.private_until_ms)}"
    return (
        f"backup       {plain(made.origin)} of {iso_s(made.made_ms)}, {made.size} entries",
        f"files        {len(made.files)} with {made.bytes} bytes; manifest {made.digest}",
        f"private      {private}",
    )
