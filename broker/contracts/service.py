# SPDX-License-Identifier: Apache-2.0
"""Contracts from offer to FINALIZED, and what the rest of the broker asks about them.

    offered  --every contributor signs before sign_by; the broker signs in the same transaction-->  finalized

- One offer that all sign; counter-offers are a later version's.
- A contract is its canonical bytes. What an operator sends is read once, strictly; what is stored, handed
  out and signed are the bytes.
- The recipes travel as annexes; their bytes hash to the digests in the contract, or nothing is stored.
- Contributors are active members with exactly the pinned key, organisation, name, country and group; the
  broker's key is ours.
- For who is no party, a contract does not exist.
- FINALIZED is one transaction: the last contributor's signature, the broker's, the state and both entries,
  or none of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select, update

from broker.contracts.errors import (
    AnnexMismatchError,
    AnnexMissingError,
    DeadlineError,
    NotPartyError,
    OfferConflictError,
    PartyMismatchError,
)
from broker.membership.directory import Directory, Member, Operator
from broker.membership.service import console_action
from broker.store.tables import contract_annex, contract_document, contract_signature
from policies.contract import CONTRACT_TYPE, Contract, ContractState, executed, load, parse
from policies.encoding import Json, b64, digest, unb64
from policies.errors import IriaiError, invariant
from policies.identity import SigningKey, key_text, parse_key
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError
from policies.ports import iso_s
from policies.recipe import load as load_recipe
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.log import LogTx
    from broker.store import Session, Store
    from policies.contract.clauses import PartyClause
    from policies.ports import Clock

__all__ = ["FINALIZED", "OFFERED", "Contracts", "Seat"]

OFFERED: Final = "offered"
FINALIZED: Final = "finalized"
_SIGNED: Final = "signed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Seat:
    """A contributor of a contract and the enrolled member behind its pinned key."""

    party: str
    member: Member


class Contracts:
    """The service; see the module for its rules. Parsed contracts are kept by digest; they cannot change."""

    def __init__(self, *, store: Store, clock: Clock, directory: Directory, broker_key: SigningKey) -> None:
        self._store = store
        self._clock = clock
        self._directory = directory
        self._key = broker_key
        self._parsed: dict[str, Contract] = {}

    # --- what others ask ---

    def get(self, contract: str) -> Contract:
        """The contract of a digest.

        Raises:
            NotPartyError: None here.
        """
        found = self._parsed.get(contract)
        if found is None:
            with self._store.read() as session:
                data = session.scalar(
                    select(contract_document.c.bytes).where(contract_document.c.digest == contract)
                )
            if data is None:
                raise _no_contract(contract)
            found = parse(data)
            invariant(found.digest == contract, "a stored contract has the digest that it is stored under")
            self._parsed[contract] = found
        return found

    def for_caller(self, contract: str, caller: Member | Operator) -> Contract:
        """The contract, if the caller is one of its parties or an operator.

        Raises:
            NotPartyError: There is none, or the caller is no party: the two look the same.
        """
        found = self.get(contract)
        if isinstance(caller, Member):
            self.party_of(found, caller)
        return found

    def party_of(self, contract: Contract, member: Member) -> PartyClause:
        """The party whose pinned key the member holds.

        Raises:
            NotPartyError: None.
        """
        found = contract.party_of_key(key_text(member.key))
        if found is None:
            raise _no_contract(contract.digest)
        return found

    def seats(self, contract: Contract) -> tuple[Seat, ...]:
        """Every contributor with the active member behind it; who was revoked is left out."""
        seats = []
        for one in contract.contributors:
            member = self._directory.holder(parse_key(one.key))
            if member is not None and member.active:
                seats.append(Seat(party=one.party, member=member))
        return tuple(seats)

    def member_of(self, contract: Contract, party: str) -> Member:
        """The enrolled member behind a contributor, active or not.

        Raises:
            NotPartyError: No such contributor, or nobody holds its key.
        """
        clause = contract.party(party)
        member = self._directory.holder(parse_key(clause.key)) if clause is not None else None
        if member is None:
            raise _no_contract(contract.digest)
        return member

    def alias(self, contract: Contract, party: str, run: str | None, round: int | None) -> str:  # noqa: A002
        """Name of a contributor in entries of this contract, run and round."""
        return alias(self.member_of(contract, party).alias_key, contract.digest, run, round)

    def state(self, contract: Contract) -> ContractState:
        """What the evaluator is told about the contract now."""
        with self._store.read() as session:
            final = _state_of(session, contract.digest) == FINALIZED
        return ContractState(now=iso_s(self._clock.now_ms()), executed=final, halted=False, exited_parties=())

    def is_final(self, contract: str) -> bool:
        """Whether every contributor and the broker signed, and the log says so."""
        with self._store.read() as session:
            return _state_of(session, contract) == FINALIZED

    def envelope(self, session: Session, contract: Contract) -> Envelope:
        """The signatures so far, in the order of the parties, the broker's last."""
        rows = session.execute(
            select(contract_signature.c.party, contract_signature.c.signature_b64).where(
                contract_signature.c.digest == contract.digest
            )
        ).all()
        return self._envelope(contract, {row.party: row.signature_b64 for row in rows})

    def _envelope(self, contract: Contract, signatures: dict[str, str]) -> Envelope:
        envelope = Envelope(payload_type=CONTRACT_TYPE, payload=contract.canonical, signatures=())
        ordered = (*contract.contributors, contract.broker)
        for party in (one for one in ordered if one.party in signatures):
            envelope = envelope.with_signature(parse_key(party.key), unb64(signatures[party.party]))
        return envelope

    def annex(self, session: Session, contract: Contract, sha256: str) -> bytes:
        """Bytes of a recipe that travels with the contract; ``sha256`` with or without its prefix.

        Raises:
            NotPartyError: No such annex.
        """
        name = sha256 if sha256.startswith("sha256:") else f"sha256:{sha256}"
        where = (contract_annex.c.contract == contract.digest) & (contract_annex.c.sha256 == name)
        data: bytes | None = session.scalar(select(contract_annex.c.bytes).where(where))
        if data is None:
            raise _no_contract(name)
        return data

    def documents(self) -> list[tuple[bytes, Envelope]]:
        """Canonical bytes and signatures so far of every contract: what the auditor is given."""
        with self._store.read() as session:
            names = session.scalars(
                select(contract_document.c.digest).order_by(contract_document.c.digest)
            ).all()
            found = [self.get(name) for name in names]
            return [(one.canonical, self.envelope(session, one)) for one in found]

    def list_for(self, session: Session, caller: Member | Operator) -> list[dict[str, Json]]:
        """The caller's contracts with their state and who has still to sign; all of them for operators."""
        rows = session.execute(
            select(contract_document.c.digest, contract_document.c.state, contract_document.c.at_ms).order_by(
                contract_document.c.at_ms, contract_document.c.digest
            )
        ).all()
        listed = []
        for row in rows:
            contract = self.get(row.digest)
            mine = contract.party_of_key(key_text(caller.key))
            if mine is None and isinstance(caller, Member):
                continue
            listed.append(
                self.summary(session, contract, state=row.state, party=mine.party if mine else None)
            )
        return listed

    def summary(
        self, session: Session, contract: Contract, *, state: str, party: str | None
    ) -> dict[str, Json]:
        """One line about a contract."""
        signed = set(_signers(session, contract.digest))
        return {
            "digest": contract.digest,
            "contract_id": contract.contract_id,
            "version": contract.version,
            "title": contract.title,
            "state": state,
            "sign_by": contract.sign_by,
            "party": party,
            "signed": sorted(signed),
            "waiting_for": [one.party for one in contract.contributors if one.party not in signed],
            "recipes": [{"id": one.id, "digest": one.recipe_digest} for one in contract.recipes],
        }

    # --- offer ---

    def read_offer(self, text: str, annexes: Iterable[bytes]) -> tuple[Contract, dict[str, bytes]]:
        """The contract and its annexes as they would be stored; pure, before any transaction.

        1. the language, strictly; 2. the broker's key is ours; 3. each contributor is the member that it
        says; 4. each annex is a
        recipe of the contract, byte for byte, and none is missing.

        Raises:
            ContractError: Step 1.
            PartyMismatchError: Steps 2 and 3, naming the clause.
            AnnexMismatchError, AnnexMissingError: Step 4.
            IriaiError: Step 4, the recipe itself is not sound.
        """
        # 1.
        contract = load(text)
        # 2.
        ours = key_text(self._key.public)
        if contract.broker.key != ours:
            raise _mismatch(contract.broker, f"this broker's key {ours}", contract.broker.key)
        # 3.
        for party in contract.contributors:
            self._check_contributor(party)
        # 4.
        by_digest = {digest(data): data for data in annexes}
        named = {one.recipe_digest: one for one in contract.recipes}
        for found, data in by_digest.items():
            if found not in named:
                raise AnnexMismatchError(
                    need="recipes with the digests " + ", ".join(sorted(named)),
                    found=found,
                    remedy="send the recipe files that the contract was written for, unchanged",
                )
            load_recipe(data)
        for wanted, recipe in named.items():
            if wanted not in by_digest:
                raise AnnexMissingError(
                    need=f"the bytes of recipe {recipe.id} ({wanted})",
                    found="none",
                    remedy="send each recipe file along",
                    clause=recipe.clause,
                )
        return contract, by_digest

    def _check_contributor(self, party: PartyClause) -> None:
        try:
            member = self._directory.active_by_key(parse_key(party.key))
        except IriaiError as error:
            raise _mismatch(party, "the key of an active member", error.found) from error
        for name, pinned, enrolled in (
            ("org", party.org, member.org),
            ("group", party.group, member.group),
            ("legal_name", party.legal_name, member.legal_name),
            ("country", party.country, member.country),
        ):
            if pinned != enrolled:
                raise _mismatch(party, f"{name} {enrolled}, as enrolled", pinned)

    def offer(
        self,
        session: Session,
        tx: LogTx,
        *,
        contract: Contract,
        annexes: dict[str, bytes],
        operator: Operator,
        request: str,
    ) -> dict[str, Json]:
        """Stores an offer for its parties to sign; the same offer again changes nothing.

        Raises:
            OfferConflictError: The same contract id and version with another text.
            DeadlineError: ``sign_by`` is over.
        """
        late = self._too_late(contract)
        if late is not None:
            raise late
        same = (contract_document.c.contract_id == contract.contract_id) & (
            contract_document.c.version == contract.version
        )
        known = session.scalar(select(contract_document.c.digest).where(same))
        if known is not None and known != contract.digest:
            raise OfferConflictError(
                need=f"{contract.contract_id} version {contract.version} as offered: {known}",
                found=contract.digest,
                remedy="give the new text a new version or a new contract id",
            )
        tx.add(console_action(operator, "contract.offer", subject=contract.digest, request=request))
        if known is None:
            self._store_offer(session, tx, contract, annexes)
        state = _state_of(session, contract.digest) or OFFERED
        return self.summary(session, contract, state=state, party=None)

    def _store_offer(
        self, session: Session, tx: LogTx, contract: Contract, annexes: dict[str, bytes]
    ) -> None:
        session.execute(
            insert(contract_document).values(
                digest=contract.digest,
                bytes=contract.canonical,
                contract_id=contract.contract_id,
                version=contract.version,
                supersedes=contract.supersedes,
                state=OFFERED,
                at_ms=self._clock.now_ms(),
            )
        )
        for name, data in sorted(annexes.items()):
            session.execute(insert(contract_annex).values(contract=contract.digest, sha256=name, bytes=data))
        tx.add(
            Event(
                type=EntryType.CONTRACT_PROPOSED,
                scope=contract.digest,
                pub={
                    "contract": contract.digest,
                    "version": contract.version,
                    "supersedes": contract.supersedes,
                },
            )
        )

    # --- signatures ---

    def read_signature(self, contract: Contract, member: Member, signature: str, envelope: Envelope) -> Event:
        """The ``contract.signed`` event of a member, once both signatures hold; before any transaction.

        Raises:
            SignatureInvalidError: Not the pinned key's signature over the contract's bytes, or over the
            envelope.
            MemberEnvelopeError: The envelope says something else.
        """
        party = self.party_of(contract, member)
        Envelope(payload_type=CONTRACT_TYPE, payload=contract.canonical, signatures=()).with_signature(
            parse_key(party.key), unb64(signature)
        )
        payload = open_envelope(envelope, member.key)
        actor = alias(member.alias_key, contract.digest, None, None)
        says = (payload["kind"], payload["scope"], payload["run"], payload["round"])
        if says != (EntryType.CONTRACT_SIGNED.value, contract.digest, None, None) or payload["body"] != {
            "contract": contract.digest,
            "party": actor,
        }:
            raise MemberEnvelopeError(
                need=f"contract.signed of {contract.digest} by this organisation's alias",
                found="another envelope",
                remedy="sign with iriai-node contract sign",
            )
        return from_envelope(envelope, payload, actor=actor)

    def sign(
        self, session: Session, tx: LogTx, *, contract: Contract, member: Member, signature: str, event: Event
    ) -> tuple[dict[str, Json], int, IriaiError | None]:
        """Takes a contributor's signature; with the last one, the broker signs and the contract is final.

        The member's envelope gets its entry in any case: it is valid, and a number left out of the member's
        chain would block it. A
        second signature of the same party changes nothing.

        Returns:
            The summary, the index of the ``contract.signed`` entry, and why the signature does not count,
            if it does not:
            `DeadlineError`, or `PartyMismatchError` if a contributor's membership ended meanwhile.
        """
        party = self.party_of(contract, member)
        index = tx.add(event)
        state, signed = _state_of(session, contract.digest), _signers(session, contract.digest)
        refusal: IriaiError | None = None
        if party.party not in signed:
            refusal = self._too_late(contract)
            if refusal is None:
                self._store_signature(session, contract, party.party, signature)
                signed[party.party] = signature
        complete = all(one.party in signed for one in contract.contributors)
        if complete and state != FINALIZED and refusal is None:
            refusal = self._too_late(contract) or self._left(contract)
            if refusal is None:
                self._finalize(session, tx, contract, signed)
                state = FINALIZED
        summary = self.summary(session, contract, state=state or OFFERED, party=party.party)
        return summary, index, refusal

    def _left(self, contract: Contract) -> PartyMismatchError | None:
        """Who is not the member any more that the contract pins."""
        for party in contract.contributors:
            try:
                self._check_contributor(party)
            except PartyMismatchError as error:
                return error
        return None

    def _finalize(self, session: Session, tx: LogTx, contract: Contract, signed: dict[str, str]) -> None:
        own = b64(Envelope.seal(contract.canonical, CONTRACT_TYPE, self._key).signatures[0][1])
        self._store_signature(session, contract, contract.broker.party, own)
        envelope = self._envelope(contract, {**signed, contract.broker.party: own})
        executed(contract, envelope)
        session.execute(
            update(contract_document)
            .where(contract_document.c.digest == contract.digest)
            .values(state=FINALIZED, at_ms=self._clock.now_ms())
        )
        tx.add(
            Event(
                type=EntryType.CONTRACT_FINALIZED,
                scope=contract.digest,
                pub={
                    "contract": contract.digest,
                    "signatures": digest(envelope.to_bytes()),
                    "prose": None,
                },
            )
        )

    def _store_signature(self, session: Session, contract: Contract, party: str, signature: str) -> None:
        session.execute(
            insert(contract_signature).values(
                digest=contract.digest, party=party, kind=_SIGNED, signature_b64=signature
            )
        )

    def _too_late(self, contract: Contract) -> DeadlineError | None:
        now = iso_s(self._clock.now_ms())
        if now < contract.sign_by:  # both are RFC 3339 in UTC with whole seconds: they compare as text
            return None
        return DeadlineError(
            need=f"signatures before {contract.sign_by}",
            found=now,
            remedy="ask the operators for a new offer with a later sign_by",
        )


def _state_of(session: Session, contract: str) -> str | None:
    state: str | None = session.scalar(
        select(contract_document.c.state).where(contract_document.c.digest == contract)
    )
    return state


def _signers(session: Session, contract: str) -> dict[str, str]:
    rows = session.execute(
        select(contract_signature.c.party, contract_signature.c.signature_b64).where(
            contract_signature.c.digest == contract
        )
    )
    return {row.party: row.signature_b64 for row in rows}


def _no_contract(name: str) -> NotPartyError:
    return NotPartyError(
        need="a contract that you are a party to",
        found=ascii(name)[1:-1][:80],
        remedy="contract list shows yours",
    )


def _mismatch(party: PartyClause, need: str, found: str) -> PartyMismatchError:
    return PartyMismatchError(
        need=need,
        found=found[:200],
        remedy="write the parties as `iriai-broker members` shows them",
        clause=party.clause,
    )
