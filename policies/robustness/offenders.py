# SPDX-License-Identifier: Apache-2.0
"""Who to look at, when teams fail: a member of every failed team, once enough teams were drawn anew.

- Teams are redrawn in each probe. A member that spoils its team stands in every team that failed; an honest
  one is in a failed team by chance, about one time in the number of teams.
- After ``log2(n) + 2`` probes with a failed team, whoever stood in a failed team in each of them and in no
  team that passed is named to the operator. Named, never dropped: chance names somebody honest now and then,
  and who leaves a consortium is decided by people.

    search = Search(members=9)
    search = search.after(failed=[("kita", …)], passed=[…])
    search.named()
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = ["Search", "probes_needed"]


def probes_needed(members: int) -> int:
    """Probes with a failed team before anybody is named: ``ceil(log2(n)) + 2``."""
    return math.ceil(math.log2(members)) + 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Search:
    """What the probes of a run said so far.

    Attributes:
        members: Of the run.
        probes: Probes in which a team failed.
        suspects: Members of a failed team in each of them; None before the first.
    """

    members: int
    probes: int = 0
    suspects: frozenset[str] | None = None

    def after(self, *, failed: Iterable[Collection[str]], passed: Iterable[Collection[str]]) -> Search:
        """The search after one probe; a probe in which all teams passed says nothing about anybody.

        Args:
            failed: Teams that the norm test or the vote left out.
            passed: Teams that were taken in.
        """
        bad = frozenset(party for team in failed for party in team)
        if not bad:
            return self
        bad -= frozenset(party for team in passed for party in team)
        suspects = bad if self.suspects is None else self.suspects & bad
        return replace(self, probes=self.probes + 1, suspects=suspects)

    def named(self) -> tuple[str, ...]:
        """Members whom an operator should look at, once there were enough probes."""
        if self.suspects is None or self.probes < probes_needed(self.members):
            return ()
        return tuple(sorted(self.suspects))
