# SPDX-License-Identifier: Apache-2.0
"""What privacy costs on a real recording: AUROC of grip loss on UR3 CobotOps, a work cycle being the unit.

Four sites train one logistic model, one noisy step a round (`client.learning.private.PrivateSteps` with the
plan, the packed engine and the server's step that real runs use; the updates are averaged in this process).
Beside it each site trains alone without privacy, in each of `LOCAL_WAYS` on each of `sandbox.cobotops.FEATURES`.

- **Few parameters**: noise grows with their number, so the common model has five: the four features ``load``
  and a bias. They come from how a robot carries a part, not from the recording (reasons: `FEATURES`).
- ``auroc``: a model judged on the held-out cycles of all sites; ``local`` is the mean over the four sites'
  models. ``auroc_own``: on each site's own held-out cycles, mean over the sites that have both classes there:
  a dozen cycles and one to six losses a site, so it is coarse.
- Rows with noise: mean over `DRAWS` draws of noise per seed.
- ``local-full``: each site adds the whole noise. ``shares``: each a part of it, and the sum is a PLAIN SUM
  here: without secure aggregation nobody is protected by it, so those rows are marked.
- ``rule``: the sum of the ``load`` features with a minus sign, which nothing was trained for: the floor.
- ``goal``: epsilon 8 with full local noise minus local, seed by seed. ``chosen`` is the local way and features
  that were best on the tuning seeds; ``hindsight`` takes whatever was best on the reported ones.

What was tried, on the splits of `TUNED_ON`: 23 sets of features (tool current, wrist or level joints or all,
still and moving readings apart, first third as tare, share of still readings) and 22 settings of clip, rate,
steps and average; local training got the same features, and early stopping too. Few steps at a small clip
were best, and a rich set of features lost to ``load`` with and without noise.

What these figures are not: 238 cycles of ONE robot; tuning and reporting seeds split the same cycles, so the
choice of features is not independent of the figures, and on private data the search would have to be paid
for. With features this good a site alone is good as well: what remains is that privacy costs little. Noise
is seeded, so that the figures can be made again; the plans say ``test_only``: NOT PRIVATE.
"""

from __future__ import annotations

import math
import statistics
import time
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client.learning.engines import PackedEngine, UnitFrames
from client.learning.noise import SeededNoise
from client.learning.private import PrivateSteps
from client.learning.registry import flatten, read_weights, write_weights
from policies.encoding import decimal_text
from policies.privacy.accounting import calibrate
from policies.privacy.plan import DpPlan
from policies.recipe import ServerAdam
from policies.server_step import initial_state, released_weights, server_step
from sandbox.cobotops import CONSTANTS, FEATURES, SITES, Cycle, Site, read_cycles, sites
from sandbox.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["CHOSEN_LOCAL", "DRAWS", "LOCAL_WAYS", "TUNED_ON", "auroc", "plan_of", "run"]

Json = Any  # a JSON value
Array32 = npt.NDArray[np.float32]
TUNED_ON: Final = (100, 101, 102, 103)
"""Seeds of the splits on which features and settings were chosen; `run` refuses to report on them."""
DRAWS: Final = 10
DELTA: Final = "0.00001"
EXPECTED_UNITS: Final = 45  # public: training cycles that each site brings, as a contract would say
_POSITIVE: Final = 2.0  # public weight of a lost grip: a miss is worse than a false alarm
_HONEST: Final = 3
_LOCAL_STEPS: Final = 300
_LOCAL_RATE: Final = 1e-2
_LOCAL_DECAY: Final = 3e-2
_WIDTH: Final = 16
_LARGE: Final = 1000.0  # far above any gradient here: the server's Adam is then momentum with a falling rate


@dataclass(frozen=True, slots=True)
class Descent:
    """Settings of a logistic model's descent from zero: steps, rate, and the clip of a cycle's gradient."""

    steps: int
    rate: float
    clip: float

    @property
    def server(self) -> ServerAdam:
        """The server's step: a plain running mean of gradients, so that noise is not scaled up."""
        return ServerAdam(
            kind="adam",
            rate=decimal_text(str(self.rate * _LARGE)),
            decay="0.9",
            beta1="0.9",
            beta2="0.99",
            epsilon=decimal_text(str(_LARGE)),
            average="0",
            steps=self.steps,
        )


COMMON: Final = Descent(steps=20, rate=2.0, clip=0.3)
_EARLY: Final = Descent(steps=40, rate=0.3, clip=1e9)


def frame_loss(outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per frame ``[..., F]`` with a public weight on lost grips: a `FrameLoss`."""
    losses = nn.functional.binary_cross_entropy_with_logits(
        outputs, targets, reduction="none", pos_weight=torch.tensor(_POSITIVE)
    )
    return (mask * losses).sum(-1)


def plan_of(epsilon: float, noise: str) -> DpPlan:
    """The plan of a run: full batches, one row per cycle."""
    sigma = calibrate(epsilon=epsilon, delta=float(DELTA), q=1.0, steps=COMMON.steps)
    return DpPlan.load(
        {
            "schema": "iriai-dp-plan/1",
            "unit": "work-piece",
            "adjacency": "zero-out",
            "mechanism": "poisson-gaussian",
            "noise": noise,
            "honest_min": _HONEST if noise == "shares" else None,
            "sampling_prob": "1",
            "noise_multiplier": sigma,
            "clip_norm": decimal_text(str(COMMON.clip)),
            "clipping": "flat",
            "steps": COMMON.steps,
            "steps_per_round": 1,
            "normalizer": str(EXPECTED_UNITS),
            "strata_target": None,
            "frames_per_unit": 1,
            "delta": DELTA,
            "test_only": True,
        }
    )


def auroc(scores: npt.NDArray[np.floating[Any]], positive: npt.NDArray[np.bool_]) -> float | None:
    """Area under the ROC curve, ties counted half; None (undetermined) where one class is absent."""
    ones = int(positive.sum())
    others = len(positive) - ones
    if not ones or not others:
        return None
    _, place, count = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(count) - (count - 1) / 2)[place]
    return float((ranks[positive].sum() - ones * (ones + 1) / 2) / (ones * others))


def _logistic(features: int, _seed: int = 0, *, weight: float = 0.0) -> nn.Module:
    model = nn.Sequential(nn.Linear(features, 1))
    for parameter in model.parameters():
        nn.init.constant_(parameter, weight)
    return model


def _network(features: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, 1))


def _rows(cycles: Sequence[Cycle]) -> torch.Tensor:
    return torch.from_numpy(np.vstack([one.frames.inputs for one in cycles]))


def _units(cycles: Sequence[Cycle]) -> list[UnitFrames]:
    return [
        UnitFrames(*(torch.from_numpy(a) for a in (one.frames.inputs, one.frames.targets, one.frames.mask)))
        for one in cycles
    ]


# --- training ---


def _common(pool: Sequence[Site], plan: DpPlan | None, *, seed: int, draw: int = 0) -> nn.Module:
    """The model that the sites train together; without a plan it is the same descent without noise."""
    model = _logistic(pool[0].train[0].frames.inputs.shape[1])
    if plan is None:
        return _descend(model, [_clipped_gradient(model, site.train, COMMON) for site in pool], COMMON)
    gradients = [
        _private_gradient(model, site.train, plan, seed=1000 * seed + SITES * draw + n)
        for n, site in enumerate(pool)
    ]
    return _descend(model, gradients, COMMON)


def _descend(model: nn.Module, gradients: Sequence[Callable[[], Array32]], descent: Descent) -> nn.Module:
    options = descent.server
    weights = read_weights(model).astype(np.float64)
    state = initial_state(weights, options)
    for step in range(descent.steps):
        write_weights(model, weights.astype(np.float32))
        mean = np.mean([one() for one in gradients], axis=0)
        weights, state = server_step(weights, mean, state, options, step)
    write_weights(model, released_weights(weights, state, options))
    return model


def _private_gradient(
    model: nn.Module, cycles: Sequence[Cycle], plan: DpPlan, *, seed: int
) -> Callable[[], Array32]:
    plan.check_units(len(cycles))
    steps = PrivateSteps(
        plan=plan,
        frames=[one.frames for one in cycles],
        engine=PackedEngine(model, frame_loss, clipping=plan.clipping),
        parameters=len(read_weights(model)),
        noise=SeededNoise(seed),
    )
    return steps.gradient


def _clipped_gradient(model: nn.Module, cycles: Sequence[Cycle], descent: Descent) -> Callable[[], Array32]:
    engine, units = PackedEngine(model, frame_loss), _units(cycles)
    return lambda: (flatten(engine(units, descent.clip)) / len(units)).astype(np.float32)


def _fitted(site: Site, seed: int, make: Callable[[int, int], nn.Module]) -> nn.Module:
    """A site alone: AdamW on all its rows, to the end."""
    inputs = _rows(site.train)
    targets = torch.from_numpy(np.vstack([one.frames.targets for one in site.train]))
    model = make(inputs.shape[1], seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LOCAL_RATE, weight_decay=_LOCAL_DECAY)
    for _ in range(_LOCAL_STEPS):
        optimiser.zero_grad()
        torch.autograd.backward(frame_loss(model(inputs), targets, torch.ones_like(targets)).mean())
        optimiser.step()
    return model


def _descended(site: Site, _seed: int, descent: Descent) -> nn.Module:
    """A site alone: a logistic model, by the same kind of descent as the common one."""
    model = _logistic(site.train[0].frames.inputs.shape[1])
    return _descend(model, [_clipped_gradient(model, site.train, descent)], descent)


LOCAL_WAYS: Final[dict[str, Callable[[Site, int], nn.Module]]] = {
    "logistic": partial(_fitted, make=_logistic),
    "network of 16": partial(_fitted, make=_network),
    "logistic, stopped early": partial(_descended, descent=_EARLY),
    "logistic, steps of the common model": partial(_descended, descent=COMMON),
}
CHOSEN_LOCAL: Final = ("load by joint", "logistic, stopped early")
"""Features and way that were best on `TUNED_ON`: what the common model has to stand up to."""


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
        scores = model(_rows(cycles))[:, 0].numpy()
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
        found = [_judge([_logistic(_size(pool[0].train) - 1, weight=-1.0)], pool) for pool in pools.values()]
        rule = {"way": "rule", "model": "untrained", "epsilon": "0", "noise": "none"}
        rows.append({**rule, **_figures(found)})
    return rows


def _row(pools: dict[int, tuple[Site, ...]], epsilon: float | None, noise: str) -> dict[str, Json]:
    plan = None if epsilon is None else plan_of(epsilon, noise)
    found = []
    for seed, pool in pools.items():
        draws = range(1 if plan is None else DRAWS)
        each = [_judge([_common(pool, plan, seed=seed, draw=draw)], pool) for draw in draws]
        found.append(
            _Scores(statistics.fmean(one.everywhere for one in each), _mean([one.own for one in each]))
        )
    return {
        "way": "common",
        "model": "logistic",
        "epsilon": "inf" if plan is None else decimal_text(f"{plan.epsilon_rdp:.4f}"),
        "noise": noise,
        "sigma": None if plan is None else plan.noise_multiplier,
        "plain_sum": noise == "shares",  # no secure aggregation here: nobody is protected by it
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
    local = [row for row in rows if row["way"] == "local"]
    chosen = next(row for row in local if (row["features"], row["model"]) == CHOSEN_LOCAL)
    found: dict[str, Json] = {}
    for column in ("auroc", "auroc_own"):
        best = max(local, key=lambda row, column=column: row[column]["mean"] or 0.0)
        for name, row in (("chosen", chosen), ("hindsight", best)):
            found[f"{column}: {name}"] = _paired(private, row, column)
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
    }
