# SPDX-License-Identifier: Apache-2.0
"""The owner's way to his episodes: everything opened, exported and brought back bit for bit, or removed."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data import describe, export_lerobot, open_dataset, open_view
from client.data.errors import (
    DatasetInUseError,
    DatasetUnknownError,
    EpisodeUnknownError,
    FieldNotAllowedError,
    FileInvalidError,
    MapInvalidError,
    SealedError,
    StoreDamagedError,
)
from client.data.store import Store
from policies.privacy.errors import UnitRefusedError
from tests.datasim import ALLOW, NODE, Recording, SimClock, both, bring, tree, view, write_v3

if TYPE_CHECKING:
    from pathlib import Path

RECORD = Recording.random(12, 9, 15)
MODEL = "sha256:" + "7" * 64
FIELDS = frozenset({"joint_vel", "tool_current", "outcome"})
MAP = """
clock   = {column = "t", unit = "s", kind = "host"}
segment = {by = "column", column = "run", min_frames = 2}
secret  = ["torque*", "program"]
keep_private = true
signal  = [{field = "joint_vel", columns = ["v"], unit = "rad/s", role = "observation"},
           {field = "tool_current", columns = ["torque_i"], unit = "A", role = "observation"},
           {field = "x_feed", columns = ["feed"], unit = "mm/s", role = "observation"},
           {field = "joint_vel", columns = ["cmd"], unit = "rad/s", role = "action"}]
label   = [{field = "outcome", column = "ok", values = {"1" = true, "0" = false}}]
"""


def log(path: Path, *, runs: int = 3, rows: int = 6) -> Path:
    rng = np.random.default_rng(runs)
    lines = ["t,run,v,torque_i,feed,cmd,ok,program"]
    for number in range(runs * rows):
        v, i, feed, cmd = rng.standard_normal(4)
        cell = "" if number % 7 == 3 else f"{i:.4f}"
        stamp = number / 10 + rng.uniform(0, 0.01)
        lines.append(f"{stamp:.6f},{number // rows},{v:.5f},{cell},{feed:.3f},{cmd:.5f},{number % 2},weld7")
    path.write_text("\n".join(lines) + "\n")
    return path


def brought(tmp_path: Path, text: str = MAP, **changes: object) -> Path:
    (tmp_path / "map.toml").write_text(text)
    options = {"signal_map": tmp_path / "map.toml", "allow": FIELDS} | changes
    bring(tmp_path / "s", log(tmp_path / "a.csv"), **options)
    return tmp_path / "s" / "datasets" / "kita+pick"


def test_the_owner_opens_every_column_of_a_data_set_folder(tmp_path: Path) -> None:
    opened = open_dataset(brought(tmp_path))
    assert len(opened) == 3
    assert opened.columns == (
        "action.joint_vel", "observation.joint_vel", "observation.tool_current", "observation.x_feed",
    )  # fmt: skip
    episodes = list(opened)
    assert [one.length for one in episodes] == [6, 6, 6]
    assert opened[-1].number == 2
    assert [one.number for one in opened[1:]] == [1, 2]
    assert np.isnan(episodes[0].columns["observation.tool_current"][3]).all()
    assert episodes[0].columns["observation.x_feed"].shape == (6, 1)
    assert episodes[0].labels["outcome"].tolist() == [0, 1, 0, 1, 0, 1]
    assert episodes[0].meta is not None
    assert episodes[0].meta.start_ns == episodes[0].stamps_ns[0]
    assert episodes[0].said["clock"] == "host"


def test_a_folder_that_is_no_data_set_is_named(tmp_path: Path) -> None:
    with pytest.raises(DatasetUnknownError, match="data list"):
        open_dataset(tmp_path / "datasets" / "kita+pick")
    with pytest.raises(DatasetUnknownError, match="data add"):
        open_dataset(write_v3(tmp_path / "d", RECORD))
    folder = brought(tmp_path)
    file = next(folder.glob("*/data/*/*.parquet"))
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(StoreDamagedError, match="file-000"):
        list(open_dataset(folder))


def test_an_index_that_points_elsewhere_is_found(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    path = next(folder.glob("*/meta/episodes/*/*.parquet"))
    rows = pq.read_table(path)
    at = rows.schema.get_field_index("dataset_from_index")
    pq.write_table(rows.set_column(at, rows.schema.field(at), pa.array([0, 7, 12])), path)
    with pytest.raises(StoreDamagedError, match="file-000"):
        list(open_dataset(folder))


def test_an_export_has_what_the_fields_own_tools_look_for(tmp_path: Path) -> None:
    brought(tmp_path)
    report = export_lerobot(tmp_path / "s", "kita/pick", tmp_path / "out", private=True)
    assert (report.episodes, report.frames, report.left_out) == (3, 18, ())
    info = json.loads((tmp_path / "out/meta/info.json").read_text())
    assert info["features"]["action"] == {"dtype": "float32", "names": ["joint_vel_0"], "shape": [1]}
    assert info["features"]["observation.state"]["names"] == ["joint_vel_0", "tool_current_0", "x_feed_0"]
    stats = json.loads((tmp_path / "out/meta/stats.json").read_text())
    assert set(stats["action"]) == {"min", "max", "mean", "std", "count", "q01", "q10", "q50", "q90", "q99"}
    data = pq.read_table(tmp_path / "out/data/chunk-000/file-000.parquet")
    state = np.array(data["observation.state"].to_pylist())
    np.testing.assert_allclose(stats["observation.state"]["max"], np.nanmax(state, axis=0))
    np.testing.assert_allclose(stats["action"]["q50"], [np.median(data["action"].to_numpy())])
    assert pa.types.is_float32(data.schema.field("action").type)  # one value per frame is no list
    with pq.ParquetFile(tmp_path / "out/data/chunk-000/file-000.parquet") as file:
        assert file.num_row_groups == 3
    rows = pq.read_table(tmp_path / "out/meta/episodes/chunk-000/file-000.parquet").to_pylist()
    assert rows[1]["stats/observation.state/count"] == [6.0]
    tasks = pq.read_schema(tmp_path / "out/meta/tasks.parquet")
    assert json.loads(tasks.metadata[b"pandas"])["index_columns"] == ["task"]
    said = pq.read_schema(tmp_path / "out/iriai/episodes.parquet").names
    assert not {"unit_ids", "file_sha256", "lineage", "episode_id", "rights"} & set(said)


def test_an_export_brought_back_has_the_same_frames_and_stamps(tmp_path: Path) -> None:
    text = MAP.replace("keep_private = true\n", "").replace("torque_i", "current_i")
    (tmp_path / "map.toml").write_text(text)
    source = log(tmp_path / "a.csv")
    source.write_text(source.read_text().replace("torque_i", "current_i"))
    bring(tmp_path / "s", source, signal_map=tmp_path / "map.toml", allow=FIELDS)
    folder = tmp_path / "s/datasets/kita+pick"
    export_lerobot(tmp_path / "s", "kita/pick", tmp_path / "out", private=True)
    exported = open_dataset(tmp_path / "out")
    report = bring(tmp_path / "t", tmp_path / "out", allow=FIELDS)
    assert report.episodes_added == 3
    again = list(open_dataset(tmp_path / "t/datasets/kita+pick"))
    for first, out, second in zip(open_dataset(folder), exported, again, strict=True):
        assert first.stamps_ns.tobytes() == out.stamps_ns.tobytes() == second.stamps_ns.tobytes()
        for key, values in first.columns.items():
            assert values.tobytes() == out.columns[key].tobytes()
            if not key.endswith("x_feed"):  # a canonical map has no private field
                assert values.tobytes() == second.columns[key].tobytes()
        assert first.labels["outcome"].tolist() == second.labels["outcome"].tolist()
        assert first.said["clock"] == second.said["clock"] == "host"
    assert bring(tmp_path / "t", tmp_path / "out", allow=FIELDS).duplicates == 3


def test_an_export_over_something_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    folder = brought(tmp_path)
    (tmp_path / "out").mkdir()
    with pytest.raises(FileInvalidError, match="name another"):
        export_lerobot(tmp_path / "s", "kita/pick", tmp_path / "out")
    file = next(folder.glob("*/data/*/*.parquet"))
    file.write_bytes(file.read_bytes()[:-7])
    with pytest.raises(StoreDamagedError):
        export_lerobot(tmp_path / "s", "kita/pick", tmp_path / "other")
    assert {p.name for p in tmp_path.iterdir()} == {"s", "a.csv", "map.toml", "out"}


def test_large_exports_are_spread_over_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", RECORD))
    monkeypatch.setattr("client.data.exporting.STORE_FILE_BYTES", 1_000)
    export_lerobot(tmp_path / "s", "kita/pick", tmp_path / "out")
    assert len(list((tmp_path / "out/data").glob("*/*"))) == 3
    bring(tmp_path / "t", tmp_path / "out")
    assert sorted(e.fields["tcp_pos"].tobytes() for e in both(tmp_path / "t")) == sorted(
        e.fields["tcp_pos"].tobytes() for e in both(tmp_path / "s")
    )


@pytest.mark.parametrize("field", ["x_feed", "tool_current"])
def test_what_the_site_keeps_to_itself_is_opened_for_personalise_only(tmp_path: Path, field: str) -> None:
    brought(tmp_path)
    entry = Store(tmp_path / "s").catalogue().dataset("kita/pick")
    assert entry.private == ("observation.tool_current", "observation.x_feed")
    wanted = {"joint_vel", field}
    options = {"contract_fields": FIELDS | wanted, "recipe_inputs": wanted, "local_allow": FIELDS | wanted}
    with pytest.raises(FieldNotAllowedError, match="to itself"):
        open_view(tmp_path / "s", "kita/pick", **options)
    opened = open_view(tmp_path / "s", "kita/pick", **options, private={field})
    assert set((opened.episodes("train") + opened.episodes("held-out"))[0].fields) == wanted
    told = {"class": "6r-arm", "dof": 6, "action_space": "none"}
    said = describe(
        tmp_path / "s", "kita/pick", node=NODE, allow=FIELDS | wanted, clock=SimClock(), embodiment=told
    )
    assert field not in said.model_dump_json()


def test_without_keep_private_a_secret_column_may_not_be_mapped(tmp_path: Path) -> None:
    with pytest.raises(MapInvalidError, match="torque_i"):
        brought(tmp_path, MAP.replace("keep_private = true\n", ""))


@pytest.mark.parametrize("by", ["", "person"])
def test_a_model_does_not_teach_itself_and_a_folder_does_not_say_who_looked(tmp_path: Path, by: str) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", RECORD), model=MODEL)
    metas = [one.meta for one in Store(tmp_path / "s").episodes("kita/pick")]
    assert {(one.source_kind, one.model) for one in metas} == {("deployed", MODEL)}
    assert not both(tmp_path / "s")
    watched = open_view(
        tmp_path / "s", "kita/pick", contract_fields=ALLOW, recipe_inputs={"tcp_pos"}, local_allow=ALLOW
    )
    assert watched.count("train") + watched.count("held-out") == 3  # what was seen may be learned from
    export_lerobot(tmp_path / "s", "kita/pick", tmp_path / "out")
    path = tmp_path / "out/iriai/episodes.parquet"
    rows = [row | {"outcome_by": by} for row in pq.read_table(path).to_pylist()]
    pq.write_table(pa.Table.from_pylist(rows), path)
    bring(tmp_path / "t", tmp_path / "out")
    back = [one.meta for one in Store(tmp_path / "t").episodes("kita/pick")]
    assert {(one.source_kind, one.model, one.outcome_by) for one in back} == {("deployed", MODEL, "")}
    assert not both(tmp_path / "t")


def test_a_person_may_say_afterwards_how_an_attempt_of_a_model_ended(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", RECORD), model=MODEL)
    store = Store(tmp_path / "s")
    frames = [
        one.columns["observation.tcp_pos"].tobytes()
        for one in open_dataset(tmp_path / "s/datasets/kita+pick")
    ]
    first = store.episodes("kita/pick")[1].meta
    with pytest.raises(EpisodeUnknownError):
        store.mark("kita/pick", "success", [first.episode_id, "ep_none"])
    (said,) = store.mark("kita/pick", "success", [first.episode_id])
    assert (said.outcome, said.outcome_by, said.may_be_cloned) == ("success", "person", True)
    after = tree(tmp_path / "s")
    assert store.mark("kita/pick", "success", [first.episode_id]) == (said,)
    assert tree(tmp_path / "s") == after  # saying it again writes nothing
    (shown,) = both(tmp_path / "s")
    assert shown.fields["tcp_pos"].tobytes() == frames[1]
    again = open_dataset(tmp_path / "s/datasets/kita+pick")
    assert [one.columns["observation.tcp_pos"].tobytes() for one in again] == frames
    assert bring(tmp_path / "s", write_v3(tmp_path / "e", RECORD), model=MODEL).duplicates == 3
    store.mark("kita/pick", "fail", [first.episode_id])
    assert not both(tmp_path / "s")


def test_a_store_of_the_version_before_opens_and_goes_on(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", RECORD))
    path = next((tmp_path / "s").glob("datasets/*/*/iriai/episodes.parquet"))
    rows = pq.read_table(path)
    pq.write_table(rows.drop_columns(["unit_weak", "source_kind", "model", "outcome_by"]), path)
    (old, *_) = [one.meta for one in Store(tmp_path / "s").episodes("kita/pick")]
    assert (old.source_kind, old.model, old.unit_weak, old.may_be_cloned) == ("recorded", "", False, True)
    bring(tmp_path / "s", write_v3(tmp_path / "e", Recording.random(8, seed=5)))
    assert len(both(tmp_path / "s")) == 4


def test_removing_a_data_set_leaves_its_lineage_and_nothing_else(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", RECORD)
    first = bring(tmp_path / "s", source)
    store = Store(tmp_path / "s")
    before = store.catalogue().lineages
    assert store.remove("kita/pick")
    assert not store.remove("kita/pick")
    assert {name.split("/")[0] for name in tree(tmp_path / "s")} == {"catalogue.json", "marks"}
    assert store.catalogue().lineages == before
    with pytest.raises(DatasetUnknownError):
        view(tmp_path / "s")
    again = bring(tmp_path / "s", source, clock=SimClock(1_900_000_000_000))
    assert (again.lineage, again.episodes_added) == (first.lineage, 3)
    assert store.catalogue().lineages == before


def test_a_data_set_that_a_run_uses_is_not_removed(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", RECORD))
    before = tree(tmp_path / "s")
    with pytest.raises(DatasetInUseError, match="run_a"):
        Store(tmp_path / "s").remove("kita/pick", used_by=["run_a"])
    assert tree(tmp_path / "s") == before


def test_a_removal_that_was_killed_is_finished_by_the_next(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", RECORD))
    store = Store(tmp_path / "s")
    shutil.copytree(tmp_path / "s", tmp_path / "t")
    store.remove("kita/pick")
    shutil.copytree(tmp_path / "t/datasets", tmp_path / "s/datasets", dirs_exist_ok=True)
    assert store.remove("kita/pick")
    assert {name.split("/")[0] for name in tree(tmp_path / "s")} == {"catalogue.json", "marks"}


def test_rows_whose_budget_was_opened_keep_their_values(tmp_path: Path) -> None:
    brought(tmp_path)
    before = tree(tmp_path / "s")
    changed = MAP.replace('"mm/s"', '"m/s"')
    with pytest.raises(SealedError, match="other values of rows"):
        brought(tmp_path, changed, is_sealed=lambda lineage: lineage.startswith("lin_"))
    assert tree(tmp_path / "s") == before
    report = bring(
        tmp_path / "s",
        log(tmp_path / "b.csv", runs=4),
        signal_map=tmp_path / "map.toml",
        allow=FIELDS,
        is_sealed=lambda _: True,
    )
    assert report.episodes_added == 4  # what is new comes in a block of its own
    blocks = Store(tmp_path / "s").catalogue().lineages[report.lineage]
    assert sum(len(one.episodes) for one in blocks) == 7


WINDOWS = """
clock   = {column = "t", unit = "s", kind = "host"}
segment = {by = "window", length_s = 0.35, min_frames = 2}
signal  = [{field = "joint_vel", columns = ["v"], unit = "rad/s", role = "observation"}]
"""
KEY = 'unit = {kind = "work-piece", column = "run"}\n'


def test_windows_need_an_owner_and_are_marked(tmp_path: Path) -> None:
    with pytest.raises(UnitRefusedError, match="unit key"):
        brought(tmp_path, WINDOWS)
    brought(tmp_path, WINDOWS + KEY)
    metas = [one.meta for one in Store(tmp_path / "s").episodes("kita/pick")]
    assert all(one.unit_weak for one in metas)
    assert [one.length for one in metas] == [4, 2] * 3
    assert [one.unit_ids for one in metas[:2]] == [metas[0].unit_ids] * 2
    assert len({one.unit_ids for one in metas}) == 3


@pytest.mark.parametrize("change", ["every_s = 0.2, ", "length_s = 0.35, "])
def test_windows_that_overlap_or_have_no_length_are_refused(tmp_path: Path, change: str) -> None:
    text = WINDOWS.replace("length_s = 0.35, ", "" if "length" in change else "length_s = 0.35, " + change)
    with pytest.raises(MapInvalidError, match="line 3"):
        brought(tmp_path, text + KEY)
