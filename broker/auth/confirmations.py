# SPDX-License-Identifier: Apache-2.0
"""Somebody's word in person: for exactly these bytes, or that it is still them.

- Who has a passkey confirms with it, whatever for: their password is not enough, and who came in by it has
  confirmed nothing.
- What was verified has to be so still in the transaction that notes it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from broker.auth import credentials
from broker.auth.confirming import Confirmed, by_passkey, by_password
from broker.auth.errors import StepUpError
from broker.auth.holdings import has, passkeys_in, password_is, wrong
from broker.auth.passkeys import credential_of, question_of
from policies.encoding import digest, digest_of
from policies.limits import STEP_UP_MIN

if TYPE_CHECKING:
    from broker.auth.challenges import Challenges
    from broker.auth.credentials import Credential
    from broker.auth.floods import Floods
    from broker.auth.holdings import Holdings
    from broker.auth.passkeys import Passkeys
    from broker.auth.passwords import Passwords
    from broker.auth.sessions import Login, Sessions
    from policies.encoding import Json
    from policies.ports import Clock

__all__ = ["Confirmations"]

_STEP_MS: Final = STEP_UP_MIN * 60_000
_CONFIRMED: Final = 256  # answers that may be sent twice by one click


class Confirmations:
    """`broker.auth.service.Auth.confirmations`."""

    def __init__(
        self,
        *,
        clock: Clock,
        holdings: Holdings,
        challenges: Challenges,
        sessions: Sessions,
        passkeys: Passkeys,
        passwords: Passwords,
        floods: Floods,
    ) -> None:
        self._clock = clock
        self._holdings = holdings
        self._challenges = challenges
        self._sessions = sessions
        self._passkeys = passkeys
        self._passwords = passwords
        self._floods = floods
        self._confirmed: OrderedDict[str, Confirmed] = OrderedDict()

    def stepped(self, login: Login) -> bool:
        """Whether somebody has just confirmed in person that it is them: with a passkey, if they have one."""
        return self.stepped_with(login, self._holdings.of(login.person.name))

    def stepped_with(self, login: Login, held: list[Credential]) -> bool:
        """The same, of somebody who holds these."""
        recent = login.stepped_ms is not None and self._clock.now_ms() - login.stepped_ms < _STEP_MS
        return recent and (login.stepped_by == credentials.PASSKEY or not passkeys_in(held))

    async def confirm(
        self, login: Login, subject: bytes, *, assertion: str = "", password: str = "", address: str = ""
    ) -> Confirmed:
        """Somebody's word for exactly these bytes.

        1. a passkey's answer, if there is one; 2. else the password, or one that this session gave just
           now, of whoever has no passkey.

        Raises:
            PasskeyError: The answer is no answer of theirs to these bytes.
            StepUpError: Neither, or a password of somebody with a passkey.
            WrongLoginError, TooManyError: The password is wrong, or was too often.
        """
        if assertion:  # 1.
            return await self._confirm_with(login, subject, assertion)
        self._check_no_passkey(login)  # 2.
        if password:
            login = await self._step_by_password(login, password, address)
        elif self.password_counts(login) is None:
            raise StepUpError(
                need="your passkey, or your password",
                found="neither",
                remedy="give it with the form; who has neither adds one on /console/account",
            )
        return by_password(login, subject, login.stepped_ms or 0)

    def password_counts(self, login: Login) -> int | None:
        """When a session gave the password that counts for a form without one; None if none does."""
        by_word = login.stepped_by == credentials.PASSWORD and self.stepped(login)
        return login.stepped_ms if by_word else None

    def _check_no_passkey(self, login: Login) -> None:
        """Refuses a password's word of somebody with a passkey."""
        if self._holdings.has_passkey(login.person.name):
            raise StepUpError(
                need="your passkey's answer", found="none", remedy="press the button beside it, then send"
            )

    async def step_up(
        self, login: Login, *, ticket: str = "", assertion: str = "", password: str = "", address: str = ""
    ) -> None:
        """Notes that it is still them, for what needs a confirmation but signs nothing.

        Raises:
            PasskeyError, ChallengeError, WrongLoginError, TooManyError: It is not proved.
            StepUpError: By the password of somebody with a passkey.
        """
        if assertion:
            challenge = self._challenges.take("step", bound_to=login.id, ticket=ticket)
            passkey = self._holdings.passkey_of(login, credential_of(assertion))
            count = self._holdings.check(passkey, assertion, challenge)
            self._challenges.spend(ticket)
            await self._holdings.used(passkey, count)
            await self._sessions.step(login, "passkey", check=has(passkey))
        else:
            self._check_no_passkey(login)
            await self._step_by_password(login, password, address)

    def ask_step(self, login: Login) -> tuple[dict[str, Json], str]:
        """What a browser is asked for `step_up`, and the ticket that its answer brings along.

        Raises:
            NoDomainError: The console's address has no domain name.
        """
        asked = self._challenges.ask("step", bound_to=login.id)
        known = [one.id for one in self._holdings.of(login.person.name) if one.kind == credentials.PASSKEY]
        return self._passkeys.login_options(asked.challenge, known), asked.ticket

    async def _confirm_with(self, login: Login, subject: bytes, answer: str) -> Confirmed:
        slot = digest_of([login.id, digest(subject), digest(answer.encode("utf-8", "replace"))])
        again = self._confirmed.get(slot)  # a form that was sent twice by one click
        if again is not None:
            return again
        passkey = self._holdings.passkey_of(login, credential_of(answer))
        count = self._holdings.check(passkey, answer, question_of(subject))
        confirmed = by_passkey(login, subject, answer, passkey)
        await self._holdings.used(passkey, count)
        await self._sessions.step(login, "passkey", check=has(passkey))
        self._confirmed[slot] = confirmed
        while len(self._confirmed) > _CONFIRMED:
            self._confirmed.popitem(last=False)
        return confirmed

    async def _step_by_password(self, login: Login, password: str, address: str) -> Login:
        name = login.person.name
        _, kept = self._holdings.known(name)
        self._floods.check(name, address, known=True, own=login.id)
        self._floods.tried(name, address, known=True, own=login.id)
        if not await self._passwords.verify(kept, password):
            self._floods.wrong += 1
            raise wrong("your password")
        self._floods.worked(name, address, login.id)
        check = password_is(name, kept)
        return await self._sessions.step(login, "password", check=check)
