# SPDX-License-Identifier: Apache-2.0
"""What readers hand on: one `Series` per recording or episode, still in the source's words and units.

- A cell that the source leaves empty is missing: NaN in ``columns``, the empty string in ``texts``. It is
  never 0 and never "false".
- A source that *says* NaN or infinity is refused before it becomes a series.
- ``stamps_ns`` are the original stamps; ``clock`` says which kind of clock they came from, ``derived`` if
  none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from pathlib import Path

    from client.data.signalmap import SignalMap

__all__ = [
    "Array32",
    "Array64",
    "ClockKind",
    "Declared",
    "Int64",
    "Probe",
    "Reader",
    "Series",
    "SourceRef",
    "Split",
]

Array64 = npt.NDArray[np.float64]
Array32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]
Texts = npt.NDArray[np.object_]
ClockKind = Literal["host", "controller", "derived", "simulation"]
Split = Literal["train", "held-out"]
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
    """What a format says about its own episode. A series with it is not cut by a rule."""

    task: str
    split: Split | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Series:
    """Rows of one source in their order. All arrays have ``length`` rows.

    ``kept`` are their numbers in the source, where the reader left some out; which ones depends on the map.
    """

    name: str
    stamps_ns: Int64
    clock: ClockKind
    columns: Mapping[str, Array64]
    texts: Mapping[str, Texts] = field(default_factory=dict)
    source: SourceRef
    declared: Declared | None = None
    kept: Int64 | None = None

    @property
    def length(self) -> int:
        """Number of rows."""
        return len(self.stamps_ns)

    def span(self, first: int, last: int) -> tuple[int, int]:
        """Where rows ``first`` to ``last`` (one past the end) lie in the source, whatever the map."""
        if self.kept is None:
            return self.source.first + first, self.source.first + last
        return int(self.kept[first]), int(self.kept[last - 1]) + 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Probe:
    """What a reader learns from headers alone. ``rate_hz`` where the format declares one."""

    reader: str
    version: str
    channels: tuple[str, ...]
    robot_type: str = ""
    rate_hz: float | None = None
    extra: Mapping[str, Any] = field(default_factory=dict)


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

    def read(self, path: Path, probe: Probe, signals: SignalMap, note: Note) -> Iterator[Series]:
        """The recordings, in an order that depends on the source alone.

        Raises:
            DataError: The source contradicts its format or the map.
        """
        ...
