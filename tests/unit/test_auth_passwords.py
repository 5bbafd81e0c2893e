# SPDX-License-Identifier: Apache-2.0
"""Passwords and floods: one hash a try, pauses that grow, and nobody locked out by somebody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest
from argon2 import PasswordHasher

from broker.auth.errors import PasswordWeakError, TooManyError, WrongLoginError
from broker.auth.floods import Floods
from broker.auth.passwords import _NOBODY, Passwords
from policies.encoding import digest
from policies.limits import (
    LOGIN_BUCKETS,
    LOGIN_FORGET_S,
    LOGIN_FREE_TRIES,
    LOGIN_PAUSE_MAX_S,
    PASSWORD_HASHES,
    PASSWORD_WAITING,
)
from tests.brokersim import HandClock, SeedEntropy, open_house
from tests.loginsim import CHEAP, cheap_passwords, log_in

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

WORD = "correct horse battery"
HERE, THERE = "192.0.2.1", "198.51.100.1"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        cheap_passwords(opened)
        login = (await log_in(opened, "alice")).login
        await opened.services.auth.account.set_password(login, WORD, request=digest(b""))
        yield opened


async def wrong(house: House, name: str, address: str = THERE) -> None:
    with pytest.raises(WrongLoginError):
        await house.services.auth.log_in(name, "another password", address=address)


async def test_the_right_password_lets_its_person_in(house: House) -> None:
    opened = await house.services.auth.log_in("alice", WORD, address=HERE)
    assert (opened.login.person.name, opened.login.how, opened.login.stepped_ms) == (
        "alice",
        "password",
        house.clock.ms,
    )


@pytest.mark.parametrize("name", ["alice", "bob", "nobody-here", "", "x" * 300, "\u0000", "alice "])
async def test_each_try_costs_one_hash_and_tells_nothing(house: House, name: str) -> None:
    passwords = house.services.auth.passwords
    before = passwords.hashed
    with pytest.raises(WrongLoginError) as caught:
        await house.services.auth.log_in(name, "another password", address=THERE)
    assert passwords.hashed == before + 1
    assert caught.value.as_dict() == {
        "code": "auth.wrong",
        "clause": None,
        "need": "a name and its password",
        "found": "something else",
        "remedy": "try again; ask an operator for a new link",
    }


async def test_the_hash_for_nobody_costs_what_a_real_one_does() -> None:
    assert not PasswordHasher().check_needs_rehash(_NOBODY)
    assert not await Passwords(CHEAP).verify(None, "anything")


@pytest.mark.parametrize(
    ("password", "fits"),
    [
        *(("abcde" * 2 + "x", False), ("abcde" * 2 + "xy", True)),
        *(("abcde" * 51 + "x", True), ("abcde" * 51 + "xy", False), ("", False)),
        *(("x" * 12, False), ("abcd" * 3, False), ("\uff21A" * 6 + "bcd", False), ("ぱすわど語" * 3, True)),
    ],
)
async def test_a_password_has_twelve_characters_of_any_kind_and_five_different_ones(
    password: str, fits: bool
) -> None:
    if fits:
        assert await Passwords(CHEAP).verify(await Passwords(CHEAP).hash(password), password)
    else:
        with pytest.raises(PasswordWeakError):
            await Passwords(CHEAP).hash(password)


async def test_the_same_keys_give_the_same_password_on_every_keyboard() -> None:
    passwords = Passwords(CHEAP)
    kept = await passwords.hash("パスワードABC\uff11\uff12\uff13 é")
    assert await passwords.verify(kept, "パスワード\uff21\uff22\uff23123 e\u0301")
    assert not await passwords.verify(kept, "パスワードabc123 e\u0301")


async def test_half_of_a_character_is_no_password() -> None:
    with pytest.raises(PasswordWeakError):
        await Passwords(CHEAP).verify(None, "\ud800" * 12)


async def test_a_weaker_hash_is_made_anew_at_the_next_login(house: House) -> None:
    auth = house.services.auth
    old = auth.holdings.of("alice")[0].key
    auth.passwords = Passwords(PasswordHasher(time_cost=2, memory_cost=16, parallelism=1))
    await auth.log_in("alice", WORD, address=HERE)
    new = auth.holdings.of("alice")[0].key
    assert new != old
    assert b"m=16,t=2" in new
    await auth.log_in("alice", WORD, address=HERE)
    assert auth.holdings.of("alice")[0].key == new


async def test_two_hashes_run_at_a_time_and_more_than_so_many_do_not_wait() -> None:
    running, most, go = 0, 0, asyncio.Event()
    passwords = Passwords(CHEAP, nobody=CHEAP.hash("nobody's"))

    async def hold() -> None:
        nonlocal running, most
        async with passwords._slots:
            running += 1
            most = max(most, running)
            await go.wait()
            running -= 1

    holders = [asyncio.create_task(hold()) for _ in range(PASSWORD_HASHES + 1)]
    await asyncio.sleep(0)
    assert most == PASSWORD_HASHES
    tries = [
        asyncio.create_task(passwords.verify(None, "x")) for _ in range(PASSWORD_HASHES + PASSWORD_WAITING)
    ]
    await asyncio.sleep(0)
    with pytest.raises(TooManyError) as caught:
        await passwords.verify(None, "x")
    assert caught.value.retry_after_s > 0
    go.set()
    assert await asyncio.gather(*tries) == [False] * len(tries)
    await asyncio.gather(*holders)


async def test_after_five_wrong_passwords_each_next_one_waits_twice_as_long(house: House) -> None:
    for _ in range(LOGIN_FREE_TRIES):
        await wrong(house, "alice")
    waits = []
    for _ in range(12):
        with pytest.raises(TooManyError) as caught:
            await house.services.auth.log_in("alice", "another password", address=THERE)
        waits.append(caught.value.retry_after_s)
        house.clock.ms += caught.value.retry_after_s * 1_000
        await wrong(house, "alice")
    assert waits == [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, LOGIN_PAUSE_MAX_S, LOGIN_PAUSE_MAX_S]


async def test_a_try_that_comes_too_early_costs_no_hash_even_with_the_right_password(house: House) -> None:
    for _ in range(LOGIN_FREE_TRIES):
        await wrong(house, "alice")
    before = house.services.auth.passwords.hashed
    with pytest.raises(TooManyError):
        await house.services.auth.log_in("alice", WORD, address=THERE)
    assert house.services.auth.passwords.hashed == before


async def test_whoever_floods_a_name_does_not_keep_its_person_out_where_they_were_before(
    house: House,
) -> None:
    await house.services.auth.log_in("alice", WORD, address=HERE)
    for at in range(20):
        with pytest.raises((WrongLoginError, TooManyError)):
            await house.services.auth.log_in("alice", "another password", address=f"198.51.100.{at}")
    assert (await house.services.auth.log_in("alice", WORD, address=HERE)).login


async def test_many_tries_at_the_same_moment_are_all_counted(house: House) -> None:
    tries = [house.services.auth.log_in("alice", f"another password {at}", address=THERE) for at in range(12)]
    found = await asyncio.gather(*tries, return_exceptions=True)
    assert [type(one) for one in found].count(WrongLoginError) == LOGIN_FREE_TRIES


async def test_a_flood_over_a_whole_network_of_six_is_one_address() -> None:
    floods = Floods(clock=HandClock(), entropy=SeedEntropy())
    for at in range(LOGIN_FREE_TRIES):
        floods.tried(f"name-{at}", f"2001:db8:0:1::{at + 1:x}", known=False)
    with pytest.raises(TooManyError):
        floods.check("another-name", "2001:db8:0:1:ffff::1", known=False)
    floods.check("another-name", "2001:db8:0:2::1", known=False)


async def test_memory_is_bounded_whatever_strangers_try() -> None:
    floods = Floods(clock=HandClock(), entropy=SeedEntropy())
    for at in range(20_000):
        floods.tried(f"name-{at}", f"10.{at >> 16}.{at >> 8 & 255}.{at & 255}", known=False)
    assert len(floods._counts) <= 2 * LOGIN_BUCKETS
    floods.worked("alice", HERE)
    floods.check("alice", HERE, known=True)


async def test_an_hour_without_a_wrong_password_begins_the_count_anew() -> None:
    clock = HandClock()
    floods = Floods(clock=clock, entropy=SeedEntropy())
    for _ in range(30):
        floods.tried("alice", HERE, known=True)
    assert floods.paused == 2
    clock.ms += LOGIN_FORGET_S * 1_000
    floods.check("alice", HERE, known=True)
    assert floods.paused == 0
