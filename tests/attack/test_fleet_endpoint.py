# SPDX-License-Identifier: Apache-2.0
"""Everything that reaches the fleet API and should not get further: strangers, other paths, large bodies,
other nodes' things."""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import pytest

from broker.federation.engine import Failure, Reply
from broker.federation.errors import (
    AlreadyRunningError,
    FleetKeyError,
    FleetKeyTakenError,
    NotRunningError,
    RunLimitError,
)
from broker.federation.flower.grid import FlowerEngine
from broker.federation.flower.names import HANDLERS, PROTOBUF_REQUEST_TYPES, fleet_id
from policies.exchange import peek_request, seal_reply, tensor_bytes, tensor_spec
from policies.limits import FLEET_CHUNK_BYTES, MAX_ACTIVE_RUNS
from tests.enginesim import CLOCK, Fleet, run
from tests.fleetsim import (
    CONTRACT,
    RECIPE,
    RawNode,
    composed,
    digests,
    fleet_key,
    make_desk,
    name_of,
    node_key,
    public_pem,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

SMALL = np.arange(6, dtype=np.float32)
LARGE = np.zeros(FLEET_CHUNK_BYTES // 4 * 2 + 5, dtype=np.float32)


def test_strangers_get_401_at_once_and_hold_nothing(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        kind = PROTOBUF_REQUEST_TYPES["POST", "/v1/fleet/pull-messages"]
        own = kind(node={"node_id": fleet_id(public_pem(node.key))}).SerializeToString()
        other = kind(node={"node_id": fleet_id(public_pem(fleet.nodes[1].key))}).SerializeToString()
        stranger = RawNode(fleet.engine.endpoint, 9)
        signed = node.headers()
        forged = {**signed, list(signed)[1]: "AAAA"}
        tries = [
            ("pull-messages", own, {"content-type": "application/protobuf"}),
            ("pull-messages", own, node.headers(age_s=400)),
            ("pull-messages", own, node.headers(age_s=-60)),
            ("pull-messages", own, stranger.headers()),
            ("pull-messages", own, forged),
            ("pull-messages", other, signed),
            ("pull-messages", kind().SerializeToString(), stranger.headers()),
        ]
        began = time.monotonic()
        for operation, data, headers in tries:
            answer = await node.post(operation, data, headers)
            assert (answer.status_code, answer.content) == (401, b"")
        assert (await stranger.call("activate-node"))[0] == 401
        assert time.monotonic() - began < 0.1 * (len(tries) + 1)
        assert all(node.received_bytes < 1000 for node in fleet.engine._tables.by_node.values())

    run(tmp_path, body, hold_s=20.0)


def test_only_nine_paths_exist(tmp_path: Path) -> None:
    others = {path for _, path in PROTOBUF_REQUEST_TYPES} - {f"/v1/fleet/{name}" for name in HANDLERS}
    more = [
        "/",
        "/docs",
        "/openapi.json",
        "/v1/fleet",
        "/v1/fleet/",
        "/v1/fleet/pull-messages/",
        "/v1/fleet/get-fab",
    ]
    assert "/v1/fleet/get-fab" in others
    assert "/v1/fleet/register-node" in others
    assert len(HANDLERS) == 9

    async def body(fleet: Fleet) -> None:
        headers = fleet.nodes[0].headers()
        transport = httpx.ASGITransport(fleet.engine.endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="https://sim") as client:
            for path in sorted(others | set(more)):
                for method in ("POST", "GET"):
                    answer = await client.request(method, path, headers=headers)
                    assert (answer.status_code, answer.content) == (404, b""), path
            for name in HANDLERS:
                assert (await client.get(f"/v1/fleet/{name}", headers=headers)).status_code == 404
                plain = await client.post(
                    f"/v1/fleet/{name}", headers={**headers, "content-type": "text/plain"}
                )
                assert plain.status_code == 404

    run(tmp_path, body)


def test_a_large_body_is_not_read_to_its_end(tmp_path: Path) -> None:
    sent = 0

    async def drip() -> AsyncIterator[bytes]:
        nonlocal sent
        for _ in range(20):
            sent += 1
            yield bytes(1024 * 1024)

    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        transport = httpx.ASGITransport(fleet.engine.endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="https://sim") as client:
            whole = await client.post(
                "/v1/fleet/push-object", content=bytes(20_000_000), headers=node.headers()
            )
            assert whole.status_code == 413
            dripped = await client.post("/v1/fleet/push-object", content=drip(), headers=node.headers())
            assert dripped.status_code == 413
        assert sent <= 9

    run(tmp_path, body)


def test_a_body_that_drips_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("broker.federation.flower.endpoint.FLEET_BODY_S", 0.05)

    async def drip() -> AsyncIterator[bytes]:
        while True:
            await asyncio.sleep(0.01)
            yield b"x"

    async def body(fleet: Fleet) -> None:
        transport = httpx.ASGITransport(fleet.engine.endpoint)
        async with httpx.AsyncClient(transport=transport, base_url="https://sim") as client:
            slow = await client.post(
                "/v1/fleet/push-object", content=drip(), headers=fleet.nodes[0].headers()
            )
        assert slow.status_code == 408

    run(tmp_path, body)


def test_what_is_no_protobuf_gets_400(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        answer = await fleet.nodes[0].post("pull-messages", b"\xff\xff\xff")
        assert answer.status_code == 400

    run(tmp_path, body)


def test_an_exchange_works_message_by_message(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        for round_, tensor in enumerate((SMALL, LARGE), 1):
            asked = fleet.ask(tensor, 0, 1, round_=round_)
            await asyncio.sleep(0)
            for node in fleet.nodes:
                desk = make_desk(tmp_path, index=node.index, clock=CLOCK)
                assert await node.answer(desk, tensor_bytes(tensor)) == 200
            found = await asked
            assert digests(found) == dict.fromkeys((name_of(0), name_of(1)), tensor_spec(tensor + 1).digest)
            assert fleet.empty()
            for one in found:
                assert isinstance(one, Reply)
                assert one.tensor is not None
                one.tensor.release()
        assert list((tmp_path / "broker" / "fleet-objects").iterdir()) == []

    run(tmp_path, body)


def test_a_node_reaches_only_its_own_messages_and_objects(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        victim, rival = fleet.nodes
        asked = fleet.ask(SMALL, 0, seconds=1.5)
        await asyncio.sleep(0)
        message, tree = await victim.pull()
        run_id = message.metadata.run_id
        config = tree.children[0].children[0].object_id
        raw = seal_reply(
            node_key(1),
            peek_request(await victim.header(message, tree)),
            status="ok",
            code=None,
            tensor=tensor_spec(SMALL),
            body={},
        )
        before = fleet.engine.traffic(name_of(1))["pulled_objects"]
        assert (await rival.call("pull-object", run_id=run_id, object_id=config))[0] == 404
        confirm = await rival.call(
            "confirm-message-received", run_id=run_id, message_object_id=tree.object_id
        )
        assert confirm[0] == 404
        assert await rival.push(message, raw, tensor_bytes(SMALL)) == 404
        pushed = await rival.call(
            "push-object", run_id=run_id, object_id=config, object_content=b"x", session_id=""
        )
        assert pushed[0] == 404
        assert fleet.engine.traffic(name_of(1))["pulled_objects"] == before
        # the victim's own answer still counts
        good = make_desk(tmp_path, clock=CLOCK).local(
            {"iriai": 1, "run": "run_simaaaaaaaaaaaaa", "contract": CONTRACT, "recipe": RECIPE},
            await victim.header(message, tree),
            "train.contribute",
            (1, 0),
            tensor_bytes(SMALL),
        )
        assert isinstance(good, tuple)
        assert await victim.push(message, *good) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(SMALL + 1).digest}

    run(tmp_path, body)


def test_a_late_reply_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        for upload in (False, True):
            asked = fleet.ask(SMALL, 0, 1, seconds=0.4)
            await asyncio.sleep(0)
            message, tree = await fleet.nodes[0].pull()
            header = await fleet.nodes[0].header(message, tree)
            spec = tensor_spec(SMALL)
            raw = seal_reply(node_key(0), peek_request(header), status="ok", code=None, tensor=spec, body={})
            if not upload:  # announced in time, never sent
                assert await fleet.nodes[0].push(message, raw, tensor_bytes(SMALL), upload=False) == 200
            began = time.monotonic()
            assert digests(await asked) == {name_of(0): "engine.late", name_of(1): "engine.late"}
            assert time.monotonic() - began < 0.6
            assert await fleet.nodes[0].push(message, raw, tensor_bytes(SMALL)) == 404
            assert fleet.empty()

    run(tmp_path, body)


def test_need_returns_before_the_deadline(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0, 1, 2, seconds=20, need=2)
        await asyncio.sleep(0)
        for node in fleet.nodes[:2]:
            assert await node.answer(tensor=tensor_bytes(SMALL)) == 200
        found = digests(await asyncio.wait_for(asked, 1))
        assert found == {
            name_of(0): tensor_spec(SMALL).digest,
            name_of(1): tensor_spec(SMALL).digest,
            name_of(2): "engine.late",
        }
        assert fleet.empty()

    run(tmp_path, body, nodes=3)


@pytest.mark.parametrize(
    ("tensor", "code", "status"),
    [
        (np.zeros(7, np.float32), "engine.reply-malformed", 200),
        (np.zeros(100_000, np.float32), "engine.too-large", 413),
        (np.zeros(60_000, np.float32), "engine.too-large", 413),
        (None, "engine.reply-malformed", 200),
    ],
)
def test_a_reply_of_another_size_fails_its_node_at_once(
    tmp_path: Path, tensor: np.ndarray | None, code: str, status: int
) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0, 1)
        await asyncio.sleep(0)
        data = None if tensor is None else tensor_bytes(tensor)
        assert await fleet.nodes[0].answer(tensor=data) == status
        assert await fleet.nodes[1].answer(tensor=tensor_bytes(SMALL)) == 200
        outcomes = digests(await asyncio.wait_for(asked, 2))
        assert outcomes == {name_of(0): code, name_of(1): tensor_spec(SMALL).digest}
        assert fleet.empty()

    run(tmp_path, body)


def test_a_tree_of_three_thousand_objects_fails_its_node_at_once(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        message, tree = await fleet.nodes[0].pull()
        header = await fleet.nodes[0].header(message, tree)
        raw = seal_reply(node_key(0), peek_request(header), status="ok", code=None, tensor=None, body={})
        proto, answer, _ = composed(message, raw, None)
        for at in range(3000):
            answer.children[0].children.add(object_id=f"{at:064x}")
        status, _ = await fleet.nodes[0].call(
            "push-messages",
            messages_list=[proto],
            message_object_trees=[answer],
            clientapp_runtime_list=[0.0],
        )
        assert status == 413
        assert digests(await asyncio.wait_for(asked, 1)) == {name_of(0): "engine.too-many-objects"}
        assert fleet.empty()

    run(tmp_path, body)


def test_garbage_objects_and_other_bytes_fail_their_node_at_once(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        for content in (b"garbage", b"ConfigRecord  4\0body"):
            asked = fleet.ask(SMALL, 0)
            await asyncio.sleep(0)
            message, tree = await fleet.nodes[0].pull()
            header = await fleet.nodes[0].header(message, tree)
            raw = seal_reply(node_key(0), peek_request(header), status="ok", code=None, tensor=None, body={})
            proto, answer, _ = composed(message, raw, None)
            _, pushed = await fleet.nodes[0].call(
                "push-messages",
                messages_list=[proto],
                message_object_trees=[answer],
                clientapp_runtime_list=[0.0],
            )
            await fleet.nodes[0].call(
                "push-object",
                run_id=message.metadata.run_id,
                session_id=pushed.session_id,
                object_id=pushed.objects_to_push[0],
                object_content=content,
            )
            assert digests(await asyncio.wait_for(asked, 1)) == {name_of(0): "engine.reply-malformed"}
            assert fleet.empty()

    run(tmp_path, body)


@pytest.mark.parametrize("body_bytes", [b"\xff\xff", b"", b"\x0a\x05\x0a\x01h"])
def test_a_record_with_the_right_id_and_a_wrong_content_fails_its_node(
    tmp_path: Path, body_bytes: bytes
) -> None:
    from policies.frames import frame, object_id

    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        message, tree = await fleet.nodes[0].pull()
        header = await fleet.nodes[0].header(message, tree)
        raw = seal_reply(node_key(0), peek_request(header), status="ok", code=None, tensor=None, body={})
        proto, answer, _ = composed(message, raw, None)
        config = frame("ConfigRecord", (), body_bytes)
        answer.children[0].children[0].object_id = object_id(config)
        _, pushed = await fleet.nodes[0].call(
            "push-messages",
            messages_list=[proto],
            message_object_trees=[answer],
            clientapp_runtime_list=[0.0],
        )
        status, _ = await fleet.nodes[0].call(
            "push-object",
            run_id=message.metadata.run_id,
            session_id=pushed.session_id,
            object_id=pushed.objects_to_push[0],
            object_content=config,
        )
        assert status == 200
        assert digests(await asyncio.wait_for(asked, 1)) == {name_of(0): "engine.reply-malformed"}
        assert fleet.empty()

    run(tmp_path, body)


def test_equal_tensors_cost_the_same_bytes_and_arrive_four_times(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(LARGE, *range(4))
        await asyncio.sleep(0)
        sent = []
        for node in fleet.nodes:
            before = fleet.engine.traffic(name_of(node.index))["received"]
            assert await node.answer(tensor=tensor_bytes(LARGE)) == 200
            sent.append(fleet.engine.traffic(name_of(node.index))["received"] - before)
        assert digests(await asked) == {name_of(index): tensor_spec(LARGE).digest for index in range(4)}
        assert max(sent) - min(sent) < 64
        assert min(sent) > FLEET_CHUNK_BYTES  # two equal chunks travel as one object, from every node
        assert fleet.empty()

    run(tmp_path, body, nodes=4)


def test_an_error_leaves_a_code_and_never_a_text(tmp_path: Path) -> None:
    from flwr.common.serde import message_from_proto, message_to_proto

    from client.federation.names import ObjectTree, error_message, reply_metadata
    from policies.frames import object_id

    async def body(fleet: Fleet) -> None:
        for said, code in (
            ("engine.run-refused", "engine.run-refused"),
            ("row 17: SECRET", "engine.refused"),
        ):
            asked = fleet.ask(SMALL, 0)
            await asyncio.sleep(0)
            message, _ = await fleet.nodes[0].pull()
            metadata = reply_metadata(message_from_proto(message).metadata)
            row, data = error_message(metadata, said)
            metadata.__dict__["_message_id"] = object_id(data)
            status, _ = await fleet.nodes[0].call(
                "push-messages",
                messages_list=[message_to_proto(row)],
                message_object_trees=[ObjectTree(object_id=object_id(data))],
                clientapp_runtime_list=[0.0],
            )
            assert status == 200
            assert await asyncio.wait_for(asked, 1) == [Failure(node=name_of(0), code=code)]
            assert fleet.empty()

    run(tmp_path, body)


def test_a_second_poll_ends_the_first_and_takes_the_message(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        first = asyncio.create_task(
            fleet.nodes[0].post("pull-messages", _own(fleet.nodes[0], "pull-messages"))
        )
        await asyncio.sleep(0.05)
        second = asyncio.create_task(fleet.nodes[0].call("pull-messages"))
        await asyncio.sleep(0.05)
        asked = fleet.ask(SMALL, 0, seconds=1)
        status, answer = await second
        assert (status, len(answer.messages_list)) == (200, 1)
        with pytest.raises((AssertionError, httpx.HTTPError)):  # nothing was answered to the first
            await first
        await asked

    run(tmp_path, body, hold_s=5.0)


def _own(node: RawNode, operation: str) -> bytes:
    kind = PROTOBUF_REQUEST_TYPES["POST", f"/v1/fleet/{operation}"]
    data: bytes = kind(node={"node_id": fleet_id(public_pem(node.key))}).SerializeToString()
    return data


def test_a_poll_whose_client_left_takes_no_message(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        left = asyncio.Event()
        data = _own(node, "pull-messages")
        sent: list[Any] = []
        headers = [(k.encode(), v.encode()) for k, v in node.headers().items()]
        queue = [{"type": "http.request", "body": data, "more_body": False}]

        async def receive() -> dict[str, Any]:
            if queue:
                return queue.pop()
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Any) -> None:
            sent.append(message)

        scope = {"type": "http", "method": "POST", "path": "/v1/fleet/pull-messages", "headers": headers}
        held = asyncio.create_task(fleet.engine.endpoint(scope, receive, send))
        await asyncio.sleep(0.02)
        left.set()
        await held
        assert sent == []
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        assert await node.answer(tensor=tensor_bytes(SMALL)) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(SMALL).digest}

    run(tmp_path, body, hold_s=5.0)


def test_a_message_lost_after_delivery_is_sent_again_once(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0, seconds=5)
        await asyncio.sleep(0)
        first, _ = await fleet.nodes[0].pull()  # and never confirmed
        began = time.monotonic()
        second, _ = await fleet.nodes[0].pull()
        assert 0.1 < time.monotonic() - began < 1
        assert first.metadata.message_id != second.metadata.message_id
        status, answer = await fleet.nodes[0].call("pull-messages")
        assert (status, len(answer.messages_list)) == (200, 0)
        asked.cancel()

    run(tmp_path, body, hold_s=1.0, resend_s=0.2)


def test_a_confirmed_message_is_not_sent_again(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0, seconds=5)
        await asyncio.sleep(0)
        message, tree = await fleet.nodes[0].pull()
        status, _ = await fleet.nodes[0].call(
            "confirm-message-received", run_id=message.metadata.run_id, message_object_id=tree.object_id
        )
        assert status == 200
        _, answer = await fleet.nodes[0].call("pull-messages")
        assert len(answer.messages_list) == 0
        asked.cancel()

    run(tmp_path, body, hold_s=0.5, resend_s=0.2)


def test_a_node_that_comes_back_gets_its_open_message_again(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        await fleet.nodes[0].pull()
        assert (await fleet.nodes[0].call("activate-node"))[
            0
        ] == 200  # its process was killed; Flower thinks it online
        assert await fleet.nodes[0].answer(tensor=tensor_bytes(SMALL)) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(SMALL).digest}

    run(tmp_path, body)


def test_revoking_a_node_ends_its_poll_its_request_and_its_key(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        engine, node = fleet.engine, fleet.nodes[0]
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        await node.pull()
        held = asyncio.create_task(node.call("pull-messages"))
        await asyncio.sleep(0.05)
        engine.revoke(name_of(0))
        engine.revoke(name_of(0))
        assert (await held)[0] == 401
        assert await asked == [Failure(node=name_of(0), code="engine.revoked")]
        assert (await node.call("activate-node"))[0] == 401
        assert engine.online() == {name_of(1)}
        with pytest.raises(FleetKeyTakenError):
            engine.enrol(name_of(0), public_pem(node.key), node_key(0).public)

    run(tmp_path, body, hold_s=5.0)


def test_a_suspended_node_is_put_out_and_comes_back_with_the_same_key(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        engine, node = fleet.engine, fleet.nodes[0]
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        await node.pull()
        engine.suspend(name_of(0))
        assert await asked == [Failure(node=name_of(0), code="engine.revoked")]
        assert (await node.call("activate-node"))[0] == 401
        assert engine.online() == {name_of(1)}
        engine.enrol(name_of(0), public_pem(node.key), node_key(0).public)
        assert (await node.call("activate-node"))[0] == 200
        engine.suspend(name_of(0))
        engine.revoke(name_of(0))
        assert (await node.call("activate-node"))[0] == 401
        with pytest.raises(FleetKeyTakenError):
            engine.enrol(name_of(0), public_pem(node.key), node_key(0).public)

    run(tmp_path, body)


def test_a_fleet_key_is_enrolled_once_and_is_p256(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric import ec

    async def body(fleet: Fleet) -> None:
        pem = public_pem(fleet_key(0))
        fleet.engine.enrol(name_of(0), pem, node_key(0).public)
        for node, key, owner in (
            (name_of(5), pem, 5),
            (name_of(0), public_pem(fleet_key(7)), 0),
            (name_of(0), pem, 3),
        ):
            with pytest.raises(FleetKeyTakenError):
                fleet.engine.enrol(node, key, node_key(owner).public)
        for bad in (b"no pem", public_pem(ec.generate_private_key(ec.SECP384R1()))):
            with pytest.raises(FleetKeyError):
                fleet.engine.enrol(name_of(6), bad, node_key(6).public)

    run(tmp_path, body)


def test_a_run_that_is_over_answers_403_and_runs_are_bounded(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        run_id = fleet.opened.handle
        status, answer = await fleet.nodes[0].call("get-run", run_id=run_id)
        assert status == 200
        assert (answer.run.fab_hash, answer.run.fab_id) == ("", "")
        assert set(answer.run.override_config) == {"iriai", "run", "contract", "recipe"}
        for _ in range(MAX_ACTIVE_RUNS - 1):
            await fleet.engine.open_run(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
        with pytest.raises(RunLimitError):
            await fleet.engine.open_run(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
        asked = fleet.ask(SMALL, 0)
        await asyncio.sleep(0)
        await fleet.engine.close_run(fleet.opened, ok=True)
        assert await asked == [Failure(node=name_of(0), code="engine.late")]
        assert (await fleet.nodes[0].call("get-run", run_id=run_id))[0] == 403
        assert (await fleet.nodes[0].call("get-run", run_id=12345))[0] == 403
        with pytest.raises(NotRunningError):
            await fleet.ask(SMALL, 0)

    run(tmp_path, body)


def test_one_process_serves_a_folder_and_a_restart_keeps_the_ids(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        with pytest.raises(AlreadyRunningError) as caught:
            FlowerEngine(state_dir=tmp_path / "broker", clock=CLOCK)
        assert caught.value.code == "engine.already-running"
        await fleet.engine.stop()
        again = FlowerEngine(state_dir=tmp_path / "broker", clock=CLOCK, hold_s=0.1)
        again.enrol(name_of(0), public_pem(fleet.nodes[0].key), node_key(0).public)
        assert again.online() == frozenset()
        assert again.seen_ms() == {}  # nobody was heard since the start
        node = RawNode(again.endpoint, 0)
        assert (await node.call("pull-messages"))[0] == 200  # it never noticed
        assert again.online() == {name_of(0)}
        assert list(again.seen_ms()) == [name_of(0)]
        await again.stop()

    run(tmp_path, body)


def test_a_node_that_never_came_fails_at_once(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        fleet.engine.enrol(name_of(7), public_pem(fleet_key(7)), node_key(7).public)
        found = digests(await asyncio.wait_for(fleet.ask(SMALL, 7, 8), 1))
        assert found == {name_of(7): "engine.unreachable", name_of(8): "engine.unreachable"}

    run(tmp_path, body)


def test_a_node_has_four_requests_at_a_time(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        fleet.engine._tables.by_node[name_of(0)].working = 4
        assert (await fleet.nodes[0].call("send-node-heartbeat", heartbeat_interval=30.0))[0] == 503
        assert (await fleet.nodes[1].call("send-node-heartbeat", heartbeat_interval=30.0))[0] == 200

    run(tmp_path, body)


def test_a_server_that_stops_holds_nobody(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        held = asyncio.create_task(fleet.nodes[0].call("pull-messages"))
        await asyncio.sleep(0.05)
        fleet.engine.drain()
        status, answer = await asyncio.wait_for(held, 1)
        assert (status, len(answer.messages_list)) == (200, 0)

    run(tmp_path, body, hold_s=20.0)
