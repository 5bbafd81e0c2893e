# SPDX-License-Identifier: Apache-2.0
"""Formulas of `policies.contract.checks.release`, `checks_evidence` and `checks_uses`."""

from __future__ import annotations

from fractions import Fraction
from typing import TYPE_CHECKING, Final

import z3

from policies.contract.amendment.formulas_outputs import own_business
from policies.contract.amendment.terms import (
    FALSE,
    Term,
    View,
    at_least,
    at_most,
    count_at_least,
    counted,
    digest_of,
    enough,
    equal,
    flag,
    holds,
    inside,
    none_of,
    only,
    only_if,
    waited,
    when,
)
from policies.contract.amendment.variables import FlagMap
from policies.contract.coherence import owner_of
from policies.contract.registry import METRICS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import (
        AuditClause,
        ForbiddenClause,
        RecipeClause,
        ReleaseClause,
        TierClause,
        ValidationClause,
    )

__all__ = [
    "audit_terms",
    "forbidden_terms",
    "recipe_listed",
    "release_terms",
    "tier_terms",
    "validation_terms",
]

_DAY_S: Final = 86_400


def tier_terms(view: View, clause: TierClause) -> Iterator[Term]:
    """Whether this tier lets the model out, and to this recipient."""
    recipe = next(one for one in view.contract.recipes if one.id == clause.recipe)
    asked = view.text("tier").equals(clause.tier)
    yield from when(asked, view.only_under(_tier_terms(view, clause), recipe.recipe_digest))
    if view.type == "Deliver":
        party = view.text("party")
        anybody = clause.tier == "open"  # judged only where nobody asks: `@parties` knows who may
        found = holds(clause.clause, "recipient", party.among(_entitled(view, clause, recipe)), party.known)
        judged = z3.And(asked, z3.Not(party.known)) if anybody else asked
        yield from when(judged, view.only_under([found], recipe.recipe_digest))


def _tier_terms(view: View, clause: TierClause) -> Iterator[Term]:
    name = clause.clause
    if clause.tier == "private":
        yield holds(name, "stays-home", FALSE)
    if clause.embargo_days is not None:
        wait = clause.embargo_days * _DAY_S
        yield waited(name, "embargo", view.time("made_at"), view.time("now"), wait)
    if view.type == "Deliver":
        released = view.flag("released")
        yield holds(name, "released", released.true, view.text("model").known, released.known)
        if clause.min_contribution is not None:
            yield at_least(name, "contribution", view.number("contribution_share"), clause.min_contribution)


def _entitled(view: View, clause: TierClause, recipe: RecipeClause) -> list[str]:
    if clause.tier == "consortium":
        return [one.party for one in view.contract.contributors]
    return list(recipe.participants) if clause.tier == "participant" else []


def release_terms(view: View, clause: ReleaseClause) -> Iterator[Term]:
    """Evidence, approvals and vetoes of a candidate."""
    name, evidence = clause.clause, view.set("evidence")
    yield digest_of(name, "candidate", view.text("model"))
    yield holds(name, "evidence", evidence.all_of(clause.evidence), evidence.known)
    yield _approvals(view, clause)
    owners = {owner_of(view.contract, one) for one in clause.approvals.veto}
    yield none_of(name, "veto", view.set("vetoes"), [one for one in owners if one is not None])
    if clause.max_mia_auc is not None and not view.contract.forbids("membership-inference"):
        yield membership_bound(view, name, clause.max_mia_auc)
    if clause.max_property_skill is not None and not view.contract.forbids("property-leak"):
        yield property_bound(view, name, clause.max_property_skill)


def membership_bound(view: View, clause: str, most: str) -> Term:
    """The membership-inference report is within its bound."""
    return at_most(clause, "membership-inference", view.number("mia_auc"), most)


def property_bound(view: View, clause: str, most: str) -> Term:
    """The property-leak report is within its bound."""
    return at_most(clause, "property-leak", view.number("property_skill"), most)


def _approvals(view: View, clause: ReleaseClause) -> Term:
    approvals, vetoes = view.set("approvals"), view.set("vetoes")
    standing = [
        z3.Or([z3.And(approvals.has[one], z3.Not(z3.And(vetoes.known, vetoes.has[one]))) for one in names])
        for names in view.groups
    ]
    return holds(clause.clause, "approvals", enough(standing, clause.approvals.min), approvals.known)


def validation_terms(view: View, clause: ValidationClause) -> Iterator[Term]:
    """Not too many rejected models in a row; enough groups of the cohort accept a candidate."""
    if view.type == "Aggregate":
        count = view.whole("rejected_rounds")
        few = z3.And(count.number >= 0, count.number < clause.max_rejected_rounds)
        yield holds(clause.clause, "rejected-rounds", few, count.known)
    if view.type == "Release":
        yield _quorum(view, clause)


def _quorum(view: View, clause: ValidationClause) -> Term:
    cohort, votes = view.set("cohort"), view.facts.fact("validation", FlagMap)
    heard, accepting = [], []
    for names in view.groups:
        without = [z3.And(cohort.has[one], z3.Not(z3.And(votes.has[one], votes.true[one]))) for one in names]
        heard.append(cohort.any_of(names))
        accepting.append(z3.And(cohort.any_of(names), z3.Not(z3.Or(without))))  # every party of it does
    quorum, groups = Fraction(clause.quorum), counted(heard)
    ok = z3.And(groups > 0, counted(accepting) * quorum.denominator >= groups * quorum.numerator)
    return holds(clause.clause, "quorum", ok, cohort.known, votes.known)


def audit_terms(view: View, clause: AuditClause) -> Iterator[Term]:
    """What happens goes into the agreed log, and enough witnesses have cosigned it before a release."""
    yield equal(clause.clause, "log-origin", view.text("log_origin"), clause.log_origin)
    if view.type == "Release":
        yield count_at_least(clause.clause, "witnesses", view.whole("witnesses"), clause.witness_quorum)


def recipe_listed(view: View, clause: str) -> Term:
    """Whether the recipe is one of the contract's, as a finding of this clause."""
    return inside(
        clause, "listed", view.text("recipe_digest"), [one.recipe_digest for one in view.contract.recipes]
    )


def forbidden_terms(view: View, clause: ForbiddenClause) -> Iterator[Term]:
    """What the clause's machine support sees of the request."""
    name, bounds = clause.clause, view.contract.release
    by_check = (clause.check, view.type)
    if by_check == ("membership-inference", "Release"):
        yield membership_bound(view, name, bounds.max_mia_auc or "0")
    if by_check == ("property-leak", "Release"):
        yield property_bound(view, name, bounds.max_property_skill or "0")
    if by_check == ("property-leak", "Query"):
        yield from _noised(view, name)
    if by_check == ("canary", "Release"):
        secret = {field for one in view.contract.fields.trade_secret for field in one.fields}
        yield only(name, "canary", view.set("canaries_fired"), secret)
    if by_check == ("query-allow-list", "Query"):
        yield own_business(view, name)
    if by_check == ("recipe-digest", "TrainRound"):
        yield recipe_listed(view, name)
    if by_check == ("attestation", "Deliver"):
        yield digest_of(name, "attestation", view.text("attestation"))


def _noised(view: View, clause: str) -> Iterator[Term]:
    asked = view.text("view")
    by_privacy = asked.equals(METRICS) if view.contract.privacy.mode == "dp" else FALSE
    found = flag(clause, "noised", view.flag("dp_noised"), want=True)
    applies = z3.And(view.about_the_pool, z3.Not(by_privacy))
    yield from only_if([found], known=asked.known, applies=applies)
