# SPDX-License-Identifier: Apache-2.0
"""Operators' own keys: ended at once, and for ever."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from broker.membership.directory import ACTIVE, REVOKED
from broker.store.tables import operator
from policies.encoding import digest
from policies.identity import parse_key
from policies.log.entries import EntryType, Event

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["revoke_operator_key"]


def revoke_operator_key(session: Session, tx: LogTx, *, name: str, reason: str) -> bool:
    """Ends what an operator's key may do; the directory is told after the commit.

    Args:
        session: Of the transaction.
        tx: Of the transaction.
        name: Whose key.
        reason: Reason code for the entry ``key.revoked``.

    Returns:
        False if nobody of this name has a key in force.
    """
    mine = (operator.c.name == name) & (operator.c.state == ACTIVE)
    key = session.scalar(select(operator.c.key).where(mine))
    if key is None:
        return False
    session.execute(update(operator).where(operator.c.name == name).values(state=REVOKED))
    pub = {"kid": digest(parse_key(key)), "reason": reason, "valid_until": tx.size}
    tx.add(Event(type=EntryType.KEY_REVOKED, pub=pub))
    return True
