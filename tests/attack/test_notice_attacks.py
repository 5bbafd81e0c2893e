# SPDX-License-Identifier: Apache-2.0
"""Who tries to stop, to start again, to leave for others, or to be heard twice; and a broker that dies in between."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from broker.store.tables import contract_notice
from policies.contract.errors import ExpiredError, HaltedError
from policies.contract.notices import seal_notice
from policies.identity import SigningKey
from policies.log.entries import EntryType
from policies.ports import to_ms
from tests.brokersim import House, NodeSim, final_contract, open_house, pool, statements
from tests.noticespeech import posted, rotate, said, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from policies.contract import Contract

FOUR = ("kita", "nord", "iber", "hanbit")
DATABASES = ("broker.db", "private.db", "signer.db")


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


def kept(house: House) -> list[Any]:
    with house.services.store.read() as session:
        return list(session.execute(select(contract_notice)))


async def send(node: NodeSim, contract: Contract, body: dict[str, Any]) -> Any:
    return await node.post(f"/contracts/{contract.digest}/notices", body)


# --- strangers ---


async def test_for_an_outsider_a_contract_and_its_notices_do_not_exist(house, nodes, contract):
    outsider = await house.member("sued")
    await say(nodes["kita"], contract, "halt")
    body = posted(nodes["kita"], contract, said(house, contract, "halt", "kita"))
    unknown = "sha256:" + "0" * 64
    shown = []
    for digest in (contract.digest, unknown):
        answers = [
            await outsider.post(f"/contracts/{digest}/notices", body),
            await outsider.get(f"/contracts/{digest}/lifecycle"),
            await outsider.get(f"/contracts/{digest}/notices/{'1' * 64}"),
        ]
        assert [code(one) for one in answers] == [(404, "request.not-found")] * 3
        shown.append([one.text.replace(digest, "") for one in answers])
    assert shown[0] == shown[1]  # "none" and "not yours" look the same
    assert len(kept(house)) == 1


async def test_a_node_cannot_halt_as_the_broker_and_an_operator_not_as_a_party(house, nodes, contract):
    body = {"code": "x", "clause": None, "text": None}
    answer = await nodes["kita"].post(f"/operator/contracts/{contract.digest}/halt", body)
    assert answer.status_code == 403
    notice = posted(nodes["kita"], contract, said(house, contract, "halt", "kita"))
    answer = await house.alice.post(f"/contracts/{contract.digest}/notices", notice)
    assert answer.status_code == 403
    assert kept(house) == []


# --- somebody else's word ---


async def test_a_notice_in_another_partys_name_is_refused_whoever_signs_it(house, nodes, contract):
    kita, nord = nodes["kita"], nodes["nord"]
    as_nord = said(house, contract, "halt", "nord")
    for keys in ((kita.key,), (nord.key,)):
        answer = await send(kita, contract, posted(kita, contract, as_nord, *keys))
        assert code(answer) == (403, "contract.notice-entitlement")
    own = said(house, contract, "halt", "kita")
    answer = await send(kita, contract, posted(kita, contract, own, nord.key))
    assert code(answer) == (401, "identity.signature-invalid")
    assert kept(house) == []
    assert house.entries(EntryType.CONTRACT_HALTED) == []


async def test_a_log_envelope_that_says_something_else_than_the_notice_is_refused(house, nodes, contract):
    kita = nodes["kita"]
    mild, harsh = (said(house, contract, "halt", "kita", code=one) for one in ("mild.thing", "harsh.thing"))
    body = posted(kita, contract, mild)
    swapped = body | {"notice": seal_notice(harsh, kita.key).to_json()}
    assert code(await send(kita, contract, swapped)) == (422, "log.envelope-invalid")
    assert code(await send(kita, contract, body | {"envelope": None})) == (422, "contract.notice-malformed")
    attest = said(house, contract, "attest", "kita", subject="use:inspection;country:JP")
    extra = posted(kita, contract, attest) | {"envelope": body["envelope"]}
    assert code(await send(kita, contract, extra)) == (422, "contract.notice-malformed")
    assert kept(house) == []


async def test_a_resume_by_too_few_or_by_one_many_times_leaves_the_halt_in_force(house, nodes, contract):
    halt = (await say(nodes["kita"], contract, "halt")).json()["halts"][0]
    for name in ("kita", "nord", "iber"):
        assert (await say(nodes[name], contract, "resume", refers=halt)).status_code == 200
    for _ in range(3):
        answer = await say(nodes["iber"], contract, "resume", refers=halt)
        assert code(answer) == (409, "contract.notice-void")
    assert house.services.contracts.state(contract).halted is True
    with pytest.raises(HaltedError):
        house.services.runs.recipe_of(contract, "pick")


async def test_a_resume_of_another_halt_or_another_contract_lifts_nothing(house, nodes, contract):
    term = {"clause": "term-1", "effective": "2027-02-01T00:00:00Z", "expires": "2028-02-01T00:00:00Z"}
    other = {"contract_id": "ctr_aaaaaaaaaaaaaaaa", "sign_by": "2027-01-30T00:00:00Z", "term": term}
    second = await final_contract(house, list(nodes.values()), **other)
    house.clock.ms = to_ms("2027-02-01T00:00:00Z")
    halt = (await say(nodes["kita"], contract, "halt")).json()["halts"][0]
    for node in nodes.values():
        answer = await say(node, second, "resume", refers=halt)
        assert code(answer) == (409, "contract.notice-void")
        body = posted(node, second, said(house, second, "resume", node.name, refers=halt, seq=2))
        moved = await node.post(f"/contracts/{contract.digest}/notices", body)
        assert code(moved) == (422, "contract.notice-malformed")
    assert house.services.contracts.state(contract).halted is True


# --- copies and gaps ---


async def test_a_replayed_resume_does_not_lift_a_later_halt(house, nodes, contract):
    first = (await say(nodes["kita"], contract, "halt")).json()["halts"][0]
    bodies = {}
    for name, node in nodes.items():
        bodies[name] = posted(node, contract, said(house, contract, "resume", name, refers=first))
        assert (await send(node, contract, bodies[name])).status_code == 200
    second = (await say(nodes["nord"], contract, "halt")).json()["halts"]
    assert len(second) == 1
    before = len(house.entries())
    for name, node in nodes.items():
        answer = await send(node, contract, bodies[name])  # the same bytes, as a new request
        assert answer.status_code == 200
        assert answer.json()["halts"] == second
    assert len(house.entries()) == before
    assert house.services.contracts.state(contract).halted is True


@pytest.mark.parametrize("seq", [1, 3])
async def test_a_used_number_and_a_gap_are_refused_and_leave_nothing(house, nodes, contract, seq):
    kita = nodes["kita"]
    assert (await say(kita, contract, "halt")).status_code == 200
    chain = kita.chain
    other = said(house, contract, "halt", "kita", seq=seq, code="another.reason")
    answer = await send(kita, contract, posted(kita, contract, other))
    assert code(answer) == (409, "contract.notice-order")
    assert len(kept(house)) == len(house.entries(EntryType.CONTRACT_HALTED)) == 1
    kita.chain = chain  # what was refused has no entry: the same number goes to the right notice
    assert (await say(kita, contract, "attest", subject="use:inspection;country:JP")).status_code == 200
    answer = await say(kita, contract, "admit", subject="org_abcdefghijklmnop")
    assert answer.status_code == 200


async def test_a_notice_from_the_future_is_refused(house, nodes, contract):
    kita = nodes["kita"]
    late = said(house, contract, "halt", "kita", at="2028-01-01T00:00:00Z")
    answer = await send(kita, contract, posted(kita, contract, late))
    assert code(answer) == (422, "contract.notice-malformed")
    assert kept(house) == []


async def test_a_key_that_was_rotated_away_says_nothing_more(house, nodes, contract):
    kita, fresh = nodes["kita"], SigningKey.from_seed(b"a new key of kita".ljust(32, b"."))
    old = kita.key
    assert (await rotate(kita, contract, fresh)).status_code == 200
    late = said(house, contract, "halt", "kita")
    answer = await send(kita, contract, posted(kita, contract, late, old))
    assert code(answer) == (401, "identity.signature-invalid")
    kita.key = old
    assert code(await send(kita, contract, {"notice": {}, "envelope": None}))[0] == 401
    assert house.entries(EntryType.CONTRACT_HALTED) == []


async def test_a_rotation_to_a_key_that_its_owner_did_not_sign_with_is_refused(house, nodes, contract):
    kita, nord = nodes["kita"], nodes["nord"]
    stolen = said(house, contract, "rotate", "kita", subject=f"ed25519:{nord.key.public.hex()}")
    body = posted(kita, contract, stolen, kita.key)
    assert code(await send(kita, contract, body)) == (401, "identity.signature-invalid")
    assert kept(house) == []


# --- ends ---


async def test_an_exit_below_k_ends_the_contract_naming_k(house, nodes, contract):
    for name in ("kita", "nord"):
        answer = await say(nodes[name], contract, "exit", choice="retrain")
    assert answer.json()["terminated"] == {"code": "exit.too-few-groups", "clause": "k-1"}
    with pytest.raises(Exception, match=r"contract\.refused"):
        house.services.runs.recipe_of(contract, "pick")


async def test_nothing_is_opened_at_the_exact_second_of_the_end(house, nodes, contract):
    house.clock.ms = to_ms(contract.term.expires) - 1
    assert house.services.runs.recipe_of(contract, "pick").id == "pick"
    house.clock.ms += 1
    with pytest.raises(ExpiredError):
        house.services.runs.recipe_of(contract, "pick")


async def test_who_left_cannot_halt_resume_or_vouch_for_those_who_stay(house, nodes, contract):
    halt = (await say(nodes["nord"], contract, "halt")).json()["halts"][0]
    assert (await say(nodes["kita"], contract, "exit", choice="retrain")).status_code == 200
    for kind, terms in (
        ("halt", {}),
        ("resume", {"refers": halt}),
        ("admit", {"subject": "org_abcdefghijklmnop"}),
    ):
        answer = await say(nodes["kita"], contract, kind, **terms)
        assert code(answer) == (403, "contract.notice-entitlement")
    life = house.services.contracts.life(contract)
    assert (len(life.halts), life.resumed_by[halt], life.admitted) == (1, (), {})


# --- a broker that dies ---


def snapshot(folder: Path, to: Path) -> None:
    """The database files as a kill would leave them."""
    to.mkdir()
    for name in DATABASES:
        for suffix in ("", "-wal"):
            if (folder / (name + suffix)).exists():
                shutil.copyfile(folder / (name + suffix), to / (name + suffix))


def found(folder: Path) -> dict[str, int]:
    """What a restart finds of a second exit, which ends the contract."""
    with closing(sqlite3.connect(folder / "broker.db")) as database:
        counts = dict(
            database.execute(
                "SELECT type, count(*) FROM log_entry WHERE type IN"
                " ('contract.exited', 'contract.terminated', 'decision.recorded') GROUP BY type"
            ).fetchall()
        )
        notices = database.execute("SELECT count(*) FROM contract_notice").fetchone()[0]
    return {
        "row": notices,
        "exited": counts.get("contract.exited", 0),
        "decision": counts.get("decision.recorded", 0),
        "terminated": counts.get("contract.terminated", 0) + 1,
    }


async def test_killed_at_any_statement_a_notice_has_row_entries_and_effect_or_nothing(tmp_path):
    folder, copies = tmp_path / "broker", []
    async with open_house(folder) as house:
        nodes = {one.name: one for one in await pool(house, *FOUR)}
        contract = await final_contract(house, list(nodes.values()))
        house.clock.ms = to_ms(contract.term.effective)
        await say(nodes["kita"], contract, "exit", choice="retrain")
        shutil.copytree(folder, tmp_path / "keys")
        body = posted(nodes["nord"], contract, said(house, contract, "exit", "nord", choice="retrain"))

        def kill(_sql: str) -> None:
            copies.append(tmp_path / f"copy{len(copies):03}")
            snapshot(folder, copies[-1])

        with statements(house, kill):
            answer = await send(nodes["nord"], contract, body)
        assert answer.json()["standing"] == "TERMINATED"
        clock = house.clock
    ends = [found(one) for one in copies]
    assert all(len(set(one.values())) == 1 for one in ends), ends
    assert {one["row"] for one in ends} == {1, 2}
    for number in (0, len(copies) // 2, len(copies) - 1):  # and a restart goes on from there
        again = tmp_path / f"again{number}"
        shutil.copytree(tmp_path / "keys", again)
        for name in DATABASES:
            for suffix in ("", "-wal", "-shm"):
                (again / (name + suffix)).unlink(missing_ok=True)
                if (copies[number] / (name + suffix)).exists():
                    shutil.copyfile(copies[number] / (name + suffix), again / (name + suffix))
        async with open_house(again, clock=clock) as house:
            assert house.services.writer.frozen is None
            nord = NodeSim(house, "nord")
            nord.entropy.seed = f"again {number}".encode()
            answer = await send(nord, contract, body)
            assert answer.json()["standing"] == "TERMINATED", answer.text
            assert len(house.entries(EntryType.CONTRACT_TERMINATED)) == 1
            assert house.services.contracts.life(contract).terminated is not None
