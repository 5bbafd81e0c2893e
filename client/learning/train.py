# SPDX-License-Identifier: Apache-2.0
"""What a node computes in a round, and what it trains for itself.

    trainer = Trainer(recipe, episodes, entropy)            # once per run; imports torch: takes seconds
    update = trainer.update(weights, round_number, attempt) # [P] float32
    trainer.private                                         # the part of the model that stays here, or empty

- With a plan the update is a noisy mean gradient; the server descends it. Without one it is the difference of
  weights after the recipe's local steps. Nothing else is returned: no loss, no count, no norm.
- With noise shares the update is whole numbers on the grid of the sum that it goes into, and only that: a
  share protects nothing by itself, so it is never made as a mean gradient.
- Local steps under a recipe with ``proximal`` (FedProx) also descend ``mu / 2 * norm(w - w_round)^2``.
- A round and attempt is trained once. A retry of the same attempt is answered from the outbox, never by
  training again.
- **Private tensors** (a recipe with variants) are trained with the others and stay: ``weights`` and the
  update are the shared part alone, and `Trainer.private` is the rest after the last update, to be kept on the
  site.
- **The owner may stop it.** ``stop`` is asked before the first step and between local steps; then the update
  is abandoned, the private part is the one from before, and `TrainingStoppedError` is raised. A private step
  is one step: what it cost was spent before it began.
- `fine_tune` and `local_baseline` stay on the site, and take the whole vector of the model there.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final, Literal

import numpy as np
import numpy.typing as npt
import torch

from client.learning.engines import choose_engine
from client.learning.errors import (
    AttemptRepeatedError,
    EpisodeUnfitError,
    TrainingStoppedError,
    WeightsUnfitError,
)
from client.learning.evaluate import mean_loss
from client.learning.local import LocalAdam, Pool
from client.learning.losses import loss_of
from client.learning.noise import SecureNoise
from client.learning.private import PrivateSteps
from client.learning.probe import probe
from client.learning.registry import build, read_weights, write_weights
from client.learning.tensors import unit_frames
from client.learning.weights import check_shared, check_weights, initial_weights
from policies.errors import invariant
from policies.forward import joined, private_of, shared_of
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
_USUAL: Final = TrainAdam(
    kind="adam-local",
    local_steps=1,
    batch=128,
    rate_first="0.001",
    rate_last="0.00002",
    weight_decay="0.00001",
    proximal=None,
)
_FINE_TUNE_STEPS: Final = 300
_FINE_TUNE_RATES: Final = (3e-4, 1e-5)  # first and last: the last steps' noise is not kept
_FINE_TUNE_BLURS: Final = (0.0, 0.05, 0.1)  # of the normalisers' units; the held-out units choose


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
        private: The private part of the model as this site kept it; None: as the recipe's seed gives it.

    Raises:
        EpisodeUnfitError: No episode, or one that lacks a field.
        DeltaTooLargeError: The plan's delta is too large for the number of units.
        ModelRefusedError: The model's units are not independent.
        RecipeVariantError: The recipe has variants, and none was chosen.
        WeightsUnfitError: The private part is not one of this variant.
    """

    def __init__(
        self,
        recipe: Recipe,
        episodes: Sequence[Episode],
        entropy: Entropy,
        *,
        spend: Callable[[int, int], object] | None = None,
        canaries: Sequence[Frames] = (),
        private: npt.NDArray[np.float32] | None = None,
    ) -> None:
        recipe.need_site()
        frames = unit_frames(recipe, episodes)
        if not frames:
            raise EpisodeUnfitError(need="an episode", found="none", remedy="add data, or leave the run")
        frames += canaries
        self._recipe = recipe
        self._spend = spend
        self._model = build(recipe)
        if isinstance(recipe.train, TrainAdam) and recipe.train.private == "held":
            for spec, parameter in zip(recipe.tensors, self._model.parameters(), strict=True):
                parameter.requires_grad_(spec.is_shared)
        self._noise = SecureNoise(entropy)
        self._done: set[tuple[int, int]] = set()
        self._steps: PrivateSteps | None = None
        self._frames = Pool.of(frames)
        first = initial_weights(recipe)
        kept = private_of(recipe, first) if private is None else private
        self._private: Array32 = private_of(recipe, check_weights(recipe, _own(recipe, first, kept)))
        if recipe.plan is not None:
            recipe.plan.check_units(len(frames))
            probe(recipe)
            self._steps = PrivateSteps(
                plan=recipe.plan,
                frames=frames,
                engine=choose_engine(
                    self._model, loss_of(recipe), recipe.plan.frames_per_unit, clipping=recipe.plan.clipping
                ).engine,
                parameters=recipe.parameters,
                noise=self._noise,
            )

    @property
    def manifest(self) -> str | None:
        """Digest of the frozen set of units of a private run; stays on the site."""
        return self._steps.manifest if self._steps else None

    @property
    def private(self) -> Array32:
        """The private part of the model after the last update; it never leaves. Empty without variants."""
        return self._private

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
        stop: Callable[[], bool] = lambda: False,
        progress: Callable[[int, int], object] = lambda _step, _of: None,
    ) -> Array32 | npt.NDArray[np.int64]:
        """The node's update of one round: ``[P] float32``, or ``[P] int64`` on a grid.

        Args:
            weights: The round's base model, ``[P]``: the shared part.
            round_number: Number of the round.
            attempt: Number of the attempt.
            grid_step: With noise shares, one step of the sum's grid in units of the clipped sum; else None.
            stop: Whether the owner wants no more of it.
            progress: Told steps done and steps in all, after each; of one step, before it too.

        Raises:
            SharesUnfitError: Noise shares without a grid, or a grid without noise shares; nothing is spent.
            AttemptRepeatedError: This round and attempt was trained before.
            WeightsUnfitError: The vector does not fit the recipe.
            BudgetExhaustedError: The plan has no step left, or ``spend`` refused.
            TrainingStoppedError: The owner stopped it; no update was made.
        """
        base = check_shared(self._recipe, weights)
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
        write_weights(self._model, joined(self._recipe, base, self._private))
        if self._steps is None:
            return self._local_steps(base, round_number, stop, progress)
        _go_on(stop, 0, 1)
        progress(0, 1)
        made = self._steps.gradient() if grid_step is None else self._steps.summand(grid_step)
        progress(1, 1)
        return made

    def _check_grid(self, grid_step: float | None) -> None:
        plan = self._recipe.plan
        shares = plan is not None and plan.noise == "shares"
        if shares != (grid_step is not None):
            raise SharesUnfitError(
                need="noise shares on the grid of a sum that nobody can take apart, and no other noise on it",
                found="no grid" if shares else "a grid",
                remedy="secure aggregation for a plan with shares; none of its grid for any other",
            )

    def _local_steps(
        self,
        base: Array32,
        round_number: int,
        stop: Callable[[], bool],
        progress: Callable[[int, int], object],
    ) -> Array32:
        options = self._recipe.train
        invariant(isinstance(options, TrainAdam), "local steps in a recipe without plan")
        if isinstance(options, TrainAdam):
            done = min(1.0, max(0, round_number - 1) / max(1, self._recipe.rounds - 1))
            rate = _cosine(float(options.rate_first), float(options.rate_last), done)
            local = LocalAdam(
                self._model,
                self._frames,
                self._noise.choice,
                loss=loss_of(self._recipe),
                weight_decay=float(options.weight_decay),
                proximal=float(options.proximal or 0),
            )
            for done_steps in range(options.local_steps):
                _go_on(stop, done_steps, options.local_steps)
                local.step(rate, batch=options.batch)
                progress(done_steps + 1, options.local_steps)
        own = read_weights(self._model)
        self._private = private_of(self._recipe, own)
        return shared_of(self._recipe, own) - base


def _own(recipe: Recipe, own: Array32, private: Array32) -> Array32:
    """The whole vector with a private part that somebody kept.

    Raises:
        WeightsUnfitError: The private part has another length.
    """
    if private.shape != (recipe.own_parameters - recipe.parameters,):
        raise WeightsUnfitError(
            need=f"{recipe.own_parameters - recipe.parameters} private values",
            found=f"shape {list(private.shape)}",
            remedy="remove the file of the private part in the node's folder: training begins it anew",
        )
    return joined(recipe, shared_of(recipe, own), private)


def _go_on(stop: Callable[[], bool], done: int, of: int) -> None:
    if stop():
        raise TrainingStoppedError(
            need="a run that its owner lets go on",
            found=f"stopped after step {done} of {of}",
            remedy="iriai-node runs list; runs resume lets the next round in",
        )


def local_baseline(
    recipe: Recipe, episodes: Sequence[Episode], *, steps: int = 2000, seed: int = 0
) -> Array32:
    """What a party reaches alone: Adam on its own episodes, not private, stays at home; ``[P] float32``.

    Batch, rates and weight decay are those of a recipe without plan; a recipe with one has none, and then
    they are the usual ones of this project.
    """
    model = build(recipe)
    options = recipe.train if isinstance(recipe.train, TrainAdam) else _USUAL
    local = LocalAdam(
        model,
        _all_frames(recipe, episodes),
        _seeded(seed),
        loss=loss_of(recipe),
        weight_decay=float(options.weight_decay),
    )
    first, last = float(options.rate_first), float(options.rate_last)
    for done in range(steps):
        local.step(_cosine(first, last, done / max(1, steps - 1)), batch=options.batch)
    return read_weights(model)


def fine_tune(
    recipe: Recipe,
    weights: npt.NDArray[np.float32],
    train: Sequence[Episode],
    held_out: Sequence[Episode],
    *,
    mode: Literal["full", "head"] = "full",
    steps: int = _FINE_TUNE_STEPS,
    seed: int = 0,
) -> Array32:
    """The common model trained on at home, if better on own held-out units; stays at home.

    The common model has seen the same training episodes, so what is left to learn from them is little and
    easily learned by heart: with 5 episodes its loss on them is a fifth of that on others. So it is trained
    on three times, with no noise on the inputs and with two amounts of it (`LocalAdam`), each time as few
    steps with a falling rate; the held-out units choose among these and the common model.

    Args:
        recipe: Of the model.
        weights: The common model, ``[P]``.
        train: Own training episodes.
        held_out: Own episodes that choose among the four; report no figure on them.
        mode: ``head`` trains tensors of that block alone.
        steps: Of Adam, each time.
        seed: Of batches and noise.

    Returns:
        ``[P] float32``: the individual weights, or the common ones where those are not worse.
    """
    common, frames = check_weights(recipe, weights), _all_frames(recipe, train)
    candidates = [common]
    for blur in _FINE_TUNE_BLURS:
        model = build(recipe)
        write_weights(model, common)
        if mode == "head":
            _hold_all_but_head(recipe, model)
        local = LocalAdam(model, frames, _seeded(seed), loss=loss_of(recipe), blur=blur)
        for done in range(steps):
            local.step(_cosine(*_FINE_TUNE_RATES, done / max(1, steps - 1)))
        candidates.append(read_weights(model))
    # of equal ones the first; one whose loss is not a number beats none
    return min(candidates, key=lambda one: mean_loss(recipe, one, held_out))


def _hold_all_but_head(recipe: Recipe, model: nn.Module) -> None:
    for spec, parameter in zip(recipe.tensors, model.parameters(), strict=True):
        parameter.requires_grad_(spec.block == "head")


def _all_frames(recipe: Recipe, episodes: Sequence[Episode]) -> Pool:
    return Pool.of(unit_frames(recipe, episodes))


def _seeded(seed: int) -> np.random.Generator:
    return np.random.Generator(np.random.PCG64(seed))  # stays at home: repeatable, and no secret


def _cosine(first: float, last: float, done: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * done)) / 2
