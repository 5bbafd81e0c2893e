# SPDX-License-Identifier: Apache-2.0
"""The parts of private training under the conformance audit, set up on made-up units; what comes out is seen.

Each method of `Bench` is one experiment with the parts (`Parts`) that a run is made of; a test hands in
broken ones. Nothing here judges (`client.learning.conformance_findings`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING, ClassVar, Final, Protocol

import numpy as np
import numpy.typing as npt
import torch

from client.learning.canary_gradients import NoEngine, Port, Ported, Tap, canaries, crowd, others
from client.learning.conformance_seen import (
    CanarySteps,
    Crowded,
    EmptySteps,
    Exact,
    Fresh,
)
from client.learning.engines import UnitFrames, choose_engine, frame_loss
from client.learning.noise import SecureNoise
from client.learning.private import PrivateSteps
from client.learning.registry import build, flatten
from policies.privacy.errors import BudgetExhaustedError
from policies.privacy.plan import DpPlan
from policies.privacy.receipts import ENGINES

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from client.learning.engines import ClippedSum, FrameLoss
    from client.learning.noise import NoiseSource
    from client.learning.tensors import Frames
    from policies.ports import Entropy
    from policies.recipe import Recipe

__all__ = ["Bench", "Parts", "Size", "Steps", "probability"]

Array64 = npt.NDArray[np.float64]
_CANARIES: Final = (1_000, 500, 250)
_RESOLUTION: Final = 0.045  # standard error of mu that leaves 25 % more than five of them away
_STEPS: Final = (120, 2_000)  # fewer tell nothing about the sampler; more take minutes
_STEPS_GOAL: Final = 400
_COPIES: Final = (1, 2, 4, 8, 16, 32)
_SPARE: Final = 1.5  # many directions are worth so many units more: copies hide how unlike units weigh
_DRAWN_CELLS: Final = 2**24  # gradient values of the canaries of one step: 128 MiB in float64
_EMPTY_CELLS: Final = 2_000_000
_EMPTY_STEPS: Final = (5, 40)
_WIDTH: Final = 128
_WHOLE: Final = 10_000
_EXACT: Final = 300  # canaries: more than are summed at once
_EXACT_STEPS: Final = 4
_DRAWS: Final = 50_000  # enough to know the rate to 0.5 %
_CROWD_STEPS: Final = (100, 4_000)
_RUNS: Final = 50  # setting one up takes as long as some steps
_GENERATORS: Final = 4
_FRESH: Final = 2**14
_OTHERS: Final = 8
_RARE: Final = "0.000000001"
_ALL: Final = "1"


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
        """Enough to know mu to 4.5 %, if 2000 steps are enough for that, with as few units as that takes."""
        q = probability(plan)
        most = max(1, min(max(_CANARIES), int(_DRAWN_CELLS / (q * parameters))))
        needed = (plan.added_std / float(plan.clip_norm) / _RESOLUTION) ** 2
        sizes: list[Size] = []
        for copies, count in product(reversed(_COPIES), _CANARIES):
            directions = max(1, min(count // copies, most // copies, parameters // 4))
            each = copies * q * (1 - q) + (copies * q) ** 2  # what one step tells of one direction
            steps = max(_STEPS[0], math.ceil(needed / (directions * each)))
            sizes.append(cls(directions=directions, copies=copies, steps=steps))
        short = [one for one in sizes if one.steps <= _STEPS_GOAL]
        if short:
            most_units = _SPARE * min(one.steps * one.canaries for one in short)
            return next(one for one in short[::-1] if one.steps * one.canaries <= most_units)
        longest = min(sizes, key=lambda one: one.steps)
        return cls(directions=longest.directions, copies=longest.copies, steps=min(_STEPS[1], longest.steps))


def probability(plan: DpPlan) -> float:
    """Of a unit that is a stratum of its own."""
    q = float(plan.sampling_prob)
    return q if plan.strata_target is None else min(q, float(plan.strata_target))


class _Silent:
    """`NoiseSource` without noise: predictable, so no plan but one that is ``test_only`` takes it."""

    predictable: ClassVar[bool] = True

    def __init__(self, choice: np.random.Generator) -> None:
        self.choice = choice

    def gaussian(self, std: float, size: int) -> Array64:
        """Zeros."""
        del std
        return np.zeros(size)


class _Counted:
    """`Entropy` that counts what is asked for."""

    def __init__(self, entropy: Entropy) -> None:
        self._entropy, self.bytes = entropy, 0

    def token_bytes(self, size: int) -> bytes:
        """See `Entropy`."""
        self.bytes += size
        return self._entropy.token_bytes(size)


class Bench:
    """The parts under test, set up once for a recipe."""

    def __init__(self, recipe: Recipe, plan: DpPlan, parts: Parts, size: Size, entropy: Entropy) -> None:
        outputs = recipe.target_size
        self.plan, self.parts, self._size, self._entropy = plan, parts, size, entropy
        self._clip, self._frames = float(plan.clip_norm), plan.frames_per_unit
        self.port = Port.of(inputs=recipe.input_size, outputs=outputs, directions=size.directions)
        model = Ported(build(recipe), self.port)
        self.sizes = tuple(one.numel() for one in model.parameters())
        self._engine = parts.engine(model, frame_loss, plan)
        kind = type(self._engine).__name__
        self.engine_name = ENGINES.get(kind, kind)
        self.tap = Tap(self._engine)

    def _steps(self, plan: DpPlan, frames: Sequence[Frames], noise: NoiseSource | None = None) -> Steps:
        return self.parts.steps(
            plan=plan,
            frames=frames,
            engine=self.tap,
            parameters=sum(self.sizes),
            noise=noise or self.parts.noise(self._entropy),
        )

    def _noisy(self, steps: Steps) -> Array64:
        """The noisy sum that the next step stands for, ``[P]``."""
        return steps.gradient().astype(np.float64) * float(self.plan.normalizer)

    def _planned(self, **changes: object) -> DpPlan:
        return DpPlan.load(self.plan.document | changes)

    def _canaries(self, count: int) -> list[Frames]:
        return canaries(self.port, count=count, clip=self._clip, frames=self._frames)

    def _others(self) -> list[Frames]:
        rng = np.random.Generator(np.random.PCG64(0))  # made-up frames: nothing here is private
        return others(self.port, count=_OTHERS, frames=self._frames, rng=rng)

    @property
    def _kept(self) -> int:
        """Whole noisy sums that are kept of one run."""
        few, many = _EMPTY_STEPS
        return max(few, min(many, _EMPTY_CELLS // sum(self.sizes)))

    def empty_steps(self) -> EmptySteps:
        """Two runs with nobody drawn."""
        wanted = self._kept
        per_round = min(wanted, self.plan.steps_per_round)
        plan = self._planned(steps=wanted, steps_per_round=per_round, sampling_prob=_RARE)
        steps, again = (self._steps(plan, self._canaries(1)) for _ in range(2))
        rows: list[Array64] = []
        try:
            while len(rows) <= wanted:
                rows.append(self._noisy(steps))
        except BudgetExhaustedError:
            pass
        first = np.array(rows).reshape(-1, sum(self.sizes))
        second = np.array([self._noisy(again) for _ in range(wanted)])
        return EmptySteps(first=first, second=second, whole=self._whole(), counted=len(rows) == wanted)

    def _whole(self) -> Array64:
        """Noise of a run from its first step to its last, ``[T, w]``; no engine is asked."""
        plan = self._planned(sampling_prob=_RARE)
        steps = self.parts.steps(
            plan=plan,
            frames=self._canaries(1),
            engine=NoEngine(),
            parameters=_WIDTH,
            noise=self.parts.noise(self._entropy),
        )
        return np.array([self._noisy(steps) for _ in range(min(plan.steps, _WHOLE))])

    def farthest(self) -> float:
        """How far the engine's sum moves, in clip norms, when the unit that moves it most is taken out."""
        arrays = [(u.inputs, u.targets, u.mask) for u in (*self._others(), *self._canaries(3))]
        units = [UnitFrames(*(torch.from_numpy(one) for one in unit)) for unit in arrays]
        whole = flatten(self._engine(units, self._clip))
        rest = [flatten(self._engine([*units[:i], *units[i + 1 :]], self._clip)) for i in range(len(units))]
        return max(float(np.linalg.norm(whole - one)) for one in rest) / self._clip

    def exact_steps(self) -> Exact:
        """What canaries weigh where no noise is added: some steps of the plan, and one with all of them."""
        count = min(self._size.canaries, _EXACT, max(1, _DRAWN_CELLS // sum(self.sizes)))
        least, most, stray = 1.0, 0.0, 0.0
        for q, number in ((str(self.plan.sampling_prob), _EXACT_STEPS), (_ALL, 1)):
            plan = self._planned(test_only=True, sampling_prob=q, steps=number, steps_per_round=1)
            silent = _Silent(self.parts.noise(self._entropy).choice)
            steps = self._steps(plan, self._canaries(count), silent)
            for _ in range(number):
                weighed = self._noisy(steps) / self._clip
                drawn = np.zeros(len(weighed))
                taken = self.tap.take(count)
                place = np.arange(count) % self._size.directions - self.port.size
                np.add.at(drawn, place, taken)
                known = drawn > 0
                each = weighed[known] / drawn[known]
                least, most = min(least, each.min(initial=1.0)), max(most, each.max(initial=0.0))
                stray = max(stray, float(np.abs(weighed[~known]).max(initial=0.0)))
        return Exact(least=least, most=most, stray=stray)

    def crowd_steps(self) -> Crowded:
        """Draws from many units in strata of many sizes, for which nothing is computed."""
        target = self.plan.strata_target
        units = crowd(
            sampling_prob=float(self.plan.sampling_prob),
            strata_target=None if target is None else float(target),
        )
        few, many = _CROWD_STEPS
        number = max(few, min(many, _RUNS * self.plan.steps, math.ceil(_DRAWS / float(units.q.sum()))))
        run = min(self.plan.steps, number // 2)
        tap = Tap(NoEngine())
        drawn = np.zeros((number, len(units.units)), dtype=np.intp)
        for at in range(number):
            if at % run == 0:
                steps = self.parts.steps(
                    plan=self.plan,
                    frames=units.units,
                    engine=tap,
                    parameters=1,
                    noise=self.parts.noise(self._entropy),
                )
            steps.gradient()
            drawn[at] = tap.take(len(units.units))
        return Crowded(drawn=drawn, q=units.q, sizes=units.sizes, run=run)

    def canary_steps(self) -> CanarySteps:
        """Who was drawn, and what came out."""
        size, port, run = self._size, self.port, min(self.plan.steps, -(-self._size.steps // 2))
        own, cuts = sum(self.sizes) - port.size, np.cumsum((0, *self.sizes[:-2]))
        drawn = np.zeros((size.steps, size.canaries), dtype=np.intp)
        scores, squares, alone = np.zeros((size.steps, port.size)), np.zeros(len(cuts)), 0
        kept: list[Array64] = []
        alike, mixed = self._canaries(size.canaries), self._others()
        for at in range(size.steps):
            crowded = at // run % 2 == 1
            if at % run == 0:  # a run has at most the plan's number of steps
                steps = self._steps(self.plan, [*alike, *mixed] if crowded else alike)
            noisy = self._noisy(steps)
            scores[at], drawn[at] = noisy[own:] / self._clip, self.tap.take(size.canaries)
            if not crowded and drawn[at].any():
                squares += np.add.reduceat(noisy[:own] ** 2, cuts)
                alone += 1
            if at < min(run, self._kept):
                kept.append(noisy[:own])
        return CanarySteps(
            drawn=drawn, scores=scores, own=np.array(kept), squares=squares, alone=alone, run=run
        )

    def fresh_generators(self) -> Fresh:
        """The first numbers of generators that were just made."""
        made = []
        least = math.inf
        for _ in range(_GENERATORS):
            counted = _Counted(self._entropy)
            made.append(self.parts.noise(counted))
            least = min(least, counted.bytes)
        return Fresh(
            noise=np.array([one.gaussian(1.0, _FRESH) for one in made]),
            choice=np.array([one.choice.standard_normal(_FRESH) for one in made]),
            key_bytes=int(least),
        )
