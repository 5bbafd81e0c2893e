# SPDX-License-Identifier: Apache-2.0
"""A member's budget entry of one mechanism run, as the log has it: by any key that the member ever had.

Under secure aggregation an update is sent again in a later attempt of its round; what was paid for it
stands in the log since the earlier one.

    index, body = logged_spend(session, sender, "run_1/3/1")
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from sqlalchemy import select

from broker.log.rotations import Rotations
from broker.store.tables import log_entry, log_envelope
from policies.identity import key_id
from policies.log.entries import EntryType
from policies.signing import Envelope

if TYPE_CHECKING:
    from broker.federation.participants import Participant
    from broker.store import Session

__all__ = ["logged_spend"]


def logged_spend(session: Session, sender: Participant, mechanism: str) -> tuple[int, dict[str, Any]] | None:
    """Index and body of the entry; None if there is none."""
    run, number, _ = mechanism.split("/")
    rotations = Rotations.read(session)
    keys = rotations.line(rotations.first(key_id(sender.node_key)))
    of = (log_entry.c.run == run) & (log_entry.c.round == int(number))
    query = (
        select(log_entry.c.idx, log_envelope.c.dsse)
        .join(log_envelope, log_envelope.c.idx == log_entry.c.idx)
        .where(of & (log_entry.c.type == EntryType.EPSILON_SPENT.value) & log_envelope.c.signer.in_(keys))
        .order_by(log_entry.c.idx)
    )
    for row in session.execute(query):
        body = json.loads(Envelope.from_bytes(row.dsse).payload)["body"]
        if body["mechanism"] == mechanism:
            return row.idx, body
    return None
