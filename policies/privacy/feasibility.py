# SPDX-License-Identifier: Apache-2.0
"""Whether so many units carry so much privacy, before anybody signs: noise against the best signal.

- Ratio = norm of the noise in the mean update over the largest norm that its signal can have. With S silos
  of which a step draws n units each on average, D trainable parameters and h honest silos:
  ``local-full``: ``sigma sqrt(D) / (n sqrt(S))``; ``shares``: ``sigma sqrt(D) sqrt(S/h) / (n S)``.
  The normaliser cancels: it divides noise and signal alike.
- n is ``q N`` for N units; with ``strata_target`` m it is the sum of ``min(q N_s, m)`` over the strata, as
  the sampler draws them (`policies.privacy.sampling`). Beyond ``m / q`` units a stratum gives no more signal.
- Up to 1 is fine, up to 3 warns, above is refused (``privacy.infeasible``). Optimisers average noise over
  steps; so this is a bound of sense, not a forecast of success.
- Remedies in the order of what they cost: fewer trainable parameters, a larger sampling probability, a
  larger target per stratum, more units, more silos, a larger epsilon. Each is one number that, alone, brings
  the ratio to at most 1; noise is calibrated anew to the same epsilon where q changes, so a larger q helps
  little. One that no number fulfils is left out.

Standard library only.

    found = feasibility(plan, n_units=250, n_params=5_700, n_silos=4, strata=(200, 50))
    found.ratio, found.verdict, found.remedies[0].words
    found.check()                                    # InfeasibleError
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

from policies.limits import PARTIES
from policies.privacy.accounting import calibrate, epsilon_rdp
from policies.privacy.errors import InfeasibleError, PlanIncompleteError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from policies.privacy.plan import DpPlan

__all__ = [
    "FINE",
    "NO_NUMBER",
    "WARN",
    "Feasibility",
    "Remedy",
    "Setting",
    "feasibility",
    "noise_ratio",
    "remedies_of",
]

FINE: Final = 1.0
WARN: Final = 3.0
_PARAMETERS_LEAST: Final = 10  # fewer is no model
_Q_STEPS: Final = 20  # sampling probabilities are offered in twentieths
_EPSILON_MAX: Final = 64.0  # offered at most; beyond it nothing is promised
_DIGITS: Final = 2  # of an offered number
NO_NUMBER: Final = (
    "several of these together: a smaller model, more units, more silos, a larger epsilon, and where the "
    "plan has a strata_target a larger one"
)
_EDGE: Final = 1e-9  # rounding of the ratio itself
_HALVINGS: Final = 60  # of the interval in which a number is sought


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """The numbers that the ratio follows from; one per site, because units and silos are.

    Attributes:
        sigma: Noise multiplier.
        q: Sampling probability.
        steps: T.
        delta: Of the plan.
        units: N, training units of one silo.
        parameters: D, trainable parameters.
        silos: S, silos in the mean.
        honest_min: With noise shares; None with ``local-full``.
        strata: Units of each stratum of one silo; together N.
        strata_target: m of the plan; None without one.
    """

    sigma: float
    q: float
    steps: int
    delta: float
    units: int
    parameters: int
    silos: int
    honest_min: int | None
    strata: tuple[float, ...]
    strata_target: float | None

    @property
    def drawn(self) -> float:
        """Units of one silo that a step draws on average."""
        if self.strata_target is None:
            return self.q * self.units
        return sum(min(self.q * size, self.strata_target) for size in self.strata)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remedy:
    """One change that, alone, brings the ratio to at most 1.

    Attributes:
        kind: What changes.
        value: To which number.
        words: For a person.
    """

    kind: Literal["parameters", "sampling_prob", "strata_target", "units", "silos", "epsilon"]
    value: float
    words: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Feasibility:
    """The planner's answer.

    Attributes:
        ratio: Noise over best signal.
        drawn: Units of one silo that a step draws on average.
        verdict: ``fine``, ``warn`` or ``refuse``.
        remedies: Cheapest first; empty where the verdict is ``fine``.
    """

    ratio: float
    drawn: float
    verdict: Literal["fine", "warn", "refuse"]
    remedies: tuple[Remedy, ...]

    def check(self) -> None:
        """Returns unless the plan is refused.

        Raises:
            InfeasibleError: The ratio is above 3; its remedy is the cheapest one.
        """
        if self.verdict == "refuse":
            raise InfeasibleError(
                need=f"noise of at most {WARN:g} times the best signal",
                found=f"{self.ratio:.2g} times",
                remedy="; or ".join(one.words for one in self.remedies) or NO_NUMBER,
            )


def noise_ratio(at: Setting) -> float:
    """Noise norm over the largest signal norm of the mean update."""
    alone = at.sigma * math.sqrt(at.parameters) / at.drawn
    if at.honest_min is None:
        return alone / math.sqrt(at.silos)
    return alone / math.sqrt(at.silos * at.honest_min)


def feasibility(
    plan: DpPlan, n_units: int, n_params: int, n_silos: int, strata: Sequence[float] = ()
) -> Feasibility:
    """Whether units and silos carry a plan's noise.

    Args:
        plan: Its sampling probability, noise, steps, delta and target per stratum count.
        n_units: Training units of this silo.
        n_params: Trainable parameters.
        n_silos: Silos in the mean.
        strata: Units of each of its strata; all are one if left out.

    Raises:
        PlanIncompleteError: A count is below 1.
    """
    if min(n_units, n_params, n_silos) < 1:
        raise PlanIncompleteError(
            need="at least one unit, parameter and silo",
            found=f"{n_units} units, {n_params} parameters, {n_silos} silos",
            remedy="import data, or say how many there will be (--units, --silos)",
        )
    at = Setting(
        sigma=float(plan.noise_multiplier),
        q=float(plan.sampling_prob),
        steps=plan.steps,
        delta=float(plan.delta),
        units=n_units,
        parameters=n_params,
        silos=n_silos,
        honest_min=plan.honest_min,
        strata=tuple(strata) or (n_units,),
        strata_target=None if plan.strata_target is None else float(plan.strata_target),
    )
    ratio = noise_ratio(at)
    verdict: Literal["fine", "warn", "refuse"] = (
        "fine" if ratio <= FINE + _EDGE else "warn" if ratio <= WARN else "refuse"
    )
    remedies = () if verdict == "fine" else tuple(remedies_of(at))
    return Feasibility(ratio=ratio, drawn=at.drawn, verdict=verdict, remedies=remedies)


def remedies_of(at: Setting) -> Iterator[Remedy]:
    """Every remedy that some number fulfils, cheapest first."""
    ratio = noise_ratio(at)
    fewer = _rounded(at.parameters / ratio**2, up=False)
    if fewer >= _PARAMETERS_LEAST:
        yield Remedy(kind="parameters", value=fewer, words=f"at most {_spaced(fewer)} trainable parameters")
    more = _sampling_prob(at)
    if more is not None:
        q, sigma = more
        yield Remedy(
            kind="sampling_prob",
            value=q,
            words=f"sampling_prob {q:g} with noise_multiplier {sigma} (the same epsilon, "
            f"{q / at.q:.2g} times the computing)",
        )
    target = _strata_target(at, ratio)
    if target is not None:
        words = f"strata_target {target}: then more of a site's product mix shows"
        yield Remedy(kind="strata_target", value=target, words=words)
    units = _units(at, ratio)
    if units is not None:
        yield Remedy(kind="units", value=units, words=f"at least {_spaced(units)} units per silo")
    silos = math.ceil(at.silos * ratio**2 - _EDGE)
    if silos <= PARTIES:
        yield Remedy(kind="silos", value=silos, words=f"at least {silos} silos")
    larger = _epsilon(at, ratio)
    if larger is not None:
        words = f"a weaker promise: epsilon {larger:g} for each run"
        yield Remedy(kind="epsilon", value=larger, words=words)


def _sampling_prob(at: Setting) -> tuple[float, str] | None:
    """The smallest q, in twentieths, at which noise of the same epsilon has a ratio of at most 1."""
    epsilon = epsilon_rdp(at.q, at.sigma, at.steps, at.delta)
    for n in range(math.floor(at.q * _Q_STEPS) + 1, _Q_STEPS + 1):
        try:
            sigma = calibrate(epsilon, at.delta, n / _Q_STEPS, at.steps)
        except PlanIncompleteError:  # no noise reaches so small an epsilon
            return None
        if noise_ratio(replace(at, sigma=float(sigma), q=n / _Q_STEPS)) <= FINE:
            return n / _Q_STEPS, sigma
    return None


def _strata_target(at: Setting, ratio: float) -> int | None:
    """The smallest target at which a step draws enough; None without one, or if whole strata are too few."""
    if at.strata_target is None:
        return None
    need, whole = at.drawn * ratio, at.q * max(at.strata)
    return _least(lambda to: replace(at, strata_target=to).drawn >= need, at.strata_target, whole)


def _units(at: Setting, ratio: float) -> int | None:
    """The smallest number of units, shared among the strata as now, of which a step draws enough."""
    if at.strata_target is None:
        return _rounded(at.units * ratio, up=True)
    need, full = at.drawn * ratio, at.strata_target / (at.q * min(at.strata))

    def holds(units: float) -> bool:
        sizes = tuple(size * units / at.units for size in at.strata)
        return replace(at, strata=sizes).drawn >= need

    return _least(holds, at.units, at.units * full)


def _least(holds: Callable[[float], bool], low: float, high: float) -> int | None:
    """The least number between these that holds, as a whole one of two digits; None if there is none."""
    if high <= low or not holds(high):
        return None
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return _rounded(high, up=True)


def _epsilon(at: Setting, ratio: float) -> float | None:
    """Epsilon, rounded up, of the noise at which the ratio is 1; None if it would promise nothing."""
    found = epsilon_rdp(at.q, at.sigma / ratio, at.steps, at.delta)
    rounded = math.ceil(found * 10 - _EDGE) / 10
    return rounded if rounded <= _EPSILON_MAX else None


def _rounded(value: float, *, up: bool) -> int:
    """A whole number of two digits, on the safe side."""
    unit = int(10 ** max(0, math.floor(math.log10(max(value, 1))) + 1 - _DIGITS))
    return (math.ceil(value / unit - _EDGE) if up else math.floor(value / unit + _EDGE)) * unit


def _spaced(value: int) -> str:
    return f"{value:,}".replace(",", " ")
