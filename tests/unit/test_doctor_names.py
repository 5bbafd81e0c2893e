# SPDX-License-Identifier: Apache-2.0
"""A poor name server is a check of its own, with what was found and what to do; no real one is asked."""

from __future__ import annotations

import errno
import socket
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from broker.doctor import names as broker_names
from broker.doctor.findings import FailedError, looked
from broker.doctor.names import resolves
from broker.settings import Settings
from client.diagnosis import names as node_names
from client.diagnosis.broker_way import Way
from client.diagnosis.findings import FAILED, OK, SKIPPED, WARNING, Finding, Look, examine
from client.diagnosis.names import Address, named
from client.doctor import checks
from client.errors import AddressFamilyError, NameUnresolvedError
from tests.nodesim import HandClock, SeedEntropy
from tests.nodeworld import World

if TYPE_CHECKING:
    from collections.abc import Sequence

HOST, PORT = "broker.example", 8443
FOUR = Address(kind="IPv4", text="192.0.2.7")
SIX = Address(kind="IPv6", text="2001:db8::7")
NO_SUCH = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
NO_ROUTE = OSError(errno.ENETUNREACH, "Network is unreachable")


@dataclass
class NamesSim:
    """A name server and a network that do what a test says; time passes by hand."""

    clock: HandClock
    means: Sequence[Address] | OSError = (FOUR,)
    faults: dict[str, OSError] = field(default_factory=dict)
    took_ms: int = 0
    asked: list[str] = field(default_factory=list)

    def addresses(self, host: str, *, timeout_s: float) -> Sequence[Address]:
        self.asked.append(host)
        self.clock.ms += min(self.took_ms, int(timeout_s * 1000))
        if self.took_ms > timeout_s * 1000:
            raise TimeoutError(f"no answer within {timeout_s} s")
        if isinstance(self.means, OSError):
            raise self.means
        return self.means

    def connect(self, address: Address, _port: int, *, timeout_s: float) -> None:
        assert timeout_s < 1
        if address.kind in self.faults:
            raise self.faults[address.kind]

    def __call__(self, host: str, *, timeout_s: float) -> Sequence[str]:
        """As the broker asks it."""
        return [one.text for one in self.addresses(host, timeout_s=timeout_s)]


@pytest.fixture
def sim() -> NamesSim:
    return NamesSim(clock=HandClock())


def look(sim: NamesSim, host: str = HOST) -> str | Finding:
    return named(host, PORT, names=sim, clock=sim.clock)


# --- the node ---


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_an_address_asks_nobody(sim: NamesSim, host: str) -> None:
    assert "is an address" in str(look(sim, host))
    assert sim.asked == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"means": NO_SUCH}, "Name or service not known"),
        ({"means": ()}, "no address"),
        ({"took_ms": 60_000}, "no answer within 1.5 s"),
    ],
)
def test_a_name_that_means_nothing_is_named_with_what_to_look_at(
    sim: NamesSim, changes: dict[str, object], found: str
) -> None:
    with pytest.raises(NameUnresolvedError) as refused:
        look(replace(sim, **changes))
    assert (refused.value.code, refused.value.found) == ("peer.name-unresolved", found)
    assert "resolv.conf" in refused.value.remedy


def test_a_slow_name_server_is_a_warning_with_its_time(sim: NamesSim) -> None:
    assert isinstance(look(replace(sim, took_ms=500)), str)
    told = look(replace(sim, took_ms=1_400))
    assert isinstance(told, Finding)
    assert "took 1.4 s" in told.found


def test_a_kind_of_address_that_does_not_answer_is_named(sim: NamesSim) -> None:
    both = replace(sim, means=(SIX, FOUR))
    assert isinstance(look(both), str)
    mute = look(replace(both, faults={"IPv6": TimeoutError("timed out")}))
    assert isinstance(mute, Finding)
    assert ("IPv6 does not answer" in mute.found, "IPv6" in mute.fix) == (True, True)
    with pytest.raises(AddressFamilyError, match="only IPv6, for which it has no way out") as refused:
        look(replace(sim, means=(SIX,), faults={"IPv6": NO_ROUTE}))
    assert (refused.value.code, refused.value.exit_code) == ("peer.address-family", 5)


def test_a_broker_that_is_down_is_no_fault_of_its_name(sim: NamesSim) -> None:
    assert isinstance(look(replace(sim, faults={"IPv4": REFUSED})), str)
    assert isinstance(look(replace(sim, means=(SIX, FOUR), faults={"IPv4": REFUSED, "IPv6": REFUSED})), str)


def test_the_doctor_has_a_numbered_check_of_the_name_and_tries_nothing_behind_it(
    tmp_path: Path, sim: NamesSim
) -> None:
    world = World(tmp_path)
    text = world.home.settings.read_text().replace(world.broker.url, f"https://{HOST}:{PORT}")
    world.home.settings.write_text(text)
    way = Way(home=world.home, clock=sim.clock, entropy=SeedEntropy(b"way"), environment={}, names=sim)
    assert examine(Look(code="name", fix="-", docs="-", at=way.name), 1).state == OK
    lost = replace(sim, means=NO_SUCH)
    told = checks(world.home, clock=sim.clock, entropy=SeedEntropy(b"doctor"), names=lost)
    found = {one.code: one for one in told}
    assert [one.number for one in told] == list(range(1, len(told) + 1))
    assert (found["name"].state, found["name"].number) == (FAILED, found["way-out"].number - 1)
    assert found["name"].found.startswith("peer.name-unresolved: Name or service")
    behind = ("way-out", "certificate", "reach", "clock", "last-seen")
    assert {found[one].state for one in behind} == {SKIPPED}
    assert HOST in found["way-out"].found
    slow = examine(Look(code="name", fix="-", docs="-", at=lambda: look(replace(sim, took_ms=900))), 3)
    assert (slow.state, slow.number) == (WARNING, 3)


# --- the broker ---


def settings(**changes: str) -> Settings:
    base = Settings(
        dir=Path("nowhere"),
        public_url=f"https://{HOST}:{PORT}",
        origin="pool.example/log/a",
        listen_host="0.0.0.0",  # noqa: S104  nothing listens here
    )
    return replace(base, **changes)


def test_a_broker_tells_what_its_names_mean_each_once(sim: NamesSim) -> None:
    told = resolves(settings(console_url="https://console.example"), sim.clock, sim)
    assert sim.asked == [HOST, "console.example"]
    assert told == f"{HOST} means 192.0.2.7; console.example means 192.0.2.7"
    here = settings(public_url="https://192.0.2.7:8443", console_url="https://192.0.2.7:8443")
    assert resolves(here, sim.clock, sim) == "192.0.2.7 is an address"


@pytest.mark.parametrize(
    ("changes", "of", "found", "remedy"),
    [
        ({"means": NO_SUCH}, {}, "(public_url) does not resolve: Name or service", "correct the setting"),
        ({"took_ms": 60_000}, {}, "does not resolve: no answer within 1.5 s", "resolv.conf"),
        ({"took_ms": 1_200}, {}, "took 1.2 s", "resolv.conf"),
        ({"means": (FOUR, SIX)}, {}, "which is IPv6, and listen_host 0.0.0.0", 'listen_host = "::"'),
        ({"means": (FOUR,)}, {"listen_host": "2001:db8::1"}, "which is IPv4", "take that address"),
    ],
)
def test_a_poor_name_of_a_broker_fails_its_own_check(
    sim: NamesSim, changes: dict[str, object], of: dict[str, str], found: str, remedy: str
) -> None:
    poor = replace(sim, **changes)
    with pytest.raises(FailedError, match=r".") as refused:
        resolves(settings(**of), poor.clock, poor)
    assert (found in refused.value.found, remedy in refused.value.remedy) == (True, True)
    check = looked(21, "doctor.name", lambda: resolves(settings(**of), poor.clock, poor))
    assert (check.ok, check.number, check.code) == (False, 21, "doctor.name")


@pytest.mark.parametrize("listen", ["::", "127.0.0.1", "localhost"])
def test_both_kinds_are_well_where_both_are_listened_on_or_a_forwarder_is(sim: NamesSim, listen: str) -> None:
    assert "2001:db8::7" in resolves(settings(listen_host=listen), sim.clock, replace(sim, means=(FOUR, SIX)))


# --- the system's own call ---


@pytest.mark.parametrize("room", [node_names, broker_names], ids=["node", "broker"])
def test_the_systems_call_is_bounded_and_a_name_of_no_form_is_an_error(
    room: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    ask = node_names.SystemNames().addresses if room is node_names else broker_names.system_resolve
    row = (socket.AF_INET, socket.SOCK_STREAM, 6, "", ("192.0.2.7", 0))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: [row])
    assert "192.0.2.7" in str(ask(HOST, timeout_s=5))
    monkeypatch.setattr(socket, "getaddrinfo", _no_form)
    with pytest.raises(OSError, match="form of a name"):
        ask("a" * 300, timeout_s=5)
    held = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_args, **_more: held.wait() and [])
    with pytest.raises(TimeoutError, match="no answer within"):
        ask(HOST, timeout_s=0.01)
    held.set()


def _no_form(*_args: object, **_more: object) -> list[object]:
    raise UnicodeError("label too long")
