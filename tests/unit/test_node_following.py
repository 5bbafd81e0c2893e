# SPDX-License-Identifier: Apache-2.0
"""What a node looks at before it uses a model: the tag of the sum, and whether the model follows from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.encoding import digest
from policies.exchange import tensor_bytes
from policies.recipe import load
from policies.secagg.asks import ContributeAsk
from policies.secagg.collector import Setup
from tests.learnsim import changed, small_plain
from tests.sumnode import SumPool, sum_pool

MEAN = load(changed(small_plain().canonical, "server", {"kind": "mean"}))


@pytest.fixture
def pool(tmp_path: Path) -> SumPool:
    return sum_pool(tmp_path)


def told(capfd: pytest.CaptureFixture[str]) -> list[int]:
    """Rounds in which the worker said that it cannot follow the model."""
    lines = [json.loads(one) for one in capfd.readouterr().err.splitlines() if one.startswith("{")]
    return [one["round"] for one in lines if one["event"] == "model-not-followed"]


def code_of(pool: SumPool, setup: Setup, number: int, attempt: int = 1, **named: Any) -> str | None:
    _, reply = pool.contribute(pool.attempt(setup, number, attempt), **named)
    return reply.code


def other_model(pool: SumPool) -> None:
    """The broker goes on with a model that differs in one value."""
    pool.weights = pool.weights.copy()
    pool.weights[7] = np.nextafter(pool.weights[7], np.float32(np.inf))


def test_an_honest_run_is_followed_from_its_first_round_on(pool: SumPool, capfd: pytest.CaptureFixture[str]):
    setup = pool.setup()
    for number in range(1, 6):
        pool.round(setup, number)
    assert told(capfd) == []


def test_a_first_model_that_is_not_the_recipes_is_refused(pool: SumPool):
    other_model(pool)
    assert code_of(pool, pool.setup(), 1) == "secagg.context-mismatch"
    assert pool.world.learner.trained == []


@pytest.mark.parametrize("number", [2, 4])
def test_a_model_that_the_sums_do_not_give_is_refused_before_anything_is_spent(pool: SumPool, number: int):
    setup = pool.setup()
    for done in range(1, number):
        pool.round(setup, done)
    other_model(pool)
    assert code_of(pool, setup, number) == "secagg.context-mismatch"
    assert len(pool.world.worker.budgets.touches()) == number - 1


def test_a_wrong_sum_is_refused_by_its_tag(pool: SumPool):
    setup = pool.setup()
    pool.round(setup, 1)
    assert pool.previous is not None
    pool.previous.z[3] += np.uint32(1)
    assert code_of(pool, setup, 2) == "secagg.sum-wrong"
    assert len(pool.world.worker.budgets.touches()) == 1


def test_a_sum_that_this_node_helped_to_open_may_not_be_left_out(pool: SumPool):
    setup = pool.setup()
    pool.round(setup, 1)
    kept, pool.previous = pool.previous, None
    assert code_of(pool, setup, 2) == "secagg.context-mismatch"
    pool.previous = kept
    attempt = pool.attempt(setup, 2, 2)
    _, reply = pool.contribute(attempt, tensor=pool.weights.astype("<f4").view("<u4"))
    assert reply.code == "secagg.context-mismatch"  # the ask speaks of it, the tensor lacks it


def test_an_old_sum_is_no_newer_one(pool: SumPool):
    setup = pool.setup()
    pool.round(setup, 1)
    old = pool.previous
    pool.round(setup, 2)
    pool.previous = old
    assert code_of(pool, setup, 3) == "secagg.context-mismatch"


def test_a_sum_that_was_not_applied_leaves_the_model_as_it_was(
    pool: SumPool, capfd: pytest.CaptureFixture[str]
):
    setup = pool.setup()
    pool.round(setup, 1)
    before = (pool.weights, pool.state, pool.steps)
    pool.round(setup, 2)
    pool.weights, pool.state, pool.steps = before  # the round was rejected after its sum was opened
    pool.round(setup, 3)
    pool.round(setup, 4)
    assert told(capfd) == []


def test_members_may_go_back_to_an_earlier_model(pool: SumPool, capfd: pytest.CaptureFixture[str]):
    setup = pool.setup()
    pool.round(setup, 1)
    before = (pool.weights, pool.state, pool.steps)
    for number in (2, 3):
        pool.round(setup, number)
    assert code_of(pool, setup, 4) is None  # a round began with the model that is taken back
    pool.weights, pool.state, pool.steps = before
    pool.round(setup, 5)
    pool.round(setup, 6)
    assert told(capfd) == []
    other_model(pool)
    assert code_of(pool, setup, 7) == "secagg.context-mismatch"


def test_going_back_far_takes_that_model_with_its_state(pool: SumPool):
    setup = pool.setup()
    pool.round(setup, 1)
    before = (pool.weights, pool.state, pool.steps)
    for number in range(2, 8):
        pool.round(setup, number)
    pool.weights, pool.state, pool.steps = before
    assert code_of(pool, setup, 8) == "secagg.behind"
    weights, state, steps = before
    wrong = (weights, {name: values + 1 for name, values in state.items()}, steps)
    assert code_of(pool, setup, 8, 2, sent=wrong) == "secagg.behind"
    other = pool.beside([pool.previous], wrong)
    assert code_of(pool, setup, 9, sent=before, tensor=other) == "secagg.context-mismatch"
    assert code_of(pool, setup, 9, 2, sent=before) is None


def test_another_state_of_the_server_is_another_model(pool: SumPool):
    setup = pool.setup()
    pool.round(setup, 1)
    true = pool.state
    pool.state = {name: values + 1 for name, values in true.items()}
    assert code_of(pool, setup, 2) == "secagg.context-mismatch"
    pool.state = true
    pool.steps += 1
    assert code_of(pool, setup, 2, 2) == "secagg.context-mismatch"
    pool.steps -= 1
    assert code_of(pool, setup, 3) is None


def test_a_new_process_is_back_with_the_next_sum_and_the_model_before_it(
    pool: SumPool, capfd: pytest.CaptureFixture[str]
):
    pool.round(pool.setup(), 1)
    pool.world.restart()
    setup = pool.setup(2, first_round=2)
    pool.round(setup, 2)  # members signed that they helped to open round 1, which it cannot check
    assert code_of(pool, setup, 3) == "secagg.behind"
    assert len(pool.world.worker.budgets.touches()) == 2
    assert code_of(pool, setup, 3, 2, sent=pool.bases[0]) == "secagg.behind"  # of the run, and not the one
    pool.round(setup, 4, sent=pool.bases[1])
    pool.round(setup, 5)
    assert told(capfd) == [2]
    other_model(pool)
    assert code_of(pool, setup, 6) == "secagg.context-mismatch"
    pool.previous.z[0] += np.uint32(1)
    assert code_of(pool, setup, 7) == "secagg.sum-wrong"


@pytest.mark.parametrize("every", [1, 2])
def test_new_setups_hide_no_sum(pool: SumPool, capfd: pytest.CaptureFixture[str], every: int):
    for number in range(1, 7):
        if number % every == 0 or number == 1:
            setup = pool.setup(number, first_round=number)
        pool.round(setup, number)
    assert told(capfd) == []
    pool.setup(8, first_round=7)
    setup = pool.setup(9, first_round=7)
    other_model(pool)
    assert code_of(pool, setup, 7) == "secagg.context-mismatch"


def test_a_node_that_missed_rounds_is_shown_their_sums_and_follows(
    pool: SumPool, capfd: pytest.CaptureFixture[str]
):
    setup = pool.setup()
    pool.round(setup, 1)
    for number in (2, 3):
        pool.without_node(setup, number)
    assert code_of(pool, setup, 4) == "secagg.behind"  # shown the newest alone
    pool.round(setup, 4, 2, shown=pool.sums)
    pool.round(pool.setup(2, first_round=5), 5)
    assert told(capfd) == []


def test_sums_out_of_order_or_twice_are_refused(pool: SumPool):
    setup = pool.setup()
    for number in (1, 2):
        pool.round(setup, number)
    first, second = pool.sums
    for attempt, shown in enumerate(([second, first], [first, first, second]), 1):
        assert code_of(pool, setup, 3, attempt, shown=shown) == "secagg.context-mismatch"


def test_a_node_that_was_in_no_setup_for_a_while_is_back_by_what_the_others_signed(
    pool: SumPool, capfd: pytest.CaptureFixture[str]
):
    pool.round(pool.setup(), 1)
    apart = pool.apart(2, first_round=2)
    pool.without_node(apart, 2)
    setup = pool.setup(3, first_round=3)
    pool.round(setup, 3, shown=pool.sums)
    pool.round(setup, 4, sent=pool.bases[2])
    pool.round(setup, 5)
    assert told(capfd) == [3]


def test_who_comes_late_to_a_run_takes_the_word_of_more_members_than_may_collude(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    pool = sum_pool(tmp_path, aggregation__max_colluders=1)
    pool.without_node(pool.apart(1, first_round=1), 1)
    _, second, third = pool.machines
    for name in (second, third):
        pool.machines[name] = pool.begun_anew(name)
    setup = pool.setup(2, first_round=2)  # one member alone signs that a round was opened
    assert code_of(pool, setup, 2) == "secagg.context-mismatch"
    pool.machines[second] = pool.begun_anew(second, opened_round=1)
    setup = pool.setup(3, first_round=3)
    assert code_of(pool, setup, 3) is None
    assert told(capfd) == [3]


def test_one_sum_without_this_node_is_followed(pool: SumPool, capfd: pytest.CaptureFixture[str]):
    setup = pool.setup()
    attempt = pool.attempt(setup, 1)
    answer, _ = pool.contribute(attempt)
    assert answer.tensor is not None
    vectors = pool.peer_vectors(attempt)  # its vector came too late
    pool.confirm(attempt, node=False)
    pool.unmask(attempt, node=False)
    pool.opened(attempt, vectors)
    pool.step()
    pool.round(setup, 2)
    assert told(capfd) == []


def test_where_the_server_adds_the_mean_the_next_sum_is_followed_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
):
    pool = sum_pool(tmp_path, recipe=MEAN)
    pool.round(pool.setup(), 1)
    pool.world.restart()
    setup = pool.setup(2, first_round=2)
    for number in (2, 3):
        pool.round(setup, number)
    assert told(capfd) == [2]
    other_model(pool)
    assert code_of(pool, setup, 4) == "secagg.context-mismatch"


def test_a_base_model_that_is_not_the_one_named_is_refused(pool: SumPool):
    attempt = pool.attempt(pool.setup(), 1)
    other = (pool.weights + 1).astype("<f4")
    _, reply = pool.contribute(attempt, tensor=other.view("<u4"))
    assert reply.code == "secagg.context-mismatch"
    body = {"base_model": digest(tensor_bytes(other))}
    assert ContributeAsk.from_bytes(attempt.contribute_ask(), pool.terms).base_model != body["base_model"]
    _, reply = pool.contribute(pool.attempt(attempt.setup, 1, 2), tensor=other.view("<u4"), body=body)
    assert (reply.code, pool.world.pulled) == ("secagg.context-mismatch", 0)
