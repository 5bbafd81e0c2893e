# SPDX-License-Identifier: Apache-2.0
"""The benchmark of clipped sums compares the same sums, and its rows are those that were promised."""

from __future__ import annotations

import pytest
import torch

from sandbox import bench_dp
from sandbox.bench_models import CASES, Case, TokenTransformer, mlp
from sandbox.bench_tables import dp_before, dp_lines
from sandbox.errors import SandboxError

TINY = (
    Case(name="mlp", build=lambda: mlp(8), units=3, frames=4),
    Case(
        name="transformer",
        build=lambda: TokenTransformer(inputs=19, outputs=32, size=8, tokens=2, layers=1, heads=2),
        units=3,
        frames=4,
    ),
)


def test_figures_of_all_ways():
    found = bench_dp.run(repeats=1, cases=TINY, memory=False)
    assert [row["model"] for row in found["rows"]] == ["mlp", "transformer"]
    for row in found["rows"]:
        for way in (*bench_dp.WAYS, "noise"):
            assert row[f"{way}_ms"] >= 0
        assert row["packed_mb"] is None
        assert row["ratios"]["memory_to_opacus_hooks"] is None


def test_figures_are_a_table_for_people_and_a_person_is_told_how_long_it_takes():
    found = bench_dp.run(repeats=1, cases=TINY, memory=False)
    lines = list(dp_lines(found))
    for row in found["rows"]:
        shown = [line for line in lines if line.startswith(row["model"])]
        assert len(shown) == 3
        assert f"{row['packed_ms']:.1f}" in shown[0].split()
        assert shown[1].split()[1:] == ["-"] * len(bench_dp.WAYS)
    assert "opacus ghost" in lines[0]
    assert not any("{" in line for line in lines)
    assert "takes about 3 minutes" in dp_before(5)
    assert "takes about 24 minutes" in dp_before(100)


def test_the_rows_have_the_promised_sizes():
    sizes = {case.name: sum(p.numel() for p in case.model().parameters()) for case in CASES}
    promised = {"mlp-0.1M": 1e5, "mlp-1M": 1e6, "mlp-5M": 5e6, "transformer-0.8M": 8e5}
    for name, size in promised.items():
        assert sizes[name] == pytest.approx(size, rel=0.02)
    assert (CASES[-1].units, CASES[-1].frames) == (8, 400)


def test_another_sum_is_no_figure(monkeypatch):
    def half(model, units):
        step = bench_dp._packed(model, units)
        return lambda: [0.5 * one for one in step()]

    monkeypatch.setitem(bench_dp.WAYS, "packed", half)
    with pytest.raises(SandboxError, match="the same sum from packed"):
        bench_dp.run(repeats=1, cases=TINY[:1], memory=False)


def test_peak_memory_sees_a_planted_tensor(monkeypatch):
    def hungry(model, units):
        return lambda: [torch.ones(len(units) << 23)]  # 32 MB for each unit

    if bench_dp._peak_mb(TINY[0], "sgd") is None:
        pytest.skip("the kernel keeps no high-water mark that can be reset")
    monkeypatch.setitem(bench_dp.WAYS, "packed", hungry)
    assert 90 < bench_dp._peak_mb(TINY[0], "packed") < 110
