# SPDX-License-Identifier: Apache-2.0
"""A real broker process on PostgreSQL, from `init --database` to a bundle that the auditor's program verifies."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from broker.entropy import SystemEntropy
from broker.keyfiles import make_key
from policies.identity import key_text
from tests import pgserver
from tests.e2e.test_broker_process import ROOT, Process
from tests.pgserver import BROKER, OWNER

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = [
    pytest.mark.enable_socket,
    pytest.mark.e2e,
    pytest.mark.skipif(pgserver.unavailable() is not None, reason=str(pgserver.unavailable())),
]
NODE = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", "client.cli")


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    one = Process(tmp_path)
    try:
        yield one
    finally:
        if one.running is not None:
            one.running.kill()
            one.running.communicate()


def node(folder: Path, *line: str) -> dict:
    done = subprocess.run(
        [*NODE, *line, "--dir", str(folder), "--json"], capture_output=True, text=True, cwd=ROOT, check=False
    )
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout)["data"])


def verify(process: Process, name: str) -> None:
    bundle, policy = process.root / f"{name}.zip", process.root / "policy.txt"
    policy.write_text(process.as_operator("alice", "audit", "policy")["policy"])
    process.as_operator("alice", "audit", "bundle", "--out", str(bundle))
    line = [sys.executable, "-m", "policies.verify", str(bundle), "--policy", str(policy)]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_broker_on_postgresql_from_its_first_command_to_a_verified_bundle(process: Process) -> None:
    server = pgserver.shared()
    server.empty("iriai")
    server.empty("iriai_private", BROKER)
    keys = {name: make_key(process.key(name), SystemEntropy()).public for name in ("alice", "bob")}
    operators = [part for name, key in keys.items() for part in ("--operator", f"{name}={key_text(key)}")]
    databases = ["--database", server.url("iriai"), "--private-database", server.url("iriai_private")]
    here = ["--dir", str(process.folder)]
    init = ["init", *here, "--url", process.url(""), *operators, *databases]
    assert process.run(*init, code=3)["code"] == "store.not-migrated"
    assert process.run(*init, "--database-owner", server.url("iriai", OWNER))["operators"] == ["alice", "bob"]
    process.start()
    invite = ["invite", "--name", "Kita KK", "--country", "JP", "--group", "kita"]
    invitation = process.as_operator("alice", *invite)["invite"]
    made = node(process.root / "node", "init")
    node(process.root / "node", "join", process.url(""), invitation, "--yes")
    for who in ("alice", "bob"):
        listed = process.as_operator(who, "members")["organisations"][0]
        process.as_operator(who, "approve", listed["org"], "--fingerprint", made["fingerprint"])
    before = process.as_operator("bob", "status")["log"]
    verify(process, "first")
    assert process.stop(signal.SIGKILL) == -signal.SIGKILL
    migrated = process.run("db", "migrate", *here, "--database-owner", server.url("iriai", OWNER))
    assert migrated["auditor"] is None
    server.restart()
    process.start()
    assert process.as_operator("bob", "members")["organisations"][0]["state"] == "active"
    assert process.as_operator("bob", "status")["log"]["size"] > before["size"]
    verify(process, "second")
    assert not list(process.folder.glob("broker.db*"))
    assert process.stop() == 0
