# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from client.learning.metrics import UNDETERMINED, auroc, figure, nmse
from client.learning.weights import initial_weights
from tests.recipesim import detecting, dynamics, every_architecture, made, recording


def test_auroc_counts_pairs_and_ties_for_a_half():
    scores = np.array([0.1, 0.4, 0.35, 0.8, 0.4])
    labels = np.array([0, 0, 1, 1, 1])
    pairs = [(a > b) + 0.5 * (a == b) for a in scores[labels == 1] for b in scores[labels == 0]]
    assert auroc(scores, labels) == pytest.approx(np.mean(pairs))
    assert auroc(-scores, labels) == pytest.approx(1 - np.mean(pairs))


@pytest.mark.parametrize("labels", [[0, 0, 0], [1, 1, 1], [-1, -1, -1], [1, -1, -1], []])
def test_auroc_is_undetermined_where_a_class_is_absent(labels):
    assert auroc(np.arange(len(labels), dtype=float), np.array(labels)) == UNDETERMINED


def test_an_unknown_label_is_left_out_of_auroc():
    assert auroc(np.array([0.9, 0.1, 5.0]), np.array([1, 0, -1])) == 1.0


def test_nmse_of_the_mean_is_one_and_of_a_still_joint_undetermined():
    measured = np.stack([np.arange(9.0), np.full(9, 3.0)], axis=1)
    assert nmse(np.tile(measured.mean(axis=0), (9, 1)), measured) == (pytest.approx(1.0), UNDETERMINED)
    assert nmse(measured, measured)[0] == 0.0


@pytest.mark.parametrize(("name", "recipe"), every_architecture().items(), ids=every_architecture())
def test_every_kind_has_its_figure(name, recipe):
    found = figure(recipe, initial_weights(recipe), [recording(recipe, number) for number in range(4)])
    kind = {"mlp-i": "nmse", "linea": "auroc", "mlp-d": "auroc"}.get(name[:5], "mse")
    assert found.name == kind
    assert found.value == UNDETERMINED or np.isfinite(found.value)
    assert len(found.per) == {"nmse": 2, "mse": 0}.get(kind, recipe.output_size)


def test_an_episode_without_a_known_label_is_no_part_of_a_figure():
    recipe = made(detecting(per="episode"))
    parts = [recording(recipe, number) for number in range(3)]
    labelled = [
        replace(part, labels={"grip_lost": np.full(20, value, np.int8)})
        for part, value in zip(parts, (1, 0, -1), strict=True)
    ]
    weights = initial_weights(recipe)
    assert figure(recipe, weights, labelled).value in {0.0, 1.0}
    assert figure(recipe, weights, labelled[2:]).value == UNDETERMINED
    assert figure(recipe, weights, [labelled[0], labelled[2]]).value == UNDETERMINED


def test_a_perfect_torque_has_no_error():
    recipe = made(dynamics())
    episodes = [recording(recipe, 1)]
    assert figure(recipe, np.zeros(recipe.parameters), episodes).value != 0
