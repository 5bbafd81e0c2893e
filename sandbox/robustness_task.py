# SPDX-License-Identifier: Apache-2.0
"""A small regression in NumPy for measurements of robustness: silos that see parts of one function, one net.

- Each silo sees its own region of an eight-dimensional function, with noise; together they see all of it.
- The net has one hidden layer. A model is one flat vector; many models are evaluated in one call.
- Held-out episodes are a few samples each; their mean loss is what a silo judges by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import numpy.typing as npt

__all__ = ["EPISODES", "SIZE", "Task", "make_task"]

Array = npt.NDArray[np.float64]
INPUTS: Final = 8
WIDTH: Final = 16
SIZE: Final = INPUTS * WIDTH + 2 * WIDTH + 1
EPISODES: Final = 200  # held out, per silo; as in the contract template
_FRAMES: Final = 4
_SAMPLES: Final = 240
_APART: Final = 0.3  # of the silos' regions, in standard deviations of their data
_NOISE: Final = 0.5
_LOCAL_STEPS: Final = 15
_RATE: Final = 0.1


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """Data of all silos; first axis is the silo."""

    inputs: Array
    targets: Array
    held_inputs: Array
    held_targets: Array
    start: Array

    def updates(self, model: Array, *, clip: float) -> Array:
        """What honest silos send, ``[S, P]``: local steps from the model, clipped to a norm."""
        silos = len(self.inputs)
        own = np.tile(model, (silos, 1))
        for _ in range(_LOCAL_STEPS):
            own = own - _RATE * _gradient(own, self.inputs, self.targets)
        found = own - model
        norms = np.linalg.norm(found, axis=1, keepdims=True)
        return np.asarray(found * np.minimum(1.0, clip / np.maximum(norms, 1e-12)))

    def episode_losses(self, models: Array) -> Array:
        """``[models, silos, episodes]``: mean over an episode's frames."""
        silos = len(self.held_inputs)
        found = []
        for one in models:
            error = _predict(np.tile(one, (silos, 1)), self.held_inputs)[0] - self.held_targets
            found.append((error**2).reshape(silos, EPISODES, _FRAMES).mean(axis=2))
        return np.stack(found)

    def error(self, model: Array, silos: npt.NDArray[np.int64]) -> float:
        """Mean held-out loss over some silos."""
        return float(self.episode_losses(model[None])[0, silos].mean())


def make_task(seed: int, silos: int) -> Task:
    """The task of a seed."""
    draw = np.random.default_rng(seed)
    teacher = draw.standard_normal((INPUTS, 3)) / np.sqrt(INPUTS)
    centres = draw.standard_normal((silos, 1, INPUTS)) * _APART

    def sampled(count: int) -> tuple[Array, Array]:
        seen = centres + draw.standard_normal((silos, count, INPUTS))
        hidden = seen @ teacher
        value = np.tanh(hidden[..., 0]) + 0.7 * hidden[..., 1] - 0.2 * hidden[..., 2] ** 2
        return seen, value + _NOISE * draw.standard_normal(value.shape)

    inputs, targets = sampled(_SAMPLES)
    held_inputs, held_targets = sampled(EPISODES * _FRAMES)
    first = draw.standard_normal(SIZE) * np.sqrt(1 / INPUTS)
    first[INPUTS * WIDTH :] *= 0.1
    return Task(
        inputs=inputs, targets=targets, held_inputs=held_inputs, held_targets=held_targets, start=first
    )


def _parts(models: Array) -> tuple[Array, Array, Array, Array]:
    cut = INPUTS * WIDTH
    hidden = models[:, :cut].reshape(-1, INPUTS, WIDTH)
    bias, out = models[:, None, cut : cut + WIDTH], models[:, cut + WIDTH : -1, None]
    return hidden, bias, out, models[:, -1:]


def _predict(models: Array, inputs: Array) -> tuple[Array, Array]:
    with np.errstate(over="ignore", invalid="ignore"):
        hidden, bias, out, offset = _parts(models)
        active = np.tanh(inputs @ hidden + bias)
        return (active @ out)[..., 0] + offset, active


def _gradient(models: Array, inputs: Array, targets: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore"):
        guess, active = _predict(models, inputs)
        out = _parts(models)[2]
        error = (2 * (guess - targets) / targets.shape[1])[..., None]
        inner = error * out.transpose(0, 2, 1) * (1 - active**2)
        parts: tuple[Any, ...] = (
            (inputs.transpose(0, 2, 1) @ inner).reshape(len(models), -1),
            inner.sum(axis=1),
            (active.transpose(0, 2, 1) @ error)[..., 0],
            error.sum(axis=1),
        )
    return np.concatenate(parts, axis=1)
