# SPDX-License-Identifier: Apache-2.0
"""Disclosures: confidential values that an auditor is shown, page by page.

A page is the opened values of `DISCLOSURE_ENTRIES` entries of the log. In this order:

1. grants of the auditor that are in force open fields of these entries; the first that opens a value counts;
2. for each grant that opened something, if it is in force still: ``access.used`` by the request, and
   ``disclosure.made`` with the entries and the fields (a repetition is found, not added);
3. only once these are committed and signed, the values leave the broker. A frozen log discloses nothing.

A value that was erased is absent, without a word: ``erasure.performed`` says it.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING, NamedTuple

from broker.auditing.grants import check_in_force, used
from broker.log.commitments import erased_values, opened
from policies.limits import DISCLOSURE_ENTRIES
from policies.log.entries import EntryType, Event

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.log import LogTx
    from broker.store import Session, Store
    from policies.encoding import Json
    from policies.log.access import Grant
    from policies.log.bundle import Disclosure

__all__ = ["Opened", "Page", "read_page", "record"]


class Opened(NamedTuple):
    """A value, and the grant that opens it."""

    disclosure: Disclosure
    grant: Grant


class Page(NamedTuple):
    """Opened values of the entries ``[start, end)``, by entry and field; ``size``: of the newest head."""

    start: int
    end: int
    size: int
    values: tuple[Opened, ...]

    def to_json(self) -> dict[str, Json]:
        """As it is answered; ``next`` is where the next page begins, null at the end of the log."""
        return {
            "from": self.start,
            "next": self.end if self.end < self.size else None,
            "size": self.size,
            "disclosures": [one.disclosure.to_json() for one in self.values],
        }


def read_page(
    store: Store, grants: Sequence[Grant], *, start: int, size: int, session: Session | None = None
) -> Page:
    """Step 1.

    Args:
        store: The databases.
        grants: Of the auditor, in force.
        start: First entry of the page.
        size: Of the newest signed head; later entries are not shown.
        session: Of the transaction in which it is recorded; without one, a snapshot of its own.
    """
    end = min(start + DISCLOSURE_ENTRIES, size)
    values: list[Opened] = []
    if start < end and grants:
        with store.read() if session is None else nullcontext(session) as reading:
            for one in opened(store, reading, start=start, end=end, erased=erased_values(reading)):
                grant = next((grant for grant in grants if grant.opens(one.index, one.field)), None)
                if grant is not None:
                    values.append(Opened(one, grant))
    return Page(start, max(start, end), size, tuple(values))


def record(session: Session, tx: LogTx, page: Page, request: str) -> None:
    """Step 2.

    Args:
        session: Of the transaction.
        tx: Of the transaction.
        page: From `read_page`.
        request: Digest of the request.

    Raises:
        GrantUnknownError: A grant ended meanwhile.
    """
    check_in_force(session, (one.grant for one in page.values), tx.now_ms)
    by_grant: dict[str, list[Opened]] = {}
    for one in page.values:
        by_grant.setdefault(one.grant.id, []).append(one)
    for mine in by_grant.values():
        grant = mine[0].grant
        tx.add(used(grant, request))
        pub = {
            "indexes": sorted({one.disclosure.index for one in mine}),
            "fields": sorted({one.disclosure.field for one in mine}),
            "grantee": grant.grantee,
            "grant": grant.id,
        }
        tx.add(Event(type=EntryType.DISCLOSURE_MADE, pub=pub))
