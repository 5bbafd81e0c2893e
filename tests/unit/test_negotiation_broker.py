# SPDX-License-Identifier: Apache-2.0
"""Negotiations at the broker, over HTTP: lanes, counter-offers, ends, polls, and what each party is shown of it."""

from __future__ import annotations

import asyncio
import json
from importlib.metadata import version
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select

from broker.contracts.bell import Bell
from broker.log.bundle import export
from broker.log.errors import LogUnavailableError
from broker.store.tables import contract_document, log_private, negotiation
from policies.contract import executed, from_tree
from policies.contract.negotiation.lanes import open_message, read_message
from policies.encoding import b64, canonical, digest, parse
from policies.errors import InvariantError
from policies.identity import key_text
from policies.log.entries import EntryType
from policies.log.policy import parse_policy
from policies.ports import iso_s, to_ms
from policies.signing import Envelope
from policies.verify import verify
from sandbox.recipes import private_recipe
from tests.brokersim import RECIPE, HandClock, House, all_sign, draft, final_contract, open_house, pool
from tests.lanesim import spoken, warnings_of
from tests.nodeworld import IN_TERM_MS
from tests.noticespeech import say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY = 86_400_000
PDF = b"%PDF-1.7 the text for people"
PROSE = {
    "clause": "prose-1",
    "media_type": "application/pdf",
    "prevails": True,
    "sha256": digest(PDF).removeprefix("sha256:"),
}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def stored(house: House, name: str) -> bytes:
    with house.services.store.read() as session:
        return session.scalar(select(negotiation.c.pool).where(negotiation.c.id == name))


def state_of_text(house: House, text: str) -> str | None:
    with house.services.store.read() as session:
        return session.scalar(select(contract_document.c.state).where(contract_document.c.digest == text))


def types(view) -> list[str]:
    return [read_message(Envelope.from_json(one["message"]).payload).type for one in view["messages"]]


async def opened(house: House, *names: str, **changes):
    nodes = await pool(house, *names)
    contract = draft(house, nodes, **changes)
    answer = await house.alice.offer(contract)
    assert answer.status_code == 201, answer.text
    return nodes, contract


def tighter(contract, **changes):
    """A counter-offer: k and the caps as they were, a smaller budget."""
    tree = contract.document
    tree["privacy"] = tree["privacy"] | {"epsilon_total": "6"}
    return from_tree(tree | changes)


async def test_an_offer_opens_a_lane_for_each_contributor_signed_by_the_broker(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    assert (view["state"], view["round"], view["version"]) == ("open", 1, 1)
    assert (view["digest"], view["sign_by"]) == (contract.digest, contract.sign_by)
    assert view["lanes"] == dict.fromkeys(("iber", "kita", "nord"), "OFFERED")
    assert view["waiting_for"] == ["iber", "kita", "nord"]
    assert (view["closed"], view["diff"]) == (None, [])
    (one,) = view["messages"]
    offer = open_message(Envelope.from_json(one["message"]), house.services.keys.broker.public)
    assert (offer.type, offer.pid, offer.hash) == ("offer", view["lane"]["pid"], view["lane"]["last_hash"])
    assert view["lane"]["deadline_ms"] == house.clock.ms + 14 * DAY
    assert {one["severity"] for one in view["lint"]} == {"warning"}
    assert view["lint"][0].keys() == {"id", "rule", "severity", "clause", "need", "found", "remedy"}


async def test_a_contributor_sees_states_of_the_others_and_messages_of_its_own_only(house):
    (kita, nord, _), contract = await opened(house)
    await nord.accept(contract)
    view = await kita.view(contract)
    assert view["lanes"]["nord"] == "ACCEPTED"
    assert types(view) == ["offer"]
    assert (await nord.view(contract, after=1))["messages"][0]["seq"] == 2


async def test_the_list_shows_the_lane_and_who_is_waited_for(house):
    (kita, nord, _), contract = await opened(house)
    await nord.accept(contract)
    (line,) = (await nord.get("/contracts")).json()["contracts"]
    assert line["lane"]["state"] == "ACCEPTED"
    assert line["lane"]["deadline_ms"] == house.clock.ms + 7 * DAY
    assert line["lanes"] == {"iber": "OFFERED", "kita": "OFFERED", "nord": "ACCEPTED"}
    assert line["waiting_for"] == ["iber", "kita"]
    assert line["negotiation"] == (await kita.view(contract))["id"]


async def test_a_counter_offer_is_put_to_everybody_with_its_diff(house):
    (kita, nord, iber), contract = await opened(house)
    await nord.accept(contract)
    answer = await kita.counter(await kita.view(contract), tighter(contract))
    assert answer.status_code == 200, answer.text
    counter = tighter(contract)
    own = answer.json()
    assert (own["round"], own["digest"], own["lane"]["round"]) == (2, counter.digest, 2)
    assert types(own) == ["offer", "request", "offer"]
    view = await nord.view(counter)
    assert types(view) == ["offer", "accept", "terminate", "offer"]
    assert [one["seq"] for one in view["messages"]] == [1, 2, 3, 4]
    (change,) = view["diff"]
    assert (change["clause"], change["field"], change["direction"]) == ("dp-1", "epsilon_total", "tighter")
    assert (change["before"], change["after"]) == ("8", "6")
    assert (await iber.get(f"/contracts/{counter.digest}")).content == counter.canonical
    annex = await iber.get(f"/contracts/{counter.digest}/annexes/{digest(RECIPE)}")
    assert annex.content == RECIPE
    proposed = [one.pub["contract"] for one in house.entries(EntryType.CONTRACT_PROPOSED)]
    assert proposed == [contract.digest, counter.digest]
    await all_sign([kita, nord, iber], counter)


async def test_a_text_that_was_replaced_is_not_listed_and_can_still_be_read(house):
    (kita, nord, _), contract = await opened(house)
    await kita.counter(await kita.view(contract), tighter(contract))
    (line,) = (await nord.get("/contracts")).json()["contracts"]
    assert line["digest"] == tighter(contract).digest
    assert state_of_text(house, contract.digest) == "countered"
    assert (await nord.get(f"/contracts/{contract.digest}")).content == contract.canonical


async def test_a_counter_offer_may_go_back_to_an_earlier_text(house):
    nodes, contract = await opened(house)
    kita, nord, _ = nodes
    await kita.counter(await kita.view(contract), tighter(contract))
    back = await nord.counter(await nord.view(tighter(contract)), contract)
    assert back.json()["round"] == 3
    await all_sign(nodes, contract)


async def test_who_is_overtaken_is_told_the_open_text_and_the_way_to_it(house):
    (kita, nord, _), contract = await opened(house)
    views = [await one.view(contract) for one in (kita, nord)]
    assert (await kita.counter(views[0], tighter(contract))).status_code == 200
    second = await nord.counter(views[1], tighter(contract, title="Another pool"))
    assert code(second) == (409, "negotiation.superseded")
    told = second.json()
    assert (told["digest"], told["round"], told["exit_code"]) == (tighter(contract).digest, 2, 7)
    assert [one["field"] for one in told["diff"]] == ["epsilon_total"]
    assert len(house.entries(EntryType.CONTRACT_PROPOSED)) == 2


@pytest.mark.parametrize(
    ("change", "expected", "clause"),
    [
        (lambda tree: tree["aggregation"].update(min_parties=4), "contract.invalid", "k-1"),
        (lambda tree: tree["privacy"].update(epsilon_total="12"), "contract.lint-error", "dp-1"),
        (lambda tree: tree["parties"][-1].update(country="FR"), "contract.party-mismatch", "party-nord"),
        (lambda tree: tree.update(contract_id="ctr_" + "a" * 16), "contract.offer-conflict", None),
        (
            lambda tree: tree["recipes"][0].update(recipe_digest=digest(b"x")),
            "contract.annex-missing",
            "recipe-1",
        ),
    ],
)
async def test_a_counter_offer_that_cannot_be_offered_is_refused_and_changes_nothing(
    house, change, expected, clause
):
    (kita, *_), contract = await opened(house)
    view, tree = await kita.view(contract), contract.document
    before, entries = stored(house, view["id"]), len(house.entries())
    change(tree)
    text = canonical(tree)
    body = {"contract": text.decode(), "recipes": []}
    refused = await kita.say(view, "request", body=body, digest=digest(text))
    assert code(refused)[1] == expected
    problem = refused.json()
    assert problem["remedy"]
    assert clause is None or problem["clause"].startswith(clause)
    assert stored(house, view["id"]) == before
    assert len(house.entries()) == entries
    assert (await kita.accept(contract)).status_code == 200


async def test_a_counter_offer_brings_recipes_that_are_not_here_yet(house):
    (kita, nord, _), contract = await opened(house)
    other = private_recipe(episodes=90)
    tree = contract.document
    tree["recipes"][0]["recipe_digest"] = digest(other)
    counter = from_tree(tree)
    answer = await kita.counter(await kita.view(contract), counter, (other,))
    assert answer.status_code == 200, answer.text
    annex = await nord.get(f"/contracts/{counter.digest}/annexes/{digest(other)}")
    assert annex.content == other


async def test_a_message_with_parts_of_another_type_is_refused(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    for body in ({"contract": contract.canonical.decode()}, {"signature": "AAAA"}, {"recipes": [b64(b"{}")]}):
        assert code(await kita.say(view, "accept", body=body)) == (422, "request.invalid")
    assert code(await kita.say(view, "verify")) == (422, "request.invalid")
    assert (await kita.view(contract))["lane"]["state"] == "OFFERED"


async def test_a_refusal_ends_the_round_for_all_and_is_on_record(house):
    (kita, nord, iber), contract = await opened(house)
    await nord.accept(contract)
    view = await iber.view(contract)
    answer = await iber.say(view, "terminate", code="price-too-high", clause="fees-1", text="Too much.")
    assert answer.status_code == 200, answer.text
    for one in (kita, nord, iber):
        seen = await one.view(view["id"])
        assert seen["state"] == "terminated"
        assert seen["closed"] == {
            "code": "price-too-high",
            "clause": "fees-1",
            "text": "Too much.",
            "party": "iber",
        }
        assert set(seen["lanes"].values()) == {"TERMINATED"}
    (entry,) = house.entries(EntryType.CONTRACT_TERMINATED)
    assert entry.pub == {"contract": contract.digest, "clause": "fees-1", "reason": "price-too-high"}
    assert b"Too much." not in entry.body
    (line,) = (await kita.get("/contracts")).json()["contracts"]
    assert (line["state"], line["standing"], line["waiting_for"]) == ("terminated", "TERMINATED", [])
    refused = await kita.say(await kita.view(view["id"]), "accept")
    assert code(refused) == (409, "negotiation.bad-transition")
    assert refused.json()["clause"] == "fees-1"


async def test_a_lane_in_agreed_is_ended_by_its_own_node(house):
    (kita, nord, iber), contract = await opened(house)
    for one in (kita, nord, iber):
        await one.accept(contract)
    await iber.refuse(contract, code="board-said-no")
    view = await kita.view(contract)
    assert (view["state"], view["lane"]["state"]) == ("terminated", "AGREED")
    answer = await kita.say(view, "terminate", code="round-closed")
    assert answer.json()["lane"]["state"] == "TERMINATED"


async def test_the_operators_end_a_round_with_a_reason(house):
    (kita, *_), contract = await opened(house)
    name = (await kita.view(contract))["id"]
    for reason in ({"code": "Not A Code"}, {"code": "ok", "text": "two\nlines"}):
        refused = await house.alice.post(f"/operator/negotiations/{name}/terminate", reason)
        assert code(refused) == (422, "negotiation.message-malformed")
    answer = await house.alice.post(
        f"/operator/negotiations/{name}/terminate", {"code": "wrong-file", "text": "The wrong file was sent."}
    )
    assert (answer.status_code, answer.json()["state"]) == (200, "terminated")
    assert (await kita.view(name))["closed"]["code"] == "wrong-file"
    missing = await house.alice.post("/operator/negotiations/neg_" + "a" * 16 + "/terminate", {"code": "x"})
    assert code(missing) == (404, "request.not-found")


async def test_a_text_that_ended_is_not_offered_again_and_a_new_one_is(house):
    nodes, contract = await opened(house)
    await nodes[0].refuse(contract)
    assert code(await house.alice.offer(contract)) == (409, "contract.offer-conflict")
    later = from_tree(contract.document | {"sign_by": "2026-11-30T12:00:00Z"})
    assert (await house.alice.offer(later)).status_code == 201
    await all_sign(nodes, later)


async def test_nothing_else_is_offered_under_a_name_that_is_open(house):
    nodes, contract = await opened(house)
    assert code(await house.alice.offer(tighter(contract))) == (409, "contract.offer-conflict")
    same = await house.alice.offer(contract)
    assert same.status_code == 201
    assert len(house.entries(EntryType.CONTRACT_PROPOSED)) == 1
    await nodes[0].counter(await nodes[0].view(contract), tighter(contract))
    assert code(await house.alice.offer(contract)) == (409, "contract.offer-conflict")


async def test_a_successor_names_the_version_in_force(house):
    nodes = await pool(house)
    first = await final_contract(house, nodes)
    for number, supersedes in ((2, digest(b"other")), (3, first.digest)):
        wrong = tighter(first, version=number, supersedes=supersedes)
        assert code(await house.alice.offer(wrong)) == (409, "contract.offer-conflict")
    house.clock.ms = IN_TERM_MS
    later = {
        "sign_by": "2027-03-01T00:00:00Z",
        "term": first.document["term"] | {"effective": "2027-03-02T00:00:00Z"},
    }
    second = tighter(first, version=2, supersedes=first.digest, **later)
    assert (await house.alice.offer(second)).status_code == 201
    view = await nodes[0].view(second)
    assert (view["version"], [one["field"] for one in view["diff"] if one["clause"] == "dp-1"]) == (
        2,
        ["epsilon_total"],
    )
    told: list[str] = []
    house.services.negotiations.book.on_finalized = lambda _session, tx, contract: told.append(
        f"{contract.digest} {tx.size}"
    )
    await all_sign(nodes, second)
    assert told == [f"{second.digest} {len(house.entries())}"]
    assert house.services.contracts.is_final(first.digest)


async def test_two_contracts_are_negotiated_side_by_side(house):
    nodes, contract = await opened(house)
    other = draft(house, nodes, contract_id="ctr_" + "b" * 16)
    assert (await house.alice.offer(other)).status_code == 201
    await all_sign(nodes, other)
    await all_sign(nodes, contract)


async def test_a_lint_error_blocks_an_offer_and_names_the_clause(house):
    nodes = await pool(house)
    tree = draft(house, nodes).document
    tree["privacy"]["epsilon_total"] = "12"
    refused = await house.alice.offer(from_tree(tree))
    assert code(refused) == (422, "contract.lint-error")
    assert (refused.json()["clause"], refused.json()["exit_code"]) == ("dp-1", 3)
    assert "lint." in refused.json()["need"]
    assert house.entries(EntryType.CONTRACT_PROPOSED) == []


async def test_a_signature_that_leaves_a_warning_out_is_refused_by_its_id_and_may_come_again(house):
    nodes, contract = await opened(house)
    for one in nodes:
        await one.accept(contract)
    kita = nodes[0]
    view = await kita.view(contract)
    missing = view["lint"][0]["id"]
    others = tuple(sorted(one["id"] for one in view["lint"][1:]))
    body = kita.signature_body(contract, others)
    refused = await kita.say(view, "verify", body=body, acknowledged=others)
    assert code(refused) == (409, "negotiation.unacknowledged")
    assert missing in refused.json()["need"]
    assert len(refused.json()["receipts"]) == 1
    answer = await kita.say(view, "verify", body=kita.signature_body(contract))
    assert answer.json()["lane"]["state"] == "VERIFIED"
    assert acknowledgements(house) == [list(others), sorted([missing, *others])]


def acknowledgements(house) -> list[object]:
    """What each `contract.signed` says behind its commitment; None where the entry has no such field."""
    with house.services.store.read_private() as session:
        rows = session.execute(select(log_private)).all()
    told = {one.event_id: json.loads(one.value) for one in rows if one.field == "acknowledged"}
    signed = house.entries(EntryType.CONTRACT_SIGNED)
    assert all(("acknowledged" in one.sd) == (one.id in told) for one in signed)
    return [told.get(one.id) for one in signed]


async def test_the_log_keeps_which_warnings_a_signature_acknowledged_behind_a_commitment(house):
    nodes, contract = await opened(house)
    for one in nodes:
        await one.accept(contract)
    for one in nodes:
        assert (await one.verify(contract)).status_code == 200
    warnings = list(warnings_of(contract))
    assert "lint.secure-aggregation-off:k-1" in warnings
    assert acknowledgements(house) == [warnings] * 3


@pytest.mark.parametrize("told", [(), ("lint.made-up:k-1",), "all but one", "one more"])
async def test_an_entry_that_acknowledges_other_warnings_than_its_message_is_refused_and_not_logged(
    house, told
):
    nodes, contract = await opened(house)
    for one in nodes:
        await one.accept(contract)
    kita, warnings = nodes[0], warnings_of(contract)
    told = {"all but one": warnings[1:], "one more": tuple(sorted((*warnings, "lint.z:k-1")))}.get(told, told)
    before = kita.chain
    refused = await kita.verify(contract, **kita.signature_body(contract, told))
    assert code(refused) == (422, "log.envelope-invalid")
    assert ", ".join(warnings) in refused.json()["need"]
    assert house.entries(EntryType.CONTRACT_SIGNED) == []
    kita.chain = before  # nothing was taken: its number is free
    assert (await kita.verify(contract)).json()["lane"]["state"] == "VERIFIED"


async def test_until_it_is_final_a_contributor_sees_the_brokers_signature_and_its_own(house):
    nodes, contract = await opened(house)
    kita, nord, iber = nodes
    path = f"/contracts/{contract.digest}/envelope"

    async def signatures(who) -> int:
        return len(Envelope.from_bytes((await who.get(path)).content).signatures)

    assert await signatures(kita) == 0
    for one in nodes:
        await one.accept(contract)
    assert [await signatures(one) for one in nodes] == [1, 1, 1]
    await kita.verify(contract)
    await nord.verify(contract)
    assert [await signatures(one) for one in (kita, nord, iber, house.alice)] == [2, 2, 1, 3]
    await iber.verify(contract)
    assert await signatures(iber) == 4
    executed(contract, Envelope.from_bytes((await iber.get(path)).content))


async def test_the_text_for_people_travels_with_the_contract(house):
    nodes = await pool(house)
    contract = draft(house, nodes, prose=PROSE)
    body = {"contract": contract.canonical.decode(), "recipes": [b64(RECIPE)], "prose": b64(PDF + b"!")}
    wrong = await house.alice.post("/operator/contracts", body)
    assert (code(wrong), wrong.json()["clause"]) == ((422, "contract.annex-mismatch"), "prose-1")
    assert (await house.alice.post("/operator/contracts", body | {"prose": b64(PDF)})).status_code == 201
    answer = await nodes[0].get(f"/contracts/{contract.digest}/prose")
    assert (answer.content, answer.headers["content-type"]) == (PDF, "application/pdf")
    await all_sign(nodes, contract)
    (final,) = house.entries(EntryType.CONTRACT_FINALIZED)
    assert final.pub["prose"] == digest(PDF)


async def test_a_text_for_people_that_nobody_sent_is_not_there(house):
    nodes, contract = await opened(house)
    assert code(await nodes[0].get(f"/contracts/{contract.digest}/prose")) == (404, "request.not-found")
    body = {"contract": contract.canonical.decode(), "recipes": [b64(RECIPE)], "prose": b64(PDF)}
    assert code(await house.alice.post("/operator/contracts", body)) == (422, "contract.annex-mismatch")


async def test_for_who_is_no_party_a_negotiation_does_not_exist(house):
    (kita, *_), contract = await opened(house)
    rival = await house.member("rival")
    view = await kita.view(contract)
    nothing = await rival.get("/negotiations/neg_" + "a" * 16)
    theirs = await rival.get(f"/negotiations/{view['id']}")
    assert code(theirs) == code(nothing) == (404, "request.not-found")
    assert theirs.json()["need"] == nothing.json()["need"]
    message = spoken(view, "accept", rival.key, now_ms=house.clock.ms)
    posted = await rival.post(f"/negotiations/{view['id']}/messages", {"message": message.to_json()})
    assert code(posted) == (404, "request.not-found")


async def test_operators_see_states_and_no_messages(house):
    (kita, *_), contract = await opened(house)
    await kita.accept(contract)
    name = (await kita.view(contract))["id"]
    view = (await house.alice.get(f"/negotiations/{name}")).json()
    assert (view["lane"], view["messages"]) == (None, [])
    assert view["lanes"]["kita"] == "ACCEPTED"
    assert view["waiting_for"] == ["iber", "nord"]


async def test_operators_see_what_a_counter_offer_changed(house):
    (kita, *_), contract = await opened(house)
    await kita.counter(await kita.view(contract), tighter(contract))
    name = (await kita.view(tighter(contract)))["id"]
    view = (await house.alice.get(f"/negotiations/{name}")).json()
    assert [one["field"] for one in view["diff"]] == ["epsilon_total"]


async def test_an_auditor_who_is_enrolled_sees_states_and_has_no_lane(house):
    nodes = await pool(house)
    audit = await house.member("audit")
    contract = with_auditor(draft(house, nodes), audit)
    assert (await house.alice.offer(contract)).status_code == 201
    view = await audit.view(contract)
    assert (view["lane"], view["messages"], view["lanes"]["kita"]) == (None, [], "OFFERED")
    message = spoken(await nodes[0].view(contract), "accept", audit.key, now_ms=house.clock.ms)
    refused = await audit.post(f"/negotiations/{view['id']}/messages", {"message": message.to_json()})
    assert code(refused) == (404, "request.not-found")
    await all_sign(nodes, contract)


def with_auditor(contract, audit):
    tree = contract.document
    party = {
        "clause": "party-audit",
        "party": "audit",
        "org": audit.org,
        "role": "auditor",
        "group": "audit",
        "legal_name": "Audit GmbH",
        "country": "DE",
        "key": key_text(audit.key.public),
    }
    return from_tree(tree | {"parties": [*tree["parties"], party]})


async def test_who_was_left_out_by_a_counter_offer_sees_its_own_end_and_nothing_new(house):
    nodes, contract = await opened(house, "hanbit", "iber", "kita", "nord")
    hanbit, iber, kita, nord = nodes
    smaller = draft(house, [iber, kita, nord])
    assert smaller.contract_id == contract.contract_id
    assert (await kita.counter(await kita.view(contract), smaller)).status_code == 200
    name = (await kita.view(smaller))["id"]
    view = await hanbit.view(name)
    assert (view["state"], view["digest"], view["lanes"]) == (
        "terminated",
        contract.digest,
        {"hanbit": "TERMINATED"},
    )
    assert view["closed"]["code"] == "superseded-by-round-2"
    assert types(view) == ["offer", "terminate"]
    assert smaller.digest.encode() not in canonical(view)
    assert code(await hanbit.get(f"/contracts/{smaller.digest}"))[0] == 404
    late = await hanbit.say(view, "accept")
    assert code(late) == (409, "negotiation.superseded")
    assert "diff" not in late.json()
    await all_sign([iber, kita, nord], smaller)


async def test_a_newcomer_of_a_counter_offer_gets_a_lane(house):
    nodes = await pool(house, "hanbit", "iber", "kita", "nord")
    hanbit, iber, kita, nord = nodes
    contract = draft(house, [iber, kita, nord])
    await house.alice.offer(contract)
    larger = draft(house, nodes)
    assert (await kita.counter(await kita.view(contract), larger)).status_code == 200
    view = await hanbit.view(larger)
    assert (types(view), view["diff"]) == (["offer"], [])
    await all_sign(nodes, larger)


async def test_a_newcomer_of_a_successor_is_not_shown_what_was_before_it(house):
    nodes = await pool(house, "hanbit", "iber", "kita", "nord")
    hanbit, *others = nodes
    first = await final_contract(house, others)
    house.clock.ms = IN_TERM_MS
    assert (await say(others[0], first, "admit", subject=hanbit.org)).status_code == 200
    later = {
        "sign_by": "2027-03-01T00:00:00Z",
        "term": first.document["term"] | {"effective": "2027-03-02T00:00:00Z"},
    }
    second = draft(house, nodes, version=2, supersedes=first.digest, **later)
    assert (await house.alice.offer(second)).status_code == 201
    assert (await hanbit.view(second))["diff"] == []
    assert "party-hanbit" in {one["clause"] for one in (await others[0].view(second))["diff"]}
    assert code(await hanbit.get(f"/contracts/{first.digest}"))[0] == 404
    await all_sign(nodes, second)


async def test_the_diff_starts_from_what_the_caller_saw_last(house):
    (kita, nord, _), contract = await opened(house)
    second = tighter(contract)
    third = tighter(contract, title="Another pool")
    await kita.counter(await kita.view(contract), second)
    await kita.counter(await kita.view(second), third)
    name = (await kita.view(third))["id"]

    async def fields(after: int) -> list[str]:
        return sorted(one["field"] for one in (await nord.view(name, after=after))["diff"])

    assert await fields(0) == ["title"]  # against the offer before
    assert await fields(1) == ["epsilon_total", "title"]  # it has the first offer only
    assert await fields(3) == ["title"]
    assert await fields(5) == []  # it has the newest


async def test_a_poll_is_held_until_something_is_said(house):
    (kita, nord, iber), contract = await opened(house)
    view = await nord.view(contract)
    held = asyncio.ensure_future(nord.view(view["id"], after=1, wait_s=30))
    await turns()
    assert not held.done()
    await kita.accept(contract)  # nothing is said to nord
    await turns()
    assert not held.done()
    await iber.counter(await iber.view(contract), tighter(contract))
    assert code_of_held(await asyncio.wait_for(held, 5)) == ("open", "OFFERED")


def code_of_held(view) -> tuple[str, str]:
    return view["state"], view["lane"]["state"]


async def turns(times: int = 30) -> None:
    """Lets everything go on that is ready."""
    for _ in range(times):
        await asyncio.sleep(0)


async def test_a_poll_ends_with_the_round_also_where_nothing_is_said(house):
    (kita, nord, iber), contract = await opened(house)
    for one in (kita, nord, iber):
        await one.accept(contract)
    name = (await nord.view(contract))["id"]
    held = asyncio.ensure_future(nord.view(name, after=3, wait_s=30))
    await turns()
    await iber.refuse(contract)
    assert code_of_held(await asyncio.wait_for(held, 5)) == ("terminated", "AGREED")
    again = await asyncio.wait_for(nord.view(name, after=3, wait_s=30), 5)
    assert again["messages"] == []


async def test_a_newer_poll_sends_the_older_one_home(house):
    (_, nord, _), contract = await opened(house)
    name = (await nord.view(contract))["id"]
    older = asyncio.ensure_future(nord.view(name, after=1, wait_s=30))
    await turns()
    newer = asyncio.ensure_future(nord.view(name, after=1, wait_s=30))
    await turns()
    assert older.done()
    assert not newer.done()
    house.services.drain()
    assert (await asyncio.wait_for(newer, 5))["messages"] == []


async def test_a_broker_that_stops_holds_no_poll(house):
    (_, nord, _), contract = await opened(house)
    name = (await nord.view(contract))["id"]
    house.services.drain()
    assert (await asyncio.wait_for(nord.view(name, after=1, wait_s=30), 5))["state"] == "open"


async def test_a_poll_is_held_for_thirty_seconds_at_most(house):
    (_, nord, _), contract = await opened(house)
    name = (await nord.view(contract))["id"]
    refused = await nord.get(f"/negotiations/{name}?after=0&wait_s=31")
    assert code(refused) == (422, "request.invalid")


async def test_a_wait_ends_with_its_time():
    assert not await Bell().heard("neg_" + "a" * 16, "key", 0)


async def test_a_missed_deadline_ends_the_round_when_somebody_looks(house):
    (kita, nord, iber), contract = await opened(house)
    await kita.accept(contract)
    name = (await kita.view(contract))["id"]
    house.clock.ms += 7 * DAY
    assert (await nord.view(name))["closed"]["code"] == "negotiation.deadline"
    late = await iber.say(await iber.view(name), "accept")
    assert code(late) == (409, "negotiation.deadline")
    assert len(house.entries(EntryType.CONTRACT_TERMINATED)) == 1


async def test_the_list_shows_no_round_that_is_overdue(house):
    (kita, *_), _ = await opened(house)
    house.clock.ms += 14 * DAY
    (line,) = (await kita.get("/contracts")).json()["contracts"]
    assert (line["state"], set(line["lanes"].values())) == ("terminated", {"TERMINATED"})


async def test_a_late_message_ends_the_round_and_is_refused(house):
    (kita, *_), contract = await opened(house)
    view = await kita.view(contract)
    house.clock.ms += 14 * DAY
    refused = await kita.say(view, "accept")
    assert code(refused) == (409, "negotiation.deadline")
    assert state_of_text(house, contract.digest) == "terminated"


async def test_deadlines_are_kept_where_nobody_looks(house):
    _, contract = await opened(house)
    house.clock.ms += 14 * DAY
    house.services.desk.changed("neg_" + "a" * 16)  # as each change of any negotiation does
    await turns()
    assert state_of_text(house, contract.digest) == "terminated"


@pytest.mark.parametrize("kind", [LogUnavailableError, InvariantError])
async def test_the_keeper_of_deadlines_neither_spins_nor_ends_while_nothing_can_be_written(house, kind):
    _, contract = await opened(house)
    writer, tried = house.services.writer, []

    async def refuse(_work):
        tried.append(1)
        raise kind(need="a disk", found="none", remedy="wait")

    house.services.desk._writer = type("W", (), {"run": staticmethod(refuse)})()
    house.clock.ms += 14 * DAY
    house.services.desk.changed("neg_" + "a" * 16)
    await turns(200)
    assert len(tried) == 1
    house.services.desk._writer = writer
    house.services.desk.changed("neg_" + "a" * 16)
    await turns()
    assert state_of_text(house, contract.digest) == "terminated"


async def test_an_overdue_round_can_be_followed_by_another_text(house):
    nodes, contract = await opened(house)
    house.clock.ms += 14 * DAY
    assert (await house.alice.offer(tighter(contract))).status_code == 201
    await all_sign(nodes, tighter(contract))


async def test_a_negotiation_goes_on_after_a_restart(tmp_path):
    async with open_house(tmp_path / "broker") as house:
        nodes = await pool(house)
        contract = draft(house, nodes)
        await house.alice.offer(contract)
        for one in nodes:
            await one.accept(contract)
        await nodes[0].verify(contract)
    async with open_house(tmp_path / "broker") as house:
        for one in nodes:
            one.house = house
        for one in nodes[1:]:
            answer = await one.verify(contract)
        assert answer.json()["state"] == "finalized"


async def test_deadlines_that_passed_while_nobody_served_are_kept_at_the_start(tmp_path):
    async with open_house(tmp_path / "broker") as house:
        _, contract = await opened(house)
    async with open_house(tmp_path / "broker", clock=HandClock(house.clock.ms + 14 * DAY)) as house:
        await turns()
        assert state_of_text(house, contract.digest) == "terminated"


async def test_an_auditor_accepts_the_log_of_counter_offers_and_of_rounds_that_ended(house, tmp_path):
    nodes, contract = await opened(house)
    kita, nord, _ = nodes
    counter, body = tighter(contract, prose=PROSE), {"prose": b64(PDF), "recipes": []}
    body["contract"] = counter.canonical.decode()
    answer = await kita.say(await kita.view(contract), "request", body=body, digest=counter.digest)
    assert answer.status_code == 200, answer.text
    assert (await nord.get(f"/contracts/{counter.digest}/prose")).content == PDF
    await all_sign(nodes, counter)
    other = draft(house, nodes, contract_id="ctr_" + "b" * 16)
    await house.alice.offer(other)
    await nord.refuse(other)
    assert [one for one in house.kinds() if one.startswith("contract.")] == [
        "contract.proposed",
        "contract.proposed",
        *["contract.signed"] * 3,
        "contract.finalized",
        "contract.proposed",
        "contract.terminated",
    ]
    report = audited(house, tmp_path / "bundle.zip")
    assert [str(one) for one in report.findings if one.severity == "error"] == []


def audited(house: House, path: Path):
    services = house.services
    export(
        services.store,
        services.writer,
        path,
        policy=services.policy,
        software=version("iriai"),
        contracts=services.contracts.documents(),
    )
    return verify(path.read_bytes(), parse_policy(services.policy))


async def test_the_time_of_a_message_of_the_broker_is_the_brokers(house):
    (kita, *_), contract = await opened(house)
    (one,) = (await kita.view(contract))["messages"]
    payload = parse(Envelope.from_json(one["message"]).payload)
    assert payload["at"] == iso_s(house.clock.ms)
    assert to_ms(payload["at"]) <= house.clock.ms
