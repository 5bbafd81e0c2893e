# SPDX-License-Identifier: Apache-2.0
"""Pictures as SVG made on the server: line, step, bars, gauge, timeline, cells. Pure functions of figures.

    line("loss", T("Loss per round"), [Series(T("mean"), points)], x=T("round"), y=T("loss"))

- Colours are classes of the style sheet, so that light, dark and print work. Every picture has a title and
  a description, and the same figures as a table beside it.
- No zooming; that is what the CSV is for. A thousand points are some ten kilobytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from markupsafe import Markup, escape

from broker.console.screens import Column, Drawing, Table
from broker.console.values import Code, Digest, Moment, Name, Number, Share, T, Value

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Bar", "Cell", "Series", "Span", "bars", "cells", "gauge", "line", "timeline"]

_W, _H = 640, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 56, 16, 12, 34
_TICKS: Final = 4
_GAUGE: Final = 360
_LANE: Final = 160  # where lanes begin
_CELL: Final = 44  # the widest cell
_NAMED: Final = 10  # how many places of an axis are named, at most
_LEGEND: Final = 16
_SHAPES: Final = {"good": "", "busy": "◐", "wait": "◌", "bad": "▲", "off": "■"}
_NO_MARKUP: Final = Markup("")
_EMPTY: Final = T("No figures yet.")


@dataclass(frozen=True, slots=True)
class Series:
    """Points (x, y) under one name, x ascending."""

    label: Value
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bar:
    """One bar: a name, a size of at least 0, and how it is said."""

    label: Value
    size: float
    shown: Value
    tone: str = "good"


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a timeline: from when to when (milliseconds), in which lane, in which tone."""

    lane: Value
    start_ms: int
    end_ms: int
    tone: str
    label: Value


@dataclass(frozen=True, slots=True)
class Cell:
    """One cell of a lane: at which place of the axis, in which tone, and what the tone means."""

    lane: Value
    place: int
    tone: str
    means: T
    label: Value


def line(name: str, title: T, series: Sequence[Series], *, x: T, y: T, step: bool = False) -> Drawing:
    """Lines over a common axis; ``step``: a value holds until the next one."""
    points = [point for one in series for point in one.points]
    rows = [
        {"series": one.label, "x": Number(f"{px:g}"), "y": Number(f"{py:.6g}")}
        for one in series
        for px, py in one.points
    ]
    table = _table(name, title, (Column("series", T("Series")), Column("x", x), Column("y", y)), rows)

    def draw(say: Callable[[Value], str]) -> Markup:
        if not points:
            return _svg(say(title), say(_EMPTY), Markup(""), height=40)
        at_x, at_y = (
            _scale(min(p[0] for p in points), max(p[0] for p in points), _LEFT, _W - _RIGHT),
            _up(points),
        )
        parts = [_axes(points, at_x, at_y, say(x), say(y))]
        for number, one in enumerate(series):
            parts.append(_path(one, at_x, at_y, number, step=step))
            parts.append(
                _text(_LEFT + 8 + 150 * number, _TOP + 4, say(one.label), f"legend s{number % 6}", one.label)
                if len(series) > 1
                else Markup("")
            )
        return _svg(say(title), f"{say(x)} / {say(y)}", Markup("").join(parts))

    return Drawing(name=name, title=title, svg=draw, table=table)


def bars(name: str, title: T, given: Sequence[Bar], *, what: T, size: T) -> Drawing:
    """Horizontal bars, each with its name and figure."""
    most = max((one.size for one in given), default=0.0) or 1.0
    rows: list[dict[str, Value]] = [{"what": one.label, "size": one.shown} for one in given]
    table = _table(name, title, (Column("what", what), Column("size", size)), rows)

    def draw(say: Callable[[Value], str]) -> Markup:
        parts = []
        for number, one in enumerate(given):
            top, wide = 8 + number * 26, 300 * one.size / most
            parts.append(_text(190, top + 14, say(one.label)[:28], "cap end", one.label))
            parts.append(_rect(200, top, wide, 18, f"bar {one.tone}"))
            parts.append(_text(206 + wide, top + 14, say(one.shown), "cap"))
        return _svg(say(title), say(what), Markup("").join(parts), height=max(40, 16 + 26 * len(given)))

    return Drawing(name=name, title=title, svg=draw, table=table)


def gauge(
    name: str, title: T, *, spent: float, reserved: float, cap: float, say_as: Callable[[float], Value]
) -> Drawing:
    """How much of a cap is spent and reserved. ``cap`` above 0; what is over the cap is shown as over."""
    rows: list[dict[str, Value]] = [
        {"what": T("spent"), "size": say_as(spent)},
        {"what": T("reserved"), "size": say_as(reserved)},
        {"what": T("remaining"), "size": say_as(max(cap - spent - reserved, 0.0))},
        {"what": T("cap"), "size": say_as(cap)},
    ]
    table = _table(name, title, (Column("what", T("Part")), Column("size", T("Amount"))), rows)
    part = (spent + reserved) / cap if cap > 0 else 0.0

    def draw(say: Callable[[Value], str]) -> Markup:
        scale = _GAUGE / max(part, 1.0)
        first = scale * (spent / cap if cap > 0 else 0.0)
        content = Markup("").join(
            (
                _rect(4, 8, scale, 22, "track"),
                _rect(4, 8, first, 22, "bar bad" if part > 1 else "bar good"),
                _rect(4 + first, 8, scale * part - first, 22, "bar busy"),
                _text(4, 48, say(Share(part)), "cap"),
                _text(4 + scale, 48, say(say_as(cap)), "cap end"),
            )
        )
        return _svg(say(title), say(Share(part)), content, width=_GAUGE + 8, height=56)

    return Drawing(name=name, title=title, svg=draw, table=table)


def timeline(name: str, title: T, spans: Sequence[Span], *, table: Table) -> Drawing:
    """Lanes over time; the table says the same in words."""
    lanes: dict[Value, int] = {}
    for one in spans:
        lanes.setdefault(one.lane, len(lanes))

    def draw(say: Callable[[Value], str]) -> Markup:
        if not spans:
            return _svg(say(title), say(_EMPTY), Markup(""), height=40)
        at = _scale(min(one.start_ms for one in spans), max(one.end_ms for one in spans), 160, _W - _RIGHT)
        parts = [_text(152, 22 + 26 * row, say(lane)[:22], "cap end", lane) for lane, row in lanes.items()]
        for one in spans:
            wide = max(at(one.end_ms) - at(one.start_ms), 2.0)
            tip = Markup("<title>{}</title>").format(say(one.label))
            parts.append(_rect(at(one.start_ms), 8 + 26 * lanes[one.lane], wide, 18, f"bar {one.tone}", tip))
        low, high = min(one.start_ms for one in spans), max(one.end_ms for one in spans)
        under = 22 + 26 * len(lanes)
        parts.append(_text(_LANE, under, say(Moment(low)), "cap", Code("")))
        parts.append(_text(_W - _RIGHT, under, say(Moment(high)), "cap end", Code("")))
        return _svg(say(title), say(table.caption), Markup("").join(parts), height=under + 10)

    return Drawing(name=name, title=title, svg=draw, table=table)


def cells(
    name: str, title: T, given: Sequence[Cell], *, places: Sequence[int], x: T, table: Table
) -> Drawing:
    """Lanes of equally wide cells over named places, with a legend of their tones.

    Args:
        name: Key of the picture.
        title: What it shows.
        given: The cells.
        places: The number under each place of the axis, from left to right.
        x: What these numbers are.
        table: The same in words.
    """
    lanes: dict[Value, int] = {}
    meanings: dict[str, dict[T, None]] = {}
    for one in given:
        lanes.setdefault(one.lane, len(lanes))
        meanings.setdefault(one.tone, {})[one.means] = None

    def draw(say: Callable[[Value], str]) -> Markup:
        if not given:
            return _svg(say(title), say(_EMPTY), Markup(""), height=40)
        wide = min((_W - _LANE - _RIGHT) / len(places), _CELL)
        parts = [
            _text(_LANE - 8, 22 + 26 * row, say(lane)[:22], "cap end", lane) for lane, row in lanes.items()
        ]
        parts += [
            _cell(_LANE + one.place * wide, 8 + 26 * lanes[one.lane], wide, one, say(one.label))
            for one in given
        ]
        under = 22 + 26 * len(lanes)
        parts += [_text(_LANE - 8, under, say(x), "cap end"), *_numbers(places, wide, under)]
        legend, height = _legend(meanings, say, under + 14)
        return _svg(say(title), say(table.caption), Markup("").join([*parts, legend]), height=height)

    return Drawing(name=name, title=title, svg=draw, table=table)


def _cell(x: float, y: float, wide: float, one: Cell, label: str) -> Markup:
    tip = Markup("<title>{}</title>").format(label)
    made = _rect(x, y, wide - 1.5, 18, f"bar {one.tone}", tip)
    shape = _SHAPES[one.tone]
    return made + (
        _text(x + wide / 2, y + 13, shape, "sign mid") if shape and wide >= _LEGEND else _NO_MARKUP
    )


def _numbers(places: Sequence[int], wide: float, y: float) -> list[Markup]:
    """The numbers under an axis: the first, the last, and some between that do not touch."""
    last, step = len(places) - 1, max(1, -(-len(places) // _NAMED))
    named = {one for one in range(0, last, step) if last - one >= step} | {last}
    return [_text(_LANE + (one + 0.5) * wide, y, str(places[one]), "cap mid") for one in sorted(named)]


def _legend(
    meanings: Mapping[str, Mapping[T, None]], say: Callable[[Value], str], top: float
) -> tuple[Markup, float]:
    """What the tones mean, each on a line of its own, and how high the picture becomes."""
    parts = []
    for tone, means in meanings.items():
        parts.append(_rect(_LANE, top, _LEGEND, 12, f"bar {tone}"))
        if _SHAPES[tone]:
            parts.append(_text(_LANE + _LEGEND / 2, top + 10, _SHAPES[tone], "sign mid"))
        parts.append(_text(_LANE + _LEGEND + 8, top + 10, " / ".join(say(one) for one in means), "cap"))
        top += 20
    return Markup("").join(parts), top + 4


def _table(name: str, title: T, columns: Sequence[Column], rows: Sequence[Mapping[str, Value]]) -> Table:
    return Table(name=name, caption=title, columns=columns, rows=rows, empty=_EMPTY, total=len(rows))


def _scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    wide = high - low
    return lambda value: round(start + (end - start) * ((value - low) / wide if wide else 0.5), 1)


def _up(points: Sequence[tuple[float, float]]) -> Callable[[float], float]:
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    return _scale(low, high, _H - _BOTTOM, _TOP + 10)


def _axes(
    points: Sequence[tuple[float, float]],
    at_x: Callable[[float], float],
    at_y: Callable[[float], float],
    x: str,
    y: str,
) -> Markup:
    low, high = min(p[1] for p in points), max(p[1] for p in points)
    first, last = min(p[0] for p in points), max(p[0] for p in points)
    parts = []
    for number in range(_TICKS + 1 if high > low else 1):
        value = low + (high - low) * number / _TICKS
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(
                _LEFT, _W - _RIGHT, at_y(value), at_y(value)
            )
        )
        parts.append(_text(_LEFT - 6, at_y(value) + 4, f"{value:.4g}", "cap end"))
    parts.append(_text(at_x(first), _H - 18, f"{first:g}", "cap"))
    if last > first:
        parts.append(_text(at_x(last), _H - 18, f"{last:g}", "cap end"))
    parts.append(_text(_W / 2, _H - 4, f"{x} / {y}", "cap mid"))
    return Markup("").join(parts)


def _path(
    one: Series, at_x: Callable[[float], float], at_y: Callable[[float], float], number: int, *, step: bool
) -> Markup:
    places = [(at_x(x), at_y(y)) for x, y in one.points]
    words = [f"M{places[0][0]} {places[0][1]}"] if places else []
    words += [f"H{x}V{y}" if step else f"L{x} {y}" for x, y in places[1:]]
    dots = Markup("").join(
        Markup('<circle class="dot s{}" cx="{}" cy="{}" r="2.5"/>').format(number % 6, x, y)
        for x, y in (places if len(places) <= 60 else [])  # noqa: PLR2004  more dots are a smear
    )
    return Markup('<path class="line s{}" d="{}"/>').format(number % 6, "".join(words)) + dots


def _rect(  # noqa: PLR0917  a rectangle is these
    x: float, y: float, wide: float, high: float, kind: str, inner: Markup = _NO_MARKUP
) -> Markup:
    place = f'x="{x:.1f}" y="{y:.1f}" width="{max(wide, 0.0):.1f}" height="{high:.1f}"'
    return Markup(f'<rect class="{escape(kind)}" {place} rx="3">{escape(inner)}</rect>')  # noqa: S704  numbers


def _text(x: float, y: float, text: str, kind: str, of: Value | None = None) -> Markup:
    """A text of a picture; ``of``: the value that it says, which is not translated if others gave it."""
    kept = Markup(' translate="no"') if isinstance(of, (Name, Code, Digest)) else _NO_MARKUP
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}"{}>{}</text>').format(kind, x, y, kept, text)


def _svg(title: str, desc: str, content: Markup, *, width: int = _W, height: float = _H) -> Markup:
    return Markup(
        '<svg class="chart" viewBox="0 0 {} {:.0f}" role="img" aria-label="{}">'
        "<title>{}</title><desc>{}</desc>{}</svg>"
    ).format(width, height, escape(title), title, desc, content)
