# SPDX-License-Identifier: Apache-2.0
"""Health and backup: could I restore right now? Backups and their tests, log, disk, versions, checks.

- What is cheap to know is read at each look. The numbered checks of ``iriai-broker doctor`` take seconds:
  they run beside the event loop when an operator asks, and the screen says how old their answer is.
- Nothing here changes anything, and a panel whose source is gone says so and leaves the others alone.
"""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

from sqlalchemy import select

from broker.apart import apart
from broker.backup import record
from broker.console.operator.showing import OPERATOR, PAGE
from broker.console.screens import OPERATORS, Column, Done, Fact, Form, Panel, Room, Screen, Sees, Table
from broker.console.values import (
    Bytes,
    Code,
    Count,
    Duration,
    Foreign,
    Moment,
    Nothing,
    Number,
    State,
    T,
    Value,
)
from broker.doctor import checks
from broker.log.growth import first_since
from broker.store.tables import log_entry, log_head
from policies.limits import BACKUP_AGE_H, DISK_FREE_BYTES, RESTORE_TEST_DAYS

if TYPE_CHECKING:
    from broker.backup import Facts
    from broker.console.acting import Act
    from broker.console.viewing import View
    from broker.doctor import Check
    from broker.services import Services

__all__ = ["room"]

room = Room("health")
_HOUR_S: Final = 3_600
_DAY_MS: Final = 86_400_000
_HOUR_MS: Final = 3_600_000


@dataclass(frozen=True, slots=True)
class _Looked:
    """The newest answer of the numbered checks."""

    at_ms: int
    found: tuple[Check, ...]


_LOOKED: WeakKeyDictionary[Services, _Looked] = WeakKeyDictionary()


@room.screen(
    "/console/health",
    name="health",
    title=T("Health and backup"),
    roles=OPERATORS,
    sees=Sees.EVERYTHING,
    command="iriai-broker doctor --dir DIR",
    nav=True,
)
def health(view: View) -> Screen:
    """Whether a restore would work right now, and how the broker is."""
    return Screen(
        panels=[
            view.panel("backup", T("Could I restore right now?"), lambda: _backup(view)),
            view.panel("log", T("Is the log whole?"), lambda: _log(view)),
            view.panel("machine", T("Has the machine what it needs?"), lambda: _machine(view)),
            view.panel("doctor", T("Numbered checks"), lambda: _doctor(view)),
        ],
        refresh_s=60,
    )


# --- backups ---


def _backup(view: View) -> Panel:
    facts = record(view.services.settings)
    last, tested = facts.last, facts.tested
    table = Table(
        name="backups",
        caption=T("The newest backups"),
        columns=(
            Column("at", T("Made")),
            Column("size", T("Entries in it")),
            Column("bytes", T("Size")),
            Column("path", T("Folder")),
            Column("private", T("Confidential values go by")),
        ),
        rows=[
            {
                "at": Moment(one.at_ms),
                "size": Count(one.size),
                "bytes": Bytes(one.bytes),
                "path": Code(one.path),
                "private": Nothing() if one.private_until_ms is None else Moment(one.private_until_ms),
            }
            for one in reversed(facts.backups[-PAGE:])
        ],
        empty=T(
            "Backups would be here. None was made: {command}",
            command=Code("iriai-broker backup create --out FOLDER --dir DIR"),
        ),
    )
    grown = view.services.writer.head().size
    return Panel(
        name="backup",
        title=T("Could I restore right now?"),
        prose=(_could(view, facts),),
        facts=(
            Fact(
                "backup",
                T("Last backup"),
                Nothing(T("never")) if last is None else Count(last.size),
                as_of_ms=None if last is None else last.at_ms,
                fresh_s=BACKUP_AGE_H * _HOUR_S,
                note=None
                if last is None
                else T("entries; {n} came since", n=Count(max(grown - last.size, 0))),
            ),
            Fact(
                "restore",
                T("Last restore on trial"),
                Nothing(T("never")) if tested is None else Count(tested.size),
                as_of_ms=None if tested is None else tested.at_ms,
                fresh_s=RESTORE_TEST_DAYS * 24 * _HOUR_S,
                note=None if tested is None else T("entries, all of them held"),
            ),
        ),
        table=table,
    )


def _could(view: View, facts: Facts) -> T:
    """The answer: yes, with what would be lost; or no, and what to do."""
    last, tested = facts.last, facts.tested
    if facts.problem is not None:
        return T(
            "Unknown: what the broker remembers of its backups cannot be read. {why}",
            why=Foreign(facts.problem),
        )
    if last is None:
        return T(
            "No: there is no backup. Make one: {command}",
            command=Code("iriai-broker backup create --out FOLDER --dir DIR"),
        )
    if tested is None:
        return T(
            "Perhaps: no backup was ever restored on trial. Do it: {command}",
            command=Code(f"iriai-broker backup verify {last.path} --dir DIR"),
        )
    late = view.now_ms - last.at_ms > BACKUP_AGE_H * _HOUR_MS
    stale = view.now_ms - tested.at_ms > RESTORE_TEST_DAYS * _DAY_MS
    if late or stale:
        return T(
            "Perhaps: the last backup was made {n} hours ago, the last one was tested {m} days ago.",
            n=Count((view.now_ms - last.at_ms) // _HOUR_MS),
            m=Count((view.now_ms - tested.at_ms) // _DAY_MS),
        )
    lost = max(view.services.writer.head().size - last.size, 0)
    return T("Yes: a backup is fresh and was tested. The newest {n} entries are not in it.", n=Count(lost))


# --- the log ---


def _log(view: View) -> Panel:
    services, head = view.services, view.services.writer.head()
    frozen = services.writer.frozen
    newest = view.session.execute(
        select(log_entry.c.idx, log_entry.c.ts_ms).order_by(log_entry.c.idx.desc()).limit(1)
    ).first()
    stored = view.session.scalar(select(log_head.c.size).limit(1))
    day, week = (
        head.size - min(first_since(view.session, view.now_ms - days * _DAY_MS), head.size) for days in (1, 7)
    )
    fits = (0 if newest is None else newest.idx + 1) == stored == head.size
    answer = T("The log grows, and its newest signed head is that of {n} entries.", n=Count(head.size))
    if frozen is not None:
        answer = T(
            "The log is frozen: nothing is taken until two operators repair it. {why}",
            why=Foreign(str(frozen)),
        )
    facts = [
        Fact("state", T("Log"), State("growing" if frozen is None else "frozen")),
        Fact("size", T("Entries"), Count(head.size), as_of_ms=None if newest is None else newest.ts_ms),
        Fact("chain", T("Entries, head and signature fit"), State("ok" if fits else "error")),
        Fact("day", T("Entries in the last 24 hours"), Count(day)),
        Fact("week", T("Entries in the last 7 days"), Count(week)),
    ]
    return Panel(name="log", title=T("Is the log whole?"), prose=(answer,), facts=facts, wide=False)


# --- the machine ---


def _machine(view: View) -> Panel:
    settings = view.services.settings
    disk = shutil.disk_usage(settings.dir)
    enough = disk.free >= DISK_FREE_BYTES
    answer = T("The disk has room.") if enough else T("The disk is nearly full: free some, then look again.")
    database = settings.main_database
    size: Value = Nothing(T("on a server of its own"))
    if not isinstance(database, str) and hasattr(database, "stat"):
        size = Bytes(database.stat().st_size)
    facts = [
        Fact("disk", T("Free on the disk"), Bytes(disk.free)),
        Fact("disk-state", T("Disk"), State("ok" if enough else "error")),
        Fact("database", T("Main database"), size),
        Fact("version", T("Version"), Code(version("iriai"))),
        Fact("python", T("Version of Python"), Code(sys.version.partition(" ")[0])),
        Fact("uptime", T("Serving for"), Duration(view.now_ms - view.services.started_ms)),
        Fact("stage", T("Stage"), Code(view.services.stage)),
    ]
    return Panel(
        name="machine", title=T("Has the machine what it needs?"), prose=(answer,), facts=facts, wide=False
    )


# --- the numbered checks ---


def _doctor(view: View) -> Panel:
    looked = _LOOKED.get(view.services)
    rows: list[dict[str, Value]] = []
    if looked is not None:
        rows = [
            {
                "number": Number(str(one.number)),
                "code": Code(one.code),
                "state": State("ok" if one.ok else "error"),
                "found": Foreign(one.found),
                "remedy": Foreign(one.remedy) if one.remedy else Nothing(),
            }
            for one in looked.found
        ]
    table = Table(
        name="checks",
        caption=T("Checks"),
        columns=(
            Column("number", T("Number")),
            Column("code", T("Code")),
            Column("state", T("State"), sort=True),
            Column("found", T("What was found")),
            Column("remedy", T("What to do")),
        ),
        rows=rows,
        empty=T(
            "The checks were not run since the broker started. Run them here, or by {command}.",
            command=Code("iriai-broker doctor --dir DIR"),
        ),
    )
    facts = []
    if looked is not None:
        failed = sum(not one.ok for one in looked.found)
        facts = [
            Fact("failed", T("Checks that failed"), Count(failed), as_of_ms=looked.at_ms, fresh_s=_HOUR_S)
        ]
    forms = []
    if view.role == "operator":
        run = Form(
            action="/console/health/check",
            button=T("Run the checks"),
            effect=(T("Nothing is changed; the checks take some seconds."),),
        )
        forms.append(run)
    return Panel(
        name="doctor", title=T("Numbered checks"), facts=facts, table=table.sorted_by(view.query), forms=forms
    )


@room.act("/console/health/check", name="health-check", roles=OPERATOR, sees=Sees.EVERYTHING)
async def check(act: Act) -> Done:
    """Runs the numbered checks, beside the event loop."""
    services = act.services
    found = await apart(lambda: checks(services.settings, clock=services.clock))
    _LOOKED[services] = _Looked(services.clock.now_ms(), found)
    failed = sum(not one.ok for one in found)
    if failed:
        return Done("/console/health", T("{n} of {m} checks failed.", n=Count(failed), m=Count(len(found))))
    return Done("/console/health", T("All {n} checks hold.", n=Count(len(found))))
