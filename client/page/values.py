# SPDX-License-Identifier: Apache-2.0
"""What a screen is: panels of facts, one table, prose, a drawing and forms. No HTML in it, no language.

Our own words are `Text`, an English sentence with named values, made by `msg` so that they can be collected
and translated. Everything else is a value that says what it is:

    Fact("state", msg("State"), Mark("good", msg("active")))
    Fact("heard", msg("The broker answered"), Moment(at_ms, fresh_s=60))
    Table(msg("What left"), (Column("when", msg("When")), ...), rows)

- What other parties wrote is `Data`: shown as it is, isolated, never translated.
- Sentences that programs say in English alone are `Spoken`.
- `None` as a value means that there is none, and is shown as a dash.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from markupsafe import Markup

__all__ = [
    "Bytes",
    "Choice",
    "Code",
    "Column",
    "Command",
    "Data",
    "Digest",
    "Empty",
    "Fact",
    "Form",
    "Gauge",
    "Link",
    "Mark",
    "Moment",
    "Panel",
    "Problem",
    "Screen",
    "Several",
    "Share",
    "Spoken",
    "Table",
    "Text",
    "Value",
    "msg",
]

Kind = Literal["good", "warn", "bad", "idle"]


@dataclass(frozen=True, slots=True)
class Text:
    """A sentence of ours: its English msgid, and the values of its names."""

    msgid: str
    values: Mapping[str, Value] = field(default_factory=dict)


def msg(msgid: str, **values: Value) -> Text:
    """A sentence of ours; the first argument is a literal, so that it can be collected."""
    return Text(msgid, values)


@dataclass(frozen=True, slots=True)
class Data:
    """A name, an id or a text that is not ours: of another party, of a recording, of the owner."""

    text: str


@dataclass(frozen=True, slots=True)
class Code:
    """A word of the protocol: a kind, a clause id, a code."""

    text: str


@dataclass(frozen=True, slots=True)
class Spoken:
    """A sentence that a program says in one language only, or that came in the reader's own."""

    text: str
    lang: str = "en"


@dataclass(frozen=True, slots=True)
class Digest:
    """A digest: short for the eye, whole where it stands alone or is pointed at."""

    full: str
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Moment:
    """A time, with its age; stale after ``fresh_s`` where that is given."""

    at_ms: int
    fresh_s: int | None = None


@dataclass(frozen=True, slots=True)
class Mark:
    """A state: a word and a shape, never a colour alone. ``word`` is what programs read."""

    kind: Kind
    text: Text
    word: str = ""


@dataclass(frozen=True, slots=True)
class Bytes:
    """A number of bytes."""

    count: int


@dataclass(frozen=True, slots=True)
class Command:
    """A command of this node, to be copied."""

    line: str


@dataclass(frozen=True, slots=True)
class Link:
    """A way to another screen of this page; ``query`` is written into its address."""

    path: str
    text: Text | Data | Digest | Code
    query: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Share:
    """A part of a whole, in percent."""

    part: int
    whole: int


@dataclass(frozen=True, slots=True)
class Several:
    """Some values one after another, or one to a line."""

    items: tuple[Value, ...]
    lines: bool = False


Value = (
    Text
    | Data
    | Code
    | Spoken
    | Digest
    | Moment
    | Mark
    | Bytes
    | Command
    | Link
    | Share
    | Several
    | int
    | str
    | None
)
"""``str`` is a number that is text already; words are `Text` or `Data`."""


@dataclass(frozen=True, slots=True)
class Fact:
    """A named value; ``note`` says what it means where that is not plain."""

    name: str
    label: Text
    value: Value
    note: Text | None = None


@dataclass(frozen=True, slots=True)
class Column:
    """A column; ``numeric`` ones are set to the right."""

    name: str
    label: Text
    numeric: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    """Rows of the same kind. ``more`` leads to the next ones, ``total`` says how many there are in all."""

    caption: Text
    columns: tuple[Column, ...]
    rows: tuple[tuple[Value, ...], ...]
    more: Link | None = None
    total: int | None = None


@dataclass(frozen=True, slots=True)
class Empty:
    """Why nothing is shown: what would be here, why it is not, and what to do next."""

    what: Text
    why: Text
    next: Command | Link | None = None


@dataclass(frozen=True, slots=True)
class Choice:
    """One of several answers in a form."""

    value: str
    text: Text | Data


@dataclass(frozen=True, slots=True)
class Form:
    """A change that the owner may make: what follows in numbers, then the button. It always needs a code."""

    act: str
    button: Text
    hidden: Mapping[str, str] = field(default_factory=dict)
    effects: tuple[Text | Several, ...] = ()
    choices: tuple[Choice, ...] = ()
    choice_label: Text | None = None
    text_label: Text | None = None
    grave: bool = False


@dataclass(frozen=True, slots=True)
class Gauge:
    """A budget as a bar: what is spent, what is held, of the whole; ``title`` says it in words."""

    spent: int
    held: int
    whole: int
    title: Text


@dataclass(frozen=True, slots=True)
class Problem:
    """A refusal, as every error of ours has it."""

    code: str
    need: str
    found: str
    remedy: str
    clause: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One part of a screen. ``as_of`` is when its source said so, where that is another process."""

    name: str
    title: Text
    facts: tuple[Fact, ...] = ()
    table: Table | None = None
    prose: tuple[Text, ...] = ()
    gauge: Gauge | None = None
    drawing: Markup | None = None
    forms: tuple[Form, ...] = ()
    empty: Empty | None = None
    problem: Problem | None = None
    as_of: Moment | None = None
    links: tuple[Link, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Screen:
    """One page: its name, the one question that it answers, the command that prints the same."""

    name: str
    title: Text
    question: Text
    command: str
    panels: tuple[Panel, ...]
