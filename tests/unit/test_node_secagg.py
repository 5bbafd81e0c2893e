# SPDX-License-Identifier: Apache-2.0
"""A node in secure aggregation: what leaves, what it costs, what a second attempt and a new process do."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from client.secagg.agreed import check_shares, grid_step, terms_here
from client.secagg.machines import Machines
from policies.encoding import b64, digest, unb64
from policies.exchange import ExchangeType
from policies.limits import MAX_ACTIVE_RUNS, SECAGG_SETUP_BYTES
from policies.privacy.errors import SharesUnfitError
from policies.secagg import ring
from policies.secagg.collector import Setup
from policies.secagg.errors import SetupGoneError
from policies.secagg.record import Record
from policies.secagg.transcript import check, recompute
from policies.signing import Envelope
from tests.learnsim import small_recipe
from tests.nodesim import SeedEntropy
from tests.nodeworld import RUN, kinds, ready_world
from tests.sumnode import NODE, PEERS, Refused, SumPool, sum_pool, update_of

SA = ExchangeType
SHARES = small_recipe(noise="shares", honest_min=3)


@pytest.fixture
def pool(tmp_path: Path) -> SumPool:
    return sum_pool(tmp_path)


def submission(reply: Any) -> dict[str, Any]:
    bodies = [json.loads(Envelope.from_json(one).payload) for one in reply.body["envelopes"]]
    return next(one["body"] for one in bodies if one["kind"] == "submission.received")


def plain_sum(pool: SumPool, updates: dict[str, np.ndarray]) -> np.ndarray:
    terms, total = pool.terms, np.zeros(pool.terms.dimension, np.uint32)
    for party, update in updates.items():
        total += ring.quantise(ring.check_update(update, terms), weight=terms.weight(party), terms=terms)
    return total


def trained_sum(pool: SumPool, number: int, attempt: int = 1) -> np.ndarray:
    """What the opened sum must be, if the node sends what it trained in this attempt."""
    size = pool.terms.dimension
    peers = {name: update_of(name, (number, 1), size) for name in PEERS}
    return plain_sum(pool, {NODE: update_of(NODE, (number, attempt), size), **peers})


# --- whole rounds ---


def test_the_opened_sum_is_the_plain_sum_to_the_bit_and_the_transcript_gives_it_again(pool: SumPool):
    setup = pool.setup()
    for number in (1, 2, 3):
        attempt = pool.attempt(setup, number)
        vectors = pool.vectors(attempt)
        pool.confirm(attempt)
        pool.unmask(attempt)
        found = pool.opened(attempt, vectors)
        pool.step()
        assert np.array_equal(found.z, trained_sum(pool, number))
        checked = check(Record.from_bytes(found.opened.transcript), pool.terms)
        assert (recompute(checked, vectors),) == found.opened.sums
    assert pool.world.learner.trained == [(1, 1), (2, 1), (3, 1)]


def test_the_signed_submission_names_the_masked_vector(pool: SumPool):
    answer, reply = pool.contribute(pool.attempt(pool.setup(), 1))
    assert (reply.tensor.dtype, reply.tensor.shape) == ("uint32", (pool.terms.dimension,))
    told = submission(reply)
    assert told["update"] == digest(answer.tensor) == reply.tensor.digest
    assert "trained" not in told
    assert told["receipt"]["steps_total"] == 1
    assert kinds(reply) == ["decision.recorded", "budget.opened", "epsilon.spent", "submission.received"]


def test_the_decision_says_what_is_done(pool: SumPool):
    _, reply = pool.contribute(pool.attempt(pool.setup(), 1))
    asked = reply.body["decision"]["request"]
    assert (asked["secure_aggregation"], asked["group_mac"]) == ("required", "on")


def test_without_a_group_tag_the_base_model_travels_as_float32(tmp_path: Path):
    pool = sum_pool(tmp_path, aggregation__group_mac="off")
    setup = pool.setup()
    for number in (1, 2):
        assert np.array_equal(pool.round(setup, number).z, trained_sum(pool, number))
    bits = pool.weights.astype("<f4").view("<u4")
    _, reply = pool.contribute(pool.attempt(setup, 3), tensor=bits)
    assert reply.code == "secagg.context-mismatch"


def test_a_new_setup_carries_the_rounds_after_the_old_one(pool: SumPool):
    pool.round(pool.setup(), 1)
    setup = pool.setup(2, first_round=2)
    assert np.array_equal(pool.round(setup, 2).z, trained_sum(pool, 2))


# --- the gate ---


def test_a_plain_round_is_refused_where_the_contract_requires_a_sum(pool: SumPool):
    _, reply = pool.world.ask()
    assert (reply.code, pool.world.pulled) == ("contract.refused", 0)
    assert pool.world.learner.trained == []


def test_a_masked_round_is_refused_where_the_contract_asks_for_plain_ones(tmp_path: Path):
    world = ready_world(tmp_path)
    body = {"ask": b64(b"ask"), "plan": world.recipe.plan.digest}
    _, reply = world.send(SA.SA_CONTRIBUTE, round=1, attempt=1, tensor=world.weights(), body=body)
    assert (reply.code, world.pulled) == ("contract.refused", 0)
    for kind in (SA.SA_ADVERTISE, SA.SA_CONFIRM, SA.SA_UNMASK):
        _, reply = world.send(kind, round=1, attempt=1, body={"ask": b64(b"ask")})
        assert reply.code == "contract.refused"


def test_everything_about_the_attempt_is_asked_before_anything_is_pulled_or_spent(pool: SumPool):
    setup = pool.setup()
    later = pool.attempt(setup, 2)
    _, reply = pool.send(
        SA.SA_CONTRIBUTE,
        (1, 1),
        later.contribute_ask(),
        tensor=pool.beside([], None),
        body={
            "ask": b64(later.contribute_ask()),
            "plan": pool.recipe.plan.digest,
            "base_model": pool.base_model,
        },
    )
    assert (reply.code, pool.world.pulled) == ("secagg.context-mismatch", 0)
    assert pool.world.worker.budgets.touches() == ()
    assert pool.world.learner.trained == []


@pytest.mark.parametrize(
    "body",
    [{"ask": "no base64!"}, {"ask": 7}, {"base_model": "sha256:no"}, {"base_model": "sha256:" + "0" * 64}],
)
def test_a_body_without_ask_or_model_spends_nothing(pool: SumPool, body: dict[str, Any]):
    attempt = pool.attempt(pool.setup(), 1)
    _, reply = pool.contribute(attempt, body=body)
    assert (reply.code, pool.world.pulled) == ("secagg.context-mismatch", 0)
    assert pool.world.learner.trained == []


@pytest.mark.parametrize("size", ["short", "long", "float"])
def test_a_tensor_of_another_form_is_not_pulled(pool: SumPool, size: str):
    attempt = pool.attempt(pool.setup(), 1)
    shown = pool.beside([], None)
    other = {"short": shown[:-1], "long": np.append(shown, shown[:1]), "float": shown.view("<f4")}[size]
    _, reply = pool.contribute(attempt, tensor=other)
    assert (reply.code, pool.world.pulled) == ("secagg.context-mismatch", 0)


def test_a_setup_message_may_be_larger_than_a_model_and_not_larger_than_its_bound(pool: SumPool):
    model = 4 * pool.terms.dimension
    pool.ask(SA.SA_ADVERTISE, (1, 1), setup_ask(pool))
    with pytest.raises(Refused, match=r"secagg\.context-mismatch"):
        pool.ask(SA.SA_SHARE, (1, 1), bytes(model + 1))
    with pytest.raises(Refused, match=r"engine\.too-large"):
        pool.ask(SA.SA_SHARE, (1, 1), bytes(SECAGG_SETUP_BYTES + 1))


def setup_ask(pool: SumPool) -> bytes:
    return Setup(pool.terms, number=1, first_round=1).advertise_ask()


def test_an_ask_in_the_wrong_place_is_refused(pool: SumPool):
    ask = np.frombuffer(setup_ask(pool), np.uint8)
    with pytest.raises(Refused, match=r"engine\.too-large"):
        pool.ask(SA.SA_ADVERTISE, (1, 1), b"", tensor=ask)
    with pytest.raises(Refused, match=r"secagg\.context-mismatch"):
        pool.ask(SA.SA_SHARE, (1, 1), b"", tensor=None)
    with pytest.raises(Refused, match=r"secagg\.context-mismatch"):
        pool.ask(SA.SA_SHARE, (1, 1), b"", tensor=np.zeros(4, np.float32))


def test_a_paused_site_is_still_a_member_and_sends_no_update(pool: SumPool):
    pool.world.rules(paused=True)
    attempt = pool.attempt(pool.setup(), 1)
    _, reply = pool.contribute(attempt)
    assert reply.code == "local.refused"


# --- a second attempt ---


def first_attempt(pool: SumPool, setup: Any, number: int = 1) -> Any:
    """An attempt that comes to nothing: every vector was sent, nobody was asked to confirm."""
    attempt = pool.attempt(setup, number)
    _, reply = pool.contribute(attempt)
    pool.peer_vectors(attempt)
    return reply


def test_a_second_attempt_sends_the_same_update_under_other_masks_and_spends_nothing(pool: SumPool):
    setup = pool.setup()
    first = first_attempt(pool, setup)
    spent = pool.world.worker.budgets.touches()
    attempt = pool.attempt(setup, 1, 2)
    answer, reply = pool.contribute(attempt)
    assert pool.world.learner.trained == [(1, 1)]
    assert pool.world.worker.budgets.touches() == spent
    assert kinds(reply) == ["decision.recorded", "submission.received"]
    told, before = submission(reply), submission(first)
    assert (told["attempt"], told["trained"]) == (2, 1)
    assert told["receipt"] == before["receipt"]
    assert told["update"] != before["update"]
    assert answer.tensor is not None
    attempt.vector(NODE, unb64(reply.body["answer"]), told["update"])
    vectors = {NODE: answer.tensor, **pool.peer_vectors(attempt)}
    pool.confirm(attempt)
    pool.unmask(attempt)
    assert np.array_equal(pool.opened(attempt, vectors).z, trained_sum(pool, 1))


def test_a_second_attempt_about_another_model_is_refused(tmp_path: Path):
    pool = sum_pool(tmp_path, aggregation__group_mac="off")
    setup = pool.setup()
    pool.round(setup, 1)
    first_attempt(pool, setup, 2)
    pool.weights = pool.weights + np.float32(1)
    _, reply = pool.contribute(pool.attempt(setup, 2, 2))
    assert (reply.code, pool.world.pulled) == ("secagg.context-mismatch", 0)


def test_the_next_round_trains_anew(pool: SumPool):
    setup = pool.setup()
    first_attempt(pool, setup)
    _, reply = pool.contribute(pool.attempt(setup, 2))
    assert (reply.status, pool.world.learner.trained) == ("ok", [(1, 1), (2, 1)])
    assert "trained" not in submission(reply)


def test_a_second_attempt_under_a_new_setup_still_sends_the_same_update(pool: SumPool):
    first_attempt(pool, pool.setup())
    setup = pool.setup(2)
    assert np.array_equal(pool.round(setup, 1, 2).z, trained_sum(pool, 1))
    assert pool.world.learner.trained == [(1, 1)]


def test_after_unmask_the_round_is_over_and_its_update_is_gone(pool: SumPool):
    setup = pool.setup()
    pool.round(setup, 1)
    duty = pool.world.worker.desk._handlers[SA.SA_CONTRIBUTE]
    assert duty._way._updates._kept == {}
    pool.previous = None
    _, reply = pool.contribute(pool.attempt(setup, 1, 2))
    assert reply.code == "secagg.round-burned"


def test_a_halt_in_the_meantime_keeps_the_update_here_and_a_later_attempt_sends_it(pool: SumPool):
    setup = pool.setup()
    attempt = pool.attempt(setup, 1)
    guard = pool.world.worker.guard
    honest = guard.stopped
    guard.stopped = lambda _contract: "contract.halted"
    answer, reply = pool.contribute(attempt)
    assert (reply.code, answer.tensor) == ("contract.halted", None)
    assert "epsilon.spent" in kinds(reply)
    assert "submission.received" not in kinds(reply)
    guard.stopped = honest
    pool.peer_vectors(attempt)
    assert np.array_equal(pool.round(setup, 1, 2).z, trained_sum(pool, 1))
    assert len(pool.world.worker.budgets.touches()) == 1


def test_an_update_that_does_not_fit_stays_here_and_what_it_cost_is_told(pool: SumPool):
    pool.world.learner.after = lambda update: np.where(np.arange(update.size) == 3, np.nan, update).astype(
        "f4"
    )
    setup = pool.setup()
    answer, reply = pool.contribute(pool.attempt(setup, 1))
    assert (reply.code, answer.tensor) == ("update.unfit", None)
    assert kinds(reply) == ["decision.recorded", "budget.opened", "epsilon.spent"]
    kept = pool.world.worker.outbox.left.decisions()[0]
    assert (kept.allow, kept.clauses) == (False, ("local:update.unfit",))
    _, reply = pool.contribute(pool.attempt(setup, 1, 2))
    assert reply.code == "update.unfit"
    assert len(pool.world.worker.budgets.touches()) == 1


# --- a process that ends ---

STATES = ("advertise", "share", "open", "contribute", "confirm", "unmask")


def until(pool: SumPool, state: str) -> None:
    """Whole steps of a first round, the last of them ``state``."""
    if state in {"advertise", "share"}:
        pool.begun(shared=state == "share")
        return
    setup = pool.setup()
    attempt = pool.attempt(setup, 1)
    if state == "open":
        return
    vectors = pool.vectors(attempt)
    if state == "contribute":
        return
    pool.confirm(attempt)
    if state == "confirm":
        return
    pool.unmask(attempt)
    pool.opened(attempt, vectors)


NEXT = {
    "advertise": SA.SA_SHARE,
    "share": SA.SA_OPEN,
    "contribute": SA.SA_CONFIRM,
    "confirm": SA.SA_UNMASK,
    "unmask": SA.SA_UNMASK,
}


@pytest.mark.parametrize("state", STATES)
def test_a_process_that_ends_takes_its_keys_along_and_goes_on_under_a_new_setup(pool: SumPool, state: str):
    until(pool, state)
    sent = pool.world.worker.outbox.left.sent()
    pool.world.restart()
    if state in NEXT:
        with pytest.raises(Refused, match=r"secagg\.setup-gone"):
            pool.ask(NEXT[state], (1, 1), b"\x00\x00\x00\x01x")
    assert pool.world.worker.outbox.left.sent() == sent
    pool.begin_peers()
    pool.previous = None
    setup = pool.setup(2)
    if state == "unmask":  # this node helped to open the round's sum: it takes part in no other
        _, reply = pool.contribute(pool.attempt(setup, 1, 2))
        assert reply.code == "secagg.round-burned"
        return
    found = pool.round(setup, 1, 2)
    assert np.array_equal(found.z, trained_sum(pool, 1, 2))
    paid = 2 if state in {"contribute", "confirm"} else 1  # the update is lost with its process: a new touch
    assert len(pool.world.worker.budgets.touches()) == paid


def test_what_was_sent_masked_is_sent_again_by_a_new_process_and_by_nothing_else(pool: SumPool):
    attempt = pool.attempt(pool.setup(), 1)
    first, _ = pool.contribute(attempt)
    pool.world.restart()
    again, _ = pool.contribute(attempt)
    assert (again.tensor, again.repeated) == (first.tensor, True)
    assert pool.world.learner.trained == [(1, 1)]


def test_nothing_secret_and_nothing_unmasked_is_in_any_file_of_the_node(pool: SumPool):
    setup = pool.begun()
    machines = pool.world.worker.desk._handlers[SA.SA_CONTRIBUTE]._way._machines
    (inside,) = machines._inside.values()
    held = inside.machine._pending
    secrets = [one.reveal() for one in (*held.keys.transports, held.keys.part, held.keys.chain)]
    pool.finished(setup)
    secrets.append(held.group)
    for slot in held.keys.slots.values():
        secrets += [slot.own.reveal(), slot.pair.reveal()]
    for pairs in held._shares.values():
        for pair in pairs.values():
            secrets += [pair.own.reveal(), pair.pair.reveal()]
    for number in (1, 2):
        pool.round(setup, number)
    update = update_of(NODE, (2, 1), pool.terms.dimension)
    whole = ring.quantise(
        ring.check_update(update, pool.terms), weight=pool.terms.weight(NODE), terms=pool.terms
    )
    vectors = [update.tobytes()[at : at + 64] for at in range(0, 4 * update.size - 64, 64)]
    vectors += [whole.tobytes()[at : at + 64] for at in range(0, 4 * whole.size - 64, 64)]
    assert min(map(len, secrets)) >= 32
    files = [path.read_bytes() for path in pool.world.home.root.rglob("*") if path.is_file()]
    assert len(files) > 10
    for data in files:
        assert not any(one in data for one in vectors)
        assert not any(
            one in data or one.hex().encode() in data or b64(one).encode() in data for one in secrets
        )
    planted = files[0] + secrets[-1]
    assert any(one in planted for one in secrets)


# --- the note of what left, and the ledger of answers ---


def test_every_message_is_noted_as_it_left_and_only_the_update_has_a_row(pool: SumPool):
    sizes = {}
    setup = pool.setup()
    attempt = pool.attempt(setup, 1)
    pool.vectors(attempt)
    pool.confirm(attempt)
    kind = SA.SA_CONFIRM
    again, _ = pool.send(kind, (1, 1), attempt.confirm_ask())
    sizes[kind.value] = len(again.header)
    noted = [one for one in pool.world.worker.outbox.left.sent() if one.run == RUN]
    assert [one.kind for one in noted] == [
        "query.sa_confirm",
        "query.sa_confirm",
        "train.sa_contribute",
        "query.sa_open",
        "query.sa_share",
        "query.sa_advertise",
    ]
    assert noted[0].size_bytes == sizes["query.sa_confirm"]
    assert {one.clause for one in noted} == {"k-1", "recipe-1"}
    assert noted[0].digest == digest(again.header)
    with sqlite3.connect(pool.world.home.outbox) as other:  # another process sees it at once
        (count,) = other.execute("SELECT count(*) FROM sent WHERE run = ?", (RUN,)).fetchone()
    assert count == len(noted)
    with sqlite3.connect(pool.world.home.fleet) as ledger:
        assert ledger.execute("SELECT type, state FROM slot").fetchall() == [
            ("train.sa_contribute", "REPLIED")
        ]


def test_notes_without_fsync_leave_the_outbox_as_durable_as_before(pool: SumPool):
    outbox = pool.world.worker.outbox
    with outbox.noting():
        assert outbox._db.execute("PRAGMA synchronous").fetchone() == (1,)
    assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)
    with pytest.raises(ZeroDivisionError), outbox.noting():
        raise ZeroDivisionError
    assert outbox._db.execute("PRAGMA synchronous").fetchone() == (2,)


def test_the_same_confirm_has_the_same_answer_and_another_one_none(pool: SumPool):
    attempt = pool.attempt(pool.setup(), 1)
    pool.vectors(attempt)
    ask = attempt.confirm_ask()
    first = pool.ask(SA.SA_CONFIRM, (1, 1), ask)
    assert pool.ask(SA.SA_CONFIRM, (1, 1), ask) == first
    with pytest.raises(Refused, match=r"secagg\.slot-used"):
        pool.ask(SA.SA_CONFIRM, (1, 1), ask + b"\x00")


def test_a_halt_stops_the_messages_of_a_sum_too(pool: SumPool):
    attempt = pool.attempt(pool.setup(), 1)
    pool.vectors(attempt)
    pool.world.clock.ms += 3 * 3_600_000  # nobody heard anything for so long
    pool.world.broker.down = True
    with pytest.raises(Refused, match=r"contract\.halted"):
        pool.ask(SA.SA_CONFIRM, (1, 1), attempt.confirm_ask())


def test_a_contract_with_slots_answers_masked_rounds_at_them(tmp_path: Path):
    pool = sum_pool(tmp_path, privacy__reply_slot_ms=250)
    attempt, before = pool.attempt(pool.setup(), 1), pool.world.clock.ms
    pool.contribute(attempt)
    assert pool.world.clock.ms == before + 250


# --- bounds ---


def test_a_worker_keeps_the_machines_of_so_many_runs(pool: SumPool):
    world = pool.world
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    machines = Machines(key=world.member.identity.key, entropy=SeedEntropy(), outbox=world.worker.outbox)
    for number in range(MAX_ACTIVE_RUNS + 1):
        machines.begin(seat, f"run_{number}")
    with pytest.raises(SetupGoneError):
        machines.of(seat, "run_0")
    assert machines.of(seat, f"run_{MAX_ACTIVE_RUNS}").terms.run == f"run_{MAX_ACTIVE_RUNS}"


# --- noise shares ---


def shares_pool(folder: Path, **changes: Any) -> SumPool:
    named = {"privacy__noise": "shares", "privacy__honest_min": 3} | changes
    return sum_pool(folder, recipe=SHARES, **named)


def test_noise_shares_are_trained_on_the_ring_of_the_sum_and_not_clipped(tmp_path: Path):
    pool = shares_pool(tmp_path)
    setup = pool.setup()
    attempt = pool.attempt(setup, 1)
    vectors = pool.vectors(attempt)
    pool.confirm(attempt)
    pool.unmask(attempt)
    size = pool.terms.dimension
    peers = {name: update_of(name, (1, 1), size) for name in PEERS}
    own = (update_of(NODE, (1, 1), size) * 1000).astype(np.int64)
    expected = plain_sum(pool, peers) + ring.ring_of_grid(own, pool.terms)
    assert np.array_equal(pool.opened(attempt, vectors).z, expected)
    (step,) = pool.world.learner.steps
    assert step == float(SHARES.plan.normalizer) / pool.terms.scale


def test_a_grid_value_beyond_the_ring_is_not_sent(tmp_path: Path):
    pool = shares_pool(tmp_path)
    pool.world.learner.after = lambda grid: grid + 2**pool.terms.bits + 1
    answer, reply = pool.contribute(pool.attempt(pool.setup(), 1))
    assert (reply.code, answer.tensor) == ("update.unfit", None)
    assert "epsilon.spent" in kinds(reply)


def test_noise_shares_are_this_nodes_own_affair_too(tmp_path: Path):
    pool = shares_pool(tmp_path)
    seat = pool.world.worker.guard.seat(pool.world.contract.digest, pool.recipe.digest)
    check_shares(seat, RUN, "required")
    with pytest.raises(SharesUnfitError, match="secure aggregation"):
        check_shares(seat, RUN, "off")
    terms = terms_here(seat, RUN)
    assert grid_step(small_recipe().plan, terms) is None


def test_a_grid_that_is_too_coarse_is_refused_before_anything_is_spent(tmp_path: Path):
    pool = shares_pool(tmp_path, aggregation__update_norm_max="1000000000")
    _, reply = pool.contribute(pool.attempt(pool.setup(), 1))
    assert (reply.code, pool.world.pulled) == ("privacy.shares-unfit", 0)
    assert pool.world.worker.budgets.touches() == ()


def test_noise_shares_beyond_the_ring_are_refused_before_anything_is_signed_or_spent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Each round would be paid for, and no vector sent: `update.unfit`, as often as there are rounds."""
    with pytest.raises(SharesUnfitError, match="update_norm_max at least") as refused:
        shares_pool(tmp_path / "careful", aggregation__update_norm_max="0.01")
    assert refused.value.clause == "k-1"
    monkeypatch.setattr("client.contract.signable.check_noise_room", lambda *_: None)
    with monkeypatch.context() as off:
        off.setattr("client.secagg.agreed.check_noise_room", lambda *_: None)
        pool = shares_pool(tmp_path / "paying", aggregation__update_norm_max="0.01")
        plan, limit = pool.recipe.plan, 2**pool.terms.bits
        assert plan is not None
        noise = np.random.default_rng(0).normal(0, plan.added_std, pool.terms.dimension)
        grid = np.rint(noise / (float(plan.normalizer) / pool.terms.scale)).astype(np.int64)
        pool.world.learner.after = lambda _: grid
        _, reply = pool.contribute(pool.attempt(pool.setup(), 1))
        assert np.abs(grid).max() > limit
        assert (reply.code, len(pool.world.worker.budgets.touches())) == ("update.unfit", 1)
    pool = shares_pool(tmp_path / "signed", aggregation__update_norm_max="0.01")
    _, reply = pool.contribute(pool.attempt(pool.setup(), 1))
    assert (reply.code, pool.world.worker.budgets.touches()) == ("privacy.shares-unfit", ())


def test_a_setup_is_entered_once_the_learner_is_ready_and_what_it_lacks_is_refused_with_the_update(
    pool: SumPool,
):
    pool.setup()
    assert pool.world.learner.got_ready == 1
    pool.world.learner.fail = SetupGoneError(need="a", found="b", remedy="c")
    pool.setup(2, first_round=2)  # takes part all the same: its gate speaks when the update is asked for
    assert pool.world.learner.got_ready == 2
