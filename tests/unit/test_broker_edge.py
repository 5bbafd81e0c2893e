# SPDX-License-Identifier: Apache-2.0
"""The edge of the API: one effect per change, bounds before reading, one form of refusal, no path that nobody wrote down."""

from __future__ import annotations

import asyncio
import inspect
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from sqlalchemy import select

from broker.api import dsp, signed
from broker.api.declared import declared
from broker.store.tables import idempotency, nonce
from policies.encoding import canonical
from policies.limits import BODY_BYTES_JSON
from policies.log.entries import EntryType
from tests.brokersim import URL, House, NodeSim, open_house

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

ROOT = Path(__file__).parents[2]
INVITE = {"legal_name": "Kita GmbH", "country": "DE", "group": "kita"}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


# --- idempotency ---


async def test_the_same_key_and_body_give_the_same_answer_and_one_effect(house):
    kita = NodeSim(house, "kita")
    await kita.join(await house.alice.invite())
    subject = await house.alice.subject(kita.org)
    from policies.encoding import b64, digest
    from policies.signing import Envelope

    signature = Envelope.seal(subject, "application/vnd.iriai.approval.v1+json", house.alice.key).signatures[
        0
    ][1]
    body = {"subject_digest": digest(subject), "signature": b64(signature)}
    path = f"/operator/organisations/{kita.org}/approve"
    answers = [await house.alice.post(path, body, idempotency_key="once") for _ in range(5)]
    assert {(one.status_code, one.content) for one in answers} == {(200, answers[0].content)}
    assert [one.pub["action"] for one in house.entries(EntryType.CONSOLE_ACTION)] == [
        "invite.create",
        "org.approve",
    ]


async def test_the_same_key_with_another_body_is_refused(house):
    await house.alice.post("/operator/invites", INVITE, idempotency_key="k")
    answer = await house.alice.post("/operator/invites", INVITE | {"country": "JP"}, idempotency_key="k")
    assert code(answer) == (409, "request.idempotency-mismatch")


async def test_the_same_key_on_another_path_is_refused(house):
    kita = await house.member("kita")
    await house.alice.post("/operator/invites", INVITE, idempotency_key="k")
    answer = await house.alice.post(f"/operator/organisations/{kita.org}/revoke", INVITE, idempotency_key="k")
    assert answer.status_code in {409, 422}
    revoke = {"reason": "key-lost"}
    answer = await house.alice.post(f"/operator/organisations/{kita.org}/revoke", revoke, idempotency_key="k")
    assert code(answer) == (409, "request.idempotency-mismatch")


async def test_two_people_may_use_the_same_key(house):
    for who in (house.alice, house.bob):
        answer = await who.post("/operator/invites", INVITE, idempotency_key="k")
        assert answer.status_code == 201


async def test_an_invitations_text_is_told_once(house):
    first = await house.alice.post("/operator/invites", INVITE, idempotency_key="k")
    again = await house.alice.post("/operator/invites", INVITE, idempotency_key="k")
    assert "invite" in first.json()
    assert again.json() == {name: value for name, value in first.json().items() if name != "invite"}


async def test_a_refused_change_may_be_tried_again_under_the_same_key(house):
    kita = NodeSim(house, "kita")
    token = await house.alice.invite()
    refused = await kita.post("/membership/join", kita.join_body(token, country="FR"), idempotency_key="k")
    assert refused.status_code == 403
    assert (
        await kita.post("/membership/join", kita.join_body(token), idempotency_key="k")
    ).status_code == 200


@pytest.mark.parametrize("key", ["", "x" * 129, "with\ttab"])
async def test_an_unusable_idempotency_key_is_refused(house, key):
    answer = await house.alice.post("/operator/invites", INVITE, idempotency_key=key)
    assert answer.status_code in {400, 401}
    assert house.entries(EntryType.CONSOLE_ACTION) == []


async def test_many_at_once_take_effect_once(tmp_path):
    async with open_house(tmp_path / "broker") as house:
        kita = NodeSim(house, "kita")
        token = await house.alice.invite()
        body = kita.join_body(token)
        answers = await asyncio.gather(
            *(kita.post("/membership/join", body, idempotency_key="join") for _ in range(20))
        )
        assert {one.status_code for one in answers} == {200}
        assert len({one.content for one in answers}) == 1


# --- bounds and forms ---


async def test_a_body_that_announces_too_much_is_refused_before_it_is_read(house):
    read = []

    async def endless():
        while True:
            read.append(1)
            yield b"x" * 65_536

    request = house.alice.signed("POST", "/operator/invites", b"{}")
    request = httpx.Request(
        "POST",
        request.url,
        headers={**request.headers, "content-length": str(BODY_BYTES_JSON + 1)},
        content=endless(),
    )
    request.headers.pop("transfer-encoding", None)
    assert code(await house.http.send(request)) == (413, "request.body-too-large")
    assert len(read) <= 1


async def test_a_body_that_goes_on_is_cut_off_at_the_bound(house):
    sent = []

    async def more():
        for _ in range(100):
            sent.append(65_536)
            yield b"x" * 65_536

    request = house.alice.signed("POST", "/operator/invites", b"{}")
    headers = {name: value for name, value in request.headers.items() if name != "content-length"}
    answer = await house.http.send(httpx.Request("POST", request.url, headers=headers, content=more()))
    assert code(answer) == (413, "request.body-too-large")
    assert sum(sent) <= BODY_BYTES_JSON + 3 * 65_536


async def test_a_body_that_never_ends_is_given_up(house, monkeypatch):
    monkeypatch.setattr("broker.api.bodies.BODY_READ_S", 0.01)

    async def drip():
        yield b"{"
        await asyncio.sleep(30)

    request = house.alice.signed("POST", "/operator/invites", b"{}")
    headers = {name: value for name, value in request.headers.items() if name != "content-length"}
    answer = await house.http.send(httpx.Request("POST", request.url, headers=headers, content=drip()))
    assert code(answer) == (408, "request.body-too-slow")


async def test_who_leaves_in_the_middle_leaves_no_traceback(house, caplog):
    request = house.alice.signed("POST", "/operator/invites", b"{}")
    sent, came = [], [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]

    async def receive():
        return came.pop(0)

    async def send(message):
        sent.append(message)

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "https",
        "path": request.url.path,
        "raw_path": request.url.raw_path,
        "query_string": b"",
        "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 2),
    }
    await house.port(scope, receive, send)
    assert sent[0]["status"] == 408
    assert "Traceback" not in caplog.text


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (b"", "encoding.not-canonical"),
        (b"no json", "encoding.not-canonical"),
        (b'{"a":1,"a":2}', "encoding.not-canonical"),
        (b'{ "legal_name":"Kita GmbH"}', "encoding.not-canonical"),
        (b"[" * 10_000, "encoding.not-canonical"),
        (canonical({}), "request.invalid"),
        (canonical([]), "request.invalid"),
        (canonical(INVITE | {"extra": 1}), "request.invalid"),
        (canonical(INVITE | {"country": "Germany"}), "request.invalid"),
        (canonical(INVITE | {"group": 7}), "request.invalid"),
    ],
)
async def test_a_body_of_another_form_is_refused_and_its_values_are_not_repeated(house, body, expected):
    answer = await house.http.send(house.alice.signed("POST", "/operator/invites", body))
    assert code(answer)[1] == expected
    assert "Kita" not in answer.text
    assert "Germany" not in answer.text


async def test_a_refusal_has_every_field_of_the_problem_document(house):
    answer = await NodeSim(house, "kita").get("/membership/me")
    assert set(answer.json()) == {
        "type",
        "title",
        "status",
        "detail",
        "code",
        "clause",
        "need",
        "found",
        "remedy",
        "exit_code",
    }
    assert answer.json()["exit_code"] == 6
    assert answer.headers["cache-control"] == "no-store"


async def test_a_bug_of_ours_shows_an_id_and_nothing_else(house, caplog):
    def broken(_session):
        raise RuntimeError("secret detail of row 17")

    house.services.membership.list_members = broken
    answer = await house.alice.get("/operator/organisations")
    assert code(answer) == (500, "internal.error")
    assert "secret" not in answer.text
    assert "Traceback" not in answer.text
    assert answer.json()["request_id"] in caplog.text


async def test_a_full_disk_is_told_as_such_in_one_line_of_the_log(house, caplog):
    def full(_session):
        raise OSError(28, "No space left on device")

    house.services.membership.list_members = full
    assert code(await house.alice.get("/operator/organisations")) == (507, "broker.disk-full")
    assert [one.exc_info for one in caplog.records if one.name == "iriai.broker"] == [None]


async def test_nonces_of_the_past_are_forgotten_and_those_of_now_kept(house):
    for _ in range(3):
        await house.alice.get("/operator/organisations")
    house.clock.ms += 91_000
    await house.alice.get("/operator/organisations")
    with house.services.store.read() as session:
        assert len(session.execute(select(nonce)).all()) == 1


async def test_a_frozen_or_full_store_refuses_changes_and_keeps_nothing(house):
    from broker.log import LogUnavailableError

    async def refuse(_work):
        raise LogUnavailableError(need="a disk", found="none", remedy="later")

    house.services.writer.run = refuse
    answer = await house.alice.post("/operator/invites", INVITE)
    assert code(answer) == (503, "log.unavailable")
    assert answer.headers["retry-after"] == "1"
    with house.services.store.read() as session:
        assert session.execute(select(idempotency)).all() == []


# --- routes ---


def _documented() -> set[tuple[str, str, str]]:
    text = (ROOT / "docs/reference/http-api.md").read_text("utf-8")
    rows = re.findall(r"^\| `(GET|POST)` \| `([^`]+)` \| (\w+) \|", text, flags=re.MULTILINE)
    return {(method, path, who) for method, path, who in rows}


def _routes(house: House) -> list[tuple[str, APIRoute]]:
    """Every route of the API with its whole path; pages are others."""
    found = [
        (str(one.path), one.original_route)
        for one in iter_route_contexts(house.port.app.routes)
        if isinstance(one.original_route, APIRoute)
    ]
    assert len(found) > 25
    return found


ROLES = {**signed.ROLES, **dsp.ROLES}


def _served(house: House) -> set[tuple[str, str, str]]:
    found = set()
    for path, route in _routes(house):
        roles = [ROLES[one.call] for one in route.dependant.dependencies if one.call in ROLES]
        said = declared(route.endpoint)
        assert said is not None, f"{path} declares nothing"
        assert bool(roles) != bool(said.role), f"{path}: its role comes from its call, or is declared"
        found |= {(method, path, roles[0] if roles else said.role) for method in route.methods}
    return found


async def test_every_route_on_the_public_port_is_documented_with_its_role(house):
    fleet = {(method, path, who) for method, path, who in _documented() if path.startswith("/v1/fleet/")}
    assert _served(house) == _documented() - fleet
    handlers = (ROOT / "broker/federation/flower/names.py").read_text("utf-8")
    served = re.findall(r'^    "([a-z-]+)": \(fleet_handlers', handlers, flags=re.MULTILINE)
    assert {path.removeprefix("/v1/fleet/") for _, path, _ in fleet} == set(served)
    assert len(served) == 9


async def test_every_change_takes_a_verified_call(house):
    """But joining, which is signed by its own key, and what carries the log's or a witness's signature in it."""
    own = {"/api/v1/membership/join", "/api/v1/witness/cosignatures", "/api/v1/witness/complaints"}
    for path, route in _routes(house):
        if route.methods != {"GET"} and path not in own:
            assert any(one.call in ROLES for one in route.dependant.dependencies), path


async def test_no_route_runs_in_a_thread_pool(house):
    for path, route in _routes(house):
        assert inspect.iscoroutinefunction(route.endpoint), path


@pytest.mark.parametrize(
    "path",
    [
        "/v1/runtime",
        "/v1",
        "/v1/",
        "/v1/control/start-run",
        "/v1/serverappio/x",
        "/v1/clientappio",
        "/v1//fleet/x",
    ],
)
async def test_flowers_other_apis_answer_404_with_nothing(house, path):
    for method in ("GET", "POST"):
        answer = await house.http.request(method, path)
        assert (answer.status_code, answer.content) == (404, b"")


@pytest.mark.parametrize(
    "path",
    ["/", "/redoc", "/api", "/api/v1", "/api/v1/nothing", "/health", "/metrics"],
)
async def test_what_is_not_documented_does_not_exist(house, path):
    assert code(await house.http.get(path)) == (404, "request.not-found")


async def test_another_method_is_refused_in_the_same_form(house):
    assert code(await house.http.delete("/api/v1/broker")) == (405, "request.method")


async def test_a_web_socket_is_refused(house):
    sent = []

    async def send(message):
        sent.append(message)

    async def receive():
        return {"type": "websocket.connect"}

    await house.port({"type": "websocket", "path": "/api/v1/broker", "headers": []}, receive, send)
    assert sent == [{"type": "websocket.close", "code": 1008}]


async def test_the_fleet_api_goes_to_the_engine(house):
    answer = await house.http.post("/v1/fleet/pull-messages", content=b"")
    assert (answer.status_code, answer.content) == (404, b"")  # this house has no engine


async def test_the_public_url_counts_not_the_host_header(house):
    request = house.alice.signed("GET", "/operator/organisations")
    request.headers["host"] = "evil.example"
    assert (await house.http.send(request)).status_code == 200
    elsewhere = house.alice.signed(
        "GET", "/operator/organisations", url="https://evil.example/api/v1/operator/organisations"
    )
    request = httpx.Request("GET", URL + "/api/v1/operator/organisations", headers=elsewhere.headers)
    assert code(await house.http.send(request)) == (401, "identity.signature-invalid")


def test_the_broker_process_never_imports_torch():
    program = (
        "import sys, broker.app, broker.composition, broker.commands; "
        "print([name for name in sys.modules if name.split('.')[0] in {'torch', 'opacus'}])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert done.stdout.strip() == "[]"
