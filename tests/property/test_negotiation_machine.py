# SPDX-License-Identifier: Apache-2.0
"""Four lanes, whatever is said in whatever order: final means one text, signed by all, in time, and for all at once.

The machine is the real one, signatures are real; beside it stands a list of what every party was seen to say.
"""

from __future__ import annotations

import functools
from collections import Counter

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from policies.contract import CONTRACT_TYPE
from policies.contract.negotiation import (
    Closed,
    Countered,
    Ended,
    Finalized,
    Heard,
    Refused,
    Repeated,
    Said,
    Verified,
    Withdrawn,
)
from policies.contract.negotiation.lanes import BROKER, CONTRIBUTOR
from policies.contract.negotiation.pool import ENDED, TRANSITIONS, LaneState
from policies.encoding import unb64
from policies.identity import parse_key
from policies.ports import to_ms
from policies.signing import Envelope
from tests.contractsim import contract, key_of
from tests.lanesim import PoolSim

NAMES = ("hanbit", "iber", "kita", "nord")
KEYS = {name: key_of(name) for name in NAMES}
PARTIES = st.sampled_from(NAMES)
TEXTS = st.integers(0, 3)
NOW = 1_790_000_000_000
HOUR = 3_600_000
LEADS_TO = {
    "offer": LaneState.OFFERED,
    "agree": LaneState.AGREED,
    "finalize": LaneState.FINALIZED,
    "request": LaneState.REQUESTED,
    "accept": LaneState.ACCEPTED,
    "verify": LaneState.VERIFIED,
    "terminate": LaneState.TERMINATED,
}
reached: Counter[str] = Counter()


@functools.cache
def text(number: int):
    return contract(title=f"Text {number}")


class NegotiationMachine(RuleBasedStateMachine):
    """`PoolSim` beside what an onlooker of all lanes would write down."""

    @initialize()
    def start(self) -> None:
        self.sim = PoolSim(text(0), KEYS, now_ms=NOW)
        self.sim.contracts = {text(number).digest: text(number) for number in range(4)}
        self.ways: dict[str, list[tuple[LaneState | None, LaneState, str]]] = {}
        self.hashes: dict[str, str] = {}
        self.numbers: Counter[str] = Counter()
        self.verified: dict[tuple[str, str], str] = {}
        self.finals: list[tuple[Finalized, int]] = []
        self.ended: dict[str, object] = {}
        self.closings = 0
        self.note(list(self.sim.effects))

    # --- what the onlooker writes down ---

    def note(self, effects: list[object]) -> None:
        reached["steps"] += 1
        for one in effects:
            reached[type(one).__name__] += 1
            if isinstance(one, (Heard, Said)):
                self.note_message(one)
            elif isinstance(one, Verified):
                self.verified[(one.digest, one.party)] = one.signature
            elif isinstance(one, Finalized):
                self.finals.append((one, self.sim.now_ms))
            elif isinstance(one, Closed):
                self.closings += 1
            elif isinstance(one, Refused):
                reached[one.error.code] += 1

    def note_message(self, one: Heard | Said) -> None:
        message = one.message
        assert message.sender == (CONTRIBUTOR if isinstance(one, Heard) else BROKER)
        assert message.prev == self.hashes.get(message.pid)
        self.hashes[message.pid] = message.hash
        self.numbers[message.party] += 1
        assert one.seq == self.numbers[message.party]
        way = self.ways.setdefault(message.pid, [])
        way.append((way[-1][1] if way else None, LEADS_TO[message.type], message.sender))

    def say(self, party: str, kind: str, counter: int | None = None, **changes: object) -> None:
        before = self.sim.pool
        self.note(self.sim.say(party, kind, None if counter is None else text(counter), **changes))
        if any(isinstance(one, Refused) for one in self.sim.effects) and not self.news():
            assert self.sim.pool == before

    def news(self) -> bool:
        """Whether the last event did something besides refusing."""
        return any(isinstance(one, (Closed, Said, Heard)) for one in self.sim.effects)

    # --- what may happen ---

    @rule(party=PARTIES)
    def accept(self, party: str) -> None:
        self.say(party, "accept")

    @rule()
    def all_accept(self) -> None:
        for party in NAMES:
            if self.sim.lane(party).state is LaneState.OFFERED and self.sim.pool.state == "open":
                self.say(party, "accept")

    @rule(party=PARTIES)
    def verify(self, party: str) -> None:
        self.say(party, "verify")

    @rule(parties=st.permutations(NAMES), leave_out=st.sampled_from([0, 0, 0, 1, 2]))
    def many_verify(self, parties: list[str], leave_out: int) -> None:
        for party in parties[leave_out:]:
            self.say(party, "verify")

    @rule(party=PARTIES)
    def verify_without_acknowledging(self, party: str) -> None:
        self.say(party, "verify", acknowledged=())

    @rule(party=PARTIES, number=TEXTS)
    def counter(self, party: str, number: int) -> None:
        round_before = self.sim.pool.round
        self.say(party, "request", number)
        countered = [one for one in self.sim.effects if isinstance(one, Countered)]
        assert self.sim.pool.round == round_before + len(countered) <= 20

    @rule(first=PARTIES, second=PARTIES, numbers=st.tuples(TEXTS, TEXTS))
    def two_counters_at_once(self, first: str, second: str, numbers: tuple[int, int]) -> None:
        late = self.sim.message(second, "request", digest=text(numbers[1]).digest)
        round_before = self.sim.pool.round
        self.say(first, "request", numbers[0])
        self.note(self.sim.give(second, late, text(numbers[1])))
        assert self.sim.pool.round - round_before <= 1 or first == second

    @rule(party=PARTIES, dice=st.integers(0, 9))
    def terminate(self, party: str, dice: int) -> None:
        if dice == 0:  # a contributor that leaves ends everything, so it is rare
            self.say(party, "terminate")

    @rule(party=PARTIES)
    def leave_a_closed_round(self, party: str) -> None:
        if self.sim.pool.state == "terminated":
            self.say(party, "terminate", code="round-closed")

    @rule(party=PARTIES, kind=st.sampled_from(["accept", "verify"]), number=TEXTS)
    def about_another_text(self, party: str, kind: str, number: int) -> None:
        right = text(number).digest == self.sim.lane(party).digest
        before = self.sim.lane(party).state
        self.say(party, kind, digest=text(number).digest)
        assert right or self.sim.lane(party).state == before or self.news()

    @rule(party=PARTIES, other=PARTIES, kind=st.sampled_from(["accept", "verify", "terminate"]))
    def in_the_lane_of_another(self, party: str, other: str, kind: str) -> None:
        if party != other:
            self.note(self.sim.give(party, self.sim.message(party, kind, lane=self.sim.lane(other))))
            assert self.sim.code() is not None

    @rule(data=st.data())
    def the_same_again(self, data: st.DataObject) -> None:
        if self.sim.sent:
            event = data.draw(st.sampled_from(self.sim.sent))
            known = self.sim.pool.known.get(event.message.id) == event.message.hash
            self.note(self.sim.do(event))
            assert known == any(isinstance(one, Repeated) for one in self.sim.effects)

    @rule(data=st.data(), party=PARTIES)
    def a_used_id(self, data: st.DataObject, party: str) -> None:
        if self.sim.pool.known:
            used = data.draw(st.sampled_from(sorted(self.sim.pool.known)))
            self.say(party, "accept", id=used, at="2026-10-01T00:00:00Z")
            assert self.sim.code() == "negotiation.message-conflict"

    @rule(data=st.data(), party=PARTIES, kind=st.sampled_from(["accept", "verify", "terminate"]))
    def out_of_order(self, data: st.DataObject, party: str, kind: str) -> None:
        before = data.draw(st.sampled_from([None, *sorted(self.hashes.values())]))
        right = before == self.sim.lane(party).last_hash
        state = self.sim.lane(party).state
        self.say(party, kind, prev=before)
        assert right or self.sim.lane(party).state is state or self.news()

    @rule(hours=st.sampled_from([1, 1, 1, 5, 24, 24, 100, 400]))
    def time_passes(self, hours: int) -> None:
        self.sim.now_ms += hours * HOUR
        self.note(self.sim.tick())

    @rule(hours=st.integers(1, 30), party=PARTIES)
    def late(self, hours: int, party: str) -> None:
        self.sim.now_ms += hours * HOUR
        self.say(party, "verify" if self.sim.lane(party).state is LaneState.AGREED else "accept")

    @precondition(lambda self: self.sim.pool.state != "open")
    @rule()
    def another_negotiation(self) -> None:
        self.start()

    @rule(dice=st.integers(0, 19))
    def the_broker_ends_it(self, dice: int) -> None:
        if dice == 0:
            self.note(self.sim.do(Withdrawn(at_ms=self.sim.now_ms, ended=Ended(code="called-off"))))

    # --- what must always hold ---

    @invariant()
    def final_means_all_of_one_text_with_valid_signatures(self) -> None:
        if not hasattr(self, "sim"):
            return
        pool = self.sim.pool
        final = [one for one in pool.lanes if one.state is LaneState.FINALIZED]
        assert bool(final) == (pool.state == "finalized") == bool(self.finals)
        if not final:
            return
        ((effect, at_ms),) = self.finals
        assert len(final) == len(pool.lanes) == len(NAMES)
        assert {one.digest for one in final} == {effect.digest}
        signed = self.sim.contracts[effect.digest]
        assert at_ms < to_ms(signed.sign_by)
        assert effect.signatures.keys() == set(NAMES)
        envelope = Envelope(payload_type=CONTRACT_TYPE, payload=signed.canonical, signatures=())
        for party in signed.contributors:
            one = effect.signatures[party.party]
            assert self.verified[(effect.digest, party.party)] == one
            envelope = envelope.with_signature(parse_key(party.key), unb64(one))
        executed_by_all = {hint for hint, _ in envelope.signatures}
        assert len(executed_by_all) == len(NAMES)

    @invariant()
    def every_lane_went_a_way_of_the_table(self) -> None:
        if not hasattr(self, "sim"):
            return
        for way in self.ways.values():
            assert set(way) <= TRANSITIONS
        for lane in (*self.sim.pool.lanes, *self.sim.pool.past):
            assert self.ways[lane.pid][-1][1] is lane.state
            assert lane.last_hash == self.hashes[lane.pid]
            if lane.state in ENDED:
                assert self.ended.setdefault(lane.pid, lane) == lane  # what has ended stays as it is
        assert {one.state for one in self.sim.pool.past} <= {LaneState.TERMINATED}

    @invariant()
    def one_round_at_a_time(self) -> None:
        if not hasattr(self, "sim"):
            return
        pool = self.sim.pool
        assert {(one.round, one.digest) for one in pool.lanes} == {(pool.round, pool.draft.digest)}
        assert len({one.pid for one in (*pool.lanes, *pool.past)}) == len(pool.lanes) + len(pool.past)
        assert self.closings <= 1
        assert (pool.state == "terminated") == (pool.closed is not None) == (self.closings == 1)
        if pool.state == "terminated":
            assert {one.state for one in pool.lanes} <= {LaneState.TERMINATED, LaneState.AGREED}

    def teardown(self) -> None:
        """Nothing waits for ever."""
        if hasattr(self, "sim"):
            self.sim.now_ms += 10**12
            self.sim.tick()
            assert self.sim.pool.state != "open"


NegotiationMachine.TestCase.settings = settings(
    max_examples=80,
    stateful_step_count=60,
    deadline=None,
    derandomize=True,
    suppress_health_check=list(HealthCheck),
)
TestNegotiation = NegotiationMachine.TestCase


def test_the_machine_took_enough_steps_and_saw_every_end() -> None:
    """Runs behind the machine above, in this file's order; alone, it has nothing to say."""
    if not reached:
        reached.update(steps=0)
        TestNegotiation("runTest").runTest()
    print("\nnegotiation machine:", dict(sorted(reached.items())))
    assert reached["steps"] >= 2_000
    for name in (
        "Agreed",
        "Countered",
        "Closed",
        "Finalized",
        "Incident",
        "Repeated",
        "RoundClosed",
        "Verified",
        "negotiation.bad-transition",
        "negotiation.deadline",
        "negotiation.digest-mismatch",
        "negotiation.message-conflict",
        "negotiation.superseded",
        "negotiation.unacknowledged",
    ):
        assert reached[name] > 0, name
