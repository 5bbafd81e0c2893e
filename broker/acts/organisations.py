# SPDX-License-Identifier: Apache-2.0
"""``org.remove`` and ``org.restore``: a membership's end, and the end of its suspension.

Stopping somebody at once takes one operator (`broker.membership.service.Membership.suspend`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.acts.kinds import YES_OR_NO, Act, Doing, Done
from policies.log.kinds import ID, REASON

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.encoding import Json

__all__ = ["removal", "restoration"]


def removal(services: Services) -> Act:
    """A membership ends for good; its keys never come back."""

    def facts(session: Session, _tx: LogTx, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        found = services.membership.removable(session, str(payload["org"]))
        return {**found, "reason": payload["reason"], "left": payload["left"]}

    def effect(session: Session, tx: LogTx, doing: Doing) -> Done:
        org = str(doing.payload["org"])
        result = services.membership.remove(
            session,
            tx,
            org=org,
            reason=str(doing.payload["reason"]),
            request=doing.request,
            left=bool(doing.payload["left"]),
        )
        services.witnessing.keys.settle(session, tx)  # who left witnesses no longer
        return Done(result=result, after=(lambda: services.enrolled(org),))

    return Act(
        kind="org.remove",
        payload={"org": ID, "reason": REASON, "left": YES_OR_NO},
        facts=facts,
        effect=effect,
    )


def restoration(services: Services) -> Act:
    """A suspended organisation takes part again."""

    def facts(session: Session, _tx: LogTx, payload: Mapping[str, Json]) -> Mapping[str, Json]:
        found = services.membership.restorable(session, str(payload["org"]))
        return {**found, "reason": payload["reason"]}

    def effect(session: Session, tx: LogTx, doing: Doing) -> Done:
        org = str(doing.payload["org"])
        result = services.membership.restore(
            session, tx, org=org, reason=str(doing.payload["reason"]), request=doing.request
        )
        return Done(result=result, after=(lambda: services.enrolled(org),))

    return Act(kind="org.restore", payload={"org": ID, "reason": REASON}, facts=facts, effect=effect)
