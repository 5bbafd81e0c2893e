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
    Contract,
    ContractState,
    Deliver,
    EpsilonAfter,
    Exit,
    Join,
    Outcome,
    PlanFacts,
    Query,
    Release,
    Request,
    TrainRound,
    evaluate,
    from_tree,
    request_from_json,
    request_to_json,
    state_from_json,
    state_to_json,
)
from policies.contract.errors import RequestMalformedError
from policies.contract.registry import ASKED_AT
from policies.encoding import canonical, parse
from tests.contractsim import (
    CONSENT,
    EVIDENCE,
    MODEL,
    NOTICE,
    ORIGIN,
    PICK,
    PLAN,
    SEED,
    STATE,
    WELD,
    aggregate,
    allowed,
    authored,
    contract,
    deliver,
    fact_names,
    key,
    leave,
    query,
    release,
    shared_noise,
    shared_noise_allowed,
    train_round,
    without_privacy,
)


def everything_set() -> Contract:
    """The contract with every optional term that looks at one more fact."""
    tree = authored()
    tree["privacy"]["reply_slot_ms"] = 500
    tree["aggregation"]["differencing_guard"] = "all"
    return from_tree(tree)


CONTRACTS = (contract(), without_privacy(), shared_noise(), everything_set())
GOOD = {**allowed(), **{f"{name} with shares": one for name, one in shared_noise_allowed().items()}}

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
    honest_min=st.sampled_from([3, 4]),
    filter=st.just("rdp-fixed-order"),
) | st.just(PLAN)

digests = st.sampled_from([PICK, MODEL, NOTICE, "none", "sha256:" + "0" * 64])
times = st.sampled_from(
    [
        "2026-11-30T23:59:59Z",
        "2026-12-30T00:00:00Z",
        "2027-12-01T23:59:59Z",
        "2027-12-02T00:00:00Z",
        "2028-12-01T00:00:00Z",
        "2027-02-29T00:00:00Z",
        "today",
    ]
)
votes = st.dictionaries(parties, st.booleans(), max_size=5)
cohorts = st.lists(names, max_size=2).map(tuple)
origins = st.sampled_from([ORIGIN, "elsewhere.example/log"])
modes = st.sampled_from(["off", "required", "on"])

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
        "secure_aggregation": modes,
        "group_mac": modes,
        "reply_slot_ms": st.sampled_from([0, 250, 500]),
        "seed_set": st.sampled_from(["none", SEED, PICK]),
        "seed_consents": st.sampled_from([(), (CONSENT,), (NOTICE,)]),
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
        "secure_aggregation": modes,
        "validation": votes,
        "rejected_rounds": st.sampled_from([0, 2, 3]),
        "log_origin": origins,
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
        "made_at": times,
        "validation": votes,
        "mia_auc": decimals,
        "property_skill": decimals,
        "canaries_fired": st.sampled_from([(), ("x_shift_id",), ("x_cell_layout",)]),
        "earlier_cohorts": cohorts,
        "log_origin": origins,
        "witnesses": st.sampled_from([0, 2, 3]),
    },
    Deliver: {
        "party": parties,
        "key": keys,
        "model": st.just(MODEL),
        "recipe_digest": recipes,
        "tier": tiers,
        "released": st.booleans(),
        "released_at": times,
        "made_at": times,
        "country": st.sampled_from(["JP", "RU", "Japan"]),
        "attestation": digests,
        "contribution_share": st.sampled_from(["0", "0.02", "0.019", "x"]),
    },
    Query: {
        "party": parties,
        "key": keys,
        "view": st.sampled_from(["own-budget", "released-model-metrics", "run-status", "sales"]),
        "subject": parties | st.just("all"),
        "cohort": names,
        "earlier_cohorts": cohorts,
        "made_at": times,
        "dp_noised": st.booleans(),
    },
    Join: {
        "party": parties,
        "key": keys,
        "stage": st.sampled_from(["open", "effect", "soon"]),
        "kind": st.sampled_from(["tighten", "change", "loosen"]),
        "supersedes": st.sampled_from([*(one.digest for one in CONTRACTS), PICK]),
        "version": st.sampled_from([1, 2, 3]),
        "no_looser": st.booleans(),
        "signers": names,
        "newcomers": st.sampled_from([(), ("fanuc",)]),
        "attestations": st.sampled_from([(), ("fanuc",)]),
        "groups": st.dictionaries(parties, st.sampled_from(["kita", "broker"]), max_size=3),
        "keys": st.dictionaries(parties, keys, max_size=3),
    },
    Exit: {
        "party": parties,
        "key": keys,
        "notice": digests,
        "notice_at": times,
        "unreleased_models": st.sampled_from(["retrain", "discard", "keep"]),
    },
}
STATES: dict[str, st.SearchStrategy[Any]] = {
    "now": times,
    "executed": st.booleans(),
    "halted": st.booleans(),
    "exited_parties": st.lists(parties, max_size=2).map(tuple),
    "standing": st.sampled_from(["in-force", "superseded", "terminated", "offered"]),
    "rotated_keys": st.dictionaries(parties, keys, max_size=2),
}
# Maps in which a name that is missing says something: who has no key of its own, say. None for the whole map is
# what is not known.
STATEMENTS = frozenset({"keys", "groups", "rotated_keys"})


def test_every_fact_is_drawn():
    assert {kind.TYPE for kind in FACTS} == set(ASKED_AT)
    for kind, facts in FACTS.items():
        assert list(facts) == [one.name for one in fields(kind)]
    assert list(STATES) == fact_names(STATE)


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
                if field.name not in STATEMENTS:
                    yield from ((field.name, *rest) for rest in known(one))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Any, ContractState, Request]:
    """A good request with up to three facts drawn anew, in a state with up to one drawn anew."""
    request = GOOD[draw(st.sampled_from(sorted(GOOD)))]
    for name in draw(st.lists(st.sampled_from(sorted(FACTS[type(request)])), max_size=3, unique=True)):
        request = replace(request, **{name: draw(FACTS[type(request)][name])})
    state = STATE
    for name in draw(st.lists(st.sampled_from(sorted(STATES)), max_size=1)):
        state = replace(state, **{name: draw(STATES[name])})
    return draw(st.sampled_from(CONTRACTS)), state, request


@settings(max_examples=400, deadline=None)
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


# What a request of this contract is not asked about, and why. Every other fact is needed, and named when it is missing.
NOT_ASKED = {
    "TrainRound": {"seed_consents"},  # without a seed set
    "Aggregate": {"validation"},  # `rejected_rounds` says what follows from it
    "Deliver": {"contribution_share"},  # where the tier asks for none
    "Query": {"cohort", "earlier_cohorts", "made_at", "dp_noised"},  # of an own view
    "Join": {"no_looser", "signers", "exited_parties"},  # of a change, of one that is only opened
}


@pytest.mark.parametrize("name", sorted(allowed()))
def test_each_single_fact_is_needed_and_named(name):
    pool = everything_set()
    good = allowed()[name]
    own = {"supersedes": pool.digest, "reply_slot_ms": 500}
    good = replace(good, **{fact: one for fact, one in own.items() if fact in fact_names(good)})
    assert evaluate(pool, STATE, good).allow
    spare = set()
    for path in known(good):
        if path[0] in ("weights", "validation") and len(path) > 1:
            continue  # a member without weight is known to be wrong, one without a vote has not accepted
        if path[0] == "epsilon_after" and len(path) > 1 and path[1] not in good.cohort:
            continue
        decision = evaluate(pool, STATE, without(good, path))
        if decision.allow:
            spare.add(path[0])
            continue
        assert "conflict-1" in decision.clauses, path
        named = " ".join(one.found for one in decision.refusals if one.outcome is Outcome.UNKNOWN)
        assert path[0] in named, path
    assert spare <= NOT_ASKED.get(good.TYPE, set())


def test_every_fact_of_every_type_is_needed_by_some_request():
    pool, needed = everything_set(), set()
    own = {"supersedes": pool.digest, "reply_slot_ms": 500}
    asked = [*allowed().values(), query(view="run-status")]
    for good in asked:
        request = replace(good, **{fact: one for fact, one in own.items() if fact in fact_names(good)})
        for fact in fact_names(request):
            if not evaluate(pool, STATE, replace(request, **{fact: None})).allow:
                needed.add((request.TYPE, fact))
    facts = {(kind.TYPE, fact) for kind, facts in FACTS.items() for fact in facts}
    assert facts - needed == {("Aggregate", "validation")}


@pytest.mark.parametrize("fact", list(STATES))
def test_each_fact_of_the_state_is_needed_by_every_type_that_it_is_about(fact):
    nobody_else_knows = {
        "now": {"Exit", "Query", "Join", "TrainRound", "Aggregate", "Release", "Deliver"},
        "halted": {"TrainRound", "Aggregate", "Release", "Deliver"},
    }
    for good in (
        train_round(),
        aggregate(),
        release(),
        deliver(),
        query(),
        leave(),
        allowed()["Join by all"],
    ):
        decision = evaluate(contract(), replace(STATE, **{fact: None}), good)
        about_it = good.TYPE in nobody_else_knows.get(fact, {good.TYPE})
        assert decision.allow is not about_it, (good.TYPE, fact)
        if about_it:
            assert "conflict-1" in decision.clauses
            unknown = [one.found for one in decision.refusals if one.outcome is Outcome.UNKNOWN]
            assert any(fact in one for one in unknown)


def test_everything_unknown_is_refused():
    nothing = ContractState(**dict.fromkeys(fact_names(STATE)))
    for pool in CONTRACTS:
        for kind, facts in FACTS.items():
            decision = evaluate(pool, nothing, kind(**dict.fromkeys(facts)))
            assert not decision.allow
            reserved = [one for one in decision.findings if one.clause.startswith("@")]
            assert {one.outcome for one in reserved if one.clause != "@queries"} == {Outcome.UNKNOWN}


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@settings(max_examples=120, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.data(), json_values)
@example("Aggregate", None, True)
def test_malformed_recorded_requests_are_refused(name, data, value):
    tree = request_to_json(GOOD[name])
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
