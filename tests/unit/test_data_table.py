# SPDX-License-Identifier: Apache-2.0
"""CSV and Parquet through a signal map: the traps of real controller logs, each planted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import (
    CellInvalidError,
    DecimalMismatchError,
    FileInvalidError,
    MapInvalidError,
    MissingColumnError,
    NoEpisodesError,
    NotFiniteError,
    PointerFileError,
    RaggedError,
    TooLargeError,
)
from client.data.segment import cut
from client.data.series import Series, SourceRef
from client.data.signalmap import parse_map
from client.data.store import Store
from tests.datasim import both, bring, tree

if TYPE_CHECKING:
    from pathlib import Path

FIELDS = frozenset({"joint_pos", "tool_current", "grip_lost"})
SIGNALS = FIELDS - {"grip_lost"}
MAP = """
table   = {{delimiter = "{delimiter}", decimal = "{decimal}"}}
clock   = {{column = "t", unit = "s", kind = "controller"}}
secret  = ["Program*", "part_number"]
segment = {{by = "column", column = "cycle", max_gap_s = 1.0, min_frames = 2}}
signal  = [{{field = "joint_pos", columns = ["q{{0..1}}"], unit = "deg", role = "observation"}},
           {{field = "tool_current", columns = ["I"], unit = "mA", role = "observation"}}]
label   = [{{field = "grip_lost", column = "lost", values = {{"True" = true, "False" = false}}}}]
embodiment = {{class = "6r-arm", dof = 2, action_space = "none"}}
"""
HEADER = ["t", "q0", "q1 ", "I", "cycle", "lost", "ProgramName", "note", "", ""]
ROWS = [
    ["0.0", "90", "-45.5", "1000", "1", "False", "weld7", "a", "", ""],
    ["0.1", "91", "-45.5", "1001", "1", "True", "weld7", "", "", ""],
    ["0.2", "", "", "", "1", "True", "weld7", "", "", ""],
    ["0.3", "92", "-44", "1.5e3", "2", "maybe", "weld8", "", "", ""],
    ["0.4", "93", "-44", "1000", "2", "", "weld8", "", "", ""],
    ["0.5", "93", "-44", "1000", "3", "", "weld8", "", "", ""],
]


def log(
    path: Path,
    *,
    rows: list[list[str]] | None = None,
    delimiter: str = ",",
    decimal: str = ".",
    end: str = "\n",
) -> Path:
    cells = [HEADER, *(rows if rows is not None else ROWS)]
    lines = [delimiter.join(c.replace(".", decimal) if n else c for c in row) for n, row in enumerate(cells)]
    path.write_bytes((end.join(lines) + end).encode("utf-8"))
    return path


def a_map(
    path: Path, *, delimiter: str = ",", decimal: str = ".", change: tuple[str, str] = ("", "")
) -> Path:
    text = MAP.format(delimiter=delimiter, decimal=decimal)
    assert change[0] in text
    path.write_text(text.replace(*change) if change[0] else text)
    return path


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize(("delimiter", "decimal"), [(";", ","), (";", "."), (",", "."), ("\t", ",")])
def test_line_ends_delimiters_and_decimal_signs_give_the_same_frames(
    tmp_path: Path, end: str, delimiter: str, decimal: str
) -> None:
    source = log(tmp_path / "a.csv", delimiter=delimiter, decimal=decimal, end=end)
    signal_map = a_map(tmp_path / "m.toml", delimiter=delimiter, decimal=decimal)
    report = bring(tmp_path / "s", source, signal_map=signal_map, allow=FIELDS)
    assert (report.episodes_added, report.frames_added) == (2, 5)
    counts = {f.code: f.count for f in report.findings}
    assert counts == {
        "empty-columns": 2,
        "excluded-by-schema": 1,
        "missing-rows": 1,
        "pieces-too-short": 1,
        "secret-columns": 1,
        "secret-matched-nothing": 1,
    }
    (whole,) = both(tmp_path / "s", SIGNALS)  # the other is excluded: a third of its rows is missing
    np.testing.assert_allclose(whole.fields["joint_pos"], np.deg2rad([[92, -44], [93, -44]]), rtol=1e-6)
    np.testing.assert_allclose(whole.fields["tool_current"], [[1.5], [1.0]], rtol=1e-6)
    stored = Store(tmp_path / "s").episodes("kita/pick")
    assert {e.meta.clock for e in stored} == {"controller"}
    assert sorted(e.meta.start_ns or 0 for e in stored) == [0, 300_000_000]


def test_a_missing_row_makes_its_label_unknown_whatever_it_says(tmp_path: Path) -> None:
    bring(tmp_path / "s", log(tmp_path / "a.csv"), signal_map=a_map(tmp_path / "m.toml"), allow=FIELDS)
    store = Store(tmp_path / "s")
    folder = store.folder("kita/pick", store.catalogue().dataset("kita/pick"))
    table = pq.read_table(folder / "data/chunk-000/file-000.parquet")
    assert table["label.grip_lost"].to_pylist() == [0, 1, -1, -1, -1]
    assert np.isnan(table["observation.tool_current"].to_pylist()[2]).all()


def test_secret_columns_never_reach_the_store(tmp_path: Path) -> None:
    report = bring(
        tmp_path / "s", log(tmp_path / "a.csv"), signal_map=a_map(tmp_path / "m.toml"), allow=FIELDS
    )
    assert "ProgramName" not in report.dropped_columns
    for name, data in tree(tmp_path / "s").items():
        if not name.endswith(".toml"):
            assert b"weld7" not in data
            assert b"Program" not in data


def test_only_allowed_fields_reach_the_store(tmp_path: Path) -> None:
    report = bring(
        tmp_path / "s",
        log(tmp_path / "a.csv"),
        signal_map=a_map(tmp_path / "m.toml"),
        allow=frozenset({"joint_pos"}),
    )
    assert report.fields == ("joint_pos",)
    assert {"I", "lost"} <= set(report.dropped_columns)
    store = Store(tmp_path / "s")
    folder = store.folder("kita/pick", store.catalogue().dataset("kita/pick"))
    names = pq.read_schema(folder / "data/chunk-000/file-000.parquet").names
    assert "observation.joint_pos" in names
    assert not any("tool_current" in n or "grip_lost" in n for n in names)


def test_parquet_gives_the_same_frames_as_csv(tmp_path: Path) -> None:
    number = lambda c: float(c) if c else None  # noqa: E731
    columns = {
        "t": [number(r[0]) for r in ROWS],
        "q0": [number(r[1]) for r in ROWS],
        "q1": [number(r[2]) for r in ROWS],
        "I": [number(r[3]) for r in ROWS],
        "cycle": [int(r[4]) for r in ROWS],
        "lost": pa.array([False, True, True, None, None, None]),
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    signal_map = a_map(tmp_path / "m.toml")
    bring(tmp_path / "s", tmp_path / "a.parquet", signal_map=signal_map, allow=FIELDS)
    bring(tmp_path / "t", log(tmp_path / "a.csv"), signal_map=signal_map, allow=FIELDS)
    digests = [[e.meta.digest for e in Store(tmp_path / s).episodes("kita/pick")] for s in "st"]
    assert digests[0] == digests[1]


def changed(row: int, column: int, cell: str) -> list[list[str]]:
    rows = [list(r) for r in ROWS]
    rows[row][column] = cell
    return rows


REFUSED_ROWS = [
    (changed(1, 1, "NaN"), NotFiniteError, "row 2"),
    (changed(1, 1, "inf"), NotFiniteError, "row 2"),
    (changed(1, 1, "1e999"), NotFiniteError, "row 2"),
    (changed(3, 3, "n/a"), CellInvalidError, "row 4"),
    (changed(4, 0, ""), CellInvalidError, "stamp"),
    ([*ROWS[:2], ROWS[2][:-1], *ROWS[3:]], RaggedError, "row 4"),
    ([*ROWS[:2], [*ROWS[2], "x"], *ROWS[3:]], RaggedError, "row 4"),
    ([], NoEpisodesError, "episode"),
    (changed(1, 3, "1e300"), NotFiniteError, "32-bit"),
    (changed(1, 7, "x" * 70_000), TooLargeError, "65536"),
]


@pytest.mark.parametrize(("rows", "error", "text"), REFUSED_ROWS)
def test_bad_cells_are_refused_with_their_row(
    tmp_path: Path, rows: list[list[str]], error: type, text: str
) -> None:
    with pytest.raises(error, match=text):
        bring(
            tmp_path / "s",
            log(tmp_path / "a.csv", rows=rows),
            signal_map=a_map(tmp_path / "m.toml"),
            allow=FIELDS,
        )
    assert tree(tmp_path / "s") == {}


@pytest.mark.parametrize(("written", "declared"), [(",", "."), (".", ",")])
def test_the_other_decimal_sign_is_never_guessed(tmp_path: Path, written: str, declared: str) -> None:
    source = log(tmp_path / "a.csv", delimiter=";", decimal=written)
    with pytest.raises(DecimalMismatchError, match="row 1"):
        bring(
            tmp_path / "s",
            source,
            signal_map=a_map(tmp_path / "m.toml", delimiter=";", decimal=declared),
            allow=FIELDS,
        )


def test_a_wrong_delimiter_is_a_missing_column(tmp_path: Path) -> None:
    with pytest.raises(MissingColumnError, match="q0"):
        bring(
            tmp_path / "s",
            log(tmp_path / "a.csv"),
            signal_map=a_map(tmp_path / "m.toml", delimiter=";"),
            allow=FIELDS,
        )


def test_a_pointer_file_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    with pytest.raises(PointerFileError, match="git lfs pull"):
        bring(tmp_path / "s", tmp_path / "a.csv", signal_map=a_map(tmp_path / "m.toml"), allow=FIELDS)


def test_bytes_that_are_no_text_are_refused(tmp_path: Path) -> None:
    source = log(tmp_path / "a.csv")
    source.write_bytes(source.read_bytes().replace(b"weld7,a", b"weld7,\xff"))
    with pytest.raises(FileInvalidError, match="UTF-8"):
        bring(tmp_path / "s", source, signal_map=a_map(tmp_path / "m.toml"), allow=FIELDS)


def test_a_folder_is_read_file_by_file_in_the_order_of_names(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    log(tmp_path / "d/b.csv", end="\r")
    rows = [[r[0], r[1] and "1" + r[1], *r[2:]] for r in ROWS]
    log(tmp_path / "d/a.csv", rows=rows, end="\r\n")
    report = bring(tmp_path / "s", tmp_path / "d", signal_map=a_map(tmp_path / "m.toml"), allow=FIELDS)
    assert report.episodes_added == 4
    files = [e.meta.file_sha256 for e in Store(tmp_path / "s").episodes("kita/pick")]
    assert files[0] == files[1] != files[2] == files[3]


def test_rows_without_a_clock_end_with_the_last_value(tmp_path: Path) -> None:
    signal_map = tmp_path / "m.toml"
    signal_map.write_text(
        'clock = {column = "n", unit = "count", rate_hz = 20, kind = "derived"}\n'
        'signal = [{field = "tool_current", columns = ["I"], unit = "A", role = "observation"}]\n'
    )
    (tmp_path / "a.csv").write_text("n,I\n1,0.5\n2,\n3,0.7\n4,\n5,\n")
    report = bring(tmp_path / "s", tmp_path / "a.csv", signal_map=signal_map, allow=FIELDS)
    assert report.frames_added == 3
    assert {f.code: f.count for f in report.findings}["padding-rows"] == 2


BAD_MAPS = [
    ('unit = "deg"', 'unit = "degrees"', "line 6"),
    ('unit = "mA"', 'unit = "rad"', "line 7"),
    ('field = "tool_current"', 'field = "tool_amps"', "line 7"),
    ('field = "tool_current"', 'field = "joint_pos"', "twice"),
    ('columns = ["I"]', 'columns = ["q0"]', "twice"),
    ('columns = ["I"]', 'columns = ["I", "J"]', "1 columns"),
    ("dof = 2", "dof = 6", "6 columns"),
    ('column = "cycle", ', "", "column"),
    ('by = "column"', 'by = "colum"', "line 5"),
    ("max_gap_s", "max_gap", "line 5"),
    ('"part_number"', '"I"', "secret"),
    ('kind = "controller"', 'kind = "derived"', "kind"),
    ('unit = "s"', 'unit = "count"', "rate_hz"),
    ("signal  =", "signals =", "signal"),
    ("}]", "}", "TOML"),
]


@pytest.mark.parametrize(("old", "new", "text"), BAD_MAPS)
def test_a_wrong_map_is_refused(tmp_path: Path, old: str, new: str, text: str) -> None:
    with pytest.raises(MapInvalidError, match=text):
        bring(
            tmp_path / "s",
            log(tmp_path / "a.csv"),
            signal_map=a_map(tmp_path / "m.toml", change=(old, new)),
            allow=FIELDS,
        )


def test_a_table_needs_a_clock(tmp_path: Path) -> None:
    signal_map = tmp_path / "m.toml"
    signal_map.write_text(
        'signal = [{field = "tool_current", columns = ["I"], unit = "A", role = "observation"}]\n'
    )
    with pytest.raises(MapInvalidError, match="clock"):
        bring(tmp_path / "s", log(tmp_path / "a.csv"), signal_map=signal_map, allow=FIELDS)


def series(stamps: list[float], **texts: list[str]) -> Series:
    n = len(stamps)
    return Series(
        name="s",
        stamps_ns=np.array([round(t * 1e9) for t in stamps], dtype=np.int64),
        clock="controller",
        columns={"v": np.array([float(x) for x in texts.pop("speed", ["1"] * n)])},
        texts={k: np.array(v, dtype=object) for k, v in texts.items()},
        source=SourceRef(reader="table", file_sha256="0" * 64, first=0, last=n),
    )


def rule(text: str) -> object:
    head = 'signal = [{field = "joint_vel", columns = ["v"], unit = "rad/s", role = "observation"}]\n'
    return parse_map((head + "segment = {" + text + "}\n").encode())


def test_a_column_rule_cuts_at_each_change_also_backwards() -> None:
    found = cut(
        series([0, 1, 2, 3, 4, 5], c=["1", "1", "2", "", "1", "1"]), rule('by = "column", column = "c"')
    )
    assert found.pieces == ((0, 2), (2, 4), (4, 6))


def test_an_edge_rule_keeps_what_is_high() -> None:
    found = cut(series([0, 1, 2, 3, 4], c=["0", "1", "1", "0", "1"]), rule('by = "edge", column = "c"'))
    assert found.pieces == ((1, 3), (4, 5))


def test_an_idle_rule_keeps_what_moves() -> None:
    speed = ["1", "0", "1", "0", "0", "0", "1"]
    found = cut(series([0, 1, 2, 3, 4, 5, 6], speed=speed), rule('by = "idle", below = 0.1, for_s = 2'))
    assert found.pieces == ((0, 3), (6, 7))


def test_gaps_and_backward_stamps_cut_always_and_short_pieces_are_counted() -> None:
    found = cut(series([0, 1, 9, 10, 3, 4, 5]), rule('by = "file", max_gap_s = 5, min_frames = 3'))
    assert found.pieces == ((4, 7),)
    assert found.dropped == 2
