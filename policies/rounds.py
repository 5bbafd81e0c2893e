# SPDX-License-Identifier: Apache-2.0
"""One round as a state machine without I/O: who was asked, who answered, and what becomes of it.

    open ── accept(party) ─┐
         ── refuse(party) ─┼─► settle() ─► Closed(survivors)      enough independent groups answered
         ── (silence)     ─┘          └──► Again(attempt + 1)     too few, and another attempt is allowed
                                      └──► Lost(why)              too few, and none is; the model stays

- The cohort is fixed when the attempt opens and comes from the contract; nobody is sampled, nobody added
  later.
- Groups are counted, not parties: two organisations of one owner count once (contract clause
  ``aggregation``). Under secure aggregation a sum also takes a number of members (`Need`).
- Once members were asked to unmask, a round has no further attempt: its sum may have been opened.
- A party has one verdict per attempt. A refusal costs its sender this attempt and nobody else anything.
- Every attempt is a step of the privacy plan; ``steps_left`` bounds the attempts of a run.
- Whoever trains in an attempt pays for it, also where it comes to nothing. Silence passes by itself; a member
  that says no goes on saying it. So an attempt that refusals leave below ``groups_needed`` is not followed at
  once by the next one (`wait_s`): pauses grow, and whoever said no is asked first, alone (`doubtful`), so
  that the others pay nothing for asking. What an owner can mend is waited for up to `REFUSED_PATIENCE_S`;
  what nobody can mend within the run (`FOR_GOOD`) ends it, said twice in a row (`refused_for_good`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, NamedTuple

from policies.contract.thresholds import groups_to_open, least_online
from policies.errors import invariant
from policies.limits import (
    ATTEMPTS_PER_ROUND,
    REFUSED_ATTEMPTS,
    REFUSED_PATIENCE_S,
    REFUSED_WAIT_MAX_S,
    REFUSED_WAIT_S,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from policies.contract import Contract

__all__ = [
    "FOR_GOOD",
    "PASSING",
    "Again",
    "Attempt",
    "Closed",
    "Lost",
    "Need",
    "doubtful",
    "need_of",
    "pause_s",
    "refused_for_good",
    "sums_masked",
    "too_few",
    "wait_s",
]

FOR_GOOD: Final = frozenset(
    {"budget.exhausted", "contract.refused", "privacy.plan-mismatch", "privacy.shares-unfit"}
)
"""Codes of refusals that stay within the run: a clause, a spent budget, a plan that was not reserved."""

PASSING: Final = frozenset({"outbox.backlog"})
"""Codes of refusals that pass by themselves, as silence does: an attempt that was lost by them is lost."""


class Need(NamedTuple):
    """What a sum takes: independent groups, and members, of which some may be of one group."""

    groups: int
    members: int = 0

    def met_by(self, groups: Collection[str]) -> bool:
        """Whether members of these groups, one entry for each member, are enough."""
        return len(set(groups)) >= self.groups and len(groups) >= self.members


def sums_masked(contract: Contract) -> bool:
    """Whether the contract's rounds run under secure aggregation."""
    return contract.aggregation.secure_aggregation == "required"


def need_of(contract: Contract, recipe: str) -> Need:
    """What a sum of a recipe's contributors takes under a contract.

    Args:
        contract: Of the run.
        recipe: Digest.
    """
    pooling, clause = contract.aggregation, contract.recipe(recipe)
    if not sums_masked(contract) or clause is None:
        return Need(pooling.min_parties)
    return Need(
        groups_to_open(pooling.min_parties, pooling.max_colluders, contract.privacy.honest_min),
        least_online(len(clause.participants), pooling.min_parties),
    )


@dataclass(frozen=True, slots=True)
class Closed:
    """The round is over; the sum of these parties' updates may be opened. Sorted by party."""

    survivors: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Again:
    """Too few groups answered; the same round is asked again under the next attempt number."""

    attempt: int
    groups_found: int


@dataclass(frozen=True, slots=True)
class Lost:
    """The round ends without a new model: ``too-few-groups``, ``no-steps-left`` or ``unmasked``."""

    reason: str
    groups_found: int


@dataclass(slots=True, kw_only=True)
class Attempt:
    """One attempt of one round.

    Attributes:
        number: 1-based; part of the slot that nodes answer.
        cohort: party → group, the parties that were asked.
        groups_needed: Independent groups that a sum takes.
        steps_left: Steps of the privacy plan that remain after this attempt; None without a plan.
        members_needed: Members that a sum takes.
        burned: Members were asked to unmask: whatever comes of it, there is no further attempt.
    """

    number: int
    cohort: Mapping[str, str]
    groups_needed: int
    steps_left: int | None
    members_needed: int = 0
    burned: bool = False
    _accepted: set[str] = field(default_factory=set)
    _refused: dict[str, str] = field(default_factory=dict)

    def accept(self, party: str) -> None:
        """The party's update passed every check."""
        self._check_open(party)
        self._accepted.add(party)

    def refuse(self, party: str, code: str) -> None:
        """The party's reply failed a check, or the party itself refused; ``code`` says which."""
        self._check_open(party)
        self._refused[party] = code

    def _check_open(self, party: str) -> None:
        invariant(party in self.cohort, "a verdict only for a party of the cohort")
        seen = party in self._accepted or party in self._refused
        invariant(not seen, "one verdict for each party and attempt")

    @property
    def accepted(self) -> tuple[str, ...]:
        """Parties whose update counts, sorted."""
        return tuple(sorted(self._accepted))

    @property
    def refused(self) -> dict[str, str]:
        """Party → code."""
        return dict(self._refused)

    @property
    def absent(self) -> tuple[str, ...]:
        """Parties that were asked and did not answer in time, sorted."""
        return tuple(sorted(set(self.cohort) - self._accepted - set(self._refused)))

    @property
    def groups(self) -> int:
        """Independent groups among the accepted."""
        return len({self.cohort[party] for party in self._accepted})

    def settle(self) -> Closed | Again | Lost:
        """What becomes of the round now that the exchange has ended."""
        if self.groups >= self.groups_needed and len(self._accepted) >= self.members_needed:
            return Closed(self.accepted)
        if self.burned:
            return Lost("unmasked", self.groups)
        if self.steps_left is not None and self.steps_left <= 0:
            return Lost("no-steps-left", self.groups)
        if self.number < ATTEMPTS_PER_ROUND:
            return Again(self.number + 1, self.groups)
        return Lost("too-few-groups", self.groups)


def too_few(groups: Mapping[str, str], without: Collection[str], needed: int, members: int = 0) -> bool:
    """Whether fewer independent groups or members than needed are left without some parties.

    Args:
        groups: party → group, of everybody who could be asked.
        without: Parties that do not take part.
        needed: Groups that a sum takes.
        members: Members that a sum takes.
    """
    return not Need(needed, members).met_by([groups[one] for one in groups if one not in without])


def wait_s(
    declined: Sequence[Collection[str]], groups: Mapping[str, str], needed: int, members: int = 0
) -> int:
    """Seconds between the last attempt and the next one; 0 where refusals are not what it came to nothing by.

    Args:
        declined: Parties that said no, for each attempt since the last model, oldest first.
        groups: party → group, of everybody who could be asked now.
        needed: Groups that a sum takes.
        members: Members that a sum takes.
    """
    if not declined or not declined[-1] or not too_few(groups, declined[-1], needed, members):
        return 0
    before = 0
    for one in reversed(declined[:-1]):
        if not one:
            break
        before += 1
    return pause_s(before)


def pause_s(before: int) -> int:
    """Seconds of a pause after this many others in a row."""
    return int(min(REFUSED_WAIT_S * 2 ** min(before, 20), REFUSED_WAIT_MAX_S))


def doubtful(
    declined: Sequence[Collection[str]], groups: Mapping[str, str], needed: int, members: int = 0
) -> frozenset[str]:
    """Who is asked before the others: whoever said no last, where an attempt fails without them.

    Takes what `wait_s` takes.
    """
    if not declined or not declined[-1] or not too_few(groups, declined[-1], needed, members):
        return frozenset()
    return frozenset(declined[-1]) & groups.keys()


def refused_for_good(
    declined: Sequence[Mapping[str, str]],
    groups: Mapping[str, str],
    needed: int,
    members: int = 0,
    *,
    waited_s: int = 0,
) -> bool:
    """Whether a run that members refuse ends: nothing helps within it, or it waited long enough.

    Args:
        declined: Party → code of those that said no, for each attempt since the last model, oldest first.
        groups: party → group, of everybody who takes part, online or not.
        needed: Groups that a sum takes.
        members: Members that a sum takes.
        waited_s: Seconds from the first of the refused attempts in a row to the last one.
    """
    if not declined or not declined[-1]:
        return False
    if waited_s >= REFUSED_PATIENCE_S and too_few(groups, declined[-1], needed, members):
        return True
    newest = declined[-REFUSED_ATTEMPTS:]
    last = [{party for party, code in one.items() if code in FOR_GOOD} for one in newest]
    if len(last) < REFUSED_ATTEMPTS:
        return False
    same = set.intersection(*last)
    return bool(same) and too_few(groups, same, needed, members)
