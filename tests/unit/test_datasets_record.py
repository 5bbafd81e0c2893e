# SPDX-License-Identifier: Apache-2.0
"""``data record`` before it reaches a server: what is not safe is refused, and a signal ends it in order.

Recording from a server is in ``tests/e2e/test_live_opcua.py``.
"""

from __future__ import annotations

import json
import os
import signal
import warnings
from typing import TYPE_CHECKING

import pytest

from client.data.errors import LiveInsecureError
from client.recording import password_of, until_told
from tests.datasetsim import write_map

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app

if TYPE_CHECKING:
    from pathlib import Path

SERVER = "opc.tcp://127.0.0.1:4840"


@pytest.mark.parametrize(
    ("endpoint", "more", "code"),
    [
        (SERVER, [], "data.live-insecure"),
        (SERVER, ["--user", "kita"], "data.live-insecure"),
        (SERVER, ["--password-file", "none.txt"], "data.live-insecure"),
        ("http://127.0.0.1:4840", ["--insecure-no-security"], "data.live-source"),
        ("opc.tcp://kita:secret@127.0.0.1:4840", ["--insecure-no-security"], "data.live-source"),
        (SERVER, ["--insecure-no-security"], "data.map-invalid"),  # its clock is the controller's
    ],
)
def test_what_cannot_be_recorded_safely_is_refused_and_leaves_no_file(
    tmp_path: Path, endpoint: str, more: list[str], code: str
) -> None:
    out, signal_map = tmp_path / "shift.parquet", write_map(tmp_path)
    line = ["data", "record", endpoint, "--map", str(signal_map), "--out", str(out), *more, "--json"]
    done = CliRunner().invoke(app, line, catch_exceptions=False)
    error = json.loads(done.stdout)["error"]
    assert (error["code"], done.exit_code) == (
        code,
        {"data.live-insecure": 4, "data.live-source": 5}.get(code, 3),
    )
    assert "secret" not in done.stdout + done.stderr
    assert sorted(one.name for one in tmp_path.iterdir()) == ["map.toml"]


def test_a_password_comes_from_a_file_without_its_line_end(tmp_path: Path) -> None:
    (tmp_path / "password").write_bytes(b" two words \r\n")
    assert password_of(tmp_path / "password") == " two words "
    assert password_of(None) is None
    (tmp_path / "password").write_bytes(b"\xff")
    for bad in ("password", "none"):
        with pytest.raises(LiveInsecureError):
            password_of(tmp_path / bad)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_recording_and_the_old_handler_is_back(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with until_told() as stop:
        assert not stop.is_set()
        os.kill(os.getpid(), number)
        assert stop.wait(5)
    assert signal.getsignal(number) is before
