# SPDX-License-Identifier: Apache-2.0
"""What the broker asks of the engine that reaches the nodes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Fleet", "NoFleet"]


class Fleet(Protocol):
    """What the composition asks of the engine besides exchanges (`broker.federation.engine`)."""

    endpoint: Any
    """ASGI callable that serves ``/v1/fleet/*``."""

    async def start(self) -> None:
        """Gets ready to serve; called once, on the event loop."""
        ...

    def drain(self) -> None:
        """Ends held requests, so that the server can stop at once."""
        ...

    async def stop(self) -> None:
        """Stops serving."""
        ...

    def enrol(self, node: str, fleet_key_pem: bytes, node_public_key: bytes) -> None:
        """Lets a node connect. Enrolling the same node again changes nothing."""
        ...

    def rekey(self, node: str, node_public_key: bytes) -> None:
        """Expects a node's replies under another key from now on."""
        ...

    def suspend(self, node: str) -> None:
        """Closes a node's connection and refuses it until it is enrolled again."""
        ...

    def revoke(self, node: str) -> None:
        """Closes a node's connection and refuses it from now on."""
        ...

    def online(self) -> frozenset[str]:
        """Nodes that would answer now."""
        ...

    def seen_ms(self) -> Mapping[str, int]:
        """When each node was heard last since this process started; without those that were not."""
        ...


class NoFleet:
    """A broker without nodes' connections: membership, contracts and the log work, runs do not."""

    def __init__(self) -> None:
        self.enrolled: dict[str, tuple[bytes, bytes]] = {}
        self.endpoint = _no_fleet

    async def start(self) -> None:
        """Nothing to get ready."""

    def drain(self) -> None:
        """Nothing is held."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def enrol(self, node: str, fleet_key_pem: bytes, node_public_key: bytes) -> None:
        """Remembers the node."""
        self.enrolled[node] = (fleet_key_pem, node_public_key)

    def rekey(self, node: str, node_public_key: bytes) -> None:
        """Remembers the other key."""
        if node in self.enrolled:
            self.enrolled[node] = (self.enrolled[node][0], node_public_key)

    def suspend(self, node: str) -> None:
        """Forgets the node."""
        self.enrolled.pop(node, None)

    def revoke(self, node: str) -> None:
        """Forgets the node."""
        self.enrolled.pop(node, None)

    def online(self) -> frozenset[str]:
        """Nobody."""
        return frozenset()

    def seen_ms(self) -> Mapping[str, int]:
        """Nobody."""
        return {}


async def _no_fleet(_scope: Any, _receive: Any, send: Any) -> None:  # noqa: ANN401  ASGI
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})
