# SPDX-License-Identifier: Apache-2.0
"""The worker's own learner on a real store: real gradients, real noise, one touch before each."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from client.learner import HomeLearner, episodes_of
from client.settings import LocalRules
from policies.exchange import ExchangeType
from policies.signing import Envelope
from tests.nodesim import SeedEntropy
from tests.nodeworld import World, kinds, ready_world

pytestmark = pytest.mark.slow


@pytest.fixture
def world(tmp_path: Path) -> World:
    world = ready_world(tmp_path)
    world.worker.close()
    world.learner = None  # the site's own
    world.start()
    return world


def test_three_private_rounds_on_the_sites_own_data(world: World):
    assert world.worker.prepare() is True
    receipts = []
    base = world.worker.home_learner.initial(world.recipe)
    updates = []
    for number in (1, 2, 3):
        answer, reply = world.ask(round=number, weights=base, body={"receipts": receipts})
        assert reply.status == "ok", reply.code
        receipts = world.log_reply(reply)
        updates.append(np.frombuffer(answer.tensor, dtype="<f4"))
        base = (base - 0.01 * updates[-1]).astype(np.float32)
    assert all(np.isfinite(one).all() and one.any() for one in updates)
    assert not np.array_equal(updates[0], updates[1])
    _, judged = world.ask(ExchangeType.JUDGE, round=3, weights=base, body={"receipts": receipts})
    assert kinds(judged)[-2:] == ["evaluation.received", "vote.cast"]
    spent = [
        json.loads(one.envelope.payload)["body"]["steps"]
        for one in world.worker.outbox.envelopes(kind="epsilon.spent")
    ]
    assert spent == [1, 1, 1, 1]


def test_only_the_fields_of_contract_recipe_and_site_are_opened(world: World):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    (first, *_) = episodes_of(world.home, seat, "train", LocalRules())
    with pytest.raises(Exception, match="field-not-allowed"):
        first.observation["joint_torque"]
    with pytest.raises(Exception, match="field-not-allowed"):
        episodes_of(world.home, seat, "train", LocalRules(fields=("tcp_pos",)))


def test_held_out_units_are_never_those_of_training(world: World):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    learner = HomeLearner(world.home, entropy=SeedEntropy(b"l"), rules=LocalRules, threads=1)
    train, held_out = (
        {one.unit_id for one in episodes_of(world.home, seat, split, LocalRules())}
        for split in ("train", "held-out")
    )
    assert train.isdisjoint(held_out)
    assert learner.units(seat, "train")[0] != learner.units(seat, "held-out")[0]


def test_the_log_of_a_node_names_no_value(world: World, capfd: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("IRIAI_PHASES", "1")
    _, reply = world.ask(weights=world.worker.home_learner.initial(world.recipe))
    assert reply.status == "ok"
    lines = capfd.readouterr().err.splitlines()
    assert "phase run=run_aaaaaaaaaaaaaaaa round=1 attempt=1 training" in lines
    assert [line.split()[-1] for line in lines if line.startswith("phase")] == [
        "training",
        "trained",
        "sealed",
    ]
    assert Envelope
