# SPDX-License-Identifier: Apache-2.0
"""A node that lost its outbox, or has an old copy of it, against the real broker: a new chain, and nothing told twice."""

from __future__ import annotations

import shutil
from typing import Any

import pytest

from client.chains import require_known_chain, reset_chain
from client.errors import NotConfirmedError, OutboxError
from policies.log.entries import EntryType
from tests.federationsim import NAMES, ROUNDS, Killed, Pool, running
from tests.nodeworld import YES
from tests.rotationsim import Gate, member_of, outbox_of

ALL = dict.fromkeys(NAMES, "accepted")


def lose(pool: Pool, name: str) -> None:
    """The disk with the outbox is gone; keys, ledgers and contracts are on another one."""
    node = pool.nodes[name]
    node.close()
    for path in node.home.root.glob("outbox.db*"):
        path.unlink()


def reset(pool: Pool, go: Any, name: str, *, reason: str = "disk-loss", gate: Any = None, **more: Any) -> Any:
    pool.nodes[name].close()
    member = member_of(pool, go, pool.nodes[name].home, f"reset {name} {gate is None}")
    if gate is not None:
        member.client._http._transport = gate
    outbox = outbox_of(member)
    try:
        return reset_chain(member, outbox, reason=reason, confirm=YES, **more)
    finally:
        outbox.close()


def resets(pool: Pool) -> list[Any]:
    return pool.house.entries(EntryType.CHAIN_RESET)


def new_chains(report: Any) -> list[str]:
    return [one.evidence for one in report.findings if one.id == "AUD-047"]


def test_after_a_lost_outbox_the_next_run_is_accepted_and_no_spend_is_told_twice():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        first = go(pool.run())
        before = kita.worker.outbox
        old, told = before.chain, [one.env for one in before.envelopes()]
        lose(pool, "kita")
        done = reset(pool, go, "kita")
        assert (done.data["chain"] != old, done.data["envelopes"]) == (True, len(told) + 1)
        (entry,) = resets(pool)
        assert (entry.pub, entry.scope) == ({"reason": "disk-loss"}, None)
        assert {one.env for one in kita.worker.outbox.envelopes() if one.receipt} >= set(told)
        kita.worker.budgets.settle(lambda run: run == first)
        second = go(pool.run())
        assert pool.verdicts(second) == [ALL] * ROUNDS
        pool.check_books(second)
        report = pool.check_audit()
        (found,) = new_chains(report)
        assert f"chain {old} ended at" in found
        assert report.facts["chains"] == len(NAMES) + 1


def test_after_an_old_copy_the_new_chain_knows_what_the_log_has():
    with running() as (pool, go):
        kita = pool.nodes["kita"]
        assert [one.kind for one in kita.worker.outbox.envelopes()] == ["contract.signed"]
        kita.close()
        copy = kita.home.root / "backup.db"
        shutil.copy(kita.home.outbox, copy)
        first = go(pool.run())
        lose(pool, "kita")
        shutil.copy(copy, kita.home.outbox)
        reset(pool, go, "kita", reason="restore")
        kita.worker.budgets.settle(lambda run: run == first)
        assert pool.verdicts(go(pool.run())) == [ALL] * ROUNDS
        assert len(new_chains(pool.check_audit())) == 1


def test_a_fresh_outbox_of_a_known_node_signs_nothing_and_the_broker_takes_nothing_on_it():
    with running() as (pool, go):
        go(pool.run())
        lose(pool, "kita")
        member = member_of(pool, go, pool.nodes["kita"].home, "fresh")
        outbox = outbox_of(member)
        with pytest.raises(OutboxError, match="chain reset"):
            require_known_chain(member, outbox)
        outbox.close()
        run = go(pool.run())
        assert {one["kita"] for one in pool.verdicts(run)} == {"refused"}
        assert resets(pool) == []
        reset(pool, go, "kita")
        outbox = outbox_of(member)
        require_known_chain(member, outbox)
        assert all(one.receipt is not None for one in outbox.envelopes())
        outbox.close()
        assert len(new_chains(pool.check_audit())) == 1


def test_a_reset_that_was_cut_off_goes_on_with_the_same_envelope():
    with running() as (pool, go):
        go(pool.run())
        lose(pool, "kita")
        for cut in ({"dies_before": 1}, {"dies_after": 1}):
            with pytest.raises(Killed):
                reset(pool, go, "kita", gate=Gate(pool, go, **cut))
            member = member_of(pool, go, pool.nodes["kita"].home, f"cut {cut}")
            outbox = outbox_of(member)
            with pytest.raises(OutboxError, match="not taken"):
                require_known_chain(member, outbox)
            outbox.close()
        reset(pool, go, "kita")
        assert len(resets(pool)) == 1
        assert len(new_chains(pool.check_audit())) == 1


def test_nobody_ends_a_chain_without_a_yes_or_one_that_is_not_in_the_log():
    with running() as (pool, go):
        member = member_of(pool, go, pool.nodes["kita"].home, "no")
        outbox = outbox_of(member)
        with pytest.raises(NotConfirmedError):
            reset_chain(member, outbox, reason="restore", confirm=lambda _shown: False)
        outbox.close()
        assert resets(pool) == []
