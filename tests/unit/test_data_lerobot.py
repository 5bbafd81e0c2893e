# SPDX-License-Identifier: Apache-2.0
"""LeRobot folders of both versions, as tests write them, come out bit for bit; wrong indices are refused and nothing is stored."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import (
    DataError,
    FileInvalidError,
    FormatAmbiguousError,
    FormatUnknownError,
    IndexMismatchError,
    MapInvalidError,
    MissingColumnError,
    NotFiniteError,
    PointerFileError,
)
from client.data.store import Store
from tests.datasim import ALLOW, Recording, both, bring, edit_info, tree, view, write_v3, write_v21

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

LENGTHS = (7, 5, 9, 4, 6)
FILES = [[0, 1], [2], [3, 4]]  # three files in two chunks


def by_first_value(episodes: list) -> list:
    return sorted(episodes, key=lambda e: float(e.fields["tcp_pos"][0, 0]))


def expect_equal(root: Path, record: Recording) -> None:
    found = by_first_value(both(root))
    order = sorted(range(len(record.observations)), key=lambda i: float(record.observations[i][0, 0]))
    assert len(found) == len(order)
    for episode, i in zip(found, order, strict=True):
        observed = np.concatenate([episode.fields["tcp_pos"], episode.fields["gripper_width"]], axis=1)
        done = np.concatenate([episode.fields["tcp_pose_delta"], episode.fields["gripper_cmd"]], axis=1)
        assert observed.dtype == np.float32
        assert observed.tobytes() == record.observations[i].tobytes()
        assert done.tobytes() == record.actions[i].tobytes()
        assert episode.length == len(record.observations[i])


@pytest.mark.parametrize("named", [True, False])
def test_v30_with_two_chunks_and_three_files_is_bit_exact(tmp_path: Path, named: bool) -> None:
    record = Recording.random(*LENGTHS)
    report = bring(tmp_path / "s", write_v3(tmp_path / "d", record, files=FILES, named_tasks=named))
    assert (report.episodes_added, report.frames_added) == (5, sum(LENGTHS))
    expect_equal(tmp_path / "s", record)
    stored = Store(tmp_path / "s").episodes("kita/pick")
    assert [e.meta.task for e in stored] == record.tasks
    assert {e.meta.clock for e in stored} == {"derived"}
    assert {e.meta.start_ns for e in stored} == {None}


def test_v21_gives_the_same_store_frames_as_v30(tmp_path: Path) -> None:
    record = Recording.random(*LENGTHS)
    bring(tmp_path / "s", write_v21(tmp_path / "d", record))
    expect_equal(tmp_path / "s", record)
    bring(tmp_path / "t", write_v3(tmp_path / "e", record, files=FILES))
    digests = [[e.meta.digest for e in Store(tmp_path / s).episodes("kita/pick")] for s in "st"]
    assert digests[0] == digests[1]


@pytest.mark.parametrize(("episode", "moved"), [(1, 1), (2, -1), (4, 5), (0, 1000)])
def test_a_wrong_dataset_from_index_is_refused_and_the_episode_named(
    tmp_path: Path, episode: int, moved: int
) -> None:
    source = write_v3(tmp_path / "d", Recording.random(*LENGTHS), files=FILES, shift={episode: moved})
    with pytest.raises(IndexMismatchError, match=f"episode {episode}"):
        bring(tmp_path / "s", source)
    assert tree(tmp_path / "s") == {}


def test_a_declared_split_is_honoured_and_stays(tmp_path: Path) -> None:
    record = Recording.random(*LENGTHS)
    splits = {"train": "0:3", "held-out": "3:5"}
    bring(tmp_path / "s", write_v3(tmp_path / "d", record, splits=splits))
    stored = Store(tmp_path / "s").episodes("kita/pick")
    assert [e.meta.split for e in stored] == ["train"] * 3 + ["held-out"] * 2
    assert (view(tmp_path / "s").count("train"), view(tmp_path / "s").count("held-out")) == (3, 2)
    # a copy that declares another split keeps the first one, and its lineage
    edit_info(tmp_path / "d", splits={"train": "0:5", "held-out": "5:5"})
    other = bring(tmp_path / "s", tmp_path / "d", dataset="kita/copy")
    assert other.held_out_added == 2
    assert other.lineage == Store(tmp_path / "s").catalogue().datasets["kita/pick"].lineage


def test_a_declared_split_with_a_hole_is_refused(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(*LENGTHS), splits={"train": "0:3", "held-out": "4:5"})
    with pytest.raises(FileInvalidError, match="splits"):
        bring(tmp_path / "s", source)


def test_without_a_declared_split_the_nodes_key_decides(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(*([3] * 60)))
    first = bring(tmp_path / "s", source)
    assert 2 <= first.held_out_added <= 25
    assert bring(tmp_path / "t", source).held_out_added == first.held_out_added
    assert bring(tmp_path / "u", source, held_out_percent=0).held_out_added == 0
    splits = [tuple(e.meta.split for e in Store(tmp_path / s).episodes("kita/pick")) for s in "st"]
    assert splits[0] == splits[1]
    other = bring(tmp_path / "v", source, node_key=b"another key of this node")
    changed = tuple(e.meta.split for e in Store(tmp_path / "v").episodes("kita/pick"))
    assert changed != splits[0]
    assert other.episodes_added == 60


def damage_nan(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table["action"].combine_chunks().flatten().to_numpy().copy()
    values[6] = np.nan
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), 4)
    pq.write_table(table.set_column(0, table.schema.field(0), column), path)


def damage_inf(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table["action"].combine_chunks().flatten().to_numpy().copy()
    values[6] = np.inf
    pq.write_table(
        table.set_column(0, "action", pa.FixedSizeListArray.from_arrays(pa.array(values), 4)), path
    )


def damage_null(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(path)
    values = table["action"].to_pylist()
    values[1][2] = None
    pq.write_table(table.set_column(0, "action", pa.array(values, pa.list_(pa.float32(), 4))), path)


def damage_column(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["action"]), path)


def damage_component(root: Path) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    features["observation.state"]["names"][1] = "elbow"
    edit_info(root, features=features)


def damage_pointer(root: Path) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n"
    (root / "data/chunk-000/file-000.parquet").write_text(text)


def damage_bytes(root: Path) -> None:
    path = root / "data/chunk-000/file-000.parquet"
    path.write_bytes(path.read_bytes()[:-20])


def damage_missing_file(root: Path) -> None:
    (root / "data/chunk-000/file-000.parquet").unlink()


def damage_count(root: Path) -> None:
    edit_info(root, total_episodes=6)


def damage_version(root: Path) -> None:
    edit_info(root, codebase_version="v2.0")


def damage_escape(root: Path) -> None:
    edit_info(root, data_path="../{chunk_index:03d}/{file_index:03d}.parquet")


def damage_template(root: Path) -> None:
    edit_info(root, data_path="data/{chunk_index.__class__}/file.parquet")


def damage_names(root: Path) -> None:
    features = json.loads((root / "meta/info.json").read_text())["features"]
    for key in ("observation.state", "action"):
        features[key]["names"] = ["a", "b", "c", "d"]
    edit_info(root, features=features)


DAMAGES: list[tuple[Callable[[Path], None], type[DataError]]] = [
    (damage_nan, NotFiniteError),
    (damage_inf, NotFiniteError),
    (damage_null, NotFiniteError),
    (damage_column, MissingColumnError),
    (damage_component, MissingColumnError),
    (damage_pointer, PointerFileError),
    (damage_bytes, FileInvalidError),
    (damage_missing_file, FileInvalidError),
    (damage_count, IndexMismatchError),
    (damage_version, FormatUnknownError),
    (damage_escape, FileInvalidError),
    (damage_template, FileInvalidError),
    (damage_names, MapInvalidError),
]


@pytest.mark.parametrize(("damage", "error"), DAMAGES, ids=lambda x: getattr(x, "__name__", ""))
def test_damage_is_refused_with_its_code_and_nothing_is_lost(
    tmp_path: Path, damage: Callable[[Path], None], error: type[DataError]
) -> None:
    root = tmp_path / "s"
    bring(root, write_v3(tmp_path / "good", Recording.random(5, 6)))
    before = tree(root)
    source = write_v3(tmp_path / "bad", Recording.random(*LENGTHS, seed=1))
    damage(source)
    with pytest.raises(error) as refusal:
        bring(root, source)
    assert refusal.value.code.startswith("data.")
    assert refusal.value.remedy
    assert tree(root) == before
    assert len(both(root)) == 2


def test_a_needed_field_that_is_not_recorded_is_refused_before_reading(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(5))
    with pytest.raises(MissingColumnError, match="object_pos"):
        bring(tmp_path / "s", source, allow=ALLOW | {"object_pos"}, required=ALLOW | {"object_pos"})
    assert tree(tmp_path / "s") == {}


def test_two_readers_that_claim_a_path_are_both_named(tmp_path: Path) -> None:
    source = write_v3(tmp_path / "d", Recording.random(5))
    (source / "notes.csv").write_text("a,b\n1,2\n")
    with pytest.raises(FormatAmbiguousError, match="lerobot and table"):
        bring(tmp_path / "s", source)
    assert bring(tmp_path / "s", source, source_format="lerobot").episodes_added == 1


def test_a_path_that_no_reader_claims_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.bin").write_bytes(b"\0" * 2000)
    with pytest.raises(FormatUnknownError, match=r"lerobot .*table"):
        bring(tmp_path / "s", tmp_path / "x.bin")


def test_other_names_need_a_map_and_get_units(tmp_path: Path) -> None:
    record = Recording.random(6, 5)
    source = write_v3(tmp_path / "d", record)
    features = json.loads((source / "meta/info.json").read_text())["features"]
    features["observation.state"]["names"] = {"motors": ["x", "y", "z", "grip"]}
    edit_info(source, features=features)
    signal_map = tmp_path / "map.toml"
    signal_map.write_text(
        'signal = [{field = "tcp_pos", columns = ["observation.state.x", "observation.state.y", "observation.state.z"],'
        ' unit = "mm", role = "observation"}]\n'
    )
    report = bring(tmp_path / "s", source, signal_map=signal_map)
    assert report.fields == ("tcp_pos",)
    assert "observation.state.grip" in report.dropped_columns
    found = by_first_value(both(tmp_path / "s", frozenset({"tcp_pos"})))
    expected = sorted(
        (o[:, :3].astype(np.float64) * 0.001 for o in record.observations), key=lambda o: o[0, 0]
    )
    for episode, values in zip(found, expected, strict=True):
        np.testing.assert_array_equal(episode.fields["tcp_pos"], values.astype(np.float32))


def test_our_own_store_reads_back_as_a_lerobot_folder(tmp_path: Path) -> None:
    record = Recording.random(*LENGTHS)
    bring(tmp_path / "s", write_v3(tmp_path / "d", record, files=FILES))
    store = Store(tmp_path / "s")
    folder = store.folder("kita/pick", store.catalogue().dataset("kita/pick"))
    bring(tmp_path / "t", folder)
    expect_equal(tmp_path / "t", record)
    assert {e.meta.clock for e in Store(tmp_path / "t").episodes("kita/pick")} == {"derived"}
