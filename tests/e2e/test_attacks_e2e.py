# SPDX-License-Identifier: Apache-2.0
"""The page about attacks, typed: each attack was real, each was refused, and the evidence holds.

The page's `attack run all` takes minutes; here it is `fork`, whose evidence the page looks at by hand, unless
``IRIAI_ATTACKS=all`` asks for the page as it stands.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from sandbox.attacks.playing import ATTACKS
from sandbox.federation import PROCESSES
from sandbox.processes import is_running
from tests.docs.commandlines import blocks

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e, pytest.mark.mujoco]

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "try-attacks.md"
FOLDER = "build/attacks"
REFUSED = {
    "replay": {"identity.replayed", "identity.signature-invalid"},
    "swap": {"identity.signature-invalid"},
    "foreign-id": {"request.not-found", "identity.wrong-role"},
    "alone": {"proposal.own", "identity.signature-invalid", "proposal.digest"},
    "bomb": {"AUD-001"},
    "fork": {"AUD-100"},
    "overgrown": {"secagg.sum-wrong"},
    "cohort": {"secagg.cohort-too-small"},
    "budget": {"contract.refused"},
    "rewrite": {"log.frozen", "AUD-020"},
}
CLAUSES = {"overgrown": "k-1", "cohort": "k-1", "budget": "dp-1"}


def typed(script: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """What somebody sees who types it, with our commands on the path."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["/bin/bash", "-ec", script],
        cwd=cwd,
        env=os.environ | {"PATH": path},
        capture_output=True,
        text=True,
        check=False,
        timeout=900,
    )


def test_every_attack_is_carried_out_and_every_defence_holds(tmp_path: Path) -> None:
    pytest.importorskip("mujoco", reason="the sandbox extra is not installed")
    tried, compared = [one.text for one in blocks(PAGE.read_text("utf-8")) if one.language == "sh"]
    wanted = os.environ.get("IRIAI_ATTACKS", "fork")
    assert "attack run all" in tried
    done = typed(tried.strip().replace("attack run all", f"attack run {wanted}") + " --json", tmp_path)
    assert done.stdout, done.stderr[-4_000:]
    found = json.loads(done.stdout.splitlines()[-1])["data"]
    failed = [
        (one["attack"], check) for one in found["attacks"] for check in one["checks"] if not check["held"]
    ]
    assert (failed, done.returncode) == ([], 0), done.stderr[-4_000:]
    names = [one["attack"] for one in found["attacks"]]
    assert names == (list(ATTACKS) if wanted == "all" else [wanted])
    refused = {one["attack"]: one["refused"] for one in found["attacks"]}
    codes = {name: {one["code"] for one in what} for name, what in refused.items()}
    assert codes == {name: REFUSED[name] for name in names}
    clauses = {name: refused[name][0]["clause"] for name in CLAUSES.keys() & refused.keys()}
    assert clauses == {name: clause for name, clause in CLAUSES.items() if name in names}
    left = json.loads((tmp_path / FOLDER / PROCESSES).read_text("utf-8"))
    assert [name for name, pid in left.items() if is_running(pid)] == []
    by_hand = typed(compared, tmp_path)
    assert (by_hand.returncode, "AUD-100" in by_hand.stdout + by_hand.stderr) == (3, True), by_hand.stderr
