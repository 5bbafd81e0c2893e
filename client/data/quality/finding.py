# SPDX-License-Identifier: Apache-2.0
"""What a check says: one word, why, the figures behind it, and the place. Figures stay on the site.

`Finding` is the answer of one check about one episode or about a whole data set. ``UNDETERMINED`` means that
the data cannot tell, ``NOT_APPLICABLE`` that there is nothing to judge; neither is ``PASS``.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final

from policies.quality_certificate import CHECKS, CheckName, State

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["CHECKS", "CheckName", "Finding", "Place", "State", "number", "worst"]

_GRAVEST: Final[tuple[State, ...]] = ("FAIL", "UNDETERMINED", "PASS", "NOT_APPLICABLE")


def number(value: float) -> str:
    """A figure as text, four significant digits, the same on every machine."""
    return f"{float(value):.4g}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where in an episode: column of the store, part of it, first frame and one past the last."""

    column: str = ""
    part: int = 0
    first: int = 0
    last: int = 0

    def as_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {name: getattr(self, name) for name in self.__slots__}


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """One check's answer; ``why`` is one word, ``episodes`` are ids of this site."""

    check: CheckName
    state: State
    why: str = ""
    figures: Mapping[str, str] = field(default_factory=dict)
    episodes: tuple[str, ...] = ()
    place: Place | None = None

    def about(self, *episodes: str) -> Finding:
        """The finding with the episodes that it is about."""
        return replace(self, episodes=episodes)

    def as_dict(self) -> dict[str, Any]:
        """JSON value."""
        return {
            "check": self.check,
            "number": CHECKS.index(self.check) + 1,
            "state": self.state,
            "why": self.why,
            "figures": dict(sorted(self.figures.items())),
            "episodes": list(self.episodes),
            "place": None if self.place is None else self.place.as_dict(),
        }


def worst(states: set[State]) -> State:
    """The word for a whole data set: a failure before what is open, what is open before a pass."""
    return next((state for state in _GRAVEST if state in states), "NOT_APPLICABLE")
