# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import numpy as np
import pytest
import torch

from client.learning.engines import ENGINES, UnitFrames
from client.learning.engines.packed import leaves_without_rule
from client.learning.losses import loss_of
from client.learning.probe import probe, probe_model
from client.learning.registry import build, flatten, write_weights
from client.learning.train import Trainer
from client.learning.weights import check_weights, initial_weights
from policies.forward import Forward, frame_losses
from policies.privacy.errors import ModelRefusedError
from policies.recipe import Recipe
from tests.learnsim import SeededEntropy
from tests.recipesim import ACT_DESIGNED, acting, every_architecture, made, recording, two_embodiments

RECIPES = every_architecture()
PRIVATE = every_architecture(private=True)
DESIGNED = made(acting({"id": "act-small/1", "args": ACT_DESIGNED}))
GRIPPER = made(two_embodiments()).as_variant("gripper")
ALL = [*RECIPES.values(), DESIGNED, GRIPPER]
NAMES = [*RECIPES, "act-small/1 as designed", "a variant"]


def drawn(recipe: Recipe) -> np.ndarray:
    """Weights that are nowhere zero, so that no tensor can hide."""
    rng = np.random.default_rng(1)
    return (initial_weights(recipe) + 0.1 * rng.standard_normal(recipe.own_parameters)).astype(np.float32)


def units(recipe: Recipe, count: int = 4) -> list[UnitFrames]:
    rng = np.random.default_rng(2)
    found = []
    for length in range(1, count + 1):
        inputs = rng.standard_normal((length, recipe.input_size)).astype(np.float32)
        targets = (rng.random((length, recipe.target_size)) < 0.5).astype(np.float32)
        found.append(
            UnitFrames(
                torch.from_numpy(inputs),
                torch.from_numpy(targets),
                torch.ones(length, recipe.target_size),
            )
        )
    return found


@pytest.mark.parametrize("recipe", ALL, ids=NAMES)
def test_the_manifest_is_the_built_model(recipe: Recipe):
    named = [(name, list(one.shape)) for name, one in build(recipe).named_parameters()]
    assert named == [(spec.name, list(spec.shape)) for spec in recipe.tensors]


def test_the_small_transformer_has_the_size_that_it_was_designed_with():
    assert DESIGNED.parameters == 403_076


@pytest.mark.parametrize("recipe", ALL, ids=NAMES)
def test_torch_answers_what_numpy_answers(recipe: Recipe):
    model, weights = build(recipe), drawn(recipe)
    write_weights(model, weights)
    inputs = np.random.default_rng(3).standard_normal((2, 5, recipe.input_size)).astype(np.float32)
    with torch.no_grad():
        found = model(torch.from_numpy(inputs)).numpy()
    expected = Forward(recipe, weights)(inputs)
    assert found.shape == expected.shape == (2, 5, recipe.target_size)
    assert np.abs(found - expected).max() < 1e-5
    assert np.abs(Forward(recipe, weights)(inputs[0, 0]) - expected[0, 0]).max() < 1e-12


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
def test_torch_descends_the_loss_that_numpy_judges_by(recipe: Recipe):
    rng = np.random.default_rng(4)
    outputs = 3 * rng.standard_normal((6, recipe.target_size))
    targets = np.eye(recipe.target_size)[rng.integers(0, recipe.target_size, 6)]
    mask = np.repeat(rng.random((6, 1)) < 0.7, recipe.target_size, axis=1).astype(float)
    found = loss_of(recipe)(*(torch.from_numpy(one) for one in (outputs, targets, mask))).numpy()
    assert np.abs(found - frame_losses(recipe, outputs, targets, mask)).max() < 1e-12
    assert (found[mask[:, 0] == 0] == 0).all()


@pytest.mark.parametrize("recipe", ALL[:-2], ids=NAMES[:-2])
def test_every_engine_gives_the_sum_that_the_loop_gives_or_refuses_by_name(recipe: Recipe):
    sums = {}
    for name, kind in ENGINES.items():
        model = build(recipe)
        write_weights(model, drawn(recipe))
        assert not leaves_without_rule(model)
        sums[name] = flatten(kind(model, loss_of(recipe))(units(recipe), 0.05))
    scale = np.linalg.norm(sums["loop"])
    assert scale > 0
    for name, found in sums.items():
        assert np.linalg.norm(found - sums["loop"]) < 1e-5 * scale, name


@pytest.mark.parametrize("recipe", PRIVATE.values(), ids=PRIVATE)
def test_every_architecture_passes_the_probe_of_a_private_run(recipe: Recipe):
    probe(recipe)


def test_a_layer_that_no_engine_knows_is_refused_by_name():
    model = torch.nn.Sequential(torch.nn.MultiheadAttention(4, 1))
    with pytest.raises(ModelRefusedError, match="MultiheadAttention"):
        probe_model(model, units(RECIPES["mlp-chunk/1"]))


@pytest.mark.parametrize("name", ["act-small/1", "mlp-invdyn/1", "linear-detect/1", "mlp-detect/1 classes"])
def test_an_update_of_every_kind_descends_its_loss(name: str):
    recipe = RECIPES[name]
    episodes = [recording(recipe, number) for number in range(6)]
    weights = initial_weights(recipe)
    from client.learning.evaluate import mean_loss

    before = mean_loss(recipe, weights, episodes)
    trainer = Trainer(recipe, episodes, SeededEntropy(1))
    for number in range(4):
        weights = weights + trainer.update(weights, number + 1, 1)
    assert mean_loss(recipe, check_weights(recipe, weights), episodes) < before


def test_a_private_run_of_detection_counts_units_without_a_known_label():
    recipe = PRIVATE["mlp-detect/1"]
    silent = recording(recipe, 99)
    silent = type(silent)(
        observation=silent.observation,
        action={},
        labels={"grip_lost": np.full(20, -1, dtype=np.int8)},
        unit_id=b"s" * 32,
    )
    trainer = Trainer(recipe, [silent, *(recording(recipe, n) for n in range(3))], SeededEntropy(2))
    assert trainer.update(initial_weights(recipe), 1, 1).shape == (recipe.parameters,)


def test_a_norm_starts_at_one_and_a_bias_at_zero():
    recipe = RECIPES["act-small/1"]
    model = build(recipe)
    for name, one in model.named_parameters():
        if one.dim() == 1:
            assert (one == (1.0 if name.endswith("weight") else 0.0)).all(), name
