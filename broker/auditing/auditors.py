# SPDX-License-Identifier: Apache-2.0
"""Auditors: enrolled by one operator, known by a key of their own, gone when revoked.

- A name and a key are enrolled once, for ever: neither comes back, and no key is two people's. The name of a
  person or of an operator's key is no auditor's; that of a person who has the role of an auditor is theirs.
- ``key.added`` (role ``auditor``) and ``key.revoked`` say in the log from where to where the key counts.
- Who is revoked may ask for nothing any more; grants end with it (`broker.auditing.grants`). A vote of its
  witness takes two people to begin and two to end (`broker.acts.witnesses`).

The directory is told after the commit (`broker.services.Services.refresh`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import insert, select, update

from broker.auditing.errors import AuditorTakenError, AuditorUnknownError
from broker.auth.people import AUDITOR, kinds_of
from broker.log.rotations import Rotations
from broker.membership.directory import ACTIVE, REVOKED
from broker.membership.records import console_action, key_added
from broker.store.tables import auditor
from policies.encoding import Json, digest
from policies.identity import fingerprint, key_id, key_text, parse_key
from policies.log.entries import EntryType, Event
from policies.ports import iso_s

if TYPE_CHECKING:
    from broker.log import LogTx
    from broker.membership.directory import Directory, Operator
    from broker.store import Session
    from policies.ports import Clock

__all__ = ["Auditors"]


def _name_of_another(session: Session, name: str) -> str | None:
    """The name, if a person of another kind of role, or an operator's key, has or had it."""
    return name if kinds_of(session, name) - {AUDITOR} else None


class Auditors:
    """The service; see the module for its rules."""

    def __init__(self, *, clock: Clock, directory: Directory) -> None:
        self._clock = clock
        self._directory = directory

    def add(
        self, session: Session, tx: LogTx, *, name: str, key: bytes, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Enrols an auditor.

        Args:
            session: Of the transaction.
            tx: Of the transaction.
            name: As entries name them (`policies.log.kinds.NAME`).
            key: Raw Ed25519 key, checked.
            operator: Who does it.
            request: Digest of the request.

        Raises:
            AuditorTakenError: The name or the key is somebody's, or was.
        """
        kid = key_id(key)
        named = session.scalar(select(auditor.c.name).where(auditor.c.name == name))
        named = named or _name_of_another(session, name)
        if named is not None or self._directory.knows(kid) or Rotations.read(session).gave_up(kid):
            raise AuditorTakenError(
                need="a name and a key that are new here",
                found=f"the name {name}" if named is not None else f"the key {kid}",
                remedy="choose another name, and a key that is used for nothing else",
            )
        session.execute(
            insert(auditor).values(name=name, key=key_text(key), state=ACTIVE, at_ms=self._clock.now_ms())
        )
        tx.add(console_action(operator, "auditor.add", subject=digest(key), request=request))
        tx.add(key_added("auditor", "ed25519", key, shown=key_text(key)))
        return {"name": name, "key": key_text(key), "fingerprint": fingerprint(key)}

    def revoke(
        self, session: Session, tx: LogTx, *, name: str, reason: str, operator: Operator, request: str
    ) -> None:
        """Ends an auditor's access at once.

        Raises:
            AuditorUnknownError: Nobody of this name is in force.
        """
        key = self.key_of(session, name)
        session.execute(
            update(auditor).where(auditor.c.name == name).values(state=REVOKED, at_ms=self._clock.now_ms())
        )
        tx.add(console_action(operator, "auditor.revoke", subject=digest(key), request=request))
        tx.add(
            Event(
                type=EntryType.KEY_REVOKED,
                pub={"kid": digest(key), "reason": reason, "valid_until": tx.size},
            )
        )

    def key_of(self, session: Session, name: str) -> bytes:
        """Key of an auditor in force.

        Raises:
            AuditorUnknownError: Nobody of this name is in force.
        """
        mine = (auditor.c.name == name) & (auditor.c.state == ACTIVE)
        key = session.scalar(select(auditor.c.key).where(mine))
        if key is None:
            raise AuditorUnknownError(
                need="an auditor in force", found=ascii(name)[1:-1][:60], remedy="iriai-broker auditor list"
            )
        return parse_key(key)

    def keys(self, session: Session) -> tuple[bytes, ...]:
        """Keys of all auditors in force."""
        found = session.scalars(
            select(auditor.c.key).where(auditor.c.state == ACTIVE).order_by(auditor.c.name)
        )
        return tuple(parse_key(one) for one in found)

    def list_all(self, session: Session) -> list[dict[str, Json]]:
        """Everybody who was enrolled, as operators see them."""
        return [
            {
                "name": row["name"],
                "key": row["key"],
                "fingerprint": fingerprint(parse_key(row["key"])),
                "state": row["state"],
                "since": iso_s(row["at_ms"]),
            }
            for row in session.execute(select(auditor).order_by(auditor.c.name)).mappings()
        ]
