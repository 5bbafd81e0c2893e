# SPDX-License-Identifier: Apache-2.0
"""``witness.add`` and ``witness.remove``: an auditor joins the quorum of the log; a voter leaves it.

Members' witnesses need no word of their own to join: two people let the member in.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from broker.acts.kinds import Act, Doing, Done
from broker.auth.proposals import State, void
from policies.log.kinds import KEY_NAME, REASON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.auth.proposals import Proposal
    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.services import Services
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["propose_vote", "witness_addition", "witness_removal"]

_ADD: Final = "witness.add"


def witness_addition(services: Services) -> Act:
    """An auditor's witness gets a vote."""
    keys = services.witnessing.keys

    def facts(session: Session, _tx: LogTx, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        return keys.addable(session, str(payload["witness"]))

    def effect(session: Session, tx: LogTx, doing: Doing) -> Done:
        result = keys.add(session, tx, str(doing.payload["witness"]))
        return Done(result=result, after=(services.witnessing.load,))

    return Act(kind=_ADD, payload={"witness": KEY_NAME}, facts=facts, effect=effect)


def propose_vote(
    services: Services, session: Session, tx: LogTx, name: str, *, operator: Operator, request: str
) -> Proposal:
    """The proposal that gives this witness a vote: the one that waits and is about this key, or a new one.

    Raises:
        ProposalRoleError: Whoever asks is no operator.
    """
    facts = services.witnessing.keys.addable(session, name)
    for one in services.acts.proposals.of(session, _ADD, {"witness": name}):
        if one.at(tx.now_ms) is State.PROPOSED:
            if one.facts == facts:
                return one
            services.acts.proposals.keep(session, void(one, why="subject-changed", now_ms=tx.now_ms))
    return services.acts.propose(session, tx, _ADD, {"witness": name}, operator, request).proposal


def witness_removal(services: Services) -> Act:
    """A voter leaves the quorum."""
    keys = services.witnessing.keys

    def facts(session: Session, _tx: LogTx, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        return {**keys.removable(session, str(payload["witness"])), "reason": payload["reason"]}

    def effect(session: Session, tx: LogTx, doing: Doing) -> Done:
        result = keys.remove(session, tx, str(doing.payload["witness"]))
        return Done(result=result, after=(services.witnessing.load,))

    return Act(
        kind="witness.remove",
        payload={"witness": KEY_NAME, "reason": REASON},
        facts=facts,
        effect=effect,
    )
