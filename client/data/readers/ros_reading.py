# SPDX-License-Identifier: Apache-2.0
"""One recording of a bag becomes one series, in parts: steps 2 to 4 of client.data.readers.ros_messages.

for series in Reading(bags, recording, signals, note, source).series(): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np
import pyarrow as pa

from client.data.errors import FileInvalidError, MapInvalidError, MissingColumnError, TooLargeError
from client.data.readers.cells import stamps
from client.data.readers.ros_joining import Joined, Joining
from client.data.readers.ros_streams import LOG_TIME, STAMP, TopicRows
from client.data.readers.ros_types import full_name
from client.data.series import Int64, Note, Series, SourceRef
from client.data.signalmap import Clock
from policies.limits import BAG_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from client.data.readers.bagfiles import Recording
    from client.data.readers.ros_log import BagFile
    from client.data.readers.ros_streams import Message, Rows, StreamKey
    from client.data.signalmap import SignalMap

__all__ = ["Reading"]

_BLOCK: Final = 4_096  # messages that are decoded together
_BLOCK_BYTES: Final = 16 * 1024**2


class Reading:
    """The messages of one recording on their way to rows."""

    def __init__(
        self, bags: list[BagFile], recording: Recording, signals: SignalMap, note: Note, source: SourceRef
    ) -> None:
        self._bags, self._recording, self._note, self._source = bags, recording, note, source
        self._signals, self._clock = signals, signals.clock or Clock(rate_hz=1.0)
        self._joining = Joining()
        self._rows_given = 0
        columns = dict.fromkeys((*signals.number_columns, *signals.text_columns))
        self._base_topic, self._base_path, self._stamp_path = self._base(next(iter(columns)))
        self._topics = {topic: self._topic(topic) for topic in self._wanted(columns)}
        self._note("unknown-types", self._unknown())

    def _base(self, first: str) -> tuple[str, str, str | None]:
        """Topic of the rows, a path of it, and where stamps come from; None makes them from a rate."""
        clock = self._signals.clock
        topic, _, path = first.partition(":")
        if clock is None:
            return topic, path, ""
        if clock.column is None:
            return topic, path, None
        named, colon, stamp = clock.column.partition(":")
        stamp = stamp if colon else named
        if stamp in (STAMP, LOG_TIME) and clock.unit != "ns":
            raise MapInvalidError(
                need=f'clock.unit "ns" for {stamp}', found=clock.unit, remedy="correct the signal map"
            )
        if not colon or named == topic:
            return topic, path, stamp
        mapped = (c for c in self._signals.number_columns if c.startswith(f"{named}:"))
        return named, next(mapped, clock.column).partition(":")[2], stamp

    def _wanted(self, columns: Mapping[str, None]) -> dict[str, None]:
        wrong = next((c for c in columns if ":" not in c), None)
        if wrong:
            raise MissingColumnError(
                need=f"column {ascii(wrong)[1:61]}",
                found=f"{self._recording.name}: channels are <topic>:<path>",
                remedy="correct the signal map",
            )
        return dict.fromkeys([self._base_topic, *(c.partition(":")[0] for c in columns)])

    def _topic(self, name: str) -> TopicRows:
        """Step 2: a mapped topic."""
        found = sorted({t for bag in self._bags for t in bag.topics.values() if t.name == name})
        if not found:
            raise MissingColumnError(
                need=f"topic {ascii(name)[1:61]}",
                found=f"{self._recording.name} without it",
                remedy="correct the recording or the signal map",
            )
        types, message = found[0].types(), full_name(found[0].type)
        if types is None or any(full_name(t.type) != message or t.types() != types for t in found[1:]):
            raise FileInvalidError(
                need=f"one known type for the mapped topic {name}",
                found=f"{self._recording.name}: " + ", ".join(sorted({ascii(t.type)[1:61] for t in found})),
                remedy="record with message definitions (ROS 2 Iron or later), or leave the topic out",
            )
        numbers = list(self._of(name, self._signals.number_columns))
        own_clock = self._stamp_path not in (None, "", STAMP, LOG_TIME)
        if name == self._base_topic and own_clock and self._stamp_path not in numbers:
            numbers.append(str(self._stamp_path))
        return TopicRows(
            topic=name,
            message=message,
            types=types,
            numbers=tuple(numbers),
            words=tuple(self._of(name, self._signals.text_columns)),
            where=self._recording.name,
            note=self._note,
        )

    def _of(self, topic: str, columns: tuple[str, ...]) -> Iterator[str]:
        return (c.partition(":")[2] for c in columns if c.startswith(f"{topic}:"))

    def _unknown(self) -> int:
        """Topics that were left out because nobody says what their messages are made of."""
        topics = {t for bag in self._bags for t in bag.topics.values() if t.name not in self._topics}
        return sum(topic.types() is None for topic in topics)

    def series(self) -> Iterator[Series]:
        """Steps 3 and 4."""
        for block, at in self._blocks():
            rows: dict[StreamKey, Rows] = {}
            for name, messages in block.items():
                rows |= self._topics[name].rows(messages)
            self._choose_times()
            if rows:
                self._joining.take(rows, self._base_key())
            for table, more in self._joining.parts(last=False):
                yield self._series(table, more=more, bytes_read=at)
        for topic in self._topics.values():
            topic.check_whole()
        for table, more in self._joining.parts(last=True):
            yield self._series(table, more=more, bytes_read=self._bytes())

    def _blocks(self) -> Iterator[tuple[dict[str, list[Message]], int | None]]:
        """Messages of the mapped topics, by topic; each has its number in the whole recording."""
        number, count, size = 0, 0, 0
        block: dict[str, list[Message]] = {}
        for place, bag in enumerate(self._bags):
            names = {key: topic.name for key, topic in bag.topics.items() if topic.name in self._topics}
            for key, log_ns, data in bag.messages(frozenset(names)):
                if key in names:
                    if data is None:
                        raise self._too_large(names[key], number)
                    block.setdefault(names[key], []).append((number, log_ns, data))
                    count, size = count + 1, size + len(data)
                number += 1
                if count >= _BLOCK or size >= _BLOCK_BYTES:
                    yield block, self._bytes(place)
                    block, count, size = {}, 0, 0
        if block:
            yield block, self._bytes()

    def _bytes(self, place: int | None = None) -> int | None:
        """Bytes of the recording that were read, in its file ``place``, or at its end."""
        sizes = [file.stat().st_size for file in self._recording.files]
        if place is None:
            return sum(sizes)
        within = self._bags[place].bytes_read()
        return None if within is None else sum(sizes[:place]) + within

    def _too_large(self, topic: str, number: int) -> TooLargeError:
        return TooLargeError(
            need=f"messages of at most {BAG_MESSAGE_BYTES} bytes on a mapped topic",
            found=f"{self._recording.name}, {topic}, message {number}: a larger one",
            remedy="leave the topic out of the signal map",
        )

    def _choose_times(self) -> None:
        """Joins by log time once a topic is seen that has no stamps, or where the map says so."""
        spoken = [t for t in self._topics.values() if t.stamped is not None]
        headers = all(t.has_header for t in self._topics.values()) and all(t.stamped for t in spoken)
        self._joining.by_stamp &= self._stamp_path != LOG_TIME and headers

    def _base_key(self) -> StreamKey | None:
        topic = self._topics[self._base_topic]
        joint = topic.joint_of(self._base_path)
        return next((key for key in topic.streams if joint is None or joint in key[1]), None)

    def _series(self, table: Joined, *, more: bool, bytes_read: int | None) -> Series:
        base = self._topics[self._base_topic]
        self._note("joined-values-too-old", table.missing)
        numbers = table.base.numbers_in_bag
        first = self._source.last
        self._source = SourceRef(
            reader=self._source.reader,
            file_sha256=self._source.file_sha256,
            first=first,
            last=int(numbers[-1]) + 1,
        )
        stamps_ns = self._stamps(table.base, base)
        self._rows_given += table.base.length
        return Series(
            name=self._recording.name,
            stamps_ns=stamps_ns,
            clock=self._clock.kind if self._signals.clock else "host",
            columns={c: self._column(table, c, words=False) for c in self._signals.number_columns},
            texts={c: self._column(table, c, words=True) for c in self._signals.text_columns},
            source=self._source,
            kept=numbers,
            more=more,
            bytes_read=bytes_read,
        )

    def _column(self, table: Joined, column: str, *, words: bool) -> Any:  # noqa: ANN401  floats or words
        """A mapped column: of the base stream, else of the stream that has it, else missing."""
        name, _, path = column.partition(":")
        topic = self._topics[name]
        at = (topic.words if words else topic.numbers).index(path)
        joint = topic.joint_of(path)
        base = self._base_key()
        for key in topic.streams:
            if joint is None or joint in key[1]:
                whole = (table.words if words else table.values).get(key)
                if key == base:
                    whole = table.base.words if words else table.base.values
                if whole is not None:
                    return np.ascontiguousarray(whole[:, at])
        empty: Any = "" if words else np.nan
        return np.full(table.base.length, empty, dtype=object if words else np.float64)

    def _stamps(self, rows: Rows, base: TopicRows) -> Int64:
        if self._stamp_path == LOG_TIME or (self._stamp_path == "" and not base.stamped):
            return rows.log_ns
        if self._stamp_path in (STAMP, ""):
            if not base.stamped:
                raise MissingColumnError(
                    need=f"{base.topic}:{STAMP}",
                    found=f"{self._recording.name}: no header, or a stamp that was never set",
                    remedy="use log_time as the clock of the signal map",
                )
            return rows.stamp_ns
        if self._stamp_path is None:
            values = np.arange(self._rows_given, self._rows_given + rows.length, dtype=np.float64)
        else:
            values = rows.values[:, base.numbers.index(self._stamp_path)]
        empty = np.zeros(rows.length, dtype=bool)
        where = f"{self._recording.name}, {self._clock.column}"
        column = pa.chunked_array([pa.array(values, from_pandas=True)])
        found, _ = stamps(column, self._clock, rows=rows.length, where=where, decimal=".", empty=empty)
        return found
