# SPDX-License-Identifier: Apache-2.0
"""Frames of all units side by side, without padding, and the way back from frames to units.

- Units lie in the order of their lengths, each unit's frames together: ``inputs [N, ...]``, N the frames
  of all.
- A `Band` is a run of units of about the same length. Products within a unit are taken per band, of units
  padded to its longest, so that a call with lengths 1 to 400 neither loops over units nor pads them all to
  400.

    packing = Packing.of(units)
    packing.sums(values)                      # [N, ..., p] -> sums per unit, [U, p] float64
    [band.blocks(values) for band in packing.bands]   # [N, ..., p] -> [units, frames * axes, p]
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import torch

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.learning.engines.protocol import UnitFrames

__all__ = ["Band", "Packing"]

_STRETCH: Final = 1.25  # longest to shortest unit of a band; squared it bounds the waste in a Gram matrix


@dataclass(frozen=True, slots=True, kw_only=True)
class Band:
    """Units ``first .. first + units`` whose frames are the rows ``start .. stop``.

    Attributes:
        frames: Of the longest unit.
        places: Where each row lies among ``units * frames`` padded ones; None if all units are equally
            long.
    """

    first: int
    units: int
    start: int
    stop: int
    frames: int
    places: torch.Tensor | None

    def blocks(self, values: torch.Tensor) -> torch.Tensor:
        """Rows of each unit, ``[N, ..., p] -> [units, frames * axes, p]``; zeros behind a shorter unit."""
        rows = values[self.start : self.stop]
        if self.places is not None:
            padded = rows.new_zeros(self.units * self.frames, *rows.shape[1:])
            rows = padded.index_copy_(0, self.places, rows)
        return rows.reshape(self.units, -1, values.shape[-1])


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """All units of a call.

    Attributes:
        inputs: ``[N, ...]``.
        targets: ``[N, o]``.
        mask: ``[N, o]``.
        share: Each frame's share of its unit's mean, ``[N]``.
        unit_of: Unit of each row, ``[N]``.
        bounds: First row of each unit, and N.
        bands: Together all units, in order.
    """

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor
    share: torch.Tensor
    unit_of: torch.Tensor
    bounds: tuple[int, ...]
    bands: tuple[Band, ...]

    @classmethod
    def of(cls, units: Sequence[UnitFrames]) -> Packing:
        """Packs at least one unit."""
        ordered = sorted(units, key=lambda unit: len(unit.inputs))
        counts = torch.tensor([len(unit.inputs) for unit in ordered])
        return cls(
            inputs=torch.cat([unit.inputs for unit in ordered]),
            targets=torch.cat([unit.targets for unit in ordered]),
            mask=torch.cat([unit.mask for unit in ordered]),
            share=(1 / counts).repeat_interleave(counts),
            unit_of=torch.arange(len(ordered)).repeat_interleave(counts),
            bounds=(0, *counts.cumsum(0).tolist()),
            bands=_bands(counts),
        )

    def sums(self, values: torch.Tensor) -> torch.Tensor:
        """Sum over each unit's rows, ``[N, ..., p] -> [U, p]``, in the values' arithmetic; float64."""
        return torch.cat([band.blocks(values).sum(1) for band in self.bands]).double()

    def rows(self, unit: int) -> slice:
        """Rows of one unit."""
        return slice(self.bounds[unit], self.bounds[unit + 1])


def _bands(counts: torch.Tensor) -> tuple[Band, ...]:
    lengths: list[int] = counts.tolist()
    bands, first, start = [], 0, 0
    while first < len(lengths):
        last = first
        while last + 1 < len(lengths) and lengths[last + 1] <= _STRETCH * lengths[first]:
            last += 1
        inside = counts[first : last + 1]
        stop = start + int(inside.sum())
        bands.append(
            Band(
                first=first,
                units=len(inside),
                start=start,
                stop=stop,
                frames=lengths[last],
                places=None if lengths[first] == lengths[last] else _places(inside),
            )
        )
        first, start = last + 1, stop
    return tuple(bands)


def _places(counts: torch.Tensor) -> torch.Tensor:
    """Row ``frame`` of unit ``u`` goes to ``u * longest + frame``."""
    begins = counts.cumsum(0) - counts
    shift = torch.arange(len(counts)) * int(counts[-1]) - begins
    return torch.arange(int(counts.sum())) + shift.repeat_interleave(counts)
