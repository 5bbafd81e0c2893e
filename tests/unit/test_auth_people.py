# SPDX-License-Identifier: Apache-2.0
"""People over the API: added, disabled, given a way in; what one operator may do, and what takes two."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from broker.acts.people import add_one
from broker.auth.errors import LinkError, PersonInvalidError
from broker.auth.people import Addition
from broker.auth.proposal_errors import ProposalRoleError
from broker.auth.proposals import PROPOSAL_TYPE
from broker.auth.sessions import COOKIE
from broker.membership.directory import Operator
from policies.encoding import b64, digest, unb64
from policies.signing import Envelope
from tests.brokersim import open_house
from tests.loginsim import Browser, add, log_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House, OperatorSim

ORG = "org_" + "a" * 16


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        yield opened


def secret_of(link: str) -> str:
    return link.rpartition("/")[2]


def actions(house: House) -> list[tuple[str, str, str]]:
    found = [one.pub for one in house.entries() if one.type.value == "console.action"]
    return [(one["operator"], one["action"], one["result"]) for one in found]


async def approve(who: OperatorSim, proposal: dict[str, Any]) -> Any:
    subject = unb64(proposal["subject"])
    signature = Envelope.seal(subject, PROPOSAL_TYPE, who.key).signatures[0][1]
    return await who.post(
        f"/operator/proposals/{proposal['id']}/approve",
        {"digest": digest(subject), "signature": b64(signature)},
    )


async def test_operators_are_people_from_the_start_without_a_way_in(house: House) -> None:
    listed = (await house.alice.get("/operator/people")).json()["people"]
    assert [(one["name"], one["role"], one["passkeys"], one["password"]) for one in listed] == [
        ("alice", "operator", 0, False),
        ("bob", "operator", 0, False),
    ]


async def test_ones_own_key_gives_ones_own_link_and_it_works_once(house: House) -> None:
    made = (await house.alice.post("/operator/people/alice/reset-login", {})).json()
    assert made["link"].startswith("https://127.0.0.1:7443/console/enter/")
    assert not made["needs_code"]
    opened = await house.services.auth.enter(secret_of(made["link"]))
    assert (opened.login.person.name, opened.login.how, opened.login.stepped_ms) == ("alice", "link", None)
    with pytest.raises(LinkError, match="used") as refused:
        await house.services.auth.enter(secret_of(made["link"]))
    assert refused.value.remedy == "ask an operator for a new link"  # auditors have no key of an operator's


async def test_a_newer_link_ends_the_older_one(house: House) -> None:
    links = [
        (await house.alice.post("/operator/people/alice/reset-login", {})).json()["link"] for _ in range(2)
    ]
    with pytest.raises(LinkError, match="used, replaced by a newer one, or never made"):
        await house.services.auth.enter(secret_of(links[0]))
    assert await house.services.auth.enter(secret_of(links[1]))


async def test_a_link_is_too_old_after_three_days(house: House) -> None:
    link = (await house.alice.post("/operator/people/alice/reset-login", {})).json()["link"]
    house.clock.ms += 72 * 3_600_000
    with pytest.raises(LinkError, match="72 hours"):
        await house.services.auth.enter(secret_of(link))


async def test_a_repeated_request_is_not_told_the_link_again(house: House) -> None:
    first = await house.alice.post("/operator/people/alice/reset-login", {}, idempotency_key="once")
    again = await house.alice.post("/operator/people/alice/reset-login", {}, idempotency_key="once")
    assert "link" in first.json()
    assert "link" not in again.json()


async def test_a_new_way_in_ends_the_sessions_and_passkeys_of_before(house: House) -> None:
    browser = await log_in(house, "alice")
    await house.services.auth.account.set_password(browser.login, "a long enough word", request=digest(b""))
    await house.alice.post("/operator/people/alice/reset-login", {})
    assert house.services.auth.find(browser.cookies[COOKIE]) is None
    assert house.services.auth.holdings.of("alice") == []


async def test_one_operator_adds_an_auditor(house: House) -> None:
    made = await house.alice.post("/operator/people", {"name": "carol", "role": "auditor"})
    assert made.status_code == 201, made.text
    opened = await house.services.auth.enter(secret_of(made.json()["link"]))
    assert (opened.login.person.name, opened.login.person.role) == ("carol", "auditor")
    assert ("alice", "person.add", "done") in actions(house)


@pytest.mark.parametrize("role", ["operator", "approver", "member"])
async def test_whoever_could_approve_or_look_as_a_member_is_added_by_two(house: House, role: str) -> None:
    org = {"org": (await house.member("kita")).org} if role == "member" else {}
    made = await house.alice.post("/operator/people", {"name": "carol", "role": role} | org)
    assert made.status_code == 202, made.text
    proposal = made.json()["proposal"]
    assert (await house.alice.post("/operator/people/carol/reset-login", {})).status_code == 404
    assert (await approve(house.alice, proposal)).status_code == 403
    done = await approve(house.bob, proposal)
    assert done.status_code == 200, done.text
    assert done.json()["result"] == {"person": "carol", "role": role}
    code = (await house.alice.post("/operator/people/carol/reset-login", {})).json()["code"]
    made = (await house.bob.post("/operator/people/carol/reset-login", {})).json()
    opened = await house.services.auth.enter(secret_of(made["link"]), code=code.upper().replace("-", " "))
    assert opened.login.person.role == role


async def test_the_first_one_may_ask_for_the_code_again(house: House) -> None:
    await house.alice.post("/operator/people/bob/reset-login", {})
    code = (await house.alice.post("/operator/people/bob/reset-login", {})).json()["code"]
    await add(house, "carol", "approver")
    console = await log_in(house, "carol")
    done = await console.post("/console/people/reset", name="bob")
    assert done.status_code == 303, done.text
    page = await console.get(done.headers["location"])
    link = page.text.partition('data-fact="secret" data-copy="')[2].partition('"')[0]
    assert await house.services.auth.enter(secret_of(link), code=code)


async def test_somebody_elses_sessions_go_on_until_the_second_one_asks(house: House) -> None:
    browser = await log_in(house, "bob")
    await house.alice.post("/operator/people/bob/reset-login", {})
    assert browser.login
    await add(house, "carol", "operator")
    carol = await log_in(house, "carol")
    assert (await carol.post("/console/people/reset", name="bob")).status_code == 303
    assert house.services.auth.find(browser.cookies[COOKIE]) is None


async def test_disabling_ends_sessions_and_the_key_file_and_the_name_stays_theirs(house: House) -> None:
    browser = await log_in(house, "bob")
    done = await house.alice.post("/operator/people/bob/disable", {})
    assert done.json() == {"name": "bob", "state": "disabled", "key_revoked": True}
    assert house.services.auth.find(browser.cookies[COOKIE]) is None
    assert (await house.bob.get("/operator/people")).status_code == 401
    assert "key.revoked" in house.kinds()
    assert (await house.alice.post("/operator/people/bob/disable", {})).status_code == 404
    back = {"name": "bob", "role": "approver"}
    assert (await house.alice.post("/operator/people", back | {"role": "auditor"})).status_code == 409
    assert (await house.alice.post("/operator/people", back)).status_code == 202


@pytest.mark.parametrize(
    ("name", "body", "status"),
    [
        ("taken", {"name": "bob", "role": "auditor"}, 409),
        ("member without org", {"name": "carol", "role": "member"}, 422),
        ("auditor with org", {"name": "carol", "role": "auditor", "org": ORG}, 422),
        ("unknown org", {"name": "carol", "role": "member", "org": ORG}, 422),
        ("no provider", {"name": "carol", "role": "auditor", "sub": "x"}, 422),
        ("role", {"name": "carol", "role": "root"}, 422),
        ("name", {"name": "Carol", "role": "auditor"}, 422),
        ("operator taken", {"name": "bob", "role": "operator"}, 409),
    ],
)
async def test_a_person_who_cannot_be_is_refused(
    house: House, name: str, body: dict[str, str], status: int
) -> None:
    answer = await house.alice.post("/operator/people", body)
    assert answer.status_code == status, answer.text
    assert len((await house.alice.get("/operator/people")).json()["people"]) == 2


@pytest.mark.parametrize("name", ["", "A", "-a", "a" * 42, "a b", "a\n", "\u00e4"])
def test_a_name_is_what_log_entries_can_hold(name: str) -> None:
    with pytest.raises(PersonInvalidError):
        Addition(name=name, role="auditor")


async def test_nodes_reach_none_of_it(house: House) -> None:
    node = await house.member("kita")
    assert (await node.get("/operator/people")).status_code == 403
    assert (await node.post("/operator/people", {"name": "carol", "role": "auditor"})).status_code == 403


async def test_a_link_on_the_console_shows_once(house: House) -> None:
    console = await log_in(house, "alice")
    done = await console.post("/console/people/add", name="carol", role="auditor", org="")
    page = await console.get(done.headers["location"])
    assert page.text.count("/console/enter/") == 2  # what is shown, and what is copied
    assert "/console/enter/" not in (await console.get(done.headers["location"])).text


async def test_the_language_that_somebody_chose_is_kept(house: House) -> None:
    console = await log_in(house, "alice")
    await console.post("/console/account/language", lang="ja")
    page = await console.get("/console/account")
    assert '<html lang="ja">' in page.text
    assert (await console.post("/console/account/language", lang="xx")).status_code == 422


async def test_signing_out_ends_the_session(house: House) -> None:
    console = await log_in(house, "alice")
    done = await console.post("/console/logout")
    assert done.headers["location"] == "/console/login"
    assert (await console.get("/console/account")).headers[
        "location"
    ] == "/console/login?to=%2Fconsole%2Faccount"


async def test_the_login_page_leads_back_to_where_somebody_wanted_to_go(house: House) -> None:
    page = await Browser(house).get("/console/login?to=/console/people%3Fsort=name")
    assert 'name="to" value="/console/people?sort=name"' in page.text


async def test_the_other_sessions_are_ended_from_the_account(house: House) -> None:
    one, other = await log_in(house, "alice"), await log_in(house, "alice")
    assert (await one.post("/console/account/session/end", session=other.login.id)).status_code == 303
    assert house.services.auth.find(other.cookies[COOKIE]) is None
    assert (await one.post("/console/account/session/end", session="sha256:" + "0" * 64)).status_code == 404


@pytest.mark.parametrize("role", ["operator", "approver", "member"])
async def test_the_way_for_one_operator_refuses_whoever_takes_two_whoever_calls_it(
    house: House, role: str
) -> None:
    wanted = Addition(name="mallory", role=role, org=ORG if role == "member" else None)
    alice = Operator(name="alice", key=b"", active=True)
    with pytest.raises(ProposalRoleError):
        await house.services.writer.run(
            lambda session, tx: add_one(
                house.services, session, tx, wanted, operator=alice, request=digest(b"x")
            )
        )
