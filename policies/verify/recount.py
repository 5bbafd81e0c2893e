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

    tables = Tables(history)                      # once
    counted = Recount(history.view(run), tables)  # for each run
    counted.facts(index, entry, request, point)   # names of facts that differ
    list(counted.too_many())                      # rounds beyond max_rounds
"""

from __future__ import annotations

from array import array
from bisect import bisect_left
from collections import defaultdict
from typing import TYPE_CHECKING, Final, NamedTuple

from policies.contract.requests import Aggregate, Query, TrainRound, request_from_json
from policies.errors import IriaiError
from policies.log.entries import EntryType
from policies.verify.ledger import ALLOWED, MEMBER
from policies.verify.scan import QUERY, TRAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Iterator, Mapping

    from policies.contract.requests import Request
    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["Recount", "Tables"]

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


class _Course(NamedTuple):
    """A run as others see it: its recipe, its place among the runs, and its averaged rounds.

    Attributes:
        recipe: Digest.
        order: Runs that were opened before it.
        first: Index of its first averaged round.
        last: Index of its last one.
        number: Of the last one.
        scope: Contract of the last one.
    """

    recipe: str | None
    order: int
    first: int
    last: int
    number: int
    scope: str | None


class Tables:
    """What a count in one run needs of all others; of each run and cohort a few numbers are kept."""

    def __init__(self, history: History) -> None:
        self.courses: dict[str | None, _Course] = {}
        opened = history.of(_T.RUN_OPENED)
        self.order = {run: at for at, run in enumerate(dict.fromkeys(entry.run for _, entry in opened))}
        # organisation and recipe -> contract: where its guard first allowed each round
        self.allowed: dict[tuple[str, str | None], dict[str | None, array[int]]] = {}
        # contract, recipe and view -> cohort: where it was shown first
        self.shown: dict[tuple[str | None, str | None, str | None], dict[frozenset[str], int]] = {}
        self.ended = {old: index for index, old, _ in reversed(history.amendments())}
        for run in history.ledger.runs():
            self._read(history.view(run), run)
        for by_scope in self.allowed.values():
            for scope, found in by_scope.items():
                by_scope[scope] = array("Q", sorted(found))

    def _read(self, view: History, run: str | None) -> None:
        recipe = view.recipe_of(run)
        averaged = averaged_rounds(view)
        if run in self.order:
            first, (last, number, scope) = averaged[0][0] if averaged else -1, _newest(averaged, view.size)
            self.courses[run] = _Course(recipe, self.order[run], first, last, number, scope)
        for (org, _), (index, scope) in allowed_rounds(view).items():
            mine = self.allowed.setdefault((org, recipe), {})
            mine.setdefault(scope, array("Q")).append(index)
        for index, request in _queries(view):
            if request.cohort:
                key = (view.entries[index].scope, recipe, request.view)
                cohorts = self.shown.setdefault(key, {})
                cohort = frozenset(request.cohort)
                cohorts[cohort] = min(index, cohorts.get(cohort, index))


def averaged_rounds(view: History) -> list[tuple[int, int, str | None]]:
    """Index, number and contract of each averaged round of a run."""
    released = view.of(_T.AGGREGATE_RELEASED)
    return [(index, entry.round, entry.scope) for index, entry in released if entry.round is not None]


def allowed_rounds(view: History) -> dict[tuple[str, int], tuple[int, str | None]]:
    """Organisation and round of a run: where its guard first allowed it, and under which contract."""
    found: dict[tuple[str, int], tuple[int, str | None]] = {}
    for index in view.indexes(_T.DECISION_RECORDED):
        row, maker = view.ledger.row(index), view.senders.maker(index)
        if row.flags & MEMBER and row.flags & ALLOWED and maker is not None and row.round >= 0:
            found.setdefault((maker.org, row.round), (index, row.scope_digest))
    return found


def _by_contract(
    allowed: Mapping[tuple[str, int], tuple[int, str | None]],
) -> dict[str, dict[str | None, list[int]]]:
    """Organisation and contract: the indexes of `allowed_rounds`, ascending."""
    found: dict[str, dict[str | None, list[int]]] = defaultdict(lambda: defaultdict(list))
    for (org, _), (index, scope) in allowed.items():
        found[org][scope].append(index)
    for by_scope in found.values():
        for indexes in by_scope.values():
            indexes.sort()
    return found


def _queries(view: History) -> Iterator[tuple[int, Query]]:
    """Allowed decisions of the broker about views."""
    for index in view.indexes(_T.DECISION_RECORDED):
        row = view.ledger.row(index)
        if row.request == QUERY and row.flags & ALLOWED and not row.flags & MEMBER:
            request = _request_of(view, index)
            if isinstance(request, Query):
                yield index, request


def _request_of(history: History, index: int) -> Request | None:
    found: Request | None = history.store.requests.through(index, lambda: _read_request(history, index))
    return found


def _read_request(history: History, index: int) -> Request | None:
    record = history.decisions.get(index)
    try:
        return None if record is None else request_from_json(record.request)
    except IriaiError:
        return None


class Recount:
    """See the module; one for each run."""

    def __init__(self, history: History, tables: Tables) -> None:
        self._history = history
        self._tables = tables
        # when the broker counted at the latest, and when a node counted at the earliest
        self._settled = self._places(lambda entry: entry.run, _T.RUN_OPENED, _T.ROUND_CLOSED)
        self._opened = self._places(lambda entry: (entry.run, entry.round), _T.ROUND_OPENED)
        self._allowed = _by_contract(allowed_rounds(history))
        self._cohorts: dict[int, frozenset[str]] = {}
        self._asked: dict[_Place, list[tuple[int, frozenset[str]]]] = defaultdict(list)
        self._read_decisions()
        self._read_others()

    # --- tables ---

    def _places(self, key: Callable[[Entry], Hashable], *kinds: EntryType) -> dict[Hashable, list[int]]:
        found: dict[Hashable, list[int]] = defaultdict(list)
        for index, entry in self._history.of(*kinds):
            found[key(entry)].append(index)
        return found

    def _read_decisions(self) -> None:
        asked: list[tuple[int, TrainRound]] = []
        for index in self._history.indexes(_T.DECISION_RECORDED):
            row = self._history.ledger.row(index)
            request = _request_of(self._history, index) if row.request == TRAIN else None
            if isinstance(request, TrainRound) and not row.flags & MEMBER:
                if asked and not self._goes_on(asked, index, request):
                    self._note_cohort(asked)
                    asked = []
                asked.append((index, request))
        self._note_cohort(asked)

    def _read_others(self) -> None:
        """Other runs of the recipe: what those that had ended before come to, and those beside this one."""
        run, tables, own = self._history.run, self._tables, self._history.own
        self._ended_most = 0
        self._ended_least: dict[str | None, int] = defaultdict(int)
        self._beside: list[tuple[int, list[tuple[int, int, str | None]]]] = []
        order = tables.order.get(run, 0)
        for other, course in tables.courses.items():
            if not own or other == run or course.recipe != self._history.recipe_of(run) or course.first < 0:
                continue
            if course.last < own[0]:
                self._ended_most += course.number
                self._ended_least[course.scope] += course.number if course.order < order else 0
            elif course.first <= own[-1]:
                self._beside.append((course.order, averaged_rounds(self._history.view(other))))

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
        scopes = self._history.versions(entry.scope)
        certain = self._tables.ended.get(entry.scope or "", index) >= index
        own, since = self._tables.order.get(entry.run, 0), _last(self._settled.get(entry.run, []), index)
        least, most = 0, self._ended_most
        if certain and since >= 0:
            least = sum(self._ended_least[one] for one in scopes if one in self._ended_least)
        for order, averaged in self._beside:
            most += _newest(averaged, index)[1]
            _, number, scope = _newest(averaged, since)
            least += number if certain and order < own and scope in scopes else 0
        return least, most

    def _taken_part(self, index: int, entry: Entry) -> int:
        """Rounds of the recipe in other runs that the sender's guard had allowed, by its entries."""
        maker = self._history.senders.maker(index)
        if maker is None:
            return 0
        recipe, scopes = self._history.recipe_of(entry.run), self._history.versions(entry.scope)
        since = max(0, _last(self._opened.get((entry.run, entry.round), []), index))
        everywhere = self._tables.allowed.get((maker.org, recipe), {})
        found = sum(bisect_left(everywhere[one], since) for one in scopes if one in everywhere)
        here = self._allowed.get(maker.org, {})
        return found - sum(bisect_left(here[one], since) for one in scopes if one in here)

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
        key = (entry.scope, self._history.recipe_of(entry.run), request.view)
        return {cohort for cohort, at in self._tables.shown.get(key, {}).items() if at < index}
