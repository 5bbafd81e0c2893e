# SPDX-License-Identifier: Apache-2.0
"""The simulated cells: placements always; physics, recording and rollouts where the simulator is installed."""

from __future__ import annotations

import importlib.util
import json
from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data import import_path, open_view
from sandbox.cells import (
    CELLS,
    Cell,
    CellError,
    Simulator,
    cell_named,
    held_out_for,
    observation19,
    record,
    rollout,
)
from tests.datasim import KEY, RIGHTS, SimClock, tree

if TYPE_CHECKING:
    from pathlib import Path

needs_simulator = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="Meta-World is not installed: pip install 'iriai[sandbox]'",
)
FIELDS = frozenset({"tcp_pos", "gripper_width", "object_pos", "goal_pos", "tcp_pose_delta", "gripper_cmd"})


@pytest.mark.parametrize("name", list(CELLS))
def test_placements_lie_in_the_cells_window_and_far_enough(name: str) -> None:
    cell, rng = CELLS[name], np.random.default_rng(0)
    drawn = np.array([cell.placement(rng) for _ in range(500)])
    assert drawn[:, 0].min() >= cell.object_x_m[0]
    assert drawn[:, 0].max() <= cell.object_x_m[1]
    assert np.abs(drawn[:, 3]).max() <= 0.1
    assert np.linalg.norm(drawn[:, :2] - drawn[:, 3:5], axis=1).min() >= 0.15
    assert (np.sign(drawn[:, 3].mean()) == -np.sign(sum(cell.object_x_m))) or abs(sum(cell.object_x_m)) < 0.06


def test_relative_features_follow_the_recorded_values() -> None:
    raw = np.arange(20, dtype=np.float32).reshape(2, 10)
    whole = observation19(raw)
    assert whole.shape == (2, 19)
    assert whole[0, 10:13].tolist() == [20, 20, 20]
    assert whole[0, 13:16].tolist() == [15, 15, 15]
    assert whole[0, 16:19].tolist() == [35, 35, 35]


def test_sizes_and_names() -> None:
    assert [held_out_for(n) for n in (5, 10, 25, 250)] == [4, 4, 5, 50]
    with pytest.raises(CellError, match="A, B, C, D"):
        cell_named("E")


@pytest.mark.mujoco
@needs_simulator
def test_three_episodes_recorded_twice_are_the_same_bytes_and_import_without_a_map(tmp_path: Path) -> None:
    for name in ("one", "two"):
        report = record("B", tmp_path / name, train=2, held_out=1, seed=3)
    assert (report.train, report.held_out) == (2, 1)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")
    assert json.loads((tmp_path / "one/meta/info.json").read_text())["splits"] == {
        "train": "0:2",
        "held-out": "2:3",
    }
    with pytest.raises(CellError, match="empty folder"):
        record("B", tmp_path / "one", train=1, seed=3)
    record("B", tmp_path / "other", train=2, held_out=1, seed=4)
    assert tree(tmp_path / "one") != tree(tmp_path / "other")
    imported = import_path(
        tmp_path / "s",
        tmp_path / "one",
        dataset="b/pick",
        allow=FIELDS,
        required=FIELDS,
        rights=RIGHTS,
        node_key=KEY,
        clock=SimClock(),
    )
    assert (imported.episodes_added, imported.held_out_added, imported.dropped_columns) == (3, 1, ())
    view = open_view(
        tmp_path / "s", "b/pick", contract_fields=FIELDS, recipe_inputs=FIELDS, local_allow=FIELDS
    )
    (episode, _) = view.episodes("train")
    # SI: metres per control step, at most the controller's gain times a centimetre
    assert 0.004 < np.abs(episode.fields["tcp_pose_delta"]).max() <= 0.0085 + 1e-9


@pytest.mark.mujoco
@needs_simulator
def test_steps_are_those_of_the_published_environment() -> None:
    from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as ENVIRONMENTS

    cell = CELLS["D"]
    simulator, env = Simulator(cell), ENVIRONMENTS["pick-place-v3-goal-observable"](seed=3)
    env._freeze_rand_vec = env._set_task_called = True
    env.action_scale = 0.01 * cell.gain
    thing = env.model.body("obj").id
    env.model.body_mass[thing] *= cell.mass
    env.model.body_inertia[thing] *= cell.mass
    rng = np.random.default_rng(5)
    for _ in range(2):
        env._last_rand_vec = cell.placement(rng)
        theirs, _ = env.reset()
        ours = simulator.reset(env._last_rand_vec)
        for step in range(60):
            command = rng.uniform(-1, 1, 4).astype(np.float32)
            if step < 40:  # down onto the part, so that contacts are compared too
                command[:3] = [*np.clip(10 * (theirs[4:6] - theirs[:2]), -1, 1), -0.5]
            assert ours.tobytes() == np.concatenate([theirs[:7], theirs[-3:]]).astype(np.float32).tobytes()
            theirs, *_, info = env.step(command)
            ours, there = simulator.step(command)
            assert there == bool(info["success"])


@pytest.mark.mujoco
@needs_simulator
def test_rollouts_are_paired_and_a_bad_policy_fails() -> None:
    simulator = Simulator(Cell(name="C", object_x_m=(-0.005, 0.055), gain=1.0, mass=2.0, noise=0.3))
    met: dict[str, list[bytes]] = {"still": [], "nan": []}

    def still(observation: np.ndarray) -> np.ndarray:
        met["still"].append(observation[4:10].tobytes())
        return np.zeros(4)

    def nan(observation: np.ndarray) -> np.ndarray:
        met["nan"].append(observation[4:10].tobytes())
        return np.full(4, np.nan)

    assert rollout(simulator, still, placements=7, n=2) == [False, False]
    begun: list[int] = []
    assert rollout(simulator, nan, placements=7, n=2, begin=lambda: begun.append(1)) == [False, False]
    assert len(begun) == 2
    assert met["nan"] == [met["still"][0], met["still"][150]]


@pytest.mark.mujoco
@needs_simulator
def test_the_experts_command_in_si_succeeds() -> None:
    from metaworld.policies import ENV_POLICY_MAP

    expert = ENV_POLICY_MAP["pick-place-v3"]()

    def act(observation: np.ndarray) -> np.ndarray:
        full = np.zeros(39)
        full[:7], full[-3:] = observation[:7], observation[7:10]
        wanted = expert.get_action(full).astype(np.float64)
        return np.clip(wanted, -1, 1) * np.array([0.007, 0.007, 0.007, 1.0])

    import warnings

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", category=UserWarning)
        assert rollout("A", act, placements=1, n=3) == [True, True, True]
