# SPDX-License-Identifier: Apache-2.0
"""What privacy costs on a real recording: AUROC of grip loss on UR3 CobotOps, a work cycle being the unit.

Four sites train one logistic model, one noisy step a round (`client.learning.private.PrivateSteps` with the
plan, the packed engine and the server's Adam that real runs use; the updates are averaged in this process).
Beside it each site trains alone without privacy, on the same inputs, with the logistic model and with a small
network.

- ``auroc``: a model judged on the held-out cycles of all sites; ``local`` is the mean over the four sites'
  models. It is the question that pooling answers: does one model work everywhere.
- ``auroc_own``: on each site's own held-out cycles, mean over the sites that have both classes there: a dozen
  cycles and one to six losses a site, so it is coarse.
- ``local-full``: each site adds the whole noise. ``shares``: each a part of it, and the sum is a PLAIN SUM
  here: without secure aggregation nobody is protected by it, so those rows are marked.

What these figures are not: the settings below were chosen on other splits (`TUNED_ON`) of the same recording.
On private data that search would have to be paid for. Noise is seeded, so that the figures can be made again;
the plans say ``test_only``, and everything here is NOT PRIVATE.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
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
from sandbox.cobotops import CONSTANTS, SITES, Cycle, Site, read_cycles, sites
from sandbox.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

__all__ = ["TUNED_ON", "auroc", "plan_of", "run"]

Json = Any  # a JSON value
Array32 = npt.NDArray[np.float32]
TUNED_ON: Final = (100, 101, 102, 103)
"""Seeds of the splits on which the settings were chosen; `run` refuses to report on them."""
DELTA: Final = "0.00001"
EXPECTED_UNITS: Final = 45  # public: training cycles that each site brings, as a contract would say
STEPS: Final = 150
_PLAIN_STEPS: Final = 300  # without privacy a round costs nothing but time
_CLIP: Final = "0.2"
_POSITIVE: Final = 2.0  # public weight of a lost grip: a miss is worse than a false alarm
_RATE, _DECAY, _AVERAGE = "0.05", "0.9", "0.95"
_LOCAL_STEPS: Final = 300
_LOCAL_RATE: Final = 1e-2
_LOCAL_DECAY: Final = 3e-2
_WIDTH: Final = 16
_UNCLIPPED: Final = 1e9
_WITHOUT: Final = {"all": (), "without temperatures": ("joint_temp",)}
_HONEST: Final = 3


def frame_loss(outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Cross-entropy per frame ``[..., F]`` with a public weight on lost grips: a `FrameLoss`."""
    losses = nn.functional.binary_cross_entropy_with_logits(
        outputs, targets, reduction="none", pos_weight=torch.tensor(_POSITIVE)
    )
    return (mask * losses).sum(-1)


def plan_of(epsilon: float, noise: str) -> DpPlan:
    """The plan of a run: full batches, normalised clipping, one row per cycle."""
    sigma = calibrate(epsilon=epsilon, delta=float(DELTA), q=1.0, steps=STEPS)
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
            "clip_norm": _CLIP,
            "clipping": "normalised",
            "steps": STEPS,
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


def _linear(features: int, _seed: int) -> nn.Module:
    model = nn.Sequential(nn.Linear(features, 1))
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
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


def _common(pool: Sequence[Site], plan: DpPlan | None, *, seed: int) -> nn.Module:
    """The model that the sites train together; without a plan their plain mean gradients are averaged."""
    model = _linear(pool[0].train[0].frames.inputs.shape[1], seed)
    if plan is None:
        gradients = [_plain_gradient(model, site.train) for site in pool]
    else:
        gradients = [
            _private_gradient(model, site.train, plan, seed=1000 * seed + n) for n, site in enumerate(pool)
        ]
    options = ServerAdam(
        kind="adam",
        rate=_RATE,
        decay=_DECAY,
        beta1="0.9",
        beta2="0.99",
        epsilon="0.000001",
        average=_AVERAGE,
        steps=_PLAIN_STEPS if plan is None else plan.steps,
    )
    weights = read_weights(model).astype(np.float64)
    state = initial_state(weights, options)
    for step in range(options.steps):
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


def _plain_gradient(model: nn.Module, cycles: Sequence[Cycle]) -> Callable[[], Array32]:
    engine, units = PackedEngine(model, frame_loss), _units(cycles)
    return lambda: (flatten(engine(units, _UNCLIPPED)) / len(units)).astype(np.float32)


def _alone(site: Site, make: Callable[[int, int], nn.Module], *, seed: int) -> nn.Module:
    """What a site reaches by itself, without privacy: AdamW on all its rows."""
    inputs = _rows(site.train)
    targets = torch.from_numpy(np.vstack([one.frames.targets for one in site.train]))
    model = make(inputs.shape[1], seed)
    optimiser = torch.optim.AdamW(model.parameters(), lr=_LOCAL_RATE, weight_decay=_LOCAL_DECAY)
    for _ in range(_LOCAL_STEPS):
        optimiser.zero_grad()
        torch.autograd.backward(frame_loss(model(inputs), targets, torch.ones_like(targets)).mean())
        optimiser.step()
    return model


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
    known = [one for one in own if one is not None]
    return _Scores(statistics.fmean(whole), statistics.fmean(known) if known else None)


def _score(model: nn.Module, cycles: Sequence[Cycle]) -> float | None:
    if not cycles:
        return None
    with torch.no_grad():
        scores = model(_rows(cycles))[:, 0].numpy()
    return auroc(scores, np.array([one.lost for one in cycles]))


# --- the study ---


def run(path: Path, *, seeds: Sequence[int] = (0, 1, 2, 3, 4)) -> dict[str, Json]:
    """Figures of all ways over the seeds.

    Args:
        path: The recording's CSV.
        seeds: Of splits, initial weights and noise.

    Returns:
        ``rows`` with features, model, epsilon, noise, ``auroc`` and ``auroc_own`` (mean, standard deviation,
        per seed); ``goal`` compares epsilon 8 with local training on all held-out cycles and on own ones.

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
    for features, leave_out in _WITHOUT.items():
        cycles = read_cycles(path, leave_out=leave_out)
        pools = {seed: sites(cycles, seed=seed) for seed in seeds}
        rows += [{"features": features, **row} for row in _table(pools)]
    return {
        "task": "was the grip lost in this cycle, from mean and spread of its readings",
        "unit": "work-piece (work cycle)",
        "cycles": len(cycles),
        "lost": sum(one.lost for one in cycles),
        "sites": SITES,
        "seeds": list(seeds),
        "tuned_on": list(TUNED_ON),
        "delta": DELTA,
        "constants": {name: one._asdict() for name, one in CONSTANTS.items()},
        "rows": rows,
        "goal": _goal(rows),
        "verdict": "NOT PRIVATE: seeded noise, and settings that were searched on the same recording",
        "cpu_s": round(time.process_time() - began, 1),
    }


def _table(pools: dict[int, tuple[Site, ...]]) -> list[dict[str, Json]]:
    rows = []
    for model, make in (("logistic", _linear), ("network of 16", _network)):
        found = [_judge([_alone(s, make, seed=n) for s in pool], pool) for n, pool in pools.items()]
        rows.append({"way": "local", "model": model, "epsilon": "inf", "noise": "none", **_figures(found)})
    for epsilon, noise in (
        (None, "none"),
        (8.0, "local-full"),
        (8.0, "shares"),
        (2.0, "local-full"),
        (2.0, "shares"),
    ):
        plan = None if epsilon is None else plan_of(epsilon, noise)
        found = [_judge([_common(pool, plan, seed=n)], pool) for n, pool in pools.items()]
        row = {"way": "common", "model": "logistic", "noise": noise, **_figures(found)}
        row["epsilon"] = "inf" if plan is None else decimal_text(f"{plan.epsilon_rdp:.4f}")
        row["sigma"] = None if plan is None else plan.noise_multiplier
        row["plain_sum"] = noise == "shares"  # no secure aggregation here: nobody is protected by it
        rows.append(row)
    return rows


def _figures(found: Sequence[_Scores]) -> dict[str, Json]:
    own = [one.own for one in found if one.own is not None]
    return {"auroc": _spread([one.everywhere for one in found]), "auroc_own": _spread(own)}


def _spread(values: Sequence[float]) -> dict[str, Json]:
    mean = statistics.fmean(values) if values else None
    return {
        "mean": None if mean is None else round(mean, 4),
        "sd": round(statistics.stdev(values), 4) if len(values) > 1 else None,
        "per_seed": [round(one, 4) for one in values],
    }


def _goal(rows: Sequence[dict[str, Json]]) -> dict[str, Json]:
    """Epsilon 8 with full local noise, minus the better of the two local models, per features and column."""
    found: dict[str, Json] = {}
    for features in _WITHOUT:
        here = [row for row in rows if row["features"] == features]
        private = next(row for row in here if row["noise"] == "local-full")  # of epsilon 8: it stands first
        for column in ("auroc", "auroc_own"):
            alone = max((row[column]["mean"] or 0.0) for row in here if row["way"] == "local")
            gain = (private[column]["mean"] or 0.0) - alone
            found[f"{features}: {column}"] = {"gain": round(gain, 4), "no_worse": gain >= 0}
    return found
