# SPDX-License-Identifier: Apache-2.0
"""The node's counterparty: a broker with real keys, a real log and the routes that a node calls, in one process."""

from __future__ import annotations

import base64
import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import httpx

from broker.tls import TlsMaterial, make_certificate
from policies.encoding import b64, canonical, digest, parse, unb64
from policies.errors import IriaiError
from policies.identity import SigningKey, key_text, parse_key
from policies.log.checkpoint import Checkpoint, VerifierKey, sign_checkpoint
from policies.log.entries import EntryType, Event, alias, entry_body, event_id, from_envelope, private_values
from policies.log.envelope import ChainState, open_envelope
from policies.log.merkle import consistency_proof, inclusion_proof, leaf_hash, root_from_leaves
from policies.log.proofs import receipt_text
from policies.ports import iso_s
from policies.signing import Envelope, claimed_key_id, verify_request
from tests.nodelanes import NodeLanes

ORIGIN = "pool.example/log/test"
URL = "https://127.0.0.1:7443"
START_MS = 1_790_000_000_000


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
        out = b""
        while len(out) < size:
            out += hashlib.sha256(self.seed + self.drawn.to_bytes(8, "big")).digest()
            self.drawn += 1
        return out[:size]


@dataclass
class LogSim:
    """An append-only log in memory. `fork` gives another history from some size on, under the same key."""

    clock: HandClock
    entropy: SeedEntropy = field(default_factory=lambda: SeedEntropy(b"log"))
    key: SigningKey = field(default_factory=lambda: SigningKey.from_seed(b"L" * 32))
    bodies: list[bytes] = field(default_factory=list)
    ids: dict[bytes, int] = field(default_factory=dict)
    chains: dict[str, ChainState] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.bodies:
            self.add(
                Event(
                    type=EntryType.LOG_GENESIS,
                    pub={"software": "0.1.0", "policy": digest(b"policy"), "predecessor": None},
                )
            )

    @property
    def vkey(self) -> str:
        return VerifierKey(ORIGIN, self.key.public).text()

    @property
    def size(self) -> int:
        return len(self.bodies)

    def add(self, event: Event) -> int:
        known = self.ids.get(event_id(event))
        if known is not None:
            return known
        if event.envelope is not None:
            payload = parse(event.envelope.payload)
            chain = payload["chain"]
            self.chains[chain] = self.chains.get(chain, ChainState(chain=chain)).accept(payload)
            seen = payload["seen"]
            assert unb64(seen["root"]) == root_from_leaves(self._leaves()[: seen["size"]])
        salts = {name: self.entropy.token_bytes(16) for name in private_values(event, self.clock.ms)}
        self.bodies.append(entry_body(event, log=ORIGIN, now_ms=self.clock.ms, salts=salts))
        self.ids[event_id(event)] = self.size - 1
        return self.size - 1

    def noise(self, number: int) -> int:
        return self.add(
            Event(
                type=EntryType.CONSOLE_ACTION,
                pub={
                    "operator": "op",
                    "action": "test",
                    "subject": None,
                    "result": "done",
                    "request": digest(str(number).encode()),
                },
            )
        )

    def _leaves(self) -> list[bytes]:
        return [leaf_hash(body) for body in self.bodies]

    def _fetch(self, start: int, end: int) -> list[bytes]:
        return self._leaves()[start:end]

    def note(self, size: int | None = None) -> str:
        size = self.size if size is None else size
        return sign_checkpoint(self.key, Checkpoint(ORIGIN, size, root_from_leaves(self._leaves()[:size])))

    def news(self, old: int, new: int | None = None) -> dict[str, Any]:
        """What a request header's body holds as ``log``."""
        new = self.size if new is None else new
        proof = [] if old == 0 else consistency_proof(old, new, self._fetch)
        return {"note": self.note(new), "proof": [b64(one) for one in proof], "old_size": old}

    def receipt(self, index: int, size: int | None = None) -> dict[str, str]:
        size = self.size if size is None else size
        proof = inclusion_proof(index, size, self._fetch)
        text = receipt_text(index=index, proof=proof, note=self.note(size))
        return {"entry": self.bodies[index].decode(), "proof": text}

    def fork(self, keep: int) -> LogSim:
        return LogSim(clock=self.clock, entropy=SeedEntropy(b"fork"), key=self.key, bodies=self.bodies[:keep])


class RefusedBySimError(IriaiError):
    """A refusal of the simulated broker."""

    code = "sim.refused"
    exit_code = 4
    http_status = 403


@dataclass
class BrokerSim:
    """Broker of one member; ``handler`` is the application for `httpx.MockTransport`."""

    clock: HandClock = field(default_factory=HandClock)
    url: str = URL
    key: SigningKey = field(default_factory=lambda: SigningKey.from_seed(b"B" * 32))
    tls: TlsMaterial = field(init=False)
    log: LogSim = field(init=False)
    members: dict[bytes, dict[str, Any]] = field(default_factory=dict)
    contracts: dict[str, bytes] = field(default_factory=dict)
    annexes: dict[str, bytes] = field(default_factory=dict)
    envelopes: dict[str, Envelope] = field(default_factory=dict)
    signatures: dict[str, list[tuple[bytes, bytes]]] = field(default_factory=dict)
    routes: dict[str, Callable[[httpx.Request, Any], Any]] = field(default_factory=dict)
    seen_requests: list[tuple[str, str, bytes]] = field(default_factory=list)
    partial: dict[str, Envelope] = field(default_factory=dict)
    prose: dict[str, bytes] = field(default_factory=dict)
    answers: dict[str, bytes] = field(default_factory=dict)
    nonces: set[str] = field(default_factory=set)
    down: bool = False
    lost: int = 0  # so many answers to changes are lost after their effect

    def __post_init__(self) -> None:
        self.tls = make_certificate(self.url, clock=self.clock, entropy=SeedEntropy(b"tls"))
        self.log = LogSim(self.clock)
        self.lanes = NodeLanes(self)

    def copy(self) -> BrokerSim:
        """The same broker at the same moment, with a clock of its own."""
        clock = HandClock(self.clock.ms)
        other = BrokerSim(clock=clock, url=self.url, key=self.key)
        other.lanes = self.lanes.copy(other)
        for name in ("contracts", "annexes", "envelopes", "partial", "prose", "answers"):
            setattr(other, name, dict(getattr(self, name)))
        other.members = {key: dict(facts) for key, facts in self.members.items()}
        other.signatures = {name: list(found) for name, found in self.signatures.items()}
        other.nonces = set(self.nonces)
        other.log = LogSim(clock=clock, key=self.log.key, bodies=list(self.log.bodies))
        other.log.entropy.drawn = self.log.entropy.drawn
        other.log.ids, other.log.chains = dict(self.log.ids), dict(self.log.chains)
        return other

    @property
    def transport(self) -> httpx.MockTransport:
        return httpx.MockTransport(self.handler)

    def invite(self, **changes: Any) -> str:
        document = {
            "v": 1,
            "url": self.url,
            "broker_key": key_text(self.key.public),
            "tls_sha256": self.tls.pin,
            "id": "inv_aaaaaaaaaaaaaaaa",
            "secret": "5" * 64,
            "expires": iso_s(self.clock.ms + 3_600_000),
        }
        return base64.urlsafe_b64encode(canonical(document | changes)).decode()

    def document(self, **changes: Any) -> bytes:
        facts = {
            "origin": ORIGIN,
            "url": self.url,
            "broker_key": key_text(self.key.public),
            "log_vkey": self.log.vkey,
            "tls_chain_pem": self.tls.chain_pem.decode(),
            "version": "0.1.0",
        }
        payload = canonical(facts | changes)
        return Envelope.seal(payload, "application/vnd.iriai.broker.v1+json", self.key).to_bytes()

    def member(self) -> dict[str, Any]:
        return next(iter(self.members.values()))

    def approve(self) -> bytes:
        key = hashlib.sha256(b"alias").digest()
        self.member().update(state="active", alias_key=b64(key))
        return key

    def handler(self, request: httpx.Request) -> httpx.Response:
        if self.down:
            raise httpx.ConnectError("down")
        path = request.url.raw_path.decode().removeprefix("/api/v1")
        self.seen_requests.append((request.method, path, request.content))
        if path == "/broker":
            return httpx.Response(200, content=self.document())
        try:
            self._verified(request)
            idem = request.headers.get("idempotency-key")
            if idem is not None and idem in self.answers:
                return httpx.Response(200, content=self.answers[idem])
            answer = self._route(request, path, json.loads(request.content) if request.content else None)
        except IriaiError as error:
            problem = {**error.as_dict(), "exit_code": error.exit_code}
            return httpx.Response(error.http_status, json=problem)
        content = answer if isinstance(answer, bytes) else canonical(answer)
        if idem is not None:
            self.answers[idem] = content
        if self.lost and request.method == "POST":
            self.lost -= 1
            raise httpx.ReadTimeout("the answer is lost")
        return httpx.Response(200, content=content)

    def _verified(self, request: httpx.Request) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        claimed = claimed_key_id(headers)
        body = json.loads(request.content) if request.content else {}
        keys = [*self.members, *([parse_key(body["node_key"])] if "node_key" in body else [])]
        key = next((one for one in keys if hashlib.sha256(one).hexdigest()[:16] == claimed), None)
        if key is None:
            raise RefusedBySimError(need="an enrolled key", found=claimed, remedy="join first")

        def fresh(_key: str, nonce: str, _expires: int) -> bool:
            new = nonce not in self.nonces
            self.nonces.add(nonce)
            return new

        verify_request(
            method=request.method,
            url=str(request.url),
            headers=headers,
            body=request.content,
            now_ms=self.clock.ms,
            public_key=key,
            store_nonce=fresh,
        )

    def _route(self, request: httpx.Request, path: str, body: Any) -> Any:  # noqa: PLR0911, PLR0912  a route table
        for prefix, route in self.routes.items():
            if path.startswith(prefix):
                return route(request, body)
        parts = path.split("?", maxsplit=1)[0].strip("/").split("/")
        match parts:
            case ["membership", "join"]:
                return self._join(body)
            case ["membership", "me"]:
                return self.member()
            case ["contracts"]:
                return {"contracts": [self._summary(one) for one in self._listed()]}
            case ["contracts", name]:
                return self._known(self.contracts, name)
            case ["contracts", _, "annexes", name]:
                return self._known(self.annexes, name)
            case ["contracts", name, "envelope"]:
                return self._known({**self.partial, **self.envelopes}, name).to_bytes()
            case ["contracts", name, "lifecycle"]:
                self._known(self.contracts, name)
                return {"notices": []}
            case ["contracts", name, "prose"]:
                return self._known(self.prose, name)
            case ["negotiations", name]:
                return self.lanes.view(name, int(request.url.params["after"]))
            case ["negotiations", name, "messages"]:
                return self.lanes.message(name, body, request.content)
            case ["catalogue", "descriptors" | "certificates" | "withdrawals"]:
                return {"state": "published"}
            case ["log", "consistency"]:
                return self.log.news(int(request.url.params["old"]))
            case ["receipts", name]:
                index = self.log.ids.get(bytes.fromhex(name))
                if index is None:
                    raise RefusedBySimError(need="a known event", found=name, remedy="send it")
                return self.log.receipt(index)
        raise RefusedBySimError(need="a route", found=path, remedy="none")

    def _listed(self) -> list[str]:
        """Contracts as the broker lists them: no draft that a counter-offer replaced."""
        open_texts = {one.digest for one in self.lanes.talks.values()}
        old = {one.contract_id for one in self.lanes.talks.values()}
        return [
            one
            for one, data in self.contracts.items()
            if one in open_texts or one in self.envelopes or parse(data).get("contract_id") not in old
        ]

    def _known(self, table: dict[str, Any], name: str) -> Any:
        if name not in table:
            raise RefusedBySimError(need="a known digest", found=name, remedy="none")
        return table[name]

    def _join(self, body: dict[str, Any]) -> dict[str, Any]:
        if body["invite_secret"] != "5" * 64:
            raise RefusedBySimError(need="an invitation", found="another secret", remedy="ask again")
        key = parse_key(body["node_key"])
        self.members[key] = {
            "state": "waiting-approval",
            "org": body["org"],
            "node": body["node"],
            "since_ms": 1,
        }
        return {"state": "waiting-approval"}

    def _summary(self, contract: str) -> dict[str, Any]:
        document = parse(self.contracts[contract])
        done, talk = contract in self.envelopes, self.lanes.of(contract)
        view = None if talk is None else self.lanes.truth(talk.id)
        return {
            "digest": contract,
            "contract_id": document["contract_id"],
            "version": document["version"],
            "state": "finalized" if done else "offered",
            "standing": "ACTIVE" if done else "OFFERED",
            "title": document["title"],
            "sign_by": document["sign_by"],
            "negotiation": None if talk is None else talk.id,
            "lane": None if view is None else view["lane"],
            "lanes": {} if view is None else view["lanes"],
            "waiting_for": [] if done or view is None else view["waiting_for"],
        }

    def take(self, envelope: Envelope, *, key: bytes | None = None) -> int:
        """Puts a member's envelope into the log, as a round does."""
        payload = open_envelope(envelope, key or next(iter(self.members)))
        actor = alias(hashlib.sha256(b"alias").digest(), payload["scope"], payload["run"], payload["round"])
        return self.log.add(from_envelope(envelope, payload, actor=actor))
