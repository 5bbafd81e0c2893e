# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags in sqlite3 storage (``.db3``): a bag folder with or without ``metadata.yaml``, or a bare file.

- The file is opened read-only and nothing is written beside it. What a recorder left beside it belongs to
  it: with a ``-wal`` or ``-journal`` all are copied aside and the copy is opened, because ``immutable`` would
  lose the messages that stand in the log alone.
- Types come from the file's own ``message_definitions`` (schema 4), else from ROS 2 Humble.
- A file shorter than its header says is cut. sqlite has no checksums: what it finds wrong is refused.
- The database is foreign: only plain tables are read, no view and no trigger of it runs.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from contextlib import closing, contextmanager
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from client.data.errors import FileInvalidError, StorageFullError
from client.data.readers.bagfiles import beside
from client.data.readers.files import check_file
from client.data.readers.ros_log import BagFile, Logged, Topic
from client.data.readers.ros_messages import BagReader
from policies.limits import BAG_DEFINITION_BYTES, BAG_MESSAGE_BYTES, BAG_TOPICS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = ["RosbagReader"]

_MAGIC: Final = b"SQLite format 3\x00"
_HEADER_BYTES: Final = 100
_WAL_FORMAT: Final = 2
_HEAD_ROWS: Final = 20_000  # messages that a probe looks through for topics
_NEEDED: Final = {
    "topics": {"id", "name", "type", "serialization_format"},
    "messages": {"id", "topic_id", "timestamp", "data"},
}
_DEFINITIONS: Final = {"topic_type", "encoding", "encoded_message_definition"}


class RosbagReader(BagReader):
    """ROS 2 bags, sqlite3 storage."""

    def __init__(self) -> None:
        super().__init__(name="rosbag", suffix=".db3", opened=_opened)


class _Database:
    """One opened ``.db3``."""

    def __init__(self, connection: sqlite3.Connection, name: str, size: int, *, cut: bool) -> None:
        self._connection, self._name, self._size, self.cut = connection, name, size, cut
        self._row, self._last_row = 0, 0
        self.rows: int | None = None
        self.topics: Mapping[int, Topic] = {}
        try:
            self.topics = self._topics()
        except FileInvalidError:
            if not cut:
                raise
        if not cut:
            ((self.rows, self._last_row),) = self._all("SELECT count(*), coalesce(max(id), 0) FROM messages")

    def samples(self, each: int) -> Iterator[tuple[int, bytes]]:
        """First messages of each topic among the first `_HEAD_ROWS` rows."""
        chosen: dict[int, list[int]] = {}
        rows = self._each("SELECT id, topic_id FROM messages ORDER BY id LIMIT ?", _HEAD_ROWS)
        for number, topic in self._complete(rows):
            if topic in self.topics and len(chosen.setdefault(topic, [])) < each:
                chosen[topic].append(number)
        query = "SELECT data FROM messages WHERE id = ? AND length(data) <= ?"
        for topic, numbers in sorted(chosen.items()):
            for number in numbers:
                for (data,) in self._complete(self._each(query, number, BAG_MESSAGE_BYTES)):
                    if isinstance(data, bytes):
                        yield topic, data

    def messages(self, wanted: frozenset[int]) -> Iterator[Logged]:
        """Rows by time stamp, then by number; those of a cut file as far as they are there."""
        bytes_of = (
            f"CASE WHEN topic_id IN ({', '.join('?' * len(wanted))}) AND length(data) <= ? THEN data END"
        )
        if self.cut:
            rows = self._salvaged(bytes_of, wanted)
        else:
            query = f"SELECT topic_id, timestamp, {bytes_of}, id FROM messages ORDER BY timestamp, id"  # noqa: S608
            rows = self._each(query, *sorted(wanted), BAG_MESSAGE_BYTES)
        for topic, log_ns, data, number in rows:
            if not isinstance(topic, int) or not isinstance(log_ns, int):
                raise self._invalid("a message without topic or time stamp")
            if not isinstance(data, bytes | None):
                raise self._invalid("a message that is no bytes")
            self._row = number
            yield Logged(topic, log_ns, data)

    def _salvaged(self, bytes_of: str, wanted: frozenset[int]) -> Iterator[tuple[Any, ...]]:
        """What a cut file still has: its table is walked without its index, up to the first lost page."""
        found = self._complete(self._each("SELECT timestamp, id FROM messages NOT INDEXED ORDER BY id"))
        query = f"SELECT topic_id, timestamp, {bytes_of}, id FROM messages NOT INDEXED WHERE id = ?"  # noqa: S608
        whole = [row for row in found if isinstance(row[0], int)]
        for _, number in sorted(whole):
            yield from self._complete(self._each(query, *sorted(wanted), BAG_MESSAGE_BYTES, number))

    def bytes_read(self) -> int | None:
        """By row number: rows lie in the file in their order."""
        return self._size * self._row // self._last_row if self._last_row else None

    def _topics(self) -> dict[int, Topic]:
        for table, columns in _NEEDED.items():
            if not columns <= self._columns(table):
                raise self._invalid(f"no table {table} of a ROS 2 bag")
        texts: dict[str, tuple[str, str]] = {}
        if self._columns("message_definitions") >= _DEFINITIONS:
            query = (
                "SELECT topic_type, substr(encoded_message_definition, 1, ?), encoding"
                " FROM message_definitions LIMIT ?"
            )  # one character more than the bound makes the type unknown
            rows = self._all(query, BAG_DEFINITION_BYTES + 1, BAG_TOPICS)
            texts = {str(name): (str(text), str(kind)) for name, text, kind in rows}
        query = "SELECT id, name, type, serialization_format FROM topics WHERE typeof(id) = 'integer' LIMIT ?"
        return {
            key: Topic(str(name), str(kind), *texts.get(str(kind), ("", "")), cdr=coding == "cdr")
            for key, name, kind, coding in sorted(self._all(query, BAG_TOPICS + 1), key=itemgetter(0))
        }

    def _columns(self, table: str) -> set[str]:
        """Columns of a plain table; a view or virtual table of that name has none."""
        plain = self._all(
            "SELECT 1 FROM sqlite_master WHERE type = 'table' AND name = ? AND rootpage > 0", table
        )
        return {str(row[0]) for row in self._all("SELECT name FROM pragma_table_info(?)", table)} & (
            {"id"} | _DEFINITIONS | set().union(*_NEEDED.values()) if plain else set()
        )

    def _all(self, query: str, *values: object) -> list[tuple[Any, ...]]:
        return list(self._each(query, *values))

    def _each(self, query: str, *values: object) -> Iterator[tuple[Any, ...]]:
        try:
            cursor = self._connection.execute(query, values)
            while (row := cursor.fetchone()) is not None:
                yield row
        except (sqlite3.Error, OverflowError, ValueError) as error:
            raise self._invalid("cannot be read as one") from error

    def _complete(self, rows: Iterator[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
        """Rows up to the first that is lost, in a file that was cut."""
        try:
            yield from rows
        except FileInvalidError:
            if not self.cut:
                raise

    def _invalid(self, found: str) -> FileInvalidError:
        return _invalid(self._name, found)


def _invalid(name: str, found: str) -> FileInvalidError:
    return FileInvalidError(
        need="a sqlite database of a ROS 2 bag", found=f"{name}: {found}", remedy="copy the file again"
    )


@contextmanager
def _opened(file: Path) -> Iterator[BagFile]:
    """Checks a ``.db3`` and opens it, or a copy with what lies beside it."""
    size = check_file(file)
    with file.open("rb") as opened:
        head = opened.read(_HEADER_BYTES)
    if head[: len(_MAGIC)] != _MAGIC[: len(head)] or not head:
        raise _invalid(file.name, "no sqlite database")
    logs = beside(file)
    page, declared = _declared(head)
    cut = not logs and size < page * declared
    with tempfile.TemporaryDirectory(prefix="iriai-bag-") as folder:
        target = _copied(file, logs, Path(folder)) if logs or (cut and size % page) else file
        if cut and target != file:
            os.truncate(target, size - size % page)  # half a page would be read as rows that end in zeros
        # with an empty log beside it, nobody writes: sqlite must not make files there to find out
        quiet = "immutable=1" if head[18:20] == bytes([_WAL_FORMAT] * 2) else "mode=ro"
        try:
            mode = "mode=rw" if logs else quiet
            connection = sqlite3.connect(f"{target.absolute().as_uri()}?{mode}", uri=True)
        except sqlite3.Error as error:
            raise _invalid(file.name, "cannot be opened") from error
        with closing(connection):
            _restrict(connection, file.name, cut=cut)
            yield _Database(connection, file.name, size, cut=cut)


def _declared(head: bytes) -> tuple[int, int]:
    """Size of a page, and how many the header says; 0 where it does not say it (sqlite.org/fileformat)."""
    page = int.from_bytes(head[16:18], "big")
    valid = head[24:28] == head[92:96]
    if len(head) < _HEADER_BYTES:
        return 1, _HEADER_BYTES
    return 65_536 if page == 1 else max(page, 1), int.from_bytes(head[28:32], "big") if valid else 0


def _copied(file: Path, logs: Iterable[Path], folder: Path) -> Path:
    try:
        for path in (file, *logs):
            shutil.copyfile(path, folder / path.name)
    except OSError as error:
        raise StorageFullError(
            need=f"room for a copy of {file.name} and its log",
            found=error.strerror or "no copy",
            remedy="free space in the temporary folder, or close the bag with ros2 bag reindex",
        ) from error
    return folder / file.name


def _restrict(connection: sqlite3.Connection, name: str, *, cut: bool) -> None:
    try:
        if cut:  # only so does sqlite open a file that has fewer pages than its header says
            connection.execute("PRAGMA writable_schema = ON")
        for pragma in ("query_only = ON", "trusted_schema = OFF", "cell_size_check = ON", "mmap_size = 0"):
            connection.execute(f"PRAGMA {pragma}")
    except sqlite3.Error as error:
        raise _invalid(name, "cannot be opened") from error
