# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json

import pytest

from policies.encoding import digest
from policies.errors import IriaiError
from policies.recipe import load
from sandbox.recipes import plain_recipe, private_recipe
from tests.learnsim import DELETE, changed, document

PRIVATE, PLAIN = private_recipe(), plain_recipe()


def code(data: bytes) -> str:
    with pytest.raises(IriaiError) as refused:
        load(data)
    return refused.value.code


def test_the_demo_recipes_load_and_say_what_the_contract_needs():
    recipe = load(PRIVATE)
    assert recipe.digest == digest(PRIVATE)
    assert recipe.fields == (
        "goal_pos",
        "gripper_cmd",
        "gripper_width",
        "object_pos",
        "tcp_pos",
        "tcp_pose_delta",
    )
    assert (recipe.rounds, recipe.need, recipe.local_steps, recipe.is_private) == (190, 3, 1, True)
    assert recipe.plan is not None
    assert 7.99 < recipe.plan.epsilon_rdp <= 8
    assert recipe.rounds < recipe.plan.steps == 200
    assert recipe.parameters == sum(spec.size for spec in recipe.tensors)
    plain = load(PLAIN)
    assert (plain.plan, plain.is_private, plain.local_steps, plain.rounds) == (None, False, 20, 100)


@pytest.mark.parametrize("key", sorted(document(PRIVATE).keys() - {"package"}))  # which may be absent
def test_a_recipe_without_any_one_block_is_refused(key):
    assert code(changed(PRIVATE, key, DELETE)).startswith(("recipe.", "privacy."))


@pytest.mark.parametrize(
    ("path", "value", "expected"),
    [
        ("surprise", 1, "recipe.invalid"),
        ("schema", "iriai-recipe/2", "recipe.invalid"),
        ("task.kind", "reinforcement", "recipe.invalid"),
        ("architecture.id", "act-small/2", "recipe.unknown-architecture"),
        ("architecture.args.width", "24", "recipe.invalid"),
        ("architecture.args.width", 25, "recipe.manifest-mismatch"),
        ("architecture.args.execute", 2, "recipe.invalid"),
        ("tensors.0.shape.0", 25, "recipe.manifest-mismatch"),
        ("tensors.0.scope", "private", "recipe.invalid"),
        ("tensors.5", DELETE, "recipe.manifest-mismatch"),
        ("inputs.0.field", "seam_program", "recipe.invalid"),
        ("inputs.0.field", "joint_pos", "recipe.invalid"),
        ("features.0.op", "history", "recipe.invalid"),
        ("features.0.op", "__import__('os')", "recipe.invalid"),
        ("features.4.b", "gripper_width", "recipe.invalid"),
        ("features.4.gain", "-5", "recipe.invalid"),
        ("features.0.normaliser.scale.0", "0.05812", "recipe.private-normaliser"),
        ("features.0.normaliser.centre.0", "0.03", "recipe.private-normaliser"),
        ("features.0.normaliser.scale.0", "0", "recipe.private-normaliser"),
        ("features.0.normaliser.rule", "approach", "recipe.private-normaliser"),
        ("features.0.normaliser.rule", "quantum", "recipe.invalid"),
        ("features.0.normaliser.rule", "learned", "privacy.private-statistic"),
        ("features.0.normaliser", "auto", "privacy.private-statistic"),
        ("features.0.normaliser.mean", ["0", "0", "0"], "privacy.private-statistic"),
        ("features.0.normaliser.centre.0", "mean", "privacy.private-statistic"),
        ("features.4.gain", "std", "privacy.private-statistic"),
        ("outputs.0.limit", "max", "privacy.private-statistic"),
        ("outputs.0.normaliser", {"min": ["0"], "max": ["1"]}, "privacy.private-statistic"),
        ("clip", "auto", "privacy.private-statistic"),
        ("rate_hz", "Median", "privacy.private-statistic"),
        ("plan.clip_norm", "median", "privacy.private-statistic"),
        ("plan.clipping", "adaptive", "privacy.private-statistic"),
        ("plan.normalizer", "batch", "privacy.private-statistic"),
        ("evaluation.loss_bound", "quantile", "privacy.private-statistic"),
        ("statistics", {"tcp_pos": []}, "privacy.private-statistic"),
        ("features.4.normaliser.scale.0", "0.104729", "recipe.private-normaliser"),
        ("outputs.0.limit", "0", "recipe.invalid"),
        ("clip", "-5", "recipe.invalid"),
        ("rounds", 201, "recipe.invalid"),
        ("rounds", 0, "recipe.invalid"),
        ("need", 0, "recipe.invalid"),
        ("deadline_s", 100_000, "recipe.invalid"),
        ("evaluation", None, "privacy.eval-unplanned"),
        ("evaluation.noise_multiplier", "0", "privacy.plan-incomplete"),
        ("plan", DELETE, "privacy.plan-incomplete"),
        ("plan", None, "recipe.invalid"),
        ("plan.noise_multiplier", "0", "privacy.plan-incomplete"),
        ("plan.noise", "shares", "privacy.shares-unfit"),
        ("plan.unit", "frame", "privacy.unit-refused"),
        ("plan.steps_per_round", 2, "recipe.invalid"),
        ("server.kind", "momentum", "recipe.invalid"),
        ("server.beta1", "1", "recipe.invalid"),
        ("server.average", "1", "recipe.invalid"),
        ("server.decay", "1.1", "recipe.invalid"),
        ("server.update", "sum", "recipe.invalid"),
        ("train", {"kind": "dp-step", "rate": "0.1"}, "recipe.invalid"),
    ],
)
def test_a_mutant_of_the_private_recipe_is_refused(path, value, expected):
    assert code(changed(PRIVATE, path, value)) == expected


def test_a_name_that_is_the_word_for_a_statistic_is_a_name():
    assert load(changed(PRIVATE, "task.name", "auto")).task.name == "auto"


@pytest.mark.parametrize("value", [None, "0", "0.01", "2"])
def test_the_proximal_term_is_a_number_or_nothing(value):
    train = load(changed(PLAIN, "train.proximal", value)).train
    assert train.kind == "adam-local"
    assert train.proximal == value


@pytest.mark.parametrize(
    ("value", "kind"), [("-1", "recipe.invalid"), (0.1, "recipe.invalid"), (DELETE, "recipe.invalid")]
)
def test_another_proximal_term_or_none_written_is_refused(value, kind):
    assert code(changed(PLAIN, "train.proximal", value)) == kind


def test_without_a_plan_adam_adds_differences_and_says_so():
    """FedAdam; the sign follows from the plan, and one that is written differently is refused."""
    server = document(PRIVATE)["server"]
    added = server | {"update": "difference", "decay": "0", "average": "0"}
    assert load(changed(PLAIN, "server", added)).server.model_dump() == added
    assert code(changed(PLAIN, "server", server)) == "recipe.invalid"
    assert code(changed(PRIVATE, "server.update", "difference")) == "recipe.invalid"
    assert code(changed(PRIVATE, "server.update", DELETE)) == "recipe.invalid"


def test_local_steps_under_a_plan_and_private_steps_without_one_are_refused():
    plan = document(PRIVATE)["plan"]
    assert code(changed(PLAIN, "plan", plan)) == "recipe.invalid"
    assert code(changed(PLAIN, "train", {"kind": "dp-step"})) == "recipe.invalid"


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        PRIVATE + b"\n",
        json.dumps(json.loads(PRIVATE)).encode(),
        PRIVATE.replace(b'"clip":"5"', b'"clip":5.0'),
        PRIVATE.replace(b'"clip":"5"', b'"clip":"5","clip":"5"'),
        b" " * 100_000,
    ],
)
def test_anything_but_the_canonical_bytes_is_refused(data):
    assert code(data) in {"recipe.invalid", "privacy.eval-unplanned"}


def test_constants_may_be_rounded_within_their_rule():
    assert load(changed(PRIVATE, "features.0.normaliser.scale.0", "0.0577")).digest != digest(PRIVATE)


def test_every_byte_counts():
    assert load(private_recipe(episodes=251)).digest != load(PRIVATE).digest
    assert load(private_recipe(seed=1)).digest != load(PRIVATE).digest
