# SPDX-License-Identifier: Apache-2.0
"""One's own account: what somebody logs in with, their password, language and sessions.

- Whoever has a way to log in adds another one only after a confirmation in person (`STEP_UP_MIN`): a session
  that was stolen does not become a passkey of its thief.
- What was verified has to be so still in the transaction that changes an account.
- A change of an account can be a form's (``once``): a form that was used has no second effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from broker.auth import credentials
from broker.auth.errors import CredentialError, SessionEndedError, StepUpError
from broker.auth.holdings import passkeys_in
from broker.auth.people import person_digest, set_lang
from broker.errors import RequestInvalidError
from broker.log.actions import acted
from policies.encoding import digest_of
from policies.limits import STEP_UP_MIN

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.auth.challenges import Challenges
    from broker.auth.confirmations import Confirmations
    from broker.auth.holdings import Holdings
    from broker.auth.passkeys import Passkeys
    from broker.auth.passwords import Passwords
    from broker.auth.sessions import Login, Sessions
    from broker.log import LogTx, Writer
    from broker.store import Session, Store
    from policies.encoding import Json
    from policies.ports import Clock, Entropy

    Once = Callable[[Session], bool]  # uses a form's mark up; False if it was used

__all__ = ["Account"]


class Account:
    """`broker.auth.service.Auth.account`."""

    def __init__(
        self,
        *,
        store: Store,
        writer: Writer,
        clock: Clock,
        entropy: Entropy,
        holdings: Holdings,
        confirmations: Confirmations,
        challenges: Challenges,
        sessions: Sessions,
        passkeys: Passkeys,
        passwords: Passwords,
    ) -> None:
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self._holdings = holdings
        self._confirmations = confirmations
        self._challenges = challenges
        self._sessions = sessions
        self._passkeys = passkeys
        self._passwords = passwords

    def ask_passkey(self, login: Login) -> tuple[dict[str, Json], str]:
        """What a browser is asked for a new passkey, and the ticket that its answer brings along.

        Raises:
            NoDomainError: The console's address has no domain name.
            StepUpError: It has to be confirmed first.
        """
        self.check_may_add(login)
        asked = self._challenges.ask("register", bound_to=login.id)
        known = [one.id for one in self._holdings.of(login.person.name) if one.kind == credentials.PASSKEY]
        return self._passkeys.registration_options(login.person.name, asked.challenge, known), asked.ticket

    def check_may_add(self, login: Login) -> None:
        """Refuses a new way to log in that was not confirmed in person.

        Raises:
            StepUpError: There is another way already, and it was not used just now.
        """
        with self._store.read() as session:
            self._check_may_add(session, login)

    def _check_may_add(self, session: Session, login: Login) -> None:
        held = credentials.credentials(session, login.person.name)
        if held and not self._confirmations.stepped_with(login, held):
            raise StepUpError(
                need=f"a passkey (a password of who has none) of the last {STEP_UP_MIN} minutes",
                found="a login that is older, or by password" if passkeys_in(held) else "an older login",
                remedy="confirm on /console/account that it is you, then send it again",
            )

    def _check_change(self, session: Session, login: Login) -> None:
        """Refuses a change of an account whose login or confirmation ended since it was checked.

        Raises:
            SessionEndedError, StepUpError: It did.
        """
        if not self._sessions.holds(session, login):
            raise SessionEndedError(
                need="a login that is still good", found="it ended meanwhile", remedy="sign in again"
            )
        self._check_may_add(session, login)

    async def add_passkey(
        self,
        login: Login,
        ticket: str,
        answer: str,
        *,
        label: str,
        request: str,
        once: Once = lambda _session: True,
    ) -> None:
        """Keeps a new passkey of whoever is logged in; the log has it. They have then confirmed in person.

        Args:
            login: Whose.
            ticket: From `ask_passkey`.
            answer: JSON of the browser.
            label: What they call it.
            request: Digest that names the form, for the log.
            once: Uses the form's mark up; with False nothing happens.

        Raises:
            StepUpError: As `check_may_add` says.
            ChallengeError, PasskeyError: The answer proves nothing.
            CredentialError: Somebody has it, or there are too many.
        """
        self.check_may_add(login)
        challenge = self._challenges.take("register", bound_to=login.id, ticket=ticket)
        made = self._passkeys.check_registration(answer, challenge)
        name, now_ms = login.person.name, self._clock.now_ms()

        def work(session: Session, tx: LogTx) -> bool:
            self._check_change(session, login)
            if not once(session):
                return False
            credentials.add_passkey(session, tx, made, name=name, label=label, request=request, now_ms=now_ms)
            return True

        done, _ = await self._writer.run(work)
        if done:
            self._challenges.spend(ticket)
            await self._sessions.step(login, "passkey")

    async def remove_passkey(
        self, login: Login, passkey: str, *, request: str, once: Once = lambda _session: True
    ) -> None:
        """Forgets a passkey of whoever is logged in, after a confirmation; the last way in is kept.

        Raises:
            StepUpError: It was not confirmed just now.
            CredentialError: No such passkey, or the last way to log in.
        """
        self.check_may_add(login)
        name = login.person.name

        def work(session: Session, tx: LogTx) -> None:
            self._check_change(session, login)
            if not once(session):
                return
            credentials.remove_passkey(session, tx, name=name, id=passkey, request=request)
            if not credentials.can_come_back(session, name):
                raise CredentialError(
                    need="another way to log in", found="this one alone", remedy="add another passkey first"
                )

        await self._writer.run(work)

    async def set_password(
        self, login: Login, password: str, *, request: str, once: Once = lambda _session: True
    ) -> None:
        """Keeps a password of whoever is logged in; their other sessions end, and the log has it.

        Raises:
            StepUpError: As `check_may_add` says.
            PasswordWeakError: It is too short, too long, or no text.
            RequestInvalidError: The form was used for another password.
        """
        self.check_may_add(login)
        name, now_ms = login.person.name, self._clock.now_ms()
        hashed = await self._passwords.hash(password)

        def work(session: Session, tx: LogTx) -> bool:
            self._check_change(session, login)
            if not once(session):
                return False
            credentials.keep_password(session, name=name, hashed=hashed, now_ms=now_ms)
            tx.add(acted(name, "password.set", subject=person_digest(name), request=request))
            return True

        done, _ = await self._writer.run(work)
        if not done:
            await self._check_set(name, password)
            return
        await self._sessions.end_all(name, keep=login.id)
        if not self._holdings.has_passkey(name):
            await self._sessions.step(login, "password")

    async def _check_set(self, name: str, password: str) -> None:
        """Refuses a form that was used already, but for the password that it set."""
        if not await self._passwords.verify(self._holdings.known(name)[1], password):
            raise RequestInvalidError(
                need="a form that is sent once",
                found="another password",
                remedy="reload the page and set it anew",
            )

    async def set_lang(self, login: Login, lang: str | None) -> None:
        """Keeps the language that a person chose.

        Raises:
            PersonInvalidError: No such language.
        """
        await self._writer.run(lambda session, _tx: set_lang(session, login.person.name, lang))

    async def end_sessions(self, login: Login, which: str | None, *, request: str) -> int:
        """Ends one session of whoever is logged in, or all others; how many, and the log has it."""
        name = login.person.name
        ended = (
            [one.id for one in self._sessions.of(name) if one.id != login.id] if which is None else [which]
        )
        drawn = digest_of([request, self._entropy.token_bytes(16).hex()])  # a form may end more, sent again
        event = acted(name, "session.end", subject=digest_of(sorted(ended)), request=drawn)
        if which is None:
            return await self._sessions.end_all(name, keep=login.id, event=event)
        return int(await self._sessions.end(name, which, event=event))

    async def log_out(self, login: Login) -> None:
        """Ends this session."""
        await self._sessions.end(login.person.name, login.id)
