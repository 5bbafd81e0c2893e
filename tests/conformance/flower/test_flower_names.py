# SPDX-License-Identifier: Apache-2.0
"""One test per group of inner names of Flower that the engine stands on. Another flwr fails here, and at
`probe`, not in a round."""

from __future__ import annotations

import hashlib
import importlib.metadata
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from fastapi import HTTPException

from broker.federation.errors import EngineEnvironmentError, FlowerVersionError
from broker.federation.flower import names
from broker.federation.flower.objects import FileObjectStore
from broker.federation.flower.send import compose
from client.federation import names as node_names
from client.federation.errors import FlowerVersionError as NodeFlowerVersionError
from policies.exchange import peek_request
from policies.frames import STORAGE, array_frame, chunk_order, frame, object_id, read_content
from policies.limits import NODE_RETRY_CAP_S
from tests.fleetsim import RawNode, fleet_key, public_pem, request_of

if TYPE_CHECKING:
    from pathlib import Path

KEY = public_pem(fleet_key(0))


def _state(tmp_path: Path) -> tuple[Any, Any, FileObjectStore]:
    store = FileObjectStore(tmp_path / "objects")
    state, app = names.make_state(store)
    return state, app, store


def test_both_sides_accept_this_flwr() -> None:
    names.probe()
    node_names.probe()
    assert importlib.metadata.version("flwr").startswith("1.41.")


def test_another_version_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.metadata, "version", lambda _name: "1.42.0")
    with pytest.raises(FlowerVersionError):
        names.probe()
    with pytest.raises(NodeFlowerVersionError):
        node_names.probe()


def test_a_moved_signature_stops_the_start_and_names_the_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(names.HANDLERS, "get-run", (lambda request: request, False))
    with pytest.raises(FlowerVersionError, match="get-run"):
        names.probe()
    monkeypatch.undo()
    monkeypatch.setattr(names.InMemoryLinkState, "claim_task", lambda self: None)
    with pytest.raises(FlowerVersionError, match="claim_task"):
        names.probe()


@pytest.mark.parametrize("variable", names.FORBIDDEN)
def test_another_door_stops_the_start(monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, "127.0.0.1:1")
    with pytest.raises(EngineEnvironmentError, match=variable):
        names.probe()


def test_an_environment_that_came_too_late_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(names, "_LOADED_BEFORE", True)
    with pytest.raises(EngineEnvironmentError):
        names.probe()


def test_telemetry_and_the_update_check_are_off() -> None:
    from flwr.supercore import telemetry

    assert telemetry.FLWR_TELEMETRY_ENABLED == "0"


def test_the_id_of_a_node_is_derived_from_its_key(tmp_path: Path) -> None:
    state, _, _ = _state(tmp_path)
    wanted = int.from_bytes(hashlib.sha256(b"iriai/fleet-node/1" + KEY).digest()[:8], "big")
    assert names.create_node(state, KEY) == wanted == names.fleet_id(KEY)
    assert state.get_node_id_by_public_key(KEY) == wanted
    with pytest.raises(ValueError):
        names.create_node(state, KEY)
    other = names.create_run(state, {"iriai": 1})[0]
    assert other != wanted


def test_a_run_without_code_runs_until_its_heartbeat_stops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import datetime as dt

    from flwr.supercore.corestate import in_memory_corestate

    state, _, _ = _state(tmp_path)
    run_id, task_id = names.create_run(state, {"iriai": 1})
    run = state.get_run_info(run_ids=[run_id])[0]
    assert (run.fab_hash, run.fab_id, run.status.status) == ("", "", "running")
    assert state.acknowledge_task_heartbeat(task_id)
    later = names.now() + dt.timedelta(seconds=61)
    monkeypatch.setattr(in_memory_corestate, "now", lambda: later)
    assert state.get_run_info(run_ids=[run_id])[0].status.status == "finished"


def test_a_run_ends_when_its_task_does(tmp_path: Path) -> None:
    state, _, _ = _state(tmp_path)
    run_id, task_id = names.create_run(state, {"iriai": 1})
    assert state.finish_task(task_id, "completed", "")
    state.cleanup_run(run_id)
    assert state.get_run_info(run_ids=[run_id])[0].status.status == "finished"


def test_authentication_accepts_the_shim_and_refuses_the_rest(tmp_path: Path) -> None:
    state, app, _ = _state(tmp_path)
    own = names.create_node(state, KEY)
    kind = names.PROTOBUF_REQUEST_TYPES["POST", "/v1/fleet/pull-messages"]
    node = RawNode(None, 0)

    def shim(headers: dict[str, str], node_id: int) -> Any:
        return SimpleNamespace(
            headers=headers, state=SimpleNamespace(protobuf_request=kind(node={"node_id": node_id})), app=app
        )

    names.authenticate_node(shim(node.headers(), own))
    for headers, node_id in (
        (node.headers(), own + 1),
        (node.headers(age_s=400), own),
        (RawNode(None, 1).headers(), own),
        ({}, own),
    ):
        with pytest.raises(HTTPException):
            names.authenticate_node(shim(headers, node_id))


def test_our_objects_are_flowers_objects(tmp_path: Path) -> None:
    """A message of ours, inflated by Flower's own code."""
    from flwr.supercore.inflatable.inflatable_utils import inflate_object_from_contents

    state, _, store = _state(tmp_path)
    run_id, _ = names.create_run(state, {"iriai": 1})
    for vector in (np.arange(5, dtype=np.float32), np.zeros(3_000_000, dtype=np.float32)):
        request = request_of(vector, node="node_simaaaaaaaaaaaaa")
        message = compose(
            store,
            run_id=run_id,
            fleet_id=7,
            request=request,
            asked=peek_request(request.header),
            ttl_s=60.0,
            chunked={},
        )
        tree = store.get_object_tree(message.message_id)
        ids = [one.object_id for one in names.iterate_object_tree(tree)]
        assert set(ids) == set(message.objects)
        contents = {name: store.get(name) for name in ids}
        found: Any = inflate_object_from_contents(message.message_id, contents)  # type: ignore[arg-type]
        metadata = found.metadata
        assert (metadata.run_id, metadata.dst_node_id, metadata.src_node_id) == (
            run_id,
            7,
            names.SUPERLINK_NODE_ID,
        )
        assert (metadata.group_id, metadata.message_type) == ("1.0", "train.contribute")
        assert found.content["c"]["h"] == request.header
        data = found.content["c"]["b"] if "b" in found.content["c"] else found.content["t"]["t"].data
        assert data == request.tensor
        if "t" in found.content:
            assert found.content["t"]["t"].stype == STORAGE
        store.delete(message.message_id)
        assert len(store) == 0


def test_explicit_metadata_survive_and_nothing_comes_from_the_process() -> None:
    metadata = names.Metadata(5, "", 1, 7, "", "3.1", names.now().timestamp(), 60.0, "train.contribute")
    row = names.empty_message(metadata, "a" * 64)
    assert (row.metadata.run_id, row.metadata.message_id, row.metadata.group_id) == (5, "a" * 64, "3.1")
    assert row.metadata.src_task_id is None
    assert row.metadata.dst_task_id is None


def test_flowers_own_array_and_ours_agree_on_the_order_of_chunks() -> None:
    from flwr.app.message.array import Array

    data = bytes(12_000_000)
    theirs: Any = Array(dtype="float32", shape=(3_000_000,), stype=STORAGE, data=data)
    order = [name for name, _ in theirs.slice_array()]
    assert chunk_order(theirs.deflate()) == order
    assert array_frame("float32", (3_000_000,), order) == theirs.deflate()
    assert len(set(order)) == 2


def test_the_record_is_flowers_config_record() -> None:
    from flwr.app import ConfigRecord

    for module in (names, node_names):
        data = module.config_object(b"header", b"blob")
        assert module.open_config(data) == (b"header", b"blob")
        assert module.open_config(module.config_object(b"header", None)) == (b"header", None)
        for bad in (
            frame("ConfigRecord", (), b"\xff\xff"),
            frame("ConfigRecord", (), b""),
            frame("Array", (), b""),
            ConfigRecord({"h": 1}).deflate(),
            ConfigRecord({"h": b"h", "b": "text"}).deflate(),
            ConfigRecord({"h": b"h", "x": b"x"}).deflate(),
            b"garbage",
        ):
            with pytest.raises(ValueError):
                module.open_config(bad)


def test_a_content_that_rides_is_flowers_record_dict() -> None:
    from flwr.app import ConfigRecord, RecordDict
    from flwr.common.serde import message_from_proto, recorddict_to_proto

    metadata = names.Metadata(5, "", 7, 1, "b" * 64, "3.1", names.now().timestamp(), 60.0, "train.contribute")
    message = node_names.content_message(metadata, "a" * 64, {"h": b"header", "b": b"blob"})
    assert message.content == recorddict_to_proto(
        RecordDict({"c": ConfigRecord({"h": b"header", "b": b"blob"})})
    )
    found: Any = message_from_proto(message)
    assert (found.metadata.message_id, dict(found.content["c"])) == ("a" * 64, {"h": b"header", "b": b"blob"})
    assert read_content(message) == {"h": b"header", "b": b"blob"}


def test_the_node_sends_through_the_client_that_flower_made(monkeypatch: pytest.MonkeyPatch) -> None:
    from flwr.supernode import fleet_http_connection

    assert list(node_names.PullMessagesRequest(message_ids=["x"]).message_ids) == ["x"]
    for call in ("PullMessages", "PushMessages"):
        assert callable(getattr(node_names.FleetHttpClient, call))
    monkeypatch.setattr(fleet_http_connection, "FleetHttpClient", object)
    with pytest.raises(NodeFlowerVersionError):
        node_names.probe()


def test_an_error_reply_has_flowers_form() -> None:
    from flwr.app import Message

    metadata = names.Metadata(5, "", 7, 1, "b" * 64, "3.1", names.now().timestamp(), 60.0, "train.contribute")
    row, data = node_names.error_message(metadata, "engine.run-refused")
    found: Any = Message.inflate(data)
    assert (found.error.reason, row.error.reason) == ("engine.run-refused", "engine.run-refused")
    assert object_id(data) == object_id(row.deflate())


def test_a_node_tries_again_soon() -> None:
    from flwr.supercore.retry import http_retry

    node_names.probe()
    assert http_retry.MAX_RETRY_DELAY == NODE_RETRY_CAP_S
    assert http_retry.make_simple_http_retry_invoker() is not None
    assert issubclass(node_names.RunNotRunningException, BaseException)
    assert not issubclass(node_names.RunNotRunningException, Exception)
