# SPDX-License-Identifier: Apache-2.0
"""AUD-097: whether the models of a run are those that its opened sums give.

Along the entries of each run whose updates are summed:

1. the first round begins with the weights of the recipe's seed, or with the start model that it names;
2. the model of each aggregate is what the recipe's server step makes of the model before and of the sum;
3. after a rejection the run goes on from the model that was accepted last, with the state that belonged to
   it, after ``sum.withdrawn`` from the model before; a round whose sum was not used changes nothing;
4. the candidate is what the server releases of the model that stands.

2 needs the sum itself, so masked vectors (AUD-096), and the model before it. Behind a gap nothing is followed
until the run goes back to a model before it; with a server that remembers nothing, until a round begins with
a model that the auditor has.

    models = Models(history, report, given)
    models.take(index, sum_bytes, kappa)        # for each aggregate whose sum was redone, in order
    models.finish()
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.encoding import digest
from policies.log.entries import EntryType
from policies.verify.first_model import first_model
from policies.verify.probes import accepted_by
from policies.verify.server import Model, Server, UnfitError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History
    from policies.verify.report import Report

__all__ = ["Models", "finish_models"]

_RULE = "AUD-097"
_KINDS = (
    EntryType.ROUND_OPENED,
    EntryType.AGGREGATE_RELEASED,
    EntryType.ROUND_JUDGED,
    EntryType.ROUND_CHOSEN,
    EntryType.SUM_WITHDRAWN,
    EntryType.CANDIDATE_EVALUATED,
)


@dataclass(frozen=True, slots=True, eq=False)
class _Named:
    """A model with its digest."""

    model: Model
    name: str

    @classmethod
    def of(cls, model: Model) -> _Named:
        return cls(model, model.digest)


@dataclass(slots=True)
class _Run:
    """A run as far as it was read. Without ``newest`` its thread is lost.

    Attributes:
        server: Of its recipe; None where that does not parse.
        newest: What the next round begins with.
        stands: Accepted last; the first model before that.
        before, stood: The ones before these two, which count again once a sum is withdrawn.
        choosing: Round whose chosen teams make a model that stands.
    """

    server: Server | None
    newest: _Named | None = None
    stands: _Named | None = None
    before: _Named | None = None
    stood: _Named | None = None
    choosing: int | None = None


class Models:
    """Follows every run of a history.

    Args:
        history: Read and with senders.
        report: Takes the findings.
        given: Models that the auditor has, by digest.
    """

    def __init__(self, history: History, report: Report, given: Mapping[str, bytes]) -> None:
        self._history, self._report, self._given = history, report, given
        self._runs: dict[str | None, _Run] = {}
        self._left = [one for one in history.of(*_KINDS) if _is_summed(history, one[1])][::-1]
        self._rounds = self._followed = 0

    def take(self, index: int, opened: bytes, kappa: float) -> None:
        """The sum of an aggregate.

        Args:
            index: Of its entry; rising.
            opened: Its bytes.
            kappa: What one step of it is worth.
        """
        self._read(index)
        if self._left and self._left[-1][0] == index:
            _, entry = self._left.pop()
            self._made(index, entry, opened, kappa)

    def finish(self) -> None:
        """Reads what is left."""
        self._read(self._history.size)
        self._report.tallies["models.rounds"] += self._rounds
        self._report.tallies["models.recomputed"] += self._followed

    def _read(self, before: int) -> None:
        while self._left and self._left[-1][0] < before:
            index, entry = self._left.pop()
            run = self._runs.get(entry.run)
            if entry.type is EntryType.ROUND_OPENED:
                self._opened(index, entry)
            elif entry.type is EntryType.AGGREGATE_RELEASED:
                self._made(index, entry, None, 0.0)
            elif run is None:
                continue
            elif entry.type is EntryType.CANDIDATE_EVALUATED:
                self._judged(index, entry, run)
            else:
                _go_back(entry, run)

    def _opened(self, index: int, entry: Entry) -> None:
        base = entry.pub["base_model"]
        if entry.run not in self._runs:
            self._runs[entry.run] = self._begun(index, entry, base)  # 1.
            return
        run = self._runs[entry.run]
        if run.newest is None or run.newest.name != base:
            forgets = run.server is not None and run.server.forgets
            run.newest = _named(self._given.get(base), run.server, base) if forgets else None

    def _begun(self, index: int, entry: Entry, base: str) -> _Run:
        recipe = self._history.recipes.get(self._history.recipe_of(entry.run) or "", {})
        try:
            server, data = Server.of(recipe.get("server")), first_model(recipe)
            expected = _start_of(recipe["start"]) if data is None else digest(data)
        except (UnfitError, KeyError, TypeError):
            return _Run(None)
        run = _Run(server)
        if base != expected:
            self._report.add(_RULE, f"it begins with {base}, its recipe with {expected}", index=index)
            return run
        run.newest = run.stands = _named(self._given.get(base) if data is None else data, server, base)
        return run

    def _made(self, index: int, entry: Entry, opened: bytes | None, kappa: float) -> None:
        """2."""
        self._rounds += 1
        run = self._runs.setdefault(entry.run, _Run(None))
        before, run.newest = run.newest, None
        run.before = before
        if run.server is None or before is None or opened is None:
            return
        try:
            made = _Named.of(run.server.step(before.model, opened, kappa))
        except UnfitError:
            return
        self._followed += 1
        if made.name != entry.pub["model"]:
            self._report.add(_RULE, f"model {entry.pub['model']}; its sum gives {made.name}", index=index)
            return
        run.newest = made
        if run.choosing == entry.round:
            run.stood, run.stands = run.stands, made

    def _judged(self, index: int, entry: Entry, run: _Run) -> None:
        """4."""
        if run.server is None or run.newest is None:
            return
        released = run.server.released(run.newest.model)
        if entry.pub["candidate"] != released:
            self._report.add(
                _RULE, f"candidate {entry.pub['candidate']}; the sums give {released}", index=index
            )


def _start_of(start: Mapping[str, Any]) -> str:
    """Digest of what a recipe starts from: a model that was fitted to open episodes, or a base checkpoint."""
    return str(start["model"] if "model" in start else start["base"])


def finish_models(report: Report) -> None:
    """What is told of all runs together, and what was not followed."""
    rounds, followed = report.tallies["models.rounds"], report.tallies["models.recomputed"]
    report.facts["models"] = {"rounds": rounds, "recomputed": followed}
    if followed < rounds:
        left = f"models of {rounds - followed} of {rounds} rounds"
        why = "whose sums, or the models before, are not at hand (--vectors; --model for a start model)"
        report.not_checked(f"{_RULE}: {left}, {why}")


def _named(data: bytes | None, server: Server | None, name: str) -> _Named | None:
    """A model by its bytes, before the first step; None if they are none."""
    if data is None or server is None:
        return None
    try:
        return _Named(Model.first(data, server), name)
    except UnfitError:
        return None


def _go_back(entry: Entry, run: _Run) -> None:
    """3."""
    if entry.type is EntryType.SUM_WITHDRAWN:
        run.newest = run.before
        if run.stands is not None and run.stands.name == entry.pub["model"]:
            run.stands = run.stood
        return
    accepted = accepted_by(entry)
    if accepted is False:
        run.newest = run.stands
    elif accepted and entry.type is EntryType.ROUND_CHOSEN:
        run.choosing = entry.round
    elif accepted:
        run.stood, run.stands = run.stands, run.newest


def _is_summed(history: History, entry: Entry) -> bool:
    contract = history.contracts.get(entry.scope or "")
    return contract is not None and contract.aggregation.secure_aggregation == "required"
