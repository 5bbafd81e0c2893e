# SPDX-License-Identifier: Apache-2.0
"""One look over all entries of a bundle before it is written: what they name, and which are whose.

What is kept grows with the business (documents, rounds, erasures), not with the log: one bit for each entry
is the exception. Names are kept if they are those of documents that there are.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from sqlalchemy import select

from broker.store import tables
from policies.encoding import parse
from policies.log.entries import EntryType, alias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from broker.store import Session
    from policies.log.access import Grant

__all__ = ["Survey", "View", "survey"]

_ENTRY = tables.log_entry
_CHUNK: Final = 1_000
_SUMMED: Final = frozenset({EntryType.AGGREGATE_RELEASED, EntryType.ROUND_CHOSEN})
_VERDICTS: Final = frozenset({EntryType.CONTRIBUTION_ACCEPTED, EntryType.CONTRIBUTION_REFUSED})


@dataclass(frozen=True, slots=True, kw_only=True)
class View:
    """Whose bundle it is.

    Attributes:
        grade: ``auditor`` for everything; ``member`` for what one organisation did and is a party of.
        grants: Of an auditor: what may be opened; None opens every confidential value.
        org: Of a member: the organisation.
        alias_key: Of a member: 32 bytes.
    """

    grade: str = "auditor"
    grants: tuple[Grant, ...] | None = None
    org: str | None = None
    alias_key: bytes = field(default=b"", repr=False)

    @property
    def whole(self) -> bool:
        """Whether nothing is left out but confidential values."""
        return self.org is None

    def opens(self, index: int, name: str) -> bool:
        """Whether the view shows a confidential field of an entry that is its own."""
        return self.grants is None or any(one.opens(index, name) for one in self.grants)


@dataclass(slots=True)
class Survey:
    """What was seen.

    Attributes:
        named: Digests of documents that entries name.
        stated: Those of them that entries of the view's own contracts name.
        summed: Digests of transcripts of opened sums.
        own: One bit for each entry, set for the view's own.
    """

    named: set[str]
    stated: set[str]
    summed: set[str]
    own: bytearray

    def is_own(self, index: int) -> bool:
        """Whether an entry is the view's own; all are, of a whole view."""
        return bool(self.own[index >> 3] >> (index & 7) & 1)


def survey(session: Session, size: int, view: View, *, documents: set[str], contracts: set[str]) -> Survey:
    """Looks over the entries below ``size``.

    Args:
        session: One snapshot of the main database.
        size: Of the bundle.
        view: Whose it is.
        documents: Digests of all documents that there are.
        contracts: Digests of the contracts that the view may see.
    """
    seen = Survey(named=set(), stated=set(), summed=set(), own=bytearray((size >> 3) + 1))
    columns = (_ENTRY.c.idx, _ENTRY.c.type, _ENTRY.c.scope, _ENTRY.c.run, _ENTRY.c.round, _ENTRY.c.actor)
    query = select(*columns, _ENTRY.c.body).where(_ENTRY.c.idx < size).order_by(_ENTRY.c.idx)
    owns = _owner(view, seen)
    for row in session.execute(query, execution_options={"yield_per": _CHUNK}):
        body = parse(bytes(row.body))
        found = _names(body["pub"].values()) & documents
        seen.named |= found
        if view.whole or row.scope in contracts:
            seen.stated |= found
        if row.type in _SUMMED and body["pub"]["transcript"] is not None:
            seen.summed.add(body["pub"]["transcript"])
        if owns(row, body):
            seen.own[row.idx >> 3] |= 1 << (row.idx & 7)
    return seen


def _names(values: Iterable[Any]) -> set[str]:
    return {value for value in values if isinstance(value, str)}


def _owner(view: View, seen: Survey) -> Callable[[Any, Any], bool]:
    """Whether a row is the view's own: signed by the organisation, or the verdict on what it sent."""
    if view.whole:
        return lambda _row, _body: True

    def owns(row: Any, body: Any) -> bool:  # noqa: ANN401  a row, and its parsed body
        if row.type in _VERDICTS:
            return bool(body["refs"]) and seen.is_own(body["refs"][0])
        mine: bool = row.actor == alias(view.alias_key, row.scope, row.run, row.round)
        return mine

    return owns
