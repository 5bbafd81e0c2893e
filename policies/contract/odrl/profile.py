# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of our ODRL profile: every left operand, and which term of which clause it is.

- Every term is a whole IRI of the scheme ``iriai``. A message needs no JSON-LD context besides the Dataspace
  Protocol's own, so nobody has to fetch one to keep a term.
- `TERMS` maps the fields of a clause kind to left operands. The kind of value follows from the rule of the
  field in `policies.contract.clauses`: a number cannot be written as text, or a set as one value.
- `LEFT` is the same read backwards, for the import: per left operand the operators and the kind of value.
- Numbers are ``{"@value": "4", "@type": "xsd:decimal"}``, times ``{"@value": …, "@type": "xsd:dateTime"}``,
  sets arrays of text, the rest text. A JSON number would be refused by the protocol's own schema.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, get_args

from policies.contract.clauses import Clause, FixedWeight
from policies.contract.grammar import (
    PLAIN_DECIMAL,
    At,
    Decimals,
    Integer,
    Nullable,
    Rule,
    Set,
    Struct,
    Time,
    rules_of,
)
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = [
    "ACTIONS",
    "CLAUSE",
    "CONTRACT_DIGEST",
    "DISCLOSE",
    "LEFT",
    "OPERATORS",
    "PREFIX",
    "PROFILE",
    "RELEASED",
    "TERMS",
    "TRAIN",
    "USE",
    "WEIGHT",
    "Left",
    "Term",
    "ValueKind",
    "constraint",
    "kind_of",
    "right_operand",
    "value_of",
]

Json = Any  # a JSON value

PREFIX: Final = "iriai:"
PROFILE: Final = PREFIX + "odrl-profile/1"
CONTRACT_DIGEST: Final = PREFIX + "contractDigest"
CLAUSE: Final = PREFIX + "clause"
USE: Final = "use"
TRAIN: Final = PREFIX + "train"
DISCLOSE: Final = PREFIX + "disclose"
ACTIONS: Final = frozenset({USE, TRAIN, DISCLOSE})
_DECIMAL_TYPE: Final = "xsd:decimal"
_TIME_TYPE: Final = "xsd:dateTime"


@dataclass(frozen=True, slots=True)
class Term:
    """One field of a clause kind (``approvals.min``: a field of the object in a field) as a left operand."""

    field: str
    left: str
    operator: str


class ValueKind(StrEnum):
    """How a right operand is written."""

    DECIMAL = "decimal"
    TIME = "time"
    SET = "set"
    TEXT = "text"


def _terms(*rows: str) -> tuple[Term, ...]:
    return tuple(Term(*row.split()) for row in rows)


TERMS: Final[dict[str, tuple[Term, ...]]] = {
    "party": _terms("key key eq"),
    "term": _terms("effective time gteq", "expires time lt"),
    "purpose": _terms("id purpose eq"),
    "forbidden": _terms("use forbiddenUse eq"),
    "recipe": _terms(
        "id recipe eq",
        "recipe_digest recipeDigest eq",
        "max_rounds rounds lteq",
        "max_local_steps_per_round localSteps lteq",
    ),
    "seed": _terms("seed_set seedSet eq"),
    "fields": _terms("allow field isAnyOf", "personal_data personalData eq"),
    "secret": _terms("fields field isAnyOf"),
    "privacy": _terms(
        "mode privacyMode eq",
        "unit unit eq",
        "adjacency adjacency eq",
        "delta delta eq",
        "filter filter eq",
        "noise noise eq",
        "honest_min honestParties gteq",
        "protected_properties protectedProperty isAllOf",
        "reply_slot_ms replySlotMs eq",
    ),
    "privacy-cap": _terms("epsilon_per_release epsilonPerRelease lteq", "epsilon_total epsilonTotal lteq"),
    "aggregation": _terms(
        "min_parties groups gteq",
        "max_colluders colluders lteq",
        "max_share groupShare lteq",
        "weights weights eq",
        "secure_aggregation secureAggregation eq",
        "update_norm_max updateNorm lteq",
        "delay_hours delayHours gteq",
        "differencing_guard differencingGuard eq",
        "group_mac groupMac eq",
    ),
    "validation": _terms("quorum validationQuorum gteq", "max_rejected_rounds rejectedRounds lt"),
    "queries": _terms("allow view isNoneOf", "min_groups groups lt"),
    "tier": _terms(
        "tier tier eq",
        "recipe recipe eq",
        "model model eq",
        "recipients recipient isAnyOf",
        "licence licence eq",
        "requires requires isAllOf",
        "embargo_days embargoDays gteq",
        "min_contribution contribution gteq",
    ),
    "release": _terms(
        "approvals.min approvals gteq",
        "approvals.veto veto isNoneOf",
        "evidence evidence isAllOf",
        "max_mia_auc membershipInferenceAuc lteq",
        "max_property_skill propertySkill lteq",
    ),
    "exit": _terms(
        "notice_days noticeDays eq",
        "released_models releasedModels eq",
        "unreleased_models unreleasedModels eq",
        "influence influence eq",
    ),
    "audit": _terms("log_origin logOrigin eq", "witness_quorum witnesses gteq"),
    "export": _terms("embargoed country isAnyOf"),
    "amendment": _terms("change change eq", "tighten tighten eq", "key_rotation keyRotation eq"),
    "halt": _terms("who mayHalt isAllOf", "effect haltEffect eq", "resume resume eq"),
    "conflict": _terms("rule conflict eq", "unknown unknown eq"),
}
"""Per clause kind. A kind that is law only in this version has no row: nothing of it could be enforced."""
RELEASED: Final = _terms("effective releasedAt gteq", "expires releasedAt lt")
"""The term, for a model: what was released in it may be used after it."""
WEIGHT: Final = Term("weight", "weight", "eq")
"""The fixed weight of one party's updates, a row of the aggregation clause."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """What the import knows of one left operand."""

    kind: ValueKind
    operators: frozenset[str]


_CLASSES: Final[dict[str, type]] = {one.KIND: one for one in get_args(Clause)} | {"fixed-weight": FixedWeight}


def kind_of(clause_kind: str, term: Term) -> ValueKind:
    """How values of this term are written, by the rule of its field."""
    owner: type = _CLASSES[clause_kind]
    outer, _, inner = term.field.partition(".")
    rule = _plain(rules_of(owner)[outer])
    if inner and isinstance(rule, Struct):
        rule = _plain(rules_of(rule.of)[inner])
    if isinstance(rule, Decimals | Integer):
        return ValueKind.DECIMAL
    if isinstance(rule, Time):
        return ValueKind.TIME
    return ValueKind.SET if isinstance(rule, Set) else ValueKind.TEXT


def _plain(rule: Rule) -> Rule:
    return _plain(rule.of) if isinstance(rule, Nullable) else rule


def _read_backwards() -> dict[str, Left]:
    found: dict[str, Left] = {}
    for clause_kind, term in _all_terms():
        kind = kind_of(clause_kind, term)
        before = found.get(PREFIX + term.left, Left(kind=kind, operators=frozenset()))
        if before.kind != kind:  # pragma: no cover  a contradiction in this file
            raise ValueError(f"{term.left} has two kinds of value")
        found[PREFIX + term.left] = Left(kind=kind, operators=before.operators | {term.operator})
    return found


def _all_terms() -> Iterator[tuple[str, Term]]:
    yield from ((clause_kind, term) for clause_kind, rows in TERMS.items() for term in rows)
    yield from (("term", term) for term in RELEASED)
    yield ("fixed-weight", WEIGHT)


LEFT: Final[dict[str, Left]] = _read_backwards()
OPERATORS: Final = frozenset(term.operator for _, term in _all_terms())
_NAME = re.compile(r"[^\x00-\x1f\x7f]{1,4000}")


def constraint(clause: str, left: str, operator: str, right: Json) -> dict[str, Json]:
    """One constraint, with the id of the clause that it is about."""
    return {"leftOperand": PREFIX + left, "operator": operator, "rightOperand": right, CLAUSE: clause}


def right_operand(kind: ValueKind, value: object) -> Json:
    """The right operand of a clause's value."""
    if kind == ValueKind.DECIMAL:
        return {"@value": str(value), "@type": _DECIMAL_TYPE}
    if kind == ValueKind.TIME:
        return {"@value": str(value), "@type": _TIME_TYPE}
    if kind == ValueKind.SET:
        return [str(one) for one in value] if isinstance(value, tuple) else [str(value)]
    return str(value)


def value_of(kind: ValueKind, right: Json) -> str | tuple[str, ...] | None:
    """The value behind a right operand, or None if it is not written as this kind is."""
    if kind == ValueKind.SET:
        fits = isinstance(right, list) and all(_is_text(one) for one in right) and right == sorted(set(right))
        return tuple(right) if fits and right else None
    if kind == ValueKind.TEXT:
        return right if _is_text(right) else None
    wanted = _DECIMAL_TYPE if kind == ValueKind.DECIMAL else _TIME_TYPE
    if not isinstance(right, dict) or set(right) != {"@value", "@type"} or right["@type"] != wanted:
        return None
    text = right["@value"]
    return text if isinstance(text, str) and _is_exact(kind, text) else None


def _is_exact(kind: ValueKind, text: str) -> bool:
    if kind == ValueKind.DECIMAL:
        return PLAIN_DECIMAL.fullmatch(text) is not None
    try:
        Time().read(text, At(None, ""))
    except IriaiError:
        return False
    return True


def _is_text(value: Json) -> bool:
    return isinstance(value, str) and _NAME.fullmatch(value) is not None
