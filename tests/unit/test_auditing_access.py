# SPDX-License-Identifier: Apache-2.0
"""Auditors, grants and disclosures: who is shown what, and what the log says about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from policies.encoding import digest
from policies.identity import key_text
from policies.log.access import grants_of
from policies.log.entries import EntryType, commitment
from tests.auditorsim import AuditorSim, enrolled, granted
from tests.brokersim import House, open_house
from tests.logsim import console

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

DAY_MS = 86_400_000


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with open_house(tmp_path / "broker") as one:
        yield one


def code(answer) -> tuple[int, str]:
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    return answer.status_code, answer.json()["code"]


def pubs(house: House, kind: EntryType) -> list[dict]:
    return [dict(one.pub) for one in house.entries(kind)]


# --- auditors ---


async def test_an_auditor_is_enrolled_with_a_key_of_their_own_and_the_log_says_so(house):
    ernst = await enrolled(house)
    (listed,) = (await house.alice.get("/operator/auditors")).json()["auditors"]
    assert (listed["name"], listed["state"], listed["key"]) == ("ernst", "active", key_text(ernst.key.public))
    added = pubs(house, EntryType.KEY_ADDED)[-1]
    assert (added["role"], added["kid"]) == ("auditor", digest(ernst.key.public))
    assert pubs(house, EntryType.CONSOLE_ACTION)[-1]["action"] == "auditor.add"


@pytest.mark.parametrize("whose", ["operator", "member", "auditor", "name"])
async def test_a_key_and_a_name_are_enrolled_once(house, whose):
    ernst, kita = await enrolled(house), await house.member("kita")
    key = {"operator": house.alice.key, "member": kita.key, "auditor": ernst.key}.get(whose)
    other = AuditorSim(house, "other")
    body = {
        "name": "ernst" if whose == "name" else "other",
        "key": key_text((key or other.key).public),
    }
    assert code(await house.alice.post("/operator/auditors", body)) == (409, "audit.auditor-taken")


async def test_a_weak_key_is_refused(house):
    body = {"name": "weak", "key": "ed25519:" + "00" * 32}
    assert code(await house.alice.post("/operator/auditors", body)) == (422, "identity.weak-key")


async def test_only_operators_let_auditors_in(house):
    kita, ernst = await house.member("kita"), await enrolled(house)
    body = {"name": "mine", "key": key_text(AuditorSim(house, "mine").key.public)}
    for one in (kita, ernst):
        assert code(await one.post("/operator/auditors", body)) == (403, "identity.wrong-role")


async def test_an_auditor_is_neither_member_nor_operator(house):
    ernst = await enrolled(house)
    for path in ("/contracts", "/releases", "/operator/status", "/membership/me", "/log/checkpoint"):
        assert code(await ernst.get(path)) == (403, "identity.wrong-role"), path
    assert (await ernst.get("/log/entries/0")).status_code == 200


async def test_who_was_revoked_asks_for_nothing_and_grants_end(house):
    ernst = await enrolled(house)
    grant = await granted(house, ernst)
    answer = await house.alice.post("/operator/auditors/ernst/revoke", {"reason": "engagement-over"})
    assert answer.json() == {"name": "ernst", "grants_ended": 1, "votes_on": None}
    assert code(await ernst.get("/audit/disclosures"))[1] == "identity.key-revoked"
    assert pubs(house, EntryType.KEY_REVOKED)[-1]["kid"] == digest(ernst.key.public)
    assert pubs(house, EntryType.ACCESS_REVOKED)[-1]["grant"] == grant
    again = await house.alice.post("/operator/auditors/ernst/revoke", {"reason": "twice"})
    assert code(again) == (404, "audit.auditor-unknown")
    back = await house.alice.post("/operator/auditors", {"name": "ernst", "key": key_text(ernst.key.public)})
    assert code(back) == (409, "audit.auditor-taken")


# --- grants ---


async def test_a_grant_stands_in_the_log_as_it_stands_in_the_table(house):
    ernst = await enrolled(house)
    name = await granted(house, ernst, ["key", "at"], days=2, from_index=3)
    (grant,) = grants_of(house.entries(), "ernst")
    assert (grant.id, grant.fields, grant.from_index) == (name, {"at", "key"}, 3)
    assert grant.until_ms == (house.clock.ms + 2 * DAY_MS) // 60_000 * 60_000
    with house.services.store.read() as session:
        assert house.services.grants.of(session, "ernst") == (grant,)
    (listed,) = (await house.alice.get("/operator/audit/grants")).json()["grants"]
    assert (listed["grant"], listed["state"], listed["fields"]) == (name, "in-force", ["at", "key"])


async def test_a_grant_ends_by_time_and_by_revocation(house):
    ernst = await enrolled(house)
    await granted(house, ernst, ["at"], days=1)
    name = await granted(house, ernst, ["key"])
    house.clock.ms += DAY_MS
    shown = (await ernst.get("/audit/disclosures")).json()["disclosures"]
    assert {one["field"] for one in shown} == {"key"}
    assert (await house.alice.post(f"/operator/audit/grants/{name}/revoke", {})).status_code == 200
    assert (await ernst.get("/audit/disclosures")).json()["disclosures"] == []
    assert grants_of(house.entries(), "ernst")[0].in_force(house.clock.ms) is False
    listed = (await house.alice.get("/operator/audit/grants")).json()["grants"]
    assert [one["state"] for one in listed] == ["over", "over"]
    again = await house.alice.post(f"/operator/audit/grants/{name}/revoke", {})
    assert code(again) == (404, "audit.grant-unknown")


async def test_a_grant_is_for_somebody_in_force_and_for_fields_that_there_are(house):
    nobody = {"grantee": "nobody", "fields": None}
    assert code(await house.alice.post("/operator/audit/grants", nobody)) == (404, "audit.auditor-unknown")
    await enrolled(house)
    wrong = {"grantee": "ernst", "fields": ["at", "colour"]}
    assert code(await house.alice.post("/operator/audit/grants", wrong)) == (422, "audit.field-unknown")
    assert house.entries(EntryType.ACCESS_GRANTED) == []


# --- disclosures ---


async def test_without_a_grant_nothing_is_disclosed(house):
    ernst = await enrolled(house)
    size = house.services.writer.head().size
    answer = (await ernst.get("/audit/disclosures")).json()
    assert (answer["disclosures"], answer["next"], answer["size"]) == ([], None, size)
    assert house.entries(EntryType.DISCLOSURE_MADE) == []


async def test_what_a_grant_opens_fits_the_log_and_nothing_else_is_shown(house):
    ernst = await enrolled(house)
    grant = await granted(house, ernst, ["key"], from_index=2)
    entries = house.entries()
    shown = (await ernst.get("/audit/disclosures")).json()["disclosures"]
    assert shown
    for one in shown:
        assert one["field"] == "key"
        assert one["index"] >= 2
        opened = commitment(bytes.fromhex(one["salt"]), "key", one["value"])
        assert opened == entries[one["index"]].sd["key"]
    (made,) = pubs(house, EntryType.DISCLOSURE_MADE)
    assert made == {
        "indexes": [one["index"] for one in shown],
        "fields": ["key"],
        "grantee": "ernst",
        "grant": grant,
    }
    (used,) = pubs(house, EntryType.ACCESS_USED)
    assert (used["grant"], used["grantee"]) == (grant, "ernst")


async def test_every_look_is_logged_and_what_was_shown_once(house):
    ernst = await enrolled(house)
    await granted(house, ernst, ["key"])
    for _ in range(3):
        await ernst.get("/audit/disclosures")
    assert len(house.entries(EntryType.ACCESS_USED)) == 3
    assert len(house.entries(EntryType.DISCLOSURE_MADE)) == 1


async def test_a_second_grant_answers_for_what_the_first_does_not_open(house):
    ernst = await enrolled(house)
    first = await granted(house, ernst, ["key"])
    house.clock.ms += 1  # the older one counts
    second = await granted(house, ernst, None)
    await ernst.get("/audit/disclosures")
    made = {one["grant"]: one["fields"] for one in pubs(house, EntryType.DISCLOSURE_MADE)}
    assert made == {first: ["key"], second: ["at"]}


async def test_pages_follow_each_other_to_the_end(house):
    ernst = await enrolled(house)
    await granted(house, ernst, ["at"])
    house.services.writer.submit(
        lambda _session, log: [log.add(console(number)) for number in range(300)]
    ).result()
    seen, start = [], 0
    while start is not None:
        page = (await ernst.get(f"/audit/disclosures?from={start}")).json()
        seen += [one["index"] for one in page["disclosures"]]
        start = page["next"]
    assert seen[:300] == list(range(300))
    beyond = (await ernst.get("/audit/disclosures?from=100000")).json()
    assert (beyond["disclosures"], beyond["next"]) == ([], None)
    assert code(await ernst.get("/audit/disclosures?from=-1"))[1] == "request.invalid"


async def test_a_log_that_cannot_say_it_discloses_nothing(house):
    ernst = await enrolled(house)
    await granted(house, ernst)
    connection = house.services.store.main.raw_connection()
    connection.driver_connection.execute("PRAGMA query_only = ON")
    connection.close()
    answer = await ernst.get("/audit/disclosures")
    assert answer.status_code == 503
    assert "salt" not in answer.text


async def test_members_and_operators_ask_for_no_disclosures(house):
    kita = await house.member("kita")
    for one in (kita, house.alice):
        assert code(await one.get("/audit/disclosures")) == (403, "identity.wrong-role")
