# SPDX-License-Identifier: Apache-2.0
"""Halt, resume, exit and attest at a node: what its own files say, with a broker and without one."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete
from typer.testing import CliRunner

from broker.store.tables import contract_notice
from client.cli import life as cli_life
from client.cli import options as cli_options
from client.cli.options import Open
from client.contract import stopping
from client.contract.notices import Notices
from client.contract.posting import keep_up
from client.contract.shelf import ContractShelf
from client.contract.signing import sign
from client.contract.stopping import attest, halt, leave, lifecycle, resume
from client.errors import (
    LocalRefusedError,
    NotConfirmedError,
    NoticesRewrittenError,
    NoticesUnknownError,
    PeerUnreachableError,
)
from client.membership import Member, initialise, join, membership, open_member
from client.outbox import Outbox
from client.settings import Home
from policies.contract import Contract
from policies.contract.errors import (
    HaltedError,
    LifecycleError,
    NotExecutedError,
    NoticeMalformedError,
    RefusedError,
)
from policies.contract.lifecycle import standing
from policies.contract.notices import Notice, seal_notice
from policies.exchange import ExchangeType
from policies.identity import SigningKey
from policies.log.entries import EntryType
from policies.ports import iso_s, to_ms
from tests.brokersim import URL, NodeSim, draft, pool
from tests.nodehouse import Street, open_street
from tests.nodesim import SeedEntropy
from tests.nodeworld import FIELDS, YES, World, kinds, ready_world
from tests.noticespeech import say

# --- the guard, with no network at all ---


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    one = ready_world(tmp_path)
    one.ask(ExchangeType.PING)  # admits the run: the signatures are fetched
    one.broker.down = True
    yield one
    one.worker.close()


def folder(world: World) -> Path:
    return world.home.contracts / world.contract.digest.removeprefix("sha256:") / "notices"


def stop(world: World, **terms: Any) -> Any:
    return halt(
        world.member,
        world.shelf(),
        world.worker.outbox,
        world.contract.digest,
        **({"code": "cell.incident"} | terms),
    )


def refused(world: World, **asked: Any) -> tuple[str | None, tuple[str, ...]]:
    _, reply = world.ask(**asked)
    assert reply.status == "refused"
    (kept, *_) = world.worker.outbox.left.decisions()
    return reply.code, kept.clauses


def test_a_round_is_trained_before_the_halt_and_refused_after_it_with_no_network(world: World) -> None:
    _, reply = world.ask()
    assert reply.status == "ok"
    answer = stop(world, clause="fields-1", text="a camera saw a face")
    assert answer.data["notices"][0]["broker"] == "not sent yet"
    assert answer.data["standing"] == "HALTED"
    assert refused(world, round=2) == ("contract.halted", ("halt-1",))
    assert world.pulled == 0
    assert len(world.learner.trained) == 1


def test_a_halt_survives_the_worker(world: World) -> None:
    stop(world)
    world.restart()
    assert refused(world)[0] == "contract.halted"


def test_a_halt_by_another_process_is_seen_by_the_running_guard(world: World) -> None:
    assert world.ask()[1].status == "ok"
    other = ContractShelf(world.home, own_key=world.member.identity.key.public)
    outbox = world.outbox()
    halt(world.member, other, outbox, world.contract.digest, code="cell.incident")
    outbox.close()
    assert refused(world, round=2)[0] == "contract.halted"


def test_a_halt_stops_judging_too(world: World) -> None:
    stop(world)
    _, reply = world.ask(ExchangeType.JUDGE)
    assert (reply.status, reply.code) == ("refused", "contract.halted")


def test_an_update_that_was_trained_while_somebody_halted_stays_here(world: World) -> None:
    honest = world.learner.update

    def update(*arguments: Any, **named: Any) -> Any:
        found = honest(*arguments, **named)
        stop(world)
        return found

    world.learner.update = update
    answer, reply = world.ask()
    assert (reply.status, reply.code, answer.tensor) == ("refused", "contract.halted", None)
    assert "epsilon.spent" in kinds(reply)  # what was spent is told
    assert "submission.received" not in kinds(reply)


def test_who_left_trains_no_more_also_before_anybody_heard(world: World) -> None:
    leave(
        world.member,
        world.shelf(),
        world.worker.outbox,
        world.contract.digest,
        choice="retrain",
        code="party.leaves",
        confirm=YES,
        tell=lambda _lines: None,
    )
    code, clauses = refused(world)
    assert code == "contract.refused"
    assert "party-kita" in clauses


@pytest.mark.parametrize("damage", ["missing", "not json", "other schema", "lost notice", "changed notice"])
def test_what_is_lost_or_damaged_is_unknown_and_refuses(world: World, damage: str) -> None:
    if damage in ("lost notice", "changed notice"):
        said = foreign(world)
        known = Notices(world.shelf())
        known.learn(world.shelf().get(world.contract.digest), [said[0].digest], [said[1]])
        file = folder(world) / f"{said[0].digest.removeprefix('sha256:')}.json"
        file.unlink() if damage == "lost notice" else file.write_bytes(file.read_bytes()[:-1] + b" ")
        with pytest.raises(NoticesUnknownError):
            stop(world)
    elif damage == "missing":
        shutil.rmtree(folder(world))
    else:
        text = b"{" if damage == "not json" else b'{"schema":"iriai-notices-taken/2","taken":[]}'
        (folder(world) / "taken.json").write_bytes(text)
    code, clauses = refused(world)
    assert code == "contract.refused"
    assert {"conflict-1", "halt-1", "party-kita"} <= set(clauses)  # none of it is known, and each refuses


def foreign(world: World, name: str = "nord", *, key: SigningKey | None = None) -> tuple[Notice, Any]:
    said = Notice(
        kind="halt",
        contract=world.contract.digest,
        party=name,
        seq=1,
        at=iso_s(world.clock.ms),
        code="log.disputed",
    )
    return said, seal_notice(said, key or world.keys[name])


def test_a_halt_of_another_party_counts_once_it_verifies(world: World) -> None:
    said, envelope = foreign(world)
    Notices(world.shelf()).learn(world.shelf().get(world.contract.digest), [said.digest], [envelope])
    assert refused(world)[0] == "contract.halted"


def test_a_notice_that_its_party_did_not_sign_is_not_taken_over(world: World) -> None:
    said, envelope = foreign(world, key=world.keys["iber"])
    held = world.shelf().get(world.contract.digest)
    with pytest.raises(Exception, match=r"identity\.signature-invalid"):
        Notices(world.shelf()).learn(held, [said.digest], [envelope])
    assert world.ask()[1].status == "ok"


def test_an_order_that_takes_something_back_is_refused_and_the_halt_stays(world: World) -> None:
    said, envelope = foreign(world)
    held, notices = world.shelf().get(world.contract.digest), Notices(world.shelf())
    notices.learn(held, [said.digest], [envelope])
    with pytest.raises(NoticesRewrittenError):
        notices.learn(held, [], [])
    assert refused(world)[0] == "contract.halted"


def test_a_site_rule_is_named_only_where_the_contract_does_not_refuse(world: World) -> None:
    world.rules(paused=True)
    _, reply = world.ask(ExchangeType.JUDGE)
    assert reply.code == LocalRefusedError.code
    stop(world)
    _, reply = world.ask(ExchangeType.JUDGE)
    assert reply.code == HaltedError.code


def test_two_commands_cannot_give_two_notices_one_number(world: World) -> None:
    stop(world)
    with pytest.raises(LifecycleError):  # a second halt is void while the first one is open
        stop(world, code="log.disputed")
    where = (world.member, world.shelf(), world.outbox(), world.contract.digest)
    line = attest(*where, use="test", country="JP")
    held = world.shelf().get(world.contract.digest)
    assert line.data["notices"][0]["seq"] == 2
    assert [one.seq for one in Notices(world.shelf()).unsent(held)] == [1, 2]


def test_an_absent_party_is_asked_out_by_name_and_nothing_happens_before_all_said_so(world: World) -> None:
    told: list[str] = []
    line = leave(
        world.member,
        world.shelf(),
        world.outbox(),
        world.contract.digest,
        choice="retrain",
        code="party.absent",
        confirm=lambda _digest: True,
        tell=told.extend,
        absent="nord",
    )
    held = world.shelf().get(world.contract.digest)
    (said,) = Notices(world.shelf()).unsent(held)
    assert (said.kind, said.party, said.subject) == ("exit", held.party.party, "nord")
    life = Notices(world.shelf()).life(held)
    assert (dict(life.exited), life.asked_out) == ({}, {("nord", "retrain"): (held.party.party,)})
    assert any("nord leaves once each of" in one for one in told)
    assert line.data["standing"] == "ACTIVE"


def test_a_clock_that_went_back_does_not_keep_this_node_from_stopping(world: World) -> None:
    attest(world.member, world.shelf(), world.outbox(), world.contract.digest, use="test", country="JP")
    world.clock.ms -= 20_000
    stop(world)
    held = world.shelf().get(world.contract.digest)
    first, second = Notices(world.shelf()).unsent(held)
    assert (second.kind, second.at) == ("halt", first.at)


# --- with the real broker ---


@dataclass
class Here:
    """One real node, three simulated ones, the broker between them."""

    street: Street
    home: Home
    member: Member
    shelf: ContractShelf
    outbox: Outbox
    contract: Contract
    others: dict[str, NodeSim]

    @property
    def digest(self) -> str:
        return self.contract.digest

    def lines(self, work: Any, **terms: Any) -> Any:
        return work(self.member, self.shelf, self.outbox, self.digest, **terms)

    def says(self, name: str, kind: str, **terms: Any) -> Any:
        return self.street.run(say(self.others[name], self.contract, kind, **terms))

    def broker_life(self) -> Any:
        return self.street.house.services.contracts.life(self.contract)

    def stands(self) -> str:
        held = self.shelf.get(self.digest)
        now = iso_s(self.street.house.clock.ms)
        return standing(self.contract, Notices(self.shelf).life(held), now)

    def cut(self, *, off: bool) -> None:
        """The wire between node and broker."""
        self.member.client._http._transport = Dead() if off else self.street.transport


class Dead:
    """Nothing answers."""

    def handle_request(self, _request: Any) -> Any:
        import httpx

        raise httpx.ConnectError("nobody")

    def close(self) -> None:
        """Nothing to close."""


class Broken:
    """Something answers that is no broker."""

    def handle_request(self, _request: Any) -> Any:
        import httpx

        return httpx.Response(200, content=b"[]")

    def close(self) -> None:
        """Nothing to close."""


@dataclass
class Ours:
    """This node as the broker's simulators see one."""

    name: str
    org: str
    key: SigningKey


@dataclass(frozen=True)
class Ground:
    """What every test starts from: made once, copied for each."""

    folder: Path
    contract: Contract
    others: dict[str, NodeSim]


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Ground:
    folder = tmp_path_factory.mktemp("ground")
    with open_street(folder / "broker") as street:
        home = Home(folder / "node")
        initialise(home, entropy=SeedEntropy(b"i"), legal_name="Kita GmbH", country="DE")
        token = street.run(street.house.alice.invite("Kita GmbH", "DE", "kita"))
        join(
            home,
            URL,
            token,
            clock=street.house.clock,
            entropy=SeedEntropy(b"j"),
            confirm=lambda _text: True,
            transport=street.transport,
        )
        member = opened(home, street, b"m")
        for who in (street.house.alice, street.house.bob):
            street.run(who.approve(member.identity.org))
        membership(member)
        others = street.run(pool(street.house, "nord", "iber", "hanbit"))
        ours = Ours("kita", member.identity.org, member.identity.key)
        fields = {"clause": "fields-1", "allow": sorted(FIELDS), "trade_secret": [], "personal_data": "none"}
        contract = draft(street.house, [ours, *others], fields=fields)  # type: ignore[list-item]
        street.run(street.house.alice.offer(contract))
        shelf = ContractShelf(home, own_key=member.identity.key.public)
        outbox = outbox_of(home, member)
        agree = {"confirm": YES, "acknowledge": YES}
        sign(member, shelf, outbox, contract.digest, **agree)
        for one in others:
            assert street.run(one.accept(contract)).status_code == 200
        sign(member, shelf, outbox, contract.digest, **agree)
        for one in others:
            assert street.run(one.verify(contract)).status_code == 200
        sign(member, shelf, outbox, contract.digest, **agree)
        outbox.close()
        member.client.close()
    return Ground(folder, contract, {one.name: one for one in others})


def opened(home: Home, street: Street, seed: bytes) -> Member:
    return open_member(home, clock=street.house.clock, entropy=SeedEntropy(seed), transport=street.transport)


def outbox_of(home: Home, member: Member) -> Outbox:
    return Outbox(
        home.outbox,
        key=member.identity.key,
        origin=member.broker.origin,
        clock=member.clock,
        entropy=SeedEntropy(str(home.root).encode()),
    )


@pytest.fixture
def here(ground: Ground, tmp_path: Path) -> Iterator[Here]:
    shutil.copytree(ground.folder, tmp_path, dirs_exist_ok=True)
    with open_street(tmp_path / "broker") as street:
        house, home = street.house, Home(tmp_path / "node")
        house.clock.ms = to_ms(ground.contract.term.effective)
        house.alice.entropy = SeedEntropy(b"alice again")
        member = opened(home, street, b"again")
        others = {}
        for name, old in ground.others.items():
            one = others[name] = NodeSim(house, name)
            one.alias_key, one.chain, one.entropy = old.alias_key, old.chain, SeedEntropy(name.encode())
        outbox = outbox_of(home, member)
        shelf = ContractShelf(home, own_key=member.identity.key.public)
        yield Here(street, home, member, shelf, outbox, ground.contract, others)
        outbox.close()


def test_a_halt_is_taken_by_the_broker_with_its_entry_and_receipt(here: Here) -> None:
    answer = here.lines(halt, code="cell.incident", clause="fields-1")
    assert [one["broker"] for one in answer.data["notices"]] == ["taken"]
    assert here.broker_life().halts[0].party == "kita"
    stored = here.outbox.find(f"contract.halted {answer.data['notices'][0]['digest']}")
    assert stored is not None
    assert stored.receipt is not None
    assert next(one.kind for one in here.outbox.left.sent()) == "contract.halted"


def test_a_halt_without_a_wire_is_sent_by_the_worker_later(here: Here) -> None:
    here.cut(off=True)
    answer = here.lines(halt, code="cell.incident")
    assert "the broker is away" in answer.text[-1]
    assert here.stands() == "HALTED"
    assert here.broker_life().halts == ()
    with pytest.raises(PeerUnreachableError):
        keep_up(here.member, here.shelf, here.outbox)
    here.cut(off=False)
    told = keep_up(here.member, here.shelf, here.outbox)
    assert [event for event, _ in told] == ["notice-taken"]
    assert len(here.broker_life().halts) == 1
    assert keep_up(here.member, here.shelf, here.outbox) == []


def test_the_notices_of_others_arrive_with_the_next_turn(here: Here) -> None:
    assert here.says("nord", "halt").status_code == 200
    assert here.stands() == "ACTIVE"
    (told,) = keep_up(here.member, here.shelf, here.outbox)
    assert told == ("contract-stands", {"contract": here.digest, "standing": "HALTED"})
    assert here.stands() == "HALTED"
    shown = here.lines(lifecycle)
    assert shown.data["waiting_for"] == {shown.data["halts"][0]: ["hanbit", "iber", "kita", "nord"]}
    assert any("by nord" in line for line in shown.text)


def test_a_resume_names_every_open_halt_and_the_last_one_lifts_it(here: Here) -> None:
    first = here.says("nord", "halt").json()["halts"][0]
    both = here.says("iber", "halt").json()["halts"]
    answer = here.lines(resume, code="cause.removed")
    assert [one["broker"] for one in answer.data["notices"]] == ["taken", "taken"]
    for name in here.others:
        for one in both:
            assert here.says(name, "resume", refers=one).status_code == 200
    assert first in both
    keep_up(here.member, here.shelf, here.outbox)
    assert here.stands() == "ACTIVE"
    with pytest.raises(LifecycleError):
        here.lines(resume, code="cause.removed")


def test_an_exit_shows_what_follows_by_clause_and_does_nothing_without_a_yes(here: Here) -> None:
    shown: list[str] = []
    terms = {"choice": "retrain", "code": "party.leaves", "tell": shown.extend}
    with pytest.raises(NotConfirmedError):
        here.lines(leave, confirm=lambda _shown: False, **terms)
    assert here.broker_life().exited == {}
    assert {line.split("]")[0] for line in shown} >= {"[exit-1", "[k-1", "[dp-1", "[party-kita"}
    assert "3 groups" in next(line for line in shown if line.startswith("[k-1]"))
    answer = here.lines(leave, confirm=YES, **terms)
    assert set(here.broker_life().exited) == {"kita"}
    assert any("receipt export" in line for line in answer.text)
    assert any(str(here.home.contracts) in line for line in answer.text)


def test_an_exit_that_the_contract_refuses_is_refused_before_anything_is_signed(here: Here) -> None:
    with pytest.raises(RefusedError) as caught:
        here.lines(leave, choice="discard", code="x.y", confirm=YES, tell=lambda _lines: None)
    assert caught.value.clause == "exit-1"
    assert Notices(here.shelf).unsent(here.shelf.get(here.digest)) == ()


@pytest.mark.parametrize("kind", ["resume", "exit"])
def test_a_notice_that_the_log_refuses_has_no_effect_at_the_broker_and_the_command_says_so(
    here: Here, kind: str
) -> None:
    backup = (here.home.outbox).read_bytes()
    assert here.lines(halt, code="cell.incident").data["failed"] is None
    here.outbox.close()
    here.home.outbox.write_bytes(backup)  # planted: an outbox from before, so that the number is used
    here.outbox = outbox_of(here.home, here.member)
    before = here.street.run(here.others["nord"].get(f"/contracts/{here.digest}/lifecycle")).json()
    if kind == "resume":
        answer = here.lines(resume, code="cause.removed")
    else:
        terms = {"choice": "retrain", "code": "party.leaves", "tell": lambda _lines: None}
        answer = here.lines(leave, confirm=YES, **terms)
    row = answer.data["notices"][0]
    assert (answer.exit_code, row["broker"]) == (7, "not taken: log.slot-taken")
    assert answer.data["failed"]["code"] == "log.slot-taken"
    assert any("counts here from now on" in line for line in answer.text)
    assert any("compare it with the receipts" in line for line in answer.text)
    after = here.street.run(here.others["nord"].get(f"/contracts/{here.digest}/lifecycle")).json()
    assert after == before
    assert here.broker_life().exited == {}
    assert [one.digest for one in Notices(here.shelf).unsent(here.shelf.get(here.digest))] == [row["digest"]]


def test_a_notice_that_was_taken_is_said_to_be_although_a_later_step_failed(here: Here) -> None:
    post = here.member.client.post

    def then_dead(*arguments: Any, **options: Any) -> Any:
        found = post(*arguments, **options)
        here.member.client._http._transport = Broken()
        return found

    here.member.client.post = then_dead  # type: ignore[method-assign]
    answer = here.lines(halt, code="cell.incident")
    assert (answer.data["notices"][0]["broker"], answer.data["failed"]["code"]) == ("taken", "peer.answer")
    assert answer.exit_code == 5
    assert any("the broker has it" in line for line in answer.text)
    assert len(here.broker_life().halts) == 1


def test_an_attestation_is_with_the_broker_and_counts(here: Here) -> None:
    answer = here.lines(attest, use="weld-inspection", country="JP")
    assert answer.data["notices"][0]["broker"] == "taken"
    found = here.street.house.services.contracts.life(here.contract).attested.get("kita")
    assert (found.use, found.country) == ("weld-inspection", "JP")


def test_a_halt_that_came_after_the_end_is_void_taken_and_the_numbers_go_on(here: Here) -> None:
    here.cut(off=True)
    here.lines(halt, code="cell.incident")
    for name in ("nord", "iber"):
        assert here.says(name, "exit", choice="retrain").status_code == 200
    here.cut(off=False)
    told = dict(keep_up(here.member, here.shelf, here.outbox))
    assert told["notice-void"]["code"] == "contract.notice-void"
    assert here.stands() == "TERMINATED"
    answer = here.lines(attest, use="weld-inspection", country="JP")
    assert answer.data["notices"][0] | {"digest": ""} == {
        "kind": "attest",
        "seq": 2,
        "broker": "taken",
        "digest": "",
    }
    with pytest.raises(LifecycleError):
        here.lines(halt, code="cell.incident")


def test_what_a_lost_reply_held_goes_along_so_that_the_number_fits(here: Here) -> None:
    body = {"point": "node", "outcome": "refuse", "clauses": ["dp-1"], "decision": "sha256:" + "5" * 64}
    run = here.street.run(
        here.street.house.alice.post("/operator/runs", {"contract": here.digest, "recipe": "pick"})
    ).json()["run"]
    with here.outbox.writing() as letters:
        letters.seal("decision.recorded", body=body, scope=here.digest, run=run, round=1)
    answer = here.lines(halt, code="cell.incident")
    assert answer.data["notices"][0]["broker"] == "taken"
    entries = here.street.house.entries()
    assert [one.type for one in entries[-2:]] == [EntryType.DECISION_RECORDED, EntryType.CONTRACT_HALTED]
    assert here.outbox.pending() == ()


def test_a_broker_that_lost_notices_is_caught_and_reported(here: Here) -> None:
    here.lines(attest, use="weld-inspection", country="JP")
    with here.street.house.services.store.main.begin() as session:
        session.execute(delete(contract_notice))
    told = keep_up(here.member, here.shelf, here.outbox)
    assert told == [("notices-wait", {"contract": here.digest, "code": "contract.notices-rewritten"})]


def test_a_person_restores_a_folder_that_was_lost(here: Here) -> None:
    here.says("nord", "halt")
    keep_up(here.member, here.shelf, here.outbox)
    held = here.shelf.get(here.digest)
    shutil.rmtree(here.shelf.folder(here.digest) / "notices")
    (told,) = keep_up(here.member, here.shelf, here.outbox)
    assert told[1]["code"] == "contract.notices-unknown"  # the worker does not do it by itself
    assert Notices(here.shelf).state(held, iso_s(here.street.house.clock.ms)).halted is None
    with pytest.raises(NoticesUnknownError):
        here.lines(lifecycle)
    shown = here.lines(lifecycle, restore=True)
    assert shown.data["standing"] == "HALTED"
    assert here.stands() == "HALTED"


def test_a_damaged_own_notice_is_put_aside_by_the_restore(here: Here) -> None:
    here.cut(off=True)
    here.lines(halt, code="cell.incident")
    here.cut(off=False)
    (file,) = [one for one in folder_of(here).glob("*.json") if one.name != "taken.json"]
    file.write_bytes(b"{}")
    here.lines(lifecycle, restore=True)
    assert here.stands() == "ACTIVE"
    assert [one.name for one in (folder_of(here) / "rejected").iterdir()] == [file.name]


@pytest.mark.parametrize(
    ("terms", "named"),
    [
        ({"clause": "nix-1"}, "fields-1"),
        ({"clause": "Fields 1"}, "fields-1"),
        ({"code": "Cell Incident"}, "--reason"),
        ({"text": "two\nlines"}, "--text"),
        ({"text": "x" * 501}, "500"),
    ],
)
def test_a_halt_with_a_bad_term_says_what_would_fit_and_keeps_nothing(
    here: Here, terms: dict[str, str], named: str
) -> None:
    with pytest.raises(NoticeMalformedError) as caught:
        here.lines(halt, **({"code": "cell.incident"} | terms))
    assert named in caught.value.need
    assert "nothing was said" in caught.value.remedy
    assert [one.name for one in folder_of(here).glob("*.json")] == ["taken.json"]
    assert here.lines(lifecycle).data["standing"] == "ACTIVE"
    assert here.lines(halt, code="cell.incident").data["notices"][0] | {"digest": ""} == {
        "kind": "halt",
        "seq": 1,
        "broker": "taken",
        "digest": "",
    }


def test_an_exit_with_a_bad_reason_asks_nobody(here: Here) -> None:
    def confirm(_shown: str) -> bool:
        raise AssertionError

    with pytest.raises(NoticeMalformedError):
        here.lines(leave, choice="retrain", code="Bye", confirm=confirm, tell=lambda _lines: None)


def planted(here: Here, **terms: Any) -> Notice:
    """An own notice that an older version, or a copy of the folder, left there: signed, and never taken."""
    base = {"kind": "halt", "contract": here.digest, "party": "kita", "seq": 1, "code": "cell.incident"}
    said = Notice(**(base | {"at": iso_s(here.street.house.clock.ms)} | terms))
    sealed = seal_notice(said, here.member.identity.key)
    (folder_of(here) / f"{said.digest.removeprefix('sha256:')}.json").write_bytes(sealed.to_bytes())
    return said


def test_an_own_notice_that_is_invalid_refuses_all_until_a_person_restores(here: Here) -> None:
    said = planted(here, clause="nix-1")
    held, now = here.shelf.get(here.digest), iso_s(here.street.house.clock.ms)
    for command in (lifecycle, halt, resume):
        with pytest.raises(NoticesUnknownError):
            here.lines(command, **({} if command is lifecycle else {"code": "cell.incident"}))
    assert Notices(here.shelf).state(held, now).halted is None  # unknown: the guard refuses
    shown = here.lines(lifecycle, restore=True)
    assert shown.data["standing"] == "ACTIVE"
    (aside,) = shown.data["rejected"]
    assert (aside["kind"], "nix-1" in aside["found"]) == ("halt", True)
    assert any("notices/rejected/" in line for line in shown.text)
    assert [one.name for one in (folder_of(here) / "rejected").iterdir()] == [f"{said.digest[7:]}.json"]
    assert here.lines(lifecycle).data["rejected"] == []
    assert here.lines(halt, code="cell.incident").data["notices"][0]["broker"] == "taken"


def test_an_own_notice_whose_number_the_broker_took_for_another_is_put_aside(here: Here) -> None:
    here.lines(attest, use="weld-inspection", country="JP")
    planted(here, code="log.disputed")
    with pytest.raises(NoticesUnknownError):
        here.lines(lifecycle)
    shown = here.lines(lifecycle, restore=True)
    assert [one["kind"] for one in shown.data["rejected"]] == ["halt"]
    assert here.stands() == "ACTIVE"


def test_a_restore_keeps_a_good_halt_that_nobody_took_and_sends_it(here: Here) -> None:
    here.cut(off=True)
    here.lines(halt, code="cell.incident")
    (folder_of(here) / "taken.json").write_bytes(b"{")
    here.cut(off=False)
    shown = here.lines(lifecycle, restore=True)
    assert (shown.data["standing"], shown.data["rejected"], shown.data["unsent"]) == ("HALTED", [], [])
    assert len(here.broker_life().halts) == 1


def test_without_the_broker_a_restore_changes_nothing(here: Here) -> None:
    planted(here, clause="nix-1")
    here.cut(off=True)
    with pytest.raises(NoticesUnknownError):
        here.lines(lifecycle, restore=True)
    assert not (folder_of(here) / "rejected").exists()


def test_the_signatures_that_came_a_moment_ago_are_fetched_by_the_command(here: Here) -> None:
    (here.shelf.folder(here.digest) / "envelope.json").unlink()
    here.shelf = ContractShelf(here.home, own_key=here.member.identity.key.public)
    assert here.lines(lifecycle).data["standing"] == "ACTIVE"


def test_an_offer_says_whom_it_waits_for_and_never_to_refuse_it(tmp_path: Path) -> None:
    world = World(tmp_path)
    world.add_data()
    world.sign()
    work = (world.member, world.shelf(), world.outbox(), world.contract.digest)
    with pytest.raises(NotExecutedError) as caught:
        lifecycle(*work)
    assert "contract refuse" not in caught.value.remedy
    assert "contract list" in caught.value.remedy
    assert "signatures" in caught.value.found or "waits for" in caught.value.found
    world.broker.down = True
    with pytest.raises(NotExecutedError):
        lifecycle(*work)
    work[2].close()


def folder_of(here: Here) -> Path:
    return here.shelf.folder(here.digest) / "notices"


def test_commands_find_a_contract_by_its_first_digits_without_a_wire(here: Here) -> None:
    here.cut(off=True)
    first = here.digest.removeprefix("sha256:")[:12]
    answer = stopping.halt(here.member, here.shelf, here.outbox, first, code="cell.incident")
    assert answer.data["contract"] == here.digest
    assert json.loads((folder_of(here) / "taken.json").read_bytes())["taken"] == []


def test_each_command_of_the_line_does_its_work(here: Here, monkeypatch: pytest.MonkeyPatch) -> None:
    @contextmanager
    def opened_here(_folder: Path) -> Iterator[Open]:
        yield Open(home=here.home, member=here.member, shelf=here.shelf, outbox=here.outbox)

    monkeypatch.setattr(cli_options, "opened", opened_here)

    def line(*words: str) -> dict[str, Any]:
        found = CliRunner().invoke(cli_life.contract, [*words, "--json"])
        assert found.exit_code == 0, (found.stdout, found.stderr)
        return dict(json.loads(found.stdout)["data"])

    first = here.digest[:19]
    assert line("attest", first, "--use", "inspection", "--country", "JP")["notices"][0]["broker"] == "taken"
    assert line("halt", first, "--reason", "cell.incident", "--clause", "k-1")["standing"] == "HALTED"
    assert line("resume", first)["notices"][0]["kind"] == "resume"
    assert line("lifecycle", first)["standing"] == "HALTED"
    assert line("exit", first, "--unreleased", "retrain", "--yes")["notices"][0]["seq"] == 4
    assert set(here.broker_life().exited) == {"kita"}
