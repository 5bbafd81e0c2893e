# SPDX-License-Identifier: Apache-2.0
"""Head and body of an answer leave together.

uvicorn writes them one after the other: two TLS records, two packets, two wake-ups of whoever waits. Here
what is written within one turn of the loop leaves at once, in its order. A large body is not copied for it.

    uvicorn.Config(app, http=Together)
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["Together"]

_COPIED_BYTES: Final = 64 * 1024


class _Transport:
    """A transport that holds a small piece until the next one, or until the loop turns."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._held = b""

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401  whatever else a transport has
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        """Sends what is held with this, or holds this."""
        held, self._held = self._held, b""
        if held and len(data) <= _COPIED_BYTES:
            self._transport.write(held + data)
        elif held or len(data) > _COPIED_BYTES:
            self._transport.write(held)
            self._transport.write(data)
        else:
            self._held = data
            asyncio.get_running_loop().call_soon(self._flush)

    def close(self) -> None:
        """Sends what is held and closes."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        held, self._held = self._held, b""
        if held:
            self._transport.write(held)


class Together(HttpToolsProtocol):
    """uvicorn's protocol over such a transport."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Takes a new connection."""
        held: Any = _Transport(transport)  # it has all of a transport that uvicorn uses
        super().connection_made(held)
