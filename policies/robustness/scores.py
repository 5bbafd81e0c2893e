# SPDX-License-Identifier: Apache-2.0
"""What judges say of a probe's teams: gains of every union, at the price of one query, and what they choose.

- A judge's answer is one query of the plan of votes (`policies.robustness.plan`) with ``2^G - 1`` figures:
  the gain of each union of the G teams over the last accepted model. One unit moves each figure by at most
  ``D / judge_episodes``, all of them together by ``sqrt(2^G - 1)`` times that; the noise on each is larger by
  the same factor. So a probe costs what a vote costs, and is charged and counted as one.
- Figures are whole billionths, in the order of `unions`, without ``none``. An answer of another form is none.
- A group is one judge: of several parties of one group the lower median counts, union by union.
- Fewer groups than ``least`` are no consent: nothing is chosen, and the model is taken back, as after a vote.

Standard library only: nodes, broker and verifier count the same.

    chosen = choice({"kita": gains_of([…], 3), …}, teams=3, groups=groups, plan=document, least=3)
"""

from __future__ import annotations

import hashlib
from fractions import Fraction
from math import isqrt
from statistics import median_low
from typing import TYPE_CHECKING, Any, Final

from policies.robustness.votes import choose, unions

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from policies.robustness.votes import Union

__all__ = ["candidates", "choice", "gains_of", "probe_subject"]

_NANO: Final = 10**9


def candidates(teams: int) -> tuple[Union, ...]:
    """The unions that are judged, in order: all but ``none``, whose gain is 0."""
    return unions(teams)[:-1]


def gains_of(value: object, teams: int) -> dict[Union, int] | None:
    """A judge's figures by union; None if they are no answer about so many teams."""
    asked = candidates(teams)
    if not isinstance(value, list) or len(value) != len(asked) or any(type(one) is not int for one in value):
        return None
    return dict(zip(asked, value, strict=True))


def choice(
    gains: Mapping[str, Mapping[Union, int]],
    *,
    teams: int,
    groups: Mapping[str, str],
    plan: Mapping[str, Any],
    least: int,
) -> Union:
    """The union of teams that makes the round's model; empty: none, and the model is taken back.

    Args:
        gains: Party → its figures.
        teams: How many were judged.
        groups: Party → corporate group.
        plan: Document of the plan of votes.
        least: Groups that must have judged.
    """
    by_group: dict[str, list[Mapping[Union, int]]] = {}
    for party in sorted(gains):
        by_group.setdefault(groups[party], []).append(gains[party])
    if len(by_group) < least:
        return frozenset()
    judges = [
        {one: median_low([found[one] for found in said]) for one in candidates(teams)}
        for said in by_group.values()
    ]
    return choose(judges, teams=teams, gain_clip=plan["loss_bound"], noise_nano=_noise_nano(plan, teams))


def _noise_nano(plan: Mapping[str, Any], teams: int) -> int:
    """Standard deviation of the noise on each figure, rounded down."""
    one = Fraction(plan["noise_multiplier"]) * Fraction(plan["loss_bound"]) / Fraction(plan["normalizer"])
    return isqrt(int((one * _NANO) ** 2 * len(candidates(teams))))


def probe_subject(*, run: str, number: int, base: str, against: str, sums: Sequence[str]) -> str:
    """``sha256:…`` that names one question in budget entries.

    Args:
        run: The run.
        number: Of the round.
        base: Digest of the model that its members trained on.
        against: Digest of the last accepted model.
        sums: Digest of each team's sum, in the order of teams.
    """
    text = f"iriai/probe/1|{run}|{number}|{base}|{against}|{'|'.join(sums)}"
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
