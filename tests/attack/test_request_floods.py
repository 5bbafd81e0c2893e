# SPDX-License-Identifier: Apache-2.0
"""Somebody asks without end: from one address or many, with a key or without. Only they are refused, and cheaply."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from broker import admission
from broker.console.pages import ERROR_ROUTE
from policies.encoding import canonical
from tests.brokersim import DOCUMENTED, URL, open_house
from tests.loginsim import log_in, named_console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

ALL = 12
"""Requests at once of an address, and of the static log; a key has half of it."""


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with open_house(named_console(tmp_path / "broker")) as opened:
        reserves = {"CLAIM": 0, "HEALTH": 0}  # tests/attack/test_shared_address.py looks at them
        for name, value in ({"ADDRESS": ALL, "KEY": ALL // 2, "LOG": ALL} | reserves).items():
            monkeypatch.setattr(admission, f"{name}_BURST", value)
            monkeypatch.setattr(admission, f"{name}_PER_S", 1)
        opened.services.admission.__init__(opened.clock)  # type: ignore[misc]
        yield opened


def at(house: House, address: str) -> httpx.AsyncClient:
    """Requests from an address."""
    transport = httpx.ASGITransport(app=house.port, raise_app_exceptions=False, client=(address, 1))
    return httpx.AsyncClient(transport=transport, base_url=URL, event_hooks=DOCUMENTED)


async def flood(client: httpx.AsyncClient, path: str, times: int = 2 * ALL, **more: Any) -> list[int]:
    return [(await client.get(path, **more)).status_code for _ in range(times)]


async def test_an_address_that_floods_is_refused_and_others_are_not(house):
    async with at(house, "198.51.100.7") as attacker, at(house, "198.51.100.8") as other:
        assert await flood(attacker, "/api/v1/nothing") == [404] * ALL + [429] * ALL
        assert (await other.get("/healthz")).status_code == 200
        house.clock.ms += 1_000
        assert await flood(attacker, "/healthz", 2) == [200, 429]


async def test_the_refusal_says_what_to_do_and_when(house):
    async with at(house, "198.51.100.7") as attacker:
        await flood(attacker, "/healthz")
        answer = await attacker.get("/healthz", headers={"x-forwarded-for": "203.0.113.9"})
    assert (answer.status_code, answer.headers["retry-after"]) == (429, "1")
    assert answer.headers["content-type"] == "application/problem+json"
    said = answer.json()
    assert (said["code"], said["exit_code"]) == ("request.rate", 75)
    assert said["need"]
    assert said["found"]
    assert "1 s" in said["remedy"]


async def test_one_network_of_ipv6_is_one_address(house):
    found: list[int] = []
    for number in range(ALL + 2):
        async with at(house, f"2001:db8::{number:x}") as one:
            found.append((await one.get("/healthz")).status_code)
    assert found == [200] * ALL + [429] * 2
    async with at(house, "2001:db8:0:1::1") as neighbour:
        assert (await neighbour.get("/healthz")).status_code == 200


async def test_a_flood_from_many_addresses_uses_up_nobodys_allowance_and_no_memory(house):
    kept = house.services.admission._addresses[False]
    kept._most = 8
    async with at(house, "198.51.100.8") as other:
        for number in range(40):
            async with at(house, f"203.0.113.{number}") as one:
                assert (await one.get("/healthz")).status_code == 200
        assert (await other.get("/healthz")).status_code == 200
    assert len(kept) == 8


async def test_a_key_that_floods_is_refused_from_wherever_and_other_keys_behind_its_address_are_not(house):
    path = "/operator/organisations"
    answers = [(await house.alice.get(path)).status_code for _ in range(ALL)]
    assert answers == [200] * (ALL // 2) + [429] * (ALL // 2)
    assert (await house.bob.get(path)).status_code == 200
    async with at(house, "198.51.100.9") as elsewhere:
        refused = await elsewhere.send(house.alice.signed("GET", path))
    assert (refused.status_code, refused.json()["code"]) == (429, "request.rate")
    house.clock.ms += 1_000
    assert (await house.alice.get(path)).status_code == 200


async def test_nodes_behind_one_address_pay_for_themselves(house):
    for _ in range(ALL // 2):
        for who in (house.alice, house.bob):
            assert (await who.get("/operator/organisations")).status_code == 200
    assert (await house.http.get("/healthz")).status_code == 200  # the address has paid for nothing


async def test_whoever_floods_with_a_good_key_is_refused_before_anything_is_verified(house, monkeypatch):
    for _ in range(2 * ALL):
        await house.alice.get("/operator/organisations")

    def verified(**_: object) -> None:
        raise AssertionError

    monkeypatch.setattr("broker.api.signed.verify_head", verified)
    assert (await house.alice.get("/operator/organisations")).status_code == 429


async def test_nobody_uses_up_the_allowance_of_a_key_without_it(house):
    good = house.bob.signed("GET", "/operator/organisations")
    assert (await house.http.send(good)).status_code == 200
    async with at(house, "198.51.100.7") as attacker:
        for _ in range(ALL):
            assert (await attacker.send(good)).status_code in {409, 429}  # a copy
            forged = house.bob.signed("GET", "/operator/organisations")
            forged.headers["signature"] = good.headers["signature"]
            assert (await attacker.send(forged)).status_code in {401, 429}
    assert (await house.bob.get("/operator/organisations")).status_code == 200


async def test_changes_are_refused_too_and_happen_once_they_are_sent_again(house):
    body = {"legal_name": "Kita GmbH", "country": "DE", "group": "kita"}
    for _ in range(ALL // 2):
        await house.alice.get("/operator/organisations")
    sent = {"idempotency_key": "one"}
    assert (await house.alice.post("/operator/invites", body, **sent)).status_code == 429
    house.clock.ms += 1_000
    assert (await house.alice.post("/operator/invites", body, **sent)).status_code == 201


async def test_the_static_log_has_an_allowance_of_its_own(house):
    async with at(house, "198.51.100.7") as reader:
        assert await flood(reader, "/log/policy") == [200] * ALL + [429] * ALL
        assert (await reader.get("/healthz")).status_code == 200


async def test_joining_with_no_key_of_ours_is_paid_by_the_address(house):
    async with at(house, "198.51.100.7") as attacker:
        found = [
            (await attacker.post("/api/v1/membership/join", content=canonical({}))).status_code
            for _ in range(ALL + 1)
        ]
    assert found[-1] == 429
    assert 429 not in found[:-1]


# --- people ---


@pytest.mark.parametrize(("lang", "words"), [("en", "Too many requests"), ("ja", "リクエストが多すぎます")])
async def test_people_get_a_page_in_their_language_that_reads_nothing(house, monkeypatch, lang, words):
    async with at(house, "198.51.100.7") as attacker:
        assert await flood(attacker, "/console/login") == [200] * ALL + [429] * ALL
        monkeypatch.setattr(house.services.auth, "find", None)
        monkeypatch.setattr(house.services.store, "read", None)
        page = await attacker.get("/console/login", headers={"accept-language": lang})
        facts = await attacker.get("/console?format=json")
    assert (page.status_code, page.headers["retry-after"]) == (429, "1")
    assert words in page.text
    assert f'lang="{lang}"' in page.text
    assert "request.rate" in page.text
    assert f'data-screen="{ERROR_ROUTE.name}"' in page.text
    assert (facts.status_code, facts.json()["error"]["code"]) == (429, "request.rate")


async def test_a_person_pays_for_themselves_and_does_not_hinder_who_sits_beside_them(house):
    alice, bob = await log_in(house, "alice"), await log_in(house, "bob")
    asked = [(await alice.get("/console/account")).status_code for _ in range(ALL)]
    assert asked == [200] * (ALL // 2) + [429] * (ALL // 2)
    assert (await bob.get("/console/account")).status_code == 200
    alice.address = "198.51.100.9"
    page = await alice.get("/console/account")
    assert (page.status_code, page.headers["retry-after"]) == (429, "1")
    assert "request.rate" in page.text
    assert "alice" not in page.text


async def test_a_form_that_came_too_often_may_be_sent_again_as_it_is(house):
    alice = await log_in(house, "alice")
    form = {"lang": "ja", "once": "0" * 32}
    found = [(await alice.post("/console/account/language", **form)).status_code for _ in range(ALL // 2 + 1)]
    assert found == [303] * (ALL // 2) + [429]
    house.clock.ms += 1_000
    assert (await alice.post("/console/account/language", **form)).status_code == 303


# --- the engine ---


async def test_the_engine_counts_what_it_refuses_and_nothing_else(house):
    answers = [200]

    async def fleet(_scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": answers[0], "headers": []})
        await send({"type": "http.response.body", "body": b""})

    house.port._fleet = fleet
    path = "/v1/fleet/pull-messages"
    async with at(house, "198.51.100.7") as node, at(house, "198.51.100.8") as other:
        assert await flood(node, path, 5 * ALL) == [200] * 5 * ALL
        answers[0] = 503  # a node's own requests, too many at a time
        assert await flood(node, path, 2 * ALL) == [503] * 2 * ALL
        answers[0] = 401
        assert await flood(node, path, 2 * ALL) == [401] * ALL + [503] * ALL
        refused = await node.get(path)
        assert (refused.headers["retry-after"], refused.content) == ("1", b"")
        answers[0] = 200
        assert (await other.get(path)).status_code == 200
