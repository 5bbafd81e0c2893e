# SPDX-License-Identifier: Apache-2.0
"""Training and judging on this site's own store. torch is loaded when the first trainer is made.

- The unit of the data is the unit of the recipe's plan; another is refused before anything is reserved.
- Episodes come at the recipe's time base, with unit, stratum (the task) and block; units are pooled in
  `client.learning.tensors`.
- Held-out units are never those of training; episodes that were openly donated are neither.
- Under a recipe with variants the private part of the model is read and kept here, durably and before the
  update of the round goes out (`client.private_parts`); what is trained on, judged and compared is the whole
  model of this site. Only the shared part is given to anybody.
- Training asks between two steps whether the owner stopped the run (`client.stopping_runs`), and tells the
  folder how far it is (`client.progress`).
"""

from __future__ import annotations

import threading
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from client.audits.conforming import Conformance
from client.clock import SystemClock
from client.learning.canary_units import canary_units
from client.learning.evaluate import gains, judge
from client.learning.tensors import EpisodeArrays
from client.learning.weights import initial_weights
from client.privacy.units import Units
from client.private_parts import PrivateParts, own_model
from client.progress import Progress
from client.seeds.donated import is_given, withheld
from client.stopping_runs import StoppedRuns
from policies.forward import shared_of
from policies.privacy.blocks import TRAIN
from policies.privacy.errors import UnitRefusedError
from policies.privacy.sampling import unit_manifest
from policies.seed_episodes import published

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from client.data.fields import Episode
    from client.data.series import Split
    from client.learning.tensors import Frames
    from client.learning.train import Trainer
    from client.seat import Seat
    from client.settings import Home, LocalRules
    from policies.ports import Entropy
    from policies.privacy.canaries import CanarySecret
    from policies.privacy.conformance import ConformanceReport
    from policies.privacy.plan import EvalPlan
    from policies.privacy.receipts import MadeWith
    from policies.recipe import Recipe

__all__ = ["HomeLearner", "episodes_of"]


def episodes_of(home: Home, seat: Seat, split: Split, rules: LocalRules) -> list[EpisodeArrays]:
    """Episodes of a seat's data set, opened through contract, recipe and local list.

    Raises:
        DataError: A field may not be opened, is not there, or the data set was not imported under the
            contract.
        UnitRefusedError: The plan protects another unit than the data have.
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
        rate_hz=seat.recipe.rate_hz,
        withheld=partial(is_given, away=withheld(home)),
        imitates=seat.recipe.task.kind == "behaviour-cloning",
    )
    _check_unit(seat, view.unit, split)
    return [
        EpisodeArrays(
            observation=one.fields,
            action=one.actions,
            unit_id=one.unit_id,
            stratum=one.stratum,
            block=one.block,
            labels=one.labels,
        )
        for one in view.episodes(split)
        if not _is_public(seat, one)
    ]


def _is_public(seat: Seat, episode: Episode) -> bool:
    """Whether an episode is in the seed set of the recipe, whatever this node remembers of giving it."""
    donated = seat.start.donated
    if not donated:
        return False
    return published(seat.recipe, episode.fields, episode.actions, episode.labels).digest in donated


def _check_unit(seat: Seat, unit: str, split: Split) -> None:
    plan = seat.recipe.plan if split == "train" else seat.recipe.evaluation
    if plan is not None and plan.unit != unit:
        raise UnitRefusedError(
            need=f"data of unit {plan.unit}, as the plan of the recipe protects it",
            found=f"{seat.dataset} of unit {unit}",
            remedy="agree on a recipe for the unit of the data, or bring other data that have the key",
            clause=seat.clause.clause,
        )


@dataclass(frozen=True, slots=True)
class _Ready:
    """A trainer and the units that it was frozen with."""

    trainer: Trainer
    manifest: str


Place = tuple[str, str, str, str]  # contract, recipe, data set, lineage: what a seat reads and charges


def _place(seat: Seat) -> Place:
    return seat.held.contract.digest, seat.recipe.digest, seat.dataset, seat.lineage


def _manifest(episodes: Sequence[EpisodeArrays], planted: Sequence[Frames] = ()) -> str:
    return unit_manifest({one.unit_id for one in episodes} | {one.unit_id for one in planted})


def _shared(recipe: Recipe, first: np.ndarray) -> np.ndarray:
    """The part of the first weights that travels, whether or not a variant was chosen."""
    return first if len(first) == recipe.parameters else np.asarray(shared_of(recipe, first))


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
        self._conformance = Conformance(home, entropy=entropy, clock=SystemClock())
        self._parts = PrivateParts(home)
        self._stopped = StoppedRuns(home)
        self._progress = Progress(home, SystemClock())

    def initial(self, recipe: Recipe) -> np.ndarray:
        """The shared part of the weights that follow from the recipe's seed: a run begins with it."""
        if recipe.digest not in self._initial:
            self._initial[recipe.digest] = _shared(recipe, initial_weights(recipe))
        return self._initial[recipe.digest]

    def units(self, seat: Seat, split: str, canaries: CanarySecret | None = None) -> Units:
        """The units of a split, and the blocks of the lineage that they lie in."""
        with self._lock:
            episodes = self._train(seat) if split == TRAIN else self._judging(seat)
        beside = [one.unit_id for one in canary_units(seat.recipe, canaries)]
        return Units.of(split, ((one.block, one.unit_id) for one in episodes), beside=beside)

    def update(
        self,
        seat: Seat,
        run: str,
        slot: tuple[int, int],
        weights: np.ndarray,
        spend: Callable[[str], None],
        *,
        canaries: CanarySecret | None = None,
        grid_step: float | None = None,
    ) -> np.ndarray:
        """The update of a round and attempt; ``spend`` gets the trainer's units before the first gradient."""
        with self._lock:
            key = (run, _place(seat))
            ready = self._trainers.get(key) or self._fresh(seat, run, canary_units(seat.recipe, canaries))
            self._trainers = {key: ready}  # one run at a time; a new run freezes its units anew
        self._conformance.need(seat.recipe)
        spend(ready.manifest)
        update = ready.trainer.update(
            weights,
            *slot,
            grid_step=grid_step,
            stop=lambda: self._stopped.is_stopped(run),
            progress=self._progress.of(run, slot[0], seat.recipe.rounds),
        )
        if seat.recipe.has_private:
            self._parts.keep(run, seat.recipe, ready.trainer.private)
        return update

    def made_with(self, seat: Seat) -> MadeWith:
        """Names of the code behind the last private update."""
        ready = next(one for (_, place), one in self._trainers.items() if place == _place(seat))
        return ready.trainer.made_with

    def audited(self, recipe: Recipe) -> ConformanceReport | None:
        """The conformance report that this process made of a recipe, if it made one."""
        return self._conformance.made(recipe)

    def judge(self, seat: Seat, weights: np.ndarray) -> tuple[float, bool]:
        """One noised query on the held-out units."""
        with self._lock:
            held_out, trained = self._judging(seat), {one.unit_id for one in self._train(seat)}
        own = own_model(self._home, seat.run, seat.recipe, weights)
        verdict = judge(seat.recipe, own, held_out, seat.recipe.evaluation, self._entropy, trained=trained)
        return verdict.noised_loss, verdict.accept

    def gains(
        self, seat: Seat, plan: EvalPlan, models: Sequence[np.ndarray], against: np.ndarray
    ) -> tuple[int, ...]:
        """One noised query on the held-out units about models beside another one."""
        with self._lock:
            held_out, trained = self._judging(seat), {one.unit_id for one in self._train(seat)}
        judged = [own_model(self._home, seat.run, seat.recipe, one) for one in models]
        before = own_model(self._home, seat.run, seat.recipe, against)
        return gains(seat.recipe, (judged, before), held_out, plan, self._entropy, trained=trained)

    def warm(self, seats: Sequence[Seat]) -> None:
        """Loads torch, prepares a trainer for each seat and audits its parts, on made-up frames only.

        Raises:
            AuditFailedError: What is installed does not keep a recipe's plan; nothing is trained under it.
        """
        for seat in seats:
            self._keep_spare(seat)
        for seat in seats:
            report = self._conformance.prepare(seat.recipe)
            if report is not None:
                report.need_passed()

    def ready(self, seat: Seat) -> None:
        """As `warm`, for one seat whose update will be asked for soon.

        Raises:
            IriaiError: It will be refused then, by the same code.
        """
        self._keep_spare(seat)
        self._conformance.need(seat.recipe)

    def _keep_spare(self, seat: Seat) -> None:
        with self._lock:
            if _place(seat) not in self._spare and not self._trainers:
                self._spare[_place(seat)] = self._make(seat, self._train(seat))

    def _fresh(self, seat: Seat, run: str, planted: Sequence[Frames]) -> _Ready:
        """The trainer that was prepared for a seat if the store holds its units still, else a new one."""
        episodes = self._train(seat)
        spare = self._spare.pop(_place(seat), None)
        kept = self._parts.read(run, seat.recipe) if seat.recipe.has_private else None
        if spare is not None and kept is None and spare.manifest == _manifest(episodes, planted):
            return spare
        return self._make(seat, episodes, planted, kept)

    def _make(
        self,
        seat: Seat,
        episodes: list[EpisodeArrays],
        planted: Sequence[Frames] = (),
        private: np.ndarray | None = None,
    ) -> _Ready:
        import torch

        from client.learning.train import Trainer

        torch.set_num_threads(self._threads)
        trainer = Trainer(seat.recipe, episodes, self._entropy, canaries=planted, private=private)
        return _Ready(trainer, _manifest(episodes, planted))

    def _train(self, seat: Seat) -> list[EpisodeArrays]:
        return episodes_of(self._home, seat, "train", self._rules())

    def _judging(self, seat: Seat) -> list[EpisodeArrays]:
        place = _place(seat)
        if place not in self._held_out:
            self._held_out = {place: episodes_of(self._home, seat, "held-out", self._rules())}
        return self._held_out[place]
