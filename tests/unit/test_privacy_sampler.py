# SPDX-License-Identifier: Apache-2.0
"""The sampler's law, and three planted samplers that have another one.

Each statistic is standardised: under the real law every value is approximately normal with variance 1, so a
bound at `LIMIT` over all of them together has a false-alarm rate below 1e-6 (fewer than 3 000 values).
"""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING

import numpy as np
import pytest

from policies.privacy.errors import BudgetExhaustedError
from policies.privacy.plan import DpPlan
from policies.privacy.sampling import sampler
from tests.learnsim import small_recipe

if TYPE_CHECKING:
    from collections.abc import Callable

Draws = np.ndarray  # [T, N] bool: which unit was drawn in which step
PLAN = small_recipe().plan.document
STEPS, UNITS, Q = 20_000, 40, 0.2
LIMIT = 6.8  # 3000 * 2 * (1 - Phi(6.8)) = 3e-8


def generator(seed: int = 5) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))


def real(seed: int = 5, *, strata: list[str] | None = None, **change: object) -> Draws:
    """Draws of the sampler that training uses."""
    plan = DpPlan.load({**PLAN, "sampling_prob": str(Q), "steps": STEPS} | change)
    names = strata or [""] * UNITS
    drawer = sampler(plan, names, generator(seed))
    drawn = np.zeros((plan.steps, len(names)), dtype=bool)
    for row in drawn:
        row[drawer.draw()] = True
    return drawn


def shuffled() -> Draws:
    """The planted loader: epochs of a shuffled set in batches of qN."""
    rng, size = generator(), round(Q * UNITS)
    drawn = np.zeros((STEPS, UNITS), dtype=bool)
    for start in range(0, STEPS, UNITS // size):
        order = rng.permutation(UNITS)
        for step in range(UNITS // size):
            drawn[start + step, order[step * size : (step + 1) * size]] = True
    return drawn


def fixed_size() -> Draws:
    """The planted batch: qN units without replacement in each step."""
    rng = generator()
    drawn = np.zeros((STEPS, UNITS), dtype=bool)
    for row in drawn:
        row[rng.choice(UNITS, round(Q * UNITS), replace=False)] = True
    return drawn


def reused() -> Draws:
    """The planted saving: a Poisson batch that serves two steps."""
    return np.repeat(generator().random((STEPS // 2, UNITS)) < Q, 2, axis=0)


def inclusion(drawn: Draws, q: float = Q) -> np.ndarray:
    """How often each unit was drawn, against q."""
    return (drawn.mean(0) - q) / math.sqrt(q * (1 - q) / len(drawn))


def size_variance(drawn: Draws, q: float = Q) -> float:
    """Variance of the batch size, against N q (1 - q)."""
    steps, units = drawn.shape
    variance = units * q * (1 - q)
    fourth = variance * (1 + 3 * (units - 2) * q * (1 - q))  # central moment of the binomial
    return (drawn.sum(1).var(ddof=1) - variance) / math.sqrt((fourth - variance**2) / steps)


def pairs(drawn: Draws) -> np.ndarray:
    """Correlation of each pair of units within a step."""
    steps, units = drawn.shape
    return np.corrcoef(drawn.T)[np.triu_indices(units, 1)] * math.sqrt(steps)


def neighbours(drawn: Draws) -> np.ndarray:
    """Correlation of each unit with itself in the next step."""
    steps, units = drawn.shape
    return np.array([np.corrcoef(drawn[:-1, u], drawn[1:, u])[0, 1] for u in range(units)]) * math.sqrt(steps)


def gaps(drawn: Draws, q: float = Q) -> np.ndarray:
    """Share of each gap between two draws of a unit, against the geometric law, for gaps 1 to 12."""
    found = np.concatenate([np.diff(np.flatnonzero(column)) for column in drawn.T])
    expected = q * (1 - q) ** np.arange(12)
    share = np.bincount(found, minlength=13)[1:13] / len(found)
    return (share - expected) / np.sqrt(expected * (1 - expected) / len(found))


STATISTICS: dict[str, Callable[[Draws], float]] = {
    "inclusion": lambda d: float(np.abs(inclusion(d)).max()),
    "size variance": lambda d: abs(size_variance(d)),
    "pairs": lambda d: float(np.abs(pairs(d)).max()),
    "neighbours": lambda d: float(np.abs(neighbours(d)).max()),
    "gaps": lambda d: float(np.abs(gaps(d)).max()),
}


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_real_sampler_has_the_law_of_independent_draws(seed: int):
    drawn = real(seed)
    assert {name: one(drawn) for name, one in STATISTICS.items() if one(drawn) > LIMIT} == {}


@pytest.mark.parametrize(
    ("mutant", "killed_by"),
    [
        (shuffled, {"size variance", "neighbours", "gaps"}),
        (fixed_size, {"size variance"}),
        (reused, {"neighbours", "gaps"}),
    ],
    ids=["shuffle", "fixed size", "reused batch"],
)
def test_a_planted_sampler_is_killed(mutant: Callable[[], Draws], killed_by: set[str]):
    drawn = mutant()
    found = {name: one(drawn) for name, one in STATISTICS.items()}
    print({name: f"{value:.1f}" for name, value in found.items()})
    assert {name for name, value in found.items() if value > 2 * LIMIT} >= killed_by


def test_strata_of_nine_to_one_are_drawn_one_to_one():
    strata = ["common"] * 360 + ["rare"] * 40
    drawn = real(strata=strata, strata_target="8", steps=4_000, adjacency="zero-out")
    common, rare = drawn[:, :360], drawn[:, 360:]
    # a stratum of n units is drawn with min(q, 8 / n): 8 units a step of each
    assert np.abs(inclusion(common, 8 / 360)).max() < LIMIT
    assert np.abs(inclusion(rare, 8 / 40)).max() < LIMIT
    difference = common.sum(1) - rare.sum(1)
    spread = 8 * (1 - 8 / 360) + 8 * (1 - 8 / 40)
    assert abs(difference.mean()) < LIMIT * math.sqrt(spread / len(drawn))


def test_no_stratum_is_drawn_with_more_than_q():
    strata = ["one"] + ["few"] * 9 + ["many"] * 190
    drawn = real(strata=strata, strata_target="8", steps=8_000)
    assert np.abs(inclusion(drawn[:, :10], Q)).max() < LIMIT  # below 8 / q units: q, and no more
    assert np.abs(inclusion(drawn[:, 10:], 8 / 190)).max() < LIMIT


def test_an_empty_set_and_an_empty_draw_are_steps_like_any_other():
    plan = DpPlan.load({**PLAN, "steps": 3})
    drawer = sampler(plan, [], generator())
    assert [len(drawer.draw()) for _ in range(3)] == [0, 0, 0]
    with pytest.raises(BudgetExhaustedError, match=r"budget\.exhausted"):
        drawer.draw()


def test_the_sampler_ends_with_the_plan_and_takes_names_or_places():
    plan = DpPlan.load({**PLAN, "steps": 2})
    drawer = sampler(plan=plan, strata=["", "", ""], rng=generator())
    drawer.draw()
    drawer.draw()
    assert drawer.steps_left == 0
    with pytest.raises(BudgetExhaustedError):
        drawer.draw()


def test_private_training_takes_no_loader_sampler_or_batch():
    from client.learning.private import PrivateSteps

    taken = set(inspect.signature(PrivateSteps).parameters)
    assert {"plan", "frames"} <= taken
    assert not {
        name for name in taken for word in ("load", "sampl", "batch", "shuffle", "epoch") if word in name
    }
