# SPDX-License-Identifier: Apache-2.0
"""What people log in with: rows of passkeys and of one password each. Parts of units of work.

The log says which passkey is whose from where to where (``passkey.add``, ``passkey.remove``, by the digest of
the public key), so that a confirmation that was kept can be checked against it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, func, insert, select, update

from broker.auth.errors import CredentialError
from broker.log.actions import acted
from broker.store.tables import credential, person
from broker.store.upserts import insert_or_update
from policies.encoding import digest
from policies.limits import CREDENTIAL_LABEL_CHARS, CREDENTIALS_PER_PERSON

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from broker.auth.passkeys import NewPasskey
    from broker.log import LogTx
    from broker.store import Session

__all__ = [
    "Credential",
    "add_passkey",
    "can_come_back",
    "credentials",
    "find_passkey",
    "keep_password",
    "password_of",
    "remove_passkey",
    "used_passkey",
]

PASSKEY: Final = "passkey"
PASSWORD: Final = "password"  # noqa: S105  a kind, not a secret


@dataclass(frozen=True, slots=True, kw_only=True)
class Credential:
    """One way of a person to log in; ``key`` is a passkey's public key, or a password's hash."""

    id: str
    person: str
    kind: str
    label: str
    key: bytes
    count: int
    at_ms: int
    used_ms: int | None


def credentials(session: Session, name: str) -> list[Credential]:
    """Everything that a person logs in with, the oldest first."""
    query = select(credential).where(credential.c.person == name)
    rows = session.execute(query.order_by(credential.c.at_ms, credential.c.id)).mappings()
    return [_of_row(row) for row in rows]


def can_come_back(session: Session, name: str) -> bool:
    """Whether a person has a passkey, a password or a provider."""
    mine = select(credential.c.id).where(credential.c.person == name).limit(1)
    provided = select(person.c.sub).where(person.c.name == name)
    return session.scalar(mine) is not None or session.scalar(provided) is not None


def find_passkey(session: Session, id: str) -> Credential | None:  # noqa: A002  the field's own name
    """The passkey of an id, whoever's it is."""
    mine = (credential.c.id == id) & (credential.c.kind == PASSKEY)
    row = session.execute(select(credential).where(mine)).mappings().first()
    return None if row is None else _of_row(row)


def password_of(session: Session, name: str) -> bytes | None:
    """The hash of a person's password; None if they have none."""
    mine = (credential.c.person == name) & (credential.c.kind == PASSWORD)
    found: bytes | None = session.scalar(select(credential.c.key).where(mine))
    return found


def add_passkey(
    session: Session, tx: LogTx, made: NewPasskey, *, name: str, label: str, request: str, now_ms: int
) -> None:
    """Keeps a new passkey.

    Raises:
        CredentialError: Somebody has it, or the person has too many.
    """
    if find_passkey(session, made.id) is not None:
        raise CredentialError(
            need="a passkey that is new here", found="one that somebody has", remedy="use another device"
        )
    mine = select(func.count()).select_from(credential).where(credential.c.person == name)
    if (session.scalar(mine) or 0) >= CREDENTIALS_PER_PERSON:
        raise CredentialError(
            need=f"at most {CREDENTIALS_PER_PERSON} passkeys",
            found="as many",
            remedy="remove one that you do not use",
        )
    session.execute(
        insert(credential).values(
            id=made.id,
            person=name,
            kind=PASSKEY,
            label=label[:CREDENTIAL_LABEL_CHARS],
            key=made.key,
            count=made.count,
            at_ms=now_ms,
            used_ms=None,
        )
    )
    tx.add(acted(name, "passkey.add", subject=digest(made.key), request=request))


def remove_passkey(session: Session, tx: LogTx, *, name: str, id: str, request: str) -> None:  # noqa: A002
    """Forgets a passkey of a person.

    Raises:
        CredentialError: They have no such passkey.
    """
    found = find_passkey(session, id)
    if found is None or found.person != name:
        raise CredentialError(
            need="a passkey of yours", found="no such", remedy="reload the page; it may be gone already"
        )
    session.execute(delete(credential).where(credential.c.id == id))
    tx.add(acted(name, "passkey.remove", subject=digest(found.key), request=request))


def used_passkey(session: Session, *, id: str, count: int, now_ms: int) -> None:  # noqa: A002
    """Notes a passkey's counter after an answer that held."""
    mine = (credential.c.id == id) & (credential.c.kind == PASSKEY)
    session.execute(update(credential).where(mine).values(count=count, used_ms=now_ms))


def keep_password(session: Session, *, name: str, hashed: bytes, now_ms: int) -> None:
    """Keeps the hash of a person's password, instead of an older one."""
    row = {
        "id": f"password:{name}",
        "person": name,
        "kind": PASSWORD,
        "label": "",
        "key": hashed,
        "count": 0,
        "at_ms": now_ms,
        "used_ms": None,
    }
    insert_or_update(session, credential, row)


def _of_row(row: RowMapping) -> Credential:
    return Credential(
        id=row["id"],
        person=row["person"],
        kind=row["kind"],
        label=row["label"],
        key=bytes(row["key"]),
        count=row["count"],
        at_ms=row["at_ms"],
        used_ms=row["used_ms"],
    )
