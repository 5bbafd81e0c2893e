# SPDX-License-Identifier: Apache-2.0
"""Packages of a recipe with variants: the trunk that all share is no model that could run."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest

from client.data.embodiment import Adapter
from client.deploy.adapters import ends_of
from client.deploy.errors import NotExportableError
from client.deploy.loader import open_package
from client.deploy.own_data import read_here
from client.deploy.package import build_package
from client.deploy.recipe_facts import RecipeFacts
from client.learning.export import export_graph
from client.settings import Home
from policies.encoding import digest
from policies.recipe import Recipe
from tests.packagesim import CONTRACT, KEYS, NODE, RUN, latency_of, material, statement_of, weights_of
from tests.recipesim import dynamics, made, two_embodiments

KNOWN = {"contract": "sha256:" + "0" * 64, "recipe": "sha256:" + "1" * 64}


class OneRecipe:
    """A shelf with one recipe."""

    def __init__(self, tree: dict[str, Any]) -> None:
        self._tree = tree

    def recipe(self, _contract: str, _digest: str) -> Recipe:
        return made(self._tree)


def test_the_common_model_of_several_embodiments_is_refused_by_name_and_says_what_to_do(tmp_path: Path):
    with pytest.raises(NotExportableError, match="trunk alone") as refused:
        read_here(Home(tmp_path), OneRecipe(two_embodiments()), KNOWN, individual=False)
    assert "personalise" in refused.value.remedy
    assert "--individual" in refused.value.remedy
    assert "gripper, bare" in refused.value.found


def test_the_common_model_of_one_embodiment_needs_no_data_here(tmp_path: Path):
    here = read_here(Home(tmp_path), OneRecipe(dynamics()), KNOWN, individual=False)
    assert (here.recipe.digest, here.ends) == (made(dynamics()).digest, None)


@functools.cache
def _individual(name: str) -> bytes:
    """The individual package of one embodiment, with the adapter of its controller."""
    recipe = made(two_embodiments()).as_variant(name)
    ends = ends_of(Adapter(gain="0.5", sign=[1, -1], order=[1, 0]), recipe) if name == "bare" else None
    graph = export_graph(recipe, weights_of(recipe), RecipeFacts(recipe, ends).example, ends=ends)
    parent = digest(b"the trunk that was released")
    changes = {
        "recipe": recipe,
        "model": {
            "id": "skill",
            "digest": digest(weights_of(recipe).tobytes()),
            "parent": parent,
            "tier": "private",
            "individual": True,
        },
        "graph": graph.graph,
        "chunk": graph.chunk,
        "statement": statement_of(recipe, parent),
        "latency": latency_of(graph.graph),
        "rate_hz": "125",
        "lineage": {"contract": CONTRACT, "recipe": recipe.digest, "run": RUN, "seed_set": None, "log": None},
    }
    return build_package(material(individual=True, **changes, ends=ends), NODE)


@pytest.mark.parametrize("name", ["gripper", "bare"])
def test_a_package_of_one_embodiment_is_checked_by_its_own_variant_of_the_recipe(name: str):
    manifest = open_package(_individual(name), KEYS).manifest
    variant = made(two_embodiments()).as_variant(name)
    assert [one.field for one in manifest.inputs] == [one.field for one in variant.inputs]
    assert manifest.action_size == variant.output_size
    assert (manifest.embodiment.adapter is not None) == (name == "bare")
