# SPDX-License-Identifier: Apache-2.0
"""Kinds of noise of the sandbox's recipes, and the one that is taken unless another is asked for."""

from __future__ import annotations

from typing import Final, Literal

__all__ = ["NOISE", "Noise"]

Noise = Literal["local-full", "shares"]

NOISE: Final[Noise] = "shares"  # of `demo` and `up`, unless another is asked for
