# SPDX-License-Identifier: Apache-2.0
"""The protocol machines of this node: one for each run, in memory, the ones used last.

- Terms come from this node's own contract and recipe (`client.secagg.agreed`), keys from its own key ring,
  entropy from the operating system. Nothing of a machine is in a file: when the process ends, its keys and
  shares are gone, and no copy of a disk can use a slot twice.
- Teams of probe rounds, and which sums may be open together, are this node's own reckoning from the same
  (`policies.secagg.probes`).
- A setup begins with ADVERTISE; only that makes a machine. Everything else under a run without one is
  `SetupGoneError`: the broker runs a new setup from the next attempt.
- A new machine is told in which rounds a process before this one answered UNMASK (by the notes of what left):
  it takes part in no other attempt of those. A power cut may take the last such note; the other members have
  burned the round all the same, and a second sum of it would need t of them.
- What sums are checked with (`policies.secagg.sum_keys`) goes from machine to machine where a run goes on
  under another contract: the last sum of the old one is shown under the new one.
- At most `MAX_ACTIVE_RUNS`; the one that was not asked for longest ends first, and before that one which
  helped to open nothing: setups cost a broker nothing, and must not end what a node knows of other runs.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING

from client.secagg.agreed import terms_here
from policies.exchange import ExchangeType
from policies.limits import MAX_ACTIVE_RUNS
from policies.secagg.errors import SetupGoneError
from policies.secagg.node import NodeMachine
from policies.secagg.probes import probes_of, release_guard

if TYPE_CHECKING:
    from client.outbox import Outbox
    from client.seat import Seat
    from policies.identity import SigningKey
    from policies.ports import Entropy
    from policies.secagg.sum_keys import SumKeys
    from policies.secagg.terms import Terms

__all__ = ["InRun", "Machines", "Place", "place_of"]

Place = tuple[str, str, str]  # contract, recipe, run: what a machine's terms follow from


def place_of(seat: Seat, run: str) -> Place:
    """What belongs together in memory: a run under its contract and recipe."""
    return seat.held.contract.digest, seat.recipe.digest, run


@dataclass(frozen=True, slots=True, eq=False)
class InRun:
    """A machine with the terms that it works by."""

    machine: NodeMachine
    terms: Terms


class Machines:
    """The machines of a worker."""

    def __init__(self, *, key: SigningKey, entropy: Entropy, outbox: Outbox) -> None:
        self._key = key
        self._entropy = entropy
        self._outbox = outbox
        self._inside: OrderedDict[Place, InRun] = OrderedDict()

    def begin(self, seat: Seat, run: str) -> InRun:
        """The machine of a run, a new one if there is none.

        Raises:
            ThresholdError: The contract's numbers carry no safe threshold.
            CohortTooSmallError: This party is no contributor of the recipe.
            KeyNotPinnedError: The contract pins another key than this node's.
        """
        place = place_of(seat, run)
        if place not in self._inside:
            terms = terms_here(seat, run)
            opened = self._outbox.left.newest_round(ExchangeType.SA_UNMASK.value, run=run)
            probes = probes_of(seat.held.contract, seat.recipe.canonical, terms)
            machine = NodeMachine(
                terms,
                seat.party,
                key=self._key,
                entropy=self._entropy,
                expected_teams=None if probes is None else probes.teams,
                guard=release_guard(terms),
                opened_round=opened,
                sum_keys=self._sum_keys(place),
            )
            self._inside[place] = InRun(machine, terms)
        self._inside.move_to_end(place)
        while len(self._inside) > MAX_ACTIVE_RUNS:
            del self._inside[self._spare()]
        return self._inside[place]

    def _sum_keys(self, place: Place) -> SumKeys | None:
        """Those of the same run under an earlier contract."""
        found = (one.machine.sum_keys for at, one in self._inside.items() if at[1:] == place[1:])
        return next(found, None)

    def _spare(self) -> Place:
        *older, _ = self._inside
        return next((at for at in older if not self._inside[at].machine.opened), older[0])

    def of(self, seat: Seat, run: str) -> InRun:
        """The machine of a run.

        Raises:
            SetupGoneError: There is none in this process.
        """
        place = place_of(seat, run)
        if place not in self._inside:
            raise SetupGoneError(
                need="the keys of this run's setup",
                found="none: this node was started since, or took part in too many runs",
                remedy="nothing: the broker runs a new setup from the next attempt",
            )
        self._inside.move_to_end(place)
        return self._inside[place]
