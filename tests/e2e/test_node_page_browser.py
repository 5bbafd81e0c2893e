# SPDX-License-Identifier: Apache-2.0
"""The node's page in a real Chromium: every screen in both languages, light and dark; and the real process."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client.page.app import SCREENS, Page
from client.page.keys import grouped
from client.settings import load_settings
from tests.browsersim import axe, needs_browser, untranslated, watched
from tests.nodeworld import World
from tests.pagesim import busy_world, served, told_by_broker

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e, needs_browser]
ROOT = Path(__file__).parents[2]
PATHS = (*SCREENS, "/data/kita/weld")
TITLES = {
    "en": (
        "Home",
        "Outbox",
        "My contract",
        "Data",
        "Budget",
        "Benefit",
        "Models",
        "Refusals",
        "Doctor",
        "Withdraw",
        "Data set kita/weld",
    ),
    "ja": (
        "ホーム",
        "送信記録",
        "契約",
        "データ",
        "予算",
        "成果",
        "モデル",
        "拒否",
        "診断",
        "撤退",
        "データセット kita/weld",
    ),
}
CALM = [
    pytest.param(lang, dark, id=f"{lang}-{'dark' if dark else 'light'}")
    for lang in TITLES
    for dark in (False, True)
]


@pytest.fixture(scope="module")
def world(tmp_path_factory) -> World:
    return busy_world(tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def site(world) -> Iterator[tuple[str, Page]]:
    with served(world) as found:
        yield found


@pytest.mark.parametrize(("lang", "dark"), CALM)
def test_every_screen_is_quiet_accessible_and_in_one_language(browser, site, lang, dark):
    origin, page = site
    with watched(browser, origin, lang=lang, dark=dark) as seen:
        seen.go("/open/" + page.keys.draw("link"))
        for path, title in zip(PATHS, TITLES[lang], strict=True):
            assert seen.go(path).status == 200
            assert seen.page.title() == f"{title} · iriai"
            assert seen.page.locator("html").get_attribute("lang") == lang
            assert axe(seen.page) == [], path
            assert lang == "en" or untranslated(seen.page) == [], path
            assert seen.quiet() == [], path
        background = seen.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert (sum(map(int, background[4:-1].split(","))) < 200) == dark


def test_on_a_narrow_screen_nothing_is_cut_off_and_everything_is_reached(browser, site):
    origin, page = site
    with watched(browser, origin, width=360, height=640) as seen:
        seen.go("/open/" + page.keys.draw("link"))
        for path in PATHS:
            seen.go(path)
            assert seen.page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert axe(seen.page) == []  # of a data set, with its drawings


def test_the_keyboard_reaches_the_content_first_and_then_pauses_the_node(browser, site, world):
    origin, page = site
    with watched(browser, origin, script=False) as seen:
        seen.go("/open/" + page.keys.draw("link"))
        assert seen.page.locator("nav.screens a[aria-current=page]").inner_text() == "Home"
        seen.page.keyboard.press("Tab")
        seen.page.keyboard.press("Enter")
        assert seen.page.url.endswith("#main")
        seen.page.get_by_label("Fresh code").fill(grouped(page.keys.draw("code")))
        seen.page.keyboard.press("Enter")
        seen.page.get_by_text("Paused.").wait_for(timeout=10_000)
        assert load_settings(world.home).local.paused
        seen.page.get_by_label("Fresh code").fill("aaaa-bbbb-cccc")
        seen.page.get_by_role("button", name="Resume").click()
        seen.page.get_by_text("page.code").wait_for()
        assert seen.page.locator("main").get_attribute("data-screen") == "door"
    world.rules()


def test_names_of_others_run_nothing_and_leave_the_layout_whole(browser, site, world):
    origin, page = site
    hostile = '"><img src=http://evil.example/x onerror=alert(1)>\u202e' + "long" * 500
    row = {"candidate": hostile, "state": hostile, "voted": hostile, "run": hostile, "contract": "c"}
    told_by_broker(world, candidates=[row], releases=[])
    page._heard.forget()
    with watched(browser, origin) as seen:
        seen.go("/open/" + page.keys.draw("link"))
        seen.go("/models")
        assert seen.page.get_by_text("onerror=alert(1)").count() > 0
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= 1280
        assert seen.quiet() == []
    told_by_broker(world)
    page._heard.forget()


def test_a_page_of_another_site_gets_no_further_than_a_button(browser, site):
    origin, page = site
    link = "/open/" + page.keys.draw("link")
    with watched(browser, origin) as seen:
        seen.page.set_content(f'<a href="{origin}{link}">go</a>')  # about:blank: another origin
        seen.page.get_by_text("go").click()
        seen.page.get_by_role("button").wait_for()
        assert axe(seen.page) == []
        seen.page.get_by_role("button").click()
        seen.page.locator("main[data-screen=home]").wait_for()


def test_the_command_serves_a_page_and_prints_codes_for_it(world):
    command = [sys.executable, "-m", "client.cli", "page", "--dir", str(world.home.root), "--json"]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        told = json.loads(started.stdout.readline())["data"]
        assert told["page"].startswith(f"http://127.0.0.1:{told['port']}/open/")
        with httpx.Client(trust_env=False) as client:
            assert client.get(told["page"]).status_code == 303
            assert client.get(told["page"]).status_code == 403
            home = client.get(f"http://127.0.0.1:{told['port']}/?format=json")
            assert home.json()["data"]["screen"] == "home"
        done = subprocess.run([*command, "--again"], capture_output=True, text=True, cwd=ROOT, check=True)
        again = json.loads(done.stdout)["data"]
        assert (again["port"], len(again["code"])) == (told["port"], 14)
        second = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
        assert (second.returncode, "page.busy" in second.stderr) == (75, True)
        assert f"page --again --dir {world.home.root}" in second.stderr
        last = subprocess.run([*command, "--again"], capture_output=True, text=True, cwd=ROOT, check=True)
        assert json.loads(last.stdout)["data"]["port"] == told["port"]
        assert httpx.get(again["page"], trust_env=False).status_code == 303
    finally:
        started.send_signal(signal.SIGTERM)
        out, _ = started.communicate(timeout=20)
    assert out == ""
    stopped = subprocess.run([*command, "--again"], capture_output=True, text=True, cwd=ROOT, check=False)
    assert json.loads(stopped.stdout)["error"]["code"] == "page.not-running"
