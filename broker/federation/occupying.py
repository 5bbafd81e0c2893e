# SPDX-License-Identifier: Apache-2.0
"""One process for each broker's folder: whoever serves it, or changes its log by hand, holds one lock.

lock = occupy(settings.fleet)          as long as the file is open
with stopped(directory): ...           for a command that must not run beside the broker
while_stopped(command)                 the same for a whole command, whose first argument is the folder
"""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from functools import wraps
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TextIO, TypeVar

from broker.federation.errors import AlreadyRunningError
from broker.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

__all__ = ["occupy", "stopped", "while_stopped"]

_PID_DIGITS: Final = 20

P = ParamSpec("P")
R = TypeVar("R")


def occupy(state_dir: Path) -> TextIO:
    """The open lock file of a folder; closing it lets the next one in.

    Raises:
        AlreadyRunningError: Another process has it.
    """
    state_dir.mkdir(parents=True, exist_ok=True)
    file = (state_dir / "engine.lock").open("a+")  # nothing is cut off that another process wrote
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with file:
            file.seek(0)
            told = file.read(_PID_DIGITS).strip()
        which = f", process {told}" if told.isascii() and told.isdigit() else ""
        raise AlreadyRunningError(
            need="a folder that no other broker serves",
            found=f"another iriai-broker serves {state_dir.parent} already{which}",
            remedy="use that one, or stop it first",
        ) from error
    file.truncate(0)
    file.write(f"{os.getpid()}\n")
    file.flush()
    return file


@contextmanager
def stopped(directory: Path) -> Iterator[None]:
    """A time in which no broker serves the folder.

    Raises:
        AlreadyRunningError: One does.
    """
    try:
        lock = occupy(Settings.load(directory).fleet)
    except AlreadyRunningError as error:
        raise AlreadyRunningError(
            need="a broker that is stopped",
            found=f"iriai-broker serve runs in {directory}",
            remedy="stop the broker first, then repeat the command; nothing was changed",
        ) from error
    with lock:
        yield


def while_stopped(command: Callable[Concatenate[Path, P], R]) -> Callable[Concatenate[Path, P], R]:
    """Lets a command begin only while no broker serves its folder."""

    @wraps(command)
    def alone(directory: Path, /, *args: P.args, **named: P.kwargs) -> R:
        with stopped(directory):
            return command(directory, *args, **named)

    return alone
