# SPDX-License-Identifier: Apache-2.0
"""The node's commands against the broker's own application: both ends, no simulator between them."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from client.contract.comparing import contract_diff
from client.contract.countering import counter
from client.contract.negotiating import refuse
from client.contract.reading import contract_list
from client.contract.shelf import ContractShelf
from client.contract.showing import contract_show
from client.contract.signing import sign
from client.contract.stopping import halt
from client.contract.tending import tend
from client.datasets.adding import data_add
from client.errors import NoSuchThingError, RemoteRefusalError
from client.membership import Member, initialise, join, membership, open_member, status
from client.models import models_list, pull
from client.outbox import Outbox
from client.releases import receipts_fetch, receipts_verify, release_list
from client.settings import Home, LocalRules
from policies.contract import Contract, from_tree
from policies.contract.errors import OvertakenError
from policies.identity import SigningKey, fingerprint, key_text
from policies.ports import to_ms
from tests.brokersim import URL, draft, pool
from tests.nodehouse import Street, open_street
from tests.nodeprocess import run_process
from tests.nodesim import SeedEntropy
from tests.nodeworld import FIELDS, YES, sha, write_recording


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
    row = contract_list(member, shelf).data["contracts"][0]
    assert (row["state"], row["lane"]["state"]) == ("offered", "OFFERED")
    assert contract_show(home, member, shelf, outbox, None).data["digest"] == contract.digest
    first = sign(member, shelf, outbox, contract.digest, confirm=YES, acknowledge=YES)
    assert (first.data["state"], first.data["lane"], first.data["executed"]) == ("open", "ACCEPTED", False)
    for one in others:
        assert street.run(one.accept(contract)).status_code == 200
    assert [event for event, _ in tend(member, shelf, outbox)] == ["contract-said"]
    for one in others:
        assert street.run(one.verify(contract)).status_code == 200
    assert [event for event, _ in tend(member, shelf, outbox)] == ["contract-final"]
    again = sign(member, shelf, outbox, contract.digest, confirm=YES)
    assert again.data["executed"] is True
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
    assert receipts_fetch(member, outbox).data["missing"] == []
    shown = receipts_verify(member, outbox, member.broker.log_vkey)
    assert (shown.exit_code, shown.data["receipts"]) == (0, 1)
    assert shown.data["size"] == street.house.services.writer.head().size
    assert release_list(member).data["candidates"] == []
    assert models_list(member).data["models"] == []
    with pytest.raises(NoSuchThingError):
        pull(member, shelf, sha("no such model"))


def test_what_the_worker_signed_is_there_for_the_commands_beside_it(street: Street, home: Home):
    member = _enrol(street, home)
    contract, others = _contract(street, member)
    shelf = ContractShelf(home, own_key=member.identity.key.public)
    desk, tidy = _outbox(member, home), _outbox(member, home)  # the two of a running worker
    sign(member, shelf, desk, contract.digest, confirm=YES, acknowledge=YES)
    beside = {"key": member.identity.key, "origin": member.broker.origin}
    assert run_process(home.root, **beside)["kinds"] == []
    for one in others:
        assert street.run(one.accept(contract)).status_code == 200
    assert [event for event, _ in tend(member, shelf, tidy)] == ["contract-said"]
    for _ in range(2):  # each command closes the file; the second sees what the first one left
        assert run_process(home.root, **beside)["kinds"] == ["contract.signed"]
    for one in others:
        assert street.run(one.verify(contract)).status_code == 200
    assert [event for event, _ in tend(member, shelf, tidy)] == ["contract-final"]
    street.house.clock.ms = to_ms(contract.term.effective)
    desk.close()
    tidy.close()
    command = _outbox(member, home)
    said = halt(member, shelf, command, contract.digest, code="cell.incident")
    assert (said.exit_code, said.data["notices"][0]["broker"]) == (0, "taken")
    assert [one.kind for one in command.envelopes()] == ["contract.signed", "contract.halted"]
    command.close()


def test_counter_offers_and_a_refusal_reach_every_party(street: Street, home: Home):
    member = _enrol(street, home)
    contract, others = _contract(street, member)
    nord, iber = others
    shelf, outbox = ContractShelf(home, own_key=member.identity.key.public), _outbox(member, home)
    assert sign(member, shelf, outbox, contract.digest, confirm=YES, acknowledge=YES).data["round"] == 1
    # nord counters: what was accepted here is not signed any more
    theirs = _changed(contract, title="Nord's text")
    view = street.run(nord.view(contract))
    assert street.run(nord.counter(view, theirs)).status_code == 200
    with pytest.raises(OvertakenError):
        sign(member, shelf, outbox, contract.digest, confirm=YES, acknowledge=YES)
    assert tend(member, shelf, outbox) == []
    shown = contract_diff(member, shelf, None, None)
    assert (shown.data["before"], shown.data["after"]) == (contract.digest, theirs.digest)
    # this node counters: everybody has it, and can sign it
    ours = _changed(contract, title="Our text")
    done = counter(member, shelf, outbox, ours.canonical.decode(), confirm=YES)
    assert (done.data["round"], done.data["lane"], done.data["base"]) == (3, "OFFERED", theirs.digest)
    assert {street.run(one.view(ours))["lane"]["digest"] for one in others} == {ours.digest}
    assert sign(member, shelf, outbox, ours.digest, confirm=YES, acknowledge=YES).data["lane"] == "ACCEPTED"
    # this node thinks better of it while it waits
    said = refuse(
        member,
        shelf,
        outbox,
        ours.digest,
        code="terms.changed-mind",
        confirm=YES,
        clause="dp-1",
        text="too loose",
    )
    assert said.data["said"] is False
    for one in others:
        assert street.run(one.accept(ours)).status_code == 200
    assert tend(member, shelf, outbox) == [("contract-said", {"contract": ours.digest, "said": "terminate"})]
    view = street.run(iber.view(ours))
    closed = {"code": "terms.changed-mind", "clause": "dp-1", "text": "too loose", "party": "hanbit"}
    assert (view["state"], view["closed"]) == ("terminated", closed)
    assert outbox.envelopes(kind="contract.signed") == ()
    outbox.close()


@pytest.mark.parametrize("late", [False, True])
def test_of_two_nodes_that_counter_at_once_the_second_is_told_what_the_first_changed(
    street: Street, home: Home, late: bool
):
    """The first is heard while the second's person reads, or, later still, after its node looked once more."""
    member = _enrol(street, home)
    contract, others = _contract(street, member)
    shelf, outbox = ContractShelf(home, own_key=member.identity.key.public), _outbox(member, home)
    theirs = _changed(contract, privacy=contract.document["privacy"] | {"epsilon_total": "9"})
    ours = _changed(contract, title="Our text")

    def first(*_anything: object) -> bool:
        view = street.run(others[0].view(contract))
        assert street.run(others[0].counter(view, theirs)).status_code == 200
        return True

    if late:
        post = member.client.post
        member.client.post = lambda *args, **options: first() and post(*args, **options)  # type: ignore[method-assign]
    told: list[str] = []
    with pytest.raises(OvertakenError) as raised:
        counter(
            member,
            shelf,
            outbox,
            ours.canonical.decode(),
            confirm=YES if late else first,
            tell=told.extend,
        )
    assert f"{theirs.digest} in round 2" in raised.value.found
    assert "epsilon_total" in raised.value.found
    assert any(theirs.digest in line for line in told)
    assert street.run(others[1].view(theirs))["lane"]["digest"] == theirs.digest
    assert late or ours.digest not in shelf.digests()
    outbox.close()


def test_an_offer_or_counter_offer_that_names_another_log_is_refused(street: Street, home: Home):
    member = _enrol(street, home)
    contract, others = _contract(street, member)
    elsewhere = _changed(contract, audit=contract.document["audit"] | {"log_origin": "other.example/log"})
    answer = street.run(street.house.alice.offer(elsewhere))
    view = street.run(others[0].view(contract))
    for one in (answer, street.run(others[0].counter(view, elsewhere))):
        problem = one.json()
        assert (one.status_code, problem["code"]) == (422, "contract.party-mismatch")
        assert (problem["clause"], problem["found"]) == ("audit-1", "other.example/log")


def _changed(contract: Contract, **changes) -> Contract:
    return from_tree(contract.document | changes)


def test_the_command_waits_for_the_others_at_a_real_broker(street: Street, home: Home):
    member = _enrol(street, home)
    contract, others = _contract(street, member)
    shelf, outbox = ContractShelf(home, own_key=member.identity.key.public), _outbox(member, home)

    def later() -> None:
        for one in others:
            assert street.run(one.accept(contract)).status_code == 200

    acting = threading.Thread(target=later)
    done = sign(
        member,
        shelf,
        outbox,
        contract.digest,
        confirm=lambda _shown: acting.start() is None,
        acknowledge=YES,
        wait_s=20,
    )
    acting.join(20)
    assert done.data["lane"] == "VERIFIED"
    outbox.close()


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
    answer = street.run(street.house.remove(member.identity.org, reason="test"))
    assert answer.status_code == 200, answer.text
    with pytest.raises(RemoteRefusalError) as raised:
        status(member)
    assert (raised.value.code, raised.value.exit_code) == ("identity.key-revoked", 6)
