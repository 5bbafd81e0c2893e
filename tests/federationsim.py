# SPDX-License-Identifier: Apache-2.0
"""A whole federation in one thread: the real broker and real nodes over `LocalGrid`, in virtual time, on faults.

    pool = Pool(folder)                       # four members, one contract that all signed, data at each site
    with simulate() as go:
        go(pool.open())
        run = go(pool.run())                  # opens a run and waits until it is closed
    pool.nodes["kita"].lies.append(lie)       # what a node says instead of the truth
    pool.steps.at, pool.steps.error = 7, Killed("…")      # the broker ends at its 7th step

A node is everything of `client.node.Worker` (guard, ledgers, outbox, duties) around a `SimLearner`, whose update follows from
party, run, round and attempt; ``torch=True`` trains for real. What a liar says is signed with its own, real key.
"""

from __future__ import annotations

import asyncio
import atexit
import functools
import hashlib
import json
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any, TypeVar

import httpx
import numpy as np
from anyio import to_thread
from sqlalchemy import select

from broker import apart
from broker.app import build
from broker.boot import open_services
from broker.federation.checkpoints import ModelFiles
from broker.federation.local import LocalGrid, LocalNode
from broker.federation.replies import CONTRIBUTIONS
from broker.federation.runner import RoundRunner
from broker.federation.secure.files import Transcripts
from broker.federation.tools import Journal, Tools
from broker.log.bundle import export
from broker.release import gate
from broker.services import Services
from broker.store.tables import candidate, ledger_mirror, log_entry, round_, run
from client.contract.reading import fetch_envelope
from client.contract.shelf import ContractShelf
from client.contract.signing import sign
from client.datasets.adding import data_add
from client.learning.canary_units import canary_units
from client.learning.tensors import Frames
from client.learning.weights import initial_weights
from client.membership import initialise, join, membership, open_member
from client.outbox import Outbox
from client.privacy.units import Units
from client.settings import Home, LocalRules, load_settings, save_settings
from client.worker import Worker
from policies.contract import Contract, from_tree
from policies.encoding import b64, canonical, digest, parse
from policies.exchange import DTYPES, ReplyHeader, TensorSpec, open_reply, peek_request, seal_reply
from policies.identity import SigningKey, key_text
from policies.log.entries import EntryType, alias
from policies.log.envelope import PAYLOAD_TYPE
from policies.log.policy import parse_policy
from policies.privacy.canaries import CanarySecret
from policies.privacy.ledger import TRAIN
from policies.privacy.receipts import MadeWith
from policies.recipe import Recipe, manifest
from policies.recipe import load as load_recipe
from policies.secagg.agreed import agreed_terms
from policies.secagg.ring import check_update, mean, quantise
from policies.secagg.terms import Terms
from policies.seeds import with_base
from policies.signing import Envelope
from policies.verify import Report, verify
from sandbox.recipes import plain_recipe, private_recipe
from tests import pgserver
from tests.brokersim import DOCUMENTED, ORIGIN, URL, HandClock, House, SeedEntropy, Signer
from tests.contractsim import runnable
from tests.learnsim import made_units
from tests.nodehouse import Street, open_street
from tests.nodeworld import BEFORE_MS, FIELDS, IN_TERM_MS, write_bare_recording, write_recording
from tests.seedsim import Planted

T = TypeVar("T")
NAMES = ("hanbit", "iber", "kita", "nord")
ROUNDS = 3
STEPS = 12
SECURE = {"aggregation.secure_aggregation": "required"}
Lie = Callable[["Said"], "Said | str | None"]
_PATIENCE_S = 20.0


def _remembered(compute: Callable[[Any], str | None]) -> Callable[[Any], str | None]:
    """The tight figure of a plan takes a second; all pools of a process have few plans."""
    known: dict[str, str | None] = {}
    return lambda plan: (
        known[plan.digest] if plan.digest in known else known.setdefault(plan.digest, compute(plan))
    )


gate.tight_text = _remembered(gate.tight_text)  # type: ignore[assignment]


class Killed(BaseException):
    """The broker's process ends here; nothing below may catch it."""


class SimDeadlockError(AssertionError):
    """Nothing is ready, nothing is scheduled, no thread answers: the simulation waits for ever."""


class SimLoop(asyncio.SelectorEventLoop):
    """Event loop in virtual time: it jumps to the next timer, and the clock with it."""

    def __init__(self, clock: HandClock) -> None:
        super().__init__()
        self._now = 0.0
        self._hands = clock

    def time(self) -> float:
        return self._now

    def run_in_executor(self, _executor: Any, work: Any, *arguments: Any) -> Any:
        """At once: no thread takes part in a simulation."""
        done = self.create_future()
        done.set_result(work(*arguments))
        return done

    def _run_once(self) -> None:
        if not self._ready and not self._stopping:
            self._process_events(self._selector.select(0 if self._scheduled else _PATIENCE_S))
        if not self._ready and not self._stopping:
            if not self._scheduled:
                raise SimDeadlockError
            ahead = self._scheduled[0]._when - self._now
            if ahead > 0:
                self._now += ahead
                self._hands.ms += round(ahead * 1000)
        super()._run_once()


class _Threads:
    """`anyio.to_thread` of the API; in a simulation no thread takes part, or virtual time would run away meanwhile."""

    @staticmethod
    async def run_sync(work: Callable[[], T], **named: Any) -> T:
        if isinstance(asyncio.get_running_loop(), SimLoop):
            return work()
        return await to_thread.run_sync(work, **named)


apart.to_thread = _Threads  # type: ignore[assignment]


@dataclass
class Steps:
    """Names of the steps that the broker made; at step ``at`` it meets ``error``, ``times`` in a row."""

    at: int | None = None
    error: Callable[[], BaseException] = Killed
    times: int = 1
    names: list[str] = field(default_factory=list)

    def reach(self, name: str) -> None:
        number = len(self.names)
        self.names.append(name)
        if self.at is not None and self.at <= number < self.at + self.times:
            raise self.error()


class Notes(Journal):
    """The runner's own lines."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, dict[str, object]]] = []

    def note(self, event: str, **facts: object) -> None:
        self.lines.append((event, facts))

    def of(self, event: str) -> list[dict[str, object]]:
        return [facts for name, facts in self.lines if name == event]


class PlantedWriter:
    """The broker's writer, with a step before and after each unit of work of the runner."""

    def __init__(self, writer: Any, steps: Steps) -> None:
        self._writer, self._steps = writer, steps

    def __getattr__(self, name: str) -> Any:
        return getattr(self._writer, name)

    async def run(self, work: Any) -> Any:
        self._steps.reach("before commit")
        found = await self._writer.run(work)
        self._steps.reach("after commit")
        return found


class PlantedModels(ModelFiles):
    """Model files, with a step before and after each."""

    def __init__(self, folder: Path, steps: Steps) -> None:
        super().__init__(folder)
        self._steps = steps

    def save(self, data: bytes) -> str:
        self._steps.reach("before model file")
        found = super().save(data)
        self._steps.reach("after model file")
        return found


class SimFleet(LocalGrid):
    """The engine of the pool, with what the broker's composition asks of one."""

    def __init__(self, *, clock: HandClock, nodes: Mapping[str, SimNode], steps: Steps) -> None:
        super().__init__(clock=clock, nodes={})
        self._sim = {one.id: one for one in nodes.values()}
        self._steps = steps
        self.asked: list[tuple[str, str, int, int]] = []
        self.turns: Counter[str] = Counter()

    async def endpoint(self, _scope: Any, _receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 404, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def start(self) -> None:
        """Nothing to get ready."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def drain(self) -> None:
        """Nothing is held."""

    def enrol(self, node: str, _fleet_key_pem: bytes, node_public_key: bytes) -> None:
        if node in self._sim:
            self._nodes[node] = LocalNode(
                public_key=node_public_key, ask=functools.partial(self._carry, node)
            )

    def rekey(self, node: str, node_public_key: bytes) -> None:
        if node in self._nodes:
            self._nodes[node] = replace(self._nodes[node], public_key=node_public_key)

    def suspend(self, node: str) -> None:
        self._nodes.pop(node, None)

    def revoke(self, node: str) -> None:
        self._nodes.pop(node, None)

    async def exchange(self, run: Any, requests: Any, **named: Any) -> Any:
        """The loop turns after each answer, so that several runs take turns; some give way more often in a round."""
        trains = any(one.type in CONTRIBUTIONS for one in requests)
        async for outcome in super().exchange(run, requests, **named):
            yield outcome
            for _ in range(1 + self.turns[run.run] * trains):
                await asyncio.sleep(0)

    def _carry(self, node: str, *request: Any) -> Any:
        one, (_config, _header, kind, slot, _tensor) = self._sim[node], request
        self.asked.append((one.name, kind, *slot))
        self._steps.reach(f"before {one.name} {kind}")
        answer = one.ask(*request)
        self._steps.reach(f"after {one.name} {kind}")
        return answer


class SimLearner:
    """`client.duties.Learner` without torch: the update follows from party, run, round and attempt."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.accept = True
        self.trained: list[tuple[str, int, int]] = []
        self.judged = 0
        self.weighed: list[tuple[str, str]] = []
        self.found: list[int] = []
        self.weigh: Callable[[np.ndarray, np.ndarray], int] | None = None
        self.episodes = 20
        self.engine = "loop"
        self.planted: list[Frames] = []
        self.spoil: Callable[[np.ndarray], np.ndarray] = lambda update: update
        self.first: Callable[[np.ndarray], np.ndarray] = lambda weights: weights

    def ready(self, _seat: Any) -> None:
        pass

    def initial(self, recipe: Recipe) -> np.ndarray:
        return self.first(initial_weights(recipe))

    def units(self, seat: Any, split: str, canaries: CanarySecret | None = None) -> Units:
        planted = [one.unit_id for one in canary_units(seat.recipe, canaries)]
        return made_units(split, self.episodes, seed=self.name, beside=planted)

    def update(
        self,
        seat: Any,
        run_id: str,
        slot: tuple[int, int],
        weights: np.ndarray,
        spend: Any,
        *,
        canaries: CanarySecret | None = None,
        grid_step: float | None = None,
    ) -> np.ndarray:
        spend(self.units(seat, TRAIN, canaries).manifest)
        self.trained.append((run_id, *slot))
        self.planted = canary_units(seat.recipe, canaries)
        return self.spoil(true_update(self.name, run_id, slot, len(weights)))

    def made_with(self, _seat: Any) -> MadeWith:
        return MadeWith(engine=self.engine)

    def judge(self, _seat: Any, _weights: np.ndarray) -> tuple[float, bool]:
        self.judged += 1
        return 0.05, self.accept

    def gains(
        self, seat: Any, _plan: Any, models: Sequence[np.ndarray], against: np.ndarray
    ) -> tuple[int, ...]:
        for model in models:
            assert model.shape == against.shape == (seat.recipe.parameters,)
        self.weighed += [(digest(model.tobytes()), digest(against.tobytes())) for model in models]
        if self.weigh is not None:
            return tuple(self.weigh(model, against) for model in models)
        return tuple(self.found.pop(0) if self.found else 0 for _ in models)


def payload_of(envelope: Mapping[str, Any]) -> dict[str, Any]:
    """Payload of an envelope that is JSON."""
    found: dict[str, Any] = json.loads(Envelope.from_json(envelope).payload)
    return found


def true_update(name: str, run_id: str, slot: tuple[int, int], size: int) -> np.ndarray:
    """What an honest `SimLearner` sends; another vector for each party, run, round and attempt."""
    seed = int.from_bytes(hashlib.sha256(f"{name} {run_id} {slot}".encode()).digest()[:8], "big")
    return (0.05 * np.random.default_rng(seed).standard_normal(size)).astype(np.float32)


@dataclass
class Said:
    """A reply on its way out; a lie returns another one. ``sealed`` signs with the node's own key again."""

    node: SimNode
    request: bytes
    raw: bytes
    tensor: bytes | None

    @property
    def header(self) -> ReplyHeader:
        return open_reply(self.raw, self.node.key.public)

    @property
    def contributes(self) -> bool:
        return self.header.type in CONTRIBUTIONS and self.header.ok

    def sealed(
        self,
        *,
        tensor: bytes | None = None,
        body: Mapping[str, Any] | None = None,
        key: SigningKey | None = None,
        shape: tuple[int, ...] | None = None,
    ) -> Said:
        """The same reply with another tensor, body or signer."""
        old, data = self.header, self.tensor if tensor is None else tensor
        spec = None
        if data is not None:
            dtype = "float32" if old.tensor is None else old.tensor.dtype
            spec = TensorSpec(digest=digest(data), dtype=dtype, shape=shape or (len(data) // DTYPES[dtype],))
        raw = seal_reply(
            key or self.node.key,
            peek_request(self.request),
            status=old.status,
            code=old.code,
            tensor=spec,
            body=old.body if body is None else body,
        )
        return replace(self, raw=raw, tensor=data)

    def envelopes(
        self, change: Callable[[dict[str, Any]], dict[str, Any] | None], *, key: SigningKey | None = None
    ) -> Said:
        """The same reply with each envelope's payload changed (None leaves it out), signed again."""
        found = []
        for item in self.header.body["envelopes"]:
            before = payload_of(item)
            after = change(json.loads(json.dumps(before)))
            if after == before:
                found.append(item)
            elif after is not None:
                found.append(Envelope.seal(canonical(after), PAYLOAD_TYPE, key or self.node.key).to_json())
        return self.sealed(body={**self.header.body, "envelopes": found})


class SimNode:
    """One manufacturer's node: its folder, its worker, and what it says instead of the truth."""

    def __init__(self, name: str, home: Home, clock: HandClock, pool: Pool, *, torch: bool) -> None:
        self.name, self.home, self.clock, self.pool = name, home, clock, pool
        self.learner = SimLearner(name)
        self.lies: list[Lie] = []
        self.away = False
        self.deaf: Callable[[str, tuple[int, int]], bool] = lambda _kind, _slot: False
        self.mute: Callable[[str, tuple[int, int]], bool] = lambda _kind, _slot: False
        self._torch = torch
        self._starts = 0
        self._worker: Worker | None = None
        facts = (
            json.loads((home.root / "node.json").read_text()) if (home.root / "node.json").exists() else None
        )
        self.id = str(facts["node"]) if facts else self._member().identity.node

    def _member(self) -> Any:
        self._starts += 1
        entropy = SeedEntropy(f"{self.name} {self._starts}".encode())
        return open_member(self.home, clock=self.clock, entropy=entropy, transport=Wire(self.pool))

    @property
    def worker(self) -> Worker:
        if self._worker is None:
            member = self._member()
            self._worker = Worker(
                self.home,
                clock=self.clock,
                entropy=SeedEntropy(f"worker {self.name} {self._starts}".encode()),
                member=member,
                learner=None if self._torch else self.learner,
            )
        return self._worker

    @property
    def key(self) -> SigningKey:
        return self.worker.member.identity.key

    def sign(self, payload: Mapping[str, Any]) -> dict[str, Any]:
        """An envelope of any payload, as JSON."""
        return Envelope.seal(canonical(dict(payload)), PAYLOAD_TYPE, self.key).to_json()

    def restart(self) -> None:
        """Its process ends and starts again; what is on its disk stays."""
        self.close()

    def close(self) -> None:
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def ask(self, config: Any, header: bytes, kind: str, slot: Any, tensor: bytes | None) -> Any:
        if self.away or self.deaf(kind, slot):
            return None
        answer = self.worker.desk.local(config, header, kind, slot, tensor)
        if self.mute(kind, slot):  # it did what it was asked; the answer is lost
            return None
        for lie in self.lies:
            if not isinstance(answer, tuple):
                break
            said = lie(Said(self, header, *answer))
            answer = (said.raw, said.tensor) if isinstance(said, Said) else said
        return answer

    def rules(self, **changes: Any) -> None:
        """The site's own rules."""
        settings = load_settings(self.home, {})
        save_settings(self.home, replace(settings, local=LocalRules(**changes)))

    def spends(self, run_id: str) -> Counter[tuple[int, int]]:
        """Steps per (round, attempt) of a run as this node's own ledger counts them."""
        counted: Counter[tuple[int, int]] = Counter()
        for one in self.worker.budgets.touches():
            if one.run == run_id and one.split == TRAIN:
                counted[(one.round, one.attempt)] += one.steps
        return counted

    def owner(self) -> Signer:
        """The organisation's own requests over HTTP."""
        return Signer(self.pool.house, self.key, f"{self.name} {self.clock.ms} {len(self.pool.entries())}")

    async def vote(self, subject: str, run_id: str, verdict: str) -> httpx.Response:
        """The owner's own vote, sealed in the node's outbox as ``iriai-node release`` does."""
        clause = None if verdict == "approve" else "release-1"
        with self.worker.outbox.writing() as letters:
            envelope = letters.seal(
                "vote.cast",
                body={"subject": subject, "vote": verdict, "clause": clause},
                scope=self.pool.contract.digest,
                run=run_id,
                slot=f"vote.cast {subject} {verdict}",
            )
        return await self.owner().post(f"/candidates/{subject}/votes", {"envelope": envelope.to_json()})


class Wire(httpx.BaseTransport):
    """What a worker asks over HTTP in the middle of a round, answered from the same process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        writer = self._pool.services.writer
        parts = request.url.path.removeprefix("/api/v1/").split("/")
        if parts == ["log", "consistency"]:
            head, old = writer.head(), int(request.url.params["old"])
            proof = writer.consistency(old, head.size) if 0 < old < head.size else []
            answer = {"note": head.note, "proof": [b64(one) for one in proof], "old_size": old}
            return httpx.Response(200, content=canonical(answer))
        if parts[0] == "contracts" and parts[2:3] in (["lifecycle"], ["notices"]):
            return self._said(parts[1], parts[3:])
        later = parts[0] == "contracts" and len(parts) > 1 and parts[1] != self._pool.contract.digest
        if later:  # a successor; what all signed first is on every site already
            return self._contract(parts[1], parts[2:])
        if parts[0] == "runs":
            with self._pool.services.store.read() as session:
                state = session.scalar(select(run.c.state).where(run.c.run_id == parts[1]))
            return httpx.Response(200, content=canonical({"state": state}))
        return self._nothing(request.url.path)

    def _contract(self, name: str, rest: list[str]) -> httpx.Response:
        """Bytes of a contract, a recipe or the signatures."""
        contracts = self._pool.services.contracts
        with self._pool.services.store.read() as session:
            match rest:
                case []:
                    data = contracts.get(name).canonical
                case ["annexes", recipe]:
                    data = contracts.annex(session, contracts.get(name), recipe)
                case ["envelope"]:
                    data = contracts.envelope(session, contracts.get(name)).to_bytes()
                case _:
                    return self._nothing(f"{name} {rest}")
        return httpx.Response(200, content=data)

    def _said(self, name: str, rest: list[str]) -> httpx.Response:
        """The notices about a contract, or one of them."""
        services = self._pool.services
        contract = services.contracts.get(name)
        with services.store.read() as session:
            if rest:
                return httpx.Response(200, content=services.lives.notice_bytes(session, contract, rest[0]))
            return httpx.Response(200, content=canonical(services.lives.view(session, contract)))

    def _nothing(self, path: str) -> httpx.Response:
        problem = {
            "code": "sim.not-found",
            "need": "a route",
            "found": path,
            "remedy": "none",
            "exit_code": 4,
        }
        return httpx.Response(404, json=problem)


class Pool:
    """Four members, their contract, their broker; all on disk under ``folder``."""

    def __init__(
        self,
        folder: Path,
        *,
        private: bool = True,
        torch: bool = False,
        names: tuple[str, ...] = NAMES,
        database: str = "sqlite",
        **changes: Any,
    ) -> None:
        template = _template(private=private, changes=canonical(changes), names=names)
        self.folder = folder
        self.names = names
        shutil.copytree(template.folder, folder, dirs_exist_ok=True)
        pgserver.move(folder / "broker", database)
        self.recipe, self.contract = template.recipe, template.contract
        self.first = initial_weights(self.recipe) if template.first is None else template.first
        self.clock = HandClock(IN_TERM_MS)
        self.steps = Steps()
        self.journal = Notes()
        self.overheard: dict[Any, bytes] = {}
        self.nodes = {
            name: SimNode(name, Home(folder / "sites" / name), self.clock, self, torch=torch)
            for name in names
        }
        self.fleet = self._new_fleet()
        self._opened = 0
        self._http: httpx.AsyncClient | None = None

    def _new_fleet(self) -> SimFleet:
        return SimFleet(clock=self.clock, nodes=self.nodes, steps=self.steps)

    # --- the broker's process ---

    async def open(self) -> None:
        """Starts the broker's process on what is on the disk."""
        self._opened += 1
        offline, self.fleet = self.fleet.offline, self._new_fleet()
        self.fleet.offline |= offline
        self.services: Services = open_services(
            self.folder / "broker",
            clock=self.clock,
            entropy=SeedEntropy(f"broker {self._opened}".encode()),
            engine=self.fleet,
            threaded=False,
        )
        settings = self.services.settings
        self.runner = RoundRunner(
            Tools(
                engine=self.fleet,
                writer=PlantedWriter(self.services.writer, self.steps),  # type: ignore[arg-type]
                store=self.services.store,
                contracts=self.services.contracts,
                clock=self.clock,
                entropy=self.services.entropy,
                broker_key=self.services.keys.broker,
                settings=settings,
                models=PlantedModels(settings.models, self.steps),
                journal=self.journal,
            )
        )
        self.services.runner = self.runner
        port = build(self.services)
        self._http = httpx.AsyncClient(
            transport=httpx.ASGITransport(app=port, raise_app_exceptions=False),
            base_url=URL,
            event_hooks=DOCUMENTED,
        )
        self.house = House(
            services=self.services,
            port=port,
            http=self._http,
            clock=self.clock,
            fleet=self.fleet,  # type: ignore[arg-type]
        )
        for who in (self.house.alice, self.house.bob):  # numbers that no earlier process of theirs used
            who.entropy = SeedEntropy(f"{who.name} {self._opened}".encode())
        await self.services.start()

    async def kill(self) -> None:
        """The broker's process ends as by SIGKILL: nothing is said, nothing is finished."""
        tasks = list(self.runner._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.services.upkeep.stop()
        self.services.store.close()
        await self._hang_up()

    async def close(self) -> None:
        """An orderly end of everything, unless the broker was killed."""
        if self._http is not None:
            await self.services.stop()
            self.services.close()
            await self._hang_up()
        for one in self.nodes.values():
            one.close()

    async def _hang_up(self) -> None:
        if self._http is not None:
            await self._http.aclose()
            self._http = None

    # --- runs ---

    async def open_run(self) -> str:
        """An operator opens a run; its task is started."""
        answer = await self.house.alice.post(
            "/operator/runs", {"contract": self.contract.digest, "recipe": self.contract.recipes[0].id}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["run"])

    async def idle(self) -> None:
        """Waits until no task of the runner is left; raises what ended one."""
        while tasks := list(self.runner._tasks.values()):
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for one in done:
                if not one.cancelled() and one.exception() is not None:
                    raise one.exception()  # type: ignore[misc]
            await asyncio.sleep(0)

    async def run(self) -> str:
        """A run from its opening to its end."""
        name = await self.open_run()
        await self.idle()
        return name

    # --- what is there afterwards ---

    def entries(self, kind: EntryType | None = None, run_id: str | None = None) -> list[Any]:
        """Checked entries of the log."""
        return [one for one in self.house.entries(kind) if run_id is None or one.run == run_id]

    def row(self, run_id: str) -> Any:
        """The run as the database has it."""
        with self.services.store.read() as session:
            return session.execute(select(run).where(run.c.run_id == run_id)).one()

    def rounds(self, run_id: str) -> list[Any]:
        """Settled attempts, oldest first."""
        query = select(round_).where(round_.c.run_id == run_id).order_by(round_.c.round, round_.c.attempt)
        with self.services.store.read() as session:
            return list(session.execute(query))

    def verdicts(self, run_id: str) -> list[dict[str, str]]:
        """Per settled attempt: party → verdict, as the log's ``round.closed`` shows it."""
        found = []
        for entry in self.entries(EntryType.ROUND_CLOSED, run_id):
            names = {self.alias(name, run_id, entry.round, entry.scope): name for name in self.names}
            found.append({names[shown]: one["verdict"] for shown, one in entry.pub["parties"].items()})
        return found

    def refusals(self, run_id: str) -> list[tuple[str, int, str]]:
        """(party, round, reason) of every ``contribution.refused``."""
        found = []
        for entry in self.entries(EntryType.CONTRIBUTION_REFUSED, run_id):
            submission = self.entries()[entry.refs[0]]
            names = {
                self.alias(name, run_id, submission.round, submission.scope): name for name in self.names
            }
            found.append((names[submission.actor], entry.round, entry.pub["reason"]))
        return found

    def alias(self, name: str, run_id: str | None, number: int | None, scope: str | None = None) -> str:
        member = self.services.contracts.member_of(self.contract, name)
        return alias(member.alias_key, scope or self.contract.digest, run_id, number)

    def candidates(self) -> dict[str, str]:
        """Candidate → state."""
        with self.services.store.read() as session:
            return {row.digest: row.state for row in session.execute(select(candidate))}

    def mirror(self, run_id: str) -> dict[str, Counter[tuple[int, int]]]:
        """Party → steps per (round, attempt), as the broker counts them."""
        found = {name: Counter[tuple[int, int]]() for name in self.names}
        with self.services.store.read() as session:
            for row in session.execute(select(ledger_mirror).where(ledger_mirror.c.run_id == run_id)):
                found[row.party][(row.round, row.attempt)] += row.steps
        return found

    def logged_spends(self, run_id: str) -> dict[str, Counter[tuple[int, int]]]:
        """Party → steps per (round, attempt), as the log has them."""
        found = {name: Counter[tuple[int, int]]() for name in self.names}
        for entry in self.entries(EntryType.EPSILON_SPENT, run_id):
            if "/eval/" in entry.pub["mechanism"]:
                continue
            names = {self.alias(name, run_id, entry.round, entry.scope): name for name in self.names}
            _, number, attempt = entry.pub["mechanism"].split("/")
            found[names[entry.actor]][(int(number), int(attempt))] += entry.pub["steps"]
        return found

    def check_books(self, run_id: str) -> None:
        """No ledger counts a step twice, and none less than the log or the broker's mirror."""
        mirror, logged = self.mirror(run_id), self.logged_spends(run_id)
        for name, node in self.nodes.items():
            own = node.spends(run_id)
            assert all(steps == 1 for steps in own.values()), (name, own)
            assert all(own[slot] >= steps for slot, steps in logged[name].items()), (name, own, logged[name])
            assert mirror[name] == logged[name], (name, mirror[name], logged[name])
            assert set(node.learner.trained) <= {(run_id, *slot) for slot in own} | {
                one for one in node.learner.trained if one[0] != run_id
            }
            assert len(set(node.learner.trained)) == len(node.learner.trained), name

    @property
    def secure(self) -> bool:
        return self.contract.aggregation.secure_aggregation == "required"

    def terms(self, run_id: str) -> Terms:
        """Of secure aggregation in a run."""
        return agreed_terms(self.contract, self.recipe.canonical, run=run_id)

    def sent(self, name: str, run_id: str, slot: tuple[int, int]) -> np.ndarray:
        """What a node put on the ring in an attempt: its update of the newest one of the round that it trained in."""
        made = max(
            (one[1:] for one in self.nodes[name].learner.trained if one[0] == run_id and one[1] == slot[0]),
            key=lambda one: (one <= slot, one),
        )
        terms = self.terms(run_id)
        update = true_update(name, run_id, made, terms.dimension)
        return quantise(check_update(update, terms), weight=terms.weight(name), terms=terms)

    def expected_sum(self, run_id: str, row: Any) -> np.ndarray:
        """The ring sum of what the accepted nodes of an attempt sent, added in the plain."""
        accepted = [name for name, one in json.loads(row.verdicts).items() if one == "accepted"]
        total = np.zeros(self.terms(run_id).dimension, "<u4")
        for name in accepted:
            total += self.sent(name, run_id, (row.round, row.attempt))
        return total

    def check_sums(self, run_id: str) -> int:
        """Every opened sum in the log is exact to the bit, and gives the model; their number."""
        released = {one.round: one for one in self.entries(EntryType.AGGREGATE_RELEASED, run_id)}
        with_model = [row for row in self.rounds(run_id) if row.model is not None]
        assert sorted(released) == [row.round for row in with_model]
        for row in with_model:
            assert released[row.round].pub["aggregate"] == digest(self.expected_sum(run_id, row).tobytes())
        self.expected_model(run_id)
        return len(with_model)

    def _mean(self, run_id: str, row: Any, accepted: list[str]) -> np.ndarray:
        if self.secure:
            return mean(self.expected_sum(run_id, row), self.terms(run_id), accepted)
        slot, total = (row.round, row.attempt), np.zeros(self.recipe.parameters)
        for name in accepted:
            total += true_update(name, run_id, slot, self.recipe.parameters).astype(np.float64)
        return total / len(accepted)

    def expected_model(self, run_id: str) -> str:
        """The model that the accepted updates give, computed apart from the runner."""
        from broker.federation.checkpoints import model_digest
        from policies.server_step import initial_state, server_step

        weights = self.first.astype(np.float64)
        state, done = initial_state(weights, self.recipe.server), 0
        withdrawn = {one.round for one in self.entries(EntryType.SUM_WITHDRAWN, run_id)}
        for row in self.rounds(run_id):
            accepted = sorted(name for name, one in json.loads(row.verdicts).items() if one == "accepted")
            if row.model is None:
                continue
            update = self._mean(run_id, row, accepted)
            made = server_step(weights, update, state, self.recipe.server, done)
            assert model_digest(made[0]) == row.model, (row.round, row.attempt)
            if row.round not in withdrawn:
                (weights, state), done = made, done + 1
        return model_digest(weights)

    def audit(self, vectors: Mapping[str, bytes] | None = None) -> Report:
        """The verdict of the auditor's own program about everything that happened; with masked vectors, by digest."""
        path = self.folder / "bundle.zip"
        export(
            self.services.store,
            self.services.writer,
            path,
            policy=self.services.policy,
            software=version("iriai"),
            contracts=self.services.contracts.documents(),
            transcript=Transcripts(self.folder / "broker").read,
        )
        return verify(path.read_bytes(), parse_policy(self.services.policy), vectors=vectors)

    def check_audit(self) -> Report:
        """No error; a review finding says what a person should look at (a vote that never came), which is as it should be."""
        report = self.audit()
        assert [str(one) for one in report.findings if one.severity == "error"] == []
        return report

    def tamper(self, table: Any, **values: Any) -> None:
        """Writes to the broker's database past the broker."""
        with self.services.store.main.begin() as session:
            session.execute(table.update().values(**values))

    @property
    def log_rows(self) -> int:
        with self.services.store.read() as session:
            return len(session.execute(select(log_entry.c.idx)).all())


# --- how a pool comes to be: once per process, by the commands of both sides ---


@dataclass(frozen=True)
class _Template:
    folder: Path
    recipe: Recipe
    contract: Contract
    first: np.ndarray | None = None  # the start model


def tiny_recipe(*, private: bool = True, **changes: Any) -> Recipe:
    """A recipe of few rounds and few weights.

    ``changes`` replace top-level values; ``steps`` are the plan's, ``evaluation`` changes values of that plan.
    """
    tree = json.loads(private_recipe(episodes=80) if private else plain_recipe())
    tree["architecture"]["args"]["width"] = 4
    tree["tensors"] = manifest(input_size=19, output_size=4, width=4, chunk=1)
    tree["rounds"] = ROUNDS
    if private:
        tree["plan"]["steps"] = changes.pop("steps", STEPS)
        tree["server"]["steps"] = ROUNDS
    tree["evaluation"] |= changes.pop("evaluation", {})
    return load_recipe(canonical(tree | changes))


@functools.cache
def _template(*, private: bool, changes: bytes, names: tuple[str, ...] = NAMES) -> _Template:
    folder = Path(tempfile.mkdtemp(prefix="iriai-pool-", dir=ground()))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    asked = parse(changes)
    document, bare = (
        asked.pop("document", None),
        asked.pop("bare", []),
    )  # another recipe; sites with a bare arm
    recipe = tiny_recipe(private=private, **asked.pop("recipe", {}))
    if document is not None:
        recipe = load_recipe(canonical(document))
    with open_street(folder / "broker") as street:
        street.house.clock.ms = BEFORE_MS
        homes = {name: _enrolled(street, Home(folder / "sites" / name), name) for name in names}
        planted = None
        if asked.pop("seeded", False):  # every party openly gives two episodes
            planted = Planted({name: _key(street, home) for name, home in homes.items()}, recipe=recipe)
            recipe = planted.started
            asked["seed_sets"] = [planted.clause()]
        annexes = () if planted is None else tuple(planted.annexes.values())
        first = None if planted is None else planted.weights
        if asked.pop("base", False):  # a public checkpoint, which nobody's seed gives
            first = (initial_weights(recipe) * 2 + 0.25).astype("<f4")
            annexes = (first.tobytes(),)
            base = digest(first.tobytes())
            recipe = load_recipe(with_base(recipe.canonical, base=base, licence="CC-BY-4.0"))
        contract = _draft(street, homes, recipe, asked)
        offered = street.run(street.house.alice.offer(contract, (recipe.canonical,), annexes))
        assert offered.status_code == 201, offered.text
        for number, home in enumerate(homes.values()):
            write = write_bare_recording if home.root.name in bare else write_recording
            write(folder / "recording" / str(number), seed=number)
            _sign(street, home, contract, "accept")
        for home in homes.values():  # all have accepted: now each signs
            _sign(street, home, contract, "sign")
        for number, home in enumerate(homes.values()):
            member = _member(street, home, "last")
            fetch_envelope(member, ContractShelf(home, own_key=member.identity.key.public), contract.digest)
            member.client.close()
            _import(street, home, contract, folder / "recording" / str(number))
    shutil.rmtree(folder / "recording")
    return _Template(folder, recipe, contract, first)


def _key(street: Street, home: Home) -> SigningKey:
    member = _member(street, home, "key")
    member.client.close()
    key: SigningKey = member.identity.key
    return key


def _member(street: Street, home: Home, seed: str) -> Any:
    entropy = SeedEntropy(f"{home.root.name} {seed}".encode())
    return open_member(home, clock=street.house.clock, entropy=entropy, transport=street.transport)


def _enrolled(street: Street, home: Home, name: str) -> Home:
    initialise(
        home, entropy=SeedEntropy(f"init {name}".encode()), legal_name=f"{name.title()} GmbH", country="DE"
    )
    token = street.run(street.house.alice.invite(f"{name.title()} GmbH", "DE", name))
    join(
        home,
        URL,
        token,
        clock=street.house.clock,
        entropy=SeedEntropy(f"join {name}".encode()),
        confirm=lambda _text: True,
        transport=street.transport,
    )
    member = _member(street, home, "enrol")
    for who in (street.house.alice, street.house.bob):
        assert street.run(who.approve(member.identity.org)).status_code == 200
    assert membership(member)["state"] == "active"
    member.client.close()
    return home


def _draft(street: Street, homes: Mapping[str, Home], recipe: Recipe, changes: Mapping[str, Any]) -> Contract:
    tree = runnable(ORIGIN)
    model = next(one for one in tree["parties"] if one["party"] == "kita")
    more = (name for name in homes if name not in NAMES)
    tree["parties"] += [model | {"party": name, "clause": f"party-{name}"} for name in more]
    for one in tree["parties"]:
        if one["role"] == "broker":
            one["key"] = key_text(street.house.services.keys.broker.public)
            continue
        member = _member(street, homes[one["party"]], "draft")
        one |= {"key": key_text(member.identity.key.public), "org": member.identity.org}
        one |= {"legal_name": f"{one['party'].title()} GmbH", "country": "DE", "group": one["party"]}
        member.client.close()
    tree["purposes"] = tree["purposes"][:1]
    first = tree["recipes"][0] | {
        "recipe_digest": recipe.digest,
        "max_rounds": 100,
        "max_local_steps_per_round": 20,
    }
    tree["recipes"] = [first | {"datasets": [{"party": name, "dataset": f"{name}/pick"} for name in homes]}]
    tree["fields"] |= {"allow": list(FIELDS), "trade_secret": []}
    tree["privacy"] |= {"per_party": [], "epsilon_per_release": "2", "epsilon_total": "2.8"}
    if recipe.plan is None:
        tree |= {"test_only": True, "privacy": {"clause": "dp-1", "mode": "none"}}
    tree["tiers"] = [one for one in tree["tiers"] if one["tier"] in {"consortium", "private"}]
    tree["release"]["approvals"] = {"of": "contributors", "min": 3, "veto": ["party-kita"]}
    for path, value in changes.items():
        at = tree
        *parents, last = path.split(".")
        for part in parents:
            at = at[int(part) if part.isdecimal() else part]
        at[last] = value
    return from_tree(tree)


def _import(street: Street, home: Home, contract: Contract, recorded: Path) -> None:
    with _desk(street, home, "import") as (member, shelf, outbox):
        data_add(
            member,
            shelf,
            outbox,
            recorded,
            dataset=f"{home.root.name}/pick",
            signal_map=None,
            contract=contract.digest,
            rules=LocalRules(),
            publish=False,
        )


def _sign(street: Street, home: Home, contract: Contract, word: str) -> None:
    with _desk(street, home, word) as (member, shelf, outbox):
        _agree(member, shelf, outbox, contract)


def _agree(member: Any, shelf: ContractShelf, outbox: Outbox, contract: Contract) -> None:
    sign(
        member,
        shelf,
        outbox,
        contract.digest,
        confirm=lambda _text: True,
        acknowledge=lambda _finding: True,
    )


@contextmanager
def _desk(street: Street, home: Home, seed: str) -> Iterator[tuple[Any, ContractShelf, Outbox]]:
    """A member at its node's desk: what a command opens."""
    member = _member(street, home, seed)
    outbox = Outbox(
        home.outbox,
        key=member.identity.key,
        origin=member.broker.origin,
        clock=member.clock,
        entropy=SeedEntropy(f"outbox {home.root.name} {seed}".encode()),
    )
    try:
        yield member, ContractShelf(home, own_key=member.identity.key.public), outbox
    finally:
        outbox.close()
        member.client.close()


def ground() -> Path | None:
    """A folder in memory where there is one: a simulated disk need not turn."""
    memory = Path("/dev/shm")
    return memory if memory.is_dir() else None


@contextmanager
def simulate(clock: HandClock) -> Iterator[Callable[[Coroutine[Any, Any, T]], T]]:
    """Runs coroutines on a loop in virtual time, one after the other."""
    with asyncio.Runner(loop_factory=lambda: SimLoop(clock)) as runner:
        yield runner.run


@contextmanager
def new_pool(**options: Any) -> Iterator[Pool]:
    """A pool in a folder of its own, gone afterwards; its broker is not started yet."""
    with tempfile.TemporaryDirectory(prefix="iriai-sim-", dir=ground()) as folder:
        pool = Pool(Path(folder), **options)
        try:
            yield pool
        finally:
            for one in pool.nodes.values():
                one.close()


@contextmanager
def running(**options: Any) -> Iterator[tuple[Pool, Callable[[Coroutine[Any, Any, Any]], Any]]]:
    """A pool whose broker runs, and what runs coroutines in its virtual time."""
    with new_pool(**options) as pool, simulate(pool.clock) as go:
        go(pool.open())
        try:
            yield pool, go
        finally:
            go(pool.close())
