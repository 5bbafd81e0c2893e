# SPDX-License-Identifier: Apache-2.0
"""Bundles for others than operators: an auditor's under grants, a member's own; written whole or not at all."""

from __future__ import annotations

import asyncio
import errno
import json
import os
from typing import TYPE_CHECKING

import pytest

from broker.acts import bundles
from broker.apart import apart
from broker.api import audit as api
from broker.auditing import exports
from policies.encoding import digest
from policies.identity import key_id
from policies.limits import WITNESS_MAX_AGE_MIN
from policies.log.bundle import unpack
from policies.log.entries import EntryType, alias
from policies.log.policy import parse_policy
from policies.verify import verify
from tests.auditorsim import enrolled, granted
from tests.brokersim import House, NodeSim, draft, final_contract, open_house, pool
from tests.unit.test_broker_frozen import freeze
from tests.unit.test_witness_broker import cosigned, register

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def lines(files: dict[str, bytes], folder: str) -> list[dict]:
    packs = [data for name, data in sorted(files.items()) if name.startswith(folder + "/")]
    return [json.loads(line) for line in b"".join(packs).splitlines()]


def left_over(house: House) -> list[Path]:
    return list(house.services.settings.dir.glob(".bundle-*"))


# --- an auditor's ---


async def test_an_auditors_bundle_under_a_whole_grant_is_what_an_audit_needs(house):
    await final_contract(house, await pool(house))
    ernst = await enrolled(house)
    grant = await granted(house, ernst)
    answer = await ernst.get("/audit/bundle?grade=auditor")
    assert answer.status_code == 200
    report = verify(answer.content, parse_policy(house.services.policy))
    assert [str(one) for one in report.findings] == []
    used, exported = house.entries()[-2:]
    assert (used.type, used.pub["grant"]) == (EntryType.ACCESS_USED, grant)
    assert (exported.pub["grade"], exported.pub["bundle"]) == ("auditor", digest(answer.content))
    assert left_over(house) == []


async def test_a_bundle_opens_what_grants_open_and_the_verifier_understands(house):
    await final_contract(house, await pool(house))
    ernst = await enrolled(house)
    await granted(house, ernst, ["at"], from_index=4)
    answer = await ernst.get("/audit/bundle")
    shown = lines(unpack(answer.content), "disclosures")
    assert {one["field"] for one in shown} == {"at"}
    assert min(one["index"] for one in shown) == 4
    report = verify(answer.content, parse_policy(house.services.policy))
    assert not [one for one in report.findings if "AUD-08" in str(one)]


async def test_without_a_grant_there_is_no_bundle(house):
    ernst = await enrolled(house)
    assert code(await ernst.get("/audit/bundle")) == (404, "audit.grant-unknown")
    assert house.entries(EntryType.EXPORT_AUDIT_BUNDLE) == []


async def test_since_is_on_record_and_the_bundle_is_whole(house):
    ernst = await enrolled(house)
    await granted(house, ernst)
    size = house.services.writer.head().size
    answer = await ernst.get(f"/audit/bundle?since={size}")
    assert house.entries()[-1].pub["from_size"] == size
    assert verify(answer.content, parse_policy(house.services.policy)).exit_code in {0, 7}
    assert code(await ernst.get("/audit/bundle?since=100000")) == (422, "request.invalid")


async def test_a_bundle_reaches_beyond_the_grant_that_it_is_taken_under_or_waits(house, monkeypatch):
    kita, nord = await pool(house, "kita", "nord")
    ernst = await enrolled(house)
    await register(kita, nord)
    await cosigned(house, kita, nord)
    await granted(house, ernst)
    monkeypatch.setattr(bundles, "WITNESS_RECEIPT_S", 0)
    early = await ernst.get("/audit/bundle")
    assert code(early) == (503, "log.unavailable")
    assert "in a moment" in early.json()["remedy"]
    house.clock.ms += (WITNESS_MAX_AGE_MIN + 1) * 60_000
    late = await ernst.get("/audit/bundle")
    assert f"{kita.org}/witness" in late.json()["found"]
    assert "iriai-broker status" in late.json()["remedy"]
    assert house.entries(EntryType.EXPORT_AUDIT_BUNDLE) == []
    monkeypatch.setattr(bundles, "WITNESS_RECEIPT_S", 60)
    waiting = asyncio.ensure_future(ernst.get("/audit/bundle"))
    await asyncio.sleep(0)
    await cosigned(house, kita, nord)
    answer = await waiting
    assert answer.status_code == 200, answer.text
    report = verify(answer.content, parse_policy(house.services.policy))
    assert not [one for one in report.findings if "AUD-08" in str(one)]


async def test_a_grant_that_ends_while_a_bundle_is_made_ends_the_bundle(house, monkeypatch):
    ernst = await enrolled(house)

    def meanwhile(change):
        async def slow(work):
            taken = await apart(work)
            await change()
            return taken

        for place in (api, bundles):
            monkeypatch.setattr(place, "apart", slow)

    async def revoked() -> None:
        await house.alice.post(f"/operator/audit/grants/{grant}/revoke", {})

    async def a_day_later() -> None:
        house.clock.ms += 86_400_000

    async def freezes() -> None:
        freeze(house)

    for change in (revoked, a_day_later):
        for path in ("/audit/disclosures", "/audit/bundle"):
            grant = await granted(house, ernst, days=1)
            meanwhile(change)
            assert code(await ernst.get(path)) == (404, "audit.grant-unknown")
    await granted(house, ernst)
    meanwhile(freezes)
    assert code(await ernst.get("/audit/bundle")) == (503, "log.frozen")
    kinds = house.kinds()
    assert not {"access.used", "disclosure.made", "export.audit_bundle"} & set(kinds)
    assert left_over(house) == []


# --- a member's ---


async def test_a_members_bundle_is_its_own_view(house):
    kita, nord, hanbit = nodes = await pool(house)
    contract = await final_contract(house, nodes)
    answer = await kita.get("/audit/bundle")
    assert answer.status_code == 200, answer.text
    files = unpack(answer.content)
    mine = {
        index
        for index, one in enumerate(house.entries())
        if one.actor == alias(kita.alias_key, one.scope, one.run, one.round)
    }
    assert mine
    assert {one["index"] for one in lines(files, "envelopes")} == mine
    assert {one["index"] for one in lines(files, "disclosures")} == mine
    assert list(json.loads(files["keys/aliases.json"])) == [kita.org]
    assert f"contracts/{contract.digest[7:]}.json" in files
    for other in (nord, hanbit):
        assert other.org.encode() not in files["keys/aliases.json"]
    report = verify(answer.content, parse_policy(house.services.policy), grade="member")
    assert [str(one) for one in report.findings] == []
    assert report.exit_code == 7
    assert house.entries()[-1].pub["grade"] == "member"


async def test_who_is_no_party_gets_no_contract_and_nothing_that_belongs_to_it(house):
    nodes = await pool(house)
    contract = await final_contract(house, nodes)
    outsider: NodeSim = await house.member("other")
    files = unpack((await outsider.get("/audit/bundle")).content)
    assert not [
        name for name in files if name.startswith(("contracts/", "annexes/", "notices/", "statements/"))
    ]
    assert lines(files, "envelopes") == lines(files, "decisions") == []
    assert contract.canonical not in b"".join(files.values())


async def test_signatures_of_others_stay_hidden_until_a_contract_is_final(house):
    kita, nord, _ = nodes = await pool(house)
    contract = draft(house, nodes)
    await house.alice.offer(contract)
    for node in nodes:
        await node.accept(contract)
    await nord.verify(contract, **nord.signature_body(contract))
    files = unpack((await kita.get("/audit/bundle")).content)
    (name,) = [one for one in files if one.endswith(".dsse")]
    seen = await kita.get(f"/contracts/{contract.digest}/envelope")
    assert len(json.loads(files[name])["signatures"]) == len(seen.json()["signatures"])


@pytest.mark.parametrize(("who", "grade"), [("kita", "auditor"), ("ernst", "member"), ("alice", "auditor")])
async def test_nobody_asks_for_somebody_elses_grade(house, who, grade):
    kita, ernst = await house.member("kita"), await enrolled(house)
    await granted(house, ernst)
    signer = {"kita": kita, "ernst": ernst, "alice": house.alice}[who]
    assert code(await signer.get(f"/audit/bundle?grade={grade}")) == (403, "identity.wrong-role")


# --- a frozen log ---


async def test_a_frozen_log_opens_nothing_to_an_auditor_because_it_cannot_say_so(house):
    ernst = await enrolled(house)
    await granted(house, ernst)
    freeze(house)
    assert code(await ernst.get("/audit/disclosures")) == (503, "log.frozen")
    answer = await ernst.get("/audit/bundle")
    assert (answer.status_code, answer.headers["iriai-log"]) == (200, "frozen")
    assert lines(unpack(answer.content), "disclosures") == []
    assert left_over(house) == []


# --- the disk ---


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EACCES])
async def test_a_disk_that_takes_no_bundle_is_a_clean_refusal(house, monkeypatch, number):
    def no_room(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(exports, "mkstemp", no_room)
    for signer, path in (
        (house.alice, "/operator/audit/bundle"),
        (await house.member("kita"), "/audit/bundle"),
    ):
        assert code(await signer.get(path)) == (507, "audit.export-refused")
    assert left_over(house) == []
    assert house.entries(EntryType.EXPORT_AUDIT_BUNDLE) == []


async def test_a_disk_that_fills_up_half_way_leaves_nothing(house, monkeypatch):
    from broker.log import sections

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(sections, "join_tile", full)
    assert code(await house.alice.get("/operator/audit/bundle")) == (507, "audit.export-refused")
    assert left_over(house) == []


async def test_a_bundle_that_cannot_be_logged_is_not_given_and_leaves_nothing(house):
    connection = house.services.store.main.raw_connection()
    request = house.alice.signed("GET", "/operator/audit/bundle")
    run = house.services.writer.run
    calls = []

    async def second_fails(work):
        calls.append(work)
        if len(calls) == 2:
            connection.driver_connection.execute("PRAGMA query_only = ON")
        return await run(work)

    house.services.writer.run = second_fails
    answer = await house.http.send(request)
    assert code(answer) == (503, "log.unavailable")
    assert left_over(house) == []


async def test_a_key_has_one_bundle_at_a_time_and_others_wait_for_their_turn(house):
    kita, nord = await pool(house, "kita", "nord")
    async with house.services.exports.room(key_id(kita.key.public)) as path:
        assert code(await kita.get("/audit/bundle")) == (429, "audit.export-busy")
        waiting = asyncio.ensure_future(nord.get("/audit/bundle"))
        for _ in range(20):
            await asyncio.sleep(0)
        assert not waiting.done()
        house.services.exports.release(path)
    assert (await waiting).status_code == 200
    assert (await kita.get("/audit/bundle")).status_code == 200


async def test_what_a_crash_left_is_removed_at_the_start(house):
    (house.services.settings.dir / ".bundle-abc").write_bytes(b"half")
    house.services.exports.clear()
    assert left_over(house) == []
