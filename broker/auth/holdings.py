# SPDX-License-Identifier: Apache-2.0
"""What people log in with, and whether an answer is by it; logging in, confirming and accounts share it."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from broker.auth import credentials
from broker.auth.errors import PasskeyError, WrongLoginError
from broker.auth.people import Person, find_person
from broker.log.errors import LogFrozenError

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.auth.credentials import Credential
    from broker.auth.passkeys import Passkeys
    from broker.auth.sessions import Login
    from broker.log import LogTx, Writer
    from broker.store import Session, Store
    from policies.ports import Clock

__all__ = ["Holdings", "has", "passkeys_in", "password_is", "wrong"]


class Holdings:
    """Passkeys and passwords of people, as they are now."""

    def __init__(self, *, store: Store, writer: Writer, clock: Clock, passkeys: Passkeys) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._passkeys = passkeys

    def of(self, name: str) -> list[Credential]:
        """What a person logs in with."""
        with self._store.read() as session:
            return credentials.credentials(session, name)

    def has_passkey(self, name: str) -> bool:
        """Whether a person has a passkey: then nothing else confirms for them."""
        return passkeys_in(self.of(name))

    def known(self, name: str) -> tuple[Person | None, bytes | None]:
        """Who has a name, and the hash of their password; None for what there is not."""
        with self._store.read() as session:
            who = find_person(session, name)
            return who, credentials.password_of(session, name)

    def passkey(self, name: str) -> Credential:
        """The passkey of an id.

        Raises:
            PasskeyError: Nobody has it.
        """
        with self._store.read() as session:
            found = credentials.find_passkey(session, name)
        if found is None:
            raise PasskeyError(
                need="a passkey that somebody added here",
                found="an unknown one",
                remedy="use another one, or your password; ask an operator for a link if you have none",
            )
        return found

    def passkey_of(self, login: Login, name: str) -> Credential:
        """The passkey of an id, of whoever is logged in.

        Raises:
            PasskeyError: Nobody has it, or somebody else.
        """
        found = self.passkey(name)
        if found.person != login.person.name:
            raise PasskeyError(
                need=f"a passkey of {login.person.name}",
                found="somebody else's",
                remedy="choose your own in the browser's list",
            )
        return found

    def check(self, passkey: Credential, answer: str, challenge: bytes) -> int:
        """Checks a passkey's answer to a question; its counter after it.

        Raises:
            PasskeyError: It is none.
        """
        return self._passkeys.check_answer(
            answer, challenge, name=passkey.person, key=passkey.key, count=passkey.count
        )

    async def used(self, passkey: Credential, count: int) -> None:
        """Keeps a passkey's counter, as soon as something can be kept."""
        now_ms = self._clock.now_ms()

        def work(session: Session, _tx: LogTx) -> None:
            credentials.used_passkey(session, id=passkey.id, count=count, now_ms=now_ms)

        with contextlib.suppress(LogFrozenError):
            await self._writer.run(work)


def passkeys_in(held: list[Credential]) -> bool:
    """Whether there is a passkey among them."""
    return any(one.kind == credentials.PASSKEY for one in held)


def password_is(name: str, kept: bytes | None) -> Callable[[Session], bool]:
    """Whether a person's password is still the one that was verified."""
    return lambda session: kept is not None and credentials.password_of(session, name) == kept


def has(passkey: Credential) -> Callable[[Session], bool]:
    """Whether a passkey is still its person's."""

    def check(session: Session) -> bool:
        found = credentials.find_passkey(session, passkey.id)
        return found is not None and (found.person, found.key) == (passkey.person, passkey.key)

    return check


def wrong(need: str) -> WrongLoginError:
    """What is said of every wrong way in, whatever was wrong with it."""
    return WrongLoginError(
        need=need,
        found="something else",
        remedy="try again; ask an operator for a new link",
    )
