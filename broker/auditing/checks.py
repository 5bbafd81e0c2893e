# SPDX-License-Identifier: Apache-2.0
"""The auditor's program, run by the broker over its own log: a rehearsal, never the audit itself.

    checks.begin(bundle, policy)      returns at once; another process works
    checks.running_ms, checks.last()

- It is `iriai-verify` as an auditor runs it, in a process of its own: it holds up nobody, and it shares no
  state with what it looks at.
- The result is kept as one file beside the broker's; an older one stays until a newer one is whole.
- What it says is the broker's word. The pages that show it say so, and give the command with which an auditor
  gets the same without the broker.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from broker.keyfiles import replace_file
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping
    from pathlib import Path

    from policies.ports import Clock

__all__ = ["Check", "Checks"]

_FOLDER: Final = "checks"
_RESULT: Final = "last.json"
_MOST_BYTES: Final = 64 * 1024 * 1024
_LIMIT_S: Final = 3_600


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """A rehearsal that ended.

    Attributes:
        at_ms: When it began.
        took_ms: How long it worked.
        exit_code: Of the program: 0 holds, 3 findings, 6 not trusted, 7 needs a human.
        data: What the program printed with ``--json``.
    """

    at_ms: int
    took_ms: int
    exit_code: int
    data: Mapping[str, Any]


class Checks:
    """One at a time, for one event loop."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder / _FOLDER
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self.running_ms: int | None = None
        self._read: tuple[int, Check] | None = None

    def last(self) -> Check | None:
        """The newest one that ended, or None."""
        path = self._folder / _RESULT
        try:
            changed = path.stat().st_mtime_ns
            if self._read is None or self._read[0] != changed:
                found = json.loads(path.read_bytes())
                self._read = (changed, Check(**found))
        except (OSError, ValueError, TypeError):
            return None
        return self._read[1]

    def begin(self, make: Callable[[Path], Awaitable[str]]) -> bool:
        """Begins one unless one is running; True if it did.

        Args:
            make: Writes the bundle to the file it is given and returns the policy's text.
        """
        if self._task is not None and not self._task.done():
            return False
        self.running_ms = self._clock.now_ms()
        self._task = asyncio.get_running_loop().create_task(self._work(make))
        return True

    async def wait(self) -> None:
        """Until the one that is running has ended."""
        if self._task is not None:
            await self._task

    async def stop(self) -> None:
        """Ends the one that is running; nothing of it is kept."""
        if self._process is not None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    async def _work(self, make: Callable[[Path], Awaitable[str]]) -> None:
        began = self._clock.now_ms()
        self._folder.mkdir(mode=0o700, exist_ok=True)
        bundle, policy = self._folder / "bundle.zip", self._folder / "policy.txt"
        try:
            policy.write_text(await make(bundle), encoding="utf-8")
            code, printed = await self._verify(bundle, policy)
            data = json.loads(printed)["data"]
        except Exception as error:  # noqa: BLE001  a rehearsal that failed is a result that says so
            code, data = 1, {"verdict": "not checked: " + type(error).__name__, "complete": False}
        finally:
            self.running_ms = None
            for path in (bundle, policy):
                path.unlink(missing_ok=True)
        took = self._clock.now_ms() - began
        kept = {"at_ms": began, "took_ms": took, "exit_code": code, "data": data}
        replace_file(self._folder / _RESULT, canonical(kept))

    async def _verify(self, bundle: Path, policy: Path) -> tuple[int, bytes]:
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "policies.verify",
            "verify",
            str(bundle),
            "--policy",
            str(policy),
            "--json",
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        try:
            async with asyncio.timeout(_LIMIT_S):
                printed, _ = await self._process.communicate()
        except TimeoutError:
            self._process.kill()
            raise
        code = self._process.returncode
        self._process = None
        if len(printed) > _MOST_BYTES:
            raise ValueError("more than a report holds")
        return 1 if code is None else code, printed
