# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from client.contracts import contract_list, contract_show, fetch
from client.errors import (
    BrokerKeyError,
    DigestMismatchError,
    NoSuchThingError,
    NotConfirmedError,
    NotJoinedError,
    NotSignedError,
    RemoteRefusalError,
)
from policies.contract.errors import ContractInvalidError, NotCanonicalError
from policies.identity import SigningKey, key_text
from tests.nodesim import BrokerSim, HandClock
from tests.nodeworld import BEFORE_MS, World


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def test_signing_sends_the_signature_and_the_envelope_once(world: World):
    first = world.sign()
    assert first.data["executed"] is False
    again = world.sign()
    assert again.data["contract"] == first.data["contract"]
    assert len(world.outbox().envelopes(kind="contract.signed")) == 1
    assert world.outbox().pending() == ()  # its receipt was fetched and checked
    world.finalize()
    assert world.sign().data["executed"] is True


def test_own_duties_come_first_and_each_sentence_names_its_clause(world: World):
    shown = contract_show(world.member, world.shelf(), None)
    assert shown.data["party"] == "kita"
    assert all(line.startswith("[") for line in shown.data["clauses"])
    assert any("dp-1" in line for line in shown.data["clauses"])
    assert contract_list(world.member).data["contracts"][0]["state"] == "offered"


def test_other_bytes_than_the_digest_names_are_refused(world: World):
    digest = world.contract.digest
    world.broker.contracts[digest] = world.broker.contracts[digest].replace(b'"version":1', b'"version":2')
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert world.broker.signatures == {}
    assert not world.home.contracts.exists()


def test_another_recipe_than_the_contract_names_is_refused(world: World):
    world.broker.annexes[world.recipe.digest] = world.recipe.canonical.replace(
        b'"rounds":190', b'"rounds":191'
    )
    with pytest.raises(DigestMismatchError):
        world.sign()
    assert world.broker.signatures == {}


def test_a_recipe_that_is_not_sent_is_not_signed(world: World):
    world.broker.annexes.clear()
    with pytest.raises(RemoteRefusalError):
        world.sign()


def _offer(world: World, **changes) -> None:
    world.contract = world.draft(**changes)
    world.broker.contracts[world.contract.digest] = world.contract.canonical


def test_a_contract_of_another_broker_is_not_signed(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["role"] == "broker":
            one["key"] = key_text(SigningKey.from_seed(b"Z" * 32).public)
    _offer(world, parties=parties)
    with pytest.raises(BrokerKeyError):
        world.sign()


def test_a_contract_that_pins_this_key_for_another_organisation_is_not_signed(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["party"] == "kita":
            one["org"] = "org_aaaaaaaaaaaaaaaa"
    _offer(world, parties=parties)
    with pytest.raises(NotSignedError, match="pinned for contributor"):
        world.sign()


def test_a_contract_without_this_node_is_not_kept(world: World):
    parties = world.contract.document["parties"]
    for one in parties:
        if one["party"] == "kita":
            one["key"] = key_text(SigningKey.from_seed(b"Q" * 32).public)
    _offer(world, parties=parties)
    with pytest.raises(NoSuchThingError):
        world.sign()


def test_a_contract_whose_fields_do_not_cover_the_recipe_is_not_signed(world: World):
    fields = world.contract.document["fields"] | {"allow": ["tcp_pos"]}
    _offer(world, fields=fields)
    with pytest.raises(NotSignedError, match="goal_pos"):
        world.sign()


def test_after_the_deadline_nothing_is_signed(world: World):
    world.clock.ms = BEFORE_MS + 365 * 86_400_000
    with pytest.raises(NotSignedError, match="before"):
        world.sign()


def test_a_person_who_says_no_signs_nothing(world: World):
    with pytest.raises(NotConfirmedError):
        world.sign(confirm=lambda _text: False)
    assert world.broker.signatures == {}
    assert world.outbox().envelopes() == ()


def test_before_the_approval_nothing_is_signed(tmp_path: Path):
    world = World(tmp_path)
    (world.home.keys / "alias.key").unlink()
    world.broker.member().pop("alias_key")
    world.broker.member()["state"] = "waiting-approval"
    with pytest.raises(NotJoinedError):
        world.sign()


def test_bytes_that_are_no_contract_are_refused(world: World):
    from policies.encoding import canonical, digest

    for data in (b"{}", canonical({"schema": "iriai-contract/1", "x": 1}), b"\xff"):
        world.broker.contracts[digest(data)] = data
        with pytest.raises((ContractInvalidError, NotCanonicalError)):
            fetch(world.member, world.shelf(), digest(data))


@pytest.mark.parametrize("name", ["", "sha256:../../x", "sha256:" + "g" * 64, "../etc"])
def test_a_digest_that_is_none_is_refused_before_any_path_is_made(world: World, name: str):
    with pytest.raises(NoSuchThingError):
        fetch(world.member, world.shelf(), name)


def test_the_simulated_broker_stands_still():
    assert BrokerSim(clock=HandClock(5)).clock.now_ms() == 5
