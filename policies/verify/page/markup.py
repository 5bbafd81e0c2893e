# SPDX-License-Identifier: Apache-2.0
"""Pieces of the page: `Html` is markup already, everything else is escaped where it is put in.

What comes from a bundle goes through `policies.verify.shown.visible` and `html.escape`, always: `escaped`
is the only way from a value to `Html`, and no piece here takes an attribute's value from a bundle
unescaped.
"""

from __future__ import annotations

import html
from dataclasses import dataclass
from string import Template
from typing import TYPE_CHECKING

from policies.verify.shown import brief, visible

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "Html",
    "Words",
    "code",
    "digest",
    "escaped",
    "facts",
    "items",
    "join",
    "link",
    "para",
    "table",
    "tag",
]

_CODE_CHARS = 12_000  # an entry has 8 KiB


class Html(str):
    """Markup, not to be escaped again."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Words:
    """Texts of the page in one language."""

    lang: str
    told: Mapping[str, str]

    def __getitem__(self, key: str) -> str:
        return self.told[key]

    def said(self, value: str) -> str:
        """A word of ours that entries use (accepted, refused, ...) in the language of the page."""
        return self.told.get(f"value_{value}", value)

    def fill(self, key: str, **values: object) -> str:
        """A text with values in it."""
        return Template(self.told[key]).substitute({name: visible(one) for name, one in values.items()})


def escaped(value: object, limit: int = 4_000) -> Html:
    """Any value as markup; markup as it is."""
    if isinstance(value, Html):
        return value
    return Html(html.escape(visible(value, limit)))


def join(parts: Iterable[object], between: str = "") -> Html:
    """Pieces one after another."""
    return Html(between.join(escaped(one) for one in parts))


def tag(name: str, *inside: object, **attributes: str) -> Html:
    """An element; ``class_`` gives ``class``."""
    told = "".join(
        f' {key.rstrip("_").replace("_", "-")}="{html.escape(visible(value))}"'
        for key, value in attributes.items()
    )
    return Html(f"<{name}{told}>{join(inside)}</{name}>")


def para(*inside: object, **attributes: str) -> Html:
    """A paragraph."""
    return tag("p", *inside, **attributes)


def code(value: object) -> Html:
    """Bytes or an identifier, whole."""
    return Html(f"<code>{escaped(value, _CODE_CHARS)}</code>")


def digest(value: str | None, nothing: str) -> Html:
    """A digest by its first digits; the whole of it where a pointer rests on it."""
    if value is None:
        return escaped(nothing)
    return tag("code", brief(value), title=value)


def link(index: int, shown: Iterable[int] | None = None) -> Html:
    """An entry's number; a link where the entry is on the page."""
    if shown is not None and index in shown:
        return Html(f'<a href="#entry-{index}">{index}</a>')
    return Html(str(index))


def items(lines: Iterable[object], **attributes: str) -> Html:
    """A list."""
    return tag("ul", *(tag("li", one) for one in lines), **attributes)


def facts(rows: Iterable[tuple[object, object]]) -> Html:
    """Names and values."""
    return tag("dl", *(join((tag("dt", name), tag("dd", value))) for name, value in rows))


def table(
    told: Words,
    caption: str,
    heads: Sequence[str],
    rows: Sequence[Sequence[object]],
    *,
    more: int = 0,
    **attributes: str,
) -> Html:
    """A table with a caption and column headers, and how many rows are not in it."""
    head = tag("tr", *(Html(f'<th scope="col">{escaped(one)}</th>') for one in heads))
    body = join(tag("tr", *(tag("td", one) for one in row)) for row in rows)
    made = tag(
        "table", tag("caption", caption, class_="heard"), tag("thead", head), tag("tbody", body), **attributes
    )
    left = para(told.fill("more_in_csv", count=more), class_="soft") if more > 0 else Html("")
    return tag("div", made, left, class_="wide")
