# SPDX-License-Identifier: Apache-2.0
"""A site's own data used beyond what it was given for: without a right, out of its privacy, or as something else."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data import describe, export_lerobot, open_view
from client.data.errors import (
    CellInvalidError,
    ChangedWhileReadError,
    FieldNotAllowedError,
    FileInvalidError,
    MapInvalidError,
    NoRightsError,
    StoreDamagedError,
)
from client.data.marks import MarkIndex, chosen, runs_of
from client.data.store import Store
from policies.privacy.errors import LineageUnknownError
from tests.datasim import ALLOW, NODE, Recording, SimClock, both, bring, edit_info, tree, write_v3
from tests.unit.test_data_resume import add, folder, stopped_after

if TYPE_CHECKING:
    from pathlib import Path

FIRST, SECOND, THIRD = ("sha256:" + one * 64 for one in "123")
MODEL = "sha256:" + "7" * 64
FIELDS = frozenset({"joint_pos", "joint_torque"})
PARTS = 6


def walk(rows: int, seed: int, parts: int = PARTS) -> np.ndarray:
    return np.cumsum(np.random.default_rng(seed).standard_normal((rows, parts)) * 0.01, axis=0)


def log(
    path: Path, values: np.ndarray, name: str = "q", cycle: np.ndarray | None = None, more: str = ""
) -> Path:
    cycles = np.zeros(len(values), dtype=int) if cycle is None else cycle
    names = [f"{name}{at}" for at in range(values.shape[1])]
    lines = [",".join([*names, "cycle", *([more] if more else [])])]
    for row, number in zip(values, cycles, strict=True):
        lines.append(",".join([*(f"{one:.6f}" for one in row), str(number), *(["1"] if more else [])]))
    path.write_text("\n".join(lines) + "\n")
    return path


def put(tmp_path: Path, source: Path, *, segment: str = '{by = "file"}', **changes: Any) -> Any:
    signals = tmp_path / "map.toml"
    signals.write_text(
        f"clock = {{rate_hz = 50}}\nsegment = {segment}\n"
        'signal = [{field = "joint_pos", columns = ["q{0..5}"], unit = "rad", role = "observation"}]\n'
        'embodiment = {class = "6r-arm", dof = 6, action_space = "none"}\n'
    )
    options = {"signal_map": signals, "allow": FIELDS, "held_out_percent": 0, "rights": FIRST}
    return bring(tmp_path / "s", source, **(options | changes))


def opened(tmp_path: Path, *contracts: str, dataset: str = "kita/pick") -> Any:
    named = {"contract_fields": FIELDS, "recipe_inputs": {"joint_pos"}, "local_allow": FIELDS}
    return open_view(tmp_path / "s", dataset, contracts=contracts, **named)


def told(tmp_path: Path, *contracts: str) -> Any:
    made = describe(
        tmp_path / "s",
        "kita/pick",
        node=NODE,
        allow=FIELDS,
        clock=SimClock(),
        recipes={"sha256:" + "e" * 64: 20},
        contracts=contracts,
    )
    return made.fits[0].minimum_met


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Recordings under none, a first and a second contract, in one data set."""
    for seed, rights in enumerate(("", FIRST, SECOND)):
        put(tmp_path, log(tmp_path / f"{seed}.csv", walk(200, seed)), rights=rights)
    return tmp_path


def test_an_import_under_a_contract_gives_it_no_other_episode_of_the_data_set(three: Path) -> None:
    assert [one.meta.rights for one in Store(three / "s").episodes("kita/pick")] == [(), (FIRST,), (SECOND,)]
    for contracts, count in (((FIRST,), 1), ((SECOND,), 1), ((SECOND, FIRST), 2)):
        view = opened(three, *contracts)
        assert (view.count("train"), len(view.episodes("train"))) == (count, count)
        assert all(one.meta.has_right(contracts) for one in view.stored)
    with pytest.raises(NoRightsError):
        opened(three, THIRD)


def test_what_a_contract_may_not_use_is_not_counted_for_it(three: Path) -> None:
    assert not told(three, FIRST)
    for seed in range(10, 40):
        put(three, log(three / "more.csv", walk(30, seed)), rights=SECOND)
    assert (told(three, FIRST), told(three, SECOND)) == (False, True)
    with pytest.raises(NoRightsError):
        told(three, THIRD)


def test_the_same_bytes_under_a_second_contract_get_that_right_too_and_no_others_do(three: Path) -> None:
    before = [one.meta for one in Store(three / "s").episodes("kita/pick")]
    found = put(three, three / "0.csv", rights=SECOND)
    assert (found.episodes_added, found.duplicates) == (0, 1)
    assert (opened(three, FIRST).count("train"), opened(three, SECOND).count("train")) == (1, 2)
    put(three, three / "1.csv", rights=SECOND)
    after = [one.meta for one in Store(three / "s").episodes("kita/pick")]
    assert [one.rights for one in after] == [(SECOND,), (FIRST, SECOND), (SECOND,)]
    assert [one.unit_ids for one in after] == [one.unit_ids for one in before]
    stored = tree(three / "s")
    put(three, three / "1.csv", rights=SECOND)
    put(three, three / "1.csv", rights="")
    assert tree(three / "s") == stored


def test_a_store_of_an_earlier_version_keeps_the_rights_of_its_rows(three: Path) -> None:
    path = max((three / "s/datasets/kita+pick").iterdir()) / "iriai/episodes.parquet"
    rows = pq.read_table(path)
    single = pa.array([(one or [""])[0] for one in rows["rights"].to_pylist()])
    pq.write_table(rows.set_column(rows.schema.get_field_index("rights"), "rights", single), path)
    assert (opened(three, FIRST).count("train"), opened(three, SECOND).count("train")) == (1, 1)
    put(three, three / "0.csv", rights=SECOND)
    assert opened(three, SECOND).count("train") == 2


def test_a_right_that_an_interrupted_import_gave_is_given_when_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = folder(tmp_path / "d")
    add(tmp_path, tmp_path / "s", source)
    late = source / "9.csv"
    late.write_text(
        (source / "0.csv").read_text().replace("0.", "7.").replace("t,run,v,note", "t,run,v,note")
    )
    monkeypatch.setattr("client.data.draft.RESUME_BYTES", 0)
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, rights=SECOND, progress=stopped_after(4))
    add(tmp_path, tmp_path / "s", source, rights=SECOND)
    metas = [one.meta for one in Store(tmp_path / "s").episodes("kita/pick")]
    assert all(SECOND in one.rights for one in metas)


@pytest.mark.parametrize("cycles", [40, 100, 200, 400, 1000])
def test_a_held_out_recording_that_is_saved_anew_and_cut_finer_is_known(tmp_path: Path, cycles: int) -> None:
    values, number = walk(20_000, 0), np.arange(20_000) // (20_000 // cycles)
    put(tmp_path, log(tmp_path / "a.csv", values, cycle=number), held_out_percent=100)
    again = log(tmp_path / "b.csv", values, cycle=number, more="note")
    before = tree(tmp_path / "s")
    with pytest.raises(LineageUnknownError):
        put(tmp_path, again, segment='{by = "column", column = "cycle"}', dataset="kita/again")
    assert tree(tmp_path / "s") == before


def test_no_single_piece_of_sixteen_frames_or_more_gets_in(tmp_path: Path) -> None:
    values = walk(2_000, 1)
    put(tmp_path, log(tmp_path / "a.csv", values), held_out_percent=100)
    index = Store(tmp_path / "s")
    with index.draft("kita/x", _signals(tmp_path), rate_hz="50") as draft:
        marks = draft.index().marks
    columns = {"observation.joint_pos": np.round(values, 6).astype(np.float32)}
    runs = runs_of(columns)
    for length in (16, 17, 20, 24, 25, 60):
        known = [
            marks.knows(
                runs_of({"observation.joint_pos": columns["observation.joint_pos"][at : at + length]})
            )
            for at in range(0, len(values) - length, 7)
        ]
        assert all(known), length
    assert not marks.knows(runs_of({"observation.joint_pos": walk(2_000, 2).astype(np.float32)}))
    assert len(chosen(runs)) < 2 * len(values)


def _signals(tmp_path: Path) -> Any:
    from client.data.signalmap import load_map

    return load_map(tmp_path / "map.toml")


def test_a_log_that_holds_each_value_is_known_by_its_values(tmp_path: Path) -> None:
    values, number = np.repeat(walk(2_000, 3), 2, axis=0), np.arange(4_000) // 100
    put(tmp_path, log(tmp_path / "a.csv", values, cycle=number), held_out_percent=100)
    again = log(tmp_path / "b.csv", values, cycle=number, more="note")
    with pytest.raises(LineageUnknownError):
        put(tmp_path, again, segment='{by = "column", column = "cycle"}', dataset="kita/again")


def test_a_copy_that_repeats_or_drops_held_values_is_known_too() -> None:
    values = walk(60, 4).astype(np.float32)
    index = MarkIndex()
    index.add(chosen(runs_of({"a": np.repeat(values, 3, axis=0)})))
    assert index.knows(runs_of({"a": values[20:45]}))


def test_two_sweeps_over_the_same_counts_are_not_one_recording() -> None:
    rng, index = np.random.default_rng(5), MarkIndex()
    sweep = lambda: np.repeat(np.arange(200), rng.integers(1, 9, 200)).astype(np.float32)[:, None]  # noqa: E731
    index.add(chosen(runs_of({"a": sweep()})))
    assert not index.knows(runs_of({"a": sweep()}))


def test_marks_of_an_earlier_version_know_a_whole_copy_and_missing_marks_stop_imports(tmp_path: Path) -> None:
    runs = runs_of({"a": walk(400, 6).astype(np.float32)})
    index = MarkIndex()
    index.add("".join(int(one).to_bytes(6, "big").hex() for one in np.sort(runs)[:16]))
    assert index.knows(runs)
    put(tmp_path, log(tmp_path / "a.csv", walk(100, 0)))
    (file,) = (tmp_path / "s/marks").iterdir()
    data = file.read_bytes()
    for left in (None, data[:-6]):
        file.unlink(missing_ok=True)
        if left is not None:
            file.write_bytes(left)
        with pytest.raises(StoreDamagedError, match="folder marks"):
            put(tmp_path, log(tmp_path / "b.csv", walk(100, 1)))
    assert opened(tmp_path, FIRST).count("train") == 1


KEPT = """
clock = {rate_hz = 50}
secret = ["t?"]
keep_private = true
signal = [{field = "joint_pos", columns = ["q{0..5}"], unit = "rad", role = "observation"},
          {field = "joint_torque", columns = ["t{0..5}"], unit = "Nm", role = "observation"}]
"""


@pytest.mark.parametrize("how", ["export", "export --private", "own folder"])
def test_a_column_that_the_site_keeps_stays_so_when_its_folder_comes_back(tmp_path: Path, how: str) -> None:
    (tmp_path / "secret.toml").write_text(KEPT)
    source = log(tmp_path / "a.csv", walk(100, 0, 12))
    names = [*(f"q{at}" for at in range(6)), *(f"t{at}" for at in range(6)), "cycle"]
    source.write_text("\n".join([",".join(names), *source.read_text().splitlines()[1:]]) + "\n")
    put(tmp_path, source, signal_map=tmp_path / "secret.toml")
    out = next((tmp_path / "s/datasets/kita+pick").iterdir())
    if how != "own folder":
        out = tmp_path / "out"
        export_lerobot(tmp_path / "s", "kita/pick", out, private=how == "export --private")
    shown = json.loads((out / "meta/info.json").read_text())["features"]
    assert ("joint_torque" in json.dumps(shown)) == (how != "export")
    bring(tmp_path / "t", out, allow=FIELDS, held_out_percent=0)
    if how == "export":
        assert (
            "observation.joint_torque" not in Store(tmp_path / "t").catalogue().dataset("kita/pick").columns
        )
        return
    named = {"contract_fields": FIELDS, "local_allow": FIELDS}
    with pytest.raises(FieldNotAllowedError, match="to itself"):
        open_view(tmp_path / "t", "kita/pick", recipe_inputs={"joint_torque"}, **named)
    (out / "iriai/private.json").write_text("[]")
    with pytest.raises(FileInvalidError, match="private"):
        bring(tmp_path / "u", out, allow=FIELDS)


@pytest.mark.parametrize("rate", [1e-9, 1e-300, 1e9])
def test_a_rate_that_no_process_has_is_refused_whoever_declares_it(tmp_path: Path, rate: float) -> None:
    source = write_v3(tmp_path / "d", Recording.random(30))
    edit_info(source, fps=rate)
    with pytest.raises((MapInvalidError, FileInvalidError)):
        bring(tmp_path / "s", source)
    (tmp_path / "map.toml").write_text(KEPT.replace("50", str(rate)))
    with pytest.raises(MapInvalidError):
        bring(tmp_path / "s", source, signal_map=tmp_path / "map.toml")
    assert tree(tmp_path / "s") == {}


def test_a_stamp_at_the_edge_of_what_fits_is_no_time(tmp_path: Path) -> None:
    source = tmp_path / "a.csv"
    source.write_text("t,q0\n0,1\n9223372036854775807,2\n")
    (tmp_path / "map.toml").write_text(
        'clock = {column = "t", unit = "ns", kind = "host"}\n'
        'signal = [{field = "joint_pos", columns = ["q0"], unit = "rad", role = "observation"}]\n'
    )
    with pytest.raises(CellInvalidError):
        bring(tmp_path / "s", source, signal_map=tmp_path / "map.toml", allow=FIELDS)


@pytest.mark.parametrize("how", ["grows", "in place", "replaced", "gone"])
def test_a_source_that_changes_while_it_is_read_is_refused(tmp_path: Path, how: str) -> None:
    (tmp_path / "d").mkdir()
    for name in "ab":
        log(tmp_path / f"d/{name}.csv", walk(50, ord(name)))
    first = tmp_path / "d/a.csv"
    times = first.stat()

    def changes(_: object) -> None:
        if how == "grows":
            with first.open("a") as file:
                file.write("1,2,3,4,5,6,0\n")
        elif how == "in place":
            with first.open("r+") as file:
                file.write("q")
            os.utime(first, ns=(times.st_atime_ns, times.st_mtime_ns))
        elif how == "replaced":
            log(tmp_path / "new.csv", walk(50, 9)).replace(first)
        else:
            first.unlink(missing_ok=True)

    with pytest.raises(ChangedWhileReadError, match="nothing was stored"):
        put(tmp_path, tmp_path / "d", progress=changes)
    assert tree(tmp_path / "s") == {}


@pytest.mark.parametrize("name", ["kita/pick\n", "kita\n", "kita/pick ", "x~journal"])
def test_a_data_set_name_has_no_other_sign(tmp_path: Path, name: str) -> None:
    with pytest.raises(MapInvalidError):
        put(tmp_path, log(tmp_path / "a.csv", walk(30, 0)), dataset=name)


def test_no_data_set_lies_where_the_journal_of_another_does(tmp_path: Path) -> None:
    source = folder(tmp_path / "d")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("client.data.draft.RESUME_BYTES", 1)
        with pytest.raises(KeyboardInterrupt):
            add(tmp_path, tmp_path / "s", source, dataset="x", progress=stopped_after(3))
        lying = {path.name: path for path in (tmp_path / "s/datasets").iterdir()}
        assert set(lying) == {".new-x", ".new-x~journal"}
        assert add(tmp_path, tmp_path / "s", source, dataset="x.journal").episodes_added


def test_a_link_in_the_store_is_not_followed(tmp_path: Path) -> None:
    victim, other = tmp_path / "victim", tmp_path / "other"
    victim.write_text("precious")
    other.mkdir()
    (other / "kept").write_text("precious")
    (tmp_path / "s/datasets").mkdir(parents=True)
    (tmp_path / "s/.lock").symlink_to(victim)
    with pytest.raises(OSError, match="symbolic"):
        put(tmp_path, log(tmp_path / "a.csv", walk(30, 0)))
    (tmp_path / "s/.lock").unlink()
    (tmp_path / "s/datasets/.new-kita+pick").symlink_to(other)
    assert put(tmp_path, tmp_path / "a.csv").episodes_added == 1
    assert (victim.read_text(), (other / "kept").read_text()) == ("precious", "precious")


@pytest.mark.parametrize("what", ["line", "part"])
def test_who_writes_in_the_store_moves_no_held_out_episode_into_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    import hashlib

    monkeypatch.setattr("client.data.draft.RESUME_BYTES", 1)
    source = folder(tmp_path / "d")
    with pytest.raises(KeyboardInterrupt):
        add(tmp_path, tmp_path / "s", source, held_out_percent=100, progress=stopped_after(4))
    aside = tmp_path / "s/datasets/.new-kita+pick"
    journal = aside.with_name(aside.name + "~journal")
    if what == "line":
        forged = [
            line[65:].replace(b'"split":"held-out"', b'"split":"train"')
            for line in journal.read_bytes().splitlines()
        ]
        journal.write_bytes(
            b"".join(hashlib.sha256(one).hexdigest().encode() + b" " + one + b"\n" for one in forged)
        )
    else:
        part = next(aside.rglob("*.parquet"))
        data = bytearray(part.read_bytes())
        data[60] ^= 255
        part.write_bytes(data)
    add(tmp_path, tmp_path / "s", source, held_out_percent=100)
    add(tmp_path, tmp_path / "fresh", source, held_out_percent=100)
    assert tree(tmp_path / "s") == tree(tmp_path / "fresh")
    assert {one.meta.split for one in Store(tmp_path / "s").episodes("kita/pick")} == {"held-out"}


def test_values_that_were_changed_on_the_disk_are_not_opened(tmp_path: Path) -> None:
    put(tmp_path, log(tmp_path / "a.csv", walk(60, 0)))
    file = next((tmp_path / "s/datasets/kita+pick").glob("*/data/*/*.parquet"))
    times, table = file.stat(), pq.read_table(file)
    at = table.schema.get_field_index("observation.joint_pos")
    values = np.array(table["observation.joint_pos"].to_pylist(), dtype=np.float32)
    values[7, 2] += 1
    other = pa.FixedSizeListArray.from_arrays(pa.array(values.ravel()), PARTS)
    pq.write_table(table.set_column(at, table.schema.field(at), other), file)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(StoreDamagedError, match="other values"):
        opened(tmp_path, FIRST).episodes("train")


def _deployed(tmp_path: Path, **columns: str) -> Path:
    source = write_v3(tmp_path / "d", Recording.random(40, 40, seed=4))
    (source / "iriai").mkdir(exist_ok=True)
    said = {"clock": "host", "source_kind": "deployed", "model": MODEL, "outcome_by": "person", **columns}
    rows = pa.table({"episode_index": [0, 1], **{name: [word] * 2 for name, word in said.items()}})
    pq.write_table(rows, source / "iriai/episodes.parquet")
    return source


def test_a_foreign_folder_does_not_say_that_a_person_of_this_site_looked(tmp_path: Path) -> None:
    source = _deployed(tmp_path)
    info = json.loads((source / "meta/info.json").read_text())
    info["features"]["label.outcome"] = {"dtype": "int8", "shape": [1], "names": None}
    edit_info(source, features=info["features"])
    file = next(source.glob("data/*/*.parquet"))
    table = pq.read_table(file)
    pq.write_table(table.append_column("label.outcome", pa.array(np.ones(len(table), np.int8))), file)
    bring(tmp_path / "s", source, allow=ALLOW | {"outcome"})
    metas = [one.meta for one in Store(tmp_path / "s").episodes("kita/pick")]
    assert {(one.source_kind, one.outcome, one.outcome_by) for one in metas} == {("deployed", "success", "")}
    assert both(tmp_path / "s") == []


@pytest.mark.parametrize("other", [False, True])
def test_a_models_episodes_stay_its_own_when_they_are_brought_again_as_recorded(
    tmp_path: Path, other: bool
) -> None:
    source = _deployed(tmp_path)
    bring(tmp_path / "s", source)
    store = Store(tmp_path / "s")
    marked = store.episodes("kita/pick")[0].meta
    store.mark("kita/pick", "success", [marked.episode_id])
    if not other:
        store.remove("kita/pick")
    (source / "iriai/episodes.parquet").unlink()
    name = "kita/other" if other else "kita/pick"
    bring(tmp_path / "s", source, dataset=name)
    found = {one.meta.content: one.meta for one in store.episodes(name)}
    assert {(one.source_kind, one.model) for one in found.values()} == {("deployed", MODEL)}
    assert sum(one.may_be_cloned for one in found.values()) == 1
    assert found[marked.content].outcome_by == "person"
