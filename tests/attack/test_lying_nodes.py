# SPDX-License-Identifier: Apache-2.0
"""Nodes lie, each signing with its own, real key: out of that attempt, and nothing else changes for anybody.

One run tries a dozen lies: a lie per round, the nodes taking turns, so that each liar says the truth in the three rounds that
follow and takes part again.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest

from policies.encoding import b64, digest
from policies.identity import SigningKey
from policies.log.entries import EntryType
from policies.log.envelope import payload_digest
from policies.log.merkle import EMPTY_ROOT
from policies.privacy.plan import DpPlan
from tests.federationsim import NAMES, ROUNDS, Lie, Pool, Said, SimNode, payload_of, running

LIAR = "kita"
ALL = dict.fromkeys(NAMES, "accepted")
STRANGER = SigningKey.from_seed(b"S" * 32)
Change = Callable[[dict[str, Any]], dict[str, Any] | None]


BATCH = 12
LONG: dict[str, Any] = {
    "recipe": {"rounds": BATCH, "steps": 40},
    "privacy.epsilon_per_release": "8",
    "privacy.epsilon_total": "8",
}


@dataclass(frozen=True)
class Case:
    """A lie, and what the run's own lines call it; a vector that is spoilt before it is signed is one too."""

    name: str
    code: str
    lie: Lie = lambda said: said
    spoil: Callable[[np.ndarray], np.ndarray] = lambda update: update
    verdict: str = "refused"


def batches(cases: Sequence[Case]) -> list[Any]:
    """Parameters: the cases in batches of a run each, named by their first."""
    found = [cases[start : start + BATCH] for start in range(0, len(cases), BATCH)]
    return [pytest.param(one, id=f"{one[0].name} and so on") for one in found]


def liar_of(number: int) -> str:
    return NAMES[number % len(NAMES)]


def plant(pool: Pool, cases: Sequence[Case]) -> None:
    """Each case in a round of its own."""

    def lies(said: Said) -> Said | str | None:
        number = said.header.round
        told = said.contributes and number <= len(cases) and liar_of(number) == said.node.name
        return cases[number - 1].lie(said) if told else said

    for one in pool.nodes.values():
        one.lies.append(lies)
        one.learner.spoil = functools.partial(_spoilt, one, cases)


def _spoilt(node: SimNode, cases: Sequence[Case], update: np.ndarray) -> np.ndarray:
    number = node.learner.trained[-1][1]
    told = number <= len(cases) and liar_of(number) == node.name
    return cases[number - 1].spoil(update) if told else update


def check_cost_of_lies(pool: Pool, run: str, cases: Sequence[Case]) -> None:
    """Each liar is out of its round; everybody else and everything else is as without it."""
    assert pool.row(run).state == "completed", pool.journal.lines
    for number, seen in enumerate(pool.verdicts(run), start=1):
        told = cases[number - 1] if number <= len(cases) else None
        wanted = ALL | ({liar_of(number): told.verdict} if told else {})
        assert seen == wanted, (number, told)
    lines = [
        (facts["node"], facts["code"]) for event, facts in pool.journal.lines if event.startswith("reply.")
    ]
    wanted_lines = [(pool.nodes[liar_of(number)].id, one.code) for number, one in enumerate(cases, start=1)]
    assert lines == wanted_lines
    assert pool.expected_model(run) == pool.row(run).model_digest
    assert list(pool.candidates().values()) == ["released"]
    pool.check_books(run)
    pool.check_audit()


def check_batch(cases: Sequence[Case]) -> list[tuple[str, int, str]]:
    """Runs a batch; gives the refusals that stand in the log."""
    with running(**LONG) as (pool, go):
        plant(pool, cases)
        run = go(pool.run())
        check_cost_of_lies(pool, run, cases)
        assert "SECRET" not in str(pool.journal.lines)
        return pool.refusals(run)


# --- vectors ---


def at(place: int, value: float) -> Callable[[np.ndarray], np.ndarray]:
    def spoil(update: np.ndarray) -> np.ndarray:
        update[place] = value
        return update

    return spoil


VECTORS = (
    Case("NaN first", "update.not-finite", spoil=at(0, np.nan)),
    Case("NaN last", "update.not-finite", spoil=at(-1, np.nan)),
    Case("inf", "update.not-finite", spoil=at(7, np.inf)),
    Case("-inf", "update.not-finite", spoil=at(7, -np.inf)),
    Case("huge", "update.norm", spoil=lambda update: update * 0 + np.float32(3e38)),
    Case(
        "just above the bound",
        "update.norm",
        spoil=lambda one: one / np.linalg.norm(one) * np.float32(10.001),
    ),
)


def test_a_vector_that_must_not_be_averaged_is_refused_with_its_reason():
    refused = check_batch(VECTORS)
    assert refused == [(liar_of(number), number, one.code) for number, one in enumerate(VECTORS, start=1)]


def test_a_vector_at_the_bound_counts():
    with running() as (pool, go):
        pool.nodes[LIAR].learner.spoil = lambda update: update / np.linalg.norm(update) * np.float32(9.999)
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL] * ROUNDS


def tensor(change: Callable[[np.ndarray], np.ndarray]) -> Lie:
    return lambda said: said.sealed(tensor=change(np.frombuffer(said.tensor or b"", dtype="<f4")).tobytes())


MALFORMED: dict[str, Lie] = {
    "one value more": tensor(lambda update: np.append(update, np.float32(0))),
    "one value less": tensor(lambda update: update[:-1]),
    "two axes": lambda said: said.sealed(shape=(len(said.tensor or b"") // 8, 2)),
    "half a number": lambda said: Said(said.node, said.request, said.raw, (said.tensor or b"")[:-2]),
    "no vector": lambda said: Said(said.node, said.request, said.raw, None),
    "other bytes than it signed": lambda said: Said(
        said.node, said.request, said.raw, bytes(len(said.tensor or b""))
    ),
    "another's key": lambda said: said.sealed(key=said.node.pool.nodes[other_than(said)].key),
    "a key of nobody": lambda said: said.sealed(key=STRANGER),
    "a byte of the header changed": lambda said: Said(
        said.node, said.request, said.raw.replace(b'"sig":"', b'"sig":"A', 1), said.tensor
    ),
    "no header": lambda said: Said(said.node, said.request, b"", said.tensor),
    "the answer of another node": lambda said: Said(
        said.node, said.request, said.node.pool.overheard[other_than(said)], said.tensor
    ),
    "the answer of the round before": lambda said: Said(
        said.node,
        said.request,
        said.node.pool.overheard[said.node.name, said.header.round - 1],
        said.tensor,
    ),
}
NO_REPLIES = (
    Case("a code and no header", "contract.refused", lambda _said: "contract.refused", verdict="declined"),
    Case(
        "a text and no header", "engine.refused", lambda _said: "row 17: serial=SECRET-42", verdict="declined"
    ),
    Case("nothing", "engine.late", lambda _said: None, verdict="silent"),
)


def listen(said: Said) -> Said:
    said.node.pool.overheard[said.node.name] = said.raw
    said.node.pool.overheard[said.node.name, said.header.round] = said.raw
    return said


def test_a_reply_of_another_form_or_signer_is_refused():
    cases = [Case(name, "engine.reply-malformed", lie) for name, lie in MALFORMED.items()]
    with running(**LONG) as (pool, go):
        for one in pool.nodes.values():
            one.lies.append(listen)
        plant(pool, cases)
        check_cost_of_lies(pool, go(pool.run()), cases)


def test_what_is_no_reply_at_all_is_not_taken_for_one():
    assert check_batch(NO_REPLIES) == [(liar_of(number), number, "round-closed") for number in (1, 2, 3)]


# --- what is signed beside the vector ---


def body(**changes: Any) -> Lie:
    """The reply's body with keys replaced; None leaves one out."""

    def lie(said: Said) -> Said:
        old = {**said.header.body, **changes}
        return said.sealed(body={name: value for name, value in old.items() if value is not None})

    return lie


def of_kind(kind: str, change: Change) -> Lie:
    """Envelopes of one kind changed, and signed again by the node."""
    return lambda said: said.envelopes(
        lambda payload: change(payload) if payload["kind"] == kind else payload
    )


def within(**changes: Any) -> Change:
    """The payload with fields of its body replaced."""
    return lambda payload: {**payload, "body": {**payload["body"], **changes}}


def around(**changes: Any) -> Change:
    """The payload with fields of its header replaced."""
    return lambda payload: {**payload, **changes}


def decision(**changes: Any) -> Lie:
    """The disclosed request with facts replaced; the signed decision stays."""

    def lie(said: Said) -> Said:
        told = said.header.body["decision"]
        return said.sealed(
            body={**said.header.body, "decision": {**told, "request": told["request"] | changes}}
        )

    return lie


def other_than(said: Said) -> str:
    """Somebody who is not this sender, and was asked before it if that can be."""
    return "iber" if said.node.name == "hanbit" else "hanbit"


def by_another(said: Said) -> Said:
    """Its submission, signed by another member's key."""
    key = said.node.pool.nodes[other_than(said)].key
    return said.envelopes(
        lambda one: {**one, "nonce": "0" * 32} if one["kind"] == "submission.received" else one, key=key
    )


def of_another(said: Said) -> Said:
    """Another member's envelopes, as they are in the log."""
    stored = said.node.pool.nodes[other_than(said)].worker.outbox.envelopes()
    return said.sealed(
        body={**said.header.body, "envelopes": [one.envelope.to_json() for one in stored[-3:]]}
    )


def another_plan(said: Said) -> str:
    plan = dict(said.node.pool.recipe.plan_document or {})
    return DpPlan.load(plan | {"noise_multiplier": "0.5"}).digest


def as_another(said: Said) -> Said:
    """A decision about another party, made and signed as the guard would."""
    name = other_than(said)
    return redecided(
        said, lambda request, state: ({**request, "party": name, "dataset": f"{name}/pick"}, state)
    )


def redecided(
    said: Said, change: Callable[[dict[str, Any], dict[str, Any]], tuple[dict[str, Any], dict[str, Any]]]
) -> Said:
    """Another decision, evaluated and signed in good form."""
    from policies.contract import replay

    told = said.header.body["decision"]
    request, state = change(dict(told["request"]), dict(told["state"]))
    record = replay(
        said.node.pool.contract,
        point="node",
        request=request,
        state=state,
        salt16=bytes.fromhex(told["salt"]),
    )
    found = json.loads(record)
    against = sorted({one["clause"] for one in found["findings"] if one["outcome"] != "satisfied"})
    entry = {
        "decision": digest(record),
        "outcome": "allow" if found["allow"] else "refuse",
        "clauses": against,
    }
    changed = of_kind("decision.recorded", within(**entry))(said)
    assert isinstance(changed, Said)
    return changed.sealed(
        body={**changed.header.body, "decision": {**told, "request": request, "state": state}}
    )


def far_ahead(said: Said) -> Said:
    return redecided(said, lambda request, state: (request, {**state, "now": "2027-06-01T00:00:00Z"}))


def revoking(said: Said) -> Said:
    """In place of its submission, word that another member's key is revoked."""
    kid = digest(said.node.pool.nodes[other_than(said)].key.public)
    gone = {"kid": kid, "reason": "stolen", "valid_until": 0}
    return said.envelopes(
        lambda one: (
            {**one, "kind": "key.revoked", "body": gone} if one["kind"] == "submission.received" else one
        )
    )


def signing(party: Callable[[Said], str]) -> Lie:
    """In place of its submission, its word on the contract, with a warning acknowledged."""

    def lie(said: Said) -> Said:
        scope = said.node.pool.contract.digest
        word = {"contract": scope, "party": party(said), "acknowledged": ["lint.test-only:@document"]}
        around_it = {"kind": "contract.signed", "run": None, "round": None, "body": word}
        return said.envelopes(
            lambda one: {**one, **around_it} if one["kind"] == "submission.received" else one
        )

    return lie


NEWS: dict[str, tuple[Lie, str]] = {
    "no envelopes": (body(envelopes=None, decision=None), "submission-missing"),
    "envelopes that are none": (body(envelopes="many"), "envelope-malformed"),
    "an envelope that is none": (body(envelopes=[{"payload": 1}]), "envelope-malformed"),
    "more envelopes than a reply may have": (
        body(envelopes=[{}] * 65),
        "envelope-malformed",
    ),
    "an envelope signed by another": (by_another, "envelope-malformed"),
    "another's envelopes": (of_another, "envelope-malformed"),
    "for another log": (
        of_kind("submission.received", around(log="other.example/log")),
        "envelope-malformed",
    ),
    "for another contract": (
        of_kind("submission.received", around(scope="sha256:" + "0" * 64)),
        "envelope-malformed",
    ),
    "for no contract": (of_kind("submission.received", around(scope=None)), "envelope-malformed"),
    "for no run": (of_kind("submission.received", around(run=None)), "envelope-malformed"),
    "for no round": (of_kind("submission.received", around(round=None)), "envelope-malformed"),
    "for a run of nobody": (
        of_kind("decision.recorded", around(run="run_aaaaaaaaaaaaaaaa")),
        "decision-differs",
    ),
    "word that another's key is revoked": (revoking, "envelope-malformed"),
    "another's word on the contract": (
        signing(lambda said: said.node.pool.alias(other_than(said), None, None)),
        "envelope-malformed",
    ),
    "its word on the contract and no submission": (
        signing(lambda said: said.node.pool.alias(said.node.name, None, None)),
        "submission-missing",
    ),
    "no decision": (body(decision=None), "decision-missing"),
    "a decision that is none": (body(decision=[1]), "privacy.reply-field"),
    "a decision without a request": (
        body(decision={"request": {}, "state": {}, "salt": "00" * 16}),
        "decision-malformed",
    ),
    "a salt that is none": (
        lambda said: said.sealed(
            body={**said.header.body, "decision": {**said.header.body["decision"], "salt": "zz"}}
        ),
        "decision-malformed",
    ),
    "another salt": (
        lambda said: said.sealed(
            body={**said.header.body, "decision": {**said.header.body["decision"], "salt": "00" * 16}}
        ),
        "decision-differs",
    ),
    "a decision about another round": (decision(round=99), "decision-differs"),
    "a decision about more epsilon": (decision(epsilon_after_total="0.1"), "decision-differs"),
    "a decision about another request": (decision(round="a lot"), "decision-malformed"),
    "an outcome that it did not have": (
        of_kind("decision.recorded", within(outcome="refuse", clauses=["dp-1"])),
        "decision-differs",
    ),
    "a decision of the gate": (of_kind("decision.recorded", within(point="gate")), "envelope-malformed"),
    "a decision about another party": (as_another, "decision-differs"),
    "a decision of the far future": (far_ahead, "decision-differs"),
    "a decision as if nobody had signed": (
        lambda said: redecided(said, lambda request, state: (request, {**state, "executed": False})),
        "decision-differs",
    ),
    "a decision with less epsilon than the plan": (
        lambda said: redecided(
            said, lambda request, state: ({**request, "epsilon_after_release": "0.1"}, state)
        ),
        "decision-differs",
    ),
    "no submission": (of_kind("submission.received", lambda _payload: None), "submission-missing"),
    "a submission of another tensor": (
        of_kind("submission.received", within(update="sha256:" + "0" * 64)),
        "submission-differs",
    ),
    "another tensor than it submitted": (tensor(lambda update: update * 2), "submission-differs"),
    "a submission of more steps": (of_kind("submission.received", within(steps=7)), "submission-differs"),
    "a submission under no plan": (of_kind("submission.received", within(plan=None)), "submission-differs"),
    "a submission under another plan": (
        lambda said: of_kind("submission.received", within(plan=another_plan(said)))(said),
        "submission-differs",
    ),
    "a submission of another attempt": (
        of_kind("submission.received", within(attempt=2)),
        "submission-missing",
    ),
    "a budget entry of another round": (
        lambda said: of_kind("epsilon.spent", within(mechanism=f"{said.header.run}/99/1"))(said),
        "envelope-malformed",
    ),
    "a budget entry of another run": (
        of_kind("epsilon.spent", within(mechanism="run_aaaaaaaaaaaaaaaa/1/1")),
        "envelope-malformed",
    ),
}


@pytest.mark.parametrize("cases", batches([Case(name, code, lie) for name, (lie, code) in NEWS.items()]))
def test_a_reply_that_does_not_say_what_it_must_is_refused_with_its_reason(cases: Sequence[Case]):
    refused = check_batch(cases)
    assert {reason for _, _, reason in refused} <= {"round-closed"}  # nothing of a lie stands in the log


# --- an update whose spend is not what plan and steps give ---

SPENDS: dict[str, tuple[Lie, str]] = {
    "no budget entry": (of_kind("epsilon.spent", lambda _payload: None), "spend-missing"),
    "a budget entry of no steps": (of_kind("epsilon.spent", within(steps=0)), "spend-differs"),
    "a budget entry of another plan": (
        lambda said: of_kind("epsilon.spent", within(plan=another_plan(said)))(said),
        "spend-differs",
    ),
    "a budget entry of the evaluation": (
        lambda said: of_kind("epsilon.spent", within(plan=said.node.pool.recipe.evaluation.digest))(said),
        "spend-differs",
    ),
}


@pytest.mark.parametrize("name", SPENDS)
def test_a_spend_that_is_missing_or_another_is_an_incident_and_its_node_out_of_the_run(name: str):
    lie, code = SPENDS[name]
    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(lambda said: lie(said) if said.contributes else said)
        run = go(pool.run())
        assert pool.verdicts(run) == [ALL | {LIAR: "refused"}] * ROUNDS
        assert [one.pub["kind"] for one in pool.entries(EntryType.INCIDENT_DECLARED, run)] == [
            "budget.diverged"
        ]
        refused = [one["code"] for one in pool.journal.of("reply.refused")]
        assert refused == [code, *["incident-declared"] * (ROUNDS - 1)]
        assert list(pool.candidates().values()) == ["released"]
        pool.check_books(run)
        pool.check_audit()


# --- what the log does not take: known only when everything else was settled ---


def next_number(said: Said, by: int) -> Said:
    return said.envelopes(
        lambda one: {**one, "seq": one["seq"] + by} if one["kind"] == "submission.received" else one
    )


def on_the_chain_of_another(said: Said) -> Said:
    other = said.node.pool.nodes[other_than(said)].worker.outbox
    newest = other.envelopes()[-1]
    chain = {"chain": other.chain, "seq": newest.seq + 1, "prev": newest.env}
    return said.envelopes(lambda one: one | chain if one["kind"] == "submission.received" else one)


def beside(said: Said, **changes: Any) -> Said:
    """Beside its own envelopes, one more in good order."""
    mine = said.header.body["envelopes"]
    last = payload_of(mine[-1])
    more = last | {"seq": last["seq"] + 1, "prev": payload_digest(last)} | changes
    return said.sealed(body={**said.header.body, "envelopes": [*mine, said.node.sign(more)]})


def of_a_round_to_come(said: Said) -> Said:
    update = payload_of(said.header.body["envelopes"][-1])["body"] | {"update": "sha256:" + "7" * 64}
    return beside(said, round=77, body=update)


def voting_nowhere(said: Said) -> Said:
    veto = {"subject": "sha256:" + "0" * 64, "vote": "veto", "clause": None}
    return beside(said, kind="vote.cast", run="run_aaaaaaaaaaaaaaaa", body=veto)


def spending_in_another_run(said: Said) -> Said:
    plan = said.node.pool.recipe.plan
    spent = {"mechanism": "run_aaaaaaaaaaaaaaaa/1/1", "plan": plan.digest if plan else None, "steps": 1}
    more = {"lineage": "x", "rho_nano": 1, "epsilon_after": "1"}
    return beside(said, kind="epsilon.spent", run="run_aaaaaaaaaaaaaaaa", round=1, body=spent | more)


UNLOGGABLE: dict[str, Lie] = {
    "a number left out": lambda said: next_number(said, 1),
    "a number used before": lambda said: next_number(said, -1),
    "another past": of_kind("submission.received", around(prev="sha256:" + "0" * 64)),
    "a checkpoint that never was": of_kind(
        "submission.received", around(seen={"size": 5, "root": b64(b"r" * 32)})
    ),
    "a checkpoint of the future": of_kind(
        "submission.received", around(seen={"size": 9_999, "root": b64(b"r" * 32)})
    ),
    "a checkpoint that went back": of_kind(
        "submission.received", around(seen={"size": 0, "root": b64(EMPTY_ROOT)})
    ),
    "a chain of its own each time": of_kind("submission.received", around(chain="0123456789abcdef")),
    "another's chain": on_the_chain_of_another,
    "a round that is still to come": of_a_round_to_come,
    "a vote in a run of nobody": voting_nowhere,
    "a budget entry in a run of nobody": spending_in_another_run,
}


def test_envelopes_that_the_log_does_not_take_cost_their_sender_the_attempt_and_nobody_the_run():
    check_batch([Case(name, "envelope-malformed", lie) for name, lie in UNLOGGABLE.items()])


def test_three_liars_of_four_lose_the_round_and_no_more():
    with running() as (pool, go):
        for name in ("hanbit", "iber", LIAR):
            pool.nodes[name].lies.append(
                lambda said: next_number(said, 1) if said.contributes and said.header.round == 1 else said
            )
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert [row.model is not None for row in pool.rounds(run)] == [False, False, True, True, True]
        pool.check_books(run)
        pool.check_audit()


# --- replay ---


def test_an_update_that_was_submitted_before_is_refused_as_a_duplicate():
    with running() as (pool, go):
        learner, first = pool.nodes[LIAR].learner, []

        def replays(update: np.ndarray) -> np.ndarray:
            first.append(update)
            return first[0]

        learner.spoil = replays
        run = go(pool.run())
        assert pool.refusals(run) == [(LIAR, 2, "duplicate"), (LIAR, 3, "duplicate")]
        again = go(pool.run())
        assert pool.refusals(again) == [(LIAR, number, "duplicate") for number in (1, 2, 3)]
        assert pool.expected_model(run) == pool.row(run).model_digest
        for one in (run, again):
            pool.check_books(one)
        pool.check_audit()


def test_the_same_update_from_two_nodes_counts_once():
    with running() as (pool, go):
        shared: dict[tuple[str, int, int], np.ndarray] = {}
        for name in ("hanbit", LIAR):
            learner = pool.nodes[name].learner

            def copies(update: np.ndarray, learner=learner) -> np.ndarray:
                return shared.setdefault(learner.trained[-1], update)

            learner.spoil = copies
        run = go(pool.run())
        seen = pool.verdicts(run)
        assert all(sorted((one["hanbit"], one[LIAR])) == ["accepted", "refused"] for one in seen)
        assert {reason for _, _, reason in pool.refusals(run)} == {"duplicate"}
        pool.check_audit()


# --- votes and judging ---


def judges(lie: Lie) -> Lie:
    return lambda said: lie(said) if said.header.type.value == "evaluate.judge" else said


@pytest.mark.parametrize(
    "lie",
    [
        body(envelopes="many"),
        lambda said: said.sealed(key=STRANGER),
        lambda _said: None,
        of_kind("vote.cast", around(seq=99)),
        of_kind("vote.cast", around(run="run_aaaaaaaaaaaaaaaa")),
        of_kind("evaluation.received", around(log="other.example/log")),
    ],
    ids=["no envelopes", "forged", "silent", "a number left out", "another run", "another log"],
)
def test_a_lie_about_a_candidate_costs_the_liar_its_vote(lie: Lie):
    with running() as (pool, go):
        pool.nodes[LIAR].lies.append(judges(lie))
        run = go(pool.run())
        assert pool.row(run).state == "completed"
        assert len(pool.entries(EntryType.VOTE_CAST, run)) == 3
        assert list(pool.candidates().values()) == ["released"]
        pool.check_audit()


def test_a_vote_on_a_candidate_of_nobody_is_on_record_and_counts_for_nothing():
    with running() as (pool, go):
        other = "sha256:" + "9" * 64
        pool.nodes[LIAR].lies.append(judges(of_kind("vote.cast", within(subject=other))))
        run = go(pool.run())
        assert [one.pub["subject"] for one in pool.entries(EntryType.VOTE_CAST, run)].count(other) == 1
        assert list(pool.candidates().values()) == ["released"]
        pool.check_audit()


def test_nodes_that_refuse_to_judge_are_no_evidence_of_an_evaluation():
    with running() as (pool, go):
        for name in (LIAR, "nord"):
            one = pool.nodes[name]

            def refuses(weights: np.ndarray, node: SimNode = one) -> tuple[float, bool]:
                node.learner.judged += 1
                raise ValueError("row 17: serial=SECRET-42")

            one.learner.judge = lambda _seat, weights, refuses=refuses: refuses(weights)  # type: ignore[method-assign]
        run = go(pool.run())
        (evaluated,) = pool.entries(EntryType.CANDIDATE_EVALUATED, run)
        assert evaluated.pub["checks"] == {"federated-evaluation": "fail"}
        assert list(pool.candidates().values()) == ["refused"]
        assert pool.entries(EntryType.MODEL_RELEASED) == []
        assert "SECRET" not in str(pool.journal.lines)
        pool.check_audit()
