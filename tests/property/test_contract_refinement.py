# SPDX-License-Identifier: Apache-2.0
"""The proof is about the evaluator: formulas agree with its findings, the order table is sound, witnesses replay."""

from __future__ import annotations

import functools
import itertools
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import assume, event, given, settings
from hypothesis import strategies as st

from policies.contract import Contract, ContractState, Outcome, Request, evaluate
from policies.contract.amendment import no_looser_by_order, prove
from policies.contract.amendment.succession import as_under
from tests.amendsim import EDITS, TIGHTENINGS, Edit, asked, edited, named, near
from tests.contractsim import CONTRIBUTORS, STATE, contract, query

z3 = pytest.importorskip("z3", reason="the extra prove is not installed")

from policies.contract.amendment.formulas import terms_of  # noqa: E402
from policies.contract.amendment.symbols import Symbols  # noqa: E402
from policies.contract.amendment.terms import Term, View  # noqa: E402
from policies.contract.amendment.variables import (  # noqa: E402
    Cohorts,
    Epsilons,
    Fact,
    Flag,
    FlagMap,
    Members,
    Number,
    NumberMap,
    Plan,
    Text,
    TextMap,
    Time,
    Whole,
    decimal_value,
)
from policies.contract.amendment.vocabulary import vocabulary  # noqa: E402
from policies.contract.findings import decimal_of, moment_of  # noqa: E402  after the skip
from policies.encoding import is_digest  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Iterator


# --- a concrete request in place of the variables ---


def _bool(value: object) -> Any:
    return z3.BoolVal(bool(value))


def _word(fact: Text | Members, value: str) -> str:
    """The name that stands for a value: itself, a digest like any other, or the stranger."""
    if value in fact.names:
        return value
    stranger = fact.names[-1]
    digests = [one for one in fact.names if is_digest(one)]
    return digests[0] if is_digest(value) and digests and not is_digest(stranger) else stranger


def _pins(fact: Fact, value: Any) -> Iterator[tuple[Any, Any]]:
    """What each variable of a fact stands for."""
    known = value is not None
    if isinstance(fact, Number):
        number = decimal_of(value)
        known = number is not None
        yield fact.number, decimal_value(str(number)) if known else z3.RealVal(0)
    elif isinstance(fact, Time):
        moment = moment_of(value)
        known = moment is not None
        yield fact.second, z3.IntVal((moment or 0) // 1000)
    elif isinstance(fact, Whole):
        yield fact.number, z3.IntVal(value or 0)
    elif isinstance(fact, Flag):
        yield fact.true, _bool(value)
    elif isinstance(fact, Text):
        yield fact.index, z3.IntVal(fact.names.index(_word(fact, value)) if known else 0)
    elif isinstance(fact, Members):
        named_there = {_word(fact, one) for one in value or ()}
        yield from ((var, _bool(one in named_there)) for one, var in fact.has.items())
    elif isinstance(fact, Cohorts):
        yield fact.any, _bool(value)
        yield from _pins(fact.one, value[0] if value else ())
    elif isinstance(fact, Plan):
        for name, part in fact.facts.items():
            yield from _pins(part, getattr(value, name) if known else None)
    else:
        known = known and not (isinstance(fact, NumberMap) and None in map(decimal_of, value.values()))
        yield from _map_pins(fact, value if known else {})
    yield fact.known, _bool(known)


def _map_pins(fact: Fact, value: dict[str, Any]) -> Iterator[tuple[Any, Any]]:
    assert isinstance(fact, (FlagMap, NumberMap, TextMap, Epsilons))
    for one, var in fact.has.items():
        yield var, _bool(one in value)
        if isinstance(fact, FlagMap):
            yield fact.true[one], _bool(value.get(one))
        elif isinstance(fact, NumberMap):
            yield fact.of[one], decimal_value(value.get(one, "0"))
        elif isinstance(fact, TextMap):
            yield from _pins(fact.of[one], value.get(one))
        else:
            entry = value.get(one)
            yield from _pins(fact.release[one], entry.release if entry else None)
            yield from _pins(fact.total[one], entry.total if entry else None)


@functools.lru_cache(maxsize=400)
def _formulas(one: Contract, kind: type[Request]) -> tuple[Symbols, tuple[Term, ...], Any]:
    """The variables, the findings, and all findings as the arguments of one expression: one substitution for all."""
    symbols = Symbols(kind, vocabulary(one, contract()))
    terms = tuple(terms_of(View(one, symbols, meant=one)))
    parts = [part for term in terms for part in (term.ok, term.open)]
    together = z3.Function("all", *[z3.BoolSort()] * (len(parts) + 1))(*parts)
    return symbols, terms, together


def outcomes_by_formula(
    one: Contract, state: ContractState, request: Request
) -> dict[tuple[str, str], Outcome]:
    """What the formulas say about a concrete request."""
    symbols, terms, together = _formulas(one, type(request))
    pins = [
        pin
        for name, fact in symbols.facts().items()
        for pin in _pins(fact, getattr(request, name) if hasattr(request, name) else getattr(state, name))
    ]
    told = {}
    values = z3.simplify(z3.substitute(together, *pins)).children()
    for term, ok, open_ in zip(terms, values[::2], values[1::2], strict=True):
        assert z3.is_true(ok) or z3.is_false(ok), (term.clause, term.check, ok)
        assert not (z3.is_true(ok) and z3.is_true(open_)), (term.clause, term.check)
        told[term.clause, term.check] = (
            Outcome.SATISFIED
            if z3.is_true(ok)
            else Outcome.UNKNOWN
            if z3.is_true(open_)
            else Outcome.VIOLATED
        )
    return told


STRIDE = 29  # of some 7,000 requests; each blend takes others
TOGETHER = 8


def blends() -> list[list[Edit]]:
    """Every edit in one of a few contracts, several in each."""
    made: list[list[Edit]] = []
    for one in EDITS:
        fits = (some for some in made if len(some) < TOGETHER and edited([*some, one]) is not None)
        some = next(fits, None)
        if some is None:
            made.append([one])
        else:
            some.append(one)
    return made


@functools.cache
def variants() -> tuple[Contract, ...]:
    """The contract, and the contract with each edit by itself."""
    made = [contract(), *(edited([one]) for one in EDITS)]
    return tuple(one for one in made if one is not None)


def differing(one: Contract, state: ContractState, request: Request) -> dict[tuple[str, str], Any]:
    """Findings of which evaluator and formula say different things."""
    told = outcomes_by_formula(one, state, request)
    found = {(two.clause, two.check): two.outcome for two in evaluate(one, state, request).findings}
    assert set(found) <= set(told), sorted(set(found) - set(told))
    both = {place: (found.get(place, Outcome.SATISFIED), told[place]) for place in told}
    return {place: pair for place, pair in both.items() if pair[0] is not pair[1]}


@pytest.mark.slow
@settings(max_examples=200, deadline=None, derandomize=True)
@given(data=st.data())
def test_every_finding_of_a_random_request_is_what_its_formula_says(data: st.DataObject) -> None:
    one = variants()[data.draw(st.integers(0, len(variants()) - 1))]
    request, state = data.draw(asked(one))
    assert differing(one, state, request) == {}


@pytest.mark.slow
def test_every_finding_around_the_border_is_what_its_formula_says() -> None:
    for number, edits in enumerate(blends()):
        one = edited(edits)
        assert one is not None
        for request, state in itertools.islice(near(vocabulary(one, contract())), number, None, STRIDE):
            assert differing(one, state, request) == {}, [two.name for two in edits]


# --- the order table and the search, over pairs of contracts ---


@functools.cache
def chained(names: tuple[str, ...], old: Contract) -> Contract | None:
    """The successor of a contract with these edits of the sim's contract."""
    return edited([named(name) for name in names], follows=old)


@functools.cache
def proof(old: Contract, new: Contract) -> Any:
    return prove(old, new)


def _names(edits: tuple[Edit, ...], most: int) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from([one.name for one in edits]), max_size=most, unique=True)


def _pair(common: list[str], fresh: list[str]) -> tuple[Contract, Contract]:
    old = edited([named(name) for name in common])
    assume(old is not None)
    assert old is not None
    new = chained((*common, *(name for name in fresh if name not in common)), old)
    assume(new is not None)
    assert new is not None
    return old, new


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(common=_names(EDITS, 2), fresh=_names(TIGHTENINGS, 3))
def test_what_the_order_table_calls_no_looser_z3_finds_nothing_against(
    common: list[str], fresh: list[str]
) -> None:
    old, new = _pair(common, fresh)
    assume(no_looser_by_order(old, new))
    verdict = proof(old, new)
    assert verdict.witnesses == ()
    assert [one for one in verdict.objections if one.why in ("witness", "not-proven")] == []


@pytest.mark.slow
@settings(max_examples=60, deadline=None, derandomize=True)
@given(common=_names(EDITS, 2), fresh=_names(EDITS, 3))
def test_every_witness_replays_and_nothing_stays_unproven(common: list[str], fresh: list[str]) -> None:
    old, new = _pair(common, fresh)
    verdict = proof(old, new)
    assert [one for one in verdict.objections if one.why == "not-proven"] == []
    for witness in verdict.witnesses:
        assert evaluate(new, witness.state, witness.request).allow
        refused = evaluate(old, witness.state, as_under(witness.request, new, old))
        assert witness.clause in refused.clauses


def _slips_through(old: Contract, new: Contract, request: Request, state: ContractState) -> bool:
    """Whether the successor allows what its predecessor refuses."""
    if not evaluate(new, state, request).allow:
        return False
    return not evaluate(old, state, as_under(request, new, old)).allow


@pytest.mark.slow
@settings(max_examples=40, deadline=None, derandomize=True)
@given(fresh=_names(EDITS, 2), start=st.integers(0, 4))
def test_a_request_that_slips_through_is_called_looser_by_table_and_proof(
    fresh: list[str], start: int
) -> None:
    old, new = _pair([], fresh)
    for request, state in itertools.islice(near(vocabulary(old, new)), start, None, 5):
        if _slips_through(old, new, as_under(request, old, new), state):
            assert not no_looser_by_order(old, new)
            assert not proof(old, new).no_looser
            event("slipped through")
            return


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        "nord's total cap is raised",
        "less contribution is enough",
        "another recipe",
        "the quorum is lower",
        "validation is gone",
    ],
)
def test_requests_around_the_border_do_find_planted_loosenings(name: str) -> None:
    old = contract()
    new = chained((name,), old)
    assert new is not None
    found = near(vocabulary(old, new))
    assert any(_slips_through(old, new, as_under(request, old, new), state) for request, state in found)


def test_an_earlier_cohort_is_judged_by_itself() -> None:
    """One arbitrary cohort stands for the list: what two of them say together is what each says alone."""
    one = edited([named("the differencing guard binds all")])
    assert one is not None
    cohorts = [some for size in range(5) for some in itertools.combinations(CONTRIBUTORS, size)]

    def far(*earlier: tuple[str, ...]) -> bool:
        asked = query(cohort=CONTRIBUTORS, earlier_cohorts=earlier)
        found = evaluate(one, STATE, asked).findings
        return next(two for two in found if two.check == "differencing").outcome is Outcome.SATISFIED

    for first, second in itertools.combinations(cohorts, 2):
        assert far(first, second) == (far(first) and far(second))
