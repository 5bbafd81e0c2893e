# SPDX-License-Identifier: Apache-2.0
"""Every operation of the OpenAPI document against a whole broker: made-up requests, really signed, in the right roles.

schemathesis makes requests that fit the document and requests that do not; ids that exist are put in for most of them, so that a
request gets past 404. Each answer has to be one that the document tells, and none may be an error of the broker's own.

    python -m tests.apifuzz 600      # by hand, for ten minutes: seeds one after the other, what fell and how often
"""

from __future__ import annotations

import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio.from_thread
import httpx
import requests
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    negative_data_rejection,
    response_schema_conformance,
    status_code_conformance,
)

from broker.api.document import document
from broker.app import bare
from policies.encoding import canonical, new_id
from policies.errors import EncodingError
from policies.identity import SigningKey
from policies.signing import sign_request
from tests.auditorsim import AuditorSim, enrolled, granted
from tests.brokersim import (
    URL,
    HandClock,
    House,
    NodeSim,
    SeedEntropy,
    draft,
    final_contract,
    open_house,
    pool,
)
from tests.documented import UndocumentedError

IN_TERM_MS = 1_796_500_000_000
ENDS = (
    *(
        "suspend",
        "revoke",
        "disable",
        "remove",
        "halt",
        "terminate",
        "stop",
        "complaints",
        "erasures",
        "approve",
        "refuse",
    ),
    *("reset-login", "notices"),
)
"""Operations whose success would make the rest of a pass about refusals only: they come last."""
FREEZES = ("/log/freeze",)
CHECKS = [not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance]


@dataclass
class Pool:
    """A broker with something of everything, and who asks it."""

    house: House
    node: NodeSim
    waiting: NodeSim
    auditor: AuditorSim
    token: str
    ids: dict[str, list[str]]
    portal: Any
    sent: int = 0

    def send(self, request: httpx.Request) -> httpx.Response:
        """One request; time goes on by two seconds, so that nonces are forgotten in the end."""
        self.sent += 1
        self.house.clock.ms += 2_000
        return self.portal.call(self.house.http.send, request)

    def keys_of(self, role: str) -> list[SigningKey | None]:
        """Who may ask as a role; None for a request without a signature."""
        operator, member = self.house.alice.key, self.node.key
        return {
            "anyone": [None],
            "invited": [self.waiting.key],
            "waiting": [member, self.waiting.key],
            "member": [member],
            "operator": [operator],
            "party": [member, operator],
            "auditor": [self.auditor.key],
            "assessor": [self.auditor.key, operator],
            "reader": [member, self.auditor.key, operator],
            "counterparty": [None],
        }[role]


@dataclass
class Tally:
    """What a pass saw."""

    cases: int = 0
    operations: int = 0
    statuses: Counter[int] = field(default_factory=Counter)
    fell: dict[str, list[str]] = field(default_factory=dict)

    def fall(self, where: str, what: str) -> None:
        """Keeps at most three of each operation."""
        self.fell.setdefault(where, [])
        if len(self.fell[where]) < 3:
            self.fell[where].append(what)


@contextlib.contextmanager
def open_pool(folder: Path) -> Iterator[Pool]:
    """Opens a broker with members, a contract, a run, an auditor, a connector, an incident, a proposal."""
    with anyio.from_thread.start_blocking_portal() as portal:
        portal.call(_write_settings, folder)
        with portal.wrap_async_context_manager(open_house(folder, clock=HandClock())) as house:
            house.services.courier.transport = httpx.MockTransport(lambda _request: httpx.Response(200))
            yield portal.call(_furnish, house, portal)


async def _write_settings(folder: Path) -> None:
    async with open_house(folder):
        pass
    with (folder / "broker.toml").open("a", encoding="utf-8") as file:
        file.write("dsp.enabled = true\n")


async def _furnish(house: House, portal: Any) -> Pool:
    for one in (house.alice, house.bob):
        one.entropy = SeedEntropy(f"fuzz {one.name}".encode())
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    offered = draft(house, nodes, contract_id="ctr_aaaaaaaaaaaaaaaa", title="Not signed yet")
    assert (await house.alice.offer(offered)).status_code == 201
    waiting = NodeSim(house, "later")
    assert (await waiting.join(await house.alice.invite("Later GmbH", "DE", "later"))).status_code == 200
    auditor = await enrolled(house)
    grant = await granted(house, auditor)
    house.clock.ms = IN_TERM_MS
    run = (await house.alice.post("/operator/runs", {"contract": contract.digest, "recipe": "pick"})).json()[
        "run"
    ]
    made = await house.alice.post(
        "/operator/dsp/counterparties", {"name": "acme", "callback": "https://acme.example/dsp"}
    )
    proposed = await house.alice.post(
        f"/operator/organisations/{nodes[2].org}/revoke", {"reason": "operator-decision"}
    )
    negotiations = [await nodes[0].negotiation(one) for one in (contract, offered)]
    event = house.services.writer.receipts
    ids = {
        "digest": [contract.digest, offered.digest],
        "org": [nodes[1].org, waiting.org],
        "run_id": [run],
        "index": ["0", "5", str(event.head().size - 1)],
        "event_id": ["00" * 32],
        "sha256": [
            contract.recipes[0].recipe_digest,
            contract.recipes[0].recipe_digest.removeprefix("sha256:"),
        ],
        "negotiations": negotiations,
        "auditors": [auditor.name],
        "grants": [grant],
        "counterparties": ["acme"],
        "people": ["alice", "bob"],
        "proposals": [proposed.json()["proposal"]["id"]] if proposed.status_code == 202 else ["none"],
        "decisions": ["sha256:" + "0" * 64],
        "entries": ["000", "x000/000", "000.p/5"],
        "tile": ["0/000", "1/000", "0/000.p/7"],
        "provider_pid": ["iriai:negotiation:" + new_id("x", bytes(10)).removeprefix("x_")],
        "dataset": ["iriai:model:none"],
    }
    return Pool(
        house=house,
        node=nodes[0],
        waiting=waiting,
        auditor=auditor,
        token=made.json()["token"],
        ids=ids,
        portal=portal,
    )


def known_ids(there: Pool, path: str, name: str) -> list[str]:
    """Values of a path parameter that exist: by its own name, else by the segment before it."""
    before = path.partition("{" + name + "}")[0].rstrip("/").rpartition("/")[2]
    return there.ids.get(before if name == "name" else name, ["none"])


def request_of(there: Pool, case: Any, key: SigningKey | None, token: str | None) -> httpx.Request:
    """A generated case as a request that is signed as its sender really would."""
    kwargs = case.as_transport_kwargs(base_url=URL)
    prepared = requests.Request(
        method=case.method, url=kwargs["url"], params=kwargs.get("params"), cookies=None
    ).prepare()
    body = _body(case)
    request = httpx.Request(case.method, str(prepared.url), content=body)
    headers = {name: value for name, value in (case.headers or {}).items() if name.lower() == "if-match"}
    if key is not None:
        headers |= sign_request(
            key,
            method=case.method,
            url=str(request.url),
            body=body,
            now_ms=there.house.clock.ms + 2_000,
            nonce16=there.sent.to_bytes(16, "big"),
            idempotency_key=f"fuzz {there.sent}" if case.method == "POST" else None,
        )
    elif token is not None:
        headers["authorization"] = f"Bearer {token}"
    with contextlib.suppress(UnicodeEncodeError, ValueError):
        request.headers.update(headers)
    return request


def _body(case: Any) -> bytes:
    if case.body is None or type(case.body).__name__ == "NotSet":
        return b""
    if isinstance(case.body, bytes):
        return case.body
    try:
        return canonical(case.body)
    except (EncodingError, TypeError, UnicodeEncodeError):
        return repr(case.body).encode("utf-8", "backslashreplace")


def schema() -> Any:
    """The document for schemathesis, without how requests are signed: here they all are."""
    made = document(bare())
    del made["components"]["securitySchemes"]
    for methods in made["paths"].values():
        for one in methods.values():
            del one["security"]
    return schemathesis.openapi.from_dict(made)


def ordered(found: Any) -> list[Any]:
    """Operations, those that end something last."""
    operations = [one.ok() for one in found.get_all_operations()]
    return sorted(
        operations,
        key=lambda one: (one.path.endswith(FREEZES), one.path.endswith(ENDS), one.method != "get", one.path),
    )


def one_operation(there: Pool, operation: Any, tally: Tally, *, number: int, cases: int) -> None:
    """Cases of one operation: two thirds fit the document, one third does not."""
    role = operation.definition.raw["x-iriai-role"]
    keys = there.keys_of(role)
    fixed = {"Idempotency-Key": "set when it is signed"}
    tally.operations += 1

    def judge(case: Any, data: Any, *, wrong: bool) -> None:
        if case.path_parameters and not wrong and data.draw(st.integers(0, 9)) < 8:
            for name in case.path_parameters:
                case.path_parameters[name] = data.draw(
                    st.sampled_from(known_ids(there, operation.path, name))
                )
        key = data.draw(st.sampled_from(keys))
        where = f"{case.method} {operation.path}"
        try:
            request = request_of(there, case, key, there.token if role == "counterparty" else None)
        except (httpx.InvalidURL, ValueError):
            return
        tally.cases += 1
        try:
            answer = there.send(request)
            tally.statuses[answer.status_code] += 1
            taken = wrong and answer.status_code < 400 and role != "counterparty"
            checks = [*CHECKS, negative_data_rejection] if taken else CHECKS
            case.validate_response(answer, checks=checks, headers=dict(request.headers))
        except UndocumentedError as error:
            tally.fall(where, str(error)[:600])
        except (AssertionError, BaseExceptionGroup) as error:
            said = " ".join(str(error).partition("Reproduce with")[0].split())
            tally.fall(where, f"{answer.status_code} {request.url} {_body(case)[:200]!r}: {said[:700]}")

    made = operation.as_strategy(generation_mode=schemathesis.GenerationMode.POSITIVE, headers=fixed)
    _examples(
        made, lambda case, data: judge(case, data, wrong=False), number=number, cases=cases - cases // 3
    )
    if operation.query or operation.body:
        there_is = {
            one.name: known_ids(there, operation.path, one.name)[0] for one in operation.path_parameters
        }
        made = operation.as_strategy(
            generation_mode=schemathesis.GenerationMode.NEGATIVE, headers=fixed, path_parameters=there_is
        )
        _examples(made, lambda case, data: judge(case, data, wrong=True), number=number, cases=cases // 3)


def _examples(made: Any, judge: Any, *, number: int, cases: int) -> None:
    @seeded(number)
    @settings(
        max_examples=cases,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=_PHASES,
    )
    @given(case=made, data=st.data())
    def each(case: Any, data: Any) -> None:
        judge(case, data)

    each()


def one_pass(there: Pool, *, number: int, cases: int) -> Tally:
    """Every operation once."""
    tally = Tally()
    for operation in ordered(schema()):
        one_operation(there, operation, tally, number=number, cases=cases)
    return tally


def _phases() -> tuple[Any, ...]:
    from hypothesis import Phase

    return (Phase.generate,)


_PHASES = _phases()


def by_hand(seconds: float) -> int:
    """Passes with seeds one after the other, until the time is over."""
    ends, number, whole = time.monotonic() + seconds, 0, Tally()
    while time.monotonic() < ends:
        number += 1
        folder = Path(tempfile.mkdtemp(prefix="iriai-fuzz-"))
        try:
            with open_pool(folder / "broker") as there:
                tally = one_pass(there, number=number, cases=30)
        finally:
            shutil.rmtree(folder, ignore_errors=True)
        whole.cases += tally.cases
        whole.operations = tally.operations
        whole.statuses += tally.statuses
        for where, found in tally.fell.items():
            for what in found:
                whole.fall(where, what)
        sys.stderr.write(f"pass {number}: {whole.cases} cases, {len(whole.fell)} operations fell\n")
    sys.stderr.write(
        f"{whole.operations} operations, {whole.cases} cases, {dict(sorted(whole.statuses.items()))}\n"
    )
    for where, found in sorted(whole.fell.items()):
        sys.stderr.write(f"\n{where}\n" + "\n".join(f"  {one}" for one in found) + "\n")
    return 1 if whole.fell else 0


if __name__ == "__main__":
    sys.exit(by_hand(float(sys.argv[1]) if sys.argv[1:] else 60.0))
