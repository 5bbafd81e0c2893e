# SPDX-License-Identifier: Apache-2.0
"""Entropy that repeats itself: a measurement that is run again draws the same batches.

Whoever knows the seed knows every number, so nothing that is trained with it may claim privacy. The sandbox
gives it to trainers of recipes without a plan, and to nobody else.
"""

from __future__ import annotations

import hashlib

__all__ = ["RepeatableEntropy"]


class RepeatableEntropy:
    """`policies.ports.Entropy` that follows from a name; NOT PRIVATE."""

    def __init__(self, name: str) -> None:
        self._name, self._drawn = name, 0

    def token_bytes(self, size: int) -> bytes:
        """``size`` bytes, others at each call, the same in each run."""
        self._drawn += 1
        return hashlib.shake_256(f"{self._name}/{self._drawn}".encode()).digest(size)
