# SPDX-License-Identifier: Apache-2.0
"""What a node tells systemd: that it is ready, that it still lives, that it is being stopped.

- The protocol of ``sd_notify``: a datagram to the socket that ``NOTIFY_SOCKET`` names; ``WATCHDOG_USEC`` says
  within which time ``WATCHDOG=1`` has to come again, or the node is ended and started anew
  (client/unit_file.py). Standard library only: the parent process uses it.
- The parent says it while no worker lives; from then on the worker does, as long as its main thread used the
  processor since it was looked at last. That thread polls, trains, and waits in short pieces
  (`client.clock`): one that hangs on a lock, a device or a socket uses nothing. A request that takes hours is
  no hang, and needs no word of its own. A look that fails is one of which nothing is said.
- Without the variable nobody listens, and nothing is done. Whoever listens no longer is no reason to end.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Lifesign", "processor_ns"]

_TURNS: Final = 3  # within the time that systemd waits


class Lifesign:
    """A process of a node and the socket on which somebody may listen.

    Attributes:
        every_s: How often it has to be said; None if nobody waits for it.
    """

    def __init__(self, address: str | None, every_s: float | None) -> None:
        self._address = address
        self.every_s = every_s
        self._ended = threading.Event()

    @classmethod
    def of(cls, environ: Mapping[str, str], *, pids: tuple[int, int] | None = None) -> Lifesign:
        """As the environment says; times that are meant neither for us nor for our parent are not ours."""
        named = environ.get("NOTIFY_SOCKET", "")
        usec, waited = environ.get("WATCHDOG_USEC", ""), environ.get("WATCHDOG_PID", "")
        ours = waited in {"", *map(str, pids or (os.getpid(), os.getppid()))}
        return cls(
            named if named.startswith(("/", "@")) else None,
            int(usec) / 1e6 / _TURNS if ours and usec.isdecimal() and int(usec) else None,
        )

    def tell(self, *lines: str) -> None:
        """One datagram with these lines."""
        if self._address is None:
            return
        address = self._address.replace("@", "\0", 1) if self._address[0] == "@" else self._address
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sock:
            sock.setblocking(False)  # noqa: FBT003  the library's
            sock.sendto("\n".join(lines).encode("utf-8"), address)

    def wait(self, seconds: float) -> None:
        """Returns after so many seconds, in which it says that it lives."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.tell("WATCHDOG=1")
            time.sleep(left if self.every_s is None else min(left, self.every_s))

    def begin(self, used_ns: Callable[[], int] | None = None) -> None:
        """Says from now on that the main thread lives; ``used_ns`` is what it used of the processor."""
        if self.every_s is None:
            return
        look = used_ns or processor_ns(threading.main_thread())
        threading.Thread(target=self._feed, args=(look, self.every_s), daemon=True).start()

    def close(self) -> None:
        """Says no more that it lives."""
        self._ended.set()

    def _feed(self, look: Callable[[], int], every_s: float) -> None:
        before = -1
        while not self._ended.is_set():
            try:
                used = look()
            except Exception:  # noqa: BLE001  one that fails says nothing, the next one may
                used = before
            if used > before:
                self.tell("WATCHDOG=1")
            before = used
            self._ended.wait(every_s)


def processor_ns(thread: threading.Thread) -> Callable[[], int]:
    """What tells how many nanoseconds of the processor a running thread used so far."""
    clock = time.pthread_getcpuclockid(thread.ident or 0)
    return lambda: time.clock_gettime_ns(clock)
