# SPDX-License-Identifier: Apache-2.0
"""Outbox: what left this site?"""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Final

from client.page.panels import ROWS, shown
from client.page.values import (
    Bytes,
    Code,
    Column,
    Command,
    Data,
    Digest,
    Empty,
    Fact,
    Link,
    Mark,
    Moment,
    Panel,
    Screen,
    Table,
    msg,
)

if TYPE_CHECKING:
    from client.outbox.transmission import Transmission
    from client.page.panels import Asked
    from client.page.reading import Site
    from client.page.values import Value

__all__ = ["CSV_ROWS", "outbox"]

CSV_ROWS: Final = 10_000  # of one file; the address of the next ones is in the page
_GRADES: Final = {
    "none": Mark("idle", msg("no log entry"), "none"),
    "waiting": Mark("warn", msg("waiting for a receipt"), "waiting"),
    "late": Mark("bad", msg("late"), "late"),
    "signed": Mark("good", msg("signed by the broker"), "signed"),
    "witnessed": Mark("good", msg("witnessed"), "witnessed"),
    "contradicted": Mark("bad", msg("contradicted"), "contradicted"),
}
_COLUMNS: Final = (
    Column("at", msg("When")),
    Column("kind", msg("Kind")),
    Column("bytes", msg("Bytes"), numeric=True),
    Column("run", msg("Run")),
    Column("round", msg("Round"), numeric=True),
    Column("clause", msg("Allowed by")),
    Column("receipts", msg("Receipts")),
    Column("grade", msg("Grade")),
    Column("digest", msg("Digest")),
)


def outbox(site: Site, asked: Asked) -> Screen:
    """The screen; ``run`` filters, ``before`` is the cursor."""
    run = asked.text("run")
    return Screen(
        name="outbox",
        title=msg("Outbox"),
        question=msg("What left this site?"),
        command="iriai-node outbox list" + ("" if run is None else f" --run {shlex.quote(run)}"),
        panels=(
            shown("sum", msg("In all"), lambda: _sum(site)),
            shown("sent", msg("Transmissions"), lambda: _sent(site, asked)),
            shown("runs", msg("Run by run"), lambda: _runs(site)),
        ),
    )


def _sum(site: Site) -> Panel:
    one, evidence = site.outbox, site.outbox.evidence()
    facts = [
        Fact("messages", msg("Messages"), one.left.sent_count()),
        Fact("bytes", msg("Bytes"), Bytes(one.left.sent_bytes())),
        Fact("without-receipt", msg("Entries that wait for a receipt"), one.pending_count()),
        Fact(
            "log",
            msg("The log"),
            Mark("bad", msg("contradicted itself: this node is stopped"), "contradicted")
            if evidence
            else Mark(
                "good", msg("one history, seen up to entry {size}", size=one.shown.seen().size), "one-history"
            ),
        ),
    ]
    if evidence:
        at_ms, _, _ = evidence[0]
        facts.append(Fact("stopped", msg("Stopped"), Moment(at_ms)))
        facts.append(Fact("evidence", msg("Evidence"), Command("iriai-node receipt verify --json")))
    prose = (
        msg("Recordings never leave. What does is listed here before it leaves, one row for each message."),
    )
    return Panel(name="sum", title=msg("In all"), facts=tuple(facts), prose=prose)


def _sent(site: Site, asked: Asked) -> Panel:
    run, csv = asked.text("run"), asked.query.get("format") == "csv"
    limit = CSV_ROWS if csv else ROWS
    rows, cursor = site.outbox.left.page(run=run, before=asked.cursor(), limit=limit)
    title = msg("Transmissions") if run is None else msg("Transmissions of {run}", run=Data(run))
    links = () if run is None else (Link("/outbox", msg("Show every run")),)
    if not rows:
        return Panel(
            name="sent",
            title=title,
            links=links,
            empty=Empty(
                msg("Here stands every message that left: when, how large, what kind, by which clause."),
                msg("Nothing has left yet.") if run is None else msg("Nothing left for this run."),
                Command("iriai-node outbox list"),
            ),
        )
    stopped = min((at_ms for at_ms, _, _ in site.outbox.evidence()), default=None)
    demanding = _demanding(site) if any(one.envelopes for one in rows) else frozenset()
    kept = {} if run is None else {"run": run}
    more = None if cursor is None else Link("/outbox", msg("Older ones"), {**kept, "before": str(cursor)})
    return Panel(
        name="sent",
        title=title,
        links=links,
        table=Table(
            msg("What left this site, the newest first"),
            _COLUMNS,
            tuple(_row(one, site.clock.now_ms(), stopped, demanding) for one in rows),
            more=more,
            total=site.outbox.left.sent_count(run),
        ),
    )


def _demanding(site: Site) -> frozenset[str]:
    """Contracts that demand witnesses: what left under them and nobody vouched for in time is late."""
    from client.witnessing.showing import standings

    return frozenset(one.contract for one in standings(site.member, site.shelf, site.outbox) if one.k)


def _row(one: Transmission, now_ms: int, stopped: int | None, demanding: frozenset[str]) -> tuple[Value, ...]:
    grade = one.grade(now_ms=now_ms, stopped_ms=stopped, demanding=demanding)
    return (
        Moment(one.at_ms),
        Code(one.kind),
        Bytes(one.size_bytes),
        None if one.run is None else Link("/outbox", Data(one.run), {"run": one.run}),
        one.round,
        None if one.clause is None else Code(one.clause),
        None if not one.envelopes else msg("{n} of {m}", n=one.receipts, m=one.envelopes),
        _GRADES[grade],
        Digest(one.digest),
    )


def _runs(site: Site) -> Panel:
    rows = tuple(
        (
            msg("without a run") if one.run is None else Link("/outbox", Data(one.run), {"run": one.run}),
            one.messages,
            Bytes(one.size_bytes),
            Moment(one.first_ms),
            Moment(one.last_ms),
        )
        for one in site.outbox.left.totals()
    )
    columns = (
        Column("run", msg("Run")),
        Column("messages", msg("Messages"), numeric=True),
        Column("bytes", msg("Bytes"), numeric=True),
        Column("first", msg("First")),
        Column("last", msg("Last")),
    )
    if not rows:
        return Panel(
            name="runs",
            title=msg("Run by run"),
            empty=Empty(msg("Here stands what left for each run, added up."), msg("Nothing has left yet.")),
        )
    return Panel(
        name="runs", title=msg("Run by run"), table=Table(msg("What left for each run"), columns, rows)
    )
