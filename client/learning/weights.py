# SPDX-License-Identifier: Apache-2.0
"""The flat vector of weights, in the order of the recipe's tensors: its shared part is all that travels.

`initial_weights` depends on the recipe alone: exact float64 arithmetic on a seeded PCG64 stream, whose values
numpy guarantees. All nodes and the broker's check derive the same bytes. Private tensors have streams of
their own, so that the shared ones start alike under every variant.

Variants begin with one language: a feature that all of them have has the same columns in each stem, an output
that all have the same rows in each head, and what only some have begins at zero. So the first tokens mean the
same to the shared trunk, whoever sends them. Where variants have nothing in common each draws its own.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import numpy.typing as npt

from client.learning.errors import WeightsUnfitError
from policies import forward
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.recipe import Recipe, TensorSpec
    from policies.recipe.features import Feature

__all__ = ["check_shared", "check_weights", "initial_weights", "split_weights"]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
_HEAD_GAIN: Final = 0.1  # the first model acts gently
_PRIVATE_HEAD_GAIN: Final = 1.0  # reaches every action also while it is held
_HIDDEN_GAIN: Final = 5 / 3  # of tanh


def initial_weights(recipe: Recipe) -> Array32:
    """The weights that every party derives from the recipe's seed, ``[P] float32``.

    Before a variant is chosen these are the shared ones.
    """
    shared = _stream(recipe)
    parts: list[npt.NDArray[np.float64]] = []
    for spec in recipe.tensors:
        if len(spec.shape) == 1:
            parts.append(np.full(spec.size, float(spec.name.endswith(".weight"))))  # of a norm; biases are 0
        elif spec.is_shared:
            gain = _HEAD_GAIN if spec.block == "head" else _HIDDEN_GAIN
            parts.append((2 * shared.random(spec.size) - 1) * (gain / math.sqrt(spec.shape[1])))
        elif spec.block == "stem":
            parts.append(_private_stem(recipe, spec.shape[0]).reshape(-1))
        else:
            parts.append(_private_head(recipe, spec).reshape(-1))
    return np.concatenate(parts).astype(np.float32)


def _stream(recipe: Recipe, name: str = "") -> np.random.Generator:
    seed = recipe.architecture.args.seed
    return np.random.Generator(np.random.PCG64([seed, *name.encode("ascii")] if name else seed))


def _private_stem(recipe: Recipe, width: int) -> Array64:
    """Columns of each feature ``[width, d]``; those of features that not all variants have are zero."""
    own = {_feature(one): one.size for one in recipe.features}
    common = _common(
        own, [{_feature(one): one.size for one in part.features} for part in recipe.variants or ()]
    )
    gain = _HIDDEN_GAIN / math.sqrt(sum(common.values()))
    return np.hstack(
        [
            (2 * _stream(recipe, f"stem {name}").random((width, size)) - 1) * (gain * (name in common))
            for name, size in own.items()
        ]
    )


def _private_head(recipe: Recipe, spec: TensorSpec) -> Array64:
    """Rows of each output, as often as the head answers it; those that not all variants have are zero."""
    own = {one.field: one.size for one in recipe.outputs} or {str(recipe.label): recipe.output_size}
    parts = recipe.variants or ()
    common = _common(own, [{one.field: one.size for one in part.outputs} or own for part in parts])
    rows, width = spec.shape
    gain = _PRIVATE_HEAD_GAIN / math.sqrt(width)
    return np.vstack(
        [
            (2 * _stream(recipe, f"head {name} {step}").random((size, width)) - 1) * (gain * (name in common))
            for step in range(rows // recipe.output_size)
            for name, size in own.items()
        ]
    )


def _feature(one: Feature) -> str:
    """A name of what a feature is, whatever its constants."""
    return canonical(one.model_dump(mode="json", exclude={"normaliser"})).decode("ascii")


def _common(own: dict[str, int], parts: Sequence[dict[str, int]]) -> dict[str, int]:
    """Of the own parts those that all variants have in this size; all of them, where there is none."""
    return {name: size for name, size in own.items() if all(one.get(name) == size for one in parts)} or own


def check_weights(recipe: Recipe, weights: npt.NDArray[np.floating[Any]]) -> Array32:
    """The vector as float32, if it is one of this recipe: of the whole model, private tensors included.

    Raises:
        WeightsUnfitError: Another length, or a value that is not finite.
        RecipeVariantError: The recipe has variants, and none was chosen.
    """
    return _checked(weights, recipe.own_parameters)


def check_shared(recipe: Recipe, weights: npt.NDArray[np.floating[Any]]) -> Array32:
    """The vector as float32, if it is the shared part of a model of this recipe: what travels.

    Raises:
        WeightsUnfitError: Another length, or a value that is not finite.
    """
    return _checked(weights, recipe.parameters)


def _checked(weights: npt.NDArray[np.floating[Any]], size: int) -> Array32:
    flat = np.ascontiguousarray(weights, dtype=np.float32)
    if flat.shape != (size,) or not np.isfinite(flat).all():
        wrong_shape = flat.shape != (size,)
        raise WeightsUnfitError(
            need=f"{size} finite values",
            found=f"shape {list(flat.shape)}" if wrong_shape else "values that are not finite",
            remedy="fetch the model again; compare its digest with the log's",
        )
    return flat


def split_weights(recipe: Recipe, weights: npt.NDArray[np.floating[Any]]) -> dict[str, Array32]:
    """Tensors by name, views of the flat vector.

    Raises:
        WeightsUnfitError: The vector does not fit the recipe.
    """
    return forward.split_weights(recipe, check_weights(recipe, weights))
