# SPDX-License-Identifier: Apache-2.0
"""Lies about who watched and when: witnesses, quorums, times, the audit before, notes that contradict each other.

The attacker is the broker with its log key, where it says so with all witnesses on its side.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policies.encoding import digest
from policies.identity import SigningKey
from policies.log.checkpoint import Checkpoint, KeyKind, VerifierKey, sign_checkpoint
from policies.log.cosignature import cosign, cosigner_vkey, merge
from policies.log.entries import EntryType, Event
from policies.log.mldsa import MlDsaKey
from policies.log.policy import parse_policy, policy_text, pool_policy
from policies.log.witness_keys import witness_name
from policies.verify import verify
from tests.auditsim import ORIGIN, PoolSim, seeded
from tests.planting import Plants, Told
from tests.watchedsim import AUDITOR, DAY_MS, WatchedSim

T = EntryType
PLANTS = Plants()


def told(sim: WatchedSim, policy: Any = None, **options: Any) -> Told:
    return Told(bundle=sim.bundle(), policy=policy or sim.policy, options=options)


def lying(tamper: Any) -> WatchedSim:
    return WatchedSim(tamper=tamper).build()


# --- enough, safe, of the right kind ---


@PLANTS.planted("AUD-012", "AUD-059")
def a_new_history_by_who_stole_the_log_key() -> Told:
    sim = WatchedSim().build()
    return Told(bundle=sim.bundle(note=sim.signed(), notes=[sim.signed()]), policy=sim.policy)


@PLANTS.planted("AUD-012")
def two_of_four_voters() -> Told:
    sim = WatchedSim().build()
    few = sim.cosigned(sim.signed(), by=("kita", AUDITOR))
    return Told(bundle=sim.bundle(note=few, notes=[*sim.notes[:-1], few]), policy=sim.policy)


@PLANTS.planted("AUD-012", "AUD-084")
def five_keys_of_one_organisation() -> Told:
    sim = WatchedSim().build()
    owners = {name: (vkey,) for name, vkey in sim.vkeys.items()}
    keys = [SigningKey.from_seed(seeded(f"more {number}")) for number in range(4)]
    name = witness_name(sim.owners["kita"])
    owners["kita"] += tuple(cosigner_vkey(key, name) for key in keys)
    policy = pool_policy(logs=sim.policy.logs, broker=sim.policy.broker, witnesses=owners)
    note, text = sim.cosigned(sim.signed(), by=("kita", "nord")), sim.signed().split("\n\n")[0] + "\n"
    at_s = sim.now_ms // 1000
    note = merge(note, [cosign(key, name=name, text=text, time_s=at_s) for key in keys])
    bundle = sim.bundle(note=note, notes=[*sim.notes[:-1], note])
    return Told(bundle=bundle, policy=parse_policy(policy_text(policy)))


@PLANTS.planted("AUD-013")
def a_quorum_that_one_voter_could_give_twice() -> Told:
    sim = WatchedSim().build()
    groups = {name: replace(one, threshold=2) for name, one in sim.policy.groups.items()}
    return told(sim, replace(sim.policy, groups=groups))


@PLANTS.planted("AUD-013")
def a_contract_that_asks_for_more_witnesses_than_the_policy() -> Told:
    sim = WatchedSim().build()
    return told(sim, replace(sim.policy, witnesses={}, groups={}, quorum="none"))


@PLANTS.planted("AUD-013", "AUD-084")
def one_key_under_two_names() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "witness nord":
            return event
        key = replace(sim.vkeys["kita"], name=witness_name(sim.owners["nord"]))
        return replace(event, pub=event.pub | {"vkey": key.text()})

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-013")
def a_witness_key_that_the_broker_made_for_a_member() -> Told:
    sim = WatchedSim().build()
    stated = [sim.statement_of("kita", sim.broker_key), sim.statement_of("nord", sim.makers["kita"].key)]
    return Told(bundle=sim.bundle(witnesses=stated), policy=sim.policy)


@PLANTS.planted("AUD-013")
def a_statement_under_a_key_that_nobody_knows() -> Told:
    sim = WatchedSim().build()
    stranger = SigningKey.from_seed(seeded("stranger"))
    return Told(bundle=sim.bundle(witnesses=[sim.statement_of("kita", stranger)]), policy=sim.policy)


@PLANTS.planted("AUD-093")
def a_time_stamp_is_named_with_the_command_that_checks_it() -> Told:
    sim = WatchedSim().build()
    size = len(sim.bodies)
    return Told(bundle=sim.bundle(timestamps={size: b"a token"}), policy=sim.policy)


def test_the_command_for_a_time_stamp_finds_the_text_that_was_stamped() -> None:
    (finding,) = PLANTS.check("a_time_stamp_is_named_with_the_command_that_checks_it").findings
    assert finding.evidence.endswith("-CAfile TSA.pem")
    assert finding.severity == "note"


def _with_ml_dsa(*, signs: bool = True, spoil: bool = False) -> Told:
    key = MlDsaKey.from_seed(seeded("ml-dsa"))
    vkey = cosigner_vkey(key, ORIGIN)
    assert vkey.kind is KeyKind.ML_DSA_44
    sim = WatchedSim(ml_dsa="require").build()
    policy = replace(sim.policy, logs=(*sim.policy.logs, vkey))
    note, text = sim.notes[-1], sim.notes[-1].split("\n\n")[0] + "\n"
    if signs:
        of = text.replace(ORIGIN, "other.example/log") if spoil else text
        note = merge(note, [cosign(key, name=ORIGIN, text=of, time_s=sim.now_ms // 1000)])
    return Told(bundle=sim.bundle(note=note, notes=[*sim.notes[:-1], note]), policy=policy)


@PLANTS.planted("AUD-019")
def a_checkpoint_without_the_ml_dsa_signature_that_the_contract_requires() -> Told:
    return _with_ml_dsa(signs=False)


@PLANTS.planted("AUD-019")
def an_ml_dsa_signature_over_something_else() -> Told:
    return _with_ml_dsa(spoil=True)


@PLANTS.planted("AUD-019")
def a_required_ml_dsa_key_that_the_policy_does_not_have() -> Told:
    return told(WatchedSim(ml_dsa="require").build())


def test_an_ml_dsa_signature_that_holds_is_clean() -> None:
    report = _with_ml_dsa().audited()
    assert report.findings == [], report.lines()


@PLANTS.planted("AUD-014", "AUD-012")
def a_cosignature_of_another_checkpoint() -> Told:
    sim = WatchedSim().build()
    lines = sim.notes[-2].split("\n\n")[1].split("\n")[1:-1]
    note = merge(sim.signed(), [f"{line}\n" for line in lines])
    return Told(bundle=sim.bundle(note=note, notes=[*sim.notes[:-1], note]), policy=sim.policy)


# --- times ---


@PLANTS.planted("AUD-017")
def an_old_quorum() -> Told:
    sim = WatchedSim().build()
    return told(sim, as_of_ms=sim.now_ms + 11 * 60_000)


@PLANTS.planted("AUD-018")
def a_voter_who_has_not_been_there_for_days() -> Told:
    sim = WatchedSim(absent={"nord": range(60, 10_000)})

    def tamper(at: str, event: Event) -> Event:
        sim.now_ms += 2 * DAY_MS if at == "grant action" else 0
        return event

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-018", "AUD-017")
def a_voter_who_is_away_when_the_auditor_looks() -> Told:
    sim = WatchedSim().build()
    return told(sim, as_of_ms=sim.now_ms + 2 * DAY_MS)


@PLANTS.planted("AUD-091")
def an_entry_that_is_dated_back_behind_what_was_cosigned() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event:
        if at == "round 2 opened":  # the witnesses' clocks go on, the broker's stands still
            sim.clocks = dict.fromkeys(sim.owners, 3600)
        return event

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-091")
def an_entry_that_is_dated_ahead() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event:
        sim.now_ms += 3_600_000 if at == "incident" else 0
        sim.clocks = dict.fromkeys(sim.owners, -3600) if at == "incident" else sim.clocks
        return event

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-092")
def a_witness_whose_clock_goes_back() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event:
        if at == "round 2 opened":
            sim.clocks = {"kita": -250}
        return event

    sim.tamper = tamper
    return told(sim.build())


# --- the audit before, and notes beside each other ---


@PLANTS.planted("AUD-015", "AUD-100", "AUD-120")
def an_entry_of_an_audited_history_is_rewritten_with_all_witnesses_on_its_side() -> Told:
    before = WatchedSim().build()

    def tamper(at: str, event: Event) -> Event:
        return (
            replace(event, pub=event.pub | {"reason": "update.shape"}) if at == "verdict hanbit 2" else event
        )

    return told(lying(tamper), since=before.concluded)


@PLANTS.planted("AUD-015", "AUD-101", "AUD-120")
def the_end_is_cut_off_with_all_witnesses_on_its_side() -> Told:
    before, after = WatchedSim().build(), WatchedSim()
    after.begin()
    after.found()
    return told(after, since=before.concluded)


@PLANTS.planted("AUD-015")
def a_note_of_another_key() -> Told:
    sim = WatchedSim().build()
    stranger = SigningKey.from_seed(b"S" * 32)
    size = int(sim.concluded.split("\n")[1])  # type: ignore[union-attr]
    return told(sim, since=sign_checkpoint(stranger, Checkpoint(ORIGIN, size, sim.tree.root(size))))


@PLANTS.planted("AUD-120")
def no_conclusion_of_the_audit_before() -> Told:
    sim = WatchedSim(tamper=lambda at, event: None if at == "concluded" else event).build()
    return told(sim, since=sim.notes[3])


@PLANTS.planted("AUD-120")
def a_conclusion_about_another_checkpoint() -> Told:
    sim = WatchedSim().build()
    return told(sim, since=sim.notes[3])


@PLANTS.planted("AUD-041", "AUD-013")
def a_conclusion_by_a_key_that_was_never_enrolled() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event:
        if at == "witness kita":
            sim.auditor_key = SigningKey.from_seed(seeded("somebody"))
        return event

    sim.tamper = tamper
    return Told(bundle=sim.build().bundle(witnesses=[]), policy=sim.policy)


def _other_note(sim: WatchedSim, size: int) -> str:
    return sim.cosigned(sign_checkpoint(sim.log_key, Checkpoint(ORIGIN, size, bytes(32))))


@PLANTS.planted("AUD-100", "AUD-016")
def a_receipt_in_a_history_that_only_its_owner_was_shown() -> Told:
    def tamper(at: str, event: Event) -> Event:
        return (
            replace(event, pub=event.pub | {"reason": "update.shape"}) if at == "verdict hanbit 2" else event
        )

    shown, told_others = lying(tamper), WatchedSim().build()
    receipt = shown.witnessed_receipt(shown.names["verdict hanbit 2"])
    return told(told_others, receipts={"hanbit.tlog-proof": receipt})


@PLANTS.planted("AUD-100", "AUD-015", "AUD-016", "AUD-101", "AUD-120")
def two_notes_of_one_size_beyond_the_bundle() -> Told:
    short, long = WatchedSim(), WatchedSim().build()
    short.begin()
    short.found()
    size = len(long.bodies)
    receipts = {"kita.tlog-proof": long.receipt(long.names["vote kita"])}
    return told(short, since=_other_note(long, size), receipts=receipts)


@PLANTS.planted("AUD-101", "AUD-016")
def a_receipt_that_nothing_here_can_be_compared_with() -> Told:
    short, long = WatchedSim(), WatchedSim().build()
    short.begin()
    short.found()
    return told(short, receipts={"kita.tlog-proof": long.receipt(long.names["vote kita"])})


# --- what the log says of its watchers ---


@PLANTS.planted("AUD-084", "AUD-080", "AUD-013")
def a_witness_that_the_auditor_does_not_know() -> Told:
    sim = WatchedSim()
    stranger = VerifierKey("org_z/witness", SigningKey.from_seed(b"Z" * 32).public, KeyKind.COSIGNER)

    def tamper(at: str, event: Event) -> Event | list[Event]:
        more = replace(event, pub=event.pub | {"witness": stranger.name, "vkey": stranger.text()})
        return [event, more] if at == "witness nord" else event

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-084", "AUD-080")
def a_witness_that_the_log_has_removed() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "incident":
            return event
        return [event, sim.witness_event(T.WITNESS_REMOVED, "nord", digest(sim.policy_copy.encode()))]

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-084")
def a_policy_that_takes_the_place_of_none() -> Told:
    def tamper(at: str, event: Event) -> Event:
        return replace(event, pub=event.pub | {"previous": digest(b"?")}) if at == "policy nord" else event

    return told(lying(tamper))


@pytest.mark.parametrize("name", PLANTS.cases)
def test_a_planted_lie_about_the_watchers_is_found_by_its_rule(name: str) -> None:
    PLANTS.check(name)


def test_a_watched_history_is_clean_and_says_who_watched() -> None:
    sim = WatchedSim().build()
    report = verify(sim.bundle(), sim.policy, **sim.options())
    assert (report.exit_code, report.findings) == (0, []), report.lines()
    assert "witnessed 4/4 at 2026-12-07" in report.verdict
    assert report.facts["receipts_by_grade"] == {"signed": 1, "witnessed": 1}
    assert report.facts["since"] == int(sim.notes[-2].split("\n")[1])
    assert not any(one.startswith(("AUD-012", "AUD-015", "AUD-016", "AUD-017")) for one in report.unchecked)


def test_three_of_four_are_enough_and_the_verdict_says_three() -> None:
    sim = WatchedSim(absent={"nord": range(10_000)}).build()
    report = verify(sim.bundle(), sim.policy)
    assert "witnessed 3/4" in report.verdict
    assert set(report.counts) <= {"AUD-018"}, report.lines()


def test_an_auditor_who_asks_for_no_witness_is_told_what_that_leaves_open() -> None:
    sim = PoolSim().build()
    report = verify(sim.bundle(), sim.policy)
    assert report.exit_code == 0
    assert "witnesses: none required" in report.verdict
    assert any(one.startswith("AUD-012") for one in report.unchecked)
    assert any(one.startswith("AUD-015") for one in report.unchecked)


def test_a_history_without_quorum_is_not_trusted_whatever_else_is_in_it() -> None:
    report = PLANTS.cases["a_new_history_by_who_stole_the_log_key"][1]().audited()
    assert report.exit_code == 6
    assert "no quorum" in report.verdict
