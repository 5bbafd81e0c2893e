# SPDX-License-Identifier: Apache-2.0
"""How what a request names comes in, and how a reply goes out: object by object, over `names.Connection`.

- Every object is checked against its id, and the tree against the size that the header names.
- A tensor that comes in has one buffer, of the size that the header names; one chunk beside it is in memory.
  A tensor that goes out is cut where it lies; again one chunk beside it is in memory.
- A connection that breaks costs one object: Flower's client asks for it, or sends it, again. What the broker
  has of a reply it does not ask for again, also after a new connection.
- A message is confirmed only if work on it takes longer than `FLEET_CONFIRM_S` (`LateConfirmation`): until
  then the reply itself says that it came.
"""

from __future__ import annotations

import math
import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from client.federation import names
from client.federation.errors import RequestInvalidError, TooLargeError
from policies.exchange import peek_reply
from policies.frames import (
    ARRAY_KEY,
    BLOB_KEY,
    HEADER_KEY,
    array_frame,
    array_record_frame,
    chunk_id,
    chunk_order,
    fits_inline,
    frame,
    object_id,
    record_dict_frame,
    split,
    unframe,
)
from policies.limits import FLEET_CHUNK_BYTES, FLEET_CONFIRM_S, FLEET_TREE_OBJECTS

if TYPE_CHECKING:
    from client.federation.handlers import Answer
    from policies.exchange import TensorSpec

__all__ = ["Incoming", "LateConfirmation", "invalid", "push", "tree_shape"]

_FRAME_BYTES: Final = 1024


# ---- what comes in


@dataclass(frozen=True, slots=True, kw_only=True)
class Incoming:
    """A request: its header, and where its tensor is: beside it, or in chunks that an Array names."""

    net: names.Connection
    run_id: int
    header: bytes
    blob: bytes | None
    array: bytes | None
    array_id: str | None
    chunks: frozenset[str]

    @classmethod
    def of(cls, net: names.Connection, delivery: names.Delivery) -> Incoming:
        """Reads the small parts out of the message, or pulls one object where they do not ride in it.

        Raises:
            RequestInvalidError: No message of ours.
        """
        config_id, array_id, chunks = tree_shape(delivery.tree)
        run_id, content = delivery.metadata.run_id, delivery.content
        if content is None:
            try:
                header, blob = names.open_config(_pull(net, run_id, config_id))
            except ValueError as error:
                raise invalid("a record of header and small tensor") from error
            content = {HEADER_KEY: header} | ({} if blob is None else {BLOB_KEY: blob})
        return cls(
            net=net,
            run_id=run_id,
            header=content[HEADER_KEY],
            blob=content.get(BLOB_KEY),
            array=content.get(ARRAY_KEY),
            array_id=array_id,
            chunks=chunks,
        )

    def tensor(self, spec: TensorSpec) -> bytes | bytearray:
        """The tensor's bytes, pulled chunk by chunk into one buffer of the size that the header names.

        Raises:
            RequestInvalidError: No tensor, or other chunks than it has.
            TooLargeError: More bytes than the header names.
        """
        if self.blob is not None:
            return self.blob
        if self.array is None and self.array_id is None:
            raise invalid("a tensor")
        order = chunk_order(self.array or _pull(self.net, self.run_id, self.array_id or ""))
        if len(order) != math.ceil(spec.size_bytes / FLEET_CHUNK_BYTES) or not self.chunks.issuperset(order):
            raise invalid("as many chunks as the tensor has")
        data = bytearray(spec.size_bytes)
        at = 0
        for name in order:
            chunk = _pull(self.net, self.run_id, name)
            body = memoryview(chunk)[unframe(chunk).offset :]
            if at + len(body) > len(data):
                raise TooLargeError(
                    need=f"{len(data)} bytes", found="more", remedy="compare the recipe's tensor manifest"
                )
            data[at : at + len(body)] = body
            at += len(body)
        return data if at == len(data) else data[:at]


def tree_shape(tree: names.ObjectTree) -> tuple[str, str | None, frozenset[str]]:
    """Ids of ConfigRecord, Array and chunks in the tree of a request.

    Raises:
        RequestInvalidError: Another tree.
    """
    records = [record for branch in tree.children for record in branch.children]
    configs = [record.object_id for record in records if not record.children]
    arrays = [array for record in records for array in record.children]
    if len(configs) != 1 or len(arrays) > 1 or len(records) > FLEET_TREE_OBJECTS:
        raise invalid("one record and at most one tensor")
    chunks = frozenset(chunk.object_id for array in arrays for chunk in array.children)
    return configs[0], arrays[0].object_id if arrays else None, chunks


def _pull(net: names.Connection, run_id: int, name: str) -> bytes:
    data = net.pull_object(run_id, name)
    if len(data) > FLEET_CHUNK_BYTES + _FRAME_BYTES or object_id(data) != name:
        raise invalid("the object that the tree names")
    return data


class LateConfirmation:
    """Tells the broker that a message came, unless `done` is called before `FLEET_CONFIRM_S` are over.

    The broker sends a message again that was neither confirmed nor answered.
    """

    def __init__(self, net: names.Connection, metadata: names.Metadata) -> None:
        self._net = net
        self._metadata = metadata
        self._timer = threading.Timer(FLEET_CONFIRM_S, self._confirm)
        self._timer.daemon = True

    def expect(self) -> None:
        """From now on everything is here and work begins."""
        self._timer.start()

    def done(self) -> None:
        """The reply was sent, or none will be."""
        self._timer.cancel()

    def _confirm(self) -> None:
        try:
            self._net.confirm(self._metadata.run_id, self._metadata.message_id)
        except BaseException:  # noqa: BLE001  a thread of its own; unconfirmed is only sent again
            return


# ---- what goes out


def push(net: names.Connection, metadata: names.Metadata, answer: Answer, *, inline: bool) -> int:
    """Sends a reply; returns the bytes of header and tensor.

    Args:
        net: The connection.
        metadata: Of the request.
        answer: What to send.
        inline: Whether the broker takes small parts in the message.
    """
    _push_inline(net, metadata, answer) if inline else _push_objects(net, metadata, answer)
    return len(answer.header) + len(answer.tensor or b"")


def _push_inline(net: names.Connection, metadata: names.Metadata, answer: Answer) -> None:
    content = {HEADER_KEY: answer.header}
    parts: dict[str, memoryview] = {}
    if answer.tensor is not None and fits_inline(answer.header, len(answer.tensor)):
        content[BLOB_KEY] = answer.tensor
    elif answer.tensor is not None:
        order = []
        for part in split(memoryview(answer.tensor)):
            order.append(chunk_id(part))
            parts[order[-1]] = part
        content[ARRAY_KEY] = _array(answer, order)
    root = object_id(metadata.message_id.encode() + answer.header)
    tree = _tree(root, *(_tree(name) for name in parts))
    needed, session = net.answer(names.reply_metadata(metadata), tree, content)
    for name, part in parts.items():
        if name in needed:
            net.push_object(metadata.run_id, session, name, frame("ArrayChunk", (), part))


def _push_objects(net: names.Connection, metadata: names.Metadata, answer: Answer) -> None:
    """The same for a broker that takes objects only."""
    small = answer.tensor if fits_inline(answer.header, len(answer.tensor or b"")) else None
    objects: dict[str, bytes] = {}
    config = _add(objects, names.config_object(answer.header, small))
    leaves = [_tree(config)]
    record = None
    if answer.tensor is not None and small is None:
        chunks = [_add(objects, frame("ArrayChunk", (), part)) for part in split(memoryview(answer.tensor))]
        array = _add(objects, _array(answer, chunks))
        record = _add(objects, array_record_frame(array))
        leaves.append(_tree(record, _tree(array, *(_tree(name) for name in dict.fromkeys(chunks)))))
    records = _add(objects, record_dict_frame(config, record))
    own = names.reply_metadata(metadata)
    root = _add(objects, names.message_object(own, records))
    tree = _tree(root, _tree(records, *leaves))
    needed, session = net.send(names.empty_message(own, root), tree, 0.0)
    for name, data in objects.items():
        if name in needed:
            net.push_object(metadata.run_id, session, name, data)


def _array(answer: Answer, order: list[str]) -> bytes:
    """The Array over the chunks of an answer, in the form that its header names."""
    spec = peek_reply(answer.header).tensor
    if spec is None:
        raise invalid("a header that names its tensor")
    return array_frame(spec.dtype, spec.shape, order)


def _add(objects: dict[str, bytes], data: bytes) -> str:
    name = object_id(data)
    objects[name] = data
    return name


def _tree(name: str, *children: names.ObjectTree) -> names.ObjectTree:
    return names.ObjectTree(object_id=name, children=children)


def invalid(need: str) -> RequestInvalidError:
    """What is raised where a message is not one of ours."""
    return RequestInvalidError(need=need, found="something else", remedy="update node or broker")
