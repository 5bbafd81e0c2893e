# SPDX-License-Identifier: Apache-2.0
"""What the node's own gate refuses, by which code, and that nothing was pulled or spent."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from client.budgets.showing import budget_show
from client.contract.explaining import explain_run
from client.data import Store
from client.data.errors import NoRightsError
from client.federation.errors import RequestInvalidError, RunRefusedError
from client.learner import episodes_of
from client.ledgers import guard_log, outbox_list
from client.settings import LocalRules
from policies.contract import replay
from policies.encoding import digest, unb64
from policies.exchange import ExchangeType
from policies.identity import SigningKey, key_text
from policies.privacy.errors import BudgetUnknownError
from policies.privacy.ledger import TRAIN
from policies.signing import Envelope
from tests.nodeworld import IN_TERM_MS, World, kinds, plain_world, ready_world, sha


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def _payload(one: dict) -> dict:
    return json.loads(Envelope.from_json(one).payload)


def test_an_allowed_round_is_decided_spent_and_submitted(world: World):
    _answer, reply = world.ask()
    assert (reply.status, world.pulled) == ("ok", world.recipe.parameters * 4)
    assert kinds(reply) == ["decision.recorded", "budget.opened", "epsilon.spent", "submission.received"]
    decision, opened, spent, submission = [_payload(one)["body"] for one in reply.body["envelopes"]]
    assert (decision["outcome"], decision["clauses"]) == ("allow", [])
    receipt = submission.pop("receipt")
    assert receipt["steps_total"] == 1
    assert receipt["ledger_head"].startswith("sha256:")
    assert submission == {
        "update": reply.tensor.digest,
        "plan": world.recipe.plan.digest,
        "steps": 1,
        "attempt": 1,
    }
    assert spent["mechanism"] == "run_aaaaaaaaaaaaaaaa/1/1"
    assert opened["lineage"] == spent["lineage"]
    assert spent["steps"] == 1


def test_the_disclosed_decision_replays_to_the_signed_bytes(world: World):
    _, reply = world.ask()
    told = reply.body["decision"]
    record = replay(
        world.contract,
        point="node",
        request=told["request"],
        state=told["state"],
        salt16=bytes.fromhex(told["salt"]),
    )
    assert _payload(reply.body["envelopes"][0])["body"]["decision"] == digest(record)


def test_the_epsilon_that_the_guard_claims_is_the_plans_and_the_ledgers(world: World):
    _, first = world.ask()
    _, second = world.ask(round=2)
    claims = [one.body["decision"]["request"] for one in (first, second)]
    assert {one["epsilon_after_release"] for one in claims} == {claims[0]["epsilon_after_release"]}
    assert claims[0]["epsilon_after_total"] == claims[1]["epsilon_after_total"]  # the whole plan is held
    assert float(claims[0]["epsilon_after_release"]) <= 8.0


def test_the_facts_of_a_round_are_those_of_this_version_and_of_this_node(world: World):
    _, reply = world.ask(body={"purpose": "improve-common-model"})
    asked, state = (reply.body["decision"][name] for name in ("request", "state"))
    told = {name: asked[name] for name in ("secure_aggregation", "group_mac", "reply_slot_ms", "seed_set")}
    assert told == {"secure_aggregation": "off", "group_mac": "off", "reply_slot_ms": 0, "seed_set": "none"}
    assert (asked["seed_consents"], asked["purpose"]) == ([], "improve-common-model")
    assert asked["key"] == key_text(world.member.identity.key.public)
    assert (state["halted"], state["exited_parties"], state["rotated_keys"]) == (False, [], {})
    assert state["standing"] == "in-force"


def test_a_contract_that_somebody_has_not_signed_admits_no_run(tmp_path: Path):
    world = World(tmp_path).ready(executed=False)
    with pytest.raises(RunRefusedError):
        world.ask()
    assert world.learner.trained == []


def test_a_recipe_that_the_contract_does_not_name_is_refused(world: World):
    with pytest.raises(RunRefusedError):
        world.ask(recipe=sha("another recipe"))


def test_a_request_by_another_broker_key_gets_no_answer(world: World):
    with pytest.raises(RequestInvalidError):
        world.ask(key=SigningKey.from_seed(b"X" * 32))
    assert world.pulled == 0


def test_an_expired_term_refuses_by_its_clause_and_is_logged(world: World):
    world.clock.ms = IN_TERM_MS + 3 * 365 * 86_400_000
    _, reply = world.ask()
    assert (reply.status, reply.code, world.pulled) == ("refused", "contract.expired", 0)
    assert kinds(reply) == ["decision.recorded"]
    body = _payload(reply.body["envelopes"][0])["body"]
    assert (body["outcome"], body["clauses"]) == ("refuse", ["term-1"])
    assert world.worker.outbox.left.decisions()[0].clauses == ("term-1",)


def test_too_small_a_cohort_refuses_by_the_aggregation_clause(world: World):
    _, reply = world.ask(body={"cohort": ["kita", "nord"]})
    assert (reply.code, world.pulled) == ("contract.refused", 0)
    assert _payload(reply.body["envelopes"][0])["body"]["clauses"] == ["k-1"]


def test_a_plan_that_costs_more_than_the_contract_allows_is_refused(tmp_path: Path):
    world = World(tmp_path, changes={"privacy.epsilon_per_release": "4.0"}).ready()
    _, reply = world.ask()
    assert reply.code == "contract.refused"
    assert "dp-1" in _payload(reply.body["envelopes"][0])["body"]["clauses"]
    assert world.learner.trained == []


def test_a_spent_budget_refuses_the_next_run(tmp_path: Path):
    world = World(tmp_path, changes={"privacy.epsilon_total": "9.5"}).ready()
    _, first = world.ask()
    assert first.status == "ok"
    receipts = world.log_reply(first)
    _, second = world.ask(run="run_bbbbbbbbbbbbbbbb", body={"receipts": receipts})
    assert (second.status, second.code, world.pulled) == ("refused", "contract.refused", 0)
    assert _payload(second.body["envelopes"][0])["body"]["clauses"] == ["dp-1"]


def test_a_cap_over_the_life_of_the_data_above_the_contracts_loosens_nothing_of_the_contract(tmp_path: Path):
    world = World(tmp_path, changes={"privacy.epsilon_total": "9.5"}).ready()
    world.rules(epsilon_lifetime="60")
    _, first = world.ask()
    assert first.status == "ok"
    _, second = world.ask(run="run_bbbbbbbbbbbbbbbb", body={"receipts": world.log_reply(first)})
    assert (second.status, second.code, world.pulled) == ("refused", "contract.refused", 0)


def test_a_cap_over_the_life_of_the_data_below_the_plan_refuses_it(tmp_path: Path):
    world = World(tmp_path).ready()
    world.rules(epsilon_lifetime="3")
    _, reply = world.ask()
    assert (reply.status, reply.code) == ("refused", "budget.exhausted")
    assert world.learner.trained == []


def test_the_owners_own_cap_tightens_the_contracts(world: World):
    world.rules(epsilon_total="3")
    _, reply = world.ask()
    assert (reply.status, reply.code, world.pulled, reply.body) == ("refused", "local.refused", 0, {})
    assert world.worker.outbox.left.decisions()[0].clauses == ("local:epsilon",)
    assert world.learner.trained == []


def test_a_cap_that_the_owner_tightens_in_a_run_stops_it_and_changes_no_claim(world: World):
    _, first = world.ask()
    world.rules(epsilon_total="19")  # still enough, at another order than the contract's
    _, second = world.ask(round=2, body={"receipts": world.log_reply(first)})
    claims = [one.body["decision"]["request"]["epsilon_after_total"] for one in (first, second)]
    assert claims[0] == claims[1]
    world.rules(epsilon_total="7")
    _, third = world.ask(round=3, body={"receipts": world.log_reply(second)})
    assert third.code == "local.refused"
    assert len(world.learner.trained) == 2
    assert world.worker.outbox.left.decisions()[0].clauses == ("local:epsilon",)


@pytest.mark.parametrize(
    ("rule", "clause"),
    [
        ({"paused": True}, "local:paused"),
        ({"datasets": ("other",)}, "local:dataset"),
        ({"fields": ("tcp_pos",)}, "local:fields"),
    ],
)
def test_rules_of_the_site_refuse_and_stay_at_home(world: World, rule: dict, clause: str):
    world.rules(**rule)
    _, reply = world.ask()
    assert (reply.status, reply.code, world.pulled) == ("refused", "local.refused", 0)
    assert reply.body == {}
    assert world.worker.outbox.left.decisions()[0].clauses == (clause,)
    world.rules()
    assert world.ask(attempt=2)[1].status == "ok"


def test_a_plan_of_another_digest_or_another_base_model_is_refused(world: World):
    _, reply = world.ask(body={"plan": sha("another")})
    assert reply.code == "privacy.plan-mismatch"
    _, reply = world.ask(attempt=2, body={"base_model": sha("another")})
    assert reply.code == "node.digest-mismatch"
    assert world.learner.trained == []


def test_a_changed_contract_file_is_refused(world: World):
    world.worker.close()
    path = world.home.contracts / world.contract.digest.removeprefix("sha256:") / "contract.json"
    path.write_bytes(path.read_bytes().replace(b'"max_rounds":500', b'"max_rounds":501'))
    world.start()
    with pytest.raises(RunRefusedError):
        world.ask()


def test_a_changed_recipe_file_is_refused(world: World):
    world.worker.close()
    folder = world.home.contracts / world.contract.digest.removeprefix("sha256:")
    path = next(folder.glob("recipe-*.json"))
    path.write_bytes(path.read_bytes().replace(b'"rounds":190', b'"rounds":191'))
    world.start()
    with pytest.raises(RunRefusedError):
        world.ask()


def test_an_envelope_whose_signature_was_taken_out_is_refused(world: World):
    world.ask(ExchangeType.PING)
    world.worker.close()
    path = world.home.contracts / world.contract.digest.removeprefix("sha256:") / "envelope.json"
    tree = json.loads(path.read_bytes())
    tree["signatures"] = tree["signatures"][:-1]
    path.write_bytes(Envelope.from_json(tree).to_bytes())
    world.broker.envelopes.clear()
    world.start()
    with pytest.raises(RunRefusedError):
        world.ask()


def test_a_missing_ledger_is_an_unknown_budget(world: World):
    world.ask()
    world.worker.close()
    for path in world.home.budget.glob("*.db"):
        path.unlink()
    with pytest.raises(BudgetUnknownError):
        world.start()


def test_rounds_are_counted_over_all_runs_of_the_recipe(world: World):
    _, one = world.ask(round=3)
    receipts = world.log_reply(one)
    _, two = world.ask(run="run_bbbbbbbbbbbbbbbb", round=1, body={"receipts": receipts})
    assert two.body["decision"]["request"]["round"] == 2


def test_a_recipe_without_a_plan_spends_nothing_and_says_so(tmp_path: Path):
    world = plain_world(tmp_path).ready()
    _, reply = world.ask()
    assert kinds(reply) == ["decision.recorded", "submission.received"]
    assert _payload(reply.body["envelopes"][1])["body"]["plan"] is None
    assert reply.body["decision"]["request"]["privacy"]["mode"] == "none"
    _, judged = world.ask(ExchangeType.JUDGE, body={"receipts": world.log_reply(reply)})
    assert kinds(judged) == ["evaluation.received", "vote.cast"]


def test_data_of_another_contract_are_not_opened(world: World):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    assert len(episodes_of(world.home, seat, "train", LocalRules())) == 4
    assert Store(world.home.data).catalogue().dataset("kita/pick").rights == (world.contract.digest,)
    held = replace(seat.held, contract=replace(seat.held.contract, digest=sha("another contract")))
    with pytest.raises(NoRightsError):
        episodes_of(world.home, replace(seat, held=held), "train", LocalRules())


def test_why_a_round_was_refused_can_be_read_afterwards(world: World):
    world.clock.ms = IN_TERM_MS + 3 * 365 * 86_400_000
    world.ask()
    shown = explain_run(world.worker.outbox, world.shelf(), "run_aaaaaaaaaaaaaaaa")
    said = "\n".join(shown.text)
    assert "term-1" in said
    assert "Remedy" in said or "remedy" in said
    assert guard_log(world.worker.outbox, None).data["decisions"][0]["allow"] is False


def test_decisions_that_read_the_same_are_told_once_for_all_their_rounds(world: World):
    for number in (1, 2, 3, 5):
        world.ask(round=number)
    world.clock.ms = IN_TERM_MS + 3 * 365 * 86_400_000
    for number, attempt in ((6, 1), (6, 2), (7, 1)):
        world.ask(round=number, attempt=attempt)
    shown = explain_run(world.worker.outbox, world.shelf(), "run_aaaaaaaaaaaaaaaa")
    heads = [line for line in shown.text if line.startswith("round")]
    assert [line.split("  ")[0] for line in heads] == [
        "rounds 6-7, 3 attempts, train.contribute",
        "rounds 1-3, 5, 4 attempts, train.contribute",
    ]
    assert len(shown.data["decisions"]) == 7  # programs get each
    assert heads[0].endswith(shown.data["decisions"][0]["decision"])
    japanese = explain_run(world.worker.outbox, world.shelf(), "run_aaaaaaaaaaaaaaaa", lang="ja").text
    assert any(line.startswith("ラウンド 6-7、計 3 回、train.contribute") for line in japanese)


@pytest.mark.parametrize(("accept", "vote"), [(True, "approve"), (False, "veto")])
def test_what_was_judged_is_explained_with_the_vote_that_left(world: World, accept: bool, vote: str):
    world.learner.accept = accept
    world.ask(ExchangeType.JUDGE)
    text = explain_run(world.worker.outbox, world.shelf(), "run_aaaaaaaaaaaaaaaa").text
    assert f"  judged on held-out episodes; only the vote left: {vote}" in text


def test_what_was_judged_and_waits_for_its_owners_vote_is_explained_so(world: World):
    world.rules(vote="manual")
    world.ask(ExchangeType.JUDGE)
    text = "".join(explain_run(world.worker.outbox, world.shelf(), "run_aaaaaaaaaaaaaaaa").text)
    assert "no vote left yet" in text


def test_the_kept_record_is_the_one_that_was_signed(world: World):
    _, reply = world.ask()
    kept = world.worker.outbox.left.decisions()[0].document
    assert digest(unb64(kept["record"])) == _payload(reply.body["envelopes"][0])["body"]["decision"]


def test_budget_figures_are_shown(world: World):
    world.ask()
    shown = budget_show(world.home, world.member, world.shelf(), world.worker.outbox).data["budgets"]
    assert [(one["part"], one["steps_spent"]) for one in shown] == [(TRAIN, 1)]
    left = outbox_list(world.worker.outbox).data
    assert left["total_bytes"] == sum(one["size_bytes"] for one in left["sent"])
    assert {one["kind"] for one in left["sent"]} == {
        "certificate",
        "descriptor",
        "negotiation.accept",
        "contract.signed",
        "train.contribute",
    }
