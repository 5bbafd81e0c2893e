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
  as the expected tensor
  needs, and its bytes are counted against the expected size.
"""

from __future__ import annotations

import asyncio
import math
import re
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from broker.federation.flower.objects import carriers
from policies.limits import FLEET_CHUNK_BYTES, FLEET_HEADER_BYTES, FLEET_INLINE_BYTES, FLEET_TREE_OBJECTS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.federation.engine import Failure, NodeId, Reply, Request
    from broker.federation.flower.names import ObjectTree, Proto
    from policies.exchange import RequestHeader

__all__ = ["Breach", "Exchange", "FleetTables", "Half", "Instruction", "NodeRecord"]

_OBJECT_ID: Final = re.compile(r"^[0-9a-f]{64}$")
_SLACK_BYTES: Final = 64 * 1024


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
    working: int = 0
    seen_s: float = -math.inf
    received_bytes: int = 0
    sent_bytes: int = 0
    pulled_object_bytes: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Half:
    """A reply that was announced; ``pending`` are the objects that this node has still to send."""

    message_id: str
    config: str
    array: str | None
    pending: set[str]
    received_bytes: int = 0


@dataclass(slots=True, eq=False, kw_only=True)
class Instruction:
    """A request on its way: one message of Flower's."""

    message_id: str
    node: NodeRecord
    run_id: int
    group: str
    request: Request
    asked: RequestHeader
    objects: frozenset[str]
    exchange: Exchange
    resent: bool = False
    delivered_s: float | None = None
    confirmed: bool = False
    half: Half | None = None

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
            raise Breach(404)
        names = list(_ids(tree, FLEET_TREE_OBJECTS + self.chunks_max + 1))
        if len(names) > FLEET_TREE_OBJECTS + self.chunks_max:
            raise Breach(413, "engine.too-many-objects", self)
        if not all(_OBJECT_ID.match(name) for name in names):
            raise Breach(404, "engine.reply-malformed", self)
        if message.HasField("error"):
            return Half(message_id=tree.object_id, config="", array=None, pending=set())
        return self._content(tree)

    def _content(self, tree: ObjectTree) -> Half:
        records = [record for branch in tree.children for record in branch.children]
        configs = [record.object_id for record in records if not record.children]
        arrays = [array.object_id for record in records for array in record.children]
        if len(tree.children) != 1 or len(configs) != 1 or len(arrays) > 1:
            raise Breach(404, "engine.reply-malformed", self)
        return Half(
            message_id=tree.object_id,
            config=configs[0],
            array=arrays[0] if arrays else None,
            pending=set(carriers(tree)),
        )

    def receive(self, half: Half, object_id: str, size: int) -> None:
        """Counts an object of the announced reply before it is stored.

        Raises:
            Breach: It was not announced, or the reply is larger than it may be.
        """
        if object_id not in half.pending:
            raise Breach(404)
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

    def answered(self, node: NodeRecord, request: Proto) -> tuple[Instruction, Half]:
        """The instruction that a push of messages answers.

        Raises:
            Breach: Not exactly one message, not from this node, or no open instruction of this node.
        """
        if len(request.messages_list) != 1 or len(request.message_object_trees) != 1:
            raise Breach(404)
        message = request.messages_list[0]
        instruction = self.instructions.get(message.metadata.reply_to_message_id)
        if instruction is None or instruction.node is not node:
            raise Breach(404)
        if message.metadata.src_node_id != node.fleet_id:
            raise Breach(404, "engine.not-yours", instruction)
        return instruction, instruction.announce(message, request.message_object_trees[0])

    def receiving(self, node: NodeRecord, request: Proto) -> tuple[Instruction, Half]:
        """The announced reply that an object belongs to; its bytes are counted.

        Raises:
            Breach: Nobody announced it, or the reply is larger than it may be.
        """
        for instruction in self.of(node):
            half = instruction.half
            if (
                half is not None
                and instruction.run_id == request.run_id
                and request.object_id in half.pending
            ):
                instruction.receive(half, request.object_id, len(request.object_content))
                return instruction, half
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
