# SPDX-License-Identifier: Apache-2.0
"""A recording that somebody else made is refused by name: no bomb fills the memory, no name writes the map,
no link leads out of the folder, no library's error reaches the owner.

Each source is looked at (`data inspect`) and imported in one child process whose address space ends 1.2 GB
above what it has after its imports, so that a bomb fails in seconds instead of taking the machine along.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sqlite3
import struct
import traceback
import zlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard

from client.data.errors import FileInvalidError, MapInvalidError
from client.data.heads import head_of
from client.data.importing import import_path
from client.data.mapnames import is_plain, quoted
from client.data.proposing import propose
from client.data.readers import claimed
from client.data.readers.foreign import Foreign, parsing
from client.data.series import Probe
from client.data.signalmap import canonical_map, parse_map
from client.data.store import Store
from policies.errors import IriaiError
from policies.recipe import FIELD_NAMES
from tests.bagsim import Arm, arm_map, write_db3, write_mcap
from tests.datasim import KEY, RIGHTS, Recording, SimClock, tree, write_v3

if TYPE_CHECKING:
    from collections.abc import Callable

ROOM = 1_200 * 1024**2
SECONDS = 30
JOINTS = [f"q{i}" for i in range(6)]
SIGNAL = 'signal = [{field = "joint_pos", columns = ["q{0..5}"], unit = "rad", role = "observation"}]\n'
RATE = "clock = {rate_hz = 50}\n"
CYCLES = 'segment = {by = "column", column = "c"}\n'
XML_MAP = 'signal = [{field = "payload_mass", columns = ["x"], unit = "kg", role = "observation"}]\n'
H5_MAP = (
    'signal = [{field = "tcp_pos", columns = ["obs/tcp_pos_{0..2}"], unit = "m", role = "observation"}]\n'
)


def bring(source: Path, text: str | None) -> None:
    """Looks at a source and imports it."""
    place = source.parent / "map.toml"
    if text is not None:
        place.write_text(text)
    probe = claimed(source).probe(source, None)
    propose(probe, head_of(source) if probe.reader == "table" else None)
    import_path(
        source.parent / "store",
        source,
        dataset="kita/pick",
        signal_map=None if text is None else place,
        allow=FIELD_NAMES | {"outcome", "ok"},
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )


def outcome(source: Path, text: str | None) -> str:
    """What became of it in a child of bounded memory: ``taken``, a refusal's code and words, or a traceback."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGE_SIZE")
        resource.setrlimit(resource.RLIMIT_AS, (used + ROOM, used + ROOM))
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
        said = "taken"
        try:
            bring(source, text)
        except IriaiError as error:
            said = f"{error.code}: {error.need}; {error.found}"
        except BaseException:  # noqa: BLE001  whatever it is, the parent shows it
            said = traceback.format_exc()
        os.write(writing, said.encode()[-8_000:])
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        said = pipe.read().decode()
    _, status = os.waitpid(child, 0)
    return said if status == 0 else f"ended by {status}"


# --- bombs ---------------------------------------------------------------------------------------------------


def info(root: Path, change: Callable[[dict[str, Any]], None]) -> Path:
    write_v3(root, Recording.random(30, 40))
    path = root / "meta" / "info.json"
    told = json.loads(path.read_text())
    change(told)
    path.write_text(json.dumps(told))
    return root


def many_channels(at: Path) -> Path:
    wide = {f"f{i}": {"dtype": "float32", "shape": [500], "names": None} for i in range(20_000)}
    return info(at / "lr", lambda told: told["features"].update(wide))


def many_episodes(at: Path) -> Path:
    root = write_v3(at / "lr", Recording.random(30))
    file = next((root / "meta/episodes").glob("*/*.parquet"))
    columns = ("episode_index", "length", "data/chunk_index", "data/file_index")
    names = (*columns, "dataset_from_index", "dataset_to_index")
    rows = pa.table({one: np.zeros(1_000_000, np.int64) for one in names})
    with pq.ParquetWriter(file, rows.schema, compression="zstd") as writer:
        for _ in range(20):
            writer.write_table(rows)
    return root


def long_lists(at: Path) -> Path:
    """A few kilobytes that say 4,000 rows of 500,000 equal numbers."""
    root = write_v3(at / "lr", Recording.random(4_000))
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    numbers = pa.array(np.zeros(500_000, np.float32))
    one = pa.ListArray.from_arrays(pa.array([0, len(numbers)], pa.int32()), numbers)
    place = table.column_names.index("action")
    with pq.ParquetWriter(file, table.set_column(place, "action", _short(len(table))).schema) as writer:
        for first in range(40):
            rows = table.slice(first, 1)
            writer.write_table(rows.set_column(place, "action", one))
    return root


def _short(rows: int) -> pa.Array:
    return pa.array([[0.0]] * rows, pa.list_(pa.float32()))


def empty_rows(at: Path) -> Path:
    schema = pa.schema([(one, pa.float64()) for one in JOINTS])
    rows = pa.table({one: pa.nulls(2_000_000, pa.float64()) for one in JOINTS}, schema=schema)
    with pq.ParquetWriter(at / "a.parquet", schema, compression="zstd") as writer:
        for _ in range(2):
            writer.write_table(rows)
    return at / "a.parquet"


def words(at: Path, length: int, rows: int, *, coded: bool) -> Path:
    text = pa.DictionaryArray.from_arrays(pa.array(np.zeros(rows, np.int32)), pa.array(["x" * length]))
    table = pa.table(
        {**{one: np.zeros(rows) for one in JOINTS}, "c": text if coded else text.cast(pa.string())}
    )
    pq.write_table(table, at / "a.parquet", compression="zstd", store_schema=False, use_dictionary=coded)
    return at / "a.parquet"


def record(opcode: int, body: bytes) -> bytes:
    return struct.pack("<BQ", opcode, len(body)) + body


def text(word: str) -> bytes:
    return struct.pack("<I", len(word)) + word.encode()


def late_messages(at: Path) -> Path:
    """Chunks that begin at 0 and hold late messages of a topic that nobody asked for: all of them wait."""
    message = record(5, struct.pack("<HIQQ", 999, 0, 2**62, 0))
    data = message * 40_000
    packed = zstandard.ZstdCompressor(level=1).compress(data)
    head = struct.pack("<QQQI", 0, 2**62, len(data), zlib.crc32(data)) + text("zstd")
    chunk = record(6, head + struct.pack("<Q", len(packed)) + packed)
    write_mcap(at / "good.mcap", Arm.moving(60).said())
    good = (at / "good.mcap").read_bytes()
    (at / "good.mcap").unlink()
    end = next(place for place in range(8, len(good)) if good.startswith(b"\x0f\x04\0\0\0\0\0\0\0", place))
    noise = record(4, struct.pack("<HH", 999, 0) + text("/noise") + text("json") + struct.pack("<I", 0))
    tail = record(15, struct.pack("<I", 0)) + record(2, struct.pack("<QQI", 0, 0, 0)) + good[:8]
    (at / "a.mcap").write_bytes(good[:end] + noise + chunk * 12 + tail)
    return at / "a.mcap"


def cdr_bag(at: Path, definition: str, body: bytes, count: int = 2) -> Path:
    from mcap.writer import Writer

    with (at / "a.mcap").open("wb") as file:
        writer = Writer(file)
        writer.start()
        schema = writer.register_schema("a/msg/B", "ros2msg", definition.encode())
        channel = writer.register_channel("/a", "cdr", schema)
        for i in range(count):
            data = b"\0\1\0\0" + body
            writer.add_message(channel, log_time=10**18 + i * 10**7, publish_time=0, data=data, sequence=i)
        writer.finish()
    return at / "a.mcap"


EMPTY = "float64 v\na/E[4000000] e\n" + "=" * 80 + "\nMSG: a/E\n"
CDR_MAP = 'signal = [{field = "payload_mass", columns = ["/a:v"], unit = "kg", role = "observation"}]\n'


def demo(at: Path, change: Callable[[h5py.File, h5py.Group], None]) -> Path:
    with h5py.File(at / "a.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["env_args"] = json.dumps({"env_name": "pick", "env_kwargs": {"control_freq": 20.0}})
        group = data.create_group("demo_0")
        group.attrs["num_samples"] = 30
        group.create_group("obs")["tcp_pos"] = np.random.default_rng(0).standard_normal((30, 3))
        group["actions"] = np.zeros((30, 4))
        change(file, group)
    return at / "a.hdf5"


def long_mask(file: h5py.File, _: h5py.Group) -> None:
    mask = file.create_group("mask")
    mask.create_dataset("train", shape=(900_000,), dtype="S60000", chunks=(1000,), compression="gzip")


def wide_attribute(file: h5py.File, _: h5py.Group) -> None:
    file["data"].attrs["total"] = np.zeros(8_000)


def answer(at: Path, body: str, *, following: str = "11", head: str = "") -> Path:
    header = f'<Header instanceId="1" creationTime="2026-01-01T00:00:00Z" firstSequence="1" nextSequence="{following}"/>'
    stream = (
        f'<DeviceStream><ComponentStream name="X"><Samples>{body}</Samples></ComponentStream></DeviceStream>'
    )
    whole = f"{head}<MTConnectStreams>{header}<Streams>{stream}</Streams></MTConnectStreams>"
    (at / "a.xml").write_text(whole)
    return at / "a.xml"


def observed(value: str, sequence: int = 1) -> str:
    stamp = f"2026-01-01T00:00:00.{sequence:03d}Z"
    return f'<Position dataItemId="x" sequence="{sequence}" timestamp="{stamp}">{value}</Position>'


BOMBS: dict[str, tuple[Callable[[Path], Path], str | None, str]] = {
    "channels": (many_channels, None, "channels"),
    "episodes": (many_episodes, None, "episodes"),
    "lists": (long_lists, None, "numbers per frame"),
    "empty rows": (empty_rows, RATE + SIGNAL, "rows without a value"),
    "coded words": (lambda at: words(at, 200_000, 200_000, coded=True), RATE + CYCLES + SIGNAL, "cells of"),
    "plain words": (lambda at: words(at, 50_000, 6_000, coded=False), RATE + CYCLES + SIGNAL, "words of"),
    "empty structures": (
        lambda at: cdr_bag(at, EMPTY, struct.pack("<d", 1.0) + bytes(4_000_000)),
        CDR_MAP,
        "parts",
    ),
    "long strings": (
        lambda at: cdr_bag(
            at, "float64 v\nstring s\n", struct.pack("<dI", 1.0, 8_000_000) + bytes(8_000_000), 8
        ),
        CDR_MAP,
        "strings of more",
    ),
    "mask": (lambda at: demo(at, long_mask), H5_MAP, "names of at most"),
    "attribute": (lambda at: demo(at, wide_attribute), H5_MAP, "one value"),
    "one huge value": (lambda at: answer(at, observed("1" * 30_000_000)), XML_MAP, "one value"),
    "one huge tag": (
        lambda at: answer(at, observed("1").replace("<Position", "<Position a='" + "1" * 20_000_000 + "'")),
        XML_MAP,
        "tags and comments",
    ),
}


@pytest.mark.parametrize("bomb", BOMBS)
def test_a_bomb_is_refused_by_name_before_it_unpacks(tmp_path: Path, bomb: str):
    make, text, said = BOMBS[bomb]
    told = outcome(make(tmp_path), text)
    assert told.startswith("data."), told
    assert said in told


def test_messages_that_nobody_asked_for_are_counted_while_they_wait(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """80 kB that unpack to half a million messages without a byte; the bound is lower here, to be quick."""
    monkeypatch.setattr("client.data.readers.mcap.BAG_HELD_BYTES", 16 * 1024**2)
    told = outcome(late_messages(tmp_path), arm_map())
    assert told.startswith("data.too-large: chunks that overlap in time"), told


def test_a_feature_of_many_numbers_is_no_channel_and_does_no_harm(tmp_path: Path):
    """60 million numbers per frame in 60 bytes of info.json: left alone and counted, as an image is."""
    wide = {"dtype": "float32", "shape": [60_000_000], "names": None}
    root = info(tmp_path / "lr", lambda told: told["features"].update(x=wide))
    assert outcome(root, None) == "taken"


# --- XML that is more than it seems ---------------------------------------------------------------------------

LAUGHS = "".join(f'<!ENTITY l{i} "{f"&l{i - 1};" * 10}">' for i in range(1, 10))
DOCTYPES = {
    "laughs": f'<!DOCTYPE x [<!ENTITY l0 "ha">{LAUGHS}]>',
    "file": '<!DOCTYPE x [<!ENTITY l9 SYSTEM "file:///etc/passwd">]>',
    "parameter": '<!DOCTYPE x [<!ENTITY % p SYSTEM "file:///etc/passwd"> %p; <!ENTITY l9 "1">]>',
    "elsewhere": '<!DOCTYPE x SYSTEM "http://127.0.0.1:9/x.dtd">',
}


@pytest.mark.parametrize("kind", DOCTYPES)
def test_a_document_type_is_refused_and_nothing_of_it_is_expanded(tmp_path: Path, kind: str):
    told = outcome(answer(tmp_path, observed("&l9;"), head=DOCTYPES[kind]), XML_MAP)
    assert told.startswith("data.file-invalid: an answer without a document type")


def test_an_entity_that_nobody_declared_is_refused(tmp_path: Path):
    assert outcome(answer(tmp_path, observed("&l9;")), XML_MAP).startswith(
        "data.file-invalid: well-formed XML"
    )


# --- names ----------------------------------------------------------------------------------------------------

NAMES = {
    "line": "joint_pos_0\nkeep_private = true",
    "quote": 'joint_pos_0"], unit = "deg", role = "observation"}]\nsource = {kind = "deployed"}\nx = ["',
    "escape": "joint_pos_0\\",
    "single quote": "joint_pos_0'",
    "range": "joint_pos{0..511}",
    "return": "joint_pos_0\rtask = 'x'",
    "separator": "joint_pos_0\u2028task",
    "escape sequence": "joint_pos_0\x1b[2J",
    "long": "joint_pos_" + "1" * 5_000,
}


@pytest.mark.parametrize("kind", NAMES)
def test_a_name_never_writes_a_key_of_the_map(kind: str):
    """What any reader may hand on, by each of the three ways into a map."""
    name = NAMES[kind]
    assert not is_plain(name)
    with pytest.raises(MapInvalidError):
        quoted(name)
    others = [f"joint_pos_{i}" for i in range(6)]
    for reader in ("table", "lerobot", "robomimic", "mtconnect", "rosbag"):
        text = propose(Probe(reader=reader, version="1", channels=(name, *others)), None).text
        assert text is not None
        lines = [line for line in text.splitlines() if not line.startswith("#")]
        assert not any(
            word in line for line in lines for word in ("keep_private", "source", "task", "\x1b", "0..511")
        )
        assert any(line.startswith("# not mapped") for line in text.splitlines())
    with pytest.raises(MapInvalidError, match=r"data\.map-invalid|channel|names"):
        canonical_map({f"a{name}.tcp_pos_{i}": f"tcp_pos_{i}" for i in range(3)})
    with pytest.raises(MapInvalidError):
        canonical_map({**{f"tcp_pos_{i}": f"tcp_pos_{i}" for i in range(3)}, f"label.{name}": name})


def test_a_feature_of_a_foreign_folder_does_not_say_which_robot_it_is(tmp_path: Path):
    name = 'label.a", values = {"1" = true}, optional = true}]\nembodiment = {class = "7r-arm", dof = 7}\nx = [ #'
    feature = {"dtype": "int8", "shape": [1], "names": None}
    root = info(tmp_path / "lr", lambda told: told["features"].update({name: feature}))
    assert outcome(root, None).startswith("data.map-invalid")
    assert (
        not (tmp_path / "store" / "datasets").exists() or Store(tmp_path / "store").catalogue().datasets == ()
    )


@pytest.mark.parametrize("kind", ["csv", "parquet", "hdf5", "xml", "mcap"])
def test_the_proposal_for_a_foreign_file_has_no_line_of_its_author(tmp_path: Path, kind: str):
    bad = 'speed" \\ x\nkeep_private = true'
    path = tmp_path / f"a.{kind}"
    if kind == "csv":
        path.write_text("time,q0,q1,q2,q3,q4,q5,'a\"b,\x1b]0;x\x07\n" + "1,1,1,1,1,1,1,1,1\n" * 3)
    elif kind == "parquet":
        pq.write_table(pa.table({**{one: [1.0, 2.0] for one in JOINTS}, bad: [1.0, 2.0]}), path)
    elif kind == "hdf5":
        demo(tmp_path, lambda _, group: group["obs"].create_dataset(bad, data=np.zeros((30, 2))))
    elif kind == "xml":
        answer(tmp_path, observed("1") + observed("1", 2).replace('"x"', "'a&#10;keep_private = true&quot;'"))
    else:
        said = [one._replace(topic="/joint" + bad) for one in Arm.moving(20).said()]
        write_mcap(path, said)
    probe = claimed(path).probe(path, None)
    text = propose(probe, head_of(path) if probe.reader == "table" else None).text or ""
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert not any("keep_private" in line or "\x1b" in line for line in lines)
    assert all(line.isprintable() for line in text.splitlines())


def test_names_as_people_write_them_still_stand_in_a_map():
    for name in (
        "observation.state.tcp_pos_0",
        "/joint_states:position.elbow_joint",
        "Kraft (N) °",
        "関節_1",
    ):
        assert is_plain(name)
        found = parse_map(
            f'signal = [{{field = "x_a", columns = [{quoted(name)}], unit = "1", role = "observation"}}]'.encode()
        )
        assert found.number_columns == (name,)


# --- what libraries raise -------------------------------------------------------------------------------------


def bag(at: Path, *statements: str, yaml: str | None = None) -> Path:
    folder = at / "bag"
    write_db3(folder, Arm.moving(60).said())
    with sqlite3.connect(next(folder.glob("*.db3"))) as connection:
        for one in statements:
            connection.execute(one)
    connection.close()
    if yaml is not None:
        (folder / "metadata.yaml").write_text(yaml)
    return folder


def dangling(at: Path) -> Path:
    root = write_v3(at / "lr", Recording.random(30))
    (root / "data/x.parquet").symlink_to(root / "data/nothing.parquet")
    return root


def deep_json(at: Path) -> Path:
    root = write_v3(at / "lr", Recording.random(30))
    (root / "meta/info.json").write_text('{"a":' + "[" * 200_000 + "]" * 200_000 + "}")
    return root


def large_index(at: Path) -> Path:
    root = write_v3(at / "lr", Recording.random(30))
    file = root / "data/chunk-000/file-000.parquet"
    table = pq.read_table(file)
    huge = pa.array(np.full(len(table), 2**63 + 5, dtype=np.uint64))
    pq.write_table(table.set_column(table.column_names.index("task_index"), "task_index", huge), file)
    return root


def secret_clock(at: Path) -> Path:
    (at / "a.csv").write_text("t," + ",".join(JOINTS) + "\n" + "1,1,1,1,1,1,1\n" * 9)
    return at / "a.csv"


def stamps(at: Path, values: pa.Array) -> Path:
    pq.write_table(
        pa.table({**{one: np.zeros(len(values)) for one in JOINTS}, "t": values}), at / "a.parquet"
    )
    return at / "a.parquet"


SEP = "=" * 80 + "\nMSG: "
OWN_HEADER = (
    f"std_msgs/Header header\nfloat64 v\n{SEP}std_msgs/Header\nbuiltin_interfaces/Time stamp\n"
    f"{SEP}builtin_interfaces/Time\nint32 sec\n"
)
TWICE = (
    "ALTER TABLE topics RENAME TO t0",
    "CREATE TABLE topics AS SELECT id, name, type, serialization_format FROM t0",
    "INSERT INTO topics SELECT id, NULL, type, serialization_format FROM t0",
)
NS = 'clock = {column = "t", unit = "ns", kind = "host"}\n'
COUNT = 'clock = {column = "t", unit = "count", rate_hz = 50}\n'
CASES: dict[str, tuple[Callable[[Path], Path], str | None]] = {
    **{
        f"yaml {one}": (lambda at, one=one: bag(at, yaml=f"a: {one}"), arm_map())
        for one in ("!!bool maybe", "!!timestamp foo", '!!int ""', '!!float ""', "!!binary é")
    },
    "long file name": (
        lambda at: bag(
            at, yaml="rosbag2_bagfile_information: {relative_file_paths: [" + "f" * 5_000 + ".db3]}"
        ),
        arm_map(),
    ),
    "dtype is a list": (
        lambda at: info(at / "lr", lambda told: told["features"]["action"].update(dtype=["video"])),
        None,
    ),
    "deep JSON": (deep_json, None),
    "NUL in data_path": (
        lambda at: info(at / "lr", lambda told: told.update(data_path="data/a\0b.parquet")),
        None,
    ),
    "long data_path": (lambda at: info(at / "lr", lambda told: told.update(data_path="f" * 5_000)), None),
    "dangling link": (dangling, None),
    "task_index of 2^63": (large_index, None),
    "a rate of nothing": (lambda at: info(at / "lr", lambda told: told.update(fps=1e-9)), None),
    "nextSequence 10^30": (lambda at: answer(at, observed("1"), following="1" + "0" * 30), XML_MAP),
    "nextSequence of 5,000 digits": (lambda at: answer(at, observed("1"), following="9" * 5_000), XML_MAP),
    "clock that is secret": (secret_clock, 'secret = ["t"]\n' + NS + SIGNAL),
    "stamps beyond 64 bits": (lambda at: stamps(at, pa.array([2**62] * 9, pa.timestamp("us"))), NS + SIGNAL),
    "row counter of 1e300": (lambda at: stamps(at, pa.array([1e300] * 9)), COUNT + SIGNAL),
    "deep env_args": (
        lambda at: demo(at, lambda file, _: file["data"].attrs.__setitem__("env_args", "[" * 60_000)),
        H5_MAP,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_a_library_raises_is_a_refusal(tmp_path: Path, case: str):
    make, text = CASES[case]
    told = outcome(make(tmp_path), text)
    assert told.startswith("data."), told


def test_odd_bags_are_read_without_what_is_odd(tmp_path: Path):
    """Two topics of one id, one without a name; a header of their own that has no nanoseconds."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    body = struct.pack("<iI", 5, 1) + bytes(4) + struct.pack("<d", 1.5)
    for source, text in (
        (bag(tmp_path / "a", *TWICE), arm_map()),
        (cdr_bag(tmp_path / "b", OWN_HEADER, body, 40), CDR_MAP),
    ):
        assert "Traceback" not in outcome(source, text)


class _Broken:
    """A reader that fails in its own way."""

    name = "table"

    def __init__(self, error: Exception) -> None:
        self.error = error

    def claims(self, path: Path) -> bool:
        raise self.error

    probe = read = claims


@pytest.mark.parametrize(
    "error",
    [
        ValueError("x"),
        KeyError("x"),
        OverflowError("x"),
        RecursionError("x"),
        MemoryError("x"),
        struct.error("x"),
        pa.ArrowNotImplementedError("x"),
        StopIteration(),
        OSError(36, "File name too long"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_any_error_of_a_reader_names_the_source_and_its_kind(tmp_path: Path, error: Exception):
    with pytest.raises(FileInvalidError) as refused:
        Foreign(_Broken(error)).claims(tmp_path / "a\x1b.csv")  # type: ignore[arg-type]
    assert refused.value.found == f"a\\x1b.csv: {type(error).__name__} while reading"
    assert refused.value.__cause__ is error


def test_errors_of_our_own_code_are_not_hidden(tmp_path: Path):
    """What the importer does with a series, or when it is told of a note, is no fault of the file."""
    source = tmp_path / "a.csv"
    source.write_text(",".join(JOINTS) + "\n" + "1,1,1,1,1,1\n" * 60)
    signals = parse_map((RATE + SIGNAL).encode())
    reader = claimed(source)
    probe = reader.probe(source, signals)

    def note(code: str, count: int) -> None:
        raise KeyError("ours")

    with pytest.raises(KeyError, match="ours"):
        list(reader.read(source, probe, signals, note))
    found = reader.read(source, probe, signals, lambda *_: None)
    next(found)
    with pytest.raises(ZeroDivisionError):
        found.throw(ZeroDivisionError)  # type: ignore[attr-defined]  # as one raised in a `with` around it
    with pytest.raises(MapInvalidError), parsing(source):
        raise MapInvalidError(need="a", found="b", remedy="c")


def test_a_damaged_footer_ends_no_process(tmp_path: Path):
    """One byte of each place, one after another: the library's own look at a column would abort some."""
    file = stamps(tmp_path, pa.array(np.arange(9.0)))
    whole = file.read_bytes()
    length = int.from_bytes(whole[-8:-4], "little")
    pid = os.fork()
    if pid == 0:
        for at in range(len(whole) - 8 - length, len(whole) - 4, 7):
            damaged = bytearray(whole)
            damaged[at] ^= 0x15
            file.write_bytes(damaged)
            try:
                probe = claimed(file).probe(file, None)
                propose(probe, head_of(file))
            except IriaiError:
                pass
            except BaseException:  # noqa: BLE001  the parent sees the status
                os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0


# --- links ----------------------------------------------------------------------------------------------------


def log(path: Path, *, seed: int = 0) -> Path:
    rows = np.random.default_rng(seed).standard_normal((50, 6))
    path.write_text(",".join(JOINTS) + "\n" + "".join(",".join(map(str, row)) + "\n" for row in rows))
    return path


def test_a_link_out_of_the_folder_is_refused_by_its_name_and_nothing_is_stored(tmp_path: Path):
    (tmp_path / "src").mkdir()
    log(tmp_path / "others.csv")
    log(tmp_path / "src" / "a.csv", seed=1)
    (tmp_path / "src" / "b.csv").symlink_to(tmp_path / "others.csv")
    told = outcome(tmp_path / "src", RATE + SIGNAL)
    assert told.startswith("data.file-invalid")
    assert "b.csv: a link that leads out" in told
    assert not tree(tmp_path / "store") if (tmp_path / "store").exists() else True


@pytest.mark.parametrize("what", ["data/chunk-000/file-000.parquet", "data", "meta/episodes"])
def test_a_lerobot_folder_does_not_reach_outside_itself(tmp_path: Path, what: str):
    root = write_v3(tmp_path / "lr", Recording.random(30))
    shutil.move(root / what, tmp_path / "away")
    (root / what).symlink_to(tmp_path / "away")
    told = outcome(root, None)
    assert told.startswith("data.file-invalid")
    assert what in told


def test_a_link_to_the_source_and_links_within_it_are_followed(tmp_path: Path):
    """The owner named the first; the second show nothing that the folder does not have."""
    (tmp_path / "deep").mkdir()
    root = write_v3(tmp_path / "deep" / "lr", Recording.random(30))
    file = root / "data/chunk-000/file-000.parquet"
    (root / "kept").mkdir()
    file.rename(root / "kept" / "a.parquet")
    file.symlink_to(root / "kept" / "a.parquet")
    (tmp_path / "link").symlink_to(root)
    assert outcome(tmp_path / "link", None) == "taken"
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "link.csv").symlink_to(log(tmp_path / "deep" / "a.csv"))
    assert outcome(tmp_path / "other" / "link.csv", RATE + SIGNAL) == "taken"


def test_a_log_beside_a_bag_is_no_link(tmp_path: Path):
    file = next(bag(tmp_path).glob("*.db3"))
    (tmp_path / "other").write_bytes(b"x" * 100)
    Path(f"{file}-wal").symlink_to(tmp_path / "other")
    told = outcome(file, arm_map())
    assert told.startswith("data.file-invalid")
    assert "-wal: a link" in told
