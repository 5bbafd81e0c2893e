# SPDX-License-Identifier: Apache-2.0
"""Sessions: tokens, ages, ends; also while the log is frozen."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import select, update

from broker.auth.people import disable_person
from broker.auth.sessions import COOKIE, Sessions
from broker.log import FreezeReason
from broker.store.tables import login_session
from policies.encoding import digest
from policies.limits import SESSIONS_PER_PERSON
from tests.brokersim import open_house
from tests.loginsim import add, log_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

MINUTE = 60_000


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        yield opened


def rows(house: House) -> list[dict[str, object]]:
    with house.services.store.read() as session:
        return [dict(row) for row in session.execute(select(login_session)).mappings()]


async def test_the_database_holds_no_token(house: House) -> None:
    browser = await log_in(house, "alice")
    token = browser.cookies[COOKIE]
    assert browser.login.id in {row["id"] for row in rows(house)}
    assert token not in repr(rows(house))
    assert browser.login.csrf not in repr(rows(house))


@pytest.mark.parametrize(
    "token", [None, "", "x", "=" * 43, "A" * 42 + "_", "A" * 44, "\u00e9" * 43, "A" * 43]
)
async def test_what_is_no_token_is_nobody(house: House, token: str | None) -> None:
    await log_in(house, "alice")
    assert house.services.auth.find(token) is None


async def test_a_session_ends_after_thirty_idle_minutes_and_not_before(house: House) -> None:
    browser = await log_in(house, "alice")
    for _ in range(3):
        house.clock.ms += 29 * MINUTE
        assert browser.login.person.name == "alice"
    house.clock.ms += 30 * MINUTE
    assert house.services.auth.find(browser.cookies[COOKIE]) is None


async def test_a_session_ends_after_twelve_hours_whatever_its_person_does(house: House) -> None:
    browser = await log_in(house, "alice")
    for _ in range(12 * 3 - 1):
        house.clock.ms += 20 * MINUTE
        assert browser.login
    house.clock.ms += 20 * MINUTE
    assert house.services.auth.find(browser.cookies[COOKIE]) is None


async def test_its_last_use_is_written_once_a_minute(house: House) -> None:
    browser, start = await log_in(house, "alice"), house.clock.ms
    for _ in range(59):
        house.clock.ms += 1_000
        assert browser.login.seen_ms == house.clock.ms
    assert [row["seen_ms"] for row in rows(house)] == [start]
    house.clock.ms += 1_000
    assert browser.login
    assert [row["seen_ms"] for row in rows(house)] == [house.clock.ms]


async def test_a_session_that_was_ended_is_nobodys(house: House) -> None:
    one, other = await log_in(house, "alice"), await log_in(house, "alice")
    auth = house.services.auth
    assert await auth.sessions.end("alice", one.login.id)
    assert auth.find(one.cookies[COOKIE]) is None
    assert other.login
    assert await auth.sessions.end_all("alice") == 1
    assert auth.find(other.cookies[COOKIE]) is None


async def test_nobody_ends_another_persons_session(house: House) -> None:
    alice, bob = await log_in(house, "alice"), await log_in(house, "bob")
    assert not await house.services.auth.sessions.end("bob", alice.login.id)
    assert alice.login
    assert bob.login


async def test_disabling_a_person_ends_their_sessions_at_once(house: House) -> None:
    browser = await log_in(house, "bob")
    await house.services.writer.run(
        lambda session, tx: disable_person(session, tx, name="bob", by="alice", request=digest(b"x"))
    )
    assert house.services.auth.find(browser.cookies[COOKIE]) is None
    assert rows(house) == []


async def test_a_person_has_so_many_sessions_and_the_one_that_idled_longest_makes_room(house: House) -> None:
    first = await log_in(house, "alice")
    for _ in range(SESSIONS_PER_PERSON):
        house.clock.ms += 1_000
        await log_in(house, "alice")
    assert house.services.auth.find(first.cookies[COOKIE]) is None
    assert len(house.services.auth.sessions.of("alice")) == SESSIONS_PER_PERSON


async def test_a_stream_sees_that_its_login_ended_and_does_not_renew_it(house: House) -> None:
    browser = await log_in(house, "alice")
    login = browser.login
    house.clock.ms += 20 * MINUTE
    assert house.services.auth.alive(login)
    house.clock.ms += 10 * MINUTE
    assert not house.services.auth.alive(login)


async def test_while_the_log_is_frozen_people_come_in_and_out_in_memory(house: House) -> None:
    before = await log_in(house, "alice")
    house.services.writer._stop(FreezeReason.CORRUPT, "a test")
    during = await log_in(house, "bob")
    assert before.login
    assert during.login
    assert {one.id for one in house.services.auth.sessions.of("bob")} == {during.login.id}
    assert await house.services.auth.sessions.end("alice", before.login.id)
    assert house.services.auth.find(before.cookies[COOKIE]) is None
    assert [row["person"] for row in rows(house)] == ["alice"]


async def test_a_process_that_starts_frozen_trusts_no_stored_session(house: House) -> None:
    before = await log_in(house, "alice")
    services = house.services
    services.writer._stop(FreezeReason.CORRUPT, "a test")
    anew = Sessions(store=services.store, writer=services.writer, clock=house.clock, entropy=services.entropy)
    assert anew.find(before.cookies[COOKIE]) is None


async def test_who_came_by_link_is_told_to_add_a_way_in(house: House) -> None:
    browser = await log_in(house, "alice", how="link")
    assert not browser.login.has_credential
    await house.services.auth.account.set_password(browser.login, "a long enough word", request=digest(b""))
    assert browser.login.has_credential


async def test_another_role_is_seen_at_once(house: House) -> None:
    await add(house, "eve", "operator")
    browser = await log_in(house, "eve")
    stream = browser.login
    from broker.store.tables import person

    await house.services.writer.run(
        lambda session, _tx: (
            session.execute(update(person).where(person.c.name == "eve").values(role="auditor")) and None
        )
    )
    assert browser.login.person.role == "auditor"
    assert not house.services.auth.alive(stream)
