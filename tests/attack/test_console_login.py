# SPDX-License-Identifier: Apache-2.0
"""Whoever wants in without being let in: guessing, stealing, fixing and replaying logins, and making people up."""

from __future__ import annotations

import asyncio
import html
import json
import re
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from broker.auth.errors import SessionEndedError
from broker.auth.sessions import COOKIE
from broker.console.rooms import all_routes
from broker.store.tables import idempotency
from policies.encoding import digest
from policies.identity import SigningKey, key_text
from policies.limits import LOGIN_FREE_TRIES, REFUSALS_NOTED
from tests.brokersim import open_house
from tests.loginsim import CONSOLE, Browser, add, cheap_passwords, log_in, named_console
from tests.passkeysim import Passkey

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import httpx

    from tests.brokersim import House

WORD = "correct horse battery"
MINUTE = 60_000
CROSS = {"sec-fetch-site": "cross-site"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(named_console(tmp_path / "broker")) as opened:
        cheap_passwords(opened)
        yield opened


async def with_password(house: House, name: str = "alice") -> None:
    login = (await log_in(house, name)).login
    await house.services.auth.account.set_password(login, WORD, request=digest(name.encode()))


async def sign_in(browser: Browser, name: str, password: str = WORD, **more: Any) -> httpx.Response:
    return await browser.post("/console/login", username=name, password=password, **more)


def asked(page: httpx.Response, action: str) -> dict[str, Any]:
    """What a form of the page asks a passkey."""
    found = re.search(rf"action=\"{re.escape(action)}\"[^>]*data-options='([^']*)'", page.text)
    assert found is not None, page.text
    options: dict[str, Any] = json.loads(html.unescape(found[1]))
    return options


def ticket(page: httpx.Response) -> str:
    return re.findall(r'name="ticket" value="([^"]+)"', page.text)[-1]


def code(page: httpx.Response) -> str:
    return re.search(r'data-fact="code">([^<]+)<', page.text)[1]  # type: ignore[index]


def link_in(page: httpx.Response) -> str:
    return page.text.partition('data-fact="secret" data-copy="')[2].partition('"')[0]


async def own_link(house: House, name: str = "alice") -> str:
    who = getattr(house, name)
    return str((await who.post(f"/operator/people/{name}/reset-login", {})).json()["link"]).removeprefix(
        CONSOLE
    )


async def passkey_of(house: House, browser: Browser, seed: str) -> Passkey:
    """Adds a passkey as the page does it."""
    page, key = await browser.get("/console/account"), Passkey(seed=seed)
    answer = key.create(asked(page, "/console/account/passkey"), CONSOLE)
    done = await browser.post("/console/account/passkey", ticket=ticket(page), assertion=answer, label="key")
    assert done.status_code == 303, done.text
    return key


# --- guessing ---


async def test_a_flood_of_passwords_is_slowed_down_and_told_when_to_come_again(house: House) -> None:
    await with_password(house)
    thief = Browser(house, address="198.51.100.9")
    answers = [await sign_in(thief, "alice", f"guess number {at}") for at in range(LOGIN_FREE_TRIES + 5)]
    assert [one.status_code for one in answers] == [401] * LOGIN_FREE_TRIES + [429] * 5
    assert answers[-1].headers["retry-after"] == "1"
    assert code(answers[-1]) == "auth.too-many"


async def test_a_flood_keeps_out_neither_other_people_nor_passkeys(house: House) -> None:
    await with_password(house)
    await with_password(house, "bob")
    alice = await log_in(house, "alice")
    key = await passkey_of(house, alice, "alice")
    for at in range(60):
        await sign_in(Browser(house, address=f"198.51.100.{at}"), "alice", "a guess that is wrong")
    assert (await sign_in(Browser(house, address="203.0.113.1"), "bob")).status_code == 303
    anew = Browser(house, address="198.51.100.1")
    page = await anew.get("/console/login")
    answer = key.get(asked(page, "/console/login"), CONSOLE)
    assert (await anew.post("/console/login", assertion=answer)).status_code == 303
    assert anew.login.person.name == "alice"


async def test_a_name_that_nobody_has_answers_like_one_without_a_right_password(house: House) -> None:
    await with_password(house)
    passwords, pages = house.services.auth.passwords, []
    for name in ("alice", "bob", "nobody-at-all"):
        before = passwords.hashed
        page = await sign_in(Browser(house, address="198.51.100.9"), name, "another password")
        assert passwords.hashed == before + 1
        pages.append((page.status_code, re.sub(r'value="[^"]*"|data-options=\'[^\']*\'', "", page.text)))
    assert pages[0] == pages[1] == pages[2]


async def test_failed_logins_do_not_grow_the_log_and_are_counted_for_the_operators(house: House) -> None:
    await with_password(house)
    before = len(house.entries())
    for at in range(50):
        await sign_in(Browser(house, address=f"198.51.100.{at}"), f"name-{at}", "another password")
    assert len(house.entries()) == before
    page = await (await log_in(house, "alice")).get("/console/people?format=json")
    assert page.json()["facts"]["floods"]["wrong-passwords"]["value"] == 50


# --- sessions ---


async def test_the_cookie_is_told_to_nobody_but_our_own_pages(house: House) -> None:
    await with_password(house)
    answer = await sign_in(Browser(house), "alice")
    set_by = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(f"{COOKIE}="))
    flags = {one.strip().lower() for one in set_by.split(";")[1:]}
    assert flags == {"httponly", "secure", "samesite=strict", "path=/"}


async def test_a_token_from_before_a_login_is_worth_nothing_after_it(house: House) -> None:
    await with_password(house)
    planted = "A" * 43
    victim = Browser(house, cookies={COOKIE: planted})
    assert (await sign_in(victim, "alice")).status_code == 303
    assert victim.cookies[COOKIE] != planted
    assert house.services.auth.find(planted) is None


async def test_a_login_in_the_same_browser_ends_the_one_before(house: House) -> None:
    await with_password(house, "bob")
    browser = await log_in(house, "alice")
    old = browser.cookies[COOKIE]
    await sign_in(browser, "bob")
    assert house.services.auth.find(old) is None
    assert browser.login.person.name == "bob"


async def test_a_stolen_cookie_is_worth_nothing_once_its_session_is_ended(house: House) -> None:
    alice = await log_in(house, "alice")
    thief = Browser(house, cookies=dict(alice.cookies), address="198.51.100.9")
    assert (await thief.get("/console/account")).status_code == 200
    owner = await log_in(house, "alice")
    await owner.post("/console/account/session/end", session="others")
    assert (await thief.get("/console/account")).status_code == 303


@pytest.mark.parametrize(("step", "times"), [(30, 1), (29, 25)], ids=["idle", "absolute"])
async def test_a_stolen_cookie_ends_by_itself(house: House, step: int, times: int) -> None:
    thief = await log_in(house, "alice")
    for _ in range(times):
        house.clock.ms += step * MINUTE
        answer = await thief.get("/console/account?format=json")
    assert answer.status_code == 401
    assert answer.json()["error"]["code"] == "console.login-needed"


async def test_a_stolen_session_becomes_no_passkey_and_no_password(house: House) -> None:
    alice = await log_in(house, "alice")
    await passkey_of(house, alice, "alice")
    house.clock.ms += 6 * MINUTE
    options, at = house.services.auth.passkeys.registration_options("alice", b"guess", []), "1.0"
    answer = Passkey(seed="thief").create(options, CONSOLE)
    tries = [
        await alice.post("/console/account/passkey", ticket=at, assertion=answer, label="mine"),
        await alice.post("/console/account/password", new_password="a word of the thief"),  # noqa: S106
        await alice.post("/console/account/passkey/remove", passkey="x"),
        await alice.post("/console/people/add", name="mallory", role="auditor"),
        await alice.post("/console/people/reset", name="bob"),
    ]
    assert [(one.status_code, code(one)) for one in tries] == [(403, "auth.step-up")] * 5
    assert [one.label for one in house.services.auth.holdings.of("alice")] == ["key"]


async def test_no_digest_of_a_password_is_kept_beside_its_hash(house: House) -> None:
    alice = await log_in(house, "alice")
    for word in (WORD, "another correct horse"):
        assert (await alice.post("/console/account/password", new_password=word)).status_code == 303
    with house.services.store.read() as session:
        mine = select(idempotency.c.body_digest).where(idempotency.c.key_id == "person:alice")
        kept = session.scalars(mine).all()
    assert len(kept) == 2
    assert len(set(kept)) == 1  # what is kept of a form does not depend on the password


async def test_a_login_by_password_of_somebody_with_a_passkey_confirms_nothing(house: House) -> None:
    """The thief has the password; the owner has a passkey as well."""
    kita = await house.member("kita")
    await with_password(house, "bob")
    owner = await log_in(house, "bob")
    await passkey_of(house, owner, "bob")
    made = (await house.alice.post(f"/operator/organisations/{kita.org}/revoke", {"reason": "x"})).json()
    proposal = made["proposal"]
    key = next(one for one in house.services.auth.holdings.of("bob") if one.kind == "passkey")
    thief = Browser(house, address="198.51.100.9")
    assert (await sign_in(thief, "bob")).status_code == 303
    tries = [
        await thief.post("/console/account/passkey/remove", passkey=key.id),
        await thief.post("/console/account/password", new_password="a word of the thief"),  # noqa: S106
        await thief.post("/console/account/passkey", ticket="1.0", assertion="{}", label="mine"),
        await thief.post("/console/account/confirm", password=WORD),
        await thief.post("/console/people/reset", name="alice"),
        await thief.post(
            f"/console/proposals/{proposal['id']}/approve", subject=proposal["digest"], password=WORD
        ),
    ]
    assert [(one.status_code, code(one)) for one in tries] == [(403, "auth.step-up")] * 6
    page = await thief.get("/console/account")
    assert 'name="password"' not in page.text
    assert 'action="/console/account/passkey/remove"' not in page.text


async def test_each_change_of_an_account_is_on_record_and_a_used_form_changes_nothing(house: House) -> None:
    alice, path = await log_in(house, "alice"), "/console/account/password"

    def entries() -> int:
        return sum(one.pub["action"] == "password.set" for one in house.entries() if "action" in one.pub)

    assert (await alice.post(path, once="a", new_password=WORD)).status_code == 303
    kept = house.services.auth.holdings.of("alice")
    assert (await alice.post(path, once="a", new_password=WORD)).status_code == 303
    other = await alice.post(path, once="a", new_password="another correct horse")  # noqa: S106
    assert code(other) == "request.invalid"
    assert (house.services.auth.holdings.of("alice"), entries()) == (kept, 1)
    assert (await alice.post(path, once="b", new_password="another correct horse")).status_code == 303  # noqa: S106
    assert entries() == 2
    assert code(await alice.post(path, once="", new_password=WORD)) == "request.invalid"


async def test_a_passkey_that_came_and_went_under_one_mark_is_on_record_each_time(house: House) -> None:
    await with_password(house)
    alice, path = await log_in(house, "alice"), "/console/account/passkey"
    seen: list[str] = []
    for at in range(2):
        page, key = await alice.get("/console/account"), Passkey(seed=f"key {at}")
        answer = key.create(asked(page, path), CONSOLE)
        added = await alice.post(path, once="same", ticket=ticket(page), assertion=answer, label="k")
        mine = [one for one in house.services.auth.holdings.of("alice") if one.kind == "passkey"]
        if added.status_code == 303:
            seen.append("passkey.add")
            again = await alice.post(f"{path}/remove", once="same", passkey=mine[0].id)
            assert code(again) == "request.invalid"
    acts = [one.pub["action"] for one in house.entries() if one.type.value == "console.action"]
    assert [one for one in acts if one.startswith("passkey.")] == seen == ["passkey.add"]


async def test_ending_sessions_is_on_record_each_time(house: House) -> None:
    alice = await log_in(house, "alice")
    for _ in range(2):
        other = await log_in(house, "alice")
        done = await alice.post("/console/account/session/end", once="same", session=other.login.id)
        assert done.status_code == 303
    acts = [one.pub["action"] for one in house.entries() if one.type.value == "console.action"]
    assert acts == ["session.end"] * 2


@pytest.mark.parametrize("how", ["change", "reset", "disable"])
async def test_a_password_that_was_verified_and_then_changed_opens_no_session(house: House, how: str) -> None:
    await with_password(house)
    passwords = house.services.auth.passwords
    real, reached, go = passwords.verify, asyncio.Event(), asyncio.Event()

    async def slow(kept: bytes | None, password: str) -> bool:
        fits = await real(kept, password)
        reached.set()
        await go.wait()
        return fits

    passwords.verify = slow  # type: ignore[method-assign]  # as while others wait for their turn
    thief = Browser(house, address="198.51.100.9")
    trying = asyncio.create_task(sign_in(thief, "alice"))
    await reached.wait()
    passwords.verify = real  # type: ignore[method-assign]
    if how == "change":
        owner = await log_in(house, "alice")
        await owner.post("/console/account/password", new_password="a word that is new")  # noqa: S106
    elif how == "reset":
        await Browser(house).get(await own_link(house), headers={"sec-fetch-site": "none"})
    else:
        await house.bob.post("/operator/people/alice/disable", {})
    go.set()
    answer = await trying
    assert (answer.status_code, code(answer)) == (401, "auth.wrong")
    assert COOKIE not in thief.cookies


async def test_a_weaker_hash_that_was_verified_does_not_come_back_over_a_new_password(house: House) -> None:
    await with_password(house)
    auth, owner = house.services.auth, (await log_in(house, "alice")).login
    old = auth.holdings.of("alice")[0].key
    await auth.account.set_password(owner, "a word that is new", request=digest(b"new"))
    new = auth.holdings.of("alice")[0].key
    await auth._rehash("alice", WORD, old)
    assert auth.holdings.of("alice")[0].key == new


async def test_a_session_that_ended_meanwhile_sets_no_password(house: House) -> None:
    thief = (await log_in(house, "alice")).login
    await own_link(house)
    with pytest.raises(SessionEndedError):
        await house.services.auth.account.set_password(thief, "a word of the thief", request=digest(b"x"))
    assert house.services.auth.holdings.of("alice") == []


# --- passkeys over the pages ---


@pytest.mark.parametrize(
    "answer",
    [
        '{"id":"\\ud800"}',
        '{"id":"a","response":"\\udfff"}',
        '{"id":"a\\u0000"}',
        '{"id":""}',
        '{"id":' + "9" * 5_000 + "}",
        '{"id":"a","n":1e999,"m":NaN}',
        '{"id":"a","x":' + "[" * 8_000 + "]" * 8_000 + "}",
        "[" * 15_000,
        '{"id":"' + "a" * 15_000 + '"}',
        "{" * 20_000,
        '{"id":"😀"}',
    ],
    ids=lambda one: ascii(one)[:24],
)
async def test_what_no_passkey_answers_is_refused_and_no_fault_of_ours(house: House, answer: str) -> None:
    alice = await log_in(house, "alice")
    kita = await house.member("kita")
    made = (await house.bob.post(f"/operator/organisations/{kita.org}/revoke", {"reason": "x"})).json()
    about = {"subject": made["proposal"]["digest"], "assertion": answer}
    stranger = Browser(house)
    await stranger.get("/console/login")
    tickets = {"ticket": ticket(await alice.get("/console/account")), "assertion": answer}
    tries = [
        await stranger.post("/console/login", assertion=answer),
        await alice.post("/console/account/confirm", **tickets),
        await alice.post("/console/account/passkey", label="x", **tickets),
        await alice.post(f"/console/proposals/{made['proposal']['id']}/approve", **about),
    ]
    assert [(one.status_code, code(one)) for one in tries] == [(403, "auth.passkey")] * 4


async def test_an_answer_that_was_overheard_does_not_work_again(house: House) -> None:
    key = await passkey_of(house, await log_in(house, "alice"), "alice")
    browser = Browser(house)
    page = await browser.get("/console/login")
    answer, heard = key.get(asked(page, "/console/login"), CONSOLE), dict(browser.cookies)
    assert (await browser.post("/console/login", assertion=answer)).status_code == 303
    thief = Browser(house, cookies=heard)
    again = await thief.post("/console/login", assertion=answer)
    assert (again.status_code, code(again)) == (403, "auth.challenge")
    assert COOKIE not in thief.cookies


async def test_an_answer_to_a_question_of_another_browser_opens_nothing(house: House) -> None:
    key = await passkey_of(house, await log_in(house, "alice"), "alice")
    one, other = Browser(house), Browser(house)
    page = await one.get("/console/login")
    await other.get("/console/login")
    answer = await other.post("/console/login", assertion=key.get(asked(page, "/console/login"), CONSOLE))
    assert (answer.status_code, code(answer)) == (403, "auth.passkey")


async def test_a_passkey_of_somebody_who_was_disabled_opens_nothing(house: House) -> None:
    key = await passkey_of(house, await log_in(house, "bob"), "bob")
    await house.alice.post("/operator/people/bob/disable", {})
    browser = Browser(house)
    page = await browser.get("/console/login")
    answer = await browser.post("/console/login", assertion=key.get(asked(page, "/console/login"), CONSOLE))
    assert answer.status_code == 403
    assert COOKIE not in browser.cookies


# --- one-time links ---


async def test_a_link_that_was_opened_lets_nobody_in_again(house: House) -> None:
    path, browser, thief = await own_link(house), Browser(house), Browser(house)
    first = await browser.get(path, headers={"sec-fetch-site": "none"})
    assert (first.status_code, first.headers["location"]) == (303, "/console")
    again = await thief.get(path, headers={"sec-fetch-site": "none"})
    assert (again.status_code, code(again)) == (410, "auth.link")
    assert COOKIE not in thief.cookies


@pytest.mark.parametrize(
    "headers",
    [CROSS, {"sec-fetch-site": "same-site"}, {"sec-fetch-site": "none", "sec-purpose": "prefetch"}],
    ids=str,
)
async def test_a_link_is_not_used_up_by_another_site_or_by_fetching_ahead(
    house: House, headers: dict[str, str]
) -> None:
    path, browser = await own_link(house), Browser(house)
    page = await browser.get(path, headers=headers)
    assert page.status_code == 200
    assert f'action="{path}"' in page.text
    assert COOKIE not in browser.cookies
    assert (await browser.post(path)).status_code == 303
    assert browser.login.person.name == "alice"


async def test_a_link_is_too_old_after_three_days_and_a_made_up_one_is_none(house: House) -> None:
    path = await own_link(house)
    house.clock.ms += 72 * 60 * MINUTE
    for one in (path, "/console/enter/" + "A" * 43, "/console/enter/%00", "/console/enter/" + "x" * 4_000):
        answer = await Browser(house).get(one, headers={"sec-fetch-site": "none"})
        assert answer.status_code in {404, 410}, one


async def test_a_link_needs_the_second_half_and_ends_with_a_wrong_one(house: House) -> None:
    await add(house, "carol", "operator")
    told = (await house.alice.post("/operator/people/bob/reset-login", {})).json()
    carol = await log_in(house, "carol")
    done = await carol.post("/console/people/reset", name="bob")
    path = link_in(await carol.get(done.headers["location"])).removeprefix(CONSOLE)
    browser = Browser(house)
    page = await browser.get(path, headers={"sec-fetch-site": "none"})
    assert page.status_code == 200
    assert 'name="code"' in page.text
    assert (await browser.post(path, code="aaaa-aaaa-aaaa-aaaa")).status_code == 410
    assert (await browser.post(path, code=told["code"])).status_code == 410
    assert COOKIE not in browser.cookies


# --- other sites ---


@pytest.mark.parametrize(
    "headers",
    [
        CROSS,
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"sec-fetch-site": "", "origin": "https://evil.example"},
    ],
    ids=str,
)
async def test_another_site_logs_nobody_in_and_nobody_out(house: House, headers: dict[str, str]) -> None:
    await with_password(house, "bob")
    victim = await log_in(house, "alice")
    path = await own_link(house, "bob")
    for try_path, form in (
        ("/console/login", {"username": "bob", "password": WORD}),
        (path, {}),
        ("/console/logout", {}),
        ("/console/account/password", {"new_password": "a word of the thief"}),
    ):
        answer = await victim.post(try_path, headers=headers, **form)
        assert (answer.status_code, code(answer)) == (403, "console.cross-site"), try_path
    assert victim.login.person.name == "alice"


async def test_a_form_that_says_not_where_it_comes_from_is_refused(house: House) -> None:
    await with_password(house)
    browser = Browser(house, headers={})
    assert (await sign_in(browser, "alice")).status_code == 403
    assert (await sign_in(browser, "alice", headers={"origin": CONSOLE})).status_code == 303


async def test_a_form_needs_the_token_of_its_own_login(house: House) -> None:
    alice, bob = await log_in(house, "alice"), await log_in(house, "bob")
    for token in ("", bob.login.csrf, alice.cookies[COOKIE]):
        assert (await alice.post("/console/account/language", csrf=token, lang="ja")).status_code == 403
    assert alice.login.person.lang is None


@pytest.mark.parametrize(
    "to",
    [
        "https://localhost:7443/console/people",
        "https://evil.example",
        "//evil.example",
        "/\\evil.example",
        "/console\n//evil",
        "javascript:alert(1)",
        "/evil",
        "/console/enter/" + "A" * 43,
        "/console/%65nter/" + "A" * 43,
        "/console/members/../enter/" + "A" * 43,
        "/console/members/%2e%2e/enter/" + "A" * 43,
        "/console//enter/" + "A" * 43,
        "/console/login",
        "/console/logout",
        "/console/oidc/go",
        "/console/oidc/back?code=x",
        "/console/people/add",
        "/console/runs/run_a/events",
        "/console/nowhere",
    ],
)
async def test_a_login_leads_only_to_pages_of_ours(house: House, to: str) -> None:
    await with_password(house)
    answer = await sign_in(Browser(house), "alice", to=to)
    assert answer.headers["location"] == "/console"


@pytest.mark.parametrize("to", ["/console/people?sort=name", "/console/members/org_a", "/audit", "/models"])
async def test_a_login_leads_back_to_the_screen_that_was_asked_for(house: House, to: str) -> None:
    await with_password(house)
    assert (await sign_in(Browser(house), "alice", to=to)).headers["location"] == to


@pytest.mark.parametrize("site", ["none", "same-origin"])
async def test_a_link_signs_nobody_in_while_somebody_is_signed_in(house: House, site: str) -> None:
    victim, path = await log_in(house, "alice"), await own_link(house, "bob")
    page = await victim.get(path, headers={"sec-fetch-site": site})
    assert page.status_code == 200
    assert f'action="{path}"' in page.text
    assert "that login ends when you use it" in page.text
    assert victim.login.person.name == "alice"
    assert (await victim.post(path)).status_code == 303
    assert victim.login.person.name == "bob"


async def test_a_browser_that_does_not_say_where_a_link_was_opened_is_shown_a_button(house: House) -> None:
    path, browser = await own_link(house), Browser(house, headers={})
    page = await browser.get(path)
    assert (page.status_code, COOKIE in browser.cookies) == (200, False)
    assert f'action="{path}"' in page.text


# --- making people up ---


async def test_one_operator_makes_no_second_one_by_any_way(house: House) -> None:
    """Alice has her key and her login, and wants to be two people who approve."""
    alice = await log_in(house, "alice")
    made = await house.alice.post("/operator/people", {"name": "mallory", "role": "operator"})
    assert made.status_code == 202
    proposed = await alice.post("/console/people/add", name="mallet", role="approver", org="")
    assert proposed.status_code == 303
    for name in ("mallory", "mallet"):
        assert (await house.alice.post(f"/operator/people/{name}/reset-login", {})).status_code == 404
    told = [await house.alice.post("/operator/people/bob/reset-login", {}) for _ in range(3)]
    assert all("link" not in one.json() for one in told)
    again = await alice.post("/console/people/reset", name="bob")
    assert "/console/enter/" not in (await alice.get(again.headers["location"])).text
    assert (await alice.post("/console/people/reset", name="alice")).status_code == 403
    names = {one["name"] for one in (await house.alice.get("/operator/people")).json()["people"]}
    assert names == {"alice", "bob"}


async def test_neither_of_two_who_made_a_third_comes_in_as_the_third(house: House) -> None:
    await add(house, "carol", "approver")
    (await house.alice.post("/operator/people/carol/reset-login", {})).json()
    made = (await house.bob.post("/operator/people/carol/reset-login", {})).json()
    bob = Browser(house)
    answer = await bob.post(made["link"].removeprefix(CONSOLE), code="")
    assert answer.status_code == 410
    assert COOKIE not in bob.cookies


@pytest.mark.parametrize("role", ["auditor", "member"])
async def test_whoever_only_looks_keeps_no_people_and_it_is_on_record_that_they_tried(
    house: House, role: str
) -> None:
    org = (await house.member("kita")).org if role == "member" else None
    browser = await log_in(house, "eve", role=role, org=org)
    for path, form in (
        ("add", {"name": "x", "role": "auditor"}),
        ("reset", {"name": "bob"}),
        ("disable", {"name": "bob"}),
    ):
        answer = await browser.post(f"/console/people/{path}", **form)
        assert (answer.status_code, code(answer)) == (403, "console.role")
    refused = [
        one.pub
        for one in house.entries()
        if one.type.value == "console.action" and one.pub["result"] == "refused"
    ]
    assert {one["operator"] for one in refused} == {"eve"}
    assert len(refused) == 3


@pytest.mark.parametrize("path", ["/console/proposals/x{}", "/console/runs/{}/stop"])
async def test_refusals_of_one_login_do_not_fill_the_log(house: House, path: str) -> None:
    browser = await log_in(house, "eve", role="auditor")
    before = len(house.entries())
    for at in range(20):
        where = path.format(at)
        done = await (browser.post(where) if where.endswith("stop") else browser.get(where))
        assert code(done) == "console.role"
    assert len(house.entries()) == before + 1


async def test_one_login_leaves_so_many_refusals_in_the_log_and_no_more(house: House) -> None:
    browser = await log_in(house, "eve", role="auditor")
    before = len(house.entries())
    others = [one for one in all_routes() if one.kind == "act" and "auditor" not in one.roles]
    assert len(others) > REFUSALS_NOTED
    for one in others:
        await browser.post(re.sub(r"\{[^}]+\}", "x", one.path))
    assert len(house.entries()) == before + REFUSALS_NOTED


async def test_a_name_is_one_persons_whichever_list_it_stands_in(house: House) -> None:
    org = (await house.member("kita")).org
    await add(house, "mia", "member", org=org)
    await add(house, "eve", "auditor")

    async def enrol(name: str) -> int:
        key = key_text(SigningKey.from_seed(digest(name.encode())[7:39].encode()).public)
        return (await house.alice.post("/operator/auditors", {"name": name, "key": key})).status_code

    async def person(name: str, role: str, **more: str) -> int:
        return (await house.alice.post("/operator/people", {"name": name, "role": role, **more})).status_code

    assert [await enrol(name) for name in ("bob", "mia", "ernst")] == [409, 409, 201]
    assert [await person("ernst", role) for role in ("operator", "approver")] == [409, 409]
    assert await person("ernst", "member", org=org) == 409
    assert await person("ernst", "auditor") == 202  # its grants open something: that takes two
    await house.alice.post("/operator/people/eve/disable", {})
    assert await person("eve", "member", org=org) == 409
    await house.alice.post("/operator/people/bob/disable", {})
    assert await person("bob", "auditor") == 409
    assert await enrol("bob") == 409


async def test_one_operator_alone_does_not_look_as_a_member(house: House) -> None:
    org = (await house.member("kita")).org
    alice = await log_in(house, "alice")
    made = await house.alice.post("/operator/people", {"name": "mia", "role": "member", "org": org})
    assert (made.status_code, "link" in made.json()) == (202, False)
    done = await alice.post("/console/people/add", name="kim", role="member", org=org)
    assert done.headers["location"] == "/console/proposals"
    await add(house, "noa", "member", org=org)
    told = [await house.alice.post("/operator/people/noa/reset-login", {}) for _ in range(2)]
    assert all("link" not in one.json() for one in told)
    assert "link" in (await house.bob.post("/operator/people/noa/reset-login", {})).json()


async def test_an_approver_begins_nothing(house: House) -> None:
    browser = await log_in(house, "eve", role="approver")
    assert (await browser.post("/console/people/add", name="x", role="auditor")).status_code == 403
    assert (await browser.post("/console/people/reset", name="bob")).status_code == 403
    assert (await browser.post("/console/people/disable", name="bob")).status_code == 403


async def test_who_was_disabled_comes_back_with_nothing_of_before(house: House) -> None:
    eve = await log_in(house, "eve", role="auditor")
    key = await passkey_of(house, eve, "eve")
    await house.alice.post("/operator/people/eve/disable", {})
    link = (await house.alice.post("/operator/people", {"name": "eve", "role": "auditor"})).json()["link"]
    browser = Browser(house)
    page = await browser.get("/console/login")
    assert (
        await browser.post("/console/login", assertion=key.get(asked(page, "/console/login"), CONSOLE))
    ).status_code == 403
    entered = await browser.get(link.removeprefix(CONSOLE), headers={"sec-fetch-site": "none"})
    assert entered.headers["location"] == "/audit"
    assert (await browser.get("/console/people")).status_code == 403
