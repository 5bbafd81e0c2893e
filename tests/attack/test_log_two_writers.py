# SPDX-License-Identifier: Apache-2.0
"""Two broker processes write to one log at the same time: one history, every answer true, nothing twice."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from sqlalchemy import event

from broker.log import FreezeReason, LogFrozenError, Writer
from broker.store import Store
from policies.log.checkpoint import open_checkpoint
from policies.log.merkle import leaf_hash, verify_consistency
from tests.log_kills import Killing, Nursery, Order, Tally
from tests.logsim import ORIGIN, LogSim, console
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALLERS = 32  # of each process
EACH = 1_000
SHARED = 500  # units that both send: the same events


@pytest.mark.slow
def test_two_processes_with_64_callers_give_one_history_and_lose_no_answer(
    tmp_path: Path, database: str
) -> None:
    urls = log_urls(database)
    where = {"folder": str(tmp_path), "callers": CALLERS, **urls}
    with LogSim(tmp_path, **urls) as sim:
        sim.started()
    ranges = [(1, EACH), (1 + EACH - SHARED, 2 * EACH - SHARED)]
    with Nursery() as one, Nursery() as other:
        for nursery, (first, last) in zip((one, other), ranges, strict=True):
            nursery.begin(Order(first=first, last=last, **where))  # type: ignore[arg-type]
        answers = [nursery.said() for nursery in (one, other)]
    assert [lines[0].split()[0] for lines in answers] == ["open", "open"]
    places: dict[int, set[int]] = {}
    sizes = set()
    for lines, (first, last) in zip(answers, ranges, strict=True):
        said = [tuple(map(int, line.split())) for line in lines[1:]]
        assert sorted(number for number, *_ in said) == list(range(first, last + 1))  # no lost answer
        for number, index, size in said:
            places.setdefault(number, set()).add(index)
            sizes.add(size)
    assert all(len(found) == 1 for found in places.values())  # also of those that both sent
    with Nursery() as nursery:
        killing = Killing(folder=tmp_path, nursery=nursery, tally=Tally(), **urls)
        killing.acknowledged = {number: (index, 1) for number, (index,) in places.items()}
        killing.check()
        assert (killing.tally.lost, killing.tally.doubled) == (0, 0)
    with LogSim(tmp_path, **urls) as sim:
        writer = sim.open()
        head = writer.head()
        assert max(sizes) == head.size
        for size in sizes:  # every checkpoint that was ever given out is a prefix
            verify_consistency(
                size, head.size, writer.receipts.root(size), head.root, writer.consistency(size)
            )


class TestTwoWritersInTurn:
    """What one writer learns of the other, step by step."""

    @pytest.fixture
    def pair(self, tmp_path: Path, database: str) -> Iterator[tuple[LogSim, LogSim]]:
        urls = log_urls(database)
        with LogSim(tmp_path, **urls) as one, LogSim(tmp_path, **urls) as other:
            one.started(entries=3)
            other.open()
            yield one, other

    def test_each_batch_goes_on_where_the_other_ended(self, pair: tuple[LogSim, LogSim]) -> None:
        one, other = pair
        for number in range(10, 310):
            assert pair[number % 2].add(console(number)) == [number - 7]
        one.add(console(1000))
        assert one.writer is not None
        assert other.writer is not None
        assert other.writer.head().size == one.writer.head().size - 1
        other.add(console(1001))
        assert other.writer.head().size == one.writer.head().size + 1
        assert one.add(console(1001)) == [304]  # found, not added
        assert one.writer.head() == other.writer.head()
        assert one.writer.receipts.tile(0, 1, 49) == other.writer.receipts.tile(0, 1, 49)

    def test_a_member_may_have_seen_what_the_other_signed(self, pair: tuple[LogSim, LogSim]) -> None:
        one, other = pair
        one.add(console(10))
        member = one.member("kita")
        assert other.writer is not None
        assert other.writer.head().size < member.seen.size
        event = member.submission()
        assert other.add(event) == [4]
        member.advance(event)
        assert one.add(member.submission(rnd=2)) == [5]  # the chain goes on here as well

    def test_who_loses_the_race_takes_the_newer_checkpoint(self, pair: tuple[LogSim, LogSim]) -> None:
        one, other = pair
        assert one.writer is not None
        assert other.writer is not None
        signed = []

        def meanwhile(moment: object) -> None:
            if moment == "4-noted" and not signed:  # `one` has signed in memory and not swapped yet
                signed.append(other.add(console(11)))

        one.writer._signer._reached = meanwhile
        index, (receipt,) = one.writer.submit(lambda _session, log: log.add(console(10))).result()
        assert (index, signed) == (3, [[4]])
        checkpoint = receipt.verify(leaf_hash(one.writer.receipts.body(3)), [one.vkey])
        assert (checkpoint.size, one.writer.head()) == (5, other.writer.head())

    def test_what_the_other_wrote_is_known_by_its_ids_however_it_came(
        self, pair: tuple[LogSim, LogSim]
    ) -> None:
        """Also when the tree was caught up with while signing, and not at the start of a batch."""
        one, other = pair
        assert one.writer is not None
        told = []

        def meanwhile(moment: object) -> None:
            if moment == "3-committed" and not told:
                told.append(other.add(console(11)))

        one.writer._reached = meanwhile
        assert one.add(console(10)) == [3]
        assert told == [[4]]
        assert one.add(console(11)) == [4]  # found, not a second time

    def test_one_that_opens_while_the_other_signs_on_is_not_rolled_back(
        self, tmp_path: Path, database: str
    ) -> None:
        """Its snapshot is older than the newest note, as any snapshot may be."""
        urls = log_urls(database)
        with LogSim(tmp_path, **urls) as one, LogSim(tmp_path, **urls) as other:
            one.started(entries=3)
            main, private, signer = other.paths()
            other.store = Store.open(urls.get("main", main), urls.get("private", private), signer)
            signed = []

            def meanwhile(*_: object) -> None:
                signed.append(one.add(console(10)))  # the snapshot is read, the signer's memory is not

            event.listen(other.store.readers, "checkin", meanwhile, once=True)
            other.writer = Writer.open(
                other.store,
                origin=ORIGIN,
                key=other.key,
                clock=other.clock,
                entropy=other.entropy,
                threaded=False,
            )
            assert signed == [[3]]
            assert other.writer.frozen is None
            assert other.add(console(11)) == [4]
            assert one.add(console(12)) == [5]

    def test_what_froze_one_stops_the_other(self, pair: tuple[LogSim, LogSim]) -> None:
        one, other = pair
        assert one.writer is not None
        assert other.writer is not None
        one.writer._signer.freeze(FreezeReason.FORK, "two roots")
        refused = other.writer.submit(lambda _session, log: log.add(console(10))).exception()
        assert isinstance(refused, LogFrozenError)
        assert refused.found == "fork: two roots"
        open_checkpoint(other.writer.head().note, [other.vkey])  # reads go on
        assert other.writer.head().size == 3
