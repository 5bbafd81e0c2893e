# SPDX-License-Identifier: Apache-2.0
"""Who may be connected: so many in all, so many of one address; who keeps us waiting longest makes room.

1. A connection is **new** until a request on it arrived whole: its TLS handshake, its first head.
2. Afterwards it **owes** us something while we wait for it: the rest of a body, the next request.
3. It is **served** from a whole request to its answer: a long poll is.

Where a place is wanted and none is free, the new connection that came first goes; if none is new, the one
that owes longest; if all are served, whoever came last is refused. Where the places of its own address are
full, only connections of that address go. So no silence, however much of it, closes what is being answered,
and one address cannot use up the places of others. Not thread-safe: one event loop owns it.

    places = Places(Bounds())
    if places.enter(guest): ...
    places.served(guest); places.owes(guest); places.leave(guest)
"""

from __future__ import annotations

import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

from policies.limits import (
    ANSWER_STALL_S,
    BODY_LEFT_S,
    CONNECTIONS,
    CONNECTIONS_PER_ADDRESS,
    CONNECTS_BURST,
    CONNECTS_PER_S,
    HEAD_BYTES,
    HEAD_READ_S,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Bounds", "Guest", "Places", "address_of"]

_IPV6_NETWORK: Final = 64  # bits; who has one address of such a network has all of them


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What one connection, and all together, may take."""

    head_bytes: int = HEAD_BYTES
    head_s: float = HEAD_READ_S
    body_s: float = BODY_LEFT_S
    stall_s: float = ANSWER_STALL_S
    connections: int = CONNECTIONS
    per_address: int = CONNECTIONS_PER_ADDRESS
    connects_per_s: int = CONNECTS_PER_S
    connects: int = CONNECTS_BURST


class Guest(Protocol):
    """One connection."""

    address: str

    def drop(self) -> None:
        """Closes it at once."""
        ...


def address_of(host: str) -> str:
    """What counts as one address: IPv4 as it is, IPv6 by its network."""
    one = ipaddress.ip_address(host.partition("%")[0])
    if isinstance(one, ipaddress.IPv4Address):
        return str(one)
    if one.ipv4_mapped is not None:
        return str(one.ipv4_mapped)
    return str(ipaddress.ip_network((int(one), _IPV6_NETWORK), strict=False))


class Places:
    """See the module."""

    def __init__(self, bounds: Bounds) -> None:
        self._bounds = bounds
        self._new: dict[Guest, None] = {}
        self._owing: dict[Guest, None] = {}
        self._served: dict[Guest, None] = {}
        self._of: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._new) + len(self._owing) + len(self._served)

    def enter(self, guest: Guest) -> bool:
        """Takes a place for one that came, if there is one or somebody makes room."""
        if self._of[guest.address] >= self._bounds.per_address:
            free = self.make_room(guest.address)
        else:
            free = len(self) < self._bounds.connections or self.make_room()
        if free:
            self._new[guest] = None
            self._of[guest.address] += 1
        return free

    def make_room(self, address: str | None = None) -> bool:
        """Closes the connection that is worth least, of one address or of all; whether there was one."""
        for held in (self._new, self._owing):
            found = _first(held, address)
            if found is not None:
                self.leave(found)
                found.drop()
                return True
        return False

    def owes(self, guest: Guest) -> None:
        """We wait for it, since now or longer."""
        if guest not in self._owing and self._out(guest):
            self._owing[guest] = None

    def served(self, guest: Guest) -> None:
        """It waits for us."""
        if guest not in self._served and self._out(guest):
            self._served[guest] = None

    def leave(self, guest: Guest) -> None:
        """It is closed, or about to be."""
        if self._out(guest):
            self._of[guest.address] -= 1
            if not self._of[guest.address]:
                del self._of[guest.address]

    def _out(self, guest: Guest) -> bool:
        for held in (self._new, self._owing, self._served):
            if guest in held:
                del held[guest]
                return True
        return False


def _first(held: Iterable[Guest], address: str | None) -> Guest | None:
    return next((one for one in held if address is None or one.address == address), None)
