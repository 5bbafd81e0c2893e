# SPDX-License-Identifier: Apache-2.0
"""Models of grip loss: the common one of all sites, with privacy or without, and what a site makes alone.

- `together`: one logistic model from zero, one clipped step a round, by the plan and the server's step that
  real runs use; the updates are averaged in this process, in the open: for ``shares`` a PLAIN SUM, where a
  real run has secure aggregation.
- `LOCAL_WAYS`: a site alone without privacy: fitted to the end (logistic, small network), stopped early, or
  by the very steps of the common model.
- Settings were chosen on the tuning seeds of `sandbox.bench_cobotops`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final

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
from sandbox.cobotops import SITES, Cycle, Site

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = [
    "COMMON",
    "DELTA",
    "LOCAL_WAYS",
    "Descent",
    "frame_loss",
    "logistic",
    "plan_of",
    "rows_of",
    "together",
]

Array32 = npt.NDArray[np.float32]
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
            update="gradient",
            rate=decimal_text(str(self.rate * _LARGE)),
            decay="0.9",
            beta1="0.9",
            beta2="0.99",
            epsilon=decimal_text(str(_LARGE)),
            average="0.5",
            steps=self.steps,
        )


COMMON: Final = Descent(steps=20, rate=3.0, clip=0.2)
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


def logistic(features: int, _seed: int = 0, *, weight: float = 0.0) -> nn.Module:
    """A logistic model, all its weights ``weight``."""
    model = nn.Sequential(nn.Linear(features, 1))
    for parameter in model.parameters():
        nn.init.constant_(parameter, weight)
    return model


def _network(features: int, seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(features, _WIDTH), nn.Tanh(), nn.Linear(_WIDTH, 1))


def rows_of(cycles: Sequence[Cycle]) -> torch.Tensor:
    """Inputs of all cycles, ``[N, k]``."""
    return torch.from_numpy(np.vstack([one.frames.inputs for one in cycles]))


def _units(cycles: Sequence[Cycle]) -> list[UnitFrames]:
    return [
        UnitFrames(*(torch.from_numpy(a) for a in (one.frames.inputs, one.frames.targets, one.frames.mask)))
        for one in cycles
    ]


def together(pool: Sequence[Site], plan: DpPlan | None, *, seed: int, draw: int = 0) -> nn.Module:
    """The model that the sites train together; without a plan it is the same descent without noise."""
    model = logistic(pool[0].train[0].frames.inputs.shape[1])
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
    inputs = rows_of(site.train)
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
    model = logistic(site.train[0].frames.inputs.shape[1])
    return _descend(model, [_clipped_gradient(model, site.train, descent)], descent)


LOCAL_WAYS: Final[dict[str, Callable[[Site, int], nn.Module]]] = {
    "logistic": partial(_fitted, make=logistic),
    "network of 16": partial(_fitted, make=_network),
    "logistic, stopped early": partial(_descended, descent=_EARLY),
    "logistic, steps of the common model": partial(_descended, descent=COMMON),
}
