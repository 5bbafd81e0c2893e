# SPDX-License-Identifier: Apache-2.0
"""Models of the unions of teams that this node judged, by digest: the next one of the run is one of them.

    unions.keep(place, round, {"sha256:…", …})
    unions.of(place, round)                     # empty: it did not judge that round, in this process

In memory, the newest probe of each run that was used last.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from policies.limits import MAX_ACTIVE_RUNS

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.secagg.machines import Place

__all__ = ["Unions"]


class Unions:
    """At most one probe per run."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, tuple[int, frozenset[str]]] = OrderedDict()

    def keep(
        self,
        place: Place,
        round: int,  # noqa: A002  the header's own word
        models: Iterable[str],
    ) -> None:
        """Keeps the digests of a probe's candidates."""
        self._kept[place] = round, frozenset(models)
        self._kept.move_to_end(place)
        while len(self._kept) > MAX_ACTIVE_RUNS:
            self._kept.popitem(last=False)

    def of(self, place: Place, round: int) -> frozenset[str]:  # noqa: A002
        """The candidates of a round."""
        kept, models = self._kept.get(place, (0, frozenset[str]()))
        return models if kept == round else frozenset()
