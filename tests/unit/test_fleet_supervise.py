# SPDX-License-Identifier: Apache-2.0
"""The node's parent process, over workers that are one line of Python."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from client.federation.supervise import ENDS, supervise

if TYPE_CHECKING:
    from collections.abc import Mapping


def _supervise(code: str, **named: float) -> tuple[int, list[tuple[str, Mapping[str, int]]]]:
    seen: list[tuple[str, Mapping[str, int]]] = []
    found = supervise(
        [sys.executable, "-S", "-c", code], on_event=lambda name, facts: seen.append((name, facts)), **named
    )
    return found, seen


def _stop_after(seconds: float) -> None:
    threading.Timer(seconds, os.kill, (os.getpid(), signal.SIGTERM)).start()


def test_a_worker_that_ends_well_without_being_told_to_is_started_again() -> None:
    _stop_after(0.7)
    found, seen = _supervise("pass", first_s=0.02)
    assert found == 0  # as this process was stopped
    assert [name for name, _ in seen].count("started") > 1
    assert [facts["ms"] for name, facts in seen if name == "waiting"]


def test_a_worker_that_fails_comes_back_after_growing_pauses(tmp_path: Path) -> None:
    mark = tmp_path / "tries"
    code = f"import sys; f = open({str(mark)!r}, 'a+'); f.seek(0); n = len(f.read()); f.write('x'); sys.exit(3 if n < 3 else 7)"
    found, seen = _supervise(code, first_s=0.02)
    assert found == 7
    pauses = [facts["ms"] for name, facts in seen if name == "waiting"]
    assert len(pauses) == 3
    for pause, longest in zip(pauses, (20, 40, 80), strict=True):
        assert longest * 0.8 <= pause + 1 <= longest + 1
    assert [facts["code"] for name, facts in seen if name == "ended"] == [3, 3, 3, 7]


@pytest.mark.parametrize("code", sorted(ENDS))
def test_a_worker_that_needs_a_person_is_not_started_again(code: int) -> None:
    found, seen = _supervise(f"raise SystemExit({code})")
    assert found == code
    assert [name for name, _ in seen] == ["started", "ended"]


def test_an_unknown_key_is_tried_again_rarely() -> None:
    _stop_after(0.5)
    began = time.monotonic()
    found, seen = _supervise("raise SystemExit(6)")
    assert found == 0
    assert time.monotonic() - began < 2
    assert [facts["ms"] for name, facts in seen if name == "waiting"] == [300_000]


def test_sigterm_stops_a_worker_that_does_not_listen() -> None:
    _stop_after(0.5)
    code = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
    began = time.monotonic()
    found, seen = _supervise(code)
    assert found == 0
    assert time.monotonic() - began < 4
    pid = seen[0][1]["pid"]
    assert not Path(f"/proc/{pid}").exists()


def test_the_parent_is_small() -> None:
    code = "import sys, client.federation.supervise; print(sorted({'flwr', 'torch', 'numpy', 'cryptography'} & set(sys.modules)))"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
