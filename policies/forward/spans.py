# SPDX-License-Identifier: Apache-2.0
"""The flat vector of a model and its two parts: the shared tensors travel, the private ones never leave.

The whole vector has the tensors in the order of `Recipe.tensors`; the shared one has the shared tensors in
that order, which is the wire order, and the private one the others. Without variants all is shared.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from policies.errors import invariant

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.recipe import Recipe, TensorSpec

__all__ = ["joined", "private_of", "shared_of", "split_weights", "with_shared"]

Array32 = npt.NDArray[np.float32]
AnyArray = npt.NDArray[np.floating[Any]]


def _spans(recipe: Recipe) -> Iterator[tuple[TensorSpec, slice]]:
    start = 0
    for spec in recipe.tensors:
        yield spec, slice(start, start + spec.size)
        start += spec.size


def split_weights(recipe: Recipe, flat: Array32) -> dict[str, Array32]:
    """Tensors by name, views of the whole flat vector, which the caller has checked."""
    return {spec.name: flat[span].reshape(tuple(spec.shape)) for spec, span in _spans(recipe)}


def shared_of(recipe: Recipe, own: AnyArray) -> AnyArray:
    """The shared part of a whole vector: all that may travel."""
    return _picked(recipe, own, shared=True)


def private_of(recipe: Recipe, own: AnyArray) -> AnyArray:
    """The private part of a whole vector; empty without variants."""
    return _picked(recipe, own, shared=False)


def joined(recipe: Recipe, shared: AnyArray, private: AnyArray) -> AnyArray:
    """The whole vector of its two parts."""
    invariant(len(shared) == recipe.parameters, "the shared part of the recipe")
    invariant(len(shared) + len(private) == recipe.own_parameters, "the private part of the variant")
    own = np.empty(recipe.own_parameters, dtype=np.result_type(shared, private))
    places = {True: 0, False: 0}
    parts = {True: shared, False: private}
    for spec, span in _spans(recipe):
        start = places[spec.is_shared]
        own[span] = parts[spec.is_shared][start : start + spec.size]
        places[spec.is_shared] = start + spec.size
    return own


def with_shared(recipe: Recipe, own: AnyArray, shared: AnyArray) -> AnyArray:
    """A whole vector with another shared part."""
    return joined(recipe, shared, private_of(recipe, own))


def _picked(recipe: Recipe, own: AnyArray, *, shared: bool) -> AnyArray:
    invariant(len(own) == recipe.own_parameters, "the whole vector of the recipe")
    parts = [own[span] for spec, span in _spans(recipe) if spec.is_shared == shared]
    return np.concatenate(parts) if parts else own[:0]
