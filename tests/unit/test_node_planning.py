# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from client import planning
from client.answers import Answer
from client.budgets import Budgets
from client.data import Store
from client.data.episodes import write_episodes
from client.identity import load_identity
from client.settings import Home
from policies.encoding import canonical
from policies.limits import CANARIES_MIN, UNITS_PER_CANARY
from policies.privacy.errors import (
    BudgetExhaustedError,
    BudgetUnknownError,
    DeltaTooLargeError,
    InfeasibleError,
    OrderUnfitError,
    PlanIncompleteError,
    SharesUnfitError,
)
from policies.privacy.plan import DpPlan
from sandbox.recipes import plain_recipe, private_recipe
from tests.learnsim import StillClock, cap, made_units, small_recipe
from tests.nodeworld import IN_TERM_MS, World, ready_world, write_recording
from tests.sumnode import PEERS

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app
    from client.cli.options import Open

PLAN = json.loads(private_recipe())["plan"]


def recipe_file(folder: Path, **plan: object) -> Path:
    path = folder / "recipe.json"
    path.write_bytes(canonical({**json.loads(private_recipe()), "plan": {**PLAN, **plan}}))
    return path


def planned(folder: Path, home: Home | None = None, **asked: object) -> planning.Planned:
    path = recipe_file(folder, **asked.pop("plan", {}))
    return planning.plan(
        home or Home(folder / "none"), recipe=path, **{"epsilon": None, "units": 250, "silos": None} | asked
    )


def test_a_plan_is_forecast_without_a_node_a_broker_or_a_signature(tmp_path: Path):
    found = planned(tmp_path)
    facts = found.answer.data
    assert facts["verdict"] == "fine"
    assert (facts["units"], facts["units_from"], facts["silos"], facts["parameters"]) == (
        250,
        "option",
        3,
        1180,
    )
    assert (facts["epsilon_rdp"], facts["delta_max"]) == ("7.999802", pytest.approx(0.0004))
    assert float(facts["epsilon_pld"]) == pytest.approx(7.305, abs=0.01)
    assert facts["budget"]["runs_left"] == 1
    assert facts["budget"]["order"] == 4
    assert not found.is_refused
    assert not (tmp_path / "none").exists()
    found.check()


def test_noise_is_calibrated_to_the_epsilon_that_is_asked_for(tmp_path: Path):
    facts = planned(tmp_path, epsilon=2.0, units=1_000).answer.data
    assert (facts["noise_multiplier"], facts["calibrated"]) == ("6.2244", True)
    assert facts["epsilon_rdp"] == "1.999976"
    assert facts["epsilon_pld"] == "1.834120"
    assert facts["budget"]["runs_left"] == 11


def test_every_figure_is_named_for_a_person(tmp_path: Path):
    text = "\n".join(planned(tmp_path).answer.text)
    for name in ("noise ratio", "epsilon_rdp", "epsilon_pld", "delta", "alpha*", "runs left", "slow core"):
        assert name in text


def test_too_few_units_are_refused_with_the_cheapest_remedy(tmp_path: Path):
    found = planned(tmp_path, units=60)
    assert found.is_refused
    first = "refused      the noise is 3.3 times the best signal; cheapest remedy: "
    assert any(line.startswith(first) for line in found.answer.text)
    assert planned(tmp_path, units=120).answer.text[-1].strip().startswith("or a weaker promise: epsilon ")
    with pytest.raises(InfeasibleError, match="at most 100 trainable parameters"):
        found.check()


def test_so_many_units_that_delta_is_too_large_are_refused(tmp_path: Path):
    found = planned(tmp_path, units=20_000)
    assert found.is_refused
    with pytest.raises(DeltaTooLargeError):
        found.check()


def test_shares_show_what_is_left_if_all_others_collude(tmp_path: Path):
    shares = {"noise": "shares", "honest_min": 3}
    facts = planned(tmp_path, plan=shares, silos=4).answer
    assert [round(float(one), 2) for one in facts.data["epsilon_by_colluders"]] == [8.0, 10.56, 18.71]
    assert facts.data["noise_ratio"] < planned(tmp_path, silos=4).answer.data["noise_ratio"]
    assert "18.70" in facts.text[-1]


def test_shares_among_three_silos_are_refused(tmp_path: Path):
    found = planned(tmp_path, plan={"noise": "shares", "honest_min": 3}, silos=3)
    with pytest.raises(SharesUnfitError, match="at least 4 independent groups"):
        found.check()


def test_a_recipe_without_privacy_has_nothing_to_plan(tmp_path: Path):
    path = tmp_path / "plain.json"
    path.write_bytes(plain_recipe())
    with pytest.raises(PlanIncompleteError, match="NOT PRIVATE"):
        planning.plan(Home(tmp_path), recipe=path, epsilon=None, units=10, silos=None)


@pytest.mark.parametrize("epsilon", [0.0, -1.0, float("nan"), float("inf"), 1e-9])
def test_an_epsilon_that_no_noise_reaches_is_refused(tmp_path: Path, epsilon: float):
    with pytest.raises(PlanIncompleteError):
        planned(tmp_path, epsilon=epsilon)


def test_an_empty_store_asks_for_the_number_of_units(tmp_path: Path):
    with pytest.raises(PlanIncompleteError, match="--units"):
        planned(tmp_path, units=None)


def test_units_are_counted_in_the_store_and_the_budget_is_that_of_their_ledger(tmp_path: Path):
    world = World(tmp_path)
    world.add_data()
    counted = planned(tmp_path, world.home, units=None).answer.data
    rows = [one.meta for one in Store(world.home.data).episodes("kita/pick")]
    assert counted["units"] == sum(one.split == "train" for one in rows)
    assert counted["units_from"] == "kita/pick"
    assert counted["budget"]["from"] == "default"

    lineage = Store(world.home.data).catalogue().dataset("kita/pick").lineage
    budgets = Budgets(world.home, key=load_identity(world.home).key, clock=StillClock())
    store = budgets.of(
        lineage, cap(total="20", release="8"), unit="episode", adjacency="zero-out", charged_before=False
    )
    before = planned(tmp_path, world.home, units=None).answer.data["budget"]
    plan = world.recipe.plan
    assert plan is not None
    store.reserve(
        plan,
        cap("sha256:" + "c" * 64, "20"),
        run="run_a",
        recipe=world.recipe.digest,
        units=made_units("train", 9),
    )
    budgets.close()
    after = planned(tmp_path, world.home, units=None).answer.data["budget"]
    assert (before["from"], before["epsilon_total"]) == ("ledger", "20")
    assert after["rho_left_nano"] == before["rho_left_nano"] - plan.steps * plan.rho_step_nano(
        order=before["order"]
    )
    assert after["runs_left"] == before["runs_left"] - 1


def test_a_ledger_that_does_not_verify_gives_no_figure(tmp_path: Path):
    world = World(tmp_path)
    world.add_data()
    world.home.budget.mkdir(parents=True, exist_ok=True)
    (world.home.budget / "0.db").write_bytes(b"no ledger")
    with pytest.raises(BudgetUnknownError):
        planned(tmp_path, world.home, units=None)


def test_the_owners_own_cap_is_the_budget_where_there_is_no_ledger(tmp_path: Path):
    home = Home(tmp_path)
    home.settings.write_text('[local]\nepsilon_total = "4"\n')
    facts = planned(tmp_path, home, epsilon=1.0, units=1_000).answer.data["budget"]
    assert (facts["from"], facts["epsilon_total"], facts["order"], facts["runs_left"]) == (
        "settings",
        "4",
        6,
        12,
    )


def test_a_cap_that_holds_no_run_is_said(tmp_path: Path):
    home = Home(tmp_path)
    home.settings.write_text('[local]\nepsilon_total = "4"\n')
    found = planned(tmp_path, home)
    assert found.answer.data["budget"] is None
    assert "no order holds one such run" in "\n".join(found.answer.text)
    assert found.answer.data["verdict"] == "refuse"
    with pytest.raises(
        BudgetExhaustedError, match=r"epsilon 4 of this site's own .* found epsilon 7\.999802"
    ):
        found.check()


def test_an_epsilon_that_no_order_holds_is_refused_with_its_figures(tmp_path: Path):
    found = planned(tmp_path, epsilon=20.0, units=10_000)
    assert (found.answer.data["noise_verdict"], found.answer.data["verdict"]) == ("fine", "refuse")
    assert found.answer.data["epsilon_pld"]
    with pytest.raises(OrderUnfitError, match="epsilon_lifetime in"):
        found.check()


def test_a_spent_ledger_is_refused_without_a_contract_too(tmp_path: Path):
    world = World(tmp_path)
    world.add_data()
    lineage = Store(world.home.data).catalogue().dataset("kita/pick").lineage
    budgets = Budgets(world.home, key=load_identity(world.home).key, clock=StillClock())
    cap_of_it = cap(total="8", release="8")
    store = budgets.of(lineage, cap_of_it, unit="episode", adjacency="zero-out", charged_before=False)
    plan = DpPlan.load(PLAN)
    wide = cap("sha256:" + "c" * 64, "20")
    store.reserve(plan, wide, run="run_a", recipe=world.recipe.digest, units=made_units("train", 9))
    budgets.close()
    found = planned(tmp_path, world.home, units=None, silos=1_000)
    assert found.answer.data["budget"]["from"] == "ledger"
    with pytest.raises(BudgetExhaustedError, match="less epsilon a run; or new data"):
        found.check()


def test_a_test_plan_is_said_to_be_not_private_before_all_else(tmp_path: Path):
    answer = planned(tmp_path, plan={"test_only": True}).answer
    assert answer.data["test_only"]
    assert answer.text[0].startswith("NOT PRIVATE  ")
    assert not any("NOT PRIVATE" in line for line in planned(tmp_path).answer.text)


SHARED = {"noise": "shares", "honest_min": 3}


def test_shares_are_planned_for_a_contract_that_opens_sums_only(tmp_path: Path):
    found = planned(tmp_path, plan=SHARED, silos=4)
    assert not found.is_refused
    assert found.answer.data["trainable"]
    assert not any("shares-unfit" in line for line in found.answer.text)


def test_shares_under_a_contract_that_lets_the_broker_read_updates_are_refused_first_of_all(tmp_path: Path):
    world = signed(tmp_path)
    found = planned(tmp_path, world.home, plan=SHARED, silos=4, contract=world.contract.digest)
    assert found.is_refused
    assert not found.answer.data["trainable"]
    assert found.answer.text[0].startswith("warning      privacy.shares-unfit: this contract lets the broker")


def test_shares_beyond_what_the_contracts_sums_have_room_for_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("client.contract.signable.check_noise_room", lambda *_: None)
    terms = {"aggregation.secure_aggregation": "required", "privacy.noise": "shares", "privacy.honest_min": 3}
    for norm, unfit in (("10", False), ("0.05", True)):
        changes = terms | {"aggregation.update_norm_max": norm}
        world = World(tmp_path / norm, changes=changes, peers=PEERS, recipe=small_recipe(**SHARED))
        world.sign()
        found = under(world, silos=4, contract=world.contract.digest)
        assert ("update_norm_max at least" in str(found.error)) == unfit


def test_a_target_per_stratum_is_planned_with_as_it_is_sampled(tmp_path: Path):
    plan = {"strata_target": "3"}
    one = planned(tmp_path, plan=plan, silos=4)
    assert one.answer.data["noise_ratio"] == pytest.approx(11.5, abs=0.1)
    assert (one.answer.data["strata"], one.answer.data["drawn_per_step"]) == (1, 3)
    assert "a step draws 3 of a silo's on average (strata_target 3 each)" in "\n".join(one.answer.text)
    with pytest.raises(InfeasibleError):
        one.check()
    many = planned(tmp_path, plan=plan, silos=4, strata=10).answer.data
    assert many["noise_ratio"] == pytest.approx(one.answer.data["noise_ratio"] / 10)
    assert planned(tmp_path, silos=4, strata=10).answer.data["drawn_per_step"] == 50  # no target, no strata
    with pytest.raises(PlanIncompleteError, match="as many strata as units"):
        planned(tmp_path, plan=plan, units=3, strata=4)


def test_the_strata_of_own_data_are_their_tasks(tmp_path: Path):
    world = World(tmp_path)
    world.add_data()
    rows = [one.meta for one in Store(world.home.data).episodes("kita/pick") if one.meta.split == "train"]
    sizes = Counter(one.task for one in rows)
    counted = planned(tmp_path, world.home, units=None, plan={"strata_target": "0.5"}).answer.data
    assert counted["strata"] == len(sizes)
    expected = sum(min(0.2 * size, 0.5) for size in sizes.values())
    assert counted["drawn_per_step"] == pytest.approx(expected, abs=0.01)


def test_attempts_of_a_model_are_no_units_until_a_person_says_that_they_ended_well(tmp_path: Path):
    world = World(tmp_path)
    world.add_data()
    store = Store(world.home.data)
    folder = store.folder("kita/pick", store.catalogue().dataset("kita/pick"))
    rows = store.episodes("kita/pick")
    assert planned(tmp_path, world.home, units=None).answer.data["units"] == 4
    trained = [row for row in rows if row.meta.split == "train"]
    for by, left in (("", 2), ("person", 4)):
        acted = {"source_kind": "deployed", "outcome": "success", "outcome_by": by}
        write_episodes(
            folder,
            [replace(row, meta=replace(row.meta, **acted)) if row in trained[:2] else row for row in rows],
        )
        assert planned(tmp_path, world.home, units=None).answer.data["units"] == left


@pytest.mark.parametrize(("lost", "code"), [(True, "budget.unknown"), (False, "budget.diverged")])
def test_a_lost_or_old_ledger_is_no_unspent_budget(tmp_path: Path, lost: bool, code: str):
    world = ready_world(tmp_path)
    path = recipe_file(tmp_path)
    command = [
        "privacy",
        "plan",
        "--recipe",
        str(path),
        "--units",
        "250",
        "--dir",
        str(world.home.root),
        "--json",
    ]
    seat = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    world.worker.budgets.of(
        seat.lineage, seat.opening, unit="episode", adjacency="zero-out", charged_before=False
    )
    old = {one: one.read_bytes() for one in world.home.budget.glob("*.db")}
    _, reply = world.ask()
    assert reply.status == "ok"
    assert CliRunner().invoke(app, command).exit_code == 0
    world.worker.close()
    shutil.rmtree(world.home.budget)
    if not lost:
        world.home.budget.mkdir()
        for one, data in old.items():
            one.write_bytes(data)
    done = CliRunner().invoke(app, command)
    assert (done.exit_code, json.loads(done.stdout)["error"]["code"]) == (7, code)


@pytest.mark.parametrize("weak", [{"epsilon": 1e9}, {"plan": {"noise_multiplier": "0.0001"}}], ids=str)
def test_a_plan_that_promises_nothing_has_no_tight_figure(tmp_path: Path, weak: dict[str, object]):
    answer = planned(tmp_path, **weak).answer
    assert answer.data["epsilon_pld"] is None
    assert float(answer.data["epsilon_rdp"]) > 1e6
    assert any("not computed above epsilon_rdp 100" in line for line in answer.text)


@pytest.mark.parametrize("epsilon", ["inf", "nan", "-1", "0"])
def test_an_epsilon_that_is_none_says_what_to_type(tmp_path: Path, epsilon: str):
    path = str(recipe_file(tmp_path))
    done = CliRunner().invoke(
        app, ["privacy", "plan", "--recipe", path, "--units", "9", "--epsilon", epsilon, "--json"]
    )
    error = json.loads(done.stdout)["error"]
    assert (done.exit_code, error["need"]) == (3, "--epsilon as a number above 0")
    assert "--epsilon 8" in error["remedy"]


@pytest.mark.parametrize("units", [60, 70, 250, 333, 12_345])
def test_a_delta_that_is_offered_is_taken(tmp_path: Path, units: int):
    answer = planned(tmp_path, units=units).answer
    (line,) = [one for one in answer.text if one.startswith("delta ")]
    most = re.search(r"at most (\S+) for", line).group(1)
    assert float(most) == answer.data["delta_max"]
    assert 0.9 / (10 * units) < float(most) <= 1 / (10 * units)
    DpPlan.load({**PLAN, "delta": most}).check_units(units)


@pytest.mark.parametrize("contract", [False, True])
def test_the_cap_that_new_data_begin_with_is_the_owners_where_it_is_set(tmp_path: Path, contract: bool):
    world = signed(tmp_path)
    named = {"contract": world.contract.digest} if contract else {}
    before = under(world, **named)
    assert (before.data["opened"]["from"], before.data["opened"]["is_open"]) == (
        "contract" if contract else "default",
        False,
    )
    world.rules(epsilon_lifetime="60")
    found = under(world, **named)
    assert found.data["opened"] == {"is_open": False, "from": "lifetime", "epsilon": "60"}
    assert found.data["budget"]["epsilon_total"] == "60"
    assert found.data["budget"]["runs_left"] > before.data["budget"]["runs_left"]
    text = "\n".join(found.text)
    assert "will be opened with epsilon 60, your epsilon_lifetime" in text
    assert "epsilon_lifetime in [local] of node.toml" in text


def signed(folder: Path, **changes: object) -> World:
    world = World(folder, changes=changes)
    world.add_data()
    world.sign()
    return world


def under(world: World, **asked: object) -> Answer:
    """The plan of the contract's own recipe, for 250 units."""
    recipe = world.recipe.digest
    if "contract" not in asked:
        recipe = str(world.folder / "recipe.json")
        Path(recipe).write_bytes(world.recipe.canonical)
    return planning.plan(
        world.home, **{"recipe": recipe, "epsilon": None, "units": 250, "silos": None} | asked
    ).answer


def test_a_contract_gives_caps_terms_and_runs_left(tmp_path: Path):
    world = signed(tmp_path)
    for name in (world.contract.digest, world.contract.digest[7:19]):
        for recipe in (world.recipe.digest, world.recipe.digest[7:19]):
            found = under(world, contract=name, recipe=recipe)
            assert found.data["recipe"] == world.recipe.digest
    said = found.data["contract"]
    assert (said["digest"], said["party"]) == (world.contract.digest, "kita")
    assert (said["epsilon_per_release"], said["epsilon_total"], said["max_colluders"]) == ("8.5", "20", 0)
    assert all(one["holds"] for one in said["findings"])
    assert found.data["silos"] == max(world.recipe.need, said["min_parties"])
    assert found.data["budget_contract"]["epsilon_total"] == "20"
    both = (found.data["budget"]["runs_left"], found.data["budget_contract"]["runs_left"])
    assert found.data["runs_left"] == min(both) > 0
    assert found.error is None
    assert "8.5 per release, 20 in all" in "\n".join(found.text)


def test_what_was_spent_under_a_contract_is_not_left_of_it(tmp_path: Path):
    world = signed(tmp_path)
    world.finalize()
    world.clock.ms = IN_TERM_MS
    world.start()
    before = under(world, contract=world.contract.digest, units=None).data
    _, reply = world.ask()
    assert reply.status == "ok"
    after = under(world, contract=world.contract.digest, units=None).data
    world.worker.close()
    assert after["budget_contract"]["runs_left"] == before["budget_contract"]["runs_left"] - 1
    assert (after["budget"]["from"], after["opened"]["is_open"]) == ("ledger", True)


@pytest.mark.parametrize(
    ("changes", "asked", "code", "words"),
    [
        ({"privacy.epsilon_per_release": "4"}, {}, "contract.refused", "epsilon of one run at most 4"),
        ({"privacy.delta": "0.001"}, {}, "contract.refused", "delta 0.001"),
        ({"privacy.adjacency": "add-remove"}, {}, "contract.refused", "adjacency add-remove"),
        ({}, {"silos": 1}, "contract.refused", "silos at least"),
        ({}, {"units": 20_000}, "privacy.delta-too-large", "delta at most"),
        ({}, {"units": 3}, "privacy.infeasible", "noise of at most"),
    ],
)
def test_a_plan_that_a_contract_does_not_allow_is_refused_with_its_figures(
    tmp_path: Path, changes: dict[str, object], asked: dict[str, object], code: str, words: str
):
    world = signed(tmp_path, **changes)
    found = under(world, contract=world.contract.digest, **asked)
    assert found.error is not None
    assert (found.error.code, words in found.error.need) == (code, True)
    assert (found.error.clause is not None) == (code == "contract.refused")
    assert found.data["epsilon_rdp"]
    assert any(line.startswith("refused") for line in found.text) or code == "privacy.delta-too-large"


def test_a_budget_that_holds_no_run_is_refused_under_a_contract(tmp_path: Path):
    world = signed(tmp_path)
    world.rules(epsilon_lifetime="4")
    found = under(world, contract=world.contract.digest)
    assert found.data["runs_left"] == 0
    assert found.error is not None
    assert found.error.code == "budget.exhausted"


def test_canaries_ask_for_so_many_own_units_and_fewer_are_warned_about(tmp_path: Path):
    assert under(w := signed(tmp_path / "a"), contract=w.contract.digest).data["canaries"] is None
    evidence = ["canary-report", "federated-evaluation", "log-root", "privacy-statement"]
    world = signed(tmp_path / "b", **{"release.evidence": evidence})
    few = under(world, contract=world.contract.digest, units=250)
    many = under(world, contract=world.contract.digest, units=5_000)
    count = -(-CANARIES_MIN // world.contract.aggregation.min_parties)
    assert few.data["canaries"]["count"] == count
    assert few.data["canaries"]["units_needed"] == count * UNITS_PER_CANARY > 250
    needed = f"a node needs {count * UNITS_PER_CANARY} units of its own"
    (warned,) = [line for line in few.text if needed in line]
    (told,) = [line for line in many.text if needed in line]
    assert warned.startswith("warning")
    assert told.startswith("canaries")


def test_data_are_imported_under_a_contract_that_is_named_by_its_first_digits(tmp_path: Path, monkeypatch):
    world = signed(tmp_path)
    world.finalize()

    @contextmanager
    def opened(_folder: Path) -> Iterator[Open]:
        outbox = world.outbox()
        yield Open(home=world.home, member=world.member, shelf=world.shelf(), outbox=outbox)
        outbox.close()

    monkeypatch.setattr("client.cli.data.opened", opened)
    recording = write_recording(tmp_path / "again")
    words = ["data", "add", str(recording), "--dataset", "kita/pick", "--no-publish", "--json"]
    for name in (world.contract.digest, world.contract.digest[7:19]):
        done = CliRunner().invoke(app, [*words, "--contract", name])
        assert done.exit_code == 0, done.stderr
        assert json.loads(done.stdout)["data"]["contract"] == world.contract.digest
    for name in ("f" * 12, "x"):
        refused = json.loads(CliRunner().invoke(app, [*words, "--contract", name]).stdout)
        assert refused["error"]["code"] == "node.not-found"


@pytest.mark.parametrize("command", ["plan", "audit"])
def test_names_that_fit_nothing_here_are_told_apart(tmp_path: Path, command: str):
    world = signed(tmp_path)
    whole, recipe = world.contract.digest, world.recipe.digest

    def refusal(*asked: str) -> str:
        done = CliRunner().invoke(app, ["privacy", command, *asked, "--dir", str(world.home.root), "--json"])
        error = json.loads(done.stdout)["error"]
        assert error["code"] == "node.not-found"
        return f"{error['need']}; {error['found']}; {error['remedy']}"

    assert "one contract here whose digest begins so" in refusal("--recipe", recipe, "--contract", "f" * 12)
    assert "first 12 hex digits" in refusal("--recipe", recipe, "--contract", whole[7:15])
    listed = f"{recipe[7:19]} ({world.contract.recipes[0].id})"
    for wrong in ("f" * 12, "sha256:" + "f" * 64):
        assert listed in refusal("--recipe", wrong, "--contract", whole[7:19])
    assert "needs --contract" in refusal("--recipe", recipe[7:19])


@pytest.mark.parametrize(("units", "code"), [("250", 0), ("120", 0), ("60", 4)])
def test_the_command_ends_with_the_verdict(tmp_path: Path, units: str, code: int):
    path = recipe_file(tmp_path)
    done = CliRunner().invoke(
        app,
        ["privacy", "plan", "--recipe", str(path), "--units", units, "--dir", str(tmp_path / "n"), "--json"],
    )
    envelope = json.loads(done.stdout)
    assert done.exit_code == code
    assert "noise ratio" in done.stderr
    if code:
        assert envelope["error"]["code"] == "privacy.infeasible"
        assert envelope["data"]["verdict"] == "refuse"  # the figures belong to the refusal
        assert envelope["data"]["remedies"]
    else:
        assert ("warning" in done.stderr) == (units == "120")
        assert envelope["data"]["verdict"] == ("warn" if units == "120" else "fine")


@pytest.mark.parametrize(("text", "code"), [(None, "node.not-found"), ("{}", "privacy.eval-unplanned")])
def test_what_is_no_recipe_is_refused(tmp_path: Path, text: str | None, code: str):
    path = tmp_path / "recipe.json"
    if text is not None:
        path.write_text(text)
    done = CliRunner().invoke(app, ["privacy", "plan", "--recipe", str(path), "--units", "9", "--json"])
    assert json.loads(done.stdout)["error"]["code"] == code


def test_planning_loads_no_torch(tmp_path: Path):
    code = (
        "import sys; from pathlib import Path; from client import planning; from client.settings import Home;"
        f"planning.plan(Home(Path({str(tmp_path)!r})), recipe=Path({str(recipe_file(tmp_path))!r}),"
        " epsilon=None, units=250, silos=None); sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
