# SPDX-License-Identifier: Apache-2.0
"""People's logins, composed once: `services.auth`.

    login = auth.find(request.cookies.get(COOKIE))                    None: nobody is logged in
    opened = await auth.log_in(name, password, address=..., agent=...)          cookie: opened.token
    asked = auth.ask_login();  opened = await auth.log_in_with(asked.ticket, answer)
    opened = await auth.enter(secret, code=None)                      by a one-time link
    confirmed = await auth.confirmations.confirm(login, subject, assertion=...)
    await auth.account.set_password(login, password, request=...)

- Every login draws a fresh token (`broker.auth.sessions`). Wrong names, passwords and people who were
  disabled are told apart by nobody, nor by how long they take.
- What was verified has to be so still in the transaction that lets somebody in.
- While the log is frozen people can log in and out; links, and whatever would be kept, wait.
- What people looked at and were refused is on record once: `Auth.record`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from sqlalchemy import select

from broker.auth import credentials, links
from broker.auth.account import Account
from broker.auth.challenges import Challenges
from broker.auth.confirmations import Confirmations
from broker.auth.confirming import Confirmed
from broker.auth.devices import Devices
from broker.auth.errors import (
    TooManyError,
    WrongLoginError,
)
from broker.auth.floods import Floods
from broker.auth.holdings import Holdings, has, password_is, wrong
from broker.auth.oidc import Oidc
from broker.auth.passkeys import Passkeys, credential_of
from broker.auth.passwords import Passwords
from broker.auth.people import Person, find_person
from broker.auth.record import Record
from broker.auth.sessions import COOKIE, Login, Opened, Sessions
from broker.log.errors import LogFrozenError
from broker.store.tables import person
from policies.limits import OIDC_STATE_S

if TYPE_CHECKING:
    from collections.abc import Mapping

    from broker.log import LogTx, Writer
    from broker.settings import Settings
    from broker.store import Session, Store
    from policies.encoding import Json
    from policies.identity import SigningKey
    from policies.ports import Clock, Entropy


__all__ = ["COOKIE", "Auth", "Confirmed", "Login", "Opened"]


class Auth:
    """The service; see the module."""

    def __init__(
        self,
        *,
        settings: Settings,
        store: Store,
        writer: Writer,
        clock: Clock,
        entropy: Entropy,
        key: SigningKey,
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
        self.devices = Devices(key, entropy)
        self.oidc = Oidc(settings.oidc, console_url=settings.console, clock=clock)
        self._challenges = Challenges(clock=clock, entropy=entropy)
        self.holdings = Holdings(store=store, writer=writer, clock=clock, passkeys=self.passkeys)
        self.confirmations = Confirmations(
            clock=clock,
            holdings=self.holdings,
            challenges=self._challenges,
            sessions=self.sessions,
            passkeys=self.passkeys,
            passwords=self.passwords,
            floods=self.floods,
        )
        self.account = Account(
            store=store,
            writer=writer,
            clock=clock,
            entropy=entropy,
            holdings=self.holdings,
            confirmations=self.confirmations,
            challenges=self._challenges,
            sessions=self.sessions,
            passkeys=self.passkeys,
            passwords=self.passwords,
        )
        self.record = Record()

    def find(self, token: str | None) -> Login | None:
        """Who has this session token; None if nobody, or nobody any more."""
        return self.sessions.find(token)

    def alive(self, login: Login) -> bool:
        """Whether a login is still one, of the same person in the same role; it is not renewed by that."""
        return self.sessions.alive(login)

    async def log_in(
        self, name: str, password: str, *, address: str, agent: str = "", device: str = ""
    ) -> Opened:
        """By password. 1. not too soon; 2. the password, with as much work for every name; 3. in force.

        Args:
            name: As it was typed.
            password: As it was typed.
            address: Where the request came from.
            agent: What the browser called itself.
            device: Its cookie `broker.auth.devices.DEVICE`.

        Raises:
            TooManyError: Step 1, or too many at a time.
            WrongLoginError: Step 2 or 3.
        """
        who, kept = self.holdings.known(name)
        known, own = who is not None, self.devices.of(name, device)
        self.floods.check(name, address, known=known, own=own)  # 1.
        self.floods.tried(name, address, known=known, own=own)  # before the work: tries at once count too
        if not await self.passwords.verify(kept, password) or who is None or not who.active:  # 2. and 3.
            self.floods.wrong += 1
            raise wrong("a name and its password")
        self.floods.worked(name, address, own)
        opened = await self.sessions.open(who, "password", agent=agent, check=password_is(name, kept))
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
        passkey = self.holdings.passkey(credential_of(answer))  # 2.
        count = self.holdings.check(passkey, answer, challenge)  # 3.
        with self._store.read() as session:
            who = find_person(session, passkey.person)
        if who is None or not who.active:  # 4.
            raise wrong("a passkey of somebody who may log in")
        self._challenges.spend(ticket)  # 5.
        await self.holdings.used(passkey, count)
        if address:
            self.floods.worked(who.name, address)
        return await self.sessions.open(who, "passkey", agent=agent, check=has(passkey))

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
                remedy="ask the operators: iriai-broker operator add NAME --role ROLE --provider-name SUB "
                "--dir DIR --key FILE",
            )
        return await self.sessions.open(
            who, "oidc", agent=agent, check=lambda session: session.scalar(mine) == name
        )

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
