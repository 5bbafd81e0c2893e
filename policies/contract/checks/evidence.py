# SPDX-License-Identifier: Apache-2.0
"""Checks of what others saw: federated validation, and the log with its witnesses."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING

from policies.contract.findings import Finding, count_at_least, equal, holds, unknown
from policies.contract.requests import Aggregate, Release

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.case import Case
    from policies.contract.clauses import AuditClause, ValidationClause

__all__ = ["check_audit", "check_validation"]


def check_validation(case: Case, clause: ValidationClause) -> Iterator[Finding]:
    """Not too many rejected models in a row; enough groups of the cohort accept a candidate."""
    request = case.request
    if isinstance(request, Aggregate):
        yield _rejected(request, clause)
    if isinstance(request, Release):
        yield _quorum(case, request, clause)


def _rejected(request: Aggregate, clause: ValidationClause) -> Finding:
    need, count = f"< {clause.max_rejected_rounds}", request.rejected_rounds
    if count is None:
        return unknown(clause.clause, "rejected-rounds", "rejected_rounds", need=need)
    return holds(
        clause.clause,
        "rejected-rounds",
        ok=0 <= count < clause.max_rejected_rounds,
        need=need,
        found=str(count),
        remedy="stop-and-look",
    )


def _quorum(case: Case, request: Release, clause: ValidationClause) -> Finding:
    need = f">= {clause.quorum} of the groups"
    if request.validation is None or request.cohort is None:
        missing = [name for name in ("cohort", "validation") if getattr(request, name) is None]
        return unknown(clause.clause, "quorum", *missing, need=need)
    groups = case.contract.groups(request.cohort)
    without = [name for name in request.cohort if request.validation.get(name) is not True]
    accepting = groups - case.contract.groups(without)  # a group accepts if every party of it does
    return holds(
        clause.clause,
        "quorum",
        ok=bool(groups) and Fraction(len(accepting), len(groups)) >= Fraction(clause.quorum),
        need=need,
        found=f"{len(accepting)} of {len(groups)} groups",
        remedy="new-candidate",
    )


def check_audit(case: Case, clause: AuditClause) -> Iterator[Finding]:
    """What happens goes into the agreed log, and enough witnesses have cosigned it before a release."""
    request, name = case.request, clause.clause
    if isinstance(request, Aggregate | Release):
        fact = request.log_origin
        yield equal(name, "log-origin", "log_origin", fact, clause.log_origin, remedy="use-the-agreed-log")
    if isinstance(request, Release):
        least = clause.witness_quorum
        yield count_at_least(
            name, "witnesses", "witnesses", request.witnesses, least, remedy="wait-for-witnesses"
        )
