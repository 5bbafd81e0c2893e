# SPDX-License-Identifier: Apache-2.0
"""One form that a person sent: who, what, and that it happens once.

In this order, before the act's own code runs (`broker.console.frame`):

1. The login is there, not idle for too long, not revoked.
2. The form came from a page of ours: ``Sec-Fetch-Site`` or ``Origin``, and the login's token.
3. The role fits the route.
4. `Act.change`: the effect, its log entries and the mark that this form was used are one transaction, in
   which the login is looked at once more. The same form sent again gets the same answer and has no second
   effect. Changes that a service makes in transactions of its own use the mark up there (`Act.spend`).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy import insert, select

from broker.auth.errors import SessionEndedError
from broker.console.viewing import caller_of
from broker.errors import RequestInvalidError, WrongRoleError
from broker.membership.directory import Member, Operator
from broker.store.tables import idempotency
from policies.encoding import canonical, digest, digest_of
from policies.log.kinds import REASON

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auth.confirming import Confirmed
    from broker.auth.service import Login
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["Act"]

_ONCE_CHARS = 64
_NOT_KEPT = frozenset({"csrf", "once", "password", "new_password", "assertion"})


@dataclass(kw_only=True)
class Act:
    """A verified form; ``path`` and ``form`` are what the route and the person gave."""

    services: Services
    login: Login
    name: str
    path: Mapping[str, str]
    form: Mapping[str, str]
    address: str
    lang: str
    after: list[Callable[[], None]] = field(default_factory=list)

    @property
    def operator(self) -> Operator:
        """The operator or approver who acts.

        Raises:
            WrongRoleError: Somebody else.
        """
        found = caller_of(self.services, self.login)
        if not isinstance(found, Operator):
            raise WrongRoleError(
                need="one of the broker's own people",
                found=f"role {self.login.person.role}",
                remedy="ask an operator",
            )
        return found

    @property
    def member(self) -> Member:
        """The organisation for whom a member's person acts.

        Raises:
            WrongRoleError: Somebody else.
        """
        found = caller_of(self.services, self.login)
        if not isinstance(found, Member):
            raise WrongRoleError(
                need="a person of a member", found=f"role {self.login.person.role}", remedy="use its login"
            )
        return found

    @property
    def request(self) -> str:
        """Digest that names this form and its repetitions: ``request`` in log entries."""
        return digest_of(
            [
                "console",
                self.login.person.name,
                self.name,
                dict(sorted(self.path.items())),
                self.form.get("once", ""),
            ]
        )

    def field(self, name: str, *, most: int = 4_000) -> str:
        """What the person wrote, without blanks around it.

        Raises:
            RequestInvalidError: Nothing, or too much.
        """
        found = self.form.get(name, "").strip()
        if not found or len(found) > most:
            raise RequestInvalidError(
                need=f"{name}: 1 to {most} characters",
                found=f"{len(found)}",
                remedy="fill it in and send again",
            )
        return found

    def word(self, name: str) -> str:
        """A word for programs that the person wrote, such as a reason: ``operator-decision``.

        Raises:
            RequestInvalidError: Another form.
        """
        found = self.field(name, most=80)
        if not REASON.holds(found):
            raise RequestInvalidError(
                need=f"{name}: small letters and digits, joined by hyphens or points",
                found=ascii(found)[1:-1][:80],
                remedy="write it like operator-decision and send again",
            )
        return found

    async def confirmed(self, subject: bytes) -> Confirmed:
        """The person's word for exactly these bytes, which the form showed them.

        Raises:
            RequestInvalidError: The form was about other bytes.
            AuthError: Neither passkey nor password, or a wrong one.
        """
        if self.form.get("subject") != digest(subject):
            raise RequestInvalidError(
                need=f"a word about {digest(subject)}",
                found=ascii(self.form.get("subject", ""))[1:-1][:80],
                remedy="it changed meanwhile: reload the page, look at it again",
            )
        return await self.services.auth.confirmations.confirm(
            self.login,
            subject,
            assertion=self.form.get("assertion", ""),
            password=self.form.get("password", ""),
            address=self.address,
        )

    async def change(self, effect: Callable[[Session, LogTx], object]) -> None:
        """Runs an effect once, with its log entries, in one transaction; then the steps of `after`.

        Raises:
            RequestInvalidError: A form without its mark.
        """

        def work(session: Session, tx: LogTx) -> None:
            if self.spend(session):
                effect(session, tx)

        await self.services.writer.run(work)
        for step in self.after:
            step()

    def spend(self, session: Session) -> bool:
        """Uses up the form's mark, as part of a unit of work; False if this form was used before.

        Raises:
            RequestInvalidError: A form without its mark, or a used one with another content.
            SessionEndedError: The login ended meanwhile.
        """
        once = self.form.get("once", "")
        if not 0 < len(once) <= _ONCE_CHARS or not once.isalnum():
            raise RequestInvalidError(
                need="a form of this console",
                found="one without its mark",
                remedy="reload the page and send it again",
            )
        if not self.services.auth.sessions.holds(session, self.login):
            raise SessionEndedError(
                need="a login that is still good", found="it ended meanwhile", remedy="sign in again"
            )
        slot = {"key_id": f"person:{self.login.person.name}", "idem": once}
        body = digest(canonical([self.name, dict(self.path), _content(self.form)]))
        mine = (idempotency.c.key_id == slot["key_id"]) & (idempotency.c.idem == once)
        known = session.scalar(select(idempotency.c.body_digest).where(mine))
        if known is None:
            row = {**slot, "body_digest": body, "status": 303, "response": b"{}"}
            session.execute(insert(idempotency).values(**row, at_ms=self.services.clock.now_ms()))
        elif known != body:
            raise RequestInvalidError(
                need="a form that is sent once",
                found="another content",
                remedy="reload the page and fill it in anew",
            )
        return known is None


def _content(form: Mapping[str, str]) -> dict[str, str]:
    """What counts as the content of a form: all but passwords, assertions and tokens."""
    return {name: value for name, value in form.items() if name not in _NOT_KEPT}
