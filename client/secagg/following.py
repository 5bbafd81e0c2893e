# SPDX-License-Identifier: Apache-2.0
"""Whether an opened sum is right, and whether the model that a round begins with follows from it.

Under a contract with ``group_mac: on`` the broker shows the newest opened sum with the next base model. Before
that model is used, in this order:

1. the sum carries the tag of its members, whose key the broker lacks (`NodeMachine.check_sum`);
2. a sum that this node helped to open under the present setup is shown, or a newer one;
3. round 1 begins with the weights that every node derives from the recipe;
4. the base model follows: it is what the recipe's server step makes of the model before and the mean of the
   sum, the model before (where a sum was not applied), or an earlier one of the run (where the members went
   back to it). Another one is refused: a broker that shows another model than the log.

Step 4 needs every sum since the first round: a server step goes on from the one before. A node that was
started since, missed a sum, or whose setup was replaced between two rounds, lacks one. It then says so once
(``model-not-followed``) and trains on; steps 1 to 3 hold all the same. A server that only adds the mean has
nothing to remember: the next sum is followed again.

With ``group_mac: off`` no sum is shown, and only step 3 can be made.
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
from policies.secagg.asks import ContributeAsk
from policies.secagg.errors import ContextMismatchError
from policies.secagg.ring import mean
from policies.server_step import initial_state, server_step

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from client.desktop import Learner
    from client.guard import Seat
    from client.secagg.machines import Place
    from policies.recipe import Recipe
    from policies.secagg.asks import Previous
    from policies.secagg.node import NodeMachine
    from policies.secagg.terms import Terms
    from policies.server_step import State

__all__ = ["Following"]

_KEPT: Final = 4  # models of one run with their state: more than members go back to
_SEEN: Final = 64  # digests of older ones: a model that is one of them is no lie, but leads no further


@dataclass(frozen=True, slots=True, eq=False)
class _Model:
    """A model with what the server's next step goes on from."""

    weights: np.ndarray
    state: State
    step: int


@dataclass(slots=True, eq=False)
class _Run:
    """What is known of one run."""

    models: OrderedDict[str, _Model] = field(default_factory=OrderedDict)
    older: OrderedDict[str, None] = field(default_factory=OrderedDict)
    newest: tuple[int, int] = (0, 0)  # round and attempt of the last sum that was followed
    told: bool = False

    def add(self, name: str, model: _Model) -> None:
        self.models[name] = model
        self.models.move_to_end(name)
        while len(self.models) > _KEPT:
            self.older[self.models.popitem(last=False)[0]] = None
        while len(self.older) > _SEEN:
            self.older.popitem(last=False)


class Following:
    """Follows the runs of this process, the ones used last."""

    def __init__(self, learner: Learner, *, say: Callable[[str, Mapping[str, object]], None]) -> None:
        self._learner = learner
        self._say = say
        self._runs: OrderedDict[Place, _Run] = OrderedDict()
