# SPDX-License-Identifier: Apache-2.0
"""Refusal completeness: at every point that a clause claims there is a request, mutated once, which exactly that clause refuses.

Run with -rP or -s for the table. A clause that claims a point without such a request fails here.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from policies.contract import (
    Contract,
    ContractState,
    Decision,
    EpsilonAfter,
    Outcome,
    PlanFacts,
    Request,
    decision_bytes,
    enforcement_map,
    evaluate,
    explain,
    from_tree,
    replay,
    request_to_json,
    state_to_json,
)
from policies.contract.case import Case
from policies.contract.checks import CHECKS
from policies.contract.errors import (
    ExpiredError,
    HaltedError,
    NotBegunError,
    NotExecutedError,
    RefusedError,
)
from policies.contract.registry import ASKED_AT, KINDS
from policies.contract.render import remedy_text
from tests.contractsim import (
    CONTRIBUTORS,
    EVIDENCE,
    MODEL,
    SEED,
    STATE,
    WELD,
    aggregate,
    allowed,
    authored,
    contract,
    deliver,
    key,
    query,
    release,
    shared_noise,
    shared_noise_allowed,
    train_round,
    without_privacy,
)

CONTRACT = contract()
SALT = bytes(range(16))
MALLORY = key("mallory")
STRANGER = "sha256:" + "0" * 64


@dataclass(frozen=True)
class Mutation:
    """One change of a request that is allowed, or of the state, and the clause that must refuse it, alone."""

    clause: str
    what: str
    base: str
    request: Mapping[str, Any] = field(default_factory=dict)
    state: Mapping[str, Any] = field(default_factory=dict)
    unknown: bool = False

    def asked(self, bases: Mapping[str, Request]) -> tuple[ContractState, Request]:
        return replace(STATE, **self.state), replace(bases[self.base], **self.request)

    @property
    def single(self) -> bool:
        """One fact; who asks is a name and its key."""
        changed = [*self.request, *self.state]
        return len(changed) == 1 or changed == ["party", "key"]

    @property
    def id(self) -> str:
        return f"{self.clause}: {self.base}, {self.what}"


def as_party(name: str) -> dict[str, str]:
    return {"party": name, "key": key(name)}


def epsilon(name: str, release_: str, total: str) -> dict[str, Any]:
    table = dict(release().epsilon_after or {})
    return {"epsilon_after": table | {name: EpsilonAfter(release=release_, total=total)}}


def plan(base: str, bases: Mapping[str, Request], **changes: str) -> dict[str, PlanFacts]:
    given = bases[base].privacy
    assert isinstance(given, PlanFacts)
    return {"privacy": replace(given, **changes)}


LATE = {"now": "2028-12-01T00:00:00Z"}
EARLY = {"now": "2026-11-30T23:59:59Z"}
THREE = {"kita": "1", "iber": "1", "nord": "1"}
M = Mutation


def of_parties() -> Iterator[Mutation]:
    for name in CONTRIBUTORS:
        yield M(f"party-{name}", "foreign key", f"TrainRound pick {name}", {"key": MALLORY})
        yield M(
            f"party-{name}",
            "its key was rotated",
            f"TrainRound pick {name}",
            state={"rotated_keys": {name: MALLORY}},
        )
        yield M(f"party-{name}", "a contributor averages", "Aggregate", as_party(name))
        yield M(f"party-{name}", "a contributor releases", "Release consortium", as_party(name))
        yield M(f"party-{name}", "has exited", f"Deliver open to {name}", state={"exited_parties": (name,)})
    yield M("party-broker", "foreign key", "Aggregate", {"key": MALLORY})
    yield M("party-broker", "foreign key", "Release consortium", {"key": MALLORY})
    yield M("party-broker", "foreign key", "Deliver open to a party", {"key": MALLORY})
    yield M("party-broker", "the broker leaves", "Exit", as_party("broker"))
    yield M("party-audit", "the auditor averages", "Aggregate", as_party("audit"))
    yield M("party-audit", "the auditor releases", "Release consortium", as_party("audit"))
    yield M("party-audit", "a model for the auditor", "Deliver open to a party", as_party("audit"))
    yield M("party-audit", "the auditor amends", "Join by all", as_party("audit"))


def of_times() -> Iterator[Mutation]:
    for base in (
        "TrainRound pick kita",
        "Aggregate",
        "Release consortium",
        "Query of its own",
        "Join by all",
    ):
        yield M("term-1", "at the second of its end", base, state=LATE)
    yield M("term-1", "a second too early", "TrainRound pick kita", state=EARLY)
    yield M(
        "term-1", "released after the term", "Deliver consortium", {"released_at": "2028-12-01T00:00:00Z"}
    )
    yield M(
        "term-1", "released before the term", "Deliver consortium", {"released_at": "2026-11-30T23:59:59Z"}
    )
    for base in ("TrainRound pick kita", "Aggregate", "Release consortium", "Deliver consortium"):
        yield M("halt-1", "halted", base, state={"halted": True})


def of_training() -> Iterator[Mutation]:
    pick, weld = "TrainRound pick kita", "TrainRound weld kita"
    yield M("purpose-1", "another purpose", pick, {"purpose": "reduce-weld-failures"})
    yield M("purpose-1", "an unknown purpose", pick, {"purpose": "sell"})
    yield M("purpose-1", "a purpose of no recipe", "Aggregate", {"purpose": "safety-monitoring"})
    yield M("purpose-2", "another purpose", weld, {"purpose": "improve-common-model"})
    yield M("forbid-5", "an unlisted recipe", pick, {"recipe_digest": STRANGER})
    yield M("recipe-1", "somebody else's data set", pick, {"dataset": "nord/pick"})
    yield M("recipe-1", "a round too many", pick, {"round": 201})
    yield M("recipe-1", "round nought", pick, {"round": 0})
    yield M("recipe-1", "a step too many", pick, {"local_steps": 2})
    yield M("recipe-1", "a seed set that nobody agreed", pick, {"seed_set": SEED})
    yield M("recipe-1", "a round too many", "Aggregate", {"round": 201})
    yield M("recipe-2", "a data set of the other recipe", weld, {"dataset": "kita/pick"})
    yield M("recipe-2", "steps over its bound", weld, {"local_steps": 21})
    yield M("recipe-2", "a round too many", weld, {"round": 101})
    yield M("seed-1", "another seed set", weld, {"seed_set": STRANGER})
    yield M("seed-1", "no seed set", weld, {"seed_set": "none"})
    yield M("seed-1", "a consent is missing", weld, {"seed_consents": (STRANGER,)})
    yield M("fields-1", "a field outside the list", pick, {"fields": ("tcp_pos", "joint_pos")})
    yield M("fields-1", "no field at all", pick, {"fields": ()})
    yield M("secret-1", "a named secret", pick, {"fields": ("tcp_pos", "x_seam_program")})
    yield M("secret-2", "a named secret", pick, {"fields": ("tcp_pos", "x_shift_id")})
    yield M("secret-1", "its canary fired", "Release consortium", {"canaries_fired": ("x_seam_program",)})
    yield M("secret-2", "its canary fired", "Release consortium", {"canaries_fired": ("x_shift_id",)})


def of_privacy(bases: Mapping[str, Request]) -> Iterator[Mutation]:
    pick = "TrainRound pick kita"
    yield M("dp-1", "over the total cap", pick, {"epsilon_after_total": "8.000001"})
    yield M("dp-1", "over the release cap", pick, {"epsilon_after_release": "2.000001"})
    for base in (pick, "Aggregate", "Release consortium"):
        yield M("dp-1", "another unit", base, plan(base, bases, unit="frame"))
        yield M("dp-1", "another adjacency", base, plan(base, bases, adjacency="add-remove"))
        yield M("dp-1", "a larger delta", base, plan(base, bases, delta="0.001"))
        yield M("dp-1", "other noise", base, plan(base, bases, noise="some"))
        yield M("dp-1", "another stop rule", base, plan(base, bases, filter="sum"))
    yield M("dp-1", "one of the cohort over the cap", "Release consortium", epsilon("kita", "1", "8.1"))
    yield M("dp-1", "a metric without noise", "Query of the pool", {"dp_noised": False})
    yield M("dp-2", "over the party's own cap", "TrainRound pick nord", {"epsilon_after_total": "4.1"})
    yield M("dp-2", "over the party's own cap", "Release consortium", epsilon("nord", "1", "4.1"))
    yield M("dp-3", "over its own total", "TrainRound pick hanbit", {"epsilon_after_total": "6.5"})
    yield M("dp-3", "over its own release cap", "TrainRound pick hanbit", {"epsilon_after_release": "1.6"})
    yield M("dp-3", "over the party's own cap", "Release consortium", epsilon("hanbit", "1.6", "4"))


def of_pooling(bases: Mapping[str, Request]) -> Iterator[Mutation]:
    pick = "TrainRound pick kita"
    members = tuple(bases["Aggregate"].survivors)
    ones = dict.fromkeys(members, "1")
    yield M("k-1", "secure aggregation other than agreed", pick, {"secure_aggregation": "off"})
    yield M("k-1", "group authentication other than agreed", pick, {"group_mac": "off"})
    yield M("k-1", "secure aggregation other than agreed", "Aggregate", {"secure_aggregation": "off"})
    yield M("k-1", "weights by volume", "Aggregate", {"weights": ones | {"kita": "1.01"}})
    yield M("k-1", "weights of somebody who dropped out", "Aggregate", {"weights": ones | {"audit": "1"}})
    yield M("k-1", "a survivor without weight", "Aggregate", {"weights": {"kita": "1", "iber": "1"}})
    yield M("k-1", "a weight of nought", "Aggregate", {"weights": ones | {"kita": "0"}})
    yield M("k-1", "not finite", "Aggregate", {"finite": False})
    yield M("k-1", "an update over the bound", "Aggregate", {"norms_within": False})
    yield M("k-1", "norms checked by a looser bound", "Aggregate", {"norm_bound": "10.1"})
    dominant = dict.fromkeys(CONTRIBUTORS, "1") | {"kita": "9"}
    yield M("k-1", "dominance", "Release consortium", {"weights": dominant})
    yield M("k-1", "one who has exited", pick, state={"exited_parties": ("nord",)})
    fresh = {"made_at": "2027-12-01T00:00:01Z"}
    yield M("k-1", "a second too fresh", "Release consortium", fresh)
    yield M("k-1", "a second too fresh", "Deliver consortium", fresh)
    yield M("k-1", "a second too fresh", "Query of the pool", fresh)


def of_outputs() -> Iterator[Mutation]:
    pool, own, status = "Query of the pool", "Query of its own", "Query of the run"
    yield M("query-1", "a view that is not listed", pool, {"view": "sales"})
    yield M("query-1", "two groups behind it", pool, {"cohort": ("kita", "nord")})
    yield M("query-1", "nobody behind it", pool, {"cohort": ()})
    yield M("forbid-2", "another party's number", own, {"subject": "kita"})
    yield M("forbid-2", "one party's number as the pool's", pool, {"subject": "kita"})
    yield M("forbid-4", "a number about the pool without noise", status, {"dp_noised": False})
    yield M("forbid-6", "no attestation of use", "Deliver consortium", {"attestation": "none"})
    yield M("export-1", "an embargoed country", "Deliver consortium", {"country": "RU"})


def of_release() -> Iterator[Mutation]:
    base, votes = "Release consortium", dict.fromkeys(CONTRIBUTORS, True)
    yield M("forbid-1", "members can be told apart", base, {"mia_auc": "0.651"})
    yield M("forbid-3", "a canary of no named secret fired", base, {"canaries_fired": ("x_cell_layout",)})
    yield M("forbid-4", "a property leaks", base, {"property_skill": "0.26"})
    yield M("validate-1", "three rejected in a row", "Aggregate", {"rejected_rounds": 3})
    yield M(
        "validate-1",
        "half of the groups accept",
        base,
        {"validation": votes | {"kita": False, "nord": False}},
    )
    yield M("validate-1", "nobody judged", base, {"validation": {}})
    yield M("release-1", "evidence missing", base, {"evidence": EVIDENCE[1:]})
    yield M("release-1", "approvals short", base, {"approvals": ("kita", "iber")})
    yield M("release-1", "one party approves twice", base, {"approvals": ("kita", "kita", "iber")})
    yield M("release-1", "the broker approves", base, {"approvals": ("kita", "iber", "broker")})
    yield M("release-1", "veto of an owner", base, {"vetoes": ("nord",)})
    yield M("release-1", "veto and approval of the same party", base, {"vetoes": ("iber",)})
    yield M("release-1", "no digest", base, {"model": "model-final"})
    yield M("audit-1", "another log", "Aggregate", {"log_origin": "elsewhere.example/log"})
    yield M("audit-1", "another log", base, {"log_origin": "elsewhere.example/log"})
    yield M("audit-1", "two witnesses", base, {"witnesses": 2})
    yield M("tier-open", "a day before the embargo ends", "Release open", {"made_at": "2027-06-06T00:00:00Z"})
    yield M(
        "tier-open", "a second before the embargo ends", "Deliver open", {"made_at": "2027-06-05T00:00:01Z"}
    )
    yield M("tier-open", "not released", "Deliver open", {"released": False})
    yield M("tier-consortium", "to the broker", "Deliver consortium", as_party("broker"))
    yield M("tier-consortium", "to everybody", "Deliver consortium", {"party": "public"})
    yield M("tier-consortium", "not released", "Deliver consortium", {"released": False})
    yield M(
        "tier-consortium", "contributed too little", "Deliver consortium", {"contribution_share": "0.019"}
    )
    yield M("tier-participant", "not released", "Deliver participant", {"released": False})
    yield M("tier-participant", "to everybody", "Deliver participant", {"party": "public"})
    yield M("tier-private", "released", base, {"tier": "private"})
    yield M("tier-private", "delivered", "Deliver consortium", {"tier": "private"})


def of_changes() -> Iterator[Mutation]:
    change, proven, opened = "Join by all", "Join proven", "Join opened"
    names = (*CONTRIBUTORS, "broker")
    yield M("amend-1", "a successor of another contract", change, {"supersedes": STRANGER})
    yield M("amend-1", "a version too far", change, {"version": 3})
    yield M("amend-1", "a kind that is none", change, {"kind": "loosen"})
    yield M("amend-1", "a stage that is none", change, {"stage": "soon"})
    for name in names:
        left = tuple(one for one in names if one != name)
        yield M("amend-1", f"not signed by {name}", change, {"signers": left})
    yield M("amend-1", "no proof", proven, {"no_looser": False})
    yield M("amend-1", "not signed by who asks", proven, {"signers": ("broker", "nord")})
    yield M("amend-1", "not signed by the broker", proven, {"signers": CONTRIBUTORS})
    yield M("amend-1", "a newcomer nobody vouched for", change, {"newcomers": ("fanuc",)})
    yield M("amend-1", "a contributor of the broker's group", opened, {"groups": {"kita": "broker"}})
    yield M("amend-1", "two parties with one key", opened, {"keys": {"kita": MALLORY, "nord": MALLORY}})
    yield M("exit-1", "no notice", "Exit", {"notice": "none"})
    yield M("exit-1", "a notice from the future", "Exit", {"notice_at": "2027-12-02T00:00:01Z"})
    yield M("exit-1", "a choice that was not agreed", "Exit", {"unreleased_models": "discard"})


def of_the_document() -> Iterator[Mutation]:
    yield M("@executed", "not signed by all", "TrainRound pick kita", state={"executed": False})
    yield M("@recipes", "an unlisted recipe", "Aggregate", {"recipe_digest": STRANGER})
    yield M("@tiers", "a tier that the recipe lacks", "Release consortium", {"tier": "participant"})
    yield M("@parties", "nobody we know", "Deliver open", {"party": "mallory"})
    for base in ("TrainRound pick kita", "Release consortium"):
        yield M("@standing", f"{base} after a successor", base, state={"standing": "superseded"})
    for base in ("Aggregate", "Release consortium", "Join by all"):
        yield M("@standing", "terminated", base, state={"standing": "terminated"})


def of_the_unknown() -> Iterator[Mutation]:
    yield M("k-1", "nobody knows", "Aggregate", {"finite": None}, unknown=True)
    yield M("party-kita", "no key", "TrainRound pick kita", {"key": None}, unknown=True)
    yield M("term-1", "no time of release", "Deliver open", {"released_at": None}, unknown=True)
    yield M("audit-1", "no word on witnesses", "Release consortium", {"witnesses": None}, unknown=True)
    yield M("tier-consortium", "no word on a release", "Deliver consortium", {"released": None}, unknown=True)
    yield M("export-1", "no country", "Deliver consortium", {"country": None}, unknown=True)
    yield M("halt-1", "no word on a halt", "TrainRound pick kita", state={"halted": None}, unknown=True)


MORE = {
    "Query of the run": query(view="run-status"),
    **{f"Deliver open to {name}": deliver(name, tier="open") for name in CONTRIBUTORS},
}
BASES = {**allowed(), **MORE}
MUTATIONS = [
    *of_parties(),
    *of_times(),
    *of_training(),
    *of_privacy(BASES),
    *of_pooling(BASES),
    *of_outputs(),
    *of_release(),
    *of_changes(),
    M("recipe-2", "who has no data set in it", "TrainRound weld kita", {"cohort": CONTRIBUTORS}),
    M("tier-participant", "to one without data in it", "Deliver participant", as_party("hanbit")),
    M("k-1", "two groups", "TrainRound pick kita", {"cohort": ("kita", "nord")}),
    M("k-1", "nobody", "TrainRound pick kita", {"cohort": ()}),
    M("k-1", "one group three times", "TrainRound pick kita", {"cohort": ("kita", "kita", "kita")}),
    M("k-1", "two survivors", "Aggregate", {"survivors": ("kita", "nord")}),
    M("k-1", "two groups", "Release consortium", {"cohort": ("kita", "nord")}),
    *of_the_document(),
]
UNKNOWN = list(of_the_unknown())


def judged(pool: Contract, mutation: Mutation, bases: Mapping[str, Request]) -> Decision:
    state, request = mutation.asked(bases)
    return evaluate(pool, state, request)


@pytest.mark.parametrize("name", list(BASES))
def test_good_requests_are_allowed(name):
    decision = evaluate(CONTRACT, STATE, BASES[name])
    assert decision.allow, explain(decision, BASES[name])
    assert decision.refusals == ()
    decision.require()


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda one: one.id)
def test_one_mutation_is_refused_by_exactly_its_clause(mutation):
    decision = judged(CONTRACT, mutation, BASES)
    assert not decision.allow
    assert decision.clauses == (mutation.clause,), explain(decision, mutation.asked(BASES)[1])
    assert all(one.outcome is Outcome.VIOLATED for one in decision.refusals)
    with pytest.raises(RefusedError) as refused:
        decision.require()
    assert refused.value.clause == mutation.clause
    assert refused.value.exit_code == 4
    assert refused.value.remedy


@pytest.mark.parametrize("mutation", UNKNOWN, ids=lambda one: one.id)
def test_what_is_not_known_is_refused_by_its_clause_and_by_the_conflict_clause(mutation):
    decision = judged(CONTRACT, mutation, BASES)
    assert set(decision.clauses) == {mutation.clause, "conflict-1"}
    mine = [one for one in decision.refusals if one.clause == mutation.clause]
    assert {one.outcome for one in mine} == {Outcome.UNKNOWN}
    assert decision.refusals[-1].clause == "conflict-1"
    assert mutation.clause in decision.refusals[-1].found


def test_every_mutation_changes_one_thing():
    assert [one.id for one in (*MUTATIONS, *SHARED_MUTATIONS, *UNKNOWN) if not one.single] == []


def table(
    pool: Contract, mutations: list[Mutation], bases: Mapping[str, Request]
) -> dict[tuple[str, str], list[Mutation]]:
    """For each clause and point, the mutations that exactly this clause refuses there."""
    found: dict[tuple[str, str], list[Mutation]] = {}
    for one in mutations:
        state, request = one.asked(bases)
        decision = evaluate(pool, state, request)
        expected = {one.clause, "conflict-1"} if one.unknown else {one.clause}
        assert set(decision.clauses) == expected, (one.id, explain(decision, request))
        for point in ASKED_AT[request.TYPE] - {"auditor"}:
            record = decision_bytes(
                decision, contract_digest=pool.digest, point=point, request=request, state=state, salt16=SALT
            )
            facts, known = request_to_json(request), state_to_json(state)
            assert replay(pool, point=point, request=facts, state=known, salt16=SALT) == record
            for clause in expected:
                found.setdefault((clause, point), []).append(one)
        for clause in expected:
            found.setdefault((clause, "auditor"), []).append(one)  # who replayed saw the same refusal
    return found


def complete(pool: Contract, mutations: list[Mutation], bases: Mapping[str, Request]) -> list[str]:
    """The printed table; fails where a clause claims a point without a request that it refuses there."""
    found, lines = table(pool, mutations, bases), []
    for row in enforcement_map(pool):
        for point in row.points:
            mine = found.get((row.clause, point), [])
            assert mine, f"{row.clause} claims {point}, and nothing was refused by it there"
            first = mine[0]
            kind = bases[first.base].TYPE
            lines.append(f"{row.clause:<17} {point:<8} {len(mine):>3}  {kind:<11} {first.base}: {first.what}")
        if not row.points:
            assert not [one for one in mutations if one.clause == row.clause], row.clause
            lines.append(f"{row.clause:<17} law only")
    return lines


LAW_ONLY = {"prose-1", "purpose-3", "deriv-1", "retain-1", "pay-1", "fees-1", "liab-1", "law-1"}


def test_every_enforced_clause_refuses_a_request_at_every_point_that_it_claims():
    lines = complete(CONTRACT, [*MUTATIONS, *UNKNOWN], BASES)
    print("\nclause            point    how often refused there, first: request, mutation")
    print("\n".join(lines))
    rows = enforcement_map(CONTRACT)
    enforced = [row for row in rows if row.points]
    pairs = sum(len(row.points) for row in enforced)
    print(f"enforced clauses that refused: {len(enforced)}/{len(enforced)}, at {pairs}/{pairs} points")
    assert {row.clause for row in rows if row.label == "law only"} == LAW_ONLY


def test_a_claim_without_a_refusal_fails_the_table():
    without = [one for one in (*MUTATIONS, *UNKNOWN) if one.clause != "export-1"]
    with pytest.raises(AssertionError, match="export-1 claims gate"):
        complete(CONTRACT, without, BASES)


SHARED = shared_noise()
SHARED_BASES = {**shared_noise_allowed(), **MORE}
SHARED_MUTATIONS = [
    *of_parties(),
    *of_times(),
    *of_training(),
    *of_privacy(SHARED_BASES),
    *of_pooling(SHARED_BASES),
    *of_outputs(),
    *of_release(),
    *of_changes(),
    *(
        M("dp-1", "noise of three where one may collude", base, {fact: ("iber", "kita", "nord")})
        for base, fact in (("TrainRound pick kita", "cohort"), ("TrainRound weld kita", "cohort"))
    ),
    *(
        M("dp-1", "each adds the full noise", base, plan(base, SHARED_BASES, noise="local-full"))
        for base in ("TrainRound pick kita", "Aggregate", "Release consortium")
    ),
    *(
        M("dp-1", "a share sized for more honest silos", base, plan(base, SHARED_BASES, honest_min=4))
        for base in ("TrainRound pick kita", "Aggregate", "Release consortium")
    ),
    *of_the_document(),
]


def test_noise_shares_with_secure_aggregation_refuse_at_every_point_too():
    for name, request in SHARED_BASES.items():
        assert evaluate(SHARED, STATE, request).allow, name
    lines = complete(SHARED, [*SHARED_MUTATIONS, *UNKNOWN], SHARED_BASES)
    print("\n" + "\n".join(line for line in lines if line.startswith(("dp-", "k-1"))))
    rows = enforcement_map(SHARED)
    assert {row.clause for row in rows if row.label == "law only"} == LAW_ONLY


def test_with_noise_shares_a_sum_of_three_is_not_opened():
    three = ("iber", "kita", "nord")
    short = replace(SHARED_BASES["Aggregate"], survivors=three, weights=dict.fromkeys(three, "1"))
    assert [(one.clause, one.check) for one in evaluate(SHARED, STATE, short).refusals] == [
        ("dp-1", "honest-min")
    ]


def test_every_check_was_satisfied_once_and_violated_once():
    def checks(outcome: Outcome) -> set[tuple[str, str]]:
        found = set()
        asked = [one.asked(BASES) for one in (*MUTATIONS, *UNKNOWN)]
        asked += [(STATE, request) for request in BASES.values()]
        for state, request in asked:
            for one in evaluate(CONTRACT, state, request).findings:
                clause = CONTRACT.clause(one.clause)
                if one.outcome is outcome:
                    found.add((clause.KIND if clause else one.clause, one.check))
        return found

    mode = ("privacy", "mode")  # its own tests below
    at_home = ("tier", "stays-home")  # nothing satisfies it
    elsewhere = {("aggregation", "differencing"), ("@queries", "listed"), ("amendment", "newcomers")}  # below
    assert checks(Outcome.SATISFIED) - {mode, *elsewhere} == checks(Outcome.VIOLATED) - {
        mode,
        at_home,
        *elsewhere,
    }


def test_registry_rows_and_checks_are_the_same_kinds():
    assert {name for name, kind in KINDS.items() if kind.points} == set(CHECKS) | {"conflict"}
    evaluated: dict[str, set[str]] = {}
    for request in BASES.values():
        for one in evaluate(CONTRACT, STATE, request).findings:
            clause = CONTRACT.clause(one.clause)
            if clause is not None:
                evaluated.setdefault(clause.KIND, set()).add(request.TYPE)
    assert evaluated == {name: set(kind.requests) for name, kind in KINDS.items() if kind.points}
    for kind in KINDS.values():
        served = {point for request in kind.requests for point in ASKED_AT[request]}
        assert kind.points <= served, kind


def test_a_check_says_nothing_about_requests_that_its_kind_is_not_about():
    """The evaluator asks by the registry; asked beyond it, a check must not answer for another clause."""
    whatever_is_asked = {"party", "term", "halt"}
    for kind in sorted(set(CHECKS) - whatever_is_asked):
        for request in BASES.values():
            if request.TYPE in KINDS[kind].requests:
                continue
            for clause in (one for one in CONTRACT.clauses() if kind == one.KIND):
                assert list(CHECKS[kind](Case(CONTRACT, STATE, request), clause)) == [], (kind, request.TYPE)


def test_a_decision_without_findings_refuses():
    with pytest.raises(RefusedError, match="nothing was judged"):
        Decision(request_type="TrainRound", allow=False, findings=()).require()


def test_every_remedy_has_words():
    for mutation in (*MUTATIONS, *UNKNOWN):
        for one in judged(CONTRACT, mutation, BASES).findings:
            assert remedy_text(one.remedy)


# --- what the table cannot show ---


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
    assert not evaluate(CONTRACT, replace(STATE, **LATE), train_round()).allow
    first = replace(STATE, now="2026-12-01T00:00:00Z")
    assert evaluate(CONTRACT, first, train_round()).allow


@pytest.mark.parametrize(
    "state", [LATE, {"standing": "superseded"}, {"standing": "terminated"}, LATE | {"standing": "superseded"}]
)
def test_delivery_of_a_released_model_goes_on_after_the_end(state):
    assert evaluate(CONTRACT, replace(STATE, **state), deliver()).allow


def test_a_round_that_was_open_when_a_successor_came_is_closed_under_its_own_contract():
    assert evaluate(CONTRACT, replace(STATE, standing="superseded"), aggregate()).allow
    assert not evaluate(CONTRACT, replace(STATE, standing="terminated"), aggregate()).allow


@pytest.mark.parametrize("standing", ["offered", ""])
def test_a_standing_that_is_none_lets_nothing_through(standing):
    for request in BASES.values():
        assert "@standing" in evaluate(CONTRACT, replace(STATE, standing=standing), request).clauses


def test_queries_and_exits_go_on_under_a_halt():
    halted = replace(STATE, halted=True)
    for name in ("Query of the pool", "Join by all", "Exit"):
        assert evaluate(CONTRACT, halted, BASES[name]).allow


def test_refusals_have_the_code_of_their_reason():
    for state, error in (
        (LATE, ExpiredError),
        ({"now": "2020-01-01T00:00:00Z"}, NotBegunError),
        ({"halted": True}, HaltedError),
        ({"executed": False}, NotExecutedError),
        ({"halted": None}, HaltedError),
    ):
        with pytest.raises(error):
            evaluate(CONTRACT, replace(STATE, **state), train_round()).require()


def test_a_rotated_key_is_the_key_in_force():
    rotated = replace(STATE, rotated_keys={"kita": MALLORY})
    assert evaluate(CONTRACT, rotated, train_round(key=MALLORY)).allow
    assert evaluate(CONTRACT, rotated, train_round("nord")).allow
    unknown = evaluate(CONTRACT, replace(STATE, rotated_keys=None), train_round())
    assert set(unknown.clauses) == {"party-kita", "conflict-1"}


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
    split = dict.fromkeys(CONTRIBUTORS, True) | {"iber": False}
    judged_by = evaluate(pool, STATE, release(validation=split))  # a group that disagrees with itself
    assert [one.found for one in judged_by.refusals] == ["2 of 3 groups"]


def test_fixed_weights_bind_by_their_ratio():
    tree = authored()
    table_ = {"hanbit": "1", "iber": "2", "kita": "2", "nord": "1"}
    tree["aggregation"] |= {
        "weights": "fixed",
        "fixed_weights": [{"party": name, "weight": weight} for name, weight in table_.items()],
    }
    pool = from_tree(tree)
    assert pool.weights(["nord", "kita"]) == {"kita": "2", "nord": "1"}
    good = aggregate(weights={"kita": "0.4", "iber": "0.4", "nord": "0.2"})
    assert evaluate(pool, STATE, good).allow
    assert evaluate(pool, STATE, aggregate()).clauses == ("k-1",)


def guarded(guard: str, **changes: Any) -> Contract:
    tree = authored() | changes
    tree["aggregation"] |= {"differencing_guard": guard}
    return from_tree(tree)


NOT_PRIVATE = {
    "privacy": {"clause": "dp-1", "mode": "none"},
    "release": authored()["release"] | {"approvals": {"of": "contributors", "min": 3, "veto": []}},
}
NEAR = (("hanbit", "iber", "kita"),)  # one group fewer than everybody
FAR = (("kita",),)  # three groups fewer


@pytest.mark.parametrize(
    ("guard", "changes", "request_", "refused"),
    [
        ("all", {}, release(earlier_cohorts=NEAR), True),
        ("all", {}, release(earlier_cohorts=(CONTRIBUTORS, *FAR)), False),
        ("non-dp-outputs", {}, release(earlier_cohorts=NEAR), False),
        ("non-dp-outputs", NOT_PRIVATE, release(earlier_cohorts=NEAR, privacy=PlanFacts.none()), True),
        (
            "non-dp-outputs",
            NOT_PRIVATE,
            release(earlier_cohorts=(CONTRIBUTORS,), privacy=PlanFacts.none()),
            False,
        ),
        ("off", NOT_PRIVATE, release(earlier_cohorts=NEAR, privacy=PlanFacts.none()), False),
        ("all", {}, query(earlier_cohorts=NEAR), True),
        ("all", {}, query(earlier_cohorts=FAR), False),
        ("non-dp-outputs", {}, query(earlier_cohorts=NEAR), False),
        (
            "non-dp-outputs",
            NOT_PRIVATE | {"forbidden": []},
            query(earlier_cohorts=NEAR, dp_noised=False),
            True,
        ),
        ("off", NOT_PRIVATE | {"forbidden": []}, query(earlier_cohorts=NEAR, dp_noised=False), False),
        ("all", {}, query("nord", view="own-budget", subject="nord", cohort=(), earlier_cohorts=NEAR), False),
    ],
)
def test_outputs_that_differ_by_few_groups_are_guarded(guard, changes, request_, refused):
    decision = evaluate(guarded(guard, **changes), STATE, request_)
    assert decision.allow is not refused, explain(decision, request_)
    if refused:
        assert [(one.clause, one.check) for one in decision.refusals] == [("k-1", "differencing")]


def test_two_parties_of_one_group_do_not_hide_a_difference():
    tree = authored()
    tree["parties"][3]["group"] = tree["parties"][2]["group"] = "one-owner"  # hanbit and iber
    tree["aggregation"] |= {"differencing_guard": "all", "max_share": "1"}
    request = release(
        cohort=("iber", "kita", "nord"),
        weights={"iber": "1", "kita": "1", "nord": "1"},
        earlier_cohorts=(CONTRIBUTORS,),
    )
    decision = evaluate(from_tree(tree), STATE, request)
    assert [(one.check, one.found) for one in decision.refusals] == [("differencing", "1 others")]


def test_without_a_clause_of_queries_every_query_is_refused():
    for name in ("Query of the pool", "Query of its own"):
        assert evaluate(contract(queries=None), STATE, BASES[name]).clauses == ("@queries",)


def test_without_a_forbidding_clause_the_general_one_refuses():
    pool = contract(forbidden=[])
    for request, clause in (
        (release(mia_auc="0.66"), "release-1"),
        (release(property_skill="0.26"), "release-1"),
        (query("nord", view="own-budget", subject="kita", cohort=()), "query-1"),
        (train_round(recipe_digest=STRANGER), "@recipes"),
    ):
        assert evaluate(pool, STATE, request).clauses == (clause,)
    assert evaluate(pool, STATE, deliver(attestation="none")).allow


def test_a_secret_is_tested_for_where_the_evidence_has_canaries():
    tree = authored()
    tree["forbidden"] = []
    tree["release"]["evidence"].remove("canary-report")
    pool = from_tree(tree)
    assert "gate" not in pool.clause("secret-1").enforced_by
    assert evaluate(pool, STATE, release(canaries_fired=None)).allow


def test_a_reply_slot_binds_where_it_is_set():
    tree = authored()
    tree["privacy"]["reply_slot_ms"] = 500
    pool = from_tree(tree)
    assert evaluate(pool, STATE, train_round(reply_slot_ms=500)).allow
    assert evaluate(pool, STATE, train_round(reply_slot_ms=0)).clauses == ("dp-1",)
    assert set(evaluate(pool, STATE, train_round(reply_slot_ms=None)).clauses) == {"dp-1", "conflict-1"}


def test_a_leaver_may_choose_where_the_contract_says_so():
    tree = authored()
    tree["exit"]["unreleased_models"] = "leaver-chooses"
    pool = from_tree(tree)
    for choice, allowed_ in (("retrain", True), ("discard", True), ("keep", False)):
        request = replace(BASES["Exit"], unreleased_models=choice)
        assert evaluate(pool, STATE, request).allow is allowed_


def test_a_tightening_by_all_needs_everybody():
    tree = authored()
    tree["amendment"]["tighten"] = "all-contributors"
    pool = from_tree(tree)
    proven = replace(BASES["Join proven"], supersedes=pool.digest)
    assert evaluate(pool, STATE, proven).clauses == ("amend-1",)
    assert evaluate(pool, STATE, replace(proven, signers=(*CONTRIBUTORS, "broker"))).allow


def test_the_broker_never_amends_alone():
    asked_by_broker = {**as_party("broker"), "signers": ("broker",)}
    for name in ("Join proven", "Join by all"):
        left = replace(STATE, exited_parties=CONTRIBUTORS)
        alone = evaluate(CONTRACT, left, replace(BASES[name], **asked_by_broker))
        assert [(one.clause, one.check) for one in alone.refusals] == [("amend-1", "signatures")]
    with_one = replace(BASES["Join proven"], **as_party("broker"))
    assert evaluate(CONTRACT, STATE, with_one).allow


def test_who_has_left_need_not_sign_and_newcomers_come_by_change():
    left = replace(STATE, exited_parties=("nord",))
    signers = ("broker", "hanbit", "iber", "kita")
    assert evaluate(CONTRACT, left, replace(BASES["Join by all"], signers=signers)).allow
    newcomer = {"newcomers": ("fanuc",), "attestations": ("fanuc",)}
    assert evaluate(CONTRACT, STATE, replace(BASES["Join by all"], **newcomer)).allow
    tightened = evaluate(CONTRACT, STATE, replace(BASES["Join proven"], **newcomer))
    assert [(one.clause, one.check) for one in tightened.refusals] == [("amend-1", "newcomers")]


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


def test_facts_that_are_not_what_they_say_are_unknown():
    for request in (
        release(made_at="yesterday"),
        release(made_at="2026-13-30T00:00:00Z"),
        deliver(country="Japan"),
        deliver(contribution_share="a fifth"),
        deliver(released_at="2027-02-29T00:00:00Z"),
        release(mia_auc="NaN"),
    ):
        decision = evaluate(CONTRACT, STATE, request)
        assert "conflict-1" in decision.clauses
        assert {one.outcome for one in decision.refusals if one.check != "unknown"} == {Outcome.UNKNOWN}


def test_the_model_is_the_one_that_was_named():
    assert release().model == deliver().model == MODEL
    assert train_round(recipe=WELD).seed_set == SEED
