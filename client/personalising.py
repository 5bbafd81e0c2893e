# SPDX-License-Identifier: Apache-2.0
"""Trains a released model on at home, in the worker's process: an individual model for this site alone.

Nothing leaves and nothing is charged: no connection is opened, no outbox, no ledger. Only files of this node
are read, and two are written, beside the model (`client.models`).

In this order; the first that fails ends it, and nothing is kept:
1. the model is here and unchanged;
2. contract and recipe are here, and the contract does not forbid to train on (clause ``derivatives``);
3. training and held-out units come through contract, recipe and the owner's list, as in a round;
4. the held-out units are divided: every second one, in the order of their ids, selects, the others report;
5. 300 steps on the training units, three times, with more and more noise on the inputs
   (`client.learning.train.fine_tune`); of the three and the common model that one is kept under which the
   units that select have the least loss;
6. both are judged on the units that report, which chose nothing. Where none is left the figure is not made
   up: it is undetermined;
7. where an individual model of this one is here already, in whatever mode it was made, it is judged on the
   same units that report, and the better of the two stays. Where none reports, the earlier one stays.
   Where the earlier training had not beaten the common model, it is the common model that stays.
   ``replace`` leaves this step out.

    facts = trained_on(home, model, mode="full")
    facts["stayed"]                   # the earlier model is the better one: nothing was written
"""

from __future__ import annotations

import dataclasses
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from client.contract.shelf import ContractShelf
from client.errors import DigestMismatchError
from client.identity import load_identity
from client.learner import episodes_of
from client.models import Compared, Tuning, individual_facts, keep_individual, model_folder, read_model
from client.private_parts import own_model, site_recipe
from client.seat import seat_of
from client.settings import load_settings
from policies.contract.errors import RefusedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy.typing as npt

    from client.learning.tensors import EpisodeArrays
    from client.models import Mode
    from client.seat import Seat
    from client.settings import Home
    from policies.recipe import Recipe

__all__ = ["divided", "trained_on"]

Episodes = list["EpisodeArrays"]


def trained_on(home: Home, model: str, *, mode: Mode = "full", replace: bool = False) -> dict[str, Any]:
    """The individual model of a pulled one; see the module for the order of steps.

    Args:
        home: The node's folder.
        model: Digest of the pulled model.
        mode: What is trained on.
        replace: The new model is kept also where the earlier one is better.

    Returns:
        What is known of the one that is here now, as `client.models.keep_individual` stores it.

    Raises:
        NoSuchThingError: Model, contract, recipe or data set is not here.
        DigestMismatchError: The model's file was changed, or the earlier individual one's.
        RefusedError: The contract forbids it.
        DataError: The data set cannot be opened.
    """
    from client.learning.train import fine_tune

    # 1.
    pulled, weights = read_model(home, model)
    # 2.
    rules = load_settings(home).local
    shelf = ContractShelf(home, own_key=load_identity(home).key.public)
    seat = seat_of(shelf, pulled["contract"], pulled["recipe"], rules=rules, site=partial(site_recipe, home))
    _allowed(seat)
    # 3.
    train, held_out = (episodes_of(home, seat, split, rules) for split in ("train", "held-out"))
    # 4.
    select, report = divided(held_out)
    # 5.
    shared = np.asarray(weights, dtype=np.float32)
    common = own_model(home, pulled["run"], seat.recipe, shared)
    best = fine_tune(seat.recipe, common, train, select, mode=mode)
    # 6.
    tuning = Tuning(
        mode=mode,
        improved=bool(np.any(best != common)),
        selection_units=_units(select),
        selection=_losses(seat.recipe, common, best, select),
        report_units=_units(report),
        report=_losses(seat.recipe, common, best, report),
    )
    # 7.
    earlier = None if replace else _earlier(home, seat.recipe, model, report)
    if earlier is None:
        return keep_individual(home, pulled, best, tuning)
    known, other = earlier
    if known["kept"] == "individual":  # else it is the common model, which the figures are about already
        tuning = dataclasses.replace(tuning, compared=other)
    own = None if tuning.report is None else tuning.report[1]
    if _is_better(own, other.loss) or np.array_equal(best, read_model(home, model, individual=True)[1]):
        return keep_individual(home, pulled, best, tuning)
    return individual_facts(known, Compared(mode=mode, loss=own), stayed=True)


def _earlier(
    home: Home, recipe: Recipe, model: str, report: Episodes
) -> tuple[dict[str, Any], Compared] | None:
    """The individual model that is here, and its loss on the units that report; None if there is none."""
    from client.learning.evaluate import mean_loss

    if not (model_folder(home, model, individual=True) / "model.json").exists():
        return None
    try:
        facts, weights = read_model(home, model, individual=True)
    except DigestMismatchError as error:
        raise DigestMismatchError(
            need="the individual model that is here, to compare the new one with",
            found="another file",
            remedy=f"iriai-node models personalise {model} --replace writes it anew",
        ) from error
    own = np.asarray(weights, dtype=np.float32)
    return facts, Compared(mode=facts["mode"], loss=mean_loss(recipe, own, report) if report else None)


def _is_better(loss: float | None, other: float | None) -> bool:
    """Whether a loss is the lower one; what is undetermined is not better."""
    return loss is not None and other is not None and loss < other


def _allowed(seat: Seat) -> None:
    clause = seat.held.contract.derivatives
    if clause is not None and clause.fine_tune == "forbidden":
        raise RefusedError(
            need="a contract that lets a party train a released model on",
            found="fine_tune: forbidden",
            remedy="use the common model, or amend the contract",
            clause=clause.clause,
        )


def divided(held_out: Sequence[EpisodeArrays]) -> tuple[Episodes, Episodes]:
    """Held-out episodes that select, and those that report; episodes of one unit stay together."""
    units = sorted({one.unit_id for one in held_out})
    selecting = set(units[::2])
    return (
        [one for one in held_out if one.unit_id in selecting],
        [one for one in held_out if one.unit_id not in selecting],
    )


def _units(episodes: Sequence[EpisodeArrays]) -> int:
    return len({one.unit_id for one in episodes})


def _losses(
    recipe: Recipe,
    common: npt.NDArray[np.float32],
    kept: npt.NDArray[np.float32],
    episodes: Sequence[EpisodeArrays],
) -> tuple[float, float] | None:
    """Mean loss under both models; None without a unit."""
    from client.learning.evaluate import mean_loss

    if not episodes:
        return None
    return mean_loss(recipe, common, episodes), mean_loss(recipe, kept, episodes)
