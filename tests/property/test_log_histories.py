# SPDX-License-Identifier: Apache-2.0
"""Random histories against a list of event ids: what the log holds, in which order, and what it proves."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from broker.log import LogConflictError
from policies.log.entries import Event, check_entry, event_id
from policies.log.envelope import Seen
from policies.log.errors import SeqGapError, SlotTakenError
from policies.log.merkle import leaf_hash, root_from_leaves, verify_consistency
from tests.logsim import LogSim, MemberSim, console, genesis

NUMBERS = st.integers(1, 60)


class LogMachine(RuleBasedStateMachine):
    """The writer, run as a simulation runs it, beside the simplest thing that could be right."""

    @initialize()
    def start(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.sim = LogSim(Path(self.folder.name))
        self.sim.open()
        self.sim.add(genesis())
        self.expected = [event_id(genesis())]
        self.members: dict[str, MemberSim] = {}
        self.sent: list[Event] = []
        self.heads = [self.writer.head()]

    def teardown(self) -> None:
        if hasattr(self, "folder"):
            self.sim.close()
            self.folder.cleanup()

    @property
    def writer(self):
        assert self.sim.writer is not None
        return self.sim.writer

    def place(self, event: Event) -> int:
        """Where the model says that an event is or goes."""
        key = event_id(event)
        if key not in self.expected:
            self.expected.append(key)
        return self.expected.index(key)

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=5))
    def add(self, numbers: list[int]) -> None:
        events = [console(number) for number in numbers]
        assert self.sim.add(*events) == [self.place(event) for event in events]
        self.sim.clock.ms += 1_000

    @rule(numbers=st.lists(NUMBERS, min_size=1, max_size=5))
    def fail(self, numbers: list[int]) -> None:
        def work(_session: object, log: object) -> None:
            for number in numbers:
                log.add(console(number))  # type: ignore[attr-defined]
            raise ZeroDivisionError

        assert isinstance(self.writer.submit(work).exception(), ZeroDivisionError)

    @rule(number=NUMBERS)
    def conflict(self, number: int) -> None:
        event = console(number)
        if event_id(event) in self.expected:
            changed = replace(event, pub={**event.pub, "action": "other"})
            failed = self.writer.submit(lambda _session, log: (log.add(console(61)), log.add(changed)))
            assert isinstance(failed.exception(), LogConflictError)

    @rule(name=st.sampled_from(["kita", "nord", "hanbit"]), rnd=st.integers(1, 3), older=st.booleans())
    def submit(self, name: str, rnd: int, older: bool) -> None:
        member = self.members.setdefault(name, self.sim.member(name))
        size = self.writer.head().size if not older else max(1, member.state.seen_size)
        member.seen = Seen(size, self.writer.receipts.root(size))
        event = member.submission(rnd=rnd)
        assert self.sim.add(event) == [self.place(event)]
        member.advance(event)
        self.sent.append(event)

    @rule(data=st.data())
    def send_again(self, data: st.DataObject) -> None:
        if self.sent:
            event = data.draw(st.sampled_from(self.sent))
            assert self.sim.add(event) == [self.place(event)]

    @rule(name=st.sampled_from(["kita", "nord"]), step=st.sampled_from([-1, 1, 2]))
    def wrong_number(self, name: str, step: int) -> None:
        member = self.members.get(name)
        if member is None:
            return
        true_state = member.state
        member.state = replace(true_state, next_seq=true_state.next_seq + step)
        if member.state.next_seq == 0:
            member.state = replace(member.state, prev=None)
        event = member.submission(rnd=9)
        member.state = true_state
        refused = self.writer.submit(lambda _session, log: log.add(event)).exception()
        assert isinstance(refused, SlotTakenError if step < 0 else SeqGapError)

    @rule()
    def restart(self) -> None:
        before = self.writer.head()
        self.sim.close()
        self.sim.open()
        assert (self.writer.head(), self.writer.frozen) == (before, None)

    @invariant()
    def log_is_what_the_model_says(self) -> None:
        if not hasattr(self, "sim"):
            return
        head = self.writer.head()
        assert head.size == len(self.expected)
        bodies = [self.writer.receipts.body(index) for index in range(head.size)]
        assert [check_entry(body).id for body in bodies] == self.expected
        assert root_from_leaves(leaf_hash(body) for body in bodies) == head.root
        old = self.heads[-1]
        proof = self.writer.consistency(old.size)
        verify_consistency(size1=old.size, size2=head.size, root1=old.root, root2=head.root, proof=proof)
        self.heads.append(head)
        last = head.size - 1
        self.writer.receipts.receipt(last).verify(leaf_hash(bodies[last]), [self.sim.vkey])


LogMachine.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None, suppress_health_check=list(HealthCheck)
)
TestLogHistories = LogMachine.TestCase
