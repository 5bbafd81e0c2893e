# SPDX-License-Identifier: Apache-2.0
"""``recipe check``: what a recipe will do, and whether a data set of this site fits it, before anybody signs.

A finding ``no`` is one that training or judging would refuse, or that leaves nothing to train on; ``warns``
is one that a person should look at. With a data set, in this order:

1. variant: one fits class and fields of the data set, else the task's class is that of the data (a warning);
2. fields: the site's own list and the store let every field be opened, in its size;
3. unit: plan and evaluation plan protect the unit of the data;
4. units: there are some to train on, and where there is a plan, enough for its noise and delta; held-out ones
   to judge by;
5. label: of what is detected, both answers, or two classes, are there;
6. scales: none is above four times this site's own spread (`client.data.quality.ratios`);
7. certificate: it says what the recipe demands (`client.data.quality.admitting`).

Steps 3 to 7 need a data set that can be opened. Nothing is written, and nothing leaves.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Final, Literal

import numpy as np

from client.answers import Answer, plain
from client.data.errors import DataError
from client.identity import load_identity
from client.private_parts import site_recipe
from client.recipes.completing import complete
from client.recipes.describing import described, facts_of
from client.recipes.sources import read_source
from client.seeds import read_file
from client.seeds.donated import is_given, withheld
from client.settings import load_settings
from policies.errors import IriaiError
from policies.privacy.feasibility import feasibility
from policies.recipe import BinaryLoss, RecipeError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from client.data.catalogue import Dataset
    from client.data.fields import EpisodeView
    from client.settings import Home
    from policies.ports import Clock
    from policies.recipe import Recipe

__all__ = ["Finding", "recipe_check"]

_FAILED: Final = 3
_MARKS: Final = {"yes": "fits", "warns": "WARNING", "no": "NO"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        about: What.
        holds: ``no`` where it cannot run so.
        found: What is there.
        need: What is needed; empty where it holds.
        remedy: What to do; likewise.
    """

    about: str
    holds: Literal["yes", "warns", "no"]
    found: str
    need: str = ""
    remedy: str = ""


def recipe_check(home: Home, file: Path, *, dataset: str | None, clock: Clock) -> Answer:
    """Says what a recipe will do, and with a data set whether it can run here; exit 3 where it cannot.

    Raises:
        RecipeError, PrivacyError: It is no recipe.
        NotInitialisedError: There is no node in the folder, for a data set.
        DatasetUnknownError: No such data set.
    """
    made = complete(read_source(file))
    found = [] if made.data == read_file(file) else [_source(file)]
    if dataset is not None:
        found += _Fitting(home.need(), made.recipe, dataset, clock).findings()
    runs = all(one.holds != "no" for one in found)
    return Answer(
        data={
            **facts_of(made.recipe),
            "dataset": dataset,
            "findings": [asdict(one) for one in found],
            "runs": runs,
        },
        text=(*described(made.recipe), *_told(dataset, found, runs=runs)),
        exit_code=0 if runs else _FAILED,
    )


def _source(file: Path) -> Finding:
    return Finding(
        about="bytes",
        holds="no",
        found=f"{file.name} is not the one spelling of this recipe",
        need="canonical bytes: they are what a contract names",
        remedy=f"iriai-node recipe format {file}",
    )


def _told(dataset: str | None, found: list[Finding], *, runs: bool) -> Iterator[str]:
    if dataset is not None:
        yield f"data       {dataset}"
    for one in found:
        yield f"{_MARKS[one.holds]:<10} {one.about}: {plain(one.found)}"
        if one.need:
            yield f"           needs {plain(one.need)}; {plain(one.remedy)}"
    if not runs:
        yield "it cannot run so" if dataset is None else f"it cannot run on {dataset}"


class _Fitting:
    """Steps 1 to 7 of the module."""

    def __init__(self, home: Home, recipe: Recipe, dataset: str, clock: Clock) -> None:
        from client.data import Store

        self._home, self._dataset, self._clock = home, dataset, clock
        self._entry: Dataset = Store(home.data).catalogue().dataset(dataset)
        self._recipe = recipe

    def findings(self) -> list[Finding]:
        """All of them, or the first that lets none of the others be looked at."""
        found: list[Finding] = []
        try:
            found.append(self._variant())
            view = self._open(self._recipe.fields)
        except (RecipeError, DataError) as error:
            return [*found, _refusal("variant" if isinstance(error, RecipeError) else "fields", error)]
        found.append(self._sizes())
        found += self._unit()
        found += self._units(view)
        if found[1].holds == "yes":  # sizes
            found += self._label()
            found.append(self._scales())
        return [*found, *self._certificate()]

    def _variant(self) -> Finding:
        recipe = self._recipe
        self._recipe = site_recipe(self._home, recipe, self._dataset)
        own = str((self._entry.embodiment or {}).get("class", "unknown"))
        if recipe.has_private:
            return Finding(about="variant", holds="yes", found=f"{self._recipe.variant}, for {own}")
        if own == recipe.task.embodiment_class:
            return Finding(about="robot", holds="yes", found=own)
        return Finding(
            about="robot",
            holds="warns",
            found=own,
            need=f"{recipe.task.embodiment_class}, as the task says",
            remedy="correct embodiment in the signal map, or make sure that the robots are alike",
        )

    def _open(self, fields: tuple[str, ...]) -> EpisodeView:
        """The view that training opens, with what this site's own list allows.

        Raises:
            DataError: A field may not be opened, or is not there.
        """
        from client.data import open_view

        recipe, away = self._recipe, withheld(self._home)
        allowed = load_settings(self._home).local.fields
        return open_view(
            self._home.data,
            self._dataset,
            contract_fields=fields,
            recipe_inputs=fields,
            local_allow=fields if allowed is None else allowed,
            rate_hz=recipe.rate_hz,
            withheld=lambda meta: is_given(meta, away),
            imitates=recipe.task.kind == "behaviour-cloning",
        )

    def _sizes(self) -> Finding:
        columns, recipe = self._entry.columns, self._recipe
        any_role: tuple[str, ...] = ("observation", "action")
        roles = any_role if recipe.task.kind == "inverse-dynamics" else ("action",)
        wanted = [(one.field, one.size, any_role) for one in recipe.inputs]
        wanted += [(one.field, one.size, roles) for one in recipe.outputs]
        wrong = [
            f"{'/'.join(places)}.{name} [{size}]"
            for name, size, places in wanted
            if size not in {columns.get(f"{place}.{name}") for place in places}
        ]
        if not wrong:
            return Finding(about="fields", holds="yes", found=", ".join(recipe.fields))
        there = [f"{name} [{size}]" for name, size in columns.items() if name.split(".")[1] in recipe.fields]
        return Finding(
            about="fields",
            holds="no",
            found=", ".join(there),
            need=", ".join(wrong),
            remedy="import with a signal map that gives these, in this role and size; or change the recipe",
        )

    def _unit(self) -> Iterator[Finding]:
        own, plan = self._entry.unit, self._recipe.plan
        named = {self._recipe.evaluation.unit} | ({plan.unit} if plan is not None else set())
        if named != {own}:
            yield Finding(
                about="unit",
                holds="no",
                found=own,
                need=" and ".join(sorted(named)) + ", which the plans protect",
                remedy="agree on plans for the unit of the data, or import with the key of that unit",
            )

    def _units(self, view: EpisodeView) -> Iterator[Finding]:
        recipe = self._recipe
        usable = [one.meta for one in view.stored if not one.meta.excluded]
        if recipe.task.kind == "behaviour-cloning":
            usable = [one for one in usable if one.may_be_cloned]
        train, held = (
            {one.unit_id for one in usable if one.split == split} for split in ("train", "held-out")
        )
        told = f"{len(train)} to train on, {len(held)} held out"
        if not train:
            remedy = "import more; iriai-node data check says what was excluded, and why"
            yield Finding(about="units", holds="no", found=told, need="at least one", remedy=remedy)
            return
        if not held:
            remedy = "import more: the held-out units are drawn by their ids"
            yield Finding(about="units", holds="warns", found=told, need="some to judge by", remedy=remedy)
        error = self._carried(len(train))
        if error is not None:
            yield replace(_refusal("units", error), found=f"{told}: {error.found}")
        elif held:
            yield Finding(about="units", holds="yes", found=told)

    def _carried(self, units: int) -> IriaiError | None:
        """Why so many units do not carry the plan; ``privacy plan`` says it with all figures and caps."""
        plan, recipe = self._recipe.plan, self._recipe
        if plan is None:
            return None
        try:
            plan.check_units(units)
            feasibility(plan, units, recipe.parameters, recipe.need, (float(units),)).check()
        except IriaiError as error:
            return error
        return None

    def _label(self) -> Iterator[Finding]:
        loss, label = self._recipe.loss, self._recipe.label
        if label is None:
            return
        values = [one.labels[label] for one in self._open((label,)).episodes("train")]
        known = np.concatenate([*values, np.zeros(0, dtype=np.int8)])
        counts = {int(one): int(np.sum(known == one)) for one in np.unique(known) if one >= 0}
        names = {0: "false", 1: "true"} if isinstance(loss, BinaryLoss) else {}
        told = ", ".join(f"{names.get(one, one)} {count}" for one, count in counts.items())
        told = f"{label} of {len(known)} frames: {told or 'unknown everywhere'}"
        if len(counts) > 1:
            yield Finding(about="label", holds="yes", found=told)
            return
        yield Finding(
            about="label",
            holds="warns" if counts else "no",
            found=told,
            need="frames of at least two answers",
            remedy="let the signal map name the label's column and values; bring episodes of both",
        )

    def _scales(self) -> Finding:
        from client.data.quality import check_dataset

        ratios = check_dataset(self._home.data, self._dataset, recipe=self._recipe).ratios
        wide = [f"{one.feature} {one.part} {one.ratio:.1f} times" for one in ratios if one.warns]
        if not wide:
            return Finding(about="scales", holds="yes", found="none above four times this site's own spread")
        return Finding(
            about="scales",
            holds="warns",
            found=", ".join(wide) + " this site's own spread",
            need="at most four times: a wider one wastes what a plan spends",
            remedy="ask for a narrower interval or approach in the recipe, for a reason of the task",
        )

    def _certificate(self) -> Iterator[Finding]:
        if self._recipe.quality is None:
            return
        from client.data.quality.admitting import DataAdmission

        identity = load_identity(self._home)
        admission = DataAdmission(
            self._home.data, identity.unit_key, [identity.key.public, *identity.former], self._clock
        )
        try:
            admission.require(self._dataset, self._recipe, clause="quality")
        except DataError as error:
            yield _refusal("certificate", error)
        else:
            yield Finding(about="certificate", holds="yes", found="says what the recipe demands")


def _refusal(about: str, error: IriaiError) -> Finding:
    return Finding(about=about, holds="no", found=error.found, need=error.need, remedy=error.remedy)
