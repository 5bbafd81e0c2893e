# SPDX-License-Identifier: Apache-2.0
"""What settled attempts say about everybody who was asked: read by rounds, status and reasons alike.

A run that too many refused pauses before its next attempt (`policies.rounds.wait_s`). The pause is read from
its settled attempts, so that everybody who asks sees the same; before the first attempt, from what the run's
row keeps of its start (`broker.federation.starting`).
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from policies.limits import REFUSED_PATIENCE_S
from policies.rounds import need_of, wait_s
from policies.secagg.errors import (
    BehindError,
    CohortTooSmallError,
    RoundBurnedError,
    SetupGoneError,
    SlotUsedError,
    SumWrongError,
)

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    from sqlalchemy import RowMapping

    from policies.contract import Contract

__all__ = [
    "ABSENT",
    "BARRED",
    "DECLINED",
    "LEFT_OUT",
    "NOT_ASKED",
    "UNTRAINED",
    "UNUSED",
    "Pause",
    "counts_of",
    "declined_of",
    "in_a_row",
    "pause_between",
    "pause_of",
    "who_said",
]

DECLINED: Final = "declined"
NOT_ASKED: Final = "round.not-asked"
"""Silent, because members that were asked before it said no: it trained nothing, and paid nothing."""
UNUSED: Final = "attempt-abandoned"
"""Its update held, and is in no model: too few groups' did."""
LEFT_OUT: Final = "team-left-out"
"""Its update held, and the sum of its team was opened, yet is in no model: by its norm, or by the judges."""
BARRED: Final = "incident-declared"
"""Out of the run, and not asked."""
ABSENT: Final = frozenset(
    one.code
    for one in (
        BehindError,
        SetupGoneError,
        SlotUsedError,
        RoundBurnedError,
        CohortTooSmallError,
        SumWrongError,
    )
)
"""A member said that it takes no part in this sum, before it trained: silence, for whoever counts refusals.

It passes by itself: with the next setup, attempt or round."""
UNTRAINED: Final = ABSENT | {NOT_ASKED, BARRED}
"""Nobody with such a reason trained."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pause:
    """Why a run asks nobody just now, though no halt keeps it.

    Attributes:
        since_ms: When it was first refused.
        until_ms: When it asks again.
        times: Refusals in a row so far.
        codes: Party → code of those that said no.
        round: In which round; 0 before the first.
    """

    since_ms: int
    until_ms: int
    times: int
    codes: dict[str, str]
    round: int = 0

    @property
    def ends_ms(self) -> int:
        """When the run has waited long enough: refused from then on, it ends."""
        return self.since_ms + REFUSED_PATIENCE_S * 1000

    def to_text(self) -> str:
        """As a run's row keeps it."""
        return json.dumps(asdict(self), sort_keys=True)


def pause_of(text: str | None) -> Pause | None:
    """The pause of a run that could not begin, as its row has it."""
    return None if text is None else Pause(**json.loads(text))


def declined_of(verdicts: str, reasons: str | None = None) -> dict[str, str]:
    """Party → code of those that said no themselves, by the stored verdicts and reasons of one attempt."""
    said = {} if reasons is None else json.loads(reasons)
    return {party: said.get(party) or "" for party, one in json.loads(verdicts).items() if one == DECLINED}


def counts_of(row: RowMapping) -> dict[str, int]:
    """How many of an attempt's cohort each thing is true of: together they are the cohort.

    ``accepted`` are in the model, ``unused`` held and are in none, ``refused`` failed a check or said no,
    ``silent`` gave no answer in time, ``unasked`` were spared.
    """
    said = {} if row["reasons"] is None else json.loads(row["reasons"])
    kinds = Counter(_kind(one, said.get(party)) for party, one in json.loads(row["verdicts"]).items())
    return {name: kinds[name] for name in ("accepted", "unused", "refused", "silent", "unasked")}


def _kind(verdict: str, reason: str | None) -> str:
    if verdict == "refused" and reason == UNUSED:
        return "unused"
    if verdict == "silent" and reason == NOT_ASKED:
        return "unasked"
    return "refused" if verdict == DECLINED else verdict


def pause_between(
    contract: Contract, recipe: str, parties: Collection[str], rounds: Sequence[RowMapping]
) -> Pause | None:
    """The pause of a run after its last attempt; None where that was not refused by too many.

    Args:
        contract: Of the run.
        recipe: Digest of its recipe.
        parties: That could be asked.
        rounds: Its settled attempts, oldest first.
    """
    since = next((at for at, one in enumerate(reversed(rounds)) if one["model"] is not None), len(rounds))
    lost = rounds[len(rounds) - since :]
    groups = {one.party: one.group for one in contract.contributors if one.party in parties}
    declined = [declined_of(one["verdicts"], one["reasons"]) for one in lost]
    seconds = wait_s(declined, groups, *need_of(contract, recipe))
    if not seconds:
        return None
    times = in_a_row(declined)
    return Pause(
        since_ms=lost[-times]["at_ms"],
        until_ms=lost[-1]["at_ms"] + seconds * 1000,
        times=times,
        codes=declined[-1],
        round=lost[-1]["round"],
    )


def in_a_row(declined: Sequence[Collection[str]]) -> int:
    """How many of the newest attempts somebody said no in."""
    return next((at for at, one in enumerate(reversed(declined)) if not one), len(declined))


def who_said(codes: Mapping[str, str]) -> str:
    """Parties and their codes in one line."""
    return ", ".join(f"{party} ({code})" if code else party for party, code in sorted(codes.items()))
