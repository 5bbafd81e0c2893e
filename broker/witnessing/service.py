# SPDX-License-Identifier: Apache-2.0
"""Witnesses of this log, as the API uses them: their keys, the head they are asked for, what they signed.

    witnessing.load()                                   at the start, and after a change of who takes part
    await witnessing.poll(after=…, witnessed=…, wait_s=…)
    await witnessing.take(size, lines)
    witnessing.checkpoint()                             the note behind ``/log/checkpoint``
    await witnessing.receipt(index, wait_s=2.0)         graded ``witnessed`` or ``signed``

- Nothing of this holds up the log: heads are signed, and changes answered, whether anybody witnesses or not.
- A quorum is what this broker's own policy asks for (`broker.witnessing.keys`). Who reads a note checks the
  cosignatures in it by a policy of their own.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from sqlalchemy import select

from broker.store import tables
from broker.witnessing.candidate import Candidates
from broker.witnessing.complaints import contradiction, declare
from broker.witnessing.cosignatures import Cosignatures
from broker.witnessing.keys import WitnessKeys
from policies.limits import WITNESS_MAX_AGE_MIN
from policies.log.errors import LogError
from policies.log.schema import EntryType
from policies.log.vkeys import VerifierKey

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from broker.log import Head, Writer
    from broker.store import Session, Store
    from broker.witnessing.cosignatures import Quorum
    from policies.encoding import Json
    from policies.log.proofs import Receipt
    from policies.ports import Clock

__all__ = ["SIGNED", "WITNESSED", "Graded", "Witnessing"]

SIGNED: Final = "signed"
WITNESSED: Final = "witnessed"
MAX_AGE_S: Final = WITNESS_MAX_AGE_MIN * 60
_MEASURED: Final = 32


class Graded(NamedTuple):
    """A receipt and its grade."""

    receipt: Receipt
    grade: str


class Witnessing:
    """See the module. Belongs to the event loop's thread."""

    def __init__(
        self, *, writer: Writer, store: Store, clock: Clock, log_vkeys: Sequence[str], broker_key: bytes
    ) -> None:
        self._writer = writer
        self._store = store
        self._clock = clock
        self._log_keys = tuple(VerifierKey.parse(one) for one in log_vkeys)
        self.keys: Final = WitnessKeys(log_keys=self._log_keys, broker_key=broker_key)
        self.candidates: Final = Candidates(head=writer.head, reached=self._reached, clock=clock)
        self.cosignatures: Final = Cosignatures(
            keys=self.keys, store=store, clock=clock, offered=self.candidates.recent
        )
        self.more_voters: Callable[[], None] = _nobody
        self._took: dict[int, int] = {}
        writer.receipts.listen(self.candidates.changed)

    def load(self) -> None:
        """Reads again who witnesses, and counts again what they signed. Repeatable."""
        with self._store.read() as session:
            self.keys.load(session)
        self.cosignatures.load()
        self.candidates.changed()

    @property
    def newest(self) -> Quorum | None:
        """The newest head with a quorum."""
        return self.cosignatures.newest

    @property
    def organisations(self) -> int:
        """How many organisations cosigned the newest head with a quorum."""
        return 0 if self.newest is None else len(self.newest.voters)

    def _reached(self) -> int:
        if not self.keys.policy.k:
            return self._writer.head().size
        return 0 if self.newest is None else self.newest.head.size

    def checkpoint(self) -> Head:
        """The newest note that this broker's policy accepts: with its quorum, or signed by the log alone.

        Of a log that was frozen because its newest entries were changed, less can be shown than was cosigned:
        then it is the newest head that still fits them, whoever cosigned it.
        """
        if not self.keys.policy.k or self.newest is None:
            return self._writer.head()
        cosigned = self.newest.head
        if self._writer.frozen is None or cosigned.size <= (fits := self._writer.head()).size:
            return cosigned
        return fits

    async def covering(self, index: int, *, wait_s: float) -> Head:
        """`checkpoint`; awaited for a moment, if it does not cover the entry yet."""
        await self.candidates.news(is_news=lambda: self.checkpoint().size > index, wait_s=wait_s)
        return self.checkpoint()

    async def poll(self, *, after: int, witnessed: int, wait_s: float) -> dict[str, Json]:
        """The head to cosign, and the newest one with a quorum, once one of them is larger than these."""

        def is_news() -> bool:
            offered, newest = self.candidates.offered(), self.newest
            return (offered is not None and offered.size > after) or (
                newest is not None and newest.head.size > witnessed
            )

        await self.candidates.news(is_news=is_news, wait_s=wait_s)
        offered, newest = self.candidates.offered(), self.newest
        return {
            "size": 0 if offered is None else offered.size,
            "note": None if offered is None else offered.note,
            "checkpoint": None if newest is None else newest.head.note,
        }

    async def take(self, size: int, lines: Sequence[str]) -> dict[str, Json]:
        """Verifies cosignatures, stores them and counts them; see `broker.witnessing.cosignatures`."""
        arrived = self.cosignatures.check(size, lines)
        if arrived.new:
            await self._writer.run(lambda session, _tx: Cosignatures.store(session, arrived))
            before = self.organisations
            if self.cosignatures.count(arrived):
                self.candidates.changed()
            if self.organisations > before:
                self.more_voters()
        newest = self.newest
        return {"stored": len(arrived.new), "witnessed": 0 if newest is None else newest.head.size}

    async def complain(self, notes: Sequence[str]) -> dict[str, Json]:
        """Declares what a complaint proves, and freezes the log.

        Raises:
            ComplaintError: It proves nothing.
        """
        contradiction(self._writer, notes, self._log_keys)
        with contextlib.suppress(LogError):  # another process may have signed more: look again after a turn
            await self._writer.run(lambda _session, _tx: None)
        found = contradiction(self._writer, notes, self._log_keys)
        await declare(self._writer, found)
        return {"kind": found.kind, "evidence": found.evidence, "frozen": self._writer.frozen is not None}

    async def receipt(self, index: int, *, wait_s: float = 0.0) -> Graded:
        """The receipt of an entry at the smallest stored head with a quorum, else at the newest signed one.

        Raises:
            NotInLogError: No checkpoint covers the entry.
        """
        await self.candidates.news(is_news=lambda: self._covers(index), wait_s=wait_s)
        if self._covers(index):
            with self._store.read() as session:
                quorum = self.cosignatures.at_least(session, index + 1) or self.newest
            if quorum is not None:
                return Graded(self._writer.receipts.receipt(index, quorum.head), WITNESSED)
        return Graded(self._writer.receipts.receipt(index), SIGNED)

    def _covers(self, index: int) -> bool:
        return self.newest is not None and self.newest.head.size > index

    def status(self) -> dict[str, Json]:
        """Who witnesses, how long ago each was heard, and how old the newest quorum is."""
        now_ms, newest, policy = self._clock.now_ms(), self.newest, self.keys.policy
        vouched_s = None if newest is None else _age_s(now_ms, newest.vouched_ms)
        witnesses = self._heard(now_ms)
        return {
            "k": policy.k,
            "n": policy.n,
            "tolerates": policy.tolerates if policy.k else None,
            "witnesses": witnesses,
            "size": None if newest is None else newest.head.size,
            "voters": [] if newest is None else list(newest.voters),
            "age_s": vouched_s,
            "alarm": bool(policy.k) and (vouched_s is None or vouched_s > MAX_AGE_S),
            "contribution_to_quorum_ms": self._contribution_to_quorum_ms(),
        }

    def _heard(self, now_ms: int) -> list[Json]:
        """Each witness with its owner's name, and when it was heard; ``missing``: not for too long."""
        org = tables.organisation
        with self._store.read() as session:
            names = {
                row.org_id: row.legal_name for row in session.execute(select(org.c.org_id, org.c.legal_name))
            }
        found: list[Json] = []
        for one in self.keys.everybody():
            last = self.cosignatures.last.get(one.key.name)
            age_s = None if last is None else _age_s(now_ms, last.heard_ms)
            found.append(
                {
                    "name": one.key.name,
                    "legal_name": names.get(one.owner, one.owner),
                    "size": None if last is None else last.size,
                    "age_s": age_s,
                    "missing": age_s is None or age_s > MAX_AGE_S,
                }
            )
        return found

    def missing(self) -> tuple[str, ...]:
        """Witnesses that were not heard for too long, by names of keys, which anybody may know."""
        return tuple(str(one["name"]) for one in self._heard(self._clock.now_ms()) if one["missing"])

    def _contribution_to_quorum_ms(self) -> int | None:
        """Median time from an accepted contribution to a quorum that covers it, of the newest ones."""
        entry = tables.log_entry
        newest = (
            select(entry.c.idx, entry.c.ts_ms)
            .where(entry.c.type == EntryType.CONTRIBUTION_ACCEPTED.value)
            .order_by(entry.c.idx.desc())
            .limit(_MEASURED)
        )
        with self._store.read() as session:
            self._took = self._measured(session, session.execute(newest).all()[::-1])
        took = sorted(self._took.values())
        return took[len(took) // 2] if took else None

    def _measured(self, session: Session, rows: Sequence[Any]) -> dict[int, int]:
        """How long each of these entries took, oldest first; one that is covered is not looked up again."""
        found: dict[int, int] = {}
        quorum: Quorum | None = None
        for row in rows:
            took = self._took.get(row.idx)
            if took is None:
                if quorum is None or quorum.head.size <= row.idx:  # else it covers this entry too
                    quorum = (
                        self.cosignatures.at_least(session, row.idx + 1) if self._covers(row.idx) else None
                    )
                if quorum is None:
                    break  # nor is what came later covered
                took = quorum.reached_ms - row.ts_ms
            found[row.idx] = took
        return found

    def drain(self) -> None:
        """Ends held questions, so that the server can stop at once."""
        self.candidates.drain()


def _age_s(now_ms: int, then_ms: int) -> int:
    return max(0, now_ms - then_ms) // 1000


def _nobody() -> None:
    """Nobody wants to know."""
