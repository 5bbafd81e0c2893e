# SPDX-License-Identifier: Apache-2.0
"""The rules of single values. A clause is a frozen dataclass whose fields each name one rule.

- `Rule.read` is strict: it takes the canonical spelling and nothing else, and returns the value of the
  dataclass.
- `Rule.normal` brings a person's spelling into the canonical one: sets sorted, decimals plain, lists of
  clauses by id. It never repairs: what is wrong stays wrong, and `read` says so.
- `Rule.shape` is the JSON type, from which `policies.contract.document` builds the authoring boundary and the
  JSON Schema.
- `read_fields` reads an object: exactly the keys of the dataclass, each by its rule.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, NoReturn

from policies.contract.errors import ContractInvalidError
from policies.encoding import decimal_text, is_digest
from policies.errors import EncodingError, WeakKeyError
from policies.identity import parse_key
from policies.limits import INTEGER_MAX, STRING_CHARS
from policies.ports import to_ms

__all__ = [
    "REQUIRED",
    "At",
    "Choice",
    "Decimals",
    "Digest",
    "Flag",
    "Integer",
    "Key",
    "Nullable",
    "Prose",
    "Rows",
    "Rule",
    "Set",
    "Struct",
    "Time",
    "Word",
    "read_fields",
    "remedy_at",
    "ruled",
    "rules_of",
    "strange_character",
]

Json = Any  # a JSON value

REQUIRED = object()  # the author must write it
_TIME = re.compile(r"^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z$")
CLAUSE_ID = re.compile(r"^[a-z][a-z0-9-]{1,40}$")
PLAIN_DECIMAL = re.compile(
    r"^(0|[1-9][0-9]{0,11})(\.[0-9]{0,17}[1-9])?$"
)  # the only spelling in signed bytes
_WRITTEN_DECIMAL = re.compile(
    r"^[0-9]{1,12}(\.[0-9]{1,30})?([eE][+-]?[0-9]{1,2})?$"
)  # what an author may write
_STRANGE_CATEGORIES = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
# Marks and fillers that show nothing (Unicode default-ignorable), which no category above covers.
_INVISIBLE = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u2800\u3164\uffa0")
_SELECTORS = ((0x180B, 0x180F), (0xFE00, 0xFE0F), (0xE0100, 0xE01EF))
_SPACES = " \u3000"  # the space, and the wide one of Japanese names


def strange_character(text: str) -> str | None:
    """Code point of the first character that does not show (it makes two names look alike), or None."""
    for char in text:
        category = unicodedata.category(char)
        if (
            category in _STRANGE_CATEGORIES
            or (category == "Zs" and char not in _SPACES)
            or char in _INVISIBLE
            or any(low <= ord(char) <= high for low, high in _SELECTORS)
        ):
            return f"U+{ord(char):04X}"
    return None


@dataclass(frozen=True, slots=True)
class At:
    """Where in the document a value stands; it makes the errors.

    Attributes:
        clause: Id of the enclosing clause, None outside all of them.
        path: Keys from the root.
    """

    clause: str | None
    path: str

    def key(self, name: str) -> At:
        """The place of a key below this one."""
        return At(self.clause, f"{self.path}.{name}" if self.path else name)

    def row(self, index: int, tree: Json) -> At:
        """The place of a list element, with its own clause id if it has one."""
        own = tree.get("clause") if isinstance(tree, Mapping) else None
        named = isinstance(own, str) and CLAUSE_ID.fullmatch(own)
        return At(str(own) if named else self.clause, f"{self.path}[{index}]")

    def invalid(
        self, need: str, found: object, *, kind: type[ContractInvalidError] = ContractInvalidError
    ) -> ContractInvalidError:
        """The error of a value that breaks the language."""
        return kind(
            clause=self.clause,
            need=f"{self.path or 'contract'}: {need}",
            found=ascii(found)[:120],
            remedy=remedy_at(self.clause),
        )


def remedy_at(clause: str | None) -> str:
    """What to do about a value: there is a clause to change, or, outside all of them, a key."""
    return "change the named key" if clause is None else "change the named clause"


class Rule:
    """What one value must be. Subclasses say how it is read, normalised and shown in the JSON Schema."""

    __slots__ = ()

    def read(self, value: Json, at: At) -> Any:  # noqa: ANN401  the dataclass field's own type
        """The value, if it is canonical.

        Raises:
            ContractInvalidError: It is not; the place is named.
        """
        raise NotImplementedError

    def normal(self, value: Json) -> Json:
        """The canonical spelling of an author's value, if it has one; else the value as it is."""
        return value

    def shape(self) -> dict[str, Json]:
        """JSON Schema of an authored single value; those of lists and objects come from their types."""
        raise NotImplementedError


@dataclass(frozen=True, slots=True)
class Word(Rule):
    """An identifier of a fixed form."""

    pattern: str
    reserved: tuple[str, ...] = ()

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        if not isinstance(value, str) or re.fullmatch(self.pattern, value) is None or value in self.reserved:
            raise at.invalid(f"a name of the form {self.pattern}", value)
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "pattern": f"^{self.pattern}$"}


@dataclass(frozen=True, slots=True)
class Prose(Rule):
    """Words for people: one line, no strange characters."""

    chars: int = STRING_CHARS

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        if not isinstance(value, str) or not 0 < len(value) <= self.chars or value != value.strip():
            raise at.invalid(f"1 to {self.chars} characters without outer blanks", value)
        strange = strange_character(value)
        if strange is not None:
            raise at.invalid("characters that show", strange)
        if not unicodedata.is_normalized("NFC", value):
            raise at.invalid("normalisation form C", value)
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "minLength": 1, "maxLength": self.chars}


@dataclass(frozen=True, slots=True)
class Choice(Rule):
    """One of a closed list; ``error`` is what another word is refused with."""

    options: tuple[str, ...]
    error: type[ContractInvalidError] = ContractInvalidError

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        if not isinstance(value, str) or value not in self.options:
            raise at.invalid("one of " + " ".join(self.options), value, kind=self.error)
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "enum": list(self.options)}


@dataclass(frozen=True, slots=True)
class Integer(Rule):
    """A whole number, ``least`` to ``most``."""

    least: int
    most: int = INTEGER_MAX

    def read(self, value: Json, at: At) -> int:  # noqa: D102
        if isinstance(value, bool) or not isinstance(value, int):
            raise at.invalid("an integer", value)
        if not self.least <= value <= self.most:
            raise at.invalid(f"{self.least} to {self.most}", value)
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "integer", "minimum": self.least, "maximum": self.most}


@dataclass(frozen=True, slots=True)
class Flag(Rule):
    """``true`` or ``false``; with ``only`` the one of them that the language allows here."""

    only: bool | None = None

    def read(self, value: Json, at: At) -> bool:  # noqa: D102
        if not isinstance(value, bool):
            raise at.invalid("true or false", value)
        if self.only is not None and value is not self.only:
            raise at.invalid(str(self.only).lower(), value)
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "boolean"} if self.only is None else {"const": self.only}


@dataclass(frozen=True, slots=True)
class Decimals(Rule):
    """A decimal as a string, greater than zero; at most (or below) a bound."""

    most: str | None = None
    below: str | None = None

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        if not isinstance(value, str) or PLAIN_DECIMAL.fullmatch(value) is None:
            raise at.invalid("a decimal as a string, in plain spelling", value)
        number = Decimal(value)
        if (
            number == 0
            or number > Decimal(self.most or number)
            or (self.below and number >= Decimal(self.below))
        ):
            bound = (
                f" and at most {self.most}" if self.most else f" and below {self.below}" if self.below else ""
            )
            raise at.invalid("above 0" + bound, value)
        return value

    def normal(self, value: Json) -> Json:  # noqa: D102
        if not isinstance(value, str) or _WRITTEN_DECIMAL.fullmatch(value) is None:
            return value
        try:
            return decimal_text(value)
        except EncodingError:
            return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "pattern": _WRITTEN_DECIMAL.pattern}


class Time(Rule):
    """``2026-11-30T00:00:00Z``, and a real date."""

    __slots__ = ()

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        if not isinstance(value, str) or _TIME.fullmatch(value) is None:
            raise at.invalid("YYYY-MM-DDTHH:MM:SSZ", value)
        try:
            to_ms(value)
        except (ValueError, OverflowError) as error:
            raise at.invalid("a real date", value) from error
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "pattern": _TIME.pattern}


class Digest(Rule):
    """``sha256:`` and 64 hex digits."""

    __slots__ = ()

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        if not isinstance(value, str) or not is_digest(value) or value.endswith("\n"):
            raise at.invalid("sha256:<64 hex digits>", value)
        return value

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "pattern": "^sha256:[0-9a-f]{64}$"}


class Key(Rule):
    """A public key under which a signature proves something."""

    __slots__ = ()

    def read(self, value: Json, at: At) -> str:  # noqa: D102
        try:
            parse_key(value)
        except WeakKeyError as error:
            raise WeakKeyError(
                clause=at.clause, need=error.need, found=error.found, remedy=error.remedy
            ) from error
        return str(value)

    def shape(self) -> dict[str, Json]:  # noqa: D102
        return {"type": "string", "pattern": "^ed25519:[0-9a-f]{64}$"}


@dataclass(frozen=True, slots=True)
class Set(Rule):
    """A list whose order means nothing: sorted in the canonical form, nothing twice."""

    of: Rule
    least: int = 0

    def read(self, value: Json, at: At) -> tuple[str, ...]:  # noqa: D102
        if not isinstance(value, list):
            raise at.invalid("a list", value)
        members = tuple(self.of.read(one, at) for one in value)
        if list(members) != sorted(set(members)) or len(members) < self.least:
            raise at.invalid(f"at least {self.least}, sorted, each once", value)
        return members

    def normal(self, value: Json) -> Json:  # noqa: D102
        return sorted(value)


@dataclass(frozen=True, slots=True)
class Struct(Rule):
    """An object with the keys of a dataclass."""

    of: type

    def read(self, value: Json, at: At) -> Any:  # noqa: ANN401, D102
        return self.of(**read_fields(self.of, value, at))

    def normal(self, value: Json) -> Json:  # noqa: D102
        rules = rules_of(self.of)
        return {key: rules[key].normal(one) for key, one in value.items()}


@dataclass(frozen=True, slots=True)
class Rows(Rule):
    """A list of objects, sorted by one or two of their keys, which differ in at least one of them."""

    of: type
    by: tuple[str, ...] = ("clause",)
    least: int = 0

    def read(self, value: Json, at: At) -> tuple[Any, ...]:  # noqa: D102
        if not isinstance(value, list):
            raise at.invalid("a list", value)
        rows = tuple(Struct(self.of).read(one, at.row(i, one)) for i, one in enumerate(value))
        order = [tuple(getattr(row, key) for key in self.by) for row in rows]
        for before, after in itertools.pairwise(rows):
            if all(getattr(before, key) == getattr(after, key) for key in self.by):
                twice = " ".join(str(getattr(after, key)) for key in self.by)
                place = at.row(rows.index(after), {"clause": getattr(after, "clause", None)})
                raise place.invalid("each row once", f"{twice} twice")
        if order != sorted(order):
            raise at.invalid("sorted by " + ", ".join(self.by), order)
        if len(rows) < self.least:
            raise at.invalid(f"at least {self.least}", len(rows))
        return rows

    def normal(self, value: Json) -> Json:  # noqa: D102
        rows = [Struct(self.of).normal(one) for one in value]
        return sorted(rows, key=lambda row: tuple(row[key] for key in self.by))


@dataclass(frozen=True, slots=True)
class Nullable(Rule):
    """The rule's value, or null."""

    of: Rule

    def read(self, value: Json, at: At) -> Any:  # noqa: ANN401, D102
        return None if value is None else self.of.read(value, at)

    def normal(self, value: Json) -> Json:  # noqa: D102
        return None if value is None else self.of.normal(value)


def ruled(rule: Rule, *, omitted: object = REQUIRED) -> Any:  # noqa: ANN401  stands for a field of any type
    """A dataclass field that follows a rule.

    Args:
        rule: Of the value.
        omitted: What the draft fills in where the author wrote nothing: a value, or a function of the whole
            drafted document and the enclosing object that returns one. Signed bytes always have it.
    """
    return dataclasses.field(metadata={"rule": rule, "omitted": omitted})


@functools.cache
def rules_of(kind: type) -> dict[str, Rule]:
    """The rule of each key of a dataclass, in the order of the class."""
    return {one.name: one.metadata["rule"] for one in _ruled_fields(kind)}


def omissions_of(kind: type) -> dict[str, object]:
    """What the draft fills in for each key of a dataclass that the author may omit."""
    found = {one.name: one.metadata["omitted"] for one in _ruled_fields(kind)}
    return {name: omitted for name, omitted in found.items() if omitted is not REQUIRED}


def _ruled_fields(kind: type) -> Iterable[dataclasses.Field[Any]]:
    return (one for one in dataclasses.fields(kind) if "rule" in one.metadata)


def read_fields(kind: type, tree: Json, at: At) -> dict[str, Any]:
    """The values of a dataclass's ruled fields, from an object with exactly their keys.

    Raises:
        ContractInvalidError: A key is missing or unknown, or a value breaks its rule.
    """
    if not isinstance(tree, Mapping):
        raise at.invalid("an object", tree)
    own = tree.get("clause")
    if isinstance(own, str) and CLAUSE_ID.fullmatch(own):
        at = At(own, at.path)
    rules = rules_of(kind)
    for key in tree:
        if key not in rules:
            refuse_key(kind, key, at)
    for key in rules:
        if key not in tree:
            raise at.invalid(f"the key {key}", "no such key")
    return {key: rule.read(tree[key], at.key(key)) for key, rule in rules.items()}


def refuse_key(kind: type, key: str, at: At) -> NoReturn:
    """Raises the error of a key that a class does not have."""
    raise at.key(key).invalid("only the keys " + " ".join(rules_of(kind)), f"the key {key}")
