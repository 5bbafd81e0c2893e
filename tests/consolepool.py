# SPDX-License-Identifier: Apache-2.0
"""One federation of real processes for all browser tests of the console, and its people.

    pool = start(folder)                              four nodes, a released model, budget for more runs, pages open
    with pool.visit(browser, "alice") as seen:        signed in, watched by `tests.browsersim`
        seen.go("/console/members")
    with pool.node_page(browser, "kita") as seen:     at the local page of a node
        pause(seen)
    pool.stop()

- It starts once for a whole test run (``tests/e2e/conftest.py``); tests of any file take it in any order. So a test
  makes what it needs (an invitation, a contract, a run), leaves the nodes online and unpaused, and asks only for
  what it made itself.
- A one-time link is used once per person, who then sets `PASSWORD`; what the browser keeps serves every later
  context.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from broker.console.rooms import all_routes
from client.settings import Home, load_settings, save_settings
from policies.encoding import digest, new_id
from sandbox.clock import now_ms, random_bytes
from sandbox.contract_text import Signer, contract_text
from sandbox.doors import doors
from sandbox.federation import Federation, Site
from sandbox.people import CONSOLE
from sandbox.processes import wait_for
from sandbox.recipes import DELTA
from tests.browsersim import Watched, watched
from tests.federationsim import tiny_recipe
from tests.nodeworld import write_recording

RUNS = 6
"""The first one is released here; the others are for stories."""
RUN_S = 120.0
PASSWORD = "correct horse battery staple"  # noqa: S105  of a test
STARTS = {"alice": ("/console", "/audit", "/models"), "carol": ("/audit",), "": ("/models", "/console/login")}
UNLINKED = {"enter", "oidc-back", "oidc-go", "refused"}
"""Screens that nobody reaches by a link of ours: a link in a letter, an identity provider, a refusal."""
SCREENS = {
    one.name: one.path for one in all_routes() if one.kind in {"screen", "door"} and one.name not in UNLINKED
}
_NOBODY: dict[str, Any] = {"cookies": [], "origins": []}


@dataclass
class ConsolePool:
    """The federation, its first run, and who is signed in."""

    federation: Federation
    found: dict[str, Any]
    run: str
    states: dict[str, Any] = field(default_factory=lambda: {"": _NOBODY})
    _places: dict[str, tuple[str, str]] = field(default_factory=dict)

    @property
    def origin(self) -> str:
        parts = urlsplit(self.found["console"])
        return f"{parts.scheme}://{parts.netloc}"

    @property
    def certificate(self) -> Path:
        """Of the broker, which made it itself."""
        return self.federation.broker_dir / "tls.pem"

    @property
    def people(self) -> list[dict[str, Any]]:
        return [*self.found["operators"], self.found["auditor"]]

    def site(self, name: str) -> Site:
        return next(one for one in self.federation.sites if one.name == name)

    def state(self, browser: Any, name: str) -> Any:
        """What a browser keeps of somebody who is signed in; empty: nobody is."""
        if name not in self.states:
            link = next(one["login"] for one in self.people if one["name"] == name)
            with watched(browser, self.origin, ignore_https_errors=True) as seen:
                seen.page.goto(link)
                assert seen.page.locator("main").get_attribute("data-screen") in {"overview", "verdict"}
                set_password(seen)
                self.states[name] = seen.context.storage_state()
        return self.states[name]

    @contextlib.contextmanager
    def visit(self, browser: Any, name: str = "", **options: Any) -> Iterator[Watched]:
        """A page of the console as this person opens it."""
        state = self.state(browser, name)
        with watched(browser, self.origin, ignore_https_errors=True, storage_state=state, **options) as seen:
            yield seen

    def places(self, browser: Any) -> dict[str, tuple[str, str]]:
        """Screen to who opens it and where, for all that links lead to."""
        if not self._places:
            for person, starts in STARTS.items():
                with self.visit(browser, person) as seen:
                    for name, path in crawl(seen.context, self.origin, starts).items():
                        self._places.setdefault(name, (person, path))
        return self._places

    def again(self, name: str) -> dict[str, str]:
        """A fresh one-time code of a node's page, as its owner's terminal prints it."""
        return self.federation.node(self.site(name), "page", "--again")

    @contextlib.contextmanager
    def node_page(self, browser: Any, name: str, **options: Any) -> Iterator[Watched]:
        """The local page of a node, entered by a fresh link."""
        link = self.again(name)["page"]
        with watched(browser, f"http://{urlsplit(link).netloc}", **options) as seen:
            seen.page.goto(link)
            yield seen

    @contextlib.contextmanager
    def rules(self, *names: str, **rules: Any) -> Iterator[None]:
        """Owners' own rules at these sites, or at all; each request reads them anew."""
        homes = [Home(site.folder) for site in self.federation.sites if not names or site.name in names]
        before = [load_settings(home, {}) for home in homes]
        for home, settings in zip(homes, before, strict=True):
            save_settings(home, replace(settings, local=replace(settings.local, **rules)))
        try:
            yield
        finally:
            for home, settings in zip(homes, before, strict=True):
                save_settings(home, settings)

    @contextlib.contextmanager
    def held_up(self, name: str) -> Iterator[None]:
        """The processes of a node stand still for a while, as those of a machine that is too busy."""
        pid = self.federation.services[name].pid
        family = [pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text("ascii").split())]
        for one in family:
            os.kill(one, signal.SIGSTOP)
        try:
            yield
        finally:
            for one in family:
                os.kill(one, signal.SIGCONT)

    @property
    def recipe(self) -> Path:
        """The file of the recipe that every contract here names."""
        return self.federation.folder / "operators" / "recipe.json"

    def draft(self, *, start_ms: int) -> str:
        """A new contract of three of the makers, as an operator would write it."""
        federation = self.federation
        members = {one["legal_name"]: one for one in federation.broker("members")["organisations"]}
        known = [members[site.maker.legal_name] for site in federation.sites[:3]]
        return contract_text(
            contract_id=new_id("ctr", random_bytes(10)),
            start_ms=start_ms,
            signers=[
                Signer(maker=site.maker, org=one["org"], key=one["node_key"])
                for site, one in zip(federation.sites, known, strict=False)
            ],
            broker_org=new_id("org", random_bytes(10)),
            broker_key=federation.broker("status")["broker_key"],
            recipe_digest=digest(self.recipe.read_bytes()),
            rounds=100,
            local_steps=100,
            epsilon="8",
            delta=DELTA,
        )

    def stop(self) -> None:
        self.federation.stop()


def set_password(seen: Watched) -> None:
    """Does what the page asks of somebody whom a link let in."""
    seen.page.get_by_role("link", name=re.compile("Add a passkey or a password")).click()
    seen.page.get_by_label("New password").fill(PASSWORD)
    seen.page.get_by_role("button", name="Set this password").click()
    seen.page.get_by_text("The password is set").wait_for()


def start(folder: Path) -> ConsolePool:
    """Four nodes, a contract in force, a released model, the pages open."""
    federation = Federation(folder, console=CONSOLE)
    for number, site in enumerate(federation.sites):
        write_recording(site.recordings, train=6, held_out=3, seed=number)
    recipe = tiny_recipe(rounds=3, steps=30, deadline_s=12, evaluation={"normalizer": "64"})
    try:
        federation.start_broker()
        federation.enrol()
        start_ms = now_ms() + int((10 + 2 * federation.enrol_s) * 1000)
        federation.agree(recipe, epsilon="8", delta=DELTA, start_ms=start_ms, runs=RUNS)
        federation.start_nodes()
        found = doors(federation, first=True)
        wait_for("the contract to begin", lambda: now_ms() > start_ms + 1000, timeout_s=120)
        run = federation.open_run()
        federation.wait_run(run, timeout_s=RUN_S)
        federation.wait_event("candidate.decided", run=run, timeout_s=60)
    except BaseException:
        federation.stop()
        raise
    return ConsolePool(federation, found, run)


def crawl(context: Any, origin: str, starts: tuple[str, ...]) -> dict[str, str]:
    """One address of every screen that can be reached by links, by its name.

    Args:
        context: Of a browser, with its cookies.
        origin: Of the console.
        starts: Where to begin.
    """
    patterns = [
        (name, re.compile(re.sub(r"\{[^}]+\}", "[^/?]+", path) + r"(\?[^#]*)?$"))
        for name, path in SCREENS.items()
    ]
    places: dict[str, str] = {}
    waiting = list(starts)
    while waiting:
        path = waiting.pop(0)
        name = next((name for name, pattern in patterns if pattern.match(path)), None)
        if name is None or name in places or "format=" in path:
            continue
        answer = context.request.get(origin + path, max_redirects=0)
        if answer.status != 200:
            continue
        places[name] = path
        waiting += [one.replace("&amp;", "&") for one in re.findall(r'href="(/[^"]*)"', answer.text())]
    return places
