# SPDX-License-Identifier: Apache-2.0
"""The thread of a run's models: what its sums gave, as far as this node could check them.

A model is known by two digests: of its weights, and of the server's state with its number of steps. Both are
in the context of each attempt (`policies.secagg.contexts.Context`). What is judged by it is in
`client.secagg.following`.

    thread = Thread.begun(first)
    thread.newest = Newest(said, sums, terms, before=thread.find(pair, recipe))
    thread.find((base_model, server), recipe)       # None: no model of the run, as far as it was followed
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Final

import numpy as np

from policies.encoding import digest
from policies.exchange import tensor_bytes
from policies.robustness.scores import candidates
from policies.secagg.errors import ContextMismatchError
from policies.secagg.ring import mean
from policies.server_step import initial_state, server_step, state_digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.recipe import Recipe
    from policies.secagg.asks import Previous
    from policies.secagg.node import Slot
    from policies.secagg.terms import Terms
    from policies.server_step import State

    Pair = tuple[str, str]
    """Digests of a model and of the server's state."""

__all__ = ["Model", "Newest", "Shown", "Thread", "shown_in"]

_KEPT: Final = 4  # models of one run with their state; more than members go back to, as a rule
_OLDER: Final = 64  # digests of models before those: they are of the run, and can be sent along


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What lies behind the base model in a request.

    Attributes:
        sums: For each of `Slot.shown`, ``uint32 [teams * d]``.
        sent: The model that was sent along, with its state; not looked at yet.
    """

    sums: tuple[np.ndarray, ...] = ()
    sent: Model | None = None


def shown_in(words: np.ndarray, slot: Slot, recipe: Recipe) -> Shown:
    """Reads what lies behind the base model: sums, weights, state.

    Args:
        words: ``uint32``.
        slot: As admitted.
        recipe: Of the run.

    Raises:
        ContextMismatchError: Not as long as the ask says.
    """
    size = recipe.parameters
    names = sorted(initial_state(np.zeros(1, np.float32), recipe.server))
    lengths = [len(one.opened) for one in slot.shown]
    count = sum(lengths) + (0 if slot.resume is None else 1 + 2 * len(names))
    if words.size != count * size:
        raise ContextMismatchError(
            need=f"{count} vectors behind the base model, as the ask says",
            found=f"{words.size} values",
            remedy="update node or broker; nothing was spent",
        )
    rows = iter(words.reshape(-1, size))
    sums = tuple(np.concatenate([next(rows) for _ in range(one)]) for one in lengths)
    if slot.resume is None:
        return Shown(sums)
    weights = next(rows).view("<f4").copy()
    state = {name: np.concatenate([next(rows), next(rows)]).view("<f8") for name in names}
    return Shown(sums, Model(weights, state, slot.resume.step))


@dataclass(frozen=True, slots=True, eq=False)
class Model:
    """A model with what the server's next step goes on from."""

    weights: np.ndarray
    state: State
    step: int

    @property
    def pair(self) -> Pair:
        """Its digests."""
        return digest(tensor_bytes(self.weights)), state_digest(self.state, self.step)

    def after(self, update: np.ndarray, recipe: Recipe) -> Model:
        """What the server's step makes of it."""
        weights, state = server_step(self.weights, update, self.state, recipe.server, self.step)
        return Model(weights.astype(np.float32), state, self.step + 1)


@dataclass(frozen=True, slots=True, eq=False)
class Newest:
    """The newest sum whose tag held, and the model that its members began with; None: it is not here."""

    said: Previous
    sums: np.ndarray
    terms: Terms
    before: Model | None

    def results(self, recipe: Recipe) -> Iterator[Model]:
        """What it may have given: in a probe the model of each union of its teams, all of them first."""
        if self.before is None:
            return
        sums, supports = self.sums.reshape(len(self.said.opened), -1), self.said.supports
        for union in candidates(len(supports)):
            chosen = sorted(union)
            z = sums[chosen].sum(axis=0, dtype=np.uint32)
            parties = tuple(sorted(chain.from_iterable(supports[one] for one in chosen)))
            yield self.before.after(mean(z, self.terms, parties), recipe)


@dataclass(slots=True, eq=False)
class Thread:
    """What one run went through, as far as this node could check it.

    Attributes:
        models: Used last; ``older`` names those before.
        newest: Sum; None before the first.
        doubted: Base model of an attempt that was not followed, of a server that remembers nothing.
        told: It was said that a model is not followed.
    """

    models: OrderedDict[Pair, Model] = field(default_factory=OrderedDict)
    older: OrderedDict[Pair, None] = field(default_factory=OrderedDict)
    newest: Newest | None = None
    doubted: Model | None = None
    told: bool = False

    @classmethod
    def begun(cls, first: Model) -> Thread:
        """One that begins with the recipe's own weights."""
        thread = cls()
        thread.add(first.pair, first)
        return thread

    @property
    def round(self) -> int:
        """Of the newest sum; 0 before the first."""
        return 0 if self.newest is None else self.newest.said.round

    def add(self, pair: Pair, model: Model) -> Model:
        """Keeps a model, as the one that was used last."""
        self.models[pair] = model
        self.models.move_to_end(pair)
        while len(self.models) > _KEPT:
            name, _ = self.models.popitem(last=False)
            self.older[name] = None
        while len(self.older) > _OLDER:
            self.older.popitem(last=False)
        return model

    def find(self, pair: Pair, recipe: Recipe) -> Model | None:
        """A model of the run, by its digests."""
        if pair in self.models:
            return self.add(pair, self.models[pair])
        for model in self.newest.results(recipe) if self.newest is not None else ():
            if digest(tensor_bytes(model.weights)) == pair[0] and model.pair == pair:
                return self.add(pair, model)
        return None
