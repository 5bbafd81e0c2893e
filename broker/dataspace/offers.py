# SPDX-License-Identifier: Apache-2.0
"""What is open to a connector: pairs of contracts that exist. Nothing here makes or changes a contract.

- The open tier of a final contract in force is open to every registered connector.
- A member's connector also finds the member's own pairs of the tiers that it is entitled to, as soon as the
  contract is offered; an agreement needs the contract to be final.
- Who is not entitled finds nothing: there is no difference between "none" and "not for you".
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.contracts.service import FINALIZED, OFFERED, state_of
from broker.store.tables import contract_document
from policies.contract.lifecycle import ACTIVE, HALTED, PENDING
from policies.contract.odrl import MODEL, OPEN, Pair, offer, pairs

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.contracts.service import Contracts
    from broker.dataspace.counterparties import Counterparty
    from broker.membership.directory import Directory
    from broker.store import Session
    from policies.contract import Contract
    from policies.encoding import Json

__all__ = ["DSP_PATH", "DspOffers"]

DSP_PATH: Final = "/api/v1/dsp"
"""Where the facade is, below the broker's URL."""
_SHOWN: Final = frozenset({FINALIZED, OFFERED})
_STANDING: Final = frozenset({ACTIVE, HALTED, PENDING})
_FORMAT: Final = "iriai:release"


class DspOffers:
    """The catalogue; pairs are kept by the contract's digest, because a contract cannot change."""

    def __init__(self, *, contracts: Contracts, directory: Directory, service: str) -> None:
        """``service``: IRI of the facade in the catalogue."""
        self._contracts = contracts
        self._directory = directory
        self._service = service
        self._pairs: dict[str, tuple[Pair, ...]] = {}

    def open_to(self, session: Session, counterparty: Counterparty) -> Iterator[Pair]:
        """Every pair that is open to a connector, contracts from the oldest."""
        rows = session.scalars(
            select(contract_document.c.digest)
            .where(contract_document.c.state.in_(_SHOWN))
            .order_by(contract_document.c.at_ms, contract_document.c.digest)
        )
        for digest in rows.all():
            yield from self.open_in(session, self._contracts.read_in(session, digest), counterparty)

    def open_in(self, session: Session, contract: Contract, counterparty: Counterparty) -> Iterator[Pair]:
        """The pairs of one contract that are open to a connector."""
        state = state_of(session, contract.digest)
        final = state == FINALIZED
        if state not in _SHOWN or (final and self._contracts.standing(contract, session) not in _STANDING):
            return
        own = self._party(session, contract, counterparty)
        for pair in self._of(contract):
            if (pair.kind == OPEN and final) or (pair.kind == MODEL and pair.party == own is not None):
                yield pair

    def find(self, session: Session, counterparty: Counterparty, offer_id: str) -> Pair | None:
        """The pair of an offer's id, if it is open to the connector."""
        return next((one for one in self.open_to(session, counterparty) if one.offer_id == offer_id), None)

    def _party(self, session: Session, contract: Contract, counterparty: Counterparty) -> str | None:
        """Short name of the contributor that the connector speaks for, while it is a member and stays."""
        if counterparty.org is None:
            return None
        member = self._directory.of_org(counterparty.org)
        if member is None or not member.active:
            return None
        gone = self._contracts.life(contract, session).exited
        named = (one.party for one in contract.contributors if one.org == counterparty.org)
        return next((name for name in named if name not in gone), None)

    def _of(self, contract: Contract) -> tuple[Pair, ...]:
        if contract.digest not in self._pairs:
            self._pairs[contract.digest] = pairs(contract)
        return self._pairs[contract.digest]

    # --- as the catalogue shows it ---

    def datasets(self, session: Session, counterparty: Counterparty) -> list[dict[str, Json]]:
        """Every target that is open to the connector, with its offers."""
        by_target: dict[str, list[Pair]] = {}
        for pair in self.open_to(session, counterparty):
            by_target.setdefault(pair.target, []).append(pair)
        return [self._dataset(target, found) for target, found in by_target.items()]

    def _dataset(self, target: str, found: list[Pair]) -> dict[str, Json]:
        return {
            "@id": target,
            "@type": "Dataset",
            "hasPolicy": [offer(one, target=False) for one in found],
            "distribution": [{"@type": "Distribution", "format": _FORMAT, "accessService": self._service}],
        }
