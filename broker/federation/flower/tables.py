# SPDX-License-Identifier: Apache-2.0
"""Who may do what on the fleet API: enrolled nodes, open instructions, announced replies.

Pure tables; no Flower state is changed.

- Everything lives on the event loop of the process; nothing here waits or locks.
- An instruction is open from the moment it is sent until its outcome is settled, exactly once; then its
  message, its reply and all
  their objects are forgotten, and what the node still sends for it is refused.
- A request of a node names a message or an object. It passes only if that belongs to an open instruction of
  the same node.
- The form of a reply is known before it comes: the tree may hold the frames of frames.py and as many chunks
  as the expected tensor needs, and its bytes are counted against the expected size. A reply may name no chunk
  that its node did not announce.
- What came of a reply stays here until its request is settled, also when the request is sent again: it need
  not come twice (`Instruction.uploaded`). Announcing a reply again, or sending an object again whose answer
  was lost, is answered and has no other effect; of settled requests each node's last few are remembered.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.federation.flower.objects import carriers
from policies.errors import EncodingError
from policies.frames import ARRAY_KEY, BLOB_KEY, HEADER_KEY, chunk_order, read_content
from policies.limits import FLEET_CHUNK_BYTES, FLEET_HEADER_BYTES, FLEET_INLINE_BYTES, FLEET_TREE_OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from broker.federation.engine import Failure, NodeId, Reply, Request
    from broker.federation.flower.names import ObjectTree, Proto
    from policies.exchange import RequestHeader

__all__ = ["Breach", "Exchange", "FleetTables", "Half", "Instruction", "NodeRecord"]

_OBJECT_ID: Final = re.compile(r"^[0-9a-f]{64}$")
_SLACK_BYTES: Final = 64 * 1024
_REMEMBERED: Final = 8  # settled replies of a node


class Breach(Exception):  # noqa: N818  not an error of ours: an answer to a node
    """A request that passes no rule: the status to answer with, and the instruction that fails by it."""

    def __init__(self, status: int, code: str = "", instruction: Instruction | None = None) -> None:
        super().__init__(code)
        self.status = status
        self.code = code
        self.instruction = instruction


@dataclass(slots=True, eq=False, kw_only=True)
class NodeRecord:
    """An enrolled node and its connection: what wakes its long poll, and what it moved."""

    node: NodeId
    fleet_id: int
    fleet_key: bytes
    public_key: bytes
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    holder: asyncio.Event | None = None
    reading: int = 0
    working: int = 0
    seen_s: float = -math.inf
    heard_s: float | None = None
    received_bytes: int = 0
    sent_bytes: int = 0
    pulled_object_bytes: int = 0
    answered: deque[Half] = field(default_factory=lambda: deque(maxlen=_REMEMBERED))


@dataclass(slots=True, eq=False, kw_only=True)
class Half:
    """A reply that was announced; ``pending`` are the objects that this node has still to send.

    ``header`` and ``blob`` rode in the message, else ``config`` is the object that holds them. ``order`` are
    the chunks of a large tensor if the Array rode in the message, else ``array`` is the object that says it.
    """

    message_id: str
    header: bytes | None = None
    blob: bytes | None = None
    order: list[str] | None = None
    config: str = ""
    array: str | None = None
    announced: frozenset[str] = frozenset()
    pending: set[str] = field(default_factory=set)
    session: str = ""
    received_bytes: int = 0

    @property
    def objects_come(self) -> bool:
        """Whether Flower's state keeps something of it."""
        return bool(self.announced) or self.header is None


@dataclass(slots=True, eq=False, kw_only=True)
class Instruction:
    """A request on its way: one message of Flower's.

    ``uploaded`` are objects that came for an earlier message of the same request, ``stale`` the replies they
    were announced in.
    """

    message_id: str
    node: NodeRecord
    run_id: int
    group: str
    request: Request
    asked: RequestHeader
    objects: frozenset[str]
    content: Mapping[str, bytes]
    exchange: Exchange
    resent: bool = False
    delivered_s: float | None = None
    confirmed: bool = False
    half: Half | None = None
    uploaded: frozenset[str] = frozenset()
    stale: tuple[str, ...] = ()

    @property
    def heard(self) -> bool:
        """Whether the node said that it has the request, or began to answer."""
        return self.confirmed or self.half is not None

    @property
    def chunks_max(self) -> int:
        """As many chunks as the expected tensor has."""
        size = 0 if self.request.expect is None else self.request.expect.size_bytes
        return math.ceil(size / FLEET_CHUNK_BYTES)

    @property
    def bytes_max(self) -> int:
        """As many bytes as a reply may have: the expected tensor, its header, and frames."""
        size = 0 if self.request.expect is None else self.request.expect.size_bytes
        return int(size * 1.01) + FLEET_HEADER_BYTES + _SLACK_BYTES

    def announce(self, message: Proto, tree: ObjectTree) -> Half:
        """The reply that a node announces, once it has the form of one.

        Raises:
            Breach: Other metadata, or a tree that no reply to this instruction has.
        """
        metadata = message.metadata
        named = (metadata.run_id, metadata.group_id, metadata.message_type, metadata.message_id)
        if named != (self.run_id, self.group, self.request.type.value, tree.object_id):
            raise Breach(404, "engine.not-yours", self)
        if self.half is not None:
            if self.half.message_id != tree.object_id:
                raise Breach(404)
            return self.half
        names = list(_ids(tree, FLEET_TREE_OBJECTS + self.chunks_max + 1))
        if len(names) > FLEET_TREE_OBJECTS + self.chunks_max:
            raise Breach(413, "engine.too-many-objects", self)
        if not all(_OBJECT_ID.match(name) for name in names):
            raise Breach(404, "engine.reply-malformed", self)
        if message.HasField("error"):
            return Half(message_id=tree.object_id)
        try:
            content = read_content(message)
            half = self._objects(tree) if content is None else self._riding(tree, content)
        except EncodingError:
            raise Breach(404, "engine.reply-malformed", self) from None
        half.pending = set(half.announced - self.uploaded)
        return half

    def _objects(self, tree: ObjectTree) -> Half:
        """A reply of objects only."""
        records = [record for branch in tree.children for record in branch.children]
        configs = [record.object_id for record in records if not record.children]
        arrays = [array.object_id for record in records for array in record.children]
        if len(tree.children) != 1 or len(configs) != 1 or len(arrays) > 1:
            raise Breach(404, "engine.reply-malformed", self)
        return Half(
            message_id=tree.object_id,
            config=configs[0],
            array=arrays[0] if arrays else None,
            announced=frozenset(carriers(tree)),
        )

    def _riding(self, tree: ObjectTree, content: dict[str, bytes]) -> Half:
        """A reply whose small parts ride in the message; the tree is the message over its chunks."""
        array = content.get(ARRAY_KEY)
        chunks = frozenset(chunk.object_id for chunk in tree.children)
        order = None if array is None else chunk_order(array)
        if any(chunk.children for chunk in tree.children) or chunks != frozenset(order or ()):
            raise Breach(404, "engine.reply-malformed", self)
        size = sum(map(len, content.values()))
        if size > self.bytes_max:
            raise Breach(413, "engine.too-large", self)
        return Half(
            message_id=tree.object_id,
            header=content[HEADER_KEY],
            blob=content.get(BLOB_KEY),
            order=order,
            announced=chunks,
            received_bytes=size,
        )

    def receive(self, half: Half, object_id: str, size: int) -> None:
        """Counts an object of the announced reply before it is stored.

        Raises:
            Breach: The reply is larger than it may be.
        """
        if object_id == half.config and size > FLEET_INLINE_BYTES + _SLACK_BYTES:
            raise Breach(413, "engine.too-large", self)
        half.received_bytes += size
        if half.received_bytes > self.bytes_max:
            raise Breach(413, "engine.too-large", self)


@dataclass(slots=True, eq=False)
class Exchange:
    """Requests that were sent together; ``settled`` wakes the one who reads the outcomes."""

    open: dict[NodeId, Instruction] = field(default_factory=dict)
    outcomes: deque[Reply | Failure] = field(default_factory=deque)
    settled: asyncio.Event = field(default_factory=asyncio.Event)
    chunked: dict[str, list[str]] = field(default_factory=dict)

    def settle(self, node: NodeId, outcome: Reply | Failure) -> None:
        """Notes the outcome of one request."""
        self.open.pop(node, None)
        self.outcomes.append(outcome)
        self.settled.set()


class FleetTables:
    """All nodes, runs and open instructions of this process."""

    def __init__(self) -> None:
        self.by_fleet_id: dict[int, NodeRecord] = {}
        self.by_node: dict[NodeId, NodeRecord] = {}
        self.runs: dict[int, int] = {}  # run id -> id of its task
        self.instructions: dict[str, Instruction] = {}

    def of(self, node: NodeRecord) -> Iterator[Instruction]:
        """Open instructions of a node."""
        return (one for one in self.instructions.values() if one.node is node)

    def answered(self, node: NodeRecord, request: Proto) -> tuple[Instruction, Half] | None:
        """The instruction that a push of messages answers; None if it was answered by this before.

        Raises:
            Breach: Not exactly one message, not from this node, or no open instruction of this node.
        """
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Breach(404)
        message, tree = request.messages_list[0], request.message_object_trees[0]
        instruction = self.instructions.get(message.metadata.reply_to_message_id)
        if instruction is None and any(half.message_id == tree.object_id for half in node.answered):
            return None
        if instruction is None or instruction.node is not node:
            raise Breach(404)
        if message.metadata.src_node_id != node.fleet_id:
            raise Breach(404, "engine.not-yours", instruction)
        return instruction, instruction.announce(message, tree)

    def receiving(self, node: NodeRecord, request: Proto) -> tuple[Instruction, Half] | None:
        """The announced reply that an object belongs to; None if the object came before.

        Raises:
            Breach: Nobody announced it, or the reply is larger than it may be.
        """
        name = request.object_id
        for instruction in self.of(node):
            half = instruction.half
            if half is not None and instruction.run_id == request.run_id and name in half.announced:
                if name not in half.pending:
                    return None
                instruction.receive(half, name, len(request.object_content))
                return instruction, half
        if any(name in half.announced for half in node.answered):
            return None
        raise Breach(404)

    def reading(self, node: NodeRecord, *, run_id: int, object_id: str) -> Instruction:
        """The instruction that an object belongs to which this node wants to read or has confirmed.

        Raises:
            Breach: It belongs to none of this node's.
        """
        for instruction in self.of(node):
            if instruction.run_id == run_id and object_id in instruction.objects:
                return instruction
        raise Breach(404)


def _ids(tree: ObjectTree, at_most: int) -> Iterator[str]:
    """Ids of a tree in any order, no more than asked for; no recursion over what a node sent."""
    stack, seen = [tree], 0
    while stack and seen < at_most:
        one = stack.pop()
        yield one.object_id
        seen += 1
        stack.extend(one.children)
