# SPDX-License-Identifier: Apache-2.0
"""Who found a node's old key, or saw how it was given up: every door is shut, and nothing is changed."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from broker.federation.books import MisfitError
from broker.federation.participants import participants
from broker.federation.signed import Signed
from client.contract.notices import Notices
from client.contract.shelf import ContractShelf
from client.identity import load_identity
from client.keyring import HandOver, append, read_history
from client.privacy.store import BudgetStore
from policies.contract.notices import Notice, open_notice, seal_notice
from policies.errors import IriaiError, SignatureInvalidError
from policies.identity import SigningKey, key_text
from policies.log.entries import EntryType
from policies.log.envelope import Seen, seal_envelope
from policies.ports import iso_s, to_ms
from policies.privacy.errors import BudgetUnknownError
from tests.brokersim import House, NodeSim, Signer, final_contract, open_house, pool
from tests.federationsim import running
from tests.noticespeech import entry_body, posted, rotate, said
from tests.rotationsim import member_of, rotated

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract

FOUR = ("kita", "nord", "iber", "hanbit")
FRESH = SigningKey.from_seed(b"the new key of kita".ljust(32, b"-"))
MALLORY = SigningKey.from_seed(b"mallory".ljust(32, b"-"))
SECOND = {
    "contract_id": "ctr_aaaaaaaaaaaaaaaa",
    "sign_by": "2027-01-30T00:00:00Z",
    "term": {"clause": "term-1", "effective": "2027-02-01T00:00:00Z", "expires": "2028-02-01T00:00:00Z"},
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


@pytest.fixture
async def nodes(house: House) -> dict[str, NodeSim]:
    return {one.name: one for one in await pool(house, *FOUR)}


@pytest.fixture
async def contract(house: House, nodes: dict[str, NodeSim]) -> Contract:
    found = await final_contract(house, list(nodes.values()))
    house.clock.ms = to_ms(found.term.effective)
    return found


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def stored_key(house: House, node: NodeSim) -> str:
    return key_text(house.services.directory.member(node.org).key)


def keys(house: House, contract: Contract) -> Any:
    return house.services.contracts.state(contract).rotated_keys


# --- at the broker ---


async def test_requests_by_the_old_key_are_a_strangers(house, nodes, contract):
    kita, old = nodes["kita"], nodes["kita"].key
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    thief = Signer(house, old, "thief")
    for path in ("/contracts", "/membership/me", f"/contracts/{contract.digest}/lifecycle"):
        assert code(await thief.get(path)) == (401, "identity.unknown-key")


async def test_the_old_key_cannot_change_the_key_a_second_time_whoever_brings_it(house, nodes, contract):
    kita, old = nodes["kita"], nodes["kita"].key
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    notice = said(house, contract, "rotate", "kita", subject=key_text(MALLORY.public))
    path = f"/contracts/{contract.digest}/notices"
    body = {"notice": seal_notice(notice, old, MALLORY).to_json(), "envelope": None}
    assert code(await nodes["nord"].post(path, body)) == (401, "identity.signature-invalid")
    thief = Signer(house, old, "thief")
    assert code(await thief.post(path, body)) == (401, "identity.unknown-key")
    assert stored_key(house, kita) == key_text(FRESH.public)
    assert keys(house, contract) == {"kita": key_text(FRESH.public)}


async def test_a_contract_that_has_not_heard_yet_is_no_door_for_the_old_key(house, nodes, contract):
    second = await final_contract(house, list(nodes.values()), **SECOND)
    kita, old = nodes["kita"], nodes["kita"].key
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    notice = said(house, second, "rotate", "kita", subject=key_text(MALLORY.public))
    body = {"notice": seal_notice(notice, old, MALLORY).to_json(), "envelope": None}
    path = f"/contracts/{second.digest}/notices"
    answer = await nodes["nord"].post(path, body)
    assert code(answer) == (403, "contract.notice-entitlement")
    assert stored_key(house, kita) == key_text(FRESH.public)
    assert keys(house, second) == {}
    honest = said(house, second, "rotate", "kita", subject=key_text(FRESH.public))
    answer = await kita.post(path, posted(kita, second, honest, old, FRESH))
    assert answer.status_code == 200, answer.text
    assert keys(house, second) == {"kita": key_text(FRESH.public)}


async def test_a_notice_that_comes_again_changes_nothing(house, nodes, contract):
    kita, old = nodes["kita"], nodes["kita"].key
    notice = said(house, contract, "rotate", "kita", subject=key_text(FRESH.public))
    body = posted(kita, contract, notice, old, FRESH)
    path = f"/contracts/{contract.digest}/notices"
    assert (await kita.post(path, body)).status_code == 200
    kita.key = FRESH
    third = SigningKey.from_seed(b"third".ljust(32, b"-"))
    assert (await rotate(kita, contract, third)).status_code == 200
    before = len(house.entries())
    for sender, sent in ((kita, body), (nodes["nord"], body | {"envelope": None})):
        await sender.post(path, sent)
    assert len(house.entries()) == before
    assert stored_key(house, kita) == key_text(third.public)
    assert keys(house, contract) == {"kita": key_text(third.public)}


async def test_a_notice_of_one_contract_is_none_of_another(house, nodes, contract):
    second = await final_contract(house, list(nodes.values()), **SECOND)
    kita = nodes["kita"]
    notice = said(house, contract, "rotate", "kita", subject=key_text(FRESH.public))
    body = {"notice": seal_notice(notice, kita.key, FRESH).to_json(), "envelope": None}
    answer = await nodes["nord"].post(f"/contracts/{second.digest}/notices", body)
    assert answer.status_code == 422
    assert keys(house, second) == {}
    assert stored_key(house, kita) == key_text(kita.key.public)


async def test_nobody_joins_with_a_key_that_was_given_up(house, nodes, contract):
    kita, old = nodes["kita"], nodes["kita"].key
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    newcomer = NodeSim(house, "newcomer")
    newcomer.key = old
    token = await house.alice.invite("Newcomer", "DE", "newcomer")
    assert code(await newcomer.join(token))[1] == "membership.already-enrolled"
    answer = await rotate(nodes["nord"], contract, old)
    assert answer.status_code == 409  # nor does another member take it
    assert stored_key(house, nodes["nord"]) == key_text(nodes["nord"].key.public)


async def test_a_given_up_key_is_refused_in_a_contract_that_never_knew_it(house, nodes, contract):
    others = [nodes[name] for name in ("nord", "iber", "hanbit")]
    second = await final_contract(house, others, **SECOND)
    old = nodes["kita"].key
    assert (await rotate(nodes["kita"], contract, FRESH)).status_code == 200
    answer = await rotate(nodes["nord"], second, old)
    assert code(answer) == (409, "membership.already-enrolled")
    assert stored_key(house, nodes["nord"]) == key_text(nodes["nord"].key.public)


async def test_the_chain_does_not_go_on_under_the_old_key(house, nodes, contract):
    kita, old = nodes["kita"], nodes["kita"].key
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    notice = said(house, contract, "halt", "kita")
    kita.key = old
    sealed = kita.seal(EntryType.CONTRACT_HALTED, entry_body(house, contract, notice), scope=contract.digest)
    kita.key = FRESH
    body = {"notice": seal_notice(notice, FRESH).to_json(), "envelope": sealed.to_json()}
    answer = await kita.post(f"/contracts/{contract.digest}/notices", body)
    assert code(answer) == (401, "identity.signature-invalid")
    assert house.entries(EntryType.CONTRACT_HALTED) == []


# --- at the node, and in the books ---


def test_a_new_key_begins_no_new_budget_at_the_broker():
    with running() as (pool, go):
        run = go(pool.run())
        kita = pool.nodes["kita"]
        first = kita.worker.outbox.envelopes(run=run, kind="epsilon.spent")[0]
        rotated(pool, go, "kita")
        spent = json_of(first.envelope)
        again = seal_envelope(
            load_identity(kita.home).key,
            **{
                name: spent[name] for name in ("log", "chain", "seq", "prev", "scope", "run", "round", "body")
            },
            kind=EntryType.EPSILON_SPENT,
            seen=Seen.from_json(spent["seen"]),
            time_ms=pool.clock.ms,
            nonce=b"0" * 16,
            ack=None,
        )
        (sender,) = [
            one
            for one in participants(pool.services.contracts, pool.contract, pool.recipe)
            if one.party == "kita"
        ]
        assert sender.node_key == load_identity(kita.home).key.public
        with pool.services.store.read() as session:
            page = pool.services.books().page(session, sender)
            with pytest.raises(MisfitError):  # the same mechanism run, spent under the key before
                page.fit(Signed(envelope=again, payload=json_of(again)))


def test_a_ledger_entry_by_the_old_key_is_none_after_the_hand_over():
    with running() as (pool, go):
        go(pool.run())
        kita = pool.nodes["kita"]
        old = load_identity(kita.home).key
        rotated(pool, go, "kita")
        (path,) = kita.home.budget.glob("*.db")
        thief = BudgetStore(path, clock=pool.clock, key=old)
        thief.tighten("1")
        thief.close()
        with pytest.raises(BudgetUnknownError):
            _ = kita.worker


def test_a_hand_over_needs_both_keys(tmp_path):
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        old = load_identity(kita.home).key
        rotated(pool, go, "kita")
        present = load_identity(kita.home).key
        keys = tmp_path / "keys"
        shutil.copytree(kita.home.keys, keys)
        stolen = HandOver(old=key_text(present.public), new=key_text(MALLORY.public), at="now", ledgers={})
        with pytest.raises(IriaiError):
            append(keys, stolen, old=old, new=MALLORY)
        append(keys, replace(stolen, old=key_text(old.public)), old=old, new=MALLORY)
        with pytest.raises(IriaiError):  # a second hand-over of a key that was given up
            read_history(keys)
        assert load_identity(kita.home).key.public == present.public


def test_a_notice_by_the_old_key_binds_no_node_after_the_change():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        old = load_identity(kita.home).key
        rotated(pool, go, "kita")
        member = member_of(pool, go, kita.home, "owner")
        shelf = ContractShelf(kita.home, own_key=member.identity.key.public)
        held, notices = shelf.get(pool.contract.digest), Notices(shelf)
        life = notices.life(held)
        forged = Notice(
            kind="exit",
            contract=held.contract.digest,
            party="kita",
            seq=life.next_seq("kita"),
            at=iso_s(pool.clock.ms),
            code="party.leaves",
            choice="discard",
        )
        with pytest.raises(SignatureInvalidError):
            notices.say(held, forged, old)
        with pytest.raises(SignatureInvalidError):
            open_notice(seal_notice(forged, old), held.contract, rotated=life.rotated)
        assert notices.life(held) == life


def json_of(envelope: Any) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(envelope.payload)
    return found
