# SPDX-License-Identifier: Apache-2.0
"""Whose key is it? A picture of everybody enrolled, remade after each change of membership.

- A request is looked up by the id of its key; what counts is the key behind it, never the id.
- A key is a member's, an operator's or an auditor's, never two of these.
- Every key is checked again when the picture is made: a weak key in the database is an invariant broken,
  not a member.
- Aliases: the name of an organisation in one place of the log (contract, run, round); only the
  organisation, the broker and the auditor can compute it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from sqlalchemy import select

from broker.errors import KeyRevokedError, UnknownKeyError
from broker.membership.errors import NotActiveError, NotMemberError
from broker.store.tables import auditor, operator, organisation
from policies.identity import key_id, parse_key

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sqlalchemy import RowMapping

    from broker.store import Session

__all__ = [
    "ACTIVE",
    "REVOKED",
    "SUSPENDED",
    "WAITING",
    "Auditor",
    "Directory",
    "Enrolled",
    "Member",
    "Operator",
    "member_of_row",
]

WAITING: Final = "waiting-approval"
ACTIVE: Final = "active"
SUSPENDED: Final = "suspended"
REVOKED: Final = "revoked"
State = Literal["waiting-approval", "active", "suspended", "revoked"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One organisation with its node, as enrolled.

    Attributes:
        org: ``org_…``.
        node: ``node_…``.
        key: Raw Ed25519 key of the node.
        fleet_key_pem: P-256 public key of the node's connection to the fleet API.
        legal_name: As on the invitation.
        country: ISO 3166-1 alpha-2.
        group: Organisations under one owner have the same.
        state: ``waiting-approval``, ``active``, ``suspended`` or ``revoked``.
        alias_key: 32 bytes; empty before approval.
        since_ms: Time of the last change of state.
    """

    org: str
    node: str
    key: bytes
    fleet_key_pem: str
    legal_name: str
    country: str
    group: str
    state: str
    alias_key: bytes = field(repr=False)
    since_ms: int

    @property
    def key_id(self) -> str:
        """Id of the node's key, as requests claim it."""
        return key_id(self.key)

    @property
    def active(self) -> bool:
        """Whether the organisation takes part."""
        return self.state == ACTIVE

    @property
    def suspended(self) -> bool:
        """Whether an operator stopped it for the time being."""
        return self.state == SUSPENDED

    @property
    def revoked(self) -> bool:
        """Whether it took part once and does no longer."""
        return self.state == REVOKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Operator:
    """One person who runs the broker, known by a key of their own."""

    name: str
    key: bytes
    active: bool

    @property
    def key_id(self) -> str:
        """Id of the operator's key, as requests claim it."""
        return key_id(self.key)


@dataclass(frozen=True, slots=True, kw_only=True)
class Auditor:
    """Somebody who audits the log from outside, known by a key of their own (`broker.auditing`)."""

    name: str
    key: bytes
    active: bool

    @property
    def key_id(self) -> str:
        """Id of the auditor's key, as requests claim it."""
        return key_id(self.key)


Enrolled = Member | Operator | Auditor
"""Whoever may sign requests."""


class Directory:
    """The picture. `load` replaces it whole, so a reader sees the old or the new one."""

    def __init__(self) -> None:
        self._by_key: Mapping[str, Enrolled] = MappingProxyType({})
        self._auditors: tuple[Auditor, ...] = ()
        self._by_org: Mapping[str, Member] = MappingProxyType({})

    def load(self, session: Session) -> None:
        """Reads everybody from the database."""
        by_age = select(organisation).order_by(organisation.c.created_ms, organisation.c.org_id)
        members = [member_of_row(row) for row in session.execute(by_age).mappings()]
        operators = [
            Operator(name=row["name"], key=parse_key(row["key"]), active=row["state"] == ACTIVE)
            for row in session.execute(select(operator).order_by(operator.c.name)).mappings()
        ]
        auditors = tuple(
            Auditor(name=row["name"], key=parse_key(row["key"]), active=row["state"] == ACTIVE)
            for row in session.execute(select(auditor).order_by(auditor.c.name)).mappings()
        )
        everybody: list[Enrolled] = [*members, *operators, *auditors]
        self._by_key = MappingProxyType({one.key_id: one for one in everybody})
        self._auditors = auditors
        self._by_org = MappingProxyType({one.org: one for one in members})

    def find(self, claimed: str) -> Enrolled:
        """Who enrolled the key with this id.

        Raises:
            UnknownKeyError: Nobody.
            KeyRevokedError: Somebody who is not trusted any more.
        """
        found = self._by_key.get(claimed)
        if found is None:
            raise UnknownKeyError(
                need="a key that is enrolled here", found=claimed, remedy="join with an invitation first"
            )
        gone = found.state == REVOKED if isinstance(found, Member) else not found.active
        if gone:
            raise KeyRevokedError(
                need="a key in force", found=f"{claimed}, revoked", remedy="ask the operators why; enrol anew"
            )
        return found

    def knows(self, claimed: str) -> bool:
        """Whether a key with this id is enrolled, in whatever state."""
        return claimed in self._by_key

    def member(self, org: str) -> Member:
        """The member of this organisation id.

        Raises:
            NotMemberError: There is none.
        """
        found = self._by_org.get(org)
        if found is None:
            raise NotMemberError(
                need="an enrolled organisation", found=org[:60], remedy="iriai-broker org list"
            )
        return found

    def of_org(self, org: str) -> Member | None:
        """The member of an organisation id, or None."""
        return self._by_org.get(org)

    def auditors(self) -> tuple[Auditor, ...]:
        """Every auditor who was enrolled, by name."""
        return self._auditors

    def members(self) -> tuple[Member, ...]:
        """Everybody enrolled, by organisation id."""
        return tuple(self._by_org[org] for org in sorted(self._by_org))

    def holder(self, key: bytes) -> Member | None:
        """The member that holds a key, in whatever state."""
        found = self._by_key.get(key_id(key))
        return found if isinstance(found, Member) and found.key == key else None

    def active_by_key(self, key: bytes) -> Member:
        """The active member that holds a key: how a contract's party is tied to a node.

        Raises:
            NotMemberError: Nobody enrolled it.
            NotActiveError: Its organisation waits for approval or was revoked.
        """
        found = self.holder(key)
        if found is None:
            raise NotMemberError(
                need="a node with this key", found=key_id(key), remedy="let the organisation join first"
            )
        if not found.active:
            raise NotActiveError(
                need=f"{found.org} active",
                found=found.state,
                remedy="two operators approve it; of a suspended one: iriai-broker org restore",
            )
        return found


def member_of_row(row: RowMapping) -> Member:
    """The member behind a row of the table ``organisation``."""
    return Member(
        org=row["org_id"],
        node=row["node_id"],
        key=parse_key(row["node_key"]),
        fleet_key_pem=row["fleet_key"],
        legal_name=row["legal_name"],
        country=row["country"],
        group=row["grp"] or row["org_id"],
        state=row["state"],
        alias_key=row["alias_key"],
        since_ms=row["created_ms"],
    )
