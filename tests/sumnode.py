# SPDX-License-Identifier: Apache-2.0
"""A real node in a secure aggregation: its worker answers, peers are machines, the broker is the real collector.

    pool = sum_pool(tmp_path)
    setup = pool.setup()
    found = pool.round(setup, 1)           # found.z is the ring sum, kita's update in it

`SumPool.ask` sends one message to the node under test and gives the bytes of its answer; what it refuses
raises `Refused` with its code.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from policies.encoding import b64, digest, unb64
from policies.exchange import ExchangeType, tensor_bytes
from policies.secagg import masks, ring
from policies.secagg.agreed import agreed_terms
from policies.secagg.asks import Resume
from policies.secagg.collector import Attempt, Opened, Setup
from policies.secagg.node import NodeMachine
from policies.secagg.sums import RingSum
from policies.server_step import initial_state, server_step, state_digest
from tests.learnsim import small_recipe
from tests.nodesim import SeedEntropy
from tests.nodeworld import RUN, World, copied, template

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from client.federation.handlers import Answer
    from policies.exchange import ReplyHeader
    from policies.recipe import Recipe
    from policies.secagg.terms import Terms

NODE = "kita"
PEERS = ("nord", "iber", "hanbit")
REQUIRED: dict[str, Any] = {"aggregation.secure_aggregation": "required", "aggregation.group_mac": "on"}
_templates: dict[str, World] = {}


class Refused(Exception):  # noqa: N818  an answer
    """The node under test said no."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


def update_of(party: str, slot: tuple[int, int], size: int) -> np.ndarray:
    """What a party trains in a round: of norm 1, another one for each attempt that trains."""
    seed = int.from_bytes(hashlib.sha256(f"{party} {slot}".encode()).digest()[:8], "big")
    values = np.random.default_rng(seed).standard_normal(size)
    return (values / np.linalg.norm(values)).astype(np.float32)


class SumLearner:
    """`client.desktop.Learner` without torch, whose update differs with round and attempt."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.trained: list[tuple[int, int]] = []
        self.steps: list[float | None] = []
        self.after: Callable[[np.ndarray], np.ndarray] = lambda update: update

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def update(
        self, seat: Any, run: str, slot: tuple[int, int], weights: np.ndarray, spend: Any, **named: Any
    ) -> np.ndarray:
        spend(self._inner.units(seat, "train").manifest)
        self.trained.append(slot)
        self.steps.append(named["grid_step"])
        update = update_of(NODE, slot, len(weights))
        if named["grid_step"] is not None:
            return self.after((update * 1000).astype(np.int64))
        return self.after(update)


@dataclass(kw_only=True)
class Sum:
    """An opened sum: the ring values, and what the broker keeps of it."""

    z: np.ndarray
    opened: Opened
    online: tuple[str, ...]


@dataclass
class SumPool:
    """A broker, a real node, and peers; one run."""

    world: World
    terms: Terms = field(init=False)
    machines: dict[str, NodeMachine] = field(init=False)
    previous: Sum | None = None
    sums: list[Sum] = field(default_factory=list)
    bases: list[Any] = field(default_factory=list)
    weights: np.ndarray = field(init=False)
    state: Any = field(init=False)
    steps: int = 0
    receipts: list[dict[str, str]] = field(default_factory=list)
    _lives: int = 0

    def __post_init__(self) -> None:
        self.terms = agreed_terms(self.world.contract, self.recipe.canonical, run=RUN)
        self.begin_peers()
        self.weights = self.world.learner.initial(self.recipe)
        self.state = initial_state(self.weights, self.recipe.server)

    @property
    def recipe(self) -> Recipe:
        return self.world.recipe

    @property
    def base_model(self) -> str:
        return digest(tensor_bytes(self.weights))

    def begin_peers(self) -> None:
        """Fresh machines of all peers, as after a setup in which the node under test was lost."""
        self.machines = {name: self.begun_anew(name) for name in self.world.keys}

    def begun_anew(self, name: str, **more: Any) -> NodeMachine:
        """The machine of a peer whose process has just begun."""
        self._lives += 1
        entropy = SeedEntropy(f"{name} {self._lives}".encode())
        return NodeMachine(self.terms, name, key=self.world.keys[name], entropy=entropy, **more)

    # --- one message to the node under test ---

    def send(
        self, kind: ExchangeType, slot: tuple[int, int], ask: bytes, **more: Any
    ) -> tuple[Answer, ReplyHeader]:
        """A message of the protocol; the ask is in the tensor where the message's table says so."""
        number, attempt = slot
        if kind in {ExchangeType.SA_SHARE, ExchangeType.SA_OPEN}:
            more = {"tensor": np.frombuffer(ask, np.uint8), "body": {}} | more
        else:
            more = {"body": {"ask": b64(ask)}} | more
        return self.world.send(kind, round=number, attempt=attempt, **more)

    def ask(self, kind: ExchangeType, slot: tuple[int, int], ask: bytes, **more: Any) -> bytes:
        """The bytes of the answer."""
        answer, reply = self.send(kind, slot, ask, **more)
        if not reply.ok:
            raise Refused(str(reply.code))
        return answer.tensor if answer.tensor is not None else unb64(reply.body["answer"])

    # --- setups ---

    def apart(self, number: int, *, first_round: int) -> Setup:
        """A whole setup without the node under test."""
        setup = Setup(self.terms, number=number, first_round=first_round)
        for name, machine in self.machines.items():
            setup.advert(name, machine.advertise(setup.advertise_ask()))
        for name, machine in self.machines.items():
            setup.shared(name, machine.share(setup.share_ask()))
        for name, machine in self.machines.items():
            setup.opened(name, machine.open(setup.open_ask(name)))
        return setup

    def begun(self, number: int = 1, *, first_round: int = 1, shared: bool = True) -> Setup:
        """A setup up to its adverts, or up to its shares."""
        setup, slot = Setup(self.terms, number=number, first_round=first_round), (first_round, number)
        asked = setup.advertise_ask()
        setup.advert(NODE, self.ask(ExchangeType.SA_ADVERTISE, slot, asked))
        for name, machine in self.machines.items():
            setup.advert(name, machine.advertise(asked))
        if not shared:
            return setup
        asked = setup.share_ask()
        setup.shared(NODE, self.ask(ExchangeType.SA_SHARE, slot, asked))
        for name, machine in self.machines.items():
            setup.shared(name, machine.share(asked))
        return setup

    def setup(self, number: int = 1, *, first_round: int = 1) -> Setup:
        """A whole setup."""
        return self.finished(self.begun(number, first_round=first_round), (first_round, number))

    def finished(self, setup: Setup, slot: tuple[int, int] = (1, 1)) -> Setup:
        """A setup whose shares are looked at."""
        setup.opened(NODE, self.ask(ExchangeType.SA_OPEN, slot, setup.open_ask(NODE)))
        for name, machine in self.machines.items():
            setup.opened(name, machine.open(setup.open_ask(name)))
        return setup

    # --- rounds ---

    def attempt(self, setup: Setup, number: int, attempt: int = 1) -> Attempt:
        previous = None if self.previous is None else self.previous.opened
        return Attempt(
            setup,
            round=number,
            attempt=attempt,
            base_model=self.base_model,
            server=state_digest(self.state, self.steps),
            previous=previous,
        )

    def beside(self, shown: Sequence[Sum], sent: Any) -> np.ndarray:
        """The tensor beside CONTRIBUTE: the base model, sums behind it, and a model that is sent along."""
        if not self.terms.group_mac:
            return self.weights.astype("<f4")
        parts = [self.weights.astype("<f4").view("<u4"), *(one.z for one in shown)]
        if sent is not None:
            weights, state, _ = sent
            parts.append(weights.astype("<f4").view("<u4"))
            parts += [state[name].astype("<f8").view("<u4") for name in sorted(state)]
        return np.concatenate(parts)

    def contribute(
        self,
        attempt: Attempt,
        *,
        tensor: np.ndarray | None = None,
        body: dict[str, Any] | None = None,
        shown: Sequence[Sum] | None = None,
        sent: Any = None,
    ) -> tuple[Answer, ReplyHeader]:
        """CONTRIBUTE to the node under test; what it seals goes into the log.

        Args:
            attempt: Which.
            tensor: Another one than belongs to it.
            body: What else is other.
            shown: Sums, oldest first; None: the newest.
            sent: Weights, state and steps of a model that is sent along.
        """
        plan, now = self.recipe.plan, attempt.context
        if shown is None:
            shown = [one for one in (self.previous,) if one is not None and self.terms.group_mac]
        resume = None
        if sent is not None:
            weights, state, steps = sent
            name = digest(tensor_bytes(weights.astype(np.float32)))
            resume = Resume(base_model=name, server=state_digest(state, steps), step=steps)
        ask = attempt.contribute_ask([one.opened.previous() for one in shown], resume)
        given = {
            "ask": b64(ask),
            "plan": None if plan is None else plan.digest,
            "base_model": self.base_model,
            "log": self.world.broker.log.news(self.world.worker.outbox.shown.seen().size),
            "receipts": self.receipts,
        }
        answer, reply = self.send(
            ExchangeType.SA_CONTRIBUTE,
            (now.round, now.attempt),
            ask,
            tensor=self.beside(shown, sent) if tensor is None else tensor,
            body=given | (body or {}),
        )
        self.receipts = self.world.log_reply(reply)
        return answer, reply

    def vectors(self, attempt: Attempt, **named: Any) -> dict[str, bytes]:
        """Masked vectors of everybody, as the broker takes them."""
        answer, reply = self.contribute(attempt, **named)
        if not reply.ok:
            raise Refused(str(reply.code))
        assert answer.tensor is not None
        assert reply.tensor is not None
        attempt.vector(NODE, unb64(reply.body["answer"]), reply.tensor.digest)
        return {NODE: answer.tensor, **self.peer_vectors(attempt)}

    def peer_vectors(self, attempt: Attempt) -> dict[str, bytes]:
        """What the peers send masked, as the broker takes it."""
        now, found = attempt.context, {}
        for name, machine in self.machines.items():
            slot = machine.admit(
                attempt.contribute_ask(), round=now.round, attempt=now.attempt, base_model=now.base_model
            )
            update = update_of(name, (now.round, 1), self.terms.dimension)
            masked = machine.mask(slot, ring.check_update(update, self.terms))
            attempt.vector(name, masked.answer, masked.digest)
            found[name] = masked.vector.tobytes()
        return found

    def confirm(self, attempt: Attempt, *, node: bool = True) -> None:
        now, ask = attempt.context, attempt.confirm_ask()
        for name, machine in self.machines.items():
            attempt.confirmed(name, machine.confirm(ask, round=now.round, attempt=now.attempt))
        if node:
            attempt.confirmed(NODE, self.ask(ExchangeType.SA_CONFIRM, (now.round, now.attempt), ask))

    def unmask(self, attempt: Attempt, *, node: bool = True) -> None:
        now, ask = attempt.context, attempt.unmask_ask()
        for name, machine in self.machines.items():
            attempt.unmasked(name, machine.unmask(ask, round=now.round, attempt=now.attempt))
        if node:
            attempt.unmasked(NODE, self.ask(ExchangeType.SA_UNMASK, (now.round, now.attempt), ask))

    def opened(self, attempt: Attempt, vectors: dict[str, bytes]) -> Sum:
        """The sum without its masks."""
        total = RingSum(self.terms.dimension)
        for name in attempt.online:
            total.add([vectors[name]])
        masks.unmask(total.values, attempt.remove())
        found = Sum(z=total.values, opened=attempt.finish(total.digest()), online=attempt.online)
        self.previous = found
        self.sums.append(found)
        return found

    def step(self) -> None:
        """The model of the next round, as broker and nodes compute it."""
        assert self.previous is not None
        self.bases.append((self.weights, self.state, self.steps))
        update = ring.mean(self.previous.z, self.terms, self.previous.online)
        weights, self.state = server_step(self.weights, update, self.state, self.recipe.server, self.steps)
        self.weights, self.steps = weights.astype(np.float32), self.steps + 1

    def without_node(self, setup: Setup, number: int) -> Sum:
        """A round that the node under test is not asked in."""
        attempt = self.attempt(setup, number)
        vectors = self.peer_vectors(attempt)
        self.confirm(attempt, node=False)
        self.unmask(attempt, node=False)
        found = self.opened(attempt, vectors)
        self.step()
        return found

    def round(self, setup: Setup, number: int, attempt: int = 1, **named: Any) -> Sum:
        """A whole attempt, and the step that follows from it; ``named`` as `contribute` has it."""
        now = self.attempt(setup, number, attempt)
        vectors = self.vectors(now, **named)
        self.confirm(now)
        self.unmask(now)
        found = self.opened(now, vectors)
        self.step()
        return found


def sum_pool(folder: Path, *, recipe: Recipe | None = None, **changes: Any) -> SumPool:
    """A node with data under a contract that requires secure aggregation, in term, its worker composed.

    Args:
        folder: For the copy of this test; what it is copied from is made once per process.
        recipe: Another one than the small private one.
        changes: Of the contract, ``__`` for each point of a path.
    """
    named = {path.replace("__", "."): value for path, value in changes.items()}
    wanted = recipe or small_recipe()
    key = f"{wanted.digest} {sorted(named.items())}"
    if key not in _templates:
        _templates[key] = template(changes=REQUIRED | named, peers=PEERS, recipe=wanted)
    world = copied(_templates[key], folder)
    world.learner = SumLearner(world.learner)
    world.restart()
    return SumPool(world)
