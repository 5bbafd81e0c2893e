# SPDX-License-Identifier: Apache-2.0
"""Success rates with their intervals, and the 2x2 table: own cell and the others' cells, before and after.

- An interval is Wilson's 95 % score interval of a proportion (E. B. Wilson, 1927): it stays inside [0, 1]
  and says something
  at 0 of 20.
- A rate over several cells pools their rollouts; a party's rate pools that party's.
- A table that lacks a column is no table: `Table.of` refuses it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["COLUMNS", "Rate", "success_table"]

_Z = 1.959963984540054  # 97.5 % quantile of the normal distribution
COLUMNS = ("local_own", "local_others", "common_own", "common_others", "individual_own", "individual_others")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """Successes among rollouts."""

    successes: int
    rollouts: int

    @classmethod
    def of(cls, outcomes: Iterable[bool]) -> Rate:
        """Counts outcomes."""
        listed = list(outcomes)
        return cls(successes=sum(listed), rollouts=len(listed))

    def __add__(self, other: Rate) -> Rate:
        return Rate(successes=self.successes + other.successes, rollouts=self.rollouts + other.rollouts)

    @property
    def mean(self) -> float:
        """Share of successes; 0 without rollouts."""
        return self.successes / self.rollouts if self.rollouts else 0.0

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's 95 % interval."""
        n, p = self.rollouts, self.mean
        if n == 0:
            return (0.0, 1.0)
        middle = (p + _Z * _Z / (2 * n)) / (1 + _Z * _Z / n)
        half = _Z * math.sqrt(p * (1 - p) / n + _Z * _Z / (4 * n * n)) / (1 + _Z * _Z / n)
        return (max(0.0, middle - half), min(1.0, middle + half))

    def to_json(self) -> dict[str, Any]:
        """``mean``, ``interval``, ``n_rollouts``."""
        low, high = self.interval
        return {
            "mean": round(self.mean, 4),
            "interval": [round(low, 4), round(high, 4)],
            "n_rollouts": self.rollouts,
        }


def success_table(
    outcomes: Mapping[str, Mapping[str, Mapping[str, Rate]]], cells: Mapping[str, str]
) -> dict[str, Any]:
    """The report's ``success`` block.

    Args:
        outcomes: Stage (``local``, ``common``, ``individual``) → party whose model acts → cell → rate.
        cells: Party → its own cell.

    Returns:
        Column → mean, interval, n_rollouts and ``per_party``.

    Raises:
        SandboxError: A column would be empty.
    """
    table: dict[str, Any] = {}
    for column in COLUMNS:
        stage, place = column.split("_")
        per_party = {
            party: sum(
                (rate for cell, rate in rates.items() if (cell == cells[party]) == (place == "own")),
                Rate(successes=0, rollouts=0),
            )
            for party, rates in outcomes.get(stage, {}).items()
        }
        if not per_party or any(rate.rollouts == 0 for rate in per_party.values()):
            raise SandboxError(
                need=f"rollouts for {column} of every party", found="none", remedy="run the rollouts again"
            )
        whole = sum(per_party.values(), Rate(successes=0, rollouts=0))
        table[column] = whole.to_json() | {
            "per_party": {party: rate.to_json() for party, rate in sorted(per_party.items())}
        }
    return table
