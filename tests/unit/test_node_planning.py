# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

import json
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from client import planning
from client.budgets import Budgets
from client.data import Store
from client.identity import load_identity
from client.settings import Home
from policies.encoding import canonical
from policies.privacy.errors import (
    BudgetUnknownError,
    DeltaTooLargeError,
    InfeasibleError,
    PlanIncompleteError,
    SharesUnfitError,
)
from sandbox.recipes import plain_recipe, private_recipe
from tests.learnsim import StillClock, cap, made_units
from tests.nodeworld import World

with warnings.catch_warnings():  # typer 0.20 imports names that click 8.4 has deprecated
    warnings.simplefilter("ignore", DeprecationWarning)
    from typer.testing import CliRunner

    from client.cli import app

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
    assert found.answer.text[8].startswith(
        "refused      the noise is 3.3 times the best signal; cheapest remedy: "
    )
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
    with pytest.raises(SharesUnfitError, match="at least 4 independent groups"):
        planned(tmp_path, plan={"noise": "shares", "honest_min": 3}, silos=3)


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
    answer = planned(tmp_path, home).answer
    assert answer.data["budget"] is None
    assert "no order holds one such run" in "\n".join(answer.text)


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
