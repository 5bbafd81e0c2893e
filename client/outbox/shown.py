# SPDX-License-Identifier: Apache-2.0
"""What the log showed this node, as far as it was verified: checkpoints, and receipts for what it sealed.

Nothing is judged here; `client.receipts` does, before it says `Shown.learn`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.outbox.rows import Proven, Seen
from policies.encoding import sha256
from policies.limits import WITNESS_ROWS

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable, Mapping
    from contextlib import AbstractContextManager

    from policies.ports import Clock

__all__ = ["Shown"]


class Shown:
    """The newest verified checkpoints and receipts; `client.outbox.Outbox.shown`."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        *,
        transaction: Callable[[], AbstractContextManager[None]],
        clock: Clock,
    ) -> None:
        self._db = connection
        self._transaction = transaction
        self._clock = clock
        self._learned: list[tuple[tuple[Seen, ...], dict[str, Proven]]] = []

    def seen(self) -> Seen:
        """The newest checkpoint that was verified; the empty tree at first."""
        fresh = [one for seen, _ in self._learned for one in seen]
        row = self._db.execute("SELECT size, root, note FROM seen ORDER BY size DESC LIMIT 1").fetchone()
        if row is not None:
            fresh.append(Seen(size=row[0], root=bytes.fromhex(row[1]), note=row[2]))
        return max(fresh, key=lambda one: one.size, default=Seen(size=0, root=sha256(b""), note=""))

    def seen_at(self, size: int) -> Seen | None:
        """The checkpoint of exactly this size, if it was verified once."""
        for seen, _ in self._learned:
            for one in seen:
                if one.size == size:
                    return one
        row = self._db.execute("SELECT size, root, note FROM seen WHERE size = ?", (size,)).fetchone()
        return None if row is None else Seen(size=row[0], root=bytes.fromhex(row[1]), note=row[2])

    def learn(self, seen: tuple[Seen, ...], receipts: Mapping[str, Proven], *, later: bool = False) -> None:
        """Stores what was verified: checkpoints, and receipts by the digest of the envelope.

        Args:
            seen: Checkpoints that are consistent with all that are stored.
            receipts: By payload digest.
            later: Write it with the next transaction of this object, whatever that is: an envelope never says
                that it saw what is not on disk with it.
        """
        self._learned.append((seen, dict(receipts)))
        if not later:
            with self._transaction():
                self.write()
            self.forget()

    def write(self) -> None:
        """Writes what was learned for later; inside a transaction, after whose commit comes `forget`."""
        now_ms = self._clock.now_ms()
        for seen, receipts in self._learned:
            self._db.executemany(
                "INSERT OR IGNORE INTO seen VALUES (?,?,?,?)",
                [(one.size, one.root.hex(), one.note, now_ms) for one in seen],
            )
            self._db.executemany(
                "UPDATE envelope SET log_index = ?, leaf = ?, receipt = ? WHERE env = ? AND receipt IS NULL",
                [(one.index, one.leaf, one.text, env) for env, one in receipts.items()],
            )

    def forget(self) -> None:
        """What was written needs no second place."""
        self._learned.clear()

    def seen_since(self, size: int, limit: int = WITNESS_ROWS) -> tuple[Seen, ...]:
        """The newest verified checkpoints that are larger than a size, largest first."""
        rows = self._db.execute(
            "SELECT size, root, note FROM seen WHERE size > ? ORDER BY size DESC LIMIT ?", (size, limit)
        )
        return tuple(Seen(size=row[0], root=bytes.fromhex(row[1]), note=row[2]) for row in rows.fetchall())
