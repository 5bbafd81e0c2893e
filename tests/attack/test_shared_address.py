# SPDX-License-Identifier: Apache-2.0
"""Somebody without a key floods from the address that nodes, operators and monitors have too: behind a proxy all do."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import httpx
import pytest

from broker import admission
from broker.admission import LINE, Line
from policies.limits import ADDRESS_PER_S, CLAIM_BURST, CLAIM_PER_S, HEALTH_PER_S, KEY_PER_S
from tests.brokersim import URL, open_house
from tests.fleetsim import RawNode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House

ALL = 12
"""Requests at once of an address; a key has half of it, and what claims to be proved a quarter."""
LIMITS = {"ADDRESS": ALL, "KEY": ALL // 2, "LOG": ALL, "CLAIM": ALL // 4, "HEALTH": 2}
READ = "/operator/organisations"
PULL = "/v1/fleet/pull-messages"
FORGED = {"signature": "sig1=:AAAA:", "signature-input": "sig1=()"}


@pytest.fixture
async def house(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as opened:
        for name, value in LIMITS.items():
            monkeypatch.setattr(admission, f"{name}_BURST", value)
            monkeypatch.setattr(admission, f"{name}_PER_S", 1)
        opened.services.admission.__init__(opened.clock)  # type: ignore[misc]
        yield opened


def connection(house: House) -> httpx.AsyncClient:
    """One connection from the address that all share, as `broker.connections` marks its requests."""
    line = Line()

    async def port(scope: Any, receive: Any, send: Any) -> None:
        scope[LINE] = line
        await house.port(scope, receive, send)

    return httpx.AsyncClient(transport=httpx.ASGITransport(app=port), base_url=URL)


async def flood(client: httpx.AsyncClient, path: str = "/api/v1/nothing", **more: Any) -> list[int]:
    return [(await client.get(path, **more)).status_code for _ in range(3 * ALL)]


async def ask(client: httpx.AsyncClient, house: House, who: str = "alice") -> int:
    return (await client.send(getattr(house, who).signed("GET", READ))).status_code


async def test_an_unsigned_flood_does_not_shut_out_a_new_signed_connection(house):
    async with connection(house) as attacker, connection(house) as operator:
        assert (await flood(attacker))[-1] == 429
        assert [await ask(operator, house) for _ in range(ALL // 2)] == [200] * (ALL // 2)
        assert (await flood(attacker))[0] == 429  # nothing came free for whoever floods


async def test_forged_signatures_hinder_new_connections_and_none_that_proved_somebody(house):
    async with connection(house) as attacker, connection(house) as before, connection(house) as late:
        assert await ask(before, house) == 200
        refused = await flood(attacker, "/api/v1" + READ, headers=FORGED)
        assert set(refused) == {401, 429}
        assert refused.count(401) == ALL + ALL // 4  # both allowances of the address, and no more
        assert await ask(late, house, "bob") == 429
        assert [await ask(before, house) for _ in range(ALL // 2 - 1)] == [200] * (ALL // 2 - 1)


async def test_a_token_or_a_cookie_is_looked_at_in_a_flood_too(house):
    async with connection(house) as attacker, connection(house) as person:
        await flood(attacker)
        for header in ({"authorization": "Bearer x"}, {"cookie": "__Host-iriai=x"}):
            assert (await person.get("/console/login", headers=header)).status_code == 200
        assert (await person.get("/console/login")).status_code == 429


async def test_a_proved_connection_floods_on_its_own_account_and_then_on_its_address(house):
    """Whoever has a key gets no way around the bounds by it."""
    async with connection(house) as insider, connection(house) as other:
        assert await ask(insider, house) == 200
        served = (await flood(insider)).count(404)
        assert served <= ALL // 2 + ALL
        assert await ask(other, house, "bob") == 200
        assert await ask(insider, house) == 200  # what was not signed took nothing of the key's


async def test_a_key_that_floods_on_a_proved_connection_is_refused_as_on_any(house):
    async with connection(house) as insider, connection(house) as other:
        found = [await ask(insider, house) for _ in range(4 * ALL)]
        assert found == [200] * (ALL // 2) + [429] * (4 * ALL - ALL // 2)
        monitored = await other.get("/healthz")
        assert monitored.status_code == 200
        house.clock.ms += 3_000
        assert await ask(insider, house) == 200


async def test_proof_does_not_pass_to_another_connection(house):
    async with connection(house) as operator, connection(house) as attacker:
        assert await ask(operator, house) == 200
        assert (await flood(attacker)).count(404) == ALL


async def test_monitors_are_answered_in_a_flood_and_are_bounded_too(house):
    async with connection(house) as attacker, connection(house) as monitor:
        await flood(attacker)
        assert (await monitor.get("/healthz")).status_code == 200
        assert (await monitor.get("/readyz")).status_code in {200, 503}
        assert (await monitor.get("/healthz")).status_code == 429
        house.clock.ms += 1_000
        await flood(attacker)
        assert (await monitor.get("/healthz")).status_code == 200


# --- the engine ---


async def test_refused_requests_of_strangers_do_not_shut_the_engine_for_nodes(house):
    answers = {b"": 401}
    signed = RawNode(None, 0).headers()

    async def fleet(scope: Any, _receive: Any, send: Any) -> None:
        said = dict(scope["headers"]).get(b"flwr-signature", b"")
        good = said == signed["flwr-signature"].encode()
        await send({"type": "http.response.start", "status": answers.get(said, 200 if good else 401)})
        await send({"type": "http.response.body", "body": b""})

    house.port._fleet = fleet
    async with connection(house) as attacker, connection(house) as node, connection(house) as late:
        assert set(await flood(attacker, PULL)) == {401, 503}
        assert (await node.get(PULL, headers=signed)).status_code == 200  # a new one, signed
        assert set(await flood(attacker, PULL, headers={"flwr-signature": "x"})) == {401, 503}
        assert (await node.get(PULL, headers=signed)).status_code == 200  # it was served before
        refused = await late.get(PULL, headers=signed)
        assert (refused.status_code, refused.headers["retry-after"]) == (
            503,
            "1",
        )  # Flower asks again after it
        answers[signed["flwr-signature"].encode()] = 401  # revoked
        assert (await node.get(PULL, headers=signed)).status_code == 401
        assert (await node.get(PULL, headers=signed)).status_code == 503


def test_the_reserves_are_small_beside_what_an_address_has():
    assert CLAIM_PER_S + HEALTH_PER_S < ADDRESS_PER_S // 2
    assert CLAIM_PER_S >= KEY_PER_S
    assert CLAIM_BURST >= 50 * 8  # parties behind one address that come back at once, with all they have
