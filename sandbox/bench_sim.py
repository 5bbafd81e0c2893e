# SPDX-License-Identifier: Apache-2.0
"""What pooling gains in simulation: four cells, a few demonstrations each, success on fresh placements.

One seed is one set of recordings and placements. Per seed, in this process, with the code of real runs
(`client.learning.train.Trainer`, `policies.server_step`, the ring of the secure sum; equal weights):

1. each of the four cells records ``episodes`` demonstrations and a few that are held out; a cell and seed is
   recorded once and kept in the folder;
2. ``local``: each cell trains alone, 2,000 Adam steps; ``pooled``: one model on all of them side by side;
3. ``federated``: 100 rounds of 20 local steps, the server with momentum; ``federated_mean``: plain FedAvg, 40
   rounds of 50;
4. ``individual``: each cell trains the common model on, as `models personalise` does; the best, or the
   common one, by the loss on the cell's own held-out demonstrations;
5. each model acts in every cell on the same ``rollouts`` placements, which no demonstration used.

- A rate has Wilson's 95 % interval over its rollouts (`sandbox.scores`); ``per_seed`` says what another seed
  changes.
- Normalisers are public constants, from the task's drawing (`sandbox.recipes`): wide scales where cells train
  together, narrow ones for a cell alone and for pooled data, each as it does best. They were chosen on seeds
  `CHOSEN_ON`; reported are seeds 0 to S-1, which are others.
- So were the amounts of noise with which a cell trains the common model on (`client.learning.train`): there,
  success at home is 0.921 for the common model, 0.932 if trained on without noise and 0.934 with the amount
  that the held-out demonstrations choose, with an error of 0.008; their loss falls by 6 and by 16 percent.
- ``goals`` are judged from `ENOUGH_SEEDS` seeds on; with fewer they are undetermined.
- Nothing here is private, agreed, sent or masked: ``marking`` says so.

    run(SimOptions(folder=Path("build/bench-sim"), episodes=5, seeds=5))
"""

from __future__ import annotations

import json
import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.encoding import canonical
from policies.recipe import load
from sandbox.bench_columns import UNDETERMINED, columns_checked
from sandbox.recipes import alone_recipe, plain_recipe
from sandbox.scores import Rate
from sandbox.study import IN_PROCESS, NO_ROLLOUTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from client.learning.tensors import EpisodeArrays
    from policies.recipe import Recipe

__all__ = ["CHOSEN_ON", "ENOUGH_SEEDS", "SimOptions", "lines", "mean_recipe", "run"]

Json = dict[str, Any]
Acts = dict[str, Rate]  # cell → rate
Weights = npt.NDArray[np.float32]

PROBLEM: Final = "pick-place"
CHOSEN_ON: Final = tuple(range(100, 108))
ENOUGH_SEEDS: Final = 5
RATES: Final = (
    *("local_own", "local_others", "pooled", "federated", "federated_mean"),
    *("individual_own", "individual_others"),
)
GOALS: Final = {
    "federated": 0.85,  # mean success of the common model
    "below_pooled": 0.05,  # at most so far
    "individual_own": 0.9,
}
_ALONE_STEPS: Final = 2_000
_MEAN_ROUNDS: Final = 40
_MEAN_STEPS: Final = 50
_PLACEMENTS: Final = 1_000  # plus the seed, as in the demo; demonstrations have streams of their own


@dataclass(frozen=True, slots=True, kw_only=True)
class SimOptions:
    """What to run.

    Attributes:
        folder: Where recordings are kept; not in the repository.
        episodes: Training demonstrations per cell.
        seeds: How many: 0 to ``seeds - 1``.
        rollouts: Per model and cell.
        workers: Processes.
    """

    folder: Path
    episodes: int = 5
    seeds: int = 5
    rollouts: int = 20
    workers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One seed: a rate per column, how many cells kept their individual model, and what it cost."""

    seed: int
    rates: dict[str, Rate]
    per_cell: dict[str, Acts]
    kept: int
    cpu_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class _Site:
    """One cell's demonstrations."""

    train: list[EpisodeArrays]
    held_out: list[EpisodeArrays]


def mean_recipe(data: bytes) -> bytes:
    """The same recipe with plain averaging, 40 rounds of 50 local steps: FedAvg as it is usually run."""
    tree = json.loads(data)
    tree["server"] = {"kind": "mean"}
    tree["rounds"] = _MEAN_ROUNDS
    tree["train"]["local_steps"] = _MEAN_STEPS
    return canonical(tree)


def run(options: SimOptions) -> Json:
    """All seeds: settings, one row per seed, the columns over all seeds, and the goals.

    Raises:
        CellError: The simulator is not installed.
        SandboxError: A column would be missing.
    """
    os.environ.setdefault("MUJOCO_GL", "disable")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds, workers = range(options.seeds), min(options.workers, options.seeds)
    if workers == 1:
        rows = [_one_seed(options, seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_one_seed, repeat(options), seeds))
    return _report(options, rows)


# --- one seed ---


@dataclass(frozen=True, slots=True, kw_only=True)
class _Models:
    """Weights of one seed; ``local`` and ``individual`` by cell."""

    local: dict[str, Weights]
    pooled: Weights
    common: Weights
    plain_mean: Weights
    individual: dict[str, Weights]

    @property
    def kept(self) -> list[str]:
        """Cells whose individual model was the better one."""
        return [cell for cell, one in self.individual.items() if (one != self.common).any()]


def _one_seed(options: SimOptions, seed: int) -> _Row:
    from sandbox.study import Acting

    began = time.process_time()
    recipe, alone = load(plain_recipe(options.episodes)), load(alone_recipe(options.episodes))
    models = _trained(options, seed, recipe, alone)
    act = Acting(recipe, placements=_PLACEMENTS + seed, rollouts=options.rollouts)
    common = act(models.common)
    whole = {
        "pooled": act(models.pooled, alone),
        "federated": common,
        "federated_mean": act(models.plain_mean),
    }
    each = {
        "local": {cell: act(one, alone) for cell, one in models.local.items()},
        "individual": {
            cell: act(one) if cell in models.kept else common for cell, one in models.individual.items()
        },
    }
    rates = {name: sum(acts.values(), NO_ROLLOUTS) for name, acts in whole.items()}
    rates |= {f"{name}_{place}": rate for name, by in each.items() for place, rate in _places(by).items()}
    return _Row(
        seed=seed,
        rates=rates,
        per_cell=whole | {name: {cell: by[cell][cell] for cell in by} for name, by in each.items()},
        kept=len(models.kept),
        cpu_s=time.process_time() - began,
    )


def _trained(options: SimOptions, seed: int, recipe: Recipe, alone: Recipe) -> _Models:
    from client.learning.train import fine_tune, local_baseline
    from client.learning.weights import initial_weights
    from sandbox.cells import CELLS
    from sandbox.repeatable import RepeatableEntropy
    from sandbox.study_federation import federate

    sites = {cell: _site(recipe, cell, seed, options) for cell in CELLS}
    own = [site.train for site in sites.values()]

    def together(of: Recipe) -> Weights:
        return federate(of, own, initial_weights(of), entropy=RepeatableEntropy(f"sim {seed}"))

    common = together(recipe)
    return _Models(
        local={
            cell: local_baseline(alone, site.train, steps=_ALONE_STEPS, seed=seed)
            for cell, site in sites.items()
        },
        pooled=local_baseline(alone, [one for part in own for one in part], steps=_ALONE_STEPS, seed=seed),
        common=common,
        plain_mean=together(load(mean_recipe(recipe.canonical))),
        individual={
            cell: fine_tune(recipe, common, site.train, site.held_out, seed=seed)
            for cell, site in sites.items()
        },
    )


def _site(recipe: Recipe, cell: str, seed: int, options: SimOptions) -> _Site:
    from sandbox.cells import held_out_for
    from sandbox.study_recordings import episodes_of, recorded

    total = options.episodes + held_out_for(options.episodes)
    made = episodes_of(recipe, recorded(cell, seed=seed, episodes=total, folder=options.folder))
    return _Site(train=made[: options.episodes], held_out=made[options.episodes :])


def _places(by: Mapping[str, Acts]) -> dict[str, Rate]:
    """Rates of each cell's model in its own cell and in the others."""
    own = [acts[cell] for cell, acts in by.items()]
    others = [rate for cell, acts in by.items() for place, rate in acts.items() if place != cell]
    return {"own": sum(own, NO_ROLLOUTS), "others": sum(others, NO_ROLLOUTS)}


# --- the report ---


def _report(options: SimOptions, rows: Sequence[_Row]) -> Json:
    recipe = load(plain_recipe(options.episodes))
    figures = {name: _figure([row.rates[name] for row in rows]) for name in RATES}
    columns: Json = {name: figures[name] for name in RATES if not name.startswith("individual")}
    columns["individual"] = {place: figures[f"individual_{place}"] for place in ("own", "others")}
    columns["cpu_s"] = round(sum((row.cpu_s for row in rows), 0.0), 1)
    return {
        "marking": [IN_PROCESS, "NOT PRIVATE", "NO MASKS"],
        "settings": {
            "recipe": recipe.digest,
            "server": recipe.server.model_dump(mode="json"),
            "rounds": recipe.rounds,
            "episodes": options.episodes,
            "seeds": [row.seed for row in rows],
            "constants_chosen_on": list(CHOSEN_ON),
            "rollouts_per_cell": options.rollouts,
        },
        "problems": columns_checked({PROBLEM: columns}),
        "per_cell": {
            name: {cell: _figure([row.per_cell[name][cell] for row in rows]) for cell in acts}
            for name, acts in rows[0].per_cell.items()
        },
        "individual_kept": {
            "cells": sum(row.kept for row in rows),
            "of": len(rows) * len(rows[0].per_cell["local"]),
        },
        "goals": _goals(figures, len(rows)),
    }


def _figure(found: Sequence[Rate]) -> Json:
    return sum(found, NO_ROLLOUTS).to_json() | {"per_seed": [round(one.mean, 4) for one in found]}


def _goals(figures: Mapping[str, Json], seeds: int) -> Json:
    """Whether what this method is for was reached; undetermined with few seeds."""
    below = round(figures["pooled"]["mean"] - figures["federated"]["mean"], 4)
    found = {
        "federated": {"least": GOALS["federated"], "found": figures["federated"]["mean"]},
        "below_pooled": {"most": GOALS["below_pooled"], "found": below},
        "individual_own": {"least": GOALS["individual_own"], "found": figures["individual_own"]["mean"]},
    }
    for one in found.values():
        met = one["found"] >= one["least"] if "least" in one else one["found"] <= one["most"]
        one["met"] = met if seeds >= ENOUGH_SEEDS else UNDETERMINED
    return found


def lines(found: Mapping[str, Json]) -> Iterator[str]:
    """The table for people."""
    settings, row = found["settings"], found["problems"][PROBLEM]
    yield from found["marking"]
    yield (
        f"{settings['episodes']} demonstrations per cell, {len(settings['seeds'])} seeds, "
        f"{settings['rollouts_per_cell']} rollouts per model and cell"
    )
    yield ""
    yield f"{'':28}{'success, 95 % interval':>24}"
    for column, figure in row.items():
        if column == "cpu_s":
            continue
        named = (
            {f"{column} {place}": one for place, one in figure.items()}
            if column == "individual"
            else {column: figure}
        )
        for name, one in named.items():
            low, high = one["interval"]
            yield f"{name.replace('_', ' '):28}" + f"{one['mean']:.2f} [{low:.2f}, {high:.2f}]".rjust(24)
    kept = found["individual_kept"]
    yield ""
    yield f"individual model kept in {kept['cells']} of {kept['of']} cells; CPU {row['cpu_s']} s"
    for name, goal in found["goals"].items():
        bound = f"at least {goal['least']}" if "least" in goal else f"at most {goal['most']}"
        yield f"goal {name.replace('_', ' ')}: {bound}, found {goal['found']}: {_said(goal['met'])}"


def _said(met: bool | str) -> str:  # noqa: FBT001  one value of the report
    return met if isinstance(met, str) else "met" if met else "NOT met"
