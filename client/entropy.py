# SPDX-License-Identifier: Apache-2.0
"""The node's unpredictable bytes: the only place of the client that asks the operating system for them."""

from __future__ import annotations

import os

__all__ = ["SystemEntropy"]


class SystemEntropy:
    """`policies.ports.Entropy` of a real process."""

    __slots__ = ()

    def token_bytes(self, size: int) -> bytes:
        """``size`` fresh bytes of the operating system's generator."""
        return os.urandom(size)
