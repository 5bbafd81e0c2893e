# SPDX-License-Identifier: Apache-2.0
"""``contract.activate``: two of the broker's people let exactly this text become final.

Approving before the last signature is allowed; the text is then final with that signature. If everybody has
signed, it is final in the transaction of the approval.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.acts.kinds import Act, Doing, Done
from broker.contracts.errors import OfferConflictError
from broker.contracts.rows import ACTIVATE
from policies.log.kinds import DIGEST

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.contract.negotiation.pool import Pool
    from policies.encoding import Json

__all__ = ["ACTIVATE", "activation"]


def activation(services: Services) -> Act:
    """The act of this broker."""

    def facts(session: Session, tx: LogTx, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        pool = _open(session, tx, services, str(payload["contract"]))
        contract = services.contracts.read_in(session, pool.draft.digest)
        return {
            "contract": contract.digest,
            "contract_id": contract.contract_id,
            "version": contract.version,
            "supersedes": contract.supersedes,
            "title": contract.title,
            "sign_by": contract.sign_by,
            "negotiation": pool.id,
            "round": pool.round,
            "parties": [
                {"party": one.party, "org": one.org, "legal_name": one.legal_name, "key": one.key}
                for one in contract.contributors
            ],
        }

    def effect(session: Session, tx: LogTx, doing: Doing) -> Done:
        text = str(doing.payload["contract"])
        pool = _open(session, tx, services, text)
        after = services.negotiations.activate(session, tx, pool.id, text)
        result = {
            "contract": text,
            "state": after.state,
            "negotiation": after.id,
            "waiting_for": list(after.waiting_for),
        }
        return Done(result=result, after=(lambda: services.desk.changed(pool.id),))

    return Act(kind=ACTIVATE, payload={"contract": DIGEST}, facts=facts, effect=effect)


def _open(session: Session, tx: LogTx, services: Services, text: str) -> Pool:
    """The open round of a text, after what time and membership made of it.

    Raises:
        OfferConflictError: It is not open.
    """
    found = services.negotiations.open_of_text(session, text)
    if found is not None:
        services.negotiations.look(session, tx, found.id)
        found = services.negotiations.open_of_text(session, text)
    if found is None:
        raise OfferConflictError(
            need="a text that is open in a negotiation",
            found=text,
            remedy="iriai-broker contract list --dir DIR --key FILE shows what is open",
        )
    return found
