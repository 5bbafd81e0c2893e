# SPDX-License-Identifier: Apache-2.0
"""Leaving a fact out never helps: whatever else is true, None turns no refusal into an allowance, and no check disappears."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass, replace
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from policies.contract import (
    Aggregate,
    ContractState,
    Deliver,
    EpsilonAfter,
    Outcome,
    PlanFacts,
    Release,
    Request,
    TrainRound,
    evaluate,
    request_from_json,
    request_to_json,
    state_from_json,
    state_to_json,
)
from policies.contract.errors import RequestMalformedError
from policies.encoding import canonical, parse
from tests.contractsim import (
    EVIDENCE,
    MODEL,
    PICK,
    PLAN,
    STATE,
    WELD,
    aggregate,
    allowed,
    contract,
    deliver,
    key,
    release,
    train_round,
    without_privacy,
)

CONTRACTS = (contract(), without_privacy())

# --- requests around the border between allowed and refused ---

parties = st.sampled_from(["kita", "nord", "iber", "hanbit", "broker", "public", "mallory"])
names = st.lists(parties, max_size=6).map(tuple)
keys = parties.map(key)
decimals = st.sampled_from(
    ["0", "0.5", "1", "1.5", "2", "3.9", "4", "4.1", "8", "8.000001", "10", "11", "nonsense"]
)
recipes = st.sampled_from([PICK, WELD, "sha256:" + "0" * 64])
purposes = st.sampled_from(["improve-common-model", "reduce-weld-failures", "safety-monitoring"])
tiers = st.sampled_from(["open", "consortium", "participant", "private", "secret"])
weights = st.dictionaries(parties, st.sampled_from(["0", "0.25", "1", "9", "x"]), max_size=5)
epsilons = st.builds(EpsilonAfter, release=decimals | st.none(), total=decimals | st.none())
plans = st.builds(
    PlanFacts,
    mode=st.sampled_from(["dp", "none"]),
    unit=st.sampled_from(["episode", "frame"]),
    adjacency=st.sampled_from(["zero-out", "add-remove"]),
    delta=st.sampled_from(["0.00001", "0.1"]),
    noise=st.sampled_from(["local-full", "shares"]),
    filter=st.just("rdp-fixed-order"),
) | st.just(PLAN)

FACTS: dict[type, dict[str, st.SearchStrategy[Any]]] = {
    TrainRound: {
        "party": parties,
        "key": keys,
        "recipe_digest": recipes,
        "purpose": purposes,
        "dataset": st.sampled_from(["kita/pick", "nord/pick", "kita/weld"]),
        "fields": st.lists(
            st.sampled_from(["tcp_pos", "goal_pos", "x_shift_id", "joint_pos"]), max_size=3
        ).map(tuple),
        "round": st.sampled_from([0, 1, 100, 101, 200, 201]),
        "local_steps": st.sampled_from([0, 1, 2, 21]),
        "cohort": names,
        "privacy": plans,
        "epsilon_after_release": decimals,
        "epsilon_after_total": decimals,
        "secure_aggregation": st.sampled_from(["off", "required"]),
    },
    Aggregate: {
        "party": parties,
        "key": keys,
        "recipe_digest": recipes,
        "purpose": purposes,
        "round": st.sampled_from([0, 1, 101, 201]),
        "survivors": names,
        "weights": weights,
        "norm_bound": decimals,
        "norms_within": st.booleans(),
        "finite": st.booleans(),
        "privacy": plans,
        "secure_aggregation": st.sampled_from(["off", "required"]),
    },
    Release: {
        "party": parties,
        "key": keys,
        "model": st.sampled_from([MODEL, "model"]),
        "recipe_digest": recipes,
        "tier": tiers,
        "cohort": names,
        "weights": weights,
        "epsilon_after": st.dictionaries(parties, epsilons, max_size=5),
        "evidence": st.lists(st.sampled_from([*EVIDENCE, "trust-me"]), max_size=4).map(tuple),
        "approvals": names,
        "vetoes": names,
        "privacy": plans,
    },
    Deliver: {
        "party": parties,
        "key": keys,
        "model": st.just(MODEL),
        "recipe_digest": recipes,
        "tier": tiers,
        "released": st.booleans(),
    },
}
STATES: dict[str, st.SearchStrategy[Any]] = {
    "now": st.sampled_from(["2026-11-30T23:59:59Z", "2026-12-02T00:00:00Z", "2028-12-01T00:00:00Z", "today"]),
    "executed": st.booleans(),
    "halted": st.booleans(),
    "exited_parties": st.lists(parties, max_size=2).map(tuple),
}


def without(value: Any, path: tuple[str, ...]) -> Any:
    """The value with the fact at the path unknown; an entry of a mapping becomes None below, or is taken out."""
    step, *rest = path
    if isinstance(value, Mapping):
        other = dict(value)
        if rest:
            other[step] = without(value[step], tuple(rest))
        else:
            del other[step]
        return other
    below = without(getattr(value, step), tuple(rest)) if rest else None
    return replace(value, **{step: below})


def known(value: Any) -> Iterator[tuple[str, ...]]:
    """Paths of the facts that are known, nested ones too."""
    if isinstance(value, Mapping):
        for name, one in value.items():
            yield (name,)
            yield from ((name, *rest) for rest in known(one))
    elif is_dataclass(value) and not isinstance(value, type):
        for field in fields(value):
            one = getattr(value, field.name)
            if one is not None:
                yield (field.name,)
                yield from ((field.name, *rest) for rest in known(one))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ContractState, Request]:
    """A good request with up to three facts drawn anew, in a state with up to one drawn anew."""
    good = draw(st.sampled_from(sorted(allowed())))
    request = allowed()[good]
    for name in draw(st.lists(st.sampled_from(sorted(FACTS[type(request)])), max_size=3, unique=True)):
        request = replace(request, **{name: draw(FACTS[type(request)][name])})
    state = STATE
    for name in draw(st.lists(st.sampled_from(sorted(STATES)), max_size=1)):
        state = replace(state, **{name: draw(STATES[name])})
    return draw(st.sampled_from(CONTRACTS)), state, request


@settings(max_examples=200, deadline=None)
@given(cases(), st.data())
def test_no_missing_fact_turns_a_refusal_into_an_allowance(case, data):
    pool, state, request = case
    before = evaluate(pool, state, request)
    paths = [("request", *path) for path in known(request)] + [("state", *path) for path in known(state)]
    for where, *path in data.draw(
        st.lists(st.sampled_from(sorted(paths)), min_size=1, max_size=3, unique=True)
    ):
        try:
            if where == "request":
                request = without(request, tuple(path))
            else:
                state = without(state, tuple(path))
        except (AttributeError, KeyError, TypeError):
            continue  # its parent is gone already
    after = evaluate(pool, state, request)
    assert not (after.allow and not before.allow)


@settings(max_examples=120, deadline=None)
@given(cases())
def test_every_answer_is_total_sorted_and_consistent(case):
    pool, state, request = case
    decision = evaluate(pool, state, request)
    order = [(one.clause, one.check) for one in decision.findings]
    assert order == sorted(set(order))
    assert decision.findings
    assert decision.allow == all(one.outcome is Outcome.SATISFIED for one in decision.findings)
    conflict = next(one for one in decision.findings if one.clause == "conflict-1")
    open_ends = [one for one in decision.findings if one.outcome is Outcome.UNKNOWN]
    assert (conflict.outcome is Outcome.VIOLATED) == bool(open_ends)
    assert all(one.found.startswith("unknown: ") for one in open_ends)
    assert evaluate(pool, state, request) == decision


@settings(max_examples=120, deadline=None)
@given(cases(), st.data())
def test_a_missing_fact_removes_no_check(case, data):
    pool, state, request = case
    path = data.draw(st.sampled_from(sorted(known(request))))
    if path in (("party",), ("tier",)):
        return  # party and tier say which clauses are asked; to leave them out is unknown by itself
    before = {(one.clause, one.check) for one in evaluate(pool, state, request).findings}
    after = {(one.clause, one.check) for one in evaluate(pool, state, without(request, path)).findings}
    assert before <= after


@settings(max_examples=120, deadline=None)
@given(cases())
def test_requests_and_states_come_back_from_their_json(case):
    _, state, request = case
    assert request_from_json(parse(canonical(request_to_json(request)))) == request
    assert state_from_json(parse(canonical(state_to_json(state)))) == state


@pytest.mark.parametrize("good", [train_round(), aggregate(), release(), deliver()], ids=lambda one: one.TYPE)
def test_each_single_fact_is_needed_and_named(good):
    pool = contract()
    for path in known(good):
        decision = evaluate(pool, STATE, without(good, path))
        assert not decision.allow, path
        if good.TYPE == "Aggregate" and path[:1] == ("weights",) and len(path) > 1:
            continue  # a survivor without weight is known to be wrong
        if path[:1] == ("weights",) and len(path) > 1:
            continue
        assert "conflict-1" in decision.clauses, path
        named = " ".join(one.found for one in decision.refusals if one.outcome is Outcome.UNKNOWN)
        assert path[0] in named, path


@pytest.mark.parametrize("fact", ["now", "executed", "halted", "exited_parties"])
def test_each_fact_of_the_state_is_needed(fact):
    decision = evaluate(contract(), replace(STATE, **{fact: None}), train_round())
    assert not decision.allow
    assert "conflict-1" in decision.clauses


def test_everything_unknown_is_refused():
    nothing = ContractState(now=None, executed=None, halted=None, exited_parties=None)
    for kind, facts in FACTS.items():
        request = kind(**dict.fromkeys(facts))
        decision = evaluate(contract(), nothing, request)
        assert not decision.allow
        assert Outcome.SATISFIED not in {
            one.outcome for one in decision.findings if one.clause.startswith("@")
        }


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(allowed())), st.data(), json_values)
@example("Aggregate", None, True)
def test_malformed_recorded_requests_are_refused(name, data, value):
    tree = request_to_json(allowed()[name])
    step = "round" if data is None else data.draw(st.sampled_from(sorted(tree)))
    for mutant in (
        tree | {step: value},
        tree | {"extra": value},
        {k: v for k, v in tree.items() if k != step},
        value,
    ):
        try:
            read = request_from_json(mutant)
        except RequestMalformedError:
            continue
        assert request_to_json(read) == mutant  # nothing was bent into shape
