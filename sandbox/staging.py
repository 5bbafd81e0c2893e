# SPDX-License-Identifier: Apache-2.0
"""What stories and attacks share: a federation of their own, checks of what was found, and how they are told.

    with staged(folder, progress) as federation:      # a contract in force, nodes running; it always ends
        yield state("the run ends completed", shown["state"], "completed")
        yield refused("nobody can fetch it", lambda: federation.node(…))

The folder has to be empty or absent, and stays, with every log file.
"""

from __future__ import annotations

import time
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.recipe import load as load_recipe
from sandbox.baselines import Workshop
from sandbox.clock import now_ms
from sandbox.errors import CommandError, UsageError
from sandbox.federation import Federation
from sandbox.recipes import DELTA, NOISE, asked_recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from sandbox.progress import Progress

__all__ = [
    "Check",
    "bring_into_force",
    "check_free",
    "check_known",
    "lines_of",
    "record_cells",
    "refused",
    "staged",
    "state",
    "told",
]

_EPISODES: Final = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """What must hold, whether it did, and what was found."""

    what: str
    held: bool
    found: str


def check_known(kind: str, name: str, names: Iterable[str]) -> None:
    """Returns if a name is one of those that there are.

    Raises:
        UsageError: It is none.
    """
    listed = tuple(names)
    if name not in listed:
        raise UsageError(
            need=f"one of: {', '.join(listed)}", found=ascii(name)[:40], remedy=f"iriai-sandbox {kind} list"
        )


def check_free(folder: Path) -> None:
    """Returns if a federation may be made in a folder.

    Raises:
        UsageError: The folder is in use.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError(need="an empty folder, or none", found=str(folder), remedy="choose another --dir")


@contextmanager
def staged(folder: Path, progress: Progress, *, late: tuple[str, ...] = ()) -> Iterator[Federation]:
    """A federation whose contract is in force; nodes of ``late`` sites are not started."""
    federation = Federation(folder)
    try:
        bring_into_force(federation, progress, late=late)
        yield federation
    finally:
        federation.stop()


def bring_into_force(federation: Federation, progress: Progress, *, late: tuple[str, ...] = ()) -> None:
    """Starts a federation up to a contract in force without privacy; nodes of ``late`` sites do not run."""
    recipe = load_recipe(asked_recipe(None, _EPISODES, noise=NOISE))
    with progress.phase("recordings, broker, enrolment, contract"):
        record_cells(federation, _EPISODES)
        federation.start_broker()
        federation.enrol()
        start_ms = federation.start_ms()
        federation.agree(recipe, epsilon=None, delta=DELTA, start_ms=start_ms)
    with progress.phase("nodes come online, the contract begins"):
        federation.start_nodes(without=late)
        time.sleep(max(0.0, start_ms / 1000 + 1 - now_ms() / 1000))


def record_cells(federation: Federation, episodes: int) -> None:
    """Lets the scripted experts demonstrate, so many training episodes in each cell."""
    with Workshop() as workshop:
        folders = {one.maker.cell: one.recordings for one in federation.sites}
        workshop.record(folders, train=episodes, seed=0)


def state(what: str, found: object, wanted: str) -> Check:
    """Something has to be in this state."""
    return Check(what=what, held=found == wanted, found=str(found))


def refused(what: str, act: Callable[[], object]) -> Check:
    """A command has to be refused."""
    try:
        act()
    except CommandError as error:
        return Check(what=what, held=True, found=error.found[:160])
    return Check(what=what, held=False, found="it was allowed")


def told(checks: Iterable[Check]) -> list[dict[str, Any]]:
    """Checks as the envelope has them; what a check does not say is left out."""
    return [{name: value for name, value in asdict(one).items() if value != ""} for one in checks]


def lines_of(checks: Iterable[dict[str, Any]]) -> Iterator[str]:
    """The same for people."""
    for one in checks:
        yield f"{'ok    ' if one['held'] else 'FAILED'}  {one['what']}: {one['found']}"
