# SPDX-License-Identifier: Apache-2.0
"""Logs of a six-axis arm that swings: angles, velocities, torques, currents, and whether a grip was lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

COLUMNS = ["t"] + [f"{letter}{number}" for letter in "qvmc" for number in range(6)] + ["tool", "lost"]
FRAMES = 120
MAP = """
clock   = {column = "t", unit = "s", kind = "controller"}
segment = {by = "file", max_gap_s = 0.5, min_frames = 10}
signal  = [{field = "joint_pos", columns = ["q{0..5}"], unit = "rad", role = "observation"},
           {field = "joint_vel", columns = ["v{0..5}"], unit = "rad/s", role = "observation"},
           {field = "joint_torque", columns = ["m{0..5}"], unit = "Nm", role = "observation"},
           {field = "joint_current", columns = ["c{0..5}"], unit = "A", role = "observation"},
           {field = "tool_current", columns = ["tool"], unit = "A", role = "observation"}]
label   = [{field = "grip_lost", column = "lost", values = {"1" = true, "0" = false}}]
[embodiment]
class = "6r-arm"
dof = 6
action_space = "none"
"""


def arm_logs(folder: Path, *, episodes: int = 12, labelled: bool = True) -> tuple[Path, Path]:
    """A folder of logs, and the signal map that reads them; without labels nobody said how a grip went."""
    logs = folder / "logs"
    logs.mkdir(parents=True)
    for number in range(episodes):
        rng = np.random.default_rng(number)
        time = np.arange(FRAMES)[:, None] * 0.008
        pace, phase = rng.uniform(1.0, 2.0, (1, 6)), rng.uniform(0, 6.0, (1, 6))
        angle = pace * time + phase
        said = ["" if not labelled else str(int(frame > FRAMES // 2)) for frame in range(FRAMES)]
        values = [time + 10, np.sin(angle), pace * np.cos(angle), 9 * np.sin(angle), 3 * np.cos(angle)]
        table = np.hstack([*values, 0.3 + 0.2 * np.sin(3 * time)])
        rows = [",".join([*(f"{one:.6f}" for one in row), end]) for row, end in zip(table, said, strict=True)]
        (logs / f"{number:02}.csv").write_text("\n".join([",".join(COLUMNS), *rows]) + "\n")
    (folder / "map.toml").write_text(MAP)
    return logs, folder / "map.toml"
