# SPDX-License-Identifier: Apache-2.0
"""Entries of the log for screens: newest first, page by page, by index alone. Never the whole log.

A search for text looks at `SEARCHED` entries for each page and says where it stopped.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.console.values import Block, Code, Count, Foreign, Link, Moment, Nothing, Value
from broker.store.tables import log_entry
from policies.log.entries import EntryType, check_entry
from policies.ports import to_ms
from policies.verify.prose import sentence
from policies.verify.shown import visible

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import ColumnElement

    from broker.console.viewing import View
    from policies.log.entries import Entry

__all__ = ["PAGE", "SEARCHED", "Found", "cursor", "entry_row", "newest", "shown_value"]

PAGE: Final = 50
SEARCHED: Final = 5_000
_DIGITS: Final = 15


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A page of entries, newest first; ``next``: index below which the following page begins, or None."""

    entries: tuple[tuple[int, Entry], ...]
    next: int | None


def cursor(query: Mapping[str, str]) -> int | None:
    """The index of ``?after=``, or None; what is no index is none."""
    text = query.get("after", "")
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else None


def newest(view: View, *, kinds: tuple[EntryType, ...] = (), limit: int = PAGE) -> Found:
    """Entries below the cursor that fit the filters of the query (``run``, ``scope``, ``actor``, ``q``)."""
    head = view.services.writer.head().size
    before = cursor(view.query)
    below = head if before is None else min(before, head)
    wanted, text = _filters(view, kinds), view.query.get("q", "").strip()
    looked = SEARCHED if text else limit + 1
    rows = view.session.execute(
        select(log_entry.c.idx, log_entry.c.body)
        .where(log_entry.c.idx < below, *wanted)
        .order_by(log_entry.c.idx.desc())
        .limit(looked)
    ).all()
    fits = [(row.idx, row.body) for row in rows if text.encode() in row.body]
    shown = fits[:limit]
    if len(fits) > limit:
        following: int | None = shown[-1][0]
    else:
        following = rows[-1].idx if text and len(rows) == looked else None
    return Found(entries=tuple((index, check_entry(body)) for index, body in shown), next=following)


def _filters(view: View, kinds: tuple[EntryType, ...]) -> list[ColumnElement[bool]]:
    query = view.query
    types = [one.value for one in kinds]
    if query.get("type"):
        types = [one for one in types if one == query["type"]] if types else [query["type"]]
        types = types or [""]
    wanted: list[ColumnElement[bool]] = [log_entry.c.type.in_(types)] if types else []
    wanted += [
        getattr(log_entry.c, name) == query[name] for name in ("run", "scope", "actor") if query.get(name)
    ]
    return wanted


def entry_row(index: int, entry: Entry, lang: str) -> dict[str, Value]:
    """One line of a table of entries."""
    return {
        "index": Link(Count(index), f"/audit/log/{index}"),
        "time": Moment(to_ms(entry.ts)),
        "type": Code(entry.type.value),
        "what": Foreign(sentence(entry, lang), lang),
        "run": Code(entry.run) if entry.run else Nothing(),
        "round": Nothing() if entry.round is None else Count(entry.round),
    }


def shown_value(text: object) -> Value:
    """A value of an entry, every character of it one that can be seen."""
    words = visible(text)
    return Block(words) if "\n" in words else Code(words)
