# SPDX-License-Identifier: Apache-2.0
"""The recordings of `bench ingest` are recordings: every format gives all its episodes, and the table says so."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from typer.testing import CliRunner

from client.data.store import Store
from sandbox.bench_ingest import lines
from sandbox.cli import app
from sandbox.ingest_sets import FIELDS, FORMATS, write_set
from tests.datasim import bring

if TYPE_CHECKING:
    from pathlib import Path


@pytest.mark.parametrize("kind", FORMATS)
def test_every_episode_of_every_format_is_imported_and_none_is_excluded(tmp_path: Path, kind: str) -> None:
    made = write_set(tmp_path, kind, 1.0)
    report = bring(tmp_path / "s", made.source, signal_map=made.signal_map, allow=frozenset(FIELDS))
    assert (report.episodes_added, report.excluded) == (made.episodes, 0)
    assert report.frames_added <= made.frames
    if kind != "mtconnect":  # the row at which a program ends belongs to no attempt
        assert report.frames_added == made.frames
    columns = Store(tmp_path / "s").catalogue().dataset("kita/pick").columns
    assert columns["observation.joint_pos"] == 6
    assert 0.1 < made.megabytes < 3


def test_an_unknown_format_is_refused() -> None:
    said = CliRunner().invoke(app, ["bench", "ingest", "--formats", "csv,xls"])
    assert said.exit_code == 2


@pytest.mark.slow
def test_the_bench_measures_in_a_process_of_its_own_and_keeps_the_bytes() -> None:
    said = CliRunner().invoke(app, ["bench", "ingest", "--mb", "0.3", "--formats", "parquet", "--json"])
    assert said.exit_code == 0
    found = json.loads(said.stdout)["data"]
    (row,) = found["formats"]
    assert row["imported"] == row["episodes"]
    assert row["peak_mb"] is None or row["peak_mb"] > 1
    assert found["round_trip"]["same"]
    assert lines(found)[1].startswith("parquet")
    assert lines(found)[-1].endswith("the same bytes")
