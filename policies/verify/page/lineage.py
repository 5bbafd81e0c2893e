# SPDX-License-Identifier: Apache-2.0
"""Section 6: each released model back to the aggregates, contributions and the contract behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.log.entries import EntryType
from policies.verify.page.content import newest, section
from policies.verify.page.markup import Html, code, items, join, link, para, tag
from policies.verify.shown import actor_of, brief, value_text

if TYPE_CHECKING:
    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.page.content import Page

__all__ = ["lineage"]

_MODELS = 20
_AGGREGATES = 20  # of one model
_SUBMISSIONS = 64  # of one aggregate


def lineage(page: Page) -> Html:
    """Section 6."""
    words, history = page.words, page.history
    if history is None:
        return section(words, 6, para(words["history_unread"]))
    released, more = newest(history, (EntryType.MODEL_RELEASED,), _MODELS)
    if not released:
        return section(words, 6, para(words["models_none"]))
    told = [_model(page, history, index, entry) for index, entry in released]
    left = Html("") if not more else para(words.fill("more_in_csv", count=more), class_="soft")
    return section(words, 6, *told, left)


def _model(page: Page, history: History, index: int, entry: Entry) -> Html:
    words, pub = page.words, entry.pub
    votes = ", ".join(
        f"{one}: {words.said(vote)}" for one, vote in sorted(history.votes(entry, before=index).items())
    )
    recipients = [
        value_text(one.pub["recipient"], one, history, words["nothing"])
        for _, one in history.of(EntryType.MODEL_EXPORTED)
        if (one.pub["model"], one.pub["tier"]) == (pub["model"], pub["tier"])
    ]
    lines: list[object] = [
        words.fill("released_as", tier=pub["tier"], index=index, clause=pub["clause"]),
        words.fill("votes_said", votes=votes or words["nothing"]),
        *_tests(page, history, entry, index),
        words.fill("delivered_to", who=", ".join(dict.fromkeys(recipients)) or words["nothing"]),
        join((words["aggregates"], _aggregates(page, history, entry, index))),
        words.fill("under_contract", contract=brief(entry.scope or words["nothing"])),
    ]
    return tag("article", tag("h3", code(pub["model"])), items(lines), class_="model")


def _tests(page: Page, history: History, entry: Entry, before: int) -> list[str]:
    return [
        page.words.fill(
            "evaluated_in",
            index=index,
            checks=value_text(one.pub["checks"], one, history, page.words["nothing"], names=page.words.told),
        )
        for index, one in history.of(EntryType.CANDIDATE_EVALUATED)
        if index < before and (one.run, one.pub["candidate"]) == (entry.run, entry.pub["model"])
    ][-1:]


def _aggregates(page: Page, history: History, entry: Entry, before: int) -> Html:
    words = page.words
    found = [
        (index, one)
        for index, one in history.of(EntryType.AGGREGATE_RELEASED)
        if index < before and one.run == entry.run
    ]
    lines: list[object] = []
    for index, one in reversed(found[-_AGGREGATES:]):
        said = words.fill(
            "aggregate_line",
            round=one.round,
            index=index,
            model=brief(one.pub["model"]),
            count=one.pub["count"],
        )
        lines.append(join((said, items(_contributions(page, history, one)))))
    if len(found) > _AGGREGATES:
        lines.append(words.fill("more_in_csv", count=len(found) - _AGGREGATES))
    return items(lines)


def _contributions(page: Page, history: History, aggregate: Entry) -> list[object]:
    lines: list[object] = []
    for ref in aggregate.refs[: 2 * _SUBMISSIONS]:
        one = history.entries.get(ref)
        if one is not None and one.type is EntryType.SUBMISSION_RECEIVED:
            said = page.words.fill(
                "contribution_line", index=ref, who=actor_of(history, one), update=brief(one.pub["update"])
            )
            lines.append(said if ref not in page.detailed else join((said, link(ref, page.detailed)), " "))
    return lines
