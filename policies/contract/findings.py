# SPDX-License-Identifier: Apache-2.0
"""One finding per check: satisfied, violated or unknown. How the comparisons that all clauses use are made.

- ``need`` and ``found`` are language-neutral values (an operator and canonical text), ``remedy`` is a key of
  the catalogue in `policies.contract.render`, so that one decision reads in every language and replays to the
  same bytes.
- A fact that is None, or that is not what its type says (a decimal that is none, a time that is no date),
  gives ``unknown``; ``found`` then names the fact.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from functools import lru_cache
from typing import TYPE_CHECKING, Final

from policies.encoding import is_digest
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable

__all__ = [
    "DAY_MS",
    "HOUR_MS",
    "Finding",
    "Outcome",
    "at_least",
    "at_most",
    "count_at_least",
    "decimal_of",
    "digest_of",
    "equal",
    "flag",
    "holds",
    "inside",
    "listed",
    "moment_of",
    "none_of",
    "only",
    "unknown",
    "waited",
    "within",
]

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?")
_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS


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


def at_least(clause: str, check: str, fact: str, value: object, least: str, *, remedy: str) -> Finding:
    """The fact is a decimal not below a bound."""
    need = f">= {least}"
    number = decimal_of(value)
    if number is None:
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=number >= Decimal(least), need=need, found=str(value), remedy=remedy)


def count_at_least(clause: str, check: str, fact: str, value: object, least: int, *, remedy: str) -> Finding:
    """The fact is a whole number not below a bound."""
    need = f">= {least}"
    if isinstance(value, bool) or not isinstance(value, int):
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=value >= least, need=need, found=str(value), remedy=remedy)


def only(
    clause: str, check: str, fact: str, value: Collection[str] | None, want: Collection[str], *, remedy: str
) -> Finding:
    """The fact names nothing else."""
    need = "only " + (listed(want) or "nothing")
    if value is None:
        return unknown(clause, check, fact, need=need)
    over = set(value).difference(want)
    found = listed(over or value) or "nothing"
    return holds(clause, check, ok=not over, need=need, found=found, remedy=remedy)


def none_of(
    clause: str, check: str, fact: str, value: Collection[str] | None, banned: Collection[str], *, remedy: str
) -> Finding:
    """The fact names none of these."""
    need = "none of " + (listed(banned) or "nothing")
    if value is None:
        return unknown(clause, check, fact, need=need)
    hit = set(value).intersection(banned)
    return holds(clause, check, ok=not hit, need=need, found=listed(hit) or "none", remedy=remedy)


def digest_of(clause: str, check: str, fact: str, value: object, *, remedy: str) -> Finding:
    """The fact is a digest."""
    need = "a digest"
    if not isinstance(value, str):
        return unknown(clause, check, fact, need=need)
    return holds(clause, check, ok=is_digest(value), need=need, found=_short(value), remedy=remedy)


def waited(
    clause: str, check: str, *, since: tuple[str, object], now: object, wait_ms: int, words: str
) -> Finding:
    """At least this long has passed since a fact.

    Args:
        clause: Of the finding.
        check: Of the finding.
        since: Name and value of the fact that the time is counted from.
        now: The state's time.
        wait_ms: Milliseconds.
        words: The same time as the clause writes it (``24 h``).
    """
    fact, value = since
    need = f">= {fact} + {words}"
    began, present = moment_of(value), moment_of(now)
    if began is None or present is None:
        missing = [name for name, known in ((fact, began), ("now", present)) if known is None]
        return unknown(clause, check, *missing, need=need)
    ok = present - began >= wait_ms
    return holds(clause, check, ok=ok, need=need, found=f"{now}, {fact} {value}", remedy="wait-for-the-time")


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


def moment_of(value: object) -> int | None:
    """Milliseconds of a time in whole seconds (``2026-12-01T00:00:00Z``), or None for anything else."""
    return _moment(value) if isinstance(value, str) else None


@lru_cache(maxsize=256)
def _moment(text: str) -> int | None:
    if _TIME.fullmatch(text) is None:
        return None
    try:
        return to_ms(text)
    except (ValueError, OverflowError):  # no real date
        return None


def listed(names: Iterable[str]) -> str:
    """Names as one text, sorted."""
    return _listed(names) if isinstance(names, tuple) else _joined(names)


@lru_cache(maxsize=1024)  # mostly the lists of clauses
def _listed(names: tuple[str, ...]) -> str:
    return _joined(names)


def _joined(names: Iterable[str]) -> str:
    return " ".join(sorted({_short(name) for name in names}))


def _short(text: str) -> str:
    plain = ascii(text)[1:-1]
    return plain if len(plain) <= 120 else plain[:117] + "..."  # noqa: PLR2004  a digest fits, a page does not
