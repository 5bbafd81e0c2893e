# SPDX-License-Identifier: Apache-2.0
"""Whose approvals of an organisation count now.

1. It is about what waits now; 2. it is at most `PROPOSAL_TTL_H` hours old; 3. whoever gave it is in force: by
a role that may approve or, of somebody who has none here, by a key file.

An approval that does not count any more can be given anew.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.membership.directory import ACTIVE
from broker.store.tables import approval, operator, person
from policies.limits import PROPOSAL_TTL_H

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["approvers_of"]

_HOUR_MS: Final = 3_600_000
_ROLES: Final = ("operator", "approver")


def approvers_of(session: Session, org: str, *, subject: str, now_ms: int) -> frozenset[str]:
    """Names of who approves now that this organisation takes part; see the module.

    Args:
        session: To read with.
        org: Of the organisation that waits.
        subject: Digest of what an approval would be about.
        now_ms: When that is.
    """
    counts = (
        (approval.c.org_id == org)
        & (approval.c.subject_digest == subject)  # 1.
        & (approval.c.at_ms >= now_ms - PROPOSAL_TTL_H * _HOUR_MS)  # 2.
    )
    return frozenset(session.scalars(select(approval.c.operator).where(counts))) & _in_force(session)  # 3.


def _in_force(session: Session) -> frozenset[str]:
    rows = session.execute(select(person.c.name, person.c.state, person.c.role)).all()
    by_role = {row.name for row in rows if row.state == ACTIVE and row.role in _ROLES}
    keys = set(session.scalars(select(operator.c.name).where(operator.c.state == ACTIVE)))
    return frozenset(by_role | (keys - {row.name for row in rows}))
