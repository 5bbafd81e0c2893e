# SPDX-License-Identifier: Apache-2.0
"""Where the numbers of a CDR message lie: walked once per shape, then read from many messages at once.

- A message's shape is what decides where its values are: its length, the lengths of its sequences and the
  bytes of its strings. Two messages that agree in all of these have the same `Layout`, so that one walk is
  enough for both; one that differs in a single byte of them is walked itself.
- Joint names are strings, and therefore part of the shape: values that another message gives in another order
  have another layout, and each layout finds its values **by name**.
- An array is labelled by the names of its message (``name`` or ``joint_names``) where it has one value for
  each; else by number. Arrays of messages, and those of more than `ARRAY_CHANNELS` unnamed values (images,
  scans), give no channels.
- Bounds: no length is believed that goes beyond the message; a message has at most
  `BAG_MESSAGE_PARTS` parts, empty ones among them, and strings of at most `BAG_TEXT_BYTES` bytes.
- Source: OMG CDR, XCDR version 1, as ROS 2 writes it, either byte order.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.data.readers.ros_types import (
    DTYPES,
    JOINT_STATE,
    SCALAR,
    SEQUENCE,
    STRING,
    Field,
    MessageTypes,
    unit_of,
)
from policies.limits import BAG_MESSAGE_PARTS, BAG_TEXT_BYTES

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["ARRAY_CHANNELS", "CdrError", "Layout", "layout_of", "stacked"]

ARRAY_CHANNELS: Final = 64
_DEPTH: Final = 32
_HEAD: Final = 4  # encapsulation; alignment counts from its end
_PADDING: Final = 3
_NAMES: Final = frozenset({"name", "joint_names"})
Bytes = npt.NDArray[np.uint8]


class CdrError(Exception):
    """A message that contradicts its type; the text says how, without any value."""


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Where things are in every message of one shape.

    Attributes:
        size: Length of the message in bytes.
        fixed: Positions of the bytes that make the shape, and
        shape: their values.
        numbers: Path (``position.elbow_joint``) to offset and numpy type.
        truths: Paths among them that are bool.
        words: Path to text.
        names: The names that label arrays, where there are some.
        named: Arrays that names label, and
        arrays: all arrays of numbers, with their lengths.
        units: Path to unit, where the type says one.
    """

    size: int
    fixed: npt.NDArray[np.intp]
    shape: Bytes
    numbers: Mapping[str, tuple[int, str]]
    truths: frozenset[str]
    words: Mapping[str, str]
    names: tuple[str, ...]
    named: frozenset[str]
    arrays: Mapping[str, int]
    units: Mapping[str, str]

    def fits(self, rows: Bytes) -> npt.NDArray[np.bool_]:
        """Which of the messages ``[n, size]`` have this shape."""
        same: npt.NDArray[np.bool_] = (rows[:, self.fixed] == self.shape).all(axis=1)
        return same

    def column(self, rows: Bytes, path: str) -> npt.NDArray[Any]:
        """The value of a path in each message ``[n, size]``, in the type of the message."""
        offset, kind = self.numbers[path]
        width = int(kind[-1])
        return np.ascontiguousarray(rows[:, offset : offset + width]).view(kind)[:, 0]


def stacked(messages: list[bytes]) -> Bytes:
    """Messages of one length as ``[n, size]``."""
    return np.frombuffer(b"".join(messages), dtype=np.uint8).reshape(len(messages), -1)


def layout_of(data: bytes, message: str, types: MessageTypes) -> Layout:
    """The layout of one message.

    Raises:
        CdrError: It is not a message of this type.
    """
    if len(data) < _HEAD or data[0] != 0 or data[1] > 1:
        raise CdrError("an encoding other than CDR")
    walk = _Walk(data=data, types=types, order="<" if data[1] else ">")
    walk.struct(message, "", (), unit=None, depth=0)
    if len(data) - walk.at > _PADDING:
        raise CdrError("more bytes than its type has")
    spans = [np.arange(first, last, dtype=np.intp) for first, last in ((0, 2), *walk.spans)]
    fixed = np.concatenate(spans)
    return Layout(
        size=len(data),
        fixed=fixed,
        shape=np.frombuffer(data, dtype=np.uint8)[fixed],
        numbers=walk.numbers,
        truths=frozenset(walk.truths),
        words=walk.words,
        names=walk.names,
        named=frozenset(walk.named),
        arrays=walk.arrays,
        units=walk.units,
    )


@dataclass(slots=True, kw_only=True)
class _Walk:
    """One pass over a message. ``at`` is the next byte; what has no path (None) is passed over."""

    data: bytes
    types: MessageTypes
    order: str
    at: int = _HEAD
    left: int = BAG_MESSAGE_PARTS
    text_left: int = BAG_TEXT_BYTES
    spans: list[tuple[int, int]] = field(default_factory=list)
    numbers: dict[str, tuple[int, str]] = field(default_factory=dict)
    truths: set[str] = field(default_factory=set)
    words: dict[str, str] = field(default_factory=dict)
    names: tuple[str, ...] = ()
    named: set[str] = field(default_factory=set)
    arrays: dict[str, int] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)

    def struct(
        self, message: str, prefix: str | None, names: tuple[str, ...], *, unit: str | None, depth: int
    ) -> None:
        """A message: its fields in their order."""
        fields = self.types.get(message)
        if fields is None or depth > _DEPTH:
            raise CdrError(f"a part of the unknown type {ascii(message)[:60]}")
        if not fields:
            self._take(1)  # IDL has no empty structure: one byte stands for it
        for one in fields:
            self._count_part()
            path = None if prefix is None else f"{prefix}{one.name}"
            known = unit_of(message, one.name) or unit
            if one.type == STRING:
                found = self._strings(one, path)
                if one.name in _NAMES and one.size == SEQUENCE and path is not None:
                    names = self._labels(found, message)
            elif one.type in DTYPES:
                self._values(one, path, names, unit=known, strict=message == JOINT_STATE)
            else:
                self._messages(one, path, names, unit=known, depth=depth)

    def _messages(
        self, one: Field, path: str | None, names: tuple[str, ...], *, unit: str | None, depth: int
    ) -> None:
        if one.size == SCALAR:
            prefix = None if path is None else f"{path}."
            self.struct(one.type, prefix, names, unit=unit, depth=depth + 1)
            return
        for _ in range(self._length(one)):
            self._count_part()
            self.struct(one.type, None, (), unit=None, depth=depth + 1)

    def _labels(self, found: list[str], message: str) -> tuple[str, ...]:
        if len(set(found)) != len(found):
            if message == JOINT_STATE:
                raise CdrError("a joint name twice")
            return ()
        self.names = self.names or tuple(found)
        return tuple(found)

    def _strings(self, one: Field, path: str | None) -> list[str]:
        found = []
        for _ in range(1 if one.size == SCALAR else self._length(one)):
            self._count_part()
            size = self._length_word()
            self.text_left -= size
            if self.text_left < 0:
                raise CdrError(f"strings of more than {BAG_TEXT_BYTES} bytes")
            start = self._take(size)
            self.spans.append((start, start + size))
            found.append(self.data[start : start + max(0, size - 1)].decode("utf-8", "replace"))
        if one.size == SCALAR and path is not None:
            self.words[path] = found[0]
        return found

    def _values(
        self, one: Field, path: str | None, names: tuple[str, ...], *, unit: str | None, strict: bool
    ) -> None:
        """A number, or an array of numbers with its labels."""
        kind = DTYPES[one.type]
        width = int(kind[-1])
        count = 1 if one.size == SCALAR else self._length(one)
        start = self._take(count * width, align=width) if count else self.at
        if path is None:
            return
        if one.size == SCALAR:
            self._number(path, start, one.type, unit)
            return
        self.arrays[path] = count
        labels: tuple[str, ...] = ()
        if names and count in (0, len(names)):
            self.named.add(path)
            labels = names if count else ()
        elif strict and (count or names):
            raise CdrError("another number of values than of joint names")
        elif count <= ARRAY_CHANNELS:
            labels = tuple(str(i) for i in range(count))
        for number, label in enumerate(labels):
            self._number(f"{path}.{label}", start + number * width, one.type, unit)

    def _number(self, path: str, start: int, kind: str, unit: str | None) -> None:
        self.numbers[path] = (start, self.order + DTYPES[kind])
        if kind == "bool":
            self.truths.add(path)
        if unit is not None:
            self.units[path] = unit

    def _length(self, one: Field) -> int:
        """Number of elements; a sequence says its own."""
        return one.size if one.size != SEQUENCE else self._length_word()

    def _length_word(self) -> int:
        start = self._take(4, align=4)
        self.spans.append((start, start + 4))
        found = int.from_bytes(self.data[start : start + 4], "little" if self.order == "<" else "big")
        if found > len(self.data) - self.at:
            raise CdrError("a length beyond its end")
        return found

    def _take(self, size: int, *, align: int = 1) -> int:
        """Where the next ``size`` bytes begin; goes past them."""
        start = self.at + -(self.at - _HEAD) % align
        if start + size > len(self.data):
            raise CdrError("fewer bytes than its type has")
        self.at = start + size
        return start

    def _count_part(self) -> None:
        self.left -= 1
        if self.left < 0:
            raise CdrError(f"more than {BAG_MESSAGE_PARTS} parts")
