# SPDX-License-Identifier: Apache-2.0
"""The worker's learner and whose its data are: the plan's unit, the recipe's time base, trained and judged units."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow.parquet as pq
import pytest

from client.datasets.adding import data_add
from client.learner import HomeLearner, episodes_of
from client.settings import LocalRules
from policies.encoding import canonical
from policies.privacy.errors import EvalUnplannedError, UnitRefusedError
from policies.recipe import load
from tests.learnsim import changed, small_recipe
from tests.nodesim import SeedEntropy
from tests.nodeworld import RUN, World, ready_world, write_recording

if TYPE_CHECKING:
    from pathlib import Path

    from policies.recipe import Recipe


@pytest.fixture
def world(tmp_path: Path) -> World:
    return ready_world(tmp_path)


def learner(world: World) -> HomeLearner:
    return HomeLearner(world.home, entropy=SeedEntropy(b"l"), rules=LocalRules, threads=1)


def seat(world: World, recipe: Recipe | None = None) -> Any:
    found = world.worker.guard.seat(world.contract.digest, world.recipe.digest)
    return found if recipe is None else replace(found, recipe=recipe)


def of_unit(unit: str, *, evaluation: str) -> Recipe:
    return load(changed(small_recipe(unit=unit).canonical, "evaluation.unit", evaluation))


def test_data_without_the_key_that_a_plan_protects_are_refused_before_a_unit_is_paid_for(
    world: World,
) -> None:
    mine, paid = learner(world), []
    wanted = seat(world, of_unit("work-piece", evaluation="work-piece"))
    with pytest.raises(
        UnitRefusedError, match=r"privacy\.unit-refused.*unit work-piece.*of unit episode"
    ) as no:
        mine.update(wanted, RUN, (1, 1), mine.initial(wanted.recipe), paid.append)
    assert no.value.clause == wanted.clause.clause
    for split in ("train", "held-out"):
        with pytest.raises(UnitRefusedError, match="work-piece"):
            mine.units(wanted, split)
    with pytest.raises(UnitRefusedError, match="work-piece"):
        mine.judge(wanted, mine.initial(wanted.recipe))
    assert paid == []


def test_an_import_without_the_key_is_refused_where_the_contracts_recipes_need_it(world: World) -> None:
    outbox, shelf = world.outbox(), world.shelf()
    wanted = of_unit("order", evaluation="order")

    class OtherShelf:
        def __getattr__(self, name: str) -> Any:
            return (lambda *_: wanted) if name == "recipe" else getattr(shelf, name)

    with pytest.raises(UnitRefusedError, match="unit order, as the recipes of the contract"):
        data_add(
            world.member,
            OtherShelf(),  # type: ignore[arg-type]
            outbox,
            write_recording(world.folder / "more", seed=5),
            dataset="kita/pick",
            signal_map=None,
            contract=world.contract.digest,
            rules=LocalRules(),
            publish=False,
        )
    outbox.close()


def test_episodes_come_at_the_recipes_time_base_with_task_and_block(world: World) -> None:
    as_recorded = episodes_of(world.home, seat(world), "train", LocalRules())
    recipe = load(canonical({**json_of(world.recipe), "rate_hz": "10"}))
    found = episodes_of(world.home, seat(world, recipe), "train", LocalRules())
    assert {len(one.observation["tcp_pos"]) for one in as_recorded} == {24}  # at 20 Hz
    assert {len(one.observation["tcp_pos"]) for one in found} == {12}
    assert {len(one.action["gripper_cmd"]) for one in found} == {12}
    assert {(one.stratum, one.block) for one in found} == {("pick-place", 2)}


def json_of(recipe: Recipe) -> dict[str, Any]:
    import json

    found: dict[str, Any] = json.loads(recipe.canonical)
    return found


def test_a_candidate_is_not_judged_on_a_unit_that_was_trained_on(world: World) -> None:
    mine, asked = learner(world), seat(world)
    assert mine.judge(asked, mine.initial(asked.recipe))
    (path,) = world.home.data.rglob("iriai/episodes.parquet")
    rows = pq.read_table(path)
    units, splits = (rows[name].to_pylist() for name in ("unit_ids", "split"))
    units[splits.index("held-out")] = units[splits.index("train")]  # what an import never does
    at = rows.column_names.index("unit_ids")
    pq.write_table(rows.set_column(at, "unit_ids", [units]).cast(rows.schema), path)
    with pytest.raises(EvalUnplannedError, match=r"privacy\.eval-unplanned.*training set"):
        learner(world).judge(asked, mine.initial(asked.recipe))
