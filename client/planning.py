# SPDX-License-Identifier: Apache-2.0
"""What a recipe's privacy plan would cost and carry at this site, before anybody signs.

`plan` gives sentences for a person, and for a program::

    {"recipe": digest, "noise": "local-full" | "shares", "honest_min": int | null,
     "units": int, "units_from": "option" | data set, "silos": int, "parameters": int,
     "sampling_prob": text, "noise_multiplier": text, "calibrated": bool, "steps": int,
     "epsilon_rdp": text, "epsilon_pld": text | null,       null where dp-accounting is not installed
     "epsilon_by_colluders": [text, ...],                   only with shares: for 0, 1, ... other silos
     "delta": text, "delta_max": number,                    1 / (10 units)
     "noise_ratio": number, "verdict": "fine" | "warn" | "refuse",
     "remedies": [{"kind", "value", "words"}],              cheapest first
     "budget": {"from": "ledger" | "settings" | "default", "epsilon_total": text, "order": int,
                "rho_run_nano": int, "rho_left_nano": int, "runs_left": int} | null,
     "round": {"operations": int, "minutes": number, "deadline_s": int}}

`budget` is null where no order holds a single run under the cap. A refusal is an error envelope instead.
Nothing is written and nothing leaves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final

from client.answers import Answer
from client.donated import is_given, withheld
from client.errors import NoSuchThingError
from client.plan_words import sentences
from client.settings import load_settings
from policies.limits import RECIPE_BYTES
from policies.privacy.accounting import (
    calibrate,
    choose_order,
    epsilon_text,
    rho_max_nano,
)
from policies.privacy.errors import OrderUnfitError, PlanIncompleteError
from policies.privacy.feasibility import Feasibility, feasibility
from policies.privacy.plan import DpPlan
from policies.privacy.shares import check_conditions, epsilon_by_colluders
from policies.recipe import load

if TYPE_CHECKING:
    from pathlib import Path

    from client.privacy.store import BudgetFigures
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["Planned", "plan"]

_LIFETIME_EPSILON: Final = "8"  # the cap that a lineage gets where nobody set another
_OPERATIONS_PER_FRAME: Final = 6  # and parameter: forward 2, backward 4
_OPERATIONS_S: Final = 1e9  # of a slow core; a forecast errs on the slow side


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The planner's answer, and whether the node would refuse to train so."""

    answer: Answer
    found: Feasibility
    plan: DpPlan
    units: int

    @property
    def is_refused(self) -> bool:
        """Whether `check` raises."""
        return self.found.verdict == "refuse" or float(self.plan.delta) * 10 * self.units > 1

    def check(self) -> None:
        """Returns if the units carry the plan.

        Raises:
            DeltaTooLargeError: Delta is above ``1 / (10 units)``.
            InfeasibleError: The noise is above three times the best signal.
        """
        self.plan.check_units(self.units)
        self.found.check()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Purse:
    """The lifetime budget that runs would be taken from."""

    source: str
    epsilon_total: str
    order: int
    rho_left_nano: int
    rho_max_nano: int


def plan(home: Home, *, recipe: Path, epsilon: float | None, units: int | None, silos: int | None) -> Planned:
    """Figures of a recipe's plan at this site.

    Args:
        home: The node's folder; it may be empty yet.
        recipe: Canonical bytes of the recipe, in a file.
        epsilon: Noise is calibrated to it; None leaves the recipe's.
        units: Training units; None counts them in the store.
        silos: In the mean; None takes the recipe's least number.

    Raises:
        NoSuchThingError: No such file.
        RecipeError: It is no recipe.
        PlanIncompleteError: No privacy plan in it, no unit to plan for, or an epsilon that no noise
            reaches.
        SharesUnfitError: Noise shares among fewer silos than they need.
        BudgetUnknownError: The ledger of the data does not verify.
    """
    read = _recipe(recipe)
    asked = _asked(read, epsilon)
    count, source, lineage = (units, "option", None) if units else _own_units(home, read, asked)
    many = silos or read.need
    if asked.noise == "shares":
        check_conditions(asked, groups=many, max_colluders=0, secure_aggregation=True)
    found = feasibility(asked, n_units=count, n_params=read.parameters, n_silos=many)
    facts: dict[str, Any] = {
        "recipe": read.digest,
        "noise": asked.noise,
        "honest_min": asked.honest_min,
        "units": count,
        "units_from": source,
        "silos": many,
        "parameters": read.parameters,
        "sampling_prob": asked.sampling_prob,
        "noise_multiplier": asked.noise_multiplier,
        "calibrated": epsilon is not None,
        "steps": asked.steps,
        "epsilon_rdp": epsilon_text(asked.epsilon_rdp),
        "epsilon_pld": _tight(asked),
        "epsilon_by_colluders": _by_colluders(asked),
        "delta": asked.delta,
        "delta_max": 1 / (10 * count),
        "noise_ratio": found.ratio,
        "verdict": found.verdict,
        "remedies": [asdict(one) for one in found.remedies],
        "budget": _budget(_purse(home, asked, lineage), asked),
        "round": _round(read, asked, count),
    }
    return Planned(answer=Answer(data=facts, text=sentences(facts)), found=found, plan=asked, units=count)


def _recipe(path: Path) -> Recipe:
    try:
        with path.open("rb") as file:
            data = file.read(RECIPE_BYTES + 1)
    except OSError as error:
        raise NoSuchThingError(
            need=f"the file {path}", found=type(error).__name__, remedy="check its name"
        ) from error
    return load(data)


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
    own = recipe.plan
    sigma = calibrate(epsilon, float(own.delta), float(own.sampling_prob), own.steps)
    return DpPlan.load({**own.document, "noise_multiplier": sigma})


def _own_units(home: Home, recipe: Recipe, asked: DpPlan) -> tuple[int, str, str]:
    """Training units of the smallest data set here that has the recipe's fields; its name and lineage."""
    from client.data import Store

    store, fitting, away = Store(home.data), list[tuple[int, str, str]](), withheld(home)
    for name, entry in store.catalogue().datasets.items():
        fields = {column.split(".", 1)[-1] for column in entry.columns} | set(entry.labels)
        if entry.unit == asked.unit and set(recipe.fields) <= fields:
            rows = [one.meta for one in store.episodes(name)]
            kept = [one for one in rows if not one.excluded and not is_given(one, away)]
            units = {one.unit_id for one in kept if one.split == "train"}
            if units:
                fitting.append((len(units), name, entry.lineage))
    if not fitting:
        raise PlanIncompleteError(
            need=f"training units ({asked.unit}) with the recipe's fields",
            found="none here",
            remedy="say how many there will be (--units), or import them (iriai-node data add)",
        )
    return min(fitting)


def _tight(asked: DpPlan) -> str | None:
    """The tight figure, where the library for it is installed; takes seconds."""
    if find_spec("dp_accounting") is None:
        return None
    from policies.privacy.tight import epsilon_pld

    return epsilon_text(epsilon_pld(asked))


def _by_colluders(asked: DpPlan) -> list[str]:
    """Rows of the smallest sum that opens where no colluder is allowed for: ``honest_min`` silos."""
    if asked.honest_min is None:
        return []
    return [epsilon_text(one) for one in epsilon_by_colluders(asked, asked.honest_min)]


def _purse(home: Home, asked: DpPlan, lineage: str | None) -> _Purse | None:
    """The ledger of the data if there is one, else the owner's own cap, else the default cap, unspent."""
    figures = _ledger(home, lineage) if lineage else None
    if figures is not None:
        left = figures.rho_max_nano - figures.rho_spent_nano - figures.rho_held_nano
        return _Purse(
            source="ledger",
            epsilon_total=figures.epsilon_max,
            order=figures.order,
            rho_left_nano=max(0, left),
            rho_max_nano=figures.rho_max_nano,
        )
    own = load_settings(home).local.epsilon_total
    total, delta = own or _LIFETIME_EPSILON, float(asked.delta)
    try:
        order, _ = choose_order(epsilon_max=float(total), epsilon_release=asked.epsilon_rdp, delta=delta)
    except OrderUnfitError:
        return None
    whole = max(0, rho_max_nano(epsilon=float(total), delta=delta, order=order))
    source = "default" if own is None else "settings"
    return _Purse(source=source, epsilon_total=total, order=order, rho_left_nano=whole, rho_max_nano=whole)


def _ledger(home: Home, lineage: str) -> BudgetFigures | None:
    from client.budgets import Budgets
    from client.clock import SystemClock
    from client.identity import load_identity

    if not home.budget.exists():
        return None
    budgets = Budgets(home, key=load_identity(home).key, clock=SystemClock())
    try:
        stores = [budgets.find(stem) for stem in budgets.lineages()]
        return next((one.figures() for one in stores if one.state.lineage.scope == lineage), None)
    finally:
        budgets.close()


def _budget(purse: _Purse | None, asked: DpPlan) -> dict[str, Any] | None:
    if purse is None:
        return None
    run = asked.steps * asked.rho_step_nano(order=purse.order)
    return {
        "from": purse.source,
        "epsilon_total": purse.epsilon_total,
        "order": purse.order,
        "rho_run_nano": run,
        "rho_left_nano": purse.rho_left_nano,
        "runs_left": purse.rho_left_nano // run,
    }


def _round(recipe: Recipe, asked: DpPlan, units: int) -> dict[str, Any]:
    """Computing of one round: every drawn unit with all its K frames."""
    frames = float(asked.sampling_prob) * units * asked.frames_per_unit * asked.steps_per_round
    operations = round(_OPERATIONS_PER_FRAME * recipe.parameters * frames)
    return {
        "operations": operations,
        "minutes": round(operations / _OPERATIONS_S / 60, 3),
        "deadline_s": recipe.deadline_s,
    }
