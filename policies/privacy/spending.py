# SPDX-License-Identifier: Apache-2.0
"""One organisation's budget entries in a log, as an auditor counts them. Standard library only.

A `Book` is told each ``budget.opened`` and ``epsilon.spent`` in the order of the log, and raises for one that
an audit would call an error:

- ``budget.opened``: its plan is one of the run's recipe, for the plan's unit and adjacency; order, delta and
  cap are numbers; order and delta are those with which the lineage was opened, the cap is no higher;
- ``epsilon.spent``: its mechanism run is of its run and round and was not spent before; its plan is the
  recipe's, its steps those of one touch; a budget was opened for its lineage and plan before; it costs at
  least what the plan costs at the lineage's order; the lineage's cap holds it in each block that it names;
  and the contract's cap holds it beside everything of the contract, whatever its block. What was spent under
  the versions that a contract superseded counts under its cap.

Whoever raises has taken the entry all the same: a log that has it keeps it, and who only tries works on a
`Book.copy`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from policies.encoding import digest_of
from policies.privacy.accounting import ORDERS, epsilon_rdp, epsilon_text, rho_max_nano, rho_step_nano
from policies.privacy.blocks import HELD_OUT, TRAIN, block_name
from policies.privacy.caps import plan_facts
from policies.privacy.errors import BudgetError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.privacy.caps import Cap

__all__ = ["Account", "Book", "Plans", "blocks_named"]

Json = Any
Mechanism = tuple[float, float]  # sampling probability, noise multiplier
_REMEDY = "compare the node's ledger with its receipts; nothing further of it is taken in this run"
_NUMBERS = (ValueError, OverflowError, ZeroDivisionError)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plans:
    """What a run spends budget under: the documents of its plans.

    Attributes:
        train: Of the recipe; None without privacy.
        evaluation: Likewise, for candidates.
        votes: Of votes on rounds, where the contract asks for them.
    """

    train: Mapping[str, Json] | None
    evaluation: Mapping[str, Json]
    votes: Mapping[str, Json] | None = None

    def find(self, named: str) -> Mapping[str, Json] | None:
        """The plan of a digest, or None."""
        known = [one for one in (self.train, self.evaluation, self.votes) if one is not None]
        return next((one for one in known if digest_of(dict(one)) == named), None)

    def judging(self, named: str) -> Mapping[str, Json]:
        """The plan of a query on held-out units: that of votes if it is named, else that of candidates."""
        votes = self.votes is not None and digest_of(dict(self.votes)) == named
        return self.votes if votes and self.votes is not None else self.evaluation


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """A ``budget.opened``: order, delta and cap of a lineage, by its owner's own declaration."""

    plan: str
    order: int
    delta: float
    epsilon_max: float

    def follows(self, before: Account) -> bool:
        """Whether it may come after another one of its lineage: a cap is tightened only."""
        fixed = (self.order, self.delta) == (before.order, before.delta)
        return fixed and self.epsilon_max <= before.epsilon_max

    @property
    def rho_max_nano(self) -> int:
        """What the cap holds at its order.

        Raises:
            BudgetError: The numbers are none to account with.
        """
        if self.order not in ORDERS:
            raise _refuse("an order that is accounted at", str(self.order))
        try:
            return rho_max_nano(epsilon=self.epsilon_max, delta=self.delta, order=self.order)
        except _NUMBERS as error:
            raise _refuse("a delta and a cap above 0", f"{self.delta}, {self.epsilon_max}") from error


@dataclass(slots=True, kw_only=True)
class Book:
    """The entries so far; see the module."""

    mechanisms: set[str] = field(default_factory=set)
    accounts: dict[str, list[Account]] = field(default_factory=dict)
    lineages: dict[tuple[str, str], int] = field(default_factory=dict)  # (lineage, block)
    contracts: dict[tuple[str, str], dict[Mechanism, int]] = field(default_factory=dict)
    """Steps of each mechanism, by (contract, split): a cap is compared at its own order."""

    def copy(self) -> Book:
        """A book to try on."""
        return Book(
            mechanisms=set(self.mechanisms),
            accounts={name: list(opened) for name, opened in self.accounts.items()},
            lineages=dict(self.lineages),
            contracts={key: dict(steps) for key, steps in self.contracts.items()},
        )

    def opened(self, body: Mapping[str, Json], *, plans: Plans) -> None:
        """Takes a ``budget.opened``.

        Args:
            body: Of the member's envelope.
            plans: Of its run's recipe.

        Raises:
            BudgetError: An audit would call it an error.
        """
        account = Account(
            plan=body["plan"],
            order=body["alpha_star"],
            delta=float(body["delta"]),
            epsilon_max=float(body["epsilon_max"]),
        )
        before = self.accounts.setdefault(body["lineage"], [])
        before.append(account)
        plan = plans.find(account.plan)
        if plan is None or (plan["unit"], plan["adjacency"]) != (body["unit"], body["adjacency"]):
            raise _refuse("a budget for a plan of the recipe, in its unit", "another")
        if account.rho_max_nano <= 0:
            raise _refuse("a cap that holds something at its order", str(account.epsilon_max))
        if any(not account.follows(one) for one in before):
            raise _refuse("the order and delta that the lineage has, and no higher cap", "others")

    def spent(
        self,
        body: Mapping[str, Json],
        *,
        slot: tuple[str, int | None],
        scope: str,
        cap: Cap | None,
        plans: Plans,
    ) -> None:
        """Takes an ``epsilon.spent``.

        Args:
            body: Of the member's envelope.
            slot: Run and round of the envelope.
            scope: Its contract.
            cap: Of its party in that contract.
            plans: Of its run's recipe.

        Raises:
            BudgetError: An audit would call it an error.
        """
        mechanism, steps = body["mechanism"], body["steps"]
        again = mechanism in self.mechanisms
        self.mechanisms.add(mechanism)
        run, kind, *_ = mechanism.split("/")
        split, plan = (HELD_OUT, plans.judging(body["plan"])) if kind == "eval" else (TRAIN, plans.train)
        blocks, key = blocks_named(split, body), (scope, split)
        if plan is not None:
            self._charge(blocks, key, body, plan=plan)
        if again:
            raise _refuse("each mechanism run once", f"{mechanism} again")
        if run != slot[0] or (split == TRAIN and kind != str(slot[1])):
            raise _refuse("a mechanism run of its run and round", mechanism)
        if plan is None or digest_of(dict(plan)) != body["plan"]:
            raise _refuse("the plan of the recipe", str(body["plan"]))
        if steps != plan_facts(plan)[3]:
            raise _refuse(f"{plan_facts(plan)[3]} steps", str(steps))
        self._check_cost(blocks, body, plan)
        self._check_contract(key, plan, cap)

    def _charge(
        self,
        blocks: tuple[str, ...],
        key: tuple[str, str],
        body: Mapping[str, Json],
        *,
        plan: Mapping[str, Json],
    ) -> None:
        q, sigma, _, _ = plan_facts(plan)
        steps, charged = body["steps"], body["rho_nano"]
        opened = self.accounts.get(body["lineage"])
        if opened and opened[0].order in ORDERS:
            charged = max(charged, steps * rho_step_nano(q=q, sigma=sigma, order=opened[0].order))
        for block in blocks:
            place = (body["lineage"], block)
            self.lineages[place] = self.lineages.get(place, 0) + charged
        taken = self.contracts.setdefault(key, {})
        taken[(q, sigma)] = taken.get((q, sigma), 0) + steps

    def _check_cost(
        self, blocks: tuple[str, ...], body: Mapping[str, Json], plan: Mapping[str, Json]
    ) -> None:
        opened = self.accounts.get(body["lineage"], [])
        account = next((one for one in opened if one.plan == body["plan"]), None)
        if account is None:
            raise _refuse("a budget that was opened for its lineage and plan before", "none")
        most = min(one.rho_max_nano for one in opened if one.follows(opened[0]))
        q, sigma, _, _ = plan_facts(plan)
        cost = body["steps"] * rho_step_nano(q=q, sigma=sigma, order=account.order)
        if body["rho_nano"] < cost:
            raise _refuse(f"{cost} nano-rho at order {account.order}", str(body["rho_nano"]))
        for block in blocks:
            if (found := self.lineages[(body["lineage"], block)]) > most:
                raise _refuse(f"{most} nano-rho of the lineage in {block}", str(found))

    def _check_contract(self, key: tuple[str, str], plan: Mapping[str, Json], cap: Cap | None) -> None:
        if cap is None:
            raise _refuse("a contract with caps", "one without")
        most, found = cap.rho_max_nano, self._under(cap, key[1])
        if found > most:
            raise _refuse(f"{most} nano-rho of the contract", str(found))
        q, sigma, steps, _ = plan_facts(plan)
        release = epsilon_text(epsilon_rdp(q=q, sigma=sigma, steps=steps, delta=float(cap.delta)))
        if key[1] == TRAIN and float(release) > float(cap.epsilon_per_release):
            raise _refuse(f"epsilon {cap.epsilon_per_release} per release", release)

    def _under(self, cap: Cap, split: str) -> int:
        """What was spent under a contract and the versions that it superseded, at its cap's order."""
        return sum(
            steps * rho_step_nano(q=q, sigma=sigma, order=cap.order)
            for scope in cap.scopes
            for (q, sigma), steps in self.contracts.get((scope, split), {}).items()
        )


def blocks_named(split: str, body: Mapping[str, Json]) -> tuple[str, ...]:
    """The blocks that an ``epsilon.spent`` charges; one that names none is of a lineage of one block."""
    return tuple(block_name(split, one) for one in body.get("blocks") or [0])


def _refuse(need: str, found: str) -> BudgetError:
    return BudgetError(need=need, found=found[:80], remedy=_REMEDY)
