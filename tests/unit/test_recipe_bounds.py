# SPDX-License-Identifier: Apache-2.0
"""Numbers of a signed recipe: public, within what a robot reaches, and no more work than a site can be asked for."""

from __future__ import annotations

import json
from typing import Any

import pytest

from client.deploy import guards, references
from client.learning.weights import initial_weights
from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.limits import ACT_PARAMETERS, ACT_TOKENS, FRAME_VALUES, MODEL_INPUTS
from policies.recipe import architecture_manifest, load
from policies.recipe.bounds import KEPT, POSITIONS, RATES
from sandbox.recipes import plain_recipe, private_recipe
from tests.learnsim import changed
from tests.recipesim import (
    ACT_DESIGNED,
    ACT_SMALL,
    acting,
    approach,
    detecting,
    dynamics,
    limited,
    made,
    two_embodiments,
)

PLAIN, DYNAMICS = plain_recipe(), canonical(dynamics())
DETECTS, CLASSES = canonical(detecting()), canonical(detecting(classes=3))
ASKED = json.loads(PLAIN) | {"quality": {"require": ["tracking"], "accept_undetermined": []}}
GUARDS = {"max_delta_per_tick": None, "watchdog_ms": 500, "fallback": "hold", "ood_share_max": "0.25"}
LEARNED, FAR, ODD = "recipe.private-normaliser", "recipe.private-normaliser", "recipe.invalid"


def code(data: bytes) -> str:
    with pytest.raises(IriaiError) as refused:
        load(data)
    return refused.value.code


@pytest.mark.parametrize(
    ("data", "path", "value", "expected"),
    [
        (PLAIN, "clip", "3.14159265358", LEARNED),
        (PLAIN, "clip", "999999999999", FAR),
        (PLAIN, "clip", "101", FAR),
        (PLAIN, "features.4.gain", "0.000000001", FAR),  # a difference that nothing limits
        (PLAIN, "features.1.normaliser.scale", ["9000"], FAR),
        (DYNAMICS, "features.4.v", "0.051234567891", LEARNED),
        (DYNAMICS, "features.4.v", "20000", FAR),
        (DYNAMICS, "outputs.0.limit", ["103.123456789", "47.9876543211"], LEARNED),
        (DYNAMICS, "outputs.0.limit", ["103", "47.98"], LEARNED),
        (DYNAMICS, "outputs.0.limit", "999000000000", FAR),
        (DYNAMICS, "outputs.0.limit", "101000", FAR),
        (PLAIN, "outputs.0.limit", "1010", FAR),
        (DETECTS, "loss.positive_weight", "37.2914560231", LEARNED),
        (DETECTS, "loss.positive_weight", "1010", FAR),
        (CLASSES, "loss.weights", ["0.123456789", "1", "1"], LEARNED),
        (CLASSES, "loss.weights", ["1", "2000", "1"], FAR),
        (PLAIN, "package", GUARDS | {"max_delta_per_tick": ["0.0123", "1", "1", "1.2345"]}, LEARNED),
        (PLAIN, "package", GUARDS | {"max_delta_per_tick": ["0.000000000000000001"] * 4}, LEARNED),
        (PLAIN, "package", GUARDS | {"max_delta_per_tick": ["1000000", "1", "1", "1"]}, FAR),
        (PLAIN, "package", GUARDS | {"ood_share_max": "0.2345"}, LEARNED),
        (canonical(ASKED), "quality.tracking_p95", "0.05123", LEARNED),
        (
            DETECTS,
            "features.0.normaliser",
            limited(2, "900000", "520000"),
            FAR,
        ),  # amperes: an input that nothing limits
    ],
)
def test_a_constant_that_looks_learned_or_that_no_robot_reaches_is_refused(data, path, value, expected):
    assert code(changed(data, path, value)) == expected


@pytest.mark.parametrize(
    ("data", "path", "value"),
    [
        (PLAIN, "clip", "100"),
        (PLAIN, "clip", "2.5"),
        (DYNAMICS, "features.4.v", "0.0512"),
        (DYNAMICS, "outputs.0.limit", ["330", "47.9"]),
        (DETECTS, "loss.positive_weight", "37.3"),
        (CLASSES, "loss.weights", ["0.001", "1000", "1"]),
        (canonical(ASKED), "quality.tracking_p95", "0.0512"),
    ],
)
def test_a_public_constant_loads(data, path, value):
    load(changed(data, path, value))


# --- work per frame ---


def histories(features: int, n: int, *, size: int = 6, op: str = "history") -> dict[str, Any]:
    tree = detecting("mlp-detect/1")
    one: dict[str, Any] = {"op": op, "field": "joint_current", "n": n, "normaliser": approach(size)}
    width = features * size * (n if op == "history" else 1)
    return tree | {
        "inputs": [{"field": "joint_current", "size": size, "unit": "A"}],
        "features": [one] * features,
        "tensors": architecture_manifest(tree["architecture"], input_size=width, output_size=1),
    }


def test_the_values_of_a_frame_are_bounded():
    assert made(histories(1, 128)).input_size == 768
    assert made(histories(4, 128, size=2)).input_size == MODEL_INPUTS
    assert code(canonical(histories(9, 57, size=2))) == ODD
    assert code(canonical(histories(64, 128))) == ODD


def test_the_values_that_operations_look_at_are_bounded():
    made(histories(10, 128, op="rolling_std"))
    assert FRAME_VALUES < 11 * 6 * 128
    assert code(canonical(histories(11, 128, op="rolling_std"))) == ODD


def acts(**args: int) -> bytes:
    return canonical(acting({"id": "act-small/1", "args": ACT_SMALL | args}))


def test_an_act_small_is_bounded_in_tokens_and_parameters():
    assert made(acting({"id": "act-small/1", "args": ACT_DESIGNED})).parameters <= ACT_PARAMETERS
    load(acts(chunk=ACT_TOKENS))
    assert code(acts(chunk=ACT_TOKENS + 1)) == ODD
    assert code(acts(width=256, heads=4, hidden=512)) == ODD


# --- safety limits fit the outputs ---


def test_the_fields_that_a_fallback_knows_are_those_of_the_guards():
    assert (RATES, POSITIONS, KEPT) == (references.RATES, references.POSITIONS, guards._KEPT)


@pytest.mark.parametrize("fallback", ["hold", "zero-velocity"])
@pytest.mark.parametrize(
    ("field", "unit"), [("joint_torque", "Nm"), ("joint_current", "A"), ("tcp_force", "N")]
)
def test_what_pushes_is_not_held(field, unit, fallback):
    tree = dynamics()
    tree["outputs"][0] |= {"field": field, "unit": unit}
    load(canonical(tree | {"package": GUARDS | {"fallback": "stop"}}))
    assert code(canonical(tree | {"package": GUARDS | {"fallback": fallback}})) == ODD


def test_a_position_is_held_and_has_no_zero_velocity():
    tree = json.loads(PLAIN)
    tree["outputs"][0] |= {"field": "tcp_rot", "unit": "rad"}
    load(canonical(tree | {"package": GUARDS}))
    assert code(canonical(tree | {"package": GUARDS | {"fallback": "zero-velocity"}})) == ODD


def test_a_rate_that_cannot_be_zero_is_not_held():
    tree = json.loads(PLAIN)
    one = tree["outputs"][0]
    size = one["size"]
    one["normaliser"] = limited(size, "1", "0.577") | {"low": ["1"] * size, "high": ["3"] * size}
    one["normaliser"]["centre"] = ["2"] * size
    one["limit"] = "1"
    load(canonical(tree | {"package": GUARDS | {"fallback": "stop"}}))
    assert code(canonical(tree | {"package": GUARDS})) == ODD


def test_limits_of_the_recipe_are_checked_against_every_variant_that_takes_them():
    tree = two_embodiments() | {"package": GUARDS | {"max_delta_per_tick": ["0.1"]}}
    assert code(canonical(tree)) == ODD
    tree["package"] = GUARDS | {"max_delta_per_tick": ["0.1"] * 4}
    assert code(canonical(tree)) == ODD  # the bare arm has two outputs
    tree["variants"][1]["package"] = GUARDS | {"max_delta_per_tick": ["0.1"] * 2}
    load(canonical(tree))
    tree["variants"][1]["outputs"][0] |= {"field": "joint_torque", "unit": "Nm"}
    assert code(canonical(tree)) == ODD


@pytest.mark.parametrize(("path", "block"), [("train", "private"), ("variants.0", "package")])
def test_an_optional_key_is_absent_or_said_and_never_null(path, block):
    data = canonical(two_embodiments())
    load(data)
    assert code(changed(data, f"{path}.{block}", None)) == ODD
    assert code(changed(canonical(ASKED), "quality.tracking_p95", None)) == ODD


# --- weights that recipes of an earlier version began with ---

NARROW = {1: ["0.1"], 4: ["0.05", "0.05", "0.06"], 5: ["0.2"] * 3, 6: ["0.2"] * 3}


def as_before(data: bytes) -> bytes:
    """The sandbox's recipe as it was before packages: without their limits, and with narrower scales."""
    tree = {name: value for name, value in json.loads(data).items() if name != "package"}
    for number, scale in NARROW.items():
        tree["features"][number]["normaliser"]["scale"] = scale
    return canonical(tree)


@pytest.mark.parametrize(
    ("data", "recipe", "weights"),
    [
        (
            PLAIN,
            "sha256:aba00b30e6558b58286e3b0b885eb8bc8a8c2c9fc6039e74aa89dcaa51b9382c",
            "sha256:f35aa54455b460c983561e435f8a3918c2a71da7aa68ea7be3ae8fe871cdc39e",
        ),
        (
            private_recipe(episodes=80, noise="local-full"),
            "sha256:5a1725bba6c73638af1f96438adea74a56c7f6bcc0dc95d78c27a7a1454eab80",
            "sha256:88adc407c5a4ec8d732d3d9e71352efe1517d5623ebd0e2831eb831b00c5d1e3",
        ),
        (
            private_recipe(episodes=80, noise="shares"),
            "sha256:9fc19779144a4820afa1b7ecc17e3ea4f3875182b5044196c2bd5dd2443a02ee",
            "sha256:88adc407c5a4ec8d732d3d9e71352efe1517d5623ebd0e2831eb831b00c5d1e3",
        ),
    ],
)
def test_a_recipe_without_variants_begins_with_the_weights_that_it_always_began_with(data, recipe, weights):
    loaded = load(as_before(data))
    assert loaded.digest == recipe
    assert digest(initial_weights(loaded).astype("<f4").tobytes()) == weights
