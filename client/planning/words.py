# SPDX-License-Identifier: Apache-2.0
"""The planner's figures as lines for a person: each figure with its name and what it decides."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from client.answers import short
from policies.privacy.feasibility import FINE, NO_NUMBER, WARN
from policies.privacy.tight import EPSILON_MOST

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

__all__ = ["budget_words", "opening_words", "sentences"]

_NANO: Final = 1e9
_LABEL: Final = 13
_MARK: Final = {"warn": "warning", "refuse": "refused"}
_NO_SHARES: Final = (
    "privacy.shares-unfit: this contract lets the broker read each update, and a share of the noise protects "
    "none; ask for a contract with secure_aggregation: required, or plan with noise local-full"
)
_TEST_ONLY: Final = (
    "the plan is test_only: its noise may be seeded, so it protects nobody, whatever epsilon says; never "
    "sign it for real data"
)
_SHORT_MINUTES: Final = 0.1
_SOURCE: Final = {
    "ledger": "in the ledger of these data",
    "lifetime": "over the life of new data (epsilon_lifetime)",
    "settings": "of this site's own (epsilon_total)",
    "contract": "of the contract",
    "default": "over the life of new data",
}


_OPENING: Final = {
    "lifetime": "epsilon {epsilon}, your epsilon_lifetime",
    "settings": "epsilon {epsilon}, your epsilon_total (or a lower cap of the first contract)",
    "contract": "epsilon {epsilon}, the cap of this contract",
    "default": "the cap of the first contract that trains on them",
}
_SET_IT: Final = "epsilon_lifetime in [local] of node.toml, before their first run"


def opening_words(opened: Mapping[str, Any]) -> str:
    """One sentence: with which cap the ledger of some data was or will be opened, and how to set it."""
    if opened["is_open"]:
        return (
            f"the ledger of these data was opened with epsilon {opened['epsilon']} for their whole life "
            f"and is only tightened from there; for other data: {_SET_IT}"
        )
    cap = _OPENING[opened["from"]].format(epsilon=opened["epsilon"])
    if opened["from"] == "default" and opened["epsilon"] is not None:
        cap += f" (reckoned with here: epsilon {opened['epsilon']})"
    return (
        f"the ledger of new data will be opened with {cap}, for their whole life under all contracts; to set "
        f"another: {_SET_IT}"
    )


def budget_words(source: str, epsilon: str) -> str:
    """A cap and whose it is, inside a sentence."""
    return f"epsilon {epsilon} {_SOURCE[source]}"


def sentences(facts: Mapping[str, Any]) -> tuple[str, ...]:
    """Lines of a plan's figures, as `client.planning.plan` lays them out."""
    return tuple(f"{label:<{_LABEL}}{words}" for label, words in _pairs(facts))


def _pairs(facts: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if facts["test_only"]:
        yield "NOT PRIVATE", _TEST_ONLY
    if not facts["trainable"]:
        yield "warning", _NO_SHARES
    yield "plan", _plan(facts)
    yield "data", _data(facts)
    yield "noise ratio", _ratio(facts)
    yield "epsilon_rdp", f"{facts['epsilon_rdp']} at delta {facts['delta']}: decides the cap per release"
    yield "epsilon_pld", _tight(facts["epsilon_pld"], facts["epsilon_rdp"])
    most = f"{Decimal(repr(facts['delta_max'])):f}"
    yield "delta", f"{facts['delta']}; at most {most} for {facts['units']} units"
    yield "cost", _cost(facts["budget"])
    others = (facts["budget_own"], facts["budget_contract"])
    yield from (("", _cost(one)) for one in others if one is not None and one != facts["budget"])
    yield "life cap", opening_words(facts["opened"])
    if facts["contract"] is not None:
        yield from _contract(facts["contract"], facts["runs_left"])
    if facts["canaries"] is not None:
        yield _canaries(facts["canaries"])
    yield "round", _round(facts["round"])
    if facts["epsilon_by_colluders"]:
        yield "shares", _shares(facts)
    if facts["noise_verdict"] != "fine":
        words = [one["words"] for one in facts["remedies"]] or [NO_NUMBER]
        times = f"the noise is {facts['noise_ratio']:.2g} times the best signal"
        yield _MARK[facts["noise_verdict"]], f"{times}; cheapest remedy: {words[0]}"
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
    strata = facts["strata"]
    shared = f", in {strata} strata" if strata != 1 else ", in one stratum" if facts["strata_target"] else ""
    target = f" (strata_target {facts['strata_target']} each)" if facts["strata_target"] else ""
    return (
        f"{facts['silos']} silos of {facts['units']} training units{where}{shared}; a step draws "
        f"{facts['drawn_per_step']:g} of a silo's on average{target}"
    )


def _ratio(facts: Mapping[str, Any]) -> str:
    return (
        f"{facts['noise_ratio']:.2f}: noise over the best signal of the mean update; fine up to {FINE:g}, "
        f"refused above {WARN:g}"
    )


def _tight(figure: str | None, rdp: str) -> str:
    if figure is None and float(rdp) > EPSILON_MOST:
        return f"not computed above epsilon_rdp {EPSILON_MOST:g}: so large an epsilon promises nothing"
    if figure is None:
        return "not computed: dp-accounting is not installed"
    return f"{figure}: the tight figure of all steps, for statements (takes seconds to compute)"


def _cost(budget: Mapping[str, Any] | None) -> str:
    if budget is None:
        return "no order holds one such run under the lifetime cap: less epsilon, or a larger cap"
    cost, left = budget["rho_run_nano"] / _NANO, budget["rho_left_nano"] / _NANO
    return (
        f"rho {cost:.4f} of {left:.4f} left at order {budget['order']} (alpha*) under epsilon "
        f"{budget['epsilon_total']} {_SOURCE[budget['from']]}: runs left {budget['runs_left']}"
    )


def _contract(one: Mapping[str, Any], runs_left: int) -> Iterator[tuple[str, str]]:
    caps = (
        "no caps: NOT PRIVATE"
        if one["epsilon_total"] is None
        else f"epsilon {one['epsilon_per_release']} per release, {one['epsilon_total']} in all, delta "
        f"{one['delta']}; runs left under every cap: {runs_left}"
    )
    words = f"at least {one['min_parties']} parties, {one['max_colluders']} colluders; {caps}"
    yield "contract", f"{short(one['digest'])} for {one['party']}: {words}"
    for term in one["findings"]:
        if not term["holds"]:
            yield (
                "refused",
                f"{term['about']}: needs {term['need']}, found {term['found']} [{term['clause']}]",
            )


def _canaries(one: Mapping[str, Any]) -> tuple[str, str]:
    words = f"{one['count']} beside your data; for them a node needs {one['units_needed']} units of its own"
    if one["units"] >= one["units_needed"]:
        return "canaries", f"{words} [{one['clause']}]"
    return (
        "warning",
        f"canaries: {words}, and {one['units']} are here: it could take no part [{one['clause']}]",
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
