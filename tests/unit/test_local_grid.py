# SPDX-License-Identifier: Apache-2.0
"""The engine in one process: outcomes, quorum, deadline and the checks of replies."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from broker.federation.acceptance import accept
from broker.federation.engine import Failure, FilePart, Reply, TensorHandle
from broker.federation.errors import NotRunningError, RunLimitError
from broker.federation.local import LocalGrid, LocalNode
from policies.exchange import open_request, peek_request, seal_reply, tensor_bytes, tensor_spec
from policies.limits import FLEET_CHUNK_BYTES, MAX_ACTIVE_RUNS
from tests.fleetsim import (
    BROKER,
    CONTRACT,
    RECIPE,
    AddOne,
    HandClock,
    collect,
    deadline,
    digests,
    header_of,
    make_desk,
    name_of,
    node_key,
    request_of,
)

if TYPE_CHECKING:
    from pathlib import Path

VECTOR = np.arange(6, dtype=np.float32)
SUM = tensor_spec(VECTOR + 1).digest


def _grid(tmp_path: Path, clock: HandClock, nodes: int = 4, **handlers: Any) -> LocalGrid:
    table = {}
    for index in range(nodes):
        desk = make_desk(tmp_path, index=index, clock=clock, handler=handlers.get(f"h{index}"))
        table[name_of(index)] = LocalNode(public_key=node_key(index).public, ask=desk.local)
    return LocalGrid(clock=clock, nodes=table)


def _exchange(grid: LocalGrid, clock: HandClock, nodes: int = 4, **named: Any) -> list[Reply | Failure]:
    async def run() -> list[Reply | Failure]:
        opened = await grid.open_run(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
        requests = [request_of(VECTOR, node=name_of(index)) for index in range(nodes)]
        found = await collect(grid.exchange(opened, requests, deadline=deadline(clock, 30), **named))
        await grid.close_run(opened, ok=True)
        await grid.close_run(opened, ok=True)
        return found

    return asyncio.run(run())


def test_every_request_has_one_outcome(tmp_path: Path) -> None:
    clock = HandClock()
    found = _exchange(_grid(tmp_path, clock), clock)
    assert digests(found) == {name_of(index): SUM for index in range(4)}


def test_a_node_that_is_away_is_late_and_an_unknown_one_unreachable(tmp_path: Path) -> None:
    clock = HandClock()
    grid = _grid(tmp_path, clock, 3)
    grid.offline.add(name_of(1))
    assert grid.online() == {name_of(0), name_of(2)}
    assert digests(_exchange(grid, clock)) == {
        name_of(0): SUM,
        name_of(1): "engine.late",
        name_of(2): SUM,
        name_of(3): "engine.unreachable",
    }


def test_need_ends_the_exchange_and_refusals_do_not_count(tmp_path: Path) -> None:
    from client.federation.handlers import Refusal

    clock = HandClock()
    grid = _grid(tmp_path, clock, h0=AddOne(refusal=Refusal(code="contract.refused")))
    found = digests(_exchange(grid, clock, need=2))
    assert found == {
        name_of(0): "contract.refused",
        name_of(1): SUM,
        name_of(2): SUM,
        name_of(3): "engine.late",
    }


def test_grace_lets_the_next_ones_in(tmp_path: Path) -> None:
    clock = HandClock()

    def slow(_header: object) -> None:
        clock.ms += 5_000

    grid = _grid(tmp_path, clock, h2=AddOne(before=slow))
    found = digests(_exchange(grid, clock, need=1, grace_s=2.0))
    assert [found[name_of(index)] for index in range(4)] == [SUM, SUM, "engine.late", "engine.late"]


def test_a_reply_after_the_deadline_is_late(tmp_path: Path) -> None:
    clock = HandClock()

    def slow(_header: object) -> None:
        clock.ms += 31_000

    grid = _grid(tmp_path, clock, 2, h1=AddOne(before=slow))
    assert digests(_exchange(grid, clock, 2)) == {name_of(0): SUM, name_of(1): "engine.late"}


def test_runs_are_bounded_and_closed_runs_carry_nothing(tmp_path: Path) -> None:
    clock = HandClock()
    grid = _grid(tmp_path, clock, 1)

    async def run() -> None:
        opened = [
            await grid.open_run(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
            for _ in range(MAX_ACTIVE_RUNS)
        ]
        with pytest.raises(RunLimitError):
            await grid.open_run(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
        await grid.close_run(opened[0], ok=False)
        with pytest.raises(NotRunningError):
            await collect(grid.exchange(opened[0], [], deadline=deadline(clock, 1)))

    asyncio.run(run())


def _accept(raw: bytes, parts: list[Any], expect: Any = "same", index: int = 0) -> Reply | Failure:
    request = request_of(VECTOR, expect=expect)
    return accept(
        request, peek_request(request.header), raw=raw, parts=parts, node_key=node_key(index).public
    )


def _reply(
    tensor: np.ndarray | None = VECTOR, header: bytes | None = None, index: int = 0, **named: Any
) -> bytes:
    asked = open_request(header or header_of(tensor=VECTOR), BROKER.public)
    spec = None if tensor is None else tensor_spec(tensor)
    return seal_reply(
        node_key(index), asked, **({"status": "ok", "code": None, "tensor": spec, "body": {}} | named)
    )


PARTS = [memoryview(tensor_bytes(VECTOR))]
MALFORMED = Failure(node="node_simaaaaaaaaaaaaa", code="engine.reply-malformed")


def test_a_good_reply_is_accepted() -> None:
    reply = _accept(_reply(), PARTS)
    assert isinstance(reply, Reply)
    assert reply.ok
    assert reply.tensor is not None
    assert (reply.tensor.dtype, reply.tensor.shape) == ("float32", (6,))
    assert np.array_equal(reply.tensor.array(), VECTOR)


@pytest.mark.parametrize(
    ("raw", "parts", "expect"),
    [
        (b"no header", PARTS, "same"),
        (_reply(index=1), PARTS, "same"),
        (_reply(header=header_of(tensor=VECTOR, round_=2)), PARTS, "same"),
        (_reply(header=header_of(tensor=VECTOR, attempt=1)), PARTS, "same"),
        (_reply(), PARTS, (5,)),
        (_reply(), PARTS, (2, 3)),
        (_reply(), PARTS, None),
        (_reply(), [], "same"),
        (_reply(None), [], "same"),
        (_reply(None), PARTS, "same"),
        (_reply(None), PARTS, None),
        (_reply(VECTOR.astype(np.uint32)), [memoryview(tensor_bytes(VECTOR.astype(np.uint32)))], "same"),
        (_reply(), [memoryview(tensor_bytes(VECTOR + 1))], "same"),
        (_reply(), [PARTS[0][:-1]], "same"),
        (_reply(), [PARTS[0][:2], PARTS[0][2:]], "same"),
        (_reply(None, status="refused", code="a.b"), PARTS, "same"),
    ],
)
def test_any_other_reply_is_malformed_and_names_its_node(raw: bytes, parts: list[Any], expect: Any) -> None:
    assert _accept(raw, parts, expect) == MALFORMED


def test_a_signed_refusal_is_a_reply() -> None:
    reply = _accept(_reply(None, status="refused", code="budget.exhausted"), [])
    assert isinstance(reply, Reply)
    assert not reply.ok
    assert reply.header.code == "budget.exhausted"


def test_a_tensor_in_files_is_read_part_by_part_and_released(tmp_path: Path) -> None:
    data = np.arange(FLEET_CHUNK_BYTES // 4 + 3, dtype=np.float32)
    raw = tensor_bytes(data)
    parts = []
    for at, start in enumerate(range(0, len(raw), FLEET_CHUNK_BYTES)):
        path = tmp_path / str(at)
        path.write_bytes(b"head\0" + raw[start : start + FLEET_CHUNK_BYTES])
        parts.append(FilePart(path, 5))
    handle = TensorHandle(spec=tensor_spec(data), parts=parts)
    assert [len(chunk) for chunk in handle.chunks()] == [FLEET_CHUNK_BYTES, 12]
    assert np.array_equal(handle.array(), data)
    handle.release()
    assert list(tmp_path.iterdir()) == []
