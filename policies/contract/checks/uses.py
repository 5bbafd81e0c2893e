# SPDX-License-Identifier: Apache-2.0
"""Checks of forbidden uses, each by the machine support that its clause names.

membership-inference  Release   the report's area under the curve is within the release clause's bound
canary                Release   no canary fired but those of a named trade secret, whose clause refuses
property-leak         Release   the report's skill is within the release clause's bound
                      Query     a number about the pool carries noise (metrics of models: the privacy
                                clause refuses)
query-allow-list      Query     nobody asks about another party
recipe-digest         TrainRound  the recipe is listed
attestation           Deliver   the recipient has signed what it uses the model for
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.contract.case import Case, only_if
from policies.contract.checks.document import recipe_listed
from policies.contract.checks.outputs import own_business
from policies.contract.findings import Finding, at_most, digest_of, flag, holds, listed, unknown
from policies.contract.registry import METRICS
from policies.contract.requests import Deliver, Query, Release, TrainRound

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from policies.contract.clauses import ForbiddenClause

__all__ = ["check_forbidden", "membership_bound", "property_bound"]


def check_forbidden(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    """What the clause's machine support sees of the request."""
    return _BY_CHECK[clause.check](case, clause)


def membership_bound(request: Release, clause: str, most: str) -> Finding:
    """The membership-inference report is within its bound, as a finding of this clause."""
    return at_most(
        clause, "membership-inference", "mia_auc", request.mia_auc, most, remedy="discard-or-amend"
    )


def property_bound(request: Release, clause: str, most: str) -> Finding:
    """The property-leak report is within its bound, as a finding of this clause."""
    fact = request.property_skill
    return at_most(clause, "property-leak", "property_skill", fact, most, remedy="discard-or-amend")


def _membership_inference(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    if isinstance(case.request, Release):
        yield membership_bound(case.request, clause.clause, case.contract.release.max_mia_auc or "0")


def _property_leak(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    request, name = case.request, clause.clause
    if isinstance(request, Release):
        yield property_bound(request, name, case.contract.release.max_property_skill or "0")
    if isinstance(request, Query):
        judged_by_privacy = case.contract.privacy.mode == "dp" and request.view == METRICS
        applies = None if case.about_the_pool is None else case.about_the_pool and not judged_by_privacy
        found = flag(name, "noised", "dp_noised", request.dp_noised, want=True, remedy="add-noise")
        yield from only_if([found], applies=applies, fact="view", otherwise="another view")


def _canary(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    if not isinstance(case.request, Release):
        return
    fired, need = case.request.canaries_fired, "no canary fired"
    if fired is None:
        yield unknown(clause.clause, "canary", "canaries_fired", need=need)
        return
    over = set(fired) - case.contract.index.secrets
    found = listed(over) or "none"
    yield holds(clause.clause, "canary", ok=not over, need=need, found=found, remedy="discard-the-candidate")


def _allow_list(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    if isinstance(case.request, Query):
        yield own_business(case, clause.clause)


def _recipe_digest(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    if isinstance(case.request, TrainRound):
        yield recipe_listed(case, clause.clause)


def _attestation(case: Case, clause: ForbiddenClause) -> Iterator[Finding]:
    if isinstance(case.request, Deliver):
        fact = case.request.attestation
        yield digest_of(clause.clause, "attestation", "attestation", fact, remedy="attest-the-use")


_BY_CHECK: Final[Mapping[str, Callable[[Case, ForbiddenClause], Iterator[Finding]]]] = {
    "membership-inference": _membership_inference,
    "canary": _canary,
    "property-leak": _property_leak,
    "query-allow-list": _allow_list,
    "recipe-digest": _recipe_digest,
    "attestation": _attestation,
}
