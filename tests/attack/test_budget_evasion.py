# SPDX-License-Identifier: Apache-2.0
"""Ways around a budget that is there: swapped files, a refused round that opens one, a contract without privacy."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from client.budgets import Budgets
from client.budgets.reckoning import require_known
from client.budgets.showing import budget_show
from client.budgets.waiving import waive
from client.errors import NotConfirmedError
from client.settings import Home
from client.statements import _figures
from policies.exchange import ExchangeType
from policies.privacy.errors import BudgetDivergedError, BudgetError, BudgetUnknownError, DeltaTooLargeError
from policies.privacy.ledger import OWNER, USE
from policies.privacy.statement import Subject, Terms, build_statement, check_statement, claim
from policies.privacy.statement_words import page
from tests.learnsim import CONTRACT, KEY, StillClock, cap, made_units, small_recipe
from tests.nodeworld import IN_TERM_MS, YES, World, plain_world, ready_world

if TYPE_CHECKING:
    from pathlib import Path

    from client.answers import Answer
    from client.privacy.store import BudgetStore

PRIVATE = small_recipe()


def spent(budgets: Budgets, lineage: str, seed: str) -> BudgetStore:
    store = budgets.of(lineage, CONTRACT, unit="episode", adjacency="zero-out", charged_before=False)
    units = made_units("train", 80, seed=seed)
    store.reserve(PRIVATE.plan, CONTRACT, run="run_0", recipe=PRIVATE.digest, units=units)
    store.touch("run_0", 1, 1)
    store.commit("run_0")
    return store


# --- ledgers that were swapped on the disk ---


def swap(home: Home) -> None:
    one, other = sorted(home.budget.glob("*.db"))
    one.rename(home.root / "aside")
    other.rename(one)
    (home.root / "aside").rename(other)


def test_a_ledger_under_the_name_of_another_lineage_is_an_unknown_budget(tmp_path: Path) -> None:
    home = Home(tmp_path)
    budgets = Budgets(home, key=KEY, clock=StillClock())
    for lineage in ("lin_used", "lin_other"):
        spent(budgets, lineage, lineage)
    budgets.close()
    swap(home)
    with pytest.raises(BudgetUnknownError, match=r"budget\.unknown.*the ledger of lin_"):
        budgets.of("lin_used", cap(), unit="episode", adjacency="zero-out", charged_before=True)
    with pytest.raises(BudgetUnknownError):
        budgets.touches()
    swap(home)
    assert len(budgets.touches()) == 2
    budgets.close()


def test_a_spend_that_another_lineages_ledger_holds_counts_as_missing(tmp_path: Path) -> None:
    world = ready_world(tmp_path)
    world.ask()
    lineage = world.worker.lineage("kita/pick")
    old = world.worker.budgets.ledger_of(lineage)
    world.worker.close()
    (file,) = world.home.budget.glob("*.db")
    file.unlink()
    budgets = Budgets(world.home, key=world.member.identity.key, clock=world.clock)
    unit = {"unit": "episode", "adjacency": "zero-out"}
    budgets.of(lineage, cap(), charged_before=False, **unit)  # a fresh one, with nothing spent
    other = budgets.of("lin_other", cap(), charged_before=False, **unit)
    units = made_units("train", 20, seed="other")
    other.reserve(world.recipe.plan, CONTRACT, run=world_run(old), recipe=world.recipe.digest, units=units)
    other.touch(world_run(old), 1, 1)
    outbox = world.outbox()
    with pytest.raises(BudgetDivergedError):
        require_known(budgets, outbox)
    outbox.close()
    budgets.close()


def world_run(store: BudgetStore) -> str:
    return next(iter(store.state.holds))[0]


# --- a refused round fixes nothing ---


def test_a_refused_round_opens_no_ledger_and_fixes_no_cap(tmp_path: Path) -> None:
    world = ready_world(tmp_path)
    _, reply = world.ask(round=501, run="run_bbbbbbbbbbbbbbbb")
    assert reply.status == "refused"
    assert world.worker.budgets.lineages() == ()
    _, reply = world.ask()
    assert reply.status == "ok"
    claimed = float(reply.body["decision"]["request"]["epsilon_after_total"])
    (stem,) = world.worker.budgets.lineages()
    store = world.worker.budgets.find(stem)
    assert claimed == float(store.figures(world_cap(world)).epsilon_total)
    assert [one["kind"] for one in store.entries()][:3] == ["genesis", "block", "reserve"]


def world_cap(world: World):
    return world.worker.guard.seat(world.contract.digest, world.recipe.digest).cap


def test_a_reservation_that_is_refused_leaves_no_ledger(tmp_path: Path) -> None:
    budgets = Budgets(Home(tmp_path), key=KEY, clock=StillClock())
    many = made_units("train", 10_001)

    def first(store: BudgetStore) -> None:
        store.reserve(PRIVATE.plan, CONTRACT, run="run_0", recipe=PRIVATE.digest, units=many)

    with pytest.raises(DeltaTooLargeError):
        budgets.of("lin_a", cap(), unit="episode", adjacency="zero-out", charged_before=False, first=first)
    assert not list(tmp_path.rglob("*.db*"))


# --- a contract without privacy over data that have a budget ---


@pytest.fixture
def plain(tmp_path: Path) -> World:
    """In term under a contract without privacy, over data with a ledger."""
    world = plain_world(tmp_path)
    world.sign()
    world.finalize()
    world.add_data()
    world.clock.ms = IN_TERM_MS
    world.start()
    return world


def lineage_of(world: World) -> str:
    return world.worker.lineage("kita/pick")


def give_up(world: World, **changes: object) -> Answer:
    asked = {"lineage": lineage_of(world), "contract": world.contract.digest, "confirm": YES}
    return waive(world.home, world.member, world.shelf(), tell=lambda _lines: None, **(asked | changes))


def test_data_with_a_budget_are_not_used_without_privacy_unless_their_owner_says_so(plain: World) -> None:
    store = spent(plain.worker.budgets, lineage_of(plain), "")
    for kind in (ExchangeType.CONTRIBUTE, ExchangeType.JUDGE):
        _, reply = plain.ask(kind)
        assert (reply.status, reply.code) == ("refused", "local.refused")
    assert plain.learner.trained == []
    assert plain.learner.judged == 0
    with pytest.raises(NotConfirmedError):
        give_up(plain, confirm=lambda _shown: False)
    assert store.read().waived == {}
    shown: list[str] = []
    give_up(plain, confirm=lambda text: not shown.append(text))
    assert shown == [plain.contract.digest.removeprefix("sha256:")[:12]]
    assert store.read().waived == {plain.contract.digest: OWNER}
    _, reply = plain.ask(round=2)
    assert reply.status == "ok"
    with pytest.raises(BudgetError, match="marked so"):
        give_up(plain)


def test_a_waiver_is_shown_wherever_the_budget_is(plain: World) -> None:
    store = spent(plain.worker.budgets, lineage_of(plain), "")
    give_up(plain)
    plain.worker.close()
    outbox = plain.outbox()
    shown = budget_show(plain.home, plain.member, plain.shelf(), outbox)
    outbox.close()
    assert any("NOT PRIVATE: used without privacy under contract" in line for line in shown.text)
    assert shown.data["lineages"][0]["waived"] == [{"contract": plain.contract.digest, "by": OWNER}]
    document = build_statement(
        subject=Subject(run="run_0", model=None, contract="c", recipe="r"),
        claims=[claim("kita", PRIVATE.plan.document, lifetime=_figures(store_of(plain, store)))],
        evaluation=PRIVATE.evaluation.document,
        terms=Terms(),
    )
    check_statement(document)
    assert document["verdict"] == "NOT PRIVATE"
    for lang, words in (("en", "also used without privacy"), ("ja", "プライバシー保護なしにも使用された")):
        assert any(words in line for _, lines in page(document, lang=lang) for line in lines)


def test_an_older_copy_of_a_ledger_gets_the_mark_of_a_use_again(plain: World) -> None:
    spent(plain.worker.budgets, lineage_of(plain), "")
    (file,) = plain.home.budget.glob("*.db")
    old = file.read_bytes()
    give_up(plain)
    assert plain.ask()[1].status == "ok"
    plain.worker.close()
    file.write_bytes(old)
    plain.clock.ms += 1
    plain.start()
    assert plain.worker.budgets.ledger_of(lineage_of(plain)).state.waived == {plain.contract.digest: USE}
    assert plain.ask(round=2)[1].code == "local.refused"


def store_of(world: World, closed: BudgetStore) -> BudgetStore:
    budgets = Budgets(world.home, key=world.member.identity.key, clock=world.clock)
    return budgets.ledger_of(closed.state.lineage.scope)


def test_a_waiver_is_about_one_contract_and_needs_one_without_privacy(tmp_path: Path) -> None:
    world = ready_world(tmp_path)
    world.ask()
    with pytest.raises(BudgetError, match="without a privacy clause"):
        give_up(world)
    with pytest.raises(BudgetUnknownError):
        give_up(world, lineage="lin_none")


def test_without_a_ledger_a_contract_without_privacy_trains_and_the_first_ledger_bears_the_mark(
    plain: World,
) -> None:
    _, reply = plain.ask()
    assert reply.status == "ok"
    assert plain.worker.budgets.lineages() == ()
    plain.log_reply(reply)
    without = plain.contract.digest
    plain.worker.close()
    plain.recipe = PRIVATE
    plain.broker.annexes[PRIVATE.digest] = PRIVATE.canonical
    plain.offer(contract_id="ctr_" + "b" * 16)
    plain.clock.ms = IN_TERM_MS - 10_000_000_000
    plain.sign()
    plain.finalize()
    plain.clock.ms = IN_TERM_MS + 1000
    plain.start()
    _, reply = plain.ask(run="run_bbbbbbbbbbbbbbbb")
    assert reply.status == "ok"
    store = plain.worker.budgets.ledger_of(lineage_of(plain))
    assert store.state.waived == {without: USE}
    assert [one["kind"] for one in store.entries()][:2] == ["genesis", "waived"]
    # from now on the data have a budget: what was begun without one goes on by its owner's word only
    seat = plain.worker.guard.seat(
        without, next(iter(plain.shelf().get(without).contract.recipes)).recipe_digest
    )
    assert [one.clause for one in plain.worker.guard._site_rules.broken(seat)] == ["local:budget"]
