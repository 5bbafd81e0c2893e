# SPDX-License-Identifier: Apache-2.0
"""What privacy costs the common model: mean success over the four cells, seed by seed.

One seed is one set of recordings and placements; every seed runs the same recipe (`sandbox.recipes`):

1. the four cells record, or their recordings are taken from the folder;
2. with ``seed_episodes``, the model is fitted to the episodes that each maker donates besides its own, and
   what that model can do by itself is the row's ``start``;
3. the rounds, in this process (`sandbox.study_federation`): real sampler, engine, clip, noise, ring, server
   step;
4. the released weights act in all four cells, at placements that no demonstration used.

The common model is one model, so a maker's own cell and the others' cells are columns of one table:
``per_party``. Noise and sampled units come from the operating system, so a repeated run differs a little.
A figure of this study is a figure about learning. What it is not is in ``marking``: nothing here was agreed,
charged, sent or masked.

    run(StudyOptions(epsilon="8", noise="shares", seeds=(0, 1), folder=Path("build/study")))
"""

from __future__ import annotations

import os
import statistics
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from itertools import repeat
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Final

from policies.privacy.accounting import epsilon_text
from policies.recipe import load
from sandbox.errors import UsageError
from sandbox.recipes import asked_recipe
from sandbox.scores import Rate

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    import numpy as np
    import numpy.typing as npt

    from policies.recipe import Recipe
    from sandbox.recipes import Noise

__all__ = ["IN_PROCESS", "NO_ROLLOUTS", "Acting", "StudyOptions", "marking", "run", "study_recipe"]

Json = Any  # a JSON value
Acts = dict[str, Rate]  # cell → rate

_WORKERS: Final = 2
_PLACEMENTS: Final = 1_000  # plus the seed, as in the demo; demonstrations have streams of their own
NO_ROLLOUTS: Final = Rate(successes=0, rollouts=0)
IN_PROCESS: Final = "IN ONE PROCESS: no contract, no ledger, no transport; a figure about learning only"
NO_MASKS: Final = (
    "NO MASKS: rounded, noised and summed modulo 2^32 as under secure aggregation, to the bit; but masks, "
    "which cancel, are left out, so nothing was hidden here"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class StudyOptions:
    """What to run.

    Attributes:
        folder: Where recordings are kept; not in the repository.
        epsilon: Of the whole run, as a decimal; None runs the recipe without privacy.
        noise: Kind of noise; without privacy there is none.
        seed_episodes: Episodes that each maker donates besides its own; 0 starts from drawn weights.
        seeds: Of recordings and placements, one run each.
        episodes: Training episodes per cell.
        rollouts: Per model and cell.
        workers: Processes.
    """

    folder: Path
    epsilon: str | None = "8"
    noise: Noise = "local-full"
    seed_episodes: int = 0
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    episodes: int = 250
    rollouts: int = 50
    workers: int = _WORKERS


@dataclass(frozen=True, slots=True, kw_only=True)
class _Row:
    """One seed: what the starting model and the common model did in each cell."""

    seed: int
    common: Acts
    start: Acts | None


def run(options: StudyOptions) -> dict[str, Json]:
    """All seeds; settings, plan, one row per seed and the means.

    Raises:
        UsageError: No seed.
        CellError: The simulator is not installed.
    """
    recipe = load(study_recipe(options))
    if not options.seeds:
        raise UsageError(need="at least one seed", found="none", remedy="--seeds 0,1")
    os.environ.setdefault("MUJOCO_GL", "disable")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    workers = min(options.workers, len(options.seeds))
    if workers == 1:
        rows = [_one_seed(options, seed) for seed in options.seeds]
    else:
        with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
            rows = list(pool.map(_one_seed, repeat(options), options.seeds))
    return _report(options, recipe, rows)


def study_recipe(options: StudyOptions) -> bytes:
    """Canonical bytes of the recipe that the options name."""
    return asked_recipe(options.epsilon, options.episodes, noise=options.noise)


def marking(recipe: Recipe) -> list[str]:
    """What must be said of a model that this study trains under the recipe."""
    said = [IN_PROCESS, NO_MASKS]
    if not recipe.is_private:
        said.append("NOT PRIVATE")
    return said


def _one_seed(options: StudyOptions, seed: int) -> _Row:
    from sandbox.cells import CELLS
    from sandbox.study_federation import federate, fitted
    from sandbox.study_recordings import recorded, share

    recipe = load(study_recipe(options))
    total = options.episodes + options.seed_episodes
    shares = [
        share(
            recipe,
            recorded(cell, seed=seed, episodes=total, folder=options.folder),
            private=options.episodes,
        )
        for cell in CELLS
    ]
    donated = [episode for one in shares for episode in one.donated]
    start = fitted(recipe, donated, seed=seed)
    common = federate(recipe, [one.private for one in shares], start)
    acts = Acting(recipe, placements=_PLACEMENTS + seed, rollouts=options.rollouts)
    return _Row(seed=seed, common=acts(common), start=acts(start) if donated else None)


class Acting:
    """Lets a model act in every cell."""

    def __init__(self, recipe: Recipe, *, placements: int, rollouts: int) -> None:
        from sandbox.cells import CELLS, Simulator

        self._recipe, self._placements, self._rollouts = recipe, placements, rollouts
        self._simulators = {cell: Simulator(cell) for cell in CELLS}

    def __call__(self, weights: npt.NDArray[np.float32], recipe: Recipe | None = None) -> Acts:
        """Success per cell of some weights; ``recipe`` is theirs, where it is another one."""
        from client.learning.policy import Policy
        from sandbox.cells import rollout

        policy = Policy(recipe or self._recipe, weights)
        return {
            cell: Rate.of(
                rollout(
                    simulator, policy.act, placements=self._placements, n=self._rollouts, begin=policy.begin
                )
            )
            for cell, simulator in self._simulators.items()
        }


def _report(options: StudyOptions, recipe: Recipe, rows: list[_Row]) -> dict[str, Json]:
    return {
        "marking": marking(recipe),
        "settings": _settings(options, recipe),
        "plan": _plan(recipe),
        "rows": [
            {"seed": row.seed, "common": _success(row.common), "start": row.start and _success(row.start)}
            for row in rows
        ],
        "common": _over_seeds([row.common for row in rows]),
        "start": _over_seeds([row.start for row in rows if row.start]) if options.seed_episodes else None,
    }


def _settings(options: StudyOptions, recipe: Recipe) -> dict[str, Json]:
    return {
        "recipe": recipe.digest,
        "epsilon": options.epsilon or "inf",
        "noise": options.noise if recipe.plan else None,
        "seed_episodes": options.seed_episodes,
        "episodes": options.episodes,
        "rounds": recipe.rounds,
        "parameters": recipe.parameters,
        "server": recipe.server.model_dump(mode="json"),
        "rollouts_per_cell": options.rollouts,
    }


def _plan(recipe: Recipe) -> dict[str, Json] | None:
    plan = recipe.plan
    if plan is None:
        return None
    return {"digest": plan.digest, "epsilon_rdp": epsilon_text(plan.epsilon_rdp)} | plan.document


def _whole(acts: Mapping[str, Rate]) -> Rate:
    return sum(acts.values(), NO_ROLLOUTS)


def _success(acts: Acts) -> dict[str, Json]:
    whole = _whole(acts)
    return whole.to_json() | {
        "per_party": {
            cell: {
                "own": rate.to_json(),
                "others": replace(
                    whole,
                    successes=whole.successes - rate.successes,
                    rollouts=whole.rollouts - rate.rollouts,
                ).to_json(),
            }
            for cell, rate in acts.items()
        }
    }


def _over_seeds(found: list[Acts]) -> dict[str, Json]:
    """Mean over seeds and cells. The interval is of the rollouts; ``spread`` is what another seed changes."""
    means = [_whole(acts).mean for acts in found]
    return sum((_whole(acts) for acts in found), NO_ROLLOUTS).to_json() | {
        "lowest_seed": round(min(means), 4),
        "spread": round(statistics.stdev(means), 4) if len(means) > 1 else None,
        "per_cell": {cell: sum((acts[cell] for acts in found), NO_ROLLOUTS).to_json() for cell in found[0]},
    }
