# SPDX-License-Identifier: Apache-2.0
"""A trace as inline SVG: axes with round numbers, the line that matters, a marked stretch, level lines."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

from policies.verify.page.markup import Html, escaped, join

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.data.quality.traces import Line, Trace
    from policies.verify.page.markup import Words

__all__ = ["drawing"]

_WIDE, _HIGH = 720, 230
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 14, 30, 40
_TICKS: Final = 4
_SLIVER: Final = 4.0  # a marked stretch is at least so wide


class _Scale:
    """Data to places on the drawing, along one axis."""

    def __init__(self, low: float, high: float, start: float, end: float) -> None:
        if high - low < 1e-9 * max(1.0, abs(low), abs(high)):
            low, high = low - 0.5 * max(1.0, abs(low)) * 0.1, high + 0.5 * max(1.0, abs(high)) * 0.1
        self.low, self.high, self._start, self._end = low, high, start, end

    def __call__(self, value: float) -> float:
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self._start + share * (self._end - self._start)

    def ticks(self) -> list[float]:
        """Round values inside: 1, 2 or 5 times a power of ten apart."""
        raw = (self.high - self.low) / _TICKS
        power = 10.0 ** math.floor(math.log10(raw))
        step = next(one * power for one in (1, 2, 5, 10) if one * power >= raw)
        first = math.ceil(self.low / step - 1e-9)
        last = math.floor(self.high / step + 1e-9)
        return [number * step for number in range(first, last + 1)]


def drawing(trace: Trace, words: Words, *, name: str, title: str) -> Html:
    """The picture; ``name`` is the id of its title."""
    xs = [one for line in trace.lines for one in line.x] or [0.0]
    ys = [one for line in trace.lines for one in line.y if not math.isnan(one)]
    ys = [*ys, *trace.levels] or [0.0]
    margin = 0.06 * (max(ys) - min(ys))
    x = _Scale(min(xs), max(xs), _LEFT, _WIDE - _RIGHT)
    y = _Scale(min(ys) - margin, max(ys) + margin, _HIGH - _BOTTOM, _TOP)
    parts: list[Html] = [
        Html(f'<svg role="img" aria-labelledby="{name}" class="trace" viewBox="0 0 {_WIDE} {_HIGH}">'),
        Html(f'<title id="{name}">{escaped(title)}</title>'),
        *_axes(trace, words, x, y),
        *_mark(trace, x),
        *(_level(one, y) for one in trace.levels),
        *(_line(one, x, y) for one in sorted(trace.lines, key=lambda one: one.main)),
        *_legend(trace.lines, words),
        Html("</svg>"),
    ]
    return join(parts)


def _axes(trace: Trace, words: Words, x: _Scale, y: _Scale) -> list[Html]:
    base = _HIGH - _BOTTOM
    unit = words.told.get(f"unit_{trace.unit}", trace.unit)
    parts = [Html(f'<text class="axis-name" translate="no" x="4" y="16">{escaped(unit)}</text>')]
    for value in y.ticks():
        at = y(value)
        parts.append(Html(f'<path class="grid" d="M{_LEFT} {at:.1f} H{_WIDE - _RIGHT}"/>'))
        parts.append(Html(f'<text class="tick" x="{_LEFT - 6}" y="{at + 4:.1f}">{_plain(value)}</text>'))
    for value in x.ticks():
        at = x(value)
        parts.append(Html(f'<path class="grid" d="M{at:.1f} {base} v4"/>'))
        parts.append(Html(f'<text class="cap" x="{at:.1f}" y="{base + 17}">{_plain(value)}</text>'))
    middle = (_LEFT + _WIDE - _RIGHT) / 2
    named = escaped(words[f"axis_{trace.x_unit}"])
    parts.append(Html(f'<path class="axis" d="M{_LEFT} {base} H{_WIDE - _RIGHT}"/>'))
    parts.append(Html(f'<text class="cap" x="{middle:.0f}" y="{_HIGH - 5}">{named}</text>'))
    return parts


def _mark(trace: Trace, x: _Scale) -> list[Html]:
    if trace.mark is None:
        return []
    left, right = x(trace.mark[0]), x(trace.mark[1])
    wide = max(right - left, _SLIVER)
    left = min(left, _WIDE - _RIGHT - wide) if right > left else left - wide / 2
    box = f'x="{left:.1f}" y="{_TOP}" width="{wide:.1f}" height="{_HIGH - _TOP - _BOTTOM}"'
    return [Html(f'<rect class="marked" {box}/>')]


def _level(value: float, y: _Scale) -> Html:
    return Html(f'<path class="level" d="M{_LEFT} {y(value):.1f} H{_WIDE - _RIGHT}"/>')


def _line(line: Line, x: _Scale, y: _Scale) -> Html:
    drawn, pen = [], "M"
    for a, b in zip(line.x, line.y, strict=True):
        if math.isnan(b):  # a break
            pen = "M"
            continue
        drawn.append(f"{pen}{x(a):.1f} {y(b):.1f}")
        pen = "L"
    return Html(f'<path class="{"main" if line.main else "other"}" d="{" ".join(drawn)}"/>')


def _legend(lines: Sequence[Line], words: Words) -> list[Html]:
    """The main line first, then the others as far as there is room."""
    parts, at = [], float(_LEFT)
    for line in sorted(lines, key=lambda one: not one.main):
        named = words.told.get(f"line_{line.name}", line.name)
        wide = 30 + 7.5 * sum(2 if ord(letter) > 0x2E7F else 1 for letter in named)  # noqa: PLR2004  wide letters
        if at + wide > _WIDE - _RIGHT:
            break
        kind = "main" if line.main else "other"
        parts.append(Html(f'<path class="{kind}" d="M{at:.0f} 14 h18"/>'))
        place = f'class="legend" translate="no" x="{at + 23:.0f}" y="18"'
        parts.append(Html(f"<text {place}>{escaped(named)}</text>"))
        at += wide
    return parts


def _plain(value: float) -> str:
    return "0" if abs(value) < 1e-12 else f"{value:.6g}"  # noqa: PLR2004  rounding of a sum of steps
