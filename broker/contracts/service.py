# SPDX-License-Identifier: Apache-2.0
"""The contracts that are here, and what the rest of the broker asks about them.

- A contract is its canonical bytes, found by their digest; parsed ones are kept, because they cannot
  change.
- For who is no party, a contract does not exist: nothing tells "none" from "not yours".
- A party is tied to a member by the key that the contract pins, never by a name.

How a contract is offered, signed and made final is in `broker.contracts.offers`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.contracts.errors import (
    NotPartyError,
)
from broker.membership.directory import Directory, Member, Operator
from broker.store.tables import contract_annex, contract_document, contract_signature
from policies.contract import CONTRACT_TYPE, Contract, ContractState, parse
from policies.encoding import Json, unb64
from policies.errors import invariant
from policies.identity import key_text, parse_key
from policies.log.entries import alias
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
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

    def __init__(self, *, store: Store, clock: Clock, directory: Directory) -> None:
        self._store = store
        self._clock = clock
        self._directory = directory
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
            final = state_of(session, contract.digest) == FINALIZED
        return ContractState(now=iso_s(self._clock.now_ms()), executed=final, halted=False, exited_parties=())

    def is_final(self, contract: str) -> bool:
        """Whether every contributor and the broker signed, and the log says so."""
        with self._store.read() as session:
            return state_of(session, contract) == FINALIZED

    def envelope(self, session: Session, contract: Contract) -> Envelope:
        """The signatures so far, in the order of the parties, the broker's last."""
        rows = session.execute(
            select(contract_signature.c.party, contract_signature.c.signature_b64).where(
                contract_signature.c.digest == contract.digest
            )
        ).all()
        return self.assemble(contract, {row.party: row.signature_b64 for row in rows})

    def assemble(self, contract: Contract, signatures: dict[str, str]) -> Envelope:
        """The envelope of these signatures (base64 by party), each checked, in the order of the parties."""
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
        signed = set(signers_of(session, contract.digest))
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


def state_of(session: Session, contract: str) -> str | None:
    state: str | None = session.scalar(
        select(contract_document.c.state).where(contract_document.c.digest == contract)
    )
    return state


def signers_of(session: Session, contract: str) -> dict[str, str]:
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
