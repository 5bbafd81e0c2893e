# SPDX-License-Identifier: Apache-2.0
"""A request whose facts are not given: typed variables for z3, and the way back to a concrete request.

- One `Fact` per fact of a request type and of the state (`policies.contract.amendment.variables`), chosen
  by its type.
- **Finite lists lose nothing.** No check compares a name with anything but names of the contract and other
  facts, so all names that neither contract has are alike; one stranger stands for them all.
- A list of earlier cohorts is one arbitrary cohort, or none: a check over such a list must hold for each of
  them by itself, so the one that breaks it is enough.
- `Symbols.read` turns a model of z3 into the request and the state that it describes.

This module needs z3 (extra ``prove``).
"""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, Final, TypeVar

from policies.contract.amendment.variables import (
    Cohorts,
    Epsilons,
    Fact,
    Flag,
    FlagMap,
    Members,
    Number,
    NumberMap,
    Plan,
    Text,
    TextMap,
    Time,
    Whole,
)
from policies.contract.requests import ContractState, PlanFacts, Request

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import z3

__all__ = ["Symbols"]

# Facts that are text by their type and something else by their meaning.
_NUMBERS: Final = frozenset(
    {
        "contribution_share",
        "delta",
        "epsilon_after_release",
        "epsilon_after_total",
        "mia_auc",
        "norm_bound",
        "property_skill",
    }
)
_TIMES: Final = frozenset({"made_at", "notice_at", "now", "released_at"})


def _text(label: str, name: str, words: Mapping[str, tuple[str, ...]]) -> Fact:
    if name in _NUMBERS:
        return Number(label)
    return Time(label) if name in _TIMES else Text(label, words[name])


def _text_map(label: str, name: str, words: Mapping[str, tuple[str, ...]]) -> Fact:
    parties = words["party"]
    return NumberMap(label, parties) if name == "weights" else TextMap(label, parties, words[name])


def _plan(label: str, _name: str, words: Mapping[str, tuple[str, ...]]) -> Fact:
    return Plan(label, _facts(PlanFacts, label, words))


_BY_TYPE: Final[Mapping[str, Callable[[str, str, Mapping[str, tuple[str, ...]]], Fact]]] = {
    "str | None": _text,
    "int | None": lambda label, _name, _words: Whole(label),
    "bool | None": lambda label, _name, _words: Flag(label),
    "tuple[str, ...] | None": lambda label, name, words: Members(label, words[name]),
    "tuple[tuple[str, ...], ...] | None": lambda label, name, words: Cohorts(label, words[name]),
    "Mapping[str, str] | None": _text_map,
    "Mapping[str, bool] | None": lambda label, name, words: FlagMap(label, words[name]),
    "Mapping[str, EpsilonAfter] | None": lambda label, name, words: Epsilons(label, words[name]),
    "PlanFacts | None": _plan,
}


def _facts(kind: type, label: str, words: Mapping[str, tuple[str, ...]]) -> dict[str, Fact]:
    """The variables of each fact of a class; a type of fact without a row fails here."""
    return {
        one.name: _BY_TYPE[str(one.type)](f"{label}.{one.name}", one.name, words)
        for one in dataclasses.fields(kind)
    }


_F = TypeVar("_F", bound=Fact)


class Symbols:
    """A request of one type and a state, neither of them given.

    Args:
        kind: Type of the request.
        words: For each fact that holds names: the names, and a stranger last (`vocabulary`).
    """

    def __init__(self, kind: type[Request], words: Mapping[str, tuple[str, ...]]) -> None:
        self.kind = kind
        self._request = _facts(kind, kind.TYPE, words)
        self._state = _facts(ContractState, "state", words)

    def fact(self, name: str, kind: type[_F]) -> _F:
        """The variables of a fact of the request or of the state."""
        found = self._request.get(name) or self._state[name]
        if not isinstance(found, kind):
            raise TypeError(f"{name} is {type(found).__name__}, not {kind.__name__}")
        return found

    def facts(self) -> dict[str, Fact]:
        """All of them, by name."""
        return {**self._request, **self._state}

    def bounds(self) -> list[z3.BoolRef]:
        """What holds for every request and state."""
        return [bound for one in self.facts().values() for bound in one.bounds()]

    def read(self, model: z3.ModelRef) -> tuple[Request, ContractState]:
        """The request and the state that a model describes."""
        asked: dict[str, Any] = {name: one.read(model) for name, one in self._request.items()}
        known: dict[str, Any] = {name: one.read(model) for name, one in self._state.items()}
        return self.kind(**asked), ContractState(**known)
