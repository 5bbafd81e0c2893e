# SPDX-License-Identifier: Apache-2.0
"""A broker makes nodes train on models that no sum gives: by new setups, by a late beginning, by leaving nodes out.

Each way is shown to work where nodes do not judge what a round begins with, and then against nodes that do.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from broker.federation.secure import teams
from broker.federation.secure.setups import Setups
from client.secagg.following import Following
from policies.recipe import load
from policies.secagg.collector import Setup
from policies.secagg.errors import ContextMismatchError
from policies.secagg.node import NodeMachine
from tests.federationsim import SECURE, Pool, running
from tests.learnsim import changed, small_plain
from tests.sumnode import SumPool, sum_pool

MEAN = load(changed(small_plain().canonical, "server", {"kind": "mean"}))
MOMENTUM = None  # of the small private recipe
TAKEN, REFUSED = None, "secagg.context-mismatch"


def trusting(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nodes believe every model."""
    monkeypatch.setattr(Following, "_judge", lambda *_, **__: None)


def asked(pool: SumPool, setup: Any, number: int, attempt: int = 1, **named: Any) -> str | None:
    _, reply = pool.contribute(pool.attempt(setup, number, attempt), **named)
    return reply.code


def lie(pool: SumPool, value: float) -> None:
    """The broker goes on with a model of its own."""
    pool.weights = np.full_like(pool.weights, value, dtype=np.float32)


def a_new_setup_each_round(pool: SumPool) -> list[str | None]:
    pool.round(pool.setup(), 1)
    found = []
    for number in (2, 3):
        lie(pool, number)
        setup = pool.setup(number, first_round=number)
        found.append(asked(pool, setup, number))
        found.append(asked(pool, setup, number, 2, shown=()))
    return found


def a_new_setup_whose_members_it_shows_nothing(pool: SumPool) -> list[str | None]:
    pool.round(pool.setup(), 1)
    lie(pool, 2)
    for number in range(2, 5):  # setups cost nothing
        setup = pool.setup(number, first_round=2)
    return [asked(pool, setup, 2, shown=())]


def a_run_that_begins_with_round_2(pool: SumPool) -> list[str | None]:
    lie(pool, 7)
    return [asked(pool, pool.setup(), 2), asked(pool, pool.setup(2, first_round=5), 5)]


def a_second_lie_under_the_same_setup(pool: SumPool) -> list[str | None]:
    for number in (1, 2):
        pool.round(pool.setup(number, first_round=number), number)
    lie(pool, 3)
    setup = pool.setup(3, first_round=3)
    found = [asked(pool, setup, 3)]
    lie(pool, 4)
    return [*found, asked(pool, setup, 4)]


def a_node_that_is_left_out_of_a_round(pool: SumPool) -> list[str | None]:
    setup = pool.setup()
    pool.round(setup, 1)
    pool.without_node(setup, 2)
    lie(pool, 3)
    return [
        asked(pool, setup, 3, 1, shown=()),
        asked(pool, setup, 3, 2, shown=pool.sums[:1]),
        asked(pool, pool.setup(2, first_round=4), 4, shown=pool.sums),
    ]


def a_round_that_one_member_alone_unmasks(pool: SumPool) -> list[str | None]:
    """That member signs that it helped; the sum was never opened, and everybody is told of it."""
    setup = pool.setup()
    pool.round(setup, 1)
    attempt = pool.attempt(setup, 2)
    pool.vectors(attempt)
    pool.confirm(attempt)
    first = next(iter(pool.machines.values()))
    first.unmask(attempt.unmask_ask(), round=2, attempt=1)
    lie(pool, 3)
    return [asked(pool, pool.setup(2, first_round=3), 3)]


def a_sum_of_a_setup_that_never_was(pool: SumPool) -> list[str | None]:
    """The node is told of sums of setups without it; its members signed nothing of the kind."""
    pool.round(pool.setup(), 1)
    apart = SumPool(pool.world)  # the broker plays all members
    apart.without_node(apart.apart(2, first_round=2), 2)
    lie(pool, 3)
    return [asked(pool, pool.setup(3, first_round=3), 3, shown=[*pool.sums, *apart.sums])]


def a_model_that_is_sent_along(pool: SumPool) -> list[str | None]:
    setup = pool.setup()
    pool.round(setup, 1)
    lie(pool, 2)
    sent = (pool.weights, pool.state, pool.steps)
    return [asked(pool, setup, 2, sent=sent)]


WAYS: list[Callable[[SumPool], list[str | None]]] = [
    a_new_setup_each_round,
    a_new_setup_whose_members_it_shows_nothing,
    a_run_that_begins_with_round_2,
    a_second_lie_under_the_same_setup,
    a_node_that_is_left_out_of_a_round,
    a_round_that_one_member_alone_unmasks,
    a_model_that_is_sent_along,
]


@pytest.mark.parametrize("recipe", [MEAN, MOMENTUM], ids=["mean", "momentum"])
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.__name__)
def test_no_node_trains_on_a_model_that_no_sum_gives(
    way: Callable[[SumPool], list[str | None]],
    recipe: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as off:
        trusting(off)
        assert TAKEN in way(sum_pool(tmp_path / "trusting", recipe=recipe))
    pool = sum_pool(tmp_path / "judging", recipe=recipe)
    answers = way(pool)
    assert set(answers) <= {REFUSED, "secagg.behind"}
    assert REFUSED in answers
    spent = {(one.round, one.attempt) for one in pool.world.worker.budgets.touches()}
    assert spent == set() if recipe is MEAN else len(spent) <= 2


def test_sums_of_a_setup_without_this_node_excuse_no_model_unless_members_signed_that_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as off:
        off.setattr(NodeMachine, "witnessed", 2)
        assert a_sum_of_a_setup_that_never_was(sum_pool(tmp_path / "believing")) == [TAKEN]
    assert a_sum_of_a_setup_that_never_was(sum_pool(tmp_path / "judging")) == [REFUSED]


def test_a_member_that_signs_a_round_of_the_future_is_left_out_of_the_setup(tmp_path: Path) -> None:
    pool = sum_pool(tmp_path)
    name, machine = next(iter(pool.machines.items()))
    setup = Setup(pool.terms, number=1, first_round=3)
    machine.advertise(setup.advertise_ask())
    held = machine._pending
    assert held is not None
    for opened in (3, -1):
        held.advert = replace(held.advert, opened=opened)
        with pytest.raises(ContextMismatchError) as refused:
            setup.advert(name, held.signed_advert(machine._key))
        assert refused.value.offender == name


def lying(monkeypatch: pytest.MonkeyPatch, *, anew: bool) -> None:
    """A broker that applies another mean than it opened, with a setup for each round if asked."""
    true = teams.mean
    monkeypatch.setattr(teams, "mean", lambda z, terms, online: -0.5 * true(z, terms, online) + 0.01)
    if anew:
        monkeypatch.setattr(
            Setups,
            "_serves",
            lambda self, number, _asked: self._setup is not None and self._setup.frame.first_round == number,
        )


def applied(pool: Pool, run: str) -> list[int]:
    """Rounds whose model came to be."""
    return [row.round for row in pool.rounds(run) if row.model is not None]


@pytest.mark.parametrize("anew", [False, True])
def test_a_federation_stops_at_the_first_model_that_its_sum_does_not_give(
    anew: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {"private": False, **SECURE, "aggregation.group_mac": "on", "recipe": {"rounds": 3}}
    lying(monkeypatch, anew=anew)
    with monkeypatch.context() as off:
        trusting(off)
        with running(**options) as (pool, go):
            assert applied(pool, go(pool.run())) == [1, 2, 3]
    with running(**options) as (pool, go):
        run = go(pool.open_run())
        go(_first_refusals(pool))
        assert applied(pool, run) == [1]
        reasons = [json.loads(row.reasons) for row in pool.rounds(run)]
        assert set(reasons[1].values()) == {ContextMismatchError.code}


async def _first_refusals(pool: Pool) -> None:
    while len(pool.journal.of("reply.declined")) < 4:  # noqa: ASYNC110  a simulation: the loop turns
        await asyncio.sleep(0)
    await asyncio.sleep(1)
