# SPDX-License-Identifier: Apache-2.0
"""A run that starts from openly donated episodes: every node begins with the named model, and no budget goes into it."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from broker.store.tables import decision
from client.learning.weights import initial_weights
from policies.encoding import digest, parse
from policies.exchange import ExchangeType
from policies.log.entries import EntryType
from tests.federationsim import ROUNDS, Said, running


def other_weights(said: Said) -> Any:
    """What a node says that begins with something else than the agreed model."""
    if said.header.type is not ExchangeType.PING:
        return said
    return said.sealed(tensor=initial_weights(said.node.pool.recipe).tobytes())


def test_a_run_begins_with_the_start_model_and_ends_with_the_model_that_follows_from_it():
    with running(seeded=True) as (pool, go):
        assert pool.recipe.start.model == digest(pool.first.tobytes())
        assert digest(initial_weights(pool.recipe).tobytes()) != pool.recipe.start.model
        run_id = go(pool.run())
        assert pool.row(run_id).outcome == "completed"
        assert list(pool.candidates().values()) == ["released"]
        assert pool.rounds(run_id)[0].base == pool.recipe.start.model
        assert pool.expected_model(run_id) == pool.rounds(run_id)[-1].model
        pool.check_books(run_id)
        assert all(sum(one.values()) == ROUNDS for one in pool.mirror(run_id).values())
        pool.check_audit()


def test_every_decision_about_a_round_names_the_seed_set_and_the_consents():
    with running(seeded=True) as (pool, go):
        run_id = go(pool.run())
        clause = pool.contract.seed_sets[0]
        opened = pool.entries(EntryType.ROUND_OPENED, run_id)
        assert len(opened) == ROUNDS
        with pool.services.store.read() as session:
            assert set(pool.services.contracts.opens(session, pool.contract.digest)) == {
                clause.seed_set,
                pool.recipe.start.model,
                *(one.consent for one in clause.donations),
            }
        with pool.services.store.read() as session:
            kept = [parse(one) for one in session.scalars(select(decision.c.request))]
        asked = [one for one in kept if one["type"] == "TrainRound"]
        assert len(asked) > ROUNDS * len(pool.nodes)  # of the broker, and of each node
        assert {one["seed_set"] for one in asked} == {clause.seed_set}
        assert {tuple(one["seed_consents"]) for one in asked} == {
            tuple(sorted(one.consent for one in clause.donations))
        }
        unchecked = [one for one in pool.check_audit().unchecked if one.startswith("AUD-068")]
        assert len(unchecked) == 1  # the bundle has every consent, and not the episodes
        assert f"episodes of the seed set {clause.seed_set}" in unchecked[0]


def test_a_node_that_begins_with_another_model_is_outvoted():
    with running(seeded=True) as (pool, go):
        pool.nodes["nord"].lies.append(other_weights)
        run_id = go(pool.run())
        assert pool.journal.of("initial-weights.differ")[0]["nodes"] == [pool.nodes["nord"].id]
        assert pool.row(run_id).outcome == "completed"
        assert pool.rounds(run_id)[0].base == pool.recipe.start.model
        pool.expected_model(run_id)


def test_no_majority_makes_another_model_the_start():
    with running(seeded=True) as (pool, go):
        for node in pool.nodes.values():
            node.lies.append(other_weights)
        run_id = go(pool.run())
        assert pool.row(run_id).outcome != "completed"
        assert pool.entries(EntryType.ROUND_OPENED, run_id) == []
        assert all(not one for one in pool.mirror(run_id).values())


@pytest.mark.slow
def test_real_training_goes_on_from_the_start_model():
    with running(seeded=True, torch=True) as (pool, go):
        run_id = go(pool.run())
        assert pool.row(run_id).outcome == "completed"
        assert pool.rounds(run_id)[0].base == digest(pool.first.astype("<f4").tobytes())
