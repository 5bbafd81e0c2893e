# SPDX-License-Identifier: Apache-2.0
"""The update of a round, until the round is over: a second attempt sends the same one, and spends nothing.

Two attempts of one round are two masks of one update. Trained twice, the two would differ by fresh noise and
fresh samples, and cost twice. In memory only: a node that was started since has lost it, and trains anew,
with a new touch of its budget.

    updates.keep(place, round, base_model, made)    # right after training; what was kept of the run is gone
    updates.of(place, round, base_model)            # Made, or None
    updates.drop(place, round)                      # the round is over for this node
"""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

from policies.limits import MAX_ACTIVE_RUNS
from policies.secagg.errors import ContextMismatchError

if TYPE_CHECKING:
    from client.contributing import Made
    from client.secagg.machines import Place

__all__ = ["Updates"]


class Updates:
    """At most one update per run, of the runs used last."""

    def __init__(self) -> None:
        self._kept: OrderedDict[Place, tuple[int, str, Made]] = OrderedDict()

    def keep(
        self,
        place: Place,
        round: int,  # noqa: A002  the header's own word
        base_model: str,
        made: Made,
    ) -> None:
        """Keeps the update of a round, which was trained on this model."""
        self._kept[place] = (round, base_model, made)
        self._kept.move_to_end(place)
        while len(self._kept) > MAX_ACTIVE_RUNS:
            self._kept.popitem(last=False)

    def of(self, place: Place, round: int, base_model: str) -> Made | None:  # noqa: A002
        """The update of a round; asking for a later round of the run ends the one that is kept.

        Raises:
            ContextMismatchError: It was trained on another model.
        """
        if place not in self._kept:
            return None
        kept, trained_on, made = self._kept[place]
        if kept != round:
            if kept < round:
                del self._kept[place]
            return None
        if trained_on != base_model:
            raise ContextMismatchError(
                need="a second attempt with the base model of the first",
                found="another one",
                remedy="ask about another model in another round",
            )
        return made

    def drop(self, place: Place, round: int) -> None:  # noqa: A002
        """The round is over: this node helped to open its sum."""
        if place in self._kept and self._kept[place][0] == round:
            del self._kept[place]
