# SPDX-License-Identifier: Apache-2.0
"""Recordings and their budget: copies share it, new episodes have their own, and no unit has two."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from client.budgets import Budgets
from client.data import import_path, open_view
from client.privacy.units import Units, fingerprint
from client.settings import Home
from policies.privacy.blocks import block_number, split_charged, split_of
from policies.privacy.errors import (
    BudgetError,
    BudgetExhaustedError,
    EvalUnplannedError,
    LineageUnknownError,
)
from tests.learnsim import CONTRACT, KEY, StillClock, cap, made_units, small_recipe
from tests.nodeworld import FIELDS, write_recording

RECIPE = small_recipe()
NODE_KEY = b"n" * 32
RIGHTS = "sha256:" + "c" * 64


class Site:
    """A store of recordings and the ledgers beside it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.home = Home(folder / "node")
        self.budgets = Budgets(self.home, key=KEY, clock=StillClock())

    def add(self, dataset: str, recording: Path) -> str:
        """Imports; gives the lineage."""
        return import_path(
            self.home.data,
            recording,
            dataset=dataset,
            allow=frozenset(FIELDS),
            rights=RIGHTS,
            node_key=NODE_KEY,
            clock=StillClock(),
        ).lineage

    def record(self, name: str, **sizes: int) -> Path:
        return write_recording(self.folder / name, **sizes)

    def units(self, dataset: str, split: str = "train") -> Units:
        view = open_view(
            self.home.data, dataset, contract_fields=FIELDS, recipe_inputs=("tcp_pos",), local_allow=FIELDS
        )
        return Units.of(split, [(one.block, one.unit_id) for one in view.episodes(split)])

    def reserve(self, lineage: str, units: Units, run: str, plan=RECIPE.plan):
        store = self.budgets.of(
            lineage, cap(release="8"), unit="episode", adjacency="zero-out", charged_before=False
        )
        self.budgets.check_units(lineage, units)
        store.reserve(plan, CONTRACT, run=run, recipe=RECIPE.digest, units=units)
        return store


@pytest.fixture
def site(tmp_path):
    made = Site(tmp_path)
    yield made
    made.budgets.close()


def test_a_copy_a_renamed_one_and_a_subset_are_charged_where_the_first_one_was(site):
    lineage = site.add("kita/pick", site.record("all", train=6, held_out=2))
    shutil.copytree(site.folder / "all", site.folder / "copy")
    assert site.add("kita/renamed", site.folder / "copy") == lineage
    assert site.add("kita/some", site.record("some", train=3, held_out=0)) == lineage
    first, renamed, some = (site.units(name) for name in ("kita/pick", "kita/renamed", "kita/some"))
    assert renamed == first
    assert set(some.blocks) == set(first.blocks) == {"train-2"}
    assert some.fingerprints < first.fingerprints
    store = site.reserve(lineage, first, "run_a")
    before = store.state.in_block("train-2").held
    with pytest.raises(BudgetExhaustedError):  # the lifetime cap held one such run, under whatever name
        site.reserve(lineage, some, "run_b")
    assert store.state.in_block("train-2").held == before


def test_new_episodes_open_a_block_with_a_budget_of_its_own(site):
    lineage = site.add("kita/pick", site.record("first", train=6, held_out=2))
    site.reserve(lineage, site.units("kita/pick"), "run_a")
    later = site.record("later", train=5, held_out=1, seed=7)
    assert site.add("kita/pick", later) == lineage
    both = site.units("kita/pick")
    assert {name: len(units) for name, units in both.blocks.items()} == {"train-2": 6, "train-4": 5}
    with pytest.raises(BudgetExhaustedError, match="train-2"):  # a run that reads both is charged to both
        site.reserve(lineage, both, "run_b")
    assert site.add("kita/later", later) == lineage
    alone = site.units("kita/later")
    assert set(alone.blocks) == {"train-4"}
    with pytest.raises(BudgetExhaustedError, match="sha256:cccc"):  # the contract's cap counts every block
        site.reserve(lineage, alone, "run_c")
    store = site.budgets.ledger_of(lineage)
    store.reserve(RECIPE.plan, cap("sha256:" + "d" * 64), run="run_d", recipe=RECIPE.digest, units=alone)
    assert store.touch("run_d", 1, 1).blocks == ("train-4",)
    assert store.state.in_block("train-2").spent == 0
    assert store.figures_of("train-4").rho_spent_nano == RECIPE.plan.rho_step_nano(order=4)


def test_a_store_that_was_lost_and_filled_in_another_way_has_no_second_budget(site):
    first, later = (
        site.record("first", train=6, held_out=2),
        site.record("later", train=5, held_out=1, seed=7),
    )
    lineage = site.add("kita/pick", first)
    site.add("kita/pick", later)
    site.reserve(lineage, site.units("kita/pick"), "run_a")
    shutil.rmtree(site.home.data)
    other = site.add("kita/pick", later)
    site.add("kita/pick", first)
    assert other != lineage
    with pytest.raises(LineageUnknownError, match=f"charged to {lineage}"):
        site.reserve(other, site.units("kita/pick"), "run_b")
    shutil.rmtree(site.home.data)
    assert site.add("kita/pick", first) == lineage  # what the remedy says
    with pytest.raises(BudgetExhaustedError):
        site.reserve(lineage, site.units("kita/pick"), "run_b")


def test_the_ledger_knows_a_units_block_whatever_the_catalogue_says(site):
    units = made_units("train", 6, block=1)
    store = site.reserve("lin_parts", units, "run_a")
    moved = Units(
        split="train", manifest=units.manifest, blocks={"train-3": next(iter(units.blocks.values()))}
    )
    fresh = cap("sha256:" + "e" * 64)
    with pytest.raises(BudgetExhaustedError, match="train-1"):
        store.reserve(RECIPE.plan, fresh, run="run_b", recipe=RECIPE.digest, units=moved)
    assert set(store.state.blocks) == {"train-1"}  # nothing of a refused call stays
    assert set(store.state.units.values()) == {"train-1"}


def test_held_out_units_are_never_trained_on_and_trained_ones_never_judged_on(site):
    store = site.reserve("lin_parts", made_units("train", 6), "run_a")
    held = made_units("held-out", 4)
    plan, fresh = RECIPE.evaluation, cap("sha256:" + "e" * 64)
    store.reserve(plan, fresh, run="run_b", recipe=RECIPE.digest, units=held)
    before = store.state
    disguised = Units(
        split="train", manifest=held.manifest, blocks={"train-1": next(iter(held.blocks.values()))}
    )
    trained = Units(
        split="held-out",
        manifest=held.manifest,
        blocks={"held-out-2": next(iter(made_units("train", 6).blocks.values()))},
    )
    for one, charged in (
        (RECIPE.plan, held),
        (plan, made_units("train", 6)),
        (RECIPE.plan, disguised),
        (plan, trained),
    ):
        with pytest.raises(EvalUnplannedError, match=r"privacy\.eval-unplanned"):
            store.reserve(one, fresh, run="run_c", recipe=RECIPE.digest, units=charged)
    assert store.state == before


@pytest.mark.parametrize("found", [[(0, b"a" * 32)], [(1, b"a" * 32), (3, b"a" * 32)]])
def test_a_unit_without_a_block_or_in_two_has_no_budget(found):
    with pytest.raises(LineageUnknownError, match=r"budget\.lineage-unknown"):
        Units.of("train", found)


def test_units_without_a_lineage_are_refused(site):
    for lineage, units in (("", made_units("train", 2)), ("lin_parts", Units.of("train", []))):
        with pytest.raises(LineageUnknownError):
            site.budgets.check_units(lineage, units)


def test_episodes_of_one_unit_are_counted_once():
    units = Units.of("train", [(1, b"a" * 32), (1, b"a" * 32), (1, b"b" * 32)])
    assert units.count == 2
    assert units.fingerprints == {fingerprint(b"a" * 32), fingerprint(b"b" * 32)}


def test_a_cap_is_tightened_at_its_own_order_and_never_loosened(site):
    store = site.reserve("lin_parts", made_units("train", 6), "run_a")
    order, held = store.state.lineage.order, store.figures().rho_held_nano
    store.touch("run_a", 1, 1)
    for total in ("8", "9", "0", "-1", "NaN", "Infinity", "much"):
        with pytest.raises(BudgetError, match="tightened only"):
            store.tighten(total)
    store.tighten("6.5")
    figures = store.figures()
    assert (figures.epsilon_max, figures.order) == ("6.5", order)
    assert figures.rho_held_nano + figures.rho_spent_nano == held
    step, spent = RECIPE.plan.rho_step_nano(order=order), figures.rho_spent_nano
    fits = (figures.rho_max_nano - spent) // step  # it goes on until what is spent is at the lower cap
    assert 0 < fits < 190
    for number in range(2, 2 + fits):
        store.touch("run_a", number, 1)
    with pytest.raises(BudgetExhaustedError, match=r"at most epsilon 6\.5"):
        store.touch("run_a", 2 + fits, 1)
    figures = store.figures()
    assert 0 <= figures.rho_max_nano - figures.rho_spent_nano < step
    store.commit("run_a")
    for contract in (CONTRACT, cap("sha256:" + "e" * 64)):
        with pytest.raises(BudgetExhaustedError, match="lin_parts"):
            store.reserve(
                small_recipe(noise_multiplier="8").plan,
                contract,
                run="run_b",
                recipe=RECIPE.digest,
                units=made_units("train", 6),
            )
    with pytest.raises(BudgetError):
        store.tighten("7")


@pytest.mark.parametrize(
    "name", ["train", "train-01", "train--1", "test-1", "held-out", "train-1 ", "train-x", ""]
)
def test_a_block_has_a_split_and_a_number(name):
    assert (split_of("held-out-2"), block_number("train-30")) == ("held-out", 30)
    for read in (split_of, block_number):
        with pytest.raises(BudgetError, match="a block like"):
            read(name)


def test_a_plan_of_an_unknown_kind_charges_nothing():
    with pytest.raises(BudgetError, match="a known plan"):
        split_charged({"schema": "iriai-dp-plan/9"})


def test_a_run_reads_so_many_blocks_and_no_more(site):
    names = [(number, number.to_bytes(4, "big") * 8) for number in range(1, 514)]
    with pytest.raises(BudgetError, match="1 to 512 blocks"):
        site.reserve("lin_parts", Units.of("train", names), "run_a")
