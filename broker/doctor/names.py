# SPDX-License-Identifier: Apache-2.0
"""Checks of the names that the broker lives by: those of its URLs, and of databases that are elsewhere.

`resolves`, in this order, for each name: (1) an address needs no name server, (2) the name means an address,
within `RESOLVE_S`, (3) that takes at most `SLOW_MS`, (4) every kind of address that the public name means,
IPv6 and IPv4, is one that the port listens on; of a forwarder, which listens elsewhere, nobody here knows.

Asked is the name server of this machine and nobody else; no connection is made.
"""

from __future__ import annotations

import ipaddress
import queue
import socket
import threading
from typing import TYPE_CHECKING, Final, Protocol
from urllib.parse import urlsplit

from broker.doctor.findings import FailedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.settings import Settings
    from policies.ports import Clock

__all__ = ["RESOLVE_S", "SLOW_MS", "Resolve", "resolves", "system_resolve"]

RESOLVE_S: Final = 1.5
SLOW_MS: Final = 500
_IPV6: Final = 6
_LOOK: Final = "/etc/resolv.conf and /etc/hosts, or ask whoever runs this network's name server"


class Resolve(Protocol):
    """The name server, as this machine has it."""

    def __call__(self, host: str, *, timeout_s: float) -> Sequence[str]:
        """Addresses of a name, as text.

        Raises:
            OSError: None, or nobody says; `TimeoutError` where the time was over.
        """
        ...


def system_resolve(host: str, *, timeout_s: float) -> Sequence[str]:
    """The real one; the system's own call has no bound, so that a thread waits for it."""
    told: queue.SimpleQueue[Sequence[str] | OSError] = queue.SimpleQueue()
    threading.Thread(target=_ask, args=(host, told), daemon=True).start()
    try:
        found = told.get(timeout=timeout_s)
    except queue.Empty:
        raise TimeoutError(f"no answer within {timeout_s} s") from None
    if isinstance(found, OSError):
        raise found
    return found


def _ask(host: str, told: queue.SimpleQueue[Sequence[str] | OSError]) -> None:
    try:
        told.put([str(row[4][0]) for row in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)])
    except OSError as error:
        told.put(error)
    except UnicodeError:  # a name of a form that no name server takes
        told.put(OSError("not the form of a name"))
    except Exception as error:  # noqa: BLE001  whatever it is, nobody waits for it
        told.put(OSError(type(error).__name__))


def resolves(settings: Settings, clock: Clock, resolve: Resolve) -> str:
    """Every name means an address, soon, and of a kind that is listened on; see the module for the order."""
    told = []
    for what, host in _names(settings):
        if _is_address(host):  # 1
            told.append(f"{host} is an address")
            continue
        before_ms = clock.now_ms()
        found = _addresses(what, host, resolve)  # 2
        took_ms = clock.now_ms() - before_ms
        if took_ms > SLOW_MS:  # 3
            raise FailedError(
                f"{host} ({what}) took {took_ms / 1000:.1f} s to resolve, and whoever connects waits so long",
                f"see {_LOOK}",
            )
        if what == "public_url":  # 4
            _check_kinds(host, found, settings.listen_host)
        told.append(f"{host} means {', '.join(found[:4])}")
    return "; ".join(told)


def _names(settings: Settings) -> list[tuple[str, str]]:
    """Setting and host; each host once, and no folder of a local socket."""
    urls = {
        "public_url": settings.public_url,
        "console_url": settings.console_url,
        "database_url": settings.database_url,
        "private_db_url": settings.private_db_url,
    }
    found: dict[str, str] = {}
    for what, url in urls.items():
        host = None if url is None else urlsplit(url).hostname
        if host:
            found.setdefault(host, what)
    return [(what, host) for host, what in found.items()]


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True


def _addresses(what: str, host: str, resolve: Resolve) -> Sequence[str]:
    try:
        found = resolve(host, timeout_s=RESOLVE_S)
        why = "it means no address"
    except OSError as error:
        found, why = (), str(error.strerror or error)
    if not found:
        raise FailedError(f"{host} ({what}) does not resolve: {why}", f"correct the setting, or {_LOOK}")
    return list(dict.fromkeys(found))


def _check_kinds(host: str, found: Sequence[str], listen: str) -> None:
    """Who is given an address of a kind that nobody listens on waits, and may give up."""
    try:
        own = ipaddress.ip_address(listen)
    except ValueError:  # a name: the system chose
        return
    if own.is_loopback or (own.version == _IPV6 and own.is_unspecified):  # a forwarder; or both kinds
        return
    other = [one for one in found if ipaddress.ip_address(one.partition("%")[0]).version != own.version]
    if other:
        missing = "IPv4" if own.version == _IPV6 else "IPv6"
        raise FailedError(
            f"{host} means {other[0]} too, which is {missing}, and listen_host {listen} does not take that",
            'listen on both (listen_host = "::"), or take that address from the name',
        )
