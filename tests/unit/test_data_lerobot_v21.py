# SPDX-License-Identifier: Apache-2.0
"""LeRobotDataset v2.1 and what both versions share: JSON lines that lie, files in pieces, memory that stays flat."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import (
    DataError,
    FileInvalidError,
    IndexMismatchError,
    MissingColumnError,
    PointerFileError,
    TooLargeError,
)
from client.data.readers import claimed, lerobot, parquet
from client.data.series import ReadOptions
from client.data.signalmap import parse_map
from client.data.store import Store
from tests.datasim import Recording, bring, edit_info, tree, write_v3, write_v21

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LENGTHS = (7, 5, 9, 4, 6)
MAP = b"""
signal = [{field = "tcp_pos", columns = ["observation.state.tcp_pos_{0..2}"], unit = "m", role = "observation"}]
"""


def digests(root: Path) -> list[str]:
    return [one.meta.digest for one in Store(root).episodes("kita/pick")]


def lines(root: Path, name: str, change: Callable[[list[dict[str, Any]]], None]) -> None:
    path = root / "meta" / name
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    change(rows)
    path.write_text("\n".join(json.dumps(row) for row in rows))


def data_file(root: Path, number: int) -> Path:
    return root / f"data/chunk-{number // 2:03d}/episode_{number:06d}.parquet"


def swap_files(root: Path) -> None:
    first, second = data_file(root, 0), data_file(root, 1)
    kept = first.read_bytes()
    first.write_bytes(second.read_bytes())
    second.write_bytes(kept)


def longer_file(root: Path) -> None:
    table = pq.read_table(data_file(root, 2))
    pq.write_table(pa.concat_tables([table, table.slice(0, 1)]), data_file(root, 2))


def shuffled_file(root: Path) -> None:
    table = pq.read_table(data_file(root, 2))
    pq.write_table(table.take([1, 0, *range(2, len(table))]), data_file(root, 2))


def other_task(root: Path) -> None:
    table = pq.read_table(data_file(root, 2))
    at = table.schema.get_field_index("task_index")
    pq.write_table(
        table.set_column(at, "task_index", pa.array([9] * len(table), pa.int64())), data_file(root, 2)
    )


def no_index(root: Path) -> None:
    pq.write_table(pq.read_table(data_file(root, 2)).drop_columns(["frame_index"]), data_file(root, 2))


def empty_file(root: Path) -> None:
    pq.write_table(pq.read_table(data_file(root, 2)).slice(0, 0), data_file(root, 2))


def middle_turned(root: Path) -> None:
    """Header and footer are sound; the pages between are not."""
    path = data_file(root, 2)
    data = bytearray(path.read_bytes())
    for at in range(20, 400):
        data[at] ^= 0x5A
    path.write_bytes(bytes(data))


DAMAGES: list[tuple[str, Callable[[Path], Any], type[DataError], str]] = [
    ("length", lambda r: lines(r, "episodes.jsonl", lambda x: x[2].update(length=8)), IndexMismatchError, "episode 2"),
    ("length of zero", lambda r: lines(r, "episodes.jsonl", lambda x: x[2].update(length=0)), IndexMismatchError, "episode 2"),
    ("length in words", lambda r: lines(r, "episodes.jsonl", lambda x: x[2].update(length="9")), FileInvalidError, "whole"),
    ("endless", lambda r: lines(r, "episodes.jsonl", lambda x: x[2].update(length=10**9)), TooLargeError, "episode 2"),
    ("episode twice", lambda r: lines(r, "episodes.jsonl", lambda x: x[2].update(episode_index=1)), IndexMismatchError, "episode"),
    ("episode gone", lambda r: lines(r, "episodes.jsonl", lambda x: x.pop()), IndexMismatchError, "5 episodes"),
    ("no number", lambda r: lines(r, "episodes.jsonl", lambda x: x[0].pop("episode_index")), FileInvalidError, "whole"),
    ("a list", lambda r: (r / "meta/episodes.jsonl").write_text("[1]\n"), FileInvalidError, "objects"),
    ("no JSON", lambda r: (r / "meta/episodes.jsonl").write_text("{\n"), FileInvalidError, "JSON"),
    ("no UTF-8", lambda r: (r / "meta/episodes.jsonl").write_bytes(b'{"a": "\xff"}'), FileInvalidError, "JSON"),
    ("no episodes.jsonl", lambda r: (r / "meta/episodes.jsonl").unlink(), FileInvalidError, "episodes.jsonl"),
    ("no tasks.jsonl", lambda r: (r / "meta/tasks.jsonl").unlink(), FileInvalidError, "tasks.jsonl"),
    ("pointer", lambda r: (r / "meta/tasks.jsonl").write_text("version https://git-lfs.github.com/spec/v1\n"), PointerFileError, "tasks"),
    ("task", other_task, FileInvalidError, "episode 2"),
    ("chunks", lambda r: edit_info(r, chunks_size=3), FileInvalidError, "episode_000002"),
    ("swapped files", swap_files, IndexMismatchError, "episode 0"),
    ("longer file", longer_file, IndexMismatchError, "episode 2"),
    ("shuffled file", shuffled_file, IndexMismatchError, "episode 2"),
    ("empty file", empty_file, IndexMismatchError, "episode 2"),
    ("no index", no_index, MissingColumnError, "frame_index"),
    ("turned pages", middle_turned, FileInvalidError, "episode_000002"),
]  # fmt: skip


@pytest.mark.parametrize(("damage", "error", "said"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_a_v21_folder_that_lies_is_refused_by_name_and_nothing_is_lost(
    tmp_path: Path, damage: Callable[[Path], Any], error: type[DataError], said: str
) -> None:
    bring(tmp_path / "s", write_v21(tmp_path / "good", Recording.random(5, 6)))
    before = tree(tmp_path / "s")
    source = write_v21(tmp_path / "bad", Recording.random(*LENGTHS, seed=1))
    damage(source)
    with pytest.raises(error, match=said):
        bring(tmp_path / "s", source)
    assert tree(tmp_path / "s") == before


def test_lines_in_any_order_and_statistics_beside_them_change_nothing(tmp_path: Path) -> None:
    record = Recording.random(*LENGTHS)
    bring(tmp_path / "s", write_v21(tmp_path / "d", record))
    source = write_v21(tmp_path / "e", record)
    lines(source, "episodes.jsonl", lambda rows: rows.reverse())
    lines(source, "tasks.jsonl", lambda rows: rows.reverse())
    (source / "meta/episodes_stats.jsonl").write_text("this is never read")
    bring(tmp_path / "t", source)
    assert digests(tmp_path / "s") == digests(tmp_path / "t")


def test_task_texts_of_v21_reach_the_episodes(tmp_path: Path) -> None:
    record = Recording.random(*LENGTHS)
    bring(tmp_path / "s", write_v21(tmp_path / "d", record))
    assert [one.meta.task for one in Store(tmp_path / "s").episodes("kita/pick")] == record.tasks


@pytest.mark.parametrize("rows", [1, 3, 100])
def test_episodes_are_the_same_however_many_rows_are_read_at_a_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    source = write_v3(tmp_path / "d", Recording.random(*LENGTHS), files=[[0, 1, 2], [3, 4]])
    bring(tmp_path / "s", source)
    monkeypatch.setattr(parquet, "_BATCH_ROWS", rows)
    bring(tmp_path / "t", source)
    assert digests(tmp_path / "s") == digests(tmp_path / "t")


def test_episodes_that_share_rows_are_refused_also_where_those_rows_are_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parquet, "_BATCH_ROWS", 2)
    source = write_v3(tmp_path / "d", Recording.random(*LENGTHS), shift={2: -12})
    with pytest.raises(IndexMismatchError, match="episode 2"):
        bring(tmp_path / "s", source)


def test_progress_rises_to_the_size_of_the_data_and_finished_files_are_left_out(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(*LENGTHS), files=[[0, 1], [2], [3, 4]])
    reader, signals = claimed(source), parse_map(MAP)
    probe = reader.probe(source, signals)
    parts = list(reader.read(source, probe, signals, lambda *_: None))
    read = [part.bytes_read or 0 for part in parts]
    assert read == sorted(read)
    assert read[-1] == probe.bytes == sum(p.stat().st_size for p in source.rglob("data/**/*.parquet"))
    assert probe.rows == sum(LENGTHS)
    done = ReadOptions(finished=frozenset({parts[2].source.file_sha256}))
    left = [part.name for part in reader.read(source, probe, signals, lambda *_: None, done) if part.length]
    assert left == ["episode 0", "episode 1", "episode 3", "episode 4"]


def test_a_long_file_is_never_whole_in_memory(tmp_path: Path) -> None:
    """Only what lies between the first and the last row of the episode at hand is held."""
    source = write_v3(tmp_path / "d", Recording.random(*[50] * 40))
    path = source / "data/chunk-000/file-000.parquet"
    with parquet.opened(path) as file:
        rows = lerobot._Rows(file, ["index"])
        rows._batches = file.iter_batches(20, columns=["index"])
        for number in range(40):
            found = rows.between(50 * number, 50 * number + 50)["index"].to_numpy()
            np.testing.assert_array_equal(found, np.arange(50 * number, 50 * number + 50))
            assert sum(len(batch) for batch in rows._held) <= 90
