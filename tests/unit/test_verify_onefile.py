# SPDX-License-Identifier: Apache-2.0
"""The verifier as one file: the same bytes each time, and nothing else is needed to run it."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from policies.log.policy import policy_text
from policies.verify.onefile import build, main
from policies.verify.toolid import tool_digest
from tests.auditsim import PoolSim

# whatever is neither in the standard library nor one of these two (and what they load) is not there
BLOCKED = """
import runpy, sys

ALLOWED = {"cryptography", "rfc8785", "cffi", "_cffi_backend", "_openssl", "policies", "__main__"}


class Absent:
    def find_spec(self, name, path=None, target=None):
        top = name.partition(".")[0]
        if top not in ALLOWED and top not in sys.stdlib_module_names:
            asked.append(top)
            raise ModuleNotFoundError(name)


asked = []
sys.meta_path.insert(0, Absent())
sys.argv = sys.argv[1:]
try:
    runpy.run_path(sys.argv[0], run_name="__main__")
finally:
    import policies

    print("from", policies.__file__)
    print("asked for", sorted(set(asked)))
    foreign = {name.partition(".")[0] for name in sys.modules} - ALLOWED - set(sys.stdlib_module_names)
    print("loaded", sorted(one for one in foreign if not one.startswith("__") and "distutils" not in one))
"""


@pytest.fixture(scope="module")
def file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onefile") / "build" / "iriai-verify.pyz"
    assert main([str(path)]) == 0
    return path


def test_the_same_sources_give_the_same_bytes(file) -> None:
    assert build() == build() == file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        names = archive.namelist()
        assert names == sorted(names)
        assert {one.date_time for one in archive.infolist()} == {(1980, 1, 1, 0, 0, 0)}
        assert all(name.startswith("policies/") or name == "__main__.py" for name in names)
        assert not [name for name in names if "__pycache__" in name]


def test_it_runs_where_only_cryptography_and_rfc8785_are(file, tmp_path) -> None:
    sim = PoolSim().build()
    (tmp_path / "bundle.zip").write_bytes(sim.bundle())
    (tmp_path / "policy.txt").write_text(policy_text(sim.policy), encoding="utf-8")
    words = [str(file), "bundle.zip", "--policy", "policy.txt", "--report", "r.html", "--lang", "ja"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", BLOCKED, *words],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert "サイズ 82 まで完全" in done.stderr
    assert f"from {file}" in done.stdout
    assert "loaded []" in done.stdout
    assert tool_digest() in (tmp_path / "r.html").read_text("utf-8")


def test_every_command_is_in_it(file) -> None:
    done = subprocess.run(
        [sys.executable, "-I", str(file), "--help"], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0
    for name in (
        "verify",
        "show",
        "sample",
        "explain",
        "receipt",
        "compare-checkpoints",
        "conclude",
        "witness",
    ):
        assert name in done.stdout


def test_another_number_of_words_is_a_usage_error(capsys) -> None:
    assert main([]) == 2
    assert "usage" in capsys.readouterr().err
