# SPDX-License-Identifier: Apache-2.0
"""Wrong parts of private training, each wrong in one way, and plans that are right, for the conformance audit."""

from __future__ import annotations

import math
import os
from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import torch
from randomgen import ChaCha

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


class LooseClip(PackedEngine):
    """Clips to a fifth more than it was told."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        return super().__call__(units, 1.2 * clip)


class DropsLarge(PackedEngine):
    """Leaves out units whose gradient is large instead of clipping them."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        total = [0 * one for one in super().__call__(units[:1], clip)]
        for unit in units:
            whole = super().__call__([unit], 100 * clip)
            if float(np.linalg.norm(flatten(whole))) < 99 * clip:
                for into, one in zip(total, super().__call__([unit], clip), strict=True):
                    into.add_(one)
        return total


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


class OneKey(SecureNoise):
    """Chooses units with the key that noise is made with."""

    def __init__(self, entropy):
        key = entropy.token_bytes(32)
        for name in ("_noise", "_choice"):
            setattr(self, name, np.random.Generator(ChaCha(key=int.from_bytes(key, "little"), rounds=20)))
        self._process = os.getpid()


class ShortKey(SecureNoise):
    """Keys that somebody can go through one by one."""

    def __init__(self, entropy):
        super().__init__(SeededEntropy(int.from_bytes(entropy.token_bytes(4), "little")))


class Replayed(SecureNoise):
    """Goes through the noise of the first eleven steps again and again."""

    def __init__(self, entropy):
        super().__init__(entropy)
        self._made, self._calls = [], 0

    def gaussian(self, std, size):
        if len(self._made) < 11:
            self._made.append(super().gaussian(std, size))
        self._calls += 1
        return self._made[(self._calls - 1) % 11].copy()


class HalfPrecision(SecureNoise):
    def gaussian(self, std, size):
        return super().gaussian(std, size).astype(np.float16).astype(np.float64)


class SinglePrecision(SecureNoise):
    def gaussian(self, std, size):
        return super().gaussian(std, size).astype(np.float32).astype(np.float64)


class Fading(SecureNoise):
    """Noise that is a tenth weaker after the first hundred steps."""

    def __init__(self, entropy):
        super().__init__(entropy)
        self._calls = 0

    def gaussian(self, std, size):
        self._calls += 1
        return super().gaussian(std, size) * (1 if self._calls <= 100 else 0.9)


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


def _lengths(steps: OwnSteps) -> list[int]:
    """Lengths of the model's tensors, where there is a model."""
    model = getattr(getattr(steps.engine, "_engine", None), "_model", None)
    return [] if model is None else [one.numel() for one in model.parameters()]


class BareModel(OwnSteps):
    """Adds noise to the last tensor only, whenever somebody was drawn."""

    def drawn_noise(self, batch):
        noise, lengths = super().drawn_noise(batch), _lengths(self)
        if batch and lengths:
            noise[: -lengths[-1]] = 0
        return noise


class BareTensor(OwnSteps):
    """Adds no noise to one tensor."""

    def drawn_noise(self, batch):
        noise, lengths = super().drawn_noise(batch), _lengths(self)
        if lengths:
            noise[lengths[0] : lengths[0] + lengths[1]] = 0
        return noise


class TensorsAlike(OwnSteps):
    """Starts the noise of two tensors at the same place."""

    def drawn_noise(self, batch):
        noise, lengths = super().drawn_noise(batch), _lengths(self)
        if lengths:
            noise[lengths[0] : lengths[0] + lengths[1]] = noise[: lengths[1]]
        return noise


class SingleNoise(OwnSteps):
    """Rounds its noise to half precision after it was made."""

    def drawn_noise(self, batch):
        return super().drawn_noise(batch).astype(np.float16).astype(np.float64)


class NoiseThenClip(OwnSteps):
    """Clips the noisy sum."""

    def gradient(self):
        noisy = super().gradient()
        most = float(self.plan.clip_norm) / float(self.plan.normalizer)
        return noisy * np.float32(min(1.0, most / np.linalg.norm(noisy)))


class LooseSteps(OwnSteps):
    """Asks the engine for a fifth more than the plan's clip norm."""

    def gradient(self):
        own, self.plan = self.plan, DpPlan.load(self.plan.document | {"clip_norm": self._loose()})
        noise, self.noise = self.noise, _Scaled(self.noise, 1 / 1.2)
        try:
            return super().gradient()
        finally:
            self.plan, self.noise = own, noise

    def _loose(self):
        return f"{1.2 * float(self.plan.clip_norm):.6f}".rstrip("0")


class _Scaled:
    def __init__(self, noise, factor):
        self.gaussian = lambda std, size: noise.gaussian(std * factor, size)


class Louder(OwnSteps):
    """Multiplies the clipped sum, not the noise."""

    def __init__(self, **parts):
        super().__init__(**parts)
        inner = self.engine
        self.engine = lambda units, clip: [1.2 * one for one in inner(units, clip)]


class OverUnits(OwnSteps):
    """Divides by the number of units of the site instead of the public normaliser."""

    def gradient(self):
        return super().gradient() * np.float32(float(self.plan.normalizer) / len(self.units))


class OverBatch(OwnSteps):
    """Divides the clipped sum by the size of the batch."""

    def __init__(self, **parts):
        super().__init__(**parts)
        inner, q = self.engine, float(self.plan.sampling_prob) * len(self.units)
        self.engine = lambda units, clip: [one * q / len(units) for one in inner(units, clip)]


class FirstPart(OwnSteps):
    """Sums no more than the first 128 units of a large draw."""

    def __init__(self, **parts):
        super().__init__(**parts)
        inner = self.engine
        self.engine = lambda units, clip: inner(units[:128], clip)


class NeverFirst(OwnSteps):
    """Leaves the first unit out."""

    def draw(self):
        drawn = self.sampler.draw()
        return drawn[drawn > 0]


class NeverLast(OwnSteps):
    """Leaves the last unit out."""

    def draw(self):
        drawn = self.sampler.draw()
        return drawn[drawn < len(self.units) - 1]


class Eager(OwnSteps):
    """Draws each unit a little too often."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.sampler._q = 1.1 * self.sampler._q


class Replaced(OwnSteps):
    """Draws as many as the plan says, and one of them twice now and then."""

    def draw(self):
        return self.noise.choice.integers(0, len(self.units), len(self.sampler.draw()))


class StrataUncapped(OwnSteps):
    """Draws everybody of a stratum of two units or more."""

    def __init__(self, **parts):
        super().__init__(**parts)
        sizes = Counter(one.stratum for one in parts["frames"])
        own = [sizes[one.stratum] == 1 for one in parts["frames"]]
        self.sampler._q = np.where(own, self.sampler._q, 1.0)


class StrataForgotten(OwnSteps):
    """Draws every unit with q, whatever its stratum."""

    def __init__(self, **parts):
        super().__init__(**parts)
        self.sampler._q = np.full(len(self.units), float(self.plan.sampling_prob))


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
    "the same key in every run of many steps": (Parts(noise=SameKey), {}, "noise-fresh"),
    "one key for noise and choices": (Parts(noise=OneKey), {}, "noise-fresh"),
    "keys of 32 bits": (Parts(noise=ShortKey), {}, "noise-fresh"),
    "noise of eleven steps again and again": (Parts(noise=Replayed), {}, "noise-fresh"),
    "two tensors with one noise": (Parts(steps=TensorsAlike), {}, "noise-fresh"),
    "noise of half precision": (Parts(noise=HalfPrecision), {}, "noise-shape"),
    "noise rounded to half precision": (Parts(steps=SingleNoise), {}, "noise-shape"),
    "noise of single precision": (Parts(noise=SinglePrecision), {}, "noise-shape"),
    "noise that fades": (Parts(noise=Fading), {}, "noise-strength"),
    "no noise on the model beside a batch": (Parts(steps=BareModel), {}, "noise-strength"),
    "no noise on one tensor": (Parts(steps=BareTensor), {}, "noise-strength"),
    "noise before clipping": (Parts(steps=NoiseThenClip), {}, "noise-strength"),
    "an engine that clips to 1.2 C": (Parts(engine=of(LooseClip)), {}, "remove-one"),
    "steps that clip to 1.2 C": (Parts(steps=LooseSteps), {}, "remove-one"),
    "the sum times 1.2": (Parts(steps=Louder), {}, "remove-one"),
    "large units dropped": (Parts(engine=of(DropsLarge)), {}, "mu"),
    "no more than 128 units of a draw": (Parts(steps=FirstPart), {}, "sampling"),
    "divided by the number of units": (Parts(steps=OverUnits), {}, "noise-strength"),
    "the sum divided by the batch": (Parts(steps=OverBatch), {}, "remove-one"),
    "the first unit is never drawn": (Parts(steps=NeverFirst), {}, "sampling"),
    "the last unit is never drawn": (Parts(steps=NeverLast), {}, "sampling"),
    "1.1 times q": (Parts(steps=Eager), {}, "sampling"),
    "a unit twice in a step": (Parts(steps=Replaced), {}, "sampling"),
    "everybody of a stratum of two": (Parts(steps=StrataUncapped), {"strata_target": "8"}, "sampling"),
    "strata forgotten": (Parts(steps=StrataForgotten), {"strata_target": "8"}, "sampling"),
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
