# SPDX-License-Identifier: Apache-2.0
"""One finding as a formula, and the comparisons of `policies.contract.findings` over typed variables.

- A `Term` has two truth values: *ok*, where the finding is satisfied, and *open*, where it is unknown. What
  is neither is violated.
- Each function here is the twin of the one with its name in `findings` or `case`; a property test holds the
  two together.

This module needs z3 (extra ``prove``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import z3

from policies.contract.amendment.variables import (
    Cohorts,
    Flag,
    Members,
    Number,
    Text,
    Time,
    Whole,
    decimal_value,
)
from policies.contract.registry import OWN_VIEWS
from policies.encoding import is_digest

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

    from policies.contract.amendment.symbols import Symbols
    from policies.contract.clauses import Contract

__all__ = [
    "FALSE",
    "TRUE",
    "Term",
    "View",
    "at_least",
    "at_most",
    "count_at_least",
    "counted",
    "digest_of",
    "enough",
    "equal",
    "flag",
    "groups_at_least",
    "holds",
    "inside",
    "none_of",
    "only",
    "only_if",
    "waited",
    "when",
    "within",
]

TRUE: Final = z3.BoolVal(val=True)
FALSE: Final = z3.BoolVal(val=False)


@dataclass(frozen=True, slots=True)
class Term:
    """A finding whose outcome depends on the request."""

    clause: str
    check: str
    ok: z3.BoolRef
    open: z3.BoolRef


@dataclass(frozen=True, slots=True)
class View:
    """What a formula may look at: the twin of `policies.contract.case.Case`.

    Attributes:
        contract: Whose clauses are formulas here.
        facts: The request and the state.
        meant: The contract that the request means where it names its own: `succession.as_under`.
    """

    contract: Contract
    facts: Symbols
    meant: Contract

    @property
    def type(self) -> str:
        """Type of the request."""
        return self.facts.kind.TYPE

    def text(self, name: str) -> Text:
        """A fact that is one name."""
        return self.facts.fact(name, Text)

    def number(self, name: str) -> Number:
        """A fact that is a decimal."""
        return self.facts.fact(name, Number)

    def whole(self, name: str) -> Whole:
        """A fact that is a whole number."""
        return self.facts.fact(name, Whole)

    def flag(self, name: str) -> Flag:
        """A fact that is true or false."""
        return self.facts.fact(name, Flag)

    def time(self, name: str) -> Time:
        """A fact that is a time."""
        return self.facts.fact(name, Time)

    def set(self, name: str) -> Members:
        """A fact that is a set of names."""
        return self.facts.fact(name, Members)

    def cohorts(self, name: str) -> Cohorts:
        """A fact that is a list of cohorts."""
        return self.facts.fact(name, Cohorts)

    @property
    def members(self) -> Members:
        """Parties whose updates, or whose data, the request is about."""
        return self.set("survivors" if self.type == "Aggregate" else "cohort")

    @property
    def about_the_pool(self) -> z3.BoolRef:
        """Whether a query is for a number about the pool, where it says which view."""
        return z3.Not(self.text("view").among(OWN_VIEWS))

    def groups_in(self, members: Members) -> list[z3.BoolRef]:
        """For each group of contributors, by name: whether one of its parties is in a set."""
        return [members.any_of(names) for names in self.groups]

    @property
    def groups(self) -> list[list[str]]:
        """Contributors of each independent group, by the name of the group."""
        by_group: dict[str, list[str]] = {}
        for one in self.contract.contributors:
            by_group.setdefault(one.group, []).append(one.party)
        return [names for _, names in sorted(by_group.items())]

    def only_under(self, terms: Iterable[Term], recipe_digest: str) -> Iterator[Term]:
        """Checks that bind requests under one recipe only."""
        asked = self.text("recipe_digest")
        return only_if(terms, known=asked.known, applies=asked.equals(recipe_digest))

    def only_for_the_pool(self, terms: Iterable[Term]) -> Iterator[Term]:
        """Checks that bind queries about the pool only."""
        return only_if(terms, known=self.text("view").known, applies=self.about_the_pool)


def counted(truths: Iterable[z3.BoolRef]) -> z3.ArithRef:
    """How many of these hold."""
    return z3.Sum([z3.IntVal(0), *(z3.If(one, 1, 0) for one in truths)])


def enough(truths: Iterable[z3.BoolRef], least: int) -> z3.BoolRef:
    """Whether so many of these hold."""
    listed = list(truths)
    if least <= 0:
        return TRUE
    return z3.AtLeast(*listed, least) if len(listed) >= least else FALSE


def holds(clause: str, check: str, ok: z3.BoolRef, *known: z3.BoolRef) -> Term:
    """A finding that is unknown unless all of these facts are known."""
    said = z3.And([TRUE, *known])
    return Term(clause, check, z3.And(said, ok), z3.Not(said))


def equal(clause: str, check: str, fact: Text, want: str) -> Term:
    """The fact is exactly this string."""
    return holds(clause, check, fact.equals(want), fact.known)


def inside(clause: str, check: str, fact: Text, want: Collection[str]) -> Term:
    """The fact is one of these strings."""
    return holds(clause, check, fact.among(want), fact.known)


def within(clause: str, check: str, fact: Whole, most: int) -> Term:
    """The fact is a whole number from 1 to a bound."""
    return holds(clause, check, z3.And(fact.number >= 1, fact.number <= most), fact.known)


def at_most(clause: str, check: str, fact: Number, most: str) -> Term:
    """The fact is a decimal not above a bound."""
    return holds(clause, check, fact.number <= decimal_value(most), fact.known)


def flag(clause: str, check: str, fact: Flag, *, want: bool) -> Term:
    """The fact is exactly this truth value."""
    return holds(clause, check, fact.true == z3.BoolVal(val=want), fact.known)


def at_least(clause: str, check: str, fact: Number, least: str) -> Term:
    """The fact is a decimal not below a bound."""
    return holds(clause, check, fact.number >= decimal_value(least), fact.known)


def count_at_least(clause: str, check: str, fact: Whole, least: int) -> Term:
    """The fact is a whole number not below a bound."""
    return holds(clause, check, fact.number >= least, fact.known)


def groups_at_least(view: View, clause: str, check: str, least: int) -> Term:
    """At least so many independent groups are in it."""
    return holds(clause, check, enough(view.groups_in(view.members), least), view.members.known)


def only(clause: str, check: str, fact: Members, want: Collection[str]) -> Term:
    """The fact names nothing else."""
    return holds(clause, check, fact.only(want), fact.known)


def none_of(clause: str, check: str, fact: Members, banned: Collection[str]) -> Term:
    """The fact names none of these."""
    return holds(clause, check, z3.Not(fact.any_of(banned)), fact.known)


def digest_of(clause: str, check: str, fact: Text) -> Term:
    """The fact is a digest."""
    return holds(clause, check, fact.among(one for one in fact.names if is_digest(one)), fact.known)


def waited(clause: str, check: str, since: Time, now: Time, wait_s: int) -> Term:
    """At least this long has passed since a fact."""
    return holds(clause, check, now.second - since.second >= wait_s, since.known, now.known)


def when(applies: z3.BoolRef, terms: Iterable[Term]) -> Iterator[Term]:
    """Checks that run only for some requests; where they do not, nothing is against it."""
    for one in terms:
        yield Term(one.clause, one.check, z3.Implies(applies, one.ok), z3.And(applies, one.open))


def only_if(terms: Iterable[Term], *, known: z3.BoolRef, applies: z3.BoolRef) -> Iterator[Term]:
    """An implication's findings: as they are where it applies, satisfied elsewhere, else unknown."""
    for one in terms:
        ok = z3.And(known, z3.Implies(applies, one.ok))
        yield Term(one.clause, one.check, ok, z3.Or(z3.Not(known), z3.And(applies, one.open)))
