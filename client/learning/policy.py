# SPDX-License-Identifier: Apache-2.0
"""A model that acts: plain numpy, normaliser and clamp inside, chunks executed as the recipe says.

    policy = Policy(recipe, weights)
    policy.begin()                        # before each episode
    action = policy.act(observation)      # SI; [n] with the recipe's inputs first, in their order

No torch: a step costs tens of microseconds.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client.learning.tensors import Features, action_constants
from client.learning.weights import check_weights
from policies.forward import Forward

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["Policy"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]


class Policy:
    """Closed-loop use of one set of weights; not thread-safe, because it remembers the running chunk.

    Raises:
        WeightsUnfitError: The vector does not fit the recipe.
    """

    def __init__(self, recipe: Recipe, weights: AnyArray) -> None:
        self._forward = Forward(recipe, check_weights(recipe, weights))
        self._features = Features(recipe)
        self._centre, self._scale, limit = action_constants(recipe)
        self._low, self._high = self._centre - limit, self._centre + limit
        self._execute = recipe.architecture.args.execute
        self._waiting: deque[Array64] = deque()

    def begin(self) -> None:
        """Forgets the running chunk; call it before each episode."""
        self._waiting.clear()

    def act(self, observation: AnyArray) -> Array64:
        """The next action ``[a]`` in SI, clamped to the recipe's limits.

        Args:
            observation: ``[n]``; its first columns are the recipe's input fields, in the recipe's order,
                unnormalised.
        """
        if not self._waiting:
            outputs = self._forward(self._features(observation[: self._features.raw_size]))
            chunk = outputs.reshape(-1, len(self._centre))[: self._execute]
            self._waiting.extend(np.clip(chunk * self._scale + self._centre, self._low, self._high))
        return self._waiting.popleft()
