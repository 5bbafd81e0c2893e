# SPDX-License-Identifier: Apache-2.0
"""The benchmark on real recordings: columns, one class, absent data; the real path where recordings are."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.learning.tensors import EpisodeArrays
from policies.encoding import canonical
from policies.recipe import load
from sandbox import real_cobotops, real_ur10
from sandbox.bench_columns import COLUMNS, UNDETERMINED, columns_checked
from sandbox.bench_real import CHOSEN_ON, ONE_ROBOT, lines, measured, run
from sandbox.cli import app
from sandbox.real_cobotops import LABEL, SHARES, sites
from sandbox.real_problem import SITES, Problem

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
needs_recordings = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"no recordings in {SHARED}; set IRIAI_SHARED"
)


def cycle(number: int, *, lost: bool) -> list[EpisodeArrays]:
    """A made-up cycle of ten seconds; where the grip is lost, the currents drop."""
    rng = np.random.default_rng(number)
    readings = {
        "joint_current": rng.normal(0.3 if lost else 1.5, 0.2, (10, 6)),
        "joint_temp": rng.normal(313, 1, (10, 6)),
        "joint_vel": rng.normal(0, 0.3, (10, 6)),
        "tool_current": rng.normal(0.3, 0.05, (10, 1)),
    }
    return [
        EpisodeArrays(
            observation={name: values.astype(np.float32) for name, values in readings.items()},
            action={},
            labels={LABEL: np.full(10, int(lost))},
            unit_id=f"{number}".encode().rjust(32, b"0"),
        )
    ]


def short(problem: Problem) -> Problem:
    tree = json.loads(problem.recipe.canonical)
    tree["rounds"], tree["train"]["local_steps"] = 3, 5
    return replace(problem, recipe=load(canonical(tree)), alone_steps=15, own_steps=5)


def made_up(*, every: int) -> Problem:
    cycles = [cycle(number, lost=number % every == 0) for number in range(80)]
    return short(
        Problem(
            name="made-up",
            figure="AUROC",
            lower_is_better=False,
            recipe=load(real_cobotops.recipe_bytes()),
            alone_steps=1,
            sites=lambda seed: sites(cycles, seed, share=0.6),
            score=real_cobotops._score,
            undefined="one class only",
        )
    )


def test_units_that_train_select_and_report_are_apart_and_shares_report_on_the_same():
    cycles = [cycle(number, lost=number % 4 == 0) for number in range(80)]
    seen: dict[float, list[list[set[bytes]]]] = {}
    for share in SHARES:
        pool = sites(cycles, 3, share=share)
        assert len(pool) == SITES
        parts = [[{e.unit_id for e in part} for part in (s.train, s.select, s.report)] for s in pool]
        for train, select, report in parts:
            assert train.isdisjoint(select | report)
            assert select.isdisjoint(report)
        assert len(parts[0][0]) == round(share * 20)
        seen[share] = parts
    assert [one[1:] for one in seen[SHARES[0]]] == [one[1:] for one in seen[SHARES[1]]]


def test_every_column_is_measured_and_a_repetition_gives_the_same():
    first, again = (measured(made_up(every=3), range(2)) for _ in range(2))
    columns_checked({"made-up": first})
    assert set(COLUMNS) <= set(first)
    for one in (first, again):
        one.pop("cpu_s")
    assert first == again
    assert first["goals"]["within_an_error_of_pooled"]["met"] == UNDETERMINED  # two seeds decide nothing


def test_one_class_alone_is_undetermined_and_never_a_pass():
    problem = made_up(every=3)
    kept = problem.sites(0)
    planted = tuple(
        replace(site, report=[one for one in site.report if not one.labels[LABEL].any()]) for site in kept
    )
    row = measured(replace(problem, sites=lambda _seed: planted), range(5))
    columns_checked({"made-up": row})
    for column in ("local_own", "pooled", "federated"):
        assert (row[column]["mean"], row[column]["reason"]) == (UNDETERMINED, "one class only")
    assert {one["met"] for one in row["goals"].values()} == {UNDETERMINED}
    one_left = (kept[0], *planted[1:])
    row = measured(replace(problem, sites=lambda _seed: one_left), range(1))
    assert row["pooled"]["mean"] != UNDETERMINED


def test_the_table_says_that_there_is_one_robot():
    row = measured(made_up(every=3), range(1))
    found = {
        "marking": ["NOT PRIVATE"],
        "note": ONE_ROBOT,
        "settings": {"seeds": [0]},
        "skipped": {"ur10": "no recording"},
        "problems": {"made-up": row},
    }
    shown = "\n".join(lines(found))
    assert "skipped ur10: no recording" in shown
    assert shown.index("pooled") < shown.index(ONE_ROBOT)


def test_absent_recordings_are_skipped_with_their_reason(tmp_path: Path):
    found = run(tmp_path)
    assert set(found["skipped"]) == {"ur10", "cobotops"}
    assert all("no recording" in reason for reason in found["skipped"].values())
    done = CliRunner().invoke(app, ["bench", "real", "--data", str(tmp_path)])
    assert done.exit_code == 0
    assert "skipped ur10" in done.stdout


def test_no_reported_seed_is_one_that_settings_were_chosen_on(tmp_path: Path):
    asked = ["bench", "real", "--data", str(tmp_path), "--seeds", str(min(CHOSEN_ON) + 1)]
    assert CliRunner().invoke(app, asked).exit_code == 2


@pytest.mark.real
@needs_recordings
def test_the_real_recordings_come_through_readers_and_recipe_features():
    for problem, sites_of in (
        (real_ur10.problem(SHARED), 6),
        (real_cobotops.problems(SHARED)[0], 12),
    ):
        pool = problem.sites(0)
        assert len(pool) == SITES
        assert len({e.unit_id for e in pool[0].train}) == sites_of
        row = measured(short(problem), range(1))
        columns_checked({problem.name: row})
