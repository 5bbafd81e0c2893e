# SPDX-License-Identifier: Apache-2.0
"""What the conformance audit saw, as numbers: `client.learning.conformance_bench` makes them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

__all__ = ["CanarySteps", "Crowded", "EmptySteps", "Exact", "Fresh", "Observed", "by_direction"]

Array64 = npt.NDArray[np.float64]
Ints = npt.NDArray[np.intp]


@dataclass(frozen=True, slots=True, kw_only=True)
class EmptySteps:
    """Steps with nobody drawn.

    Attributes:
        first: Noisy sums of one run, ``[t, P]``.
        second: Those of another run.
        whole: A whole run of the plan's steps, of a model with a hundred weights.
        counted: Exactly the plan's number of them ran.
    """

    first: Array64
    second: Array64
    whole: Array64
    counted: bool

    @property
    def runs(self) -> tuple[Array64, Array64]:
        """Both runs."""
        return self.first, self.second


@dataclass(frozen=True, slots=True, kw_only=True)
class Exact:
    """Steps without noise, in clip norms.

    Attributes:
        least: What the lightest canary weighed that was drawn; 1 if none was.
        most: What the heaviest one weighed.
        stray: The largest coordinate that nobody drawn has.
    """

    least: float
    most: float
    stray: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowded:
    """Draws from units that no engine sees.

    Attributes:
        drawn: How often each of n units was drawn in each step, ``[T, n]``.
        q: Probability of each, ``[n]``.
        sizes: Units of the stratum of each, ``[n]``.
        run: Steps of a run.
    """

    drawn: Ints
    q: Array64
    sizes: Ints
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class CanarySteps:
    """Steps with canaries; in the runs with odd numbers with other units too.

    Attributes:
        drawn: How often each canary was drawn in each step, ``[T, n]``.
        scores: The port's coordinates of each step, in clip norms, ``[T, c]``.
        own: The model's own coordinates in the first steps of the first run, ``[t, P - c]``.
        squares: Sum of squares of each of the model's own tensors over all steps with canaries alone.
        alone: How many those are.
        run: Steps of a run.
    """

    drawn: Ints
    scores: Array64
    own: Array64
    squares: Array64
    alone: int
    run: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Fresh:
    """Numbers of generators that were just made.

    Attributes:
        noise: Standard Gaussian noise of each, ``[k, n]``.
        choice: Normal numbers of the generator that chooses, ``[k, n]``.
        key_bytes: Least that one asked the operating system for.
    """

    noise: Array64
    choice: Array64
    key_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Observed:
    """Everything that was seen; noisy sums are before division by the normaliser.

    Attributes:
        sizes: Lengths of the tensors of a noisy sum, ``[P]`` together; the port's is last.
        directions: The first so many coordinates of the port have canaries, canary i the coordinate
            ``i % directions``.
        empty: Steps with nobody drawn.
        moved: The farthest that one unit moves the sum without noise, in clip norms.
        exact: Steps without noise.
        crowd: Draws.
        canaries: Steps with canaries.
        fresh: Generators.
        longest: Frames of the longest unit that reached the engine.
        clip: The largest bound that the engine was asked for.
    """

    sizes: tuple[int, ...]
    directions: int
    empty: EmptySteps
    moved: float
    exact: Exact
    crowd: Crowded
    canaries: CanarySteps
    fresh: Fresh
    longest: int
    clip: float

    @property
    def counts(self) -> Array64:
        """Canaries of each direction in each step, ``[T, directions]``."""
        return by_direction(self.canaries.drawn, self.directions)

    @property
    def free(self) -> Array64:
        """Coordinates of the port without canaries, ``[T, c - directions]``, in clip norms."""
        return self.canaries.scores[:, self.directions :]


def by_direction(drawn: Ints, directions: int) -> Array64:
    """Canaries of each direction, from those of each number, ``[T, directions]``."""
    counts: Array64 = drawn.reshape(len(drawn), -1, directions).sum(1).astype(np.float64)
    return counts
