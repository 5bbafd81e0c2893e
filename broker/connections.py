# SPDX-License-Identifier: Apache-2.0
"""Connections of the public port: what one may send, how long it may keep us waiting, and who is let in.

uvicorn bounds neither a request's head nor the time it takes. Here, in the order in which a connection lives:

1. It is closed at once if its address opened too many in the last seconds (`CONNECTS_PER_S`): handshakes
   that are begun, or finished and left, cost us more than whoever does it. Else it is accepted if there is a
   place for it (`broker.places`), or closed.
2. TLS is agreed on within `head_s`.
3. Line and headers of its first request are whole within `head_s` after that; those of a later one within
   `head_s` of their first byte. Together they have at most `head_bytes`, trailers counted: more is answered
   431 and closed. Between two requests uvicorn waits for its own keep-alive time.
4. A body is whole within `body_s`; routes that read one are stricter. An answer that came before the body was
   whole leaves `head_s` for the rest.
5. While a request is answered nothing is expected of it, however long that takes: long polls are not cut. An
   answer of which nothing is taken for `stall_s` ends the connection.
6. At most `_PIPELINED` further requests may wait behind the one that is answered; clients of today send none.

Its requests carry what is known of it (`broker.admission.Line`), which goes with it.

Nobody's word is taken for where a connection comes from: headers of proxies mean nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Final

import uvicorn
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker.admission import LINE, Line
from broker.places import Bounds, Places, address_of
from broker.rates import Buckets, Rate

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Connection", "Server"]

_PIPELINED: Final = 8
_LINGER_S: Final = 1.0  # in which the answer 431 may be taken
_ACCEPT_AGAIN_S: Final = 0.1  # after the system had no descriptor, or the caller was gone
_BODY: Final = b"the head of this request is too large\n"
_TOO_LARGE: Final = (
    b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-type: text/plain; charset=utf-8\r\n"
    b"content-length: %d\r\nconnection: close\r\n\r\n%b" % (len(_BODY), _BODY)
)


class Connection(HttpToolsProtocol):
    """One connection, from its socket on; see the module. It is a `broker.places.Guest`."""

    def __init__(
        self,
        sock: socket.socket,
        *,
        address: str,
        places: Places,
        bounds: Bounds,
        **own: Any,  # noqa: ANN401  uvicorn's
    ) -> None:
        super().__init__(**own)
        self.address = address
        self._sock = sock
        self._places = places
        self._bounds = bounds
        self._in_head, self._begun, self._whole = True, True, 0  # of requests; the first is awaited already
        self._head = self._named = 0  # bytes of a head: as they came, and as they were read
        self._refused = self.greeted = False
        self._line = Line()
        self._expected: tuple[str, int] | None = None
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None

    def drop(self) -> None:
        """Closes it at once."""
        self._stop_timers()
        self._places.leave(self)
        if self.greeted:
            self.transport.abort()
        else:  # TLS is not agreed on: that fails now, and `Server` hears it
            with contextlib.suppress(OSError):
                self._sock.shutdown(socket.SHUT_RDWR)

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """TLS is agreed on; the first request is expected."""
        super().connection_made(transport)
        self.greeted = True
        self._expect("head")

    def connection_lost(self, exc: Exception | None) -> None:
        """It went."""
        self._stop_timers()
        self._places.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Bytes of it; all are counted that the parser keeps: of a head, of trailers, between chunks."""
        if self.transport.is_closing():
            return
        self._head += len(data)
        super().data_received(data)
        if self.transport.is_closing():
            return
        if self._refused or self._head > self._bounds.head_bytes:
            self._refuse()
        else:
            self._settle()

    def _settle(self) -> None:
        """What is expected of it now; what was expected already keeps its deadline."""
        answering = self.cycle is not None and not self.cycle.response_complete
        if not self._in_head:
            self._expect("body" if answering else "rest of a body")
        else:
            self._expect("head" if not answering and (self._begun or self._head) else None)
        if self._in_head and answering:
            self._places.served(self)
        elif self._whole or not self._in_head:
            self._places.owes(self)

    def _expect(self, what: str | None) -> None:
        expected = None if what is None else (what, self._whole)
        if expected == self._expected:
            return
        self._expected = expected
        if self._deadline is not None:
            self._deadline.cancel()
        self._deadline = None
        if what is not None:
            seconds = self._bounds.body_s if what == "body" else self._bounds.head_s
            self._deadline = self.loop.call_later(seconds, self.drop)

    def _refuse(self) -> None:
        """Says that a head is too large, where no other answer is under way, and closes."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.drop()
            return
        self._stop_timers()
        self.transport.write(_TOO_LARGE)
        self.transport.close()
        self._deadline = self.loop.call_later(_LINGER_S, self.drop)

    def _stop_timers(self) -> None:
        for one in (self._deadline, self._stall):
            if one is not None:
                one.cancel()
        self._deadline = self._stall = None

    # what the parser found

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begun, self._named = True, 0
        self.scope[LINE] = self._line  # type: ignore[typeddict-unknown-key]

    def on_url(self, url: bytes) -> None:
        """A part of its path."""
        self._name(len(url))
        if not self._refused:
            super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header, or a trailer: both count, and trailers go nowhere."""
        self._name(len(name) + len(value) + 4)
        if self._in_head and not self._refused:
            super().on_header(name, value)

    def _name(self, size: int) -> None:
        self._named += size
        self._refused = self._refused or self._named > self._bounds.head_bytes

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._in_head, self._begun, self._head = False, False, 0
        if len(self.pipeline) >= _PIPELINED:
            self._refused = True
        if not self._refused:
            super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        """Bytes of the body; those behind a head that was refused go nowhere."""
        self._head = 0
        if not self._refused:
            super().on_body(body)

    def on_message_complete(self) -> None:
        """The request is whole; the next head counts from here."""
        self._in_head, self._whole, self._head = True, self._whole + 1, 0
        if not self._refused:
            super().on_message_complete()

    # what happens to answers

    def on_response_complete(self) -> None:
        """It was answered; what it still sends of that request's body is awaited for a moment."""
        super().on_response_complete()
        if not self.transport.is_closing():
            self._settle()

    def pause_writing(self) -> None:
        """It takes less than we write."""
        super().pause_writing()
        self._look(None)

    def resume_writing(self) -> None:
        """It took what we wrote."""
        super().resume_writing()
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _look(self, before: int | None) -> None:
        left = self.transport.get_write_buffer_size()
        if before is not None and left >= before:
            self.drop()
        else:
            self._stall = self.loop.call_later(self._bounds.stall_s, self._look, left)


def _worth_telling(record: logging.LogRecord) -> bool:
    """False for "Cancel 0 running task(s)": a stop at which callers stayed, and none was being answered."""
    return not (str(record.msg).startswith("Cancel %s running task") and record.args == (0,))


class _LoopTime:
    """Time of the event loop, which nobody sets back."""

    def now_ms(self) -> int:
        return int(asyncio.get_running_loop().time() * 1_000)


class Server(uvicorn.Server):
    """uvicorn, which lets in by `Places` and lets nobody wait for held requests when it is told to stop.

    Args:
        config: Of uvicorn; its protocol class is not used.
        listener: Bound, and listening.
        ready: Called once connections are accepted.
        leaving: Called once it is told to stop.
        bounds: Of connections.
    """

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        *,
        ready: Callable[[], None],
        leaving: Callable[[], None],
        bounds: Bounds | None = None,
    ) -> None:
        super().__init__(config)
        logging.getLogger("uvicorn.error").addFilter(_worth_telling)
        self._listener = listener
        self._ready, self._leaving = ready, leaving
        self._bounds = bounds or Bounds()
        self._places = Places(self._bounds)
        rate = Rate(per_s=self._bounds.connects_per_s, burst=self._bounds.connects)
        self._knocks = Buckets(rate, _LoopTime())
        self._door: asyncio.Task[None] | None = None
        self._greeted: set[asyncio.Task[None]] = set()

    def handle_exit(self, sig: int, frame: Any) -> None:  # noqa: ANN401  a signal handler
        """A signal to stop."""
        self._leaving()
        super().handle_exit(sig, frame)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Starts the application, then lets in."""
        del sockets
        await super().startup(sockets=[])
        if self.started:
            self._listener.setblocking(False)  # noqa: FBT003  the library's
            self._door = asyncio.create_task(self._let_in())
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Lets nobody in any more, then ends what is open."""
        del sockets
        if self._door is not None:
            self._door.cancel()
        for one in self._greeted:
            one.cancel()
        await super().shutdown(sockets=[self._listener])

    async def _let_in(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                sock, peer = await loop.sock_accept(self._listener)
            except OSError:  # no descriptor is left, or the caller is gone
                self._places.make_room()
                await asyncio.sleep(_ACCEPT_AGAIN_S)
                continue
            self._met(sock, address_of(peer[0]))
            await asyncio.sleep(0)  # others have a turn, however many knock

    def _met(self, sock: socket.socket, address: str) -> None:
        if self._knocks.take(address):
            sock.close()
            return
        guest = Connection(
            sock,
            address=address,
            places=self._places,
            bounds=self._bounds,
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )
        if not self._places.enter(guest):
            sock.close()
            return
        task = asyncio.create_task(self._greet(sock, guest))
        self._greeted.add(task)
        task.add_done_callback(self._greeted.discard)

    async def _greet(self, sock: socket.socket, guest: Connection) -> None:
        """Agrees on TLS; from then on the connection looks after its place itself."""
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await asyncio.get_running_loop().connect_accepted_socket(
                lambda: guest,
                sock,
                ssl=self.config.ssl,
                ssl_handshake_timeout=None if self.config.ssl is None else self._bounds.head_s,
            )
        except OSError:  # it went, took too long, or does not speak TLS
            pass
        finally:
            if not guest.greeted:
                self._places.leave(guest)
                sock.close()
