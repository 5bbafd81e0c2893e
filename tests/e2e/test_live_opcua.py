# SPDX-License-Identifier: Apache-2.0
"""Live recording from a real OPC UA server on loopback: what it reports is what the ordinary import reads."""

from __future__ import annotations

import asyncio
import datetime as dt
import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.parquet as pq
import pytest

pytest.importorskip("asyncua", reason="the extra [opcua] is not installed")

from asyncua import ua

from client.clock import SystemClock
from client.data.errors import (
    CellInvalidError,
    DataError,
    FileInvalidError,
    LiveInsecureError,
    LiveSourceError,
    MapInvalidError,
    MissingColumnError,
    NoEpisodesError,
)
from client.data.live import opcua_access, opcua_nodes
from client.data.live.opcua import Access, Recorded, record
from client.data.signalmap import parse_map
from client.recording import data_record
from tests.datasim import bring
from tests.opcuasim import BARE, MODE, POSITIONS, RADIAN, STOP, Pair, RobotServer, make_pair

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from client.answers import Answer

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e]
PROFILE = b'profile = "opcua-robotics/1"\n'
ALLOW = frozenset({"joint_pos", "robot_mode", "emergency_stop"})
OPEN = Access(insecure=True)
GOOD = "secret"  # as the simulator knows it
CALM_S = 0.5  # several publishing intervals: what was written before has arrived


class Script:
    """`Stop` that lets a robot act: one step each time it is asked, then it waits until all of it has arrived.

    It is asked first when the subscription stands. A number among the steps is a time to wait; a step that says
    False is taken again.
    """

    def __init__(self, *steps: Callable[[], bool | None] | float) -> None:
        self._steps = list(steps)
        self._until = 0.0

    def is_set(self) -> bool:
        if time.monotonic() < self._until:
            return False
        if not self._steps:
            return True
        step = self._steps.pop(0)
        pause = step if isinstance(step, float) else 0.0
        if not isinstance(step, float) and step() is False:
            self._steps.insert(0, step)
        self._until = time.monotonic() + (pause if self._steps else CALM_S)
        return False


def moves(server: RobotServer, first: int, last: int) -> list[Callable[[], None]]:
    """Every tenth of a second all axes; the sixth some microseconds after the others, as servers stamp them."""

    def step(i: int) -> Callable[[], None]:
        def act() -> None:
            for axis, path in enumerate(POSITIONS):
                server.write(path, 10.0 * axis + 0.5 * i, i / 10 + (0.0003 if axis == 5 else 0.0))

        return act

    return [step(i) for i in range(first, last)]


def recorded(server: RobotServer, out: Path, *steps: Callable[[], None], **changes: Any) -> Recorded:
    options: dict[str, Any] = {"access": OPEN, "base": "Robot", "clock": SystemClock(), "for_s": 60}
    signals = parse_map(changes.pop("text", PROFILE))
    server.begin += dt.timedelta(hours=1)  # the clock of a robot never goes back
    return record(server.endpoint, signals, out, **({**options, "stop": Script(*steps)} | changes))


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Pair]:
    folder = tmp_path_factory.mktemp("pairs")

    async def made() -> dict[str, Pair]:
        return {name: await make_pair(folder, name) for name in ("server", "client", "stranger")}

    return asyncio.run(made())


@pytest.fixture(scope="module")
def server() -> Iterator[RobotServer]:
    """A robot without any security."""
    with RobotServer() as one:
        yield one


@pytest.fixture(scope="module")
def guarded(pairs: dict[str, Pair]) -> Iterator[RobotServer]:
    """A robot that signs, encrypts and asks who is there."""
    with RobotServer(pair=pairs["server"]) as one:
        yield one


def secure(pairs: dict[str, Pair], **changes: Any) -> Access:
    client = pairs["client"]
    options = {
        "certificate": client.certificate,
        "key": client.key,
        "server_certificate": pairs["server"].certificate,
    }
    return Access(**(options | changes))


def one_signal(column: str, unit: str = "deg") -> bytes:
    clock = 'clock = {column = "SourceTimestamp", unit = "rfc3339", kind = "host"}\n'
    signal = f'{{field = "x_value", columns = ["{column}"], unit = "{unit}", role = "observation"}}'
    return f"{clock}signal = [{signal}]\n".encode()


def seconds(out: Path, server: RobotServer) -> np.ndarray:
    stamps = pq.read_table(out)["SourceTimestamp"].cast("int64").to_numpy()
    return (stamps - int(server.begin.timestamp()) * 1_000_000_000) / 1e9


def test_what_a_robot_reports_comes_back_through_the_ordinary_import(
    tmp_path: Path, server: RobotServer
) -> None:
    out = tmp_path / "shift.parquet"
    steps = [
        *moves(server, 0, 12),
        lambda: server.write(POSITIONS[1], 99.0, 1.2, status=ua.StatusCodes.BadSensorFailure),
        lambda: server.write(STOP, True, 1.3),
        *moves(server, 14, 16),
    ]
    done = recorded(server, out, *steps)
    assert (done.table, done.signal_map, done.rows) == (out, tmp_path / "shift.toml", 16)
    assert done.findings == {"insecure": 1, "quality-not-good": 1}
    report = bring(tmp_path / "s", out, signal_map=done.signal_map, allow=ALLOW)
    assert (report.episodes_added, report.frames_added) == (1, 16)
    table = pq.read_table(out)
    np.testing.assert_allclose(seconds(out, server), np.arange(16) / 10, atol=1e-9)
    second, sixth = (table[POSITIONS[at]].to_numpy() for at in (1, 5))
    np.testing.assert_array_equal(np.isnan(second), [False] * 12 + [True] * 2 + [False] * 2)
    np.testing.assert_array_equal(sixth[:12], 50 + 0.5 * np.arange(12))
    # set a week ago, never since: known, and no row of last week
    assert set(table[MODE].to_pylist()) == {3.0}
    assert table[STOP].to_pylist() == ["False"] * 13 + ["True"] * 3


def test_a_lost_connection_is_missing_values_and_the_recording_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "shift.parquet"
    with RobotServer() as server:
        steps = [
            *moves(server, 0, 5),
            CALM_S,
            server.stop,
            server.start,
            server.is_watched,
            *moves(server, 20, 23),
        ]
        done = recorded(server, out, *steps)
    assert done.findings["connection-lost"] == 1
    assert seconds(out, server).round(3).tolist() == [0, 0.1, 0.2, 0.3, 0.4, 2.0, 2.1, 2.2]
    assert pq.read_table(out)[POSITIONS[0]].to_pylist()[-3:] == [10.0, 10.5, 11.0]


def test_signed_and_encrypted_with_a_certificate_or_a_user(
    tmp_path: Path, guarded: RobotServer, pairs: dict[str, Pair]
) -> None:
    for name, access in (("cert", secure(pairs)), ("user", secure(pairs, user="recorder", password=GOOD))):
        done = recorded(guarded, tmp_path / f"{name}.parquet", *moves(guarded, 0, 3), access=access)
        assert (done.rows, done.findings) == (3, {})


@pytest.mark.parametrize("who", ["open", "password", "other server", "other key", "no file"])
def test_who_is_not_let_in_records_nothing(
    tmp_path: Path, guarded: RobotServer, pairs: dict[str, Pair], who: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opcua_access, "_TIMEOUT_S", 2)
    access = {
        "open": OPEN,  # the server has no open door
        "password": secure(pairs, user="recorder", password=GOOD[::-1]),
        "other server": secure(pairs, server_certificate=pairs["stranger"].certificate),
        "other key": secure(pairs, key=pairs["stranger"].key),
        "no file": secure(pairs, certificate=tmp_path / "none.der"),
    }[who]
    with pytest.raises(LiveSourceError):
        recorded(guarded, tmp_path / "a.parquet", access=access)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("endpoint", "access", "error"),
    [
        ("opc.tcp://127.0.0.1:1", Access(), LiveInsecureError),
        ("opc.tcp://127.0.0.1:1", Access(certificate=Path("a"), key=Path("b")), LiveInsecureError),
        (
            "opc.tcp://127.0.0.1:1",
            Access(certificate=Path("a"), key=Path("b"), server_certificate=Path("c"), user="x"),
            LiveInsecureError,
        ),
        ("opc.tcp://user:pass@127.0.0.1:1", OPEN, LiveSourceError),
        ("http://127.0.0.1:1", OPEN, LiveSourceError),
        ("opc.tcp://127.0.0.1:1", OPEN, LiveSourceError),
    ],
)
def test_an_unsafe_way_in_or_no_server_is_refused(
    tmp_path: Path, endpoint: str, access: Access, error: type[DataError]
) -> None:
    with pytest.raises(error) as refusal:
        record(
            endpoint,
            parse_map(PROFILE),
            tmp_path / "a.parquet",
            access=access,
            stop=Script(),
            clock=SystemClock(),
            for_s=5,
        )
    assert "pass" not in str(refusal.value).split("Remedy")[0].replace("password", "")
    assert not list(tmp_path.iterdir())


def test_another_unit_than_the_map_s_is_refused_and_none_is_counted(
    tmp_path: Path, server: RobotServer
) -> None:
    with pytest.raises(MapInvalidError, match="rad in its EngineeringUnits"):
        recorded(server, tmp_path / "a.parquet", text=one_signal(RADIAN))
    acts = [lambda: server.write(BARE, 1.0, 0), lambda: server.write(BARE, 2.0, 1)]
    done = recorded(server, tmp_path / "b.parquet", *acts, text=one_signal(BARE))
    assert (done.rows, done.findings["unit-not-said"]) == (2, 1)


@pytest.mark.parametrize("column", ["NoSuch", "ns=9;s=none", "MotionDevices/MotionDevice_1/Axes/Axis_7"])
def test_a_column_without_a_node_is_refused_by_name(tmp_path: Path, server: RobotServer, column: str) -> None:
    with pytest.raises(MissingColumnError, match=column):
        recorded(server, tmp_path / "a.parquet", text=one_signal(column))
    with pytest.raises(MissingColumnError, match="base"):
        recorded(server, tmp_path / "a.parquet", base="Nowhere")
    assert not list(tmp_path.iterdir())


def test_a_node_id_names_a_variable_and_an_array_is_none(tmp_path: Path, server: RobotServer) -> None:
    by_id = one_signal(server.node_id(POSITIONS[2]))
    assert recorded(server, tmp_path / "b.parquet", *moves(server, 0, 3), text=by_id).rows == 3
    with pytest.raises(CellInvalidError, match="list"):
        recorded(server, tmp_path / "c.parquet", CALM_S, text=one_signal("i=2254", "1"))  # ServerArray
    assert not list(tmp_path.glob("c.*"))


def test_a_value_without_a_source_stamp_is_left_out_and_nothing_at_all_is_no_file(
    tmp_path: Path, server: RobotServer
) -> None:
    bare = lambda: server.write(POSITIONS[0], 5.0, 0, stamped=False)  # noqa: E731
    done = recorded(server, tmp_path / "a.parquet", *moves(server, 0, 3), bare)
    assert (done.rows, done.findings.get("no-source-timestamp")) == (3, 1)
    with pytest.raises(NoEpisodesError):
        recorded(server, tmp_path / "b.parquet", bare, text=one_signal(POSITIONS[0]))
    server.write(POSITIONS[0], 0.0, 0)
    assert not list(tmp_path.glob("b.*"))


def test_the_command_answers_with_the_way_to_import_and_never_replaces_a_file(
    tmp_path: Path, server: RobotServer
) -> None:
    signal_map, out = tmp_path / "m.toml", tmp_path / "a.parquet"
    signal_map.write_bytes(PROFILE)

    def run(path: Path) -> Answer:
        server.begin += dt.timedelta(hours=1)
        return data_record(
            server.endpoint,
            signal_map=signal_map,
            out=path,
            access=OPEN,
            stop=Script(*moves(server, 0, 3)),
            clock=SystemClock(),
            base="Robot",
        )

    answer = run(out)
    assert (answer.data["rows"], answer.data["findings"]) == (3, {"insecure": 1})
    assert any("data add" in line for line in answer.text)
    before = out.read_bytes()
    for path in (out, tmp_path / "b.csv"):
        with pytest.raises(FileInvalidError):
            run(path)
    assert out.read_bytes() == before


def test_it_ends_by_itself_after_the_time_that_was_said(tmp_path: Path, server: RobotServer) -> None:
    class Never:
        def __init__(self) -> None:
            self.steps = moves(server, 0, 3)

        def is_set(self) -> bool:
            if self.steps:
                self.steps.pop(0)()
            return False

    assert recorded(server, tmp_path / "a.parquet", stop=Never(), for_s=1.5).rows == 3


@pytest.mark.parametrize(
    ("said", "found"),
    [
        (("http://www.opcfoundation.org/UA/units/un/cefact", 17476, ""), "deg"),
        (("http://www.opcfoundation.org/UA/units/un/cefact", 4405297, ""), "rad"),
        (("http://www.opcfoundation.org/UA/units/un/cefact", 5066068, ""), "mm"),
        (("http://www.opcfoundation.org/UA/units/un/cefact", 4408652, ""), "degC"),
        (("http://www.opcfoundation.org/UA/units/un/cefact", 1, "deg"), None),
        (("urn:vendor", 17476, "°"), "deg"),
        (("", -1, "mm/s"), "mm/s"),
        (("", -1, "furlong"), None),
    ],
)
def test_units_are_known_by_their_code_or_their_spelling(
    said: tuple[str, int, str], found: str | None
) -> None:
    information = ua.EUInformation()
    information.NamespaceUri, information.UnitId = said[0], said[1]
    information.DisplayName = ua.LocalizedText(said[2])
    assert opcua_nodes._unit_of(information) == found
    assert opcua_nodes._unit_of(math.pi) is None
