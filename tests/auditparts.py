# SPDX-License-Identifier: Apache-2.0
"""Wrong parts of private training, each wrong in one way, and plans that are right, for the conformance audit."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
import torch

from client.learning.conformance import Parts, audit
from client.learning.engines import PackedEngine, UnitFrames
from client.learning.noise import SecureNoise
from client.learning.registry import flatten
from policies.privacy.plan import DpPlan
from policies.privacy.sampling import sampler
from tests.learnsim import SeededEntropy, StillClock, small_recipe

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.privacy.conformance import ConformanceReport
    from policies.recipe import Recipe


def audited(
    plan: dict[str, object], parts: Parts | None = None, *, recipe: Recipe | None = None, seed: int = 0
) -> ConformanceReport:
    """The report on a small recipe under its plan with other numbers."""
    recipe = recipe or small_recipe()
    assert recipe.plan is not None
    whole = DpPlan.load(recipe.plan.document | plan)
    return audit(recipe, plan=whole, entropy=SeededEntropy(seed), clock=StillClock(), parts=parts)


# --- engines ---


class FrameClipping(PackedEngine):
    """Clips each frame instead of each unit."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        frames = [
            UnitFrames(unit.inputs[i : i + 1], unit.targets[i : i + 1], unit.mask[i : i + 1])
            for unit in units
            for i in range(len(unit.inputs))
        ]
        return super().__call__(frames, clip)


class ClipAfterSum(PackedEngine):
    """Sums first and clips the sum."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        total = super().__call__(units, 1e30)
        norm = float(np.linalg.norm(flatten(total)))
        return [one * min(1.0, clip / max(norm, 1e-300)) for one in total]


class NoTraining(PackedEngine):
    """Gives zeros: private, and useless."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        return [0 * one for one in super().__call__(units, clip)]


def of(kind: type[PackedEngine]):
    """How an audit makes an engine."""
    return lambda model, loss, plan: kind(model, loss, clipping=plan.clipping)


# --- noise ---


class NoNoise(SecureNoise):
    def gaussian(self, std, size):
        return 0 * super().gaussian(std, size)


class HalfNoise(SecureNoise):
    def gaussian(self, std, size):
        return super().gaussian(std / 2, size)


class DoubleNoise(SecureNoise):
    def gaussian(self, std, size):
        return super().gaussian(std * 2, size)


class UniformNoise(SecureNoise):
    """Of the right variance and the wrong shape."""

    def gaussian(self, std, size):
        return self.choice.uniform(-math.sqrt(3) * std, math.sqrt(3) * std, size)


ROUND = 4


class NoiseOncePerRound(SecureNoise):
    """Draws once and adds the same in every step of a round."""

    def __init__(self, entropy):
        super().__init__(entropy)
        self._calls, self._kept = 0, None

    def gaussian(self, std, size):
        if self._calls % ROUND == 0:
            self._kept = super().gaussian(std, size)
        self._calls += 1
        return self._kept.copy()


class NoiseInFirstStep(SecureNoise):
    """Adds noise in the first step of a round only."""

    def __init__(self, entropy):
        super().__init__(entropy)
        self._calls = 0

    def gaussian(self, std, size):
        self._calls += 1
        return super().gaussian(std, size) * (self._calls % ROUND == 1)


class SameKey(SecureNoise):
    """Every run has the noise of the one before."""

    def __init__(self, entropy):
        super().__init__(SeededEntropy(7))


# --- steps ---


class OwnSteps:
    """The steps of a plan once more, with two places where a variant goes wrong; right as it stands."""

    def __init__(self, *, plan, frames, engine, parameters, noise):
        self.plan, self.engine, self.parameters, self.noise = plan, engine, parameters, noise
        self.units = [
            UnitFrames(torch.from_numpy(u.inputs), torch.from_numpy(u.targets), torch.from_numpy(u.mask))
            for u in frames
        ]
        self.sampler = sampler(plan, [u.stratum for u in frames], noise.choice)

    def draw(self):
        return self.sampler.draw()

    def drawn_noise(self, batch):
        return self.noise.gaussian(self.plan.added_std, self.parameters)

    def cut(self, unit):
        rows = slice(self.plan.frames_per_unit)
        return UnitFrames(unit.inputs[rows], unit.targets[rows], unit.mask[rows])

    def gradient(self):
        batch = [self.cut(self.units[i]) for i in self.draw()]
        total = self.drawn_noise(batch)
        if batch:
            total = total + flatten(self.engine(batch, float(self.plan.clip_norm)))
        return (total / float(self.plan.normalizer)).astype(np.float32)


class NoiseOverRootBatch(OwnSteps):
    """Adds noise for a mean to a sum."""

    def drawn_noise(self, batch):
        return super().drawn_noise(batch) / math.sqrt(max(1, len(batch)))


class NoNoiseWithoutUnits(OwnSteps):
    """Takes a step with nobody drawn for no step."""

    def drawn_noise(self, batch):
        return super().drawn_noise(batch) * bool(batch)


class AllFrames(OwnSteps):
    def cut(self, unit):
        return unit


class Shuffled(OwnSteps):
    """Goes through a shuffled list, batch by batch."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.queue = []

    def draw(self):
        self.sampler.draw()  # counts the step
        size = round(float(self.plan.sampling_prob) * len(self.units))
        if len(self.queue) < size:
            self.queue = list(self.noise.choice.permutation(len(self.units)))
        taken, self.queue = self.queue[:size], self.queue[size:]
        return taken


class FixedSize(OwnSteps):
    """Draws the same number of units in each step."""

    def draw(self):
        self.sampler.draw()
        size = round(float(self.plan.sampling_prob) * len(self.units))
        return self.noise.choice.choice(len(self.units), size, replace=False)


class Reused(OwnSteps):
    """Uses each batch twice."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.calls, self.kept = 0, None

    def draw(self):
        drawn = self.sampler.draw()
        if self.calls % 2 == 0:
            self.kept = drawn
        self.calls += 1
        return self.kept


class Uncounted(OwnSteps):
    """Goes on when the plan has no step left."""

    def draw(self):
        return self.sampler.draw() if self.sampler.steps_left else np.array([], dtype=np.intp)


# the six that the design names, with the plan that shows them and a check that must see them
PLANTED = {
    "no noise": (Parts(noise=NoNoise), {}, "mu"),
    "noise over root of batch": (Parts(steps=NoiseOverRootBatch), {}, "mu"),
    "frame-level clipping": (Parts(engine=of(FrameClipping)), {}, "mu"),
    "sigma halved": (Parts(noise=HalfNoise), {}, "mu"),
    "clip after sum": (Parts(engine=of(ClipAfterSum)), {}, "mu"),
    "noise once per round": (Parts(noise=NoiseOncePerRound), {"steps_per_round": ROUND}, "noise-fresh"),
}
MORE = {
    "shuffle": (Parts(steps=Shuffled), {}, "sampling"),
    "fixed batch size": (Parts(steps=FixedSize), {}, "sampling"),
    "each batch used twice": (Parts(steps=Reused), {}, "sampling"),
    "noise in the first step of a round": (
        Parts(noise=NoiseInFirstStep),
        {"steps_per_round": ROUND},
        "noise-shape",
    ),
    "the same key in every run": (Parts(noise=SameKey), {"steps": 40}, "noise-fresh"),
    "noise of another shape": (Parts(noise=UniformNoise), {}, "noise-shape"),
    "too much noise": (Parts(noise=DoubleNoise), {}, "mu"),
    "no training": (Parts(engine=of(NoTraining)), {}, "mu"),
    "no noise where nobody is drawn": (Parts(steps=NoNoiseWithoutUnits), {}, "steps"),
    "more steps than planned": (Parts(steps=Uncounted), {}, "steps"),
    "all frames of a unit": (Parts(steps=AllFrames), {}, "frames"),
}

# ten plans that are right
PLANS = {
    "sandbox": {},
    "epsilon 2": {"noise_multiplier": "6.2244"},
    "epsilon 0.4": {"noise_multiplier": "25"},
    "everybody": {"sampling_prob": "1", "noise_multiplier": "20", "steps": 300},
    "few": {"sampling_prob": "0.01", "noise_multiplier": "1.2", "normalizer": "3"},
    "half": {"sampling_prob": "0.5", "noise_multiplier": "10", "steps": 100, "clip_norm": "1"},
    "little noise": {"sampling_prob": "0.05", "noise_multiplier": "0.8", "steps": 1000, "clip_norm": "10"},
    "normalised": {"clipping": "normalised", "clip_norm": "0.03", "frames_per_unit": 4},
    "shares": {"noise": "shares", "honest_min": 3, "noise_multiplier": "3.3", "steps": 600},
    "strata": {"strata_target": "8", "steps_per_round": 4, "frames_per_unit": 1},
}
