# SPDX-License-Identifier: Apache-2.0
"""Rounds and cohorts that a decision was told, counted again from the log.

- A recipe's rounds count over all runs of it, in all versions of the contract: an amendment or another run
  does not begin anew. The broker counts the newest averaged round of each run that was opened before; a node
  counts the rounds of other runs that its guard allowed.
- Several runs may be open at once, and a count is taken before it is logged. So the least that must have
  been counted is what stood in the log when the run's last attempt was closed (broker), or when the round was
  opened (node); the most is what stands there when it is logged.
- A run moves to a successor between two entries. So under a contract that was superseded already only the own
  run's rounds are certain.
- Whom the broker asks, it decides about in one go: the cohort of each of these decisions is all of them. A
  node is told nothing of who is there, and goes by the recipe's participants, or by whom the broker asked.
- A view shows everybody of the run's recipe who has not left, or the asking party alone. Cohorts that were
  shown before are those of the allowed decisions about the same view and recipe. The own one may be left out:
  two parties may have asked at once, and the same cohort twice tells nothing more.

    counted = Recount(history)
    counted.facts(index, entry, request, point)   # names of facts that differ
    list(counted.too_many())                      # rounds beyond max_rounds
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final

from policies.contract.requests import Aggregate, Query, TrainRound, request_from_json
from policies.errors import IriaiError
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator

    from policies.contract.requests import Request
    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["Recount"]

_T = EntryType
_Place = tuple[str | None, int | None]  # run and round
_OWN: Final = frozenset({"own-share", "own-budget", "own-receipts"})


def _last(indexes: list[int], index: int) -> int:
    """The last of these before an index; -1 without one."""
    found = bisect_left(indexes, index)
    return indexes[found - 1] if found else -1


def _newest(averaged: list[tuple[int, int, str | None]], index: int) -> tuple[int, int, str | None]:
    """Index, number and contract of the last averaged round before an index; number 0 without one."""
    found = bisect_left(averaged, index, key=lambda one: one[0])
    return averaged[found - 1] if found else (-1, 0, None)


class Recount:
    """See the module. Tables are made once; a question costs one look at each run."""

    def __init__(self, history: History) -> None:
        self._history = history
        # runs in the order in which they were opened: index, number and contract of their averaged rounds
        self._averaged: dict[str | None, list[tuple[int, int, str | None]]] = {
            entry.run: [] for _, entry in history.of(_T.RUN_OPENED)
        }
        for index, entry in history.of(_T.AGGREGATE_RELEASED):
            if entry.run in self._averaged and entry.round is not None:
                self._averaged[entry.run].append((index, entry.round, entry.scope))
        self._order = {run: at for at, run in enumerate(self._averaged)}
        # when the broker counted at the latest, and when a node counted at the earliest
        self._settled = self._places(lambda entry: entry.run, _T.RUN_OPENED, _T.ROUND_CLOSED)
        self._opened = self._places(lambda entry: (entry.run, entry.round), _T.ROUND_OPENED)
        self._ended = {
            entry.pub["old"]: index for index, entry in reversed(list(history.of(_T.CONTRACT_AMENDED)))
        }
        # organisation → run → round: where its guard first allowed it, and under which contract
        self._allowed: dict[str, dict[str | None, dict[int, tuple[int, str | None]]]] = defaultdict(
            lambda: defaultdict(dict)
        )
        self._views: list[tuple[int, Query]] = []
        self._cohorts: dict[int, frozenset[str]] = {}
        self._asked: dict[_Place, list[tuple[int, frozenset[str]]]] = defaultdict(list)
        self._read_decisions()

    # --- tables ---

    def _places(self, key: Callable[[Entry], Hashable], *kinds: EntryType) -> dict[Hashable, list[int]]:
        found: dict[Hashable, list[int]] = defaultdict(list)
        for index, entry in self._history.of(*kinds):
            found[key(entry)].append(index)
        return found

    def _read_decisions(self) -> None:
        asked: list[tuple[int, TrainRound]] = []
        for index, entry in self._history.of(_T.DECISION_RECORDED):
            allow, sender = entry.pub["outcome"] == "allow", self._history.senders.get(index)
            if entry.env is not None:
                if allow and sender is not None and entry.round is not None:
                    self._allowed[sender.org][entry.run].setdefault(entry.round, (index, entry.scope))
                continue
            request = self._request(index)
            if isinstance(request, Query) and allow:
                self._views.append((index, request))
            if isinstance(request, TrainRound):
                if asked and not self._goes_on(asked, index, request):
                    self._note_cohort(asked)
                    asked = []
                asked.append((index, request))
        self._note_cohort(asked)

    def _request(self, index: int) -> Request | None:
        record = self._history.decisions.get(index)
        try:
            return None if record is None else request_from_json(record.request)
        except IriaiError:
            return None

    def _goes_on(self, asked: list[tuple[int, TrainRound]], index: int, request: TrainRound) -> bool:
        """Whether a decision is of the go of those before it: the next entry, same round, another party."""
        last = asked[-1][0]
        here, there = self._history.entries[index], self._history.entries[last]
        same = (here.scope, here.run, here.round) == (there.scope, there.run, there.round)
        return same and index == last + 1 and request.party not in {one.party for _, one in asked}

    def _note_cohort(self, asked: list[tuple[int, TrainRound]]) -> None:
        parties = frozenset(str(one.party) for _, one in asked)
        self._cohorts |= {index: parties for index, _ in asked}
        for index, _ in asked[:1]:
            self._asked[self._place(index)].append((index, parties))

    # --- what is asked ---

    def facts(self, index: int, entry: Entry, request: Request, point: str) -> list[str]:
        """Names of facts of a decision that differ."""
        if isinstance(request, Query):
            return self._view(index, entry, request)
        if not isinstance(request, TrainRound | Aggregate):
            return []
        wrong = [] if self._is_round(index, entry, request.round, point) else ["round"]
        if isinstance(request, TrainRound) and not self._is_cohort(index, entry, request, point):
            wrong.append("cohort")
        return wrong

    def too_many(self) -> Iterator[tuple[int, str]]:
        """Rounds that were opened beyond what the contract allows their recipe: index, and what was found."""
        for index, entry in self._history.of(_T.ROUND_OPENED):
            contract = self._history.contracts.get(entry.scope or "")
            clause = None if contract is None else contract.recipe(entry.pub["recipe"])
            number = self._before(index, entry)[0] + (entry.round or 0)
            if clause is not None and number > clause.max_rounds:
                yield index, f"round {number} of recipe {clause.id}, max_rounds {clause.max_rounds}"

    # --- rounds ---

    def _is_round(self, index: int, entry: Entry, said: int | None, point: str) -> bool:
        if said is None or self._history.run_opened(entry.run) is None:
            return True
        if entry.round is None:
            return False
        if point == "node":
            return said >= self._taken_part(index, entry) + entry.round
        least, most = self._before(index, entry)
        return least <= said - entry.round <= most

    def _before(self, index: int, entry: Entry) -> tuple[int, int]:
        """Rounds of the recipe in other runs before an entry: of those opened earlier, and of all."""
        recipe, scopes = self._history.recipe_of(entry.run), self._history.versions(entry.scope)
        certain = self._ended.get(entry.scope or "", index) >= index
        own, since = self._order.get(entry.run, 0), _last(self._settled.get(entry.run, []), index)
        least = most = 0
        for run, averaged in self._averaged.items():
            if run == entry.run or self._history.recipe_of(run) != recipe:
                continue
            most += _newest(averaged, index)[1]
            _, number, scope = _newest(averaged, since)
            least += number if certain and self._order[run] < own and scope in scopes else 0
        return least, most

    def _taken_part(self, index: int, entry: Entry) -> int:
        """Rounds of the recipe in other runs that the sender's guard had allowed, by its entries."""
        sender = self._history.senders.get(index)
        if sender is None:
            return 0
        recipe, scopes = self._history.recipe_of(entry.run), self._history.versions(entry.scope)
        since = _last(self._opened.get((entry.run, entry.round), []), index)
        return sum(
            sum(at < since and scope in scopes for at, scope in rounds.values())
            for run, rounds in self._allowed[sender.org].items()
            if run != entry.run and self._history.recipe_of(run) == recipe
        )

    # --- cohorts ---

    def _is_cohort(self, index: int, entry: Entry, request: TrainRound, point: str) -> bool:
        if request.cohort is None or self._history.grade != "auditor":
            return True
        said = frozenset(request.cohort)
        if point != "node":
            return said == self._cohorts.get(index, said)
        contract = self._history.contracts.get(entry.scope or "")
        clause = None if contract is None else contract.recipe(request.recipe_digest or "")
        asked = {parties for at, parties in self._asked[(entry.run, entry.round)] if at < index}
        return clause is None or said in {frozenset(clause.participants), *asked}

    def _place(self, index: int) -> _Place:
        return self._history.entries[index].run, self._history.entries[index].round

    def _view(self, index: int, entry: Entry, request: Query) -> list[str]:
        contract = self._history.contracts.get(entry.scope or "")
        clause = None if contract is None else contract.recipe(self._history.recipe_of(entry.run) or "")
        if clause is None or request.cohort is None:
            return []
        life = self._history.life_before(entry.scope, index)
        own = request.subject == request.party and request.view in _OWN
        there = {request.party} if own else set(clause.participants) - (set(life.exited) if life else set())
        wrong = [] if set(request.cohort) == there else ["cohort"]
        if request.earlier_cohorts is None or self._history.grade != "auditor":
            return wrong
        mine = frozenset(request.cohort)
        said = {frozenset(one) for one in request.earlier_cohorts}
        shown = set() if own else self._shown_before(index, entry, request)
        return wrong if said | {mine} == shown | {mine} else [*wrong, "earlier_cohorts"]

    def _shown_before(self, index: int, entry: Entry, request: Query) -> set[frozenset[str]]:
        """Cohorts of the allowed decisions about this view and recipe under this contract."""
        recipe = self._history.recipe_of(entry.run)
        found = set()
        for at, one in self._views:
            before = self._history.entries[at]
            same = (before.scope, self._history.recipe_of(before.run)) == (entry.scope, recipe)
            if at < index and same and one.view == request.view and one.cohort:
                found.add(frozenset(one.cohort))
        return found
