# SPDX-License-Identifier: Apache-2.0
"""A negotiation as one party sees it: all states, its own lane and messages, diff and lint of the text.

- Of the other lanes, a contributor sees the state and nothing else.
- Who had a lane in an earlier round only sees that lane: the open text is no longer its business.
- The diff goes from what the caller saw last, by the number of the last message that it has, to the text
  that its lane holds. A caller that has nothing yet is shown what changed since the offer before, or since
  the version in force, if it is a party of that.
- The operators see states, diff and lint, and no messages.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from broker.contracts.offers import warnings_of
from broker.contracts.pools import lane_messages, no_negotiation
from broker.contracts.rows import waiting_for
from broker.errors import NotFoundError
from broker.membership.directory import Member, Operator
from policies.contract.amendment.changes import diff
from policies.contract.negotiation.lanes import LaneMessage, read_message
from policies.contract.negotiation.pool import TERMINATED
from policies.identity import key_text
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.contracts.service import Contracts
    from broker.store import Session
    from policies.contract.negotiation.pool import Lane, Pool
    from policies.encoding import Json
    from policies.signing import Envelope

__all__ = ["changes_between", "view_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Said:
    seq: int
    envelope: Envelope
    message: LaneMessage


def view_of(
    session: Session, contracts: Contracts, pool: Pool, caller: Member | Operator, *, after: int
) -> dict[str, Json]:
    """The JSON object of a negotiation; see the module.

    Raises:
        NotPartyError: The caller is a member that never was a party.
    """
    if isinstance(caller, Operator):
        return _whole(session, contracts, pool, lane=None, said=[], base=_base(pool, [], after), after=after)
    lanes = _own_lanes(session, contracts, pool, caller)
    said = [
        _Said(seq=seq, envelope=envelope, message=read_message(envelope.payload))
        for seq, envelope in lane_messages(session, [one.pid for one in lanes])
    ]
    lane = lanes[-1] if lanes else None
    if lane is not None and lane not in pool.lanes:
        return _former(pool, lane, said, after=after)
    base = _base(pool, said, after)
    if base is not None and not _reads(session, contracts, base, caller):
        base = None
    return _whole(session, contracts, pool, lane=lane, said=said, base=base, after=after)


def _own_lanes(session: Session, contracts: Contracts, pool: Pool, member: Member) -> tuple[Lane, ...]:
    """The member's lanes, the newest last; none for a party without one, an auditor."""
    own = pool.lanes_of_key(key_text(member.key))
    if own:
        return own
    try:
        party = contracts.party_of(contracts.read_in(session, pool.draft.digest), member)
    except NotFoundError as error:
        raise no_negotiation(pool.id) from error
    return pool.lanes_of_key(party.key)


def _reads(session: Session, contracts: Contracts, text: str, member: Member) -> bool:
    """Whether a member is a party of a text: a newcomer is not shown what was before it."""
    try:
        contracts.party_of(contracts.read_in(session, text), member)
    except NotFoundError:
        return False
    return True


def _whole(
    session: Session,
    contracts: Contracts,
    pool: Pool,
    *,
    lane: Lane | None,
    said: list[_Said],
    base: str | None,
    after: int,
) -> dict[str, Json]:
    draft = pool.draft
    contract = contracts.read_in(session, draft.digest)
    return {
        **_frame(pool),
        "round": pool.round,
        "state": pool.state,
        "digest": draft.digest,
        "sign_by": iso_s(draft.sign_by_ms),
        "lanes": {one.party: one.state.value for one in pool.lanes},
        "waiting_for": waiting_for(contract, pool),
        "approved": pool.approved,
        "lane": None if lane is None else _lane(lane),
        "closed": _closed(pool),
        "messages": _messages(said, after),
        "diff": changes_between(session, contracts, base, draft.digest),
        "lint": [
            {
                "id": one.id,
                "rule": one.rule,
                "severity": one.severity,
                "clause": one.clause,
                "need": one.need,
                "found": one.found,
                "remedy": one.remedy,
            }
            for one in warnings_of(contract)
        ],
    }


def _former(pool: Pool, lane: Lane, said: list[_Said], *, after: int) -> dict[str, Json]:
    last = said[-1].message
    return {
        **_frame(pool),
        "round": lane.round,
        "state": TERMINATED,
        "digest": lane.digest,
        "sign_by": None,
        "lanes": {lane.party: lane.state.value},
        "waiting_for": [],
        "approved": None,
        "lane": _lane(lane),
        "closed": {"code": last.code, "clause": last.clause, "text": last.text, "party": None},
        "messages": _messages(said, after),
        "diff": [],
        "lint": [],
    }


def _frame(pool: Pool) -> dict[str, Json]:
    return {"id": pool.id, "contract_id": pool.contract_id, "version": pool.version}


def _lane(lane: Lane) -> dict[str, Json]:
    return {
        "pid": lane.pid,
        "party": lane.party,
        "state": lane.state.value,
        "digest": lane.digest,
        "deadline_ms": lane.deadline_ms,
        "last_hash": lane.last_hash,
        "round": lane.round,
    }


def _closed(pool: Pool) -> dict[str, Json] | None:
    ended = pool.closed
    if ended is None:
        return None
    return {"code": ended.code, "clause": ended.clause, "text": ended.text, "party": ended.party}


def _messages(said: list[_Said], after: int) -> list[dict[str, Json]]:
    return [{"seq": one.seq, "message": one.envelope.to_json()} for one in said if one.seq > after]


def _base(pool: Pool, said: list[_Said], after: int) -> str | None:
    """The text that the diff starts from."""
    offers = [one for one in said if one.message.type == "offer"]
    seen = [one for one in offers if one.seq <= after]
    if seen:
        return seen[-1].message.digest
    if len(offers) > 1:
        return offers[-2].message.digest
    if not said and pool.past:
        return pool.past[-1].digest
    return pool.supersedes


def changes_between(
    session: Session, contracts: Contracts, old: str | None, new: str
) -> list[dict[str, Json]]:
    """The semantic diff of two texts; none where there is nothing to compare with."""
    if old is None or old == new:
        return []
    before, after = contracts.read_in(session, old), contracts.read_in(session, new)
    return [one.to_json() for one in diff(before, after)]
