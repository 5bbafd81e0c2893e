# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.signal import savgol_filter

from client.learning.errors import EpisodeUnfitError
from client.learning.features import Features, Window
from client.learning.policy import Policy
from client.learning.tensors import frames_of, unit_frames
from client.learning.weights import initial_weights
from policies.errors import IriaiError
from policies.recipe import Recipe, manifest
from tests.recipesim import acting, approach, detecting, dynamics, every_architecture, made, recording

DYNAMICS, DETECTS = made(dynamics()), made(detecting())


def remembering() -> Recipe:
    """A recipe that acts and looks back."""
    tree = acting({"id": "mlp-chunk/1", "args": {"width": 4, "chunk": 2, "execute": 2, "seed": 1}})
    tree["features"] += [
        {"op": "history", "field": "tcp_pos", "n": 4, "normaliser": approach(3)},
        {"op": "delta", "field": "object_pos", "lag": 1, "normaliser": approach(3)},
        {"op": "rolling_std", "field": "goal_pos", "n": 3, "normaliser": approach(3)},
    ]
    tree["tensors"] = manifest(input_size=19 + 12 + 3 + 3, output_size=4, width=4, chunk=2)
    return made(tree)


def raw_of(recipe: Recipe, frames: int = 30) -> np.ndarray:
    one = recording(recipe, 3, frames=frames)
    return np.concatenate([one.observation[name] for name, _ in Features(recipe).fields], axis=1)


def test_the_features_of_dynamics_are_what_their_names_say():
    raw = raw_of(DYNAMICS).astype(np.float64)
    found = Features(DYNAMICS)(raw)
    angle, speed = raw[:, :2], raw[:, 2:]
    slope = savgol_filter(speed, 7, 3, deriv=1, delta=1 / 125, axis=0, mode="interp")
    expected = [np.sin(angle), np.cos(angle), speed / 1.21, slope / 4.85, np.tanh(speed / 0.05)]
    assert np.abs(found - np.clip(np.concatenate(expected, axis=1), -5, 5)).max() < 1e-9


def test_the_features_of_detection_look_back_within_their_episode():
    raw = raw_of(DETECTS, frames=8).astype(np.float64)
    found = Features(DETECTS)(raw)
    before = np.vstack([raw[:1], raw[:-1]])
    earlier = np.vstack([raw[:1], raw[:1], raw[:-2]])
    spread = np.stack([raw[max(0, t - 4) : t + 1].std(axis=0) for t in range(8)])
    history = np.concatenate([raw, before, earlier], axis=1)
    assert (
        np.abs(found - np.concatenate([raw / 2.02, raw - before, spread, history / 2.02], axis=1)).max()
        < 1e-9
    )


@pytest.mark.parametrize("frames", [1, 2, 3, 4, 6])
def test_a_derivative_of_an_episode_shorter_than_its_window_is_that_of_what_is_there(frames: int):
    raw = np.zeros((frames, 4))
    raw[:, 2:] = 0.001 * np.arange(frames)[:, None]
    found = Features(DYNAMICS)(raw)[:, 6:8]
    assert np.isfinite(found).all()
    assert found == pytest.approx(0.125 / 4.85 if frames > 2 else 0.0, abs=1e-9)


def test_frames_of_two_episodes_never_meet():
    one, other = raw_of(DETECTS), raw_of(DETECTS) + 5
    features = Features(DETECTS)
    assert np.abs(features(np.vstack([one, other]))[30] - features(other)[0]).max() > 0.1
    pooled = unit_frames(DETECTS, [replace(recording(DETECTS, number), unit_id=b"same") for number in (1, 2)])
    apart = [frames_of(DETECTS, recording(DETECTS, number)).inputs for number in (1, 2)]
    assert np.array_equal(pooled[0].inputs, np.concatenate(apart))


def test_an_acting_model_sees_what_training_saw():
    recipe = remembering()
    raw = raw_of(recipe)
    window, seen = Window(recipe), Features(recipe)(raw)
    for _ in range(2):
        window.begin()
        for number, row in enumerate(raw):
            assert np.array_equal(window.take(np.append(row, 9.0)), seen[number])


def test_a_policy_that_looks_back_remembers_every_frame_also_while_a_chunk_runs():
    recipe = remembering()
    raw, weights = raw_of(recipe), initial_weights(recipe)
    policy = Policy(recipe, weights)
    policy.begin()
    acted = [policy.act(row) for row in raw[:5]]
    again = Policy(recipe, weights)
    again.begin()
    for row in raw[:4]:
        again.act(row)
    assert np.array_equal(acted[4], again.act(raw[4]))
    fresh = Policy(recipe, weights)
    fresh.begin()
    assert not np.array_equal(acted[4], fresh.act(raw[4]))


def test_frames_that_are_no_row_of_an_episode_are_refused_where_an_operation_looks_at_several():
    with pytest.raises(EpisodeUnfitError):
        Features(DETECTS)(np.zeros((2, 3, 2)))
    assert Features(
        made(acting({"id": "mlp-chunk/1", "args": {"width": 4, "chunk": 1, "execute": 1, "seed": 1}}))
    )(np.zeros((2, 3, 10))).shape == (2, 3, 19)


def test_a_recipe_that_does_not_act_has_no_policy():
    for recipe in (DYNAMICS, DETECTS):
        with pytest.raises(IriaiError) as refused:
            Policy(recipe, initial_weights(recipe))
        assert refused.value.code == "recipe.invalid"


def test_torques_are_targets_as_they_were_measured():
    one = recording(DYNAMICS, 1)
    measured = replace(one, observation={**one.observation, **one.action}, action={})
    assert np.array_equal(frames_of(DYNAMICS, one).targets, frames_of(DYNAMICS, measured).targets)
    wild = replace(
        measured, observation={**measured.observation, "joint_torque": np.full((20, 2), 1e4, np.float32)}
    )
    assert frames_of(DYNAMICS, wild).targets[0] == pytest.approx([330 / 63.5, 150 / 63.5], rel=1e-5)


def test_an_unknown_label_is_masked_and_never_false():
    one = recording(DETECTS, 1)
    labels = np.array([1, -1, 0] + [-1] * 17, dtype=np.int8)
    frames = frames_of(DETECTS, replace(one, labels={"grip_lost": labels}))
    assert (frames.targets[:, 0].tolist(), frames.mask[:, 0].tolist()) == ([1.0, 0.0], [1.0, 1.0])
    whole = Features(DETECTS)(one.observation["joint_current"]).astype(np.float32)
    assert np.array_equal(frames.inputs, whole[[0, 2]])
    silent = frames_of(DETECTS, replace(one, labels={"grip_lost": np.full(20, -1, np.int8)}))
    assert (silent.inputs.shape, silent.mask.sum(), silent.targets.sum()) == ((1, 12), 0, 0)


def test_an_episodes_label_stands_at_each_of_its_frames():
    recipe = made(detecting(per="episode"))
    labels = np.array([-1, 0, 1, -1] * 5, dtype=np.int8)
    frames = frames_of(recipe, replace(recording(recipe, 1), labels={"grip_lost": labels}))
    assert frames.targets.shape == (20, 1)
    assert frames.targets.all()


@pytest.mark.parametrize(
    "labels",
    [
        {},
        {"grip_lost": np.zeros(19, np.int8)},
        {"grip_lost": np.full(20, 2, np.int8)},
        {"grip_lost": np.full(20, -2, np.int8)},
    ],
)
def test_labels_that_do_not_fit_are_refused(labels):
    with pytest.raises(EpisodeUnfitError):
        frames_of(DETECTS, replace(recording(DETECTS, 1), labels=labels))


@pytest.mark.parametrize("recipe", every_architecture().values(), ids=every_architecture())
def test_a_unit_adds_what_it_adds_whoever_else_is_there(recipe: Recipe):
    alone = frames_of(recipe, recording(recipe, 1))
    beside = unit_frames(recipe, [recording(recipe, number) for number in (0, 1, 2)])[1]
    assert np.array_equal(alone.inputs, beside.inputs)
    assert np.array_equal(alone.targets, beside.targets)
