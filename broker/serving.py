# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker serve``: one process, one port, TLS, until it is told to stop.

- The port is taken before anything else is told to the world; a port in use is an error with a remedy.
- Whoever started the process can wait for one line on standard output (``--json``) or standard error.
- systemd hears when it is ready, that it lives, and when it is being stopped (`broker.lifesign`).
- SIGTERM and SIGINT end held requests at once, finish what is being answered, and exit with 0.
- What a connection may take, and which are let in: `broker.connections`. Where one comes from is what the
  system says; ``X-Forwarded-For`` and its like are read from nobody. A proxy that ends TLS is not supported:
  nodes pin the broker's own certificate.
"""

from __future__ import annotations

import errno
import gc
import os
import resource
import signal
import socket
import sys
from typing import TYPE_CHECKING

from broker.answers import Result
from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from broker.errors import PortInUseError, UsageError
from policies.encoding import canonical
from policies.limits import CONNECTION_FILES, CONNECTIONS

if TYPE_CHECKING:
    from pathlib import Path

    import uvicorn
    from starlette.types import ASGIApp

    from broker.places import Bounds
    from broker.services import Services

__all__ = ["configured", "listen", "serve"]


def serve(directory: Path, *, port: int | None, as_json: bool) -> Result:
    """Serves the broker of a folder until it is told to stop."""
    from broker.composition import compose

    clock, entropy = SystemClock(), SystemEntropy()
    services = compose(directory, clock=clock, entropy=entropy)
    try:
        listener = listen(
            services.settings.listen_host, services.settings.listen_port if port is None else port
        )
        with listener:
            _run(services, listener, as_json=as_json)
    finally:
        services.close()
    return Result(data={"url": services.settings.public_url, "stopped": True}, text=("stopped",))


def listen(host: str, port: int) -> socket.socket:
    """A bound socket that listens.

    Raises:
        PortInUseError: Somebody else listens there.
        UsageError: The address is not one of this machine, or the port needs rights that we lack.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        if error.errno == errno.EADDRINUSE:
            raise PortInUseError(
                need=f"port {port} of {host} to be free",
                found="another process that listens there",
                remedy="stop it, or give --port and the same port in the public URL",
            ) from error
        raise UsageError(
            need=f"an address of this machine, not {host}:{port}",
            found=error.strerror or type(error).__name__,
            remedy="correct listen_host and listen_port in broker.toml",
        ) from error
    return listener


def _run(services: Services, listener: socket.socket, *, as_json: bool) -> None:
    from broker.app import build
    from broker.boot import tls_chain
    from broker.connections import Server
    from broker.lifesign import Lifesign, answered

    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has stopped
        signal.signal(number, lambda *_: None)
    settings, life = services.settings, Lifesign.of(os.environ)

    def ready() -> None:
        gc.collect()
        gc.freeze()  # what is there now stays: looking at all of it again would hold up answers
        _tell(services, listener, as_json=as_json)
        life.tell("READY=1")
        life.begin(lambda: answered(services))

    def leaving() -> None:
        life.tell("STOPPING=1")
        services.drain()

    Server(
        configured(build(services), certificate=tls_chain(settings.dir), key=settings.keys / "tls.key"),
        listener,
        ready=ready,
        leaving=leaving,
        bounds=_bounds(),
    ).run()


def configured(app: ASGIApp, *, certificate: Path, key: Path) -> uvicorn.Config:
    """uvicorn, as a broker uses it; `broker.connections` bounds what it leaves open."""
    import uvicorn

    return uvicorn.Config(
        app,
        http="httptools",
        ws="none",
        lifespan="on",
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=False,  # whoever knocks would name the address that its wrong passwords count for
        timeout_keep_alive=75,
        timeout_graceful_shutdown=10,
        ssl_certfile=certificate,
        ssl_keyfile=key,
    )


def _bounds() -> Bounds:
    """As many connections as `CONNECTIONS`, or as the system's bound of descriptors has room for."""
    from broker.places import Bounds

    wanted = CONNECTIONS + CONNECTION_FILES
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = CONNECTIONS if soft == resource.RLIM_INFINITY else soft - CONNECTION_FILES
    return Bounds(connections=max(1, min(CONNECTIONS, room)))


def _tell(services: Services, listener: socket.socket, *, as_json: bool) -> None:
    """One line that somebody who started this process can wait for."""
    host, port = listener.getsockname()[:2]
    print(f"serving      {services.settings.public_url} on {host}:{port}", file=sys.stderr, flush=True)  # noqa: T201
    if as_json:
        sys.stdout.write(
            canonical({"schema": "1", "status": "ok", "data": {"port": port, "ready": True}}).decode() + "\n"
        )
        sys.stdout.flush()
