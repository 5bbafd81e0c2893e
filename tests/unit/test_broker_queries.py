# SPDX-License-Identifier: Apache-2.0
"""Views that members read, judged by the contract's clause of queries; and decisions as their parties read them."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from broker.store.tables import round_, run
from policies.contract import replay, request_to_json
from policies.contract.notices import Notice, seal_notice
from policies.encoding import digest
from policies.log.entries import EntryType
from policies.ports import iso_s
from tests.brokersim import House, NodeSim, draft, final_contract, open_house, pool
from tests.contractsim import train_round

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract

IN_TERM_MS = 1_796_500_000_000  # 2026-12-05
HOUR_MS = 3_600_000
MODEL = digest(b"a round's model")
ALL_VIEWS = ["own-budget", "own-receipts", "run-status"]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def queries(*views: str, min_groups: int = 3) -> dict[str, Any]:
    return {"clause": "query-1", "allow": list(views), "min_groups": min_groups}


async def opened(house: House, **changes: Any) -> tuple[list[NodeSim], Contract, str]:
    """A run under a contract with these sections."""
    nodes = await pool(house)
    contract = await final_contract(house, nodes, **changes)
    house.clock.ms = IN_TERM_MS
    answer = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    assert answer.status_code == 201, answer.text
    return nodes, contract, answer.json()["run"]


async def settled(house: House, run_id: str, *at_ms: int) -> None:
    """Rounds that came to a model at these times."""

    def work(session, _tx):
        for number, at in enumerate(at_ms, start=1):
            session.execute(
                insert(round_).values(
                    run_id=run_id,
                    round=number,
                    attempt=1,
                    base=MODEL,
                    model=MODEL,
                    accepted=3,
                    refused=0,
                    verdicts=json.dumps(dict.fromkeys(("kita", "nord", "iber"), "accepted")),
                    at_ms=at,
                )
            )
        session.execute(run.update().values(round=len(at_ms), steps=len(at_ms), model_digest=MODEL))

    await house.services.writer.run(work)


def asked(house: House) -> list[Any]:
    """Decisions of the broker on record."""
    return [one for one in house.entries(EntryType.DECISION_RECORDED) if one.pub["point"] == "broker"]


def delayed(house: House, nodes: list[NodeSim], hours: int) -> dict[str, Any]:
    tree = draft(house, nodes).document
    return tree["aggregation"] | {"delay_hours": hours}


# --- run status ---


async def test_a_contract_without_the_clause_asks_nothing(house):
    (kita, *_), _, run_id = await opened(house)
    assert (await kita.get(f"/runs/{run_id}")).json()["state"] == "running"
    assert len((await kita.get("/runs")).json()["runs"]) == 1
    assert asked(house) == []


async def test_an_allowed_view_is_answered_and_its_first_decision_logged_once(house):
    (kita, nord, _), contract, run_id = await opened(house, queries=queries(*ALL_VIEWS))
    for _ in range(3):
        assert (await kita.get(f"/runs/{run_id}")).json()["state"] == "running"
        assert (await kita.get("/runs")).json()["runs"][0]["run"] == run_id
    (entry,) = asked(house)
    assert (entry.pub["outcome"], entry.run, entry.scope) == ("allow", run_id, contract.digest)
    await nord.get(f"/runs/{run_id}")
    assert len(asked(house)) == 2


async def test_a_view_that_is_not_listed_is_refused_by_the_clause(house):
    (kita, *_), _, run_id = await opened(house, queries=queries("own-receipts"))
    for _ in range(2):
        refused = await kita.get(f"/runs/{run_id}")
        assert (refused.status_code, refused.json()["code"]) == (403, "contract.refused")
        assert refused.json()["clause"] == "query-1"
        listed = (await kita.get("/runs")).json()
        assert listed["runs"] == []
        assert [(one["run"], one["clause"]) for one in listed["refused"]] == [(run_id, "query-1")]
    assert [one.pub["clauses"] for one in asked(house)] == [["query-1"]]


async def test_who_may_know_its_own_budget_is_told_whether_the_run_holds_it_and_no_count(house):
    (kita, *_), _, run_id = await opened(house, queries=queries("own-budget"))
    await settled(house, run_id, IN_TERM_MS)
    shown = (await kita.get(f"/runs/{run_id}")).json()
    assert (shown["state"], shown["budget_only"]) == ("running", True)
    assert not {"round", "steps", "rounds", "model", "ended"} & set(shown)


async def test_operators_of_the_broker_see_the_whole_run(house):
    _, _, run_id = await opened(house, queries=queries("own-receipts"))
    await settled(house, run_id, IN_TERM_MS)
    assert len((await house.alice.get(f"/operator/runs/{run_id}")).json()["rounds"]) == 1
    assert asked(house) == []


async def leaves(node: NodeSim, contract: Contract) -> None:
    """The notice of exit of a party."""
    said = Notice(
        kind="exit",
        contract=contract.digest,
        party=node.name,
        seq=1,
        at=iso_s(node.house.clock.ms),
        code="new-strategy",
        choice="retrain",
    )
    body = {"contract": contract.digest, "clause": None, "reason": said.code, "notice": said.digest}
    envelope = node.seal(EntryType.CONTRACT_EXITED, body, scope=contract.digest)
    sent = {"notice": seal_notice(said, node.key).to_json(), "envelope": envelope.to_json()}
    answer = await node.post(f"/contracts/{contract.digest}/notices", sent)
    assert answer.status_code == 200, answer.text


async def test_too_few_groups_behind_a_status_are_refused_by_the_clause(house):
    nodes = await pool(house, "kita", "nord", "iber", "hanbit")
    contract = await final_contract(house, nodes, queries=queries("run-status", min_groups=4))
    house.clock.ms = IN_TERM_MS
    body = {"contract": contract.digest, "recipe": "pick"}
    run_id = (await house.alice.post("/operator/runs", body)).json()["run"]
    assert (await nodes[0].get(f"/runs/{run_id}")).status_code == 200
    await leaves(nodes[3], contract)
    refused = (await nodes[0].get(f"/runs/{run_id}")).json()
    assert (refused["clause"], refused["need"].split()[0]) == ("query-1", "min-groups")
    gone = (await nodes[3].get(f"/runs/{run_id}")).json()
    assert gone["clause"] in {"party-hanbit", "query-1"}
    assert [one.pub["outcome"] for one in asked(house) if one.run == run_id] == ["allow", "refuse", "refuse"]


async def test_rounds_within_the_delay_are_not_shown_and_later_they_are(house):
    nodes = await pool(house)
    aggregation = delayed(house, nodes, 24)
    contract = await final_contract(house, nodes, queries=queries(*ALL_VIEWS), aggregation=aggregation)
    house.clock.ms = IN_TERM_MS
    body = {"contract": contract.digest, "recipe": "pick"}
    run_id = (await house.alice.post("/operator/runs", body)).json()["run"]
    await settled(house, run_id, IN_TERM_MS + 1_000, IN_TERM_MS + 20 * HOUR_MS)
    house.clock.ms = IN_TERM_MS + 21 * HOUR_MS
    early = (await nodes[0].get(f"/runs/{run_id}")).json()
    assert early["budget_only"] is True  # the run was opened less than a day ago
    house.clock.ms = IN_TERM_MS + 25 * HOUR_MS
    shown = (await nodes[0].get(f"/runs/{run_id}")).json()
    assert ([one["round"] for one in shown["rounds"]], shown["round"], shown["steps"]) == ([1], 1, 1)
    house.clock.ms = IN_TERM_MS + 45 * HOUR_MS
    shown = (await nodes[0].get(f"/runs/{run_id}")).json()
    assert ([one["round"] for one in shown["rounds"]], shown["round"]) == ([1, 2], 2)


async def test_views_end_with_the_term(house):
    (kita, *_), _, run_id = await opened(house, queries=queries(*ALL_VIEWS))
    house.clock.ms += 3 * 365 * 24 * HOUR_MS
    refused = await kita.get(f"/runs/{run_id}")
    assert (refused.json()["code"], refused.json()["clause"]) == ("contract.expired", "term-1")


async def test_a_receipt_of_an_own_entry_in_a_run_is_a_view(house):
    (kita, *_), contract, run_id = await opened(house, queries=queries("run-status"))
    body = {"subject": MODEL, "vote": "approve", "clause": None}
    event = kita.seal(EntryType.VOTE_CAST, body, scope=contract.digest, run=run_id)

    def work(_session, tx):
        from policies.log.entries import alias, from_envelope
        from policies.log.envelope import open_envelope

        payload = open_envelope(event, kita.key.public)
        tx.add(from_envelope(event, payload, actor=alias(kita.alias_key, contract.digest, run_id, None)))

    await house.services.writer.run(work)
    name = digest(event.payload).removeprefix("sha256:")[:32]
    refused = await kita.get(f"/receipts/{name}")
    assert (refused.status_code, refused.json()["clause"]) == (403, "query-1")
    signed = next(one for one in house.entries(EntryType.CONTRACT_SIGNED))
    answers = [await node.get(f"/receipts/{signed.id.hex()}") for node in (kita,)]
    assert {one.status_code for one in answers} <= {200, 404}  # a signature is no view of the pool


async def test_a_frozen_log_still_answers_what_the_contract_allows(house):
    (kita, nord, _), _, run_id = await opened(house, queries=queries("run-status"))
    from broker.log.errors import LogFrozenError

    async def frozen(_work):
        raise LogFrozenError(need="an open log", found="a frozen one", remedy="repair it")

    house.services.writer.run = frozen
    assert (await kita.get(f"/runs/{run_id}")).status_code == 200
    assert (await nord.get(f"/runs/{run_id}")).status_code == 200
    assert asked(house) == []


# --- decisions ---


async def test_a_party_reads_the_decisions_about_itself_and_an_operator_all(house):
    (kita, nord, _), contract, run_id = await opened(house, queries=queries(*ALL_VIEWS))
    await kita.get(f"/runs/{run_id}")
    await nord.get(f"/runs/{run_id}")
    path = f"/contracts/{contract.digest}/decisions"
    (own,) = (await kita.get(path)).json()["decisions"]
    assert (own["party"], own["type"], own["outcome"], own["run"]) == ("kita", "Query", "allow", run_id)
    assert len((await house.alice.get(path)).json()["decisions"]) == 2
    after = (await kita.get(f"{path}?after={own['index']}")).json()
    assert (after["decisions"], after["next"]) == ([], None)


async def test_a_decision_can_be_taken_again_from_what_its_party_reads(house):
    (kita, nord, _), contract, run_id = await opened(house, queries=queries(*ALL_VIEWS))
    await kita.get(f"/runs/{run_id}")
    path = f"/contracts/{contract.digest}/decisions"
    (line,) = (await kita.get(path)).json()["decisions"]
    for name in (line["decision"], line["decision"].removeprefix("sha256:")):
        one = (await kita.get(f"{path}/{name}")).json()
        again = replay(
            contract,
            point=one["point"],
            request=one["request"],
            state=one["state"],
            salt16=bytes.fromhex(one["salt"]),
        )
        assert digest(again) == line["decision"]
        assert one["record"]["allow"] is True
    other = await nord.get(f"{path}/{line['decision']}")
    assert (other.status_code, other.json()["code"]) == (404, "request.not-found")
    assert (await kita.get(f"{path}/{MODEL}")).status_code == 404


async def test_who_is_no_party_finds_no_decision_and_no_enforcement(house):
    _, contract, _ = await opened(house)
    stranger = await house.member("solo")
    for path in ("decisions", f"decisions/{MODEL}", "enforcement"):
        assert (await stranger.get(f"/contracts/{contract.digest}/{path}")).status_code == 404
    question = {"request": request_to_json(train_round())}
    assert (await stranger.post(f"/contracts/{contract.digest}/evaluate", question)).status_code == 404


async def test_a_hypothetical_request_is_judged_and_leaves_no_trace(house):
    (kita, *_), contract, _ = await opened(house)
    before = house.kinds()
    request = request_to_json(train_round("kita"))
    answer = await kita.post(f"/contracts/{contract.digest}/evaluate", {"request": request})
    said = answer.json()
    assert (answer.status_code, said["allow"]) == (200, False)  # its recipe is not one of this contract
    assert {"clause", "check", "outcome", "need", "found", "remedy"} == set(said["findings"][0])
    assert said["state"]["executed"] is True
    assert house.kinds() == before


async def test_a_hypothetical_request_of_no_known_form_is_refused(house):
    (kita, *_), contract, _ = await opened(house)
    for request in ({"type": "Steal"}, request_to_json(train_round()) | {"more": 1}):
        refused = await kita.post(f"/contracts/{contract.digest}/evaluate", {"request": request})
        assert refused.json()["code"] == "contract.request-malformed"


async def test_the_same_signed_question_is_not_answered_twice(house):
    (kita, *_), contract, _ = await opened(house)
    from policies.encoding import canonical

    body = canonical({"request": request_to_json(train_round())})
    signed = kita.signed("POST", f"/contracts/{contract.digest}/evaluate", body)
    assert (await house.http.send(signed)).status_code == 200
    assert (await house.http.send(signed)).json()["code"] == "identity.replayed"


async def test_the_enforcement_of_each_clause_is_shown(house):
    (kita, *_), contract, _ = await opened(house)
    shown = (await kita.get(f"/contracts/{contract.digest}/enforcement")).json()["clauses"]
    by_id = {one["clause"]: one for one in shown}
    assert set(by_id) == {one.clause for one in contract.clauses()}
    assert by_id["k-1"]["label"] == "enforced"
    assert (by_id["law-1"]["label"], by_id["law-1"]["points"]) == ("law only", [])


async def test_a_run_may_not_begin_under_a_halt(house):
    (kita, *_), contract, _ = await opened(house)
    halted = await house.alice.post(
        f"/operator/contracts/{contract.digest}/halt",
        {"code": "incident.open", "clause": None, "text": None},
    )
    assert halted.status_code == 201, halted.text
    refused = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    assert (refused.json()["code"], refused.json()["clause"]) == ("contract.halted", "halt-1")
    (shown,) = (await kita.get("/runs")).json()["runs"]
    assert shown["state"] == "suspended"
