# SPDX-License-Identifier: Apache-2.0
"""The comparison with Cedar is one of the same rules: both engines refuse by the same clauses."""

from __future__ import annotations

import sys
from dataclasses import replace

import pytest

from policies.contract import Contract, evaluate, from_tree
from sandbox import bench_decide
from sandbox.cedar_rules import context, policies, rules
from sandbox.errors import UsageError
from tests.contractsim import (
    CONTRIBUTORS,
    STATE,
    authored,
    contract,
    shared_noise,
    shared_noise_allowed,
    train_round,
    with_fifth_maker,
    without_privacy,
)


def test_figures_and_agreement():
    pytest.importorskip("cedarpy", reason="the dev extra is not installed")
    found = bench_decide.run(decisions=10, blocks=1)
    for name in ("decisions_per_s", "cedar_per_s", "cedar_prepared_per_s", "cedar_text_per_s", "ratio"):
        assert found[name] > 0
    assert found["agreement"]["requests"] > 90
    assert found["agreement"]["refused_by_the_same_clauses"] > 75
    assert found["cedar"]["outside"]


def test_rules_that_are_not_the_contracts_are_found():
    pytest.importorskip("cedarpy", reason="the dev extra is not installed")
    looser = authored()
    looser["recipes"][0]["max_rounds"] = 20_000
    with pytest.raises(UsageError, match="recipe-1 rounds"):
        bench_decide._agree(contract(), bench_decide.Cedar(from_tree(looser)))


def protected() -> Contract:
    tree = with_fifth_maker(authored())
    tree["privacy"] |= {"protected_properties": ["shift-pattern"], "reply_slot_ms": 500}
    tree["aggregation"]["secure_aggregation"] = "required"
    tree["forbidden"] = []
    return from_tree(tree)


POOLS = [contract(), shared_noise(), without_privacy(), protected()]


@pytest.mark.parametrize("pool", POOLS, ids=["full", "shares", "none", "protected"])
def test_there_is_a_rule_for_every_check(pool):
    request = shared_noise_allowed()["TrainRound pick kita"] if pool.privacy.honest_min else train_round()
    checks = {f"{one.clause} {one.check}" for one in evaluate(pool, STATE, request).findings}
    written = {one.id for one in rules(pool)}
    other_parties = {one.id for one in rules(pool) if one.check in ("key", "role", "not-exited")}
    caps_of_others = {one.id for one in rules(pool) if one.clause in ("dp-2", "dp-3")}
    assert checks - {"conflict-1 unknown"} <= written
    assert written - checks <= other_parties | caps_of_others
    assert policies(pool).count("forbid (") == len(written)


def test_what_is_not_known_is_left_out():
    facts = context(contract(), replace(STATE, now="soon"), train_round(cohort=None, epsilon_after_total="x"))
    assert {"now_s", "cohort", "groups", "share", "epsilon_after_total"} & set(facts) == set()
    known = context(contract(), STATE, train_round())
    assert (known["groups"], known["share"], known["epsilon_after_total"]) == (
        len(CONTRIBUTORS),
        250_000,
        3_210_000,
    )
    assert context(contract(), STATE, train_round(cohort=("broker",)))["groups"] == 0


def test_without_cedar_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "cedarpy", None)
    with pytest.raises(UsageError, match="cedarpy") as refused:
        bench_decide.run(decisions=10, blocks=1)
    assert refused.value.exit_code == 2
