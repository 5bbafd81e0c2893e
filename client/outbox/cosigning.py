# SPDX-License-Identifier: Apache-2.0
"""What this node cosigned as a witness, and what enough witnesses did; `client.witnessing` decides."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from client.outbox.rows import WitnessedNote
from policies.limits import WITNESS_ROWS
from policies.log.witness import WitnessState

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from policies.ports import Clock

__all__ = ["Cosigning"]

_T = TypeVar("_T")


class Cosigning:
    """The witness's state and the witnessed checkpoints; `client.outbox.Outbox.cosigning`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        transaction: Callable[[], AbstractContextManager[None]],
        check_open: Callable[[], None],
        clock: Clock,
    ) -> None:
        self._db = connection
        self._transaction = transaction
        self._check_open = check_open
        self._clock = clock

    def cosigned(self) -> WitnessState | None:
        """What this node's witness cosigned last."""
        row = self._db.execute("SELECT size, root, time_s, note FROM cosigned").fetchone()
        if row is None:
            return None
        return WitnessState(size=row[0], root=bytes.fromhex(row[1]), time_s=row[2], note=row[3])

    def cosign(self, decide: Callable[[WitnessState | None], tuple[WitnessState | None, _T]]) -> _T:
        """Check and persist in one transaction: durable when it returns, and only then a line may leave.

        Args:
            decide: Given what was cosigned last, what is cosigned now (None: nothing changes), and an answer.

        Raises:
            EquivocationError: The node was stopped.
        """
        with self._transaction():
            self._check_open()
            state, answer = decide(self.cosigned())
            if state is not None:
                self._db.execute(
                    "INSERT OR REPLACE INTO cosigned VALUES (1,?,?,?,?)",
                    (state.size, state.root.hex(), state.time_s, state.note),
                )
        return answer

    def keep_witnessed(self, size: int, note: str) -> None:
        """Keeps a checkpoint with a quorum, and forgets the oldest ones."""
        with self._transaction():
            self._db.execute(
                "INSERT INTO witnessed VALUES (?,?,?) ON CONFLICT(size) DO UPDATE"
                " SET note = excluded.note, at_ms = excluded.at_ms",
                (size, note, self._clock.now_ms()),
            )
            self._db.execute(
                "DELETE FROM witnessed WHERE size NOT IN"
                " (SELECT size FROM witnessed ORDER BY size DESC LIMIT ?)",
                (WITNESS_ROWS,),
            )

    def witnessed(self) -> tuple[WitnessedNote, ...]:
        """The checkpoints that were kept, largest first."""
        rows = self._db.execute("SELECT size, note, at_ms FROM witnessed ORDER BY size DESC").fetchall()
        return tuple(WitnessedNote(size=row[0], note=row[1], at_ms=row[2]) for row in rows)

    def upgrade(self, receipts: Mapping[str, tuple[int, str]]) -> None:
        """Keeps receipts of grade witnessed by the digest of the envelope: size of the checkpoint, text."""
        now_ms = self._clock.now_ms()
        with self._transaction():
            self._db.executemany(
                "INSERT OR IGNORE INTO witnessed_receipt VALUES (?,?,?,?)",
                [(env, size, text, now_ms) for env, (size, text) in receipts.items()],
            )
