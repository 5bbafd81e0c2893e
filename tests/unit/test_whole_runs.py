# SPDX-License-Identifier: Apache-2.0
"""A plan that looks as large as its cap may be larger where the cap is counted: told before anybody signs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from broker.cli import app
from broker.commands.contract_files import room_lines
from policies.contract import from_tree
from policies.privacy.accounting import calibrate, epsilon_rdp
from policies.robustness.whole_runs import runs_without_room
from tests.contractsim import ORIGIN, runnable

PLAN = json.loads(Path("docs/tutorial/recipe.json").read_text("utf-8"))["plan"]  # 34 steps at q 0.2
DELTA = "0.00001"


def plan_of(epsilon: float) -> dict[str, Any]:
    sigma = calibrate(epsilon=epsilon, delta=float(DELTA), q=0.2, steps=34)
    assert epsilon_rdp(q=0.2, sigma=float(sigma), steps=34, delta=float(DELTA)) <= epsilon
    return PLAN | {"noise_multiplier": str(sigma)}


def contract_of(total: str, release: str) -> Any:
    tree = runnable(ORIGIN)
    tree["privacy"] |= {"epsilon_total": total, "epsilon_per_release": release, "delta": DELTA}
    tree["privacy"]["per_party"] = [
        {"clause": one["clause"], "party": one["party"], "epsilon_total": total}
        for one in tree["privacy"]["per_party"]
    ]
    return from_tree(tree)


@pytest.mark.parametrize(("epsilon", "total", "fits"), [(8, "8", False), (6, "8", True), (8, "10", True)])
def test_a_plan_fits_by_what_the_filter_counts_and_not_by_its_own_epsilon(epsilon, total, fits):
    contract = contract_of(total, str(epsilon))
    recipe = contract.recipes[0]
    found = runs_without_room(contract, {recipe.recipe_digest: plan_of(epsilon)})
    assert (found == ()) is fits
    for one in found:
        assert (one.clause, one.parties, one.total) == (recipe.clause, tuple(recipe.participants), "8")
        assert one.found.startswith("epsilon 8.")
        assert one.found.endswith("at the filter's order 4")


def test_what_nobody_has_or_what_has_no_plan_is_passed_over():
    contract = contract_of("8", "8")
    assert runs_without_room(contract, {}) == ()
    assert runs_without_room(contract, {contract.recipes[0].recipe_digest: None}) == ()


def test_the_warning_is_told_in_both_languages():
    contract = contract_of("8", "8")
    found = runs_without_room(contract, {contract.recipes[0].recipe_digest: plan_of(8)})
    (line,) = room_lines(found)
    assert line.startswith(
        "warning recipe-1 budget: needs one whole run within epsilon_total 8, found epsilon 8."
    )
    assert "budget.exhausted" in line
    assert "最初の実行" in room_lines(found, "ja")[0]


def test_lint_takes_the_recipes_of_the_contract_and_no_others(tmp_path):
    text = tmp_path / "contract.json"
    text.write_bytes(contract_of("8", "8").canonical)
    words = ["contract", "lint", str(text), "--json"]
    assert json.loads(CliRunner().invoke(app, words).stdout)["data"]["without_room"] == []
    strange = CliRunner().invoke(app, [*words, "--recipe", "docs/tutorial/recipe.json"])
    assert strange.exit_code == 2
    assert "the contract was written for" in strange.stdout
