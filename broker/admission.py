# SPDX-License-Identifier: Apache-2.0
"""Whose requests are served now, and whose have to wait: by where they come from, then by who proved to ask.

1. A request takes one allowance before anything of it is looked at; without one it is refused
   (`RequestRateError`), which costs next to nothing. It takes the first that there is of
   a. on a connection on which somebody proved themselves before (`Line`): one of theirs for such connections;
   b. ``/healthz`` and ``/readyz``: one of its address's few for them;
   c. with a signature, a token or a cookie: one of its address's for what may turn out to be proved;
   d. one of its address's for everything. Of IPv6 the network of 64 bits is one address.
   So whoever floods without proving anything shuts out no node, operator or monitor that shares the address:
   all callers do behind a proxy. With forged signatures they still hinder new connections, not those of a.
2. Once it is proved who asks (a signature, a connector's token, a login), what step 1 took is given back, and
   whoever asks pays instead, wherever they are. So many nodes behind one address do not hinder each other,
   and one key has one allowance from all addresses together.
3. What is refused then stays paid: who floods with a good key is soon refused by step 1.

The static log has allowances of its own, wide enough for whoever reads all of it. The engine's requests are
many and prove themselves: their address pays only for those that were refused (`Admission.fleet_wait_ms`),
apart for those with Flower's signature and those without; a connection whose last request was served does not
wait at all.

What is known of a connection lives as long as it does. Nobody's word is taken for where a request comes from
(`broker.serving`).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from broker.errors import RequestRateError
from broker.places import address_of
from broker.rates import Buckets, Rate
from policies.limits import (
    ADDRESS_BURST,
    ADDRESS_PER_S,
    CLAIM_BURST,
    CLAIM_PER_S,
    HEALTH_BURST,
    HEALTH_PER_S,
    KEY_BURST,
    KEY_PER_S,
    LOG_BURST,
    LOG_PER_S,
    RATE_NAMES,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, MutableMapping

    from policies.ports import Clock

__all__ = ["LINE", "Admission", "Line", "Ticket"]

LINE: Final = "iriai.line"
TICKET: Final = "iriai.ticket"
_HEALTH: Final = frozenset(("/healthz", "/readyz"))
_CLAIMS: Final = frozenset((b"signature", b"authorization", b"cookie"))
_FLEET_CLAIMS: Final = frozenset((b"flwr-signature",))
_LOG: Final = "/log/"
_SERVED: Final = 400
_BUSY: Final = frozenset((429, 503))  # of a node that is known: its own requests, too many at a time
_ADDRESSES: Final = lru_cache(maxsize=RATE_NAMES)(address_of)


@dataclass(slots=True, eq=False, weakref_slot=True)
class Line:
    """What is known of one connection: who proved themselves on it, and whether the engine served it last."""

    who: str = ""
    served: bool = False


@dataclass(frozen=True, slots=True)
class Ticket:
    """What a request took: one allowance of a name."""

    buckets: Buckets
    name: str
    is_log: bool


class Admission:
    """The allowances. Not for several threads."""

    def __init__(self, clock: Clock) -> None:
        wide, address = Rate(per_s=LOG_PER_S, burst=LOG_BURST), Rate(per_s=ADDRESS_PER_S, burst=ADDRESS_BURST)
        key = Rate(per_s=KEY_PER_S, burst=KEY_BURST)
        self._addresses = {False: Buckets(address, clock), True: Buckets(wide, clock)}
        self._keys = {False: Buckets(key, clock), True: Buckets(wide, clock)}
        self._lines = {False: Buckets(key, clock), True: Buckets(wide, clock)}
        self._claims = Buckets(Rate(per_s=CLAIM_PER_S, burst=CLAIM_BURST), clock)
        self._health = Buckets(Rate(per_s=HEALTH_PER_S, burst=HEALTH_BURST), clock)
        self._fleet = {False: Buckets(address, clock), True: Buckets(address, clock)}

    def arrived(self, scope: MutableMapping[str, Any]) -> None:
        """Step 1; the request keeps what it took in its scope.

        Raises:
            RequestRateError: Its address has used up its allowance.
        """
        is_log = scope["path"].startswith(_LOG)
        wait_ms = 0
        for buckets, name in self._allowances(scope, is_log=is_log):
            wait_ms = buckets.take(name)
            if not wait_ms:
                scope[TICKET] = Ticket(buckets, name, is_log)
                return
        raise _too_many("from your address", wait_ms)

    def _allowances(self, scope: MutableMapping[str, Any], *, is_log: bool) -> Iterator[tuple[Buckets, str]]:
        line: Line | None = scope.get(LINE)
        address = _address(scope)
        if line is not None and line.who:
            yield self._lines[is_log], line.who
        if scope["path"] in _HEALTH:
            yield self._health, address
        elif _claims(scope, _CLAIMS):
            yield self._claims, address
        yield self._addresses[is_log], address

    def proved(self, scope: MutableMapping[str, Any], who: str) -> None:
        """Step 2, once for each request: ``who`` asks, and that is proved.

        Raises:
            RequestRateError: Who asks has used up their allowance.
        """
        ticket: Ticket | None = scope.pop(TICKET, None)
        is_log = ticket is not None and ticket.is_log
        if wait_ms := self._keys[is_log].take(who):
            raise _too_many("by you", wait_ms)
        if ticket is not None:
            ticket.buckets.give_back(ticket.name)
        if (line := scope.get(LINE)) is not None:
            line.who = who

    def fleet_wait_ms(self, scope: MutableMapping[str, Any]) -> int:
        """How long an address has to wait that the engine refused too often; usually 0. Takes nothing."""
        line: Line | None = scope.get(LINE)
        if line is not None and line.served:
            return 0
        return self._fleet[_claims(scope, _FLEET_CLAIMS)].wait_ms(_address(scope))

    def fleet_answered(self, scope: MutableMapping[str, Any], status: int) -> None:
        """Lets the address of a request of the engine pay for it, if it was refused."""
        if status in _BUSY:
            return
        if (line := scope.get(LINE)) is not None:
            line.served = status < _SERVED
        if status >= _SERVED:
            self._fleet[_claims(scope, _FLEET_CLAIMS)].take(_address(scope))


def _claims(scope: MutableMapping[str, Any], names: frozenset[bytes]) -> bool:
    """Whether a request says that somebody proves themselves by it; nothing of that is looked at."""
    return any(name in names for name, _ in scope.get("headers", ()))


def _address(scope: MutableMapping[str, Any]) -> str:
    client = scope.get("client")
    if client is None:
        return "elsewhere"
    try:
        return _ADDRESSES(client[0])
    except ValueError:
        return "elsewhere"


def _too_many(whose: str, wait_ms: int) -> RequestRateError:
    wait_s = -(-wait_ms // 1_000)
    return RequestRateError(
        need=f"fewer requests {whose} at a time",
        found=f"one that comes {wait_s} s too early",
        remedy=f"send it again in {wait_s} s; ask less often",
        retry_after_s=wait_s,
    )
