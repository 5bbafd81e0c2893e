# SPDX-License-Identifier: Apache-2.0
"""The writer: batches, savepoints, exactly-once, the rules of members' chains."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import func, insert, select
from sqlalchemy.exc import DBAPIError

from broker.log import LogConflictError, LogUnavailableError, Writer
from broker.log.known import KnownIds
from broker.store import tables
from policies.errors import InvariantError
from policies.limits import COMMIT_BATCH, WRITE_QUEUE
from policies.log.entries import EntryType, check_entry, commitment, event_id, request_digest
from policies.log.envelope import ChainState, Seen
from policies.log.errors import ChainError, EntryError, SeenError, SeqGapError, SlotTakenError
from policies.log.merkle import EMPTY_ROOT, leaf_hash
from policies.signing import Envelope
from tests.logsim import START_MS, LogSim, console, digest_from, genesis
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from broker.log import LogTx
    from broker.store import Session


@pytest.fixture
def sim(tmp_path: Path, database: str) -> Iterator[LogSim]:
    with LogSim(tmp_path, **log_urls(database)) as made:
        yield made


@pytest.fixture
def threaded(tmp_path: Path, database: str) -> Iterator[LogSim]:
    with LogSim(tmp_path, **log_urls(database), threaded=True) as made:
        yield made


def operator(session: Session, name: str) -> None:
    session.execute(insert(tables.operator).values(name=name, key="k", state="active"))


def operators(sim: LogSim) -> list[str]:
    with sim.store.read() as session:
        return list(session.scalars(select(tables.operator.c.name).order_by(tables.operator.c.name)))


def count(sim: LogSim, table: object) -> int:
    with sim.store.read() as session:
        return session.scalar(select(func.count()).select_from(table)) or 0  # type: ignore[arg-type]


def test_row_entry_salts_and_receipt_come_together(sim: LogSim) -> None:
    writer = sim.started(entries=3)

    def work(session: Session, log: LogTx) -> int:
        operator(session, "ann")
        return log.add(console(7))

    index, (receipt,) = writer.submit(work).result()
    body = writer.receipts.body(index)
    assert receipt.verify(leaf_hash(body), [sim.vkey]).size == 4 == writer.head().size
    assert operators(sim) == ["ann"]
    entry = check_entry(body)
    assert (index, entry.id, entry.ts) == (3, event_id(console(7)), "2026-09-21T14:13:00Z")
    with sim.store.read_private() as session:
        rows = session.execute(
            select(tables.log_private).where(tables.log_private.c.event_id == entry.id)
        ).all()
    assert {row.field: commitment(row.salt, row.field, json.loads(row.value)) for row in rows} == entry.sd


def test_an_empty_log_shows_the_empty_head(sim: LogSim) -> None:
    assert sim.open().head() == (0, EMPTY_ROOT, "")


def test_the_genesis_is_first_and_only_once(sim: LogSim) -> None:
    writer = sim.open()
    with pytest.raises(EntryError, match=r"log\.genesis"):
        writer.submit(lambda _session, log: log.add(console(1))).result()
    assert sim.add(genesis(), console(1)) == [0, 1]
    other = replace(genesis(), pub={**genesis().pub, "software": "0.2.0"})
    with pytest.raises(LogConflictError):
        sim.add(other)


def test_the_same_event_twenty_times_is_one_entry_with_the_same_index(sim: LogSim) -> None:
    writer = sim.started(entries=5)
    member = sim.member("kita")
    event = member.submission()
    indices = {sim.add(event)[0] for _ in range(20)}
    assert indices == {5}
    assert writer.head().size == 6
    twice, receipts = writer.submit(lambda _session, log: (log.add(event), log.add(event))).result()
    assert (twice, [one.index for one in receipts]) == ((5, 5), [5])


def test_once_finds_an_event_and_refuses_another_content(sim: LogSim) -> None:
    writer = sim.started(entries=3)
    event = console(2)
    key, request = event_id(event), request_digest(event)
    found, receipts = writer.submit(lambda _session, log: log.once(key, request)).result()
    assert (found, [one.index for one in receipts]) == (2, [2])
    assert writer.submit(lambda _session, log: log.known(console(99))).result() == (None, ())
    changed = replace(event, pub={**event.pub, "result": "refused"})
    assert event_id(changed) == key
    with pytest.raises(LogConflictError) as refused:
        sim.add(changed)
    assert (refused.value.code, refused.value.http_status) == ("log.conflict", 409)
    assert writer.head().size == 3


def test_a_failing_unit_takes_only_its_own_changes(threaded: LogSim) -> None:
    writer = threaded.started()
    gate, entered = threading.Event(), threading.Event()

    def hold(_session: Session, _log: LogTx) -> None:
        entered.set()
        gate.wait(10)

    def good(number: int) -> object:
        def work(session: Session, log: LogTx) -> int:
            operator(session, f"op{number:03d}")
            return log.add(console(number))

        return work

    def bad(session: Session, log: LogTx) -> None:
        operator(session, "ghost")
        log.add(console(5000))
        raise ZeroDivisionError

    first = writer.submit(hold)
    assert entered.wait(10)
    futures = [
        writer.submit(bad if number == 100 else good(number))  # type: ignore[arg-type]
        for number in range(1, COMMIT_BATCH + 1)
    ]
    gate.set()
    first.result(10)
    outcomes = [future.exception(30) for future in futures]
    assert [type(one) for one in outcomes if one is not None] == [ZeroDivisionError]
    indices = [future.result()[0] for future in futures if future.exception() is None]
    assert indices == list(range(1, COMMIT_BATCH))
    assert "ghost" not in operators(threaded)
    assert len(operators(threaded)) == COMMIT_BATCH - 1
    with threaded.store.read() as session:
        checkpoints = session.scalars(select(tables.log_checkpoint.c.size)).all()
    assert writer.head().size == COMMIT_BATCH
    assert len(checkpoints) <= 1  # all of them went in one batch: one checkpoint each for it and the genesis


def together(sim: LogSim, *works: object) -> list[object]:
    """Units that go into one batch, behind one that holds the writer."""
    assert sim.writer is not None
    gate, entered = threading.Event(), threading.Event()
    sim.writer.submit(lambda _session, _log: (entered.set(), gate.wait(10)))
    assert entered.wait(10)
    futures = [sim.writer.submit(work) for work in works]  # type: ignore[arg-type]
    gate.set()
    return [future.exception(30) or future.result()[0] for future in futures]


def test_a_unit_sees_the_entries_of_those_before_it_in_its_batch(threaded: LogSim) -> None:
    threaded.started()

    def seen(session: Session, _log: LogTx) -> int:
        return session.scalar(select(func.count()).select_from(tables.log_entry)) or 0

    def found(_session: Session, log: LogTx) -> int | None:
        return log.known(console(2))

    def add(number: int) -> object:
        return lambda _session, log: log.add(console(number))

    def taken_back(session: Session, log: LogTx) -> None:
        operator(session, "ghost")
        log.add(console(3))
        raise ZeroDivisionError

    first, second, counted, known, failed, same, after = together(
        threaded, add(1), add(2), seen, found, taken_back, add(2), add(3)
    )
    assert (first, second, counted, known, same, after) == (1, 2, 3, 2, 2, 3)
    assert isinstance(failed, ZeroDivisionError)
    assert operators(threaded) == []
    assert count(threaded, tables.log_entry) == 4


def test_a_chain_goes_on_within_a_batch_and_not_behind_a_failed_unit(threaded: LogSim) -> None:
    threaded.started()
    member = threaded.member("kita")
    first = member.submission()
    member.advance(first)
    second = member.submission(rnd=2)

    def fails(_session: Session, log: LogTx) -> None:
        log.add(first)
        raise ZeroDivisionError

    def add(event: object) -> object:
        return lambda _session, log: log.add(event)

    failed, gap, one, two = together(threaded, fails, add(second), add(first), add(second))
    assert [type(failed), type(gap)] == [ZeroDivisionError, SeqGapError]
    assert (one, two) == (1, 2)


def test_entries_that_cannot_be_written_fail_everybody_and_not_who_asked_next(threaded: LogSim) -> None:
    """Waiting entries are written by the next unit's first statement: their failure is not that unit's."""
    threaded.started()
    with threaded.store.main.begin() as session:  # somebody else's entry stands where the next one belongs
        row = session.execute(select(tables.log_entry)).mappings().one()
        session.execute(insert(tables.log_entry).values({**row, "idx": 1, "event_id": b"e" * 16}))

    def asks(session: Session, _log: LogTx) -> None:
        with contextlib.suppress(DBAPIError):  # a unit that goes on whatever happens
            session.scalar(select(func.count()).select_from(tables.log_entry))

    outcomes = together(threaded, lambda _session, log: log.add(console(1)), asks)
    assert [type(one) for one in outcomes] == [LogUnavailableError, LogUnavailableError]
    assert count(threaded, tables.log_entry) == 2


def test_ids_are_known_beyond_any_number_of_entries() -> None:
    known = KnownIds()
    ids = [event_id(console(number)) for number in range(500)]
    known.add(ids[:200])
    known.add(number.to_bytes(8, "big") + b"x" * 8 for number in range(70_000))  # more than stay unsorted
    known.add(ids[200:400])
    assert all(known.may_hold(one) for one in ids[:400])
    assert not any(known.may_hold(one) for one in ids[400:])


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # a file that can be looked at
def test_work_that_is_taken_back_waits_for_no_disk(sim: LogSim) -> None:
    writer = sim.started()
    written = sim.store.main.url.database
    assert written is not None
    journal = Path(f"{written}-wal")

    def tried(session: Session, _log: LogTx) -> None:
        operator(session, "alice")
        raise RuntimeError

    def done(session: Session, _log: LogTx) -> None:
        operator(session, "bob")

    before = journal.read_bytes()
    with pytest.raises(RuntimeError):
        writer.submit(tried).result()
    assert journal.read_bytes() == before
    writer.submit(done).result()
    assert journal.read_bytes() != before
    assert operators(sim) == ["bob"]


def test_a_unit_that_catches_a_refusal_leaves_no_trace_of_it(sim: LogSim) -> None:
    sim.started()
    member = sim.member("kita")
    good = member.submission()
    bad = replace(good, pub={**good.pub, "steps": "many"})

    def work(_session: Session, log: LogTx) -> int:
        with pytest.raises(EntryError):
            log.add(bad)
        return log.add(good)

    assert sim.writer is not None
    assert sim.writer.submit(work).result()[0] == 1
    assert count(sim, tables.log_envelope) == 1


def test_references_point_back(sim: LogSim) -> None:
    sim.started(entries=2)
    with pytest.raises(EntryError, match="references below 2"):
        sim.add(replace(console(9), refs=(2,)))
    assert sim.add(replace(console(9), refs=(1, 0))) == [2]


def test_time_in_entries_never_goes_back(sim: LogSim) -> None:
    sim.started()
    sim.clock.ms = START_MS - 3_600_000
    sim.add(console(1))
    sim.close()
    sim.open()
    sim.add(console(2))
    assert sim.writer is not None
    stamps = [check_entry(sim.writer.receipts.body(index)).ts for index in range(3)]
    assert len(set(stamps)) == 1


class TestChains:
    """Slots of members' envelopes."""

    @pytest.fixture
    def log(self, sim: LogSim) -> LogSim:
        sim.started(entries=4)
        return sim

    def test_numbers_follow_each_other_within_and_between_batches(self, log: LogSim) -> None:
        member = log.member("kita")
        for start in (4, 7):
            events = []
            for _ in range(3):
                events.append(member.submission())
                member.advance(events[-1])
            assert log.add(*events) == [start, start + 1, start + 2]

    def test_a_gap_is_refused_and_names_the_next_number(self, log: LogSim) -> None:
        member = log.member("kita")
        first = member.submission()
        member.advance(first)
        second = member.submission(rnd=2)
        with pytest.raises(SeqGapError) as refused:
            log.add(second)
        assert (refused.value.code, refused.value.need, refused.value.exit_code) == (
            "log.seq-gap",
            "seq 0",
            75,
        )
        assert log.add(first, second) == [4, 5]

    def test_a_used_number_is_refused_to_another_payload(self, log: LogSim) -> None:
        member = log.member("kita")
        log.add(member.submission())
        other = member.submission(rnd=2)
        with pytest.raises(SlotTakenError) as refused:
            log.add(other)
        assert (refused.value.code, refused.value.http_status) == ("log.slot-taken", 409)

    def test_two_payloads_for_one_number_in_one_batch_give_one_entry(self, log: LogSim) -> None:
        member = log.member("kita")
        one, other = member.submission(), member.submission(rnd=2)
        with pytest.raises(SlotTakenError):
            log.add(one, other)
        assert log.add(other) == [4]

    def test_a_broken_link_is_refused(self, log: LogSim) -> None:
        member = log.member("kita")
        event = member.submission()
        log.add(event)
        member.advance(event)
        member.state = replace(member.state, prev=digest_from("another payload"))
        with pytest.raises(ChainError):
            log.add(member.submission(rnd=2))

    @pytest.mark.parametrize("wrong", ["root", "future", "unsigned"])
    def test_a_checkpoint_of_another_history_is_refused(self, log: LogSim, wrong: str) -> None:
        assert log.writer is not None
        member, head = log.member("kita"), log.writer.head()
        member.seen = {
            "root": Seen(head.size, b"x" * 32),
            "future": Seen(head.size + 1, head.root),
            "unsigned": Seen(2**40, head.root),
        }[wrong]
        with pytest.raises(SeenError) as refused:
            log.add(member.submission())
        assert refused.value.code == "log.seen-unknown"

    def test_every_earlier_checkpoint_is_known(self, log: LogSim) -> None:
        assert log.writer is not None
        for size in range(5):
            member = log.member(f"m{size}")
            member.seen = Seen(size, log.writer.receipts.root(size))
            log.add(member.submission())

    def test_what_was_seen_never_shrinks(self, log: LogSim) -> None:
        assert log.writer is not None
        member = log.member("kita")
        event = member.submission()
        log.add(event)
        member.advance(event)
        member.seen = Seen(2, log.writer.receipts.root(2))
        with pytest.raises(SeenError):
            log.add(member.submission(rnd=2))

    def test_a_chain_belongs_to_the_key_that_began_it(self, log: LogSim) -> None:
        member, rival = log.member("kita"), log.member("nord")
        event = member.submission()
        rival.state = member.state
        with pytest.raises(ChainError, match="another key began"):
            log.add(event, rival.submission(rnd=2, seq=1, prev=event.env))
        log.add(event)
        member.advance(event)
        rival.state = member.state
        with pytest.raises(ChainError, match="another key began"):
            log.add(rival.submission(rnd=2))
        assert log.add(member.submission(rnd=2)) == [5]

    def test_an_envelope_for_another_log_is_refused(self, log: LogSim) -> None:
        member = log.member("kita")
        event = member.event(member.submission(log="other.example/log").envelope)  # type: ignore[arg-type]
        with pytest.raises(EntryError, match="another log"):
            log.add(event)

    def test_another_spelling_of_a_payload_is_refused(self, log: LogSim) -> None:
        member = log.member("kita")
        event = member.submission()
        assert event.envelope is not None
        spelled = json.dumps(json.loads(event.envelope.payload)).encode()
        sloppy = Envelope.seal(spelled, event.envelope.payload_type, member.key)
        with pytest.raises(EntryError, match="canonical"):
            log.add(replace(event, envelope=sloppy))

    def test_chains_survive_a_restart(self, log: LogSim) -> None:
        member = log.member("kita")
        event = member.submission()
        log.add(event)
        member.advance(event)
        log.close()
        log.open()
        assert log.add(event) == [4]
        assert log.add(member.submission(rnd=2)) == [5]
        member.state = ChainState(chain=member.state.chain)
        with pytest.raises(SlotTakenError):
            log.add(member.submission(rnd=3))


async def test_run_awaits_the_answer_of_a_thread(threaded: LogSim) -> None:
    writer = threaded.started()
    answers = await asyncio.gather(
        *(
            writer.run(lambda _session, log, number=number: log.add(console(number)))
            for number in range(1, 40)
        )
    )
    assert [index for index, _ in answers] == list(range(1, 40))
    with pytest.raises(ZeroDivisionError):
        await writer.run(lambda _session, _log: 1 // 0)


async def test_run_works_without_a_thread(sim: LogSim) -> None:
    writer = sim.started()
    assert (await writer.run(lambda _session, log: log.add(console(1))))[0] == 1


def test_a_unit_of_work_cannot_submit_another(sim: LogSim) -> None:
    writer = sim.started()
    with pytest.raises(InvariantError):
        writer.submit(lambda _session, _log: writer.submit(lambda _s, _l: None)).result()


def test_a_cancelled_unit_is_not_run(threaded: LogSim) -> None:
    writer = threaded.started()
    gate, entered = threading.Event(), threading.Event()
    first = writer.submit(lambda _session, _log: (entered.set(), gate.wait(10)))
    assert entered.wait(10)
    second = writer.submit(lambda session, _log: operator(session, "ghost"))
    assert second.cancel()
    gate.set()
    first.result(10)
    threaded.add(console(1))
    assert operators(threaded) == []


def test_a_full_queue_and_a_closed_writer_are_unavailable(threaded: LogSim) -> None:
    writer = threaded.started()
    gate, entered = threading.Event(), threading.Event()
    first = writer.submit(lambda _session, _log: (entered.set(), gate.wait(10)))
    assert entered.wait(10)
    waiting = [writer.submit(lambda _session, _log: None) for _ in range(WRITE_QUEUE)]
    refused = writer.submit(lambda _session, _log: None)
    error = refused.exception(1)
    assert isinstance(error, LogUnavailableError)
    assert (error.code, error.exit_code, error.http_status) == ("log.unavailable", 75, 503)
    gate.set()
    first.result(10)
    assert all(one.exception(30) is None for one in waiting)
    writer.close()
    assert isinstance(writer.submit(lambda _session, _log: None).exception(1), LogUnavailableError)


def test_closing_finishes_what_is_queued(threaded: LogSim) -> None:
    writer = threaded.started()
    futures = [
        writer.submit(lambda _session, log, number=number: log.add(console(number)))
        for number in range(1, 300)
    ]
    writer.close()
    assert [future.result(0)[0] for future in futures] == list(range(1, 300))


def test_every_published_note_is_kept_once(sim: LogSim) -> None:
    writer = sim.started()
    notes = [writer.head().note]
    for number in range(1, 6):
        sim.add(console(number))
        notes.append(writer.head().note)
    sim.close()
    sim.open()
    sim.add(console(6))
    with sim.store.read() as session:
        kept = session.scalars(
            select(tables.log_checkpoint.c.note).order_by(tables.log_checkpoint.c.size)
        ).all()
    assert list(kept) == notes


def test_types_of_the_schema_reach_the_index_columns(sim: LogSim) -> None:
    sim.started()
    member = sim.member("kita")
    sim.add(member.submission(rnd=7))
    with sim.store.read() as session:
        row = session.execute(select(tables.log_entry).where(tables.log_entry.c.idx == 1)).one()
        envelope = session.execute(select(tables.log_envelope)).one()
    assert (row.type, row.run, row.round) == (EntryType.SUBMISSION_RECEIVED, "run_aaaaaaaaaaaaaaaa", 7)
    assert row.scope == digest_from("contract")
    assert (envelope.chain, envelope.seq, envelope.seen_size) == (member.state.chain, 0, 1)
    stored = Envelope.from_bytes(envelope.dsse)
    assert stored.signed_by(member.key.public)


def test_a_writer_opens_where_the_last_one_ended(sim: LogSim) -> None:
    before = sim.started(entries=12).head()
    sim.close()
    writer = sim.open()
    assert isinstance(writer, Writer)
    assert (writer.head(), writer.frozen) == (before, None)
    assert sim.add(console(50)) == [12]
