# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import pytest
from typer.testing import CliRunner

from sandbox import bench_secagg
from sandbox.bench_tables import secagg_before, secagg_lines
from sandbox.cli import app
from sandbox.errors import CommandError, UsageError


def test_a_small_round_is_exact_and_all_figures_are_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_secagg, "_TURNS", 1)
    found = bench_secagg.run(parties=4, dim=70_000, drop=1)
    assert found["exact"] is True
    assert 1 < found["bytes_ratio"] < 1.05
    assert 2 < found["flower_bytes_ratio"] < 2.1
    for name in ("client_cpu_s", "mask_cpu_s", "server_cpu_s", "flower_client_cpu_s", "ratio"):
        assert found[name] > 0
    assert found["mask_cpu_s"] <= found["client_cpu_s"]
    lines = list(secagg_lines(found))
    assert "the opened sum is the plain sum, value by value" in lines
    assert "4 parties" in lines[0]
    assert "70,000 parameters" in secagg_before(4, 70_000)
    assert any("NOT" in line for line in secagg_lines(found | {"exact": False}))


@pytest.mark.parametrize(("parties", "drop"), [(2, 0), (3, 1), (51, 1), (10, 4)])
def test_a_round_that_no_sum_survives_is_refused_before_it_is_measured(parties: int, drop: int) -> None:
    with pytest.raises(UsageError):
        bench_secagg.run(parties=parties, dim=10, drop=drop)


def test_what_does_not_fit_is_said_before_anything_else() -> None:
    told = CliRunner().invoke(app, ["bench", "secagg", "--parties", "4", "--drop", "3"])
    assert isinstance(told.exception, UsageError)
    assert told.output == ""
    assert "of 4 at most 1 --drop" in str(told.exception)


@pytest.mark.parametrize(
    ("drop", "dim", "line"),
    [
        (0, 1, "4 parties, 1 parameters (3.81e-06 MB), none vanish before they send"),
        (1, 1_000_000, "4 parties, 1,000,000 parameters (3.81 MB), 1 vanishes before they send"),
        (2, 70_000, "4 parties, 70,000 parameters (0.267 MB), 2 vanish before they send"),
    ],
)
def test_the_first_line_is_a_sentence(drop: int, dim: int, line: str) -> None:
    vector_mb = float(f"{4 * dim / 2**20:.3g}")
    assert next(secagg_lines({"parties": 4, "drop": drop, "dim": dim, "vector_mb": vector_mb})) == line


def test_a_turn_that_fails_says_what_to_run_by_hand() -> None:
    with pytest.raises(CommandError, match="one turn of theirs"):
        bench_secagg._child("theirs", 4, 10, 1)
