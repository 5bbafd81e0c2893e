# SPDX-License-Identifier: Apache-2.0
"""The processes of a sandbox federation: commands that people type, started and stopped by process id.

- A command is run with ``--json``; its envelope is the answer, and an error envelope becomes a
  `CommandError` with the same words.
- A service writes its output to a file in its folder; it is stopped by SIGTERM, and by SIGKILL only if it
  does not end.
- Nothing is ever stopped by name: only processes that this sandbox started.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sandbox.errors import CommandError, StartError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

__all__ = ["Service", "command", "free_port", "is_running", "start", "stop_pid", "wait_for"]

_COMMAND_S = 600.0
_STOP_S = 10.0
_END_S = 30.0  # of a broker that answers what is open, closes its runs and writes its log down
_KILLED_S = 5.0
_POLL_S = 0.05
_TAIL = 2_000


def script(name: str) -> str:
    """Path of one of our commands, beside the interpreter that runs this."""
    return str(Path(sys.executable).parent / name)


def environment(extra: Mapping[str, str] | None = None) -> dict[str, str]:
    """One thread per process: four nodes and a broker share the machine."""
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OPENBLAS_NUM_THREADS": "1",
        "MUJOCO_GL": "disable",
        **(extra or {}),
    }


def command(name: str, *arguments: str, timeout_s: float = _COMMAND_S) -> dict[str, Any]:
    """Runs one command to its end and gives the ``data`` of its envelope.

    Args:
        name: ``iriai-broker``, ``iriai-node``.
        arguments: Without ``--json``.
        timeout_s: After which it is killed.

    Raises:
        CommandError: It ended with an error; the envelope's own words are repeated.
    """
    done = subprocess.run(  # noqa: S603  our own command, no shell
        [script(name), *arguments, "--json"],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=timeout_s,
        check=False,
    )
    try:
        envelope = json.loads(done.stdout)
    except ValueError as error:
        raise _failed(name, arguments, done.stderr[-_TAIL:] or done.stdout[-_TAIL:]) from error
    if envelope.get("status") != "ok":
        told = envelope.get("error", {})
        raise _failed(
            name,
            arguments,
            f"{told.get('code')}: needs {told.get('need')}; found {told.get('found')}. {told.get('remedy')}",
        )
    data = envelope["data"]
    return data if isinstance(data, dict) else {"value": data}


def _failed(name: str, arguments: Sequence[str], found: str) -> CommandError:
    shown = " ".join(one for one in arguments[:3])
    return CommandError(
        need=f"{name} {shown} to succeed", found=found.strip(), remedy="see the folder's log files"
    )


@dataclass(slots=True, kw_only=True)
class Service:
    """A process that goes on until it is stopped."""

    name: str
    process: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """Its process id."""
        return self.process.pid

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.process.poll() is None

    def stop(self) -> None:
        """Ends it and waits."""
        if self.running:
            self.process.terminate()
        try:
            self.process.wait(_STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def kill(self) -> None:
        """SIGKILL, as a power cut would."""
        self.process.kill()
        self.process.wait()

    def text(self) -> str:
        """What it wrote so far."""
        return self.log.read_text("utf-8", errors="replace") if self.log.exists() else ""


def start(name: str, argv: Sequence[str], *, log: Path, env: Mapping[str, str] | None = None) -> Service:
    """Starts a service; its output is appended to ``log``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("ab") as output:
        process = subprocess.Popen(  # noqa: S603  our own command, no shell
            list(argv),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env=environment(env),
            start_new_session=True,
        )
    return Service(name=name, process=process, log=log)


def wait_for(
    what: str, check: Callable[[], bool], *, timeout_s: float, service: Service | None = None
) -> None:
    """Waits until a check holds.

    Raises:
        StartError: It does not within the time, or the service ended meanwhile.
    """
    until = time.monotonic() + timeout_s
    while not check():
        ended = service is not None and not service.running
        if ended or time.monotonic() > until:
            tail = service.text()[-_TAIL:] if service is not None else "nothing in time"
            raise StartError(
                need=what, found=("it ended: " if ended else "not yet: ") + tail, remedy="see its log file"
            )
        time.sleep(_POLL_S)


def free_port() -> int:
    """A port of the loopback interface that nobody listens on now."""
    with contextlib.closing(socket.socket(socket.AF_INET, socket.SOCK_STREAM)) as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def is_running(pid: int) -> bool:
    """Whether a process of this id exists."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def stop_pid(pid: int) -> bool:
    """Ends a process that an earlier command of this sandbox started; whether it is gone."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGTERM)
    if _gone(pid, _END_S):
        return True
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return _gone(pid, _KILLED_S)


def _gone(pid: int, within_s: float) -> bool:
    """Whether a process is gone, or goes within a time."""
    until = time.monotonic() + within_s
    while is_running(pid):
        if time.monotonic() > until:
            return False
        time.sleep(_POLL_S)
    return True
