# SPDX-License-Identifier: Apache-2.0
"""Whether an opened sum is right, and whether the model that a round begins with follows from it.

Under a contract with ``group_mac: on`` the broker shows the newest opened sum beside the next base model.
Before that model is used, in this order:

1. a sum is shown where the ask speaks of one, and where this node helped to open one under the present setup;
2. it carries the tag of its members, whose key the broker lacks (`NodeMachine.check_sum`);
3. round 1 begins with the weights that every node derives from the recipe;
4. the base model follows: it is what the recipe's server step makes of the model before and of the mean of
   the sum, or the model before (where a sum was not applied), or an earlier one of the run (where members
   went back to it). Another one is refused: the broker shows another model than the sums give.

After a probe, whose teams are chosen, the model may be that of any union: those that this node judged
(`client.secagg.unions`), where it did. If it is not everybody's, what comes next is followed from there only
with a server that remembers nothing.

Step 4 goes on from the model before, so it needs every sum since the first round. A node that was started
since, missed a sum, or got a new setup between two rounds lacks one. It says so once (``model-not-followed``)
and trains on: steps 1 to 3 hold all the same. A server that only adds the mean has nothing to remember; there
the next sum is followed again.

With ``group_mac: off`` no sum is shown, and only step 3 is made.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import numpy as np

from client.contract.starts import first_weights
from policies.encoding import digest
from policies.exchange import tensor_bytes
from policies.limits import MAX_ACTIVE_RUNS
from policies.secagg.errors import ContextMismatchError
from policies.secagg.ring import mean
from policies.server_step import initial_state, server_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client.desktop import Learner
    from client.guard import Seat
    from client.secagg.machines import InRun
    from client.secagg.unions import Unions
    from policies.recipe import Recipe
    from policies.secagg.node import Slot
    from policies.secagg.terms import Terms
    from policies.server_step import State

__all__ = ["Following"]

_KEPT: Final = 4  # models of one run with their state; more than members go back to
_OLDER: Final = 64  # digests of models before those: no lie, but nothing goes on from them here
_NONE: Final = (0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """A model with what the server's next step goes on from."""

    weights: np.ndarray
    state: State
    step: int

    def after(self, update: np.ndarray, recipe: Recipe, step: int) -> _Model:
        weights, state = server_step(self.weights, update, self.state, recipe.server, step)
        return _Model(weights.astype(np.float32), state, step + 1)

    @property
    def digest(self) -> str:
        return digest(tensor_bytes(self.weights))


@dataclass(slots=True, eq=False)
class _Thread:
    """What one run went through, as far as it is known without a gap; without models it is lost."""

    models: OrderedDict[str, _Model] = field(default_factory=OrderedDict)
    older: OrderedDict[str, None] = field(default_factory=OrderedDict)
    newest: tuple[int, int] = _NONE  # round and attempt of the last sum
    used: set[str] = field(default_factory=set)  # of ``models``, what a round began with
    steps: int = 0  # that were applied, those that members took back included
    told: bool = False

    def add(self, model: _Model) -> None:
        self.models[model.digest] = model
        while len(self.models) > _KEPT:
            name, _ = self.models.popitem(last=False)
            self.older[name] = None
            self.used.discard(name)
        while len(self.older) > _OLDER:
            self.older.popitem(last=False)

    def use(self, name: str) -> None:
        """A round begins with this model."""
        if name not in self.used and self.models[name].step:
            self.steps += 1
        self.used.add(name)
        self.models.move_to_end(name)
        self.told = False

    def clear(self) -> None:
        """The thread is lost."""
        self.models.clear()
        self.used.clear()
        self.steps = 0


class Following:
    """Follows the runs of this process that were used last."""

    def __init__(
        self, learner: Learner, unions: Unions, *, say: Callable[[str, Mapping[str, object]], None]
    ) -> None:
        self._learner = learner
        self._unions = unions
        self._say = say
        self._threads: OrderedDict[tuple[str, str, str], _Thread] = OrderedDict()

    def check(
        self,
        seat: Seat,
        run: str,
        inside: InRun,
        slot: Slot,
        *,
        base: np.ndarray,
        summed: np.ndarray | None,
    ) -> None:
        """Returns if the base model of an attempt may be trained on; steps 1 to 4 of the module.

        Args:
            seat: This node's place.
            run: The run.
            inside: Its machine and terms.
            slot: As admitted.
            base: ``float32 [d]`` with the digest ``slot.base_model``.
            summed: ``uint32 [d]``, the sum that the request carries, or None.

        Raises:
            ContextMismatchError: 1, 3, 4.
            SumWrongError: 2.
        """
        previous = slot.previous
        if (previous is None or not inside.terms.group_mac) != (summed is None) or inside.owes(slot):
            raise _other("the newest opened sum beside the base model", "none, or one that the ask lacks")
        if summed is not None:
            inside.machine.check_sum(slot, summed)
        if slot.round == 1 and slot.base_model != self._first(seat).digest:
            raise _other("a first round that begins with the recipe's own weights", "another model")
        if inside.terms.group_mac:
            thread = self._thread(seat, run, slot.base_model)
            if summed is not None:
                _go_on(thread, slot, summed, inside.terms, seat.recipe)
            if slot.base_model in thread.models:
                thread.use(slot.base_model)
            elif self._wrong(thread, seat, run, slot):
                raise _other("the model that the opened sums give", "another one")
            else:
                self._lost(thread, seat, run, slot, base)

    def _wrong(self, thread: _Thread, seat: Seat, run: str, slot: Slot) -> bool:
        """Whether a model that the thread does not know can be none of the run."""
        if slot.previous is None or not thread.models or slot.base_model in thread.older:
            return False
        if len(slot.previous.teams) == 1:
            return True
        unions = self._unions.of((seat.held.contract.digest, seat.recipe.digest, run), slot.previous.round)
        return bool(unions) and slot.base_model not in unions

    def _thread(self, seat: Seat, run: str, base_model: str) -> _Thread:
        place = (seat.held.contract.digest, seat.recipe.digest, run)
        if place not in self._threads:
            thread, first = _Thread(), self._first(seat)
            if base_model == first.digest:
                thread.add(first)
            self._threads[place] = thread
        self._threads.move_to_end(place)
        while len(self._threads) > MAX_ACTIVE_RUNS:
            self._threads.popitem(last=False)
        return self._threads[place]

    def _first(self, seat: Seat) -> _Model:
        initial = self._learner.initial(seat.recipe) if seat.recipe.start is None else None
        weights = first_weights(seat.recipe, seat.start, initial)
        return _Model(weights, initial_state(weights, seat.recipe.server), 0)

    def _lost(self, thread: _Thread, seat: Seat, run: str, slot: Slot, base: np.ndarray) -> None:
        """Says so, once; where the server remembers nothing, what comes next is followed from here."""
        if not thread.told:
            self._say("model-not-followed", {"run": run, "round": slot.round})
        thread.told = True
        state = initial_state(base, seat.recipe.server)
        thread.clear()
        if not state:
            thread.add(_Model(base.copy(), state, 0))


def _go_on(thread: _Thread, slot: Slot, summed: np.ndarray, terms: Terms, recipe: Recipe) -> None:
    """What the newest sum makes of the model that its members began with; without that the thread is lost.

    Of a round with several teams it is the sum of all: the model is everybody's, or another union's.
    """
    previous = slot.previous
    if previous is None or (previous.round, previous.attempt) <= thread.newest:
        return
    thread.newest = (previous.round, previous.attempt)
    before = thread.models.get(previous.base_model)
    if before is None:
        thread.clear()
        return
    update = mean(summed, terms, previous.online)
    thread.add(before.after(update, recipe, before.step))
    if slot.base_model not in thread.models and thread.steps != before.step:
        thread.add(before.after(update, recipe, thread.steps))  # members went back before: steps count on


def _other(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need,
        found=found,
        remedy="nothing was spent; compare the model's digest with the log, and tell the other members",
    )
