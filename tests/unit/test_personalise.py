# SPDX-License-Identifier: Apache-2.0
"""An individual model: trained at home, chosen by some held-out units, reported on others; nothing of it leaves."""

from __future__ import annotations

import hashlib
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from client.cli import app
from client.deploy.commands import package
from client.errors import DigestMismatchError, NoSuchThingError
from client.models import (
    Compared,
    Tuning,
    _told,
    individual_facts,
    is_individual,
    keep_individual,
    model_folder,
    personalise,
    read_model,
)
from client.personalising import divided, trained_on
from policies.contract.errors import RefusedError
from policies.encoding import digest
from policies.forward import split_weights
from tests.learnsim import episode
from tests.nodeworld import RUN, World, sha


def pulled(world: World) -> str:
    """A released model as `models pull` leaves it."""
    data = np.linspace(-1, 1, world.recipe.parameters, dtype="<f4").tobytes()
    model = digest(data)
    folder = model_folder(world.home, model)
    folder.mkdir(parents=True)
    (folder / "weights.f32").write_bytes(data)
    facts = {"model": model, "contract": world.contract.digest, "recipe": world.recipe.digest, "run": RUN}
    (folder / "model.json").write_text(json.dumps(facts | {"tier": "consortium", "statement": sha("said")}))
    return model


def files(folder: Path) -> dict[str, str]:
    return {
        str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest()
        for one in sorted(folder.rglob("*"))
        if one.is_file()
    }


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> World:
    world = World(tmp_path_factory.mktemp("site"))
    world.ready()
    world.worker.close()
    return world


def test_a_unit_that_chose_between_the_models_reports_nothing():
    held_out = [episode(number) for number in range(5)]
    held_out.append(replace(episode(9), unit_id=held_out[0].unit_id))  # a second episode of one unit
    select, report = divided(held_out)
    assert len(select) + len(report) == 6
    assert {one.unit_id for one in select}.isdisjoint(one.unit_id for one in report)
    assert (len({one.unit_id for one in select}), len({one.unit_id for one in report})) == (3, 2)


@pytest.mark.parametrize("mode", ["full", "head"])
def test_nothing_leaves_and_the_facts_lie_beside_the_model(world: World, mode: str):
    model, asked = pulled_once(world), len(world.broker.seen_requests)
    shutil.rmtree(model_folder(world.home, model, individual=True), ignore_errors=True)  # of a test before
    before = files(world.home.root)
    facts = trained_on(world.home, model, mode=mode)
    assert len(world.broker.seen_requests) == asked
    folder = model_folder(world.home, model, individual=True).relative_to(world.home.root)
    changed = {name for name, found in files(world.home.root).items() if before.get(name) != found}
    assert changed == {f"{folder}/weights.f32", f"{folder}/model.json"}
    kept, weights = read_model(world.home, model, individual=True)
    assert kept == facts
    assert (facts["mode"], facts["kept"], facts["tier"]) == (mode, "individual", "private")
    assert facts["selection_units"] >= 1
    assert float(facts["selection_loss"]) < float(facts["selection_loss_common"])
    common, own = (split_weights(world.recipe, one) for one in (read_model(world.home, model)[1], weights))
    moved = {name for name in common if (common[name] != own[name]).any()}
    assert moved == ({"head.weight", "head.bias"} if mode == "head" else set(common))


def pulled_once(world: World) -> str:
    found = [one.name for one in world.home.models.glob("*") if not one.name.startswith("individual-")]
    return f"sha256:{found[0]}" if found else pulled(world)


def test_a_contract_that_forbids_it_is_obeyed_with_its_clause(tmp_path: Path):
    world = World(tmp_path, changes={"derivatives.fine_tune": "forbidden"})
    world.ready()
    world.worker.close()
    model = pulled(world)
    with pytest.raises(RefusedError) as raised:
        trained_on(world.home, model)
    assert raised.value.clause == world.contract.derivatives.clause
    assert not model_folder(world.home, model, individual=True).exists()


def test_the_common_model_stays_where_the_individual_one_is_not_better(world: World):
    model = pulled_once(world)
    facts, weights = read_model(world.home, model)
    tuning = Tuning(
        mode="full",
        improved=False,
        selection_units=2,
        selection=(1.0, 1.0),
        report_units=2,
        report=(1.5, 1.5),
    )
    told = keep_individual(world.home, facts, weights, tuning)
    assert (told["kept"], told["gain"], told["held_out_loss"]) == ("common", "0.000000", "1.500000")
    assert (read_model(world.home, model, individual=True)[1] == weights).all()
    shown = " ".join(_told(told))
    assert "do not pass it on" not in shown
    assert "without --individual" in shown
    assert not is_individual(world.home, model)
    with pytest.raises(NoSuchThingError, match="without --individual"):
        package(world.home, model, world.home.root / "x.iriai", individual=True)
    again = " ".join(_told(individual_facts(told, Compared(mode="head", loss=1.6), stayed=True)))
    assert "stayed     the common model" in again
    assert "earlier individual" not in again
    keep_individual(world.home, facts, weights * np.float32(2), replace(tuning, improved=True))
    assert is_individual(world.home, model)


def test_a_second_training_never_speaks_of_an_individual_model_that_was_not_kept(world: World):
    model = pulled_once(world)
    facts, weights = read_model(world.home, model)
    tuning = Tuning(
        mode="head", improved=False, selection_units=1, selection=None, report_units=0, report=None
    )
    keep_individual(world.home, facts, weights, tuning)
    told = trained_on(world.home, model, mode="full")
    assert "earlier individual" not in " ".join(_told(told))


def test_without_a_second_held_out_unit_the_figure_is_undetermined_and_never_made_up():
    alone = Tuning(
        mode="head", improved=True, selection_units=1, selection=(2.0, 1.0), report_units=0, report=None
    )
    assert alone.facts()["held_out_loss"] is None
    assert alone.facts()["gain"] is None


def kept(world: World, loss: float | None, *, units: int, scale: float) -> str:
    """An individual model that an earlier training left: the common one, scaled."""
    model = pulled_once(world)
    facts, weights = read_model(world.home, model)
    report = None if loss is None else (2 * loss, loss)
    tuning = Tuning(
        mode="full", improved=True, selection_units=1, selection=(2.0, 1.0), report_units=units, report=report
    )
    keep_individual(world.home, facts, weights * np.float32(scale), tuning)
    return model


def test_a_second_mode_does_not_replace_a_better_individual_model_silently(world: World):
    model = pulled_once(world)
    good = trained_on(world.home, model, mode="full", replace=True)
    before = files(world.home.models)
    facts = trained_on(world.home, model, mode="head")
    if facts["stayed"]:
        assert files(world.home.models) == before
        assert (facts["mode"], facts["individual"]) == ("full", good["individual"])
        assert facts["compared"]["mode"] == "head"
        assert float(facts["compared"]["held_out_loss"]) >= float(good["held_out_loss"])
    else:
        assert float(facts["held_out_loss"]) < float(good["held_out_loss"])
        assert facts["compared"] == {"mode": "full", "held_out_loss": good["held_out_loss"]}
    forced = trained_on(world.home, model, mode="head", replace=True)
    assert (forced["mode"], forced["compared"], forced["stayed"]) == ("head", None, False)
    again = trained_on(world.home, model, mode="full")
    losses = [float(one["held_out_loss"]) for one in (forced, good)]
    assert again["individual"] == (good if losses[1] < losses[0] else forced)["individual"]


def test_the_earlier_model_is_judged_on_the_same_units_and_not_by_what_its_file_says(world: World):
    model = kept(world, 1e-9, units=50, scale=90)  # a bad one that boasts
    facts = trained_on(world.home, model, mode="full")
    assert (facts["stayed"], facts["kept"]) == (False, "individual")
    assert float(facts["compared"]["held_out_loss"]) > float(facts["held_out_loss"])


def test_an_earlier_model_that_cannot_be_read_is_not_written_over_unasked(world: World):
    model = kept(world, 1.0, units=5, scale=2)
    file = model_folder(world.home, model, individual=True) / "weights.f32"
    file.write_bytes(file.read_bytes()[:-4] + b"abcd")
    with pytest.raises(DigestMismatchError, match="--replace"):
        trained_on(world.home, model)
    assert not trained_on(world.home, model, replace=True)["stayed"]


@pytest.mark.parametrize(("units", "warned"), [(1, True), (9, True), (10, False), (40, False)])
def test_a_gain_on_fewer_than_ten_units_is_told_with_a_warning(units: int, warned: bool):
    tuning = Tuning(
        mode="head",
        improved=True,
        selection_units=9,
        selection=(2.0, 1.0),
        report_units=units,
        report=(2.0, 1.0),
    )
    facts = tuning.facts() | {"file": "weights.f32", "model": sha("common"), "individual": sha("own")}
    assert bool(facts["warnings"]) == warned
    assert any(line.startswith("WARNING") and "chance" in line for line in _told(facts)) == warned


def test_the_command_prints_the_gain_and_takes_two_modes(world: World):
    model = pulled_once(world)
    shown = personalise(world.home, model, mode="head", replace=True)
    assert shown.data["mode"] == "head"
    assert any("before" in line or "UNDETERMINED" in line for line in shown.text)
    assert any("do not pass it on" in line for line in shown.text)
    asked = ["models", "personalise", model, "--mode", "sideways", "--dir", str(world.home.root)]
    assert CliRunner().invoke(app, asked).exit_code == 2


def test_a_model_that_is_not_here_is_not_trained_on(world: World):
    with pytest.raises(NoSuchThingError):
        trained_on(world.home, sha("nothing"))
