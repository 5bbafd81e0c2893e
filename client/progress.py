# SPDX-License-Identifier: Apache-2.0
"""How far training is, in ``run.json`` for ``iriai-node status``: round, step, seconds, and when it was told.

Told at most once a second beside the first and the last step of a round: the file is for a person. It says
nothing about data: no loss, no count of episodes. What was told last stays there, so whoever shows it says
when that was, and `is_training` says whether the round's steps are all done by now.

    progress = Progress(home, clock)
    tell = progress.of(run, round_number, rounds)
    tell(1, 20)
    said(home)                      # {"pid": …, "since_ms": …, "progress": {…}}
    words_of(said(home)["progress"])   # "run_… round 30 of 30, done 2026-11-29T09:41:54Z"
"""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any, Final

from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.settings import Home
    from policies.ports import Clock

__all__ = ["Progress", "is_training", "said", "words_of"]

_EVERY_MS: Final = 1000
_PRIVATE: Final = 0o600


class Progress:
    """Writes how far training is; never raises for a file that cannot be written."""

    def __init__(self, home: Home, clock: Clock) -> None:
        self._home = home
        self._clock = clock

    def of(self, run: str, round_number: int, rounds: int) -> Callable[[int, int], None]:
        """A function that is told steps done and steps in all."""
        began_ms, told_ms = self._clock.now_ms(), 0

        def tell(step: int, steps: int) -> None:
            nonlocal told_ms
            now_ms = self._clock.now_ms()
            if step < steps and abs(now_ms - told_ms) < _EVERY_MS:
                return
            told_ms = now_ms
            self._write(
                {
                    "run": run,
                    "round": round_number,
                    "rounds": rounds,
                    "step": step,
                    "steps": steps,
                    "seconds": max(0, now_ms - began_ms) // 1000,
                    "at_ms": now_ms,
                }
            )

        return tell

    def _write(self, progress: dict[str, Any]) -> None:
        path = self._home.state
        temporary = path.with_name(f".{path.name}.progress")
        data = json.dumps({**said(self._home), "progress": progress}).encode("ascii")
        try:
            with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, _PRIVATE), "wb") as file:
                file.write(data)
            temporary.replace(path)
        except OSError:  # a full disk stops no round for a line on a screen
            return


def said(home: Home) -> dict[str, Any]:
    """What the worker wrote down last; nothing where it cannot be read."""
    try:
        found = json.loads(home.state.read_bytes())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def is_training(progress: dict[str, Any]) -> bool:
    """Whether steps of the round that was told last are still to come."""
    step, steps = progress.get("step"), progress.get("steps")
    return isinstance(step, int) and isinstance(steps, int) and step < steps


def words_of(progress: dict[str, Any]) -> str:
    """One line for a person: what was done last, and when."""
    of = {name: progress.get(name) for name in ("run", "round", "rounds", "step", "steps", "seconds")}
    at_ms = progress.get("at_ms")
    of["at"] = iso_s(at_ms) if isinstance(at_ms, int) else "at an unknown time"
    if is_training(progress):
        return "{run} round {round} of {rounds}, step {step} of {steps} after {seconds} s, {at}".format(**of)
    return "{run} round {round} of {rounds}, done {at}".format(**of)
