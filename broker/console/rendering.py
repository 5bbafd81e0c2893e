# SPDX-License-Identifier: Apache-2.0
"""From values to HTML: one Jinja environment, and how each kind of value is shown.

- Autoescape is on and undefined names are errors: a template that asks for what is not there fails in its
  test, not on a page.
- `shown` is the only place where a value becomes markup. Whatever came from another party goes through
  `_foreign`, which isolates its direction and says that it is not to be translated.
"""

from __future__ import annotations

import functools
import hashlib
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape

from broker.console.states import sign_of
from broker.console.values import (
    Block,
    Bytes,
    Code,
    Count,
    Digest,
    Duration,
    Folded,
    Foreign,
    Hidden,
    Link,
    Moment,
    Name,
    Nothing,
    Number,
    Share,
    State,
    T,
    Value,
    When,
)
from policies.encoding import digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.console.languages import Speech
    from broker.console.screens import Screen

__all__ = ["STATIC", "Said", "asset", "environment", "query_string"]

_HERE: Final = Path(__file__).parent
STATIC: Final = _HERE / "static"
_SHORT: Final = 12
_NUMBERS: Final = (Count, Number, Share, Bytes, Duration)
_WHOLE: Final = 24
"""A word up to this wide is never broken; a longer one may be, so that the layout stays whole."""
_WORDY, _WORDIER = 40, 72  # how wide a text is that needs room in a table
_PLACES: Final = re.compile(r"(?<=[/,])(?=[^\s/,])|(?<=\.)(?=[A-Za-z])")
"""Where a long code may be broken: ``contribution.|accepted``, ``/api/|v1/|runs``."""
_PIECES: Final = re.compile(r"[\s/,.-]+")


@functools.cache
def environment() -> Environment:
    """The templates; `Said` gives them the language."""
    made = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        undefined=StrictUndefined,
        autoescape=select_autoescape(default=True),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.globals.update(
        asset=asset,
        T=T,
        count=Count,
        code=Code,
        moment=When,
        exactly=Moment,
        nothing=Nothing(),
        is_number=lambda value: isinstance(value, _NUMBERS),
        room_for=_room_for,
        is_block=lambda value: isinstance(value, Block),
        is_foreign=lambda value: isinstance(value, (Name, Code, Digest, Foreign)),
        subject_digest=lambda subject: Digest(digest(subject)),
        fresh_ids=_fresh_ids,
    )
    return made


def _fresh_ids(screen: Screen) -> list[str]:
    """Parts that may be renewed under the reader's hands: none with a form, none with a stream of its own."""
    return [f"p-{one.name}" for one in screen.panels if not one.forms and one.live is None]


@functools.cache
def asset(name: str) -> str:
    """Path of a static file; the hash in it lets it be cached for ever."""
    data = (STATIC / name).read_bytes()
    return f"/console/static/{hashlib.sha256(data).hexdigest()[:16]}/{name}"


def query_string(query: Mapping[str, str], **changes: str | None) -> str:
    """A query with some names changed or, with None, left out; ``?`` in front unless it is empty."""
    merged = {**query, **changes}
    text = urlencode({name: value for name, value in merged.items() if value is not None})
    return f"?{text}" if text else "?"


@dataclass(frozen=True, slots=True)
class Said:
    """Values as one reader reads them, at one moment."""

    speech: Speech
    now_ms: int

    def __call__(self, value: Value) -> Markup:
        """A value as HTML."""
        return self.shown(value)

    def text(self, value: Value) -> str:
        """A value as plain text in the reader's language, for titles, labels and pictures."""
        return self.shown(value).striptags()

    def shown(self, value: Value) -> Markup:  # noqa: PLR0911, PLR0912, C901  one line per kind of value
        """A value as HTML."""
        say = self.speech
        match value:
            case T():
                return self._translated(value)
            case Name(text):
                return _foreign(text)
            case Code(text):
                return Markup('<code translate="no"{}>{}</code>').format(_long(text), _breakable(text))
            case Block(text):
                return Markup('<pre translate="no" tabindex="0">{}</pre>').format(_worded(text))
            case Digest(text):
                return _digest(text)
            case Foreign(text, lang):
                return Markup('<bdi lang="{}" class="foreign{}">{}</bdi>').format(
                    lang, " long" if _breaks(text) else "", text
                )
            case Count(number):
                return escape(say.number(number))
            case Number(text):
                return Markup('<span class="num" translate="no">{}</span>').format(text)
            case Share(part):
                return escape(say.share(part))
            case Bytes(number):
                return Markup('<span translate="no">{}</span>').format(say.size(number))
            case Duration(ms):
                return Markup('<span class="num" translate="no">{}</span>').format(say.length(ms))
            case When(ms):
                return Markup('<time datetime="{}" title="{}">{}</time>').format(
                    say.machine(ms), say.moment(ms), say.away(ms, self.now_ms)
                )
            case Moment(ms):
                return Markup('<time class="exact" datetime="{}" translate="no">{}</time>').format(
                    say.machine(ms), say.moment(ms).replace(" UTC", "\N{NO-BREAK SPACE}UTC")
                )
            case State(word):
                return self._state(word)
            case Link(inner, href):
                return Markup('<a href="{}">{}</a>').format(href, self.shown(inner))
            case Folded(label, within):
                parts = Markup(" ").join(self.shown(one) for one in within)
                return Markup("<details><summary>{}</summary>{}</details>").format(self.shown(label), parts)
            case Nothing(why):
                return self._absent(why if why is not None else T("none"))
            case Hidden(clause):
                return self._absent(T("hidden from you by clause {clause}", clause=Code(clause)))

    def moment(self, ms: int) -> str:
        """A moment in full."""
        return self.speech.moment(ms)

    def _translated(self, text: T) -> Markup:
        message = escape(self.speech.message(text.msgid))
        values = {name: self.shown(value) for name, value in text.values.items()}
        return message.format(**values)

    def _state(self, word: str) -> Markup:
        sign = sign_of(word)
        if sign is None:
            return Markup('<code translate="no">{}</code>').format(word)
        said = self.shown(sign.text)
        return Markup(
            '<span class="state {}{}"><span class="shape" aria-hidden="true">{}</span>&nbsp;{}</span>'
        ).format(sign.tone, " long" if _wide(said) > _WHOLE else "", sign.shape, said)

    def _absent(self, why: T | Name) -> Markup:
        return Markup('<span class="absent">{}</span>').format(self.shown(why))


def _foreign(text: str) -> Markup:
    return Markup('<bdi class="name{}" translate="no">{}</bdi>').format(
        " long" if _breaks(text) else "", text
    )


def _wide(text: str) -> int:
    """How wide a text is, in Latin letters."""
    if text.isascii():
        return len(text)
    return sum(1 + (unicodedata.east_asian_width(one) in "WF") for one in text)


def _breaks(text: str) -> bool:
    """Whether a word of the text is so long that it has to be broken somewhere."""
    return len(text) > _WHOLE and any(_wide(one) > _WHOLE for one in _PIECES.split(text))


def _long(text: str) -> Markup:
    return Markup(' class="long"') if _breaks(text) else Markup("")


def _breakable(text: str) -> Markup:
    """A code that a line may end in, at a sign where a reader would end it."""
    if len(text) <= _WHOLE - 4 or " " in text:
        return _worded(text)
    return Markup("<wbr>").join(_PLACES.split(text))


def _worded(text: str) -> Markup:
    """A command whose options are never broken after their hyphens."""
    if " -" not in text:
        return escape(text)
    words = re.split(r"(\s-\S+)", text)
    return Markup("").join(
        Markup('{}<span class="word">{}</span>').format(one[0], one[1:]) if number % 2 else one
        for number, one in enumerate(words)
    )


def _room_for(value: Value, shown: Markup) -> str:
    """The class of a cell: how much room its text needs."""
    if isinstance(value, _NUMBERS):
        return "num"
    if isinstance(value, Folded):
        return ""
    wide = _wide(shown.striptags())
    return "wordier" if wide > _WORDIER else "wordy" if wide > _WORDY else ""


def _digest(text: str) -> Markup:
    head, _, rest = text.rpartition(":")
    short = f"{rest[:_SHORT]}…" if len(rest) > _SHORT + 1 else rest
    return Markup(
        '<code class="digest" translate="no" title="{}" data-copy="{}">'
        '<span class="scheme">{}</span>{}</code>'
    ).format(text, text, f"{head}:" if head and head != "sha256" else "", short)
