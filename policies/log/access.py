# SPDX-License-Identifier: Apache-2.0
"""Grants: which confidential fields an auditor may be shown. Pure; the broker and the auditor read the same.

- A grant opens fields by name, of entries from an index on, until a minute. It lives in entries of its own
  (``access.granted``, ``access.revoked``); the broker's table is a copy.
- Once revoked or over it opens nothing, also not of earlier entries. What was opened before stays told.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from policies.log.schema import EntryType
from policies.ports import to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable

    from policies.log.entries import Entry

__all__ = ["Grant", "grants_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Grant:
    """What one auditor may be shown.

    Attributes:
        id: ``grant_…``.
        grantee: Name of the auditor.
        fields: Names of confidential fields; None for all of them.
        from_index: Entries before it stay closed.
        until_ms: When it ends; None: when it is revoked.
    """

    id: str
    grantee: str
    fields: frozenset[str] | None
    from_index: int
    until_ms: int | None

    def in_force(self, now_ms: int) -> bool:
        """Whether its time is not over."""
        return self.until_ms is None or now_ms < self.until_ms

    def opens(self, index: int, name: str) -> bool:
        """Whether it opens this field of this entry."""
        return index >= self.from_index and (self.fields is None or name in self.fields)


def grants_of(entries: Iterable[Entry], grantee: str | None = None) -> tuple[Grant, ...]:
    """Grants that these entries of a log leave standing, in their order, their time not looked at.

    Args:
        entries: In the order of the log; only those about access count.
        grantee: Of this auditor alone, if given.
    """
    standing: dict[str, Grant] = {}
    for entry in entries:
        pub = entry.pub
        if entry.type is EntryType.ACCESS_REVOKED:
            standing.pop(pub["grant"], None)
        elif entry.type is EntryType.ACCESS_GRANTED and grantee in {None, pub["grantee"]}:
            standing[pub["grant"]] = Grant(
                id=pub["grant"],
                grantee=pub["grantee"],
                fields=None if pub["fields"] is None else frozenset(pub["fields"]),
                from_index=pub["from_index"],
                until_ms=None if pub["until"] is None else to_ms(pub["until"]),
            )
    return tuple(standing.values())
