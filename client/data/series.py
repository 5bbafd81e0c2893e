# SPDX-License-Identifier: Apache-2.0
"""What readers hand on: one `Series` per recording or episode, still in the source's words and units.

- A cell that the source leaves empty is missing: NaN in ``columns``, the empty string in ``texts``. It is
  never 0 and never "false".
- A source that *says* NaN or infinity is refused before it becomes a series.
- ``stamps_ns`` are the original stamps; ``clock`` says which kind of clock they came from, ``derived`` if
  none.
- A continuous log is handed on in parts of at most ``limits.SERIES_ROWS`` rows, so that memory stays flat:
  every part but the last says ``more``, all bear one ``name`` and one ``source.file_sha256``, and
  ``source.first`` of each is the row after the part before. Where parts are cut changes nothing in the
  episodes. What is small by nature (a format's own episode) comes as one series.
- What a reader leaves out it notes *before* the series that follows, or before the last one of a file.

    for series in reader.read(path, probe, signals, note, ReadOptions(accept_truncated=True)):
        importer.take(series)          # series.more: its last rows may belong to an episode that goes on
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

import numpy as np
import numpy.typing as npt

from policies.errors import invariant

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.signalmap import SignalMap

__all__ = [
    "READ_ALL",
    "Array32",
    "Array64",
    "ClockKind",
    "Declared",
    "Int64",
    "Probe",
    "ReadOptions",
    "Reader",
    "Series",
    "SourceKind",
    "SourceRef",
    "Split",
]

Array64 = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]
ClockKind = Literal["host", "controller", "derived", "simulation"]
Split = Literal["train", "held-out"]
SourceKind = Literal["recorded", "deployed"]
Note = Callable[[str, int], None]  # what was left out while reading, and how many


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceRef:
    """Where rows came from: reader, SHA-256 of the file, rows ``first`` to ``last`` (one past the end)."""

    reader: str
    file_sha256: str
    first: int
    last: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Declared:
    """What a format says about its own episode. A series with it is not cut by a rule.

    ``source_kind`` and ``model`` (digest): a model acted, not a person. ``outcome``: how it ended, where the
    format says so beside its labels; ``outcome_by`` is ``person`` where somebody looked, else empty. ``own``:
    this node's recorder wrote it; of other sources it is not believed that somebody looked.
    """

    task: str
    split: Split | None
    source_kind: SourceKind = "recorded"
    model: str = ""
    outcome: str = ""
    outcome_by: str = ""
    own: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Rows of one source in their order. All arrays have ``length`` rows.

    ``kept`` are their numbers in the source, where the reader left some out; which ones depends on the map.
    ``more``: the same recording goes on in the next series of the same name. ``bytes_read``: how much of the
    whole source was read so far, for the progress bar; None where the reader cannot tell.
    """

    name: str
    stamps_ns: Int64
    clock: ClockKind
    columns: Mapping[str, Array64]
    texts: Mapping[str, Texts] = field(default_factory=dict)
    source: SourceRef
    declared: Declared | None = None
    kept: Int64 | None = None
    more: bool = False
    bytes_read: int | None = None

    @classmethod
    def nothing(cls, name: str, clock: ClockKind, signals: SignalMap, source: SourceRef) -> Series:
        """A series without rows, with the columns of a map."""
        return cls(
            name=name,
            stamps_ns=np.empty(0, dtype=np.int64),
            clock=clock,
            columns={column: np.empty(0) for column in signals.number_columns},
            texts={column: np.empty(0, dtype=object) for column in signals.text_columns},
            source=source,
        )

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.stamps_ns)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where rows ``first`` to ``last`` (one past the end) lie in the source, whatever the map."""
        if self.kept is None:
            return self.source.first + first, self.source.first + last
        return int(self.kept[first]), int(self.kept[last - 1]) + 1

    def part(self, first: int, last: int) -> Series:
        """Rows ``first`` to ``last`` (one past the end) as a series of their own; views, no copies."""
        rows = slice(first, last)
        begin = self.source.first
        return replace(
            self,
            stamps_ns=self.stamps_ns[rows],
            columns={name: values[rows] for name, values in self.columns.items()},
            texts={name: values[rows] for name, values in self.texts.items()},
            source=replace(self.source, first=begin + first, last=begin + last)
            if self.kept is None
            else self.source,
            kept=None if self.kept is None else self.kept[rows],
            more=False,
        )

    def joined(self, later: Series) -> Series:
        """These rows and those of the part that follows them."""
        invariant(
            (self.name, self.source.file_sha256) == (later.name, later.source.file_sha256),
            "parts of one recording follow each other",
        )
        plain = self.kept is None and later.kept is None
        return replace(
            later,
            stamps_ns=np.concatenate([self.stamps_ns, later.stamps_ns]),
            columns={n: np.concatenate([self.columns[n], later.columns[n]]) for n in later.columns},
            texts={n: np.concatenate([self.texts[n], later.texts[n]]) for n in later.texts},
            source=replace(later.source, first=self.source.first),
            kept=None
            if plain and self.source.first + self.length == later.source.first
            else np.concatenate([self._numbers(), later._numbers()]),
        )

    def _numbers(self) -> Int64:
        first = self.source.first
        return np.arange(first, first + self.length) if self.kept is None else self.kept


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a reader learns from headers alone. ``rate_hz`` where the format declares one.

    The last four are hints for `data inspect`: words of `client.data.units` where the format says a channel's
    unit, channels that hold words, rows where the header counts them, and the size of the whole source.
    """

    reader: str
    version: str
    channels: tuple[str, ...]
    robot_type: str = ""
    rate_hz: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)
    units: Mapping[str, str] = field(default_factory=dict)
    texts: frozenset[str] = frozenset()
    rows: int | None = None
    bytes: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOptions:
    """How a source is read.

    Attributes:
        accept_truncated: A container that was cut gives its complete messages and the note ``truncated``;
            else it is refused (``data.truncated``).
        finished: SHA-256 of source files that an interrupted import has already. A reader may leave such a
            file unread; then it gives one series without rows in its place (`Series.nothing`), so that the
            importer sees that the file is still there. What it gives of it all the same is dropped.
        node_key: Secret of this node: a reader of our own recordings checks their seal under it.
    """

    accept_truncated: bool = False
    finished: frozenset[str] = frozenset()
    node_key: bytes = field(default=b"", repr=False)


READ_ALL: Final = ReadOptions()


class Reader(Protocol):
    """One format. `probe` reads headers only; `read` needs a probe of the same path."""

    name: str

    def claims(self, path: Path) -> bool:
        """Whether the path looks like this format."""
        ...

    def probe(self, path: Path, signals: SignalMap | None) -> Probe:
        """Format version and channels.

        Raises:
            DataError: It claims the path but cannot read it.
        """
        ...

    def read(
        self, path: Path, probe: Probe, signals: SignalMap, note: Note, options: ReadOptions = READ_ALL
    ) -> Iterator[Series]:
        """The recordings, in an order that depends on the source alone.

        Raises:
            DataError: The source contradicts its format or the map.
        """
        ...
