# SPDX-License-Identifier: Apache-2.0
"""How two values of a field compare: which of them is tighter. Standard library only.

- A *direction* (caps down, k up, sets smaller, embargo longer) gives one `Move` per step: what comes into a
  set and what goes out of it are two. A field may also say that two values cannot be compared: ``changed``
  (another thing is meant), ``text`` (words for people).
- A bound that is null is no bound: the loosest value.
- ``judged`` says whether `evaluate` looks at the field. What it does not look at, only the order table or all
  signatures can settle: a proof over requests says nothing about it (`policies.contract.amendment`).

    DOWN.moves("4", "6")        # one Move: looser, "4 -> 6"
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final, Literal

from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Bound", "Direction", "Ladder", "Members", "Move", "Order", "Other", "Term", "plain"]

Json = Any  # a JSON value
Direction = Literal["tighter", "looser", "changed", "text"]

_DAY_MS: Final = 86_400_000
_SHOWN: Final = 60  # characters of one value in a line for people
_DIGEST_SHOWN: Final = 19  # sha256: and 12 hex digits
_KEY_SHOWN: Final = 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One step of one field.

    Attributes:
        direction: Of the step.
        before: JSON of what was there, or of the members that are gone.
        after: JSON of what is there, or of the members that are new.
        words: For people, without the field's name.
    """

    direction: Direction
    before: Json
    after: Json
    words: str


class Order:
    """How two values of a field compare. Subclasses say which of them is tighter."""

    __slots__ = ()
    judged: bool

    def moves(self, before: Json, after: Json) -> Iterator[Move]:
        """The steps from one value to the other; none where they are equal."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Bound(Order):
    """A number (integer, or decimal as a string) that bounds something; null bounds nothing."""

    tighter: Literal["down", "up"]
    judged: bool = True

    def moves(self, before: Json, after: Json) -> Iterator[Move]:  # noqa: D102
        if before != after:
            down = after is not None and (before is None or Decimal(after) < Decimal(before))
            up = after is not None and (before is None or Decimal(after) > Decimal(before))
            tighter = down if self.tighter == "down" else up
            yield _step("tighter" if tighter else "looser", before, after)


@dataclass(frozen=True, slots=True)
class Term(Order):
    """An end of the term."""

    tighter: Literal["earlier", "later"]
    judged: bool = True

    def moves(self, before: Json, after: Json) -> Iterator[Move]:  # noqa: D102
        if before == after:
            return
        tighter = (after < before) == (self.tighter == "earlier")
        days, rest = divmod(abs(to_ms(after) - to_ms(before)), _DAY_MS)
        sign = "+" if after > before else "-"
        unit = "day" if days == 1 else "days"
        words = f"{before} -> {after}" if rest else f"{sign} {days} {unit}"
        yield Move(direction="tighter" if tighter else "looser", before=before, after=after, words=words)


@dataclass(frozen=True, slots=True)
class Members(Order):
    """A set; what comes and what goes are two steps, each with its own direction."""

    tighter: Literal["smaller", "larger"]
    judged: bool = True

    def moves(self, before: Json, after: Json) -> Iterator[Move]:  # noqa: D102
        old, new = _rows(before), _rows(after)
        gone = [old[name] for name in sorted(old.keys() - new.keys())]
        came = [new[name] for name in sorted(new.keys() - old.keys())]
        if came:
            way: Direction = "tighter" if self.tighter == "larger" else "looser"
            yield Move(direction=way, before=[], after=came, words="+ " + _names(came))
        if gone:
            way = "tighter" if self.tighter == "smaller" else "looser"
            yield Move(direction=way, before=gone, after=[], words="- " + _names(gone))


@dataclass(frozen=True, slots=True)
class Ladder(Order):
    """One of a few words, the tightest first."""

    steps: tuple[Json, ...]
    judged: bool = True

    def moves(self, before: Json, after: Json) -> Iterator[Move]:  # noqa: D102
        if before == after:
            return
        known = before in self.steps and after in self.steps
        tighter = known and self.steps.index(after) < self.steps.index(before)
        yield _step("tighter" if tighter else "looser", before, after)


@dataclass(frozen=True, slots=True)
class Other(Order):
    """Values that cannot be compared: neither is tighter."""

    direction: Direction
    judged: bool = True

    def moves(self, before: Json, after: Json) -> Iterator[Move]:  # noqa: D102
        if before != after:
            yield _step(self.direction, before, after)


def plain(value: Json) -> str:
    """A value in one short line for people; digests and keys by their beginning."""
    if value is None or value == []:
        return "none"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return _names(value)
    if isinstance(value, dict):
        owner = [plain(value["party"])] if "party" in value else []
        return ":".join(owner + [plain(one) for key, one in value.items() if key != "party"])
    return _short(str(value))


def _short(text: str) -> str:
    for prefix, shown in (("sha256:", _DIGEST_SHOWN), ("ed25519:", _KEY_SHOWN)):
        if text.startswith(prefix):
            return text[:shown]
    if " " in text:
        text = json.dumps(text, ensure_ascii=False)
    return text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "..."


def _names(values: Sequence[Json]) -> str:
    return " ".join(plain(one) for one in values)


def _rows(values: Sequence[Json] | None) -> dict[str, Json]:
    return {json.dumps(one, sort_keys=True): one for one in values or ()}


def _step(direction: Direction, before: Json, after: Json) -> Move:
    words = f"{plain(before)} -> {plain(after)}"
    return Move(direction=direction, before=before, after=after, words=words)
