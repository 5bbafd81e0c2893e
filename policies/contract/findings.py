# SPDX-License-Identifier: Apache-2.0
"""One finding per check: satisfied, violated or unknown. How the comparisons that all clauses use are made.

- ``need`` and ``found`` are language-neutral values (an operator and canonical text), ``remedy`` is a key of
  the catalogue in `policies.contract.render`, so that one decision reads in every language and replays to the
  same bytes.
- A fact that is None, or that is not what its type says (a decimal that is none), gives ``unknown``;
  ``found`` then names the fact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = [
    "Finding",
    "Outcome",
    "at_most",
    "decimal_of",
    "equal",
    "flag",
    "holds",
    "inside",
    "unknown",
    "within",
]

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")


class Outcome(StrEnum):
    """What a check says."""

    SATISFIED = "satisfied"
    VIOLATED = "violated"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The answer of one check of one clause.

    Attributes:
        clause: Id of the clause, or a reserved id (``@executed``) for the document itself.
        check: Name of the check.
        outcome: Only ``satisfied`` allows.
        need: What the clause wants.
        found: What the request gave; ``unknown: <fact>`` where it did not say.
        remedy: Catalogue key.
    """

    clause: str
    check: str
    outcome: Outcome
    need: str
    found: str
    remedy: str

    def to_json(self) -> dict[str, str]:
        """The finding as a decision record holds it."""
        return {
            "clause": self.clause,
            "check": self.check,
            "outcome": str(self.outcome),
            "need": self.need,
            "found": self.found,
            "remedy": self.remedy,
        }


def holds(clause: str, check: str, *, ok: bool, need: str, found: str, remedy: str) -> Finding:
    """A finding about facts that are all known."""
    outcome = Outcome.SATISFIED if ok else Outcome.VIOLATED
    return Finding(clause=clause, check=check, outcome=outcome, need=need, found=found, remedy=remedy)


def unknown(clause: str, check: str, *facts: str, need: str, remedy: str = "state-the-fact") -> Finding:
    """A finding that cannot be made, because these facts are not known."""
    return Finding(
        clause=clause,
        check=check,
        outcome=Outcome.UNKNOWN,
        need=need,
        found="unknown: " + ", ".join(sorted(facts)),
        remedy=remedy,
    )


def equal(clause: str, check: str, fact: str, value: object, want: str, *, remedy: str) -> Finding:
    """The fact is exactly this string."""
    need = f"= {want}"
    if not isinstance(value, str):
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=value == want, need=need, found=_short(value), remedy=remedy)


def inside(
    clause: str, check: str, fact: str, value: object, want: Collection[str], *, remedy: str
) -> Finding:
    """The fact is one of these strings."""
    need = "in " + (listed(want) or "nothing")
    if not isinstance(value, str):
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=value in want, need=need, found=_short(value), remedy=remedy)


def within(clause: str, check: str, fact: str, value: object, most: int, *, remedy: str) -> Finding:
    """The fact is a whole number from 1 to a bound."""
    need = f"1 to {most}"
    if isinstance(value, bool) or not isinstance(value, int):
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=1 <= value <= most, need=need, found=str(value), remedy=remedy)


def at_most(clause: str, check: str, fact: str, value: object, most: str, *, remedy: str) -> Finding:
    """The fact is a decimal not above a bound."""
    need = f"<= {most}"
    number = decimal_of(value)
    if number is None:
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=number <= Decimal(most), need=need, found=str(value), remedy=remedy)


def flag(clause: str, check: str, fact: str, value: object, *, want: bool, remedy: str) -> Finding:
    """The fact is exactly this truth value."""
    need = f"= {str(want).lower()}"
    if not isinstance(value, bool):
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=value is want, need=need, found=str(value).lower(), remedy=remedy)


def decimal_of(value: object) -> Decimal | None:
    """The number behind a decimal string, or None for anything else."""
    if not isinstance(value, str) or _DECIMAL.fullmatch(value) is None:
        return None
    return Decimal(value)


def listed(names: Iterable[str]) -> str:
    """Names as one text, sorted."""
    return " ".join(sorted({_short(name) for name in names}))


def _short(text: str) -> str:
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= 120 else plain[:117] + "..."  # noqa: PLR2004  a digest fits, a page does not
