# SPDX-License-Identifier: Apache-2.0
"""The runs that asked this node for rounds, as its owner sees them: listed, stopped, let go on.

`stop` and `resume` need no connection and no running worker: they write one file, which the worker reads
before each request, between two steps of training and before an answer leaves (`client.stopping_runs`). A run
that this node never heard of is not stopped: it would be a name misspelt, and the run meant would go on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from client.answers import Answer, table
from client.errors import NoSuchThingError
from client.known_runs import RunEnds, names_of_runs
from client.membership import worker_of
from client.progress import words_of
from client.stopping_runs import StoppedRuns
from policies.ports import iso_s

if TYPE_CHECKING:
    from client.contract.shelf import ContractShelf
    from client.outbox import Outbox
    from client.outbox.rows import Decided
    from client.settings import Home

__all__ = ["listed", "resume", "resume_all_damaged", "stop"]

_SHOWN = 20  # runs that a refusal names


def listed(home: Home, outbox: Outbox, shelf: ContractShelf) -> Answer:
    """Runs by their last decision, newest first; then those about which nothing was decided yet."""
    stopped, ends = StoppedRuns(home).all(), RunEnds(shelf, outbox.clock)
    decided: dict[str, list[Decided]] = {}
    for one in outbox.left.decisions(limit=None):
        decided.setdefault(str(one.run), []).append(one)
    waiting = ((stopped or frozenset()) | (names_of_runs(home) or frozenset())) - decided.keys()
    rows = [_row(name, found, stopped, over=ends.is_over(found)) for name, found in decided.items()]
    rows += [_row(name, [], stopped, over=False) for name in sorted(waiting)]
    progress = worker_of(home).get("progress")
    lines = [
        *table(
            ("run", "last asked", "round", "answer", "owner"),
            [(row["run"], row["at"], row["round"], row["answer"], row["owner"]) for row in rows],
        )
    ]
    if progress is not None:
        lines.append(f"training: {words_of(progress)}")
    if stopped is None:
        lines.append("stopped.json cannot be read: every run is stopped until runs resume --all-damaged")
    return Answer(
        data={"runs": rows, "progress": progress, "readable": stopped is not None}, text=tuple(lines)
    )


def _row(name: str, decided: list[Decided], stopped: frozenset[str] | None, *, over: bool) -> dict[str, Any]:
    last = decided[0] if decided else None
    word = "over" if over else "goes on"
    return {
        "run": name,
        "at": "-" if last is None else iso_s(last.at_ms),
        "round": "-" if last is None else last.round,
        "answer": "-" if last is None else ("allowed" if last.allow else "REFUSED"),
        "owner": "STOPPED" if stopped is None or name in stopped else word,
        "over": over,
    }


def stop(home: Home, run: str) -> Answer:
    """Stops a run.

    Raises:
        NoSuchThingError: It has no name of a run, or this node never heard of it.
        StoppedFileError: The file is damaged: all runs are stopped already.
    """
    runs, known = StoppedRuns(home), names_of_runs(home)
    if known is not None and run not in known | (runs.all() or frozenset()):
        raise NoSuchThingError(
            need="a run that asked this node for something",
            found=f"{ascii(run)[:80]}, which never did",
            remedy=f"known are: {', '.join(sorted(known)[:_SHOWN]) or 'none yet'} (iriai-node runs list)",
        )
    runs.stop(run)
    return Answer(
        data={"run": run, "stopped": True},
        text=(
            f"{run} is stopped for this node: no update of it leaves",
            f"next: iriai-node runs resume {run} lets it go on",
        ),
    )


def resume(home: Home, run: str, *, dry_run: bool = False) -> Answer:
    """Lets a run go on; a dry run looks whether it is stopped.

    Raises:
        NoSuchThingError: It is not stopped.
        StoppedFileError: The file is damaged: nobody knows which runs were stopped.
    """
    if dry_run:
        left = StoppedRuns(home).without(run)
        words = f"{run} might ask for rounds again, {len(left)} others stay stopped; nothing was changed"
        return Answer(data={"dry_run": True, "run": run, "still_stopped": sorted(left)}, text=(words,))
    StoppedRuns(home).resume(run)
    return Answer(data={"run": run, "stopped": False}, text=(f"{run} may ask for rounds again",))


def resume_all_damaged(home: Home, *, dry_run: bool = False) -> Answer:
    """Lets all runs go on, where which of them were stopped cannot be read; a dry run looks whether it is so.

    Raises:
        NoSuchThingError: The file can be read.
    """
    if dry_run:
        StoppedRuns(home).check_damaged()
        words = "no run would be stopped any more, and the damaged file be put aside; nothing was changed"
        return Answer(data={"dry_run": True, "run": None}, text=(words,))
    aside = StoppedRuns(home).resume_all()
    return Answer(
        data={"run": None, "stopped": False, "put_aside": str(aside)},
        text=(
            "no run is stopped any more",
            f"the damaged file is {aside}",
            "next: iriai-node runs list, and stop again what is to stay stopped",
        ),
    )
