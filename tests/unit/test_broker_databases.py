# SPDX-License-Identifier: Apache-2.0
"""What members and operators see of the database behind a broker: nothing, and where it fails, a code that says so."""

from __future__ import annotations

import signal
from typing import TYPE_CHECKING, Any

import pytest
from sqlalchemy import select

from broker.store.tables import operator
from tests import pgserver
from tests.brokersim import URL, House, open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

postgres = pytest.mark.parametrize("database", ["postgresql"], indirect=True)


@pytest.fixture
async def house(tmp_path: Path, database: str) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker", database=database) as one:
        yield one


def code(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


@pytest.mark.parametrize(
    "path", ["/contracts/%00/lifecycle", "/runs/a%00b", "/negotiations/%00", "/statements/sha256:%00"]
)
async def test_nothing_is_called_by_a_character_that_no_database_holds(house: House, path: str) -> None:
    assert code(await house.alice.get(path)) == (404, "request.not-found")
    assert code(await house.alice.post(path, {})) == (404, "request.not-found")


@postgres
async def test_a_value_that_the_database_cannot_hold_is_the_callers_fault(house: House) -> None:
    @house.port.app.get("/planted")
    def planted() -> None:
        with house.services.store.read() as session:
            session.scalar(select(operator.c.key).where(operator.c.name == "a\0b"))

    assert code(await house.http.get(URL + "/planted")) == (422, "request.invalid")


@postgres
async def test_while_the_server_is_away_everybody_is_told_to_send_the_same_again(house: House) -> None:
    server = pgserver.shared()
    invite = house.alice.signed("POST", "/operator/invites", b'{"country":"DE","group":"k","legal_name":"K"}')
    server.end(signal.SIGQUIT)
    try:
        for answer in (await house.http.send(invite), await house.alice.get("/contracts")):
            assert code(answer) == (503, "log.unavailable")
            assert answer.headers["retry-after"] == "1"
        assert (await house.http.get(URL + "/api/v1/broker")).status_code == 200
    finally:
        server.start()
    assert (await house.http.send(invite)).status_code == 201
    assert (await house.alice.get("/contracts")).status_code == 200
