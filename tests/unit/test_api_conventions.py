# SPDX-License-Identifier: Apache-2.0
"""What holds for every route of the API: methods, query parameters, pages, tags, the two health questions, announced ends."""

from __future__ import annotations

from typing import TYPE_CHECKING

import httpx
import pytest
from fastapi.routing import iter_route_contexts

from broker.api import ending
from broker.api.document import document
from broker.api.ending import Ending, headers_of
from broker.api.health import not_ready
from broker.app import bare
from policies.encoding import canonical
from policies.log.entries import EntryType
from tests.auditorsim import enrolled
from tests.brokersim import URL, House, draft, open_house, pool
from tests.documented import faults_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


# --- methods ---


async def test_head_is_get_without_a_body(house):
    asked = await house.alice.get("/operator/organisations")
    answer = await house.http.send(house.alice.signed("HEAD", "/operator/organisations"))
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-length"] == str(len(asked.content))
    open_one = await house.http.head("/log/checkpoint")
    assert (open_one.status_code, open_one.content) == (200, b"")


async def test_a_signature_for_get_does_not_serve_head_nor_the_reverse(house):
    for method, other in (("GET", "HEAD"), ("HEAD", "GET")):
        request = house.alice.signed(method, "/operator/organisations")
        moved = httpx.Request(other, request.url, headers=request.headers)
        answer = await house.http.send(moved)
        assert answer.status_code == 401, method


async def test_another_method_is_refused_with_every_method_of_the_path(house):
    for path, allowed in (
        ("/api/v1/witness/keys", "GET, HEAD, POST"),
        ("/api/v1/membership/join", "POST"),
        ("/log/checkpoint", "GET, HEAD"),
        ("/healthz", "GET, HEAD"),
    ):
        answer = await house.http.put(path)
        assert (*code(answer), answer.headers["allow"]) == (405, "request.method", allowed)


async def test_a_facade_that_is_off_has_no_methods_either(house):
    answer = await house.http.get("/api/v1/dsp/catalog/request")
    assert code(answer) == (404, "request.not-found")
    assert "allow" not in answer.headers


async def test_a_name_has_one_spelling_and_nothing_redirects(house):
    for path in ("/api/v1/broker/", "/healthz/", "/api/v1/contracts/"):
        answer = await house.http.get(path, headers={"host": "elsewhere.example"})
        assert code(answer) == (404, "request.not-found")


# --- query parameters ---


@pytest.mark.parametrize("query", ["limti=1", "limit=1&limit=2", "limit=1&x=", "LIMIT=1"])
async def test_a_parameter_that_is_not_named_or_there_twice_is_refused(house, query):
    answer = await house.alice.get(f"/operator/organisations?{query}")
    assert code(answer) == (422, "request.invalid")
    assert "cursor, limit" in answer.json()["need"]


async def test_every_route_below_the_api_names_its_parameters(house):
    for one in iter_route_contexts(house.port.app.routes):
        path = str(one.path)
        if not path.startswith("/api/v1/") or "{" in path or "/dsp/" in path:
            continue
        (method,) = one.methods
        answer = await house.http.request(method, f"{path}?nobody-named-this=1")
        assert code(answer) == (422, "request.invalid"), path


# --- pages ---


async def walk(who, path: str, name: str, limit: int) -> list[str]:
    found, query = [], f"limit={limit}"
    while True:
        answer = await who.get(f"{path}?{query}")
        assert answer.status_code == 200, answer.text
        page = answer.json()
        assert len(page[name]) <= limit
        found.append(page[name])
        if page.get("next") is None:
            return found
        query = f"limit={limit}&cursor={page['next']}"


async def test_pages_of_a_list_are_the_whole_list(house):
    nodes = await pool(house)
    whole = (await house.alice.get("/operator/organisations")).json()
    assert "next" not in whole
    pages = await walk(house.alice, "/operator/organisations", "organisations", 2)
    assert [len(one) for one in pages] == [2, 1]
    assert [one for page in pages for one in page] == whole["organisations"]
    assert len(whole["organisations"]) == len(nodes)


async def test_what_is_added_between_two_pages_moves_none(house):
    await pool(house, "kita", "nord", "iber")
    first = (await house.alice.get("/operator/organisations?limit=1")).json()
    await house.member("hanbit")
    query = f"limit=9&cursor={first['next']}"
    rest = (await house.alice.get(f"/operator/organisations?{query}")).json()
    orgs = [one["org"] for one in first["organisations"] + rest["organisations"]]
    assert len(orgs) == len(set(orgs)) >= 3


async def test_pages_of_contracts_go_from_the_oldest_to_the_newest(house):
    nodes = await pool(house)
    contracts = [draft(house, nodes, contract_id=f"ctr_{char * 16}", title=char) for char in "abc"]
    for contract in contracts:
        house.clock.ms += 1_000
        assert (await house.alice.offer(contract)).status_code == 201
    pages = await walk(nodes[0], "/contracts", "contracts", 2)
    assert [[one["title"] for one in page] for page in pages] == [["a", "b"], ["c"]]


async def test_entries_go_by_the_index_of_the_log_and_by_filters(house):
    (kita,) = await pool(house, "kita")
    auditor = await enrolled(house)
    size = house.services.writer.head().size
    for who in (kita, auditor, house.alice):
        whole = (await who.get("/log/entries")).json()
        assert [one["index"] for one in whole["entries"]] == list(range(size))
        assert whole["next"] is None
    first = (await kita.get("/log/entries?limit=3")).json()
    assert first["next"] == 2
    assert [one["index"] for one in (await kita.get("/log/entries?after=2&limit=2")).json()["entries"]] == [
        3,
        4,
    ]
    shown = (await kita.get("/log/entries?type=console.action")).json()["entries"]
    assert len(shown) == len(house.entries(EntryType.CONSOLE_ACTION)) > 0
    one = (await kita.get("/log/entries/3")).json()
    assert one["entry"] == (await kita.get("/log/entries?after=2&limit=1")).json()["entries"][0]["entry"]
    assert (await kita.get("/log/entries?run=run_" + "a" * 16)).json()["entries"] == []


@pytest.mark.parametrize(
    "query", ["type=nothing.known", "scope=x", "run=1", "after=-2", "limit=0", "limit=1001"]
)
async def test_a_filter_that_cannot_be_meant_is_refused(house, query):
    assert code(await house.alice.get(f"/log/entries?{query}")) == (422, "request.invalid")


async def test_the_log_is_read_by_nobody_who_is_not_enrolled(house):
    assert (await house.http.get("/api/v1/log/entries")).status_code == 401


# --- tags ---


async def test_a_tag_stays_while_nothing_changed_and_goes_with_an_approval(house):
    await house.member("kita")
    later = await _waiting(house)
    path = f"/operator/organisations/{later.org}"
    first = await house.alice.get(path)
    assert first.headers["etag"] == (await house.bob.get(path)).headers["etag"]
    assert (await house.alice.approve(later.org)).status_code == 200
    second = await house.alice.get(path)
    assert second.headers["etag"] != first.headers["etag"]
    assert second.json()["approved_by"] == ["alice"]
    assert code(await house.alice.get("/operator/organisations/org_" + "a" * 16)) == (
        404,
        "request.not-found",
    )


async def _waiting(house: House):
    from tests.brokersim import NodeSim

    node = NodeSim(house, "later")
    assert (await node.join(await house.alice.invite("Later GmbH", "DE", "later"))).status_code == 200
    return node


async def _end(house: House, name: str, if_match: str | None) -> httpx.Response:
    body = canonical({"code": "terms.other", "clause": None, "text": None})
    request = house.alice.signed("POST", f"/operator/negotiations/{name}/terminate", body)
    if if_match is not None:
        request.headers["if-match"] = if_match
    return await house.http.send(request)


async def test_a_change_of_what_somebody_else_changed_meanwhile_is_refused(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    name = await nodes[0].negotiation(contract)
    seen = (await house.alice.get(f"/negotiations/{name}")).headers["etag"]
    assert (await nodes[0].accept(contract)).status_code == 200
    assert code(await _end(house, name, seen)) == (412, "request.if-match")
    assert (await nodes[0].view(contract))["state"] == "open"
    now = (await nodes[0].get(f"/negotiations/{name}")).headers["etag"]
    assert now == (await house.alice.get(f"/negotiations/{name}?after=0")).headers["etag"]
    assert (await _end(house, name, f'"other", {now}')).status_code == 200


@pytest.mark.parametrize("given", [None, "*"])
async def test_a_change_that_stops_something_needs_no_tag(house, given):
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    assert (await _end(house, await nodes[0].negotiation(contract), given)).status_code == 200


async def test_a_repetition_gets_its_first_answer_although_the_tag_is_another_now(house):
    nodes = await pool(house)
    contract = draft(house, nodes)
    assert (await house.alice.offer(contract)).status_code == 201
    name = await nodes[0].negotiation(contract)
    seen = (await house.alice.get(f"/negotiations/{name}")).headers["etag"]
    body = canonical({"code": "terms.other", "clause": None, "text": None})
    answers = []
    for _ in range(2):
        request = house.alice.signed(
            "POST", f"/operator/negotiations/{name}/terminate", body, idempotency_key="once"
        )
        request.headers["if-match"] = seen
        answers.append(await house.http.send(request))
    assert [one.status_code for one in answers] == [200, 200]


async def test_where_a_tag_is_required_a_change_without_one_is_428(house):
    from broker.api.matching import check_match
    from broker.api.signed import Call
    from broker.errors import IfMatchError, IfMatchMissingError
    from policies.signing import VerifiedRequest

    def call(given: str | None) -> Call:
        request = VerifiedRequest(
            public_key=b"",
            key_id="k",
            nonce="n",
            expires_ms=0,
            idempotency_key=None,
            body_digest="",
        )
        return Call(
            services=house.services,
            caller=None,
            request=request,
            method="POST",
            target="/",
            body=b"",
            if_match=given,
        )

    with pytest.raises(IfMatchMissingError) as missing:
        check_match(call(None), '"a"', required=True)
    assert missing.value.http_status == 428
    with pytest.raises(IfMatchError):
        check_match(call('"b"'), '"a"', required=True)
    with pytest.raises(IfMatchError):
        check_match(call('W/"a"'), '"a"')  # weak tags never match (RFC 9110, 13.1.1)
    check_match(call('"a"'), '"a"', required=True)


# --- health ---


async def test_a_broker_that_serves_is_alive_and_ready_and_says_nothing_else(house):
    assert (await house.http.get("/healthz")).json() == {"alive": True}
    answer = await house.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (200, {"ready": True, "not_ready": []})


async def test_a_frozen_log_is_not_ready_but_alive(house):
    house.services.writer.freeze("planted")
    answer = await house.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "not_ready": ["log"]})
    assert (await house.http.get("/healthz")).status_code == 200
    assert "planted" not in answer.text


async def test_a_broker_that_starts_or_stops_is_not_ready(house):
    house.services.stage = "starting"
    assert not_ready(house.services) == ("start",)
    house.services.drain()
    assert not_ready(house.services) == ("stop",)


async def test_a_database_that_cannot_be_read_is_named_and_nothing_of_it_shown(house):
    house.services.store.close()
    with house.services.store.main.connect() as connection:
        connection.exec_driver_sql("ALTER TABLE log_head RENAME TO gone")
        connection.commit()
    answer = await house.http.get("/readyz")
    assert (answer.status_code, answer.json()) == (503, {"ready": False, "not_ready": ["database"]})


# --- announced ends ---


SOON = Ending(since_ms=1_790_000_000_000, until_ms=1_800_000_000_000, instead="/api/v1/broker")


def test_an_end_is_announced_in_three_headers():
    assert headers_of("/api/v1/old/x", {"/api/v1/old/{name}": SOON}) == (
        (b"deprecation", b"@1790000000"),
        (b"sunset", b"Fri, 15 Jan 2027 08:00:00 GMT"),
        (
            b"link",
            b'<https://iriai.example/api/>; rel="deprecation", </api/v1/broker>; rel="successor-version"',
        ),
    )
    assert headers_of("/api/v1/broker") == ()


async def test_every_answer_of_a_route_that_ends_says_so_and_no_other(house, monkeypatch):
    monkeypatch.setitem(ending.ENDINGS, "/api/v1/runs/{run_id}", SOON)
    told = await house.http.get("/api/v1/runs/run_x")
    assert (told.status_code, told.headers["deprecation"]) == (401, "@1790000000")
    assert "sunset" in told.headers
    assert "deprecation" not in (await house.http.get("/api/v1/runs")).headers
    assert document(bare())["paths"]["/api/v1/runs/{run_id}"]["get"]["deprecated"] is True


def test_nothing_is_announced_now():
    assert ending.ENDINGS == {}


# --- every answer is held against the document ---


def test_an_answer_with_an_undeclared_name_or_status_is_a_fault():
    assert faults_of("GET", "/healthz", 200, "application/json", b'{"alive":true}') == []
    assert faults_of("GET", "/healthz", 200, "application/json", b'{"alive":true,"more":1}') != []
    assert faults_of("GET", "/healthz", 202, "application/json", b"{}") == ["status 202"]
    assert faults_of("GET", "/healthz", 200, "text/html", b"") == ["200 of kind text/html"]
    assert faults_of("GET", "/nowhere", 200, "application/json", b"{}") == [
        "no route, but 200 application/json"
    ]
    assert faults_of("GET", "/nowhere", 404, "application/problem+json", b"{}") == []


async def test_every_answer_of_a_house_is_held_against_it(house, monkeypatch):
    from tests.documented import UndocumentedError

    monkeypatch.setattr("broker.api.incidents.since", lambda _session, **_: ([{"index": 1}], False))
    with pytest.raises(UndocumentedError, match="GET /api/v1/operator/incidents is not as documented"):
        await house.alice.get("/operator/incidents")
    assert str(house.http.base_url) == URL + "/" or str(house.http.base_url) == URL
