# SPDX-License-Identifier: Apache-2.0
"""A real broker under something that plays systemd: ready, alive, silent while it is held, stopping."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING

import pytest

from tests.e2e.test_broker_process import made
from tests.systemdsim import systemd

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]


def test_a_process_that_is_held_says_nothing_and_one_that_goes_on_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with systemd() as listening, made(tmp_path) as broker:
        for name, value in listening.environ(watchdog_s=2).items():
            if name != "WATCHDOG_PID":
                monkeypatch.setenv(name, value)
        broker.start()
        assert listening.heard(60) == "READY=1"
        listening.waits_for("WATCHDOG=1")
        assert broker.running is not None
        broker.running.send_signal(signal.SIGSTOP)
        assert listening.falls_silent(2)
        broker.running.send_signal(signal.SIGCONT)
        listening.waits_for("WATCHDOG=1")
        assert broker.stop() == 0
        listening.waits_for("STOPPING=1")
