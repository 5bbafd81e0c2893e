# SPDX-License-Identifier: Apache-2.0
"""What the clipped sum costs: our engines, both Opacus modes and a plain gradient, in one run.

`run` times one step of each way on the same batch: forward, backward and, where there is one, the clipped
sum; neither noise (``noise_ms`` beside it) nor the optimiser's step, which are the same for all. The ways
take turns, and a figure is the median of the turns, in CPU milliseconds of one thread: what else the
machine does does not count.

- ``sgd``: gradient of the mean loss over all frames. It bounds nothing and is what privacy is compared
  with.
- ``opacus_hooks``: Opacus' ``GradSampleModule`` and ``DPOptimizer.clip_and_accumulate``, as its users run
  it.
- ``opacus_ghost``: Opacus' ghost clipping, with a loss per unit. (With a scalar loss, or ``nn.MSELoss`` on
  outputs that broadcast, it runs as well and clips nothing.) Its rule for Linear knows at most
  three axes and silently gives nothing beyond, so frames and tokens of a unit are one axis there.
- ``packed``, ``loop``: ours.

Before a row is timed, all sums are compared: a figure for another sum would be worth nothing.

Peak memory of a way is measured in a fresh child process (``python -m sandbox.bench_dp ROW WAY``): the
kernel's high-water mark of the process during one step, above its size after a step of one unit of one
frame, when libraries, model and batch are there. Null where the kernel has no such mark (it is read from
``/proc/self``).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
import warnings
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch

from client.entropy import SystemEntropy
from client.learning.engines import LoopEngine, PackedEngine, UnitFrames, frame_loss
from client.learning.noise import SecureNoise
from client.learning.registry import flatten
from sandbox.bench_models import CASES, Case, TokenTransformer
from sandbox.errors import CommandError, SandboxError
from sandbox.peak_memory import peak_mb

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from torch import nn

__all__ = ["WAYS", "run"]

Json = Any  # a JSON value

_CLIP: Final = 0.1
_AGREEMENT: Final = {"packed": 1e-5, "opacus_hooks": 1e-3, "opacus_ghost": 1e-3}  # Opacus adds 1e-6 to norms


# --- the ways ---


def _sgd(model: nn.Module, units: Sequence[UnitFrames]) -> Callable[[], list[torch.Tensor]]:
    inputs, targets, mask = (torch.cat(parts) for parts in _columns(units))

    def step() -> list[torch.Tensor]:
        model.zero_grad(set_to_none=True)
        torch.autograd.backward(frame_loss(model(inputs), targets, mask).mean())
        return [p.grad for p in model.parameters() if p.grad is not None]

    return step


def _hooks(model: nn.Module, units: Sequence[UnitFrames]) -> Callable[[], list[torch.Tensor]]:
    from opacus.grad_sample import GradSampleModule
    from opacus.optimizers import DPOptimizer

    hooked = GradSampleModule(model, batch_first=True, loss_reduction="sum")
    optimizer = DPOptimizer(
        torch.optim.SGD(hooked.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=_CLIP,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    inputs, targets, mask = (torch.stack(parts) for parts in _columns(units))

    def step() -> list[torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        torch.autograd.backward(frame_loss(hooked(inputs), targets, mask).mean(1).sum())
        optimizer.clip_and_accumulate()
        return [vars(p)["summed_grad"] for p in model.parameters()]

    return step


class _UnitLoss:
    """A criterion in Opacus' manner that is right for units: the mean over each unit's frames, ``[U]``."""

    reduction = "sum"

    def __call__(self, outputs: torch.Tensor, targets: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return frame_loss(outputs, targets, mask).mean(1)


def _ghost(model: nn.Module, units: Sequence[UnitFrames]) -> Callable[[], list[torch.Tensor]]:
    from opacus.grad_sample import GradSampleModuleFastGradientClipping
    from opacus.optimizers import DPOptimizerFastGradientClipping
    from opacus.utils.fast_gradient_clipping_utils import DPLossFastGradientClipping

    if isinstance(model, TokenTransformer):
        model.fold()
    hooked = GradSampleModuleFastGradientClipping(
        model, batch_first=True, loss_reduction="sum", max_grad_norm=_CLIP, use_ghost_clipping=True
    )
    optimizer = DPOptimizerFastGradientClipping(
        torch.optim.SGD(hooked.parameters(), lr=0.1),
        noise_multiplier=0.0,
        max_grad_norm=_CLIP,
        expected_batch_size=1,
        loss_reduction="sum",
    )
    loss = DPLossFastGradientClipping(hooked, optimizer, _UnitLoss(), loss_reduction="sum")
    inputs, targets, mask = (torch.stack(parts) for parts in _columns(units))

    def step() -> list[torch.Tensor]:
        optimizer.zero_grad(set_to_none=True)
        loss(hooked(inputs), targets, mask).backward()
        return [p.grad for p in model.parameters() if p.grad is not None]

    return step


def _packed(model: nn.Module, units: Sequence[UnitFrames]) -> Callable[[], list[torch.Tensor]]:
    engine = PackedEngine(model, frame_loss)
    return lambda: engine(units, _CLIP)


def _loop(model: nn.Module, units: Sequence[UnitFrames]) -> Callable[[], list[torch.Tensor]]:
    engine = LoopEngine(model, frame_loss)
    return lambda: engine(units, _CLIP)


WAYS: Final = {
    "sgd": _sgd,
    "opacus_hooks": _hooks,
    "opacus_ghost": _ghost,
    "packed": _packed,
    "loop": _loop,
}
"""Name of a way → function of model and units that gives its step."""


def _columns(units: Sequence[UnitFrames]) -> tuple[list[torch.Tensor], ...]:
    return [u.inputs for u in units], [u.targets for u in units], [u.mask for u in units]


# --- the figures ---


def run(*, repeats: int = 5, cases: Sequence[Case] = CASES, memory: bool = True) -> dict[str, Json]:
    """Figures of all ways.

    Args:
        repeats: Turns of each way after one that does not count.
        cases: The rows.
        memory: Whether peak memory is measured; it takes a process for each row and way.

    Returns:
        ``rows``, each with ``model``, ``parameters``, ``units``, ``frames``, ``{way}_ms``, ``{way}_mb``,
        ``noise_ms``, and ``ratios``: of ``packed`` to ``sgd`` and to both Opacus modes, of ``loop`` to
        ``sgd``, and ``memory`` of ``packed`` to Opacus' hooks.

    Raises:
        SandboxError: Two ways give different sums.
        CommandError: A child process failed.
    """
    torch.set_num_threads(1)
    with _quiet():
        rows = [_row(case, repeats=repeats, memory=memory) for case in cases]
    return {"rows": rows, "repeats": repeats, "threads": 1, "clip": _CLIP, "torch": torch.__version__}


@contextmanager
def _quiet() -> Iterator[None]:
    """Leaves out what torch says to Opacus' hooks on every pass of a model with an embedding."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Full backward hook is firing", UserWarning)
        yield


def _row(case: Case, *, repeats: int, memory: bool) -> dict[str, Json]:
    units = case.batch()
    steps = {name: way(case.model(), units) for name, way in WAYS.items()}
    _compare(case, {name: step() for name, step in steps.items()})
    took: dict[str, list[float]] = {name: [] for name in (*WAYS, "noise")}
    size = sum(p.numel() for p in case.model().parameters())
    noise = SecureNoise(SystemEntropy())
    for _ in range(repeats):
        for name, step in steps.items():
            took[name].append(_cpu_ms(step))
        took["noise"].append(_cpu_ms(lambda: noise.gaussian(1.0, size)))
    ms = {name: round(statistics.median(turns), 2) for name, turns in took.items()}
    mb = {name: _child(case, name) if memory else None for name in WAYS}
    return {
        "model": case.name,
        "parameters": size,
        "units": case.units,
        "frames": case.frames,
        **{f"{name}_ms": ms[name] for name in took},
        **{f"{name}_mb": mb[name] for name in WAYS},
        "ratios": {
            "packed_to_sgd": _ratio(ms["packed"], ms["sgd"]),
            "packed_to_opacus_hooks": _ratio(ms["packed"], ms["opacus_hooks"]),
            "packed_to_opacus_ghost": _ratio(ms["packed"], ms["opacus_ghost"]),
            "loop_to_sgd": _ratio(ms["loop"], ms["sgd"]),
            "memory_to_opacus_hooks": _ratio(mb["packed"], mb["opacus_hooks"]),
        },
    }


def _compare(case: Case, sums: dict[str, list[torch.Tensor]]) -> None:
    expected = flatten(sums["loop"])
    for name, most in _AGREEMENT.items():
        off = float(np.linalg.norm(flatten(sums[name]) - expected) / np.linalg.norm(expected))
        if not off <= most:
            raise SandboxError(
                need=f"{case.name}: the same sum from {name} and the loop, to {most:g}",
                found=f"{off:.2g}",
                remedy="report this: the figures would compare different things",
            )


def _cpu_ms(step: Callable[[], object]) -> float:
    began_s = time.process_time()
    step()
    return (time.process_time() - began_s) * 1e3


def _ratio(left: float | None, right: float | None) -> float | None:
    return None if left is None or not right else round(left / right, 2)


# --- peak memory, in a process of its own ---


def _child(case: Case, way: str) -> float | None:
    command = [sys.executable, "-m", "sandbox.bench_dp", case.name, way]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own module
    if done.returncode:
        raise CommandError(
            need=f"peak memory of {way} in {case.name}",
            found=done.stderr.strip()[-300:],
            remedy="run the command of the module docstring by hand",
        )
    found: float | None = json.loads(done.stdout)
    return found


def _peak_mb(case: Case, way: str) -> float | None:
    """Megabytes that one step of a way needs above what is there before it."""
    torch.set_num_threads(1)
    units, small = case.batch(), replace(case, units=1, frames=1)
    with _quiet():
        WAYS[way](case.model(), small.batch())()
        return peak_mb(WAYS[way](case.model(), units))


def _main(row: str, way: str) -> None:
    case = next(one for one in CASES if one.name == row)
    sys.stdout.write(json.dumps(_peak_mb(case, way)))


if __name__ == "__main__":
    _main(*sys.argv[1:])
