# SPDX-License-Identifier: Apache-2.0
"""Checks of who asks and when: parties, the term, halts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.contract.findings import Finding, equal, flag, holds, inside, moment_of, unknown
from policies.contract.requests import Deliver

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from policies.contract.case import Case
    from policies.contract.clauses import HaltClause, PartyClause, TermClause

__all__ = ["MAY_ASK", "check_halt", "check_party", "check_term"]

MAY_ASK: Final[Mapping[str, tuple[str, ...]]] = {
    "TrainRound": ("contributor",),
    "Aggregate": ("broker",),
    "Release": ("broker",),
    "Deliver": ("broker", "contributor"),  # the tier decides
    "Query": ("auditor", "broker", "contributor"),
    "Join": ("broker", "contributor"),
    "Exit": ("contributor",),
}


def check_party(case: Case, clause: PartyClause) -> Iterator[Finding]:
    """Who asks uses the key in force, has the role for it and has not left."""
    if clause.party != case.request.party:
        return
    rotated = case.state.rotated_keys
    if rotated is None:
        yield unknown(clause.clause, "key", "rotated_keys", need="the key in force")
    else:
        key = rotated.get(clause.party, clause.key)
        yield equal(clause.clause, "key", "key", case.request.key, key, remedy="ask-by-pinned-key")
    may = MAY_ASK[case.request.TYPE]
    yield inside(clause.clause, "role", "party", clause.role, may, remedy="let-the-right-party-ask")
    yield _not_exited(case, clause)


def _not_exited(case: Case, clause: PartyClause) -> Finding:
    exited = case.state.exited_parties
    if exited is None:
        return unknown(clause.clause, "not-exited", "exited_parties", need="not exited")
    gone = clause.party in exited
    return holds(
        clause.clause,
        "not-exited",
        ok=not gone,
        need="not exited",
        found="exited" if gone else "a party",
        remedy="stop-or-new-contract",
    )


def check_term(case: Case, clause: TermClause) -> Iterator[Finding]:
    """Whatever is asked is asked within the term; a delivery needs a model that was released within it."""
    if isinstance(case.request, Deliver):
        fact, value = "released_at", case.request.released_at
    else:
        fact, value = "now", case.state.now
    for check, need in (("not-before", f">= {clause.effective}"), ("not-after", f"< {clause.expires}")):
        if value is None or moment_of(value) is None:
            yield unknown(clause.clause, check, fact, need=need)
            continue
        early = check == "not-before"
        yield holds(
            clause.clause,
            check,
            ok=value >= clause.effective if early else value < clause.expires,  # times compare as their texts
            need=need,
            found=value,
            remedy="wait-for-the-term" if early else "stop-or-new-contract",
        )


def check_halt(case: Case, clause: HaltClause) -> Iterator[Finding]:
    """No halt is in force."""
    yield flag(clause.clause, "not-halted", "halted", case.state.halted, want=False, remedy="resume")
