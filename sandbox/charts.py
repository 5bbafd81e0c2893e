# SPDX-License-Identifier: Apache-2.0
"""Two pictures of the report as SVG text: success rates with intervals, and where each cell's parts lie.

Pure functions of figures; colours come from the page's style sheet by class, so that light and dark both
work.
Each picture stands beside a table with the same figures.
"""

from __future__ import annotations

from dataclasses import dataclass
from html import escape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Bar", "Group", "bar_chart", "cell_map", "timeline"]

_HEIGHT = 220
_TOP, _BOTTOM, _LEFT = 14, 34, 40
_BAR, _GAP, _BETWEEN = 30, 10, 34


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One bar: 0..1, with its interval; ``kind`` is a class of the style sheet."""

    label: str
    kind: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Group:
    """Bars under one caption."""

    caption: str
    bars: Sequence[Bar]


def _y(value: float) -> float:
    return round(_TOP + (1 - value) * (_HEIGHT - _TOP - _BOTTOM), 1)


def bar_chart(groups: Sequence[Group], *, title: str) -> str:
    """Bars from 0 to 100 % with whiskers for the intervals and the figure above each bar."""
    parts, x = [], float(_LEFT + _BETWEEN / 2)
    for group in groups:
        start = x
        for bar in group.bars:
            parts.append(_bar(bar, x))
            x += _BAR + _GAP
        middle = (start + x - _GAP) / 2
        parts.append(f'<text class="cap" x="{middle:.1f}" y="{_HEIGHT - 12}">{escape(group.caption)}</text>')
        x += _BETWEEN - _GAP
    grid = "".join(
        f'<line class="grid" x1="{_LEFT}" x2="{x:.0f}" y1="{_y(v)}" y2="{_y(v)}"/>'
        f'<text class="tick" x="{_LEFT - 6}" y="{_y(v) + 4}">{v:.0%}</text>'
        for v in (0.0, 0.25, 0.5, 0.75, 1.0)
    )
    return _svg(grid + "".join(parts), width=x, height=_HEIGHT, title=title)


def _bar(bar: Bar, x: float) -> str:
    top, middle = _y(bar.mean), x + _BAR / 2
    whisker = (
        f'<path class="whisker" d="M{middle:.1f} {_y(bar.low)}V{_y(bar.high)}'
        f'M{middle - 4:.1f} {_y(bar.high)}h8M{middle - 4:.1f} {_y(bar.low)}h8"/>'
    )
    return (
        f"<g><title>{escape(bar.label)}: {bar.mean:.0%} ({bar.low:.0%} to {bar.high:.0%})</title>"
        f'<rect class="{escape(bar.kind)}" x="{x:.1f}" y="{top}" width="{_BAR}"'
        f' height="{_y(0) - top:.1f}" rx="2"/>'
        f'{whisker}<text class="val" x="{middle:.1f}" y="{max(10.0, _y(bar.high) - 4):.1f}">'
        f"{bar.mean:.0%}</text></g>"
    )


def cell_map(cells: Sequence[tuple[str, float, float]], *, title: str) -> str:
    """Where along the x axis each cell's parts lie; (caption, from, to) in metres."""
    low, high, width = -0.12, 0.12, 560

    def at(value: float) -> float:
        return round(150 + (value - low) / (high - low) * (width - 170), 1)

    rows = []
    for number, (caption, first, last) in enumerate(cells):
        y = 18 + number * 26
        rows.append(
            f'<text class="row" x="142" y="{y + 12}">{escape(caption)}</text>'
            f'<rect class="window" x="{at(first)}" y="{y}" width="{at(last) - at(first):.1f}"'
            f' height="16" rx="3"/>'
        )
    bottom = 18 + len(cells) * 26
    ticks = "".join(
        f'<line class="grid" x1="{at(v)}" x2="{at(v)}" y1="10" y2="{bottom}"/>'
        f'<text class="cap" x="{at(v)}" y="{bottom + 16}">{v * 100:+.0f} cm</text>'
        for v in (-0.1, -0.05, 0.0, 0.05, 0.1)
    )
    return _svg(ticks + "".join(rows), width=width, height=bottom + 24, title=title)


def timeline(phases: Sequence[tuple[str, float, float]], *, title: str) -> str:
    """Phases as bars over time; (name, start, end) in seconds."""
    width, end = 720, max((one[2] for one in phases), default=1.0) or 1.0

    def at(value: float) -> float:
        return round(190 + value / end * (width - 250), 1)

    rows = []
    for number, (name, first, last) in enumerate(phases):
        y = 8 + number * 24
        rows.append(
            f'<text class="row" x="182" y="{y + 12}">{escape(name)}</text>'
            f'<rect class="phase" x="{at(first)}" y="{y}" width="{max(1.5, at(last) - at(first)):.1f}"'
            f' height="15" rx="2"/>'
            f'<text class="left" x="{at(last) + 5:.1f}" y="{y + 12}">{last - first:.1f} s</text>'
        )
    return _svg("".join(rows), width=width, height=12 + len(phases) * 24, title=title)


def _svg(content: str, *, width: float, height: float, title: str) -> str:
    return (
        f'<svg viewBox="0 0 {width:.0f} {height:.0f}" width="{width:.0f}" role="img"'
        f' aria-label="{escape(title)}">'
        f"<title>{escape(title)}</title>{content}</svg>"
    )
