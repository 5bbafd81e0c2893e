# SPDX-License-Identifier: Apache-2.0
"""One step of private training, in this order and no other.

1. The plan's sampler draws units, each on its own, with at most probability q.
2. At most K frames of each, without replacement.
3. The loss of a unit is the mean over its own frames.
4. Each unit's gradient is clipped.
5. Sum.
6. Noise N(0, (sigma C)^2) in float64, or this node's share of it.
7. Division by the public normaliser; or, for a share of the noise in a sum that nobody can take apart,
   rounding to that sum's grid, which has the normaliser in it (`PrivateSteps.summand`).
8. The step is counted, also when no unit was drawn: an empty draw is noise like any other.

A large draw is summed in parts of `_UNITS_AT_ONCE` units before noise is added; nothing is left out.
The caller has spent the budget of the step, durably, before it calls
(`client.privacy.store.BudgetStore.touch`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from client.learning.engines import ClippedSum, UnitFrames
from client.learning.registry import flatten
from policies.privacy.errors import RngRefusedError
from policies.privacy.receipts import ENGINES
from policies.privacy.sampling import sampler, unit_manifest
from policies.privacy.shares import on_grid

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.learning.noise import NoiseSource
    from client.learning.tensors import Frames
    from policies.privacy.plan import DpPlan

__all__ = ["PrivateSteps"]

Array32 = npt.NDArray[np.float32]
Array64 = npt.NDArray[np.float64]
_UNITS_AT_ONCE: Final = 128  # bounds memory; past some thousand frames a larger batch is no faster


class PrivateSteps:
    """Noisy gradient steps of one run on one node.

    Args:
        plan: The frozen plan; sampler and noise follow from it.
        frames: All training units of the run; the set is frozen here.
        engine: Bound to the model whose weights the caller sets before each step.
        parameters: Length of the flat vector.
        noise: Generators of the run.

    Raises:
        RngRefusedError: Predictable noise under a plan that is not ``test_only``.
        UnitRefusedError: A unit occurs twice, or has no identifier.
    """

    def __init__(
        self,
        *,
        plan: DpPlan,
        frames: Sequence[Frames],
        engine: ClippedSum,
        parameters: int,
        noise: NoiseSource,
    ) -> None:
        if noise.predictable and not plan.test_only:
            raise RngRefusedError(
                need="noise that nobody can predict or repeat",
                found="a seeded source under a plan that is not test_only",
                remedy="leave the seed out; or set test_only, and the result is NOT PRIVATE",
            )
        self.manifest = unit_manifest(unit.unit_id for unit in frames)
        self._plan = plan
        self._units = [
            UnitFrames(torch.from_numpy(u.inputs), torch.from_numpy(u.targets), torch.from_numpy(u.mask))
            for u in frames
        ]
        self._engine = engine
        self._parameters = parameters
        self._noise = noise
        self._sampler = sampler(plan, [unit.stratum for unit in frames], noise.choice)

    @property
    def engine(self) -> str:
        """Name of the engine in step receipts."""
        return ENGINES.get(type(self._engine).__name__, "unknown")

    def gradient(self) -> Array32:
        """The next step's noisy mean gradient, ``[P] float32``.

        Raises:
            BudgetExhaustedError: The plan has no step left.
            RngRefusedError: Called in a forked child.
        """
        return (self._noised_sum() / float(self._plan.normalizer)).astype(np.float32)

    def summand(self, grid_step: float) -> npt.NDArray[np.int64]:
        """The next step's clipped sum with its share of the noise, rounded once to a grid: ``[P] int64``.

        Args:
            grid_step: One step of the grid, in units of the clipped sum.

        Raises:
            BudgetExhaustedError: The plan has no step left.
            RngRefusedError: Called in a forked child.
            SharesUnfitError: A value has no place in 62 bits.
        """
        return on_grid(self._noised_sum(), grid_step=grid_step)

    def _noised_sum(self) -> Array64:
        """Steps 1 to 6."""
        plan = self._plan
        choice = self._noise.choice
        drawn = [self._choose(self._units[index], choice) for index in self._sampler.draw()]
        total = np.zeros(self._parameters)
        for start in range(0, len(drawn), _UNITS_AT_ONCE):
            total += flatten(self._engine(drawn[start : start + _UNITS_AT_ONCE], float(plan.clip_norm)))
        total += self._noise.gaussian(plan.added_std, self._parameters)
        return total

    def _choose(self, unit: UnitFrames, choice: np.random.Generator) -> UnitFrames:
        count = len(unit.inputs)
        if count <= self._plan.frames_per_unit:
            return unit
        rows = torch.from_numpy(choice.permutation(count)[: self._plan.frames_per_unit])
        return UnitFrames(unit.inputs[rows], unit.targets[rows], unit.mask[rows])
