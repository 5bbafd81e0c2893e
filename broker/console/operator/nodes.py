# SPDX-License-Identifier: Apache-2.0
"""Where the node of a member stands, and since when: for every screen that names nodes.

    never-seen   enrolled, and nothing was heard of it since it joined; since it joined
    online       its connection answers; since when it was heard last
    stale        it was there, and does not answer; since it was heard last
    waiting-approval, suspended, revoked      as two people, or one, decided; since then

What the engine heard is of this process. A node that was there before the broker started, and has not come
back, is stale since the start at the latest; that it was there shows in what its key asked for.

Whether its owner paused a node is not told to the broker; a paused node is online and says no to rounds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.console.values import Nothing, State, T, Value, When
from broker.store.tables import idempotency

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.membership.directory import Member
    from broker.services import Services
    from broker.store import Session

__all__ = ["Standing", "standing_of", "standings"]


@dataclass(frozen=True, slots=True)
class Standing:
    """A state word of `broker.console.states`, and since when; ``exact``: not only at the latest."""

    word: str
    since_ms: int
    exact: bool = True

    @property
    def state(self) -> State:
        """For a cell."""
        return State(self.word)

    @property
    def since(self) -> Value:
        """For a cell."""
        return (
            When(self.since_ms)
            if self.exact
            else T("before the broker started, {when}", when=When(self.since_ms))
        )

    @property
    def heard(self) -> Value:
        """When its node was heard last, for a fact."""
        if self.word not in {"online", "stale"}:
            return Nothing(T("not heard yet") if self.word == "never-seen" else None)
        return self.since


def standing_of(services: Services, session: Session, member: Member) -> Standing:
    """Of one member."""
    return standings(services, session, (member,))[member.org]


def standings(services: Services, session: Session, members: Iterable[Member]) -> dict[str, Standing]:
    """By organisation id."""
    listed = tuple(members)
    online, seen = services.engine.online(), services.engine.seen_ms()
    asked = _asked_before(session, [one.key_id for one in listed if one.active and one.node not in seen])
    found: dict[str, Standing] = {}
    for one in listed:
        heard = seen.get(one.node)
        if not one.active:
            found[one.org] = Standing(one.state, one.since_ms)
        elif one.node in online:
            found[one.org] = Standing("online", heard if heard is not None else services.clock.now_ms())
        elif heard is not None:
            found[one.org] = Standing("stale", heard)
        elif one.key_id in asked and one.since_ms < services.started_ms:
            found[one.org] = Standing("stale", services.started_ms, exact=False)
        else:
            found[one.org] = Standing("never-seen", one.since_ms)
    return found


def _asked_before(session: Session, keys: list[str]) -> frozenset[str]:
    """Ids of keys that asked for more than to join."""
    second = select(idempotency.c.idem).limit(1).offset(1)  # not a count: there are years of requests
    return frozenset(
        one for one in keys if session.scalar(second.where(idempotency.c.key_id == one)) is not None
    )
