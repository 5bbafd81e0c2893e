# SPDX-License-Identifier: Apache-2.0
"""What a page reads: this node's files without writing to them, and what the broker said, with its time.

- The outbox is opened read-only (`ReadingOutbox`): whatever would write to it fails. Nothing waits for a
  worker, and no worker waits for a page. One that is not there yet is made, as the first command makes it.
- The broker is asked at most every `ASK_S` seconds, and waited for at most `WAIT_S`. Its last answer is kept
  in the process (`Heard`) and shown with its age while it is away; nothing else is asked while it is.
- Each part is opened when it is first needed, and raises then: one that is missing costs its panel alone.

    with Site(home, heard, clock=clock, entropy=entropy) as site:
        site.outbox.left.sent_count(); site.heard.moment("/membership/me")
"""

from __future__ import annotations

import copy
import dataclasses
import sqlite3
import threading
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, NoReturn, Self

from client.errors import OutboxError, PeerUnreachableError
from client.identity import load_identity
from client.membership import open_member
from client.outbox import Outbox
from client.page.values import Moment
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from client.contract.shelf import ContractShelf
    from client.identity import NodeIdentity
    from client.membership import Member
    from client.settings import Home
    from client.transport import BrokerClient
    from policies.ports import Clock, Entropy

__all__ = ["ASK_S", "FRESH_S", "Heard", "ReadingOutbox", "Site"]

ASK_S: Final = 10  # between two questions about the same
WAIT_S: Final = 3  # for an answer
FRESH_S: Final = 60  # an older answer of the broker is called stale


class ReadingOutbox(Outbox):
    """The outbox of this node as it is now; nothing can be written by it."""

    def __init__(
        self, home: Home, identity: NodeIdentity, *, origin: str, clock: Clock, entropy: Entropy
    ) -> None:
        """Opens the file that is there.

        Raises:
            OutboxError: It is damaged, or there is none.
        """
        self.key, self.origin, self.clock, self.entropy = identity.key, origin, clock, entropy
        address = f"{home.outbox.absolute().as_uri()}?mode=ro"
        try:
            self._db = sqlite3.connect(address, uri=True, isolation_level=None, check_same_thread=False)
            self._db.execute("SELECT 1 FROM meta LIMIT 1")
        except sqlite3.Error as error:
            raise OutboxError(
                need="the outbox of this node",
                found=type(error).__name__,
                remedy="iriai-node doctor says what is wrong with it",
            ) from error
        self._compose()

    def _transaction(self) -> NoReturn:
        raise OutboxError(
            need="an outbox that may be written to",
            found="one that a page reads",
            remedy="report it: a page writes through its acts alone",
        )


@dataclass(slots=True)
class _Known:
    """What the broker said about one thing; ``error`` is why it said nothing newer."""

    value: Any = None
    at_ms: int | None = None
    tried_ms: int = -(10**15)
    error: IriaiError | None = None


@dataclass(slots=True)
class Heard:
    """The broker's last answers, in the memory of the process; one question at a time."""

    clock: Clock
    _known: dict[str, _Known] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _away_ms: int = -(10**15)

    def get(self, path: str, client: BrokerClient) -> Any:  # noqa: ANN401  JSON
        """The answer of a path, at most `ASK_S` old where the broker can be reached.

        Raises:
            IriaiError: There never was an answer.
        """
        with self._lock:
            known = self._known.setdefault(path, _Known())
            now_ms = self.clock.now_ms()
            if now_ms - max(known.tried_ms, self._away_ms) >= ASK_S * 1000:
                self._ask(known, path, client, now_ms)
        if known.at_ms is None:
            raise known.error or PeerUnreachableError(
                need="an answer of the broker",
                found="none a moment ago; it is asked again soon",
                remedy="check the network; iriai-node doctor",
            )
        return copy.deepcopy(known.value)

    def _ask(self, known: _Known, path: str, client: BrokerClient, now_ms: int) -> None:
        known.tried_ms = now_ms
        try:
            known.value, known.at_ms, known.error = client.get(path), now_ms, None
        except IriaiError as error:
            known.error = error
            if isinstance(error, PeerUnreachableError):
                self._away_ms = now_ms

    def moment(self, path: str) -> Moment | None:
        """When the broker said so last; None where it never did."""
        known = self._known.get(path)
        return None if known is None or known.at_ms is None else Moment(known.at_ms, fresh_s=FRESH_S)

    def error(self, path: str) -> IriaiError | None:
        """Why there is no newer answer; None where there is."""
        known = self._known.get(path)
        return None if known is None else known.error

    def forget(self) -> None:
        """After a change: everything is asked anew."""
        with self._lock:
            self._known.clear()
            self._away_ms = -(10**15)


class _Remembering:
    """The way to the broker as pages use it: what is read is kept, what is written is not done here."""

    def __init__(self, client: BrokerClient, heard: Heard) -> None:
        self._client, self._heard = client, heard

    def get(self, path: str) -> Any:  # noqa: ANN401  JSON
        return self._heard.get(path, self._client)

    def get_bytes(self, path: str) -> bytes:
        return self._client.get_bytes(path)

    @property
    def url(self) -> str:
        return self._client.url

    def close(self) -> None:
        self._client.close()


class Site:
    """This node, as one page reads it; close it, or use it as a context manager."""

    def __init__(
        self,
        home: Home,
        heard: Heard,
        *,
        clock: Clock,
        entropy: Entropy,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self.home, self.heard, self.clock, self.entropy = home, heard, clock, entropy
        self.transport = transport
        self._opened: list[Any] = []
        self._found: dict[str, Any] = {}

    def once(self, name: str, make: Callable[[], Any]) -> Any:  # noqa: ANN401  whatever it makes
        """What several panels of one page show, made once."""
        if name not in self._found:
            self._found[name] = make()
        return self._found[name]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in reversed(self._opened):
            one.close()

    @cached_property
    def identity(self) -> NodeIdentity:
        """The node's keys and ids."""
        return load_identity(self.home.need())

    @cached_property
    def member(self) -> Member:
        """The node as a member; its client keeps what it reads."""
        found = open_member(
            self.home.need(), clock=self.clock, entropy=self.entropy, transport=self.transport
        )
        client: Any = _Remembering(found.client.within(WAIT_S), self.heard)
        self._opened.append(client)
        return dataclasses.replace(found, client=client)

    @cached_property
    def shelf(self) -> ContractShelf:
        """Contracts of this node."""
        from client.contract.shelf import ContractShelf

        return ContractShelf(self.home, own_key=self.identity.key.public)

    @cached_property
    def outbox(self) -> ReadingOutbox:
        """What left.

        Raises:
            NotJoinedError: Nothing can have left yet.
        """
        origin = self.member.broker.origin
        if not self.home.outbox.exists():
            made = Outbox.of(self.home, self.identity, origin=origin, clock=self.clock, entropy=self.entropy)
            made.close()
        found = ReadingOutbox(self.home, self.identity, origin=origin, clock=self.clock, entropy=self.entropy)
        self._opened.append(found)
        return found
