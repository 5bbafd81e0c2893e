# SPDX-License-Identifier: Apache-2.0
"""ROS 2 bags in MCAP storage: every way of writing one gives the same rows; what is cut or changed is seen."""

from __future__ import annotations

import io
import struct
import tracemalloc
from typing import TYPE_CHECKING

import numpy as np
import pytest
import zstandard

from client.data.errors import (
    DataError,
    FileInvalidError,
    MissingColumnError,
    NoMeasuredStateError,
    PointerFileError,
    TooLargeError,
    TruncatedError,
)
from client.data.readers import claimed
from tests.bagsim import (
    ACME,
    JOINT_STATE,
    JOINTS,
    PERIOD_NS,
    START_NS,
    WRENCH,
    Arm,
    Said,
    arm_map,
    header,
    joint_state,
    wrench,
    write_mcap,
)
from tests.bagsim import T as TYPES
from tests.unit.test_data_rosbag import FORCE, imported, is_arm, only, read

if TYPE_CHECKING:
    from pathlib import Path

MAGIC = b"\x89MCAP0\r\n"


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
@pytest.mark.parametrize(("chunked", "index"), [(True, True), (True, False), (False, True), (False, False)])
def test_every_way_of_writing_a_file_gives_the_same_rows(
    tmp_path: Path, compression: str, chunked: bool, index: bool
) -> None:
    arm = Arm.moving(200)
    path = write_mcap(
        tmp_path / "run.mcap",
        arm.said(),
        compression=compression,
        chunked=chunked,
        index=index,
        data_crc=True,
    )
    series = only(path)
    assert is_arm(series, arm)
    assert series.bytes_read == path.stat().st_size
    assert claimed(path).probe(path, None).rows == (200 if index else None)


def test_types_come_from_humble_where_the_file_has_no_definitions(tmp_path: Path) -> None:
    arm = Arm.moving(30)
    assert is_arm(only(write_mcap(tmp_path / "run.mcap", arm.said(), definitions=False)), arm)


def test_joints_are_taken_by_name_when_messages_shuffle_them(tmp_path: Path) -> None:
    arm = Arm.moving(60)
    assert is_arm(only(write_mcap(tmp_path / "run.mcap", arm.said(shuffled=True))), arm)


def test_messages_of_overlapping_chunks_are_read_in_the_order_of_the_log(tmp_path: Path) -> None:
    arm = Arm.moving(300)
    said = arm.said()
    order = np.random.default_rng(2).permutation(300)
    for chunked in (True, False):
        path = write_mcap(
            tmp_path / f"{chunked}.mcap", [said[i] for i in order], chunk_size=2_000, chunked=chunked
        )
        series = only(path)
        assert is_arm(series, arm)
        assert np.array_equal(series.kept, np.arange(300))


def test_topics_are_joined_as_in_the_other_container(tmp_path: Path) -> None:
    arm = Arm.moving(100)
    forces = [
        Said("/wrench", WRENCH, s + 5_000, wrench(s, (i, 0, 0))) for i, s in enumerate(arm.stamps_ns.tolist())
    ]
    said = sorted([*arm.said(), *forces], key=lambda one: one.log_ns)
    series = only(write_mcap(tmp_path / "run.mcap", said, chunk_size=3_000), arm_map(more=FORCE))
    assert is_arm(series, arm)
    assert np.array_equal(series.columns["/wrench:wrench.force.x"], np.arange(100.0))


@pytest.mark.parametrize("compression", ["zstd", "lz4", "none"])
def test_a_file_cut_at_every_percent_gives_its_complete_messages_only_if_somebody_accepts_it(
    tmp_path: Path, compression: str
) -> None:
    arm = Arm.moving(150)
    whole = write_mcap(
        tmp_path / "run.mcap", arm.said(), compression=compression, chunk_size=12_000
    ).read_bytes()
    cut, kept = tmp_path / "cut.mcap", [0]
    for percent in range(100):
        cut.write_bytes(whole[: len(whole) * percent // 100])
        if not percent:
            with pytest.raises(FileInvalidError):
                read(cut, arm_map())
            continue
        with pytest.raises(TruncatedError):
            read(cut, arm_map())
        try:
            found, notes = read(cut, arm_map(), accept=True)
        except (TruncatedError, MissingColumnError):
            kept.append(0)  # before the first message
            continue
        assert notes["truncated"] == 1
        length = sum(series.length for series in found)
        assert all(is_arm(series, arm.part(0, series.length)) for series in found)
        assert length >= kept[-1]
        kept.append(length)
    assert kept[-1] == 150  # cut in the summary: every message is there
    assert len(set(kept)) > (60 if compression == "none" else 4)


def test_a_cut_file_is_imported_whole_or_not_at_all(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "run.mcap", Arm.moving(100).said(), compression="none").read_bytes()
    cut = tmp_path / "cut.mcap"
    cut.write_bytes(whole[:20_000])
    with pytest.raises(TruncatedError):
        imported(tmp_path, cut)
    report = imported(tmp_path, cut, accept_truncated=True)
    assert 40 < report.frames_added < 100
    assert {finding.code: finding.count for finding in report.findings}["truncated"] == 1


def test_the_refusal_of_a_cut_file_says_what_is_left(tmp_path: Path) -> None:
    whole = write_mcap(tmp_path / "run.mcap", Arm.moving(50).said(), compression="none").read_bytes()
    (tmp_path / "cut.mcap").write_bytes(whole[:10_000])
    with pytest.raises(TruncatedError, match=r"cut after \d+ complete messages.*--accept-truncated"):
        read(tmp_path / "cut.mcap", arm_map())


@pytest.mark.parametrize("chunked", [True, False])
def test_flipped_bytes_are_refused_or_change_nothing(tmp_path: Path, chunked: bool) -> None:
    arm = Arm.moving(40)
    whole = write_mcap(tmp_path / "run.mcap", arm.said(), chunked=chunked, data_crc=True).read_bytes()
    rng = np.random.default_rng(9)
    path, refused = tmp_path / "flipped.mcap", 0
    for at in rng.integers(0, len(whole), 120):
        broken = bytearray(whole)
        broken[at] ^= int(rng.integers(1, 256))
        path.write_bytes(broken)
        try:
            (series,), _ = read(path, arm_map())
        except DataError:
            refused += 1
            continue
        assert is_arm(series, arm)  # in the summary, which nobody believes
    assert refused > 60


def record(opcode: int, body: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(body)) + body


def chunk(packed: bytes, size: int, compression: bytes = b"zstd") -> bytes:
    head = (
        struct.pack("<QQQI", START_NS, START_NS, size, 0) + struct.pack("<I", len(compression)) + compression
    )
    return record(6, head + struct.pack("<Q", len(packed)) + packed)


def with_chunk(path: Path, planted: bytes) -> Path:
    """A good file with another chunk before its end."""
    whole = write_mcap(path, Arm.moving(20).said(), index=False).read_bytes()
    end = whole.rindex(record(15, b"\x00" * 4))
    path.write_bytes(whole[:end] + planted + whole[end:])
    return path


@pytest.fixture(scope="module")
def gigabyte() -> bytes:
    """One GiB of zeros in less than 1 MiB."""
    packer = zstandard.ZstdCompressor().compressobj()
    block = bytes(16 * 1024**2)
    return b"".join([*(packer.compress(block) for _ in range(64)), packer.flush()])


@pytest.mark.parametrize(("said_size", "error"), [(1024**3, TooLargeError), (1024**2, FileInvalidError)])
def test_a_chunk_that_unpacks_to_a_gigabyte_is_refused_before_it_does(
    tmp_path: Path, gigabyte: bytes, said_size: int, error: type[DataError]
) -> None:
    assert len(gigabyte) < 1024**2
    path = with_chunk(tmp_path / "bomb.mcap", chunk(gigabyte, said_size))
    tracemalloc.start()
    with pytest.raises(error):
        read(path, arm_map())
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 64 * 1024**2


@pytest.mark.parametrize(
    "planted",
    [
        chunk(b"x" * 20, 20, b"brotli"),
        chunk(b"x" * 20, 20),
        chunk(b"\x05" + b"\xff" * 20, 21, b""),
        chunk(record(5, b"\x00" * 10), 19, b""),
        chunk(record(5, struct.pack("<HIQQ", 99, 0, START_NS, START_NS)), 31, b""),
        record(6, b"\x00" * 20),
        record(0, b""),
        record(4, b"\x00" * 3),
        record(5, b"\x00" * 3),
        record(3, struct.pack("<HI", 1, 2**31)),
    ],
)
def test_a_planted_record_is_refused(tmp_path: Path, planted: bytes) -> None:
    with pytest.raises(DataError):
        read(with_chunk(tmp_path / "x.mcap", planted), arm_map())


def test_a_definition_beyond_its_bound_is_refused(tmp_path: Path) -> None:
    with pytest.raises(TooLargeError):
        read(with_chunk(tmp_path / "x.mcap", record(3, bytes(2 * 1024**2))), arm_map())


def test_other_encodings_are_counted_and_refused_where_they_are_mapped(tmp_path: Path) -> None:
    path = write_mcap(tmp_path / "x.mcap", Arm.moving(10).said(), encoding="json")
    assert claimed(path).probe(path, None).channels == ()
    with pytest.raises(FileInvalidError, match="known type"):
        read(path, arm_map())


def test_two_channels_of_one_topic_are_read_together(tmp_path: Path) -> None:
    from mcap.writer import Writer

    arm, text = (
        Arm.moving(20),
        b"std_msgs/Header header\nstring[] name\nfloat64[] position\nfloat64[] velocity\nfloat64[] effort\n",
    )
    text += b"=" * 80 + b"\nMSG: std_msgs/Header\nbuiltin_interfaces/Time stamp\nstring frame_id\n"
    out = io.BytesIO()
    writer = Writer(out)
    writer.start(profile="ros2", library="x")
    schema = writer.register_schema(JOINT_STATE, "ros2msg", text)
    channels = [writer.register_channel("/joint_states", "cdr", schema) for _ in range(2)]
    for row, one in enumerate(arm.said()):
        writer.add_message(channels[row % 2], one.log_ns, one.data, one.log_ns)
    writer.finish()
    (tmp_path / "x.mcap").write_bytes(out.getvalue())
    assert is_arm(only(tmp_path / "x.mcap"), arm)


def test_a_plan_and_a_pointer_are_no_recording(tmp_path: Path) -> None:
    kind = "trajectory_msgs/msg/JointTrajectory"
    plan = Said("/plan", kind, START_NS, TYPES[kind](header(START_NS), list(JOINTS), []))
    path = write_mcap(tmp_path / "plan.mcap", [plan])
    with pytest.raises(NoMeasuredStateError):
        claimed(path).probe(path, None)
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(PointerFileError):
        claimed(path).probe(path, None)


def test_a_type_of_the_owner_is_read_by_the_definition_in_the_file(tmp_path: Path) -> None:
    weld = [
        Said(
            "/weld",
            ACME,
            START_NS + i * PERIOD_NS,
            TYPES[ACME](header(START_NS + i * PERIOD_NS), i / 2, i % 2 == 0, "p"),
        )
        for i in range(50)
    ]
    text = 'signal = [{field = "x_weld", columns = ["/weld:current"], unit = "A", role = "observation"}]\n'
    series = only(write_mcap(tmp_path / "x.mcap", weld), text)
    assert np.array_equal(series.columns["/weld:current"], np.arange(50) / 2)


def test_a_joint_that_speaks_up_late_is_missing_until_then(tmp_path: Path) -> None:
    arm = Arm.moving(400)
    late = [
        Said(
            "/joint_states",
            JOINT_STATE,
            int(s) + 200_000,
            joint_state(int(s), ["finger"], [1.0], [0.0], [0.0]),
        )
        for s in arm.stamps_ns[300:]
    ]
    said = sorted([*arm.said(), *late], key=lambda one: one.log_ns)
    more = '  {field = "gripper_width", columns = ["/joint_states:position.finger"], unit = "m", role = "observation"},\n'
    series = only(write_mcap(tmp_path / "x.mcap", said), arm_map(more=more))
    width = series.columns["/joint_states:position.finger"]
    assert np.isnan(width[:300]).all()
    assert (width[300:] == 1).all()
