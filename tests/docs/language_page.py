# SPDX-License-Identifier: Apache-2.0
"""The reference page of the contract language, from its dataclasses, the registry and the linter's rules."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from policies.contract.clauses import Contract
from policies.contract.grammar import (
    REQUIRED,
    Choice,
    Decimals,
    Digest,
    Flag,
    Integer,
    Key,
    Nullable,
    Prose,
    Rows,
    Rule,
    Set,
    Struct,
    Time,
    Word,
    omissions_of,
    rules_of,
)
from policies.contract.lint import RULES
from policies.contract.registry import ASKED_AT, FORBIDDEN_CHECKS, KINDS

__all__ = ["sections", "value_words"]

Table = tuple[tuple[str, ...], list[tuple[str, ...]]]
_NAME = r"[a-z][a-z0-9-]{0,31}"


def value_words(rule: Rule) -> str:  # noqa: PLR0911, PLR0912  one arm per rule of the language
    """What a value must be, in a few words."""
    match rule:
        case Nullable(of=inner):
            return f"{value_words(inner)}, or null"
        case Set(of=inner, least=least):
            return f"set of {value_words(inner)}" + (f", at least {least}" if least else "")
        case Rows(of=kind, by=by):
            return f"list of `{kind.__name__}`, by {', '.join(by)}"
        case Struct(of=kind):
            return f"`{kind.__name__}`"
        case Choice(options=options):
            return " · ".join(f"`{one}`" for one in options)
        case Flag(only=only):
            return "`true` or `false`" if only is None else f"`{str(only).lower()}`"
        case Integer(least=least, most=most):
            return f"{least} to {most}" if most < 2**53 - 1 else f"whole number from {least}"
        case Decimals(most=most, below=below):
            bound = f", at most {most}" if most else f", below {below}" if below else ""
            return "decimal as a string, above 0" + bound
        case Prose(chars=chars):
            return f"text, at most {chars} characters"
        case Word(pattern=pattern):
            return "name" if pattern == _NAME else f"`{pattern}`"
        case Time():
            return "`YYYY-MM-DDTHH:MM:SSZ`"
        case Digest():
            return "`sha256:` and 64 hex digits"
        case Key():
            return "`ed25519:` and 64 hex digits"
    raise TypeError(type(rule).__name__)


def _omitted(kind: type, key: str) -> str:
    value = omissions_of(kind).get(key, REQUIRED)
    if value is REQUIRED:
        return "required"
    return "filled in" if callable(value) else f"`{str(value).lower() if value is not None else 'null'}`"


def _fields(kind: type) -> Table:
    rows = [(f"`{key}`", value_words(rule), _omitted(kind, key)) for key, rule in rules_of(kind).items()]
    return ("Key", "Value", "If left out"), rows


def _below(kind: type) -> Iterator[type]:
    """The classes below one, each once, in the order of the document."""
    for rule in rules_of(kind).values():
        inner = rule.of if isinstance(rule, Nullable) else rule
        if isinstance(inner, (Struct, Rows)):
            yield inner.of
            yield from _below(inner.of)


def sections() -> Iterator[tuple[str, str, list[Table]]]:
    """Title, words and tables of each part of the page."""
    yield "The document", "Keys of the root.", [_fields(Contract)]
    for kind in dict.fromkeys(_below(Contract)):
        words = inspect.cleandoc(kind.__doc__ or "").replace("``", "`")
        yield kind.__name__, f"{words}\n\n{_enforced(kind)}".strip(), [_fields(kind)]
    yield "Machine checks of a forbidden use", "Which requests they look at.", [_checks()]
    yield (
        "Where each kind can refuse",
        "The largest `enforced_by`. Left out, it is filled in; a claim beyond it is `contract.enforcement-overclaimed`.",
        [_registry()],
    )
    yield "Requests", "What is asked, and where. The auditor asks everything again.", [_requests()]
    yield "Rules of the linter", "An error blocks an offer; a warning is acknowledged by its id.", [_lint()]


def _enforced(kind: type) -> str:
    row: Any = KINDS.get(getattr(kind, "KIND", ""))
    if row is None:
        return ""
    if not row.points:
        return "Law only: no code refuses by it in this version."
    asked = ", ".join(sorted(row.requests))
    return f"Refuses at: {', '.join(sorted(row.points))}. Judged at: {asked}."


def _checks() -> Table:
    rows = [
        (f"`{name}`", ", ".join(sorted(points)), ", ".join(sorted(asked)))
        for name, (points, asked) in FORBIDDEN_CHECKS.items()
    ]
    return ("Check", "Points", "Requests"), rows


def _registry() -> Table:
    rows = [
        (
            f"`{row.name}`",
            ", ".join(sorted(row.points)) or "law only",
            "yes" if row.law else "no",
            ", ".join(sorted(row.requests)),
        )
        for row in KINDS.values()
    ]
    return ("Kind", "Points", "A part for courts", "Requests"), rows


def _requests() -> Table:
    return ("Request", "Asked at"), [
        (f"`{name}`", ", ".join(sorted(at - {"auditor"}))) for name, at in ASKED_AT.items()
    ]


def _lint() -> Table:
    rows = [(f"`{name}`", one.severity, one.need[0], one.remedy[0]) for name, one in sorted(RULES.items())]
    return ("Rule", "Severity", "Needs", "What to do"), rows
