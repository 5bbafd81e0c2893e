# SPDX-License-Identifier: Apache-2.0
"""Which keys took the place of which, by the entries ``key.rotated``: one member's line of keys.

Keys are named by their ids (`policies.identity.key_id`), as `log_envelope.signer` has them. A key that never
changed is a line of its own.

    rotations = Rotations.read(session)
    rotations.first("65d2…")        # id of the key that the line began with
    rotations.line("65d2…")         # every key of the line, the first one first

The log's own keys change in the same way, with the role ``log`` (`log_keys`): the new one signs from its
entry on, the old one beside it for `LOG_KEY_OVERLAP_DAYS` more, so that whoever pinned it has time to learn
the new one. A key file without an entry signs nothing.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from sqlalchemy import select

from broker.log.errors import LogKeyError
from broker.log.signer import LogKey
from broker.store.prepared import Prepared
from broker.store.tables import log_entry
from policies.encoding import digest
from policies.limits import LOG_KEY_OVERLAP_DAYS
from policies.log.entries import EntryType

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.store import Session
    from policies.identity import SigningKey

__all__ = ["LogRotation", "Rotations", "log_keys", "log_rotations", "signer_of"]

_KEY_ID_HEX: Final = 16
DAY_MS: Final = 86_400_000
_ROTATED_AT: Final = Prepared(
    select(log_entry.c.body, log_entry.c.ts_ms)
    .where(log_entry.c.type == EntryType.KEY_ROTATED.value)
    .order_by(log_entry.c.idx)
)
_ROTATED: Final = Prepared(
    select(log_entry.c.body).where(log_entry.c.type == EntryType.KEY_ROTATED.value).order_by(log_entry.c.idx)
)


class LogRotation(NamedTuple):
    """One change of the log's key: where its entry stands, and the digests of both keys."""

    at: int
    old: str
    new: str


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
        return cls((signer_of(one["old"]), signer_of(one["new"])) for one in pubs)

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


def log_keys(session: Session, keys: Sequence[SigningKey]) -> tuple[LogKey, ...]:
    """The log's keys by its entries: the one in force, then the ones before it, newest first.

    Args:
        session: Of the main database.
        keys: From the key files, the log's first key first.

    Raises:
        LogKeyError: The key that the log names last is not among them.
    """
    by_kid = {digest(key.public): key for key in keys}
    line = [LogKey(keys[0], None)]
    for body, ts_ms in _ROTATED_AT.all(session, {}):
        pub = json.loads(body)["pub"]
        if pub["role"] != "log" or pub["old"] != digest(line[0].key.public):
            continue
        new = by_kid.get(pub["new"])
        if new is None:
            raise LogKeyError(
                need=f"the log's key {pub['new']}, which signs since an entry key.rotated",
                found=f"{len(keys)} other key files",
                remedy="put the key file back into the folder keys; without it only log succeed goes on",
            )
        line = [LogKey(new, None), LogKey(line[0].key, ts_ms + LOG_KEY_OVERLAP_DAYS * DAY_MS), *line[1:]]
    return tuple(line)


def log_rotations(session: Session) -> list[LogRotation]:
    """Every change of the log's own key, in the order of the log."""
    query = (
        select(log_entry.c.idx, log_entry.c.body)
        .where(log_entry.c.type == EntryType.KEY_ROTATED.value)
        .order_by(log_entry.c.idx)
    )
    pubs = [(row.idx, json.loads(row.body)["pub"]) for row in session.execute(query)]
    return [LogRotation(at, pub["old"], pub["new"]) for at, pub in pubs if pub["role"] == "log"]


def signer_of(kid: str) -> str:
    """Id of the key whose digest stands in an entry (`policies.identity.key_id`)."""
    return kid.removeprefix("sha256:")[:_KEY_ID_HEX]
