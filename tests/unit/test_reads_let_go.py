# SPDX-License-Identifier: Apache-2.0
"""No read of the database is held while something else is waited for; who finds none free is told to come back."""

from __future__ import annotations

import ast
import contextlib
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import broker
from broker.lifesign import answered
from broker.store import StoreBusyError, sqlite
from tests.brokersim import URL, open_house
from tests.consolesim import PersonSim

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator

    from tests.brokersim import House

READS = {"read", "read_private"}
WAITS = (ast.Await, ast.Yield, ast.YieldFrom, ast.AsyncFor, ast.AsyncWith)
KEEPS = """
async def bad(store):
    with store.read() as session:
        await something(session)

async def also_bad(store):
    with other(), store.read_private() as session:
        for one in session:
            yield one

async def good(store):
    with store.read() as session:
        later = wait_for(session)

        async def inner():
            await later

    await later
"""


def held_across(source: str) -> list[int]:
    """Lines at which an async function waits or hands out while it holds a read."""
    return sorted(
        one.lineno
        for function in ast.walk(ast.parse(source))
        if isinstance(function, ast.AsyncFunctionDef)
        for block in within(function.body)
        if isinstance(block, ast.With) and any(is_read(item.context_expr) for item in block.items)
        for one in within(block.body)
        if isinstance(one, WAITS)
    )


def within(body: list[ast.stmt]) -> Iterator[ast.AST]:
    """What runs with these statements; bodies of functions in them do not."""
    waiting: list[ast.AST] = list(body)
    while waiting:
        one = waiting.pop()
        yield one
        if not isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)):
            waiting += ast.iter_child_nodes(one)


def is_read(called: ast.expr) -> bool:
    return (
        isinstance(called, ast.Call) and isinstance(called.func, ast.Attribute) and called.func.attr in READS
    )


def test_a_read_that_is_held_while_something_is_awaited_is_found() -> None:
    assert held_across(KEEPS) == [4, 9]


def test_no_read_is_held_while_something_is_awaited() -> None:
    root = Path(broker.__file__).parent
    found = {
        path.relative_to(root).as_posix(): lines
        for path in root.rglob("*.py")
        if (lines := held_across(path.read_text(encoding="utf-8")))
    }
    assert found == {}


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    monkeypatch.setattr(sqlite, "READ_WAIT_S", 0.01)
    async with open_house(tmp_path / "broker") as opened:
        yield opened


def all_taken(house: House) -> ExitStack:
    """Readers that keep every connection."""
    held = ExitStack()
    with contextlib.suppress(StoreBusyError):
        while True:
            held.enter_context(house.services.store.read())
    return held


async def test_while_all_connections_are_in_use_everybody_is_told_to_come_back(house: House) -> None:
    assert sqlite.reading_engine(house.services.settings.dir / "broker.db", {}).pool._timeout == 0.01  # type: ignore[attr-defined]
    alice = await PersonSim.enter(house, "alice")
    with all_taken(house):
        answer = await house.alice.get("/contracts")
        assert (answer.status_code, answer.json()["code"]) == (503, "store.busy")
        assert answer.headers["content-type"] == "application/problem+json"
        assert answer.headers["retry-after"] == "1"
        for who in (alice, PersonSim(house)):
            page = await who.send("GET", "/console/members" if who is alice else "/models")
            assert (page.status_code, page.headers["retry-after"]) == (503, "1")
            assert "store.busy" in page.text
        told = await alice.send("GET", "/console/members?format=json")
        assert (told.status_code, told.json()["error"]["code"]) == (503, "store.busy")
        ready = await house.http.get(URL + "/readyz")
        assert (ready.status_code, ready.json()["not_ready"]) == (503, ["database"])
        with pytest.raises(StoreBusyError):
            await answered(house.services)
    assert (await house.alice.get("/contracts")).status_code == 200
    assert (await alice.send("GET", "/console/members")).status_code == 200
