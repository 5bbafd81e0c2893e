# SPDX-License-Identifier: Apache-2.0
"""What this site's own data set says about the robot that a model will run on.

    here = read_here(home, shelf, known, individual=True)
    here.recipe           # with variants: the one of this site's embodiment
    here.ends             # the adapter of the site's controller, for an individual model alone
    here.rate_hz          # the recipe's time base; for an individual model without one, that of its data set

A common model is for everybody of its class: nothing of the site goes into its package. An individual model
was trained on this data set, so it takes the adapter of the map that the recordings came through.

The common model of several embodiments is the trunk that they share. It observes and does nothing by itself,
so there is no package of it, only of the individual models that a site makes of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from client.data.embodiment import Embodiment
from client.data.store import Store
from client.deploy.adapters import ends_of
from client.deploy.errors import NotExportableError
from client.errors import NoSuchThingError
from client.models import holds_own
from client.seat import seat_of
from client.settings import load_settings

if TYPE_CHECKING:
    from client.contract.shelf import ContractShelf
    from client.data.catalogue import Dataset
    from client.deploy.adapters import Ends
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["Here", "not_beaten", "read_here"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """See the module."""

    recipe: Recipe
    ends: Ends | None
    rate_hz: str | None


def read_here(home: Home, shelf: ContractShelf, known: dict[str, Any], *, individual: bool) -> Here:
    """The recipe as this site reads it, and what its robot adds to an individual model.

    Args:
        home: The node's folder.
        shelf: Contracts of this node.
        known: ``model.json`` of the model.
        individual: Whether it was trained on here.

    Raises:
        NoSuchThingError: Contract, recipe or data set is not here, or no training here beat the common model.
        NotExportableError: A common model of several embodiments, which has no stem and no head.
        DatasetUnknownError: The contract names a data set that was not added here.
        RefusedError: The contract names no data set of this party for the recipe.
        RecipeVariantError: No variant of the recipe fits the data set.
    """
    recipe = shelf.recipe(known["contract"], known["recipe"])
    if not individual:
        _need_whole(recipe)
        return Here(recipe=recipe, ends=None, rate_hz=recipe.rate_hz)
    if not holds_own(known):
        raise not_beaten()
    seat = seat_of(shelf, known["contract"], known["recipe"], rules=load_settings(home).local)
    entry = Store(home.data).catalogue().dataset(seat.dataset)
    robot = _robot(entry)
    if recipe.variants is not None:
        own_class = robot.class_ if robot is not None else recipe.task.embodiment_class
        recipe = recipe.site(_columns(entry), own_class)
    return Here(
        recipe=recipe,
        ends=ends_of(robot.adapter if robot is not None else None, recipe),
        rate_hz=recipe.rate_hz or entry.rate_hz,
    )


def not_beaten() -> NoSuchThingError:
    """The refusal of an individual package of what is the common model."""
    return NoSuchThingError(
        need="an individual model that was trained on here",
        found="the common model: it was not beaten, so it is the one that was kept",
        remedy="package it without --individual",
    )


def _need_whole(recipe: Recipe) -> None:
    if recipe.has_private:
        names = ", ".join(one.name for one in recipe.variants or ())
        raise NotExportableError(
            need="a whole model, with the stem and the head of one embodiment",
            found=f"the common model of several embodiments ({names}), which is their trunk alone",
            remedy="personalise it here first (iriai-node models personalise DIGEST), then package the"
            " individual model (--individual)",
        )


def _robot(entry: Dataset) -> Embodiment | None:
    return None if entry.embodiment is None else Embodiment.model_validate(dict(entry.embodiment))


def _columns(entry: Dataset) -> dict[str, int]:
    """Fields of the data set with their sizes; columns are ``observation.<field>`` and ``action.<field>``."""
    return {name.split(".", 1)[-1]: size for name, size in entry.columns.items()}
