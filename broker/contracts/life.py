# SPDX-License-Identifier: Apache-2.0
"""Notices about contracts: taken, kept, logged and made effective in one transaction.

    brought = lives.read(contract, member, notice, envelope)      # before the transaction: whose, and what
    done = lives.take(session, tx, brought)                       # row, entries and effects, or nothing

- What a notice means is decided by `policies.contract.lifecycle` alone, on the history that the log's entries
  give (`broker.contracts.history`). A void notice is kept and logged too, without an effect: its number, and
  that of the envelope behind its entry, would be missing otherwise. The caller is told why.
- The entry of a contributor's halt, resume, exit or rotation is its own envelope; the broker logs for itself,
  for the auditor, and for a rotation that the other contributors signed. Attestations and admissions have no
  entry; the audit bundle holds them.
- An exit is a decision at point ``broker``, recorded before its entry. If it ends the contract,
  ``contract.terminated`` follows in the same transaction.
- A rotation gives the organisation its new key: from the commit on its requests are signed by that one.
- Free text is shown to the contract's parties and to nobody else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import func, insert, select, update

from broker.contracts.decisions import judge
from broker.contracts.entries import end_event, entry_body
from broker.contracts.errors import NotPartyError
from broker.contracts.history import ENTRY_OF, FINALIZED
from broker.contracts.pools import pool_of_text
from broker.log.rotations import Rotations
from broker.membership.errors import AlreadyEnrolledError
from broker.membership.records import console_action
from broker.store.tables import candidate, contract_document, contract_notice, log_entry, organisation, run
from policies.contract import lifecycle
from policies.contract.errors import (
    NotExecutedError,
    NoticeEntitlementError,
    NoticeMalformedError,
    NoticeOrderError,
    RefusedError,
)
from policies.contract.lifecycle import absorb, contract_state, exit_request, key_of, life_view, too_early
from policies.contract.negotiation.pool import TERMINATED as CLOSED
from policies.contract.notices import Notice, read_notice, seal_notice
from policies.identity import key_id, key_text, parse_key
from policies.limits import CLOCK_SKEW_S
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError
from policies.ports import iso_s, to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.membership.directory import Member, Operator
    from broker.store import Session, Store
    from policies.contract import Contract
    from policies.contract.lifecycle import Life
    from policies.encoding import Json
    from policies.errors import IriaiError
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy

__all__ = ["Brought", "Lives", "Taken"]

TERM_OVER: Final = "term.over"
_OPEN: Final = ("released", "waiting")  # states of candidates, one tier of which may still wait


@dataclass(frozen=True, slots=True, kw_only=True)
class Brought:
    """A notice as it arrived, and the event that it becomes; its signature is checked when it is taken.

    Attributes:
        contract: That it is about.
        notice: Its content.
        envelope: The notice, signed.
        event: Entry of the member's own log envelope; None where the broker logs, or nothing is logged.
    """

    contract: Contract
    notice: Notice
    envelope: Envelope
    event: Event | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What became of a notice.

    Attributes:
        view: The life after it.
        indexes: Entries whose receipts the caller gets.
        refusal: Why it has no effect; None if it has.
        org: The organisation whose key changed, or None.
    """

    view: dict[str, Json]
    indexes: tuple[int, ...]
    refusal: IriaiError | None
    org: str | None = None


class Lives:
    """The service; see the module. Methods that take a session and a log are units of work of the writer."""

    def __init__(
        self, *, contracts: Contracts, store: Store, clock: Clock, entropy: Entropy, broker_key: SigningKey
    ) -> None:
        self._contracts = contracts
        self._store = store
        self._clock = clock
        self._entropy = entropy
        self._key = broker_key

    # --- reading ---

    def view(self, session: Session, contract: Contract) -> dict[str, Json]:
        """The life of a contract, and its notices in the order in which they were taken."""
        life = self._contracts.life(contract, session)
        rows = session.scalars(
            select(contract_notice.c.bytes)
            .where(contract_notice.c.contract == contract.digest)
            .order_by(contract_notice.c.at_ms)
        )
        said = [read_notice(Envelope.from_bytes(data).payload).to_json() for data in rows]
        ended = self._never_signed(session, contract) if life.finalized_at is None else {"closed": None}
        return {**life_view(contract, life, self._now()), **ended, "notices": said}

    def _never_signed(self, session: Session, contract: Contract) -> dict[str, Json]:
        """What the view says about a text that is not final: the end of its negotiation, if it has ended."""
        pool = pool_of_text(session, contract.digest)
        if pool is None or pool.state != CLOSED or pool.closed is None:
            return {"closed": None}
        of = (log_entry.c.type == EntryType.CONTRACT_TERMINATED.value) & (
            log_entry.c.scope == contract.digest
        )
        at_ms = session.scalar(select(func.max(log_entry.c.ts_ms)).where(of))
        ended = pool.closed
        return {
            "standing": lifecycle.TERMINATED,
            "since": None if at_ms is None else iso_s(at_ms),
            "closed": {
                "negotiation": pool.id,
                "round": pool.round,
                "party": ended.party or contract.broker.party,
                "code": ended.code,
                "clause": ended.clause,
            },
        }

    def notice_bytes(self, session: Session, contract: Contract, sha256: str) -> bytes:
        """The signed notice of a digest, with or without its prefix.

        Raises:
            NotPartyError: The contract has none.
        """
        name = sha256 if sha256.startswith("sha256:") else f"sha256:{sha256}"
        data = self._kept(session, contract, name)
        if data is None:
            raise NotPartyError(
                need="a notice about one of your contracts",
                found=ascii(sha256)[1:-1][:80],
                remedy="contract status lists them",
            )
        return data

    def waiting_candidates(self, session: Session, contract: Contract) -> tuple[str, ...]:
        """Candidates of the contract with a tier that may wait at the gate: it looks at them again."""
        of = (run.c.contract == contract.digest) & candidate.c.state.in_(_OPEN)
        return tuple(
            session.scalars(
                select(candidate.c.digest)
                .join(run, run.c.run_id == candidate.c.run_id)
                .where(of)
                .order_by(candidate.c.digest)
            ).all()
        )

    def all_waiting(self, session: Session) -> tuple[str, ...]:
        """Candidates of whatever contract with a tier that may wait at the gate."""
        of = candidate.c.state.in_(_OPEN)
        return tuple(session.scalars(select(candidate.c.digest).where(of).order_by(candidate.c.digest)))

    # --- a member's notice ---

    def read(
        self, contract: Contract, member: Member, notice: Envelope, envelope: Envelope | None
    ) -> Brought:
        """A notice and its log envelope, before any transaction.

        1. the notice's form; 2. it is about this contract, made not later than now; 3. its party brings it;
        anybody may bring a rotation; 4. the log envelope: there where it must be, by this member, saying what
        the notice says.

        Raises:
            NoticeMalformedError: Steps 1, 2, and an envelope too many or too few.
            NoticeEntitlementError: Step 3.
            SignatureInvalidError, MemberEnvelopeError: Step 4.
        """
        # 1.
        said = read_notice(notice.payload)
        # 2.
        if said.contract != contract.digest:
            raise _malformed(f"a notice about {contract.digest}", said.contract)
        if to_ms(said.at) > self._clock.now_ms() + CLOCK_SKEW_S * 1000:
            raise _malformed(f"a time up to {self._now()}", f"{said.at}: set the clocks (NTP)")
        # 3.
        party = self._contracts.party_of(contract, member)
        if said.party != party.party and said.kind != "rotate":
            raise NoticeEntitlementError(
                need=f"a notice of {party.party}",
                found=f"one of {said.party}",
                remedy="let each party send its own notices",
                clause=party.clause,
            )
        # 4.
        own = said.party == party.party and party.role == "contributor" and said.kind in ENTRY_OF
        if own != (envelope is not None):
            raise _malformed("the log envelope of a contributor's own notice, and only there", "the opposite")
        event = None if envelope is None else self._event(contract, member, said, envelope)
        return Brought(contract=contract, notice=said, envelope=notice, event=event)

    def _event(self, contract: Contract, member: Member, said: Notice, envelope: Envelope) -> Event:
        payload = open_envelope(envelope, self._sealer(contract, member, said, envelope))
        kind = ENTRY_OF[said.kind]
        header = (payload["kind"], payload["scope"], payload["run"], payload["round"])
        body = entry_body(contract, self._contracts.life(contract), said)
        if header != (kind.value, contract.digest, None, None) or payload["body"] != body:
            raise MemberEnvelopeError(
                need=f"{kind.value} of {contract.digest} that says what the notice says",
                found="another envelope",
                remedy="send it with iriai-node contract halt, resume or exit",
            )
        return from_envelope(envelope, payload, actor=alias(member.alias_key, contract.digest, None, None))

    def _sealer(self, contract: Contract, member: Member, said: Notice, envelope: Envelope) -> bytes:
        """Whose key an envelope must have: the member's; of a rotation also the one that is given up.

        The first of an organisation's contracts to hear of a rotation changes the key of its requests. The
        others hear of it under the new key, by envelopes that the old one sealed.
        """
        old = key_of(contract, self._contracts.life(contract), said.party)
        if said.kind != "rotate" or old is None or not envelope.signed_by(parse_key(old)):
            return member.key
        return parse_key(old)

    def take(self, session: Session, tx: LogTx, brought: Brought) -> Taken:
        """Keeps a notice, logs it and makes it effective; the same notice again changes nothing.

        Raises:
            NotExecutedError: The contract is not final: nothing is kept.
            NoticeMalformedError: It is dated before the contract was final.
            NoticeOrderError: Its number is used by another notice, one before it is missing, or one that is
                dated later.
            SignatureInvalidError: The key in force of its party has not signed it.
            AlreadyEnrolledError: The new key of a rotation is somebody's.
        """
        contract, said = brought.contract, brought.notice
        if self._kept(session, contract, said.digest) is not None:
            return self._again(session, tx, brought)
        before = self._contracts.life(contract, session)
        if before.finalized_at is None:
            raise NotExecutedError(
                need="a contract that everybody signed", found="an offer", remedy="refuse the offer instead"
            )
        if too_early(before, said):
            raise _malformed(f"a time from {before.finalized_at} on, when the contract was final", said.at)
        after, _, refusal = absorb(contract, before, brought.envelope)
        rotates = said.kind == "rotate" and refusal is None
        org = self._rotate(session, brought, before, after) if rotates else None
        if said.kind == "exit" and (refusal is None or isinstance(refusal, RefusedError)):
            self._judge_exit(session, tx, contract, before, said)
        self._keep(session, tx, brought.envelope, said)
        event = brought.event or self._own_event(contract, before, said)
        index = None if event is None else tx.add(event)
        if after.terminated is not None and before.terminated is None and index is not None:
            tx.add(end_event(contract, EntryType.CONTRACT_TERMINATED, *after.terminated, refs=(index,)))
        indexes = (index,) if index is not None and brought.event is not None else ()
        return Taken(view=self._view_of(contract, after, said), indexes=indexes, refusal=refusal, org=org)

    def _again(self, session: Session, tx: LogTx, brought: Brought) -> Taken:
        """A notice that is kept: its entry is there, and the log names each notice once.

        Raises:
            NoticeOrderError: Under another envelope than its entry's: nothing is kept of it.
        """
        index = None if brought.event is None else tx.known(brought.event)
        if brought.event is not None and index is None:
            raise NoticeOrderError(
                need="the envelope that this notice was logged with",
                found="a fresh one",
                remedy="send the same bytes again; was the node's outbox restored from a copy?",
            )
        life = self._contracts.life(brought.contract, session)
        view = self._view_of(brought.contract, life, brought.notice)
        return Taken(view=view, indexes=() if index is None else (index,), refusal=None)

    def _judge_exit(self, session: Session, tx: LogTx, contract: Contract, life: Life, said: Notice) -> None:
        judgement = judge(
            contract,
            point="broker",
            request=exit_request(contract, life, said),
            state=contract_state(contract, life, said.at),
            entropy=self._entropy,
        )
        judgement.record(session, tx)

    def _rotate(self, session: Session, brought: Brought, before: Life, after: Life) -> str | None:
        """Gives the party's organisation its new key, if it does not have it yet; gives the organisation.

        1. it is no broker; 2. the new key is nobody else's, and was given up by nobody; 3. the organisation
        has it already, by another contract, or still has the key that this contract knows: who found a key
        that was given up elsewhere cannot give it another successor here.

        Raises:
            NoticeEntitlementError: Step 1: the broker's key is not changed by a notice. Step 3.
            AlreadyEnrolledError: Step 2.
        """
        contract, said = brought.contract, brought.notice
        party = contract.party(said.party)
        if party is None or party.role == "broker":
            raise NoticeEntitlementError(
                need="a contributor or an auditor",
                found="the broker, which signs by the key that it was started with",
                remedy="make a successor contract that pins the broker's new key",
                clause=contract.amendment.clause,
            )
        raw = parse_key(after.rotated[said.party])
        new = key_text(raw)
        holder = session.scalar(select(organisation.c.org_id).where(organisation.c.node_key == new))
        if holder not in (None, party.org) or Rotations.read(session).gave_up(key_id(raw)):
            raise AlreadyEnrolledError(
                need="a key that is new here", found="one that is enrolled", remedy="make a new key pair"
            )
        if holder == party.org:
            return None
        present = session.scalar(select(organisation.c.node_key).where(organisation.c.org_id == party.org))
        if present != key_of(contract, before, said.party):
            raise NoticeEntitlementError(
                need=f"the key that {party.party} changed to in its other contracts",
                found="another new key, in the place of one that was given up there",
                remedy="iriai-node key rotate says one new key in every contract",
                clause=party.clause,
            )
        session.execute(update(organisation).where(organisation.c.org_id == party.org).values(node_key=new))
        return party.org

    def _own_event(self, contract: Contract, life: Life, said: Notice) -> Event | None:
        """The broker's entry about a notice that no contributor's envelope stands behind."""
        kind = ENTRY_OF.get(said.kind)
        if kind is None:
            return None
        body = dict(entry_body(contract, life, said))
        private = {"vkey": body.pop("vkey")} if "vkey" in body else {}
        return Event(type=kind, scope=contract.digest, pub=body, private=private)

    # --- the broker's own ---

    def halt(
        self,
        session: Session,
        tx: LogTx,
        *,
        contract: Contract,
        operator: Operator,
        code: str,
        clause: str | None,
        text: str | None,
        request: str,
    ) -> dict[str, Json]:
        """Stops a contract by a notice of the broker's own.

        Raises:
            NotExecutedError: The contract is not final.
            NoticeMalformedError: A field breaks its rule.
            LifecycleError: The contract has ended.
            NoticeEntitlementError: The contract does not let the broker halt.
        """
        life, party = self._contracts.life(contract, session), contract.broker.party
        said = Notice(
            kind="halt",
            contract=contract.digest,
            party=party,
            seq=life.next_seq(party),
            at=life.next_at(party, self._now()),
            code=code,
            clause=clause,
            text=text,
        )
        envelope = seal_notice(said, self._key)
        brought = Brought(contract=contract, notice=said, envelope=envelope, event=None)
        taken = self.take(session, tx, brought)
        if taken.refusal is not None:
            raise taken.refusal  # nothing of it is kept: the broker's own numbers are its own affair
        tx.add(console_action(operator, "contract.halt", subject=contract.digest, request=request))
        return taken.view

    # --- the end of the term ---

    def unlogged_ends(self, session: Session) -> tuple[str, ...]:
        """Digests of contracts whose term is over while no entry says so."""
        kind = log_entry.c.type == EntryType.CONTRACT_EXPIRED.value
        logged = set(session.scalars(select(log_entry.c.scope).where(kind)))
        final = select(contract_document.c.digest).where(contract_document.c.state == FINALIZED)
        names = session.scalars(final.order_by(contract_document.c.digest)).all()
        return tuple(
            name
            for name in names
            if name not in logged
            and self._contracts.standing(self._contracts.get(name), session) == lifecycle.EXPIRED
        )

    def note_expired(self, session: Session, tx: LogTx) -> int:
        """Logs the end of every contract whose term is over; gives how many were logged."""
        ends = self.unlogged_ends(session)
        for name in ends:
            contract = self._contracts.get(name)
            tx.add(end_event(contract, EntryType.CONTRACT_EXPIRED, TERM_OVER, contract.term.clause))
        return len(ends)

    # --- rows ---

    def _kept(self, session: Session, contract: Contract, name: str) -> bytes | None:
        of = (contract_notice.c.digest == name) & (contract_notice.c.contract == contract.digest)
        data: bytes | None = session.scalar(select(contract_notice.c.bytes).where(of))
        return data

    def _keep(self, session: Session, tx: LogTx, envelope: Envelope, said: Notice) -> None:
        """Stores a notice; times of one contract's notices only grow, so that they show the order."""
        last = session.scalar(
            select(func.max(contract_notice.c.at_ms)).where(contract_notice.c.contract == said.contract)
        )
        session.execute(
            insert(contract_notice).values(
                digest=said.digest,
                contract=said.contract,
                kind=said.kind,
                party=said.party,
                seq=said.seq,
                refers=said.refers,
                bytes=envelope.to_bytes(),
                at_ms=max(tx.now_ms, (last or 0) + 1),
            )
        )

    def _view_of(self, contract: Contract, life: Life, said: Notice) -> dict[str, Json]:
        """The answer to a notice: the life after it, and its own digest; the others are not listed again."""
        return {**life_view(contract, life, self._now()), "notice": said.digest}

    def _now(self) -> str:
        return iso_s(self._clock.now_ms())


def _malformed(need: str, found: str) -> NoticeMalformedError:
    return NoticeMalformedError(
        need=need, found=ascii(found)[1:-1][:120], remedy="send it with iriai-node contract"
    )
