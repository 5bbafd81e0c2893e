# SPDX-License-Identifier: Apache-2.0
"""Documents that are nested deep: to the edge of the broker, to the auditor, to a node that hears notices.

Python gives up at a depth that depends on who called; ours is a bound of its own, so that the answer is a refusal everywhere.
"""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from client.node import _heed
from policies.encoding import canonical, parse
from policies.errors import EncodingError
from policies.exchange import ExchangeType
from policies.limits import JSON_DEPTH
from policies.log.bundle import files_of, manifest_of
from policies.signing import Envelope, parse_envelope_json
from policies.verify import verify
from tests.auditsim import PoolSim, repacked
from tests.brokersim import House, NodeSim, draft, open_house, pool
from tests.nodeworld import ready_world

DEPTHS = (JSON_DEPTH + 1, 300, 490, 700, 900, 1_500, 20_000)


def nested(depth: int, kind: str = "list") -> Any:
    """A value of this depth, made without recursion."""
    value: Any = 1
    for _ in range(depth):
        value = [value] if kind == "list" else {"a": value}
    return value


def bomb(depth: int) -> bytes:
    return b"[" * depth + b"]" * depth


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


# --- canonical bytes ---


@pytest.mark.parametrize("kind", ["list", "dict"])
@pytest.mark.parametrize("depth", DEPTHS)
@pytest.mark.parametrize("beside", [None, 1.5, "é", object()])  # the slow way, and what has no canonical form
def test_a_deep_value_has_no_canonical_form_whatever_stands_beside_it(kind: str, depth: int, beside: Any):
    for value in (
        nested(depth, kind),
        [beside, nested(depth, kind)],
        {"é": beside, "z": nested(depth, kind)},
    ):
        with pytest.raises(EncodingError):
            canonical(value)


def test_the_bound_is_the_same_however_deep_the_caller_stands():
    def called(frames: int, depth: int) -> bytes:
        return canonical(nested(depth)) if frames == 0 else called(frames - 1, depth)

    for frames in (0, 300, 600):
        assert called(frames, JSON_DEPTH) == b"[" * JSON_DEPTH + b"1" + b"]" * JSON_DEPTH
        with pytest.raises(EncodingError, match=str(JSON_DEPTH)):
            called(frames, JSON_DEPTH + 1)


@pytest.mark.parametrize("read", [parse, parse_envelope_json, Envelope.from_bytes])
@pytest.mark.parametrize("depth", DEPTHS)
def test_no_reader_of_documents_fails_on_deep_bytes(read: Any, depth: int):
    for data in (bomb(depth), b'{"a":' * depth + b"1" + b"}" * depth):
        with pytest.raises(EncodingError):
            read(data)


# --- the broker's edge ---


@pytest.mark.parametrize("depth", DEPTHS)
async def test_a_deep_body_of_a_member_or_a_stranger_is_refused(house: House, depth: int):
    nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    lane = f"/negotiations/{await nodes[0].negotiation(contract)}/messages"
    stranger = NodeSim(house, "stranger")
    body = b'{"message":' + b'{"a":' * depth + b"1" + b"}" * depth + b"}"
    notices = f"/contracts/{contract.digest}/notices"
    for who, path in ((nodes[0], lane), (nodes[0], notices), (stranger, "/membership/join")):
        answer = await house.http.send(who.signed("POST", path, body))
        assert (answer.status_code, answer.json()["code"]) == (400, "encoding.not-canonical"), path


# --- the auditor ---


@pytest.fixture(scope="module")
def pool_sim() -> PoolSim:
    return PoolSim(eventful=True).build()


_READ = (
    "contracts/",
    "annexes/",
    "notices/",
    "statements/",
    "envelopes/",
    "decisions/",
    "receipts/",
    "keys/",
    "BUNDLE",
)


@pytest.mark.parametrize("depth", [100, 700, 980, 20_000])
def test_a_deep_file_of_a_bundle_is_a_finding_and_the_audit_goes_on(pool_sim: PoolSim, depth: int):
    files = files_of(pool_sim.contents())
    names = [one for one in files if one.startswith(_READ)]
    assert {one.partition("/")[0] for one in names} >= {"contracts", "notices", "statements", "envelopes"}
    for name in names:
        for data in (bomb(depth), bomb(depth) + b"\n"):
            changed = {**files, name: data}
            changed["MANIFEST"] = manifest_of({key: one for key, one in changed.items() if key != "MANIFEST"})
            report = verify(repacked(changed), pool_sim.policy)
            assert report.exit_code == 3, name
            assert report.findings, name


def test_a_deep_payload_under_a_good_signature_is_a_finding(pool_sim: PoolSim):
    files = files_of(pool_sim.contents())
    for folder in ("notices/", "statements/"):
        name = next(one for one in files if one.startswith(folder))
        kind = json.loads(files[name])["payloadType"]
        sealed = Envelope.seal(bomb(700), kind, pool_sim.broker_key)
        changed = {**files, name: sealed.to_bytes()}
        changed["MANIFEST"] = manifest_of({key: one for key, one in changed.items() if key != "MANIFEST"})
        assert verify(repacked(changed), pool_sim.policy).exit_code == 3, name


# --- the node that hears ---


@pytest.mark.parametrize("depth", DEPTHS)
def test_a_deep_notice_is_not_heard_and_the_hearing_goes_on(
    tmp_path: Path, depth: int, capsys: pytest.CaptureFixture[str]
):
    world = ready_world(tmp_path)
    world.ask(ExchangeType.PING)
    base = f"/contracts/{world.contract.digest}"
    world.broker.routes[f"{base}/lifecycle"] = lambda *_: {"notices": [{"digest": "sha256:" + "5" * 64}]}
    world.broker.routes[f"{base}/notices/" + "5" * 64] = lambda *_: bomb(depth)
    outbox = world.outbox()
    _heed(world.member, world.shelf(), outbox)
    outbox.close()
    assert "encoding.not-canonical" in capsys.readouterr().err
    world.worker.close()
