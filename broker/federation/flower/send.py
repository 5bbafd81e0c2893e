# SPDX-License-Identifier: Apache-2.0
"""Turning a request into a message of Flower's.

Objects first, the message last, so that a node never waits for an object.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from broker.federation.flower import names
from policies.frames import (
    ARRAY_KEY,
    BLOB_KEY,
    HEADER_KEY,
    array_frame,
    array_record_frame,
    chunk_id,
    fits_inline,
    frame,
    object_id,
    record_dict_frame,
    split,
)
from policies.limits import FLEET_CHUNK_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from broker.federation.engine import Request
    from broker.federation.flower.objects import FileObjectStore
    from policies.exchange import RequestHeader

__all__ = ["Composed", "compose", "group_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Composed:
    """A message whose objects are stored.

    ``row`` is what Flower's state keeps, ``objects`` what the node may read, ``content`` what rides in
    the message to a node that takes it there.
    """

    message_id: str
    group: str
    objects: frozenset[str]
    row: Any
    content: Mapping[str, bytes]


def group_of(round_: int, attempt: int) -> str:
    """Flower's group id of a round and attempt."""
    return f"{round_}.{attempt}"


def compose(
    store: FileObjectStore,
    *,
    run_id: int,
    fleet_id: int,
    request: Request,
    asked: RequestHeader,
    ttl_s: float,
    chunked: dict[str, list[str]],
) -> Composed:
    """Stores the objects of a request and returns the message over them; a tensor is read chunk by chunk.

    Args:
        store: Of the engine.
        run_id: Flower's.
        fleet_id: Of the destination.
        request: What to send.
        asked: Its header, parsed.
        ttl_s: Time after which the message is void.
        chunked: Chunk ids by digest of the tensor; requests of one exchange share it, so that a tensor is
            hashed once.
    """
    size = 0 if asked.tensor is None else asked.tensor.size_bytes
    inline = fits_inline(request.header, size)
    blob = _whole(request.tensor) if inline and request.tensor is not None else None
    content = {HEADER_KEY: request.header} | ({} if blob is None else {BLOB_KEY: blob})
    small = [names.config_object(request.header, blob)]
    tensor_tree = None
    chunk_ids: list[str] = []
    if request.tensor is not None and not inline and asked.tensor is not None:
        if asked.tensor.digest not in chunked:
            chunked[asked.tensor.digest] = [chunk_id(part) for part in _parts(request.tensor)]
        chunk_ids = chunked[asked.tensor.digest]
        array = array_frame(asked.tensor.dtype, asked.tensor.shape, chunk_ids)
        record = array_record_frame(object_id(array))
        content[ARRAY_KEY] = array
        small += [array, record]
        tensor_tree = _tree(object_id(record), [_tree(object_id(array), _leaves(chunk_ids))])
    records = record_dict_frame(object_id(small[0]), None if tensor_tree is None else tensor_tree.object_id)
    metadata = _metadata(run_id=run_id, fleet_id=fleet_id, request=request, ttl_s=ttl_s)
    message = names.message_object(metadata, object_id(records))
    small += [records, message]
    children = _leaves([object_id(small[0])]) + ([] if tensor_tree is None else [tensor_tree])
    tree = _tree(object_id(message), [_tree(object_id(records), children)])
    store.preregister(run_id, tree)
    for one in small:
        store.keep(object_id(one), one)
    if tensor_tree is not None and request.tensor is not None:
        _put_chunks(store, request.tensor, chunk_ids)
    return Composed(
        message_id=tree.object_id,
        group=metadata.group_id,
        objects=frozenset([*(object_id(one) for one in small), *chunk_ids]),
        row=names.empty_message(metadata, tree.object_id),
        content=content,
    )


def _metadata(*, run_id: int, fleet_id: int, request: Request, ttl_s: float) -> names.Metadata:
    return names.Metadata(
        run_id=run_id,
        message_id="",
        src_node_id=names.SUPERLINK_NODE_ID,
        dst_node_id=fleet_id,
        reply_to_message_id="",
        group_id=group_of(request.round, request.attempt),
        created_at=names.now().timestamp(),
        ttl=ttl_s,
        message_type=request.type.value,
    )


def _put_chunks(store: FileObjectStore, tensor: Path | bytes, chunk_ids: list[str]) -> None:
    """The chunks that are not here yet; all nodes of a round share them."""
    for name, part in zip(chunk_ids, _parts(tensor), strict=True):
        if not store.size_of(name):
            store.keep(name, frame("ArrayChunk", (), part))


def _parts(tensor: Path | bytes) -> Iterator[memoryview]:
    if isinstance(tensor, bytes):
        yield from split(memoryview(tensor))
        return
    with tensor.open("rb") as file:
        while part := file.read(FLEET_CHUNK_BYTES):
            yield memoryview(part)


def _whole(tensor: Path | bytes) -> bytes:
    return tensor if isinstance(tensor, bytes) else tensor.read_bytes()


def _tree(name: str, children: list[names.ObjectTree]) -> names.ObjectTree:
    return names.ObjectTree(object_id=name, children=children)


def _leaves(chunk_ids: list[str]) -> list[names.ObjectTree]:
    return [_tree(name, []) for name in dict.fromkeys(chunk_ids)]
