# SPDX-License-Identifier: Apache-2.0
"""The ledgers of this node's data, one file per lineage, and what they say about one contract's caps.

- Caps come from the signed contract. The site's own ``local.epsilon_total`` is a filter beside them, at its
  own order: with it something is refused earlier, never later.
- A ledger is opened once, with a cap for the life of the data under all contracts: ``local.epsilon_lifetime``
  where the owner set one, above or below what a contract says; else the tighter of the first contract's cap
  and the owner's (`opening_cap`). An open one is only tightened.
- It is opened by the first reservation, in one step with it: what is refused opens none, and fixes no cap.
- A ledger that should be there and is not is an unknown budget: refused, never started again. So is one that
  lies under the name of another lineage's.
- A unit belongs to one lineage: known by another ledger, it is refused (``budget.lineage-unknown``).
- Entries that a former key of the node signed count as before (`client.keyring`).
- Without a privacy clause in the contract (NOT PRIVATE) there is no cap and nothing is charged. Data with a
  ledger are not used so, unless their owner waived it for that contract (`client.budgets.waiving`); data
  that were used so carry the mark in their ledger, once one is opened.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from decimal import Decimal
from typing import TYPE_CHECKING, Any

from client.keyring import read_history
from client.privacy.store import BudgetStore
from policies.privacy.accounting import epsilon_text
from policies.privacy.blocks import TRAIN, split_charged
from policies.privacy.errors import BudgetUnknownError, LineageUnknownError
from policies.privacy.ledger import Cap, LedgerState, apply, epsilon_in

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from client.privacy.units import Units
    from client.settings import Home, LocalRules
    from policies.contract import Contract
    from policies.identity import SigningKey
    from policies.ports import Clock

__all__ = [
    "Budgets",
    "Touched",
    "cap_of",
    "is_opened",
    "judging_mechanism",
    "opening_cap",
    "own_cap_of",
    "run_held",
    "training_mechanism",
    "votes_run",
]

_VOTES = "/votes"


def training_mechanism(run: str, number: int, attempt: int) -> str:
    """Name of one noisy step in budget entries."""
    return f"{run}/{number}/{attempt}"


def votes_run(run: str) -> str:
    """Name under which a ledger holds the votes on a run's rounds, apart from the query about its candidate.

    Both read held-out units, each under a plan of its own.
    """
    return run + _VOTES


def run_held(name: str) -> str:
    """The run behind a name in a ledger."""
    return name.removesuffix(_VOTES)


def judging_mechanism(run: str, candidate: str) -> str:
    """Name of one noisy query about a candidate in budget entries."""
    return f"{run}/eval/{candidate.removeprefix('sha256:')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Touched:
    """One spend as the ledger holds it; ``epsilon_max`` is the lineage's cap when it was taken."""

    lineage: str
    contract: str
    recipe: str
    run: str
    round: int
    attempt: int
    split: str
    blocks: tuple[str, ...]
    plan_digest: str
    steps: int
    rho_nano: int
    epsilon_after: str
    epsilon_max: str
    subject: str | None = None

    @property
    def mechanism(self) -> str:
        """Its name in budget entries."""
        if self.split == TRAIN:
            return training_mechanism(self.run, self.round, self.attempt)
        return judging_mechanism(self.run, self.subject or "")


def cap_of(contract: Contract, party: str, before: tuple[str, ...] = ()) -> Cap | None:
    """The cap that binds this party under a contract; None under ``mode: none``.

    Args:
        contract: The contract.
        party: Short name of this party.
        before: Digests of the versions that it superseded; what was spent under them counts.
    """
    caps = contract.caps(party)
    if caps is None:
        return None
    return Cap(
        scope=contract.digest,
        epsilon_total=caps.epsilon_total,
        epsilon_per_release=caps.epsilon_per_release,
        delta=caps.delta,
        before=before,
    )


def own_cap_of(contract: Contract, party: str, rules: LocalRules, before: tuple[str, ...] = ()) -> Cap | None:
    """The owner's cap under a contract, where it is tighter than the contract's; else None."""
    cap, own = cap_of(contract, party, before), rules.epsilon_total
    if cap is None or own is None or Decimal(own) >= Decimal(cap.epsilon_total):
        return None
    return replace(cap, epsilon_total=own, epsilon_per_release=min(cap.epsilon_per_release, own, key=Decimal))


def opening_cap(cap: Cap, own: Cap | None, lifetime: str | None) -> Cap:
    """The cap that the ledger of new data is opened with.

    Args:
        cap: Of the contract that is about to charge them; its delta and cap per release stay.
        own: The owner's tighter one under that contract, where there is one.
        lifetime: ``local.epsilon_lifetime``; it may be above the contract's cap, which binds by itself.
    """
    if lifetime is None:
        return own or cap
    release = min(cap.epsilon_per_release, lifetime, key=Decimal)
    return replace(cap, epsilon_total=lifetime, epsilon_per_release=release)


class Budgets:
    """Opens ledgers and keeps them open."""

    def __init__(self, home: Home, *, key: SigningKey, clock: Clock) -> None:
        self._home = home
        self._key = key
        self._clock = clock
        self._open: dict[str, BudgetStore] = {}

    def close(self) -> None:
        """Closes all files."""
        for store in self._open.values():
            store.close()
        self._open.clear()

    def lineages(self) -> tuple[str, ...]:
        """File stems of the ledgers that are here."""
        if not self._home.budget.exists():
            return ()
        return tuple(sorted(one.stem for one in self._home.budget.glob("*.db")))

    def find(self, stem: str) -> BudgetStore:
        """The ledger of a file stem.

        Raises:
            BudgetUnknownError: It is not there, or does not verify.
        """
        store = self._open.get(stem)
        if store is None:
            history, public = read_history(self._home.keys), self._key.public
            store = BudgetStore(
                self._home.budget / f"{stem}.db",
                clock=self._clock,
                key=self._key,
                former=history.marks(stem, public),
                at_least=history.newest_mark(stem, public),
            )
            if _stem(store.state.lineage.scope) != stem:
                store.close()
                raise _lost(stem, f"the ledger of {store.state.lineage.scope}")
            self._open[stem] = store
        return store

    def look(self, lineage: str, *, charged_before: bool) -> BudgetStore | None:
        """The ledger of a lineage; None if no contract ever charged it. Opens none.

        Args:
            lineage: Of the data.
            charged_before: Whether this node has told the log of a spend on this lineage; then the file must
                be there.

        Raises:
            BudgetUnknownError: The file is missing although it must be there, or does not verify.
        """
        stem = _stem(lineage)
        if stem in self._open or (self._home.budget / f"{stem}.db").exists():
            return self.find(stem)
        if charged_before or self._handed_over(stem):
            raise _lost(stem, "none, although it was charged")
        return None

    def of(
        self,
        lineage: str,
        cap: Cap,
        *,
        unit: str,
        adjacency: str,
        charged_before: bool,
        first: Callable[[BudgetStore], object] | None = None,
    ) -> BudgetStore:
        """The ledger of a lineage, opened with this cap if no contract ever charged it.

        Args:
            lineage: Of the data.
            cap: What it is opened with (`opening_cap`).
            unit: Of the plan.
            adjacency: Of the plan.
            charged_before: As in `look`.
            first: Writes the entries with which a new ledger begins; if it raises, there is none.

        Raises:
            BudgetUnknownError: The file is missing although it must be there, or does not verify.
        """
        known = self.look(lineage, charged_before=charged_before)
        if known is not None:
            return known
        own = Cap(
            scope=lineage,
            epsilon_total=cap.epsilon_total,
            epsilon_per_release=cap.epsilon_per_release,
            delta=cap.delta,
        )
        stem = _stem(lineage)
        path = self._home.budget / f"{stem}.db"
        self._open[stem] = BudgetStore.create(
            path, clock=self._clock, key=self._key, cap=own, unit=unit, adjacency=adjacency, first=first
        )
        return self._open[stem]

    def check_units(self, lineage: str, units: Units) -> None:
        """Returns if a lineage may be charged for these units: no other ledger was ever charged for one.

        Raises:
            LineageUnknownError: No lineage, or units of another one.
        """
        if not lineage or not units.blocks:
            raise LineageUnknownError(
                need="units with a lineage", found="none", remedy="iriai-node data add PATH --dataset NAME"
            )
        for stem in self.lineages():
            state = self.find(stem).state
            if state.lineage.scope != lineage and units.fingerprints & set(state.units):
                raise LineageUnknownError(
                    need=f"units of {lineage} alone",
                    found=f"some that were charged to {state.lineage.scope}",
                    remedy="restore the folder data from the backup; or empty it, and import first and by "
                    "itself what was imported first before: it has its old lineage then",
                )

    def _handed_over(self, stem: str) -> bool:
        """Whether an earlier key of the node charged this ledger."""
        return read_history(self._home.keys).newest_mark(stem, self._key.public) is not None

    def has(self, lineage: str) -> bool:
        """Whether the ledger of a lineage is here."""
        return _stem(lineage) in self.lineages()

    def ledger_of(self, lineage: str) -> BudgetStore:
        """The ledger of a lineage that was charged before.

        Raises:
            BudgetUnknownError: There is none.
        """
        return self.find(_stem(lineage))

    def settle(self, is_over: Callable[[str], bool]) -> int:
        """Closes the reservations of runs that are over, so that steps that never ran are free again.

        Args:
            is_over: Whether a run is; asked once for each run with an open reservation.

        Returns:
            How many reservations were closed.
        """
        done = 0
        for stem in self.lineages():
            store = self.find(stem)
            store.figures()  # what other processes appended is read first
            waiting = [key for key, hold in store.state.holds.items() if hold.open]
            for run, split in waiting:
                if is_over(run_held(run)):
                    store.commit(run, split=split)
                    done += 1
        return done

    def held_runs(self) -> tuple[str, ...]:
        """Runs whose reservations are open, in any ledger."""
        stores = [self.find(stem) for stem in self.lineages()]
        return tuple(
            sorted(
                {run_held(run) for one in stores for (run, _), hold in one.read().holds.items() if hold.open}
            )
        )

    def touches(self) -> tuple[Touched, ...]:
        """Every spend in every ledger, with its cost and what was spent after it."""
        return tuple(one for stem in self.lineages() for one in _touches(self.find(stem)))


def is_opened(home: Home, lineage: str) -> bool:
    """Whether a contract ever opened a budget over a lineage here; nothing is opened to find out."""
    return bool(lineage) and (home.budget / f"{_stem(lineage)}.db").exists()


def _stem(lineage: str) -> str:
    return hashlib.sha256(lineage.encode("utf-8")).hexdigest()[:32]


def _lost(stem: str, found: str) -> BudgetUnknownError:
    return BudgetUnknownError(
        need=f"the ledger {stem}.db",
        found=found,
        remedy="restore its newest copy; without it these data cannot be trained on again",
    )


def _touches(store: BudgetStore) -> Iterator[Touched]:
    state, recipes = LedgerState(), dict[str, str]()
    for entry in store.entries():
        state = apply(state, entry)
        body = entry["body"]
        if entry["kind"] == "reserve":
            recipes[body["run"]] = body["recipe"]
        elif entry["kind"] == "touch":
            yield _touched(state, body, body["split"], recipes[body["run"]])
        elif entry["kind"] == "incident":
            for one in body["missing"]:
                yield _touched(state, one, split_charged(one["plan"]), one["recipe"])


def _touched(state: LedgerState, body: Mapping[str, Any], split: str, recipe: str) -> Touched:
    hold = state.holds[(body["run"], split)]
    return Touched(
        lineage=state.lineage.scope,
        contract=hold.contract.scope,
        recipe=recipe,
        run=run_held(body["run"]),
        round=body["round"],
        attempt=body["attempt"],
        split=split,
        blocks=hold.blocks,
        plan_digest=hold.plan_digest,
        steps=body["steps"],
        rho_nano=body["steps"] * hold.lineage_step,
        epsilon_after=epsilon_text(epsilon_in(state, hold.blocks)),
        epsilon_max=state.lineage.epsilon_total,
        subject=body.get("subject"),
    )
