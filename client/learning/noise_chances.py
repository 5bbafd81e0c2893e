# SPDX-License-Identifier: Apache-2.0
"""P-values of everything in an audit that should be noise: its strength, its shape, its freshness.

Three families of tests, each by name. Everything is in standard deviations of the plan's noise, so that one
right number, 1, is compared with.

- strength: each tensor with nobody drawn, and beside batches of canaries; each step for itself, and each
  tenth of a whole run; coordinates of the port without canaries, also while other units are in the batch;
  generators that were just made.
- shape: Gaussian, and finer than a grid of half precision; a generator's own numbers finer than single.
- fresh: no two steps, tensors, runs or generators alike, at the same place or at any distance; each
  generator with a key of 256 bits of its own from the operating system.
"""

from __future__ import annotations

import math
from itertools import combinations
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from policies.privacy.gaussian_mu import (
    correlation_chance,
    gaussian_chance,
    is_coarse,
    repeat_chance,
    squares_chance,
    variance_chance,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from client.learning.conformance_seen import Observed
    from policies.privacy.plan import DpPlan

__all__ = ["fresh_chances", "least", "shape_chances", "strength_chances"]

Array64 = npt.NDArray[np.float64]
_LAGS: Final = 8
_PARTS: Final = 10
_WIDE: Final = 100  # samples from which on one step is tested for itself
_GRID: Final = 20_000  # samples among which equal ones of single precision are rare
_KEY_BYTES: Final = 32


def least(chances: Mapping[str, float]) -> tuple[str, float]:
    """The test that is least likely, and its p-value times their number."""
    sound = {name: one if math.isfinite(one) else 0.0 for name, one in chances.items()}  # NaN is no noise
    name = min(sound, key=lambda one: sound[one])
    return name, min(1.0, len(sound) * sound[name])


def strength_chances(plan: DpPlan, seen: Observed) -> dict[str, float]:
    """Of the variance that the plan says."""
    std, port = plan.added_std, plan.added_std / float(plan.clip_norm)
    both = np.concatenate(seen.empty.runs)
    found = {"beside canaries": variance_chance(_beside(seen), std=port)}
    for number, one in enumerate(_tensors(both, seen.sizes)):
        found[f"tensor {number}, nobody drawn"] = variance_chance(one, std=std)
    canaries = seen.canaries
    for number, (total, size) in enumerate(zip(canaries.squares, seen.sizes, strict=False)):
        if canaries.alone:
            chance = squares_chance(float(total), canaries.alone * size, std=std)
            found[f"tensor {number}, beside canaries"] = chance
    for name, rows, unit in (
        ("nobody drawn", both, std),
        ("beside canaries", canaries.own, std),
        ("port", seen.free, port),
    ):
        if rows.shape[1] >= _WIDE:
            found |= {f"step {at}, {name}": variance_chance(one, std=unit) for at, one in enumerate(rows)}
    for number, one in enumerate(np.array_split(seen.empty.whole, _PARTS)):
        if one.size:
            found[f"part {number + 1} of {_PARTS} of a whole run"] = variance_chance(one, std=std)
    for number, one in enumerate(seen.fresh.noise):
        found[f"new generator {number}"] = variance_chance(one, std=1.0)
    return found


def shape_chances(plan: DpPlan, seen: Observed) -> dict[str, float]:
    """Of a Gaussian sample of fine numbers."""
    std, beside = plan.added_std, _beside(seen)
    empty, own = np.concatenate(seen.empty.runs), seen.canaries.own
    grids = [empty.ravel()[:_GRID], own.ravel()[:_GRID], seen.free.ravel()[:_GRID]]
    fine = not any(map(is_coarse, grids)) and not any(is_coarse(one, single=True) for one in seen.fresh.noise)
    return {
        "beside canaries": gaussian_chance(beside, std=std / float(plan.clip_norm)),
        "nobody drawn": gaussian_chance(empty, std=std),
        "model beside canaries": gaussian_chance(own, std=std),
        "new generators": gaussian_chance(seen.fresh.noise, std=1.0),
        "grid": float(fine),
    }


def fresh_chances(plan: DpPlan, seen: Observed) -> dict[str, float]:
    """Of numbers that nothing repeats."""
    first, second = seen.empty.runs
    own, new = seen.canaries.own, seen.fresh
    lags = {*range(1, _LAGS + 1), plan.steps_per_round, seen.canaries.run}
    found = {f"steps {lag} apart": _apart(seen.free, lag) for lag in sorted(lags)}
    found |= {f"steps {lag} apart, nobody drawn": _apart(first, lag) for lag in sorted(lags)}
    found |= {f"steps {lag} apart, model": _apart(own, lag) for lag in sorted(lags)}
    found["neighbours"] = correlation_chance(first[:, :-1], first[:, 1:])
    rows = min(len(first), len(second), len(own))
    cells = own.shape[1]
    found["two runs"] = _same(first[:rows], second[:rows])
    found["runs with and without canaries"] = _same(first[:rows, :cells], own[:rows])
    for (one, a), (other, b) in combinations(enumerate(_tensors(first, seen.sizes)), 2):
        found[f"tensors {one} and {other}"] = _same_start(a, b)
    for (one, a), (other, b) in combinations(enumerate((*new.noise, *new.choice)), 2):
        found[f"new generators {one} and {other}"] = correlation_chance(a, b)
    for one, a in enumerate(new.noise):
        found[f"new generator {one} and a run"] = _same(a, first.ravel())
    whole = [one.ravel() / plan.added_std for one in (own, first, second)]
    found["any distance"] = repeat_chance(np.concatenate([*whole, *new.noise]))
    found["keys"] = float(new.key_bytes >= _KEY_BYTES or plan.test_only)
    return found


def _beside(seen: Observed) -> Array64:
    """Coordinates of the port that no canary of the step touches, in clip norms."""
    rest = seen.canaries.scores[:, : seen.directions][seen.counts == 0]
    return np.concatenate([seen.free.ravel(), rest])


def _tensors(rows: Array64, sizes: Sequence[int]) -> list[Array64]:
    return np.split(rows, np.cumsum(sizes)[:-1], axis=1)


def _apart(rows: Array64, lag: int) -> float:
    """No correlation between steps so far apart; 1 where there are none."""
    return correlation_chance(rows[:-lag], rows[lag:]) if 0 < lag < len(rows) else 1.0


def _same(one: Array64, other: Array64) -> float:
    """No correlation of the same places, as far as both go."""
    many = min(one.size, other.size)
    return correlation_chance(one.ravel()[:many], other.ravel()[:many])


def _same_start(one: Array64, other: Array64) -> float:
    """No correlation of the first coordinates of two tensors in each step."""
    many = min(one.shape[1], other.shape[1])
    return correlation_chance(one[:, :many], other[:, :many])
