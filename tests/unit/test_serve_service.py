# SPDX-License-Identifier: Apache-2.0
"""The service over its own application: questions, answers, and every request that is refused."""

from __future__ import annotations

import json
import math
import socket

import httpx
import numpy as np
import pytest

from client.deploy.refusals import BindError, BusyError, NotServingError, TokenFileError
from client.deploy.running import listen, read_service
from client.deploy.service import Service
from client.deploy.token import CELL_FILE, OWNER_FILE, PROOF, draw_tokens, proves, read_token, signed
from policies.limits import SERVE_BODY_BYTES
from tests.learnsim import SeededEntropy
from tests.servesim import MODEL, MovedClock, SaidModel, TimedServing, facts, question

URL = "http://127.0.0.1:8000"
NONCE = "n" * 22


class Door:
    """A service and both who know a token."""

    def __init__(self, folder) -> None:
        self.clock, self.model = MovedClock(), SaidModel()
        self.serving = TimedServing(self.model, clock=self.clock)
        self.tokens = draw_tokens(folder, SeededEntropy(), url=URL)
        self.app = Service(self.serving, self.tokens, port=8000)

    async def ask(
        self, method: str, path: str, body: object = None, *, token: str | None = "", **headers: str
    ):
        """Asks with the cell's token, unless another is named; None sends none."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        known = token or self.tokens.cell
        if token is not None:
            headers["authorization"] = signed(known, method, path, data, nonce=NONCE)
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=self.app), base_url=URL) as client:
            answer = await client.request(method, path, content=data, headers=headers)
        given = answer.headers.get(PROOF, "")
        is_admitted = answer.status_code not in (401, 404, 413, 421)
        assert proves(known, NONCE, answer.status_code, answer.content, given=given) == is_admitted
        return answer

    def body(self, tick: int = 0, **changes: object) -> dict[str, object]:
        one = question(tick)
        made = {"observation": one.observation.tolist(), "stamp_ns": one.stamp_ns, "seq": one.seq}
        return made | changes


@pytest.fixture
def door(tmp_path):
    return Door(tmp_path)


async def test_a_question_gets_the_action_the_model_and_no_flag(door):
    answer = await door.ask("POST", "/v1/infer", door.body())
    assert answer.status_code == 200
    assert answer.json() == {
        "action_chunk": [pytest.approx([0.01] * 4)],
        "model": MODEL,
        "flags": [],
        "state": "active",
        "cause": [],
    }


@pytest.mark.parametrize("missing", [b"NaN", b"Infinity", b"null", b"1e999"])
async def test_a_missing_value_gets_the_fallback_and_its_reason(door, missing):
    await door.ask("POST", "/v1/infer", door.body(0))
    body = json.dumps(door.body(1)).encode().replace(b"[0.101", b"[" + missing)
    told = (await door.ask("POST", "/v1/infer", body)).json()
    assert told["flags"] == ["input-not-finite"]
    assert told["state"] == "fallback"
    assert told["action_chunk"] == [pytest.approx([0, 0, 0, 0.01])]
    assert told["problem"]["code"] == "serve.fallback"
    assert len(door.model.asked) == 1


async def test_only_the_owner_resumes(door):
    await door.ask("POST", "/v1/infer", door.body(0, observation=[9.0] * 10))
    refused = await door.ask("POST", "/v1/resume")
    assert (refused.status_code, refused.json()["code"]) == (401, "serve.not-admitted")
    assert (await door.ask("GET", "/v1/status")).json()["state"] == "fallback"
    resumed = await door.ask("POST", "/v1/resume", token=door.tokens.owner)
    assert resumed.json() == {"state": "ready"}


async def test_status_and_schema_say_what_a_controller_needs(door):
    schema = (await door.ask("GET", "/v1/schema")).json()
    assert [(one["name"], one["size"], one["unit"]) for one in schema["observation"]] == [
        ("tcp_pos", 3, "m"),
        ("gripper_width", 1, "1"),
        ("object_pos", 3, "m"),
        ("goal_pos", 3, "m"),
    ]
    assert schema["action"][0]["high"] == [0.012] * 3
    assert schema["safety"]["fallback"] == "hold"
    await door.ask("POST", "/v1/infer", door.body(0))
    await door.ask("POST", "/v1/episode/end", {"outcome": "success"})
    status = (await door.ask("GET", "/v1/status")).json()
    assert status["counts"] == {"questions": 1, "fallbacks": 0, "flags": {}, "episodes": {"success": 1}}
    assert status["latency_us"]["of"] == 1
    assert status["recorder"] == {"state": "off"}
    assert "observation" not in status


async def test_silence_shows_in_the_status_though_nobody_asked(door):
    await door.ask("POST", "/v1/infer", door.body(0))
    door.clock.ms += 10_000
    status = (await door.ask("GET", "/v1/status")).json()
    assert (status["state"], status["cause"]) == ("fallback", ["watchdog"])


BAD = {
    "no JSON": b"{",
    "not UTF-8": b"\xff\xfe",
    "deep": b"[" * 50_000,
    "a list": [],
    "no number": {"seq": "1"},
    "truth": {"seq": True},
    "negative": {"seq": -1},
    "too large": {"stamp_ns": 2**63},
    "no list": {"observation": 1},
    "nested": {"observation": [[0.1] * 10]},
    "words": {"observation": ["0.1"] * 10},
    "truths": {"observation": [True] * 10},
    "short": {"observation": [0.1] * 9},
    "many": {"observation": [0.1] * 513},
    "huge": {"observation": [10**400] + [0.1] * 9},
    "measured": {"measured": [0.1] * 3},
    "extra": {"more": 1},
    "twice": b'{"observation": [0.1], "stamp_ns": 1, "seq": 1, "seq": 2}',
}


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
async def test_a_body_that_is_no_question_is_refused_and_changes_nothing(door, bad):
    body = door.body(0) | bad if isinstance(bad, dict) else bad
    answer = await door.ask("POST", "/v1/infer", body)
    assert (answer.status_code, answer.json()["code"]) == (422, "serve.request")
    assert answer.headers["content-type"] == "application/problem+json"
    assert door.serving.standing(now_ns=0).phase == "ready"
    assert not door.model.asked


async def test_another_number_of_values_is_said_in_words(door):
    short = await door.ask("POST", "/v1/infer", door.body(0, observation=[0.1] * 2))
    assert short.json()["found"] == "2 observed, and none measured"


async def test_who_is_not_admitted_is_told_which_file_has_the_token(door, tmp_path):
    refused = await door.ask("GET", "/v1/status", token=None)
    assert (refused.status_code, refused.headers["connection"]) == (401, "close")
    assert str(tmp_path / CELL_FILE) in refused.json()["remedy"]
    refused = await door.ask("POST", "/v1/resume")
    assert str(tmp_path / OWNER_FILE) in refused.json()["remedy"]


async def test_a_signature_is_of_one_request_and_no_other(door):
    good = signed(door.tokens.cell, "GET", "/v1/status", b"", nonce=NONCE)
    for method, path, body in (
        ("GET", "/v1/schema", b""),
        ("POST", "/v1/infer", b""),
        ("GET", "/v1/status", b" "),
    ):
        answer = await door.ask(method, path, body, token=None, authorization=good)
        assert answer.status_code == 401
        assert PROOF not in answer.headers


async def test_a_body_beyond_its_bound_is_not_read_to_its_end(door):
    answer = await door.ask("POST", "/v1/infer", b" " * (SERVE_BODY_BYTES + 1))
    assert (answer.status_code, answer.json()["code"]) == (413, "serve.request-size")


async def test_an_outcome_is_one_of_three_words(door):
    assert (await door.ask("POST", "/v1/episode/end", {})).status_code == 200
    assert (await door.ask("GET", "/v1/status")).json()["counts"]["episodes"] == {"unknown": 1}
    for outcome in ("won", 1, None, ["success"]):
        assert (await door.ask("POST", "/v1/episode/end", {"outcome": outcome})).status_code == 422
    assert (await door.ask("POST", "/v1/episode/end", {"outcome": "fail"})).json() == {
        "recorded": False,
        "file": None,
    }


async def test_another_path_or_method_is_no_route(door):
    for method, path in (("GET", "/v1/infer"), ("POST", "/v1/status"), ("GET", "/"), ("GET", "/v1/infer/")):
        assert (await door.ask(method, path)).json()["code"] == "serve.route"


async def test_what_the_model_says_never_leaves_as_nan(door):
    door.model.say = lambda _observation: np.full((1, 4), np.nan, dtype=np.float32)
    answer = await door.ask("POST", "/v1/infer", door.body(0))
    assert b"NaN" not in answer.content
    assert answer.json()["flags"] == ["output-not-finite"]


def test_tokens_are_files_of_this_account_and_are_drawn_anew(tmp_path):
    entropy = SeededEntropy()
    first, second = draw_tokens(tmp_path, entropy), draw_tokens(tmp_path, entropy)
    assert len({first.cell, first.owner, second.cell, second.owner}) == 4
    assert read_token(tmp_path / CELL_FILE) == second.cell
    draw_tokens(tmp_path, entropy, url=URL)
    token, url = (tmp_path / CELL_FILE).read_text().split()
    assert (read_token(tmp_path / CELL_FILE), url) == (token, URL)
    assert (tmp_path / OWNER_FILE).stat().st_mode & 0o777 == 0o600
    assert second.cell not in repr(second)
    (tmp_path / CELL_FILE).chmod(0o640)
    with pytest.raises(TokenFileError):
        read_token(tmp_path / CELL_FILE)
    (tmp_path / OWNER_FILE).write_text("short\n")
    for name in (OWNER_FILE, "none"):
        with pytest.raises(TokenFileError):
            read_token(tmp_path / name)


def test_latencies_are_of_the_newest_questions():
    serving = TimedServing(SaidModel(facts=facts()))
    assert serving.status(now_ns=0)["latency_us"] == {"p50": None, "p99": None, "of": 0}
    for microseconds in range(1, 101):
        serving.took(microseconds * 1000)
    found = serving.status(now_ns=0)["latency_us"]
    assert (found["of"], round(found["p50"])) == (100, 50)
    assert math.isclose(found["p99"], 99.01)


@pytest.mark.parametrize("host", [".".join("0000"), "::", "localhost", "192.168.0.1", ""])
def test_any_other_address_than_the_loopback_is_refused(host):
    with pytest.raises(BindError):
        listen(host, 0)


@pytest.mark.enable_socket
def test_a_port_in_use_says_so():
    with listen("127.0.0.1", 0) as listener, pytest.raises(BusyError):
        listen("127.0.0.1", listener.getsockname()[1])


@pytest.mark.enable_socket
def test_an_answer_is_not_held_back_until_its_head_is_acknowledged():
    with listen("127.0.0.1", 0) as listener:
        assert listener.proto == socket.IPPROTO_TCP
        assert listener.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_service_that_does_not_run_is_not_found(tmp_path):
    with pytest.raises(NotServingError):
        read_service(tmp_path, "cell")
