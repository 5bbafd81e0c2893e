# SPDX-License-Identifier: Apache-2.0
"""What privacy costs on a real recording: AUROC of grip loss on UR3 CobotOps, a work cycle being the unit.

Four sites train one logistic model with noise (`sandbox.cobotops_models`). Beside it each site trains alone
without privacy, in each of `LOCAL_WAYS` on each set of `FEATURES`.

- **Few parameters**: noise grows with their number, so the common model has six: the five features ``load``
  and a bias. Each has a public, physical reason (`sandbox.cobotops`); which of such features to take was a
  search, see below.
- ``auroc``: a model judged on the held-out cycles of all sites; ``local`` is the mean over the four sites'
  models. ``auroc_own``: on each site's own held-out cycles, mean over the sites that have both classes there:
  a dozen cycles and one to six losses a site, so it is coarse.
- Rows with noise: mean over `DRAWS` draws of noise per seed.
- ``local-full``: each site adds the whole noise. ``shares``: each a part of it. All sites are in this one
  process, which adds their updates in the open: a PLAIN SUM. Runs of ``shares`` add them under secure
  aggregation, which gives the same sum but for the grid it is counted on; so the figures are those of such
  runs, and the protection is not. Those rows are marked.
- ``rule``: minus the sum of the ``load`` features, which nothing was trained for: the floor.
- ``goal``: epsilon 8 with full local noise, minus local, seed by seed. Local is `BEST_LOCAL`, chosen on the
  tuning seeds; in ``hindsight`` it is whatever was best on the reported ones, a harder test.
  ``within_margin``: two standard errors below the mean is still above minus `MARGIN`.

What was tried, on the splits of `TUNED_ON`: 25 sets of features (tool current; wrist, level or all joints;
still and moving readings apart; first third as tare; share of still readings) and about as many settings of
clip, rate, steps and average. Local training was given the same features, and on thirteen of them early
stopping too; few steps at a small clip were best for both, and richer sets lost with noise and without.

What these figures are not: 238 cycles of ONE robot. Tuning and reporting seeds split the same cycles, so the
choice of features is not independent of the figures; on private data that search would have to be paid for.
With features this good a site alone is good as well: pooling gains little here, and what the table shows is
that privacy costs little. Noise is seeded, so that the figures can be made again; the plans say
``test_only``: NOT PRIVATE.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch

from policies.encoding import decimal_text
from sandbox.cobotops import CONSTANTS, FEATURES, SITES, Cycle, Site, read_cycles, sites
from sandbox.cobotops_models import DELTA, LOCAL_WAYS, logistic, plan_of, rows_of, together
from sandbox.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from torch import nn

__all__ = ["BEST_LOCAL", "DRAWS", "MARGIN", "TUNED_ON", "auroc", "run"]

Json = Any  # a JSON value
TUNED_ON: Final = (100, 101, 102, 103)
"""Seeds of the splits on which features and settings were chosen; `run` refuses to report on them."""
BEST_LOCAL: Final = {
    "any way": ("load", "logistic, steps of the common model"),
    "fitted to the end": ("load by joint", "network of 16"),
}
"""Features and way of training alone that were best on `TUNED_ON`, of all and of the usual ones."""
DRAWS: Final = 10
MARGIN: Final = 0.01
"""AUROC that counts as no difference; set before the reported seeds were run."""


def auroc(scores: npt.NDArray[np.floating[Any]], positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, ties counted half; None (undetermined) where one class is absent."""
    ones = int(positive.sum())
    others = len(positive) - ones
    if not ones or not others:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * others))


# --- judging ---


@dataclass(frozen=True, slots=True)
class _Scores:
    """One seed's figures of one way: on all held-out cycles, and on the sites' own."""

    everywhere: float
    own: float | None


def _judge(models: Sequence[nn.Module], pool: Sequence[Site]) -> _Scores:
    """Mean over the models; a single model is every site's."""
    everybody = [one for site in pool for one in site.held_out]
    found = [_score(model, everybody) for model in models]
    each = models if len(models) == len(pool) else [models[0]] * len(pool)
    own = [_score(model, site.held_out) for model, site in zip(each, pool, strict=True)]
    whole = [one for one in found if one is not None]
    if len(whole) != len(found):
        raise UsageError(
            need="held-out cycles with and without a lost grip",
            found="one class only",
            remedy="take another seed, or a longer recording",
        )
    return _Scores(statistics.fmean(whole), _mean(own))


def _score(model: nn.Module, cycles: Sequence[Cycle]) -> float | None:
    if not cycles:
        return None
    with torch.no_grad():
        scores = model(rows_of(cycles))[:, 0].numpy()
    return auroc(scores, np.array([one.lost for one in cycles]))


def _mean(values: Sequence[float | None]) -> float | None:
    known = [one for one in values if one is not None]
    return statistics.fmean(known) if known else None


# --- the study ---


def run(path: Path, *, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> dict[str, Json]:
    """Figures of all ways over the seeds.

    Args:
        path: The recording's CSV.
        seeds: Of splits, initial weights and noise.

    Returns:
        ``rows`` with features, way, model, epsilon, noise, ``auroc`` and ``auroc_own`` (mean, standard
        deviation, per seed), and ``goal``: see the module.

    Raises:
        UsageError: A seed that the settings were chosen on, no file, or one class only.
        DataError: The file is not what its map says.
    """
    if not path.is_file() or set(seeds) & set(TUNED_ON) or not seeds:
        raise UsageError(
            need=f"the recording's CSV, and seeds other than {TUNED_ON[0]} to {TUNED_ON[-1]}",
            found=path.name if path.is_file() else f"{path.name}: no file",
            remedy="download UR3 CobotOps (doi 10.24432/C5J891), or name other seeds",
        )
    began = time.process_time()
    torch.set_num_threads(1)
    rows: list[dict[str, Json]] = []
    for features in FEATURES:
        cycles = read_cycles(path, features)
        pools = {seed: sites(cycles, seed=seed) for seed in seeds}
        made = [*_local(pools), *_together(pools, full=features == "load")]
        rows += [{"features": features, "parameters": _size(cycles), **row} for row in made]
    return {
        "task": "was the grip lost in this cycle",
        "unit": "work-piece (work cycle)",
        "cycles": len(cycles),
        "lost": sum(one.lost for one in cycles),
        "sites": SITES,
        "seeds": list(seeds),
        "tuned_on": list(TUNED_ON),
        "draws_of_noise": DRAWS,
        "margin": MARGIN,
        "delta": DELTA,
        "constants": {name: one._asdict() for name, one in CONSTANTS.items()},
        "rows": rows,
        "goal": _goal(rows),
        "verdict": "NOT PRIVATE: seeded noise, and settings that were searched on the same recording",
        "cpu_s": round(time.process_time() - began, 1),
    }


def _size(cycles: Sequence[Cycle]) -> int:
    return int(cycles[0].frames.inputs.shape[1]) + 1


def _local(pools: dict[int, tuple[Site, ...]]) -> list[dict[str, Json]]:
    return [
        {
            "way": "local",
            "model": name,
            "epsilon": "inf",
            "noise": "none",
            **_figures([_judge([train(one, seed) for one in pool], pool) for seed, pool in pools.items()]),
        }
        for name, train in LOCAL_WAYS.items()
    ]


def _together(pools: dict[int, tuple[Site, ...]], *, full: bool) -> list[dict[str, Json]]:
    """The common model; ``full``: at all budgets and noises, and the untrained rule."""
    rows = [_row(pools, None, "none"), _row(pools, 8.0, "local-full")]
    if full:
        rows += [
            _row(pools, eps, noise) for eps, noise in ((8.0, "shares"), (2.0, "local-full"), (2.0, "shares"))
        ]
        found = [_judge([logistic(_size(pool[0].train) - 1, weight=-1.0)], pool) for pool in pools.values()]
        rule = {"way": "rule", "model": "untrained", "epsilon": "0", "noise": "none"}
        rows.append({**rule, **_figures(found)})
    return rows


def _row(pools: dict[int, tuple[Site, ...]], epsilon: float | None, noise: str) -> dict[str, Json]:
    plan = None if epsilon is None else plan_of(epsilon, noise)
    found = []
    for seed, pool in pools.items():
        draws = range(1 if plan is None else DRAWS)
        each = [_judge([together(pool, plan, seed=seed, draw=draw)], pool) for draw in draws]
        found.append(
            _Scores(statistics.fmean(one.everywhere for one in each), _mean([one.own for one in each]))
        )
    return {
        "way": "common",
        "model": "logistic",
        "epsilon": "inf" if plan is None else decimal_text(f"{plan.epsilon_rdp:.4f}"),
        "noise": noise,
        "sigma": None if plan is None else plan.noise_multiplier,
        "plain_sum": noise == "shares",  # added in the open in this process: nobody is protected by it
        **_figures(found),
    }


def _figures(found: Sequence[_Scores]) -> dict[str, Json]:
    return {
        "auroc": _spread([one.everywhere for one in found]),
        "auroc_own": _spread([one.own for one in found]),
    }


def _spread(values: Sequence[float | None]) -> dict[str, Json]:
    known = [one for one in values if one is not None]
    return {
        "mean": round(statistics.fmean(known), 4) if known else None,
        "sd": round(statistics.stdev(known), 4) if len(known) > 1 else None,
        "per_seed": [None if one is None else round(one, 4) for one in values],
    }


def _goal(rows: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """Epsilon 8 with full local noise on ``load``, minus local, per column."""
    private = next(row for row in rows if row["features"] == "load" and row["noise"] == "local-full")
    local = {(row["features"], row["model"]): row for row in rows if row["way"] == "local"}
    found: dict[str, Json] = {}
    for column in ("auroc", "auroc_own"):
        means = {key: row[column]["mean"] or 0.0 for key, row in local.items()}
        rivals = {**BEST_LOCAL, "hindsight": max(means, key=means.__getitem__)}
        for name, key in rivals.items():
            found[f"{column}: {name}"] = _paired(private, local[key], column)
    return found


def _paired(private: dict[str, Json], local: dict[str, Json], column: str) -> dict[str, Json]:
    pairs = zip(private[column]["per_seed"], local[column]["per_seed"], strict=True)
    gains = [ours - theirs for ours, theirs in pairs if None not in {ours, theirs}]
    error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else None
    mean = statistics.fmean(gains) if gains else None
    return {
        "local": f"{local['features']}, {local['model']}",
        "gain": None if mean is None else round(mean, 4),
        "standard_error": None if error is None else round(error, 4),
        "per_seed": [round(one, 4) for one in gains],
        "no_worse": None if mean is None else mean >= 0,
        "within_margin": None if mean is None else mean - 2 * (error or 0.0) >= -MARGIN,
    }
