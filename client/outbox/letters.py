# SPDX-License-Identifier: Apache-2.0
"""What may be done inside one transaction of the outbox: sealing, noting, keeping."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from policies.encoding import b64, digest
from policies.log.envelope import Seen as SeenMark
from policies.log.envelope import seal_envelope
from policies.log.schema import EntryType
from policies.ports import to_ms
from policies.signing import Envelope

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Mapping

    from client.outbox.file import Outbox
    from client.outbox.rows import Decided

__all__ = ["FIRST", "Letters"]

FIRST = "chain first"
"""Under this name the row of the chain's first envelope is kept."""


class Letters:
    """What may be done inside one transaction of the outbox; from `Outbox.writing` only."""

    def __init__(self, outbox: Outbox, connection: sqlite3.Connection) -> None:
        self._outbox = outbox
        self._db = connection
        self._first: int | None = None
        self._last: int | None = None

    def seal(
        self,
        kind: str,
        *,
        body: Mapping[str, Any],
        slot: str | None = None,
        scope: str | None = None,
        run: str | None = None,
        round: int | None = None,  # noqa: A002  the envelope's own word
    ) -> Envelope:
        """The next envelope of the chain, or the one that the slot has already."""
        if slot is not None:
            known = self._db.execute("SELECT seq, dsse FROM envelope WHERE slot = ?", (slot,)).fetchone()
            if known is not None:
                self._span(known[0])
                return Envelope.from_bytes(known[1])
        self._outbox.check_signer(kind)
        row, prev = self._head()
        chain, first = self._outbox.chain_and_first()
        now_ms = self._outbox.clock.now_ms()
        seen = self._outbox.shown.seen()
        envelope = seal_envelope(
            self._outbox.key,
            log=self._outbox.origin,
            kind=EntryType(kind),
            chain=chain,
            seq=row - first,
            prev=prev,
            seen=SeenMark(seen.size, seen.root),
            time_ms=now_ms,
            nonce=self._outbox.entropy.token_bytes(16),
            scope=scope,
            run=run,
            round=round,
            ack=self._ack(),
            body=body,
        )
        self._db.execute(
            "INSERT INTO envelope VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL)",
            (row, kind, scope, run, round, slot, digest(envelope.payload), envelope.to_bytes(), now_ms),
        )
        self._span(row)
        return envelope

    def note(
        self,
        *,
        kind: str,
        size_bytes: int,
        digest: str,
        clause: str | None = None,
        contract: str | None = None,
        run: str | None = None,
        round: int | None = None,  # noqa: A002  the envelope's own word
        attempt: int | None = None,
    ) -> None:
        """Writes down that something is about to leave, with the envelopes of this transaction."""
        self._db.execute(
            "INSERT INTO sent VALUES (NULL,?,?,?,?,?,?,?,?,?,?,?)",
            (
                self._outbox.clock.now_ms(), kind, size_bytes, digest, clause, contract, run, round, attempt,
                self._first, self._last,
            ),
        )  # fmt: skip

    def decided(self, one: Decided) -> None:
        """Keeps a decision of the guard, for ``guard log`` and ``guard explain``."""
        self._db.execute(
            "INSERT INTO decision VALUES (NULL,?,?,?,?,?,?,?,?,?,?)",
            (
                one.at_ms,
                one.contract,
                one.recipe,
                one.run,
                one.round,
                one.attempt,
                one.kind,
                int(one.allow),
                " ".join(one.clauses),
                json.dumps(one.document, sort_keys=True),
            ),
        )

    def keep(self, name: str, value: str) -> None:
        """Keeps a value of this node's own under a name, with this transaction's envelopes; only once."""
        self._db.execute("INSERT INTO meta VALUES (?, ?)", (name, value))

    def pending(self) -> tuple[Envelope, ...]:
        """Envelopes of earlier transactions that have no receipt yet, oldest first."""
        before = self._first if self._first is not None else 2**62
        return tuple(one.envelope for one in self._outbox.pending() if one.seq < before)

    def take_back(self, envelope: Envelope, payload: Mapping[str, Any], slot: str | None) -> bool:
        """Puts an envelope of this node's in the file that the log has and the file lost.

        Its receipt has to follow before `begin_chain`. A slot that it has is taken from whatever has it here:
        the log knows this one. Gives whether it was not in the file.
        """
        env = digest(envelope.payload)
        known = self._db.execute("SELECT 1 FROM envelope WHERE env = ?", (env,)).fetchone()
        if known is not None:
            return False
        if slot is not None:
            self._db.execute("UPDATE envelope SET slot = NULL WHERE slot = ?", (slot,))
        place = (payload["scope"], payload["run"], payload["round"])
        at_ms = to_ms(payload["time"])
        self._db.execute(
            "INSERT INTO envelope VALUES (?,?,?,?,?,?,?,?,?,NULL,NULL,NULL)",
            (self._rows(), payload["kind"], *place, slot, env, envelope.to_bytes(), at_ms),
        )
        return True

    def begin_chain(self) -> None:
        """Everything that is sealed from here on is of a new chain, with numbers from 0."""
        first = self._rows()
        self._db.execute("UPDATE envelope SET slot = NULL WHERE receipt IS NULL")
        for name, value in (("chain", self._outbox.entropy.token_bytes(8).hex()), (FIRST, str(first))):
            self._db.execute(
                "INSERT INTO meta VALUES (?1, ?2) ON CONFLICT(name) DO UPDATE SET value = ?2", (name, value)
            )

    def _rows(self) -> int:
        """The next free row."""
        return int(self._db.execute("SELECT coalesce(max(seq) + 1, 0) FROM envelope").fetchone()[0])

    def _head(self) -> tuple[int, str | None]:
        """The next row, and what the newest envelope of the chain is called."""
        _, first = self._outbox.chain_and_first()
        row = self._db.execute(
            "SELECT env FROM envelope WHERE seq >= ? ORDER BY seq DESC LIMIT 1", (first,)
        ).fetchone()
        return (self._rows(), None) if row is None else (self._rows(), row[0])

    def _ack(self) -> dict[str, Any] | None:
        """The last own entry that is known to be in the log."""
        row = self._db.execute(
            "SELECT log_index, leaf FROM envelope WHERE receipt IS NOT NULL ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return None if row is None else {"index": row[0], "leaf_hash": b64(row[1])}

    def _span(self, seq: int) -> None:
        self._first = seq if self._first is None else min(self._first, seq)
        self._last = seq if self._last is None else max(self._last, seq)
