# SPDX-License-Identifier: Apache-2.0
"""The event stream of a run: what a reader gets after a cut, when it ends, and that nothing is known only to it."""

from __future__ import annotations

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from broker.auth.sessions import COOKIE
from broker.console.live import Looked, news_of
from broker.console.pages import Place
from broker.console.screens import Fact, Panel
from broker.console.values import Count, T
from broker.draining import Draining
from broker.store.tables import round_, run
from policies.encoding import digest
from policies.limits import SESSION_IDLE_MIN
from policies.log.entries import EntryType, Event
from tests.brokersim import HandClock, House, SeedEntropy, final_contract, open_house
from tests.consolesim import PersonSim, read_html

PLACE = Place(path="/console/runs/run_1", query={})
IN_TERM_MS = 1_796_500_000_000  # 2026-12-05
MODEL = digest(b"a round's model")
NASTY = "<img src=x onerror=alert(1)> GmbH"


class HandDraining(Draining):
    """Waits until the test lets a look happen; no time passes."""

    def __init__(self) -> None:
        super().__init__()
        self.turns: asyncio.Queue[None] = asyncio.Queue()

    async def within(self, seconds: float) -> bool:
        """The next look, or the end."""
        assert seconds == 1.0
        turn = asyncio.ensure_future(self.turns.get())
        ended = asyncio.ensure_future(super().within(3_600))
        await asyncio.wait({turn, ended}, return_when=asyncio.FIRST_COMPLETED)
        for one in (turn, ended):
            if not one.done():
                one.cancel()
        return self._begun


@dataclass
class Reader:
    """A browser's end of a stream, spoken to as a server does: piece by piece."""

    person: PersonSim
    path: str
    last: str = ""
    status: int = 0
    pieces: asyncio.Queue[bytes | None] = field(default_factory=asyncio.Queue)
    task: asyncio.Task[None] | None = None
    slow: asyncio.Event | None = None

    async def open(self) -> Reader:
        cookie = f"{COOKIE}={self.person.cookies[COOKIE]}"
        headers = [(b"cookie", cookie.encode()), (b"host", b"127.0.0.1:7443")]
        if self.last:
            headers.append((b"last-event-id", self.last.encode()))
        path, _, query = self.path.partition("?")
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": "GET",
            "scheme": "https",
            "path": path,
            "raw_path": path.encode(),
            "query_string": query.encode(),
            "root_path": "",
            "headers": headers,
            "client": ("127.0.0.1", 1),
            "server": ("127.0.0.1", 7443),
        }
        asked = False

        async def receive() -> dict[str, Any]:
            nonlocal asked
            if not asked:
                asked = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await asyncio.Event().wait()
            raise AssertionError

        async def send(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.status = message["status"]
                return
            if self.slow is not None:
                await self.slow.wait()
            await self.pieces.put(message.get("body", b"") or None)

        self.task = asyncio.ensure_future(self.person.house.port(scope, receive, send))  # type: ignore[arg-type]
        return self

    async def event(self) -> dict[str, str]:
        """The next event; a comment is an empty one."""
        piece = await asyncio.wait_for(self.pieces.get(), 10)
        assert piece is not None, "the stream has ended"
        found: dict[str, str] = {}
        for line in piece.decode().splitlines():
            name, _, value = line.partition(": ")
            if name:
                found[name] = found[name] + "\n" + value if name in found else value
        self.last = found.get("id", self.last)
        return found

    async def ended(self) -> bool:
        """Whether the answer comes to its end by itself."""
        assert self.task is not None
        await asyncio.wait_for(self.task, 10)
        return True

    async def cut(self) -> None:
        """The connection breaks."""
        assert self.task is not None
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture(scope="module")
def waiting(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A broker on the disk with a run that waits for its members' nodes, one of a nasty name; and the run."""
    folder = tmp_path_factory.mktemp("waiting") / "broker"

    async def make() -> str:
        async with open_house(folder) as house:
            names = {"kita": NASTY, "nord": "", "iber": ""}
            nodes = [await house.member(short, legal_name=name) for short, name in names.items()]
            contract = await final_contract(house, nodes)
            house.clock.ms = IN_TERM_MS
            answer = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
            assert answer.status_code == 201, answer.text
            return str(answer.json()["run"])

    return folder, asyncio.run(make())


@pytest.fixture
async def house(tmp_path: Path, waiting: tuple[Path, str]) -> AsyncIterator[House]:
    shutil.copytree(waiting[0], tmp_path / "broker")
    async with open_house(tmp_path / "broker", clock=HandClock(IN_TERM_MS)) as found:
        found.alice.entropy = SeedEntropy(b"another process")
        yield found


@pytest.fixture
def run_id(waiting: tuple[Path, str]) -> str:
    return waiting[1]


@pytest.fixture
def hand(house: House) -> HandDraining:
    """The broker's streams look when the test says so."""
    house.services.draining = HandDraining()
    return house.services.draining


async def settled(house: House, run_id: str, number: int) -> None:
    """A round that came to a model, with its entry."""
    row = {"run_id": run_id, "round": number, "attempt": 1, "base": MODEL, "model": MODEL, "accepted": 3}
    row |= {
        "refused": 0,
        "verdicts": json.dumps({"kita": "accepted"}),
        "at_ms": house.clock.ms,
        "reasons": "{}",
    }

    def work(session: Any, tx: Any) -> None:
        scope = session.scalar(select(run.c.contract).where(run.c.run_id == run_id))
        session.execute(insert(round_).values(row | {"held_up": 0, "trained": 1, "unmasked": 0}))
        session.execute(update(run).where(run.c.run_id == run_id).values(round=number, model_digest=MODEL))
        pub = {"attempt": 1, "received": 1, "accepted": 1, "refused": 0, "withdrawn": 0, "parties": {}}
        closed = EntryType.ROUND_CLOSED
        tx.add(Event(type=closed, scope=scope, run=run_id, round=number, pub=pub | {"outcome": "aggregated"}))

    await house.services.writer.run(work)


async def reading(house: House, run_id: str, person: PersonSim | None = None) -> Reader:
    alice = person or await PersonSim.enter(house, "alice")
    return await Reader(alice, f"/console/runs/{run_id}/events").open()


def shown(event: dict[str, str]) -> str:
    """What a person reads in an event."""
    return read_html(event["data"]).text


def panel(number: int) -> Panel:
    facts = (Fact("round", T("Round"), Count(number)),)
    return Panel(name="now", title=T("Where it is"), facts=facts)


async def test_a_reader_gets_the_panel_that_the_page_has(
    house: House, run_id: str, hand: HandDraining
) -> None:
    alice = await PersonSim.enter(house, "alice")
    page = await alice.page(f"/console/runs/{run_id}")
    reader = await reading(house, run_id, alice)
    event = await reader.event()
    assert reader.status == 200
    assert event["event"] == "now"
    inner = page.panel("now").first("div", **{"class": "inner"})
    assert shown(event) == inner.text
    assert f'sse-connect="/console/runs/{run_id}/events?lang=en"' in page.html
    await reader.cut()


async def test_after_a_cut_nothing_is_lost_and_nothing_comes_twice(
    house: House, run_id: str, hand: HandDraining
) -> None:
    reader = await reading(house, run_id)
    first = await reader.event()
    await reader.cut()
    again = await Reader(reader.person, reader.path, last=first["id"]).open()
    assert again.pieces.empty()
    assert "data" not in await again.event()  # a comment: the reader has it
    await again.cut()
    await settled(house, run_id, 1)
    await settled(house, run_id, 2)
    back = await Reader(reader.person, reader.path, last=first["id"]).open()
    event = await back.event()
    assert "model 2 of" in shown(event)
    hand.turns.put_nowait(None)
    hand.turns.put_nowait(None)
    await settled(house, run_id, 3)
    hand.turns.put_nowait(None)
    last = await back.event()
    assert "model 3 of" in shown(last)
    assert back.pieces.empty()
    sizes = [int(one["id"].partition(".")[0]) for one in (first, event, last)]
    assert sizes == sorted(set(sizes))
    await back.cut()


async def test_entries_about_something_else_are_no_news(
    house: House, run_id: str, hand: HandDraining
) -> None:
    reader = await reading(house, run_id)
    await reader.event()
    await house.alice.invite("Somebody Else GmbH")
    for _ in range(3):
        hand.turns.put_nowait(None)
    await asyncio.sleep(0)
    await settled(house, run_id, 1)
    hand.turns.put_nowait(None)
    assert "model 1 of" in shown(await reader.event())
    assert reader.pieces.empty()
    await reader.cut()


async def test_an_id_of_another_form_means_from_the_start(
    house: House, run_id: str, hand: HandDraining
) -> None:
    alice = await PersonSim.enter(house, "alice")
    for nonsense in ("7", "x.y", "1.0123456789abcdef\u00e9", "9" * 40 + ".0123456789abcdef"):
        reader = Reader(alice, f"/console/runs/{run_id}/events", last=nonsense)
        assert "data" in await (await reader.open()).event()
        await reader.cut()


async def test_it_ends_when_the_login_ends(house: House, run_id: str, hand: HandDraining) -> None:
    reader = await reading(house, run_id)
    await reader.event()
    await house.services.auth.sessions.end_all("alice")
    hand.turns.put_nowait(None)
    assert await reader.ended()
    late = await Reader(reader.person, reader.path, last=reader.last).open()
    await late.ended()
    assert late.status == 401


async def test_it_ends_with_an_idle_login_that_only_the_stream_kept_open(
    house: House, run_id: str, hand: HandDraining
) -> None:
    reader = await reading(house, run_id)
    await reader.event()
    house.clock.ms += (SESSION_IDLE_MIN + 1) * 60_000
    hand.turns.put_nowait(None)
    assert await reader.ended()


async def test_a_slow_reader_misses_steps_and_gets_the_newest(
    house: House, run_id: str, hand: HandDraining
) -> None:
    alice = await PersonSim.enter(house, "alice")
    reader = Reader(alice, f"/console/runs/{run_id}/events", slow=asyncio.Event())
    await reader.open()
    for _ in range(50):
        await asyncio.sleep(0)
    for number in (1, 2, 3):
        await settled(house, run_id, number)
        hand.turns.put_nowait(None)
    assert reader.slow is not None
    reader.slow.set()
    await reader.event()  # what it was about to get
    assert "model 3 of" in shown(await reader.event())
    assert reader.pieces.empty()
    await reader.cut()


async def test_a_broker_that_is_stopped_lets_nobody_wait(house: House, run_id: str) -> None:
    reader = await reading(house, run_id)
    await reader.event()
    house.services.drain()
    assert await reader.ended()
    late = await reading(house, run_id, reader.person)
    await late.event()
    assert await late.ended()


async def test_members_and_strangers_have_no_stream(house: House, run_id: str, hand: HandDraining) -> None:
    org = house.services.directory.members()[0].org
    mia = await PersonSim.enter(house, "mia", role="member", org=org)
    reader = await reading(house, run_id, mia)
    await reader.ended()
    assert reader.status == 403
    page = await mia.page(f"/console/runs/{run_id}")
    assert page.status == 200
    assert "sse-connect" not in page.html
    unknown = await reading(house, "run_aaaaaaaaaaaaaaaa")
    await unknown.ended()
    assert unknown.status == 404


async def test_names_of_members_are_text_in_events_too(house: House, run_id: str, hand: HandDraining) -> None:
    reader = await reading(house, run_id)
    event = await reader.event()
    assert NASTY in shown(event)
    assert "<img" not in event["data"]
    await reader.cut()


def test_a_panel_that_a_reader_has_is_no_news_in_whatever_language() -> None:
    looked = Looked(panel(1), 7)
    first = news_of(looked, after="", lang="en", now_ms=0, place=PLACE)
    assert first is not None
    assert first.id.startswith("7.")
    assert news_of(Looked(panel(1), 9), after=first.id, lang="ja", now_ms=5, place=PLACE) is None
    other = news_of(Looked(panel(2), 9), after=first.id, lang="ja", now_ms=5, place=PLACE)
    assert other is not None
    assert other.id.startswith("9.")


async def test_whoever_waits_is_told_once_the_broker_drains() -> None:
    draining = Draining()
    waiting = asyncio.ensure_future(draining.within(3_600))
    await asyncio.sleep(0)
    draining.begin()
    assert await waiting
    assert await draining.within(3_600)
    assert not await Draining().within(0)
