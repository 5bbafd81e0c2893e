# SPDX-License-Identifier: Apache-2.0
"""Logging in at an identity provider, and every way in which its word proves nothing."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
from joserfc.jwk import ECKey

from broker.auth.oidc import Oidc
from broker.auth.people import Addition, add_person
from broker.keyfiles import write_private
from policies.encoding import digest
from tests.brokersim import open_house
from tests.loginsim import CONSOLE, Browser, named_console
from tests.oidcsim import CLIENT, ISSUER, SECRET, Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from tests.brokersim import House


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    folder = named_console(tmp_path / "broker")
    secret, settings = folder / "keys" / "oidc-secret", folder / "broker.toml"
    write_private(secret, SECRET.encode() + b"\n")
    more = f'oidc.issuer = "{ISSUER}"\noidc.client_id = "{CLIENT}"\noidc.client_secret_file = "{secret}"\n'
    settings.write_text(more + settings.read_text())
    async with open_house(folder) as opened:
        wanted = Addition(name="carol", role="auditor", issuer=ISSUER, sub="8f14e45f")
        await opened.services.writer.run(
            lambda session, tx: add_person(
                session, tx, wanted, by="alice", request=digest(b"c"), now_ms=opened.clock.ms
            )
        )
        yield opened


def provide(house: House, **said: Any) -> Provider:
    provider = Provider(now_s=house.clock.ms // 1000, **said)
    auth = house.services.auth
    auth.oidc = Oidc(auth.settings.oidc, console_url=CONSOLE, clock=house.clock, transport=provider.transport)
    return provider


async def go(house: House, provider: Provider, **changes: str) -> tuple[Browser, Any]:
    """To the provider and back, as a browser goes: the way back comes from another site."""
    browser = Browser(house)
    there = await browser.get("/console/oidc/go", headers={"sec-fetch-site": "same-origin"})
    assert there.status_code == 303, there.text
    back = provider.authorise(there.headers["location"], **changes)
    assert back.startswith(CONSOLE + "/console/oidc/back")
    query = urlsplit(back).query
    return browser, await browser.get(f"/console/oidc/back?{query}", headers={"sec-fetch-site": "cross-site"})


async def test_a_person_who_was_added_with_their_name_there_comes_in(house: House) -> None:
    browser, page = await go(house, provide(house))
    assert page.status_code == 200
    assert page.headers["refresh"] == "0; url=/audit"
    assert (browser.login.person.name, browser.login.how, browser.login.stepped_ms) == ("carol", "oidc", None)
    assert "__Host-iriai-oidc" not in browser.cookies


async def test_the_cookie_for_the_way_is_lax_and_short_and_that_of_the_login_strict(house: House) -> None:
    browser = Browser(house)
    provider = provide(house)
    there = await browser.get("/console/oidc/go")
    assert "samesite=lax" in there.headers["set-cookie"].lower()
    assert "max-age=600" in there.headers["set-cookie"].lower()
    back = provider.authorise(there.headers["location"])
    page = await browser.get("/console/oidc/back?" + urlsplit(back).query)
    login = next(one for one in page.headers.get_list("set-cookie") if one.startswith("__Host-iriai="))
    assert "samesite=strict" in login.lower()
    assert "httponly" in login.lower()
    assert "secure" in login.lower()


async def test_somebody_whom_nobody_added_does_not_come_in(house: House) -> None:
    _, page = await go(house, provide(house, sub="somebody-else"))
    assert page.status_code == 401
    assert "__Host-iriai=" not in str(page.headers)


@pytest.mark.parametrize(
    "claims",
    [
        {"iss": "https://evil.example"},
        {"aud": "another"},
        {"aud": [CLIENT, "another"]},
        {"azp": "another"},
        {"nonce": "another"},
        {"nonce": None},
        {"exp": 1_700_000_000},
        {"iat": 1_900_000_000, "exp": 1_900_000_300},
        {"exp": None},
        {"sub": None},
        {"sub": ""},
    ],
    ids=str,
)
async def test_a_token_that_says_something_else_proves_nothing(house: House, claims: dict[str, Any]) -> None:
    _, page = await go(house, provide(house, claims=claims))
    assert page.status_code == 502
    assert "auth.oidc" in page.text


async def test_a_token_without_a_signature_proves_nothing(house: House) -> None:
    _, page = await go(house, provide(house, algorithm="none"))
    assert page.status_code == 502


async def test_a_token_that_another_key_signed_proves_nothing(house: House) -> None:
    other = ECKey.generate_key("P-256", {"kid": "one", "use": "sig", "alg": "ES256"})
    _, page = await go(house, provide(house, published=[other]))
    assert page.status_code == 502


async def test_keys_that_the_provider_changed_are_read_again_once(house: House) -> None:
    provider = provide(house)
    assert (await go(house, provider))[1].status_code == 200
    provider.key = ECKey.generate_key("P-256", {"kid": "two", "use": "sig", "alg": "ES256"})
    assert (await go(house, provider))[1].status_code == 200
    assert provider.asked.count("/realms/pool/jwks_uri") == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"state": "another"},
        {"iss": "https://evil.example"},
        {"code": "", "error": "access_denied"},
        {"code": "stolen"},
    ],
    ids=str,
)
async def test_an_answer_to_somebody_elses_login_is_none(house: House, changes: dict[str, str]) -> None:
    _, page = await go(house, provide(house), **changes)
    assert page.status_code == 502


async def test_the_way_back_is_too_late_after_ten_minutes_and_works_once(house: House) -> None:
    provider, browser = provide(house), Browser(house)
    there = await browser.get("/console/oidc/go")
    query = urlsplit(provider.authorise(there.headers["location"])).query
    kept = dict(browser.cookies)
    assert (await browser.get(f"/console/oidc/back?{query}")).status_code == 200
    browser.cookies = kept
    assert (await browser.get(f"/console/oidc/back?{query}")).status_code == 403
    there = await browser.get("/console/oidc/go")
    query = urlsplit(provider.authorise(there.headers["location"])).query
    house.clock.ms += 600_000
    assert (await browser.get(f"/console/oidc/back?{query}")).status_code == 403


async def test_a_way_back_without_its_cookie_leads_nowhere(house: House) -> None:
    provider, browser = provide(house), Browser(house)
    there = await browser.get("/console/oidc/go")
    query = urlsplit(provider.authorise(there.headers["location"])).query
    assert (await Browser(house).get(f"/console/oidc/back?{query}")).status_code == 403


@pytest.mark.parametrize(
    "document",
    [
        {"issuer": "https://evil.example"},
        {"token_endpoint": "http://login.example/token"},
        {"jwks_uri": None},
    ],
    ids=str,
)
async def test_another_provider_than_the_configured_one_is_refused(
    house: House, document: dict[str, Any]
) -> None:
    provide(house, document=document)
    assert (await Browser(house).get("/console/oidc/go")).status_code == 502


async def test_without_a_provider_there_is_no_way_to_one(tmp_path: Path) -> None:
    async with open_house(named_console(tmp_path / "broker")) as house:
        assert (await Browser(house).get("/console/oidc/go")).status_code == 404
        assert (await Browser(house).get("/console/oidc/back?code=x")).status_code == 404
        assert "/console/oidc/go" not in (await Browser(house).get("/console/login")).text


def test_a_broker_loads_nothing_of_it_before_the_first_use() -> None:
    code = "import sys, broker.app; print([n for n in sys.modules if n.split('.')[0] in {'joserfc', 'authlib', 'webauthn', 'OpenSSL'}])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
