# SPDX-License-Identifier: Apache-2.0
"""Shipped profiles: each reads its own specimen, and the values in SI are those computed by hand."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path

import numpy as np
import pytest

from client.data.errors import MapInvalidError, MissingColumnError
from client.data.frames import frames_of
from client.data.readers import claimed
from client.data.segment import cut
from client.data.signalmap import TESTED_PROFILES, parse_map
from client.data.units import FIELD_RULES, to_si
from tests.datasim import bring, tree

PROFILES = Path(str(resources.files("client.data"))) / "profiles"
SPECIMENS = PROFILES / "specimens"
NAMES = sorted(path.stem for path in PROFILES.glob("*.toml"))
HALF = math.sqrt(0.5)
ALLOW = frozenset(FIELD_RULES) | {"x_axis_load", "emergency_stop", "protective_stop"}
DEG = math.pi / 180

# profile: number of frames' first and last stamp (ns), and per column of the store (first row, last row) where they were computed by hand
EXPECTED = {
    "ur-rtde-1": {
        "stamps": (1_520_000_000_000, 1_520_072_000_000),
        "observation.joint_pos": (
            [0.1, -1.5, 1.6, -1.7, -1.57, 0.2],
            [0.1036, -1.50288, 1.60432, -1.69856, -1.57, 0.2072],
        ),
        "observation.tcp_pos": ([0.412, -0.151, 0.33], [0.421, -0.142, 0.339]),
        "observation.tcp_rot": ([HALF, 0, HALF, 0], [HALF, 0, HALF, 0]),
        "observation.joint_temp": ([304.15, 305.15, 306.15, 307.15, 308.15, 309.15], None),
        "action.joint_pos": (None, [0.104, -1.5032, 1.6048, -1.6984, -1.57, 0.208]),
    },
    "kuka-rsi-1": {
        "stamps": (366_168_000_000, 366_204_000_000),
        "observation.joint_pos": ([0, -math.pi / 2, math.pi / 2, 0, math.pi / 4, -math.pi / 6], None),
        "observation.tcp_pos": ([1.35, 0, 1.569], [1.3545, -0.00225, 1.569]),
        "observation.tcp_rot": ([0, HALF, HALF, 0], [0, math.cos(47.25 * DEG), math.sin(47.25 * DEG), 0]),
        "observation.joint_current": ([-1.924, 0.734, 1.12, 0.1, -0.06, 0.02], None),
        "action.tcp_pos": ([1.3505, -0.00025, 1.569], None),
        "action.tcp_rot": ([0, math.cos(45.25 * DEG), math.sin(45.25 * DEG), 0], None),
    },
    "abb-egm-1": {
        "stamps": (88_400_000_000, 88_436_000_000),
        "observation.joint_pos": ([0, math.pi / 6, -math.pi / 12, 0, 75 * DEG, math.pi], None),
        "observation.tcp_pos": ([0.515, 0, 0.712], [0.5186, 0.0009, 0.7102]),
        "observation.tcp_rot": ([math.cos(5 * DEG), 0, math.sin(5 * DEG), 0], None),
        "observation.tcp_force": ([1.5, -2, 12.25, 0.1, 0, -0.05], [6, 2.5, 16.75, 4.6, 4.5, 4.45]),
        "action.tcp_rot": ([math.cos(5.5 * DEG), 0, math.sin(5.5 * DEG), 0], None),
        "action.joint_pos": ([0.1 * DEG, 30.05 * DEG, -15.05 * DEG, 0, 75 * DEG, 179.8 * DEG], None),
    },
    "fanuc-log-1": {
        "stamps": (5_120_000_000, 5_192_000_000),
        "observation.joint_pos": ([5 * DEG, 12.5 * DEG, -20 * DEG, 0, -70 * DEG, 0], None),
        "observation.tcp_pos": ([0.6, -0.05, 0.425], [0.609, -0.0455, 0.425]),
        # W 180, P 0, R 90: half a turn about X, then a quarter about the fixed Z
        "observation.tcp_rot": ([0, HALF, HALF, 0], [0, math.cos(40.5 * DEG), math.sin(40.5 * DEG), 0]),
        "observation.tcp_force": ([0, 1, -8.5, 0.1, 0.05, -0.02], None),
    },
    "opcua-robotics-1": {
        "stamps": (1_795_514_645_000_000_000, 1_795_514_645_900_000_000),
        "observation.joint_pos": (
            [10 * DEG, -math.pi / 4, math.pi / 2, 0, math.pi / 6, -math.pi],
            [12.7 * DEG, -46.35 * DEG, 91.8 * DEG, 0, 30.45 * DEG, -171 * DEG],
        ),
        "observation.joint_vel": ([3 * DEG, -1.5 * DEG, 2 * DEG, 0, 0.5 * DEG, 10 * DEG], None),
        "observation.payload_mass": ([2.5], [2.5]),
        "observation.robot_mode": ([3], [3]),
    },
    "mtconnect-1": {
        "stamps": (1_795_514_645_000_000_000, 1_795_514_645_900_000_000),
        # J4 and J5 were reported once and did not change since
        "observation.joint_pos": (
            [0, -math.pi / 2, math.pi / 2, 0, math.pi / 4, -math.pi / 6],
            [0.9 * DEG, -88.2 * DEG, 88.2 * DEG, 0, math.pi / 4, -25.5 * DEG],
        ),
        "observation.joint_temp": ([304.15, 305.15, 306.15, 307.15, 308.15, 309.15], None),
        "observation.x_axis_load": ([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], None),
        "observation.tcp_pos": ([0.8, -0.05, 0.6], [0.809, -0.05, 0.5955]),
    },
}


def specimen(name: str) -> Path:
    (found,) = SPECIMENS.glob(f"{name}.*")
    return found


def map_of(tmp_path: Path, name: str, more: str = "") -> Path:
    profile = "/".join(name.rsplit("-", 1))
    path = tmp_path / "map.toml"
    path.write_text(f'profile = "{profile}"\n{more}')
    return path


def test_every_profile_has_a_specimen_and_every_specimen_a_profile() -> None:
    assert sorted(path.stem for path in SPECIMENS.iterdir()) == NAMES == sorted(EXPECTED)


@pytest.mark.parametrize("name", NAMES)
def test_a_specimen_gives_ten_frames_with_the_values_computed_by_hand(tmp_path: Path, name: str) -> None:
    source, signals = specimen(name), parse_map(map_of(tmp_path, name).read_bytes())
    reader = claimed(source)
    (series,) = reader.read(source, reader.probe(source, signals), signals, lambda *_: None)
    assert series.clock == ("host" if name in ("opcua-robotics-1", "mtconnect-1") else "controller")
    (piece,) = cut(series, signals).pieces
    frames = frames_of(series, signals, *piece, ALLOW)
    assert frames.length == 10
    expected = dict(EXPECTED[name])
    first, last = expected.pop("stamps")
    assert (frames.stamps_ns[0], frames.stamps_ns[-1]) == (first, last)
    for key, rows in expected.items():
        for row, values in zip((0, -1), rows, strict=True):
            if values is not None:
                np.testing.assert_allclose(
                    frames.columns[key][row], values, atol=2e-5, err_msg=f"{key}, {row}"
                )


@pytest.mark.parametrize("name", NAMES)
def test_an_import_by_a_profile_says_whether_it_ever_read_a_real_recording(tmp_path: Path, name: str) -> None:
    report = bring(tmp_path / "s", specimen(name), signal_map=map_of(tmp_path, name), allow=ALLOW)
    codes = {finding.code for finding in report.findings}
    assert report.episodes_added == 1
    assert ("profile.untested-on-real-data" in codes) == (name != "ur-rtde-1")
    assert {"ur-rtde/1"} == TESTED_PROFILES


def test_quality_not_good_is_missing_and_a_stop_is_a_label(tmp_path: Path) -> None:
    source = specimen("opcua-robotics-1")
    signals = parse_map(map_of(tmp_path, "opcua-robotics-1").read_bytes())
    reader = claimed(source)
    (series,) = reader.read(source, reader.probe(source, signals), signals, lambda *_: None)
    frames = frames_of(series, signals, 0, 10, ALLOW)
    assert np.argwhere(np.isnan(frames.columns["observation.joint_pos"])).tolist() == [[4, 1]]
    assert frames.labels["protective_stop"].tolist() == [0] * 8 + [1] * 2
    assert frames.labels["emergency_stop"].tolist() == [0] * 10


def test_the_external_axis_of_abb_and_the_delay_of_kuka_stay_outside(tmp_path: Path) -> None:
    for name, column in (("abb-egm-1", "feedBack.externalJoints.joints[0]"), ("kuka-rsi-1", "Delay.D")):
        report = bring(tmp_path / name, specimen(name), signal_map=map_of(tmp_path, name), allow=ALLOW)
        assert column in report.dropped_columns


def without(tmp_path: Path, name: str, *columns: str) -> Path:
    rows = [line.split(",") for line in specimen(name).read_text().splitlines()]
    keep = [at for at, column in enumerate(rows[0]) if column not in columns]
    path = tmp_path / "log.csv"
    path.write_text("\n".join(",".join(row[at] for at in keep) for row in rows) + "\n")
    return path


def test_what_a_controller_did_not_log_is_left_out_if_the_profile_calls_it_optional(tmp_path: Path) -> None:
    source = without(tmp_path, "kuka-rsi-1", *(f"MACur.A{i}" for i in range(1, 7)))
    report = bring(tmp_path / "s", source, signal_map=map_of(tmp_path, "kuka-rsi-1"), allow=ALLOW)
    assert report.fields == ("joint_pos", "tcp_pos", "tcp_rot")


@pytest.mark.parametrize("column", ["MACur.A3", "AIPos.A1"])
def test_half_of_an_optional_field_or_none_of_a_needed_one_is_refused(tmp_path: Path, column: str) -> None:
    source = without(tmp_path, "kuka-rsi-1", column)
    with pytest.raises(MissingColumnError, match=column):
        bring(tmp_path / "s", source, signal_map=map_of(tmp_path, "kuka-rsi-1"), allow=ALLOW)
    assert tree(tmp_path / "s") == {}


def test_an_unknown_profile_is_refused_with_its_line(tmp_path: Path) -> None:
    with pytest.raises(MapInvalidError, match=r"profile 'kuka-rsi/2' \(line 1\)"):
        parse_map(b'profile = "kuka-rsi/2"\n')
    with pytest.raises(MapInvalidError, match="profile"):
        parse_map(b'profile = "../../etc/passwd"\n')


def matrix(axis: int, angle: float) -> np.ndarray:
    c, s = math.cos(angle), math.sin(angle)
    x = [[1, 0, 0], [0, c, -s], [0, s, c]]
    y = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    z = [[c, -s, 0], [s, c, 0], [0, 0, 1]]
    return np.array([x, y, z][axis])


def turned(q: np.ndarray) -> np.ndarray:
    w, x, y, z = q
    return np.array(
        [
            [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
            [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
            [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
        ]
    )


def test_euler_angles_turn_about_z_then_the_new_y_then_the_new_x() -> None:
    rng = np.random.default_rng(7)
    angles = rng.uniform(-180, 180, (200, 3))
    found = to_si(angles, "euler-zyx-deg")
    np.testing.assert_allclose(np.linalg.norm(found, axis=1), 1, atol=1e-12)
    assert (found[:, 0] >= 0).all()
    for (a, b, c), q in zip(np.radians(angles), found, strict=True):
        np.testing.assert_allclose(turned(q), matrix(2, a) @ matrix(1, b) @ matrix(0, c), atol=1e-12)
    np.testing.assert_allclose(to_si(np.radians(angles), "euler-zyx"), found, atol=1e-12)


def test_a_missing_angle_makes_the_whole_rotation_missing() -> None:
    found = to_si(np.array([[10.0, np.nan, 30.0], [10.0, 20.0, 30.0]]), "euler-zyx-deg")
    assert np.isnan(found[0]).all()
    assert not np.isnan(found[1]).any()


def test_euler_angles_need_three_columns_and_a_rotation_field() -> None:
    text = 'clock = {{rate_hz = 10}}\nsignal = [{{field = "{field}", columns = [{columns}], unit = "euler-zyx-deg", role = "observation"}}]\n'
    with pytest.raises(MapInvalidError, match="3 columns for a rotation"):
        parse_map(text.format(field="tcp_rot", columns='"a", "b", "c", "d"').encode())
    with pytest.raises(MapInvalidError, match="a unit of"):
        parse_map(text.format(field="tcp_pos", columns='"a", "b", "c"').encode())
