# SPDX-License-Identifier: Apache-2.0
"""The probe before budget is reserved: the model's units must be independent, and the clip must hold.

Checked, each refusal naming the leaf: 1. no buffers; 2. only layers with a per-unit rule; 3. no shared or
frozen parameter;
4. on synthetic frames: a unit alone has the gradient that it has in a batch, removing a unit at 100 times the
scale moves the sum by at most C, and the engine agrees with the loop.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from client.learning.engines import LoopEngine, OpacusHooksEngine, UnitFrames, frame_loss
from client.learning.registry import build, flatten
from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from policies.recipe import Recipe

__all__ = ["check_structure", "probe"]

_LAYERS: Final = (nn.Linear, nn.LayerNorm, nn.GroupNorm, nn.Embedding, nn.Conv1d, nn.RMSNorm)
_SCALE: Final = 100.0
_AGREEMENT: Final = 1e-3
_CLIP: Final = 1.0
_FRAMES: Final = (3, 5, 8)


def _refuse(leaf: str, found: str) -> ModelRefusedError:
    return ModelRefusedError(
        need=f"{leaf}: a layer whose units are independent",
        found=found,
        remedy="Linear, LayerNorm or GroupNorm; no running statistics, no tied or frozen weights",
    )


def check_structure(model: nn.Module) -> None:
    """Refuses buffers, layers without a rule, shared and frozen parameters.

    Raises:
        ModelRefusedError: Naming the leaf.
    """
    for name, _ in model.named_buffers():
        raise _refuse(name, "a buffer, which carries state from unit to unit")
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = list(module.named_parameters(recurse=False))
        if own and not isinstance(module, _LAYERS):
            raise _refuse(name or type(module).__name__, f"{type(module).__name__}, which has no rule")
        for leaf, parameter in own:
            if id(parameter) in seen or not parameter.requires_grad:
                raise _refuse(f"{name}.{leaf}", "a shared or frozen parameter")
            seen.add(id(parameter))


def check_independence(model: nn.Module, units: list[UnitFrames]) -> None:
    """Refuses a model that mixes units, on synthetic frames.

    Raises:
        ModelRefusedError: The gradient of a unit depends on another, or the clip does not bound it.
    """
    loop, engine = (
        LoopEngine(copy.deepcopy(model), frame_loss),
        OpacusHooksEngine(model, frame_loss),
    )  # hooks stay with the engine's own
    whole = flatten(engine(units, _CLIP))
    alone = sum(flatten(engine([unit], _CLIP)) for unit in units)
    if not np.allclose(whole, alone, atol=_AGREEMENT) or not np.allclose(
        whole, flatten(loop(units, _CLIP)), atol=_AGREEMENT
    ):
        raise _refuse("the model", "a unit whose gradient depends on another unit")
    huge = [UnitFrames(u.inputs * _SCALE, u.targets * _SCALE, u.mask) for u in units]
    moved = flatten(engine(huge, _CLIP)) - flatten(engine(huge[1:], _CLIP))
    if float(np.linalg.norm(moved)) > _CLIP:
        raise _refuse("the model", "a unit that moves the sum by more than the clip norm")


def probe(recipe: Recipe) -> None:
    """Passes the recipe's model, or refuses it.

    Raises:
        ModelRefusedError: See the module.
    """
    model = build(recipe)
    check_structure(model)
    rng = np.random.Generator(np.random.PCG64(0))  # synthetic frames: nothing here is private
    chunk = recipe.architecture.args.chunk * recipe.output_size

    def draw(rows: int, columns: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((rows, columns)).astype(np.float32))

    units = [
        UnitFrames(draw(count, recipe.input_size), draw(count, chunk), torch.ones(count, chunk))
        for count in _FRAMES
    ]
    check_independence(model, units)
