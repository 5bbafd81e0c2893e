# SPDX-License-Identifier: Apache-2.0
"""A node's new key: said, taken, handed over; rounds, budgets, receipts and the audit go on."""

from __future__ import annotations

import asyncio
import json
import shutil

import httpx
import numpy as np
import pytest
from typer.testing import CliRunner

from broker.federation.participants import participants, under_present_key
from client import rotating
from client.cli import life as cli_life
from client.contract.notices import Notices
from client.contract.posting import keep_up
from client.contract.reading import fetch
from client.contract.shelf import ContractShelf
from client.contract.stopping import halt
from client.doctor import doctor
from client.errors import (
    KeyFileError,
    NodeBusyError,
    NoSuchThingError,
    NotConfirmedError,
    RotationOpenError,
    RotationWaitsError,
)
from client.federation.handlers import Admission, Desk, RunConfig
from client.federation.ledger import FleetLedger
from client.identity import load_identity
from client.keyring import read_history
from client.releases import receipts_fetch, receipts_verify
from client.rotating import rotate_key
from client.settings import locked
from policies.contract.errors import NoticeEntitlementError
from policies.exchange import ExchangeType, open_reply, tensor_bytes
from policies.identity import key_id, key_text
from policies.log.entries import EntryType, alias
from policies.ports import iso_s
from policies.privacy.errors import BudgetUnknownError
from tests.brokersim import SeedEntropy
from tests.federationsim import NAMES, ROUNDS, Killed, running
from tests.fleetsim import (
    BROKER,
    CONTRACT,
    RECIPE,
    AddOne,
    admit_all,
    header_of,
    make_desk,
    name_of,
    node_key,
)
from tests.fleetsim import HandClock as FleetClock
from tests.lanesim import contract_signature, warnings_of
from tests.nodeworld import YES
from tests.rotationsim import Gate, member_of, outbox_of, rotated
from tests.succeedsim import successor

ALL = dict.fromkeys(NAMES, "accepted")


def key_at(pool, name="kita"):
    return load_identity(pool.nodes[name].home).key.public


def state(pool):
    return pool.services.contracts.state(pool.contract).rotated_keys


def checked(pool, go, home):
    found = doctor(home, clock=pool.clock, entropy=SeedEntropy(b"doctor"), transport=Gate(pool, go))
    return found.data


# --- the whole path ---


def test_the_next_run_is_accepted_under_the_new_key_and_the_budget_goes_on():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        first = go(pool.run())
        old, chain = key_at(pool), kita.worker.outbox.chain
        before = kita.worker.budgets.find(kita.worker.budgets.lineages()[0]).state
        done = rotated(pool, go, "kita")
        new = key_at(pool)
        assert new != old
        assert done.data["key"] == key_text(new)
        assert [one["key"] for one in done.data["former"]] == [key_text(old)]
        assert state(pool) == {"kita": key_text(new)}
        kita.worker.budgets.settle(lambda run: run == first)
        second = go(pool.run())
        assert pool.row(second).state == "completed"
        assert pool.verdicts(second) == [ALL] * ROUNDS
        after = kita.worker.budgets.find(kita.worker.budgets.lineages()[0]).state
        assert after.seq > before.seq
        assert after.in_block("train-1").spent > before.in_block("train-1").spent
        assert kita.worker.outbox.chain == chain
        signers = {one.envelope.signatures[0][0] for one in kita.worker.outbox.envelopes()}
        assert signers == {key_id(old), key_id(new)}
        pool.check_books(second)
        report = pool.check_audit()
        assert report.facts["chains"] == 4


def test_a_run_goes_on_with_the_key_that_changed_between_two_of_its_rounds():
    with running() as (pool, go):
        kita, nord = pool.nodes["kita"], pool.nodes["nord"]
        run = go(pool.open_run())

        async def closed(rounds):
            while len(pool.verdicts(run)) < rounds:  # noqa: ASYNC110  virtual time
                await asyncio.sleep(0)

        go(closed(1))
        for one in (kita, nord):  # too few are left: the run waits
            one.away = True
            pool.fleet.offline.add(one.id)
        go(closed(2))
        rotated(pool, go, "kita")
        for one in (kita, nord):
            one.away = False
            pool.fleet.offline.discard(one.id)
        go(pool.idle())
        assert pool.row(run).state == "completed"
        verdicts = [one["kita"] for one in pool.verdicts(run)]
        assert verdicts == ["accepted", "silent", "accepted", "accepted"]
        spends = kita.worker.outbox.envelopes(run=run, kind="epsilon.spent")
        assert len({one.envelope.signatures[0][0] for one in spends}) == 2
        pool.check_books(run)
        pool.check_audit()


def test_receipts_of_both_keys_verify_and_the_doctor_finds_nothing():
    with running() as (pool, go):
        go(pool.run())
        rotated(pool, go, "kita")
        go(pool.run())
        home = pool.nodes["kita"].home
        pool.nodes["kita"].close()
        member = member_of(pool, go, home, "owner")
        outbox = outbox_of(member)
        assert receipts_fetch(member, outbox).data["missing"] == []
        shown = receipts_verify(member, outbox, member.broker.log_vkey)
        assert shown.exit_code == 0
        assert shown.data["receipts"] == len(outbox.envelopes())
        outbox.close()
        assert checked(pool, go, home)["failed"] == []


def test_halt_and_resume_are_said_by_the_new_key():
    with running() as (pool, go):
        rotated(pool, go, "kita")
        home = pool.nodes["kita"].home
        member = member_of(pool, go, home, "owner")
        outbox, shelf = outbox_of(member), ContractShelf(home, own_key=member.identity.key.public)
        told = halt(member, shelf, outbox, pool.contract.digest, code="cell.incident")
        assert told.data["notices"][0]["broker"] == "taken"
        outbox.close()
        assert len(pool.entries(EntryType.CONTRACT_HALTED)) == 1
        pool.check_audit()


def test_a_key_changes_twice():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        first = go(pool.run())
        rotated(pool, go, "kita")
        rotated(pool, go, "kita")
        assert len(read_history(kita.home.keys).handovers) == 2
        kita.worker.budgets.settle(lambda run: run == first)
        second = go(pool.run())
        assert pool.verdicts(second) == [ALL] * ROUNDS
        pool.check_audit()


def test_a_vote_of_the_owner_counts_after_the_change():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        for name in ("kita", "nord"):
            pool.nodes[name].rules(vote="manual")
        run = go(pool.run())
        (name,) = pool.candidates()
        rotated(pool, go, "kita")
        answer = go(kita.vote(name, run, "approve"))
        assert answer.status_code == 200, answer.text
        go(pool.idle())
        assert list(pool.candidates().values()) == ["released"]
        pool.check_audit()


# --- what it waits for, and what it refuses ---


def test_a_running_worker_is_not_disturbed():
    with running() as (pool, go):
        with locked(pool.nodes["kita"].home), pytest.raises(NodeBusyError):
            rotated(pool, go, "kita")
        assert state(pool) == {}


def test_nobody_said_yes():
    with running() as (pool, go):
        old = key_at(pool)
        with pytest.raises(NotConfirmedError):
            rotated(pool, go, "kita", confirm=lambda _shown: False)
        assert key_at(pool) == old
        assert not (pool.nodes["kita"].home.keys / "next.key").exists()
        assert go(pool.run())


def test_an_envelope_without_a_receipt_comes_first():
    with running() as (pool, go):
        node = pool.nodes["kita"]
        with node.worker.outbox.writing() as letters:
            letters.seal(
                "vote.cast",
                body={"subject": f"sha256:{'0' * 64}", "vote": "approve", "clause": None},
                scope=pool.contract.digest,
                run="run_aaaaaaaaaaaaaaaa",
            )
        with pytest.raises(RotationWaitsError) as raised:
            rotated(pool, go, "kita")
        assert "receipt fetch" in raised.value.remedy
        assert not (node.home.keys / "next.key").exists()


def test_without_a_contract_nobody_could_check_the_new_key():
    with running() as (pool, go):
        home = pool.nodes["kita"].home
        shutil.rmtree(home.contracts)
        home.contracts.mkdir()
        answers = Gate(pool, go)
        own = answers._send

        async def without(request):
            answer = await own(request)
            if request.url.path == "/api/v1/contracts":
                return httpx.Response(200, json={"contracts": []})
            return answer

        answers._send = without
        with pytest.raises(NoSuchThingError) as raised:
            rotated(pool, go, "kita", gate=answers)
        assert "join again" in raised.value.remedy


def test_a_contract_that_wants_all_the_others_is_named():
    with running(**{"amendment.key_rotation": "all-contributors"}) as (pool, go):
        with pytest.raises(NoticeEntitlementError) as raised:
            rotated(pool, go, "kita")
        assert raised.value.clause == pool.contract.amendment.clause
        assert state(pool) == {}


# --- a crash at each step ---


def whole(pool, go, old):
    """It goes on with the same new key, and everything works afterwards."""
    node = pool.nodes["kita"]
    rotated(pool, go, "kita", confirm=YES)
    new = key_at(pool)
    assert new != old
    assert state(pool) == {"kita": key_text(new)}
    assert len(pool.entries(EntryType.KEY_ROTATED)) == 1
    assert len(read_history(node.home.keys).handovers) == 1
    assert not (node.home.keys / "next.key").exists()
    run = go(pool.run())
    assert pool.verdicts(run) == [ALL] * ROUNDS
    pool.check_audit()
    return new


@pytest.mark.parametrize("when", ["dies_before", "dies_after"])
def test_a_crash_around_the_request_goes_on_with_the_same_key(when):
    with running() as (pool, go):
        old = key_at(pool)
        with pytest.raises(Killed):
            rotated(pool, go, "kita", gate=Gate(pool, go, **{when: 1}))
        assert key_at(pool) == old
        pending = load_identity(pool.nodes["kita"].home).next_key
        assert pending is not None
        assert whole(pool, go, old) == pending.public


@pytest.mark.parametrize("step", ["put_next", "append", "adopt_next"])
@pytest.mark.parametrize("late", [False, True])
def test_a_crash_between_two_files_goes_on(monkeypatch, step, late):
    with running() as (pool, go):
        old = key_at(pool)
        honest = getattr(rotating, step)

        def dying(*arguments, **named):
            if late:
                honest(*arguments, **named)
            raise Killed

        with monkeypatch.context() as planted:
            planted.setattr(rotating, step, dying)
            with pytest.raises(Killed):
                rotated(pool, go, "kita")
        whole(pool, go, old)


def test_a_crash_after_the_notice_was_signed_goes_on(monkeypatch):
    with running() as (pool, go):
        old = key_at(pool)
        honest = Notices.say

        def dying(self, *arguments):
            honest(self, *arguments)
            raise Killed

        with monkeypatch.context() as planted:
            planted.setattr(Notices, "say", dying)
            with pytest.raises(Killed):
                rotated(pool, go, "kita")
        whole(pool, go, old)


def test_while_the_change_is_open_nothing_else_is_sealed_and_a_halt_still_binds():
    with running() as (pool, go):
        node = pool.nodes["kita"]
        with pytest.raises(Killed):
            rotated(pool, go, "kita", gate=Gate(pool, go, dies_after=1))
        with pytest.raises(RotationOpenError):
            _ = node.worker
        assert "outbox" in checked(pool, go, node.home)["failed"]
        member = member_of(pool, go, node.home, "owner")
        outbox, shelf = outbox_of(member), ContractShelf(node.home, own_key=member.identity.key.public)
        with outbox.writing() as letters, pytest.raises(RotationOpenError):
            letters.seal("vote.cast", body={}, scope=None)
        said = halt(member, shelf, outbox, pool.contract.digest, code="cell.incident")
        assert said.data["notices"][0]["broker"] == "not sent yet"
        assert Notices(shelf).life(shelf.get(pool.contract.digest)).halts
        outbox.close()
        rotated(pool, go, "kita")
        member = member_of(pool, go, node.home, "owner again")
        outbox, shelf = outbox_of(member), ContractShelf(node.home, own_key=member.identity.key.public)
        events = [event for event, _ in keep_up(member, shelf, outbox)]
        assert "notice-taken" in events
        outbox.close()
        assert len(pool.entries(EntryType.CONTRACT_HALTED)) == 1
        pool.check_audit()


# --- what other keys were about ---


def test_an_answer_that_was_given_under_the_old_key_is_given_again_under_the_new_one(tmp_path):
    header, vector = header_of(tensor=np.arange(4, dtype=np.float32)), np.arange(4, dtype=np.float32)

    def asked(desk):
        return desk.answer(
            RunConfig(run="run_simaaaaaaaaaaaaa", contract=CONTRACT, recipe=RECIPE),
            Admission(broker_key=BROKER.public, tensor_bytes=4_000_000),
            header,
            kind=ExchangeType.CONTRIBUTE.value,
            slot=(1, 0),
            pull=lambda _spec: tensor_bytes(vector),
            confirm=lambda: None,
        )

    first = asked(make_desk(tmp_path))
    after = Desk(
        node=name_of(0),
        key=node_key(5),
        handlers=dict.fromkeys(ExchangeType, AddOne()),
        admit=admit_all,
        ledger=FleetLedger(tmp_path / "fleet0.db"),
        clock=FleetClock(),
        former=(node_key(0).public,),
    )
    again = asked(after)
    assert (again.repeated, again.tensor) == (True, first.tensor)
    assert open_reply(again.header, node_key(5).public).ok


def test_a_round_that_was_opened_under_the_old_key_is_read_under_the_present_one():
    with running() as (pool, go):
        contracts = pool.services.contracts
        before = participants(contracts, pool.contract, pool.recipe)
        rotated(pool, go, "kita")
        after = participants(contracts, pool.contract, pool.recipe)
        assert before != after
        assert tuple(under_present_key(contracts, pool.contract, one) for one in before) == after


def test_the_command_line_changes_the_key(monkeypatch):
    with running() as (pool, go):
        asked = []

        def here(home, *, code, confirm, **_system):
            asked.append((home.root, code))
            return rotate_key(
                home,
                clock=pool.clock,
                entropy=SeedEntropy(b"cli"),
                code=code,
                confirm=confirm,
                transport=Gate(pool, go),
            )

        home = pool.nodes["kita"].home
        old = key_at(pool)
        monkeypatch.setattr(rotating, "rotate_key", here)
        words = ["rotate-key", "--reason", "key.suspect", "--yes", "--json", "--dir", str(home.root)]
        found = CliRunner().invoke(cli_life.contract, words)
        assert found.exit_code == 0, (found.stdout, found.stderr)
        assert asked == [(home.root, "key.suspect")]
        assert json.loads(found.stdout)["data"]["key"] == key_text(key_at(pool)) != key_text(old)


# --- successors ---


def tightened(pool, go):
    """A tightening by kita, which rules in ten seconds."""
    kita, now = pool.nodes["kita"], pool.clock.ms
    times = {"sign_by": iso_s(now + 5_000), "effective": iso_s(now + 10_000)}
    new = successor(pool.contract, **times)
    member = pool.services.contracts.member_of(pool.contract, "kita")
    body = {"contract": new.digest, "party": alias(member.alias_key, new.digest, None, None)}
    warnings = list(warnings_of(new))
    body |= {"acknowledged": warnings} if warnings else {}
    with kita.worker.outbox.writing() as letters:
        event = letters.seal("contract.signed", body=body, scope=new.digest, slot=f"signed {new.digest}")
    sent = {
        "kind": "tighten",
        "contract": new.canonical.decode(),
        "recipes": [],
        "signature": contract_signature(new, kita.key),
        "envelope": event.to_json(),
    }
    answer = go(kita.owner().post(f"/contracts/{pool.contract.digest}/amendments", sent))
    assert answer.status_code == 201, answer.text
    return new


def heard(pool, go, name, new):
    """What the worker does now and then: it hears what the others said, and fetches a successor."""
    home = pool.nodes[name].home
    member = member_of(pool, go, home, f"{name} hears {len(pool.entries())}")
    outbox = outbox_of(member)
    shelf = ContractShelf(home, own_key=member.identity.key.public)
    keep_up(member, shelf, outbox)
    assert fetch(member, shelf, new.digest).is_executed
    outbox.close()


@pytest.mark.parametrize("order", ["while it waits", "once it rules", "before it is signed"])
def test_a_tightening_goes_on_under_the_new_key(order):
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        first = go(pool.run())
        if order == "before it is signed":
            rotated(pool, go, "kita")
        new = tightened(pool, go)
        if order == "while it waits":
            rotated(pool, go, "kita")
        pool.clock.ms += 11_000
        go(kita.owner().get("/contracts"))
        if order == "once it rules":
            rotated(pool, go, "kita")
        for name in NAMES:
            heard(pool, go, name, new)
        assert pool.services.contracts.state(new).rotated_keys == {"kita": key_text(key_at(pool))}
        kita.worker.budgets.settle(lambda run: run == first)
        pool.contract = new
        second = go(pool.run())
        assert pool.verdicts(second) == [ALL] * ROUNDS
        pool.check_audit()


# --- files ---


def test_a_process_that_still_holds_the_old_key_seals_nothing():
    with running() as (pool, go):
        node = pool.nodes["kita"]
        member = member_of(pool, go, node.home, "owner")
        outbox = outbox_of(member)
        rotated(pool, go, "kita")
        with outbox.writing() as letters, pytest.raises(KeyFileError):
            letters.seal("vote.cast", body={}, scope=None)
        outbox.close()


def test_an_older_copy_of_a_ledger_is_no_fresh_budget_under_the_new_key(tmp_path):
    with running() as (pool, go):
        node = pool.nodes["kita"]
        go(pool.run())
        node.close()
        (ledger,) = node.home.budget.glob("*.db")
        shutil.copy(ledger, tmp_path / "old.db")
        node.worker.budgets.settle(lambda _run: True)  # one entry more
        rotated(pool, go, "kita")
        node.close()
        shutil.copy(tmp_path / "old.db", ledger)
        with pytest.raises(BudgetUnknownError):
            _ = node.worker
        ledger.unlink()
        with pytest.raises(BudgetUnknownError):
            _ = node.worker


def test_a_history_that_was_changed_or_lost_stops_the_node():
    with running() as (pool, go):
        node = pool.nodes["kita"]
        go(pool.run())
        rotated(pool, go, "kita")
        path = node.home.keys / "history.json"
        data = path.read_bytes()
        tree = json.loads(data)
        other = tree["handovers"][0]
        other["signatures"] = other["signatures"][:1]
        path.write_bytes(json.dumps(tree, sort_keys=True, separators=(",", ":")).encode())
        with pytest.raises(KeyFileError):
            load_identity(node.home)
        path.unlink()
        with pytest.raises(BudgetUnknownError):
            _ = node.worker
        path.write_bytes(data)
        assert node.worker


def test_the_old_private_key_is_gone_and_its_public_half_stays():
    with running() as (pool, go):
        node = pool.nodes["kita"]
        old = load_identity(node.home).key.to_pem()
        rotated(pool, go, "kita")
        files = [one.read_bytes() for one in node.home.root.rglob("*") if one.is_file()]
        assert all(old not in one for one in files)
        (done,) = read_history(node.home.keys).handovers
        assert done.at == iso_s(pool.clock.ms)
