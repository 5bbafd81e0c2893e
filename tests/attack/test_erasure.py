# SPDX-License-Identifier: Apache-2.0
"""Erased values are gone: from the private database, from its files, and from whatever is handed out later.

The attacker has the broker's disk, its later bundles, and time to guess. Planted first: that the very same
search finds the value, its salt and its row before the erasure.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sqlite3
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import insert, select

from broker.auditing.erasure import Erasure
from broker.membership.directory import Operator
from broker.store import tables
from policies.encoding import canonical
from policies.log.bundle import unpack
from policies.log.entries import EntryType, Event, check_entry, commitment
from policies.log.merkle import leaf_hash
from policies.log.policy import parse_policy
from policies.log.proofs import parse_receipt
from policies.log.vkeys import VerifierKey
from policies.ports import iso_ms
from policies.verify import verify
from tests.auditorsim import enrolled, granted
from tests.brokersim import House, open_house
from tests.logsim import LogSim, console, digest_from
from tests.pgserver import log_urls

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

LABEL = "a-label-that-is-nowhere-else"
REASON = "data-subject-request"


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def plant(house: House, *labels: str) -> list[int]:
    """Entries of keys whose confidential text is one of these."""
    events = [
        Event(
            type=EntryType.KEY_ADDED,
            pub={"role": "operator", "alg": "ed25519", "kid": digest_from(label), "vkey": None},
            private={"key": label},
        )
        for label in labels
    ]
    indexes, _ = house.services.writer.submit(lambda _, log: [log.add(one) for one in events]).result()
    return indexes


def row(house: House, index: int, field: str = "key"):
    entry = check_entry(house.services.writer.receipts.body(index))
    table = tables.log_private
    with house.services.store.read_private() as session:
        where = (table.c.event_id == entry.id) & (table.c.field == field)
        return session.execute(select(table).where(where)).one_or_none()


def on_disk(house: House, needle: bytes) -> list[str]:
    """Files of the private database that hold these bytes."""
    path = house.services.settings.private_database
    return [one.name for one in sorted(path.parent.glob(path.name + "*")) if needle in one.read_bytes()]


async def erase(house: House, *indexes: int, fields: tuple[str, ...] = ("key",)):
    body = {"indexes": list(indexes), "fields": list(fields), "reason": REASON}
    return await house.alice.post("/operator/audit/erasures", body)


async def test_value_salt_and_row_leave_the_files(house):
    (index,) = plant(house, LABEL)
    salt = row(house, index).salt
    assert on_disk(house, LABEL.encode())
    assert on_disk(house, salt)
    assert (await erase(house, index)).status_code == 200
    assert row(house, index) is None
    assert row(house, index, "at") is not None
    assert on_disk(house, LABEL.encode()) == on_disk(house, salt) == []


async def test_many_values_around_it_stay(house):
    indexes = plant(house, *(f"label-{number}" for number in range(200)))
    assert (await erase(house, *indexes[50:150])).status_code == 200
    for number, index in enumerate(indexes):
        found = row(house, index)
        assert (found is None) == (50 <= number < 150)
        assert bool(on_disk(house, f'"label-{number}"'.encode())) == (found is not None)


async def test_the_order_is_on_record_with_who_gave_it(house):
    (index,) = plant(house, LABEL)
    await erase(house, index)
    (erased,) = house.entries(EntryType.ERASURE_PERFORMED)
    assert (erased.pub["indexes"], erased.pub["fields"], erased.pub["reason"]) == ([index], ["key"], REASON)
    action = house.entries(EntryType.CONSOLE_ACTION)[-1]
    assert (action.pub["operator"], action.pub["action"]) == ("alice", "audit.erase")
    assert action.pub["request"] == erased.pub["request"]


async def test_proofs_receipts_and_the_next_audit_stay_valid(house):
    (index,) = plant(house, LABEL)
    receipts = house.services.writer.receipts
    old, body = receipts.receipt(index).to_text(), receipts.body(index)
    before = await house.alice.get("/operator/audit/bundle")
    assert LABEL.encode() in before.content  # the planted value is what bundles hold otherwise
    await erase(house, index)
    keys = [VerifierKey.parse(house.services.keys.log_vkey)]
    parse_receipt(old).verify(leaf_hash(body), keys)
    parse_receipt(receipts.receipt(index).to_text()).verify(leaf_hash(receipts.body(index)), keys)
    after = await house.alice.get("/operator/audit/bundle")
    assert LABEL.encode() not in after.content
    report = verify(after.content, parse_policy(house.services.policy))
    assert [str(one) for one in report.findings] == []
    assert any("erased" in one for one in report.unchecked)


async def test_what_is_left_out_without_an_erasure_is_found(house):
    """The planted fault of the test above: the row is gone and the log does not say why."""
    (index,) = plant(house, LABEL)
    entry = check_entry(house.services.writer.receipts.body(index))
    table = tables.log_private
    with house.services.store.private.begin() as session:
        session.execute(table.delete().where(table.c.event_id == entry.id, table.c.field == "key"))
    answer = await house.alice.get("/operator/audit/bundle")
    report = verify(answer.content, parse_policy(house.services.policy))
    assert any("AUD-082" in str(one) for one in report.findings)


async def test_a_dictionary_opens_nothing_without_the_salt(house):
    (index,) = plant(house, "1234")
    salt = row(house, index).salt
    wanted = check_entry(house.services.writer.receipts.body(index)).sd["key"]
    words = [f"{number:04d}" for number in range(10_000)]
    assert any(commitment(salt, "key", word) == wanted for word in words)  # planted: with it, it is there
    await erase(house, index)
    others = [bytes(16), *(row(house, one, "at").salt for one in range(3))]
    guesses = itertools.product(others, words)
    assert not any(commitment(salt, "key", word) == wanted for salt, word in guesses)


async def test_no_later_disclosure_and_no_bundle_holds_it(house):
    ernst = await enrolled(house)
    await granted(house, ernst)
    (index,) = plant(house, LABEL)
    shown = (await ernst.get("/audit/disclosures")).text
    assert LABEL in shown
    await erase(house, index)
    assert LABEL not in (await ernst.get("/audit/disclosures")).text
    assert LABEL.encode() not in (await ernst.get("/audit/bundle")).content


async def test_the_same_event_again_brings_nothing_back(house):
    (index,) = plant(house, LABEL)
    await erase(house, index)
    assert plant(house, LABEL) == [index]
    assert row(house, index) is None
    assert on_disk(house, LABEL.encode()) == []


async def test_a_restored_private_database_is_cleaned_at_the_next_start(house, tmp_path):
    (index,) = plant(house, LABEL)
    entry = check_entry(house.services.writer.receipts.body(index))
    kept = dict(row(house, index)._mapping)
    await erase(house, index)
    with house.services.store.private.begin() as session:  # what an old backup would bring back
        session.execute(insert(tables.log_private).values(kept))
    assert row(house, index) is not None
    assert (await house.alice.get("/operator/audit/bundle")).content.find(LABEL.encode()) == -1
    await house.services.upkeep.look()
    assert (entry.id, row(house, index)) == (kept["event_id"], None)
    assert on_disk(house, LABEL.encode()) == []


async def test_a_crash_between_record_and_deletion_is_made_good(house, monkeypatch):
    (index,) = plant(house, LABEL)

    def dead(*_: object) -> int:
        raise KeyboardInterrupt

    with monkeypatch.context() as broken:
        broken.setattr(house.services.erasure, "_remove", lambda where: where and dead())
        with pytest.raises(BaseException):  # noqa: B017  whatever the process dies of
            await erase(house, index)
    assert len(house.entries(EntryType.ERASURE_PERFORMED)) == 1
    assert row(house, index) is not None
    await house.services.upkeep.look()
    assert row(house, index) is None
    assert on_disk(house, LABEL.encode()) == []


async def test_a_crash_between_deletion_and_new_files_is_made_good(house, monkeypatch):
    (index,) = plant(house, LABEL)
    with monkeypatch.context() as broken:
        broken.setattr(house.services.erasure, "_write_anew", lambda: None)
        await erase(house, index)
    assert on_disk(house, LABEL.encode())  # the row is gone, its bytes are in the write-ahead log
    await house.services.upkeep.look()
    assert on_disk(house, LABEL.encode()) == []


async def test_a_reader_that_does_not_end_makes_it_unfinished_not_forgotten(house):
    (index,) = plant(house, LABEL)
    reader = sqlite3.connect(house.services.settings.private_database, isolation_level=None)
    reader.execute("BEGIN")
    reader.execute("SELECT count(*) FROM log_private").fetchone()
    with house.services.store.private.connect() as session:
        session.exec_driver_sql("PRAGMA busy_timeout = 10")
    assert code(await erase(house, index)) == (503, "audit.erasure-unfinished")
    assert row(house, index) is None
    reader.execute("ROLLBACK")
    reader.close()
    assert code(await erase(house, index)) == (409, "audit.already-erased")
    assert on_disk(house, LABEL.encode()) == []


# --- what is refused ---


async def test_what_a_member_signed_is_not_erased_and_the_refusal_says_why(house):
    from tests.brokersim import draft, pool

    kita, *_ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    await kita.verify(contract, **kita.signature_body(contract))
    entries = house.entries()
    index = next(i for i, one in enumerate(entries) if one.type is EntryType.CONTRACT_SIGNED)
    names = set(entries[index].sd) - {"at"}
    for name in names:
        assert code(await erase(house, index, fields=(name,))) == (409, "audit.in-envelope")
    assert (await erase(house, index, fields=("at",))).status_code == 200


@pytest.mark.parametrize(
    ("changes", "wanted"),
    [
        ({"indexes": [10_000]}, (404, "log.unknown-entry")),
        ({"fields": ["got"]}, (422, "audit.field-unknown")),
        ({"fields": []}, (422, "request.invalid")),
        ({"indexes": []}, (422, "request.invalid")),
        ({"indexes": [-1]}, (422, "request.invalid")),
        ({"indexes": list(range(257))}, (422, "request.invalid")),
        ({"reason": "Because he asked"}, (422, "request.invalid")),
        ({"fields": ["key", "\u202e"]}, (422, "request.invalid")),
    ],
)
async def test_an_order_that_means_nothing_changes_nothing(house, changes, wanted):
    (index,) = plant(house, LABEL)
    before = len(house.entries())
    body = {"indexes": [index], "fields": ["key"], "reason": REASON} | changes
    assert code(await house.alice.post("/operator/audit/erasures", body)) == wanted
    assert len(house.entries()) == before
    assert row(house, index) is not None


async def test_only_operators_erase(house):
    (index,) = plant(house, LABEL)
    body = {"indexes": [index], "fields": ["key"], "reason": REASON}
    for one in (await house.member("kita"), await enrolled(house)):
        assert code(await one.post("/operator/audit/erasures", body)) == (403, "identity.wrong-role")
    assert row(house, index) is not None


# --- orphans ---


def orphan(house: House, made_ms: int, event: bytes = b"o" * 16) -> None:
    rows = [
        {"event_id": event, "field": "at", "salt": b"s" * 16, "value": canonical(iso_ms(made_ms))},
        {"event_id": event, "field": "key", "salt": b"t" * 16, "value": canonical(LABEL)},
    ]
    with house.services.store.private.begin() as session:
        session.execute(insert(tables.log_private), rows)


async def test_values_of_events_that_never_were_go_after_a_day(house):
    orphan(house, house.clock.ms)
    house.clock.ms += 86_400_000
    await house.services.upkeep.look()
    assert on_disk(house, LABEL.encode())  # not older than a day
    house.clock.ms += 1
    await house.services.upkeep.look()
    assert on_disk(house, LABEL.encode()) == []


async def test_the_search_for_them_goes_through_everything(house):
    indexes = plant(house, *(f"label-{number}" for number in range(1_100)))
    orphan(house, house.clock.ms, b"\0" * 16)
    orphan(house, house.clock.ms, b"\xff" * 16)
    house.clock.ms += 2 * 86_400_000
    await house.services.upkeep.look()
    assert on_disk(house, LABEL.encode()) == []
    assert all(row(house, index) is not None for index in indexes[::100])


async def test_an_event_that_came_in_meanwhile_keeps_its_values(house):
    plant(house, "old-enough")
    (index,) = plant(house, LABEL)
    house.clock.ms += 2 * 86_400_000
    entry = check_entry(house.services.writer.receipts.body(index))
    assert house.services.erasure.orphans() == ([], None)
    swept, _ = house.services.writer.submit(
        lambda session, tx: house.services.erasure.sweep(session, tx, [entry.id])
    ).result()
    assert swept == 0
    assert row(house, index) is not None


async def test_bundles_that_are_being_written_end_before_anything_is_erased(house):
    (index,) = plant(house, LABEL)
    async with house.services.exports.room("a key") as path:
        waiting = asyncio.ensure_future(erase(house, index))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        assert row(house, index) is not None
        house.services.exports.release(path)
    assert (await waiting).status_code == 200


async def test_a_bundle_up_to_an_earlier_checkpoint_is_refused_rather_than_incomplete(house, tmp_path):
    from broker.log import LogUnavailableError, export

    (index,) = plant(house, LABEL)
    head = house.services.writer.head()
    out = tmp_path / "early.zip"
    arguments = {"policy": house.services.policy, "software": "0.1.0", "head": head}
    export(house.services.store, house.services.writer, out, **arguments)
    packs = [data for name, data in unpack(out.read_bytes()).items() if name.startswith("disclosures/")]
    assert any(json.loads(line)["value"] == LABEL for line in b"".join(packs).splitlines())
    await erase(house, index)
    out.unlink()
    with pytest.raises(LogUnavailableError, match="erasure"):
        export(house.services.store, house.services.writer, out, **arguments)
    assert not out.exists()


# --- both databases ---


def test_rows_go_and_the_rest_stays_whatever_the_database(tmp_path, database):
    with LogSim(tmp_path, **log_urls(database)) as sim:
        sim.started(entries=5)
        erasure = Erasure(store=sim.store, clock=sim.clock)
        boss = Operator(name="alice", key=b"", active=True)
        told = {"fields": ["at"], "reason": REASON, "operator": boss, "request": digest_from("request")}
        sim.writer.submit(lambda session, tx: erasure.order(session, tx, indexes=[2], **told)).result()
        assert sim.writer.submit(erasure.finish).result()[0] == 1
        assert sim.writer.submit(erasure.finish).result()[0] == 0
        table = tables.log_private
        with sim.store.read_private() as session:
            left = {bytes(one) for one in session.scalars(select(table.c.event_id))}
        entries = [check_entry(sim.writer.receipts.body(index)).id for index in range(7)]
        assert left == set(entries) - {entries[2]}
        sim.clock.ms += 2 * 86_400_000
        with sim.store.private.begin() as session:
            old = {"event_id": b"o" * 16, "field": "at", "salt": b"s" * 16, "value": canonical(iso_ms(1))}
            session.execute(insert(table).values(old))
        found, after = erasure.orphans()
        assert (found, after) == ([b"o" * 16], None)
        assert sim.writer.submit(lambda session, tx: erasure.sweep(session, tx, found)).result()[0] == 1
        sim.add(console(77))  # the log goes on
