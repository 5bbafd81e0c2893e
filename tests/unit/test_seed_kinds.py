# SPDX-License-Identifier: Apache-2.0
"""Seed sets of recipes that predict what was measured, or detect a label: given, joined, fitted, recognised."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.data import import_path, open_view
from client.errors import NoSuchThingError
from client.learning.seeding import compare, fit
from client.learning.weights import initial_weights
from client.recipes.completing import complete
from client.seeds import join_donations
from client.seeds.donating import Recording, donate
from client.settings import LocalRules
from policies.consents import CONSENT_TYPE, open_consent
from policies.donations import check_given, read_donation, seal_consent
from policies.encoding import canonical
from policies.identity import SigningKey
from policies.recipe import Recipe
from policies.seed_episodes import published
from policies.seeds import ConsentInvalidError, SeedSet, SeedSetInvalidError, check_fits, read_seed_set
from policies.signing import Envelope
from tests.armsim import FRAMES, arm_logs
from tests.learnsim import changed
from tests.nodeworld import YES, World
from tests.recipesim import every_architecture, made, recording, two_embodiments
from tests.seedsim import consent_of, seed_episode

KITA = SigningKey.from_seed(b"k" * 32)
FIRST = "sha256:025ae2d736d61cff8623b9973c199a48d40f70c578b451abc310ec7052e9334c"  # before there were labels
DETECTING = every_architecture()["mlp-detect/1"]


def labelled(number: int = 1) -> Any:
    made_up = recording(DETECTING, number, frames=8)
    return seed_episode(
        number, observation=made_up.observation, action={}, labels={"grip_lost": made_up.labels["grip_lost"]}
    )


SEEDS = SeedSet.of([labelled(1), labelled(2)])


# --- documents ---


def test_an_episode_without_labels_keeps_the_row_and_the_name_that_it_always_had():
    one = seed_episode(1)
    assert one.digest == FIRST
    assert "labels" not in one.to_json()
    assert "labels" not in consent_of(KITA, [one]).to_json()


def test_a_label_is_read_back_and_is_a_part_of_what_the_episode_is_named_by():
    again = read_seed_set(SEEDS.canonical)
    assert again.digests == SEEDS.digests
    np.testing.assert_array_equal(
        again.episodes[0].labels["grip_lost"], SEEDS.episodes[0].labels["grip_lost"]
    )
    one = labelled()
    other = {"grip_lost": np.where(one.labels["grip_lost"] == 1, 0, 1).astype(np.int8)}
    assert replace(one, labels=other).digest != one.digest
    assert one.fields == {"joint_current", "grip_lost"}
    check_fits(SEEDS, DETECTING)


def put(path: str, value: object) -> bytes:
    return changed(SEEDS.canonical, path, value)


def values(*numbers: int) -> str:
    return base64.b64encode(bytes(one % 256 for one in numbers)).decode()


BROKEN = {
    "no labels in a list of them": put("episodes.0.labels", []),
    "labels that are no list": put("episodes.0.labels", {"0": {}}),
    "a label of another shape": put("episodes.0.labels.0", "grip_lost"),
    "a key more in a label": put("episodes.0.labels.0.size", 1),
    "a name of nobody": put("episodes.0.labels.0.label", "Grip Lost"),
    "a name that is none": put("episodes.0.labels.0.label", None),
    "a label twice": put("episodes.0.labels", json.loads(SEEDS.canonical)["episodes"][0]["labels"] * 2),
    "frames of another episode": put("episodes.0.labels.0.values", values(*range(7))),
    "below unknown": put("episodes.0.labels.0.values", values(*[-2] * 8)),
    "a class too far": put("episodes.0.labels.0.values", values(*[32] * 8)),
    "another value": put("episodes.0.labels.0.values", values(*[5] * 8)),
    "no label in place of an action": canonical(
        {
            **json.loads(SEEDS.canonical),
            "episodes": [
                {k: v for k, v in one.items() if k != "labels"}
                for one in json.loads(SEEDS.canonical)["episodes"]
            ],
        }
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_label_that_is_none_is_refused(name: str):
    with pytest.raises(SeedSetInvalidError):
        read_seed_set(BROKEN[name])


def test_a_seed_set_without_the_recipes_label_or_with_one_too_many_is_not_its_own():
    dynamics = every_architecture()["mlp-invdyn/1"]
    shown = recording(dynamics, 1, frames=8)
    bare = seed_episode(1, observation=shown.observation, action=shown.action)
    check_fits(SeedSet.of([bare]), dynamics)
    with pytest.raises(SeedSetInvalidError, match=r"labels: nothing"):
        check_fits(SeedSet.of([replace(bare, labels={"x": np.zeros(8, dtype=np.int8)})]), dynamics)
    with pytest.raises(SeedSetInvalidError, match=r"grip_lost \[1\]"):
        check_fits(SeedSet.of([replace(labelled(), labels={"other": np.zeros(8, dtype=np.int8)})]), DETECTING)


def test_a_consent_names_its_labels_and_stands_for_no_others():
    one = labelled()
    consent = consent_of(KITA, [one], observation=("joint_current",), action=(), labels=("grip_lost",))
    assert open_consent(seal_consent(consent, KITA), KITA.public) == consent
    check_given(consent, [one])
    with pytest.raises(ConsentInvalidError, match="fields that the consent names"):
        check_given(replace(consent, labels=("other",)), [one])
    for wrong in ({"labels": ()}, {"labels": ("b", "a")}, {"observation": ()}):
        with pytest.raises(ConsentInvalidError):
            open_consent(seal_consent(replace(consent, **wrong), KITA), KITA.public)
    empty = canonical(consent.to_json() | {"labels": []})
    with pytest.raises(ConsentInvalidError):
        open_consent(Envelope.seal(empty, CONSENT_TYPE, KITA).to_bytes(), KITA.public)


# --- a donor ---


def of_arm(tree: dict[str, Any]) -> Recipe:
    """A recipe for the logs of `tests.armsim`, which have six joints."""

    def six(value: Any) -> Any:
        if isinstance(value, list) and len(value) == 2 and value and isinstance(value[0], str):
            return [value[0]] * 6
        if isinstance(value, dict):
            return {name: 6 if name == "size" else six(one) for name, one in value.items()}
        return [six(one) for one in value] if isinstance(value, list) else value

    return complete(six(tree)).recipe


def tree_of(kind: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(every_architecture()[kind].canonical)
    return found


def given(world: World, recipe: Recipe, out: Path, **changes: Any) -> Any:
    asked: dict[str, Any] = {
        "dataset": "kita/arm",
        "party": "kita",
        "recipe": recipe.canonical,
        "licence": "CC-BY-4.0",
        "out": out,
        "rules": LocalRules(),
        "confirm": YES,
        "count": 2,
    }
    return donate(world.member, world.shelf(), **(asked | changes))


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[World, Path, Path]:
    """A node with the logs of an arm in its store, and where they came from."""
    folder = tmp_path_factory.mktemp("arm")
    world = World(folder)
    logs, signal_map = arm_logs(folder)
    fields = {"joint_pos", "joint_vel", "joint_torque", "joint_current", "tool_current", "grip_lost"}
    import_path(
        world.home.data,
        logs,
        dataset="kita/arm",
        signal_map=signal_map,
        allow=frozenset(fields),
        rights="",
        node_key=world.member.identity.unit_key,
        clock=world.clock,
    )
    return world, logs, signal_map


@pytest.mark.parametrize("kind", ["mlp-invdyn/1", "mlp-detect/1", "linear-detect/1"])
def test_episodes_are_given_joined_fitted_and_known_again_by_the_node_that_has_them(
    world: tuple[World, Path, Path], tmp_path: Path, kind: str
):
    node, logs, signal_map = world
    recipe = of_arm(tree_of(kind))
    given(node, recipe, tmp_path / "stored.json")
    aside = Recording(path=logs, signal_map=signal_map)
    given(node, recipe, tmp_path / "aside.json", recording=aside)
    found = read_donation((tmp_path / "stored.json").read_bytes())
    assert {one.digest for one in found.episodes} == {
        one.digest for one in read_donation((tmp_path / "aside.json").read_bytes()).episodes
    }
    label = () if recipe.label is None else ("grip_lost",)
    assert found.consent.labels == label
    assert all(one.frames == FRAMES and one.fields == set(recipe.fields) for one in found.episodes)
    join_donations([tmp_path / "stored.json"], out=tmp_path / "seed-set.json")
    seeds = read_seed_set((tmp_path / "seed-set.json").read_bytes())
    check_fits(seeds, recipe)
    fitted = fit(recipe, seeds, steps=60)
    losses = compare(recipe, seeds, fitted, fitted)
    assert losses.given < losses.first
    assert len(fitted) == len(initial_weights(recipe))
    view = open_view(
        node.home.data,
        "kita/arm",
        contract_fields=recipe.fields,
        recipe_inputs=recipe.fields,
        local_allow=recipe.fields,
        rate_hz=recipe.rate_hz,
        imitates=False,
    )
    shown = [published(recipe, one.fields, one.actions, one.labels).digest for one in view.episodes("train")]
    assert seeds.digests < set(shown)


def test_a_recipe_of_several_embodiments_takes_no_donation_and_says_what_to_do(
    world: tuple[World, Path, Path], tmp_path: Path
):
    with pytest.raises(NoSuchThingError, match="recipe base"):
        given(world[0], made(two_embodiments()), tmp_path / "kita.json")
    assert not (tmp_path / "kita.json").exists()
