# SPDX-License-Identifier: Apache-2.0
"""The verifier's own arithmetic of models gives the bits of the nodes' and the broker's; a run that goes back is followed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from client.learning.weights import initial_weights
from policies.encoding import digest
from policies.log.entries import EntryType
from policies.recipe import ServerAdam, ServerMean, ServerMomentum
from policies.server_step import initial_state, released_weights, server_step
from policies.verify import Report
from policies.verify.first_model import first_model
from policies.verify.models import Models, finish_models
from policies.verify.server import Model, Server, UnfitError, float32_bytes
from tests.federationsim import tiny_recipe

T = EntryType
_ADAM: dict[str, Any] = {
    "kind": "adam",
    "update": "gradient",
    "rate": "0.03",
    "decay": "0.8",
    "beta1": "0.9",
    "beta2": "0.99",
    "epsilon": "0.00001",
    "average": "0.9",
    "steps": 5,
}
BLOCKS: list[tuple[Any, dict[str, Any]]] = [
    (ServerMean, {"kind": "mean"}),
    (ServerMomentum, {"kind": "momentum", "decay": "0.9", "rate": "0.7"}),
    (ServerAdam, _ADAM),
    (ServerAdam, _ADAM | {"update": "difference", "average": "0", "epsilon": "0.1", "decay": "0"}),
]
_IDS = ["mean", "momentum", "gradients", "differences"]
SIZE = 300


@pytest.mark.parametrize(("kind", "block"), BLOCKS, ids=_IDS)
def test_every_step_gives_the_bits_of_the_servers_own(kind: Any, block: dict[str, Any]) -> None:
    rng = np.random.default_rng(9)
    options, server = kind(**block), Server.of(block)
    start = rng.normal(size=SIZE).astype(np.float32)
    start[:4] = 0.0, -0.0, 1e-45, 3e38  # subnormal, and near the end of float32
    weights, state = start.astype(np.float64), initial_state(start, options)
    model = Model.first(start.tobytes(), server)
    for step in range(8):
        spread = rng.integers(0, 31, size=SIZE)
        z = (rng.integers(-(2**31), 2**31, size=SIZE) >> spread).astype("<i4")
        z[:2] = 0
        kappa = float(rng.random() * 10.0 ** rng.integers(-12, 1))
        weights, state = server_step(weights, z * np.float64(kappa), state, options, step)
        model = server.step(model, z.tobytes(), kappa)
        assert float32_bytes(model.weights) == weights.astype("<f4").tobytes()
        assert {name: np.asarray(one).tobytes() for name, one in model.state.items()} == {
            name: one.tobytes() for name, one in state.items()
        }
        released = released_weights(weights, state, options).astype("<f4").tobytes()
        assert server.released(model) == digest(released)


def test_a_value_beyond_float32_becomes_infinite_as_it_does_in_numpy() -> None:
    server = Server.of({"kind": "mean"})
    model = server.step(
        Model.first(np.float32([3e38]).tobytes(), server), np.int32([2**31 - 1]).tobytes(), 1e30
    )
    assert float32_bytes(model.weights) == np.float32([np.inf]).tobytes()


@pytest.mark.parametrize("seed", [0, 1, 20_261_205, 2**32 - 1])
def test_the_first_model_has_the_bits_that_nodes_draw_from_the_seed(seed: int) -> None:
    tree = json.loads(tiny_recipe().canonical)
    tree["architecture"]["args"]["seed"] = seed
    args = SimpleNamespace(seed=seed)
    recipe = SimpleNamespace(
        tensors=tiny_recipe().tensors, architecture=SimpleNamespace(args=args), start=None
    )
    assert first_model(tree) == initial_weights(recipe).tobytes()  # type: ignore[arg-type]
    assert first_model(tree | {"start": {"model": "", "seed_set": ""}}) is None


@pytest.mark.parametrize(
    "block",
    [
        None,
        {"kind": "other"},
        {"kind": "momentum", "decay": "0.9"},
        _ADAM | {"steps": 0},
        _ADAM | {"update": "both"},
        _ADAM | {"rate": "inf"},
    ],
)
def test_a_recipe_without_a_server_is_unfit(block: Any) -> None:
    with pytest.raises(UnfitError):
        Server.of(block)
    with pytest.raises(UnfitError):
        first_model({"start": None, "tensors": block})


# --- runs that go back ---

MOMENTUM = BLOCKS[1][1]
SIX = {"name": "policy", "shape": [2, 3], "block": "head"}


def _recipe(server: dict[str, Any], start: dict[str, str] | None = None) -> dict[str, Any]:
    return {"start": start, "architecture": {"args": {"seed": 3}}, "tensors": [SIX], "server": server}


class Log:
    """Entries of one run, and what the server makes of its sums."""

    def __init__(self, recipe: dict[str, Any]) -> None:
        self.server, self.entries = Server.of(recipe["server"]), list[tuple[int, Any]]()
        contract = SimpleNamespace(aggregation=SimpleNamespace(secure_aggregation="required"))
        self.history: Any = SimpleNamespace(
            contracts={"c": contract},
            recipes={"r": recipe},
            recipe_of=lambda _run: "r",
            of=lambda *_kinds: iter(self.entries),
        )
        self.sums: dict[int, bytes] = {}

    @property
    def size(self) -> int:
        return len(self.entries)

    def add(self, kind: EntryType, number: int | None, **pub: Any) -> None:
        entry = SimpleNamespace(type=kind, run="run", round=number, scope="c", pub=pub)
        self.entries.append((self.size, entry))

    def round(self, number: int, base: Model, *, lost: bool = False) -> Model:
        z = np.random.default_rng(number).integers(-1000, 1000, size=6).astype("<i4").tobytes()
        self.add(T.ROUND_OPENED, number, base_model=base.digest)
        made = self.server.step(base, z, 0.001)
        if not lost:
            self.sums[self.size] = z
        self.add(T.AGGREGATE_RELEASED, number, model=made.digest)
        return made

    def report(self, given: dict[str, bytes] | None = None) -> Report:
        report = Report()
        self.history.size = self.size
        models = Models(self.history, report, given or {})
        for index, z in self.sums.items():
            models.take(index, z, 0.001)
        models.finish()
        finish_models(report)
        return report


def _begun(server: dict[str, Any]) -> tuple[Log, Model]:
    recipe = _recipe(server)
    log = Log(recipe)
    return log, Model.first(first_model(recipe) or b"", log.server)


def test_after_a_rejection_the_accepted_model_and_its_state_go_on() -> None:
    log, first = _begun(MOMENTUM)
    good = log.round(1, first)
    log.add(T.ROUND_JUDGED, 1, verdict="accepted")
    bad = log.round(3, log.round(2, good))
    log.add(T.ROUND_JUDGED, 3, verdict="rejected")
    log.add(T.ROUND_OPENED, 4, base_model=good.digest)  # abandoned
    chosen = {"opened": [0, 1], "failed": []}
    log.add(T.ROUND_OPENED, 5, base_model=good.digest)
    log.add(T.ROUND_CHOSEN, 5, chosen=[], **chosen)
    last = log.round(6, good)
    log.add(T.CANDIDATE_EVALUATED, None, candidate=last.digest)
    report = log.report()
    assert (report.findings, report.facts["models"]) == ([], {"rounds": 4, "recomputed": 4})
    log.add(T.CANDIDATE_EVALUATED, None, candidate=bad.digest)
    assert set(log.report().counts) == {"AUD-097"}


def test_a_probe_whose_teams_were_chosen_gives_a_model_that_stands() -> None:
    log, first = _begun(MOMENTUM)
    log.add(T.ROUND_OPENED, 1, base_model=first.digest)
    log.add(T.ROUND_CHOSEN, 1, opened=[0, 1], failed=[], chosen=[1])
    good = log.round(1, first)
    log.round(2, good)
    log.add(T.ROUND_JUDGED, 2, verdict="rejected")
    log.round(3, good)
    assert (log.report().findings, log.report().facts["models"]["recomputed"]) == ([], 3)


def test_behind_a_lost_sum_nothing_is_followed_until_the_run_goes_back() -> None:
    log, first = _begun(MOMENTUM)
    good = log.round(1, first)
    log.add(T.ROUND_JUDGED, 1, verdict="accepted")
    third = log.round(3, log.round(2, good, lost=True))
    log.add(T.CANDIDATE_EVALUATED, None, candidate="unknown")
    assert log.report({third.digest: float32_bytes(third.weights)}).facts["models"]["recomputed"] == 1
    log.add(T.ROUND_JUDGED, 3, verdict="rejected")
    log.round(4, good)
    report = log.report()
    assert (report.findings, report.facts["models"]) == ([], {"rounds": 4, "recomputed": 2})
    assert any("AUD-097: models of 2 of 4 rounds" in one for one in report.unchecked)


def test_a_server_that_remembers_nothing_is_followed_on_from_a_model_at_hand() -> None:
    log, first = _begun({"kind": "mean"})
    second = log.round(2, log.round(1, first, lost=True))
    log.round(3, second)
    assert log.report().facts["models"]["recomputed"] == 0
    given = {second.digest: float32_bytes(second.weights)}
    assert log.report(given).facts["models"]["recomputed"] == 1


def test_a_start_model_is_followed_from_where_the_auditor_has_it() -> None:
    data = np.float32([1, 2, 3, 4, 5, 6]).tobytes()
    log = Log(_recipe(MOMENTUM, {"model": digest(data), "seed_set": ""}))
    log.round(1, Model.first(data, log.server))
    assert (log.report().findings, log.report().facts["models"]["recomputed"]) == ([], 0)
    assert log.report({digest(data): data}).facts["models"]["recomputed"] == 1
    odd = Log(_recipe(MOMENTUM, {"model": digest(data[:-1]), "seed_set": ""}))
    odd.add(T.ROUND_OPENED, 1, base_model=digest(data[:-1]))
    assert odd.report({digest(data[:-1]): data[:-1]}).findings == []
    other = Log(_recipe(MOMENTUM, {"model": digest(b"other"), "seed_set": ""}))
    other.round(1, Model.first(data, other.server))
    assert set(other.report().counts) == {"AUD-097"}
