# SPDX-License-Identifier: Apache-2.0
"""Every check as a formula over a request that is not given: what `evaluate` computes, for z3.

- One function per kind of clause, with the checks of `policies.contract.checks` by the same names.
- **Held to the evaluator.** A property test compares every finding of random requests with its term. A kind
  that code enforces and that has no formula fails another test, and counts as looser.
- A check that does not run for a request is *ok* in it.

    terms = list(terms_of(View(contract, symbols, meant=contract)))
    allowed = And([one.ok for one in terms])

This module needs z3 (extra ``prove``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, Final

import z3

from policies.contract.amendment.formulas_changes import amendment_terms, exit_terms
from policies.contract.amendment.formulas_outputs import export_terms, queries_terms
from policies.contract.amendment.formulas_pooling import aggregation_terms
from policies.contract.amendment.formulas_privacy import cap_terms, privacy_terms
from policies.contract.amendment.formulas_release import (
    audit_terms,
    forbidden_terms,
    recipe_listed,
    release_terms,
    tier_terms,
    validation_terms,
)
from policies.contract.amendment.formulas_training import (
    fields_terms,
    purpose_terms,
    recipe_terms,
    secret_terms,
    seed_terms,
)
from policies.contract.amendment.terms import FALSE, TRUE, Term, View, flag, holds, inside, when
from policies.contract.amendment.variables import TextMap, seconds
from policies.contract.checks.document import standings_for
from policies.contract.checks.parties import MAY_ASK
from policies.contract.requests import PUBLIC

if TYPE_CHECKING:
    from policies.contract.clauses import HaltClause, PartyClause, TermClause

__all__ = ["FORMULAS", "FORMULA_KINDS", "terms_of"]

Formula = Callable[[View, Any], Iterator[Term]]


def terms_of(view: View) -> Iterator[Term]:
    """Every finding of `evaluate`, as a formula; the conflict clause is the last one."""
    found = list(_about_the_document(view))
    for clause in view.contract.index.judged[view.type]:
        if clause.KIND in FORMULAS:
            found.extend(FORMULAS[clause.KIND](view, clause))
    yield from found
    nothing_open = z3.Not(z3.Or([one.open for one in found]))
    yield holds(view.contract.conflict.clause, "unknown", nothing_open)


def _about_the_document(view: View) -> Iterator[Term]:
    """Formulas of `policies.contract.checks.document`."""
    contract = view.contract
    yield flag("@executed", "signed", view.flag("executed"), want=True)
    yield inside("@standing", "standing", view.text("standing"), standings_for(view.type))
    names = [one.party for one in contract.parties] + ([PUBLIC] if view.type == "Deliver" else [])
    yield inside("@parties", "known", view.text("party"), names)
    if view.type == "Query":
        yield holds("@queries", "listed", FALSE if contract.queries is None else TRUE)
    if view.type in ("Aggregate", "Release", "Deliver") or (
        view.type == "TrainRound" and not contract.forbids("recipe-digest")
    ):
        yield recipe_listed(view, "@recipes")
    if view.type in ("Release", "Deliver"):
        yield _tier_listed(view)


def _tier_listed(view: View) -> Term:
    asked, tier = view.text("recipe_digest"), view.text("tier")
    digests = {one.id: one.recipe_digest for one in view.contract.recipes}
    listed = [z3.And(asked.equals(digests[one.recipe]), tier.equals(one.tier)) for one in view.contract.tiers]
    return holds("@tiers", "listed", z3.Or(listed), asked.known, tier.known)


def _party_terms(view: View, clause: PartyClause) -> Iterator[Term]:
    """Who asks uses the key in force, has the role for it and has not left."""
    name, key = clause.clause, view.text("key")
    rotated, exited = view.facts.fact("rotated_keys", TextMap), view.set("exited_parties")
    new = rotated.of[clause.party]
    same = z3.If(rotated.has[clause.party], new.index == key.index, key.equals(clause.key))
    found = [
        holds(name, "key", same, rotated.known, key.known),
        holds(name, "role", TRUE if clause.role in MAY_ASK[view.type] else FALSE),
        holds(name, "not-exited", z3.Not(exited.has[clause.party]), exited.known),
    ]
    yield from when(view.text("party").equals(clause.party), found)


def _term_terms(view: View, clause: TermClause) -> Iterator[Term]:
    """Whatever is asked is asked within the term; a delivery needs a model that was released within it."""
    moment = view.time("released_at" if view.type == "Deliver" else "now")
    yield holds(clause.clause, "not-before", moment.second >= seconds(clause.effective), moment.known)
    yield holds(clause.clause, "not-after", moment.second < seconds(clause.expires), moment.known)


def _halt_terms(view: View, clause: HaltClause) -> Iterator[Term]:
    """No halt is in force."""
    yield flag(clause.clause, "not-halted", view.flag("halted"), want=False)


FORMULAS: Final[dict[str, Formula]] = {
    "party": _party_terms,
    "term": _term_terms,
    "purpose": purpose_terms,
    "forbidden": forbidden_terms,
    "recipe": recipe_terms,
    "seed": seed_terms,
    "fields": fields_terms,
    "secret": secret_terms,
    "privacy": privacy_terms,
    "privacy-cap": cap_terms,
    "aggregation": aggregation_terms,
    "validation": validation_terms,
    "queries": queries_terms,
    "tier": tier_terms,
    "release": release_terms,
    "exit": exit_terms,
    "audit": audit_terms,
    "export": export_terms,
    "amendment": amendment_terms,
    "halt": _halt_terms,
}
FORMULA_KINDS: Final = frozenset(FORMULAS) | {"conflict"}  # that one looks at the findings of all others
