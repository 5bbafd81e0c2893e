# SPDX-License-Identifier: Apache-2.0
"""The worker's own learner on a real store: real gradients, real noise, one touch before each."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from client.datasets.adding import data_add
from client.learner import HomeLearner, episodes_of
from client.settings import LocalRules
from policies.contract import from_tree
from policies.exchange import ExchangeType
from policies.privacy.canaries import CanarySecret
from policies.privacy.receipts import ENGINES
from policies.secagg.ring import check_update, quantise, signed
from policies.server_step import initial_state
from policies.signing import Envelope
from tests.learnsim import small_recipe
from tests.nodesim import SeedEntropy
from tests.nodeworld import BEFORE_MS, IN_TERM_MS, RUN, World, kinds, ready_world, write_recording
from tests.sumnode import PEERS, sum_pool, update_of

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


def test_two_contracts_with_one_recipe_read_and_charge_their_own_data(world: World):
    first = world.contract
    tree = json.loads(json.dumps(first.document)) | {"contract_id": "ctr_bbbbbbbbbbbbbbbb"}
    for one in tree["recipes"][0]["datasets"]:
        one["dataset"] = "kita/welding" if one["party"] == "kita" else one["dataset"]
    world.contract = from_tree(tree)
    world.negotiation = world.put(world.contract)
    world.worker.close()
    world.clock.ms = BEFORE_MS
    world.sign()
    world.finalize()
    outbox = world.outbox()
    data_add(
        world.member,
        world.shelf(),
        outbox,
        write_recording(world.folder / "other", train=7, held_out=3, seed=99),
        dataset="kita/welding",
        signal_map=None,
        contract=world.contract.digest,
        rules=LocalRules(),
        publish=False,
    )
    outbox.close()
    world.clock.ms = IN_TERM_MS
    world.start()
    assert world.worker.prepare() is True
    guard, learner = world.worker.guard, world.worker.home_learner
    seats = [guard.seat(one.digest, world.recipe.digest) for one in (first, world.contract)]
    assert [learner.units(one, "train").count for one in seats] == [4, 7]
    for block in ("train", "held-out", "held-out"):
        manifests = [learner.units(one, block).manifest for one in seats]
        assert manifests[0] != manifests[1]
    for number, seat in enumerate((seats[1], seats[0], seats[1])):
        paid = []
        learner.update(seat, RUN, (number, 1), learner.initial(seat.recipe), paid.append)
        assert paid == [learner.units(seat, "train").manifest]
        assert learner.judge(seat, learner.initial(seat.recipe))
        assert next(iter(learner._held_out))[2:] == (seat.dataset, seat.lineage)
    receipts = []
    for seat, run in ((seats[0], "run_cccccccccccccccc"), (seats[1], "run_dddddddddddddddd")):
        world.contract = seat.held.contract
        _, reply = world.ask(run=run, weights=learner.initial(world.recipe), body={"receipts": receipts})
        assert reply.status == "ok", reply.code
        receipts = world.log_reply(reply)
    charged = {(one.run, one.contract, one.lineage) for one in world.worker.budgets.touches()}
    assert charged == {
        (run, seat.held.contract.digest, seat.lineage)
        for seat, run in zip(seats, ("run_cccccccccccccccc", "run_dddddddddddddddd"), strict=True)
    }


def test_a_trainer_that_was_prepared_before_data_came_is_made_anew(world: World):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    learner = world.worker.home_learner
    learner.warm([seat])
    (prepared,) = learner._spare.values()
    learner._spare = {key: replace(prepared, manifest="sha256:" + "0" * 64) for key in learner._spare}
    paid: list[str] = []
    learner.update(seat, RUN, (1, 1), learner.initial(seat.recipe), paid.append)
    assert paid == [learner.units(seat, "train").manifest]
    assert all(one.trainer is not prepared.trainer for one in learner._trainers.values())


def test_a_learner_that_is_ready_has_the_trainer_that_the_first_update_takes(world: World):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    learner = world.worker.home_learner
    learner.ready(seat)
    (prepared,) = learner._spare.values()
    learner.ready(seat)
    assert list(learner._spare.values()) == [prepared]  # made once
    learner.update(seat, RUN, (1, 1), learner.initial(seat.recipe), lambda _manifest: None)
    assert [one.trainer for one in learner._trainers.values()] == [prepared.trainer]


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
    assert learner.units(seat, "train").manifest != learner.units(seat, "held-out").manifest


def test_the_log_of_a_node_names_no_value(world: World, capfd: pytest.CaptureFixture[str], monkeypatch):
    monkeypatch.setenv("IRIAI_PHASES", "1")
    _, reply = world.ask(weights=world.worker.home_learner.initial(world.recipe))
    assert reply.status == "ok"
    lines = capfd.readouterr().err.splitlines()
    assert any(
        one.startswith("phase run=run_aaaaaaaaaaaaaaaa round=1 attempt=1 training ms=") for one in lines
    )
    assert [line.split()[-2] for line in lines if line.startswith("phase")] == [
        "training",
        "trained",
        "sealed",
    ]
    assert Envelope


def test_canaries_of_a_run_are_trained_on_beside_the_sites_own_units_and_charge_nothing(world: World):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    learner = world.worker.home_learner
    planted = CanarySecret(run=RUN, seed=b"s" * 32, salt=b"t" * 16, count=22)
    own, both = learner.units(seat, "train"), learner.units(seat, "train", planted)
    assert (both.count, both.blocks) == (own.count, own.blocks)
    assert both.manifest != own.manifest
    paid: list[str] = []
    learner.update(seat, RUN, (1, 1), learner.initial(seat.recipe), paid.append, canaries=planted)
    assert paid == [both.manifest]
    ((_, ready),) = learner._trainers.items()
    assert len(ready.trainer._steps._units) == own.count + planted.flips.count("1")
    assert learner.made_with(seat).engine in ENGINES.values()


def test_a_share_of_noise_on_the_sites_own_data_goes_into_the_sum_and_nowhere_else(tmp_path: Path):
    """What is left of the sum without the peers is at least this node's share, and at most 4 clipped units more."""
    recipe = small_recipe(noise="shares", honest_min=3)
    pool = sum_pool(tmp_path, recipe=recipe, privacy__noise="shares", privacy__honest_min=3)
    world, plan, size = pool.world, recipe.plan, pool.terms.dimension
    world.learner = None  # the site's own
    world.restart()
    pool.weights = world.worker.home_learner.initial(recipe)
    pool.state = initial_state(pool.weights, recipe.server)
    found = pool.round(pool.setup(), 1)
    peers = np.zeros(size, np.uint32)
    for name in PEERS:
        update = check_update(update_of(name, (1, 1), size), pool.terms)
        peers += quantise(update, weight=pool.terms.weight(name), terms=pool.terms)
    own = signed(found.z - peers) * (float(plan.normalizer) / pool.terms.scale)  # in units of the clipped sum
    share, spread = plan.added_std**2, 6 * (2 / size) ** 0.5
    assert (
        share * (1 - spread)
        < np.mean(own**2)
        < share * (1 + spread) + (4 * float(plan.clip_norm)) ** 2 / size
    )
    assert np.mean(own**2) < plan.noise_std**2 * (1 - spread)
