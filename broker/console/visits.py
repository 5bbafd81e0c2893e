# SPDX-License-Identifier: Apache-2.0
"""One request of a person, or of nobody: who, in which language, and what the log has to say of it.

The steps' numbers are those of `broker.console.frame`.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Final

from broker.auth.sessions import COOKIE
from broker.console.errors import CrossSiteError, LoginNeededError, RoleError
from broker.console.languages import chosen
from broker.console.pages import Shell
from broker.console.rooms import all_routes
from broker.console.screens import ANYONE
from broker.console.viewing import View, caller_of
from broker.log.errors import LogError
from broker.membership.directory import Operator
from broker.membership.records import console_action
from policies.encoding import digest_of
from policies.errors import IriaiError

if TYPE_CHECKING:
    from starlette.requests import Request

    from broker.auth.service import Login
    from broker.console.screens import Done, Route
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session
    from policies.log.entries import Event

__all__ = ["LANG_COOKIE", "Visit"]

LANG_COOKIE: Final = "__Host-iriai-lang"
_DENIED: Final = 4  # exit code of what the policy denies


class Visit:
    """One request, as all kinds of routes need it."""

    def __init__(self, request: Request, route: Route) -> None:
        self.request = request
        self.route = route
        self.services: Services = request.app.state.services
        self.query = _query(request)
        self.login: Login | None = self.services.auth.find(request.cookies.get(COOKIE))
        self.lang = chosen(
            self.query.get("lang"),
            request.cookies.get(LANG_COOKIE),
            self.login.person.lang if self.login else None,
            accept=request.headers.get("accept-language", ""),
        )

    @property
    def path(self) -> dict[str, str]:
        """What the address gives for the places in the route's path."""
        return {name: str(value) for name, value in self.request.path_params.items()}

    @property
    def address(self) -> str:
        """Where the request came from, for counting failed logins."""
        return self.request.client.host if self.request.client else ""

    def pay(self) -> None:
        """Lets the person behind the login pay for the request, instead of their address.

        Raises:
            RequestRateError: They have used up their allowance.
        """
        if self.login is not None:
            self.services.admission.proved(self.request.scope, f"person {self.login.person.name}")

    def shell(self, said: Done | None = None) -> Shell:
        """What stands around the screen."""
        role = self.login.person.role if self.login else ANYONE
        return Shell(
            route=self.route,
            nav=[one for one in all_routes() if one.nav and (role in one.roles or ANYONE in one.roles)],
            login=self.login,
            lang=self.lang,
            now_ms=self.services.clock.now_ms(),
            path=self.request.url.path,
            query=self.query,
            once=self.services.entropy.token_bytes(16).hex(),
            mask=self.services.entropy.token_bytes(43),
            origin=self.services.writer.origin,
            said=said,
            counts=self._counts,
        )

    def _counts(self) -> int | None:
        return None if self.login is None else self.services.auth.confirmations.password_counts(self.login)

    async def check_role(self) -> None:
        """Step 2: the role fits the route.

        Raises:
            LoginNeededError: Nobody is signed in.
            RoleError: Somebody whose role it is not for; the log has it.
        """
        if ANYONE in self.route.roles:
            return
        if self.login is None:
            raise LoginNeededError(
                need="somebody who is signed in", found="nobody, or a login that has ended", remedy="sign in"
            )
        if self.login.person.role not in self.route.roles:
            await self._note_refused()
            raise RoleError(
                need="a person with the role " + " or ".join(sorted(self.route.roles)),
                found=f"role {self.login.person.role}",
                remedy="ask somebody who has it",
            )

    async def _note_refused(self) -> None:
        """Logs, once per login and route, that a role asked for what is not for it; see `REFUSALS_NOTED`."""
        login = self.login
        if login is None or not self.services.auth.record.may_refuse(login, self.route.name):
            return
        event = console_action(
            Operator(name=login.person.name, key=b"", active=True),
            f"console.{self.route.name}",
            subject=digest_of([self.route.path]),
            request=digest_of(["refused", login.id, self.route.name]),
            result="refused",
        )

        with contextlib.suppress(LogError):
            await self._log(event)
            self.services.auth.record.keep_refused(login, self.route.name)

    def view(self, session: Session) -> View:
        """What the screen's function gets."""
        return View(
            services=self.services,
            session=session,
            login=self.login,
            path=self.path,
            query=self.query,
            now_ms=self.services.clock.now_ms(),
            lang=self.lang,
        )

    async def note_reads(self, view: View) -> None:
        """Step 4: what was read, and the decisions behind it, go to the log."""
        await self._note_later(view)
        if self.login is None or not view.reads:
            return
        login = self.login

        record = self.services.auth.record
        if record.unread(login, view.reads):
            with contextlib.suppress(LogError):
                await self.services.writer.run(lambda _session, tx: record.add(tx, login, view.reads))
                record.keep(login, view.reads)

    async def _note_later(self, view: View) -> None:
        """Logs the decisions behind what was shown; a frozen log takes none, and reads go on."""

        def work(session: Session, tx: LogTx) -> None:
            for one in view.later:
                one(session, tx)

        if view.later:
            with contextlib.suppress(LogError):
                await self.services.writer.run(work)

    async def note_denied(self, error: IriaiError) -> None:
        """Logs an act that the policy denied to one of our people, as the API does."""
        if self.route.kind != "act" or self.login is None or isinstance(error, (CrossSiteError, RoleError)):
            return
        if error.exit_code != _DENIED:
            return
        with contextlib.suppress(IriaiError):
            person = caller_of(self.services, self.login)
            if not isinstance(person, Operator):
                return
            event = console_action(
                person,
                f"console.{self.route.name}",
                subject=digest_of([error.code, getattr(error, "clause", None)]),
                request=digest_of(["denied", self.login.id, self.shell().once]),
                result="refused",
            )
            await self._log(event)

    async def _log(self, event: Event) -> None:
        def work(_session: Session, tx: LogTx) -> None:
            tx.add(event)

        await self.services.writer.run(work)


def _query(request: Request) -> dict[str, str]:
    return {name: value for name, value in request.query_params.items() if "\0" not in name + value}
