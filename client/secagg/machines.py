# SPDX-License-Identifier: Apache-2.0
"""The protocol machines of this node: one for each run, in memory, the ones used last.

- Terms come from this node's own contract and recipe (`client.secagg.agreed`), keys from its own key ring,
  entropy from the operating system. Nothing of a machine is in a file: when the process ends, its keys and
  shares are gone, and no copy of a disk can use a slot twice.
- A setup begins with ADVERTISE; only that makes a machine. Everything else under a run without one is
  `SetupGoneError`: the broker runs a new setup from the next attempt.
- At most `MAX_ACTIVE_RUNS`; the one that was not asked for longest ends first.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from client.secagg.agreed import terms_here
from policies.limits import MAX_ACTIVE_RUNS
from policies.secagg.errors import SetupGoneError
from policies.secagg.node import NodeMachine

if TYPE_CHECKING:
    from client.guard import Seat
    from policies.identity import SigningKey
    from policies.ports import Entropy

__all__ = ["Machines", "Place", "place_of"]

Place = tuple[str, str, str]  # contract, recipe, run: what a machine's terms follow from


def place_of(seat: Seat, run: str) -> Place:
    """What belongs together in memory: a run under its contract and recipe."""
    return seat.held.contract.digest, seat.recipe.digest, run


class Machines:
    """The machines of a worker."""

    def __init__(self, *, key: SigningKey, entropy: Entropy) -> None:
        self._key = key
        self._entropy = entropy
        self._machines: OrderedDict[Place, NodeMachine] = OrderedDict()

    def begin(self, seat: Seat, run: str) -> NodeMachine:
        """The machine of a run, a new one if there is none.

        Raises:
            ThresholdError: The contract's numbers carry no safe threshold.
            CohortTooSmallError: This party is no contributor of the recipe.
        """
        place = place_of(seat, run)
        if place not in self._machines:
            self._machines[place] = NodeMachine(
                terms_here(seat, run), seat.party, key=self._key, entropy=self._entropy
            )
        self._machines.move_to_end(place)
        while len(self._machines) > MAX_ACTIVE_RUNS:
            self._machines.popitem(last=False)
        return self._machines[place]

    def of(self, seat: Seat, run: str) -> NodeMachine:
        """The machine of a run.

        Raises:
            SetupGoneError: There is none in this process.
        """
        place = place_of(seat, run)
        if place not in self._machines:
            raise SetupGoneError(
                need="the keys of this run's setup",
                found="none: this node was started since, or took part in too many runs",
                remedy="nothing: the broker runs a new setup from the next attempt",
            )
        self._machines.move_to_end(place)
        return self._machines[place]
