# SPDX-License-Identifier: Apache-2.0
"""Refusals: what did my guard refuse, and what can be done about it?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from client.contract.explaining import explained
from client.page.panels import ROWS, shown
from client.page.values import (
    Code,
    Column,
    Command,
    Data,
    Empty,
    Link,
    Moment,
    Panel,
    Screen,
    Several,
    Spoken,
    Table,
    msg,
)
from policies.errors import IriaiError

if TYPE_CHECKING:
    from client.outbox.rows import Decided
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Value

__all__ = ["refusals"]


def refusals(site: Site, asked: Asked) -> Screen:
    """The screen; ``run`` filters, ``before`` is the cursor."""
    run = asked.text("run")
    return Screen(
        name="refusals",
        title=msg("Refusals"),
        question=msg("What did my guard refuse, and what can be done?"),
        command="iriai-node guard log" if run is None else f"iriai-node guard explain {shlex.quote(run)}",
        panels=(shown("refusals", msg("Refusals"), lambda: _refused(site, asked)),),
    )


def _refused(site: Site, asked: Asked) -> Panel:
    run = asked.text("run")
    rows, cursor = site.outbox.left.refused_page(run=run, before=asked.cursor(), limit=ROWS)
    title = msg("Refusals") if run is None else msg("Refusals of {run}", run=Data(run))
    links = () if run is None else (Link("/refusals", msg("Show every run")),)
    if not rows:
        return Panel(
            name="refusals",
            title=title,
            links=links,
            empty=Empty(
                msg("Here stands each request that this node refused, by which clause, and who can mend it."),
                msg("Nothing was refused."),
                Command("iriai-node guard log"),
            ),
        )
    kept = {} if run is None else {"run": run}
    more = None if cursor is None else Link("/refusals", msg("Older ones"), {**kept, "before": str(cursor)})
    columns = (
        Column("at", msg("When")),
        Column("run", msg("Run")),
        Column("round", msg("Round"), numeric=True),
        Column("kind", msg("Kind")),
        Column("clause", msg("Clause")),
        Column("need", msg("Needed")),
        Column("found", msg("Found")),
        Column("remedy", msg("What to do")),
        Column("who", msg("By whom")),
    )
    found = tuple(row for _, one in rows for row in _rows(site, one, asked.lang))
    return Panel(
        name="refusals",
        title=title,
        links=links,
        table=Table(msg("What this node refused, the newest first"), columns, found, more=more),
    )


def _rows(site: Site, one: Decided, lang: str) -> list[tuple[Value, ...]]:
    """One row for each finding; one that cannot be explained says why, with the code."""
    head = (Moment(one.at_ms), Link("/refusals", Data(one.run), {"run": one.run}), one.round, Code(one.kind))
    try:
        findings = explained(one, site.outbox, site.shelf, lang=lang)["findings"]
    except IriaiError as error:
        told = (Code(error.code), Spoken(error.need), Spoken(error.found), Spoken(error.remedy), None)
        return [(*head, *told)]
    if not findings:
        return [(*head, Several(tuple(Code(clause) for clause in one.clauses)), None, None, None, None)]
    return [(*head, *_finding(found, lang)) for found in findings]


def _finding(found: dict[str, Any], lang: str) -> tuple[Value, ...]:
    """What this site's own rules say, they say in English."""
    spoken = "en" if not found["text"] else lang
    return (
        Code(found["clause"]),
        Spoken(str(found["need"]), spoken),
        Spoken(str(found["found"]), spoken),
        Spoken(str(found["remedy"]), spoken),
        Spoken(str(found["who"]), lang),
    )
