# SPDX-License-Identifier: Apache-2.0
"""Contradictions in numbers: privacy terms, minimum numbers, bounds and their reports, shares.

Rules 6, 7, 8 and 10 of `policies.contract.coherence`, which calls them in its order.

- **Noise shares** (privacy.md, section 8): each node adds a part of the noise, so the claim rests on
  ``honest_min`` honest groups. They are in every sum only if secure aggregation is required, every recipe has
  four groups, and as many honest groups are left when ``max_colluders`` of a recipe's groups are not honest.
- **Protected properties** (privacy.md, section 10): noise does not hide them, a sum over five groups does.
- **Colluders**: no more than every recipe bears (`policies.contract.thresholds`). Without secure aggregation
  no threshold of nodes opens anything, so the fewest parties that are averaged are ``min_parties``.
- **Secure aggregation**: from 3 contributors up to `SECAGG_PARTIES` in each recipe, and as many groups as an
  opened sum must have, none in name only (`weights_fit`). Noise shares weigh the same: one that is scaled
  down hides less.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from typing import TYPE_CHECKING, Final

from policies.contract.errors import ColludersTooManyError, ContractInvalidError
from policies.contract.grammar import remedy_at
from policies.contract.registry import CANARY_REPORT, MEMBERSHIP_REPORT, PROPERTY_REPORT, PROTECTED_GROUPS
from policies.contract.thresholds import (
    CONTRIBUTORS_MIN,
    WEIGHT_RATIO,
    groups_to_open,
    least_online,
    most_colluders,
    weights_fit,
)
from policies.limits import HONEST_MIN, SECAGG_PARTIES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import Contract, PrivacyCapClause, PrivacyClause, RecipeClause

__all__ = ["check_numbers", "check_privacy", "check_reports", "check_shares"]

SHARES_GROUPS: Final = 4  # of a recipe whose noise is shared
_REQUIRED: Final = "required"
_PLAN_TERMS = ("unit", "adjacency", "delta", "epsilon_per_release", "epsilon_total", "filter", "noise")
_REPORT_OF_USE: Final[Mapping[str, str]] = {
    "canary": CANARY_REPORT,
    "membership-inference": MEMBERSHIP_REPORT,
    "property-leak": PROPERTY_REPORT,
}


def _refuse(
    clause: str,
    need: str,
    found: object,
    *,
    remedy: str = "",
    kind: type[ContractInvalidError] = ContractInvalidError,
) -> ContractInvalidError:
    return kind(clause=clause, need=need, found=str(found)[:160], remedy=remedy or remedy_at(clause))


# --- 6. privacy ---


def check_privacy(contract: Contract) -> None:
    """The privacy terms are complete, or all null; caps tighten downwards.

    Raises:
        ContractInvalidError: They are not.
    """
    common = contract.privacy
    if common.mode == "none":
        _nothing_else(common)
        return
    missing = [name for name in _PLAN_TERMS if getattr(common, name) is None]
    if missing:
        raise _refuse(common.clause, "every privacy term under mode dp", "no " + " ".join(missing))
    release, total = Decimal(common.epsilon_per_release or 0), Decimal(common.epsilon_total or 0)
    if release > total:
        raise _refuse(common.clause, f"epsilon_per_release at most epsilon_total {total}", release)
    for cap in common.per_party:
        _tighter(cap, release, total)
    _noise(contract)
    _protected(contract)


def _nothing_else(common: PrivacyClause) -> None:
    optional = (*_PLAN_TERMS, "honest_min", "reply_slot_ms")
    stray = [name for name in optional if getattr(common, name) is not None]
    stray += ["protected_properties"] if common.protected_properties else []
    stray += [one.clause for one in common.per_party]
    if stray:
        raise _refuse(common.clause, "no other privacy term under mode none", " ".join(stray))


def _tighter(cap: PrivacyCapClause, release: Decimal, total: Decimal) -> None:
    if cap.epsilon_per_release is None and cap.epsilon_total is None:
        raise _refuse(cap.clause, "at least one cap", "none")
    own_release = Decimal(cap.epsilon_per_release or release)
    own_total = Decimal(cap.epsilon_total or total)
    if own_release > release or own_total > total:
        need = f"caps not above the common ones {release} / {total}"
        raise _refuse(cap.clause, need, f"{own_release} / {own_total}")
    if cap.epsilon_per_release is not None and own_release > own_total:
        raise _refuse(cap.clause, f"epsilon_per_release at most epsilon_total {own_total}", own_release)


def _noise(contract: Contract) -> None:
    common, name = contract.privacy, contract.privacy.clause
    if (common.noise == "shares") != (common.honest_min is not None):
        wrong = "none" if common.honest_min is None else f"noise {common.noise}"
        remedy = f"write honest_min: {HONEST_MIN} or more with noise: shares, and none with local-full"
        raise _refuse(name, "honest_min exactly where noise is shares", wrong, remedy=remedy)
    if common.honest_min is None:
        return
    _need_secure_aggregation(contract, "with noise shares")
    for recipe in contract.recipes:
        groups = len(contract.groups(recipe.participants))
        if groups < SHARES_GROUPS:
            need = f"noise shares only where {recipe.clause} has at least {SHARES_GROUPS} groups"
            remedy = "win more contributors, or write noise: local-full"
            raise _refuse(name, need, f"{groups} groups", remedy=remedy)
        _colluders(contract, recipe)  # before honest_min: with too many of them no honest_min would do
        _honest(contract, recipe, groups - contract.aggregation.max_colluders)
        if len({Decimal(one) for one in contract.weights(recipe.participants).values()}) > 1:
            need = f"equal weights in {recipe.clause} with noise shares"
            remedy = "write weights: equal, or noise: local-full"
            raise _refuse(contract.aggregation.clause, need, "weights that differ", remedy=remedy)


def _honest(contract: Contract, recipe: RecipeClause, most: int) -> None:
    """``honest_min`` groups are left when ``max_colluders`` are not honest."""
    common, colluders = contract.privacy, contract.aggregation.max_colluders
    if common.honest_min is None or common.honest_min <= most:
        return
    fewer = f"honest_min: {most}, " if most >= HONEST_MIN else ""
    remedy = f"{fewer}a lower max_colluders in {contract.aggregation.clause}, or more contributors"
    need = f"honest_min at most {most}: the groups of {recipe.clause} less {colluders}"
    raise _refuse(common.clause, need, common.honest_min, remedy=remedy)


def _protected(contract: Contract) -> None:
    if not contract.privacy.protected_properties:
        return
    _need_secure_aggregation(contract, "with protected_properties")
    name = contract.privacy.clause
    if PROPERTY_REPORT not in contract.release.evidence:
        need = f"{PROPERTY_REPORT} in the evidence of {contract.release.clause}"
        raise _refuse(name, f"protected_properties with {need}", "no such evidence")
    for recipe in contract.recipes:
        groups = len(contract.groups(recipe.participants))
        if groups < PROTECTED_GROUPS:
            need = f"protected_properties only where {recipe.clause} has at least {PROTECTED_GROUPS} groups"
            remedy = "win more contributors, or leave protected_properties out"
            raise _refuse(name, need, f"{groups} groups", remedy=remedy)


def _need_secure_aggregation(contract: Contract, why: str) -> None:
    mode = contract.aggregation.secure_aggregation
    if mode != _REQUIRED:
        need = f"secure_aggregation required in {contract.aggregation.clause} {why}"
        remedy = f"write it in {contract.aggregation.clause}, or leave out what it is needed for"
        raise _refuse(contract.privacy.clause, need, mode, remedy=remedy)


# --- 7. minimum numbers ---


def check_numbers(contract: Contract) -> None:
    """Every minimum number can be reached.

    Raises:
        ContractInvalidError: One cannot.
        ColludersTooManyError: ``max_colluders`` is more than a recipe bears.
    """
    k, clause = contract.aggregation.min_parties, contract.aggregation.clause
    groups = len(contract.groups(one.party for one in contract.contributors))
    if k > groups:
        need = f"min_parties at most the {groups} independent groups"
        raise _refuse(clause, need, k, remedy=f"lower min_parties to {groups}, or win more contributors")
    for recipe in contract.recipes:
        own = len(contract.groups(recipe.participants))
        if k > own:
            need = f"min_parties at most the {own} groups of {recipe.clause}"
            raise _refuse(clause, need, k, remedy=f"lower min_parties to {own}, or win more contributors")
    _tagged(contract)
    for recipe in contract.recipes:
        _colluders(contract, recipe)
        if contract.aggregation.secure_aggregation == _REQUIRED:
            _secure(contract, recipe)
    least = contract.release.approvals.min
    if least > groups:
        need, remedy = f"approvals.min at most the {groups} groups", f"lower approvals.min to {groups}"
        raise _refuse(contract.release.clause, need, least, remedy=remedy)
    if contract.queries is not None and contract.queries.min_groups > groups:
        need, found = f"min_groups at most the {groups} groups", contract.queries.min_groups
        raise _refuse(contract.queries.clause, need, found, remedy=f"lower min_groups to {groups}")


def _colluders(contract: Contract, recipe: RecipeClause) -> None:
    pooling, n = contract.aggregation, len(recipe.participants)
    fewest = pooling.min_parties
    if pooling.secure_aggregation == _REQUIRED:
        fewest = least_online(n, pooling.min_parties)
    most = most_colluders(n, fewest)
    if pooling.max_colluders > most:
        need = f"max_colluders at most {most} for the {n} parties of {recipe.clause}, {fewest} in each sum"
        raised = n > fewest and most_colluders(n, n) > most  # else more of them in each sum would not help
        more = "win more contributors" + (", or raise min_parties" if raised else "")
        found, remedy = pooling.max_colluders, f"lower max_colluders to {most}, or {more}"
        raise _refuse(pooling.clause, need, found, remedy=remedy, kind=ColludersTooManyError)


def _tagged(contract: Contract) -> None:
    pooling = contract.aggregation
    if pooling.group_mac == "on" and pooling.secure_aggregation != _REQUIRED:
        need = "group_mac on only with secure_aggregation required: there is no other sum to tag"
        remedy = "write secure_aggregation: required, or group_mac: off"
        raise _refuse(pooling.clause, need, pooling.secure_aggregation, remedy=remedy)


def _secure(contract: Contract, recipe: RecipeClause) -> None:
    pooling, n = contract.aggregation, len(recipe.participants)
    if not CONTRIBUTORS_MIN <= n <= SECAGG_PARTIES:
        need = f"{CONTRIBUTORS_MIN} to {SECAGG_PARTIES} contributors in {recipe.clause}"
        remedy = "other participants in the recipe, or secure_aggregation: off"
        raise _refuse(pooling.clause, f"secure aggregation only with {need}", n, remedy=remedy)
    least = groups_to_open(pooling.min_parties, pooling.max_colluders, contract.privacy.honest_min)
    groups = len(contract.groups(recipe.participants))
    if least > groups:
        need = f"{least} independent groups in {recipe.clause}, so that a sum may be opened"
        remedy = "win contributors of other groups, or lower min_parties, max_colluders or honest_min"
        raise _refuse(pooling.clause, need, groups, remedy=remedy)
    weights = [Fraction(one) for one in contract.weights(recipe.participants).values()]
    if not weights_fit(weights):
        need = f"fixed_weights within {WEIGHT_RATIO} to 1 in {recipe.clause}: a lighter member hides nobody"
        remedy = "weights that are closer, or weights: equal"
        found = f"1 to {float(min(weights) / max(weights)):.3g}"
        raise _refuse(pooling.clause, need, found, remedy=remedy)


# --- 8. bounds and reports ---


def check_reports(contract: Contract) -> None:
    """Every bound has the report that it bounds, every report its bound, every forbidden use its report.

    Raises:
        ContractInvalidError: One is without the other.
    """
    release = contract.release
    for term, report in (
        ("max_mia_auc", MEMBERSHIP_REPORT),
        ("max_property_skill", PROPERTY_REPORT),
    ):
        listed, bound = report in release.evidence, getattr(release, term)
        if listed != (bound is not None):
            need = f"{term} exactly where {report} is in the evidence"
            raise _refuse(release.clause, need, "no bound" if listed else f"{bound} without the report")
    for use in contract.forbidden:
        wanted = _REPORT_OF_USE.get(use.check)
        if wanted is not None and wanted not in release.evidence:
            need = f"check {use.check} with {wanted} in the evidence of {release.clause}"
            raise _refuse(use.clause, need, "no such evidence")


# --- 10. shares ---


def check_shares(contract: Contract) -> None:
    """What is earned is shared out by a formula that has what it needs.

    Raises:
        ContractInvalidError: The floor is above the cap, or the formula lacks its pool.
    """
    pay = contract.incentives
    if pay is None:
        return
    if pay.floor is not None and pay.cap is not None and Decimal(pay.floor) > Decimal(pay.cap):
        raise _refuse(pay.clause, f"floor at most cap {pay.cap}", pay.floor)
    if pay.formula is not None and (pay.method == "none" or pay.pool_eur_per_quarter is None):
        need = f"a method and pool_eur_per_quarter with formula {pay.formula}"
        raise _refuse(pay.clause, need, f"method {pay.method}, pool {pay.pool_eur_per_quarter}")
