# SPDX-License-Identifier: Apache-2.0
"""What a plan's document is refused for by name, before its schema is read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from policies.limits import HONEST_MIN
from policies.privacy.errors import (
    AccountantRefusedError,
    PlanIncompleteError,
    SamplerForeignError,
    SearchUnaccountedError,
    SharesUnfitError,
    UnitRefusedError,
)
from policies.privacy.silo import silo_claim

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["refuse_by_name", "refuse_search", "shown"]

_WORD_BITS: Final = 64
_MECHANISM: Final = "poisson-gaussian"
_SAMPLERS: Final = frozenset(
    ["sampler", "loader", "data_loader", "shuffle", "epoch", "epochs", "batch_size", "drop_last"]
)


def shown(value: object) -> str:
    """A value of a document in few words, however deep or long it is."""
    if isinstance(value, dict | list):
        return "an object" if isinstance(value, dict) else "a list"
    if isinstance(value, int) and value.bit_length() > _WORD_BITS:
        return "a number of many digits"
    return repr(value)[:60]


def refuse_search(document: Mapping[str, Any]) -> None:
    """Refuses a document that names a search of settings on private data.

    Trying settings on private data and keeping the best is a mechanism of its own, with a price that no
    plan of this version states (repeat-and-select, arXiv 2110.03620).

    Raises:
        SearchUnaccountedError: It names one.
    """
    named = sorted(key for key in document if key == "search" or key.endswith("_search"))
    if any(document[key] is not None for key in named):
        raise SearchUnaccountedError(
            need="no search of settings on private data",
            found=", ".join(named),
            remedy="search on public data or in simulation, and write the settings that were found",
        )


def refuse_by_name(facts: Mapping[str, Any]) -> None:
    """What deserves an own error before the schema speaks, in this order.

    1. The unit. 2. Adjacency. 3. Mechanism and accountant. 4. Sampler. 5. Search. 6. Noise shares.
    """
    if facts.get("unit") == "silo":
        silo_claim(None)  # a plan holds for any number of silos: it never carries a claim about whole ones
    if facts.get("unit") == "frame":
        raise UnitRefusedError(
            need="unit episode, work-piece or order",
            found="frame",
            remedy="choose the unit whose owner could be harmed; frames of one episode are one unit",
        )
    if facts.get("adjacency") == "replace-one":
        raise PlanIncompleteError(
            need="adjacency zero-out",
            found="replace-one",
            remedy="zero-out: replace-one costs about twice the epsilon and hides nothing more of a unit",
        )
    if facts.get("adjacency") == "add-remove":
        raise PlanIncompleteError(
            need="adjacency zero-out",
            found="add-remove, which promises to hide the number of units too",
            remedy="zero-out, at the same epsilon: size buckets are published, and a delta that is too large "
            "for so many units is refused in public",
        )
    _refuse_mechanism(facts)
    foreign = sorted(_SAMPLERS & facts.keys())
    if foreign:
        raise SamplerForeignError(
            need="the plan's own Poisson sampler: sampling_prob and steps say all",
            found=", ".join(foreign),
            remedy="remove it; a shuffle or a fixed batch may cost four times the claimed epsilon",
        )
    refuse_search(facts)
    _refuse_shares(facts)


def _refuse_mechanism(facts: Mapping[str, Any]) -> None:
    other = facts.get("mechanism", _MECHANISM)
    if (isinstance(other, str) and other != _MECHANISM) or "accountant" in facts:
        raise AccountantRefusedError(
            need=f"mechanism {_MECHANISM} and no accountant beside it",
            found=shown(facts.get("accountant", other)),
            remedy="remove it: epsilon_rdp, the filter and epsilon_pld follow from the plan; a central limit "
            "figure (GDP) or a sum of epsilons is no upper bound",
        )


def _refuse_shares(facts: Mapping[str, Any]) -> None:
    shared, honest = facts.get("noise") == "shares", facts.get("honest_min")
    if "noise" in facts and "honest_min" in facts and shared != (honest is not None):
        raise SharesUnfitError(
            need=f"honest_min of at least {HONEST_MIN} with noise shares, and null with local-full",
            found=f"noise {shown(facts['noise'])}, honest_min {shown(honest)}",
            remedy="use local-full, or say how many honest silos the noise rests on",
        )
    few = isinstance(honest, int) and honest < HONEST_MIN
    if shared and (few or facts.get("steps_per_round", 1) != 1):
        raise SharesUnfitError(
            need=f"honest_min of at least {HONEST_MIN}, and steps_per_round 1",
            found=f"honest_min {shown(honest)}, steps_per_round {shown(facts.get('steps_per_round'))}",
            remedy="one step per round: a second would run on a path that carries a share of the noise only",
        )
