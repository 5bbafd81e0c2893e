# SPDX-License-Identifier: Apache-2.0
"""The frame around every screen: headers, who may have what, forms that count once, and what a fault leaves standing."""

from __future__ import annotations

import hashlib
import re
import tomllib
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest
from sqlalchemy import delete, func, select
from starlette.routing import Mount
from starlette.routing import Route as WebRoute

from broker.api.document import operations
from broker.app import bare
from broker.auth.sessions import COOKIE
from broker.console.headers import PAGE_HEADERS, STATIC_HEADERS
from broker.console.languages import LANGUAGES, speech
from broker.console.rendering import STATIC, Said, asset
from broker.console.rooms import all_routes
from broker.console.values import Code, Name, State
from broker.log.errors import LogUnavailableError
from broker.store.tables import invite, login_session
from policies.limits import SESSION_H, SESSION_IDLE_MIN
from policies.log.entries import EntryType
from tests.brokersim import URL, House, open_house
from tests.consolesim import PersonSim, read_html

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from broker.console.screens import Route

ROLES = ("operator", "approver", "auditor", "member")
NOBODY = "anyone"
FORM = "application/x-www-form-urlencoded"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


@pytest.fixture
async def alice(house: House) -> PersonSim:
    return await PersonSim.enter(house, "alice")


async def people(house: House) -> dict[str, PersonSim]:
    """Somebody of each role, and nobody."""
    kita = await house.member("kita")
    entered = {
        "operator": await PersonSim.enter(house, "alice"),
        "approver": await PersonSim.enter(house, "carol", role="approver"),
        "auditor": await PersonSim.enter(house, "dora", role="auditor"),
        "member": await PersonSim.enter(house, "mia", role="member", org=kita.org),
    }
    return {**entered, NOBODY: PersonSim(house)}


def at(route: Route) -> str:
    """A path of the route; what is named in it does not exist."""
    return re.sub(r"\{[^}]+\}", "none", route.path)


def invites(house: House) -> int:
    with house.services.store.read() as session:
        return session.scalar(select(func.count()).select_from(invite)) or 0


def invitation(once: str = "aa", **changes: str) -> dict[str, str]:
    return {"legal_name": "Kita GmbH", "country": "DE", "group": "kita", "once": once, **changes}


async def send(person: PersonSim, path: str, form: dict[str, str], **headers: str | None):
    return await person.post_raw(path, urlencode({"csrf": person.csrf} | form).encode(), **headers)


# --- every page ---


async def test_every_page_has_the_headers_and_loads_nothing_from_elsewhere(house):
    everybody = await people(house)
    looked = 0
    for route in all_routes():
        if route.kind not in {"screen", "door"}:
            continue
        person = everybody[next(one for one in (*ROLES, NOBODY) if one in route.roles)]
        answer = await person.get(at(route))
        assert PAGE_HEADERS.items() <= dict(answer.headers).items() | _titled(answer), route.name
        assert _code(answer) != "internal.error", route.name
        if answer.headers.get("content-type", "").startswith("text/html"):
            _check_strict(answer.text, route.name)
            looked += 1
    assert looked > 25


def _titled(answer) -> set[tuple[str, str]]:
    return {(name, answer.headers.get(name)) for name in PAGE_HEADERS}


def _check_strict(html: str, name: str) -> None:
    """No inline script or style, no handler, nothing of another origin: the policy never has to refuse."""
    root = read_html(html)
    assert root.first("html").attrs["lang"] in LANGUAGES
    assert root.first("main").attrs["data-screen"], name
    for node in root.all():
        assert not [one for one in node.attrs if one == "style" or one.startswith("on")], (name, node.tag)
        if node.tag in {"script", "img", "link", "a", "form"}:
            for one in ("src", "href", "action"):
                assert not re.match(r"(?i)\s*(//|[a-z][a-z0-9+.-]*:)", node.attrs.get(one, "")), (name, node)
        if node.tag == "script":
            assert node.attrs["src"].startswith("/console/static/")
            assert not node.parts
        assert node.tag != "style", name


async def test_a_page_does_not_say_who_else_is_there(house, alice):
    page = await alice.page("/console")
    assert page.root.first("title").text == "Overview · iriai"
    assert alice.cookies[COOKIE] not in page.html


async def test_the_language_is_kept_once_it_was_chosen(alice):
    assert (await alice.page("/console", lang="ja")).root.first("html").attrs["lang"] == "ja"
    assert (await alice.page("/console")).title == "概要"
    assert (await alice.page("/console", lang="en")).title == "Overview"


async def test_an_unknown_page_is_a_page_too(alice):
    page = await alice.page("/console/no/such/thing?x=1")
    assert (page.status, page.screen, page.code) == (404, "refused", "request.not-found")
    asked = await alice.json("/console/no/such/thing")
    assert asked["error"]["code"] == "request.not-found"
    assert (await alice.get("/audit/nowhere")).status_code == 404


@pytest.mark.parametrize("query", ["format=xml", "format=csv&table=nothing"])
async def test_another_format_or_table_is_refused(alice, query):
    page = await alice.page(f"/console/members?{query}")
    assert (page.status, page.code) == (422, "console.form")


async def test_a_screen_without_a_table_says_so_for_csv(alice):
    assert (await alice.page("/console/compare?format=csv")).code == "console.form"


async def test_a_zero_byte_or_a_long_query_harms_nothing(alice):
    for query in (
        "?lang=%00ja",
        "?after=" + "x" * 5_000,
        "?sort=%00",
        "?desc=1&sort=name&state=%F0%9F%92%A9",
    ):
        assert (await alice.get("/console/members" + query)).status_code == 200


async def test_the_ports_own_address_leads_a_browser_to_the_console_and_programs_nowhere(house):
    nobody = PersonSim(house)
    answer = await nobody.send("GET", "/", headers={"Accept": "text/html,application/xhtml+xml;q=0.9"})
    assert (answer.status_code, answer.headers["location"]) == (303, "/console")
    for method, accept in (("GET", "*/*"), ("GET", "application/json"), ("POST", "text/html"), ("PUT", "")):
        refused = await nobody.send(method, "/", headers={"Accept": accept})
        assert (refused.status_code, refused.json()["code"]) == (404, "request.not-found")
        elsewhere = await nobody.send(method, "/nowhere", headers={"Accept": accept})
        assert refused.content == elsewhere.content


async def test_the_menu_of_a_narrow_screen_names_the_screen_and_opens_without_script(alice):
    page = await alice.page("/console/members")
    menu = page.root.first("details", **{"class": "menu"})
    assert menu.first("summary").text == "Menu Members and nodes"
    assert "/console/budgets" in page.nav()


def test_words_are_broken_only_where_they_may_be():
    say = Said(speech("en"), 0)
    assert say(Name("Nordschweiss Automation")).count("long") == 0
    assert 'class="name long"' in say(Name("x" * 25))
    assert say(Code("contribution.accepted")) == '<code translate="no">contribution.<wbr>accepted</code>'
    assert "<wbr>" not in say(Code("tcp_pose_delta"))
    assert 'class="long"' in say(Code("sha256:" + "ab" * 32))
    assert '<span class="word">--key</span> FILE' in say(Code("iriai-broker status --key FILE"))
    assert "●</span>&nbsp;released" in say(State("released"))


# --- who may have what ---


async def test_each_role_gets_what_the_route_declares_and_nothing_else(house):
    everybody = await people(house)
    for route in all_routes():
        if route.kind == "door":
            continue
        for role in ROLES:
            person = everybody[role]
            fits = role in route.roles or NOBODY in route.roles
            if fits and (route.kind == "events" or route.name == "health-check"):
                continue  # the one goes on, the other opens sockets
            if route.kind == "act" and route.name in {"logout", "session-end"}:
                person = await PersonSim.enter(house, person.name, **_who(house, role))
            answer = (
                await send(person, at(route), {"once": "00"})
                if route.kind == "act"
                else await person.get(at(route) + "?format=json")
            )
            code = _code(answer)
            assert (code != "console.role") is fits, (route.name, role, answer.status_code, code)
            if not fits:
                assert answer.status_code == 403
            assert answer.status_code < 500 or code == "log.unavailable", (
                route.name,
                role,
                answer.text[:500],
            )


def _who(house: House, role: str) -> dict[str, str]:
    if role != "member":
        return {"role": role}
    return {"role": role, "org": house.services.directory.members()[0].org}


def _code(answer) -> str | None:
    kind = answer.headers.get("content-type", "")
    if kind == "application/json" and "error" in answer.json():
        return str(answer.json()["error"]["code"])
    if kind.startswith("text/html") and answer.status_code >= 400:
        found = read_html(answer.text).all(data_fact="code")
        return found[0].text if found else None
    return None


async def test_who_is_not_signed_in_is_sent_to_the_login_and_back(house):
    nobody = PersonSim(house)
    for route in all_routes():
        if NOBODY in route.roles:
            continue
        if route.kind in {"screen", "file"}:
            answer = await nobody.get(at(route) + "?state=a%26b")
            assert answer.status_code == 303
            back = answer.headers["location"]
            assert back.startswith("/console/login?to=%2F")
            assert "state%3Da%2526b" in back
            assert _code(await nobody.get(at(route) + "?format=json")) == "console.login-needed"
        elif route.kind == "act":
            assert _code(await nobody.post_raw(at(route), b"once=00")) == "console.login-needed"
        elif route.kind == "events":
            assert (await nobody.get(at(route))).status_code == 401


async def test_no_route_is_open_by_default(house):
    known = {(one.path, one.name) for one in all_routes()}
    served = [one for one in house.port.app.routes if isinstance(one, (WebRoute, Mount))]
    people_s = [
        one for one in served if re.match(r"/(console|audit|models|docs|openapi.json)(/|$)", one.path)
    ]
    extra = {(one.path, one.name) for one in people_s} - known
    assert {name for _, name in extra} == {"console-static", "console-unknown"}
    assert {one.path for one in people_s} >= {path for path, _ in known}
    assert all(one.role for _, one in operations(bare()))
    assert all(one.roles for one in all_routes())
    assert len({one.name for one in all_routes()}) == len(all_routes())


def test_only_the_public_screens_and_doors_are_for_anybody():
    assert {one.path for one in all_routes() if NOBODY in one.roles and one.kind != "door"} == {"/models"}


async def test_a_role_that_asked_for_what_is_not_its_own_is_on_record(house):
    kita = await house.member("kita")
    mia = await PersonSim.enter(house, "mia", role="member", org=kita.org)
    for _ in range(2):
        assert (await mia.page("/console/members")).code == "console.role"
    refused = [one for one in house.entries(EntryType.CONSOLE_ACTION) if one.pub["result"] == "refused"]
    assert [(one.pub["operator"], one.pub["action"]) for one in refused] == [("mia", "console.members")]


# --- sessions ---


async def test_an_idle_login_ends_and_the_login_page_keeps_the_way_back(house, alice):
    house.clock.ms += SESSION_IDLE_MIN * 60_000
    answer = await alice.get("/console/members?state=stale")
    assert answer.status_code == 303
    assert answer.headers["location"] == "/console/login?to=%2Fconsole%2Fmembers%3Fstate%3Dstale"


async def test_a_login_ends_after_its_hours_however_busy(house, alice):
    for _ in range(SESSION_H * 60 // (SESSION_IDLE_MIN - 1)):
        house.clock.ms += (SESSION_IDLE_MIN - 1) * 60_000
        await alice.get("/console")
    house.clock.ms += (SESSION_IDLE_MIN - 1) * 60_000
    assert (await alice.get("/console")).status_code == 303


async def test_a_revoked_login_is_refused_at_once(house, alice):
    token = alice.csrf
    await house.services.writer.run(lambda session, _tx: session.execute(delete(login_session)) and None)
    assert (await alice.get("/console")).status_code == 303
    sent = await alice.post_raw("/console/invitations", urlencode(invitation() | {"csrf": token}).encode())
    assert _code(sent) == "console.login-needed"
    assert invites(house) == 0


# --- forms ---


async def test_a_form_from_elsewhere_is_refused(house, alice):
    for headers in (
        {"Sec_Fetch_Site": "cross-site"},
        {"Sec_Fetch_Site": "same-site"},
        {"Sec_Fetch_Site": "none"},
        {"Sec_Fetch_Site": None, "Origin": "https://evil.example"},
        {"Sec_Fetch_Site": None, "Origin": "null"},
        {"Sec_Fetch_Site": None, "Origin": None},
        {"Sec_Fetch_Site": "cross-site", "Origin": URL},
    ):
        answer = await send(alice, "/console/invitations", invitation(), **headers)
        assert (answer.status_code, _code(answer)) == (403, "console.cross-site"), headers
    assert invites(house) == 0


async def test_a_browser_without_fetch_metadata_is_known_by_its_origin(house, alice):
    answer = await send(alice, "/console/invitations", invitation(), Sec_Fetch_Site=None)
    assert answer.status_code == 303
    assert invites(house) == 1


async def test_a_form_with_another_token_is_refused(house, alice):
    for token in ("", "wrong", "a" * 43):
        answer = await send(alice, "/console/invitations", invitation(csrf=token))
        assert (answer.status_code, _code(answer)) == (403, "console.cross-site")
    assert invites(house) == 0


async def test_the_token_of_another_login_of_the_same_person_does_not_fit(house, alice):
    other = await PersonSim.enter(house, "alice")
    answer = await send(alice, "/console/invitations", invitation(csrf=other.csrf))
    assert _code(answer) == "console.cross-site"


async def test_a_form_that_is_sent_twice_has_one_effect(house, alice):
    first = await send(alice, "/console/invitations", invitation("ab12"))
    again = await send(alice, "/console/invitations", invitation("ab12"))
    assert first.status_code == again.status_code == 303
    assert invites(house) == 1
    other = await send(alice, "/console/invitations", invitation("ab12", group="other"))
    assert _code(other) == "request.invalid"
    assert invites(house) == 1


async def test_a_form_without_its_mark_is_refused(house, alice):
    for once in ("", "a b", "x" * 65, "../.."):
        assert _code(await send(alice, "/console/invitations", invitation(once))) == "request.invalid"
    assert invites(house) == 0


async def test_a_body_that_is_no_form_is_refused(alice):
    for body, code in (
        (b"\xff\xfe=1", "console.form"),
        (b"a=1&" * 201, "console.form"),
        (b"a=" + b"x" * 300_000, "request.body-too-large"),
        (b"", "console.cross-site"),
    ):
        assert _code(await alice.post_raw("/console/invitations", body)) == code


async def test_what_an_act_said_is_shown_once_and_never_elsewhere(house, alice):
    page = await alice.page("/console/invitations")
    done = await alice.post(
        page.form("/console/invitations"), legal_name="Kita GmbH", country="DE", group="kita"
    )
    assert done.said == "The invitation for Kita GmbH is made."
    secret = done.fact("secret")
    again = await alice.page("/console/invitations")
    assert secret not in again.html
    assert not again.main.all(role="status")
    assert secret.encode() not in b"".join(one.body for one in house.entries())


# --- faults of ours and of the machine ---


async def test_a_panel_whose_source_fails_shows_the_code_and_the_rest_works(house, alice, monkeypatch):
    def broken() -> None:
        raise LogUnavailableError(need="a disk", found="none", remedy="look at the disk")

    monkeypatch.setattr(house.services.witnessing, "status", broken)
    page = await alice.page("/console")
    assert page.status == 200
    assert page.panel("log").first(data_fact="code").text == "log.unavailable"
    assert page.fact("members") == "0"
    assert page.fact("backup") == "never"
    assert "One source could not be read: log.unavailable." in page.text
    assert set((await alice.json("/console"))["errors"]) == {"log"}


async def test_a_table_that_cannot_be_read_leaves_the_other_panels_standing(house, alice):
    drop = "DROP TABLE proposal"
    await house.services.writer.run(lambda session, _tx: session.exec_driver_sql(drop) and None)
    page = await alice.page("/console")
    assert page.status == 200
    assert "One source could not be read: OperationalError." in page.text
    assert page.fact("log") == "growing"


async def test_a_fault_of_ours_says_nothing_of_itself(house, alice, monkeypatch):
    def broken() -> None:
        raise RuntimeError("a secret of the process")

    monkeypatch.setattr(house.services.directory, "members", broken)
    answer = await alice.get("/console/members")
    assert answer.status_code == 500
    assert "secret of the process" not in answer.text
    assert _code(answer) == "console.internal"


# --- files ---


def test_files_of_others_are_the_ones_that_were_taken_in():
    with (STATIC / "VENDORED.toml").open("rb") as file:
        listed = tomllib.load(file)["file"]
    there = {one.relative_to(STATIC).as_posix() for one in (STATIC / "vendor").rglob("*") if one.is_file()}
    assert {one["path"] for one in listed} == there
    for one in listed:
        assert hashlib.sha256((STATIC / one["path"]).read_bytes()).hexdigest() == one["sha256"], one["path"]
        assert {"package", "version", "licence"} <= set(one)


def test_a_page_with_everything_that_it_loads_is_small():
    import gzip

    loaded = [
        STATIC / name for name in ("style.css", "app.js", "icon.svg", "vendor/htmx.min.js", "vendor/sse.js")
    ]
    assert sum(len(gzip.compress(one.read_bytes())) for one in loaded) < 45_000  # and the page itself: 60 kB


async def test_a_static_file_is_served_by_its_hash_for_ever(house):
    nobody = PersonSim(house)
    answer = await nobody.get(asset("style.css"))
    assert answer.status_code == 200
    assert answer.headers["cache-control"] == STATIC_HEADERS["Cache-Control"]
    assert answer.headers["content-type"].startswith("text/css")
    stale = asset("style.css").replace(asset("style.css").split("/")[3], "0" * 16)
    assert (await nobody.get(stale)).status_code == 404


async def test_nothing_else_is_served_as_a_static_file(house):
    nobody, stamp = PersonSim(house), asset("style.css").split("/")[3]
    for path in (
        "../frame.py",
        "..%2fframe.py",
        "%2e%2e/frame.py",
        "vendor/../../frame.py",
        "/etc/passwd",
        "//etc/passwd",
        "VENDORED.toml",
        "style.css/x",
        ".",
        "%00",
    ):
        answer = await nobody.get(f"/console/static/{stamp}/{path}")
        assert answer.status_code in {303, 404}, path
        assert b"SPDX" not in answer.content
