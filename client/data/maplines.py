# SPDX-License-Identifier: Apache-2.0
"""On which line of a signal map a value stands, for refusals: TOML's parser keeps no places.

    line_of(text, ("unit", "kind"))          # of `kind =` in the table or inline table `unit`
    line_of(text, ("signal", 2, "unit"))     # of the third signal
    line_of(text, ("unit", "column"))        # not there: the line of `unit` itself
    line_of(text, ("signal", 0))             # None where a profile brings the signals

A key is looked for in its own table only. Where it is not found, the nearest thing around it is named, never
another table's key of the same name. Strings and comments are no keys.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["line_of"]

_QUOTED: Final = re.compile(r"\"\"\".*?\"\"\"|'''.*?'''|\"(?:\\.|[^\"\\\n])*\"|'[^'\n]*'|#[^\n]*", re.DOTALL)
_NEXT: Final = re.compile(r"^[ \t]*(?:[\w-]+[ \t]*(?:\.[^=\n]*)?=|\[)", re.MULTILINE)
_HEADER: Final = re.compile(r"^[ \t]*\[", re.MULTILINE)
Span = tuple[int, int]


def line_of(text: str, path: Sequence[str | int], *, value: str = "") -> int | None:
    """Number of a line, from 1 on; None if the table of the path is not in the text.

    Args:
        text: The map.
        path: Keys, and numbers of entries from 0 on.
        value: Word that stands at the key, where several entries have it.
    """
    masked = _QUOTED.sub(lambda found: re.sub(r"[^\n]", "~", found[0]), text)
    spans = list(_tables(masked, str(path[0]))) if path else []
    if not spans:
        return None
    start, end = spans[0][0], spans[-1][1]
    inner = path[1:]
    if inner and isinstance(inner[0], int):
        entries = spans if len(spans) > 1 or _is_header(masked, start) else list(_entries(masked, spans[0]))
        if inner[0] < len(entries):
            start, end = entries[inner[0]]
    key = next((one for one in inner if isinstance(one, str)), None)
    place = start if key is None else _key(text, masked, (start, end), key, value)
    return text.count("\n", 0, place) + 1


def _tables(masked: str, name: str) -> Iterator[Span]:
    """Where a top-level key, or each table of that name, begins and ends."""
    word = re.escape(name)
    first = _HEADER.search(masked)
    top = masked[: first.start()] if first else masked
    for found in re.finditer(rf"^[ \t]*{word}[ \t]*(?:\.[^=\n]*)?=", top, re.MULTILINE):
        after = _NEXT.search(masked, found.end())
        yield found.start(), after.start() if after else len(masked)
    for found in re.finditer(rf"^[ \t]*\[\[?[ \t]*{word}[ \t]*\]\]?[ \t~]*$", masked, re.MULTILINE):
        after = _HEADER.search(masked, found.end())
        yield found.start(), after.start() if after else len(masked)


def _is_header(masked: str, start: int) -> bool:
    return masked[start:].lstrip(" \t").startswith("[")


def _entries(masked: str, span: Span) -> Iterator[Span]:
    """The inline tables of an array."""
    depth, start = 0, span[0]
    for at in range(*span):
        if masked[at] == "{":
            start = at if depth == 0 else start
            depth += 1
        elif masked[at] == "}":
            depth -= 1
            if depth == 0:
                yield start, at + 1


def _key(text: str, masked: str, span: Span, key: str, value: str) -> int:
    """Where a key stands in a table; the table's own place if it does not."""
    pattern = re.compile(rf"(?<![\w-]){re.escape(key)}[ \t]*=[ \t]*")
    found = list(pattern.finditer(masked, *span))
    if not found:
        return span[0]
    said = (one for one in found if value and value in _word(text[one.end() : one.end() + 2 * len(value)]))
    return next(said, found[0]).start()


def _word(text: str) -> str:
    return text.strip().lower().replace("_", "-")
