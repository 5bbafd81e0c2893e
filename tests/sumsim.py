# SPDX-License-Identifier: Apache-2.0
"""The auditor's story (`tests.auditsim`) under secure aggregation: three makers, all needed, and one lost attempt.

In round 2 the first attempt is abandoned after everybody had trained. In the second all send the same update again: masked anew,
and paid for by the spend of the first. A `tamper` function may name ``lost 2 …`` events of the first attempt.

Vectors, sums and transcripts are real: three node machines under the contract's own terms make them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from policies.encoding import canonical, digest, digest_of
from policies.log.bundle import Contents
from policies.log.entries import EntryType
from policies.privacy.receipts import MadeWith
from policies.privacy.statement import Terms
from policies.recipe import ServerAdam
from policies.secagg import ring
from policies.secagg.agreed import agreed_terms
from policies.secagg.collector import Opened
from policies.secagg.node import NodeMachine
from policies.server_step import initial_state, released_weights, server_step
from tests.auditsim import PARTIES, PLAN, RECIPE, RUN, MakerSim, PoolSim, digest_from
from tests.logsim import SimEntropy
from tests.secaggsim import Fleet

T = EntryType
TENSORS = [{"name": "policy", "shape": [2, 3], "block": "head"}]
ADAM = {
    "kind": "adam",
    "update": "gradient",
    "rate": "0.03",
    "decay": "0.5",
    "beta1": "0.9",
    "beta2": "0.99",
    "epsilon": "0.00001",
    "average": "0.9",
    "steps": 2,
}
SEED = 7


class MakersFleet(Fleet):
    """Machines under the makers' keys."""

    def __init__(self, sim: PoolSim) -> None:
        self._keys = {one.party: one.key for one in sim.makers.values()}
        super().__init__(agreed_terms(sim.contract, sim.recipe, run=RUN))

    def begin(self, party: str, **_more: Any) -> NodeMachine:
        return NodeMachine(
            self.terms, party, key=self._keys[party], entropy=SimEntropy(f"{party} of the story".encode())
        )


@dataclass
class SummedSim(PoolSim):
    """``resent`` changes the body of a submission that is sent again, by party.

    Attributes:
        opened: Opened sums by round; ``sums`` their values.
        vectors: Masked vectors by round, attempt and party, also of the attempt that was lost.
    """

    recipe: bytes = canonical(
        {
            **json.loads(RECIPE),
            "architecture": {"args": {"seed": SEED}},
            "start": None,
            "tensors": TENSORS,
            "server": ADAM,
        }
    )
    opened: dict[int, Opened] = field(default_factory=dict)
    sums: dict[int, NDArray[np.uint32]] = field(default_factory=dict)
    vectors: dict[tuple[int, int], dict[str, bytes]] = field(default_factory=dict)

    pooling: ClassVar[Mapping[str, Any]] = {"secure_aggregation": "required", "group_mac": "on"}
    refused: ClassVar[tuple[int, str] | None] = None
    attempts: ClassVar[Mapping[int, int]] = {2: 2}
    resent: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    spoiled: ClassVar[Mapping[int, float]] = {}  # round → what the broker adds to its model

    def __post_init__(self) -> None:
        super().__post_init__()
        self.fleet = MakersFleet(self)
        self.setup = self.fleet.setup(rounds=2)
        draws = np.random.Generator(np.random.PCG64(SEED)).random(6)
        self.weights = ((2 * draws - 1) * (0.1 / math.sqrt(3))).astype(np.float32).astype(np.float64)
        self.server = ServerAdam(**ADAM)  # type: ignore[arg-type]
        self.state = initial_state(self.weights, self.server)

    def initial(self) -> str:
        return _digest(self.weights)

    def made(self, number: int) -> str:
        members = self.fleet.terms.parties
        update = ring.mean(self.sums[number], self.fleet.terms, members)
        self.weights, self.state = server_step(self.weights, update, self.state, self.server, number - 1)
        self.weights = self.weights + self.spoiled.get(number, 0.0)
        return _digest(self.weights)

    def candidate(self) -> str:
        return _digest(released_weights(self.weights, self.state, self.server))

    def beside(self, number: int) -> dict[str, Any]:
        """The sum that was shown, as checked; the second round is the first that is shown one."""
        if number == 1:
            return {}
        return {"checked": {"round": 1, "attempt": 1, "sums": [digest(self.sums[1].tobytes())]}}

    def claim_terms(self) -> Terms:
        return Terms(secure_aggregation="required")

    def transcript(self, number: int) -> str | None:
        return digest(self.opened[number].transcript)

    def averaged(self, number: int) -> str:
        return self.opened[number].sums[0]

    def sent(self, maker: MakerSim, number: int) -> str:
        return digest(self.vectors[number, 1][maker.party])

    def vectors_by_digest(self) -> dict[str, bytes]:
        return {digest(one): one for sent in self.vectors.values() for one in sent.values()}

    def contents(self, **changes: Any) -> Contents:
        transcripts = [one.transcript for one in self.opened.values()]
        return super().contents(**{"transcripts": transcripts, **changes})

    def round(self, number: int, base: str, run_opened: int | None) -> str:
        self._sum(number, base)
        if number in self.attempts:
            self._lose(number, base, run_opened)
        return super().round(number, base, run_opened)

    def _sum(self, number: int, base: str) -> None:
        """What machines and broker do in a round beside the log."""
        fleet, setup = self.fleet, self.setup
        if number in self.attempts:
            lost = fleet.contribute(fleet.attempt(setup, number, 1, base_model=base))
            self.vectors[number, 1] = {party: one.tobytes() for party, one in lost.items()}
        counts = self.attempts.get(number, 1)
        outcome = fleet.round(setup, number, counts, base_model=base)
        self.opened[number], self.sums[number] = outcome.opened, outcome.z
        self.vectors[number, counts] = {party: one.tobytes() for party, one in outcome.vectors.items()}

    def _lose(self, number: int, base: str, run_opened: int | None) -> None:
        """An attempt that everybody answered and nobody could open."""
        for party in PARTIES:
            pub = self.decide(self._train(party, number), "broker")
            self.add(f"lost {number} asked {party}", self.by_broker(T.DECISION_RECORDED, pub, round=number))
        opened = self._open(f"lost {number} opened", number, base, run_opened, attempt=1)
        parties: dict[str, Any] = {}
        for maker in self.makers.values():
            submitted, _ = super()._reply(maker, number)
            pub = {"reason": "attempt-abandoned", "clause": None}
            event = self.by_broker(
                T.CONTRIBUTION_REFUSED,
                pub,
                round=number,
                refs=self.refs(submitted),
                private={"need": "3 members", "got": "2"},
            )
            self.add(f"lost {number} verdict {maker.party}", event)
            parties[maker.alias(self.contract.digest, RUN, number)] = {"received": 1, "verdict": "refused"}
        closed = {"attempt": 1, "received": 3, "accepted": 0, "refused": 3, "withdrawn": 0}
        closed |= {"parties": parties, "outcome": "abandoned"}
        event = self.by_broker(T.ROUND_CLOSED, closed, round=number, refs=self.refs(opened))
        self.add(f"lost {number} closed", event)
        self.publish()

    def _reply(self, maker: MakerSim, number: int) -> tuple[int | None, int | None]:
        """The reply that counts; where an attempt was lost, the update of that one again."""
        if number not in self.attempts:
            return super()._reply(maker, number)
        place, name = {"run": RUN, "round": number}, f"{maker.party} {number}"
        decision = self.decide(self._train(maker.party, number), "node")
        self.add(f"again decision {name}", self.said(maker, T.DECISION_RECORDED, decision, **place))
        body = {
            "update": digest(self.vectors[number, self.attempts[number]][maker.party]),
            "plan": digest_of(PLAN),
            "steps": 1,
            "attempt": self.attempts[number],
            "trained": 1,
            "receipt": MadeWith(engine="loop").receipt(
                steps_total=number, ledger_head=digest_from(f"ledger {name}")
            ),
        }
        body |= self.beside(number) | dict(self.resent.get(maker.party, {}))
        submitted = self.add(f"again {name}", self.said(maker, T.SUBMISSION_RECEIVED, body, **place))
        return submitted, self.names.get(f"spent {name}")


def _digest(weights: NDArray[Any]) -> str:
    return digest(weights.astype("<f4").tobytes())
