# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from client.errors import (
    AlreadyJoinedError,
    BrokerKeyError,
    InviteError,
    KeyFileError,
    NotConfirmedError,
    NotJoinedError,
    PeerAnswerError,
    PeerUnreachableError,
    RemoteRefusalError,
)
from client.invite import parse_invite
from client.membership import alias_key, initialise, join, membership, open_member, status
from client.settings import Home, load_settings
from policies.identity import SigningKey, fingerprint, key_text
from tests.nodesim import URL, BrokerSim, SeedEntropy


@pytest.fixture
def broker() -> BrokerSim:
    return BrokerSim()


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "node")
    initialise(home, entropy=SeedEntropy(), legal_name="Kita Robot KK", country="JP")
    return home


def _join(home: Home, broker: BrokerSim, token: str | None = None, **changes):
    given = {
        "clock": broker.clock,
        "entropy": SeedEntropy(b"join"),
        "confirm": lambda _text: True,
        "transport": broker.transport,
    }
    return join(home, changes.pop("url", URL), token or broker.invite(), **(given | changes))


def test_joining_pins_the_broker_and_waits_for_approval(home: Home, broker: BrokerSim):
    shown = []
    answer = _join(home, broker, confirm=lambda text: shown.append(text) or True)
    assert answer.data["state"] == "waiting-approval"
    assert shown == [fingerprint(broker.key.public)]
    assert load_settings(home, {}).broker_url == URL
    member = open_member(home, clock=broker.clock, entropy=SeedEntropy(b"x"), transport=broker.transport)
    assert status(member).data["state"] == "waiting-approval"
    assert alias_key(home) is None
    key = broker.approve()
    assert membership(member)["state"] == "active"
    assert alias_key(home) == key
    assert (home.keys / "alias.key").stat().st_mode & 0o777 == 0o600


def test_no_private_key_leaves(home: Home, broker: BrokerSim):
    _join(home, broker)
    sent = b"".join(body for _, _, body in broker.seen_requests)
    assert b"PRIVATE" not in sent
    assert (home.keys / "unit.key").read_bytes().hex().encode() not in sent
    assert b"Kita Robot KK" in sent


def test_joining_twice_is_the_same_as_once(home: Home, broker: BrokerSim):
    assert _join(home, broker).data == _join(home, broker, entropy=SeedEntropy(b"again")).data


def test_an_invitation_of_another_broker_key_is_refused(home: Home, broker: BrokerSim):
    other = key_text(SigningKey.from_seed(b"X" * 32).public)
    with pytest.raises(BrokerKeyError):
        _join(home, broker, broker.invite(broker_key=other))
    assert not home.broker.exists()
    assert all(path == "/broker" for _, path, _ in broker.seen_requests)


def test_a_broker_document_with_another_certificate_is_refused(home: Home, broker: BrokerSim):
    with pytest.raises(BrokerKeyError, match="certificate"):
        _join(home, broker, broker.invite(tls_sha256="0" * 64))


def test_a_person_who_says_no_stops_it(home: Home, broker: BrokerSim):
    with pytest.raises(NotConfirmedError):
        _join(home, broker, confirm=lambda _text: False)
    assert not broker.members


def test_an_expired_or_foreign_invitation_is_refused(home: Home, broker: BrokerSim):
    token = broker.invite()
    with pytest.raises(InviteError, match="https://other:1"):
        _join(home, broker, token, url="https://other:1")
    broker.clock.ms += 3_600_001
    with pytest.raises(InviteError, match="expired"):
        _join(home, broker, token)


@pytest.mark.parametrize("cut", [0, 10, 100, -1])
def test_a_damaged_invitation_is_refused(broker: BrokerSim, cut: int):
    with pytest.raises(InviteError):
        parse_invite(broker.invite()[:cut])
    assert "5" * 64 not in repr(parse_invite(broker.invite()))


def test_the_brokers_own_refusal_is_kept(home: Home, broker: BrokerSim):
    with pytest.raises(RemoteRefusalError) as raised:
        _join(home, broker, broker.invite(secret="6" * 64))
    assert (raised.value.code, raised.value.exit_code, raised.value.remedy) == ("sim.refused", 4, "ask again")


def test_nobody_answers_is_exit_5(home: Home, broker: BrokerSim):
    broker.down = True
    with pytest.raises(PeerUnreachableError) as raised:
        _join(home, broker)
    assert raised.value.exit_code == 5


def test_a_second_broker_needs_a_folder_of_its_own(home: Home, broker: BrokerSim):
    _join(home, broker)
    other = BrokerSim(key=SigningKey.from_seed(b"C" * 32))
    with pytest.raises(AlreadyJoinedError):
        _join(home, other)


def test_without_joining_there_is_no_broker(home: Home, broker: BrokerSim):
    with pytest.raises(NotJoinedError):
        open_member(home, clock=broker.clock, entropy=SeedEntropy())


def test_a_changed_broker_file_is_refused(home: Home, broker: BrokerSim):
    _join(home, broker)
    home.broker.write_bytes(home.broker.read_bytes().replace(b'"sig":"', b'"sig":"AA', 1))
    with pytest.raises((BrokerKeyError, PeerAnswerError)):
        open_member(home, clock=broker.clock, entropy=SeedEntropy())


def test_another_alias_key_than_the_first_is_refused(home: Home, broker: BrokerSim):
    _join(home, broker)
    member = open_member(home, clock=broker.clock, entropy=SeedEntropy(b"x"), transport=broker.transport)
    broker.approve()
    membership(member)
    broker.member()["alias_key"] = "A" * 43 + "="
    with pytest.raises(KeyFileError):
        membership(member)


def test_a_request_that_the_broker_refuses_as_replayed_keeps_its_code(home: Home, broker: BrokerSim):
    _join(home, broker)
    member = open_member(home, clock=broker.clock, entropy=SeedEntropy(b"join"), transport=broker.transport)
    member.client.get("/contracts")
    with pytest.raises(RemoteRefusalError) as raised:
        member.client.get("/membership/me")  # the same entropy gives the nonce of the joining request again
    assert raised.value.code == "identity.replayed"
