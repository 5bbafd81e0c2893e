# SPDX-License-Identifier: Apache-2.0
"""The OPC UA server's connections: who has no session yet holds little, and not for long.

asyncua closes a connection that activates no session in time, and counts all alike. Here, as for the other
door (`client.deploy.connections`): at most `SERVE_STRANGERS` without an active session, one more closes the
oldest of them and none that has one; bytes that are no whole message yet are bounded.
"""

from __future__ import annotations

from typing import Any

from asyncua.common.connection import TransportLimits
from asyncua.server.binary_server_asyncio import BinaryServer, OPCUAProtocol
from asyncua.server.server import Server

from policies.limits import (
    SERVE_CONNECTIONS,
    SERVE_HELLO_S,
    SERVE_OPCUA_CHUNK_BYTES,
    SERVE_OPCUA_CHUNKS,
    SERVE_STRANGERS,
)

__all__ = ["GuardedServer"]

_SUBSCRIPTIONS = 64


class _Connection(OPCUAProtocol):
    """One connection; see the module."""

    def is_stranger(self) -> bool:
        """Whether nobody proved anything on it."""
        session = None if self.processor is None else self.processor.session
        return session is None or not session.is_activated()

    def connection_made(self, transport: Any) -> None:  # noqa: ANN401  asyncio's, as the library types it
        """It came; the oldest stranger makes room."""
        strangers = [one for one in self.clients if isinstance(one, _Connection) and one.is_stranger()]
        for one in strangers[: max(0, len(strangers) - SERVE_STRANGERS + 1)]:
            one.drop()
        super().connection_made(transport)

    def data_received(self, data: bytes) -> None:
        """Bytes of it; what is left of them is part of one message."""
        super().data_received(data)
        if len(self._buffer) > SERVE_OPCUA_CHUNK_BYTES:
            self.drop()

    def drop(self) -> None:
        """Closes it at once."""
        if self in self.clients:  # the library takes it out later, when the loop comes to it
            self.clients.remove(self)
        self._buffer = b""
        if self.transport is not None:
            self.transport.abort()


class _BinaryServer(BinaryServer):
    """Makes such connections."""

    def _make_protocol(self) -> OPCUAProtocol:
        return _Connection(
            iserver=self.iserver,
            policies=self._policies,
            clients=self.clients,
            closing_tasks=self.closing_tasks,
            limits=self.limits,
        )


class GuardedServer(Server):
    """asyncua's server with bounds for whoever proved nothing."""

    def __init__(self, *, user_manager: Any) -> None:  # noqa: ANN401  the library's protocol
        super().__init__(user_manager=user_manager)
        self.iserver.max_connections = SERVE_CONNECTIONS
        self.iserver.max_pending_activation_seconds = float(SERVE_HELLO_S)
        self.iserver.max_subscriptions = _SUBSCRIPTIONS
        self.limits = TransportLimits(
            max_recv_buffer=SERVE_OPCUA_CHUNK_BYTES,
            max_send_buffer=SERVE_OPCUA_CHUNK_BYTES,
            max_chunk_count=SERVE_OPCUA_CHUNKS,
            max_message_size=SERVE_OPCUA_CHUNKS * SERVE_OPCUA_CHUNK_BYTES,
        )

    async def start(self) -> None:
        """Starts it, as the library does, with our connections.

        Raises:
            OSError: The address is taken.
        """
        await self._setup_server_nodes()
        await self.iserver.start()
        try:
            host, port = self._get_bind_socket_info()
            self.bserver = _BinaryServer(self.iserver, host or "", port or 0, self.limits)
            self.bserver.set_policies(self._policies)
            await self.bserver.start()
        except BaseException:
            await self.iserver.stop()
            raise
