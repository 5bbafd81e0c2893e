# SPDX-License-Identifier: Apache-2.0
"""Votes on rounds and evaluations of candidates read the same episodes: a contract has room for both, or none signs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from policies.contract import Contract, from_tree
from policies.contract.errors import ContractInvalidError
from policies.contract.thresholds import smallest_sum
from policies.identity import SigningKey, key_text
from policies.privacy.errors import BudgetExhaustedError
from policies.privacy.ledger import (
    LedgerState,
    apply,
    block_body,
    genesis_body,
    reserve_body,
    seal,
)
from policies.robustness.held_out import cap_from, check_held_out, held_out_left
from policies.robustness.plan import votes_plan
from tests.contractsim import CONTRIBUTORS, PICK, authored, shared_noise, with_fifth_maker, without_privacy
from tests.learnsim import small_recipe

EVALUATION = small_recipe().evaluation.document
VOTES = {
    "clause": "validate-1",
    "quorum": "0.67",
    "max_rejected_rounds": 3,
    "judge_episodes": 200,
    "gain_clip": "0.05",
    "max_judgings": 24,
    "epsilon": "1.8",
}


def pool(*, epsilon_total: str = "8", **votes: Any) -> Contract:
    """Four makers under one cap; ``votes`` change the validation clause."""
    tree = authored()
    tree["privacy"] |= {"epsilon_per_release": "2", "epsilon_total": epsilon_total, "per_party": []}
    tree["release"]["approvals"]["veto"] = ["secret-1"]
    return from_tree(tree | {"validation": VOTES | votes})


def recipes(contract: Contract, **evaluation: Any) -> Any:
    plan = SimpleNamespace(document=EVALUATION | evaluation)
    return {one.recipe_digest: SimpleNamespace(evaluation=plan) for one in contract.recipes}


def ledger_refuses(contract: Contract, *plans: dict[str, Any]) -> bool:
    """Whether the ledger of new data, opened with a party's cap, refuses to hold these plans."""
    caps = contract.caps("kita")
    assert caps is not None
    cap, state = cap_from(caps, contract.digest), LedgerState()
    bodies = [
        ("genesis", genesis_body(cap_from(caps, "lineage"), unit="episode", adjacency="zero-out")),
        ("block", block_body("held-out-0", ["a"])),
    ]
    for number, plan in enumerate(plans):
        body = reserve_body(
            cap, run=f"run_{number}", recipe="r", blocks=["held-out-0"], plan=plan, manifest="m"
        )
        bodies.append(("reserve", body))
    try:
        for kind, body in bodies:
            state = apply(state, seal(state, kind, body, at_ms=0))
    except BudgetExhaustedError:
        return True
    return False


def test_a_contract_without_room_for_evaluation_and_votes_together_is_refused_by_the_clause_of_the_votes() -> (
    None
):
    poor = pool(epsilon_total="2")
    with pytest.raises(ContractInvalidError, match="evaluation and votes of one run") as refused:
        check_held_out(poor, recipes(poor))
    assert refused.value.clause == "validate-1"
    assert "a smaller epsilon in the validation clause" in refused.value.remedy
    check_held_out(pool(), recipes(pool()))


@pytest.mark.parametrize("epsilon_total", ["2", "2.2", "2.4", "2.6", "2.8", "3", "4"])
def test_what_is_refused_before_signing_is_what_a_ledger_would_refuse(epsilon_total: str) -> None:
    contract = pool(epsilon_total=epsilon_total)
    votes, caps = votes_plan(contract.validation, EVALUATION), contract.caps("kita")
    assert votes is not None
    assert caps is not None
    short = held_out_left(cap_from(caps, contract.digest), [EVALUATION, votes]) < 0
    assert short == ledger_refuses(contract, EVALUATION, votes)
    try:
        check_held_out(contract, recipes(contract))
    except ContractInvalidError:
        assert short
    else:
        assert not short


def test_queries_above_the_cap_per_release_are_refused_by_the_clause_of_the_cap() -> None:
    dear = recipes(pool(), noise_multiplier="1")
    with pytest.raises(ContractInvalidError, match="within epsilon_per_release 2") as refused:
        check_held_out(pool(), dear)
    assert refused.value.clause == "dp-1"


def test_without_votes_or_without_privacy_terms_nothing_is_checked() -> None:
    silent, unpaid = pool(epsilon_total="2", epsilon=None), without_privacy()
    for contract in (silent, unpaid):
        check_held_out(contract, recipes(contract, noise_multiplier="1"))


def test_a_cap_that_holds_not_one_release_is_refused_by_its_clause() -> None:
    tree = authored() | {"validation": VOTES}
    tree["privacy"]["per_party"] = [{"clause": "dp-2", "party": "nord", "epsilon_total": "1"}]
    tree["release"]["approvals"]["veto"] = ["secret-1"]
    contract = from_tree(tree)
    with pytest.raises(ContractInvalidError) as refused:
        check_held_out(contract, recipes(contract))
    assert refused.value.clause == "dp-2"


# --- the smallest sum that may be opened ---


def many(makers: int, **changes: Any) -> Contract:
    """A pool of so many makers, all in one recipe, with votes on rounds."""
    tree = with_fifth_maker(authored()) | {"validation": VOTES}
    first = tree["parties"][0]
    for number in range(5, makers):
        name = f"maker{number}"
        other = first | {"clause": f"party-{name}", "party": name, "group": name}
        other |= {"org": "org_" + "bcdefghij"[number] * 16, "legal_name": name}
        other |= {"key": _key(name)}
        tree["parties"].append(other)
        for recipe in tree["recipes"]:
            recipe["datasets"].append({"party": name, "dataset": f"{name}/weld"})
    return from_tree(tree | changes)


def _key(name: str) -> str:
    return key_text(SigningKey.from_seed(name.encode().ljust(32, b"-")).public)


def test_the_smallest_sum_follows_from_the_terms_and_teams_make_it_smaller() -> None:
    assert len(CONTRIBUTORS) == 4
    assert smallest_sum(pool(), PICK, None) == 3  # floor(2 * 4 / 3) + 1
    assert smallest_sum(shared_noise(), PICK, 3) == 4  # honest_min and one colluder
    assert smallest_sum(many(8), PICK, None) == 3  # two teams of three groups
    assert smallest_sum(many(8, validation=None), PICK, None) == 6
    off = {**authored()["aggregation"], "secure_aggregation": "off", "group_mac": "off"}
    assert smallest_sum(from_tree(authored() | {"aggregation": off}), PICK, None) == 3
