# SPDX-License-Identifier: Apache-2.0
"""Succession: a log ends, and another one goes on whose first entry says which, how large, and why.

- A frozen log ends as it is. Its successor names the last checkpoint that enough witnesses cosigned, else the
  last one that was signed; of a log that forgot its end, the note that proved it.
- An open log ends in good order: ``log.frozen`` is its last entry, and the signer never signs for it again.
- Two operators sign `Succession.subject`. The signer's memory of the old log stays for good.
- The successor has a key of its own and begins with the operators and nothing else. Contracts name the log
  that they are under, and members have pinned its key: contracts are proposed anew, and members join anew,
  with the new key compared by another way.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.log.errors import LogRepairError
from broker.log.signer import FreezeReason
from policies.encoding import canonical, digest
from policies.log.checkpoint import parse_checkpoint, parse_note
from policies.log.entries import EntryType, Event
from policies.log.kinds import ORIGIN, REASON

if TYPE_CHECKING:
    from broker.log.append import Writer
    from broker.log.signer import Freeze, Signer
    from broker.log.transaction import LogTx
    from broker.store import Session

__all__ = ["PLANNED", "Succession"]

PLANNED = "planned"
"""Cause of the end of an open log, if nobody names another."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Succession:
    """The end of one log and the name of the next.

    Attributes:
        origin: Of the log that ends.
        successor: Of the log that goes on.
        cause: A reason code; of a frozen log the reason that it froze for.
        note: Checkpoint that the successor names; None for an open log, whose last entry is still to come.
    """

    origin: str
    successor: str
    cause: str
    note: str | None

    @classmethod
    def plan(
        cls, signer: Signer, origin: str, successor: str, *, cause: str | None, witnessed: str | None
    ) -> Succession:
        """What two operators are asked for.

        Args:
            signer: Of the log that ends.
            origin: Its name.
            successor: Name of the new one.
            cause: Why an open log ends; a frozen one has a reason.
            witnessed: The newest note with a quorum of cosignatures; None if there is none.

        Raises:
            LogRepairError: The new name is the old one, or no name, or the log has no checkpoint.
        """
        if successor == origin or not ORIGIN.holds(successor):
            raise _refuse("another name, in plain characters", successor)
        freeze = signer.frozen()
        if freeze is None or freeze.reason is FreezeReason.SUCCEEDED:  # the latter: interrupted
            reason = cause or PLANNED
            if not REASON.holds(reason):
                raise _refuse("a reason code, such as key-compromised", reason)
            return cls(origin=origin, successor=successor, cause=reason, note=None)
        note = _last_note(signer, freeze, witnessed)
        if not note:
            raise _refuse("a log with a checkpoint", "an empty one")
        return cls(origin=origin, successor=successor, cause=freeze.reason.value, note=note)

    def subject(self) -> bytes:
        """Canonical bytes that two operators sign."""
        return canonical(
            {
                "v": 1,
                "action": "log.succeed",
                "log": self.origin,
                "successor": self.successor,
                "cause": self.cause,
                "checkpoint": None if self.note is None else digest(self.note.encode("utf-8")),
            }
        )

    def end(self, writer: Writer, signer: Signer) -> str:
        """Ends an open log in good order; of a frozen one nothing has to be done. Repeatable.

        Returns:
            The checkpoint that the successor names.

        Raises:
            LogError: The last entry could not be written.
        """
        if self.note is not None:
            return self.note
        if signer.frozen() is not None:
            return signer.last().note

        def last(_session: Session, tx: LogTx) -> int:
            pub = {"reason": self.cause, "successor": self.successor}
            return tx.add(Event(type=EntryType.LOG_FROZEN, pub=pub))

        writer.submit(last).result()
        signer.freeze(FreezeReason.SUCCEEDED, f"{self.successor} goes on")
        return writer.head().note

    def predecessor(self, note: str) -> dict[str, Any]:
        """What the first entry of the successor says of this log, once its last checkpoint is known."""
        shown = parse_checkpoint(parse_note(note).text)
        return {
            "origin": self.origin,
            "size": shown.size,
            "root": f"sha256:{shown.root.hex()}",
            "note": digest(note.encode("utf-8")),
            "cause": self.cause,
        }


def _last_note(signer: Signer, freeze: Freeze, witnessed: str | None) -> str:
    if freeze.reason is FreezeReason.AMNESIA and freeze.note:
        return freeze.note
    return witnessed or signer.last().note


def _refuse(need: str, found: str) -> LogRepairError:
    return LogRepairError(
        need=need, found=ascii(found)[1:-1][:120], remedy="correct the command; nothing was changed"
    )
