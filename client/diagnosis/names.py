# SPDX-License-Identifier: Apache-2.0
"""The name of the broker: does it mean an address here, how fast, and does each kind of address answer?

`named` looks in this order: (1) an address needs no name server, (2) the name means an address, within
`RESOLVE_S`, (3) of both kinds, IPv6 and IPv4, what it means is tried, `FAMILY_S` each: where none can be
reached from this machine, that fails; where one kind answers and the other does not, every connection may
wait for the other first, which is a warning, (4) an answer that took longer than `SLOW_MS` is one, too.

A broker that is down refuses nothing here: that is for the check after this one to say.

    named("broker.example", 8443, names=SystemNames(), clock=clock)
"""

from __future__ import annotations

import errno
import ipaddress
import queue
import socket
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal, Protocol

from client.diagnosis.findings import Finding
from client.errors import AddressFamilyError, NameUnresolvedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from policies.ports import Clock

__all__ = ["FAMILY_S", "RESOLVE_S", "SLOW_MS", "Address", "Names", "SystemNames", "named"]

RESOLVE_S: Final = 1.5
FAMILY_S: Final = 0.5
SLOW_MS: Final = 500
_NO_WAY: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT})
_NAME_SERVER: Final = "/etc/resolv.conf and /etc/hosts; ask whoever runs this network's name server"

Reached = Literal["answers", "silent", "no way"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Address:
    """One address that a name means; ``kind`` is IPv4 or IPv6."""

    kind: Literal["IPv4", "IPv6"]
    text: str


class Names(Protocol):
    """Name server and network, as this machine has them."""

    def addresses(self, host: str, *, timeout_s: float) -> Sequence[Address]:
        """What a name means, in the order in which connections try it.

        Raises:
            OSError: Nothing, or nobody says; `TimeoutError` where the time was over.
        """
        ...

    def connect(self, address: Address, port: int, *, timeout_s: float) -> None:
        """Opens a connection and closes it.

        Raises:
            OSError: It was not opened.
        """
        ...


class SystemNames:
    """The real ones."""

    def addresses(self, host: str, *, timeout_s: float) -> Sequence[Address]:
        """See `Names`; the system's own call has no bound, so that a thread waits for it."""
        told: queue.SimpleQueue[Sequence[Address] | OSError] = queue.SimpleQueue()
        threading.Thread(target=_ask, args=(host, told), daemon=True).start()
        try:
            found = told.get(timeout=timeout_s)
        except queue.Empty:
            raise TimeoutError(f"no answer within {timeout_s} s") from None
        if isinstance(found, OSError):
            raise found
        return found

    def connect(self, address: Address, port: int, *, timeout_s: float) -> None:
        """See `Names`."""
        with socket.create_connection((address.text, port), timeout=timeout_s):
            pass


def _ask(host: str, told: queue.SimpleQueue[Sequence[Address] | OSError]) -> None:
    try:
        rows = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError as error:
        told.put(error)
        return
    except UnicodeError:  # a name of a form that no name server takes
        told.put(OSError("not the form of a name"))
        return
    except Exception as error:  # noqa: BLE001  whatever it is, nobody waits for it
        told.put(OSError(type(error).__name__))
        return
    kinds = {socket.AF_INET: "IPv4", socket.AF_INET6: "IPv6"}
    told.put(
        tuple(
            Address(kind="IPv6" if kinds[row[0]] == "IPv6" else "IPv4", text=str(row[4][0]))
            for row in rows
            if row[0] in kinds
        )
    )


def named(host: str, port: int, *, names: Names, clock: Clock) -> str | Finding:
    """Whether the broker's name can be used here; see the module for the order.

    Raises:
        NameUnresolvedError: It means no address, or nobody says in time.
        AddressFamilyError: It means addresses of a kind that this machine cannot reach at all.
    """
    if _is_address(host):  # 1
        return f"{host} is an address, and needs no name server"
    before_ms = clock.now_ms()
    found = _resolved(host, names)  # 2
    took_ms = clock.now_ms() - before_ms
    reached = _reached(found, port, names)  # 3
    words = f"{host} means " + ", ".join(f"{one.text} ({one.kind})" for one in found[:4])
    if set(reached.values()) == {"no way"}:
        raise AddressFamilyError(
            need=f"an address of {host} that this machine can reach",
            found=f"only {' and '.join(reached)}, for which it has no way out",
            remedy=f"give this machine {' or '.join(reached)}, or have the operator add the other kind",
        )
    mute = [kind for kind, how in reached.items() if how != "answers"]
    if mute and "answers" in reached.values():
        return Finding(
            found=f"{words}; {mute[0]} does not answer, so that connections may wait for it first",
            fix=f"have the operator open the port over {mute[0]} or take that address from the name; or "
            "prefer the other kind in /etc/gai.conf",
        )
    if took_ms > SLOW_MS:  # 4
        return Finding(
            found=f"{words}; that took {took_ms / 1000:.1f} s, and each connection waits so long",
            fix=f"see {_NAME_SERVER}",
        )
    return words


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _resolved(host: str, names: Names) -> Sequence[Address]:
    try:
        found = names.addresses(host, timeout_s=RESOLVE_S)
        why = "no address"
    except OSError as error:
        found, why = (), str(error.strerror or error)
    if not found:
        raise NameUnresolvedError(
            need=f"an address for the name {ascii(host)[1:-1]}", found=why, remedy=f"correct {_NAME_SERVER}"
        )
    return found


def _reached(found: Sequence[Address], port: int, names: Names) -> dict[str, Reached]:
    """How the first address of each kind answers, in order."""
    reached: dict[str, Reached] = {}
    for one in found:
        if one.kind not in reached:
            reached[one.kind] = _reach(one, port, names)
    return reached


def _reach(address: Address, port: int, names: Names) -> Reached:
    try:
        names.connect(address, port, timeout_s=FAMILY_S)
    except OSError as error:
        return "no way" if error.errno in _NO_WAY else "silent"
    return "answers"
