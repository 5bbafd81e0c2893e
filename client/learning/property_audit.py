# SPDX-License-Identifier: Apache-2.0
"""How well updates give a silo's product mix away: the attack of a curious broker, on made-up silos.

1. Two kinds of work are made up (or given): units of one kind move alike, those of the other otherwise.
2. Each shadow silo has its own share of the first kind, its mix. It makes its noisy steps with the real
   engine, sampler, noise and plan at the recipe's first model. The broker knows the model of every round, so
   it sees many noisy gradients of one silo, and averages them.
3. A ridge regression on some shadows is judged on others: once on single updates, once on sums of several
   silos, of which one's mix is asked for (`policies.privacy.property_skill`).

`frame_count_skill` shows why units are cut to K frames: where they are not, a count of frames alone (or the
time that a step takes) tells the length of a work cycle.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from client.learning.conformance import Parts
from client.learning.losses import loss_of
from client.learning.registry import build
from client.learning.tensors import Frames
from policies.privacy.conformance import figure
from policies.privacy.errors import PlanIncompleteError
from policies.privacy.property_skill import PropertyReport, ridge_predictions, shown, skill

if TYPE_CHECKING:
    from policies.ports import Clock, Entropy
    from policies.privacy.leakage_estimates import Bounded
    from policies.privacy.plan import DpPlan
    from policies.recipe import Recipe

__all__ = ["Shadows", "audit_mix", "frame_count_skill", "mix_skills", "two_kinds"]

Array64 = npt.NDArray[np.float64]
Kinds = tuple[Sequence[Frames], Sequence[Frames]]
_KINDS: Final = ("first", "second")
_POOL: Final = 200  # made-up units of each kind
_LENGTHS: Final = (20, 60)
_FITTED: Final = 2 / 3
_SUMS_EACH: Final = 4  # sums that one silo's mix is asked of, with other companions each time


@dataclass(frozen=True, slots=True, kw_only=True)
class Shadows:
    """How much the attacker does.

    Attributes:
        count: Shadow silos, two thirds of them fitted.
        units: Units of each.
        steps: Noisy steps that are averaged.
        silos: Silos in a sum.
    """

    count: int = 240
    units: int = 400
    steps: int = 4
    silos: int = 5


def two_kinds(
    recipe: Recipe, rng: np.random.Generator, *, count: int = _POOL
) -> tuple[list[Frames], list[Frames]]:
    """Made-up units of two kinds of work: other places, and another way to act there."""
    size, out = recipe.input_size, recipe.target_size
    found = []
    for kind in _KINDS:
        place, acts = rng.standard_normal(size), rng.standard_normal((size, out)) / np.sqrt(size)
        units = []
        for number in range(count):
            length = int(rng.integers(*_LENGTHS))
            inputs = place + 0.5 * rng.standard_normal(size) + 0.5 * rng.standard_normal((length, size))
            units.append(_unit(kind, number, inputs, np.tanh(inputs @ acts)))
        found.append(units)
    return found[0], found[1]


def _unit(kind: str, number: int, inputs: Array64, targets: Array64) -> Frames:
    return Frames(
        inputs=inputs.astype(np.float32),
        targets=targets.astype(np.float32),
        mask=np.ones(targets.shape, dtype=np.float32),
        unit_id=hashlib.sha256(f"{kind} {number}".encode()).digest(),
        stratum=kind,
    )


def mix_skills(
    recipe: Recipe, kinds: Kinds, *, entropy: Entropy, rng: np.random.Generator, shadows: Shadows
) -> dict[str, Bounded]:
    """Skill of the two views, ``update`` and ``sum``.

    Args:
        recipe: With its plan.
        kinds: Units of two kinds, made up or of the site itself: nothing of them leaves.
        entropy: Of the noise.
        rng: Of mixes and companions, repeatable.
        shadows: How much is done.

    Raises:
        PlanIncompleteError: The recipe has no plan.
    """
    plan = _plan(recipe)
    mixes = rng.beta(2, 2, shadows.count)
    seen = np.stack(
        [
            _update(recipe, plan, _silo(kinds, mix, shadows.units, rng), entropy, steps=shadows.steps)
            for mix in mixes
        ]
    )
    fitted = int(shadows.count * _FITTED)
    single = _skill(seen[:fitted], mixes[:fitted], seen[fitted:], mixes[fitted:])
    rows, asked = _sums(seen[:fitted], mixes[:fitted], rng, shadows.silos)
    others, wanted = _sums(seen[fitted:], mixes[fitted:], rng, shadows.silos)
    return {"update": single, "sum": _skill(rows, asked, others, wanted)}


def _plan(recipe: Recipe) -> DpPlan:
    if recipe.plan is None:
        raise PlanIncompleteError(
            need="a recipe with a privacy plan", found="its plan is null", remedy="audit a private recipe"
        )
    return recipe.plan


def _silo(kinds: Kinds, mix: float, units: int, rng: np.random.Generator) -> list[Frames]:
    """Units of a shadow silo, ``mix`` of them of the first kind."""
    first = round(mix * units)
    chosen = [kinds[0][i] for i in rng.integers(0, len(kinds[0]), first)]
    chosen += [kinds[1][i] for i in rng.integers(0, len(kinds[1]), units - first)]
    return [replace(one, unit_id=number.to_bytes(8, "big")) for number, one in enumerate(chosen)]


def _update(
    recipe: Recipe, plan: DpPlan, units: Sequence[Frames], entropy: Entropy, *, steps: int
) -> Array64:
    """Mean of a shadow silo's noisy steps, ``[P]``."""
    parts = Parts()
    made = parts.steps(
        plan=plan,
        frames=units,
        engine=parts.engine(build(recipe), loss_of(recipe), plan),
        parameters=recipe.parameters,
        noise=parts.noise(entropy),
    )
    rows = [made.gradient().astype(np.float64) for _ in range(min(plan.steps, steps))]
    return np.asarray(np.mean(rows, axis=0), dtype=np.float64)


def _sums(seen: Array64, mixes: Array64, rng: np.random.Generator, silos: int) -> tuple[Array64, Array64]:
    """Sums of updates, each with the mix of its first silo."""
    groups = [
        [own, *rng.choice(np.delete(np.arange(len(seen)), own), silos - 1, replace=False)]
        for own in range(len(seen))
        for _ in range(_SUMS_EACH)
    ]
    return np.stack([seen[group].sum(0) for group in groups]), np.array([mixes[one[0]] for one in groups])


def _skill(rows: Array64, values: Array64, others: Array64, wanted: Array64) -> Bounded:
    return skill(ridge_predictions(rows, values, others), wanted, guess=float(values.mean()))


def audit_mix(
    recipe: Recipe, *, entropy: Entropy, clock: Clock, shadows: Shadows | None = None
) -> PropertyReport:
    """The report about a recipe on made-up silos.

    Raises:
        PlanIncompleteError: The recipe has no plan.
    """
    begun, shadows = clock.now_ms(), shadows or Shadows()
    rng = np.random.Generator(np.random.PCG64(0))  # made-up silos: nothing here is private
    kinds = two_kinds(recipe, rng)
    skills = mix_skills(recipe, kinds, entropy=entropy, rng=rng, shadows=shadows)
    plan = _plan(recipe)
    return PropertyReport(
        recipe=recipe.digest,
        plan=plan.digest,
        about="mix",
        units=shadows.units,
        silos=shadows.silos,
        steps=min(plan.steps, shadows.steps),
        shadows=shadows.count,
        skills={view: shown(one) for view, one in skills.items()},
        seconds=figure((clock.now_ms() - begun) / 1000),
    )


def frame_count_skill(
    *, cycles: Array64, units: int, frames_per_unit: int | None, rng: np.random.Generator
) -> Bounded:
    """Skill of telling a silo's cycle time from the mean number of frames that a unit brings into a step.

    Args:
        cycles: ``[n]`` frames of a typical work cycle of each silo.
        units: Units of each.
        frames_per_unit: K of the plan, or None where units are not cut.
        rng: Of the lengths.
    """
    lengths = np.maximum(1, rng.poisson(np.repeat(cycles[:, None], units, axis=1)))
    counted = lengths if frames_per_unit is None else np.minimum(lengths, frames_per_unit)
    seen, fitted = counted.mean(1)[:, None], int(len(cycles) * _FITTED)
    return _skill(seen[:fitted], cycles[:fitted], seen[fitted:], cycles[fitted:])
