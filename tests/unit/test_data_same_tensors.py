# SPDX-License-Identifier: Apache-2.0
"""The same episodes in six formats are the same episodes: equal digests, equal tensors, whatever the container."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import h5py
import numpy as np
import pytest

from client.data import import_path, open_view
from client.data.store import Store
from sandbox.lerobot_writer import Feature, Frames, write_dataset
from tests.bagsim import JOINTS, PERIOD_NS, START_NS, Arm, write_db3, write_mcap
from tests.datasim import KEY, RIGHTS, SimClock

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

FIELDS = frozenset({"joint_pos", "joint_vel", "joint_torque"})
ARRAYS = (
    ("joint_pos", "position", "rad"),
    ("joint_vel", "velocity", "rad/s"),
    ("joint_torque", "effort", "Nm"),
)
EPISODES = [Arm.moving(n, seed=n, start_ns=START_NS + i * 10**11) for i, n in enumerate((40, 55, 60, 48, 70))]


def db3(root: Path) -> Path:
    for number, arm in enumerate(EPISODES):
        write_db3(root / f"run_{number}", arm.said())
    return root


def db3_bare(root: Path) -> Path:
    for number, arm in enumerate(EPISODES):
        write_db3(root / f"run_{number}", arm.said(shuffled=True), metadata=False, definitions=False)
    return root


def one_db3(root: Path) -> Path:
    """One long bag; the map cuts it where nothing was recorded for a second."""
    return write_db3(root, [said for arm in EPISODES for said in arm.said()])


def mcap(root: Path) -> Path:
    root.mkdir()
    for number, arm in enumerate(EPISODES):
        write_mcap(root / f"run_{number}.mcap", arm.said(shuffled=number % 2 == 1))
    return root


def robomimic(root: Path) -> Path:
    root.mkdir()
    with h5py.File(root / "demos.hdf5", "w") as file:
        data = file.create_group("data")
        data.attrs["total"] = sum(len(arm.position) for arm in EPISODES)
        data.attrs["env_args"] = json.dumps(
            {"env_name": "cell", "type": 1, "env_kwargs": {"control_freq": 125}}
        )
        for number, arm in enumerate(EPISODES):
            demo = data.create_group(f"demo_{number}")
            demo.attrs["num_samples"] = len(arm.position)
            demo["actions"] = arm.velocity
            for _, array, _ in ARRAYS:
                demo[f"obs/{array}"] = getattr(arm, array)
    return root / "demos.hdf5"


def lerobot(root: Path) -> Path:
    """Its channels bear canonical names, so that it needs no map."""
    names = tuple(f"{field}_{i}" for field, _, _ in ARRAYS for i in range(6))
    write_dataset(
        root,
        rate_hz=125,
        robot_type="6r-arm",
        features={"observation.state": Feature(names=names)},
        episodes=[
            Frames(
                task="task",
                columns={
                    "observation.state": np.column_stack(
                        [getattr(arm, array) for _, array, _ in ARRAYS]
                    ).astype(np.float32)
                },
            )
            for arm in EPISODES
        ],
        splits={"train": (0, len(EPISODES))},
    )
    return root


def bag_map() -> str:
    return signal_map(lambda array, i: f"/joint_states:{array}.{JOINTS[i]}", "max_gap_s = 1.0")


def hdf5_map() -> str:
    return signal_map(lambda array, i: f"obs/{array}_{i}", "") + "clock = {rate_hz = 125}\n"


def signal_map(column: Callable[[str, int], str], more: str) -> str:
    lines = [
        f'  {{field = "{field}", columns = {json.dumps([column(array, i) for i in range(6)])}, '
        f'unit = "{unit}", role = "observation"}},\n'
        for field, array, unit in ARRAYS
    ]
    comma = ", " if more else ""
    return f'segment = {{by = "file"{comma}{more}}}\nsignal = [\n{"".join(lines)}]\n'


WRITERS = {
    "db3": (db3, bag_map),
    "db3-bare": (db3_bare, bag_map),
    "one-db3": (one_db3, bag_map),
    "mcap": (mcap, bag_map),
    "robomimic": (robomimic, hdf5_map),
    "lerobot": (lerobot, None),
}


def imported(tmp_path: Path, name: str) -> Path:
    write, text = WRITERS[name]
    source = write(tmp_path / f"source-{name}")
    if text is not None:
        (tmp_path / f"{name}.toml").write_text(text())
    report = import_path(
        tmp_path / name,
        source,
        dataset="cell/arm",
        signal_map=tmp_path / f"{name}.toml" if text else None,
        allow=FIELDS,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )
    assert report.episodes_added == len(EPISODES)
    return tmp_path / name


def test_every_format_gives_the_same_episodes_and_tensors(tmp_path: Path) -> None:
    digests, tensors = {}, {}
    for name in WRITERS:
        root = imported(tmp_path, name)
        digests[name] = sorted(stored.meta.digest for stored in Store(root).episodes("cell/arm"))
        view = open_view(root, "cell/arm", contract_fields=FIELDS, recipe_inputs=FIELDS, local_allow=FIELDS)
        episodes = [*view.episodes("train"), *view.episodes("held-out")]
        tensors[name] = sorted(episodes, key=lambda episode: episode.length)
    assert len(set(map(tuple, digests.values()))) == 1
    first = tensors["db3"]
    assert len(first) == len(EPISODES)
    for name, found in tensors.items():
        for one, other in zip(first, found, strict=True):
            assert all(np.array_equal(one.fields[field], other.fields[field]) for field in FIELDS), name


def test_the_same_recording_in_another_container_is_a_duplicate(tmp_path: Path) -> None:
    """Whoever saves a bag as MCAP has not recorded anything new, and must not spend a budget twice."""
    imported(tmp_path, "db3")
    (tmp_path / "again.toml").write_text(bag_map())
    report = import_path(
        tmp_path / "db3",
        mcap(tmp_path / "again"),
        dataset="cell/arm",
        signal_map=tmp_path / "again.toml",
        allow=FIELDS,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )
    assert (report.episodes_added, report.duplicates) == (0, len(EPISODES))


def test_shuffled_joints_taken_by_position_would_have_been_other_episodes() -> None:
    """The planted fault: what a positional reader would store of a driver that sorts its names."""
    arm = EPISODES[0]
    order = np.argsort(JOINTS)
    assert not np.array_equal(arm.position, arm.position[:, order])


@pytest.mark.parametrize("name", ["db3", "mcap"])
def test_stamps_of_bags_are_the_headers_own(tmp_path: Path, name: str) -> None:
    root = imported(tmp_path, name)
    starts = sorted(stored.meta.start_ns or 0 for stored in Store(root).episodes("cell/arm"))
    assert starts == [int(arm.stamps_ns[0]) for arm in EPISODES]
    assert PERIOD_NS == 8_000_000
