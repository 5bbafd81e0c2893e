# SPDX-License-Identifier: Apache-2.0
"""What training descends, in numpy: one value per frame, from that frame alone.

| ``loss.kind`` | value of a frame |
|---|---|
| ``mse``, ``nmse`` | mean over the outputs of the squared error, normalised (``nmse``: by limits) |
| ``bce`` | cross-entropy of a logit; where the label is true, ``positive_weight`` times |
| ``cross-entropy`` | cross-entropy of a logit per class, times the weight of the class |

What is masked adds nothing. ``client.learning.losses`` is the same in torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from policies.recipe.blocks import BinaryLoss, ClassLoss

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["frame_losses"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]


def frame_losses(recipe: Recipe, outputs: AnyArray, targets: AnyArray, mask: AnyArray) -> Array64:
    """Loss of each frame, ``[...]``, of outputs, targets and mask ``[..., o]``."""
    objective = recipe.objective
    if isinstance(objective, BinaryLoss):
        weight = float(objective.positive_weight)
        missed, raised = np.logaddexp(0.0, -outputs), np.logaddexp(0.0, outputs)
        found = mask * (weight * targets * missed + (1 - targets) * raised)
        return np.asarray(found.sum(axis=-1), dtype=np.float64)
    if isinstance(objective, ClassLoss):
        weights = np.array([float(one) for one in objective.weights])
        logs = outputs - np.logaddexp.reduce(outputs, axis=-1, keepdims=True)
        return np.asarray(-(mask * weights * targets * logs).sum(axis=-1), dtype=np.float64)
    error = (outputs - targets) ** 2 * mask
    return np.asarray(error.sum(axis=-1) / error.shape[-1], dtype=np.float64)
