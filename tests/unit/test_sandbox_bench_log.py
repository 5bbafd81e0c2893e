# SPDX-License-Identifier: Apache-2.0
"""``iriai-sandbox bench log``: every figure is there, and one that cannot be measured says why."""

from __future__ import annotations

from pathlib import Path

import pytest

from sandbox import bench_log, postgres
from tests.pgserver import unavailable

KEYS = {
    "sqlite_batch_per_s",
    "postgres_batch_per_s",
    "single_per_s",
    "concurrent_per_s",
    "proof_ms",
    "verify_entries_per_s",
    "bytes_per_entry",
}


@pytest.mark.slow
def test_all_figures_are_positive_numbers() -> None:
    if (reason := unavailable()) is not None:
        pytest.skip(reason)
    heard: list[str] = []
    found = bench_log.run(batches=1, singles=2, entries=1_000, large=3_000, told=heard.append)
    assert found.keys() == KEYS
    assert found["proof_ms"].keys() == {"1000", "3000"}
    assert all(value > 0 for value in [*found.pop("proof_ms").values(), *found.values()])
    assert len(bench_log.lines({**found, "proof_ms": {"1000": 0.01}})) == len(KEYS)
    assert heard


def test_without_a_server_the_figure_is_null_with_a_reason(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(postgres, "_PROGRAMS", tmp_path)
    found = bench_log.run(batches=1, singles=1, entries=1_000, large=1_000)
    assert found.keys() == {*KEYS, "postgres_reason"}
    assert found["postgres_batch_per_s"] is None
    assert found["postgres_reason"].startswith(f"no PostgreSQL in {tmp_path}")
