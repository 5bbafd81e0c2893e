# SPDX-License-Identifier: Apache-2.0
"""A disk under a process that dies: killed, or its power lost, at every write and fsync that it makes.

`crashes` runs some work in a forked child under ptrace and stops it before its n-th write, truncation, fsync, rename or
removal in a folder. Two disks are left:

- *killed*: what the kernel had by then; everything that was written is there.
- *power*: what was durable: of each file what it held at its last fsync, of the folder the names at its own last fsync.

Linux on x86-64 and ARM64; elsewhere, or where ptrace is not allowed, `unavailable` says why.
"""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

_TRACEME, _KILL_OPTIONS, _SYSCALL, _SETOPTIONS = 0, 0x00100000 | 0x1, 24, 0x4200
_STOP = signal.SIGTRAP | 0x80
_WRITES = {
    "x86_64": {1: "write", 18: "write", 74: "fsync", 75: "fsync", 77: "write", 82: "name", 87: "name", 263: "name", 264: "name", 316: "name"},
    "aarch64": {64: "write", 68: "write", 82: "fsync", 83: "fsync", 46: "write", 35: "name", 38: "name", 276: "name"},
}  # fmt: skip


def unavailable() -> str | None:
    """Why this machine cannot do it; None if it can."""
    if sys.platform != "linux" or platform.machine() not in _WRITES:
        return f"ptrace on {sys.platform} {platform.machine()}"
    child = os.fork()
    if child == 0:
        os._exit(0 if _ptrace(_TRACEME, 0, 0) == 0 else 1)
    _, status = os.waitpid(child, 0)
    return None if status == 0 else "ptrace is not allowed here"


@dataclass
class Disk:
    """What a power loss would leave of a folder."""

    folder: Path
    names: dict[str, int] = field(default_factory=dict)
    content: dict[int, bytes] = field(default_factory=dict)

    def sync_all(self) -> None:
        self.sync_folder()
        for one in self.folder.iterdir():
            self.sync_file(one)

    def sync_folder(self) -> None:
        self.names = {one.name: one.stat().st_ino for one in self.folder.iterdir()}

    def sync_file(self, path: Path) -> None:
        self.content[path.stat().st_ino] = path.read_bytes()

    def write_to(self, folder: Path) -> None:
        folder.mkdir()
        for name, inode in self.names.items():
            (folder / name).write_bytes(self.content.get(inode, b""))


@dataclass(frozen=True)
class Crash:
    """One death: before which write (``at``), what had been done by then, and the two disks."""

    at: int
    what: str
    done: int
    killed: Path
    power: Path


def crashes(start: Path, scratch: Path, work: Callable[[Path, Callable[[], None]], None]) -> Iterator[Crash]:
    """Each death that some work may die, the last one after its end.

    Args:
        start: Folder with the files that it begins with; never written to.
        scratch: Empty folder for the disks.
        work: Gets the folder to work in, and a function to call after each thing that it may rely on.
    """
    at = 0
    while True:
        live, power = scratch / f"killed{at}", scratch / f"power{at}"
        shutil.copytree(start, live)
        disk = Disk(live)
        disk.sync_all()
        report = scratch / f"report{at}"
        what = _run(live, disk, report, at, work)
        disk.write_to(power)
        yield Crash(at, what, len(report.read_bytes()), live, power)
        if what == "end":
            return
        at += 1


def _run(
    live: Path, disk: Disk, report: Path, at: int, work: Callable[[Path, Callable[[], None]], None]
) -> str:
    child = os.fork()
    if child == 0:
        handle = os.open(report, os.O_CREAT | os.O_WRONLY)
        _ptrace(_TRACEME, 0, 0)
        os.kill(os.getpid(), signal.SIGSTOP)
        code = 1
        try:
            work(live, lambda: os.write(handle, b".") and None)
            code = 0
        finally:
            os._exit(code)
    os.waitpid(child, 0)
    _ptrace(_SETOPTIONS, child, _KILL_OPTIONS)
    seen, entering, pending, signals = 0, True, "", 0
    while True:
        _ptrace(_SYSCALL, child, signals)
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return "end"
        stop = os.WSTOPSIG(status)
        signals = 0 if stop == _STOP else stop
        if stop != _STOP:
            continue
        if entering:
            pending = _touches(child, live)
            if pending:
                if seen == at:
                    os.kill(child, signal.SIGKILL)
                    os.waitpid(child, 0)
                    return pending
                seen += 1
        elif pending.startswith("fsync"):
            path = Path(pending.partition(" ")[2])
            if path == live:
                disk.sync_folder()
            else:
                disk.sync_file(path)
        entering = not entering


def _touches(child: int, live: Path) -> str:
    """Which of the calls that change a disk a stopped child is about to make in the folder; empty for others."""
    number, first, *_ = Path(f"/proc/{child}/syscall").read_text().split()
    kind = _WRITES[platform.machine()].get(int(number), "")
    if kind in ("", "name"):
        return kind
    path = str(Path(f"/proc/{child}/fd/{int(first, 16)}").readlink())
    return f"{kind} {path}" if path == str(live) or path.startswith(f"{live}/") else ""


def _ptrace(request: int, pid: int, data: int) -> int:
    library = ctypes.CDLL(None, use_errno=True)
    library.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
    library.ptrace.restype = ctypes.c_long
    return int(library.ptrace(request, pid, None, data or None))
