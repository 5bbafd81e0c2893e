# SPDX-License-Identifier: Apache-2.0
"""Somebody tries a person's name from everywhere, so that its owner cannot get in: they get in all the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from broker.auth.devices import DEVICE, Devices
from broker.auth.errors import TooManyError
from broker.auth.floods import Floods
from policies.encoding import digest
from policies.identity import SigningKey
from policies.limits import (
    DEVICE_PEOPLE,
    LOGIN_ADDRESSES,
    LOGIN_BUCKETS,
    LOGIN_DEVICES,
    LOGIN_FREE_TRIES,
    LOGIN_PAUSE_MAX_S,
)
from tests.brokersim import HandClock, SeedEntropy, open_house
from tests.loginsim import Browser, cheap_passwords, log_in, named_console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

WORD = "correct horse battery"
ELSEWHERE = "203.0.113.99"
OFFICE = "192.0.2.7"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(named_console(tmp_path / "broker")) as opened:
        cheap_passwords(opened)
        for name in ("alice", "bob"):
            login = (await log_in(opened, name)).login
            await opened.services.auth.account.set_password(login, WORD, request=digest(name.encode()))
        yield opened


async def sign_in(browser: Browser, name: str = "alice", password: str = WORD) -> int:
    return (await browser.post("/console/login", username=name, password=password)).status_code


async def known(house: House, name: str = "alice") -> Browser:
    """A browser in which somebody logged in once and out again; only its mark is left."""
    browser = Browser(house)
    assert await sign_in(browser, name) == 303
    return Browser(house, cookies={DEVICE: browser.cookies[DEVICE]}, address=ELSEWHERE)


async def tries(house: House, name: str, address: str) -> list[int]:
    """What wrong passwords for a name answer, one after the other."""
    browser = Browser(house, address=address)
    return [await sign_in(browser, name, WORD[::-1]) for _ in range(LOGIN_FREE_TRIES + 1)]


def attacked(house: House, name: str = "alice") -> None:
    """Wrong passwords from so many addresses that the name's own pause is as long as it gets."""
    for number in range(40):
        house.services.auth.floods.tried(name, f"198.51.100.{number}", known=True)


async def test_a_browser_that_was_here_before_gets_in_from_an_address_that_was_never_used(house):
    browser, stranger = await known(house), Browser(house, address="203.0.113.98")
    attacked(house)
    assert await sign_in(stranger) == 429
    assert await sign_in(browser) == 303
    assert await sign_in(Browser(house, address="203.0.113.97")) == 429


NAMES = ("alice", "bob", "nobody-here", "zz")
"""Somebody who logged in from the address, somebody who did not, and two names that nobody has."""
FULL = [401] * LOGIN_FREE_TRIES + [429]


@pytest.mark.parametrize("place", [OFFICE, ELSEWHERE])
async def test_after_a_flood_of_made_up_names_every_name_answers_alike(house, place):
    assert await sign_in(Browser(house, address=OFFICE)) == 303
    for number in range(2 * LOGIN_FREE_TRIES):
        await sign_in(Browser(house, address=place), f"zz{number}", WORD[::-1])
    found = {name: await tries(house, name, place) for name in NAMES}
    expected = FULL if place == OFFICE else [429] * len(FULL)
    assert found == dict.fromkeys(NAMES, expected)


@pytest.mark.parametrize("place", [OFFICE, ELSEWHERE])
async def test_after_a_flood_of_names_from_elsewhere_every_name_answers_alike(house, place):
    assert await sign_in(Browser(house, address=OFFICE)) == 303
    for name in NAMES:
        for number in range(LOGIN_FREE_TRIES + 1):
            await sign_in(Browser(house, address=f"198.51.100.{number}"), name, WORD[::-1])
    found = {name: await tries(house, name, place) for name in NAMES}
    expected = FULL if place == OFFICE else [429] * len(FULL)
    assert found == dict.fromkeys(NAMES, expected)


async def test_whoever_floods_an_address_does_not_keep_out_who_logged_in_from_there(house):
    assert await sign_in(Browser(house, address=OFFICE)) == 303
    attacked(house)
    for number in range(40):
        house.services.auth.floods.tried(f"zz{number}", OFFICE, known=False)
        house.services.auth.floods.tried("bob", OFFICE, known=True)
    assert await sign_in(Browser(house, address=OFFICE)) == 303  # no mark, no session
    assert await sign_in(Browser(house, address=OFFICE), "bob") == 429


def test_an_address_from_which_nobody_logged_in_lately_counts_for_all_names_again():
    floods = Floods(clock=HandClock(), entropy=SeedEntropy())
    floods.worked("alice", OFFICE)
    for number in range(LOGIN_ADDRESSES):
        floods.worked("alice", f"198.51.100.{number}")
    for number in range(LOGIN_FREE_TRIES):
        floods.tried(f"zz{number}", OFFICE, known=False)
    for name, known_ in (("alice", True), ("bob", True), ("zz", False)):
        with pytest.raises(TooManyError):
            floods.check(name, OFFICE, known=known_)
    assert len(floods._places) == LOGIN_ADDRESSES


def test_memory_is_bounded_whatever_strangers_try_where_people_log_in():
    floods = Floods(clock=HandClock(), entropy=SeedEntropy())
    floods.worked("alice", OFFICE)
    for number in range(20_000):
        floods.tried(f"zz{number}", OFFICE, known=False)
    assert len(floods._counts) <= LOGIN_BUCKETS


async def test_the_mark_outlives_a_start_of_the_broker(house, tmp_path):
    browser = await known(house)
    house.services.close()
    async with open_house(tmp_path / "broker") as again:
        cheap_passwords(again)
        attacked(again)
        assert await sign_in(Browser(again, cookies=browser.cookies, address=ELSEWHERE)) == 303


async def test_a_stolen_mark_lets_nobody_in_and_is_worth_as_many_tries_as_any_address(house):
    thief = await known(house)
    assert (await thief.get("/console/account")).status_code == 303  # to the login page
    found = [await sign_in(thief, password=WORD[::-1]) for _ in range(LOGIN_FREE_TRIES + 1)]
    assert found == [401] * LOGIN_FREE_TRIES + [429]
    thief.address = "203.0.113.96"
    assert await sign_in(thief) == 429
    assert await sign_in(Browser(house, address="203.0.113.95")) == 303  # its owner, elsewhere


async def test_the_mark_of_one_person_is_worth_nothing_for_another(house):
    browser = await known(house, "bob")
    attacked(house)
    assert await sign_in(browser, "alice") == 429


@pytest.mark.parametrize(
    "change",
    [
        lambda mark: "",
        lambda mark: mark[:-1],
        lambda mark: ("B" if mark[0] == "A" else "A") + mark[1:],
        lambda mark: mark[:-1] + ("B" if mark[-1] == "A" else "A"),
        lambda mark: "ü" * 43,
        lambda mark: "." * 20_000,
        lambda mark: mark + "=",
        lambda mark: ".".join(["A" * 43] * DEVICE_PEOPLE + [mark]),
    ],
)
async def test_a_mark_that_nobody_gave_is_none(house, change):
    mark = (await known(house)).cookies[DEVICE]
    assert house.services.auth.devices.of("alice", mark)
    assert house.services.auth.devices.of("alice", change(mark)) is None


async def test_a_browser_keeps_its_mark_and_those_of_the_people_before(house):
    browser = Browser(house)
    await sign_in(browser)
    first = browser.cookies[DEVICE]
    await sign_in(browser)
    assert browser.cookies[DEVICE] == first
    await sign_in(browser, "bob")
    both = browser.cookies[DEVICE]
    assert both.split(".")[1:] == [first]
    devices = house.services.auth.devices
    assert devices.of("alice", both)
    assert devices.of("bob", both)
    for number in range(9):
        both = devices.cookie(f"person-{number}", both)
    assert len(both.split(".")) == DEVICE_PEOPLE


async def test_the_cookie_is_for_this_console_alone_and_tells_no_name(house):
    answer = await Browser(house).post("/console/login", username="alice", password=WORD)
    line = next(one for one in answer.headers.get_list("set-cookie") if one.startswith(DEVICE)).lower()
    assert all(word in line for word in ("httponly", "secure", "samesite=strict", "path=/", "max-age="))
    assert "domain" not in line
    assert "alice" not in line


async def test_whoever_is_signed_in_confirms_with_a_password_however_many_try_the_name(house):
    browser = await known(house)
    assert await sign_in(browser) == 303
    login = browser.login
    attacked(house)
    confirmed = await house.services.auth.confirmations.confirm(
        login, b"subject", password=WORD, address="203.0.113.94"
    )
    assert confirmed is not None


async def test_a_stolen_session_has_no_more_tries_at_the_password_than_any_address(house):
    login = (await log_in(house, "alice")).login
    floods = house.services.auth.floods
    for number in range(LOGIN_FREE_TRIES):
        floods.tried("alice", f"198.51.100.{number}", known=True, own=login.id)
    with pytest.raises(TooManyError):
        floods.check("alice", "203.0.113.93", known=True, own=login.id)


async def test_memory_is_bounded_whatever_marks_somebody_collects(house):
    floods = house.services.auth.floods
    for number in range(5_000):
        floods.tried("alice", ELSEWHERE, known=True, own=str(number))
    assert len(floods._counts) <= LOGIN_DEVICES
    assert floods.paused > 0
    house.clock.ms += LOGIN_PAUSE_MAX_S * 1_000
    assert floods.paused == 0


def test_another_brokers_mark_is_none_here():
    ours, theirs = (Devices(SigningKey.from_seed(bytes([one]) * 32), SeedEntropy()) for one in (1, 2))
    assert theirs.of("alice", ours.cookie("alice", "")) is None
