# SPDX-License-Identifier: Apache-2.0
"""A whole broker in one process, with the operators and nodes that talk to it over HTTP. Everybody signs for real.

`House` is the application of `broker.app` behind `httpx.ASGITransport`, its databases in a folder, its writer inline. `OperatorSim` and
`NodeSim` build and sign requests as the two command lines do, and can be told to do it wrong.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from broker.app import PublicPort, build
from broker.auth.proposals import PROPOSAL_TYPE
from broker.boot import initialise, open_services
from broker.fleet import NoFleet
from broker.membership.approvals import APPROVAL_TYPE
from broker.services import Services
from policies.contract import Contract, from_tree
from policies.encoding import b64, canonical, digest, new_id, parse, unb64
from policies.identity import SigningKey, key_text
from policies.log.entries import EntryType, alias, check_entry
from policies.log.envelope import ChainState, Seen, open_envelope, seal_envelope
from policies.log.merkle import EMPTY_ROOT
from policies.signing import Envelope, sign_request
from sandbox.recipes import private_recipe
from tests import documented, pgserver
from tests.contractsim import runnable
from tests.lanesim import contract_signature, spoken, warnings_of

URL = "https://127.0.0.1:7443"
ORIGIN = "pool.example/log/test"
START_MS = 1_790_000_000_000  # 2026-09-21
RECIPE = private_recipe("1.5")  # the caps of `draft` hold a run of it
EMPTY = Seen(size=0, root=EMPTY_ROOT)
DOCUMENTED: dict[str, list[Callable[..., Any]]] = {"response": [documented.check]}
"""Every answer of a broker is held against its OpenAPI document."""


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, now_ms: int = START_MS) -> None:
        self.ms = now_ms

    def now_ms(self) -> int:
        return self.ms

    def pause_ms(self, milliseconds: int) -> None:
        self.ms += milliseconds


class SeedEntropy:
    """Bytes from a seed."""

    def __init__(self, seed: bytes = b"test") -> None:
        self.seed = seed
        self.drawn = 0

    def token_bytes(self, size: int) -> bytes:
        self.drawn += 1
        return hashlib.shake_256(self.seed + self.drawn.to_bytes(8, "big")).digest(size)


@dataclass
class House:
    """A broker that is open."""

    services: Services
    port: PublicPort
    http: httpx.AsyncClient
    clock: HandClock
    fleet: NoFleet
    alice: OperatorSim = field(init=False)
    bob: OperatorSim = field(init=False)
    second_person: bool = True
    """Whether what waits for a second person of the broker is approved at once: a text that is offered, or signed."""

    def __post_init__(self) -> None:
        self.alice = OperatorSim(self, "alice")
        self.bob = OperatorSim(self, "bob")

    def entries(self, kind: EntryType | None = None) -> list[Any]:
        """Checked entries of the log, of one type if asked."""
        receipts = self.services.writer.receipts
        found = [check_entry(receipts.body(index)) for index in range(receipts.head().size)]
        return [one for one in found if kind is None or one.type is kind]

    def kinds(self) -> list[str]:
        return [one.type.value for one in self.entries()]

    def waiting(self, kind: str | None = None) -> list[dict[str, Any]]:
        """Proposals that wait for somebody, of one kind if asked."""
        with self.services.store.read() as session:
            found = self.services.acts.proposals.open(session, self.clock.ms)
        return [one.to_json(self.clock.ms) for one in found if kind in {None, one.kind}]

    async def settle(self, contract: str) -> None:
        """Both operators stand behind a text, as far as it waits for them."""
        for one in self.waiting("contract.activate"):
            if one["what"]["contract"] == contract:
                names = {by["name"] for by in one["behind"]}
                for who in (self.alice, self.bob):
                    if who.name not in names:
                        answer = await who.agree(one)
                        assert answer.status_code == 200, answer.text

    async def remove(self, org: str, *, reason: str = "key-lost", left: bool = False) -> httpx.Response:
        """Ends a membership: alice proposes it, bob approves; the answer is the approval's."""
        made = await self.alice.post(
            f"/operator/organisations/{org}/revoke", {"reason": reason, "left": left}
        )
        assert made.status_code == 202, made.text
        return await self.bob.agree(made.json()["proposal"])

    async def member(
        self, name: str, *, legal_name: str = "", country: str = "DE", group: str = ""
    ) -> NodeSim:
        """A node that joined and was approved by both."""
        node = NodeSim(self, name)
        token = await self.alice.invite(legal_name or f"{name.title()} GmbH", country, group or name)
        answer = await node.join(token)
        assert answer.status_code == 200, answer.text
        for who in (self.alice, self.bob):
            assert (await who.approve(node.org)).status_code == 200
        await node.me()
        return node


@contextlib.asynccontextmanager
async def open_house(
    folder: Path, *, clock: HandClock | None = None, database: str = "sqlite"
) -> AsyncIterator[House]:
    """Makes or reopens a broker in a folder and serves it in this process."""
    clock = clock or HandClock()
    entropy = SeedEntropy(str(folder).encode())
    _copy_template(folder, database)
    fleet = NoFleet()
    services = open_services(folder, clock=clock, entropy=entropy, engine=fleet, threaded=False)
    port = build(services)
    transport = httpx.ASGITransport(app=port, raise_app_exceptions=False)
    try:
        async with (
            port.app.router.lifespan_context(port.app),
            httpx.AsyncClient(transport=transport, base_url=URL, event_hooks=DOCUMENTED) as http,
        ):
            yield House(services=services, port=port, http=http, clock=clock, fleet=fleet)
    finally:
        services.close()


@contextlib.contextmanager
def statements(house: House, heard: Callable[[str], None]) -> Iterator[None]:
    """Calls ``heard`` before each statement that the writer's three databases execute, ``COMMIT`` among them."""
    store = house.services.store
    engines = (store.main, store.private, store.signer)
    drivers = [engine.raw_connection().driver_connection for engine in engines]
    for one in drivers:
        one.set_trace_callback(heard)
    try:
        yield
    finally:
        for one in drivers:
            one.set_trace_callback(None)


def _copy_template(folder: Path, database: str) -> None:
    if not folder.exists():
        shutil.copytree(_template(), folder)
        pgserver.move(folder, database)


@functools.cache
def _template() -> Path:
    """A fresh broker's folder, made once per process; every test starts from a copy."""
    folder = Path(tempfile.mkdtemp(prefix="iriai-broker-")) / "broker"
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    initialise(
        folder,
        url=URL,
        operators={name: operator_key(name).public for name in ("alice", "bob")},
        clock=HandClock(),
        entropy=SeedEntropy(b"template"),
        origin=ORIGIN,
    )
    return folder


def operator_key(name: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(f"operator {name}".encode()).digest())


class Signer:
    """Whoever sends signed requests."""

    def __init__(self, house: House, key: SigningKey, seed: str) -> None:
        self.house = house
        self.key = key
        self.entropy = SeedEntropy(seed.encode())

    def signed(self, method: str, path: str, body: bytes = b"", **changes: Any) -> httpx.Request:
        """A signed request; ``changes`` replace arguments of `sign_request`."""
        url = URL + "/api/v1" + path
        fields: dict[str, Any] = {
            "method": method,
            "url": url,
            "body": body,
            "now_ms": self.house.clock.ms,
            "nonce16": self.entropy.token_bytes(16),
            "idempotency_key": self.entropy.token_bytes(8).hex() if method == "POST" else None,
        }
        headers = sign_request(self.key, **(fields | changes))
        return httpx.Request(method, url, content=body, headers=headers)

    async def get(self, path: str, **changes: Any) -> httpx.Response:
        return await self.house.http.send(self.signed("GET", path, **changes))

    async def post(self, path: str, body: Any, **changes: Any) -> httpx.Response:
        return await self.house.http.send(self.signed("POST", path, canonical(body), **changes))


class OperatorSim(Signer):
    """An operator with a key file of their own."""

    def __init__(self, house: House, name: str) -> None:
        super().__init__(house, operator_key(name), f"operator {name}")
        self.name = name

    async def invite(self, legal_name: str = "Kita GmbH", country: str = "DE", group: str = "kita") -> str:
        answer = await self.post(
            "/operator/invites", {"legal_name": legal_name, "country": country, "group": group}
        )
        assert answer.status_code == 201, answer.text
        return str(answer.json()["invite"])

    async def subject(self, org: str) -> bytes:
        listed = (await self.get("/operator/organisations")).json()["organisations"]
        one = next(one for one in listed if one["org"] == org)
        return canonical(
            {
                "org": one["org"],
                "node": one["node"],
                "node_key": one["node_key"],
                "fleet_key": one["fleet_key_pem"],
                "name": one["legal_name"],
                "group": one["group"],
                "country": one["country"],
            }
        )

    async def approve(
        self, org: str, *, subject: bytes | None = None, key: SigningKey | None = None
    ) -> httpx.Response:
        subject = subject or await self.subject(org)
        signature = Envelope.seal(subject, APPROVAL_TYPE, key or self.key).signatures[0][1]
        return await self.post(
            f"/operator/organisations/{org}/approve",
            {"subject_digest": digest(subject), "signature": b64(signature)},
        )

    async def offer(
        self,
        contract: Contract | str,
        recipes: tuple[bytes, ...] = (RECIPE,),
        annexes: tuple[bytes, ...] = (),
    ) -> httpx.Response:
        text = contract if isinstance(contract, str) else contract.canonical.decode()
        body: dict[str, Any] = {"contract": text, "recipes": [b64(one) for one in recipes]}
        answer = await self.post(
            "/operator/contracts", body | ({"annexes": [b64(one) for one in annexes]} if annexes else {})
        )
        if answer.status_code == 201 and self.house.second_person:
            await self.house.settle(answer.json()["digest"])
        return answer

    async def agree(self, proposal: dict[str, Any], **changes: Any) -> httpx.Response:
        """Approves a proposal as it was shown; ``changes`` replace what is sent, ``key`` who signs the subject."""
        key = changes.pop("key", self.key)
        signature = Envelope.seal(unb64(proposal["subject"]), PROPOSAL_TYPE, key).signatures[0][1]
        body = {"digest": proposal["digest"], "signature": b64(signature)} | changes
        return await self.post(f"/operator/proposals/{proposal['id']}/approve", body)


class NodeSim(Signer):
    """A manufacturer's node: keys, requests, one chain of envelopes."""

    def __init__(self, house: House, name: str) -> None:
        seed = hashlib.sha256(f"node {name}".encode()).digest()
        super().__init__(house, SigningKey.from_seed(seed), f"node {name}")
        self.name = name
        self.org = new_id("org", seed[:10])
        self.node = new_id("node", seed[10:20])
        scalar = int.from_bytes(seed, "big") >> 1 or 1
        self.fleet_pem = (
            ec.derive_private_key(scalar, ec.SECP256R1())
            .public_key()
            .public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            .decode("ascii")
        )
        self.alias_key = b""
        self.chain = ChainState(chain=seed[:8].hex())

    def join_body(self, token: str, **changes: Any) -> dict[str, Any]:
        return {
            "invite_secret": parse(unb64(token))["secret"],
            "org": self.org,
            "node": self.node,
            "node_key": key_text(self.key.public),
            "fleet_key_pem": self.fleet_pem,
            **changes,
        }

    async def join(self, token: str, **changes: Any) -> httpx.Response:
        return await self.post("/membership/join", self.join_body(token, **changes))

    async def me(self) -> dict[str, Any]:
        answer = (await self.get("/membership/me")).json()
        if "alias_key" in answer:
            self.alias_key = unb64(answer["alias_key"])
        return answer

    def seal(
        self, kind: EntryType, body: dict[str, Any], *, scope: str, run: str | None = None, **changes: Any
    ) -> Envelope:
        """The next envelope of the chain; the chain moves on, as an outbox does before it sends."""
        envelope = seal_envelope(
            self.key,
            **(
                {
                    "log": ORIGIN,
                    "kind": kind,
                    "chain": self.chain.chain,
                    "seq": self.chain.next_seq,
                    "prev": self.chain.prev,
                    "seen": EMPTY,
                    "time_ms": self.house.clock.ms,
                    "nonce": self.entropy.token_bytes(16),
                    "scope": scope,
                    "run": run,
                    "round": None,
                    "ack": None,
                    "body": body,
                }
                | changes
            ),
        )
        self.chain = self.chain.accept(open_envelope(envelope, self.key.public))
        return envelope

    async def view(self, contract: Contract | str, **query: Any) -> dict[str, Any]:
        """The negotiation of a contract (or of an id) as this node sees it."""
        name = contract if isinstance(contract, str) else await self.negotiation(contract)
        asked = "&".join(f"{key}={value}" for key, value in query.items())
        answer = await self.get(f"/negotiations/{name}" + (f"?{asked}" if asked else ""))
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def negotiation(self, contract: Contract) -> str:
        """Id of the negotiation in which a contract is, or was, the open text."""
        listed = (await self.get("/contracts")).json()["contracts"]
        return str(next(one for one in listed if one["digest"] == contract.digest)["negotiation"])

    def signature_body(
        self, contract: Contract, acknowledged: tuple[str, ...] | None = None
    ) -> dict[str, Any]:
        """What a verify carries besides its message; every warning is acknowledged unless a test says which."""
        own: dict[str, Any] = {
            "contract": contract.digest,
            "party": alias(self.alias_key, contract.digest, None, None),
        }
        said = warnings_of(contract) if acknowledged is None else acknowledged
        own |= {"acknowledged": list(said)} if said else {}
        envelope = self.seal(EntryType.CONTRACT_SIGNED, own, scope=contract.digest)
        return {"signature": contract_signature(contract, self.key), "envelope": envelope.to_json()}

    async def say(
        self, view: dict[str, Any], kind: str, *, body: dict[str, Any] | None = None, **changes: Any
    ) -> httpx.Response:
        """Posts the next message of the view's lane; ``changes`` replace its fields."""
        message = spoken(view, kind, self.key, now_ms=self.house.clock.ms, **changes)
        return await self.post(
            f"/negotiations/{view['id']}/messages", {"message": message.to_json(), **(body or {})}
        )

    async def accept(self, contract: Contract) -> httpx.Response:
        return await self.say(await self.view(contract), "accept")

    async def verify(self, contract: Contract, **changes: Any) -> httpx.Response:
        if self.house.second_person:
            await self.house.settle(contract.digest)
        return await self.say(
            await self.view(contract), "verify", body=self.signature_body(contract) | changes
        )

    async def counter(
        self, view: dict[str, Any], contract: Contract, recipes: tuple[bytes, ...] = (), **changes: Any
    ) -> httpx.Response:
        body = {"contract": contract.canonical.decode(), "recipes": [b64(one) for one in recipes]}
        return await self.say(view, "request", body=body, digest=contract.digest, **changes)

    async def refuse(self, contract: Contract, **changes: Any) -> httpx.Response:
        return await self.say(await self.view(contract), "terminate", **changes)

    async def sign(self, contract: Contract) -> httpx.Response:
        """What can be done now: accepts what is offered, verifies what is agreed."""
        view = await self.view(contract)
        if view["lane"]["state"] == "OFFERED":
            answer = await self.say(view, "accept")
            view = answer.json()
            if answer.status_code != 200 or view["lane"]["state"] != "AGREED":
                return answer
        if self.house.second_person:
            await self.house.settle(contract.digest)
        return await self.say(view, "verify", body=self.signature_body(contract))


def draft(house: House, nodes: list[NodeSim], **changes: Any) -> Contract:
    """A contract of these nodes and the broker over one recipe, as an author would write it."""
    tree = runnable(ORIGIN)
    for node in nodes:
        member = house.services.directory.member(node.org)
        tree["parties"] = [one for one in tree["parties"] if one["party"] != node.name]
        tree["parties"].append(
            {
                "clause": f"party-{node.name}",
                "party": node.name,
                "org": node.org,
                "role": "contributor",
                "group": member.group,
                "legal_name": member.legal_name,
                "country": member.country,
                "key": key_text(node.key.public),
            }
        )
    names = [node.name for node in nodes]
    for party in tree["parties"]:
        if party["role"] == "broker":
            party["key"] = key_text(house.services.keys.broker.public)
    tree["parties"] = [one for one in tree["parties"] if one["role"] == "broker" or one["party"] in names]
    tree["purposes"] = tree["purposes"][:1]
    recipe = tree["recipes"][0]
    recipe["recipe_digest"] = digest(RECIPE)
    recipe["datasets"] = [{"party": name, "dataset": f"{name}/pick"} for name in names]
    tree["recipes"] = [recipe]
    tree["fields"]["trade_secret"] = []
    tree["privacy"]["per_party"] = []
    tree["tiers"] = [one for one in tree["tiers"] if one["tier"] in {"consortium", "private"}]
    tree["release"]["approvals"] = {"of": "contributors", "min": 2, "veto": [f"party-{names[0]}"]}
    return from_tree(tree | changes)


async def pool(house: House, *names: str) -> list[NodeSim]:
    """Members, approved."""
    return [await house.member(name) for name in names or ("kita", "nord", "iber")]


async def final_contract(house: House, nodes: list[NodeSim], **changes: Any) -> Contract:
    """A contract that everybody signed."""
    contract = draft(house, nodes, **changes)
    answer = await house.alice.offer(contract)
    assert answer.status_code == 201, answer.text
    await all_sign(nodes, contract)
    return contract


async def all_sign(nodes: list[NodeSim], contract: Contract) -> None:
    """Everybody accepts, then everybody verifies."""
    for node in nodes:
        answer = await node.accept(contract)
        assert answer.status_code == 200, answer.text
    for node in nodes:
        answer = await node.verify(contract)
        assert answer.status_code == 200, answer.text
    assert answer.json()["state"] == "finalized"
