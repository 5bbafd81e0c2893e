# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest

from policies.errors import InvariantError
from policies.recipe import load
from policies.server_step import initial_state, released_weights, server_step
from sandbox.recipes import plain_recipe, private_recipe
from tests.learnsim import changed

ADAM = load(private_recipe()).server
MOMENTUM = load(plain_recipe()).server
MEAN = load(changed(plain_recipe(), "server", {"kind": "mean"})).server
FED_ADAM = ADAM.model_copy(update={"update": "difference", "decay": "0", "average": "0"})


@pytest.fixture
def updates():
    return np.random.default_rng(3).normal(0, 0.01, (6, 50)).astype(np.float32)


def run(options, start, updates):
    weights, state = start, initial_state(start, options)
    for step, update in enumerate(updates):
        weights, state = server_step(weights, update, state, options, step)
    return weights, state


def test_mean_adds(updates):
    weights, state = run(MEAN, np.zeros(50, np.float32), updates)
    assert state == {}
    np.testing.assert_allclose(weights, updates.sum(0), atol=1e-6)


def test_momentum_is_the_formula(updates):
    weights, _ = run(MOMENTUM, np.ones(50, np.float32), updates)
    model, velocity = np.ones(50), np.zeros(50)
    for update in updates:
        velocity = 0.9 * velocity + update
        model = model + 0.3 * velocity
    np.testing.assert_allclose(weights, model, atol=1e-6)


def test_adam_descends_by_the_formula_and_releases_the_average(updates):
    weights, state = run(ADAM, np.ones(50, np.float32), updates)
    rate, decay, epsilon = float(ADAM.rate), float(ADAM.decay), float(ADAM.epsilon)
    beta1, beta2, ema = float(ADAM.beta1), float(ADAM.beta2), float(ADAM.average)
    model, m, v, average = np.ones(50), np.zeros(50), np.zeros(50), np.ones(50)
    for t, g in enumerate(updates.astype(np.float64)):
        m, v = beta1 * m + (1 - beta1) * g, beta2 * v + (1 - beta2) * g * g
        direction = (m / (1 - beta1 ** (t + 1))) / (np.sqrt(v / (1 - beta2 ** (t + 1))) + epsilon)
        model = model - rate * (1 - decay * t / ADAM.steps) * direction
        average = ema * average + (1 - ema) * model
    np.testing.assert_allclose(weights, model, atol=1e-5)
    np.testing.assert_allclose(released_weights(weights, state, ADAM), average, atol=1e-5)


def test_adam_adds_a_difference_where_it_descends_a_gradient(updates):
    added, _ = run(FED_ADAM, np.zeros(50, np.float32), updates)
    turned, _ = run(FED_ADAM.model_copy(update={"update": "gradient"}), np.zeros(50, np.float32), updates)
    assert (added == -turned).all()
    assert np.sign(run(FED_ADAM, np.zeros(50, np.float32), updates[:1])[0]).tolist() == (
        np.sign(updates[0]).tolist()
    )


def test_without_an_average_the_last_weights_are_released_and_without_decay_the_rate_stays(updates):
    weights, state = run(FED_ADAM, np.ones(50, np.float32), updates)
    assert released_weights(weights, state, FED_ADAM).tobytes() == weights.astype(np.float32).tobytes()
    steady, short = np.full((6, 50), 0.01, np.float32), FED_ADAM.model_copy(update={"steps": 6})
    whole, _ = run(short, np.zeros(50, np.float32), steady)
    assert whole == pytest.approx(6 * float(FED_ADAM.rate), rel=1e-3)
    falling, _ = run(short.model_copy(update={"decay": "0.5"}), np.zeros(50, np.float32), steady)
    assert (falling < 0.9 * whole).all()


@pytest.mark.parametrize("options", [ADAM, FED_ADAM, MOMENTUM, MEAN])
def test_what_travels_is_what_the_next_step_starts_from(options, updates):
    start = np.ones(50, np.float32)
    weights, state = run(options, start, updates[:3])
    assert weights.dtype == np.float64
    travelled = weights.astype("<f4")
    kept = {name: np.frombuffer(values.tobytes()) for name, values in state.items()}
    here = server_step(weights, updates[3], state, options, 3)
    there = server_step(travelled, updates[3], kept, options, 3)
    assert here[0].tobytes() == there[0].tobytes()
    assert all(here[1][name].tobytes() == there[1][name].tobytes() for name in here[1])


def test_state_is_not_changed_in_place(updates):
    start = np.ones(50)
    state = initial_state(start, ADAM)
    before = {name: values.copy() for name, values in state.items()}
    server_step(start, updates[0], state, ADAM, 0)
    assert all((state[name] == before[name]).all() for name in state)


def test_an_update_of_another_length_is_an_invariant_broken():
    with pytest.raises(InvariantError):
        server_step(np.ones(3), np.ones(4), {}, MEAN, 0)


def test_mean_and_momentum_release_the_last_weights(updates):
    weights, state = run(MOMENTUM, np.ones(50, np.float32), updates)
    assert released_weights(weights, state, MOMENTUM).tobytes() == weights.astype(np.float32).tobytes()
