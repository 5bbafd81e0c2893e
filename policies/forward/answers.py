# SPDX-License-Identifier: Apache-2.0
"""`Forward`: the model of one flat vector, whatever its architecture."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from policies.forward.decoder import Decoder
from policies.forward.spans import split_weights
from policies.recipe.architectures import ActSmall

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["Forward"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]


class Forward:
    """The model of one flat vector of weights ``[P]`` that fits the recipe.

    Raises:
        RecipeVariantError: The recipe has variants, and none was chosen.
    """

    def __init__(self, recipe: Recipe, weights: npt.NDArray[np.float32]) -> None:
        recipe.need_site()
        tensors = {name: t.astype(np.float64) for name, t in split_weights(recipe, weights).items()}
        architecture = recipe.architecture
        self._model: Decoder | _Perceptron
        if isinstance(architecture, ActSmall):
            self._model = Decoder(tensors, heads=architecture.args.heads, layers=architecture.args.layers)
        else:
            self._model = _Perceptron(tensors)

    def __call__(self, inputs: AnyArray) -> Array64:
        """Outputs of the head: ``[..., d]`` normalised inputs to ``[..., H * a]`` or logits."""
        return self._model(inputs)


class _Perceptron:
    """Tanh layers, as many as there are beside the head, and a linear head."""

    def __init__(self, tensors: dict[str, Array64]) -> None:
        named = ("stem", "trunk", "head")
        self._layers = [
            (np.ascontiguousarray(tensors[f"{layer}.weight"].T), tensors[f"{layer}.bias"])
            for layer in named
            if f"{layer}.weight" in tensors
        ]

    def __call__(self, inputs: AnyArray) -> Array64:
        *hidden, (head, head_bias) = self._layers
        values: AnyArray = inputs
        for weight, bias in hidden:
            values = np.tanh(values @ weight + bias)
        outputs: Array64 = values @ head + head_bias
        return outputs
