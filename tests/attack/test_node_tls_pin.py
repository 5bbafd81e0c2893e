# SPDX-License-Identifier: Apache-2.0
"""The node talks to one certificate only; whoever stands between gets no byte."""

from __future__ import annotations

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from broker.tls import make_certificate
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.errors import PeerUnreachableError, TlsPinError
from client.pin import certificate_of, leaf_of, pinned_context
from client.transport import BrokerClient
from policies.identity import SigningKey
from tests.nodesim import SeedEntropy

pytestmark = pytest.mark.enable_socket


@contextmanager
def _server(tmp_path: Path, seed: bytes) -> Iterator[tuple[int, str, str, list[bytes]]]:
    """A TLS server that records what it was sent: port, pin, PEM, record."""
    made = make_certificate("https://127.0.0.1:1", clock=SystemClock(), entropy=SeedEntropy(seed))
    chain, key = tmp_path / f"{seed.decode()}.pem", tmp_path / f"{seed.decode()}.key"
    chain.write_bytes(made.chain_pem)
    key.write_bytes(made.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain, key)
    got: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(5)

        def serve() -> None:
            while True:
                try:
                    raw, _ = listener.accept()
                except OSError:
                    return
                try:
                    with context.wrap_socket(raw, server_side=True) as one:
                        data = one.recv(65536)
                        if data:
                            got.append(data)
                            one.sendall(
                                b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\n{}"
                            )
                except OSError:
                    continue

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1], made.pin, made.chain_pem.decode(), got
        listener.close()
        thread.join(6)


def _client(port: int, pem: str) -> BrokerClient:
    return BrokerClient(
        f"https://127.0.0.1:{port}",
        key=SigningKey.from_seed(b"k" * 32),
        clock=SystemClock(),
        entropy=SystemEntropy(),
        tls=pinned_context(leaf_of(pem)),
        timeout_s=3,
    )


def test_the_pinned_certificate_is_accepted(tmp_path: Path):
    with _server(tmp_path, b"a") as (port, pin, pem, _got):
        assert leaf_of(certificate_of("127.0.0.1", port, tls_sha256=pin, timeout_s=3)) == leaf_of(pem)
        with _client(port, pem) as client:
            assert client.get("/membership/me") == {}


def test_another_certificate_is_refused_before_anything_is_sent(tmp_path: Path):
    with _server(tmp_path, b"a") as (_, pin, pem, _), _server(tmp_path, b"b") as (port, other, _, got):
        assert pin != other
        with pytest.raises(TlsPinError):
            certificate_of("127.0.0.1", port, tls_sha256=pin, timeout_s=3)
        with _client(port, pem) as client, pytest.raises(TlsPinError):
            client.post("/membership/join", {"invite_secret": "5" * 64})
        assert got == []


def test_a_closed_port_is_unreachable():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(PeerUnreachableError):
        certificate_of("127.0.0.1", port, tls_sha256="0" * 64, timeout_s=1)
