# SPDX-License-Identifier: Apache-2.0
"""A node that is asked whether a round's model stands: what it checks, what it pays, what leaves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.budgets.reckoning import reconcile
from client.learning.evaluate import gains, unit_losses
from client.learning.weights import initial_weights
from policies.encoding import digest_of
from policies.exchange import ExchangeType, tensor_spec
from policies.log.envelope import open_envelope
from policies.privacy.errors import BudgetDivergedError, EvalUnplannedError
from policies.privacy.plan import EvalPlan
from policies.robustness.plan import votes_plan
from policies.signing import Envelope
from tests.learnsim import SeededEntropy, episodes, small_recipe
from tests.nodeworld import RUN, World, copied, kinds, ready_world

VALIDATION = {
    "clause": "validate-1",
    "quorum": "0.67",
    "max_rejected_rounds": 3,
    "judge_episodes": 20,
    "gain_clip": "0.05",
    "max_judgings": 2,
    "epsilon": "0.5",
}


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("votes"), changes={"validation": VALIDATION}).ready()
    world.worker.close()
    return world


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    return copied(template, tmp_path)


def ask(
    world: World, *, number: int = 1, attempt: int = 1, tensor: np.ndarray | None = None, **body: Any
) -> Any:
    """A request to vote on a round whose model is all twos, beside one of all ones."""
    model, against = world.weights(2.0), world.weights(1.0)
    given = {
        "log": world.broker.log.news(world.worker.outbox.shown.seen().size),
        "receipts": [],
        "model": tensor_spec(model).digest,
        "against": tensor_spec(against).digest,
        "plan": digest_of(votes_plan(world.contract.validation, world.recipe.evaluation.document)),
    }
    _, reply = world.send(
        ExchangeType.SA_JUDGE,
        round=number,
        attempt=attempt,
        tensor=np.concatenate([model, against]) if tensor is None else tensor,
        body=given | body,
    )
    return reply


def said(world: World, reply: Any, kind: str) -> list[dict[str, Any]]:
    key = world.member.identity.key.public
    payloads = [open_envelope(Envelope.from_json(one), key) for one in reply.body["envelopes"]]
    return [one["body"] for one in payloads if one["kind"] == kind]


@pytest.mark.parametrize(("found", "vote"), [(0, "accept"), (-10_000_000, "accept"), (-10_000_001, "reject")])
def test_a_vote_is_one_signed_bit_and_its_query_is_paid_for(world: World, found: int, vote: str) -> None:
    world.learner.found = found
    reply = ask(world)
    assert kinds(reply)[-3:] == ["budget.opened", "epsilon.spent", "round.voted"]
    (body,) = said(world, reply, "round.voted")
    assert body["vote"] == vote
    assert set(body) == {"model", "against", "vote", "evaluation"}
    assert str(found)[1:] not in json.dumps(reply.body) or not found
    (spent,) = said(world, reply, "epsilon.spent")
    assert (spent["steps"], spent["mechanism"].split("/")[:2]) == (1, [RUN, "eval"])


def test_asked_again_the_same_envelopes_go_out_and_nothing_is_paid_twice(world: World) -> None:
    first = ask(world)
    assert ask(world).body["envelopes"] == first.body["envelopes"]
    world.restart()
    again = ask(world, log=None)
    assert again.body["envelopes"] == first.body["envelopes"]
    assert world.learner.weighed == 1
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 1


def test_a_query_that_was_paid_for_and_came_to_nothing_is_made_again_under_the_same_spend(
    world: World,
) -> None:
    world.learner.fail = RuntimeError("the secret 4711")
    assert ask(world).code == "engine.handler-failed"
    world.learner.fail = None
    world.restart()
    reply = ask(world, attempt=2, log=None)
    assert reply.status == "ok", reply.code
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 1
    assert len(said(world, reply, "round.voted")) == 1


def test_no_more_votes_are_cast_than_the_contract_pays_for(world: World) -> None:
    receipts: list[Any] = []
    for number in (1, 2):
        reply = ask(world, number=number, receipts=receipts)
        assert reply.status == "ok", reply.code
        receipts = world.log_reply(reply)
    assert ask(world, number=3, receipts=receipts).code == "budget.exhausted"


def test_votes_and_the_query_about_a_candidate_are_held_apart(world: World) -> None:
    reply = ask(world)
    _, other = world.ask(ExchangeType.JUDGE, body={"receipts": world.log_reply(reply)})
    assert other.status == "ok", other.code
    assert world.worker.budgets.held_runs() == (RUN,)
    assert world.worker.budgets.settle(lambda run: run == RUN) == 2


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        ({"plan": "sha256:" + "0" * 64}, "privacy.plan-mismatch"),
        ({"model": "sha256:" + "0" * 64}, "node.digest-mismatch"),
        ({"against": None}, "node.digest-mismatch"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_paid(
    world: World, wrong: dict[str, Any], code: str
) -> None:
    reply = ask(world, **wrong)
    assert (reply.status, world.learner.weighed) == ("refused", 0)
    assert reply.code == code
    assert world.worker.outbox.envelopes(kind="epsilon.spent") == ()


def test_half_a_tensor_is_refused(world: World) -> None:
    assert ask(world, tensor=world.weights(2.0)).status == "refused"
    assert world.learner.weighed == 0


def test_without_a_validation_clause_nobody_votes(tmp_path: Path) -> None:
    world = ready_world(tmp_path)
    model = world.weights()
    body = {"model": tensor_spec(model).digest, "against": tensor_spec(model).digest, "plan": None}
    _, reply = world.send(
        ExchangeType.SA_JUDGE,
        round=1,
        attempt=1,
        tensor=np.concatenate([model, model]),
        body=body | {"log": None, "receipts": []},
    )
    assert (reply.status, world.learner.weighed) == ("refused", 0)


def test_a_ledger_that_lacks_a_vote_that_was_told_is_mended(world: World) -> None:
    _, first = world.ask()  # opens the ledger
    old = {path: path.read_bytes() for path in world.home.budget.glob("*.db")}
    ask(world, receipts=world.log_reply(first))
    world.worker.close()
    for path, data in old.items():
        path.write_bytes(data)
    with pytest.raises(BudgetDivergedError):
        world.start()
    outbox = world.outbox()
    try:
        done = reconcile(world.home, world.member, world.shelf(), outbox)
    finally:
        outbox.close()
    assert len(done.data["appended"]) == 1
    world.start()
    assert world.worker.budgets.held_runs() == (RUN,)


# --- the gain itself ---

RECIPE = small_recipe()
WEIGHTS = initial_weights(RECIPE)
HELD_OUT = episodes(30)


class Clause:
    gain_clip, epsilon, judge_episodes, max_judgings = "0.05", "8", 20, 1


PLAN = EvalPlan.load(votes_plan(Clause, RECIPE.evaluation.document))  # type: ignore[arg-type]


def found(models: tuple[np.ndarray, np.ndarray], held_out: Any = HELD_OUT, *, seed: int = 1) -> int:
    return gains(RECIPE, (models[:1], models[1]), held_out, PLAN, SeededEntropy(seed), trained=())[0]


def test_a_model_against_itself_gains_noise_alone_of_the_deviation_that_the_plan_says() -> None:
    figures = [found((WEIGHTS, WEIGHTS), HELD_OUT[:2], seed=seed) for seed in range(400)]
    std = PLAN.noise_std / 20 * 1e9
    assert abs(np.mean(figures)) < 6 * std / 400**0.5
    assert np.std(figures) == pytest.approx(std, rel=0.25)


def test_a_worse_model_loses_and_the_other_way_round_it_gains_as_much() -> None:
    worse = WEIGHTS * 30
    noise = found((WEIGHTS, WEIGHTS))
    assert found((worse, WEIGHTS)) - noise == pytest.approx(-(found((WEIGHTS, worse)) - noise), abs=2)
    assert found((worse, WEIGHTS)) < noise


@pytest.mark.parametrize("held_out", [HELD_OUT, HELD_OUT[:1], []])
def test_a_gain_is_within_the_clip_whatever_the_model(held_out: Any) -> None:
    wild = np.full_like(WEIGHTS, np.float32(1e30))
    gained = found((wild, WEIGHTS), held_out) - found((WEIGHTS, WEIGHTS), held_out)
    units = min(20, len(held_out))
    assert gained == pytest.approx(-0.05 * units / 20 * 1e9, abs=2)


def test_one_unit_moves_the_gain_by_at_most_its_share_of_the_clip() -> None:
    wild = np.full_like(WEIGHTS, np.float32(1e30))
    with_it, without = found((wild, WEIGHTS), HELD_OUT[:10]), found((wild, WEIGHTS), HELD_OUT[:9])
    assert abs(with_it - without) <= 0.05 / 20 * 1e9 + 1


def test_always_the_same_units_are_judged_on_where_there_are_more_than_the_contract_says() -> None:
    models = (WEIGHTS * 2, WEIGHTS)
    chosen = sorted(HELD_OUT, key=lambda one: one.unit_id)[:20]
    assert found(models) == found(models, chosen) == found(models, list(reversed(HELD_OUT)))
    assert len(unit_losses(RECIPE, WEIGHTS, HELD_OUT)) == 30


def test_a_unit_that_was_trained_on_judges_nothing() -> None:
    with pytest.raises(EvalUnplannedError):
        gains(RECIPE, ([WEIGHTS], WEIGHTS), HELD_OUT, PLAN, SeededEntropy(1), trained={HELD_OUT[3].unit_id})
