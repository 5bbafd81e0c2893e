# SPDX-License-Identifier: Apache-2.0
"""A refusal that time or somebody's word may lift: what a candidate waits for, and when to look again.

The gate does not decide for good while only such checks are against a tier: approvals and acceptance may
still be given, witnesses may cosign, a halt may be resumed, and a delay, an embargo or the beginning of the
term pass by themselves. Everything else, a veto among it, is for good. The gate records the refusing decision
once for each change of its clauses; `recorded` reads them back for screens.

    waits(decision)                                  # True: nothing else is against it
    opens_ms(contract, tier, checks, made_ms=...)    # when the clock alone may change the answer, or None
    recorded(session, run_id, candidate)             # tier → the last decision about it
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.store.tables import decision as decision_table
from broker.store.tables import log_entry
from policies.contract import Outcome
from policies.contract.findings import DAY_MS, HOUR_MS
from policies.log.entries import EntryType
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from broker.store import Session
    from policies.contract import Contract, Decision
    from policies.contract.clauses import TierClause
    from policies.encoding import Json

__all__ = ["Recorded", "opens_ms", "recorded", "waits"]

_SUMMARY: Final = "unknown"  # the conflict clause counts what is not known once more
_BY_SOMEBODY: Final = frozenset({"approvals", "quorum", "not-halted", "witnesses"})
_BY_TIME: Final = frozenset({"delay", "embargo", "not-before"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """A decision about a tier that is in the log: its clauses, and what refused."""

    clauses: tuple[str, ...]
    findings: tuple[Mapping[str, Json], ...]

    @property
    def checks(self) -> frozenset[str]:
        """Names of the checks that refused."""
        return frozenset(str(one["check"]) for one in self.findings)


def waits(decision: Decision) -> bool:
    """Whether nothing refuses but what may still come; an allowing decision waits for nothing."""
    found = [one for one in decision.refusals if one.check != _SUMMARY]
    passing = _BY_SOMEBODY | _BY_TIME
    return bool(found) and all(one.check in passing and one.outcome is Outcome.VIOLATED for one in found)


def opens_ms(
    contract: Contract, tier: TierClause, checks: Collection[str], *, made_ms: int | None
) -> int | None:
    """The earliest time at which what only time lifts is over; None where nothing waits for the clock.

    Args:
        contract: Under which it was decided.
        tier: About which.
        checks: That refused.
        made_ms: When the model was made.
    """
    times = []
    if "not-before" in checks:
        times.append(to_ms(contract.term.effective))
    if "delay" in checks and made_ms is not None:
        times.append(made_ms + contract.aggregation.delay_hours * HOUR_MS)
    if "embargo" in checks and made_ms is not None:
        times.append(made_ms + (tier.embargo_days or 0) * DAY_MS)
    return max(times, default=None)


def recorded(session: Session, run_id: str, candidate: str) -> dict[str, Recorded]:
    """Tier → the last decision of the gate about a candidate, as the log has it."""
    of = (log_entry.c.run == run_id) & log_entry.c.round.is_(None)
    kind = log_entry.c.type == EntryType.DECISION_RECORDED.value
    pubs = [
        json.loads(body)["pub"]
        for body in session.scalars(select(log_entry.c.body).where(of & kind).order_by(log_entry.c.idx))
    ]
    names = [pub["decision"] for pub in pubs if pub["point"] == "gate"]
    columns = (decision_table.c.digest, decision_table.c.request, decision_table.c.bytes)
    rows = {
        row.digest: row for row in session.execute(select(*columns).where(decision_table.c.digest.in_(names)))
    }
    found: dict[str, Recorded] = {}
    for name in names:
        if name in rows:
            asked = json.loads(rows[name].request)
            if (asked["type"], asked.get("model")) == ("Release", candidate):
                found[asked["tier"]] = _recorded(rows[name].bytes)
    return found


def _recorded(record: bytes) -> Recorded:
    against = [one for one in json.loads(record)["findings"] if one["outcome"] != Outcome.SATISFIED.value]
    return Recorded(
        clauses=tuple(sorted({one["clause"] for one in against})),
        findings=tuple(one for one in against if one["check"] != _SUMMARY),
    )
