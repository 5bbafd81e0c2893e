# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags in sqlite3 storage, and what both containers share: names, joins, clocks, parts."""

from __future__ import annotations

import hashlib
import os
import shutil
import sqlite3
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from client.data import ImportReport, import_path
from client.data.errors import (
    DataError,
    FileInvalidError,
    FormatAmbiguousError,
    FormatUnknownError,
    JointNameError,
    MapInvalidError,
    MissingColumnError,
    NoMeasuredStateError,
    NotFiniteError,
    PersonalDataError,
    PointerFileError,
    TooLargeError,
    TruncatedError,
)
from client.data.readers import claimed
from client.data.readers.cdr import CdrError, layout_of, stacked
from client.data.readers.ros_types import types_of
from client.data.series import ReadOptions, Series
from client.data.signalmap import parse_map
from policies.limits import SERIES_ROWS
from tests.bagsim import (
    ACME,
    JOINT_STATE,
    JOINTS,
    PERIOD_NS,
    START_NS,
    STORE,
    WRENCH,
    Arm,
    Said,
    T,
    arm_map,
    header,
    joint_state,
    wrench,
    write_db3,
)
from tests.datasim import KEY, RIGHTS, SimClock

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
FIELDS = frozenset({"joint_pos", "joint_vel", "joint_torque", "tcp_force"})
FORCE = (
    '  {field = "tcp_force", columns = ["/wrench:wrench.force.x", "/wrench:wrench.force.y", '
    '"/wrench:wrench.force.z"], unit = "N", role = "observation"},\n'
)


def read(path: Path, text: str | None = None, *, accept: bool = False) -> tuple[list[Series], Counter[str]]:
    """All series of a bag, and what the reader noted."""
    reader, notes = claimed(path), Counter[str]()
    probe = reader.probe(path, None)
    signals = parse_map((text or probe.extra["map"]).encode())
    options = ReadOptions(accept_truncated=accept)
    found = list(reader.read(path, probe, signals, lambda what, n: notes.update({what: n}), options))
    return found, +notes


def only(path: Path, text: str | None = None) -> Series:
    (series,), _ = read(path, text)
    return series


def values(
    series: Series, array: str, topic: str = "/joint_states", names: tuple[str, ...] = JOINTS
) -> np.ndarray:
    return np.column_stack([series.columns[f"{topic}:{array}.{name}"] for name in names])


def is_arm(series: Series, arm: Arm) -> bool:
    """Whether a series is these rows, bit by bit."""
    return (
        np.array_equal(series.stamps_ns, arm.stamps_ns)
        and np.array_equal(values(series, "position"), arm.position)
        and np.array_equal(values(series, "velocity"), arm.velocity)
        and np.array_equal(values(series, "effort"), arm.effort)
    )


@pytest.mark.parametrize(
    ("metadata", "definitions"), [(True, True), (False, True), (True, False), (False, False)]
)
def test_a_bag_is_read_with_and_without_metadata_and_definitions(
    tmp_path: Path, metadata: bool, definitions: bool
) -> None:
    arm = Arm.moving(120)
    bag = write_db3(tmp_path / "bag", arm.said(), metadata=metadata, definitions=definitions)
    assert is_arm(only(bag), arm)
    assert is_arm(only(bag / "bag.db3"), arm)


def test_a_probe_offers_joints_their_units_and_a_map_in_the_order_of_the_arm(tmp_path: Path) -> None:
    bag = write_db3(tmp_path / "bag", Arm.moving(20).said(shuffled=True))
    probe = claimed(bag).probe(bag, None)
    assert probe.units["/joint_states:effort.elbow_joint"] == "Nm"
    assert {"/joint_states:header.stamp", "/joint_states:log_time"} <= set(probe.channels)
    assert probe.rows == 20
    assert probe.bytes == (bag / "bag.db3").stat().st_size
    signals = parse_map(probe.extra["map"].encode())
    assert [c.rsplit(".", 1)[1] for c in signals.signals[0].columns] == list(JOINTS)
    assert [s.unit for s in signals.signals] == ["rad", "rad/s", "Nm"]


def test_joints_are_taken_by_name_when_messages_shuffle_them(tmp_path: Path) -> None:
    arm = Arm.moving(80)
    assert is_arm(only(write_db3(tmp_path / "bag", arm.said(shuffled=True))), arm)


@pytest.mark.parametrize("lacking", [slice(0, None), slice(30, 31)])
def test_a_missing_joint_name_is_refused(tmp_path: Path, lacking: slice) -> None:
    said = Arm.moving(60).said()
    for at in range(60)[lacking]:
        message = said[at].message
        short = joint_state(
            START_NS + at, message.name[:5], message.position[:5], message.velocity[:5], message.effort[:5]
        )
        said[at] = said[at]._replace(message=short)
    with pytest.raises(JointNameError, match="wrist_3_joint"):
        read(write_db3(tmp_path / "bag", said), arm_map())


def test_values_that_names_do_not_fit_are_refused(tmp_path: Path) -> None:
    said = Arm.moving(10).said()
    said[4] = said[4]._replace(message=joint_state(START_NS, JOINTS, np.zeros(5), np.zeros(6), np.zeros(6)))
    with pytest.raises(FileInvalidError, match="message 4"):
        read(write_db3(tmp_path / "bag", said))
    said[4] = said[4]._replace(message=joint_state(START_NS, [JOINTS[0]] * 6, *[np.zeros(6)] * 3))
    with pytest.raises(FileInvalidError, match="a joint name twice"):
        read(write_db3(tmp_path / "bag2", said))


def gripper(arm: Arm, *, topic: str = "/joint_states", delay_ns: int = 2_000_000) -> list[Said]:
    return [
        Said(
            topic,
            JOINT_STATE,
            s + delay_ns + 100_000,
            joint_state(s + delay_ns, ["finger_joint"], [i / 1000], [0.0], [1.0]),
        )
        for i, s in enumerate(arm.stamps_ns.tolist())
    ]


def test_two_publishers_of_one_topic_are_two_streams(tmp_path: Path) -> None:
    arm = Arm.moving(50)
    said = sorted([*arm.said(), *gripper(arm)], key=lambda one: one.log_ns)
    bag = write_db3(tmp_path / "bag", said)
    (series,), notes = read(bag)
    assert is_arm(series, arm)
    assert notes["messages-of-others"] == 50  # the gripper, which the proposed map leaves out
    assert "finger_joint" in claimed(bag).probe(bag, None).extra["map"]
    more = '  {field = "gripper_width", columns = ["/joint_states:position.finger_joint"], unit = "m", role = "observation"},\n'
    series = only(bag, arm_map(more=more))
    assert is_arm(series, arm)
    width = series.columns["/joint_states:position.finger_joint"]
    assert np.isnan(width[0])  # nothing was said before it
    assert np.array_equal(width[1:], np.arange(49) / 1000)


def test_two_publishers_of_the_same_joints_are_read_in_the_order_of_the_log(tmp_path: Path) -> None:
    one, other = Arm.moving(30), Arm.moving(30, seed=1, start_ns=START_NS + PERIOD_NS // 2)
    said = sorted([*one.said(), *other.said()], key=lambda s: s.log_ns)
    series = only(write_db3(tmp_path / "bag", said))
    assert series.length == 60
    assert np.array_equal(values(series, "position")[::2], one.position)


def test_topics_are_joined_by_the_last_value_of_one_period(tmp_path: Path) -> None:
    arm = Arm.moving(40)
    arm.stamps_ns = START_NS + np.arange(40, dtype=np.int64) * PERIOD_NS
    forces = [
        Said("/wrench", WRENCH, s + 300_000, wrench(s, (i, 0, 0)))
        for i, s in enumerate(arm.stamps_ns.tolist())
        if i not in (10, 20, 21)
    ]
    (series,), notes = read(
        write_db3(tmp_path / "bag", sorted([*arm.said(), *forces], key=lambda s: s.log_ns)),
        arm_map(more=FORCE),
    )
    assert is_arm(series, arm)
    expected = np.arange(40.0)
    expected[10], expected[20], expected[21] = 9, 19, np.nan  # one period old is known, two are not
    assert np.array_equal(series.columns["/wrench:wrench.force.x"], expected, equal_nan=True)
    assert notes["joined-values-too-old"] == 1


def test_a_topic_that_is_logged_late_still_finds_its_row(tmp_path: Path) -> None:
    arm = Arm.moving(600)
    forces = [
        Said("/wrench", WRENCH, s + 500_000_000, wrench(s, (i, 0, 0)))
        for i, s in enumerate(arm.stamps_ns.tolist())
    ]
    said = sorted([*arm.said(), *forces], key=lambda s: s.log_ns)
    series = only(write_db3(tmp_path / "bag", said), arm_map(more=FORCE))
    assert np.array_equal(series.columns["/wrench:wrench.force.x"], np.arange(600.0))
    by_log = only(
        tmp_path / "bag", arm_map(more=FORCE, clock='{column = "log_time", unit = "ns", kind = "host"}')
    )
    assert np.array_equal(by_log.stamps_ns, arm.stamps_ns + 100_000)
    assert np.isnan(by_log.columns["/wrench:wrench.force.x"][:60]).all()


def test_joins_are_those_of_a_plain_search_whatever_the_jitter(tmp_path: Path) -> None:
    """Many more messages than one block, three rates, delays up to 0.3 s, losses: against the definition itself."""
    rng = np.random.default_rng(11)
    rows, ahead = 9_000, np.arange(9_000) * PERIOD_NS
    base = START_NS + ahead + rng.integers(-300_000, 300_000, rows)
    template = bytearray(STORE.serialize_cdr(wrench(START_NS, (0, 0, 0)), WRENCH))
    force_at = bytes(STORE.serialize_cdr(wrench(START_NS, (1.5, 0, 0)), WRENCH)).find(
        np.float64(1.5).tobytes()
    )
    said, streams = [], {}
    for topic, every, seed in (("/base", 1, 1), ("/slow", 3, 2), ("/same", 1, 3)):
        stamps = (
            START_NS + ahead[::every] + np.random.default_rng(seed).integers(-300_000, 300_000, rows)[::every]
        )
        stamps = base if topic == "/base" else stamps[rng.random(len(stamps)) > 0.05]
        streams[topic] = stamps
        for number, stamp in enumerate(stamps.tolist()):
            template[4:12] = (stamp // 10**9).to_bytes(4, "little") + (stamp % 10**9).to_bytes(4, "little")
            template[force_at : force_at + 8] = np.float64(number).tobytes()
            said.append(Said(topic, WRENCH, stamp + int(rng.integers(0, 300_000_000)), bytes(template)))
    text = "signal = [" + "".join(
        f'{{field = "x_{t[1:]}", columns = ["{t}:wrench.force.x"], unit = "N", role = "observation"}},\n'
        for t in streams
    )
    (series,), _ = read(write_db3(tmp_path / "bag", said), text + "]\n")
    for topic, period in (("/slow", 3 * PERIOD_NS), ("/same", PERIOD_NS)):
        stamps = streams[topic]
        at = np.searchsorted(stamps, series.stamps_ns, side="right") - 1
        old = series.stamps_ns - stamps[np.maximum(at, 0)]
        found = series.columns[f"{topic}:wrench.force.x"]
        sure = (at >= 0) & (old <= 1.05 * period)
        assert np.array_equal(found[sure], at[sure])
        assert np.isnan(found[(at < 0) | (old > 1.2 * period)]).all()


def test_a_clock_that_begins_anew_is_joined_with_its_own_time_only(tmp_path: Path) -> None:
    first, second = Arm.moving(100), Arm.moving(100, seed=3)
    log = START_NS
    said = []
    for run, arm in enumerate((first, second)):
        for row, one in enumerate(arm.said()):
            log += PERIOD_NS
            stamp = int(arm.stamps_ns[row])
            said.append(one._replace(log_ns=log))
            said.append(Said("/wrench", WRENCH, log + 1000, wrench(stamp, (1000 * run + row, 0, 0))))
        log += 10_000_000_000
    second_start = 100
    series = only(write_db3(tmp_path / "bag", said), arm_map(more=FORCE))
    force = series.columns["/wrench:wrench.force.x"]
    assert np.array_equal(series.stamps_ns, np.concatenate([first.stamps_ns, second.stamps_ns]))
    assert np.array_equal(force[: second_start - 1], np.arange(99.0))
    known = force[second_start:]
    assert np.array_equal(known[1:], 1000 + np.arange(1, 100.0))


def test_messages_out_of_order_are_read_in_the_order_of_the_log(tmp_path: Path) -> None:
    arm = Arm.moving(50)
    said = arm.said()
    rng = np.random.default_rng(0)
    bag = write_db3(tmp_path / "bag", [said[i] for i in rng.permutation(50)])
    assert is_arm(only(bag), arm)


def test_a_stamp_that_goes_back_stays_and_cuts_the_episode(tmp_path: Path) -> None:
    arm = Arm.moving(60)
    arm.stamps_ns[40:] -= 30 * PERIOD_NS
    logged = START_NS + np.arange(60) * PERIOD_NS
    said = [one._replace(log_ns=int(log)) for one, log in zip(arm.said(), logged, strict=True)]
    bag = write_db3(tmp_path / "bag", said)
    assert is_arm(only(bag), arm)
    report = imported(tmp_path, bag)
    assert report.episodes_added == 2


def imported(tmp_path: Path, bag: Path, **options: object) -> ImportReport:
    return import_path(
        tmp_path / "store",
        bag,
        dataset="ur/arm",
        allow=FIELDS,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
        **options,
    )


def test_a_bag_is_imported_without_a_map_and_once(tmp_path: Path) -> None:
    bag = write_db3(tmp_path / "bag", Arm.moving(150).said())
    report = imported(tmp_path, bag)
    assert (report.episodes_added, report.frames_added) == (1, 150)
    assert report.fields == ("joint_pos", "joint_torque", "joint_vel")
    assert imported(tmp_path, bag).duplicates == 1


def test_nothing_is_offered_where_two_topics_hold_joints(tmp_path: Path) -> None:
    arm = Arm.moving(10)
    twin = [one._replace(topic="/left/joint_states") for one in arm.said()]
    bag = write_db3(tmp_path / "bag", [*arm.said(), *twin])
    assert claimed(bag).probe(bag, None).extra["map"] == ""
    with pytest.raises(MapInvalidError):
        imported(tmp_path, bag)
    assert is_arm(only(bag, arm_map()), arm)


def test_messages_that_stand_in_the_write_ahead_log_are_read(tmp_path: Path) -> None:
    arm = Arm.moving(90)
    said = arm.said()
    bag = write_db3(tmp_path / "bag", said[:30], metadata=False)
    file = bag / "bag.db3"
    recorder = sqlite3.connect(file)
    recorder.execute("PRAGMA journal_mode = WAL")
    recorder.execute("PRAGMA wal_autocheckpoint = 0")
    recorder.executemany(
        "INSERT INTO messages (topic_id, timestamp, data) VALUES (1, ?, ?)",
        [(s.log_ns, s.data) for s in said[30:]],
    )
    recorder.commit()
    (tmp_path / "killed").mkdir()
    for name in ("bag.db3", "bag.db3-wal"):  # as a recorder leaves it that was killed
        shutil.copyfile(bag / name, tmp_path / "killed" / name)
    recorder.close()
    before = {p.name: hashlib.sha256(p.read_bytes()).digest() for p in (tmp_path / "killed").iterdir()}
    killed = only(tmp_path / "killed" / "bag.db3")
    assert is_arm(killed, arm)
    assert {
        p.name: hashlib.sha256(p.read_bytes()).digest() for p in (tmp_path / "killed").iterdir()
    } == before
    (tmp_path / "killed" / "bag.db3-wal").write_bytes(b"")
    without = only(tmp_path / "killed" / "bag.db3")  # in WAL mode, and no log: nothing may be made beside it
    assert without.length == 30
    assert without.source.file_sha256 != killed.source.file_sha256
    assert sorted(p.name for p in (tmp_path / "killed").iterdir()) == ["bag.db3", "bag.db3-wal"]


def weld(stamp_ns: int, current: float, *, arc: bool, program: str) -> object:
    return T[ACME](header(stamp_ns), current, arc, program)


def test_a_bag_with_a_camera_needs_a_consent(tmp_path: Path) -> None:
    arm = Arm.moving(30)
    image = T["sensor_msgs/msg/Image"](header(START_NS), 1, 2, "rgb8", 0, 6, np.zeros(6, dtype=np.uint8))
    bag = write_db3(
        tmp_path / "bag", [Said("/camera/image", "sensor_msgs/msg/Image", START_NS, image), *arm.said()]
    )
    with pytest.raises(PersonalDataError, match="/camera/image"):
        imported(tmp_path, bag)
    report = imported(tmp_path, bag, consent="consent-7")
    assert report.frames_added == 30
    assert "/camera/image:height" in report.dropped_columns


def test_an_unknown_type_is_counted_and_refused_where_it_is_mapped(tmp_path: Path) -> None:
    arm = Arm.moving(40)
    welds = [
        Said("/weld", ACME, one.log_ns, weld(START_NS, 1.5, arc=True, program="p")) for one in arm.said()
    ]
    bag = write_db3(tmp_path / "bag", [*arm.said(), *welds], definitions=False)
    (series,), notes = read(bag)
    assert is_arm(series, arm)
    assert notes["unknown-types"] == 1
    more = '  {field = "x_weld", columns = ["/weld:current"], unit = "A", role = "observation"},\n'
    with pytest.raises(FileInvalidError, match="acme_msgs/msg/Weld"):
        read(bag, arm_map(more=more))
    with pytest.raises(MissingColumnError, match="/nowhere"):
        read(bag, arm_map(more=more.replace("/weld", "/nowhere")))


def test_words_and_flags_of_the_bags_own_type_are_read(tmp_path: Path) -> None:
    arm = Arm.moving(40)
    welds = [
        Said("/weld", ACME, one.log_ns, weld(int(stamp), 1.5, arc=i >= 20, program="a" if i < 5 else "b"))
        for i, (one, stamp) in enumerate(zip(arm.said(), arm.stamps_ns, strict=True))
    ]
    more = '  {field = "x_weld", columns = ["/weld:current"], unit = "A", role = "observation"},\n'
    labels = (
        'label = [{field = "outcome", column = "/weld:arc", values = {"True" = true, "False" = false}},\n'
        '  {field = "x_program", column = "/weld:program", values = {"b" = true}}]\n'
    )
    bag = write_db3(tmp_path / "bag", [s for pair in zip(arm.said(), welds, strict=True) for s in pair])
    series = only(bag, arm_map(more=more) + labels)
    assert series.texts["/weld:arc"].tolist() == ["False"] * 20 + ["True"] * 20
    assert series.texts["/weld:program"].tolist() == ["a"] * 5 + ["b"] * 35
    assert (series.columns["/weld:current"] == 1.5).all()
    assert claimed(bag).probe(bag, None).texts == {"/weld:program"}
    with pytest.raises(MissingColumnError, match="/weld:voltage"):
        read(bag, arm_map(more=more.replace("current", "voltage")))


def test_a_plan_is_no_recording(tmp_path: Path) -> None:
    kind = "trajectory_msgs/msg/JointTrajectory"
    duration = T["builtin_interfaces/msg/Duration"](sec=0, nanosec=0)
    point = T["trajectory_msgs/msg/JointTrajectoryPoint"](*[np.zeros(6)] * 4, duration)
    plan = Said("/plan", kind, START_NS, T[kind](header(START_NS), list(JOINTS), [point] * 3))
    bag = write_db3(tmp_path / "bag", [plan], extra=["/joint_states"])
    with pytest.raises(NoMeasuredStateError, match="JointTrajectory"):
        claimed(bag).probe(bag, None)
    arm = Arm.moving(10)
    assert is_arm(only(write_db3(tmp_path / "both", [plan, *arm.said()])), arm)


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_a_number_that_is_none_is_refused_where_it_is_mapped(tmp_path: Path, wrong: float) -> None:
    arm = Arm.moving(20)
    arm.effort[7, 2] = wrong
    bag = write_db3(tmp_path / "bag", arm.said())
    with pytest.raises(NotFiniteError, match=r"message 7, effort\.elbow_joint"):
        read(bag)
    only_positions = "\n".join(line for line in arm_map().splitlines() if "joint_torque" not in line)
    assert np.array_equal(values(only(bag, only_positions), "position"), arm.position)


def test_an_array_that_a_driver_leaves_empty_is_not_offered_and_refused_where_mapped(tmp_path: Path) -> None:
    arm = Arm.moving(20)
    said = [
        one._replace(message=joint_state(int(s), JOINTS, p))
        for one, s, p in zip(arm.said(), arm.stamps_ns, arm.position, strict=True)
    ]
    bag = write_db3(tmp_path / "bag", said)
    assert list(parse_map(claimed(bag).probe(bag, None).extra["map"].encode()).number_columns) == [
        f"/joint_states:position.{name}" for name in JOINTS
    ]
    with pytest.raises(MissingColumnError, match="velocity"):
        read(bag, arm_map())


def test_a_stamp_that_nobody_set_gives_way_to_the_log_time(tmp_path: Path) -> None:
    said = [
        Said(
            "/joint_states",
            JOINT_STATE,
            START_NS + i * PERIOD_NS,
            joint_state(0, JOINTS, *[np.full(6, i)] * 3),
        )
        for i in range(10)
    ]
    bag = write_db3(tmp_path / "bag", said)
    (series,), notes = read(bag)
    assert np.array_equal(series.stamps_ns, START_NS + np.arange(10) * PERIOD_NS)
    (series,), notes = read(bag, arm_map())
    assert np.array_equal(series.stamps_ns, START_NS + np.arange(10) * PERIOD_NS)
    assert notes["header-stamp-never-set"] == 1
    with pytest.raises(MissingColumnError, match=r"header\.stamp"):
        read(bag, arm_map(clock='{column = "header.stamp", unit = "ns", kind = "host"}'))


@pytest.mark.parametrize(
    ("clock", "kind", "step"),
    [
        ("{rate_hz = 50}", "derived", 20_000_000),
        ('{column = "/wrench:header.stamp", unit = "ns", kind = "simulation"}', "simulation", 4_000_000),
        ('{column = "/uptime:data", unit = "s", kind = "controller"}', "controller", 16_000_000),
    ],
)
def test_the_map_says_which_clock_makes_the_rows(tmp_path: Path, clock: str, kind: str, step: int) -> None:
    arm = Arm.moving(30)
    arm.stamps_ns = START_NS + np.arange(30, dtype=np.int64) * PERIOD_NS
    said = arm.said()
    said += [
        Said("/wrench", WRENCH, s, wrench(s, (1, 2, 3)))
        for s in range(START_NS, START_NS + 30 * PERIOD_NS, 4_000_000)
    ]
    uptime = T["std_msgs/msg/Float64"]
    said += [
        Said("/uptime", "std_msgs/msg/Float64", START_NS + i * 16_000_000, uptime(100 + i * 0.016))
        for i in range(15)
    ]
    bag = write_db3(tmp_path / "bag", said)
    series = only(bag, arm_map(more=FORCE, clock=clock))
    assert series.clock == kind
    assert set(np.diff(series.stamps_ns).tolist()) == {step}


def test_a_clock_in_another_unit_is_refused(tmp_path: Path) -> None:
    bag = write_db3(tmp_path / "bag", Arm.moving(5).said())
    with pytest.raises(MapInvalidError, match=r"clock\.unit"):
        read(bag, arm_map(clock='{column = "header.stamp", unit = "s", kind = "host"}'))


def test_a_long_recording_comes_in_parts_that_follow_each_other(tmp_path: Path) -> None:
    rows = SERIES_ROWS * 2 + 17
    template = bytearray(STORE.serialize_cdr(joint_state(0, JOINTS, *[np.arange(6.0)] * 3), JOINT_STATE))
    stamps = START_NS + np.arange(rows, dtype=np.int64) * PERIOD_NS
    said = []
    for stamp in stamps.tolist():
        template[4:12] = (stamp // 10**9).to_bytes(4, "little") + (stamp % 10**9).to_bytes(4, "little")
        said.append(Said("/joint_states", JOINT_STATE, stamp, bytes(template)))
    parts, _ = read(write_db3(tmp_path / "bag", said))
    assert [(p.length, p.more, p.name) for p in parts] == [
        (SERIES_ROWS, True, "bag"),
        (SERIES_ROWS, True, "bag"),
        (17, False, "bag"),
    ]
    assert [(p.source.first, p.source.last) for p in parts] == [
        (0, SERIES_ROWS),
        (SERIES_ROWS, 2 * SERIES_ROWS),
        (2 * SERIES_ROWS, rows),
    ]
    assert np.array_equal(np.concatenate([p.stamps_ns for p in parts]), stamps)
    assert parts[0].bytes_read is not None
    assert parts[0].bytes_read < (parts[2].bytes_read or 0)


def test_a_bag_that_was_split_is_one_recording_and_loose_files_are_several(tmp_path: Path) -> None:
    arm = Arm.moving(90)
    said = arm.said()
    bag = write_db3(tmp_path / "bag_0", said[:50])
    rest = write_db3(tmp_path / "bag_10", said[50:])
    shutil.move(rest / "bag_10.db3", bag / "bag_10.db3")
    meta = bag / "metadata.yaml"
    meta.write_text(meta.read_text().replace("  - bag_0.db3\n", "  - bag_0.db3\n  - bag_10.db3\n"))
    assert is_arm(only(bag), arm)
    meta.unlink()
    loose, _ = read(bag)
    assert [(s.name, s.length) for s in loose] == [("bag_0.db3", 50), ("bag_10.db3", 40)]


def test_a_folder_of_bags_holds_the_recordings_of_each(tmp_path: Path) -> None:
    arms = {f"run_{i}": Arm.moving(20 + i, seed=i) for i in (1, 2, 10)}
    for name, arm in arms.items():
        write_db3(tmp_path / "set" / name, arm.said())
    found, _ = read(tmp_path / "set")
    assert [s.name for s in found] == list(arms)
    assert all(is_arm(s, arms[s.name]) for s in found)


@pytest.mark.parametrize(
    ("planted", "error"),
    [
        ("rosbag2_bagfile_information: {relative_file_paths: [../bag.db3]}", FileInvalidError),
        ("rosbag2_bagfile_information: {relative_file_paths: [gone.db3]}", FileInvalidError),
        ("rosbag2_bagfile_information: {compression_mode: MESSAGE}", FormatUnknownError),
        ("rosbag2_bagfile_information: []", FileInvalidError),
        ("a: [", FileInvalidError),
        ("!!python/object:os.system x", FileInvalidError),
    ],
)
def test_metadata_that_lies_is_refused(tmp_path: Path, planted: str, error: type[DataError]) -> None:
    bag = write_db3(tmp_path / "bag", Arm.moving(5).said())
    (bag / "metadata.yaml").write_text(planted)
    with pytest.raises(error):
        read(bag)


def test_a_pointer_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "x.db3"
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(PointerFileError):
        claimed(path).probe(path, None)


def test_a_database_that_was_cut_gives_its_complete_messages_only_if_somebody_accepts_it(
    tmp_path: Path,
) -> None:
    arm = Arm.moving(400)
    whole = (write_db3(tmp_path / "bag", arm.said()) / "bag.db3").read_bytes()
    cut, kept = tmp_path / "cut.db3", 0
    for percent in range(1, 100, 7):
        cut.write_bytes(whole[: len(whole) * percent // 100])
        with pytest.raises(TruncatedError):
            read(cut, arm_map())
        try:
            found, notes = read(cut, arm_map(), accept=True)
        except (TruncatedError, MissingColumnError):
            continue  # cut before its first message
        assert notes["truncated"] == 1
        for series in found:
            assert is_arm(series, arm.part(0, series.length))
            kept = max(kept, series.length)
    assert kept > 300


def test_bytes_that_are_no_bag_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.db3"
    for data in (
        b"",
        b"hello",
        b"SQLite format 3\x00" + b"\xff" * 5000,
        b"SQLite format 3\x00" + b"\x00" * 84,
    ):
        path.write_bytes(data)
        with pytest.raises((FileInvalidError, TruncatedError)):
            read(path, arm_map())
    with sqlite3.connect(tmp_path / "other.db3") as other:
        other.execute("CREATE TABLE topics (id)")
        other.execute("CREATE VIEW messages AS SELECT 1 AS id, 2 AS topic_id, 3 AS timestamp, 4 AS data")
    other.close()
    with pytest.raises(FileInvalidError, match="no table"):
        read(tmp_path / "other.db3", arm_map())


def test_flipped_bytes_are_refused_or_change_values_but_never_crash(tmp_path: Path) -> None:
    whole = (write_db3(tmp_path / "bag", Arm.moving(60).said()) / "bag.db3").read_bytes()
    rng = np.random.default_rng(5)
    path = tmp_path / "flipped.db3"
    for _ in range(60):
        broken = bytearray(whole)
        for at in rng.integers(0, len(whole), 20):
            broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            read(path, arm_map())
        except DataError:
            continue


def test_a_huge_message_is_refused_on_a_mapped_topic_and_passed_over_elsewhere(tmp_path: Path) -> None:
    arm = Arm.moving(10)
    huge = Said("/cloud", "std_msgs/msg/UInt8MultiArray", START_NS, bytes(17 * 1024**2))
    bag = write_db3(tmp_path / "bag", [huge, *arm.said()])
    assert is_arm(only(bag), arm)
    more = '  {field = "x_cloud", columns = ["/cloud:data.0"], unit = "1", role = "observation"},\n'
    with pytest.raises(TooLargeError, match="/cloud"):
        read(bag, arm_map(more=more))


def test_a_folder_with_two_containers_is_ambiguous(tmp_path: Path) -> None:
    bag = write_db3(tmp_path / "bag", Arm.moving(5).said())
    (bag / "x.mcap").write_bytes(b"")
    with pytest.raises(FormatAmbiguousError, match="rosbag and mcap"):
        claimed(bag)


@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize(
    "kind", ["nav_msgs/msg/Odometry", "sensor_msgs/msg/Imu", "tf2_msgs/msg/TFMessage", JOINT_STATE]
)
def test_layouts_find_what_the_reference_decoder_finds(kind: str, order: str) -> None:
    transform = T["geometry_msgs/msg/TransformStamped"]
    vector, quaternion = (
        T["geometry_msgs/msg/Vector3"](1, 2, 3),
        T["geometry_msgs/msg/Quaternion"](0, 0, 0, 1),
    )
    pose = T["geometry_msgs/msg/Pose"](T["geometry_msgs/msg/Point"](4, 5, 6), quaternion)
    messages = {
        "nav_msgs/msg/Odometry": lambda: T[kind](
            header(START_NS, "odom"),
            "base_link",
            T["geometry_msgs/msg/PoseWithCovariance"](pose, np.arange(36.0)),
            T["geometry_msgs/msg/TwistWithCovariance"](
                T["geometry_msgs/msg/Twist"](vector, vector), np.arange(36.0)
            ),
        ),
        "sensor_msgs/msg/Imu": lambda: T[kind](
            header(START_NS, "imu"),
            quaternion,
            np.arange(9.0),
            vector,
            np.arange(9.0),
            vector,
            np.arange(9.0),
        ),
        "tf2_msgs/msg/TFMessage": lambda: T[kind](
            [
                transform(header(START_NS, f), "child", T["geometry_msgs/msg/Transform"](vector, quaternion))
                for f in ("a", "bcd")
            ]
        ),
        JOINT_STATE: lambda: joint_state(START_NS, ("a", "b.c"), [1, 2], (), [3, 4]),
    }
    data = bytes(STORE.serialize_cdr(messages[kind](), kind, little_endian=order == "little"))
    types = types_of(kind, "", "")
    assert types is not None
    layout = layout_of(data, kind, types)
    found = {path: layout.column(stacked([data]), path)[0] for path in layout.numbers}
    if kind == JOINT_STATE:
        assert {p: v for p, v in found.items() if "header" not in p} == {
            "position.a": 1,
            "position.b.c": 2,
            "effort.a": 3,
            "effort.b.c": 4,
        }
    elif kind == "nav_msgs/msg/Odometry":
        assert [found[f"pose.pose.position.{axis}"] for axis in "xyz"] == [4, 5, 6]
        assert [found[f"twist.covariance.{i}"] for i in range(36)] == list(range(36))
        assert layout.units["pose.pose.position.x"] == "m"
        assert layout.words["child_frame_id"] == "base_link"
    elif kind == "sensor_msgs/msg/Imu":
        assert [found[f"linear_acceleration_covariance.{i}"] for i in range(9)] == list(range(9))
    else:
        assert found == {}
    for end in range(len(data) - 3):
        with pytest.raises(CdrError):
            layout_of(data[:end], kind, types)


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings in {SHARED}; set IRIAI_SHARED")
def test_the_recorded_arm_is_one_series_and_the_plan_beside_it_is_refused(tmp_path: Path) -> None:
    recorded = SHARED / "ur10" / "exciting_trajectory.db3"
    (series,), notes = read(recorded)
    assert (series.length, len(series.columns), series.clock) == (3_441, 18, "host")
    assert set(np.diff(series.stamps_ns[1:]).tolist()) == {8_000_000}
    assert not notes
    report = imported(tmp_path, recorded)
    assert (report.episodes_added, report.frames_added, report.excluded) == (1, 3_441, 0)
    with pytest.raises(NoMeasuredStateError):
        claimed(recorded.parent / "validation_trajectory.db3").probe(
            recorded.parent / "validation_trajectory.db3", None
        )
