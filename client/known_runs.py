# SPDX-License-Identifier: Apache-2.0
"""The runs that this node knows of, and which of them may still want its data. From local files alone.

A run is known once it asked for anything: a decision about it, a transmission or a slot of the fleet's ledger
stands in a file here, or the worker trains for it just now. It is **over** once one of these holds:

1. this node judged the run's candidate: nothing is trained in it after that, and the answer stands;
2. its contract is past its term, has ended, or this party has left it: the guard refuses every request.

A run whose broker gave it up without a word is neither; its owner stops it (`client.stopping_runs`). The
files are read without a key and without waiting, so that a run can be stopped whatever else is broken here.

    known = names_of_runs(home)                  # None: a file cannot be read
    over = RunEnds(shelf, clock).is_over(outbox.left.decisions(run=run))
"""

from __future__ import annotations

import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Final

from client.contract.notices import Notices
from client.progress import said
from policies.contract.checks.document import SUPERSEDED
from policies.contract.lifecycle import IN_FORCE
from policies.errors import IriaiError
from policies.exchange import ExchangeType
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from client.contract.shelf import ContractShelf
    from client.outbox.rows import Decided
    from client.settings import Home
    from policies.ports import Clock

__all__ = ["RunEnds", "names_of_runs"]

_TABLES: Final = {"outbox": ("decision", "sent"), "fleet": ("slot",)}


def names_of_runs(home: Home) -> frozenset[str] | None:
    """Names of the runs that asked this node for anything; None where a file cannot be read."""
    try:
        found = {*_named(home.outbox, _TABLES["outbox"]), *_named(home.fleet, _TABLES["fleet"])}
    except sqlite3.Error:
        return None
    progress = said(home).get("progress")
    if isinstance(progress, dict):
        found.add(str(progress.get("run")))
    return frozenset(one for one in found if one.startswith("run_"))


def _named(path: Path, tables: tuple[str, ...]) -> set[str]:
    if not path.exists():
        return set()
    with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)) as database:
        there = {name for (name,) in database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return {
            run
            for table in tables
            if table in there
            for (run,) in database.execute(f"SELECT DISTINCT run FROM {table} WHERE run IS NOT NULL")  # noqa: S608  constants
        }


class RunEnds:
    """Whether runs are over; the life of each contract is read once."""

    def __init__(self, shelf: ContractShelf, clock: Clock) -> None:
        self._shelf = shelf
        self._notices = Notices(shelf)
        self._now = iso_s(clock.now_ms())
        self._ended: dict[str, bool] = {}

    def is_over(self, decisions: Sequence[Decided]) -> bool:
        """Whether a run is over, by the decisions about it, newest first; one without any is not."""
        if any(one.kind == ExchangeType.JUDGE.value and one.allow for one in decisions):
            return True
        return bool(decisions) and all(self._has_ended(one.contract) for one in decisions)

    def datasets(self, decisions: Sequence[Decided]) -> frozenset[str]:
        """Data sets of this site that the contracts list for a run."""
        found: set[str] = set()
        for contract, recipe in {(one.contract, one.recipe) for one in decisions}:
            try:
                held = self._shelf.get(contract)
            except IriaiError:  # what cannot be read is not trained under
                continue
            clause = held.contract.recipe(recipe)
            found |= set(() if clause is None else clause.datasets_of(held.party.party))
        return frozenset(found)

    def _has_ended(self, contract: str) -> bool:
        if contract not in self._ended:
            self._ended[contract] = self._look(contract)
        return self._ended[contract]

    def _look(self, contract: str) -> bool:
        try:
            held = self._shelf.get(contract)
            held = self._shelf.in_force(held.contract.contract_id) or held  # a run goes on under a successor
        except IriaiError:  # nobody knows
            return False
        if self._now >= held.contract.term.expires:
            return True
        state = self._notices.state(held, self._now)
        if state.exited_parties is not None and held.party.party in state.exited_parties:
            return True
        return state.standing is not None and state.standing not in {IN_FORCE, SUPERSEDED}
