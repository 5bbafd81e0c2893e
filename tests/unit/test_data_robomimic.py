# SPDX-License-Identifier: Apache-2.0
"""robomimic files, as tests write them: order, splits and values come out as they went in; what leaves the file is refused."""

from __future__ import annotations

import contextlib
import json
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest

from client.data.errors import (
    CellInvalidError,
    DataError,
    FileInvalidError,
    IndexMismatchError,
    MapInvalidError,
    MissingColumnError,
    NoEpisodesError,
    NotFiniteError,
    PointerFileError,
    TooLargeError,
)
from client.data.readers import claimed
from client.data.store import Store
from tests.datasim import both, bring, tree

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

MAP = """
signal = [{field = "tcp_pos", columns = ["obs/eef_{0..2}"], unit = "m", role = "observation"},
          {field = "gripper_width", columns = ["obs/grip_0"], unit = "m", role = "observation"},
          {field = "tcp_pose_delta", columns = ["actions_{0..2}"], unit = "m", role = "action"}]
label  = [{field = "outcome", column = "rewards_0", values = {"1" = true, "0" = false}}]
"""
ALLOW = frozenset({"tcp_pos", "gripper_width", "tcp_pose_delta", "outcome"})
LENGTHS = (4, 6, 5, 3, 7, 5, 4, 6, 5, 3, 8, 4)  # twelve demos: demo_10 comes after demo_9


def write(path: Path, lengths: tuple[int, ...] = LENGTHS, **attributes: Any) -> Path:
    """Demo i holds i + 0.001 * row, so that every value says where it came from."""
    with h5py.File(path, "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(lengths)
        data.attrs["env_args"] = json.dumps({"env_name": "PickPlaceCan", "env_kwargs": {"control_freq": 20}})
        for i, length in enumerate(lengths):
            demo = data.create_group(f"demo_{i}")
            demo.attrs["num_samples"] = length
            ramp = i + np.arange(length) / 1000
            demo["actions"] = np.column_stack([ramp, -ramp, ramp * 2, ramp * 0]).astype(np.float64)
            demo["rewards"] = (np.arange(length) == length - 1).astype(np.float32)
            demo["obs/eef"] = np.column_stack([ramp + 1, ramp + 2, ramp + 3]).astype(np.float32)
            demo["obs/grip"] = ramp.astype(np.float32)
            demo["obs/wrist_image"] = np.zeros((length, 4, 4, 3), dtype=np.uint8)
        data.attrs.update(attributes)
    return path


def split(path: Path, name: str, *numbers: int) -> None:
    with h5py.File(path, "a") as file:
        file[f"mask/{name}"] = np.array([f"demo_{n}".encode() for n in numbers])


def mapped(tmp_path: Path, text: str = MAP) -> Path:
    path = tmp_path / "map.toml"
    path.write_text(text)
    return path


def bring_in(tmp_path: Path, source: Path, text: str = MAP, **changes: Any):
    return bring(tmp_path / "s", source, **({"signal_map": mapped(tmp_path, text), "allow": ALLOW} | changes))


def test_demos_come_in_the_order_of_their_numbers_and_bit_for_bit(tmp_path: Path) -> None:
    report = bring_in(tmp_path, write(tmp_path / "a.hdf5"))
    assert (report.episodes_added, report.frames_added) == (12, sum(LENGTHS))
    assert {f.code: f.count for f in report.findings}["keys-not-read"] == 1
    metas = [e.meta for e in Store(tmp_path / "s").episodes("kita/pick")]
    assert [m.length for m in metas] == list(LENGTHS)
    assert [m.first_row for m in metas] == [0, *np.cumsum(LENGTHS)[:-1].tolist()]
    assert {(m.clock, m.start_ns, m.task, m.outcome) for m in metas} == {
        ("derived", None, "pickplacecan", "success")
    }
    for episode in both(tmp_path / "s", ALLOW - {"outcome"}):
        i = round(float(episode.fields["gripper_width"][0, 0]))
        ramp = i + np.arange(episode.length) / 1000
        np.testing.assert_array_equal(
            episode.fields["tcp_pos"], np.column_stack([ramp + 1, ramp + 2, ramp + 3]).astype(np.float32)
        )
        np.testing.assert_array_equal(
            episode.fields["tcp_pose_delta"], np.column_stack([ramp, -ramp, ramp * 2]).astype(np.float32)
        )


def test_importing_twice_adds_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "a.h5")
    bring_in(tmp_path, source)
    before = tree(tmp_path / "s")
    again = bring_in(tmp_path, source)
    assert (again.episodes_added, again.duplicates) == (0, 12)
    assert tree(tmp_path / "s") == before


def test_masks_declare_the_split_and_other_masks_say_nothing(tmp_path: Path) -> None:
    source = write(tmp_path / "a.hdf5")
    split(source, "train", *range(9))
    split(source, "valid", 9, 10, 11)
    split(source, "20_percent", 0, 9)
    bring_in(tmp_path, source)
    splits = [e.meta.split for e in Store(tmp_path / "s").episodes("kita/pick")]
    assert splits == ["train"] * 9 + ["held-out"] * 3


def test_the_rate_of_the_map_rules_and_without_any_the_map_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.hdf5", (4, 4))
    assert claimed(source).probe(source, None).rate_hz == 20
    bring_in(tmp_path, source, "clock = {rate_hz = 50}\n" + MAP)
    assert Store(tmp_path / "s").catalogue().dataset("kita/pick").rate_hz.startswith("50")
    bare = write(tmp_path / "b.hdf5", (4, 4), env_args="{}")
    with pytest.raises(MapInvalidError, match="rate_hz"):
        bring_in(tmp_path, bare)


def test_canonical_keys_need_no_map(tmp_path: Path) -> None:
    source = write(tmp_path / "a.hdf5", (4, 5))
    with h5py.File(source, "a") as file:
        for demo in file["data"].values():
            demo.move("obs/eef", "obs/tcp_pos")
    report = bring(tmp_path / "s", source, allow=ALLOW)
    assert report.fields == ("tcp_pos",)


def test_probe_names_channels_rows_and_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.hdf5", (4, 5))
    probe = claimed(source).probe(source, None)
    assert probe.channels == (
        *(f"actions_{i}" for i in range(4)),
        "rewards_0",
        *(f"obs/eef_{i}" for i in range(3)),
        "obs/grip_0",
    )
    assert (probe.rows, probe.bytes) == (9, source.stat().st_size)


def edit(change: Callable[[h5py.File], None]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        with h5py.File(path, "a") as file:
            change(file)

    return damage


def replaced(key: str, values: Any) -> Callable[[Path], None]:
    def change(file: h5py.File) -> None:
        del file[key]
        file[key] = values

    return edit(change)


def linked(key: str, link: Callable[[Path], Any]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        other = write(path.with_name("other.hdf5"), (4, 5, 6))
        with h5py.File(path, "a") as file:
            if key in file:
                del file[key]
            file[key] = link(other)

    return damage


def virtual(path: Path) -> None:
    other = write(path.with_name("other.hdf5"), (4, 5, 6))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/eef"]
        layout = h5py.VirtualLayout(shape=(4, 3), dtype="f4")
        layout[:] = h5py.VirtualSource(other, "data/demo_0/obs/eef", shape=(4, 3))
        file["data/demo_0/obs"].create_virtual_dataset("eef", layout)


def external_storage(path: Path) -> None:
    secret = path.with_name("secret.bin")
    secret.write_bytes(bytes(4 * 3 * 4))
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/eef"]
        file["data/demo_0/obs"].create_dataset("eef", (4, 3), "f4", external=[(str(secret), 0, 48)])


def big_chunk(path: Path) -> None:
    with h5py.File(path, "a") as file:
        del file["data/demo_0/obs/eef"]
        array = file["data/demo_0/obs"].create_dataset(
            "eef", (4, 3), "f4", chunks=(6_000_000, 3), maxshape=(None, 3), compression="gzip"
        )
        array[0, 0] = 1


def empty_claim(path: Path) -> None:
    """200,000 rows of 512 numbers that nobody ever wrote: a small file that unpacks to 820 MB."""
    with h5py.File(path, "a") as file:
        demo = file["data/demo_0"]
        for key in ("obs/eef", "obs/grip", "actions", "rewards"):
            del demo[key]
            demo.create_dataset(key, (200_000, 512), "f4", chunks=(1000, 512), compression="gzip")
        demo.attrs["num_samples"] = 200_000
        file["data"].attrs["total"] = 200_011


def nan(path: Path) -> None:
    values = np.ones((4, 3), dtype=np.float32)
    values[2, 1] = np.nan
    replaced("data/demo_0/obs/eef", values)(path)


DAMAGES: list[tuple[str, Callable[[Path], None], type[DataError]]] = [
    (
        "external group",
        linked("data/demo_1", lambda o: h5py.ExternalLink(str(o), "/data/demo_1")),
        FileInvalidError,
    ),
    (
        "external array",
        linked("data/demo_0/obs/eef", lambda o: h5py.ExternalLink(str(o), "/data/demo_0/obs/eef")),
        FileInvalidError,
    ),
    (
        "external key",
        linked("data/demo_0/obs/more", lambda o: h5py.ExternalLink(str(o), "/data/demo_0/obs/eef")),
        FileInvalidError,
    ),
    (
        "device",
        linked("data/demo_0/obs/eef", lambda _: h5py.ExternalLink("/dev/zero", "/x")),
        FileInvalidError,
    ),
    (
        "soft link",
        linked("data/demo_0/obs/eef", lambda _: h5py.SoftLink("/data/demo_1/obs/eef")),
        FileInvalidError,
    ),
    ("dangling link", linked("data/demo_0/obs/eef", lambda _: h5py.SoftLink("/nowhere")), FileInvalidError),
    ("external data", linked("data", lambda o: h5py.ExternalLink(str(o), "/data")), FileInvalidError),
    ("external mask", linked("mask", lambda o: h5py.ExternalLink(str(o), "/data")), FileInvalidError),
    ("virtual", virtual, FileInvalidError),
    ("external storage", external_storage, FileInvalidError),
    ("chunk", big_chunk, TooLargeError),
    ("empty claim", empty_claim, TooLargeError),
    ("nan", nan, NotFiniteError),
    ("short array", replaced("data/demo_1/obs/eef", np.ones((4, 3), np.float32)), IndexMismatchError),
    ("short actions", replaced("data/demo_1/actions", np.ones((4, 4))), IndexMismatchError),
    ("narrow array", replaced("data/demo_1/obs/eef", np.ones((5, 2), np.float32)), MissingColumnError),
    ("words", replaced("data/demo_1/obs/eef", np.array([[b"a"] * 3] * 5)), CellInvalidError),
    ("scalar", replaced("data/demo_1/obs/eef", 3.0), IndexMismatchError),
    (
        "group for an array",
        edit(lambda f: (f.__delitem__("data/demo_1/obs/eef"), f.create_group("data/demo_1/obs/eef"))),
        FileInvalidError,
    ),
    ("key gone", edit(lambda f: f.__delitem__("data/demo_1/obs/eef")), MissingColumnError),
    ("obs gone", edit(lambda f: f.__delitem__("data/demo_1/obs")), FileInvalidError),
    ("no demos", edit(lambda f: [f.__delitem__(f"data/demo_{i}") for i in range(3)]), NoEpisodesError),
    ("no data", edit(lambda f: f.__delitem__("data")), FileInvalidError),
    ("data is an array", replaced("data", np.ones(3)), FileInvalidError),
    ("total", edit(lambda f: f["data"].attrs.__setitem__("total", 99)), IndexMismatchError),
    ("total in words", edit(lambda f: f["data"].attrs.__setitem__("total", "many")), FileInvalidError),
    ("no num_samples", edit(lambda f: f["data/demo_1"].attrs.__delitem__("num_samples")), FileInvalidError),
    ("negative", edit(lambda f: f["data/demo_1"].attrs.__setitem__("num_samples", -1)), FileInvalidError),
    ("endless", edit(lambda f: f["data/demo_1"].attrs.__setitem__("num_samples", 2**40)), TooLargeError),
    ("env_args", edit(lambda f: f["data"].attrs.__setitem__("env_args", "{")), FileInvalidError),
    ("mask of nobody", lambda p: split(p, "train", 0, 7), IndexMismatchError),
    ("two masks", lambda p: (split(p, "train", 0, 1), split(p, "valid", 1, 2)), IndexMismatchError),
    ("mask of numbers", edit(lambda f: f.__setitem__("mask/train", np.arange(3))), FileInvalidError),
    ("cut", lambda p: p.write_bytes(p.read_bytes()[:-2000]), FileInvalidError),
    ("no hdf5", lambda p: p.write_bytes(b"PK" + bytes(5000)), FileInvalidError),
    (
        "pointer",
        lambda p: p.write_text("version https://git-lfs.github.com/spec/v1\noid x\n"),
        PointerFileError,
    ),
]


@pytest.mark.parametrize(("damage", "error"), [d[1:] for d in DAMAGES], ids=[d[0] for d in DAMAGES])
def test_damage_is_refused_with_its_code_and_nothing_is_lost(
    tmp_path: Path, damage: Callable[[Path], None], error: type[DataError]
) -> None:
    bring_in(tmp_path, write(tmp_path / "good.hdf5", (9, 9)))
    before = tree(tmp_path / "s")
    source = write(tmp_path / "bad.hdf5", (4, 5, 6))
    damage(source)
    with pytest.raises(error) as refusal:
        bring_in(tmp_path, source)
    assert refusal.value.code.startswith("data.")
    assert refusal.value.remedy
    assert tree(tmp_path / "s") == before


def test_a_file_cut_anywhere_never_crashes(tmp_path: Path) -> None:
    data = write(tmp_path / "a.hdf5", (4, 5)).read_bytes()
    for share in range(0, 100, 4):
        (tmp_path / "b.hdf5").write_bytes(data[: len(data) * share // 100])
        with pytest.raises(DataError):
            bring_in(tmp_path, tmp_path / "b.hdf5")


def test_bytes_turned_at_random_are_read_or_refused(tmp_path: Path) -> None:
    data = write(tmp_path / "a.hdf5", (4, 5)).read_bytes()
    rng = np.random.default_rng(3)
    for number in range(60):
        turned = bytearray(data)
        for at in rng.integers(0, len(data), 8):
            turned[at] ^= int(rng.integers(1, 256))
        (tmp_path / "b.hdf5").write_bytes(bytes(turned))
        with contextlib.suppress(DataError):
            bring(tmp_path / f"s{number}", tmp_path / "b.hdf5", signal_map=mapped(tmp_path), allow=ALLOW)
