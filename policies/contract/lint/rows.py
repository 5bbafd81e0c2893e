# SPDX-License-Identifier: Apache-2.0
"""What a rule of the linter is: a row of a table, with a small function that finds what breaks it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from policies.contract.clauses import Contract

__all__ = ["DOCUMENT", "ERROR", "WARNING", "Find", "LintRule", "error", "names", "warning"]

DOCUMENT: Final = "@document"  # the clause id of findings about the contract as a whole
ERROR: Final = "error"
WARNING: Final = "warning"

Find = Callable[["Contract"], Iterator[tuple[str, str]]]


@dataclass(frozen=True, slots=True, kw_only=True)
class LintRule:
    """One rule.

    Attributes:
        name: Without the prefix ``lint.``.
        severity: ``error`` or ``warning``.
        find: Clauses that break it, each with what was found.
        need: What it wants, in English and in Japanese.
        remedy: What to change, in English and in Japanese.
    """

    name: str
    severity: str
    find: Find
    need: tuple[str, str]
    remedy: tuple[str, str]


def error(name: str, find: Find, need: tuple[str, str], remedy: tuple[str, str]) -> LintRule:
    """A rule that blocks an offer."""
    return LintRule(name=name, severity=ERROR, find=find, need=need, remedy=remedy)


def warning(name: str, find: Find, need: tuple[str, str], remedy: tuple[str, str]) -> LintRule:
    """A rule that each contributor acknowledges."""
    return LintRule(name=name, severity=WARNING, find=find, need=need, remedy=remedy)


def names(words: object) -> str:
    """Names of the contract as one text, in the order given."""
    return " ".join(str(one) for one in words) if isinstance(words, (list, tuple)) else str(words)
