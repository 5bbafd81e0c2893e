# SPDX-License-Identifier: Apache-2.0
"""Doctor: what is broken, and how do I fix it?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.diagnosis.findings import FAILED, OK, SKIPPED, WARNING
from client.doctor import doctor as checks
from client.page.panels import shown
from client.page.values import Code, Column, Fact, Mark, Panel, Screen, Spoken, Table, msg

if TYPE_CHECKING:
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Text, Value

__all__ = ["doctor"]

_CHECKS: Final[dict[str, Text]] = {
    "keys": msg("Key files"),
    "settings": msg("Settings"),
    "packages": msg("Names of packages"),
    "disk": msg("Room on the disk"),
    "outbox": msg("Outbox"),
    "budget": msg("Ledgers of the budget"),
    "broker": msg("The pinned broker"),
    "witnesses": msg("Witnesses of the log"),
    "reach": msg("What the broker answers"),
    "versions": msg("Versions of packages"),
    "gpu": msg("Accelerator"),
    "database": msg("Databases"),
    "budget-left": msg("What is left of the budget"),
    "contract": msg("Contracts"),
    "name": msg("Name of the broker"),
    "way-out": msg("The way out"),
    "certificate": msg("Certificate of the broker"),
    "clock": msg("Clock"),
    "last-seen": msg("Heard of by the broker"),
}
_STATES: Final = {
    OK: Mark("good", msg("holds"), OK),
    WARNING: Mark("warn", msg("holds, with a warning"), WARNING),
    FAILED: Mark("bad", msg("fails"), FAILED),
    SKIPPED: Mark("idle", msg("could not be looked at"), SKIPPED),
}


def doctor(site: Site, asked: Asked) -> Screen:
    """The screen: each check is made while the page is made."""
    del asked
    return Screen(
        name="doctor",
        title=msg("Doctor"),
        question=msg("What is broken, and how do I fix it?"),
        command="iriai-node doctor",
        panels=(shown("checks", msg("Checks"), lambda: _checks(site)),),
    )


def _checks(site: Site) -> Panel:
    answer = checks(site.home.need(), clock=site.clock, entropy=site.entropy, transport=site.transport)
    rows, failed = answer.data["checks"], answer.data["failed"]
    verdict = (
        Mark("good", msg("all {n} checks hold", n=len(rows)), "ok")
        if not failed
        else Mark("bad", msg("{n} of {m} checks fail", n=len(failed), m=len(rows)), "failed")
    )
    columns = (
        Column("number", msg("No."), numeric=True),
        Column("check", msg("Check")),
        Column("state", msg("State")),
        Column("found", msg("Found")),
        Column("remedy", msg("What to do")),
        Column("code", msg("Code")),
    )
    return Panel(
        name="checks",
        title=msg("Checks"),
        facts=(Fact("verdict", msg("Verdict"), verdict),),
        table=Table(
            msg("Checks of this node"),
            columns,
            tuple(_row(number, one) for number, one in enumerate(rows, 1)),
        ),
    )


def _row(number: int, one: dict[str, Any]) -> tuple[Value, ...]:
    state = _STATES.get(one["state"], Mark("bad", msg("fails"), str(one["state"])))
    return (
        number,
        _CHECKS.get(one["code"], Code(one["code"])),
        state,
        Spoken(one["found"]),
        Spoken(one["remedy"]) if one["state"] != OK and one["remedy"] else None,
        Code(one["code"]),
    )
