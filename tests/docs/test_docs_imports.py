# SPDX-License-Identifier: Apache-2.0
"""Who may import whom: asked in fresh interpreters, and by import-linter on a copy with a planted import."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.facts import PACKAGES, ROOT

LINTER = Path(sys.executable).parent / "lint-imports"


def loaded_after(statement: str) -> set[str]:
    """Top-level names in ``sys.modules`` of a fresh interpreter after one statement."""
    program = f"import sys\n{statement}\nimport json\nprint(json.dumps(sorted({{one.split('.')[0] for one in sys.modules}})))"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
        timeout=120,
    )
    return set(json.loads(done.stdout))


@pytest.mark.parametrize(
    "statement",
    [
        "import policies.verify",
        "from policies.verify import main",
        "import policies.verify.run, policies.verify.cli",
    ],
)
def test_the_verifier_loads_neither_pydantic_nor_numpy(statement):
    heavy = {
        "pydantic",
        "numpy",
        "torch",
        "yaml",
        "http_message_signatures",
        "broker",
        "client",
        "sandbox",
        "typer",
        "sqlalchemy",
    }
    assert loaded_after(statement) & heavy == set()


def test_the_root_of_the_ground_floor_loads_nothing():
    assert loaded_after("import policies") & {"pydantic", "numpy", "cryptography", "rfc8785"} == set()


@pytest.mark.slow
def test_the_broker_loads_no_learning_code():
    assert (
        loaded_after("import broker.app, broker.composition, broker.commands, broker.cli")
        & {"torch", "opacus", "client", "sandbox"}
        == set()
    )


@pytest.mark.parametrize(
    "module", ["client.cli", "client.guard", "client.outbox", "client.transport", "client.data"]
)
def test_the_nodes_commands_load_no_learning_code(module):
    assert loaded_after(f"import {module}") & {"torch", "opacus", "broker", "sandbox"} == set()


# --- import-linter ---


def lint(root: Path) -> subprocess.CompletedProcess[str]:
    """import-linter over a tree, in an interpreter that finds the packages there first."""
    import os

    return subprocess.run(
        [str(LINTER), "--no-cache"],
        capture_output=True,
        text=True,
        check=False,
        cwd=root,
        timeout=300,
        env={**os.environ, "PYTHONPATH": str(root), "NO_COLOR": "1"},
    )


@pytest.fixture
def tree(tmp_path):
    """A copy of the packages and of the contracts."""
    for package in PACKAGES:
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


@pytest.mark.slow
def test_every_import_contract_is_kept(tree):
    done = lint(tree)
    assert done.returncode == 0, done.stdout[-4_000:] + done.stderr[-2_000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "line", "contract"),
    [
        ("broker/catalogue/service.py", "import client.errors", "sandbox over broker and client"),
        ("broker/federation/aggregate.py", "import torch", "the broker holds no learning code"),
        ("policies/encoding.py", "import httpx", "the ground floor knows no framework"),
        ("policies/encoding.py", "import broker.errors", "sandbox over broker and client"),
        ("policies/verify/report.py", "import numpy", "the verifier"),
        ("client/guard.py", "import torch", "torch lives in client.learning"),
        ("broker/runs/service.py", "import flwr", "Flower is touched in one place"),
        ("broker/store/session.py", "import broker.services", "inside the broker"),
        ("policies/errors.py", "import policies.signing", "inside policies"),
    ],
)
def test_a_planted_import_breaks_its_contract(tree, path, line, contract):
    file = tree / path
    text = file.read_text("utf-8")
    file.write_text(
        text.replace(
            "from __future__ import annotations\n", f"from __future__ import annotations\n\n{line}\n", 1
        ),
        "utf-8",
    )
    assert line in file.read_text("utf-8")
    done = lint(tree)
    broken = [one for one in done.stdout.splitlines() if " BROKEN" in one]
    assert done.returncode == 1, done.stdout[-2_000:] + done.stderr[-2_000:]
    assert any(contract in one for one in broken), done.stdout[-3_000:]
