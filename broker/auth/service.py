# SPDX-License-Identifier: Apache-2.0
"""People's logins, composed once: `services.auth`.

    login = auth.find(request.cookies.get(COOKIE))                    None: nobody is logged in
    opened = await auth.log_in(name, password, address=..., agent=...)          cookie: opened.token
    asked = auth.ask_login();  opened = await auth.log_in_with(asked.ticket, answer)
    opened = await auth.enter(secret, code=None)                      by a one-time link
    confirmed = await auth.confirm(login, subject, assertion=...)     evidence for exactly these bytes

- Every login draws a fresh token (`broker.auth.sessions`). Wrong names, passwords and people who were
  disabled are told apart by nobody, nor by how long they take.
- Whoever has a way to log in adds another one only after a confirmation in person (`STEP_UP_MIN`): a session
  that was stolen does not become a passkey of its thief.
- Who has a passkey confirms with it, whatever for: their password is not enough, and who came in by it has
  confirmed nothing.
- What was verified has to be so still in the transaction that lets somebody in or changes an account.
- A change of an account can be a form's (``once``): a form that was used has no second effect.
- While the log is frozen people can log in and out; links, and whatever would be kept, wait.
- What people looked at and were refused is on record once: `Auth.record`.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.auth import credentials, links
from broker.auth.challenges import Asked, Challenges
from broker.auth.confirming import Confirmed, by_passkey, by_password
from broker.auth.errors import (
    CredentialError,
    PasskeyError,
    SessionEndedError,
    StepUpError,
    TooManyError,
    WrongLoginError,
)
from broker.auth.floods import Floods
from broker.auth.oidc import Oidc
from broker.auth.passkeys import Passkeys, credential_of, question_of
from broker.auth.passwords import Passwords
from broker.auth.people import Person, find_person, person_digest, set_lang
from broker.auth.record import Record
from broker.auth.sessions import COOKIE, Login, Opened, Sessions
from broker.errors import RequestInvalidError
from broker.log.actions import acted
from broker.log.errors import LogFrozenError
from broker.store.tables import person
from policies.encoding import digest, digest_of
from policies.limits import OIDC_STATE_S, STEP_UP_MIN

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auth.credentials import Credential
    from broker.log import LogTx, Writer
    from broker.settings import Settings
    from broker.store import Session, Store
    from policies.encoding import Json
    from policies.ports import Clock, Entropy

    Once = Callable[[Session], bool]  # uses a form's mark up; False if it was used

__all__ = ["COOKIE", "Auth", "Confirmed", "Login", "Opened"]

_STEP_MS: Final = STEP_UP_MIN * 60_000
_CONFIRMED: Final = 256  # answers that may be sent twice by one click


class Auth:
    """The service; see the module."""

    def __init__(
        self, *, settings: Settings, store: Store, writer: Writer, clock: Clock, entropy: Entropy
    ) -> None:
        self.settings = settings
        self._store = store
        self._writer = writer
        self._clock = clock
        self._entropy = entropy
        self.sessions = Sessions(store=store, writer=writer, clock=clock, entropy=entropy)
        self.passwords = Passwords()
        self.passkeys = Passkeys(settings.console)
        self.floods = Floods(clock=clock, entropy=entropy)
        self.oidc = Oidc(settings.oidc, console_url=settings.console, clock=clock)
        self._challenges = Challenges(clock=clock, entropy=entropy)
        self._confirmed: OrderedDict[str, Confirmed] = OrderedDict()
        self.record = Record()

    # --- who is it? ---

    def find(self, token: str | None) -> Login | None:
        """Who has this session token; None if nobody, or nobody any more."""
        return self.sessions.find(token)

    def alive(self, login: Login) -> bool:
        """Whether a login is still one, of the same person in the same role; it is not renewed by that."""
        return self.sessions.alive(login)

    # --- logging in ---

    async def log_in(self, name: str, password: str, *, address: str, agent: str = "") -> Opened:
        """By password. 1. not too soon; 2. the password, with as much work for every name; 3. in force.

        Args:
            name: As it was typed.
            password: As it was typed.
            address: Where the request came from.
            agent: What the browser called itself.

        Raises:
            TooManyError: Step 1, or too many at a time.
            WrongLoginError: Step 2 or 3.
        """
        who, kept = self._known(name)
        known = who is not None
        self.floods.check(name, address, known=known)  # 1.
        self.floods.tried(name, address, known=known)  # before the work: tries at once count too
        if not await self.passwords.verify(kept, password) or who is None or not who.active:  # 2. and 3.
            self.floods.wrong += 1
            raise _wrong("a name and its password")
        self.floods.worked(name, address)
        opened = await self.sessions.open(who, "password", agent=agent, check=_password_is(name, kept))
        if kept is not None and self.passwords.outdated(kept):
            await self._rehash(name, password, kept)
        return opened

    def ask_login(self) -> tuple[dict[str, Json], str]:
        """What a browser is asked for a login by passkey, and the ticket for a cookie of its own.

        Raises:
            NoDomainError: The console's address has no domain name.
        """
        asked = self._challenges.ask("login", bound_to="")
        return self.passkeys.login_options(asked.challenge), asked.ticket

    async def log_in_with(self, ticket: str, answer: str, *, address: str = "", agent: str = "") -> Opened:
        """By passkey. 1. the question; 2. whose passkey; 3. its answer; 4. in force; 5. once.

        Raises:
            ChallengeError: Step 1.
            PasskeyError: Step 2 or 3.
            WrongLoginError: Step 4.
        """
        challenge = self._challenges.take("login", bound_to="", ticket=ticket)  # 1.
        passkey = self._passkey(credential_of(answer))  # 2.
        count = self._check(passkey, answer, challenge)  # 3.
        with self._store.read() as session:
            who = find_person(session, passkey.person)
        if who is None or not who.active:  # 4.
            raise _wrong("a passkey of somebody who may log in")
        self._challenges.spend(ticket)  # 5.
        await self._used(passkey, count)
        if address:
            self.floods.worked(who.name, address)
        return await self.sessions.open(who, "passkey", agent=agent, check=_has(passkey))

    def needs_code(self, secret: str) -> bool:
        """Whether a one-time link has a second half."""
        with self._store.read() as session:
            return links.needs_code(session, secret)

    async def enter(self, secret: str, *, code: str | None = None, agent: str = "") -> Opened:
        """By one-time link; it is used up, also by a wrong second half.

        Raises:
            LinkError: It is used, too old or unknown, or its second half is wrong.
            LogFrozenError: Nothing can be kept now; the link stays good.
        """
        now_ms = self._clock.now_ms()

        def work(session: Session, _tx: LogTx) -> Person | None:
            return links.use_link(session, secret=secret, code=code, now_ms=now_ms)

        who, _ = await self._writer.run(work)
        if who is None:
            raise links.wrong_code()
        return await self.sessions.open(
            who, "link", agent=agent, check=lambda session: links.stands(session, secret)
        )

    async def ask_provider(self) -> tuple[str, str]:
        """Where a browser goes for a login at the identity provider, and the ticket for a cookie.

        Raises:
            OidcError: There is none, or it does not answer.
        """
        asked = self._challenges.ask("oidc", bound_to="", within_s=OIDC_STATE_S)
        return await self.oidc.begin(asked.challenge), asked.ticket

    async def enter_from(self, ticket: str, query: Mapping[str, str], *, agent: str = "") -> Opened:
        """By the identity provider.

        Raises:
            ChallengeError, OidcError: What came back proves nothing, or is too late.
            WrongLoginError: Nobody here has this name there.
        """
        challenge = self._challenges.take("oidc", bound_to="", ticket=ticket)
        sub = await self.oidc.finish(query, challenge)
        self._challenges.spend(ticket)
        mine = select(person.c.name).where(person.c.issuer == self.oidc.settings.issuer, person.c.sub == sub)
        with self._store.read() as session:
            name = session.scalar(mine)
            who = None if name is None else find_person(session, name)
        if who is None or not who.active:
            raise WrongLoginError(
                need="a person with this name at the provider",
                found="nobody here",
                remedy="ask the operators: iriai-broker operator add NAME --role ROLE --provider-name SUB",
            )
        return await self.sessions.open(
            who, "oidc", agent=agent, check=lambda session: session.scalar(mine) == name
        )

    # --- one's own account ---

    def credentials_of(self, name: str) -> list[Credential]:
        """What a person logs in with."""
        with self._store.read() as session:
            return credentials.credentials(session, name)

    def ask_passkey(self, login: Login) -> tuple[dict[str, Json], str]:
        """What a browser is asked for a new passkey, and the ticket that its answer brings along.

        Raises:
            NoDomainError: The console's address has no domain name.
            StepUpError: It has to be confirmed first.
        """
        self.check_may_add(login)
        asked = self._challenges.ask("register", bound_to=login.id)
        known = [one.id for one in self.credentials_of(login.person.name) if one.kind == credentials.PASSKEY]
        return self.passkeys.registration_options(login.person.name, asked.challenge, known), asked.ticket

    def check_may_add(self, login: Login) -> None:
        """Refuses a new way to log in that was not confirmed in person.

        Raises:
            StepUpError: There is another way already, and it was not used just now.
        """
        with self._store.read() as session:
            self._check_may_add(session, login)

    def _check_may_add(self, session: Session, login: Login) -> None:
        held = credentials.credentials(session, login.person.name)
        if held and not self._stepped(login, held):
            raise StepUpError(
                need=f"a passkey (a password of who has none) of the last {STEP_UP_MIN} minutes",
                found="a login that is older, or by password" if _passkeys(held) else "an older login",
                remedy="confirm on /console/account that it is you, then send it again",
            )

    def stepped(self, login: Login) -> bool:
        """Whether somebody has just confirmed in person that it is them: with a passkey, if they have one."""
        return self._stepped(login, self.credentials_of(login.person.name))

    def _stepped(self, login: Login, held: list[Credential]) -> bool:
        recent = login.stepped_ms is not None and self._clock.now_ms() - login.stepped_ms < _STEP_MS
        return recent and (login.stepped_by == credentials.PASSKEY or not _passkeys(held))

    def _check_change(self, session: Session, login: Login) -> None:
        """Refuses a change of an account whose login or confirmation ended since it was checked.

        Raises:
            SessionEndedError, StepUpError: It did.
        """
        if not self.sessions.holds(session, login):
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
        made = self.passkeys.check_registration(answer, challenge)
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
            await self.sessions.step(login, "passkey")

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
        hashed = await self.passwords.hash(password)

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
        await self.sessions.end_all(name, keep=login.id)
        if not self.has_passkey(name):
            await self.sessions.step(login, "password")

    async def _check_set(self, name: str, password: str) -> None:
        """Refuses a form that was used already, but for the password that it set."""
        if not await self.passwords.verify(self._known(name)[1], password):
            raise RequestInvalidError(
                need="a form that is sent once",
                found="another password",
                remedy="reload the page and set it anew",
            )

    def has_passkey(self, name: str) -> bool:
        """Whether a person has a passkey: then nothing else confirms for them."""
        return _passkeys(self.credentials_of(name))

    async def set_lang(self, login: Login, lang: str | None) -> None:
        """Keeps the language that a person chose.

        Raises:
            PersonInvalidError: No such language.
        """
        await self._writer.run(lambda session, _tx: set_lang(session, login.person.name, lang))

    async def end_sessions(self, login: Login, which: str | None, *, request: str) -> int:
        """Ends one session of whoever is logged in, or all others; how many, and the log has it."""
        name = login.person.name
        ended = [one.id for one in self.sessions.of(name) if one.id != login.id] if which is None else [which]
        drawn = digest_of([request, self._entropy.token_bytes(16).hex()])  # a form may end more, sent again
        event = acted(name, "session.end", subject=digest_of(sorted(ended)), request=drawn)
        if which is None:
            return await self.sessions.end_all(name, keep=login.id, event=event)
        return int(await self.sessions.end(name, which, event=event))

    async def log_out(self, login: Login) -> None:
        """Ends this session."""
        await self.sessions.end(login.person.name, login.id)

    # --- confirming in person ---

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
        if self.has_passkey(login.person.name):
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
            passkey = self._passkey_of(login, credential_of(assertion))
            count = self._check(passkey, assertion, challenge)
            self._challenges.spend(ticket)
            await self._used(passkey, count)
            await self.sessions.step(login, "passkey", check=_has(passkey))
        else:
            self._check_no_passkey(login)
            await self._step_by_password(login, password, address)

    def ask_step(self, login: Login) -> tuple[dict[str, Json], str]:
        """What a browser is asked for `step_up`, and the ticket that its answer brings along.

        Raises:
            NoDomainError: The console's address has no domain name.
        """
        asked: Asked = self._challenges.ask("step", bound_to=login.id)
        known = [one.id for one in self.credentials_of(login.person.name) if one.kind == credentials.PASSKEY]
        return self.passkeys.login_options(asked.challenge, known), asked.ticket

    async def _confirm_with(self, login: Login, subject: bytes, answer: str) -> Confirmed:
        slot = digest_of([login.id, digest(subject), digest(answer.encode("utf-8", "replace"))])
        again = self._confirmed.get(slot)  # a form that was sent twice by one click
        if again is not None:
            return again
        passkey = self._passkey_of(login, credential_of(answer))
        count = self._check(passkey, answer, question_of(subject))
        confirmed = by_passkey(login, subject, answer, passkey)
        await self._used(passkey, count)
        await self.sessions.step(login, "passkey", check=_has(passkey))
        self._confirmed[slot] = confirmed
        while len(self._confirmed) > _CONFIRMED:
            self._confirmed.popitem(last=False)
        return confirmed

    async def _step_by_password(self, login: Login, password: str, address: str) -> Login:
        name = login.person.name
        _, kept = self._known(name)
        self.floods.check(name, address, known=True)
        self.floods.tried(name, address, known=True)
        if not await self.passwords.verify(kept, password):
            self.floods.wrong += 1
            raise _wrong("your password")
        self.floods.worked(name, address)
        check = _password_is(name, kept)
        return await self.sessions.step(login, "password", check=check)

    # --- parts ---

    def _known(self, name: str) -> tuple[Person | None, bytes | None]:
        with self._store.read() as session:
            who = find_person(session, name)
            return who, credentials.password_of(session, name)

    def _passkey(self, name: str) -> Credential:
        with self._store.read() as session:
            found = credentials.find_passkey(session, name)
        if found is None:
            raise PasskeyError(
                need="a passkey that somebody added here",
                found="an unknown one",
                remedy="use another one, or your password; ask an operator for a link if you have none",
            )
        return found

    def _passkey_of(self, login: Login, name: str) -> Credential:
        found = self._passkey(name)
        if found.person != login.person.name:
            raise PasskeyError(
                need=f"a passkey of {login.person.name}",
                found="somebody else's",
                remedy="choose your own in the browser's list",
            )
        return found

    def _check(self, passkey: Credential, answer: str, challenge: bytes) -> int:
        return self.passkeys.check_answer(
            answer, challenge, name=passkey.person, key=passkey.key, count=passkey.count
        )

    async def _used(self, passkey: Credential, count: int) -> None:
        now_ms = self._clock.now_ms()

        def work(session: Session, _tx: LogTx) -> None:
            credentials.used_passkey(session, id=passkey.id, count=count, now_ms=now_ms)

        with contextlib.suppress(LogFrozenError):
            await self._writer.run(work)

    async def _rehash(self, name: str, password: str, kept: bytes) -> None:
        """Keeps a stronger hash of the same password, unless there is another password by now."""
        try:
            hashed = await self.passwords.hash(password)
        except TooManyError:  # the next login does it
            return
        now_ms = self._clock.now_ms()

        def work(session: Session, _tx: LogTx) -> None:
            if credentials.password_of(session, name) == kept:
                credentials.keep_password(session, name=name, hashed=hashed, now_ms=now_ms)

        with contextlib.suppress(LogFrozenError):
            await self._writer.run(work)


def _passkeys(held: list[Credential]) -> bool:
    return any(one.kind == credentials.PASSKEY for one in held)


def _password_is(name: str, kept: bytes | None) -> Callable[[Session], bool]:
    """Whether a person's password is still the one that was verified."""
    return lambda session: kept is not None and credentials.password_of(session, name) == kept


def _has(passkey: Credential) -> Callable[[Session], bool]:
    """Whether a passkey is still its person's."""

    def check(session: Session) -> bool:
        found = credentials.find_passkey(session, passkey.id)
        return found is not None and (found.person, found.key) == (passkey.person, passkey.key)

    return check


def _wrong(need: str) -> WrongLoginError:
    return WrongLoginError(
        need=need,
        found="something else",
        remedy="try again; ask an operator for a new link: iriai-broker operator reset-login NAME",
    )
