# SPDX-License-Identifier: Apache-2.0
"""The container of a bundle: one form, closed names, bounds before anything is read."""

from __future__ import annotations

import io
import zipfile

import pytest

from policies.log.bundle import FILE_BYTES, pack, split_tile, tile_name, tile_names, unpack
from policies.log.bundle import join_tile as join
from policies.log.errors import BundleError

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
