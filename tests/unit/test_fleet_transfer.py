# SPDX-License-Identifier: Apache-2.0
"""What is small rides in the message, chunks come once, and whatever is lost on the way is sent again, once."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from broker.federation.engine import Reply
from client.federation import names, transfer
from client.federation.errors import RequestInvalidError, TooLargeError
from client.federation.handlers import Answer
from policies.encoding import digest
from policies.errors import EncodingError
from policies.exchange import TensorSpec, peek_request, seal_reply, tensor_bytes, tensor_spec
from policies.frames import (
    ARRAY_KEY,
    BLOB_KEY,
    HEADER_KEY,
    INLINE,
    array_frame,
    chunk_id,
    chunk_order,
    frame,
    object_id,
    put_content,
    read_content,
    split,
)
from policies.limits import FLEET_CHUNK_BYTES, FLEET_INLINE_BYTES
from tests.enginesim import Fleet, run
from tests.fleetsim import composed, digests, header_of, name_of, node_key

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

SMALL = np.arange(6, dtype=np.float32)
LARGE = np.arange(FLEET_CHUNK_BYTES // 4 * 2 + 5, dtype=np.float32)


def _reply(header: bytes, tensor: np.ndarray | None, *, index: int = 0) -> bytes:
    """A signed reply; its header names a tensor of the same values."""
    spec = None if tensor is None else tensor_spec(tensor)
    return seal_reply(node_key(index), peek_request(header), status="ok", code=None, tensor=spec, body={})


async def _asked(fleet: Fleet, tensor: np.ndarray, *, index: int = 0) -> tuple[Any, Any, Any, bytes]:
    """An exchange with a node that takes small parts in the message: its task, message, tree and header."""
    asked = fleet.ask(tensor, index)
    message, tree = await fleet.nodes[index].pull(inline=True)
    content = read_content(message)
    assert content is not None
    return asked, message, tree, content[HEADER_KEY]


# --- in the message ---


def test_a_small_exchange_is_one_pull_and_one_push(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        before = fleet.engine.endpoint.requests
        asked, message, _, header = await _asked(fleet, SMALL)
        assert read_content(message) == {HEADER_KEY: header, BLOB_KEY: tensor_bytes(SMALL)}
        assert await node.push(message, _reply(header, SMALL), tensor_bytes(SMALL), inline=True) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(SMALL).digest}
        assert fleet.engine.endpoint.requests - before == 2
        assert fleet.empty()

    run(tmp_path, body)


def test_of_a_large_exchange_only_the_chunks_are_objects(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        asked, message, tree, header = await _asked(fleet, LARGE)
        content = read_content(message)
        assert content is not None
        order = chunk_order(content[ARRAY_KEY])
        assert set(order) == transfer.tree_shape(tree)[2]
        instruction = next(iter(fleet.engine._tables.instructions.values()))
        instruction.delivered_s = 0.0
        status, first = await node.call("pull-object", run_id=message.metadata.run_id, object_id=order[0])
        assert instruction.delivered_s > 0  # on its way: not lost
        assert (status, object_id(first.object_content)) == (200, order[0])
        before = fleet.engine.endpoint.requests
        assert await node.push(message, _reply(header, LARGE), tensor_bytes(LARGE), inline=True) == 200
        assert fleet.engine.endpoint.requests - before == 1 + len(order)
        found = await asked
        assert digests(found) == {name_of(0): tensor_spec(LARGE).digest}
        for one in found:
            assert isinstance(one, Reply)
            assert one.tensor is not None
            one.tensor.release()
        assert fleet.empty()

    run(tmp_path, body)


def test_who_does_not_ask_for_it_gets_objects(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        asked = fleet.ask(SMALL, 0)
        message, tree = await fleet.nodes[0].pull()
        assert read_content(message) is None
        header = await fleet.nodes[0].header(message, tree)
        assert await fleet.nodes[0].push(message, _reply(header, SMALL), tensor_bytes(SMALL)) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(SMALL).digest}

    run(tmp_path, body)


def _content(**fields: bytes | str) -> Any:
    """A message with one record of these fields."""
    message = names.ProtoMessage()
    record = message.content.items.add(key="c").config_record
    for key, value in fields.items():
        item = record.items.add(key=key).value
        if isinstance(value, bytes):
            item.bytes = value
        else:
            item.string = value
    return message


def test_a_content_that_is_not_ours_is_refused() -> None:
    for message in (
        _content(b=b"no header"),
        _content(h="text"),
        _content(h=b"h", x=b"another key"),
        _content(h=b"h", a=b"both", b=b"both"),
        _content(h=b"h", b=bytes(FLEET_INLINE_BYTES)),
    ):
        with pytest.raises(EncodingError):
            read_content(message)
    two = _content(h=b"h")
    two.content.items.add(key="c")
    with pytest.raises(EncodingError):
        read_content(two)
    assert read_content(names.ProtoMessage()) is None
    assert read_content(_content(h=b"h", b=b"")) == {"h": b"h", "b": b""}


@pytest.mark.parametrize(
    ("change", "status", "code"),
    [
        ({BLOB_KEY: bytes(200_000)}, 413, "engine.too-large"),
        ({"x": b"another key"}, 404, "engine.reply-malformed"),
        ({ARRAY_KEY: b"no Array", BLOB_KEY: None}, 404, "engine.reply-malformed"),
        (
            {ARRAY_KEY: array_frame("float32", (6,), ["a" * 64]), BLOB_KEY: None},
            404,
            "engine.reply-malformed",
        ),
        ({HEADER_KEY: b"no header"}, 200, "engine.reply-malformed"),
        ({BLOB_KEY: bytes(23)}, 200, "engine.reply-malformed"),
        ({BLOB_KEY: None}, 200, "engine.reply-malformed"),
    ],
)
def test_a_reply_of_another_form_fails_its_node_at_once(
    tmp_path: Path, change: dict[str, bytes | None], status: int, code: str
) -> None:
    async def body(fleet: Fleet) -> None:
        asked, message, _, header = await _asked(fleet, SMALL)
        good = {HEADER_KEY: _reply(header, SMALL), BLOB_KEY: tensor_bytes(SMALL)}
        content = {key: value for key, value in (good | change).items() if value is not None}
        proto, tree, _ = composed(message, good[HEADER_KEY], good[BLOB_KEY], inline=True)
        proto.ClearField("content")
        put_content(proto, content)
        said, _ = await fleet.nodes[0].call(
            "push-messages", messages_list=[proto], message_object_trees=[tree]
        )
        assert said == status
        assert digests(await asyncio.wait_for(asked, 2)) == {name_of(0): code}
        assert fleet.empty()

    run(tmp_path, body)


@pytest.mark.parametrize("inline", [True, False])
def test_a_reply_cannot_borrow_the_chunk_of_a_rival(tmp_path: Path, inline: bool) -> None:
    """The rival's chunk lies in the store; a node that knows its id names it in its own Array."""

    async def body(fleet: Fleet) -> None:
        victim, thief = fleet.nodes
        tensor = np.arange(FLEET_INLINE_BYTES // 2, dtype=np.float32)
        asked = fleet.ask(tensor, 0, 1)
        message, tree = await victim.pull()
        header = await victim.header(message, tree)
        proto, reply_tree, rest = composed(message, _reply(header, tensor), tensor_bytes(tensor))
        _, mine = await victim.call("push-messages", messages_list=[proto], message_object_trees=[reply_tree])
        stolen = chunk_id(memoryview(tensor_bytes(tensor)))
        run_id = message.metadata.run_id
        own = {"run_id": run_id, "session_id": mine.session_id}
        stored, _ = await victim.call("push-object", **own, object_id=stolen, object_content=rest.pop(stolen))
        assert stored == 200

        message, tree = await thief.pull()
        header = await thief.header(message, tree)
        raw = _reply(header, tensor, index=1)
        proto, reply_tree, objects = composed(message, raw, tensor_bytes(tensor), inline=inline)
        if inline:
            del reply_tree.children[:]
        else:  # the tree says nothing of the chunk that the Array names
            del reply_tree.children[0].children[1].children[0].children[:]
        status, answer = await thief.call(
            "push-messages", messages_list=[proto], message_object_trees=[reply_tree]
        )
        for name in () if answer is None else answer.objects_to_push:
            sent = {"run_id": run_id, "session_id": answer.session_id, "object_id": name}
            await thief.call("push-object", **sent, object_content=objects[name])
        assert status == (404 if inline else 200)
        for name in mine.objects_to_push:
            if name in rest:
                await victim.call("push-object", **own, object_id=name, object_content=rest[name])
        wanted = {name_of(0): tensor_spec(tensor).digest, name_of(1): "engine.reply-malformed"}
        assert digests(await asked) == wanted

    run(tmp_path, body)


# --- lost on the way ---


def test_a_reply_whose_answer_was_lost_may_come_again_and_counts_once(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        asked, message, _, header = await _asked(fleet, LARGE)
        raw = _reply(header, LARGE)
        proto, tree, objects = composed(message, raw, tensor_bytes(LARGE), inline=True)
        push = {"messages_list": [proto], "message_object_trees": [tree]}
        _, first = await node.call("push-messages", **push)
        _, again = await node.call("push-messages", **push)
        assert set(again.objects_to_push) == set(first.objects_to_push) == set(objects)
        assert again.session_id == first.session_id
        for name, data in objects.items():
            sent = {"run_id": message.metadata.run_id, "session_id": first.session_id, "object_id": name}
            for _ in range(2):
                status, answer = await node.call("push-object", **sent, object_content=data)
                assert (status, answer.stored) == (200, True)
        assert digests(await asked) == {name_of(0): tensor_spec(LARGE).digest}
        status, late = await node.call("push-messages", **push)  # and once more when all is settled
        assert (status, list(late.objects_to_push)) == (200, [])
        other, other_tree, _ = composed(message, _reply(header, SMALL), tensor_bytes(SMALL), inline=True)
        status, _ = await node.call("push-messages", messages_list=[other], message_object_trees=[other_tree])
        assert status == 404
        assert fleet.empty()

    run(tmp_path, body)


def test_what_was_lost_after_delivery_is_sent_with_the_next_pull_once(tmp_path: Path) -> None:
    async def body(fleet: Fleet) -> None:
        node = fleet.nodes[0]
        asked, first, _, _ = await _asked(fleet, SMALL)
        second, _ = await node.pull(inline=True)  # the first never reached it
        assert second.metadata.message_id != first.metadata.message_id
        status, answer = await node.call("pull-messages", message_ids=[INLINE])
        assert (status, len(answer.messages_list)) == (200, 0)
        header = (read_content(second) or {})[HEADER_KEY]
        assert await node.push(second, _reply(header, SMALL), tensor_bytes(SMALL), inline=True) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(SMALL).digest}

    run(tmp_path, body, hold_s=0.2)


@pytest.mark.parametrize("back", ["pull", "activate"])
def test_a_half_sent_reply_goes_on_where_it_stopped(tmp_path: Path, back: str) -> None:
    async def body(fleet: Fleet) -> None:
        node, tensor = fleet.nodes[0], tensor_bytes(LARGE)
        asked, message, _, header = await _asked(fleet, LARGE)
        before = fleet.engine.traffic(name_of(0))["received"]
        proto, tree, objects = composed(message, _reply(header, LARGE), tensor, inline=True)
        _, answer = await node.call("push-messages", messages_list=[proto], message_object_trees=[tree])
        name = next(iter(objects))
        sent = {"run_id": message.metadata.run_id, "session_id": answer.session_id, "object_id": name}
        assert (await node.call("push-object", **sent, object_content=objects[name]))[0] == 200

        if back == "activate":  # its process is a new one
            assert (await node.call("activate-node"))[0] == 200
        message, _ = await node.pull(inline=True)
        header = (read_content(message) or {})[HEADER_KEY]
        proto, tree, objects = composed(message, _reply(header, LARGE), tensor, inline=True)
        _, answer = await node.call("push-messages", messages_list=[proto], message_object_trees=[tree])
        assert set(answer.objects_to_push) == set(objects) - {name}
        for left in answer.objects_to_push:
            sent = {"run_id": message.metadata.run_id, "session_id": answer.session_id, "object_id": left}
            assert (await node.call("push-object", **sent, object_content=objects[left]))[0] == 200
        found = await asked
        assert digests(found) == {name_of(0): tensor_spec(LARGE).digest}
        assert fleet.engine.traffic(name_of(0))["received"] - before < len(tensor) + 10_000
        for one in found:
            assert isinstance(one, Reply)
            assert one.tensor is not None
            one.tensor.release()
        assert fleet.empty()

    run(tmp_path, body)


def test_a_reply_that_is_complete_needs_no_further_object(tmp_path: Path) -> None:
    """All chunks came for the first message; the answer to the last was lost and the process ended."""

    async def body(fleet: Fleet) -> None:
        node, tensor = fleet.nodes[0], tensor_bytes(LARGE)
        asked, message, _, header = await _asked(fleet, LARGE)
        instruction = next(iter(fleet.engine._tables.instructions.values()))
        proto, tree, objects = composed(message, _reply(header, LARGE), tensor, inline=True)
        _, answer = await node.call("push-messages", messages_list=[proto], message_object_trees=[tree])
        *most, _ = objects
        for name in most:
            sent = {"run_id": message.metadata.run_id, "session_id": answer.session_id, "object_id": name}
            await node.call("push-object", **sent, object_content=objects[name])
        assert instruction.half is not None
        fleet.engine._store.keep([*objects][-1], objects[[*objects][-1]])
        instruction.half.pending.clear()
        fleet.engine._resend(instruction)
        message, _ = await node.pull(inline=True)
        header = (read_content(message) or {})[HEADER_KEY]
        assert await node.push(message, _reply(header, LARGE), tensor, inline=True) == 200
        assert digests(await asked) == {name_of(0): tensor_spec(LARGE).digest}

    run(tmp_path, body)


# --- the node's side ---


class Shelf:
    """A connection that has these objects and remembers what was asked."""

    def __init__(self, objects: Sequence[bytes]) -> None:
        self.objects = {object_id(one): one for one in objects}
        self.pulled: list[str] = []
        self.confirmed = threading.Event()

    def pull_object(self, _run: int, name: str) -> bytes:
        self.pulled.append(name)
        return self.objects[name]

    def confirm(self, _run: int, _message: str) -> None:
        self.confirmed.set()


def _incoming(data: bytes, *, dtype: str = "float32") -> tuple[Shelf, transfer.Incoming]:
    chunks = [frame("ArrayChunk", (), part) for part in split(memoryview(data))]
    order = [object_id(one) for one in chunks]
    shelf = Shelf(chunks)
    array = array_frame(dtype, (len(data),), order)
    return shelf, transfer.Incoming(
        net=shelf,  # type: ignore[arg-type]
        run_id=1,
        header=b"",
        blob=None,
        array=array,
        array_id=None,
        chunks=frozenset(order),
    )


def _spec(data: bytes, *, count: int | None = None) -> TensorSpec:
    return TensorSpec(digest=digest(data), dtype="uint8", shape=(len(data) if count is None else count,))


def test_chunks_come_into_one_buffer_in_their_order() -> None:
    for data in (bytes(2 * FLEET_CHUNK_BYTES), tensor_bytes(LARGE)):
        shelf, incoming = _incoming(data)
        assert incoming.tensor(_spec(data)) == data
        assert len(shelf.pulled) == -(-len(data) // FLEET_CHUNK_BYTES)


def test_no_more_is_pulled_than_the_header_names() -> None:
    data = tensor_bytes(LARGE)
    shelf, incoming = _incoming(data)
    with pytest.raises(RequestInvalidError):
        incoming.tensor(_spec(data, count=FLEET_CHUNK_BYTES))
    assert shelf.pulled == []
    with pytest.raises(TooLargeError):
        incoming.tensor(_spec(data, count=len(data) - 4))
    shelf, incoming = _incoming(data)
    shelf.objects = dict.fromkeys(shelf.objects, b"ArrayChunk  4\0evil")
    with pytest.raises(RequestInvalidError):
        incoming.tensor(_spec(data))


@pytest.mark.parametrize("dtype", ["float32", "uint32", "uint8"])
def test_the_array_of_a_reply_names_the_type_of_its_header(dtype: str) -> None:
    tensor = np.ones(FLEET_INLINE_BYTES, dtype=dtype)
    raw = seal_reply(
        node_key(0),
        peek_request(header_of(tensor=SMALL)),
        status="ok",
        code=None,
        tensor=tensor_spec(tensor),
        body={},
    )
    sent: dict[str, Any] = {}

    class Net:
        def answer(self, _metadata: Any, tree: Any, content: Any) -> tuple[set[str], str]:
            sent.update(tree=tree, content=content)
            return set(), ""

    asked = names.Metadata(5, "b" * 64, 1, 7, "", "3.1", names.now().timestamp(), 60.0, "train.contribute")
    answer = Answer(header=raw, tensor=tensor_bytes(tensor), status="ok", code=None)
    transfer.push(Net(), asked, answer, inline=True)  # type: ignore[arg-type]
    array = sent["content"][ARRAY_KEY]
    assert array == array_frame(dtype, tensor.shape, chunk_order(array))
    assert [one.object_id for one in sent["tree"].children] == list(dict.fromkeys(chunk_order(array)))


def test_only_work_that_lasts_is_confirmed(monkeypatch: pytest.MonkeyPatch) -> None:
    shelf = Shelf([])
    asked = names.Metadata(5, "b" * 64, 1, 7, "", "3.1", names.now().timestamp(), 60.0, "train.contribute")
    quick = transfer.LateConfirmation(shelf, asked)  # type: ignore[arg-type]
    quick.expect()
    quick.done()
    quick._timer.join()
    assert not shelf.confirmed.is_set()
    monkeypatch.setattr(transfer, "FLEET_CONFIRM_S", 0.0)
    slow = transfer.LateConfirmation(shelf, asked)  # type: ignore[arg-type]
    slow.expect()
    assert shelf.confirmed.wait(5)
    transfer.LateConfirmation(shelf, asked).done()  # type: ignore[arg-type]  nothing was expected
