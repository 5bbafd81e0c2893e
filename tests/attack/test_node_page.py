# SPDX-License-Identifier: Apache-2.0
"""The node's page against whoever reaches its port from a browser, and against names that others chose."""

from __future__ import annotations

import http.client
import re
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from client.membership import initialise
from client.page.app import SCREENS, Page
from client.page.errors import CodeError, LinkError, PageBusyError
from client.page.keys import CODE_S, LINK_S, WRONG_CODES, Keys, grouped
from client.page.running import configured
from client.page.sessions import IDLE_S, SESSION_S, SESSIONS, Sessions
from client.settings import Home, load_settings
from tests.nodesim import HandClock, SeedEntropy
from tests.nodeworld import World, ready_world
from tests.pagesim import HOST, PORT, SAME_ORIGIN, Visitor, told_by_broker, visiting

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>'
RIGHT_TO_LEFT = "\u202egnp.exe \u05d0\u05d1 \u2067x"
LONG = "long" * 500


@pytest.fixture(autouse=True)
def anyio_backend() -> str:
    return "asyncio"


@dataclass
class Bare:
    """A node that has keys and nothing else, and its page."""

    home: Home
    clock: HandClock
    page: Page


@pytest.fixture
def bare(tmp_path) -> Bare:
    home, clock = Home(tmp_path / "node"), HandClock()
    initialise(home, entropy=SeedEntropy(b"init"))
    return Bare(home, clock, Page(home, port=PORT, clock=clock, entropy=SeedEntropy(b"page")))


@asynccontextmanager
async def browsing(bare: Bare, host: str = HOST) -> AsyncIterator[Visitor]:
    transport = httpx.ASGITransport(app=bare.page.app)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        yield Visitor(bare.page, client)


def code(answer: httpx.Response) -> str:
    return re.search(r'<code translate="no">(page\.[a-z-]+)</code>', answer.text)[1]


# --- another name for this machine ---


@pytest.mark.parametrize(
    "host",
    [
        "evil.example",
        f"evil.example:{PORT}",
        "127.0.0.1",
        "127.0.0.1:80",
        f"127.0.0.1.evil.example:{PORT}",
        f"[::1]:{PORT}",
        "",
        f"{HOST}@evil.example",
    ],
)
async def test_a_name_that_points_at_this_machine_is_answered_by_nothing(bare, host):
    async with browsing(bare) as visitor:
        token = bare.page.keys.draw("link")
        for path in (f"/open/{token}", "/", "/static/x.css"):
            answer = await visitor.client.get(path, headers={"host": host})
            assert (answer.status_code, "set-cookie" in answer.headers) == (421, False)
            assert "page.host" in answer.text
        assert (await visitor.get(f"/open/{token}")).status_code == 303  # the link was not used up by it
        answer = await visitor.client.post("/act/pause", headers={"host": host, **SAME_ORIGIN})
        assert answer.status_code == 421


async def test_localhost_is_this_machine_too(bare):
    async with browsing(bare, f"localhost:{PORT}") as visitor:
        assert (await visitor.enter()).status_code == 303


# --- links and sessions ---


async def test_without_a_session_no_page_says_anything_of_the_node(bare):
    async with browsing(bare) as visitor:
        for path in (*SCREENS, "/data/kita/pick", "/no-such"):
            for form in ("", "?format=json", "?format=csv"):
                answer = await visitor.get(path + form)
                assert answer.status_code == 401
                assert "page.session" in answer.text
                assert "node_" not in answer.text


async def test_a_link_opens_once_within_its_time_and_no_other_text_does(bare):
    async with browsing(bare) as visitor:
        token = bare.page.keys.draw("link")
        assert (await visitor.get(f"/open/{token}")).headers["set-cookie"].startswith(f"iriai-page-{PORT}=")
        visitor.client.cookies.clear()
        assert code(await visitor.get(f"/open/{token}")) == "page.link"
        late = bare.page.keys.draw("link")
        bare.clock.ms += LINK_S * 1000 + 1
        assert code(await visitor.get(f"/open/{late}")) == "page.link"
        for wrong in ("x", late[:-1], bare.page.keys.draw("code"), "%00", "a" * 5000):
            assert (await visitor.get(f"/open/{wrong}")).status_code == 403
        assert (await visitor.client.head("/open/" + bare.page.keys.draw("link"))).status_code == 400


async def test_the_cookie_is_out_of_reach_of_scripts_other_sites_and_other_nodes_on_the_machine(bare):
    async with browsing(bare) as visitor:
        told = (await visitor.enter()).headers["set-cookie"].lower()
    assert {"httponly", "path=/", "samesite=strict", "max-age=43200"} <= set(told.split("; "))
    assert "domain" not in told


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
async def test_a_page_of_another_site_uses_up_no_link_and_gets_a_button_at_most(bare, site):
    async with browsing(bare) as visitor:
        token = bare.page.keys.draw("link")
        answer = await visitor.get(f"/open/{token}", **{"sec-fetch-site": site})
        assert (answer.status_code, "set-cookie" in answer.headers) == (200, False)
        assert f'action="/open/{token}"' in answer.text
        looked = await visitor.get(f"/open/{token}", **{"sec-fetch-site": "none", "sec-purpose": "prefetch"})
        assert "set-cookie" not in looked.headers
        refused = await visitor.client.post(f"/open/{token}", headers={"sec-fetch-site": site})
        assert code(refused) == "page.cross-site"
        assert (await visitor.client.post(f"/open/{token}", headers=SAME_ORIGIN)).status_code == 303


async def test_a_stolen_cookie_of_another_process_or_after_its_time_opens_nothing(bare):
    other = Sessions(port=PORT, clock=bare.clock, entropy=SeedEntropy(b"another"))
    stolen, _ = other.open()
    async with browsing(bare) as visitor:
        visitor.client.cookies.set(f"iriai-page-{PORT}", stolen)
        assert (await visitor.get("/doctor")).status_code == 401
        visitor.client.cookies.clear()
        await visitor.enter()
        assert (await visitor.get("/benefit")).status_code == 200
        bare.clock.ms += IDLE_S * 1000 + 1
        assert (await visitor.get("/benefit")).status_code == 401
        await visitor.enter()
        for _ in range(SESSION_S // IDLE_S):
            bare.clock.ms += IDLE_S * 1000
            last = await visitor.get("/benefit")
        assert last.status_code == 200
        bare.clock.ms += 1000
        assert (await visitor.get("/benefit")).status_code == 401


def test_only_so_many_sessions_are_open_and_one_that_is_closed_is_gone():
    sessions = Sessions(port=1, clock=HandClock(), entropy=SeedEntropy(b"s"))
    first, *others = [sessions.open()[0] for _ in range(SESSIONS + 1)]
    assert sessions.find(first) is None
    assert sessions.find(others[0]) is not None
    sessions.close(others[0])
    assert [sessions.find(one) for one in (others[0], None, "", "x" * 9999)] == [None] * 4


async def test_a_session_ends_when_its_owner_says_so_and_by_no_other_site(bare):
    async with browsing(bare) as visitor:
        await visitor.enter()
        assert (
            await visitor.client.post("/close", headers={"sec-fetch-site": "cross-site"})
        ).status_code == 403
        kept = dict(visitor.client.cookies)
        assert (await visitor.client.post("/close", headers=SAME_ORIGIN)).status_code == 200
        visitor.client.cookies.update(kept)
        assert (await visitor.get("/")).status_code == 401


# --- changes ---


def paused(bare: Bare) -> bool:
    return load_settings(bare.home).local.paused


async def test_a_form_of_another_site_changes_nothing_whatever_it_knows(bare):
    async with browsing(bare) as visitor:
        await visitor.enter()
        for headers in (
            {"sec-fetch-site": "cross-site"},
            {"sec-fetch-site": "same-site"},
            {"sec-fetch-site": "none"},
            {"origin": "http://evil.example"},
            {"origin": "null"},
            {"origin": f"https://{HOST}"},
            {"origin": "http://127.0.0.1:8124"},
            {"sec-fetch-site": "same-origin", "origin": "http://evil.example"},
            {},
        ):
            assert code(await visitor.act("pause", headers=headers)) == "page.cross-site"
        assert not paused(bare)
        assert (await visitor.act("pause", headers={"origin": f"http://{HOST}"})).status_code == 303
    assert paused(bare)


async def test_a_change_needs_this_sessions_form_and_a_code_that_is_fresh_right_and_unused(bare):
    async with browsing(bare) as visitor:
        await visitor.enter()
        assert code(await visitor.act("pause", form_token="0" * 64)) == "page.form"
        assert code(await visitor.act("pause", form_token=None)) == "page.form"
        assert code(await visitor.act("pause", code=None)) == "page.code"
        assert code(await visitor.act("pause", code="aaaa-bbbb-cccc")) == "page.code"
        assert code(await visitor.act("pause", code=bare.page.keys.draw("link"))) == "page.code"
        late = bare.page.keys.draw("code")
        bare.clock.ms += CODE_S * 1000 + 1
        assert code(await visitor.act("pause", code=late)) == "page.code"
        used = grouped(bare.page.keys.draw("code"))
        assert (await visitor.act("pause", code=used.upper())).status_code == 303  # as a person may type it
        assert (await visitor.act("resume")).status_code == 303
        assert code(await visitor.act("pause", code=used)) == "page.code"
    assert not paused(bare)


async def test_a_code_is_used_up_by_an_act_that_fails(bare):
    async with browsing(bare) as visitor:
        await visitor.enter()
        once = bare.page.keys.draw("code")
        assert "run" in (await visitor.act("run-stop", code=once)).text
        assert code(await visitor.act("pause", code=once)) == "page.code"
        assert (await visitor.act("no-such-act")).status_code == 404
    assert not paused(bare)


async def test_only_a_browsers_small_form_is_read(bare):
    async with browsing(bare) as visitor:
        await visitor.enter()
        send = visitor.client.post
        for content, kind in (
            (b"{}", "application/json"),
            (b"--x", "multipart/form-data; boundary=x"),
            (b"a=1", ""),
            (b"a=" + b"x" * 20_000, "application/x-www-form-urlencoded"),
            (b"&".join(b"a%d=1" % n for n in range(40)), "application/x-www-form-urlencoded"),
            (b"code=1&code=2", "application/x-www-form-urlencoded"),
            (b"\xff=1", "application/x-www-form-urlencoded"),
        ):
            answer = await send("/act/pause", content=content, headers={**SAME_ORIGIN, "content-type": kind})
            assert (answer.status_code, code(answer)) == (400, "page.request")
        for method in ("PUT", "DELETE", "OPTIONS", "PATCH", "TRACE"):
            assert (await visitor.client.request(method, "/act/pause")).status_code == 400
        assert (await visitor.client.post("/outbox", headers=SAME_ORIGIN)).status_code == 404


def test_wrong_codes_make_every_open_code_void(tmp_path):
    keys = Keys(Home(tmp_path), clock=HandClock(), entropy=SeedEntropy(b"k"))
    right = keys.draw("code")
    for _ in range(WRONG_CODES):
        with pytest.raises(CodeError):
            keys.use("code", "wrong")
    with pytest.raises(CodeError):
        keys.use("code", right)


def test_of_many_who_bring_one_link_at_once_one_is_let_in(tmp_path):
    keys = Keys(Home(tmp_path), clock=HandClock(), entropy=SeedEntropy(b"k"))
    token, let_in = keys.draw("link"), []

    def bring() -> None:
        try:
            Keys(Home(tmp_path), clock=HandClock(), entropy=SeedEntropy(b"o")).use("link", token)
            let_in.append(1)
        except LinkError:
            pass

    threads = [threading.Thread(target=bring) for _ in range(8)]
    for one in threads:
        one.start()
    for one in threads:
        one.join()
    assert let_in == [1]


def test_secrets_are_not_on_the_disk_and_nobody_else_may_read_what_is(tmp_path):
    home = Home(tmp_path / "node")
    keys = Keys(home, clock=HandClock(), entropy=SeedEntropy(b"k"))
    secrets = [keys.draw("link"), keys.draw("code")]
    for path in (home.root / "page").iterdir():
        assert path.stat().st_mode & 0o077 == 0
        assert not any(one.encode() in path.read_bytes() for one in secrets)
    assert (home.root / "page").stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", [b"", b"[]", b"{", b'{"x": 1}', b'{"x": {"kind": "link"}}', b"\xff"])
def test_a_file_of_secrets_that_was_written_over_opens_nothing(tmp_path, text):
    keys = Keys(Home(tmp_path), clock=HandClock(), entropy=SeedEntropy(b"k"))
    token = keys.draw("link")
    (keys.folder / "once.json").write_bytes(text)
    with pytest.raises(LinkError):
        keys.use("link", token)


def test_a_second_page_of_a_node_does_not_start_and_a_new_one_voids_the_old_links(tmp_path):
    keys = Keys(Home(tmp_path), clock=HandClock(), entropy=SeedEntropy(b"k"))
    old = keys.draw("link")
    with keys.serving():
        with pytest.raises(LinkError):
            keys.use("link", old)
        other = Keys(Home(tmp_path), clock=HandClock(), entropy=SeedEntropy(b"o"))
        keys.tell(8123)
        link = keys.draw("link")
        for _ in range(2):
            with pytest.raises(PageBusyError) as refused, other.serving():
                pass
            assert other.running()["port"] == 8123
        assert f"iriai-node page --again --dir {tmp_path}" in refused.value.remedy
        keys.use("link", link)
    assert keys.running() is None


# --- what others wrote ---


@pytest.fixture(scope="module")
def hostile(tmp_path_factory) -> World:
    """A world in which every name that somebody else chose is an attack."""
    world = ready_world(tmp_path_factory.mktemp("hostile"))
    names = {"contract": world.contract.digest, "recipe": HOSTILE, "run": RIGHT_TO_LEFT}
    candidate = {
        "candidate": LONG,
        "state": HOSTILE,
        "voted": RIGHT_TO_LEFT,
        "refused_by": [HOSTILE],
        **names,
    }
    release = {"model": "sha256:" + "a" * 64, "tier": HOSTILE, "recipe_id": LONG, **names}
    told_by_broker(world, candidates=[candidate], releases=[release])
    offer = {"digest": LONG, "title": HOSTILE, "state": "offered", "waiting_for": [RIGHT_TO_LEFT, LONG]}
    world.broker.routes["/contracts"] = lambda *_: {"contracts": [offer]}
    world.broker.routes["/membership/me"] = lambda *_: {"state": HOSTILE}
    folder = world.home.models / "b"
    folder.mkdir(parents=True)
    folder.joinpath("model.json").write_text('{"model": "<b>", "tier": "<i>", "verdict": "\\u202e<u>"}')
    world.home.settings.write_text(world.home.settings.read_text().replace("Kita Robot KK", "<s>Kita</s>"))
    return world


@pytest.mark.parametrize("lang", ["en", "ja"])
async def test_names_of_others_are_text_and_never_markup(hostile, lang):
    async with visiting(hostile) as visitor:
        for path in SCREENS:
            text = (await visitor.get(f"{path}?lang={lang}")).text
            assert not re.search(r"<(img|script|b|i|u|s)\b", text), path
            assert "onerror" not in re.sub(r"&[a-z#0-9]+;[^<]*", "", text)
            assert not re.search("[\u202a-\u202e\u2066-\u2069]", text)
        models = (await visitor.get(f"/models?lang={lang}")).text
    assert f'<bdi translate="no">{LONG}</bdi>' in models
    assert r"\u202egnp.exe" in models
    assert "&lt;img src=x onerror=alert(1)&gt;" in models


async def test_cells_of_others_are_no_formulas_and_json_stays_json(hostile):
    hostile.broker.routes["/candidates"] = lambda *_: {
        "candidates": [{"candidate": "=cmd|x", "run": "@x", "state": "+1"}]
    }
    async with visiting(hostile) as visitor:
        lines = (await visitor.get("/models?format=csv&panel=candidates")).text.splitlines()
        assert lines[1].startswith("'=cmd|x,'+1,")
        answer = await visitor.get("/models?format=json")
        assert answer.headers["content-type"] == "application/json; charset=utf-8"
        assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    [
        "/data/../../keys/node.key",
        "/data/%2e%2e/%2e%2e/keys/node.key",
        "/data/..%2f..%2fkeys%2fnode.key",
        "/data//etc/passwd",
        "/data/kita%00/pick",
        "/data/",
        "/static/../keys/node.key",
        "/static/page.css",
        "/static/%2e%2e%2fpage.py",
        "/open",
        "/" + "x" * 4000,
    ],
)
async def test_a_path_leads_to_no_file(hostile, path):
    async with visiting(hostile) as visitor:
        url = httpx.URL(f"http://{HOST}").copy_with(raw_path=path.encode())
        answer = await visitor.client.get(url)
    assert answer.status_code in {404, 422, 400}
    assert "Traceback" not in answer.text


@pytest.mark.parametrize(
    "query",
    [
        "before=-1",
        "before=9" * 99,
        "before=x",
        "run=" + "x" * 3000,
        "run=%27%3B--",
        "lang=xx",
        "digest=../..",
        "format=xml",
        "panel=%00",
    ],
)
async def test_a_filter_of_another_form_harms_nothing(hostile, query):
    async with visiting(hostile) as visitor:
        for path in ("/outbox", "/refusals", "/contract"):
            answer = await visitor.get(f"{path}?{query}")
            assert answer.status_code == 200
            assert "Traceback" not in answer.text


async def test_every_answer_has_the_headers_that_keep_a_browser_at_home(hostile):
    async with visiting(hostile) as visitor:
        style = re.search(r'href="(/static/[0-9a-f]{16}\.css)"', (await visitor.get("/")).text)[1]
        for path in ("/", "/outbox?format=json", "/models?format=csv", style, "/no-such", "/open/x"):
            told = (await visitor.get(path)).headers
            assert "default-src 'none'; style-src 'self'" in told["content-security-policy"]
            assert "frame-ancestors 'none'" in told["content-security-policy"]
            assert told["referrer-policy"] == "no-referrer"
            assert told["cross-origin-resource-policy"] == "same-origin"
            assert told["cache-control"] == (
                "no-store" if path != style else "public, max-age=31536000, immutable"
            )
            assert "server" not in told
        for path in SCREENS:
            text = (await visitor.get(path)).text
            tags = " ".join(re.findall(r"<[^>]*>", text))
            assert not re.search(r"<script|\sstyle=|\son[a-z]+=", tags), path
            assert not re.search(r"(?:href|src|action)=\"(?!/|#|data:image/svg)", tags), path


async def test_an_error_that_nobody_foresaw_shows_its_type_and_no_traceback(hostile, monkeypatch):
    def broken(*_: Any) -> None:
        raise RuntimeError("secret of the process")

    monkeypatch.setitem(SCREENS, "/benefit", broken)
    async with visiting(hostile) as visitor:
        answer = await visitor.get("/benefit")
        told = await visitor.get("/benefit?format=json")
    assert (answer.status_code, code(answer)) == (500, "page.source")
    assert "secret of the process" not in answer.text + told.text
    assert "RuntimeError" in answer.text


@pytest.fixture
def listener(bare) -> Iterator[int]:
    """The page of a node on a real port."""
    import asyncio
    import socket

    import uvicorn

    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        page = Page(bare.home, port=port, clock=bare.clock, entropy=SeedEntropy(b"p"))
        server = uvicorn.Server(configured(page.app))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listening])), daemon=True)
        thread.start()
        yield port
        server.should_exit = True
        thread.join(10)


@pytest.mark.enable_socket
def test_two_hosts_or_none_on_the_wire_are_refused(listener):
    for hosts in ([], ["evil.example"], [f"127.0.0.1:{listener}", "evil.example"]):
        connection = http.client.HTTPConnection("127.0.0.1", listener, timeout=10)
        connection.putrequest("GET", "/", skip_host=True)
        for host in hosts:
            connection.putheader("Host", host)
        connection.endheaders()
        assert connection.getresponse().status in {400, 421}
        connection.close()


@pytest.mark.enable_socket
def test_a_head_without_end_and_many_that_say_nothing_stop_no_owner(listener, bare):
    import contextlib
    import socket

    with contextlib.ExitStack() as held:
        for _ in range(40):
            held.enter_context(socket.create_connection(("127.0.0.1", listener), timeout=10))
        one = held.enter_context(socket.create_connection(("127.0.0.1", listener), timeout=10))
        with pytest.raises(OSError):  # closed, long before all is sent
            one.sendall(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 2**26)
        connection = http.client.HTTPConnection("127.0.0.1", listener, timeout=10)
        connection.request(
            "GET", f"/open/{Keys(bare.home, clock=bare.clock, entropy=SeedEntropy(b'k')).draw('link')}"
        )
        assert connection.getresponse().status == 303
        connection.close()
