# SPDX-License-Identifier: Apache-2.0
"""The columns that every benchmark of learning reports, and the refusal of a report that lacks one.

    local_own      a site's own model on the site's own held-out data or placements
    local_others   the same model at the other sites
    pooled         one model from all sites' data side by side: not available in life
    federated      the common model: data stay, updates are averaged with equal weights
    individual     the common model trained on at home; the best, or the common one, by own held-out units
    cpu_s          CPU seconds of the whole measurement

A figure that cannot be had is `UNDETERMINED` with its reason (an area under a curve with one class only); a
column that is simply not there is refused: with plenty of data the own column says nothing any more, and
only the others show what was gained.

    columns_checked({"pick-place": {"local_own": {...}, ...}})
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, Final

from sandbox.errors import SandboxError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

__all__ = ["COLUMNS", "UNDETERMINED", "columns_checked", "gain_of", "mean_and_error"]

Json = dict[str, Any]
COLUMNS: Final = ("local_own", "local_others", "pooled", "federated", "individual", "cpu_s")
UNDETERMINED: Final = "UNDETERMINED"


def columns_checked(problems: Mapping[str, Json]) -> dict[str, Json]:
    """The problems of a report, if each has every column.

    1. There is a problem.
    2. Each has all of `COLUMNS`.
    3. Each figure has a mean: a finite number, or `UNDETERMINED` with a ``reason``.

    Raises:
        SandboxError: The first that is missing, by name.
    """
    # 1.
    if not problems:
        raise _lacking("a problem", "none")
    for problem, row in problems.items():
        # 2.
        for column in COLUMNS:
            if row.get(column) is None:
                raise _lacking(f"column {column} of {problem}", "none")
        # 3.
        for column in COLUMNS:
            figure = row[column]
            for one in figure.values() if column == "individual" else (figure,):
                if not _is_figure(one):
                    raise _lacking(f"a figure in column {column} of {problem}", ascii(one)[:60])
    return dict(problems)


def _is_figure(one: Any) -> bool:  # noqa: ANN401  what a report holds
    mean = one.get("mean") if isinstance(one, dict) else one
    if mean == UNDETERMINED:
        return isinstance(one, dict) and bool(one.get("reason"))
    return isinstance(mean, int | float) and not isinstance(mean, bool) and math.isfinite(mean)


def _lacking(need: str, found: str) -> SandboxError:
    return SandboxError(need=need, found=found, remedy="measure it, or publish no table")


def mean_and_error(values: Sequence[float | None], *, reason: str = "") -> Json:
    """Mean and its standard error over seeds; a seed without a figure is left out and counted.

    Args:
        values: One per seed; None where there is none.
        reason: Said where no seed has a figure.
    """
    known = [one for one in values if one is not None]
    found: Json = {"mean": round(statistics.fmean(known), 4) if known else UNDETERMINED}
    if not known:
        found["reason"] = reason or "no seed gave a figure"
    error = statistics.stdev(known) / math.sqrt(len(known)) if len(known) > 1 else None
    found["standard_error"] = None if error is None else round(error, 4)
    found["per_seed"] = [None if one is None else round(one, 4) for one in values]
    return found


def gain_of(ours: Sequence[float | None], theirs: Sequence[float | None]) -> Json:
    """What one column has above another, seed by seed: mean and standard error of the differences."""
    pairs = zip(ours, theirs, strict=True)
    return mean_and_error([None if None in pair else pair[0] - pair[1] for pair in pairs])  # type: ignore[operator]
