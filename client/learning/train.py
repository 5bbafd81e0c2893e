# SPDX-License-Identifier: Apache-2.0
"""What a node computes in a round, and what it trains for itself.

    trainer = Trainer(recipe, episodes, entropy)            # once per run; imports torch: takes seconds
    update = trainer.update(weights, round_number, attempt) # [P] float32

- With a plan the update is a noisy mean gradient; the server descends it. Without one it is the difference of
  weights after the recipe's local steps. Nothing else is returned: no loss, no count, no norm.
- With noise shares the update is whole numbers on the grid of the sum that it goes into, and only that: a
  share protects nothing by itself, so it is never made as a mean gradient.
- Local steps under a recipe with ``proximal`` (FedProx) also descend ``mu / 2 * norm(w - w_round)^2``.
- A round and attempt is trained once. A retry of the same attempt is answered from the outbox, never by
  training again.
- `fine_tune` and `local_baseline` stay on the site.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import torch

from client.learning.engines import choose_engine, frame_loss
from client.learning.errors import AttemptRepeatedError, EpisodeUnfitError
from client.learning.evaluate import mean_loss
from client.learning.noise import SecureNoise
from client.learning.private import PrivateSteps
from client.learning.probe import probe
from client.learning.registry import build, read_weights, write_weights
from client.learning.tensors import unit_frames
from client.learning.weights import check_weights
from policies.errors import invariant
from policies.privacy.errors import SharesUnfitError
from policies.privacy.receipts import MadeWith
from policies.recipe import TrainAdam

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from torch import nn

    from client.learning.tensors import Episode, Frames
    from policies.ports import Entropy
    from policies.recipe import Recipe

__all__ = ["Trainer", "fine_tune", "local_baseline", "warm_up"]

Array32 = npt.NDArray[np.float32]
_BATCH: Final = 128
_LOCAL_RATE: Final = (1e-3, 2e-5)
_LOCAL_DECAY: Final = 1e-5
_FINE_TUNE_STEPS: Final = 300
_FINE_TUNE_RATE: Final = 3e-4


def warm_up() -> None:
    """Imports torch: a worker calls it at its start, so that no round waits for it."""
    torch.set_num_threads(1)


class Trainer:
    """A node's training for one run.

    Args:
        recipe: The recipe of the run.
        episodes: Training episodes of this node, opened through the contract's field list; those of one
            unit are pooled.
        entropy: The operating system's.
        spend: Called with round and attempt before the first gradient of a private round; it returns only
            when the spend is
            durable (`BudgetStore.touch`). Leave it out only where the caller has touched already.
        canaries: Made-up units of the run that are trained on beside the node's own.

    Raises:
        EpisodeUnfitError: No episode, or one that lacks a field.
        DeltaTooLargeError: The plan's delta is too large for the number of units.
        ModelRefusedError: The model's units are not independent.
    """

    def __init__(
        self,
        recipe: Recipe,
        episodes: Sequence[Episode],
        entropy: Entropy,
        *,
        spend: Callable[[int, int], object] | None = None,
        canaries: Sequence[Frames] = (),
    ) -> None:
        frames = unit_frames(recipe, episodes)
        if not frames:
            raise EpisodeUnfitError(need="an episode", found="none", remedy="add data, or leave the run")
        frames += canaries
        self._recipe = recipe
        self._spend = spend
        self._model = build(recipe)
        self._noise = SecureNoise(entropy)
        self._done: set[tuple[int, int]] = set()
        self._steps: PrivateSteps | None = None
        self._frames = _Pool.of(frames)
        if recipe.plan is not None:
            recipe.plan.check_units(len(frames))
            probe(recipe)
            self._steps = PrivateSteps(
                plan=recipe.plan,
                frames=frames,
                engine=choose_engine(
                    self._model, frame_loss, recipe.plan.frames_per_unit, clipping=recipe.plan.clipping
                ).engine,
                parameters=recipe.parameters,
                noise=self._noise,
            )

    @property
    def manifest(self) -> str | None:
        """Digest of the frozen set of units of a private run; stays on the site."""
        return self._steps.manifest if self._steps else None

    @property
    def made_with(self) -> MadeWith:
        """Names of the code behind a private update."""
        invariant(self._steps is not None, "a step receipt of a recipe without plan")
        return MadeWith(engine=self._steps.engine if self._steps else "")

    def update(
        self,
        weights: npt.NDArray[np.float32],
        round_number: int,
        attempt: int,
        *,
        grid_step: float | None = None,
    ) -> Array32 | npt.NDArray[np.int64]:
        """The node's update of one round: ``[P] float32``, or ``[P] int64`` on a grid.

        Args:
            weights: The round's base model, ``[P]``.
            round_number: Number of the round.
            attempt: Number of the attempt.
            grid_step: With noise shares, one step of the sum's grid in units of the clipped sum; else None.

        Raises:
            SharesUnfitError: Noise shares without a grid, or a grid without noise shares; nothing is spent.
            AttemptRepeatedError: This round and attempt was trained before.
            WeightsUnfitError: The vector does not fit the recipe.
            BudgetExhaustedError: The plan has no step left, or ``spend`` refused.
        """
        base = check_weights(self._recipe, weights)
        self._check_grid(grid_step)
        if (round_number, attempt) in self._done:
            raise AttemptRepeatedError(
                need="a new attempt",
                found=f"round {round_number}, attempt {attempt} again",
                remedy="resend the reply that lies in the outbox",
            )
        if self._steps is not None and self._spend is not None:
            self._spend(round_number, attempt)
        self._done.add((round_number, attempt))
        write_weights(self._model, base)
        if self._steps is None:
            return self._local_steps(base, round_number)
        return self._steps.gradient() if grid_step is None else self._steps.summand(grid_step)

    def _check_grid(self, grid_step: float | None) -> None:
        plan = self._recipe.plan
        shares = plan is not None and plan.noise == "shares"
        if shares != (grid_step is not None):
            raise SharesUnfitError(
                need="noise shares on the grid of a sum that nobody can take apart, and no other noise on it",
                found="no grid" if shares else "a grid",
                remedy="secure aggregation for a plan with shares; none of its grid for any other",
            )

    def _local_steps(self, base: Array32, round_number: int) -> Array32:
        options = self._recipe.train
        invariant(isinstance(options, TrainAdam), "local steps in a recipe without plan")
        if isinstance(options, TrainAdam):
            done = min(1.0, max(0, round_number - 1) / max(1, self._recipe.rounds - 1))
            rate = _cosine(float(options.rate_first), float(options.rate_last), done)
            local = _LocalAdam(
                self._model,
                self._frames,
                self._noise.choice,
                weight_decay=float(options.weight_decay),
                proximal=float(options.proximal or 0),
            )
            for _ in range(options.local_steps):
                local.step(rate, batch=options.batch)
        return read_weights(self._model) - base


def local_baseline(
    recipe: Recipe, episodes: Sequence[Episode], *, steps: int = 2000, seed: int = 0
) -> Array32:
    """What a party reaches alone: Adam on its own episodes, not private, stays at home; ``[P] float32``."""
    model = build(recipe)
    local = _LocalAdam(model, _all_frames(recipe, episodes), _seeded(seed))
    for done in range(steps):
        local.step(_cosine(*_LOCAL_RATE, done / max(1, steps - 1)))
    return read_weights(model)


def fine_tune(
    recipe: Recipe,
    weights: npt.NDArray[np.float32],
    train: Sequence[Episode],
    held_out: Sequence[Episode],
    *,
    steps: int = _FINE_TUNE_STEPS,
    seed: int = 0,
) -> Array32:
    """The common model trained on at home, if better on own held-out units; stays at home.

    Returns:
        ``[P] float32``: the individual weights, or the common ones where those are not worse.
    """
    common = check_weights(recipe, weights)
    model = build(recipe)
    write_weights(model, common)
    local = _LocalAdam(model, _all_frames(recipe, train), _seeded(seed))
    for _ in range(steps):
        local.step(_FINE_TUNE_RATE)
    individual = read_weights(model)
    losses = [mean_loss(recipe, candidate, held_out) for candidate in (common, individual)]
    return individual if losses[1] < losses[0] else common


@dataclass(frozen=True, slots=True)
class _Pool:
    """All frames of all units side by side: for training that stays at home or makes no privacy claim."""

    inputs: torch.Tensor
    targets: torch.Tensor
    mask: torch.Tensor

    @classmethod
    def of(cls, frames: Sequence[Frames]) -> _Pool:
        return cls(
            torch.from_numpy(np.concatenate([f.inputs for f in frames])),
            torch.from_numpy(np.concatenate([f.targets for f in frames])),
            torch.from_numpy(np.concatenate([f.mask for f in frames])),
        )


def _all_frames(recipe: Recipe, episodes: Sequence[Episode]) -> _Pool:
    return _Pool.of(unit_frames(recipe, episodes))


class _LocalAdam:
    """Adam with fresh state on frames drawn with replacement.

    With ``proximal`` each step is also drawn back to the weights that the model has now: the gradient gets
    ``proximal * (w - w_now)``.
    """

    def __init__(
        self,
        model: nn.Module,
        pool: _Pool,
        choice: np.random.Generator,
        *,
        weight_decay: float = _LOCAL_DECAY,
        proximal: float = 0.0,
    ) -> None:
        self._model = model
        self._pool = pool
        self._choice = choice
        self._proximal = proximal
        self._start = [one.detach().clone() for one in model.parameters()] if proximal else []
        self._optimiser = torch.optim.AdamW(
            model.parameters(), lr=_LOCAL_RATE[0], weight_decay=weight_decay, foreach=True
        )

    def step(self, rate: float, *, batch: int = _BATCH) -> None:
        pool = self._pool
        rows = torch.from_numpy(self._choice.integers(0, len(pool.inputs), batch))
        self._optimiser.param_groups[0]["lr"] = rate
        self._optimiser.zero_grad(set_to_none=True)
        outputs = self._model(pool.inputs[rows])
        torch.autograd.backward(frame_loss(outputs, pool.targets[rows], pool.mask[rows]).mean())
        self._draw_back()
        self._optimiser.step()

    def _draw_back(self) -> None:
        for weight, start in zip(self._model.parameters(), self._start, strict=bool(self._start)):
            if weight.grad is not None:
                weight.grad.add_(weight.detach() - start, alpha=self._proximal)


def _seeded(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))  # stays at home: repeatable, and no secret


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
