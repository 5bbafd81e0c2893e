# SPDX-License-Identifier: Apache-2.0
"""The ledgers against what was told to the log: old copies, lost ones, and how an owner mends and reads them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from client.answers import finish
from client.budgets import Budgets
from client.budgets.reckoning import reconcile
from client.budgets.showing import budget_show
from client.budgets.tightening import tighten
from client.budgets.told_caps import tell_cap
from client.doctor import doctor
from client.errors import NodeBusyError, NoSuchThingError, NotConfirmedError
from client.settings import locked
from policies.exchange import ExchangeType
from policies.privacy.errors import BudgetDivergedError, BudgetError, BudgetExhaustedError, BudgetUnknownError
from tests.nodesim import SeedEntropy
from tests.nodeworld import RUN, World, ready_world


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def copies(world: World) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in world.home.budget.glob("*.db")}


def restore(world: World, kept: dict[Path, bytes]) -> None:
    world.worker.close()
    for path, data in kept.items():
        path.write_bytes(data)


def rounds(world: World, numbers: range, receipts: list[Any] | None = None) -> list[Any]:
    receipts = receipts or []
    for number in numbers:
        _, reply = world.ask(round=number, body={"receipts": receipts})
        assert reply.status == "ok", reply.code
        receipts = world.log_reply(reply)
    return receipts


def spent(world: World) -> dict[str, int]:
    """Billionths of rho by block, as the files have it."""
    budgets = Budgets(world.home, key=world.member.identity.key, clock=world.clock)
    try:
        (store,) = [budgets.find(stem) for stem in budgets.lineages()]
        return {block: store.state.in_block(block).spent for block in sorted(store.state.blocks)}
    finally:
        budgets.close()


def mend(world: World) -> Any:
    outbox = world.outbox()
    try:
        return reconcile(world.home, world.member, world.shelf(), outbox)
    finally:
        outbox.close()


def show(world: World) -> Any:
    outbox = world.outbox()
    try:
        return budget_show(world.home, world.member, world.shelf(), outbox)
    finally:
        outbox.close()


def checked(world: World) -> dict[str, Any]:
    found = doctor(
        world.home, clock=world.clock, entropy=SeedEntropy(b"doctor"), transport=world.broker.transport
    )
    return next(one for one in found.data["checks"] if one["code"] == "budget")


@pytest.mark.parametrize("kept", ["before the reservation", "after the first round", "after the second"])
def test_an_old_copy_stops_everything_until_what_it_lacks_is_appended(world: World, kept: str):
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    world.worker.budgets.of(
        seat.lineage, seat.opening, unit="episode", adjacency="zero-out", charged_before=False
    )
    old = copies(world)
    receipts = rounds(world, range(1, 2))
    if kept == "after the first round":
        old = copies(world)
    receipts = rounds(world, range(2, 3), receipts)
    if kept == "after the second":
        old = copies(world)
    _, reply = world.ask(round=3, body={"receipts": receipts})
    world.ask(ExchangeType.JUDGE, round=3, body={"receipts": world.log_reply(reply)})
    truth = spent(world)
    restore(world, old)
    with pytest.raises(BudgetDivergedError, match=r"budget\.diverged") as caught:
        world.start()
    assert "iriai-node budget reconcile" in caught.value.remedy
    with pytest.raises(BudgetDivergedError):
        show(world)
    assert "budget.diverged" in checked(world)["found"]
    appended = mend(world).data["appended"]
    lacking = {"before the reservation": 4, "after the first round": 3, "after the second": 2}[kept]
    assert len(appended) == lacking
    assert spent(world) == truth
    assert mend(world).data["appended"] == []
    assert checked(world)["ok"]
    (lineage,) = show(world).data["lineages"]
    assert lineage["chain"]["incidents"] == 1
    world.clock.ms += 1
    world.start()
    _, again = world.ask(round=3, attempt=2)
    # a reservation that was in the copy goes on; one that was not is over
    assert again.code == ("budget.refused" if kept == "before the reservation" else None)


def test_a_ledger_that_was_deleted_is_no_unspent_budget(world: World):
    rounds(world, range(1, 3))
    world.worker.close()
    shutil.rmtree(world.home.budget)
    with pytest.raises(BudgetUnknownError, match="told of 2 spends"):
        show(world)
    assert finish(lambda: show(world), as_json=False) == 7
    assert not checked(world)["ok"]
    assert "budget.unknown" in checked(world)["found"]
    for work in (world.start, lambda: mend(world)):
        with pytest.raises(BudgetUnknownError, match=r"budget\.unknown"):
            work()
    assert not world.home.budget.exists()


def test_nothing_is_appended_while_the_worker_runs(world: World):
    lock = locked(world.home)
    with pytest.raises(NodeBusyError):
        mend(world)
    lock.close()


def test_a_node_that_spent_nothing_says_so(world: World):
    world.worker.close()
    shown = show(world)
    assert shown.text[0] == "nothing is spent"
    assert checked(world)["found"] == "0 ledgers verify, and hold all 0 spends that the log was told of"


def test_the_budget_is_shown_block_by_block_with_its_three_figures(world: World):
    receipts = rounds(world, range(1, 3))
    world.ask(ExchangeType.JUDGE, round=2, body={"receipts": receipts})
    world.clock.ms += 300_000
    shown = show(world)
    (lineage,) = shown.data["lineages"]
    plan = world.recipe.plan
    assert plan is not None
    train, held_out = lineage["blocks"][1], lineage["blocks"][0]
    assert (held_out["block"], train["block"]) == ("held-out-2", "train-1")
    cost = plan.rho_step_nano(order=lineage["order"])
    assert train["rho_spent_nano"] == 2 * cost
    assert train["rho_held_nano"] == (plan.steps - 2) * cost
    assert train["rho_left_nano"] == train["rho_max_nano"] - plan.steps * cost
    assert train["runs_left"] == train["rho_left_nano"] // (plan.steps * cost)
    assert train["units"] == held_out["units"] == 20
    queries = world.recipe.evaluation.steps
    assert held_out["queries_run"] == queries
    assert held_out["runs_left"] * queries <= held_out["queries_left"] < (held_out["runs_left"] + 1) * queries
    assert f"{held_out['queries_left']} queries, {queries} a run" in "\n".join(shown.text)
    assert f"{train['runs_left']} runs" in "\n".join(shown.text)
    figures = lineage["figures"]
    assert float(figures["epsilon_pld"]) <= float(figures["epsilon_rdp"]) + 0.01
    assert float(figures["epsilon_filter"]) > float(figures["epsilon_conversion"])
    assert lineage["chain"]["verified"]
    assert lineage["chain"]["age_ms"] == 300_000
    mirror = lineage["mirror"]
    assert (mirror["touched"], mirror["told"], mirror["in_log"]) == (3, 3, 2)
    assert not mirror["agrees"]  # the query's receipt is not here yet
    text = "\n".join(shown.text)
    assert "by construction: go by the shares above" in text
    assert "train-1" in text
    assert [(one["part"], one["steps_spent"]) for one in shown.data["budgets"]] == [
        ("train", 2),
        ("held-out", 1),
    ]
    json.dumps(shown.data)


def lower(
    world: World, epsilon: str, *, lineage: str | None = None, yes: bool = True
) -> tuple[Any, list[str]]:
    """The answer, and what the owner was shown before."""
    shown: list[str] = []

    def confirm(question: str) -> bool:
        shown.append(question)
        return yes

    name = lineage or show(world).data["lineages"][0]["lineage"]
    outbox = world.outbox()
    try:
        done = tighten(
            world.home,
            world.member,
            outbox,
            lineage=name,
            epsilon=epsilon,
            confirm=confirm,
            tell=shown.extend,
        )
    finally:
        outbox.close()
    return done, shown


def test_the_owner_sees_what_is_left_before_and_after_and_a_no_changes_nothing(world: World):
    rounds(world, range(1, 2))
    (before,) = show(world).data["lineages"]
    with pytest.raises(NotConfirmedError):
        lower(world, "9.5", yes=False)
    assert show(world).data["lineages"] == [before]
    done, shown = lower(world, "19.9")
    text = "\n".join(shown)
    assert "cap now    epsilon 20" in text
    assert "runs left now" in text
    assert "warning" not in text
    assert shown[-1].endswith("epsilon 20 now, 19.9 from then on")
    (train,) = [one for one in done.data["effects"] if one["block"] == "train-1"]
    assert train["runs_left_before"] == before["blocks"][-1]["runs_left"]
    assert train["runs_left_after"] == done.data["blocks"][-1]["runs_left"]
    assert done.data["warnings"] == []


def test_a_cap_that_holds_nothing_more_is_said_before_the_owner_answers(world: World):
    rounds(world, range(1, 3))
    conversion = show(world).data["lineages"][0]["figures"]["epsilon_conversion"]
    spent = show(world).data["lineages"][0]["blocks"][-1]["epsilon_spent"]
    between = f"{(float(conversion) + float(spent)) / 2:.6f}"
    for epsilon, words in ((between, "is spent already"), ("0.5", f"costs {conversion} by itself")):
        done, shown = lower(world, epsilon)
        (warning,) = [one for one in shown if one.startswith("warning")]
        assert words in warning
        assert warning.endswith("ever")
        assert done.data["warnings"]
        assert all(one["runs_left_after"] in {0, None} for one in done.data["effects"])


def test_budget_show_says_with_which_cap_a_ledger_is_opened_and_how_to_set_it(world: World):
    nothing = show(world)
    assert nothing.data["opening"] == {"is_open": False, "from": "default", "epsilon": None}
    assert "the cap of the first contract that trains" in nothing.text[-1]
    assert "epsilon_lifetime in [local] of node.toml" in nothing.text[-1]
    rounds(world, range(1, 2))
    assert any("opened with epsilon 20, which nothing loosens" in line for line in show(world).text)


@pytest.mark.parametrize("lifetime", ["30", "9"])
def test_the_owner_decides_with_which_cap_new_data_begin_and_never_loosens_it(world: World, lifetime: str):
    world.rules(epsilon_lifetime=lifetime)
    assert f"epsilon {lifetime}, your epsilon_lifetime" in show(world).text[-1]
    rounds(world, range(1, 2))
    (lineage,) = show(world).data["lineages"]
    assert lineage["epsilon_max"] == lineage["epsilon_at_genesis"] == lifetime
    (told,) = world.outbox().envelopes(kind="budget.opened")
    assert json.loads(told.envelope.payload)["body"]["epsilon_max"] == lifetime
    (row,) = show(world).data["budgets"]
    assert row["epsilon_max"] == "20"  # the contract's own cap binds beside it
    world.rules(epsilon_lifetime="40")
    rounds(world, range(2, 3))
    assert show(world).data["lineages"][0]["epsilon_max"] == lifetime


def test_the_owner_tightens_and_the_next_run_is_refused(world: World):
    rounds(world, range(1, 2))
    (lineage,) = show(world).data["lineages"]
    name = lineage["lineage"]
    for epsilon in ("x", "-3", "0", lineage["epsilon_max"], "21"):
        with pytest.raises(BudgetError, match=r"budget\.refused"):
            lower(world, epsilon, lineage=name)
    with pytest.raises(NoSuchThingError, match="no such lineage: lin_other") as caught:
        lower(world, "1", lineage="lin_other")
    assert name in caught.value.need
    assert "budget show" in caught.value.remedy
    done, _ = lower(world, "9.50", lineage=name)
    assert (done.data["epsilon_before"], done.data["epsilon_max"]) == (lineage["epsilon_max"], "9.5")
    (after,) = show(world).data["lineages"]
    assert (after["epsilon_max"], after["epsilon_at_genesis"]) == ("9.5", lineage["epsilon_max"])
    assert after["order"] == lineage["order"]
    assert any("tightened" in line for line in show(world).text)
    _, refused = world.ask(run="run_bbbbbbbbbbbbbbbb")  # the running worker knows at once
    assert refused.code == BudgetExhaustedError.code


def test_an_old_copy_of_a_ledger_is_not_tightened(world: World):
    receipts = rounds(world, range(1, 2))
    old = copies(world)
    (lineage,) = show(world).data["lineages"]
    rounds(world, range(2, 3), receipts)
    restore(world, old)
    with pytest.raises(BudgetDivergedError, match="1 of 2 told spends"):
        lower(world, "9.5", lineage=lineage["lineage"])
    assert copies(world) == old


def test_a_copy_from_before_a_tightening_is_noticed_and_reconcile_tightens_it_again(world: World):
    rounds(world, range(1, 2))
    old = copies(world)
    (lineage,) = show(world).data["lineages"]
    lower(world, "12")
    lower(world, "9.5")
    restore(world, old)
    for work in (world.start, lambda: show(world), lambda: lower(world, "9", lineage=lineage["lineage"])):
        with pytest.raises(BudgetDivergedError, match=r"cap 9\.5 to which lin_"):
            work()
    assert "budget.diverged" in checked(world)["found"]
    done = mend(world)
    assert done.data["tightened"] == [{"lineage": lineage["lineage"], "epsilon_max": "9.5"}]
    assert done.data["holding"] == [RUN]
    assert f"budget is held for {RUN}" in done.text[-1]
    assert show(world).data["lineages"][0]["epsilon_max"] == "9.5"
    assert mend(world).data["tightened"] == []
    lower(world, "9")
    assert checked(world)["ok"]


def test_a_ledger_that_was_tightened_and_deleted_is_missed(world: World):
    rounds(world, range(1, 2))
    lower(world, "9.5")
    world.worker.close()
    shutil.rmtree(world.home.budget)
    with pytest.raises(BudgetUnknownError, match="told of 1 spends"):
        show(world)


def test_a_tightening_that_a_crash_cut_short_is_completed_and_never_forgotten(world: World):
    rounds(world, range(1, 2))
    (lineage,) = show(world).data["lineages"]
    store = world.worker.budgets.ledger_of(lineage["lineage"])
    tell_cap(world.worker.outbox, store, "9.5")
    world.worker.close()
    with pytest.raises(BudgetDivergedError):
        show(world)
    mend(world)
    assert show(world).data["lineages"][0]["epsilon_max"] == "9.5"
