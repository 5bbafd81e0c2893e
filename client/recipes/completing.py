# SPDX-License-Identifier: Apache-2.0
"""What follows from the rest of a recipe, filled in, so that nobody writes it by hand; then canonical bytes.

- ``schema``, and ``start`` as null where it is left out.
- The normaliser of ``sin``, ``cos`` and ``sign_soft`` (``bounded``); one value for all coordinates of a field
  is repeated; ``low`` and ``high`` are empty where the rule has none; ``centre`` and ``scale`` follow from
  ``low`` and ``high`` by the public rule: the middle and half / sqrt 3, in three significant digits.
- ``tensors``, of each variant too, from architecture and sizes, whatever stood there; beside variants, empty
  ``inputs``, ``features`` and ``outputs``.
- Nothing that is a choice: no plan, no evaluation plan, no scale of an approach.

Whatever is no recipe stays as it is: `policies.recipe.load` says what is wrong with it.

    made = complete(read_source(path))       # RecipeError
    made.data, made.recipe, made.filled
"""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import TypeAdapter, ValidationError

from client.answers import Answer
from client.recipes.sources import read_source, refused, write_recipe
from policies.encoding import canonical
from policies.recipe import architecture_manifest, load
from policies.recipe.features import Feature

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from policies.recipe import Recipe

__all__ = ["Completed", "complete", "recipe_format"]

Json = Any  # a JSON value

_DIGITS: Final = 3
_BOUNDED: Final = frozenset({"sin", "cos", "sign_soft"})
_INTERVAL: Final = frozenset({"task-box", "limit"})
_UNKNOWN: Final = {"name": "unknown", "shape": [1], "dtype": "float32", "scope": "shared", "block": "trunk"}
_FEATURE: Final[TypeAdapter[Any]] = TypeAdapter(Feature)


@dataclass(frozen=True, slots=True, kw_only=True)
class Completed:
    """Canonical bytes, the recipe behind them, and what was filled in."""

    data: bytes
    recipe: Recipe
    filled: tuple[str, ...]


def recipe_format(file: Path, *, out: Path | None) -> Answer:
    """Writes a recipe in canonical bytes, with what follows from the rest filled in.

    Args:
        file: As a person wrote it.
        out: Where it goes; in place if left out and FILE ends with .json, else beside it, as .json.

    Raises:
        RecipeError, PrivacyError: It is no recipe; the block is named.
        FileTakenError: Something that is no recipe is where it would go.
    """
    made = complete(read_source(file))
    target = out or file.with_suffix(".json")
    write_recipe(target, made.data, own=out is None and target == file)
    return Answer(
        data={
            "file": str(target),
            "recipe": made.recipe.digest,
            "size_bytes": len(made.data),
            "filled": list(made.filled),
        },
        text=(
            f"recipe    {made.recipe.digest}",
            f"file      {target}, {len(made.data)} bytes",
            f"filled    {', '.join(made.filled) or 'nothing: it was complete'}",
            f"next: iriai-node recipe check {target}",
        ),
    )


def complete(tree: Json) -> Completed:
    """The recipe that a person meant; see the module.

    Raises:
        RecipeError, PrivacyError: It is none.
    """
    if not isinstance(tree, dict):
        raise refused("a recipe: blocks by their names", type(tree).__name__)
    document = {"schema": "iriai-recipe/1", "start": None, **tree}
    variants = document.get("variants")
    if isinstance(variants, list):
        document["variants"] = [_part(one) for one in variants]
        document = {"inputs": [], "features": [], "outputs": [], **document}
    document = _with_tensors(_part(document))
    data = canonical(document)
    return Completed(data=data, recipe=load(data), filled=tuple(_filled(tree, document)))


def _filled(before: dict[str, Json], after: dict[str, Json]) -> Iterator[str]:
    """Names of blocks that are there now, or say more than before."""
    yield from (name for name in sorted(after) if name not in before and after[name] != [])
    for name in sorted(before):
        if before[name] != after[name]:
            yield name if name == "tensors" else f"normalisers of {name}"


# --- normalisers ---


def _part(part: Json) -> Json:
    """A document, or a variant of it, with complete normalisers."""
    if not isinstance(part, dict):
        return part
    sizes = {
        one["field"]: one.get("size") for one in _blocks(part, "inputs") if isinstance(one.get("field"), str)
    }
    found = dict(part)
    if isinstance(part.get("features"), list):
        found["features"] = [_feature(one, sizes) for one in part["features"]]
    if isinstance(part.get("outputs"), list):
        found["outputs"] = [_normalised(one, _size(one)) for one in part["outputs"]]
    return found


def _blocks(part: dict[str, Json], name: str) -> list[dict[str, Json]]:
    listed = part.get(name)
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def _size(block: Json) -> Json:
    return block.get("size") if isinstance(block, dict) else None


def _feature(block: Json, sizes: dict[str, Json]) -> Json:
    if not isinstance(block, dict):
        return block
    source = block.get("field", block.get("a"))
    size = sizes.get(source) if isinstance(source, str) else None
    if block.get("op") in _BOUNDED and "normaliser" not in block:
        block = {**block, "normaliser": {"rule": "bounded"}}
    return _normalised(block, size)


def _normalised(block: Json, size: Json) -> Json:
    """A feature or output whose normaliser is complete, as far as its rule says it."""
    given = block.get("normaliser") if isinstance(block, dict) else None
    if not isinstance(given, dict) or type(size) is not int or not 0 < size <= 64:  # noqa: PLR2004  of fields
        return block
    rule = given.get("rule")
    found = {
        name: [one] * size if isinstance(one, str) and name != "rule" else one for name, one in given.items()
    }
    if rule == "bounded":
        found = {"low": [], "high": [], "centre": ["0"] * size, "scale": ["1"] * size, **found}
    if rule == "approach":
        found = {"low": [], "high": [], **found}
    if rule in _INTERVAL:
        found = {**_by_rule(found.get("low"), found.get("high")), **found}
    return {**block, "normaliser": found}


def _by_rule(low: Json, high: Json) -> dict[str, list[str]]:
    """Centre and scale of an interval of each coordinate; nothing where there is none."""
    if not isinstance(low, list) or not isinstance(high, list) or len(low) != len(high):
        return {}
    try:
        ends = [(Decimal(one), Decimal(other)) for one, other in zip(low, high, strict=True)]
        halves = [(high - low) / 2 for low, high in ends]
        return {
            "centre": [_rounded((low + high) / 2) for low, high in ends],
            "scale": [_rounded(half / Decimal(3).sqrt()) for half in halves],
        }
    except (InvalidOperation, TypeError, ValueError):
        return {}


def _rounded(value: Decimal) -> str:
    """Three significant digits, in plain notation."""
    if not value:
        return "0"
    text = format(value.quantize(Decimal(1).scaleb(value.adjusted() - _DIGITS + 1)), "f")
    return text.rstrip("0").rstrip(".") if "." in text else text


# --- tensors ---


def _with_tensors(document: dict[str, Json]) -> dict[str, Json]:
    """The document with the manifest of its architecture; without one, with what the schema takes for one.

    Raises:
        RecipeError: An architecture that is unknown, or arguments that it does not have.
    """
    architecture, variants = document.get("architecture"), document.get("variants")
    if not isinstance(architecture, dict):
        return {**document, "tensors": [_UNKNOWN]}
    if isinstance(variants, list):
        parts = [_variant(one, document, architecture) for one in variants]
        rows = architecture_manifest(architecture, input_size=1, output_size=1, scope="shared")
        return {**document, "variants": parts, "tensors": rows or [_UNKNOWN]}
    return {**document, "tensors": _rows(document, document, architecture)}


def _variant(part: Json, document: dict[str, Json], architecture: dict[str, Json]) -> Json:
    if not isinstance(part, dict):
        return part
    return {**part, "tensors": _rows(part, document, architecture, scope="private")}


def _rows(
    part: dict[str, Json],
    document: dict[str, Json],
    architecture: dict[str, Json],
    *,
    scope: Literal["private"] | None = None,
) -> list[dict[str, Json]]:
    """Tensors of a document or a variant; a stand-in where its features or outputs are none."""
    try:
        inputs = sum(_FEATURE.validate_python(one).size for one in part["features"])
        outputs = _outputs(part, document)
    except (ValidationError, KeyError, TypeError):
        return [_UNKNOWN]
    return architecture_manifest(architecture, input_size=inputs, output_size=outputs, scope=scope)


def _outputs(part: dict[str, Json], document: dict[str, Json]) -> int:
    """Values per action, or logits."""
    loss = document.get("loss") or {}
    if "label" in loss:
        return len(loss["classes"]) if "classes" in loss else 1
    return sum(int(one["size"]) for one in part["outputs"])
