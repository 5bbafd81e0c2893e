# SPDX-License-Identifier: Apache-2.0
"""The leak tests on a candidate: who still owes a reveal, and the report once all have come or time is up.

Reveals are those in the log: an envelope was checked against its node's commitment before it got its entry
(`broker.federation.books`). Whoever has an update in the model owes one. A candidate waits `REVEAL_WAIT_S`
from the run's last aggregate, through restarts; what is missing then is named in the report, which fails.

    owing(run, session, now_ms=now)           # participants that are still to be asked; empty: go on
    leaks(run, session, name, weights)        # the ``leaks`` part of the evaluation report, or None
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.contracts.lineage import made_ms, trained
from broker.federation.participants import participants
from broker.log.rotations import Rotations
from broker.store.tables import log_entry, log_envelope
from policies.identity import key_id
from policies.leak_report import leak_report
from policies.limits import REVEAL_WAIT_S
from policies.log.entries import EntryType
from policies.privacy.canaries import CanarySecret, per_party
from policies.signing import Envelope

if TYPE_CHECKING:
    import numpy as np

    from broker.federation.participants import Participant
    from broker.federation.session import RunSession
    from broker.store import Session

__all__ = ["leaks", "owing", "trained_participants"]

Json = Any


def owing(run: RunSession, session: Session, *, now_ms: int) -> tuple[Participant, ...]:
    """Parties whose update is in the model and that have not revealed; empty once their time is up."""
    made = made_ms(session, run.run)
    if not _asked(run) or made is None or now_ms >= made + REVEAL_WAIT_S * 1000:
        return ()
    revealed = _revealed(run, session)
    return tuple(one for one in trained_participants(run, session) if one.party not in revealed)


def leaks(run: RunSession, session: Session, name: str, weights: np.ndarray) -> dict[str, Json] | None:
    """The leak report of a candidate; None where the contract asks for none.

    Args:
        run: Of the candidate.
        session: Of the transaction that logs the report.
        name: Digest of the candidate.
        weights: ``[P]``, the candidate.
    """
    if not _asked(run):
        return None
    revealed, contract = _revealed(run, session), run.contract
    there = trained_participants(run, session)
    names = {one.party: one.alias(contract.digest, run.run, None) for one in there}
    return leak_report(
        candidate=name,
        recipe=run.recipe,
        weights=weights.astype("<f4"),
        reveals={shown: revealed[party] for party, shown in names.items() if party in revealed},
        missing=[shown for party, shown in names.items() if party not in revealed],
        auc_max=contract.release.max_mia_auc,
    )


def trained_participants(run: RunSession, session: Session) -> tuple[Participant, ...]:
    """Participants whose update is in the run's model, by party."""
    everybody, there = _everybody(run), trained(session, run.run)
    return tuple(one for one in everybody if one.party in there)


def _everybody(run: RunSession) -> tuple[Participant, ...]:
    return participants(run.tools.contracts, run.contract, run.recipe, active=False)


def _asked(run: RunSession) -> bool:
    contract = run.contract
    return per_party(contract.release.evidence, contract.aggregation.min_parties) > 0


def _revealed(run: RunSession, session: Session) -> dict[str, CanarySecret]:
    """Party → what it revealed, in the order of the log."""
    rotations = Rotations.read(session)
    senders = {kid: one.party for one in _everybody(run) for kid in rotations.line(key_id(one.node_key))}
    of = (log_entry.c.run == run.run) & (log_entry.c.type == EntryType.CANARY_REVEALED.value)
    rows = session.execute(
        select(log_envelope.c.signer, log_envelope.c.dsse)
        .join(log_entry, log_envelope.c.idx == log_entry.c.idx)
        .where(of)
        .order_by(log_entry.c.idx)
    )
    found = {}
    for row in rows:
        body = json.loads(Envelope.from_bytes(row.dsse).payload)["body"]
        if row.signer in senders:
            seed, salt = (bytes.fromhex(part) for part in body["canary_seed"].split("."))
            found[senders[row.signer]] = CanarySecret(
                run=run.run, seed=seed, salt=salt, count=len(body["flips"])
            )
    return found
