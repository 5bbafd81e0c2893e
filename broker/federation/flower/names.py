# SPDX-License-Identifier: Apache-2.0
"""Every inner name of Flower that the broker uses, in one place. Nobody else in `broker` imports `flwr`.

- `ENVIRONMENT` is set before the first import of flwr, which reads it while it loads. If flwr was loaded
  before with other values,
  or a variable of `FORBIDDEN` is set, `probe` refuses the start.
- `probe` compares version and signatures with what the engine was written for. Another flwr stops the start,
  not a round.
- Flower's own log is silent: its messages carry ids of other parties' nodes.

Each name is pinned by a test in ``tests/conformance/flower``.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import logging
import os
import sys
import threading
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final

from broker.federation.errors import EngineEnvironmentError, FlowerVersionError

ENVIRONMENT: Final = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "FLWR_DISABLE_UPDATE_CHECK": "1",
    "FLWR_PRIVATE_MAX_ARRAY_CHUNK_SIZE": "5242880",
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PUSHES": "2",
    "FLWR_PRIVATE_MAX_CONCURRENT_OBJ_PULLS": "2",
}
FORBIDDEN: Final = ("FLWR_INTERNAL_GRPC_FLEET_API", "FLWR_INTERNAL_GRPC_CONTROL_API")
_LOADED_BEFORE: Final = "flwr" in sys.modules and any(
    os.environ.get(name) != value for name, value in ENVIRONMENT.items()
)
os.environ.update(ENVIRONMENT)

from flwr.app import ConfigRecord, RecordDict  # noqa: E402  after the environment
from flwr.app.message import make_message  # noqa: E402
from flwr.app.metadata import Metadata  # noqa: E402
from flwr.common.constant import NOOP_ACCOUNT_NAME, NOOP_FLWR_AID, SUPERLINK_NODE_ID  # noqa: E402
from flwr.common.serde_utils import metadata_to_proto  # noqa: E402
from flwr.proto.fleet_pb2 import PushMessagesResponse  # noqa: E402
from flwr.proto.message_pb2 import Message as ProtoMessage  # noqa: E402
from flwr.proto.message_pb2 import ObjectTree, PushObjectResponse  # noqa: E402
from flwr.server.superlink.linkstate import in_memory_linkstate  # noqa: E402
from flwr.server.superlink.linkstate.in_memory_linkstate import InMemoryLinkState  # noqa: E402
from flwr.supercore.constant import (  # noqa: E402
    FLEET_HTTP_PUBLIC_KEY_HEADER,
    NOOP_FEDERATION_ID,
    TaskType,
)
from flwr.supercore.date import now  # noqa: E402
from flwr.supercore.error.http import http_error_translator  # noqa: E402
from flwr.supercore.inflatable.inflatable_object import iterate_object_tree  # noqa: E402
from flwr.supercore.inflatable.inflatable_utils import validate_object_content  # noqa: E402
from flwr.supercore.object_store.in_memory_object_store import InMemoryObjectStore  # noqa: E402
from flwr.supercore.object_store.object_store import NoObjectInStoreError  # noqa: E402
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE  # noqa: E402
from flwr.supercore.protobuf.translation import PROTOBUF_REQUEST_TYPES  # noqa: E402
from flwr.superlink.federation.noop_federation_manager import NoOpFederationManager  # noqa: E402
from flwr.superlink.routers.fleet.node_auth import authenticate_node  # noqa: E402
from flwr.superlink.servicer.fleet import fleet_handlers  # noqa: E402

from policies.frames import BLOB_KEY, HEADER_KEY, frame  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = [
    "ENVIRONMENT",
    "FLEET",
    "FLEET_HTTP_PUBLIC_KEY_HEADER",
    "HANDLERS",
    "NOOP_FLWR_AID",
    "PROTOBUF_MEDIA_TYPE",
    "PROTOBUF_REQUEST_TYPES",
    "SUPERLINK_NODE_ID",
    "InMemoryLinkState",
    "InMemoryObjectStore",
    "Metadata",
    "NoObjectInStoreError",
    "ObjectTree",
    "PushObjectResponse",
    "authenticate_node",
    "config_object",
    "create_node",
    "create_run",
    "empty_message",
    "fleet_id",
    "http_error_translator",
    "iterate_object_tree",
    "make_state",
    "message_object",
    "now",
    "open_config",
    "probe",
    "push_answer",
    "validate_object_content",
]

Proto = Any  # a protobuf message of Flower's; its classes are made at run time
FLEET: Final = "/v1/fleet/"
DecodeError: Final[type[Exception]] = importlib.import_module("google.protobuf.message").DecodeError
_ID_DOMAIN: Final = b"iriai/fleet-node/1"
_ID_LOCK: Final = threading.Lock()

# operation -> (Flower's handler, whether it takes the object store)
HANDLERS: Final[dict[str, tuple[Callable[..., Any], bool]]] = {
    "activate-node": (fleet_handlers.activate_node, False),
    "deactivate-node": (fleet_handlers.deactivate_node, False),
    "send-node-heartbeat": (fleet_handlers.send_node_heartbeat, False),
    "pull-messages": (fleet_handlers.pull_messages, True),
    "push-messages": (fleet_handlers.push_messages, False),
    "get-run": (fleet_handlers.get_run, False),
    "push-object": (fleet_handlers.push_object, False),
    "pull-object": (fleet_handlers.pull_object, False),
    "confirm-message-received": (fleet_handlers.confirm_message_received, True),
}
_STATE_CALLS: Final = {
    "store_message_ins": ("message",),
    "delete_messages": ("message_ins_ids",),
    "cleanup_run": ("run_id",),
    "create_node": ("owner_aid", "owner_name", "public_key", "heartbeat_interval", "location", "name"),
    "delete_node": ("owner_aid", "node_id"),
    "activate_node": ("node_id", "heartbeat_interval"),
    "deactivate_node": ("node_id",),
    "get_node_id_by_public_key": ("public_key",),
    "get_node_info": ("node_ids", "owner_aids", "statuses"),
    "acknowledge_node_heartbeat": ("node_id", "heartbeat_interval"),
    "claim_task": ("task_id",),
    "activate_task": ("task_id",),
    "finish_task": ("task_id", "sub_status", "details"),
    "acknowledge_task_heartbeat": ("task_id",),
}


def probe() -> None:
    """Refuses a flwr that the engine was not written for.

    Raises:
        FlowerVersionError: Another version, or a name or signature that moved.
        EngineEnvironmentError: flwr was loaded with other settings, or a forbidden variable is set.
    """
    version = importlib.metadata.version("flwr")
    if not version.startswith("1.41."):
        raise _moved("flwr 1.41", version)
    for name, (handler, with_store) in HANDLERS.items():
        wanted = ("request", "state", "store") if with_store else ("request", "state")
        if tuple(inspect.signature(handler).parameters) != wanted:
            raise _moved(f"{name} with " + ", ".join(wanted), "another signature")
        if ("POST", FLEET + name) not in PROTOBUF_REQUEST_TYPES:
            raise _moved(f"a request type for {name}", "none")
    _probe_state()
    for name in FORBIDDEN:
        if name in os.environ:
            raise EngineEnvironmentError(need=f"no {name}", found="it is set", remedy="unset it")
    if _LOADED_BEFORE:
        raise EngineEnvironmentError(
            need="our settings before flwr is imported",
            found="flwr loaded with others",
            remedy="start the broker in a process of its own",
        )
    logging.getLogger("flwr").setLevel(logging.CRITICAL + 1)


def _probe_state() -> None:
    for name, parameters in _STATE_CALLS.items():
        found = tuple(inspect.signature(getattr(InMemoryLinkState, name)).parameters)[1:]
        if found != parameters:
            raise _moved(f"{name} with " + ", ".join(parameters), ", ".join(found))
    if not hasattr(in_memory_linkstate, "generate_rand_int_from_bytes"):
        raise _moved("the source of node ids in in_memory_linkstate", "none")


def make_state(store: InMemoryObjectStore) -> tuple[InMemoryLinkState, SimpleNamespace]:
    """Flower's state over our object store, and the shim of an app from which its authentication reads it."""
    state = InMemoryLinkState(NoOpFederationManager(), store)
    factory = SimpleNamespace(state=lambda: state)
    return state, SimpleNamespace(state=SimpleNamespace(linkstate_factory=factory))


def fleet_id(fleet_key: bytes) -> int:
    """The fleet id of a key, the same after every restart; 0 and Flower's own id 1 are excluded."""
    found = int.from_bytes(hashlib.sha256(_ID_DOMAIN + fleet_key).digest()[:8], "big")
    return found if found not in {0, SUPERLINK_NODE_ID} else 2


def create_node(state: InMemoryLinkState, fleet_key: bytes) -> int:
    """Registers a key under its own id.

    Raises:
        ValueError: The key is registered already, or another key has this id.
    """
    wanted = fleet_id(fleet_key)
    with _ID_LOCK:
        module: Any = in_memory_linkstate  # the name is imported there, not declared
        original = module.generate_rand_int_from_bytes
        module.generate_rand_int_from_bytes = lambda *_args, **_named: wanted
        try:
            found = state.create_node(NOOP_FLWR_AID, NOOP_ACCOUNT_NAME, fleet_key, 0)
        finally:
            module.generate_rand_int_from_bytes = original
    if found != wanted:
        raise ValueError(found)
    return found


def create_run(state: InMemoryLinkState, config: dict[str, Any]) -> tuple[int, int]:
    """Opens a run without code and returns its id and the id of its task, which needs a heartbeat."""
    run_id = state.create_run(
        None, None, None, config, NOOP_FEDERATION_ID, None, NOOP_FLWR_AID, TaskType.SERVER_APP
    )
    task_id = state.get_run_info(run_ids=[run_id])[0].primary_task_id
    if task_id is None or state.claim_task(task_id) is None or not state.activate_task(task_id):
        raise _moved("a run that starts", "one that does not")
    return run_id, task_id


def config_object(header: bytes, blob: bytes | None) -> bytes:
    """The ConfigRecord object of a message."""
    record = ConfigRecord({HEADER_KEY: header} if blob is None else {HEADER_KEY: header, BLOB_KEY: blob})
    return record.deflate()


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


def message_object(metadata: Metadata, record_dict_id: str) -> bytes:
    """The Message object over a RecordDict."""
    proto = metadata_to_proto(metadata)
    proto.message_id = ""
    body = ProtoMessage(metadata=proto).SerializeToString(deterministic=True)
    return frame("Message", (record_dict_id,), body)


def empty_message(metadata: Metadata, message_id: str) -> Proto:
    """The message row of an object tree: metadata and an empty content."""
    metadata.__dict__["_message_id"] = message_id
    return make_message(metadata=metadata, content=RecordDict())


def push_answer(message_id: str, wanted: Iterable[str], session: str) -> Proto:
    """The answer to a reply: taken, and these of its objects are still to come."""
    return PushMessagesResponse(results={message_id: 0}, objects_to_push=sorted(wanted), session_id=session)


def _moved(need: str, found: str) -> FlowerVersionError:
    return FlowerVersionError(need=need, found=found, remedy="install from constraints.txt")
