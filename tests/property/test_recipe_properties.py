# SPDX-License-Identifier: Apache-2.0
"""Recipes of every kind survive a round trip; a model's two parts are its whole, and never overlap."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from policies.encoding import canonical
from policies.errors import IriaiError
from policies.forward import joined, private_of, shared_of, split_weights, with_shared
from policies.recipe import load
from tests.recipesim import acting, detecting, dynamics, made, two_embodiments

WIDTHS = st.integers(1, 12)
ACT = st.builds(
    lambda heads, each, hidden, layers, chunk, seed: {
        "id": "act-small/1",
        "args": {
            "width": heads * each,
            "heads": heads,
            "hidden": hidden,
            "layers": layers,
            "chunk": chunk,
            "execute": 1,
            "seed": seed,
        },
    },
    st.integers(1, 4),
    st.integers(1, 3),
    WIDTHS,
    st.integers(1, 3),
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
MLP = st.builds(
    lambda width, chunk, seed: {
        "id": "mlp-chunk/1",
        "args": {"width": width, "chunk": chunk, "execute": 1, "seed": seed},
    },
    WIDTHS,
    st.integers(1, 4),
    st.integers(0, 2**32 - 1),
)
TREES = st.one_of(
    st.builds(acting, st.one_of(ACT, MLP)),
    st.builds(lambda width: dynamics(width=width), WIDTHS),
    st.builds(
        lambda architecture, per, classes: detecting(architecture, per=per, classes=classes),
        st.sampled_from(["linear-detect/1", "mlp-detect/1"]),
        st.sampled_from(["frame", "episode"]),
        st.integers(1, 5),
    ),
    st.builds(two_embodiments, st.one_of(ACT, MLP)),
)
SPLIT = st.builds(
    lambda architecture, name: made(two_embodiments(architecture)).as_variant(name),
    st.one_of(ACT, MLP),
    st.sampled_from(["gripper", "bare"]),
)


@given(TREES)
@settings(max_examples=60, deadline=None)
def test_a_recipe_of_any_kind_survives_its_own_bytes(tree):
    recipe = made(tree)
    assert recipe.canonical == canonical(tree)
    again = load(recipe.canonical)
    assert (again.digest, again.fields, again.parameters) == (recipe.digest, recipe.fields, recipe.parameters)
    assert json.loads(recipe.canonical) == tree


@given(TREES, st.data())
@settings(max_examples=60, deadline=None)
def test_a_recipe_without_any_of_its_blocks_is_refused_by_name(tree, data):
    name = data.draw(st.sampled_from(sorted(set(tree) - {"quality", "package"})))
    less = {key: value for key, value in tree.items() if key != name}
    with pytest.raises(IriaiError) as refused:
        made(less)
    assert refused.value.code.startswith(("recipe.", "privacy."))


@given(SPLIT, st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_the_shared_and_the_private_part_are_the_model_and_nothing_twice(recipe, seed):
    own = np.random.default_rng(seed).standard_normal(recipe.own_parameters).astype(np.float32)
    shared, private = shared_of(recipe, own), private_of(recipe, own)
    assert (len(shared), len(shared) + len(private)) == (recipe.parameters, recipe.own_parameters)
    assert np.array_equal(joined(recipe, shared, private), own)
    assert np.array_equal(np.sort(np.concatenate([shared, private])), np.sort(own))
    other = np.zeros_like(shared)
    mixed = with_shared(recipe, own, other)
    assert np.array_equal(private_of(recipe, mixed), private)
    assert not shared_of(recipe, mixed).any()
    tensors = split_weights(recipe, mixed)
    for spec in recipe.tensors:
        assert tensors[spec.name].any() == (not spec.is_shared), spec.name
