# SPDX-License-Identifier: Apache-2.0
"""What an act is: a kind, what it is asked with, what exactly would happen, and its effect."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from broker.auth.proposal_errors import ProposalKindError
from policies.log.kinds import Kind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auth.proposals import Proposal
    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["YES_OR_NO", "Act", "Doing", "Done"]

YES_OR_NO = Kind("true or false", lambda value: isinstance(value, bool))


@dataclass(frozen=True, slots=True, kw_only=True)
class Doing:
    """An act that two people want, at the moment in which it is done.

    Attributes:
        proposal: As approved.
        payload: What was asked for.
        operator: The second of the two.
        request: Digest that names this in log entries; an effect may use it for one entry of each type.
    """

    proposal: Proposal
    payload: Mapping[str, Json]
    operator: Operator
    request: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What an effect gives: facts for the answer, and repeatable steps that follow the commit."""

    result: Mapping[str, Json] = field(default_factory=dict)
    after: tuple[Callable[[], None], ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Act:
    """One kind of act.

    Attributes:
        kind: Its name, also as the action of its log entries.
        payload: Fields that it is asked with, all of them, each of its kind.
        facts: What exactly would happen now, from the database: it is asked when the act is proposed, and
            again at the approval. It raises where it could not happen.
        effect: Lets it happen, in the transaction of the approval.
    """

    kind: str
    payload: Mapping[str, Kind]
    facts: Callable[[Session, LogTx, Mapping[str, Json]], Mapping[str, Json]]
    effect: Callable[[Session, LogTx, Doing], Done]

    def check(self, payload: Mapping[str, Json]) -> None:
        """Refuses what it cannot be asked with.

        Raises:
            ProposalKindError: A field is missing, strange, or not of its kind.
        """
        wrong = sorted(set(payload) ^ set(self.payload))
        wrong += [
            name for name, kind in self.payload.items() if name in payload and not kind.holds(payload[name])
        ]
        if wrong:
            raise ProposalKindError(
                need=f"{self.kind} with "
                + ", ".join(f"{name} ({kind.name})" for name, kind in self.payload.items()),
                found=ascii(wrong[0])[1:-1][:60],
                remedy="correct this field and send it again",
            )
