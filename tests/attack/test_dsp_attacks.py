# SPDX-License-Identifier: Apache-2.0
"""Connectors that lie, guess, flood, or want the broker to call somebody else."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import httpx
import pytest
from sqlalchemy import select

from broker.dataspace.counterparties import Counterparty
from broker.store.tables import dsp_message, dsp_negotiation
from policies.limits import BODY_BYTES_JSON, DSP_COUNTERPARTIES, DSP_MESSAGE_BYTES, DSP_NEGOTIATIONS
from tests.brokersim import statements
from tests.connectorsim import DSP, Connector, Dataspace, open_dataspace, other_terms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def space(tmp_path: Path) -> AsyncIterator[Dataspace]:
    async with open_dataspace(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    body = answer.json()
    assert body["@type"] in {"ContractNegotiationError", "CatalogError"}
    return answer.status_code, body["code"]


def count(space: Dataspace) -> tuple[int, int]:
    with space.house.services.store.read() as session:
        return (
            len(session.execute(select(dsp_negotiation)).all()),
            len(session.execute(select(dsp_message)).all()),
        )


# --- who somebody is ---

PATHS = [
    ("POST", "/catalog/request"),
    ("GET", "/catalog/datasets/x"),
    ("POST", "/negotiations/request"),
    ("GET", "/negotiations/x"),
    ("POST", "/negotiations/x/request"),
    ("POST", "/negotiations/x/events"),
    ("POST", "/negotiations/x/agreement/verification"),
    ("POST", "/negotiations/x/termination"),
]


@pytest.mark.parametrize(("method", "path"), PATHS)
async def test_without_a_good_token_nothing_answers(space, method, path):
    connector = await space.connector()
    good = connector.token
    for header in (
        "",
        "Bearer",
        "Bearer ",
        f"bearer {good}",
        f"Bearer  {good}",
        f"Basic {good}",
        good,
        f"Bearer {good[:-1]}",
        f"Bearer {good}x",
        f"Bearer {good.upper()}",
        "Bearer " + "x" * 100_000,
        "Bearer %s",
    ):
        answer = await connector.send(method, path, {}, authorization=header)
        assert code(answer) == (401, "dsp.token-refused")
        assert good not in answer.text
    assert count(space) == (0, 0)


async def test_the_token_is_asked_for_before_the_body_is_read(space):
    connector = await space.connector()
    body = b"x" * (BODY_BYTES_JSON + 1)
    answer = await connector.send("POST", "/negotiations/request", body, authorization="Bearer no")
    assert code(answer) == (401, "dsp.token-refused")


async def test_every_registered_token_is_compared_and_no_statement_names_one(space):
    for name in ("first", "second", "third"):
        await space.connector(name)
    connector = space.connectors["second"]
    seen: list[str] = []
    with statements(space.house, seen.append):
        assert (await connector.send("GET", "/negotiations/x")).status_code == 404
    assert [one for one in seen if connector.token in one] == []


async def test_a_members_key_and_an_operators_key_are_no_token(space):
    for path in ("/dsp/negotiations/x", "/dsp/catalog/datasets/x"):
        answer = await space.house.alice.get(path)
        assert code(answer) == (401, "dsp.token-refused")


async def test_a_connector_reaches_nothing_else_of_the_broker(space):
    connector = await space.connector()
    for path in ("/contracts", "/operator/dsp/counterparties", "/operator/status", "/runs"):
        answer = await space.house.http.get(
            f"/api/v1{path}", headers={"authorization": f"Bearer {connector.token}"}
        )
        assert answer.status_code in {400, 401}


async def test_a_connector_cannot_speak_for_a_member_by_saying_so(space):
    connector = await space.connector()
    for claim in ({"org": space.org("kita")}, {"assignee": f"iriai:org:{space.org('kita')}"}):
        body = connector.request((await connector.offers())["tier-open"] | claim)
        answer = await connector.send("POST", "/negotiations/request", body | claim)
        assert answer.status_code == 201
    hidden = space.pair("tier-consortium", "kita").offer_id
    body = connector.request((await connector.offers())["tier-open"] | {"@id": hidden})
    assert code(await connector.send("POST", "/negotiations/request", body)) == (404, "request.not-found")


# --- whom the broker calls ---


@pytest.mark.parametrize(
    "address",
    [
        "http://169.254.169.254/latest/meta-data",
        "https://127.0.0.1:7443/api/v1/operator/invites",
        "https://acme.example.evil.example/dsp",
        "https://acme.example/dsp/../admin",
        "https://acme.example/dsp/extra",
        "https://acme.example:8443/dsp",
        "https://acme.example",
        "https://user@acme.example/dsp",
        "file:///etc/passwd",
        "http://acme.example/dsp",
    ],
)
async def test_a_message_cannot_choose_whom_the_broker_calls(space, address):
    connector = await space.connector()
    body = connector.request((await connector.offers())["tier-open"], callbackAddress=address)
    assert code(await connector.send("POST", "/negotiations/request", body)) == (400, "dsp.callback-refused")
    assert connector.requests == []
    assert count(space) == (0, 0)


async def test_a_callback_does_not_follow_a_redirect(space):
    connector = await space.connector()
    called: list[str] = []

    async def redirect(request: httpx.Request) -> httpx.Response:
        called.append(str(request.url))
        return httpx.Response(307, headers={"location": "https://169.254.169.254/latest"})

    connector.handle = redirect
    await connector.begin((await connector.offers())["tier-open"])
    assert len(called) == 1
    assert called[0].startswith("https://acme.example/dsp/negotiations/")


@pytest.mark.parametrize("pid", ["..", ".", "a/../../admin", "a?to=x", "a#x", "a%2F..%2Fadmin", "a;b"])
async def test_a_consumers_pid_stays_one_segment_of_the_callback(space, pid):
    connector = await space.connector()
    body = connector.request((await connector.offers())["tier-open"], consumerPid=pid)
    answer = await connector.send("POST", "/negotiations/request", body)
    if answer.status_code == 201:
        (path, _message) = connector.told[0]
        assert path.startswith("/dsp/negotiations/")
        assert path.count("/") == 4
        assert "?" not in path
        assert path.endswith("/agreement")
    else:
        assert code(answer) == (400, "contract.dsp-malformed")


async def test_an_endless_answer_to_a_callback_is_not_read(space):
    connector = await space.connector()
    read: list[int] = []

    async def flood():
        for _ in range(1_000_000):
            read.append(1)
            yield b"x" * 65_536

    async def handle(_request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, content=flood())

    connector.handle = handle
    await connector.begin((await connector.offers())["tier-open"])
    assert len(read) <= 1


async def test_a_callback_that_breaks_does_not_break_the_answer(space):
    connector = await space.connector()

    async def handle(request: httpx.Request) -> httpx.Response:
        raise httpx.RemoteProtocolError("nonsense", request=request)

    connector.handle = handle
    state = await connector.begin((await connector.offers())["tier-open"])
    assert await connector.state(state) == "AGREED"


# --- what is sent ---


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"null",
        b"[]",
        b'{"@type":"ContractRequestMessage","@type":"ContractRequestMessage"}',
        b"[" * 10_000,
        b'{"a":1e400}',
        b'{"a":NaN}',
        b'{"a":' + b"9" * 5_000 + b"}",
        b'{"consumerPid":"\\ud800"}',
    ],
)
async def test_nonsense_is_refused_in_the_protocols_form(space, body):
    connector = await space.connector()
    for path in ("/negotiations/request", "/negotiations/x/events", "/catalog/request"):
        assert code(await connector.send("POST", path, body)) == (400, "contract.dsp-malformed")
    assert count(space) == (0, 0)


async def test_a_lone_surrogate_in_an_offer_is_refused_and_nothing_is_stored(space):
    connector = await space.connector()
    body = connector.request((await connector.offers())["tier-open"])
    body["offer"]["iriai:x"] = "SURROGATE"
    data = json.dumps(body).replace("SURROGATE", "\\ud800").encode()
    answer = await connector.send("POST", "/negotiations/request", data)
    assert answer.status_code in {201, 400, 422}
    assert "ContractNegotiation" in answer.json()["@type"]


async def test_what_is_too_large_is_refused_before_it_is_read(space):
    connector = await space.connector()
    answer = await connector.send("POST", "/negotiations/request", b" " * (DSP_MESSAGE_BYTES + 1))
    assert code(answer) == (413, "request.body-too-large")

    async def chunks():
        for _ in range(10):
            yield b" " * (DSP_MESSAGE_BYTES // 4)

    answer = await space.house.http.post(
        f"{DSP}/negotiations/request",
        content=chunks(),
        headers={"authorization": f"Bearer {connector.token}"},
    )
    assert code(answer) == (413, "request.body-too-large")


async def test_foreign_terms_are_never_agreed(space):
    connector = await space.connector()
    ours = (await connector.offers())["tier-open"]
    for change in (
        {"permission": [{"action": "use"}]},
        {"permission": ours["permission"] * 2},
        {"iriai:contractDigest": space.offered.digest},
        {"profile": "https://evil.example/profile"},
        {"target": "iriai:model:everything"},
        {"obligation": [{"action": "pay"}]},
        {"permission": [{**ours["permission"][0], "duty": [{"action": "pay"}]}]},
    ):
        state = await connector.begin(ours | change)
        assert await connector.state(state) == "OFFERED"
    assert "ContractAgreementMessage" not in connector.kinds
    without = {key: value for key, value in ours.items() if key != "prohibition"}
    assert await connector.state(await connector.begin(without)) == "OFFERED"


async def test_two_verifications_at_once_make_one_agreement(space):
    import anyio

    connector = await space.connector()
    state = await connector.begin((await connector.offers())["tier-open"])
    answers: list[int] = []

    async def verify() -> None:
        answers.append((await connector.verify(state)).status_code)

    async with anyio.create_task_group() as group:
        for _ in range(4):
            group.start_soon(verify)
    assert set(answers) <= {200, 409}
    assert connector.kinds.count("ContractNegotiationEventMessage") == 1


async def test_a_connector_cannot_hold_more_than_its_share(space, monkeypatch):
    connector = await space.connector()
    monkeypatch.setattr("broker.dataspace.facade.DSP_NEGOTIATIONS", 3)
    assert DSP_NEGOTIATIONS > 3
    offer = other_terms((await connector.offers())["tier-open"])
    for _ in range(3):
        await connector.terminate(await connector.begin(offer))  # ended ones of the day count
    answer = await connector.send("POST", "/negotiations/request", connector.request(offer))
    assert code(answer) == (429, "dsp.too-many")
    other = await space.connector("rival")
    assert (await other.begin(offer))["state"] == "REQUESTED"
    space.house.clock.ms += 86_400_001
    assert (await connector.begin(offer))["state"] == "REQUESTED"


async def test_more_connectors_than_are_compared_cannot_be_registered(space, monkeypatch):
    monkeypatch.setattr("broker.dataspace.counterparties.DSP_COUNTERPARTIES", 2)
    assert DSP_COUNTERPARTIES > 2
    for name in ("one", "two"):
        await space.connector(name)
    await space.connector("two")  # the same one again
    answer = await space.house.alice.post(
        "/operator/dsp/counterparties", {"name": "three", "callback": "https://three.example"}
    )
    assert (answer.status_code, answer.json()["code"]) == (409, "dsp.counterparty-taken")


async def test_a_registration_needs_an_operator(space):
    answer = await space.house.http.post(
        "/api/v1/operator/dsp/counterparties", json={"name": "x", "callback": "https://x.example"}
    )
    assert answer.status_code in {400, 401}


@pytest.mark.parametrize("path", ["/negotiations/request/extra", "/negotiations", "/transfers/request", "/"])
async def test_other_paths_do_not_exist(space, path):
    connector = await space.connector()
    answer = await connector.send("POST", path, {})
    assert answer.status_code in {404, 405}


async def test_the_facade_moves_nothing_while_the_log_is_frozen(space):
    connector = await space.connector()
    state = await connector.begin(other_terms((await connector.offers())["tier-open"]))
    from broker.log.signer import Freeze, FreezeReason

    space.house.services.writer._freeze = Freeze(reason=next(iter(FreezeReason)), evidence="planted")
    answer = await connector.event(state)
    assert answer.status_code >= 400
    assert answer.json()["@type"] == "ContractNegotiationError"
    space.house.clock.ms += 15 * 86_400_000
    assert await connector.state(state) == "OFFERED"


def test_a_counterparty_shows_no_secret_of_its_own():
    shown = repr(Counterparty(name="x", participant="y", callback="https://x.example", org=None))
    assert "token" not in shown
    assert "sha256" not in shown
    assert Connector.__dataclass_fields__["token"].default == ""
