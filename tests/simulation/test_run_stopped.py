# SPDX-License-Identifier: Apache-2.0
"""Runs whose contract is halted, left or ended in the middle: what stops, what waits, what goes on, what an audit says."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from broker.federation.earlier import add_earlier, read_earlier
from client.contract.notices import Notices
from policies.contract.notices import Notice, seal_notice
from policies.exchange import ExchangeType
from policies.log.entries import EntryType
from policies.ports import iso_s
from policies.signing import Envelope
from tests.federationsim import NAMES, ROUNDS, SECURE, Pool, Said, running

KIND = {"halt": "contract.halted", "resume": "contract.resumed", "exit": "contract.exited"}
CODE = {"halt": "cell.incident", "resume": "cause.removed", "exit": "party.leaves"}


def speak(pool: Pool, name: str, kind: str, **terms: Any) -> Notice:
    """A party says something, in the middle of whatever goes on; the broker has taken it when this returns.

    What the route does, without a request: the node's earlier envelopes, the notice, its envelope.
    """
    services, contract, node = pool.services, pool.contract, pool.nodes[name]
    said = Notice(
        kind=kind,
        contract=contract.digest,
        party=name,
        seq=services.contracts.life(contract).next_seq(name),
        at=iso_s(pool.clock.ms),
        code=CODE[kind],
        **terms,
    )
    body = {"contract": contract.digest, "clause": None, "reason": said.code, "notice": said.digest}
    waiting = [one.envelope for one in node.worker.outbox.pending(64)]
    with node.worker.outbox.writing() as letters:
        sealed = letters.seal(
            KIND[kind], body=body, scope=contract.digest, slot=f"{KIND[kind]} {said.digest}"
        )
    member = services.directory.holder(node.key.public)
    assert member is not None
    earlier = read_earlier(member, waiting)
    brought = services.lives.read(contract, member, seal_notice(said, node.key), sealed)

    def work(session: Any, tx: Any) -> Any:
        party = services.contracts.party_of(contract, member)
        add_earlier(
            session, tx, earlier, contract=contract, party=party, member=member, books=services.books()
        )
        return services.lives.take(session, tx, brought)

    taken, _ = services.writer.submit(work).result()
    assert taken.refusal is None, taken.refusal
    return said


def resume_all(pool: Pool, halt: Notice) -> None:
    for name in NAMES:
        if name not in pool.services.contracts.life(pool.contract).exited:
            speak(pool, name, "resume", refers=halt.digest)


def hear_all(pool: Pool) -> None:
    """Every node fetches what the parties said, as its worker does now and then."""
    services = pool.services
    with services.store.read() as session:
        names = [one["digest"] for one in services.lives.view(session, pool.contract)["notices"]]
        said = [
            Envelope.from_bytes(services.lives.notice_bytes(session, pool.contract, name)) for name in names
        ]
    for node in pool.nodes.values():
        shelf = node.worker.shelf
        Notices(shelf).learn(shelf.get(pool.contract.digest), names, said)


async def heard(pool: Pool, act: Any) -> Any:
    """Something is said between requests; the broker tells its gate, and what follows has settled."""
    found = act()
    pool.services.lives_changed(pool.contract)
    await asyncio.sleep(600)
    return found


def at(round_: int, act: Any, *, name: str = "iber") -> Any:
    """A node's answer in a round is the moment at which something is said; it is said once."""
    done: list[object] = []

    def lie(said: Said) -> Said:
        if said.contributes and said.header.round == round_ and not done:
            done.append(None)
            done.append(act())
        return said

    lie.done = done  # type: ignore[attr-defined]
    return lie


def models(pool: Pool, run: str) -> list[tuple[int, int, bool]]:
    return [(row.round, row.attempt, row.model is not None) for row in pool.rounds(run)]


@pytest.mark.parametrize("summed", [{}, SECURE], ids=["plain", "masked"])
def test_a_halt_abandons_the_open_round_and_the_run_goes_on_after_everybodys_resume(summed: dict[str, str]):
    with running(**summed) as (pool, go):
        lie = at(2, lambda: speak(pool, "nord", "halt"))
        pool.nodes["iber"].lies.append(lie)
        run = go(pool.open_run())
        go(asyncio.sleep(3_600))
        assert models(pool, run) == [(1, 1, True), (2, 1, False)]
        assert pool.row(run).state == "running"
        assert [one["run"] for one in pool.journal.of("run.halted")] == [run]
        opened = len(pool.entries(EntryType.ROUND_OPENED, run))
        refused = [e for e in pool.entries(EntryType.DECISION_RECORDED, run) if e.pub["outcome"] == "refuse"]
        assert {tuple(one.pub["clauses"]) for one in refused} == {("halt-1",)}  # the averaging, once
        spent = {name: dict(node.spends(run)) for name, node in pool.nodes.items()}
        assert all((2, 1) in slots for slots in spent.values())  # what was reserved stays spent
        go(asyncio.sleep(86_400))
        assert len(pool.entries(EntryType.ROUND_OPENED, run)) == opened
        resume_all(pool, lie.done[1])
        go(pool.idle())
        assert pool.row(run).state == "completed"
        assert [one for one in models(pool, run) if one[2]] == [(1, 1, True), (2, 2, True), (3, 1, True)]
        assert list(pool.candidates().values()) == ["released"]
        pool.check_books(run)
        pool.check_audit()


def test_a_halt_while_members_unmask_loses_the_round_whose_sum_may_be_open():
    done: list[Notice] = []

    def lie(said: Said) -> Said:
        if said.header.type is ExchangeType.SA_UNMASK and said.header.round == 2 and not done:
            done.append(speak(pool, "nord", "halt"))
        return said

    with running(**SECURE) as (pool, go):
        pool.nodes["iber"].lies.append(lie)
        run = go(pool.open_run())
        go(asyncio.sleep(3_600))
        assert models(pool, run) == [(1, 1, True), (2, 1, False)]
        resume_all(pool, done[0])
        go(pool.idle())
        assert models(pool, run) == [(1, 1, True), (2, 1, False), (3, 1, True), (4, 1, True)]
        assert pool.check_sums(run) == ROUNDS
        pool.check_books(run)
        pool.check_audit()


def test_a_broker_that_is_started_under_a_halt_waits_too():
    with running() as (pool, go):
        lie = at(1, lambda: speak(pool, "kita", "halt"), name="kita")
        pool.nodes["kita"].lies.append(lie)
        run = go(pool.open_run())
        go(asyncio.sleep(60))
        go(pool.kill())
        go(pool.open())
        go(asyncio.sleep(600))
        assert pool.row(run).state == "running"
        resume_all(pool, lie.done[1])
        go(pool.idle())
        assert pool.row(run).state == "completed"
        pool.check_audit()


def test_a_halt_while_silos_judge_keeps_the_candidate_and_they_are_asked_again():
    with running() as (pool, go):
        halts: list[Notice] = []
        honest = pool.nodes["hanbit"].ask

        def ask(config: Any, header: bytes, kind: str, *rest: Any) -> Any:
            if kind == "evaluate.judge" and not halts:
                halts.append(speak(pool, "hanbit", "halt"))
            return honest(config, header, kind, *rest)

        pool.nodes["hanbit"].ask = ask  # type: ignore[method-assign]
        run = go(pool.open_run())
        go(asyncio.sleep(600))
        assert pool.row(run).state == "judging"
        resume_all(pool, halts[0])
        go(pool.idle())
        assert pool.row(run).state == "completed"
        assert list(pool.candidates().values()) == ["released"]
        pool.check_audit()


def test_a_candidate_waits_at_the_gate_while_its_contract_is_halted():
    with running() as (pool, go):
        for node in pool.nodes.values():
            node.rules(vote="manual")
        run = go(pool.run())
        (name,) = pool.candidates()
        halt = go(heard(pool, lambda: speak(pool, "nord", "halt")))
        for voter in NAMES:
            assert go(pool.nodes[voter].vote(name, run, "approve")).status_code == 200
        go(asyncio.sleep(600))
        assert pool.candidates() == {name: "waiting"}
        assert pool.entries(EntryType.MODEL_RELEASED) == []
        go(heard(pool, lambda: resume_all(pool, halt)))
        assert pool.candidates() == {name: "released"}
        pool.check_audit()


@pytest.mark.parametrize(("choice", "state"), [("retrain", "refused"), ("discard", "discarded")])
def test_a_candidate_with_the_leavers_updates_is_refused_and_a_new_run_gives_another(choice, state):
    with running(**{"exit.unreleased_models": "leaver-chooses"}) as (pool, go):
        for node in pool.nodes.values():
            node.rules(vote="manual")
        run = go(pool.run())
        (name,) = pool.candidates()
        go(heard(pool, lambda: speak(pool, "kita", "exit", choice=choice)))
        assert pool.candidates() == {name: state}
        (refused,) = pool.entries(EntryType.MODEL_REFUSED)
        assert (refused.pub["model"], refused.pub["clause"]) == (name, "k-1")
        for node in pool.nodes.values():
            node.rules(vote="auto")
        again = go(pool.run())
        assert {name for name, _, _, _ in pool.fleet.asked[-1:]} <= {"hanbit", "iber", "nord"}
        asked = pool.verdicts(again)
        assert asked == [dict.fromkeys(("hanbit", "iber", "nord"), "accepted")] * ROUNDS
        assert sorted(pool.candidates().values()) == sorted([state, "released"])
        pool.check_books(run)
        pool.check_audit()


@pytest.mark.parametrize("heard_by", ["nobody yet", "every node"])
def test_after_an_exit_the_remaining_three_train_and_release_without_the_leaver(heard_by):
    with running() as (pool, go):
        left = speak(pool, "hanbit", "exit", choice="retrain")
        if heard_by == "every node":
            hear_all(pool)
        run = go(pool.run())
        assert pool.row(run).state == "completed", pool.journal.lines
        assert pool.verdicts(run) == [dict.fromkeys(("iber", "kita", "nord"), "accepted")] * ROUNDS
        assert list(pool.candidates().values()) == ["released"]
        assert pool.nodes["hanbit"].learner.trained == []
        assert left.party in pool.services.contracts.life(pool.contract).exited
        pool.check_books(run)
        assert pool.check_audit().findings == []


def test_a_run_with_the_leavers_updates_in_its_model_ends_and_gives_no_candidate():
    with running() as (pool, go):
        pool.nodes["iber"].lies.append(at(2, lambda: speak(pool, "kita", "exit", choice="retrain")))
        run = go(pool.run())
        assert pool.row(run).outcome == "stopped"
        assert models(pool, run) == [(1, 1, True), (2, 1, False)]
        assert pool.candidates() == {}
        (over,) = {(one["clause"], one["why"]) for one in pool.journal.of("run.over")}
        assert over == ("exit-1", "the updates of kita, which left, are in its model")
        shown = go(pool.house.alice.get(f"/operator/runs/{run}")).json()
        assert shown["ended"]["clauses"] == ["exit-1"]
        pool.check_audit()


def test_a_contract_that_ends_below_k_ends_its_runs():
    with running() as (pool, go):

        def leave() -> None:
            speak(pool, "kita", "exit", choice="retrain")
            speak(pool, "nord", "exit", choice="retrain")

        pool.nodes["iber"].lies.append(at(1, leave))
        run = go(pool.run())
        assert pool.row(run).outcome == "stopped"
        assert pool.candidates() == {}
        (ended,) = pool.entries(EntryType.CONTRACT_TERMINATED)
        assert ended.pub["clause"] == "k-1"
        shown = go(pool.house.alice.get(f"/operator/runs/{run}")).json()
        assert shown["ended"]["clauses"] == ["k-1"]
        pool.check_audit()
