# SPDX-License-Identifier: Apache-2.0
"""Training and judging on this site's own store. torch is loaded when the first trainer is made."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from client.learning.evaluate import judge
from client.learning.tensors import EpisodeArrays
from client.learning.weights import initial_weights
from policies.privacy.ledger import TRAIN
from policies.privacy.sampling import unit_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import numpy as np

    from client.data.series import Split
    from client.guard import Seat
    from client.learning.train import Trainer
    from client.settings import Home, LocalRules
    from policies.ports import Entropy
    from policies.recipe import Recipe

__all__ = ["HomeLearner", "episodes_of"]


def episodes_of(home: Home, seat: Seat, split: Split, rules: LocalRules) -> list[EpisodeArrays]:
    """Episodes of a seat's data set, opened through contract, recipe and local list.

    Raises:
        DataError: A field may not be opened, is not there, or the data set was not imported under the
            contract.
    """
    from client.data import open_view

    fields = seat.held.contract.fields
    view = open_view(
        home.data,
        seat.dataset,
        contract_fields=fields.allow,
        fields_clause=fields.clause,
        recipe_inputs=seat.recipe.fields,
        local_allow=rules.fields if rules.fields is not None else fields.allow,
        contract=seat.held.contract.digest,
    )
    return [
        EpisodeArrays(observation=one.fields, action=one.actions, unit_id=one.unit_id)
        for one in view.episodes(split)
    ]


class HomeLearner:
    """`client.duties.Learner` on this site's store; torch is loaded when a trainer is made."""

    def __init__(
        self, home: Home, *, entropy: Entropy, rules: Callable[[], LocalRules], threads: int
    ) -> None:
        self._home = home
        self._entropy = entropy
        self._rules = rules
        self._threads = threads
        self._lock = threading.Lock()
        self._trainers: dict[tuple[str, str], Trainer] = {}
        self._spare: dict[str, Trainer] = {}
        self._initial: dict[str, np.ndarray] = {}
        self._held_out: dict[str, list[EpisodeArrays]] = {}

    def initial(self, recipe: Recipe) -> np.ndarray:
        """The weights that follow from the recipe's seed."""
        if recipe.digest not in self._initial:
            self._initial[recipe.digest] = initial_weights(recipe)
        return self._initial[recipe.digest]

    def units(self, seat: Seat, block: str) -> tuple[str, int]:
        """Manifest and number of the units of a block."""
        with self._lock:
            episodes = self._train(seat) if block == TRAIN else self._judging(seat)
        ids = [one.unit_id for one in episodes]
        return unit_manifest(ids), len(ids)

    def update(
        self, seat: Seat, run: str, slot: tuple[int, int], weights: np.ndarray, spend: Callable[[], None]
    ) -> np.ndarray:
        """The update of a round and attempt; ``spend`` is called before the first gradient."""
        with self._lock:
            key = (run, seat.recipe.digest)
            trainer = self._trainers.get(key) or self._spare.pop(seat.recipe.digest, None)
            if trainer is None:
                trainer = self._make(seat)
            self._trainers = {key: trainer}  # one run at a time; a new run freezes its units anew
        spend()
        return trainer.update(weights, *slot)

    def judge(self, seat: Seat, weights: np.ndarray) -> tuple[float, bool]:
        """One noised query on the held-out units."""
        with self._lock:
            held_out = self._judging(seat)
        verdict = judge(seat.recipe, weights, held_out, seat.recipe.evaluation, self._entropy)
        return verdict.noised_loss, verdict.accept

    def warm(self, seats: Sequence[Seat]) -> None:
        """Loads torch and prepares a trainer for each seat; the probe inside runs on made-up frames only."""
        for seat in seats:
            with self._lock:
                if seat.recipe.digest not in self._spare and not self._trainers:
                    self._spare[seat.recipe.digest] = self._make(seat)

    def _make(self, seat: Seat) -> Trainer:
        import torch

        from client.learning.train import Trainer

        torch.set_num_threads(self._threads)
        return Trainer(seat.recipe, self._train(seat), self._entropy)

    def _train(self, seat: Seat) -> list[EpisodeArrays]:
        return episodes_of(self._home, seat, "train", self._rules())

    def _judging(self, seat: Seat) -> list[EpisodeArrays]:
        if seat.recipe.digest not in self._held_out:
            self._held_out = {seat.recipe.digest: episodes_of(self._home, seat, "held-out", self._rules())}
        return self._held_out[seat.recipe.digest]
