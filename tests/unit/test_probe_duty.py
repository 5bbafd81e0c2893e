# SPDX-License-Identifier: Apache-2.0
"""A node that is asked about a probe's teams: it makes the models itself, and its figures cost one query."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from policies.encoding import digest, digest_of
from policies.exchange import ExchangeType, tensor_bytes, tensor_spec
from policies.log.envelope import open_envelope
from policies.robustness.plan import votes_plan
from policies.secagg.agreed import agreed_terms
from policies.secagg.ring import mean
from policies.server_step import initial_state, server_step
from policies.signing import Envelope
from tests.nodeworld import RUN, World, copied

VALIDATION = {
    "clause": "validate-1",
    "quorum": "0.67",
    "max_rejected_rounds": 3,
    "judge_episodes": 20,
    "gain_clip": "0.05",
    "max_judgings": 2,
    "epsilon": "0.5",
}


class Judge:
    """`tests.nodeworld`'s learner, which keeps the models that it is shown."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.models: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def gains(self, seat: Any, plan: Any, models: Any, against: Any) -> tuple[int, ...]:
        self.models += [digest(tensor_bytes(one)) for one in models]
        return tuple(range(-1, len(models) - 1))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("probe"), changes={"validation": VALIDATION}).ready()
    world.worker.close()
    return world


@pytest.fixture
def world(template: World, tmp_path: Path) -> World:
    found = copied(template, tmp_path)
    found.learner = Judge(found.learner)
    found.restart()
    return found


def team(world: World) -> list[str]:
    return [one.party for one in world.contract.contributors]


def parts(world: World) -> tuple[np.ndarray, np.ndarray, np.ndarray, list[np.ndarray]]:
    """The accepted model, the base, a sum, and the optimiser's state."""
    base = world.weights(2.0)
    rng = np.random.default_rng(3)
    state = initial_state(base, world.recipe.server)
    arrays = [rng.random(len(base)) for _ in state]
    return world.weights(1.0), base, rng.integers(0, 2**20, len(base)).astype("<u4"), arrays


def ask(world: World, *, number: int = 1, tensor: np.ndarray | None = None, **body: Any) -> Any:
    against, base, z, state = parts(world)
    words = [against.view("<u4"), base.view("<u4"), z, *(one.view("<u4") for one in state)]
    given = {
        "log": world.broker.log.news(world.worker.outbox.shown.seen().size),
        "receipts": [],
        "against": tensor_spec(against).digest,
        "base": tensor_spec(base).digest,
        "sums": [digest(z.tobytes())],
        "teams": [team(world)],
        "step": 4,
        "plan": digest_of(votes_plan(world.contract.validation, world.recipe.evaluation.document)),
    }
    _, reply = world.send(
        ExchangeType.SA_JUDGE,
        round=number,
        attempt=1,
        tensor=np.concatenate(words) if tensor is None else tensor,
        body=given | body,
    )
    return reply


def said(world: World, reply: Any) -> list[tuple[str, Any]]:
    key = world.member.identity.key.public
    payloads = [open_envelope(Envelope.from_json(one), key) for one in reply.body["envelopes"]]
    return [(one["kind"], one["body"]) for one in payloads]


def test_the_model_of_a_union_is_the_servers_step_on_the_mean_of_its_sums(world: World) -> None:
    reply = ask(world)
    assert reply.ok, reply.code
    _, base, z, arrays = parts(world)
    terms = agreed_terms(world.contract, world.recipe.canonical, run=RUN)
    state = dict(zip(sorted(initial_state(base, world.recipe.server)), arrays, strict=True))
    update = mean(z, terms, tuple(sorted(team(world))))
    weights, _ = server_step(base, update, state, world.recipe.server, 4)
    assert world.learner.models == [digest(tensor_bytes(weights.astype(np.float32)))]


def test_figures_leave_signed_beside_one_spend_and_asked_again_they_are_the_same(world: World) -> None:
    first = ask(world)
    found = dict(said(world, first))
    assert found["round.scored"]["gains"] == [-1]
    assert set(found["round.scored"]) == {"against", "base", "sums", "gains", "evaluation"}
    assert found["epsilon.spent"]["steps"] == 1
    assert ask(world).body["envelopes"] == first.body["envelopes"]
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 1


def test_more_probes_than_the_contract_pays_for_are_refused(world: World) -> None:
    assert [ask(world, number=number).ok for number in (1, 2)] == [True, True]
    reply = ask(world, number=3)
    assert not reply.ok
    assert reply.code == "budget.exhausted"
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 2


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"teams": [["kita", "nord"]]}, "secagg.cohort-too-small"),
        ({"teams": [["kita", "nord", "stranger"]]}, "secagg.cohort-too-small"),
        ({"teams": []}, "secagg.context-mismatch"),
        ({"teams": [["kita", "nord", "iber"], ["kita", "nord", "hanbit"]]}, "secagg.context-mismatch"),
        ({"sums": []}, "secagg.context-mismatch"),
        ({"step": -1}, "secagg.context-mismatch"),
        ({"base": "sha256:" + "0" * 64}, "node.digest-mismatch"),
        ({"tensor": np.zeros(5, np.uint32)}, "node.digest-mismatch"),
        ({"plan": "sha256:" + "0" * 64}, "privacy.plan-mismatch"),
    ],
)
def test_a_question_that_is_none_costs_nothing(world: World, body: dict[str, Any], code: str) -> None:
    reply = ask(world, **body)
    assert reply.code == code
    assert not world.worker.outbox.envelopes(kind="epsilon.spent")
    assert not world.learner.models
