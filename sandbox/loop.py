# SPDX-License-Identifier: Apache-2.0
"""Closing the loop in a simulated cell: a package acts through its service, and what it did becomes data.

    with served(package, folder=site.folder, log=log) as door:
        outcomes = run_cell(door, "A", placements=7, n=10)

- The service is a process of its own, started by the command that a maker would type; the cell asks it over
  HTTP at each control step, as a robot's controller would.
- Stamps are simulated time: a step is 12.5 ms, whatever the machine took for it. The service is told so
  (``--clock simulation``), so it judges no age; silence it judges all the same.
- **The person of the sandbox**: whether an attempt succeeded is said by the simulator's own signal, under the
  owner's token, in the place of somebody who looks at a real cell. Nothing else in the sandbox is a person.
- An attempt in which the service answers no action ends there, as a failure, and its owner resumes.
"""

from __future__ import annotations

import contextlib
import http.client
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import numpy as np

from client.deploy.token import PROOF, fresh_nonce, proves, read_token, signed
from client.entropy import SystemEntropy
from sandbox.cells import COMMAND_M, EPISODE_STEPS, RATE_HZ, Simulator, rollout_placement
from sandbox.errors import CommandError
from sandbox.processes import script, start, wait_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sandbox.cells import Array32, Array64, Cell
    from sandbox.federation import Federation, Site

__all__ = ["Attempt", "Door", "close_loop", "run_cell", "served"]

ATTEMPTS: Final = 10
TICK_NS: Final = 1_000_000_000 // RATE_HZ
_PAUSE_TICKS: Final = RATE_HZ  # a second between two attempts: stamps go on
_READY_S: Final = 60.0
_ANSWER_S: Final = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """One attempt of the cell: how it ended, how many steps it took, and the flags that guards raised."""

    success: bool
    steps: int
    flags: tuple[str, ...]


class Door:
    """A service as its cell and its owner reach it; keeps one connection, and believes no answer unproved."""

    def __init__(self, url: str, *, cell_token: str, owner_token: str) -> None:
        parts = urlsplit(url)
        self._connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=_ANSWER_S)
        self._tokens = {False: cell_token, True: owner_token}
        self.tick = 0

    def ask(self, method: str, path: str, body: object = None, *, owner: bool = False) -> dict[str, Any]:
        """The answer to a request.

        Raises:
            CommandError: A refusal, in the service's own words; or an answer of somebody else.
        """
        token, nonce = self._tokens[owner], fresh_nonce(SystemEntropy())
        data = b"" if body is None else json.dumps(body).encode("ascii")
        headers = {
            "Authorization": signed(token, method, path, data, nonce=nonce),
            "Content-Type": "application/json",
        }
        self._connection.request(method, path, data, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        proved = proves(token, nonce, answer.status, text, given=answer.headers.get(PROOF, ""))
        if not proved and answer.status != 401:  # noqa: PLR2004
            raise CommandError(
                need="an answer with the service's proof",
                found="one without it: another process listens at its port",
                remedy="stop the cell; look which process it is",
            )
        found: dict[str, Any] = json.loads(text)
        if answer.status != 200:  # noqa: PLR2004
            raise CommandError(
                need=f"{method} {path} to be answered: {found.get('need')}",
                found=f"{found.get('code')}: {found.get('found')}",
                remedy=str(found.get("remedy")),
            )
        return found

    def infer(self, observation: Array32) -> dict[str, Any]:
        """The answer to one control step; its number and its stamp are the cell's."""
        body = {"observation": observation.tolist(), "stamp_ns": self.tick * TICK_NS, "seq": self.tick}
        self.tick += 1
        return self.ask("POST", "/v1/infer", body)

    def end(self, *, success: bool) -> None:
        """The person of the sandbox says how the attempt ended; the cell stands for a second."""
        self.ask("POST", "/v1/episode/end", {"outcome": "success" if success else "fail"}, owner=True)
        self.tick += _PAUSE_TICKS

    def close(self) -> None:
        """Closes the connection."""
        self._connection.close()


@contextlib.contextmanager
def served(package: Path, *, folder: Path, log: Path, options: Sequence[str] = ()) -> Iterator[Door]:
    """A package served by a process of its own, and stopped at the end.

    Args:
        package: The file.
        folder: Of the node.
        log: What the process says.
        options: More words of ``iriai-node models serve``.

    Raises:
        StartError: It does not come up.
    """
    words = ["models", "serve", str(package), "--clock", "simulation", "--dir", str(folder), *options]
    service = start("serve", [script("iriai-node"), *words], log=log)
    told: dict[str, Any] = {}

    def ready() -> bool:
        """Whether this process, and none that was killed before, says where it listens."""
        with contextlib.suppress(OSError, ValueError):
            told.update(json.loads((folder / "serving" / "cell" / "service.json").read_bytes()))
        return told.get("pid") == service.pid

    try:
        wait_for("the model to be served", ready, timeout_s=_READY_S, service=service)
        tokens = {name: read_token(Path(told[name])) for name in ("cell_token", "owner_token")}
        with contextlib.closing(Door(told["url"], **tokens)) as door:
            yield door
    finally:
        service.stop()


def close_loop(
    federation: Federation, site: Site, model: str, *, placements: int, n: int = ATTEMPTS
) -> dict[str, Any]:
    """A maker packages its model, lets it act in its cell, and imports what was recorded.

    Where no training at the site beat the common model, that one is packaged.

    Args:
        federation: Whose site it is; its contract says what may be imported.
        site: One whose model was pulled and trained on.
        model: Digest of the released model.
        placements: Seed of the placements.
        n: Number of attempts.

    Returns:
        Attempts, successes, flags that guards raised, and what the import added.
    """
    package = site.folder / "individual.iriai"
    rows = federation.node(site, "models", "list")["models"]
    own = ["--individual"] if any(one["model"] == model and one["individual"] for one in rows) else []
    federation.node(site, "models", "package", model, *own, "--out", str(package))
    with served(package, folder=site.folder, log=federation.folder / "logs" / "serve.log") as door:
        attempts = run_cell(door, site.maker.cell, placements=placements, n=n)
        recorded = Path(door.ask("GET", "/v1/status")["recorder"]["folder"])
    words = ["--dataset", site.maker.dataset, "--map", str(recorded / "signalmap.toml")]
    words += ["--contract", federation.contract, "--no-publish"]
    added = federation.node(site, "data", "add", str(recorded), *words)
    return {
        "party": site.name,
        "cell": site.maker.cell,
        "attempts": len(attempts),
        "successes": sum(one.success for one in attempts),
        "flags": sorted({flag for one in attempts for flag in one.flags}),
        "episodes_added": added["episodes_added"],
    }


def run_cell(door: Door, cell: str | Cell | Simulator, *, placements: int, n: int) -> list[Attempt]:
    """Lets a served model act on ``n`` placements of a cell; the same ones as `sandbox.cells.rollout`.

    Args:
        door: The service.
        cell: Where.
        placements: Seed of the placements.
        n: Number of attempts.
    """
    simulator = cell if isinstance(cell, Simulator) else Simulator(cell)
    attempts = []
    for number in range(n):
        placement = rollout_placement(simulator.cell, placements=placements, number=number)
        attempts.append(_attempt(door, simulator, placement))
        door.end(success=attempts[-1].success)
        if door.ask("GET", "/v1/status")["state"] == "fallback":
            door.ask("POST", "/v1/resume", owner=True)
    return attempts


def _attempt(door: Door, simulator: Simulator, placement: Array64) -> Attempt:
    scale = np.array([COMMAND_M * simulator.cell.gain] * 3 + [1.0])
    observation, there = simulator.reset(placement), False
    flags: dict[str, None] = {}
    steps = 0
    while steps < EPISODE_STEPS and not there:
        answer = door.infer(observation)
        flags.update(dict.fromkeys(answer["flags"]))
        if answer["action_chunk"] is None:
            break
        for action in answer["action_chunk"]:
            observation, there = simulator.step(np.clip(np.array(action) / scale, -1, 1))
            steps += 1
            if there:
                break
    return Attempt(success=there, steps=steps, flags=tuple(flags))
