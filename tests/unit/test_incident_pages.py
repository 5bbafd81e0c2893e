# SPDX-License-Identifier: Apache-2.0
"""Incidents over the API: page after page by the log's index, each once, whatever is declared meanwhile."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import event

from broker.remote import OperatorClient
from policies.encoding import digest
from policies.log.entries import EntryType, Event
from tests.brokersim import open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from tests.brokersim import House

PATH = "/operator/incidents"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        yield opened


async def declare(house: House, first: int, count: int) -> list[int]:
    def work(_session: Any, tx: Any) -> list[int]:
        return [
            tx.add(
                Event(
                    type=EntryType.INCIDENT_DECLARED,
                    pub={"kind": "reply.signature", "evidence": digest(str(number).encode())},
                )
            )
            for number in range(first, first + count)
        ]

    return (await house.services.writer.run(work))[0]


async def walk(house: House, limit: int) -> list[list[dict[str, Any]]]:
    pages, cursor = [], ""
    while True:
        page = (await house.alice.get(f"{PATH}?limit={limit}{cursor}")).json()
        pages.append(page["incidents"])
        if "next" not in page:
            return pages
        cursor = f"&cursor={page['next']}"


@contextmanager
def fetched(house: House) -> Iterator[list[str]]:
    said: list[str] = []

    def before(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        said.append(statement)

    readers = house.services.store.readers
    event.listen(readers, "before_cursor_execute", before)
    try:
        yield said
    finally:
        event.remove(readers, "before_cursor_execute", before)


async def test_pages_have_each_incident_once_oldest_first_with_what_closed_it(house):
    indices = await declare(house, 0, 20)
    for index in (indices[3], indices[19]):
        answer = await house.alice.post(f"{PATH}/{index}/close", {"reason": "looked.into"})
        assert answer.status_code == 200
    pages = await walk(house, 7)
    assert [len(one) for one in pages] == [7, 7, 6]
    found = [one for page in pages for one in page]
    assert [one["index"] for one in found] == indices
    assert [one["index"] for one in found if one["closed"] is not None] == [indices[3], indices[19]]
    assert [found] == await walk(house, 1_000)
    assert [len(one) for one in await walk(house, 10)] == [10, 10]


async def test_what_is_declared_meanwhile_moves_no_page(house):
    first = await declare(house, 0, 4)
    page = (await house.alice.get(f"{PATH}?limit=3")).json()
    more = await declare(house, 4, 2)
    rest = (await house.alice.get(f"{PATH}?limit=3&cursor={page['next']}")).json()
    assert [one["index"] for one in page["incidents"] + rest["incidents"]] == first + more
    assert "next" not in rest


async def test_a_page_costs_the_same_however_many_incidents_there_are(house):
    costs = []
    for count in (10, 200):
        await declare(house, count, count)
        with fetched(house) as said:
            page = (await house.alice.get(f"{PATH}?limit=5")).json()
        assert len(page["incidents"]) == 5
        costs.append(len(said))
        of_log = [one for one in said if "log_entry" in one]
        assert all("LIMIT" in one or " IN " in one for one in of_log), of_log
    assert costs[0] == costs[1]


@pytest.mark.parametrize("key", [(), (1, 2), ("a",), (-1,)])
async def test_a_cursor_that_this_list_did_not_make_is_refused(house, key):
    from broker.api.paging import _written

    answer = await house.alice.get(f"{PATH}?cursor={_written('incidents', key)}")
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid")
    other = await house.alice.get(f"{PATH}?cursor={_written('runs', (1,))}")
    assert other.status_code == 422


def test_a_command_reads_every_page(monkeypatch):
    pages = {
        "/list": {"things": [1, 2], "next": "b"},
        "/list?cursor=b": {"things": [3], "next": "c"},
        "/list?cursor=c": {"things": []},
    }
    client = object.__new__(OperatorClient)
    monkeypatch.setattr(client, "get", pages.__getitem__)
    assert client.every("/list", "things") == [1, 2, 3]
