# SPDX-License-Identifier: Apache-2.0
"""Gate G1: is what is installed here what the plan says? The real parts of training, on made-up units.

The parts (`Parts`) are those that a run is made of; a test hands in broken ones. No episode is opened and no
budget is spent. In this order, each a check of `policies.privacy.conformance.CHECKS`:

1. A few steps with nobody drawn: each is noisy, and none runs beyond the plan's number.
2. Without noise: taking one unit out moves the engine's sum by at most C, also at 100 times the scale.
3. Steps with canaries (`client.learning.canary_gradients`), as many as the figures need (`Size`).
   Who was drawn, and how long the units were that reached the engine.
4. Coordinates that no canary of the step touches are noise: their variance, shape and freshness.
5. Scores of the canaries against counts give what a unit weighs and the noise it hides in. With the sampling
   rate that was seen, they compose over the plan's T steps to ``mu = q sqrt(T) weight / std``
   (arXiv 2302.03098, per step). It must be within 25 % of the plan's on both sides: too much noise, and no
   training at all, are failures too. With noise shares, mu is that of the sum of ``honest_min`` such nodes.
6. The epsilon that the lower bound of mu stands for must not be above the claim, `epsilon_pld`.

A correct installation fails with a chance of about one in a million for each check.

    report = audit(recipe, entropy=SystemEntropy(), clock=SystemClock())
    report.need_passed()                    # AuditFailedError
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from client.learning.canary_gradients import Port, Ported, Tap, canaries, others
from client.learning.conformance_findings import Observed, findings
from client.learning.engines import UnitFrames, choose_engine, frame_loss
from client.learning.noise import SecureNoise
from client.learning.private import PrivateSteps
from client.learning.registry import build, flatten
from policies.privacy.conformance import ConformanceReport, figure
from policies.privacy.errors import BudgetExhaustedError, EvalUnplannedError
from policies.privacy.plan import DpPlan
from policies.privacy.receipts import ENGINES, MadeWith
from policies.privacy.tight import epsilon_pld

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from client.learning.engines import ClippedSum, FrameLoss
    from client.learning.noise import NoiseSource
    from client.learning.tensors import Frames
    from policies.ports import Clock, Entropy
    from policies.recipe import Recipe

__all__ = ["Parts", "Size", "Steps", "audit"]

Array64 = npt.NDArray[np.float64]
CANARIES: Final = 1_000
_RESOLUTION: Final = 0.045  # standard error of mu that leaves 25 % more than five of them away
_STEPS: Final = (120, 2_000)  # fewer tell nothing about the sampler; more take minutes
_STEPS_GOAL: Final = 400
_COPIES: Final = (1, 2, 4, 8, 16, 32)
_DRAWN_CELLS: Final = 2**24  # gradient values of the canaries of one step: 128 MiB in float64
_EMPTY_CELLS: Final = 2_000_000
_EMPTY_STEPS: Final = (5, 40)
_OTHERS: Final = 8
_RARE: Final = "0.000000001"
_SAMPLER: Final = MadeWith(engine="").sampler
_GENERATOR: Final = MadeWith(engine="").generator


class Steps(Protocol):
    """What gives the noisy steps of a run: `PrivateSteps`, or what a test plants."""

    def gradient(self) -> npt.NDArray[np.float32]:
        """The next step's noisy mean gradient, ``[P]``."""
        ...


class StepsOf(Protocol):
    """How steps are made."""

    def __call__(
        self,
        *,
        plan: DpPlan,
        frames: Sequence[Frames],
        engine: ClippedSum,
        parameters: int,
        noise: NoiseSource,
    ) -> Steps:
        """Steps of one run."""
        ...


def chosen_engine(model: nn.Module, loss: FrameLoss, plan: DpPlan) -> ClippedSum:
    """The engine that a run of the plan has."""
    return choose_engine(model, loss, plan.frames_per_unit, clipping=plan.clipping).engine


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What is audited: the same objects that a run is made of."""

    engine: Callable[[nn.Module, FrameLoss, DpPlan], ClippedSum] = chosen_engine
    steps: StepsOf = PrivateSteps
    noise: Callable[[Entropy], NoiseSource] = SecureNoise


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How much is looked at.

    Attributes:
        directions: Orthonormal directions.
        copies: Canaries in each. More than one where the noise is so strong that one would have to be drawn
            in thousands of steps to be seen.
        steps: Steps with canaries.
    """

    directions: int
    copies: int
    steps: int

    @property
    def canaries(self) -> int:
        """Units whose gradient is one direction."""
        return self.directions * self.copies

    @classmethod
    def of(cls, plan: DpPlan, parameters: int) -> Size:
        """Enough to know mu to 4.5 %, if 2000 steps are enough for that."""
        q = _probability(plan)
        most = max(1, min(CANARIES, int(_DRAWN_CELLS / (q * parameters))))
        needed = (plan.added_std / float(plan.clip_norm) / _RESOLUTION) ** 2
        sizes: list[tuple[int, Size]] = []
        for copies in _COPIES:
            directions = max(1, min(most // copies, parameters // 4))
            each = copies * q * (1 - q) + (copies * q) ** 2  # what one step tells of one direction
            steps = max(_STEPS[0], math.ceil(needed / (directions * each)))
            sizes.append((steps, cls(directions=directions, copies=copies, steps=min(_STEPS[1], steps))))
            if steps <= _STEPS_GOAL:
                break
        return min(sizes, key=lambda one: one[0])[1]


def _probability(plan: DpPlan) -> float:
    """Of a unit that is a stratum of its own."""
    q = float(plan.sampling_prob)
    return q if plan.strata_target is None else min(q, float(plan.strata_target))


def audit(
    recipe: Recipe,
    *,
    entropy: Entropy,
    clock: Clock,
    parts: Parts | None = None,
    plan: DpPlan | None = None,
) -> ConformanceReport:
    """Tests the installed parts of training against the recipe's plan.

    Args:
        recipe: Its plan and model.
        entropy: The operating system's.
        clock: Tells how long it took.
        parts: What is tested; what a run here is made of, if left out.
        plan: Another plan over the recipe's model.

    Returns:
        The report; it may say that the audit failed.

    Raises:
        EvalUnplannedError: The recipe has no plan.
        ModelRefusedError: The engine has no rule for a layer of the model.
    """
    plan = plan or recipe.plan
    if plan is None:
        raise EvalUnplannedError(
            need="a recipe with a privacy plan", found="none: NOT PRIVATE", remedy="nothing can be audited"
        )
    begun = clock.now_ms()
    size = Size.of(plan, recipe.parameters)
    bench = _Bench(recipe, plan, parts or Parts(), size, entropy)
    empty, counted = bench.empty_steps()
    moved = bench.farthest()
    drawn, scores = bench.canary_steps()
    figures, checks = findings(
        plan,
        Observed(
            sizes=bench.sizes,
            empty=empty,
            counted=counted,
            moved=moved,
            longest=bench.tap.longest,
            drawn=drawn,
            scores=scores,
            directions=size.directions,
        ),
        probability=_probability(plan),
        epsilon_pld=_claim(plan),
    )
    return ConformanceReport(
        plan=plan.digest,
        recipe=recipe.digest,
        engine=bench.engine_name,
        sampler=_SAMPLER,
        generator=_generator(bench.parts.noise(entropy)),
        canaries=size.canaries,
        directions=size.directions,
        steps=size.steps + len(empty),
        parameters=recipe.parameters,
        figures=figures,
        checks=checks,
        seconds=figure((clock.now_ms() - begun) / 1000),
    )


@lru_cache(maxsize=64)
def _claim(plan: DpPlan) -> float:
    """`epsilon_pld`, which takes as long as the rest of an audit, once per plan."""
    return epsilon_pld(plan)


def _generator(noise: NoiseSource) -> str:
    """Name of the generator, as step receipts have it if it is the one that private runs use."""
    if noise.predictable:
        return "seeded"
    kind = type(noise.choice.bit_generator).__name__
    return _GENERATOR if kind == "ChaCha" else kind


class _Bench:
    """The parts under test, set up once for a recipe."""

    def __init__(self, recipe: Recipe, plan: DpPlan, parts: Parts, size: Size, entropy: Entropy) -> None:
        outputs = recipe.architecture.args.chunk * recipe.output_size
        self.plan, self.parts, self._size, self._entropy = plan, parts, size, entropy
        self._clip, self._frames = float(plan.clip_norm), plan.frames_per_unit
        self._port = Port.of(inputs=recipe.input_size, outputs=outputs, directions=size.directions)
        model = Ported(build(recipe), self._port)
        self.sizes = tuple(one.numel() for one in model.parameters())
        self._engine = parts.engine(model, frame_loss, plan)
        kind = type(self._engine).__name__
        self.engine_name = ENGINES.get(kind, kind)
        self.tap = Tap(self._engine)

    def _steps(self, plan: DpPlan, frames: Sequence[Frames]) -> Steps:
        return self.parts.steps(
            plan=plan,
            frames=frames,
            engine=self.tap,
            parameters=sum(self.sizes),
            noise=self.parts.noise(self._entropy),
        )

    def _noisy(self, steps: Steps) -> Array64:
        """The noisy sum that the next step stands for, ``[P]``."""
        return steps.gradient().astype(np.float64) * float(self.plan.normalizer)

    def _canaries(self, count: int) -> list[Frames]:
        return canaries(self._port, count=count, clip=self._clip, frames=self._frames)

    def _others(self) -> list[Frames]:
        rng = np.random.Generator(np.random.PCG64(0))  # made-up frames: nothing here is private
        return others(self._port, count=_OTHERS, frames=self._frames, rng=rng)

    def empty_steps(self) -> tuple[Array64, bool]:
        """Steps with nobody drawn ``[t, P]``, and whether exactly the plan's number of them ran."""
        few, many = _EMPTY_STEPS
        wanted = max(few, min(many, _EMPTY_CELLS // sum(self.sizes)))
        brief = {"steps": wanted, "steps_per_round": min(wanted, self.plan.steps_per_round)}
        plan = DpPlan.load(self.plan.document | brief | {"sampling_prob": _RARE})
        steps = self._steps(plan, self._canaries(1))
        rows: list[Array64] = []
        try:
            while len(rows) <= wanted:
                rows.append(self._noisy(steps))
        except BudgetExhaustedError:
            pass
        return np.array(rows).reshape(-1, sum(self.sizes)), len(rows) == wanted

    def farthest(self) -> float:
        """How far the engine's sum moves, in clip norms, when the unit that moves it most is taken out."""
        arrays = [(u.inputs, u.targets, u.mask) for u in (*self._others(), *self._canaries(3))]
        units = [UnitFrames(*(torch.from_numpy(one) for one in unit)) for unit in arrays]
        whole = flatten(self._engine(units, self._clip))
        rest = [flatten(self._engine([*units[:i], *units[i + 1 :]], self._clip)) for i in range(len(units))]
        return max(float(np.linalg.norm(whole - one)) for one in rest) / self._clip

    def canary_steps(self) -> tuple[npt.NDArray[np.bool_], Array64]:
        """Who was drawn ``[T, n]``, and what came out at the port ``[T, w * w]``, in clip norms."""
        size, port = self._size, self._port
        frames = [*self._canaries(size.canaries), *self._others()]
        drawn = np.zeros((size.steps, size.canaries), dtype=bool)
        scores = np.zeros((size.steps, port.size))
        steps: Steps | None = None
        for at in range(size.steps):
            if steps is None or at % self.plan.steps == 0:
                steps = self._steps(self.plan, frames)  # a run has the plan's number of steps
            scores[at] = self._noisy(steps)[-port.size :] / self._clip
            drawn[at, self.tap.take()] = True
        return drawn, scores
