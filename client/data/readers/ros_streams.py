# SPDX-License-Identifier: Apache-2.0
"""Messages of one topic become rows of numbers and words; one stream per publisher of joints.

- Joints are found by name. A topic may have several publishers with joints of their own (an arm and its
  gripper on ``/joint_states``): each set of joints is a stream. A message that has only some of the joints
  of a known set is refused (`JointNameError`): a value would be missing that no join may invent. A message
  that has no mapped joint at all is somebody else's and is counted.
- An array that a message leaves empty is missing there. The first message of a stream must have it.
- A source that says NaN or infinity in a mapped column is refused.
- The stamp is ``header.stamp``. A topic whose first stamp is 0 has none: its driver never filled it in.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.data.errors import FileInvalidError, JointNameError, MissingColumnError, NotFiniteError
from client.data.readers.cdr import CdrError, Layout, layout_of, stacked
from client.data.readers.ros_types import HEADER, JOINT_STATE, SCALAR, MessageTypes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from client.data.series import Array64, Int64, Note, Texts

__all__ = ["LOG_TIME", "STAMP", "Message", "Rows", "StreamKey", "TopicRows"]

STAMP: Final = "header.stamp"
LOG_TIME: Final = "log_time"
_SECONDS, _NANOSECONDS = "header.stamp.sec", "header.stamp.nanosec"
_STAMP_TYPES: Final = frozenset({"int32", "uint32"})  # 64 bits of seconds would overflow nanoseconds
_LAYOUTS: Final = 64  # shapes of one topic that are remembered
_TRIES: Final = 8  # shapes that are looked for among messages of one length before each is walked itself
_SHOWN: Final = 5
Message = tuple[int, int, bytes]  # number in the recording, log time, bytes
StreamKey = tuple[str, frozenset[str]]  # topic, mapped joints


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Messages of a stream: numbers ``[n, k]``, words ``[n, w]``; ``stamp_ns`` is 0 where there is none."""

    numbers_in_bag: Int64
    log_ns: Int64
    stamp_ns: Int64
    values: Array64
    words: Texts

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.log_ns)

    @property
    def bytes(self) -> int:
        """Memory of these rows."""
        columns = int(self.values.shape[1]) + int(self.words.shape[1]) + 3
        return self.length * columns * 8

    def part(self, first: int, last: int | None = None) -> Rows:
        """Rows ``first`` to ``last`` (one past the end)."""
        return self._each(lambda array: array[first:last])

    def picked(self, order: Int64) -> Rows:
        """Rows in another order."""
        return self._each(lambda array: array[order])

    def _each(self, change: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]) -> Rows:
        return Rows(
            numbers_in_bag=change(self.numbers_in_bag),
            log_ns=change(self.log_ns),
            stamp_ns=change(self.stamp_ns),
            values=change(self.values),
            words=change(self.words),
        )

    @staticmethod
    def joined(parts: list[Rows]) -> Rows:
        """All rows of several parts, one after another."""
        if len(parts) == 1:
            return parts[0]
        return Rows(
            numbers_in_bag=np.concatenate([p.numbers_in_bag for p in parts]),
            log_ns=np.concatenate([p.log_ns for p in parts]),
            stamp_ns=np.concatenate([p.stamp_ns for p in parts]),
            values=np.concatenate([p.values for p in parts]),
            words=np.concatenate([p.words for p in parts]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Use:
    """What a layout has of the mapped columns: which stream it belongs to, and where each column is."""

    key: StreamKey | None
    numbers: tuple[tuple[int, str], ...]
    words: tuple[tuple[int, str], ...]


@dataclass(slots=True, kw_only=True)
class TopicRows:
    """The mapped columns of one topic. `rows` takes its messages block by block, in their order.

    Attributes:
        topic: Name of the topic.
        message: Full name of its type.
        types: What that is made of.
        numbers: Paths that are read as numbers, and
        words: as words.
        where: Name of the recording, for refusals.
        note: Counts messages that are left out.
    """

    topic: str
    message: str
    types: MessageTypes
    numbers: tuple[str, ...]
    words: tuple[str, ...]
    where: str
    note: Note
    stamped: bool | None = None
    streams: dict[StreamKey, frozenset[str]] = field(default_factory=dict)
    _joints: dict[str, str] = field(default_factory=dict)  # mapped path to its joint
    _layouts: dict[int, list[tuple[Layout, _Use]]] = field(default_factory=dict)

    @property
    def has_header(self) -> bool:
        """Whether the type has a header with a stamp, as ROS 2 defines it."""
        if not any(f.name == "header" and f.type == HEADER for f in self.types[self.message]):
            return False
        stamp = next((f.type for f in self.types.get(HEADER, ()) if f.name == "stamp"), "")
        fields = {f.name: f.type for f in self.types.get(stamp, ()) if f.size == SCALAR}
        return all(fields.get(one) in _STAMP_TYPES for one in ("sec", "nanosec"))

    def joint_of(self, path: str) -> str | None:
        """The joint whose value a mapped path is; None where it is none, or no message came yet."""
        return self._joints.get(path)

    def check_whole(self) -> None:
        """Refuses a recording in which the topic, or one of its mapped joints, never spoke.

        Raises:
            MissingColumnError: No message at all.
            JointNameError: A joint that no message named.
        """
        if not self.streams:
            raise MissingColumnError(
                need=f"messages on {self.topic}" + ("" if not self._joints else " with the mapped joints"),
                found=f"{self.where}: none",
                remedy="record the topic, or correct the signal map",
            )
        seen = frozenset[str]().union(*(key[1] for key in self.streams))
        self._check_joints(set(self._joints.values()) - seen)

    def rows(self, messages: list[Message]) -> dict[StreamKey, Rows]:
        """Rows of each stream, in the order of the messages.

        Raises:
            FileInvalidError: A message that contradicts its type.
            JointNameError: Some of a stream's joints are not in a message.
            MissingColumnError: A column that the type does not have.
            NotFiniteError: NaN or infinity in a mapped column.
        """
        by_size: dict[int, list[int]] = {}
        for at, (_, _, data) in enumerate(messages):
            by_size.setdefault(len(data), []).append(at)
        found: dict[StreamKey, list[tuple[Int64, Rows]]] = {}
        for places in by_size.values():
            for layout, use, chosen in self._by_shape(messages, np.array(places)):
                if use.key is None:
                    self.note("messages-of-others", len(chosen))
                    continue
                some = [messages[at] for at in chosen]
                found.setdefault(use.key, []).append((chosen, self._read(some, layout, use)))
        return {key: _in_order(parts) for key, parts in found.items()}

    def _by_shape(self, messages: list[Message], places: Int64) -> Iterable[tuple[Layout, _Use, Int64]]:
        """Messages of one length, by their shapes."""
        known = list(self._layouts.setdefault(len(messages[places[0]][2]), []))
        stack = stacked([messages[at][2] for at in places])
        left = np.arange(len(places))
        tries = 0
        while len(left):
            if known:
                layout, use = known.pop(0)
            else:
                layout, use = self._walked(messages[places[left[0]]])
                tries += 1
            fits = layout.fits(stack[left]) if tries <= _TRIES else np.arange(len(left)) == 0
            if fits.any():
                yield layout, use, places[left[fits]]
                left = left[~fits]

    def _walked(self, message: Message) -> tuple[Layout, _Use]:
        number, _, data = message
        try:
            layout = layout_of(data, self.message, self.types)
        except CdrError as error:
            raise FileInvalidError(
                need=f"messages of the type {self.message}",
                found=f"{self._place(number)}: {error}",
                remedy="record again, or leave the topic out of the signal map",
            ) from error
        found = layout, self._use(layout, number)
        known = self._layouts.setdefault(layout.size, [])
        if sum(map(len, self._layouts.values())) < _LAYOUTS:
            known.append(found)
        return found

    def _use(self, layout: Layout, number: int) -> _Use:
        """What this layout gives, once its names are checked."""
        if self.message == JOINT_STATE and not layout.names:
            return _Use(key=None, numbers=(), words=())
        numbers = [(at, path) for at, path in enumerate(self.numbers) if path in layout.numbers]
        words = [
            (at, path) for at, path in enumerate(self.words) if path in layout.words or path in layout.numbers
        ]
        there = {path for _, path in (*numbers, *words)} | {STAMP, LOG_TIME}
        missing = [path for path in (*self.numbers, *self.words) if path not in there]
        for path in (*self.numbers, *self.words):
            array = _array_of(path, layout)
            if array in layout.named:
                self._joints[path] = path[len(array) + 1 :]
            elif array is None and path in missing and path not in self._joints:
                raise self._no_column(path, number)
        if not self._joints:
            key: StreamKey | None = (self.topic, frozenset())
        else:
            key = self._key_of(frozenset(layout.names) & frozenset(self._joints.values()))
        if key is not None and key not in self.streams:
            empty = [p for p in missing if p not in self._joints or self._joints[p] in layout.names]
            if empty:
                raise self._no_column(empty[0], number)
            self.streams[key] = frozenset(there)
        return _Use(key=key, numbers=tuple(numbers), words=tuple(words))

    def _key_of(self, joints: frozenset[str]) -> StreamKey | None:
        """The stream of a message with these of the mapped joints."""
        if not joints:
            return None
        for _, known in self.streams:
            if known & joints and known != joints:
                self._check_joints(known ^ joints)
        return self.topic, joints

    def _check_joints(self, lacking: Iterable[str]) -> None:
        names = sorted(lacking)
        if names:
            shown = ", ".join(ascii(name)[1:61] for name in names[:_SHOWN])
            raise JointNameError(
                need=f"the joints {shown} in the messages of {self.topic}",
                found=f"{self.where}: messages without them",
                remedy="correct the names in the signal map, or record all joints in each message",
            )

    def _no_column(self, path: str, number: int) -> MissingColumnError:
        return MissingColumnError(
            need=f"column {self.topic}:{path}",
            found=f"{self._place(number)}: a message of the type {self.message} without it, or with it empty",
            remedy="correct the signal map",
        )

    def _place(self, number: int) -> str:
        return f"{self.where}, {self.topic}, message {number}"

    def _read(self, messages: list[Message], layout: Layout, use: _Use) -> Rows:
        """The columns of messages of one layout."""
        numbers_in_bag = np.array([number for number, _, _ in messages], dtype=np.int64)
        log_ns = np.array([log for _, log, _ in messages], dtype=np.int64)
        stack = stacked([data for _, _, data in messages])
        stamp_ns = np.zeros(len(messages), dtype=np.int64)
        if _SECONDS in layout.numbers and self.has_header:
            seconds, rest = (layout.column(stack, path) for path in (_SECONDS, _NANOSECONDS))
            stamp_ns = seconds.astype(np.int64) * 1_000_000_000 + rest.astype(np.int64)
        if self.stamped is None:
            self.stamped = bool(stamp_ns[0] > 0)
            self.note("header-stamp-never-set", int(self.has_header and not self.stamped))
        values = np.full((len(messages), len(self.numbers)), np.nan)
        for at, path in use.numbers:
            values[:, at] = layout.column(stack, path)
            wrong = np.flatnonzero(~np.isfinite(values[:, at]))
            if len(wrong):
                raise NotFiniteError(
                    need="finite numbers",
                    found=f"{self._place(int(numbers_in_bag[wrong[0]]))}, {path}: NaN or infinity",
                    remedy="repair the recording, or leave the column out of the signal map",
                )
        for at, path in enumerate(self.numbers):
            if path in (STAMP, LOG_TIME):
                values[:, at] = stamp_ns if path == STAMP else log_ns
        words = np.full((len(messages), len(self.words)), "", dtype=object)
        for at, path in use.words:
            words[:, at] = _words(layout, stack, path)
        return Rows(
            numbers_in_bag=numbers_in_bag, log_ns=log_ns, stamp_ns=stamp_ns, values=values, words=words
        )


def _array_of(path: str, layout: Layout) -> str | None:
    """The array that a path is an element of."""
    return next((a for a in sorted(layout.arrays, key=len, reverse=True) if path.startswith(a + ".")), None)


def _words(layout: Layout, stack: npt.NDArray[np.uint8], path: str) -> Texts | str:
    """A column as words, as a table would write it."""
    if path in layout.words:
        return layout.words[path].strip()
    column = layout.column(stack, path)
    found = np.empty(len(column), dtype=object)
    found[:] = [str(value) for value in (column.astype(bool) if path in layout.truths else column).tolist()]
    return found


def _in_order(parts: list[tuple[Int64, Rows]]) -> Rows:
    rows = Rows.joined([part for _, part in parts])
    order = np.argsort(np.concatenate([places for places, _ in parts]), kind="stable")
    return rows if len(parts) == 1 else rows.picked(order)
