# SPDX-License-Identifier: Apache-2.0
"""What takes two people, for the API and the console alike: `services.acts`.

    outcome = services.acts.propose(session, tx, "org.remove", {...}, operator, request)
    outcome = services.acts.approve(session, tx, id, operator, request, digest=seen, evidence=check)
    outcome = services.acts.refuse(session, tx, id, operator, request, reason="not-agreed")
    for step in outcome.after: step()                     # after the commit

All three are units of work of the writer: proposal, effect and log entries are one transaction.

`propose`: 1. the person is an operator; 2. the act exists and is asked with what it needs; 3. it could happen
now; 4. the same is not proposed already; 5. it is kept, and logged as ``proposal.open``.

`approve`: 1. the person is an operator or an approver; 2. the proposal counts with them
(`broker.auth.proposals.approve`), by evidence of their own; 3. whoever stands behind it is in force, and the
subject is made again from the database: other bytes make the proposal void, which is stored; 4. kept; 5. with
two people: a ``console.action`` of each of them, named like the act and about the digest of the subject, and
then the effect.

- An outcome with a `refusal` did nothing but end the proposal: it is to be committed, then told.
- Operators also have a key file: who acts by it, and who is logged in, are one person by their name.
- A text under negotiation is proposed by whoever offers it. One that a contributor put (a counter-offer, a
  successor that it opened) was proposed by nobody of the broker: then two people have to approve it.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.acts.contracts import ACTIVATE, activation
from broker.acts.kinds import Act, Doing
from broker.acts.organisations import removal, restoration
from broker.acts.people import addition
from broker.acts.witnesses import witness_addition, witness_removal
from broker.auth.errors import EvidenceError
from broker.auth.people import find_person
from broker.auth.proposal_errors import (
    ProposalExpiredError,
    ProposalKindError,
    ProposalOpenError,
    ProposalRoleError,
    ProposalVoidError,
)
from broker.auth.proposals import (
    Evidence,
    Outcome,
    Proposal,
    Proposals,
    State,
    approve,
    expired,
    propose,
    refuse,
    subject_of,
    void,
)
from broker.membership.directory import ACTIVE, Operator
from broker.membership.records import console_action
from broker.store import tables
from policies.encoding import digest_of, new_id
from policies.errors import IriaiError
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auth.proposals import Check
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["Acts"]

OPERATOR: Final = "operator"
APPROVERS: Final = frozenset({OPERATOR, "approver"})
_ID_BYTES: Final = 10
_PARTY: Final = "party:"  # before the short name of a contributor; people's names have no colon


class Acts:
    """The service; see the module."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self.proposals = Proposals()
        self._acts: dict[str, Act] = {}
        for act in (
            activation(services),
            removal(services),
            restoration(services),
            witness_addition(services),
            witness_removal(services),
            addition(services),
        ):
            self.register(act)
        services.negotiations.book.on_countered = self._countered
        services.negotiations.book.on_closed = self._closed

    def register(self, act: Act) -> None:
        """Makes a kind of act known."""
        self._acts[act.kind] = act

    @property
    def kinds(self) -> tuple[str, ...]:
        """Names of everything that takes two people."""
        return tuple(sorted(self._acts))

    # --- one word each ---

    def propose(  # noqa: PLR0917  one order for all three, as everybody calls them
        self,
        session: Session,
        tx: LogTx,
        kind: str,
        payload: Mapping[str, Json],
        operator: Operator,
        request: str,
        *,
        evidence: Check | None = None,
    ) -> Outcome:
        """Proposes an act; see the module.

        Args:
            session: Of the transaction.
            tx: Of the transaction.
            kind: Of the act.
            payload: What it is asked with.
            operator: Who proposes.
            request: Digest of the request, for the log.
            evidence: That this person wants it; without one, the signed request is the evidence.

        Raises:
            ProposalRoleError: Step 1.
            ProposalKindError: Step 2.
            IriaiError: Step 3, as the act's own service refuses it.
            ProposalOpenError: Step 4.
        """
        # 1.
        self._check_role(session, operator, frozenset({OPERATOR}))
        # 2.
        act = self._act(kind)
        act.check(payload)
        # 3.
        facts = act.facts(session, tx, payload)
        # 4.
        self._check_not_open(session, tx, kind, payload)
        # 5.
        made = self._make(
            tx, act, payload, facts, proposer=operator.name, evidence=evidence or _by_request(request)
        )
        self.proposals.keep(session, made)
        tx.add(console_action(operator, "proposal.open", subject=made.digest, request=request))
        return Outcome(proposal=made)

    def approve(
        self,
        session: Session,
        tx: LogTx,
        name: str,
        operator: Operator,
        request: str,
        *,
        digest: str,
        evidence: Check,
    ) -> Outcome:
        """Approves a proposal, and lets it happen if that makes two; see the module.

        Args:
            session: Of the transaction.
            tx: Of the transaction.
            name: Id of the proposal.
            operator: Who approves.
            request: Digest of the request, for the log.
            digest: Of the subject that this person saw.
            evidence: Gives what proves their word over the subject's bytes, or raises.

        Raises:
            ProposalRoleError: Step 1.
            ProposalError, IriaiError: Step 2.
        """
        # 1.
        self._check_role(session, operator, APPROVERS)
        # 2.
        found = self.proposals.find(session, name)
        late = expired(found, tx.now_ms)
        if late is not found:
            return self._expire(session, late, tx.now_ms)
        _check_own(operator, evidence)
        grown = approve(found, operator.name, digest=digest, evidence=evidence, now_ms=tx.now_ms)
        # 3.
        why = self._changed(session, tx, found)
        if why is not None:
            return self._void(session, tx, found, operator, request=request, why=why)
        # 4.
        self.proposals.keep(session, grown)
        if grown.state is not State.APPROVED:
            tx.add(console_action(operator, "proposal.approve", subject=grown.digest, request=request))
            return Outcome(proposal=grown)
        # 5.
        return self._do(session, tx, grown, operator, request)

    def refuse(
        self, session: Session, tx: LogTx, name: str, operator: Operator, request: str, *, reason: str
    ) -> Outcome:
        """Ends a proposal; one person is enough, also the one who proposed it.

        Raises:
            ProposalRoleError: Neither an operator nor an approver.
            ProposalUnknownError, ProposalClosedError: Nothing is open under this id.
        """
        self._check_role(session, operator, APPROVERS)
        found = self.proposals.find(session, name)
        late = expired(found, tx.now_ms)
        if late is not found:
            return self._expire(session, late, tx.now_ms)
        done = refuse(found, operator.name, why=reason, now_ms=tx.now_ms)
        self.proposals.keep(session, done)
        tx.add(console_action(operator, "proposal.refuse", subject=done.digest, request=request))
        return Outcome(proposal=done)

    # --- texts under negotiation ---

    def offered(
        self, session: Session, tx: LogTx, contract: str, *, by: Operator | str, request: str
    ) -> Proposal | None:
        """Proposes the activation of a text that was put to its contributors.

        Offering it again proposes it again, if the first proposal is over.

        Args:
            session: Of the transaction.
            tx: Of the transaction; the offer itself is the entry.
            contract: Digest of the text.
            by: The operator who offers it, or the short name of the contributor that put it.
            request: Digest of the request, the offerer's evidence.

        Returns:
            The proposal that waits now; None if nothing does, because the text is approved or final.
        """
        act, payload = self._acts[ACTIVATE], {"contract": contract}
        waiting = self._open_of(session, tx, ACTIVATE, payload)
        if waiting is not None:
            return waiting
        pool = self._services.negotiations.open_of_text(session, contract)
        if pool is None or pool.approved:
            return None
        name = by.name if isinstance(by, Operator) else _PARTY + by
        evidence = _by_request(request) if isinstance(by, Operator) else None
        made = self._make(tx, act, payload, act.facts(session, tx, payload), proposer=name, evidence=evidence)
        self.proposals.keep(session, made)
        return made

    def _countered(self, session: Session, tx: LogTx, old: str, new: str) -> None:
        """Another text took the place of a proposed one: nobody of the broker stands behind it yet."""
        earlier = self.proposals.of(session, ACTIVATE, {"contract": old})
        self._closed(session, tx, old)
        if not earlier:
            return
        act, payload = self._acts[ACTIVATE], {"contract": new}
        facts = act.facts(session, tx, payload)
        made = self._make(tx, act, payload, facts, proposer=earlier[0].proposer, evidence=None)
        self.proposals.keep(session, made)

    def _closed(self, session: Session, tx: LogTx, contract: str) -> None:
        """A text is not open any more: what would have made it final is void."""
        for one in self.proposals.of(session, ACTIVATE, {"contract": contract}):
            if one.state is State.PROPOSED:
                self.proposals.keep(session, void(one, why="text-not-open", now_ms=tx.now_ms))

    # --- steps ---

    def role_of(self, session: Session, name: str) -> str | None:
        """Role of a person in force; of somebody who has a key file alone, operator."""
        person = find_person(session, name)
        if person is not None:
            return person.role if person.active else None
        mine = (tables.operator.c.name == name) & (tables.operator.c.state == ACTIVE)
        known = session.scalar(select(tables.operator.c.name).where(mine))
        return None if known is None else OPERATOR

    def _check_role(self, session: Session, operator: Operator, roles: frozenset[str]) -> None:
        role = self.role_of(session, operator.name)
        if role not in roles:
            raise ProposalRoleError(
                need="a person whose role is " + " or ".join(sorted(roles)),
                found=role or "none in force",
                remedy="ask an operator of this broker",
            )

    def _act(self, kind: str) -> Act:
        found = self._acts.get(kind)
        if found is None:
            raise ProposalKindError(
                need="one of " + ", ".join(self.kinds),
                found=ascii(kind)[1:-1][:60],
                remedy="what one person may do alone has its own command",
            )
        return found

    def _open_of(
        self, session: Session, tx: LogTx, kind: str, payload: Mapping[str, Json]
    ) -> Proposal | None:
        same = self.proposals.of(session, kind, payload)
        return next((one for one in same if one.at(tx.now_ms) is State.PROPOSED), None)

    def _check_not_open(self, session: Session, tx: LogTx, kind: str, payload: Mapping[str, Json]) -> None:
        other = self._open_of(session, tx, kind, payload)
        if other is not None:
            raise ProposalOpenError(
                need="something that is not proposed yet",
                found=f"{other.id} by {other.proposer}, until {iso_s(other.expires_ms)}",
                remedy="look at it and approve it: "
                f"iriai-broker proposal approve {other.id} --dir DIR --key FILE",
            )

    def _make(
        self,
        tx: LogTx,
        act: Act,
        payload: Mapping[str, Json],
        facts: Mapping[str, Json],
        *,
        proposer: str,
        evidence: Check | None,
    ) -> Proposal:
        return propose(
            id=new_id("prop", self._services.entropy.token_bytes(_ID_BYTES)),
            kind=act.kind,
            log=self._services.writer.origin,
            facts=facts,
            payload=payload,
            proposer=proposer,
            now_ms=tx.now_ms,
            evidence=evidence,
        )

    def _changed(self, session: Session, tx: LogTx, found: Proposal) -> str | None:
        """Why a proposal cannot happen as it says any more; None if it can."""
        if any(self.role_of(session, one) not in APPROVERS for one in found.names):
            return "person-not-in-force"
        payload: dict[str, Any] = json.loads(found.payload)
        try:
            facts = self._act(found.kind).facts(session, tx, payload)
        except IriaiError as error:
            return error.code
        now = subject_of(
            id=found.id,
            kind=found.kind,
            log=self._services.writer.origin,
            facts=facts,
            proposer=found.proposer,
        )
        return None if now == found.subject else "subject-changed"

    def _void(
        self, session: Session, tx: LogTx, found: Proposal, operator: Operator, *, request: str, why: str
    ) -> Outcome:
        done = void(self.proposals.find(session, found.id), why=why, now_ms=tx.now_ms)
        self.proposals.keep(session, done)
        tx.add(console_action(operator, found.kind, subject=done.digest, request=request, result="refused"))
        refusal = ProposalVoidError(
            need=f"a world in which {done.digest} can happen as it says",
            found=f"another one: {done.why}",
            remedy="look what changed; if it is still wanted, propose it again",
        )
        return Outcome(proposal=done, refusal=refusal)

    def _expire(self, session: Session, late: Proposal, now_ms: int) -> Outcome:
        self.proposals.keep(session, late)
        refusal = ProposalExpiredError(
            need=f"a word before {iso_s(late.expires_ms)}", found=iso_s(now_ms), remedy="propose it again"
        )
        return Outcome(proposal=late, refusal=refusal)

    def _do(
        self, session: Session, tx: LogTx, approved: Proposal, operator: Operator, request: str
    ) -> Outcome:
        """Logs the word of each of the two, then lets it happen."""
        for name in approved.names:
            said = request if name == operator.name else digest_of([request, name])
            person = Operator(name=name, key=b"", active=True)
            tx.add(console_action(person, approved.kind, subject=approved.digest, request=said))
        doing = Doing(
            proposal=approved,
            payload=json.loads(approved.payload),
            operator=operator,
            request=digest_of([request, approved.id]),
        )
        done = self._act(approved.kind).effect(session, tx, doing)
        return Outcome(proposal=approved, result=done.result, after=done.after)


def _check_own(operator: Operator, evidence: Check) -> None:
    """Refuses the word of somebody else (`broker.auth.confirming.Confirmed` says whose it is)."""
    whose = getattr(evidence, "name", operator.name)
    if whose != operator.name:
        raise EvidenceError(
            need=f"the word of {operator.name}", found=f"that of {whose}", remedy="confirm it yourself"
        )


def _by_request(request: str) -> Callable[[bytes], Evidence]:
    """The proposer's evidence: the request that asked for it, which they signed, by its digest."""
    return lambda _subject: Evidence(how="request", data=request.encode("ascii"))
