# SPDX-License-Identifier: Apache-2.0
"""The ten lines with which the auditor's page redoes a sum by hand do redo it."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

from policies.contract import from_tree
from policies.encoding import digest
from policies.secagg.agreed import agreed_terms
from policies.secagg.packing import unpack
from policies.secagg.record import Record
from policies.secagg.transcript import check, recompute
from tests.auditsim import RUN
from tests.docs.commandlines import blocks
from tests.docs.facts import ROOT
from tests.sumsim import SummedSim

PAGE = ROOT / "docs" / "how-to" / "auditor.md"
NAMES = {"json": json, "zipfile": zipfile, "Path": Path, "from_tree": from_tree, "Record": Record}
CALLS = {"agreed_terms": agreed_terms, "check": check, "recompute": recompute}


def test_the_lines_of_the_page_give_the_sum_that_the_log_names(tmp_path, monkeypatch, capsys):
    (lines,) = [one.text for one in blocks(PAGE.read_text("utf-8")) if one.language == "python"]
    sim = SummedSim().build()
    (tmp_path / "audit.zip").write_bytes(sim.bundle())
    (tmp_path / "vectors").mkdir()
    for name, data in sim.vectors_by_digest().items():
        (tmp_path / "vectors" / name.removeprefix("sha256:")).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    opened = sim.opened[1]
    asked = {
        "contract": sim.contract.digest.removeprefix("sha256:"),
        "recipe": digest(sim.recipe).removeprefix("sha256:"),
        "run": RUN,
        "transcript": digest(opened.transcript).removeprefix("sha256:"),
    }
    exec(lines, NAMES | CALLS | asked)  # noqa: S102  the page's own lines
    assert capsys.readouterr().out == f"{opened.sums[0]} said: {opened.sums[0]}\n"


def test_the_table_of_the_page_has_a_row_for_each_part_of_a_transcript():
    parts = unpack(SummedSim().build().opened[1].transcript)
    section = PAGE.read_text("utf-8").split("### A sum, by hand")[1]
    assert all(f"\n| {number} | " in section for number in range(len(parts)))
    assert f"\n| {len(parts)} | " not in section
