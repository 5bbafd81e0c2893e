# SPDX-License-Identifier: Apache-2.0
"""A model that acts: plain numpy, normaliser and clamp inside, chunks executed as the recipe says.

    policy = Policy(recipe, weights)
    policy.begin()                        # before each episode
    action = policy.act(observation)      # SI; [n] with the recipe's inputs first, in their order

Features that look back (``delta``, ``rolling_std``, ``history``) see what the policy was shown since `begin`,
so `act` is called with every frame, also while a chunk runs. No torch: a step costs tens of microseconds.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from client.learning.features import Window
from client.learning.tensors import action_constants
from client.learning.weights import check_weights
from policies.forward import Forward
from policies.recipe import RecipeInvalidError

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["Policy"]

Array64 = npt.NDArray[np.float64]
AnyArray = npt.NDArray[np.floating[Any]]


class Policy:
    """Closed-loop use of one set of weights; not thread-safe, because it remembers the running chunk.

    Raises:
        WeightsUnfitError: The vector does not fit the recipe.
        RecipeInvalidError: The recipe does not act: it predicts a torque or a label.
    """

    def __init__(self, recipe: Recipe, weights: AnyArray) -> None:
        self._forward = Forward(recipe, check_weights(recipe, weights))
        if recipe.task.kind != "behaviour-cloning":
            raise RecipeInvalidError(
                need="a recipe that acts: behaviour-cloning",
                found=recipe.task.kind,
                remedy="call policies.forward.Forward on client.learning.features.Features instead",
            )
        self._window = Window(recipe)
        self._centre, self._scale, limit = action_constants(recipe)
        self._low, self._high = self._centre - limit, self._centre + limit
        self._execute = recipe.execute
        self._waiting: deque[Array64] = deque()

    def begin(self) -> None:
        """Forgets the running chunk and the frames before; call it before each episode."""
        self._waiting.clear()
        self._window.begin()

    def act(self, observation: AnyArray) -> Array64:
        """The next action ``[a]`` in SI, clamped to the recipe's limits.

        Args:
            observation: ``[n]``; its first columns are the recipe's input fields, in the recipe's order,
                unnormalised.
        """
        inputs = self._window.take(observation)
        if not self._waiting:
            outputs = self._forward(inputs)
            chunk = outputs.reshape(-1, len(self._centre))[: self._execute]
            self._waiting.extend(np.clip(chunk * self._scale + self._centre, self._low, self._high))
        return self._waiting.popleft()
