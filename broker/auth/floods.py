# SPDX-License-Identifier: Apache-2.0
"""Against guessing passwords: pauses that grow, counted so that nobody can lock out everybody else.

Two things are counted, wrong tries at a name and wrong tries from an address (of IPv6, its /64). After
`LOGIN_FREE_TRIES` each next try has to wait, twice as long each time, `LOGIN_PAUSE_MAX_S` at most; a try
before that is refused and costs nothing. `LOGIN_FORGET_S` without a wrong try, and the count begins anew.

- At an address from which somebody logged in before, every name is counted for itself, there alone: whoever
  tries a person's name from elsewhere, or floods the address with others, does not keep them out there. It is
  so for all names, of people who were there, of others, and of nobody, so that no answer tells them apart.
  It tells that somebody, whoever, logs in from there; and such an address (`LOGIN_ADDRESSES` a person, at
  most) gives its neighbours tries of their own at each name, with the pauses of everybody.
- So is a browser in which they logged in before (`broker.auth.devices`), and a session that they have: from
  addresses that they never used they are not kept out either. Such counters are `LOGIN_DEVICES` a person.
- What is left: with a new browser, from a new address, and with nothing but a password, they wait with
  whoever tries their name, `LOGIN_PAUSE_MAX_S` at most; a passkey or an operator's link lets them in at once.
- People have exact counters, also where they logged in before. All names that nobody has share
  `LOGIN_BUCKETS` counters, and so do addresses, and names where their person, if any, was not yet, by a
  keyed hash: memory is bounded, nothing is forgotten early, and a name answers alike whether somebody has it
  or not. Only whoever fills the shared counters themselves, with wrong tries at thousands of names within
  `LOGIN_FORGET_S`, sees exact ones that are not full.
- The counters are this process's; a new start forgets them, and costs whoever guesses a start.

Passkeys and links are not counted: nobody guesses them.
"""

from __future__ import annotations

import hmac
import ipaddress
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.auth.errors import TooManyError
from policies.limits import (
    LOGIN_ADDRESSES,
    LOGIN_BUCKETS,
    LOGIN_DEVICES,
    LOGIN_FORGET_S,
    LOGIN_FREE_TRIES,
    LOGIN_PAUSE_MAX_S,
)

if TYPE_CHECKING:
    from policies.ports import Clock, Entropy

__all__ = ["Floods"]

_DOUBLINGS: Final = LOGIN_PAUSE_MAX_S.bit_length()  # more than that is the longest pause
_NETWORK_BITS: Final = 64


@dataclass(slots=True)
class _Count:
    wrong: int = 0
    last_ms: int = 0

    def free_at_ms(self, now_ms: int) -> int:
        """When the next try is allowed."""
        if now_ms - self.last_ms >= LOGIN_FORGET_S * 1_000:
            self.wrong = 0
        over = self.wrong - LOGIN_FREE_TRIES
        if over < 0:
            return now_ms
        return self.last_ms + min((1 << min(over, _DOUBLINGS)), LOGIN_PAUSE_MAX_S) * 1_000

    def add(self, now_ms: int) -> None:
        self.wrong, self.last_ms = self.wrong + 1, now_ms


class Floods:
    """The counters. Not for several threads.

    Attributes:
        wrong: How many passwords were wrong since the start.
    """

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._key = entropy.token_bytes(32)
        self._counts: dict[str, _Count] = {}
        self._worked: dict[str, list[str]] = {}
        self._places: Counter[str] = Counter()  # how many people logged in from there
        self.wrong = 0

    def check(self, name: str, address: str, *, known: bool, own: str | None = None) -> None:
        """Refuses a try that comes too early.

        Args:
            name: As it was typed.
            address: Where the request came from.
            known: Whether a person has this name.
            own: What proves that the person was here before: a browser's mark, a session.

        Raises:
            TooManyError: Come again later; the error says when.
        """
        now_ms = self._clock.now_ms()
        free_ms = max(
            self._counts[one].free_at_ms(now_ms) if one in self._counts else now_ms
            for one in self._names(name, address, known=known, own=own)
        )
        if free_ms > now_ms:
            wait_s = -(-(free_ms - now_ms) // 1_000)
            raise TooManyError(
                need="a pause after so many wrong passwords",
                found=f"a try {wait_s} s too early",
                remedy=f"wait {wait_s} s, or log in with a passkey",
                retry_after_s=wait_s,
            )

    def tried(self, name: str, address: str, *, known: bool, own: str | None = None) -> None:
        """Counts a try, before it is known whether it is wrong: tries at the same time count, too."""
        for one in self._names(name, address, known=known, own=own):
            self._counts.setdefault(one, _Count()).add(self._clock.now_ms())

    def worked(self, name: str, address: str, own: str | None = None) -> None:
        """Notes that somebody came in from an address: their counts begin anew."""
        for one in self._names(name, address, known=True, own=own):
            if one.startswith("person "):
                self._counts.pop(one, None)
            elif one in self._counts:
                self._counts[one].wrong = max(0, self._counts[one].wrong - 1)  # this one was right
        place = _place(address)
        before = self._worked.get(name, [])
        now = [place, *(one for one in before if one != place)]
        for gone in now[LOGIN_ADDRESSES:]:
            self._counts.pop(f"person {name} {gone}", None)
        self._worked[name] = now[:LOGIN_ADDRESSES]
        self._places.update(self._worked[name])
        self._places -= Counter(before)  # without those that nobody has any more

    @property
    def paused(self) -> int:
        """How many counters make somebody wait now."""
        now_ms = self._clock.now_ms()
        return sum(one.free_at_ms(now_ms) > now_ms for one in self._counts.values())

    def _names(self, name: str, address: str, *, known: bool, own: str | None) -> tuple[str, ...]:
        """The counters of a try."""
        if known and own is not None:
            return (f"person {name} own {self._bucket('own', own) % LOGIN_DEVICES}",)
        place = _place(address)
        if known and place in self._worked.get(name, ()):
            return (f"person {name} {place}",)
        if place in self._places:
            return (f"there {self._bucket('there', f'{place} {name}')}",)
        mine = f"person {name}" if known else f"nobody {self._bucket('name', name)}"
        return mine, f"address {self._bucket('address', place)}"

    def _bucket(self, kind: str, text: str) -> int:
        hashed = hmac.digest(self._key, f"{kind}\0{text}".encode("utf-8", "replace"), "sha256")
        return int.from_bytes(hashed[:8], "big") % LOGIN_BUCKETS


def _place(address: str) -> str:
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return "elsewhere"
    if isinstance(found, ipaddress.IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return str(ipaddress.IPv6Network((found, _NETWORK_BITS), strict=False))
    return str(found)
