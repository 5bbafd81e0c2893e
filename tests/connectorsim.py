# SPDX-License-Identifier: Apache-2.0
"""A foreign connector: a consumer of the Dataspace Protocol 2025-1 that knows nothing of iriai, and a broker for it.

`Connector` sends the protocol's messages over HTTP with its bearer token, and answers callbacks as an ASGI application of its own; it can
be told to fail. `open_dataspace` is a broker with the facade on, one final contract (open and consortium tier) and one that is only offered.
"""

from __future__ import annotations

import atexit
import contextlib
import copy
import functools
import itertools
import json
import shutil
import tempfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
import httpx

from policies.contract import Contract, from_tree
from policies.contract.odrl import pairs
from tests.brokersim import HandClock, House, SeedEntropy, draft, final_contract, open_house, pool

CONTEXT = "https://w3id.org/dspace/2025/1/context.jsonld"
CALLBACK = "https://connector.example/dsp"
DSP = "/api/v1/dsp"
_OPENINGS = itertools.count(1)
MEMBERS = ("kita", "nord", "iber")
TIERS = [
    {"clause": "tier-open", "tier": "open", "recipe": "pick", "model": "pick-lite", "licence": "Apache-2.0"},
    {
        "clause": "tier-consortium",
        "tier": "consortium",
        "recipe": "pick",
        "model": "pick",
        "licence": "pool-1",
    },
]


@dataclass
class Connector:
    """One consumer."""

    house: House
    name: str
    token: str = ""
    callback: str = CALLBACK
    status: int = 200
    told: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    requests: list[httpx.Request] = field(default_factory=list)
    slow: bool = False
    _number: int = 0

    # --- what it is told ---

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """Answers a callback."""
        self.requests.append(request)
        if self.slow:
            raise httpx.ReadTimeout("too slow", request=request)
        body = await request.aread()
        if self.status < 300:
            self.told.append((request.url.raw_path.decode(), json.loads(body)))
        return httpx.Response(self.status)

    @property
    def kinds(self) -> list[str]:
        """Types of what it was told, in order."""
        return [message["@type"] for _, message in self.told]

    # --- what it says ---

    def pid(self) -> str:
        self._number += 1
        return f"urn:uuid:{self.name}-{self._number:04d}"

    async def send(self, method: str, path: str, body: Any = None, **headers: str) -> httpx.Response:
        """A request with the token; ``headers`` go before it."""
        data = body if isinstance(body, bytes) else b"" if body is None else json.dumps(body).encode()
        given = {"authorization": f"Bearer {self.token}", "content-type": "application/json"} | headers
        return await self.house.http.request(method, DSP + path, content=data, headers=given)

    async def catalog(self) -> dict[str, Any]:
        answer = await self.send(
            "POST", "/catalog/request", {"@context": [CONTEXT], "@type": "CatalogRequestMessage"}
        )
        assert answer.status_code == 200, answer.text
        return dict(answer.json())

    async def offers(self) -> dict[str, dict[str, Any]]:
        """Offers of the catalogue with their target, by clause."""
        return {
            one["iriai:clause"]: one | {"target": dataset["@id"]}
            for dataset in (await self.catalog()).get("dataset", [])
            for one in dataset["hasPolicy"]
        }

    def request(self, offer: dict[str, Any], **changes: Any) -> dict[str, Any]:
        """The first request about an offer."""
        return {
            "@context": [CONTEXT],
            "@type": "ContractRequestMessage",
            "consumerPid": self.pid(),
            "callbackAddress": self.callback,
            "offer": offer,
        } | changes

    def message(self, kind: str, state: dict[str, Any], **fields: Any) -> dict[str, Any]:
        """A message of a running negotiation."""
        pids = {name: state[name] for name in ("providerPid", "consumerPid")}
        return {"@context": [CONTEXT], "@type": kind} | pids | fields

    async def begin(self, offer: dict[str, Any], **changes: Any) -> dict[str, Any]:
        answer = await self.send("POST", "/negotiations/request", self.request(offer, **changes))
        assert answer.status_code == 201, answer.text
        return dict(answer.json())

    async def counter(self, state: dict[str, Any], offer: dict[str, Any]) -> httpx.Response:
        body = self.message("ContractRequestMessage", state, offer=offer)
        return await self.send("POST", f"/negotiations/{state['providerPid']}/request", body)

    async def event(self, state: dict[str, Any], name: str = "ACCEPTED") -> httpx.Response:
        body = self.message("ContractNegotiationEventMessage", state, eventType=name)
        return await self.send("POST", f"/negotiations/{state['providerPid']}/events", body)

    async def verify(self, state: dict[str, Any]) -> httpx.Response:
        body = self.message("ContractAgreementVerificationMessage", state)
        return await self.send("POST", f"/negotiations/{state['providerPid']}/agreement/verification", body)

    async def terminate(self, state: dict[str, Any]) -> httpx.Response:
        body = self.message(
            "ContractNegotiationTerminationMessage", state, code="99", reason=["changed mind"]
        )
        return await self.send("POST", f"/negotiations/{state['providerPid']}/termination", body)

    async def state(self, state: dict[str, Any]) -> str:
        """Where a negotiation stands, as it is asked."""
        answer = await self.send("GET", f"/negotiations/{state['providerPid']}")
        assert answer.status_code == 200, answer.text
        return str(answer.json()["state"])


def other_terms(offer: dict[str, Any]) -> dict[str, Any]:
    """A counter-offer: the same offer without its constraints, as somebody else would want it."""
    return {**{key: offer[key] for key in ("@id", "@type", "target")}, "permission": [{"action": "use"}]}


@dataclass
class Dataspace:
    """A broker with the facade on."""

    house: House
    contract: Contract
    offered: Contract
    connectors: dict[str, Connector] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.house.services.courier.transport = httpx.MockTransport(self._route)
        for one in (self.house.alice, self.house.bob):  # their nonces of the broker's making are used up
            one.entropy = SeedEntropy(f"{one.name} opening {next(_OPENINGS)}".encode())

    async def _route(self, request: httpx.Request) -> httpx.Response:
        for one in self.connectors.values():
            if str(request.url).startswith(one.callback + "/"):
                return await one.handle(request)
        raise AssertionError(f"a callback to nobody: {request.url}")

    async def connector(self, name: str = "acme", *, org: str | None = None, **changes: Any) -> Connector:
        """A registered connector."""
        one = Connector(self.house, name, callback=f"https://{name}.example/dsp")
        body = {"name": name, "callback": one.callback, "org": org} | changes
        answer = await self.house.alice.post("/operator/dsp/counterparties", body)
        assert answer.status_code == 201, answer.text
        one.token = answer.json()["token"]
        one.callback = answer.json()["callback"]
        self.connectors[name] = one
        return one

    def org(self, party: str, contract: Contract | None = None) -> str:
        found = (contract or self.contract).party(party)
        assert found is not None
        return found.org

    def pair(self, clause: str, party: str | None = None) -> Any:
        return next(one for one in pairs(self.contract) if (one.clause, one.party) == (clause, party))


@contextlib.asynccontextmanager
async def open_dataspace(folder: Path, *, enabled: bool = True) -> AsyncIterator[Dataspace]:
    """Opens a copy of the broker that was made once for this process."""
    source, final, offered = made_once()
    shutil.copytree(source, folder, dirs_exist_ok=True)
    if enabled:
        with (folder / "broker.toml").open("a", encoding="utf-8") as file:
            file.write("dsp.enabled = true\n")
    async with open_house(folder, clock=HandClock()) as house:
        house.services.refresh()
        yield Dataspace(house, final, offered)


@functools.cache
def made_once() -> tuple[Path, Contract, Contract]:
    """A broker's folder, its final contract, and the one that is only offered; tests copy the folder."""
    folder = Path(tempfile.mkdtemp(prefix="iriai-dataspace-")) / "broker"
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)

    async def make() -> tuple[Contract, Contract]:
        async with open_house(folder) as house:
            nodes = await pool(house, *MEMBERS)
            final = await final_contract(house, nodes, tiers=copy.deepcopy(TIERS))
            tree = draft(house, nodes, tiers=copy.deepcopy(TIERS)).document
            offered = from_tree(tree | {"contract_id": "ctr_aaaaaaaaaaaaaaaa", "title": "Not signed yet"})
            answer = await house.alice.offer(offered)
            assert answer.status_code == 201, answer.text
            return final, offered

    with anyio.from_thread.start_blocking_portal() as portal:
        final, offered = portal.call(make)
    return folder, final, offered
