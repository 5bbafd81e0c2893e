# SPDX-License-Identifier: Apache-2.0
"""What systemd is to a service that tells it something: a datagram socket, and the names of it in the environment."""

from __future__ import annotations

import os
import socket
import tempfile
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Systemd:
    """Hears what is told."""

    socket: socket.socket
    name: str

    def environ(self, *, watchdog_s: float | None = None, pid: int | None = None) -> dict[str, str]:
        """What a service of it finds in its environment."""
        found = {"NOTIFY_SOCKET": self.name}
        if watchdog_s is not None:
            found |= {"WATCHDOG_USEC": str(int(watchdog_s * 1e6)), "WATCHDOG_PID": str(pid or os.getpid())}
        return found

    def heard(self, patience_s: float) -> str | None:
        """The next datagram; None if none comes in this time."""
        self.socket.settimeout(patience_s)
        try:
            return self.socket.recv(4096).decode("utf-8")
        except TimeoutError:
            return None

    def waits_for(self, line: str, patience_s: float = 60) -> None:
        """Returns once a datagram with this line came."""
        while True:
            said = self.heard(patience_s)
            assert said is not None, f"{line} within {patience_s} s"
            if line in said.split("\n"):
                return

    def falls_silent(self, patience_s: float) -> bool:
        """Whether nothing comes any more, but what is under way already."""
        while self.heard(0.001) is not None:
            pass
        return self.heard(patience_s) is None or self.heard(patience_s) is None


@contextmanager
def systemd(*, abstract: bool = False) -> Iterator[Systemd]:
    """One that listens until the end of the block."""
    with (
        tempfile.TemporaryDirectory(prefix="iriai-sd-") as folder,
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock,
    ):
        path = str(Path(folder) / "notify")
        sock.bind("\0" + path if abstract else path)
        yield Systemd(sock, "@" + path if abstract else path)
