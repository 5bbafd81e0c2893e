# SPDX-License-Identifier: Apache-2.0
"""Formulas of `policies.contract.checks.changes`: amendments and exits."""

from __future__ import annotations

from typing import TYPE_CHECKING

import z3

from policies.contract.amendment.terms import (
    FALSE,
    Term,
    View,
    digest_of,
    equal,
    flag,
    holds,
    inside,
    only,
    only_if,
)
from policies.contract.amendment.variables import TextMap
from policies.contract.checks.changes import CHANGE, CHOICES, EFFECT, OPEN, TIGHTEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.contract.clauses import AmendmentClause, ExitClause

__all__ = ["amendment_terms", "exit_terms"]


def amendment_terms(view: View, clause: AmendmentClause) -> Iterator[Term]:
    """Whether this successor may be opened, or take effect."""
    name, kind = clause.clause, view.text("kind")
    yield inside(name, "kind", kind, (CHANGE, TIGHTEN))
    yield inside(name, "stage", view.text("stage"), (EFFECT, OPEN))
    yield equal(name, "supersedes", view.text("supersedes"), view.meant.digest)
    version = view.whole("version")
    yield holds(name, "version", version.number == view.meant.version + 1, version.known)
    by_proof = [
        flag(name, "no-looser", view.flag("no_looser"), want=True),
        only(name, "newcomers", view.set("newcomers"), ()),
    ]
    yield from only_if(by_proof, known=kind.known, applies=kind.equals(TIGHTEN))
    yield from _signatures(view, clause)
    newcomers, vouched = view.set("newcomers"), view.set("attestations")
    each = z3.And([z3.Implies(newcomers.has[one], vouched.has[one]) for one in newcomers.names])
    yield holds(name, "admissions", each, newcomers.known, vouched.known)
    yield _groups(view, name)
    yield _keys(view, name)


def _signatures(view: View, clause: AmendmentClause) -> Iterator[Term]:
    kind, signers, party = view.text("kind"), view.set("signers"), view.text("party")
    exited, stage = view.set("exited_parties"), view.text("stage")
    by_one = kind.equals(TIGHTEN) if clause.tighten == "any-contributor" else FALSE
    everybody = [one.party for one in view.contract.contributors]
    asking = z3.And([z3.Implies(party.equals(one), signers.has[one]) for one in party.names])
    all_of_them = z3.And([z3.Or(exited.has[one], signers.has[one]) for one in everybody])
    never_alone = z3.And(signers.has[view.contract.broker.party], signers.any_of(everybody))
    ok = z3.And(never_alone, z3.If(by_one, asking, all_of_them))
    left = z3.Or(by_one, exited.known)
    found = holds(clause.clause, "signatures", ok, kind.known, signers.known, party.known, left)
    yield from only_if([found], known=stage.known, applies=z3.Not(stage.equals(OPEN)))


def _groups(view: View, clause: str) -> Term:
    groups, own = view.facts.fact("groups", TextMap), view.contract.broker.group
    inside_it = z3.Or([z3.And(groups.has[one], groups.of[one].equals(own)) for one in groups.names])
    return holds(clause, "groups", z3.Not(inside_it), groups.known)


def _keys(view: View, clause: str) -> Term:
    """No key stands for two parties. Strangers' keys are taken for one: no other check looks at them."""
    keys = view.facts.fact("keys", TextMap)
    shared = [
        z3.AtMost(*(z3.And(keys.has[one], keys.of[one].equals(key)) for one in keys.names), 1)
        for key in keys.of[keys.names[0]].names
    ]
    return holds(clause, "keys", z3.And(shared), keys.known)


def exit_terms(view: View, clause: ExitClause) -> Iterator[Term]:
    """The notice is there, is not from the future, and makes a choice that the contract offers."""
    name, at, now = clause.clause, view.time("notice_at"), view.time("now")
    yield digest_of(name, "notice", view.text("notice"))
    yield holds(name, "notice-time", at.second <= now.second, at.known, now.known)
    yield inside(name, "choice", view.text("unreleased_models"), CHOICES[clause.unreleased_models])
