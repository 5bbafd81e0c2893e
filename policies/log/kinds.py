# SPDX-License-Identifier: Apache-2.0
"""The kinds of values that an entry may hold. There is no kind for free text: it could never be erased.

A kind has a name, for messages and documentation, and one test. `clear` kinds may stand in ``pub``;
`LABEL`, `TIME_MS`, `VALUE` and `WARNINGS` only behind a commitment.

Kinds of simple values also say how they are spelled in canonical JSON (`Spelling`), so that an entry can be
read by one regular expression (`policies.log.shapes`). A spelling may leave out values of the kind. What it
lets in is of the kind; where it is not `Spelling.exact`, only if the test says so too.
"""

from __future__ import annotations

import datetime as dt
import functools
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
    "Spelling",
    "enum",
    "many",
    "nullable",
    "per_alias",
    "record",
]

Json = Any

REFS_MAX = 256  # two per party and room for the decisions
VALUE_BYTES = 2_048  # of one confidential value, as canonical bytes


class Spelling(NamedTuple):
    """Regular expression of the canonical JSON of values of a kind: ASCII without any escape.

    Attributes:
        before: What stands before the part that the value is read from.
        inner: That part; without capturing groups.
        after: What stands behind it.
        read: Makes the value of the part; None: the part is the value. It never sees the part of a null.
        exact: Whether everything that is spelled so is of the kind; if not, the kind's test decides.
    """

    before: str
    inner: str
    after: str
    read: Callable[[str], Json] | None = None
    exact: bool = True

    @property
    def whole(self) -> str:
        """The expression without a group."""
        return f"{self.before}(?:{self.inner}){self.after}"


@dataclass(frozen=True, slots=True)
class Kind:
    """One kind of value: its name, its test, and how it is spelled, if one expression says it."""

    name: str
    holds: Callable[[Json], bool]
    spelled: Spelling | None = None


def _pattern(name: str, pattern: str) -> Kind:
    """Texts that fit a pattern. It lets in neither quotes, backslashes, nor anything that is not ASCII."""
    compiled = re.compile(pattern, re.ASCII)
    return Kind(
        name,
        lambda value: isinstance(value, str) and compiled.fullmatch(value) is not None,
        Spelling('"', pattern, '"'),
    )


def _is_integer(value: Json) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= INTEGER_MAX


@functools.lru_cache(maxsize=1_024)  # entries of one batch are of the same day
def _is_day(text: str) -> bool:
    try:
        return bool(dt.date.fromisoformat(text))
    except ValueError:
        return False


def _time(name: str, pattern: str) -> Kind:
    """Times that exist: a clock shows them (the pattern), on a day that there is."""
    form = _pattern(name, pattern)
    spelled = form.spelled and form.spelled._replace(exact=False)
    return Kind(name, lambda value: form.holds(value) and _is_day(value[:10]), spelled)


def _is_value(value: Json) -> bool:
    try:
        return len(canonical(value)) <= VALUE_BYTES
    except EncodingError:
        return False


def _are_warnings(value: Json) -> bool:
    if not isinstance(value, list) or len(value) > LINT_FINDINGS:
        return False
    return all(_WARNING.holds(one) for one in value) and value == sorted(set(value))


_ID = r"[a-z]{2,10}_[a-z2-7]{16}"
_WARNING = Kind("lint warning id", _pattern("", r"[!-~]{1,128}").holds)  # quotes are among them
_CLOCK = r"\d{4}-\d\d-\d\dT(?:[01]\d|2[0-3]):[0-5]\d"

DIGEST = _pattern("digest", r"sha256:[0-9a-f]{64}")
ID = _pattern("id", _ID)
ALIAS = _pattern("alias", r"[0-9a-f]{16}")
NAME = _pattern("name", r"[a-z][a-z0-9-]{0,40}")
FIELD = _pattern("field name", r"[a-z][a-z0-9_]{0,40}")
CLAUSE = _pattern("clause", r"@[a-z]{1,40}|(?:local:)?[a-z][a-z0-9-]{1,40}")
REASON = _pattern("reason code", r"[a-z][a-z0-9]*(?:[.-][a-z0-9]+){0,7}")
VERSION = _pattern("version", r"\d{1,6}(?:\.\d{1,6}){1,3}(?:[ab]\d{1,4}|rc\d{1,4})?(?:\.dev\d{1,4})?")
ORIGIN = _pattern("origin", r"[A-Za-z0-9._:\[\]-]{1,128}(?:/[A-Za-z0-9._-]{1,64}){0,8}")
KEY_NAME = _pattern("key name", r"[A-Za-z0-9._:/\[\]-]{1,300}")
VKEY = _pattern("vkey", r"[A-Za-z0-9._:/\[\]-]{1,300}\+[0-9a-f]{8}\+[A-Za-z0-9+/]{40,2000}={0,2}")
MECHANISM = _pattern("mechanism run id", rf"{_ID}/(?:\d{{1,6}}/\d{{1,6}}|eval/[0-9a-f]{{64}})")
INTEGER = Kind("integer", _is_integer, Spelling("", r"0|[1-9]\d{0,14}", "", int))  # larger ones: the test
DECIMAL = _pattern("decimal", r"(?:0|[1-9]\d{0,11})(?:\.\d{1,18})?")
MINUTE = _time("minute", rf"{_CLOCK}:00Z")
TIME_MS = _time("time", rf"{_CLOCK}:[0-5]\d\.\d{{3}}Z")
LABEL = _pattern("label", r"[A-Za-z0-9][A-Za-z0-9_.:/+=-]{0,199}")
VALUE = Kind(f"any value of at most {VALUE_BYTES} bytes", _is_value)
WARNINGS = Kind("lint warning ids, each once, sorted", _are_warnings)


def enum(*values: str) -> Kind:
    """One of these words."""
    allowed = frozenset(values)
    return Kind(
        "one of " + " ".join(values),
        lambda value: isinstance(value, str) and value in allowed,
        Spelling('"', "|".join(map(re.escape, values)), '"'),
    )


def nullable(kind: Kind) -> Kind:
    """A value of this kind, or null."""
    one = kind.spelled
    spelled = one and one._replace(before=f"(?:null|{one.before}", after=f"{one.after})")
    return Kind(f"{kind.name} or null", lambda value: value is None or kind.holds(value), spelled)


def many(kind: Kind, most: int = REFS_MAX) -> Kind:
    """A list of at most ``most`` different values of this kind."""

    def holds(value: Json) -> bool:
        return (
            isinstance(value, list)
            and len(value) <= most
            and all(kind.holds(one) for one in value)
            and len({str(one) for one in value}) == len(value)
        )

    one = kind.spelled and kind.spelled.whole
    spelled = one and Spelling("", rf"\[(?:{one}(?:,{one})*)?\]", "", json.loads, exact=False)
    return Kind(f"list of {kind.name}", holds, spelled or None)


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
