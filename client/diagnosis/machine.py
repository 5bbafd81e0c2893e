# SPDX-License-Identifier: Apache-2.0
"""The machine: packages and their pins, disk and its speed, GPU. Nothing here loads torch."""

from __future__ import annotations

import importlib.metadata
import os
import re
import shutil
import sqlite3
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Final

from client.diagnosis.findings import Finding, failed

if TYPE_CHECKING:
    from client.settings import Home

__all__ = ["disk", "gpu", "packages", "versions"]

_FREE_BYTES: Final = 1024**3
_FSYNC_SLOW_S: Final = 0.25  # a round writes a few times; at this speed they are felt
_FSYNC_BYTES: Final = 4096
_PACKAGES: Final = ("broker", "client", "policies", "sandbox")
_DISTRIBUTION: Final = "iriai"
_REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*([^;]*?)\s*(?:;\s*(.*))?$")
_CLAUSE = re.compile(r"^(==|>=|<=|<|>|!=)\s*([0-9]+(?:\.[0-9]+)*)(\.\*)?$")
_GPU_DEVICES: Final = ("/dev/nvidia0", "/dev/kfd", "/dev/dri/renderD128")


def packages() -> str:
    """Whether the four package names belong to iriai.

    Raises:
        DoctorFailedError: An unrelated package of the same name is installed beside it.
    """
    found = importlib.metadata.packages_distributions()
    foreign = {
        name: sorted(set(found[name]) - {_DISTRIBUTION})
        for name in _PACKAGES
        if name in found and set(found[name]) != {_DISTRIBUTION}
    }
    if foreign:
        raise failed(
            "the names broker, client, policies and sandbox for iriai alone",
            ", ".join(f"{name} also of {' '.join(others)}" for name, others in foreign.items()),
            "install iriai into an environment of its own (install.name-collision)",
        )
    return "no name collision"


def versions(required: list[str] | None = None) -> str:
    """Whether every package that a node needs is here, in a version that iriai was made for.

    Args:
        required: Requirements as the distribution states them; its own if left out.

    Raises:
        DoctorFailedError: One is missing, or another version.
    """
    try:
        stated = importlib.metadata.requires(_DISTRIBUTION) or [] if required is None else required
    except importlib.metadata.PackageNotFoundError:
        stated = []
    needed = [one for one in map(_read, stated) if one is not None]
    wrong = [
        f"{name} {_installed(name) or 'is missing'}, not {spec}"
        for name, spec in needed
        if not _fits(name, spec)
    ]
    if wrong:
        raise failed(
            "the versions that iriai was made for",
            "; ".join(wrong),
            "pip install -c constraints.txt '.[client]', in iriai's own environment",
        )
    own = _installed(_DISTRIBUTION) or "from its sources"
    return f"{len(needed)} packages in versions that fit, iriai {own}"


def _read(requirement: str) -> tuple[str, str] | None:
    """Name and versions of a requirement of the base or of a node; None for one of other extras."""
    found = _REQUIREMENT.match(requirement)
    if found is None:
        return None
    name, spec, marker = found[1], found[2].strip("() "), found[3] or ""
    extra = re.search(r"extra\s*==\s*['\"]([^'\"]+)['\"]", marker)
    return (name, spec) if extra is None or extra[1] == "client" else None


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _fits(name: str, spec: str) -> bool:
    version = _installed(name)
    return version is not None and all(_holds(version, one.strip()) for one in spec.split(",") if one.strip())


def _holds(version: str, clause: str) -> bool:
    """Whether a version fits one clause; one of another form is left to pip."""
    found = _CLAUSE.match(clause)
    if found is None:
        return True
    operator, bound, prefix = found[1], _numbers(found[2]), found[3] is not None
    have = _numbers(version)
    if prefix:
        alike = have[: len(bound)] == bound
        return alike if operator == "==" else not alike
    width = max(len(have), len(bound))
    left, right = (have + (0,) * width)[:width], (bound + (0,) * width)[:width]
    return {
        "==": left == right,
        "!=": left != right,
        ">=": left >= right,
        "<=": left <= right,
        ">": left > right,
        "<": left < right,
    }[operator]


def _numbers(version: str) -> tuple[int, ...]:
    plain = re.match(r"^[0-9]+(?:\.[0-9]+)*", version)
    return tuple(int(one) for one in plain[0].split(".")) if plain else ()


def disk(home: Home) -> str | Finding:
    """Free space, and how long it takes to have bytes on the disk for certain.

    Raises:
        DoctorFailedError: Too little is free.
    """
    free = shutil.disk_usage(home.root).free
    if free < _FREE_BYTES:
        raise failed("1 GiB of free space", f"{free // 1024**2} MiB", "free some space")
    seconds = _fsync_s(home.root)
    words = f"{free // 1024**3} GiB free, fsync {1000 * seconds:.0f} ms, SQLite {sqlite3.sqlite_version}"
    if seconds > _FSYNC_SLOW_S:
        return Finding(found=words, fix="a faster disk for the node's folder, or one that fewer programs use")
    return words


def _fsync_s(folder: Path) -> float:
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(b"\0" * _FSYNC_BYTES)
        file.flush()
        start = time.perf_counter()
        os.fsync(file.fileno())
        return time.perf_counter() - start


def gpu() -> str:
    """Whether a GPU can be seen, and whether the torch that is installed could use it."""
    there = [one for one in _GPU_DEVICES if Path(one).exists()]
    torch = _installed("torch")
    build = "no torch" if torch is None else f"torch {torch}"
    if not there:
        return f"none: training uses the CPU ({build})"
    return f"{' '.join(there)} ({build})"
