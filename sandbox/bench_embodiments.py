# SPDX-License-Identifier: Apache-2.0
"""Different embodiments, one trunk: what two kinds of robots gain that observe and act differently.

Four cells, two per embodiment:

| Variant | Cells | Observes | Acts |
|---|---|---|---|
| ``absolute`` | A, C | tool, gripper, part, goal and their differences: 19 | translation, gripper: 4 |
| ``relative`` | B, D | gripper and differences alone: 10 | translation, rotation, gripper: 7 |

The rotation of ``relative`` stays zero in this task, as a controller with six axes would be told. No vector
of one fits the other, so neither can use the other's model, and their data cannot be pooled.

- **Shared** is the trunk alone. Stem and head of a cell start from the recipe's seed and never leave it
  (`policies.recipe`, ``variants``); they rest during the rounds (``private: held``), and then each cell
  trains all of its model on at home: ``individual``, the better of both by its own held-out demonstrations.
  A round is that of real runs: `client.learning.train.Trainer`, the ring, the server step, equal weights.
- **Alone** is the same variant, trained on the cell's own demonstrations: 2,000 Adam steps. **Same way
  alone** are the same rounds and steps at home, with nobody else: what the way gains, and not the others.
- ``gain`` is the difference of success to both, seed by seed, per variant: mean and standard error. It is
  said to be one where it is two errors from zero, over `ENOUGH_SEEDS` seeds or more; else it is undetermined.
  A success has Wilson's 95 % interval.
- Settings were chosen on seeds `CHOSEN_ON`; reported are seeds from 0.

    run(EmbodimentOptions(folder=Path("build/bench-sim"), episodes=5, seeds=16))
"""

from __future__ import annotations

import os
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from policies.recipe import load
from sandbox.bench_columns import UNDETERMINED, gain_of
from sandbox.scores import Rate
from sandbox.shared_trunk import CELL_VARIANTS, CLASSES, ROTATION, episodes_of, recipe_bytes, together
from sandbox.study import IN_PROCESS, NO_ROLLOUTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from client.learning.tensors import EpisodeArrays
    from policies.recipe import Recipe

__all__ = [
    "CHOSEN_ON",
    "EmbodimentOptions",
    "lines",
    "run",
]

Json = dict[str, Any]
Weights = npt.NDArray[np.float32]
CHOSEN_ON: Final = tuple(range(100, 104))
ENOUGH_SEEDS: Final = 5
WAYS: Final = ("alone", "same_way_alone", "shared", "individual")
_ALONE_STEPS: Final = 2_000
_PLACEMENTS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbodimentOptions:
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
    seeds: int = 16
    rollouts: int = 20
    workers: int = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One seed: success of each cell's model at home, by way of training."""

    seed: int
    acts: dict[str, dict[str, Rate]]
    cpu_s: float


# --- one seed ---


def _one_seed(options: EmbodimentOptions, seed: int) -> _Row:
    from client.learning.train import fine_tune, local_baseline

    began = time.process_time()
    whole = load(recipe_bytes(options.episodes))
    own, held_out = {}, {}
    for cell, name in CELL_VARIANTS.items():
        recipe = whole.as_variant(name)
        own[cell], held_out[cell] = _site(recipe, cell, seed, options)

    def at_home(cell: str, model: Weights) -> Weights:
        recipe, train = own[cell]
        return fine_tune(recipe, model, train, held_out[cell], seed=seed)

    shared = together(own, name=f"embodiments {seed}")
    by_itself = {cell: together({cell: site}, name=f"embodiments {seed}")[cell] for cell, site in own.items()}
    models = {
        "alone": {cell: local_baseline(*site, steps=_ALONE_STEPS, seed=seed) for cell, site in own.items()},
        "same_way_alone": {cell: at_home(cell, model) for cell, model in by_itself.items()},
        "shared": shared,
        "individual": {cell: at_home(cell, model) for cell, model in shared.items()},
    }
    act = _Acting(own, options, seed)
    acts = {way: {cell: act(cell, model) for cell, model in each.items()} for way, each in models.items()}
    return _Row(seed=seed, acts=acts, cpu_s=time.process_time() - began)


def _site(
    recipe: Recipe, cell: str, seed: int, options: EmbodimentOptions
) -> tuple[tuple[Recipe, list[EpisodeArrays]], list[EpisodeArrays]]:
    from sandbox.cells import held_out_for
    from sandbox.study_recordings import recorded

    total = options.episodes + held_out_for(options.episodes)
    made = episodes_of(recipe, recorded(cell, seed=seed, episodes=total, folder=options.folder))
    return (recipe, made[: options.episodes]), made[options.episodes :]


class _Acting:
    """Lets a cell's model act at home; a rotation that it answers is not executed: the arm has none."""

    def __init__(
        self,
        sites: Mapping[str, tuple[Recipe, Sequence[EpisodeArrays]]],
        options: EmbodimentOptions,
        seed: int,
    ) -> None:
        from sandbox.cells import Simulator

        self._recipes = {cell: recipe for cell, (recipe, _) in sites.items()}
        self._simulators = {cell: Simulator(cell) for cell in sites}
        self._placements, self._rollouts = _PLACEMENTS + seed, options.rollouts

    def __call__(self, cell: str, weights: Weights) -> Rate:
        from client.learning.policy import Policy
        from sandbox.cells import rollout

        policy = Policy(self._recipes[cell], weights)
        size = self._recipes[cell].output_size
        executed = [*range(ROTATION), size - 1]  # translation and gripper
        return Rate.of(
            rollout(
                self._simulators[cell],
                lambda seen: policy.act(seen)[executed],
                placements=self._placements,
                n=self._rollouts,
                begin=policy.begin,
            )
        )


# --- the report ---


def run(options: EmbodimentOptions) -> Json:
    """All seeds: success by way of training and variant, and the gains.

    Raises:
        CellError: The simulator is not installed.
    """
    os.environ.setdefault("MUJOCO_GL", "disable")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    seeds, workers = range(options.seeds), min(options.workers, options.seeds)
    if workers == 1:
        rows = [_one_seed(options, seed) for seed in seeds]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_one_seed, repeat(options), seeds))
    recipe = load(recipe_bytes(options.episodes))
    return {
        "marking": [IN_PROCESS, "NOT PRIVATE", "NO MASKS"],
        "settings": {
            "recipe": recipe.digest,
            "episodes": options.episodes,
            "seeds": list(seeds),
            "chosen_on": list(CHOSEN_ON),
            "rollouts_per_cell": options.rollouts,
            "shared_parameters": recipe.parameters,
        },
        "variants": {name: _variant(recipe, name, rows) for name in CLASSES},
        "cpu_s": round(sum((row.cpu_s for row in rows), 0.0), 1),
    }


def _variant(recipe: Recipe, name: str, rows: Sequence[_Row]) -> Json:
    here = recipe.as_variant(name)
    cells = [cell for cell, one in CELL_VARIANTS.items() if one == name]
    found = {way: [sum((row.acts[way][cell] for cell in cells), NO_ROLLOUTS) for row in rows] for way in WAYS}
    means = {way: [one.mean for one in rates] for way, rates in found.items()}
    gains = {way: gain_of(means["individual"], means[way]) for way in ("alone", "same_way_alone")}
    return {
        "cells": cells,
        "observes": here.input_size,
        "acts": here.output_size,
        "private_parameters": here.own_parameters - here.parameters,
        **{
            way: sum(rates, NO_ROLLOUTS).to_json() | {"per_seed": [round(one, 4) for one in means[way]]}
            for way, rates in found.items()
        },
        "gain": gains,
        "gains_over_alone": _gains(gains["alone"], len(rows)),
    }


def _gains(gain: Json, seeds: int) -> bool | str:
    """Whether the gain is two standard errors from zero; else nobody knows."""
    error = gain["standard_error"]
    if seeds < ENOUGH_SEEDS or error is None or abs(gain["mean"]) < 2 * error:
        return UNDETERMINED
    return bool(gain["mean"] > 0)


def lines(found: Mapping[str, Json]) -> Iterator[str]:
    """The table for people."""
    yield from found["marking"]
    settings = found["settings"]
    yield (
        f"{settings['episodes']} demonstrations per cell, {len(settings['seeds'])} seeds; the trunk is shared"
        f" ({settings['shared_parameters']} parameters), stem and head stay"
    )
    for name, row in found["variants"].items():
        yield ""
        yield f"{name}: cells {', '.join(row['cells'])}, observes {row['observes']}, acts {row['acts']}"
        for way in WAYS:
            low, high = row[way]["interval"]
            yield f"  {way.replace('_', ' '):20}{row[way]['mean']:.2f} [{low:.2f}, {high:.2f}]"
        for way, gain in row["gain"].items():
            error = gain["standard_error"]
            shown = f"{gain['mean']:+.3f}" + ("" if error is None else f" +- {error:.3f}")
            yield f"  gain over {way.replace('_', ' ')}: {shown}"
        yield f"  gains over alone: {row['gains_over_alone']}"
    yield ""
    yield f"CPU {found['cpu_s']} s"
