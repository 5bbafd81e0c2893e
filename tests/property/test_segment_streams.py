# SPDX-License-Identifier: Apache-2.0
"""Wherever a recording is cut into parts, the episodes are the same, to the byte."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from client.data.errors import TooLargeError
from client.data.frames import frames_of
from client.data.segment import Cutter, cut
from client.data.series import Series, SourceRef
from client.data.signalmap import SignalMap, parse_map

if TYPE_CHECKING:
    from collections.abc import Iterable

ALLOW = frozenset({"joint_vel"})
HEAD = """
signal = [{field = "joint_vel", columns = ["v"], unit = "rad/s", role = "observation"}]
unit   = {kind = "work-piece", column = "piece"}
"""
RULES = {
    "column": 'by = "column", column = "run"',
    "column-gap": 'by = "column", column = "run", max_gap_s = 3.0, min_frames = 2',
    "edge": 'by = "edge", column = "high", max_gap_s = 3.0',
    "idle": 'by = "idle", below = 0.5, for_s = 4.0, max_gap_s = 3.0',
    "idle-forever": 'by = "idle", below = 0.5, for_s = 90.0',
    "window": 'by = "window", length_s = 5.0, min_frames = 2',
    "window-gap": 'by = "window", length_s = 5.0, max_gap_s = 3.0',
    "file": 'by = "file", max_gap_s = 3.0',
}
row = st.tuples(
    st.integers(-2, 6),  # step of the stamp in s
    st.sampled_from([0.0, 0.1, 1.0, np.nan]),
    st.sampled_from(["1", "2", ""]),
    st.sampled_from(["p", "q", ""]),
    st.sampled_from(["True", "False"]),
    st.booleans(),  # whether the reader left a row out before this one
)


def recording(rows: list[tuple[int, float, str, str, str, bool]]) -> Series:
    steps, speed, run, piece, high, skipped = zip(*rows, strict=True)
    words = lambda values: np.array(values, dtype=object)  # noqa: E731
    return Series(
        name="log",
        stamps_ns=np.cumsum(np.array(steps, dtype=np.int64)) * 10**9,
        clock="controller",
        columns={"v": np.array(speed)},
        texts={"run": words(run), "piece": words(piece), "high": words(high)},
        source=SourceRef(reader="table", file_sha256="0" * 64, first=0, last=len(rows)),
        kept=np.arange(len(rows)) + np.cumsum(np.array(skipped, dtype=np.int64)) if any(skipped) else None,
    )


def parts(series: Series, bounds: Iterable[int]) -> list[Series]:
    edges = sorted({0, *bounds, series.length})
    found = [series.part(a, b) for a, b in pairwise(edges)]
    return [replace(part, more=part is not found[-1]) for part in found]


def episodes(pieces: Iterable[Series], signals: SignalMap) -> list[tuple[object, ...]]:
    found = []
    for piece in pieces:
        frames = frames_of(piece, signals, 0, piece.length, ALLOW)
        span = piece.span(0, piece.length)
        words = tuple(tuple(values) for values in piece.texts.values())
        found.append((frames.content, frames.marks, frames.stamps_ns.tobytes(), span, words))
    return found


@pytest.mark.parametrize("rule", RULES)
@given(
    rows=st.lists(row, min_size=1, max_size=40),
    bounds=st.sets(st.integers(1, 39), max_size=12),
)
def test_any_split_into_parts_gives_the_same_episodes(
    rule: str, rows: list[tuple[int, float, str, str, str, bool]], bounds: set[int]
) -> None:
    signals = parse_map(f"{HEAD}segment = {{{RULES[rule]}}}\n".encode())
    series = recording(rows)
    whole = cut(series, signals)
    cutter = Cutter(signals)
    bounds = {at for at in bounds if at < len(rows)}
    found = [piece for part in parts(series, bounds) for piece in cutter.feed(part)]
    assert episodes(found, signals) == episodes((series.part(a, b) for a, b in whole.pieces), signals)
    assert cutter.dropped == whole.dropped


def test_a_second_recording_starts_with_a_clean_slate() -> None:
    signals = parse_map(f"{HEAD}segment = {{{RULES['column']}}}\n".encode())
    first = recording([(1, 1.0, "7", "p", "True", False)] * 3)
    second = recording([(1, 1.0, "", "p", "True", False), (1, 1.0, "7", "p", "True", False)])
    cutter = Cutter(signals)
    assert [piece.length for piece in cutter.feed(first)] == [3]
    assert [piece.length for piece in cutter.feed(second)] == [1, 1]


def test_an_episode_without_an_end_is_refused_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("client.data.segment.EPISODE_FRAMES", 50)
    signals = parse_map(f'{HEAD}segment = {{by = "file"}}\n'.encode())
    cutter = Cutter(signals)
    coming = parts(recording([(1, 1.0, "", "p", "True", False)] * 1000), range(0, 1000, 10))
    for part in coming[:5]:
        assert not cutter.feed(part)
    with pytest.raises(TooLargeError, match="rows 0 to 60: more"):
        cutter.feed(coming[5])


def test_a_pause_of_any_length_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("client.data.segment.EPISODE_FRAMES", 50)
    signals = parse_map(f"{HEAD}segment = {{{RULES['idle']}}}\n".encode())
    rows = [(1, 1.0, "", "p", "True", False)] * 10
    still = [(1, 0.0, "", "p", "True", False)] * 1000
    cutter = Cutter(signals)
    found = [
        p for part in parts(recording(rows + still + rows), range(0, 1020, 7)) for p in cutter.feed(part)
    ]
    assert [piece.span(0, piece.length) for piece in found] == [(0, 10), (1010, 1020)]
