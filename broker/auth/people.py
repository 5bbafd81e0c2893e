# SPDX-License-Identifier: Apache-2.0
"""Who the people are, and what each of them may be.

    operator   looks, acts, proposes, and approves what others proposed
    approver   looks, and approves or refuses what others proposed
    auditor    reads the audit's screens and the log, and changes nothing
    member     a person of one organisation; sees what that organisation's node may see

- A name is one person's for ever, by whichever way they come: an operator's key, an auditor's key, a passkey,
  a password, a provider. So "nobody approves what they proposed" is a comparison of names. It stays with the
  kind of role that it had first (`KINDS`): log entries of one name are never those of an auditor and of a
  member.
- All but auditors are added, and get a new way to log in, only by two people (`takes_two`); else one operator
  could make the second one who approves, or look at what a member may see and operators may not. So it is for
  an auditor whose name has a key: its grants open confidential values. The functions here are the effects;
  who may cause them is decided above (`broker.acts`).
- Disabling takes one operator and ends every session at once. Who was disabled can be added again, with a
  role of the same kind, and starts without a way to log in.

An `Addition` names one person to be: its `subject` is what two people approve.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from sqlalchemy import delete, insert, select, update

from broker.auth.errors import PersonInvalidError, PersonTakenError, PersonUnknownError
from broker.log.actions import acted
from broker.store.tables import (
    auditor,
    credential,
    login_link,
    login_session,
    operator,
    organisation,
    person,
)
from broker.store.upserts import insert_or_ignore
from policies.encoding import Json, canonical, digest
from policies.ports import iso_s

if TYPE_CHECKING:
    from sqlalchemy import RowMapping

    from broker.log import LogTx
    from broker.store import Session

__all__ = [
    "ACTIVE",
    "AUDITOR",
    "DISABLED",
    "KINDS",
    "ROLES",
    "Addition",
    "Person",
    "add_person",
    "disable_person",
    "enrol_operator",
    "find_person",
    "forget_logins",
    "get_person",
    "kinds_of",
    "list_people",
    "set_lang",
    "takes_two",
]

ACTIVE: Final = "active"
DISABLED: Final = "disabled"
OPERATOR: Final = "operator"
AUDITOR: Final = "auditor"
MEMBER: Final = "member"
ROLES: Final = (OPERATOR, "approver", AUDITOR, MEMBER)
KINDS: Final = {OPERATOR: OPERATOR, "approver": OPERATOR, AUDITOR: AUDITOR, MEMBER: MEMBER}
"""Role to the kind of it; a name stays with its kind."""
LANGUAGES: Final = ("en", "ja")
_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,40}")
_SUB_CHARS: Final = 255  # OpenID Connect Core, section 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Person:
    """One person, known by their name.

    Attributes:
        name: As log entries name them.
        role: One of `ROLES`.
        org: The organisation of a member, ``org_…``; None for everybody else.
        lang: The language they chose, or None.
        state: ``active`` or ``disabled``.
    """

    name: str
    role: str
    org: str | None = None
    lang: str | None = None
    state: str = ACTIVE

    @property
    def active(self) -> bool:
        """Whether they may log in."""
        return self.state == ACTIVE


@dataclass(frozen=True, slots=True, kw_only=True)
class Addition:
    """A person to be.

    Attributes:
        name: Theirs from now on.
        role: One of `ROLES`.
        org: Of a member.
        sub: Their name at the identity provider, where one is configured and they log in there.
        issuer: That provider.
    """

    name: str
    role: str
    org: str | None = None
    sub: str | None = None
    issuer: str | None = None

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise _invalid("a name of small letters, digits and hyphens", self.name)
        if self.role not in ROLES:
            raise _invalid("a role of " + ", ".join(ROLES), self.role)
        if (self.org is None) is (self.role == MEMBER):
            raise _invalid("an organisation for a member, and for nobody else", f"{self.role} of {self.org}")
        if (self.sub is None) is not (self.issuer is None):
            raise _invalid("a name at the provider and a provider (setting oidc)", "one of them")
        if self.sub is not None and not (0 < len(self.sub) <= _SUB_CHARS and self.sub.isprintable()):
            raise _invalid("a printable name at the provider", self.sub)

    @property
    def subject(self) -> bytes:
        """Canonical bytes of what is to be done."""
        return canonical({"action": "person.add", **self.facts()})

    def facts(self) -> dict[str, Json]:
        """The fields, as JSON."""
        return {
            "name": self.name,
            "role": self.role,
            "org": self.org,
            "issuer": self.issuer,
            "sub": self.sub,
        }


def find_person(session: Session, name: str) -> Person | None:
    """The person of a name, in whatever state; None if nobody has it."""
    row = session.execute(select(person).where(person.c.name == name)).mappings().first()
    return None if row is None else _person(row)


def get_person(session: Session, name: str) -> Person:
    """The person of a name, in whatever state.

    Raises:
        PersonUnknownError: Nobody has it.
    """
    found = find_person(session, name)
    if found is None:
        raise PersonUnknownError(
            need="a person of this broker",
            found=ascii(name)[1:-1][:60],
            remedy="iriai-broker operator list --dir DIR --key FILE",
        )
    return found


def kinds_of(session: Session, name: str) -> frozenset[str]:
    """Kinds of role of which a name is, or was: of a person, an operator's key, an auditor's key."""
    there = find_person(session, name)
    found = set() if there is None else {KINDS[there.role]}
    for table, kind in ((operator, OPERATOR), (auditor, AUDITOR)):
        if session.scalar(select(table.c.name).where(table.c.name == name)) is not None:
            found.add(kind)
    return frozenset(found)


def takes_two(session: Session, name: str, role: str) -> bool:
    """Whether it takes two people to add somebody, or to give them a new way to log in."""
    if role != AUDITOR:
        return True
    return session.scalar(select(auditor.c.name).where(auditor.c.name == name)) is not None


def list_people(session: Session) -> list[dict[str, Json]]:
    """Everybody, by name, with how they can log in."""
    held: dict[str, list[str]] = {}
    for name, kind in session.execute(select(credential.c.person, credential.c.kind)):
        held.setdefault(name, []).append(kind)
    rows = session.execute(select(person).order_by(person.c.name)).mappings().all()
    return [
        {
            "name": row["name"],
            "role": row["role"],
            "org": row["org"],
            "state": row["state"],
            "since": None if row["added_ms"] is None else iso_s(row["added_ms"]),
            "passkeys": held.get(row["name"], []).count("passkey"),
            "password": "password" in held.get(row["name"], []),
            "provider": row["sub"] is not None,
        }
        for row in rows
    ]


def check_addition(session: Session, addition: Addition) -> None:
    """Refuses a person who cannot be added now; looks, and changes nothing.

    Raises:
        PersonTakenError: The name, or the name at the provider, is somebody's, or was of another kind.
        PersonInvalidError: No such organisation takes part.
    """
    there = find_person(session, addition.name)
    if there is not None and there.active:
        raise PersonTakenError(
            need="a name that is free",
            found=f"{addition.name}, {there.role}",
            remedy="choose another name; iriai-broker operator list --dir DIR --key FILE",
        )
    others = kinds_of(session, addition.name) - {KINDS[addition.role]}
    if others:
        raise PersonTakenError(
            need=f"a name that is free, or was of the kind {KINDS[addition.role]}",
            found=f"{addition.name}, of the kind {' and '.join(sorted(others))}",
            remedy="choose another name; taken ones: iriai-broker operator list --dir DIR --key FILE",
        )
    if addition.sub is not None:
        same = (person.c.issuer == addition.issuer) & (person.c.sub == addition.sub)
        other = session.scalar(select(person.c.name).where(same, person.c.name != addition.name))
        if other is not None:
            raise PersonTakenError(
                need="a name at the provider that is free", found=f"that of {other}", remedy="name another"
            )
    if addition.org is not None:
        mine = (organisation.c.org_id == addition.org) & (organisation.c.state == ACTIVE)
        if session.scalar(select(organisation.c.org_id).where(mine)) is None:
            raise _invalid(
                "an organisation that takes part (iriai-broker org list --dir DIR --key FILE)", addition.org
            )


def add_person(
    session: Session, tx: LogTx, addition: Addition, *, by: str, request: str, now_ms: int
) -> Person:
    """Adds a person, or lets one who was disabled come back; they cannot log in yet.

    Args:
        session: Of the transaction.
        tx: Of the transaction.
        addition: Whom.
        by: Name of who did it last: the operator, or the second of the two.
        request: Digest of what caused it.
        now_ms: The time.

    Raises:
        PersonTakenError, PersonInvalidError: As `check_addition` says.
    """
    check_addition(session, addition)
    row = {**addition.facts(), "lang": None, "state": ACTIVE, "added_ms": now_ms}
    if find_person(session, addition.name) is None:
        session.execute(insert(person).values(row))
    else:
        forget_logins(session, addition.name)
        session.execute(update(person).where(person.c.name == addition.name).values(row))
    tx.add(acted(by, "person.add", subject=digest(addition.subject), request=request))
    return get_person(session, addition.name)


def enrol_operator(session: Session, name: str, now_ms: int) -> None:
    """Makes sure that an operator with a key of their own is a person; at `init`, which logs the key."""
    row = {"name": name, "role": OPERATOR, "state": ACTIVE, "added_ms": now_ms}
    insert_or_ignore(session, person, row)


def disable_person(session: Session, tx: LogTx, *, name: str, by: str, request: str) -> Person:
    """Ends what somebody may do here, at once: their sessions, their passkeys, their links.

    Raises:
        PersonUnknownError: Nobody of this name, or nobody any more.
    """
    found = get_person(session, name)
    if not found.active:
        raise PersonUnknownError(need=f"{name} in force", found=found.state, remedy="nothing is left to do")
    forget_logins(session, name)
    session.execute(update(person).where(person.c.name == name).values(state=DISABLED, issuer=None, sub=None))
    tx.add(acted(by, "person.disable", subject=person_digest(name), request=request))
    return get_person(session, name)


def forget_logins(session: Session, name: str) -> None:
    """Ends every session of a person, and removes whatever they could log in with."""
    for table in (login_session, login_link, credential):
        session.execute(delete(table).where(table.c.person == name))


def set_lang(session: Session, name: str, lang: str | None) -> None:
    """Keeps the language that a person chose; None for the browser's.

    Raises:
        PersonInvalidError: No such language.
    """
    if lang is not None and lang not in LANGUAGES:
        raise _invalid("a language of " + ", ".join(LANGUAGES), lang)
    session.execute(update(person).where(person.c.name == name).values(lang=lang))


def person_digest(name: str) -> str:
    """What stands for a person as the subject of an entry."""
    return digest(canonical({"person": name}))


def _person(row: RowMapping) -> Person:
    return Person(name=row["name"], role=row["role"], org=row["org"], lang=row["lang"], state=row["state"])


def _invalid(need: str, found: str) -> PersonInvalidError:
    return PersonInvalidError(need=need, found=ascii(found)[1:-1][:80], remedy="correct it and send it again")
