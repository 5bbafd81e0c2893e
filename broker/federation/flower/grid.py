# SPDX-License-Identifier: Apache-2.0
"""`FlowerEngine`: the engine over Flower's fleet protocol, for the one process that serves the fleet.

    engine = FlowerEngine(state_dir=…, clock=…)
    engine.enrol("node_…", fleet_key_pem, node_key)         for every active node, before or after start
    await engine.start()                                    on the loop that serves `engine.endpoint`
    …
    engine.drain(); await engine.stop()

- Flower's state is in memory and disposable. The ids of nodes are derived from their fleet keys, so nodes do
  not notice a restart.
- One process per folder: a lock file refuses the second.
- The engine reads request headers to know what it asks; it never signs one.
- A request is sent again once, under a new message id: when it was delivered and neither confirmed nor
  answered within `FLEET_RESEND_S`, while none of its objects was pulled; when the node's process came back
  with it open; when the node wants the next message and has not answered it. The node's ledger makes that
  harmless. What the node had sent of its reply by then it need not send again.
- Large tensors are hashed and written in a thread: meanwhile the loop serves.
"""

from __future__ import annotations

import asyncio
import os
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.federation.acceptance import MALFORMED, accept
from broker.federation.engine import EngineRun, Failure, FilePart
from broker.federation.errors import (
    FleetKeyError,
    FleetKeyTakenError,
    NotRunningError,
    RunLimitError,
)
from broker.federation.flower import names
from broker.federation.flower.endpoint import FleetEndpoint
from broker.federation.flower.objects import FileObjectStore
from broker.federation.flower.send import Composed, compose
from broker.federation.flower.tables import Exchange, FleetTables, Instruction, NodeRecord
from broker.federation.occupying import occupy
from policies.errors import EncodingError, invariant
from policies.exchange import is_code, peek_request
from policies.frames import chunk_order
from policies.identity import check_public_key
from policies.limits import FLEET_HOLD_S, FLEET_RESEND_S, MAX_ACTIVE_RUNS, RUN_HEARTBEAT_S

if TYPE_CHECKING:
    import datetime as dt
    from collections.abc import AsyncIterator, Callable, Sequence
    from pathlib import Path

    from broker.federation.engine import NodeId, Reply, Request
    from broker.federation.flower.tables import Half
    from policies.exchange import RequestHeader
    from policies.ports import Clock

__all__ = ["FlowerEngine"]

_TTL_SLACK_S: Final = 60.0
_INLINE_CHECK_BYTES: Final = 1024 * 1024  # up to here a reply is checked on the loop


class FlowerEngine:
    """See the module; implements `broker.federation.engine.Engine`."""

    def __init__(
        self,
        *,
        state_dir: Path,
        clock: Clock,
        hold_s: float = FLEET_HOLD_S,
        resend_s: float = FLEET_RESEND_S,
    ) -> None:
        """Takes the lock of the folder and empties its objects.

        Raises:
            AlreadyRunningError: Another process serves the fleet from this folder.
            FlowerVersionError: flwr is another one.
            EngineEnvironmentError: flwr was loaded with other settings.
        """
        os.environ["FLWR_HOME"] = str(state_dir / "flwr")
        names.probe()
        self._lock = occupy(state_dir)
        self._clock = clock
        self._resend_s = resend_s
        self._store = FileObjectStore(state_dir / "fleet-objects")
        self._state, app = names.make_state(self._store)
        self._tables = FleetTables()
        self._suspended: dict[NodeId, NodeRecord] = {}
        self._executor = ThreadPoolExecutor(max_workers=4, thread_name_prefix="fleet")
        self._beats: dict[int, asyncio.Task[None]] = {}
        self._kept: dict[int, list[Reply]] = {}
        self._checks: set[asyncio.Task[None]] = set()
        self._started = False
        self.endpoint = FleetEndpoint(
            state=self._state,
            app=app,
            store=self._store,
            tables=self._tables,
            events=self,
            executor=self._executor,
            hold_s=hold_s,
        )

    # ---- nodes

    def enrol(self, node: NodeId, fleet_key_pem: bytes, node_public_key: bytes) -> None:
        """Lets a node in. The same enrolment again does nothing.

        Args:
            node: Its id.
            fleet_key_pem: PEM of the P-256 public key with which it authenticates.
            node_public_key: Ed25519 key that signs its replies, 32 bytes.

        Raises:
            FleetKeyError: Not such a PEM.
            FleetKeyTakenError: The fleet key belongs to another node, was revoked, or the node has another
                key.
            WeakKeyError: The Ed25519 key proves nothing.
        """
        fleet_key = _p256(fleet_key_pem)
        key = check_public_key(node_public_key)
        known = self._tables.by_node.get(node)
        if known is not None and (known.fleet_key, known.public_key) == (fleet_key, key):
            return
        if known is not None:
            raise _taken()
        held = self._suspended.get(node)
        if held is not None and held.fleet_key == fleet_key:
            held.public_key = key  # others may have said another one meanwhile
            self._tables.by_fleet_id[held.fleet_id] = held
            self._tables.by_node[node] = self._suspended.pop(node)
            return
        try:
            fleet_id = names.create_node(self._state, fleet_key)
        except ValueError as error:
            raise _taken() from error
        record = NodeRecord(node=node, fleet_id=fleet_id, fleet_key=fleet_key, public_key=key)
        self._tables.by_fleet_id[fleet_id] = record
        self._tables.by_node[node] = record

    def rekey(self, node: NodeId, node_public_key: bytes) -> None:
        """Expects replies under another key from now on; an unknown node is no error.

        Raises:
            WeakKeyError: The Ed25519 key proves nothing.
        """
        key = check_public_key(node_public_key)
        record = self._tables.by_node.get(node)
        if record is not None:
            record.public_key = key

    def suspend(self, node: NodeId) -> None:
        """Puts a node out as `revoke` does, until it is enrolled again with the same fleet key."""
        record = self._put_out(node)
        if record is not None:
            self._suspended[node] = record

    def revoke(self, node: NodeId) -> None:
        """Puts a node out: its next call is 401, a held one ends, open requests fail.

        An unknown node is no error.
        """
        record = self._put_out(node) or self._suspended.pop(node, None)
        if record is not None:
            self._state.delete_node(names.NOOP_FLWR_AID, record.fleet_id)

    def _put_out(self, node: NodeId) -> NodeRecord | None:
        """Takes a node off the tables; what was open with it has failed."""
        record = self._tables.by_node.pop(node, None)
        if record is None:
            return None
        del self._tables.by_fleet_id[record.fleet_id]
        record.wake.set()
        for instruction in list(self._tables.of(record)):
            self._settle(instruction, Failure(node=node, code="engine.revoked"))
        return record

    def online(self) -> frozenset[NodeId]:
        """Nodes that would answer now."""
        known = self._tables.by_fleet_id
        found = self._state.get_node_info(statuses=["online"])
        return frozenset(known[info.node_id].node for info in found if info.node_id in known)

    def seen_ms(self) -> dict[NodeId, int]:
        """When each node was heard last since the start; see `broker.federation.engine`."""
        now_ms, now_s = self._clock.now_ms(), time.monotonic()
        return {
            name: now_ms - round((now_s - one.heard_s) * 1000)
            for name, one in self._tables.by_node.items()
            if one.heard_s is not None
        }

    def traffic(self, node: NodeId) -> dict[str, int]:
        """Bytes since the start.

        ``received`` from the node, ``sent`` to it, and ``pulled_objects`` among them.
        """
        record = self._tables.by_node[node]
        return {
            "received": record.received_bytes,
            "sent": record.sent_bytes,
            "pulled_objects": record.pulled_object_bytes,
        }

    # ---- life

    async def start(self) -> None:
        """Opens for runs; call it on the loop that serves `endpoint`."""
        self._started = True

    def drain(self) -> None:
        """Ends all held requests and holds none any more; call it when the server is told to stop."""
        self.endpoint.drain()

    async def stop(self) -> None:
        """Closes all runs and gives the folder's lock back."""
        self.drain()
        self._started = False
        for run_id in list(self._tables.runs):
            self._close(run_id, ok=False)
        self._executor.shutdown(wait=True, cancel_futures=True)
        self._lock.close()

    async def open_run(self, *, run: str, contract: str, recipe: str) -> EngineRun:
        """Makes a run known to the nodes: no code, exactly four configuration keys.

        Raises:
            NotRunningError: The engine was not started.
            RunLimitError: `MAX_ACTIVE_RUNS` are open.
        """
        if not self._started:
            raise NotRunningError(need="a started engine", found="none", remedy="start the broker")
        if len(self._tables.runs) >= MAX_ACTIVE_RUNS:
            raise RunLimitError(
                need=f"fewer than {MAX_ACTIVE_RUNS} active runs",
                found=f"{len(self._tables.runs)}",
                remedy="wait until one has ended",
            )
        config = {"iriai": 1, "run": run, "contract": contract, "recipe": recipe}
        run_id, task_id = names.create_run(self._state, config)
        self._tables.runs[run_id] = task_id
        self._beats[run_id] = asyncio.create_task(self._beat(task_id))
        return EngineRun(run=run, contract=contract, recipe=recipe, handle=run_id)

    async def close_run(self, run: EngineRun, *, ok: bool) -> None:
        """Forgets a run, its open requests and its tensors."""
        self._close(run.handle, ok=ok)

    # ---- exchanges

    async def exchange(
        self,
        run: EngineRun,
        requests: Sequence[Request],
        *,
        deadline: dt.datetime,
        need: int = 0,
        grace_s: float = 0.0,
    ) -> AsyncIterator[Reply | Failure]:
        """Sends the requests and yields one outcome per request; see `broker.federation.engine`."""
        if run.handle not in self._tables.runs:
            raise NotRunningError(need="an open run", found="a closed one", remedy="open the run again")
        invariant(len({request.node for request in requests}) == len(requests), "one request per node")
        end_s = time.monotonic() + deadline.timestamp() - self._clock.now_ms() / 1000
        exchange = Exchange()
        good = 0
        try:
            for request in requests:
                ttl_s = max(end_s - time.monotonic(), 0.0) + _TTL_SLACK_S
                await self._ask(run.handle, request, exchange, ttl_s=ttl_s)
            while exchange.open or exchange.outcomes:
                while exchange.outcomes:
                    outcome = exchange.outcomes.popleft()
                    if not isinstance(outcome, Failure):
                        self._keep(run.handle, outcome)
                        good += outcome.ok
                        if need and good == need:
                            end_s = min(end_s, time.monotonic() + grace_s)
                    yield outcome
                if exchange.open and not await self._wait(exchange, end_s):
                    break
        finally:
            late = list(exchange.open.values())
            for instruction in late:
                self._forget(instruction)
        for instruction in late:
            yield Failure(node=instruction.node.node, code="engine.late")

    def _keep(self, run_id: int, reply: Reply) -> None:
        """Notes a reply whose tensor lies in files, so that closing the run deletes it."""
        files = reply.tensor is not None and any(isinstance(part, FilePart) for part in reply.tensor.parts)
        if files:
            self._kept.setdefault(run_id, []).append(reply)

    async def _wait(self, exchange: Exchange, end_s: float) -> bool:
        """Waits for an outcome; False once the time is over. Meanwhile lost requests are sent again."""
        while not exchange.outcomes:
            now_s = time.monotonic()
            if now_s >= end_s:
                return False
            wake_s = end_s
            for instruction in list(exchange.open.values()):
                if instruction.delivered_s is None or instruction.heard or instruction.resent:
                    continue
                lost_s = instruction.delivered_s + self._resend_s
                if lost_s <= now_s:
                    self._resend(instruction)
                else:
                    wake_s = min(wake_s, lost_s)
            exchange.settled.clear()
            try:
                async with asyncio.timeout(min(wake_s - now_s, self._resend_s)):
                    await exchange.settled.wait()
            except TimeoutError:
                continue
        return True

    async def _ask(self, run_id: int, request: Request, exchange: Exchange, *, ttl_s: float) -> None:
        """Sends a request; a large tensor is made ready in a thread."""
        asked = peek_request(request.header)
        prepare = self._prepared(run_id, request, asked, exchange, ttl_s=ttl_s)
        if prepare is None:
            self._unsent(request, exchange)
        elif asked.tensor is None or asked.tensor.size_bytes <= _INLINE_CHECK_BYTES:
            self._send(run_id, request, asked, exchange, prepare())
        else:
            ready = await asyncio.get_running_loop().run_in_executor(self._executor, prepare)
            self._send(run_id, request, asked, exchange, ready)

    def _prepared(
        self, run_id: int, request: Request, asked: RequestHeader, exchange: Exchange, *, ttl_s: float
    ) -> Callable[[], Composed] | None:
        record = self._tables.by_node.get(request.node)
        if record is None:
            return None
        return partial(
            compose,
            self._store,
            run_id=run_id,
            fleet_id=record.fleet_id,
            request=request,
            asked=asked,
            ttl_s=ttl_s,
            chunked=exchange.chunked,
        )

    def _unsent(self, request: Request, exchange: Exchange) -> None:
        exchange.settle(request.node, Failure(node=request.node, code="engine.unreachable"))

    def _send(
        self, run_id: int, request: Request, asked: RequestHeader, exchange: Exchange, message: Composed
    ) -> None:
        record = self._tables.by_node.get(request.node)
        open_still = record is not None and run_id in self._tables.runs
        if not open_still or record is None or self._state.store_message_ins(message.row) is None:
            self._store.delete(message.message_id)
            self._unsent(request, exchange)
            return
        instruction = Instruction(
            message_id=message.message_id,
            node=record,
            run_id=run_id,
            group=message.group,
            request=request,
            asked=asked,
            objects=message.objects,
            content=message.content,
            exchange=exchange,
        )
        self._tables.instructions[message.message_id] = instruction
        exchange.open[request.node] = instruction
        record.wake.set()

    def _resend(self, old: Instruction) -> None:
        """The same header under a new message id; what came of the reply stays."""
        request, exchange, half = old.request, old.exchange, old.half
        exchange.open.pop(request.node, None)
        prepare = self._prepared(old.run_id, request, old.asked, exchange, ttl_s=_ttl_s(old, self._clock))
        if prepare is None:
            self._unsent(request, exchange)
        else:
            self._send(old.run_id, request, old.asked, exchange, prepare())
        again = exchange.open.get(request.node)
        if again is not None:
            again.resent = True
            if half is not None:
                again.uploaded = old.uploaded | (half.announced - half.pending)
                again.stale = (*old.stale, half.message_id)
                old.half = None
        self._forget(old)

    # ---- what the endpoint tells

    def returned(self, node: NodeRecord) -> None:
        """A node's process came back: what was delivered to the one before is sent again."""
        for instruction in list(self._tables.of(node)):
            if instruction.delivered_s is not None and not instruction.resent:
                self._resend(instruction)

    def asked_again(self, node: NodeRecord) -> None:
        """The node has nothing left to say: what was delivered and is not being checked was lost."""
        for instruction in list(self._tables.of(node)):
            checking = instruction.half is not None and not instruction.half.pending
            if instruction.delivered_s is not None and not (instruction.resent or checking):
                self._resend(instruction)

    def announced(self, instruction: Instruction, half: Half, error: str | None) -> None:
        """A reply was announced; an error ends the request with its code."""
        instruction.half = half
        if error is not None:
            code = error if is_code(error) else "engine.refused"
            self._settle(instruction, Failure(node=instruction.request.node, code=code))
        elif not half.pending:  # nothing has to come, or all of it came before
            self.received(instruction, half)

    def received(self, instruction: Instruction, half: Half) -> None:
        """All objects of a reply are here: it is checked, large ones in a thread."""
        request = instruction.request
        instruction.node.answered.append(half)
        try:
            raw, blob = half.header, half.blob
            if raw is None:
                raw, blob = names.open_config(self._store.get(half.config) or b"")
            parts = self._parts(half, blob)
        except (ValueError, EncodingError):
            self._settle(instruction, Failure(node=request.node, code=MALFORMED))
            return
        check = partial(
            accept, request, instruction.asked, raw=raw, parts=parts, node_key=instruction.node.public_key
        )
        if half.received_bytes <= _INLINE_CHECK_BYTES:
            self._settle(instruction, check())
            return
        task = asyncio.create_task(self._check(instruction, check))
        self._checks.add(task)
        task.add_done_callback(self._checks.discard)

    def broken(self, instruction: Instruction, code: str) -> None:
        """The node broke a rule: its request fails at once."""
        self._settle(instruction, Failure(node=instruction.request.node, code=code))

    async def _check(self, instruction: Instruction, check: Any) -> None:  # noqa: ANN401  partial of accept
        outcome = await asyncio.get_running_loop().run_in_executor(self._executor, check)
        self._settle(instruction, outcome)

    def _parts(self, half: Half, blob: bytes | None) -> list[memoryview | FilePart]:
        order = half.order
        if half.array is not None:
            order = chunk_order(self._store.get(half.array) or b"")
        if order is None:
            return [] if blob is None else [memoryview(blob)]
        parts = [self._store.take(name) if name in half.announced else None for name in order]
        found = [part for part in parts if part is not None]
        if blob is not None or len(found) != len(parts):
            for part in found:
                if not isinstance(part, memoryview):
                    part.path.unlink(missing_ok=True)
            raise ValueError(order)
        return found

    def _settle(self, instruction: Instruction, outcome: Reply | Failure) -> None:
        if self._tables.instructions.get(instruction.message_id) is not instruction:
            _release(outcome)  # the exchange has ended meanwhile
            return
        self._forget(instruction)
        instruction.exchange.settle(instruction.request.node, outcome)

    def _forget(self, instruction: Instruction) -> None:
        """Deletes a message, its reply and their objects; what still comes for it is refused."""
        self._tables.instructions.pop(instruction.message_id, None)
        self._state.delete_messages({instruction.message_id})
        self._store.delete(instruction.message_id)
        if instruction.half is not None:
            self._store.delete(instruction.half.message_id)
        for message_id in instruction.stale:
            self._store.delete(message_id)

    def _close(self, run_id: int, *, ok: bool) -> None:
        task_id = self._tables.runs.pop(run_id, None)
        if task_id is None:
            return
        self._beats.pop(run_id).cancel()
        for instruction in [one for one in self._tables.instructions.values() if one.run_id == run_id]:
            self._settle(instruction, Failure(node=instruction.request.node, code="engine.late"))
        for reply in self._kept.pop(run_id, []):
            _release(reply)
        self._state.finish_task(task_id, "completed" if ok else "failed", "")
        self._state.cleanup_run(run_id)

    async def _beat(self, task_id: int) -> None:
        while True:
            self._state.acknowledge_task_heartbeat(task_id)
            await asyncio.sleep(RUN_HEARTBEAT_S)


def _taken() -> FleetKeyTakenError:
    return FleetKeyTakenError(
        need="a fleet key and a node that are new",
        found="one that was enrolled before",
        remedy="make a new fleet key on the node; revoke the node first to replace its key",
    )


def _ttl_s(instruction: Instruction, clock: Clock) -> float:
    """Time to live of a message that is sent again."""
    return max(instruction.asked.deadline_ms - clock.now_ms(), 0) / 1000 + _TTL_SLACK_S


def _release(outcome: Reply | Failure) -> None:
    if not isinstance(outcome, Failure) and outcome.tensor is not None:
        outcome.tensor.release()


def _p256(pem: bytes) -> bytes:
    remedy = "send the fleet key that the node made"
    try:
        key = serialization.load_pem_public_key(pem)
    except ValueError as error:
        raise FleetKeyError(need="a PEM public key", found="something else", remedy=remedy) from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise FleetKeyError(need="a P-256 key", found="another kind", remedy=remedy)
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
