# SPDX-License-Identifier: Apache-2.0
"""From a recipe to a torch model and back to the flat vector of weights, private tensors in their places."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch

from client.learning.models import ActSmallModel, LinearModel, MlpChunkModel
from client.learning.weights import initial_weights
from policies.recipe import ActSmall, LinearDetect

if TYPE_CHECKING:
    from torch import nn

    from policies.recipe import Recipe

__all__ = ["build", "flatten", "read_weights", "write_weights"]

Array32 = npt.NDArray[np.float32]


def build(recipe: Recipe) -> nn.Module:
    """The recipe's model with its initial weights, on the CPU, one thread.

    Raises:
        RecipeVariantError: The recipe has variants, and none was chosen.
    """
    torch.set_num_threads(1)
    recipe.need_site()
    model = _module(recipe)
    write_weights(model, initial_weights(recipe))
    return model


def _module(recipe: Recipe) -> nn.Module:
    architecture, inputs, outputs = recipe.architecture, recipe.input_size, recipe.output_size
    if isinstance(architecture, ActSmall):
        return ActSmallModel(architecture, input_size=inputs, output_size=outputs)
    if isinstance(architecture, LinearDetect):
        return LinearModel(input_size=inputs, output_size=outputs)
    return MlpChunkModel(
        input_size=inputs, output_size=outputs, width=architecture.args.width, chunk=recipe.chunk
    )


def write_weights(model: nn.Module, flat: Array32) -> None:
    """Copies a flat vector into the model's parameters, in their order."""
    start = 0
    with torch.no_grad():
        for parameter in model.parameters():
            size = parameter.numel()
            values = torch.from_numpy(np.array(flat[start : start + size], dtype=np.float32))
            parameter.copy_(values.reshape(parameter.shape))
            start += size


def flatten(tensors: list[torch.Tensor]) -> npt.NDArray[np.float64]:
    """Tensors in the model's order as one float64 vector."""
    flat: npt.NDArray[np.float64] = torch.cat([t.detach().reshape(-1).double() for t in tensors]).numpy()
    return flat


def read_weights(model: nn.Module) -> Array32:
    """The model's parameters as one flat float32 vector."""
    return flatten(list(model.parameters())).astype(np.float32)
