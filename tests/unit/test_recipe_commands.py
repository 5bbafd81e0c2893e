# SPDX-License-Identifier: Apache-2.0
"""``iriai-node recipe``: drafts that load, sources that become one spelling, and data that fit or do not."""

from __future__ import annotations

import json
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.deploy.recipe_facts import RecipeFacts
from client.errors import FileTakenError, NoSuchThingError
from client.recipes.basing import recipe_base
from client.recipes.checking import recipe_check
from client.recipes.completing import complete, recipe_format
from client.recipes.sources import WHOLE, read_source, read_text
from client.recipes.templates import Kind, changes, draft, recipe_new
from client.settings import Home
from policies.encoding import canonical, digest
from policies.errors import IriaiError
from policies.privacy.errors import PlanIncompleteError
from policies.privacy.feasibility import feasibility
from policies.privacy.plan import DpPlan, EvalPlan
from policies.recipe import BaseStart, Recipe, RecipeError, RecipeInvalidError, RecipeNormaliserError, load
from policies.seeds import StartModelUnfitError
from sandbox.recipes import plain_recipe, private_recipe
from tests.armsim import arm_logs
from tests.datasetsim import Site
from tests.nodesim import HandClock
from tests.recipesim import detecting, dynamics, every_architecture, made, two_embodiments

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app

DRAFTS = [
    (Kind.BEHAVIOUR_CLONING, False),
    (Kind.INVERSE_DYNAMICS, False),
    (Kind.DETECTION, False),
    *((kind, True) for kind in Kind),
]


def drafted(kind: Kind, *, plain: bool = False) -> dict[str, Any]:
    """A draft as its parsed JSON document."""
    return json.loads(complete(read_text(draft(kind, plain=plain), as_json=False)).data)


def bare(tree: dict[str, Any]) -> dict[str, Any]:
    """A recipe without anything that follows from the rest."""
    found = json.loads(json.dumps(tree))
    for part in (found, *found.get("variants", ())):
        part.pop("tensors")
        for block in (*part["features"], *part["outputs"]):
            rule = block["normaliser"]["rule"]
            gone = {"bounded": ("low", "high", "centre", "scale"), "approach": ("low", "high")}
            for name in gone.get(rule, ("centre", "scale")):
                block["normaliser"].pop(name)
    return found


# --- drafts ---


@pytest.mark.parametrize(("kind", "plain"), DRAFTS)
def test_every_draft_is_a_recipe_of_its_kind_and_says_what_to_change(tmp_path: Path, kind: Kind, plain: bool):
    out = tmp_path / "recipe.json"
    answer = recipe_new(kind, out=out, plain=plain)
    recipe = load(out.read_bytes())
    assert (answer.data["recipe"], recipe.is_private) == (recipe.digest, not plain)
    told = changes(draft(kind, plain=plain))
    assert len(told) >= 6
    assert all(what and why and "#" not in why for what, why in told)
    assert [one["what"] for one in answer.data["change"]] == [what for what, _ in told]
    if not recipe.has_private and not recipe.past:
        assert RecipeFacts(recipe).inputs  # a package of its models has limits


@pytest.mark.parametrize("kind", [kind for kind, plain in DRAFTS if not plain])
def test_a_draft_with_a_plan_is_one_that_250_units_at_three_sites_carry(kind: Kind):
    recipe = load(canonical(drafted(kind)))
    plan = recipe.plan
    assert plan is not None
    assert feasibility(plan, 250, recipe.parameters, recipe.need, (250.0,)).verdict == "fine"
    plan.check_units(250)


def test_a_draft_that_no_plan_carries_is_refused_until_a_person_says_plain(tmp_path: Path):
    for kind in (Kind.BEHAVIOUR_CLONING_ACT, Kind.TWO_EMBODIMENTS):
        with pytest.raises(NoSuchThingError, match="--plain"):
            recipe_new(kind, out=tmp_path / "r.json", plain=False)
    assert not list(tmp_path.iterdir())


def test_a_draft_with_comments_becomes_the_same_recipe(tmp_path: Path):
    recipe_new(Kind.DETECTION, out=tmp_path / "a.json", plain=False)
    recipe_new(Kind.DETECTION, out=tmp_path / "b.yaml", plain=False)
    assert "# change: " in (tmp_path / "b.yaml").read_text()
    recipe_format(tmp_path / "b.yaml", out=None)
    assert (tmp_path / "b.json").read_bytes() == (tmp_path / "a.json").read_bytes()


def test_a_draft_replaces_no_file(tmp_path: Path):
    recipe_new(Kind.DETECTION, out=tmp_path / "a.json", plain=False)
    with pytest.raises(FileTakenError):
        recipe_new(Kind.DETECTION, out=tmp_path / "a.json", plain=False)
    with pytest.raises(FileTakenError):
        recipe_new(Kind.DETECTION, out=tmp_path / "no" / "a.json", plain=False)


# --- format ---


@pytest.mark.parametrize(
    "tree",
    [
        json.loads(private_recipe()),
        json.loads(plain_recipe()),
        dynamics(),
        detecting(classes=3),
        detecting("linear-detect/1"),
        two_embodiments(),
        *(json.loads(one.canonical) for one in every_architecture().values()),
    ],
)
def test_what_follows_from_the_rest_is_filled_in_by_the_public_rule(tree: dict[str, Any]):
    again = complete(bare(tree))
    assert again.recipe.tensors == made(tree).tensors
    assert "tensors" in again.filled
    assert complete(json.loads(again.data)).data == again.data
    assert complete(tree).data == canonical(tree)  # what is complete stays as it is


def test_what_is_a_choice_is_never_filled_in():
    tree = json.loads(private_recipe())
    with pytest.raises(PlanIncompleteError):
        complete({name: one for name, one in tree.items() if name != "plan"})
    for name in ("evaluation", "train", "rounds", "rate_hz"):
        with pytest.raises(IriaiError):
            complete({key: one for key, one in tree.items() if key != name})
    tree["outputs"][0]["normaliser"].pop("scale")  # of an approach
    with pytest.raises(RecipeError, match="scale"):
        complete(tree)


def test_an_interval_that_three_digits_cannot_say_is_refused_as_ever():
    tree = bare(dynamics())
    tree["features"][2]["normaliser"] |= {"low": ["300.1", "300.1"], "high": ["300.2", "300.2"]}
    with pytest.raises(RecipeNormaliserError):
        complete(tree)


def test_numbers_of_a_source_become_text_where_a_recipe_has_text():
    text = json.dumps(json.loads(private_recipe()))
    for before, after in (
        ('"scale": ["0.058"', '"scale": [5.8e-2'),
        ('"clip": "5"', '"clip": 5'),
        ('"delta": "0.00001"', '"delta": 1e-05'),
        ('["0", "0", "-0.25"]', "[0, -0.0, -0.250]"),
    ):
        assert before in text
        text = text.replace(before, after)
    assert complete(read_text(text, as_json=True)).data == private_recipe()


def whole_numbers(schema: Any) -> set[str]:
    """Names of a JSON Schema's properties that are whole numbers, or lists of them."""
    if isinstance(schema, list):
        return set().union(*map(whole_numbers, schema))
    if not isinstance(schema, dict):
        return set()
    own = {
        name
        for name, one in schema.get("properties", {}).items()
        if '"type": "integer"' in json.dumps(one) and "$ref" not in json.dumps(one)
    }
    return own.union(*map(whole_numbers, schema.values()))


def test_the_places_of_whole_numbers_are_those_of_the_schemas():
    assert set().union(*(whole_numbers(m.model_json_schema()) for m in (Recipe, DpPlan, EvalPlan))) == WHOLE


BROKEN = {
    "no JSON": "{",
    "a key twice": '{"a": 1, "a": 2}',
    "no number": '{"a": NaN}',
    "an infinite one": '{"a": -Infinity}',
    "a long decimal": '{"a": 0.0000000000000000000001}',
    "a huge one": '{"a": 1e400}',
    "deep nesting": "[" * 100_000,
    "nesting that json reads": '{"a":' * 300 + "1" + "}" * 300,
    "a list": "[1]",
    "a text": '"recipe"',
    "half a character": '{"a": "\\ud800"}',
    "nothing of a recipe": "{}",
    "blocks of other types": json.dumps(
        dict.fromkeys(("architecture", "features", "inputs", "outputs", "loss", "variants", "plan"), "x")
    ),
    "an unknown architecture": json.dumps(
        json.loads(plain_recipe()) | {"architecture": {"id": "net/9", "args": {}}}
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_source_that_is_no_recipe_is_refused_and_nothing_is_written(tmp_path: Path, name: str):
    path = tmp_path / "broken.json"
    path.write_text(BROKEN[name])
    with pytest.raises(IriaiError) as refused:
        recipe_format(path, out=tmp_path / "out.json")
    assert refused.value.need
    assert refused.value.remedy
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize("key", sorted(json.loads(private_recipe())))
@pytest.mark.parametrize("value", [None, 7, "x", [], [None], [{}], {"a": {}}])
def test_a_block_of_any_other_shape_is_a_refusal_and_no_crash(key: str, value: object):
    with suppress(IriaiError):
        assert load(complete(json.loads(private_recipe()) | {key: value}).data)


def test_the_true_fault_is_named_and_not_the_manifest_that_could_not_follow():
    tree = bare(json.loads(plain_recipe()))
    tree["features"][0]["op"] = "cube"
    with pytest.raises(RecipeInvalidError, match="features"):
        complete(tree)


def test_formatting_replaces_the_source_or_another_recipe_and_nothing_else(tmp_path: Path):
    source = tmp_path / "r.json"
    source.write_text(json.dumps(bare(dynamics()), indent=1))
    recipe_format(source, out=None)
    assert source.read_bytes() == complete(bare(dynamics())).data
    other, notes = tmp_path / "o.json", tmp_path / "notes.txt"
    notes.write_text("mine")
    for _ in range(2):
        recipe_format(source, out=other)
    with pytest.raises(FileTakenError):
        recipe_format(source, out=notes)
    assert notes.read_text() == "mine"


def test_a_yaml_source_beside_a_foreign_json_file_leaves_that_alone(tmp_path: Path):
    recipe_new(Kind.DETECTION, out=tmp_path / "a.yaml", plain=True)
    (tmp_path / "a.json").write_text("{}")
    with pytest.raises(FileTakenError):
        recipe_format(tmp_path / "a.yaml", out=None)


def test_a_source_that_is_too_large_or_no_text_is_refused(tmp_path: Path):
    (tmp_path / "a").write_bytes(b" " * 600_000)
    (tmp_path / "b").write_bytes(b"\xff\xfe")
    for name in "ab":
        with pytest.raises(RecipeInvalidError):
            read_source(tmp_path / name)
    with pytest.raises(NoSuchThingError):
        read_source(tmp_path / "c")


# --- base ---


def zeros(folder: Path, count: int) -> Path:
    path = folder / f"{count}.f32"
    path.write_bytes(np.zeros(count, dtype="<f4").tobytes())
    return path


@pytest.mark.parametrize("tree", [dynamics(), two_embodiments()])
def test_a_checkpoint_becomes_the_start_of_a_recipe(tmp_path: Path, tree: dict[str, Any]):
    source, out = tmp_path / "r.json", tmp_path / "based.json"
    source.write_bytes(canonical(tree))
    weights = zeros(tmp_path, made(tree).parameters)
    answer = recipe_base(source, weights=weights, licence="Apache-2.0", out=out)
    based = load(out.read_bytes())
    assert based.start == BaseStart(base=digest(weights.read_bytes()), licence="Apache-2.0")
    assert (answer.data["recipe"], answer.data["annex"]) == (based.digest, str(weights))
    assert any(f"--annex {weights}" in line for line in answer.text)


def test_a_checkpoint_of_another_length_or_not_finite_or_without_licence_starts_nothing(tmp_path: Path):
    source, out = tmp_path / "r.json", tmp_path / "based.json"
    source.write_bytes(canonical(dynamics()))
    size = made(dynamics()).parameters
    with pytest.raises(StartModelUnfitError, match=r"stem\.weight \[8, 10\]"):
        recipe_base(source, weights=zeros(tmp_path, size - 1), licence="MIT", out=out)
    wild = tmp_path / "wild.f32"
    wild.write_bytes(np.full(size, np.inf, dtype="<f4").tobytes())
    with pytest.raises(StartModelUnfitError, match="recipe base"):
        recipe_base(source, weights=wild, licence="MIT", out=out)
    with pytest.raises(NoSuchThingError, match="licence"):
        recipe_base(source, weights=zeros(tmp_path, size), licence="two\nlines", out=out)
    assert not out.exists()


# --- check ---

CLOCK = HandClock(1_790_000_000_000)


def recorded(folder: Path, *, labelled: bool = True) -> Site:
    """A site that imported twelve logs of an arm."""
    site = Site(folder)
    logs, signal_map = arm_logs(folder, labelled=labelled)
    assert site.add(logs, "--map", signal_map).code == 0
    return site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Site:
    """Its data are read by the tests, and changed by none."""
    return recorded(tmp_path_factory.mktemp("site"))


def checked(site: Site, folder: Path, tree: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    """Exit code, and the findings by what they are about."""
    path = folder / "recipe.json"
    path.write_bytes(canonical(tree))
    answer = recipe_check(site.home, path, dataset="kita/log", clock=CLOCK)
    assert answer.data["runs"] is (answer.exit_code == 0)
    return answer.exit_code, {one["about"]: one for one in answer.data["findings"]}


def holds(found: dict[str, Any]) -> dict[str, str]:
    return {name: one["holds"] for name, one in found.items()}


@pytest.mark.parametrize("kind", [Kind.INVERSE_DYNAMICS, Kind.DETECTION])
def test_data_that_fit_are_said_to_fit(site: Site, tmp_path: Path, kind: Kind):
    code, found = checked(site, tmp_path, drafted(kind, plain=True))
    assert code == 0
    assert set(holds(found).values()) <= {"yes", "warns"}
    assert holds(found) | {"scales": "warns"} == dict.fromkeys(found, "yes") | {"scales": "warns"}
    assert ("label" in found) is (kind is Kind.DETECTION)


def test_a_plan_that_so_few_units_do_not_carry_is_said_with_its_remedy(site: Site, tmp_path: Path):
    code, found = checked(site, tmp_path, drafted(Kind.DETECTION))
    assert (code, holds(found)["units"]) == (3, "no")
    assert "to train on" in found["units"]["found"]
    assert found["units"]["remedy"]


def test_a_field_that_is_not_here_ends_the_look(site: Site, tmp_path: Path):
    code, found = checked(site, tmp_path, drafted(Kind.BEHAVIOUR_CLONING))
    assert (code, holds(found)) == (3, {"robot": "warns", "fields": "no"})
    assert "gripper_width" in found["fields"]["need"]


def test_a_size_that_differs_is_named_and_no_value_is_compared(site: Site, tmp_path: Path):
    tree = bare(drafted(Kind.INVERSE_DYNAMICS, plain=True))
    output = tree["outputs"][0]
    tree["outputs"] = [
        output | {"size": 5, "limit": "150", "normaliser": {"rule": "limit", "low": "-9", "high": "9"}}
    ]
    code, found = checked(site, tmp_path, json.loads(complete(tree).data))
    assert (code, holds(found)["fields"]) == (3, "no")
    assert "joint_torque [5]" in found["fields"]["need"]
    assert "joint_torque [6]" in found["fields"]["found"]
    assert "scales" not in found


def test_a_label_that_nobody_gave_leaves_nothing_to_train_on(tmp_path: Path):
    code, found = checked(recorded(tmp_path, labelled=False), tmp_path, drafted(Kind.DETECTION, plain=True))
    assert (code, holds(found)["label"]) == (3, "no")
    assert "unknown everywhere" in found["label"]["found"]


def test_a_scale_far_above_what_is_recorded_warns_with_the_ratio(site: Site, tmp_path: Path):
    tree = bare(drafted(Kind.INVERSE_DYNAMICS, plain=True))
    tree["outputs"][0]["normaliser"] |= {"low": ["-900"] * 6, "high": ["900"] * 6}
    code, found = checked(site, tmp_path, json.loads(complete(tree).data))
    assert (code, holds(found)["scales"]) == (0, "warns")
    assert "output joint_torque 0" in found["scales"]["found"]


def test_a_certificate_that_lacks_a_demanded_check_cannot_run(site: Site, tmp_path: Path):
    tree = drafted(Kind.DETECTION, plain=True)
    tree["quality"] = {"require": ["tracking"], "accept_undetermined": []}
    code, found = checked(site, tmp_path, tree)
    assert (code, holds(found)["certificate"]) == (3, "no")
    assert "tracking" in found["certificate"]["need"]


def test_another_unit_than_that_of_the_data_cannot_run(site: Site, tmp_path: Path):
    tree = drafted(Kind.DETECTION, plain=True)
    tree["evaluation"]["unit"] = "order"
    code, found = checked(site, tmp_path, tree)
    assert (code, holds(found)["unit"]) == (3, "no")


def test_the_variant_of_a_site_is_found_or_refused(site: Site, tmp_path: Path):
    tree = drafted(Kind.TWO_EMBODIMENTS, plain=True)
    for one in tree["variants"]:
        one["inputs"], one["features"] = one["inputs"][:1], one["features"][:2]
        one["outputs"][0]["field"] = "joint_torque"
    code, found = checked(site, tmp_path, json.loads(complete(bare(tree)).data))
    assert (found["variant"]["holds"], found["fields"]["holds"], code) == ("yes", "no", 3)
    assert "six-axes" in found["variant"]["found"]
    assert "action.joint_torque [6]" in found["fields"]["need"]  # it is measured, and not commanded
    tree["variants"] = tree["variants"][1:]
    code, found = checked(site, tmp_path, json.loads(complete(bare(tree)).data))
    assert (code, holds(found)) == (3, {"variant": "no"})


def test_fields_that_the_sites_own_list_holds_back_are_not_opened(tmp_path: Path):
    from dataclasses import replace

    from client.settings import load_settings, save_settings

    site = recorded(tmp_path)
    settings = load_settings(site.home, {})
    save_settings(site.home, replace(settings, local=replace(settings.local, fields=("joint_pos",))))
    code, found = checked(site, tmp_path, drafted(Kind.INVERSE_DYNAMICS, plain=True))
    assert (code, holds(found)["fields"]) == (3, "no")
    assert "allow-list" in found["fields"]["found"]


def test_a_source_is_described_but_does_not_run_before_it_is_formatted(tmp_path: Path):
    recipe_new(Kind.DETECTION, out=tmp_path / "a.yaml", plain=False)
    answer = recipe_check(Home(tmp_path / "none"), tmp_path / "a.yaml", dataset=None, clock=CLOCK)
    assert answer.exit_code == 3
    assert any("recipe format" in line for line in answer.text)
    assert any("epsilon 7.99" in line for line in answer.text)


SAYS = {
    "plain": (plain_recipe(), ["NOT PRIVATE", "19 values", "FedAvgM", "weights drawn from seed 2"]),
    "private": (private_recipe(noise="shares"), ["in shares", "3 sites are honest", "epsilon 7.99"]),
    "dynamics": (canonical(dynamics()), ["predicts what was measured", "125 Hz", "joint_torque [2] Nm"]),
    "classes": (canonical(detecting(classes=3)), ["each class of grip_lost", "class-2", "by frame"]),
    "variants": (canonical(two_embodiments()), ["gripper: 7r-arm", "private, never sent: ", "of bare"]),
}


@pytest.mark.parametrize("name", SAYS)
def test_a_recipe_is_told_in_sentences_without_a_node(tmp_path: Path, name: str):
    data, words = SAYS[name]
    path = tmp_path / "r.json"
    path.write_bytes(data)
    answer = recipe_check(Home(tmp_path / "none"), path, dataset=None, clock=CLOCK)
    text = "\n".join(answer.text)
    assert answer.exit_code == 0
    assert [word for word in words if word not in text] == []
    assert answer.data["parameters"] == load(data).parameters


def test_the_commands_are_there_and_need_no_node_but_for_a_data_set(site: Site, tmp_path: Path):
    def run(*words: object) -> tuple[int, dict[str, Any]]:
        line = ["recipe", *map(str, words), "--json"]
        done = CliRunner().invoke(app, line, catch_exceptions=False)
        return done.exit_code, json.loads(done.stdout or "{}")

    source, recipe = tmp_path / "r.yaml", tmp_path / "r.json"
    assert run("new", "inverse-dynamics", "--plain", "--out", source)[0] == 0
    assert run("format", source)[0] == 0
    assert run("check", recipe, "--dir", tmp_path / "none")[0] == 0
    code, found = run("check", recipe, "--dataset", "kita/log", "--dir", tmp_path / "none")
    assert (code != 0, found["error"]["code"]) == (True, "node.not-initialised")
    code, found = run("check", recipe, "--dataset", "kita/log", "--dir", site.home.root)
    assert (code, found["data"]["runs"]) == (0, True)
    weights = zeros(tmp_path, found["data"]["parameters"])
    out = tmp_path / "based.json"
    assert run("base", recipe, "--weights", weights, "--licence", "MIT", "--out", out)[0] == 0
    assert load(out.read_bytes()).start is not None
