# SPDX-License-Identifier: Apache-2.0
"""``data exclude``: a person leaves out single episodes, or takes them back; the certificate follows.

Before the first use only: no budget of the data was opened, and no run under any contract was allowed to use
them, with privacy or without.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from client.answers import Answer
from client.budgets import is_opened
from client.datasets.checking import certified

if TYPE_CHECKING:
    from collections.abc import Sequence

    from client.identity import NodeIdentity
    from client.settings import Home
    from policies.ports import Clock

__all__ = ["data_exclude"]


def data_exclude(
    home: Home,
    identity: NodeIdentity,
    dataset: str,
    episodes: Sequence[str],
    *,
    include: bool,
    by: str,
    clock: Clock,
) -> Answer:
    """Leaves episodes out, or takes them back, and certifies what is left; safe to repeat.

    Raises:
        DatasetUnknownError: No such data set.
        EpisodeUnknownError: It has no such episode; then none is changed.
        SealedError: The data were used already.
        DataError: Nobody is named.
    """
    from client.data.judging import leave_out
    from client.datasets.removing import allowed_runs

    changed = leave_out(
        home.data,
        dataset,
        episodes,
        out=not include,
        by=by,
        clock=clock,
        is_sealed=lambda lineage: is_opened(home, lineage) or bool(allowed_runs(home, dataset, clock)),
    )
    quality, certificate = certified(home, identity, dataset, clock=clock)
    still = [one.episode_id for one in changed if include and one.excluded]
    words = "taken back" if include else "left out"
    left = quality.episodes - len(quality.excluded)
    return Answer(
        data={
            "dataset_id": dataset,
            "episodes": [one.episode_id for one in changed],
            "included": include,
            "by": by.strip(),
            "still_excluded": still,
            "usable": left,
            "certificate": certificate,
        },
        text=(
            f"{len(changed)} {words} by {by.strip()}; {left} of {quality.episodes} episodes count",
            *(f"still out  {one}: a check excludes it, which nobody overrules" for one in still),
            f"quality    {certificate['verdict']}",
            f"next       iriai-node data check {dataset}",
        ),
    )
