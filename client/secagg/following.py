# SPDX-License-Identifier: Apache-2.0
"""Whether an opened sum is right, and whether the model that a round begins with follows from the sums.

Under a contract with ``group_mac: on`` the broker shows each node, behind the base model, every sum that was
opened since the last one that it was shown: of the last setup as of this one, of rounds without this node
too. Before the base model is used, in this order:

1. each sum carries the tag of its members, whose key the broker lacks; a node that was a member of the sum's
   setup has it, whether it took part in the round or not (`NodeMachine.check_sums`);
2. a sum whose tag holds vouches for what its members began with: their context has the digests of the base
   model and of the server's state before the round, and t of them confirmed it. Its base model is one that
   this node knows, or the model that was sent along (`policies.secagg.asks.Resume`) with these digests;
3. what the round begins with, model and state, is known: the weights that every node derives from the
   recipe; what the server's step makes of the newest sum, of a probe of any union of its teams; what was
   there before it (where it was not applied); or an earlier one (where members went back to it);
4. else there was a sum that this node cannot check. It believes that only of `NodeMachine.witnessed`: more
   members of the present setup than may collude signed that they helped to open a round which is newer than
   every one that this node was shown the sum of, or confirmed itself. Then it trains on, says so
   (``model-not-followed``), and is back with the next sum, by 2;
5. else the attempt is refused: the broker shows another model than the sums give, or leaves one out.

So it does not matter whether the broker makes new setups, leaves nodes out, or begins late. What is left is
4: nodes that were started anew, or were in no setup since. A model that no sum gives is summed only if t
members take it. Of those that confirmed the newest round t - c are honest, and refuse it; so that takes at
least 2t - n - c of them that were started anew at the same time, which the broker cannot do.

A node that can check the newest sum and lacks the model before it refuses with ``secagg.behind``; the broker
sends that along with the next attempt.

With ``group_mac: off`` no sum is shown, and only the first round is looked at: it begins with the recipe's
own weights.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from client.contract.starts import first_weights
from client.secagg.thread import Model, Newest, Thread
from policies.encoding import digest
from policies.exchange import tensor_bytes
from policies.limits import MAX_ACTIVE_RUNS
from policies.secagg.errors import BehindError, ContextMismatchError, SecaggError
from policies.server_step import initial_state

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import numpy as np

    from client.desktop import Learner
    from client.seat import Seat
    from client.secagg.machines import InRun
    from client.secagg.thread import Pair, Shown
    from policies.recipe import Recipe
    from policies.secagg.asks import Previous, Resume
    from policies.secagg.node import Slot

__all__ = ["Following"]


class Following:
    """Follows the runs of this process that were used last."""

    def __init__(self, learner: Learner, *, say: Callable[[str, Mapping[str, object]], None]) -> None:
        self._learner = learner
        self._say = say
        self._threads: OrderedDict[tuple[str, str], Thread] = OrderedDict()

    def check(
        self, seat: Seat, run: str, inside: InRun, slot: Slot, *, base: np.ndarray, shown: Shown
    ) -> Previous | None:
        """Returns if the base model of an attempt may be trained on; steps 1 to 5 of the module.

        Args:
            seat: This node's place.
            run: The run.
            inside: Its machine and terms.
            slot: As admitted.
            base: ``float32 [d]`` with the digest ``slot.base_model``.
            shown: What lies behind it.

        Returns:
            The newest of the sums that were shown whose tag held, if any.

        Raises:
            ContextMismatchError: 2, 5.
            SumWrongError: 1.
            BehindError: The model is checked once the one before it is sent along.
        """
        first = self._first(seat) if slot.round == 1 else None
        if first is not None and slot.base_model != digest(tensor_bytes(first.weights)):
            raise _other("a first round that begins with the recipe's own weights", "another model")
        if not inside.terms.group_mac:
            return None
        place = (seat.recipe.digest, run)
        thread = self._threads.get(place) or Thread.begun(first or self._first(seat))
        terms = inside.machine.check_sums(slot, shown.sums)  # 1.
        sent = _sent(shown, slot.resume)
        checked = [
            (said, z, whose)
            for said, z, whose in zip(slot.shown, shown.sums, terms, strict=True)
            if whose is not None
        ]
        newest = thread.newest
        for said, z, whose in checked:
            if said.round > thread.round:  # 2.
                pair = (said.base_model, said.server)
                thread.newest = Newest(said, z, whose, _before(thread, pair, sent, seat.recipe))
        try:
            self._judge(thread, seat, run, inside, slot, base=base, sent=sent)
        except SecaggError:
            thread.newest = newest  # the next attempt may show more
            raise
        if thread.newest is not None:
            inside.machine.sum_keys.forget(thread.newest.said.setup)
        self._keep(place, thread)
        return checked[-1][0] if checked else None

    def _judge(
        self,
        thread: Thread,
        seat: Seat,
        run: str,
        inside: InRun,
        slot: Slot,
        *,
        base: np.ndarray,
        sent: tuple[Pair, Model] | None,
    ) -> None:
        """Steps 3 to 5."""
        pair = (slot.base_model, slot.server)
        if sent is not None and sent[0] == pair and pair in thread.older:
            thread.add(*sent)
        if thread.find(pair, seat.recipe) is not None:  # 3.
            if thread.told:
                self._say("model-followed", {"run": run, "round": slot.round})
            thread.told = False
            return
        known = max(thread.round, inside.machine.sum_keys.confirmed)
        if inside.machine.witnessed > known:  # 4.
            self._doubt(thread, seat, run, slot, base)
        elif pair in thread.older or (thread.newest is not None and thread.newest.before is None):
            raise BehindError(
                need="a model of the run before the newest sum, with the server's state",
                found="neither: this node was started anew, or was away",
                remedy="nothing: the broker sends it along with the next attempt",
            )
        else:
            raise _other("the model and the server's state that the opened sums give", "others")  # 5.

    def _doubt(self, thread: Thread, seat: Seat, run: str, slot: Slot, base: np.ndarray) -> None:
        """Says, once, that a model is not followed."""
        if not thread.told:
            self._say("model-not-followed", {"run": run, "round": slot.round})
        thread.told = True
        if not initial_state(base[:1], seat.recipe.server):
            thread.doubted = Model(base.copy(), {}, 0)

    def _first(self, seat: Seat) -> Model:
        initial = self._learner.initial(seat.recipe) if seat.recipe.start is None else None
        weights = first_weights(seat.recipe, seat.start, initial)
        return Model(weights, initial_state(weights, seat.recipe.server), 0)

    def _keep(self, place: tuple[str, str], thread: Thread) -> None:
        """Only where this node goes on to train: a request that is refused ends no other thread."""
        self._threads[place] = thread
        self._threads.move_to_end(place)
        while len(self._threads) > MAX_ACTIVE_RUNS:
            self._threads.popitem(last=False)


def _sent(shown: Shown, resume: Resume | None) -> tuple[Pair, Model] | None:
    """The model that was sent along, if it is the one that the ask names."""
    if shown.sent is None or resume is None:
        return None
    pair = shown.sent.pair
    if pair != (resume.base_model, resume.server):
        raise _other("the model and state that the ask names", "others")
    return pair, shown.sent


def _before(thread: Thread, pair: Pair, sent: tuple[Pair, Model] | None, recipe: Recipe) -> Model | None:
    """The model that members of a sum began with: this node's own, or the one that was sent along."""
    found = thread.find(pair, recipe)
    if found is None and sent is not None and sent[0] == pair:
        found = thread.add(*sent)
    if found is None and thread.doubted is not None and thread.doubted.pair == pair:
        found = thread.add(pair, thread.doubted)
    return found


def _other(need: str, found: str) -> ContextMismatchError:
    return ContextMismatchError(
        need=need,
        found=found,
        remedy="nothing was spent; compare the model's digest with the log, and tell the other members",
    )
