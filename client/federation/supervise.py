# SPDX-License-Identifier: Apache-2.0
"""The parent process of a node: keeps one worker running.

Standard library only, so that it stays small and cannot break.

- A worker that ends is started again after 1, 2, 4 … `WORKER_BACKOFF_CAP_S` seconds, each with jitter; one
  that lived
  `WORKER_HEALTHY_S` starts the series anew.
- Exit 6 (key unknown or revoked) is tried again every `KEY_UNKNOWN_RETRY_S` only.
- The codes of `ENDS` are the end: nothing that a person has to mend is mended by another start. Exit 0 is
  not: who wants the end stops this process. A worker that ended without that is started again.
- SIGTERM and SIGINT stop the worker within `WORKER_STOP_S`, else it is killed. The worker has a session of
  its own, so that the
  terminal's SIGINT reaches the parent only.
- systemd hears that the node is there once a worker was started, that it lives while there is none (a worker
  says so itself), and that it is being stopped (`client.lifesign`).
- A worker dies with its parent (Linux): nobody trains without somebody who can stop it.
"""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from typing import TYPE_CHECKING, Final

from client.lifesign import Lifesign
from policies.limits import (
    KEY_UNKNOWN_RETRY_S,
    WORKER_BACKOFF_CAP_S,
    WORKER_HEALTHY_S,
    WORKER_STOP_S,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from types import FrameType

__all__ = ["ENDS", "supervise"]

ENDS: Final = frozenset((2, 4, 7))
"""Usage and settings, denied by policy, needs a human."""
KEY_UNKNOWN_EXIT: Final = 6
_PR_SET_PDEATHSIG: Final = 1


class _Stop(Exception):  # noqa: N818  control flow inside this file
    """A signal asked for the end."""


def supervise(
    command: Sequence[str],
    *,
    environment: Mapping[str, str] | None = None,
    on_event: Callable[[str, Mapping[str, int]], None] = lambda _name, _facts: None,
    healthy_s: float = WORKER_HEALTHY_S,
    key_unknown_s: float = KEY_UNKNOWN_RETRY_S,
    first_s: float = 1.0,
    life: Lifesign | None = None,
) -> int:
    """Runs the worker until it ends for good or a signal stops this process.

    Args:
        command: The worker's command line.
        environment: Of the worker; this process's own by default.
        on_event: Called as ``(name, facts)`` for ``started`` (pid), ``ended`` (exit code) and ``waiting``
            (milliseconds).
        healthy_s: Life after which the pauses start anew.
        key_unknown_s: Pause after exit 6.
        first_s: First pause.
        life: Tells that it lives; as the environment says if left out.

    Returns:
        The exit code for this process: 0 when stopped, the worker's when it ended with one of `ENDS`.
    """

    def stop(_number: int, _frame: FrameType | None) -> None:
        raise _Stop

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    worker: subprocess.Popen[bytes] | None = None
    pause_s, signs = first_s, life or Lifesign.of(os.environ)
    try:
        while True:
            born_s = time.monotonic()
            worker = subprocess.Popen(  # noqa: S603  our own command line
                list(command),
                env=environment,
                start_new_session=True,
                preexec_fn=_die_with_parent,  # noqa: PLW1509  one thread
            )
            on_event("started", {"pid": worker.pid})
            signs.tell("READY=1", "WATCHDOG=1")
            code = worker.wait()
            on_event("ended", {"code": code})
            if code in ENDS:
                return code
            if time.monotonic() - born_s >= healthy_s:
                pause_s = first_s
            wait_s = key_unknown_s if code == KEY_UNKNOWN_EXIT else _jitter(pause_s)
            pause_s = min(pause_s * 2, WORKER_BACKOFF_CAP_S)
            on_event("waiting", {"ms": int(wait_s * 1000)})
            signs.wait(wait_s)
    except _Stop:
        for number in before:
            signal.signal(number, signal.SIG_IGN)
        signs.tell("STOPPING=1")
        _end(worker)
        return 0
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(worker: subprocess.Popen[bytes] | None) -> None:
    if worker is None or worker.poll() is not None:
        return
    worker.terminate()
    try:
        worker.wait(WORKER_STOP_S)
    except subprocess.TimeoutExpired:
        worker.kill()
        worker.wait()


def _jitter(pause_s: float) -> float:
    """The pause, up to a fifth shorter, so that nodes do not come back in step."""
    return pause_s * (1 - os.urandom(1)[0] / 255 / 5)


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
