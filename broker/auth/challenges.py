# SPDX-License-Identifier: Apache-2.0
"""Questions for passkeys: fresh, for one purpose and one session, answered once.

A question is computed, not kept: a keyed hash over its purpose, what it is bound to, and a ticket that goes
along with it. So strangers who ask for questions fill nothing. The key is drawn when the process starts.

    asked = challenges.ask("login", bound_to="")            asked.challenge, asked.ticket
    challenge = challenges.take("login", bound_to="", ticket=ticket)     the same bytes, or a refusal
    challenges.spend(ticket)                                once the answer holds; never again after that

Only tickets whose answer held are kept, until they are too old anyway: nobody makes these without a passkey.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from broker.auth.errors import ChallengeError
from policies.limits import CHALLENGE_S

if TYPE_CHECKING:
    from policies.ports import Clock, Entropy

__all__ = ["Asked", "Challenges"]

_NONCE_BYTES: Final = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """A question, and the ticket that its answer has to bring along."""

    challenge: bytes
    ticket: str


class Challenges:
    """The questions of one process. Not for several threads."""

    def __init__(self, *, clock: Clock, entropy: Entropy) -> None:
        self._clock = clock
        self._entropy = entropy
        self._key = entropy.token_bytes(32)
        self._spent: dict[str, int] = {}

    def ask(self, purpose: str, *, bound_to: str, within_s: int = CHALLENGE_S) -> Asked:
        """A fresh question.

        Args:
            purpose: What its answer is for; an answer is good for nothing else.
            bound_to: Whose answer is taken: a session's id, or empty before a login.
            within_s: How long it may take.
        """
        until_ms = self._clock.now_ms() + within_s * 1_000
        ticket = f"{until_ms}.{self._entropy.token_bytes(_NONCE_BYTES).hex()}"
        return Asked(challenge=self._challenge(purpose, bound_to, ticket), ticket=ticket)

    def take(self, purpose: str, *, bound_to: str, ticket: str) -> bytes:
        """The question behind a ticket.

        1. it has the form of one; 2. it is not too old; 3. its question was not answered yet. A ticket that
           nobody was given gives a question that nobody was asked.

        Raises:
            ChallengeError: Steps 1 to 3.
        """
        until, _, nonce = ticket.partition(".")
        if not (until.isascii() and until.isdigit() and len(until) < 16 and len(nonce) == 2 * _NONCE_BYTES):  # noqa: PLR2004  1.
            raise _refuse("something else")
        if int(until) <= self._clock.now_ms():  # 2.
            raise _refuse("an older one")
        if ticket in self._spent:  # 3.
            raise _refuse("one that was answered")
        return self._challenge(purpose, bound_to, ticket)

    def spend(self, ticket: str) -> None:
        """Lets a ticket be good for nothing more."""
        now_ms = self._clock.now_ms()
        self._spent = {one: until for one, until in self._spent.items() if until > now_ms}
        self._spent[ticket] = int(ticket.partition(".")[0])

    def _challenge(self, purpose: str, bound_to: str, ticket: str) -> bytes:
        text = f"{purpose}\x00{bound_to}\x00{ticket}".encode("utf-8", "replace")
        return hmac.digest(self._key, text, "sha256")


def _refuse(found: str) -> ChallengeError:
    return ChallengeError(
        need=f"the answer to a question of the last {CHALLENGE_S // 60} minutes",
        found=found,
        remedy="reload the page and use the passkey again",
    )
