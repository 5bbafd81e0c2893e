# SPDX-License-Identifier: Apache-2.0
"""One organisation's budget entries: what an audit would call an error raises, and counts all the same."""

from __future__ import annotations

from typing import Any

import pytest

from policies.privacy.accounting import rho_step_nano
from policies.privacy.errors import BudgetError
from policies.privacy.ledger import Cap, plan_facts
from policies.privacy.plan import DpPlan
from policies.privacy.spending import Book, Plans
from policies.recipe import load
from sandbox.recipes import private_recipe

RECIPE = load(private_recipe())
TRAIN, EVAL = RECIPE.plan.document, RECIPE.evaluation.document  # type: ignore[union-attr]
PLANS = Plans(train=TRAIN, evaluation=EVAL)
SCOPE, RUN, LINEAGE = "sha256:" + "c" * 64, "run_aaaaaaaaaaaaaaaa", "kita/pick"
CAP = Cap(scope=SCOPE, epsilon_total="12", epsilon_per_release="8", delta="0.00001")
Q, SIGMA, STEPS, TOUCH = plan_facts(TRAIN)
COST = TOUCH * rho_step_nano(q=Q, sigma=SIGMA, order=CAP.order)


def opening(**changes: Any) -> dict[str, Any]:
    return {
        "unit": TRAIN["unit"],
        "adjacency": TRAIN["adjacency"],
        "delta": CAP.delta,
        "alpha_star": CAP.order,
        "plan": RECIPE.plan.digest,  # type: ignore[union-attr]
        "lineage": LINEAGE,
        "epsilon_max": CAP.epsilon_total,
        **changes,
    }


def spending(**changes: Any) -> dict[str, Any]:
    return {
        "mechanism": f"{RUN}/1/1",
        "plan": RECIPE.plan.digest,  # type: ignore[union-attr]
        "steps": TOUCH,
        "lineage": LINEAGE,
        "rho_nano": COST,
        "epsilon_after": "1",
        **changes,
    }


def spend(
    book: Book, *, number: int = 1, cap: Cap | None = CAP, plans: Plans = PLANS, **changes: Any
) -> None:
    book.spent(spending(**changes), slot=(RUN, number), scope=SCOPE, cap=cap, plans=plans)


@pytest.fixture
def book() -> Book:
    found = Book()
    found.opened(opening(), plans=PLANS)
    return found


def test_a_whole_plan_fits_and_nothing_twice(book):
    rounds = range(1, STEPS // TOUCH + 1)
    for number in rounds:
        spend(book, number=number, mechanism=f"{RUN}/{number}/1")
    assert book.lineages == {(LINEAGE, "train-0"): len(rounds) * COST}
    for number in rounds:
        with pytest.raises(BudgetError, match="each mechanism run once"):
            spend(book, number=number, mechanism=f"{RUN}/{number}/1")


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        ({"rho_nano": COST - 1}, "nano-rho at order"),
        ({"rho_nano": 0}, "nano-rho at order"),
        ({"rho_nano": 10**12}, "nano-rho of the lineage"),
        ({"steps": TOUCH + 1}, f"{TOUCH} steps"),
        ({"steps": 0}, f"{TOUCH} steps"),
        ({"plan": RECIPE.evaluation.digest}, "the plan of the recipe"),
        ({"lineage": "kita/other"}, "a budget that was opened"),
        ({"mechanism": f"{RUN}/2/1"}, "of its run and round"),
        ({"mechanism": "run_bbbbbbbbbbbbbbbb/1/1"}, "of its run and round"),
        ({"mechanism": f"{RUN}/eval/{'0' * 64}"}, "the plan of the recipe"),
    ],
)
def test_what_a_spend_must_say(book, changes, need):
    with pytest.raises(BudgetError, match=need):
        spend(book, **changes)


def test_a_spend_without_a_budget_of_its_plan_is_refused():
    with pytest.raises(BudgetError, match="a budget that was opened"):
        spend(Book())
    other = Book()
    other.opened(opening(plan=RECIPE.evaluation.digest), plans=PLANS)
    with pytest.raises(BudgetError, match="a budget that was opened"):
        spend(other)


@pytest.mark.parametrize(
    ("changes", "need"),
    [
        ({"unit": "order"}, "in its unit"),
        ({"adjacency": "add-remove"}, "in its unit"),
        ({"plan": "sha256:" + "0" * 64}, "of the recipe"),
        ({"alpha_star": 1}, "an order"),
        ({"alpha_star": 10**6}, "an order"),
        ({"delta": "0"}, "a delta"),
        ({"epsilon_max": "0.5", "alpha_star": 3}, "holds something"),
    ],
)
def test_what_an_opened_budget_must_say(changes, need):
    with pytest.raises(BudgetError, match=need):
        Book().opened(opening(**changes), plans=PLANS)


@pytest.mark.parametrize("changes", [{"alpha_star": 7}, {"delta": "0.000001"}, {"epsilon_max": "13"}])
def test_a_lineage_keeps_its_cap(book, changes):
    with pytest.raises(BudgetError, match="that the lineage has"):
        book.opened(opening(plan=RECIPE.evaluation.digest, **changes), plans=PLANS)


def test_a_cap_that_is_tightened_binds_from_then_on(book):
    for number in (1, 2):
        spend(book, number=number, mechanism=f"{RUN}/{number}/1")
    low = opening(plan=RECIPE.evaluation.digest, epsilon_max="8")
    book.opened(low, plans=PLANS)
    with pytest.raises(BudgetError, match="of the lineage in train-0"):
        spend(book, number=3, mechanism=f"{RUN}/3/1", rho_nano=CAP.rho_max_nano - 2 * COST)
    with pytest.raises(BudgetError, match="no higher cap"):
        book.opened(opening(), plans=PLANS)


def test_each_block_of_a_lineage_has_the_whole_cap(book):
    most = CAP.rho_max_nano
    spend(book, blocks=[1], rho_nano=most)
    spend(book, number=2, mechanism=f"{RUN}/2/1", blocks=[3], rho_nano=most)
    assert book.lineages == {(LINEAGE, "train-1"): most, (LINEAGE, "train-3"): most}
    with pytest.raises(BudgetError, match="of the lineage in train-3"):
        spend(book, number=3, mechanism=f"{RUN}/3/1", blocks=[3, 5])
    assert book.lineages[(LINEAGE, "train-5")] == COST
    assert sum(book.contracts[(SCOPE, "train")].values()) == 3 * TOUCH  # the contract's cap counts them all


def test_the_contracts_cap_counts_every_block():
    dear = DpPlan.load(TRAIN | {"noise_multiplier": "2.4", "steps": 200})
    plans, q = Plans(train=dear.document, evaluation=EVAL), plan_facts(dear.document)[0]
    tight = Cap(scope=SCOPE, epsilon_total="9", epsilon_per_release="9", delta="0.00001")
    rich = Book()
    rich.opened(opening(plan=dear.digest, epsilon_max="900"), plans=plans)
    cost = TOUCH * rho_step_nano(q=q, sigma=2.4, order=CAP.order)
    fits = tight.rho_max_nano // (TOUCH * rho_step_nano(q=q, sigma=2.4, order=tight.order))
    for number in range(1, fits + 2):
        facts = {"plan": dear.digest, "rho_nano": cost, "mechanism": f"{RUN}/{number}/1", "blocks": [number]}
        try:
            spend(rich, number=number, cap=tight, plans=plans, **facts)
        except BudgetError as error:
            assert (number, error.need) == (fits + 1, f"{tight.rho_max_nano} nano-rho of the contract")  # noqa: PT017
            break
    else:
        pytest.fail("the contract's cap held more than it holds")


def test_the_contracts_caps_hold(book):
    with pytest.raises(BudgetError, match="a contract with caps"):
        spend(book, cap=None)
    dear = DpPlan.load(TRAIN | {"noise_multiplier": "0.6"})
    plans = Plans(train=dear.document, evaluation=EVAL)
    q, sigma, _, _ = plan_facts(dear.document)
    rich = Book()
    rich.opened(opening(plan=dear.digest, epsilon_max="900"), plans=plans)
    cost = TOUCH * rho_step_nano(q=q, sigma=sigma, order=CAP.order)
    with pytest.raises(BudgetError, match=r"per release|of the contract"):
        spend(rich, plans=plans, plan=dear.digest, rho_nano=cost)


def test_what_is_refused_counts_and_a_copy_is_its_own(book):
    tried = book.copy()
    with pytest.raises(BudgetError):
        spend(tried, rho_nano=0)
    assert tried.lineages == {(LINEAGE, "train-0"): COST}
    assert book == Book(accounts=book.accounts)
    spend(book)
