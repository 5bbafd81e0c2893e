# SPDX-License-Identifier: Apache-2.0
"""Four nodes witness one log: quorum, absence, return, crashes, clocks, and receipts that are upgraded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from client.errors import PeerAnswerError, UnwitnessedError
from policies.limits import WITNESS_MAX_AGE_MIN, WITNESS_REPEAT_S
from policies.log.policy import open_witnessed
from policies.log.proofs import parse_receipt
from tests.witnessim import MAKERS, Killed, WitnessPool, witness_pool

MINUTE_MS = 60_000


@pytest.fixture
def pool(tmp_path: Path) -> Iterator[WitnessPool]:
    with witness_pool(tmp_path) as made:
        yield made


def test_all_four_reach_the_quorum_and_each_knows_it_by_its_own_contract(pool: WitnessPool) -> None:
    pool.settle()
    for node in pool.nodes.values():
        one = node.standing
        assert (one.k, one.n, one.known, one.fresh, one.tolerates) == (3, 4, 4, True, 1)
        assert len(one.voters) >= 3
        node.vouching.require(node.held)
    assert pool.house.kinds().count("witness.added") == 4


def test_one_may_be_away_two_may_not_and_when_they_return_it_goes_on(pool: WitnessPool) -> None:
    pool.settle()
    for away, fresh in ((("hanbit",), True), (("hanbit", "iber"), False), ((), True)):
        there = [name for name in MAKERS if name not in away]
        for _ in range(WITNESS_MAX_AGE_MIN + 1):
            pool.clock.ms += MINUTE_MS
            pool.grow()
            pool.settle(*there)
        kita = pool.nodes["kita"]
        assert kita.standing.fresh == fresh
        said = [event for event, _ in kita.alarms.look()]
        if fresh:
            kita.vouching.require(kita.held)
        else:
            assert said == ["witness-alarm"]
            with pytest.raises(UnwitnessedError) as refused:
                kita.vouching.require(kita.held)
            assert refused.value.clause == kita.held.contract.audit.clause
    assert said == ["witness-alarm-over"]


def test_a_log_in_which_nothing_happens_stays_vouched_for(pool: WitnessPool) -> None:
    pool.settle()
    size = pool.nodes["kita"].standing.size
    for _ in range(WITNESS_MAX_AGE_MIN + 2):
        pool.clock.ms += WITNESS_REPEAT_S * 1000
        pool.settle()
    one = pool.nodes["kita"].standing
    assert one.fresh
    assert one.size >= size
    assert pool.house.services.writer.head().size == one.size  # cosigning adds no entry


def test_without_anybody_who_watches_the_age_grows_at_the_broker_too(pool: WitnessPool) -> None:
    pool.settle()
    pool.clock.ms += 5 * MINUTE_MS
    shown = pool.house.services.witnessing.status()
    assert shown["age_s"] >= 300
    assert all(one["age_s"] >= 300 for one in shown["witnesses"])
    assert not shown["alarm"]
    pool.clock.ms += WITNESS_MAX_AGE_MIN * MINUTE_MS
    later = pool.house.services.witnessing.status()
    assert later["alarm"]
    assert all(one["missing"] for one in later["witnesses"])
    assert all(one["legal_name"] not in one["name"] for one in later["witnesses"])


def test_a_broker_that_keeps_cosignatures_back_only_makes_the_age_grow(pool: WitnessPool) -> None:
    pool.settle()
    services = pool.house.services
    kept = services.witnessing.newest

    async def nothing(*_: object, **__: object) -> dict[str, object]:
        head = services.witnessing.candidates.offered()
        return {"size": head.size, "note": head.note, "checkpoint": kept.head.note}

    services.witnessing.poll = nothing
    for _ in range(WITNESS_MAX_AGE_MIN + 1):
        pool.clock.ms += MINUTE_MS
        pool.grow()
        pool.settle()
    assert not pool.nodes["kita"].standing.fresh


def test_a_crash_between_memory_and_line_loses_a_line_and_no_memory(pool: WitnessPool) -> None:
    pool.settle()
    size = pool.grow()
    kita = pool.nodes["kita"]

    def dies(request: httpx.Request) -> None:
        if request.url.path.endswith("/cosignatures"):
            raise Killed

    kita.way.before = dies
    pool.clock.ms += 2_000
    with pytest.raises(Killed):
        kita.turn()
    assert kita.outbox.cosigning.cosigned().size == size
    kita.way.before = lambda _request: None
    kita.restart()
    assert kita.turn()
    assert (
        pool.house.services.witnessing.cosignatures.last[f"{kita.member.identity.org}/witness"].size == size
    )
    pool.settle()
    assert kita.standing.size == size


def test_a_clock_that_went_back_stops_the_witness_and_changes_nothing(pool: WitnessPool) -> None:
    pool.settle()
    kita = pool.nodes["kita"]
    before = kita.outbox.cosigning.cosigned()
    pool.grow()
    pool.clock.ms -= 60 * MINUTE_MS
    with pytest.raises(PeerAnswerError, match="clock"):
        kita.turn()
    assert kita.outbox.cosigning.cosigned() == before
    pool.clock.ms += 61 * MINUTE_MS
    assert kita.turn()


def test_a_step_of_some_entries_asks_for_one_tile(pool: WitnessPool) -> None:
    pool.settle()
    kita = pool.nodes["kita"]
    pool.grow(3)
    pool.clock.ms += 2_000
    kita.way.asked.clear()
    kita.turn()
    assert len([one for one in kita.way.asked if one.startswith("/log/tile/")]) == 1


def test_the_statement_is_registered_again_only_when_a_key_changed(pool: WitnessPool) -> None:
    pool.settle()
    kita = pool.nodes["kita"]
    kita.restart()
    kita.turn()
    assert pool.house.kinds().count("witness.added") == 4
    (kita.home.keys / "witness.key").rename(kita.home.root / "old.key")
    kita.restart()
    pool.clock.ms += 2_000
    pool.settle()
    assert pool.house.kinds().count("witness.removed") == 1
    assert pool.nodes["nord"].standing.known == 4
    assert (kita.home.keys / "witness.key").stat().st_mode & 0o777 == 0o600


def test_receipts_are_upgraded_once_a_quorum_covers_them_and_both_grades_stay(pool: WitnessPool) -> None:
    pool.settle()
    kita = pool.nodes["kita"]
    index = pool.envelope_of("kita")
    assert kita.outbox.unwitnessed([kita.held.contract.digest])
    pool.clock.ms += 2_000
    pool.settle()
    (stored,) = [one for one in kita.outbox.envelopes() if one.log_index == index]
    signed, witnessed = (
        parse_receipt(json.loads(one)["proof"]) for one in (stored.receipt, stored.witnessed)
    )
    policy = kita.trust.policy_of(kita.held)
    open_witnessed(witnessed.note, policy)
    assert signed.index == witnessed.index == index
    assert kita.standing.late == 0


def test_an_envelope_that_nobody_vouched_for_in_time_is_an_alarm(pool: WitnessPool) -> None:
    pool.settle()
    kita = pool.nodes["kita"]
    pool.envelope_of("kita")
    pool.clock.ms += (WITNESS_MAX_AGE_MIN + 1) * MINUTE_MS
    assert kita.standing.late == 1
    assert "receipts-late" in [event for event, _ in kita.alarms.look()]
    pool.settle()
    assert {event for event, _ in kita.alarms.look()} == {"receipts-late-over", "witness-alarm-over"}
