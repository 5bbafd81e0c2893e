# SPDX-License-Identifier: Apache-2.0
"""Values of a screen as HTML, as JSON and as CSV cells. Here, and nowhere else, a value becomes markup.

- Whatever is not `Markup` is escaped where it is put in; what others wrote is isolated (``<bdi>``), and its
  control and direction characters are shown as escapes.
- JSON and CSV carry whole digests, times in UTC, plain numbers and English sentences: they are for programs,
  and the same in every language.
- A CSV cell that a spreadsheet would take for a formula gets an apostrophe before it.
"""

from __future__ import annotations

import csv
import io
import json
import re
from functools import singledispatchmethod
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote, urlencode

from babel.dates import format_datetime
from babel.numbers import format_decimal
from markupsafe import Markup, escape

from client.answers import plain, short
from client.page.gauges import gauge
from client.page.values import (
    Bytes,
    Code,
    Command,
    Data,
    Digest,
    Gauge,
    Link,
    Mark,
    Moment,
    Several,
    Share,
    Spoken,
    Text,
    msg,
)
from policies.ports import from_ms, iso_s

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from client.page.values import Panel, Screen, Table, Value
    from client.page.words import Words

__all__ = ["Painter", "csv_of", "json_of", "raw"]

_SHAPES: Final = {"good": "●", "warn": "▲", "bad": "■", "idle": "○"}
_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r")
_UNITS: Final = ((86_400, msg("{n} d")), (3_600, msg("{n} h")), (60, msg("{n} min")), (1, msg("{n} s")))
_SEAMS: Final = re.compile(r"(?<=[.:/_-])")
_NONE: Final = Markup(
    '<span class="none"><span aria-hidden="true">&ndash;</span><span class="heard">{}</span></span>'
)
_KIB: Final = 1024
_SIZES: Final = ("B", "KiB", "MiB", "GiB", "TiB")


class Painter:
    """Makes HTML of values, in one language, at one moment.

    Args:
        words: The language.
        now_ms: What ages are counted from.
        asked: The language that the address asked for; links go on asking for it.
    """

    def __init__(self, words: Words, *, now_ms: int, asked: str | None = None) -> None:
        self.words = words
        self._now_ms = now_ms
        self._asked = asked
        self._drawn = 0

    def href(self, path: str, query: Mapping[str, str] | None = None) -> str:
        """The address of a screen."""
        asked = {} if self._asked is None else {"lang": self._asked}
        found = urlencode({**(query or {}), **asked})
        return quote(path) + (f"?{found}" if found else "")

    @singledispatchmethod
    def html(self, value: Value) -> Markup:
        """A value as markup."""
        return escape(str(value))

    @html.register
    def _(self, _: None) -> Markup:
        return _NONE.format(self.html(msg("none")))

    @html.register
    def _(self, value: int) -> Markup:
        return escape(format_decimal(value, locale=self.words.lang))

    @html.register
    def _(self, value: str) -> Markup:
        return Markup('<span translate="no">{}</span>').format(value)

    @html.register
    def _(self, value: Text) -> Markup:
        told = escape(self.words.sentence(value.msgid))
        return told.format(**{name: self.html(one) for name, one in value.values.items()})

    @html.register
    def _(self, value: Data) -> Markup:
        return Markup('<bdi translate="no">{}</bdi>').format(plain(value.text))

    @html.register
    def _(self, value: Code) -> Markup:
        parts = _SEAMS.split(plain(value.text))  # where a long word may be broken
        return Markup('<code translate="no">{}</code>').format(Markup("<wbr>").join(parts))

    @html.register
    def _(self, value: Spoken) -> Markup:
        return Markup('<span lang="{}">{}</span>').format(value.lang, plain(value.text))

    @html.register
    def _(self, value: Digest) -> Markup:
        shown = value.full if value.whole else short(value.full)
        return Markup('<code class="digest" translate="no" title="{}">{}</code>').format(value.full, shown)

    @html.register
    def _(self, value: Moment) -> Markup:
        return Markup('<time datetime="{}">{}&nbsp;UTC</time> {}').format(
            iso_s(value.at_ms), self._stamp(value.at_ms), self.age(value)
        )

    @html.register
    def _(self, value: Mark) -> Markup:
        return Markup('<span class="mark {}"><span aria-hidden="true">{}</span>&nbsp;{}</span>').format(
            value.kind, _SHAPES[value.kind], self.html(value.text)
        )

    @html.register
    def _(self, value: Bytes) -> Markup:
        return Markup('<span translate="no" title="{} B">{}</span>').format(value.count, self._size(value))

    @html.register
    def _(self, value: Command) -> Markup:
        return Markup('<code class="command" translate="no">{}</code>').format(plain(value.line))

    @html.register
    def _(self, value: Link) -> Markup:
        return Markup('<a href="{}">{}</a>').format(self.href(value.path, value.query), self.html(value.text))

    @html.register
    def _(self, value: Share) -> Markup:
        percent = 100 * value.part / value.whole if value.whole > 0 else 0.0
        told = format_decimal(round(percent, 1), locale=self.words.lang)
        return Markup('<span class="share" translate="no">{}&nbsp;%</span>').format(told)

    @html.register
    def _(self, value: Several) -> Markup:
        if not value.items:
            return self.html(None)
        if value.lines:
            return Markup('<ul class="lines">{}</ul>').format(
                Markup("").join(Markup("<li>{}</li>").format(self.html(one)) for one in value.items)
            )
        return Markup(", ").join(self.html(one) for one in value.items)

    def gauge(self, value: Gauge) -> Markup:
        """A budget as inline SVG."""
        self._drawn += 1
        title = self.html(value.title).striptags()
        return gauge(
            spent=value.spent, held=value.held, whole=value.whole, name=f"gauge-{self._drawn}", title=title
        )

    def age(self, value: Moment) -> Markup:
        """How long ago, or how long until; marked where it is too old to rely on."""
        seconds = (self._now_ms - value.at_ms) // 1000
        size, unit = next((one for one in _UNITS if abs(seconds) >= one[0]), _UNITS[-1])
        told = self.html(Text(unit.msgid, {"n": abs(seconds) // size}))
        frame = msg("{age} ago") if seconds >= 0 else msg("in {age}")
        line = escape(self.words.sentence(frame.msgid)).format(age=told)
        stale = value.fresh_s is not None and seconds > value.fresh_s
        note = Markup(" ▲ {}").format(self.html(msg("stale"))) if stale else Markup("")
        return Markup('<span class="age{}">({}{})</span>').format(" stale" if stale else "", line, note)

    def _stamp(self, at_ms: int) -> str:
        pattern = "yyyy/MM/dd HH:mm:ss" if self.words.lang == "ja" else "yyyy-MM-dd HH:mm:ss"
        return format_datetime(from_ms(at_ms), pattern, locale=self.words.lang)

    def _size(self, value: Bytes) -> str:
        count, unit = float(value.count), 0
        while count >= _KIB and unit < len(_SIZES) - 1:
            count, unit = count / _KIB, unit + 1
        digits = 0 if unit == 0 else 1
        return f"{format_decimal(round(count, digits), locale=self.words.lang)} {_SIZES[unit]}"


def raw(value: Value) -> Any:  # noqa: ANN401, C901, PLR0911  one line for each kind of value
    """A value as JSON has it."""
    match value:
        case Text():
            return value.msgid.format(**{name: _flat(one) for name, one in value.values.items()})
        case Data(text) | Code(text) | Spoken(text):
            return text
        case Digest(full):
            return full
        case Moment(at_ms):
            return iso_s(at_ms)
        case Mark():
            return value.word or raw(value.text)
        case Bytes(count):
            return count
        case Command(line):
            return line
        case Link():
            return raw(value.text)
        case Share():
            return {"part": value.part, "whole": value.whole}
        case Several(items):
            return [raw(one) for one in items]
        case _:
            return value


def _flat(value: Value) -> str:
    found = raw(value)
    if isinstance(found, dict):
        return f"{100 * found['part'] / max(1, found['whole']):.1f} %"
    return ", ".join(map(str, found)) if isinstance(found, list) else str(found)


def json_of(screen: Screen, *, at: str) -> bytes:
    """A screen as one JSON document of the same form as a command's."""
    data = {
        "screen": screen.name,
        "as_of": at,
        "command": screen.command,
        "panels": {one.name: _panel(one) for one in screen.panels},
    }
    text = json.dumps({"schema": "1", "status": "ok", "data": data}, ensure_ascii=False, sort_keys=True)
    return text.encode("utf-8")


def _panel(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"facts": {one.name: raw(one.value) for one in panel.facts}}
    if panel.prose:
        found["prose"] = [raw(one) for one in panel.prose]
    if panel.table is not None:
        names = [one.name for one in panel.table.columns]
        found["rows"] = [dict(zip(names, map(raw, row), strict=True)) for row in panel.table.rows]
        found["total"] = panel.table.total
        found["next"] = None if panel.table.more is None else dict(panel.table.more.query)
    if panel.as_of is not None:
        found["as_of"] = raw(panel.as_of)
    if panel.empty is not None:
        found["empty"] = {"what": raw(panel.empty.what), "why": raw(panel.empty.why)}
    if panel.problem is not None:
        one = panel.problem
        found["error"] = {
            "code": one.code,
            "clause": one.clause,
            "need": one.need,
            "found": one.found,
            "remedy": one.remedy,
        }
    if panel.forms:
        found["acts"] = [
            {"act": one.act, "effects": [raw(effect) for effect in one.effects], **one.hidden}
            for one in panel.forms
        ]
    return found


def csv_of(table: Table) -> bytes:
    """A table as CSV, with names of columns in the first line."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    writer.writerow([one.name for one in table.columns])
    writer.writerows(_cells(row) for row in table.rows)
    return out.getvalue().encode("utf-8")


def _cells(row: Iterable[Value]) -> list[str]:
    return [_cell(one) for one in row]


def _cell(value: Value) -> str:
    text = "" if value is None else _flat(value)
    return "'" + text if text.startswith(_FORMULA) else text
