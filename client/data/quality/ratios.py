# SPDX-License-Identifier: Apache-2.0
"""Scale of each normaliser of a recipe against the site's own spread: printed here, sent nowhere.

Constants come from drawings and data sheets, so they may be far from what this site records. A scale above
four times the spread wastes most of a private budget (robot-data-and-models.md, section 7); a person then
asks for another contract draft. The spread is a statistic of private data: it stays in this report.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from client.data.quality.finding import number

if TYPE_CHECKING:
    from client.data.frames import Frames
    from client.data.series import Array64
    from policies.recipe import Recipe

__all__ = ["WARN_ABOVE", "Ratio", "Spreads"]

WARN_ABOVE: Final = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Ratio:
    """One coordinate of a feature or output."""

    feature: str
    part: int
    scale: float
    spread: float

    @property
    def ratio(self) -> float:
        """Scale over spread; infinite where nothing varies."""
        return self.scale / self.spread if self.spread > 0 else float("inf")

    @property
    def warns(self) -> bool:
        """Whether the scale is so wide that the feature comes out too small."""
        return self.ratio > WARN_ABOVE

    def as_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "feature": self.feature,
            "part": self.part,
            "scale": number(self.scale),
            "spread": number(self.spread),
            "ratio": number(self.ratio),
            "warns": self.warns,
        }


@dataclass(slots=True)
class _Sum:
    count: int
    total: Array64
    squares: Array64
    origin: Array64


@dataclass(slots=True)
class Spreads:
    """Spread of what a recipe's normalisers see, summed episode by episode."""

    recipe: Recipe
    _sums: dict[str, _Sum] = field(default_factory=dict)

    def take(self, frames: Frames) -> None:
        """Counts an episode's whole frames in."""
        for name, values in self._values(frames).items():
            whole = values[np.isfinite(values).all(axis=1)]
            if not len(whole):
                continue
            found = self._sums.get(name)
            if found is None:  # the first value as origin: a spread around 300 K is not lost in squares
                zero = np.zeros(whole.shape[1])
                found = self._sums[name] = _Sum(0, zero, zero.copy(), whole[0].copy())
            moved = whole - found.origin
            found.count += len(whole)
            found.total = found.total + moved.sum(axis=0)
            found.squares = found.squares + (moved**2).sum(axis=0)

    def ratios(self) -> tuple[Ratio, ...]:
        """A ratio for each coordinate of each normaliser that the data set has values for."""
        return tuple(
            Ratio(feature=name, part=part, scale=float(scale), spread=float(spread[part]))
            for name, scales in self._scales().items()
            if (spread := self._spread(name)) is not None
            for part, scale in enumerate(scales)
            if part < len(spread)
        )

    def _spread(self, name: str) -> Array64 | None:
        found = self._sums.get(name)
        if found is None:
            return None
        mean = found.total / found.count
        return np.sqrt(np.maximum(found.squares / found.count - mean**2, 0))

    def _scales(self) -> dict[str, list[str]]:
        named = {
            _name(one): list(one.normaliser.scale)
            for one in self.recipe.features
            if _name(one) and getattr(one, "normaliser", None) is not None
        }
        outputs = {
            f"output {one.field}": list(one.normaliser.scale) for one in self.recipe.outputs if _scaled(one)
        }
        return named | outputs

    def _values(self, frames: Frames) -> dict[str, Array64]:
        def of(name: str, role: str) -> Array64 | None:
            other = "observation" if role == "action" else "action"
            found = frames.columns.get(f"{role}.{name}", frames.columns.get(f"{other}.{name}"))
            return None if found is None else found.astype(np.float64)

        found: dict[str, Array64] = {}
        for one in self.recipe.features:
            if one.op == "raw" and (values := of(one.field, "observation")) is not None:
                found[_name(one)] = values
            if one.op == "delta" and (values := of(one.field, "observation")) is not None:
                found[_name(one)] = np.diff(values, axis=0)
            if one.op == "diff":
                first, second = of(one.a, "observation"), of(one.b, "observation")
                if first is not None and second is not None:
                    found[_name(one)] = float(one.gain) * (first - second)
        for output in self.recipe.outputs:
            values = of(output.field, "action")
            if values is not None and _scaled(output):
                found[f"output {output.field}"] = values
        return found


def _scaled(output: Any) -> bool:  # noqa: ANN401  outputs of every task kind
    return getattr(output, "normaliser", None) is not None


def _name(feature: Any) -> str:  # noqa: ANN401  one of the recipe's operations
    """How a feature is called here; empty for operations that are bounded, or not made here."""
    if feature.op in ("raw", "delta"):
        return f"{feature.op} {feature.field}"
    return f"diff {feature.a} - {feature.b}" if feature.op == "diff" else ""
