# SPDX-License-Identifier: Apache-2.0
"""The leak report of a candidate, made again by whoever has the model, the recipe and the reveals. numpy.

    document = leak_report(subject, recipe=recipe, weights=weights, reveals={alias: secret}, missing=(), …)
    canonical(document)                     # byte for byte what the broker stored

Figures over the canaries of all parties: area under the curve of the scores of those that were trained on
against those that were not, with a 95 % bound to each side; true positives at 1 % false ones; and the largest
epsilon that the coins of this one run refute (`policies.privacy.leakage_estimates`).

One maker that trains on the wrong canaries could drag those figures down for everybody. So each party has
three of its own (`party_figures`): the area over its canaries, the area over everybody's but its, and the
chance of so low an area had its coins nothing to do with the scores. None where a side has fewer than two.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from policies.canary_units import canary_scores
from policies.privacy.accounting import epsilon_text
from policies.privacy.leakage import SAYS, SCHEMA, verdicts
from policies.privacy.leakage_estimates import (
    CONFIDENCE,
    auc,
    auc_of_few,
    chance_of_so_low,
    one_run_low,
    tpr_at_fpr,
)

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import numpy.typing as npt

    from policies.privacy.canaries import CanarySecret
    from policies.privacy.leakage_estimates import Bounded
    from policies.recipe import Recipe

__all__ = ["LeakFigures", "figure_fields", "leak_figures", "leak_report", "party_figures"]

Json = Any
_LEAST: Final = 2  # scores on each side, without which there is no figure


@dataclass(frozen=True, slots=True, kw_only=True)
class LeakFigures:
    """Figures of one report, as they are written."""

    auc: Mapping[str, str]
    tpr_at_fpr: str
    epsilon_low: str


def leak_figures(scores: Sequence[str], flips: str, *, delta: float) -> LeakFigures | None:
    """The figures behind scores and coins, in the same order; None where one side has fewer than two."""
    values, included = _arrays(scores, flips)
    members, others = values[included], values[~included]
    if min(len(members), len(others)) < _LEAST:
        return None
    return LeakFigures(
        auc=_shown(auc(members, others)),
        tpr_at_fpr=f"{tpr_at_fpr(members, others):.6f}",
        epsilon_low=f"{one_run_low(values, included, delta=delta):.6f}",
    )


def party_figures(rows: Mapping[str, Mapping[str, Json]]) -> dict[str, dict[str, Json]]:
    """Figures of each party: ``auc``, ``auc_without`` it, and ``chance`` of an area as low as its own.

    The level is divided by the number of parties, so that of many honest ones none stands out by luck.

    Args:
        rows: Alias → row with ``scores`` and ``flips``.
    """
    sides = {name: _arrays(row["scores"], row["flips"]) for name, row in rows.items()}
    level = 1 - (1 - CONFIDENCE) / max(1, len(sides))
    found: dict[str, dict[str, Json]] = {}
    for name, own in sides.items():
        rest = [side for other, side in sides.items() if other != name]
        split = _split([own])
        found[name] = {
            "auc": _area(split, level),
            "auc_without": _area(_split(rest), level),
            "chance": None if split is None else f"{chance_of_so_low(*split):.6f}",
        }
    return found


def _arrays(scores: Sequence[str], flips: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    return (
        np.array([float(one) for one in scores]),
        np.array([one == "1" for one in flips], dtype=bool),
    )


def _split(
    sides: Sequence[tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]],
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None:
    """Scores of canaries that were in and of those that were not; None with fewer than two of either."""
    if not sides:
        return None
    values, included = (np.concatenate(part) for part in zip(*sides, strict=True))
    members, others = values[included], values[~included]
    return None if min(len(members), len(others)) < _LEAST else (members, others)


def _area(
    split: tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]] | None, level: float
) -> dict[str, str] | None:
    return None if split is None else _shown(auc_of_few(*split, confidence=level))


def _shown(area: Bounded) -> dict[str, str]:
    return {"value": f"{area.value:.6f}", "low": f"{area.low:.6f}", "high": f"{area.high:.6f}"}


def leak_report(
    *,
    candidate: str,
    recipe: Recipe,
    weights: npt.NDArray[Any],
    reveals: Mapping[str, CanarySecret],
    missing: Sequence[str],
    auc_max: str | None,
) -> dict[str, Json]:
    """The ``leaks`` part of an evaluation report.

    1. scores of every revealed canary; 2. figures of each party and over all; 3. what is missing is named,
    and then nothing passes; 4. the verdicts.

    Args:
        candidate: Digest of the model.
        recipe: Of the run.
        weights: ``[P]`` float32, the model.
        reveals: Alias of each party → its checked secret.
        missing: Aliases of parties whose update is in the model and that revealed nothing.
        auc_max: The contract's bound, if it names one.
    """
    parties: dict[str, Json] = {}
    plan = recipe.plan
    for name, secret in sorted(reveals.items()):  # 1.
        parties[name] = {
            "audit": secret.audit,
            "seed": secret.seed.hex(),
            "salt": secret.salt.hex(),
            "flips": secret.flips,
            "scores": list(canary_scores(recipe, weights, secret)),
        }
    for name, own in party_figures(parties).items():  # 2.
        parties[name] |= own
    scores = [one for party in parties.values() for one in party["scores"]]
    flips = "".join(party["flips"] for party in parties.values())
    figures = leak_figures(scores, flips, delta=0.0 if plan is None else float(plan.delta))
    report = {
        "schema": SCHEMA,
        "says": SAYS,
        "candidate": candidate,
        "recipe": recipe.digest,
        "claim": None if plan is None else epsilon_text(plan.epsilon_rdp),
        "canaries": len(scores),
        "trained": flips.count("1"),
        "parties": parties,
        "missing": sorted(missing),  # 3.
        **figure_fields(figures),
    }
    return report | verdicts(report, auc_max=auc_max)  # 4.


def figure_fields(figures: LeakFigures | None) -> dict[str, Json]:
    """Figures as they stand in a report; null where there are none."""
    return {
        "auc": None if figures is None else dict(figures.auc),
        "tpr_at_1_percent_fpr": None if figures is None else figures.tpr_at_fpr,
        "epsilon_low": None if figures is None else figures.epsilon_low,
    }
