# SPDX-License-Identifier: Apache-2.0
"""Everything that happens is in the log: every route and command that changes something, every type of entry.

A route, a command on the broker's folder or a type of entry that is new fails here until it stands in one of the tables: as
something that leaves an entry, which is tried out, or as something that leaves none, with the reason.
"""

from __future__ import annotations

import ast
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import click
import httpx
import pytest
import typer

from broker import commands
from broker.cli import app
from broker.commands import log as log_commands
from broker.keyfiles import write_private
from policies.contract import Contract
from policies.encoding import b64, digest
from policies.identity import SigningKey, key_text
from policies.log.checkpoint import Checkpoint, sign_checkpoint
from policies.log.entries import EntryType, Event
from policies.log.schema import SCHEMA
from tests.auditorsim import AuditorSim
from tests.brokersim import ORIGIN, URL, House, NodeSim, draft, open_house, operator_key, pool
from tests.docs import facts
from tests.logsim import rotate_log_key
from tests.noticespeech import say
from tests.succeedsim import tightening_body, tighter
from tests.unit.test_broker_delivery import MODEL, ballot, with_candidate_of
from tests.unit.test_broker_log_commands import NEXT, entries, frozen, opened, signed
from tests.unit.test_witness_broker import statement

CHANGES = {"POST", "PUT", "PATCH", "DELETE"}
ROOT = Path(__file__).resolve().parents[2]


@dataclass
class Stage:
    """A broker with a pool; each scenario leaves what the next ones need."""

    house: House
    nodes: list[NodeSim] = field(default_factory=list)
    contract: Contract | None = None
    run: str = ""
    auditor: AuditorSim | None = None
    grant: str = ""
    newcomer: NodeSim | None = None
    waiting: Contract | None = None
    proposed: httpx.Response | None = None

    @property
    def kita(self) -> NodeSim:
        return self.nodes[0]

    @property
    def final(self) -> Contract:
        assert self.contract is not None
        return self.contract


Scenario = Callable[[Stage], Awaitable[httpx.Response]]


# --- scenarios, in the order in which they are tried ---


async def invites(stage: Stage) -> httpx.Response:
    body = {"legal_name": "Hanbit GmbH", "country": "KR", "group": "hanbit"}
    return await stage.house.alice.post("/operator/invites", body)


async def approves(stage: Stage) -> httpx.Response:
    newcomer = NodeSim(stage.house, "hanbit")
    await newcomer.join(await stage.house.alice.invite("Hanbit Two GmbH", "KR", "hanbit"))
    stage.newcomer = newcomer
    assert (await stage.house.bob.approve(newcomer.org)).status_code == 200
    return await stage.house.alice.approve(newcomer.org)


async def takes_an_invitation_back(stage: Stage) -> httpx.Response:
    alice = stage.house.alice
    body = {"legal_name": "Nobody GmbH", "country": "DE", "group": "nobody"}
    made = (await alice.post("/operator/invites", body)).json()["id"]
    return await alice.post(f"/operator/invites/{made}/revoke", {})


async def adds_a_person(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post("/operator/people", {"name": "erika", "role": "auditor"})


async def resets_a_person(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post("/operator/people/erika/reset-login", {})


async def disables_a_person(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post("/operator/people/erika/disable", {})


async def pauses(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post(f"/operator/runs/{stage.run}/pause", {})


FREEZE = "/operator/log/freeze"


async def freezes(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post(FREEZE, {"reason": "test"})


async def suspends(stage: Stage) -> httpx.Response:
    assert stage.newcomer is not None
    return await stage.house.alice.post(
        f"/operator/organisations/{stage.newcomer.org}/suspend", {"reason": "test"}
    )


async def restores(stage: Stage) -> httpx.Response:
    assert stage.newcomer is not None
    path = f"/operator/organisations/{stage.newcomer.org}/restore"
    stage.proposed = await stage.house.alice.post(path, {"reason": "test"})
    return stage.proposed


async def approves_proposal(stage: Stage) -> httpx.Response:
    assert stage.proposed is not None
    return await stage.house.bob.agree(stage.proposed.json()["proposal"])


async def revokes(stage: Stage) -> httpx.Response:
    assert stage.newcomer is not None
    stage.proposed = await stage.house.bob.post(
        f"/operator/organisations/{stage.newcomer.org}/revoke", {"reason": "test"}
    )
    return stage.proposed


async def refuses_proposal(stage: Stage) -> httpx.Response:
    assert stage.proposed is not None
    name = stage.proposed.json()["proposal"]["id"]
    return await stage.house.bob.post(f"/operator/proposals/{name}/refuse", {"reason": "test"})


async def proposes(stage: Stage) -> httpx.Response:
    assert stage.newcomer is not None
    payload = {"org": stage.newcomer.org, "reason": "test", "left": False}
    answer = await stage.house.alice.post("/operator/proposals", {"kind": "org.remove", "payload": payload})
    assert (await stage.house.bob.agree(answer.json()["proposal"])).status_code == 200
    return answer


async def offers(stage: Stage) -> httpx.Response:
    stage.waiting = draft(stage.house, stage.nodes, title="Another offer", contract_id="ctr_aaaaaaaaaaaaaaaa")
    return await stage.house.alice.offer(stage.waiting)


async def verifies(stage: Stage) -> httpx.Response:
    """The message that carries a signature; the others are kept in the negotiation, signed by who says them."""
    assert stage.waiting is not None
    for node in stage.nodes:
        assert (await node.accept(stage.waiting)).status_code == 200
    return await stage.kita.verify(stage.waiting)


async def withdraws(stage: Stage) -> httpx.Response:
    assert stage.waiting is not None
    name = await stage.kita.negotiation(stage.waiting)
    body = {"code": "terms.other", "clause": None, "text": None}
    return await stage.house.alice.post(f"/operator/negotiations/{name}/terminate", body)


async def opens(stage: Stage) -> httpx.Response:
    """Another run of a contract that has one, with a candidate that waits."""
    nodes = stage.nodes
    _, stage.contract, stage.run = await with_candidate_of(stage.house, nodes, validation=VALIDATION)
    body = {"contract": stage.final.digest, "recipe": stage.final.recipes[0].id}
    return await stage.house.alice.post("/operator/runs", body)


async def votes(stage: Stage) -> httpx.Response:
    path = f"/candidates/{MODEL}/votes"
    return await stage.kita.post(path, ballot(stage.kita, stage.final, stage.run))


async def resumes(stage: Stage) -> httpx.Response:
    """After as many rejections as the contract allows."""
    clause = stage.final.validation
    assert clause is not None
    pub = {
        "model": MODEL,
        "against": MODEL,
        "accepting": 0,
        "voting": 3,
        "verdict": "rejected",
        "rejected_rounds": clause.max_rejected_rounds,
    }
    for number in range(1, clause.max_rejected_rounds + 1):
        event = Event(
            type=EntryType.ROUND_JUDGED, scope=stage.final.digest, run=stage.run, round=number, pub=pub
        )
        await stage.house.services.writer.run(lambda _session, tx, event=event: tx.add(event))
    return await stage.house.alice.post(f"/operator/runs/{stage.run}/resume", {})


async def stops(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post(f"/operator/runs/{stage.run}/stop", {})


async def amends(stage: Stage) -> httpx.Response:
    new = tighter(stage.final)
    return await stage.kita.post(
        f"/contracts/{stage.final.digest}/amendments", tightening_body(stage.kita, new)
    )


async def notifies(stage: Stage) -> httpx.Response:
    return await say(stage.kita, stage.final, "halt")


async def halts(stage: Stage) -> httpx.Response:
    body = {"code": "cell.incident", "clause": None, "text": None}
    return await stage.house.alice.post(f"/operator/contracts/{stage.final.digest}/halt", body)


async def enrols(stage: Stage) -> httpx.Response:
    stage.auditor = AuditorSim(stage.house)
    body = {"name": stage.auditor.name, "key": key_text(stage.auditor.key.public)}
    return await stage.house.alice.post("/operator/auditors", body)


async def grants(stage: Stage) -> httpx.Response:
    assert stage.auditor is not None
    body = {"grantee": stage.auditor.name, "fields": ["org"]}
    answer = await stage.house.alice.post("/operator/audit/grants", body)
    stage.grant = answer.json()["grant"]
    return answer


async def ends_grant(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post(f"/operator/audit/grants/{stage.grant}/revoke", {})


async def concludes(stage: Stage) -> httpx.Response:
    assert stage.auditor is not None
    return await stage.auditor.post("/audit/conclusions", stage.auditor.conclusion().to_json())


async def revokes_auditor(stage: Stage) -> httpx.Response:
    assert stage.auditor is not None
    return await stage.house.alice.post(f"/operator/auditors/{stage.auditor.name}/revoke", {"reason": "test"})


async def erases(stage: Stage) -> httpx.Response:
    (onboarded, *_) = [
        at for at, one in enumerate(stage.house.entries()) if one.type is EntryType.ORG_ONBOARDED
    ]
    body = {"indexes": [onboarded], "fields": ["org"], "reason": "subject.request"}
    return await stage.house.alice.post("/operator/audit/erasures", body)


async def stamps(stage: Stage) -> httpx.Response:
    pytest.importorskip("rfc3161_client", reason="the extra rfc3161 is not installed")
    from tests.tsasim import TsaSim
    from tests.unit.test_auditing_timestamps import reply_to

    size, reply = reply_to(stage.house, TsaSim(now_ms=stage.house.clock.ms))
    return await stage.house.alice.post("/operator/audit/timestamps", {"size": size, "reply": b64(reply)})


async def closes_incident(stage: Stage) -> httpx.Response:
    event = Event(type=EntryType.INCIDENT_DECLARED, pub={"kind": "test", "evidence": digest(b"seen")})
    index, _ = await stage.house.services.writer.run(lambda _session, tx: tx.add(event))
    return await stage.house.alice.post(f"/operator/incidents/{index}/close", {"reason": "looked.into"})


async def witnesses(stage: Stage) -> httpx.Response:
    return await stage.kita.post("/witness/keys", statement(stage.kita))


async def resets_chain(stage: Stage) -> httpx.Response:
    nord = stage.nodes[1]
    old = nord.chain
    nord.chain = type(old)(chain="feedfeedfeedfeed")
    body = {"reason": "disk-loss", "old_chain": old.chain, "last_seq": old.next_seq - 1}
    envelope = nord.seal(EntryType.CHAIN_RESET, body, scope=None)  # type: ignore[arg-type]
    return await nord.post("/membership/chain", {"envelope": envelope.to_json()})


async def registers_connector(stage: Stage) -> httpx.Response:
    body = {"name": "acme", "callback": "https://acme.example/dsp"}
    return await stage.house.alice.post("/operator/dsp/counterparties", body)


async def removes_connector(stage: Stage) -> httpx.Response:
    return await stage.house.alice.post("/operator/dsp/counterparties/acme/remove", {})


async def complains(stage: Stage) -> httpx.Response:
    """Freezes the log; nothing comes after it."""
    key = SigningKey.from_pem((stage.house.services.settings.dir / "keys" / "log.key").read_bytes())
    note = sign_checkpoint(key, Checkpoint(ORIGIN, 2, b"x" * 32))
    return await stage.house.http.post("/api/v1/witness/complaints", json={"notes": [note]})


ROUTES: dict[str, Scenario] = {
    "/operator/invites": invites,
    "/operator/invites/{name}/revoke": takes_an_invitation_back,
    "/operator/people": adds_a_person,
    "/operator/people/{name}/reset-login": resets_a_person,
    "/operator/people/{name}/disable": disables_a_person,
    "/operator/organisations/{org}/approve": approves,
    "/operator/organisations/{org}/suspend": suspends,
    "/operator/organisations/{org}/restore": restores,
    "/operator/proposals/{name}/approve": approves_proposal,
    "/operator/organisations/{org}/revoke": revokes,
    "/operator/proposals/{name}/refuse": refuses_proposal,
    "/operator/proposals": proposes,
    "/operator/contracts": offers,
    "/negotiations/{name}/messages": verifies,
    "/operator/negotiations/{name}/terminate": withdraws,
    "/operator/runs": opens,
    "/candidates/{digest}/votes": votes,
    "/operator/runs/{run_id}/resume": resumes,
    "/operator/runs/{run_id}/pause": pauses,
    "/operator/runs/{run_id}/stop": stops,
    "/contracts/{digest}/amendments": amends,
    "/contracts/{digest}/notices": notifies,
    "/operator/contracts/{digest}/halt": halts,
    "/operator/auditors": enrols,
    "/operator/audit/grants": grants,
    "/operator/audit/grants/{name}/revoke": ends_grant,
    "/audit/conclusions": concludes,
    "/operator/auditors/{name}/revoke": revokes_auditor,
    "/operator/audit/erasures": erases,
    "/operator/audit/timestamps": stamps,
    "/operator/incidents/{index}/close": closes_incident,
    "/witness/keys": witnesses,
    "/membership/chain": resets_chain,
    "/operator/dsp/counterparties": registers_connector,
    "/operator/dsp/counterparties/{name}/remove": removes_connector,
    "/witness/complaints": complains,
}
"""Paths below ``/api/v1`` that leave at least one entry whenever they succeed."""

_BEFORE = (
    "a connector's own words, kept whole in the broker's book; what the parties signed, and only that, binds"
)
WITHOUT: dict[str, str] = {
    "/membership/join": "nobody is let in: the two approvals and org.onboarded name exactly what joined",
    "/catalogue/certificates": "a member's own signed words about its data; no right follows from them",
    "/catalogue/descriptors": "a member's own signed description of its data; no right follows from it",
    "/catalogue/withdrawals": "a member's own signed word, kept in the descriptor's place; no right ends by it",
    "/contracts/{digest}/evaluate": "a question; nothing changes but the nonce",
    "/operator/contracts/dry-run": "a question; nothing changes but the nonce",
    "/witness/cosignatures": "about the log: they stand beside the checkpoints, and are in every bundle",
    "/dsp/catalog/request": "a question",
    "/dsp/negotiations/request": _BEFORE,
    "/dsp/negotiations/{provider_pid}/request": _BEFORE,
    "/dsp/negotiations/{provider_pid}/events": _BEFORE,
    "/dsp/negotiations/{provider_pid}/agreement/verification": _BEFORE,
    "/dsp/negotiations/{provider_pid}/termination": _BEFORE,
}
"""Paths that leave none, and why."""


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    folder = tmp_path / "broker"
    async with open_house(folder):
        pass  # the folder is there
    with (folder / "broker.toml").open("a", encoding="utf-8") as file:
        file.write("dsp.enabled = true\n")
    async with open_house(folder) as house:
        yield Stage(house, await pool(house))


VALIDATION = {"clause": "validate-1", "quorum": "0.67", "max_rejected_rounds": 1}


def mutating() -> set[str]:
    routes = [one for one in facts.routes() if one.method in CHANGES]
    assert all(one.path.startswith("/api/v1/") for one in routes)
    return {one.path.removeprefix("/api/v1") for one in routes}


def test_every_route_that_changes_something_is_in_one_of_the_two_tables():
    assert set(ROUTES) & set(WITHOUT) == set()
    assert mutating() == set(ROUTES) | set(WITHOUT) | {FREEZE}


async def test_a_freeze_is_on_record_before_it_stops_the_log(stage: Stage):
    """Alone, because nothing is taken after it."""
    assert (await freezes(stage)).is_success
    last = stage.house.entries()[-1]
    assert (last.type, last.pub["action"]) == (EntryType.CONSOLE_ACTION, "log.freeze")
    assert (await invites(stage)).json()["code"] == "log.frozen"


async def test_every_route_that_changes_something_leaves_an_entry(stage: Stage):
    for path, scenario in ROUTES.items():
        before = stage.house.services.writer.head().size
        answer = await scenario(stage)
        assert answer.is_success, f"{path}: {answer.text}"
        assert stage.house.services.writer.head().size > before, path
    assert {str(kind) for kind, where in PRODUCED.items() if where == HERE} <= set(stage.house.kinds())


async def test_what_the_policy_denies_an_operator_is_in_the_log_as_a_refused_action(stage: Stage):
    """A run of a contract that nobody signed; asked again under the same key it is another refusal, and no conflict."""
    contract = draft(stage.house, stage.nodes)
    assert (await stage.house.alice.offer(contract)).status_code == 201
    body = {"contract": contract.digest, "recipe": contract.recipes[0].id}
    for count in (1, 2):
        answer = await stage.house.alice.post("/operator/runs", body, idempotency_key="the same")
        assert (answer.status_code, answer.json()["code"]) == (403, "contract.not-executed")
        refused = [
            one.pub for one in stage.house.entries(EntryType.CONSOLE_ACTION) if one.pub["result"] == "refused"
        ]
        assert [one["action"] for one in refused] == ["runs.open-run"] * count
    answer = await stage.house.alice.post("/operator/runs", {**body, "recipe": 7})
    assert answer.status_code == 422  # nobody decided anything
    assert len([one for one in stage.house.entries() if one.pub.get("result") == "refused"]) == 2


async def test_who_leaves_and_who_is_put_out_are_told_apart(stage: Stage):
    for node, left, kind in (
        (stage.nodes[1], True, EntryType.ORG_LEFT),
        (stage.nodes[2], False, EntryType.ORG_SUSPENDED),
    ):
        answer = await stage.house.remove(node.org, reason="test", left=left)
        assert answer.status_code == 200
        *_, said, first, second = stage.house.entries()
        assert (said.type, said.pub["reason"]) == (kind, "test")
        assert {first.type, second.type} == {EntryType.KEY_REVOKED}


async def test_an_incident_is_closed_once_by_who_says_how(stage: Stage):
    evidence = digest(b"seen")
    event = Event(type=EntryType.INCIDENT_DECLARED, pub={"kind": "test", "evidence": evidence})
    index, _ = await stage.house.services.writer.run(lambda _session, tx: tx.add(event))
    alice = stage.house.alice
    (line,) = (await alice.get("/operator/incidents")).json()["incidents"]
    assert (line["index"], line["kind"], line["closed"]) == (index, "test", None)
    body = {"reason": "looked.into"}
    assert (await alice.post(f"/operator/incidents/{index}/close", body)).status_code == 200
    (closed,) = stage.house.entries(EntryType.INCIDENT_CLOSED)
    assert (closed.refs, dict(closed.pub)) == ((index,), {"kind": "test", "evidence": evidence})
    (line,) = (await alice.get("/operator/incidents")).json()["incidents"]
    assert line["closed"] is not None
    for at, code in ((index, "audit.incident-closed"), (0, "audit.incident-unknown")):
        answer = await alice.post(f"/operator/incidents/{at}/close", body)
        assert answer.json()["code"] == code
    assert (await stage.kita.post(f"/operator/incidents/{index}/close", body)).status_code == 403


# --- commands on the closed broker's folder ---


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A broker's folder; beside it the key files of two operators."""
    names = ("alice", "bob")
    for name in names:
        write_private(tmp_path / f"{name}.key", operator_key(name).to_pem())
    operators = [f"{name}={key_text(operator_key(name).public)}" for name in names]
    commands.init(tmp_path / "b", URL, operators, listen_host=None, origin=ORIGIN, tls=None)
    return tmp_path / "b"


def begins(folder: Path) -> list[str]:
    return kinds(folder)


def rotates(folder: Path) -> list[str]:
    before = len(kinds(folder))
    rotate_log_key(folder)
    return kinds(folder)[before:]


def repairs(folder: Path) -> list[str]:
    kept = frozen(folder)
    with opened(folder):
        pass  # it finds out
    asked = log_commands.log_repair(folder, kept, [])
    size = asked.data["to"]
    log_commands.log_repair(folder, kept, signed(folder, asked.plain_output, "alice", "bob"))
    return kinds(folder)[size:]


def succeeds(folder: Path) -> list[str]:
    asked = log_commands.log_succeed(folder, NEXT, cause="test", approvals=[], databases=None)
    approvals = signed(folder, asked.plain_output, "alice", "bob")
    log_commands.log_succeed(folder, NEXT, cause="test", approvals=approvals, databases=None)
    (old,) = folder.glob("*.broker.db")
    with contextlib.closing(sqlite3.connect(old)) as db:
        (last,) = db.execute("SELECT type FROM log_entry ORDER BY idx DESC LIMIT 1").fetchone()
    return [last, *kinds(folder)]


def kinds(folder: Path) -> list[str]:
    return [one.type.value for one in entries(folder)]


COMMANDS: dict[str, tuple[Callable[[Path], list[str]], set[str]]] = {
    "init": (begins, {"log.genesis", "key.added"}),
    "log rotate-key": (rotates, {"console.action", "key.rotated", "policy.activated"}),
    "key rotate": (rotates, {"console.action", "key.rotated", "policy.activated"}),
    "log repair": (repairs, {"console.action"}),
    "log succeed": (succeeds, {"log.frozen", "log.genesis", "key.added"}),
}
"""Commands on the broker's folder that change something: what does it, and the types of entries that it leaves."""
COMMANDS_WITHOUT: dict[str, str] = {
    "serve": "what it serves leaves entries, each by its own route",
    "log status": "only reads",
    "audit vectors": "copies files on the host; whoever may run it can read them anyway",
    "audit rows": "copies tables on the host; whoever may run it can read them anyway",
    **dict.fromkeys(("backup list", "config check", "config show", "db check", "doctor"), "only reads"),
    **dict.fromkeys(("key list", "log verify", "print-unit"), "only reads"),
    "backup create": "a copy; its record stands beside the broker, because a log cannot vouch for its own copy",
    "backup verify": "reads a copy, and keeps beside the broker when it did",
    "backup restore": "makes a folder that was empty; two operators approve it, and who signed stays beside it",
    "db upgrade": "tables alone; no business row changes",
    "db migrate": "tables and rights of roles, from the database's owner; no business row changes",
}


def folder_commands() -> set[str]:
    found = {}

    def walk(group: click.Group, prefix: str = "") -> None:
        for name, command in group.commands.items():
            if isinstance(command, click.Group):
                walk(command, f"{prefix}{name} ")
            else:
                found[prefix + name] = {option for one in command.params for option in one.opts}

    walk(typer.main.get_command(app))  # type: ignore[arg-type]
    return {name for name, options in found.items() if "--dir" in options and "--tls-sha256" not in options}


def test_every_command_on_the_brokers_folder_is_in_one_of_the_two_tables():
    assert folder_commands() == set(COMMANDS) | set(COMMANDS_WITHOUT)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_command_that_changes_something_on_the_folder_leaves_entries(folder: Path, name: str):
    work, wanted = COMMANDS[name]
    assert wanted <= set(work(folder))


# --- every type has a producer and a test ---

HERE = "the routes above"
_T = EntryType
PRODUCED: dict[EntryType, str] = {
    **dict.fromkeys(
        (
            *(_T.ACCESS_GRANTED, _T.ACCESS_REVOKED, _T.AUDIT_CONCLUDED, _T.CHAIN_RESET, _T.CONSOLE_ACTION),
            *(_T.CONTRACT_FINALIZED, _T.CONTRACT_HALTED, _T.CONTRACT_PROPOSED, _T.CONTRACT_SIGNED),
            *(_T.CONTRACT_TERMINATED, _T.DECISION_RECORDED, _T.ERASURE_PERFORMED, _T.INCIDENT_CLOSED),
            *(_T.INCIDENT_DECLARED, _T.KEY_ADDED, _T.KEY_REVOKED, _T.LOG_GENESIS, _T.ORG_ONBOARDED),
            *(
                _T.ORG_REINSTATED,
                _T.ORG_SUSPENDED,
                _T.POLICY_ACTIVATED,
                _T.RUN_OPENED,
                _T.VOTE_CAST,
                _T.WITNESS_ADDED,
            ),
        ),
        HERE,
    ),
    **dict.fromkeys(
        (
            *(_T.AGGREGATE_RELEASED, _T.BUDGET_OPENED, _T.CANDIDATE_EVALUATED, _T.CONTRIBUTION_ACCEPTED),
            *(_T.CONTRIBUTION_REFUSED, _T.EPSILON_SPENT, _T.EVALUATION_RECEIVED, _T.MODEL_RELEASED),
            *(_T.ROUND_ACK, _T.ROUND_CLOSED, _T.ROUND_OPENED, _T.RUN_CLOSED, _T.SUBMISSION_RECEIVED),
        ),
        "simulation/test_rounds_acked.py::test_a_run_leaves_these_types_of_entries",
    ),
    _T.ACCESS_USED: "unit/test_auditing_access.py::test_every_look_is_logged_and_what_was_shown_once",
    _T.CANARY_COMMITTED: "simulation/test_release_canaries.py"
    "::test_commitments_are_in_the_log_before_the_first_update_and_reveals_after_the_last",
    _T.CANARY_REVEALED: "simulation/test_release_canaries.py"
    "::test_commitments_are_in_the_log_before_the_first_update_and_reveals_after_the_last",
    _T.CONTRACT_AMENDED: "unit/test_amendment_broker.py::test_a_change_rules_from_its_term_on_and_supersedes",
    _T.CONTRACT_EXITED: "unit/test_broker_life.py::test_an_exit_is_decided_logged_and_ends_the_influence_at_once",
    _T.CONTRACT_EXPIRED: "unit/test_broker_life.py::test_a_term_that_ended_while_nobody_served_is_logged_at_the_start",
    _T.CONTRACT_RESUMED: "unit/test_broker_life.py::test_a_halt_ends_with_the_last_contributors_resume",
    _T.DISCLOSURE_MADE: "unit/test_auditing_access.py::test_every_look_is_logged_and_what_was_shown_once",
    _T.EXPORT_AUDIT_BUNDLE: "unit/test_broker_log_reads.py::test_the_bundle_is_logged_after_it_was_taken",
    _T.KEY_ROTATED: "unit/test_broker_life.py::test_a_rotated_key_signs_requests_and_envelopes_from_then_on",
    _T.LOG_FROZEN: "unit/test_entries_produced.py"
    "::test_a_command_that_changes_something_on_the_folder_leaves_entries",
    _T.MODEL_EXPORTED: "unit/test_broker_delivery.py::test_a_released_model_goes_to_a_party_and_the_log_says_so",
    _T.MODEL_REFUSED: "simulation/test_release_faults.py::test_a_vetoed_candidate_is_refused_and_nobody_can_pull_it",
    _T.ORG_LEFT: "unit/test_entries_produced.py::test_who_leaves_and_who_is_put_out_are_told_apart",
    _T.ROUND_CHOSEN: "simulation/test_probe_rounds.py::test_a_clean_run_takes_every_team_in_and_refuses_nobody",
    _T.ROUND_JUDGED: "simulation/test_round_votes.py::test_a_clean_run_rejects_nothing_and_every_vote_is_in_the_log",
    _T.ROUND_SCORED: "simulation/test_probe_rounds.py"
    "::test_a_team_beyond_the_bound_is_left_out_before_anybody_judges_it",
    _T.ROUND_VOTED: "simulation/test_round_votes.py::test_a_clean_run_rejects_nothing_and_every_vote_is_in_the_log",
    _T.SUM_WITHDRAWN: "attack/test_secure_round_liars.py"
    "::test_a_wrong_tag_costs_its_rounds_until_the_member_is_left_out_and_named_as_a_suspect",
    _T.WITNESS_REMOVED: "unit/test_witness_broker.py::test_who_leaves_witnesses_no_longer",
}
"""Type -> the test in which the real broker, and where a member makes it the real node too, produces it."""
LATER: dict[EntryType, str] = {
    _T.CONTRIBUTION_WITHDRAWN: "a member leaves with contract.exited, which ends what it gave; single updates stay",
    _T.SETTLEMENT_STATED: "no version states shares yet",
}
"""Types that nothing produces yet, and why; `iriai-verify` reads them."""


def test_every_type_of_entry_has_a_test_that_produces_it_or_a_reason():
    assert set(PRODUCED) & set(LATER) == set()
    assert set(PRODUCED) | set(LATER) == set(EntryType) == set(SCHEMA)


def test_what_is_produced_has_a_producer_and_what_comes_later_has_none():
    assert facts.written_types() == {str(one) for one in PRODUCED}


def test_the_tests_that_are_named_exist_and_speak_of_their_type():
    for kind, where in PRODUCED.items():
        if where == HERE:
            continue
        path, _, name = where.partition("::")
        source = (ROOT / "tests" / path).read_text("utf-8")
        functions = {
            one.name
            for one in ast.walk(ast.parse(source))
            if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert name in functions, where
        assert kind.name in source or f'"{kind}"' in source, where
