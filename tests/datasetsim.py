# SPDX-License-Identifier: Apache-2.0
"""``iriai-node data`` as a person calls it: a fresh node, recordings on disk, and what each command prints.

home = Site(tmp_path)                      # `init` alone; no broker is asked
home.add(log(tmp_path / "a.csv"), "--map", write_map(tmp_path))
"""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from client.membership import initialise
from client.settings import Home
from tests.nodesim import SeedEntropy

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app

if TYPE_CHECKING:
    from pathlib import Path

NAME = "kita/log"
COLUMNS = ("t", *(f"q{i}" for i in range(6)), *(f"v{i}" for i in range(6)))
MAP = """
table   = {{delimiter = "{delimiter}", decimal = "{decimal}"}}
clock   = {{column = "t", unit = "s", kind = "{kind}"}}
segment = {{by = "file", max_gap_s = {gap}, min_frames = 10}}
signal  = [{{field = "joint_pos", columns = ["q{{0..5}}"], unit = "{unit}", role = "observation"}},
           {{field = "joint_vel", columns = ["v{{0..5}}"], unit = "rad/s", role = "observation"}}]
[embodiment]
class = "{robot}"
dof = 6
action_space = "none"
joint_pos_limit = [{limits}]
"""


@dataclass
class Done:
    """What a command printed, and its exit code."""

    code: int
    text: str
    envelope: dict[str, Any] = field(default_factory=dict)

    @property
    def data(self) -> dict[str, Any]:
        found: dict[str, Any] = self.envelope["data"]
        return found

    @property
    def refused(self) -> str:
        return str(self.envelope["error"]["code"])


class Site:
    """A node that joined nobody."""

    def __init__(self, folder: Path) -> None:
        self.home = Home(folder / "node")
        initialise(self.home, entropy=SeedEntropy(b"site"))

    def run(self, *words: object) -> Done:
        line = ["data", *map(str, words), "--dir", str(self.home.root), "--json"]
        found = CliRunner().invoke(app, line, catch_exceptions=False)
        return Done(found.exit_code, found.stderr, json.loads(found.stdout or "{}"))

    def add(self, source: Path, *words: object, name: str = NAME) -> Done:
        return self.run("add", source, "--dataset", name, "--no-contract", *words)

    def stored(self) -> dict[str, bytes]:
        """Every file of the store but its lock."""
        files = [one for one in sorted(self.home.data.rglob("*")) if one.is_file()]
        return {
            str(one.relative_to(self.home.data)): one.read_bytes() for one in files if one.name != ".lock"
        }


def write_map(folder: Path, **changes: str) -> Path:
    """The map of `log`."""
    said = {"delimiter": ",", "decimal": ".", "kind": "controller", "gap": "0.5", "unit": "rad"}
    said |= {"robot": "6r-arm", "limits": ", ".join(['["-6.3", "6.3"]'] * 6)}
    path = folder / "map.toml"
    path.write_text(MAP.format(**(said | changes)))
    return path


def rows(count: int = 120, *, seed: int = 0, step_s: float = 0.02) -> np.ndarray:
    """Stamps, six angles that swing and their velocities."""
    rng = np.random.default_rng(seed)
    time = np.arange(count)[:, None] * step_s
    pace, phase = rng.uniform(1.0, 2.0, (1, 6)), rng.uniform(0, 6.0, (1, 6))
    return np.hstack([10 + time, np.sin(pace * time + phase), pace * np.cos(pace * time + phase)])


def log(
    path: Path,
    values: np.ndarray | None = None,
    *,
    columns: tuple[str, ...] = COLUMNS,
    delimiter: str = ",",
    decimal: str = ".",
    end: str = "\n",
) -> Path:
    """A controller log of `rows`, or of other values; NaN is an empty cell."""
    table = rows() if values is None else values
    lines = [delimiter.join(columns)]
    lines += [
        delimiter.join("" if np.isnan(v) else f"{v:.6f}".replace(".", decimal) for v in row) for row in table
    ]
    path.write_bytes((end.join(lines) + end).encode())
    return path
