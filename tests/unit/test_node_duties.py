# SPDX-License-Identifier: Apache-2.0
"""Rounds at a node over and over: what is sent again, what is never done twice, what is made up for."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from client.errors import EquivocationError, ReceiptFileError
from client.federation.errors import RequestInvalidError
from client.federation.handlers import RunConfig
from client.ledgers import outbox_list
from client.releases import receipts_export, receipts_fetch, receipts_verify
from policies.encoding import canonical
from policies.errors import InvariantError
from policies.exchange import REQUEST_PAYLOAD, ExchangeType, tensor_spec
from policies.log.checkpoint import VerifierKey
from policies.log.envelope import ChainState, open_envelope
from policies.log.errors import SlotTakenError
from policies.log.merkle import leaf_hash
from policies.log.proofs import parse_receipt
from policies.ports import iso_ms
from policies.privacy.errors import BudgetDivergedError
from policies.signing import Envelope
from policies.verify.commands.inputs import read_receipts
from tests.learnsim import made_units
from tests.nodeworld import RUN, World, kinds, ready_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def _sealed(reply) -> list[Envelope]:
    return [Envelope.from_json(one) for one in reply.body.get("envelopes", [])]


def test_a_ping_gives_the_initial_weights(world: World):
    _, reply = world.ask(ExchangeType.PING)
    assert (reply.status, reply.tensor.shape) == ("ok", (world.recipe.parameters,))


def test_a_request_that_comes_twice_gets_the_same_bytes_and_trains_once(world: World):
    first, _ = world.ask()
    again, _ = world.ask()
    assert (again.tensor, again.repeated) == (first.tensor, True)
    assert world.learner.trained == [("run_aaaaaaaaaaaaaaaa", (1, 1))]
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 1


def test_envelopes_without_receipt_go_out_again_before_the_new_ones(world: World):
    _, lost = world.ask()  # this reply never reaches the broker
    _, reply = world.ask(round=2)
    assert kinds(reply) == [*kinds(lost), "decision.recorded", "epsilon.spent", "submission.received"]
    assert [one.to_bytes() for one in _sealed(reply)[:4]] == [one.to_bytes() for one in _sealed(lost)]
    assert len(world.log_reply(reply)) == 7


def test_receipts_in_the_next_request_free_the_envelopes(world: World):
    _, first = world.ask()
    _, second = world.ask(round=2, body={"receipts": world.log_reply(first)})
    assert kinds(second) == ["decision.recorded", "epsilon.spent", "submission.received"]
    assert {one["receipts"] for one in outbox_list(world.worker.outbox).data["sent"]} == {
        "-",
        "1 of 1",
        "4 of 4",
        "0 of 3",
    }


def test_the_chain_has_no_gap_over_refusals_rounds_and_restarts(world: World):
    state, receipts = None, []
    for number in range(1, 6):
        if number == 3:
            world.restart()
        world.rules(**({"paused": True} if number == 2 else {}))
        _, reply = world.ask(round=number, body={"receipts": receipts})
        receipts = world.log_reply(reply)
    for one in world.worker.outbox.envelopes():
        payload = open_envelope(one.envelope, world.member.identity.key.public)
        state = (state or ChainState(chain=payload["chain"])).accept(payload)
    assert state.next_seq == len(world.worker.outbox.envelopes())


def test_a_backlog_goes_out_first_and_nothing_is_trained(world: World):
    for number in range(1, 5):
        world.ask(round=number)  # none of these replies arrives: more envelopes than one header has room for
    trained = len(world.learner.trained)
    _, reply = world.ask(round=5)
    assert (reply.status, reply.code, len(_sealed(reply))) == ("refused", "outbox.backlog", 12)
    assert len(world.learner.trained) == trained
    world.log_reply(reply)
    receipts_fetch(world.member, world.worker.outbox)
    _, reply = world.ask(round=6)
    assert reply.status == "ok"


def test_a_spend_whose_reply_never_was_is_told_after_the_restart(world: World):
    world.learner.fail = RuntimeError("the secret 4711")
    _, reply = world.ask()
    assert (reply.code, reply.body) == ("engine.handler-failed", {})
    assert world.worker.outbox.envelopes(kind="epsilon.spent") == ()
    world.learner.fail = None
    world.restart()
    (told,) = world.worker.outbox.envelopes(kind="epsilon.spent")
    assert told.slot == "epsilon.spent run_aaaaaaaaaaaaaaaa/1/1"
    _, reply = world.ask(attempt=2)
    assert kinds(reply) == [
        "budget.opened",
        "epsilon.spent",
        "decision.recorded",
        "epsilon.spent",
        "submission.received",
    ]
    world.log_reply(reply)
    world.restart()
    assert len(world.worker.outbox.envelopes(kind="epsilon.spent")) == 2


def test_an_old_copy_of_the_ledger_stops_the_node(world: World):
    _, reply = world.ask()
    copies = {path: path.read_bytes() for path in world.home.budget.glob("*.db")}
    world.ask(round=2, body={"receipts": world.log_reply(reply)})
    world.worker.close()
    for path, data in copies.items():
        path.write_bytes(data)
    with pytest.raises(BudgetDivergedError, match="old copy"):
        world.start()


def test_an_old_copy_of_the_ledger_is_noticed_for_held_out_units_too(world: World):
    world.ask()
    copies = {path: path.read_bytes() for path in world.home.budget.glob("*.db")}
    _, reply = world.ask(ExchangeType.JUDGE)
    assert reply.status == "ok"
    world.worker.close()
    for path, data in copies.items():
        path.write_bytes(data)
    with pytest.raises(BudgetDivergedError, match="old copy"):
        world.start()


def test_a_query_whose_vote_never_was_is_told_after_the_restart_and_paid_for_once(world: World):
    honest = world.learner.judge

    def fails(_seat: object, _weights: object) -> tuple[float, bool]:
        raise RuntimeError("the secret 4711")

    world.learner.judge = fails
    _, reply = world.ask(ExchangeType.JUDGE)
    assert (reply.code, reply.body) == ("engine.handler-failed", {})
    assert world.worker.outbox.envelopes(kind="epsilon.spent") == ()
    world.restart()
    (told,) = world.worker.outbox.envelopes(kind="epsilon.spent")
    world.learner.judge = honest
    _, reply = world.ask(ExchangeType.JUDGE, attempt=2)
    assert kinds(reply) == ["budget.opened", "epsilon.spent", "evaluation.received", "vote.cast"]
    bodies = [json.loads(one.payload)["body"] for one in _sealed(reply)]
    assert told.slot == f"epsilon.spent {bodies[1]['mechanism']}"
    assert bodies[1]["mechanism"].endswith(bodies[2]["candidate"].removeprefix("sha256:"))
    assert len(world.worker.budgets.touches()) == 1


def test_a_restored_folder_is_refused_by_the_receipts_that_it_lacks(world: World, tmp_path: Path):
    _, reply = world.ask()
    world.log_reply(reply)
    world.worker.close()
    shutil.copytree(world.home.root, tmp_path / "backup")
    world.start()
    receipts_fetch(world.member, world.worker.outbox)
    _, second = world.ask(round=2)
    receipts = world.log_reply(second)
    world.worker.close()
    shutil.rmtree(world.home.root)
    shutil.copytree(tmp_path / "backup", world.home.root)
    world.clock.ms += 1
    world.start()
    _, reply = world.ask(round=3, body={"receipts": receipts})
    assert (reply.code, world.pulled) == ("log.receipt", 0)
    assert len(world.worker.budgets.touches()) == 1
    codes = []
    for number in range(4, 10):  # without receipts the node cannot know: the log refuses its numbers
        _, reply = world.ask(round=number)
        codes.append(reply.code)
        with pytest.raises(SlotTakenError):
            world.log_reply(reply)
    assert codes[-1] == "outbox.backlog"
    assert codes.count(None) <= 4


def _by_hand(world: World, **changes: object) -> tuple[bytes, RunConfig]:
    """A request that our own code would not seal, signed by the broker all the same."""
    spec = tensor_spec(world.weights())
    payload = {
        "v": 1,
        "contract": world.contract.digest,
        "recipe": world.recipe.digest,
        "run": RUN,
        "round": 1,
        "attempt": 1,
        "type": "train.contribute",
        "node": world.member.identity.node,
        "deadline": iso_ms(world.clock.ms + 60_000),
        "tensor": spec.to_json(),
        "body": {"plan": world.recipe.plan.digest, "base_model": spec.digest},
    } | changes
    config = RunConfig(run=str(payload["run"]), contract=world.contract.digest, recipe=world.recipe.digest)
    return Envelope.seal(canonical(payload), REQUEST_PAYLOAD, world.broker.key).to_bytes(), config


@pytest.mark.parametrize(
    "changes",
    [
        {"run": "run_ABC-0189"},
        {"run": RUN + "\n"},
        {"run": "run_aaaaaaaaaaaaaaa"},
        {"round": 1_000_000},
        {"attempt": 1_000_000},
    ],
)
def test_what_the_log_could_not_be_told_is_refused_before_it_is_spent(world: World, changes: dict):
    header, config = _by_hand(world, **changes)
    slot = (int(changes.get("round", 1)), int(changes.get("attempt", 1)))
    with pytest.raises(RequestInvalidError):
        world.worker.desk.answer(
            config,
            world.worker.admit(config),
            header,
            kind="train.contribute",
            slot=slot,
            pull=lambda _spec: b"",
            confirm=lambda: None,
        )
    assert world.learner.trained == []
    assert world.worker.budgets.lineages() == ()


def test_a_spend_that_no_entry_can_hold_stops_its_run_only(world: World, capfd: pytest.CaptureFixture[str]):
    _, reply = world.ask()
    world.worker.budgets.find(world.worker.budgets.lineages()[0]).touch(RUN, 1_000_000, 1)
    world.restart()
    assert '"event": "spend-untold"' in capfd.readouterr().err
    receipts = world.log_reply(reply)
    _, refused = world.ask(round=2, body={"receipts": receipts})
    assert (refused.code, world.pulled) == ("budget.unknown", 0)
    assert world.ask(ExchangeType.JUDGE, round=2)[1].code == "budget.unknown"
    _, other = world.ask(run="run_bbbbbbbbbbbbbbbb")
    assert other.status == "ok"
    assert [one.round for one in world.worker.budgets.touches()] == [1, 1_000_000, 1]  # it is kept


def test_other_units_than_the_reserved_ones_are_not_paid_for(world: World):
    _, reply = world.ask()
    world.learner.units = lambda _seat, split: made_units(split, 21, seed="later")
    _, refused = world.ask(round=2, body={"receipts": world.log_reply(reply)})
    assert refused.code == "privacy.plan-mismatch"
    assert len(world.worker.budgets.touches()) == 1


def test_databases_are_this_accounts_alone(world: World):
    world.ask()
    files = [world.home.outbox, world.home.fleet, *world.home.budget.glob("*.db")]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o600}
    assert world.home.root.stat().st_mode & 0o777 == 0o700


def test_no_text_of_an_exception_leaves(world: World):
    errors = (RuntimeError("secret-4711"), MemoryError("secret-4711"), ValueError("/home/kita/secret-4711"))
    for number, error in enumerate(errors, 1):
        world.learner.fail = error
        answer, reply = world.ask(round=number)
        assert (reply.status, reply.code) == ("refused", "engine.handler-failed")
        assert b"secret" not in answer.header
        assert b"secret" not in Envelope.from_bytes(answer.header).payload


def test_an_error_of_ours_leaves_as_its_code_only(world: World):
    world.learner.fail = InvariantError(need="secret-4711", found="secret-4711", remedy="secret-4711")
    answer, reply = world.ask()
    assert reply.code == "internal.invariant"
    assert b"4711" not in answer.header


def test_a_log_with_two_histories_is_answered_by_a_code_only(world: World):
    world.ask()
    fork = world.broker.log.fork(1)
    for number in range(30):
        fork.noise(number)
    _answer, reply = world.ask(round=2, body={"log": fork.news(world.worker.outbox.shown.seen().size)})
    assert (reply.status, reply.code, reply.body) == ("refused", "log.equivocation", {})
    assert len(world.learner.trained) == 1
    _, reply = world.ask(round=3)  # also to the honest history: a person has to act first
    assert reply.code == "log.equivocation"
    shown = receipts_verify(None, world.worker.outbox, world.broker.log.vkey)
    assert shown.exit_code == 7
    assert len(shown.data["evidence"][0]["notes"]) == 2
    world.worker.close()
    with pytest.raises(EquivocationError):
        world.start()


def test_judging_votes_by_the_noised_figure_and_only_the_vote_leaves(world: World):
    _, reply = world.ask(ExchangeType.JUDGE)
    assert kinds(reply) == ["budget.opened", "epsilon.spent", "evaluation.received", "vote.cast"]
    bodies = [json.loads(one.payload)["body"] for one in _sealed(reply)]
    candidate = bodies[2]["candidate"]
    assert bodies[1]["mechanism"] == f"run_aaaaaaaaaaaaaaaa/eval/{candidate.removeprefix('sha256:')}"
    assert bodies[3] == {"subject": candidate, "vote": "approve", "clause": None}
    assert (reply.tensor, set(bodies[2])) == (None, {"candidate", "evaluation"})


def test_a_candidate_that_is_too_bad_is_vetoed(world: World):
    world.learner.accept = False
    _, reply = world.ask(ExchangeType.JUDGE)
    body = json.loads(_sealed(reply)[-1].payload)["body"]
    assert (body["vote"], body["clause"]) == ("veto", "release-1")


def test_a_candidate_is_judged_once(world: World):
    _, first = world.ask(ExchangeType.JUDGE)
    world.log_reply(first)
    receipts_fetch(world.member, world.worker.outbox)
    _, again = world.ask(ExchangeType.JUDGE, attempt=2)
    assert world.learner.judged == 1
    assert kinds(again) == ["evaluation.received", "vote.cast"]


def test_a_manual_owner_votes_alone(world: World):
    world.rules(vote="manual")
    _, reply = world.ask(ExchangeType.JUDGE)
    assert kinds(reply) == ["budget.opened", "epsilon.spent", "evaluation.received"]


def test_an_expired_contract_judges_nothing(world: World):
    world.clock.ms += 3 * 365 * 86_400_000
    _, reply = world.ask(ExchangeType.JUDGE)
    assert (reply.code, world.pulled, world.learner.judged) == ("contract.expired", 0, 0)


def test_a_paused_node_answers_pings_only(world: World):
    world.rules(paused=True)
    assert world.ask(ExchangeType.PING)[1].status == "ok"
    assert world.ask()[1].code == "local.refused"
    assert world.ask(ExchangeType.JUDGE)[1].code == "local.refused"


def test_what_is_noted_as_sent_is_what_was_sent(world: World):
    answer, _ = world.ask()
    newest = world.worker.outbox.left.sent()[0]
    assert newest.size_bytes == len(answer.header) + len(answer.tensor)
    assert (newest.kind, newest.clause, newest.round) == ("train.contribute", "recipe-1", 1)


def test_receipts_verify_again_from_the_file_alone(world: World):
    _, reply = world.ask()
    world.ask(round=2, body={"receipts": world.log_reply(reply)})
    shown = receipts_verify(world.member, world.worker.outbox, world.broker.log.vkey)
    assert (shown.exit_code, shown.data["receipts"]) == (0, 5)
    assert shown.data["size"] == world.broker.log.size


def test_receipts_are_exported_in_the_form_that_the_verifier_reads(world: World, tmp_path: Path):
    _, reply = world.ask()
    world.ask(round=2, body={"receipts": world.log_reply(reply)})
    out = tmp_path / "receipts" / "kita"
    for _ in range(2):  # again changes nothing
        told = receipts_export(world.worker.outbox, out).data
        assert (told["exported"], told["without_receipt"]) == (5, len(world.worker.outbox.pending()))
    log, read = world.broker.log, read_receipts(tmp_path / "receipts")
    assert len(read) == 5
    for name, text in read.items():
        receipt = parse_receipt(text)
        assert name == f"kita/{receipt.index}.tlog-proof"
        receipt.verify(leaf_hash(log.bodies[receipt.index]), [VerifierKey.parse(log.vkey)])
    (out / f"{receipt.index}.tlog-proof").write_text("another")
    with pytest.raises(ReceiptFileError):
        receipts_export(world.worker.outbox, out)
    with pytest.raises(ReceiptFileError):
        receipts_export(world.worker.outbox, out / f"{receipt.index}.tlog-proof")
