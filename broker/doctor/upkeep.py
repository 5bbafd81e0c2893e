# SPDX-License-Identifier: Apache-2.0
"""Checks of what an operator keeps up: contracts that end, backups, files of others in the console."""

from __future__ import annotations

import hashlib
import tomllib
from importlib.resources import files
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.backup import record
from broker.doctor.databases import reading
from broker.doctor.findings import FailedError
from broker.store.tables import contract_document
from policies.contract import parse
from policies.limits import BACKUP_AGE_H, EXPIRY_WARNING_DAYS, RESTORE_TEST_DAYS
from policies.ports import iso_s, to_ms

if TYPE_CHECKING:
    from importlib.resources.abc import Traversable

    from broker.settings import Settings
    from policies.ports import Clock

__all__ = ["backup", "contracts", "restore", "vendored"]

_HOUR_MS: Final = 3_600_000
_DAY_MS: Final = 24 * _HOUR_MS
_FINAL: Final = "finalized"
_CONSOLE: Final = "broker.console"


def contracts(settings: Settings, clock: Clock) -> str:
    """No contract in force ends within `EXPIRY_WARNING_DAYS` without a successor."""
    query = select(contract_document.c.bytes, contract_document.c.supersedes).where(
        contract_document.c.state == _FINAL
    )
    with reading(settings.main_database) as session:
        rows = session.execute(query).all()
    followed = {row.supersedes for row in rows}
    now_ms, soon, count = clock.now_ms(), [], 0
    for row in rows:
        contract = parse(bytes(row.bytes))
        left_ms = to_ms(contract.term.expires) - now_ms
        if contract.digest in followed or left_ms <= 0:
            continue
        count += 1
        if left_ms < EXPIRY_WARNING_DAYS * _DAY_MS:
            soon.append(f"{contract.digest[7:19]} ends {contract.term.expires}")
    if soon:
        raise FailedError(
            "; ".join(sorted(soon)), "offer a successor in time (iriai-broker contract offer), or let it end"
        )
    return f"{count} in force, none ends within {EXPIRY_WARNING_DAYS} days"


def backup(settings: Settings, clock: Clock) -> str:
    """There is a backup of the last day."""
    facts, remedy = record(settings), "iriai-broker backup create --out DIR, once a day, to another disk"
    if not isinstance(settings.main_database, str) and facts.last is None:
        raise FailedError(facts.problem or "no backup was made", remedy)
    if facts.last is None:
        return "on PostgreSQL: none was made here, and its own backups are not seen"
    if clock.now_ms() - facts.last.at_ms > BACKUP_AGE_H * _HOUR_MS:
        raise FailedError(f"the last backup is of {iso_s(facts.last.at_ms)}", remedy)
    return f"the last one is of {iso_s(facts.last.at_ms)}, with {facts.last.size} entries"


def restore(settings: Settings, clock: Clock) -> str:
    """A backup was restored on trial within `RESTORE_TEST_DAYS`."""
    tested, remedy = record(settings).tested, "iriai-broker backup verify DIR, once a month"
    if tested is None and record(settings).last is None and isinstance(settings.main_database, str):
        return "on PostgreSQL: none was made here; restore its own backups on trial yourself"
    if tested is None:
        raise FailedError("no backup was ever restored on trial", remedy)
    if clock.now_ms() - tested.at_ms > RESTORE_TEST_DAYS * _DAY_MS:
        raise FailedError(f"the last tested restore is of {iso_s(tested.at_ms)}", remedy)
    return f"the last tested restore is of {iso_s(tested.at_ms)}, with {tested.size} entries"


def vendored(static: Traversable | None = None) -> str:
    """Files of others that the console serves are as their packages hold them."""
    static = files(_CONSOLE) / "static" if static is None else static
    listed = static / "VENDORED.toml"
    if not listed.is_file():
        return "no file of others is served"
    said = tomllib.loads(listed.read_text("utf-8"))["file"]
    for one in said:
        path = static.joinpath(*one["path"].split("/"))
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != one["sha256"]:
            raise FailedError(
                f"{one['path']} is not {one['package']} {one['version']}",
                "install iriai again, from a release whose signature holds",
            )
    return f"{len(said)} files as their packages hold them"
