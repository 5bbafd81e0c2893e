# SPDX-License-Identifier: Apache-2.0
"""A real broker for a real node, in one process: the node's synchronous client over the broker's ASGI application."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import httpx

from tests import documented
from tests.brokersim import House, open_house

T = TypeVar("T")


class Bridge(httpx.BaseTransport):
    """Carries each request into the event loop in which the broker lives."""

    def __init__(self, street: Street) -> None:
        self._street = street

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return self._street.run(self._send(request))

    async def _send(self, request: httpx.Request) -> httpx.Response:
        copied = httpx.Request(request.method, request.url, headers=request.headers, content=request.read())
        inner = httpx.ASGITransport(app=self._street.house.port, raise_app_exceptions=False)
        answer = await inner.handle_async_request(copied)
        content = await answer.aread()
        documented.hold(copied, answer, content)
        return httpx.Response(answer.status_code, headers=answer.headers, content=content)


class Street:
    """The loop with the broker's house in it."""

    def __init__(self, folder: Path) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        self._open = open_house(folder)
        self.house: House = self.run(self._open.__aenter__())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(30)

    @property
    def transport(self) -> Bridge:
        return Bridge(self)

    def close(self) -> None:
        self.run(self._open.__aexit__(None, None, None))
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()


@contextmanager
def open_street(folder: Path) -> Iterator[Street]:
    street = Street(folder)
    try:
        yield street
    finally:
        street.close()
