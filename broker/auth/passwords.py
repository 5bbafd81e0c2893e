# SPDX-License-Identifier: Apache-2.0
"""Passwords: argon2id, one hash for every try, two at a time, in threads.

- A password is `PASSWORD_CHARS_MIN` characters or more, of any kind, `DIFFERENT_MIN` of them different; it is
  brought to Unicode's form NFKC first, so that the same keys on another keyboard give the same password.
- Each try costs one verification, whether the name is known, has a password, or neither: then it is one of
  a hash that nothing fits.
- A hash that was made with weaker settings is made anew at the next login.
- Each hash takes 64 MiB, so `PASSWORD_HASHES` run at a time; when `PASSWORD_WAITING` wait, the next is asked
  to come again. Nothing else waits with them.
"""

from __future__ import annotations

import asyncio
import unicodedata
from typing import TYPE_CHECKING, Final, TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from broker.auth.errors import PasswordWeakError, TooManyError
from policies.limits import PASSWORD_CHARS_MAX, PASSWORD_CHARS_MIN, PASSWORD_HASHES, PASSWORD_WAITING

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["DIFFERENT_MIN", "Passwords"]

DIFFERENT_MIN: Final = 5
"""Different characters of a password: one key that is held down is none."""

T = TypeVar("T")
_NOBODY: Final = (
    "$argon2id$v=19$m=65536,t=3,p=4$bm9ib2R5J3Mgc2FsdCEhIQ$MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA"
)
"""A hash of library defaults that no password fits: its bytes are a text, not a hash's outcome."""
_BUSY_S: Final = 3


class Passwords:
    """Hashes and verifies. For one event loop.

    Attributes:
        hashed: How many hashes were computed.
    """

    def __init__(self, hasher: PasswordHasher | None = None, *, nobody: str = _NOBODY) -> None:
        self._hasher = hasher or PasswordHasher()
        self._nobody = nobody
        self._slots = asyncio.Semaphore(PASSWORD_HASHES)
        self._there = 0
        self.hashed = 0

    async def hash(self, password: str) -> bytes:
        """What is kept of a password.

        Raises:
            PasswordWeakError: It is too short, too long, of too few characters, or no text.
            TooManyError: Too many are waiting.
        """
        text = _normal(password)
        if not PASSWORD_CHARS_MIN <= len(text) <= PASSWORD_CHARS_MAX:
            raise PasswordWeakError(
                need=f"a password of {PASSWORD_CHARS_MIN} to {PASSWORD_CHARS_MAX} characters",
                found=f"{len(text)}",
                remedy="take a sentence that only you know; or add a passkey instead",
            )
        if len(set(text)) < DIFFERENT_MIN:
            raise PasswordWeakError(
                need=f"a password of at least {DIFFERENT_MIN} different characters",
                found=f"{len(set(text))}",
                remedy="take a sentence that only you know; or add a passkey instead",
            )
        kept: str = await self._turn(lambda: self._hasher.hash(text))
        return kept.encode("ascii")

    async def verify(self, kept: bytes | None, password: str) -> bool:
        """Whether a password is the kept one; False, after as much work, where none is kept.

        Raises:
            TooManyError: Too many are waiting.
        """
        text = _normal(password)[: PASSWORD_CHARS_MAX + 1]
        against = self._nobody if kept is None else kept.decode("ascii")

        def compare() -> bool:
            try:
                return self._hasher.verify(against, text)
            except (Argon2Error, InvalidHashError):
                return False

        fits = await self._turn(compare)
        return fits and kept is not None and len(text) <= PASSWORD_CHARS_MAX

    def outdated(self, kept: bytes) -> bool:
        """Whether a hash was made with other settings than today's."""
        return self._hasher.check_needs_rehash(kept.decode("ascii"))

    async def _turn(self, work: Callable[[], T]) -> T:
        if self._there >= PASSWORD_HASHES + PASSWORD_WAITING:
            raise TooManyError(
                need=f"at most {PASSWORD_WAITING} passwords that wait to be checked",
                found="more",
                remedy=f"try again in {_BUSY_S} s, or log in with a passkey",
                retry_after_s=_BUSY_S,
            )
        self._there += 1
        try:
            async with self._slots:
                self.hashed += 1
                return await asyncio.to_thread(work)
        finally:
            self._there -= 1


def _normal(password: str) -> str:
    try:
        password.encode("utf-8")
    except UnicodeEncodeError:
        raise PasswordWeakError(
            need="a password that is text", found="half of a character", remedy="type another one"
        ) from None
    return unicodedata.normalize("NFKC", password)
