# SPDX-License-Identifier: Apache-2.0
"""The study of grip loss: its whole code path on a made-up recording of the same format, and the real one where it is."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.data.signalmap import parse_map
from policies.server_step import initial_state, server_step
from sandbox import bench_cobotops, cobotops_models
from sandbox.bench_cobotops import BEST_LOCAL, TUNED_ON, auroc, run
from sandbox.cli import app
from sandbox.cobotops import CHANNELS, CONSTANTS, FEATURES, SIGNAL_MAP, read_cycles, sites
from sandbox.cobotops_models import COMMON, LOCAL_WAYS, logistic, plan_of
from sandbox.errors import UsageError

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
REAL = SHARED / "ur3-cobotops"
CYCLES = 80
HEAD = (
    "Num;Timestamp;Current_J0;Temperature_T0;Current_J1;Temperature_J1;Current_J2;Temperature_J2;Current_J3;Temperature_J3;"
    "Current_J4;Temperature_J4;Current_J5;Temperature_J5;Speed_J0;Speed_J1;Speed_J2;Speed_J3;Speed_J4;Speed_J5;"
    "Tool_current;cycle ;Robot_ProtectiveStop;grip_lost;;;"
)


def write(folder: Path, *, again: int | None = None) -> Path:
    """Cycles of 12 readings; every fourth loses its grip, and its currents drop. ``again``: a number that comes back."""
    rng, rows, at = np.random.default_rng(7), [HEAD], 0
    for cycle in [*range(CYCLES), *([again] if again is not None else [])]:
        lost = cycle % 4 == 0
        for reading in range(12):
            current = rng.normal(0, 0.5 if lost else 1.5, 6)
            speed, warm = rng.normal(0, 0.2, 6), 25 + cycle / 10 + rng.normal(0, 0.1, 6)
            cells = [at, f"2022-10-26T{8 + at // 3600:02d}:{at // 60 % 60:02d}:{at % 60:02d}.000Z"]
            cells += [value for pair in zip(current, warm, strict=True) for value in pair]
            cells += [*speed, 0.08, cycle, "False", str(lost and reading > 8), "", "", ""]
            rows.append(
                ";".join(f"{c:.6f}".replace(".", ",") if isinstance(c, float) else str(c) for c in cells)
            )
            at += 1
    path = folder / "cobot.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench_cobotops, "DRAWS", 2)
    monkeypatch.setattr(cobotops_models, "_LOCAL_STEPS", 20)


@pytest.mark.usefixtures("quick")
def test_the_study_reports_every_way_and_repeats_itself(tmp_path: Path) -> None:
    write(tmp_path)
    found = run(tmp_path / "cobot.csv", seeds=(0, 1))
    assert (found["cycles"], found["lost"], found["sites"]) == (CYCLES, CYCLES // 4, 4)
    assert "NOT PRIVATE" in found["verdict"]
    ways = {
        (row["features"], row["way"], row["model"], row["epsilon"], row["noise"]) for row in found["rows"]
    }
    assert len(ways) == len(found["rows"]) == len(FEATURES) * (len(LOCAL_WAYS) + 2) + 4
    for row in found["rows"]:
        assert len(row["auroc"]["per_seed"]) == 2
        assert 0 <= row["auroc"]["mean"] <= 1
        assert row.get("plain_sum", False) == (row["noise"] == "shares")
    means = {row["way"]: row["auroc"]["mean"] for row in found["rows"] if row["features"] == "load"}
    assert min(means.values()) > 0.9  # what was planted is found
    assert {key: one["local"] for key, one in found["goal"].items() if "hindsight" not in key} == {
        f"{column}: {name}": ", ".join(best)
        for column in ("auroc", "auroc_own")
        for name, best in BEST_LOCAL.items()
    }
    for one in found["goal"].values():
        assert one["gain"] == pytest.approx(np.mean(one["per_seed"]), abs=1e-4)
    again = run(tmp_path / "cobot.csv", seeds=(0, 1))
    assert again["rows"] == found["rows"]


@pytest.mark.usefixtures("quick")
def test_the_command_prints_one_envelope(tmp_path: Path) -> None:
    write(tmp_path)
    done = CliRunner().invoke(app, ["bench", "cobotops", str(tmp_path), "--seeds", "3", "--json"])
    assert done.exit_code == 0, done.output
    envelope = json.loads(done.output)
    assert envelope["status"] == "ok"
    assert envelope["data"]["seeds"] == [3]
    assert all(row["auroc"]["sd"] is None for row in envelope["data"]["rows"])


def test_settings_are_not_reported_on_the_splits_that_they_were_chosen_on(tmp_path: Path) -> None:
    path = write(tmp_path)
    for source, seeds in ((path, (0, TUNED_ON[0])), (path, ()), (tmp_path / "none.csv", (0,))):
        with pytest.raises(UsageError, match=r"sandbox\.usage"):
            run(source, seeds=seeds)


def test_a_cycle_is_one_unit_and_one_row_and_a_number_that_returns_is_the_same_unit(tmp_path: Path) -> None:
    once = read_cycles(write(tmp_path))
    again = read_cycles(write(tmp_path, again=0))
    assert len(once) == len(again) == CYCLES
    assert {one.frames.inputs.shape for one in again} == {(1, 5)}
    assert [one.frames.unit_id for one in again] == [one.frames.unit_id for one in once]
    changed = [
        i
        for i, (a, b) in enumerate(zip(once, again, strict=True))
        if (a.frames.inputs != b.frames.inputs).any()
    ]
    assert changed == [0]  # nothing looks at two cycles
    sizes = {name: read_cycles(tmp_path / "cobot.csv", name)[0].frames.inputs.shape[1] for name in FEATURES}
    every = 2 * sum(CHANNELS.values())
    assert sizes == {
        "load": 5,
        "load by joint": 8,
        "no temperatures": every - 2 * CHANNELS["joint_temp"],
        "every channel": every,
    }


def test_the_load_is_the_effort_of_the_level_joints_and_its_spread_whatever_the_sign() -> None:
    steady = np.zeros((4, 6))
    steady[:, 1:4] = 3.0
    moving = steady * np.array([[1.0], [-1.0], [1.0], [-1.0]])
    tool = np.array([[0.0], [2.0], [0.0], [2.0]])
    others = {name: np.zeros((4, width)) for name, width in CHANNELS.items()}
    for currents, spread in ((steady, 0.0), (-steady, 0.0), (moving, 3.0)):
        row = FEATURES["load"]({**others, "joint_current": currents, "tool_current": tool})
        np.testing.assert_allclose(row, [3.0, spread, spread, spread, 1.0])


def test_the_servers_step_here_is_momentum_that_scales_no_noise_up() -> None:
    weights, state = np.zeros(2), initial_state(np.zeros(2), COMMON.server)
    after, _ = server_step(weights, np.array([0.1, 0.001]), state, COMMON.server, 0)
    np.testing.assert_allclose(after, -COMMON.rate * np.array([0.1, 0.001]), rtol=1e-3)
    assert not any(one.any() for one in [p.detach().numpy() for p in logistic(2).parameters()])


def test_each_cycle_lies_in_one_place(tmp_path: Path) -> None:
    cycles = read_cycles(write(tmp_path))
    pool = sites(cycles, seed=5)
    placed = [one.frames.unit_id for site in pool for part in (site.train, site.held_out) for one in part]
    assert sorted(placed) == sorted(one.frames.unit_id for one in cycles)
    assert len(set(placed)) == CYCLES
    assert {len(site.train) + len(site.held_out) for site in pool} == {CYCLES // 4}


def test_the_plan_holds_what_it_says_and_its_delta_is_small_enough() -> None:
    for epsilon in (2.0, 8.0):
        plan = plan_of(epsilon, "local-full")
        assert epsilon - 0.01 < plan.epsilon_rdp <= epsilon
        assert plan.unit == "work-piece"
        assert plan.check_units(1000) is None
    assert plan_of(8.0, "shares").honest_min == 3


def test_constants_are_public_intervals() -> None:
    assert set(CONSTANTS) == set(CHANNELS) == {one.field for one in parse_map(SIGNAL_MAP.encode()).signals}
    for one in CONSTANTS.values():
        assert one.why
        np.testing.assert_allclose(one.apply(np.array([one.low, one.high])), [-(3**0.5), 3**0.5])


def test_auroc_counts_ties_half_and_is_undetermined_for_one_class() -> None:
    positive = np.array([True, False, True, False])
    assert auroc(np.array([3.0, 1.0, 2.0, 0.0]), positive) == 1
    assert auroc(np.array([0.0, 1.0, 2.0, 3.0]), positive) == 0.25
    assert auroc(np.zeros(4), positive) == 0.5
    assert auroc(np.zeros(4), np.zeros(4, dtype=bool)) is None


@pytest.mark.real
@pytest.mark.skipif(not REAL.is_dir(), reason=f"no recordings in {REAL}; set IRIAI_SHARED")
def test_the_published_recording_gives_its_cycles() -> None:
    cycles = read_cycles(next(iter(REAL.glob("*.csv"))))
    assert (len(cycles), sum(one.lost for one in cycles)) == (238, 50)
    assert all(len(site.train) >= 40 for site in sites(cycles, seed=0))
