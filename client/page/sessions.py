# SPDX-License-Identifier: Apache-2.0
"""Who may look: sessions of one page process, in its memory. They end with it.

A session is a cookie of 256 bits under the process's own key: absolute `SESSION_S`, idle `IDLE_S`. Browsers
do not keep the cookies of two ports of one host apart, so the port stands in the cookie's name: the pages of
several nodes on one machine do not end each other's sessions.

    sessions = Sessions(port=8123, clock=clock, entropy=entropy)
    cookie, session = sessions.open()
    sessions.find(cookie)                       # None once it ended
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from client.page.values import Text, Value
    from policies.ports import Clock, Entropy

__all__ = ["IDLE_S", "SESSIONS", "SESSION_S", "Session", "Sessions"]

SESSION_S: Final = 12 * 3600
IDLE_S: Final = 30 * 60
SESSIONS: Final = 16  # at a time; the oldest makes room
_BYTES: Final = 32


@dataclass(slots=True)
class Session:
    """One browser that was let in; ``told`` is what the next page says about the last change."""

    form_token: str
    since_ms: int
    seen_ms: int
    told: list[tuple[Text, tuple[Value, ...]]] = field(default_factory=list)


class Sessions:
    """The sessions of one process."""

    def __init__(self, *, port: int, clock: Clock, entropy: Entropy) -> None:
        self.cookie = f"iriai-page-{port}"
        self._clock = clock
        self._entropy = entropy
        self._key = entropy.token_bytes(_BYTES)
        self._open: dict[bytes, Session] = {}

    def open(self) -> tuple[str, Session]:
        """A new session, and the value of its cookie."""
        value, now_ms = self._entropy.token_bytes(_BYTES).hex(), self._clock.now_ms()
        session = Session(form_token=self._entropy.token_bytes(_BYTES).hex(), since_ms=now_ms, seen_ms=now_ms)
        while len(self._open) >= SESSIONS:
            del self._open[next(iter(self._open))]
        self._open[self._name(value)] = session
        return value, session

    def find(self, value: str | None) -> Session | None:
        """The session of a cookie, which is in use now; None where there is none, or it ended."""
        name = self._name(value or "")
        session, now_ms = self._open.get(name), self._clock.now_ms()
        if session is None:
            return None
        if now_ms - session.since_ms > SESSION_S * 1000 or now_ms - session.seen_ms > IDLE_S * 1000:
            del self._open[name]
            return None
        session.seen_ms = now_ms
        return session

    def close(self, value: str | None) -> None:
        """Ends a session."""
        self._open.pop(self._name(value or ""), None)

    def _name(self, value: str) -> bytes:
        return hmac.new(self._key, value.encode("utf-8", "replace"), hashlib.sha256).digest()
