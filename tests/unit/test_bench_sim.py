# SPDX-License-Identifier: Apache-2.0
"""The benchmark in simulated cells: every column or no report, intervals, honest goals, recordings made once."""

from __future__ import annotations

import copy
import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from policies.encoding import canonical
from policies.recipe import load
from sandbox import bench_sim, cells
from sandbox.bench_columns import COLUMNS, UNDETERMINED, columns_checked, gain_of, mean_and_error
from sandbox.bench_sim import CHOSEN_ON, SimOptions, lines, mean_recipe, run
from sandbox.cli import app
from sandbox.errors import SandboxError
from sandbox.recipes import alone_recipe, plain_recipe
from sandbox.repeatable import RepeatableEntropy

needs_simulator = pytest.mark.skipif(
    importlib.util.find_spec("metaworld") is None,
    reason="Meta-World is not installed: pip install 'iriai[sandbox]'",
)


def figure(mean: float | str = 0.5) -> dict[str, Any]:
    return {"mean": mean}


def complete() -> dict[str, Any]:
    row: dict[str, Any] = {name: figure() for name in COLUMNS if name not in {"individual", "cpu_s"}}
    return {"pick-place": row | {"individual": {"own": figure(), "others": figure()}, "cpu_s": 1.5}}


@pytest.mark.parametrize("column", COLUMNS)
def test_a_report_that_lacks_a_column_is_refused_and_names_it(column: str):
    whole = complete()
    assert columns_checked(whole) == whole
    for planted in ("gone", None, {}, {"mean": float("nan")}, {"mean": UNDETERMINED}, {"mean": True}):
        broken = copy.deepcopy(whole)
        if planted == "gone":
            del broken["pick-place"][column]
        else:
            broken["pick-place"][column] = {"own": planted} if column == "individual" else planted
        with pytest.raises(SandboxError, match=column):
            columns_checked(broken)
    with pytest.raises(SandboxError):
        columns_checked({})


def test_an_undetermined_figure_is_said_with_its_reason_and_no_seed_is_made_up():
    whole = complete()
    whole["pick-place"]["pooled"] = mean_and_error([None, None], reason="one class only")
    columns_checked(whole)
    assert mean_and_error([None, 1.0, 3.0])["mean"] == 2.0
    assert mean_and_error([None, 1.0, 3.0])["standard_error"] == 1.0
    assert gain_of([0.5, None, 0.7], [0.4, 0.1, 0.4])["per_seed"] == [0.1, None, 0.3]


def test_both_recipes_are_those_of_the_design_and_differ_only_in_what_they_say():
    common, plain = load(plain_recipe(5)), load(mean_recipe(plain_recipe(5)))
    assert (common.rounds, common.local_steps, common.server.kind) == (100, 20, "momentum")
    assert (plain.rounds, plain.local_steps, plain.server.kind) == (40, 50, "mean")
    assert common.features == plain.features
    assert [one.normaliser.scale for one in common.features] != [
        one.normaliser.scale for one in load(alone_recipe(5)).features
    ]


def test_no_reported_seed_is_one_that_constants_were_chosen_on():
    asked = CliRunner().invoke(app, ["bench", "sim", "--seeds", str(min(CHOSEN_ON) + 1)])
    assert asked.exit_code == 2


def test_entropy_of_a_measurement_repeats_itself():
    first, again = RepeatableEntropy("a"), RepeatableEntropy("a")
    drawn = [first.token_bytes(8) for _ in range(3)]
    assert drawn == [again.token_bytes(8) for _ in range(3)]
    assert len(set(drawn)) == 3
    assert drawn[0] != RepeatableEntropy("b").token_bytes(8)


def _short(data: bytes) -> bytes:
    tree = json.loads(data)
    tree["rounds"], tree["train"]["local_steps"] = 2, 2
    return canonical(tree)


@pytest.mark.mujoco
@needs_simulator
def test_a_run_has_every_column_of_every_cell_and_one_seed_decides_no_goal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(bench_sim, "plain_recipe", lambda episodes: _short(plain_recipe(episodes)))
    monkeypatch.setattr(bench_sim, "_MEAN_ROUNDS", 2)
    monkeypatch.setattr(bench_sim, "_ALONE_STEPS", 4)
    monkeypatch.setattr(cells, "CELLS", {name: cells.CELLS[name] for name in "AC"})
    found = run(SimOptions(folder=tmp_path, episodes=1, seeds=1, rollouts=1, workers=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        f"cell-{name}-seed-0-episodes-5.npz" for name in "AC"
    ]
    row = found["problems"]["pick-place"]
    places = (row["local_own"], row["local_others"], row["federated"], *row["individual"].values())
    assert {one["n_rollouts"] for one in places} == {2}
    assert {one["met"] for one in found["goals"].values()} == {UNDETERMINED}
    shown = "\n".join(lines(found))
    for name in ("local own", "pooled", "federated mean", "individual others", "NOT PRIVATE"):
        assert name in shown
