# SPDX-License-Identifier: Apache-2.0
"""Contract text that people write: YAML that two readers cannot read differently. The only PyYAML user.

A plain (unquoted) scalar is one of four things: ``null``, ``true`` or ``false``, a whole number without
sign or leading zero, or text. So ``NO`` is Norway, ``off`` is a word, ``12:30`` and ``2026-11-30`` are text.
Refused, with the line:
- numbers that YAML readers understand differently (``8.0``, ``1e3``, ``007``, ``0x1F``, ``1_000``, ``-5``,
  ``.inf``): decimals are strings;
- ``True``, ``TRUE``, ``~`` and an empty value: a truth value is ``true`` or ``false``, nothing is ``null``;
- a key twice, a key that is no plain or quoted text, the merge key ``<<``;
- anchors, aliases, tags, directives, a second document;
- characters that do not show (control, bidirectional, zero-width), also inside quotes.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import yaml

from policies.contract.errors import YamlRefusedError
from policies.contract.grammar import strange_character
from policies.limits import CONTRACT_YAML_BYTES, NESTING_DEPTH

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["read_yaml"]

Json = Any  # a JSON value

_INTEGER = re.compile(r"0|[1-9][0-9]{0,15}")
_NUMBER_LIKE = re.compile(
    r"[-+]?(?:[0-9][0-9_]*|0[xob][0-9a-fA-F_]+|[0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[0-9][0-9_]*[eE][-+]?[0-9]+)"
    r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_BOOLEANS = frozenset({"True", "TRUE", "False", "FALSE"})
_TRUTH = {"true": True, "false": False}
_NULLS = frozenset({"~", "", "Null", "NULL"})


def _refuse(event: yaml.Event | None, need: str, found: str, *, line: int | None = None) -> YamlRefusedError:
    if event is not None:
        line = event.start_mark.line + 1
    where = f"line {line}: " if line is not None else ""
    return YamlRefusedError(
        need=need, found=f"{where}{found}", remedy="change the named line; quote text and decimals"
    )


def read_yaml(text: str) -> Json:
    """The JSON value behind a contract text.

    Args:
        text: At most `policies.limits.CONTRACT_YAML_BYTES` bytes of UTF-8.

    Raises:
        YamlRefusedError: Not YAML, or a part of it that is refused; the line is named.
    """
    size = len(text.encode("utf-8", errors="replace"))
    if size > CONTRACT_YAML_BYTES:
        raise _refuse(None, f"at most {CONTRACT_YAML_BYTES} bytes", f"{size} bytes")
    try:
        events = yaml.parse(text, Loader=yaml.SafeLoader)
        return _Reader(events).document()
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise _refuse(None, "characters that show", f"U+{error.character:04X}", line=line) from error
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at_line = mark.line + 1 if mark is not None else None
        raise _refuse(None, "YAML", ascii(error.problem or error.context)[:100], line=at_line) from error


class _Reader:
    """Builds the tree from the parser's events, one look-ahead, no recursion deeper than the limit."""

    def __init__(self, events: Iterator[yaml.Event]) -> None:
        self._events = events

    def _next(self) -> yaml.Event:
        return next(self._events)

    def document(self) -> Json:
        """The one document of the stream."""
        self._next()  # start of the stream
        start = self._next()
        if not isinstance(start, yaml.DocumentStartEvent):
            raise _refuse(start, "a document", "an empty text")
        if start.version is not None or start.tags:
            raise _refuse(start, "no directives", "a % directive")
        tree = self._value(self._next(), depth=0)
        self._next()  # end of the document
        after = self._next()
        if not isinstance(after, yaml.StreamEndEvent):
            raise _refuse(after, "one document", "a second one")
        return tree

    def _value(self, event: yaml.Event, *, depth: int) -> Json:
        if depth > NESTING_DEPTH:
            raise _refuse(event, f"nesting of at most {NESTING_DEPTH}", "a deeper one")
        if isinstance(event, yaml.AliasEvent):
            raise _refuse(event, "no aliases", f"*{event.anchor}")
        if event.anchor is not None:
            raise _refuse(event, "no anchors", f"&{event.anchor}")
        if event.tag is not None:
            raise _refuse(event, "no tags", ascii(event.tag))
        if isinstance(event, yaml.ScalarEvent):
            return _scalar(event)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(depth)
        return self._mapping(depth)

    def _sequence(self, depth: int) -> list[Json]:
        items = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            items.append(self._value(event, depth=depth + 1))
        return items

    def _mapping(self, depth: int) -> dict[str, Json]:
        items: dict[str, Json] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            key = self._value(event, depth=depth + 1) if isinstance(event, yaml.ScalarEvent) else None
            if not isinstance(key, str) or key == "<<":
                raise _refuse(event, "keys that are text", "another key")
            if key in items:
                raise _refuse(event, "each key once", f"{key!a} twice")
            items[key] = self._value(self._next(), depth=depth + 1)
        return items


def _scalar(event: yaml.ScalarEvent) -> str | int | bool | None:
    text: str = event.value
    strange = strange_character(text.rstrip("\n") if event.style in ("|", ">") else text)
    if strange is not None:
        raise _refuse(event, "characters that show", strange)
    if event.style is not None:  # quoted or a block: always text
        return text
    if text == "null":
        return None
    if text in _TRUTH:
        return _TRUTH[text]
    if _INTEGER.fullmatch(text):
        return int(text)
    if text in _BOOLEANS:
        raise _refuse(event, "true or false in small letters", text)
    if text in _NULLS:
        raise _refuse(event, "null, or a value", ascii(text))
    if _NUMBER_LIKE.fullmatch(text):
        raise _refuse(event, "whole numbers, or decimals as quoted strings", text)
    return text
