# SPDX-License-Identifier: Apache-2.0
"""The fold: each update is read part by part, judged by its own numbers, and added; never a second copy.

- `inspect` reads once: are all numbers finite, how long is the vector. Digest, dtype and shape were checked
  by the engine.
- `Fold.add` reads again and adds with the contract's weight; nothing of a reply but its vector enters.
- Memory is one float64 accumulator of the model's length and one part, whatever the number of nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from policies.errors import invariant

if TYPE_CHECKING:
    from broker.federation.engine import TensorHandle

__all__ = ["Fold", "Inspection", "inspect"]

_FLOAT32 = np.dtype("<f4")


@dataclass(frozen=True, slots=True, kw_only=True)
class Inspection:
    """What one update's numbers say: all finite, and its Euclidean norm (infinite if they are not)."""

    finite: bool
    norm: float


def inspect(tensor: TensorHandle) -> Inspection:
    """Reads an update once. float32 values cannot overflow a float64 sum of squares."""
    squares = 0.0
    for part in tensor.chunks():
        values = np.frombuffer(part, dtype=_FLOAT32).astype(np.float64)
        if not np.isfinite(values).all():
            return Inspection(finite=False, norm=math.inf)
        squares += float(values @ values)
    return Inspection(finite=True, norm=math.sqrt(squares))


class Fold:
    """Running weighted sum of updates ``[P]``."""

    def __init__(self, size: int) -> None:
        self._sum = np.zeros(size, dtype=np.float64)
        self._weight = 0.0

    def add(self, tensor: TensorHandle, *, weight: float) -> None:
        """Adds one update that `inspect` found finite."""
        invariant(weight > 0, "a positive weight")
        at = 0
        for part in tensor.chunks():
            values = np.frombuffer(part, dtype=_FLOAT32)
            self._sum[at : at + values.size] += weight * values.astype(np.float64)
            at += values.size
        invariant(at == self._sum.size, "an update of the model's length")
        self._weight += weight

    def mean(self) -> npt.NDArray[np.float64]:
        """Weighted mean of what was added."""
        invariant(self._weight > 0, "at least one update")
        return self._sum / self._weight
