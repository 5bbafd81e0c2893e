# SPDX-License-Identifier: Apache-2.0
"""One person alone against what takes two: own approvals, other digests, old ones, a world that changed meanwhile.

Where a check can be switched off, the attack is first shown to work without it.
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select, update

from broker.acts import service as acts_service
from broker.auth import proposals as machine
from broker.auth.proposals import PROPOSAL_TYPE, Evidence, signed_by
from broker.commands import log as log_commands
from broker.log.approvals import approve as approve_document
from broker.log.errors import LogApprovalError
from broker.membership.directory import Operator
from broker.store import tables
from policies.contract import from_tree
from policies.encoding import b64, canonical, digest, unb64
from policies.identity import SigningKey, key_text
from policies.limits import PROPOSAL_TTL_H
from policies.log.entries import EntryType
from policies.ports import iso_s, to_ms
from policies.signing import Envelope
from tests.brokersim import (
    HandClock,
    House,
    NodeSim,
    OperatorSim,
    Signer,
    draft,
    open_house,
    operator_key,
    pool,
)
from tests.nodeworld import IN_TERM_MS
from tests.noticespeech import say
from tests.succeedsim import looser, tightening_body, tighter
from tests.unit.test_broker_log_commands import entries, folder  # noqa: F401  a fixture
from tests.unit.test_witness_broker import FOUR, auditors_statement, register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract

HOUR = 3_600_000
INVALID = (401, "identity.signature-invalid")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        one.second_person = False
        yield one


def code(answer: Any) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


async def removal(house: House, who: OperatorSim | None = None) -> tuple[NodeSim, dict[str, Any]]:
    """A member whose removal alice has proposed."""
    kita = await house.member("kita")
    answer = await (who or house.alice).post(f"/operator/organisations/{kita.org}/revoke", {"reason": "test"})
    assert answer.status_code == 202, answer.text
    return kita, answer.json()["proposal"]


async def signed_by_all(
    house: House, contract: Contract | None = None, nodes: list[NodeSim] | None = None
) -> tuple[list[NodeSim], Contract]:
    """A contract that every contributor signed, and that alice offered."""
    nodes = nodes or await pool(house)
    contract = contract or draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    for step in ("accept", "verify"):
        for node in nodes:
            answer = await getattr(node, step)(contract)
            assert answer.status_code == 200, answer.text
    return nodes, contract


def state_of(house: House, org: str) -> str:
    return house.services.directory.member(org).state


def text_state(house: House, contract: Contract) -> str:
    table = tables.contract_document
    with house.services.store.read() as session:
        return str(session.scalar(select(table.c.state).where(table.c.digest == contract.digest)))


async def stands(house: House, proposal: dict[str, Any]) -> str:
    return str((await house.alice.get(f"/operator/proposals/{proposal['id']}")).json()["state"])


def actions(house: House, *names: str) -> list[tuple[str, str, str]]:
    """Operator, action and result of the log's actions of these names."""
    said = [one.pub for one in house.entries(EntryType.CONSOLE_ACTION)]
    return [(one["operator"], one["action"], one["result"]) for one in said if one["action"] in names]


# --- whose approval ---


async def test_nobody_approves_what_they_proposed_themselves(house, monkeypatch):
    kita, proposal = await removal(house)
    assert code(await house.alice.agree(proposal)) == (403, "proposal.own")
    assert state_of(house, kita.org) == "active"
    assert ("alice", "proposals.approve", "refused") in actions(house, "proposals.approve")

    def careless(found: Any, name: str, **more: Any) -> Any:
        """The machine with a name that stands behind nothing."""
        other = dataclasses.replace(found, behind=())
        done = machine.approve(other, name, **more)
        return dataclasses.replace(done, state=machine.State.APPROVED, decided_by=name, decided_ms=0)

    monkeypatch.setattr(acts_service, "approve", careless)
    assert (await house.alice.agree(proposal)).status_code == 200
    assert state_of(house, kita.org) == "revoked"


@pytest.mark.parametrize("how", ["passkey", "password"])
async def test_the_same_person_is_one_person_by_whichever_way_they_come(house, how):
    """Proposed with the key file; approved as the person of that name, who is logged in."""
    kita, proposal = await removal(house)
    person = Operator(name="alice", key=b"", active=True)

    def work(session: Any, tx: Any) -> None:
        house.services.acts.approve(
            session,
            tx,
            proposal["id"],
            person,
            digest(b"request"),
            digest=proposal["digest"],
            evidence=lambda _subject: Evidence(how=how, data=b""),
        )

    with pytest.raises(machine.ProposalOwnError):
        await house.services.writer.run(work)
    assert (state_of(house, kita.org), await stands(house, proposal)) == ("active", "proposed")


async def test_one_word_of_a_person_does_not_count_twice(house):
    """Nobody of the broker proposed a counter-offer's text: one of them who approves it twice is still one."""
    (kita, nord, iber), contract = await signed_by_all(house)
    counter = from_tree(contract.document | {"title": "Another pool", "contract_id": "ctr_" + "c" * 16})
    first = from_tree(contract.document | {"contract_id": "ctr_" + "c" * 16})
    assert (await house.alice.offer(first)).status_code == 201
    assert (await kita.counter(await kita.view(first), counter)).status_code == 200
    for step in ("accept", "verify"):
        for node in (kita, nord, iber):
            assert (await getattr(node, step)(counter)).status_code == 200
    (waiting,) = [one for one in house.waiting() if one["what"]["contract"] == counter.digest]
    assert (waiting["proposer"], waiting["behind"]) == ("alice", [])
    answer = (await house.bob.agree(waiting)).json()
    assert (answer["proposal"]["state"], answer["result"]) == ("proposed", None)
    assert code(await house.bob.agree(waiting)) == (403, "proposal.own")
    assert text_state(house, counter) == "offered"
    assert (await house.alice.agree(waiting)).json()["result"]["state"] == "finalized"
    assert text_state(house, counter) == "finalized"


async def test_another_persons_evidence_is_not_ones_own(house):
    """Bob's request, with a signature by alice over the subject; and a confirmation that alice gave."""
    kita, proposal = await removal(house)
    assert code(await house.bob.agree(proposal, key=house.alice.key)) == INVALID

    class Word:
        name = "alice"

        def __call__(self, _subject: bytes) -> Evidence:
            return Evidence(how="passkey", data=b"")

    def work(session: Any, tx: Any) -> None:
        house.services.acts.approve(
            session,
            tx,
            proposal["id"],
            Operator(name="bob", key=b"", active=True),
            digest(b"request"),
            digest=proposal["digest"],
            evidence=Word(),
        )

    with pytest.raises(acts_service.EvidenceError):
        await house.services.writer.run(work)
    assert state_of(house, kita.org) == "active"
    assert (await house.bob.agree(proposal)).status_code == 200


@pytest.mark.parametrize("role", ["auditor", "member", None])
async def test_who_has_no_role_for_it_approves_nothing(house, monkeypatch, role):
    kita, proposal = await removal(house)
    monkeypatch.setattr(
        house.services.acts, "role_of", lambda _s, name: "operator" if name == "alice" else role
    )
    assert code(await house.bob.agree(proposal)) == (403, "proposal.role")
    refused = await house.bob.post(f"/operator/proposals/{proposal['id']}/refuse", {"reason": "test"})
    assert code(refused) == (403, "proposal.role")
    assert (state_of(house, kita.org), await stands(house, proposal)) == ("active", "proposed")
    monkeypatch.setattr(
        house.services.acts, "role_of", lambda _s, name: {"alice": "operator"}.get(name, "approver")
    )
    assert (await house.bob.agree(proposal)).status_code == 200


async def test_an_approver_proposes_nothing(house, monkeypatch):
    kita = await house.member("kita")
    monkeypatch.setattr(house.services.acts, "role_of", lambda _session, _name: "approver")
    answer = await house.alice.post(f"/operator/organisations/{kita.org}/revoke", {"reason": "test"})
    assert code(answer) == (403, "proposal.role")


async def test_members_see_no_proposal(house):
    kita, proposal = await removal(house)
    for path in ("/operator/proposals", f"/operator/proposals/{proposal['id']}"):
        assert code(await kita.get(path)) == (403, "identity.wrong-role")
    assert code(await kita.post(f"/operator/proposals/{proposal['id']}/refuse", {}))[0] == 403


async def test_who_was_disabled_meanwhile_stands_behind_nothing(house):
    kita, proposal = await removal(house)

    def disable(session: Any, _tx: Any) -> None:
        session.execute(update(tables.person).where(tables.person.c.name == "alice").values(state="disabled"))

    await house.services.writer.run(disable)
    assert code(await house.bob.agree(proposal)) == (409, "proposal.void")
    assert state_of(house, kita.org) == "active"


# --- of what ---


async def test_an_approval_of_another_digest_is_refused(house, monkeypatch):
    kita, proposal = await removal(house)
    other = digest(b"something else")
    assert code(await house.bob.agree(proposal, digest=other)) == (409, "proposal.digest")
    assert state_of(house, kita.org) == "active"
    real = machine.approve

    def careless(found: Any, name: str, *, digest: str, **more: Any) -> Any:
        return real(found, name, digest=found.digest, **more)

    monkeypatch.setattr(acts_service, "approve", careless)
    assert (await house.bob.agree(proposal, digest=other)).status_code == 200


async def test_a_signature_over_other_bytes_is_refused(house):
    """Of the same act about another member; of the same bytes under another payload type."""
    kita, proposal = await removal(house)
    nord = await house.member("nord")
    made = await house.alice.post(f"/operator/organisations/{nord.org}/revoke", {"reason": "test"})
    other = made.json()["proposal"]
    borrowed = Envelope.seal(unb64(other["subject"]), PROPOSAL_TYPE, house.bob.key).signatures[0][1]
    assert code(await house.bob.agree(proposal, signature=b64(borrowed))) == INVALID
    typed = Envelope.seal(unb64(proposal["subject"]), "application/json", house.bob.key).signatures[0][1]
    assert code(await house.bob.agree(proposal, signature=b64(typed))) == INVALID
    assert [state_of(house, one.org) for one in (kita, nord)] == ["active", "active"]


async def test_an_approval_is_of_one_proposal_and_not_of_the_next_one_about_the_same(house):
    """Refused by bob after all; proposed again with the same words; bob's old signature is sent once more."""
    kita, proposal = await removal(house)
    signature = b64(Envelope.seal(unb64(proposal["subject"]), PROPOSAL_TYPE, house.bob.key).signatures[0][1])
    name = proposal["id"]
    assert (await house.bob.post(f"/operator/proposals/{name}/refuse", {"reason": "test"})).status_code == 200
    again = await house.alice.post(f"/operator/organisations/{kita.org}/revoke", {"reason": "test"})
    second = again.json()["proposal"]
    assert second["what"] == proposal["what"]
    assert code(await house.bob.agree(second, signature=signature)) == INVALID
    assert code(await house.bob.agree(proposal)) == (409, "proposal.closed")
    assert state_of(house, kita.org) == "active"


async def test_a_copy_of_an_approval_does_nothing_again(house):
    """The request itself is a replay; a fresh request with the same signature finds a proposal that is over."""
    kita, proposal = await removal(house)
    signature = b64(Envelope.seal(unb64(proposal["subject"]), PROPOSAL_TYPE, house.bob.key).signatures[0][1])
    path = f"/operator/proposals/{proposal['id']}/approve"
    request = house.bob.signed(
        "POST", path, canonical({"digest": proposal["digest"], "signature": signature})
    )
    assert (await house.http.send(request)).status_code == 200
    count = len(house.kinds())
    assert code(await house.http.send(request)) == (409, "identity.replayed")
    assert code(await house.bob.agree(proposal)) == (409, "proposal.closed")
    assert (state_of(house, kita.org), len(house.kinds())) == ("revoked", count)


# --- when ---


@pytest.mark.parametrize("late_ms", [-1, 0])
async def test_after_its_time_nobody_approves_it(house, late_ms):
    kita, proposal = await removal(house)
    house.clock.ms += PROPOSAL_TTL_H * HOUR + late_ms
    answer = await house.bob.agree(proposal)
    if late_ms < 0:
        assert answer.status_code == 200
        return
    assert code(answer) == (410, "proposal.expired")
    assert (state_of(house, kita.org), await stands(house, proposal)) == ("active", "expired")
    house.clock.ms -= 2 * HOUR  # a clock that goes back opens nothing again
    assert code(await house.bob.agree(proposal)) == (410, "proposal.expired")
    again = await house.alice.post(f"/operator/organisations/{kita.org}/revoke", {"reason": "test"})
    assert again.status_code == 202


# --- in which world ---


async def test_a_world_that_changed_makes_it_void(house, monkeypatch):
    """Another key of the member than the one that was shown."""
    kita, proposal = await removal(house)

    def change(session: Any, _tx: Any) -> None:
        same = tables.organisation.c.org_id == kita.org
        session.execute(update(tables.organisation).where(same).values(legal_name="Someone Else GmbH"))

    await house.services.writer.run(change)
    with monkeypatch.context() as patched:
        patched.setattr(acts_service.Acts, "_changed", lambda *_: None)
        subject = unb64(proposal["subject"])
        assert b"Kita GmbH" in subject  # without the check bob's word would count for what he did not see
    assert code(await house.bob.agree(proposal)) == (409, "proposal.void")
    assert (state_of(house, kita.org), await stands(house, proposal)) == ("active", "void")
    assert ("bob", "org.remove", "refused") in actions(house, "org.remove")
    assert code(await house.bob.agree(proposal)) == (409, "proposal.closed")


async def test_what_happened_already_does_not_happen_again(house):
    """Suspended, its restoration proposed; restored and suspended again meanwhile: the old word is void."""
    kita = await house.member("kita")
    path = f"/operator/organisations/{kita.org}"

    async def suspend() -> None:
        assert (await house.bob.post(f"{path}/suspend", {"reason": "test"})).status_code == 200

    await suspend()
    old = (await house.alice.post(f"{path}/restore", {"reason": "first"})).json()["proposal"]
    new = (await house.alice.post(f"{path}/restore", {"reason": "second"})).json()["proposal"]
    assert (await house.bob.agree(new)).status_code == 200
    house.clock.ms += 1
    await suspend()
    assert code(await house.bob.agree(old)) == (409, "proposal.void")
    assert state_of(house, kita.org) == "suspended"


# --- a contract ---


async def test_a_single_operator_activates_nothing(house):
    """Everybody has signed; alice offers it again, approves by her own key, and asks for a run."""
    nodes, contract = await signed_by_all(house)
    view = await nodes[0].view(contract)
    assert (view["state"], view["approved"], view["waiting_for"]) == ("open", False, [contract.broker.party])
    assert set(view["lanes"].values()) == {"VERIFIED"}
    (waiting,) = house.waiting()
    again = (await house.alice.offer(contract)).json()
    assert (again["proposal"], again["state"], again["approved"]) == (waiting["id"], "offered", False)
    assert code(await house.alice.agree(waiting)) == (403, "proposal.own")
    run = await house.alice.post(
        "/operator/runs", {"contract": contract.digest, "recipe": contract.recipes[0].id}
    )
    assert code(run) == (403, "contract.not-executed")
    assert EntryType.CONTRACT_FINALIZED.value not in house.kinds()
    done = (await house.bob.agree(waiting)).json()
    assert done["result"]["state"] == "finalized"
    assert house.kinds()[-3:] == ["console.action", "console.action", "contract.finalized"]
    assert actions(house, "contract.activate") == [
        ("alice", "contract.activate", "done"),
        ("bob", "contract.activate", "done"),
    ]
    assert (await nodes[0].view(contract))["state"] == "finalized"


async def test_without_the_hold_the_last_signature_alone_makes_it_final(house, monkeypatch):
    from policies.contract.negotiation.pool import Pool

    monkeypatch.setattr(Pool, "approved", property(lambda _pool: True))
    _, contract = await signed_by_all(house)
    assert text_state(house, contract) == "finalized"


async def test_an_approval_before_the_last_signature_holds_for_that_text_and_for_no_other(house):
    nodes = await pool(house)
    kita, *others = nodes
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    (waiting,) = house.waiting()
    assert (await house.bob.agree(waiting)).json()["result"]["state"] == "open"
    counter = from_tree(contract.document | {"title": "Another pool"})
    assert (await kita.counter(await kita.view(contract), counter)).status_code == 200
    for step in ("accept", "verify"):
        for node in nodes:
            assert (await getattr(node, step)(counter)).status_code == 200
    assert text_state(house, counter) == "offered"
    assert (await others[0].view(counter))["waiting_for"] == [counter.broker.party]
    await house.settle(counter.digest)
    assert text_state(house, counter) == "finalized"


async def test_a_word_about_a_text_whose_place_another_one_took_is_void(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    (waiting,) = house.waiting()
    counter = from_tree(contract.document | {"title": "Another pool"})
    assert (await nodes[0].counter(await nodes[0].view(contract), counter)).status_code == 200
    assert code(await house.bob.agree(waiting)) == (409, "proposal.closed")
    assert await stands(house, waiting) == "void"


@pytest.mark.parametrize("end", ["withdraw", "suspended"])
async def test_what_waits_is_over_with_its_round(house, end):
    nodes, contract = await signed_by_all(house)
    (waiting,) = house.waiting()
    if end == "withdraw":
        name = await nodes[0].negotiation(contract)
        body = {"code": "terms.other", "clause": None, "text": None}
        assert (await house.alice.post(f"/operator/negotiations/{name}/terminate", body)).status_code == 200
    else:
        path = f"/operator/organisations/{nodes[1].org}/suspend"
        assert (await house.alice.post(path, {"reason": "test"})).status_code == 200
    refused = await house.bob.agree(waiting)
    assert code(refused)[1] in {"proposal.closed", "proposal.void"}
    assert (await stands(house, waiting), text_state(house, contract)) == ("void", "terminated")
    assert EntryType.CONTRACT_FINALIZED.value not in house.kinds()


async def test_what_nobody_approved_by_the_last_day_to_sign_is_no_contract(house):
    """The proposal still lives, the text does not; what everybody signed binds nobody."""
    nodes = await pool(house)
    soon = iso_s((house.clock.ms // 1000 + 3_600) * 1000)
    contract = draft(house, nodes, sign_by=soon)
    await signed_by_all(house, contract, nodes)
    (waiting,) = house.waiting()
    house.clock.ms = to_ms(soon)
    assert code(await house.bob.agree(waiting))[1] in {"proposal.closed", "proposal.void"}
    assert (await stands(house, waiting), text_state(house, contract)) == ("void", "terminated")
    closed = (await house.alice.get(f"/negotiations/{waiting['what']['negotiation']}")).json()["closed"]
    assert (closed["code"], "second person" in closed["text"]) == ("negotiation.deadline", True)


async def test_a_round_that_waits_goes_on_after_a_restart(tmp_path):
    async with open_house(tmp_path / "b") as house:
        house.second_person = False
        _, contract = await signed_by_all(house)
    async with open_house(tmp_path / "b", clock=HandClock(house.clock.ms + 1)) as house:
        for who in (house.alice, house.bob):
            who.entropy.seed += b" again"
        (waiting,) = house.waiting()
        assert (await house.bob.agree(waiting)).json()["result"]["state"] == "finalized"
        assert text_state(house, contract) == "finalized"


async def test_a_successor_that_a_contributor_opened_needs_two_of_the_broker(house):
    """Nobody of the broker offered it: one approval is one."""
    house.second_person = True
    nodes, first = await signed_by_all(house)
    house.second_person = False
    house.clock.ms = IN_TERM_MS
    second = looser(first)
    body = {"kind": "change", "contract": second.canonical.decode(), "recipes": []}
    answer = await nodes[0].post(f"/contracts/{first.digest}/amendments", body)
    assert answer.status_code == 201, answer.text
    (waiting,) = house.waiting()
    assert (waiting["proposer"], waiting["behind"]) == ("party:kita", [])
    assert (await house.alice.agree(waiting)).json()["result"] is None
    assert code(await house.alice.agree(waiting)) == (403, "proposal.own")
    assert (await house.bob.agree(waiting)).json()["result"]["state"] == "open"


async def test_a_tightening_waits_for_nobody_of_the_broker(house):
    """It allows nothing that two people's contract refuses: see docs/adr."""
    house.second_person = True
    nodes, first = await signed_by_all(house)
    house.second_person = False
    house.clock.ms = IN_TERM_MS
    new = tighter(first)
    answer = await nodes[0].post(f"/contracts/{first.digest}/amendments", tightening_body(nodes[0], new))
    assert answer.status_code == 201, answer.text
    assert (text_state(house, new), house.waiting()) == ("finalized", [])
    assert (await say(nodes[0], first, "halt")).status_code in {200, 201}


# --- an organisation, a witness ---


async def test_one_operator_stops_at_once_and_ends_nothing(house):
    """Suspended: refused and disconnected, its keys kept; only two people let it in again, or remove it."""
    kita = await house.member("kita")
    path = f"/operator/organisations/{kita.org}"
    assert (await house.alice.post(f"{path}/suspend", {"reason": "test"})).json()["state"] == "suspended"
    assert code(await kita.get("/contracts")) == (403, "membership.suspended")
    assert (await kita.me())["state"] == "suspended"
    assert kita.node not in house.fleet.enrolled
    assert code(await house.alice.post(f"{path}/suspend", {"reason": "again"})) == (
        409,
        "membership.not-waiting",
    )
    back = (await house.alice.post(f"{path}/restore", {"reason": "test"})).json()["proposal"]
    assert code(await house.alice.agree(back)) == (403, "proposal.own")
    assert state_of(house, kita.org) == "suspended"
    assert (await house.bob.agree(back)).json()["result"]["state"] == "active"
    assert (await kita.get("/contracts")).status_code == 200
    assert kita.node in house.fleet.enrolled
    assert EntryType.KEY_REVOKED.value not in house.kinds()
    assert [one.type.value for one in house.entries() if one.type.value.startswith("org.")] == [
        "org.onboarded",
        "org.suspended",
        "org.reinstated",
    ]


async def test_a_single_operator_removes_nobody_by_suspending_and_proposing(house):
    kita, proposal = await removal(house)
    for answer in (
        await house.alice.agree(proposal),
        await house.alice.post(f"/operator/organisations/{kita.org}/revoke", {"reason": "test"}),
    ):
        assert answer.status_code in {403, 409}
    assert code(answer) == (409, "proposal.open")
    assert state_of(house, kita.org) == "active"
    assert (await house.bob.agree(proposal)).status_code == 200
    assert code(await kita.get("/membership/me")) == (401, "identity.key-revoked")


async def test_one_operator_takes_no_voter_from_the_logs_quorum(tmp_path):
    """Neither by suspending its owner nor by proposing its removal."""
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        keys = house.services.witnessing.keys
        before = keys.policy
        path = f"/operator/organisations/{nodes[0].org}/suspend"
        assert (await house.alice.post(path, {"reason": "test"})).status_code == 200
        await house.services.writer.run(keys.settle)
        house.services.refresh()
        assert keys.policy == before
        name = keys.everybody()[1].key.name
        payload = {"witness": name, "reason": "test"}
        made = await house.alice.post("/operator/proposals", {"kind": "witness.remove", "payload": payload})
        assert made.status_code == 202, made.text
        assert code(await house.alice.agree(made.json()["proposal"])) == (403, "proposal.own")
        assert keys.policy == before
        assert (await house.bob.agree(made.json()["proposal"])).status_code == 200
        assert keys.find(name) is None
        removed, activated = house.kinds()[-2:]
        assert (removed, activated) == ("witness.removed", "policy.activated")


async def test_one_operator_fills_the_logs_quorum_with_no_auditors_of_her_own(tmp_path):
    """Nine auditors under keys of hers, to be 9 of 13, each with a witness."""
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        keys = house.services.witnessing.keys
        before = keys.policy
        for number in range(9):
            name, key = f"sham{number}", SigningKey.from_seed(bytes([number + 1]) * 32)
            body = {"name": name, "key": key_text(key.public)}
            assert (await house.alice.post("/operator/auditors", body)).status_code == 201
            said = auditors_statement(house, key, name)
            for who in (Signer(house, key, name), house.alice):
                assert (await who.post("/witness/keys", said)).json()["votes"] is False
        for one in house.waiting("witness.add"):
            assert code(await house.alice.agree(one)) == (403, "proposal.own")
        assert len(house.waiting("witness.add")) == 9
        assert keys.policy == before
        assert (before.k, before.n) == (3, 4)


@pytest.mark.parametrize(
    ("kind", "payload", "wanted"),
    [
        ("witness.add", {"witness": "kita/witness"}, (422, "witness.key")),
        ("log.erase", {}, (422, "proposal.kind")),
        ("org.remove", {}, (422, "proposal.kind")),
        (
            "org.remove",
            {"org": "org_" + "a" * 16, "reason": "A reason, told", "left": False},
            (422, "proposal.kind"),
        ),
        ("org.remove", {"org": "org_" + "a" * 16, "reason": "test", "left": "yes"}, (422, "proposal.kind")),
        (
            "org.remove",
            {"org": "org_" + "a" * 16, "reason": "test", "left": False},
            (404, "membership.unknown"),
        ),
        ("contract.activate", {"contract": "sha256:" + "0" * 64}, (409, "contract.offer-conflict")),
        ("witness.remove", {"witness": "nobody", "reason": "test"}, None),
    ],
)
async def test_what_cannot_happen_is_not_proposed(house, kind, payload, wanted):
    answer = await house.alice.post("/operator/proposals", {"kind": kind, "payload": payload})
    assert not answer.is_success
    assert wanted is None or code(answer) == wanted
    assert house.waiting() == []


# --- the log's key ---


def approvals(folder: Path, document: str, *names: str) -> list[Path]:  # noqa: F811
    found = []
    for name in names:
        found.append(folder.parent / f"{name}.rotation")
        found[-1].write_bytes(approve_document(operator_key(name), document.encode()))
    return found


def test_a_single_operator_gives_the_log_no_new_key(folder: Path):  # noqa: F811
    asked = log_commands.log_rotate_key(folder)
    assert asked.exit_code == 7
    document = asked.plain_output or ""
    size = len(entries(folder))
    for names in (("alice",), ("alice", "alice"), ("alice", "mallory")):
        with pytest.raises(LogApprovalError):
            log_commands.log_rotate_key(folder, approvals(folder, document, *names))
    assert len(entries(folder)) == size
    both = approvals(folder, document, "alice", "bob")
    assert log_commands.log_rotate_key(folder, both).data["approved_by"] == ["alice", "bob"]
    acted = [one.pub for one in entries(folder) if one.type is EntryType.CONSOLE_ACTION][-2:]
    assert [(one["operator"], one["action"]) for one in acted] == [
        ("alice", "key.rotate"),
        ("bob", "key.rotate"),
    ]
    with pytest.raises(LogApprovalError):  # the same two approvals are of that change alone
        log_commands.log_rotate_key(folder, both)


def test_evidence_is_a_signature_that_anybody_can_check_again():
    subject, key = b'{"action":"org.remove"}', operator_key("bob")
    signature = Envelope.seal(subject, PROPOSAL_TYPE, key).signatures[0][1]
    evidence = signed_by(key.public, b64(signature))(subject)
    kept = Envelope.from_bytes(evidence.data)
    assert (evidence.how, kept.payload, kept.signed_by(key.public)) == ("key", subject, True)
