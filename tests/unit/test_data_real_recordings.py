# SPDX-License-Identifier: Apache-2.0
"""Recordings of real robots by command, as their makers published them: what is read, what is found, what is refused.

What the readers make of them, value by value, is in ``test_data_real.py``.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from client.data import open_dataset
from tests.datasetsim import Site

SHARED = Path(os.environ.get("IRIAI_SHARED", Path(__file__).resolve().parents[3] / "shared")) / "data"
pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not SHARED.is_dir(), reason=f"no recordings in {SHARED}; set IRIAI_SHARED"),
]
COBOTOPS = SHARED / "ur3-cobotops" / "dataset_02052023.csv"
SEGMENTS = {"L0L1": 29, "L1L2": 65, "L2L3": 40, "L3L4": 49, "L4L5": 42}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def proposed(site: Site, source: Path, out: Path, **units: str) -> Path:
    """The map that `inspect` proposes, with what a person has to say filled in."""
    assert site.run("inspect", source, "--out", out).code == 0
    text = out.read_text().replace('class = "?"', 'class = "6r-arm"')
    lines = [
        line.replace(
            'unit = "?"', f'unit = "{next(u for f, u in units.items() if chr(34) + f + chr(34) in line)}"'
        )
        if 'unit = "?"' in line
        else line
        for line in text.splitlines()
    ]
    out.write_text("\n".join(lines) + "\n")
    return out


def cobotops(site: Site, folder: Path) -> Path:
    units = {"joint_current": "A", "joint_temp": "degC", "joint_vel": "rad/s", "tool_current": "A"}
    return proposed(site, COBOTOPS, folder / "cobotops.toml", **units)


def counted(site: Site, dataset: str, label: str) -> tuple[int, int, int]:
    """Rows with the label true, rows where it is unknown, episodes in which it is true anywhere."""
    found = [one.labels[label] for one in open_dataset(site.home.data / "datasets" / dataset)]
    return (
        sum(int((one == 1).sum()) for one in found),
        sum(int((one == -1).sum()) for one in found),
        sum(bool((one == 1).any()) for one in found),
    )


def test_the_ur10_bag_without_metadata_is_one_episode_whose_clock_looks_derived(site: Site) -> None:
    source = SHARED / "ur10" / "exciting_trajectory.db3"
    looked = site.run("inspect", source)
    assert (looked.code, looked.data["map_needed"]) == (0, False)
    done = site.add(source, name="ur10")
    assert done.code == 0
    assert (done.data["dataset_id"], done.data["episodes"], done.data["frames"]) == ("ur10", 1, 3441)
    certificate = done.data["certificate"]
    assert certificate["verdict"] == "admitted"
    assert certificate["states"]["time"] == "UNDETERMINED"
    assert "FAIL" not in certificate["states"].values()
    assert ("time", "looks-derived") in [(one.get("check"), one.get("why")) for one in done.data["findings"]]
    assert "a resampled clock" in done.text
    (episode,) = open_dataset(site.home.data / "datasets/ur10")
    assert {key: values.shape for key, values in episode.columns.items()} == {
        f"observation.{name}": (3441, 6) for name in ("joint_pos", "joint_vel", "joint_torque")
    }
    assert site.add(source, name="ur10").data["duplicates"] == 1


def test_a_planned_path_is_no_recording(site: Site) -> None:
    for words in (("inspect",), ("add", "--dataset", "plan", "--no-contract")):
        done = site.run(words[0], SHARED / "ur10" / "validation_trajectory.db3", *words[1:])
        assert (done.code, done.refused) == (3, "data.no-measured-state")
    assert site.stored() == {}


def test_cobotops_comes_in_by_the_proposed_map(site: Site, tmp_path: Path) -> None:
    done = site.add(COBOTOPS, "--map", cobotops(site, tmp_path), name="cobotops")
    assert (done.code, done.data["episodes"], done.data["excluded"]) == (0, 249, 2)
    notes = {one["code"]: one["count"] for one in done.data["findings"] if "check" not in one}
    assert notes == {
        "empty-columns": 11,
        "excluded-by-schema": 1,
        "excluded-by-time": 1,
        "missing-rows": 54,
        "pieces-too-short": 2,
    }
    states = done.data["certificate"]["states"]
    assert {states[name] for name in ("lag", "tracking", "jumps")} == {"NOT_APPLICABLE"}
    # a failed check of an episode excludes it, and the certificate is about the others
    assert (states["schema"], states["time"], states["lengths"]) == ("PASS", "PASS", "FAIL")
    found = {(one["check"], one["why"]): one for one in done.data["findings"] if "check" in one}
    assert float(found["schema", "missing"]["figures"]["missing"]) == pytest.approx(0.069, abs=5e-4)
    assert found["time", "gaps"]["figures"]["gaps"] == "2"
    assert len(found["lengths", "outside-fences"]["episodes"]) == 29
    assert done.data["certificate"]["verdict"] == "refused"
    accepted = site.run("check", "cobotops", "--accept", "10", "--by", "A. Sato")
    assert (accepted.code, accepted.data["certificate"]["verdict"]) == (0, "admitted")


def test_cobotops_labels_are_unknown_where_the_row_is_missing(site: Site, tmp_path: Path) -> None:
    signal_map = cobotops(site, tmp_path)
    # every piece is kept, so that all rows of the file are there
    signal_map.write_text(signal_map.read_text().replace("min_frames = 10", "min_frames = 1"))
    done = site.add(COBOTOPS, "--map", signal_map, name="cobotops")
    assert (done.data["episodes"], done.data["frames"]) == (251, 7409)
    assert counted(site, "cobotops", "robot_protectivestop")[0] == 278
    assert counted(site, "cobotops", "grip_lost") == (243, 54, 51)


def test_cobotops_with_the_other_decimal_sign_is_refused(site: Site, tmp_path: Path) -> None:
    signal_map = cobotops(site, tmp_path)
    signal_map.write_text(signal_map.read_text().replace('decimal = ","', 'decimal = "."'))
    done = site.add(COBOTOPS, "--map", signal_map, name="cobotops")
    assert (done.code, done.refused) == (3, "data.decimal-mismatch")
    assert "dataset_02052023.csv, column Current_J0" in done.text
    assert site.stored() == {}


def test_rtde_logs_with_bare_carriage_returns_come_in_one_by_one_or_together(
    site: Site, tmp_path: Path
) -> None:
    logs = tmp_path / "rtde"
    logs.mkdir()
    for name in SEGMENTS:
        source = SHARED / "ur3e-rtde" / f"{name}.csv"
        shutil.copy(source, logs)
        ends = source.read_bytes()
        assert (b"\n" in ends) == (name == "L0L1")  # one of five was saved with line feeds
        looked = site.run("inspect", source)
        assert (looked.data["profile"], looked.data["open"]) == ("ur-rtde/1", [])
    (tmp_path / "map.toml").write_text(site.run("inspect", logs).data["map"])
    before = 0
    for name, frames in SEGMENTS.items():
        done = site.add(logs / f"{name}.csv", "--map", tmp_path / "map.toml", name="rtde")
        assert (done.code, done.data["episodes_added"], done.data["frames"] - before) == (0, 1, frames)
        before = done.data["frames"]
    assert before == 225
    together = site.add(logs, "--map", tmp_path / "map.toml", name="rtde")
    assert (together.data["episodes_added"], together.data["duplicates"]) == (0, 5)
    stamps = np.concatenate([one.stamps_ns for one in open_dataset(site.home.data / "datasets/rtde")])
    assert 0 < np.diff(stamps).min() <= np.diff(stamps).max() < 1.5 * 4e7
    assert together.data["certificate"]["states"]["time"] == "PASS"


def test_a_folder_with_other_logs_in_it_names_the_one_that_does_not_fit(site: Site, tmp_path: Path) -> None:
    (tmp_path / "map.toml").write_text('profile = "ur-rtde/1"\n')
    done = site.add(SHARED / "ur3e-rtde", "--map", tmp_path / "map.toml", name="rtde")
    assert (done.code, done.refused) == (3, "data.missing-column")
    assert "VELOCITY-PLOT.csv" in done.text
    assert site.stored() == {}


def test_a_row_counter_is_no_clock_and_a_rate_is_asked_for(site: Site, tmp_path: Path) -> None:
    source = SHARED / "ur3e-rtde" / "VELOCITY-PLOT.csv"
    looked = site.run("inspect", source)
    assert any("clock TimeStamp" in one for one in looked.data["open"])
    signal = (
        'signal = [{field = "joint_current", columns = ["V250_{0..5}"], unit = "A", role = "observation"}]\n'
    )
    for clock in ('unit = "count", kind = "derived"', 'unit = "?", kind = "?"'):
        (tmp_path / "map.toml").write_text(f'clock = {{column = "TimeStamp", {clock}}}\n' + signal)
        done = site.add(source, "--map", tmp_path / "map.toml", name="velocity")
        assert (done.code, done.refused) == (3, "data.map-invalid")
        assert "line 1" in done.text
    clock = 'clock = {column = "TimeStamp", unit = "count", kind = "derived", rate_hz = 125}\n'
    (tmp_path / "map.toml").write_text(clock + signal)
    done = site.add(source, "--map", tmp_path / "map.toml", name="velocity")
    assert done.code == 0, done.text
    assert done.data["certificate"]["states"]["time"] == "UNDETERMINED"
    assert "empty rows at the end" in done.text
