# SPDX-License-Identifier: Apache-2.0
"""The witness as a thread of the worker: it never blocks training, and nothing but evidence ends it.

- It has an outbox, a client and files of its own, as the worker's other threads do.
- What fails passes: a line in the journal, a pause of 1, 2, 4 … `WITNESS_BACKOFF_S` seconds, and the next
  turn. The pause is forgotten with the first turn that works. A broker that restarts is waited for.
- A question that comes back at once with nothing new is followed by a short pause.
- After evidence against the log it calls ``stopped`` once and ends: the worker stops with exit 7.
"""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING, Final

from client.contract.notices import Notices
from client.contract.shelf import ContractShelf
from client.errors import EquivocationError
from client.membership import open_member
from client.outbox import Outbox
from client.witnessing.alarms import Alarms
from client.witnessing.loop import Watch
from client.witnessing.trust import Trust
from client.witnessing.vouching import Vouching
from policies.errors import IriaiError
from policies.limits import WITNESS_BACKOFF_S

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import httpx

    from client.membership import Member
    from client.settings import Home
    from policies.ports import Clock, Entropy

    Say = Callable[[str, Mapping[str, object]], None]

__all__ = ["Witness", "trust_of", "watch_for_ever"]

_REST_S: Final = 0.2
_ALARMS_S: Final = 5.0


def trust_of(member: Member, shelf: ContractShelf) -> Trust:
    """Whom a node believes, by its contracts."""
    return Trust(
        member.home,
        shelf,
        Notices(shelf),
        log_key=member.log_keys.all()[0],
        log_keys=member.log_keys.all,
        broker=member.broker.key,
    )


class Witness:
    """Everything that one witness of a folder needs, open."""

    def __init__(
        self, home: Home, *, clock: Clock, entropy: Entropy, transport: httpx.BaseTransport | None = None
    ) -> None:
        self._member = member = open_member(home, clock=clock, entropy=entropy, transport=transport)
        identity = member.identity
        self.outbox = Outbox.of(home, identity, origin=member.broker.origin, clock=clock, entropy=entropy)
        trust = trust_of(member, ContractShelf(home, own_key=identity.key.public))
        self.watch = Watch(member, self.outbox, trust)
        self.vouching = Vouching(self.outbox, trust, clock)
        self.alarms = Alarms(self.vouching, trust, clock)

    def close(self) -> None:
        """Closes the files."""
        self.outbox.close()
        self._member.client.close()


def watch_for_ever(
    home: Home,
    *,
    clock: Clock,
    entropy: Entropy,
    say: Say,
    stopped: Callable[[], None],
    transport: httpx.BaseTransport | None = None,
) -> None:
    """Witnesses until the process ends, or the log contradicts itself.

    Args:
        home: The node's folder.
        clock: Of cosignatures.
        entropy: Of the witness key.
        say: Writes a line of the journal.
        stopped: Called once, when the node was stopped for good.
        transport: Of httpx, for an application in the same process.
    """
    witness: Witness | None = None
    pause_s, looked_s = 1.0, 0.0
    while True:
        try:
            witness = witness or Witness(home, clock=clock, entropy=entropy, transport=transport)
            done = witness.watch.turn()
            pause_s = 1.0
            if not done:
                time.sleep(_REST_S)
        except EquivocationError as error:
            written = witness is not None and witness.watch.evidence()
            say("log-equivocation", {"code": error.code, "evidence": written})
            stopped()
            return
        except Exception as error:  # noqa: BLE001  the edge of the thread: a witness goes on
            code = error.code if isinstance(error, IriaiError) else None
            say("witness-waits", {"error": type(error).__name__, "code": code})
            time.sleep(pause_s)
            pause_s = min(2 * pause_s, WITNESS_BACKOFF_S)
        if witness is not None and time.monotonic() - looked_s >= _ALARMS_S:
            looked_s = time.monotonic()
            with contextlib.suppress(Exception):  # of files that another process changes just now
                for event, facts in witness.alarms.look():
                    say(event, facts)
