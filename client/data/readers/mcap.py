# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags in MCAP storage (``.mcap``): indexed, without an index, or cut; messages bring their own types.

- Messages come in the order of the log. Chunks are opened in the order of their first log time, and a message
  waits for its turn only while chunks overlap in time, up to `BAG_HELD_BYTES`.
- A channel is a publisher's: several channels may be one topic.
- The records are walked by client.data.readers.mcap_records, which says what is refused and what is kept.
"""

from __future__ import annotations

from array import array
from contextlib import contextmanager
from itertools import islice
from typing import IO, TYPE_CHECKING, Final

import numpy as np

from client.data.errors import TooLargeError
from client.data.readers.files import check_file
from client.data.readers.mcap_records import MESSAGE, MESSAGE_HEAD, TIME_END, Part, Walked, invalid
from client.data.readers.ros_log import BagFile, Logged, Topic
from client.data.readers.ros_messages import BagReader
from policies.limits import BAG_HELD_BYTES, BAG_MESSAGE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

__all__ = ["McapReader"]

_SAMPLE_PARTS: Final = 16  # chunks that a probe opens
_SAMPLE_MESSAGES: Final = 400_000  # messages that it looks through; recorders' chunks have some thousand
_COLUMNS: Final = 4
_ENTRY_BYTES: Final = 250  # of a mapped message that waits, beside its own bytes
_TOGETHER: Final = 8_192


class McapReader(BagReader):
    """ROS 2 bags, MCAP storage."""

    def __init__(self) -> None:
        super().__init__(name="mcap", suffix=".mcap", opened=_opened)


class _Mcap:
    """One opened ``.mcap``."""

    def __init__(self, file: IO[bytes], name: str, size: int) -> None:
        self._name, self._walked = name, Walked(file, name, size)
        self._read_to = 0
        self.cut, self.rows = self._walked.cut, self._walked.rows
        self.topics: Mapping[int, Topic] = self._topics()

    def samples(self, each: int) -> Iterator[tuple[int, bytes]]:
        """First messages of each topic in the first chunks."""
        seen: dict[int, int] = {}
        messages = (one for part in self._walked.parts[:_SAMPLE_PARTS] for one in self._messages(part))
        for channel, _, data in islice(messages, _SAMPLE_MESSAGES):
            seen[channel] = seen.get(channel, 0) + 1
            if seen[channel] <= each and len(data) <= BAG_MESSAGE_BYTES:
                yield channel, bytes(data)

    def messages(self, wanted: frozenset[int]) -> Iterator[Logged]:
        """Messages by log time, then by place in the file."""
        waiting = _Waiting()
        parts = sorted(self._walked.parts, key=lambda part: (part.first_ns, part.at))
        ends = [part.first_ns for part in parts[1:]] + [TIME_END]
        for part, until in zip(parts, ends, strict=True):
            waiting.take(part.at, self._messages(part), wanted)
            self._read_to = max(self._read_to, part.at + part.length)
            yield from waiting.ready(until)
            if waiting.bytes > BAG_HELD_BYTES:
                raise TooLargeError(
                    need=f"chunks that overlap in time by at most {BAG_HELD_BYTES} bytes",
                    found=f"{self._name}: more",
                    remedy="sort the file by log time (mcap sort), then import again",
                )

    def bytes_read(self) -> int | None:
        """The end of the last chunk that was opened."""
        return self._read_to

    def _messages(self, part: Part) -> Iterator[tuple[int, int, memoryview]]:
        """Channel, log time and bytes of each message of a part."""
        for opcode, body in self._walked.records(part):
            if opcode != MESSAGE:
                continue
            if len(body) < MESSAGE_HEAD.size:
                raise invalid(self._name, "a message without its head")
            channel, _, log_ns, _ = MESSAGE_HEAD.unpack_from(body)
            if channel not in self._walked.channels or not part.first_ns <= log_ns < TIME_END:
                raise invalid(self._name, "a message of no channel, or before its chunk")
            yield channel, log_ns, body[MESSAGE_HEAD.size :]

    def _topics(self) -> dict[int, Topic]:
        found = {}
        for key, (schema, topic, coding) in sorted(self._walked.channels.items()):
            name, encoding, text = self._walked.schemas.get(schema, ("", "", ""))
            found[key] = Topic(topic, name, text, encoding, cdr=coding == "cdr")
        return found


class _Waiting:
    """Messages that wait for their turn. One that nobody asked for is four numbers, so that it is counted."""

    def __init__(self) -> None:
        self._rows = np.empty((0, _COLUMNS), dtype=np.int64)  # log time, chunk, place in it, channel
        self._data: dict[tuple[int, int], bytes] = {}
        self._data_bytes = 0

    @property
    def bytes(self) -> int:
        """Memory of all that wait, and of putting it in order."""
        return 2 * self._rows.nbytes + self._data_bytes + len(self._data) * _ENTRY_BYTES

    def take(self, at: int, messages: Iterable[tuple[int, int, memoryview]], wanted: frozenset[int]) -> None:
        """The messages of the chunk at a place of the file."""
        channels, times = array("q"), array("q")
        for number, (channel, log_ns, data) in enumerate(messages):
            channels.append(channel)
            times.append(log_ns)
            if channel in wanted and len(data) <= BAG_MESSAGE_BYTES:
                self._data[at, number] = bytes(data)
                self._data_bytes += len(data)
        rows = np.empty((len(times), _COLUMNS), dtype=np.int64)
        rows[:, 0], rows[:, 1], rows[:, 2], rows[:, 3] = times, at, np.arange(len(times)), channels
        whole = np.concatenate([self._rows, rows])
        self._rows = whole[np.lexsort((whole[:, 2], whole[:, 1], whole[:, 0]))]

    def ready(self, until_ns: int) -> Iterator[Logged]:
        """Those that were logged before a time, in their order; they wait no longer."""
        count = int(np.searchsorted(self._rows[:, 0], until_ns, "left"))
        rows, self._rows = self._rows[:count], self._rows[count:].copy()
        for first in range(0, count, _TOGETHER):
            for log_ns, at, number, channel in rows[first : first + _TOGETHER].tolist():
                data = self._data.pop((at, number), None)
                self._data_bytes -= len(data or b"")
                yield Logged(channel, log_ns, data)


@contextmanager
def _opened(file: Path) -> Iterator[BagFile]:
    """Checks an ``.mcap`` and opens it."""
    size = check_file(file)
    with file.open("rb") as opened:
        yield _Mcap(opened, file.name, size)
