# SPDX-License-Identifier: Apache-2.0
"""Which keys took the place of which, by the entries ``key.rotated``: one member's line of keys.

Keys are named by their ids (`policies.identity.key_id`), as `log_envelope.signer` has them. A key that never
changed is a line of its own.

    rotations = Rotations.read(session)
    rotations.first("65d2…")        # id of the key that the line began with
    rotations.line("65d2…")         # every key of the line, the first one first
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import select

from broker.store.prepared import Prepared
from broker.store.tables import log_entry
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Iterable

    from broker.store import Session

__all__ = ["Rotations"]

_KEY_ID_HEX: Final = 16
_ROTATED: Final = Prepared(
    select(log_entry.c.body).where(log_entry.c.type == EntryType.KEY_ROTATED.value).order_by(log_entry.c.idx)
)


class Rotations:
    """Lines of keys; see the module. Immutable once made."""

    def __init__(self, pairs: Iterable[tuple[str, str]] = ()) -> None:
        """Takes (old, new) pairs of key ids in the order of the log; the first about a new key counts."""
        self._old: dict[str, str] = {}
        for old, new in pairs:
            self._old.setdefault(new, old)

    @classmethod
    def read(cls, session: Session) -> Rotations:
        """The lines that the log shows in this transaction."""
        pubs = (json.loads(body)["pub"] for (body,) in _ROTATED.all(session, {}))
        return cls((_key_id(one["old"]), _key_id(one["new"])) for one in pubs)

    def first(self, kid: str) -> str:
        """The key that a line began with."""
        seen = {kid}
        while (before := self._old.get(kid)) is not None and before not in seen:
            seen.add(before)
            kid = before
        return kid

    def gave_up(self, kid: str) -> bool:
        """Whether another key took the place of this one: it is nobody's any more."""
        return kid in self._old.values()

    def line(self, kid: str) -> tuple[str, ...]:
        """Every key of the line that a key belongs to, its first one first."""
        first = self.first(kid)
        return (first, *sorted(one for one in self._old if self.first(one) == first))


def _key_id(kid: str) -> str:
    """Id of the key whose digest stands in an entry (`policies.identity.key_id`)."""
    return kid.removeprefix("sha256:")[:_KEY_ID_HEX]
