# SPDX-License-Identifier: Apache-2.0
"""Ways past the auditor that once were open, and bytes that once stopped the auditor's program.

The attacker is the broker with its log key, or a member who hands the auditor a folder.
"""

from __future__ import annotations

import json
import os
import signal
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from policies.encoding import canonical, digest
from policies.identity import SigningKey
from policies.limits import BUNDLE_ORGANISATIONS
from policies.log.container import Container
from policies.log.cosignature import cosigner_vkey
from policies.log.entries import EntryType, Event
from policies.log.policy import policy_text
from policies.verify import verify
from policies.verify.cli import main
from policies.verify.commands import audit
from policies.verify.errors import WorkerLostError
from policies.verify.history import History
from policies.verify.parallel import in_order
from tests.auditsim import PoolSim, digest_from, repacked, seeded
from tests.planting import Plants, Told
from tests.watchedsim import AUDITOR, WatchedSim

T = EntryType
PLANTS = Plants()
FAKE = cosigner_vkey(SigningKey.from_seed(seeded("fake")), "org_fake/witness")
FLAT: dict[str, Any] = {"clause": "pay-1", "method": "flat", "disclose": "own-share-only"}


def told(sim: PoolSim, **options: Any) -> Told:
    return Told(bundle=sim.bundle(), policy=sim.policy, options=options)


def repacked_with(sim: PoolSim, change: Callable[[dict[str, bytes]], None]) -> Told:
    """The story's bundle with its files changed."""
    data = sim.bundle()
    container = Container(len(data), lambda offset, size: data[offset : offset + size])
    files = {one.name: container.bytes_of(one) for one in container.files()}
    change(files)
    return Told(bundle=repacked(files), policy=sim.policy)


def changed(name: str, *before: Event, **pub: Any) -> Told:
    """The story with fields of one event changed, and more events before it."""

    def tamper(at: str, event: Event) -> Event | list[Event]:
        return [*before, replace(event, pub={**event.pub, **pub})] if at == name else event

    return told(WatchedSim(tamper=tamper).build())


# --- a release that nobody had witnessed ---


class ReleaseInTheDark(WatchedSim):
    """No witness cosigns anything before the release; later all of them do.

    ``claims`` is how many the broker says, and with ``fake`` it has one of its own for a while.
    """

    claims = 3
    fake = False
    dark = True
    last_policy = ""

    def _release(self, candidate: str) -> Any:
        return replace(super()._release(candidate), witnesses=self.claims)

    def cosigned(self, note: str, **kept: Any) -> str:
        if self.dark and "released" not in self.names and "grant" not in self.names:
            kept["by"] = ()
        return super().cosigned(note, **kept)

    def _change(self, kind: EntryType, name: str) -> None:
        text = digest(f"policy {name}".encode())
        pub = {"witness": FAKE.name, "vkey": FAKE.text(), "org": "00" * 8, "policy": text}
        self.add(name, Event(type=kind, pub=pub))
        pub = {"kind": "trust", "digest": text, "previous": self.last_policy}
        self.add(f"{name} policy", Event(type=T.POLICY_ACTIVATED, pub=pub))
        self.last_policy = text

    def begin(self) -> None:
        super().begin()
        self.last_policy = digest(policy_text(self.policy).encode())
        if self.fake:
            self._change(T.WITNESS_ADDED, "fake added")

    def watch(self) -> None:
        if self.fake:
            self._change(T.WITNESS_REMOVED, "fake removed")
        super().watch()


class VouchedByTheBrokersOwn(ReleaseInTheDark):
    claims = 5
    fake = True


class WithAFakeWitness(ReleaseInTheDark):
    fake = True
    dark = False


class OneMoreThanTheQuorum(WithAFakeWitness):
    claims = 5


@PLANTS.planted("AUD-059")
def a_release_that_no_witness_had_cosigned_anything_before() -> Told:
    return told(ReleaseInTheDark().build())


@PLANTS.planted("AUD-059", "AUD-084", "AUD-080")
def a_release_for_which_a_witness_of_the_brokers_own_vouches() -> Told:
    return told(VouchedByTheBrokersOwn().build())


@PLANTS.planted("AUD-059")
def a_release_whose_witnesses_all_but_one_cosigned_a_month_later() -> Told:
    return told(WatchedSim(clocks=dict.fromkeys(("kita", "nord", AUDITOR), 30 * 86_400)).build())


@PLANTS.planted("AUD-084", "AUD-080")
def a_witness_that_came_and_went() -> Told:
    return told(WithAFakeWitness().build())


@PLANTS.planted("AUD-084", "AUD-080")
def one_more_witness_than_the_quorum_that_was_reached() -> Told:
    return told(OneMoreThanTheQuorum().build())


# --- orders, keys and payments ---


@PLANTS.planted("AUD-088")
def an_erasure_that_borrows_the_order_of_a_grant() -> Told:
    return changed("erasure", request=digest_from("request grant"))


@PLANTS.planted("AUD-086")
def an_incident_that_nobody_ordered_closed() -> Told:
    return told(WatchedSim(tamper=lambda at, event: None if at == "close action" else event).build())


def revoked(*until: int) -> Told:
    """A member's key is revoked before its vote, each time until an index; -1: as it should be."""
    sim = PoolSim()

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "vote kita":
            return event
        kid, here = digest(sim.makers["kita"].key.public), len(sim.bodies)
        pubs = [
            {"kid": kid, "reason": "left", "valid_until": here + number if one < 0 else one}
            for number, one in enumerate(until)
        ]
        return [*(Event(type=T.KEY_REVOKED, pub=pub) for pub in pubs), event]

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-085", "AUD-041", "AUD-080")
def a_revocation_that_begins_long_after_itself() -> Told:
    return revoked(2**53 - 1)


@PLANTS.planted("AUD-041", "AUD-085", "AUD-035", "AUD-080")
def a_revocation_that_a_second_one_takes_back() -> Told:
    return revoked(-1, 2**53 - 1)


class PaysKitaAlone(WatchedSim):
    def shares(self) -> dict[str, str]:
        cut = {"hanbit": "0", "kita": "1", "nord": "0"}
        return {one.alias(self.contract.digest): cut[one.party] for one in self.makers.values()}


@PLANTS.planted("AUD-075")
def a_settlement_that_leaves_out_who_took_part() -> Told:
    return told(PaysKitaAlone(incentives=FLAT).build())


# --- bytes that stopped the program ---


@PLANTS.planted("AUD-082", "AUD-083")
def a_disclosure_whose_field_is_an_object() -> Told:
    def change(files: dict[str, bytes]) -> None:
        *lines, last, end = files["disclosures/000.jsonl"].split(b"\n")
        files["disclosures/000.jsonl"] = b"\n".join(
            [*lines, canonical(json.loads(last) | {"field": {"z": 1}}), end]
        )

    return repacked_with(WatchedSim().build(), change)


@pytest.mark.parametrize("name", PLANTS.cases)
def test_what_was_a_way_past_the_auditor_is_found(name: str) -> None:
    PLANTS.check(name)


def test_more_organisations_than_any_log_has_are_not_read() -> None:
    def change(files: dict[str, bytes]) -> None:
        files["keys/aliases.json"] = canonical(
            {
                f"org_{number:016x}": b64encode(number.to_bytes(32)).decode("ascii")
                for number in range(BUNDLE_ORGANISATIONS + 1)
            }
        )

    report = repacked_with(WatchedSim().build(), change).audited()
    assert "AUD-049" in report.counts
    assert any(f"at most {BUNDLE_ORGANISATIONS}" in one.evidence for one in report.findings)


def test_a_settlement_under_a_minimum_of_participation_is_named_as_not_checked() -> None:
    report = told(PaysKitaAlone(incentives=FLAT | {"min_participation": "0.5"}).build()).audited()
    assert not report.counts
    assert any("hanbit nord took part enough" in one for one in report.unchecked)


def test_a_conclusion_under_a_key_that_no_grant_opens_is_named_as_not_checked() -> None:
    sim = WatchedSim().build()
    closed = (sim.names["key auditor"], "key")
    shown = [one for one in sim.contents().disclosures if (one.index, one.field) != closed]
    report = verify(sim.bundle(disclosures=shown), sim.policy)
    assert "AUD-041" not in report.counts
    assert "AUD-041: conclusions of auditors whose keys are not disclosed" in report.unchecked


def test_values_that_no_grant_opens_are_counted() -> None:
    report = told(WatchedSim().build()).audited()
    assert any("values are shown that no grant opens" in one for one in report.unchecked)


def test_what_only_another_auditors_grant_opens_is_nobodys_fault() -> None:
    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "used":
            return event
        request = digest_from("request rival")
        ordered = sim.action("anna", "rival", "audit.grant", request=request)
        pub = sim.grant_pub(
            grantee="rival-house", grant="grant_" + "b" * 16, fields=["epsilon_max"], request=request
        )
        return [ordered, Event(type=T.ACCESS_GRANTED, pub=pub), event]

    sim = WatchedSim()
    sim.tamper = tamper
    sim.build()
    told_last = max(one.index for one in sim.contents().disclosures if one.field == "epsilon_max")
    for hidden, expected in (("epsilon_max", 0), ("at", 0)):
        index = told_last if hidden == "epsilon_max" else sim.names["round 1 closed"]
        shown = [one for one in sim.contents().disclosures if (one.index, one.field) != (index, hidden)]
        report = verify(sim.bundle(disclosures=shown), sim.policy)
        assert report.counts["AUD-083"] == expected
        assert any("no grant in force opens to everybody" in one for one in report.unchecked)


def test_a_recipe_that_no_contract_names_is_not_kept() -> None:
    body = canonical({"a": [{} for _ in range(100)]})
    kept: list[History] = []

    def change(files: dict[str, bytes]) -> None:
        files[f"annexes/{digest(body).removeprefix('sha256:')}.json"] = body

    sim = WatchedSim().build()
    bundle = repacked_with(sim, change).bundle
    verify(bundle, sim.policy, then=kept.append)
    assert digest(body) not in kept[0].recipes
    assert kept[0].recipes


@pytest.fixture
def given(tmp_path: Path) -> list[str]:
    """An honest bundle with a policy, as arguments, and a folder ``receipts`` to put something in."""
    sim = WatchedSim().build()
    (tmp_path / "bundle.zip").write_bytes(sim.bundle())
    (tmp_path / "policy.txt").write_text(policy_text(sim.policy), encoding="utf-8")
    (tmp_path / "receipts").mkdir()
    paths = [str(tmp_path / name) for name in ("bundle.zip", "policy.txt", "receipts")]
    return ["verify", paths[0], "--policy", paths[1], "--receipts", paths[2], "--jobs", "1"]


def a_pipe(path: Path) -> None:
    os.mkfifo(path)


def a_device(path: Path) -> None:
    path.symlink_to("/dev/zero")


def six_gigabytes_of_nothing(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(6 * 2**30)


@pytest.mark.parametrize("put", [a_pipe, a_device, six_gigabytes_of_nothing])
def test_a_folder_of_receipts_does_not_stop_the_auditor(
    put: Callable[[Path], None], given: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    put(Path(given[5]) / "x.tlog-proof")
    assert main(given) == 2
    assert "x.tlog-proof" in capsys.readouterr().err


def test_a_failure_that_nobody_expected_is_told_in_one_form(
    given: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(options: Any) -> int:
        raise TypeError("unhashable\x1b[2J")

    monkeypatch.setattr(audit, "run", run)
    assert main([*given, "--json"]) == 1
    shown = capsys.readouterr()
    assert json.loads(shown.out)["error"]["code"] == "verify.broken"
    assert len(shown.err.splitlines()) == 1
    assert "\x1b" not in shown.err


def _killed(part: int) -> int:
    if part == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return part


def test_a_process_that_is_killed_ends_the_audit_and_not_hangs_it() -> None:
    with pytest.raises(WorkerLostError, match="killed"):
        list(in_order(_killed, [0, 1, 2, 3], 2))
