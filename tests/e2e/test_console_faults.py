# SPDX-License-Identifier: Apache-2.0
"""Planted faults before a real browser: no scripts, hostile names, a broker that comes and goes, nothing, too much.

What can be shown without a browser is not repeated here: roles, tokens and sessions, vendored files, a panel
whose source fails, untranslated texts (``tests/unit/test_console_*``, ``tests/attack/test_console_login.py``).
"""

from __future__ import annotations

import contextlib
import itertools
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import insert

from broker.boot import open_services
from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.fleet import NoFleet
from broker.store.tables import organisation
from policies.encoding import new_id
from policies.identity import SigningKey, key_text
from sandbox.bench_console import fill
from sandbox.clock import now_ms
from sandbox.federation import Federation
from sandbox.people import CONSOLE, console_of, login_of
from sandbox.processes import command
from tests.browsersim import Watched, needs_browser, watched
from tests.consolepool import PASSWORD, STARTS, ConsolePool

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e, pytest.mark.slow, needs_browser]
SLOW_MS = 60_000
PHONE = 420


# --- no scripts ---


def test_without_scripts_and_on_a_phone_every_screen_shows_all_its_facts(browser: Any, pool: ConsolePool):
    faults = []
    for person in STARTS:
        with pool.visit(browser, person, script=False, width=PHONE, height=800) as seen:
            for name, (who, path) in sorted(pool.places(browser).items()):
                if who == person:
                    faults += [f"{name}: {one}" for one in _without_scripts(seen, path)]
    assert faults == []


def _without_scripts(seen: Watched, path: str) -> list[str]:
    """What is missing, cut off, or of no use there."""
    seen.go(path)
    faults = _too_wide(seen)
    if not path.startswith("/console/login"):
        both = "&" if "?" in path else "?"
        said = seen.context.request.get(f"{seen.origin}{path}{both}format=json").json()
        facts = {name for panel in said["facts"].values() for name in panel}
        faults += [f"fact {one} is not shown" for one in facts - set(seen.page.evaluate(_SHOWN, "data-fact"))]
        tables = {name for name, rows in said["tables"].items() if rows}
        faults += [
            f"table {one} is not shown" for one in tables - set(seen.page.evaluate(_THERE, "data-table"))
        ]
    hidden = seen.page.locator("main form[hidden]:not([data-ceremony])").count()
    return faults + ([f"{hidden} forms need scripts"] if hidden else [])


_SHOWN = """name => [...document.querySelectorAll(`[${name}]`)]
  .filter(one => one.checkVisibility()).map(one => one.getAttribute(name))"""
_THERE = """name => [...document.querySelectorAll(`[${name}]`)]
  .filter(one => one.closest('details') || one.checkVisibility()).map(one => one.getAttribute(name))"""


def _too_wide(seen: Watched) -> list[str]:
    wide = seen.page.evaluate("document.documentElement.scrollWidth")
    return [f"{wide} pixels wide"] if wide > seen.page.viewport_size["width"] else []


def test_without_scripts_one_signs_in_where_one_wanted_to_go_and_forms_work(browser: Any, pool: ConsolePool):
    pool.state(browser, "carol")
    with pool.visit(browser, script=False) as seen:
        seen.go("/audit/log?view=table&type=org.enrolled")
        assert seen.page.locator("main").get_attribute("data-screen") == "login"
        seen.page.get_by_label("Your name here").fill("carol")
        seen.page.get_by_label("Password", exact=True).fill("not hers, but long enough")
        seen.page.get_by_role("button", name="Sign in with a password").click()
        assert seen.page.locator("main [data-fact=code]").inner_text().startswith("auth.")
        assert [one for one in seen.quiet() if "401" not in one] == []
        seen.page.get_by_label("Password", exact=True).fill(PASSWORD)
        seen.page.get_by_role("button", name="Sign in with a password").click()
        assert seen.page.url == f"{pool.origin}/audit/log?view=table&type=org.enrolled"
        seen.page.get_by_label("As", exact=True).select_option("raw")
        seen.page.get_by_role("button", name="Show").click()
        assert "view=raw" in seen.page.url
        assert seen.page.locator("main pre").count() > 0
        seen.go("/console/account")
        seen.page.locator("form[action$=language] select").select_option("ja")
        seen.page.get_by_role("button", name="Keep this language").click()
        assert seen.page.locator("html").get_attribute("lang") == "ja"
        seen.page.locator("form[action$=language] select").select_option("")
        seen.page.locator("form[action$=language] button").click()
        assert seen.page.locator("html").get_attribute("lang") == "en"
        assert seen.quiet() == []


# --- sessions ---


def test_who_signed_out_in_another_tab_comes_back_to_the_page_they_were_on(browser: Any, pool: ConsolePool):
    pool.state(browser, "bob")
    with pool.visit(browser) as seen:
        seen.go("/console/login")
        _sign_in(seen, "bob")
        other = seen.context.new_page()
        other.goto(pool.origin + "/console/members?sort=name")
        seen.page.get_by_role("button", name="Sign out").click()
        seen.page.wait_for_url("**/console/login")
        other.reload()
        assert other.locator("main").get_attribute("data-screen") == "login"
        _sign_in(seen, "bob", page=other)
        assert other.url == pool.origin + "/console/members?sort=name"


def _sign_in(seen: Watched, name: str, page: Any = None) -> None:
    page = seen.page if page is None else page
    page.get_by_label("Your name here").fill(name)
    page.get_by_label("Password", exact=True).fill(PASSWORD)
    page.get_by_role("button", name="Sign in with a password").click()
    page.get_by_role("button", name="Sign out").wait_for()


def test_a_form_of_another_site_is_refused_whatever_it_fills_in(browser: Any, pool: ConsolePool):
    with pool.visit(browser, "alice") as seen:
        seen.page.set_content(
            f'<form method="post" action="{pool.origin}/console/invitations">'
            '<input name="legal_name" value="Evil"><button>win a prize</button></form>'
        )
        seen.page.get_by_role("button", name="win a prize").click()
        seen.page.locator("main[data-screen=refused]").wait_for()
        assert seen.page.locator("[data-fact=code]").inner_text() == "console.cross-site"
        seen.go("/console/invitations")
        assert "Evil" not in seen.page.content()


# --- hostile names ---

MARKUP = '<img src=x onerror="alert(1)"><b>Böse'
ARABIC = "شركة الروبوتات المتحدة"
LONG = "Lang" * 50


def test_hostile_names_and_clauses_are_text_and_leave_the_layout_whole(
    browser: Any, pool: ConsolePool, tmp_path: Path
):
    with pool.visit(browser, "alice", width=PHONE, height=800) as seen:
        assert _invite(seen, "x" * 2000) == "console.form"
        assert [one for one in seen.quiet() if "422" not in one] == []
        _invite(seen, ARABIC)
        _invite(seen, LONG)
        token = _invite(seen, MARKUP)
        words = ("--dir", str(tmp_path / "node"))
        command("iriai-node", "init", *words)
        org = command("iriai-node", "join", pool.federation.url, token, "--yes", *words)["org"]
        offered = _hostile_contract(pool, tmp_path)
        for path, texts in {
            "/console/invitations": (MARKUP, ARABIC, LONG),
            "/console/members": (MARKUP,),
            f"/console/members/{org}": (MARKUP,),
            "/console/contracts": (MARKUP, ARABIC),
            f"/console/contracts/{offered['digest']}": (MARKUP, ARABIC),
            f"/console/negotiations/{offered['negotiation']}": (MARKUP, ARABIC),
            f"/console/proposals/{offered['proposal']}": (MARKUP, ARABIC),
            "/console/proposals": (MARKUP,),
            f"/console/compare?old={pool.federation.contract}&new={offered['digest']}": (MARKUP, ARABIC),
            "/audit/log": (),
        }.items():
            seen.go(path)
            assert _too_wide(seen) == [], path
            shown = seen.page.locator("body").inner_text()
            assert [one for one in texts if one not in shown] == [], path
            assert seen.page.locator("img, main b").count() == 0, path
            assert seen.quiet() == [], path


def _invite(seen: Watched, name: str) -> str:
    """The token, or the code of the refusal."""
    seen.go("/console/invitations")
    seen.page.get_by_label("Legal name").fill(name)
    seen.page.get_by_label("Country").fill("DE")
    seen.page.get_by_label("Group").fill("hostile")
    seen.page.get_by_role("button", name="Make an invitation").click()
    told = seen.page.locator("[data-fact=secret], [data-fact=code]").first
    return str(told.get_attribute("data-copy") or told.inner_text())


def _hostile_contract(pool: ConsolePool, folder: Path) -> dict[str, Any]:
    """An offer whose title and purpose are not what they should be."""
    text = pool.draft(start_ms=now_ms() + 3_600_000)
    changes = {
        r"title: .*": f"title: '{MARKUP} {ARABIC}'",
        r"text: Train and evaluate[^}]*": f"text: '{MARKUP} {ARABIC} {'x' * 2000}'",
    }
    for pattern, found in changes.items():
        text = re.sub(pattern, found, text)
    (folder / "contract.yaml").write_text(text, "utf-8")
    words = (str(folder / "contract.yaml"), "--recipe", str(pool.recipe))
    return pool.federation.broker("contract", "offer", *words)


# --- a broker that comes and goes ---

_NOTED = """window.unreloaded = true; window.noted = [];
document.addEventListener('htmx:sseMessage', one => window.noted.push(one.detail.lastEventId));"""


_CUT = re.compile(r"net::ERR_|\[object Event\]")
"""What Chromium and htmx print of a connection that is gone."""


def test_a_page_outlives_a_restart_of_the_broker_and_misses_nothing(browser: Any, pool: ConsolePool):
    federation = pool.federation
    with pool.rules(paused=True), pool.visit(browser, "alice") as seen:
        run = federation.open_run()
        seen.go(f"/console/runs/{run}")
        seen.page.get_by_text(re.compile("^live since")).wait_for()
        seen.page.evaluate(_NOTED)
        seen.page.get_by_text("It stands still: members said no.").wait_for(timeout=SLOW_MS)
        federation.services["broker"].stop()
        seen.page.get_by_text("not live, reload").wait_for(timeout=SLOW_MS)
        federation.serve()
        seen.page.get_by_text(re.compile("^live since")).wait_for(timeout=SLOW_MS)
        federation.broker("run", "stop", run)
        seen.page.get_by_text("It is closed:").wait_for(timeout=SLOW_MS)
        noted = seen.page.evaluate("window.noted")
        # what is shown may become again what it was (nodes come back); no event comes twice in a row
        assert all(one != following for one, following in itertools.pairwise(noted))
        assert seen.page.evaluate("window.unreloaded")
        shown = seen.page.locator("#p-now .inner").inner_text()
        seen.page.reload()
        assert seen.page.locator("#p-now .inner").inner_text() == shown
        assert seen.page.locator("main").get_attribute("data-screen") == "run"  # still signed in
        assert [one for one in seen.quiet() if not _CUT.search(one)] == []


# --- nothing, and too much ---


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[Federation]:
    """A broker with two operators, whom nobody has joined."""
    federation = Federation(tmp_path / "alone", console=CONSOLE)
    try:
        federation.start_broker()
        yield federation
    finally:
        federation.stop()


def test_where_there_is_nothing_yet_every_screen_says_the_next_step(browser: Any, alone: Federation):
    with _entered(browser, alone) as seen:
        lost = []
        for path in _navigation(seen):
            seen.go(path)
            if seen.page.locator(_NEXT_STEP).count() == 0:
                lost.append((path, seen.page.locator("main").inner_text()))
            assert seen.quiet() == [], path
        assert lost == []
        seen.go("/console/members")
        seen.page.get_by_role("link", name="an invitation").click()
        assert seen.page.get_by_role("button", name="Make an invitation").is_visible()


_NEXT_STEP = (
    "main form, main .empty a, main .empty code, main .inner > p:not(.under) :is(a, code), main tbody a"
)


def _navigation(seen: Watched) -> list[str]:
    return [str(one.get_attribute("href")) for one in seen.page.locator(".body > nav a").all()]


@contextlib.contextmanager
def _entered(browser: Any, federation: Federation) -> Iterator[Watched]:
    origin = console_of(federation).removesuffix("/console")
    with watched(browser, origin, ignore_https_errors=True) as seen:
        seen.page.goto(login_of(federation, "alice", role="operator", first=True)["login"])
        yield seen


def test_ten_thousand_members_and_entries_come_in_pages(browser: Any, alone: Federation):
    alone.services["broker"].stop()
    _crowd(alone.broker_dir, 10_000)
    fill(alone.broker_dir, 10_000)
    alone.serve()
    with _entered(browser, alone) as seen:
        for path, table in (("/console/members", "members"), ("/audit/log", "entries")):
            seen.go(path)
            met: list[str] = []
            for _ in range(3):
                met += seen.page.locator(f"table[data-table={table}] tbody th").all_inner_texts()
                seen.page.get_by_role("link", name="Next page").first.click()
            assert (len(met), len(set(met))) == (150, 150), path
            assert seen.quiet() == []


def _crowd(broker_dir: Path, number: int) -> None:
    """So many organisations that wait for approval, put into the database of a broker that does not run."""
    services = open_services(broker_dir, clock=SystemClock(), entropy=SystemEntropy(), engine=NoFleet())
    rows = [
        {
            "org_id": new_id("org", one.to_bytes(10, "big")),
            "alias_key": one.to_bytes(32, "big"),
            "legal_name": f"Werk {one:05}",
            "country": "DE",
            "grp": f"werk-{one}",
            "state": "waiting-approval",
            "node_id": new_id("node", one.to_bytes(10, "big")),
            "node_key": key_text(SigningKey.from_seed(one.to_bytes(32, "big")).public),
            "fleet_key": f"{one}",
            "created_ms": one,
        }
        for one in range(1, number + 1)
    ]

    def work(session: Any, _tx: Any) -> None:
        session.execute(insert(organisation), rows)

    try:
        services.writer.submit(work).result()
    finally:
        services.close()
