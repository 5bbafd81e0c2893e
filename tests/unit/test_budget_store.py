# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from policies.identity import SigningKey
from policies.privacy import DpPlan, ledger
from policies.privacy.errors import (
    BudgetError,
    BudgetExhaustedError,
    BudgetUnknownError,
    CancelAfterTouchError,
    DeltaTooLargeError,
    OrderUnfitError,
    PlanMismatchError,
)
from tests.learnsim import CONTRACT, KEY, Budget, StillClock, cap, made_units, small_recipe

RECIPE = small_recipe()
SMALL = small_recipe(noise_multiplier="6.2244")


@pytest.fixture
def budget(tmp_path):
    return Budget(tmp_path / "budget" / "lin_parts.db", RECIPE)


@pytest.fixture
def store(budget):
    with budget.create() as opened:
        yield opened


def test_a_run_reserves_touches_and_commits_and_what_ran_not_is_released(budget, store):
    budget.reserve(store)
    held = store.figures()
    assert held.rho_spent_nano == 0
    assert held.rho_held_nano == 200 * RECIPE.plan.rho_step_nano(order=4)
    spend = [store.touch("run_a", number, 1) for number in range(1, 191)][-1]
    assert (spend.steps, spend.steps_total, spend.mechanism) == (1, 190, "run_a/train/190/1")
    assert spend.plan_digest == RECIPE.plan.digest
    store.commit("run_a")
    figures = store.figures(CONTRACT)
    assert figures.rho_held_nano == 0
    assert figures.rho_spent_nano == 190 * RECIPE.plan.rho_step_nano(order=4)
    assert float(figures.epsilon_spent) < 8
    assert store.figures(split="held-out").epsilon_spent == "0.000000"


def test_preview_shows_what_a_reservation_would_cost_and_changes_nothing(budget, store):
    before = store.state.head
    shown = store.preview(RECIPE.plan, CONTRACT)
    assert shown.epsilon_release == "7.999802"
    assert shown.epsilon_total == "7.999802"
    assert store.state.head == before
    budget.reserve(store)
    assert store.figures(CONTRACT).epsilon_total == shown.epsilon_total


def test_eleven_default_runs_fit_and_the_twelfth_is_refused(tmp_path):
    budget = Budget(tmp_path / "l.db", SMALL)
    with budget.create(cap(release="2")) as store:
        contract = cap("sha256:" + "d" * 64, release="2.001")
        for number in range(11):
            budget.reserve(store, f"run_{number}", contract)
        with pytest.raises(BudgetExhaustedError, match=r"budget\.exhausted"):
            budget.reserve(store, "run_12", contract)
        assert len(store.state.holds) == 11


def test_the_contracts_cap_is_a_second_filter(tmp_path):
    budget = Budget(tmp_path / "l.db", SMALL)
    with budget.create(cap(release="2")) as store:
        tight = cap("sha256:" + "d" * 64, total="4", release="2.001")
        for number in range(3):
            budget.reserve(store, f"run_{number}", tight)
        with pytest.raises(BudgetExhaustedError, match="sha256:dddd"):
            budget.reserve(store, "run_4", tight)
        budget.reserve(store, "run_5", cap("sha256:" + "e" * 64, total="4", release="2.001"))


def test_a_cap_that_was_tightened_counts_what_was_spent_at_its_own_order(tmp_path):
    contract, own = (cap("sha256:" + "d" * 64, total=total, release="2") for total in ("8", "2"))
    assert contract.order != own.order
    rest = DpPlan.load(SMALL.plan.document | {"steps": 120})
    facts = {"recipe": SMALL.digest, "units": made_units("train", 80)}
    budget = Budget(tmp_path / "l.db", SMALL)
    with budget.create(cap(release="2")) as store:
        store.reserve(SMALL.plan, contract, run="run_a", **facts)
        for number in range(200):
            store.touch("run_a", number, 1)
        store.commit("run_a")
        assert store.figures(own).epsilon_spent == "1.999976"
        for caps in ({"contract": own}, {"contract": contract, "own": own}):
            with pytest.raises(BudgetExhaustedError, match="order 10"):
                store.reserve(rest, run="run_b", **caps, **facts)
        store.reserve(rest, contract, run="run_b", **facts)
        store.check_holds(contract)
        with pytest.raises(BudgetExhaustedError):
            store.check_holds(own)


@pytest.mark.parametrize("total", ["2", "3", "4", "5", "6", "7", "7.5", "7.9"])
def test_a_tightened_cap_refuses_earlier_and_never_later(tmp_path, total):
    contract, own = (cap("sha256:" + "d" * 64, total=one, release="2") for one in ("8", total))
    plans = [
        DpPlan.load(SMALL.plan.document | {"noise_multiplier": sigma, "steps": steps})
        for sigma, steps in (("9", 150), ("30", 200), ("7", 100))
    ]
    facts = {"recipe": SMALL.digest, "units": made_units("train", 80)}
    budget = Budget(tmp_path / "loose.db", SMALL), Budget(tmp_path / "tight.db", SMALL)
    roomy = cap(total="40", release="2")
    with budget[0].create(roomy) as loose, budget[1].create(roomy) as tight:
        taken = {"loose": 0, "tight": 0}
        for number in range(90):
            for name, store, tighter in (("loose", loose, None), ("tight", tight, own)):
                if taken[name] == number:  # the first refusal ends it
                    with contextlib.suppress(BudgetExhaustedError):
                        store.reserve(plans[number % 3], contract, run=f"run_{number}", own=tighter, **facts)
                        taken[name] += 1
        assert taken["tight"] <= taken["loose"] < 90
        assert tight.figures(own).rho_held_nano <= own.rho_max_nano
        assert ledger.replay(tight.entries()) == tight.state


def test_an_owners_cap_is_one_of_the_contract(budget, store):
    with pytest.raises(BudgetError):
        store.reserve(
            RECIPE.plan, CONTRACT, run="run_a", recipe="r", units=made_units("train", 80), own=cap("another")
        )


def test_a_release_over_its_cap_too_many_units_and_another_unit_are_refused(budget, store):
    with pytest.raises(BudgetExhaustedError, match="per release"):
        budget.reserve(store, contract=cap("sha256:" + "d" * 64, release="2"))
    facts = {"run": "run_a", "recipe": RECIPE.digest}
    with pytest.raises(DeltaTooLargeError):
        store.reserve(RECIPE.plan, CONTRACT, units=made_units("train", 10_001), **facts)
    pieces = small_recipe(unit="work-piece")
    with pytest.raises(PlanMismatchError):
        store.reserve(pieces.plan, CONTRACT, units=made_units("train", 80), **facts)


def test_a_cap_that_holds_no_release_cannot_be_opened(budget):
    with pytest.raises(OrderUnfitError):
        budget.create(cap(total="1", release="2"))
    assert not budget.path.exists()


def test_each_round_and_attempt_is_touched_once(budget, store):
    budget.reserve(store)
    store.touch("run_a", 1, 1)
    with pytest.raises(BudgetExhaustedError, match="again"):
        store.touch("run_a", 1, 1)
    store.touch("run_a", 1, 2)
    assert store.state.holds[("run_a", "train")].steps_spent == 2


def test_without_reservation_nothing_is_touched_and_after_the_last_step_neither(budget, store):
    with pytest.raises(BudgetExhaustedError, match="reserve before training"):
        store.touch("run_a", 1, 1)
    budget.reserve(store)
    for number in range(RECIPE.plan.steps):
        store.touch("run_a", number, 1)
    with pytest.raises(BudgetExhaustedError, match="0 left"):
        store.touch("run_a", 200, 1)


def test_a_reservation_is_cancelled_only_before_the_first_touch(budget, store):
    budget.reserve(store)
    store.cancel("run_a")
    assert store.figures().rho_held_nano == 0
    budget.reserve(store, "run_b")
    store.touch("run_b", 1, 1)
    with pytest.raises(CancelAfterTouchError, match=r"privacy\.cancel-after-touch"):
        store.cancel("run_b")
    assert store.is_reserved("run_b")
    with pytest.raises(BudgetError):
        budget.reserve(store, "run_b")


def test_evaluation_charges_the_held_out_block(budget, store):
    plan = RECIPE.evaluation
    units = made_units("held-out", 16)
    store.reserve(plan, CONTRACT, run="run_a", recipe=RECIPE.digest, units=units)
    assert store.touch("run_a", 190, 1, split="held-out").blocks == ("held-out-2",)
    assert store.figures().rho_spent_nano == 0
    assert store.figures(split="held-out").rho_spent_nano == plan.rho_step_nano(order=4)


def test_it_opens_again_with_the_same_state(budget):
    with budget.create() as store:
        budget.reserve(store)
        store.touch("run_a", 1, 1)
        state = store.state
    with budget.open() as again:
        assert again.state == state
        assert ledger.replay(again.entries()) == state
        again.touch("run_a", 2, 1)
    assert budget.path.stat().st_mode & 0o777 == 0o600


def test_two_handles_never_spend_the_same_step(budget, store):
    budget.reserve(store)
    with budget.open() as other:
        for number in range(RECIPE.plan.steps):
            (store, other)[number % 2].touch("run_a", number, 1)
        for handle in (store, other):
            with pytest.raises(BudgetExhaustedError):
                handle.touch("run_a", 500, 1)
            assert handle.figures().rho_held_nano == 0


def test_a_lost_ledger_is_an_unknown_budget_and_none_starts_anew(budget):
    budget.create().close()
    with pytest.raises(BudgetUnknownError, match=r"budget\.unknown"):
        budget.create()
    budget.path.unlink()
    with pytest.raises(BudgetUnknownError, match="none"):
        budget.open()


def filled(budget):
    with budget.create() as store:
        budget.reserve(store)
        for number in range(3):
            store.touch("run_a", number, 1)


def alter(path: Path, statement: str, *values: object) -> None:
    db = sqlite3.connect(path)
    with db:
        db.execute(statement, values)
    db.close()


@pytest.mark.parametrize(
    "statement",
    [
        "DELETE FROM entry WHERE seq = 5",
        "DELETE FROM entry WHERE seq = 3",
        "DELETE FROM entry",
        "DELETE FROM head",
        "UPDATE entry SET seq = seq + 1 WHERE seq = 5",
        "UPDATE entry SET signature = zeroblob(64) WHERE seq = 5",
        "UPDATE entry SET body = (SELECT body FROM entry WHERE seq = 4) WHERE seq = 5",
        "UPDATE head SET seq = 4",
        "PRAGMA application_id = 7",
        "DROP TABLE entry",
    ],
)
def test_a_ledger_that_was_changed_is_an_unknown_budget(budget, statement):
    filled(budget)
    alter(budget.path, statement)
    with pytest.raises(BudgetUnknownError, match=r"budget\.unknown"):
        budget.open()


def test_a_cheaper_entry_is_refused_even_if_its_digest_is_right(budget):
    filled(budget)
    db = sqlite3.connect(budget.path)
    (body,) = db.execute("SELECT body FROM entry WHERE seq = 5").fetchone()
    db.close()
    entry = json.loads(body)
    entry["body"]["steps"] = 0
    bare = {k: v for k, v in entry.items() if k != "digest"}
    forged = bare | {"digest": ledger.digest_of(bare)}
    signature = KEY.sign(forged["digest"].encode())
    alter(
        budget.path,
        "UPDATE entry SET body = ?, signature = ? WHERE seq = 5",
        ledger_bytes(forged),
        signature,
    )
    alter(budget.path, "UPDATE head SET digest = ?", forged["digest"])
    with pytest.raises(BudgetUnknownError):
        budget.open()


def ledger_bytes(entry: dict[str, object]) -> bytes:
    from policies.encoding import canonical

    return canonical(entry)


def test_every_flipped_byte_of_an_entry_is_found(budget):
    filled(budget)
    db = sqlite3.connect(budget.path)
    bodies = db.execute("SELECT seq, body FROM entry ORDER BY seq").fetchall()
    db.close()
    flips = 0
    for seq, body in bodies:
        for position in range(seq, len(body), 1 + len(body) // 9):
            flipped = bytearray(body)
            flipped[position] ^= 1
            alter(budget.path, "UPDATE entry SET body = ? WHERE seq = ?", bytes(flipped), seq)
            with pytest.raises(BudgetUnknownError):
                budget.open()
            flips += 1
        alter(budget.path, "UPDATE entry SET body = ? WHERE seq = ?", body, seq)
    print(f"{flips} flipped bytes in {len(bodies)} entries, each found")
    budget.open().close()


@pytest.mark.parametrize("kept", [0, 100, 5000])
def test_a_file_that_was_cut_is_an_unknown_budget(budget, kept):
    filled(budget)
    os.truncate(budget.path, kept)
    with pytest.raises(BudgetUnknownError):
        budget.open()


def test_another_nodes_ledger_and_an_old_backup_are_unknown(budget, tmp_path):
    filled(budget)
    from client.privacy.store import BudgetStore

    with pytest.raises(BudgetUnknownError):
        BudgetStore(budget.path, clock=StillClock(), key=SigningKey.from_seed(b"X" * 32))
    backup = tmp_path / "old.db"
    backup.write_bytes(budget.path.read_bytes())
    with budget.open() as store:
        spend = store.touch("run_a", 9, 1)
    with budget.open(at_least=(spend.ledger_seq, spend.ledger_head)):
        pass
    with pytest.raises(BudgetUnknownError, match="the broker has seen"):
        Budget(backup, RECIPE).open(at_least=(spend.ledger_seq, spend.ledger_head))


def test_a_disk_that_cannot_be_written_is_an_unknown_budget(budget):
    filled(budget)
    with budget.open() as store:
        store._db.execute("PRAGMA query_only = ON")
        with pytest.raises(BudgetUnknownError):
            store.touch("run_a", 9, 1)
        store._db.execute("PRAGMA query_only = OFF")
        assert store.touch("run_a", 9, 1).steps_total == 4


# one interpreter forks a node per number of statements, because imports take longer than the rest
CHILD = """
    import os, sys
    from pathlib import Path
    from tests.learnsim import Budget, small_recipe
    folder, recipe = Path(sys.argv[1]), small_recipe()
    for die_at in range(1, 20):
        child = os.fork()
        if child == 0:
            store = Budget(folder / f"copy{die_at}.db", recipe).open()
            report = os.open(folder / f"report{die_at}", os.O_CREAT | os.O_WRONLY)
            done = [0]
            def trace(statement):
                done[0] += 1
                if done[0] == die_at:
                    os.kill(os.getpid(), 9)
            store._db.set_trace_callback(trace)
            for number in range(100, 103):
                store.touch("run_a", number, 1)
                os.write(report, b"trained ")
            os._exit(0)
        os.waitpid(child, 0)
"""


def test_a_node_killed_at_any_statement_never_spends_less_than_it_trained(budget):
    filled(budget)
    folder = budget.path.parent
    for die_at in range(1, 20):
        (folder / f"copy{die_at}.db").write_bytes(budget.path.read_bytes())
    code = textwrap.dedent(CHILD)
    subprocess.run([sys.executable, "-c", code, str(folder)], check=True, cwd=Path(__file__).parents[2])
    trained_counts = set()
    for die_at in range(1, 20):
        trained = len((folder / f"report{die_at}").read_bytes().split())
        with Budget(folder / f"copy{die_at}.db", RECIPE).open() as store:
            spent = store.state.holds[("run_a", "train")].steps_spent - 3
            assert trained <= spent <= trained + 1
            assert store.figures().rho_spent_nano == (spent + 3) * RECIPE.plan.rho_step_nano(order=4)
            store.touch("run_a", 200, 1)
        trained_counts.add(trained)
    assert trained_counts == {0, 1, 2, 3}
