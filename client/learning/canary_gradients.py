# SPDX-License-Identifier: Apache-2.0
"""Made-up units whose gradient is one known direction, for the conformance audit.

- `Ported` is the recipe's model with one more linear layer beside it, the port, all zeros. A canary's frames
  have a one in one input of the port and a target at one of its outputs, and the mask takes everything else
  out. So its gradient is one coordinate of the port's weights and nothing else, under the real loss, and it
  goes through the real engine as any unit does: nothing is added to a sum from outside.
- Coordinates are orthonormal. Half of the port's are given to no canary: what is released there is noise.
- A canary's raw gradient is 3 to 300 times the clip norm, and it has one to four frames, some number up to
  K, or twice the K of the plan, all alike: clipping, averaging over frames and the bound on frames must all
  work for it to weigh one norm.
- The number of a canary stands in its first input, which the mask keeps out of the gradient: `Tap` stands
  between the steps and the engine and reads there who was drawn.
- `crowd` is for the sampler alone: units of strata of many sizes, which no engine sees (`NoEngine`).
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from client.learning.tensors import Frames

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.learning.engines import ClippedSum, UnitFrames

__all__ = ["CANARY_RAW", "Crowd", "NoEngine", "Port", "Ported", "Tap", "canaries", "crowd", "others"]

CANARY_RAW: Final = 3.0  # norm of the shortest gradient of a canary, in clip norms
_RAW: Final = (CANARY_RAW, 30.0, 300.0)
_SCALES: Final = (1.0, 100.0)
_LONG: Final = 8  # every so many canaries a long one: it is slow, and a few are enough to be seen
_LENGTHS: Final = 4
_STRATA: Final = ((1, 250), (2, 50), (3, 20), (5, 10), (10, 5), (20, 4), (50, 3))  # size, and how many
_LARGEST: Final = 4_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """Where canaries enter.

    Attributes:
        inputs: Inputs of the recipe's model, d.
        outputs: Its outputs, o.
        width: Inputs and outputs of the port.
        directions: Coordinates of the port that have canaries; the first ones, row by row.
    """

    inputs: int
    outputs: int
    width: int
    directions: int

    @classmethod
    def of(cls, *, inputs: int, outputs: int, directions: int) -> Port:
        """The smallest square port whose half holds the directions."""
        width = int(np.ceil(np.sqrt(2 * directions)))
        return cls(inputs=inputs, outputs=outputs, width=width, directions=directions)

    @property
    def size(self) -> int:
        """Coordinates of the port's weights."""
        return self.width * self.width


class Ported(nn.Module):
    """A model and the port beside it: ``[..., d + w] -> [..., o + w]``; the port's weights come last."""

    def __init__(self, model: nn.Module, port: Port) -> None:
        super().__init__()
        self.model = model
        self.port = nn.Linear(port.width, port.width, bias=False)
        nn.init.zeros_(self.port.weight)
        self._inputs = port.inputs

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        """Outputs of the model, then those of the port."""
        own, beside = inputs[..., : self._inputs], inputs[..., self._inputs :]
        return torch.cat([self.model(own), self.port(beside)], dim=-1)


def _frames(port: Port, name: str, length: int) -> Frames:
    columns = port.outputs + port.width
    return Frames(
        inputs=np.zeros((length, port.inputs + port.width), dtype=np.float32),
        targets=np.zeros((length, columns), dtype=np.float32),
        mask=np.zeros((length, columns), dtype=np.float32),
        unit_id=hashlib.sha256(name.encode()).digest(),
        stratum=name,
    )


def canaries(port: Port, *, count: int, clip: float, frames: int) -> list[Frames]:
    """``count`` canaries, shared out among the port's directions; each a stratum of its own.

    Args:
        port: The port.
        count: How many.
        clip: C of the plan.
        frames: K of the plan.
    """
    found = []
    for number in range(count):
        row, column = divmod(number % port.directions, port.width)
        length = _length(number, frames)
        one = _frames(port, f"canary {number}", length)
        weight = clip * _RAW[number % len(_RAW)] * (port.outputs + port.width) / 2
        one.inputs[:, 0] = number + 1
        one.inputs[:, port.inputs + column] = 1
        one.targets[:, port.outputs + row] = -weight
        one.mask[:, port.outputs + row] = 1
        found.append(one)
    return found


def _length(number: int, frames: int) -> int:
    """Frames of a canary: too many, some number up to K, or few."""
    if number % _LONG == 0:
        return 2 * frames
    return 1 + (5 * number // _LONG) % frames if number % _LONG == _LONG // 2 else 1 + number % _LENGTHS


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """Units that are only drawn.

    Attributes:
        units: In an order that has nothing to do with their strata.
        sizes: Units of the stratum of each.
        q: Probability of each.
    """

    units: list[Frames]
    sizes: npt.NDArray[np.intp]
    q: npt.NDArray[np.float64]


def crowd(*, sampling_prob: float, strata_target: float | None) -> Crowd:
    """Units in strata of 1 to 50, and with a target in one that is twice as large as it allows at q."""
    strata = [size for size, count in _STRATA for _ in range(count)]
    if strata_target is not None:
        strata.append(max(1, min(_LARGEST, math.ceil(2 * strata_target / sampling_prob))))
    named = [(size, f"stratum {number}") for number, size in enumerate(strata) for _ in range(size)]
    order = np.random.Generator(np.random.PCG64(0)).permutation(len(named))
    cells = [np.full((1, 1), number + 1, dtype=np.float32) for number in range(len(named))]
    empty = np.zeros((1, 1), dtype=np.float32)
    sizes = np.array([named[at][0] for at in order])
    target = np.inf if strata_target is None else strata_target
    return Crowd(
        units=[
            Frames(
                inputs=cell,
                targets=empty,
                mask=empty,
                unit_id=hashlib.sha256(f"drawn {at}".encode()).digest(),
                stratum=named[at][1],
            )
            for cell, at in zip(cells, order.tolist(), strict=True)
        ],
        sizes=sizes,
        q=np.minimum(sampling_prob, target / sizes),
    )


class NoEngine:
    """`ClippedSum` of a model of one weight that learns nothing."""

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        del units, clip
        return [torch.zeros(1, dtype=torch.float64)]


def others(port: Port, *, count: int, frames: int, rng: np.random.Generator) -> list[Frames]:
    """Units like recorded ones, every second of them far too large; they do not touch the port."""
    found = []
    for number in range(count):
        one = _frames(port, f"other {number}", 1 + number * (2 * frames - 1) // max(1, count - 1))
        scale = _SCALES[number % len(_SCALES)]
        length = len(one.inputs)
        one.inputs[:, : port.inputs] = scale * rng.standard_normal((length, port.inputs))
        one.inputs[:, 0] = -np.abs(one.inputs[:, 0])  # no number of a canary
        one.targets[:, : port.outputs] = scale * rng.standard_normal((length, port.outputs))
        one.mask[:, : port.outputs] = 1
        found.append(one)
    return found


class Tap:
    """`ClippedSum` that passes everything on and notes what it was given.

    Attributes:
        longest: Frames of the longest unit.
        clip: The largest bound that was asked for.
    """

    def __init__(self, engine: ClippedSum) -> None:
        self._engine = engine
        self._drawn: list[int] = []
        self.longest = 0
        self.clip = 0.0

    def __call__(self, units: Sequence[UnitFrames], clip: float) -> list[torch.Tensor]:
        """See `ClippedSum`."""
        self.clip = max(self.clip, clip)
        for unit in units:
            self.longest = max(self.longest, len(unit.inputs))
            number = round(float(unit.inputs[0, 0]))
            if number > 0:
                self._drawn.append(number - 1)
        return self._engine(units, clip)

    def take(self, among: int) -> npt.NDArray[np.intp]:
        """How often each of so many canaries was drawn since the last call."""
        drawn, self._drawn = np.array(self._drawn, dtype=np.intp), []
        return np.bincount(drawn, minlength=among)
