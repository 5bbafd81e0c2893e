# SPDX-License-Identifier: Apache-2.0
"""Constants that touch private data are public and fixed: documents that ask for a learned one are refused.

A mean, a range or a threshold that is taken from the recordings lets one unit change what every other unit is
turned into. Its clip would bound one gradient only, and the claimed epsilon would be false. So a recipe and a
signal map say numbers; a word that asks a node to find the number itself is `PrivateStatisticError`, by name,
and not just a field of the wrong type.

    asked_statistic({"clip": "auto"})                      # "clip: auto"
    asked_statistic({"normaliser": {"mean": ["0"]}})       # "normaliser.mean"
    asked_statistic({"task": "auto"}, names={"task"})      # None: a name is no constant
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from policies.privacy.errors import PrivateStatisticError

if TYPE_CHECKING:
    from policies.encoding import Json

__all__ = ["asked_statistic", "private_statistic"]

_WORDS: Final = frozenset(
    {
        *("adaptive", "auto", "automatic", "average", "batch", "data", "dataset", "empirical", "iqr"),
        *("learned", "mad", "max", "maximum", "mean", "mean-std", "median", "min", "min-max", "minimum"),
        *("minmax", "norm", "percentile", "quantile", "quantiles", "robust", "standard", "std", "tukey"),
        *("whiten", "z-score", "zscore"),
    }
)
_KEYS: Final = frozenset(
    {
        *("dedup", "deduplicate", "max", "mean", "median", "min", "near_duplicates", "normalise"),
        *("normalize", "outlier", "outliers", "percentile", "quantiles", "standardise", "standardize"),
        *("statistics", "stats", "std", "variance", "whiten"),
    }
)


def asked_statistic(document: Json, *, names: Collection[str] = (), at: str = "") -> str | None:
    """The first place in a document that asks for a statistic of data, None if there is none.

    Args:
        document: A parsed document, or a part of one.
        names: Keys whose values are names of the author's choice, and no constants.
        at: Where the part stands in the whole; leave it out.
    """
    if isinstance(document, str):
        word = document.strip().lower().replace("_", "-")
        return f"{at}: {word}" if word in _WORDS else None
    if isinstance(document, Mapping):
        for key, value in document.items():
            here = f"{at}.{key}" if at else str(key)
            if str(key).lower() in _KEYS:
                return here
            found = None if key in names else asked_statistic(value, names=names, at=here)
            if found:
                return found
    elif isinstance(document, list | tuple):
        for value in document:
            found = asked_statistic(value, names=names, at=at)
            if found:
                return found
    return None


def private_statistic(found: str, remedy: str) -> PrivateStatisticError:
    """The refusal, to raise."""
    return PrivateStatisticError(
        need="public constants: numbers from a drawing, a data sheet or a limit",
        found=f"a statistic of private data: {found}",
        remedy=remedy,
    )
