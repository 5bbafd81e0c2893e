# SPDX-License-Identifier: Apache-2.0
"""The process of a service, from its port to its last episode. It ends at SIGTERM or SIGINT.

1. the folder ``serving/<name>`` is taken by a lock: one process per name;
2. the port is bound, on 127.0.0.1 and nowhere else (`listen`);
3. two fresh tokens are drawn, each with the address in its file; what an earlier
   process left open in the ring is counted;
4. the OPC UA server starts, where one is asked for (`client.deploy.opcua`);
5. ``service.json`` says where it listens, and the caller is told; it is gone when the process ends;
6. at the end nothing is answered any more, and what is closed is written before the process goes.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import os
import signal
import socket
from dataclasses import dataclass, field
from typing import IO, TYPE_CHECKING, Any, Final

from client.deploy.episode_files import EpisodeFiles
from client.deploy.recorder import EpisodeRecorder, free_bytes
from client.deploy.refusals import BindError, BusyError, NotServingError, RecordingError
from client.deploy.ring import Ring
from client.deploy.service import Service
from client.deploy.serving import NoRecorder, Serving, fallback_error
from client.deploy.token import CELL_FILE, OWNER_FILE, draw_tokens
from client.settings import write_durably
from policies.limits import SERVE_CONNECTIONS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from client.deploy.opcua import OpcUaOptions
    from client.deploy.ports import Model, ServeClock
    from client.deploy.serving import Recorder
    from client.deploy.states import ClockKind
    from policies.errors import IriaiError
    from policies.ports import Entropy

__all__ = ["HOST", "ServeOptions", "listen", "read_service", "serve"]

HOST: Final = "127.0.0.1"
_FACTS: Final = "service.json"
_KEEP_ALIVE_S: Final = 75
_GRACE_S: Final = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeOptions:
    """Where and how a model is served.

    Attributes:
        serving: Folder of all services; each has one of its name in it.
        deployed: Folder of recorded episodes.
        name: Of the service: of the cell, where a site has several.
        host: 127.0.0.1; any other is refused.
        port: 0 takes a free one.
        clock_kind: Of the stamps that the controller sends.
        record: Whether episodes are recorded.
        opcua: A second door for controllers, if asked for.
        seal_key: Secret of this node, under which recorded episodes are sealed; empty where there is no node.
    """

    serving: Path
    deployed: Path
    name: str
    host: str = HOST
    port: int = 0
    clock_kind: ClockKind = "host"
    record: bool = True
    opcua: OpcUaOptions | None = None
    seal_key: bytes = field(default=b"", repr=False)


def serve(
    model: Model,
    options: ServeOptions,
    *,
    clock: ServeClock,
    entropy: Entropy,
    tell: Callable[[dict[str, Any]], None],
) -> tuple[dict[str, Any], IriaiError | None]:
    """Serves a model until the process is told to end.

    Args:
        model: What answers.
        options: Where and how.
        clock: Ages of stamps and silence are told by it.
        entropy: Of the tokens.
        tell: Hears ``service.json`` once the port answers.

    Returns:
        The last status, and `FallbackError` if the service ended in its fallback.

    Raises:
        ServeError: See `client.deploy.refusals`; nothing was served.
    """
    folder = options.serving / options.name
    # 1.
    with _locked(folder), listen(options.host, options.port) as listener:  # and 2.
        recorder = _recorder(model, options, folder)
        try:
            serving = Serving(model, clock_kind=options.clock_kind, recorder=recorder, clock=clock)
            asyncio.run(_run(serving, options, listener, entropy=entropy, tell=tell))
        finally:
            recorder.close()
            (folder / _FACTS).unlink(missing_ok=True)
    status = serving.status()
    refused = fallback_error(serving.standing())
    serving.stop()
    return status, refused


async def _run(
    serving: Serving,
    options: ServeOptions,
    listener: socket.socket,
    *,
    entropy: Entropy,
    tell: Callable[[dict[str, Any]], None],
) -> None:
    import uvicorn

    from client.deploy.connections import Doorway, connection_type

    folder, port = options.serving / options.name, int(listener.getsockname()[1])
    # 3.
    tokens = draw_tokens(folder, entropy, url=f"http://{HOST}:{port}")
    for number in (signal.SIGTERM, signal.SIGINT):  # uvicorn raises them again once it has stopped
        signal.signal(number, lambda *_: None)
    facts = {
        "url": f"http://{HOST}:{port}",
        "port": port,
        "pid": os.getpid(),
        "model": serving.facts.model,
        "package": serving.facts.package,
        "cell_token": str(folder / CELL_FILE),
        "owner_token": str(folder / OWNER_FILE),
        "recordings": serving.recorder.status().get("folder"),
    }

    class Server(uvicorn.Server):
        """uvicorn, which says when it listens."""

        async def startup(self, sockets: list[socket.socket] | None = None) -> None:
            await super().startup(sockets)
            if self.started:  # 5.
                write_durably(folder / _FACTS, json.dumps(facts, sort_keys=True).encode())
                tell(facts)

    server = Server(
        uvicorn.Config(
            Service(serving, tokens, port=port),
            http=connection_type(Doorway()),
            ws="none",
            lifespan="off",
            log_level="warning",
            access_log=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_GRACE_S,
        )
    )
    async with contextlib.AsyncExitStack() as stack:
        if options.opcua is not None:  # 4.
            from client.deploy.opcua import OpcUaDoor

            door = OpcUaDoor(serving, options.opcua, tokens)
            await stack.enter_async_context(door)
            facts |= {"opcua": door.url, "opcua_certificate": str(options.opcua.certificate)}
        await server.serve(sockets=[listener])


def _recorder(model: Model, options: ServeOptions, folder: Path) -> Recorder:
    if not options.record:
        return NoRecorder()
    files = EpisodeFiles(
        options.deployed,
        model.facts,
        options.clock_kind,
        service=options.name,
        seal_key=options.seal_key,
    )
    try:
        ring = Ring.open(folder / "open.ring", model.facts)
    except OSError as error:
        raise RecordingError(
            need=f"a file in {folder} to write to",
            found=error.strerror or "an error",
            remedy="make room, or serve with --no-record",
        ) from error
    return EpisodeRecorder(files, ring, free=free_bytes(files.folder))


def listen(host: str, port: int) -> socket.socket:
    """A bound socket of this machine's loopback.

    Raises:
        BindError: Another address, or a port that needs rights that we lack.
        BusyError: Somebody listens there.
    """
    if host != HOST:
        raise BindError(
            need=f"{HOST}: a model answers its own machine and no other",
            found=ascii(host)[:60],
            remedy="run it beside the cell's controller, or use --opcua, which encrypts",
        )
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    # connections inherit it: an answer's head and body are two writes, and Nagle would hold the second 40 ms
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        listener.bind((host, port))
        listener.listen(SERVE_CONNECTIONS)
    except PermissionError as error:
        listener.close()
        raise BindError(need="a port above 1023", found=str(port), remedy="name another --port") from error
    except OSError as error:
        listener.close()
        raise BusyError(
            need=f"port {port} to be free", found=error.strerror or "it is not", remedy="name another --port"
        ) from error
    return listener


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[IO[bytes]]:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise BusyError(
                need=f"no other service named {folder.name}",
                found="one that runs",
                remedy="stop it, or give this one another --name",
            ) from error
        yield lock


def read_service(serving: Path, name: str) -> dict[str, Any]:
    """Where a service that runs listens, as it wrote down.

    Raises:
        NotServingError: None of this name.
    """
    try:
        facts: dict[str, Any] = json.loads((serving / name / _FACTS).read_bytes())
    except (OSError, ValueError) as error:
        raise NotServingError(
            need=f"a service named {name}",
            found="none that runs",
            remedy="iriai-node models serve PACKAGE, or name it with --name",
        ) from error
    return facts
