# SPDX-License-Identifier: Apache-2.0
"""Rows become a Parquet file with its signal map beside it; what was flushed survives a power cut.

While it runs, batches are appended to ``<name>.part`` (an Arrow stream) and flushed to the disk. `close`
turns it into the Parquet file, in batches, and only then removes it. A process that was killed leaves the
part: `complete` makes the table of its whole batches.

- An existing file is never replaced.
- The map goes to ``<name>.toml`` as the very bytes it was given as.
- ``data add <name>.parquet --map <name>.toml`` imports it: the clock's column holds time stamps in ns.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final, Self

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

from client.data.durable import FULL, replace_file, sync
from client.data.errors import FileInvalidError, MapInvalidError, NoEpisodesError, StorageFullError
from policies.limits import LIVE_BATCH_ROWS, LIVE_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.live.rows import Row
    from client.data.signalmap import SignalMap

__all__ = ["Recording", "check_target", "complete", "map_of", "part_of"]

_STAMP: Final = pa.timestamp("ns", "UTC")


class Recording:
    """One table under construction. Use it in a ``with``; it is closed, whatever happens."""

    def __init__(self, out: Path, signals: SignalMap) -> None:
        """Begins it; `check_target` says what it refuses."""
        check_target(out, signals)
        self.out, self.rows = out, 0
        self._signals = signals
        self._held: list[Row] = []
        self._schema = _schema(signals)
        self._file = part_of(out).open("xb")
        self._writer = pa.ipc.new_stream(self._file, self._schema)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if self._file.closed:
            return
        if kind is None:
            self.close()
            return
        self._writer.close()
        self._file.close()
        if not self.rows:  # else what was flushed waits for `complete`
            part_of(self.out).unlink()

    @property
    def full(self) -> bool:
        """Whether the bound of one recording is reached."""
        return self.rows + len(self._held) >= LIVE_ROWS

    def add(self, row: Row) -> None:
        """Takes a row; it is on the disk after `flush`."""
        self._held.append(row)
        if len(self._held) >= LIVE_BATCH_ROWS:
            self.flush()

    def flush(self) -> None:
        """Brings what was added to the disk.

        Raises:
            StorageFullError: No space is left; all earlier batches are kept.
        """
        if not self._held:
            return
        columns: list[list[object]] = [[row.stamp_ns for row in self._held]]
        columns += [[row.values[at] for row in self._held] for at in range(len(self._schema) - 1)]
        arrays = [pa.array(c, field.type) for c, field in zip(columns, self._schema, strict=True)]
        try:
            self._writer.write_batch(pa.RecordBatch.from_arrays(arrays, schema=self._schema))
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _full(error) from error
        self.rows += len(self._held)
        self._held.clear()

    def close(self) -> Path:
        """Makes the table.

        Raises:
            NoEpisodesError: Not one row was recorded; no file is left.
            StorageFullError: No space for the table; the part stays.
        """
        self.flush()
        self._writer.close()
        self._file.close()
        if not self.rows:
            part_of(self.out).unlink()
            raise NoEpisodesError(
                need="at least one row",
                found="nothing was reported",
                remedy="check that the robot moves and that the nodes of the map are those that change",
            )
        return complete(self.out, self._signals)


def part_of(out: Path) -> Path:
    """Where batches wait until the table is made."""
    return out.with_name(out.name + ".part")


def map_of(out: Path) -> Path:
    """Where the map of a recording lies."""
    return out.with_suffix(".toml")


def check_target(out: Path, signals: SignalMap) -> None:
    """Whether a recording can begin.

    Raises:
        MapInvalidError: The map has no clock column to write stamps to.
        FileInvalidError: The file is there already, or an interrupted one was completed just now.
    """
    if signals.clock is None or signals.clock.column is None or signals.clock.kind != "host":
        raise MapInvalidError(
            need='a clock of kind "host" with a column, for the stamps of the source',
            found="another clock, or none",
            remedy='clock = {column = "SourceTimestamp", unit = "rfc3339", kind = "host"}',
        )
    found = None
    if part_of(out).exists() and next(_batches(part_of(out)), None) is None:
        part_of(out).unlink()
    if part_of(out).exists() and not out.exists():
        complete(out, signals)
        found = f"{out.name}, completed just now from a recording that was interrupted"
    elif out.suffix != ".parquet":
        found = f"{out.name}: another suffix"
    elif out.exists() or part_of(out).exists() or map_of(out).exists():
        found = f"{out.name}, or its map or part, is there already"
    if found:
        raise FileInvalidError(need="a new file *.parquet", found=found, remedy="name another file")


def complete(out: Path, signals: SignalMap) -> Path:
    """Makes the table of the whole batches of a part, then removes it.

    Raises:
        StorageFullError: No space for it; the part stays.
    """
    aside = out.with_name(f".new-{out.name}")
    try:
        replace_file(map_of(out), signals.text)
        with pq.ParquetWriter(aside, _schema(signals), compression="zstd") as writer:
            for batch in _batches(part_of(out)):
                writer.write_batch(batch)
        sync(aside)
        aside.replace(out)
        sync(out.parent)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise _full(error) from error
    part_of(out).unlink()
    return out


def _batches(part: Path) -> Iterator[pa.RecordBatch]:
    """Batches that were written whole: the last one may have been cut."""
    with part.open("rb") as file:
        try:
            reader = pa.ipc.open_stream(file)
        except pa.ArrowInvalid:
            return
        while True:
            try:
                batch = reader.read_next_batch()
            except (StopIteration, pa.ArrowInvalid, OSError):
                return
            yield batch


def _schema(signals: SignalMap) -> pa.Schema:
    clock = signals.clock.column if signals.clock else None
    fields = [pa.field(clock or "stamp", _STAMP)]
    fields += [pa.field(name, pa.float64()) for name in signals.number_columns]
    texts = [name for name in signals.text_columns if name not in signals.number_columns]
    return pa.schema(fields + [pa.field(name, pa.string()) for name in texts])


def _full(error: OSError) -> Exception:
    if error.errno not in FULL:
        return error
    return StorageFullError(
        need="space for the recording",
        found="the disk is full",
        remedy="free some; record to the same file again: what was written is completed first",
    )
