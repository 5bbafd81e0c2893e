# SPDX-License-Identifier: Apache-2.0
"""Four simulated robot cells: Meta-World pick-place (``pick-place-v3``), one per manufacturer of the sandbox.

- A cell differs from the next in where its parts lie, how far its controller moves per command, how heavy its
  part is and how noisy its expert is (`CELLS`). All else is Meta-World 3.1.1 on MuJoCo 3.3.0, state
  observations, nothing rendered.
- `record` writes demonstrations of the scripted expert as a LeRobotDataset v3.0; `rollout` lets a policy act
  in the cell.
- Equal arguments give equal bytes and equal outcomes: every placement and every noise value comes from a
  stream that is named by (seed, cell, purpose, attempt). Two policies that roll out under one ``placements``
  seed meet the same placements, pair by pair.
- Actions are SI: a translation of the tool in metres per control step, and the gripper command (-1 open ... 1
  close). The cell divides by ``COMMAND_M x gain`` to get its controller's command, as the adapter of a real
  cell would.
- Noise of the expert moves the arm, never the label: a recorded action is what the expert wanted.

The simulator steps the same physics as ``env.step`` (a test compares them bit for bit) but leaves out reward
shaping, and restores the state after the hand's homing instead of simulating it for each episode: about 3
times faster.

    record("A", Path("a"), train=250, held_out=50, seed=0)
    rollout("A", policy.act, placements=7, n=20, begin=policy.begin)
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import numpy as np
import numpy.typing as npt

from policies.errors import IriaiError
from sandbox.lerobot_writer import Feature, Frames, write_dataset

if TYPE_CHECKING:
    from pathlib import Path

__all__ = [
    "ACTION_NAMES",
    "CELLS",
    "OBSERVATION_NAMES",
    "Cell",
    "CellError",
    "RecordReport",
    "Simulator",
    "cell_named",
    "check_room",
    "held_out_for",
    "observation19",
    "record",
    "rollout",
    "rollout_placement",
]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
Act = Callable[[Array32], npt.NDArray[np.floating[Any]]]

COMMAND_M: Final = 0.01  # metres that the tool moves for a command of 1 at gain 1
EPISODE_STEPS: Final = 150
HELD_STEPS: Final = 4  # a demonstration ends when success has held this long
SUCCESS_M: Final = 0.07  # object to goal, Meta-World's own radius
ATTEMPTS_PER_EPISODE: Final = 20  # the expert succeeds in more than 9 of 10 placements
FEATURE_GAIN: Final = 5.0
NEAREST_M: Final = 0.15  # object to goal in the plane, Meta-World's own rule
RATE_HZ: Final = 80
ROBOT: Final = "7r-arm+parallel-gripper"
OBSERVATION_NAMES: Final = (
    *("tcp_pos_0", "tcp_pos_1", "tcp_pos_2", "gripper_width_0"),
    *("object_pos_0", "object_pos_1", "object_pos_2", "goal_pos_0", "goal_pos_1", "goal_pos_2"),
)
ACTION_NAMES: Final = ("tcp_pose_delta_0", "tcp_pose_delta_1", "tcp_pose_delta_2", "gripper_cmd_0")
_FRAME_SKIP: Final = 5
_DEMONSTRATION, _ROLLOUT = 0, 1  # purposes of a random stream


class CellError(IriaiError):
    """A cell cannot do what was asked: no such cell, no simulator, or an expert that keeps failing."""

    code = "sandbox.cell"
    exit_code = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """A row of the table. ``object_x_m``: window in which parts lie; ``noise``: in units of the command."""

    name: str
    object_x_m: tuple[float, float]
    gain: float
    mass: float
    noise: float

    @property
    def number(self) -> int:
        """Position in the table; names the cell's random streams."""
        return ord(self.name) - ord("A")

    def placement(self, rng: np.random.Generator) -> Array64:
        """Object and goal position ``[6]`` in metres; drawn again while they are too close in the plane."""
        middle = -sum(self.object_x_m) / 2
        goal_x = (max(-0.1, middle - 0.04), min(0.1, middle + 0.04))
        low = np.array([self.object_x_m[0], 0.6, 0.02, goal_x[0], 0.8, 0.05])
        high = np.array([self.object_x_m[1], 0.7, 0.02, goal_x[1], 0.9, 0.3])
        while True:
            drawn = rng.uniform(low, high)
            if np.linalg.norm(drawn[:2] - drawn[3:5]) >= NEAREST_M:
                return drawn


CELLS: Final[dict[str, Cell]] = {
    "A": Cell(name="A", object_x_m=(-0.10, -0.045), gain=0.70, mass=1.0, noise=0.2),
    "B": Cell(name="B", object_x_m=(-0.055, 0.00), gain=0.85, mass=1.5, noise=0.2),
    "C": Cell(name="C", object_x_m=(-0.005, 0.055), gain=1.00, mass=2.0, noise=0.3),
    "D": Cell(name="D", object_x_m=(0.045, 0.10), gain=1.20, mass=1.0, noise=0.3),
}


def held_out_for(train: int) -> int:
    """Held-out episodes that a cell adds to ``train`` training episodes."""
    return max(4, train // 5)


def observation19(raw: Array32) -> Array32:
    """Raw observations ``[..., 10]`` with the relative features appended, ``[..., 19] float32``.

    5 x (object - hand), 5 x (goal - object), 5 x (goal - hand), computed in float32 from the recorded values.
    """
    hand, thing, goal = raw[..., 0:3], raw[..., 4:7], raw[..., 7:10]
    gain = np.float32(FEATURE_GAIN)
    return np.concatenate(
        [raw, gain * (thing - hand), gain * (goal - thing), gain * (goal - hand)], axis=-1
    ).astype(np.float32)


def cell_named(cell: str | Cell) -> Cell:
    """The cell of a name.

    Raises:
        CellError: No such cell.
    """
    if isinstance(cell, Cell):
        return cell
    if cell not in CELLS:
        raise CellError(need="one of " + ", ".join(CELLS), found=ascii(cell)[:20], remedy="name such a cell")
    return CELLS[cell]


def _stream(seed: int, cell: Cell, purpose: int, attempt: int) -> np.random.Generator:
    return np.random.default_rng(np.random.SeedSequence([seed, cell.number, purpose, attempt]))


def _make_env() -> Any:  # noqa: ANN401  the simulator's own types leave much out
    os.environ.setdefault("MUJOCO_GL", "disable")
    try:
        from metaworld.env_dict import ALL_V3_ENVIRONMENTS_GOAL_OBSERVABLE as ENVIRONMENTS
    except ImportError as error:
        raise CellError(
            need="Meta-World 3.1.1 and MuJoCo 3.3.0", found=str(error), remedy="pip install 'iriai[sandbox]'"
        ) from error
    environments: Any = ENVIRONMENTS  # its own types leave out the seed
    return environments["pick-place-v3-goal-observable"](seed=0)


class Simulator:
    """A cell that runs. Not thread-safe; a second cell in parallel belongs in a second process.

    Call `reset`, then `step` as often as wanted. Observations are ``[10] float32``: hand 3, gripper 1, object
    3, goal 3.
    """

    def __init__(self, cell: str | Cell) -> None:
        self.cell = cell_named(cell)
        self.env = _make_env()
        import mujoco

        self._mujoco = mujoco
        env, model, data = self.env, self.env.model, self.env.data
        env._freeze_rand_vec = True  # noqa: SLF001
        env._set_task_called = True  # noqa: SLF001
        env._last_rand_vec = np.array([0.0, 0.6, 0.02, 0.0, 0.85, 0.2])  # noqa: SLF001
        env.action_scale = COMMAND_M * self.cell.gain
        thing = model.body("obj").id
        model.body_mass[thing] *= self.cell.mass
        model.body_inertia[thing] *= self.cell.mass
        self._bodies = [model.body(name).id for name in ("hand", "rightclaw", "leftclaw", "obj")]
        mujoco.mj_resetData(model, data)
        env._reset_hand()  # noqa: SLF001
        self._kind = mujoco.mjtState.mjSTATE_INTEGRATION
        self._home = np.empty(mujoco.mj_stateSize(model, self._kind))
        mujoco.mj_getState(model, data, self._home, self._kind)
        self._goal = np.zeros(3)

    def reset(self, placement: Array64) -> Array32:
        """Puts hand, object and goal in their places; returns the first observation."""
        model, data = self.env.model, self.env.data
        self._mujoco.mj_resetData(model, data)
        self._mujoco.mj_setState(model, data, self._home, self._kind)
        data.qpos[9:12] = placement[:3]
        data.qvel[9:15] = 0
        self._goal = placement[3:].copy()
        self._mujoco.mj_forward(model, data)
        return self._observe()

    def step(self, command: npt.NDArray[np.floating[Any]]) -> tuple[Array32, bool]:
        """One control step (12.5 ms) of a command ``[4]``, clipped to ±1.

        Returns:
            The observation, and whether the part is at its goal.
        """
        model, data = self.env.model, self.env.data
        moved = data.mocap_pos[0] + np.clip(command[:3], -1, 1) * self.env.action_scale
        data.mocap_pos[0] = np.clip(moved, self.env.mocap_low, self.env.mocap_high)
        data.mocap_quat[0] = (1, 0, 1, 0)
        data.ctrl[:] = (command[3], -command[3])
        self._mujoco.mj_step(model, data, nstep=_FRAME_SKIP)
        self._mujoco.mj_forward(model, data)
        there = float(np.linalg.norm(data.xpos[self._bodies[3]] - self._goal)) <= SUCCESS_M
        return self._observe(), there

    def _observe(self) -> Array32:
        hand, right, left, thing = (self.env.data.xpos[body] for body in self._bodies)
        width = min(max(float(np.linalg.norm(right - left)) / 0.1, 0.0), 1.0)
        return np.concatenate([hand, [width], thing, self._goal]).astype(np.float32)


class _Demonstration(NamedTuple):
    observation: Array32
    action: Array32


def _demonstrate(
    simulator: Simulator,
    expert: Any,  # noqa: ANN401
    rng: np.random.Generator,
) -> _Demonstration | None:
    """One attempt of the expert; None if it failed."""
    cell = simulator.cell
    observation = simulator.reset(cell.placement(rng))
    observations, actions, held = [], [], 0
    full = np.zeros(39)
    scale = np.array([COMMAND_M * cell.gain] * 3 + [1.0])
    for _ in range(EPISODE_STEPS):
        full[:7], full[-3:] = observation[:7], observation[7:]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=r"Constant\(s\) may be too high", category=UserWarning)
            wanted = np.clip(expert.get_action(full), -1, 1).astype(np.float64)
        observations.append(observation)
        actions.append((wanted * scale).astype(np.float32))
        wanted[:3] += cell.noise * rng.standard_normal(3)
        observation, there = simulator.step(wanted)
        held = held + 1 if there else 0
        if held == HELD_STEPS:
            return _Demonstration(np.stack(observations), np.stack(actions))
    return None


def demonstrations(cell: str | Cell, *, seed: int) -> Iterator[_Demonstration]:
    """Endless successful demonstrations of the cell's expert.

    Raises:
        CellError: The expert failed in 20 placements in a row, or the simulator is not installed.
    """
    simulator = Simulator(cell)
    from metaworld.policies import ENV_POLICY_MAP

    experts: Any = ENV_POLICY_MAP
    expert = experts["pick-place-v3"]()
    attempt, failures = 0, 0
    while failures < ATTEMPTS_PER_EPISODE:
        done = _demonstrate(simulator, expert, _stream(seed, simulator.cell, _DEMONSTRATION, attempt))
        attempt += 1
        failures = 0 if done else failures + 1
        if done:
            yield done
    raise CellError(
        need="an expert that succeeds",
        found=f"{failures} failures in a row",
        remedy="check the cell's parameters",
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class RecordReport:
    """What `record` wrote."""

    path: Path
    train: int
    held_out: int
    frames: int


def record(
    cell: str | Cell, out_dir: Path, *, train: int, held_out: int | None = None, seed: int
) -> RecordReport:
    """Writes successful demonstrations as a LeRobotDataset v3.0 with a declared split.

    Args:
        cell: One of `CELLS`, or a cell of other parameters (a scenario; name it as such).
        out_dir: Folder to make; it must not exist or be empty.
        train: Training episodes, the first in the folder.
        held_out: Held-out episodes after them; ``held_out_for(train)`` if not given.
        seed: Names the demonstrations: equal seeds give equal bytes.

    Raises:
        CellError: The folder is in use, or `demonstrations` failed.
    """
    found, held = cell_named(cell), held_out_for(train) if held_out is None else held_out
    check_room(out_dir)
    source = demonstrations(found, seed=seed)
    episodes = [next(source) for _ in range(train + held)]
    write_dataset(
        out_dir,
        rate_hz=RATE_HZ,
        robot_type=ROBOT,
        features={
            "observation.state": Feature(names=OBSERVATION_NAMES),
            "action": Feature(names=ACTION_NAMES),
        },
        episodes=[
            Frames(task="pick-place", columns={"observation.state": done.observation, "action": done.action})
            for done in episodes
        ],
        splits={"train": (0, train), "held-out": (train, train + held)},
    )
    frames = sum(len(done.action) for done in episodes)
    return RecordReport(path=out_dir, train=train, held_out=held, frames=frames)


def check_room(out_dir: Path) -> None:
    """A folder that is empty, or not there.

    Raises:
        CellError: It is in use.
    """
    if out_dir.exists() and any(out_dir.iterdir()):
        raise CellError(need="an empty folder", found="one with files", remedy="choose another folder")


def rollout_placement(cell: Cell, *, placements: int, number: int) -> Array64:
    """Where an attempt of a rollout begins, ``[6]``: equal for equal seeds, whatever acts."""
    return cell.placement(_stream(placements, cell, _ROLLOUT, number))


def rollout(
    cell: str | Cell | Simulator,
    act: Act,
    *,
    placements: int,
    n: int,
    begin: Callable[[], None] | None = None,
) -> list[bool]:
    """Lets a policy act on ``n`` placements of the cell.

    Args:
        cell: Where; a `Simulator` is reused (making one costs about 0.4 s).
        act: From an observation ``[19] float32`` (`observation19`) to an action ``[4]`` in SI. A value that
            is not finite ends the episode as a failure.
        placements: Seed of the placements; equal seeds give equal placements, whatever the policy.
        n: Number of episodes.
        begin: Called before each episode, for policies with a memory (action chunks).

    Returns:
        Per episode, whether the part was at its goal at some step within 150.
    """
    simulator = cell if isinstance(cell, Simulator) else Simulator(cell)
    scale = np.array([COMMAND_M * simulator.cell.gain] * 3 + [1.0])
    outcomes = []
    for number in range(n):
        if begin is not None:
            begin()
        placement = rollout_placement(simulator.cell, placements=placements, number=number)
        observation, there = simulator.reset(placement), False
        for _ in range(EPISODE_STEPS):
            action = np.asarray(act(observation19(observation)), dtype=np.float64)
            if not np.isfinite(action).all():
                break
            observation, there = simulator.step(np.clip(action / scale, -1, 1))
            if there:
                break
        outcomes.append(there)
    return outcomes
