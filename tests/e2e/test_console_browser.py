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
