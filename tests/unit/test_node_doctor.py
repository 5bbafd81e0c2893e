# SPDX-License-Identifier: Apache-2.0
"""Each check of the doctor finds the fault that is planted for it, and nothing else; none of them raises."""

from __future__ import annotations

from collections.abc import Callable
from email.utils import format_datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from client import doctor as doctors
from client.diagnosis import machine
from client.diagnosis.broker_way import Way
from client.diagnosis.findings import FAILED, OK, SKIPPED, WARNING, Check, Finding, SkippedError
from client.doctor import as_facts, checks, doctor
from client.errors import DoctorFailedError, PeerUnreachableError
from policies.ports import from_ms
from sandbox.processes import free_port
from tests.nodesim import SeedEntropy
from tests.nodeworld import World, ready_world

DAY_MS = 86_400_000


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


class Told(httpx.BaseTransport):
    """A broker whose answers are dated by a clock of its own, and say more."""

    def __init__(self, world: World, *, ahead_s: int = 0, more: dict[str, Any] | None = None) -> None:
        self.world, self.ahead_s, self.more = world, ahead_s, more or {}

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        answer = self.world.broker.handler(request)
        when = from_ms(self.world.clock.now_ms() + 1000 * self.ahead_s)
        if request.url.path.endswith("/membership/me"):
            answer = httpx.Response(200, json={**answer.json(), **self.more})
        answer.headers["date"] = format_datetime(when, usegmt=True)
        return answer


def found(world: World, transport: httpx.BaseTransport | None = None) -> dict[str, Check]:
    told = checks(
        world.home,
        clock=world.clock,
        entropy=SeedEntropy(b"doctor"),
        transport=transport or world.broker.transport,
    )
    assert [one.number for one in told] == list(range(1, len(told) + 1))
    return {one.code: one for one in told}


def test_a_node_in_order_fails_in_nothing_and_every_check_says_what_to_do(world: World):
    told = found(world)
    assert {one.code: one.found for one in told.values() if one.state == FAILED} == {}
    assert all(one.remedy and one.docs.startswith("docs/") and "#" in one.docs for one in told.values())
    assert set(as_facts(told["disk"])) == {"number", "code", "state", "ok", "found", "remedy", "docs"}


def test_every_page_and_section_that_a_check_names_is_there(world: World):
    root = Path(doctors.__file__).parent.parent
    for one in found(world).values():
        page, _, section = one.docs.partition("#")
        heads = [
            line.lstrip("# ").lower()
            for line in (root / page).read_text("utf-8").splitlines()
            if line[:1] == "#"
        ]
        plain = ["".join(c for c in head.replace(" ", "-") if c.isalnum() or c in "-_") for head in heads]
        assert section in plain, one.docs


def _loose_key(world: World) -> None:
    (world.home.keys / "alias.key").chmod(0o644)


def _wrong_setting(world: World) -> None:
    world.home.settings.write_text("thraeds = 1\n")


def _broken_outbox(world: World) -> None:
    world.worker.close()
    data = bytearray(world.home.outbox.read_bytes())
    data[4096:8192] = b"\xff" * 4096
    world.home.outbox.write_bytes(bytes(data))


def _lost_pin(world: World) -> None:
    world.home.broker.write_bytes(world.home.broker.read_bytes().replace(b"sig", b"gis", 1))


def _lost_contract(world: World) -> None:
    (path,) = world.home.contracts.glob("*/contract.json")
    path.write_bytes(path.read_bytes() + b" ")


@pytest.mark.parametrize(
    ("plant", "code"),
    [
        (_loose_key, "keys"),
        (_wrong_setting, "settings"),
        (_broken_outbox, "database"),
        (_lost_pin, "broker"),
        (_lost_contract, "contract"),
    ],
)
def test_a_planted_fault_is_found_by_its_check(world: World, plant: Callable[[World], None], code: str):
    plant(world)
    told = found(world)
    assert told[code].state == FAILED, told[code]
    assert told[code].remedy
    answer = doctor(
        world.home, clock=world.clock, entropy=SeedEntropy(b"again"), transport=world.broker.transport
    )
    assert answer.exit_code == 3
    assert code in answer.data["failed"]
    assert any(line.startswith(f"{told[code].number}. {code}:") for line in answer.text)


@pytest.mark.parametrize(("ahead_s", "state"), [(0, OK), (15, OK), (25, FAILED), (-25, FAILED)])
def test_a_clock_that_would_be_refused_soon_is_found(world: World, ahead_s: int, state: str):
    told = found(world, Told(world, ahead_s=ahead_s))
    assert (told["reach"].state, told["clock"].state) == (OK, state)


def test_when_the_broker_heard_the_worker_last_is_its_word(world: World):
    now = world.clock.now_ms()
    for seen, state in ((now - 5_000, OK), (now - 600_000, WARNING), (None, WARNING)):
        assert found(world, Told(world, more={"seen_ms": seen}))["last-seen"].state == state
    assert found(world)["last-seen"].state == SKIPPED  # a broker that does not say


def test_a_broker_that_is_away_is_one_failure_and_what_rests_on_it_is_skipped(world: World):
    world.broker.down = True
    told = found(world)
    assert told["reach"].state == FAILED
    assert (told["clock"].state, told["last-seen"].state) == (SKIPPED, SKIPPED)


@pytest.mark.enable_socket
def test_without_a_way_out_nothing_behind_it_is_tried(tmp_path: Path):
    world = World(tmp_path)
    text = world.home.settings.read_text().replace(world.broker.url, f"https://127.0.0.1:{free_port()}")
    world.home.settings.write_text(text)
    way = Way(home=world.home, clock=world.clock, entropy=SeedEntropy(b"way"), environment={})
    with pytest.raises(PeerUnreachableError, match=r"peer\.unreachable"):
        way.out()
    for step in (way.certificate, way.reach):
        with pytest.raises(SkippedError, match="no way out"):
            step()


def test_a_contract_that_ends_soon_or_has_ended_is_a_warning(world: World):
    assert found(world)["contract"].state == OK
    ends = world.contract.term.expires
    from policies.ports import to_ms

    world.clock.ms = to_ms(ends) - 5 * DAY_MS
    assert "within 30 days" in found(world)["contract"].remedy
    world.clock.ms = to_ms(ends) + 1
    assert found(world)["contract"].found.startswith("none in force")


def test_what_is_left_of_a_budget_is_a_share(world: World):
    assert found(world)["budget-left"].found == "nothing is spent"
    world.ask()
    left = found(world)["budget-left"].found
    assert left.startswith("lin_")
    assert 0 < int(left.split()[1]) < 100


def test_a_full_disk_fails_and_a_slow_one_warns(world: World, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(machine, "_fsync_s", lambda _folder: 2.0)
    slow = machine.disk(world.home)
    assert isinstance(slow, Finding)
    assert "fsync 2000 ms" in slow.found
    monkeypatch.setattr(machine, "_FREE_BYTES", 2**62)
    with pytest.raises(DoctorFailedError, match="free some space"):
        machine.disk(world.home)


@pytest.mark.parametrize(
    ("required", "wrong"),
    [
        ("numpy>=1", None),
        ("numpy (>=1,<99)", None),
        ("numpy==1.*", "numpy"),
        ("numpy>=99", "numpy"),
        ("numpy<2", "numpy"),
        ("no-such-package>=1; extra == 'client'", "no-such-package is missing"),
        ("no-such-package>=1; extra == 'broker'", None),
        ("click!=8.0.0", None),
    ],
)
def test_versions_are_compared_with_what_iriai_was_made_for(required: str, wrong: str | None):
    if wrong is None:
        assert "in versions that fit" in machine.versions([required])
        return
    with pytest.raises(DoctorFailedError, match=wrong):
        machine.versions([required])


def test_the_gpu_is_looked_for_without_loading_torch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path),))
    assert str(tmp_path) in machine.gpu()
    monkeypatch.setattr(machine, "_GPU_DEVICES", (str(tmp_path / "none"),))
    assert machine.gpu().startswith("none")
