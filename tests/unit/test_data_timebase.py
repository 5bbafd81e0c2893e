# SPDX-License-Identifier: Apache-2.0
"""Canonical data: the time base of a recipe, K frames of a unit, and what the count of frames then says."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from client.data.fields import open_view
from client.data.timebase import resampled
from client.learning.noise import SecureNoise
from client.learning.private import PrivateSteps
from client.learning.tensors import EpisodeArrays, unit_frames
from policies.exchange import tensor_spec
from tests.datasim import ALLOW, Recording, bring, write_v3
from tests.learnsim import SeededEntropy, episode, small_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    import torch

    from client.learning.engines import UnitFrames

UNITS = 40


def stamps(rate_hz: float, frames: int, first_s: float = 0.0) -> np.ndarray:
    return np.rint((first_s + np.arange(frames) / rate_hz) * 1e9).astype(np.int64)


def column(values: Sequence[float]) -> np.ndarray:
    return np.array(values, dtype=np.float32)[:, None]


@given(
    rate=st.floats(5, 500),
    frames=st.integers(2, 400),
    base=st.sampled_from([1.0, 10.0, 50.0]),
    at=st.floats(0, 1e6),
)
@settings(max_examples=60, deadline=None)
def test_a_straight_line_stays_one_at_any_rate(rate: float, frames: int, base: float, at: float) -> None:
    times = stamps(rate, frames, at)
    seconds = (times - times[0]) / 1e9
    found = resampled({"observation.tcp_pos": column(3 - 2 * seconds)}, times, base)["observation.tcp_pos"]
    grid = np.arange(len(found)) / base
    np.testing.assert_allclose(
        found[:, 0], 3 - 2 * np.minimum(grid, seconds[-1]), atol=2e-3 + 1e-5 * seconds[-1]
    )
    assert len(found) == int(seconds[-1] * base + 1e-6) + 1


def test_a_command_keeps_its_last_value_and_a_field_goes_in_a_line() -> None:
    times = stamps(2, 3)
    columns = {
        "action.gripper_cmd": column([-1, 1, 1]),
        "observation.robot_mode": column([7, 7, 3]),
        "observation.joint_vel": column([0, 1, 0]),
    }
    found = resampled(columns, times, 4)
    assert found["action.gripper_cmd"][:, 0].tolist() == [-1, -1, 1, 1, 1]
    assert found["observation.robot_mode"][:, 0].tolist() == [7, 7, 7, 7, 3]
    assert found["observation.joint_vel"][:, 0].tolist() == [0, 0.5, 1, 0.5, 0]
    assert all(one.dtype == np.float32 for one in found.values())


@pytest.mark.parametrize("base", [3.0, 10.0, 25.0, 40.0])
def test_increments_cover_the_same_way_in_other_steps(base: float) -> None:
    way = np.random.default_rng(3).normal(size=(60, 3)).astype(np.float32)
    found = resampled({"action.tcp_pose_delta": way}, stamps(20, 60), base)["action.tcp_pose_delta"]
    np.testing.assert_allclose(found.sum(0), way.sum(0), atol=1e-4)
    even = resampled({"action.tcp_pose_delta": np.ones((60, 3), np.float32)}, stamps(20, 60), base)
    np.testing.assert_allclose(even["action.tcp_pose_delta"][:-2], 20 / base, rtol=1e-5)


def test_at_its_own_rate_an_episode_is_as_it_was() -> None:
    rng = np.random.default_rng(1)
    names = ("observation.tcp_pos", "action.tcp_pose_delta", "action.gripper_cmd")
    columns = {name: rng.normal(size=(50, 3)).astype(np.float32) for name in names}
    found = resampled(columns, stamps(50, 50, 77.0), 50)
    for name, values in columns.items():
        np.testing.assert_allclose(found[name], values, atol=2e-5)


def test_a_rotation_stays_one_and_takes_the_shorter_way() -> None:
    half = np.array([0.0, np.pi / 2 - 0.05, np.pi / 2 + 0.05])  # w changes its sign between the last two
    turned = np.column_stack([np.cos(half), np.sin(half), 0 * half, 0 * half]).astype(np.float32)
    turned = np.where(turned[:, :1] < 0, -turned, turned)
    found = resampled({"observation.tcp_rot": turned}, stamps(1, 3), 2)["observation.tcp_rot"]
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, rtol=1e-6)
    assert abs(found[3, 1]) == pytest.approx(1, abs=1e-3)  # half a turn, and not back through none
    angles = np.array([[3.1, 0, 0], [-3.1, 0, 0]], dtype=np.float32)
    held = resampled({"observation.tcp_rot": angles}, stamps(1, 2), 2)["observation.tcp_rot"]
    assert held[:, 0].tolist() == pytest.approx([3.1, 3.1, -3.1])


def test_equal_stamps_and_single_frames_are_no_trouble() -> None:
    times = np.array([0, 0, 1_000_000_000], dtype=np.int64)
    assert resampled({"observation.tcp_pos": column([1, 2, 3])}, times, 1)["observation.tcp_pos"][
        :, 0
    ].tolist() == [2, 3]
    assert resampled({"action.tcp_pose_delta": column([5])}, times[:1], 10)[
        "action.tcp_pose_delta"
    ].tolist() == [[5]]
    assert resampled({"observation.tcp_pos": column([])}, times[:0], 10)["observation.tcp_pos"].shape == (
        0,
        1,
    )


def test_a_view_opens_episodes_at_the_time_base_of_the_recipe(tmp_path: Path) -> None:
    bring(tmp_path / "s", write_v3(tmp_path / "d", Recording.random(101, 51, 76)))  # at 50 Hz
    named = {"contract_fields": ALLOW, "recipe_inputs": ALLOW, "local_allow": ALLOW}

    def lengths(rate_hz: str | None) -> list[int]:
        opened = open_view(tmp_path / "s", "kita/pick", rate_hz=rate_hz, **named)
        found = opened.episodes("train") + opened.episodes("held-out")
        assert all(
            len(one.fields["tcp_pos"]) == len(one.actions["gripper_cmd"]) == one.length for one in found
        )
        assert all((one.block > 0, one.stratum in {"pick-place", "stack"}) == (True, True) for one in found)
        return sorted(one.length for one in found)

    assert lengths(None) == [51, 76, 101]
    assert lengths("10") == [11, 16, 21]


# --- what unit-level privacy does not hide: cycle time ---


def _attempt(number: int, *, cycle_s: float, rate_hz: float, base_hz: float | None) -> EpisodeArrays:
    """One attempt of ``cycle_s`` seconds, recorded at ``rate_hz``."""
    one = episode(number, frames=max(2, round(cycle_s * rate_hz)))
    if base_hz is None:
        return one
    columns = {f"observation.{name}": values for name, values in one.observation.items()}
    columns |= {f"action.{name}": values for name, values in one.action.items()}
    made = resampled(columns, stamps(rate_hz, len(one.observation["tcp_pos"])), base_hz)
    return EpisodeArrays(
        observation={name: made[f"observation.{name}"] for name in one.observation},
        action={name: made[f"action.{name}"] for name in one.action},
        unit_id=one.unit_id,
    )


class _Watching:
    """A `ClippedSum` that notes how many frames each unit brings, and adds nothing."""

    def __init__(self, parameters: int) -> None:
        self.parameters, self.frames = parameters, []

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        import torch

        del clip
        self.frames += [len(one.inputs) for one in units]
        return [torch.zeros(self.parameters, dtype=torch.float64)]


def _leaving(
    cycles: np.ndarray, rates: np.ndarray, *, base_hz: float | None, k: int
) -> tuple[list[int], Any]:
    """Frames per unit in a step that draws them all, and the shape of what leaves."""
    recipe = small_recipe(sampling_prob="1", frames_per_unit=k, noise_multiplier="1")
    attempts = [
        _attempt(n, cycle_s=cycle, rate_hz=rate, base_hz=base_hz)
        for n, (cycle, rate) in enumerate(zip(cycles, rates, strict=True))
    ]
    engine = _Watching(recipe.parameters)
    steps = PrivateSteps(
        plan=recipe.plan,
        frames=unit_frames(recipe, attempts),
        engine=engine,
        parameters=recipe.parameters,
        noise=SecureNoise(SeededEntropy(4)),
    )
    update = steps.gradient()
    return engine.frames, (update.shape, update.dtype.name, tensor_spec(update).size_bytes)


def test_without_a_time_base_the_frame_count_alone_predicts_cycle_time_and_with_it_nothing_does() -> None:
    rng = np.random.default_rng(11)
    cycles = rng.uniform(1.3, 2.5, UNITS)
    rates = np.full(UNITS, 50.0)
    raw, _ = _leaving(cycles, rates, base_hz=None, k=128)
    guess = np.polyval(np.polyfit(raw, cycles, 1), raw)
    assert np.abs(guess - cycles).mean() < 0.03 * np.abs(cycles.mean() - cycles).mean()
    canonical, shape = _leaving(cycles, rng.choice([20.0, 33.0, 125.0, 500.0], UNITS), base_hz=25.0, k=32)
    assert canonical == [32] * UNITS
    slow, same = _leaving(cycles * 3, rates, base_hz=25.0, k=32)
    assert (slow, same) == (canonical, shape)


@given(
    cycles=st.lists(st.floats(1.4, 4.0), min_size=1, max_size=5),
    rate=st.sampled_from([20.0, 50.0, 125.0, 500.0]),
)
@settings(max_examples=15, deadline=None)
def test_what_leaves_is_of_one_size_whatever_the_durations(cycles: list[float], rate: float) -> None:
    counts, shape = _leaving(np.array(cycles), np.full(len(cycles), rate), base_hz=25.0, k=32)
    assert counts == [32] * len(cycles)
    assert shape == _leaving(np.array([2.0]), np.array([50.0]), base_hz=25.0, k=32)[1]
