# SPDX-License-Identifier: Apache-2.0
"""A run that starts from a public base checkpoint: every node and the broker begin with it, byte for byte."""

from __future__ import annotations

import json

import pytest

from client.learning.weights import initial_weights
from policies.contract.errors import ContractInvalidError
from policies.contract.starts import check_starts, named_annexes
from policies.encoding import canonical, digest
from policies.exchange import ExchangeType
from policies.recipe import load
from policies.seeds import StartModelUnfitError
from tests.federationsim import Pool, Said, new_pool, running
from tests.recipesim import made, two_embodiments


def other_weights(said: Said) -> Said:
    """What a node says that begins with something else than the agreed checkpoint."""
    if said.header.type is not ExchangeType.PING:
        return said
    return said.sealed(tensor=initial_weights(said.node.pool.recipe).tobytes())


def test_a_run_begins_with_the_base_checkpoint_and_the_auditor_agrees():
    with running(base=True) as (pool, go):
        start = pool.recipe.start
        assert start is not None
        assert (start.model, start.seed_set) == (digest(pool.first.tobytes()), None)
        assert start.model != digest(initial_weights(pool.recipe).tobytes())
        run_id = go(pool.run())
        assert pool.row(run_id).outcome == "completed"
        assert list(pool.candidates().values()) == ["released"]
        assert pool.rounds(run_id)[0].base == start.model
        assert pool.expected_model(run_id) == pool.rounds(run_id)[-1].model
        pool.check_books(run_id)
        pool.check_audit()


def test_nodes_that_begin_with_other_weights_are_not_followed():
    with running(base=True) as (pool, go):
        for one in list(pool.nodes.values())[:2]:
            one.lies.append(other_weights)
        run_id = go(pool.open_run())
        go(pool.idle())
        assert not pool.rounds(run_id) or pool.rounds(run_id)[0].base == pool.recipe.start.model


@pytest.fixture
def pool():
    with new_pool(base=True) as one:
        yield one


def test_a_contract_travels_with_its_checkpoint_or_is_not_signed(pool: Pool):
    recipes, weights = {pool.recipe.digest: pool.recipe}, pool.first.tobytes()
    (named,) = named_annexes(pool.contract, recipes).values()
    assert named.what.startswith("the base checkpoint")
    check_starts(pool.contract, recipes, {digest(weights): weights})
    for annexes in ({}, {digest(weights): weights[:-4]}, {digest(weights): weights + b"\0" * 4}):
        with pytest.raises(ContractInvalidError):
            check_starts(pool.contract, recipes, annexes)


def test_a_checkpoint_of_another_model_is_refused_by_the_clause(pool: Pool):
    short = pool.first.tobytes()[:-4]
    tree = json.loads(pool.recipe.canonical)
    other = load(canonical(tree | {"start": {"base": digest(short), "licence": "CC0-1.0"}}))
    recipes = {pool.recipe.digest: other}
    with pytest.raises(StartModelUnfitError) as refused:
        check_starts(pool.contract, recipes, {digest(short): short})
    assert refused.value.clause == pool.contract.recipes[0].clause


def test_a_checkpoint_of_a_trunk_has_the_length_of_the_trunk():
    base = {"base": "sha256:" + "a" * 64, "licence": "CC0-1.0"}
    recipe = made(two_embodiments() | {"start": base})
    assert recipe.start is not None
    assert recipe.parameters == 42
