# SPDX-License-Identifier: Apache-2.0
"""Votes by gain on held-out episodes: which teams stay in a sum, and whether a round's model stands.

Gains are whole numbers of 1e-9, clipped to ±D per episode and noised by the node that signs them.

- **One model** (`accepts`, `tally`): a silo accepts unless its gain is below minus a fifth of D. Without that
  margin a converged clean run is refused by noise alone. A group accepts if every party of it that voted
  does; a model stands if the contract's quorum of the voting groups accept, and enough groups voted at all.
- **Teams** (`choose`): every union of teams is scored, ``none`` among them with gain 0. ``all`` wins unless
  the median judge prefers another by more than the margin, or by three standard deviations of what noise
  alone does to the median where that is more: several unions are compared in each of many rounds. The median,
  not the mean: it moves only if half of the judges lie.
- **Rounds** (`Course`): a rejected model is taken back to the last accepted one; so many in a row as the
  contract says, and the run pauses for a human. Which rounds are judged follows from run and round alone
  (`judged_rounds`), and they are never more than the plan paid for.

Standard library only: the verifier counts the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from fractions import Fraction
from itertools import combinations
from math import isqrt
from statistics import median_low
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = [
    "Course",
    "Tally",
    "accepts",
    "choose",
    "is_judged",
    "judged_rounds",
    "margin_nano",
    "nano",
    "tally",
    "unions",
]

_NANO: Final = 10**9
_MARGIN: Final = Fraction(1, 5)  # of the gain clip
Union = frozenset[int]


def nano(value: float) -> int:
    """A figure in whole billionths, half to even."""
    return round(Fraction(value) * _NANO)


def margin_nano(gain_clip: str) -> int:
    """A fifth of the gain clip D, in billionths."""
    return int(Fraction(gain_clip) * _MARGIN * _NANO)


def accepts(gain_nano: int, gain_clip: str) -> bool:
    """A silo's vote on one model."""
    return gain_nano >= -margin_nano(gain_clip)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tally:
    """Votes on one model, by group.

    Attributes:
        accepting, voting: Groups.
        least: Groups that must have voted.
        quorum: Share of the voting groups that must accept.
    """

    accepting: int
    voting: int
    least: int
    quorum: str

    @property
    def accepted(self) -> bool:
        """Whether the model stands; too few votes are no consent."""
        if self.voting < self.least:
            return False
        return Fraction(self.accepting, self.voting) >= Fraction(self.quorum)


def tally(votes: Mapping[str, bool], *, groups: Mapping[str, str], quorum: str, least: int) -> Tally:
    """Counts votes.

    Args:
        votes: Party → whether it accepts; parties that were not heard are absent.
        groups: Party → corporate group.
        quorum: Of the contract's validation clause.
        least: Groups that must have voted, ``min_parties`` of the contract.
    """
    voting = {groups[party] for party in votes}
    against = {groups[party] for party, accepted in votes.items() if not accepted}
    return Tally(accepting=len(voting - against), voting=len(voting), least=least, quorum=quorum)


def unions(teams: int) -> tuple[Union, ...]:
    """Every union of so many teams: the whole first, then fewer teams, ``none`` last."""
    everyone = range(teams)
    return tuple(frozenset(one) for size in range(teams, -1, -1) for one in combinations(everyone, size))


def choose(gains: Sequence[Mapping[Union, int]], *, teams: int, gain_clip: str, noise_nano: int = 0) -> Union:
    """The union of teams that makes the round's model.

    Args:
        gains: Per judge: union → gain in billionths; ``none`` is 0 and need not be there.
        teams: How many there are.
        gain_clip: D.
        noise_nano: Standard deviation of the noise on each gain.

    Returns:
        Indexes of the teams; empty: the model stays as it was.
    """
    whole, *others = unions(teams)
    if not gains:
        return whole
    lead = {one: median_low([judge.get(one, 0) - judge[whole] for judge in gains]) for one in others}
    best = max(others, key=lambda one: lead[one])  # of equals the first: the most teams
    least = max(margin_nano(gain_clip), _noise_lead(noise_nano, len(gains)))
    return best if lead[best] > least else whole


def _noise_lead(noise_nano: int, judges: int) -> int:
    """Three standard deviations of the median over judges of a difference of two noised gains.

    ``3 sqrt(2) sqrt(pi / 2) = 5.3174``, in whole numbers: the verifier counts the same.
    """
    return isqrt((53_174 * noise_nano) ** 2 // judges) // 10_000


def judged_rounds(run: str, rounds: int, judgings: int) -> frozenset[int]:
    """Numbers of the rounds whose model is voted on: those of the smallest hashes, at most ``judgings``.

    Everybody knows them from the run's first moment; that they are few is what the privacy of the held-out
    episodes costs.
    """
    ranked = sorted(range(1, rounds + 1), key=lambda number: _mark(run, number))
    return frozenset(ranked[: max(0, judgings)])


def is_judged(run: str, number: int, *, rounds: int, judgings: int, used: int) -> bool:
    """Whether the model of a round is voted on.

    Rounds of the recipe are drawn; those beyond it, which make up for lost or rejected ones, are judged while
    judgings are left.

    Args:
        run: The run.
        number: Of the round.
        rounds: Of the recipe.
        judgings: ``max_judgings`` of the contract.
        used: Rounds of the run that were judged before.
    """
    return used < judgings and (number > rounds or number in judged_rounds(run, rounds, judgings))


def _mark(run: str, number: int) -> bytes:
    return hashlib.sha256(f"iriai/judged/1|{run}|{number}".encode()).digest()


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """Where a run stands after its votes.

    Attributes:
        accepted: Digest of the newest model that stands, the start model's at first: what a rejection goes
            back to.
        rejections: Rejected rounds in a row.
        total: Rejected rounds.
    """

    accepted: str
    rejections: int = 0
    total: int = 0

    def after(self, model: str, *, accepted: bool) -> Course:
        """The course after the vote on one model."""
        if accepted:
            return replace(self, accepted=model, rejections=0)
        return replace(self, rejections=self.rejections + 1, total=self.total + 1)

    def resumed(self) -> Course:
        """The course after a human looked at it."""
        return replace(self, rejections=0)

    def paused(self, most: int) -> bool:
        """Whether so many rejections in a row ask for a human; ``most`` is ``max_rejected_rounds``."""
        return self.rejections >= most
