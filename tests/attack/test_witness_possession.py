# SPDX-License-Identifier: Apache-2.0
"""A witness key that nobody holds, or that another one holds: no broker takes it, and an auditor finds one that did."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select

from broker.store import tables
from policies.identity import SigningKey, key_text
from policies.log.cosignature import cosigner_vkey
from policies.log.entries import EntryType
from policies.log.witness_keys import witness_name
from policies.signing import Envelope
from policies.verify import verify
from tests.auditsim import digest_from, seeded
from tests.brokersim import Signer, open_house, pool
from tests.unit.test_witness_broker import auditors_statement, code, register, statement, witness_key
from tests.watchedsim import AUDITOR, WatchedSim

T = EntryType
EVER = range(10_000)


# --- the broker ---


@pytest.mark.parametrize(
    ("holder", "wanted"),
    [
        (None, (422, "witness.key")),  # nobody signs for the key
        (witness_key("mallory"), (422, "log.witness-invalid")),  # another key does
    ],
)
async def test_a_member_states_no_key_that_it_does_not_hold(
    tmp_path: Path, holder: SigningKey | None, wanted: tuple[int, str]
) -> None:
    """nord's key under kita's name, before nord comes: kita would have nord's votes, and nord none."""
    async with open_house(tmp_path / "b") as house:
        kita, nord = await pool(house, "kita", "nord")
        claimed = statement(kita, name="nord", witness=holder)
        assert code(await kita.post("/witness/keys", claimed)) == wanted
        assert "witness.added" not in house.kinds()
        await register(nord, kita)
        assert house.services.witnessing.keys.policy.n == 2


async def test_what_one_member_proved_proves_nothing_for_another_one(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        kita, nord = await pool(house, "kita", "nord")
        own = Envelope.from_json(statement(nord)["statement"])
        claimed = Envelope.from_json(statement(kita, name="nord", witness=None)["statement"])
        borrowed = replace(claimed, signatures=(claimed.signatures[0], own.signatures[1]))
        answer = await kita.post("/witness/keys", {"statement": borrowed.to_json()})
        assert code(answer) == (422, "log.witness-invalid")
        assert "witness.added" not in house.kinds()


async def test_an_operator_proposes_no_vote_for_an_auditors_key_that_nobody_holds(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        key = SigningKey.from_seed(b"A" * 32)
        body = {"name": "examiner", "key": key_text(key.public)}
        assert (await house.alice.post("/operator/auditors", body)).status_code == 201
        sealed = Envelope.from_json(auditors_statement(house, key, "examiner")["statement"])
        unproven = {"statement": replace(sealed, signatures=sealed.signatures[:1]).to_json()}
        for who in (house.alice, Signer(house, key, "examiner")):
            assert code(await who.post("/witness/keys", unproven)) == (422, "witness.key")
        assert house.waiting("witness.add") == []
        with house.services.store.read() as session:
            assert session.execute(select(tables.witness)).all() == []


# --- the auditor ---


@dataclass
class Claimed(WatchedSim):
    """The auditor's witness, under statements of an earlier version: without the key's own signature."""

    def statement_of(self, name: str, key: SigningKey | None = None) -> Envelope:
        made = super().statement_of(name, key)
        return replace(made, signatures=made.signatures[:1]) if name == AUDITOR else made


def test_a_witness_that_never_spoke_and_whose_key_proves_nothing_is_found() -> None:
    sim = Claimed(absent={AUDITOR: EVER}).build()
    report = verify(sim.bundle(), sim.policy)
    assert [one.evidence for one in report.findings if one.id == "AUD-013"] == [
        f"nobody has shown to hold the key of {AUDITOR}/witness"
    ]


def test_a_proof_or_a_cosignature_is_enough_and_the_report_says_which() -> None:
    silent = WatchedSim(absent={AUDITOR: EVER}).build()
    assert "AUD-013" not in verify(silent.bundle(), silent.policy).counts
    earlier = Claimed().build()
    report = verify(earlier.bundle(), earlier.policy)
    assert report.findings == []
    assert [f"key itself: {AUDITOR}/witness" in one for one in report.unchecked].count(True) == 1


def test_a_proof_by_another_key_is_found() -> None:
    sim = WatchedSim().build()
    said = [sim.statement_of(one) for one in sim.owners]
    wrong = replace(said[0], signatures=(said[0].signatures[0], said[1].signatures[1]))
    assert set(verify(sim.bundle(witnesses=[wrong, *said[1:]]), sim.policy).counts) == {"AUD-013"}


def test_a_key_that_takes_anothers_place_with_no_word_of_its_owner_is_found() -> None:
    """The broker alone gives the auditor's vote to a key of its own, in the form in which an owner changes its key."""

    @dataclass
    class Swapped(WatchedSim):
        def watch(self) -> None:
            super().watch()
            fresh = SigningKey.from_seed(seeded("of the broker"))
            vkey = cosigner_vkey(fresh, witness_name(AUDITOR))
            policy = digest_from("with the new key")
            old = self.witness_event(T.WITNESS_REMOVED, AUDITOR, policy)
            self.add("old", old)
            pub: dict[str, Any] = {**old.pub, "vkey": vkey.text()}
            self.add("new", replace(old, type=T.WITNESS_ADDED, pub=pub))

    sim = Swapped().build()
    report = verify(sim.bundle(), sim.policy)
    assert {"AUD-013", "AUD-084"} == set(report.counts), report.lines()
    assert any("no statement of its owner changes" in one.evidence for one in report.findings)
