# SPDX-License-Identifier: Apache-2.0
"""The nine fleet routes as one flat ASGI function.

The order is the contract:

1. POST, one of nine paths, protobuf media type; else 404 with an empty body.
2. Authenticate the node by the head alone: a fleet key that is enrolled, and Flower's signed timestamp (401).
Not one byte of the body of anybody else is read, and nothing waits before this.
3. Read the body. It has at most `FLEET_BODY_BYTES` where a reply comes, else `FLEET_SMALL_BYTES` (413); it
is whole within `FLEET_BODY_S` (408), of which it may have to wait for room (`bodies`): 503 if there was none,
or if the node has `FLEET_READING` of them under way. Flower's client asks again after 503, never after 429.
4. Parse it (400), and compare the node that it names with the one that signed (401).
5. The rules of the node: connections, and what is its own (tables.py): 404, 413, 503; 403 for a run that is
over.
6. For ``pull-messages``: hold until there is a message, at most `FLEET_HOLD_S`. Whoever left meanwhile must
not pull, because
   pulling marks a message as delivered.
7. Flower's handler: on the loop when small, in a thread for large bodies and objects. It is not asked about
   what leaves nothing in Flower's state: a reply that rides whole in its message, and what came before.
8. Note what happened and wake the exchange. A node that asks for small parts in the message gets them there
   (`policies.frames`); its next pull says that whatever it has not answered by then was lost on the way.
9. Answer, and count the bytes.
"""

from __future__ import annotations

import asyncio
import logging
import time
from base64 import b64decode
from contextlib import AsyncExitStack
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, Protocol

from fastapi import HTTPException
from starlette.datastructures import Headers
from starlette.responses import Response

from broker.federation.flower import names
from broker.federation.flower.bodies import Bodies
from broker.federation.flower.tables import Breach
from policies.frames import INLINE, put_content
from policies.limits import (
    FLEET_BODY_BYTES,
    FLEET_BODY_S,
    FLEET_FILE_BYTES,
    FLEET_READING,
    FLEET_SMALL_BYTES,
    FLEET_WORKING,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, MutableMapping
    from concurrent.futures import Executor

    from broker.federation.flower.objects import FileObjectStore
    from broker.federation.flower.tables import FleetTables, Half, Instruction, NodeRecord

    Scope = MutableMapping[str, Any]
    Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
    Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

__all__ = ["FleetEndpoint", "FleetEvents"]

_Shim = Any  # as much of a starlette request as Flower reads
_LOG: Final = logging.getLogger("iriai.fleet")
_MEDIA: Final = names.PROTOBUF_MEDIA_TYPE
_REPLIES: Final = frozenset(("push-messages", "push-object"))
_SEEN_S: Final = 20.0  # an authenticated request this long after the last one counts as a heartbeat
_HEARTBEAT_S: Final = 30.0
_GONE: Final = 499  # never reaches anybody
_DIGITS: Final = 20  # of a content-length; the longest that is read


class FleetEvents(Protocol):
    """What the endpoint tells the engine."""

    def returned(self, node: NodeRecord) -> None:
        """A node came back after its process had ended."""

    def asked_again(self, node: NodeRecord) -> None:
        """A node that answers one message at a time wants the next one."""

    def announced(self, instruction: Instruction, half: Half, error: str | None) -> None:
        """A reply was announced, or an error instead of one."""

    def received(self, instruction: Instruction, half: Half) -> None:
        """All objects of a reply are here."""

    def broken(self, instruction: Instruction, code: str) -> None:
        """The node broke a rule of this instruction."""


class _Closed(Exception):  # noqa: N818  control flow inside this file
    """The client is gone, or took too long to send its body."""


class FleetEndpoint:
    """ASGI callable for everything under ``/v1/``; the app mounts it beside its own routes."""

    def __init__(
        self,
        *,
        state: names.InMemoryLinkState,
        app: SimpleNamespace,
        store: FileObjectStore,
        tables: FleetTables,
        events: FleetEvents,
        executor: Executor,
        hold_s: float,
    ) -> None:
        self._state = state
        self._app = app
        self._store = store
        self._tables = tables
        self._events = events
        self._executor = executor
        self._hold_s = hold_s
        self._draining = False
        self.bodies = Bodies()
        self.requests = 0

    def drain(self) -> None:
        """From now on no request is held: a server that stops need not wait for the nodes."""
        self._draining = True
        for node in self._tables.by_fleet_id.values():
            node.wake.set()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answers one request."""
        if scope["type"] != "http":
            return
        self.requests += 1
        operation = _operation(scope)
        if operation is None:
            await _answer(send, 404)
            return
        node = self._signer(scope)
        if node is None:
            await _answer(send, 401)
            return
        status, content = await self._bounded(scope, receive, operation, node)
        if status != _GONE:
            await _answer(send, status, content)

    def _signer(self, scope: Scope) -> NodeRecord | None:
        """Step 2; the key is looked up first, which costs strangers' requests nothing."""
        headers = Headers(scope=scope)
        try:
            key = b64decode(headers.get(names.FLEET_HTTP_PUBLIC_KEY_HEADER, ""), validate=True)
        except ValueError:
            return None
        fleet_id = self._state.get_node_id_by_public_key(key) if key else None
        node = None if fleet_id is None else self._tables.by_fleet_id.get(fleet_id)
        if node is None:
            return None
        claim = names.PROTOBUF_REQUEST_TYPES["POST", names.FLEET + "activate-node"](public_key=key)
        shim: _Shim = SimpleNamespace(
            headers=headers, state=SimpleNamespace(protobuf_request=claim), app=self._app
        )
        try:
            names.authenticate_node(shim)
        except HTTPException:
            return None
        return node

    async def _bounded(
        self, scope: Scope, receive: Receive, operation: str, node: NodeRecord
    ) -> tuple[int, bytes]:
        """Steps 3 and 4: a body has its room until it is answered."""
        size = _length(scope, FLEET_BODY_BYTES if operation in _REPLIES else FLEET_SMALL_BYTES)
        if size is None:
            return 413, b""
        if node.reading >= FLEET_READING:
            return 503, b""
        async with AsyncExitStack() as room:
            node.reading += 1
            roomy = False
            try:
                async with asyncio.timeout(FLEET_BODY_S):
                    await room.enter_async_context(self.bodies.room(node.fleet_id, size))
                    roomy = True
                    body = await _read(receive, size)
            except (_Closed, TimeoutError):
                return (408 if roomy else 503), b""
            finally:
                node.reading -= 1
            if body is None:
                return 413, b""
            request = names.PROTOBUF_REQUEST_TYPES["POST", scope["path"]]()
            try:
                request.ParseFromString(body)
            except names.DecodeError:
                return 400, b""
            return await self._authenticated(scope, receive, operation, node, request, len(body))

    async def _authenticated(  # noqa: PLR0917  what is known of one request
        self,
        scope: Scope,
        receive: Receive,
        operation: str,
        node: NodeRecord,
        request: names.Proto,
        size: int,
    ) -> tuple[int, bytes]:
        if not self._is_own(operation, node, request):
            return 401, b""
        shim: _Shim = SimpleNamespace(
            headers=Headers(scope=scope),
            state=SimpleNamespace(protobuf_request=request),
            app=self._app,
            url=SimpleNamespace(path=scope["path"]),
        )
        node.received_bytes += size
        if operation == "pull-messages":
            status, content = await self._hold(node, receive, shim, request)
        elif node.working >= FLEET_WORKING:
            return 503, b""
        else:
            node.working += 1
            try:
                status, content = await self._ruled(operation, node, shim, request, size)
            finally:
                node.working -= 1
        node.sent_bytes += len(content)
        return status, content

    def _is_own(self, operation: str, node: NodeRecord, request: names.Proto) -> bool:
        """The node that signed is the one that the request names, and was not revoked while it was read."""
        if operation == "activate-node":
            named = self._state.get_node_id_by_public_key(request.public_key)
        else:
            named = request.node_id if operation == "deactivate-node" else request.node.node_id
        if named != node.fleet_id or self._tables.by_fleet_id.get(node.fleet_id) is not node:
            return False
        now_s = time.monotonic()
        if now_s - node.seen_s > _SEEN_S and operation != "activate-node":
            self._state.acknowledge_node_heartbeat(node.fleet_id, _HEARTBEAT_S)
        node.seen_s = node.heard_s = now_s
        return True

    async def _hold(
        self, node: NodeRecord, receive: Receive, shim: _Shim, request: names.Proto
    ) -> tuple[int, bytes]:
        """Long poll; a second one of the same node ends the first."""
        gone = asyncio.Event()
        if INLINE in request.message_ids:
            self._events.asked_again(node)
        if node.holder is not None:
            node.holder.set()
            node.wake.set()
        node.holder = gone
        watch = asyncio.ensure_future(_watch(receive, gone, node))
        try:
            async with asyncio.timeout(self._hold_s):
                while not (gone.is_set() or self._draining or self._has_news(node)):
                    node.wake.clear()
                    await node.wake.wait()
        except TimeoutError:
            pass
        finally:
            watch.cancel()
            if node.holder is gone:
                node.holder = None
        if gone.is_set():
            return _GONE, b""
        if node.fleet_id not in self._tables.by_fleet_id:
            return 401, b""
        return await self._ruled("pull-messages", node, shim, request, 0)

    async def _ruled(
        self, operation: str, node: NodeRecord, shim: _Shim, request: names.Proto, size: int
    ) -> tuple[int, bytes]:
        try:
            ticket = self._before(operation, node, request)
        except Breach as breach:
            if breach.instruction is not None and breach.code:
                self._events.broken(breach.instruction, breach.code)
            _LOG.info("fleet %s of %s refused: %s %s", operation, node.node, breach.status, breach.code)
            return breach.status, b""

        known = self._without_flower(operation, request, ticket)
        if known is not None:
            return 200, known.SerializeToString()

        async def call(_request: object) -> Response:
            response = await self._handle(operation, request, size)
            self._after(operation, node, request, response, ticket)
            return Response(response.SerializeToString(), media_type=_MEDIA)

        answer = await names.http_error_translator(shim, call)
        return answer.status_code, bytes(answer.body)

    def _without_flower(
        self, operation: str, request: names.Proto, ticket: tuple[Instruction, Half | None] | None
    ) -> names.Proto | None:
        """The answer to a request that leaves nothing in Flower's state; None to any other."""
        if operation == "push-object" and ticket is None:
            return names.PushObjectResponse(stored=True)
        if operation != "push-messages":
            return None
        instruction, half = ticket or (None, None)
        if instruction is not None and half is not None and instruction.half is not half:
            if half.objects_come:
                return None
            self._events.announced(instruction, half, None)
        return names.push_answer(
            request.message_object_trees[0].object_id,
            () if half is None else half.pending,
            "" if half is None else half.session,
        )

    def _before(
        self, operation: str, node: NodeRecord, request: names.Proto
    ) -> tuple[Instruction, Half | None] | None:
        """Step 5. What the request is about, if it may be."""
        tables = self._tables
        run_id = getattr(request, "run_id", 0)
        if operation == "push-messages" and request.messages_list:
            run_id = request.messages_list[0].metadata.run_id
        if run_id and run_id not in tables.runs:
            raise Breach(403)
        if operation == "push-messages":
            return tables.answered(node, request)
        if operation == "push-object":
            return tables.receiving(node, request)
        if operation in {"pull-object", "confirm-message-received"}:
            name = request.object_id if operation == "pull-object" else request.message_object_id
            return tables.reading(node, run_id=run_id, object_id=name), None
        if operation == "activate-node" and self._online(node):
            self._state.deactivate_node(node.fleet_id)
        return None

    async def _handle(self, operation: str, request: names.Proto, size: int) -> names.Proto:
        handler, with_store = names.HANDLERS[operation]
        named = {"request": request, "state": self._state} | ({"store": self._store} if with_store else {})
        large = size > FLEET_SMALL_BYTES or (
            operation == "pull-object" and self._store.size_of(request.object_id) >= FLEET_FILE_BYTES
        )
        if not large:
            return handler(**named)
        return await asyncio.get_running_loop().run_in_executor(self._executor, lambda: handler(**named))

    def _after(
        self,
        operation: str,
        node: NodeRecord,
        request: names.Proto,
        response: names.Proto,
        ticket: tuple[Instruction, Half | None] | None,
    ) -> None:
        """Step 8."""
        if operation == "pull-messages":
            for message in response.messages_list:
                instruction = self._tables.instructions.get(message.metadata.message_id)
                if instruction is not None:
                    instruction.delivered_s = time.monotonic()
                    if INLINE in request.message_ids:
                        put_content(message, instruction.content)
        elif operation == "activate-node":
            self._events.returned(node)
        elif operation == "deactivate-node":
            node.seen_s = -_SEEN_S
        elif ticket is not None:
            self._moved(operation, node, request, response, ticket)

    def _moved(
        self,
        operation: str,
        node: NodeRecord,
        request: names.Proto,
        response: names.Proto,
        ticket: tuple[Instruction, Half | None],
    ) -> None:
        instruction, half = ticket
        if operation == "pull-object":
            node.pulled_object_bytes += len(response.object_content)
            instruction.delivered_s = time.monotonic()  # a large model on its way is not lost
        elif operation == "confirm-message-received":
            instruction.confirmed = True
        elif operation == "push-messages" and half is not None:
            message = request.messages_list[0]
            half.session = response.session_id
            response.objects_to_push[:] = sorted(half.pending)
            self._events.announced(
                instruction, half, message.error.reason if message.HasField("error") else None
            )
        elif operation == "push-object" and half is not None:
            if not response.stored:
                self._events.broken(instruction, "engine.reply-malformed")
                return
            half.pending.discard(request.object_id)
            if not half.pending:
                self._events.received(instruction, half)

    def _has_news(self, node: NodeRecord) -> bool:
        """A message waits for the node, or the node was revoked."""
        revoked = node.fleet_id not in self._tables.by_fleet_id
        return revoked or any(one.delivered_s is None for one in self._tables.of(node))

    def _online(self, node: NodeRecord) -> bool:
        return bool(self._state.get_node_info(node_ids=[node.fleet_id], statuses=["online"]))


def _operation(scope: Scope) -> str | None:
    """Step 1."""
    path = scope["path"]
    if scope["method"] != "POST" or not path.startswith(names.FLEET):
        return None
    media = Headers(scope=scope).get("content-type", "").partition(";")[0].strip().lower()
    operation = path[len(names.FLEET) :]
    return operation if operation in names.HANDLERS and media == _MEDIA else None


def _length(scope: Scope, most: int) -> int | None:
    """How large the body may be: as large as it says, else as its kind may be; None if that is too large."""
    length = Headers(scope=scope).get("content-length")
    if length is None:
        return most
    said = int(length) if length.isascii() and length.isdigit() and len(length) < _DIGITS else most + 1
    return said if said <= most else None


async def _read(receive: Receive, most: int) -> bytes | None:
    """The body. None if it is too large: then not one more byte is read."""
    body = bytearray()
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Closed
        body += message.get("body", b"")
        if len(body) > most:
            return None
        if not message.get("more_body", False):
            return bytes(body)


async def _watch(receive: Receive, gone: asyncio.Event, node: NodeRecord) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    gone.set()
    node.wake.set()


async def _answer(send: Send, status: int, content: bytes = b"") -> None:
    headers = [(b"content-length", str(len(content)).encode())]
    if content:
        headers.append((b"content-type", _MEDIA.encode() if status == 200 else b"application/json"))  # noqa: PLR2004  OK
    elif status >= 400:  # noqa: PLR2004  an error of the caller's
        headers.append((b"connection", b"close"))
        if status == 503:  # noqa: PLR2004  no room
            headers.append((b"retry-after", b"1"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": content})
