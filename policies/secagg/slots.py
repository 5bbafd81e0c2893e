# SPDX-License-Identifier: Apache-2.0
"""A slot at a node, from its admission until it is burned: ADMITTED → MASKED → CONFIRMED → UNMASKED."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.secagg.holding import Answers
from policies.secagg.opening import OpenedSum

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from policies.secagg.asks import Previous, Resume
    from policies.secagg.contexts import Context
    from policies.secagg.documents import Confirmation, VectorHeader

__all__ = ["Masked", "OpenedSum", "Slot", "SlotState", "Stage"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Slot:
    """An attempt that this node takes part in.

    Attributes:
        round, attempt, base_model: As asked and checked.
        team: Whose sum the update goes into.
        server: Digest of the server's state that the broker claims.
        shown: Opened sums of earlier rounds that the ask speaks of, oldest first.
        resume: The model that the ask says is sent along.
    """

    round: int
    attempt: int
    base_model: str
    team: tuple[str, ...]
    server: str
    shown: tuple[Previous, ...]
    resume: Resume | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Masked:
    """What leaves: the masked vector ``uint32 [d]``, the digest of its bytes, and the answer beside it."""

    vector: NDArray[np.uint32]
    digest: str
    answer: bytes


class Stage(enum.IntEnum):
    """How far a slot has come; it never goes back."""

    ADMITTED = 1
    MASKED = 2
    CONFIRMED = 3
    UNMASKED = 4


@dataclass(slots=True, eq=False)
class SlotState:
    """The newest slot; all older ones are burned."""

    slot: Slot
    context: Context
    ask: bytes = field(repr=False)
    ctx: bytes
    stage: Stage = Stage.ADMITTED
    header: VectorHeader | None = None
    confirmation: Confirmation | None = None
    answers: Answers = field(default_factory=Answers, repr=False)

    @property
    def at(self) -> tuple[int, int]:
        """Round and attempt."""
        return self.slot.round, self.slot.attempt

    @property
    def sets(self) -> tuple[tuple[str, ...], tuple[int, ...]]:
        """Online members and numbers of opened teams, as confirmed."""
        if self.confirmation is None:
            return (), ()
        return self.confirmation.online, self.confirmation.opened

    def opened(self) -> OpenedSum:
        """What its UNMASK opens."""
        online, numbers = self.sets
        teams = (self.context.teams[one] for one in numbers)
        supports = tuple(tuple(one for one in team if one in online) for team in teams)
        return OpenedSum(round=self.slot.round, attempt=self.slot.attempt, supports=supports)
