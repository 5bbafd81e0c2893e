# SPDX-License-Identifier: Apache-2.0
"""Runs that this node's owner stopped: ``stopped.json``. At any time, at once, and without a reason.

- From that moment the guard refuses every request for data of the run as ``local:stopped``; training in
  progress ends between two steps, and no update of it leaves: not one that waits for its slot, and not one
  that was sent before and is asked for again. What was spent is told all the same.
- The file says which runs, and nothing else. One that is not a plain file of exactly this form stops every
  run, because nobody knows which; it is not written over until the owner says so (`resume_all`), who lets all
  of them go on with it.
- A word about one run loses no other: each reads, changes and replaces the file under one lock.
- Messages of sums that others wait for are still answered: no data are touched for them.

    runs = StoppedRuns(home)
    runs.stop(run); runs.is_stopped(run)          # True
    runs.resume(run)
    runs.resume_all()                             # of a damaged file, which is put aside
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import stat
from typing import TYPE_CHECKING, Any, Final

from client.errors import NoSuchThingError, StoppedFileError
from client.settings import sync_folder, write_durably
from policies.limits import STOPPED_RUNS_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.settings import Home

__all__ = ["StoppedRuns"]

_RUN: Final = re.compile(r"run_[a-z0-9]{1,60}")
_SCHEMA: Final = "iriai-stopped-runs/1"
_NOTHING: Final = (0, 0, 0, 0)


class StoppedRuns:
    """The file in a node's folder; read again whenever it was replaced."""

    def __init__(self, home: Home) -> None:
        self._path = home.stopped
        self._known: tuple[tuple[int, int, int, int], frozenset[str] | None] = (_NOTHING, frozenset())

    def all(self) -> frozenset[str] | None:
        """The stopped runs; None where the file cannot be read."""
        try:
            status = self._path.lstat()
        except FileNotFoundError:
            return frozenset()
        except OSError:
            return None
        if not stat.S_ISREG(status.st_mode) or status.st_size > STOPPED_RUNS_BYTES:
            return None
        stamp = (status.st_ino, status.st_mtime_ns, status.st_ctime_ns, status.st_size)
        if stamp != self._known[0]:
            self._known = (stamp, _read(self._path))
        return self._known[1]

    def is_stopped(self, run: str) -> bool:
        """Whether the owner stopped a run; of a file that cannot be read, every one."""
        stopped = self.all()
        return stopped is None or run in stopped

    def stop(self, run: str) -> None:
        """Stops a run; durable when it returns.

        Raises:
            NoSuchThingError: It has no name of a run.
            StoppedFileError: The file is damaged: all runs are stopped already.
        """
        named = _checked(run)
        with self._writing() as stopped:
            self._write(stopped | {named})

    def resume(self, run: str) -> None:
        """Lets the next round of a run in again.

        Raises:
            NoSuchThingError: It is not stopped.
            StoppedFileError: The file is damaged: nobody knows which runs were stopped.
        """
        with self._locked():
            self._write(self.without(run))

    def without(self, run: str) -> frozenset[str]:
        """The runs that would be stopped still once this one is let go on; nothing is changed.

        Raises:
            NoSuchThingError: It is not stopped.
            StoppedFileError: The file is damaged: nobody knows which runs were stopped.
        """
        stopped = self._readable()
        if _checked(run) not in stopped:
            raise NoSuchThingError(need="a stopped run", found=run, remedy="iriai-node runs list")
        return stopped - {run}

    def resume_all(self) -> Path:
        """Lets every run of a damaged file go on; gives where the file was put aside.

        Raises:
            NoSuchThingError: The file is not damaged: runs are let go on by name.
        """
        with self._locked():
            self.check_damaged()
            aside = _free(self._path)
            self._path.rename(aside)  # a link itself, not what it names
            sync_folder(aside.parent)
        return aside

    def check_damaged(self) -> None:
        """That nobody can say which runs are stopped.

        Raises:
            NoSuchThingError: The file is not damaged: runs are let go on by name.
        """
        if self.all() is not None:
            raise NoSuchThingError(
                need="a damaged stopped.json",
                found="one that can be read",
                remedy="iriai-node runs list shows what is stopped; resume each run by its name",
            )

    def _readable(self) -> frozenset[str]:
        stopped = self.all()
        if stopped is None:
            raise StoppedFileError(
                need=f"a readable {self._path.name}",
                found="a damaged one: every run is stopped, and stays so",
                remedy="put a copy of the file back; or iriai-node runs resume --all-damaged, then stop "
                "again what is to stay stopped",
            )
        return stopped

    @contextlib.contextmanager
    def _writing(self) -> Iterator[frozenset[str]]:
        """The runs that are stopped now, while nobody else writes the file."""
        with self._locked():
            yield self._readable()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        lock = os.open(self._path.with_name("stopped.lock"), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield
        finally:
            os.close(lock)

    def _write(self, runs: frozenset[str]) -> None:
        write_durably(self._path, json.dumps({"schema": _SCHEMA, "runs": sorted(runs)}).encode("ascii"))


def _read(path: Path) -> frozenset[str] | None:
    """What the file says; None of anything but a plain file of exactly this form."""
    try:
        opened = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(opened, "rb") as file:
            said = json.loads(file.read(STOPPED_RUNS_BYTES + 1), object_pairs_hook=_once)
        if set(said) != {"schema", "runs"} or said["schema"] != _SCHEMA or not isinstance(said["runs"], list):
            return None
        return frozenset(_checked(one) for one in said["runs"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError, NoSuchThingError):
        return None


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys occur once: of two lists of runs nobody knows which one holds."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key that occurs twice")
    return found


def _free(path: Path) -> Path:
    """A name beside the file that nothing has."""
    number = 1
    while os.path.lexists(found := path.with_name(f"{path.name}.damaged-{number}")):
        number += 1
    return found


def _checked(run: str) -> str:
    if not _RUN.fullmatch(run):
        raise NoSuchThingError(
            need="the name of a run, run_…", found=ascii(run)[:60], remedy="iriai-node runs list"
        )
    return run
