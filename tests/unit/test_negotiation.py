# SPDX-License-Identifier: Apache-2.0
"""The machine of negotiations alone: what may follow what, and what follows from it."""

from __future__ import annotations

import functools

import pytest

from policies.contract.errors import DeadlineError
from policies.contract.negotiation import (
    Activated,
    Agreed,
    Closed,
    Countered,
    Ended,
    Finalized,
    Heard,
    Incident,
    LaneState,
    Opened,
    Opening,
    Refused,
    Repeated,
    RoundClosed,
    Verified,
    Withdrawn,
    open_pool,
)
from policies.contract.negotiation.lanes import BROKER, CONTRIBUTOR, LaneMessage
from policies.contract.negotiation.pool import DEADLINE_MS, TRANSITIONS, Pool
from policies.ports import to_ms
from tests.contractsim import contract, key_of
from tests.lanesim import PoolSim, draft_of, warnings_of

NAMES = ("hanbit", "iber", "kita", "nord")
KEYS = {name: key_of(name) for name in (*NAMES, "broker")}
NOW = 1_790_000_000_000
DAY = 86_400_000


@functools.cache
def text(title: str = "Text 1", **changes: object):
    return contract(title=title, **changes)


def sim(**changes: object) -> PoolSim:
    return PoolSim(text(**changes), KEYS, now_ms=NOW)


def accepted() -> PoolSim:
    one = sim()
    for name in NAMES:
        one.say(name, "accept")
    return one


def kinds(effects: list[object]) -> list[str]:
    return [type(one).__name__ for one in effects]


def test_the_table_of_transitions_is_the_one_of_the_dataspace_protocol() -> None:
    def row(line: str) -> set[tuple[str | None, str, str]]:
        way, senders = line.split(" by ")
        before, after = way.split(">")
        who = {"C": CONTRIBUTOR, "P": BROKER}
        return {(before if before != "start" else None, after, who[one]) for one in senders}

    lines = (
        "start>REQUESTED by C",
        "start>OFFERED by P",
        "REQUESTED>OFFERED by P",
        "REQUESTED>AGREED by P",
        "OFFERED>REQUESTED by C",
        "OFFERED>ACCEPTED by C",
        "ACCEPTED>AGREED by P",
        "AGREED>VERIFIED by C",
        "VERIFIED>FINALIZED by P",
        "REQUESTED>TERMINATED by CP",
        "OFFERED>TERMINATED by CP",
        "ACCEPTED>TERMINATED by P",
        "AGREED>TERMINATED by C",
        "VERIFIED>TERMINATED by P",
    )
    assert set().union(*map(row, lines)) == TRANSITIONS


def test_an_opened_pool_has_offered_the_text_in_every_lane() -> None:
    one = sim()
    assert one.states() == dict.fromkeys(NAMES, "OFFERED")
    assert kinds(list(one.effects)) == ["Opened", *["Said"] * 4]
    assert one.effects[0] == Opened(digest=text().digest)
    assert all(one.said(name) == [("offer", None)] for name in NAMES)
    assert one.pool.waiting_for == NAMES


def test_a_text_that_nobody_can_sign_any_more_is_not_opened() -> None:
    late = to_ms(text().sign_by)
    opening = Opening(
        id="neg_" + "a" * 16,
        contract_id=text().contract_id,
        version=1,
        supersedes=None,
        seed="00" * 16,
        draft=draft_of(text()),
    )
    with pytest.raises(DeadlineError):
        open_pool(opening, at_ms=late)


def test_the_broker_agrees_when_the_last_has_accepted() -> None:
    one = sim()
    for name in NAMES[:3]:
        assert kinds(one.say(name, "accept")) == ["Heard"]
    assert one.pool.waiting_for == ("nord",)
    effects = one.say("nord", "accept")
    assert kinds(effects) == ["Heard", "Agreed", *["Said"] * 4]
    assert Agreed(digest=text().digest) in effects
    assert one.states() == dict.fromkeys(NAMES, "AGREED")


def test_the_last_signature_makes_all_lanes_final_at_once() -> None:
    one = accepted()
    for name in NAMES[:3]:
        effects = one.say(name, "verify")
        assert kinds(effects) == ["Heard", "Verified"]
    effects = one.say("nord", "verify")
    assert kinds(effects) == ["Heard", "Verified", *["Said"] * 4, "Finalized"]
    final = next(found for found in effects if isinstance(found, Finalized))
    assert (final.digest, sorted(final.signatures)) == (text().digest, list(NAMES))
    assert one.states() == dict.fromkeys(NAMES, "FINALIZED")
    assert (one.pool.state, one.pool.deadline_ms, one.pool.waiting_for) == ("finalized", None, ())


def test_a_counter_offer_starts_the_next_round_with_new_lanes_for_the_others() -> None:
    one = sim()
    one.say("hanbit", "accept")
    before = {lane.party: lane.pid for lane in one.pool.lanes}
    effects = one.say("kita", "request", counter=text("Text 2"))
    assert Countered(old=text().digest, new=text("Text 2").digest, party="kita", round=2) in effects
    assert one.states() == dict.fromkeys(NAMES, "OFFERED")
    assert {lane.digest for lane in one.pool.lanes} == {text("Text 2").digest}
    after = {lane.party: lane.pid for lane in one.pool.lanes}
    assert after["kita"] == before["kita"]
    assert not {after[name] for name in NAMES if name != "kita"} & set(before.values())
    assert one.said("kita") == [("offer", None)]
    assert one.said("nord") == [("terminate", "superseded-by-round-2"), ("offer", None)]
    assert {(lane.party, lane.state) for lane in one.pool.past} == {
        (name, LaneState.TERMINATED) for name in NAMES if name != "kita"
    }


def test_of_two_counter_offers_the_second_finds_its_lane_overtaken() -> None:
    one = sim()
    second = one.message("nord", "request", digest=text("Text 3").digest)
    one.say("kita", "request", counter=text("Text 2"))
    effects = one.give("nord", second, text("Text 3"))
    (refusal,) = (found.error for found in effects if isinstance(found, Refused))
    assert (refusal.code, refusal.exit_code, refusal.http_status) == ("negotiation.superseded", 7, 409)
    assert text("Text 2").digest in refusal.need
    assert one.pool.round == 2


def test_a_counter_offer_may_bring_in_another_contributor_and_leave_one_out() -> None:
    without_nord = three("hanbit", "iber", "kita")
    one = PoolSim(without_nord, KEYS, now_ms=NOW)
    one.say("kita", "request", counter=three("iber", "kita", "nord"))
    assert one.states() == dict.fromkeys(("iber", "kita", "nord"), "OFFERED")
    assert [lane.party for lane in one.pool.lanes_of_key(one.pool.past[0].key)] == ["hanbit"]
    assert one.said("nord") == [("offer", None)]


@functools.cache
def three(*names: str):
    from policies.contract import from_tree
    from tests.contractsim import runnable

    tree = runnable()
    tree["parties"] = [one for one in tree["parties"] if one["party"] in {*names, "broker"}]
    tree["purposes"] = tree["purposes"][:1]
    recipe = tree["recipes"][0]
    recipe["datasets"] = [{"party": name, "dataset": f"{name}/pick"} for name in names]
    tree["recipes"] = [recipe]
    tree["fields"]["trade_secret"] = []
    tree["privacy"]["per_party"] = []
    tree["tiers"] = [one for one in tree["tiers"] if one["tier"] in {"consortium", "private"}]
    tree["release"]["approvals"] = {"of": "contributors", "min": 2, "veto": []}
    return from_tree(tree)


def test_who_counters_cannot_leave_itself_out() -> None:
    one = PoolSim(three("hanbit", "iber", "kita"), KEYS, now_ms=NOW)
    one.say("hanbit", "request", counter=three("iber", "kita", "nord"))
    assert one.code() == "negotiation.bad-transition"
    assert one.pool.round == 1


def test_a_counter_offer_that_nobody_could_sign_in_time_is_refused() -> None:
    one = sim()
    one.now_ms = to_ms("2026-09-25T00:00:00Z")
    one.say("kita", "request", counter=text("Text 2", sign_by="2026-09-24T00:00:00Z"))
    assert one.code() == "negotiation.deadline"
    assert (one.pool.state, one.pool.round) == ("open", 1)


def test_the_last_round_takes_no_counter_offer() -> None:
    one = sim()
    for number in range(2, 21):
        one.say("kita", "request", counter=text(f"Text {number % 3}"))
        assert one.pool.round == number
    one.say("kita", "request", counter=text("Text 7"))
    assert one.code() == "negotiation.bad-transition"
    assert one.pool.round == 20
    assert len({lane.pid for lane in (*one.pool.lanes, *one.pool.past)}) == 4 + 3 * 19


def test_one_refusal_ends_the_round_for_all() -> None:
    one = sim()
    one.say("hanbit", "accept")
    effects = one.say("iber", "terminate", code="price-too-high", clause="fees-1", text="Too much.")
    ended = Ended(code="price-too-high", clause="fees-1", text="Too much.", party="iber")
    assert Closed(digest=text().digest, ended=ended) in effects
    assert one.states() == dict.fromkeys(NAMES, "TERMINATED")
    assert one.said("hanbit") == [("terminate", "round-closed")]
    assert one.said("iber") == []
    assert one.pool.closed == ended
    one.say("nord", "accept")
    assert one.code() == "negotiation.bad-transition"


def test_a_lane_in_agreed_is_ended_by_its_contributor_alone() -> None:
    one = accepted()
    one.say("hanbit", "verify")
    effects = one.say("iber", "terminate", code="board-said-no")
    assert one.states() == {
        "hanbit": "TERMINATED",
        "iber": "TERMINATED",
        "kita": "AGREED",
        "nord": "AGREED",
    }
    assert [found.party for found in effects if isinstance(found, RoundClosed)] == ["kita", "nord"]
    one.say("kita", "verify")
    assert one.code() == "negotiation.bad-transition"
    assert kinds(one.say("kita", "terminate", code="round-closed")) == ["Heard"]
    assert one.states()["kita"] == "TERMINATED"


def test_who_has_accepted_waits_for_the_others_and_cannot_leave() -> None:
    one = sim()
    one.say("hanbit", "accept")
    one.say("hanbit", "terminate")
    assert one.code() == "negotiation.bad-transition"
    assert one.states()["hanbit"] == "ACCEPTED"


def test_the_broker_ends_what_it_may_end() -> None:
    one = accepted()
    one.say("hanbit", "verify")
    one.do(Withdrawn(at_ms=NOW, ended=Ended(code="pool-called-off")))
    assert one.states() == {"hanbit": "TERMINATED", "iber": "AGREED", "kita": "AGREED", "nord": "AGREED"}
    assert one.said("hanbit") == [("terminate", "pool-called-off")]
    assert one.do(Withdrawn(at_ms=NOW, ended=Ended(code="again"))) == []


@pytest.mark.parametrize("state", list(DEADLINE_MS))
def test_each_state_has_its_deadline(state: LaneState) -> None:
    days = {"REQUESTED": 7, "OFFERED": 14, "ACCEPTED": 7, "AGREED": 7}[state.value]
    assert DEADLINE_MS[state] == days * DAY


@pytest.mark.parametrize(("done", "days"), [((), 14), (("hanbit",), 7), (NAMES, 7)])
def test_a_missed_deadline_closes_the_round(done: tuple[str, ...], days: int) -> None:
    one = sim()
    for name in done:
        one.say(name, "accept")
    one.now_ms = NOW + days * DAY - 1
    assert one.tick() == []
    one.now_ms += 1
    assert Closed in {type(found) for found in one.tick()}
    assert one.pool.closed is not None
    assert (one.pool.closed.code, one.pool.state) == ("negotiation.deadline", "terminated")
    assert set(one.states().values()) == ({"AGREED"} if done == NAMES else {"TERMINATED"})


def test_a_lane_that_was_requested_and_never_offered_ends_after_a_week() -> None:
    one = sim()
    tree = one.pool.to_bytes().replace(b'"OFFERED"', b'"REQUESTED"')
    deadline = str(one.lane("kita").deadline_ms).encode()
    one.pool = Pool.from_bytes(tree.replace(deadline, str(NOW + 7 * DAY).encode()))
    one.now_ms = NOW + 7 * DAY
    one.tick()
    assert one.states() == dict.fromkeys(NAMES, "TERMINATED")


def test_no_deadline_is_later_than_the_time_to_sign() -> None:
    by = to_ms(text().sign_by)
    one = PoolSim(text(), KEYS, now_ms=by - DAY)
    assert one.pool.deadline_ms == by
    for name in NAMES:
        one.say(name, "accept")
    for name in NAMES[:3]:
        one.say(name, "verify")
    one.now_ms = by
    one.say("nord", "verify")
    assert one.code() == "negotiation.deadline"
    assert one.pool.state == "terminated"
    assert not any(isinstance(found, Finalized) for found in one.effects)


def test_a_verified_lane_waits_until_the_time_to_sign_is_over() -> None:
    one = accepted()
    one.say("hanbit", "verify")
    assert one.lane("hanbit").deadline_ms == to_ms(text().sign_by)


def test_a_late_message_is_told_the_deadline_and_who_was_waited_for() -> None:
    one = sim()
    one.say("hanbit", "accept")
    one.now_ms = NOW + 7 * DAY
    one.say("nord", "accept")
    (refusal,) = (found.error for found in one.effects if isinstance(found, Refused))
    assert refusal.code == "negotiation.deadline"
    assert "hanbit in ACCEPTED" in refusal.found


def test_the_same_message_again_changes_nothing() -> None:
    one = sim()
    message = one.message("kita", "accept")
    one.give("kita", message)
    pool = one.pool
    assert one.give("kita", message) == [Repeated(id=message.id)]
    assert one.pool == pool


def test_a_used_id_with_other_bytes_is_an_incident() -> None:
    one = sim()
    message = one.message("kita", "accept")
    one.give("kita", message)
    other = one.message("kita", "terminate", id=message.id)
    assert kinds(one.give("kita", other)) == ["Incident", "Refused"]
    assert one.effects[0] == Incident(kind="negotiation.message-conflict")
    assert one.code() == "negotiation.message-conflict"
    assert one.states()["kita"] == "ACCEPTED"


def test_a_message_that_does_not_follow_is_refused() -> None:
    one = sim()
    verify_too_early = one.message("kita", "verify")
    one.say("kita", "accept")
    for changes in ({"prev": None}, {"prev": text().digest}, {"round": 2}):
        one.say("nord", "accept", **changes)
        assert one.code() == "negotiation.bad-transition"
    one.give("kita", verify_too_early)
    assert one.code() == "negotiation.bad-transition"
    assert one.states() == {"hanbit": "OFFERED", "iber": "OFFERED", "kita": "ACCEPTED", "nord": "OFFERED"}


def test_a_message_about_another_text_is_refused() -> None:
    one = sim()
    one.say("kita", "accept", digest=text("Text 2").digest)
    assert one.code() == "negotiation.digest-mismatch"
    one.say("kita", "request", counter=text())
    assert one.code() == "negotiation.digest-mismatch"
    one.give("kita", one.message("kita", "request", digest=text("Text 2").digest), text("Text 3"))
    assert one.code() == "negotiation.digest-mismatch"
    assert one.states() == dict.fromkeys(NAMES, "OFFERED")


def test_a_message_in_the_lane_of_another_is_refused() -> None:
    one = sim()
    foreign = one.message("kita", "accept", lane=one.lane("nord"))
    for message in (foreign, LaneMessage(**_fields(foreign) | {"party": "kita"})):
        one.give("kita", message)
        assert one.code() == "negotiation.bad-transition"
    as_broker = one.message("kita", "agree", sender="broker")
    one.give("kita", as_broker)
    assert one.code() == "negotiation.bad-transition"
    one.say("kita", "accept", pid="lane_" + "z" * 16)
    assert one.code() == "negotiation.bad-transition"
    assert one.states() == dict.fromkeys(NAMES, "OFFERED")


def _fields(message: LaneMessage) -> dict[str, object]:
    return {name: getattr(message, name) for name in LaneMessage.__slots__}


def test_a_signature_acknowledges_every_warning_by_its_id() -> None:
    one = accepted()
    warnings = warnings_of(text())
    assert len(warnings) > 2
    one.say("kita", "verify", acknowledged=warnings[1:-1])
    (refusal,) = (found.error for found in one.effects if isinstance(found, Refused))
    assert refusal.code == "negotiation.unacknowledged"
    assert warnings[0] in refusal.need
    assert warnings[-1] in refusal.need
    assert warnings[1] not in refusal.need
    assert one.states()["kita"] == "AGREED"
    assert Verified in {type(found) for found in one.say("kita", "verify")}


def test_a_verify_without_a_checked_signature_is_refused() -> None:
    from dataclasses import replace

    one = accepted()
    one.say("kita", "verify", acknowledged=())
    one.do(replace(one.sent[-1], message=one.message("kita", "verify"), signature=None))
    assert one.code() == "negotiation.bad-transition"
    assert one.states()["kita"] == "AGREED"


def test_nothing_follows_a_final_contract() -> None:
    one = accepted()
    for name in NAMES:
        one.say(name, "verify")
    for kind in ("accept", "verify", "terminate"):
        one.say("kita", kind)
        assert one.code() == "negotiation.bad-transition"
    one.say("kita", "request", counter=text("Text 2"))
    assert one.code() == "negotiation.bad-transition"
    one.now_ms = NOW + 1000 * DAY
    assert one.tick() == []
    assert one.states() == dict.fromkeys(NAMES, "FINALIZED")


# --- two of the broker's people ---


def held() -> PoolSim:
    """Everybody has signed; nobody of the broker has approved."""
    one = PoolSim(text(), KEYS, now_ms=NOW, held=True)
    for kind in ("accept", "verify"):
        for name in NAMES:
            one.say(name, kind)
    return one


def test_what_everybody_signed_is_not_final_before_two_people_of_the_broker_approved_it() -> None:
    one = held()
    assert (one.states(), one.pool.held) == (dict.fromkeys(NAMES, "VERIFIED"), True)
    assert kinds(one.do(Activated(at_ms=NOW, digest=text("Text 2").digest))) == []
    effects = one.do(Activated(at_ms=NOW, digest=text().digest))
    assert kinds(effects) == [*["Said"] * 4, "Finalized"]
    assert (one.states(), one.pool.held) == (dict.fromkeys(NAMES, "FINALIZED"), False)


def test_an_approval_that_came_first_waits_for_the_last_signature() -> None:
    one = PoolSim(text(), KEYS, now_ms=NOW, held=True)
    assert kinds(one.do(Activated(at_ms=NOW, digest=text().digest))) == []
    for kind in ("accept", "verify"):
        for name in NAMES:
            one.say(name, kind)
    assert kinds(list(one.effects))[-1] == "Finalized"


def test_the_text_of_a_counter_offer_is_not_the_one_that_was_approved() -> None:
    one = PoolSim(text(), KEYS, now_ms=NOW, held=True)
    one.do(Activated(at_ms=NOW, digest=text().digest))
    one.say("kita", "request", counter=text("Text 2"))
    for kind in ("accept", "verify"):
        for name in NAMES:
            one.say(name, kind)
    assert one.pool.held
    one.do(Activated(at_ms=NOW, digest=text("Text 2").digest))
    assert one.states() == dict.fromkeys(NAMES, "FINALIZED")


def test_what_nobody_approved_ends_with_the_time_to_sign_and_says_so() -> None:
    one = held()
    one.now_ms = to_ms(text().sign_by)
    effects = one.tick()
    closed = next(found for found in effects if isinstance(found, Closed))
    assert "second person" in str(closed.ended.text)
    assert one.states() == dict.fromkeys(NAMES, "TERMINATED")
    assert one.do(Activated(at_ms=one.now_ms, digest=text().digest)) == []


def test_a_pool_that_was_stored_before_there_were_approvals_has_none() -> None:
    old = held().pool.to_bytes().replace(b'"activated":null,', b"")
    assert b"activated" not in old
    assert Pool.from_bytes(old).activated is None


def test_ids_of_the_broker_cannot_be_told_before() -> None:
    first, other = sim(), sim()
    other.pool = Pool.from_bytes(other.pool.to_bytes().replace(b"5e" * 16, b"5f" * 16))
    for one in (first, other):
        for name in NAMES:
            one.say(name, "accept")
    ids = [
        {found.message.id for found in one.effects if not isinstance(found, (Heard, Agreed))}
        for one in (first, other)
    ]
    assert len(ids[0]) == 4
    assert not ids[0] & ids[1]


def test_numbers_of_a_party_go_on_over_rounds() -> None:
    one = sim()
    one.say("kita", "request", counter=text("Text 2"))
    one.say("nord", "request", counter=text("Text 3"))
    one.say("nord", "accept")
    assert one.pool.counts["nord"] == len([1, "terminate", "offer", "request", "offer", "accept"])
