# SPDX-License-Identifier: Apache-2.0
"""How long the twelve checks take: 250 episodes, 20,000 frames of 18 channels, on one core."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from client.data.quality import check_dataset
from tests.qualitysim import arm, imported

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow
TARGET_S = 5.0


def test_twelve_checks_of_250_episodes_take_seconds(tmp_path: Path) -> None:
    root, _ = imported(tmp_path, [arm(i, frames=80) for i in range(250)])
    start = time.perf_counter()
    report = check_dataset(root, "kita/pick")
    took_s = time.perf_counter() - start
    assert report.episodes == 250
    assert took_s < TARGET_S
