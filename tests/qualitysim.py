# SPDX-License-Identifier: Apache-2.0
"""A clean recording of a six-axis arm, its planted defects, and a store that holds such recordings."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from client.data import import_path
from client.data.embodiment import Embodiment
from client.data.frames import Frames
from client.data.quality import QualitySpec
from tests.datasim import KEY, NODE, RIGHTS, SimClock

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from client.data import ImportReport

__all__ = [
    "ALLOW",
    "KEY",
    "MAP",
    "NODE",
    "RIGHTS",
    "SPEC",
    "SimClock",
    "arm",
    "changed",
    "imported",
    "planted",
    "write_csv",
]

DOF = 6
ALLOW = frozenset({"joint_pos", "joint_vel"})
_LIMITS = (
    'joint_pos_limit = [[-3, 3]], joint_vel_limit = [["-3.14", "3.14"]], joint_torque_limit = [[-150, 150]]'
)
MAP = f"""
clock   = {{column = "t", unit = "ns", kind = "host"}}
segment = {{by = "column", column = "run"}}
signal  = [{{field = "joint_pos", columns = ["q{{0..5}}"], unit = "rad", role = "observation"}},
           {{field = "joint_vel", columns = ["v{{0..5}}"], unit = "rad/s", role = "observation"}},
           {{field = "joint_pos", columns = ["a{{0..5}}"], unit = "rad", role = "action"}}]
embodiment = {{class = "6r-arm", dof = 6, action_space = "joint-pos", {_LIMITS}}}
task    = "pick-place"
"""
SPEC = QualitySpec(
    embodiment=Embodiment.model_validate(
        {
            "class": "6r-arm",
            "dof": DOF,
            "action_space": "joint-pos",
            "joint_pos_limit": [["-3", "3"]],
            "joint_vel_limit": [["-3.14", "3.14"]],
            "joint_torque_limit": [["-150", "150"]],
        }
    ),
    tracking_p95=0.2,
)


def arm(seed: int = 0, frames: int = 150, clock: str = "host") -> Frames:
    """A clean episode at 100 Hz: six joints move, measurements follow commands after two frames."""
    rng = np.random.default_rng(seed)
    speed = rng.uniform(0.2, 0.5, DOF)
    phase = rng.uniform(0, 6, DOF)
    time_s = np.arange(frames + 2) / 100
    path = (
        np.sin(2 * speed * time_s[:, None] + phase)
        + 0.1 * np.sin(5 * speed * time_s[:, None] + 2 * phase)
        + 0.02 * np.sin(45 * speed * time_s[:, None])
    )
    position = path[:-2] + rng.normal(0, 1e-5, (frames, DOF))
    torque = 40 * np.cos(2 * speed * time_s[:-2, None] + phase) + rng.normal(0, 0.1, (frames, DOF))
    stamps = np.arange(frames) * 10_000_000 + rng.integers(-200_000, 200_000, frames)
    return Frames(
        columns={
            "observation.joint_pos": position.astype(np.float32),
            "observation.joint_vel": np.gradient(position, 0.01, axis=0).astype(np.float32),
            "observation.joint_torque": torque.astype(np.float32),
            "action.joint_pos": path[2:].astype(np.float32),
        },
        labels={},
        stamps_ns=stamps.astype(np.int64),
        clock=clock,  # type: ignore[arg-type]
        content="0" * 64,
        missing_rows=0,
    )


def changed(frames: Frames, column: str, values: np.ndarray) -> Frames:
    """The episode with another column."""
    return replace(frames, columns={**frames.columns, column: values.astype(np.float32)})


def planted(check: str, frames: Frames | None = None) -> Frames:
    """A clean episode with exactly one defect."""
    frames = frames or arm()
    values = {key: one.astype(np.float64) for key, one in frames.columns.items()}
    stamps = frames.stamps_ns.copy()
    if check == "schema":
        values["observation.joint_torque"][20:30, 2] = np.nan
    elif check == "time":
        for at in (30, 70, 71, 110):
            stamps[at:] += 40_000_000
    elif check == "frozen":
        values["observation.joint_torque"][:, 3] = values["observation.joint_torque"][0, 3]
    elif check == "saturation":
        values["observation.joint_torque"][100:140, 1] = 150
    elif check == "lag":
        command = values["action.joint_pos"]
        values["action.joint_pos"] = np.concatenate([command[:1].repeat(7, axis=0), command[:-7]])
    elif check == "tracking":
        values["action.joint_pos"][:, 4] += 0.4
    elif check == "idle":
        values["observation.joint_vel"] *= 1e-3
        for key in ("observation.joint_pos", "action.joint_pos"):
            values[key] = values[key][0] + (values[key] - values[key][0]) * 1e-3
    elif check == "jumps":
        values["observation.joint_pos"][90:92, 5] += 0.5
    elif check == "limits":
        values["observation.joint_vel"] = np.rad2deg(values["observation.joint_vel"])
    else:
        raise AssertionError(check)
    columns = {key: one.astype(np.float32) for key, one in values.items()}
    return replace(frames, columns=columns, stamps_ns=stamps)


def write_csv(path: Path, episodes: Sequence[Frames], *, first: int = 0) -> Path:
    """A controller log of episodes, one ``run`` each."""
    header = ["t", "run", *(f"{name}{i}" for name in "qva" for i in range(DOF))]
    lines = [",".join(header)]
    start = 0
    for number, one in enumerate(episodes):
        columns = [
            one.columns[key] for key in ("observation.joint_pos", "observation.joint_vel", "action.joint_pos")
        ]
        for row, stamp in enumerate(one.stamps_ns):
            cells = ["" if np.isnan(v) else repr(float(v)) for column in columns for v in column[row]]
            lines.append(",".join([str(start + int(stamp)), f"r{first + number}", *cells]))
        start += int(one.stamps_ns[-1]) + 10_000_000_000
    path.write_text("\n".join(lines) + "\n")
    return path


def imported(
    tmp: Path,
    episodes: Sequence[Frames],
    *,
    dataset: str = "kita/pick",
    root: Path | None = None,
    **options: Any,
) -> tuple[Path, ImportReport]:
    """A store with these episodes; returns its folder and the report of the import."""
    (tmp / "map.toml").write_text(options.pop("text", MAP))
    name = options.pop("name", f"{dataset.replace('/', '-')}-{len(episodes)}")
    source = write_csv(tmp / f"{name}.csv", episodes, first=options.pop("first", 0))
    home = root or tmp / "store"
    report = import_path(
        home,
        source,
        dataset=dataset,
        signal_map=tmp / "map.toml",
        **{"allow": ALLOW, "rights": RIGHTS, "node_key": KEY, "clock": SimClock(), **options},
    )
    return home, report
