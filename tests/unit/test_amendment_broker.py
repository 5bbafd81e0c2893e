# SPDX-License-Identifier: Apache-2.0
"""Amendments at the broker: opened by the contract that rules, signed or proven, in effect at their term."""

from __future__ import annotations

import json
import sys

import pytest

from policies.contract import from_tree, parse
from policies.contract.amendment import recheck
from policies.contract.amendment.verdict import read_verdict
from policies.encoding import digest
from policies.log.entries import EntryType
from policies.signing import Envelope
from tests.brokersim import HandClock, all_sign, draft, final_contract, open_house, pool
from tests.nodeworld import IN_TERM_MS
from tests.noticespeech import say
from tests.succeedsim import (
    EFFECTIVE,
    EFFECTIVE_MS,
    amended,
    change,
    looser,
    reach,
    standing,
    successor,
    tighten,
    tightening_body,
    tighter,
)

pytestmark = pytest.mark.anyio
T = EntryType


@pytest.fixture
async def house(tmp_path):
    async with open_house(tmp_path / "broker", clock=HandClock()) as opened:
        yield opened


@pytest.fixture
async def nodes(house):
    return await pool(house)


@pytest.fixture
async def old(house, nodes):
    """A contract in force, in term."""
    contract = await final_contract(house, nodes)
    house.clock.ms = IN_TERM_MS
    return contract


def code(answer) -> tuple[int, str]:
    return answer.status_code, answer.json().get("code", "")


def decided(house) -> list[tuple[str, str, list[str]]]:
    """(scope, outcome, clauses) of the broker's decisions."""
    found = house.entries(T.DECISION_RECORDED)
    return [(one.scope, one.pub["outcome"], list(one.pub["clauses"])) for one in found]


# --- changes ---


async def test_a_change_rules_from_its_term_on_and_supersedes(house, nodes, old):
    new = looser(old)
    answer = await house.alice.offer(new)
    assert answer.status_code == 201, answer.text
    assert decided(house) == [(old.digest, "allow", [])]
    await all_sign(nodes, new)
    assert (standing(house, old), standing(house, new), amended(house)) == ("ACTIVE", "PENDING", [])
    house.clock.ms = EFFECTIVE_MS - 1000
    await house.services.desk.bring_up_to_date()
    assert amended(house) == []
    await reach(house, new)
    assert amended(house) == [(old.digest, new.digest, "change", None)]
    assert (standing(house, old), standing(house, new)) == ("SUPERSEDED", "ACTIVE")
    assert decided(house) == [(old.digest, "allow", [])] * 2
    assert house.kinds()[-2:] == ["decision.recorded", "contract.amended"]
    await reach(house, new)
    assert len(amended(house)) == 1


async def test_a_contributor_asks_for_a_change_and_everybody_negotiates_it(house, nodes, old):
    kita, nord, _ = nodes
    new = looser(old)
    answer = await change(kita, old, new)
    assert answer.status_code == 201, answer.text
    assert answer.json()["state"] == "offered"
    assert (await nord.view(new))["lane"]["state"] == "OFFERED"
    await all_sign(nodes, new)
    await reach(house, new)
    assert standing(house, new) == "ACTIVE"


async def test_the_contract_that_rules_refuses_an_opening_by_its_clause(house, nodes, old):
    stranger = await house.member("hanbit")
    new = from_tree(
        draft(house, [*nodes, stranger]).document
        | successor(old).document
        | {"parties": draft(house, [*nodes, stranger]).document["parties"]}
    )
    refused = await house.alice.offer(new)
    assert code(refused) == (403, "contract.refused")
    assert refused.json()["clause"] == "amend-1"
    assert decided(house) == [(old.digest, "refuse", ["amend-1"])]
    assert house.entries(T.CONTRACT_PROPOSED)[1:] == []
    assert (await say(nodes[0], old, "admit", subject=stranger.org)).status_code == 200
    assert (await house.alice.offer(new)).status_code == 201


async def test_nobody_is_left_out_who_gave_no_notice_of_exit(house, tmp_path):
    nodes = await pool(house, "hanbit", "iber", "kita", "nord")
    old = await final_contract(house, nodes)
    house.clock.ms = IN_TERM_MS
    fewer = draft(house, nodes[1:]).document
    new = successor(old, parties=fewer["parties"], recipes=fewer["recipes"], release=fewer["release"])
    refused = await house.alice.offer(new)
    assert (code(refused), refused.json()["clause"]) == ((403, "contract.refused"), "amend-1")
    assert "hanbit" in refused.json()["found"]
    assert (await say(nodes[0], old, "exit", choice="retrain")).status_code == 200
    assert (await house.alice.offer(new)).status_code == 201
    await all_sign(nodes[1:], new)
    await reach(house, new)
    assert standing(house, new) == "ACTIVE"


async def test_a_counter_offer_is_asked_about_too(house, nodes, old):
    kita, *_ = nodes
    assert (await house.alice.offer(looser(old))).status_code == 201
    swapped = looser(old).document
    for party in swapped["parties"]:
        party["group"] = "broker" if party["party"] == "kita" else party["group"]
    mine = looser(old, **{"privacy.epsilon_total": "8"})
    assert (await kita.counter(await kita.view(looser(old)), mine)).status_code == 200
    assert decided(house) == [(old.digest, "allow", [])] * 2
    await all_sign(nodes, mine)


async def test_before_its_term_a_contract_is_not_amended(house, nodes):
    first = await final_contract(house, nodes)
    refused = await house.alice.offer(
        looser(first, sign_by="2027-01-01T00:00:00Z", effective="2027-01-02T00:00:00Z")
    )
    assert (code(refused), refused.json()["clause"]) == ((403, "contract.not-begun"), "term-1")


async def test_a_successor_after_the_term_is_never_opened(house, nodes, old):
    late = successor(
        old,
        sign_by="2026-12-20T00:00:00Z",
        effective="2028-12-01T00:00:00Z",
        term={
            "clause": "term-1",
            "effective": "2028-12-02T00:00:00Z",
            "expires": "2029-12-01T00:00:00Z",
        },
    )
    refused = await house.alice.offer(late)
    assert (code(refused), refused.json()["clause"]) == ((403, "contract.expired"), "term-1")


async def test_what_ended_meanwhile_lets_no_successor_in(house, nodes, old):
    new = looser(old)
    await house.alice.offer(new)
    await all_sign(nodes, new)
    assert (await say(nodes[0], old, "exit", choice="retrain")).status_code == 200
    assert standing(house, old) == "TERMINATED"
    await reach(house, new)
    assert amended(house) == []
    assert decided(house)[-1] == (old.digest, "refuse", ["@standing"])
    listed = (await house.alice.get("/contracts")).json()["contracts"]
    assert next(one["state"] for one in listed if one["digest"] == new.digest) == "void"
    before = len(house.entries())
    await reach(house, new)
    assert len(house.entries()) == before


async def test_a_broker_that_was_down_lets_it_in_when_it_comes_back(tmp_path):
    clock = HandClock()
    async with open_house(tmp_path / "broker", clock=clock) as house:
        nodes = await pool(house)
        old = await final_contract(house, nodes)
        clock.ms = IN_TERM_MS
        new = looser(old)
        await house.alice.offer(new)
        await all_sign(nodes, new)
    clock.ms = EFFECTIVE_MS + 900 * 86_400_000  # also after the old term
    async with open_house(tmp_path / "broker", clock=clock) as house:
        assert amended(house) == [(old.digest, new.digest, "change", None)]
        assert standing(house, old) == "SUPERSEDED"
        assert old.digest not in [one.scope for one in house.entries(T.CONTRACT_EXPIRED)]


# --- tightenings ---


async def test_a_contributor_tightens_alone(house, nodes, old):
    kita, nord, _ = nodes
    new = tighter(old)
    answer = await tighten(kita, old, new)
    assert answer.status_code == 201, answer.text
    assert (answer.json()["state"], answer.json()["signed"]) == ("finalized", ["broker", "kita"])
    assert answer.json()["receipts"]
    assert house.kinds()[-4:] == [
        "decision.recorded",
        "contract.proposed",
        "contract.signed",
        "contract.finalized",
    ]
    assert (standing(house, old), standing(house, new)) == ("ACTIVE", "PENDING")
    bytes_ = (await nord.get(f"/contracts/{new.digest}/verdict")).content
    assert read_verdict(bytes_)["initiator"] == "kita"
    assert recheck(old, new, bytes_).no_looser
    await reach(house, new)
    assert amended(house) == [(old.digest, new.digest, "tighten", digest(bytes_))]
    envelope = Envelope.from_bytes((await nord.get(f"/contracts/{new.digest}/envelope")).content)
    assert parse(envelope.payload) == new
    assert len(envelope.signatures) == 2
    assert (
        await nord.get(f"/contracts/{new.digest}/annexes/{new.recipes[0].recipe_digest}")
    ).status_code == 200


async def test_the_same_tightening_again_changes_nothing(house, nodes, old):
    new = tighter(old)
    body = tightening_body(nodes[0], new)
    first = await nodes[0].post(f"/contracts/{old.digest}/amendments", body)
    before = len(house.entries())
    again = await nodes[0].post(f"/contracts/{old.digest}/amendments", body)
    assert (first.status_code, again.status_code, len(house.entries())) == (201, 201, before)


async def test_a_looser_text_is_refused_with_its_clause(house, nodes, old):
    refused = await tighten(nodes[0], old, looser(old))
    assert (code(refused), refused.json()["clause"]) == ((403, "contract.refused"), "dp-1")
    assert house.entries(T.CONTRACT_FINALIZED)[1:] == []
    assert standing(house, old) == "ACTIVE"


async def test_what_only_the_prover_shows_is_refused_without_it(house, nodes, old, monkeypatch):
    monkeypatch.setitem(sys.modules, "z3", None)
    refused = await tighten(nodes[0], old, successor(old, **{"privacy.reply_slot_ms": 500}))
    assert code(refused) == (409, "contract.proof-missing")
    assert (await tighten(nodes[0], old, tighter(old))).status_code == 201  # the order table shows this


@pytest.mark.parametrize(
    "changes",
    [{"signature": None}, {"envelope": None}, {"prose": "aGk="}, {"kind": "loosen"}, {"kind": "change"}],
    ids=str,
)
async def test_a_body_that_lacks_its_parts_is_refused(house, nodes, old, changes):
    refused = await tighten(nodes[0], old, tighter(old), **changes)
    assert code(refused)[1] == "request.invalid"


async def test_another_members_signature_is_refused(house, nodes, old):
    kita, nord, _ = nodes
    new = tighter(old)
    foreign = tightening_body(nord, new)
    refused = await tighten(kita, old, new, signature=foreign["signature"])
    assert code(refused)[1] == "identity.signature-invalid"


async def test_who_is_no_party_finds_nothing(house, nodes, old):
    stranger = await house.member("hanbit")
    assert (await tighten(stranger, old, tighter(old))).status_code == 404
    assert (await stranger.get(f"/contracts/{old.digest}/verdict")).status_code == 404
    assert (await nodes[0].get(f"/contracts/{old.digest}/verdict")).status_code == 404  # nothing to prove


async def test_another_version_or_predecessor_is_no_successor(house, nodes, old):
    for wrong in ({"version": 3}, {"supersedes": digest(b"other")}):
        refused = await tighten(nodes[0], old, from_tree(tighter(old).document | wrong))
        assert code(refused) == (409, "contract.not-a-successor")


async def test_a_second_successor_finds_the_first(house, nodes, old):
    assert (await tighten(nodes[0], old, tighter(old))).status_code == 201
    other = tighter(old, **{"privacy.epsilon_total": "2.5"})
    assert code(await tighten(nodes[1], old, other)) == (409, "contract.offer-conflict")
    assert code(await house.alice.offer(looser(old))) == (409, "contract.offer-conflict")


async def test_an_open_negotiation_ends_when_somebody_tightens(house, nodes, old):
    kita, nord, _ = nodes
    assert (await house.alice.offer(looser(old))).status_code == 201
    await nord.accept(looser(old))
    assert (await tighten(kita, old, tighter(old))).status_code == 201
    view = await nord.view(looser(old))
    assert (view["state"], view["closed"]["code"]) == ("terminated", "contract.superseded")


async def test_too_late_is_too_late(house, nodes, old):
    new = tighter(old)
    house.clock.ms = EFFECTIVE_MS
    assert code(await tighten(nodes[0], old, new))[1] == "negotiation.deadline"


async def test_a_halt_stays_in_force_over_a_tightening_and_ends_by_all(house, nodes, old):
    kita, nord, _iber = nodes
    assert (await say(nord, old, "halt")).status_code == 200
    halt = house.services.contracts.life(old).halts[0].digest
    new = tighter(old)
    assert (await tighten(kita, old, new)).status_code == 201
    await reach(house, new)
    assert (standing(house, new), house.services.contracts.life(new).halts[0].digest) == ("HALTED", halt)
    for node in nodes:
        assert (await say(node, new, "resume", refers=halt)).status_code == 200
    assert standing(house, new) == "ACTIVE"


async def test_a_change_by_all_ends_a_halt(house, nodes, old):
    assert (await say(nodes[1], old, "halt")).status_code == 200
    new = looser(old)
    assert (await house.alice.offer(new)).status_code == 201
    await all_sign(nodes, new)
    await reach(house, new)
    assert standing(house, new) == "ACTIVE"


async def test_a_run_is_not_opened_under_what_does_not_rule(house, nodes, old):
    new = tighter(old)
    await tighten(nodes[0], old, new)
    recipe = {"recipe": old.recipes[0].id}
    early = await house.alice.post("/operator/runs", {"contract": new.digest} | recipe)
    assert code(early) == (403, "contract.not-begun")
    house.clock.ms = EFFECTIVE_MS  # nobody has looked yet
    early = await house.alice.post("/operator/runs", {"contract": new.digest} | recipe)
    assert code(early) == (403, "contract.refused")
    await reach(house, new)
    assert (await house.alice.post("/operator/runs", {"contract": new.digest} | recipe)).status_code == 201
    late = await house.alice.post("/operator/runs", {"contract": old.digest} | recipe)
    assert code(late) == (403, "contract.refused")


async def test_versions_follow_each_other(house, nodes, old):
    new = tighter(old)
    await tighten(nodes[0], old, new)
    await reach(house, new)
    third = tighter(
        new,
        sign_by="2026-12-20T00:00:00Z",
        effective="2026-12-21T00:00:00Z",
        **{"privacy.epsilon_total": "2.4"},
    )
    assert code(await tighten(nodes[1], old, tighter(old, **{"privacy.epsilon_total": "2.4"})))[0] == 409
    assert (await tighten(nodes[1], new, third)).status_code == 201
    await reach(house, third)
    assert [one[:2] for one in amended(house)] == [(old.digest, new.digest), (new.digest, third.digest)]
    view = (await nodes[2].get(f"/contracts/{old.digest}/lifecycle")).json()
    assert (view["standing"], view["superseded_by"]) == ("SUPERSEDED", new.digest)
    assert json.loads(json.dumps(view))["since"] >= EFFECTIVE
