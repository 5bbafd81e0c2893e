# SPDX-License-Identifier: Apache-2.0
"""Section 3: what came in each attempt of each round, and what was refused, for which reason."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType
from policies.verify.page.content import newest, section
from policies.verify.page.drawing import bars
from policies.verify.page.markup import Html, code, link, para, table, tag
from policies.verify.shown import value_text

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.page.content import Page

__all__ = ["rounds"]

Json = Any
_BARS = 60


def rounds(page: Page) -> Html:
    """Section 3."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 3, para(words["history_unread"]))
    closed, more = newest(history, (EntryType.ROUND_CLOSED,))
    if not closed:
        return section(words, 3, para(words["rounds_none"]))
    reasons = _reasons(history, {_place(entry) for _, entry in closed})
    heads = [
        words[key]
        for key in ("run", "round", "attempt", "closed_at", "received", "accepted", "refused", "withdrawn")
    ]
    heads += [words[key] for key in ("outcome", "reasons", "by_party", "at_entry")]
    rows = [_row(page, history, index, entry, reasons[_place(entry)]) for index, entry in closed]
    chart = [
        (f"{entry.round}.{entry.pub['attempt']}", entry.pub["accepted"], entry.pub["refused"])
        for _, entry in reversed(closed[:_BARS])
    ]
    total = len(closed) + more
    title = words["rounds_chart"] if total == len(chart) else _newest(page, len(chart), total)
    drawn = bars(
        chart,
        title=title,
        name="rounds-chart",
        words=(words["accepted"], words["refused"]),
    )
    figure = tag("figure", drawn, tag("figcaption", title)) if drawn else Html("")
    return section(words, 3, figure, table(words, words["s3"], heads, rows, more=more))


def _newest(page: Page, shown: int, total: int) -> str:
    return page.words.fill("rounds_chart_last", shown=shown, total=total)


def _place(entry: Entry) -> tuple[str | None, int | None]:
    return entry.run, entry.round


def _reasons(
    history: History, places: set[tuple[str | None, int | None]]
) -> dict[tuple[str | None, int | None], Counter[str]]:
    """Refusals by reason, of each round that is shown."""
    found: dict[tuple[str | None, int | None], Counter[str]] = defaultdict(Counter)
    for _, entry in history.of(EntryType.CONTRIBUTION_REFUSED):
        if _place(entry) in places:
            clause = f" @{entry.pub['clause']}" if entry.pub["clause"] else ""
            found[_place(entry)][entry.pub["reason"] + clause] += 1
    return found


def _row(page: Page, history: History, index: int, entry: Entry, reasons: Counter[str]) -> list[object]:
    pub, nothing = entry.pub, page.words["nothing"]
    verdicts: dict[str, Json] = {alias: told["verdict"] for alias, told in pub["parties"].items()}
    return [
        code(entry.run or nothing),
        entry.round,
        pub["attempt"],
        entry.ts[:16].replace("T", " "),
        *(pub[name] for name in ("received", "accepted", "refused", "withdrawn")),
        page.words.said(pub["outcome"]),
        ", ".join(f"{name} ({count})" for name, count in sorted(reasons.items())) or nothing,
        value_text(verdicts, entry, history, nothing, names=page.words.told),
        link(index, page.detailed),
    ]
