# SPDX-License-Identifier: Apache-2.0
"""Another account of this machine holds connections, floods heads, or takes the port of a dead service."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from collections.abc import AsyncIterator
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
import uvicorn

from client.deploy.connections import Doorway, connection_type
from client.deploy.running import listen
from client.deploy.service import Service
from client.deploy.token import PROOF, Tokens, proves, signed
from policies.limits import SERVE_CONNECTIONS, SERVE_HEAD_BYTES, SERVE_STRANGERS
from sandbox.errors import CommandError
from sandbox.loop import Door
from tests.servesim import MovedClock, SaidModel, TimedServing, question, tick_ns

pytestmark = pytest.mark.enable_socket
TOKENS = Tokens(cell="c" * 43, owner="o" * 43)
NONCE = "n" * 22


class Line:
    """One raw connection to the service."""

    def __init__(self, port: int, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.port, self.reader, self.writer = port, reader, writer

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    async def is_closed(self) -> bool:
        """Waits until the service closes it."""
        with contextlib.suppress(ConnectionError):
            while await self.reader.read(65_536):
                pass
        return True

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        headers = dict(one.lower().split(": ", 1) for one in head[1:] if one)
        body = await self.reader.readexactly(int(headers["content-length"]))
        return int(head[0].split()[1]), headers, body

    async def infer(self, tick: int, *, token: str = TOKENS.cell) -> int:
        """Asks, and gives the status of an answer that proved itself."""
        one = question(tick)
        told = {"observation": one.observation.tolist(), "stamp_ns": one.stamp_ns, "seq": one.seq}
        body = json.dumps(told).encode()
        words = signed(token, "POST", "/v1/infer", body, nonce=NONCE)
        head = f"POST /v1/infer HTTP/1.1\r\nHost: 127.0.0.1:{self.port}\r\nAuthorization: {words}\r\n"
        self.send(head.encode() + f"Content-Length: {len(body)}\r\n\r\n".encode() + body)
        status, headers, text = await self.answer()
        assert proves(token, NONCE, status, text, given=headers.get(PROOF, "")) == (token == TOKENS.cell)
        return status


class House:
    """A service on a port, with its clock."""

    def __init__(self, port: int) -> None:
        self.port, self.clock, self.model = port, MovedClock(tick_ns(0)), SaidModel()
        self.serving = TimedServing(self.model, clock=self.clock)
        self.lines: list[Line] = []

    async def line(self) -> Line:
        self.lines.append(Line(self.port, *await asyncio.open_connection("127.0.0.1", self.port)))
        return self.lines[-1]

    def tick(self, tick: int) -> int:
        self.clock.ns = tick_ns(tick)
        return tick


@contextlib.asynccontextmanager
async def house(*, hello_s: float = 3_600) -> AsyncIterator[House]:
    with listen("127.0.0.1", 0) as listener:
        made = House(listener.getsockname()[1])
        server = uvicorn.Server(
            uvicorn.Config(
                Service(made.serving, TOKENS, port=made.port),
                http=connection_type(Doorway(), hello_s=hello_s),
                lifespan="off",
                ws="none",
                log_level="critical",
            )
        )
        task = asyncio.create_task(server.serve(sockets=[listener]))
        try:
            yield made
        finally:
            for one in made.lines:
                one.writer.transport.abort()
            server.should_exit = server.force_exit = True
            await task


async def test_idle_connections_of_a_stranger_never_touch_the_controllers():
    async with house() as made:
        controller = await made.line()
        assert await controller.infer(made.tick(0)) == 200
        idle = [await made.line() for _ in range(3 * SERVE_CONNECTIONS)]
        assert await controller.infer(made.tick(1)) == 200
        assert await (await made.line()).infer(made.tick(2)) == 200  # and a new one finds room
        for one in idle[: 2 * SERVE_CONNECTIONS]:
            assert await one.is_closed()


async def test_strangers_that_send_half_a_head_are_closed_like_those_that_send_nothing():
    async with house() as made:
        slow = [await made.line() for _ in range(SERVE_STRANGERS)]
        for one in slow:
            one.send(b"POST /v1/infer HTTP/1.1\r\nHost: ")
        assert await (await made.line()).infer(made.tick(0)) == 200
        assert await slow[0].is_closed()


async def test_who_proves_nothing_in_time_is_closed():
    async with house(hello_s=0.02) as made:
        controller = await made.line()
        assert await controller.infer(made.tick(0)) == 200
        idle = await made.line()
        assert await idle.is_closed()
        assert await controller.infer(made.tick(1)) == 200


async def test_a_request_that_proves_nothing_is_the_last_of_its_connection():
    async with house() as made:
        one = await made.line()
        assert await one.infer(made.tick(0), token="x" * 43) == 401
        assert await one.is_closed()
        assert not made.model.asked


@pytest.mark.parametrize(
    "start",
    [
        b"GET /v1/status HTTP/1.1\r\nX: ",
        b"GET /",
        b"POST /v1/infer HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\nX: ",
    ],
    ids=["header", "path", "trailer"],
)
async def test_a_head_without_end_is_not_read_without_end(start):
    async with house() as made:
        one = await made.line()
        one.send(start)
        with contextlib.suppress(ConnectionError):
            for _ in range(64):
                one.send(b"a" * SERVE_HEAD_BYTES)
                await one.writer.drain()
        assert await one.is_closed()
        assert await (await made.line()).infer(made.tick(0)) == 200


async def test_many_small_headers_are_one_large_head():
    async with house() as made:
        one = await made.line()
        one.send(b"GET /v1/status HTTP/1.1\r\n" + b"X: aaaaaaaaaaaa\r\n" * (SERVE_HEAD_BYTES // 8))
        assert await one.is_closed()


async def test_more_connections_of_the_controller_close_the_one_that_was_idle_longest():
    async with house() as made:
        lines = []
        for tick in range(SERVE_CONNECTIONS - SERVE_STRANGERS + 1):
            lines.append(await made.line())
            assert await lines[-1].infer(made.tick(tick)) == 200
        assert await lines[0].is_closed()
        assert await lines[1].infer(made.tick(tick + 1)) == 200


class Squatter(BaseHTTPRequestHandler):
    """Whoever took the port of a service that died: it answers what moves an arm."""

    heard: list[bytes]

    def do_POST(self) -> None:
        self.heard.append(self.rfile.read(int(self.headers["content-length"])))
        self.heard.append(str(self.headers).encode())
        body = b'{"action_chunk": [[9, 9, 9, 9]], "model": "", "flags": [], "state": "active", "cause": []}'
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.send_header(PROOF, "0" * 64)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


def test_whoever_takes_the_port_of_a_dead_service_learns_no_token_and_moves_nothing():
    heard: list[bytes] = []
    server = HTTPServer(("127.0.0.1", 0), type("One", (Squatter,), {"heard": heard}))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        door = Door(
            f"http://127.0.0.1:{server.server_port}", cell_token=TOKENS.cell, owner_token=TOKENS.owner
        )
        with contextlib.closing(door), pytest.raises(CommandError, match="another process"):
            door.infer(question(0).observation.astype("float32"))
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert heard
    assert not any(TOKENS.cell.encode() in one or TOKENS.owner.encode() in one for one in heard)
