# SPDX-License-Identifier: Apache-2.0
"""A broker that wants a node to believe another log key than the one it pinned; and a change that is honest."""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from client.contract.shelf import ContractShelf
from client.errors import EquivocationError, PeerAnswerError
from client.log_keys import take_up
from client.membership import Member, initialise, join, membership, open_member, status
from client.outbox import Outbox
from client.receipts import LogView, fetch_consistency
from client.settings import Home
from client.witnessing.loop import Watch
from client.witnessing.running import trust_of
from policies.encoding import digest
from policies.identity import SigningKey
from policies.limits import LOG_KEY_CHANGES, LOG_KEY_OVERLAP_DAYS
from policies.log.entries import EntryType, Event
from policies.log.errors import LogKeyUnprovenError, QuorumError
from policies.log.log_keys import proven_key
from policies.log.vkeys import KeyKind, VerifierKey
from tests.brokersim import URL
from tests.logsim import console, rotate_log_key
from tests.nodehouse import Street, open_street
from tests.nodesim import ORIGIN, BrokerSim, HandClock, LogSim, SeedEntropy

NEW = SigningKey.from_seed(b"N" * 32)
STRANGER = SigningKey.from_seed(b"S" * 32)
DAY_MS = 86_400_000


def vkey(key: SigningKey, name: str = ORIGIN, kind: KeyKind = KeyKind.LOG) -> str:
    return VerifierKey(name, key.public, kind).text()


def rotation(log: LogSim, new: SigningKey = NEW, **changes: Any) -> int:
    pub = {"old": digest(log.key.public), "new": digest(new.public), "role": "log"} | changes
    return log.add(Event(type=EntryType.KEY_ROTATED, pub=pub, private={"vkey": vkey(new)}))


@dataclass
class Shown:
    """What a broker shows as a change of the log's key."""

    log: LogSim = field(default_factory=lambda: LogSim(HandClock()))
    new: SigningKey = NEW

    def change(self, index: int, **changes: str) -> dict[str, str]:
        return {"vkey": vkey(self.new), **self.log.receipt(index), **changes}

    def by(self, key: SigningKey, index: int) -> dict[str, str]:
        """The same with a checkpoint that another key has signed."""
        return {"vkey": vkey(self.new), **replace(self.log, key=key).receipt(index)}


def believed(log: LogSim) -> tuple[VerifierKey, ...]:
    return (VerifierKey.parse(log.vkey),)


def test_a_key_that_the_old_one_vouches_for_is_believed():
    shown = Shown()
    index = rotation(shown.log)
    assert proven_key(**shown.change(index), believed=believed(shown.log)).text() == vkey(NEW)


@functools.cache
def lies() -> dict[str, dict[str, str]]:
    shown = Shown()
    honest, node = rotation(shown.log), rotation(shown.log, STRANGER, role="node")
    foreign = rotation(shown.log, old=digest(STRANGER.public))
    other = Shown(LogSim(HandClock()))
    entry = shown.change(honest)["entry"]
    return {
        "the list of keys alone": shown.change(0),
        "a checkpoint that only the new key has signed": shown.by(NEW, honest),
        "a checkpoint of a stranger": shown.by(STRANGER, honest),
        "the change of a node's key": shown.change(node, vkey=vkey(STRANGER)),
        "another key than the entry names": shown.change(honest, vkey=vkey(STRANGER)),
        "a change from a key that nobody pinned": shown.change(foreign),
        "an entry that is not in the log": shown.change(honest, entry=entry.replace('"log"', '"node"', 1)),
        "the proof of another entry": {**shown.change(honest), "proof": shown.change(node)["proof"]},
        "an entry of another log": {**shown.change(honest), "proof": other.log.receipt(0)["proof"]},
        "a key of another name": shown.change(honest, vkey=vkey(NEW, "pool.example/log/other")),
        "a witness's key": shown.change(honest, vkey=vkey(NEW, kind=KeyKind.COSIGNER)),
        "no key at all": shown.change(honest, vkey="x"),
        "no proof at all": shown.change(honest, proof=""),
    }


@pytest.mark.parametrize("name", lies())
def test_a_key_without_proof_under_the_old_one_is_refused(name: str):
    with pytest.raises(LogKeyUnprovenError):
        proven_key(**lies()[name], believed=believed(LogSim(HandClock())))


# --- through a node ---


@dataclass
class Site:
    """A node whose broker is a simulator."""

    broker: BrokerSim
    member: Member
    outbox: Outbox

    def shows(self, rotations: object) -> None:
        self.broker.routes["/log/keys"] = lambda _request, _body: {"rotations": rotations}

    @property
    def keys(self) -> list[str]:
        return [key.text() for key in self.member.log_keys.all()]


@pytest.fixture
def site(tmp_path: Path) -> Site:
    broker, home = BrokerSim(), Home(tmp_path / "node")
    initialise(home, entropy=SeedEntropy(b"i"), legal_name="Kita Robot KK", country="JP")
    _join(home, broker.invite(), broker.transport, broker.clock)
    broker.approve()
    member = _member(home, broker.transport, broker.clock)
    for number in range(5):
        broker.log.noise(number)
    outbox = _outbox(member)
    LogView(outbox, member.log_keys.all, fetch=broker.log.news).advance()
    broker.routes["/log/consistency"] = lambda request, _body: broker.log.news(int(request.url.params["old"]))
    return Site(broker, member, outbox)


def _join(home: Home, token: str, transport: Any, clock: Any) -> None:
    entropy = SeedEntropy(b"join")
    yes = lambda _text: True  # noqa: E731
    join(home, URL, token, clock=clock, entropy=entropy, confirm=yes, transport=transport)


def _member(home: Home, transport: Any, clock: Any, seed: bytes = b"m") -> Member:
    return open_member(home, clock=clock, entropy=SeedEntropy(seed), transport=transport)


def _outbox(member: Member) -> Outbox:
    key, origin = member.identity.key, member.broker.origin
    return Outbox(member.home.outbox, key=key, origin=origin, clock=member.clock, entropy=SeedEntropy(b"o"))


@pytest.mark.parametrize("name", ["the list of keys alone", "a checkpoint that only the new key has signed"])
def test_a_node_keeps_the_key_that_it_pinned(site: Site, name: str):
    site.shows([lies()[name]])
    with pytest.raises(LogKeyUnprovenError):
        take_up(site.member, site.outbox)
    assert site.keys == [site.broker.log.vkey]
    assert not (site.member.home.root / "log-keys.json").exists()


@pytest.mark.parametrize("shown", [None, {}, [1], [{}] * (LOG_KEY_CHANGES + 1), [{"vkey": 1}]])
def test_an_answer_of_another_form_changes_nothing(site: Site, shown: object):
    site.shows(shown)
    with pytest.raises(PeerAnswerError):
        take_up(site.member, site.outbox)
    assert site.keys == [site.broker.log.vkey]


def test_a_proof_from_another_history_stops_the_node(site: Site):
    fork = site.broker.log.fork(3)
    index = rotation(fork)
    site.shows([{"vkey": vkey(NEW), **fork.receipt(index)}])
    with pytest.raises(EquivocationError):
        take_up(site.member, site.outbox)
    assert site.keys == [site.broker.log.vkey]


def test_a_file_that_was_changed_by_hand_makes_no_key(site: Site):
    index = rotation(site.broker.log)
    change = {"vkey": vkey(NEW), **site.broker.log.receipt(index)}
    site.shows([change])
    assert [key.text() for key in take_up(site.member, site.outbox)] == [vkey(NEW)]
    assert site.keys == [site.broker.log.vkey, vkey(NEW)]
    path = site.member.home.root / "log-keys.json"
    for text in (json.dumps([change | {"vkey": vkey(STRANGER)}]), "{", "[]", json.dumps([{"vkey": "x"}])):
        path.write_text(text)
        fresh = _member(site.member.home, site.broker.transport, site.broker.clock, text.encode())
        assert [key.text() for key in fresh.log_keys.all()] == [site.broker.log.vkey]


def test_nothing_is_asked_while_no_strange_key_signs(site: Site):
    assert not site.member.log_keys.strange(site.broker.log.note())
    assert site.member.log_keys.strange(replace(site.broker.log, key=STRANGER).note())


# --- the real broker ---


def enrol(street: Street, home: Home) -> Member:
    initialise(home, entropy=SeedEntropy(b"i"), legal_name="Hanbit Automation", country="KR")
    token = street.run(street.house.alice.invite("Hanbit Automation", "KR", "hanbit"))
    _join(home, token, street.transport, street.house.clock)
    member = _member(home, street.transport, street.house.clock)
    for who in (street.house.alice, street.house.bob):
        assert street.run(who.approve(member.identity.org)).status_code == 200
    membership(member)
    return member


@pytest.mark.parametrize("away_days", [0, LOG_KEY_OVERLAP_DAYS + 1])
def test_after_a_change_of_the_log_key_a_node_takes_up_the_new_one_by_itself(tmp_path: Path, away_days: int):
    from broker.clock import SystemClock

    folder, home = tmp_path / "broker", Home(tmp_path / "node")
    with open_street(folder) as street:
        member = enrol(street, home)
        outbox = _outbox(member)
        LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client)).advance()
        pinned = member.broker.log_vkey
    new = rotate_log_key(folder)["log_vkey"]
    newer = rotate_log_key(folder)["log_vkey"]
    with open_street(folder) as street:
        street.house.clock.ms = SystemClock().now_ms() + away_days * DAY_MS
        writer = street.house.services.writer
        street.run(writer.run(lambda _session, tx: tx.add(console(1))))  # a note that is signed now
        member = _member(home, street.transport, street.house.clock, b"again")
        assert member.log_keys.strange(street.house.services.writer.head().note)
        view = LogView(outbox, member.log_keys.all, fetch=fetch_consistency(member.client))
        if away_days:
            with pytest.raises(QuorumError):
                view.advance()
        shelf = ContractShelf(home, own_key=member.identity.key.public)
        watch = Watch(member, outbox, trust_of(member, shelf))
        assert watch.turn(wait_s=0)  # the witness thread, as ever
        assert [key.text() for key in member.log_keys.all()] == [pinned, new, newer]
        assert take_up(member, outbox) == ()
        assert view.advance().size == street.house.services.writer.head().size
        shown = status(member)
        assert shown.data["log_vkeys"] == [pinned, new, newer]
        assert sum("log key" in line for line in shown.text) == 3
    outbox.close()
