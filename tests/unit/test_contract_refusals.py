# SPDX-License-Identifier: Apache-2.0
"""Refusal completeness: what a contract claims to enforce, a request can run into. A clause that no request violates fails here."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import pytest

from policies.contract import (
    ContractState,
    EpsilonAfter,
    Outcome,
    PlanFacts,
    Request,
    enforcement_map,
    evaluate,
    explain,
    from_tree,
)
from policies.contract.checks import CHECKS
from policies.contract.errors import ExpiredError, HaltedError, NotExecutedError, RefusedError
from policies.contract.registry import ASKED_AT, KINDS
from policies.contract.render import remedy_text
from tests.contractsim import (
    CONTRIBUTORS,
    STATE,
    WELD,
    aggregate,
    allowed,
    authored,
    contract,
    deliver,
    key,
    release,
    train_round,
    without_privacy,
)

CONTRACT = contract()


class Case(NamedTuple):
    """A request that is allowed but for one mutation, and the clauses that must refuse it, exactly."""

    clause: str
    what: str
    request: Request
    state: ContractState = STATE

    @property
    def expected(self) -> set[str]:
        return {self.clause}


def epsilon(**changed: EpsilonAfter) -> dict[str, EpsilonAfter]:
    return dict(release().epsilon_after or {}) | changed


def plan(**changes: str) -> PlanFacts:
    good = train_round().privacy
    assert good is not None
    return replace(good, **changes)


LATE = replace(STATE, now="2028-12-01T00:00:00Z")
THREE = {"kita": "1", "iber": "1", "nord": "1"}
CASES = [
    *(Case(f"party-{name}", "foreign key", train_round(name, key=key("mallory"))) for name in CONTRIBUTORS),
    *(Case(f"party-{name}", "foreign key", deliver(name, key=key("mallory"))) for name in CONTRIBUTORS),
    *(
        Case(f"party-{name}", "has exited", deliver(name), replace(STATE, exited_parties=(name,)))
        for name in CONTRIBUTORS
    ),
    *(
        Case(f"party-{name}", "a contributor averages", aggregate(party=name, key=key(name)))
        for name in CONTRIBUTORS
    ),
    *(
        Case(f"party-{name}", "a contributor releases", release(party=name, key=key(name)))
        for name in CONTRIBUTORS
    ),
    Case("party-broker", "foreign key", aggregate(key=key("mallory"))),
    Case("party-broker", "foreign key", release(key=key("mallory"))),
    Case("party-broker", "foreign key", deliver("broker", tier="open", key=key("mallory"))),
    Case("term-1", "at the second of its end", train_round(), LATE),
    Case("term-1", "at the second of its end", aggregate(), LATE),
    Case("term-1", "at the second of its end", release(), LATE),
    Case("term-1", "a second too early", train_round(), replace(STATE, now="2026-11-30T23:59:59Z")),
    Case("purpose-1", "another purpose", train_round(purpose="reduce-weld-failures")),
    Case("purpose-1", "an unknown purpose", train_round(purpose="sell")),
    Case("purpose-1", "another purpose", aggregate(purpose="safety-monitoring")),
    Case("purpose-2", "another purpose", train_round("nord", recipe=WELD, purpose="improve-common-model")),
    Case("recipe-1", "somebody else's data set", train_round(dataset="nord/pick")),
    Case("recipe-1", "a round too many", train_round(round=201)),
    Case("recipe-1", "round nought", train_round(round=0)),
    Case("recipe-1", "a step too many", train_round(local_steps=2)),
    Case("recipe-1", "a round too many", aggregate(round=201)),
    Case("recipe-2", "a data set of the other recipe", train_round(recipe=WELD, dataset="kita/pick")),
    Case("recipe-2", "who has no data set in it", train_round(recipe=WELD, cohort=CONTRIBUTORS)),
    Case("recipe-2", "steps over its bound", train_round(recipe=WELD, local_steps=21)),
    Case("fields-1", "a field outside the list", train_round(fields=("tcp_pos", "joint_pos"))),
    Case("fields-1", "no field at all", train_round(fields=())),
    Case("secret-1", "a named secret", train_round(fields=("tcp_pos", "x_seam_program"))),
    Case("secret-2", "a named secret", train_round("nord", fields=("tcp_pos", "x_shift_id"))),
    Case("dp-1", "over the total cap", train_round(epsilon_after_total="8.000001")),
    Case("dp-1", "over the release cap", train_round(epsilon_after_release="2.000001")),
    Case("dp-1", "another unit", train_round(privacy=plan(unit="frame"))),
    Case("dp-1", "another adjacency", train_round(privacy=plan(adjacency="add-remove"))),
    Case("dp-1", "a larger delta", train_round(privacy=plan(delta="0.001"))),
    Case("dp-1", "less noise", train_round(privacy=plan(noise="shares"))),
    Case("dp-1", "another stop rule", train_round(privacy=plan(filter="sum"))),
    Case("dp-1", "another unit", aggregate(privacy=plan(unit="frame"))),
    Case(
        "dp-1",
        "one of the cohort over the cap",
        release(epsilon_after=epsilon(kita=EpsilonAfter(release="1", total="8.1"))),
    ),
    Case("dp-2", "over the party's own cap", train_round("nord", epsilon_after_total="4.1")),
    Case(
        "dp-2",
        "over the party's own cap",
        release(epsilon_after=epsilon(nord=EpsilonAfter(release="1", total="4.1"))),
    ),
    Case("dp-3", "over the party's own total", train_round("hanbit", epsilon_after_total="6.5")),
    Case("dp-3", "over the party's own release cap", train_round("hanbit", epsilon_after_release="1.6")),
    Case(
        "dp-3",
        "over the party's own cap",
        release(epsilon_after=epsilon(hanbit=EpsilonAfter(release="1.6", total="4"))),
    ),
    Case("k-1", "two groups", train_round(cohort=("kita", "nord"))),
    Case("k-1", "nobody", train_round(cohort=())),
    Case("k-1", "one group three times", train_round(cohort=("kita", "kita", "kita"))),
    Case("k-1", "secure aggregation other than agreed", train_round(secure_aggregation="required")),
    Case("k-1", "two survivors", aggregate(survivors=("kita", "nord"), weights={"kita": "1", "nord": "1"})),
    Case("k-1", "weights by volume", aggregate(weights=THREE | {"kita": "1.01"})),
    Case("k-1", "weights of somebody who dropped out", aggregate(weights=THREE | {"hanbit": "1"})),
    Case("k-1", "a survivor without weight", aggregate(weights={"kita": "1", "iber": "1"})),
    Case("k-1", "weights of nought and negative zero", aggregate(weights=THREE | {"kita": "0"})),
    Case("k-1", "not finite", aggregate(finite=False)),
    Case("k-1", "an update over the bound", aggregate(norms_within=False)),
    Case("k-1", "norms checked by a looser bound", aggregate(norm_bound="10.1")),
    Case("k-1", "two groups", release(cohort=("kita", "nord"), weights={"kita": "1", "nord": "1"})),
    Case("k-1", "dominance", release(weights=dict.fromkeys(CONTRIBUTORS, "1") | {"kita": "9"})),
    Case("k-1", "one who has exited", train_round(), replace(STATE, exited_parties=("nord",))),
    Case("tier-open", "not released", deliver(tier="open", released=False)),
    Case("tier-consortium", "to the broker", deliver("broker")),
    Case("tier-consortium", "to everybody", deliver("public")),
    Case("tier-consortium", "not released", deliver(released=False)),
    Case(
        "tier-participant",
        "to one without data in it",
        deliver("hanbit", tier="participant", recipe_digest=WELD),
    ),
    Case("tier-private", "released", release(tier="private")),
    Case("tier-private", "delivered", deliver(tier="private")),
    Case("release-1", "evidence missing", release(evidence=("log-root", "privacy-statement"))),
    Case("release-1", "approvals short", release(approvals=("kita", "iber"))),
    Case("release-1", "one party approves twice", release(approvals=("kita", "kita", "iber"))),
    Case("release-1", "the broker approves", release(approvals=("kita", "iber", "broker"))),
    Case("release-1", "veto of an owner", release(approvals=CONTRIBUTORS, vetoes=("nord",))),
    Case("release-1", "veto and approval of the same party", release(vetoes=("iber",))),
    Case("release-1", "no digest", release(model="model-final")),
    Case("@recipes", "an unlisted recipe", train_round(recipe_digest="sha256:" + "0" * 64)),
    Case("@parties", "nobody we know", deliver("mallory", tier="open")),
    Case("@executed", "not signed by all", train_round(), replace(STATE, executed=False)),
    Case("@halted", "halted", aggregate(), replace(STATE, halted=True)),
    Case("@tiers", "a tier that the recipe lacks", release(tier="participant")),
]
UNKNOWN = [
    Case("k-1", "nobody knows", aggregate(finite=None)),
    Case("party-kita", "no key", train_round(key=None)),
    Case("term-1", "no time", release(), replace(STATE, now=None)),
    Case("tier-consortium", "no word on a release", deliver(released=None)),
]


@pytest.mark.parametrize("name", list(allowed()))
def test_good_requests_are_allowed(name):
    request = allowed()[name]
    decision = evaluate(CONTRACT, STATE, request)
    assert decision.allow, explain(decision, request)
    assert decision.refusals == ()
    decision.require()


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.clause}: {case.request.TYPE}, {case.what}")
def test_one_mutation_is_refused_by_exactly_its_clause(case):
    decision = evaluate(CONTRACT, case.state, case.request)
    assert not decision.allow
    assert set(decision.clauses) == case.expected, explain(decision, case.request)
    assert all(one.outcome is Outcome.VIOLATED for one in decision.refusals)
    with pytest.raises(RefusedError) as refused:
        decision.require()
    assert refused.value.clause == case.clause
    assert refused.value.exit_code == 4
    assert refused.value.remedy


@pytest.mark.parametrize("case", UNKNOWN, ids=lambda case: f"{case.clause}: {case.what}")
def test_what_is_not_known_is_refused_by_its_clause_and_by_the_conflict_clause(case):
    decision = evaluate(CONTRACT, case.state, case.request)
    assert set(decision.clauses) == {case.clause, "conflict-1"}
    assert {one.outcome for one in decision.refusals if one.clause == case.clause} == {Outcome.UNKNOWN}
    assert decision.refusals[-1].clause == "conflict-1"
    assert case.clause in decision.refusals[-1].found


def test_every_enforced_clause_has_a_request_that_it_refuses_at_every_point_that_it_claims():
    table = []
    for row in enforcement_map(CONTRACT):
        mine = [case for case in CASES if case.clause == row.clause]
        mine += [case for case in UNKNOWN if row.clause == "conflict-1"]
        types = sorted({case.request.TYPE for case in mine})
        served = {point for name in types for point in ASKED_AT[name]}
        assert set(row.points) <= served, f"{row.clause} claims {row.points}, refusals only at {served}"
        assert bool(mine) == (row.label != "law only"), row.clause
        table.append(
            f"{row.clause:<17} {row.label:<16} {' '.join(row.points):<25} {len(mine):>2} {' '.join(types)}"
        )
    print("\n" + "\n".join(table))
    enforced = [row for row in enforcement_map(CONTRACT) if row.points]
    print(f"enforced clauses with code that refused: {len(enforced)}/{len(enforced)}")
    assert [row.clause for row in enforcement_map(CONTRACT) if row.label == "law only"] == ["purpose-3"]


def test_every_check_was_satisfied_once_and_violated_once():
    def checks(outcome: Outcome) -> set[tuple[str, str]]:
        found = set()
        asked = [(case.request, case.state) for case in (*CASES, *UNKNOWN)]
        asked += [(request, STATE) for request in allowed().values()]
        for request, state in asked:
            for one in evaluate(CONTRACT, state, request).findings:
                clause = CONTRACT.clause(one.clause)
                if one.outcome is outcome:
                    found.add((clause.KIND if clause else one.clause, one.check))
        return found

    mode = ("privacy", "mode")  # its own tests below
    at_home = ("tier", "stays-home")  # nothing satisfies it
    assert checks(Outcome.SATISFIED) - {mode} == (checks(Outcome.VIOLATED) | {mode}) - {mode, at_home}


def test_registry_rows_and_checks_are_the_same_kinds():
    assert set(KINDS) == set(CHECKS) | {"conflict"}
    evaluated: dict[str, set[str]] = {}
    for request in [*allowed().values(), *(case.request for case in CASES)]:
        for one in evaluate(CONTRACT, STATE, request).findings:
            clause = CONTRACT.clause(one.clause)
            if clause is not None:
                evaluated.setdefault(clause.KIND, set()).add(request.TYPE)
    assert evaluated == {name: set(kind.requests) for name, kind in KINDS.items()}
    for kind in KINDS.values():
        served = {point for request in kind.requests for point in ASKED_AT[request]}
        assert kind.points <= served, kind


def test_every_remedy_has_words():
    for case in (*CASES, *UNKNOWN):
        for one in evaluate(CONTRACT, case.state, case.request).findings:
            assert remedy_text(one.remedy)


@pytest.mark.parametrize("request_", [train_round, aggregate, release])
def test_a_plan_is_needed_under_mode_dp_and_refused_under_mode_none(request_):
    unprotected = without_privacy()
    assert evaluate(unprotected, STATE, request_(privacy=PlanFacts.none())).allow
    refused = evaluate(unprotected, STATE, request_())
    assert refused.clauses == ("dp-1",)
    assert {one.check for one in refused.refusals} == {"mode"}
    without_plan = evaluate(CONTRACT, STATE, request_(privacy=PlanFacts.none()))
    assert ("dp-1", "mode") in {
        (one.clause, one.check) for one in without_plan.refusals if one.outcome is Outcome.VIOLATED
    }


def test_epsilon_is_not_asked_for_under_mode_none():
    request = train_round(privacy=PlanFacts.none(), epsilon_after_release=None, epsilon_after_total=None)
    assert evaluate(without_privacy(), STATE, request).allow


def test_term_ends_at_the_exact_second():
    last = replace(STATE, now="2028-11-30T23:59:59Z")
    assert evaluate(CONTRACT, last, train_round()).allow
    assert not evaluate(CONTRACT, LATE, train_round()).allow
    first = replace(STATE, now="2026-12-01T00:00:00Z")
    assert evaluate(CONTRACT, first, train_round()).allow


def test_delivery_of_a_released_model_goes_on_after_the_term():
    assert evaluate(CONTRACT, LATE, deliver()).allow


def test_refusals_have_the_code_of_their_reason():
    for state, error in (
        (LATE, ExpiredError),
        (replace(STATE, halted=True), HaltedError),
        (replace(STATE, executed=False), NotExecutedError),
        (replace(STATE, halted=None), HaltedError),
    ):
        with pytest.raises(error):
            evaluate(CONTRACT, state, train_round()).require()


def test_groups_are_counted_and_not_parties():
    tree = authored()
    tree["parties"][3]["group"] = tree["parties"][2]["group"] = "one-owner"  # hanbit and iber
    pool = from_tree(tree)
    assert evaluate(pool, STATE, train_round()).allow
    decision = evaluate(pool, STATE, train_round(cohort=("kita", "iber", "hanbit")))
    assert {(one.clause, one.check) for one in decision.refusals} == {
        ("k-1", "min-parties"),
        ("k-1", "max-share"),
    }
    assert not evaluate(pool, STATE, release(approvals=("kita", "iber", "hanbit"))).allow


def test_fixed_weights_bind_by_their_ratio():
    tree = authored()
    table = {"hanbit": "1", "iber": "2", "kita": "2", "nord": "1"}
    tree["aggregation"] |= {
        "weights": "fixed",
        "fixed_weights": [{"party": name, "weight": weight} for name, weight in table.items()],
    }
    pool = from_tree(tree)
    assert pool.weights(["nord", "kita"]) == {"kita": "2", "nord": "1"}
    good = aggregate(weights={"kita": "0.4", "iber": "0.4", "nord": "0.2"})
    assert evaluate(pool, STATE, good).allow
    assert evaluate(pool, STATE, aggregate()).clauses == ("k-1",)


def test_a_decision_reads_for_people():
    request = train_round("nord", epsilon_after_total="4.1")
    (line,) = explain(evaluate(CONTRACT, STATE, request), request)
    assert line == (
        "REFUSED TrainRound nord: dp-2 epsilon-total: needs <= 4, found 4.1."
        " Remedy: stop training under this contract, or amend the clause (all contributors)."
    )
    assert explain(evaluate(CONTRACT, STATE, train_round()), train_round())[0].startswith(
        "ALLOWED TrainRound kita"
    )
