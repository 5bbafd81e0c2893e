# SPDX-License-Identifier: Apache-2.0
"""What a map may declare of a robot: limits, names, an adapter; all of it stays on the site but the class."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from client.data import describe
from client.data.embodiment import Embodiment
from client.data.errors import MapInvalidError, StoreDamagedError
from client.data.quality import spec_of
from client.data.quality.reading import stored_frames
from client.data.signalmap import parse_map
from client.data.store import Store
from tests.qualitysim import ALLOW, MAP, NODE, SimClock, arm, imported


def robot(**more: object) -> str:
    parts = ", ".join(f"{key} = {value}" for key, value in more.items())
    head = MAP.split("embodiment = ")[0]
    return head + f'embodiment = {{class = "6r-arm", dof = 6, action_space = "joint-pos", {parts}}}\n'


def test_numbers_are_kept_as_they_were_written_and_one_pair_is_for_all_joints() -> None:
    text = robot(
        joint_pos_limit="[[-6.28, 6.28]]", control_rate_hz=125, workspace='[["-0.8", 0.8], [0, 1], [0, 1.20]]'
    )
    found = parse_map(text.encode()).embodiment
    assert found is not None
    assert found.joint_pos_limit == [["-6.28", "6.28"]]
    assert (found.control_rate_hz, found.workspace) == ("125", [["-0.8", "0.8"], ["0", "1"], ["0", "1.2"]])
    limit = found.limit("joint_pos")
    assert limit is not None
    assert limit.shape == (6, 2)
    assert found.limit("joint_vel") is None
    assert Embodiment.model_validate(found.as_dict()) == found
    assert found.digest != Embodiment.model_validate({**found.as_dict(), "control_rate_hz": "500"}).digest


@pytest.mark.parametrize(
    "more",
    [
        {"joint_pos_limit": "[[-1, 1], [-1, 1]]"},
        {"joint_pos_limit": "[[1, -1]]"},
        {"joint_pos_limit": "[[-1, 0, 1]]"},
        {"joint_vel_limit": '[["fast", "faster"]]'},
        {"joint_vel_limit": "[[-1e300, 1e300]]"},
        {"joint_vel_limit": "[[nan, 1]]"},
        {"workspace": "[[0, 1]]"},
        {"control_rate_hz": "0"},
        {"joint_names": '["a", "a", "b", "c", "d", "e"]'},
        {"adapter": "{gain = 0}"},
        {"adapter": "{order = [0, 1, 2, 3, 4, 4]}"},
        {"adapter": "{sign = [1, 1]}"},
        {"adapter": "{sign = [1, 1, 1, 1, 1, 2]}"},
        {"adapter": "{scale = 2}"},
        {"serial_number": '"123"'},
    ],
)
def test_a_robot_that_cannot_be_is_refused_with_its_place(more: dict[str, str]) -> None:
    with pytest.raises(MapInvalidError, match="embodiment"):
        parse_map(robot(**more).encode())


def test_joints_have_the_names_that_were_declared() -> None:
    names = '["shoulder", "lift", "elbow", "w1", "mean", "w3"]'  # a name is no statistic
    found = parse_map(robot(joint_names=names).encode()).embodiment
    assert found is not None
    assert (found.joint(2), found.joint(4)) == ("elbow", "mean")
    bare = parse_map(robot(control_rate_hz=100).encode()).embodiment
    assert bare is not None
    assert bare.joint(2) == "J3"


def test_the_import_turns_the_controllers_joints_into_those_of_the_store(tmp_path: Path) -> None:
    adapter = (
        "{gain = 2, sign = [1, -1, 1, 1, 1, 1], offset = [0, 0, 0, 0, 0, 1], order = [2, 1, 0, 3, 4, 5]}"
    )
    root, _ = imported(tmp_path, [arm(1)], text=robot(adapter=adapter))
    store = Store(root)
    entry = store.catalogue().dataset("kita/pick")
    ((_, frames),) = stored_frames(store.folder("kita/pick", entry), store.episodes("kita/pick"))
    source = arm(1).columns
    position = frames.columns["observation.joint_pos"]
    np.testing.assert_allclose(position[:, 0], source["observation.joint_pos"][:, 2], rtol=1e-6)
    np.testing.assert_allclose(position[:, 1], -source["observation.joint_pos"][:, 1], rtol=1e-6)
    np.testing.assert_allclose(position[:, 5], source["observation.joint_pos"][:, 5] + 1, rtol=1e-5)
    np.testing.assert_allclose(
        frames.columns["observation.joint_vel"][:, 0], source["observation.joint_vel"][:, 2]
    )
    np.testing.assert_allclose(
        frames.columns["action.joint_pos"][:, 3], 2 * source["action.joint_pos"][:, 3], rtol=1e-6
    )


def test_a_robot_in_the_store_that_no_map_could_declare_is_damage() -> None:
    with pytest.raises(StoreDamagedError):
        spec_of({"class": "6r-arm", "dof": 6, "action_space": "none", "joint_pos_limit": [["1", "0"]]})


def test_nothing_but_the_class_reaches_the_descriptor(tmp_path: Path) -> None:
    names = '["secretname1", "n2", "n3", "n4", "n5", "n6"]'
    text = robot(joint_names=names, joint_pos_limit="[[-3.1234, 3.1234]]", adapter="{gain = 0.777}")
    root, _ = imported(tmp_path, [arm(1)], text=text)
    told = describe(root, "kita/pick", node=NODE, allow=ALLOW, clock=SimClock()).canonical
    assert b"6r-arm" in told
    for secret in (b"secretname1", b"3.1234", b"0.777", b"limit"):
        assert secret not in told
