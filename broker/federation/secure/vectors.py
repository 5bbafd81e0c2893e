# SPDX-License-Identifier: Apache-2.0
"""Masked vectors that an auditor may redo a sum from, for as long as the contract lets them be kept.

- A file is named by the SHA-256 of its bytes, as the submission in the log names it. Showing one opens
  nothing: the pair masks of those in the sum are never revealed.
- ``retention.updates_hours`` of the contract is counted from the moment at which the file is written; the
  file's own time stamp says when it must be gone. With 0 hours, or no such clause, nothing is written.
- `sweep` deletes what is over: after each round of any run, at start, and every hour while there are any.

    vectors = Vectors(broker_folder, run, hours=72, clock=clock)
    vectors.keep(tensor)
    export(broker_folder, run, out, now_ms)         # for an auditor
"""

from __future__ import annotations

import contextlib
import os
import re
import shutil
from typing import TYPE_CHECKING, Final

from broker.errors import NotInitialisedError, UsageError
from broker.keyfiles import PRIVATE
from policies.log.kinds import ID

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from broker.federation.engine import TensorHandle
    from policies.ports import Clock

__all__ = ["Vectors", "export", "sweep"]

_NAME: Final = re.compile(r"^[0-9a-f]{64}$")
_HOUR_MS: Final = 3_600_000


class Vectors:
    """Keeps the vectors of one run."""

    def __init__(self, broker: Path, run: str, *, hours: int, clock: Clock) -> None:
        self._folder = _folder(broker, run)
        self._clock = clock
        self._kept_ms = hours * _HOUR_MS

    def keep(self, tensor: TensorHandle) -> None:
        """Writes a vector, chunk by chunk, if it may be kept at all.

        Raises:
            OSError: The disk does not allow it.
        """
        if not self._kept_ms:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        name = tensor.spec.digest.removeprefix("sha256:")
        temporary = self._folder / f".{name}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, PRIVATE)
        with os.fdopen(descriptor, "wb") as file:
            for chunk in tensor.chunks():
                file.write(chunk)
        until_s = (self._clock.now_ms() + self._kept_ms) / 1000
        os.utime(temporary, (until_s, until_s))
        temporary.replace(self._folder / name)


def sweep(broker: Path, now_ms: int, *, starting: bool = False) -> int:
    """Deletes every vector whose time is over, of all runs.

    Args:
        broker: Its folder.
        now_ms: Time of the broker's clock.
        starting: No run goes on yet: what a crash left half written goes too.

    Returns:
        How many are still kept.
    """
    kept = 0
    for path in _files(broker):
        if path.name.startswith("."):
            over = starting
        else:
            over = path.stat().st_mtime * 1000 <= now_ms
            kept += not over
        if over:
            path.unlink(missing_ok=True)
    return kept


def export(broker: Path, run: str, out: Path, now_ms: int) -> list[str]:
    """Copies the vectors of a run that may still be kept to a new folder.

    Returns:
        Names of the files.

    Raises:
        NotInitialisedError: There is no broker in the folder.
        UsageError: The folder exists, or nothing of the run is kept.
        OSError: The disk does not allow it.
    """
    if not (broker / "broker.toml").exists():
        raise NotInitialisedError(
            need=f"a broker in {broker}",
            found="none",
            remedy="name the broker's own folder with --dir, on the broker's host",
        )
    folder = _folder(broker, run)
    found = [one for one in _named(folder) if one.stat().st_mtime * 1000 > now_ms] if ID.holds(run) else []
    if not found:
        raise UsageError(
            need=f"masked vectors of {ascii(run)[1:-1][:60]} within the contract's retention",
            found="none",
            remedy="check the run's name; vectors are deleted after retention.updates_hours",
        )
    if out.exists():
        raise UsageError(need=f"no folder at {out}", found="one", remedy="name a new folder")
    out.mkdir(mode=0o700, parents=True)
    for path in found:
        shutil.copyfile(path, out / path.name)
    return [one.name for one in found]


def _folder(broker: Path, run: str) -> Path:
    return broker / "runs" / run / "secagg" / "vectors"


def _named(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(one for one in folder.iterdir() if _NAME.match(one.name))


def _files(broker: Path) -> Iterator[Path]:
    runs = broker / "runs"
    for run in sorted(runs.iterdir()) if runs.is_dir() else ():
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            yield from sorted((run / "secagg" / "vectors").iterdir())
