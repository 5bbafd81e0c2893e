# SPDX-License-Identifier: Apache-2.0
"""Every inner name of Flower that the node uses, in one place.

Only `client.federation.fleet` imports this module.

- `ENVIRONMENT` is set before the first import of flwr, which reads it while it loads; `probe` refuses the
  start if flwr was loaded
  before with other values, is another version, or has moved one of these names.
- The longest pause between two tries is `NODE_RETRY_CAP_S`: with Flower's own 20 s a node needs half a
  minute to come back.
- `Connection` sends pulls and pushes through Flower's own client, which `connect` keeps a hold of, with what
  `policies.frames.put_content` puts into messages; heartbeat, activation and authentication are Flower's.
- A heartbeat that is refused is tried again, whatever the status: Flower's thread of heartbeats would end.
- Flower's own log is silent: it would write what the broker says into the node's log.

Each name is pinned by a test in ``tests/conformance/flower``.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import inspect
import logging
import os
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.federation.errors import EngineEnvironmentError, FlowerVersionError

ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": "5242880",
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES": "2",
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS": "2",
}
_LOADED_BEFORE: Final = "flwr" in sys.modules and any(
    os.environ.get(name) != value for name, value in ENVIRONMENT.items()
)
os.environ.update(ENVIRONMENT)

import httpx  # noqa: E402
from flwr.app import ConfigRecord, Error, RecordDict  # noqa: E402  after the environment
from flwr.app.message import make_message  # noqa: E402
from flwr.app.metadata import Metadata  # noqa: E402
from flwr.common.constant import SUPERLINK_NODE_ID, ErrorCode  # noqa: E402
from flwr.common.serde_utils import error_to_proto, metadata_from_proto, metadata_to_proto  # noqa: E402
from flwr.proto.fleet_pb2 import PullMessagesRequest, PushMessagesRequest  # noqa: E402
from flwr.proto.message_pb2 import Message as ProtoMessage  # noqa: E402
from flwr.proto.message_pb2 import ObjectTree  # noqa: E402
from flwr.proto.node_pb2 import Node  # noqa: E402
from flwr.supercore.date import now  # noqa: E402
from flwr.supercore.inflatable.inflatable_utils import (  # noqa: E402
    ObjectPullError,
    ObjectPushError,
    ObjectUnavailableError,
)
from flwr.supercore.retry import http_retry  # noqa: E402
from flwr.supercore.run import RunNotRunningException  # noqa: E402
from flwr.supernode import fleet_http_connection  # noqa: E402
from flwr.supernode.fleet_http_client import FleetHttpClient  # noqa: E402

from policies.frames import (  # noqa: E402
    BLOB_KEY,
    HEADER_KEY,
    INLINE,
    frame,
    put_content,
    read_content,
)
from policies.limits import NODE_RETRY_CAP_S  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

__all__ = [
    "ENVIRONMENT",
    "Connection",
    "Delivery",
    "Metadata",
    "ObjectPullError",
    "ObjectPushError",
    "ObjectTree",
    "ObjectUnavailableError",
    "RunNotRunningException",
    "config_object",
    "connect",
    "content_message",
    "empty_message",
    "error_message",
    "message_object",
    "open_config",
    "probe",
    "reply_metadata",
]

Proto = Any  # a message of Flower's
CONNECTION_CALLS: Final = 8
DecodeError: Final[type[Exception]] = importlib.import_module("google.protobuf.message").DecodeError


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """A message that came, the tree of its objects, and its content where it rode in the message."""

    metadata: Metadata
    tree: ObjectTree
    content: Mapping[str, bytes] | None


class Connection:
    """The calls of Flower's fleet client that a node uses; the one that fetches code is not among them."""

    def __init__(self, calls: tuple[Any, ...], client: FleetHttpClient) -> None:
        self.fleet_id: int
        self.send: Callable[[Proto, ObjectTree, float], tuple[set[str], str]]
        self.get_run: Callable[[int], Any]
        self.pull_object: Callable[[int, str], bytes]
        self.push_object: Callable[[int, str, str, bytes], None]
        self.confirm: Callable[[int, str], None]
        (self.fleet_id, _receive, self.send, self.get_run, _no_code) = calls[:5]
        (self.pull_object, self.push_object, self.confirm) = calls[5:]
        self._node = Node(node_id=self.fleet_id)
        self._client = client
        self._retry = http_retry.make_simple_http_retry_invoker()

    def receive(self) -> Delivery | None:
        """The next message, or None after the hold.

        Raises:
            EncodingError: A content that is not ours.
        """
        asked = PullMessagesRequest(node=self._node, message_ids=[INLINE])
        response = self._retry.invoke(self._client.PullMessages, asked)
        if not response.messages_list:
            return None
        message = response.messages_list[0]
        return Delivery(
            metadata=metadata_from_proto(message.metadata),
            tree=response.message_object_trees[0],
            content=read_content(message),
        )

    def answer(
        self, metadata: Metadata, tree: ObjectTree, content: Mapping[str, bytes]
    ) -> tuple[set[str], str]:
        """Sends a reply whose small parts ride in the message; returns what to push, and the session."""
        message = content_message(metadata, tree.object_id, content)
        request = PushMessagesRequest(
            node=self._node,
            messages_list=[message],
            message_object_trees=[tree],
            clientapp_runtime_list=[0.0],
        )
        response = self._retry.invoke(self._client.PushMessages, request)
        return set(response.objects_to_push), response.session_id


def probe() -> None:
    """Refuses a flwr that the node was not written for.

    Raises:
        FlowerVersionError: Another version, or a name or signature that moved.
        EngineEnvironmentError: flwr was loaded with other settings.
    """
    version = importlib.metadata.version("flwr")
    module: Any = fleet_http_connection  # its client is imported there, not declared
    connecting = inspect.signature(module.http_request_response).parameters
    wanted = ("server_address", "insecure", "root_certificates", "authentication_keys")
    there = (
        tuple(connecting)[:4] == wanted
        and hasattr(http_retry, "MAX_RETRY_DELAY")
        and module.FleetHttpClient is FleetHttpClient
    )
    if not version.startswith("1.41.") or not there:
        raise FlowerVersionError(
            need="flwr 1.41 with its fleet client", found=version, remedy="install from constraints.txt"
        )
    if _LOADED_BEFORE:
        raise EngineEnvironmentError(
            need="our settings before flwr is imported",
            found="flwr loaded with others",
            remedy="start the worker in a process of its own",
        )
    patched: Any = http_retry  # the number is imported there, by value
    patched.MAX_RETRY_DELAY = NODE_RETRY_CAP_S
    logging.getLogger("flwr").setLevel(logging.CRITICAL + 1)


@contextmanager
def connect(address: str, ca_pem: bytes, private_key: Any) -> Iterator[Connection]:  # noqa: ANN401  an EC key
    """Flower's fleet client, activated; leaving the block deactivates the node.

    Raises:
        SystemExit: Flower's way to say that the first call failed.
    """
    keys = (private_key, private_key.public_key())
    made: list[FleetHttpClient] = []

    class Kept(FleetHttpClient):
        def __init__(self, *args: Any, **named: Any) -> None:  # noqa: ANN401  Flower's own
            super().__init__(*args, **named)
            made.append(self)

        def SendNodeHeartbeat(self, request: Proto) -> Proto:  # noqa: N802  Flower's name
            try:
                return super().SendNodeHeartbeat(request)
            except httpx.HTTPStatusError as error:
                if error.response.status_code == httpx.codes.UNAUTHORIZED:
                    raise
                raise httpx.ReadError(str(error)) from error

    module: Any = fleet_http_connection  # the class is imported there, not declared
    opening = module.http_request_response(address, False, ca_pem, keys)  # noqa: FBT003  Flower's signature
    with _swapped(module, Kept), opening as calls:
        if len(calls) != CONNECTION_CALLS or len(made) != 1:
            raise FlowerVersionError(
                need=f"{CONNECTION_CALLS} calls", found=f"{len(calls)}", remedy="install from constraints.txt"
            )
        yield Connection(calls, made[0])


@contextmanager
def _swapped(module: Any, kind: type[FleetHttpClient]) -> Iterator[None]:  # noqa: ANN401  a module
    module.FleetHttpClient = kind
    try:
        yield
    finally:
        module.FleetHttpClient = FleetHttpClient


def config_object(header: bytes, blob: bytes | None) -> bytes:
    """The ConfigRecord object of a message."""
    return ConfigRecord(
        {HEADER_KEY: header} if blob is None else {HEADER_KEY: header, BLOB_KEY: blob}
    ).deflate()


def open_config(data: bytes) -> tuple[bytes, bytes | None]:
    """Header and small tensor of a ConfigRecord object.

    Raises:
        ValueError: Another object, other keys or other types.
    """
    try:
        record = ConfigRecord.inflate(data)
    except (DecodeError, TypeError, KeyError, AttributeError) as error:
        raise ValueError(HEADER_KEY) from error
    header, blob = record.get(HEADER_KEY), record.get(BLOB_KEY)
    if not isinstance(header, bytes) or not isinstance(blob, bytes | None):
        raise ValueError(HEADER_KEY)  # noqa: TRY004  one kind of refusal
    if set(record) - {HEADER_KEY, BLOB_KEY}:
        raise ValueError(BLOB_KEY)
    return header, blob


def reply_metadata(asked: Metadata) -> Metadata:
    """Metadata of the reply to a message; every field given, nothing from the process."""
    created = now().timestamp()
    return Metadata(
        run_id=asked.run_id,
        message_id="",
        src_node_id=asked.dst_node_id,
        dst_node_id=SUPERLINK_NODE_ID,
        reply_to_message_id=asked.message_id,
        group_id=asked.group_id,
        created_at=created,
        ttl=asked.created_at + asked.ttl - created,
        message_type=asked.message_type,
    )


def message_object(metadata: Metadata, record_dict_id: str) -> bytes:
    """The Message object over a RecordDict."""
    proto = metadata_to_proto(metadata)
    proto.message_id = ""
    body = ProtoMessage(metadata=proto).SerializeToString(deterministic=True)
    return frame("Message", (record_dict_id,), body)


def empty_message(metadata: Metadata, message_id: str) -> Proto:
    """The message row of an object tree: metadata and an empty content."""
    metadata.__dict__["_message_id"] = message_id
    message = make_message(metadata=metadata, content=RecordDict())
    metadata.delivered_at = ""
    return message


def content_message(metadata: Metadata, message_id: str, content: Mapping[str, bytes]) -> Proto:
    """A reply as it travels when its small parts ride in it."""
    message = ProtoMessage(metadata=metadata_to_proto(metadata))
    message.metadata.message_id = message_id
    put_content(message, content)
    return message


def error_message(metadata: Metadata, code: str) -> tuple[Proto, bytes]:
    """An error reply that carries one of our codes and nothing else, and its object."""
    error = Error(ErrorCode.CLIENT_APP_RAISED_EXCEPTION, code)
    proto = metadata_to_proto(metadata)
    proto.message_id = ""
    body = ProtoMessage(metadata=proto, error=error_to_proto(error)).SerializeToString(deterministic=True)
    return make_message(metadata=metadata, error=error), frame("Message", (), body)
