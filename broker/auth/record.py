# SPDX-License-Identifier: Apache-2.0
"""What people looked at and were refused, and that it is on record already: once for each login, no flood.

    if record.unread(login, reads):           what this process does not remember to have logged
        record.add(tx, login, reads)          in a transaction
        record.keep(login, reads)             after its commit

The memory is this process's and bounded. What is forgotten is logged again, as the same event: the log has it
once.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Final

from broker.log.actions import acted
from policies.encoding import digest, digest_of
from policies.limits import REFUSALS_NOTED

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.auth.sessions import Login
    from broker.log import LogTx

__all__ = ["Record"]

_READS: Final = 10_000
_LOGINS: Final = 1_000
Read = tuple[str, str]
"""What kind of thing, as a reason code has it (``budget``), and which: a digest, or an id."""


class Record:
    """For one process."""

    def __init__(self) -> None:
        self._reads: OrderedDict[str, None] = OrderedDict()
        self._refused: OrderedDict[str, frozenset[str]] = OrderedDict()

    def unread(self, login: Login, reads: Iterable[Read]) -> bool:
        """Whether one of these confidential reads is not on record yet, as far as this process remembers."""
        return any(_name(login, *one) not in self._reads for one in reads)

    @staticmethod
    def add(tx: LogTx, login: Login, reads: Sequence[Read]) -> None:
        """Puts confidential reads on record, each once for each session and object."""
        for what, subject in reads:
            named = digest(subject.encode("utf-8", "replace"))
            event = acted(
                login.person.name, f"read.{what}", subject=named, request=_name(login, what, subject)
            )
            tx.add(event)

    def keep(self, login: Login, reads: Iterable[Read]) -> None:
        """Remembers that these reads are on record, after the commit."""
        self._reads.update({_name(login, *one): None for one in reads})
        while len(self._reads) > _READS:
            self._reads.popitem(last=False)

    def may_refuse(self, login: Login, route: str) -> bool:
        """Whether it goes on record that somebody asked for what is not their role's (`REFUSALS_NOTED`)."""
        noted = self._refused.get(login.id, frozenset())
        return route not in noted and len(noted) < REFUSALS_NOTED

    def keep_refused(self, login: Login, route: str) -> None:
        """Remembers that it is on record, after the commit."""
        self._refused[login.id] = self._refused.pop(login.id, frozenset()) | {route}
        while len(self._refused) > _LOGINS:
            self._refused.popitem(last=False)


def _name(login: Login, what: str, subject: str) -> str:
    """Names a read of an object in a session."""
    return digest_of(["read", login.id, what, digest(subject.encode("utf-8", "replace"))])
