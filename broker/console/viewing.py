# SPDX-License-Identifier: Apache-2.0
"""Who looks, at what, when: what a screen is made from.

- A view holds one read of the database; every panel of a page shows the same state.
- `caller` is the person as the services know them: an operator, an auditor, or the organisation's node of a
  member. What it may see is decided by the same functions as for the API.
- A confidential read is noted (`read`), and logged once the page is made; see `broker.console.frame`. So are
  decisions about what was shown (`later`: units of work of the writer).
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sqlalchemy.exc import DBAPIError

from broker.console.screens import ANYONE, Panel
from broker.errors import NotFoundError
from broker.log.errors import LogUnavailableError
from broker.membership.directory import Auditor, Member, Operator
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from broker.auth.service import Login
    from broker.console.values import T
    from broker.log import LogTx
    from broker.services import Services
    from broker.store import Session

__all__ = ["View"]

_log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class View:
    """One look at one screen."""

    services: Services
    session: Session
    login: Login | None
    path: Mapping[str, str]
    query: Mapping[str, str]
    now_ms: int
    lang: str
    reads: list[tuple[str, str]] = field(default_factory=list)
    later: list[Callable[[Session, LogTx], None]] = field(default_factory=list)

    @property
    def signed_in(self) -> Login:
        """The login of whoever looks; routes for people have one.

        Raises:
            NotFoundError: Nobody is signed in.
        """
        if self.login is None:
            raise _not_here()
        return self.login

    @property
    def role(self) -> str:
        """Role of whoever looks; ``anyone`` without a login."""
        return ANYONE if self.login is None else self.login.person.role

    @property
    def caller(self) -> Member | Operator | Auditor:
        """The person as the services know them.

        Raises:
            NotFoundError: A member whose organisation is not enrolled here.
        """
        return caller_of(self.services, self.signed_in)

    @property
    def party(self) -> Member | Operator:
        """The same, for views of operators and members.

        Raises:
            NotFoundError: An auditor.
        """
        found = self.caller
        if isinstance(found, Auditor):
            raise _not_here()
        return found

    def read(self, what: str, subject: str) -> None:
        """Notes that confidential data were shown: what, and of which object (a digest or an id)."""
        self.reads.append((what, subject))

    def panel(self, name: str, title: T, make: Callable[[], Panel]) -> Panel:
        """The panel that `make` gives, or, where its source cannot be read, one with the code of that."""
        try:
            return make()
        except (IriaiError, DBAPIError, OSError) as error:
            if isinstance(error, IriaiError):
                return Panel(name=name, title=title, error=error)
            _log.exception("panel %s", name)
            unread = LogUnavailableError(
                need="a source that can be read", found=type(error).__name__, remedy="reload; see the log"
            )
            return Panel(name=name, title=title, error=unread)


def caller_of(services: Services, login: Login) -> Member | Operator | Auditor:
    """The person behind a login as the services know them.

    Raises:
        NotFoundError: A member whose organisation is not active here.
    """
    person = login.person
    if person.role in {"operator", "approver"}:
        return Operator(name=person.name, key=b"", active=True)
    if person.role == "auditor":
        return Auditor(name=person.name, key=b"", active=True)
    member = services.directory.of_org(person.org or "")
    if member is None or not member.active:
        raise _not_here()
    return member


def _not_here() -> NotFoundError:
    return NotFoundError(need="something that is yours to see", found="nothing here", remedy="sign in")
