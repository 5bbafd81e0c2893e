# SPDX-License-Identifier: Apache-2.0
"""The flat vector of weights, in the order of the recipe's tensors: one float32 vector is all that travels.

`initial_weights` depends on the recipe alone: exact float64 arithmetic on a seeded PCG64 stream, whose values
numpy guarantees. All nodes and the broker's check derive the same bytes.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.learning.errors import WeightsUnfitError
from policies import forward

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["check_weights", "initial_weights", "split_weights"]

Array32 = npt.NDArray[np.float32]
_HEAD_GAIN: Final = 0.1  # the first model acts gently
_HIDDEN_GAIN: Final = 5 / 3  # of tanh


def initial_weights(recipe: Recipe) -> Array32:
    """The weights that every party derives from the recipe's seed, ``[P] float32``."""
    rng = np.random.Generator(np.random.PCG64(recipe.architecture.args.seed))
    parts: list[npt.NDArray[np.float64]] = []
    for spec in recipe.tensors:
        if len(spec.shape) == 1:
            parts.append(np.zeros(spec.size))
        else:
            gain = _HEAD_GAIN if spec.block == "head" else _HIDDEN_GAIN
            parts.append((2 * rng.random(spec.size) - 1) * (gain / math.sqrt(spec.shape[1])))
    return np.concatenate(parts).astype(np.float32)


def check_weights(recipe: Recipe, weights: npt.NDArray[np.floating[Any]]) -> Array32:
    """The vector as float32, if it is one of this recipe.

    Raises:
        WeightsUnfitError: Another length, or a value that is not finite.
    """
    flat = np.ascontiguousarray(weights, dtype=np.float32)
    if flat.shape != (recipe.parameters,) or not np.isfinite(flat).all():
        wrong_shape = flat.shape != (recipe.parameters,)
        raise WeightsUnfitError(
            need=f"{recipe.parameters} finite values",
            found=f"shape {list(flat.shape)}" if wrong_shape else "values that are not finite",
            remedy="fetch the model again; compare its digest with the log's",
        )
    return flat


def split_weights(recipe: Recipe, weights: npt.NDArray[np.floating[Any]]) -> dict[str, Array32]:
    """Tensors by name, views of the flat vector.

    Raises:
        WeightsUnfitError: The vector does not fit the recipe.
    """
    return forward.split_weights(recipe, check_weights(recipe, weights))
