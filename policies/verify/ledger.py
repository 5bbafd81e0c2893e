# SPDX-License-Identifier: Apache-2.0
"""One row of fixed length for every entry: what rules over the whole log need of it, on disk.

`policies.verify.scan` writes the rows, tile by tile; `policies.verify.members` adds who sent an entry. Rules
that look at all entries read rows, and entries themselves only where a row says that there is something to
see.
"""

from __future__ import annotations

import struct
import sys
from array import array
from functools import lru_cache, partial
from itertools import compress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from policies.log.schema import EntryType
from policies.verify.spill import SpillFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

__all__ = [
    "ALLOWED",
    "AUDITOR",
    "BY_TWO",
    "CLOSES",
    "CODES",
    "ENVELOPED",
    "KEPT_BACK",
    "KINDS",
    "LOOKED_AT",
    "MEMBER",
    "SCOPED",
    "SIGNED",
    "UNTRIED",
    "Ledger",
    "Row",
]

KINDS: Final[Sequence[EntryType]] = tuple(EntryType)
"""Types by their code minus 1; code 0 is an entry that could not be read."""
CODES: Final[Mapping[EntryType, int]] = {kind: code for code, kind in enumerate(KINDS, 1)}
BY_TWO: Final = (
    "contract.activate",
    "contract.terminate",
    "key.rotate",
    "log.repair",
    "log.succeed",
    "org.remove",
    "org.restore",
    "witness.add",
    "witness.remove",
)
"""Actions that one person may not do alone (`policies.verify.approvals`)."""
LOOKED_AT: Final = ("run.resume", "org.approve", *BY_TWO)
"""Actions of operators that rules look at; all others are only counted on to be there."""
CLOSES: Final = len(LOOKED_AT) + 1
"""`Row.request` of an ``incident.close`` that was done: there may be many, and the row says all of it."""
NOBODY: Final = 0xFFFF_FFFF

ENVELOPED = 1  # a member's, with its envelope in the bundle, whose payload has the digest `env`
SIGNED = 2  # by the key `Row.key`, and its payload is one
UNTRIED = 4  # by none of the keys that contracts and notices name
KEPT_BACK = 8  # some of its confidential fields are not disclosed
AUDITOR = 16  # the actor is the auditor
SCOPED = 32
ALLOWED = 64  # what a decision said
MEMBER = 128  # the entry names an envelope, whether that is there or not

_FORMATS = ("B", "B", "I", "I", "B", *"qqqQQ", "8s", "8s", "32s", "32s", "32s", "16s", "32s", "32s", "8s")
_ROW = struct.Struct("<" + "".join(_FORMATS))  # little-endian, no gaps
_TILE = 256


class Row(NamedTuple):
    """What is known of an entry.

    Attributes:
        code: Of its type; 0: it could not be read.
        flags: `ENVELOPED` and the others.
        key: Number of the key that signed its envelope.
        wanted: Number of the organisation whose alias is the actor; `NOBODY`.
        request: Of a decision what was asked (`policies.verify.scan`); of an action its place in
            `LOOKED_AT`, from 1, or `CLOSES`.
        minute: ``ts``, in minutes.
        at_ms: The disclosed time; -1 without it.
        round: -1 without one.
        seq: Of the envelope, as are the following.
        seen_size: What its node had seen.
        chain: 8 bytes.
        actor: The alias, 8 bytes.
        env: Digest of the payload, 32 bytes; of an incident without an envelope, of what it is about
            (`policies.verify.incidents.subject_of`).
        prev: 32 bytes; zeros for none.
        seen_root: 32 bytes.
        id: Event id.
        scope: 32 bytes, if `SCOPED`.
        run: ASCII, padded with zeros.
        mark: The first 8 bytes of a submission's update digest.
    """

    code: int
    flags: int = 0
    key: int = 0
    wanted: int = NOBODY
    request: int = 0
    minute: int = 0
    at_ms: int = -1
    round: int = -1
    seq: int = 0
    seen_size: int = 0
    chain: bytes = b""
    actor: bytes = b""
    env: bytes = b""
    prev: bytes = b""
    seen_root: bytes = b""
    id: bytes = b""
    scope: bytes = b""
    run: bytes = b""
    mark: bytes = b""

    @property
    def run_id(self) -> str | None:
        """As in the entry."""
        return self.run.rstrip(b"\0").decode("ascii") or None

    @property
    def scope_digest(self) -> str | None:
        """As in the entry."""
        return f"sha256:{self.scope.hex()}" if self.flags & SCOPED else None


class Ledger:
    """The rows of a log of this size, and who sent each entry."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.codes = bytearray(size)
        self._rows = SpillFile()
        self._senders = SpillFile()
        self._places = SpillFile()
        self._runs: dict[bytes, tuple[int, int]] = {}

    def write(self, start: int, rows: Sequence[Row]) -> None:
        """Rows from an index on; `codes` are the caller's to set, who may be another process."""
        self._rows.write(start * _ROW.size, b"".join(_ROW.pack(*row) for row in rows))

    def row(self, index: int) -> Row:
        """Of an entry."""
        return Row._make(_ROW.unpack(self._rows.read(index * _ROW.size, _ROW.size)))

    def rows(self, begin: int = 0, end: int | None = None) -> Iterator[tuple[int, Row]]:
        """Of every entry that could be read, in order; from and to an index."""
        return self._read(_ROW, begin, self.size if end is None else end, _as_row)

    def columns(self, *names: str) -> Iterator[tuple[int, tuple[Any, ...]]]:
        """Some fields of every row that `rows` gives, in the order of `Row`; a few cost far less than all."""
        return self._read(_columns(names), 0, self.size, None)

    def _read(
        self, form: struct.Struct, begin: int, end: int, make: Callable[[Any], Any] | None
    ) -> Iterator[tuple[int, Any]]:
        for start in range(begin, end, _TILE):
            count = min(_TILE, end - start)
            found = form.iter_unpack(self._rows.read(start * form.size, count * form.size))
            values = found if make is None else map(make, found)
            yield from compress(enumerate(values, start), self.codes[start : start + count])

    # --- who sent them ---

    def set_senders(self, start: int, numbers: array[int]) -> None:
        """Numbers of the senders from an index on: places in `History.makers`, from 1; 0 is nobody."""
        self._senders.write(start * 4, numbers.tobytes())

    def sender(self, index: int) -> int:
        """Number of the sender of an entry."""
        return int.from_bytes(self._senders.read(index * 4, 4), sys.byteorder)

    def senders(self) -> Iterator[tuple[int, int]]:
        """Entries with a known sender, in order, each with the sender's number."""
        for start in range(0, self.size, _TILE):
            numbers = array("I")
            numbers.frombytes(self._senders.read(start * 4, 4 * min(_TILE, self.size - start)))
            yield from ((index, number) for index, number in enumerate(numbers, start) if number)

    def sent(self) -> Iterator[tuple[int, int, Row]]:
        """As `senders`, with the rows."""
        for start in range(0, self.size, _TILE):
            count = min(_TILE, self.size - start)
            numbers = array("I")
            numbers.frombytes(self._senders.read(start * 4, 4 * count))
            if any(numbers):
                rows = map(_as_row, _ROW.iter_unpack(self._rows.read(start * _ROW.size, count * _ROW.size)))
                yield from compress(zip(range(start, start + count), numbers, rows, strict=True), numbers)

    # --- by run ---

    def sort_runs(self, kinds: frozenset[int]) -> None:
        """Sorts the indexes of entries by their run: those of these codes; the others belong to no run."""
        counts: dict[bytes, int] = {}
        for _, (code, own) in self.columns("code", "run"):
            run = own if code in kinds else _NO_RUN
            counts[run] = counts.get(run, 0) + 1
        at, free = 0, dict[bytes, int]()
        for run, count in counts.items():
            self._runs[run] = (at, count)
            free[run] = at
            at += count
        held: dict[bytes, array[int]] = {}
        waiting = 0
        for index, (code, own) in self.columns("code", "run"):
            run = own if code in kinds else _NO_RUN
            held.setdefault(run, array("Q")).append(index)
            waiting += 1
            if waiting >= _WAITING:
                self._flush(held, free)
                waiting = 0
        self._flush(held, free)

    def _flush(self, held: dict[bytes, array[int]], free: dict[bytes, int]) -> None:
        for run, indexes in held.items():
            self._places.write(free[run] * 8, indexes.tobytes())
            free[run] += len(indexes)
        held.clear()

    def runs(self) -> list[str | None]:
        """Every run, in the order of its first entry; None for what belongs to none."""
        return [one.rstrip(b"\0").decode("ascii") or None for one in self._runs]

    def batches(self, least: int) -> list[list[str | None]]:
        """Runs in parts of so many entries or more."""
        found: list[list[str | None]] = [[]]
        waiting = 0
        for run, (_, count) in zip(self.runs(), self._runs.values(), strict=True):
            found[-1].append(run)
            waiting += count
            if waiting >= least:
                found.append([])
                waiting = 0
        return [one for one in found if one]

    def of_run(self, run: str | None) -> array[int]:
        """Indexes of the entries of a run, ascending."""
        start, count = self._runs.get((run or "").encode("ascii").ljust(32, b"\0"), (0, 0))
        found = array("Q")
        found.frombytes(self._places.read(start * 8, count * 8))
        return found


@lru_cache(maxsize=32)
def _columns(names: tuple[str, ...]) -> struct.Struct:
    if list(names) != [one for one in Row._fields if one in names]:
        raise ValueError(names)
    fields = zip(Row._fields, _FORMATS, strict=True)
    return struct.Struct(
        "<" + "".join(form if name in names else f"{struct.calcsize('<' + form)}x" for name, form in fields)
    )


_as_row: Callable[[Any], Row] = partial(tuple.__new__, Row)  # `Row._make` of what surely has its length
_NO_RUN = bytes(32)
_WAITING = 65_536
