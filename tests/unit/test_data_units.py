# SPDX-License-Identifier: Apache-2.0
"""Whose an episode is: keys, units that come back, owners that are refused, statistics that nobody may ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import MapInvalidError
from client.data.owners import unit_id
from client.data.signalmap import parse_map
from client.data.store import Store
from policies.privacy.errors import LineageUnknownError, PrivateStatisticError, UnitRefusedError
from tests.datasim import ALLOW, KEY, Recording, bring, edit_info, tree, write_v3

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.store import EpisodeMeta

FIELDS = frozenset({"tool_current"})
MAP = """
clock   = {column = "t", unit = "s", kind = "controller"}
segment = {by = "column", column = "run", min_frames = 2}
signal  = [{field = "tool_current", columns = ["c"], unit = "A", role = "observation"}]
"""
PIECE = 'unit = {kind = "work-piece", column = "piece"}\n'
LEROBOT = """
segment = {{by = "file"}}
signal  = [{{field = "tcp_pos", columns = ["observation.state.tcp_pos_{{0..2}}"], unit = "m", role = "observation"}}]
unit    = {{kind = "order", column = "observation.state.gripper_width_0"{more}}}
"""


def table(tmp_path: Path, runs: list[tuple[str, str]], *, name: str = "a", frames: int = 4) -> Path:
    """A log: per run its number and its piece. Values follow from the run, stamps go on."""
    rows, at = ["t;run;piece;c"], 0
    for run, piece in runs:
        for number in range(frames):
            rows.append(f"{at / 10};{run};{piece};{int(run) * 100 + number}")
            at += 1
    path = tmp_path / f"{name}.csv"
    path.write_text("\n".join(rows).replace(";", ",") + "\n")
    return path


def keyed(tmp_path: Path, source: Path, text: str = MAP + PIECE, **changes: object):
    (tmp_path / "map.toml").write_text(text)
    options = {"signal_map": tmp_path / "map.toml", "allow": FIELDS} | changes
    return bring(tmp_path / "s", source, **options)


def metas(tmp_path: Path, dataset: str = "kita/pick") -> list[EpisodeMeta]:
    return [one.meta for one in Store(tmp_path / "s").episodes(dataset)]


def test_all_episodes_with_one_key_value_are_one_unit(tmp_path: Path) -> None:
    keyed(tmp_path, table(tmp_path, [("1", "p7"), ("2", "p8"), ("3", "p7")]))
    found = metas(tmp_path)
    assert [one.unit_id for one in found] == [
        unit_id(KEY, "work-piece", b"\0" + piece) for piece in (b"p7", b"p8", b"p7")
    ]
    assert found[0].split == found[2].split
    assert found[0].block == found[2].block
    assert Store(tmp_path / "s").catalogue().dataset("kita/pick").unit == "work-piece"


def test_the_key_itself_is_nowhere_in_the_store(tmp_path: Path) -> None:
    keyed(tmp_path, table(tmp_path, [("1", "ZX-4711"), ("2", "ZX-4712")]))
    kept = {name: data for name, data in tree(tmp_path / "s").items() if b"ZX-47" in data}
    assert not kept
    assert unit_id(KEY[::-1], "work-piece", b"\0ZX-4711") != metas(tmp_path)[0].unit_id


@pytest.mark.parametrize(("pieces", "found"), [(("p1", "p2"), 2), (("", ""), 0)])
def test_an_episode_of_two_owners_or_of_none_is_refused(
    tmp_path: Path, pieces: tuple[str, str], found: int
) -> None:
    source = table(tmp_path, [("1", pieces[0]), ("1", pieces[1])])
    with pytest.raises(
        UnitRefusedError, match=rf"privacy\.unit-refused.*found {found} in a.csv, rows 0 to 8"
    ):
        keyed(tmp_path, source)
    assert not (tmp_path / "s" / "catalogue.json").exists()


def test_a_gap_in_the_key_column_belongs_to_the_episode_around_it(tmp_path: Path) -> None:
    keyed(tmp_path, table(tmp_path, [("1", "p1"), ("1", ""), ("1", "p1")]))
    assert metas(tmp_path)[0].unit_id == unit_id(KEY, "work-piece", b"\0p1")


def test_a_work_piece_that_comes_back_stays_in_its_first_block_and_split(tmp_path: Path) -> None:
    pieces = [f"p{n}" for n in range(12)]
    first = keyed(tmp_path, table(tmp_path, [(str(n), p) for n, p in enumerate(pieces)]))
    homes = {one.unit_id: (one.block, one.split) for one in metas(tmp_path)}
    assert {split for _, split in homes.values()} == {"train", "held-out"}
    later = [(str(100 + n), p) for n, p in enumerate([*pieces, "new"])]
    second = keyed(tmp_path, table(tmp_path, later, name="b"), held_out_percent=0)
    assert second.lineage == first.lineage
    added = metas(tmp_path)[12:]
    assert len(added) == 13
    assert all((one.block, one.split) == homes[one.unit_id] for one in added[:12])
    assert (added[12].block, added[12].split) == (3, "train")
    blocks = Store(tmp_path / "s").catalogue().lineages[first.lineage]
    assert sum(len(one.episodes) for one in blocks) == 25
    third = keyed(tmp_path, table(tmp_path, later, name="b"), dataset="kita/copy")
    assert third.episodes_added == 13
    assert [one.block for one in metas(tmp_path, "kita/copy")] == [one.block for one in added]


def test_a_known_work_piece_under_another_name_of_a_data_set_keeps_its_lineage(tmp_path: Path) -> None:
    first = keyed(tmp_path, table(tmp_path, [("1", "p1")]))
    other = keyed(tmp_path, table(tmp_path, [("2", "p1"), ("3", "p2")], name="b"), dataset="kita/other")
    assert other.lineage == first.lineage
    assert metas(tmp_path, "kita/other")[0].block == metas(tmp_path)[0].block


def test_equal_numbers_of_unrelated_counters_are_told_apart(tmp_path: Path) -> None:
    first = keyed(tmp_path, table(tmp_path, [("1", "p1")]))
    apart = MAP + 'unit = {kind = "work-piece", column = "piece", space = "line 2"}\n'
    other = keyed(tmp_path, table(tmp_path, [("2", "p1")], name="b"), apart, dataset="kita/other")
    assert other.lineage != first.lineage
    assert metas(tmp_path, "kita/other")[0].unit_id == unit_id(KEY, "work-piece", b"line 2\0p1")


def test_an_exact_copy_is_the_same_unit_and_counted(tmp_path: Path) -> None:
    report = keyed(tmp_path, table(tmp_path, [("1", "p1"), ("2", "p1"), ("1", "p1")]))
    assert (report.episodes_added, report.duplicates) == (2, 1)
    assert len({one.unit_id for one in metas(tmp_path)}) == 1


@pytest.mark.parametrize("later", [False, True])
def test_a_copy_that_another_work_piece_claims_has_two_owners(tmp_path: Path, later: bool) -> None:
    runs = [("1", "p1"), ("2", "p2"), ("1", "p3")]
    before = {}
    if later:
        keyed(tmp_path, table(tmp_path, runs[:2]))
        runs, before = [("1", "p3")], tree(tmp_path / "s")
    with pytest.raises(UnitRefusedError, match="one owner"):
        keyed(tmp_path, table(tmp_path, runs, name="b"), dataset="kita/other" if later else "kita/pick")
    assert not later or tree(tmp_path / "s") == before


def test_data_of_one_unit_are_not_imported_again_as_data_of_another(tmp_path: Path) -> None:
    source = table(tmp_path, [("1", "p1"), ("2", "p2")])
    keyed(tmp_path, source, MAP)
    before = tree(tmp_path / "s")
    with pytest.raises(UnitRefusedError, match="data set kita/pick"):
        keyed(tmp_path, source)
    with pytest.raises(UnitRefusedError, match="ever since its first import"):
        keyed(tmp_path, source, dataset="kita/other")
    assert tree(tmp_path / "s") == before


def test_an_import_without_the_key_that_the_recipes_protect_is_refused(tmp_path: Path) -> None:
    source = table(tmp_path, [("1", "p1")])
    with pytest.raises(UnitRefusedError, match="unit work-piece, as the recipes"):
        keyed(tmp_path, source, MAP, units={"work-piece"})
    assert keyed(tmp_path, source, units={"work-piece"}).episodes_added == 1


def test_a_lerobot_folder_may_hold_the_key_in_a_column(tmp_path: Path) -> None:
    recording = Recording.random(4, 5, 6, 4)
    for number, one in enumerate(recording.observations):
        one[:, 3] = number % 2
    source = write_v3(tmp_path / "d", recording, splits={"train": "0:3", "held-out": "3:4"})
    report = keyed(tmp_path, source, LEROBOT.format(more=""), allow=ALLOW)
    found = metas(tmp_path)
    assert [one.unit_id for one in found[:2]] == [one.unit_id for one in found[2:]]
    assert [one.split for one in found] == ["train"] * 4  # the first episode of a unit decides for all
    assert {one.code: one.count for one in report.findings} == {"split-follows-unit": 1}
    edit_info(source, splits={"train": "0:4"})
    with pytest.raises(MapInvalidError, match="kind"):
        keyed(tmp_path, source, LEROBOT.format(more="").replace("order", "frame"), allow=ALLOW)


def test_a_store_of_the_version_before_is_read_as_it_was(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", Recording.random(7, 5, 9)))
    root = tmp_path / "s"
    before = metas(tmp_path)
    (path,) = root.rglob("iriai/episodes.parquet")
    rows = pq.read_table(path)
    at = rows.column_names.index("unit_ids")
    old = pa.array([one.unit_id for one in before], pa.binary())
    pq.write_table(rows.set_column(at, "unit_id", old), path)
    catalogue = (root / "catalogue.json").read_bytes()
    (root / "catalogue.json").write_bytes(catalogue.replace(b',"unit":"episode"', b"").replace(b',""]', b"]"))
    assert metas(tmp_path) == before
    again = bring(root, tmp_path / "d", dataset="kita/more")
    assert again.lineage == before[0].lineage
    assert [one.unit_id for one in metas(tmp_path, "kita/more")] == [one.unit_id for one in before]


def test_several_owners_fit_the_schema_and_are_refused(tmp_path: Path) -> None:
    keyed(tmp_path, table(tmp_path, [("1", "p1")]))
    (path,) = (tmp_path / "s").rglob("iriai/episodes.parquet")
    rows = pq.read_table(path)
    at = rows.column_names.index("unit_ids")
    pq.write_table(
        rows.set_column(at, "unit_ids", pa.array([[b"a" * 32, b"b" * 32]], pa.list_(pa.binary()))), path
    )
    (found,) = metas(tmp_path)
    with pytest.raises(UnitRefusedError, match="one owner"):
        _ = found.unit_id


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ("", 'normalise = "mean-std"\n', "normalise"),
        ("", "statistics = {tool_current = [0.1, 0.2]}\n", "statistics"),
        ("", 'outliers = {method = "iqr"}\n', "outliers"),
        ("min_frames = 2", 'min_frames = "auto"', "segment.min_frames: auto"),
        ("min_frames = 2", 'max_gap_s = "median"', "segment.max_gap_s: median"),
        ('unit = "A"', 'unit = "A", mean = 0.3, std = 0.1', "signal.mean"),
        ('unit = "A"', 'unit = "z-score"', "signal.unit: z-score"),
        ('unit = "A"', 'unit = "A", near_duplicates = "drop"', "signal.near_duplicates"),
        ('kind = "controller"', 'kind = "controller", rate_hz = "mean"', "clock.rate_hz: mean"),
    ],
)
def test_a_map_that_asks_for_a_statistic_of_the_recordings_is_refused_by_name(
    old: str, new: str, named: str
) -> None:
    text = MAP.replace(old, new, 1) if old else new + MAP
    with pytest.raises(PrivateStatisticError, match=r"privacy\.private-statistic") as refused:
        parse_map(text.encode())
    assert named in refused.value.found


def test_a_column_may_bear_the_name_of_a_statistic() -> None:
    signals = parse_map((MAP.replace('["c"]', '["max"]') + 'task = "auto"\n').encode())
    assert signals.number_columns == ("max",)


LINES = """\
schema = "iriai-signalmap/1"
segment = {by = "column", column = "run", min_frames = 2}
clock = {column = "t", unit = "s", kind = "controller"}  # kind and unit stand here, too
task = "pick"
signal = [
  {field = "tool_current", columns = ["c"], unit = "A", role = "observation"},
  {field = "tcp_pos", columns = [
   "x{0..2}"], unit = "m", role = "observation"},
]
label = [{field = "held", column = "kind = 1", values = {"yes" = true}}]
unit = {kind = "work-piece", column = "piece"}
"""
TABLES = """\
task = "pick"

[clock]
column = "t"
unit = "s"
kind = "controller"

[[signal]]
field = "tool_current"
columns = ["c"]
unit = "A"
role = "observation"

[[signal]]
field = "tcp_pos"
columns = ["x{0..2}"]
unit = "m"
role = "observation"

[unit]
kind = "work-piece"
column = "piece"
"""


@pytest.mark.parametrize(
    ("text", "old", "new", "line"),
    [
        (LINES, '"work-piece"', '"piece"', 11),
        (LINES, ', column = "piece"}', "}", 11),
        (LINES, 'column = "t", ', "colum = 1, ", 3),
        (LINES, '"controller"', '"derived"', 3),
        (LINES, '"controller"', '"clock"', 3),
        (LINES, 'unit = "m"', 'unit = "furlong"', 7),
        (LINES, 'unit = "m"', 'unit = "auto"', 8),
        (LINES, 'unit = "m"', "unit = 3", 8),
        (LINES, "{0..2}", "{2..0}", 7),
        (LINES, '"x{0..2}"', '"c", "y", "z"', 7),
        (LINES, "min_frames = 2", 'min_frames = "auto"', 2),
        (LINES, "true}}", "1}}", 10),
        (LINES, '"pick"', '"PICK"', 4),
        (TABLES, '"work-piece"', '"piece"', 21),
        (TABLES, 'column = "piece"', "", 20),
        (TABLES, '"controller"', '"clock"', 6),
        (TABLES, 'unit = "m"', 'unit = "auto"', 17),
        (TABLES, 'unit = "m"', 'unit = "furlong"', 14),
        (TABLES, "tcp_pos", "tool_current", 14),
    ],
)
def test_a_refused_map_names_the_line_of_the_table_that_is_wrong(
    text: str, old: str, new: str, line: int
) -> None:
    parse_map(text.encode())
    with pytest.raises((MapInvalidError, PrivateStatisticError)) as refused:
        parse_map(text.replace(old, new, 1).encode())
    assert refused.value.found.endswith(f"(line {line})")


def test_what_a_profile_brings_has_no_line_in_the_file() -> None:
    with pytest.raises(MapInvalidError) as refused:
        parse_map(
            b'profile = "ur-rtde/1"\n# signal and embodiment\nembodiment = {class = "6r-arm", dof = 9, action_space = "none"}\n'
        )
    assert "line" not in refused.value.found


@pytest.mark.parametrize(
    ("text", "wanted", "remedy"),
    [
        (
            MAP + PIECE,
            "episode",
            "remove the unit line from the signal map, or sign a contract whose unit is work-piece",
        ),
        (MAP, "order", 'unit = {kind = "order", column = ...}'),
        (MAP + PIECE, "order", 'unit = {kind = "order", column = ...}'),
    ],
)
def test_the_remedy_for_another_unit_leads_to_the_one_that_is_wanted(
    tmp_path: Path, text: str, wanted: str, remedy: str
) -> None:
    with pytest.raises(UnitRefusedError) as refused:
        keyed(tmp_path, table(tmp_path, [("1", "p1")]), text, units=(wanted,))
    assert remedy in refused.value.remedy


def test_rows_that_are_here_under_another_cut_or_unit_are_named_with_their_data_set(tmp_path: Path) -> None:
    source = table(tmp_path, [("1", "p1"), ("2", "p2")])
    keyed(tmp_path, source, MAP + PIECE, dataset="kita/pieces")
    with pytest.raises(UnitRefusedError, match=r"kita/pieces \(unit work-piece\)"):
        keyed(tmp_path, source, MAP)
    whole = MAP.replace('by = "column", column = "run"', 'by = "file"')
    with pytest.raises(LineageUnknownError, match=r"kita/pieces \(unit work-piece\)"):
        keyed(tmp_path, source, whole)
