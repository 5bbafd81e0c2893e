# SPDX-License-Identifier: Apache-2.0
"""A site's adapter as two affine maps, so that an individual package speaks the controller's own language.

    ends = ends_of(adapter, recipe)
    store = controller @ ends.observation + ends.observation_shift       # [n] → [n]
    controller = store @ ends.action + ends.action_shift                 # [a] → [a]

Both ends are mapped, not the output alone: what goes in is then what the controller sends, what comes out is
what it takes, and a recording of both passes the same import as every other recording of the site.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from policies.encoding import canonical, digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from client.data.embodiment import Adapter
    from policies.recipe import Recipe

__all__ = ["Ends", "ends_of", "interval"]

Array64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ends:
    """Affine maps around a model; see the module.

    Attributes:
        observation: ``[n, n]``, from controller to store.
        observation_shift: ``[n]``.
        action: ``[a, a]``, from store to controller.
        action_shift: ``[a]``.
        adapter: Canonical bytes of the adapter.
    """

    observation: Array64
    observation_shift: Array64
    action: Array64
    action_shift: Array64
    adapter: bytes

    @property
    def digest(self) -> str:
        """Of the adapter."""
        return digest(self.adapter)


def ends_of(adapter: Adapter | None, recipe: Recipe) -> Ends | None:
    """The maps of an adapter for a recipe's fields; None where nothing changes."""
    if adapter is None:
        return None
    inputs = [
        _affine(lambda x, name=one.field: adapter.to_store(x, name, "observation"), one.size)  # type: ignore[misc]
        for one in recipe.inputs
    ]
    outputs = [
        _affine(lambda x, name=one.field: adapter.to_controller(x, name, "action"), one.size)  # type: ignore[misc]
        for one in recipe.outputs
    ]
    observation, action = _together(inputs), _together(outputs)
    if _changes_nothing(*observation) and _changes_nothing(*action):
        return None
    return Ends(
        observation=observation[0],
        observation_shift=observation[1],
        action=action[0],
        action_shift=action[1],
        adapter=canonical(adapter.model_dump()),
    )


def _changes_nothing(matrix: Array64, shift: Array64) -> bool:
    return np.array_equal(matrix, np.eye(len(matrix))) and not shift.any()


def _affine(function: Callable[[Array64], Array64], size: int) -> tuple[Array64, Array64]:
    """Matrix and shift of a function that is affine in each row."""
    shift = function(np.zeros((1, size)))[0]
    return function(np.eye(size)) - shift, shift


def _together(parts: list[tuple[Array64, Array64]]) -> tuple[Array64, Array64]:
    """Parts side by side."""
    size = sum(len(shift) for _, shift in parts)
    matrix, at = np.zeros((size, size)), 0
    for one, shift in parts:
        matrix[at : at + len(shift), at : at + len(shift)] = one
        at += len(shift)
    return matrix, np.concatenate([shift for _, shift in parts]) if parts else np.zeros(0)


def interval(low: Array64, high: Array64, matrix: Array64, shift: Array64) -> tuple[Array64, Array64]:
    """The smallest interval that holds all images ``x @ matrix + shift`` of an interval."""
    plus, minus = np.maximum(matrix, 0), np.minimum(matrix, 0)
    return low @ plus + high @ minus + shift, high @ plus + low @ minus + shift
