# SPDX-License-Identifier: Apache-2.0
"""Connections of the service: who proved nothing holds little, and not for long.

- A connection is a **stranger** until a request on it proved that it knows a token (`Connection.admitted`,
  called by `client.deploy.service`); a request that proves nothing is its last.
- At most `SERVE_STRANGERS` at a time: one more closes the oldest of them. A stranger is closed
  `SERVE_HELLO_S` after it came. **No stranger ever closes a connection that was admitted**: a controller that
  keeps its connection is not touched by who else knocks.
- At most `SERVE_CONNECTIONS` less the strangers' are admitted; one more closes the one that was idle longest.
- Line and headers of a request have at most `SERVE_HEAD_BYTES`, trailers counted; beyond it, it is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from policies.limits import SERVE_CONNECTIONS, SERVE_HEAD_BYTES, SERVE_HELLO_S, SERVE_STRANGERS

if TYPE_CHECKING:
    import asyncio

__all__ = ["Connection", "Doorway", "connection_type"]


class Doorway:
    """Connections in the order in which they came (strangers) or were last used (admitted)."""

    def __init__(self, *, strangers: int = SERVE_STRANGERS, connections: int = SERVE_CONNECTIONS) -> None:
        self._most_strangers, self._most_admitted = strangers, connections - strangers
        self._strangers: dict[Connection, None] = {}
        self._admitted: dict[Connection, None] = {}

    def came(self, one: Connection) -> None:
        """A stranger; the oldest makes room."""
        if len(self._strangers) >= self._most_strangers:
            next(iter(self._strangers)).drop()
        self._strangers[one] = None

    def admitted(self, one: Connection) -> None:
        """It proved that it knows a token, now or again; the one that was idle longest makes room."""
        self._strangers.pop(one, None)
        self._admitted.pop(one, None)
        if len(self._admitted) >= self._most_admitted:
            next(iter(self._admitted)).drop()
        self._admitted[one] = None

    def left(self, one: Connection) -> None:
        """It is closed."""
        self._strangers.pop(one, None)
        self._admitted.pop(one, None)


class Connection(HttpToolsProtocol):
    """One connection; see the module."""

    doorway: Doorway
    hello_s: float = SERVE_HELLO_S

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """It came."""
        super().connection_made(transport)
        self._head = 0
        self._deadline: asyncio.TimerHandle | None = self.loop.call_later(self.hello_s, self.drop)
        self.doorway.came(self)

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self._forget_deadline()
        self.doorway.left(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of it; all are counted that the parser keeps: of a head, of trailers, between chunks."""
        if self.transport.is_closing():
            return
        self._head += len(data)
        super().data_received(data)
        if self._head > SERVE_HEAD_BYTES:
            self.drop()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._named = 0
        self.scope["state"]["connection"] = self

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: both count."""
        self._named += len(name) + len(value) + 4
        if self._named <= SERVE_HEAD_BYTES:
            super().on_header(name, value)
        else:
            self.drop()

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._head = 0
        if self._named <= SERVE_HEAD_BYTES:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bytes of the body; those behind a head that was refused go nowhere."""
        self._head = 0
        if self.cycle is not None:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next head counts from here."""
        self._head = 0
        if self.cycle is not None:
            super().on_message_complete()

    def admitted(self) -> None:
        """The request that is answered proved that it knows a token."""
        self._forget_deadline()
        if not self.transport.is_closing():
            self.doorway.admitted(self)

    def drop(self) -> None:
        """Closes it at once."""
        self._forget_deadline()
        self.doorway.left(self)
        self.transport.abort()

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


def connection_type(doorway: Doorway, *, hello_s: float = SERVE_HELLO_S) -> type[Any]:
    """The protocol that uvicorn makes for each connection of one service."""
    return type("Connection", (Connection,), {"doorway": doorway, "hello_s": hello_s})
