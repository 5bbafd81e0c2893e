# SPDX-License-Identifier: Apache-2.0
"""The planner's figures as lines for a person: each figure with its name and what it decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from client.answers import short
from policies.privacy.feasibility import FINE, WARN

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["sentences"]

_NANO: Final = 1e9
_LABEL: Final = 13
_MARK: Final = {"warn": "warning", "refuse": "refused"}
_SHORT_MINUTES: Final = 0.1
_SOURCE: Final = {
    "ledger": "in the ledger of these data",
    "settings": "of this site's own cap, unspent",
    "default": "of a new lineage, unspent",
}


def sentences(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Lines of a plan's figures, as `client.planning.plan` lays them out."""
    return tuple(f"{label:<{_LABEL}}{words}" for label, words in _pairs(facts))


def _pairs(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    yield "plan", _plan(facts)
    yield "data", _data(facts)
    yield "noise ratio", _ratio(facts)
    yield "epsilon_rdp", f"{facts['epsilon_rdp']} at delta {facts['delta']}: decides the cap per release"
    yield "epsilon_pld", _tight(facts["epsilon_pld"])
    yield "delta", f"{facts['delta']}; at most {facts['delta_max']:.2g} for {facts['units']} units"
    yield "cost", _cost(facts["budget"])
    yield "round", _round(facts["round"])
    if facts["epsilon_by_colluders"]:
        yield "shares", _shares(facts)
    if facts["verdict"] != "fine":
        words = [one["words"] for one in facts["remedies"]] or ["more data"]
        times = f"the noise is {facts['noise_ratio']:.2g} times the best signal"
        yield _MARK[facts["verdict"]], f"{times}; cheapest remedy: {words[0]}"
        yield from (("", f"or {one}") for one in words[1:])


def _plan(facts: Mapping[str, Any]) -> str:
    calibrated = " (calibrated)" if facts["calibrated"] else ""
    return (
        f"recipe {short(facts['recipe'])}: {facts['parameters']} trainable parameters, noise "
        f"{facts['noise']}, noise_multiplier {facts['noise_multiplier']}{calibrated}, "
        f"sampling_prob {facts['sampling_prob']}, {facts['steps']} steps"
    )


def _data(facts: Mapping[str, Any]) -> str:
    where = "" if facts["units_from"] == "option" else f", as many as data set {facts['units_from']} has here"
    return f"{facts['silos']} silos of {facts['units']} training units{where}"


def _ratio(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['noise_ratio']:.2f}: noise over the best signal of the mean update; fine up to {FINE:g}, "
        f"refused above {WARN:g}"
    )


def _tight(figure: str | None) -> str:
    if figure is None:
        return "not computed: dp-accounting is not installed"
    return f"{figure}: the tight figure of all steps, for statements (takes seconds to compute)"


def _cost(budget: Mapping[str, Any] | None) -> str:
    if budget is None:
        return "no order holds one such run under the lifetime cap: less epsilon, or a larger cap"
    cost, left = budget["rho_run_nano"] / _NANO, budget["rho_left_nano"] / _NANO
    return (
        f"rho {cost:.4f} of {left:.4f} left at order {budget['order']} (alpha*) under epsilon "
        f"{budget['epsilon_total']}: runs left {budget['runs_left']}, {_SOURCE[budget['from']]}"
    )


def _round(one: Mapping[str, Any]) -> str:
    minutes = (
        f"{one['minutes']:.2g} minutes"
        if one["minutes"] >= _SHORT_MINUTES
        else f"under {_SHORT_MINUTES} minutes"
    )
    return (
        f"{one['operations'] / _NANO:.2g} billion operations, {minutes} on a slow core; deadline "
        f"{one['deadline_s']} s"
    )


def _shares(facts: Mapping[str, Any]) -> str:
    return (
        f"epsilon_rdp holds with {facts['honest_min']} honest silos; if all others collude, or secure "
        f"aggregation fails, it is {facts['epsilon_by_colluders'][-1]}"
    )
