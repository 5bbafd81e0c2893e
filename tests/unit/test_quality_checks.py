# SPDX-License-Identifier: Apache-2.0
"""Checks of one episode: each fails on its planted defect alone, passes on the clean twin, and never calls a guess a pass."""

from __future__ import annotations

import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.data.frames import Frames
from client.data.quality import EXCLUDING, QualitySpec, check_episode, failed_checks, spec_of
from client.data.quality.checks import EPISODE_CHECKS
from tests.qualitysim import SPEC, arm, changed, planted

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"


def states(frames: Frames, spec: QualitySpec = SPEC) -> dict[str, str]:
    return {one.check: one.state for one in check_episode(frames, spec)}


@pytest.mark.parametrize("check", list(EPISODE_CHECKS))
def test_a_planted_defect_fails_exactly_its_check_and_the_clean_twin_passes(check: str) -> None:
    assert states(arm())[check] == "PASS"
    found = states(planted(check))
    assert [name for name, state in found.items() if state == "FAIL"] == [check]


@pytest.mark.parametrize("check", list(EPISODE_CHECKS))
def test_only_defects_of_the_episode_itself_exclude_it(check: str) -> None:
    assert failed_checks(planted(check), SPEC) == ((check,) if check in EXCLUDING else ())


@pytest.mark.parametrize("check", ["schema", "frozen", "saturation", "lag", "tracking", "jumps", "limits"])
def test_a_finding_names_the_column_the_part_and_the_frames(check: str) -> None:
    (found,) = [one for one in check_episode(planted(check), SPEC) if one.state == "FAIL"]
    expected = {
        "schema": ("observation.joint_torque", 2, 20, 30),
        "frozen": ("observation.joint_torque", 3, 0, 150),
        "saturation": ("observation.joint_torque", 1, 100, 140),
        "jumps": ("observation.joint_pos", 5, 89, 91),
    }
    assert found.place is not None
    place = (found.place.column, found.place.part, found.place.first, found.place.last)
    if check in expected:
        assert place == expected[check] or (check == "jumps" and place[2] in (89, 91))
    assert found.as_dict()["place"]["column"] == found.place.column
    assert all(isinstance(one, str) for one in found.figures.values())


def test_an_infinite_value_fails_the_schema() -> None:
    torque = arm().columns["observation.joint_torque"].copy()
    torque[7, 0] = np.inf
    found = check_episode(changed(arm(), "observation.joint_torque", torque), SPEC)[0]
    assert (found.state, found.why) == ("FAIL", "not-finite")


def test_streams_further_than_a_millisecond_apart_fail_time() -> None:
    near = changed(arm(), "observation.x_skew_wrench", np.full((150, 1), 0.0009))
    far = changed(arm(), "observation.x_skew_wrench", np.full((150, 1), 0.0011))
    assert states(near)["time"] == "PASS"
    assert states(far)["time"] == "FAIL"


def test_too_short_an_episode_is_not_called_good() -> None:
    whole = arm()
    frames = replace(
        whole, columns={k: v[:1] for k, v in whole.columns.items()}, stamps_ns=whole.stamps_ns[:1]
    )
    found = states(frames)
    assert found["time"] == found["jumps"] == found["lag"] == "UNDETERMINED"


def test_a_joint_at_rest_is_no_frozen_channel_of_its_velocity() -> None:
    frames = arm()
    position = frames.columns["observation.joint_pos"].copy()
    velocity = frames.columns["observation.joint_vel"].copy()
    velocity[:, 0] = 0
    moving = changed(frames, "observation.joint_vel", velocity)
    found = {one.check: one for one in check_episode(moving, SPEC)}
    assert (found["frozen"].state, found["frozen"].place and found["frozen"].place.part) == ("FAIL", 0)
    position[:, 0] = 0
    both = {one.check: one for one in check_episode(changed(moving, "observation.joint_pos", position), SPEC)}
    assert both["frozen"].place is not None
    assert both["frozen"].place.column == "observation.joint_pos"  # an encoder without noise


def test_nothing_moves_means_that_a_frozen_channel_cannot_be_told() -> None:
    still = Frames(
        columns={"observation.joint_pos": np.zeros((50, 6), np.float32)},
        labels={},
        stamps_ns=arm(frames=50).stamps_ns,
        clock="host",
        content="0" * 64,
        missing_rows=0,
    )
    assert states(still)["frozen"] == "UNDETERMINED"


def test_without_a_declared_limit_nothing_is_judged_by_a_guess() -> None:
    fast = planted("limits")  # without positions that its velocities could contradict
    columns = {key: one for key, one in fast.columns.items() if key != "observation.joint_pos"}
    found = states(replace(fast, columns=columns), spec_of(None))
    assert found["limits"] == found["saturation"] == found["tracking"] == "NOT_APPLICABLE"


def test_without_a_velocity_limit_a_step_that_an_arm_could_make_stays_open() -> None:
    position = arm().columns["observation.joint_pos"].copy()
    position[90:, 5] += 0.1  # 10 rad/s: perhaps
    frames = changed(arm(), "observation.joint_pos", position)
    assert states(frames, spec_of(None))["jumps"] == "UNDETERMINED"
    position[90:, 5] += 0.5  # 60 rad/s: no
    assert states(changed(frames, "observation.joint_pos", position), spec_of(None))["jumps"] == "FAIL"


def test_joints_that_answer_at_different_times_fail_the_lag() -> None:
    command = arm().columns["action.joint_pos"].copy()
    command[:-10, 3:] = command[10:, 3:].copy()
    found = [
        one for one in check_episode(changed(arm(), "action.joint_pos", command), SPEC) if one.check == "lag"
    ]
    assert [(one.state, one.why) for one in found] == [("FAIL", "spread")]


def test_a_step_of_the_tool_is_compared_with_the_commanded_difference() -> None:
    rng = np.random.default_rng(3)
    delta = rng.normal(0, 0.01, (200, 4)).astype(np.float32)
    tool = np.cumsum(np.concatenate([np.zeros((1, 3)), delta[:-1, :3]]), axis=0).astype(np.float32)
    base = {"labels": {}, "stamps_ns": arm(frames=200).stamps_ns, "clock": "host", "content": "0" * 64}
    good = Frames(
        columns={"action.tcp_pose_delta": delta, "observation.tcp_pos": tool}, missing_rows=0, **base
    )
    assert states(good)["lag"] == "PASS"
    late = np.concatenate([delta[:3], delta[:-3]])
    assert states(changed(good, "action.tcp_pose_delta", late))["lag"] == "FAIL"


@pytest.mark.real
@pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings in {SHARED}; set IRIAI_SHARED")
def test_the_resampled_ur10_recording_looks_derived_and_fails_nothing() -> None:
    from rosbags.typesys import Stores, get_typestore

    types = get_typestore(Stores.ROS2_HUMBLE)
    path = SHARED / "ur10" / "exciting_trajectory.db3"
    with sqlite3.connect(f"file:{path}?mode=ro", uri=True) as opened:
        rows = opened.execute("select data from messages order by timestamp").fetchall()
    opened.close()
    told = [types.deserialize_cdr(row[0], "sensor_msgs/msg/JointState") for row in rows]
    frames = Frames(
        columns={
            "observation.joint_pos": np.array([one.position for one in told], np.float32),
            "observation.joint_vel": np.array([one.velocity for one in told], np.float32),
            "observation.joint_torque": np.array([one.effort for one in told], np.float32),
        },
        labels={},
        stamps_ns=np.array([one.header.stamp.sec * 10**9 + one.header.stamp.nanosec for one in told]),
        clock="host",
        content="0" * 64,
        missing_rows=0,
    )
    found = {one.check: (one.state, one.why) for one in check_episode(frames)}
    assert frames.length == 3441
    assert found["time"] == ("UNDETERMINED", "looks-derived")
    assert not [name for name, (state, _) in found.items() if state == "FAIL"]
