# SPDX-License-Identifier: Apache-2.0
"""Head and body of an answer leave in one write; order and content are as before."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Any

import uvicorn

from broker.packets import Together


@dataclass
class Line:
    """A transport that remembers every write."""

    writes: list[bytes] = field(default_factory=list)
    closed: bool = False

    def write(self, data: bytes) -> None:
        if data:
            self.writes.append(bytes(data))

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def get_extra_info(self, _name: str) -> Any:
        return None


def _served(*pieces: bytes, turn: bool = False, close: bool = False) -> Line:
    """What an answer of these pieces writes; ``turn`` lets the loop turn between them."""

    async def app(_scope: Any, _receive: Any, send: Any) -> None:
        size = str(sum(map(len, pieces))).encode()
        headers = [(b"content-length", size)] + ([(b"connection", b"close")] if close else [])
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for at, piece in enumerate(pieces):
            if turn:
                await asyncio.sleep(0)
            await send({"type": "http.response.body", "body": piece, "more_body": at + 1 < len(pieces)})

    async def serve() -> Line:
        line = Line()
        config = uvicorn.Config(
            app, lifespan="off", ws="none", http=Together, date_header=False, server_header=False
        )
        config.load()
        server = uvicorn.Server(config)
        protocol = Together(config=config, server_state=server.server_state, app_state={})
        protocol.connection_made(line)  # type: ignore[arg-type]
        protocol.data_received(b"GET / HTTP/1.1\r\nhost: sim\r\n\r\n")
        await asyncio.gather(*server.server_state.tasks)
        await asyncio.sleep(0)
        protocol.connection_lost(None)
        return line

    return asyncio.run(serve())


def test_a_small_answer_is_one_write() -> None:
    line = _served(b"body")
    assert len(line.writes) == 1
    assert line.writes[0].endswith(b"\r\n\r\nbody")


def test_nothing_is_held_when_the_loop_turns_or_the_connection_closes() -> None:
    assert [one[-4:] for one in _served(b"1234", b"5678", turn=True).writes] == [
        b"\r\n\r\n",
        b"1234",
        b"5678",
    ]
    line = _served(b"body", close=True)
    assert line.writes[-1].endswith(b"body")
    assert line.closed


def test_a_large_body_follows_its_head_uncopied() -> None:
    body = bytes(1_000_000)
    line = _served(body)
    assert len(line.writes) == 2
    assert line.writes[1] == body
    assert b"".join(_served(b"a" * 10, b"b" * 200_000).writes).endswith(b"a" * 10 + b"b" * 200_000)
