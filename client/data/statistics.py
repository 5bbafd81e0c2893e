# SPDX-License-Identifier: Apache-2.0
"""Statistics of columns, as LeRobotDataset v3.0 keeps them. For the owner's own export and nothing else (R5).

Missing values (NaN) count in none of them; of a component without any value every one is 0. Quantiles are
linear between the two nearest values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

__all__ = ["statistics_of"]

_QUANTILES: Final = {"q01": 0.01, "q10": 0.10, "q50": 0.50, "q90": 0.90, "q99": 0.99}


def statistics_of(values: npt.NDArray[Any]) -> dict[str, list[float]]:
    """``min max mean std count q01 q10 q50 q90 q99`` of ``[T, k]``, each ``[k]`` but for count, ``[1]``."""
    wide = values.reshape(len(values), -1)
    rising = np.sort(wide, axis=0).astype(np.float64)  # NaN last
    there = np.isfinite(rising)
    count = there.sum(axis=0)
    few = np.maximum(count, 1)
    rising = np.where(there, rising, 0.0)
    mean = rising.sum(axis=0) / few
    variance = (np.where(there, rising - mean, 0.0) ** 2).sum(axis=0) / few
    found = {
        "min": _at(rising, count, 0.0),
        "max": _at(rising, count, 1.0),
        "mean": mean,
        "std": np.sqrt(variance),
        **{name: _at(rising, count, share) for name, share in _QUANTILES.items()},
    }
    return {name: value.tolist() for name, value in found.items()} | {"count": [float(len(wide))]}


def _at(
    rising: npt.NDArray[np.float64], count: npt.NDArray[np.int_], share: float
) -> npt.NDArray[np.float64]:
    place = np.maximum(count - 1, 0) * share
    low = np.floor(place).astype(np.int64)
    high = np.minimum(low + 1, np.maximum(count - 1, 0))
    columns = np.arange(rising.shape[1])
    below: npt.NDArray[np.float64] = rising[low, columns]
    return below + (place - low) * (rising[high, columns] - below)
