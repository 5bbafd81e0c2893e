# SPDX-License-Identifier: Apache-2.0
"""Data that contradict themselves: each planted lie is found in every episode, and its honest look-alike never."""

from __future__ import annotations

import json
from dataclasses import replace
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data.embodiment import Embodiment
from client.data.frames import Frames
from client.data.quality import Finding, QualitySpec, check_dataset, check_episode, failed_checks, spec_of
from client.data.quality.spec import PHYSICAL
from policies.recipe import FIELD_NAMES
from tests.qualitysim import SPEC, arm, changed, imported, planted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

POSITION, VELOCITY, COMMAND = "observation.joint_pos", "observation.joint_vel", "action.joint_pos"
SEEDS = range(8)
NOTHING = spec_of(None)
Values = dict[str, np.ndarray]


def lied(change: Callable[[Values, np.random.Generator], None], seed: int, frames: int = 150) -> Frames:
    """A clean episode whose values were changed in place."""
    clean = arm(seed, frames=frames)
    values = {key: one.astype(np.float64) for key, one in clean.columns.items()}
    change(values, np.random.default_rng(seed))
    return replace(clean, columns={key: one.astype(np.float32) for key, one in values.items()})


def finding(frames: Frames, check: str, spec: QualitySpec = SPEC) -> Finding:
    return next(one for one in check_episode(frames, spec) if one.check == check)


def hidden_jumps(values: Values, _: np.random.Generator) -> None:
    for at in (30, 60, 90):
        values[POSITION][at + 1] += 2
        for key in (POSITION, VELOCITY):
            values[key][[at, at + 2]] = np.nan


def noisy_velocity(values: Values, rng: np.random.Generator) -> None:
    values[VELOCITY][:] = rng.uniform(-3, 3, values[VELOCITY].shape)


def no_velocity(values: Values, _: np.random.Generator) -> None:
    values[VELOCITY][:] = 0


def velocity_in_degrees(values: Values, _: np.random.Generator) -> None:
    values[VELOCITY][:, 2] = np.rad2deg(values[VELOCITY][:, 2])


def velocity_with_the_other_sign(values: Values, _: np.random.Generator) -> None:
    values[VELOCITY][:, 3] *= -1


def dead_encoder(values: Values, rng: np.random.Generator) -> None:
    values[POSITION][:, 3] = rng.normal(0, 1e-4, len(values[POSITION]))


def noisy_position(values: Values, rng: np.random.Generator) -> None:
    values[POSITION][:] = rng.uniform(-2, 2, values[POSITION].shape)
    del values[VELOCITY]


def command_of_zeros(values: Values, _: np.random.Generator) -> None:
    values[COMMAND][:] = 0


def command_of_noise(values: Values, rng: np.random.Generator) -> None:
    values[COMMAND][:] = rng.normal(0, 0.5, values[COMMAND].shape)


def absurd_command(values: Values, rng: np.random.Generator) -> None:
    values[COMMAND][:] = 1e30 * rng.normal(size=values[COMMAND].shape)


def mirrored_command(values: Values, _: np.random.Generator) -> None:
    values[COMMAND][:] *= -1


def command_in_degrees(values: Values, _: np.random.Generator) -> None:
    values[COMMAND][:, 1] = np.rad2deg(values[COMMAND][:, 1])


LIES: dict[str, tuple[Callable[[Values, np.random.Generator], None], str, set[str]]] = {
    "jumps between missing rows": (hidden_jumps, "jumps", {"jump"}),
    "positions of noise": (noisy_position, "jumps", {"jump"}),
    "velocities of noise": (noisy_velocity, "limits", {"velocity-contradicts"}),
    "velocities of zero": (no_velocity, "limits", {"velocity-contradicts"}),
    "a velocity in degrees": (velocity_in_degrees, "limits", {"velocity-contradicts"}),
    "a velocity with the other sign": (velocity_with_the_other_sign, "limits", {"velocity-contradicts"}),
    "an encoder that only shows noise": (dead_encoder, "limits", {"velocity-contradicts"}),
    "commands of zero": (command_of_zeros, "lag", {"action-explains-nothing"}),
    "commands of noise": (command_of_noise, "lag", {"action-explains-nothing"}),
    "commands of absurd size": (absurd_command, "limits", {"absurd"}),
    "commands with the other sign": (mirrored_command, "lag", {"sign"}),
    "a command in degrees": (command_in_degrees, "lag", {"scale"}),
}


@pytest.mark.parametrize("lie", LIES)
def test_a_lie_excludes_every_episode_even_where_no_robot_is_declared(lie: str) -> None:
    change, check, whys = LIES[lie]
    for seed in SEEDS:
        frames = lied(change, seed)
        found = finding(frames, check, NOTHING)
        assert (found.state, found.why in whys) == ("FAIL", True), (seed, found)
        assert check in failed_checks(frames, SPEC)
        assert found.place is not None
        assert 0 <= found.place.first < found.place.last <= frames.length


def few_missing(values: Values, rng: np.random.Generator) -> None:
    for one in values.values():
        one[rng.choice(len(one), 5, replace=False)] = np.nan


def a_run_missing(values: Values, _: np.random.Generator) -> None:
    for one in values.values():
        one[50:57] = np.nan


def coarse_encoders(values: Values, _: np.random.Generator) -> None:
    values[POSITION][:], values[VELOCITY][:] = np.round(values[POSITION], 3), np.round(values[VELOCITY], 2)


def late_velocity(values: Values, _: np.random.Generator) -> None:
    values[VELOCITY][4:] = values[VELOCITY][:-4].copy()


def one_goal(values: Values, _: np.random.Generator) -> None:
    values[COMMAND][:] = values[POSITION][-1]


def some_goals(values: Values, _: np.random.Generator) -> None:
    for first in range(0, 150, 30):
        values[COMMAND][first : first + 30] = values[POSITION][first + 29]


HONEST = [few_missing, a_run_missing, coarse_encoders, late_velocity, one_goal, some_goals]


@pytest.mark.parametrize("change", HONEST)
def test_what_honest_recordings_look_like_excludes_none(
    change: Callable[[Values, np.random.Generator], None],
) -> None:
    for seed in SEEDS:
        assert failed_checks(lied(change, seed), SPEC) == ()


def test_a_hundred_clean_episodes_have_no_finding() -> None:
    for seed in range(100):
        told = {one.check: one.state for one in check_episode(arm(seed, frames=80), SPEC)}
        assert set(told.values()) == {"PASS"}, (seed, told)


def test_a_hidden_jump_is_shown_from_the_last_known_value() -> None:
    found = finding(lied(hidden_jumps, 0), "jumps")
    assert found.place is not None
    assert (found.place.first, found.place.last) in {(at, at + 3) for at in (29, 59, 89)} | {
        (at + 1, at + 4) for at in (30, 60, 90)
    }
    assert float(found.figures["step_rad"]) == pytest.approx(2, abs=0.1)


def test_a_step_that_took_its_time_is_none() -> None:
    """A missing stretch of 70 ms allows 0.22 rad at 3.14 rad/s."""
    for size, state in ((0.19, "PASS"), (0.4, "FAIL")):
        position = arm().columns[POSITION].copy()
        position[60:67] = np.nan
        position[67:, 2] += np.float32(size) - (position[67, 2] - position[59, 2])
        assert finding(changed(arm(), POSITION, position), "jumps").state == state


def test_swapped_commands_of_two_joints_fail() -> None:
    found = 0
    for seed in range(30):
        command = arm(seed).columns[COMMAND].copy()
        command[:, [1, 2]] = command[:, [2, 1]]
        one = finding(changed(arm(seed), COMMAND, command), "lag")
        found += (one.state, one.why) in (("FAIL", "swapped"), ("FAIL", "spread"))
    assert found >= 28  # two joints that happen to do the same cannot be told apart


def test_a_joint_that_does_not_answer_stays_open() -> None:
    frames = arm(1)
    position, velocity = frames.columns[POSITION].copy(), frames.columns[VELOCITY].copy()
    noise = np.random.default_rng(0).normal(size=(2, 150))
    position[:, 3], velocity[:, 3] = 1e-4 * noise[0], 1e-3 * noise[1]
    found = finding(changed(changed(frames, POSITION, position), VELOCITY, velocity), "lag")
    assert (found.state, found.why) == ("UNDETERMINED", "no-answer")


def tool(delta: np.ndarray, moves: bool = True) -> Frames:
    """A tool that moves by what it was told, and the commands."""
    way = np.random.default_rng(3).normal(0, 0.01, (len(delta), 3)) if moves else np.zeros((len(delta), 3))
    path = np.cumsum(np.concatenate([np.zeros((1, 3)), way[:-1]]), axis=0)
    return Frames(
        columns={
            "action.tcp_pose_delta": np.where(np.isnan(delta), way, delta).astype(np.float32),
            "observation.tcp_pos": path.astype(np.float32),
        },
        labels={},
        stamps_ns=arm(frames=len(delta)).stamps_ns,
        clock="host",
        content="0" * 64,
        missing_rows=0,
    )


WAY = np.random.default_rng(3).normal(0, 0.01, (200, 3))
SPACE = QualitySpec(
    embodiment=Embodiment.model_validate(
        {
            "class": "6r-arm",
            "dof": 6,
            "action_space": "ee-delta",
            "workspace": [["-0.8", "0.8"], ["-0.8", "0.8"], ["0", "1.2"]],
        }
    )
)


@pytest.mark.parametrize(
    ("delta", "check", "state", "why"),
    [
        (WAY, "lag", "PASS", ""),
        (WAY * 0, "lag", "FAIL", "action-explains-nothing"),
        (WAY * 1e30, "limits", "FAIL", "absurd"),
        (-WAY, "lag", "UNDETERMINED", "sign"),  # perhaps the tool's own frame
        (WAY * 100, "lag", "UNDETERMINED", "scale"),  # perhaps the controller's units
        (WAY[::-1], "lag", "UNDETERMINED", "action-unlike"),
    ],
)
def test_a_commanded_step_of_the_tool(delta: np.ndarray, check: str, state: str, why: str) -> None:
    found = finding(tool(delta), check, NOTHING)
    assert (found.state, found.why) == (state, why)


def test_a_step_beyond_the_whole_workspace_fails_where_one_is_declared() -> None:
    millimetres = tool(WAY * 1000)  # up to some tens of metres
    smaller = tool(WAY * 100)  # up to 3
    assert finding(millimetres, "limits", NOTHING).why == "absurd"
    assert finding(smaller, "limits", NOTHING).state == "NOT_APPLICABLE"
    assert finding(smaller, "limits", SPACE).why == "beyond-limit"
    inside = tool(WAY * 0.1)
    low = changed(inside, "observation.tcp_pos", inside.columns["observation.tcp_pos"] + np.array([0, 0, 1]))
    far = changed(low, "observation.tcp_pos", low.columns["observation.tcp_pos"] + 5)
    assert (finding(low, "limits", SPACE).state, finding(far, "limits", SPACE).state) == ("PASS", "FAIL")


def test_zeros_of_a_mode_that_is_not_used_leave_the_lag_open_and_exclude_none() -> None:
    unused = changed(arm(), "action.joint_vel", np.zeros((150, 6)))
    found = finding(unused, "lag")
    assert (found.state, found.why) == ("UNDETERMINED", "action-explains-nothing")
    assert failed_checks(unused, SPEC) == ()


@pytest.mark.parametrize("field", ["joint_vel", "tcp_pose_delta"])
def test_zeros_fail_where_only_the_joints_show_that_the_robot_moves(field: str) -> None:
    columns = {POSITION: arm().columns[POSITION], f"action.{field}": np.zeros((150, 3), np.float32)}
    found = finding(replace(arm(), columns=columns), "lag", NOTHING)
    assert (found.state, found.why) == ("FAIL", "action-explains-nothing")


def test_a_robot_at_rest_needs_no_command() -> None:
    found = finding(tool(WAY * 0, moves=False), "lag", NOTHING)
    assert (found.state, found.why) == ("UNDETERMINED", "no-motion")


def test_slow_rows_say_nothing_about_a_velocity() -> None:
    frames = lied(noisy_velocity, 0)
    slow = replace(frames, stamps_ns=frames.stamps_ns * 10)
    assert finding(slow, "limits", NOTHING).state == "NOT_APPLICABLE"


def test_single_jumps_of_the_position_are_not_held_against_the_velocity() -> None:
    for seed in range(40):
        assert failed_checks(planted("jumps", arm(seed)), SPEC) == ("jumps",)


@pytest.mark.parametrize("field", sorted(PHYSICAL))
@pytest.mark.parametrize("role", ["observation", "action"])
def test_every_field_has_a_size_that_nothing_is_beyond(field: str, role: str) -> None:
    values = np.ones((150, 1), np.float32)
    values[7] = 2 * PHYSICAL[field][1]
    found = finding(changed(arm(), f"{role}.{field}", values), "limits", NOTHING)
    assert (found.state, found.why) == ("FAIL", "absurd")
    assert found.place is not None
    assert (found.place.column, found.place.first) == (f"{role}.{field}", 7)


def test_only_codes_have_no_such_size() -> None:
    assert FIELD_NAMES - set(PHYSICAL) == {"robot_mode", "safety_mode", "outcome"}


def test_an_import_excludes_lies_and_the_certificate_admits_the_rest(tmp_path: Path) -> None:
    lies = [lied(one, 50 + at) for at, one in enumerate((hidden_jumps, noisy_velocity, command_of_zeros))]
    root, report = imported(tmp_path, [*(arm(seed) for seed in range(9)), *lies])
    assert report.excluded == 3
    found = check_dataset(root, "kita/pick")
    assert sorted(found.excluded.values()) == ["jumps", "lag", "limits"]
    assert found.verdict == "admitted"
    assert {found.states[one] for one in ("jumps", "lag", "limits")} == {"PASS"}


def test_both_languages_say_what_was_found() -> None:
    words = json.loads(files("client.data.quality.page").joinpath("words.json").read_text("utf-8"))
    whys = {one for _, _, some in LIES.values() for one in some} | {"swapped", "no-answer", "action-unlike"}
    for lang in ("en", "ja"):
        assert {f"why_{one}" for one in whys} <= set(words[lang])
