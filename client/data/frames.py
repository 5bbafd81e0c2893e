# SPDX-License-Identifier: Apache-2.0
"""One episode in canonical form: named fields in SI, float32, with its stamps and labels.

- A row that lacks more than half of the mapped columns is a missing row: all its cells are missing and its
  labels unknown, whatever they say.
- Only fields of the allow-list are kept, and those that the map keeps private to the site; the others are
  gone after `frames_of`.
- Digests are over values alone, not over stamps, task and labels: a copy with another time stamp or another
  label is the same episode and spends the same budget. `Frames.digest` is over what is stored;
  `Frames.content` over all mapped fields, so that it stays the same when the allow-list changes: unit, split
  and lineage hang on it. `Frames.runs` know its frames again in another cut (client.data.marks).
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from client.data.embodiment import adapted
from client.data.errors import NotFiniteError
from client.data.marks import NO_RUNS, Runs, chosen, runs_of
from client.data.units import to_si
from policies.encoding import canonical

if TYPE_CHECKING:
    from collections.abc import Mapping

    from client.data.series import Array32, Array64, ClockKind, Int64, Series
    from client.data.signalmap import SignalMap

__all__ = ["UNKNOWN", "Frames", "frames_of", "values_digest"]

Labels = npt.NDArray[np.int8]
UNKNOWN = -1  # a label: 1 true, 0 false
_NAN = np.float32(np.nan)


@dataclass(frozen=True, slots=True, kw_only=True)
class Frames:
    """``columns``: key (``observation.tcp_pos``) to ``[T, k] float32``; ``labels``: name to ``[T] int8``."""

    columns: Mapping[str, Array32]
    labels: Mapping[str, Labels]
    stamps_ns: Int64
    clock: ClockKind
    content: str
    missing_rows: int
    runs: Runs = field(default_factory=lambda: NO_RUNS)

    @property
    def length(self) -> int:
        """Number of frames."""
        return len(self.stamps_ns)

    @property
    def digest(self) -> str:
        """64 hex digits over the stored values."""
        return values_digest(self.columns, self.length)

    @property
    def marks(self) -> str:
        """What the catalogue keeps of ``runs``."""
        return chosen(self.runs)

    @property
    def outcome(self) -> str:
        """``success``, ``fail`` or ``unknown``: the last known value of the label ``outcome``."""
        values = self.labels.get("outcome")
        known = values[values != UNKNOWN] if values is not None else np.empty(0, np.int8)
        return "unknown" if not len(known) else "success" if known[-1] else "fail"


def frames_of(series: Series, signals: SignalMap, first: int, last: int, allow: frozenset[str]) -> Frames:
    """Rows ``first`` to ``last`` of a series in canonical form, with the allowed fields and labels only.

    Raises:
        NotFiniteError: A value does not fit 32 bits.
    """
    rows = slice(first, last)
    mapped = signals.number_columns
    lacking = sum(np.isnan(series.columns[column][rows]).astype(np.int64) for column in mapped)
    missing = np.asarray(lacking * 2 > len(mapped))
    adapter = signals.embodiment.adapter if signals.embodiment else None
    columns: dict[str, Array32] = {}
    for signal in signals.signals:
        values: Array64 = np.column_stack([series.columns[column][rows] for column in signal.columns])
        with np.errstate(over="ignore"):
            converted = to_si(values, signal.unit).astype(np.float32)
        if np.isinf(converted).any():
            raise NotFiniteError(
                need=f"values of {signal.field} that a 32-bit number can hold",
                found=f"a larger one in {series.name}",
                remedy="check the unit in the signal map; repair the recording",
            )
        converted[missing] = np.nan
        columns[signal.key] = adapted(converted, adapter, signal.field, signal.role)
    labels: dict[str, Labels] = {}
    for label in signals.labels:
        if label.field not in allow:
            continue
        words = series.texts[label.column][rows]
        found = np.full(last - first, UNKNOWN, dtype=np.int8)
        for word, value in label.values.items():
            found[words == word] = int(value)
        found[missing] = UNKNOWN
        labels[label.field] = found
    allowed = {s.key for s in signals.signals if s.field in allow} | signals.private_keys
    return Frames(
        columns={key: values for key, values in columns.items() if key in allowed},
        labels=labels,
        stamps_ns=series.stamps_ns[rows],
        clock=series.clock,
        content=values_digest(columns, last - first),
        runs=runs_of(columns),
        missing_rows=int(missing.sum()),
    )


def values_digest(columns: Mapping[str, Array32], length: int) -> str:
    """SHA-256 over a canonical header and the little-endian values, field by field in the order of names."""
    keys = sorted(columns)
    header = {
        "schema": "iriai-frames/1",
        "length": length,
        "columns": [[key, columns[key].shape[1]] for key in keys],
    }
    state = hashlib.sha256(canonical(header))
    for key in keys:
        one_nan = np.where(np.isnan(columns[key]), _NAN, columns[key]).astype("<f4")
        state.update(np.ascontiguousarray(one_nan).tobytes())
    return state.hexdigest()
