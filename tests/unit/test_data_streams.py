# SPDX-License-Identifier: Apache-2.0
"""A table comes in parts; where they are cut, and how long the file is, changes nothing that is stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import CellInvalidError, DecimalMismatchError, NotFiniteError, RaggedError
from client.data.importing import Progress
from client.data.readers import claimed
from client.data.series import ReadOptions, Series
from client.data.signalmap import parse_map
from tests.datasim import bring, tree

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = frozenset({"joint_vel", "grip_lost"})
CLOCKS = {
    "host": 'clock = {column = "t", unit = "s", kind = "host"}',
    "count": 'clock = {column = "n", unit = "count", rate_hz = 10.0}',
    "none": "clock = {rate_hz = 10.0}",
}
MAP = """
segment = {by = "column", column = "run", min_frames = 2}
signal  = [{field = "joint_vel", columns = ["v{0..1}"], unit = "rad/s", role = "observation"}]
label   = [{field = "grip_lost", column = "lost", values = {"True" = true, "False" = false}}]
"""


def rows(count: int = 60) -> list[list[str]]:
    """Runs of seven rows; every eleventh row is empty but for its stamp, and so are the last nine."""
    rng = np.random.default_rng(3)
    found = []
    for n in range(count):
        empty = n % 11 == 10 or n >= count - 9
        values = ["", ""] if empty else [f"{v:.4f}" for v in rng.standard_normal(2)]
        found.append([f"{n / 10}", str(n), str(n // 7), *values, "True" if n % 2 else "False", "", "secret"])
    return found


HEADER = ["t", "n", "run", "v0", "v1", "lost", "nothing", "part"]


def csv(path: Path, table: list[list[str]], end: str = "\n") -> Path:
    path.write_bytes(end.join(",".join(row) for row in [HEADER, *table]).encode() + end.encode())
    return path


def parquet(path: Path, table: list[list[str]]) -> Path:
    columns: dict[str, Any] = {}
    for at, name in enumerate(HEADER):
        cells = [row[at] or None for row in table]
        number = name in ("t", "n", "v0", "v1")
        columns[name] = pa.array(
            [None if c is None else float(c) for c in cells] if number else cells,
            pa.float64() if number else pa.string(),
        )
    pq.write_table(pa.table(columns), path, row_group_size=13)
    return path


def smaller(monkeypatch: pytest.MonkeyPatch, part: int) -> None:
    monkeypatch.setattr("client.data.readers.table.SERIES_ROWS", part)
    monkeypatch.setattr("client.data.readers.parquet._BATCH_ROWS", 5)


def parts(path: Path, text: str, **options: Any) -> tuple[list[Series], dict[str, int]]:
    signals, notes = parse_map(text.encode()), dict[str, int]()
    reader = claimed(path)
    found = list(
        reader.read(path, reader.probe(path, signals), signals, notes.__setitem__, ReadOptions(**options))
    )
    return found, {code: count for code, count in notes.items() if count}


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("clock", CLOCKS)
@pytest.mark.parametrize("part", [1, 4, 7, 59, 60])
def test_parts_of_any_size_give_the_same_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str, clock: str, part: int
) -> None:
    source = {"csv": csv, "parquet": parquet}[kind](tmp_path / f"a.{kind}", rows())
    (tmp_path / "map.toml").write_text(CLOCKS[clock] + MAP)
    whole = bring(tmp_path / "whole", source, signal_map=tmp_path / "map.toml", allow=FIELDS)
    smaller(monkeypatch, part)
    assert bring(tmp_path / "s", source, signal_map=tmp_path / "map.toml", allow=FIELDS) == whole
    assert tree(tmp_path / "s") == tree(tmp_path / "whole")
    padding = {one.code: one.count for one in whole.findings}.get("padding-rows", 0)
    assert padding == (0 if clock == "host" else 9)


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_parts_say_what_they_are_and_what_was_left_out_comes_before_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    smaller(monkeypatch, 16)
    source = csv(tmp_path / "a.csv", rows(), end)
    found, notes = parts(source, CLOCKS["none"] + '\nsecret = ["part"]' + MAP)
    assert [one.more for one in found] == [True] * (len(found) - 1) + [False]
    assert max(one.length for one in found) <= 16
    assert sum(one.length for one in found) == 51
    numbers = [n for one in found for n in (one.kept.tolist() if one.kept is not None else [])]
    assert numbers == list(range(51))
    assert notes == {"empty-columns": 1, "secret-columns": 1, "padding-rows": 9}
    read = [one.bytes_read or 0 for one in found]
    assert read == sorted(read)
    assert read[-1] == source.stat().st_size


def test_a_file_without_rows_is_one_part_without_rows(tmp_path: Path) -> None:
    (found,), _ = parts(csv(tmp_path / "a.csv", []), CLOCKS["none"] + MAP)
    assert (found.length, found.more) == (0, False)
    (found,), notes = parts(csv(tmp_path / "b.csv", rows()[-9:]), CLOCKS["none"] + MAP)
    assert (found.length, found.more, notes["padding-rows"]) == (0, False, 9)


def test_a_file_that_is_done_is_not_read_again(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    csv(tmp_path / "d/a.csv", rows())
    csv(tmp_path / "d/b.csv", rows(40))
    first, *_ = parts(tmp_path / "d", CLOCKS["host"] + MAP)[0]
    again, _ = parts(tmp_path / "d", CLOCKS["host"] + MAP, finished=frozenset({first.source.file_sha256}))
    assert [one.length for one in again] == [0, 40]
    assert again[0].source.file_sha256 == first.source.file_sha256
    assert again[0].bytes_read == (tmp_path / "d/a.csv").stat().st_size


@pytest.mark.parametrize(
    ("column", "cell", "error"),
    [(3, "nan", NotFiniteError), (3, "1,5", RaggedError), (4, "wide", CellInvalidError), (0, "", CellInvalidError)],
)  # fmt: skip
def test_a_bad_cell_of_a_later_part_is_named_by_its_row_in_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, column: int, cell: str, error: type[Exception]
) -> None:
    smaller(monkeypatch, 8)
    table = rows()
    table[36][column] = cell
    (tmp_path / "map.toml").write_text(CLOCKS["host"] + MAP)
    named = "row 38" if error is RaggedError else "row 37"  # the library counts the header
    with pytest.raises(error, match=named):
        bring(tmp_path / "s", csv(tmp_path / "a.csv", table), signal_map=tmp_path / "map.toml", allow=FIELDS)
    assert tree(tmp_path / "s") == {}


def test_another_decimal_sign_in_a_later_part_is_named_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    smaller(monkeypatch, 8)
    table = rows()
    table[36][3] = '"1,5"'
    with pytest.raises(DecimalMismatchError, match="row 37"):
        parts(csv(tmp_path / "a.csv", table), CLOCKS["host"] + MAP)


def test_whole_nanoseconds_stay_what_they_are(tmp_path: Path) -> None:
    stamps = [1_795_000_001_250_000_001, 1_795_000_001_250_000_003, 1_795_000_001_250_000_009]
    table = pa.table({"t": stamps, "run": ["1"] * 3, "v0": [1.0] * 3, "v1": [1.0] * 3, "lost": [""] * 3})
    pq.write_table(table, tmp_path / "a.parquet")
    lines = ["t,run,v0,v1,lost", *(f" {stamp} ,1,1,1," for stamp in stamps)]
    (tmp_path / "b.csv").write_text("\n".join(lines) + "\n")
    text = CLOCKS["host"].replace('"s"', '"ns"') + MAP
    for name in ("a.parquet", "b.csv"):
        (found,), _ = parts(tmp_path / name, text)
        assert found.stamps_ns.tolist() == stamps
    with pytest.raises(CellInvalidError, match="64 bits"):
        parts(tmp_path / "b.csv", CLOCKS["host"] + MAP)


def test_progress_tells_bytes_that_never_fall(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    smaller(monkeypatch, 8)
    (tmp_path / "d").mkdir()
    size = sum(csv(tmp_path / f"d/{n}.csv", rows(30 + n)).stat().st_size for n in range(3))
    (tmp_path / "map.toml").write_text(CLOCKS["host"] + MAP)
    told: list[Progress] = []
    changes = {"signal_map": tmp_path / "map.toml", "allow": FIELDS, "progress": told.append}
    report = bring(tmp_path / "s", tmp_path / "d", **changes)
    assert len(told) > 10
    assert [one.bytes_done for one in told] == sorted(one.bytes_done for one in told)
    assert {one.bytes_total for one in told} == {size}
    assert (told[-1].bytes_done, told[-1].files) == (size, 3)
    assert told[-1].episodes == report.episodes_added + report.duplicates
