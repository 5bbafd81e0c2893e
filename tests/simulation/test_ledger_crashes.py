# SPDX-License-Identifier: Apache-2.0
"""A node dies before any write or fsync of its ledger, killed or without power: never less is recorded than was spent."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

CHILD = Path(__file__).with_name("ledger_crash_child.py")
# entries of a life, after each of: reserve (with its block), touch, touch, commit, reserve b (with its block), cancel b
ENTRIES = (1, 3, 4, 5, 6, 8, 9)
TOUCHES = (0, 0, 1, 2, 2, 2, 2)


def died(folder: Path, scenario: str, synchronous: str = "EXTRA") -> list[dict[str, Any]]:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}
    environment |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(CHILD), str(folder), scenario, synchronous],
        stdout=subprocess.PIPE,
        env=environment,
        check=True,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    if "skip" in lines[0]:
        pytest.skip(lines[0]["skip"])
    return lines


def test_a_ledger_whose_folder_is_not_synced_forgets_a_touch_when_power_is_lost(tmp_path: Path):
    lost = [one for one in died(tmp_path, "life", "FULL") if one["spent"] < TOUCHES[one["done"]]]
    print(f"synchronous FULL: {len(lost)} disks with less than was spent")
    assert lost
    assert {one["disk"] for one in lost} == {"power"}


def test_no_death_at_any_write_or_fsync_records_less_than_was_spent(tmp_path: Path):
    lines = died(tmp_path, "life")
    for one in lines:
        done = one["done"]
        assert "unknown" not in one, one
        assert one["seq"] in ENTRIES[done : done + 2], (
            one
        )  # whole entries: the one under way is there, or is not
        assert one["touched"] == one["spent"], one
        assert one["spent"] >= TOUCHES[done], one
        assert len(one["again"]) == one["spent"], one  # what was paid for is not trained again for nothing
    points = {one["at"] for one in lines}
    kinds = {
        what: sum(one["what"] == what for one in lines if one["disk"] == "killed")
        for what in ("write", "fsync", "name")
    }
    print(f"{len(points)} deaths ({kinds}), {len(lines)} disks, none with less than was spent")
    assert kinds["fsync"] >= 6 * 4
    assert {one["done"] for one in lines} == set(range(7))


def test_a_ledger_that_dies_in_its_first_moment_is_whole_or_not_there(tmp_path: Path):
    lines = died(tmp_path, "create")
    for one in lines:
        whole = one.get("seq") == 1
        assert whole or not one["file"], one
        assert whole or one["done"] == 0, one
    print(f"{len({one['at'] for one in lines})} deaths of a beginning, {len(lines)} disks")
