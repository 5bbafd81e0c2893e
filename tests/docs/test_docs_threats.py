# SPDX-License-Identifier: Apache-2.0
"""The threat model promises nothing without a test that tries it, and no attack is left out of it."""

from __future__ import annotations

import ast
import functools
import re
from pathlib import Path

from tests.docs.facts import ROOT

PAGE = ROOT / "docs/threat-model.md"
HEAD = ["id", "flow", "attacker", "gains", "control (module)", "test (path::name)", "residual risk"]


def rows(text: str) -> list[list[str]]:
    """Cells of the first table's rows."""
    lines = text.partition("| id |")[2].splitlines()
    found = []
    for line in lines[2:]:
        if not line.startswith("|"):
            break
        found.append([one.strip() for one in line.strip("|").split("|")])
    return found


def complaints(text: str, root: Path) -> list[str]:
    """What is wrong with the table."""
    found, seen, covered = [], set(), set()
    for row in rows(text):
        name = row[0]
        if len(row) != len(HEAD) or not all(row):
            found.append(f"{name}: {len(row)} cells, or an empty one")
            continue
        if name in seen:
            found.append(f"{name}: twice")
        seen.add(name)
        for test in [one.strip() for one in row[5].split(";")]:
            path, _, function = test.partition("::")
            covered.add(path)
            if function not in functions_of(root / path):
                found.append(f"{name}: no test {test}")
        found += [f"{name}: no module {one}" for one in modules(row[4]) if not (root / one).exists()]
    attacks = sorted(str(one.relative_to(root)) for one in (root / "tests/attack").rglob("test_*.py"))
    return found + [f"{one}: no row" for one in attacks if one not in covered]


def modules(control: str) -> list[str]:
    """Paths in the brackets at the end of a control."""
    return [one.strip() for one in re.findall(r"\(([^()]*)\)$", control)[0].split(",")]


@functools.cache
def functions_of(path: Path) -> set[str]:
    if not path.exists():
        return set()
    found = ast.walk(ast.parse(path.read_text("utf-8")))
    return {one.name for one in found if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)}


def test_every_threat_has_a_control_and_a_test_that_exist():
    text = PAGE.read_text("utf-8")
    assert "| " + " | ".join(HEAD) + " |" in text
    assert len(rows(text)) > 30
    assert complaints(text, ROOT) == []


# --- planted ---


def added(text: str) -> list[str]:
    """Complaints about a text that the page itself does not have."""
    return sorted(set(complaints(text, ROOT)) - set(complaints(PAGE.read_text("utf-8"), ROOT)))


def changed(name: str, cell: int, value: str) -> str:
    """The page with another value in one cell of one row."""
    lines = PAGE.read_text("utf-8").splitlines()
    at = next(i for i, line in enumerate(lines) if line.startswith(f"| {name} |"))
    cells = lines[at].split("|")
    cells[cell + 1] = value
    return "\n".join([*lines[:at], "|".join(cells), *lines[at + 1 :]])


def test_a_row_whose_test_does_not_exist_is_named():
    text = PAGE.read_text("utf-8").replace("::test_only_nine_paths_exist", "::test_gone")
    assert added(text) == ["E3: no test tests/attack/test_fleet_endpoint.py::test_gone"]


def test_a_row_whose_module_is_gone_is_named():
    assert added(changed("L1", 4, " aliases (policies/gone.py) ")) == ["L1: no module policies/gone.py"]


def test_a_row_without_a_test_is_named():
    assert added(changed("L1", 5, "  ")) == ["L1: 7 cells, or an empty one"]


def test_an_attack_without_a_row_is_named():
    rest = "\n".join(line for line in PAGE.read_text("utf-8").splitlines() if not line.startswith("| S3 |"))
    assert added(rest) == ["tests/attack/test_node_tls_pin.py: no row"]
