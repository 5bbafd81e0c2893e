# SPDX-License-Identifier: Apache-2.0
"""What rounds ask of the machinery that reaches the nodes: five calls and four value objects.

    engine.online()                                     nodes that answer now
    engine.seen_ms()                                    when each was heard last, for people
    run = await engine.open_run(run=…, contract=…, recipe=…)
    async for outcome in engine.exchange(run, requests, deadline=…, need=3, grace_s=2.0):
        …                                               exactly one outcome per request, as they come
    await engine.close_run(run, ok=True)

- Every exchange ends: when all have answered, when ``need`` good replies are there and ``grace_s`` is over,
  or at the deadline.
- A good reply is one whose header says ``ok``. Refusals and failures never count for ``need``. ``need=0``
  means all.
- A `Reply` was verified: signed by the node, for this request, with the dtype and shape (or within the
  bound) that the request expects and with the digest that the header names. Whether its values are finite is
  the fold's business.
- A `Failure` is one node's: no reply raises in the round, whatever its form.
- A tensor is readable until `TensorHandle.release`, or until its run is closed.

`FlowerEngine` (flower/grid.py) and `LocalGrid` (local.py) implement it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

from policies.exchange import ExchangeType, ReplyHeader, TensorSpec

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
    from pathlib import Path

__all__ = ["Engine", "EngineRun", "Expect", "Failure", "FilePart", "Reply", "Request", "TensorHandle"]

NodeId = str


@dataclass(frozen=True, slots=True, kw_only=True)
class Expect:
    """Form of the tensor that a good reply must carry; it also bounds what the node may send.

    Attributes:
        dtype: Of the elements.
        shape: The only one that is taken, unless ``at_most`` is set.
        at_most: One axis of any length is taken, up to so many bytes.
    """

    dtype: str
    shape: tuple[int, ...] = ()
    at_most: int | None = None

    @property
    def size_bytes(self) -> int:
        """Length of such a tensor, or the largest."""
        if self.at_most is not None:
            return self.at_most
        return TensorSpec(digest="", dtype=self.dtype, shape=self.shape).size_bytes

    def fits(self, spec: TensorSpec) -> bool:
        """Whether a tensor has this form."""
        if self.at_most is None:
            return (spec.dtype, spec.shape) == (self.dtype, self.shape)
        return spec.dtype == self.dtype and len(spec.shape) == 1 and spec.size_bytes <= self.at_most


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request to one node.

    Attributes:
        node: Destination.
        header: Bytes of `policies.exchange.seal_request`.
        tensor: The bytes that the header's tensor names, or the file that holds them.
        expect: Form of the reply's tensor; None if the reply has none.
    """

    node: NodeId
    type: ExchangeType
    round: int
    attempt: int
    header: bytes
    tensor: Path | bytes | None = None
    expect: Expect | None = None


@dataclass(frozen=True, slots=True)
class FilePart:
    """A part of a tensor that lies in a file, behind ``offset`` bytes of frame."""

    path: Path
    offset: int


@dataclass(slots=True, kw_only=True)
class TensorHandle:
    """A tensor that is read part by part; form and digest are known before the first byte.

    Parts are whole chunks in order; each holds whole elements.
    """

    spec: TensorSpec
    parts: Sequence[memoryview | FilePart] = field(repr=False)

    @property
    def dtype(self) -> str:
        """Name of the elements' type."""
        return self.spec.dtype

    @property
    def shape(self) -> tuple[int, ...]:
        """Axes of the tensor."""
        return self.spec.shape

    def chunks(self) -> Iterator[memoryview]:
        """The bytes in order; one part at a time is in memory."""
        for part in self.parts:
            if isinstance(part, FilePart):
                yield memoryview(part.path.read_bytes())[part.offset :]
            else:
                yield part

    def array(self) -> np.ndarray:
        """The whole tensor, read-only for small ones."""
        data = b"".join(self.chunks())
        return np.frombuffer(data, dtype=np.dtype(self.dtype).newbyteorder("<")).reshape(self.shape)

    def release(self) -> None:
        """Deletes what lies in files; afterwards there is nothing to read."""
        for part in self.parts:
            if isinstance(part, FilePart):
                part.path.unlink(missing_ok=True)
        self.parts = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Reply:
    """A verified answer, good or refused.

    ``header`` is the parsed form of ``raw``, the signed bytes to keep as evidence.
    """

    node: NodeId
    type: ExchangeType
    round: int
    attempt: int
    header: ReplyHeader
    raw: bytes
    tensor: TensorHandle | None

    @property
    def ok(self) -> bool:
        """Whether it counts for ``need``."""
        return self.header.ok


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """No usable answer.

    ``code`` is one of `broker.federation.errors.FAILURES`, or the code with which the node refused.
    """

    node: NodeId
    code: str


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineRun:
    """An open run. ``handle`` belongs to the engine, is new after each restart and appears in no record."""

    run: str
    contract: str
    recipe: str
    handle: int


class Engine(Protocol):
    """The five calls; see the module's first lines for their rules."""

    def online(self) -> frozenset[NodeId]:
        """Nodes that would answer now."""
        ...

    def seen_ms(self) -> Mapping[NodeId, int]:
        """When each node was heard last since this process started; without those that were not."""
        ...

    async def open_run(self, *, run: str, contract: str, recipe: str) -> EngineRun:
        """Makes a run known to the nodes.

        Raises:
            RunLimitError: Too many are active.
        """
        ...

    def exchange(
        self,
        run: EngineRun,
        requests: Sequence[Request],
        *,
        deadline: dt.datetime,
        need: int = 0,
        grace_s: float = 0.0,
    ) -> AsyncIterator[Reply | Failure]:
        """Sends the requests and yields one outcome per request."""
        ...

    async def close_run(self, run: EngineRun, *, ok: bool) -> None:
        """Forgets a run; what nodes still send for it is refused. Closing twice does nothing."""
        ...
