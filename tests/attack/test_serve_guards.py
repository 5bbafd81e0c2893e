# SPDX-License-Identifier: Apache-2.0
"""Somebody else on this machine, or a web page, tries to move a robot: nothing reaches the model."""

from __future__ import annotations

import json
import string

import httpx
import pytest

from client.deploy.service import Service
from client.deploy.token import PROOF, Tokens, signed
from tests.servesim import MovedClock, SaidModel, TimedServing, question, tick_ns

TOKENS = Tokens(cell="c" * 43, owner="o" * 43)
ROUTES = (
    ("POST", "/v1/infer"),
    ("POST", "/v1/episode/end"),
    ("POST", "/v1/resume"),
    ("GET", "/v1/status"),
    ("GET", "/v1/schema"),
)


@pytest.fixture
def model():
    return SaidModel()


@pytest.fixture
def app(model):
    serving = TimedServing(model, clock=MovedClock(tick_ns(0)))
    return Service(serving, TOKENS, port=8000)


def body_of(method: str, path: str) -> bytes:
    if method == "GET" or path != "/v1/infer":
        return b""
    one = question(0)
    told = {"observation": one.observation.tolist(), "stamp_ns": one.stamp_ns, "seq": 0}
    return json.dumps(told).encode()


async def send(app, method: str, path: str, headers: list[tuple[str, str | bytes]]) -> httpx.Response:
    body = body_of(method, path)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
        request = client.build_request(method, f"http://127.0.0.1:8000{path}", content=body)
        names = {name for name, _ in headers}
        kept = [(k, v) for k, v in request.headers.raw if k.decode().lower() not in names]
        request.headers = httpx.Headers(
            [*kept, *((k.encode(), v if isinstance(v, bytes) else v.encode()) for k, v in headers if v)]
        )
        return await client.send(request)


def by(token: str, method: str, path: str, body: bytes | None = None) -> tuple[str, str]:
    """The header of somebody who knows a token."""
    data = body_of(method, path) if body is None else body
    return ("authorization", signed(token, method, path, data, nonce="n" * 22))


def forged(mac: str, nonce: str = "n" * 22) -> tuple[str, str]:
    return ("authorization", f"IRIAI-HMAC-SHA256 {nonce}:{mac}")


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "header",
    [
        ("authorization", ""),
        ("authorization", f"Bearer {'c' * 43}"),
        ("authorization", "c" * 43),
        forged(""),
        forged("0" * 64),
        forged("0" * 64, nonce=""),
        forged("0" * 64, nonce="n" * 65),
        by("C" * 43, "POST", "/v1/infer"),
        by("c" * 43, "POST", "/v1/other"),
        by("c" * 43, "POST", "/v1/infer", b"another body"),
        forged("\N{LATIN SMALL LETTER C WITH CEDILLA}" * 64),
    ],
)
async def test_without_a_token_nothing_is_answered_and_nothing_changes(app, model, method, path, header):
    name, value = header
    answer = await send(app, method, path, [(name, value.encode("utf-8"))])
    assert answer.status_code == 401
    assert PROOF not in answer.headers
    assert not model.asked
    told = await send(app, "GET", "/v1/status", [by(TOKENS.cell, "GET", "/v1/status")])
    assert told.json()["counts"]["questions"] == 0


async def test_the_cells_token_does_not_resume(app):
    mine = by(TOKENS.cell, "POST", "/v1/resume")
    assert (await send(app, "POST", "/v1/resume", [mine])).status_code == 401


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:8000", "127.0.0.1", "127.0.0.1:8001", "127.0.0.1:8000.evil.example"],
)
async def test_a_name_that_was_bent_to_this_machine_finds_nothing(app, model, host):
    answer = await send(app, "POST", "/v1/infer", [by(TOKENS.cell, "POST", "/v1/infer"), ("host", host)])
    assert (answer.status_code, answer.json()["code"]) == (421, "serve.host")
    assert not model.asked


async def test_two_hosts_in_one_request_find_nothing(app):
    hosts = [("host", "127.0.0.1:8000"), ("host", "evil.example")]
    mine = by(TOKENS.cell, "GET", "/v1/status")
    assert (await send(app, "GET", "/v1/status", [mine, *hosts])).status_code == 421


@pytest.mark.parametrize("origin", ["http://127.0.0.1:8000", "null", "https://evil.example"])
async def test_a_web_page_finds_nothing_whatever_it_says_of_itself(app, model, origin):
    answer = await send(app, "POST", "/v1/infer", [by(TOKENS.cell, "POST", "/v1/infer"), ("origin", origin)])
    assert answer.status_code == 421
    assert "access-control-allow-origin" not in answer.headers
    assert not model.asked


async def test_a_refusal_repeats_nothing_that_was_sent(app):
    planted = "planted" + string.ascii_lowercase
    headers = [("authorization", planted), ("host", f"{planted}.example")]
    for chosen in (headers[:1], [by(TOKENS.cell, "GET", f"/{planted}"), headers[1]]):
        answer = await send(app, "GET", f"/{planted}", chosen)
        assert planted not in answer.text


async def test_a_question_that_is_refused_keeps_the_watchdog_running(app, model):
    """Whoever holds the token cannot feed the watchdog with questions that no guard has seen."""
    await send(app, "POST", "/v1/infer", [by(TOKENS.cell, "POST", "/v1/infer")])
    serving = app._serving
    empty = b'{"observation": [], "stamp_ns": 1, "seq": 9}'
    for _ in range(3):
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=app)) as client:
            await client.post(
                "http://127.0.0.1:8000/v1/infer",
                content=empty,
                headers=dict([by(TOKENS.cell, "POST", "/v1/infer", empty)]),
            )
    assert serving.standing(now_ns=tick_ns(0) + 201_000_000).phase == "fallback"
    assert len(model.asked) == 1
