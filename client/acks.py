# SPDX-License-Identifier: Apache-2.0
"""``round.ack``: this node signs how a round was closed that it gave something to.

A request shows the entry ``round.closed`` with its proof. Once that holds in the history that this node has
seen (`LogView.closings`), an envelope says which entry it is, its leaf hash, and how many submissions of this
node stand in the log before it, by its own receipts. It rides on the reply that is made anyway: no message
and no fsync of its own, one for each closed attempt, oldest first, at most `REPLY_ACKS` with one reply. Where
a receipt is missing yet, it waits for a later reply.

The number is this node's own, whatever the entry says: a broker that closed the round with another one is
found out by whoever audits the log (AUD-055).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from policies.limits import REPLY_ACKS

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from client.outbox import Letters, Outbox
    from client.outbox.rows import Closing
    from policies.signing import Envelope

__all__ = ["seal_acks"]


def seal_acks(letters: Letters, outbox: Outbox, shown: Iterable[Closing], *, run: str) -> Iterator[Envelope]:
    """Acknowledges closed rounds of a run that are not acknowledged yet, in their order."""
    room = REPLY_ACKS
    for one in sorted(shown, key=lambda each: each.index):
        slot = f"round.ack {run}/{one.index}"
        if one.run != run or outbox.find(slot) is not None:
            continue
        count = _counted(outbox, one)
        if count is None or room == 0:
            return
        room -= 1
        yield letters.seal(
            "round.ack",
            body={"closed": one.index, "leaf": f"sha256:{one.leaf.hex()}", "count": count},
            scope=one.scope,
            run=one.run,
            round=one.round,
            slot=slot,
        )


def _counted(outbox: Outbox, one: Closing) -> int | None:
    """Submissions of this node to the attempt that the log has before it was closed; None: not known yet."""
    count = 0
    for stored in outbox.envelopes(run=one.run, kind="submission.received"):
        payload = json.loads(stored.envelope.payload)
        if (payload["round"], payload["body"]["attempt"]) != (one.round, one.attempt):
            continue
        if stored.log_index is None:
            return None
        count += stored.log_index < one.index
    return count
