# SPDX-License-Identifier: Apache-2.0
"""``mlp-chunk/1`` in numpy: what a model answers, the same on a node, at the broker and for an auditor.

    forward = Forward(recipe, weights)        # weights: the flat vector, [P]
    forward(inputs)                           # [..., d] normalised inputs → [..., H * a] normalised chunks

No torch, float64 throughout. `split_weights` gives the tensors of the flat vector by name.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["Forward", "split_weights"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]


def split_weights(recipe: Recipe, flat: npt.NDArray[np.float32]) -> dict[str, npt.NDArray[np.float32]]:
    """Tensors by name, views of the flat vector ``[P]``, which the caller has checked."""
    tensors, start = {}, 0
    for spec in recipe.tensors:
        tensors[spec.name] = flat[start : start + spec.size].reshape(tuple(spec.shape))
        start += spec.size
    return tensors


class Forward:
    """The model of one flat vector of weights ``[P]`` that fits the recipe."""

    def __init__(self, recipe: Recipe, weights: npt.NDArray[np.float32]) -> None:
        tensors = {name: t.astype(np.float64) for name, t in split_weights(recipe, weights).items()}
        self._layers = [
            (np.ascontiguousarray(tensors[f"{layer}.weight"].T), tensors[f"{layer}.bias"])
            for layer in ("stem", "trunk", "head")
        ]

    def __call__(self, inputs: AnyArray) -> Array64:
        """Outputs of the head."""
        (stem, stem_bias), (trunk, trunk_bias), (head, head_bias) = self._layers
        hidden = np.tanh(inputs @ stem + stem_bias)
        hidden = np.tanh(hidden @ trunk + trunk_bias)
        outputs: Array64 = hidden @ head + head_bias
        return outputs
