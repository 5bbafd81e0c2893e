# SPDX-License-Identifier: Apache-2.0
"""What a screen may show, each kind of value as its own type, so that the page, JSON and CSV say the same.

    Fact("size", T("Log entries"), Count(10_718), as_of_ms=head_ms)
    T("{party} has not signed", party=Name("Kita Robotics"))

- A text of ours is a `T`: an English msgid with a Japanese translation in the catalogue. Its values are
  values themselves; they are never part of the msgid.
- What came from another party is `Name`, `Code`, `Digest` or `Foreign`: shown as text, isolated from the
  direction of the text around it, never translated and never markup.
- `plain` is the value for programs: what JSON and CSV hold. It does not depend on the language.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from policies.ports import iso_ms

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.encoding import Json

__all__ = [
    "Block",
    "Bytes",
    "Code",
    "Count",
    "Digest",
    "Duration",
    "Folded",
    "Foreign",
    "Hidden",
    "Link",
    "Moment",
    "Name",
    "Nothing",
    "Number",
    "Share",
    "State",
    "T",
    "Value",
    "When",
    "plain",
]


class T:
    """A text of ours: ``T("{n} of {m} signed", n=Count(2), m=Count(3))``."""

    __slots__ = ("msgid", "values")

    def __init__(self, msgid: str, **values: Value) -> None:
        self.msgid = msgid
        self.values: Mapping[str, Value] = values

    def __eq__(self, other: object) -> bool:
        return isinstance(other, T) and (self.msgid, self.values) == (other.msgid, other.values)

    def __hash__(self) -> int:
        return hash(self.msgid)

    def __repr__(self) -> str:
        return f"T({self.msgid!r})"

    @property
    def english(self) -> str:
        """The text as programs get it."""
        return self.msgid.format(**{name: _word(value) for name, value in self.values.items()})


@dataclass(frozen=True, slots=True)
class Name:
    """A name that somebody else gave: of a party, a person, a data set."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A word for programs: an id, an error code, a clause, a command. May be copied."""

    text: str


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest or key: short for the eye, whole to copy."""

    text: str


@dataclass(frozen=True, slots=True)
class Block:
    """Several lines for programs or to copy: bytes of an entry, a command."""

    text: str


@dataclass(frozen=True, slots=True)
class Foreign:
    """A text of somebody else, or one that exists in one language only."""

    text: str
    lang: str = "en"


@dataclass(frozen=True, slots=True)
class Count:
    """A whole number."""

    number: int


@dataclass(frozen=True, slots=True)
class Number:
    """A decimal number as its text, which programs get unchanged (epsilon, a loss)."""

    text: str


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, 0..1; shown in per cent."""

    part: float


@dataclass(frozen=True, slots=True)
class Bytes:
    """A size in bytes."""

    number: int


@dataclass(frozen=True, slots=True)
class Duration:
    """A length of time in milliseconds."""

    ms: int


@dataclass(frozen=True, slots=True)
class When:
    """A moment in milliseconds since 1970, shown as UTC with how long ago or how far ahead."""

    ms: int


@dataclass(frozen=True, slots=True)
class Moment:
    """A moment in milliseconds since 1970, shown in full."""

    ms: int


@dataclass(frozen=True, slots=True)
class State:
    """A state word; its text and its sign (shape and colour) stand in `broker.console.states`."""

    word: str


@dataclass(frozen=True, slots=True)
class Link:
    """A value that leads to another screen. ``href`` is a path of ours."""

    value: Value
    href: str


@dataclass(frozen=True, slots=True)
class Folded:
    """Values behind a short label, which opens: ``Folded(T("{n} codes", n=Count(12)), (Code("…"),))``."""

    label: Value
    inner: tuple[Value, ...]


@dataclass(frozen=True, slots=True)
class Nothing:
    """There is none; ``why`` may say why, or be the sign that stands in its place."""

    why: T | Name | None = None


@dataclass(frozen=True, slots=True)
class Hidden:
    """There may be one, but this clause of the contract keeps it from the reader."""

    clause: str


Value: TypeAlias = (
    T
    | Name
    | Code
    | Digest
    | Foreign
    | Block
    | Count
    | Number
    | Share
    | Bytes
    | Duration
    | When
    | Moment
    | State
    | Link
    | Folded
    | Nothing
    | Hidden
)


def plain(value: Value) -> Json:  # noqa: C901, PLR0911  one line per kind
    """The value for programs."""
    match value:
        case T():
            return value.english
        case Name() | Code() | Digest() | Foreign() | Block() | Number():
            return value.text
        case Count() | Bytes():
            return value.number
        case Share():
            return f"{value.part:.6f}"
        case Duration():
            return value.ms
        case When() | Moment():
            return iso_ms(value.ms)
        case State():
            return value.word
        case Link():
            return plain(value.value)
        case Folded():
            return ", ".join(str(plain(one)) for one in value.inner)
        case Nothing():
            return None
        case Hidden():
            return {"hidden_by": value.clause}


def _word(value: Value) -> str:
    found = plain(value)
    if isinstance(found, dict):
        return "hidden"
    return "none" if found is None else str(found)
