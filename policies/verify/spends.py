# SPDX-License-Identifier: Apache-2.0
"""Spends of privacy budget as their owners signed them, in log order."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.log.entries import EntryType
from policies.privacy.blocks import HELD_OUT, TRAIN
from policies.privacy.spending import blocks_named

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.log.entries import Entry
    from policies.verify.history import History

__all__ = ["Spend", "read_spends", "spend_of", "split_of"]

Json = Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Spend:
    """An ``epsilon.spent``; what is confidential in it is read from the envelope that its owner signed."""

    index: int
    org: str
    scope: str | None
    mechanism: str
    plan: str
    steps: int
    lineage: str
    blocks: tuple[str, ...]
    rho_nano: int

    @property
    def split(self) -> str:
        """Training and held-out units are disjoint, so their budgets are apart."""
        return split_of(self.mechanism)


def split_of(mechanism: str) -> str:
    """Which of a lineage's disjoint halves a mechanism run reads."""
    return HELD_OUT if "/eval/" in mechanism else TRAIN


def read_spends(history: History) -> list[Spend]:
    """Every ``epsilon.spent`` whose sender is known."""
    spends = []
    for index, entry in history.of(EntryType.EPSILON_SPENT):
        maker, told = history.senders.maker(index), history.stated(index)
        if maker is None or not told:
            continue
        spends.append(spend_of(index, entry, maker.org, told))
    return spends


def spend_of(index: int, entry: Entry, org: str, told: Mapping[str, Json]) -> Spend:
    """An entry ``epsilon.spent``, by what its owner signed."""
    return Spend(
        index=index,
        org=org,
        scope=entry.scope,
        mechanism=entry.pub["mechanism"],
        plan=entry.pub["plan"],
        steps=entry.pub["steps"],
        lineage=told["lineage"],
        blocks=blocks_named(split_of(entry.pub["mechanism"]), told),
        rho_nano=told["rho_nano"],
    )
