# SPDX-License-Identifier: Apache-2.0
"""The typed variables of one fact each, and the way back from a model of z3 to the fact's value.

Every fact has a truth value of its own for *known*. Names are an index into a finite list, sets one truth
value per possible member, times and whole numbers integers, decimals reals.

This module needs z3 (extra ``prove``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from decimal import Decimal
from fractions import Fraction
from math import lcm
from typing import TYPE_CHECKING, Any, Final

import z3

from policies.contract.requests import EpsilonAfter, PlanFacts
from policies.limits import DECIMAL_INTEGER_DIGITS, INTEGER_MAX
from policies.ports import iso_s, to_ms

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

__all__ = [
    "Cohorts",
    "Epsilons",
    "Fact",
    "Flag",
    "FlagMap",
    "Members",
    "Number",
    "NumberMap",
    "Plan",
    "Text",
    "TextMap",
    "Time",
    "Whole",
    "decimal_value",
    "number_text",
    "seconds",
]

_DIGITS: Final = 30  # after the point; `findings.decimal_of` reads no more
_FIRST, _LAST = "1000-01-01T00:00:00Z", "9999-12-31T23:59:59Z"


def seconds(text: str) -> int:
    """A time of a contract as whole seconds."""
    return to_ms(text) // 1000


def number_text(value: Fraction) -> str:
    """The decimal of a number, cut off where a request could not say more."""
    whole = value.numerator * 10**_DIGITS // value.denominator
    digits = f"{whole:0{_DIGITS + 1}d}"
    text = f"{digits[:-_DIGITS]}.{digits[-_DIGITS:]}".rstrip("0").rstrip(".")
    return text or "0"


def _fraction(model: z3.ModelRef, variable: z3.ArithRef) -> Fraction:
    return Fraction(model.eval(variable, model_completion=True).as_fraction())


def _true(model: z3.ModelRef, variable: z3.BoolRef) -> bool:
    return bool(z3.is_true(model.eval(variable, model_completion=True)))


def _integer(model: z3.ModelRef, variable: z3.ArithRef) -> int:
    return int(model.eval(variable, model_completion=True).as_long())


class Fact(ABC):
    """One fact as variables.

    Attributes:
        known: Whether the request says anything.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.known: z3.BoolRef = z3.Bool(f"{name}?")

    def bounds(self) -> Iterator[z3.BoolRef]:
        """What holds for every value of the type."""
        yield from ()

    def read(self, model: z3.ModelRef) -> object:
        """The fact in a model; None where it is not known."""
        return self.value(model) if _true(model, self.known) else None

    @abstractmethod
    def value(self, model: z3.ModelRef) -> object:
        """The fact in a model where it is known."""


class Flag(Fact):
    """True or false."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.true: z3.BoolRef = z3.Bool(name)

    def value(self, model: z3.ModelRef) -> bool:  # noqa: D102
        return _true(model, self.true)


class Whole(Fact):
    """A whole number."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.number: z3.ArithRef = z3.Int(name)

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        yield self.number >= -1  # one below all that a check takes
        yield self.number <= INTEGER_MAX

    def value(self, model: z3.ModelRef) -> int:  # noqa: D102
        return _integer(model, self.number)


class Time(Fact):
    """Seconds since 1970."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.second: z3.ArithRef = z3.Int(name)

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        yield self.second >= seconds(_FIRST)
        yield self.second <= seconds(_LAST)

    def value(self, model: z3.ModelRef) -> str:  # noqa: D102
        return iso_s(_integer(model, self.second) * 1000)


class Number(Fact):
    """A decimal, not negative."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.number: z3.ArithRef = z3.Real(name)

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        yield self.number >= 0
        yield self.number < 10**DECIMAL_INTEGER_DIGITS

    def value(self, model: z3.ModelRef) -> str:  # noqa: D102
        return number_text(_fraction(model, self.number))


class Text(Fact):
    """One name of a list; its last one is the stranger."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name)
        self.names = names
        self.index: z3.ArithRef = z3.Int(name)

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        yield self.index >= 0
        yield self.index < len(self.names)

    def equals(self, name: str) -> z3.BoolRef:
        """Whether it is this name, and known."""
        return z3.And(self.known, self.index == self.names.index(name))

    def among(self, names: Iterable[str]) -> z3.BoolRef:
        """Whether it is one of these names, and known."""
        return z3.And(self.known, z3.Or([self.index == self.names.index(one) for one in sorted(set(names))]))

    def value(self, model: z3.ModelRef) -> str:  # noqa: D102
        return self.names[_integer(model, self.index)]


class Members(Fact):
    """A set of names."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name)
        self.names = names
        self.has: dict[str, z3.BoolRef] = {one: z3.Bool(f"{name} has {one}") for one in names}

    def only(self, names: Iterable[str]) -> z3.BoolRef:
        """Whether nothing else is in it."""
        wanted = set(names)
        return z3.Not(z3.Or([var for one, var in self.has.items() if one not in wanted]))

    def all_of(self, names: Iterable[str]) -> z3.BoolRef:
        """Whether each of these is in it."""
        return z3.And([self.has[one] for one in sorted(set(names))])

    def any_of(self, names: Iterable[str]) -> z3.BoolRef:
        """Whether one of these is in it."""
        return z3.Or([self.has[one] for one in sorted(set(names))])

    def value(self, model: z3.ModelRef) -> tuple[str, ...]:  # noqa: D102
        return tuple(one for one, var in self.has.items() if _true(model, var))


class Cohorts(Fact):
    """A list with one arbitrary cohort, or with none."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name)
        self.any: z3.BoolRef = z3.Bool(f"{name} not empty")
        self.one = Members(f"{name}[0]", names)

    def value(self, model: z3.ModelRef) -> tuple[tuple[str, ...], ...]:  # noqa: D102
        return (self.one.value(model),) if _true(model, self.any) else ()


class _Map(Fact):
    """A value for each name that is in it."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name)
        self.names = names
        self.has: dict[str, z3.BoolRef] = {one: z3.Bool(f"{name} has {one}") for one in names}

    def entries(self, model: z3.ModelRef) -> list[str]:
        """Names that are in it, in a model."""
        return [one for one, var in self.has.items() if _true(model, var)]


class FlagMap(_Map):
    """True or false for each name."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name, names)
        self.true: dict[str, z3.BoolRef] = {one: z3.Bool(f"{name}[{one}]") for one in names}

    def value(self, model: z3.ModelRef) -> dict[str, bool]:  # noqa: D102
        return {one: _true(model, self.true[one]) for one in self.entries(model)}


class NumberMap(_Map):
    """A decimal for each name, of which only the ratios count."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name, names)
        self.of: dict[str, z3.ArithRef] = {one: z3.Real(f"{name}[{one}]") for one in names}

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        for one in self.of.values():
            yield one >= 0
            yield one <= 1  # a ratio has a spelling in which every number is small

    def value(self, model: z3.ModelRef) -> dict[str, str]:  # noqa: D102
        given = {one: _fraction(model, self.of[one]) for one in self.entries(model)}
        scale = lcm(*(one.denominator for one in given.values()))
        return {one: number_text(value * scale) for one, value in given.items()}


class TextMap(_Map):
    """One name of a list for each name."""

    def __init__(self, name: str, names: tuple[str, ...], values: tuple[str, ...]) -> None:
        super().__init__(name, names)
        self.of = {one: Text(f"{name}[{one}]", values) for one in names}

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        for one in self.of.values():
            yield one.known
            yield from one.bounds()

    def value(self, model: z3.ModelRef) -> dict[str, str]:  # noqa: D102
        return {one: self.of[one].value(model) for one in self.entries(model)}


class Epsilons(_Map):
    """`EpsilonAfter` for each name."""

    def __init__(self, name: str, names: tuple[str, ...]) -> None:
        super().__init__(name, names)
        self.release = {one: Number(f"{name}[{one}].release") for one in names}
        self.total = {one: Number(f"{name}[{one}].total") for one in names}

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        for one in (*self.release.values(), *self.total.values()):
            yield from one.bounds()

    def value(self, model: z3.ModelRef) -> dict[str, EpsilonAfter]:  # noqa: D102
        return {
            one: EpsilonAfter(
                release=_maybe_text(self.release[one].read(model)),
                total=_maybe_text(self.total[one].read(model)),
            )
            for one in self.entries(model)
        }


class Plan(Fact):
    """`PlanFacts`: its own facts, each of them known or not."""

    def __init__(self, name: str, facts: Mapping[str, Fact]) -> None:
        super().__init__(name)
        self.facts = facts

    def bounds(self) -> Iterator[z3.BoolRef]:  # noqa: D102
        for one in self.facts.values():
            yield from one.bounds()

    def value(self, model: z3.ModelRef) -> PlanFacts:  # noqa: D102
        read: dict[str, Any] = {name: one.read(model) for name, one in self.facts.items()}
        return PlanFacts(**read)


def _maybe_text(value: object) -> str | None:
    return None if value is None else str(value)


def decimal_value(text: str) -> z3.RatNumRef:
    """A decimal of a contract as an exact number."""
    return z3.RealVal(str(Fraction(Decimal(text))))
