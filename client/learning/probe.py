# SPDX-License-Identifier: Apache-2.0
"""The probe before budget is reserved: a model's units must be independent, and the clip must hold.

Everything here is seen on synthetic frames; no private data are read. In this order, each refusal
naming the leaf or the cause, and a replacement:

1. Structure (`check_structure`): no batch statistics, no buffer, every trainable layer has a rule in the
   engine that will run, no parameter is shared or frozen.
2. The loss (`check_loss`): one value per frame, and a frame's value depends on that frame alone.
3. Behaviour (`check_behaviour`): every parameter has a part in the loss; a pass changes no parameter and
   leaves no buffer; the same units give the same sum again; outputs depend on no other unit's frames (the
   loop never shows any); a unit alone adds what it adds in a batch; the engine agrees with the loop;
   frames repeated change nothing; removing a unit at `_SCALE` times its size moves the sum by at most C,
   also among `_CROWD` units whose huge frames cancel: what rounding leaves of those must not depend on
   the company.

An optimiser is checked where there is one (`check_optimiser`): it must hold exactly what is clipped and
noised.
"""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Final

import numpy as np
import torch
from torch import nn

from client.learning.engines import ENGINES, UnitFrames, choose_engine, frame_loss
from client.learning.engines.protocol import losses_of
from client.learning.engines.rules import RULES, misfit
from client.learning.losses import loss_of
from client.learning.registry import build, flatten
from policies.errors import invariant
from policies.privacy.errors import ModelRefusedError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt

    from client.learning.engines import ClippedSum, Clipping, FrameLoss
    from policies.recipe import Recipe

__all__ = ["check_behaviour", "check_loss", "check_optimiser", "check_structure", "probe", "probe_model"]

_LAYERS: Final = frozenset({*RULES, nn.GroupNorm, nn.Conv1d, nn.Conv2d})  # what the other engines may meet
_SCALE: Final = 100.0
_CROWD: Final = 24
_CANCELLING: Final = (1e3, 1e6)  # times their size
_SAME: Final = 1e-5  # of C: what a unit alone and in company may differ by
_REPEATS: Final = 7
_AGREEMENT: Final = 1e-3
_CLIP: Final = 1.0
_LENGTHS: Final = (1, 3, 8)
_NORMS: Final = "LayerNorm or GroupNorm, which look at one frame"


def probe(recipe: Recipe) -> None:
    """Passes the model of a private recipe with the engine that its plan leads to.

    Raises:
        ModelRefusedError: See the module.
    """
    plan = recipe.plan
    invariant(plan is not None, "a probe of a recipe with a plan")
    if plan is not None:
        probe_model(
            build(recipe),
            _synthetic(recipe, plan.frames_per_unit),
            loss=loss_of(recipe),
            frames_per_unit=plan.frames_per_unit,
            clipping=plan.clipping,
        )


def probe_model(
    model: nn.Module,
    units: Sequence[UnitFrames],
    *,
    loss: FrameLoss = frame_loss,
    frames_per_unit: int = 32,
    clipping: Clipping = "flat",
    engine: str | None = None,
) -> str:
    """Passes a model and its loss, or refuses them.

    Args:
        model: Stays as it is; a copy is tried.
        units: Synthetic, at least two, of different lengths.
        loss: Loss per frame.
        frames_per_unit: K of the plan.
        clipping: Of the plan.
        engine: Name of an engine; left out, the one that `choose_engine` takes.

    Returns:
        Name of the engine that was probed.

    Raises:
        ModelRefusedError: See the module.
    """
    trial = copy.deepcopy(model)
    for module in trial.modules():
        if isinstance(module, nn.modules.dropout._DropoutNd):  # noqa: SLF001  the one name for all of them
            module.eval()
    check_structure(trial, engine=engine or "opacus-hooks")
    engine = engine or choose_engine(trial, loss, frames_per_unit, clipping=clipping).name
    check_loss(loss, units)
    check_behaviour(trial, units, loss=loss, clipping=clipping, engine=engine)
    return engine


def check_structure(model: nn.Module, *, engine: str = "packed") -> None:
    """Refuses batch statistics, buffers, layers without a rule, shared and frozen parameters.

    Raises:
        ModelRefusedError: Naming the leaf.
    """
    for name, module in model.named_modules():
        if isinstance(module, nn.modules.batchnorm._NormBase):  # noqa: SLF001  batch and instance norms, all of them
            raise _refusal(name or "the model", f"{type(module).__name__}: statistics of a batch", _NORMS)
    for name, _ in model.named_buffers():
        raise _refusal(name, "a buffer, which carries state from unit to unit", "a constant of the recipe")
    seen: set[int] = set()
    for name, module in model.named_modules():
        own = list(module.named_parameters(recurse=False))
        reason = _without_rule(module, engine) if own else None
        if reason is not None:
            raise _refusal(name or "the model", *reason)
        for leaf, parameter in own:
            if id(parameter) in seen:
                raise _refusal(f"{name}.{leaf}", "a parameter that another layer has too", "untied weights")
            if not parameter.requires_grad:
                raise _refusal(f"{name}.{leaf}", "a frozen parameter", "its layer's outputs as inputs")
            seen.add(id(parameter))


def check_loss(loss: FrameLoss, units: Sequence[UnitFrames]) -> None:
    """Refuses a loss that is not one value per frame, or in which frames depend on each other.

    Raises:
        ModelRefusedError: Naming the loss.
    """
    targets, mask = (torch.cat([getattr(u, part) for u in units]) for part in ("targets", "mask"))
    outputs = targets + 1.0
    whole = losses_of(loss, outputs, targets, mask)
    alone = torch.cat([losses_of(loss, u.targets + 1.0, u.targets, u.mask) for u in units])
    if not torch.allclose(whole, alone, rtol=_AGREEMENT, atol=0.0):
        raise ModelRefusedError(
            need="the loss: each frame's value from that frame alone",
            found="a value that depends on the other frames, such as a mean over the batch",
            remedy="return the loss of each frame; the engine takes the mean over a unit's own frames",
        )


def check_behaviour(
    model: nn.Module,
    units: Sequence[UnitFrames],
    *,
    loss: FrameLoss = frame_loss,
    clipping: Clipping = "flat",
    engine: str = "packed",
) -> None:
    """Refuses a model whose sums are not what the plan's accounting takes them for.

    Raises:
        ModelRefusedError: Naming the cause, or the leaf that no gradient reaches.
    """
    loop = ENGINES["loop"](copy.deepcopy(model), loss, clipping=clipping)
    tried = ENGINES[engine](model, loss, clipping=clipping)
    before = copy.deepcopy(model.state_dict())
    whole = flatten(tried(units, _CLIP))
    for name, value in model.state_dict().items():
        if name not in before or not torch.equal(before[name], value):
            raise _refusal(name, "a value that a forward pass changes", "a layer without state")

    def differs(other: npt.NDArray[np.float64]) -> bool:
        return not float(np.linalg.norm(whole - other)) <= _AGREEMENT * float(np.linalg.norm(whole))

    if differs(flatten(tried(units, _CLIP))):
        raise _cause("another sum for the same units: state or chance in a forward pass")
    alone = np.sum([flatten(tried([unit], _CLIP)) for unit in units], axis=0)
    if (engine != "loop" and _reads_others(model, units)) or differs(alone):
        raise _cause("a unit whose gradient depends on another unit")
    if differs(flatten(loop(units, _CLIP))):
        raise _cause(
            f"the {engine} engine and the loop disagree: something crosses frames or bypasses a layer"
        )
    if differs(flatten(tried([_changed(unit, repeats=_REPEATS) for unit in units], _CLIP))):
        raise _cause("a sum that repeated frames change: a unit's loss is no mean over its frames")
    _check_bound(tried, units)


def _check_bound(engine: ClippedSum, units: Sequence[UnitFrames]) -> None:
    huge = [_changed(unit, scale=_SCALE) for unit in units]
    if not all(moved <= _CLIP for moved in _moves(engine, huge)):
        raise _cause("a unit that moves the sum by more than the clip norm")
    if not all(_alike_in_company(engine, units, scale) for scale in _CANCELLING):
        raise ModelRefusedError(
            need="the engine: what rounding leaves of a unit whose frames cancel, the same in any company",
            found=f"another remainder beside other units, {type(engine).__name__}",
            remedy="an engine that computes each unit alone, such as the loop; report this",
        )


def check_optimiser(model: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """Refuses an optimiser that does not hold exactly the model's trainable parameters.

    Raises:
        ModelRefusedError: Naming a parameter that it lacks or has too much.
    """
    held = {id(p): p for group in optimiser.param_groups for p in group["params"]}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and held.pop(id(parameter), None) is None:
            raise _refusal(name, "a trainable parameter outside the optimiser", "model.parameters()")
    for parameter in held.values():
        shape = list(parameter.shape)
        raise _refusal("the optimiser", f"a parameter {shape} that the model does not train", "no other one")


def _without_rule(module: nn.Module, engine: str) -> tuple[str, str] | None:
    if engine == "packed" or type(module) not in _LAYERS:
        return misfit(module)
    return None


def _refusal(leaf: str, found: str, remedy: str) -> ModelRefusedError:
    return ModelRefusedError(need=f"{leaf}: independent units", found=found, remedy=remedy)


def _cause(found: str) -> ModelRefusedError:
    remedy = "nothing across the first axis: no mean over frames or units, no centring; LayerNorm instead"
    return _refusal("the model", found, remedy)


def _changed(unit: UnitFrames, *, scale: float = 1.0, repeats: int = 1) -> UnitFrames:
    def repeated(values: torch.Tensor) -> torch.Tensor:
        return values.repeat(repeats, *[1] * (values.dim() - 1))

    inputs = unit.inputs * scale if unit.inputs.is_floating_point() else unit.inputs  # indices stay
    return UnitFrames(repeated(inputs), repeated(unit.targets * scale), repeated(unit.mask))


def _moves(engine: ClippedSum, units: list[UnitFrames]) -> Iterator[float]:
    """By how much the sum moves as each unit is taken out."""
    whole = flatten(engine(units, _CLIP))
    for out in range(len(units)):
        yield float(np.linalg.norm(whole - flatten(engine(units[:out] + units[out + 1 :], _CLIP))))


def _reads_others(model: nn.Module, units: Sequence[UnitFrames]) -> bool:
    """Whether outputs of frames side by side are others than those of a unit's own."""
    with torch.no_grad():
        whole = model(torch.cat([unit.inputs for unit in units]))
        alone = torch.cat([model(unit.inputs) for unit in units])
    return not torch.allclose(whole, alone, rtol=_AGREEMENT, atol=_AGREEMENT * float(alone.abs().mean()))


def _alike_in_company(engine: ClippedSum, units: Sequence[UnitFrames], scale: float) -> bool:
    """Whether units of frames that cancel add the same in any company, and none moves the others.

    Many of one kind: were its rounding to change, it would change alike in all of them.
    """
    short = units[0]
    for unit in units:
        kind = _cancelling(unit, scale)
        one, many = flatten(engine([kind], _CLIP)), [kind] * _CROWD
        whole = flatten(engine(many, _CLIP))
        if not float(np.linalg.norm(whole - _CROWD * one)) <= _CROWD * _SAME * _CLIP:
            return False
        for other in (short, _joined(kind, short)):  # of another length, and of nearly the same
            if not float(np.linalg.norm(flatten(engine([other, *many], _CLIP)) - whole)) <= _CLIP:
                return False
    return True


def _joined(left: UnitFrames, right: UnitFrames) -> UnitFrames:
    return UnitFrames(
        torch.cat([left.inputs, right.inputs]),
        torch.cat([left.targets, right.targets]),
        torch.cat([left.mask, right.mask]),
    )


def _cancelling(unit: UnitFrames, scale: float) -> UnitFrames:
    """Each frame once with a huge target and once with its opposite."""
    twice = _changed(unit, repeats=2)
    signs = torch.ones(len(twice.inputs)).reshape(-1, *[1] * (unit.targets.dim() - 1))
    signs[len(unit.inputs) :] = -1
    return UnitFrames(twice.inputs, twice.targets * signs * scale, twice.mask)


def _synthetic(recipe: Recipe, longest: int) -> list[UnitFrames]:
    rng = np.random.Generator(np.random.PCG64(0))  # nothing here is private
    outputs = recipe.target_size

    def draw(rows: int, columns: int) -> torch.Tensor:
        return torch.from_numpy(rng.standard_normal((rows, columns)).astype(np.float32))

    return [
        UnitFrames(draw(count, recipe.input_size), draw(count, outputs), torch.ones(count, outputs))
        for count in (*_LENGTHS, longest)
    ]
