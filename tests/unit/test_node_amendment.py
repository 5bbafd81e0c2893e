# SPDX-License-Identifier: Apache-2.0
"""``iriai-node contract amend`` against the broker's own application: tighten alone, change by all, and what others do."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from client.cli import app
from client.contract.amending import amend
from client.contract.notices import Notices
from client.contract.reading import fetch, fetch_envelope
from client.contract.shelf import ContractShelf
from client.contract.signing import sign
from client.contract.stopping import halt, lifecycle
from client.contract.tending import tend
from client.errors import NoSuchThingError, NotConfirmedError, NotSignedError, RemoteRefusalError
from client.membership import Member, initialise, join, membership, open_member
from client.outbox import Outbox
from client.settings import Home
from policies.contract import Contract, from_tree
from policies.contract.errors import NotASuccessorError, ProofMissingError, RefusedError
from policies.contract.lifecycle import standing
from policies.identity import SigningKey
from policies.log.entries import EntryType
from policies.ports import iso_s, to_ms
from tests.brokersim import URL, NodeSim, draft, pool
from tests.nodehouse import Street, open_street
from tests.nodesim import SeedEntropy
from tests.nodeworld import FIELDS, IN_TERM_MS, YES
from tests.succeedsim import EFFECTIVE_MS, amended, looser, reach, successor, tighten, tighter


@dataclass
class Ours:
    """This node as the broker's own simulators see one."""

    name: str
    org: str
    key: SigningKey


@dataclass
class Site:
    """Our node, two others, the broker, and a contract that all signed, in term."""

    street: Street
    home: Home
    member: Member = field(init=False)
    others: list[NodeSim] = field(init=False)
    old: Contract = field(init=False)
    told: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        initialise(self.home, entropy=SeedEntropy(b"i"), legal_name="Hanbit Automation", country="KR")
        house = self.street.house
        token = self.street.run(house.alice.invite("Hanbit Automation", "KR", "hanbit"))
        join(
            self.home,
            URL,
            token,
            clock=house.clock,
            entropy=SeedEntropy(b"join"),
            confirm=lambda _text: True,
            transport=self.street.transport,
        )
        self.member = open_member(
            self.home, clock=house.clock, entropy=SeedEntropy(b"m"), transport=self.street.transport
        )
        for who in (house.alice, house.bob):
            self.street.run(who.approve(self.member.identity.org))
        assert membership(self.member)["state"] == "active"
        self.others = self.street.run(pool(house, "nord", "iber"))
        ours = Ours("hanbit", self.member.identity.org, self.member.identity.key)
        fields = {"clause": "fields-1", "allow": sorted(FIELDS), "trade_secret": [], "personal_data": "none"}
        self.old = draft(house, [ours, *self.others], fields=fields)
        assert self.street.run(house.alice.offer(self.old)).status_code == 201
        self.all_sign(self.old)
        house.clock.ms = IN_TERM_MS
        self.work()
        assert self.shelf.get(self.old.digest).is_executed

    @property
    def shelf(self) -> ContractShelf:
        return ContractShelf(self.home, own_key=self.member.identity.key.public)

    def outbox(self) -> Outbox:
        return Outbox(
            self.home.outbox,
            key=self.member.identity.key,
            origin=self.member.broker.origin,
            clock=self.member.clock,
            entropy=SeedEntropy(b"o" + str(self.member.clock.now_ms()).encode()),
        )

    def all_sign(self, contract: Contract) -> None:
        self.sign(contract)
        for node in self.others:
            assert self.street.run(node.accept(contract)).status_code == 200
        for node in self.others:
            assert self.street.run(node.verify(contract)).status_code == 200
        self.sign(contract)

    def sign(self, contract: Contract) -> Any:
        with self.desk() as outbox:
            return sign(self.member, self.shelf, outbox, contract.digest, confirm=YES, acknowledge=YES)

    def amend(self, new: Contract | str, kind: str = "tighten", **changes: Any) -> Any:
        text = new if isinstance(new, str) else new.canonical.decode()
        with self.desk() as outbox:
            return amend(
                self.member,
                self.shelf,
                outbox,
                text,
                kind=kind,
                **({"confirm": YES, "tell": self.told.extend} | changes),
            )

    def work(self) -> list[tuple[str, dict[str, str]]]:
        with self.desk() as outbox:
            return tend(self.member, self.shelf, outbox)

    def desk(self) -> Any:
        import contextlib

        return contextlib.closing(self.outbox())

    def standing(self, contract: Contract) -> str:
        """By this node's own files."""
        now = iso_s(self.member.clock.now_ms())
        held = self.shelf.get(contract.digest)
        return standing(held.contract, Notices(self.shelf).life(held, now), now)


@pytest.fixture
def site(tmp_path: Path):
    with open_street(tmp_path / "broker") as street:
        one = Site(street, Home(tmp_path / "node"))
        yield one
        one.member.client.close()


def test_a_tightening_is_shown_proven_signed_and_taken_over(site: Site):
    new = tighter(site.old)
    answer = site.amend(new)
    assert (answer.data["state"], answer.data["kind"]) == ("finalized", "tighten")
    assert answer.data["verdict"] is not None
    shown = "\n".join(site.told)
    assert "dp-1" in shown
    assert "no looser, by the order of the terms" in shown
    held = site.shelf.get(new.digest)
    assert (held.is_executed, held.tightens) == (True, True)
    assert (site.standing(site.old), site.standing(new)) == ("ACTIVE", "PENDING")
    assert site.amend(new).data["state"] == "finalized"  # again, and nothing changes
    with site.desk() as outbox:
        assert outbox.pending() == ()  # its entry has its receipt
    site.street.run(reach(site.street.house, new))
    assert (site.standing(site.old), site.standing(new)) == ("SUPERSEDED", "ACTIVE")
    assert [one[2] for one in amended(site.street.house)] == ["tighten"]


def test_nothing_is_sent_without_a_persons_word(site: Site):
    before = len(site.street.house.entries())
    with pytest.raises(NotConfirmedError):
        site.amend(tighter(site.old), confirm=lambda _shown: False)
    assert len(site.street.house.entries()) == before
    assert tighter(site.old).digest not in site.shelf.digests()


def test_what_is_looser_is_not_sent(site: Site):
    before = len(site.street.house.entries())
    with pytest.raises(RefusedError) as raised:
        site.amend(looser(site.old))
    assert raised.value.clause == "dp-1"
    assert len(site.street.house.entries()) == before


def test_what_takes_from_a_rival_is_not_sent(site: Site):
    cap = {"clause": "dp-9", "party": "nord", "epsilon_total": "2.1", "epsilon_per_release": "2"}
    cap |= {"enforced_by": ["auditor", "broker", "gate", "node"]}
    with pytest.raises(RefusedError) as raised:
        site.amend(successor(site.old, **{"privacy.per_party": [cap]}))
    assert raised.value.clause == "dp-9"
    mine = successor(site.old, **{"privacy.per_party": [cap | {"party": "hanbit"}]})
    assert site.amend(mine).data["state"] == "finalized"  # of its own it may give up what it likes


def test_without_the_prover_what_the_order_does_not_show_is_not_sent(
    site: Site, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setitem(sys.modules, "z3", None)
    with pytest.raises(ProofMissingError) as raised:
        site.amend(successor(site.old, **{"privacy.reply_slot_ms": 500}))
    assert "change" in raised.value.remedy


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"supersedes": None, "version": 1}, NoSuchThingError),
        ({"version": 3}, NotASuccessorError),
        ({"contract_id": "ctr_" + "z" * 16}, NotASuccessorError),
        ({"supersedes": "sha256:" + "0" * 64}, RemoteRefusalError),
    ],
    ids=str,
)
def test_what_follows_nothing_is_not_sent(site: Site, wrong: dict[str, Any], error: type[Exception]):
    with pytest.raises(error):
        site.amend(from_tree(tighter(site.old).document | wrong))


def test_an_open_offer_is_countered_not_amended(site: Site):
    offered = looser(site.old)
    assert site.street.run(site.street.house.alice.offer(offered, tuple(_recipes(site)))).status_code == 201
    after = successor(offered, sign_by="2026-12-20T00:00:00Z", effective="2026-12-21T00:00:00Z")
    with pytest.raises(NotSignedError):
        site.amend(after, kind="change")


def _recipes(site: Site) -> list[bytes]:
    return [site.shelf.recipe_bytes(site.old.digest, one.recipe_digest) for one in site.old.recipes]


def test_a_change_opens_a_negotiation_that_all_sign(site: Site):
    new = looser(site.old)
    answer = site.amend(new, kind="change")
    assert answer.data["state"] == "offered"
    assert "negotiated" in "\n".join(site.told)
    assert not site.shelf.get(new.digest).is_executed
    site.all_sign(new)
    assert site.shelf.get(new.digest).is_executed
    assert site.standing(site.old) == "ACTIVE"
    site.street.run(reach(site.street.house, new))
    assert (site.standing(site.old), site.standing(new)) == ("SUPERSEDED", "ACTIVE")


def test_the_worker_takes_over_what_another_tightened_once_it_is_proven_here(site: Site):
    new = tighter(site.old)
    assert site.street.run(tighten(site.others[0], site.old, new)).status_code == 201
    assert site.work() == [("contract-final", {"contract": new.digest})]
    held = site.shelf.get(new.digest)
    assert (held.is_executed, held.tightens) == (True, True)
    data = site.member.client.get_bytes(f"/contracts/{new.digest}/verdict")
    assert b'"initiator":"nord"' in data


def test_an_own_halt_binds_under_a_tightening_of_somebody_else(site: Site):
    with site.desk() as outbox:
        halt(site.member, site.shelf, outbox, site.old.digest, code="cell.incident")
    new = tighter(site.old)
    assert site.street.run(tighten(site.others[0], site.old, new)).status_code == 201
    site.work()
    site.street.run(reach(site.street.house, new))
    assert site.standing(new) == "HALTED"
    with site.desk() as outbox:
        shown = lifecycle(site.member, site.shelf, outbox, new.digest)
    assert shown.data["standing"] == "HALTED"
    assert site.street.house.services.contracts.standing(new) == "HALTED"


def test_a_node_that_comes_late_asks_about_the_moment_at_which_it_took_effect(site: Site):
    new = tighter(site.old)
    assert site.street.run(tighten(site.others[0], site.old, new)).status_code == 201
    site.street.run(reach(site.street.house, new))
    site.street.house.clock.ms = to_ms(site.old.term.expires) + 1
    fetch(site.member, site.shelf, new.digest)
    assert fetch_envelope(site.member, site.shelf, new.digest).is_executed


def test_the_shelf_proves_it_again_when_it_is_read(site: Site, monkeypatch: pytest.MonkeyPatch):
    new = tighter(site.old)
    site.amend(new)
    path = site.shelf.folder(site.old.digest) / "envelope.json"
    path.rename(path.with_suffix(".gone"))
    with pytest.raises(RefusedError):  # without the contract that it tightens, two signatures are too few
        site.shelf.get(new.digest)


def test_the_command_says_what_it_needs(tmp_path: Path):
    runner = CliRunner()
    text = tmp_path / "next.json"
    text.write_text("{}")
    shown = runner.invoke(app, ["contract", "amend", "--help"])
    assert "--kind" in shown.output
    wrong = runner.invoke(app, ["contract", "amend", str(text), "--kind", "loosen", "--dir", str(tmp_path)])
    assert wrong.exit_code == 2


def test_the_effective_time_is_ahead_of_the_test(site: Site):
    assert site.member.clock.now_ms() < EFFECTIVE_MS
    assert site.street.house.entries(EntryType.CONTRACT_AMENDED) == []
