# SPDX-License-Identifier: Apache-2.0
"""Successors: how one is opened, and the moment at which it takes effect.

    opened (Join "open")  ->  final, by all or as a tightening  ->  its term begins (Join "effect")
                                                                 ->  contract.amended, or void

- Opening and taking effect are decisions of the contract that rules (`Join`, point ``broker``), recorded
  before what they permit; a refused one is recorded too, and nothing else happens.
- A successor takes effect when its term begins, in one transaction: the decision, ``contract.amended``, and
  candidates that wait go over to it. Until then its predecessor rules, and nothing happens under it. One that
  the predecessor refuses then never takes effect (state ``void``).
- Runs go over to it by themselves, at their next round (`broker.federation.moving`).

How a contributor tightens a contract alone is in `broker.contracts.tightening`.

    refusal = amendments.opening(session, tx, contract, by=None)        # a unit of work of the writer
    for name in amendments.due(session, tx.now_ms):
        amendments.take_effect(session, tx, name)
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import select, update

from broker.contracts.decisions import judge
from broker.contracts.errors import OfferConflictError
from broker.contracts.service import FINALIZED, VERDICT, VOID, state_of
from broker.store.tables import candidate, contract_annex, contract_document, log_entry, run
from policies.contract.amendment.succession import check_succession
from policies.contract.entering import (
    CHANGE,
    EFFECT,
    OPEN,
    TIGHTEN,
    dropped,
    is_executed,
    join_request,
    moment,
    who_signed,
)
from policies.contract.errors import RefusedError
from policies.encoding import digest
from policies.errors import invariant
from policies.log.entries import EntryType, Event
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.contracts.decisions import Judgement
    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract
    from policies.ports import Entropy

__all__ = ["Amendments", "refusal_of"]

_WAITS: Final = ("released", "waiting")  # states of candidates, one tier of which may still wait


class Amendments:
    """The service; see the module. Methods that take a session and a log are units of work of the writer."""

    def __init__(self, *, contracts: Contracts, entropy: Entropy) -> None:
        self._contracts = contracts
        self._entropy = entropy

    # --- before it is negotiated ---

    def opening(
        self, session: Session, tx: LogTx, contract: Contract, *, by: str | None = None
    ) -> RefusedError | None:
        """Asks the contract that rules whether this successor may be negotiated; records what it says.

        A first version needs nobody's leave.

        Args:
            session: Of the transaction.
            tx: Likewise.
            contract: The text that would be put to its contributors.
            by: Short name of who asks for it; the broker if left out.

        Returns:
            The refusal, with its clause; None if it may.

        Raises:
            NotASuccessorError: It does not follow the contract that it names.
            OfferConflictError: That contract is not here, or not final.
        """
        if contract.supersedes is None:
            return None
        old = self._ruling(session, contract)
        found = self.judged(session, old, contract, stage=OPEN, kind=CHANGE, party=by)
        found.record(session, tx)
        return refusal_of(found) or self._never(session, old, contract)

    def _ruling(self, session: Session, contract: Contract) -> Contract:
        named = str(contract.supersedes)
        if state_of(session, named) != FINALIZED:
            raise OfferConflictError(
                need=f"a successor of a final contract of {contract.contract_id}",
                found=f"superseding {named}",
                remedy="give the text the next version and the digest of the one in force",
            )
        old = self._contracts.read_in(session, named)
        check_succession(old, contract)
        return old

    def _never(self, session: Session, old: Contract, new: Contract) -> RefusedError | None:
        """What the contract that rules would refuse even if all parties of the successor signed it."""
        left_out = dropped(old, new, self._contracts.life(old, session))
        if left_out:
            return RefusedError(
                need="every contributor that gave no notice of exit",
                found="without " + " ".join(left_out),
                remedy="who leaves gives notice of exit; then offer the successor without it",
                clause=old.amendment.clause,
            )
        everybody = (*(one.party for one in new.contributors), new.broker.party)
        signed = tuple(sorted(name for name in everybody if old.party(name) is not None))
        return refusal_of(self.judged(session, old, new, stage=EFFECT, kind=CHANGE, signed=signed))

    def judged(
        self,
        session: Session,
        old: Contract,
        new: Contract,
        *,
        stage: str,
        kind: str,
        party: str | None = None,
        signed: tuple[str, ...] = (),
    ) -> Judgement:
        """The answer of the contract that rules; nothing is stored. A tightening was proven before."""
        state = self._contracts.state(old, session)
        request = join_request(
            old,
            new,
            self._contracts.life(old, session),
            stage=stage,
            kind=kind,
            party=party,
            proven=kind == TIGHTEN,
            signed=signed,
        )
        state = moment(new, state) if stage == EFFECT else state
        return judge(old, point="broker", request=request, state=state, entropy=self._entropy)

    # --- when its term begins ---

    def due(self, session: Session, now_ms: int) -> tuple[str, ...]:
        """Final successors whose term has begun and that do not rule yet, oldest versions first."""
        return tuple(name for name, at_ms in self._waiting(session) if at_ms <= now_ms)

    def nearest_ms(self, session: Session) -> int | None:
        """When the next one takes effect; None if none waits."""
        return min((at_ms for _, at_ms in self._waiting(session)), default=None)

    def _waiting(self, session: Session) -> list[tuple[str, int]]:
        columns = (contract_document.c.digest, contract_document.c.supersedes)
        final = (contract_document.c.state == FINALIZED) & contract_document.c.supersedes.is_not(None)
        rows = session.execute(select(*columns).where(final).order_by(contract_document.c.version)).all()
        ruling = _in_effect(session, (row.supersedes for row in rows)) if rows else frozenset()
        return [
            (row.digest, to_ms(self._contracts.read_in(session, row.digest).term.effective))
            for row in rows
            if row.digest not in ruling
        ]

    def take_effect(self, session: Session, tx: LogTx, name: str) -> tuple[Contract, Contract] | None:
        """Lets a successor rule from now on, or finds that it never can.

        Returns:
            The predecessor and the successor if it rules now; None if it never will, or did already.
        """
        if name not in self.due(session, tx.now_ms):
            return None
        new = self._contracts.read_in(session, name)
        old = self._contracts.read_in(session, str(new.supersedes))
        envelope = self._contracts.envelope(session, new)
        proof = None if is_executed(new, envelope) else _verdict(session, new)
        found = self.judged(
            session,
            old,
            new,
            stage=EFFECT,
            kind=CHANGE if proof is None else TIGHTEN,
            party=None if proof is None else str(json.loads(proof)["initiator"]),
            signed=who_signed(old, new, envelope, self._contracts.life(old, session).rotated),
        )
        found.record(session, tx)
        if not found.allow:
            of = contract_document.c.digest == name
            session.execute(update(contract_document).where(of).values(state=VOID))
            return None
        tx.add(
            Event(
                type=EntryType.CONTRACT_AMENDED,
                scope=old.digest,
                pub={
                    "old": old.digest,
                    "new": new.digest,
                    "kind": CHANGE if proof is None else TIGHTEN,
                    "proof": None if proof is None else digest(proof),
                },
            )
        )
        _move_candidates(session, old, new)
        return old, new


def refusal_of(judgement: Judgement) -> RefusedError | None:
    """Why a decision does not allow what was asked; None if it does."""
    try:
        judgement.decision.require()
    except RefusedError as error:
        return error
    return None


def _verdict(session: Session, new: Contract) -> bytes:
    where = (contract_annex.c.contract == new.digest) & (contract_annex.c.sha256 == VERDICT)
    data: bytes | None = session.scalar(select(contract_annex.c.bytes).where(where))
    invariant(data is not None, "a final contract that not everybody signed has its verdict")
    return data or b""


def _in_effect(session: Session, scopes: Iterable[str]) -> frozenset[str]:
    """Successors of these contracts that have taken effect, by the log."""
    kind = log_entry.c.type == EntryType.CONTRACT_AMENDED.value
    of = log_entry.c.scope.in_(tuple(scopes))
    bodies = session.scalars(select(log_entry.c.body).where(kind & of))
    return frozenset(str(json.loads(body)["pub"]["new"]) for body in bodies)


def _move_candidates(session: Session, old: Contract, new: Contract) -> None:
    """Candidates of closed runs, with a tier that may wait, go over: what is released is new work."""
    listed = tuple(one.recipe_digest for one in new.recipes)
    waiting = select(candidate.c.run_id).where(candidate.c.state.in_(_WAITS))
    closed = run.c.outcome.is_not(None) & run.c.recipe_digest.in_(listed)
    mine = (run.c.contract == old.digest) & run.c.run_id.in_(waiting)
    session.execute(update(run).where(mine & closed).values(contract=new.digest))
