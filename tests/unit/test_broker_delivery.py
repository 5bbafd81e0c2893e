# SPDX-License-Identifier: Apache-2.0
"""The release gate's doors: votes in, released models out, each download decided and logged."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select

from broker.contracts.decisions import judge
from broker.store.tables import candidate, decision, model, release, round_, run, statement, vote
from policies.contract import Deliver, TrainRound, parse, replay
from policies.contract.notices import Notice, seal_notice
from policies.encoding import digest
from policies.encoding import parse as parse_json
from policies.log.entries import EntryType, Event, alias
from policies.ports import iso_s, to_ms
from tests.brokersim import House, NodeSim, draft, final_contract, open_house, pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract

WEIGHTS = b"\x00\x00\x80?" * 1000
MODEL = digest(WEIGHTS)
IN_TERM_MS = 1_796_500_000_000  # 2026-12-05


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def with_candidate(house: House, **changes: Any) -> tuple[list[NodeSim], Contract, str]:
    """A run whose candidate waits; what the round runner would have stored. ``changes`` are the contract's."""
    return await with_candidate_of(house, await pool(house), **changes)


async def with_candidate_of(
    house: House, nodes: list[NodeSim], **changes: Any
) -> tuple[list[NodeSim], Contract, str]:
    contract = await final_contract(house, nodes, **changes)
    house.clock.ms = IN_TERM_MS
    opened = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    run_id = opened.json()["run"]
    path = house.services.settings.models / "candidate"
    path.write_bytes(WEIGHTS)

    def work(session, tx):
        pub = {"aggregate": MODEL, "model": MODEL, "attempt": 1, "count": 3, "transcript": None}
        tx.add(Event(type=EntryType.AGGREGATE_RELEASED, scope=contract.digest, run=run_id, round=3, pub=pub))
        session.execute(
            insert(model).values(digest=MODEL, run_id=run_id, round=3, kind="candidate", path=str(path))
        )
        session.execute(insert(candidate).values(digest=MODEL, run_id=run_id, state="waiting"))

    await house.services.writer.run(work)
    return nodes, contract, run_id


async def released(house: House, contract: Contract, *, logged: bool = True) -> None:
    """What the gate would have written, or only its row."""
    data = b'{"statement":1}'

    def work(session, tx):
        if logged:
            pub = {"model": MODEL, "tier": "consortium", "clause": "tier-1", "statement": digest(data)}
            tx.add(Event(type=EntryType.MODEL_RELEASED, scope=contract.digest, pub=pub))
        session.execute(insert(statement).values(digest=digest(data), bytes=data))
        session.execute(
            insert(release).values(
                model=MODEL,
                tier="consortium",
                contract=contract.digest,
                statement_digest=digest(data),
                at_ms=1,
            )
        )
        session.execute(candidate.update().values(state="released"))

    await house.services.writer.run(work)


def ballot(
    node: NodeSim, contract: Contract, run_id: str, verdict: str = "approve", clause: str | None = None
):
    body = {"subject": MODEL, "vote": verdict, "clause": clause}
    return {"envelope": node.seal(EntryType.VOTE_CAST, body, scope=contract.digest, run=run_id).to_json()}


async def test_an_opened_run_is_on_record_and_the_runner_is_told(house):
    told = []

    class Runner:
        def opened(self, run_id):
            told.append(run_id)

        def voted(self, name):
            told.append(name)

        async def stop(self):
            pass

    house.services.runner = Runner()
    nodes, contract, run_id = await with_candidate(house)
    (opened,) = house.entries(EntryType.RUN_OPENED)
    assert (opened.run, opened.scope) == (run_id, contract.digest)
    await nodes[0].post(f"/candidates/{MODEL}/votes", ballot(nodes[0], contract, run_id))
    assert told == [run_id, MODEL]
    shown = (await nodes[0].get(f"/runs/{run_id}")).json()
    assert (shown["state"], shown["recipe_id"], shown["rounds"]) == ("running", "pick", [])


async def test_a_run_of_an_unknown_recipe_is_refused(house):
    contract = await final_contract(house, await pool(house))
    house.clock.ms = IN_TERM_MS
    refused = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "weld"})
    assert code(refused) == (404, "run.recipe-unknown")


async def test_a_run_without_enough_groups_is_refused_by_the_clause(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    house.clock.ms = IN_TERM_MS
    await house.remove(nodes[0].org, reason="key-lost")
    refused = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    assert code(refused) == (403, "run.too-few")
    assert refused.json()["clause"] == "k-1"


@pytest.mark.parametrize("when", ["effective", "expires"])
async def test_a_run_outside_the_term_is_refused_at_once_with_the_clause(house, when):
    contract = await final_contract(house, await pool(house))
    edge = to_ms(getattr(contract.term, when))
    house.clock.ms = edge - (1_000 if when == "effective" else 0)
    body = {"contract": contract.digest, "recipe": "pick"}
    refused = await house.alice.post("/operator/runs", body)
    said = {"effective": "contract.not-begun", "expires": "contract.expired"}
    assert code(refused) == (403, said[when])
    assert when == "expires" or refused.json()["remedy"] == "wait until the term begins"
    said = refused.json()
    assert (said["clause"], said["exit_code"]) == ("term-1", 4)
    assert getattr(contract.term, when) in said["need"]
    assert all(said[name] for name in ("found", "remedy"))
    assert house.entries(EntryType.RUN_OPENED) == []
    house.clock.ms = edge - (1_000 if when == "expires" else 0)
    assert (await house.alice.post("/operator/runs", body)).status_code == 201


async def close(
    house: House, contract: Contract, run_id: str, *, outcome: str, refused: tuple[str, ...] = ()
):
    """What the round runner would have written about a run that ended in round 2."""

    def work(session, tx):
        for now in refused:
            asked = TrainRound(**dict.fromkeys(one.name for one in fields(TrainRound)))
            state = replace(house.services.contracts.state(contract), now=now)
            entropy = house.services.entropy
            judged = judge(contract, point="broker", request=asked, state=state, entropy=entropy)
            judged.record(session, tx, run=run_id, round=2)
        session.execute(run.update().values(state=outcome, outcome=outcome, round=1))

    await house.services.writer.run(work)


async def test_a_run_that_ended_early_says_by_which_clause(house):
    nodes, contract, run_id = await with_candidate(house)
    assert (await house.alice.get(f"/operator/runs/{run_id}")).json()["ended"] is None
    await close(house, contract, run_id, outcome="stopped", refused=("2029-01-01T00:00:00Z",))
    ended = (await house.alice.get(f"/operator/runs/{run_id}")).json()["ended"]
    assert ended["round"] == 2
    assert "term-1" in ended["clauses"]
    assert "term-1" in ended["reason"]
    (found,) = [one for one in ended["findings"] if one["clause"] == "term-1"]
    assert found["found"] == "2029-01-01T00:00:00Z"
    own = (await nodes[0].get(f"/runs/{run_id}")).json()["ended"]
    assert (own["clauses"], own["findings"]) == (ended["clauses"], [])


async def test_a_run_that_lost_its_rounds_or_failed_says_so(house):
    _, contract, run_id = await with_candidate(house)
    await close(house, contract, run_id, outcome="failed")
    shown = (await house.alice.get(f"/operator/runs/{run_id}")).json()
    assert "run.failed" in shown["ended"]["reason"]
    assert shown["plan"].startswith("sha256:")

    def lose(session, _tx):
        for number in (2, 3, 4):
            session.execute(
                insert(round_).values(
                    run_id=run_id,
                    round=number,
                    attempt=2,
                    base=MODEL,
                    model=None,
                    accepted=0,
                    refused=2,
                    verdicts='{"hanbit": "silent", "kita": "refused", "nord": "refused"}',
                    reasons='{"hanbit": "engine.late", "kita": "duplicate", "nord": "attempt-abandoned"}',
                    at_ms=1,
                )
            )

    await house.services.writer.run(lose)
    shown = (await house.alice.get(f"/operator/runs/{run_id}")).json()
    assert shown["ended"]["reason"] == (
        "3 rounds in a row came to no model; in the last attempt 1 updates held, "
        "1 were refused and 1 members were silent"
    )


async def test_a_refused_candidate_is_listed_with_the_clauses(house):
    nodes, contract, run_id = await with_candidate(house)
    for caller in (house.alice, nodes[0]):
        (line,) = (await caller.get("/candidates")).json()["candidates"]
        assert line["refused_by"] == []

    def refuse(session, tx):
        unknown = dict.fromkeys(one.name for one in fields(Deliver))
        request = Deliver(**unknown | {"party": "kita", "model": MODEL, "tier": "consortium"})
        services = house.services
        state = services.contracts.state(contract)
        judged = judge(contract, point="gate", request=request, state=state, entropy=services.entropy)
        ref = judged.record(session, tx, run=run_id)
        pub = {"model": MODEL, "tier": "consortium", "clause": "tier-1", "statement": MODEL}
        tx.add(Event(type=EntryType.MODEL_REFUSED, scope=contract.digest, run=run_id, refs=(ref,), pub=pub))
        session.execute(candidate.update().values(state="refused"))
        return list(judged.decision.clauses)

    clauses, _ = await house.services.writer.run(refuse)
    assert clauses
    for caller in (house.alice, nodes[0]):
        (line,) = (await caller.get("/candidates")).json()["candidates"]
        assert line["refused_by"] == clauses


async def test_a_vote_is_logged_and_counts_and_the_last_one_of_a_party_stands(house):
    (kita, *_), contract, run_id = await with_candidate(house)
    for verdict, clause in (("approve", None), ("veto", "party-kita")):
        answer = await kita.post(
            f"/candidates/{MODEL}/votes", ballot(kita, contract, run_id, verdict, clause)
        )
        assert answer.json()["vote"] == verdict
        assert len(answer.json()["receipts"]) == 1
    with house.services.store.read() as session:
        assert [(one.party, one.verdict) for one in session.execute(select(vote))] == [("kita", "veto")]
    cast = house.entries(EntryType.VOTE_CAST)
    assert [one.pub["vote"] for one in cast] == ["approve", "veto"]
    assert cast[0].actor == alias(kita.alias_key, contract.digest, run_id, None)


async def test_a_member_sees_its_own_vote_and_an_operator_all(house):
    (kita, nord, _), contract, run_id = await with_candidate(house)
    await kita.post(f"/candidates/{MODEL}/votes", ballot(kita, contract, run_id))
    (seen,) = (await nord.get("/candidates")).json()["candidates"]
    assert (seen["own_vote"], seen["votes"], seen["voted"]) == (None, None, 1)
    (seen,) = (await house.alice.get("/candidates")).json()["candidates"]
    assert seen["votes"] == {"kita": "approve"}


async def test_a_vote_on_something_else_is_refused(house):
    (kita, *_), contract, run_id = await with_candidate(house)
    body = {"subject": digest(b"other"), "vote": "approve", "clause": None}
    envelope = kita.seal(EntryType.VOTE_CAST, body, scope=contract.digest, run=run_id)
    refused = await kita.post(f"/candidates/{MODEL}/votes", {"envelope": envelope.to_json()})
    assert code(refused) == (422, "release.vote-invalid")


async def test_a_vote_after_the_decision_is_on_record_and_changes_nothing(house):
    (kita, *_), contract, run_id = await with_candidate(house)
    await released(house, contract)
    late = await kita.post(f"/candidates/{MODEL}/votes", ballot(kita, contract, run_id, "veto", "party-kita"))
    assert code(late) == (409, "release.closed")
    assert len(late.json()["receipts"]) == 1
    with house.services.store.read() as session:
        assert session.execute(select(vote)).all() == []


async def test_a_released_model_goes_to_a_party_and_the_log_says_so(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract)
    answer = await kita.get(f"/models/{MODEL}/weights")
    assert answer.content == WEIGHTS
    assert answer.headers["iriai-tier"] == "consortium"
    assert house.kinds()[-2:] == ["decision.recorded", "model.exported"]
    exported = house.entries()[-1]
    assert exported.pub["recipient"] == alias(kita.alias_key, contract.digest, None, None)
    (line,) = (await kita.get("/releases")).json()["releases"]
    assert (line["model"], line["tier"]) == (MODEL, "consortium")
    assert (await kita.get(f"/statements/{line['statement']}")).content == b'{"statement":1}'


async def test_each_download_has_a_decision_of_its_own_which_its_entry_names(house):
    nodes, contract, _ = await with_candidate(house)
    await released(house, contract)
    for one in (nodes[0], nodes[0], nodes[1]):
        assert (await one.get(f"/models/{MODEL}/weights")).content == WEIGHTS
    entries = house.entries()
    exported = [one for one in entries if one.type is EntryType.MODEL_EXPORTED]
    assert [one.refs for one in exported] == [(entries.index(one) - 1,) for one in exported]
    decided = [entries[one.refs[0]] for one in exported]
    assert {one.type for one in decided} == {EntryType.DECISION_RECORDED}
    assert len({one.pub["decision"] for one in decided}) == 3
    names = [alias(one.alias_key, contract.digest, None, None) for one in (nodes[0], nodes[0], nodes[1])]
    assert [one.pub["recipient"] for one in exported] == names
    with house.services.store.read() as session:
        asked = {row.digest: parse_json(row.request) for row in session.execute(select(decision))}
    parties = [asked[one.pub["decision"]]["party"] for one in decided]
    assert parties == [one.name for one in (nodes[0], nodes[0], nodes[1])]


async def test_a_row_without_a_release_in_the_log_hands_nothing_out(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract, logged=False)
    assert code(await kita.get(f"/models/{MODEL}/weights")) == (403, "contract.refused")
    assert house.entries(EntryType.MODEL_EXPORTED) == []


async def test_a_candidate_that_was_not_released_is_refused_by_a_clause_and_logged(house):
    (kita, *_), _, _ = await with_candidate(house)
    refused = await kita.get(f"/models/{MODEL}/weights")
    assert code(refused) == (403, "contract.refused")
    assert refused.json()["clause"] is not None
    last = house.entries()[-1]
    assert (last.type, last.pub["outcome"]) == (EntryType.DECISION_RECORDED, "refuse")
    assert house.entries(EntryType.MODEL_EXPORTED) == []


async def test_a_vetoed_candidate_cannot_be_pulled(house):
    (kita, *_), contract, run_id = await with_candidate(house)
    await kita.post(f"/candidates/{MODEL}/votes", ballot(kita, contract, run_id, "veto", "party-kita"))

    def refuse(session, _tx):
        session.execute(candidate.update().values(state="refused"))

    await house.services.writer.run(refuse)
    refused = await kita.get(f"/models/{MODEL}/weights")
    assert code(refused) == (403, "contract.refused")


async def test_each_decision_can_be_made_again_from_what_is_kept(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract)
    await kita.get(f"/models/{MODEL}/weights")
    with house.services.store.read() as session:
        row = session.execute(select(decision)).one()
    again = replay(
        parse(contract.canonical),
        point=row.point,
        request=parse_json(row.request),
        state=parse_json(row.state),
        salt16=row.salt,
    )
    assert again == row.bytes
    assert digest(again) == house.entries(EntryType.DECISION_RECORDED)[0].pub["decision"]


async def test_after_the_term_nothing_new_is_handed_out_without_a_decision(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract)
    before = len(house.entries(EntryType.DECISION_RECORDED))
    house.clock.ms += 3 * 365 * 86_400_000
    await kita.get(f"/models/{MODEL}/weights")
    assert len(house.entries(EntryType.DECISION_RECORDED)) == before + 1


async def test_who_is_no_party_sees_neither_run_nor_model(house):
    _, contract, run_id = await with_candidate(house)
    await released(house, contract)
    house.clock.ms = 1_790_000_000_000
    rival = await house.member("rival")
    for path in (f"/runs/{run_id}", f"/models/{MODEL}/weights", f"/statements/{digest(b'{' + b'}')}"):
        assert code(await rival.get(path)) == (404, "request.not-found")
    for path, name in (("/runs", "runs"), ("/candidates", "candidates"), ("/releases", "releases")):
        assert (await rival.get(path)).json()[name] == []


async def test_an_operator_gets_no_model(house):
    _, contract, _ = await with_candidate(house)
    await released(house, contract)
    assert code(await house.alice.get(f"/models/{MODEL}/weights")) == (403, "identity.wrong-role")


async def test_a_model_file_that_was_changed_on_disk_is_not_sent(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract)
    (house.services.settings.models / "candidate").write_bytes(WEIGHTS[:-1] + b"\x00")
    refused = await kita.get(f"/models/{MODEL}/weights")
    assert code(refused) == (500, "internal.invariant")


# --- what a download is asked with ---


def recorded(house: House) -> list[dict[str, Any]]:
    """Requests of the decisions at the gate, in the order of the log."""
    entries = house.entries(EntryType.DECISION_RECORDED)
    with house.services.store.read() as session:
        asked = {row.digest: parse_json(row.request) for row in session.execute(select(decision))}
    return [asked[one.pub["decision"]] for one in entries if one.pub["point"] == "gate"]


async def test_times_country_and_attestation_of_a_download_are_those_on_record(house):
    (kita, *_), contract, _ = await with_candidate(house)
    house.clock.ms += 61_000
    await released(house, contract)
    house.clock.ms += 5_000
    assert (await kita.get(f"/models/{MODEL}/weights")).status_code == 200
    (asked,) = recorded(house)
    assert asked["made_at"] == iso_s(IN_TERM_MS)
    assert asked["released_at"] == iso_s(IN_TERM_MS + 61_000)
    assert (asked["country"], asked["attestation"], asked["contribution_share"]) == ("DE", "none", None)
    (line,) = (await kita.get("/releases")).json()["releases"]
    assert line["made_ms"] == IN_TERM_MS


async def test_a_recipient_in_an_embargoed_country_gets_nothing(house):
    embargo = {"clause": "export-1", "classification": "none", "embargoed": ["DE"]}
    (kita, *_), contract, _ = await with_candidate(
        house, export_control=embargo | {"check": "recipient-country"}
    )
    await released(house, contract)
    refused = await kita.get(f"/models/{MODEL}/weights")
    assert code(refused) == (403, "contract.refused")
    assert refused.json()["clause"] == "export-1"
    assert house.entries(EntryType.MODEL_EXPORTED) == []


async def test_a_recipient_attests_its_use_before_it_gets_the_model(house):
    use = {"clause": "forbid-6", "use": "military-end-use", "check": "attestation"}
    (kita, nord, _), contract, _ = await with_candidate(house, forbidden=[use])
    await released(house, contract)
    assert (await kita.get(f"/models/{MODEL}/weights")).json()["clause"] == "forbid-6"
    said = Notice(
        kind="attest",
        contract=contract.digest,
        party="kita",
        seq=1,
        at=iso_s(house.clock.ms),
        code="own-use",
        subject="use:inspection;country:DE",
    )
    sent = {"notice": seal_notice(said, kita.key).to_json(), "envelope": None}
    assert (await kita.post(f"/contracts/{contract.digest}/notices", sent)).status_code == 200
    assert (await kita.get(f"/models/{MODEL}/weights")).status_code == 200
    assert house.entries(EntryType.MODEL_EXPORTED)[-1].pub["attestation"] == said.digest
    assert (await nord.get(f"/models/{MODEL}/weights")).json()["clause"] == "forbid-6"  # its own word counts


async def test_a_share_that_nobody_stated_is_not_enough(house):
    nodes = await pool(house)
    tree = draft(house, nodes).document
    tiers = [one | {"min_contribution": "0.02"} for one in tree["tiers"] if one["tier"] == "consortium"]
    (kita, *_), contract, _ = await with_candidate_of(house, nodes, tiers=tiers)
    await released(house, contract)
    refused = await kita.get(f"/models/{MODEL}/weights")
    assert refused.json()["clause"] == "tier-consortium"
    assert "contribution_share" in refused.json()["found"]


async def test_a_model_that_is_too_fresh_is_delivered_when_the_delay_is_over(house):
    nodes = await pool(house)
    aggregation = draft(house, nodes).document["aggregation"] | {"delay_hours": 24}
    (kita, *_), contract, _ = await with_candidate_of(house, nodes, aggregation=aggregation)
    await released(house, contract)
    assert (await kita.get(f"/models/{MODEL}/weights")).json()["clause"] == "k-1"
    house.clock.ms = IN_TERM_MS + 24 * 3_600_000
    assert (await kita.get(f"/models/{MODEL}/weights")).status_code == 200


async def test_nothing_is_delivered_under_a_halt(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract)
    body = {"code": "incident.open", "clause": None, "text": None}
    assert (await house.alice.post(f"/operator/contracts/{contract.digest}/halt", body)).status_code == 201
    refused = await kita.get(f"/models/{MODEL}/weights")
    assert code(refused) == (403, "contract.halted")
    assert refused.json()["clause"] == "halt-1"


async def test_a_model_released_in_the_term_is_delivered_after_it(house):
    (kita, *_), contract, _ = await with_candidate(house)
    await released(house, contract)
    house.clock.ms = to_ms(contract.term.expires) + 1_000
    assert (await kita.get(f"/models/{MODEL}/weights")).status_code == 200
