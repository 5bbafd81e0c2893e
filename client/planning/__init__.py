# SPDX-License-Identifier: Apache-2.0
"""What a recipe's privacy plan would cost and carry at this site, before anybody signs.

`plan` gives sentences for a person, and for a program::

    {"recipe": digest, "noise": "local-full" | "shares", "honest_min": int | null,
     "test_only": bool,                                     true: NOT PRIVATE
     "trainable": bool,                                     false: noise shares, and no secure aggregation
     "units": int, "units_from": "option" | data set, "silos": int, "parameters": int,
     "strata": int, "strata_target": text | null, "drawn_per_step": number,      of one silo
     "sampling_prob": text, "noise_multiplier": text, "calibrated": bool, "steps": int,
     "epsilon_rdp": text, "epsilon_pld": text | null,       null without dp-accounting, or above 100
     "epsilon_by_colluders": [text, ...],                   only with shares: for 0, 1, ... other silos
     "delta": text, "delta_max": number,                    1 / (10 units), rounded down
     "noise_ratio": number, "noise_verdict": "fine" | "warn" | "refuse",
     "verdict": the same, and "refuse" wherever there is an error,
     "remedies": [{"kind", "value", "words"}],              cheapest first
     "budget": {"from": "ledger" | "lifetime" | "settings" | "contract" | "default",
                "epsilon_total": text, "order": int, "rho_run_nano": int, "rho_left_nano": int,
                "runs_left": int} | null,               over the life of the data
     "budget_own": the same | null, "budget_contract": the same | null, "runs_left": int,
     "opened": {"is_open": bool, "from": as above, "epsilon": text},   the ledger of the data
     "contract": {"digest", "party", "epsilon_per_release", "epsilon_total", "delta", "min_parties",
                  "max_colluders", "findings": [{"clause", "about", "need", "found", "holds"}]} | null,
     "canaries": {"count": int, "units_needed": int, "units": int, "clause": id} | null,
     "round": {"operations": int, "minutes": number, "deadline_s": int}}

A budget is null where no order holds a single run under the cap (`client.planning.caps`). A plan that is
refused has its figures all the same, beside the error.
Nothing is written and nothing leaves.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import asdict, dataclass, replace
from decimal import ROUND_DOWN, Decimal
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer
from client.naming import named_here
from client.planning.caps import check_told, purses
from client.planning.demands import canaries, check_terms, findings, terms
from client.planning.words import sentences
from client.seeds.donated import is_given, withheld
from policies.errors import IriaiError
from policies.privacy.accounting import calibrate, epsilon_text
from policies.privacy.errors import PlanIncompleteError
from policies.privacy.feasibility import Feasibility, feasibility
from policies.privacy.plan import DpPlan
from policies.privacy.shares import check_conditions, check_room, epsilon_by_colluders
from policies.privacy.tight import tight_text

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.episodes import EpisodeMeta
    from client.naming import Named
    from client.planning.caps import Purses
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["Planned", "plan"]

_OPERATIONS_PER_FRAME: Final = 6  # and parameter: forward 2, backward 4
_OPERATIONS_S: Final = 1e9  # of a slow core; a forecast errs on the slow side


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The planner's answer, and why the node would refuse to train so; None if it would not."""

    answer: Answer
    refusal: IriaiError | None

    @property
    def is_refused(self) -> bool:
        """Whether `check` raises."""
        return self.refusal is not None

    def check(self) -> None:
        """Returns if the units carry the plan, and the contract allows it.

        Raises:
            SharesUnfitError: Noise shares among fewer silos than they need, or beyond the contract's sums.
            RefusedError: A term of the contract; the clause is named.
            DeltaTooLargeError: Delta is above ``1 / (10 units)``.
            InfeasibleError: The noise is above three times the best signal.
            BudgetExhaustedError: A cap is below one run, or holds less than one still.
            OrderUnfitError: No order holds one run under a cap.
        """
        if self.refusal is not None:
            raise self.refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class _Units:
    """Training units that are planned for: how many, in which strata, whence, and their lineage if known."""

    strata: tuple[float, ...]
    source: str
    lineage: str | None = None

    @property
    def count(self) -> int:
        """Of all strata."""
        return round(sum(self.strata))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Case:
    """What is planned: a plan, for so many units and silos, under a contract or none yet."""

    named: Named
    asked: DpPlan
    units: _Units
    silos: int
    found: Feasibility

    @property
    def colluders(self) -> int:
        """That the contract allows for."""
        return 0 if self.named.held is None else self.named.held.contract.aggregation.max_colluders

    @property
    def summed(self) -> bool:
        """Whether the contract opens sums only; without one, the next contract may."""
        held = self.named.held
        return held is None or held.contract.aggregation.secure_aggregation == "required"

    @property
    def findings(self) -> list[dict[str, Any]]:
        """What the contract says to each term of the plan."""
        held = self.named.held
        return [] if held is None else findings(held, self.asked, silos=self.silos)

    def refusal(self, purse: Purses) -> IriaiError | None:
        """The first of `Planned.check`'s errors that there is a reason for."""
        try:
            self._check(purse)
        except IriaiError as error:
            return error
        return None

    def _check_room(self) -> None:
        """Of the contract that is here; without one nobody knows the ring yet."""
        if self.named.held is None:
            return
        pooling = self.named.held.contract.aggregation
        check_room(
            self.asked,
            parameters=self.named.recipe.parameters,
            parties=self.silos,
            largest=float(pooling.update_norm_max) * float(self.asked.normalizer),
            clause=pooling.clause,
        )

    def _check(self, purse: Purses) -> None:
        held = self.named.held
        if self.asked.noise == "shares":
            check_conditions(
                self.asked,
                groups=self.silos,
                max_colluders=self.colluders,
                secure_aggregation=self.summed,
            )
            self._check_room()
        check_terms(self.findings)
        self.asked.check_units(self.units.count)
        self.found.check()
        if held is None or held.contract.caps(held.party.party) is not None:
            purse.check(self.asked)


def plan(
    home: Home,
    *,
    recipe: str | Path,
    epsilon: float | None,
    units: int | None,
    silos: int | None,
    contract: str | None = None,
    strata: int | None = None,
) -> Planned:
    """Figures of a recipe's plan at this site.

    Args:
        home: The node's folder; it may be empty yet.
        recipe: Canonical bytes of the recipe, in a file; with a contract also its digest.
        epsilon: Noise is calibrated to it; None leaves the recipe's.
        units: Training units; None counts them in the store.
        silos: In the mean; None takes the least number of recipe and contract.
        contract: Digest of a contract that is here: its caps and terms hold.
        strata: In how many strata of equal size the units are; None takes those of the data that are counted,
            else one.

    Raises:
        NoSuchThingError: No such file, contract or recipe.
        RecipeError: It is no recipe.
        PlanIncompleteError: No privacy plan in it, no unit to plan for, an epsilon that no noise reaches, or
            more strata than units.
        BudgetUnknownError: A ledger is lost, or does not verify.
        BudgetDivergedError: A ledger is an older copy than the log was told.
    """
    named = named_here(home, str(recipe), contract=contract)
    read, held = named.recipe, named.held
    asked = _asked(read, epsilon)
    check_told(home)
    meant = _Units(strata=(units,), source="option") if units else _own_units(home, named, asked)
    if strata is not None:
        meant = _shared(meant, strata)
    many = silos or max(read.need, 0 if held is None else held.contract.aggregation.min_parties)
    found = feasibility(asked, meant.count, read.parameters, many, meant.strata)
    case = _Case(named=named, asked=asked, units=meant, silos=many, found=found)
    purse = purses(home, asked, meant.lineage, named)
    refusal = case.refusal(purse)
    facts = {
        **_plan_facts(case, calibrated=epsilon is not None),
        "verdict": found.verdict if refusal is None else "refuse",
        "budget": purse.life,
        "budget_own": purse.own,
        "budget_contract": purse.contract,
        "runs_left": purse.runs_left,
        "opened": purse.opened,
        "contract": None if held is None else {**terms(held), "findings": case.findings},
        "canaries": None if held is None else canaries(held.contract, meant.count),
        "round": _round(read, asked, found.drawn),
    }
    return Planned(answer=Answer(data=facts, text=sentences(facts), error=refusal), refusal=refusal)


def _plan_facts(case: _Case, *, calibrated: bool) -> dict[str, Any]:
    read, asked, found = case.named.recipe, case.asked, case.found
    return {
        "recipe": read.digest,
        "noise": asked.noise,
        "honest_min": asked.honest_min,
        "test_only": asked.test_only,
        "trainable": asked.noise != "shares" or case.summed,
        "units": case.units.count,
        "units_from": case.units.source,
        "strata": len(case.units.strata),
        "strata_target": asked.strata_target,
        "drawn_per_step": round(found.drawn, 2),
        "silos": case.silos,
        "parameters": read.parameters,
        "sampling_prob": asked.sampling_prob,
        "noise_multiplier": asked.noise_multiplier,
        "calibrated": calibrated,
        "steps": asked.steps,
        "epsilon_rdp": epsilon_text(asked.epsilon_rdp),
        "epsilon_pld": _tight(asked),
        "epsilon_by_colluders": _by_colluders(asked, case.colluders),
        "delta": asked.delta,
        "delta_max": _delta_max(case.units.count),
        "noise_ratio": found.ratio,
        "noise_verdict": found.verdict,
        "remedies": [asdict(one) for one in found.remedies],
    }


def _asked(recipe: Recipe, epsilon: float | None) -> DpPlan:
    """The recipe's plan, with noise for another epsilon if one was asked for."""
    if recipe.plan is None:
        raise PlanIncompleteError(
            need="a recipe with a privacy plan",
            found="NOT PRIVATE: its plan is null",
            remedy="plan a private one",
        )
    if epsilon is None:
        return recipe.plan
    if not (math.isfinite(epsilon) and epsilon > 0):
        raise PlanIncompleteError(
            need="--epsilon as a number above 0",
            found=f"{epsilon:g}",
            remedy="--epsilon 8, for example; without --epsilon the recipe's own noise is planned with",
        )
    own = recipe.plan
    sigma = calibrate(epsilon, float(own.delta), float(own.sampling_prob), own.steps)
    return DpPlan.load({**own.document, "noise_multiplier": sigma})


def _delta_max(units: int) -> float:
    """The largest delta of two digits that so many units allow."""
    most = 1 / Decimal(10 * units)
    return float(most.quantize(Decimal(1).scaleb(most.adjusted() - 1), rounding=ROUND_DOWN))


def _shared(units: _Units, strata: int) -> _Units:
    """The same units in so many strata of equal size."""
    if strata > units.count:
        raise PlanIncompleteError(
            need=f"at most as many strata as units ({units.count})",
            found=f"--strata {strata}",
            remedy="a stratum is a task; leave --strata out for one",
        )
    return replace(units, strata=(units.count / strata,) * strata)


def _own_units(home: Home, named: Named, asked: DpPlan) -> _Units:
    """Training units of the smallest data set here that has the recipe's fields, each in its stratum.

    Counted are the episodes that training opens: no excluded one, none that was given away, and where actions
    are imitated none in which a model acted. Under a contract, only those that were imported under it, as
    soon as there is one.

    Where the contract has the recipe, only data sets that it names for this party count. The stratum of a
    unit is its task, as in training; of a unit with episodes of several tasks, all of these.
    """
    from client.data import Store

    recipe, held = named.recipe, named.held
    clause = None if held is None else held.contract.recipe(recipe.digest)
    meant = None if held is None or clause is None else clause.datasets_of(held.party.party)
    store, fitting, away = Store(home.data), list[_Units](), withheld(home)
    imitates = recipe.task.kind == "behaviour-cloning"
    for name, entry in store.catalogue().datasets.items():
        if meant is not None and name not in meant:
            continue
        fields = {column.split(".", 1)[-1] for column in entry.columns} | set(entry.labels)
        if entry.unit == asked.unit and set(recipe.fields) <= fields:
            rows = _usable(named, [one.meta for one in store.episodes(name)])
            kept = [one for one in rows if not one.excluded and not is_given(one, away)]
            kept = [one for one in kept if one.may_be_cloned or not imitates]
            tasks: dict[object, set[str]] = {}
            for one in kept:
                if one.split == "train":
                    tasks.setdefault(one.unit_id, set()).add(one.task)
            sizes = Counter(frozenset(one) for one in tasks.values())
            if sizes:
                strata = tuple(sorted(sizes.values(), reverse=True))
                fitting.append(_Units(strata=strata, source=name, lineage=entry.lineage))
    if not fitting:
        raise PlanIncompleteError(
            need=f"training units ({asked.unit}) with the recipe's fields",
            found="none here",
            remedy="say how many there will be (--units), or import them (iriai-node data add)",
        )
    return min(fitting, key=lambda one: (one.count, one.source))


def _usable(named: Named, metas: list[EpisodeMeta]) -> list[EpisodeMeta]:
    """Episodes that the contract may use; all of them where none was imported under it yet."""
    if named.held is None or named.shelf is None:
        return metas
    contract = named.held.contract.digest
    versions = (contract, *named.shelf.earlier(contract))
    return [one for one in metas if one.has_right(versions)] or metas


def _tight(asked: DpPlan) -> str | None:
    """The tight figure, where there is one and the library for it is installed; takes seconds."""
    return None if find_spec("dp_accounting") is None else tight_text(asked)


def _by_colluders(asked: DpPlan, colluders: int) -> list[str]:
    """Rows of the smallest sum that opens: ``honest_min`` silos, and the colluders that are allowed for."""
    if asked.honest_min is None:
        return []
    return [epsilon_text(one) for one in epsilon_by_colluders(asked, asked.honest_min + colluders)]


def _round(recipe: Recipe, asked: DpPlan, drawn: float) -> dict[str, Any]:
    """Computing of one round: every drawn unit with all its K frames."""
    frames = drawn * asked.frames_per_unit * asked.steps_per_round
    operations = round(_OPERATIONS_PER_FRAME * recipe.parameters * frames)
    return {
        "operations": operations,
        "minutes": round(operations / _OPERATIONS_S / 60, 3),
        "deadline_s": recipe.deadline_s,
    }
