# SPDX-License-Identifier: Apache-2.0
"""Recordings of real robots, made by others: the figures that a correct reader gets from them. Skipped where they are absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from client.data import import_path
from client.data.errors import DecimalMismatchError, MapInvalidError
from client.data.frames import frames_of
from client.data.quality import check_time
from client.data.readers import claimed
from client.data.segment import cut
from client.data.signalmap import SignalMap, load_map, parse_map
from client.data.store import Store
from tests.datasim import KEY, RIGHTS, SimClock

if TYPE_CHECKING:
    from client.data.series import Series

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings in {SHARED}; set IRIAI_SHARED"),
]
COBOTOPS = """
table   = {delimiter = ";", decimal = ",", strip_names = true, drop_empty_columns = true}
clock   = {column = "Timestamp", unit = "rfc3339", kind = "host"}
secret  = ["Program*", "part_number"]
segment = {by = "column", column = "cycle", max_gap_s = 5.0, min_frames = 10}
signal  = [{field = "joint_current", columns = ["Current_J{0..5}"], unit = "A", role = "observation"},
           {field = "joint_temp", columns = ["Temperature_T0", "Temperature_J{1..5}"], unit = "degC", role = "observation"},
           {field = "joint_vel", columns = ["Speed_J{0..5}"], unit = "rad/s", role = "observation"},
           {field = "tool_current", columns = ["Tool_current"], unit = "A", role = "observation"}]
label   = [{field = "grip_lost", column = "grip_lost", values = {"True" = true, "False" = false}},
           {field = "protective_stop", column = "Robot_ProtectiveStop", values = {"True" = true, "False" = false}}]
"""
FIELDS = frozenset(
    {"joint_current", "joint_temp", "joint_vel", "tool_current", "grip_lost", "protective_stop"}
)
SEGMENTS = ("L0L1", "L1L2", "L2L3", "L3L4", "L4L5")


def cobotops(tmp_path: Path, text: str = COBOTOPS) -> tuple[Path, Path]:
    (tmp_path / "map.toml").write_text(text)
    return SHARED / "ur3-cobotops" / "dataset_02052023.csv", tmp_path / "map.toml"


def only_series(path: Path, signals: SignalMap) -> Series:
    reader = claimed(path)
    (series,) = reader.read(path, reader.probe(path, signals), signals, lambda *_: None)
    return series


def test_cobotops_gives_the_published_episodes(tmp_path: Path) -> None:
    source, signal_map = cobotops(tmp_path)
    options = {
        "dataset": "ur3",
        "signal_map": signal_map,
        "allow": FIELDS,
        "rights": RIGHTS,
        "node_key": KEY,
        "clock": SimClock(),
    }
    report = import_path(tmp_path / "s", source, **options)
    assert report.episodes_added == 249
    assert {f.code: f.count for f in report.findings} == {
        "empty-columns": 11,
        "excluded-by-schema": 1,
        "excluded-by-time": 1,
        "missing-rows": 54,
        "pieces-too-short": 2,
        "secret-matched-nothing": 2,
    }
    assert import_path(tmp_path / "s", source, **options).duplicates == 249
    assert len(Store(tmp_path / "s").episodes("ur3")) == 249


def test_cobotops_pieces_labels_and_missing_rows(tmp_path: Path) -> None:
    source, signal_map = cobotops(tmp_path)
    signals = load_map(signal_map)
    series = only_series(source, signals)
    assert series.length == 7409
    found = cut(series, signals)
    assert len(found.pieces) + found.dropped == 251
    assert len(found.pieces) == 249
    whole = frames_of(series, signals, 0, series.length, FIELDS)
    assert whole.missing_rows == 54
    missing = np.isnan(whole.columns["observation.tool_current"][:, 0])
    for label, positive in (("protective_stop", 278), ("grip_lost", 243)):
        assert int((whole.labels[label] == 1).sum()) == positive
        assert (whole.labels[label][missing] == -1).all()
    lost = sum((whole.labels["grip_lost"][first:last] == 1).any() for first, last in found.pieces)
    assert lost == 51


def test_cobotops_with_the_wrong_decimal_sign_is_refused(tmp_path: Path) -> None:
    source, signal_map = cobotops(tmp_path, COBOTOPS.replace('decimal = ","', 'decimal = "."'))
    with pytest.raises(DecimalMismatchError, match="Current_J0"):
        import_path(
            tmp_path / "s",
            source,
            dataset="ur3",
            signal_map=signal_map,
            allow=FIELDS,
            rights=RIGHTS,
            node_key=KEY,
            clock=SimClock(),
        )


def test_rtde_logs_with_bare_cr_read_by_profile() -> None:
    signals = parse_map(b'profile = "ur-rtde/1"\n')
    series = [only_series(SHARED / "ur3e-rtde" / f"{name}.csv", signals) for name in SEGMENTS]
    assert [s.length for s in series] == [29, 65, 40, 49, 42]
    stamps = np.concatenate([s.stamps_ns for s in series])
    assert len(stamps) == 225
    assert np.median(np.diff(stamps)) == pytest.approx(4e7, rel=1e-3)
    assert np.diff(stamps).max() < 1.5 * 4e7
    for one in series:
        frames = frames_of(one, signals, 0, one.length, frozenset({"joint_pos", "tcp_rot", "joint_temp"}))
        assert check_time(frames).state == "PASS"
        assert frames.columns["action.joint_pos"].shape == (one.length, 6)
        np.testing.assert_allclose(
            np.linalg.norm(frames.columns["observation.tcp_rot"], axis=1), 1, rtol=1e-6
        )
        assert 280 < frames.columns["observation.joint_temp"].min() < 330  # kelvin


@pytest.mark.parametrize(
    "clock", ['unit = "count", kind = "derived"', 'unit = "count", kind = "host", rate_hz = 125']
)
def test_a_row_counter_is_no_clock(tmp_path: Path, clock: str) -> None:
    text = (
        f'clock = {{column = "TimeStamp", {clock}}}\n'
        'signal = [{field = "joint_current", columns = ["V10_{0..5}"], unit = "A", role = "observation"}]\n'
    )
    (tmp_path / "map.toml").write_text(text)
    with pytest.raises(MapInvalidError):
        load_map(tmp_path / "map.toml")


def test_padding_of_the_velocity_traces_is_dropped_and_counted() -> None:
    signals = parse_map(
        b'clock = {column = "TimeStamp", unit = "count", kind = "derived", rate_hz = 125}\n'
        b'signal = [{field = "joint_current", columns = ["V250_{0..5}"], unit = "A", role = "observation"}]\n'
    )
    notes: dict[str, int] = {}
    path = SHARED / "ur3e-rtde" / "VELOCITY-PLOT.csv"
    reader = claimed(path)
    (series,) = reader.read(path, reader.probe(path, signals), signals, notes.__setitem__)
    assert series.length + notes["padding-rows"] == 2091
    assert notes["padding-rows"] / 2091 > 0.9
    assert not np.isnan(series.columns["V250_0"]).any()
