# SPDX-License-Identifier: Apache-2.0
"""The container of a bundle: one form, closed names, bounds before anything is read."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Mapping

import pytest

from policies.log import container as reader
from policies.log import zipform as forms
from policies.log.bundle import (
    FILE_BYTES,
    files_of,
    manifest_of,
    pack,
    split_tile,
    tile_name,
    tile_names,
    unpack,
)
from policies.log.bundle import join_tile as join
from policies.log.bundle_writer import BundleWriter
from policies.log.container import Container
from policies.log.errors import BundleError
from tests.auditsim import PoolSim

FILES = {
    "BUNDLE": b"{}",
    "MANIFEST": b"{}",
    "checkpoint": b"note",
    "policy": b"",
    "tile/entries/000.p/3": b"abc",
}


def test_a_bundle_is_a_zip_that_everybody_can_open() -> None:
    with zipfile.ZipFile(io.BytesIO(pack(FILES))) as archive:
        assert {name: archive.read(name) for name in archive.namelist()} == FILES
        assert archive.testzip() is None


def test_the_same_files_give_the_same_bytes_in_any_order() -> None:
    assert pack(FILES) == pack(dict(reversed(FILES.items())))
    assert unpack(pack(FILES)) == FILES


def test_no_byte_of_the_container_can_change() -> None:
    data = pack(FILES)
    for at in range(len(data)):
        for bit in range(8):
            changed = data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]
            with pytest.raises(BundleError):
                unpack(changed)


def test_nothing_can_be_appended_prepended_or_cut() -> None:
    data = pack(FILES)
    for changed in (data + b"x", b"x" + data, data[:-1], data[1:], b"", data + data, data[: len(data) // 2]):
        with pytest.raises(BundleError):
            unpack(changed)


@pytest.mark.parametrize(
    "name",
    [
        "../etc/passwd",
        "/etc/passwd",
        "tile/entries/../../x",
        "contracts/x.json",
        "receipts/01.tlog-proof",
        "receipts/1.tlog-proof/x",
        "keys/node.key",
        "envelopes/1.jsonl",
        "tile/entries/000.p/0",
        "CON",
        "a" * 300,
        "policy\n",
        "statements/" + "A" * 64 + ".json",
        "\x1b[2J",
        "",
    ],
)
def test_a_name_outside_the_layout_is_refused_at_both_ends(name: str) -> None:
    with pytest.raises(BundleError):
        pack(FILES | {name: b""})
    hostile = io.BytesIO()
    with zipfile.ZipFile(hostile, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(name or "x", (1980, 1, 1, 0, 0, 0)), b"")
    with pytest.raises(BundleError):
        unpack(hostile.getvalue())


def test_an_ordinary_zip_of_the_same_files_is_refused() -> None:
    for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        other = io.BytesIO()
        with zipfile.ZipFile(other, "w", method) as archive:
            for name, data in FILES.items():
                archive.writestr(name, data)
        with pytest.raises(BundleError):
            unpack(other.getvalue())
    with pytest.raises(BundleError, match="found a repacked or altered archive: its directory"):
        unpack(pack(FILES) + b"!")


def test_a_bomb_is_refused_without_being_blown_up() -> None:
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy", b"0" * 50_000_000)
    with pytest.raises(BundleError):
        unpack(bomb.getvalue())


def test_a_duplicate_name_is_refused() -> None:
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("policy", b"a")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("policy", b"b")
    with pytest.raises(BundleError):
        unpack(twice.getvalue())


def test_a_header_that_lies_about_its_size_is_refused() -> None:
    data = bytearray(pack(FILES))
    data[22:26] = (2**31).to_bytes(4, "little")
    with pytest.raises(BundleError):
        unpack(bytes(data))


def test_a_file_above_the_bound_is_refused() -> None:
    with pytest.raises(BundleError):
        pack(FILES | {"policy": bytes(FILE_BYTES + 1)})


def test_tile_names_are_those_of_tlog_tiles() -> None:
    assert tile_name(0) == "000"
    assert tile_name(999) == "999"
    assert tile_name(1234067) == "x001/x234/067"
    assert tile_names(0) == {}
    assert tile_names(256) == {"tile/entries/000": (0, 256)}
    assert tile_names(300) == {"tile/entries/000": (0, 256), "tile/entries/001.p/44": (256, 300)}


@pytest.mark.parametrize(
    ("data", "count"),
    [(b"", 1), (b"\x00\x01", 1), (b"\x00\x00", 1), (join([b"a", b"b"]), 1), (join([b"a"]), 2), (b"\x00", 1)],
)
def test_a_tile_that_is_not_framed_exactly_is_refused(data: bytes, count: int) -> None:
    with pytest.raises(BundleError):
        split_tile(data, count)


def test_a_tile_splits_as_it_was_joined() -> None:
    assert split_tile(join([b"a", b"bc"]), 2) == [b"a", b"bc"]


# --- written as a stream, read by offsets ---

LATER = FILES | {
    "BUNDLE": b'{"format":"iriai-bundle/2"}',
    "timestamps/7.tsr": b"token",
    "tile/0/000.p/3": b"x",
}


def opened(data: bytes) -> Container:
    return Container(len(data), lambda start, length: data[start : start + length])


def written(files: Mapping[str, bytes], pieces: int = 0, **options: object) -> bytes:
    """As an exporter writes it: in order, without MANIFEST."""
    made = io.BytesIO()
    writer = BundleWriter(made, **options)  # type: ignore[arg-type]
    for name in sorted(files):
        if name != "MANIFEST" and pieces:
            data = files[name]
            writer.add_pieces(name, (data[at : at + pieces] for at in range(0, len(data), pieces)))
        elif name != "MANIFEST":
            writer.add(name, files[name])
    assert writer.finish() == len(made.getvalue())
    return made.getvalue()


def test_a_stream_has_its_manifest_behind_all_files_and_everybody_can_open_it() -> None:
    data = written(LATER)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert archive.namelist() == [*sorted(set(LATER) - {"MANIFEST"}), "MANIFEST"]
        assert archive.testzip() is None
        assert archive.read("tile/entries/000.p/3") == b"abc"
    container = opened(data)
    assert container.layout == 2
    assert container.get("MANIFEST") == manifest_of(LATER)
    assert unpack(data) == LATER | {"MANIFEST": manifest_of(LATER)}
    assert pack(LATER | {"MANIFEST": manifest_of(LATER)}) == data


def test_whole_or_in_pieces_or_with_notes_on_disk_the_bytes_are_the_same() -> None:
    data = written(LATER)
    assert written(LATER, pieces=1) == written(LATER, pieces=1000) == data
    assert written(LATER, scratch=io.BytesIO()) == data


def test_no_byte_of_the_later_layout_can_change() -> None:
    data = written(LATER)
    for at in range(len(data)):
        changed = data[:at] + bytes([data[at] ^ 1 << at % 8]) + data[at + 1 :]
        with pytest.raises(BundleError):
            unpack(changed)
    for changed in (data + b"x", b"x" + data, data[:-1], data[1:], data[:-22], data + data):
        with pytest.raises(BundleError):
            unpack(changed)


def test_a_writer_refuses_names_out_of_order_twice_and_strange() -> None:
    for names in (["policy", "checkpoint"], ["policy", "policy"], ["MANIFEST", "policy"], ["../x"], ["PK"]):
        *before, last = names
        writer = BundleWriter(io.BytesIO())
        for name in before:
            writer.add(name, b"")
        with pytest.raises(BundleError):
            writer.add(last, b"")


def test_a_second_manifest_is_refused() -> None:
    made = io.BytesIO()
    writer = BundleWriter(made, layout=1)
    for name in ("BUNDLE", "MANIFEST", "policy"):
        writer.add(name, b"{}")
    writer._layout = 2  # an attacker's own writer has no such rule
    writer.finish()
    with pytest.raises(BundleError, match="each name once"):
        opened(made.getvalue())


@pytest.mark.parametrize("layout", [1, 2])
def test_files_are_found_by_name_by_folder_and_by_number(layout: int) -> None:
    names = [f"receipts/{at}.tlog-proof" for at in range(100)] + ["policy", "checkpoint", "timestamps/1.tsr"]
    files = {name: name.encode() for name in [*names, "BUNDLE", "MANIFEST"]}
    made = io.BytesIO()
    writer = BundleWriter(made, layout=layout)
    ordered = sorted(files, key=lambda name: (layout == 2 and name == "MANIFEST", name))
    for name in ordered:
        writer.add(name, files[name])
    writer.finish()
    container = opened(made.getvalue())
    assert (container.count, container.layout, list(container.names())) == (len(files), layout, ordered)
    assert {name: container.get(name) for name in files} == files
    assert list(container.names("receipts/")) == sorted(names[:100])
    assert list(container.names("receipts/9")) == ["receipts/9.tlog-proof"] + [
        f"receipts/9{at}.tlog-proof" for at in range(10)
    ]
    for absent in ("", "A", "receipts/", "receipts/100.tlog-proof", "zzz", "MANIFEST2"):
        assert container.get(absent) is None
    for numbers in (range(0), range(5), range(15, 40), range(len(files) - 1, len(files))):
        assert [one.name for one in container.numbered(numbers)] == ordered[numbers.start : numbers.stop]


def test_more_files_than_an_old_zip_can_count_are_one_form_too() -> None:
    """Zip64: the count does not fit its old field."""
    made = io.BytesIO()
    writer = BundleWriter(made)
    for name in sorted(f"receipts/{at}.tlog-proof" for at in range(65_600)):
        writer.add(name, b"")
    writer.finish()
    data = made.getvalue()
    container = opened(data)
    assert container.count == 65_601
    assert container.get("receipts/65599.tlog-proof") == b""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        assert len(archive.namelist()) == 65_601
    for at in range(len(data) - 98, len(data)):
        with pytest.raises(BundleError):
            opened(data[:at] + bytes([data[at] ^ 16]) + data[at + 1 :])


def test_offsets_beyond_the_old_fields_are_one_form_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rule for offsets is that for the count: here the fields are full at 100 already."""
    monkeypatch.setattr(forms, "_FULL32", 100)
    data = written(LATER)
    assert unpack(data) == LATER | {"MANIFEST": manifest_of(LATER)}
    for at in range(len(data)):
        with pytest.raises(BundleError):
            unpack(data[:at] + bytes([data[at] ^ 32]) + data[at + 1 :])
    monkeypatch.undo()
    with pytest.raises(BundleError):
        unpack(data)


def test_counts_and_sizes_are_refused_before_a_file_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    data, read = written(LATER), list[int]()

    def reading(start: int, length: int) -> bytes:
        read.append(length)
        return data[start : start + length]

    monkeypatch.setattr(reader, "BUNDLE_FILES", 3)
    with pytest.raises(BundleError, match="at most 3 files"):
        Container(len(data), reading)
    assert sum(read) < 200
    monkeypatch.setattr(reader, "BUNDLE_BYTES", 100)
    read.clear()
    with pytest.raises(BundleError, match="at most 100 bytes"):
        Container(len(data), reading)
    assert read == []


def test_a_file_above_the_bound_is_refused_by_writer_and_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    data = written(LATER | {"policy": bytes(300)})
    monkeypatch.setattr(forms, "FILE_BYTES", 299)
    with pytest.raises(BundleError, match="at most 299 bytes"):
        opened(data)
    with pytest.raises(BundleError, match="at most 299 bytes"):
        written(LATER | {"policy": bytes(300)}, pieces=7)


def test_what_only_streams_may_be_larger_than_other_files(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forms, "FILE_BYTES", 299)
    data = written(LATER | {"checkpoints.log": bytes(1000)}, pieces=100)
    assert opened(data).get("checkpoints.log") == bytes(1000)


def test_a_small_log_has_the_tiles_of_the_specification() -> None:
    sim = PoolSim()
    sim.begin()
    files = files_of(sim.contents(version=2))
    assert [name for name in files if name.startswith("tile/")] == [
        f"tile/entries/000.p/{len(sim.bodies)}",
        f"tile/0/000.p/{len(sim.bodies)}",
    ]
    assert files[f"tile/0/000.p/{len(sim.bodies)}"][:32] == sim.tree.leaf(0)
