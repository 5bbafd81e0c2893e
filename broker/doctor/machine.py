# SPDX-License-Identifier: Apache-2.0
"""Checks of the machine: what is installed, room on the disks, how long a write takes to be safe."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import tempfile
from itertools import zip_longest
from typing import TYPE_CHECKING, Final

from broker.doctor.findings import FailedError
from broker.doctor.folder import folders
from policies.limits import DISK_FREE_BYTES, FSYNC_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.settings import Settings
    from policies.ports import Clock

__all__ = ["disk", "fsync", "package_names", "versions"]

_NAMES: Final = ("broker", "client", "policies", "sandbox")
_REQUIREMENT: Final = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*)(?:;\s*(.*))?$")
_BOUND: Final = re.compile(r"(==|>=|<=|<|>|~=|!=)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?")
_EXTRA: Final = re.compile(r"extra == ['\"]([a-z0-9]+)['\"]")
_TRIES: Final = 5


def package_names(found: dict[str, list[str]] | None = None) -> str:
    """The four package names belong to iriai alone."""
    found = dict(importlib.metadata.packages_distributions()) if found is None else found
    for name in _NAMES:
        others = sorted(set(found.get(name, ())) - {"iriai"})
        if others:
            raise FailedError(
                f"the package {name} is also of {', '.join(others)}",
                "install iriai into an environment of its own (install.name-collision)",
            )
    return "no other package has one of our names"


def versions(
    requires: Iterable[str] | None = None, version_of: Callable[[str], str] = importlib.metadata.version
) -> str:
    """What is installed is what the program was made for."""
    lines = importlib.metadata.requires("iriai") or [] if requires is None else list(requires)
    checked, wrong = 0, []
    for line in lines:
        parsed = _REQUIREMENT.match(line)
        if parsed is None or not _for_us(parsed[3]):
            continue
        try:
            version = version_of(parsed[1])
        except importlib.metadata.PackageNotFoundError:
            wrong.append(f"{parsed[1]} is not installed")
            continue
        checked += 1
        if not _within(version, parsed[2]):
            wrong.append(f"{parsed[1]} {version}, where {parsed[2].strip()} is needed")
    if wrong:
        raise FailedError(
            "; ".join(wrong),
            "install with the release's constraints: pip install -c constraints.txt 'iriai[broker]'",
        )
    return f"{checked} packages within their bounds"


def _for_us(marker: str | None) -> bool:
    """Whether a requirement is one of the broker; markers other than extras are the installer's."""
    extras = _EXTRA.findall(marker or "")
    return not extras or "broker" in extras


def _within(version: str, bounds: str) -> bool:
    return all(_holds(version, *one) for one in _BOUND.findall(bounds))


def _holds(version: str, relation: str, bound: str, star: str) -> bool:
    found, wanted = _numbers(version), _numbers(bound)
    if relation == "~=":
        return _compared(found, wanted) >= 0 and found[: len(wanted) - 1] == wanted[:-1]
    if star:
        same = found[: len(wanted)] == wanted
        return same if relation == "==" else not same
    order = _compared(found, wanted)
    return {
        "==": order == 0,
        "!=": order != 0,
        ">=": order >= 0,
        "<=": order <= 0,
        ">": order > 0,
        "<": order < 0,
    }[relation]


def _numbers(version: str) -> list[int]:
    """The release of a version; what follows it (a build, a candidate) decides nothing here."""
    release = re.match(r"[0-9]+(?:\.[0-9]+)*", version)
    return [int(one) for one in release[0].split(".")] if release else [0]


def _compared(one: list[int], other: list[int]) -> int:
    for a, b in zip_longest(one, other, fillvalue=0):
        if a != b:
            return 1 if a > b else -1
    return 0


def disk(settings: Settings) -> str:
    """Room on every disk that the broker writes to."""
    free = {path: shutil.disk_usage(path).free for path in folders(settings)}
    path = min(free, key=lambda one: free[one])
    if free[path] < DISK_FREE_BYTES:
        raise FailedError(
            f"{free[path] // 1024**2} MiB free for {path}",
            f"make room: {DISK_FREE_BYTES // 1024**2} MiB at least; a full disk stops every change",
        )
    return f"{free[path] // 1024**3} GiB free at least"


def fsync(settings: Settings, clock: Clock) -> str:
    """How long a small write takes until it is safe: each receipt waits for one."""
    slowest = 0
    for path in folders(settings):
        started_ms = clock.now_ms()
        with tempfile.TemporaryFile(dir=path) as file:
            for _ in range(_TRIES):
                file.write(b"\0" * 4096)
                file.flush()
                os.fsync(file.fileno())
        slowest = max(slowest, (clock.now_ms() - started_ms) // _TRIES)
    if slowest > FSYNC_MS:
        raise FailedError(
            f"{slowest} ms for one fsync",
            f"a disk that takes at most {FSYNC_MS} ms: local, not shared over a network, not full",
        )
    return f"{slowest} ms for one fsync"
