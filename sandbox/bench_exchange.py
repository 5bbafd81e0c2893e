# SPDX-License-Identifier: Apache-2.0
"""How long one exchange takes, and what it costs.

A broker's engine and real node processes on loopback, TLS, signed headers, durable ledgers.

`run` measures from the sealing of the requests to the last verified reply, folded into one sum in place. The
requests' tensor lies in a file. Each node adds one to it and sends it back, so both directions carry the same
bytes; nothing is trained. Each size has a broker process of its own, so that its peak is its own:
``python -m sandbox.bench_exchange measure NODES MEGABYTES EXCHANGES``. SIGTERM ends that process in order:
the nodes are ended, the temporary folder is deleted.

`LoopbackFleet` is the same federation for tests: it serves an engine, makes the keys and starts one process
per node. A node process is ``python -m sandbox.bench_exchange FOLDER INDEX`` unless another command is given.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import hashlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.clock import SystemClock
from broker.entropy import SystemEntropy
from policies.encoding import digest, new_id
from policies.errors import IriaiError
from policies.exchange import ExchangeType, TensorSpec, seal_request, tensor_bytes, tensor_spec
from policies.identity import SigningKey
from policies.limits import WORKER_STOP_S
from sandbox.errors import CommandError
from sandbox.processes import free_port

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Mapping, Sequence

    from broker.federation.engine import EngineRun, Failure, Reply, Request
    from broker.federation.flower.grid import FlowerEngine
    from client.federation.handlers import HandlerReply, Refusal
    from policies.exchange import RequestHeader

__all__ = ["LoopbackFleet", "cpu_s", "lines", "measure", "run"]

CONTRACT: Final = digest(b"bench contract")
RECIPE: Final = digest(b"bench recipe")
ONLINE_S: Final = 30.0
DEADLINE_S: Final = 60.0
TENSOR_BYTES_MAX: Final = 1 << 30
_WARM_UP: Final = 2
_PART: Final = 1 << 20  # elements that are made at a time
_LARGE_MB: Final = 400.0  # megabytes of model after which few exchanges say enough


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor in a file."""

    spec: TensorSpec
    path: Path


@dataclass(kw_only=True)
class LoopbackFleet:
    """A broker's engine on a free port, and node processes that reach it by TLS, or through ``door``.

    Attributes:
        door: A port that nodes connect to instead, of somebody who passes on what comes.
    """

    folder: Path
    nodes: int
    door: int | None = None
    command: Sequence[str] = (sys.executable, "-m", "sandbox.bench_exchange")
    hold_s: float = 20.0
    resend_s: float = 25.0
    names: list[str] = field(init=False)
    engine: FlowerEngine = field(init=False)
    broker_key: SigningKey = field(init=False)
    port: int = field(init=False)
    processes: dict[int, subprocess.Popen[bytes]] = field(init=False, default_factory=dict)

    def prepare(self) -> None:
        """Makes certificate, keys and one settings file per node."""
        from broker.tls import make_certificate

        entropy = SystemEntropy()
        self.port = free_port()
        url = f"https://127.0.0.1:{self.port}"
        reached = f"https://127.0.0.1:{self.door or self.port}"
        self.folder.mkdir(parents=True, exist_ok=True)
        tls = make_certificate(url, clock=SystemClock(), entropy=entropy)
        (self.folder / "chain.pem").write_bytes(tls.chain_pem)
        (self.folder / "tls.key").write_bytes(tls.key_pem)
        self.broker_key = SigningKey.from_seed(entropy.token_bytes(32))
        self.names = [new_id("node", entropy.token_bytes(10)) for _ in range(self.nodes)]
        for index, name in enumerate(self.names):
            home = self.folder / f"node{index}"
            home.mkdir()
            fleet = ec.generate_private_key(ec.SECP256R1())
            (home / "fleet.key").write_bytes(_private_pem(fleet))
            (home / "fleet.pub").write_bytes(_public_pem(fleet))
            (home / "node.key").write_bytes(SigningKey.from_seed(entropy.token_bytes(32)).to_pem())
            settings = {"url": reached, "node": name, "broker_key": self.broker_key.public.hex()}
            (home / "settings.json").write_text(json.dumps(settings))

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[FlowerEngine]:
        """The engine, enrolled with all nodes and served.

        Use it again after it ended to restart the broker.
        """
        import uvicorn

        from broker.federation.flower.grid import FlowerEngine

        self.engine = FlowerEngine(
            state_dir=self.folder / "broker",
            clock=SystemClock(),
            hold_s=self.hold_s,
            resend_s=self.resend_s,
        )
        for index, name in enumerate(self.names):
            home = self.folder / f"node{index}"
            key = SigningKey.from_pem((home / "node.key").read_bytes()).public
            self.engine.enrol(name, (home / "fleet.pub").read_bytes(), key)
        config = uvicorn.Config(
            self.engine.endpoint,
            host="127.0.0.1",
            port=self.port,
            ssl_certfile=str(self.folder / "chain.pem"),
            ssl_keyfile=str(self.folder / "tls.key"),
            http="httptools",
            ws="none",
            lifespan="off",
            access_log=False,
            log_level="critical",
            timeout_keep_alive=75,
            timeout_graceful_shutdown=1,
        )
        server = uvicorn.Server(config)
        task = asyncio.create_task(server._serve())  # noqa: SLF001  without uvicorn's signal handlers
        while not server.started and not task.done():  # noqa: ASYNC110  uvicorn has no event for it
            await asyncio.sleep(0.005)  # uvicorn tells nobody
        await self.engine.start()
        try:
            yield self.engine
        finally:
            self.engine.drain()
            server.should_exit = True
            await task
            await self.engine.stop()

    def start(self, index: int, *extra: str) -> subprocess.Popen[bytes]:
        """Starts the process of one node; the one before must have ended."""
        before = self.processes.pop(index, None)
        if before is not None:
            before.wait()
        home = self.folder / f"node{index}"
        with (home / "log.txt").open("ab") as log:
            process = subprocess.Popen(  # noqa: S603  our own command line
                [*self.command, str(home), str(index), *extra],
                stdout=log,
                stderr=log,
                env=os.environ | {"OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )
        self.processes[index] = process
        return process

    async def all_online(self, *, wait_s: float = ONLINE_S) -> float:
        """Waits for all started nodes; returns the seconds that it took."""
        wanted = {self.names[index] for index in self.processes}
        began_s = time.monotonic()
        while not wanted <= self.engine.online():
            if time.monotonic() - began_s > wait_s:
                missing = sorted(wanted - self.engine.online())
                raise TimeoutError(", ".join(missing))
            await asyncio.sleep(0.01)
        return time.monotonic() - began_s

    def stop(self) -> None:
        """Ends all node processes."""
        for process in self.processes.values():
            process.terminate()
        for process in self.processes.values():
            try:
                process.wait(WORKER_STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def request(
        self,
        opened: EngineRun,
        node: str,
        round_: int,
        tensor: np.ndarray | None,
        *,
        attempt: int = 0,
        kind: ExchangeType = ExchangeType.CONTRIBUTE,
        deadline_s: float = DEADLINE_S,
        key: SigningKey | None = None,
        stored: Stored | None = None,
    ) -> Request:
        """A sealed request to one node whose reply has the form of its tensor, given or stored."""
        from broker.federation.engine import Expect, Request

        spec: TensorSpec | None = None if tensor is None else tensor_spec(tensor)
        spec = spec if stored is None else stored.spec
        data = None if tensor is None else tensor_bytes(tensor)
        header = seal_request(
            key or self.broker_key,
            contract=opened.contract,
            recipe=opened.recipe,
            run=opened.run,
            round=round_,
            attempt=attempt,
            type=kind,
            node=node,
            deadline_ms=SystemClock().now_ms() + int(deadline_s * 1000),
            tensor=spec,
            body={},
        )
        return Request(
            node=node,
            type=kind,
            round=round_,
            attempt=attempt,
            header=header,
            tensor=data if stored is None else stored.path,
            expect=None if spec is None else Expect(dtype=spec.dtype, shape=spec.shape),
        )

    async def ask(
        self,
        opened: EngineRun,
        requests: Sequence[Request],
        *,
        deadline_s: float = DEADLINE_S,
        need: int = 0,
        grace_s: float = 0.0,
    ) -> list[Reply | Failure]:
        """All outcomes of one exchange."""
        deadline = dt.datetime.fromtimestamp(SystemClock().now_ms() / 1000 + deadline_s, tz=dt.UTC)
        found = self.engine.exchange(opened, requests, deadline=deadline, need=need, grace_s=grace_s)
        return [outcome async for outcome in found]


def run(*, nodes: int = 4, sizes_mb: Sequence[float] = (0.001, 1.0), exchanges: int = 50) -> dict[str, Any]:
    """Figures of exchanges with real processes, one row per size of the tensor in megabytes.

    Returns:
        ``nodes``, ``cpus``, ``load`` before and after, and ``rows``. A row has ``mb``, how many
        ``exchanges``, ``p50_s``, ``p95_s``, ``min_s``, ``max_s``; per exchange ``cpu_s`` of all processes,
        its parts ``broker_cpu_s`` and ``nodes_cpu_s``, and ``requests``; ``bytes_ratio``, bytes of all bodies
        over those of the tensors in both directions; ``broker_peak_mb`` and ``broker_idle_mb``, resident
        memory of the broker's process at its highest and before the first exchange, and ``node_peak_mb``.

    Raises:
        CommandError: The process of one size failed.
    """
    load = [os.getloadavg()[0]]
    rows = []
    for size_mb in sizes_mb:
        count = max(3, min(exchanges, round(_LARGE_MB / size_mb)))
        rows.append(_row_of(nodes, size_mb, count))
    load.append(os.getloadavg()[0])
    return {"nodes": nodes, "cpus": os.cpu_count(), "load": [round(one, 2) for one in load], "rows": rows}


def _row_of(nodes: int, size_mb: float, exchanges: int) -> dict[str, Any]:
    """One size, in a broker process of its own, which is ended when this one is."""
    words = ["measure", str(nodes), str(size_mb), str(exchanges)]
    asked = [sys.executable, "-m", "sandbox.bench_exchange", *words]
    with subprocess.Popen(asked, stdout=subprocess.PIPE) as broker:  # noqa: S603  our own command line
        try:
            told, _ = broker.communicate()
        except BaseException:
            broker.terminate()  # it ends its nodes; leaving this block waits for it
            raise
    if broker.returncode:
        raise CommandError(
            need=f"exchanges of {size_mb:g} megabytes with {nodes} nodes",
            found=f"a process that ended with {broker.returncode}; what it said stands above",
            remedy="smaller --mb or fewer --nodes; memory and the temporary folder hold a copy per node",
        )
    row: dict[str, Any] = json.loads(told)
    return row


_COLUMNS: Final = {
    "mb": "size of the tensor, megabytes; it goes to each node and comes back",
    "p50_s": "seconds of one exchange with all nodes, median",
    "p95_s": "likewise, 95th percentile",
    "cpu_s": "CPU seconds of one exchange, all processes",
    "broker_cpu_s": "of them, the broker's",
    "nodes_cpu_s": "of them, all nodes'",
    "requests": "HTTP requests of one exchange, all nodes",
    "bytes_ratio": "bytes on the wire to bytes of the tensors, both directions",
    "broker_peak_mb": "memory of the broker at its highest, megabytes",
    "node_peak_mb": "likewise, of the largest node",
}


def lines(found: Mapping[str, Any]) -> Iterator[str]:
    """The rows of `run` for a terminal, and what each column is."""
    yield f"{found['nodes']} nodes, {found['cpus']} CPUs, load {found['load'][0]} to {found['load'][1]}"
    yield "".join(f"{head:>15}" for head in _COLUMNS)
    for row in found["rows"]:
        yield "".join(f"{row[head]:>15g}" for head in _COLUMNS)
    yield ""
    for head, words in _COLUMNS.items():
        yield f"{head:>15}  {words}"


def measure(*, nodes: int, size_mb: float, exchanges: int) -> dict[str, Any]:
    """One row; this process is the broker."""
    with tempfile.TemporaryDirectory(prefix="iriai-bench-") as folder:
        fleet = LoopbackFleet(folder=Path(folder) / "fleet", nodes=nodes)
        fleet.prepare()
        try:
            return asyncio.run(_measure(fleet, size_mb, exchanges))
        except asyncio.CancelledError:
            sys.exit(128 + signal.SIGTERM)


@contextmanager
def _cancelled_by_sigterm() -> Iterator[None]:
    """SIGTERM cancels this task: what it started is ended on its way out."""
    loop, task, before = asyncio.get_running_loop(), asyncio.current_task(), signal.getsignal(signal.SIGTERM)
    if task is not None:
        loop.add_signal_handler(signal.SIGTERM, task.cancel)
    try:
        yield
    finally:
        loop.remove_signal_handler(signal.SIGTERM)
        signal.signal(signal.SIGTERM, before)


async def _measure(fleet: LoopbackFleet, size_mb: float, exchanges: int) -> dict[str, Any]:
    with _cancelled_by_sigterm():
        return await _measured(fleet, size_mb, exchanges)


async def _measured(fleet: LoopbackFleet, size_mb: float, exchanges: int) -> dict[str, Any]:
    async with fleet.serving() as engine:
        try:
            for index in range(fleet.nodes):
                fleet.start(index)
            online_s = await fleet.all_online()
            opened = await engine.open_run(run="run_benchaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE)
            row = await _row(fleet, opened, max(1, round(size_mb * 1e6 / 4)), exchanges)
            await engine.close_run(opened, ok=True)
        finally:
            fleet.stop()
    return {"mb": size_mb, "online_s": round(online_s, 3)} | row


async def _row(fleet: LoopbackFleet, opened: EngineRun, count: int, exchanges: int) -> dict[str, Any]:
    idle_mb = _memory_mb("self", "VmRSS")
    total = np.zeros(count, np.uint32)
    took_s = []
    for at in range(exchanges + _WARM_UP):
        stored = _store(fleet.folder / "model.u32", count, seed=at)
        if at == _WARM_UP:
            before = _usage(fleet)
        began_s = time.perf_counter()
        requests = [fleet.request(opened, name, at, None, stored=stored) for name in fleet.names]
        total[:] = 0
        for outcome in await fleet.ask(opened, requests, deadline_s=10 * DEADLINE_S):
            _fold(outcome, total)
        took_s.append(time.perf_counter() - began_s)
        _check(stored, total, fleet.nodes)
    after = _usage(fleet)
    per = {name: (after[name] - before[name]) / exchanges for name in after}
    times = sorted(took_s[_WARM_UP:])
    return {
        "exchanges": exchanges,
        "p50_s": round(statistics.median(times), 4),
        "p95_s": round(times[min(len(times) - 1, int(len(times) * 0.95))], 4),
        "min_s": round(times[0], 4),
        "max_s": round(times[-1], 4),
        "cpu_s": round(per["broker_cpu_s"] + per["nodes_cpu_s"], 4),
        "broker_cpu_s": round(per["broker_cpu_s"], 4),
        "nodes_cpu_s": round(per["nodes_cpu_s"], 4),
        "requests": round(per["requests"], 1),
        "bytes_ratio": round(per["wire_bytes"] / (2 * fleet.nodes * stored.spec.size_bytes), 4),
        "broker_idle_mb": idle_mb,
        "broker_peak_mb": _memory_mb("self", "VmHWM"),
        "node_peak_mb": max(_memory_mb(one.pid, "VmHWM") for one in fleet.processes.values()),
    }


def _parts(count: int, seed: int) -> Iterator[np.ndarray]:
    generator = np.random.default_rng(seed)
    for start in range(0, count, _PART):
        yield generator.integers(0, 1 << 32, min(_PART, count - start), np.uint32)


def _store(path: Path, count: int, *, seed: int) -> Stored:
    """Random words in a file; neither here nor in the engine are they whole in memory."""
    hashed = hashlib.sha256()
    with path.open("wb") as file:
        for part in _parts(count, seed):
            file.write(part.data)
            hashed.update(part.data)
    spec = TensorSpec(digest=f"sha256:{hashed.hexdigest()}", dtype="uint32", shape=(count,))
    return Stored(spec, path)


def _fold(outcome: Reply | Failure, total: np.ndarray) -> None:
    from broker.federation.engine import Failure

    if isinstance(outcome, Failure) or outcome.tensor is None:
        raise RuntimeError(str(outcome))
    at = 0
    for chunk in outcome.tensor.chunks():
        values = np.frombuffer(chunk, "<u4")
        total[at : at + values.size] += values
        at += values.size
    outcome.tensor.release()


def _check(stored: Stored, total: np.ndarray, nodes: int) -> None:
    """Every word came back, plus one, from every node."""
    at = 0
    with stored.path.open("rb") as file:
        while part := file.read(4 * _PART):
            values = np.frombuffer(part, "<u4")
            if not np.array_equal(total[at : at + values.size], (values + np.uint32(1)) * np.uint32(nodes)):
                raise RuntimeError(stored.path)
            at += values.size


def _usage(fleet: LoopbackFleet) -> dict[str, float]:
    traffic = [fleet.engine.traffic(name) for name in fleet.names]
    return {
        "broker_cpu_s": time.process_time(),
        "nodes_cpu_s": sum(cpu_s(process.pid) for process in fleet.processes.values()),
        "requests": fleet.engine.endpoint.requests,
        "wire_bytes": sum(one["received"] + one["sent"] for one in traffic),
    }


def cpu_s(pid: int) -> float:
    """CPU seconds of a process so far, in user and kernel mode."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:  # not Linux, or gone
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _memory_mb(pid: int | str, field_: str) -> float:
    """Resident memory of a process, now (``VmRSS``) or at its highest (``VmHWM``)."""
    try:
        text = Path(f"/proc/{pid}/status").read_text()
    except OSError:  # not Linux, or gone
        return 0.0
    line = next(line for line in text.splitlines() if line.startswith(f"{field_}:"))
    return round(int(line.split()[1]) * 1024 / 1e6, 1)


def _private_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _public_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


class AddOne:
    """A handler that learns nothing: it adds one to the tensor."""

    def decide(self, header: RequestHeader) -> Refusal | None:  # noqa: ARG002  nothing to refuse
        """Never refuses."""
        return None

    def run(self, header: RequestHeader, tensor: np.ndarray | None) -> HandlerReply:  # noqa: ARG002  always the same
        """The tensor plus one."""
        from client.federation.handlers import HandlerReply

        return HandlerReply(tensor=None if tensor is None else tensor + tensor.dtype.type(1))


def serve_node(home: Path, handlers: Mapping[ExchangeType, Any]) -> None:
    """A node process over a folder of `LoopbackFleet`; admits every run."""
    from client.clock import SystemClock as NodeClock
    from client.federation.fleet import run_fleet
    from client.federation.handlers import Admission, Desk
    from client.federation.ledger import FleetLedger

    settings = json.loads((home / "settings.json").read_text())
    admission = Admission(broker_key=bytes.fromhex(settings["broker_key"]), tensor_bytes=TENSOR_BYTES_MAX)
    desk = Desk(
        node=settings["node"],
        key=SigningKey.from_pem((home / "node.key").read_bytes()),
        handlers=handlers,
        admit=lambda _config: admission,
        ledger=FleetLedger(home / "fleet.db"),
        clock=NodeClock(),
    )
    try:
        run_fleet(
            url=settings["url"],
            ca_pem=(home.parent / "chain.pem").read_bytes(),
            fleet_key_pem=(home / "fleet.key").read_bytes(),
            desk=desk,
            state_dir=home,
            on_event=lambda name, facts: print(json.dumps([name, dict(facts)]), flush=True),  # noqa: T201  its log
        )
    except IriaiError as error:
        sys.exit(error.exit_code)


if __name__ == "__main__":
    if sys.argv[1] == "measure":
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        row = measure(nodes=int(sys.argv[2]), size_mb=float(sys.argv[3]), exchanges=int(sys.argv[4]))
        print(json.dumps(row))  # noqa: T201  the answer to the parent process
    else:
        serve_node(Path(sys.argv[1]), {kind: AddOne() for kind in ExchangeType})
