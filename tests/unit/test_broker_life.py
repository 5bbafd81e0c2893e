# SPDX-License-Identifier: Apache-2.0
"""A contract in force at the broker: notices, their entries, what stops, what ends, who is told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from broker.commands.life import _shown
from broker.log.bundle import export
from broker.store.tables import contract_notice, organisation
from policies.contract.errors import HaltedError
from policies.contract.notices import open_notice, read_notice, seal_notice
from policies.identity import SigningKey, key_text
from policies.log.entries import EntryType, alias
from policies.log.policy import parse_policy
from policies.ports import iso_s, to_ms
from policies.signing import Envelope
from policies.verify import verify
from tests.brokersim import House, NodeSim, final_contract, open_house, pool
from tests.noticespeech import posted, rotate, said, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract

FOUR = ("kita", "nord", "iber", "hanbit")
FRESH = SigningKey.from_seed(b"a new key of kita".ljust(32, b"."))


@pytest.fixture
async def house(tmp_path: Path, database: str) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker", database=database) as one:
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
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def life(node: NodeSim, contract: Contract) -> dict[str, Any]:
    answer = await node.get(f"/contracts/{contract.digest}/lifecycle")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def rows(house: House) -> list[Any]:
    with house.services.store.read() as session:
        return list(session.execute(select(contract_notice).order_by(contract_notice.c.at_ms)))


# --- halt and resume ---


async def test_one_notice_halts_and_its_entry_is_the_partys_own_envelope(house, nodes, contract):
    kita = nodes["kita"]
    answer = await say(kita, contract, "halt", clause="fields-1", text="a camera saw a face")
    assert answer.status_code == 200, answer.text
    view = answer.json()
    assert view["standing"] == "HALTED"
    (entry,) = house.entries(EntryType.CONTRACT_HALTED)
    assert entry.actor == alias(kita.alias_key, contract.digest, None, None)
    assert entry.env is not None
    assert dict(entry.pub) == {
        "contract": contract.digest,
        "clause": "fields-1",
        "reason": "cell.incident",
        "notice": view["halts"][0],
    }
    assert b"a camera saw a face" not in entry.body  # free text could never be erased
    (receipt,) = view["receipts"]
    assert json.loads(receipt["entry"])["type"] == "contract.halted"
    state = house.services.contracts.state(contract)
    assert (state.halted, state.exited_parties, state.standing) == (True, (), "in-force")
    with pytest.raises(HaltedError):
        house.services.runs.recipe_of(contract, "pick")


async def test_every_party_reads_the_notice_and_verifies_it(house, nodes, contract):
    await say(nodes["kita"], contract, "halt", text="a camera saw a face")
    view = await life(nodes["nord"], contract)
    (shown,) = view["notices"]
    assert (shown["party"], shown["kind"], shown["seq"], shown["text"]) == (
        "kita",
        "halt",
        1,
        "a camera saw a face",
    )
    hexed = shown["digest"].removeprefix("sha256:")
    answer = await nodes["nord"].get(f"/contracts/{contract.digest}/notices/{hexed}")
    notice = open_notice(Envelope.from_bytes(answer.content), contract)
    assert notice.digest == shown["digest"]
    unknown = await nodes["nord"].get(f"/contracts/{contract.digest}/notices/{'0' * 64}")
    assert unknown.status_code == 404


async def test_a_halt_ends_with_the_last_contributors_resume(house, nodes, contract):
    halt = (await say(nodes["kita"], contract, "halt")).json()["halts"][0]
    for number, node in enumerate(nodes.values(), 1):
        view = (await say(node, contract, "resume", refers=halt)).json()
        assert view["standing"] == ("ACTIVE" if number == len(nodes) else "HALTED")
    assert len(house.entries(EntryType.CONTRACT_RESUMED)) == len(nodes)
    assert house.services.contracts.state(contract).halted is False
    assert house.services.runs.recipe_of(contract, "pick").id == "pick"


async def test_the_brokers_own_halt_is_signed_by_it_and_names_the_operator(house, nodes, contract):
    body = {"code": "log.disputed", "clause": "audit-1", "text": None}
    answer = await house.alice.post(f"/operator/contracts/{contract.digest}/halt", body)
    assert answer.status_code == 201, answer.text
    view = answer.json()
    assert view["standing"] == "HALTED"
    (entry,) = house.entries(EntryType.CONTRACT_HALTED)
    assert (entry.actor, entry.env) == ("broker", None)
    (action,) = [
        one for one in house.entries(EntryType.CONSOLE_ACTION) if one.pub["action"] == "contract.halt"
    ]
    assert (action.pub["operator"], action.pub["subject"]) == ("alice", contract.digest)
    signed = await nodes["kita"].get(f"/contracts/{contract.digest}/notices/{view['halts'][0]}")
    assert open_notice(Envelope.from_bytes(signed.content), contract).party == "broker"
    halt = view["halts"][0]
    for node in nodes.values():
        view = (await say(node, contract, "resume", refers=halt)).json()
    assert view["standing"] == "ACTIVE"
    shown = await house.alice.get(f"/contracts/{contract.digest}/lifecycle")
    assert "standing  ACTIVE" in _shown(shown.json())[1]


async def test_a_broker_that_the_clause_leaves_out_cannot_halt(house, nodes):
    halt = {
        "clause": "halt-1",
        "enforced_by": ["broker", "gate", "node"],
        "who": ["any-contributor"],
        "effect": "no-new-round-no-release",
        "resume": "all-contributors",
    }
    contract = await final_contract(house, list(nodes.values()), halt=halt)
    body = {"code": "log.disputed", "clause": None, "text": None}
    answer = await house.alice.post(f"/operator/contracts/{contract.digest}/halt", body)
    assert code(answer) == (403, "contract.notice-entitlement")
    assert answer.json()["clause"] == "halt-1"
    assert rows(house) == []
    assert house.entries(EntryType.CONTRACT_HALTED) == []


async def test_the_same_request_again_gets_the_same_answer_and_no_second_entry(house, nodes, contract):
    kita = nodes["kita"]
    body = posted(kita, contract, said(house, contract, "halt", "kita"))
    path = f"/contracts/{contract.digest}/notices"
    first = await kita.post(path, body, idempotency_key="once")
    again = await kita.post(path, body, idempotency_key="once")
    other = await kita.post(path, body, idempotency_key="twice")
    assert first.status_code == again.status_code == other.status_code == 200
    assert first.json()["halts"] == again.json()["halts"] == other.json()["halts"]
    assert len(house.entries(EntryType.CONTRACT_HALTED)) == len(rows(house)) == 1


# --- exit ---


async def test_an_exit_is_decided_logged_and_ends_the_influence_at_once(house, nodes, contract):
    answer = await say(nodes["kita"], contract, "exit", choice="retrain")
    assert answer.status_code == 200, answer.text
    assert answer.json()["exited"] == {"kita": {"at": iso_s(house.clock.ms), "choice": "retrain"}}
    kinds = house.kinds()
    decided, left = kinds.index("decision.recorded"), kinds.index("contract.exited")
    assert left == decided + 1
    (decision,) = house.entries(EntryType.DECISION_RECORDED)
    assert (decision.pub["point"], decision.pub["outcome"]) == ("broker", "allow")
    assert house.services.contracts.state(contract).exited_parties == ("kita",)
    assert {one.party for one in house.services.contracts.seats(contract)} == {"nord", "iber", "hanbit"}
    assert (await life(nodes["kita"], contract))["standing"] == "ACTIVE"  # the leaver still reads


async def test_an_exit_below_k_terminates_the_contract_and_names_the_clause(house, nodes, contract):
    await say(nodes["kita"], contract, "exit", choice="retrain")
    answer = await say(nodes["nord"], contract, "exit", choice="retrain")
    view = answer.json()
    assert view["standing"] == "TERMINATED"
    assert view["terminated"] == {"code": "exit.too-few-groups", "clause": "k-1"}
    (entry,) = house.entries(EntryType.CONTRACT_TERMINATED)
    assert (entry.actor, entry.pub["clause"]) == ("broker", "k-1")
    assert house.entries()[entry.refs[0]].type is EntryType.CONTRACT_EXITED
    assert house.services.contracts.state(contract).standing == "terminated"


async def test_a_choice_that_the_contract_does_not_offer_is_void_and_on_record(house, nodes, contract):
    answer = await say(nodes["kita"], contract, "exit", choice="discard")
    assert code(answer) == (403, "contract.refused")
    assert answer.json()["clause"] == "exit-1"
    assert answer.json()["receipts"]  # its number is used, and so is its envelope's
    assert house.services.contracts.state(contract).exited_parties == ()
    (decision,) = house.entries(EntryType.DECISION_RECORDED)
    assert decision.pub["clauses"] == ["exit-1"]
    assert (await say(nodes["kita"], contract, "exit", choice="retrain")).status_code == 200


async def test_a_notice_after_the_end_is_void_and_the_numbers_go_on(house, nodes, contract):
    for name in ("kita", "nord"):
        await say(nodes[name], contract, "exit", choice="retrain")
    answer = await say(nodes["iber"], contract, "halt")
    assert code(answer) == (409, "contract.notice-void")
    assert len(house.entries(EntryType.CONTRACT_HALTED)) == 1
    assert house.services.contracts.state(contract).halted is False
    answer = await say(nodes["iber"], contract, "attest", subject="use:inspection;country:ES")
    assert answer.status_code == 200, answer.text


# --- attestation, admission ---


async def test_an_attestation_is_kept_without_an_entry_and_the_latest_counts(house, nodes, contract):
    before = len(house.entries())
    for country in ("ES", "PT"):
        answer = await say(nodes["iber"], contract, "attest", subject=f"use:inspection;country:{country}")
        assert answer.status_code == 200, answer.text
    found = house.services.contracts.life(contract).attested.get("iber")
    assert (found.use, found.country) == ("inspection", "PT")
    assert house.services.contracts.life(contract).attested.get("kita") is None
    assert len(house.entries()) == before
    view = await life(nodes["iber"], contract)
    assert [one["seq"] for one in view["notices"]] == [1, 2]


async def test_notices_without_entries_do_not_shift_the_others(house, nodes, contract):
    await say(nodes["kita"], contract, "attest", subject="use:inspection;country:JP")
    await say(nodes["kita"], contract, "halt")
    await say(nodes["kita"], contract, "admit", subject="org_abcdefghijklmnop")
    kept = house.services.contracts.life(contract)
    assert kept.seqs == {"kita": 3}
    assert len(kept.halts) == 1
    assert kept.admitted == {"org_abcdefghijklmnop": ("kita",)}


# --- keys ---


async def test_a_rotated_key_signs_requests_and_envelopes_from_then_on(house, nodes, contract):
    kita = nodes["kita"]
    old = kita.key
    answer = await rotate(kita, contract, FRESH)
    assert answer.status_code == 200, answer.text
    assert answer.json()["rotated"] == {"kita": key_text(FRESH.public)}
    (entry,) = house.entries(EntryType.KEY_ROTATED)
    assert entry.pub["role"] == "node"
    with house.services.store.read() as session:
        stored = session.scalar(select(organisation.c.node_key).where(organisation.c.org_id == kita.org))
    assert stored == key_text(FRESH.public)
    assert house.services.contracts.state(contract).rotated_keys == {"kita": key_text(FRESH.public)}
    assert house.fleet.enrolled[kita.node][1] == FRESH.public
    halt = await say(kita, contract, "halt")  # request, notice and envelope by the new key, in the same chain
    assert halt.status_code == 200, halt.text
    kita.key = old
    refused = await kita.get("/contracts")
    assert refused.status_code == 401


async def test_the_others_give_a_lost_key_a_successor(house, nodes, contract):
    notice = said(house, contract, "rotate", "kita", subject=key_text(FRESH.public))
    others = [nodes[name].key for name in ("nord", "iber", "hanbit")]
    body = {"notice": seal_notice(notice, FRESH, *others).to_json(), "envelope": None}
    short = body | {"notice": seal_notice(notice, FRESH, *others[:-1]).to_json()}
    path = f"/contracts/{contract.digest}/notices"
    assert code(await nodes["nord"].post(path, short)) == (401, "identity.signature-invalid")
    answer = await nodes["nord"].post(path, body)
    assert answer.status_code == 200, answer.text
    (entry,) = house.entries(EntryType.KEY_ROTATED)
    assert (entry.actor, entry.env) == ("broker", None)
    nodes["kita"].key = FRESH
    assert (await life(nodes["kita"], contract))["rotated"] == {"kita": key_text(FRESH.public)}


async def test_a_key_of_another_member_is_refused_and_nothing_is_kept(house, nodes, contract):
    outsider = await house.member("sued")
    notice = said(house, contract, "rotate", "kita", subject=key_text(outsider.key.public))
    body = posted(nodes["kita"], contract, notice, nodes["kita"].key, outsider.key)
    answer = await nodes["kita"].post(f"/contracts/{contract.digest}/notices", body)
    assert answer.status_code == 409
    assert rows(house) == []
    assert house.entries(EntryType.KEY_ROTATED) == []


async def test_a_key_is_the_organisations_in_its_other_contracts_too(house, nodes, contract):
    term = {"clause": "term-1", "effective": "2027-02-01T00:00:00Z", "expires": "2028-02-01T00:00:00Z"}
    other = {"contract_id": "ctr_aaaaaaaaaaaaaaaa", "sign_by": "2027-01-30T00:00:00Z", "term": term}
    second = await final_contract(house, list(nodes.values()), **other)
    kita = nodes["kita"]
    old = kita.key
    assert (await rotate(kita, contract, FRESH)).status_code == 200
    assert (await life(kita, second))["rotated"] == {}  # still a party, and the evaluator knows the old key
    notice = said(house, second, "rotate", "kita", subject=key_text(FRESH.public))
    body = posted(kita, second, notice, old, FRESH)
    answer = await kita.post(f"/contracts/{second.digest}/notices", body)
    assert answer.status_code == 200, answer.text
    assert house.services.contracts.state(second).rotated_keys == {"kita": key_text(FRESH.public)}


# --- the end of the term ---


async def test_the_contract_expires_at_its_exact_second_and_the_first_who_asks_has_it_logged(
    house, nodes, contract
):
    house.clock.ms = to_ms(contract.term.expires) - 1
    assert (await life(nodes["kita"], contract))["standing"] == "ACTIVE"
    assert house.entries(EntryType.CONTRACT_EXPIRED) == []
    house.clock.ms += 1
    view = await life(nodes["kita"], contract)
    assert (view["standing"], view["since"]) == ("EXPIRED", contract.term.expires)
    await life(nodes["nord"], contract)
    (entry,) = house.entries(EntryType.CONTRACT_EXPIRED)
    assert dict(entry.pub) == {"contract": contract.digest, "clause": "term-1", "reason": "term.over"}


async def test_a_term_that_ended_while_nobody_served_is_logged_at_the_start(tmp_path):
    folder = tmp_path / "broker"
    async with open_house(folder) as house:
        contract = await final_contract(house, await pool(house))
        clock = house.clock
    clock.ms = to_ms(contract.term.expires)
    async with open_house(folder, clock=clock) as house:
        assert len(house.entries(EntryType.CONTRACT_EXPIRED)) == 1


# --- lives survive the process ---


async def test_a_restarted_broker_reads_the_same_life(tmp_path):
    folder = tmp_path / "broker"
    async with open_house(folder) as house:
        nodes = {one.name: one for one in await pool(house, *FOUR)}
        contract = await final_contract(house, list(nodes.values()))
        clock = house.clock
        await say(nodes["kita"], contract, "attest", subject="use:inspection;country:JP")
        await rotate(nodes["kita"], contract, FRESH)
        await say(nodes["nord"], contract, "halt")
        await say(nodes["iber"], contract, "exit", choice="retrain")
        before = house.services.contracts.life(contract)
    async with open_house(folder, clock=clock) as house:
        assert house.services.contracts.life(contract) == before
        assert len(before.halts) == 1
        assert set(before.exited) == {"iber"}


async def test_rows_keep_the_order_in_which_notices_were_taken(house, nodes, contract):
    for name in ("kita", "nord", "iber"):
        await say(nodes[name], contract, "halt")  # the clock of the house stands still
    found = rows(house)
    assert [one.party for one in found] == ["kita", "nord", "iber"]
    assert len({one.at_ms for one in found}) == 3
    assert [read_notice(Envelope.from_bytes(one.bytes).payload).digest for one in found] == [
        one.digest for one in found
    ]


# --- and the auditor agrees ---


def audited(house: House, tmp_path: Path) -> list[str]:
    """Errors of the auditor's own program."""
    path = tmp_path / "bundle.zip"
    services = house.services
    export(
        services.store,
        services.writer,
        path,
        policy=services.policy,
        software="0.1.0",
        contracts=services.contracts.documents(),
    )
    report = verify(path.read_bytes(), parse_policy(services.policy))
    return [str(one) for one in report.findings if one.severity == "error"]


async def test_an_audit_of_a_whole_life_finds_nothing(house, nodes, contract, tmp_path):
    await say(nodes["kita"], contract, "attest", subject="use:inspection;country:JP")
    halt = (await say(nodes["kita"], contract, "halt", text="a camera saw a face")).json()["halts"][0]
    for node in nodes.values():
        await say(node, contract, "resume", refers=halt)
    assert (await rotate(nodes["kita"], contract, FRESH)).status_code == 200
    body = {"code": "log.disputed", "clause": None, "text": None}
    await house.alice.post(f"/operator/contracts/{contract.digest}/halt", body)
    assert code(await say(nodes["kita"], contract, "resume", refers=halt)) == (409, "contract.notice-void")
    assert code(await say(nodes["nord"], contract, "exit", choice="discard")) == (403, "contract.refused")
    for name in ("nord", "iber"):
        assert (await say(nodes[name], contract, "exit", choice="retrain")).status_code == 200
    assert (await life(nodes["kita"], contract))["standing"] == "TERMINATED"
    assert audited(house, tmp_path) == []


async def test_an_audit_takes_a_rotation_by_all_the_others(house, nodes, contract, tmp_path):
    notice = said(house, contract, "rotate", "kita", subject=key_text(FRESH.public))
    others = [nodes[name].key for name in ("nord", "iber", "hanbit")]
    body = {"notice": seal_notice(notice, FRESH, *others).to_json(), "envelope": None}
    assert (await nodes["nord"].post(f"/contracts/{contract.digest}/notices", body)).status_code == 200
    nodes["kita"].key = FRESH
    assert (await say(nodes["kita"], contract, "halt")).status_code == 200
    assert audited(house, tmp_path) == []
