# SPDX-License-Identifier: Apache-2.0
"""The broker's unpredictable bytes: the only place in the broker that asks the operating system for them."""

from __future__ import annotations

import secrets  # noqa: TID251  the one source

__all__ = ["SystemEntropy"]


class SystemEntropy:
    """`policies.ports.Entropy` of a real process."""

    def token_bytes(self, size: int) -> bytes:
        """``size`` bytes from the operating system's generator."""
        return secrets.token_bytes(size)
