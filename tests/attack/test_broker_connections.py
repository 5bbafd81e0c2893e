# SPDX-License-Identifier: Apache-2.0
"""Whoever is not let in yet tries to use up the public port: heads without end, silence, many connections."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import logging
import ssl
import weakref
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import pytest
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from broker.admission import LINE
from broker.connections import Server
from broker.console import forms
from broker.entropy import SystemEntropy
from broker.places import Bounds, Places, address_of
from broker.serving import configured, listen
from broker.tls import make_certificate
from policies.limits import CONNECTIONS, CONNECTIONS_PER_ADDRESS, FLEET_WORKING, HEAD_BYTES, SECAGG_PARTIES
from tests.brokersim import HandClock, open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


pytestmark = pytest.mark.enable_socket
LONG = 3_600
SHORT = 0.05
READ = 256 * 1024  # bytes that the loop takes from a socket at once
ASK = b"GET /ok HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """The loop that a broker runs on."""
    return "asyncio", {"use_uvloop": True}


@dataclass
class Line:
    """One raw connection over TLS."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def rest(self) -> bytes:
        """All that comes until it is closed."""
        heard = b""
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            while more := await self.reader.read(65_536):
                heard += more
        return heard

    async def answer(self) -> tuple[int, bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().lower()
        size = int(head.partition("content-length: ")[2].partition("\r")[0])
        return int(head.split()[1]), await self.reader.readexactly(size)

    async def ask(self) -> int:
        self.send(ASK)
        return (await self.answer())[0]


@dataclass
class Port:
    """A listener with its application: ``/held`` is answered once `release` is set."""

    number: int = 0
    asked: list[str] = field(default_factory=list)
    clients: list[str] = field(default_factory=list)
    known: list[Any] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)
    release: asyncio.Event = field(default_factory=asyncio.Event)
    lines: list[asyncio.StreamWriter] = field(default_factory=list)
    inner: Any = None
    server: Any = None

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        if self.inner is not None:
            self.came.set()
            await self.inner(scope, receive, send)
            return
        self.asked.append(scope["path"])
        self.clients.append(scope["client"][0])
        self.known.append(scope[LINE])
        if scope["path"] == "/held":
            self.came.set()
            await self.release.wait()
        size = 1_000_000 if scope["path"] == "/large" else 2
        length = [(b"content-length", str(size * 100 if size > 2 else size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": length})
        for left in reversed(range(100 if size > 2 else 1)):
            await send({"type": "http.response.body", "body": b"o" * size, "more_body": left > 0})

    async def line(self, address: str = "127.0.0.1", *, tls: bool = True) -> Line:
        context = ssl.create_default_context() if tls else None
        if context is not None:
            context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.number, ssl=context, local_addr=(address, 0), limit=2**20
        )
        self.lines.append(writer)
        return Line(reader, writer)


@contextlib.asynccontextmanager
async def port(folder: Path, inner: Any = None, **bounds: Any) -> AsyncIterator[Port]:
    made = Port(inner=inner)
    material = make_certificate("https://127.0.0.1:7443", clock=HandClock(), entropy=SystemEntropy())
    (folder / "tls.pem").write_bytes(material.chain_pem)
    (folder / "tls.key").write_bytes(material.key_pem)
    config = configured(made, certificate=folder / "tls.pem", key=folder / "tls.key")
    up = asyncio.Event()
    wide = {"head_s": LONG, "body_s": LONG, "stall_s": LONG}
    with listen("127.0.0.1", 0) as listener:
        made.number = listener.getsockname()[1]
        server = Server(config, listener, ready=up.set, leaving=lambda: None, bounds=Bounds(**wide | bounds))
        made.server = server
        task = asyncio.create_task(server.serve())
        await up.wait()
        try:
            yield made
        finally:
            made.release.set()
            for one in made.lines:
                one.transport.abort()
            server.should_exit = server.force_exit = True
            await task


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Sizes of what reached the parser, which holds what it was given of a head."""
    sizes: list[int] = []
    plain = HttpToolsProtocol.data_received

    def counted(self: HttpToolsProtocol, data: bytes) -> None:
        sizes.append(len(data))
        plain(self, data)

    monkeypatch.setattr(HttpToolsProtocol, "data_received", counted)
    return sizes


@pytest.mark.parametrize(
    "start",
    [
        b"GET /ok HTTP/1.1\r\nX: ",
        b"GET /",
        b"GET /ok HTTP/1.1\r\nX",
        b"POST /held HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
    ],
    ids=["header", "path", "name", "trailer"],
)
async def test_a_head_without_end_is_not_taken_without_end(tmp_path, parsed, start):
    async with port(tmp_path) as made:
        other, one = await made.line(), await made.line()
        one.send(start)
        with contextlib.suppress(ConnectionError, ssl.SSLError):
            for _ in range(64):
                one.send(b"a" * 2**20)
                await one.writer.drain()
                assert await other.ask() == 200  # meanwhile
        await one.rest()
        assert sum(parsed) - len(parsed) * len(ASK) <= HEAD_BYTES + READ


async def test_a_head_that_is_too_large_is_told_so(tmp_path):
    async with port(tmp_path) as made:
        for much in (b"X: " + b"a" * HEAD_BYTES, b"X: aaaaaaaaaaaa\r\n" * (HEAD_BYTES // 8)):
            one = await made.line()
            one.send(b"GET /ok HTTP/1.1\r\n" + much)
            assert (await one.rest()).startswith(b"HTTP/1.1 431 ")
        assert made.asked == []
        fits = await made.line()
        fits.send(b"GET /ok HTTP/1.1\r\nX: " + b"a" * (HEAD_BYTES - 100) + b"\r\n\r\n")
        assert (await fits.answer())[0] == 200


async def test_a_whole_head_that_is_too_large_reaches_no_route_nor_does_what_follows_it(tmp_path):
    async with port(tmp_path) as made:
        one = await made.line()
        one.send(b"POST /ok HTTP/1.1\r\nX: " + b"a" * HEAD_BYTES + b"\r\nContent-Length: 2\r\n\r\nok" + ASK)
        assert (await one.rest()).startswith(b"HTTP/1.1 431 ")
        assert made.asked == []


@pytest.mark.parametrize(
    ("before", "said"),
    [
        (0, b""),
        (0, b"GET /ok HTTP/1.1\r\nX: "),
        (0, b"\r\n"),
        (1, b"GET /ok"),
        (1, b"\r\n"),
        (0, ASK + b"GET"),
    ],
    ids=["silent", "head", "line break", "second head", "second line break", "with the first"],
)
async def test_a_head_that_does_not_come_is_not_waited_for(tmp_path, before, said):
    async with port(tmp_path, head_s=SHORT) as made:
        one = await made.line()
        for _ in range(before):
            assert await one.ask() == 200
        one.send(said)
        assert (await one.rest()).count(b"HTTP/1.1 200") == said.count(ASK)


async def test_drops_of_a_head_give_it_no_more_time(tmp_path):
    async with port(tmp_path, head_s=SHORT) as made:
        one = await made.line()
        one.send(b"GET /ok HTTP/1.1\r\nX: ")
        ended = asyncio.create_task(one.rest())
        while not ended.done():
            one.send(b"a")
            await asyncio.sleep(0)
        assert made.asked == []


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01"], ids=["silent", "begun"])
async def test_a_handshake_that_does_not_come_is_not_waited_for(tmp_path, said):
    async with port(tmp_path, head_s=SHORT) as made:
        one = await made.line(tls=False)
        one.send(said)
        assert await one.rest() == b""


async def test_what_is_known_of_a_connection_is_its_own_and_goes_with_it(tmp_path):
    async with port(tmp_path) as made:
        one, other = await made.line(), await made.line()
        for line in (one, other, one):
            assert await line.ask() == 200
        first, second, again = made.known
        assert first is again
        assert first is not second
        assert (first.who, first.served) == ("", False)
        gone = weakref.ref(first)
        made.known.clear()
        one.writer.transport.abort()
        del first, again
        while gone() is not None:
            gc.collect()
            await asyncio.sleep(0)


async def test_who_is_answered_is_not_cut_however_long_it_takes(tmp_path):
    async with port(tmp_path, head_s=SHORT, body_s=SHORT) as made:
        held = await made.line()
        held.send(b"POST /held HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\nok\r\n")
        await made.came.wait()
        silent = [await made.line() for _ in range(3)]
        for one in silent:  # their deadlines, all later than any of the held one, have passed
            await one.rest()
        made.release.set()
        assert (await held.answer())[0] == 200


@pytest.mark.parametrize("bound", ["body_s", "head_s"])
async def test_a_body_that_no_route_reads_is_not_waited_for(tmp_path, bound):
    path = b"/held" if bound == "body_s" else b"/ok"
    async with port(tmp_path, **{bound: SHORT * 4}) as made:
        one = await made.line()
        one.send(b"POST " + path + b" HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\na")
        assert (b"200 OK" in await one.rest()) == (path == b"/ok")


async def test_who_takes_nothing_of_an_answer_is_left(tmp_path):
    async with port(tmp_path, stall_s=SHORT) as made:
        one = await made.line()
        one.writer.transport.pause_reading()  # type: ignore[attr-defined]
        one.send(b"GET /large HTTP/1.1\r\nHost: x\r\n\r\n")
        while made.asked == []:
            assert await (await made.line()).ask() == 200
        await asyncio.sleep(SHORT * 6)
        one.writer.transport.resume_reading()  # type: ignore[attr-defined]
        assert len(await one.rest()) < 100_000_000


async def test_more_requests_at_once_than_anybody_sends_end_the_connection(tmp_path):
    async with port(tmp_path) as made:
        one = await made.line()
        one.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n" + 1_000 * ASK)
        await one.rest()
        assert made.asked in (["/held"], [])


async def test_an_address_that_has_all_its_places_gets_no_more_and_others_do(tmp_path):
    async with port(tmp_path, per_address=3) as made:
        for _ in range(3):
            one = await made.line()
            one.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            await made.came.wait()
            made.came.clear()
        with pytest.raises(OSError):  # refused before TLS, however the system says so
            await made.line()
        assert await (await made.line("127.0.0.2")).ask() == 200
        one.writer.transport.abort()
        with contextlib.suppress(OSError, ssl.SSLError):
            while await (await made.line()).ask() != 200:
                """Until the place is free."""


async def test_silence_of_others_takes_nobodys_place(tmp_path):
    async with port(tmp_path, connections=8, per_address=4) as made:
        held = await made.line()
        held.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await made.came.wait()
        silent = [await made.line(f"127.0.0.{2 + number % 4}", tls=False) for number in range(32)]
        assert await (await made.line()).ask() == 200
        for one in silent[:16]:
            assert await one.rest() == b""
        made.release.set()
        assert (await held.answer())[0] == 200


async def test_an_address_that_opens_connections_without_end_is_closed_out_and_others_are_not(tmp_path):
    async with port(tmp_path, connects=16, connects_per_s=1) as made:
        for _ in range(8):  # whole handshakes that nothing follows
            (await made.line()).writer.transport.abort()
        for _ in range(8):  # and begun ones
            (await made.line(tls=False)).send(b"\x16\x03\x01")
        for _ in range(4):  # no handshake any more, in whichever way the system says so
            with pytest.raises((OSError, ssl.SSLError)):
                await made.line()
        assert await (await made.line("127.0.0.2")).ask() == 200


async def test_thousands_of_handshakes_that_nobody_finishes_keep_nobody_out(tmp_path):
    begun = b"\x16\x03\x01\x02\x00\x01\x00"
    async with port(tmp_path, per_address=64, connections=128, connects=10_000) as made:
        held = await made.line("127.0.0.2")
        held.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
        await made.came.wait()
        for number in range(2_000):
            with contextlib.suppress(OSError):
                silent = await made.line(tls=False)
                silent.send(begun)
            if number % 400 == 0:
                assert await (await made.line("127.0.0.2")).ask() == 200
        assert len(made.server._places) <= 64 + 7
        assert (
            await (await made.line()).ask() == 200
        )  # also behind the same address: the oldest silent one went
        made.release.set()
        assert (await held.answer())[0] == 200


async def test_the_named_address_of_a_proxy_is_not_believed(tmp_path):
    async with port(tmp_path) as made:
        one = await made.line()
        words = b"X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.9\r\nX-Real-IP: 203.0.113.9\r\n"
        one.send(b"GET /ok HTTP/1.1\r\nHost: x\r\n" + words + b"\r\n")
        assert (await one.answer())[0] == 200
        assert made.clients == ["127.0.0.1"]


def form(size: int, body: bytes, path: str = "/console/login") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nSec-Fetch-Site: same-origin\r\nContent-Length: {size}\r\n\r\n"
    return head.encode() + body


async def test_a_form_that_does_not_arrive_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(forms, "BODY_READ_S", SHORT)
    async with open_house(tmp_path / "broker") as house, port(tmp_path, house.port, head_s=1) as made:
        one = await made.line()
        one.send(form(1000, b"a"))
        heard = await one.rest()
        assert heard.startswith(b"HTTP/1.1 408 ")
        assert b"request.body-too-slow" in heard


@pytest.mark.parametrize("path", ["/console/login", "/api/v1/operator/invites", "/v1/fleet/pull-messages"])
async def test_who_leaves_within_a_body_leaves_nothing_in_the_process_log(tmp_path, caplog, path):
    caplog.set_level(logging.INFO)
    async with open_house(tmp_path / "broker") as house, port(tmp_path, house.port) as made:
        one = await made.line()
        one.send(form(1000, b"a", path))
        await made.came.wait()
        one.writer.transport.abort()
        other = await made.line()
        other.send(b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        assert json.loads((await other.rest()).split(b"\r\n\r\n")[1])
    assert not [one for one in caplog.records if one.exc_info or one.levelno >= logging.WARNING]


class Knock:
    """A connection in no network."""

    def __init__(self, address: str) -> None:
        self.address, self.dropped = address, False

    def drop(self) -> None:
        self.dropped = True


def test_new_ones_go_before_those_that_owe_and_nobody_who_is_served_goes():
    places = Places(Bounds(connections=3, per_address=3))
    served, owing, new, late, last = (Knock(str(number)) for number in range(5))
    for one in (served, owing, new):
        assert places.enter(one)
    places.served(served)
    places.owes(owing)
    assert places.enter(late)
    assert (served.dropped, owing.dropped, new.dropped) == (False, False, True)
    places.served(late)
    assert places.enter(last)
    assert owing.dropped
    places.served(last)
    assert not places.enter(Knock("more"))
    places.leave(late)
    places.leave(late)
    assert len(places) == 2
    assert places.enter(Knock("more"))


def test_a_full_address_makes_room_among_its_own_only():
    places = Places(Bounds(connections=9, per_address=2))
    other, first, second, third = Knock("b"), Knock("a"), Knock("a"), Knock("a")
    assert all(places.enter(one) for one in (other, first, second, third))
    assert (other.dropped, first.dropped, second.dropped) == (False, True, False)
    places.served(second)
    places.served(third)
    assert not places.enter(Knock("a"))
    assert places.enter(Knock("b"))


def test_who_has_one_address_of_an_ipv6_network_has_all_of_them():
    assert address_of("2001:db8::1") == address_of("2001:db8::ffff:2") != address_of("2001:db8:0:1::1")
    assert address_of("::ffff:192.0.2.1") == address_of("192.0.2.1") != address_of("192.0.2.2")
    assert address_of("fe80::1%eth0") == address_of("fe80::2")


def test_all_parties_of_the_largest_pool_fit_even_behind_one_address():
    own = 4  # a node's poll and command, its witness, a person who looks
    assert SECAGG_PARTIES * (FLEET_WORKING + own) <= CONNECTIONS_PER_ADDRESS <= CONNECTIONS // 2


@pytest.mark.parametrize("held", [False, True])
async def test_a_stop_tells_how_many_it_cut_off_and_nothing_where_it_cut_off_nobody(tmp_path, caplog, held):
    told = logging.getLogger("uvicorn.error")
    async with port(tmp_path) as made:
        line = await made.line()
        if held:
            line.send(b"GET /held HTTP/1.1\r\nHost: x\r\n\r\n")
            await made.came.wait()
        made.server.config.timeout_graceful_shutdown = 0
        made.server.force_exit = True
        told.addHandler(caplog.handler)
        try:
            await made.server.shutdown()
        finally:
            told.removeHandler(caplog.handler)
    assert ["running task" in one.getMessage() for one in caplog.records] == [True] * held
