# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from client.learning.weights import initial_weights
from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.forward import shared_of
from policies.recipe import load, manifest
from policies.verify.first_model import first_model
from sandbox.recipes import plain_recipe, private_recipe
from tests.learnsim import DELETE, changed
from tests.recipesim import (
    ARM,
    TWIN,
    acting,
    approach,
    bounded,
    detecting,
    dynamics,
    every_architecture,
    made,
    planned,
    two_embodiments,
)

DYNAMICS, DETECTS = canonical(dynamics()), canonical(detecting())
VARIANTS = canonical(two_embodiments())
PACKAGE = {
    "max_delta_per_tick": ["0.01", "0.01", "0.01", "1"],
    "watchdog_ms": 200,
    "fallback": "hold",
    "ood_share_max": "0.2",
}
HISTORY = {"op": "history", "field": "tcp_pos", "n": 2, "normaliser": approach(3)}
SAVGOL = {"op": "savgol_derivative", "field": "tcp_pos", "window": 5, "order": 2, "normaliser": approach(3)}


def code(data: bytes) -> str:
    with pytest.raises(IriaiError) as refused:
        load(data)
    return refused.value.code


def test_what_a_recipe_leaves_out_is_in_no_digest():
    for data in (plain_recipe(), private_recipe()):
        tree = {name: value for name, value in json.loads(data).items() if name != "package"}
        recipe = load(canonical(tree))
        assert (recipe.loss, recipe.quality, recipe.package, recipe.variants) == (None,) * 4
        assert recipe.digest == digest(canonical(tree))
        assert not set(tree) & {"loss", "quality", "variants"}
        assert recipe.objective.kind == "mse"


@pytest.mark.parametrize("name", ["loss", "quality", "package", "variants"])
def test_an_optional_block_is_absent_or_said_and_never_null(name):
    assert code(changed(plain_recipe(), name, None)) == "recipe.invalid"


def test_every_kind_says_what_the_code_needs_of_it():
    torque, detects = load(DYNAMICS), load(DETECTS)
    assert torque.fields == ("joint_pos", "joint_torque", "joint_vel")
    assert (torque.input_size, torque.target_size, torque.chunk) == (10, 2, 1)
    assert (torque.past, torque.ahead, torque.objective.kind) == (6, 6, "nmse")
    assert torque.outputs[0].limits == (330.0, 150.0)
    assert detects.fields == ("grip_lost", "joint_current")
    assert (detects.input_size, detects.output_size, detects.past, detects.ahead) == (12, 1, 4, 0)
    assert made(detecting(classes=3)).output_size == 3
    for recipe in every_architecture().values():
        assert load(recipe.canonical).digest == recipe.digest


@pytest.mark.parametrize(
    ("data", "path", "value", "expected"),
    [
        (DYNAMICS, "task.kind", "behaviour-cloning", "recipe.invalid"),
        (DYNAMICS, "rate_hz", None, "recipe.invalid"),
        (
            DYNAMICS,
            "loss",
            {"kind": "bce", "label": "x", "per": "frame", "positive_weight": "1"},
            "recipe.invalid",
        ),
        (DYNAMICS, "outputs.0.normaliser", approach(2), "recipe.invalid"),
        (DYNAMICS, "outputs.0.limit", ["330"], "recipe.invalid"),
        (DYNAMICS, "outputs", [], "recipe.invalid"),
        (DYNAMICS, "features.0.normaliser.scale", ["0.5", "0.5"], "recipe.private-normaliser"),
        (DYNAMICS, "features.2.normaliser", bounded(2), "recipe.private-normaliser"),
        (DYNAMICS, "features.3.window", 6, "recipe.invalid"),
        (DYNAMICS, "features.3.window", 1001, "recipe.invalid"),
        (DYNAMICS, "features.3.order", 7, "recipe.invalid"),
        (DYNAMICS, "features.4.v", "0", "recipe.invalid"),
        (DYNAMICS, "features.4.op", "sign_hard", "recipe.invalid"),
        (DYNAMICS, "architecture.args.chunk", 2, "recipe.invalid"),
        (DETECTS, "loss", DELETE, "recipe.invalid"),
        (DETECTS, "loss.kind", "hinge", "recipe.invalid"),
        (DETECTS, "loss.per", "shift", "recipe.invalid"),
        (DETECTS, "loss.positive_weight", "0", "recipe.invalid"),
        (DETECTS, "loss.label", "__import__", "recipe.invalid"),
        (DETECTS, "features.1.lag", 2, "recipe.invalid"),
        (DETECTS, "features.3.n", 4, "recipe.manifest-mismatch"),
        (DETECTS, "features.3.n", 1, "recipe.invalid"),
        (DETECTS, "outputs", dynamics()["outputs"], "recipe.invalid"),
        (canonical(detecting(classes=3)), "loss.weights", ["1", "1"], "recipe.invalid"),
        (canonical(detecting(classes=3)), "loss.classes", ["a", "a", "b"], "recipe.invalid"),
        (plain_recipe(), "package", PACKAGE | {"watchdog_ms": 0}, "recipe.invalid"),
        (plain_recipe(), "package", PACKAGE | {"fallback": "go"}, "recipe.invalid"),
        (plain_recipe(), "package", PACKAGE | {"ood_share_max": "2"}, "recipe.invalid"),
        (plain_recipe(), "package", PACKAGE | {"max_delta_per_tick": ["1"]}, "recipe.invalid"),
        (plain_recipe(), "quality", {"require": [], "accept_undetermined": []}, "recipe.invalid"),
        (plain_recipe(), "quality", {"require": ["luck"], "accept_undetermined": []}, "recipe.invalid"),
        (plain_recipe(), "quality", {"require": ["time"], "accept_undetermined": ["lag"]}, "recipe.invalid"),
        (plain_recipe(), "start", {"base": "sha256:" + "a" * 64, "licence": " "}, "recipe.invalid"),
        (plain_recipe(), "start", {"base": "sha256:" + "a" * 64}, "recipe.invalid"),
        (VARIANTS, "inputs", dynamics()["inputs"], "recipe.invalid"),
        (VARIANTS, "variants.1.name", "gripper", "recipe.invalid"),
        (VARIANTS, "variants.1.tensors.0.scope", "shared", "recipe.manifest-mismatch"),
        (VARIANTS, "variants.1.tensors.0.shape.1", 5, "recipe.manifest-mismatch"),
        (VARIANTS, "tensors.0.scope", "private", "recipe.manifest-mismatch"),
        (VARIANTS, "variants.1.features.0.field", "tcp_pos", "recipe.invalid"),
        (VARIANTS, "variants", [], "recipe.invalid"),
        (
            VARIANTS,
            "start",
            {"seed_set": "sha256:" + "a" * 64, "model": "sha256:" + "b" * 64},
            "recipe.invalid",
        ),
    ],
)
def test_a_mutant_of_any_kind_is_refused_by_name(data, path, value, expected):
    assert code(changed(data, path, value)) == expected


def test_a_model_that_acts_sees_no_frame_ahead():
    tree = acting({"id": "mlp-chunk/1", "args": {"width": 4, "chunk": 1, "execute": 1, "seed": 1}})
    looks = tree | {"rate_hz": "20", "features": [*tree["features"], SAVGOL]}
    looks["tensors"] = manifest(input_size=22, output_size=4, width=4, chunk=1)
    assert code(canonical(looks)) == "recipe.invalid"
    remembers = looks | {"features": [*tree["features"], HISTORY]}
    remembers["tensors"] = manifest(input_size=25, output_size=4, width=4, chunk=1)
    assert made(remembers).past == 1


def test_private_tensors_under_a_privacy_plan_are_refused():
    assert code(canonical(planned(two_embodiments()))) == "recipe.private-unplanned"


def test_a_linear_model_has_no_trunk_to_share():
    tree = detecting("linear-detect/1")
    one = {key: tree[key] for key in ("inputs", "features", "outputs")}
    rows = [row | {"scope": "private"} for row in tree["tensors"]]
    variants = [{"name": "a", "embodiment_class": ARM, **one, "tensors": rows}]
    empty = {"inputs": [], "features": [], "outputs": []}
    assert code(canonical(tree | empty | {"variants": variants, "tensors": []})) == "recipe.invalid"
    assert code(canonical(tree | empty | {"variants": variants})) == "recipe.invalid"


def test_a_site_reads_the_variant_that_fits_its_data():
    recipe = load(VARIANTS)
    assert (recipe.has_private, recipe.variant, recipe.parameters) == (True, None, 42)
    bare = recipe.site({"joint_pos": 2, "joint_torque": 2, "joint_vel": 2, "outcome": 1}, ARM)
    twin = recipe.as_variant("gripper")
    assert (bare.variant, bare.input_size, bare.output_size) == ("bare", 4, 2)
    assert (twin.input_size, twin.output_size) == (19, 4)
    assert bare.parameters == twin.parameters == 42
    assert (bare.own_parameters, twin.own_parameters) == (42 + 30 + 14, 42 + 120 + 28)
    assert [spec.block for spec in bare.tensors] == ["stem"] * 2 + ["trunk"] * 2 + ["head"] * 2
    assert bare.digest == twin.digest == recipe.digest
    assert set(recipe.fields) == set(bare.fields) | set(twin.fields)
    assert load(plain_recipe()).site({}, "anything").digest == digest(plain_recipe())


@pytest.mark.parametrize(
    ("columns", "embodiment"),
    [
        ({"joint_pos": 2, "joint_torque": 2, "joint_vel": 2}, TWIN),
        ({"joint_pos": 6, "joint_torque": 2, "joint_vel": 2}, ARM),
        ({"joint_pos": 2, "joint_torque": 2}, ARM),
        ({}, ARM),
    ],
)
def test_data_that_fit_no_variant_are_refused_by_name(columns, embodiment):
    with pytest.raises(IriaiError) as refused:
        load(VARIANTS).site(columns, embodiment)
    assert refused.value.code == "recipe.variant-unfit"


def test_without_a_variant_no_model_is_built():
    from client.learning.registry import build
    from client.learning.train import Trainer
    from policies.forward import Forward
    from tests.learnsim import SeededEntropy

    recipe = load(VARIANTS)
    for attempt in (
        lambda: build(recipe),
        lambda: Forward(recipe, initial_weights(recipe)),
        lambda: Trainer(recipe, [], SeededEntropy(1)),
        lambda: recipe.own_parameters,
    ):
        with pytest.raises(IriaiError) as refused:
            attempt()
        assert refused.value.code == "recipe.variant-unfit"


def test_a_package_of_a_variant_is_its_own_or_the_recipes():
    tree = two_embodiments()
    tree["package"] = PACKAGE | {"max_delta_per_tick": None}
    tree["variants"][1]["package"] = PACKAGE | {"max_delta_per_tick": ["1", "1"]}
    recipe = made(tree)
    twin, bare = recipe.as_variant("gripper").package, recipe.as_variant("bare").package
    assert twin is not None
    assert bare is not None
    assert (twin.max_delta_per_tick, list(bare.max_delta_per_tick or ())) == (None, ["1", "1"])
    tree["variants"][1]["package"] = PACKAGE
    assert code(canonical(tree)) == "recipe.invalid"


def test_all_variants_and_the_auditor_begin_with_the_same_trunk():
    recipe = load(VARIANTS)
    trunk = initial_weights(recipe)
    assert first_model(json.loads(VARIANTS)) == trunk.tobytes()
    for name in ("gripper", "bare"):
        here = recipe.as_variant(name)
        assert shared_of(here, initial_weights(here)).tobytes() == trunk.tobytes()


@pytest.mark.parametrize("recipe", every_architecture().values(), ids=every_architecture())
def test_the_auditor_derives_the_first_model_of_every_architecture(recipe):
    assert first_model(json.loads(recipe.canonical)) == initial_weights(recipe).tobytes()
