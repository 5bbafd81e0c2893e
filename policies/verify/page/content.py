# SPDX-License-Identifier: Apache-2.0
"""What every section of the page is made from, and how much of a large log stands in one."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.verify.page.markup import Html, Words, para, tag

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from policies.log.entries import Entry, EntryType
    from policies.verify.history import History
    from policies.verify.page.controls import Control
    from policies.verify.report import Report

__all__ = ["DETAILS", "ROWS", "SAMPLED", "Made", "Page", "newest", "section"]

ROWS = 200
"""Rows of one table; the rest is counted, and stands in the CSV files."""

DETAILS = 25
"""Entries with all details that findings name."""

SAMPLED = 10
"""Entries of the sample with all details."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """What the page was made from, beside the audit itself: file names with digests, options."""

    bundle: tuple[str, str]
    policy: tuple[str, str]
    controls: list[Control]
    seed: str
    sample: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """Everything that sections need.

    Attributes:
        report: Of the audit.
        history: As it was read; None where it could not be.
        made: Files and options.
        words: In the language of the page.
        found: Entries that findings name, the first `DETAILS`.
        drawn: Entries of the sample.
    """

    report: Report
    history: History | None
    made: Made
    words: Words
    found: tuple[int, ...]
    drawn: tuple[int, ...]

    @property
    def detailed(self) -> set[int]:
        """Entries that have a place of their own on the page."""
        return {*self.found, *self.drawn[:SAMPLED]}


def section(words: Words, number: int, *parts: object) -> Html:
    """A numbered section: its title, the one question that it answers, its content."""
    name = f"s{number}"
    head = tag("h2", Html(f"{number}. "), words[name], id=name)
    return tag("section", head, para(words[f"q{number}"], class_="soft"), *parts)


def newest(
    history: History, kinds: Iterable[EntryType], most: int = ROWS
) -> tuple[list[tuple[int, Entry]], int]:
    """The newest entries of some types, newest first, and how many older ones there are."""
    count = 0
    kept: deque[tuple[int, Entry]] = deque(maxlen=most)
    for one in _of(history, kinds):
        kept.append(one)
        count += 1
    return list(reversed(kept)), count - len(kept)


def _of(history: History, kinds: Iterable[EntryType]) -> Iterator[tuple[int, Entry]]:
    return history.of(*kinds)
