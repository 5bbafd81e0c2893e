# SPDX-License-Identifier: Apache-2.0
"""How much of its privacy budget each party has left, and when it ends at the rate of its rounds so far.

    for one in services.outlooks.of(session, contract, now_ms=now_ms):
        one.spent, one.reserved, one.cap, one.rounds, one.ends_ms

- What is spent is the broker's mirror (`broker.federation.mirror`): steps that the log has, and nothing that
  only a node knows. The node's own ledger decides, and may know more.
- Reserved is what open runs may still take: their whole plans, without the steps that were taken.
- Epsilon at the filter's order is a constant and the sum of what steps cost, so how far a cap is used is told
  by the sums: the constant is paid with the first step.
- The rate is what was spent from the first round to the last; one round has no rate.
- What closed runs took is added up once and kept, until another run closes or the log has a spend in one that
  was closed: a look reads open runs alone.
"""

from __future__ import annotations

from collections import OrderedDict, defaultdict
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import BigInteger, cast, func, select

from broker.contracts.lineage import versions
from broker.federation.mirror import OPEN_STATES
from broker.federation.progress import rounds_before
from broker.store.tables import ledger_mirror, log_entry, round_, run
from policies.log.entries import EntryType
from policies.privacy.accounting import epsilon_filter, epsilon_text, filter_order, rho_max_nano
from policies.recipe import load as load_recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sqlalchemy import ColumnElement

    from broker.contracts.service import Contracts
    from broker.store import Session
    from policies.contract import Contract
    from policies.contract.clauses import Caps
    from policies.privacy import DpPlan
    from policies.recipe import Recipe

__all__ = ["Outlook", "Outlooks", "RecipeLeft", "recipes_left"]

_OVER: Final = run.c.outcome.is_not(None)
_SPENT: Final = log_entry.c.type == EntryType.EPSILON_SPENT.value
_KEPT: Final = 256  # contracts
_LATE: Final = 500  # runs with spends since the last look; with more, all are added up again


@dataclass(frozen=True, slots=True, kw_only=True)
class Outlook:
    """The budget of one party under one contract.

    Attributes:
        spent: Epsilon of the steps that were taken.
        reserved: What it grows by if open runs take their whole plans.
        with_reserved: Epsilon if they do.
        cap: The contract's.
        clause: Where the cap stands.
        used: Part of what the cap holds that is spent.
        held: Part of what the cap holds that is reserved.
        rounds: How many rounds of the contract's first private recipe still fit; None without one.
        left_nano: What the cap holds beyond spent and reserved, at the filter's order; never below 0.
        order: Of the filter.
        steps: Noisy steps that were taken.
        steps_a_day: Steps per day, from the first to the last; None without a rate.
        ends_ms: When the cap is reached at that rate; None without a rate.
        span_ms: From the first settled round to the last: how long the rate was seen.
    """

    party: str
    spent: str
    reserved: str
    with_reserved: str
    cap: str
    clause: str
    used: float
    held: float
    rounds: int | None
    left_nano: int
    order: int
    steps: int
    steps_a_day: float | None
    ends_ms: int | None
    span_ms: int = 0

    def runs_left(self, plan: DpPlan) -> int:
        """How many whole runs of a plan still fit, if nothing else is spent."""
        return self.left_nano // (plan.steps * plan.rho_step_nano(order=self.order))


@dataclass(frozen=True, slots=True, kw_only=True)
class RecipeLeft:
    """How many rounds of a recipe the contract still allows, all runs together."""

    id: str
    clause: str
    used: int
    most: int


class Outlooks:
    """Budgets of contracts; for one event loop."""

    def __init__(self, contracts: Contracts) -> None:
        self._contracts = contracts
        self._closed: OrderedDict[tuple[str, ...], _Closed] = OrderedDict()

    def of(
        self, session: Session, contract: Contract, *, now_ms: int, parties: Iterable[str] | None = None
    ) -> tuple[Outlook, ...]:
        """Those of a contract's contributors, or of some of them; none under a contract without a cap."""
        wanted = None if parties is None else frozenset(parties)
        plans = _Plans(session, self._contracts)
        rows = self._rows(session, contract)
        first = next((one for one in plans.of_contract(contract) if one is not None), None)
        found = []
        for one in contract.contributors:
            caps = contract.caps(one.party)
            if caps is not None and (wanted is None or one.party in wanted):
                found.append(
                    _outlook(one.party, caps, rows[one.party], plans=plans, first=first, now_ms=now_ms)
                )
        return tuple(found)

    def _rows(self, session: Session, contract: Contract) -> dict[str, list[_Took]]:
        """What each party took under any version of a contract: closed runs by recipe, open ones each."""
        chain = versions(session, contract.digest)
        found = _took(session, run.c.contract.in_(chain) & run.c.outcome.is_(None))
        for one in self._of_closed(session, chain).took:
            found[one.party].append(one)
        return found

    def _of_closed(self, session: Session, chain: tuple[str, ...]) -> _Closed:
        under = run.c.contract.in_(chain) & _OVER
        runs = session.scalar(select(func.count()).select_from(run).where(under)) or 0
        known = self._closed.get(chain)
        if known is None or known.runs != runs or _spent_late(session, under, known.upto):
            took = _took(session, under)
            known = _Closed(runs=runs, upto=0, took=tuple(one for of in took.values() for one in _folded(of)))
        upto = session.scalar(select(func.max(log_entry.c.idx)).where(_SPENT))
        self._closed[chain] = replace(known, upto=-1 if upto is None else upto)
        self._closed.move_to_end(chain)
        while len(self._closed) > _KEPT:
            self._closed.popitem(last=False)
        return known


def recipes_left(session: Session, contract: Contract) -> tuple[RecipeLeft, ...]:
    """What the contract's numbers of rounds have left, by recipe."""
    return tuple(
        RecipeLeft(
            id=one.id,
            clause=one.clause,
            used=rounds_before(session, contract.digest, one.recipe_digest),
            most=one.max_rounds,
        )
        for one in contract.recipes
    )


class _Took(NamedTuple):
    """Noisy steps that a party took in one run or several, and when their rounds began and ended."""

    party: str
    contract: str
    recipe: str
    state: str
    steps: int
    first_ms: int
    last_ms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class _Closed:
    """What was taken in closed runs: of how many, and up to which entry of the log."""

    runs: int
    upto: int
    took: tuple[_Took, ...]


def _spent_late(session: Session, under: ColumnElement[bool], upto: int) -> bool:
    """Whether the log has a spend after an entry in one of these runs: a node may send it late."""
    late = select(log_entry.c.run).where(_SPENT & (log_entry.c.idx > upto)).distinct().limit(_LATE)
    names = list(session.scalars(late))
    if len(names) == _LATE:
        return True
    among = select(run.c.run_id).where(run.c.run_id.in_(names) & under).limit(1)
    return bool(names) and session.scalar(among) is not None


def _folded(rows: Iterable[_Took]) -> Iterator[_Took]:
    """One row for the runs of each recipe."""
    of: dict[tuple[str, str], list[_Took]] = defaultdict(list)
    for one in rows:
        of[(one.contract, one.recipe)].append(one)
    for same in of.values():
        yield same[0]._replace(
            steps=sum(one.steps for one in same),
            first_ms=min(one.first_ms for one in same),
            last_ms=max(one.last_ms for one in same),
        )


class _Plans:
    """Recipes by contract and digest, each loaded once."""

    def __init__(self, session: Session, contracts: Contracts) -> None:
        self._session = session
        self._contracts = contracts
        self._known: dict[tuple[str, str], Recipe] = {}

    def of(self, contract: str, recipe: str) -> DpPlan | None:
        """The plan of a recipe."""
        key = contract, recipe
        if key not in self._known:
            text = self._contracts.read_in(self._session, contract)
            self._known[key] = load_recipe(self._contracts.annex(self._session, text, recipe))
        return self._known[key].plan

    def of_contract(self, contract: Contract) -> list[DpPlan | None]:
        """The plans of a contract's recipes, in its order."""
        return [self.of(contract.digest, one.recipe_digest) for one in contract.recipes]


def _took(session: Session, under: ColumnElement[bool]) -> dict[str, list[_Took]]:
    """What each party took in each of these runs, and when that run began and ended."""
    settled = select(round_.c.at_ms).where(round_.c.run_id == run.c.run_id).limit(1)
    order = (round_.c.round, round_.c.attempt)
    first = settled.order_by(*order).scalar_subquery()
    last = settled.order_by(*(one.desc() for one in order)).scalar_subquery()
    columns = (run.c.run_id, run.c.contract, run.c.recipe_digest, run.c.state)
    runs = {row[0]: row[1:] for row in session.execute(select(*columns, first, last).where(under))}
    taken = (
        select(
            ledger_mirror.c.party, ledger_mirror.c.run_id, cast(func.sum(ledger_mirror.c.steps), BigInteger)
        )
        .where(ledger_mirror.c.run_id.in_(select(run.c.run_id).where(under)))
        .group_by(ledger_mirror.c.run_id, ledger_mirror.c.party)
    )
    found: dict[str, list[_Took]] = defaultdict(list)
    for party, name, steps in session.execute(taken):
        text, recipe, state, first_ms, last_ms = runs[name]
        found[party].append(_Took(party, text, recipe, state, steps, first_ms or 0, last_ms or 0))
    return found


def _outlook(
    party: str, caps: Caps, rows: Sequence[_Took], *, plans: _Plans, first: DpPlan | None, now_ms: int
) -> Outlook:
    order = filter_order(
        epsilon_total=caps.epsilon_total, epsilon_per_release=caps.epsilon_per_release, delta=caps.delta
    )
    delta = float(caps.delta)
    spent = reserved = 0
    for row in rows:
        plan = plans.of(row.contract, row.recipe)
        if plan is not None:
            step = plan.rho_step_nano(order=order)
            spent += row.steps * step
            reserved += max(plan.steps - row.steps, 0) * step if row.state in OPEN_STATES else 0
    most = max(rho_max_nano(epsilon=float(caps.epsilon_total), delta=delta, order=order), 0)
    now, then = (_epsilon(rho, delta=delta, order=order) for rho in (spent, spent + reserved))
    rate = _rate(rows, spent)
    return Outlook(
        party=party,
        spent=epsilon_text(now),
        reserved=epsilon_text(max(then - now, 0.0)),
        with_reserved=epsilon_text(then),
        cap=caps.epsilon_total,
        clause=caps.total_clause,
        used=spent / most if most else 1.0,
        held=reserved / most if most else 0.0,
        rounds=None if first is None else _rounds(first, most - spent - reserved, order),
        left_nano=max(most - spent - reserved, 0),
        order=order,
        steps=sum(row.steps for row in rows),
        steps_a_day=None if rate is None else _a_day(rows),
        ends_ms=None if rate is None else now_ms + max(round((most - spent) / rate), 0),
        span_ms=_span(rows),
    )


def _epsilon(rho: int, *, delta: float, order: int) -> float:
    return 0.0 if rho == 0 else epsilon_filter(rho_nano=rho, delta=delta, order=order)


def _rounds(plan: DpPlan, left: int, order: int) -> int:
    return max(left, 0) // (plan.steps_per_round * plan.rho_step_nano(order=order))


def _span(rows: Sequence[_Took]) -> int:
    """Milliseconds from the first settled round to the last."""
    if not rows:
        return 0
    return int(max(row.last_ms for row in rows) - min(row.first_ms for row in rows))


def _rate(rows: Sequence[_Took], spent: int) -> float | None:
    """What is spent in a millisecond."""
    span = _span(rows)
    return spent / span if span > 0 and spent > 0 else None


def _a_day(rows: Sequence[_Took]) -> float:
    return float(sum(row.steps for row in rows)) * 86_400_000 / _span(rows)
