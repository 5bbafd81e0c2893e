# SPDX-License-Identifier: Apache-2.0
"""A witness that one person takes over: statements by keys that are somebody else's, or none at all.

The lying broker enrols an auditor, which takes one person, and lets that key speak for others. Behind these the
bounds of what a bundle may ask its reader to do: they count work, never time.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest

from policies.encoding import canonical, digest
from policies.identity import SigningKey, key_text
from policies.limits import APPROVAL_BYTES
from policies.log.bundle import files_of
from policies.log.cosignature import cosigner_vkey
from policies.log.entries import EntryType, Event
from policies.log.policy import pool_policy
from policies.log.vkeys import VerifierKey
from policies.log.witness_keys import seal_statement, witness_name
from policies.signing import Envelope
from policies.verify import approved, verify
from policies.verify.history import History
from tests.auditsim import ORIGIN, digest_from, repacked, seeded
from tests.planting import Plants, Told
from tests.watchedsim import AUDITOR, WatchedSim

T = EntryType
PLANTS = Plants()
EVIL = SigningKey.from_seed(seeded("evil auditor"))


@dataclass
class TakenOver(WatchedSim):
    """The witness of ``victim`` gets another key, stated by ``by``; the policy is that of the log afterwards."""

    victim: str = AUDITOR
    by: SigningKey = EVIL

    def watch(self) -> None:
        super().watch()
        if self.by is EVIL:
            pub = {"role": "auditor", "alg": "ed25519", "kid": digest(EVIL.public), "vkey": None}
            self.add("enrol action", self.action("anna", "evil", "auditor.add"))
            told = {"key": key_text(EVIL.public)}
            self.add("enrol", Event(type=T.KEY_ADDED, pub=pub, private=told))
        fresh = SigningKey.from_seed(seeded("another witness key"))
        old = self.witness_event(T.WITNESS_REMOVED, self.victim, digest_from("after"))
        self.witness_keys[self.victim] = fresh
        self.vkeys[self.victim] = cosigner_vkey(fresh, witness_name(self.owners[self.victim]))
        pub = {**old.pub, "vkey": self.vkeys[self.victim].text()}
        self.add("old", old)
        self.add("new", replace(old, type=T.WITNESS_ADDED, pub=pub))

    def told(self) -> Told:
        self.build()
        stated = [self.statement_of(one, self.by if one == self.victim else None) for one in self.owners]
        held = {name: (vkey,) for name, vkey in self.vkeys.items()}
        policy = pool_policy(logs=self.policy.logs, broker=self.policy.broker, witnesses=held)
        return Told(bundle=self.bundle(witnesses=stated), policy=policy)


@PLANTS.planted("AUD-013", "AUD-084")
def an_auditors_witness_that_another_auditor_states() -> Told:
    return TakenOver().told()


@PLANTS.planted("AUD-013", "AUD-084")
def a_partys_witness_that_an_auditor_states() -> Told:
    return TakenOver(victim="nord").told()


@PLANTS.planted("AUD-013", "AUD-084")
def a_partys_witness_that_another_party_states() -> Told:
    return TakenOver(victim="nord", by=WatchedSim().makers["kita"].key).told()


@PLANTS.planted("AUD-013", "AUD-084")
def an_auditors_witness_that_a_party_states() -> Told:
    return TakenOver(by=WatchedSim().makers["kita"].key).told()


@PLANTS.planted("AUD-013")
def a_partys_witness_that_nobody_ever_stated() -> Told:
    sim = WatchedSim().build()
    stated = [sim.statement_of(one) for one in sim.owners if one != "nord"]
    return Told(bundle=sim.bundle(witnesses=stated), policy=sim.policy)


def test_owners_change_their_keys_alone() -> None:
    for victim, key in ((AUDITOR, WatchedSim().auditor_key), ("nord", WatchedSim().makers["nord"].key)):
        report = TakenOver(victim=victim, by=key).told().audited()
        assert set(report.counts) <= {"AUD-084"}, report.lines()  # the policy names the first key no more


@pytest.mark.parametrize("name", PLANTS.cases)
def test_a_witness_that_is_taken_over_is_found_by_its_rule(name: str) -> None:
    PLANTS.check(name)


# --- what a bundle may ask for ---


def test_of_a_statement_one_signature_is_tried_however_many_keys_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sim = WatchedSim().build()
    stranger, witness = (SigningKey.from_seed(seeded(one)) for one in ("stranger", "its witness"))
    vkey = cosigner_vkey(witness, "a/witness").text()
    said = [
        seal_statement(stranger, witness=witness, log=ORIGIN, org="a", vkey=vkey, time_ms=number)
        for number in range(40)
    ]
    flood = [*said[:20], *(replace(one, signatures=one.signatures * 20) for one in said[20:])]
    bundle = sim.bundle(witnesses=[*(sim.statement_of(one) for one in sim.owners), *flood])
    tried: list[str] = []
    signed_by, open_as = Envelope.signed_by, Envelope.open_as

    def asked(self: Envelope, public_key: bytes) -> bool:
        tried.extend([self.payload_type] * ("witness" in self.payload_type))
        return signed_by(self, public_key)

    def opened(self: Envelope, kind: str, public_key: bytes) -> Any:
        tried.extend([kind] * ("witness" in kind))
        return open_as(self, kind, public_key)

    monkeypatch.setattr(Envelope, "open_as", opened)
    monkeypatch.setattr(Envelope, "signed_by", asked)
    report = verify(bundle, sim.policy)
    assert report.counts["AUD-013"] == 40
    assert len(tried) == 4 * 2  # those by keys that are known; to open one asks once who signed it


def test_keys_of_witnesses_are_parsed_once_for_each_entry(monkeypatch: pytest.MonkeyPatch) -> None:
    def calls(pairs: int) -> int:
        @dataclass
        class Many(WatchedSim):
            def watch(self) -> None:
                super().watch()
                for number in range(pairs):
                    key = SigningKey.from_seed(seeded(f"many {number}"))
                    vkey = cosigner_vkey(key, f"house-{number}/witness")
                    pub = {"witness": vkey.name, "vkey": vkey.text(), "org": "00" * 8}
                    self.add(f"w{number}", Event(type=T.WITNESS_ADDED, pub=pub | {"policy": digest(b"x")}))

        sim = Many().build()
        bundle, counted = sim.bundle(), []
        parse = VerifierKey.parse

        def counting(text: str) -> VerifierKey:
            counted.append(text)
            return parse(text)

        with monkeypatch.context() as patched:
            patched.setattr("policies.verify.witnesses.VerifierKey.parse", counting)
            verify(bundle, sim.policy)
        return len(counted)

    few, many = calls(4), calls(24)
    assert (many - few) % 20 == 0  # the same for each further one
    assert many - few <= 20 * 4


def test_what_was_amended_is_read_once_however_many_contracts_there_are(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def looks(more: int) -> int:
        @dataclass
        class Many(WatchedSim):
            def watch(self) -> None:
                super().watch()
                for number in range(more):
                    named = digest_from(f"contract {number}")
                    pub = {"contract": named, "signatures": digest(b"x"), "prose": None}
                    self.add(f"c{number}", Event(type=T.CONTRACT_FINALIZED, scope=named, pub=pub))

        sim = Many().build()
        bundle, counted = sim.bundle(), []
        of = History.of

        def counting(self: History, *kinds: EntryType) -> Any:
            counted.extend([1] * (T.CONTRACT_AMENDED in kinds))
            return of(self, *kinds)

        with monkeypatch.context() as patched:
            patched.setattr(History, "of", counting)
            verify(bundle, sim.policy)
        return len(counted)

    assert looks(2) == looks(20)


def test_an_approved_document_larger_than_any_is_found_and_not_read(monkeypatch: pytest.MonkeyPatch) -> None:
    large = canonical({"x": ["0123456789"] * (APPROVAL_BYTES // 10)})

    @dataclass
    class Large(WatchedSim):
        def watch(self) -> None:
            super().watch()
            for name in ("anna", "ben"):
                self.add(name, self.action(name, "x", "org.remove", subject=digest(large)))

    sim = Large().build()
    bundle = sim.bundle(approvals=[*sim.approvals, large])
    parse, sizes = approved.parse, []

    def noted(data: bytes) -> Any:
        sizes.append(len(data))
        return parse(data)

    monkeypatch.setattr(approved, "parse", noted)
    report = verify(bundle, sim.policy)
    assert set(report.counts) == {"AUD-080"}, report.lines()
    assert "more than 65536" in report.findings[0].evidence
    assert max(sizes) <= APPROVAL_BYTES


def test_a_document_that_no_action_names_is_found() -> None:
    sim = WatchedSim().build()
    extra = canonical({"action": "org.remove"})
    report = verify(sim.bundle(approvals=[*sim.approvals, extra]), sim.policy)
    (finding,) = report.findings
    assert (finding.id, "no action of an operator is about it" in finding.evidence) == ("AUD-080", True)


@pytest.mark.parametrize(
    "line",
    [
        b'{"field":["x"],"index":%d,"salt":"' + b"0" * 32 + b'","value":1}\n',
        b'{"index":%d}\n',
        b'{"field":"at","index":%d}\n',
        b'{"field":"at","index":%d,"salt":"","value":1}\n',
    ],
)
def test_a_disclosure_of_an_entry_that_cannot_be_read_is_a_finding_if_it_is_none(line: bytes) -> None:
    sim = WatchedSim().build()
    index = len(sim.bodies)
    sim.bodies.append(b"junk")
    sim.publish()
    files = files_of(sim.contents())
    name = [one for one in files if one.startswith("disclosures/")][-1]
    files[name] += line % index
    report = verify(repacked(files), sim.policy)
    assert "AUD-082" in report.counts, report.lines()
