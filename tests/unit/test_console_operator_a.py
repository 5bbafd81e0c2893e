# SPDX-License-Identifier: Apache-2.0
"""The operator's first screens and the public one, read and used as people do: who is in, what was agreed, what waits."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert, select

from broker.backup import remembered
from broker.membership.directory import Operator
from broker.store.tables import approval, candidate, contract_document, invite, model, release, statement
from policies.contract import from_tree
from policies.encoding import canonical, digest, digest_of
from policies.log.entries import EntryType, Event
from policies.messages import Descriptor, Fit, seal_descriptor
from policies.ports import to_ms
from policies.privacy.statement import PAYLOAD_TYPE
from policies.signing import Envelope
from tests.brokersim import RECIPE, House, NodeSim, all_sign, draft, final_contract, open_house, pool
from tests.consolesim import PersonSim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from policies.contract import Contract
    from tests.consolesim import Page

HOSTILE = "<img src=x onerror=alert(1)> & =Söhne"
WEIGHTS = b"\x00\x00\x80?" * 1000
MODEL = digest(WEIGHTS)


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


async def alice(house: House) -> PersonSim:
    return await PersonSim.enter(house, "alice", how="password")


async def bob(house: House) -> PersonSim:
    return await PersonSim.enter(house, "bob", how="password")


async def person_of(house: House, node: NodeSim) -> PersonSim:
    return await PersonSim.enter(house, f"person-of-{node.name}", role="member", org=node.org)


def hear(house: House, *nodes: NodeSim, online: bool = True) -> None:
    """The engine heard these nodes now; those that stay online are there."""
    seen = {**house.fleet.seen_ms(), **{one.node: house.clock.ms for one in nodes}}
    there = frozenset(one.node for one in nodes) if online else frozenset()
    house.fleet.seen_ms = lambda: seen
    house.fleet.online = lambda: there


async def same_for_programs(person: PersonSim, path: str, table: str, column: str) -> list[Any]:
    """The column in JSON, after it was compared with the page and with CSV."""
    page, rows = await person.page(path), (await person.json(path))["tables"][table]
    listed = await person.csv(path, table)
    assert len(rows) == len(listed) == len(page.rows(table))
    said = [row[column] for row in rows]
    assert [one[column].removeprefix("'") for one in listed] == [str(one) for one in said]
    return said


def attention(page: Page) -> list[str]:
    return [row["what"] for row in page.rows("attention")]


# --- overview ---


async def test_when_all_is_well_the_overview_says_so_in_one_sentence(house, monkeypatch):
    kept = remembered.Kept(
        path="/b", at_ms=house.clock.ms, manifest="", size=1, bytes=1, private_until_ms=None
    )
    remembered.add(house.services.settings, kept)
    passed = remembered.Passed(path="/b", at_ms=house.clock.ms, manifest="", size=1)
    remembered.tested(house.services.settings, passed)
    witnessed = {**house.services.witnessing.status(), "k": 1, "n": 1, "age_s": 3}
    monkeypatch.setattr(house.services.witnessing, "status", lambda: witnessed)
    page = await (await alice(house)).page("/console")
    assert page.panel("attention").first("p").text == (
        "All is well, as of 2026-09-21 14:13:20 UTC: nothing is wrong, and nothing waits."
    )
    assert page.rows("attention") == []
    assert "appears here" in page.empty("attention")
    assert page.age("quorum_age") == "said 3 seconds ago"
    assert (page.fact("backup"), page.fact("tested"), page.fact("log")) == ("now", "now", "growing")


async def test_the_overview_names_what_is_wrong_and_what_waits_with_a_link_to_it(house):
    kita = await house.member("kita")
    nord = NodeSim(house, "nord")
    await nord.join(await house.alice.invite("Nord GmbH", "DE", "nord"))
    hear(house, kita, online=False)
    pub = {"kind": "log.equivocation", "evidence": digest(b"two heads")}
    declared = Event(type=EntryType.INCIDENT_DECLARED, pub=pub)
    await house.services.writer.run(lambda _session, tx: tx.add(declared) and None)
    person = await alice(house)
    page = await person.page("/console")
    said = attention(page)
    assert "An incident is open: log.equivocation" in said[0]
    assert page.rows("attention")[0]["sign"] == "wrong"
    assert "The node of Kita GmbH does not answer." in said
    assert said[-1] == "Nord GmbH has joined and waits for your approval."
    assert {f"/console/members/{nord.org}", "/console/incidents", "/console/keys"} <= set(page.links())
    assert "No backup was ever made: iriai-broker backup create --out FOLDER --dir DIR" in said
    never = next(one for one in page.rows("attention") if one["what"].startswith("No backup"))
    assert never["since"] == "—"
    assert page.text.count("Wrong or to be looked at") == 1
    await house.alice.approve(nord.org)
    assert "Nord GmbH has joined and waits for your approval." not in attention(await person.page("/console"))


async def test_a_certificate_that_ends_within_a_month_is_told(house):
    person = await alice(house)
    assert not [one for one in attention(await person.page("/console")) if "certificate" in one]
    house.clock.ms += 800 * 86_400_000
    person = await alice(house)
    assert "The certificate of this broker ends in 4 weeks." in attention(await person.page("/console"))


async def test_a_proposal_waits_for_everybody_but_who_made_it(house):
    house.second_person = False
    nodes = await pool(house)
    await house.alice.offer(draft(house, nodes))
    mine, others = [attention(await (await one(house)).page("/console")) for one in (alice, bob)]
    assert not [one for one in mine if "proposes" in one]
    assert [one for one in others if one.startswith("alice proposes for Weld & Pick common-model pool")]


async def test_a_person_of_a_member_sees_what_waits_for_it_and_nothing_of_others(house):
    nodes = await pool(house)
    await house.alice.offer(draft(house, nodes))
    page = await (await person_of(house, nodes[0])).page("/console")
    assert "Weld & Pick common-model pool waits for your organisation." in attention(page)
    assert page.fact("name") == "Kita GmbH"
    assert "Nord" not in page.text
    await nodes[0].accept(draft(house, nodes))
    page = await (await person_of(house, nodes[0])).page("/console")
    assert not [one for one in attention(page) if "waits for your organisation" in one]


# --- members ---


async def test_each_state_of_a_node_is_told_with_since_when(house):
    kita, nord, iber = await pool(house)
    await NodeSim(house, "nova").join(await house.alice.invite("Nova KK", "JP", "nova"))
    hear(house, kita, nord)
    house.clock.ms += 300_000
    hear(house, kita)
    person = await alice(house)
    page = await person.page("/console/members")
    rows = {row["name"]: (row["state"], row["since"]) for row in page.rows("members")}
    assert rows == {
        "Kita GmbH": ("online", "now"),
        "Nord GmbH": ("stale", "5 minutes ago"),
        "Iber GmbH": ("never seen", "5 minutes ago"),
        "Nova KK": ("waits for approval", "5 minutes ago"),
    }
    assert page.panel("now").first("p").text == "1 of 3 nodes are online."
    states = await same_for_programs(person, "/console/members", "members", "state")
    assert sorted(states) == ["never-seen", "online", "stale", "waiting-approval"]
    only = await person.page("/console/members?state=stale")
    assert [row["name"] for row in only.rows("members")] == ["Nord GmbH"]
    assert "Leave the filter empty" in (await person.page("/console/members?name=zz")).empty("list")
    assert iber.node in (await person.page(f"/console/members/{iber.org}")).text


async def test_a_node_that_was_there_before_the_broker_started_is_stale_and_not_new(house, tmp_path):
    (kita,) = await pool(house, "kita")
    await kita.post("/catalogue/descriptors", described(kita).to_json())
    house.clock.ms += 60_000
    house.services.started_ms = house.clock.ms
    page = await (await alice(house)).page(f"/console/members/{kita.org}")
    assert page.fact("state") == "stale"
    assert page.fact("since") == "before the broker started, now"


async def test_without_members_the_next_step_is_told(house):
    page = await (await alice(house)).page("/console/members")
    assert page.empty("list").startswith("No organisation has joined yet. Make an invitation")
    assert not page.panel("list").all("form")


async def test_a_name_with_markup_is_text_everywhere(house):
    node = NodeSim(house, "nova")
    await node.join(await house.alice.invite(HOSTILE, "JP", "nova"))
    person = await alice(house)
    for path in ("/console", "/console/members", f"/console/members/{node.org}", "/console/invitations"):
        page = await person.page(path)
        assert HOSTILE in page.text, path
        assert not page.root.all("img")
    assert await same_for_programs(person, "/console/members", "members", "name") == [HOSTILE]


async def test_a_cell_that_a_spreadsheet_would_calculate_is_escaped(house):
    await NodeSim(house, "nova").join(await house.alice.invite("=1+1", "JP", "nova"))
    answer = await (await alice(house)).get("/console/members?format=csv")
    assert "'=1+1" in answer.text


async def test_two_people_approve_a_member_in_the_console(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite("Kita GmbH", "DE", "kita"))
    path = f"/console/members/{kita.org}"
    first = await alice(house)
    page = await first.page(path)
    done = await first.post(page.form(f"{path}/approve"))
    assert done.said == "Your approval of Kita GmbH is kept."
    assert not done.has_form(f"{path}/approve")
    assert "You have approved it." in done.text
    second = await bob(house)
    page = await second.page(path)
    assert page.form(f"{path}/approve").effect == ["It takes part from now on, with this key."]
    done = await second.post(page.form(f"{path}/approve"))
    assert done.said == "Kita GmbH takes part now."
    assert (await kita.me())["state"] == "active"
    with house.services.store.read() as session:
        words = session.scalars(select(approval.c.signature)).all()
    assert all(one.startswith("password:") for one in words)
    onboarded = house.entries(EntryType.ORG_ONBOARDED)[0]
    assert onboarded.pub["approvers"] == ["alice", "bob"]


async def test_an_approval_of_what_was_not_shown_is_refused(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite("Kita GmbH", "DE", "kita"))
    path, person = f"/console/members/{kita.org}", await alice(house)
    form = (await person.page(path)).form(f"{path}/approve")
    assert (await person.post(form, subject=digest(b"else"))).code == "request.invalid"
    late = await PersonSim.enter(house, "alice", how="link")
    form = (await late.page(path)).form(f"{path}/approve")
    assert (await late.post(form)).status in {401, 403}
    with house.services.store.read() as session:
        assert session.scalars(select(approval.c.operator)).all() == []


async def test_suspending_takes_one_person_and_tells_its_effect_in_numbers(house):
    nodes = await pool(house)
    await final_contract(house, nodes)
    kita, person = nodes[0], await alice(house)
    path = f"/console/members/{kita.org}"
    form = (await person.page(path)).form(f"{path}/suspend")
    assert form.effect[1:] == [
        "Open runs that go on without it: 0.",
        "Of these, with too few groups online from then on, so that they wait: 0.",
    ]
    assert (await person.post(form, reason="not a word")).code == "request.invalid"
    done = await person.post((await person.page(path)).form(f"{path}/suspend"), reason="lost-laptop")
    assert done.said == "Kita GmbH is suspended."
    assert done.fact("state") == "suspended"
    assert house.entries(EntryType.ORG_SUSPENDED)[-1].pub["reason"] == "lost-laptop"
    assert kita.node not in house.fleet.enrolled
    proposed = await person.post(done.form(f"{path}/restore"))
    assert proposed.screen == "proposal"
    other = await bob(house)
    page = await other.page(proposed.path)
    await other.post(page.form(f"{proposed.path}/approve"))
    assert (await other.page(path)).fact("state") == "never seen"


async def test_ending_a_membership_takes_two_people(house):
    kita, _nord = await pool(house, "kita", "nord")
    path, person = f"/console/members/{kita.org}", await alice(house)
    proposed = await person.post((await person.page(path)).form(f"{path}/remove"), left="1")
    assert proposed.said == "It is proposed. Another person has to approve it."
    assert not proposed.has_form(f"{proposed.path}/approve")
    assert "nobody approves their own" in proposed.text
    assert (await person.page(path)).fact("state") == "never seen"
    other = await bob(house)
    page = await other.page(proposed.path)
    assert {row["name"]: row["value"] for row in page.rows("subject")}["left"] == "true"
    done = await other.post(page.form(f"{proposed.path}/approve"))
    assert done.said == "It is approved."
    assert done.fact("state") == "approved"
    assert (await other.page(path)).fact("state") == "revoked"
    assert len(house.entries(EntryType.ORG_LEFT)) == 1


async def test_an_approver_may_approve_but_neither_suspend_nor_invite(house):
    (kita,) = await pool(house, "kita")
    carol = await PersonSim.enter(house, "carol", role="approver")
    page = await carol.page(f"/console/members/{kita.org}")
    assert page.forms == []
    assert not (await carol.page("/console/invitations")).has_form("/console/invitations")
    body = f"csrf={carol.csrf}&once=aa&reason=x".encode()
    assert (await carol.post_raw(f"/console/members/{kita.org}/suspend", body)).status_code == 403


async def test_an_unknown_organisation_is_not_found(house):
    page = await (await alice(house)).page("/console/members/org_nothere")
    assert (page.status, page.screen) == (404, "refused")


# --- invitations ---


async def test_an_invitation_is_made_used_and_seen_step_by_step(house):
    person = await alice(house)
    page = await person.page("/console/invitations")
    assert page.empty("list") == "No invitation was made yet. Make the first one below."
    made = await person.post(
        page.form("/console/invitations"), legal_name="Kita GmbH", country="DE", group="kita"
    )
    row = made.rows("invitations")[0]
    assert (row["step"], row["next"]) == ("open", "The organisation runs iriai-node join URL INVITE.")
    assert (row["by"], row["expires"]) == ("alice", "in 3 days")
    kita = NodeSim(house, "kita")
    assert (await kita.join(made.fact("secret"))).status_code == 200
    row = (await person.page("/console/invitations")).rows("invitations")[0]
    assert row["step"] == "waits for approval"
    assert row["next"] == "Compare the fingerprint and approve; approvals that are missing: 2."
    for who in (house.alice, house.bob):
        await who.approve(kita.org)
    row = (await person.page("/console/invitations")).rows("invitations")[0]
    assert (row["step"], row["next"]) == ("active", f"Nothing: it was let in, as {kita.org}.")
    assert await same_for_programs(person, "/console/invitations", "invitations", "step") == ["active"]


async def test_an_invitation_that_was_taken_back_lets_nobody_in(house):
    token = await house.alice.invite()
    person = await alice(house)
    page = await person.page("/console/invitations")
    back = next(one for one in page.forms if one.action.endswith("/revoke"))
    done = await person.post(back)
    assert done.said == "The invitation is taken back."
    assert done.rows("invitations")[0]["step"] == "revoked"
    answer = await NodeSim(house, "kita").join(token)
    assert answer.json()["code"] == "membership.invite-used"
    assert (await person.submit(back)).status_code == 303  # the same form again: nothing more happens
    taken = [one.pub["action"] for one in house.entries(EntryType.CONSOLE_ACTION)]
    assert taken.count("invite.revoke") == 1
    fresh = await person.post(replace(back, fields={**back.fields, "once": "ff"}))
    assert fresh.code == "membership.invite-used"


async def test_an_expired_invitation_says_what_follows(house):
    await house.alice.invite()
    house.clock.ms += 73 * 3_600_000
    page = await (await alice(house)).page("/console/invitations")
    row = page.rows("invitations")[0]
    assert (row["step"], row["next"]) == ("expired", "An operator makes a new invitation.")
    assert not [one for one in page.forms if one.action.endswith("/revoke")]


@pytest.mark.parametrize(
    "changes",
    [{"country": "de"}, {"group": "Kita!"}, {"legal_name": "Kita\u202eGmbH"}, {"legal_name": ""}],
)
async def test_an_invitation_with_a_name_that_no_contract_can_hold_is_refused(house, changes):
    person = await alice(house)
    form = (await person.page("/console/invitations")).form("/console/invitations")
    given = {"legal_name": "Kita GmbH", "country": "DE", "group": "kita"} | changes
    assert (await person.post(form, **given)).status == 422
    with house.services.store.read() as session:
        assert session.scalars(select(invite.c.id)).all() == []


async def test_invitations_come_in_pages_of_fifty(house):
    def work(session: Any, _tx: Any) -> None:
        for number in range(60):
            name = f"inv_{number:016d}"
            row = {"id": name, "secret_sha256": name.encode(), "legal_name": name, "country": "DE"}
            row |= {"grp": "g", "state": "used", "expires_ms": 1_000 + number // 7, "created_by": "alice"}
            session.execute(insert(invite).values(row))

    await house.services.writer.run(work)
    person = await alice(house)
    first = await person.json("/console/invitations")
    after = first["more"]["invitations"]["after"]
    second = await person.json(f"/console/invitations?after={after}")
    seen = [row["id"] for one in (first, second) for row in one["tables"]["invitations"]]
    assert len(seen) == len(set(seen)) == 60
    assert "more" not in second or not second["more"]


# --- proposals ---


async def test_a_proposal_is_refused_or_expires_or_is_void(house):
    kita, nord = await pool(house, "kita", "nord")
    person, other = await alice(house), await bob(house)
    path = f"/console/members/{kita.org}"
    proposed = await person.post((await person.page(path)).form(f"{path}/remove"))
    refused = await other.post((await other.page(proposed.path)).form(f"{proposed.path}/refuse"))
    assert (refused.said, refused.fact("state")) == ("It is refused.", "refused")
    assert refused.forms == []
    path = f"/console/members/{nord.org}"
    proposed = await person.post((await person.page(path)).form(f"{path}/remove"))
    form = (await other.page(proposed.path)).form(f"{proposed.path}/approve")
    await person.post((await person.page(path)).form(f"{path}/suspend"))
    proposal = await other.page(proposed.path)
    if proposal.fact("state") == "waits for a second person":
        await other.post(form)
    listed = await other.page("/console/proposals")
    assert {row["state"] for row in listed.rows("proposals")} <= {
        "refused",
        "approved",
        "void: the world changed",
    }
    assert listed.fact("mine") == "0"


async def test_without_proposals_the_next_step_is_told(house):
    page = await (await alice(house)).page("/console/proposals")
    assert page.empty("list").startswith("Nothing was proposed.")
    assert (await (await alice(house)).page("/console/proposals/prop_none")).status == 404


async def test_who_just_gave_their_password_is_told_that_the_field_may_stay_empty(house):
    node = await house.member("kita")
    path = f"/console/members/{node.org}"
    person = await alice(house)
    removal = await person.post((await person.page(path)).form(f"{path}/remove"), left="1")
    late = await (await PersonSim.enter(house, "bob", how="link")).page(removal.path)
    assert late.has_form(f"{removal.path}/approve")
    assert not late.main.all("p", data_counts=None)
    other = await bob(house)
    house.clock.ms += 120_000
    page = await other.page(removal.path)
    told = page.main.first("p", data_counts=None).text
    assert (told.startswith("You gave your password"), "2 minutes ago" in told) == (True, True), told
    done = await other.post(page.form(f"{removal.path}/approve"))
    assert done.said == "It is approved."


async def test_an_added_person_is_told_how_they_get_in(house):
    wanted = {"name": "dora", "role": "operator", "org": None, "sub": None}

    def work(session, tx):
        services, by = house.services, Operator(name="alice", key=b"", active=True)
        services.acts.propose(session, tx, "person.add", wanted, by, digest(b"add"))

    await house.services.writer.run(work)
    other = await bob(house)
    path = next(one for one in (await other.page("/console/proposals")).links() if "/prop_" in one)
    page = await other.page(path)
    assert "reset-login" not in page.text
    done = await other.post(page.form(f"{path}/approve"))
    assert "iriai-broker operator reset-login dora" in done.text


async def test_a_proposal_says_what_would_happen_in_words_and_as_it_is_signed(house):
    house.second_person = False
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    other = await bob(house)
    listed = await other.page("/console/proposals")
    row = listed.rows("proposals")[0]
    assert row["what"] == "A contract comes into force as soon as all its parties have signed it."
    assert (row["by"], row["state"]) == ("alice", "waits for a second person")
    path = next(one for one in listed.links() if one.startswith("/console/proposals/prop_"))
    page = await other.page(path)
    subject = {one["name"]: one["value"] for one in page.rows("subject")}
    assert subject["contract"] == contract.digest
    assert page.form(f"{path}/approve").effect == [
        "The text is in force as soon as its last party has signed it."
    ]
    assert page.fact("digest") == page.form(f"{path}/approve").fields["subject"]
    states = await same_for_programs(other, "/console/proposals", "proposals", "state")
    assert states == ["proposed"]


# --- contracts ---


async def test_a_contract_shows_where_it_stands_who_signed_and_what_it_says(house):
    house.second_person = False
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await (await alice(house)).page("/console/contracts")).empty("list").startswith("No contract was")
    await house.alice.offer(contract)
    person, path = await alice(house), f"/console/contracts/{contract.digest}"
    page = await person.page(path)
    assert page.fact("state") == "offered"
    assert "It waits for iber, kita, nord" in page.panel("stands").text
    assert {row["party"]: row["signed"] for row in page.rows("parties")}["kita"] == "no"
    approved = next(one for one in page.links() if one.startswith("/console/proposals/"))
    other = await bob(house)
    await other.post((await other.page(approved)).form(f"{approved}/approve"))
    house.clock.ms += 60_000
    await all_sign(nodes, contract)
    page = await person.page(path)
    assert page.fact("state") == "final, begins later"
    assert page.fact("signatures") == "4 of 4"
    rows = {row["party"]: row for row in page.rows("parties")}
    assert (rows["kita"]["signed"], rows["kita"]["at"]) == ("yes", "now")
    house.clock.ms = to_ms(contract.term.effective)
    person = await alice(house)
    page = await person.page(path)
    assert page.panel("stands").first("p").text == "This text rules now."
    words = {row["clause"]: row["words"] for row in page.rows("clauses")}
    assert words["term-1"].startswith("The contract holds from 2026-12-01")
    spoken = await person.page(path, lang="ja")
    assert "本契約" in spoken.panel("clauses").text
    data = await person.json(path)
    assert {one["clause"] for one in data["tables"]["clauses"]} == {one.clause for one in contract.clauses()}
    assert data["tables"]["clauses"][0]["words"].isascii()
    assert await same_for_programs(person, "/console/contracts", "contracts", "digest") == [contract.digest]


async def test_the_bytes_and_the_odrl_view_can_be_taken_along(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    person, path = await alice(house), f"/console/contracts/{contract.digest}"
    assert (await person.get(f"{path}/contract.json")).content == contract.canonical
    assert (await person.get(f"{path}/odrl.json")).status_code == 403
    eve = await person_of(house, nodes[0])
    assert (await eve.get(f"{path}/contract.json")).content == contract.canonical


async def test_what_is_anothers_does_not_exist_for_a_person_of_a_member(house):
    nodes = await pool(house, "kita", "nord", "iber", "ost")
    contract = await final_contract(house, nodes[:3])
    stranger = await person_of(house, nodes[3])
    listed = await stranger.page("/console/contracts")
    assert listed.rows("contracts") == []
    assert "no party of a contract yet" in listed.empty("list")
    with house.services.store.read() as session:
        name = session.scalar(select(contract_document.c.digest))
    assert name == contract.digest
    negotiation = (await nodes[0].view(contract))["id"]
    for path in (
        f"/console/contracts/{contract.digest}",
        f"/console/contracts/{contract.digest}/contract.json",
        f"/console/compare?old={contract.digest}&new={contract.digest}",
        f"/console/negotiations/{negotiation}",
    ):
        page = await stranger.page(path)
        missing = await stranger.page(path.replace(contract.digest, digest(b"no")).replace("neg_", "neg_x"))
        assert (page.status, page.code) == (missing.status, missing.code) == (404, "request.not-found")
    assert "nobody" not in (await stranger.page("/console/catalogue")).rows("recipes")


async def test_signatures_of_others_have_no_time_before_the_contract_is_final(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    for node in nodes[:2]:
        await node.verify(contract)
    path = f"/console/contracts/{contract.digest}"
    own = {row["party"]: row for row in (await (await person_of(house, nodes[0])).page(path)).rows("parties")}
    assert (own["kita"]["at"], own["nord"]["at"]) == ("now", "none")
    assert own["nord"]["signed"] == "yes"  # as its node is told
    whole = {row["party"]: row for row in (await (await alice(house)).page(path)).rows("parties")}
    assert whole["nord"]["at"] == "now"


async def test_one_operator_halts_a_contract_and_is_told_what_stops(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    house.clock.ms = to_ms(contract.term.effective)
    await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    person, path = await alice(house), f"/console/contracts/{contract.digest}"
    form = (await person.page(path)).form(f"{path}/halt")
    assert form.effect == [
        "Open runs that stop before their next round: 1.",
        "Models that wait at the gate and stay there: 0.",
        "Contributors who must all sign before it goes on: 3.",
    ]
    done = await person.post(form, code="safety", text="<b>a robot moved</b>", clause="fields-1")
    assert (done.said, done.fact("state")) == ("It is halted.", "halted")
    notice = done.rows("notices")[0]
    assert (notice["party"], notice["code"], notice["text"]) == ("broker", "safety", "<b>a robot moved</b>")
    assert len(house.entries(EntryType.CONTRACT_HALTED)) == 1
    member = await person_of(house, nodes[0])
    assert not (await member.page(path)).has_form(f"{path}/halt")
    assert "Weld & Pick common-model pool is halted." in attention(await member.page("/console"))


# --- comparison ---


def successor(contract: Contract, **changes: dict[str, Any]) -> Contract:
    """The next version, with fields of sections replaced."""
    tree = copy.deepcopy(contract.document)
    tree |= {"version": contract.version + 1, "supersedes": contract.digest}
    tree["sign_by"] = "2026-12-30T00:00:00Z"
    tree["term"] = tree["term"] | {"effective": "2027-01-01T00:00:00Z"}
    for section, fields in changes.items():
        tree[section] = tree[section] | fields
    return from_tree(tree)


async def offered_pair(house: House, **changes: dict[str, Any]) -> tuple[list[NodeSim], Contract, Contract]:
    nodes = await pool(house)
    old = await final_contract(house, nodes)
    new = successor(old, **changes)
    house.clock.ms = to_ms(old.term.effective)
    answer = await house.alice.offer(new)
    assert answer.status_code == 201, answer.text
    return nodes, old, new


async def test_a_tighter_text_is_told_as_such_without_a_search(house):
    _, old, new = await offered_pair(house, aggregation={"update_norm_max": "0.5"})
    person = await alice(house)
    page = await person.page(f"/console/compare?old={old.digest[7:19]}&new={new.digest[7:19]}")
    assert page.fact("no_looser") == "yes"
    assert page.fact("basis") == "order"
    rows = {row["field"]: row for row in page.rows("changes")}
    norm = rows["update_norm_max"]
    assert (norm["direction"], norm["before"], norm["after"]) == ("tighter", "10", "0.5")
    assert page.empty("cases").startswith("There is none")


async def test_a_looser_text_comes_with_a_case_that_was_refused_before(house):
    pytest.importorskip("z3")
    nodes, old, new = await offered_pair(house, privacy={"epsilon_total": "9"})
    path = f"/console/compare?old={old.digest}&new={new.digest}"
    person = await person_of(house, nodes[0])
    first = await person.page(path)
    assert first.fact("no_looser") == "unknown"
    assert first.root.all(hx_trigger="every 2s")
    await house.services.proofs.settled()
    page = await person.page(path)
    assert page.fact("no_looser") == "no"
    case = page.rows("cases")[0]
    assert (case["clause"], case["before"], case["after"]) == ("dp-1", "denied", "allowed")
    assert case["need"]
    assert case["found"]
    assert page.rows("changes")[0]["direction"] == "looser"
    assert not page.root.all(hx_trigger="every 2s")


async def test_without_two_texts_the_comparison_asks_for_them(house):
    page = await (await alice(house)).page("/console/compare")
    assert "There is no contract to compare yet." in page.text
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    page = await (await alice(house)).page("/console/compare")
    assert page.form("/console/compare").choices["old"] == [contract.digest]


# --- negotiation ---


async def test_a_negotiation_shows_lanes_and_to_operators_no_words(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    await nodes[0].accept(contract)
    await nodes[1].refuse(contract, code="price", text="too <expensive>")
    name = (await nodes[1].view(contract))["id"]
    page = await (await bob(house)).page(f"/console/negotiations/{name}")
    assert "too <expensive>" not in page.panel("messages").text
    assert {row["type"] for row in page.rows("messages")} >= {"offer", "accept", "terminate"}
    own = await (await person_of(house, nodes[1])).page(f"/console/negotiations/{name}")
    said = next(row for row in own.rows("messages") if row["type"] == "terminate" and row["text"] != "none")
    assert (said["text"], said["code"]) == ("too <expensive>", "price")
    assert {row["lane"] for row in own.rows("messages")} == {"nord"}


async def test_the_deadlines_of_others_are_not_shown(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    name = (await nodes[0].view(contract))["id"]
    own = {row["party"]: row for row in (await _lanes(house, nodes[0], name))}
    assert own["kita"]["deadline"].startswith("in ")
    assert own["nord"]["deadline"] == "the others' deadlines are not shown"
    assert own["kita"]["next"] == "accept, counter or refuse"


async def _lanes(house: House, node: NodeSim, name: str) -> list[dict[str, str]]:
    return (await (await person_of(house, node)).page(f"/console/negotiations/{name}")).rows("lanes")


async def test_an_operator_takes_an_offer_back(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    name = (await nodes[0].view(contract))["id"]
    person, path = await alice(house), f"/console/negotiations/{name}"
    form = (await person.page(path)).form(f"{path}/end")
    assert form.effect[0] == "Lanes that end: 3."
    done = await person.post(form, text="a typo")
    assert done.said == "The round has ended."
    assert "It is over" in done.text
    assert (await nodes[0].view(contract))["state"] == "terminated"


# --- catalogue ---


def described(sender: NodeSim, **changes: Any):
    fields = {
        "node": sender.node,
        "dataset": f"{sender.name}/pick",
        "embodiment_class": "6r-arm+parallel-gripper",
        "dof": 6,
        "action_space": "ee-delta",
        "rate_hz": "50-99",
        "episodes": "100-299",
        "tasks": ["pick-place"],
        "fields": ["gripper_width", "tcp_pos"],
        "labels": [],
        "period": "2026-H2",
        "fits": [Fit(recipe=digest(RECIPE), minimum_met=True)],
    }
    return seal_descriptor(Descriptor.build(**(fields | changes)), sender.key)


async def test_the_catalogue_shows_operators_all_and_members_what_owners_show(house):
    kita, nord = await pool(house, "kita", "nord")
    person = await alice(house)
    assert "iriai-node data publish" in (await person.page("/console/catalogue")).empty("datasets")
    await kita.post("/catalogue/descriptors", described(kita).to_json())
    other = described(nord, fields=["tcp_pos"], episodes="10-29")
    await nord.post("/catalogue/descriptors?shown=fits", other.to_json())
    page = await person.page("/console/catalogue")
    shared = {row["name"]: row["share"] for row in page.rows("overlap")}
    assert shared == {"tcp_pos": "100%", "gripper_width": "50%"}
    own = {row["dataset"]: row for row in await _datasets(house, kita)}
    assert own["nord/pick"]["episodes"] == "its owner does not show it"
    assert own["kita/pick"]["episodes"] == "100-299"
    found = await person.page("/console/catalogue?episodes=100-299")
    assert [row["dataset"] for row in found.rows("datasets")] == ["kita/pick"]
    assert "Ask for less" in (await person.page("/console/catalogue?task=weld")).empty("datasets")
    assert (await person.page("/console/catalogue?episodes=many")).code == "console.form"
    names = await same_for_programs(person, "/console/catalogue", "datasets", "dataset")
    assert sorted(names) == ["kita/pick", "nord/pick"]


async def _datasets(house: House, node: NodeSim) -> list[dict[str, str]]:
    return (await (await person_of(house, node)).page("/console/catalogue")).rows("datasets")


async def test_the_catalogue_says_what_a_recipe_may_read_and_what_of_it_is_described(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    await nodes[0].post("/catalogue/descriptors", described(nodes[0]).to_json())
    page = await (await alice(house)).page("/console/catalogue")
    row = page.rows("recipes")[0]
    assert (row["recipe"], row["described"]) == ("pick", "1 of 3")
    assert row["fields"] == ", ".join(contract.fields.allow)
    assert "kita: kita/pick" in row["datasets"]
    assert "No recipe of a contract in force asks for a certificate" in page.panel("datasets").text


async def test_the_catalogue_names_recipes_that_ask_for_a_certificate(house):
    nodes = await pool(house)
    quality = {"require": ["time"], "accept_undetermined": []}
    asking = canonical(json.loads(RECIPE) | {"quality": quality})
    recipe = json.loads(draft(house, nodes).canonical)["recipes"][0] | {"recipe_digest": digest(asking)}
    contract = draft(house, nodes, recipes=[recipe])
    assert (await house.alice.offer(contract, (asking,))).status_code == 201
    await all_sign(nodes, contract)
    await nodes[0].post("/catalogue/descriptors", described(nodes[0]).to_json())
    page = await (await alice(house)).page("/console/catalogue")
    assert "train on no data set without one: pick." in page.panel("datasets").text


# --- models for anybody ---


async def test_anybody_sees_open_models_and_only_what_their_contract_opens(house):
    nobody = PersonSim(house)
    page = await nobody.page("/models")
    assert page.panel("models").first("p").text == "None so far."
    assert "No contract here has opened a model to all yet." in page.empty("models")
    nodes = await pool(house)
    opened = {
        "clause": "tier-open",
        "tier": "open",
        "recipe": "pick",
        "model": "pick-base",
        "licence": "Apache-2.0",
        "embargo_days": None,
        "min_contribution": None,
    }
    tiers = [*draft(house, nodes).document["tiers"], opened]
    contract = await final_contract(house, nodes, tiers=tiers)
    house.clock.ms = to_ms(contract.term.effective)
    run = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    await house.services.writer.run(
        lambda session, _tx: _release(house, session, contract, run.json()["run"])
    )
    page = await nobody.page("/models")
    row = page.rows("models")[0]
    assert (row["model"], row["recipe"], row["licence"]) == ("pick-base", "pick", "Apache-2.0")
    assert (row["privacy"], row["epsilon"], row["delta"]) == ("private", "1.9", "1e-5")
    assert (row["size"], row["digest"], row["contract"]) == ("4 kB", MODEL, contract.digest)
    assert len(page.rows("models")) == 1
    for secret in (contract.title, "Kita", "kita", "nord"):
        assert secret not in page.html
    assert [row["model"] for row in await nobody.csv("/models")] == ["pick-base"]


def _release(house: House, session: Any, contract: Contract, run: str) -> None:
    """What the gate would have written: one model open to all, one that stays with the contributors."""
    claims = [{"party": one, "claim": {"epsilon_rdp": eps, "delta": "1e-5"}} for one, eps in _LOSSES]
    said = canonical({"verdict": "PRIVATE", "contributors": claims})
    data = Envelope(payload_type=PAYLOAD_TYPE, payload=said, signatures=()).to_bytes()
    session.execute(insert(statement).values(digest=digest(data), bytes=data))
    for name, tier in ((MODEL, "open"), (digest_of("other"), "consortium")):
        path = house.services.settings.models / name[7:19]
        path.write_bytes(WEIGHTS)
        row = {"digest": name, "run_id": run, "round": 1, "kind": "candidate", "path": str(path)}
        session.execute(insert(model).values(row))
        session.execute(insert(candidate).values(digest=name, run_id=run, state="released"))
        given = {"model": name, "tier": tier, "contract": contract.digest, "at_ms": house.clock.ms}
        session.execute(insert(release).values(**given, statement_digest=digest(data)))


_LOSSES = (("kita", "1.2"), ("nord", "1.9"))
