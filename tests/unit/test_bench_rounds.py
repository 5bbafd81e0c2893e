# SPDX-License-Identifier: Apache-2.0
"""The recipe of the rounds that are timed, and the figures that are made of the broker's lines."""

from __future__ import annotations

import shutil

import pytest

from sandbox.bench_rounds import WARM_UP, _at_nodes, _figures, _folder, _Usage, lines, recipe_of
from sandbox.contract_text import makers
from sandbox.errors import SandboxError


def test_the_recipe_is_secure_small_and_has_as_many_rounds() -> None:
    recipe = recipe_of(100 + WARM_UP)
    assert recipe.parameters == 6010
    assert recipe.rounds == 104
    assert recipe.plan is not None
    assert recipe.plan.noise == "shares"
    assert recipe.plan.steps >= recipe.rounds


def test_every_maker_has_a_name_of_its_own_and_a_cell() -> None:
    made = makers(10)
    assert len({one.party for one in made}) == len({one.legal_name for one in made}) == 10
    assert {one.cell for one in made} == set("ABCD")
    assert [one.party for one in makers(3)] == ["kita", "nord", "iber"]


def test_the_folder_of_a_step_that_failed_is_kept_and_named_any_other_is_deleted() -> None:
    with pytest.raises(SandboxError) as failed, _folder() as kept:
        raise SandboxError(need="rounds that close", found="run.broken", remedy="see the broker's log")
    try:
        assert kept.is_dir()
        assert str(kept / "federation" / "logs") in failed.value.as_dict()["remedy"]  # type: ignore[operator]
    finally:
        shutil.rmtree(kept)
    with _folder() as done:
        assert done.is_dir()
    with pytest.raises(SystemExit), _folder() as ended:
        raise SystemExit(143)
    assert not done.exists()
    assert not ended.exists()


def _line(at_ms: int, **parts: str) -> dict[str, object]:
    return {"ts": f"2026-01-01T00:00:{at_ms / 1000:06.3f}Z", "accepted": 4, **parts}


def test_figures_are_of_the_rounds_after_the_first_line() -> None:
    rows = [
        _line(1000, confirm_ms="900", commit_ms="900"),
        _line(1200, confirm_ms="10", commit_ms="20"),
        _line(1500, confirm_ms="30", commit_ms="40", requests="12"),
        _line(1700, confirm_ms="50", commit_ms="60"),
    ]
    found = _figures(rows, _Usage(1.0, 2.0), _Usage(1.3, 2.6))
    assert found["rounds_per_s"] == pytest.approx(3 / 0.7, abs=0.01)
    assert found["round_ms"] == {"p50": 200.0, "p95": 300.0}
    assert found["phases_ms"] == {"confirm_ms": 30.0, "commit_ms": 40.0}
    assert found["cpu_ms"] == {"broker": 100.0, "nodes": 200.0}
    assert found["accepted"] == 4
    shown = {
        "nodes_ms": {"training": 1.0},
        "nodes": 4,
        "parameters": 6010,
        "cpus": 2,
        "load": [0.1, 0.2],
        "requests": 8.0,
    }
    text = "\n".join(lines(shown | found | {"exchange_ms": 15.0, "exchange_cpu_ms": 17.0}))
    assert "4.29 rounds per second" in text
    assert "confirm" in text


def test_a_nodes_lines_say_how_long_its_parts_took() -> None:
    def phase(number: int, name: str, ms: float) -> str:
        return f"phase run=run_x round={number} attempt=1 {name} ms={ms}\n"

    late = WARM_UP + 1
    log = (
        phase(1, "training", 0)
        + phase(1, "trained", 500)
        + phase(late, "training", 1000)
        + "other\n"
        + phase(late, "trained", 1010)
        + phase(late, "masked", 1013)
        + phase(late, "sealed", 1020)
    )
    assert _at_nodes([log]) == {"training": 10.0, "masking": 3.0, "sealing": 7.0}
    assert _at_nodes([""]) == {}
