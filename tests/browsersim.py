# SPDX-License-Identifier: Apache-2.0
"""A real Chromium that watches a page of ours: what it prints, what it asks elsewhere, what axe finds.

A test of a page needs sockets, so its file says ``pytestmark = [pytest.mark.enable_socket, pytest.mark.e2e,
needs_browser]``; one browser does for a file:

    @pytest.fixture(scope="module")
    def browser():
        with launch() as one:
            yield one

    with watched(browser, "http://127.0.0.1:8123", lang="ja", dark=True) as seen:
        seen.page.goto(seen.origin + "/")
        assert seen.quiet() == []                    # console, page errors, foreign requests, CSP reports
        assert axe(seen.page) == []
        assert untranslated(seen.page) == []
        screenshot(seen.page, folder / "home.png")

Nothing is fetched: the browser is the system's, its own services are switched off, and a request to another
origin than ``origin`` is written down and cut off before it leaves.
"""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest

CHROMIUM = os.environ.get("IRIAI_CHROMIUM", "/usr/bin/chromium")
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
)
ALLOWED = (
    *(
        "iriai",
        "API",
        "JSON",
        "CSV",
        "HTML",
        "SVG",
        "PDF",
        "URL",
        "UTC",
        "ID",
        "TLS",
        "OIDC",
        "SHA-256",
        "Ed25519",
    ),
    *("KiB", "MiB", "GiB", "kB", "MB", "GB", "ms", "Hz", "English", "AUC"),
)
"""Latin words that stand in Japanese text too."""


def _lacks() -> str:
    if importlib.util.find_spec("playwright") is None:
        return "playwright is not installed: pip install 'iriai[dev]'"
    return "" if Path(CHROMIUM).exists() else f"no browser at {CHROMIUM}: apt-get install chromium"


needs_browser = pytest.mark.skipif(bool(_lacks()), reason=_lacks() or "there is one")


@contextlib.contextmanager
def launch() -> Iterator[Any]:
    """A browser without a window; closed at the end."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=list(ARGUMENTS))
        try:
            yield browser
        finally:
            browser.close()


@dataclass
class Watched:
    """A page and everything about it that a person would not see."""

    page: Any
    context: Any
    origin: str
    messages: list[str] = field(default_factory=list)  # of the console
    errors: list[str] = field(default_factory=list)  # of scripts
    foreign: list[str] = field(default_factory=list)  # requests to other origins
    reports: list[str] = field(default_factory=list)  # of the content security policy
    answers: list[tuple[int, str]] = field(default_factory=list)  # status and path of every answer

    def quiet(self) -> list[str]:
        """Everything that should not have been; empty where all is well. What was told is forgotten."""
        found = [
            f"{name}: {one}"
            for name in ("messages", "errors", "foreign", "reports")
            for one in getattr(self, name)
        ]
        for name in ("messages", "errors", "foreign", "reports"):
            getattr(self, name).clear()
        return found

    def go(self, path: str) -> Any:
        """The answer of a path of the origin."""
        return self.page.goto(self.origin + path, wait_until="load")


_REPORTS = """document.addEventListener('securitypolicyviolation',
  one => console.error('CSP ' + one.violatedDirective + ' ' + one.blockedURI))"""


@contextlib.contextmanager
def watched(
    browser: Any,
    origin: str,
    *,
    lang: str = "en",
    dark: bool = False,
    script: bool = True,
    cookies: list[dict[str, Any]] | None = None,
    width: int = 1280,
    height: int = 900,
    **context: Any,
) -> Iterator[Watched]:
    """A fresh page in a context of its own.

    ``lang`` is the browser's language, ``dark`` its colour scheme; with ``script=False`` the page's own scripts
    do not run (then `axe` and `untranslated` cannot look either). What else a context takes
    (``ignore_https_errors=True``, ``reduced_motion="reduce"``) is passed on.
    """
    opened = browser.new_context(
        locale={"ja": "ja-JP"}.get(lang, "en-US"),
        color_scheme="dark" if dark else "light",
        java_script_enabled=script,
        service_workers="block",
        viewport={"width": width, "height": height},
        **context,
    )
    try:
        if cookies:
            opened.add_cookies(cookies)
        seen = Watched(page=opened.new_page(), context=opened, origin=origin.rstrip("/"))
        _listen(seen, script=script)
        yield seen
    finally:
        opened.close()


def _listen(seen: Watched, *, script: bool) -> None:
    own = urlsplit(seen.origin)

    def routed(route: Any) -> None:
        url = urlsplit(route.request.url)
        if url.scheme in {"data", "blob"} or (url.scheme, url.netloc) == (own.scheme, own.netloc):
            route.continue_()
            return
        seen.foreign.append(route.request.url)
        route.abort()

    def told(message: Any) -> None:
        (seen.reports if message.text.startswith("CSP ") else seen.messages).append(message.text)

    seen.context.route("**/*", routed)
    seen.page.on("console", told)
    seen.page.on("pageerror", lambda one: seen.errors.append(str(one)))
    seen.page.on("response", lambda one: seen.answers.append((one.status, urlsplit(one.url).path)))
    if script:
        seen.page.add_init_script(_REPORTS)


def axe(page: Any, **options: Any) -> list[str]:
    """What axe objects to: rule, why, and the places; an empty list where nothing."""
    from axe_playwright_python.sync_playwright import Axe

    found = (
        Axe()
        .run(page, options={"resultTypes": ["violations"], "preload": False, **options})
        .response["violations"]
    )
    return [
        f"{one['id']} ({one['impact']}): {one['help']}: "
        + "; ".join(" ".join(map(str, node["target"])) for node in one["nodes"][:5])
        for one in found
    ]


_UNTRANSLATED = r"""(allowed) => {
  const skip = '[translate=no],code,pre,bdi,[lang=en],script,style,noscript,template';
  const cjk = /[\u3040-\u30ff\u3400-\u9fff\uff00-\uffef]/;
  const known = new Set(allowed);
  const bad = text => !cjk.test(text) &&
    (text.match(/[A-Za-z][A-Za-z0-9'\u2019-]*[A-Za-z0-9]/g) || []).some(one => !known.has(one));
  const seen = one => one.closest('option,svg title,svg desc') || one.checkVisibility();
  const found = [];
  const walker = document.createTreeWalker(document.documentElement, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const node = walker.currentNode, parent = node.parentElement;
    if (!parent || parent.closest(skip) || parent.closest('head') || !bad(node.data)) continue;
    if (seen(parent)) found.push(node.data.trim());
  }
  for (const one of document.querySelectorAll('[aria-label],[placeholder],[alt]')) {
    if (one.closest(skip)) continue;
    for (const name of ['aria-label', 'placeholder', 'alt'])
      if (bad(one.getAttribute(name) || '')) found.push(name + ': ' + one.getAttribute(name));
  }
  if (bad(document.title)) found.push('title: ' + document.title);
  return [...new Set(found)];
}"""


def untranslated(page: Any, allowed: tuple[str, ...] = ALLOWED) -> list[str]:
    """What a reader of Japanese sees without a letter of it: text, labels, the title.

    Data of others do not count: they stand in ``<bdi>``, ``<code>``, ``<pre>`` or under ``translate="no"``.
    """
    return list(page.evaluate(_UNTRANSLATED, list(allowed)))


def screenshot(page: Any, path: Path) -> Path:
    """The whole page as PNG."""
    path.parent.mkdir(parents=True, exist_ok=True)
    page.screenshot(path=str(path), full_page=True)
    return path
