# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from client.data.embodiment import Adapter
from client.deploy.adapters import ends_of
from client.deploy.errors import NotExportableError, PackageLimitsError
from client.deploy.graphs import OPERATORS, check_graph
from client.deploy.recipe_facts import RecipeFacts
from client.learning.export import export_graph
from client.learning.policy import Policy
from policies.encoding import canonical
from policies.recipe import Recipe, architecture_manifest, load
from sandbox.recipes import plain_recipe
from tests.packagesim import exported, pick_recipe, weights_of

LIMIT = {
    "rule": "limit",
    "low": ["-2", "-2"],
    "high": ["2", "2"],
    "centre": ["0", "0"],
    "scale": ["1.15", "1.15"],
}
BOUNDED = {"rule": "bounded", "low": [], "high": [], "centre": ["0", "0"], "scale": ["1", "1"]}
TORQUE = {
    "rule": "limit",
    "low": ["-330", "-330"],
    "high": ["330", "330"],
    "centre": ["0", "0"],
    "scale": ["191", "191"],
}


def recipe_of(architecture: dict[str, Any], **changes: Any) -> Recipe:
    """The sandbox's recipe with other blocks; its manifest follows."""
    document = json.loads(plain_recipe(10)) | {"architecture": architecture} | changes
    inputs = sum(
        len(one["normaliser"]["centre"]) * one.get("n", 1)
        if one["op"] == "history"
        else len(one["normaliser"]["centre"])
        for one in document["features"]
    )
    outputs = sum(one["size"] for one in document["outputs"])
    loss = document.get("loss")
    if loss is not None and loss["kind"] in {"bce", "cross-entropy"}:
        outputs = len(loss.get("classes", [1]))
    document["tensors"] = architecture_manifest(architecture, input_size=inputs, output_size=outputs)
    return load(canonical(document))


def act_small(**args: Any) -> Recipe:
    given = {
        "width": 128,
        "heads": 4,
        "hidden": 256,
        "layers": 2,
        "chunk": 16,
        "execute": 8,
        "seed": 1,
    } | args
    return recipe_of({"id": "act-small/1", "args": given})


def inverse_dynamics() -> Recipe:
    return recipe_of(
        {"id": "mlp-invdyn/1", "args": {"width": 64, "seed": 1}},
        task={"kind": "inverse-dynamics", "name": "ur10", "embodiment_class": "6r-arm"},
        rate_hz="125",
        inputs=[
            {"field": "joint_pos", "size": 2, "unit": "rad"},
            {"field": "joint_vel", "size": 2, "unit": "rad/s"},
        ],
        features=[
            {"op": "sin", "field": "joint_pos", "normaliser": BOUNDED},
            {"op": "cos", "field": "joint_pos", "normaliser": BOUNDED},
            {"op": "raw", "field": "joint_vel", "normaliser": LIMIT},
            {"op": "sign_soft", "field": "joint_vel", "v": "0.05", "normaliser": BOUNDED},
        ],
        outputs=[
            {"field": "joint_torque", "size": 2, "unit": "Nm", "normaliser": TORQUE, "limit": ["330", "150"]}
        ],
        package={
            "max_delta_per_tick": None,
            "watchdog_ms": 500,
            "fallback": "stop",
            "ood_share_max": "0.1",
        },
    )


def detector(loss: dict[str, Any], architecture: dict[str, Any]) -> Recipe:
    return recipe_of(
        architecture,
        task={"kind": "detection", "name": "grip-lost", "embodiment_class": "6r-arm"},
        inputs=[{"field": "joint_vel", "size": 2, "unit": "rad/s"}],
        features=[{"op": "raw", "field": "joint_vel", "normaliser": LIMIT}],
        outputs=[],
        loss=loss,
    )


BINARY = {"kind": "bce", "label": "grip_lost", "per": "frame", "positive_weight": "4"}
CLASSES = {
    "kind": "cross-entropy",
    "label": "kind",
    "per": "frame",
    "classes": ["a", "b", "c"],
    "weights": ["1", "1", "2"],
}
MODELS = {
    "mlp-chunk, chunk 1": pick_recipe,
    "mlp-chunk, chunk 8": lambda: recipe_of(
        {"id": "mlp-chunk/1", "args": {"width": 128, "chunk": 8, "execute": 4, "seed": 1}}
    ),
    "act-small": act_small,
    "mlp-invdyn": inverse_dynamics,
    "linear-detect": lambda: detector(BINARY, {"id": "linear-detect/1", "args": {"seed": 1}}),
    "mlp-detect": lambda: detector(CLASSES, {"id": "mlp-detect/1", "args": {"width": 32, "seed": 1}}),
}


def run(graph: bytes, raw: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    session = onnxruntime.InferenceSession(graph, providers=["CPUExecutionProvider"])
    chunk, share = session.run(None, {"observation": raw.astype(np.float32)})
    return chunk, share


@pytest.mark.parametrize("name", MODELS)
def test_every_architecture_exports_and_passes_the_checks_of_the_loader(name):
    recipe = MODELS[name]()
    facts = RecipeFacts(recipe)
    made = export_graph(
        recipe, weights_of(recipe), facts.example
    )  # compares with torch and numpy, batch 1 and 3
    size = sum(one.size for one in recipe.inputs)
    check_graph(
        made.graph, None, observation=size, chunk=(recipe.chunk, recipe.output_size), opset=made.opset
    )
    assert {one.op_type for one in onnx.load_from_string(made.graph).graph.node} <= OPERATORS
    raw = facts.example + np.linspace(-0.05, 0.05, 7)[:, None]
    chunk, share = run(made.graph, raw)
    assert chunk.shape == (7, recipe.chunk, recipe.output_size)
    assert share.shape == (7,)
    assert np.isfinite(chunk).all()


def test_the_graph_acts_as_the_policy_acts():
    recipe = MODELS["mlp-chunk, chunk 8"]()
    weights = weights_of(recipe)
    facts = RecipeFacts(recipe)
    graph = export_graph(recipe, weights, facts.example).graph
    rng = np.random.Generator(np.random.PCG64(1))
    for _ in range(20):
        raw = (facts.example + rng.normal(size=10) * 0.05).astype(np.float32)
        policy = Policy(recipe, weights)
        policy.begin()
        wanted = np.array([policy.act(raw) for _ in range(recipe.execute)])
        assert np.abs(run(graph, raw[None])[0][0, : recipe.execute] - wanted).max() <= 1e-5


def test_two_exports_are_byte_equal_and_tell_nothing_of_this_machine():
    recipe = pick_recipe()
    again = export_graph(recipe, weights_of(recipe), RecipeFacts(recipe).example).graph
    assert exported().graph == again
    for word in (b"/client/", b"stack_trace", b"site-packages", b"export.py", b"_Graph"):
        assert word not in again


def test_other_weights_give_another_graph():
    recipe = pick_recipe()
    assert (
        export_graph(recipe, weights_of(recipe, seed=4), RecipeFacts(recipe).example).graph
        != exported().graph
    )


def test_actions_are_clamped_and_strange_inputs_are_counted():
    recipe = pick_recipe()
    facts = RecipeFacts(recipe)
    graph = exported().graph
    far = np.stack([facts.example, facts.example + 100, facts.example - 100])
    chunk, share = run(graph, far)
    assert share[0] == 0
    assert share[1] > 0.5
    assert (np.abs(chunk[:, :, :3]) <= np.float32(0.012) + 1e-9).all()
    assert (np.abs(chunk[:, :, 3]) <= 1).all()


def test_nan_passes_the_clamp_so_guards_stand_around_the_graph():
    facts = RecipeFacts(pick_recipe())
    assert np.isnan(run(exported().graph, np.full((1, len(facts.example)), np.nan))[0]).any()


@pytest.mark.parametrize(
    "feature",
    [
        {"op": "delta", "field": "joint_vel", "lag": 1, "normaliser": LIMIT},
        {"op": "rolling_std", "field": "joint_vel", "n": 5, "normaliser": LIMIT},
        {"op": "history", "field": "joint_vel", "n": 3, "normaliser": LIMIT},
    ],
)
def test_a_feature_that_looks_at_other_frames_is_refused_by_its_name(feature):
    recipe = recipe_of(
        {"id": "mlp-detect/1", "args": {"width": 8, "seed": 1}},
        task={"kind": "detection", "name": "grip-lost", "embodiment_class": "6r-arm"},
        inputs=[{"field": "joint_vel", "size": 2, "unit": "rad/s"}],
        features=[{"op": "raw", "field": "joint_vel", "normaliser": LIMIT}, feature],
        outputs=[],
        loss=BINARY,
    )
    with pytest.raises(NotExportableError, match=feature["op"]):
        export_graph(recipe, weights_of(recipe), RecipeFacts(recipe).example)


def test_a_sites_adapter_stands_at_both_ends_of_the_graph():
    recipe = recipe_of(
        {"id": "mlp-chunk/1", "args": {"width": 16, "chunk": 2, "execute": 1, "seed": 1}},
        inputs=[{"field": "joint_pos", "size": 2, "unit": "rad"}],
        features=[{"op": "raw", "field": "joint_pos", "normaliser": LIMIT}],
        outputs=[
            {"field": "joint_vel", "size": 2, "unit": "rad/s", "normaliser": LIMIT, "limit": "1"},
            {
                "field": "gripper_cmd",
                "size": 1,
                "unit": "1",
                "normaliser": {"rule": "approach", "low": [], "high": [], "centre": ["0"], "scale": ["1"]},
                "limit": "1",
            },
        ],
        package={
            "max_delta_per_tick": ["0.1", "0.2", "1"],
            "watchdog_ms": 100,
            "fallback": "stop",
            "ood_share_max": "0.1",
        },
    )
    adapter = Adapter(gain="0.7", sign=[1, -1], offset=["0.1", "0.2"], order=[1, 0])
    ends, weights = ends_of(adapter, recipe), weights_of(recipe)
    facts = RecipeFacts(recipe, ends)
    graph = export_graph(recipe, weights, facts.example, ends=ends).graph
    controller = np.array([[0.3, -0.4]], dtype=np.float32)
    store = adapter.to_store(controller.astype(np.float64), "joint_pos", "observation")
    policy = Policy(recipe, weights)
    policy.begin()
    action = policy.act(store[0])
    wanted = [*adapter.to_controller(action[None, :2], "joint_vel", "action")[0], action[2]]
    assert np.abs(run(graph, controller)[0][0, 0] - wanted).max() <= 1e-5
    # limits are those of the controller's own values
    ports = {one["name"]: one for one in (*facts.inputs, *facts.outputs)}
    assert [float(one) for one in ports["joint_pos"]["low"]] == pytest.approx([-1.8, -2.1])
    assert [float(one) for one in ports["joint_pos"]["high"]] == pytest.approx([2.2, 1.9])
    assert [float(one) for one in ports["joint_vel"]["high"]] == pytest.approx([1 / 0.7] * 2)
    assert [float(one) for one in facts.safety["max_delta_per_tick"]] == pytest.approx(
        [0.2 / 0.7, 0.1 / 0.7, 1]
    )
    assert ends_of(Adapter(), recipe) is None
    assert ends_of(None, recipe) is None


# --- what follows from the recipe alone ---


def test_limits_come_from_the_rules_of_the_features():
    ports = {one["name"]: one for one in RecipeFacts(inverse_dynamics()).inputs}
    assert ports["joint_vel"]["low"] == ["-2", "-2"]  # a robot's limit is the limit
    assert float(ports["joint_pos"]["high"][0]) == pytest.approx(2 * np.pi)
    assert ports["joint_vel"]["rate_hz"] == "125"
    ports = {one["name"]: one for one in RecipeFacts(pick_recipe()).inputs}
    assert [float(one) for one in ports["tcp_pos"]["low"]] == pytest.approx([-0.58, -0.12, -0.545])


def test_a_field_that_only_a_difference_names_is_bounded_by_its_partner():
    near = {"rule": "approach", "low": [], "high": [], "centre": ["0", "0"], "scale": ["0.1", "0.1"]}
    recipe = recipe_of(
        {"id": "mlp-chunk/1", "args": {"width": 8, "chunk": 1, "execute": 1, "seed": 1}},
        inputs=[
            {"field": "tcp_rot", "size": 2, "unit": "rad"},
            {"field": "joint_pos", "size": 2, "unit": "rad"},
        ],
        features=[
            {"op": "raw", "field": "joint_pos", "normaliser": LIMIT},
            {"op": "diff", "a": "tcp_rot", "b": "joint_pos", "gain": "2", "normaliser": near},
        ],
    )
    ports = {one["name"]: one for one in RecipeFacts(recipe).inputs}
    assert [float(one) for one in ports["tcp_rot"]["high"]] == pytest.approx([2.5, 2.5])
    unbounded = recipe_of(
        {"id": "mlp-chunk/1", "args": {"width": 8, "chunk": 1, "execute": 1, "seed": 1}},
        inputs=[
            {"field": "tcp_rot", "size": 2, "unit": "rad"},
            {"field": "joint_pos", "size": 2, "unit": "rad"},
        ],
        features=[{"op": "diff", "a": "tcp_rot", "b": "joint_pos", "gain": "2", "normaliser": near}],
    )
    with pytest.raises(PackageLimitsError, match="tcp_rot"):
        RecipeFacts(unbounded)


def test_guards_are_the_recipes_or_the_cautious_defaults():
    document = json.loads(plain_recipe(10))
    bare = {name: value for name, value in document.items() if name != "package"}
    assert RecipeFacts(load(canonical(bare))).safety == {
        "clamp": True,
        "max_delta_per_tick": ["0.024", "0.024", "0.024", "2"],
        "watchdog_ms": 500,
        "fallback": "stop",
        "ood": {"kind": "z-clip-share", "max": "0.1"},
    }
    told = {
        "max_delta_per_tick": ["0.006", "0.006", "0.006", "1"],
        "watchdog_ms": 100,
        "fallback": "hold",
        "ood_share_max": "0.2",
    }
    safety = RecipeFacts(load(canonical(document | {"package": told}))).safety
    assert safety["max_delta_per_tick"] == told["max_delta_per_tick"]
    assert (safety["watchdog_ms"], safety["fallback"], safety["ood"]["max"]) == (100, "hold", "0.2")


def test_torch_answers_as_the_graph_for_batches_of_one_and_three():
    recipe = pick_recipe()
    facts, weights, graph = RecipeFacts(recipe), weights_of(recipe), exported().graph
    from client.learning.features import Features
    from client.learning.registry import build, write_weights

    model = build(recipe)
    write_weights(model, weights)
    for batch in (1, 3):
        raw = facts.example + 0.01 * np.arange(batch)[:, None]
        with torch.no_grad():
            out = model(torch.tensor(Features(recipe)(raw), dtype=torch.float32)).numpy()
        scale = np.array([0.01, 0.01, 0.01, 1])
        wanted = np.clip(out.reshape(batch, 1, 4) * scale, [-0.012] * 3 + [-1], [0.012] * 3 + [1])
        assert np.abs(run(graph, raw)[0] - wanted).max() <= 1e-5
