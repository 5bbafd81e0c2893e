# SPDX-License-Identifier: Apache-2.0
"""Lies about who may see what, who did what alone, what was taken back, delivered, paid and acknowledged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from policies.log.entries import EntryType, Event
from policies.ports import iso_minute
from policies.verify import verify
from policies.verify.ledger import BY_TWO
from tests.auditsim import RUN, PoolSim, digest_from, seeded
from tests.planting import Plants, Told
from tests.watchedsim import GRANT, WatchedSim

T = EntryType
PLANTS = Plants()
INCENTIVES: dict[str, Any] = {"clause": "pay-1", "method": "flat", "disclose": "own-share-only"}


def told(sim: WatchedSim, **changes: Any) -> Told:
    return Told(bundle=sim.bundle(**changes), policy=sim.policy)


def lying(name: str, **pub: Any) -> Told:
    """The story with fields of one event changed."""

    def tamper(at: str, event: Event) -> Event:
        return replace(event, pub=event.pub | pub) if at == name else event

    return told(WatchedSim(tamper=tamper).build())


def without(*names: str) -> Told:
    return told(WatchedSim(tamper=lambda at, event: None if at in names else event).build())


def behind(name: str, *events: Event) -> Told:
    """The story with more events after one."""
    return told(WatchedSim(tamper=lambda at, event: [event, *events] if at == name else event).build())


# --- grants and disclosures ---


@PLANTS.planted("AUD-081")
def a_disclosure_without_a_grant() -> Told:
    return lying("disclosed", grant="grant_" + "b" * 16)


@PLANTS.planted("AUD-081")
def a_disclosure_of_a_field_that_was_not_granted() -> Told:
    return lying("disclosed", fields=["at", "rho_nano"])


@PLANTS.planted("AUD-081")
def a_disclosure_of_an_entry_before_the_grant_begins() -> Told:
    return lying("grant", from_index=60)


@PLANTS.planted("AUD-081")
def a_disclosure_to_somebody_else() -> Told:
    return lying("disclosed", grantee="rival")


@PLANTS.planted("AUD-081")
def an_access_to_something_else() -> Told:
    return lying("used", resource="models")


@PLANTS.planted("AUD-081")
def an_access_after_the_grant_was_over() -> Told:
    return lying("grant", until=iso_minute(PoolSim().now_ms))


@PLANTS.planted("AUD-081")
def a_disclosure_after_the_grant_was_revoked() -> Told:
    sim = WatchedSim()
    ordered = sim.action("anna", "revoke", "audit.revoke")
    pub = {"grantee": "audit-house", "resource": "confidential", "grant": GRANT}
    revoked = Event(type=T.ACCESS_REVOKED, pub=pub | {"request": ordered.pub["request"]})
    return behind("used", ordered, revoked)


@PLANTS.planted("AUD-083")
def a_granted_field_is_kept_back() -> Told:
    sim = WatchedSim().build()
    index = sim.names["round 1 closed"]
    kept = [one for one in sim.contents().disclosures if (one.index, one.field) != (index, "at")]
    return told(sim, disclosures=kept)


@PLANTS.planted("AUD-087", "AUD-082")
def an_erased_value_is_shown_nevertheless() -> Told:
    sim = WatchedSim().build()
    return told(sim, disclosures=list(sim.disclosures))


@PLANTS.planted("AUD-087", "AUD-083")
def an_erasure_of_what_is_still_to_come() -> Told:
    return lying("erasure", indexes=[10_000], fields=["need"])


@PLANTS.planted("AUD-088")
def a_grant_that_no_operator_gave() -> Told:
    return without("grant action")


@PLANTS.planted("AUD-088")
def an_erasure_that_no_operator_ordered() -> Told:
    return lying("erasure action", result="refused")


@PLANTS.planted("AUD-088")
def a_bundle_that_no_operator_took() -> Told:
    gone = ("grant action", "grant", "used", "disclosed", "export action")
    return without(*gone)


def test_what_no_grant_opens_is_named_and_no_finding() -> None:
    sim = WatchedSim().build()
    granted = {"at", "got", "need", "key", "shares"}
    kept = [one for one in sim.contents().disclosures if one.field in granted]
    report = verify(sim.bundle(disclosures=kept), sim.policy)
    assert not {"AUD-082", "AUD-083"} & set(report.counts), report.lines()
    assert any("no grant in force opens" in one for one in report.unchecked)


# --- people ---


@PLANTS.planted("AUD-080")
def one_operator_approves_under_two_names() -> Told:
    return without("approve kita ben")


@PLANTS.planted("AUD-080")
def one_approver_alone() -> Told:
    return lying("onboard kita", approvers=["anna"])


@PLANTS.planted("AUD-080")
def an_approval_of_other_evidence() -> Told:
    return lying("approve kita ben", subject=digest_from("another"))


@PLANTS.planted("AUD-080")
def a_log_that_one_person_repairs() -> Told:
    return behind("incident", WatchedSim().action("anna", "the log", "log.repair"))


@pytest.mark.parametrize("action", BY_TWO)
def test_whatever_takes_two_is_found_where_one_did_it_alone(action: str) -> None:
    alone = WatchedSim().action("anna", "something", action)
    assert "AUD-080" in behind("incident", alone).audited().counts


def test_a_log_that_two_people_repair_is_clean() -> None:
    sim = WatchedSim()
    both = [sim.action(one, "the log", "log.repair") for one in ("anna", "ben")]
    assert behind("incident", *both).audited().findings == []


@PLANTS.planted("AUD-086")
def an_incident_that_nobody_closed() -> Told:
    return without("incident closed")


@PLANTS.planted("AUD-086")
def an_incident_that_is_closed_for_another_reason() -> Told:
    return lying("incident closed", evidence=digest_from("another"))


# --- what members acknowledge ---


@PLANTS.planted("AUD-055")
def a_round_that_was_closed_otherwise_before_one_member() -> Told:
    class Shown(WatchedSim):
        def ack(self, maker: Any, number: int, **changes: Any) -> Event:
            told_kita = {"leaf": "sha256:" + "0" * 64} if (maker.party, number) == ("kita", 1) else {}
            return super().ack(maker, number, **told_kita, **changes)

    return told(Shown().build())


@PLANTS.planted("AUD-055")
def a_member_that_had_sent_more_than_was_counted() -> Told:
    class Counting(WatchedSim):
        def ack(self, maker: Any, number: int, **changes: Any) -> Event:
            mine = {"count": 2} if (maker.party, number) == ("hanbit", 2) else {}
            return super().ack(maker, number, **mine, **changes)

    return told(Counting().build())


@PLANTS.planted("AUD-055")
def an_acknowledgement_of_another_entry() -> Told:
    class Pointing(WatchedSim):
        def ack(self, maker: Any, number: int, **changes: Any) -> Event:
            other = {"closed": self.names["round 1 opened"]} if number == 2 else {}
            return super().ack(maker, number, **other, **changes)

    return told(Pointing().build())


@PLANTS.planted("AUD-055", "AUD-043")
def an_acknowledgement_is_left_out() -> Told:
    return without("ack kita 1")


def test_rounds_that_nobody_acknowledges_are_named() -> None:
    sim = PoolSim().build()
    report = verify(sim.bundle(), sim.policy)
    assert report.findings == []
    assert any(one.startswith("AUD-055: 6 times") for one in report.unchecked)


@PLANTS.planted("AUD-047")
def a_node_that_lost_its_chain() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "ack kita 2":
            return event
        maker = sim.makers["kita"]
        old = maker.state
        maker.state = type(old)(chain=seeded("new chain", 8).hex())
        body = {"reason": "disk-loss", "old_chain": old.chain, "last_seq": old.next_seq - 1}
        return [event, sim.said(maker, T.CHAIN_RESET, body)]

    sim.tamper = tamper
    return told(sim.build())


def test_a_new_chain_says_what_the_log_has_of_the_old_one() -> None:
    (finding,) = PLANTS.check("a_node_that_lost_its_chain").findings
    assert "disk-loss" in finding.evidence
    assert "the log has it up to" in finding.evidence


# --- contributions, deliveries, payments ---


@PLANTS.planted("AUD-073", "AUD-052")
def a_withdrawn_update_is_averaged_all_the_same() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "aggregate decision 1":
            return event
        said = sim.said(sim.makers["kita"], T.CONTRIBUTION_WITHDRAWN, {"reason": "recall"}, run=RUN, round=1)
        return [replace(said, refs=(sim.names["submission kita 1"],)), event]

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-073", "AUD-052")
def a_rivals_update_is_withdrawn() -> Told:
    sim = WatchedSim()

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "aggregate decision 2":
            return event
        said = sim.said(sim.makers["kita"], T.CONTRIBUTION_WITHDRAWN, {"reason": "recall"}, run=RUN, round=2)
        return [replace(said, refs=(sim.names["submission hanbit 2"],)), event]

    sim.tamper = tamper
    return told(sim.build())


class _Embargoed(WatchedSim):
    """Under a contract whose tier waits ten days."""

    def _tree(self) -> dict[str, Any]:
        tree = super()._tree()
        tree["tiers"][0]["embargo_days"] = 10
        return tree


@PLANTS.planted("AUD-074", "AUD-059")
def a_delivery_under_embargo() -> Told:
    return told(_Embargoed().build())


@PLANTS.planted("AUD-074", "AUD-059")
def a_delivery_to_nobody_of_the_pool() -> Told:
    return lying("exported", recipient="deadbeefdeadbeef")


@PLANTS.planted("AUD-074", "AUD-059", "AUD-070")
def a_delivery_in_a_tier_that_the_contract_does_not_have() -> Told:
    return lying("exported", tier="open")


def paying(shares: Any = None, **changes: Any) -> Told:
    """A settlement with other shares or fields than the honest one."""
    sim = WatchedSim(incentives=INCENTIVES | changes)

    def tamper(at: str, event: Event) -> Event:
        if at != "settlement" or shares is None:
            return event
        scope = sim.contract.digest
        cut = {sim.makers[name].alias(scope): one for name, one in shares.items()}
        return sim.settlement(cut)

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-075")
def shares_that_come_to_less_than_one() -> Told:
    return paying({"hanbit": "0.3", "kita": "0.3", "nord": "0.3"})


@PLANTS.planted("AUD-075")
def flat_shares_that_are_not_flat() -> Told:
    return paying({"hanbit": "0.2", "kita": "0.4", "nord": "0.4"})


@PLANTS.planted("AUD-075")
def a_share_for_a_stranger() -> Told:
    sim = WatchedSim(incentives=INCENTIVES)
    sim.tamper = lambda at, event: sim.settlement({"deadbeefdeadbeef": "1"}) if at == "settlement" else event
    return told(sim.build())


@PLANTS.planted("AUD-075")
def shares_that_are_no_numbers() -> Told:
    sim = WatchedSim(incentives=INCENTIVES)
    sim.tamper = lambda at, event: sim.settlement("all of it") if at == "settlement" else event
    return told(sim.build())


@PLANTS.planted("AUD-075")
def another_method_than_the_contracts() -> Told:
    sim = WatchedSim(incentives=INCENTIVES)

    def tamper(at: str, event: Event) -> Event:
        return sim.settlement(sim.shares(), "none") if at == "settlement" else event

    sim.tamper = tamper
    return told(sim.build())


@PLANTS.planted("AUD-075")
def a_period_that_is_settled_twice() -> Told:
    sim = WatchedSim(incentives=INCENTIVES)

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "settlement":
            return event
        scope = sim.contract.digest
        other = {"hanbit": "0.333334", "kita": "0.333333", "nord": "0.333333"}
        cut = {sim.makers[name].alias(scope): one for name, one in other.items()}
        return [event, sim.settlement(cut)]

    sim.tamper = tamper
    return told(sim.build())


def test_a_flat_settlement_is_clean_and_a_probed_one_says_what_is_not_recomputed() -> None:
    flat = paying().audited()
    assert flat.findings == [], flat.lines()
    more = {
        "method": "group-probe-shapley",
        "formula": "cost-share/1",
        "pool_eur_per_quarter": 9_000,
        "probe_share": "0.1",
        "probe_window": 1,
    }
    probed = paying(**more).audited()
    assert probed.findings == [], probed.lines()
    assert any(one.startswith("AUD-075") for one in probed.unchecked)


@pytest.mark.parametrize("name", PLANTS.cases)
def test_a_planted_lie_about_rights_is_found_by_its_rule(name: str) -> None:
    PLANTS.check(name)
