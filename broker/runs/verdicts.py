# SPDX-License-Identifier: Apache-2.0
"""What settled attempts say about members that said no themselves: read by rounds, status and reasons alike.

A run that too many refused pauses before its next attempt (`policies.rounds.wait_s`). The pause is read from
its settled attempts, so that everybody who asks sees the same.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from policies.rounds import wait_s

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from sqlalchemy import RowMapping

    from policies.contract import Contract

__all__ = ["DECLINED", "declined_of", "paused_until_ms"]

DECLINED: Final = "declined"


def declined_of(verdicts: str) -> frozenset[str]:
    """Parties that said no themselves, by the stored verdicts of one attempt."""
    return frozenset(party for party, one in json.loads(verdicts).items() if one == DECLINED)


def paused_until_ms(contract: Contract, parties: Collection[str], rounds: Sequence[RowMapping]) -> int | None:
    """Until when a run that is not closed asks nobody; None where its last attempt was not refused so.

    Args:
        contract: Of the run.
        parties: That could be asked.
        rounds: Its settled attempts, oldest first.
    """
    since = next((at for at, one in enumerate(reversed(rounds)) if one["model"] is not None), len(rounds))
    lost = rounds[len(rounds) - since :]
    groups = {one.party: one.group for one in contract.contributors if one.party in parties}
    declined = [declined_of(one["verdicts"]) for one in lost]
    pause_s = wait_s(declined, groups, contract.aggregation.min_parties)
    return rounds[-1]["at_ms"] + pause_s * 1000 if pause_s else None
