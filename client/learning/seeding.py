# SPDX-License-Identifier: Apache-2.0
"""The model that is fitted to a seed set: ordinary steps on open episodes. Nothing here is private.

- `fit` gives the weights that training begins with. They are handed on as bytes, so two machines need not
  give the same bits.
- `compare` says whether given weights are such a fit: their loss on the seed episodes beside the loss of a
  fit that is made here, and of the weights that follow from the recipe's seed. It shows that a start model
  does on these episodes what it should; it cannot show that nothing else was fitted to.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.learning.evaluate import mean_loss
from client.learning.tensors import EpisodeArrays
from client.learning.train import local_baseline
from client.learning.weights import initial_weights
from policies.encoding import sha256
from policies.seeds import check_fits

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from policies.recipe import Recipe
    from policies.seeds import SeedSet

__all__ = ["GAIN_SHARE", "Compared", "compare", "fit"]

GAIN_SHARE: Final = 0.95  # fits of half to twice the steps and of other seeds are above it, measured


@dataclass(frozen=True, slots=True, kw_only=True)
class Compared:
    """Mean losses on the seed episodes.

    Attributes:
        given: Of the weights that are looked at.
        own: Of a fit that was made here.
        first: Of the weights that follow from the recipe's seed.
    """

    given: float
    own: float
    first: float

    @property
    def holds(self) -> bool:
        """Whether the given weights are a fit: they gain `GAIN_SHARE` of what the own one gains."""
        return 0 < GAIN_SHARE * (self.first - self.own) <= self.first - self.given


def fit(recipe: Recipe, seeds: SeedSet, *, steps: int, seed: int = 0) -> npt.NDArray[np.float32]:
    """Weights ``[P] float32`` after ordinary steps on the seed episodes.

    Raises:
        SeedSetInvalidError: The episodes do not show what the recipe reads.
    """
    check_fits(seeds, recipe)
    return local_baseline(recipe, _episodes(seeds), steps=steps, seed=seed)


def compare(
    recipe: Recipe, seeds: SeedSet, given: npt.NDArray[np.float32], own: npt.NDArray[np.float32]
) -> Compared:
    """The losses of given weights, of an own fit, and of the weights before any step."""
    episodes = _episodes(seeds)
    given_loss, own_loss, first_loss = (
        mean_loss(recipe, weights, episodes) for weights in (given, own, initial_weights(recipe))
    )
    return Compared(given=given_loss, own=own_loss, first=first_loss)


def _episodes(seeds: SeedSet) -> list[EpisodeArrays]:
    return [
        EpisodeArrays(
            observation=one.observation,
            action=one.action,
            labels=one.labels,
            unit_id=sha256(one.digest.encode("ascii")),
        )
        for one in seeds.episodes
    ]
