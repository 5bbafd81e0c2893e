# SPDX-License-Identifier: Apache-2.0
"""Reports become rows, and rows a table that survives a killed process; no server, no library of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import FileInvalidError, MapInvalidError, NoEpisodesError, StorageFullError
from client.data.live import recording as writing
from client.data.live.recording import Recording, complete, part_of
from client.data.live.rows import Row, RowJoiner
from client.data.signalmap import parse_map
from tests.datasim import bring

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

S = 1_000_000_000
MAP = b"""
clock = {column = "at", unit = "rfc3339", kind = "host"}
segment = {by = "edge", column = "run", min_frames = 2}
signal = [{field = "joint_pos", columns = ["a", "b"], unit = "deg", role = "observation"}]
"""


def joiner(columns: int = 2) -> RowJoiner:
    return RowJoiner(columns=columns, join_ns=5_000_000, hold_ns=S)


def plain(rows: Iterable[Row]) -> list[tuple[float, tuple]]:
    return [(row.stamp_ns / S, row.values) for row in rows]


def test_the_first_report_is_what_was_before_and_makes_no_row() -> None:
    rows = joiner()
    rows.report(0, 1 * S, 7.0)
    rows.report(1, 100 * S, 1.0)
    assert plain(rows.lost()) == []
    rows.report(0, 1 * S, 7.0)
    rows.report(1, 100 * S, 1.0)
    rows.report(1, 101 * S, 2.0)
    assert plain(rows.lost()) == [(101, (7.0, 2.0))]


def begun(columns: int = 2) -> RowJoiner:
    rows = joiner(columns)
    for column in range(columns):
        rows.report(column, 0, 0.0)
    return rows


def test_reports_some_microseconds_apart_are_one_row_and_a_second_value_is_another() -> None:
    rows = begun()
    rows.report(0, 10 * S, 1.0)
    rows.report(1, 10 * S + 4_000_000, 2.0)
    rows.report(0, 10 * S + 4_500_000, 3.0)
    rows.report(1, 11 * S, 4.0)
    assert plain(rows.lost()) == [(10, (1.0, 2.0)), (10.0045, (3.0, 2.0)), (11, (3.0, 4.0))]


def test_reports_that_arrive_in_another_order_become_rows_in_the_order_of_their_stamps() -> None:
    rows = begun()
    for second in (3, 1, 2):
        rows.report(0, second * S // 10, float(second))
    assert plain(rows.finished()) == []  # an older one may still come
    rows.report(1, 5 * S, 9.0)
    assert plain(rows.finished()) == [(0.1, (1.0, 0.0)), (0.2, (2.0, 0.0))]
    assert plain(rows.lost()) == [(0.3, (3.0, 0.0)), (5, (3.0, 9.0))]


def test_a_report_that_is_too_late_holds_but_makes_no_row() -> None:
    rows = begun()
    rows.report(0, 10 * S, 1.0)
    rows.report(0, 20 * S, 2.0)
    assert plain(rows.finished()) == []
    rows.report(1, 5 * S, 8.0)
    rows.report(0, 30 * S, 3.0)
    assert plain(rows.finished()) == [(10, (1.0, 8.0))]
    assert rows.late == 1
    assert plain(rows.lost()) == [(20, (2.0, 8.0)), (30, (3.0, 8.0))]


def test_missing_is_not_held_and_a_lost_connection_forgets_everything() -> None:
    rows = begun()
    rows.report(0, 1 * S, 1.0)
    rows.report(0, 2 * S, None)
    assert plain(rows.lost()) == [(1, (1.0, 0.0)), (2, (None, 0.0))]
    rows.report(0, 2 * S, 5.0)
    rows.report(0, 3 * S, 6.0)
    assert plain(rows.lost()) == [(3, (6.0, None))]
    assert rows.waiting == 0


def row(i: int) -> Row:
    return Row(
        stamp_ns=1_795_514_645 * S + i * S // 10,
        values=(float(i), None if i == 3 else 90.0, "1" if i else "0"),
    )


def test_a_table_comes_back_through_the_import_with_its_map_beside_it(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    with Recording(out, parse_map(MAP)) as one:
        for i in range(12):
            one.add(row(i))
            one.flush()
        assert one.close() == out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.parquet", "a.toml"]
    assert (tmp_path / "a.toml").read_bytes() == MAP
    table = pq.read_table(out)
    assert table.schema.types == [pa.timestamp("ns", "UTC"), pa.float64(), pa.float64(), pa.string()]
    assert np.isnan(table["b"].to_numpy()).tolist() == [i == 3 for i in range(12)]
    report = bring(tmp_path / "s", out, signal_map=tmp_path / "a.toml", allow=frozenset({"joint_pos"}))
    assert (report.episodes_added, report.frames_added) == (1, 11)


def test_a_process_that_was_killed_leaves_its_whole_batches(tmp_path: Path) -> None:
    out, signals = tmp_path / "a.parquet", parse_map(MAP)
    one = Recording(out, signals)
    for i in range(5):
        one.add(row(i))
    one.flush()
    whole = part_of(out).read_bytes()
    one.add(row(5))
    one.flush()
    cut = part_of(out).read_bytes()
    one._file.close()
    for end in range(len(whole), len(cut), 61):
        part_of(out).write_bytes(cut[:end])
        complete(out, signals)
        assert pq.read_table(out)["a"].to_pylist() == [0, 1, 2, 3, 4]
        out.unlink()
    part_of(out).write_bytes(cut)
    with pytest.raises(FileInvalidError, match="completed just now"):
        Recording(out, signals)
    assert pq.read_table(out)["a"].to_pylist() == [0, 1, 2, 3, 4, 5]


def test_a_part_that_holds_no_batch_is_begun_again(tmp_path: Path) -> None:
    out = tmp_path / "a.parquet"
    part_of(out).write_bytes(b"ARROW?")
    with Recording(out, parse_map(MAP)) as one:
        one.add(row(1))
    assert pq.read_table(out).num_rows == 1


def test_no_row_is_no_file_and_an_error_keeps_what_was_flushed(tmp_path: Path) -> None:
    out, signals = tmp_path / "a.parquet", parse_map(MAP)
    with pytest.raises(NoEpisodesError), Recording(out, signals):
        pass
    assert not list(tmp_path.iterdir())
    one = Recording(out, signals)
    one.add(row(1))
    one.flush()
    one.__exit__(KeyError, None, None)
    assert [p.name for p in tmp_path.iterdir()] == ["a.parquet.part"]


class FullDisk:
    """A file on a disk without space."""

    closed = False

    def flush(self) -> None:
        raise OSError(28, "No space left on device")

    def fileno(self) -> int:
        raise AssertionError

    def close(self) -> None:
        self.closed = True


def test_a_full_disk_is_said_by_name(tmp_path: Path) -> None:
    one = Recording(tmp_path / "a.parquet", parse_map(MAP))
    one._file.close()
    one._file, one._writer = FullDisk(), pa.ipc.new_stream(pa.BufferOutputStream(), one._schema)
    one.add(row(1))
    with pytest.raises(StorageFullError):
        one.flush()


def test_rows_are_flushed_in_batches_and_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(writing, "LIVE_BATCH_ROWS", 4)
    monkeypatch.setattr(writing, "LIVE_ROWS", 10)
    with Recording(tmp_path / "a.parquet", parse_map(MAP)) as one:
        for i in range(9):
            one.add(row(i))
        assert (one.rows, one.full) == (8, False)
        one.add(row(9))
        assert one.full


@pytest.mark.parametrize(
    "clock", ["", "clock = {rate_hz = 5}\n", 'clock = {column = "at", unit = "ms", kind = "controller"}\n']
)
def test_a_map_without_a_place_for_stamps_is_refused(tmp_path: Path, clock: str) -> None:
    text = clock + "signal" + MAP.decode().split("signal", 1)[1]
    with pytest.raises(MapInvalidError, match="clock"):
        Recording(tmp_path / "a.parquet", parse_map(text.encode()))
