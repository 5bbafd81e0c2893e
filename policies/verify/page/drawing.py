# SPDX-License-Identifier: Apache-2.0
"""Drawings of the page, as inline SVG with title and text: an entry's path to the root, bars per attempt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.log.merkle import node_hash
from policies.verify.page.markup import Html, escaped, join

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Step", "bars", "path_drawing", "steps_up"]

_LEVEL = 30  # height of one level
_BOX = (150, 22)
_MIDDLE, _SIDE = 251, 175
_WIDTH = 2 * _MIDDLE
_HEX = 16
_BAR_LEFT, _BAR_HEIGHT = 34, 120
_BARS_WIDTH = 760
_LEGEND = 320


@dataclass(frozen=True, slots=True)
class Step:
    """One level up: the hash that the proof gives, on which side it stands, and what both come to."""

    sibling: bytes
    left: bool
    above: bytes


def steps_up(leaf: bytes, index: int, size: int, proof: Sequence[bytes]) -> list[Step]:
    """The levels from a leaf to the root (RFC 9162, section 2.1.3.2)."""
    found, at, last, here = [], index, size - 1, leaf
    for sibling in proof:
        left = bool(at & 1) or at == last
        here = node_hash(sibling, here) if left else node_hash(here, sibling)
        found.append(Step(sibling, left, here))
        while left and at and not at & 1:
            at, last = at >> 1, last >> 1
        at, last = at >> 1, last >> 1
    return found


def path_drawing(leaf: bytes, steps: Sequence[Step], *, title: str, name: str) -> Html:
    """The path, the root at the top: what was computed in the middle, what the proof gives beside it."""
    height = (len(steps) + 1) * _LEVEL + 8
    parts = [Html(f'<svg role="img" aria-labelledby="{name}" viewBox="0 0 {_WIDTH} {height}" class="path">')]
    parts.append(Html(f'<title id="{name}">{escaped(title)}</title>'))
    at = height - _LEVEL
    boxes = [_box(_MIDDLE, at, leaf, "mine")]
    for step in steps:
        side = _MIDDLE - _SIDE if step.left else _MIDDLE + _SIDE
        top = at - _LEVEL
        boxes.append(_box(side, at, step.sibling, "given"))
        parts += [
            Html(f'<path class="edge" d="M{start} {at} L{_MIDDLE} {top + _BOX[1]}"/>')
            for start in (_MIDDLE, side)
        ]
        boxes.append(_box(_MIDDLE, top, step.above, "mine"))
        at = top
    return join([*parts, *boxes, Html("</svg>")])


def _box(middle: int, top: int, value: bytes, kind: str) -> Html:
    left = middle - _BOX[0] // 2
    return Html(
        f'<rect class="{kind}" x="{left}" y="{top}" width="{_BOX[0]}" height="{_BOX[1]}" rx="3"/>'
        f'<text class="{kind}" x="{left + _BOX[0] // 2}" y="{top + 15}" translate="no">'
        f"{value.hex()[:_HEX]}</text>"
    )


def bars(rows: Sequence[tuple[str, int, int]], *, title: str, name: str, words: tuple[str, str]) -> Html:
    """One bar per row (name, accepted, refused); refused ones are hatched, so that print tells them apart."""
    most = max((accepted + refused for _, accepted, refused in rows), default=0)
    if most == 0:
        return Html("")
    wide = min(40.0, (_BARS_WIDTH - _BAR_LEFT) / len(rows))
    right = max(_BAR_LEFT + len(rows) * wide, _LEGEND)
    unit, base = _BAR_HEIGHT / most, _BAR_HEIGHT + 8
    drawn: list[object] = [
        Html(
            f'<svg role="img" aria-labelledby="{name}" class="bars"'
            f' viewBox="0 0 {right:.0f} {base + 34}" width="{right:.0f}">'
        ),
        Html(f'<title id="{name}">{escaped(title)}</title>'),
        Html('<defs><pattern id="hatch" width="6" height="6" patternUnits="userSpaceOnUse">'),
        Html('<path d="M0 6 L6 0" class="hatch"/></pattern></defs>'),
        Html(f'<text class="tick" x="{_BAR_LEFT - 6}" y="{base}">0</text>'),
        Html(f'<text class="tick" x="{_BAR_LEFT - 6}" y="{base - _BAR_HEIGHT + 10}">{most}</text>'),
        Html(f'<path class="axis" d="M{_BAR_LEFT} {base} H{right:.0f}"/>'),
    ]
    every = -(-len(rows) // 20)
    for at, (label, accepted, refused) in enumerate(rows):
        left = _BAR_LEFT + at * wide
        drawn.append(_bar(left, base - accepted * unit, wide, accepted * unit, "accepted"))
        drawn.append(_bar(left, base - (accepted + refused) * unit, wide, refused * unit, "refused"))
        if at % every == 0:
            drawn.append(
                Html(f'<text class="cap" x="{left + wide / 2:.1f}" y="{base + 14}">{escaped(label)}</text>')
            )
    for place, kind in enumerate(("accepted", "refused")):
        drawn.append(_bar(_BAR_LEFT + place * 150, base + 22, 12, 10, kind))
        drawn.append(
            Html(f'<text class="legend" x="{_BAR_LEFT + place * 150 + 16}" y="{base + 31}">')
            + escaped(words[place])
            + Html("</text>")
        )
    drawn.append(Html("</svg>"))
    return join(Html(one) for one in drawn)


def _bar(left: float, top: float, wide: float, high: float, kind: str) -> Html:
    inside = max(wide - 4, 2)
    return Html(
        f'<rect class="{kind}" x="{left + 2:.1f}" y="{top:.1f}" width="{inside:.1f}" height="{high:.1f}"/>'
    )
