# SPDX-License-Identifier: Apache-2.0
"""Lying contributors in a negotiation: copies, other orders, other lanes, other keys, other bytes, two at once."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from broker.store.tables import negotiation, statement
from policies.contract import from_tree
from policies.contract.negotiation.lanes import LANE_TYPE, read_message, seal_message
from policies.encoding import b64, canonical, digest
from policies.identity import SigningKey
from policies.log.entries import EntryType
from policies.signing import Envelope
from tests.brokersim import House, NodeSim, all_sign, draft, open_house, pool
from tests.lanesim import contract_signature, fresh_id, message_for, spoken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path
    from typing import Any

    from policies.contract import Contract


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def opened(house: House) -> tuple[list[NodeSim], Contract]:
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    return nodes, contract


async def agreed(house: House) -> tuple[list[NodeSim], Contract]:
    nodes, contract = await opened(house)
    for one in nodes:
        assert (await one.accept(contract)).status_code == 200
    return nodes, contract


def other_text(contract: Contract, title: str = "Another pool") -> Contract:
    return from_tree(contract.document | {"title": title})


def pool_of(house: House) -> bytes:
    with house.services.store.read() as session:
        return session.scalar(select(negotiation.c.pool))


async def post(node: NodeSim, name: str, message: Envelope, **body: Any) -> Any:
    return await node.post(f"/negotiations/{name}/messages", {"message": message.to_json(), **body})


async def test_a_message_that_is_replayed_has_no_second_effect(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    message = spoken(view, "accept", kita.key, now_ms=house.clock.ms)
    first = await post(kita, view["id"], message)
    before = pool_of(house)
    for _ in range(5):
        again = await post(kita, view["id"], message)
        assert again.json()["lane"] == first.json()["lane"]
    assert pool_of(house) == before


async def test_an_accept_of_the_round_before_is_not_one_of_this_round(house):
    (kita, nord, _), contract = await opened(house)
    view = await nord.view(contract)
    accept = spoken(view, "accept", nord.key, now_ms=house.clock.ms)
    await kita.counter(await kita.view(contract), other_text(contract))
    assert code(await post(nord, view["id"], accept)) == (409, "negotiation.superseded")
    assert (await nord.view(view["id"]))["lane"]["state"] == "OFFERED"


async def test_who_accepted_and_sends_the_accept_again_in_the_next_round_has_accepted_nothing(house):
    (kita, nord, _), contract = await opened(house)
    view = await nord.view(contract)
    accept = spoken(view, "accept", nord.key, now_ms=house.clock.ms)
    assert (await post(nord, view["id"], accept)).status_code == 200
    await kita.counter(await kita.view(contract), other_text(contract))
    assert (await post(nord, view["id"], accept)).status_code == 200  # known, and nothing happens
    assert (await nord.view(view["id"]))["lane"]["state"] == "OFFERED"


async def test_messages_in_another_order_are_refused(house):
    nodes, contract = await opened(house)
    kita = nodes[0]
    view = await kita.view(contract)
    early = message_for(view, "verify", now_ms=house.clock.ms)
    verify = await post(kita, view["id"], seal_message(early, kita.key), **kita.signature_body(contract))
    assert code(verify) == (409, "negotiation.bad-transition")
    for one in nodes:
        await one.accept(contract)
    stale = await post(kita, view["id"], seal_message(early, kita.key), **kita.signature_body(contract))
    assert code(stale) == (409, "negotiation.bad-transition")
    assert view["lane"]["last_hash"] in stale.json()["found"]
    assert (await kita.view(contract))["lane"]["state"] == "AGREED"


async def test_a_message_in_the_lane_of_another_is_refused(house):
    (kita, nord, _), contract = await opened(house)
    theirs, own = await nord.view(contract), await kita.view(contract)
    for changes in ({}, {"party": "kita"}, {"party": "kita", "prev": own["lane"]["last_hash"]}):
        message = spoken(theirs, "accept", kita.key, now_ms=house.clock.ms, **changes)
        assert code(await post(kita, own["id"], message)) == (409, "negotiation.bad-transition")
    assert (await nord.view(contract))["lane"]["state"] == "OFFERED"


async def test_a_message_by_another_key_is_refused(house):
    (kita, nord, _), contract = await opened(house)
    view = await kita.view(contract)
    message = spoken(view, "accept", nord.key, now_ms=house.clock.ms)
    assert code(await post(kita, view["id"], message)) == (401, "identity.signature-invalid")
    stranger = spoken(view, "accept", SigningKey.from_seed(b"stranger" * 4), now_ms=house.clock.ms)
    assert code(await post(kita, view["id"], stranger)) == (401, "identity.signature-invalid")
    stolen = spoken(view, "accept", kita.key, now_ms=house.clock.ms)
    assert code(await post(nord, view["id"], stolen)) == (401, "identity.signature-invalid")
    assert (await kita.view(contract))["lane"]["state"] == "OFFERED"


async def test_a_used_id_with_other_bytes_is_refused_and_kept_as_evidence(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    used = fresh_id()
    assert (await kita.say(view, "accept", id=used)).status_code == 200
    other = spoken(view, "terminate", kita.key, now_ms=house.clock.ms, id=used)
    refused = await post(kita, view["id"], other)
    assert code(refused) == (409, "negotiation.message-conflict")
    (incident,) = house.entries(EntryType.INCIDENT_DECLARED)
    assert incident.pub == {
        "kind": "negotiation.message-conflict",
        "evidence": digest(other.to_bytes()),
    }
    with house.services.store.read() as session:
        kept = session.scalar(select(statement.c.bytes).where(statement.c.digest == incident.pub["evidence"]))
    assert kept == other.to_bytes()
    assert (await kita.view(contract))["lane"]["state"] == "ACCEPTED"
    again = await post(kita, view["id"], other)
    assert code(again) == (409, "negotiation.message-conflict")
    assert len(house.entries(EntryType.INCIDENT_DECLARED)) == 1


async def test_an_id_of_another_negotiation_is_refused(house):
    nodes, contract = await opened(house)
    kita = nodes[0]
    second = draft(house, nodes, contract_id="ctr_" + "b" * 16)
    await house.alice.offer(second)
    used = fresh_id()
    assert (await kita.say(await kita.view(contract), "accept", id=used)).status_code == 200
    refused = await kita.say(await kita.view(second), "accept", id=used)
    assert code(refused) == (409, "negotiation.message-conflict")
    assert len(house.entries(EntryType.INCIDENT_DECLARED)) == 1


async def test_an_id_of_the_brokers_own_message_is_refused(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    offer = read_message(Envelope.from_json(view["messages"][0]["message"]).payload)
    refused = await kita.say(view, "accept", id=offer.id)
    assert code(refused) == (409, "negotiation.message-conflict")


async def test_of_counter_offers_at_the_same_time_exactly_one_counts(house):
    nodes, contract = await opened(house)
    views = [await one.view(contract) for one in nodes]
    answers = await asyncio.gather(
        *(
            one.counter(view, other_text(contract, f"Text of {one.name}"))
            for one, view in zip(nodes, views, strict=True)
        )
    )
    assert sorted(one.status_code for one in answers) == [200, 409, 409]
    refused = [one for one in answers if one.status_code == 409]
    assert {code(one) for one in refused} == {(409, "negotiation.superseded")}
    winner = next(one for one in answers if one.status_code == 200).json()["digest"]
    assert {one.json()["digest"] for one in refused} == {winner}
    seen = [await one.view(views[0]["id"]) for one in nodes]
    assert {(one["round"], one["digest"]) for one in seen} == {(2, winner)}


async def test_a_message_of_the_broker_in_a_members_hand_is_nothing(house):
    (kita, nord, _), contract = await agreed(house)
    view = await kita.view(contract)
    agree = Envelope.from_json(view["messages"][-1]["message"])
    assert read_message(agree.payload).type == "agree"
    assert code(await post(kita, view["id"], agree)) == (401, "identity.signature-invalid")
    for kind in ("agree", "finalize", "offer", "terminate"):
        own = message_for(view, "verify", now_ms=house.clock.ms, acknowledged=())
        changes = {"sender": "broker", "type": kind, "code": "x" if kind == "terminate" else None}
        forged = canonical({**_tree(own), **changes})
        sealed = Envelope.seal(forged, LANE_TYPE, kita.key)
        assert code(await post(kita, view["id"], sealed)) == (409, "negotiation.bad-transition")
    assert {one["lane"]["state"] for one in (await kita.view(contract), await nord.view(contract))} == {
        "AGREED"
    }


def _tree(message: Any) -> dict[str, Any]:
    import json

    return dict(json.loads(message.payload))


async def test_a_contributor_cannot_speak_as_the_broker_in_a_form_that_does_not_exist(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    own = message_for(view, "accept", now_ms=house.clock.ms)
    sealed = Envelope.seal(canonical({**_tree(own), "type": "finalize"}), LANE_TYPE, kita.key)
    assert code(await post(kita, view["id"], sealed)) == (422, "negotiation.message-malformed")


async def test_who_is_no_party_learns_nothing_and_changes_nothing(house):
    nodes, contract = await opened(house)
    rival = await house.member("rival")
    view = await nodes[0].view(contract)
    before = pool_of(house)
    nothing = "neg_" + "a" * 16
    for kind in ("accept", "terminate"):
        message = spoken(view, kind, rival.key, now_ms=house.clock.ms)
        assert code(await post(rival, view["id"], message)) == (404, "request.not-found")
        assert code(await post(rival, nothing, message)) == (404, "request.not-found")
    counter = await rival.counter(view, other_text(contract))
    assert code(counter) == (404, "request.not-found")
    assert code(await rival.get(f"/negotiations/{view['id']}?after=0&wait_s=30"))[0] == 404
    assert code(await rival.get(f"/contracts/{contract.digest}/prose"))[0] == 404
    assert pool_of(house) == before


async def test_a_signature_over_another_text_is_refused(house):
    (kita, *_), contract = await agreed(house)
    other = other_text(contract)
    forged = contract_signature(other, kita.key)
    assert code(await kita.verify(contract, signature=forged)) == (401, "identity.signature-invalid")
    view = await kita.view(contract)
    about_other = await kita.say(
        view, "verify", digest=other.digest, body=kita.signature_body(contract) | {"signature": forged}
    )
    assert code(about_other) == (409, "negotiation.digest-mismatch")
    assert house.entries(EntryType.CONTRACT_SIGNED) == []
    assert (await kita.view(contract))["lane"]["state"] == "AGREED"


async def test_one_party_that_signs_again_and_again_counts_once(house):
    (kita, nord, iber), contract = await agreed(house)
    await kita.verify(contract)
    for _ in range(3):
        assert code(await kita.verify(contract)) == (409, "negotiation.bad-transition")
    theirs = await nord.view(contract)
    in_theirs = spoken(theirs, "verify", kita.key, now_ms=house.clock.ms)
    refused = await post(kita, theirs["id"], in_theirs, **kita.signature_body(contract))
    assert code(refused) == (409, "negotiation.bad-transition")
    view = await iber.view(contract)
    assert (view["state"], view["waiting_for"]) == ("open", ["iber", "nord"])
    assert not house.services.contracts.is_final(contract.digest)
    await nord.verify(contract)
    await iber.verify(contract)
    assert house.services.contracts.is_final(contract.digest)


async def test_a_members_signature_for_the_log_cannot_be_lent_to_another(house):
    (kita, nord, _), contract = await agreed(house)
    lent = nord.signature_body(contract)
    assert code(await kita.verify(contract, envelope=lent["envelope"])) == (401, "identity.signature-invalid")
    assert code(await kita.verify(contract, signature=lent["signature"])) == (
        401,
        "identity.signature-invalid",
    )
    assert house.entries(EntryType.CONTRACT_SIGNED) == []


async def test_a_message_to_another_negotiation_than_its_own_is_refused(house):
    nodes, contract = await opened(house)
    kita = nodes[0]
    second = draft(house, nodes, contract_id="ctr_" + "b" * 16)
    await house.alice.offer(second)
    views = [await kita.view(one) for one in (contract, second)]
    message = spoken(views[0], "accept", kita.key, now_ms=house.clock.ms)
    assert code(await post(kita, views[1]["id"], message)) == (409, "negotiation.bad-transition")
    renamed = spoken(views[0], "accept", kita.key, now_ms=house.clock.ms, negotiation=views[1]["id"])
    assert code(await post(kita, views[1]["id"], renamed)) == (409, "negotiation.bad-transition")
    assert {(await kita.view(one))["lane"]["state"] for one in (contract, second)} == {"OFFERED"}


async def test_a_member_that_was_revoked_says_nothing_more_and_the_round_ends(house):
    (kita, nord, _), contract = await opened(house)
    view = await nord.view(contract)
    await house.remove(nord.org, reason="key-lost")
    refused = await nord.say(view, "accept")
    assert code(refused) == (401, "identity.key-revoked")
    assert (await kita.view(contract))["closed"]["code"] == "contract.party-mismatch"


async def test_a_counter_offer_with_a_stranger_or_another_broker_is_refused(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    key = SigningKey.from_seed(b"stranger" * 4).public.hex()
    for role, clause in (("contributor", "party-nord"), ("broker", "party-broker")):
        tree = contract.document
        party = next(one for one in tree["parties"] if one["clause"] == clause)
        assert party["role"] == role
        party["key"] = f"ed25519:{key}"
        refused = await kita.counter(view, from_tree(tree))
        assert (code(refused), refused.json()["clause"]) == ((422, "contract.party-mismatch"), clause)
    assert len(house.entries(EntryType.CONTRACT_PROPOSED)) == 1


async def test_a_counter_offer_whose_bytes_are_others_than_it_names_is_refused(house):
    (kita, *_), contract = await opened(house)
    view, other = await kita.view(contract), other_text(contract)
    body = {"contract": other.canonical.decode(), "recipes": []}
    refused = await kita.say(view, "request", body=body, digest=digest(b"something else"))
    assert code(refused) == (409, "negotiation.digest-mismatch")
    extra = await kita.counter(view, other, (b"{}",))
    assert code(extra) == (422, "contract.annex-mismatch")
    assert (await kita.view(contract))["round"] == 1


async def test_what_a_hostile_reason_holds_reaches_no_screen_and_no_log(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    own = message_for(view, "terminate", now_ms=house.clock.ms)
    for changes in ({"text": "\x1b[2J"}, {"text": "a\u202eb"}, {"code": "<script>"}, {"clause": "../x"}):
        sealed = Envelope.seal(canonical({**_tree(own), **changes}), LANE_TYPE, kita.key)
        assert code(await post(kita, view["id"], sealed)) == (422, "negotiation.message-malformed")
    assert house.entries(EntryType.CONTRACT_TERMINATED) == []


async def test_after_every_attack_honest_contributors_still_agree(house):
    nodes, contract = await opened(house)
    kita, nord, _ = nodes
    view = await nord.view(contract)
    await post(kita, view["id"], spoken(view, "accept", kita.key, now_ms=house.clock.ms))
    await kita.say(await kita.view(contract), "verify", body=kita.signature_body(contract))
    await post(kita, view["id"], spoken(view, "terminate", nord.key, now_ms=house.clock.ms))
    garbage = Envelope.seal(b"{}", LANE_TYPE, kita.key)
    await kita.post(f"/negotiations/{view['id']}/messages", {"message": garbage.to_json()})
    await kita.post(f"/negotiations/{view['id']}/messages", {"message": {}, "recipes": [b64(b"x")]})
    await all_sign(nodes, contract)
