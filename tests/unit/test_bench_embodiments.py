# SPDX-License-Identifier: Apache-2.0
"""Embodiments that share a trunk: one language at the start, held stems and heads, and a table of gains."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.learning import initial_weights
from client.learning.train import Trainer
from policies.encoding import canonical
from policies.forward import private_of, shared_of, split_weights
from policies.recipe import Recipe, RecipeInvalidError, load
from sandbox import bench_embodiments, shared_trunk
from sandbox.bench_columns import UNDETERMINED, mean_and_error
from sandbox.bench_embodiments import EmbodimentOptions, lines, run
from sandbox.recipes import plain_recipe
from sandbox.shared_trunk import CELL_VARIANTS, episodes_of, recipe_bytes, together
from sandbox.study_recordings import Demonstrations
from tests.learnsim import SeededEntropy, episodes

needs_simulator = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="Meta-World is not installed: pip install 'iriai[sandbox]'",
)
SEEN = ("tcp_pos", "gripper_width", "object_pos", "goal_pos")


def short(**train: Any) -> bytes:
    tree = json.loads(recipe_bytes(5))
    tree["rounds"] = 2
    tree["train"] |= {"local_steps": 2} | train
    if tree["train"]["private"] is None:
        del tree["train"]["private"]
    return canonical(tree)


def demonstrated(count: int) -> Demonstrations:
    return [
        (
            np.hstack([one.observation[name] for name in SEEN]),
            np.hstack([one.action[name] for name in ("tcp_pose_delta", "gripper_cmd")]),
        )
        for one in episodes(count)
    ]


def variants(data: bytes) -> dict[str, Recipe]:
    recipe = load(data)
    return {name: recipe.as_variant(name) for name in ("absolute", "relative")}


def test_only_the_trunk_is_on_the_wire_and_the_two_see_and_do_different_things():
    recipe, here = load(recipe_bytes(5)), variants(recipe_bytes(5))
    assert {one.block for one in recipe.tensors} == {"trunk"}
    assert [(one.input_size, one.output_size) for one in here.values()] == [(19, 4), (10, 7)]
    for one in here.values():
        trunk = shared_of(one, initial_weights(one))
        assert len(trunk) == recipe.parameters
        assert (trunk == initial_weights(recipe)).all()


def test_what_all_variants_have_begins_alike_and_what_one_has_begins_at_zero():
    here = variants(recipe_bytes(5))
    absolute, relative = (split_weights(one, initial_weights(one)) for one in here.values())
    stem, other = absolute["stem.weight"], relative["stem.weight"]
    assert (stem[:, 3] == other[:, 0]).all()  # gripper
    assert (stem[:, 10:] == other[:, 1:]).all()  # the three differences
    assert other.any(axis=0).all()
    assert not stem[:, :3].any()
    assert not stem[:, 4:10].any()
    head, other = absolute["head.weight"], relative["head.weight"]
    assert (head == other[[0, 1, 2, 6]]).all()
    assert head.any(axis=1).all()
    assert not other[3:6].any()


@pytest.mark.parametrize("held", ["held", None])
def test_a_held_stem_and_head_rest_during_the_rounds_and_never_travel(held: str | None):
    one = variants(short(private=held))["relative"]
    trainer = Trainer(one, episodes_of(one, demonstrated(2)), SeededEntropy(1))
    before = trainer.private.copy()
    trunk = shared_of(one, initial_weights(one))
    update = trainer.update(trunk, 1, 1)
    assert len(update) == one.parameters < one.own_parameters
    assert np.any(update != 0)
    assert (trainer.private == before).all() == (held == "held")


def test_every_cell_gets_the_one_trunk_with_its_own_stem_and_head():
    here = variants(short())
    sites = {
        cell: (here[CELL_VARIANTS[cell]], episodes_of(here[CELL_VARIANTS[cell]], demonstrated(2)))
        for cell in ("A", "B")
    }
    models = together(sites, name="test")
    parts = {cell: (sites[cell][0], model) for cell, model in models.items()}
    trunks = [shared_of(recipe, model) for recipe, model in parts.values()]
    assert (trunks[0] == trunks[1]).all()
    assert len({len(private_of(recipe, model)) for recipe, model in parts.values()}) == 2


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ([0.1, 0.12, 0.09, 0.11, 0.1], True),
        ([-0.1, -0.12, -0.09, -0.11, -0.1], False),
        ([0.3, -0.2, 0.1, 0.0, 0.1], UNDETERMINED),
        ([0.1, 0.1], UNDETERMINED),
    ],
)
def test_a_gain_within_its_noise_or_of_few_seeds_is_none(values: list[float], said: bool | str):
    found = bench_embodiments._gains(mean_and_error(values), len(values))
    assert found == said


def test_a_recipe_without_variants_has_nothing_to_hold():
    tree = json.loads(plain_recipe())
    tree["train"]["private"] = "held"
    with pytest.raises(RecipeInvalidError, match="variants"):
        load(canonical(tree))


@pytest.mark.mujoco
@needs_simulator
def test_a_run_reports_each_variant_with_intervals_and_one_seed_decides_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    two = {name: CELL_VARIANTS[name] for name in "AB"}
    monkeypatch.setattr(bench_embodiments, "CELL_VARIANTS", two)
    monkeypatch.setattr(shared_trunk, "CELL_VARIANTS", two)
    monkeypatch.setattr(bench_embodiments, "recipe_bytes", lambda _episodes: short())
    monkeypatch.setattr(bench_embodiments, "_ALONE_STEPS", 4)
    found = run(EmbodimentOptions(folder=tmp_path, episodes=1, seeds=1, rollouts=1, workers=1))
    for row in found["variants"].values():
        for way in bench_embodiments.WAYS:
            low, high = row[way]["interval"]
            assert 0 <= low <= row[way]["mean"] <= high <= 1
        assert row["gains_over_alone"] == UNDETERMINED
    shown = "\n".join(lines(found))
    assert "relative: cells B, observes 10, acts 7" in shown
    assert "NOT PRIVATE" in shown
