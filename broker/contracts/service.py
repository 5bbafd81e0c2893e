# SPDX-License-Identifier: Apache-2.0
"""The contracts that are here, and what the rest of the broker asks about them.

- A contract is its canonical bytes, found by their digest; parsed ones are kept, because they cannot
  change.
- For who is no party, a contract does not exist: nothing tells "none" from "not yours".
- A party is tied to a member by the key that the contract pins, never by a name.

How a contract is offered, signed and made final is in `broker.contracts.offers`; what its notices make of it
in `broker.contracts.life`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.contracts.errors import (
    NotPartyError,
)
from broker.contracts.history import FINALIZED, Histories
from broker.membership.directory import Directory, Member, Operator
from broker.store.tables import contract_annex, contract_document, contract_signature
from policies.contract import CONTRACT_TYPE, Contract, ContractState, parse
from policies.contract.lifecycle import Life, contract_state, party_of_key, standing
from policies.encoding import digest, unb64
from policies.errors import SignatureInvalidError, invariant
from policies.identity import key_text, parse_key
from policies.log.entries import alias
from policies.ports import iso_s
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.store import Session, Store
    from policies.contract.clauses import PartyClause
    from policies.ports import Clock

__all__ = [
    "COUNTERED",
    "FINALIZED",
    "OFFERED",
    "OPEN_DATA",
    "PROSE",
    "SIGNED",
    "TERMINATED",
    "VERDICT",
    "VOID",
    "Contracts",
    "Seat",
]

OFFERED: Final = "offered"
COUNTERED: Final = "countered"
TERMINATED: Final = "terminated"
VOID: Final = "void"
"""A successor that was final and that its predecessor did not let take effect."""
PROSE: Final = "prose"
"""Name of the annex that is the text for people; recipes have their digest as name."""
OPEN_DATA: Final = "open:"
"""Before the digest, in the name of an annex that is a seed set, a consent or a start model."""
VERDICT: Final = "verdict"
"""Name of the annex that is the verdict about a tightening."""
SIGNED: Final = "signed"


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
        self._histories = Histories()

    # --- what others ask ---

    def get(self, contract: str) -> Contract:
        """The contract of a digest.

        Raises:
            NotPartyError: None here.
        """
        found = self._parsed.get(contract)
        if found is None:
            with self._store.read() as session:
                found = self._parsed[contract] = _read(session, contract)
        return found

    def read_in(self, session: Session, contract: str) -> Contract:
        """`get` for a text that this session may have written itself and not committed yet."""
        found = self._parsed.get(contract)
        return _read(session, contract) if found is None else found

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
        found = contract.party_of_key(key_text(member.key)) or self._rotated_party(contract, member)
        if found is None:
            raise _no_contract(contract.digest)
        return found

    def _rotated_party(self, contract: Contract, member: Member) -> PartyClause | None:
        """The party of a member whose present key the contract does not pin.

        Its notice of rotation, or else the organisation that it was offered for: the key pinned for a
        contributor was that organisation's when the contract was offered, and an organisation changes its key
        by a rotation only.
        """
        rotated = party_of_key(contract, self.life(contract), key_text(member.key))
        return rotated or next((one for one in contract.contributors if one.org == member.org), None)

    def _behind(self, party: PartyClause) -> Member | None:
        """The member behind a contributor, whatever its present key."""
        return self._directory.holder(parse_key(party.key)) or self._directory.of_org(party.org)

    def seats(self, contract: Contract) -> tuple[Seat, ...]:
        """Every contributor with the active member behind it; who was revoked, or has left, is left out."""
        seats, exited = [], self.life(contract).exited
        for one in contract.contributors:
            member = self._behind(one)
            if member is not None and member.active and one.party not in exited:
                seats.append(Seat(party=one.party, member=member))
        return tuple(seats)

    def member_of(self, contract: Contract, party: str) -> Member:
        """The enrolled member behind a contributor, active or not.

        Raises:
            NotPartyError: No such contributor, or nobody holds its key.
        """
        clause = contract.party(party)
        member = self._behind(clause) if clause is not None else None
        if member is None:
            raise _no_contract(contract.digest)
        return member

    def alias(self, contract: Contract, party: str, run: str | None, round: int | None) -> str:  # noqa: A002
        """Name of a contributor in entries of this contract, run and round."""
        return alias(self.member_of(contract, party).alias_key, contract.digest, run, round)

    def life(self, contract: Contract, session: Session | None = None) -> Life:
        """What has happened to the contract; as a transaction sees it, if its session is given."""
        if session is not None:
            return self._histories.life(session, contract)
        with self._store.read() as own:
            return self._histories.life(own, contract)

    def state(self, contract: Contract, session: Session | None = None) -> ContractState:
        """What the evaluator is told about the contract now.

        A decision is made in the transaction that logs it, with that transaction's session: no notice can
        come between the two.
        """
        return contract_state(contract, self.life(contract, session), iso_s(self._clock.now_ms()))

    def standing(self, contract: Contract, session: Session | None = None) -> str:
        """Where the contract stands now (`policies.contract.lifecycle.standing`)."""
        return standing(contract, self.life(contract, session), iso_s(self._clock.now_ms()))

    def is_final(self, contract: str) -> bool:
        """Whether every contributor and the broker signed, and the log says so."""
        with self._store.read() as session:
            return state_of(session, contract) == FINALIZED

    def envelope(self, session: Session, contract: Contract) -> Envelope:
        """The signatures so far, in the order of the parties, the broker's last."""
        return self.assemble(
            contract, signers_of(session, contract.digest), self._other_keys(session, contract)
        )

    def _other_keys(self, session: Session, contract: Contract) -> tuple[str, ...]:
        """Keys besides the pinned ones by which parties signed: a tightening repeats what was pinned."""
        if contract.supersedes is None:
            return ()
        return self.life(self.read_in(session, contract.supersedes), session).former_keys

    def envelope_for(self, session: Session, contract: Contract, caller: Member | Operator) -> Envelope:
        """The signatures that the caller may see.

        Until the contract is final, a contributor sees the broker's and its own: nobody can complete the
        envelope outside the log.
        """
        if isinstance(caller, Operator) or state_of(session, contract.digest) == FINALIZED:
            return self.envelope(session, contract)
        shown = {self.party_of(contract, caller).party, contract.broker.party}
        found = signers_of(session, contract.digest)
        kept = {name: one for name, one in found.items() if name in shown}
        return self.assemble(contract, kept, self._other_keys(session, contract))

    def assemble(
        self, contract: Contract, signatures: dict[str, str], others: tuple[str, ...] = ()
    ) -> Envelope:
        """The envelope of these signatures (base64 by party), each checked, in the order of the parties.

        Args:
            contract: That was signed.
            signatures: By party.
            others: Keys that are tried besides the pinned one, for who rotated its key before it signed.
        """
        envelope = Envelope(payload_type=CONTRACT_TYPE, payload=contract.canonical, signatures=())
        ordered = (*contract.contributors, contract.broker)
        for party in (one for one in ordered if one.party in signatures):
            signature = unb64(signatures[party.party])
            key = next((one for one in (party.key, *others) if _fits(envelope, one, signature)), party.key)
            envelope = envelope.with_signature(parse_key(key), signature)
        return envelope

    def annex(self, session: Session, contract: Contract, sha256: str) -> bytes:
        """Bytes of a recipe, seed set, consent or start model that travels with the contract.

        Args:
            session: To read with.
            contract: The contract.
            sha256: Digest of the bytes, with or without its prefix.

        Raises:
            NotPartyError: No such annex.
        """
        name = sha256 if sha256.startswith("sha256:") else f"sha256:{sha256}"
        names = contract_annex.c.sha256.in_((name, OPEN_DATA + name))
        where = (contract_annex.c.contract == contract.digest) & names
        data: bytes | None = session.scalar(select(contract_annex.c.bytes).where(where))
        if data is None:
            raise _no_contract(name)
        return data

    def recipes(self, session: Session, contract: str) -> dict[str, bytes]:
        """Bytes of the recipes that travel with a text, by digest."""
        rows = session.execute(
            select(contract_annex.c.sha256, contract_annex.c.bytes).where(
                (contract_annex.c.contract == contract) & contract_annex.c.sha256.startswith("sha256:")
            )
        )
        return {row.sha256: row.bytes for row in rows}

    def opens(self, session: Session, contract: str) -> dict[str, bytes]:
        """Bytes of the seed sets, consents and start models that travel with a text, by digest."""
        rows = session.execute(
            select(contract_annex.c.sha256, contract_annex.c.bytes).where(
                (contract_annex.c.contract == contract) & contract_annex.c.sha256.startswith(OPEN_DATA)
            )
        )
        return {row.sha256.removeprefix(OPEN_DATA): row.bytes for row in rows}

    def held(self, session: Session, contract: str) -> dict[str, bytes]:
        """Bytes of everything that travels with a text and needs not be sent again with another one."""
        return {**self.recipes(session, contract), **self.opens(session, contract)}

    def prose(self, session: Session, contract: Contract) -> bytes:
        """The text for people, if somebody sent it.

        Raises:
            NotPartyError: Nobody did.
        """
        where = (contract_annex.c.contract == contract.digest) & (contract_annex.c.sha256 == PROSE)
        data: bytes | None = session.scalar(select(contract_annex.c.bytes).where(where))
        if data is None or contract.prose is None:
            raise _no_contract(f"the text for people of {contract.digest}")
        invariant(digest(data) == f"sha256:{contract.prose.sha256}", "a stored text is the one that is bound")
        return data

    def documents(self) -> list[tuple[bytes, Envelope]]:
        """Canonical bytes and signatures so far of every contract: what the auditor is given."""
        with self._store.read() as session:
            names = session.scalars(
                select(contract_document.c.digest).order_by(contract_document.c.digest)
            ).all()
            found = [self.get(name) for name in names]
            return [(one.canonical, self.envelope(session, one)) for one in found]


def _read(session: Session, contract: str) -> Contract:
    data = session.scalar(select(contract_document.c.bytes).where(contract_document.c.digest == contract))
    if data is None:
        raise _no_contract(contract)
    found = parse(data)
    invariant(found.digest == contract, "a stored contract has the digest that it is stored under")
    return found


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


def _fits(envelope: Envelope, key: str, signature: bytes) -> bool:
    try:
        envelope.with_signature(parse_key(key), signature)
    except SignatureInvalidError:
        return False
    return True


def _no_contract(name: str) -> NotPartyError:
    return NotPartyError(
        need="a contract that you are a party to",
        found=ascii(name)[1:-1][:80],
        remedy="contract list shows yours",
    )
