# SPDX-License-Identifier: Apache-2.0
"""What pooling gains on real recordings: alone, pooled, federated and individual, one table per problem.

Problems: torque of a UR10 (`sandbox.real_ur10`) and grip loss of a UR3 (`sandbox.real_cobotops`, with a fifth
and with three fifths of the cycles labelled). Data go through a node's own reader, signal map, segmentation
and quality checks, then through the recipe's features. Per seed, in this process, with the trainer, the ring
and the server step of real runs, equal weights, plain averaging:

1. units are drawn into train, select and report, per site;
2. ``local``: each site alone; ``pooled``: one model on all sites' training units;
3. ``federated``: the rounds of the recipe;
4. ``individual``: each site trains the common model on; the best, or the common one, on its selecting units;
5. all columns are measured on the same reporting units, which chose nothing.

- **One robot.** The sites are time slices of one robot's recording. Four makers differ more; so the table
  says what averaging costs against pooling, and not what a maker would gain. It says so itself.
- Mean and standard error are over seeds: over draws of units, not over robots.
- An area under the curve is undefined where one class is absent: such a site has no figure in that seed, and
  a column without any is undetermined, never 0 and never a pass.
- Settings were chosen on seeds `CHOSEN_ON`; reported are seeds from 0.
- ``goals``: federated is no worse than pooled by more than one standard error, by two measures: the error
  of the pooled column, as the table prints it, and the smaller one of the difference seed by seed, a harder
  test; and no worse than being alone.

    run(Path("../shared/data"), seeds=5)
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.learning.train import fine_tune, local_baseline
from client.learning.weights import initial_weights
from sandbox import real_cobotops, real_ur10
from sandbox.bench_columns import UNDETERMINED, columns_checked, gain_of, mean_and_error
from sandbox.repeatable import RepeatableEntropy
from sandbox.study import IN_PROCESS
from sandbox.study_federation import federate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from client.learning.tensors import EpisodeArrays
    from sandbox.real_problem import Problem, RealSite

__all__ = ["CHOSEN_ON", "ENOUGH_SEEDS", "ONE_ROBOT", "lines", "measured", "run"]

Json = dict[str, Any]
Weights = npt.NDArray[np.float32]
CHOSEN_ON: Final = tuple(range(100, 105))
ENOUGH_SEEDS: Final = 5
ONE_ROBOT: Final = "The sites are time slices of ONE robot's recording, not four makers."
_SOURCES: Final[dict[str, tuple[str, Callable[[Path], Iterable[Problem]]]]] = {
    "ur10": (real_ur10.FILE, lambda data: [real_ur10.problem(data)]),
    "cobotops": (real_cobotops.FILE, real_cobotops.problems),
}
_FIGURES: Final = (
    *("local_own", "local_others", "pooled", "federated"),
    *("individual_own", "individual_others"),
)


def run(data: Path, *, seeds: int = 5) -> Json:
    """All problems whose recordings are there; the others are skipped with their reason.

    Args:
        data: Folder that holds ``ur10`` and ``ur3-cobotops``.
        seeds: How many, from 0.

    Raises:
        DataError: A recording is not what its map says.
        SandboxError: A column would be missing.
    """
    skipped, rows = {}, {}
    for name, (file, problems) in _SOURCES.items():
        if not (data / file).is_file():
            skipped[name] = f"no recording {file} in {data.name}"
            continue
        for one in problems(data):
            rows[one.name] = measured(one, range(seeds))
    return {
        "marking": [IN_PROCESS, "NOT PRIVATE", "NO MASKS"],
        "note": ONE_ROBOT,
        "settings": {"seeds": list(range(seeds)), "chosen_on": list(CHOSEN_ON)},
        "skipped": skipped,
        "problems": columns_checked(rows) if rows else {},
    }


# --- one problem ---


def measured(problem: Problem, seeds: Sequence[int]) -> Json:
    """The columns of one problem."""
    began = time.process_time()
    found = [_one_seed(problem, seed) for seed in seeds]
    per_seed = {name: [one[name] for one in found] for name in _FIGURES}
    figures = {name: mean_and_error(values, reason=problem.undefined) for name, values in per_seed.items()}
    row: Json = {name: figures[name] for name in _FIGURES if not name.startswith("individual")}
    row["individual"] = {place: figures[f"individual_{place}"] for place in ("own", "others")}
    row["cpu_s"] = round(time.process_time() - began, 1)
    recipe = problem.recipe
    return row | {
        "figure": problem.figure,
        "lower_is_better": problem.lower_is_better,
        "recipe": recipe.digest,
        "rounds": recipe.rounds,
        "local_steps": recipe.local_steps,
        "server": recipe.server.kind,
        "alone_steps": problem.alone_steps,
        "goals": _goals(problem, per_seed),
    }


def _one_seed(problem: Problem, seed: int) -> dict[str, float | None]:
    recipe, sites = problem.recipe, problem.sites(seed)
    own = [site.train for site in sites]
    common = federate(
        recipe, own, initial_weights(recipe), entropy=RepeatableEntropy(f"{problem.name} {seed}")
    )
    local = [local_baseline(recipe, one, steps=problem.alone_steps, seed=seed) for one in own]
    everybody = [episode for one in own for episode in one]
    pooled = local_baseline(recipe, everybody, steps=problem.alone_steps, seed=seed)
    individual = [
        fine_tune(recipe, common, site.train, site.select, steps=problem.own_steps, seed=seed)
        for site in sites
    ]
    count = len(sites)
    return {
        **_places("local", _scores(problem, local, sites)),
        "pooled": _places("pooled", _scores(problem, [pooled] * count, sites))["pooled_own"],
        "federated": _places("federated", _scores(problem, [common] * count, sites))["federated_own"],
        **_places("individual", _scores(problem, individual, sites)),
    }


def _scores(
    problem: Problem, models: Sequence[Weights], sites: Sequence[RealSite]
) -> list[list[float | None]]:
    """Row: whose model; column: at which site."""

    def score(model: Weights, episodes: Sequence[EpisodeArrays]) -> float | None:
        return problem.score(problem.recipe, model, episodes)

    return [[score(model, site.report) for site in sites] for model in models]


def _places(name: str, scores: Sequence[Sequence[float | None]]) -> dict[str, float | None]:
    own = [row[number] for number, row in enumerate(scores)]
    others = [one for number, row in enumerate(scores) for at, one in enumerate(row) if at != number]
    return {f"{name}_own": _mean(own), f"{name}_others": _mean(others)}


def _mean(values: Sequence[float | None]) -> float | None:
    found = [one for one in values if one is not None]
    return statistics.fmean(found) if found else None


# --- goals ---


def _goals(problem: Problem, per_seed: Mapping[str, Sequence[float | None]]) -> Json:
    """Whether averaging keeps up with pooling, by both measures, and gains on being alone."""
    sign = -1.0 if problem.lower_is_better else 1.0
    enough = len(per_seed["federated"]) >= ENOUGH_SEEDS
    pooled, alone = (
        gain_of(_signed(per_seed["federated"], sign), _signed(per_seed[name], sign))
        for name in ("pooled", "local_own")
    )
    of_column = mean_and_error(per_seed["pooled"])["standard_error"]
    return {
        "within_an_error_of_pooled": _judged(pooled, of_column, enough=enough),
        "no_worse_than_pooled_paired": _judged(pooled, pooled["standard_error"], enough=enough),
        "no_worse_than_alone": _judged(alone, 0.0, enough=enough),
    }


def _judged(gain: Json, slack: float | None, *, enough: bool) -> Json:
    """A gain beside how far below zero it may be."""
    known = enough and slack is not None and not isinstance(gain["mean"], str)
    return {
        "gain": gain,
        "least": UNDETERMINED if slack is None else round(0.0 - slack, 4),
        "met": gain["mean"] >= -(slack or 0.0) if known else UNDETERMINED,
    }


def _signed(values: Sequence[float | None], sign: float) -> list[float | None]:
    return [None if one is None else sign * one for one in values]


# --- for people ---


def lines(found: Mapping[str, Json]) -> Iterator[str]:
    """The tables, and under each of them what it does not say."""
    yield from found["marking"]
    for name, reason in found["skipped"].items():
        yield f"skipped {name}: {reason}"
    for name, row in found["problems"].items():
        yield ""
        direction = "lower" if row["lower_is_better"] else "higher"
        yield f"{name}: {row['figure']}, {direction} is better; {len(found['settings']['seeds'])} seeds"
        named = {one: row[one] for one in _FIGURES if one in row}
        named |= {f"individual_{place}": one for place, one in row["individual"].items()}
        for column, figure in named.items():
            yield f"  {column.replace('_', ' '):24}{_shown(figure)}"
        for goal, judged in row["goals"].items():
            yield f"  {goal.replace('_', ' '):30}{_words(judged['met'])}: gain {_shown(judged['gain'])}"
        yield f"  {found['note']} CPU {row['cpu_s']} s"


def _shown(figure: Json) -> str:
    if figure["mean"] == UNDETERMINED:
        return f"{UNDETERMINED}: {figure['reason']}"
    error = figure["standard_error"]
    return f"{figure['mean']:.3f}" + ("" if error is None else f" +- {error:.3f}")


def _words(met: bool | str) -> str:  # noqa: FBT001  one value of the report
    return met if isinstance(met, str) else "met" if met else "NOT met"
