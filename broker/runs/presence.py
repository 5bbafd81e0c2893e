# SPDX-License-Identifier: Apache-2.0
"""Who of a run is away, for operators: whose node is off, or answered nothing when it was asked last.

- **Away** is a member of an open run whose node is not online, or that was silent in the newest settled
  attempt. It is away since it was heard last: by the fleet API since this process started, or in an attempt
  that it answered; None if neither ever was.
- **Short** says what an open run waits for while fewer groups, or members, are online than a sum takes. It is
  read from who is online now, as the run itself reads it (`broker.federation.session`).

Members out of the run (`broker.runs.incidents`) are not waited for, and stand in neither.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, Protocol

from broker.runs.verdicts import NOT_ASKED
from policies.rounds import need_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sqlalchemy import RowMapping

    from broker.contracts.service import Seat
    from policies.contract import Contract
    from policies.encoding import Json

__all__ = ["Presence", "away_of", "short_of"]

_SILENT: Final = "silent"
_REMEDY: Final = (
    "ask these members to start iriai-node run; iriai-broker org list says when each was heard last"
)


class Presence(Protocol):
    """What the engine knows of nodes now (`broker.federation.engine`)."""

    def online(self) -> frozenset[str]:
        """Nodes that would answer now."""
        ...

    def seen_ms(self) -> Mapping[str, int]:
        """When each node was heard last since this process started; without those that were not."""
        ...


def away_of(seats: Sequence[Seat], rounds: Sequence[RowMapping], presence: Presence) -> list[dict[str, Json]]:
    """Each member that is away, by party.

    Args:
        seats: Members of the run that may be asked.
        rounds: Its settled attempts, oldest first.
        presence: Of their nodes.
    """
    online, seen = presence.online(), presence.seen_ms()
    silent = _silent(rounds[-1]) if rounds else frozenset()
    found: list[dict[str, Json]] = []
    for seat in sorted(seats, key=lambda one: one.party):
        there = seat.member.node in online
        if there and seat.party not in silent:
            continue
        heard = [ms for ms in (seen.get(seat.member.node), _answered_ms(rounds, seat.party)) if ms]
        found.append(
            {
                "party": seat.party,
                "name": seat.member.legal_name,
                "online": there,
                "since_ms": max(heard, default=None),
            }
        )
    return found


def short_of(
    contract: Contract, recipe: str, seats: Sequence[Seat], presence: Presence
) -> dict[str, Json] | None:
    """What the run waits for; None if enough are online.

    Args:
        contract: Of the run.
        recipe: Digest of its recipe.
        seats: Members of the run that may be asked.
        presence: Of their nodes.
    """
    online, need = presence.online(), need_of(contract, recipe)
    there = [seat.member.group for seat in seats if seat.member.node in online]
    if need.met_by(there):
        return None
    missing = [seat for seat in seats if seat.member.node not in online]
    return {
        "groups": len(set(there)),
        "groups_needed": need.groups,
        "members": len(there),
        "members_needed": need.members,
        "names": [seat.member.legal_name for seat in sorted(missing, key=lambda one: one.party)],
        "remedy": _REMEDY,
    }


def _silent(row: RowMapping) -> frozenset[str]:
    said = {} if row["reasons"] is None else json.loads(row["reasons"])
    verdicts = json.loads(row["verdicts"])
    return frozenset(
        one for one, verdict in verdicts.items() if verdict == _SILENT and said.get(one) != NOT_ASKED
    )


def _answered_ms(rounds: Sequence[RowMapping], party: str) -> int | None:
    """When the newest attempt was settled in which a member answered."""
    for row in reversed(rounds):
        if json.loads(row["verdicts"]).get(party, _SILENT) != _SILENT:
            return int(row["at_ms"])
    return None
