# SPDX-License-Identifier: Apache-2.0
"""People at a browser, for tests of the console: they log in at once, send forms as a page of ours does, and keep cookies.

alice = await log_in(house, "alice")                             # an operator of the house, however they log in
aud = await log_in(house, "aud", role="auditor")                 # added first
page = await alice.get("/console/account");  done = await alice.post("/console/account/language", lang="ja")
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
from argon2 import PasswordHasher

from broker.auth.passwords import Passwords
from broker.auth.people import Addition, Person, add_person, find_person
from broker.auth.sessions import COOKIE
from policies.encoding import digest_of
from tests.brokersim import _copy_template

if TYPE_CHECKING:
    from pathlib import Path

    from broker.auth.sessions import How, Login
    from tests.brokersim import House

CHEAP = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
ADDRESS = "192.0.2.7"
CONSOLE = "https://localhost:7443"


@dataclass
class Browser:
    """A browser with its cookies; ``headers`` go along with every request."""

    house: House
    cookies: dict[str, str] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=lambda: {"sec-fetch-site": "same-origin"})
    address: str = ADDRESS

    @property
    def login(self) -> Login:
        found = self.house.services.auth.find(self.cookies.get(COOKIE))
        assert found is not None
        return found

    @property
    def url(self) -> str:
        return self.house.services.settings.console

    async def send(
        self, method: str, path: str, *, headers: dict[str, str] | None = None, **more: Any
    ) -> httpx.Response:
        """One request; cookies that the answer sets are kept, as a browser keeps ``__Host-`` cookies."""
        transport = httpx.ASGITransport(
            app=self.house.port, raise_app_exceptions=False, client=(self.address, 4711)
        )
        cookie = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        sent = {**self.headers, **({"cookie": cookie} if cookie else {}), **(headers or {})}
        async with httpx.AsyncClient(transport=transport, base_url=self.url) as http:
            answer = await http.request(method, path, headers=sent, **more)
        for text in answer.headers.get_list("set-cookie"):
            self._keep(text)
        return answer

    def _keep(self, text: str) -> None:
        pair, *flags = [one.strip() for one in text.split(";")]
        name, _, value = pair.partition("=")
        if name.startswith("__Host-"):
            lower = {one.lower() for one in flags}
            assert {"secure", "path=/"} <= lower, text
            assert not any(one.startswith("domain") for one in lower), text
        value = value.strip('"')
        if not value or any(one.lower() == "max-age=0" for one in flags):
            self.cookies.pop(name, None)
        else:
            self.cookies[name] = value

    async def get(self, path: str, **more: Any) -> httpx.Response:
        return await self.send("GET", path, **more)

    async def post(self, path: str, *, headers: dict[str, str] | None = None, **form: str) -> httpx.Response:
        """A form of a page of ours: with the login's token and a fresh mark, unless the test gives others."""
        token = self.house.services.auth.find(self.cookies.get(COOKIE))
        once = digest_of([path, self.house.services.entropy.token_bytes(8).hex()])[7:39]
        data = {"csrf": token.csrf if token else "", "once": once} | form
        return await self.send("POST", path, headers=headers, data=data)


def named_console(folder: Path, url: str = CONSOLE) -> Path:
    """A broker's folder whose console has a name, so that it has passkeys; for `open_house`."""
    _copy_template(folder, "sqlite")
    settings = folder / "broker.toml"
    settings.write_text(f'console_url = "{url}"\n' + settings.read_text())
    return folder


async def add(house: House, name: str, role: str, *, org: str | None = None) -> Person:
    """Adds a person past the rules of who may; for tests of what they may then do."""
    with house.services.store.read() as session:
        there = find_person(session, name)
    if there is not None:
        return there
    wanted = Addition(name=name, role=role, org=org)

    def work(session: Any, tx: Any) -> Person:
        request = digest_of(["test", name])
        return add_person(session, tx, wanted, by="alice", request=request, now_ms=house.clock.ms)

    return (await house.services.writer.run(work))[0]


async def log_in(
    house: House, name: str, *, role: str = "operator", org: str | None = None, how: How = "password"
) -> Browser:
    """A browser in which a person is logged in, without any ceremony."""
    who = await add(house, name, role, org=org)
    opened = await house.services.auth.sessions.open(who, how)
    return Browser(house, cookies={COOKIE: opened.token})


def cheap_passwords(house: House) -> Passwords:
    """Lets a house hash passwords in microseconds."""
    house.services.auth.passwords = Passwords(CHEAP, nobody=CHEAP.hash("nobody's"))
    return house.services.auth.passwords
