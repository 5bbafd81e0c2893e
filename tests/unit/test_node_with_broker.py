# SPDX-License-Identifier: Apache-2.0
"""The node's commands against the broker's own application: both ends, no simulator between them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from client.catalogue import data_add
from client.contracts import contract_list, contract_show, sign
from client.errors import NoSuchThingError, RemoteRefusalError
from client.membership import Member, initialise, join, membership, open_member, status
from client.models import models_list, pull
from client.outbox import Outbox
from client.releases import receipts_fetch, receipts_verify, release_list
from client.settings import Home, LocalRules
from client.shelf import ContractShelf
from policies.contract import Contract
from policies.identity import SigningKey, fingerprint, key_text
from tests.brokersim import URL, draft, pool
from tests.nodehouse import Street, open_street
from tests.nodesim import SeedEntropy
from tests.nodeworld import FIELDS, sha, write_recording


@dataclass
class Ours:
    """This node as the broker's own simulators see one."""

    name: str
    org: str
    key: SigningKey


@pytest.fixture
def street(tmp_path: Path):
    with open_street(tmp_path / "broker") as street:
        yield street


@pytest.fixture
def home(tmp_path: Path) -> Home:
    home = Home(tmp_path / "node")
    initialise(home, entropy=SeedEntropy(b"i"), legal_name="Hanbit Automation", country="KR")
    return home


def _join(street: Street, home: Home, token: str) -> None:
    join(
        home,
        URL,
        token,
        clock=street.house.clock,
        entropy=SeedEntropy(token.encode() + str(home.root).encode()),
        confirm=lambda _text: True,
        transport=street.transport,
    )


def _member(street: Street, home: Home) -> Member:
    return open_member(home, clock=street.house.clock, entropy=SeedEntropy(b"m"), transport=street.transport)


def _enrol(street: Street, home: Home) -> Member:
    _join(street, home, street.run(street.house.alice.invite("Hanbit Automation", "KR", "hanbit")))
    member = _member(street, home)
    assert membership(member)["state"] == "waiting-approval"
    for who in (street.house.alice, street.house.bob):
        street.run(who.approve(member.identity.org))
    shown = status(member)
    assert shown.data["state"] == "active"
    keys = street.house.services.keys
    pinned = (fingerprint(keys.broker.public), key_text(keys.broker.public), keys.log_vkey)
    assert tuple(shown.data[name] for name in ("broker_fingerprint", "broker_key", "log_vkey")) == pinned
    assert all(any(one in line for line in shown.text) for one in pinned)
    return member


def _contract(street: Street, member: Member) -> tuple[Contract, list]:
    others = street.run(pool(street.house, "nord", "iber"))
    ours = Ours("hanbit", member.identity.org, member.identity.key)
    fields = {"clause": "fields-1", "allow": sorted(FIELDS), "trade_secret": [], "personal_data": "none"}
    contract = draft(street.house, [ours, *others], fields=fields)
    answer = street.run(street.house.alice.offer(contract))
    assert answer.status_code == 201, answer.text
    return contract, others


def _outbox(member: Member, home: Home) -> Outbox:
    return Outbox(
        home.outbox,
        key=member.identity.key,
        origin=member.broker.origin,
        clock=member.clock,
        entropy=SeedEntropy(b"o"),
    )


def test_from_invitation_to_a_contract_that_everybody_signed(street: Street, home: Home, tmp_path: Path):
    member = _enrol(street, home)
    contract, others = _contract(street, member)
    shelf = ContractShelf(home, own_key=member.identity.key.public)
    outbox = _outbox(member, home)
    assert contract_list(member).data["contracts"][0]["state"] == "offered"
    assert contract_show(member, shelf, None).data["digest"] == contract.digest
    added = data_add(
        member,
        shelf,
        outbox,
        write_recording(tmp_path / "recording"),
        dataset="hanbit/pick",
        signal_map=None,
        contract=contract.digest,
        rules=LocalRules(),
        publish=True,
    )
    assert (added.data["episodes_added"], added.data["held_out_added"]) == (6, 2)
    first = sign(member, shelf, outbox, contract.digest, confirm=lambda _text: True)
    assert (first.data["state"], first.data["executed"]) == ("offered", False)
    for one in others:
        street.run(one.sign(contract))
    again = sign(member, shelf, outbox, contract.digest, confirm=lambda _text: True)
    assert again.data["executed"] is True
    assert receipts_fetch(member, outbox).data["missing"] == []
    shown = receipts_verify(member, outbox, member.broker.log_vkey)
    assert (shown.exit_code, shown.data["receipts"]) == (0, 1)
    assert shown.data["size"] == street.house.services.writer.head().size
    assert release_list(member).data["candidates"] == []
    assert models_list(member).data["models"] == []
    with pytest.raises(NoSuchThingError):
        pull(member, shelf, sha("no such model"))


def test_an_invitation_works_once_and_for_one_organisation(street: Street, home: Home, tmp_path: Path):
    token = street.run(street.house.alice.invite("Somebody Else", "KR", "hanbit"))
    with pytest.raises(RemoteRefusalError) as raised:
        _join(street, home, token)
    assert (raised.value.code, raised.value.exit_code) == ("membership.invite-mismatch", 6)
    _enrol(street, home)
    other = Home(tmp_path / "other")
    initialise(other, entropy=SeedEntropy(b"other"))
    token = street.run(street.house.alice.invite("Hanbit Automation", "KR", "hanbit"))
    _join(street, other, token)
    third = Home(tmp_path / "third")
    initialise(third, entropy=SeedEntropy(b"third"))
    with pytest.raises(RemoteRefusalError) as raised:
        _join(street, third, token)
    assert raised.value.code == "membership.invite-used"


def test_a_revoked_node_is_told_so(street: Street, home: Home):
    member = _enrol(street, home)
    answer = street.run(
        street.house.alice.post(f"/operator/organisations/{member.identity.org}/revoke", {"reason": "test"})
    )
    assert answer.status_code == 200, answer.text
    with pytest.raises(RemoteRefusalError) as raised:
        status(member)
    assert (raised.value.code, raised.value.exit_code) == ("identity.key-revoked", 6)
