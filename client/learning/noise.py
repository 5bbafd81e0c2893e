# SPDX-License-Identifier: Apache-2.0
"""Numbers for sampling and noise: unpredictable ones from ChaCha20, keyed by the operating system.

- Keys are drawn once per run, live in memory, are never logged and never come from configuration.
- After a fork both processes would draw the same noise, and two sums with the same noise give the data
  away:
  a forked child refuses (`privacy.rng-refused`).
- `SeededNoise` repeats itself, for tests and simulations. It says so (``predictable``), and private steps
  take it under a plan that is ``test_only`` and NOT PRIVATE in every statement, and under no other.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar, Protocol

import numpy as np
import numpy.typing as npt

from policies.privacy.errors import RngRefusedError

if TYPE_CHECKING:
    from policies.ports import Entropy

__all__ = ["NoiseSource", "SecureNoise", "SeededNoise", "secure_generator"]

_KEY_BYTES = 32
_ROUNDS = 20


def secure_generator(entropy: Entropy) -> np.random.Generator:
    """A numpy generator over ChaCha20 with a fresh 256-bit key."""
    from randomgen import ChaCha

    key = int.from_bytes(entropy.token_bytes(_KEY_BYTES), "little")
    return np.random.Generator(ChaCha(key=key, rounds=_ROUNDS))


class NoiseSource(Protocol):
    """Noise and choices of one run, from two generators: one tells nothing about the other."""

    @property
    def predictable(self) -> bool:
        """Whether somebody could draw the same numbers."""
        ...

    def gaussian(self, std: float, size: int) -> npt.NDArray[np.float64]:
        """``size`` values of N(0, std^2), float64."""
        ...

    @property
    def choice(self) -> np.random.Generator:
        """Generator of the sampled units and frames."""
        ...


class SecureNoise:
    """`NoiseSource` that nobody can predict or repeat."""

    predictable: ClassVar[bool] = False

    def __init__(self, entropy: Entropy) -> None:
        self._noise = secure_generator(entropy)
        self._choice = secure_generator(entropy)
        self._process = os.getpid()

    def _check(self) -> None:
        if os.getpid() != self._process:
            raise RngRefusedError(
                need="the process that made the generator",
                found="a forked child",
                remedy="make a new trainer in the child; never fork a training process",
            )

    def gaussian(self, std: float, size: int) -> npt.NDArray[np.float64]:
        """``size`` values of N(0, std^2), float64.

        Raises:
            RngRefusedError: Called in a forked child.
        """
        self._check()
        return self._noise.normal(0.0, std, size)

    @property
    def choice(self) -> np.random.Generator:
        """Generator of the sampled units and frames.

        Raises:
            RngRefusedError: Called in a forked child.
        """
        self._check()
        return self._choice


class SeededNoise:
    """`NoiseSource` that gives the same numbers for the same seed: NOT PRIVATE."""

    predictable: ClassVar[bool] = True

    def __init__(self, seed: int) -> None:
        noise, choice = np.random.SeedSequence(seed).spawn(2)
        self._noise = np.random.Generator(np.random.PCG64(noise))
        self._choice = np.random.Generator(np.random.PCG64(choice))

    def gaussian(self, std: float, size: int) -> npt.NDArray[np.float64]:
        """``size`` values of N(0, std^2), float64."""
        return self._noise.normal(0.0, std, size)

    @property
    def choice(self) -> np.random.Generator:
        """Generator of the sampled units and frames."""
        return self._choice
