# SPDX-License-Identifier: Apache-2.0
"""What an opened file of a bag gives, whatever its container: topics, and messages as they were logged."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from client.data.readers.ros_types import MessageTypes, full_name, types_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["BagFile", "Logged", "Topic"]


class Topic(NamedTuple):
    """A topic as the bag lists it; ``cdr`` is False for a serialisation that no ROS 2 node writes."""

    name: str
    type: str
    definition: str = ""
    encoding: str = ""
    cdr: bool = True

    def types(self) -> MessageTypes | None:
        """What its messages are made of; None where nobody says so."""
        return types_of(full_name(self.type), self.definition, self.encoding) if self.cdr else None


class Logged(NamedTuple):
    """One message: key of its topic, log time, and its bytes where they were asked for."""

    topic: int
    log_ns: int
    data: bytes | None


class BagFile(Protocol):
    """One opened file of a bag."""

    topics: Mapping[int, Topic]
    cut: bool  # it ends before its end
    rows: int | None  # messages, where the file counts them

    def samples(self, each: int) -> Iterator[tuple[int, bytes]]:
        """Up to ``each`` messages of each topic that the head of the file holds."""
        ...

    def messages(self, wanted: frozenset[int]) -> Iterator[Logged]:
        """All complete messages in the order of the log, with the bytes of the ``wanted`` topics.

        Raises:
            DataError: The file is damaged.
        """
        ...

    def bytes_read(self) -> int | None:
        """How far `messages` has come."""
        ...
