# SPDX-License-Identifier: Apache-2.0
"""Attacks on signed requests: copied, altered, late, by the wrong key, about somebody else's things."""

from __future__ import annotations

import asyncio
import base64
from typing import TYPE_CHECKING

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from policies.encoding import canonical, digest, parse, unb64
from policies.identity import SigningKey, key_id
from policies.limits import BODY_BYTES_JSON, CLOCK_SKEW_S, SIGNATURE_TTL_S
from policies.log.entries import EntryType
from policies.ports import to_ms
from tests.brokersim import URL, House, NodeSim, Signer, draft, final_contract, open_house, pool
from tests.lanesim import spoken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

INVITE = {"legal_name": "Kita GmbH", "country": "DE", "group": "kita"}
P = 2**255 - 19
ORDER_8 = [
    bytes.fromhex("26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"),
    bytes.fromhex("c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a"),
]


def weak_keys() -> list[bytes]:
    """The 48 encodings: small order, and y >= p, with either sign bit."""
    small = [0, 1, P - 1, *(int.from_bytes(one, "little") for one in ORDER_8)]
    over = range(P, 2**255)
    both = [*small, *over]
    return [(y | sign << 255).to_bytes(32, "little") for y in both for sign in (0, 1)]


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


# --- copied ---


async def test_a_copied_read_is_refused(house):
    request = house.alice.signed("GET", "/operator/organisations")
    assert (await house.http.send(request)).status_code == 200
    assert code(await house.http.send(request)) == (409, "identity.replayed")


async def test_a_copied_change_is_refused_and_has_no_second_effect(house):
    request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
    assert (await house.http.send(request)).status_code == 201
    for _ in range(20):
        assert code(await house.http.send(request)) == (409, "identity.replayed")
    assert len(house.entries(EntryType.CONSOLE_ACTION)) == 1


async def test_a_copy_of_a_refused_change_is_refused_as_a_copy(house):
    kita = NodeSim(house, "kita")
    await house.alice.invite()
    request = kita.signed(
        "POST", "/membership/join", canonical(kita.join_body(await house.alice.invite(), country="FR"))
    )
    assert code(await house.http.send(request)) == (403, "membership.invite-mismatch")
    assert code(await house.http.send(request)) == (409, "identity.replayed")


async def test_a_copy_is_refused_after_a_restart_too(tmp_path):
    async with open_house(tmp_path / "broker") as house:
        request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
        assert (await house.http.send(request)).status_code == 201
    async with open_house(tmp_path / "broker") as house:
        assert code(await house.http.send(request)) == (409, "identity.replayed")


async def test_a_copied_signature_on_another_path_is_refused(house):
    kita = await house.member("kita")
    request = kita.signed("GET", "/contracts")
    moved = httpx.Request("GET", URL + "/api/v1/releases", headers=request.headers)
    assert code(await house.http.send(moved)) == (401, "identity.signature-invalid")


async def test_a_copied_signature_under_another_query_is_refused(house):
    kita = await house.member("kita")
    request = kita.signed("GET", "/log/consistency?old=1")
    moved = httpx.Request("GET", URL + "/api/v1/log/consistency?old=2", headers=request.headers)
    assert code(await house.http.send(moved)) == (401, "identity.signature-invalid")


# --- altered ---


async def test_another_body_under_the_signature_is_refused(house):
    request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
    other = canonical(INVITE | {"legal_name": "Rival AG"})
    headers = {name: value for name, value in request.headers.items() if name != "content-length"}
    altered = httpx.Request("POST", request.url, headers=headers, content=other)
    assert code(await house.http.send(altered)) == (401, "identity.signature-invalid")
    headers["content-digest"] = (
        "sha-256=:" + base64.b64encode(bytes.fromhex(digest(other)[7:])).decode() + ":"
    )
    altered = httpx.Request("POST", request.url, headers=headers, content=other)
    assert code(await house.http.send(altered)) == (401, "identity.signature-invalid")
    assert house.entries(EntryType.CONSOLE_ACTION) == []


async def test_another_idempotency_key_under_the_signature_is_refused(house):
    request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
    request.headers["idempotency-key"] = "other"
    assert code(await house.http.send(request)) == (401, "identity.signature-invalid")


@pytest.mark.parametrize("name", ["signature", "signature-input", "content-digest", "idempotency-key"])
async def test_a_missing_header_is_refused(house, name):
    request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
    del request.headers[name]
    status, found = code(await house.http.send(request))
    assert status == 401
    assert found in {"identity.request-unsigned", "identity.signature-invalid"}


async def test_a_signature_over_less_is_refused(house):
    request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
    request.headers["signature-input"] = request.headers["signature-input"].replace(' "content-digest"', "")
    assert code(await house.http.send(request))[0] == 401


async def test_a_read_of_another_method_is_refused(house):
    request = house.alice.signed("GET", "/operator/invites")
    moved = httpx.Request("POST", request.url, headers=request.headers, content=b"")
    assert code(await house.http.send(moved))[0] == 401


@pytest.mark.parametrize(
    "junk", ["", "iriai=()", 'iriai=();keyid="0"', 'iriai=();keyid="' + "0" * 16 + '"', "\x7f"]
)
async def test_junk_instead_of_a_signature_is_refused(house, junk):
    request = house.alice.signed("GET", "/operator/organisations")
    request.headers["signature-input"] = junk
    assert code(await house.http.send(request))[0] == 401


# --- late ---


@pytest.mark.parametrize("offset_s", [-(SIGNATURE_TTL_S + 1), CLOCK_SKEW_S + 2, 600, -600])
async def test_a_request_outside_the_window_is_refused(house, offset_s):
    now_ms = house.clock.ms + offset_s * 1000
    answer = await house.alice.get("/operator/organisations", now_ms=now_ms)
    assert code(answer) == (401, "identity.clock")


@pytest.mark.parametrize("offset_s", [-(SIGNATURE_TTL_S - 1), CLOCK_SKEW_S - 1])
async def test_a_request_inside_the_window_is_served(house, offset_s):
    now_ms = house.clock.ms + offset_s * 1000
    assert (await house.alice.get("/operator/organisations", now_ms=now_ms)).status_code == 200


async def test_a_copy_never_outlives_its_nonce(house):
    now_ms = house.clock.ms + (CLOCK_SKEW_S - 1) * 1000
    request = house.alice.signed("GET", "/operator/organisations", now_ms=now_ms)
    assert (await house.http.send(request)).status_code == 200
    for _ in range(100):
        house.clock.ms += 1000
        assert code(await house.http.send(request))[1] in {"identity.replayed", "identity.clock"}


# --- by the wrong key ---


async def test_every_weak_key_is_refused_at_the_door(house):
    kita = NodeSim(house, "kita")
    token = await house.alice.invite()
    keys = weak_keys()
    assert len(set(keys)) == 48
    for raw in keys:
        body = kita.join_body(token, node_key="ed25519:" + raw.hex())
        assert code(await kita.post("/membership/join", body)) == (422, "identity.weak-key")
    assert (await kita.join(token)).status_code == 200


async def test_one_fixed_signature_under_a_weak_key_opens_nothing(house):
    neutral = (1).to_bytes(32, "little")
    forged = neutral + bytes(32)
    Ed25519PublicKey.from_public_bytes(neutral).verify(
        forged, b"any message at all"
    )  # what the library accepts
    kita = NodeSim(house, "kita")
    body = kita.join_body(await house.alice.invite(), node_key="ed25519:" + neutral.hex())
    request = kita.signed("POST", "/membership/join", canonical(body))
    request.headers["signature"] = "iriai=:" + base64.b64encode(forged).decode() + ":"
    assert code(await house.http.send(request)) == (422, "identity.weak-key")


async def test_a_stranger_with_somebodys_key_id_is_refused(house):
    kita = await house.member("kita")
    stranger = NodeSim(house, "stranger")
    request = stranger.signed("GET", "/membership/me")
    own, theirs = stranger.key, kita.key
    text = request.headers["signature-input"]
    from policies.identity import key_id

    request.headers["signature-input"] = text.replace(key_id(own.public), key_id(theirs.public))
    assert code(await house.http.send(request)) == (401, "identity.signature-invalid")


async def test_a_revoked_nodes_old_signatures_open_nothing(house):
    kita = await house.member("kita")
    request = kita.signed("GET", "/contracts")
    await house.remove(kita.org, reason="key-lost")
    assert code(await house.http.send(request)) == (401, "identity.key-revoked")


async def test_one_person_with_two_names_counts_once(tmp_path):
    from broker.boot import parse_operators
    from broker.errors import UsageError
    from policies.identity import key_text

    text = key_text(SigningKey.from_seed(b"o" * 32).public)
    with pytest.raises(UsageError):
        parse_operators([f"alice={text}", f"bob={text}"])


# --- about somebody else's things ---


async def test_every_route_with_a_foreign_id_answers_404(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    house.clock.ms = to_ms(contract.term.effective)
    opened = await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})
    rival = await house.member("rival")
    (signed, *_) = house.entries(EntryType.CONTRACT_SIGNED)
    for path in (
        f"/contracts/{contract.digest}",
        f"/contracts/{contract.digest}/envelope",
        f"/runs/{opened.json()['run']}",
        f"/receipts/{signed.id.hex()}",
        f"/models/{contract.digest}/weights",
        f"/statements/{contract.digest}",
    ):
        answer = await rival.get(path)
        assert code(answer) == (404, "request.not-found"), path
        assert "Kita" not in answer.text


async def test_a_member_cannot_sign_for_another(house):
    kita, nord, _ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    stolen = nord.signature_body(contract)
    refused = await kita.say(await kita.view(contract), "verify", body=stolen)
    assert code(refused) == (401, "identity.signature-invalid")
    assert house.entries(EntryType.CONTRACT_SIGNED) == []


async def test_an_envelope_sent_twenty_times_is_one_entry(house):
    kita, *_ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    view, body = await kita.view(contract), kita.signature_body(contract)
    body["message"] = spoken(view, "verify", kita.key, now_ms=house.clock.ms).to_json()
    answers = [await kita.post(f"/negotiations/{view['id']}/messages", body) for _ in range(20)]
    assert {one.status_code for one in answers} == {200}
    assert len(house.entries(EntryType.CONTRACT_SIGNED)) == 1


async def test_an_envelope_for_another_contract_is_refused(house):
    kita, *_ = nodes = await pool(house)
    first = draft(house, nodes)
    second = draft(house, nodes, contract_id="ctr_aaaaaaaaaaaaaaaa")
    await house.alice.offer(first)
    await house.alice.offer(second)
    for node in nodes:
        await node.accept(second)
    body = kita.signature_body(first)
    refused = await kita.verify(second, envelope=body["envelope"])
    assert code(refused) == (422, "log.envelope-invalid")


async def test_a_name_that_moves_the_cursor_is_refused(house):
    for name in ("Kita\x1b[2J GmbH", "Kita\u202e GmbH", " Kita GmbH", "Kita\nGmbH", "Kita\u0301 A\u030a"):
        answer = await house.alice.post("/operator/invites", INVITE | {"legal_name": name})
        assert answer.status_code in {400, 422}, ascii(name)


async def test_the_invitation_cannot_be_guessed_from_the_log(house):
    token = await house.alice.invite()
    secret = parse(unb64(token))["secret"]
    for entry in house.entries():
        assert secret.encode() not in entry.body
        assert digest(bytes.fromhex(secret)).encode() not in entry.body


# --- before the body ---


LARGE = 16 * 1024**2


class Unread:
    """A body that counts how much of it was asked for."""

    def __init__(self, size: int = LARGE) -> None:
        self.read, self.size = 0, size

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.size // 65_536):
            self.read += 65_536
            yield b"x" * 65_536


def streamed(request: httpx.Request, body: Unread, **headers: str) -> httpx.Request:
    """The signed request with another body, which announces nothing false."""
    kept = {name: value for name, value in request.headers.items() if name != "content-length"}
    return httpx.Request(
        "POST", request.url, headers=kept | {"content-length": str(body.size)} | headers, content=body
    )


def forged_signature(request: httpx.Request) -> dict[str, str]:
    signature = request.headers["signature"]
    middle = len(signature) // 2
    turned = "A" if signature[middle] != "A" else "B"
    return {"signature": signature[:middle] + turned + signature[middle + 1 :]}


OFFER = "/operator/contracts"


async def test_a_forged_signature_is_refused_before_a_byte_of_a_large_body_is_read(house):
    request, body = house.alice.signed("POST", OFFER, b"{}"), Unread()
    forged = streamed(request, body, **forged_signature(request))
    assert code(await house.http.send(forged)) == (401, "identity.signature-invalid")
    assert body.read == 0


async def test_nobodys_signature_under_a_known_key_id_is_refused_before_the_body_is_read(house):
    request, body = house.alice.signed("POST", OFFER, b"{}"), Unread()
    stranger = house.bob.signed("POST", OFFER, b"{}")
    claimed = stranger.headers["signature-input"].replace(
        key_id(house.bob.key.public), key_id(house.alice.key.public)
    )
    forged = streamed(
        request, body, **{"signature-input": claimed, "signature": stranger.headers["signature"]}
    )
    assert code(await house.http.send(forged)) == (401, "identity.signature-invalid")
    assert body.read == 0


async def test_a_nodes_signature_on_an_operators_route_is_refused_before_the_body_is_read(house):
    kita, body = await house.member("kita"), Unread()
    request = streamed(kita.signed("POST", OFFER, b"{}"), body)
    assert code(await house.http.send(request)) == (403, "identity.wrong-role")
    assert body.read == 0


async def test_a_copy_is_refused_before_the_body_is_read(house):
    request = house.alice.signed("POST", "/operator/invites", canonical(INVITE))
    assert (await house.http.send(request)).status_code == 201
    body = Unread(BODY_BYTES_JSON)
    assert code(await house.http.send(streamed(request, body))) == (409, "identity.replayed")
    assert body.read == 0


async def test_a_late_request_is_refused_before_the_body_is_read(house):
    request, body = house.alice.signed("POST", OFFER, b"{}"), Unread()
    house.clock.ms += (SIGNATURE_TTL_S + 1) * 1000
    assert code(await house.http.send(streamed(request, body))) == (401, "identity.clock")
    assert body.read == 0


async def test_a_key_sends_one_large_body_at_a_time_and_another_key_does_not_wait(house):
    gate = asyncio.Event()
    reading: list[str] = []

    async def slow(name: str) -> AsyncIterator[bytes]:
        reading.append(name)
        yield b"{"
        await gate.wait()
        yield b"}"

    def sent(who: Signer, name: str) -> asyncio.Task[httpx.Response]:
        request = who.signed("POST", OFFER, b"{}")
        kept = {key: value for key, value in request.headers.items() if key != "content-length"}
        return asyncio.create_task(
            house.http.send(httpx.Request("POST", request.url, headers=kept, content=slow(name)))
        )

    turns = house.services.large_bodies
    tasks = [sent(house.alice, "first"), sent(house.alice, "second"), sent(house.bob, "other")]
    there = {key_id(house.alice.key.public): 2, key_id(house.bob.key.public): 1}
    for _ in range(10_000):
        if turns.there == there and len(reading) > 1:
            break
        await asyncio.sleep(0)
    assert (turns.there, reading) == (there, ["first", "other"])
    gate.set()
    for one in tasks:
        await one
    assert (turns.there, reading) == ({}, ["first", "other", "second"])
