# SPDX-License-Identifier: Apache-2.0
"""Release guard: whether one more opened sum would give away a sum over fewer than ``k`` groups.

Two sums that are harmless alone can open a third: everybody, and everybody but one. For one set of updates
(one round) let A have a row per opened sum and a column per party, 1 where its update is in the sum. Weights
are positive, so they do not change what can be combined. A combination of rows lives on the groups T alone
exactly if A loses rank without the columns of T. So the rule:

    allowed  <=>  for every set T of k - 1 groups:  rank(A without T's columns) == rank(A)

- Sets are tried from one group upward: the groups that a refusal names are exactly those that would stand in
  the open.
- Elimination is exact, in integers. 20 parties, k = 3: at most 210 small ranks.
- A node asks it before it helps to open, the broker before it asks, the verifier over the log. A sum counts
  as opened once somebody helped to open it, also if the round was lost later.

Standard library only.

    check([{"a", "b", "c", "d"}], {"a", "b", "c"}, groups=groups, k=3)      # Finding(groups=("d",))
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

__all__ = ["Finding", "check"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What the rule says.

    Attributes:
        groups: Those whose sum alone would be open; empty if the candidate is allowed.
    """

    groups: tuple[str, ...] = ()

    @property
    def allowed(self) -> bool:
        """Whether the sum may be opened."""
        return not self.groups


def check(
    opened: Sequence[Collection[str]], candidate: Collection[str], *, groups: Mapping[str, str], k: int
) -> Finding:
    """Whether a sum may be opened beside those that are open.

    Args:
        opened: Parties behind each sum of these updates that is open.
        candidate: Parties behind the sum that is asked for.
        groups: Party → corporate group.
        k: Groups that must stand behind whatever can be computed.
    """
    supports = [frozenset(one) for one in (*opened, candidate)]
    parties = sorted(frozenset().union(*supports))
    whole = _rank(_rows(supports, parties))
    names = sorted({groups[party] for party in parties})
    for size in range(1, min(k - 1, len(names)) + 1):
        for hidden in combinations(names, size):
            left = [party for party in parties if groups[party] not in hidden]
            if _rank(_rows(supports, left)) < whole:
                return Finding(groups=hidden)
    return Finding()


def _rows(supports: Sequence[frozenset[str]], parties: Sequence[str]) -> list[list[int]]:
    return [[int(party in one) for party in parties] for one in supports]


def _rank(rows: list[list[int]]) -> int:
    """Rank over the rationals, by elimination without fractions (Bareiss 1968)."""
    rows = [list(row) for row in rows]
    width = len(rows[0]) if rows else 0
    rank, before = 0, 1
    for column in range(width):
        found = next((at for at in range(rank, len(rows)) if rows[at][column]), None)
        if found is None:
            continue
        rows[rank], rows[found] = rows[found], rows[rank]
        pivot = rows[rank]
        for at in range(rank + 1, len(rows)):
            factor = rows[at][column]
            rows[at] = [
                (pivot[column] * value - factor * upper) // before
                for value, upper in zip(rows[at], pivot, strict=True)
            ]
        before, rank = pivot[column], rank + 1
    return rank
