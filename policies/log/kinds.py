# SPDX-License-Identifier: Apache-2.0
"""The kinds of values that an entry may hold. There is no kind for free text: it could never be erased.

A kind has a name, for messages and documentation, and one test. `clear` kinds may stand in ``pub``;
`LABEL`, `TIME_MS`, `VALUE` and `WARNINGS` only behind a commitment.
"""

from __future__ import annotations

import datetime as dt
import functools
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.encoding import canonical
from policies.errors import EncodingError
from policies.limits import INTEGER_MAX, LINT_FINDINGS, PARTIES

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = [
    "ALIAS",
    "CLAUSE",
    "DECIMAL",
    "DIGEST",
    "FIELD",
    "ID",
    "INTEGER",
    "KEY_NAME",
    "LABEL",
    "MECHANISM",
    "MINUTE",
    "NAME",
    "ORIGIN",
    "REASON",
    "TIME_MS",
    "VALUE",
    "VERSION",
    "VKEY",
    "WARNINGS",
    "Kind",
    "enum",
    "many",
    "nullable",
    "per_alias",
    "record",
]

Json = Any

REFS_MAX = 256  # two per party and room for the decisions
VALUE_BYTES = 2_048  # of one confidential value, as canonical bytes


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: its name and its test."""

    name: str
    holds: Callable[[Json], bool]


def _pattern(name: str, pattern: str) -> Kind:
    compiled = re.compile(pattern, re.ASCII)
    return Kind(name, lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None)


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX


def _is_time(value: Json) -> bool:
    """Whether a text that has the form of a time names a moment that exists."""
    return isinstance(value, str) and _is_day(value[:10]) and value[11:13] < "24" and _below_60(value)


@functools.lru_cache(maxsize=1_024)  # entries of one batch are of the same day
def _is_day(text: str) -> bool:
    try:
        return bool(dt.date.fromisoformat(text))
    except ValueError:
        return False


def _below_60(text: str) -> bool:
    return text[14:16] < "60" and text[17:19] < "60"


def _is_value(value: Json) -> bool:
    try:
        return len(canonical(value)) <= VALUE_BYTES
    except EncodingError:
        return False


def _are_warnings(value: Json) -> bool:
    if not isinstance(value, list) or len(value) > LINT_FINDINGS:
        return False
    return all(_WARNING.holds(one) for one in value) and value == sorted(set(value))


def both(first: Kind, second: Kind) -> Kind:
    """A value of both kinds, named by the second."""
    return Kind(second.name, lambda value: first.holds(value) and second.holds(value))


_ID = r"[a-z]{2,10}_[a-z2-7]{16}"
_WARNING = _pattern("lint warning id", r"[!-~]{1,128}")
_MINUTE = _pattern("minute", r"\d{4}-\d\d-\d\dT\d\d:\d\d:00Z")
_MILLI = _pattern("time", r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")

DIGEST = _pattern("digest", r"sha256:[0-9a-f]{64}")
ID = _pattern("id", _ID)
ALIAS = _pattern("alias", r"[0-9a-f]{16}")
NAME = _pattern("name", r"[a-z][a-z0-9-]{0,40}")
FIELD = _pattern("field name", r"[a-z][a-z0-9_]{0,40}")
CLAUSE = _pattern("clause", r"@[a-z]{1,40}|(local:)?[a-z][a-z0-9-]{1,40}")
REASON = _pattern("reason code", r"[a-z][a-z0-9]*([.-][a-z0-9]+){0,7}")
VERSION = _pattern("version", r"\d{1,6}(\.\d{1,6}){1,3}([ab]\d{1,4}|rc\d{1,4})?(\.dev\d{1,4})?")
ORIGIN = _pattern("origin", r"[A-Za-z0-9._:\[\]-]{1,128}(/[A-Za-z0-9._-]{1,64}){0,8}")
KEY_NAME = _pattern("key name", r"[A-Za-z0-9._:/\[\]-]{1,300}")
VKEY = _pattern("vkey", r"[A-Za-z0-9._:/\[\]-]{1,300}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{40,2000}={0,2}")
MECHANISM = _pattern("mechanism run id", rf"{_ID}/(\d{{1,6}}/\d{{1,6}}|eval/[0-9a-f]{{64}})")
INTEGER = Kind("integer", _is_integer)
DECIMAL = _pattern("decimal", r"(0|[1-9]\d{0,11})(\.\d{1,18})?")
MINUTE = both(_MINUTE, Kind("minute", _is_time))
TIME_MS = both(_MILLI, Kind("time", _is_time))
LABEL = _pattern("label", r"[A-Za-z0-9][A-Za-z0-9_.:/+=-]{0,199}")
VALUE = Kind(f"any value of at most {VALUE_BYTES} bytes", _is_value)
WARNINGS = Kind("lint warning ids, each once, sorted", _are_warnings)


def enum(*values: str) -> Kind:
    """One of these words."""
    allowed = frozenset(values)
    return Kind("one of " + " ".join(values), lambda value: isinstance(value, str) and value in allowed)


def nullable(kind: Kind) -> Kind:
    """A value of this kind, or null."""
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.holds(value))


def many(kind: Kind, most: int = REFS_MAX) -> Kind:
    """A list of at most ``most`` different values of this kind."""

    def holds(value: Json) -> bool:
        return (
            isinstance(value, list)
            and len(value) <= most
            and all(kind.holds(one) for one in value)
            and len({str(one) for one in value}) == len(value)
        )

    return Kind(f"list of {kind.name}", holds)


def record(fields: Mapping[str, Kind]) -> Kind:
    """An object with exactly these fields."""
    shown = ", ".join(f"{name}: {kind.name}" for name, kind in fields.items())

    def holds(value: Json) -> bool:
        return (
            isinstance(value, dict)
            and set(value) == set(fields)
            and all(kind.holds(value[name]) for name, kind in fields.items())
        )

    return Kind(f"{{{shown}}}", holds)


def per_alias(kind: Kind) -> Kind:
    """An object from aliases to values of this kind, one per party at most."""

    def holds(value: Json) -> bool:
        return (
            isinstance(value, dict)
            and len(value) <= PARTIES
            and all(ALIAS.holds(name) and kind.holds(one) for name, one in value.items())
        )

    return Kind(f"{{alias: {kind.name}}}", holds)


def per_name(kind: Kind, most: int = PARTIES) -> Kind:
    """An object from names (of checks, say) to values of this kind."""

    def holds(value: Json) -> bool:
        return (
            isinstance(value, dict)
            and len(value) <= most
            and all(NAME.holds(name) and kind.holds(one) for name, one in value.items())
        )

    return Kind(f"{{name: {kind.name}}}", holds)
