# SPDX-License-Identifier: Apache-2.0
"""Attacks by form: bodies that no reader likes, on every change of the API; cursors that tell nothing and open nothing."""

from __future__ import annotations

import base64
import json
from typing import TYPE_CHECKING

import httpx
import pytest

from broker.api.document import operations
from broker.app import bare
from tests.auditorsim import enrolled
from tests.brokersim import URL, House, NodeSim, draft, open_house, pool

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

IDS = {"digest": "sha256:" + "0" * 64, "org": "org_" + "a" * 16, "run_id": "run_" + "a" * 16, "index": "1"}
BODIES = {
    "nothing": b"",
    "no JSON": b"{",
    "a number": b"1",
    "null": b"null",
    "a list": b"[]",
    "deep lists": b"[" * 5_000 + b"]" * 5_000,
    "deep objects": b'{"a":' * 5_000 + b"1" + b"}" * 5_000,
    "deep and open": b"[" * 100_000,
    "a huge number": b'{"reason":' + b"9" * 5_000 + b"}",
    "a huge exponent": b'{"reason":1e999999}',
    "NaN": b'{"reason":NaN}',
    "minus nothing": b'{"reason":-0}',
    "NUL": b'{"reason":"a\\u0000b"}',
    "raw NUL": b'{"reason":"a\x00b"}',
    "bad UTF-8": b'{"reason":"\xff\xfe"}',
    "overlong UTF-8": b'{"reason":"\xc0\x80"}',
    "a lone surrogate": b'{"reason":"\\ud800"}',
    "a key twice": b'{"reason":"a","reason":"b"}',
    "a space": b'{"reason": "a"}',
    "a mark of order": b'\xef\xbb\xbf{"reason":"a"}',
    "UTF-16": '{"reason":"a"}'.encode("utf-16"),
    "two documents": b'{"reason":"a"}{}',
    "a comment": b'{"reason":"a"}//',
    "another name": b'{"reason":"a","__proto__":{}}',
    "wrong types": b'{"fields":{"a":1},"indexes":["x"],"name":[],"reason":{}}',
    "many keys": json.dumps({f"k{i:05d}": i for i in range(5_000)}, separators=(",", ":")).encode(),
}


@pytest.fixture(scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    async with open_house(tmp_path_factory.mktemp("api") / "broker") as one:
        yield one


@pytest.fixture(scope="module")
async def askers(house: House) -> dict[str, object]:
    (kita,) = await pool(house, "kita")
    auditor = await enrolled(house)
    return {
        "member": kita,
        "operator": house.alice,
        "party": kita,
        "reader": kita,
        "auditor": auditor,
        "assessor": auditor,
        "invited": NodeSim(house, "later"),
    }


def filled(path: str) -> str:
    for name, value in IDS.items():
        path = path.replace("{" + name + "}", value)
    return path.replace("{name}", "x").replace("{sha256}", "0" * 64)


CHANGES = [
    (one.path, one.role) for _, one in operations(bare()) if one.is_write and one.role != "counterparty"
]


@pytest.mark.parametrize("what", sorted(BODIES))
async def test_no_body_is_an_error_of_the_brokers_own(house, askers, what):
    """On every change; and the size of the log shows that nothing happened but what refusals leave."""
    size = house.services.writer.head().size
    for path, role in CHANGES:
        target = filled(path)
        if role == "anyone":
            answer = await house.http.post(target, content=BODIES[what])
        else:
            signed = askers[role].signed("POST", target.removeprefix("/api/v1"), BODIES[what])
            answer = await house.http.send(signed)
        assert 400 <= answer.status_code < 500, (path, what, answer.text)
        assert answer.headers["content-type"] == "application/problem+json", (path, what)
        assert b"__proto__" not in answer.content
    assert house.services.writer.head().size == size


async def test_every_change_is_tried(askers):
    assert len(CHANGES) > 30
    assert {role for _, role in CHANGES} <= {*askers, "anyone"}


@pytest.mark.parametrize(
    "path",
    ["/api/v1/runs/%00", "/api/v1/runs/%ff%fe", "/api/v1/contracts/%2e%2e%2f", "/api/v1/runs/" + "a" * 6_000],
)
async def test_no_path_is_an_error_of_the_brokers_own(house, askers, path):
    answer = await house.http.get(path)
    assert answer.status_code in {401, 404}
    signed = askers["party"].signed("GET", path.removeprefix("/api/v1"))
    assert (await house.http.send(signed)).status_code in {400, 401, 404, 422}


@pytest.mark.parametrize(
    "query",
    ["limit=%00", "limit=" + "9" * 5_000, "limit=1e3", "limit=%ff", "cursor=%00", "cursor=" + "A" * 5_000],
)
async def test_no_query_is_an_error_of_the_brokers_own(house, query):
    request = house.alice.signed("GET", f"/operator/organisations?{query}")
    answer = await house.http.send(request)
    assert answer.status_code in {401, 422}, answer.text


@pytest.mark.parametrize(
    "text",
    [
        "x",
        "====",
        base64.urlsafe_b64encode(b"[" * 200).decode().rstrip("="),
        base64.urlsafe_b64encode(b'["organisations",null]').decode().rstrip("="),
        base64.urlsafe_b64encode(b'["organisations",1]').decode().rstrip("="),
        base64.urlsafe_b64encode(b'["organisations",[]]').decode().rstrip("="),
        base64.urlsafe_b64encode(b'["organisations",true]').decode().rstrip("="),
        base64.urlsafe_b64encode(b'["runs",1,"run_a"]').decode().rstrip("="),
        base64.urlsafe_b64encode(b'["organisations", "a"]').decode().rstrip("="),
        base64.urlsafe_b64encode(b'["organisations",1e5]').decode().rstrip("="),
    ],
)
async def test_a_forged_cursor_is_refused(house, askers, text):
    answer = await house.alice.get(f"/operator/organisations?limit=1&cursor={text}")
    assert (answer.status_code, answer.json()["code"]) == (422, "request.invalid"), askers


async def test_a_cursor_holds_nothing_of_a_contract_that_the_caller_is_no_party_of(house, askers):
    """Pages are cut from what the caller may see: a cursor never names, and a page never counts, somebody else's."""
    others = await pool(house, "nord", "iber", "hanbit")
    mine = [askers["member"], *others[:2]]
    made = []
    for number, parties in enumerate((others, mine, others, mine)):
        house.clock.ms += 1_000
        contract = draft(house, parties, contract_id=f"ctr_{'abcd'[number] * 16}", title=f"no {number}")
        assert (await house.alice.offer(contract)).status_code == 201
        made.append(contract)
    page = (await askers["member"].get("/contracts?limit=1")).json()
    assert [one["title"] for one in page["contracts"]] == ["no 1"]
    told = base64.urlsafe_b64decode(page["next"] + "==")
    assert made[1].digest.encode() in told
    assert made[0].digest.encode() not in told
    rest = (await askers["member"].get(f"/contracts?limit=1&cursor={page['next']}")).json()
    assert [one["title"] for one in rest["contracts"]] == ["no 3"]
    assert "next" not in rest, "that there is more for others is not told"


async def test_a_header_that_asks_for_another_method_changes_nothing(house):
    request = house.alice.signed("GET", "/operator/organisations")
    request.headers.update({"x-http-method-override": "POST", "x-original-url": "/api/v1/operator/invites"})
    answer = await house.http.send(request)
    assert (answer.status_code, list(answer.json())) == (200, ["organisations"])
    moved = httpx.Request("HEAD", URL + "/api/v1/operator/invites", headers=request.headers)
    assert (await house.http.send(moved)).status_code in {401, 405, 409}
