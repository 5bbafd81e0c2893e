# SPDX-License-Identifier: Apache-2.0
"""What the node's page computes once, or leaves to its database to add up, however much left the site."""

from __future__ import annotations

from contextlib import closing

import pytest

from client import withdrawing
from policies.privacy import tight
from tests.nodeworld import World
from tests.pagesim import busy_world, many_rows, visiting


@pytest.fixture(scope="module")
def busy(tmp_path_factory) -> World:
    world = busy_world(tmp_path_factory.mktemp("busy"))
    many_rows(world, 200)
    return world


async def test_the_tight_figure_of_a_plan_is_computed_once_however_often_it_is_shown(busy):
    tight._epsilon_pld.cache_clear()
    async with visiting(busy) as visitor:
        for _ in range(3):
            assert (await visitor.get("/budget")).status_code == 200
    found = tight._epsilon_pld.cache_info()
    assert (found.misses, found.hits) == (1, 2)


def test_what_left_under_a_contract_and_which_runs_were_decided_about_are_sums_of_the_outbox(busy):
    with closing(busy.outbox()) as outbox:
        sent, decided = outbox.left.sent(None), outbox.left.decisions(limit=None)
        assert outbox.left.decided_runs() == {one.run for one in decided}
        for contract in {one.contract for one in sent if one.contract} | {"sha256:" + "0" * 64}:
            whole = sum(one.size_bytes for one in sent if one.contract == contract)
            assert outbox.left.sent_bytes(contract=contract) == whole
            if whole:
                assert withdrawing.contract_effect(busy.shelf(), outbox, contract).bytes_sent == whole
