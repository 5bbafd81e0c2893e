# SPDX-License-Identifier: Apache-2.0
"""What a manifest says that follows from the recipe alone: ports, limits, guards, the example observation.

    facts = RecipeFacts(recipe, ends)
    facts.inputs, facts.outputs, facts.safety      # JSON values of the manifest
    facts.example                                  # [n] float64 within limits, of few digits

**Limits of an input** coordinate are the tightest of what its features say:
- under rule ``limit`` the interval itself: beyond a robot's limit no sensor tells the truth;
- under another rule ``centre ± 2 x clip x scale``, twice as far as the model sees a difference: what is
  beyond the clip is strange, and the guard against strange observations counts it; what is beyond this is a
  sensor or a frame that is wrong;
- ``sin`` and ``cos`` of an angle say ``± 2 pi``, ``sign_soft(v)`` says ``± 100 v``: that a value is sane;
- ``gain (a - b)`` bounds a coordinate that nothing else bounds, through its partner's limits.
A coordinate that nothing bounds refuses: no package has an input without limits.

**Limits of an output** are ``centre ± limit`` (SI), to which the graph clamps. What is detected is a
probability, from 0 to 1.

**Guards** are those of the recipe's block ``package``. Without it the cautious defaults hold (`DEFAULTS`):
an observation is too old after 500 ms, the fallback is ``stop``, a tenth of the features beyond the clip is
strange. Where no bound from tick to tick is stated, it is the whole width of the output: the clamp alone.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.deploy.adapters import interval
from client.deploy.errors import PackageLimitsError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.deploy.adapters import Ends
    from policies.recipe import Recipe

__all__ = ["DEFAULTS", "TOLERANCE", "RecipeFacts", "decimal"]

Array64 = npt.NDArray[np.float64]
Json = dict[str, Any]
DEFAULTS: Final = {"watchdog_ms": 500, "fallback": "stop", "ood_share_max": "0.1"}
TOLERANCE: Final = "0.00005"  # of an output's width: float32 on another machine
_TURN: Final = 2 * math.pi
_SANE: Final = 100.0
_WIDER: Final = 2.0
_OFF: Final = 0.0625  # of the width: no feature of the example is beyond its clip
_SOURCES: Final = {"limit": "limits", "task-box": "task", "approach": "approach"}


def decimal(value: float, digits: int = 9) -> str:
    """Plain decimal string of a number, rounded to so many significant digits."""
    text = np.format_float_positional(value, precision=digits, unique=False, fractional=False, trim="-")
    return "0" if text in {"-0", "0", ""} else text


class RecipeFacts:
    """See the module.

    Raises:
        PackageLimitsError: An input that nothing bounds.
    """

    def __init__(self, recipe: Recipe, ends: Ends | None = None, *, rate_hz: str | None = None) -> None:
        self._recipe = recipe
        self._rate_hz = rate_hz or recipe.rate_hz
        self._ends = ends
        self._low, self._high = _input_limits(recipe)
        self._action_low, self._action_high = _output_limits(recipe)
        if ends is not None:
            here: Array64 = np.linalg.inv(ends.observation).astype(np.float64)
            shift = -ends.observation_shift @ here
            self._low, self._high = interval(self._low, self._high, here, shift)
            self._action_low, self._action_high = interval(
                self._action_low, self._action_high, ends.action, ends.action_shift
            )

    @property
    def inputs(self) -> list[Json]:
        """Ports of the observation."""
        rows = [(one.field, one.size, one.unit) for one in self._recipe.inputs]
        return self._ports(rows, self._low, self._high)

    @property
    def outputs(self) -> list[Json]:
        """Ports of the action; a detector has one, named after the label."""
        rows: list[tuple[str, int, str]] = [(one.field, one.size, one.unit) for one in self._recipe.outputs]
        label = self._recipe.label
        if label is not None:
            rows = [(label, self._recipe.output_size, "1")]
        return self._ports(rows, self._action_low, self._action_high)

    def _ports(self, rows: Sequence[tuple[str, int, str]], low: Array64, high: Array64) -> list[Json]:
        found, at = [], 0
        for field, size, unit in rows:
            found.append(
                {
                    "name": field,
                    "field": field,
                    "shape": [size],
                    "unit": unit,
                    "frame": None,
                    "low": [decimal(one) for one in low[at : at + size]],
                    "high": [decimal(one) for one in high[at : at + size]],
                    "rate_hz": self._rate_hz,
                }
            )
            at += size
        return found

    @property
    def safety(self) -> Json:
        """Numbers of the guards."""
        package = self._recipe.package
        return {
            "clamp": True,
            "max_delta_per_tick": [decimal(one) for one in self._max_delta()],
            "watchdog_ms": package.watchdog_ms if package is not None else DEFAULTS["watchdog_ms"],
            "fallback": package.fallback if package is not None else DEFAULTS["fallback"],
            "ood": {
                "kind": "z-clip-share",
                "max": package.ood_share_max if package is not None else DEFAULTS["ood_share_max"],
            },
        }

    def _max_delta(self) -> Array64:
        """Most change from tick to tick ``[a]``, in what the outputs are in."""
        package = self._recipe.package
        if package is None or package.max_delta_per_tick is None:
            return self._action_high - self._action_low
        told = np.array([float(one) for one in package.max_delta_per_tick])
        return told if self._ends is None else told @ np.abs(self._ends.action)

    @property
    def normaliser(self) -> list[str]:
        """By which rules the constants were chosen."""
        rules = {one.normaliser.rule for one in (*self._recipe.features, *self._recipe.outputs)}
        found = {_SOURCES[rule] for rule in rules if rule in _SOURCES}
        start = self._recipe.start
        seeded = start is not None and start.seed_set is not None
        return sorted(found | ({"seed-set"} if seeded else set())) or ["approach"]

    @property
    def example(self) -> Array64:
        """An observation within limits, of six digits: off the middle, up and down in turn."""
        middle, width = (self._low + self._high) / 2, self._high - self._low
        side = np.where(np.arange(len(middle)) % 2 == 0, _OFF, -_OFF)
        return np.array([float(decimal(one, 6)) for one in middle + side * width])


def _output_limits(recipe: Recipe) -> tuple[Array64, Array64]:
    if recipe.label is not None:
        return np.zeros(recipe.output_size), np.ones(recipe.output_size)
    centre = np.array([float(c) for one in recipe.outputs for c in one.normaliser.centre])
    limit = np.array([value for one in recipe.outputs for value in one.limits])
    return centre - limit, centre + limit


def _input_limits(recipe: Recipe) -> tuple[Array64, Array64]:
    """Limits ``[n]`` by the rules of the module."""
    names = [one.field for one in recipe.inputs]
    sizes = {one.field: one.size for one in recipe.inputs}
    low = {name: np.full(sizes[name], -np.inf) for name in names}
    high = {name: np.full(sizes[name], np.inf) for name in names}
    for feature in recipe.features:
        if feature.op != "diff" and (told := _told(recipe, feature)) is not None:
            name = feature.field
            low[name], high[name] = np.maximum(low[name], told[0]), np.minimum(high[name], told[1])
    for _ in names:  # partners of partners
        for feature in recipe.features:
            if feature.op == "diff":
                _through(recipe, feature, low, high)
    for name in names:
        if not (np.isfinite(low[name]).all() and np.isfinite(high[name]).all()):
            raise PackageLimitsError(
                need=f"a feature that bounds {name}: raw, under rule limit, task-box or approach",
                found="none",
                remedy="agree on a recipe that bounds every input; a model without limits never runs",
            )
    return np.concatenate([low[name] for name in names]), np.concatenate([high[name] for name in names])


def _told(recipe: Recipe, feature: Any) -> tuple[Array64, Array64] | None:  # noqa: ANN401  a union of blocks
    """What a feature of one field says about the field."""
    size = len(feature.normaliser.centre)
    if feature.op in {"sin", "cos"}:
        return np.full(size, -_TURN), np.full(size, _TURN)
    if feature.op == "sign_soft":
        return np.full(size, -_SANE * float(feature.v)), np.full(size, _SANE * float(feature.v))
    return _range(recipe, feature.normaliser) if feature.op in {"raw", "history"} else None


def _range(recipe: Recipe, normaliser: Any) -> tuple[Array64, Array64]:  # noqa: ANN401  a block
    if normaliser.rule == "limit":
        return np.array([*map(float, normaliser.low)]), np.array([*map(float, normaliser.high)])
    centre = np.array([*map(float, normaliser.centre)])
    reach = _WIDER * float(recipe.clip) * np.array([*map(float, normaliser.scale)])
    return centre - reach, centre + reach


def _through(recipe: Recipe, feature: Any, low: dict[str, Array64], high: dict[str, Array64]) -> None:  # noqa: ANN401
    """Bounds coordinates of either side of a difference that have no bound, by the other side."""
    least, most = (one / float(feature.gain) for one in _range(recipe, feature.normaliser))
    a, b = feature.a, feature.b
    bounds = {a: (low[b] + least, high[b] + most), b: (low[a] - most, high[a] - least)}
    for name, (down, up) in bounds.items():
        low[name] = np.where(np.isfinite(low[name]), low[name], down)
        high[name] = np.where(np.isfinite(high[name]), high[name], up)
