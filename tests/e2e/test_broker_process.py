# SPDX-License-Identifier: Apache-2.0
"""A real broker process on loopback, over TLS, used through its command line."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import httpx
import pytest

from broker.boot import initialise, load_keys
from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.keyfiles import make_key
from broker.remote import target_of
from broker.settings import Settings

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]
CLI = (sys.executable, "-W", "ignore::DeprecationWarning", "-m", "broker.cli")
ROOT = Path(__file__).parents[2]
PATIENCE_S = 60


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as one:
        return int(one.getsockname()[1])


@dataclass
class Process:
    """One broker in a folder, started and stopped as a test likes."""

    root: Path
    port: int = field(default_factory=free_port)
    running: subprocess.Popen[str] | None = None

    @property
    def folder(self) -> Path:
        return self.root / "D"

    def key(self, name: str) -> Path:
        return self.root / f"{name}.key"

    def run(self, *line: str, code: int = 0) -> dict:
        """Runs a command with ``--json``; its data, or its error."""
        done = subprocess.run([*CLI, *line, "--json"], capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == code, done.stderr
        envelope = json.loads(done.stdout)
        return envelope["data"] if code == 0 else envelope["error"]

    def as_operator(self, name: str, *line: str, code: int = 0) -> dict:
        return self.run(*line, "--dir", str(self.folder), "--key", str(self.key(name)), code=code)

    def make(self) -> None:
        operators = {name: make_key(self.key(name), SystemEntropy()).public for name in ("alice", "bob")}
        initialise(
            self.folder,
            url=self.url(""),
            operators=operators,
            clock=SystemClock(),
            entropy=SystemEntropy(),
        )

    def start(self) -> None:
        line = [*CLI, "serve", "--dir", str(self.folder), "--json"]
        self.running = subprocess.Popen(
            line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.running.stdout is not None
        ready = self.running.stdout.readline()
        assert '"ready":true' in ready, self.running.stderr.read() if self.running.stderr else ready

    def stop(self, number: int = signal.SIGTERM) -> int:
        assert self.running is not None
        self.running.send_signal(number)
        self.running.communicate(timeout=PATIENCE_S)
        code, self.running = self.running.returncode, None
        return code

    def context(self) -> ssl.SSLContext:
        return ssl.create_default_context(cadata=target_of(self.folder, None, None).certificate)

    def url(self, path: str) -> str:
        return f"https://127.0.0.1:{self.port}{path}"


@contextlib.contextmanager
def made(root: Path) -> Iterator[Process]:
    one = Process(root)
    one.make()
    try:
        yield one
    finally:
        if one.running is not None:
            one.running.kill()
            one.running.communicate()


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Process]:
    """A broker of one test, not started."""
    with made(tmp_path) as one:
        yield one


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Process]:
    """A running broker that tests share and do not stop."""
    with made(tmp_path_factory.mktemp("shared")) as one:
        one.start()
        yield one


def test_a_port_in_use_is_a_clear_error_and_nothing_is_lost(fresh):
    with socket.create_server(("127.0.0.1", fresh.port)):
        done = subprocess.run(
            [*CLI, "serve", "--dir", str(fresh.folder)], capture_output=True, text=True, cwd=ROOT, check=False
        )
    assert done.returncode == 3
    assert done.stderr.startswith("broker.port-in-use\n")
    assert str(fresh.port) in done.stderr
    assert "remedy" in done.stderr
    assert "Traceback" not in done.stderr
    assert fresh.as_operator("alice", "status", code=5)["code"] == "broker.unreachable"
    fresh.start()
    assert fresh.as_operator("alice", "status")["log"]["size"] == 5


def test_what_was_acknowledged_survives_a_stop_and_a_kill(fresh):
    fresh.start()
    invite = ("invite", "--name", "Kita KK", "--country", "JP", "--group", "kita")
    assert set(fresh.as_operator("alice", *invite)) == {"id", "invite", "expires"}
    begun = time.monotonic()
    assert fresh.stop() == 0
    assert time.monotonic() - begun < 15
    fresh.start()
    fresh.as_operator("bob", *invite)
    before = fresh.as_operator("bob", "status")["log"]
    assert fresh.stop(signal.SIGKILL) == -signal.SIGKILL
    fresh.start()
    assert fresh.as_operator("bob", "status")["log"] == before
    assert before["size"] == 7


def test_two_processes_do_not_serve_one_folder(broker):
    line = [*CLI, "serve", "--dir", str(broker.folder), "--port", str(free_port())]
    second = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert second.returncode == 75
    assert "engine.already-running" in second.stderr


def test_from_outside_only_documented_paths_answer(broker):
    with httpx.Client(verify=broker.context(), trust_env=False) as http:
        assert http.get(broker.url("/api/v1/broker")).status_code == 200
        for path in ("/", "/api/v1/nothing"):
            answer = http.get(broker.url(path))
            assert (answer.status_code, answer.json()["code"]) == (404, "request.not-found")
        for path in ("/docs", "/openapi.json"):  # for people who are signed in
            answer = http.get(broker.url(path))
            assert (answer.status_code, answer.headers["location"][:15]) == (303, "/console/login?")
        for path in (
            "/v1/control/start-run",
            "/v1/control/list-runs",
            "/v1/runtime/pull-object",
            "/v1/simulation/x",
            "/v1/fleet/create-node",
            "/v1/fleet/get-fab",
            "/v1/fleet/",
        ):
            for method in ("GET", "POST"):
                answer = http.request(
                    method, broker.url(path), headers={"content-type": "application/protobuf"}
                )
                assert (answer.status_code, answer.content) == (404, b""), path
        assert "server" not in http.get(broker.url("/")).headers


def test_a_plain_connection_and_another_certificate_get_nothing(broker, tmp_path):
    with pytest.raises(httpx.HTTPError):
        httpx.get(f"http://127.0.0.1:{broker.port}/api/v1/broker", timeout=5, trust_env=False)
    with pytest.raises(httpx.ConnectError):
        httpx.get(broker.url("/api/v1/broker"), timeout=5, trust_env=False)
    wrong = ("--url", broker.url(""), "--tls-sha256", "00" * 32, "--key", str(broker.key("alice")))
    assert broker.run("status", *wrong, code=6)["code"] == "broker.certificate-pin"


def test_an_operator_elsewhere_uses_url_and_pin(broker):
    pin = load_keys(Settings.load(broker.folder)).tls_sha256
    there = ("--url", broker.url(""), "--tls-sha256", pin, "--key", str(broker.key("alice")))
    assert broker.run("members", *there) == {"organisations": []}


def test_a_strangers_key_is_refused_with_exit_6(broker):
    make_key(broker.key("carol"), SystemEntropy())
    assert broker.as_operator("carol", "status", code=6)["code"] == "identity.unknown-key"


def test_an_auditor_takes_policy_and_bundle(broker, tmp_path):
    policy = broker.as_operator("alice", "audit", "policy")["policy"]
    assert policy.startswith("# WARNING")
    (tmp_path / "policy.txt").write_text(policy)
    taken = broker.as_operator("alice", "audit", "bundle", "--out", str(tmp_path / "b.zip"))
    assert taken["size_bytes"] == (tmp_path / "b.zip").stat().st_size
    assert broker.as_operator("alice", "audit", "bundle", "--out", str(tmp_path / "b.zip"), code=2)["code"]
    line = [
        sys.executable,
        "-m",
        "policies.verify",
        str(tmp_path / "b.zip"),
        "--policy",
        str(tmp_path / "policy.txt"),
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_hostile_name_does_not_reach_the_terminal(broker):
    line = [
        *CLI,
        "invite",
        "--name",
        "Kita\x1b[2J",
        "--country",
        "JP",
        "--group",
        "kita",
        "--dir",
        str(broker.folder),
        "--key",
        str(broker.key("alice")),
    ]
    done = subprocess.run(line, capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 2
    assert "\x1b" not in done.stdout + done.stderr


def test_a_slow_sender_does_not_keep_others_waiting(broker):
    with contextlib.ExitStack() as stack:
        for _ in range(50):
            raw = stack.enter_context(socket.create_connection(("127.0.0.1", broker.port), timeout=10))
            tls = stack.enter_context(broker.context().wrap_socket(raw, server_hostname="127.0.0.1"))
            tls.sendall(b"POST /api/v1/operator/invites HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\n{")
        begun = time.monotonic()
        assert broker.as_operator("alice", "status")["log"]["frozen"] is None
        assert time.monotonic() - begun < 30
