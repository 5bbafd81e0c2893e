# SPDX-License-Identifier: Apache-2.0
"""Cosignatures as they arrive: verified, then stored, then counted.

    arrived = cosignatures.check(size, lines)       pure of the database; raises
    await writer.run(lambda session, _tx: cosignatures.store(session, arrived))      raises too
    cosignatures.count(arrived)                     after the commit: is there a quorum now?

`check`, in this order:
1. the head is one that was offered, or one whose checkpoint is stored;
2. each line is by a witness in force, each witness once, and its signature holds;
3. its time is that of this broker, give or take `WITNESS_CLOCK_S`, and no later after the entry that follows
   the head: nobody vouches today for what was overtaken yesterday;
4. its size and its time do not go back against any stored one of this witness. So a line for a size is only
   ever replaced at the largest one, by a newer look at a log in which nothing happens. The very same line
   again is no news and no mistake.

`store` asks the database for step 4 again, in its own transaction: requests cross each other. One member
whose witness lies about sizes or times so spoils nobody's audit.

A quorum is counted by the broker's policy; the newest note with one is `newest`. A note has room for so many
bytes: the small signatures come first, and what finds no room does not count. It grows in size, or in the
time up to which enough witnesses vouch for it. What is stored outlives the process, and `load` counts again.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple

from sqlalchemy import func, select

from broker.log.receipts import Head
from broker.store import tables
from broker.store.upserts import insert_or_ignore, insert_or_update
from broker.witnessing.errors import (
    CosignatureError,
    StaleCosignatureError,
    UnknownHeadError,
    UnknownWitnessError,
)
from policies.limits import WITNESS_CLOCK_S
from policies.log.checkpoint import parse_checkpoint, parse_note
from policies.log.cosignature import line_time_s, merge_fitting, open_line
from policies.log.errors import NoteError, QuorumError
from policies.log.vkeys import KeyKind

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from sqlalchemy import ColumnElement

    from broker.store import Session, Store
    from broker.witnessing.keys import WitnessKeys
    from policies.log.policy import Policy
    from policies.log.vkeys import VerifierKey
    from policies.ports import Clock

__all__ = ["Arrived", "Cosignature", "Cosignatures", "Quorum"]

_COSIGNATURE = tables.log_cosignature
_CHECKPOINT = tables.log_checkpoint


class Cosignature(NamedTuple):
    """One verified line: whose, on which size, when it says it was made, and when it came here."""

    key: VerifierKey
    size: int
    line: str
    time_s: int
    received_ms: int

    @property
    def heard_ms(self) -> int:
        """When this witness was heard last: the row of a head that is cosigned again keeps its first time."""
        return max(self.received_ms, self.time_s * 1000)


@dataclass(frozen=True, slots=True, kw_only=True)
class Arrived:
    """What one request brought: the head, its new cosignatures."""

    head: Head
    new: tuple[Cosignature, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Quorum:
    """A head with enough cosignatures: its note with all of them, and until when enough vouch for it."""

    head: Head
    voters: tuple[str, ...]
    reached_ms: int
    vouched_ms: int


@dataclass(slots=True)
class _Pile:
    """The verified cosignatures of one head."""

    head: Head
    lines: dict[str, Cosignature] = field(default_factory=dict)


class Cosignatures:
    """See the module. Belongs to the event loop's thread, but for `store`."""

    def __init__(
        self, *, keys: WitnessKeys, store: Store, clock: Clock, offered: Callable[[int], Head | None]
    ) -> None:
        """Knows nothing until `load`.

        Args:
            keys: Who witnesses.
            store: Open databases.
            clock: Of the broker.
            offered: A head of a size that was offered not long ago.
        """
        self._keys = keys
        self._store = store
        self._clock = clock
        self._offered = offered
        self._piles: dict[int, _Pile] = {}
        self._last: dict[str, Cosignature] = {}
        self.newest: Quorum | None = None

    @property
    def last(self) -> Mapping[str, Cosignature]:
        """The newest cosignature of each witness, by the name of its key."""
        return self._last

    def load(self) -> None:
        """Counts again what is stored; after a start, and after a change of who witnesses."""
        self._piles.clear()
        self._last.clear()
        self.newest = None
        with self._store.read() as session:
            for one in self._keys.everybody():
                rows = session.execute(
                    select(_COSIGNATURE, _CHECKPOINT.c.root, _CHECKPOINT.c.note)
                    .join(_CHECKPOINT, _CHECKPOINT.c.size == _COSIGNATURE.c.size)
                    .where(_COSIGNATURE.c.witness == one.key.name)
                    .order_by(_COSIGNATURE.c.size.desc())
                    .limit(1)
                ).mappings()
                for row in rows:
                    head = Head(row["size"], row["root"], row["note"])
                    self._remember(head, _verified(row["line"], row["received_ms"], head, (one.key,)))
            found = self.at_least(session, 0, newest=True)
        if found is not None:
            self.newest = found

    def _remember(self, head: Head, one: Cosignature | None) -> None:
        if one is None:
            return
        known = self._last.get(one.key.name)
        if known is None or (known.size, known.time_s) < (one.size, one.time_s):
            self._last[one.key.name] = one
        self._piles.setdefault(head.size, _Pile(head)).lines[one.key.name] = one

    def check(self, size: int, lines: Sequence[str]) -> Arrived:
        """The cosignatures of a request, verified; see the module.

        Raises:
            UnknownHeadError: Step 1.
            UnknownWitnessError, CosignatureError: Step 2.
            StaleCosignatureError: Steps 3 and 4.
        """
        head = self._head(size)  # 1.
        text = parse_note(head.note).text
        keys = tuple(one.key for one in self._keys.everybody())
        found: dict[str, Cosignature] = {}
        for line in lines:  # 2.
            one = self._open(line, text, keys, head.size)
            if one.key.name in found:
                raise _refuse("one cosignature of each witness", f"two of {one.key.name}")
            found[one.key.name] = one
        new = [one for one in found.values() if not self._is_known(size, one)]
        for one in new:
            self._check_clock(one)  # 3.
        if new:
            with self._store.read() as session:
                _check_overtaken(session, new)
                _check_order(session, new)  # 4.
        return Arrived(head=head, new=tuple(new))

    def _head(self, size: int) -> Head:
        known = self._offered(size)
        if known is None and size in self._piles:
            known = self._piles[size].head
        if known is None:
            with self._store.read() as session:
                row = session.execute(select(_CHECKPOINT).where(_CHECKPOINT.c.size == size)).one_or_none()
            known = None if row is None else Head(row.size, row.root, row.note)
        if known is None:
            raise UnknownHeadError(
                need="a head that this log offered",
                found=str(size),
                remedy="ask for the head again (GET /api/v1/log/head) and cosign that one",
            )
        return known

    def _open(self, line: str, text: str, keys: Sequence[VerifierKey], size: int) -> Cosignature:
        try:
            key, time_s = open_line(line, text, keys)
        except QuorumError as error:
            raise UnknownWitnessError(
                need="a witness whose statement is registered here",
                found=error.found,
                remedy="let its owner run: a node registers itself; iriai-broker auditor witness FILE",
            ) from error
        except NoteError as error:
            raise _refuse(error.need, error.found) from error
        return Cosignature(key, size, line, time_s, self._clock.now_ms())

    def _is_known(self, size: int, one: Cosignature) -> bool:
        pile = self._piles.get(size)
        if pile is not None and one.key.name in pile.lines:
            return pile.lines[one.key.name].line == one.line
        with self._store.read() as session:
            return session.scalar(select(_COSIGNATURE.c.line).where(_place(one))) == one.line

    def _check_clock(self, one: Cosignature) -> None:
        ahead_s = one.time_s - self._clock.now_ms() // 1000
        if abs(ahead_s) > WITNESS_CLOCK_S:
            found = f"{abs(ahead_s)} s {'ahead' if ahead_s > 0 else 'behind'}"
            raise _stale(f"a time at most {WITNESS_CLOCK_S} s ahead or behind", found)

    @staticmethod
    def store(session: Session, arrived: Arrived) -> None:
        """Writes what was verified, with the checkpoint that it is about.

        Raises:
            StaleCosignatureError: Step 4; nothing is written.
        """
        _check_order(session, arrived.new)
        head = arrived.head
        newest_ms = max((one.received_ms for one in arrived.new), default=0)
        published = {"size": head.size, "root": head.root, "note": head.note, "published_ms": newest_ms}
        insert_or_ignore(session, _CHECKPOINT, published)
        for one in arrived.new:
            first_ms = session.scalar(select(_COSIGNATURE.c.received_ms).where(_place(one)))
            row = {"size": head.size, "witness": one.key.name, "line": one.line}
            received_ms = one.received_ms if first_ms is None else first_ms
            insert_or_update(session, _COSIGNATURE, row | {"received_ms": received_ms})

    def count(self, arrived: Arrived) -> bool:
        """Counts what was stored; gives whether the newest quorum changed."""
        for one in arrived.new:
            self._remember(arrived.head, one)
        pile = self._piles.get(arrived.head.size)
        if pile is None:
            return False
        newest = self.newest
        if newest is not None and pile.head.size < newest.head.size:
            return False
        found = _quorum(pile, self._keys.policy)
        if found is None:
            return False
        if newest is not None and newest.head.size == found.head.size:
            found = replace(found, reached_ms=newest.reached_ms)
        self.newest = found
        for size in [size for size in self._piles if size < found.head.size]:
            del self._piles[size]
        return True

    def at_least(self, session: Session, size: int, *, newest: bool = False) -> Quorum | None:
        """The smallest stored head of at least this size with a quorum; or the newest of all."""
        policy = self._keys.policy
        if not policy.k:
            return None
        counted = (
            select(_COSIGNATURE.c.size)
            .where(_COSIGNATURE.c.size >= size)
            .group_by(_COSIGNATURE.c.size)
            .having(func.count() >= policy.k)
            .order_by(_COSIGNATURE.c.size.desc() if newest else _COSIGNATURE.c.size)
        )
        for (found_size,) in session.execute(counted):
            pile = self._read(session, found_size)
            quorum = None if pile is None else _quorum(pile, policy)
            if quorum is not None:
                return quorum
        return None

    def _read(self, session: Session, size: int) -> _Pile | None:
        row = session.execute(select(_CHECKPOINT).where(_CHECKPOINT.c.size == size)).one_or_none()
        if row is None:
            return None
        pile = _Pile(Head(row.size, row.root, row.note))
        keys = tuple(one.key for one in self._keys.everybody())
        for line in session.execute(select(_COSIGNATURE).where(_COSIGNATURE.c.size == size)):
            one = _verified(line.line, line.received_ms, pile.head, keys)
            if one is not None:
                pile.lines[one.key.name] = one
        return pile


def _place(one: Cosignature) -> ColumnElement[bool]:
    return (_COSIGNATURE.c.size == one.size) & (_COSIGNATURE.c.witness == one.key.name)


def _check_overtaken(session: Session, new: Sequence[Cosignature]) -> None:
    """Step 3: what follows the head is not older than its cosignature."""
    entry = tables.log_entry
    next_ms = session.scalar(select(entry.c.ts_ms).where(entry.c.idx == new[0].size))
    for one in new:
        if next_ms is not None and one.time_s - next_ms // 1000 > WITNESS_CLOCK_S:
            raise _stale(f"the newest head: that of {one.size} was overtaken before", str(one.time_s))


def _check_order(session: Session, new: Sequence[Cosignature]) -> None:
    """Step 4."""
    for one in new:
        newest = (
            select(_COSIGNATURE.c.size, _COSIGNATURE.c.line)
            .where(_COSIGNATURE.c.witness == one.key.name)
            .order_by(_COSIGNATURE.c.size.desc())
            .limit(1)
        )
        last = session.execute(newest).one_or_none()
        if last is None:
            continue
        if one.size < last.size:
            raise _stale(f"a size not below {last.size}, which {one.key.name} signed", str(one.size))
        last_s = line_time_s(last.line)
        if one.time_s < last_s:
            raise _stale(f"a time not before {last_s}, which {one.key.name} signed", str(one.time_s))


def _verified(line: str, received_ms: int, head: Head, keys: Sequence[VerifierKey]) -> Cosignature | None:
    """A stored line, if it is by a key in force: one that was given up counts no longer."""
    try:
        key, time_s = open_line(line, parse_note(head.note).text, keys)
    except (NoteError, QuorumError):
        return None
    return Cosignature(key, head.size, line, time_s, received_ms)


def _quorum(pile: _Pile, policy: Policy) -> Quorum | None:
    order = sorted(pile.lines.values(), key=lambda one: (one.key.kind is KeyKind.ML_DSA_44, one.key.name))
    note = merge_fitting(pile.head.note, [one.line for one in order])
    there = {(name, hash4) for name, hash4, _ in parse_note(note).signatures}
    found = [one for one in order if (one.key.name, one.key.hash4) in there]
    if not policy.k or not policy.satisfied([one.key for one in found]):
        return None
    checkpoint = parse_checkpoint(parse_note(pile.head.note).text)
    received = sorted(one.received_ms for one in found)
    heard = sorted(one.heard_ms for one in found)
    return Quorum(
        head=Head(checkpoint.size, checkpoint.root, note),
        voters=tuple(sorted({one.key.organisation for one in found})),
        reached_ms=received[min(policy.k, len(received)) - 1],
        vouched_ms=heard[-min(policy.k, len(heard))],
    )


def _refuse(need: str, found: str) -> CosignatureError:
    return CosignatureError(need=need, found=found, remedy="cosign the head as it is offered, once")


def _stale(need: str, found: str) -> StaleCosignatureError:
    return StaleCosignatureError(
        need=need, found=found, remedy="set the witness's clock, and cosign the head that is offered now"
    )
