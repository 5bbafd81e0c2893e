# SPDX-License-Identifier: Apache-2.0
"""What screens read of a log that grows: pages, what is new, and never all of it."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import event, insert, update

from broker.auditing.errors import IncidentClosedError
from broker.auditing.incidents import Incidents, close_incident, since
from broker.contracts.refused import Refusals
from broker.membership.directory import Operator
from broker.store.tables import ledger_mirror, round_, run
from policies.encoding import digest, new_id
from policies.log.entries import EntryType, Event, from_envelope
from policies.log.envelope import open_envelope
from sandbox.bench_console_log import Filling
from tests.brokersim import House, final_contract, open_house, pool
from tests.consolesim import PersonSim
from tests.unit.test_witness_broker import cosigned, register

ALICE = Operator(name="alice", key=b"", active=True)
SCREENS = ("", "/incidents", "/decisions", "/runs", "/budgets", "/health", "/keys", "/releases")
AUDIT = ("", "/log", "/lineage", "/operators", "/decisions", "/privacy", "/sample")


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "b") as opened:
        yield opened


@contextlib.contextmanager
def reading(house: House) -> Iterator[tuple[list[str], list[int]]]:
    """Statements of readers, and a tick for every hundred steps of the database."""
    said: list[str] = []
    ticks: list[int] = []

    def before(_connection: Any, _cursor: Any, statement: str, *_more: Any) -> None:
        said.append(statement)

    def checkout(connection: Any, *_more: Any) -> None:
        connection.set_progress_handler(lambda: ticks.append(1), 100)

    readers = house.services.store.readers
    event.listen(readers, "before_cursor_execute", before)
    event.listen(readers, "checkout", checkout)
    try:
        yield said, ticks
    finally:
        event.remove(readers, "before_cursor_execute", before)
        event.remove(readers, "checkout", checkout)


def declared(number: int) -> Event:
    pub = {"kind": "reply.signature", "evidence": digest(str(number).encode())}
    return Event(type=EntryType.INCIDENT_DECLARED, pub=pub)


async def add(house: House, *events: Event) -> list[int]:
    found: list[int] = []
    await house.services.writer.run(lambda _session, tx: found.extend(tx.add(one) for one in events))
    return found


async def close(house: House, index: int) -> None:
    def work(session: Any, tx: Any) -> None:
        request = digest(f"close {index}".encode())
        close_incident(session, tx, index=index, reason="repaired", operator=ALICE, request=request)

    await house.services.writer.run(work)


async def test_screens_read_no_more_of_a_log_that_is_twice_as_large(house: House) -> None:
    alice = await PersonSim.enter(house, "alice")
    eve = await PersonSim.enter(house, "eve", role="auditor")
    paths = [(alice, f"/console{one}") for one in SCREENS] + [(eve, f"/audit{one}") for one in AUDIT]
    filling = Filling(house.services.store, house.services.writer)
    read: list[dict[str, tuple[int, int]]] = []
    for size in (9_000, 18_000):  # from the first on every list fills its page
        filling.up_to(size)
        found = {}
        for who, path in paths:
            assert (await who.get(path)).status_code == 200, path
            with reading(house) as (said, ticks):
                await who.get(path)
            found[path] = len(said), len(ticks)
        read.append(found)
    for path, (said_before, ticks_before) in read[0].items():
        said_now, ticks_now = read[1][path]
        assert said_now <= said_before + 4, path  # a moment is found in some steps more
        assert ticks_now <= 1.2 * ticks_before + 10, path


async def test_pages_of_incidents_have_each_once_and_the_filters_part_them(house: House) -> None:
    indices = await add(house, *(declared(number) for number in range(120)))
    for index in indices[::3]:
        await close(house, index)
    service = house.services.incidents
    with house.services.store.read() as session:
        told, more = since(session, limit=120)
        known = {one["index"]: one for one in told}
        assert (list(known), more) == (indices, False)
        assert {one for one, told in known.items() if told["closed"] is not None} == set(indices[::3])
        for closed in (None, True, False):
            found, after = [], None
            while True:
                shown, after = service.page(session, limit=17, after=after, closed=closed)
                assert len(shown) <= 17
                found += shown
                if after is None:
                    break
            fits = [one for one in known.values() if closed in {None, one["closed"] is not None}]
            assert found == fits[::-1]
        assert list(service.open(session)) == [one for one in indices if one not in indices[::3]]


async def test_an_incident_that_is_closed_later_is_open_no_longer_and_one_taken_back_stays(
    house: House,
) -> None:
    first, second = await add(house, declared(1), declared(2))
    service = house.services.incidents
    with house.services.store.read() as session:
        assert list(service.open(session)) == [first, second]

    def taken_back(session: Any, tx: Any) -> None:
        close_incident(session, tx, index=first, reason="repaired", operator=ALICE, request=digest(b"x"))
        raise KeyError

    with pytest.raises(KeyError):
        await house.services.writer.run(taken_back)
    await close(house, second)
    with house.services.store.read() as session:
        assert list(service.open(session)) == [first]
        assert list(Incidents().open(session)) == [first]
    with pytest.raises(IncidentClosedError, match="closed by entry"):
        await close(house, second)


async def test_the_overview_tells_the_newest_open_incidents_and_how_many_are_older(house: House) -> None:
    await add(house, *(declared(number) for number in range(25)))
    alice = await PersonSim.enter(house, "alice")
    page = await alice.page("/console")
    said = [one["what"] for one in page.rows("attention")]
    assert said.count("An incident is open: reply.signature") == 20
    assert "Older incidents that are open: 5" in said
    (further,) = [one for one in page.links() if "state=open&after=" in one]
    assert len((await alice.page(further)).rows("incidents")) == 5


async def test_a_look_at_incidents_reads_the_same_however_many_there_are(house: House) -> None:
    alice = await PersonSim.enter(house, "alice")
    read: dict[str, list[tuple[int, int]]] = {"/console": [], "/console/incidents": []}
    for numbers in (range(100), range(100, 800)):
        await add(house, *(declared(number) for number in numbers))
        for path, found in read.items():
            await alice.get(path)
            with reading(house) as (said, ticks):
                await alice.get(path)
            found.append((len(said), len(ticks)))
    for path, (before, now) in read.items():
        assert now[0] == before[0], path
        assert now[1] <= before[1] + 5, path


async def test_refusals_of_late_are_counted_as_they_come_and_forgotten_as_they_age(house: House) -> None:
    def refused(number: int) -> Event:
        clauses = ["rounds"] if number % 2 else ["caps", "rounds"]
        made = digest(f"decision {number}".encode())
        pub = {"point": "broker", "outcome": "refuse", "clauses": clauses, "decision": made}
        return Event(type=EntryType.DECISION_RECORDED, pub=pub)

    indices: list[int] = []
    kept, few = Refusals(), Refusals(most=4)
    for turn in range(3):
        indices += await add(house, *(refused(number) for number in range(10 * turn, 10 * turn + 10)))
        with house.services.store.read() as session:
            for since in (indices[0], indices[len(indices) // 2], indices[2]):  # back again as well
                counts, cut = kept.clauses_since(session, since)
                assert counts["None", "rounds"] == sum(one >= since for one in indices)
                assert counts["None", "caps"] == sum(one >= since for one in indices[::2])
                assert not cut
            counts, cut = few.clauses_since(session, indices[0])
            assert (counts, cut) == (Counter({("None", "rounds"): 4, ("None", "caps"): 2}), True)
            assert kept.clauses_since(session, indices[-1] + 1)[0] == Counter()


async def test_what_closed_runs_spent_is_added_up_once_until_the_log_has_more_of_it(house: House) -> None:
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    party, at_ms = contract.contributors[0].party, house.clock.ms
    scope, recipe = contract.digest, contract.recipes[0].recipe_digest
    names = [new_id("run", bytes([number] * 10)) for number in range(3)]

    def taken(name: str, number: int) -> dict[str, Any]:
        place = {"party": party, "run_id": name, "round": number, "attempt": 1}
        return place | {"plan_digest": digest(b"plan"), "steps": 1}

    def opened(name: str, outcome: str | None) -> dict[str, Any]:
        row = {"run_id": name, "contract": scope, "recipe_digest": recipe, "recipe_id": "pick", "round": 1}
        state = "running" if outcome is None else "closed"
        return row | {"state": state, "steps": 1, "opened_ms": at_ms, "outcome": outcome}

    def began(session: Any, _tx: Any) -> None:
        rounds = {"base": "", "accepted": 1, "refused": 0, "verdicts": "{}", "at_ms": at_ms, "attempt": 1}
        for name, outcome in zip(names, ("completed", "stopped", None), strict=True):
            session.execute(insert(run).values(opened(name, outcome)))
            session.execute(insert(round_).values(rounds | {"run_id": name, "round": 1}))
            session.execute(insert(ledger_mirror).values(taken(name, 1)))

    def steps() -> tuple[int, int]:
        with reading(house) as (said, _), house.services.store.read() as session:
            found = house.services.outlooks.of(session, contract, now_ms=at_ms, parties=[party])
        return found[0].steps, sum("FROM ledger_mirror" in one for one in said)

    async def write(work: Any) -> None:
        await house.services.writer.run(lambda session, tx: work(session, tx) and None)

    await write(began)
    assert steps() == (3, 2)  # open runs, and closed ones
    assert steps() == (3, 1)

    def closes(session: Any, _tx: Any) -> None:
        ended = update(run).where(run.c.run_id == names[2])
        session.execute(ended.values(outcome="completed", state="closed"))

    await write(closes)
    assert steps() == (3, 2)

    def late(session: Any, tx: Any) -> None:
        session.execute(insert(ledger_mirror).values(taken(names[0], 2)))
        body = {"mechanism": f"{names[0]}/2/1", "plan": digest(b"plan"), "steps": 1, "lineage": "arm"}
        body |= {"rho_nano": 1, "epsilon_after": "0.1"}
        sealed = nodes[0].seal(EntryType.EPSILON_SPENT, body, scope=scope, run=names[0], round=2)
        payload = open_envelope(sealed, nodes[0].key.public)
        tx.add(from_envelope(sealed, payload, actor="0123456789abcdef"))

    await write(late)
    assert steps() == (4, 2)
    assert steps() == (4, 1)


async def test_how_long_a_quorum_took_is_measured_once_for_each_contribution(house: House) -> None:
    nodes = await pool(house, "kita", "nord", "iber", "hanbit")
    await register(*nodes)
    accepted = [Event(type=EntryType.CONTRIBUTION_ACCEPTED, refs=(number,)) for number in range(3)]
    await add(house, *accepted[:2])
    house.clock.ms += 4_000
    await cosigned(house, *nodes)
    witnessing = house.services.witnessing
    with reading(house) as (said, _):
        assert witnessing.status()["contribution_to_quorum_ms"] == 4_000
    assert sum("GROUP BY log_cosignature" in one for one in said) == 1  # one head covers both
    await add(house, accepted[2])
    with reading(house) as (said, _):
        assert witnessing.status()["contribution_to_quorum_ms"] == 4_000
    assert not [one for one in said if "log_cosignature" in one]  # nothing is known, or nothing covers it
    house.clock.ms += 9_000
    await cosigned(house, *nodes)
    assert sorted(witnessing._took.values()) == [4_000, 4_000]
    witnessing.status()
    assert sorted(witnessing._took.values()) == [4_000, 4_000, 9_000]
