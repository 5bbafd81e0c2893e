# SPDX-License-Identifier: Apache-2.0
"""A broker that does alone what takes two, and says nothing of it: the log's own entries give it away.

First stories that a lying broker tells (`tests.watchedsim`), then the real broker, once honest and once with its
second person left out.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from policies.encoding import canonical, digest, parse
from policies.identity import SigningKey, key_text
from policies.log.bundle import unpack
from policies.log.cosignature import cosigner_vkey
from policies.log.entries import EntryType, Event
from policies.log.policy import parse_policy
from policies.log.vkeys import VerifierKey
from policies.verify import Report, verify
from policies.verify.ledger import BY_TWO
from tests.auditsim import ORIGIN, MakerSim, PoolSim, digest_from, repacked, seeded
from tests.brokersim import House, draft, open_house, pool
from tests.planting import Plants, Told
from tests.unit.test_witness_broker import FOUR, auditors_statement, register
from tests.watchedsim import AUDITOR, WatchedSim

T = EntryType
PLANTS = Plants()
Story = Callable[[WatchedSim], None]


@dataclass
class Lying(WatchedSim):
    """The story with something more behind the incident."""

    more: Story | None = None
    lies: Mapping[str, Mapping[str, Any]] | None = None
    drops: tuple[str, ...] = ()

    def watch(self) -> None:
        super().watch()
        if self.more is not None:
            self.more(self)

    def approve(self, name: str, action: str, what: Mapping[str, Any], *, log: str = ORIGIN) -> None:
        super().approve(name, action, dict(what) | dict((self.lies or {}).get(name, {})), log=log)

    def contents(self, **changes: Any) -> Any:
        new = MakerSim("sybil")
        known = {one.org: one.alias_key for one in (*self.makers.values(), new)}
        kept = known if "sybil" in self.names else {}
        return super().contents(**({"aliases": kept} if kept else {}) | changes)

    def add(self, name: str, event: Event) -> int | None:
        return None if name in self.drops else super().add(name, event)


def story(more: Story | None = None, **changes: Any) -> Told:
    sim = Lying(more=more, **changes).build()
    return Told(bundle=sim.bundle(), policy=sim.policy)


def without(*names: str) -> Told:
    return story(drops=names)


def lying(name: str, **what: Any) -> Told:
    return story(lies={name: what})


def found(told: Told) -> Report:
    return told.audited()


# --- contracts ---


@PLANTS.planted("AUD-080")
def a_contract_that_one_person_made_final() -> Told:
    return without("activate ben")


@PLANTS.planted("AUD-080", "AUD-013")  # an auditor's witness is its own by such a document as well
def a_contract_that_nobody_of_the_broker_approved() -> Told:
    sim = Lying(drops=("activate anna", "activate ben")).build()
    return Told(bundle=sim.bundle(approvals=[]), policy=sim.policy)


@PLANTS.planted("AUD-080")
def a_contract_in_the_place_of_the_approved_one() -> Told:
    return lying("activate", contract=digest_from("another text"))


@PLANTS.planted("AUD-080")
def a_contract_whose_approved_document_is_kept_back() -> Told:
    sim = WatchedSim().build()
    return Told(bundle=sim.bundle(approvals=sim.approvals[:-1]), policy=sim.policy)


@PLANTS.planted("AUD-080")
def an_approval_that_comes_when_the_contract_is_final() -> Told:
    def late(at: str, event: Event) -> Event | list[Event] | None:
        if at == "activate ben":
            return None
        behind = WatchedSim().action("ben", "x", "contract.activate", subject=kept[0])
        return [event, behind] if at == "finalized" else event

    kept: list[str] = []
    honest = PoolSim().build()
    kept.append(digest(honest.approvals[-1]))
    sim = PoolSim(tamper=late).build()
    return Told(bundle=sim.bundle(), policy=sim.policy)


@PLANTS.planted("AUD-080")
def a_successor_that_the_first_contracts_approval_is_to_serve() -> Told:
    sim = PoolSim(successor="change")
    sim.tamper = lambda at, event: None if at.startswith("activate again") else event
    return Told(bundle=sim.build().bundle(), policy=sim.policy)


def test_a_tightening_asks_nobody_of_the_broker() -> None:
    sim = PoolSim(successor="tighten").build()
    assert "AUD-080" not in verify(sim.bundle(), sim.policy).counts


# --- witnesses ---


@PLANTS.planted("AUD-080")
def an_auditor_whose_vote_one_person_gave() -> Told:
    return without(f"vote {AUDITOR} ben")


@PLANTS.planted("AUD-080")
def an_auditors_witness_with_another_key_than_was_approved() -> Told:
    return lying(f"vote {AUDITOR}", vkey="another")


def _leaves_and_comes_back(sim: WatchedSim) -> None:
    policy = digest(sim.policy_copy.encode())
    name = sim.vkeys[AUDITOR].name
    about = {"witness": name, "vkey": sim.vkeys[AUDITOR].text()}
    sim.approve("gone", "witness.remove", about)
    sim.add("gone", sim.witness_event(T.WITNESS_REMOVED, AUDITOR, policy))
    sim.add("between", sim.action("anna", "x", "invite.create"))
    sim.add("back", sim.witness_event(T.WITNESS_ADDED, AUDITOR, digest(b"again")))


@PLANTS.planted("AUD-080", "AUD-035")
def an_approval_that_serves_for_a_second_vote() -> Told:
    return story(_leaves_and_comes_back)


@PLANTS.planted("AUD-080", "AUD-084")
def a_voter_that_one_person_takes_away() -> Told:
    def more(sim: WatchedSim) -> None:
        sim.add("gone", sim.witness_event(T.WITNESS_REMOVED, "nord", digest(sim.policy_copy.encode())))

    return story(more)


@PLANTS.planted("AUD-080", "AUD-084", "AUD-013")
def a_strangers_witness_under_the_alias_of_a_member() -> Told:
    def more(sim: WatchedSim) -> None:
        event = sim.witness_event(T.WITNESS_ADDED, "nord", digest(sim.policy_copy.encode()))
        shown = sim.vkeys[AUDITOR]
        pub = event.pub | {"witness": shown.name, "vkey": shown.text(), "policy": digest(b"more")}
        sim.add("more", replace(event, pub=pub))

    return story(more)


def _swapped(sim: WatchedSim, old: VerifierKey, *, removed: bool = True) -> None:
    """One name, another key: `removed` is what is said to have given way."""
    fresh = cosigner_vkey(SigningKey.from_seed(seeded("of the broker")), old.name)
    pub = {"witness": old.name, "vkey": old.text(), "org": seeded("house", 8).hex()}
    pub |= {"policy": digest_from("after")}
    if removed:
        sim.add("old", Event(type=T.WITNESS_REMOVED, pub=pub))
    sim.add("new", Event(type=T.WITNESS_ADDED, pub=pub | {"vkey": fresh.text()}))


@PLANTS.planted("AUD-080", "AUD-013", "AUD-084")
def a_new_auditors_vote_in_the_place_of_one_that_never_was() -> Told:
    never = SigningKey.from_seed(seeded("never"))
    return story(lambda sim: _swapped(sim, cosigner_vkey(never, "evil-house/witness")))


@PLANTS.planted("AUD-080", "AUD-013", "AUD-084")
def a_vote_in_the_place_of_a_key_that_its_owner_does_not_have() -> Told:
    never = SigningKey.from_seed(seeded("never"))
    return story(lambda sim: _swapped(sim, cosigner_vkey(never, f"{AUDITOR}/witness")))


@PLANTS.planted("AUD-080", "AUD-013", "AUD-084")
def a_key_beside_the_one_that_has_the_vote() -> Told:
    return story(lambda sim: _swapped(sim, sim.vkeys[AUDITOR], removed=False))


# --- organisations ---


def org_change(sim: WatchedSim, kind: EntryType, reason: str = "key-lost") -> Event:
    pub = {"org": sim.makers["nord"].alias(None), "reason": reason, "request": digest_from(kind.value)}
    return Event(type=kind, pub=pub)


def revocation(sim: WatchedSim) -> Event:
    kid = digest(sim.makers["nord"].key.public)
    return Event(type=T.KEY_REVOKED, pub={"kid": kid, "reason": "key-lost", "valid_until": len(sim.bodies)})


def ended(*, approved: Mapping[str, Any] | None, left: bool = True, revoked: bool = True) -> Story:
    def more(sim: WatchedSim) -> None:
        if approved is not None:
            what = {"org": sim.makers["nord"].org, "reason": "key-lost", "left": left} | dict(approved)
            sim.approve("removal", "org.remove", what)
        sim.add("ended", org_change(sim, T.ORG_LEFT if left else T.ORG_SUSPENDED))
        if revoked:
            sim.add("revoked", revocation(sim))
        sim.add("quiet", sim.witness_event(T.WITNESS_REMOVED, "nord", digest(b"without nord")))

    return more


@PLANTS.planted("AUD-080", "AUD-084")
def a_member_that_one_person_removes() -> Told:
    return story(ended(approved=None))


@PLANTS.planted("AUD-080", "AUD-084")
def a_member_that_is_suspended_for_good_by_one_person() -> Told:
    return story(ended(approved=None, left=False))


@PLANTS.planted("AUD-080", "AUD-084")
def a_member_in_the_place_of_the_one_whose_removal_was_approved() -> Told:
    return story(ended(approved={"org": WatchedSim().makers["kita"].org}))


@PLANTS.planted("AUD-080", "AUD-084")
def a_removal_that_the_log_calls_a_wish_to_leave() -> Told:
    return story(ended(approved={"left": False}))


@PLANTS.planted("AUD-080", "AUD-041", "AUD-043")
def a_member_whose_key_alone_is_revoked() -> Told:
    return story(lambda sim: sim.add("revoked", revocation(sim)) and None)


def revocation_of(sim: WatchedSim, party: str) -> Event:
    event = revocation(sim)
    return replace(event, pub=event.pub | {"kid": digest(sim.makers[party].key.public)})


def kita_ends(sim: WatchedSim, *then: str, left: bool = True) -> None:
    """What two people approved; behind it the keys of these are revoked."""
    kita = sim.makers["kita"]
    sim.approve("removal", "org.remove", {"org": kita.org, "reason": "key-lost", "left": left})
    event = org_change(sim, T.ORG_LEFT if left else T.ORG_SUSPENDED)
    sim.add("ended", replace(event, pub=event.pub | {"org": kita.alias(None)}))
    for party in then:
        sim.add(f"revoked {party}", revocation_of(sim, party))


@PLANTS.planted("AUD-080", "AUD-041", "AUD-043")
def a_member_whose_key_goes_with_the_membership_of_another() -> Told:
    return story(lambda sim: kita_ends(sim, "nord"))


@PLANTS.planted("AUD-080", "AUD-041", "AUD-043")
def a_member_whose_key_goes_behind_that_of_another() -> Told:
    return story(lambda sim: kita_ends(sim, "kita", "nord", left=False))


def onboarded(sim: WatchedSim, evidence: str, *, key_behind: bool = True) -> None:
    """One more organisation, with a key."""
    new = MakerSim("sybil")
    pub = {"org": new.alias(None), "evidence": evidence, "approvers": ["anna", "ben"]}
    sim.add("sybil", Event(type=T.ORG_ONBOARDED, pub=pub, private={"org": new.org}))
    if not key_behind:
        sim.add("between", sim.action("anna", "x", "invite.create"))
    kid = {"role": "node", "alg": "ed25519", "kid": digest(new.key.public), "vkey": None}
    sim.add("sybil key", Event(type=T.KEY_ADDED, pub=kid, private={"key": key_text(new.key.public)}))


@PLANTS.planted("AUD-080")
def an_admission_that_serves_for_a_second_member() -> Told:
    return story(lambda sim: onboarded(sim, digest_from("kita")))


@PLANTS.planted("AUD-080")
def a_key_of_a_member_that_no_admission_stands_before() -> Told:
    def more(sim: WatchedSim) -> None:
        for name in ("anna", "ben"):
            sim.add(f"approve {name}", sim.action(name, "sybil"))
        onboarded(sim, digest_from("sybil"), key_behind=False)

    return story(more)


def test_one_more_member_on_an_admission_of_its_own_is_clean_and_what_was_read_is_not_checked() -> None:
    def more(sim: WatchedSim) -> None:
        for name in ("anna", "ben"):
            sim.add(f"approve {name}", sim.action(name, "sybil"))
        onboarded(sim, digest_from("sybil"))

    report = found(story(more))
    assert report.findings == []
    assert "AUD-080: that what let each organisation in was about it and its key" in report.unchecked


def changed_key(sim: WatchedSim, old: bytes, **fields: Any) -> Event:
    new = SigningKey.from_seed(seeded("of the broker")).public
    pub = {"role": "node", "old": digest(old), "new": digest(new)}
    return Event(type=T.KEY_ROTATED, pub=pub, private={"vkey": key_text(new)}, **fields)


@PLANTS.planted("AUD-080")
def a_members_key_that_is_changed_under_no_contract() -> Told:
    return story(lambda sim: sim.add("x", changed_key(sim, sim.makers["nord"].key.public)) and None)


@PLANTS.planted("AUD-080")
def a_log_key_that_is_changed_as_if_it_were_a_members() -> Told:
    return story(lambda sim: sim.add("x", changed_key(sim, sim.log_key.public)) and None)


@PLANTS.planted("AUD-085")
def a_members_key_that_is_changed_without_its_notice() -> Told:
    def more(sim: WatchedSim) -> None:
        event = changed_key(sim, sim.makers["nord"].key.public, scope=sim.contract.digest)
        sim.add("x", event)

    return story(more)


@PLANTS.planted("AUD-085", "AUD-043")
def a_changed_key_that_takes_the_place_of_another_members() -> Told:
    nord = digest(MakerSim("nord").key.public)

    def tamper(at: str, event: Event) -> Event | list[Event]:
        if at != "rotate kita":
            return event
        body = event.pub | {"old": nord}
        return replace(event, pub=body, actor="broker", envelope=None)

    sim = PoolSim(eventful=True, tamper=tamper).build()
    return Told(bundle=sim.bundle(), policy=sim.policy)


@PLANTS.planted("AUD-080")
def a_member_that_one_person_lets_in_again() -> Told:
    def more(sim: WatchedSim) -> None:
        sim.add("suspended", org_change(sim, T.ORG_SUSPENDED))
        sim.add("back", org_change(sim, T.ORG_REINSTATED))

    return story(more)


def test_what_two_people_end_is_clean_and_takes_the_witness_along() -> None:
    for left in (True, False):
        report = found(story(ended(approved={}, left=left)))
        assert set(report.counts) <= {"AUD-084"}, report.lines()  # the auditor's policy still names it


def test_a_suspension_takes_one() -> None:
    def more(sim: WatchedSim) -> None:
        sim.add("suspended", org_change(sim, T.ORG_SUSPENDED))

    assert found(story(more)).findings == []


def test_two_people_let_a_member_in_again() -> None:
    def more(sim: WatchedSim) -> None:
        sim.add("suspended", org_change(sim, T.ORG_SUSPENDED))
        sim.approve("back", "org.restore", {"org": sim.makers["nord"].org, "reason": "key-lost"})
        sim.add("back", org_change(sim, T.ORG_REINSTATED))

    assert found(story(more)).findings == []


# --- the log itself ---


def rotated(sim: WatchedSim) -> tuple[Event, str]:
    """The log's next key, and the digest of what two people sign for it."""
    old, new = sim.policy.logs[0], SigningKey.from_seed(seeded("next log key")).public
    vkey = replace(old, public_key=new)
    document = {"action": "log.rotate-key", "log": ORIGIN, "old": old.text(), "new": vkey.text()}
    pub = {"old": digest(old.public_key), "new": digest(new), "role": "log"}
    return Event(type=T.KEY_ROTATED, pub=pub, private={"vkey": vkey.text()}), digest(canonical(document))


@PLANTS.planted("AUD-080")
def a_log_key_that_one_person_changes() -> Told:
    return story(lambda sim: sim.add("rotated", rotated(sim)[0]) and None)


@PLANTS.planted("AUD-080")
def a_log_key_in_the_place_of_the_approved_one() -> Told:
    def more(sim: WatchedSim) -> None:
        for name in ("anna", "ben"):
            sim.add(f"rotate {name}", sim.action(name, "another key", "key.rotate"))
        sim.add("rotated", rotated(sim)[0])

    return story(more)


def test_a_log_key_that_two_people_change_is_clean() -> None:
    def more(sim: WatchedSim) -> None:
        event, subject = rotated(sim)
        for name in ("anna", "ben"):
            sim.add(f"rotate {name}", sim.action(name, "key", "key.rotate", subject=subject))
        sim.add("rotated", event)

    assert found(story(more)).findings == []


def frozen(by_two: bool) -> Told:
    sim = PoolSim().build()
    asked = {"v": 1, "action": "log.succeed", "log": ORIGIN, "successor": "pool.example/log/next"}
    asked |= {"cause": "planned", "checkpoint": None}
    for name in ("anna", "ben") if by_two else ("anna",):
        action = sim.action(name, "end", "log.succeed", subject=digest(canonical(asked)))
        sim.add(f"end {name}", action)
    pub = {"reason": "planned", "successor": "pool.example/log/next"}
    sim.add("end", Event(type=T.LOG_FROZEN, pub=pub))
    sim.publish()
    return Told(bundle=sim.bundle(), policy=sim.policy)


@PLANTS.planted("AUD-080")
def a_log_that_one_person_ends() -> Told:
    return frozen(by_two=False)


def test_a_log_that_two_people_end_is_clean() -> None:
    assert found(frozen(by_two=True)).findings == []


# --- documents ---


@pytest.mark.parametrize(
    "document",
    [
        {"action": "org.remove", "log": ORIGIN, "what": {}},
        {"action": "contract.activate", "log": "other.example/log", "what": {}},
        {"action": "contract.activate", "log": ORIGIN},
        {"action": "contract.activate", "log": ORIGIN, "what": ["contract"]},
        {"action": "contract.activate", "log": ORIGIN, "what": {"contract": {"x": 1}}},
        ["contract.activate"],
        7,
    ],
)
def test_a_document_about_something_else_allows_nothing(document: Any) -> None:
    named = digest(canonical(document))

    def tamper(at: str, event: Event) -> Event:
        return replace(event, pub=event.pub | {"subject": named}) if at.startswith("activate") else event

    sim = PoolSim(tamper=tamper).build()
    report = verify(sim.bundle(approvals=[canonical(document)]), sim.policy)
    assert set(report.counts) == {"AUD-080"}, report.lines()


def test_bytes_under_the_name_of_an_approved_document_are_found() -> None:
    sim = WatchedSim().build()
    files = unpack(sim.bundle())
    names = [one for one in files if one.startswith("approvals/")]
    files[names[0]] = files[names[1]]
    assert set(verify(repacked(files), sim.policy).counts) == {"AUD-080", "AUD-013"}


def test_a_members_view_counts_approvals_and_says_that_it_did_not_read_them() -> None:
    for drops, clean in (((), True), (("activate ben",), False)):
        sim = PoolSim(tamper=lambda at, event, drops=drops: None if at in drops else event).build()
        bundle = sim.bundle(approvals=[], grade="member")
        report = verify(bundle, sim.policy, grade="member")
        assert ("AUD-080" not in report.counts) == clean, report.lines()
        assert any("contract.activate" in one for one in report.unchecked) == clean


def test_every_entry_that_takes_two_is_tied_to_its_action() -> None:
    """Of a repair nothing but the action itself is logged; nobody of the broker terminates a contract."""
    from policies.verify import effects

    tied = set(effects._SAYS) | effects._BY_ENTRY
    assert set(BY_TWO) - tied == {"contract.terminate", "log.repair"}


@pytest.mark.parametrize("name", PLANTS.cases)
def test_a_lie_about_two_people_is_found_by_its_rule(name: str) -> None:
    PLANTS.check(name)


# --- the real broker ---


async def audited(house: House) -> list[str]:
    """What AUD-080 finds in everything."""
    answer = await house.alice.get("/operator/audit/bundle")
    assert answer.status_code == 200, answer.text
    report = verify(answer.content, parse_policy(house.services.policy))
    return [one.evidence for one in report.findings if one.id == "AUD-080"]


async def examiner(house: House) -> tuple[dict[str, Any], str]:
    """An auditor's statement, and the name of its witness."""
    key = SigningKey.from_seed(b"A" * 32)
    body = {"name": "examiner", "key": key_text(key.public)}
    assert (await house.alice.post("/operator/auditors", body)).status_code == 201
    return auditors_statement(house, key, "examiner"), "examiner/witness"


async def two(house: House, kind: str, payload: Mapping[str, Any]) -> None:
    made = await house.alice.post("/operator/proposals", {"kind": kind, "payload": dict(payload)})
    assert made.status_code == 202, made.text
    assert (await house.bob.agree(made.json()["proposal"])).status_code == 200


async def test_everything_that_the_broker_does_by_two_is_clean(tmp_path: Path) -> None:
    async with open_house(tmp_path / "b") as house:
        nodes = await pool(house, *FOUR)
        await register(*nodes)
        contract = draft(house, nodes[:3])
        assert (await house.alice.offer(contract)).status_code == 201
        for step in ("accept", "verify"):
            for node in nodes[:3]:
                assert (await getattr(node, step)(contract)).status_code == 200
        said, name = await examiner(house)
        proposal = (await house.alice.post("/witness/keys", said)).json()["proposal"]
        assert (await house.bob.agree(proposal)).status_code == 200
        path = f"/operator/organisations/{nodes[3].org}/suspend"
        assert (await house.alice.post(path, {"reason": "test"})).status_code == 200
        await two(house, "org.restore", {"org": nodes[3].org, "reason": "test"})
        await two(house, "witness.remove", {"witness": name, "reason": "left"})
        assert (await house.remove(nodes[3].org, left=True)).status_code == 200
        kinds = house.kinds()
        assert {"contract.finalized", "witness.added", "org.reinstated", "org.left"} <= set(kinds)
        assert kinds.count("witness.removed") == 2
        assert await audited(house) == []
        answer = await nodes[0].get("/audit/bundle?grade=member")
        report = verify(answer.content, parse_policy(house.services.policy), grade="member")
        assert "AUD-080" not in report.counts, report.lines()
        shown = [data for name, data in unpack(answer.content).items() if name.startswith("approvals/")]
        kinds = sorted(parse(data)["action"] for data in shown)  # neither who was removed nor who came back
        assert kinds == ["contract.activate", "witness.add", "witness.remove"]


async def test_a_broker_that_leaves_its_second_person_out_is_found(tmp_path: Path) -> None:
    """The services' own functions, called without anybody's approval."""
    async with open_house(tmp_path / "b") as house:
        house.second_person = False
        nodes = await pool(house, *FOUR)
        contract = draft(house, nodes[:3])
        assert (await house.alice.offer(contract)).status_code == 201
        for step in ("accept", "verify"):
            for node in nodes[:3]:
                assert (await getattr(node, step)(contract)).status_code == 200
        said, name = await examiner(house)
        assert (await house.alice.post("/witness/keys", said)).status_code == 200
        services = house.services
        (waiting,) = house.waiting("contract.activate")

        def alone(session: Any, tx: Any) -> None:
            services.negotiations.activate(session, tx, waiting["what"]["negotiation"], contract.digest)
            services.witnessing.keys.add(session, tx, name)
            request = digest_from("request")
            services.membership.remove(session, tx, org=nodes[3].org, reason="test", request=request)

        await services.writer.run(alone)
        services.witnessing.load()
        texts = await audited(house)
        actions = ("contract.activate", "org.remove", "witness.add")
        assert sorted(texts) == [f"no {one} of this by two operators before it" for one in actions]
