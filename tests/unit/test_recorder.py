# SPDX-License-Identifier: Apache-2.0
"""The recorder: what becomes a file, what is dropped and counted, and what the importer makes of it."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data import Store, import_path
from client.data.errors import FileInvalidError
from client.data.fields import open_view
from client.data.signalmap import parse_map
from client.deploy.episode_files import EpisodeFiles, find_episode, judge, map_text
from client.deploy.recorder import EpisodeRecorder
from client.deploy.refusals import RecordingError
from client.deploy.ring import Ring
from client.deploy.serving import NoRecorder
from sandbox.cells import ACTION_NAMES, OBSERVATION_NAMES
from sandbox.lerobot_writer import Feature, Frames, write_dataset
from tests.datasim import KEY, RIGHTS, SimClock
from tests.servesim import MODEL, SaidModel, TimedServing, facts, question, tick_ns

ROOT = Path(__file__).parents[2]
ALLOW = frozenset(
    {"tcp_pos", "gripper_width", "object_pos", "goal_pos", "tcp_pose_delta", "gripper_cmd", "outcome"}
)
PLENTY = 10**12


class SimDisk:
    """A disk whose room a test moves."""

    def __init__(self, free: int = PLENTY) -> None:
        self.free = free

    def __call__(self) -> int:
        return self.free


def recorder(folder: Path, *, disk: SimDisk | None = None, capacity: int | None = None) -> EpisodeRecorder:
    files = EpisodeFiles(folder / "deployed", facts(), "host", service="cell", seal_key=KEY)
    ring = Ring.open(folder / "open.ring", facts(), capacity=capacity)
    return EpisodeRecorder(files, ring, free=disk or SimDisk())


def act(serving: TimedServing, *ticks: int, bad: int | None = None) -> None:
    """Ticks of an attempt; at ``bad`` an observation is out of range."""
    rng = np.random.default_rng(ticks[0])
    for tick in ticks:
        values = np.full(10, 9.0) if tick == bad else rng.uniform(0.1, 0.2, 10)
        measured = np.full(4, 0.5) if tick % 2 else None
        one = replace(question(tick, values=values), measured=measured)
        serving.infer(one, now_ns=tick_ns(tick))


def recorded(folder: Path) -> list[Path]:
    return sorted((folder / "deployed" / f"cell-{MODEL[7:19]}-host").glob("*.parquet"))


def told(path: Path) -> tuple[str, str]:
    found = json.loads(pq.read_schema(path).metadata[b"iriai.deployed"])
    return found["outcome"], found["outcome_by"]


@pytest.fixture
def sink(tmp_path):
    made = recorder(tmp_path)
    yield made
    made.close()


@pytest.fixture
def serving(sink):
    return TimedServing(SaidModel(), clock_kind="host", recorder=sink)


def test_an_episode_that_was_ended_is_a_file_with_its_original_stamps(tmp_path, serving):
    act(serving, *range(20))
    path = serving.end_episode("success").result(10)
    rows = pq.read_table(path).to_pydict()
    assert rows["stamp_ns"] == [question(tick).stamp_ns for tick in range(20)]
    assert rows["served_ns"] == [tick_ns(tick) // 10**6 * 10**6 for tick in range(20)]
    assert told(path) == ("success", "cell")
    assert rows["action.gripper_cmd_0"] == pytest.approx([0.01] * 20)
    assert rows["measured.gripper_cmd_0"][:2] == [None, 0.5]
    assert [one.name for one in recorded(tmp_path)] == ["episode-000001.parquet"]


def test_a_gap_of_stamps_ends_an_episode_that_nobody_ended(tmp_path, serving, sink):
    act(serving, *range(5))
    serving.resume(now_ns=tick_ns(5))  # nothing to resume; the watchdog has not looked yet
    later = 10_000
    for tick in (later, later + 1):
        serving.infer(question(tick), now_ns=tick_ns(tick))
    serving.end_episode("fail").result(10)
    found = [(len(pq.read_table(path)), *told(path)) for path in recorded(tmp_path)]
    assert found == [(5, "unknown", ""), (2, "fail", "cell")]
    assert sink.status()["episodes"] == 2


def test_a_tick_of_the_fallback_has_its_observation_and_no_action(serving):
    act(serving, *range(6), bad=4)
    rows = pq.read_table(serving.end_episode("fail").result(10)).to_pydict()
    assert rows["action.tcp_pose_delta_0"][4:] == [None, None]
    assert rows["flags"][3:] == ["", "input-range", ""]
    assert None not in rows["action.tcp_pose_delta_0"][:4]


def test_a_value_that_is_not_finite_is_missing_in_the_file(serving):
    serving.infer(question(0), now_ns=tick_ns(0))
    serving.infer(question(1, values=[np.nan, np.inf] + [0.1] * 8), now_ns=tick_ns(1))
    rows = pq.read_table(serving.end_episode("unknown").result(10)).to_pydict()
    assert rows["observation.tcp_pos_0"][1] is None
    assert rows["observation.tcp_pos_1"][1] is None
    assert rows["observation.tcp_pos_2"][1] == pytest.approx(0.1)


def test_a_question_that_repeats_is_not_recorded_twice(serving, sink):
    act(serving, 0, 1)
    serving.infer(question(1), now_ns=tick_ns(2))
    assert sink.status()["open_ticks"] == 2


def test_a_low_disk_stops_recording_and_never_serving(tmp_path):
    disk = SimDisk()
    sink = recorder(tmp_path, disk=disk)
    serving = TimedServing(SaidModel(), clock_kind="host", recorder=sink)
    act(serving, *range(3))
    serving.end_episode("success").result(10)
    disk.free = 1000
    act(serving, *range(10, 13))
    assert serving.status(now_ns=tick_ns(12))["recorder"]["state"] == "stopped"
    assert serving.status(now_ns=tick_ns(12))["state"] == "active"
    assert serving.end_episode("success") is None
    disk.free = PLENTY
    act(serving, *range(20, 23))
    assert serving.end_episode("success").result(10)
    assert sink.status()["state"] == "on"
    assert sink.status()["dropped"] == {"disk": 1}
    assert len(recorded(tmp_path)) == 2
    sink.close()


def test_a_disk_that_fills_up_while_an_episode_is_written_costs_that_episode_alone(tmp_path, monkeypatch):
    sink = recorder(tmp_path)
    serving = TimedServing(SaidModel(), clock_kind="host", recorder=sink)
    act(serving, *range(3))

    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        assert serving.end_episode("success").result(10) is None
    assert sink.status() | {"folder": ""} == {
        "state": "stopped",
        "reason": "disk",
        "folder": "",
        "episodes": 0,
        "writing": 0,
        "open_ticks": 0,
        "dropped": {"disk": 1},
    }
    act(serving, *range(10, 13))
    assert serving.end_episode("success").result(10)
    assert [one.name for one in recorded(tmp_path)] == ["episode-000002.parquet"]
    assert not list((tmp_path / "deployed").rglob(".*.new"))
    sink.close()


def test_an_episode_longer_than_the_ring_is_dropped_and_counted(tmp_path):
    sink = recorder(tmp_path, capacity=8)
    serving = TimedServing(SaidModel(), clock_kind="host", recorder=sink)
    for first in (0, 20, 40):  # around the ring's end, twice
        act(serving, *range(first, first + 6))
        rows = pq.read_table(serving.end_episode("success").result(10)).to_pydict()
        assert rows["seq"] == list(range(first, first + 6))
    act(serving, *range(60, 69))
    assert serving.end_episode("success") is None
    assert sink.status()["dropped"] == {"too-long": 1}
    assert (tmp_path / "open.ring").stat().st_size < 2000
    sink.close()


def test_what_is_open_at_the_end_is_dropped_and_counted(tmp_path):
    sink = recorder(tmp_path)
    act(TimedServing(SaidModel(), clock_kind="host", recorder=sink), *range(3))
    sink.close()
    assert sink.status()["dropped"] == {"open": 1}
    again = recorder(tmp_path)
    assert again.status()["dropped"] == {}
    again.close()


def test_a_kill_in_the_middle_of_an_episode_leaves_closed_ones_whole_and_counts_the_open_one(tmp_path):
    line = [sys.executable, str(Path(__file__).with_name("recorder_kill_child.py")), str(tmp_path)]
    child = subprocess.Popen(
        line, stdout=subprocess.PIPE, cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)}
    )
    assert child.stdout is not None
    with child.stdout as lines:
        assert lines.readline() == b"open\n"
        child.send_signal(signal.SIGKILL)
        child.wait(30)
    assert [len(pq.read_table(path)) for path in recorded(tmp_path)] == [7, 7, 7]
    again = recorder(tmp_path)
    assert again.status()["dropped"] == {"crashed": 1}
    again.close()


def test_recordings_of_a_service_go_on_counting_and_another_map_is_refused(tmp_path):
    for first in (0, 20):
        sink = recorder(tmp_path)
        act(TimedServing(SaidModel(), clock_kind="host", recorder=sink), *range(first, first + 3))
        sink.end("unknown", "").result(10)
        sink.close()
    assert [one.name for one in recorded(tmp_path)] == ["episode-000001.parquet", "episode-000002.parquet"]
    with pytest.raises(RecordingError):
        EpisodeFiles(tmp_path / "deployed", facts(rate_hz=50.0), "host", service="cell")


def test_recordings_of_a_model_with_the_sites_adapter_are_brought_back_by_it():
    adapter = {"gain": "0.7", "sign": [1, -1] * 3 + [1], "offset": ["0.5"] * 7, "order": [1, 0, *range(2, 7)]}
    found = parse_map(map_text(facts(adapter=adapter), "controller").encode())
    assert found.embodiment is not None
    assert found.embodiment.adapter is not None
    assert found.embodiment.adapter.model_dump(mode="json") == adapter
    assert found.clock is not None
    assert (found.clock.kind, found.task) == ("controller", "pick-place")


def test_no_recorder_says_that_it_is_off():
    serving = TimedServing(SaidModel(), clock_kind="host", recorder=NoRecorder())
    act(serving, 0, 1)
    assert serving.end_episode("success") is None
    assert serving.status(now_ns=tick_ns(1))["recorder"] == {"state": "off"}


COURSE = (("success", "person"), ("success", "cell"), ("fail", "person"), ("unknown", "person"))


def add(folder: Path, source: Path, name: str = "kita/pick"):
    return import_path(
        folder / "data",
        source,
        dataset=name,
        signal_map=source / "signalmap.toml",
        allow=ALLOW,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )


def test_recorded_episodes_are_imported_with_their_model_and_only_a_persons_success_is_an_example(
    tmp_path, serving, sink
):
    for number, (outcome, by) in enumerate(COURSE):
        act(serving, *range(100 * number, 100 * number + 30))
        serving.end_episode(outcome, by=by).result(10)
    folder = Path(sink.status()["folder"])
    report = add(tmp_path, folder)
    assert (report.episodes_added, report.excluded) == (4, 0)
    assert add(tmp_path, folder).duplicates == 4
    metas = [one.meta for one in Store(tmp_path / "data").episodes("kita/pick")]
    assert [one.outcome for one in metas] == ["success", "success", "fail", "unknown"]
    assert {(one.source_kind, one.model) for one in metas} == {("deployed", MODEL)}
    assert [one.may_be_cloned for one in metas] == [True, False, False, False]
    assert [one.start_ns for one in metas] == [question(100 * n).stamp_ns for n in range(4)]
    assert [one.clock for one in metas] == ["controller"] * 4  # its own stamps; which clock is in the file
    words = [json.loads(pq.read_schema(one).metadata[b"iriai.deployed"]) for one in recorded(tmp_path)]
    assert {(one["clock"], one["rate_hz"]) for one in words} == {("host", "80")}


def test_a_person_may_judge_a_recorded_attempt_before_it_is_imported(tmp_path, serving, sink):
    act(serving, *range(30))
    path = serving.end_episode("unknown").result(10)
    before = pq.read_table(path)
    assert judge(path, "success", key=KEY) == MODEL
    assert told(path) == ("success", "person")
    assert pq.read_table(path).equals(before)
    add(tmp_path, Path(sink.status()["folder"]))
    assert Store(tmp_path / "data").episodes("kita/pick")[0].meta.may_be_cloned


def words(path: Path, **changes: str) -> None:
    """Rewrites what a file says of itself, as anybody may who can write it."""
    table = pq.read_table(path)
    said = json.loads(table.schema.metadata[b"iriai.deployed"]) | changes
    pq.write_table(table.replace_schema_metadata({b"iriai.deployed": json.dumps(said).encode()}), path)


def outcomes(folder: Path, source: Path) -> list[tuple[str, str, str, bool]]:
    add(folder, source)
    metas = [one.meta for one in Store(folder / "data").episodes("kita/pick")]
    return [(one.source_kind, one.outcome, one.outcome_by, one.may_be_cloned) for one in metas]


UNPROVEN = ("deployed", "unknown", "", False)


def test_words_that_were_changed_in_a_file_are_not_believed(tmp_path, serving, sink):
    paths = []
    for number in range(5):
        act(serving, *range(100 * number, 100 * number + 30))
        paths.append(serving.end_episode("success").result(10))
    words(paths[0], outcome_by="person")
    words(paths[1], outcome_by="person", seal="0" * 64)
    table = pq.read_table(paths[2])
    pq.write_table(table.replace_schema_metadata({}), paths[2])  # no word of a model at all
    judge(paths[3], "success", key=KEY)
    moved = pq.read_table(paths[3])
    values = pa.array(np.full(30, 0.002, dtype=np.float32))
    at = moved.column_names.index("action.tcp_pose_delta_0")
    pq.write_table(moved.set_column(at, "action.tcp_pose_delta_0", values), paths[3])  # other rows, same seal
    found = outcomes(tmp_path, paths[0].parent)
    assert found == [UNPROVEN] * 4 + [("deployed", "success", "", False)]


def test_a_recording_is_a_models_though_its_words_and_its_map_are_taken_away(tmp_path, serving, sink):
    act(serving, *range(30))
    path = serving.end_episode("success", by="person").result(10)
    pq.write_table(pq.read_table(path).replace_schema_metadata({}), path)
    text = (path.parent / "signalmap.toml").read_text()
    kept = [line for line in text.splitlines(keepends=True) if not line.startswith("source")]
    (path.parent / "signalmap.toml").write_text("".join(kept))
    assert outcomes(tmp_path, path.parent) == [UNPROVEN]


def test_recordings_of_another_node_are_not_believed_to_be_judged(tmp_path):
    files = EpisodeFiles(tmp_path / "deployed", facts(), "host", service="cell", seal_key=b"another" * 4)
    sink = EpisodeRecorder(files, Ring.open(tmp_path / "open.ring", facts()), free=SimDisk())
    serving = TimedServing(SaidModel(), recorder=sink)
    act(serving, *range(30))
    path = serving.end_episode("success", by="person").result(10)
    sink.close()
    with pytest.raises(RecordingError, match="seal of this node"):
        judge(path, "success", key=KEY)
    assert outcomes(tmp_path, path.parent) == [UNPROVEN]


def test_a_file_that_names_another_model_than_its_map_is_refused(tmp_path, serving, sink):
    act(serving, *range(30))
    path = serving.end_episode("success").result(10)
    words(path, model="sha256:" + "ee" * 32)
    with pytest.raises(FileInvalidError):
        add(tmp_path, path.parent)


def test_a_host_clock_with_jitter_costs_no_recording(tmp_path, serving, sink):
    rng = np.random.default_rng(5)
    for tick in range(200):
        values = rng.uniform(0.1, 0.2, 10)
        at_ns = question(tick).stamp_ns + int(rng.normal(0, 0.12) * 12_500_000)
        serving.infer(question(tick, values=values, at_ns=at_ns), now_ns=tick_ns(tick) + 5_000_000)
    path = serving.end_episode("success").result(10)
    report = add(tmp_path, path.parent)
    assert (report.episodes_added, report.excluded) == (1, 0)


def test_an_episode_of_one_tick_is_no_file(serving, sink):
    act(serving, 0, bad=0)
    assert serving.end_episode("unknown") is None
    assert sink.status()["dropped"] == {"single": 1}


def test_numbers_go_on_where_recordings_were_moved_away(tmp_path):
    names = []
    for first in (0, 20):
        sink = recorder(tmp_path)
        act(TimedServing(SaidModel(), recorder=sink), *range(first, first + 3))
        path = sink.end("unknown", "").result(10)
        names.append(path.name)
        path.unlink()
        sink.close()
    assert names == ["episode-000001.parquet", "episode-000002.parquet"]


def test_a_writer_that_fails_otherwise_ends_no_service(serving, sink, monkeypatch):
    def odd(*_: object) -> Path:
        raise ValueError

    monkeypatch.setattr(EpisodeFiles, "write", odd)
    act(serving, 0, 1)
    assert serving.end_episode("success").result(10) is None
    assert (sink.status()["writing"], sink.status()["dropped"]) == (0, {"failed": 1})


def test_an_episode_is_found_by_its_bare_name(tmp_path, serving, sink):
    act(serving, 0, 1)
    path = serving.end_episode("unknown").result(10)
    for name in (path.name, path.stem):
        assert find_episode(tmp_path / "deployed", Path(name)) == path
    assert find_episode(tmp_path / "deployed", path) == path
    for name in ("episode-000009", "*"):
        with pytest.raises(RecordingError):
            find_episode(tmp_path / "deployed", Path(name))


def test_a_file_of_somebody_else_is_not_judged_and_a_forged_word_is_refused(tmp_path, serving, sink):
    act(serving, *range(3))
    path = serving.end_episode("unknown").result(10)
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({b"iriai.deployed": b'{"outcome": "success"}'}), path)
    with pytest.raises(FileInvalidError):
        add(tmp_path, path.parent)
    for metadata in ({b"iriai.deployed": b"[]"}, None):
        pq.write_table(table.replace_schema_metadata(metadata), path)
        with pytest.raises(RecordingError):
            judge(path, "success", key=KEY)
    with pytest.raises(RecordingError):
        judge(path.with_name("none.parquet"), "success", key=KEY)


def test_recordings_join_the_data_set_that_their_model_was_trained_on_as_a_new_block(tmp_path, serving, sink):
    rng = np.random.default_rng(3)
    demonstrations = [
        Frames(
            task="pick-place",
            columns={
                "observation.state": rng.uniform(0.1, 0.2, (30, 10)).astype(np.float32),
                "action": rng.uniform(-0.01, 0.01, (30, 4)).astype(np.float32),
            },
        )
        for _ in range(4)
    ]
    write_dataset(
        tmp_path / "cell",
        rate_hz=80,
        robot_type="7r-arm+parallel-gripper",
        features={
            "observation.state": Feature(names=OBSERVATION_NAMES),
            "action": Feature(names=ACTION_NAMES),
        },
        episodes=demonstrations,
        splits={"train": (0, 3), "held-out": (3, 4)},
    )
    import_path(
        tmp_path / "data",
        tmp_path / "cell",
        dataset="kita/pick",
        allow=ALLOW,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )
    for number, (outcome, by) in enumerate(COURSE):
        act(serving, *range(100 * number, 100 * number + 30))
        serving.end_episode(outcome, by=by).result(10)
    assert add(tmp_path, Path(sink.status()["folder"])).episodes_added == 4
    metas = [one.meta for one in Store(tmp_path / "data").episodes("kita/pick")]
    assert len({one.lineage for one in metas}) == 1
    old, new = ({one.block for one in metas if one.source_kind == kind} for kind in ("recorded", "deployed"))
    assert not old & new
    view = open_view(
        tmp_path / "data",
        "kita/pick",
        contract_fields=ALLOW,
        recipe_inputs=ALLOW - {"outcome"},
        local_allow=ALLOW,
    )
    assert view.count("train") + view.count("held-out") == 5  # four demonstrations and a person's success
