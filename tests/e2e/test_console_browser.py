# SPDX-License-Identifier: Apache-2.0
"""Every screen of the console in a real browser, before a federation that has released a model.

The screens are those of the route table; each must be reachable by links from the navigation of somebody who may
see it. Each is opened in English and Japanese, light and dark: nothing for axe, nothing in the browser's console,
no request to another origin, no untranslated text. Pictures go to ``build/screens`` if IRIAI_SCREENS names a folder.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from tests.browsersim import axe, needs_browser, screenshot, untranslated
from tests.consolepool import SCREENS, STARTS, ConsolePool

pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e, pytest.mark.slow, needs_browser]

SCHEMES: dict[str, dict[str, Any]] = {"light": {}, "dark": {"runOnly": ["cat.color"]}}
"""What axe looks at: in the dark nothing but the colours differs."""


def test_every_screen_of_the_route_table_is_reached_by_links(browser: Any, pool: ConsolePool):
    assert set(SCREENS) - set(pool.places(browser)) == set()


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_screen_is_quiet_accessible_and_translated_in_light_and_dark(
    browser: Any, pool: ConsolePool, lang: str
):
    faults, folder = [], os.environ.get("IRIAI_SCREENS")
    for person in STARTS:
        mine = {name: path for name, (who, path) in pool.places(browser).items() if who == person}
        with pool.visit(browser, person, lang=lang, reduced_motion="reduce") as seen:
            for name, path in sorted(mine.items()):
                answer = seen.go(path)
                told = seen.quiet()
                assert answer.status == 200, (name, path)
                assert seen.page.locator("html").get_attribute("lang") == lang
                assert seen.page.locator("main").get_attribute("data-screen") == name
                assert seen.page.title().endswith(" · iriai")
                if lang == "ja":
                    told += [f"not translated: {one}" for one in untranslated(seen.page)]
                for scheme, rules in SCHEMES.items():
                    seen.page.emulate_media(color_scheme=scheme)
                    told += [f"{scheme}: {one}" for one in axe(seen.page, **rules)]
                    if folder:
                        screenshot(seen.page, Path(folder) / f"{name}.{lang}.{scheme}.png")
                faults += [f"{name} {lang}: {one}" for one in told]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize("script", [True, False])
def test_on_a_narrow_screen_the_menu_is_folded_and_no_page_is_wider_than_it(
    browser: Any, pool: ConsolePool, script: bool
):
    places = [path for who, path in pool.places(browser).values() if who == "alice"]
    with pool.visit(browser, "alice", width=400, height=800, script=script) as seen:
        for path in places if script else places[:1]:
            seen.go(path)
            assert seen.page.evaluate("document.documentElement.scrollWidth") == 400, path
            assert seen.page.locator("h1").bounding_box()["y"] < 260, path
        seen.go("/console/runs")
        menu, link = seen.page.locator(".menu summary"), seen.page.get_by_role("link", name="Privacy budgets")
        assert menu.inner_text().split() == ["Menu", "Runs"]
        assert not link.is_visible()
        menu.focus()
        seen.page.keyboard.press("Enter")
        link.wait_for()
        if script:
            assert axe(seen.page) == []
        link.click()
        assert seen.page.locator("main").get_attribute("data-screen") == "budgets"


def test_on_a_wide_screen_the_menu_is_open_and_its_button_is_not_there(browser: Any, pool: ConsolePool):
    with pool.visit(browser, "alice") as seen:
        seen.go("/console/runs")
        assert not seen.page.locator(".menu summary").is_visible()
        seen.page.get_by_role("link", name="Privacy budgets").click()
        assert seen.page.locator("main").get_attribute("data-screen") == "budgets"
