# SPDX-License-Identifier: Apache-2.0
"""The oracle of the server optimisers: Flower's own strategies over plain replies, on the same inputs.

Flower sees each silo's weights; we see one sum. Without a ring both give the same weights, but for what rounding
to float32 takes. With it they differ by half a grid step per silo, carried through the optimiser.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from broker.federation.flower import names
from policies.recipe import ServerAdam, ServerMean, ServerMomentum
from policies.secagg import ring
from policies.secagg.terms import Member, Terms
from policies.server_step import initial_state, server_step

Array = npt.NDArray[np.float64]

SILOS, SIZE, ROUNDS = 4, 300, 7
STEP = 2.0**-15  # of the ring below: 2^28 steps in the range of 2^13
HALF = STEP / 2
FLOAT32 = 2.0**-24  # half of what float32 leaves out at weights below 2
EQUAL = (1_000_000,) * SILOS
FIXED = (1_000_000, 500_000, 250_000, 250_000)  # of which float32 holds the parts exactly

MEAN = ServerMean(kind="mean")
MOMENTUM = ServerMomentum(kind="momentum", decay="0.9", rate="0.3")
RATE_ONLY = ServerMomentum(kind="momentum", decay="0", rate="0.5")
ADAM = ServerAdam(
    kind="adam",
    update="difference",
    rate="0.01",
    decay="0",
    beta1="0.9",
    beta2="0.99",
    epsilon="0.003",
    average="0",
    steps=ROUNDS,
)


class Flower:
    """A strategy of Flower's, fed with plain replies; its weights after each round."""

    def __init__(self, options: Any, start: Array, weights: tuple[int, ...]) -> None:
        from flwr.serverapp.strategy import FedAdam, FedAvg, FedAvgM

        self.options, self.now, self.weights, self.done = options, start, weights, 0
        if options.kind == "mean":
            self.strategy: Any = FedAvg()
        elif options.kind == "momentum":
            self.strategy = FedAvgM(
                server_learning_rate=float(options.rate), server_momentum=float(options.decay)
            )
        else:
            self.strategy = FedAdam(
                eta=float(options.rate), beta_1=float(options.beta1), beta_2=float(options.beta2)
            )

    def round(self, updates: npt.NDArray[np.float32]) -> Array:
        replies = [
            reply(self.now + update, weight) for update, weight in zip(updates, self.weights, strict=True)
        ]
        if self.options.kind == "momentum":
            self.strategy.current_arrays = arrays(self.now)
        elif self.options.kind == "adam":  # the docstring of `policies.server_step` says why
            self.strategy.current_arrays = {"w": self.now}
            beta2, epsilon = float(self.options.beta2), float(self.options.epsilon)
            self.strategy.tau = epsilon * math.sqrt(1 - beta2 ** (self.done + 1))
        found, _ = self.strategy.aggregate_train(self.done, replies)
        self.now, self.done = found["w"].numpy(), self.done + 1
        return self.now


def arrays(values: Array) -> Any:
    from flwr.app import Array as FlowerArray
    from flwr.app import ArrayRecord

    return ArrayRecord({"w": FlowerArray(values)})


def reply(weights: Array, examples: int) -> Any:
    from flwr.app import MetricRecord, RecordDict
    from flwr.app.message import make_message

    metadata = names.Metadata(1, "", 7, 1, "", "1", names.now().timestamp(), 60.0, "train")
    content = RecordDict({"arrays": arrays(weights), "m": MetricRecord({"num-examples": examples})})
    return make_message(metadata=metadata, content=content)


def terms(weights: tuple[int, ...]) -> Terms:
    zero = "sha256:" + "0" * 64
    parties = [f"p{number}" for number in range(SILOS)]
    return Terms(
        contract=zero,
        recipe=zero,
        manifest=zero,
        run="run_aaaaaaaaaaaaaaaa",
        roster=tuple(Member(party=one, group=one, key=bytes(32)) for one in parties),
        dimension=SIZE,
        norm_max="8192",
        weights=weights,
        max_share="1",
        min_parties=3,
        max_colluders=0,
        honest_min=None,
        group_mac=False,
        clause="k-1",
    )


def plain_mean(updates: npt.NDArray[np.float32], weights: tuple[int, ...]) -> Array:
    mean: Array = np.average(updates.astype(np.float64), axis=0, weights=np.array(weights, dtype=np.float64))
    return mean


def ring_mean(updates: npt.NDArray[np.float32], weights: tuple[int, ...]) -> Array:
    """The mean as a federation with secure aggregation has it; masks cancel, so they are left out."""
    fixed = terms(weights)
    total = np.zeros(SIZE, dtype=np.uint32)
    for party, update in zip(fixed.parties, updates, strict=True):
        total += ring.quantise(update, weight=fixed.weight(party), terms=fixed)
    return ring.mean(total, fixed, fixed.parties)


@pytest.fixture
def start() -> Array:
    return np.random.default_rng(1).uniform(-1, 1, SIZE).astype(np.float32).astype(np.float64)


@pytest.fixture
def updates() -> npt.NDArray[np.float32]:
    """A direction that all share, and what each silo adds to it."""
    rng = np.random.default_rng(2)
    shared = rng.normal(0, 0.02, (1, 1, SIZE))
    return (shared + rng.normal(0, 0.01, (ROUNDS, SILOS, SIZE))).astype(np.float32)


CASES = [
    pytest.param(MEAN, EQUAL, id="FedAvg"),
    pytest.param(MEAN, FIXED, id="FedAvg with fixed weights"),
    pytest.param(RATE_ONLY, EQUAL, id="FedAvgM without momentum"),
    pytest.param(MOMENTUM, EQUAL, id="FedAvgM"),
    pytest.param(ADAM, EQUAL, id="FedAdam"),
]


@pytest.mark.parametrize(("options", "weights"), CASES)
def test_the_server_step_is_that_of_flower(
    options: Any, weights: tuple[int, ...], start: Array, updates: npt.NDArray[np.float32]
) -> None:
    theirs = Flower(options, start, weights)
    ours, state = start, initial_state(start, options)
    for step in range(ROUNDS):
        ours, state = server_step(ours, plain_mean(updates[step], weights), state, options, step)
        np.testing.assert_allclose(ours, theirs.round(updates[step]), rtol=0, atol=1e-6)
    assert np.abs(ours - start).max() > 0.02


@pytest.mark.parametrize(("options", "weights"), CASES)
def test_through_the_ring_it_is_that_of_flower_within_half_a_step_per_silo(
    options: Any, weights: tuple[int, ...], start: Array, updates: npt.NDArray[np.float32]
) -> None:
    theirs = Flower(options, start, weights)
    off = Fraction(SILOS * 1_000_000, sum(weights)) * Fraction(HALF)  # of the mean
    carried = Carried(options, float(off))
    ours, state = start, initial_state(start, options)
    for step in range(ROUNDS):
        mean = ring_mean(updates[step], weights)
        assert np.abs(mean - plain_mean(updates[step], weights)).max() <= off
        ours, state = server_step(ours, mean, state, options, step)
        wanted = theirs.round(updates[step])
        assert (np.abs(ours - wanted) <= carried.after(theirs) + 2 * FLOAT32 * (step + 1)).all(), step
    assert np.abs(ours - wanted).max() > HALF / 100  # the ring is not a formality here


class Carried:
    """How far weights may lie apart when each mean is off by at most so much."""

    def __init__(self, options: Any, off: float) -> None:
        self.options, self.off, self.velocity, self.total = options, off, 0.0, np.zeros(SIZE)

    def after(self, theirs: Flower) -> Array:
        if self.options.kind == "mean":
            self.total = self.total + self.off
        elif self.options.kind == "momentum":
            self.velocity = float(self.options.decay) * self.velocity + self.off
            self.total = self.total + float(self.options.rate) * self.velocity
        else:
            self.total = self.total + self._adam(theirs.strategy, theirs.done)
        return self.total

    def _adam(self, strategy: Any, t: int) -> Array:
        """Both moments' roots move by at most `off`; then the quotient's bound."""
        first = np.abs(strategy.m_t["w"]) / (1 - strategy.beta_1**t)
        below = np.sqrt(strategy.v_t["w"] / (1 - strategy.beta_2**t)) + float(self.options.epsilon)
        bound: Array = strategy.eta * self.off / (below - self.off) * (1 + first / below)
        return bound


def test_a_mean_over_too_few_and_an_added_gradient_are_seen_by_the_oracle(
    start: Array, updates: npt.NDArray[np.float32]
) -> None:
    """Planted: the comparison above would find each."""
    wanted = Flower(MEAN, start, EQUAL).round(updates[0])
    too_few = server_step(start, plain_mean(updates[0], EQUAL) * 4 / 3, {}, MEAN, 0)[0]
    assert np.abs(too_few - wanted).max() > 100 * HALF
    wanted = Flower(ADAM, start, EQUAL).round(updates[0])
    turned = ADAM.model_copy(update={"update": "gradient"})
    mean = plain_mean(updates[0], EQUAL)
    assert np.abs(server_step(start, mean, initial_state(start, turned), turned, 0)[0] - wanted).max() > 0.01
