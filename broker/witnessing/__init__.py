# SPDX-License-Identifier: Apache-2.0
"""Witnesses of the log: who they are, which head they are asked for, what they signed."""

from __future__ import annotations

from broker.witnessing.service import SIGNED, WITNESSED, Graded, Witnessing

__all__ = ["SIGNED", "WITNESSED", "Graded", "Witnessing"]
