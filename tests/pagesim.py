# SPDX-License-Identifier: Apache-2.0
"""A node with something on every screen of its page, and the page served on a real port, or asked in memory."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import sqlite3
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import uvicorn

from client.page.app import Page
from client.page.keys import grouped
from client.page.running import configured
from client.settings import write_durably
from policies.exchange import ExchangeType
from tests.nodesim import SeedEntropy
from tests.nodeworld import RUN, World, ready_world, sha
from tests.qualitysim import arm, imported, planted

PORT = 8123
HOST = f"127.0.0.1:{PORT}"
OTHER_RUN = "run_bbbbbbbbbbbbbbbb"
CANDIDATE = sha("candidate")
MODEL = sha("model")
SAME_ORIGIN = {"sec-fetch-site": "same-origin"}


def told_by_broker(world: World, **rows: Any) -> None:
    """A broker that also knows candidates and releases; these, or one of each."""
    names = {"contract": world.contract.digest, "recipe": world.recipe.digest, "run": RUN}
    candidate = {
        "candidate": CANDIDATE,
        "state": "waiting",
        "own_vote": None,
        "voted": "1 of 2",
        "waits_for": [{"clause": "release-1"}],
        **names,
    }
    release = {"model": MODEL, "tier": "consortium", "statement": sha("s"), "at_ms": world.clock.ms, **names}
    world.broker.routes["/candidates"] = lambda *_: {"candidates": rows.get("candidates", [candidate])}
    world.broker.routes["/releases"] = lambda *_: {"releases": rows.get("releases", [release])}


def busy_world(folder: Path) -> World:
    """Rounds given, one refused, a budget that is charged, models, findings, an offer that is open."""
    world = ready_world(folder)
    receipts: list[dict[str, str]] = []
    for number in (1, 2, 3):
        _, reply = world.ask(round=number, body={"receipts": receipts})
        receipts = world.log_reply(reply)
        world.clock.ms += 40_000
    world.ask(ExchangeType.JUDGE, round=3)
    world.rules(paused=True)
    world.ask(round=4, run=OTHER_RUN)
    world.rules()
    told_by_broker(world)
    world.succeed(**{"aggregation.min_parties": 3})
    world.shelf().put(world.contract, {world.recipe.digest: world.recipe.canonical})
    models(world)
    imported(
        folder,
        [arm(1), arm(2), planted("lag", arm(3)), planted("jumps", arm(4)), arm(1)],
        dataset="kita/weld",
        root=world.home.data,
    )
    return world


def models(world: World) -> None:
    """A pulled model, an individual one beside it, and a service."""
    digits = MODEL.removeprefix("sha256:")
    pulled = {
        "model": MODEL,
        "tier": "consortium",
        "contract": world.contract.digest,
        "recipe": world.recipe.digest,
        "run": RUN,
        "verdict": "private",
        "pulled_ms": world.clock.ms - 3_600_000,
    }
    own = {
        **pulled,
        "individual": sha("own"),
        "kept": "individual",
        "report_units": 6,
        "held_out_loss_common": "0.412000",
        "held_out_loss": "0.337000",
        "gain": "0.182039",
    }
    for name, facts in ((digits, pulled), (f"individual-{digits}", own)):
        write_durably(world.home.models / name / "model.json", json.dumps(facts).encode())
    service = {"url": "http://127.0.0.1:9000", "port": 9000, "model": MODEL, "package": sha("package")}
    write_durably(world.home.serving / "cell" / "service.json", json.dumps(service).encode())


_PAGES = itertools.count()


def page_of(world: World, port: int = PORT, say: Callable[[str], str] = str) -> Page:
    """The page of a world, as its process makes it; each draws other secrets and nonces."""
    return Page(
        world.home,
        port=port,
        clock=world.clock,
        entropy=SeedEntropy(b"page %d" % next(_PAGES)),
        transport=world.broker.transport,
        say=say,
    )


@dataclass
class Visitor:
    """A browser without a window: asks the application itself, keeps the cookie, fills in forms."""

    page: Page
    client: httpx.AsyncClient

    async def get(self, path: str, **headers: str) -> httpx.Response:
        return await self.client.get(path, headers={"accept-language": "en", **headers})

    async def enter(self) -> httpx.Response:
        """Opens a session by a fresh link."""
        return await self.get("/open/" + self.page.keys.draw("link"))

    async def token(self, path: str = "/") -> str:
        """The form token of a page."""
        text = (await self.get(path)).text
        return text.split('name="form_token" value="')[1].split('"')[0]

    async def act(self, act: str, *, path: str = "/", headers: Any = None, **fields: str) -> httpx.Response:
        """Fills in the form of an act, with a fresh code."""
        given = {"form_token": await self.token(path), "code": grouped(self.page.keys.draw("code")), **fields}
        sent = {name: value for name, value in given.items() if value is not None}
        return await self.client.post(
            f"/act/{act}", data=sent, headers=SAME_ORIGIN if headers is None else headers
        )


@contextlib.asynccontextmanager
async def visiting(
    world: World, *, enter: bool = True, host: str = HOST, say: Callable[[str], str] = str
) -> Any:
    """Somebody who looks at the page of a world, in memory."""
    page = page_of(world, say=say)
    transport = httpx.ASGITransport(app=page.app, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url=f"http://{host}") as client:
        visitor = Visitor(page, client)
        if enter:
            assert (await visitor.enter()).status_code == 303
        yield visitor


@contextlib.contextmanager
def served(world: World) -> Iterator[tuple[str, Page]]:
    """The page on a port of this machine, in a thread; gives its address and the page itself."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        page = page_of(world, port)
        server = uvicorn.Server(configured(page.app))
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{port}", page
        finally:
            server.should_exit = True
            thread.join(10)


def many_rows(world: World, count: int) -> None:
    """So many transmissions in the outbox, of two runs in turn."""
    with contextlib.closing(sqlite3.connect(world.home.outbox)) as database, database:
        database.executemany(
            "INSERT INTO sent VALUES (NULL,?,?,?,?,?,?,?,?,?,NULL,NULL)",
            [
                (
                    world.clock.ms + number,
                    "train.reply",
                    1000 + number,
                    sha(str(number)),
                    "use-1",
                    world.contract.digest,
                    (RUN, OTHER_RUN)[number % 2],
                    number,
                    1,
                )
                for number in range(count)
            ],
        )
