# SPDX-License-Identifier: Apache-2.0
"""The linter: each rule fires on a contract in which its fault was planted, and not on a good one."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from policies.contract import Contract, Request, evaluate, from_tree
from policies.contract.lint import RULES, LintFinding, finding_words, lint
from policies.contract.lint.not_made import NOT_MADE
from policies.contract.registry import CANARY_REPORT, EVIDENCE_MADE, MEMBERSHIP_REPORT
from tests.contractsim import (
    CONTRIBUTORS,
    ORIGIN,
    STATE,
    aggregate,
    authored,
    deliver,
    release,
    runnable,
    train_round,
)

Tree = dict[str, Any]


def good() -> Tree:
    """A contract in which nothing is amiss but that four makers are too few for teams."""
    tree = runnable(ORIGIN)
    tree["purposes"] = tree["purposes"][:2]
    tree["aggregation"] |= {"delay_hours": 24, "secure_aggregation": "required", "group_mac": "on"}
    tree["recipes"][1]["datasets"] = [{"party": name, "dataset": f"{name}/weld"} for name in CONTRIBUTORS]
    tree["incentives"]["method"] = "flat"
    return tree


def at(tree: Tree, path: str, value: Any) -> Tree:
    *parents, last = path.split(".")
    node: Any = tree
    for part in parents:
        node = node[int(part) if part.isdigit() else part]
    node[int(last) if last.isdigit() else last] = value
    return tree


def planted(*faults: tuple[str, Any]) -> Callable[[], Contract]:
    def made() -> Contract:
        tree = good()
        for path, value in faults:
            at(tree, path, value)
        return from_tree(tree)

    return made


def law_only_third() -> Contract:
    """Purposes that nothing can come under, until every third clause is for courts only."""
    tree = good()
    idle = [{"clause": f"idle-{n}", "id": f"idle-{n}", "text": "Later."} for n in range(12)]
    return from_tree(tree | {"purposes": tree["purposes"] + idle})


def without_privacy() -> Tree:
    tree = good()
    tree["privacy"] = {"clause": "dp-1", "mode": "none"}
    tree["release"]["approvals"]["veto"] = ["secret-1", "secret-2"]
    return tree


def with_reports(tree: Tree) -> Tree:
    full = authored()["release"]
    names = ("evidence", "max_mia_auc", "max_property_skill")
    tree["release"] |= {name: copy.deepcopy(full[name]) for name in names}
    return tree


def participants_only() -> Contract:
    """The second recipe is run by three of four, and its model goes to them alone."""
    tree = good()
    tree["recipes"][1]["datasets"] = tree["recipes"][1]["datasets"][:3]
    return from_tree(tree)


OFF = (("aggregation.secure_aggregation", "off"), ("aggregation.group_mac", "off"))
HOME = ("law.governing", "NO")  # nord's own
VOTES = {
    "clause": "validate-1",
    "quorum": "0.67",
    "max_rejected_rounds": 3,
    "judge_episodes": 200,
    "gain_clip": "0.05",
    "max_judgings": 24,
    "epsilon": "2.0",
}
SHARES = (("privacy.noise", "shares"), ("privacy.honest_min", 3))
# rule → the planted contract, and the clause that the finding names
PLANTED: dict[str, tuple[Callable[[], Contract], str]] = {
    "lint.k-too-small": (planted(("aggregation.min_parties", 2)), "k-1"),
    "lint.not-private": (lambda: from_tree(without_privacy()), "dp-1"),
    "lint.delta-too-large": (planted(("privacy.delta", "0.000011")), "dp-1"),
    "lint.epsilon-too-large": (planted(("privacy.epsilon_total", "10.1")), "dp-1"),
    "lint.halt-closed": (planted(("halt.who", ["auditor", "broker"])), "halt-1"),
    "lint.test-only": (planted(("test_only", True)), "@document"),
    "lint.secure-aggregation-off": (planted(*OFF), "k-1"),
    "lint.no-drop-out": (planted(("aggregation.min_parties", 4)), "recipe-1"),
    "lint.group-mac-off": (planted(("aggregation.group_mac", "off")), "k-1"),
    "lint.no-teams": (planted(), "k-1"),
    "lint.embargoes-a-party": (planted(("export_control.embargoed", ["KP", "NO"])), "export-1"),
    "lint.colluders-uncovered": (planted(*OFF, ("aggregation.max_colluders", 1)), "k-1"),
    "lint.shares-trust": (planted(*SHARES), "dp-1"),
    "lint.one-can-end": (planted(("aggregation.min_parties", 4)), "recipe-1"),
    "lint.share-large": (planted(("aggregation.max_share", "0.61")), "k-1"),
    "lint.share-drop-out": (planted(("aggregation.max_share", "0.33")), "recipe-1"),
    "lint.delay-short": (planted(("aggregation.delay_hours", 23)), "k-1"),
    "lint.differencing-off": (planted(("aggregation.differencing_guard", "off")), "k-1"),
    "lint.secret-without-veto": (planted(("release.approvals.veto", ["dp-2"])), "secret-2"),
    "lint.field-telling": (planted(("fields.allow", ["tcp_pos", "cycle_time", "part_number"])), "fields-1"),
    "lint.release-by-one": (planted(("release.approvals.min", 1)), "release-1"),
    "lint.canaries-need-units": (planted(("release.evidence", [CANARY_REPORT, "log-root"])), "release-1"),
    "lint.exclusive-use": (participants_only, "tier-participant"),
    "lint.exit-without-copy": (
        planted(
            (
                "tiers",
                [
                    {**authored()["tiers"][3], "recipe": name, "clause": f"tier-{name}"}
                    for name in ("pick", "weld")
                ],
            )
        ),
        "recipe-1",
    ),
    "lint.exit-without-export": (planted(("audit", None)), "exit-1"),
    "lint.retention-long": (planted(("retention.updates_hours", 73)), "retain-1"),
    "lint.liability-unlimited": (planted(("liability.cap_eur", None)), "liab-1"),
    "lint.liability-one-sided": (planted(("liability.bears", "contributors")), "liab-1"),
    "lint.too-few-players": (planted(("incentives.method", "group-probe-shapley")), "pay-1"),
    "lint.fees-unequal": (planted(("fees.basis", "by-size")), "fees-1"),
    "lint.fees-tied": (planted(("fees.tied_services", "some")), "fees-1"),
    "lint.law-of-one": (planted(HOME), "law-1"),
    "lint.witnesses-few": (planted(("audit.witness_quorum", 1)), "audit-1"),
    "lint.term-long": (planted(("term.expires", "2031-12-07T00:00:00Z")), "term-1"),
    "lint.purpose-unused": (law_only_third, "idle-0"),
    "lint.law-only-share": (law_only_third, "@document"),
    # votes on rounds
    "lint.votes-none": (
        planted(("validation", {"clause": "validate-1", "quorum": "0.67", "max_rejected_rounds": 3})),
        "validate-1",
    ),
    "lint.votes-unaffordable": (planted(("validation", VOTES | {"epsilon": "9"})), "validate-1"),
    "lint.votes-by-noise": (planted(("validation", VOTES | {"judge_episodes": 40})), "validate-1"),
    # what this version cannot keep
    "lint.adjacency-not-made": (planted(("privacy.adjacency", "add-remove")), "dp-1"),
    "lint.evidence-not-made": (planted(("release.evidence", ["log-root", "model-card"])), "release-1"),
    "lint.contribution-not-made": (planted(("tiers.1.min_contribution", "0.02")), "tier-consortium"),
    "lint.ml-dsa-not-made": (planted(("audit.ml_dsa", "require")), "audit-1"),
}


def found(pool: Contract) -> dict[str, LintFinding]:
    return {one.id: one for one in lint(pool)}


def test_a_good_contract_of_four_makers_has_only_the_warning_that_they_are_too_few_for_teams():
    assert list(found(from_tree(good()))) == ["lint.no-teams:k-1"]


def test_every_rule_has_a_planted_contract():
    assert set(PLANTED) == set(RULES)


@pytest.mark.parametrize("rule", RULES)
def test_the_rule_fires_on_its_planted_contract_and_names_the_clause(rule):
    made, clause = PLANTED[rule]
    pool = made()
    finding = found(pool)[f"{rule}:{clause}"]
    assert finding.severity == RULES[rule].severity
    assert finding.need
    assert finding.found
    assert finding.remedy
    assert clause == "@document" or pool.clause(clause) is not None


@pytest.mark.parametrize("rule", [one for one in RULES if one != "lint.no-teams"])
def test_the_rule_does_not_fire_on_the_good_contract(rule):
    assert not [one for one in lint(from_tree(good())) if one.rule == rule]


def test_leak_reports_and_their_bounds_are_made_and_cost_units_only():
    assert list(found(from_tree(with_reports(good())))) == [
        "lint.no-teams:k-1",
        "lint.canaries-need-units:release-1",
    ]


@pytest.mark.parametrize(("k", "units"), [(3, 1100), (4, 800)])
@pytest.mark.parametrize(("evidence", "bound"), [(CANARY_REPORT, None), (MEMBERSHIP_REPORT, "0.6")])
def test_reports_on_canaries_name_the_units_that_each_contributor_needs(evidence, bound, k, units):
    pool = planted(
        ("release.evidence", ["log-root", evidence]),
        ("release.max_mia_auc", bound),
        ("aggregation.min_parties", k),
    )()
    told = found(pool)["lint.canaries-need-units:release-1"]
    assert told.found == f"{evidence}; min_parties {k}: canaries {units // 50}, units {units}"
    assert finding_words(told, "ja")[1] == told.found


def test_a_report_without_canaries_needs_no_units():
    asked = ["federated-evaluation", "log-root", "property-leak-report"]
    pool = planted(("release.evidence", asked), ("release.max_property_skill", "0.25"))()
    assert "lint.canaries-need-units:release-1" not in found(pool)


def test_absences_that_leave_one_group_too_heavy_are_told_before_they_happen():
    """All four together keep the half that is allowed; the contract lets one of them be missing."""
    weights = {"hanbit": "1", "iber": "1", "kita": "3", "nord": "1.5"}
    terms = (
        ("aggregation.weights", "fixed"),
        ("aggregation.fixed_weights", [{"party": one, "weight": two} for one, two in weights.items()]),
    )
    told = found(planted(*terms, ("aggregation.max_share", "0.5"))())
    assert told["lint.share-drop-out:recipe-1"].found == "up to 0.600 for kita, max_share 0.5"
    assert "lint.share-drop-out:recipe-1" not in found(planted(*terms)())  # 0.60, to the bound


def test_what_stands_on_the_bound_is_fine():
    edge = planted(
        ("privacy.delta", "0.00001"),
        ("privacy.epsilon_total", "10"),
        ("aggregation.max_share", "0.60"),
        ("retention.updates_hours", 72),
        ("term.expires", "2031-12-01T00:00:00Z"),
        ("law.governing", "CH"),
        ("fields.allow", ["cyclic_load", "partial_sum", "tcp_pos"]),
    )
    assert list(found(edge())) == ["lint.no-teams:k-1"]


def test_errors_block_and_are_these():
    assert {name for name, row in RULES.items() if row.severity == "error"} == {
        "lint.k-too-small",
        "lint.not-private",
        "lint.delta-too-large",
        "lint.epsilon-too-large",
        "lint.halt-closed",
        "lint.votes-unaffordable",
    }


def test_a_test_pool_may_have_no_privacy_and_says_so():
    tree = without_privacy() | {"test_only": True}
    assert "lint.not-private:dp-1" not in found(from_tree(tree))
    assert found(from_tree(tree))["lint.test-only:@document"].found == "test_only true, privacy mode none"
    weak = planted(("test_only", True), ("privacy.epsilon_total", "50"), ("privacy.delta", "0.01"))
    assert not [one for one in lint(weak()) if one.severity == "error"]


def test_errors_come_first_and_the_order_is_fixed():
    pool = planted(("aggregation.min_parties", 2), ("fees.tied_services", "some"))()
    findings = lint(pool)
    order = [(one.severity, one.clause, one.rule) for one in findings]
    assert order == sorted(order)
    assert findings[0].rule == "lint.k-too-small"
    assert lint(pool) == findings


def test_an_id_fits_a_lane_message_and_stands_once():
    for made, _ in PLANTED.values():
        ids = [one.id for one in lint(made())]
        assert len(set(ids)) == len(ids)
        assert all(re.fullmatch(r"lint\.[a-z-]+:[@a-z][a-z0-9-]*", one) for one in ids)


def test_the_json_of_a_finding_has_its_id():
    first = lint(from_tree(good()))[0].to_json()
    assert set(first) == {"id", "rule", "severity", "clause", "need", "found", "remedy"}
    assert first["id"] == "lint.no-teams:k-1"


def test_a_finding_reads_in_both_languages_with_the_same_figures():
    japanese = re.compile("[぀-ヿ一-鿿]")
    for name, row in RULES.items():
        assert len(row.need) == len(row.remedy) == 2
        assert japanese.search(row.need[1]), name
        assert japanese.search(row.remedy[1]), name
    finding = found(planted(("aggregation.min_parties", 2))())["lint.k-too-small:k-1"]
    need, shown, _ = finding_words(finding)
    assert (need, shown) == ("at least 3 independent groups", "2")
    assert finding_words(finding, "ja")[:2] == ("独立したグループが 3 以上", "2")


def test_each_recipe_and_each_secret_has_its_own_finding():
    pool = planted(("aggregation.min_parties", 4), ("release.approvals.veto", []))()
    ids = set(found(pool))
    assert {"lint.one-can-end:recipe-1", "lint.one-can-end:recipe-2"} <= ids
    assert {"lint.secret-without-veto:secret-1", "lint.secret-without-veto:secret-2"} <= ids


def test_an_owner_that_may_veto_by_another_clause_is_not_without_one():
    pool = planted(("release.approvals.veto", ["dp-2", "party-kita"]))()
    assert not [one for one in lint(pool) if one.rule == "lint.secret-without-veto"]


@pytest.mark.parametrize("licence", ["exclusive to kita", "独占的利用許諾"])
def test_an_exclusive_licence_is_found_by_its_words(licence):
    assert "lint.exclusive-use:tier-consortium" in found(planted(("tiers.1.licence", licence))())
    for fair in ("non-exclusive", "nonexclusive use", "非独占的利用許諾"):
        assert "lint.exclusive-use:tier-consortium" not in found(planted(("tiers.1.licence", fair))())


def test_a_contract_without_a_liability_or_law_clause_has_no_finding_about_them():
    pool = from_tree(
        good() | {"liability": None, "law": None, "fees": None, "incentives": None, "retention": None}
    )
    assert list(found(pool)) == ["lint.no-teams:k-1"]


# --- what is not made refuses: the linter foretells it ---


def as_this_version_asks(pool: Contract) -> dict[str, Request]:
    """Requests with the facts that this version can state, and nothing more; all else is in order."""
    said = ("mode", "unit", "delta", "filter", "noise", "honest_min")
    plan = {name: getattr(pool.privacy, name) for name in said}
    if pool.privacy.adjacency is not None:
        plan["adjacency"] = "zero-out"  # no plan says another
    made = replace(train_round().privacy, **plan)  # type: ignore[type-var]
    evidence = tuple(sorted(EVIDENCE_MADE))
    sums = {name: getattr(pool.aggregation, name) for name in ("secure_aggregation", "group_mac")}
    start = {one.recipe: one for one in pool.seed_sets}.get(pool.recipes[1].id)
    seeds = {
        "seed_set": "none" if start is None else start.seed_set,
        "seed_consents": () if start is None else tuple(one.consent for one in start.donations),
    }
    return {
        "TrainRound pick": train_round(seed_set="none", seed_consents=(), privacy=made, **sums),
        "TrainRound weld": train_round(recipe=pool.recipes[1].recipe_digest, **seeds, privacy=made, **sums),
        "Aggregate": aggregate(
            validation=None,
            rejected_rounds=0,
            privacy=made,
            secure_aggregation=pool.aggregation.secure_aggregation,
        ),
        "Release": release(
            evidence=evidence,
            mia_auc="0.500000",
            property_skill="0.05",
            canaries_fired=(),
            witnesses=0,
            privacy=made,
        ),
        "Deliver": deliver(contribution_share=None),
    }


def refusing(pool: Contract) -> set[str]:
    return {
        clause for one in as_this_version_asks(pool).values() for clause in evaluate(pool, STATE, one).clauses
    }


def test_nothing_refuses_under_the_good_contract():
    assert refusing(from_tree(good())) == set()


@pytest.mark.parametrize("rule", [f"lint.{one.name}" for one in NOT_MADE if one.name != "ml-dsa-not-made"])
def test_what_the_linter_calls_not_made_is_refused_by_that_clause(rule):
    made, _ = PLANTED[rule]
    pool = made()
    named = {one.clause for one in lint(pool) if one.rule == rule}
    assert named <= refusing(pool)


@pytest.mark.parametrize("rule", [f"lint.{one.name}" for one in NOT_MADE])
def test_whatever_refuses_there_was_foretold(rule):
    pool = PLANTED[rule][0]()
    foretold = {one.clause for one in lint(pool) if RULES[one.rule] in NOT_MADE}
    if CANARY_REPORT in pool.release.evidence:  # the finding about that evidence speaks for the secrets too
        foretold |= {one.clause for one in pool.fields.trade_secret}
    assert refusing(pool) - {"conflict-1"} <= foretold


# --- sums over too few ---


def fewer(*names: str) -> Tree:
    """The good contract with these makers in the second recipe."""
    return at(good(), "recipes.1.datasets", [{"party": name, "dataset": f"{name}/weld"} for name in names])


def test_a_recipe_of_three_survives_no_drop_out_and_says_so():
    told = found(from_tree(fewer("iber", "kita", "nord")))
    assert told["lint.no-drop-out:recipe-2"].found == "3 of 3 contributors, 3 of 3 groups"
    assert "lint.no-drop-out:recipe-1" not in told


def test_one_colluder_less_makes_room_for_one_that_is_away():
    assert "lint.no-drop-out:recipe-1" not in found(from_tree(good()))
    one = planted(("aggregation.max_colluders", 1))()  # 3 honest ones are left of 4, and 3 open
    assert "lint.no-drop-out:recipe-1" not in found(one)
    shares = planted(
        ("aggregation.max_colluders", 1), ("privacy.noise", "shares"), ("privacy.honest_min", 3)
    )()
    assert found(shares)["lint.no-drop-out:recipe-1"].found == "3 of 4 contributors, 4 of 4 groups"


def test_nobody_is_told_of_teams_where_there_is_no_sum_to_open_or_where_they_are_many():
    assert "lint.no-teams:k-1" not in found(planted(*OFF)())
    tree = at(good(), "aggregation.min_parties", 2)  # teams of two, of four
    assert "lint.no-teams:k-1" not in found(from_tree(tree))
    assert found(from_tree(good()))["lint.no-teams:k-1"].found == "pick: 4 weld: 4; 3 groups in each sum"
