# SPDX-License-Identifier: Apache-2.0
"""A node that joined a simulated broker, holds data and a signed contract, and is asked for rounds; everybody signs for real."""

from __future__ import annotations

import atexit
import copy
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from client.contract.shelf import ContractShelf
from client.contract.signing import sign
from client.datasets.adding import Source, add_alone, data_add
from client.federation.handlers import Answer, RunConfig
from client.membership import Member, initialise, join, membership, open_member
from client.outbox import Outbox
from client.privacy.units import Units
from client.settings import Home, LocalRules, load_settings, save_settings
from client.worker import Worker
from policies.contract import CONTRACT_TYPE, Contract, from_tree
from policies.exchange import (
    ExchangeType,
    ReplyHeader,
    TensorSpec,
    open_reply,
    open_request,
    seal_request,
    tensor_bytes,
    tensor_spec,
)
from policies.identity import SigningKey, key_text
from policies.privacy.receipts import MadeWith
from policies.recipe import Recipe
from policies.signing import Envelope
from sandbox.lerobot_writer import Feature, Frames, write_dataset
from tests.contractsim import runnable
from tests.learnsim import episode, made_units, small_plain, small_recipe
from tests.nodelanes import Talk
from tests.nodesim import URL, BrokerSim, HandClock, SeedEntropy

RUN = "run_aaaaaaaaaaaaaaaa"
IN_TERM_MS = 1_797_000_000_000  # 2026-12-11
BEFORE_MS = 1_790_000_000_000  # signatures are still accepted
OBSERVED = ("tcp_pos", "gripper_width", "object_pos", "goal_pos")
FIELDS = (*OBSERVED, "tcp_pose_delta", "gripper_cmd")
PROSE = b"%PDF-1.7 the text for people"


def YES(_shown: object) -> bool:  # noqa: N802  an answer
    """A person who agrees to everything."""
    return True


class FixedLearner:
    """`client.duties.Learner` without torch: the update is the weights times two; judging accepts if told so."""

    def __init__(self) -> None:
        self.accept = True
        self.trained: list[tuple[str, tuple[int, int]]] = []
        self.judged = 0
        self.weighed = 0
        self.found = 0  # the gain of every model
        self.fail: Exception | None = None
        self.got_ready = 0

    def ready(self, seat: Any) -> None:
        self.got_ready += 1
        if self.fail is not None:
            raise self.fail

    def initial(self, recipe: Recipe) -> np.ndarray:
        return np.zeros(recipe.parameters, dtype=np.float32)

    def units(self, seat: Any, split: str, canaries: Any = None) -> Units:
        return made_units(split, 20)

    def made_with(self, seat: Any) -> MadeWith:
        return MadeWith(engine="loop")

    def update(
        self,
        seat: Any,
        run: str,
        slot: tuple[int, int],
        weights: np.ndarray,
        spend: Any,
        *,
        canaries: Any = None,
        grid_step: float | None = None,
    ) -> np.ndarray:
        spend(self.units(seat, "train").manifest)
        if self.fail is not None:
            raise self.fail
        self.trained.append((run, slot))
        return (np.asarray(weights) * 2).astype(np.float32)

    def judge(self, seat: Any, weights: np.ndarray) -> tuple[float, bool]:
        self.judged += 1
        return 0.25, self.accept

    def gains(
        self, seat: Any, plan: Any, models: Sequence[np.ndarray], against: np.ndarray
    ) -> tuple[int, ...]:
        if self.fail is not None:
            raise self.fail
        self.weighed += 1
        return (self.found,) * len(models)


def write_recording(folder: Path, *, train: int = 4, held_out: int = 2, seed: int = 0) -> Path:
    """A LeRobot folder of synthetic attempts with canonical channel names."""
    sizes = {
        "tcp_pos": 3,
        "gripper_width": 1,
        "object_pos": 3,
        "goal_pos": 3,
        "tcp_pose_delta": 3,
        "gripper_cmd": 1,
    }
    names = lambda fields: tuple(f"{one}_{i}" for one in fields for i in range(sizes[one]))  # noqa: E731
    features = {
        "observation.state": Feature(names=names(OBSERVED)),
        "action": Feature(names=names(("tcp_pose_delta", "gripper_cmd"))),
    }
    frames = []
    for number in range(train + held_out):
        one = episode(number, frames=24, seed=seed)
        frames.append(
            Frames(
                task="pick-place",
                columns={
                    "observation.state": np.hstack([one.observation[name] for name in OBSERVED]),
                    "action": np.hstack([one.action[name] for name in ("tcp_pose_delta", "gripper_cmd")]),
                },
            )
        )
    write_dataset(
        folder,
        rate_hz=20,
        robot_type="6r-arm+parallel-gripper",
        features=features,
        episodes=frames,
        splits={"train": (0, train), "held-out": (train, train + held_out)},
    )
    return folder


def write_bare_recording(folder: Path, *, train: int = 4, held_out: int = 2, seed: int = 0) -> Path:
    """A LeRobot folder of an arm without a gripper: two joints that swing, and the velocities that moved them."""
    rng = np.random.default_rng([seed, 5])
    frames = []
    for _ in range(train + held_out):
        time, pace = np.arange(24) / 20, rng.uniform(1.0, 3.0, (1, 2))
        angle, speed = np.sin(time[:, None] * pace), pace * np.cos(time[:, None] * pace)
        columns = {"observation.state": np.hstack([angle, 5 * speed]), "action": speed}
        one = {name: values.astype(np.float32) for name, values in columns.items()}
        frames.append(Frames(task="swing", columns=one))
    write_dataset(
        folder,
        rate_hz=20,
        robot_type="6r-arm",
        features={
            "observation.state": Feature(
                names=("joint_pos_0", "joint_pos_1", "joint_torque_0", "joint_torque_1")
            ),
            "action": Feature(names=("joint_vel_0", "joint_vel_1")),
        },
        episodes=frames,
        splits={"train": (0, train), "held-out": (train, train + held_out)},
    )
    return folder


@dataclass
class World:
    """One node and its broker; `ask` is what a broker does in a round."""

    folder: Path
    recipe: Recipe = field(default_factory=small_recipe)
    changes: dict[str, Any] = field(default_factory=dict)
    clock: HandClock = field(default_factory=lambda: HandClock(BEFORE_MS))
    learner: Any = field(default_factory=FixedLearner)
    peers: tuple[str, ...] = ("nord", "iber")
    broker: BrokerSim = field(init=False)
    home: Home = field(init=False)
    member: Member = field(init=False)
    contract: Contract = field(init=False)
    negotiation: str = field(init=False)
    worker: Worker = field(init=False)

    def __post_init__(self) -> None:
        self.broker = BrokerSim(clock=self.clock)
        self.home = Home(self.folder / "node")
        initialise(self.home, entropy=SeedEntropy(b"init"), legal_name="Kita Robot KK", country="JP")
        join(
            self.home,
            URL,
            self.broker.invite(),
            clock=self.clock,
            entropy=SeedEntropy(b"join"),
            confirm=lambda _text: True,
            transport=self.broker.transport,
        )
        self.broker.approve()
        self.member = self.opened(b"member")
        membership(self.member)
        self.broker.annexes[self.recipe.digest] = self.recipe.canonical
        self.keys = {name: SigningKey.from_seed(name.encode().ljust(32, b"-")) for name in self.peers}
        self.offer()

    def opened(self, seed: bytes) -> Member:
        return open_member(
            self.home, clock=self.clock, entropy=SeedEntropy(seed), transport=self.broker.transport
        )

    def offer(self, **changes: Any) -> str:
        """The operator offers another draft; gives the id of its negotiation."""
        self.contract = self.draft(**changes)
        self.negotiation = self.put(self.contract)
        return self.negotiation

    def succeed(self, **changes: Any) -> str:
        """The operator offers a successor of the contract, in time to be signed and used."""
        later = {
            "version": self.contract.version + 1,
            "supersedes": self.contract.digest,
            "sign_by": "2027-03-01T00:00:00Z",
            "term.effective": "2027-03-02T00:00:00Z",
        }
        return self.offer(**(later | changes))

    def put(self, contract: Contract) -> str:
        """The broker offers this text."""
        return self.broker.lanes.offer(self.hold(contract).digest)

    def hold(self, contract: Contract) -> Contract:
        """The broker has this text, and offers it to nobody yet."""
        self.broker.contracts[contract.digest] = contract.canonical
        self.broker.prose[contract.digest] = PROSE
        return contract

    @property
    def talk(self) -> Talk:
        """The broker's side of the negotiation."""
        return self.broker.lanes.talks[self.negotiation]

    def draft(self, **changes: Any) -> Contract:
        tree = runnable()
        tree["test_only"] = True
        tree["prose"] = {
            "clause": "prose-1",
            "media_type": "application/pdf",
            "prevails": True,
            "sha256": hashlib.sha256(PROSE).hexdigest(),
        }
        keys = {
            "kita": self.member.identity.key.public,
            **{name: key.public for name, key in self.keys.items()},
            "broker": self.broker.key.public,
        }
        tree["parties"] = [one for one in tree["parties"] if one["party"] in keys]
        for one in tree["parties"]:
            one["key"] = key_text(keys[one["party"]])
            if one["party"] == "kita":
                one["org"] = self.member.identity.org
        tree["purposes"] = tree["purposes"][:1]
        recipe = tree["recipes"][0]
        recipe["recipe_digest"] = self.recipe.digest
        recipe["max_rounds"] = 500
        recipe["max_local_steps_per_round"] = 50
        recipe["datasets"] = [{"party": name, "dataset": f"{name}/pick"} for name in ("kita", *self.peers)]
        tree["recipes"] = [recipe]
        tree["fields"]["allow"] = list(FIELDS)
        tree["fields"]["trade_secret"] = []
        tree["privacy"]["per_party"] = []
        tree["privacy"]["epsilon_per_release"] = "8.5"
        tree["privacy"]["epsilon_total"] = "20"
        if self.recipe.plan is None:
            tree["privacy"] = {"clause": "dp-1", "mode": "none"}
        tree["tiers"] = [one for one in tree["tiers"] if one["tier"] in {"consortium", "private"}]
        tree["release"]["approvals"] = {"of": "contributors", "min": 2, "veto": ["party-kita"]}
        for path, value in (self.changes | changes).items():
            at = tree
            *parents, last = path.split(".")
            for part in parents:
                at = at[part]
            at[last] = value
        return from_tree(tree)

    def finalize(self) -> None:
        """Everybody else signs, the broker too."""
        _, own = self.broker.signatures[self.contract.digest][0]
        envelope = Envelope(payload_type=CONTRACT_TYPE, payload=self.contract.canonical, signatures=())
        envelope = envelope.with_signature(self.member.identity.key.public, own)
        for key in (*self.keys.values(), self.broker.key):
            signed = Envelope.seal(self.contract.canonical, CONTRACT_TYPE, key).signatures[0][1]
            envelope = envelope.with_signature(key.public, signed)
        self.broker.envelopes[self.contract.digest] = envelope
        self.broker.lanes.say(self.talk, "finalize")

    def outbox(self) -> Outbox:
        return Outbox(
            self.home.outbox,
            key=self.member.identity.key,
            origin=self.member.broker.origin,
            clock=self.clock,
            entropy=SeedEntropy(b"outbox"),
        )

    def shelf(self) -> ContractShelf:
        return ContractShelf(self.home, own_key=self.member.identity.key.public)

    def sign(self, **changes: Any) -> Any:
        outbox = self.outbox()
        try:
            return sign(
                self.member,
                self.shelf(),
                outbox,
                self.contract.digest,
                **({"confirm": YES, "acknowledge": YES, "prose": PROSE} | changes),
            )
        finally:
            outbox.close()

    def add_data(self, **changes: Any) -> Any:
        """Under the contract once everybody signed it; before that without one, for a draft gives no rights."""
        source = changes.pop("source", None) or write_recording(self.folder / "recording")
        if "contract" not in changes and self.contract.digest not in self.broker.envelopes:
            whole = Source(path=source)
            return add_alone(self.home, self.member.identity, whole, dataset="kita/pick", clock=self.clock)
        outbox = self.outbox()
        try:
            return data_add(
                self.member,
                self.shelf(),
                outbox,
                source,
                **(
                    {
                        "dataset": "kita/pick",
                        "signal_map": None,
                        "contract": self.contract.digest,
                        "rules": load_settings(self.home, {}).local,
                        "publish": True,
                    }
                    | changes
                ),
            )
        finally:
            outbox.close()

    def ready(self, *, executed: bool = True) -> World:
        """Contract signed by all, data imported, in term, worker composed."""
        self.sign()
        if executed:
            self.finalize()
        self.add_data()
        self.clock.ms = IN_TERM_MS
        self.start()
        return self

    def start(self) -> Worker:
        self.worker = Worker(
            self.home,
            clock=self.clock,
            entropy=SeedEntropy(b"worker" + str(self.clock.ms).encode()),
            member=self.opened(b"start" + str(self.clock.ms).encode()),
            learner=self.learner,
        )
        return self.worker

    def restart(self) -> Worker:
        self.worker.close()
        self.clock.ms += 1
        return self.start()

    def rules(self, **changes: Any) -> None:
        settings = load_settings(self.home, {})
        save_settings(self.home, type(settings)(**{**_fields(settings), "local": LocalRules(**changes)}))

    def weights(self, value: float = 1.0) -> np.ndarray:
        return np.full(self.recipe.parameters, value, dtype=np.float32)

    def ask(
        self,
        kind: ExchangeType = ExchangeType.CONTRIBUTE,
        *,
        round: int = 1,  # noqa: A002  the header's own word
        attempt: int = 1,
        run: str = RUN,
        weights: np.ndarray | None = None,
        body: dict[str, Any] | None = None,
        key: SigningKey | None = None,
        recipe: str | None = None,
    ) -> tuple[Answer, ReplyHeader]:
        """One request of a plain round, and the opened reply."""
        tensor = None if kind is ExchangeType.PING else (self.weights() if weights is None else weights)
        spec: TensorSpec | None = None if tensor is None else tensor_spec(tensor)
        plan = self.recipe.plan
        given: dict[str, Any] = {
            "log": self.broker.log.news(self.worker.outbox.shown.seen().size),
            "receipts": [],
        }
        if kind is ExchangeType.CONTRIBUTE:
            given |= {"plan": plan.digest if plan else None, "base_model": spec.digest if spec else None}
        if kind is ExchangeType.JUDGE:
            given |= {
                "candidate": spec.digest if spec else None,
                "plan": self.recipe.evaluation.digest,
                "final": True,
            }
        return self.send(
            kind,
            round=round,
            attempt=attempt,
            run=run,
            tensor=tensor,
            body=given | (body or {}),
            key=key,
            recipe=recipe,
        )

    def send(
        self,
        kind: ExchangeType,
        *,
        round: int,  # noqa: A002  the header's own word
        attempt: int,
        body: dict[str, Any],
        tensor: np.ndarray | None = None,
        run: str = RUN,
        key: SigningKey | None = None,
        recipe: str | None = None,
    ) -> tuple[Answer, ReplyHeader]:
        """Any request as the fleet loop hands it to the desk, and the opened reply."""
        config = RunConfig(run=run, contract=self.contract.digest, recipe=recipe or self.recipe.digest)
        admission = self.worker.admit(config)
        header = seal_request(
            key or self.broker.key,
            contract=self.contract.digest,
            recipe=config.recipe,
            run=run,
            round=round,
            attempt=attempt,
            type=kind,
            node=self.member.identity.node,
            deadline_ms=self.clock.ms + 60_000,
            tensor=None if tensor is None else tensor_spec(tensor),
            body=body,
        )
        self.pulled = 0

        def pull(wanted: TensorSpec) -> bytes:
            self.pulled += wanted.size_bytes
            assert tensor is not None
            return tensor_bytes(tensor)

        answer = self.worker.desk.answer(
            config, admission, header, kind=kind.value, slot=(round, attempt), pull=pull, confirm=lambda: None
        )
        reply = open_reply(answer.header, self.member.identity.key.public)
        assert reply.request == open_request(header, (key or self.broker.key).public).digest
        return answer, reply

    def log_reply(self, reply: ReplyHeader) -> list[dict[str, str]]:
        """What a broker does with the envelopes of a reply; gives their receipts at the head."""
        key = self.member.identity.key.public
        indexes = [
            self.broker.take(Envelope.from_json(one), key=key) for one in reply.body.get("envelopes", [])
        ]
        return [self.broker.log.receipt(index) for index in indexes]


def template(**named: Any) -> World:
    """A world that is ready to be started; tests get copies."""
    folder = Path(tempfile.mkdtemp(prefix="iriai-node-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    world = World(folder, **named)
    world.sign()
    world.finalize()
    world.add_data()
    world.member.client.close()
    return world


_template = functools.cache(template)


def ready_world(folder: Path) -> World:
    """A node with data and a contract that everybody signed, in term, its worker composed."""
    return copied(_template(), folder)


def copied(template: World, folder: Path) -> World:
    """A copy of a template, in term, its worker composed."""
    world = copy.copy(template)
    world.folder, world.home = folder, Home(folder / "node")
    shutil.copytree(template.home.root, world.home.root)
    world.broker, world.learner = template.broker.copy(), FixedLearner()
    world.clock = world.broker.clock
    world.member = world.opened(b"copy")
    world.clock.ms = IN_TERM_MS
    world.start()
    return world


def _fields(settings: Any) -> dict[str, Any]:
    return {name: getattr(settings, name) for name in settings.__slots__}


def plain_world(folder: Path) -> World:
    """A world whose recipe has no privacy plan, under a contract that permits it."""
    return World(folder, recipe=small_plain())


def kinds(reply: ReplyHeader) -> list[str]:
    return [json.loads(Envelope.from_json(one).payload)["kind"] for one in reply.body.get("envelopes", [])]


def sha(text: str) -> str:
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
