# SPDX-License-Identifier: Apache-2.0
"""Counterparties of the engine: a clock moved by hand, nodes that behave or do not, and a client that speaks
the fleet protocol raw."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import signal
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.federation.engine import Expect, Failure, Reply, Request
from client.federation.handlers import Admission, Desk, HandlerReply, Refusal, RunConfig
from client.federation.ledger import FleetLedger
from policies.encoding import digest
from policies.exchange import (
    ExchangeType,
    RequestHeader,
    TensorSpec,
    peek_request,
    seal_reply,
    seal_request,
    tensor_bytes,
    tensor_spec,
)
from policies.frames import INLINE
from policies.identity import SigningKey
from policies.ports import from_ms

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Mapping, Sequence

CONTRACT = digest(b"contract")
RECIPE = digest(b"recipe")
START_MS = 1_790_000_000_000
BROKER = SigningKey.from_seed(b"b" * 32)


@dataclass
class HandClock:
    ms: int = START_MS

    def now_ms(self) -> int:
        return self.ms

    def pause_ms(self, milliseconds: int) -> None:
        self.ms += milliseconds


class WallClock:
    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def pause_ms(self, milliseconds: int) -> None:
        time.sleep(milliseconds / 1000)


def node_key(index: int) -> SigningKey:
    return SigningKey.from_seed(bytes([index + 1]) * 32)


def fleet_key(index: int) -> ec.EllipticCurvePrivateKey:
    return ec.derive_private_key(1_000 + index, ec.SECP256R1())


def public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def name_of(index: int) -> str:
    return "node_sim" + "abcdefghijklmnopqrstuvwxyz234567"[index] * 13


def header_of(
    *,
    node: str = "node_simaaaaaaaaaaaaa",
    round_: int = 1,
    attempt: int = 0,
    kind: ExchangeType = ExchangeType.CONTRIBUTE,
    run: str = "run_simaaaaaaaaaaaaa",
    tensor: np.ndarray | None = None,
    body: Mapping[str, Any] | None = None,
    deadline_ms: int = START_MS + 60_000,
    key: SigningKey = BROKER,
    recipe: str = RECIPE,
) -> bytes:
    return seal_request(
        key,
        contract=CONTRACT,
        recipe=recipe,
        run=run,
        round=round_,
        attempt=attempt,
        type=kind,
        node=node,
        deadline_ms=deadline_ms,
        tensor=None if tensor is None else tensor_spec(tensor),
        body=body or {},
    )


def request_of(
    tensor: np.ndarray | None = None, *, expect: tuple[int, ...] | str | None = "same", **named: Any
) -> Request:
    if expect == "same":
        expect = None if tensor is None else tuple(tensor.shape)
    return Request(
        node=named.get("node", "node_simaaaaaaaaaaaaa"),
        type=named.get("kind", ExchangeType.CONTRIBUTE),
        round=named.get("round_", 1),
        attempt=named.get("attempt", 0),
        header=header_of(tensor=tensor, **named),
        tensor=None if tensor is None else tensor_bytes(tensor),
        expect=None if expect is None else Expect(dtype="float32", shape=expect),
    )


@dataclass
class AddOne:
    """A handler that adds one and remembers how often; ``before`` runs first."""

    before: Callable[[RequestHeader], None] = lambda _header: None
    refusal: Refusal | None = None
    reply: HandlerReply | None = None
    decided: int = 0
    ran: int = 0

    def decide(self, header: RequestHeader) -> Refusal | None:
        self.decided += 1
        return self.refusal

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:
        self.ran += 1
        self.before(header)
        if self.reply is not None:
            return self.reply
        return HandlerReply(body={"envelopes": []}, tensor=None if tensor is None else tensor + np.float32(1))


def admit_all(_config: RunConfig) -> Admission:
    return Admission(broker_key=BROKER.public, tensor_bytes=1 << 30)


def make_desk(
    folder: Path, *, index: int = 0, handler: Any = None, clock: Any = None, admit: Any = admit_all
) -> Desk:
    handler = handler or AddOne()
    return Desk(
        node=name_of(index),
        key=node_key(index),
        handlers=dict.fromkeys(ExchangeType, handler),
        admit=admit,
        ledger=FleetLedger(folder / f"fleet{index}.db"),
        clock=clock or HandClock(),
    )


async def collect(found: AsyncIterator[Reply | Failure]) -> list[Reply | Failure]:
    return [outcome async for outcome in found]


def deadline(clock: Any, seconds: float) -> dt.datetime:
    return dt.datetime.fromtimestamp(clock.now_ms() / 1000 + seconds, tz=dt.UTC)


def digests(outcomes: Sequence[Reply | Failure]) -> dict[str, str]:
    """Per node: the digest of its tensor, or the code of its failure or refusal."""
    found = {}
    for one in outcomes:
        if isinstance(one, Failure):
            found[one.node] = one.code
        elif one.tensor is None:
            found[one.node] = one.header.code or "ok"
        else:
            found[one.node] = digest(b"".join(one.tensor.chunks()))
    return found


@dataclass
class RawNode:
    """A node that speaks the fleet protocol message by message, over ASGI; it may lie."""

    endpoint: Any
    index: int
    key: ec.EllipticCurvePrivateKey = field(init=False)

    def __post_init__(self) -> None:
        self.key = fleet_key(self.index)

    def headers(self, *, age_s: float = 0.0, key: ec.EllipticCurvePrivateKey | None = None) -> dict[str, str]:
        signer = key or self.key
        stamp = from_ms(WallClock().now_ms() - int(age_s * 1000)).isoformat()
        from flwr.common.constant import TIMESTAMP_HEADER
        from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER

        return {
            FLEET_HTTP_PUBLIC_KEY_HEADER: base64.b64encode(public_pem(signer)).decode(),
            FLEET_HTTP_SIGNATURE_HEADER: base64.b64encode(
                signer.sign(stamp.encode(), ec.ECDSA(hashes.SHA256()))
            ).decode(),
            TIMESTAMP_HEADER: stamp,
            "content-type": "application/protobuf",
        }

    async def post(
        self, operation: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(self.endpoint), base_url="https://sim"
        ) as client:
            return await client.post(
                f"/v1/fleet/{operation}", content=body, headers=self.headers() if headers is None else headers
            )

    async def call(self, operation: str, **fields: Any) -> tuple[int, Any]:
        """Status and parsed answer of a call with this node's id."""
        from flwr.proto import fleet_pb2, heartbeat_pb2, message_pb2, run_pb2
        from flwr.proto.node_pb2 import Node

        from broker.federation.flower.names import PROTOBUF_REQUEST_TYPES, fleet_id

        own = fleet_id(public_pem(self.key))
        kind = PROTOBUF_REQUEST_TYPES["POST", f"/v1/fleet/{operation}"]
        if operation == "activate-node":
            fields = {"public_key": public_pem(self.key), "heartbeat_interval": 30.0} | fields
        elif operation == "deactivate-node":
            fields = {"node_id": own} | fields
        else:
            fields = {"node": Node(node_id=own)} | fields
        answer = await self.post(operation, kind(**fields).SerializeToString())
        if answer.status_code != 200:
            return answer.status_code, None
        name = kind.__name__.replace("Request", "Response")
        for module in (fleet_pb2, heartbeat_pb2, message_pb2, run_pb2):
            if hasattr(module, name):
                return 200, getattr(module, name).FromString(answer.content)
        raise LookupError(name)

    async def pull(self, *, inline: bool = False) -> tuple[Any, Any]:
        """The next message and its tree; it must be there."""
        asked = {"message_ids": [INLINE]} if inline else {}
        status, answer = await self.call("pull-messages", **asked)
        assert status == 200, status
        assert len(answer.messages_list) == 1
        return answer.messages_list[0], answer.message_object_trees[0]

    async def header(self, message: Any, tree: Any) -> bytes:
        """Reads the request's header, as a node does first."""
        from client.federation.names import open_config
        from client.federation.transfer import tree_shape

        status, answer = await self.call(
            "pull-object", run_id=message.metadata.run_id, object_id=tree_shape(tree)[0]
        )
        assert status == 200, status
        return open_config(answer.object_content)[0]

    async def push(
        self,
        message: Any,
        header: bytes,
        tensor: bytes | None,
        *,
        upload: bool = True,
        inline: bool = False,
    ) -> int:
        """Answers a message; the first status that is not 200, else 200."""
        proto, tree, objects = composed(message, header, tensor, inline=inline)
        status, answer = await self.call(
            "push-messages", messages_list=[proto], message_object_trees=[tree], clientapp_runtime_list=[0.0]
        )
        if status != 200 or not upload:
            return status
        for name in answer.objects_to_push:
            status, _ = await self.call(
                "push-object",
                run_id=message.metadata.run_id,
                session_id=answer.session_id,
                object_id=name,
                object_content=objects[name],
            )
            if status != 200:
                return status
        return 200

    async def answer(self, desk: Desk | None = None, tensor: bytes | None = None) -> int:
        """Pulls the next message and answers it: by a desk, or with this tensor."""
        message, tree = await self.pull()
        header = await self.header(message, tree)
        asked = peek_request(header)
        if desk is None:
            spec = None
            if tensor is not None:
                spec = TensorSpec(digest=digest(tensor), dtype="float32", shape=(len(tensor) // 4,))
            raw = seal_reply(node_key(self.index), asked, status="ok", code=None, tensor=spec, body={})
            return await self.push(message, raw, tensor)
        config = {"iriai": 1, "run": asked.run, "contract": asked.contract, "recipe": asked.recipe}
        found = desk.local(config, header, asked.type.value, (asked.round, asked.attempt), tensor)
        assert isinstance(found, tuple)
        return await self.push(message, *found)


def composed(
    message: Any, header: bytes, tensor: bytes | None, *, inline: bool = False
) -> tuple[Any, Any, dict[str, bytes]]:
    """Message row, tree and objects of a reply, made by the node's own code."""
    from flwr.app.message import remove_content_from_message
    from flwr.common.serde import message_from_proto, message_to_proto

    from client.federation.handlers import Answer
    from client.federation.names import content_message
    from client.federation.transfer import push

    class Recorder:
        def __init__(self) -> None:
            self.objects: dict[str, bytes] = {}

        def send(self, row: Any, tree: Any, _seconds: float) -> tuple[set[str], str]:
            self.row, self.tree = message_to_proto(remove_content_from_message(row)), tree
            return _Everything(), ""

        def answer(self, metadata: Any, tree: Any, content: Any) -> tuple[set[str], str]:
            self.row, self.tree = content_message(metadata, tree.object_id, content), tree
            return _Everything(), ""

        def push_object(self, _run: int, _session: str, name: str, data: bytes) -> None:
            self.objects[name] = data

    class _Everything(set[str]):
        def __contains__(self, _name: object) -> bool:
            return True

    recorder = Recorder()
    metadata = message_from_proto(message).metadata
    answer = Answer(header=header, tensor=tensor, status="ok", code=None)
    push(recorder, metadata, answer, inline=inline)  # type: ignore[arg-type]
    return recorder.row, recorder.tree, recorder.objects


def main() -> None:
    """A node process with a behaviour: ``python -m tests.fleetsim HOME INDEX BEHAVIOUR``."""
    from sandbox.bench_exchange import serve_node

    home, behaviour = Path(sys.argv[1]), (sys.argv[3] if len(sys.argv) > 3 else "ok")

    def before(header: RequestHeader) -> None:
        with (home / "ran.txt").open("a") as file:
            file.write(f"{header.round}.{header.attempt}\n")
        if behaviour == "raise":
            raise RuntimeError("row 17: serial=SECRET-42")
        if behaviour == "memory":
            raise MemoryError("SECRET-42")
        if behaviour.startswith("sleep:"):
            time.sleep(float(behaviour[6:]))
        if behaviour == "die" and not (home / "died").exists():
            (home / "died").touch()
            os.kill(os.getpid(), signal.SIGKILL)

    reply = None
    if behaviour == "shape":
        reply = HandlerReply(tensor=np.zeros(7, np.float32))
    if behaviour == "dtype":
        reply = HandlerReply(tensor=np.zeros(250, np.uint32))
    refusal = (
        Refusal(code="contract.refused", body={"decision": {"salt": "C5"}}) if behaviour == "refuse" else None
    )
    handler = AddOne(before=before, reply=reply, refusal=refusal)
    serve_node(home, dict.fromkeys(ExchangeType, handler))


def ran(home: Path) -> list[str]:
    path = home / "ran.txt"
    return path.read_text().split() if path.exists() else []


def events(home: Path) -> list[tuple[str, dict[str, Any]]]:
    lines = (home / "log.txt").read_text().splitlines()
    return [(one[0], one[1]) for one in (json.loads(line) for line in lines if line.startswith("["))]


if __name__ == "__main__":
    main()
