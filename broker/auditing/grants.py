# SPDX-License-Identifier: Apache-2.0
"""Grants: what an operator lets an auditor be shown of confidential values.

    none  --grant-->  in force  --revoke, or its time, or the auditor is revoked-->  over

- Without a grant an auditor is shown no confidential value at all.
- What a grant opens stands in the log in clear (`policies.log.access`), so that who audits the audit can see
  whether a disclosure was allowed. The table is a copy for speed.
- Its end is a whole minute, as in the entry.
- Who is shown something leaves ``access.used`` (`used`), by each grant that opened some of it. What was made
  takes its time: in the transaction of these entries the grants are looked at again (`check_in_force`).
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

from sqlalchemy import insert, select, update

from broker.auditing.errors import FieldUnknownError, GrantUnknownError
from broker.membership.records import console_action
from broker.store.tables import access_grant, log_entry
from policies.encoding import Json, canonical, digest, new_id, parse
from policies.log.access import Grant
from policies.log.entries import EntryType, Event
from policies.log.schema import SCHEMA
from policies.ports import iso_minute

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sqlalchemy import ColumnElement, RowMapping

    from broker.auditing.auditors import Auditors
    from broker.log import LogTx
    from broker.membership.directory import Operator
    from broker.store import Session
    from policies.ports import Clock, Entropy

__all__ = ["FIELDS", "Grants", "check_fields", "check_in_force", "newest_word", "used"]

FIELDS: Final = frozenset({"at", *(name for one in SCHEMA.values() for name in (*one.sd, *one.sd_optional))})
"""Every confidential field that an entry type has."""
_RESOURCE: Final = "confidential"
_IN_FORCE: Final = "in-force"
_OVER: Final = "over"
_DAY_MS: Final = 86_400_000
_ALL: Final = ["*"]


class Grants:
    """The service; see the module for its rules."""

    def __init__(self, *, clock: Clock, entropy: Entropy, auditors: Auditors) -> None:
        self._clock = clock
        self._entropy = entropy
        self._auditors = auditors

    def grant(
        self,
        session: Session,
        tx: LogTx,
        *,
        grantee: str,
        fields: frozenset[str] | None,
        from_index: int,
        days: int | None,
        operator: Operator,
        request: str,
    ) -> dict[str, Json]:
        """Opens fields to an auditor.

        Args:
            session: Of the transaction.
            tx: Of the transaction.
            grantee: Name of the auditor.
            fields: Names of confidential fields; None for all, those of later versions too.
            from_index: Entries before it stay closed.
            days: How long; None: until it is revoked.
            operator: Who does it.
            request: Digest of the request.

        Raises:
            AuditorUnknownError: Nobody of this name is in force.
            FieldUnknownError: No entry type has such a field.
        """
        self._auditors.key_of(session, grantee)
        if fields is not None:
            check_fields(fields)
        now_ms = self._clock.now_ms()
        until_ms = None if days is None else now_ms + days * _DAY_MS
        if until_ms is not None:
            until_ms -= until_ms % 60_000
        name = new_id("grant", self._entropy.token_bytes(10))
        listed = None if fields is None else sorted(fields)
        session.execute(
            insert(access_grant).values(
                id=name,
                grantee=grantee,
                fields=json.dumps(_ALL if listed is None else listed),
                from_index=from_index,
                until_ms=until_ms,
                state=_IN_FORCE,
                at_ms=now_ms,
            )
        )
        until = None if until_ms is None else iso_minute(until_ms)
        opened = {"fields": listed, "from_index": from_index, "until": until}
        subject = digest(canonical([name, grantee, opened]))
        tx.add(console_action(operator, "audit.grant", subject=subject, request=request))
        pub = {"grantee": grantee, "resource": _RESOURCE, "grant": name, "request": request}
        tx.add(Event(type=EntryType.ACCESS_GRANTED, pub=pub | opened))
        return {"grant": name, "grantee": grantee, **opened}

    def revoke(
        self, session: Session, tx: LogTx, *, name: str, operator: Operator, request: str
    ) -> dict[str, Json]:
        """Ends a grant at once.

        Raises:
            GrantUnknownError: No such grant is in force.
        """
        found = _rows(session, access_grant.c.id == name)
        if not found:
            raise GrantUnknownError(
                need="a grant in force", found=ascii(name)[1:-1][:60], remedy="iriai-broker audit grants"
            )
        subject = digest(canonical([name, found[0].grantee]))
        tx.add(console_action(operator, "audit.revoke", subject=subject, request=request))
        self._end(session, tx, found, request=request)
        return {"grant": name, "grantee": found[0].grantee}

    def revoke_all(self, session: Session, tx: LogTx, *, grantee: str, request: str) -> int:
        """Ends every grant of an auditor who is revoked; how many there were."""
        found = _rows(session, access_grant.c.grantee == grantee)
        self._end(session, tx, found, request=request)
        return len(found)

    @staticmethod
    def _end(session: Session, tx: LogTx, grants: Iterable[Grant], *, request: str) -> None:
        for one in grants:
            session.execute(update(access_grant).where(access_grant.c.id == one.id).values(state=_OVER))
            pub = {"grantee": one.grantee, "resource": _RESOURCE, "grant": one.id, "request": request}
            tx.add(Event(type=EntryType.ACCESS_REVOKED, pub=pub))

    def of(self, session: Session, grantee: str) -> tuple[Grant, ...]:
        """Grants of an auditor that are in force now, the oldest first."""
        now_ms = self._clock.now_ms()
        return tuple(one for one in _rows(session, access_grant.c.grantee == grantee) if one.in_force(now_ms))

    def list_all(self, session: Session) -> list[dict[str, Json]]:
        """Every grant that there was, as operators see them."""
        now_ms = self._clock.now_ms()
        query = select(access_grant).order_by(access_grant.c.at_ms, access_grant.c.id)
        return [_shown(row, now_ms) for row in session.execute(query).mappings()]


def check_fields(fields: Iterable[str]) -> None:
    """Returns if every name is one of a confidential field.

    Raises:
        FieldUnknownError: With the names that are not.
    """
    unknown = sorted(set(fields) - FIELDS)
    if unknown:
        raise FieldUnknownError(
            need="names of confidential fields: " + " ".join(sorted(FIELDS)),
            found=ascii(" ".join(unknown))[1:-1][:120],
            remedy="docs/reference/entries.md lists the confidential fields of each entry type",
        )


def used(grant: Grant, request: str) -> Event:
    """The entry that says that a grant was made use of."""
    pub = {"grantee": grant.grantee, "resource": _RESOURCE, "grant": grant.id, "request": request}
    return Event(type=EntryType.ACCESS_USED, pub=pub)


def check_in_force(session: Session, grants: Iterable[Grant], now_ms: int) -> None:
    """Returns if these grants are in force still.

    Raises:
        GrantUnknownError: One of them was revoked, or its time is over.
    """
    asked = {one.id for one in grants}
    still = {one.id for one in _rows(session, access_grant.c.id.in_(asked)) if one.in_force(now_ms)}
    if over := sorted(asked - still):
        raise GrantUnknownError(
            need="grants that are in force until the answer leaves",
            found=f"{over[0]}, which ended meanwhile",
            remedy="ask again: what is in force then is shown",
        )


def newest_word(session: Session, grantee: str, *, start: int) -> int | None:
    """Index of the newest entry, from ``start`` on, that gives a grant to somebody or ends one."""
    kinds = (EntryType.ACCESS_GRANTED.value, EntryType.ACCESS_REVOKED.value)
    where = (log_entry.c.idx >= start) & log_entry.c.type.in_(kinds)
    rows = session.execute(select(log_entry.c.idx, log_entry.c.body).where(where))
    return max((row.idx for row in rows if parse(row.body)["pub"]["grantee"] == grantee), default=None)


def _rows(session: Session, where: ColumnElement[bool]) -> tuple[Grant, ...]:
    query = select(access_grant).where(access_grant.c.state == _IN_FORCE, where)
    ordered = query.order_by(access_grant.c.at_ms, access_grant.c.id)
    return tuple(_grant(row) for row in session.execute(ordered).mappings())


def _grant(row: RowMapping) -> Grant:
    fields = json.loads(row["fields"])
    return Grant(
        id=row["id"],
        grantee=row["grantee"],
        fields=None if fields == _ALL else frozenset(fields),
        from_index=row["from_index"],
        until_ms=row["until_ms"],
    )


def _shown(row: RowMapping, now_ms: int) -> dict[str, Json]:
    grant = _grant(row)
    over = row["state"] != _IN_FORCE or not grant.in_force(now_ms)
    return {
        "grant": grant.id,
        "grantee": grant.grantee,
        "fields": None if grant.fields is None else sorted(grant.fields),
        "from_index": grant.from_index,
        "until": None if grant.until_ms is None else iso_minute(grant.until_ms),
        "state": _OVER if over else _IN_FORCE,
    }
