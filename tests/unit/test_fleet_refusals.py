# SPDX-License-Identifier: Apache-2.0
"""A broker that answers the node's pulls with a status that Flower does not try again: the node goes on."""

from __future__ import annotations

import os
import signal
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from broker.federation.flower.names import PROTOBUF_REQUEST_TYPES
from broker.tls import make_certificate
from client.federation import fleet
from client.federation.errors import KeyUnknownError, UnreachableError
from tests.brokersim import SeedEntropy
from tests.fleetsim import HandClock, fleet_key, make_desk, private_pem

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

URL = "https://127.0.0.1:8443"
PLAIN = httpx.Client
REFUSALS = (404, 408, 413, 429, 500)


@dataclass
class Door:
    """The broker's fleet door: pulls get these statuses in turn, then empty answers; after two the node is told
    to stop."""

    statuses: list[int]
    more: Mapping[str, str] = field(default_factory=dict)
    forever: bool = False
    pulls: int = 0
    well: int = 0
    asked: list[str] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        from flwr.proto import fleet_pb2, heartbeat_pb2

        operation = request.url.path.rpartition("/")[2]
        self.asked.append(operation)
        assert ("POST", request.url.path) in PROTOBUF_REQUEST_TYPES
        if operation == "activate-node":
            return _well(fleet_pb2.ActivateNodeResponse(node_id=7))
        if operation == "send-node-heartbeat":
            return _well(heartbeat_pb2.SendNodeHeartbeatResponse(success=True))
        if operation != "pull-messages":
            return _well(fleet_pb2.DeactivateNodeResponse())
        self.pulls += 1
        if self.forever or self.pulls <= len(self.statuses):
            status = self.statuses[(self.pulls - 1) % len(self.statuses)]
            return httpx.Response(status, headers=dict(self.more), request=request)
        self.well += 1
        if self.well == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return _well(fleet_pb2.PullMessagesResponse())


def _well(message: Any) -> httpx.Response:
    return httpx.Response(200, content=message.SerializeToString())


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_AGAIN_S", 0.0)
    monkeypatch.setattr(fleet, "_EMPTY_S", 0.001)


def run(door: Door, folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, Mapping[str, Any]]]:
    def client(**named: Any) -> httpx.Client:
        return PLAIN(**named, transport=httpx.MockTransport(door))

    monkeypatch.setattr("flwr.supercore.protobuf.client.httpx.Client", client)
    monkeypatch.setenv("FLWR_HOME", str(folder))
    told: list[tuple[str, Mapping[str, Any]]] = []
    try:
        fleet.run_fleet(
            url=URL,
            ca_pem=make_certificate(URL, clock=HandClock(), entropy=SeedEntropy(b"tls")).chain_pem,
            fleet_key_pem=private_pem(fleet_key(0)),
            desk=make_desk(folder),
            state_dir=folder,
            on_event=lambda name, facts: told.append((name, facts)),
        )
    finally:
        door.asked.append("end")
    return told


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", REFUSALS)
def test_one_refusal_is_a_lost_pull_and_the_node_goes_on(tmp_path, monkeypatch, status):
    door = Door([status])
    told = run(door, tmp_path, monkeypatch)
    assert [name for name, _ in told] == ["online", "lost"]
    assert told[1][1] == {"kind": "HTTPStatusError"}
    assert (door.pulls, door.well) == (3, 2)
    assert door.asked[-2:] == ["deactivate-node", "end"]


@pytest.mark.usefixtures("quick")
def test_a_run_that_is_over_while_the_node_pulls_does_not_end_it(tmp_path, monkeypatch):
    told = run(Door([403, 429, 403]), tmp_path, monkeypatch)
    assert [facts for _, facts in told[1:]] == [
        {"kind": "RunNotRunningException"},
        {"kind": "HTTPStatusError"},
        {"kind": "RunNotRunningException"},
    ]


@pytest.mark.usefixtures("quick")
@pytest.mark.parametrize("status", [404, 429])
def test_refusals_without_end_end_the_process_with_a_code_that_starts_another(tmp_path, monkeypatch, status):
    door = Door([status], forever=True)
    with pytest.raises(UnreachableError) as raised:
        run(door, tmp_path, monkeypatch)
    assert door.pulls == fleet._PULLS
    assert raised.value.exit_code == 5


@pytest.mark.usefixtures("quick")
def test_pulls_that_went_well_begin_the_count_anew(tmp_path, monkeypatch):
    monkeypatch.setattr(fleet, "_PULLS", 2)
    told = run(Door([500, 200, 500, 200, 500]), tmp_path, monkeypatch)
    assert [name for name, _ in told] == ["online", "lost", "lost", "lost"]


@pytest.mark.usefixtures("quick")
def test_what_ends_inside_flowers_connection_is_never_a_good_end(tmp_path, monkeypatch):
    def broken(_loop: object) -> None:
        raise ValueError

    monkeypatch.setattr(fleet._Loop, "run", broken)  # Flower's connection swallows it
    with pytest.raises(UnreachableError):
        run(Door([]), tmp_path, monkeypatch)


def test_a_key_that_is_not_known_is_still_said_so(tmp_path, monkeypatch):
    with pytest.raises(KeyUnknownError):
        run(Door([401]), tmp_path, monkeypatch)


@pytest.mark.parametrize(
    ("said", "failed", "wanted"),
    [(None, 0, 1), (None, 3, 8), (None, 30, 60), ("7", 0, 7), ("7", 4, 16), ("99999", 0, 60), ("soon", 1, 2)],
)
def test_the_pause_grows_and_heeds_the_broker(said, failed, wanted):
    headers = {} if said is None else {"retry-after": said}
    response = httpx.Response(429, headers=headers, request=httpx.Request("POST", URL))
    error = httpx.HTTPStatusError("429", request=response.request, response=response)
    assert fleet._pause_s(error, failed) == wanted


def test_a_refused_heartbeat_is_tried_again(tmp_path, monkeypatch):
    from flwr.proto.heartbeat_pb2 import SendNodeHeartbeatRequest

    seen: list[BaseException] = []

    def looked(loop: Any) -> None:
        client = loop._net._client
        client._client = PLAIN(transport=httpx.MockTransport(lambda _: httpx.Response(429)))
        try:
            client.SendNodeHeartbeat(SendNodeHeartbeatRequest())
        except httpx.HTTPError as error:
            seen.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(fleet._Loop, "run", looked)
    run(Door([]), tmp_path, monkeypatch)
    assert isinstance(seen[0], httpx.TransportError)
