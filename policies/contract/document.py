# SPDX-License-Identifier: Apache-2.0
"""From what people write to signed bytes: the authoring boundary.

    text ── strict YAML ──► tree ── 1 known keys ── 2 shape (pydantic), each clause id once ── 3 fill in ──
    4 normalise ──► canonical bytes ── parse ──► Contract

1. Every key is known; another one is refused by its name, never ignored.
2. The pydantic models, made from the same dataclasses as the parser, check the JSON types: strict, frozen,
   nothing extra. Then each clause id must stand once: what is filled in refers to clauses by their ids.
3. What the author may leave out (``enforced_by``, ``requires``, empty lists, null) is filled in. Software
   writes nothing else into a contract, and nothing at all once it has a digest.
4. Sets are sorted, decimals written plainly, clauses ordered by id: order and spelling never change the
   digest.

The canonical bytes then pass `policies.contract.clauses.parse`, which the verifier uses as well: there is one
judge of what a contract is.
"""

from __future__ import annotations

import copy
import functools
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, WithJsonSchema, create_model

from policies.contract.clauses import Contract, parse
from policies.contract.errors import ContractInvalidError, NotCanonicalError, UnknownSchemaError
from policies.contract.grammar import (
    CLAUSE_ID,
    At,
    Flag,
    Integer,
    Nullable,
    Rows,
    Rule,
    Set,
    Struct,
    omissions_of,
    read_fields,
    refuse_key,
    remedy_at,
    rules_of,
)
from policies.contract.registry import SCHEMA
from policies.encoding import canonical

__all__ = ["from_tree", "json_schema", "load"]

Json = Any  # a JSON value


def load(text: str) -> Contract:
    """The contract behind a text: canonical JSON if it begins with a brace, strict YAML otherwise.

    Raises:
        YamlRefusedError: A part of YAML in which readers differ; the line is named.
        NotCanonicalError: JSON text that is not the canonical form.
        ContractInvalidError: A clause breaks the language or contradicts another; the clause is named.
        EnforcementOverclaimedError: ``enforced_by`` claims a point that no code serves.
        WeakKeyError: A pinned key proves nothing.
    """
    if text.startswith("{"):
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise NotCanonicalError(
                need="UTF-8", found="a lone surrogate", remedy="fetch the contract again by its digest"
            ) from error
        return parse(data)
    from policies.contract.source import read_yaml

    return from_tree(read_yaml(text))


def from_tree(tree: Json) -> Contract:
    """The contract behind an authored tree (steps 1 to 4 of the module docstring).

    Raises:
        ContractInvalidError: And its subclasses, as in `load`.
        WeakKeyError: A pinned key proves nothing.
    """
    at = At(None, "")
    if not isinstance(tree, dict):
        raise at.invalid("an object", tree)
    if tree.get("schema") != SCHEMA:
        raise UnknownSchemaError(
            need=f"schema {SCHEMA}",
            found=ascii(tree.get("schema"))[:80],
            remedy="write the schema id, or update iriai for a newer one",
        )
    _known_keys(Contract, tree, at)
    try:
        model = _model(Contract).model_validate(tree)
    except ValidationError as error:
        raise _shape_error(tree, error) from error
    _ids_once(tree)
    drafted = model.model_dump(exclude_unset=True, by_alias=True)
    _fill(Contract, drafted, drafted)
    normal = Struct(Contract).normal(drafted)
    read_fields(Contract, normal, at)  # errors with clause and place, before bytes exist
    return parse(canonical(normal))


def json_schema() -> dict[str, Json]:
    """JSON Schema of what an author writes."""
    return _model(Contract).model_json_schema()


def _inner(rule: Rule) -> type | None:
    """The dataclass below a rule, if it has one."""
    if isinstance(rule, Nullable):
        return _inner(rule.of)
    return rule.of if isinstance(rule, Struct | Rows) else None


def _known_keys(kind: type, tree: Json, at: At) -> None:
    if not isinstance(tree, Mapping):
        return  # step 2 says so
    own = tree.get("clause")
    if isinstance(own, str) and CLAUSE_ID.fullmatch(own):
        at = At(own, at.path)
    rules = rules_of(kind)
    for key, value in tree.items():
        if key not in rules:
            refuse_key(kind, str(key), at)
        below = _inner(rules[key])
        if below is not None:
            rows = value if isinstance(value, list) else [value]
            for index, row in enumerate(rows):
                place = at.key(key).row(index, row) if isinstance(value, list) else at.key(key)
                _known_keys(below, row, place)


def _ids_once(tree: Mapping[str, Json]) -> None:
    """Refuses a clause id that stands twice, with both places as the author wrote them."""
    seen: dict[str, str] = {}
    for place, own in _ids(tree, ""):
        if own in seen:
            raise ContractInvalidError(
                clause=own,
                need="each clause id once",
                found=f"clause id {own} twice: {seen[own]} and {place}",
                remedy="give one of the two clauses another id",
            )
        seen[own] = place


def _ids(node: Json, path: str) -> Iterator[tuple[str, str]]:
    """Place and clause id of every object that has one, as in the text."""
    if isinstance(node, Mapping):
        if isinstance(node.get("clause"), str):
            yield path, node["clause"]
        for key, below in node.items():
            yield from _ids(below, f"{path}.{key}" if path else str(key))
    elif isinstance(node, list):
        for index, below in enumerate(node):
            yield from _ids(below, f"{path}[{index}]")


@functools.cache
def _model(kind: type) -> type[BaseModel]:
    omitted = omissions_of(kind)
    # a key may be called `schema`, which pydantic's classes have a method for: hence the prefix and the alias
    keys: dict[str, Any] = {
        f"key_{key}": (_annotation(rule), Field(default=None if key in omitted else ..., alias=key))
        for key, rule in rules_of(kind).items()
    }
    config = ConfigDict(extra="forbid", strict=True, frozen=True)
    model: type[BaseModel] = create_model(kind.__name__, __config__=config, **keys)
    return model


def _annotation(rule: Rule) -> Any:  # noqa: ANN401  a type
    if isinstance(rule, Nullable):
        return _annotation(rule.of) | None
    if isinstance(rule, Struct):
        return _model(rule.of)
    if isinstance(rule, Rows):
        return list[_model(rule.of)]  # type: ignore[misc]
    if isinstance(rule, Set):
        return list[_annotation(rule.of)]  # type: ignore[misc]
    kind = int if isinstance(rule, Integer) else bool if isinstance(rule, Flag) else str
    return Annotated[kind, WithJsonSchema(rule.shape())]


def _fill(kind: type, own: dict[str, Json], document: Mapping[str, Json]) -> None:
    """Writes what the author left out, from the inside outwards of one object, into the draft."""
    for key, omitted in omissions_of(kind).items():
        if key not in own:
            own[key] = omitted(document, own) if callable(omitted) else copy.deepcopy(omitted)
    for key, rule in rules_of(kind).items():
        below = _inner(rule)
        if below is None or own[key] is None:
            continue
        for row in own[key] if isinstance(own[key], list) else [own[key]]:
            _fill(below, row, document)


def _shape_error(tree: Json, error: ValidationError) -> ContractInvalidError:
    first = error.errors(include_url=False, include_context=False)[0]
    clause, path = None, ""
    node: Json = tree
    for step in first["loc"]:
        path += f"[{step}]" if isinstance(step, int) else f".{step}" if path else str(step)
        node = _below(node, step)
        own = node.get("clause") if isinstance(node, dict) else None
        clause = own if isinstance(own, str) and CLAUSE_ID.fullmatch(own) else clause
    found = "no such key" if first["type"] == "missing" else ascii(first["input"])[:80]
    return ContractInvalidError(
        clause=clause, need=f"{path}: {first['msg']}", found=found, remedy=remedy_at(clause)
    )


def _below(node: Json, step: str | int) -> Json:
    if isinstance(node, dict):
        return node.get(step)
    return node[step] if isinstance(node, list) and isinstance(step, int) and step < len(node) else None
