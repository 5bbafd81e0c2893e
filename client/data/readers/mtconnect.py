# SPDX-License-Identifier: Apache-2.0
"""MTConnect: saved answers of an agent to ``/sample``, a file or a folder of them.

- Answers are read in the order in which the agent gave them (``creationTime``, then ``nextSequence``), not by
  name. What an earlier answer brought already is left out and counted.
- One series per uninterrupted run. A new ``instanceId`` begins another, and so does a jump in the sequence:
  the first observation of an answer is not the ``nextSequence`` of the one before it. Within an answer
  numbers may be missing, because a path in the request leaves data items out; then a jump is known only by
  ``firstSequence``, the oldest one the agent still had, and ``sequence-unproven`` is counted.
- A row is every stamp at which a mapped item was reported. MTConnect reports changes: an item keeps its last
  value until the next report or until it is ``UNAVAILABLE``. After a jump nothing is known before it is
  reported again. Rows are in the order of their stamps within one answer.
- Stamps are the agent's or adapter's: clock ``host``. The map's own clock, if it has one, is not used.
- Rows are numbered by the sequence of their last observation, each run after the one before.

Names of data items and what is secret: client.data.readers.mtconnect_xml. One answer is in memory at a time.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from client.data.readers.cells import numbers, stamps
from client.data.readers.files import check_file, sha256_file
from client.data.readers.mtconnect_xml import Document, Header, Item, Wanted, read_document, read_header
from client.data.series import READ_ALL, Int64, Note, Probe, ReadOptions, Series, SourceRef
from client.data.signalmap import Clock
from policies.limits import SERIES_ROWS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from client.data.series import Array64, Texts
    from client.data.signalmap import SignalMap

__all__ = ["MtconnectReader"]

_SUFFIX: Final = ".xml"
_THREES: Final = frozenset({"PathPosition", "Orientation", "Rotation", "Translation"})
_UNITS: Final[Mapping[str, str]] = {  # the standard fixes one unit per type; a stream does not repeat it
    "Angle": "deg",
    "AngularVelocity": "deg/s",
    "AngularAcceleration": "deg/s2",
    "RotaryVelocity": "rpm",
    "Position": "mm",
    "PathPosition": "mm",
    "Velocity": "mm/s",
    "PathFeedrate": "mm/s",
    "Load": "%",
    "Temperature": "degC",
    "Torque": "Nm",
    "LinearForce": "N",
    "Amperage": "A",
    "Mass": "kg",
}
_WALL: Final = Clock(column="timestamp", unit="rfc3339", kind="host")


class MtconnectReader:
    """Saved ``/sample`` answers."""

    name = "mtconnect"

    def claims(self, path: Path) -> bool:
        """A file ``*.xml``, or a folder that holds some."""
        return bool(_files(path))

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Data items of the first answer, and of further ones until every mapped column was met."""
        files = _files(path)
        sizes = [check_file(file) for file in files]
        wanted = Wanted(signals)
        items: dict[str, Item] = {}
        for file in files:
            items |= read_document(file, wanted).items
            if len(wanted.owners) == len(wanted.columns):
                break
        names = [(name, items[ident]) for ident, some in _names(items).items() for name in some]
        return Probe(
            reader=self.name,
            version="streams",
            channels=tuple(dict.fromkeys([*(name for name, _ in names), *wanted.owners])),
            units={name: _UNITS[item.kind] for name, item in names if item.kind in _UNITS},
            texts=frozenset(name for name, item in names if item.event),
            bytes=sum(sizes),
        )

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """Parts of at most `SERIES_ROWS` rows, one name per uninterrupted run."""
        del options  # an answer that was cut is refused
        signals.require([*probe.channels, *_clock_column(signals)], path.name)
        files = _ordered(_files(path))
        wanted = Wanted(signals)
        source = _source([sha256_file(file) for _, file in files])
        held: Series | None = None
        for part in _parts(files, wanted, note, path.name, source):
            if held is not None:
                yield replace(held, more=held.name == part.name)
            held = part
        note("secret-columns", len(wanted.secrets))
        if held is not None:
            yield held


@dataclass(frozen=True, slots=True, kw_only=True)
class _Rows:
    """Rows of one answer: stamps, the sequence that ends each, and the columns with held values."""

    stamps_ns: Int64
    sequences: Int64
    columns: dict[str, Array64]
    texts: dict[str, Texts]


class _State:
    """What is known between two answers: where the run stands, and the last value of each column."""

    def __init__(self) -> None:
        self.instance, self.following, self.run, self.offset, self.proven = "", 0, 0, 0, True
        self.values: dict[str, float] = {}
        self.words: dict[str, str] = {}

    def joined(self, header: Header, document: Document, note: Note) -> None:
        """Goes on with the run, or begins another after a jump or a new agent."""
        whole = 0 < document.observations == header.following - document.lowest
        if header.instance == self.instance:
            proven = whole and self.proven
            missed = (document.lowest if proven else header.first) > self.following
            if not missed:
                note("sequence-unproven", int(not proven))
                self.following, self.proven = header.following, whole
                return
            note("sequence-gaps", 1)
        self.offset += self.following
        self.instance, self.following, self.proven = header.instance, header.following, whole
        self.run += 1
        self.values.clear()
        self.words.clear()


def _names(items: Mapping[str, Item]) -> dict[str, list[str]]:
    """Id to the channels of an item: its first alias that no other item has."""
    taken = Counter(alias for ident, item in items.items() for alias in set(item.aliases(ident)))
    found = {}
    for ident, item in items.items():
        name = next((alias for alias in item.aliases(ident) if taken[alias] == 1), ident)
        found[ident] = [f"{name}_{i}" for i in range(3)] if item.kind in _THREES else [name]
    return found


def _files(path: Path) -> list[Path]:
    if path.is_dir():
        return sorted(p for p in path.iterdir() if p.suffix.lower() == _SUFFIX and not p.name.startswith("."))
    return [path] if path.suffix.lower() == _SUFFIX else []


def _ordered(files: list[Path]) -> list[tuple[Header, Path]]:
    headers = [read_header(file) for file in files]
    created, _ = stamps(
        pa.chunked_array([pa.array([header.created for header in headers], pa.string())]),
        _WALL,
        rows=len(headers),
        where="creationTime",
        decimal=".",
        empty=np.zeros(len(headers), dtype=bool),
    )
    order = sorted(range(len(files)), key=lambda i: (int(created[i]), headers[i].following, files[i].name))
    return [(headers[i], files[i]) for i in order]


def _source(digests: list[str]) -> str:
    """SHA-256 of the file, or over those of a folder in their order."""
    return digests[0] if len(digests) == 1 else hashlib.sha256("\n".join(digests).encode()).hexdigest()


def _parts(
    files: list[tuple[Header, Path]], wanted: Wanted, note: Note, name: str, source: str
) -> Iterator[Series]:
    state = _State()
    for header, file in files:
        document = read_document(file, wanted)
        if header.instance == state.instance and header.following <= state.following:
            note("repeated-answers", int(document.observations > 0))
            continue
        before = state.following if header.instance == state.instance else 0
        state.joined(header, document, note)
        sequences = np.asarray(document.sequences, dtype=np.int64)
        fresh = sequences >= before
        note("repeated-observations", len(np.unique(sequences[~fresh])))
        if not fresh.any():
            continue
        rows = _rows(document, wanted, state, fresh=fresh, where=file.name)
        for first in range(0, len(rows.stamps_ns), SERIES_ROWS):
            yield _series(rows, slice(first, first + SERIES_ROWS), f"{name}, run {state.run}", source)


def _rows(
    document: Document, wanted: Wanted, state: _State, *, fresh: npt.NDArray[np.bool_], where: str
) -> _Rows:
    """Rows of the fresh observations of an answer, of which there are some."""
    sequences = np.asarray(document.sequences, dtype=np.int64)
    columns = np.asarray(document.columns, dtype=np.int64)[fresh]
    sequences = sequences[fresh]
    texts = np.asarray(document.values, dtype=object)[fresh]
    stamped = pa.chunked_array([pa.array(np.asarray(document.stamps, dtype=object)[fresh], pa.string())])
    none = np.zeros(len(columns), dtype=bool)
    stamps_ns, _ = stamps(
        stamped, _WALL, rows=len(columns), where=f"{where}, timestamp", decimal=".", empty=none
    )
    order = np.lexsort((sequences, stamps_ns))
    unique, row_of = np.unique(stamps_ns[order], return_inverse=True)
    last = np.zeros(len(unique), dtype=np.int64)
    np.maximum.at(last, row_of, sequences[order])
    found = _Rows(
        stamps_ns=unique, sequences=np.maximum.accumulate(last) + state.offset, columns={}, texts={}
    )
    columns, texts = columns[order], texts[order]
    for at, column in enumerate(wanted.columns):
        mine = np.flatnonzero(columns == at)
        place = np.searchsorted(row_of[mine], np.arange(len(unique)), side="right") - 1
        if at < wanted.numbers:
            cells = pa.chunked_array([pa.array(texts[mine], pa.string())])
            values = numbers(cells, f"{where}, {ascii(column)[:60]}", ".")
            known = state.values.get(column, np.nan)
            found.columns[column] = np.append(values, known)[place]  # place -1 is the value held before
            state.values[column] = float(found.columns[column][-1])
        else:
            words = np.append(texts[mine], np.array([state.words.get(column, "")], dtype=object))
            found.texts[column] = words[place]
            state.words[column] = str(words[place][-1])
    return found


def _series(rows: _Rows, part: slice, name: str, source: str) -> Series:
    kept = rows.sequences[part]
    return Series(
        name=name,
        stamps_ns=rows.stamps_ns[part],
        clock="host",
        columns={column: values[part] for column, values in rows.columns.items()},
        texts={column: values[part] for column, values in rows.texts.items()},
        source=SourceRef(reader="mtconnect", file_sha256=source, first=int(kept[0]), last=int(kept[-1]) + 1),
        kept=kept,
    )


def _clock_column(signals: SignalMap) -> tuple[str, ...]:
    """The map's clock column, which this format has no use for."""
    return (signals.clock.column,) if signals.clock and signals.clock.column else ()
