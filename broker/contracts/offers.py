# SPDX-License-Identifier: Apache-2.0
"""A contract on its way: offered by an operator, signed by its parties, final.

    offered  --every contributor signs before sign_by; the broker signs in the same transaction-->  finalized

- One offer that all sign; counter-offers are a later version's.
- What an operator sends is read once, strictly; what is stored, handed out and signed are the canonical
  bytes.
- The recipes travel as annexes; their bytes hash to the digests in the contract, or nothing is stored.
- Contributors are active members with exactly the pinned key, organisation, name, country and group; the
  broker's key is ours.
- FINALIZED is one transaction: the last contributor's signature, the broker's, the state and both entries,
  or none of them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select, update

from broker.contracts.errors import (
    AnnexMismatchError,
    AnnexMissingError,
    DeadlineError,
    OfferConflictError,
    PartyMismatchError,
)
from broker.contracts.service import FINALIZED, OFFERED, signers_of, state_of
from broker.membership.records import console_action
from broker.store.tables import contract_annex, contract_document, contract_signature
from policies.contract import CONTRACT_TYPE, Contract, executed, load
from policies.encoding import Json, b64, digest, unb64
from policies.errors import IriaiError
from policies.identity import SigningKey, key_text, parse_key
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.log.errors import MemberEnvelopeError
from policies.ports import iso_s
from policies.recipe import load as load_recipe
from policies.signing import Envelope

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.contracts.service import Contracts
    from broker.log import LogTx
    from broker.membership.directory import Directory, Member, Operator
    from broker.store import Session
    from policies.contract.clauses import PartyClause
    from policies.ports import Clock

__all__ = ["Offers"]

_SIGNED: Final = "signed"


class Offers:
    """The service; see the module. Methods that take a session are units of work of the writer."""

    def __init__(
        self, *, contracts: Contracts, clock: Clock, directory: Directory, broker_key: SigningKey
    ) -> None:
        self._contracts = contracts
        self._clock = clock
        self._directory = directory
        self._key = broker_key

    def read_offer(self, text: str, annexes: Iterable[bytes]) -> tuple[Contract, dict[str, bytes]]:
        """The contract and its annexes as they would be stored; pure, before any transaction.

        1. the language, strictly; 2. the broker's key is ours; 3. each contributor is the member that it
           says; 4. each annex is a recipe of the contract, byte for byte, and none is missing.

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
        state = state_of(session, contract.digest) or OFFERED
        return self._contracts.summary(session, contract, state=state, party=None)

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

    def read_signature(self, contract: Contract, member: Member, signature: str, envelope: Envelope) -> Event:
        """The ``contract.signed`` event of a member, once both signatures hold; before any transaction.

        Raises:
            SignatureInvalidError: Not the pinned key's signature over the contract's bytes, or over the
            envelope.
            MemberEnvelopeError: The envelope says something else.
        """
        party = self._contracts.party_of(contract, member)
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
        chain would block it. A second signature of the same party changes nothing.

        Returns:
            The summary, the index of the ``contract.signed`` entry, and why the signature does not count,
            if it does not:
            `DeadlineError`, or `PartyMismatchError` if a contributor's membership ended meanwhile.
        """
        party = self._contracts.party_of(contract, member)
        index = tx.add(event)
        state, signed = state_of(session, contract.digest), signers_of(session, contract.digest)
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
        summary = self._contracts.summary(session, contract, state=state or OFFERED, party=party.party)
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
        envelope = self._contracts.assemble(contract, {**signed, contract.broker.party: own})
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


def _mismatch(party: PartyClause, need: str, found: str) -> PartyMismatchError:
    return PartyMismatchError(
        need=need,
        found=found[:200],
        remedy="write the parties as `iriai-broker members` shows them",
        clause=party.clause,
    )
