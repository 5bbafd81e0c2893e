# SPDX-License-Identifier: Apache-2.0
r"""Objects of the fleet protocol as bytes.

A frame is ``Type ids length\0body`` and its id the SHA-256 of the whole.

A message of ours is a small tree:

    Message ── RecordDict ─┬─ ConfigRecord {"h": header, "b": small tensor}
                           └─ ArrayRecord ── Array ── ArrayChunk …       (large tensors only)

- A tensor up to `FLEET_INLINE_BYTES` together with its header rides in the ConfigRecord. A larger one is one
  Array.
- The Array holds raw little-endian bytes (storage type ``iriai.le``), so every chunk but the last has exactly
  `FLEET_CHUNK_BYTES` bytes and no chunk cuts an element. There is nothing to unpickle and no header to parse.
- Equal chunks are one object: the order is that of ``arraychunk_ids`` in the Array, never that of the tree.
- Only ConfigRecord, Array and ArrayChunk carry anything; the other frames hold names that nobody reads.

Between a node and a broker that both know how, what is small rides in the message itself: its content is
one ConfigRecord ``c`` with the header, and the small tensor or the Array of a large one. Then the chunks are
the only objects that travel, a small exchange is one pull and one push, and a reply's tree is the message
over its chunks. A node asks for it with `INLINE` among the ``message_ids`` of its pull; others get objects.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.errors import EncodingError
from policies.limits import FLEET_CHUNK_BYTES, FLEET_INLINE_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

__all__ = [
    "ARRAY_KEY",
    "BLOB_KEY",
    "HEADER_KEY",
    "INLINE",
    "STORAGE",
    "Frame",
    "array_frame",
    "array_record_frame",
    "chunk_id",
    "chunk_order",
    "fits_inline",
    "frame",
    "object_id",
    "put_content",
    "read_content",
    "record_dict_frame",
    "unframe",
]

STORAGE: Final = "iriai.le"
HEADER_KEY: Final = "h"
BLOB_KEY: Final = "b"
ARRAY_KEY: Final = "a"
INLINE: Final = "iriai.inline/1"
_RECORD_KEY: Final = "c"
_HEAD_BYTES: Final = 80 * 1024  # ids of 1 024 chunks: 5 GiB


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """The head of an object; its body begins at ``offset``."""

    kind: str
    children: tuple[str, ...]
    offset: int


def object_id(data: bytes) -> str:
    """Name of an object: hex SHA-256 of its bytes."""
    return hashlib.sha256(data).hexdigest()


def frame(kind: str, children: Sequence[str], body: bytes | memoryview) -> bytes:
    """Bytes of an object."""
    return b"".join((f"{kind} {','.join(children)} {len(body)}".encode(), b"\0", body))


def unframe(data: bytes) -> Frame:
    """The head of an object.

    Raises:
        EncodingError: No frame, or a length that is not the body's.
    """
    end = data.find(b"\0", 0, _HEAD_BYTES)
    try:
        kind, children, length = data[: max(end, 0)].decode("ascii").split(" ")
        size = int(length)
    except ValueError as error:
        raise _refuse("Type ids length") from error
    if size != len(data) - end - 1:
        raise _refuse("the length of the body")
    return Frame(kind=kind, children=tuple(children.split(",")) if children else (), offset=end + 1)


def fits_inline(header: bytes, size_bytes: int) -> bool:
    """Whether a tensor of this size rides beside this header."""
    return len(header) + size_bytes <= FLEET_INLINE_BYTES


def chunk_id(part: memoryview) -> str:
    """Id of the ArrayChunk that holds this part, without making it."""
    found = hashlib.sha256(f"ArrayChunk  {len(part)}".encode() + b"\0")
    found.update(part)
    return found.hexdigest()


def split(data: memoryview) -> Iterator[memoryview]:
    """A tensor in memory, cut into what its chunks hold."""
    for start in range(0, len(data), FLEET_CHUNK_BYTES):
        yield data[start : start + FLEET_CHUNK_BYTES]


def array_frame(dtype: str, shape: Sequence[int], chunk_ids: Sequence[str]) -> bytes:
    """The Array object over chunks in this order; equal chunks are named once."""
    unique = list(dict.fromkeys(chunk_ids))
    index = {name: at for at, name in enumerate(unique)}
    body = {
        "dtype": dtype,
        "shape": list(shape),
        "stype": STORAGE,
        "arraychunk_ids": [index[name] for name in chunk_ids],
    }
    return frame("Array", unique, json.dumps(body).encode())


def chunk_order(array: bytes) -> list[str]:
    """Chunk ids of an Array in the order of the bytes.

    Raises:
        EncodingError: Not an Array of ours.
    """
    head = unframe(array)
    try:
        body = json.loads(array[head.offset :])
        good = head.kind == "Array" and body["stype"] == STORAGE
        order = [head.children[at] for at in body["arraychunk_ids"] if isinstance(at, int) and at >= 0]
        good = good and len(order) == len(body["arraychunk_ids"])
    except (ValueError, KeyError, TypeError, IndexError, RecursionError) as error:
        raise _refuse("an Array") from error
    if not good:
        raise _refuse(f"an Array of storage type {STORAGE}")
    return order


def array_record_frame(array_id: str) -> bytes:
    """The ArrayRecord that names the tensor ``t``."""
    return frame("ArrayRecord", (array_id,), json.dumps({"t": array_id}).encode())


def record_dict_frame(config_id: str, array_record_id: str | None) -> bytes:
    """The RecordDict that names the ConfigRecord ``c`` and, where there is one, the ArrayRecord ``t``."""
    names = {"c": config_id} | ({} if array_record_id is None else {"t": array_record_id})
    return frame("RecordDict", list(names.values()), json.dumps(names).encode())


def put_content(message: Any, fields: Mapping[str, bytes]) -> None:  # noqa: ANN401  a protobuf message
    """Makes header and small parts the content of a message."""
    record = message.content.items.add(key=_RECORD_KEY).config_record
    for key, value in fields.items():
        record.items.add(key=key).value.bytes = value


def read_content(message: Any) -> dict[str, bytes] | None:  # noqa: ANN401  a protobuf message
    """What `put_content` put, None if the message has no content, or Flower's empty one.

    Raises:
        EncodingError: Other records, keys or types, or more than fits.
    """
    items = message.content.items
    if not items:
        return None
    if len(items) != 1 or items[0].key != _RECORD_KEY or not items[0].HasField("config_record"):
        raise _refuse("one record c")
    fields = {one.key: one.value for one in items[0].config_record.items}
    known = {HEADER_KEY} <= set(fields) <= {HEADER_KEY, BLOB_KEY, ARRAY_KEY} and len(fields) <= 2  # noqa: PLR2004
    if not known or any(value.WhichOneof("value") != "bytes" for value in fields.values()):
        raise _refuse("header and small tensor, or header and Array")
    found = {key: bytes(value.bytes) for key, value in fields.items()}
    if sum(map(len, found.values())) > FLEET_INLINE_BYTES:
        raise _refuse(f"at most {FLEET_INLINE_BYTES} bytes")
    return found


def _refuse(need: str) -> EncodingError:
    return EncodingError(need=need, found="another object", remedy="send objects of this version")
