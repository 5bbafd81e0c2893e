# SPDX-License-Identifier: Apache-2.0
"""One transmission as pages show it, with how well the log is known to hold it.

Grades of a transmission, by the envelopes that left with it:

    none           it carried none: nothing of it is in the log
    waiting        the broker's receipt for one of them is not here yet
    late           so for longer than `WITNESS_MAX_AGE_MIN`, or unwitnessed for that long where that is due
    signed         each has a receipt that the broker signed
    witnessed      each has a receipt that enough witnesses cosigned
    contradicted   the log showed two histories before there was a receipt
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from policies.limits import WITNESS_MAX_AGE_MIN

if TYPE_CHECKING:
    from collections.abc import Collection

__all__ = ["Grade", "Totals", "Transmission"]

_LATE_MS: Final = WITNESS_MAX_AGE_MIN * 60_000
Grade = Literal["none", "waiting", "late", "signed", "witnessed", "contradicted"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transmission:
    """One transmission; ``number`` is its row."""

    number: int
    at_ms: int
    kind: str
    size_bytes: int
    digest: str
    clause: str | None
    contract: str | None
    run: str | None
    round: int | None
    attempt: int | None
    envelopes: int
    receipts: int
    witnessed: int

    def grade(self, *, now_ms: int, stopped_ms: int | None, demanding: Collection[str]) -> Grade:
        """How well the log is known to hold it; see the module.

        Args:
            now_ms: Now.
            stopped_ms: When the log contradicted itself, if it did.
            demanding: Contracts under which witnesses are due.
        """
        if not self.envelopes:
            return "none"
        if self.witnessed == self.envelopes:
            return "witnessed"
        old = now_ms - self.at_ms > _LATE_MS
        if self.receipts == self.envelopes:
            return "late" if old and self.contract in demanding else "signed"
        if stopped_ms is not None:
            return "contradicted"
        return "late" if old else "waiting"


@dataclass(frozen=True, slots=True, kw_only=True)
class Totals:
    """What left for one run, or for none."""

    run: str | None
    messages: int
    size_bytes: int
    first_ms: int
    last_ms: int
