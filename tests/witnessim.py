# SPDX-License-Identifier: Apache-2.0
"""Four makers' nodes that witness one broker's log, in one process: the real broker, real files, a clock by hand.

`WitnessPool` lets them join and gives all of them one executed contract. `turn` is one turn of a node's witness; a node that is away is
not turned. `split` makes a second broker with the same keys and the same past.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx

from client.contract.notices import Notices
from client.contract.shelf import ContractShelf, Held
from client.identity import load_identity
from client.membership import Member, initialise, join, membership, open_member
from client.outbox import Outbox
from client.receipts import LogView, fetch_consistency
from client.settings import Home
from client.witnessing.alarms import Alarms
from client.witnessing.loop import Watch
from client.witnessing.trust import Trust
from client.witnessing.vouching import Standing, Vouching
from policies.contract import CONTRACT_TYPE, Contract, from_tree
from policies.identity import key_text
from policies.log.entries import alias, from_envelope
from policies.log.envelope import open_envelope
from policies.log.vkeys import VerifierKey
from policies.signing import Envelope
from tests.brokersim import ORIGIN, URL, HandClock, SeedEntropy
from tests.contractsim import runnable
from tests.nodehouse import Street

MAKERS = ("kita", "nord", "iber", "hanbit")


class Killed(BaseException):
    """The process ends here."""


class Way(httpx.BaseTransport):
    """The way to whichever broker a node talks to now; ``before`` may look at a request, or end the process."""

    def __init__(self, street: Street) -> None:
        self.street = street
        self.before: Callable[[httpx.Request], None] = lambda _request: None
        self.asked: list[str] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.before(request)
        self.asked.append(request.url.path)
        return self.street.transport.handle_request(request)


@dataclass
class WitnessNode:
    """One maker's node: its folder and what its witness thread holds."""

    name: str
    home: Home
    clock: HandClock
    way: Way
    member: Member = field(init=False)
    outbox: Outbox = field(init=False)
    trust: Trust = field(init=False)
    watch: Watch = field(init=False)
    vouching: Vouching = field(init=False)
    starts: int = 0

    def start(self) -> None:
        """Opens everything, as the thread does when the process begins."""
        self.starts += 1
        self.member = open_member(self.home, clock=self.clock, entropy=self._entropy(), transport=self.way)
        identity = self.member.identity
        self.outbox = Outbox(
            self.home.outbox, key=identity.key, origin=ORIGIN, clock=self.clock, entropy=self._entropy()
        )
        shelf = ContractShelf(self.home, own_key=identity.key.public)
        log_key = VerifierKey.parse(self.member.broker.log_vkey)
        self.trust = Trust(self.home, shelf, Notices(shelf), log_key=log_key, broker=self.member.broker.key)
        self.watch = Watch(self.member, self.outbox, self.trust)
        self.vouching = Vouching(self.outbox, self.trust, self.clock)
        self.alarms = Alarms(self.vouching, self.trust, self.clock)

    def _entropy(self) -> SeedEntropy:
        return SeedEntropy(f"{self.name} {self.starts}".encode())

    def restart(self) -> None:
        self.close()
        self.start()

    def close(self) -> None:
        self.outbox.close()
        self.member.client.close()

    def turn(self) -> bool:
        return self.watch.turn(wait_s=0)

    @property
    def held(self) -> Held:
        (found,) = self.trust.contracts()
        return found

    @property
    def standing(self) -> Standing:
        return self.vouching.standing(self.held)


class WitnessPool:
    """See the module."""

    def __init__(self, folder: Path, *, k: int = 3) -> None:
        self.folder = folder
        self.street = Street(folder / "broker")
        self.house = self.street.house
        self.clock = self.house.clock
        self.streets = [self.street]
        self.nodes = {name: self._joined(name) for name in MAKERS}
        self.contract = self._contract(k)
        for node in self.nodes.values():
            self._give(node)
            node.start()

    def _joined(self, name: str) -> WitnessNode:
        home, way = Home(self.folder / name), Way(self.street)
        initialise(home, entropy=SeedEntropy(name.encode()), legal_name=f"{name} GmbH", country="DE")
        token = self.street.run(self.house.alice.invite(f"{name} GmbH", "DE", name))
        join(
            home,
            URL,
            token,
            clock=self.clock,
            entropy=SeedEntropy(b"join" + name.encode()),
            confirm=lambda _text: True,
            transport=way,
        )
        for who in (self.house.alice, self.house.bob):
            assert self.street.run(who.approve(load_identity(home).org)).status_code == 200
        member = open_member(
            home, clock=self.clock, entropy=SeedEntropy(b"first" + name.encode()), transport=way
        )
        membership(member)
        member.client.close()
        return WitnessNode(name, home, self.clock, way)

    def _contract(self, k: int) -> Contract:
        tree: dict[str, Any] = runnable(ORIGIN)
        broker = next(one for one in tree["parties"] if one["role"] == "broker")
        broker["key"] = key_text(self.house.services.keys.broker.public)
        tree["parties"] = [broker]
        for node in self.nodes.values():
            identity = load_identity(node.home)
            tree["parties"].append(
                {
                    "clause": f"party-{node.name}",
                    "party": node.name,
                    "org": identity.org,
                    "role": "contributor",
                    "group": node.name,
                    "legal_name": f"{node.name} GmbH",
                    "country": "DE",
                    "key": key_text(identity.key.public),
                }
            )
        tree["purposes"] = tree["purposes"][:1]
        tree["recipes"] = tree["recipes"][:1]
        datasets = [{"party": name, "dataset": f"{name}/pick"} for name in self.nodes]
        tree["recipes"][0]["datasets"] = datasets
        tree["fields"]["trade_secret"] = []
        tree["privacy"]["per_party"] = []
        tree["tiers"] = [one for one in tree["tiers"] if one["tier"] in {"consortium", "private"}]
        tree["release"]["approvals"] = {"of": "contributors", "min": 2, "veto": ["party-kita"]}
        tree["audit"]["witness_quorum"] = k
        return from_tree(tree)

    def _give(self, node: WitnessNode) -> None:
        keys = [load_identity(one.home).key for one in self.nodes.values()]
        envelope = Envelope.seal(
            self.contract.canonical, CONTRACT_TYPE, *keys, self.house.services.keys.broker
        )
        shelf = ContractShelf(node.home, own_key=load_identity(node.home).key.public)
        shelf.put(self.contract, {})
        shelf.put_envelope(self.contract.digest, envelope)

    def grow(self, entries: int = 1, *, street: Street | None = None) -> int:
        """So many new entries; gives the size of the log."""
        at = street or self.street
        for _ in range(entries):
            at.run(at.house.alice.invite("Somebody GmbH", "DE", "somebody"))
        return at.house.services.writer.head().size

    def envelope_of(self, name: str) -> int:
        """An envelope of a node goes into the log, and its signed receipt comes back; gives the entry's index."""
        node = self.nodes[name]
        body = {"subject": "sha256:" + "1" * 64, "vote": "approve", "clause": None}
        with node.outbox.writing() as letters:
            envelope = letters.seal("vote.cast", body=body, scope=self.contract.digest, run="run_" + "a" * 16)
        payload = open_envelope(envelope, node.member.identity.key.public)
        actor = alias(bytes(32), payload["scope"], payload["run"], payload["round"])
        event = from_envelope(envelope, payload, actor=actor)
        services = self.house.services

        async def work() -> int:
            index, _ = await services.writer.run(lambda _session, tx: tx.add(event))
            return index

        index = self.street.run(work())
        view = LogView(node.outbox, node.member.broker.log_vkey, fetch=fetch_consistency(node.member.client))
        view.news(None, [services.receipt_json(index)])
        return index

    def turn(self, *names: str) -> None:
        """One turn of each of these witnesses, of all of them by default."""
        for name in names or MAKERS:
            self.nodes[name].turn()

    def settle(self, *names: str) -> None:
        """Enough turns for everybody to know of the quorum."""
        for _ in range(3):
            self.turn(*names)

    def split(self) -> Street:
        """A second broker with the same keys, and the past that there is now."""
        copy = self.folder / f"broker-{len(self.streets)}"
        shutil.copytree(self.folder / "broker", copy)
        street = Street(copy)
        street.house.clock.ms = self.clock.ms
        street.house.alice.entropy = SeedEntropy(str(copy).encode())
        self.streets.append(street)
        return street

    def close(self) -> None:
        for node in self.nodes.values():
            node.close()
        for street in reversed(self.streets):
            street.close()


@contextmanager
def witness_pool(folder: Path, *, k: int = 3) -> Iterator[WitnessPool]:
    pool = WitnessPool(folder, k=k)
    try:
        yield pool
    finally:
        pool.close()
