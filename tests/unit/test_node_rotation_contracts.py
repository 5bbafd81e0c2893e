# SPDX-License-Identifier: Apache-2.0
"""A new key of a node of several contracts, with negotiations before and after."""

from __future__ import annotations

from types import SimpleNamespace

import httpx
import pytest

from broker.log.bundle import export
from client.contract.comparing import contract_diff
from client.contract.negotiating import refuse
from client.contract.shelf import ContractShelf
from client.contract.showing import contract_show
from client.contract.signing import sign
from client.contract.stopping import halt
from client.contract.tending import tend
from client.errors import (
    RotationWaitsError,
)
from client.identity import load_identity
from client.membership import initialise, join, membership, open_member
from client.rotating import rotate_key
from client.settings import Home
from policies.identity import key_text
from policies.log.entries import EntryType
from policies.log.policy import parse_policy
from policies.ports import to_ms
from policies.verify import verify
from tests.brokersim import URL, NodeSim, SeedEntropy, draft, pool
from tests.federationsim import Killed
from tests.nodehouse import open_street
from tests.nodeworld import FIELDS, YES
from tests.rotationsim import outbox_of

TERM = {"clause": "term-1", "effective": "2027-02-01T00:00:00Z", "expires": "2028-02-01T00:00:00Z"}


@pytest.fixture
def two(tmp_path):
    """A node of two contracts, at a broker that other members use too."""
    with open_street(tmp_path / "broker") as street:
        house, home = street.house, Home(tmp_path / "node")
        initialise(home, entropy=SeedEntropy(b"i"), legal_name="Kita GmbH", country="DE")
        token = street.run(house.alice.invite("Kita GmbH", "DE", "kita"))
        join(
            home,
            URL,
            token,
            clock=house.clock,
            entropy=SeedEntropy(b"j"),
            confirm=YES,
            transport=street.transport,
        )
        two = Two(street, home)
        member = two.member(b"m")
        for who in (house.alice, house.bob):
            street.run(who.approve(member.identity.org))
        membership(member)
        others = street.run(pool(house, "nord", "iber"))
        two.sign_all(member, others)
        two.sign_all(member, others, contract_id="ctr_aaaaaaaaaaaaaaaa")
        house.clock.ms = to_ms(two.contracts[0].term.effective)
        yield two


class Two:
    def __init__(self, street, home):
        self.street, self.home, self.contracts, self.turn = street, home, [], 0

    def member(self, seed):
        entropy = SeedEntropy(seed)
        return open_member(
            self.home, clock=self.street.house.clock, entropy=entropy, transport=self.street.transport
        )

    def offered(self, member, others, **changes):
        ours = SimpleNamespace(name="kita", org=member.identity.org, key=member.identity.key)
        fields = {"clause": "fields-1", "allow": sorted(FIELDS), "trade_secret": [], "personal_data": "none"}
        contract = draft(self.street.house, [ours, *others], fields=fields, **changes)
        answer = self.street.run(self.street.house.alice.offer(contract))
        assert answer.status_code == 201, answer.text
        return contract

    def sign_all(self, member, others, **changes):
        contract = self.offered(member, others, **changes)
        outbox, shelf = outbox_of(member), ContractShelf(self.home, own_key=member.identity.key.public)
        sign(member, shelf, outbox, contract.digest, confirm=YES, acknowledge=YES)
        for one in others:
            assert self.street.run(one.accept(contract)).status_code == 200
        sign(member, shelf, outbox, contract.digest, confirm=YES, acknowledge=YES)
        for one in others:
            assert self.street.run(one.verify(contract)).status_code == 200
        done = sign(member, shelf, outbox, contract.digest, confirm=YES, acknowledge=YES)
        assert done.data["executed"] is True
        outbox.close()
        self.contracts.append(contract)

    def rotate(self, transport=None):
        self.turn += 1
        return rotate_key(
            self.home,
            clock=self.street.house.clock,
            entropy=SeedEntropy(b"turn %d" % self.turn),
            code="key.age",
            confirm=YES,
            transport=transport or self.street.transport,
        )

    def keys(self):
        house = self.street.house
        return [house.services.contracts.state(one).rotated_keys.get("kita") for one in self.contracts]

    def audited(self, path):
        services = self.street.house.services
        documents = services.contracts.documents()
        export(
            services.store,
            services.writer,
            path,
            policy=services.policy,
            software="0.1.0",
            contracts=documents,
        )
        report = verify(path.read_bytes(), parse_policy(services.policy))
        return [str(one) for one in report.findings if one.severity == "error"]


class Dying(httpx.BaseTransport):
    """The process ends around the nth notice."""

    def __init__(self, inner, number, *, late):
        self.inner, self.number, self.late, self.seen = inner, number, late, 0

    def handle_request(self, request):
        notice = request.method == "POST"
        self.seen += notice
        if notice and self.seen == self.number and not self.late:
            raise Killed
        answer = self.inner.handle_request(request)
        if notice and self.seen == self.number and self.late:
            raise Killed
        return answer


def test_every_contract_hears_of_it(two, tmp_path):
    two.rotate()
    new = key_text(load_identity(two.home).key.public)
    assert two.keys() == [new, new]
    assert len(two.street.house.entries(EntryType.KEY_ROTATED)) == 2
    member = two.member(b"after")
    outbox, shelf = outbox_of(member), ContractShelf(two.home, own_key=member.identity.key.public)
    assert {shelf.get(one.digest).party.party for one in two.contracts} == {"kita"}
    for one in two.contracts:
        said = halt(member, shelf, outbox, one.digest, code="cell.incident")
        assert said.data["notices"][0]["broker"] == "taken"
        shown = contract_show(two.home, member, shelf, outbox, one.digest)
        assert shown.data["digest"] == one.digest
    assert tend(member, shelf, outbox) == []
    assert contract_diff(member, shelf, two.contracts[0].digest, two.contracts[1].digest)
    outbox.close()
    assert two.audited(tmp_path / "bundle.zip") == []


@pytest.mark.parametrize("number", [1, 2])
@pytest.mark.parametrize("late", [False, True])
def test_a_crash_around_each_notice_goes_on_with_the_same_key(two, tmp_path, number, late):
    with pytest.raises(Killed):
        two.rotate(Dying(two.street.transport, number, late=late))
    pending = load_identity(two.home).next_key
    two.rotate()
    assert load_identity(two.home).key.public == pending.public
    assert two.keys() == [key_text(pending.public)] * 2
    assert len(two.street.house.entries(EntryType.KEY_ROTATED)) == 2
    assert two.audited(tmp_path / "bundle.zip") == []


def test_an_open_negotiation_comes_first_and_a_new_contract_pins_the_new_key(two, tmp_path):
    member = two.member(b"before")
    others = [NodeSim(two.street.house, name) for name in ("nord", "iber")]
    open_one = two.offered(
        member, others, contract_id="ctr_bbbbbbbbbbbbbbbb", sign_by="2027-01-30T00:00:00Z", term=TERM
    )
    with pytest.raises(RotationWaitsError) as raised:
        two.rotate()
    assert "open negotiation" in raised.value.need
    outbox, shelf = outbox_of(member), ContractShelf(two.home, own_key=member.identity.key.public)
    refuse(member, shelf, outbox, open_one.digest, code="terms.later", clause=None, text=None, confirm=YES)
    outbox.close()
    two.rotate()
    later = two.member(b"later")
    drafted = two.offered(
        later, others, contract_id="ctr_cccccccccccccccc", sign_by="2027-01-30T00:00:00Z", term=TERM
    )
    shelf, outbox = ContractShelf(two.home, own_key=later.identity.key.public), outbox_of(later)
    done = sign(later, shelf, outbox, drafted.digest, confirm=YES, acknowledge=YES)
    assert done.data["lane"] == "ACCEPTED"
    outbox.close()
    assert two.audited(tmp_path / "bundle.zip") == []
