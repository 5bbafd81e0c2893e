# SPDX-License-Identifier: Apache-2.0
"""Members who wear a contract's machinery down: texts that had ended, copies, floods, back dates, large facts."""

from __future__ import annotations

import copy
import threading
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from broker.contracts import history
from broker.contracts.desk import NegotiationDesk
from broker.contracts.pools import find_pool
from broker.log.bundle import export
from broker.log.errors import LogFrozenError, LogUnavailableError
from broker.store.tables import contract_notice
from policies.contract import evaluate, from_tree, request_from_json, request_to_json
from policies.contract.errors import NoticeOrderError, RequestMalformedError
from policies.contract.lifecycle import advance, begin, follow
from policies.contract.notices import Notice, seal_notice
from policies.identity import key_text
from policies.limits import FACT_ITEMS, FACT_LISTS, INTEGER_MAX, NOTICES_PER_PARTY, PARTIES
from policies.log.entries import EntryType
from policies.log.policy import parse_policy
from policies.ports import to_ms
from policies.signing import Envelope
from policies.verify import verify
from tests.brokersim import House, NodeSim, draft, final_contract, open_house, pool
from tests.contractsim import CONTRIBUTORS, STATE, contract, release
from tests.contractsim import join as join_request
from tests.contractsim import key_of as private
from tests.noticespeech import posted, said, say

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract
    from policies.contract.lifecycle import Life

FOUR = ("kita", "nord", "iber", "hanbit")
DAY_MS = 86_400_000


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


@pytest.fixture
async def nodes(house: House) -> dict[str, NodeSim]:
    return {one.name: one for one in await pool(house, *FOUR)}


@pytest.fixture
async def signed(house: House, nodes: dict[str, NodeSim]) -> Contract:
    found = await final_contract(house, list(nodes.values()))
    house.clock.ms = to_ms(found.term.effective)
    return found


def code(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def errors(house: House, path: Path) -> list[str]:
    """What an auditor finds now."""
    own = house.services
    export(
        own.store, own.writer, path, policy=own.policy, software="0.1.0", contracts=own.contracts.documents()
    )
    found = verify(path.read_bytes(), parse_policy(own.policy)).findings
    return [str(one) for one in found if one.severity == "error"]


def other(text: Contract, **changes: Any) -> Contract:
    return from_tree(text.document | changes)


# --- texts that have ended ---


async def test_a_counter_offer_of_a_text_that_has_ended_is_refused_like_an_offer(house, nodes, tmp_path):
    kita, nord, *_ = nodes.values()
    ended = draft(house, list(nodes.values()))
    await house.alice.offer(ended)
    await nord.refuse(ended, code="no.thanks")
    house.clock.ms += 60_000
    now = other(ended, title="Another pool")
    assert (await house.alice.offer(now)).status_code == 201
    view = await kita.view(now)
    assert code(await house.alice.offer(ended)) == (409, "contract.offer-conflict")
    assert code(await kita.counter(view, ended)) == (409, "contract.offer-conflict")
    after = await nord.view(view["id"])
    assert (after["digest"], after["round"]) == (now.digest, 1)
    for node in nodes.values():
        assert (await node.accept(now)).status_code == 200
    assert errors(house, tmp_path / "bundle.zip") == []


async def test_one_negotiation_that_cannot_be_ended_keeps_no_other_deadline_waiting(house, nodes):
    text = draft(house, list(nodes.values()))
    texts = [other(text, contract_id=f"ctr_{letter * 16}", title=letter) for letter in "bcdefg"]
    for one in texts:
        assert (await house.alice.offer(one)).status_code == 201
    kita = nodes["kita"]
    names = [await kita.negotiation(one) for one in texts]
    stuck = min(names)  # the first that is looked at
    machine = house.services.negotiations
    look = machine.look

    def planted(session: Any, tx: Any, name: str) -> Any:
        if name == stuck:
            raise RuntimeError("a bug of ours")
        return look(session, tx, name)

    machine.look = planted
    house.clock.ms += 15 * DAY_MS
    assert await house.services.desk.bring_up_to_date() is False
    with house.services.store.read() as session:
        states = {name: find_pool(session, name).state for name in names}
    assert states.pop(stuck) == "open"
    assert set(states.values()) == {"terminated"}


@pytest.mark.parametrize("error", [LogFrozenError, LogUnavailableError])
async def test_a_log_that_takes_nothing_ends_the_look_at_once(house, nodes, error):
    text = draft(house, list(nodes.values()))
    for letter in "bc":
        await house.alice.offer(other(text, contract_id=f"ctr_{letter * 16}", title=letter))
    asked = []

    async def planted(name: str) -> None:
        asked.append(name)
        raise error(need="a log", found="none", remedy="wait")

    desk: NegotiationDesk = house.services.desk
    desk._look = planted
    house.clock.ms += 15 * DAY_MS
    assert await desk.bring_up_to_date() is False
    assert len(asked) == 1


# --- copies ---


async def test_a_notice_under_a_fresh_envelope_is_no_second_entry_and_the_audit_holds(
    house, nodes, signed, tmp_path
):
    kita = nodes["kita"]
    halt = said(house, signed, "halt", "kita")
    path = f"/contracts/{signed.digest}/notices"
    body = posted(kita, signed, halt)
    assert (await kita.post(path, body)).status_code == 200
    chain = kita.chain
    assert code(await kita.post(path, posted(kita, signed, halt))) == (409, "contract.notice-order")
    kita.chain = chain  # nothing of it was kept
    assert (await kita.post(path, body)).status_code == 200  # the same bytes are still the same
    assert len(house.entries(EntryType.CONTRACT_HALTED)) == 1
    for node in nodes.values():
        assert (await say(node, signed, "resume", refers=halt.digest)).status_code == 200
    assert errors(house, tmp_path / "bundle.zip") == []


async def test_a_message_id_used_thirty_times_is_one_incident(house, nodes):
    text = draft(house, list(nodes.values()))
    await house.alice.offer(text)
    kita, name = nodes["kita"], "msg_aaaaaaaaaaaaaaaa"
    await kita.say(await kita.view(text), "accept", id=name)
    view = await kita.view(text)
    for second in range(30):
        answer = await kita.say(view, "accept", id=name, at=f"2026-11-01T00:00:{second:02d}Z")
        assert code(answer) == (409, "negotiation.message-conflict")
    assert len(house.entries(EntryType.INCIDENT_DECLARED)) == 1


# --- floods of halts ---


def alive() -> Life:
    return begin(CONTRACT, finalized_at="2026-11-29T12:00:00Z")


CONTRACT = contract()
AT = "2027-03-01T08:00:00Z"
TERMS: dict[str, dict[str, Any]] = {
    "exit": {"choice": "retrain"},
    "attest": {"subject": "use:inspection;country:JP"},
}


def spoken(life: Life, kind: str, party: str, **terms: Any) -> tuple[Life, Notice]:
    fields = {"at": AT, "code": "reason"} | TERMS.get(kind, {}) | terms
    one = Notice(kind=kind, contract=CONTRACT.digest, party=party, seq=life.next_seq(party), **fields)
    return advance(CONTRACT, life, one), one


async def test_a_second_halt_of_a_party_is_kept_and_changes_nothing(house, nodes, signed, tmp_path):
    kita = nodes["kita"]
    first = (await say(kita, signed, "halt")).json()["halts"]
    for _ in range(5):
        assert code(await say(kita, signed, "halt")) == (409, "contract.notice-void")
    assert (await say(nodes["nord"], signed, "halt")).status_code == 200
    life = house.services.contracts.life(signed)
    assert [one.party for one in life.halts] == ["kita", "nord"]
    for halt in life.halts:
        for node in nodes.values():
            await say(node, signed, "resume", refers=halt.digest)
    assert house.services.contracts.state(signed).halted is False
    assert (await say(kita, signed, "halt")).json()["halts"] != first
    assert errors(house, tmp_path / "bundle.zip") == []


def test_who_halts_for_ever_uses_up_its_own_room_and_nobody_elses() -> None:
    life = alive()
    for _ in range(NOTICES_PER_PARTY):
        life, halt = spoken(life, "halt", "kita")
        for party in CONTRIBUTORS:
            life, _ = spoken(life, "resume", party, refers=halt.digest)
    with pytest.raises(NoticeOrderError):
        spoken(life, "halt", "kita")
    life, _ = spoken(life, "halt", "nord")
    life, _ = spoken(life, "exit", "iber")
    assert set(life.exited) == {"iber"}


async def test_the_answer_to_a_notice_does_not_grow_with_the_notices_before_it(house, nodes, signed):
    kita, sizes = nodes["kita"], []
    for _ in range(4):
        answer = await say(kita, signed, "attest", subject="use:inspection;country:JP")
        sizes.append(len(answer.content))
    assert sizes[-1] - sizes[1] < 100  # the head of its receipt
    assert "notices" not in answer.json()
    assert len((await kita.get(f"/contracts/{signed.digest}/lifecycle")).json()["notices"]) == 4


async def test_a_notice_is_read_once_however_many_came_before_it(house, nodes, signed, monkeypatch):
    counted, absorb = [], history.absorb

    def counting(*given: Any) -> Any:
        counted.append(1)
        return absorb(*given)

    monkeypatch.setattr(history, "absorb", counting)
    for number in range(20):
        kind = ("attest", "halt", "admit")[number % 3]
        subject = {"attest": "use:inspection;country:JP", "admit": "org_abcdefghijklmnop"}.get(kind)
        await say(nodes["kita"], signed, kind, **({} if subject is None else {"subject": subject}))
        await say(nodes["nord"], signed, "attest", subject="use:inspection;country:DE")
    assert len(counted) <= 40
    monkeypatch.undo()
    anew = history.Histories()
    with house.services.store.read() as session:
        assert anew.life(session, signed) == house.services.contracts.life(signed)


async def test_an_attestation_that_was_rolled_back_is_in_nobodys_life(house, nodes, signed):
    services, kita = house.services, nodes["kita"]
    one = said(house, signed, "attest", "kita", subject="use:weapons;country:JP")
    body = posted(kita, signed, one)
    member = services.directory.member(kita.org)
    brought = services.lives.read(signed, member, Envelope.from_json(body["notice"]), None)

    class PlantedError(Exception):
        """What a later step of the same unit of work does."""

    def work(session: Any, tx: Any) -> None:
        services.lives.take(session, tx, brought)
        assert services.contracts.life(signed, session).attested["kita"].use == "weapons"
        raise PlantedError

    with pytest.raises(PlantedError):
        await services.writer.run(work)
    await say(nodes["nord"], signed, "attest", subject="use:inspection;country:DE")
    life = services.contracts.life(signed)
    assert (set(life.attested), dict(life.seqs)) == ({"nord"}, {"nord": 1})


# --- who is away for good ---


async def test_a_halt_of_a_revoked_member_is_lifted_by_all_the_others_and_by_no_operator(
    house, nodes, signed, tmp_path
):
    halt = (await say(nodes["kita"], signed, "halt")).json()["halts"][0]
    assert (await house.remove(nodes["kita"].org, reason="key-stolen")).status_code == 200
    others = ("nord", "iber", "hanbit")
    for name in others:
        assert (await say(nodes[name], signed, "resume", refers=halt)).json()["standing"] == "HALTED"
    for name in others[:-1]:
        answer = await say(nodes[name], signed, "exit", choice="retrain", subject="kita")
        assert (answer.json()["standing"], answer.json()["exited"]) == ("HALTED", {})
    again = await say(nodes["nord"], signed, "exit", choice="retrain", subject="kita")
    assert code(again) == (409, "contract.notice-void")
    answer = await say(nodes[others[-1]], signed, "exit", choice="retrain", subject="kita")
    assert (answer.json()["standing"], set(answer.json()["exited"])) == ("ACTIVE", {"kita"})
    assert house.services.contracts.state(signed).exited_parties == ("kita",)
    assert errors(house, tmp_path / "bundle.zip") == []


def test_nobody_is_asked_out_by_fewer_than_all_the_others() -> None:
    life = alive()
    for party in CONTRIBUTORS[1:-1]:
        life, _ = spoken(life, "exit", party, subject=CONTRIBUTORS[0])
    assert life.exited == {}
    with pytest.raises(Exception, match="contributor"):
        spoken(life, "exit", "broker", subject=CONTRIBUTORS[0])
    with pytest.raises(Exception, match=r"contract\.refused"):
        spoken(life, "exit", CONTRIBUTORS[1], subject="broker")
    # the last one asks out somebody else: two halves are no whole
    life, _ = spoken(life, "exit", CONTRIBUTORS[-1], subject=CONTRIBUTORS[1])
    assert life.exited == {}
    # who is waited for leaves by itself: then it is unanimous, by the same notices for everybody
    life, _ = spoken(life, "exit", CONTRIBUTORS[-1])
    assert set(life.exited) == {CONTRIBUTORS[-1], CONTRIBUTORS[0]}


# --- back dates ---


@pytest.mark.parametrize("at", ["0001-01-01T00:00:00Z", "1970-01-01T00:00:00Z", "2026-06-01T00:00:00Z"])
async def test_a_notice_from_before_the_contract_was_final_is_refused(house, nodes, signed, at):
    for kind, terms in (("exit", {"choice": "retrain"}), ("halt", {})):
        answer = await say(nodes["kita"], signed, kind, at=at, **terms)
        assert code(answer) == (422, "contract.notice-malformed")
    with house.services.store.read() as session:
        assert session.execute(select(contract_notice)).all() == []


def test_a_notice_dated_before_the_one_before_it_is_refused_by_everybody() -> None:
    life, _ = spoken(alive(), "halt", "kita")
    with pytest.raises(NoticeOrderError):
        spoken(life, "exit", "kita", at="2027-03-01T07:59:59Z")
    later, _ = spoken(life, "exit", "kita", at=AT)
    assert set(later.exited) == {"kita"}
    envelopes = [
        seal_notice(
            Notice(
                kind="attest",
                contract=CONTRACT.digest,
                party="kita",
                seq=seq,
                at=at,
                code="reason",
                subject="use:inspection;country:JP",
            ),
            private("kita"),
        )
        for seq, at in ((1, AT), (2, "2027-03-01T07:59:59Z"))
    ]
    with pytest.raises(NoticeOrderError):
        follow(CONTRACT, envelopes, finalized_at="2026-11-29T12:00:00Z")


# --- facts ---


def joining(**facts: Any) -> dict[str, Any]:
    return request_to_json(join_request()) | facts


@pytest.mark.parametrize(
    "facts",
    [
        {"keys": {f"p{number}": "k" for number in range(PARTIES + 1)}},
        {"groups": {f"p{number}": "g" for number in range(PARTIES + 1)}},
        {"signers": ["kita"] * (FACT_ITEMS + 1)},
        {"version": INTEGER_MAX + 1},
        {"version": -(2**70)},
    ],
)
def test_a_fact_larger_than_any_contract_is_refused(facts: dict[str, Any]) -> None:
    with pytest.raises(RequestMalformedError):
        request_from_json(joining(**facts))


def test_a_list_of_cohorts_has_a_bound_too() -> None:
    many = [["kita"]] * (FACT_LISTS + 1)
    with pytest.raises(RequestMalformedError):
        request_from_json(request_to_json(release()) | {"earlier_cohorts": many})


def test_a_key_that_stands_for_two_parties_is_still_found() -> None:
    asked = join_request()
    shared = dict(asked.keys or {}) | {"nord": (asked.keys or {})["kita"]}
    found = evaluate(CONTRACT, STATE, replace(asked, keys=shared))
    assert any(one.check == "keys" and "kita" in one.found for one in found.refusals)


async def test_a_request_with_ten_thousand_keys_is_refused_before_it_is_judged(house, nodes, signed):
    keys = {f"p{number:05d}": f"k{number:05d}" for number in range(10_000)}
    body = {"request": joining(supersedes=signed.digest, keys=keys)}
    answer = await nodes["kita"].post(f"/contracts/{signed.digest}/evaluate", body)
    assert code(answer)[1] == "contract.request-malformed"


@pytest.mark.parametrize(
    "after", ["99999999999999999999999", "-99999999999999999999999", str(INTEGER_MAX + 1)]
)
async def test_a_place_in_the_log_beyond_all_integers_is_refused(house, nodes, signed, after):
    answer = await nodes["kita"].get(f"/contracts/{signed.digest}/decisions?after={after}")
    assert code(answer) == (422, "request.invalid")


# --- what a refusal tells ---


async def test_a_member_who_drafts_learns_no_name_of_a_member_that_it_guesses_at(house):
    nodes = await pool(house)
    secret = {"legal_name": "Sued Secret Robotics SE", "country": "AT", "group": "suedholding"}
    sued = await house.member("sued", **secret)
    text = draft(house, nodes)
    await house.alice.offer(text)
    guess = {
        "clause": "party-sued",
        "enforced_by": ["auditor", "broker", "gate", "node"],
        "party": "sued",
        "org": "org_aaaaaaaaaaaaaaaa",
        "role": "contributor",
        "group": "g",
        "legal_name": "x",
        "country": "DE",
        "key": key_text(sued.key.public),
    }
    tree = copy.deepcopy(text.document)
    tree["parties"] = sorted([*tree["parties"], guess], key=lambda one: one["clause"])
    answer = await nodes[0].counter(await nodes[0].view(text), from_tree(tree))
    assert code(answer) == (422, "contract.party-mismatch")
    assert answer.json()["need"] == "org as enrolled"
    assert not [one for one in (sued.org, *secret.values()) if one in answer.text]
    told = tree | {"contract_id": "ctr_zzzzzzzzzzzzzzzz"}
    answer = await house.alice.offer(from_tree(told))
    assert answer.json()["need"] == f"org {sued.org}, as enrolled"  # operators see what they enrolled


# --- who is waited for ---


async def test_a_text_is_read_beside_the_event_loop(house, nodes, monkeypatch):
    text = draft(house, list(nodes.values()))
    read, threads = house.services.offers.read, []

    def noted(*given: Any, **named: Any) -> Any:
        threads.append(threading.get_ident())
        return read(*given, **named)

    monkeypatch.setattr(house.services.offers, "read", noted)
    await house.alice.offer(text)
    kita = nodes["kita"]
    await kita.counter(await kita.view(text), other(text, title="Another pool"))
    assert len(threads) == 2
    assert threading.get_ident() not in threads
