# SPDX-License-Identifier: Apache-2.0
"""What a node looks at before it uses a model: the tag of the sum, and whether the model follows from it."""

from __future__ import annotations

import json
from pathlib import Path

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


def code_of(pool: SumPool, setup: Setup, number: int, **named: object) -> str | None:
    _, reply = pool.contribute(pool.attempt(setup, number), **named)
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


@pytest.mark.parametrize("counted", [False, True], ids=["steps of that model", "steps count on"])
def test_members_may_go_back_to_an_earlier_model(
    pool: SumPool, capfd: pytest.CaptureFixture[str], counted: bool
):
    setup = pool.setup()
    pool.round(setup, 1)
    before = (pool.weights, pool.state, pool.steps)
    for number in (2, 3):
        pool.round(setup, number)
    steps = pool.steps
    assert code_of(pool, setup, 4) is None  # a round began with the model that is taken back
    pool.weights, pool.state, pool.steps = before
    pool.steps = steps if counted else pool.steps
    pool.round(setup, 5)
    pool.round(setup, 6)
    assert told(capfd) == []
    other_model(pool)
    assert code_of(pool, setup, 7) == "secagg.context-mismatch"


def test_a_new_process_cannot_follow_and_says_so_once(pool: SumPool, capfd: pytest.CaptureFixture[str]):
    pool.round(pool.setup(), 1)
    pool.world.restart()
    pool.begin_peers()
    setup = pool.setup(2, first_round=2)
    for number in (2, 3, 4):
        pool.round(setup, number)
    assert told(capfd) == [2]
    assert pool.previous is not None
    pool.previous.z[0] += np.uint32(1)  # the tag is looked at all the same
    assert code_of(pool, setup, 5) == "secagg.sum-wrong"


def test_a_new_setup_hides_the_last_sum_of_the_old_one(pool: SumPool, capfd: pytest.CaptureFixture[str]):
    pool.round(pool.setup(), 1)
    pool.round(pool.setup(2, first_round=2), 2)
    assert told(capfd) == [2]


def test_a_node_that_missed_a_sum_says_so(pool: SumPool, capfd: pytest.CaptureFixture[str]):
    setup = pool.setup()
    pool.round(setup, 1)
    for number in (2, 3):  # without this node
        attempt = pool.attempt(setup, number)
        vectors = pool.peer_vectors(attempt)
        pool.confirm(attempt, node=False)
        pool.unmask(attempt, node=False)
        pool.opened(attempt, vectors)
        pool.step()
    pool.round(setup, 4)
    assert told(capfd) == [4]


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
    pool.begin_peers()
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
