# SPDX-License-Identifier: Apache-2.0
"""Offers that all sign: from the operator's text to FINALIZED, and everything that must not get there."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from policies.contract import executed, from_tree, parse
from policies.encoding import b64, canonical, digest
from policies.identity import SigningKey, key_text
from policies.log.checkpoint import VerifierKey
from policies.log.entries import EntryType, alias
from policies.log.merkle import leaf_hash
from policies.log.proofs import parse_receipt
from policies.ports import iso_s, to_ms
from policies.signing import Envelope
from tests.brokersim import RECIPE, House, draft, final_contract, open_house, pool
from tests.lanesim import spoken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def test_the_last_signature_makes_the_contract_final_for_all_at_once(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    offered = (await house.alice.offer(contract)).json()
    assert offered["waiting_for"] == sorted(node.name for node in nodes)
    accepted = [(await node.accept(contract)).json() for node in nodes]
    assert [one["lane"]["state"] for one in accepted] == ["ACCEPTED", "ACCEPTED", "AGREED"]
    signed = [(await node.verify(contract)).json() for node in nodes]
    assert [one["state"] for one in signed] == ["open", "open", "finalized"]
    assert signed[-1]["waiting_for"] == []
    assert set(signed[-1]["lanes"].values()) == {"FINALIZED"}
    answer = await nodes[0].get(f"/contracts/{contract.digest}/envelope")
    executed(contract, Envelope.from_bytes(answer.content))
    assert house.kinds()[-8:] == [
        "console.action",
        "contract.proposed",
        *["console.action"] * 2,
        *["contract.signed"] * 3,
        "contract.finalized",
    ]
    assert house.services.contracts.is_final(contract.digest)


async def test_each_signature_is_answered_with_a_receipt_that_holds(house):
    (kita, *_) = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    answer = (await kita.verify(contract)).json()
    (receipt,) = answer["receipts"]
    body = receipt["entry"].encode()
    parse_receipt(receipt["proof"]).verify(leaf_hash(body), [VerifierKey.parse(house.services.keys.log_vkey)])


async def test_parties_get_the_bytes_the_annex_and_the_list(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    got = await nodes[1].get(f"/contracts/{contract.digest}")
    assert got.content == contract.canonical
    assert parse(got.content).digest == contract.digest
    for name in (digest(RECIPE), digest(RECIPE).removeprefix("sha256:")):
        annex = await nodes[1].get(f"/contracts/{contract.digest}/annexes/{name}")
        assert annex.content == RECIPE
    (line,) = (await nodes[1].get("/contracts")).json()["contracts"]
    assert (line["digest"], line["state"], line["party"]) == (contract.digest, "finalized", "nord")


async def test_for_who_is_no_party_a_contract_does_not_exist(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    rival = await house.member("rival")
    nothing = await rival.get("/contracts/sha256:" + "0" * 64)
    for path in ("", "/envelope", "/prose", f"/annexes/{digest(RECIPE)}"):
        answer = await rival.get(f"/contracts/{contract.digest}{path}")
        assert code(answer) == (404, "request.not-found")
        assert answer.json()["need"] == nothing.json()["need"]
    assert (await rival.get("/contracts")).json()["contracts"] == []


async def test_an_altered_byte_of_a_contract_is_refused(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    text = contract.canonical.decode()
    for altered, expected in (
        (
            text.replace('"max_rounds":200', '"max_rounds":2000'),
            None,
        ),  # another contract, which may be offered
        (text.replace("iriai-contract/1", "iriai-contract/2"), "contract.unknown-schema"),
        (text.replace('"title"', '"titel"'), "contract.invalid"),
        (text[:-1], "contract.not-canonical"),
    ):
        answer = await house.alice.offer(altered)
        if expected is None:
            assert answer.json()["digest"] != contract.digest
        else:
            assert code(answer) == (422, expected)


async def test_a_signature_over_other_bytes_is_refused(house):
    (kita, *_) = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    altered = from_tree(contract.document | {"title": "Another pool"})
    wrong = Envelope.seal(altered.canonical, "application/vnd.iriai.contract.v1+json", kita.key)
    refused = await kita.verify(contract, signature=b64(wrong.signatures[0][1]))
    assert code(refused) == (401, "identity.signature-invalid")
    assert house.entries(EntryType.CONTRACT_SIGNED) == []


async def test_an_envelope_by_another_key_is_refused(house):
    kita, nord, _ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    stolen = nord.signature_body(contract)["envelope"]
    assert code(await kita.verify(contract, envelope=stolen)) == (401, "identity.signature-invalid")
    assert (await kita.view(contract))["lane"]["state"] == "AGREED"


async def test_one_unsigned_party_keeps_the_contract_from_being_executed(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    for node in nodes[:2]:
        await node.verify(contract)
    (line,) = (await house.alice.get("/contracts")).json()["contracts"]
    assert (line["state"], line["standing"], line["waiting_for"]) == ("offered", "OFFERED", ["iber"])
    assert not house.services.contracts.state(contract).executed
    refused = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    assert code(refused) == (403, "contract.not-executed")


async def test_a_signature_after_sign_by_is_on_record_and_worth_nothing(house):
    kita, nord, iber = nodes = await pool(house)
    house.clock.ms = to_ms("2026-11-29T00:00:00Z")
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    for node in (kita, nord):
        await node.verify(contract)
    view = await iber.view(contract)
    house.clock.ms = to_ms(contract.sign_by)
    late = await iber.say(view, "verify", body=iber.signature_body(contract))
    assert code(late) == (409, "negotiation.deadline")
    assert late.json()["exit_code"] == 7
    assert len(late.json()["receipts"]) == 1
    assert not house.services.contracts.is_final(contract.digest)
    assert len(house.entries(EntryType.CONTRACT_SIGNED)) == 3
    assert house.entries(EntryType.CONTRACT_FINALIZED) == []
    (ended,) = house.entries(EntryType.CONTRACT_TERMINATED)
    assert ended.pub == {"contract": contract.digest, "clause": None, "reason": "negotiation.deadline"}


async def test_an_offer_after_sign_by_is_refused(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    house.clock.ms = to_ms(contract.sign_by)
    assert code(await house.alice.offer(contract)) == (409, "negotiation.deadline")


async def test_a_repeated_signature_counts_once(house):
    kita, *_ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    view, body = await kita.view(contract), kita.signature_body(contract)
    message = spoken(view, "verify", kita.key, now_ms=house.clock.ms)
    for _ in range(3):
        answer = await kita.post(
            f"/negotiations/{view['id']}/messages", {"message": message.to_json(), **body}
        )
        assert answer.status_code == 200
        assert answer.json()["lane"]["state"] == "VERIFIED"
    again = await kita.verify(contract)
    assert code(again) == (409, "negotiation.bad-transition")
    (line,) = (await kita.get("/contracts")).json()["contracts"]
    assert line["signed"] == ["broker", "kita"]


async def test_a_recipe_whose_bytes_differ_from_the_digest_is_refused(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    other = RECIPE.replace(b"e", b"f", 1)
    assert code(await house.alice.offer(contract, (other,))) == (422, "contract.annex-mismatch")
    assert code(await house.alice.offer(contract, ())) == (422, "contract.annex-missing")
    assert code(await house.alice.offer(contract, (RECIPE, other))) == (422, "contract.annex-mismatch")
    assert house.entries(EntryType.CONTRACT_PROPOSED) == []


async def test_the_same_version_with_another_text_is_refused(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    assert (await house.bob.offer(contract)).status_code == 201
    other = draft(house, nodes, title="Another title")
    assert code(await house.alice.offer(other)) == (409, "contract.offer-conflict")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("org", "org_aaaaaaaaaaaaaaaa"),
        ("group", "elsewhere"),
        ("legal_name", "Somebody else"),
        ("country", "FR"),
        ("key", key_text(SigningKey.from_seed(b"stranger" * 4).public)),
    ],
)
async def test_a_party_that_is_not_the_enrolled_member_is_refused(house, field, value):
    nodes = await pool(house)
    tree = draft(house, nodes).document
    party = next(one for one in tree["parties"] if one["party"] == "kita")
    party[field] = value
    refused = await house.alice.offer(from_tree(tree))
    assert code(refused) == (422, "contract.party-mismatch")
    assert refused.json()["clause"] == "party-kita"


async def test_another_brokers_key_is_refused(house):
    nodes = await pool(house)
    tree = draft(house, nodes).document
    broker = next(one for one in tree["parties"] if one["role"] == "broker")
    broker["key"] = key_text(SigningKey.from_seed(b"otherbrk" * 4).public)
    assert code(await house.alice.offer(from_tree(tree))) == (422, "contract.party-mismatch")


async def test_a_party_that_was_revoked_before_the_last_signature_stops_the_contract(house):
    kita, nord, iber = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    await kita.verify(contract)
    await nord.verify(contract)
    view = await iber.view(contract)
    await house.remove(nord.org, reason="key-lost")
    refused = await iber.say(view, "verify", body=iber.signature_body(contract))
    assert code(refused) == (409, "negotiation.bad-transition")
    assert refused.json()["clause"] == "party-nord"
    assert "contract.party-mismatch" in refused.json()["found"]
    assert not house.services.contracts.is_final(contract.digest)
    assert (await iber.view(contract))["closed"]["code"] == "contract.party-mismatch"


async def test_aliases_and_seats_follow_the_pinned_keys(house):
    kita, nord, iber = nodes = await pool(house)
    contract = await final_contract(house, nodes)
    seats = house.services.seats(contract)
    assert {one.party: one.member.node for one in seats} == {node.name: node.node for node in nodes}
    assert house.services.alias("kita", contract.digest, "run_aaaaaaaaaaaaaaaa", 3) == alias(
        kita.alias_key, contract.digest, "run_aaaaaaaaaaaaaaaa", 3
    )
    assert house.services.party_of_node(contract, nord.node) == "nord"
    assert house.services.member_of_node(iber.node).org == iber.org


async def test_a_contract_survives_a_restart(tmp_path):
    async with open_house(tmp_path / "broker") as house:
        nodes = await pool(house)
        contract = await final_contract(house, nodes)
    async with open_house(tmp_path / "broker") as house:
        assert house.services.contracts.get(contract.digest).canonical == contract.canonical
        state = house.services.contracts.state(contract)
        assert (state.executed, state.now) == (True, iso_s(house.clock.ms))


async def test_the_finalized_entry_names_the_signatures(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    (final,) = house.entries(EntryType.CONTRACT_FINALIZED)
    envelope = await nodes[0].get(f"/contracts/{contract.digest}/envelope")
    assert final.pub["signatures"] == digest(envelope.content)
    assert hashlib.sha256(envelope.content).hexdigest() in final.pub["signatures"]
    assert canonical(envelope.json()) == envelope.content
