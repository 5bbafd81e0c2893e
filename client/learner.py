# SPDX-License-Identifier: Apache-2.0
"""Training and judging on this site's own store. torch is loaded when the first trainer is made."""

from __future__ import annotations

import threading
from dataclasses import dataclass
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
        contracts=seat.versions,
    )
    return [
        EpisodeArrays(observation=one.fields, action=one.actions, unit_id=one.unit_id)
        for one in view.episodes(split)
    ]


@dataclass(frozen=True, slots=True)
class _Ready:
    """A trainer and the units that it was frozen with."""

    trainer: Trainer
    manifest: str


Place = tuple[str, str, str, str]  # contract, recipe, data set, lineage: what a seat reads and charges


def _place(seat: Seat) -> Place:
    return seat.held.contract.digest, seat.recipe.digest, seat.dataset, seat.lineage


def _manifest(episodes: Sequence[EpisodeArrays]) -> str:
    return unit_manifest(one.unit_id for one in episodes)


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
        self._trainers: dict[tuple[str, Place], _Ready] = {}
        self._spare: dict[Place, _Ready] = {}
        self._initial: dict[str, np.ndarray] = {}
        self._held_out: dict[Place, list[EpisodeArrays]] = {}

    def initial(self, recipe: Recipe) -> np.ndarray:
        """The weights that follow from the recipe's seed."""
        if recipe.digest not in self._initial:
            self._initial[recipe.digest] = initial_weights(recipe)
        return self._initial[recipe.digest]

    def units(self, seat: Seat, block: str) -> tuple[str, int]:
        """Manifest and number of the units of a block."""
        with self._lock:
            episodes = self._train(seat) if block == TRAIN else self._judging(seat)
        return _manifest(episodes), len(episodes)

    def update(
        self, seat: Seat, run: str, slot: tuple[int, int], weights: np.ndarray, spend: Callable[[str], None]
    ) -> np.ndarray:
        """The update of a round and attempt; ``spend`` gets the trainer's units before the first gradient."""
        with self._lock:
            key = (run, _place(seat))
            ready = self._trainers.get(key) or self._fresh(seat)
            self._trainers = {key: ready}  # one run at a time; a new run freezes its units anew
        spend(ready.manifest)
        return ready.trainer.update(weights, *slot)

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
                if _place(seat) not in self._spare and not self._trainers:
                    self._spare[_place(seat)] = self._make(seat, self._train(seat))

    def _fresh(self, seat: Seat) -> _Ready:
        """The trainer that was prepared for a seat if the store holds its units still, else a new one."""
        episodes = self._train(seat)
        spare = self._spare.pop(_place(seat), None)
        if spare is not None and spare.manifest == _manifest(episodes):
            return spare
        return self._make(seat, episodes)

    def _make(self, seat: Seat, episodes: list[EpisodeArrays]) -> _Ready:
        import torch

        from client.learning.train import Trainer

        torch.set_num_threads(self._threads)
        return _Ready(Trainer(seat.recipe, episodes, self._entropy), _manifest(episodes))

    def _train(self, seat: Seat) -> list[EpisodeArrays]:
        return episodes_of(self._home, seat, "train", self._rules())

    def _judging(self, seat: Seat) -> list[EpisodeArrays]:
        place = _place(seat)
        if place not in self._held_out:
            self._held_out = {place: episodes_of(self._home, seat, "held-out", self._rules())}
        return self._held_out[place]
