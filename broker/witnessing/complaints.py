# SPDX-License-Identifier: Apache-2.0
"""A complaint: somebody holds notes of this log's own key that are not of the history that it shows.

1. every note is signed by a key of this log, for this log;
2. one of them is larger than the newest signed head, or has another root at its size: then this key signed
   what this log does not have, whoever lost it;
3. ``incident.declared`` as long as the log can still be written: ``amnesia`` for a larger note,
   ``equivocation`` for another root. The evidence is the digest of the notes as they were sent;
4. the log is frozen, with the note that proves it. Two people decide how it goes on.

A complaint authenticates itself by step 1, so that it may come from anybody. One that proves nothing is
refused and changes nothing.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

from broker.log.errors import LogError as BrokerLogError
from broker.witnessing.errors import ComplaintError
from policies.encoding import digest_of
from policies.log.checkpoint import open_checkpoint
from policies.log.entries import EntryType, Event
from policies.log.errors import LogError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from broker.log import LogTx, Writer
    from broker.store import Session
    from policies.log.vkeys import VerifierKey

__all__ = ["Contradiction", "contradiction", "declare"]

NOTES: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Contradiction:
    """What a complaint proves: the note that is not of this history, and the digest of all of them."""

    kind: Literal["amnesia", "equivocation"]
    note: str
    evidence: str


def contradiction(writer: Writer, notes: Sequence[str], keys: Iterable[VerifierKey]) -> Contradiction:
    """Steps 1 and 2.

    Raises:
        ComplaintError: Nothing is proven.
    """
    known = tuple(keys)
    for note in notes:
        try:
            shown = open_checkpoint(note, known)
        except LogError as error:
            raise _nothing("notes that a key of this log signed", error.found) from error
        head = writer.head()
        if shown.size > head.size:
            return Contradiction(kind="amnesia", note=note, evidence=digest_of(list(notes)))
        if writer.receipts.root(shown.size) != shown.root:
            return Contradiction(kind="equivocation", note=note, evidence=digest_of(list(notes)))
    raise _nothing("a note that is larger than this log, or has another root", "notes of its one history")


async def declare(writer: Writer, found: Contradiction) -> None:
    """Steps 3 and 4. Repeatable."""

    def work(_session: Session, tx: LogTx) -> None:
        pub = {"kind": found.kind, "evidence": found.evidence}
        tx.add(Event(type=EntryType.INCIDENT_DECLARED, pub=pub))

    with contextlib.suppress(BrokerLogError):  # frozen already, or the disk is full
        await writer.run(work)
    writer.amnesia(found.note)


def _nothing(need: str, found: str) -> ComplaintError:
    return ComplaintError(
        need=need,
        found=ascii(found)[1:-1][:200],
        remedy="compare both notes with other members: iriai-verify compare-checkpoints",
    )
