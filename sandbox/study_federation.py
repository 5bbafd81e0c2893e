# SPDX-License-Identifier: Apache-2.0
"""A federation inside one process: the real trainers and the real server step, and nothing between them.

- Each silo is a `client.learning.train.Trainer`: the plan's sampler, engine, clip and noise, secure source.
- A round is the equal-weight mean of the silos' updates, added up in the open, then
  `policies.server_step.server_step`; what is judged is `released_weights`.
- What a real federation has beside this (contract, ledger, log, transport, secure aggregation) is not here,
  so nothing of it may be claimed of a model that was trained here.

    start = fitted(recipe, donated, seed=0)               # or initial_weights(recipe)
    weights = federate(recipe, [share.private for share in shares], start)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from client.entropy import SystemEntropy
from client.learning.train import Trainer, local_baseline
from client.learning.weights import initial_weights
from policies.server_step import initial_state, released_weights, server_step

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.learning.tensors import Episode
    from policies.ports import Entropy
    from policies.recipe import Recipe

__all__ = ["federate", "fitted", "mean_update"]

Array32 = npt.NDArray[np.float32]
_FIT_STEPS: Final = 1500


def fitted(recipe: Recipe, donated: Sequence[Episode], *, seed: int) -> Array32:
    """Where training begins: the recipe's model fitted to openly donated episodes, or drawn without any."""
    return (
        local_baseline(recipe, donated, steps=_FIT_STEPS, seed=seed) if donated else initial_weights(recipe)
    )


def federate(
    recipe: Recipe,
    silos: Sequence[Sequence[Episode]],
    start: Array32,
    *,
    entropy: Entropy | None = None,
) -> Array32:
    """All rounds of the recipe; the released weights, ``[P] float32``.

    Args:
        recipe: With a plan or without.
        silos: Training episodes of each.
        start: The first round's base model.
        entropy: Keys of noise and choices; the operating system's if left out.
    """
    source = entropy or SystemEntropy()
    trainers = [Trainer(recipe, episodes, source) for episodes in silos]
    weights = start.astype(np.float64)
    state = initial_state(weights, recipe.server)
    for done in range(recipe.rounds):
        mean = mean_update(trainers, weights.astype(np.float32), done + 1)
        weights, state = server_step(weights, mean, state, recipe.server, done)
    return released_weights(weights, state, recipe.server)


def mean_update(trainers: Sequence[Trainer], base: Array32, round_number: int) -> npt.NDArray[np.float64]:
    """One round's equal-weight mean, added up in the open, ``[P]``."""
    updates = [trainer.update(base, round_number, 1).astype(np.float64) for trainer in trainers]
    mean: npt.NDArray[np.float64] = np.mean(updates, axis=0)
    return mean
