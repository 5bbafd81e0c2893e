# SPDX-License-Identifier: Apache-2.0
"""Where a model comes from: release, votes, aggregates, contributions, contract; each step with its entry."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.console.auditor.reading import entry_row, newest
from broker.console.screens import READERS, Area, Column, Fact, Panel, Room, Screen, Sees, Table
from broker.console.values import Code, Count, Digest, Link, Nothing, T, Value
from broker.errors import NotFoundError
from broker.store.tables import log_entry
from policies.log.entries import EntryType, check_entry

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.console.viewing import View
    from policies.log.entries import Entry

__all__ = ["room"]

room = Room("lineage")
_STEPS: Final = 50


@room.screen(
    "/audit/lineage",
    name="lineage",
    title=T("Lineage"),
    roles=READERS,
    sees=Sees.EVERYTHING,
    area=Area.AUDIT,
    command="iriai-verify verify bundle.zip --policy policy.txt --report audit.html",
    nav=True,
)
def lineage(view: View) -> Screen:
    """Which released model comes from where?"""
    released = newest(view, kinds=(EntryType.MODEL_RELEASED,))
    table = Table(
        name="releases",
        caption=T("Released models, newest first"),
        columns=(
            Column("model", T("Model")),
            Column("tier", T("Tier")),
            Column("contract", T("Contract")),
            Column("run", T("Run")),
            Column("clause", T("Clause")),
            Column("index", T("Entry")),
        ),
        rows=[_release(index, entry) for index, entry in released.entries],
        empty=T(
            "No model was released yet: lineage begins with the first release. "
            "A contributor votes by {command}.",
            command=Code("iriai-node release approve CANDIDATE"),
        ),
        more=None if released.next is None else {"after": str(released.next)},
    )
    panels = [Panel(name="releases", title=T("Released models"), table=table)]
    if view.query.get("entry"):
        panels += _behind(view, view.query["entry"])
    return Screen(panels=panels)


def _release(index: int, entry: Entry) -> dict[str, Value]:
    pub = entry.pub
    return {
        "model": Link(Digest(str(pub["model"])), f"/audit/lineage?entry={index}"),
        "tier": Code(str(pub["tier"])),
        "contract": Digest(entry.scope or ""),
        "run": Code(entry.run or ""),
        "clause": Code(str(pub["clause"])),
        "index": Link(Count(index), f"/audit/log/{index}"),
    }


def _behind(view: View, text: str) -> list[Panel]:
    entry = _entry(view, text)
    run, model = entry.run, entry.pub["model"]
    aggregates = _of_run(view, run, EntryType.AGGREGATE_RELEASED, before=int(text))
    votes = _votes(view, run, str(model), before=int(text))
    opened = _of_run(view, run, EntryType.RUN_OPENED, before=int(text))
    start = opened[0] if opened else None
    facts = (
        Fact("model", T("Model"), Digest(str(model))),
        Fact("contract", T("Contract"), Digest(entry.scope or "")),
        Fact("recipe", T("Recipe"), Nothing() if start is None else Digest(str(start[1].pub["recipe"]))),
        Fact("statement", T("Privacy statement"), _digest(entry.pub.get("statement"))),
        Fact("opened", T("Run opened"), Nothing() if start is None else _place(start[0])),
        Fact("votes", T("Votes"), _counted(votes)),
    )
    return [
        Panel(name="model", title=T("This model"), facts=facts),
        Panel(
            name="votes",
            title=T("Votes before its release"),
            table=_told(view, "votes", T("Votes"), votes[:_STEPS]),
        ),
        Panel(name="aggregates", title=T("The sums behind it"), table=_sums(aggregates)),
    ]


def _entry(view: View, text: str) -> Entry:
    index = int(text) if text.isdecimal() and len(text) <= 15 else -1  # noqa: PLR2004  fits an integer
    row = view.session.execute(
        select(log_entry.c.body).where(
            log_entry.c.idx == index, log_entry.c.type == EntryType.MODEL_RELEASED.value
        )
    ).first()
    if row is None:
        raise NotFoundError(
            need="the entry of a release", found=ascii(text)[:40], remedy="choose one on /audit/lineage"
        )
    return check_entry(row.body)


def _of_run(
    view: View, run: str | None, kind: EntryType, *, before: int, limit: int | None = _STEPS
) -> list[tuple[int, Entry]]:
    rows = view.session.execute(
        select(log_entry.c.idx, log_entry.c.body)
        .where(log_entry.c.run == run, log_entry.c.type == kind.value, log_entry.c.idx < before)
        .order_by(log_entry.c.idx.desc())
        .limit(limit)
    ).all()
    return [(row.idx, check_entry(row.body)) for row in rows]


def _votes(view: View, run: str | None, model: str, *, before: int) -> list[tuple[int, Entry]]:
    """Every vote about a model before its release, newest first; a party that spoke often hides nobody."""
    found = _of_run(view, run, EntryType.VOTE_CAST, before=before, limit=None)
    return [(index, one) for index, one in found if one.pub["subject"] == model]


def _counted(votes: Sequence[tuple[int, Entry]]) -> Value:
    """The last word of each who voted, newest first in `votes`."""
    last: dict[str, object] = {}
    for _, one in votes:
        last.setdefault(one.actor, one.pub["vote"])
    for_it = sum(word == "approve" for word in last.values())
    return T("{n}: {k} for it, {m} against", n=Count(len(last)), k=Count(for_it), m=Count(len(last) - for_it))


def _told(view: View, name: str, caption: T, found: Sequence[tuple[int, Entry]]) -> Table:
    return Table(
        name=name,
        caption=caption,
        columns=(
            Column("index", T("Entry")),
            Column("time", T("Minute")),
            Column("what", T("What happened")),
        ),
        rows=[entry_row(index, entry, view.lang) for index, entry in found],
        empty=T("Nobody voted before this release."),
    )


def _sums(found: Sequence[tuple[int, Entry]]) -> Table:
    return Table(
        name="aggregates",
        caption=T("Aggregates of its run, newest first (at most {n})", n=Count(_STEPS)),
        columns=(
            Column("round", T("Round")),
            Column("model", T("Model made of it")),
            Column("count", T("Contributions")),
            Column("behind", T("Their entries")),
            Column("index", T("Entry")),
        ),
        rows=[_sum(index, entry) for index, entry in found],
        empty=T("No aggregate was released in this run."),
    )


def _sum(index: int, entry: Entry) -> dict[str, Value]:
    first, last = (min(entry.refs), max(entry.refs)) if entry.refs else (None, None)
    behind: Value = Nothing() if first is None else T("{a} to {b}", a=_place(first), b=_place(last or first))
    pub: Any = entry.pub
    return {
        "round": Nothing() if entry.round is None else Count(entry.round),
        "model": Digest(str(pub["model"])),
        "count": Count(int(pub["count"])),
        "behind": behind,
        "index": _place(index),
    }


def _place(index: int) -> Link:
    return Link(Count(index), f"/audit/log/{index}")


def _digest(value: object) -> Value:
    return Digest(value) if isinstance(value, str) else Nothing()
