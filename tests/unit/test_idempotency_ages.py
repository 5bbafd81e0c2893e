# SPDX-License-Identifier: Apache-2.0
"""Answers of changes are forgotten after their time, and a change that comes again after it is never done twice."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from alembic import command
from sqlalchemy import insert, select

from broker.auditing import upkeep
from broker.store import Store
from broker.store.migrations import config
from broker.store.sqlite import PRAGMAS, make_file, writing_engine
from broker.store.tables import idempotency
from policies.limits import IDEMPOTENCY_DAYS
from tests.brokersim import NodeSim, open_house
from tests.loginsim import log_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

DAY_MS = 86_400_000
INVITE = {"legal_name": "Kita GmbH", "country": "DE", "group": "kita"}
OLD = "request.idempotency-old"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        yield opened


async def age(house: House, days: int) -> None:
    house.clock.ms += days * DAY_MS
    await house.services.upkeep.look()


def rows(house: House) -> list[Any]:
    with house.services.store.read() as session:
        return list(session.execute(select(idempotency).order_by(idempotency.c.idem)).all())


async def test_an_answer_is_given_again_until_its_time_is_over(house):
    first = await house.alice.post("/operator/invites", INVITE, idempotency_key="one")
    await age(house, IDEMPOTENCY_DAYS)
    again = await house.alice.post("/operator/invites", INVITE, idempotency_key="one")
    told = {name: value for name, value in first.json().items() if name not in {"invite", "receipts"}}
    assert again.status_code == 201
    assert told.items() <= again.json().items()
    assert len((await house.alice.get("/operator/invites")).json()["invites"]) == 1


async def test_an_invitation_that_is_asked_for_again_years_later_is_refused_and_not_made_twice(house):
    await house.alice.post("/operator/invites", INVITE, idempotency_key="one")
    await age(house, IDEMPOTENCY_DAYS + 1)
    for days in (0, 1, 2_000):
        await age(house, days)
        for body in (INVITE, INVITE | {"country": "JP"}):
            answer = await house.alice.post("/operator/invites", body, idempotency_key="one")
            assert (answer.status_code, answer.json()["code"]) == (409, OLD)
    assert len((await house.alice.get("/operator/invites")).json()["invites"]) == 1
    assert (await house.bob.post("/operator/invites", INVITE, idempotency_key="one")).status_code == 201
    assert (await house.alice.post("/operator/invites", INVITE, idempotency_key="two")).status_code == 201


async def test_a_join_that_is_sent_again_years_later_is_refused_under_its_key_and_under_a_new_one(house):
    kita = NodeSim(house, "kita")
    body = kita.join_body(await house.alice.invite())
    first = await kita.post("/membership/join", body, idempotency_key="join")
    assert first.status_code == 200
    before = house.kinds()
    await age(house, IDEMPOTENCY_DAYS + 1)
    again = await kita.post("/membership/join", body, idempotency_key="join")
    assert (again.status_code, again.json()["code"]) == (409, OLD)
    assert (await kita.post("/membership/join", body, idempotency_key="new")).status_code in {403, 409, 410}
    assert house.kinds() == before


async def test_of_a_forgotten_answer_nothing_is_left_but_that_its_key_was_used(house):
    await house.alice.post("/operator/invites", INVITE, idempotency_key="one")
    assert rows(house)[0].response
    await age(house, IDEMPOTENCY_DAYS + 1)
    (left,) = rows(house)
    assert (left.idem, left.body_digest, left.status, left.response, left.at_ms) == ("one", "", 0, b"", None)


async def test_a_used_form_of_the_console_is_forgotten_and_its_login_has_ended_before(house):
    alice = await log_in(house, "alice")
    form = INVITE | {"once": "a" * 32, "csrf": alice.login.csrf}
    assert (await alice.post("/console/invitations", **form)).status_code == 303
    assert [one.key_id for one in rows(house)] == ["person:alice"]
    await age(house, IDEMPOTENCY_DAYS + 1)
    assert rows(house) == []
    assert (await alice.post("/console/invitations", **form)).status_code == 401
    later = await log_in(house, "alice")
    assert (await later.post("/console/invitations", **form)).status_code == 403
    assert len((await house.alice.get("/operator/invites")).json()["invites"]) == 1


async def test_many_old_answers_go_in_several_units_and_young_ones_stay(house, monkeypatch):
    monkeypatch.setattr(upkeep, "_ANSWERS", 4)
    now_ms = house.clock.ms

    def fill(session: Any, _tx: Any) -> None:
        for number in range(10):
            row = {
                "key_id": "k",
                "idem": f"{number:02}",
                "body_digest": "d",
                "status": 200,
                "response": b"{}",
            }
            session.execute(insert(idempotency).values(**row, at_ms=now_ms + number))

    await house.services.writer.run(fill)
    house.clock.ms += 8
    await age(house, IDEMPOTENCY_DAYS)
    assert [one.response == b"" for one in rows(house)] == [True] * 8 + [False] * 2


async def test_a_log_that_is_frozen_keeps_its_answers_until_it_can_be_written_again(house):
    await house.alice.post("/operator/invites", INVITE, idempotency_key="one")
    await house.alice.post("/operator/log/freeze", {"reason": "looked.into"})
    await age(house, IDEMPOTENCY_DAYS + 1)
    assert rows(house)[0].response


def test_answers_of_an_earlier_version_count_from_the_newest_entry_of_the_log(tmp_path):
    files = [tmp_path / f"{name}.db" for name in ("broker", "private", "signer")]
    make_file(files[0])
    engine = writing_engine(files[0], PRAGMAS)
    made = config("main")
    with engine.begin() as connection:
        made.attributes["connection"] = connection
        command.upgrade(made, "main_0014")
        row = {"key_id": "k", "idem": "i", "body_digest": "d", "status": 200, "response": b"{}"}
        connection.execute(insert(idempotency).values(**row))
    engine.dispose()
    store = Store.open(*files)
    with store.read() as session:
        assert session.scalar(select(idempotency.c.at_ms)) == 0  # no entry yet
        assert session.scalar(select(idempotency.c.response)) == b"{}"
    store.close()
