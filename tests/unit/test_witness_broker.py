# SPDX-License-Identifier: Apache-2.0
"""The broker's side of witnesses: keys, the candidate, cosignatures, quorum, complaints, graded receipts."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx

from broker.witnessing.candidate import Candidates
from policies.encoding import digest
from policies.identity import SigningKey, key_text
from policies.log.checkpoint import Checkpoint, parse_checkpoint, parse_note, sign_checkpoint
from policies.log.cosignature import cosign, cosigner_vkey
from policies.log.entries import EntryType
from policies.log.policy import open_witnessed, parse_policy
from policies.log.proofs import parse_receipt
from policies.log.witness_keys import seal_statement, witness_name
from policies.verify import verify
from tests.brokersim import ORIGIN, HandClock, House, NodeSim, Signer, open_house, pool

FOUR = ("kita", "nord", "iber", "hanbit")


def witness_key(name: str) -> SigningKey:
    return SigningKey.from_seed(hashlib.sha256(f"witness {name}".encode()).digest())


def statement(node: NodeSim, *, name: str = "", **changes: Any) -> dict[str, Any]:
    held = witness_key(name or node.name)
    vkey = cosigner_vkey(held, witness_name(node.org)).text()
    fields = {
        "witness": held,
        "log": ORIGIN,
        "org": node.org,
        "vkey": vkey,
        "time_ms": node.house.clock.ms,
    }
    return {"statement": seal_statement(node.key, **(fields | changes)).to_json()}


async def register(*nodes: NodeSim) -> None:
    for node in nodes:
        answer = await node.post("/witness/keys", statement(node))
        assert answer.status_code == 200, answer.text


async def head(house: House, after: int = 0, **query: Any) -> dict[str, Any]:
    asked = "".join(f"&{name}={value}" for name, value in query.items())
    answer = await house.http.get(f"/api/v1/log/head?after={after}{asked}")
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def line(node: NodeSim, note: str, *, at_s: int | None = None, key: SigningKey | None = None) -> str:
    time_s = node.house.clock.ms // 1000 if at_s is None else at_s
    return cosign(
        key or witness_key(node.name), name=witness_name(node.org), text=parse_note(note).text, time_s=time_s
    )


async def send(house: House, size: int, *lines: str) -> httpx.Response:
    return await house.http.post("/api/v1/witness/cosignatures", json={"lines": list(lines), "size": size})


async def cosigned(house: House, *nodes: NodeSim) -> dict[str, Any]:
    shown = await head(house)
    answer = await send(house, shown["size"], *(line(node, shown["note"]) for node in nodes))
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


def code(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


async def test_a_registered_key_is_logged_once_and_the_policy_follows(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        kita, nord = await pool(house, "kita", "nord")
        before = house.services.policy
        for _ in range(2):
            await register(kita)
        await register(nord)
        added = house.entries(EntryType.WITNESS_ADDED)
        activated = house.entries(EntryType.POLICY_ACTIVATED)
        assert [one.pub["witness"] for one in added] == [witness_name(one.org) for one in (kita, nord)]
        assert activated[0].pub["previous"] == digest(before.encode())
        assert activated[1].pub["previous"] == activated[0].pub["digest"]
        assert activated[1].pub["digest"] == digest(house.services.policy.encode())
        listed = (await nord.get("/witness/keys")).json()
        assert {one["owner"] for one in listed["witnesses"]} == {kita.org, nord.org}
    async with open_house(tmp_path / "b") as again:
        assert parse_policy(again.services.policy).n == 2


async def test_another_key_takes_the_place_of_the_old_one_which_never_comes_back(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        kita, nord = await pool(house, "kita", "nord")
        await register(kita, nord)
        assert (await kita.post("/witness/keys", statement(kita, name="new"))).status_code == 200
        removed = house.entries(EntryType.WITNESS_REMOVED)
        assert [one.pub["witness"] for one in removed] == [witness_name(kita.org)]
        assert code(await kita.post("/witness/keys", statement(kita))) == (422, "witness.key")
        assert code(await nord.post("/witness/keys", statement(nord, name="new"))) == (422, "witness.key")
        assert (await nord.post("/witness/keys", statement(kita))).json()[
            "code"
        ] == "identity.signature-invalid"
        assert parse_policy(house.services.policy).n == 2


async def test_who_leaves_witnesses_no_longer(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        await cosigned(house, *nodes[:3])
        answer = await house.remove(nodes[0].org, reason="left")
        assert answer.status_code == 200, answer.text
        policy = parse_policy(house.services.policy)
        assert (policy.k, policy.n, nodes[0].org in policy.voters) == (3, 3, False)
        assert house.services.witnessing.newest is None  # 2 of 3 are left on that head
        assert house.kinds().count("witness.removed") == 1


async def test_three_of_four_are_a_quorum_and_the_note_says_who(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        assert (await cosigned(house, *nodes[:2]))["witnessed"] == 0
        size = (await head(house))["size"]
        assert (await cosigned(house, nodes[2]))["witnessed"] == size
        note = house.services.published_note()
        policy = parse_policy(house.services.policy)
        found, opened = open_witnessed(note, policy)
        assert (found.size, len(policy.voters_of(opened.verified))) == (size, 3)
        assert house.services.witnessing.organisations == 3
        await cosigned(house, nodes[3])
        assert house.services.witnessing.organisations == 4
        shown = (await house.alice.get("/operator/status")).json()["witnesses"]
        assert (shown["k"], shown["n"], shown["tolerates"], shown["size"]) == (3, 4, 1, size)
        assert [one["age_s"] for one in shown["witnesses"]] == [0, 0, 0, 0]
    async with open_house(tmp_path / "b") as again:
        assert again.services.witnessing.organisations == 4
        open_witnessed(again.services.published_note(), policy)


async def test_what_does_not_verify_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        kita, nord = await pool(house, "kita", "nord")
        await register(kita)
        shown = await head(house)
        size, note = shown["size"], shown["note"]
        good, now_s = line(kita, note), house.clock.ms // 1000
        other = sign_checkpoint(SigningKey.from_seed(b"L" * 32), Checkpoint(ORIGIN, size, bytes(32)))
        forged = line(kita, note, key=witness_key("mallory")).split()[2]
        borrowed = " ".join([*good.split()[:2], forged]) + "\n"
        cases = {
            (403, "witness.unknown"): [line(nord, note), borrowed],
            (422, "witness.cosignature"): [line(kita, other), "junk", good.replace(" ", "  "), ""],
            (409, "witness.stale"): [line(kita, note, at_s=now_s + 3_600)],
        }
        for want, lines in cases.items():
            for one in lines:
                assert code(await send(house, size, one)) == want
        assert (
            code(await send(house, size, good, line(kita, note, at_s=now_s + 1)))[1] == "witness.cosignature"
        )
        assert code(await send(house, size + 50, good)) == (404, "witness.head-unknown")
        assert code(await send(house, size)) == (422, "request.invalid")
        assert code(await send(house, size, *[good] * 17)) == (422, "request.invalid")
        assert house.services.witnessing.newest is None
        assert (await send(house, size, good)).json() == {"stored": 1, "witnessed": size}
        assert (await send(house, size, good)).json() == {"stored": 0, "witnessed": size}
        assert code(await send(house, size, line(kita, note, at_s=now_s - 1))) == (409, "witness.stale")


async def test_one_candidate_at_a_time_makes_room_by_quorum_or_by_time(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        first = (await head(house))["size"]
        await house.alice.invite("New GmbH", "DE", "new")
        assert (await head(house))["size"] == first  # no quorum, and no time passed
        house.clock.ms += 2_000
        second = (await head(house))["size"]
        assert second > first
        await house.alice.invite("Newer GmbH", "DE", "newer")
        await cosigned(house, *nodes[:3])
        assert (await head(house))["size"] > second
        assert (await head(house))["checkpoint"] == house.services.published_note()


async def test_a_held_question_is_answered_by_a_new_head_and_by_a_new_quorum(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        (kita,) = await pool(house, "kita")
        size = house.services.writer.head().size
        asked = asyncio.create_task(head(house, size, wait=20))
        await asyncio.sleep(0)
        house.clock.ms += 2_000
        await register(kita)
        found = await asked
        assert found["size"] > size
        assert found["checkpoint"] is None
        asked = asyncio.create_task(head(house, found["size"], wait=20, witnessed=0))
        await asyncio.sleep(0)
        await cosigned(house, kita)
        assert (await asked)["checkpoint"] == house.services.published_note()


async def test_who_finds_no_room_is_answered_at_once(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        writer = house.services.writer
        full = Candidates(head=writer.head, reached=lambda: 0, clock=HandClock(), waiters=1)
        held = asyncio.create_task(full.news(is_news=lambda: False, wait_s=20))
        await asyncio.sleep(0)
        await full.news(is_news=lambda: False, wait_s=20)
        assert not held.done()
        full.drain()
        await held


async def test_a_receipt_is_upgraded_by_the_smallest_quorum_that_covers_it(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        (kita,) = await pool(house, "kita")
        await register(kita)
        entries = house.entries()
        index = next(at for at, one in enumerate(entries) if one.type is EntryType.WITNESS_ADDED)
        graded = await house.services.witnessing.receipt(index)
        assert graded.grade == "signed"
        await cosigned(house, kita)
        size = house.services.witnessing.newest.head.size
        await house.alice.invite("New GmbH", "DE", "new")
        house.clock.ms += 1_000
        await cosigned(house, kita)
        name = entries[index].id.hex()
        answer = await house.alice.get(f"/receipts/{name}?wait=witnessed")
        assert (answer.status_code, answer.json()["grade"]) == (200, "witnessed")
        receipt = parse_receipt(answer.json()["proof"])
        assert receipt.checkpoint.size == size
        open_witnessed(receipt.note, parse_policy(house.services.policy))
        last = house.entries()[-1].id.hex()
        plain = await house.alice.get(f"/receipts/{last}")
        assert (plain.status_code, plain.json()["grade"]) == (200, "signed")


async def test_a_receipt_that_nobody_witnessed_comes_as_signed_with_202(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        house.services.witnessing.candidates.drain()  # nothing is waited for
        name = house.entries()[0].id.hex()
        answer = await house.alice.get(f"/receipts/{name}?wait=witnessed")
        assert (answer.status_code, answer.json()["grade"]) == (202, "signed")


async def test_a_complaint_freezes_a_log_that_signed_what_it_does_not_have(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        writer = house.services.writer
        key = SigningKey.from_pem((tmp_path / "b" / "keys" / "log.key").read_bytes())
        own = sign_checkpoint(key, Checkpoint(ORIGIN, 2, writer.receipts.root(2)))
        stranger = sign_checkpoint(SigningKey.from_seed(b"X" * 32), Checkpoint(ORIGIN, 2, bytes(32)))

        async def complain(*notes: str) -> httpx.Response:
            return await house.http.post("/api/v1/witness/complaints", json={"notes": list(notes)})

        for notes in ([own], [stranger], ["junk"]):
            assert code(await complain(*notes)) == (422, "witness.complaint")
        assert writer.frozen is None
        fork = sign_checkpoint(key, Checkpoint(ORIGIN, 2, bytes(32)))
        answer = await complain(own, fork)
        assert answer.json()["kind"] == "equivocation"
        assert answer.json()["frozen"]
        declared = house.entries(EntryType.INCIDENT_DECLARED)
        assert [one.pub["kind"] for one in declared] == ["equivocation"]
        assert writer.frozen is not None


async def test_a_note_beyond_the_head_is_amnesia(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        key = SigningKey.from_pem((tmp_path / "b" / "keys" / "log.key").read_bytes())
        ahead = sign_checkpoint(key, Checkpoint(ORIGIN, house.services.writer.head().size + 10, bytes(32)))
        answer = await house.http.post("/api/v1/witness/complaints", json={"notes": [ahead]})
        assert answer.json()["kind"] == "amnesia"
        assert "amnesia" in str(house.services.writer.frozen)


def auditors_statement(
    house: House, key: SigningKey, name: str, witness: str = "", **changes: Any
) -> dict[str, Any]:
    held = witness_key(witness or name)
    vkey = cosigner_vkey(held, witness_name(name)).text()
    fields: dict[str, Any] = {
        "witness": held,
        "log": ORIGIN,
        "org": name,
        "vkey": vkey,
        "time_ms": house.clock.ms,
    }
    return {"statement": seal_statement(key, **(fields | changes)).to_json()}


async def test_an_auditor_witnesses_under_its_own_name_once_two_people_said_so(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        key = SigningKey.from_seed(b"A" * 32)
        body = {"name": "examiner", "key": key_text(key.public)}
        assert (await house.alice.post("/operator/auditors", body)).status_code == 201
        said = auditors_statement(house, key, "examiner")
        (kita,) = await pool(house, "kita")
        assert code(await kita.post("/witness/keys", said))[1] == "identity.signature-invalid"
        stranger = auditors_statement(house, key, "examiner", **_named("nobody"))
        assert code(await house.alice.post("/witness/keys", stranger)) == (422, "request.invalid")
        examiner = Signer(house, key, "examiner")
        own = (await examiner.post("/witness/keys", said)).json()
        assert (own["news"], own["votes"], own["proposal"]) == (True, False, None)
        proposal = (await house.alice.post("/witness/keys", said)).json()["proposal"]
        assert proposal["what"]["owner_key"] == key_text(key.public)
        assert parse_policy(house.services.policy).n == 0
        assert "witness.added" not in house.kinds()
        assert code(await house.alice.agree(proposal)) == (403, "proposal.own")
        assert (await house.bob.agree(proposal)).status_code == 200
        assert house.kinds()[-2:] == ["witness.added", "policy.activated"]
        assert parse_policy(house.services.policy).voters == ("examiner",)
        other = auditors_statement(house, key, "examiner", "new")  # whoever votes may change its key
        again = (await examiner.post("/witness/keys", other)).json()
        assert (again["votes"], house.kinds()[-3:]) == (
            True,
            ["witness.removed", "witness.added", "policy.activated"],
        )


async def test_a_vote_of_an_auditor_outlives_its_access_until_two_people_end_it(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        key = SigningKey.from_seed(b"A" * 32)
        await house.alice.post("/operator/auditors", {"name": "examiner", "key": key_text(key.public)})
        said = auditors_statement(house, key, "examiner")
        proposal = (await house.alice.post("/witness/keys", said)).json()["proposal"]
        await house.bob.agree(proposal)
        answer = await house.alice.post("/operator/auditors/examiner/revoke", {"reason": "left"})
        name = witness_name("examiner")
        assert answer.json() == {"name": "examiner", "grants_ended": 0, "votes_on": name}
        assert parse_policy(house.services.policy).voters == ("examiner",)
        assert code(await Signer(house, key, "examiner").post("/witness/keys", said))[0] == 401
        body = {"kind": "witness.remove", "payload": {"witness": name, "reason": "left"}}
        made = (await house.alice.post("/operator/proposals", body)).json()["proposal"]
        assert (await house.bob.agree(made)).status_code == 200
        assert parse_policy(house.services.policy).n == 0


async def test_a_vote_is_for_the_key_that_was_shown_and_for_an_auditor_in_force(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        key = SigningKey.from_seed(b"A" * 32)
        await house.alice.post("/operator/auditors", {"name": "examiner", "key": key_text(key.public)})
        first, second = (auditors_statement(house, key, "examiner", one) for one in ("one", "two"))
        old = (await house.alice.post("/witness/keys", first)).json()["proposal"]
        new = (await house.alice.post("/witness/keys", second)).json()["proposal"]
        assert (old["id"] != new["id"], code(await house.bob.agree(old))) == (True, (409, "proposal.closed"))
        await house.alice.post("/operator/auditors/examiner/revoke", {"reason": "left"})
        assert code(await house.bob.agree(new)) == (409, "proposal.void")
        assert parse_policy(house.services.policy).n == 0


def _named(owner: str) -> dict[str, str]:
    return {"org": owner, "vkey": cosigner_vkey(witness_key(owner), witness_name(owner)).text()}


async def test_a_log_whose_newest_cosigned_entry_was_changed_is_handed_out_as_far_as_it_fits(
    tmp_path: Path,
) -> None:
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        await cosigned(house, *nodes)
        size, policy = house.services.witnessing.checkpoint().size, parse_policy(house.services.policy)
    with closing(sqlite3.connect(tmp_path / "b" / "broker.db")) as database, database:
        database.execute("DROP TRIGGER log_entry_no_update")
        database.execute("UPDATE log_entry SET body = CAST(body || ' ' AS BLOB) WHERE idx = ?", (size - 1,))
    async with open_house(tmp_path / "b") as house:
        house.bob.entropy.drawn = 1_000  # it signs nothing twice
        assert house.services.writer.frozen is not None
        answer = await house.bob.get("/operator/audit/bundle")
        assert answer.status_code == 200, answer.text
        assert answer.headers["iriai-log"] == "frozen"
        report = verify(answer.content, policy)
        assert 0 < report.size < size
        assert "AUD-012" in report.counts  # nobody cosigned that little
        assert parse_checkpoint(parse_note(house.services.published_note()).text).size == report.size
