# SPDX-License-Identifier: Apache-2.0
"""A budget as a bar: spent, held for runs that are under way, left. SVG, with the figures in its text.

Colour is never the only sign: spent is filled, held is hatched, left is empty, and the title says all three.

    gauge(spent=3, held=1, whole=10, name="g0", title="spent 30 %, held 10 %, left 60 %")
"""

from __future__ import annotations

from markupsafe import Markup

__all__ = ["gauge"]

_WIDE, _HIGH = 600, 26


def gauge(*, spent: int, held: int, whole: int, name: str, title: str) -> Markup:
    """The bar; ``name`` is the id of its title, unlike any other on the page."""
    of = max(1, whole)
    first = _WIDE * min(1.0, max(0, spent) / of)
    second = min(_WIDE - first, _WIDE * max(0, held) / of)
    return Markup(
        '<svg role="img" aria-labelledby="{name}" class="gauge" viewBox="0 0 {wide} {high}"'
        ' preserveAspectRatio="none"><title id="{name}">{title}</title>'
        '<defs><pattern id="{name}-hatch" width="8" height="8" patternUnits="userSpaceOnUse"'
        ' patternTransform="rotate(45)"><path class="hatch" d="M0 0V8"/></pattern></defs>'
        '<rect class="whole" x="0" y="0" width="{wide}" height="{high}"/>'
        '<rect class="spent" x="0" y="0" width="{first}" height="{high}"/>'
        '<rect class="held" fill="url(#{name}-hatch)" x="{first}" y="0" width="{second}" height="{high}"/>'
        "</svg>"
    ).format(name=name, title=title, wide=_WIDE, high=_HIGH, first=f"{first:.1f}", second=f"{second:.1f}")
