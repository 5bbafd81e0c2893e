# SPDX-License-Identifier: Apache-2.0
"""The canaries of a run as units beside this node's own: those whose coin says that they are trained on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np

from client.learning.tensors import Frames
from policies.canary_units import canary

if TYPE_CHECKING:
    from policies.privacy.canaries import CanarySecret
    from policies.recipe import Recipe

__all__ = ["canary_units"]

_STRATUM: Final = "canary"  # no task of a robot; where strata have a target, canaries are one of their own


def canary_units(recipe: Recipe, secret: CanarySecret | None) -> list[Frames]:
    """Units to train on beside the node's own; none without a secret."""
    return [] if secret is None else [_unit(recipe, secret, number) for number in secret.trained]


def _unit(recipe: Recipe, secret: CanarySecret, number: int) -> Frames:
    inputs, targets = canary(recipe, secret, number)
    return Frames(
        inputs=inputs,
        targets=targets,
        mask=np.ones_like(targets),
        unit_id=secret.unit_id(number),
        stratum=_STRATUM,
    )
