# SPDX-License-Identifier: Apache-2.0
"""Lets a ledger die before each write and fsync of its life, and says what is found afterwards; a line of JSON per disk."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from client.privacy import store as module
from policies.privacy.errors import BudgetExhaustedError, BudgetUnknownError
from tests.crashsim import crashes, unavailable
from tests.learnsim import Budget, small_recipe

RECIPE = small_recipe(noise_multiplier="8", steps=190)
LIFE = ("reserve", "touch", "touch", "commit", "reserve b", "cancel b")


def whole_life(folder: Path, done: Callable[[], None]) -> None:
    budget = Budget(folder / "l.db", RECIPE)
    with budget.open() as store:
        budget.reserve(store)
        done()
        for number in (1, 2):
            store.touch("run_a", number, 1)
            done()
        store.commit("run_a")
        done()
        budget.reserve(store, "run_b", block=2)
        done()
        store.cancel("run_b")
        done()


def beginning(folder: Path, done: Callable[[], None]) -> None:
    Budget(folder / "l.db", RECIPE).create().close()
    done()


def found(path: Path) -> dict[str, Any]:
    """What the next start finds; it tries to train again what was paid for, under the same attempt."""
    budget = Budget(path, RECIPE)
    try:
        store = budget.open()
    except BudgetUnknownError as error:
        return {"unknown": str(error), "file": path.exists()}
    with store:
        hold = store.state.holds.get(("run_a", "train"))
        refused = []
        for number in (1, 2):
            if ("run_a", "train", number, 1) in store.state.touched:
                try:
                    store.touch("run_a", number, 1)
                except BudgetExhaustedError:
                    refused.append(number)
        spent, seq = (0 if hold is None else hold.steps_spent), store.state.seq
        touched = len(store.state.touched)
        if hold is not None and hold.open:
            store.touch("run_a", 9, 2)  # a new attempt goes on
        return {"spent": spent, "seq": seq, "touched": touched, "again": refused}


def main() -> None:
    base, scenario, synchronous = Path(sys.argv[1]).resolve(), sys.argv[2], sys.argv[3]
    reason = unavailable()
    if reason is not None:
        print(json.dumps({"skip": reason}))
        return
    start, scratch = base / "start", base / "scratch"
    for folder in (start, scratch):
        folder.mkdir()
    if scenario == "life":
        Budget(start / "l.db", RECIPE).create().close()
    module._PRAGMAS = tuple(one.replace("EXTRA", synchronous) for one in module._PRAGMAS)
    for one in crashes(start, scratch, whole_life if scenario == "life" else beginning):
        for name, folder in (("killed", one.killed), ("power", one.power)):
            line = {"at": one.at, "what": one.what.split()[0], "done": one.done, "disk": name}
            print(json.dumps(line | found(folder / "l.db")))


if __name__ == "__main__":
    main()
