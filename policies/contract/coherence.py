# SPDX-License-Identifier: Apache-2.0
"""Contradictions between clauses, found before a contract exists. Each error names its clause.

The checks run in this order, and later ones rely on the earlier:
1. clause ids, parties, orgs, keys, recipes, tiers, seed sets and forbidden uses are each named once;
2. exactly one broker, whose group contributes nothing; an auditor is of no contributor's group;
3. times, version and what it supersedes fit together;
4. every reference resolves, and to a contributor where one is needed;
5. no trade secret is on the allow-list;
6. the privacy terms are complete, or all null; caps tighten downwards; noise shares and protected properties
   have what they rest on;
7. minimum numbers can be reached: groups in all, groups in each recipe, colluders, approvals, queries;
8. every bound has the report that it bounds, every report its bound, every forbidden use its report;
9. tiers give to whom their name says and require what is enforced at release;
10. shares of what is earned are paid by a formula that has what it needs;
11. ``enforced_by`` claims what the registry has, and no more.

Rules 6, 7, 8 and 10 are in `policies.contract.coherence_numbers`.
"""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from policies.contract.clauses import (
    Clause,
    Contract,
    PartyClause,
    PrivacyCapClause,
    SecretClause,
    TierClause,
)
from policies.contract.coherence_numbers import check_numbers, check_privacy, check_reports, check_shares
from policies.contract.errors import ContractInvalidError, EnforcementOverclaimedError
from policies.contract.grammar import remedy_at
from policies.contract.registry import KINDS, LAW, RECIPIENTS, most_claims
from policies.limits import PARTIES

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

__all__ = ["check", "owner_of"]

_EARNED = ("consortium", "participant")  # tiers whose recipients have a share of the contributions


def check(contract: Contract) -> None:
    """Refuses a contract whose clauses contradict each other.

    Raises:
        ContractInvalidError: With the clause, what it needs and what was found.
        ColludersTooManyError: Rule 7, of ``max_colluders``.
        EnforcementOverclaimedError: Rule 11.
    """
    _once(contract)  # 1
    _apart(contract)  # 2
    _times(contract)  # 3
    _references(contract)  # 4
    _secrets(contract)  # 5
    check_privacy(contract)  # 6
    check_numbers(contract)  # 7
    check_reports(contract)  # 8
    _tiers(contract)  # 9
    check_shares(contract)  # 10
    _claims(contract)  # 11


def owner_of(contract: Contract, clause_id: str) -> str | None:
    """The party of a clause: its own entry, its tighter caps, its secrets. None for common clauses."""
    clause = contract.clause(clause_id)
    if isinstance(clause, PartyClause | PrivacyCapClause | SecretClause):
        return clause.party
    return None


def _refuse(clause: str | None, need: str, found: object) -> ContractInvalidError:
    return ContractInvalidError(clause=clause, need=need, found=str(found)[:160], remedy=remedy_at(clause))


def _each_once(what: str, named: Iterable[tuple[object, str]]) -> None:
    seen: dict[object, str] = {}
    for value, clause in named:
        if value in seen:
            where = "twice" if value == seen[value] else f"also in {seen[value]}"
            raise _refuse(clause, f"each {what} once", f"{value} {where}")
        seen[value] = clause


def _once(contract: Contract) -> None:
    if len(contract.parties) > PARTIES:
        raise _refuse(None, f"at most {PARTIES} parties", len(contract.parties))
    _each_once("clause id", ((one.clause, one.clause) for one in contract.clauses()))
    _each_once("party", ((one.party, one.clause) for one in contract.parties))
    _each_once("organisation", ((one.org, one.clause) for one in contract.parties))
    _each_once("key", ((one.key, one.clause) for one in contract.parties))
    _each_once("purpose", ((one.id, one.clause) for one in contract.purposes))
    _each_once("recipe id", ((one.id, one.clause) for one in contract.recipes))
    _each_once("recipe digest", ((one.recipe_digest, one.clause) for one in contract.recipes))
    _each_once("tier of a recipe", (((one.tier, one.recipe), one.clause) for one in contract.tiers))
    _each_once("party with caps", ((one.party, one.clause) for one in contract.privacy.per_party))
    _each_once("recipe with a seed set", ((one.recipe, one.clause) for one in contract.seed_sets))
    _each_once("forbidden use", ((one.use, one.clause) for one in contract.forbidden))


def _apart(contract: Contract) -> None:
    brokers = [one for one in contract.parties if one.role == "broker"]
    if len(brokers) != 1:
        raise _refuse(
            brokers[1].clause if brokers else None, "exactly one party of role broker", len(brokers)
        )
    for one in contract.contributors:
        if one.group == brokers[0].group:
            raise _refuse(
                one.clause, "a contributor of another group than the broker's", f"group {one.group}"
            )
    groups = {one.group for one in contract.contributors}
    for one in contract.parties:
        if one.role == "auditor" and one.group in groups:
            raise _refuse(
                one.clause, "an auditor of another group than any contributor's", f"group {one.group}"
            )


def _times(contract: Contract) -> None:
    term = contract.term
    if term.effective >= term.expires:
        raise _refuse(term.clause, "effective before expires", f"{term.effective}, {term.expires}")
    if contract.sign_by > term.effective:
        raise _refuse(term.clause, "sign_by not after effective", f"{contract.sign_by}, {term.effective}")
    if (contract.version == 1) != (contract.supersedes is None):
        raise _refuse(
            None,
            "supersedes null in version 1, the digest of the earlier version after it",
            f"version {contract.version}, supersedes {contract.supersedes}",
        )


def _contributor(contract: Contract, name: str, clause: str) -> None:
    found = contract.party(name)
    if found is None or found.role != "contributor":
        raise _refuse(clause, "the name of a contributor", name)


def _references(contract: Contract) -> None:
    purposes = {one.id for one in contract.purposes}
    recipes = {one.id for one in contract.recipes}
    for recipe in contract.recipes:
        if recipe.purpose not in purposes:
            raise _refuse(recipe.clause, "a purpose of the list", recipe.purpose)
    for seed in contract.seed_sets:
        if seed.recipe not in recipes:
            raise _refuse(seed.clause, "a recipe of the list", seed.recipe)
    for clause, party in _owners(contract):
        _contributor(contract, party, clause)
    for clause_id in contract.release.approvals.veto:
        owner = owner_of(contract, clause_id)
        if owner is None:
            raise _refuse(contract.release.clause, "veto: clauses that belong to one party", clause_id)
        _contributor(contract, owner, contract.release.clause)
    _weights(contract)


def _owners(contract: Contract) -> Iterator[tuple[str, str]]:
    """Clauses and the contributor that each of them names."""
    for recipe in contract.recipes:
        yield from ((recipe.clause, one.party) for one in recipe.datasets)
    for seed in contract.seed_sets:
        yield from ((seed.clause, one.party) for one in seed.donations)
    yield from ((one.clause, one.party) for one in contract.fields.trade_secret)
    yield from ((one.clause, one.party) for one in contract.privacy.per_party)


def _weights(contract: Contract) -> None:
    pooling, fixed = contract.aggregation, contract.aggregation.fixed_weights
    if (pooling.weights == "fixed") != (fixed is not None):
        raise _refuse(pooling.clause, "fixed_weights exactly where weights is fixed", pooling.weights)
    contributors = sorted(one.party for one in contract.contributors)
    if fixed is not None and [one.party for one in fixed] != contributors:
        raise _refuse(pooling.clause, "a weight for each contributor", " ".join(one.party for one in fixed))


def _secrets(contract: Contract) -> None:
    for secret in contract.fields.trade_secret:
        open_to_all = sorted(set(secret.fields) & set(contract.fields.allow))
        if open_to_all:
            raise _refuse(secret.clause, "secret fields that no allow-list has", " ".join(open_to_all))


def _tiers(contract: Contract) -> None:
    recipes = {one.id for one in contract.recipes}
    enforced = (contract.privacy.clause, contract.aggregation.clause, contract.release.clause)
    for tier in contract.tiers:
        if tier.recipe not in recipes:
            raise _refuse(tier.clause, "a recipe of the list", tier.recipe)
        if tier.recipients != (RECIPIENTS[tier.tier],):
            raise _refuse(
                tier.clause,
                f"recipients of tier {tier.tier}: {RECIPIENTS[tier.tier]}",
                " ".join(tier.recipients),
            )
        if tier.min_contribution is not None and tier.tier not in _EARNED:
            raise _refuse(tier.clause, "min_contribution where contributors receive", f"tier {tier.tier}")
        _requires(contract, tier, enforced)


def _requires(contract: Contract, tier: TierClause, enforced: tuple[str, ...]) -> None:
    for clause_id in tier.requires:
        clause = contract.clause(clause_id)
        if clause is None or "Release" not in KINDS[clause.KIND].requests:
            raise _refuse(tier.clause, "requires: clauses that are judged at release", clause_id)
    if tier.tier == "private":
        if tier.requires:
            raise _refuse(tier.clause, "requires nothing: it never leaves its owner", " ".join(tier.requires))
    elif not set(enforced) <= set(tier.requires):
        raise _refuse(
            tier.clause,
            "requires: at least " + " ".join(sorted(enforced)),
            " ".join(tier.requires) or "nothing",
        )


def _claims(contract: Contract) -> None:
    document = contract.document
    for clause in contract.clauses():
        allowed = set(most_claims(clause.KIND, _plain(clause), document))
        over = sorted(set(clause.enforced_by) - allowed)
        if over:
            raise _overclaimed(clause.clause, "at most " + " ".join(sorted(allowed)), " ".join(over))
        if KINDS[clause.KIND].law and LAW not in clause.enforced_by:
            raise _overclaimed(
                clause.clause, "law among them: a part is for courts only", " ".join(clause.enforced_by)
            )


def _plain(clause: Clause) -> dict[str, object]:
    return {one.name: getattr(clause, one.name) for one in fields(clause)}


def _overclaimed(clause: str, need: str, found: str) -> EnforcementOverclaimedError:
    return EnforcementOverclaimedError(
        clause=clause,
        need=f"enforced_by: {need}",
        found=found,
        remedy="name only points where code can refuse by this clause, or leave enforced_by out",
    )
