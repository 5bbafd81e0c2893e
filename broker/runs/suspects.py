# SPDX-License-Identifier: Apache-2.0
"""Whom an operator should look at: members that stood in every team that was left out.

Read from settled attempts of probes: who was left out with its team, and whose update is in the model. A
probe in which no team was taken in says nothing about anybody. Members are named, and never dropped for it
(`policies.robustness.offenders`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.runs.verdicts import LEFT_OUT
from broker.store.tables import log_entry, round_
from policies.log.entries import EntryType
from policies.robustness.offenders import Search

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["suspects_of"]


def suspects_of(session: Session, run_id: str, *, members: int) -> tuple[str, ...]:
    """Parties that the probes of a run point at; empty before there were enough.

    Args:
        session: Of the store.
        run_id: The run.
        members: Contributors of its recipe.
    """
    chosen = (log_entry.c.run == run_id) & (log_entry.c.type == EntryType.ROUND_CHOSEN.value)
    probes = set(session.scalars(select(log_entry.c.round).where(chosen)))
    search = Search(members=members)
    rows = session.execute(select(round_).where(round_.c.run_id == run_id).order_by(round_.c.round)).all()
    for row in rows:
        verdicts = json.loads(row.verdicts)
        reasons = json.loads(row.reasons or "{}")  # rows from before have none
        if row.round in probes and row.model is not None:
            inside = [party for party, verdict in verdicts.items() if verdict == "accepted"]
            outside = [party for party, reason in reasons.items() if reason == LEFT_OUT]
            search = search.after(failed=[outside], passed=[inside])
    return search.named()
