# SPDX-License-Identifier: Apache-2.0
"""Each kind of clause violated where it is really asked: the node's guard, the broker's permits, the gate, the
download, the notices. The action does not happen, and the clause that was signed about it is named.

Nothing here calls the evaluator: facts come from data, files, rows and the log, as in a run.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from sqlalchemy import insert

from broker.federation.checkpoints import ModelFiles
from broker.federation.participants import participants
from broker.federation.permits import Permits
from broker.federation.progress import progress
from broker.federation.records import open_attempt
from broker.federation.tools import Journal, Tools
from broker.release.gate import Gate
from broker.store.tables import candidate, contract_annex, model, round_, run
from client.contract.notices import Notices
from client.data.errors import FieldNotAllowedError
from policies.contract import CONTRACT_TYPE
from policies.contract.notices import Notice, seal_notice
from policies.encoding import digest
from policies.exchange import ExchangeType
from policies.log.entries import EntryType, Event, alias, from_envelope
from policies.log.envelope import open_envelope
from policies.ports import iso_s, to_ms
from policies.recipe import load as load_recipe
from policies.signing import Envelope
from tests import federationsim  # remembers the tight figure of a plan for all gates of the process
from tests.brokersim import RECIPE, House, NodeSim, all_sign, draft, open_house, pool
from tests.nodeworld import FIELDS, IN_TERM_MS, World, kinds, ready_world
from tests.seedsim import Planted, planted_world

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from policies.contract import Contract

assert federationsim
HOUR_MS = 3_600_000
MODEL = digest(b"the average")
SECRET = {"clause": "secret-1", "party": "nord", "fields": ["gripper_width"], "basis": "Data Act 4(6)"}
VALIDATION = {"clause": "validate-1", "quorum": "0.67", "max_rejected_rounds": 3}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


# --- the node's guard: before a byte of the tensor is pulled ---

AT_THE_GUARD: dict[str, tuple[dict[str, Any], str]] = {
    "recipe: more steps": ({"recipes.0.max_local_steps_per_round": 0}, "recipe-1"),
    "privacy: another delta": ({"privacy.delta": "1e-6"}, "dp-1"),
    "privacy-cap: this party's own": (
        {"privacy.per_party": [{"clause": "dp-2", "party": "kita", "epsilon_per_release": "4"}]},
        "dp-2",
    ),
    "aggregation: a plain sum where the contract requires masks": (
        {"aggregation.secure_aggregation": "required"},
        "k-1",
    ),
}


@pytest.mark.parametrize("name", AT_THE_GUARD)
def test_the_guard_refuses_a_round_by_its_clause_and_pulls_nothing(tmp_path: Path, name: str) -> None:
    changes, clause = AT_THE_GUARD[name]
    world = GuardWorld(tmp_path, changes=dict(changes)).ready()
    _, reply = world.ask()
    assert (reply.status, world.pulled, world.learner.trained) == ("refused", 0, [])
    assert kinds(reply) == ["decision.recorded"]
    body = json.loads(_envelope(reply))["body"]
    assert body["outcome"] == "refuse"
    assert clause in body["clauses"]


def test_the_guard_refuses_a_round_whose_start_nobody_can_account_for(tmp_path: Path) -> None:
    world, planted = planted_world(tmp_path)
    world.ready()
    name = digest(planted.donations[0].envelope)
    (world.shelf().folder(world.contract.digest) / f"annex-{name[7:]}").unlink()
    del world.broker.annexes[name]
    world.restart()
    _, reply = world.ask()
    assert (reply.status, world.pulled, world.learner.trained) == ("refused", 0, [])
    assert json.loads(_envelope(reply))["body"]["clauses"] == ["seed-1"]


@pytest.mark.parametrize("told", ["safety-monitoring", "", 7])
def test_the_guard_refuses_a_run_for_another_purpose(tmp_path: Path, told: Any) -> None:
    world = ready_world(tmp_path)
    _, reply = world.ask(body={"purpose": told})
    assert (reply.status, world.pulled) == ("refused", 0)
    assert json.loads(_envelope(reply))["body"]["clauses"] == ["purpose-1"]


def test_fields_that_the_contract_does_not_list_are_not_even_imported(tmp_path: Path) -> None:
    world = World(tmp_path, changes={"fields.allow": ["tcp_pos", "object_pos"]})
    own = Envelope.seal(world.contract.canonical, CONTRACT_TYPE, world.member.identity.key)
    world.broker.signatures[world.contract.digest] = [("kita", own.signatures[0][1])]
    world.finalize()
    with pytest.raises(FieldNotAllowedError) as refused:
        world.add_data()
    assert refused.value.clause == "fields-1"


class GuardWorld(World):
    """A world whose contract allows fewer steps than the recipe takes, if it is told so."""

    def draft(self, **changes: Any) -> Contract:
        from policies.contract import from_tree

        steps = self.changes.pop("recipes.0.max_local_steps_per_round", None)
        contract = super().draft(**changes)
        if steps is None:
            return contract
        tree = contract.document
        tree["recipes"][0]["max_local_steps_per_round"] = 1
        tree["recipes"][0]["max_rounds"] = 1
        return from_tree(tree)

    def ask(self, *args: Any, **named: Any) -> Any:
        most = self.contract.recipes[0].max_rounds
        return super().ask(*args, **({"round": most + 1} | named) if most == 1 else named)


def _envelope(reply: Any) -> bytes:
    from policies.signing import Envelope

    return Envelope.from_json(reply.body["envelopes"][0]).payload


def _say(world: World, kind: str, **terms: Any) -> None:
    """An own notice, which counts at this node before anybody else hears of it."""
    held = world.shelf().get(world.contract.digest)
    notices = Notices(world.shelf())
    said = Notice(
        kind=kind,
        contract=world.contract.digest,
        party="kita",
        seq=1,
        at=iso_s(world.clock.ms),
        code="incident.open",
        **terms,
    )
    notices.say(held, said, world.member.identity.key)


@pytest.mark.parametrize(
    ("kind", "terms", "clause"),
    [("halt", {}, "halt-1"), ("exit", {"choice": "retrain"}, "party-kita")],
)
def test_the_guard_stops_at_once_when_its_owner_halts_or_leaves(tmp_path, kind, terms, clause) -> None:
    world = ready_world(tmp_path)
    world.ask(ExchangeType.PING)  # the signatures are here now
    _say(world, kind, **terms)
    _, reply = world.ask()
    assert (reply.status, world.pulled) == ("refused", 0)
    assert clause in json.loads(_envelope(reply))["body"]["clauses"]


def test_the_guard_refuses_by_the_conflict_clause_what_it_cannot_know(tmp_path: Path) -> None:
    world = ready_world(tmp_path)
    world.ask(ExchangeType.PING)
    folder = world.shelf().folder(world.contract.digest) / "notices"
    for path in folder.iterdir():
        path.unlink()
    _, reply = world.ask()
    assert (reply.status, world.pulled) == ("refused", 0)
    clauses = json.loads(_envelope(reply))["body"]["clauses"]
    assert {"conflict-1", "halt-1", "party-kita"} <= set(clauses)


def test_the_guard_refuses_outside_the_term(tmp_path: Path) -> None:
    world = ready_world(tmp_path)
    world.clock.ms = to_ms(world.contract.term.expires)
    _, reply = world.ask()
    assert (reply.code, world.pulled) == ("contract.expired", 0)


# --- the broker's permits: before anybody is asked, and before anything is averaged ---


@dataclass
class Stage:
    """A run whose round would be opened next, with the broker's own tools."""

    house: House
    nodes: list[NodeSim]
    contract: Contract
    run: str
    tools: Tools
    recipe: bytes = RECIPE

    @property
    def permits(self) -> Permits:
        return Permits(self.tools, self.run, self.contract, load_recipe(self.recipe))

    async def open_round(self) -> Any:
        """What `broker.federation.session` does before it asks."""
        recipe, contracts = load_recipe(self.recipe), self.tools.contracts
        asked = participants(contracts, self.contract, recipe)

        def work(session, tx):
            weights = np.zeros(recipe.parameters, dtype=np.float32)
            opening = self.permits.opening(
                session, progress(session, self.run, contracts), weights, asked, frozenset()
            )
            open_attempt(session, tx, opening)
            return opening

        opening, _ = await self.tools.writer.run(work)
        return opening


async def staged(
    house: House,
    nodes: list[NodeSim] | None = None,
    *,
    recipe: bytes = RECIPE,
    annexes: Mapping[str, bytes] = MappingProxyType({}),
    **sections: Any,
) -> Stage:
    nodes = nodes or await pool(house)
    fitting = _fitting(house, nodes)
    kept = {name: fitting[name] for name in ("fields", "privacy", "recipes")}
    contract = draft(house, nodes, **(kept | sections))
    answer = await house.alice.offer(contract, (recipe,), tuple(annexes.values()))
    assert answer.status_code == 201, answer.text
    await all_sign(nodes, contract)
    house.clock.ms = IN_TERM_MS
    body = {"contract": contract.digest, "recipe": "pick"}
    answer = await house.alice.post("/operator/runs", body)
    assert answer.status_code == 201, answer.text
    services = house.services
    tools = Tools(
        engine=house.fleet,  # type: ignore[arg-type]
        writer=services.writer,
        store=services.store,
        contracts=services.contracts,
        clock=house.clock,
        entropy=services.entropy,
        broker_key=services.keys.broker,
        settings=services.settings,
        models=ModelFiles(services.settings.models),
        journal=Journal(),
    )
    return Stage(house, nodes, contract, answer.json()["run"], tools, recipe)


def _fitting(house: House, nodes: list[NodeSim]) -> dict[str, Any]:
    """A contract that the recipe fits: its fields, its steps, what it costs."""
    tree = draft(house, nodes).document
    tree["fields"] |= {"allow": sorted(FIELDS)}
    tree["privacy"] |= {"epsilon_per_release": "8.5", "epsilon_total": "10"}
    tree["recipes"][0] |= {"max_local_steps_per_round": 20}
    return tree


def _section(house: House, nodes: list[NodeSim], name: str, **changes: Any) -> dict[str, Any]:
    """A section of the fitting contract, changed."""
    tree = _fitting(house, nodes)
    if isinstance(tree[name], list):
        return {name: [one | changes for one in tree[name]]}
    return {name: tree[name] | changes}


AT_THE_OPENING: dict[str, tuple[str, dict[str, Any], str]] = {
    "fields": ("fields", {"allow": ["tcp_pos"]}, "fields-1"),
    "secret": ("fields", {"trade_secret": [SECRET | {"fields": ["object_pos"]}]}, "secret-1"),
    "privacy": ("privacy", {"delta": "0.0000001"}, "dp-1"),
    "privacy-cap": (
        "privacy",
        {"per_party": [{"clause": "dp-9", "party": "kita", "epsilon_per_release": "0.1"}]},
        "dp-9",
    ),
    "aggregation": ("aggregation", {"max_share": "0.3"}, "k-1"),
    "recipe": ("recipes", {"max_local_steps_per_round": 1, "max_rounds": 1}, "recipe-1"),
}


@pytest.mark.parametrize("kind", AT_THE_OPENING)
async def test_nobody_is_asked_whom_a_clause_keeps_out(house: House, kind: str) -> None:
    section, changes, clause = AT_THE_OPENING[kind]
    nodes = await pool(house)
    sections = _section(house, nodes, section, **changes)
    if kind == "secret":
        sections["fields"]["allow"] = [one for one in sections["fields"]["allow"] if one != "object_pos"]
    if kind == "privacy-cap":  # known before any round: the run is not opened
        with pytest.raises(AssertionError, match=f'"clause":"{clause}","code":"budget.exhausted"'):
            await staged(house, nodes, **sections)
        return
    stage = await staged(house, nodes, **sections)
    if kind == "recipe":  # a round was settled before: the next is one too many

        def before(session, _tx):
            session.execute(
                insert(round_).values(
                    run_id=stage.run,
                    round=1,
                    attempt=1,
                    base=MODEL,
                    model=MODEL,
                    accepted=3,
                    refused=0,
                    verdicts="{}",
                    at_ms=IN_TERM_MS,
                )
            )

        await house.services.writer.run(before)
    opening = await stage.open_round()
    kept_out = [one for one, judgement in opening.judged if clause in judgement.decision.clauses]
    assert kept_out, [judgement.decision.clauses for _, judgement in opening.judged]
    assert not {one.party for one in kept_out} & {one.party for one in opening.cohort}
    refused = [one for one in house.entries(EntryType.DECISION_RECORDED) if one.pub["outcome"] == "refuse"]
    assert any(clause in one.pub["clauses"] for one in refused)
    if len(kept_out) == len(opening.judged):
        assert house.entries(EntryType.ROUND_OPENED) == []


async def test_a_consent_that_is_no_longer_on_record_opens_no_round(house: House) -> None:
    nodes = await pool(house)
    planted = Planted({one.name: one.key for one in nodes}, recipe=load_recipe(RECIPE))
    started = planted.started.canonical
    recipes = _section(house, nodes, "recipes", recipe_digest=digest(started))
    stage = await staged(
        house, nodes, recipe=started, annexes=planted.annexes, seed_sets=[planted.clause()], **recipes
    )
    name = "open:" + digest(planted.donations[0].envelope)
    with house.services.store.main.begin() as session:  # past the broker
        session.execute(contract_annex.delete().where(contract_annex.c.sha256 == name))
    opening = await stage.open_round()
    assert not opening.permitted
    assert {clause for _, one in opening.judged for clause in one.decision.clauses} == {"seed-1"}
    assert house.entries(EntryType.ROUND_OPENED) == []


async def test_a_halt_between_two_rounds_opens_no_round(house: House) -> None:
    stage = await staged(house)
    body = {"code": "incident.open", "clause": None, "text": None}
    path = f"/operator/contracts/{stage.contract.digest}/halt"
    assert (await house.alice.post(path, body)).status_code == 201
    opening = await stage.open_round()
    assert not opening.permitted
    assert {clause for _, one in opening.judged for clause in one.decision.clauses} == {"halt-1"}
    assert house.entries(EntryType.ROUND_OPENED) == []


AT_THE_AVERAGE: dict[str, tuple[dict[str, Any], str]] = {
    "validation": ({"validation": VALIDATION}, "validate-1"),
    "term": ({}, "term-1"),
    "party: a survivor that has left": ({}, "k-1"),
}


@pytest.mark.parametrize("kind", AT_THE_AVERAGE)
async def test_nothing_is_averaged_against_a_clause(house: House, kind: str) -> None:
    changes, clause = AT_THE_AVERAGE[kind]
    nodes = await pool(house, "kita", "nord", "iber", "hanbit")
    stage = await staged(house, nodes, **changes)
    survivors = ("iber", "kita", "nord")
    if kind == "term":
        house.clock.ms = to_ms(stage.contract.term.expires)
    if kind.startswith("party"):
        await leaves(nodes[0], stage.contract)
    with house.services.store.read() as session:
        at = progress(session, stage.run, house.services.contracts)
        if kind == "validation":  # as many models in a row as the clause names were taken back
            at = replace(at, rejections=3)
        judged = stage.permits.aggregate(at, 1, survivors, session)
    assert not judged.allow
    assert clause in judged.decision.clauses


async def leaves(node: NodeSim, contract: Contract, choice: str = "retrain") -> Any:
    """The notice of exit of a party."""
    said = Notice(
        kind="exit",
        contract=contract.digest,
        party=node.name,
        seq=1,
        at=iso_s(node.house.clock.ms),
        code="new-strategy",
        choice=choice,
    )
    body = {"contract": contract.digest, "clause": None, "reason": said.code, "notice": said.digest}
    envelope = node.seal(EntryType.CONTRACT_EXITED, body, scope=contract.digest)
    sent = {"notice": seal_notice(said, node.key).to_json(), "envelope": envelope.to_json()}
    return await node.post(f"/contracts/{contract.digest}/notices", sent)


async def test_who_leaves_with_a_choice_that_was_not_agreed_has_not_left(house: House) -> None:
    nodes = await pool(house, "kita", "nord", "iber", "hanbit")
    stage = await staged(house, nodes)
    assert stage.contract.exit.unreleased_models == "retrain"
    refused = await leaves(nodes[3], stage.contract, choice="discard")
    assert refused.json()["clause"] == "exit-1"
    opening = await stage.open_round()
    assert "hanbit" in {one.party for one in opening.cohort}


# --- the gate: no release, no bytes ---


async def with_candidate(stage: Stage, *, approve: bool = True) -> None:
    """What the round runner would have stored about a run that ended, and what every silo said."""
    names = [node.name for node in stage.nodes]
    path = stage.tools.settings.models / "candidate"
    path.write_bytes(b"weights")
    said = []
    for node in stage.nodes:
        heard = {"candidate": MODEL, "evaluation": digest(node.name.encode())}
        said.append((node, EntryType.EVALUATION_RECEIVED, heard))
        vote = {"subject": MODEL, "vote": "approve" if approve else "veto", "clause": None}
        said.append((node, EntryType.VOTE_CAST, vote))

    def work(session, tx):
        scope = stage.contract.digest
        pub = {"aggregate": MODEL, "model": MODEL, "attempt": 1, "count": len(names), "transcript": None}
        tx.add(Event(type=EntryType.AGGREGATE_RELEASED, scope=scope, run=stage.run, round=1, pub=pub))
        for node, kind, body in said:
            envelope = node.seal(kind, body, scope=scope, run=stage.run)
            payload = open_envelope(envelope, node.key.public)
            tx.add(from_envelope(envelope, payload, actor=alias(node.alias_key, scope, stage.run, None)))
        pub = {"candidate": MODEL, "checks": {"federated-evaluation": "pass"}, "report": digest(b"report")}
        tx.add(Event(type=EntryType.CANDIDATE_EVALUATED, scope=scope, run=stage.run, pub=pub))
        verdicts = json.dumps(dict.fromkeys(names, "accepted"))
        session.execute(
            insert(round_).values(
                run_id=stage.run,
                round=1,
                attempt=1,
                base=MODEL,
                model=MODEL,
                accepted=len(names),
                refused=0,
                verdicts=verdicts,
                at_ms=tx.now_ms,
            )
        )
        session.execute(
            insert(model).values(digest=MODEL, run_id=stage.run, round=1, kind="candidate", path=str(path))
        )
        session.execute(insert(candidate).values(digest=MODEL, run_id=stage.run, state="waiting"))
        session.execute(run.update().values(state="completed", outcome="completed", round=1))

    await stage.tools.writer.run(work)


async def decided(house: House, nodes: list[NodeSim] | None = None, **sections: Any) -> tuple[Stage, str]:
    stage = await staged(house, nodes, **sections)
    await with_candidate(stage)
    return stage, await Gate(stage.tools).decide(MODEL)


async def test_without_a_violation_the_candidate_is_released_and_delivered(house: House) -> None:
    stage, state = await decided(house)
    assert state == "released"
    assert (await stage.nodes[0].get(f"/models/{MODEL}/weights")).status_code == 500  # the file is a stand-in
    assert len(house.entries(EntryType.MODEL_EXPORTED)) == 1


REPORTED = ["federated-evaluation", "log-root", "membership-inference-report", "privacy-statement"]
AT_THE_GATE: dict[str, tuple[str, dict[str, Any], str]] = {
    "release: evidence that nobody makes": (
        "release",
        {"evidence": ["canary-report", "federated-evaluation", "log-root", "privacy-statement"]},
        "release-1",
    ),
    "release: a report that is not there": (
        "release",
        {"evidence": REPORTED, "max_mia_auc": "0.65"},
        "release-1",
    ),
    "aggregation: weights that one group dominates": ("aggregation", {"max_share": "0.3"}, "k-1"),
}


@pytest.mark.parametrize("kind", AT_THE_GATE)
async def test_the_gate_refuses_for_good_by_its_clause(house: House, kind: str) -> None:
    section, changes, clause = AT_THE_GATE[kind]
    nodes = await pool(house)
    stage, state = await decided(house, nodes, **_section(house, nodes, section, **changes))
    assert state == "refused"
    assert house.entries(EntryType.MODEL_RELEASED) == []
    (refused,) = house.entries(EntryType.MODEL_REFUSED)
    assert clause in house.entries()[refused.refs[0]].pub["clauses"]
    assert (await stage.nodes[0].get(f"/models/{MODEL}/weights")).status_code == 403


async def test_a_forbidden_use_whose_report_is_missing_keeps_the_model_in(house: House) -> None:
    nodes = await pool(house)
    forbidden = {"clause": "forbid-1", "use": "reidentify", "check": "membership-inference"}
    sections = _section(house, nodes, "release", evidence=REPORTED, max_mia_auc="0.65")
    stage, state = await decided(house, nodes, forbidden=[forbidden], **sections)
    assert (state, house.entries(EntryType.MODEL_RELEASED)) == ("refused", [])
    (line,) = (await stage.nodes[0].get("/candidates")).json()["candidates"]
    assert "forbid-1" in line["refused_by"]


AT_THE_GATE_FOR_NOW: dict[str, tuple[str, dict[str, Any], str, int | None]] = {
    "aggregation: too fresh": ("aggregation", {"delay_hours": 24}, "k-1", 24 * HOUR_MS),
    "tier: under embargo": ("tiers", {"embargo_days": 30}, "tier-consortium", 30 * 24 * HOUR_MS),
    "audit: nobody cosigned": ("audit", {"witness_quorum": 3}, "audit-1", None),
}


@pytest.mark.parametrize("kind", AT_THE_GATE_FOR_NOW)
async def test_what_time_or_others_may_lift_waits_says_so_once_and_is_looked_at_again(house, kind) -> None:
    section, changes, clause, after_ms = AT_THE_GATE_FOR_NOW[kind]
    nodes = await pool(house)
    sections = _section(house, nodes, section, **changes)
    if section == "tiers":
        sections["tiers"] = [
            one if one["tier"] == "consortium" else one | {"embargo_days": None} for one in sections["tiers"]
        ]
    stage, state = await decided(house, nodes, **sections)
    gate = Gate(stage.tools)
    assert state == "waiting"
    for _ in range(3):
        assert await gate.decide(MODEL) == "waiting"
    gates = [one for one in house.entries(EntryType.DECISION_RECORDED) if one.pub["point"] == "gate"]
    assert [(one.pub["outcome"], one.pub["clauses"]) for one in gates] == [("refuse", [clause])]
    assert house.entries(EntryType.MODEL_REFUSED) == house.entries(EntryType.MODEL_RELEASED) == []
    opens_ms = None if after_ms is None else IN_TERM_MS + after_ms
    assert gate.opens_ms(MODEL) == opens_ms
    (line,) = (await nodes[0].get("/candidates")).json()["candidates"]
    assert (line["state"], line["opens_ms"]) == ("waiting", opens_ms)
    assert {one["clause"] for one in line["waits_for"]} == {clause}
    if opens_ms is None:
        return
    house.clock.ms = opens_ms - 1_000
    assert await gate.decide(MODEL) == "waiting"
    house.clock.ms = opens_ms
    assert await gate.decide(MODEL) == "released"
    (line,) = (await nodes[0].get("/candidates")).json()["candidates"]
    assert (line["state"], line["waits_for"], line["opens_ms"]) == ("released", [], None)


async def test_an_open_tier_waits_while_the_pool_has_the_model_already(house: House) -> None:
    nodes = await pool(house)
    tiers = draft(house, nodes).document["tiers"]
    own = next(one for one in tiers if one["tier"] == "consortium")
    public = own | {"clause": "tier-open", "tier": "open", "recipients": ["public"], "embargo_days": 180}
    stage, state = await decided(house, nodes, tiers=[*tiers, public])
    gate = Gate(stage.tools)
    assert (state, [one.pub["tier"] for one in house.entries(EntryType.MODEL_RELEASED)]) == (
        "released",
        ["consortium"],
    )
    assert gate.undecided() == (MODEL,)
    house.clock.ms = gate.opens_ms(MODEL) or 0
    assert house.clock.ms == IN_TERM_MS + 180 * 24 * HOUR_MS
    assert await gate.decide(MODEL) == "released"
    assert [one.pub["tier"] for one in house.entries(EntryType.MODEL_RELEASED)] == ["consortium", "open"]
    assert gate.undecided() == ()


async def test_a_halt_keeps_a_candidate_waiting_and_its_end_lets_it_out(house: House) -> None:
    stage = await staged(house)
    await with_candidate(stage)
    gate = Gate(stage.tools)
    body = {"code": "incident.open", "clause": None, "text": None}
    path = f"/operator/contracts/{stage.contract.digest}/halt"
    assert (await house.alice.post(path, body)).status_code == 201
    assert await gate.decide(MODEL) == "waiting"
    (halted,) = house.entries(EntryType.CONTRACT_HALTED)
    for node in stage.nodes:
        said = Notice(
            kind="resume",
            contract=stage.contract.digest,
            party=node.name,
            seq=1,
            at=iso_s(house.clock.ms),
            code="cause.removed",
            refers=halted.pub["notice"],
        )
        entry = {"contract": said.contract, "clause": None, "reason": said.code, "notice": said.digest}
        envelope = node.seal(EntryType.CONTRACT_RESUMED, entry, scope=said.contract)
        sent = {"notice": seal_notice(said, node.key).to_json(), "envelope": envelope.to_json()}
        assert (await node.post(f"/contracts/{said.contract}/notices", sent)).status_code == 200
    assert await gate.decide(MODEL) == "released"


async def test_a_candidate_with_the_update_of_who_left_is_never_released(house: House) -> None:
    nodes = await pool(house, "kita", "nord", "iber", "hanbit")
    stage = await staged(house, nodes)
    await with_candidate(stage)
    assert (await leaves(nodes[3], stage.contract)).status_code == 200
    assert await Gate(stage.tools).decide(MODEL) == "refused"
    assert house.entries(EntryType.MODEL_RELEASED) == []
    (refused,) = house.entries(EntryType.MODEL_REFUSED)
    assert "k-1" in house.entries()[refused.refs[0]].pub["clauses"]


async def test_a_quorum_of_acceptance_that_is_missing_waits_for_votes(house: House) -> None:
    nodes = await pool(house)
    stage = await staged(house, nodes, validation=VALIDATION | {"quorum": "1"})
    await with_candidate(stage)

    def veto(_session, tx):
        body = {"subject": MODEL, "vote": "veto", "clause": None}
        envelope = nodes[1].seal(EntryType.VOTE_CAST, body, scope=stage.contract.digest, run=stage.run)
        payload = open_envelope(envelope, nodes[1].key.public)
        actor = alias(nodes[1].alias_key, stage.contract.digest, stage.run, None)
        tx.add(from_envelope(envelope, payload, actor=actor))

    await stage.tools.writer.run(veto)
    assert await Gate(stage.tools).decide(MODEL) == "waiting"
    (line,) = (await nodes[0].get("/candidates")).json()["candidates"]
    assert {one["clause"] for one in line["waits_for"]} == {"validate-1"}
