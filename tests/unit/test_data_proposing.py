# SPDX-License-Identifier: Apache-2.0
"""Proposed signal maps: what the source says is taken over, what it does not say is asked for, and nothing imports before."""

from __future__ import annotations

import datetime as dt
import re
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from client.data.errors import MapInvalidError
from client.data.heads import head_of, head_rate
from client.data.proposing import Proposal, profile_names, propose
from client.data.readers import claimed
from client.data.signalmap import load_map, parse_map
from client.datasets.inspecting import inspect
from tests.bagsim import Arm, Said, header, joint_state, write_db3, write_mcap
from tests.datasim import Recording, bring, write_v3
from tests.unit import test_data_mtconnect as agent
from tests.unit import test_data_robomimic as demos

if TYPE_CHECKING:
    from pathlib import Path

START = dt.datetime(2026, 11, 24, 10, tzinfo=dt.UTC)
COBOT = [
    "Num", "Timestamp", *(f"Current_J{i}" for i in range(6)), "Temperature_T0",
    *(f"Temperature_J{i}" for i in range(1, 6)), *(f"Speed_J{i}" for i in range(6)), "Tool_current",
    "cycle ", "Robot_ProtectiveStop", "grip_lost",
]  # fmt: skip


def proposed(path: Path) -> Proposal:
    reader = claimed(path)
    return propose(reader.probe(path, None), head_of(path) if reader.name == "table" else None)


def cobot_log(path: Path, rows: int = 60) -> Path:
    """A twin of the published log: decimal commas, a blank in a name, a word for truth."""
    rng = np.random.default_rng(3)
    lines = [";".join(COBOT)]
    for row in range(rows):
        stamp = (START + dt.timedelta(seconds=row)).isoformat().replace("+00:00", "Z")
        values = [f"{v:.4f}".replace(".", ",") for v in rng.uniform(0.5, 2.0, 19)]
        lines.append(
            ";".join([str(row), stamp, *values, str(row // 20), "False", "True" if row == 30 else "False"])
        )
    path.write_text("\n".join(lines) + "\n")
    return path


def rtde_log(path: Path, rows: int = 40) -> Path:
    names = ["timestamp"]
    for stem in (
        "actual_q",
        "actual_qd",
        "actual_current",
        "target_moment",
        "actual_TCP_pose",
        "actual_TCP_force",
    ):
        names += [f"{stem}_{i}" for i in range(6)]
    names += [f"joint_temperatures_{i}" for i in range(6)]
    names += ["robot_mode", "safety_mode", "speed_scaling", "payload", *(f"target_q_{i}" for i in range(6))]
    rng = np.random.default_rng(5)
    lines = [",".join(names)]
    values = np.column_stack([100 + np.arange(rows) * 0.04, rng.uniform(0.1, 1.0, (rows, len(names) - 1))])
    lines += [",".join(f"{v:.5f}" for v in row) for row in values]
    path.write_text("\r".join(lines) + "\r")
    return path


def filled(text: str, **units: str) -> str:
    """A proposal with its open places filled in: units by field, and the robot's class."""
    for field, unit in units.items():
        text = re.sub(rf'(field = "{field}".*?unit = )"\?"', rf'\1"{unit}"', text)
    return text.replace('class = "?"', 'class = "6r-arm"')


def test_columns_that_a_profile_knows_need_one_line(tmp_path: Path) -> None:
    found = proposed(rtde_log(tmp_path / "log.csv"))
    assert (found.text, found.profile, found.open) == ('profile = "ur-rtde/1"\n', "ur-rtde/1", ())
    (tmp_path / "map.toml").write_text(found.text or "")
    report = bring(
        tmp_path / "s", tmp_path / "log.csv", signal_map=tmp_path / "map.toml", allow=frozenset({"joint_pos"})
    )
    assert report.episodes_added == 1


def test_every_shipped_profile_can_be_proposed() -> None:
    assert "ur-rtde/1" in profile_names()
    for name in profile_names():
        assert parse_map(f'profile = "{name}"\n'.encode()).profile == name


def test_an_unknown_log_is_grouped_by_names_and_its_units_are_asked_for(tmp_path: Path) -> None:
    found = proposed(cobot_log(tmp_path / "log.csv"))
    text = found.text or ""
    assert 'table = {delimiter = ";", decimal = ","}' in text
    assert 'clock = {column = "Timestamp", unit = "rfc3339", kind = "host"}' in text
    assert 'segment = {by = "column", column = "cycle"' in text
    for field in ("joint_current", "joint_temp", "joint_vel", "tool_current"):
        assert re.search(rf'field = "{field}", columns = .*unit = "\?", role = "observation"', text)
    assert '"Temperature_T0", "Temperature_J1"' in text
    assert 'field = "grip_lost"' in text
    assert found.unused == ("Num",)
    assert [one.split(" ")[0] for one in found.open] == [
        "joint_current", "joint_temp", "joint_vel", "tool_current", "embodiment:",
    ]  # fmt: skip


def test_no_import_takes_a_proposal_before_a_person_filled_it_in(tmp_path: Path) -> None:
    source, out = cobot_log(tmp_path / "log.csv"), tmp_path / "map.toml"
    text = proposed(source).text or ""
    out.write_text(text)
    line = next(n for n, one in enumerate(text.splitlines(), 1) if 'field = "joint_current"' in one)
    with pytest.raises(MapInvalidError, match=rf"'\?' \(line {line}\)"):
        load_map(out)
    out.write_text(text.replace('unit = "?"', 'unit = "A"').replace('class = "?"', 'class = "6r-arm"'))
    with pytest.raises(MapInvalidError):  # a temperature in ampere
        load_map(out)
    out.write_text(
        filled(text, joint_current="A", joint_temp="degC", joint_vel="rad/s", tool_current="A").replace(
            "6r-arm", "?"
        )
    )
    with pytest.raises(MapInvalidError, match="class"):
        load_map(out)
    out.write_text(filled(text, joint_current="A", joint_temp="degC", joint_vel="rad/s", tool_current="A"))
    report = bring(
        tmp_path / "s", source, signal_map=out, allow=frozenset({"joint_current", "joint_temp", "grip_lost"})
    )
    assert (report.episodes_added, report.frames_added) == (3, 60)


def test_a_unit_in_a_name_is_taken_only_where_the_field_can_have_it(tmp_path: Path) -> None:
    names = ["time", *(f"A{i} pos [deg]" for i in range(6)), *(f"torque_{i} [mm]" for i in range(6))]
    rows = "\n".join(",".join(f"{i + j / 10}" for j in range(13)) for i in range(20))
    (tmp_path / "log.csv").write_text(",".join(names) + "\n" + rows + "\n")
    text = proposed(tmp_path / "log.csv").text or ""
    assert re.search(r'field = "joint_pos".*unit = "deg"', text)
    assert re.search(r'field = "joint_torque".*unit = "\?"', text)
    assert 'clock = {column = "time", unit = "?", kind = "?"}' in text


def test_commands_are_offered_as_actions(tmp_path: Path) -> None:
    names = ["t_stamp", *(f"q{i}" for i in range(2)), *(f"q_target_{i}" for i in range(2))]
    (tmp_path / "log.csv").write_text(
        ",".join(names) + "\n" + "\n".join("1,2,3,4,5" for _ in range(5)) + "\n"
    )
    text = proposed(tmp_path / "log.csv").text or ""
    assert re.search(r'columns = \["q_target_0", "q_target_1"\], unit = "\?", role = "action"', text)
    assert 'dof = 2, action_space = "joint-pos"' in text


def test_a_bag_of_one_robot_brings_its_map_and_one_of_two_asks_for_it(tmp_path: Path) -> None:
    arm = Arm.moving(40)
    for path in (write_db3(tmp_path / "bag", arm.said()), tmp_path / "run.mcap"):
        if path.suffix == ".mcap":
            write_mcap(path, arm.said())
        found = proposed(path)
        assert not found.needed
        assert parse_map((found.text or "").encode()).signals[0].unit == "rad"
    other = [
        Said("/other/joint_states", one.type, one.log_ns, joint_state(one.log_ns, ["a1", "a2"], [0.1, 0.2]))
        for one in arm.said()
    ]
    two = tmp_path / "two.mcap"
    write_mcap(two, [*arm.said(), *other])
    found = proposed(two)
    assert found.needed
    assert 'unit = "ns", kind = "host"' in (found.text or "")
    assert re.search(r'field = "joint_pos".*unit = "rad"', found.text or "")
    assert header(1).stamp.nanosec == 1


def test_canonical_names_need_no_map(tmp_path: Path) -> None:
    found = proposed(write_v3(tmp_path / "v3", Recording.random(12, 12)))
    assert (found.needed, found.text, found.open) == (False, None, ())


def test_robomimic_says_its_rate_and_asks_for_units(tmp_path: Path) -> None:
    answer = inspect(demos.write(tmp_path / "demo.hdf5"), source_format=None, out=None).data
    assert (answer["rows"], answer["rate_hz"], answer["format"]) == (sum(demos.LENGTHS), 20.0, "robomimic")
    assert "clock" not in answer["map"]
    text = filled(answer["map"], tcp_pos="m")
    (tmp_path / "map.toml").write_text(text.replace('dof = "?"', "dof = 6"))
    report = bring(
        tmp_path / "s", tmp_path / "demo.hdf5", signal_map=tmp_path / "map.toml", allow=frozenset({"tcp_pos"})
    )
    assert report.episodes_added == len(demos.LENGTHS)


def test_the_standard_of_mtconnect_says_units(tmp_path: Path) -> None:
    agent.answer(tmp_path / "a.xml", agent.BEGIN + agent.moves(0, 20))
    answer = inspect(tmp_path / "a.xml", source_format=None, out=None).data
    assert answer["bytes"] == (tmp_path / "a.xml").stat().st_size
    assert re.search(r'field = "joint_pos", columns = \["J1.Angle"\], unit = "deg"', answer["map"])
    assert re.search(r'field = "tcp_pos", .*unit = "mm"', answer["map"])
    assert not [one for one in answer["open"] if "unit" in one]
    assert not re.search("ZX-4711|WELD", str(answer))


def test_a_parquet_log_is_looked_into_as_a_text_log_is(tmp_path: Path) -> None:
    count = 200
    columns: dict[str, Any] = {"stamp": [START + dt.timedelta(milliseconds=20 * i) for i in range(count)]}
    columns |= {f"position_{j} [deg]": np.sin(np.arange(count) / 20 + j) for j in range(6)}
    columns |= {"grip_ok": [i % 3 == 0 for i in range(count)], "program": ["ZX-4711"] * count}
    pq.write_table(pa.table(columns), tmp_path / "log.parquet")
    answer = inspect(tmp_path / "log.parquet", source_format=None, out=tmp_path / "map.toml").data
    assert (answer["rows"], answer["rate_hz"]) == (count, pytest.approx(50.0))
    assert "program" in answer["unused"]
    (tmp_path / "map.toml").write_text(filled(answer["map"]))
    report = bring(
        tmp_path / "s",
        tmp_path / "log.parquet",
        signal_map=tmp_path / "map.toml",
        allow=frozenset({"joint_pos", "grip_ok"}),
    )
    assert (report.episodes_added, report.frames_added) == (1, count)


def test_a_rate_is_that_of_dates_in_the_first_rows(tmp_path: Path) -> None:
    head = head_of(cobot_log(tmp_path / "log.csv"))
    assert head is not None
    assert head_rate(head) == pytest.approx(1.0)
    other = head_of(rtde_log(tmp_path / "rtde.csv"))
    assert other is not None
    assert head_rate(other) is None  # seconds or milliseconds: the column does not say


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xff\xfe\x00\x01", b"a;b\n1;2\n", b'"a,b\n'])
def test_an_odd_head_is_no_crash(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "log.csv").write_bytes(data)
    head = head_of(tmp_path / "log.csv")
    assert head is None or isinstance(head_rate(head), float | None)
