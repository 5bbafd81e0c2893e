# SPDX-License-Identifier: Apache-2.0
"""A member that owns its chain signs what no audit would accept: the log takes none of it, and the pool's audit stays clean.

`Owner` numbers and chains every envelope of its node anew, so that it may add, change or drop some: signatures and numbers hold.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import select

from broker.federation.session import RunSession
from broker.release.gate import Gate
from broker.store.tables import statement
from policies.encoding import canonical, digest
from policies.log.entries import EntryType
from policies.log.envelope import PAYLOAD_TYPE
from policies.signing import Envelope
from tests.federationsim import NAMES, ROUNDS, Killed, Pool, Said, running

LIAR = "kita"
Payload = dict[str, Any]
Change = Callable[[Payload, Said], list[Payload]]


class Owner:
    """What a node says, with its envelopes changed, on a chain that fits; the same envelope is changed once."""

    def __init__(self, change: Change) -> None:
        self._change = change
        self._made: dict[str, list[Payload]] = {}
        self._tip: tuple[int, str | None] | None = None

    def __call__(self, said: Said) -> Said:
        items = said.header.body.get("envelopes")
        if not items:
            return said
        found: list[Payload] = []
        for item in items:
            found += self._changed(Envelope.from_json(item).payload, said)
        return said.sealed(body={**said.header.body, "envelopes": found})

    def _changed(self, data: bytes, said: Said) -> list[Payload]:
        if data not in self._made:
            payload = json.loads(data)
            seq, prev = self._tip or (payload["seq"], payload["prev"])
            made = []
            for one in self._change(payload, said):
                numbered = canonical(one | {"seq": seq, "prev": prev})
                made.append(Envelope.seal(numbered, PAYLOAD_TYPE, said.node.key).to_json())
                seq, prev = seq + 1, digest(numbered)
            self._tip, self._made[data] = (seq, prev), made  # type: ignore[index]
        return self._made[data]  # type: ignore[index]


def other(payload: Payload, **body: Any) -> Payload:
    """Another envelope like it, with fields of the body replaced."""
    nonce = hashlib.sha256(payload["nonce"].encode() + canonical(body)).hexdigest()[:32]
    return payload | {"nonce": nonce, "body": payload["body"] | body}


def with_body(kind: str, **body: Any) -> Change:
    return lambda one, _said: [one | {"body": one["body"] | body}] if one["kind"] == kind else [one]


def twice(kind: str, **body: Any) -> Change:
    return lambda one, _said: [one, other(one, **body)] if one["kind"] == kind else [one]


def without(kind: str) -> Change:
    return lambda one, _said: [] if one["kind"] == kind else [one]


def late(kind: str, after: str) -> Change:
    """Envelopes of a kind come after the next one of another kind."""
    kept: list[Payload] = []

    def change(one: Payload, _said: Said) -> list[Payload]:
        if one["kind"] == kind:
            kept.append(one)
            return []
        if one["kind"] == after:
            return [one, *(kept.pop() for _ in range(len(kept)))]
        return [one]

    return change


CASES: dict[str, tuple[Change, str]] = {
    "a spend that is left out": (without("epsilon.spent"), "budget.diverged"),
    "a spend before its budget": (late("budget.opened", "epsilon.spent"), "budget.diverged"),
    "a spend that costs nothing": (with_body("epsilon.spent", rho_nano=0), "budget.diverged"),
    "a spend twice": (twice("epsilon.spent"), "budget.diverged"),
    "a spend of another lineage": (with_body("epsilon.spent", lineage="kita/other"), "budget.diverged"),
    "more than the cap holds": (with_body("epsilon.spent", rho_nano=10**12), "budget.diverged"),
    "a budget of another cap": (
        with_body("budget.opened", epsilon_max="0.5", alpha_star=3),
        "budget.diverged",
    ),
    "a budget of no order": (with_body("budget.opened", alpha_star=1), "budget.diverged"),
    "a budget in another unit": (with_body("budget.opened", unit="order"), "budget.diverged"),
    "a budget opened twice, differently": (twice("budget.opened", epsilon_max="1000"), "budget.diverged"),
    "no budget opened": (without("budget.opened"), "budget.diverged"),
    "two submissions in one attempt": (
        twice("submission.received", update="sha256:" + "7" * 64),
        "submission-differs",
    ),
    "one decision with two outcomes": (
        twice("decision.recorded", outcome="refuse", clauses=["dp-1"]),
        "decision-differs",
    ),
}


def incidents(pool: Pool, run: str) -> list[str]:
    """Kinds of the incidents of a run; the evidence of each is kept, and signed by the liar."""
    found = pool.entries(EntryType.INCIDENT_DECLARED, run)
    with pool.services.store.read() as session:
        kept = {row.digest: row.bytes for row in session.execute(select(statement))}
    for one in found:
        evidence = Envelope.from_bytes(kept[one.pub["evidence"]])
        assert evidence.signed_by(pool.nodes[LIAR].key.public)
        assert json.loads(evidence.payload)["run"] == run
    return [one.pub["kind"] for one in found]


def out(pool: Pool, go: Any, run: str) -> list[tuple[str, str, int]]:
    """Whom the operator is shown as out of a run: party, incident, round."""
    shown = go(pool.house.alice.get(f"/operator/runs/{run}")).json()["out"]
    return [(one["party"], one["kind"], one["round"]) for one in shown]


def asked(pool: Pool, kind: str = "train.contribute") -> list[int]:
    """Rounds for which the liar was asked."""
    return [number for name, what, number, _ in pool.fleet.asked if (name, what) == (LIAR, kind)]


@pytest.mark.parametrize(("change", "reason"), CASES.values(), ids=CASES)
def test_what_an_audit_would_refuse_gets_no_entry_and_its_node_is_out_of_the_run(change: Change, reason: str):
    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(Owner(change))
        run = go(pool.run())
        assert pool.verdicts(run) == [dict.fromkeys(NAMES, "accepted") | {LIAR: "refused"}] * ROUNDS
        assert incidents(pool, run) == [reason]
        assert out(pool, go, run) == [(LIAR, reason, 1)]
        assert asked(pool) == [1]
        assert asked(pool, "evaluate.judge") == []
        actors = {pool.alias(LIAR, run, number) for number in (None, *range(ROUNDS + 1))}
        assert not [one for one in pool.entries(run_id=run) if one.actor in actors]
        assert pool.expected_model(run) == pool.row(run).model_digest
        assert list(pool.candidates().values()) == ["released"]
        pool.check_books(run)
        pool.check_audit()


def test_who_is_out_of_one_run_is_heard_again_in_the_next_and_refused_for_what_it_still_sends():
    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(Owner(with_body("epsilon.spent", rho_nano=0)))
        runs = [go(pool.run()), go(pool.run())]
        assert [incidents(pool, run) for run in runs] == [["budget.diverged"]] * 2
        assert asked(pool) == [1, 1]
        pool.check_audit()


def test_a_broker_that_starts_again_knows_who_is_out():
    async def story(pool: Pool) -> str:
        run = await pool.open_run()
        with pytest.raises(Killed):
            await pool.idle()
        await pool.kill()
        await pool.open()
        await pool.idle()
        return run

    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(Owner(with_body("epsilon.spent", rho_nano=0)))

        def ends(said: Said) -> Said:
            if said.contributes and said.header.round == 2 and pool.steps.at is None:
                pool.steps.at = len(pool.steps.names)
            return said

        pool.nodes["hanbit"].lies.append(ends)
        run = go(story(pool))
        assert [one[LIAR] for one in pool.verdicts(run)] == ["refused"] * ROUNDS
        assert incidents(pool, run) == ["budget.diverged"]
        assert asked(pool) == []  # of the second process
        pool.check_audit()


def test_a_run_ends_where_too_few_groups_are_left():
    with running() as (pool, go):
        for name in ("hanbit", "iber", LIAR):
            pool.nodes[name].lies.append(Owner(without("budget.opened")))
        run = go(pool.run())
        assert (pool.row(run).state, pool.row(run).outcome) == ("stopped", "stopped")
        assert len(pool.entries(EntryType.INCIDENT_DECLARED, run)) == 3
        pool.check_audit()


def test_a_submission_that_comes_only_with_the_reply_of_another_run_has_its_verdict(
    monkeypatch: pytest.MonkeyPatch,
):
    async def story(pool: Pool) -> str:
        await pool.open_run()
        runs.append(await pool.open_run())
        await pool.idle()
        return runs[0]

    runs: list[str] = []
    close = RunSession._close

    async def slowly(self: RunSession, *arguments: Any, **named: Any) -> Any:
        if [self.run] == runs:
            await asyncio.sleep(5)  # the other run closes its round first
        return await close(self, *arguments, **named)

    monkeypatch.setattr(RunSession, "_close", slowly)
    with running(**{"privacy.epsilon_total": "10"}) as (pool, go):
        pool.nodes[LIAR].lies.append(
            lambda said: None if said.contributes and [said.header.run] == runs else said
        )
        mute = go(story(pool))
        assert pool.verdicts(mute)[0] == dict.fromkeys(NAMES, "accepted") | {LIAR: "refused"}
        assert {reason for _, _, reason in pool.refusals(mute)} == {"round-closed"}
        pool.check_books(mute)
        pool.check_audit()


# --- evaluation and votes ---


def test_the_report_names_exactly_the_evaluations_that_the_entry_refers_to():
    with running() as (pool, go):
        run = go(pool.run())
        (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED, run)
        check_report(pool, run, evaluated, NAMES)
        pool.check_audit()


def check_report(pool: Pool, run: str, evaluated: Any, names: Any) -> None:
    entries = pool.entries()
    seen = [index for index, one in enumerate(entries) if one.type is EntryType.EVALUATION_RECEIVED]
    last = max(index for index, one in enumerate(entries) if one.type is EntryType.AGGREGATE_RELEASED)
    assert evaluated.refs == tuple(sorted([*seen, last]))
    with pool.services.store.read() as session:
        query = select(statement.c.bytes).where(statement.c.digest == evaluated.pub["report"])
        report = json.loads(session.scalar(query))
    said = {entries[index].actor: entries[index].pub["evaluation"] for index in seen}
    assert report["evaluations"] == said
    assert set(said) == {pool.alias(name, run, None) for name in names}


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (twice("evaluation.received", evaluation="sha256:" + "7" * 64), "evaluation-differs"),
        (
            lambda one, said: with_body(
                "epsilon.spent", **({"steps": 9} if said.header.type.value == "evaluate.judge" else {})
            )(one, said),
            "budget.diverged",
        ),
    ],
    ids=["two evaluations", "an evaluation of more steps"],
)
def test_an_answer_about_a_candidate_that_an_audit_would_refuse_gets_no_entry(change: Change, reason: str):
    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(Owner(change))
        run = go(pool.run())
        assert incidents(pool, run) == [reason]
        (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED, run)
        check_report(pool, run, evaluated, [name for name in NAMES if name != LIAR])
        pool.check_audit()


def test_a_veto_that_is_cast_in_another_run_is_no_entry_that_the_gate_overlooked():
    with running() as (pool, go):
        first = go(pool.run())

        def elsewhere(one: Payload, _said: Said) -> list[Payload]:
            if one["kind"] == "vote.cast":
                return [one | {"run": first, "body": one["body"] | {"vote": "veto", "clause": "party-kita"}}]
            return [one]

        pool.nodes[LIAR].lies.append(Owner(elsewhere))
        second = go(pool.run())
        assert pool.row(second).state == "completed"
        assert len(pool.entries(EntryType.VOTE_CAST, second)) == 3
        assert len(pool.entries(EntryType.VOTE_CAST, first)) == 4
        pool.check_audit()


def test_a_veto_between_the_gates_look_and_its_decision_counts(monkeypatch: pytest.MonkeyPatch):
    compute = Gate._compute

    with running() as (pool, go):

        async def vetoed(self: Gate, plan: Any) -> None:
            ((name, state),) = pool.candidates().items()
            (run,) = {one.run for one in pool.entries(EntryType.CANDIDATE_EVALUATED)}
            if state == "waiting":
                assert (await pool.nodes[LIAR].vote(name, run, "veto")).status_code == 200
            await compute(self, plan)

        monkeypatch.setattr(Gate, "_compute", vetoed)
        go(pool.run())
        assert list(pool.candidates().values()) == ["refused"]
        assert pool.entries(EntryType.MODEL_RELEASED) == []
        pool.check_audit()
