# SPDX-License-Identifier: Apache-2.0
"""A federation inside one process: the real trainers, the real ring and server step, nothing between them.

- Each silo is a `client.learning.train.Trainer`: the plan's sampler, engine, clip and noise, secure source.
- A round is a sum modulo 2^32 of what would leave the silos under secure aggregation: updates rounded to the
  grid, noise shares drawn onto it (`policies.secagg.ring`). Masks are left out: they cancel to the bit. Then
  `policies.server_step.server_step`; what is judged is `released_weights`.
- What a real federation has beside this (contract, ledger, log, transport, masks) is not here, so nothing of
  it may be claimed of a model that was trained here.

    start = fitted(recipe, donated, seed=0)               # or initial_weights(recipe)
    weights = federate(recipe, [share.private for share in shares], start)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt

from client.entropy import SystemEntropy
from client.learning.train import Trainer, local_baseline
from client.learning.weights import initial_weights
from client.secagg.agreed import grid_step
from policies.secagg import ring
from policies.secagg.terms import Member, Terms
from policies.server_step import initial_state, released_weights, server_step
from sandbox.contract_text import UPDATE_NORM_MAX

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.learning.tensors import Episode
    from policies.ports import Entropy
    from policies.recipe import Recipe

__all__ = ["Sums", "federate", "fitted", "mean_update"]

Array32 = npt.NDArray[np.float32]
Grid = npt.NDArray[np.int64]
_FIT_STEPS: Final = 1500
_WEIGHT: Final = 1_000_000  # millionths


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
    source, sums = entropy or SystemEntropy(), Sums.of(recipe, len(silos))
    trainers = [Trainer(recipe, episodes, source) for episodes in silos]
    weights = start.astype(np.float64)
    state = initial_state(weights, recipe.server)
    for done in range(recipe.rounds):
        mean = mean_update(trainers, weights.astype(np.float32), done + 1, sums)
        weights, state = server_step(weights, mean, state, recipe.server, done)
    return released_weights(weights, state, recipe.server)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sums:
    """How the updates of a recipe are summed.

    Attributes:
        terms: Of the sums.
        grid_step: With noise shares, one grid step in units of the clipped sum.
    """

    terms: Terms
    grid_step: float | None

    @classmethod
    def of(cls, recipe: Recipe, silos: int) -> Sums:
        """Those of so many equal silos under the sandbox's contract."""
        terms = _terms(recipe, silos)
        return cls(terms=terms, grid_step=grid_step(recipe.plan, terms))


def _terms(recipe: Recipe, silos: int) -> Terms:
    """Only ring, roster size and weights matter here: digests and keys are nobody's."""
    nobody = "sha256:" + "0" * 64
    parties = [f"silo-{number:02}" for number in range(silos)]
    return Terms(
        contract=nobody,
        recipe=recipe.digest,
        manifest=nobody,
        run="in-one-process",
        roster=tuple(Member(party=one, group=one, key=bytes(32)) for one in parties),
        dimension=recipe.parameters,
        norm_max=UPDATE_NORM_MAX,
        weights=(_WEIGHT,) * silos,
        max_share="1",
        min_parties=silos,
        max_colluders=0,
        honest_min=recipe.plan.honest_min if recipe.plan else None,
        group_mac=False,
        clause="k-1",
    )


def mean_update(
    trainers: Sequence[Trainer], base: Array32, round_number: int, sums: Sums
) -> npt.NDArray[np.float64]:
    """One round's mean, ``[P]``, opened from the sum of all silos' ring values."""
    terms = sums.terms
    total = np.zeros(terms.dimension, dtype=ring.RING)
    for trainer, party in zip(trainers, terms.parties, strict=True):
        update = trainer.update(base, round_number, 1, grid_step=sums.grid_step)
        total += _ring_values(update, terms, party)
    return ring.mean(total, terms, terms.parties)


def _ring_values(update: Array32 | Grid, terms: Terms, party: str) -> npt.NDArray[np.uint32]:
    if update.dtype == np.int64:  # noise shares are drawn onto the grid
        return ring.ring_of_grid(update.astype(np.int64), terms)
    whole = ring.check_update(update.astype(np.float32), terms)
    return ring.quantise(whole, weight=terms.weight(party), terms=terms)
