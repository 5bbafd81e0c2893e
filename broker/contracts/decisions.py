# SPDX-License-Identifier: Apache-2.0
"""Decisions of the broker: judged, kept for replay, logged with the action that they permit.

    judged = judge(contract, point="broker", request=request, state=state, entropy=entropy)
    judged.record(session, tx, run=run_id, round=3)          # row and entry; refusals too
    judged.decision.require()

What a decision was made from (request, state, salt) stays in the broker's database and goes to the auditor;
the log holds
the digest of the record and the clauses that refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.store.tables import decision as decision_table
from broker.store.upserts import insert_or_ignore
from policies.contract import Decision, decision_bytes, evaluate, request_to_json, state_to_json
from policies.encoding import canonical, digest
from policies.log.entries import EntryType, Event

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract, ContractState, Request
    from policies.ports import Entropy

__all__ = ["Judgement", "judge", "keep"]

_SALT_BYTES = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Judgement:
    """A decision with everything that somebody else needs to make it again."""

    contract: str
    point: str
    decision: Decision
    request: bytes
    state: bytes
    salt: bytes
    record_bytes: bytes

    @property
    def digest(self) -> str:
        """Digest of the record, as the log names it."""
        return digest(self.record_bytes)

    @property
    def allow(self) -> bool:
        """Whether the action may happen."""
        return self.decision.allow

    def record(
        self,
        session: Session,
        tx: LogTx,
        *,
        run: str | None = None,
        round: int | None = None,  # noqa: A002  the entry's own word
        refs: tuple[int, ...] = (),
    ) -> int:
        """Keeps the decision and logs it; gives the entry's index."""
        keep(
            session,
            contract=self.contract,
            point=self.point,
            record=self.record_bytes,
            request=self.request,
            state=self.state,
            salt=self.salt,
        )
        return tx.add(
            Event(
                type=EntryType.DECISION_RECORDED,
                scope=self.contract,
                run=run,
                round=round,
                refs=refs,
                pub={
                    "point": self.point,
                    "outcome": "allow" if self.allow else "refuse",
                    "clauses": list(self.decision.clauses),
                    "decision": self.digest,
                },
            )
        )


def judge(
    contract: Contract, *, point: str, request: Request, state: ContractState, entropy: Entropy
) -> Judgement:
    """Evaluates a request; nothing is stored yet."""
    found = evaluate(contract, state, request)
    salt = entropy.token_bytes(_SALT_BYTES)
    record = decision_bytes(
        found, contract_digest=contract.digest, point=point, request=request, state=state, salt16=salt
    )
    return Judgement(
        contract=contract.digest,
        point=point,
        decision=found,
        request=canonical(request_to_json(request)),
        state=canonical(state_to_json(state)),
        salt=salt,
        record_bytes=record,
    )


def keep(
    session: Session, *, contract: str, point: str, record: bytes, request: bytes, state: bytes, salt: bytes
) -> None:
    """Stores what a decision was made from, a member's too; the same decision again changes nothing."""
    row = {
        "digest": digest(record),
        "contract": contract,
        "point": point,
        "bytes": record,
        "request": request,
        "salt": salt,
        "state": state,
    }
    insert_or_ignore(session, decision_table, row)
