# SPDX-License-Identifier: Apache-2.0
"""What a node's own entries in a run come to, beside which each of its updates is looked at.

`Counters.check`, before an update is used:
1. where the contract asks for canaries, the node has committed to its own, in the log or in this reply;
2. under a plan, the step receipt fits plan and log (`policies.privacy.receipts`): the steps that it counts
   are those of its spends, and its ledger went on since the update before. An update that is sent again in a
   later attempt of its round has the receipt of its first one.

Entries are read once, each by the first key of its member: a new key begins no new count.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.federation.signed import slot_of_mechanism
from broker.log.rotations import Rotations
from broker.store.tables import log_entry, log_envelope
from policies.identity import key_id
from policies.log.entries import EntryType
from policies.privacy.canaries import per_party
from policies.privacy.errors import CanaryMissingError
from policies.privacy.receipts import check_receipt
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.federation.participants import Participant
    from broker.federation.replies import NodeReply
    from broker.store import Session, Store
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Counters"]

Json = Any
_KINDS: Final = (
    EntryType.CANARY_COMMITTED,
    EntryType.EPSILON_SPENT,
    EntryType.SUBMISSION_RECEIVED,
)
_Slot = tuple[int, int]


@dataclass(slots=True)
class _Count:
    """One member in one run: whether it committed, steps by round and attempt, ledger heads likewise."""

    committed: bool = False
    steps: dict[_Slot, int] = field(default_factory=dict)
    heads: dict[_Slot, str] = field(default_factory=dict)

    def take(self, payload: Mapping[str, Json]) -> None:
        """Counts an envelope of the run."""
        kind, body = payload["kind"], payload["body"]
        if kind == EntryType.CANARY_COMMITTED:
            self.committed = True
        elif kind == EntryType.EPSILON_SPENT:
            slot = slot_of_mechanism(body["mechanism"])
            if slot is not None:
                self.steps[slot[1:]] = body["steps"]
        elif kind == EntryType.SUBMISSION_RECEIVED and "receipt" in body:
            self.heads[(payload["round"], body["attempt"])] = body["receipt"]["ledger_head"]

    def copy(self) -> _Count:
        """Another one, to try a reply on."""
        return _Count(committed=self.committed, steps=dict(self.steps), heads=dict(self.heads))


class Counters:
    """Of one run; see the module."""

    def __init__(self, store: Store, run: str, contract: Contract, recipe: Recipe) -> None:
        self._store = store
        self._run = run
        self._asked = per_party(contract.release.evidence, contract.aggregation.min_parties) > 0
        self._clause = contract.release.clause
        self._plan = recipe.plan
        self._upto = 0
        self._counts: dict[str, _Count] = {}

    def check(self, sender: Participant, reply: NodeReply) -> None:
        """Returns if an update may be used; see the module for the checks.

        Raises:
            CanaryMissingError: No commitment.
            AuditFailedError: The receipt is not what plan and log say.
        """
        if reply.submission is None:
            return
        with self._store.read() as session:
            rotations = Rotations.read(session)
            self._catch_up(session, rotations)
        count = self._counts.get(rotations.first(key_id(sender.node_key)), _Count()).copy()
        said = reply.submission.payload
        number, attempt = said["round"], said["body"]["attempt"]
        made = number, reply.trained or attempt
        same = {(number, one) for one in range(made[1], attempt + 1)}
        earlier = {at: head for at, head in count.heads.items() if at not in same}
        for one in reply.signed:
            if one.payload["run"] == self._run:
                count.take(one.payload)
        if self._asked and not count.committed:  # 1.
            raise CanaryMissingError(
                need="canary.committed before the first update of the run",
                found="none",
                remedy="update the node",
                clause=self._clause,
            )
        if self._plan is not None:  # 2.
            check_receipt(
                said["body"].get("receipt"),
                plan_steps=self._plan.steps,
                steps=sum(steps for at, steps in count.steps.items() if at <= made),
                heads=earlier.values(),
            )

    def _catch_up(self, session: Session, rotations: Rotations) -> None:
        for index, signer, payload in self._rows(session):
            self._counts.setdefault(rotations.first(signer), _Count()).take(payload)
            self._upto = index + 1

    def _rows(self, session: Session) -> Iterator[tuple[int, str, dict[str, Json]]]:
        of = (log_entry.c.run == self._run) & log_entry.c.type.in_([kind.value for kind in _KINDS])
        query = (
            select(log_entry.c.idx, log_envelope.c.signer, log_envelope.c.dsse)
            .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
            .where(of & (log_entry.c.idx >= self._upto))
            .order_by(log_entry.c.idx)
        )
        for row in session.execute(query):
            yield row.idx, row.signer, json.loads(Envelope.from_bytes(row.dsse).payload)
