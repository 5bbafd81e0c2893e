# SPDX-License-Identifier: Apache-2.0
"""Which episodes this node's owner gave away: they are public, and never a private unit again.

- ``donations.json`` is written durably before a donation's file exists. What was given cannot be taken back,
  so nothing is ever removed from it.
- An episode is known by its content, as the store has it, and by its rows in the source, so that whatever is
  cut from them again, under any signal map, is public too; and by the digest of what was published.
- Training and judging leave these episodes out (`client.learner`). A file that cannot be read stops both: an
  episode that the world knows would be claimed to be protected.

    remember(home, [Given(content=…, place=…, published=…, dataset=…, consent=…)])
    is_given(meta, withheld(home))        # whether the store's view leaves an episode out
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from client.data.errors import StoreDamagedError
from client.data.places import RowIndex, Rows
from client.settings import write_durably
from policies.encoding import canonical, parse
from policies.errors import EncodingError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.data.store import EpisodeMeta
    from client.settings import Home

__all__ = ["Given", "Withheld", "given", "is_given", "place_of", "remember", "withheld"]

_SCHEMA: Final = "iriai-donated/1"


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """One episode that was given away.

    Attributes:
        content: Digest of its values in the store, 64 hex digits; stays on the site.
        place: File digest and rows that it was cut from; stays on the site.
        published: Digest of what everybody has of it (`policies.seeds`).
        dataset: The data set that it was taken from.
        consent: Digest of the consent.
    """

    content: str
    place: str
    published: str
    dataset: str
    consent: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Withheld:
    """Contents and rows of everything that was given away."""

    contents: frozenset[str] = frozenset()
    rows: RowIndex = field(default_factory=RowIndex)


def _rows_of(meta: EpisodeMeta) -> Rows:
    return Rows(meta.file_sha256, meta.first_row, meta.last_row)


def place_of(meta: EpisodeMeta) -> str:
    """Where an episode lies in its source, as the catalogue of the store writes it."""
    return str(_rows_of(meta))


def given(home: Home) -> tuple[Given, ...]:
    """Everything that was given away, in the order of giving.

    Raises:
        StoreDamagedError: The file is not what was written.
    """
    try:
        data = home.donations.read_bytes()
    except FileNotFoundError:
        return ()
    try:
        tree = parse(data)
        if tree["schema"] != _SCHEMA:
            raise _damaged(str(tree["schema"]))
        return tuple(Given(**row) for row in tree["episodes"])
    except (EncodingError, KeyError, TypeError) as error:
        raise _damaged(type(error).__name__) from error


def remember(home: Home, episodes: Iterable[Given]) -> None:
    """Adds episodes, durably; one that is there with the same consent is not added again."""
    known = given(home)
    new = [one for one in episodes if one not in known]
    rows = [dataclasses.asdict(one) for one in (*known, *new)]
    write_durably(home.donations, canonical({"schema": _SCHEMA, "episodes": rows}))


def withheld(home: Home) -> Withheld:
    """What was given away, for `is_given`.

    Raises:
        StoreDamagedError: The file is not what was written.
    """
    away = given(home)
    try:
        rows = RowIndex(Rows.read(one.place) for one in away)
    except ValueError as error:
        raise _damaged("a place that is none") from error
    return Withheld(contents=frozenset(one.content for one in away), rows=rows)


def is_given(meta: EpisodeMeta, away: Withheld) -> bool:
    """Whether an episode of the store is one of those, or has a row of one."""
    return meta.content in away.contents or away.rows.overlaps(_rows_of(meta))


def _damaged(found: str) -> StoreDamagedError:
    return StoreDamagedError(
        need="donations.json as it was written: these episodes are public and must stay out of training",
        found=found[:80],
        remedy="restore the file from a backup; or write it anew from the donations that were handed out",
    )
