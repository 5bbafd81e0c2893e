# SPDX-License-Identifier: Apache-2.0
"""A recipe as a person writes it: JSON or YAML, from a file, as a JSON value without numbers that are texts.

- JSON may hold decimals as numbers; they become text as they were written (``0.10`` and ``1e-1`` are
  ``"0.1"``). YAML is that of contracts (`policies.contract.source`): a decimal is quoted.
- A whole number becomes text too, wherever a recipe has text there; `WHOLE` names the places where it has
  whole numbers.
- Refused: keys that occur twice, NaN, values nested too deep, files larger than `policies.limits`.

    read_source(Path("pick.yaml"))          # RecipeInvalidError, YamlRefusedError, NoSuchThingError
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

from client.errors import FileTakenError
from client.seeds import read_file
from client.settings import write_durably
from policies.contract.source import read_yaml
from policies.encoding import canonical, decimal_text
from policies.errors import EncodingError, IriaiError
from policies.limits import RECIPE_BYTES
from policies.recipe import RecipeInvalidError, load

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WHOLE", "read_source", "read_text", "refused", "write_recipe"]

Json = Any  # a JSON value

WHOLE: Final = frozenset(
    {
        *("batch", "chunk", "deadline_s", "execute", "frames_per_unit", "heads", "hidden", "honest_min"),
        *("lag", "layers", "local_steps", "n", "need", "order", "rounds", "seed", "shape", "size", "steps"),
        *("steps_per_round", "watchdog_ms", "width", "window"),
    }
)
_READABLE: Final = 8  # times the canonical size: with comments, blanks and a manifest
_MODE: Final = 0o644  # recipes are handed around


def refused(need: str, found: str) -> RecipeInvalidError:
    """What is wrong with a source, to raise."""
    return RecipeInvalidError(need=need, found=found, remedy="correct the file")


def read_source(path: Path) -> Json:
    """The JSON value that a person wrote.

    Raises:
        NoSuchThingError: The file cannot be read.
        RecipeInvalidError: Neither JSON nor YAML, or too large.
        YamlRefusedError: YAML that two readers read differently; the line is named.
    """
    data = read_file(path)
    if len(data) > _READABLE * RECIPE_BYTES:
        raise refused(f"at most {_READABLE * RECIPE_BYTES} bytes", f"{len(data)} bytes")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise refused("UTF-8 text", "other bytes") from error
    return read_text(text, as_json=path.suffix == ".json" or text.lstrip().startswith("{"))


def read_text(text: str, *, as_json: bool) -> Json:
    """The JSON value of a text.

    Raises:
        RecipeInvalidError, YamlRefusedError: See `read_source`.
    """
    tree = _json(text) if as_json else read_yaml(text)
    try:
        canonical(tree)  # refuses what is nested too deep, or no text
    except EncodingError as error:
        raise refused(error.need, error.found) from error
    return _as_text(tree, "")


def _json(text: str) -> Json:
    try:
        return json.loads(
            text, parse_float=_decimal, parse_constant=_decimal, object_pairs_hook=_without_duplicates
        )
    except RecipeInvalidError:
        raise
    except RecursionError as error:
        raise refused("JSON of a few levels", "a deeper one") from error
    except ValueError as error:
        raise refused("JSON, or YAML in a file that ends with .yaml", ascii(str(error))[:100]) from error


def _decimal(text: str) -> str:
    """A number as a recipe spells it."""
    sign = "-" if text.startswith("-") else ""
    try:
        plain = decimal_text(text.removeprefix("-"))
    except EncodingError as error:
        raise refused(error.need, ascii(text)[:40]) from error
    return plain if plain == "0" else sign + plain


def _without_duplicates(pairs: list[tuple[str, Json]]) -> dict[str, Json]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise refused("each key once", ascii(next(one for one in names if names.count(one) > 1))[:60])
    return found


def _as_text(value: Json, key: str) -> Json:
    """The value with its whole numbers as text, where a recipe has text."""
    if isinstance(value, dict):
        return {name: _as_text(one, name) for name, one in value.items()}
    if isinstance(value, list):
        return [_as_text(one, key) for one in value]
    if type(value) is int and key not in WHOLE:
        return str(value)
    return value


def write_recipe(path: Path, data: bytes, *, own: bool = False) -> None:
    """Writes a recipe; another recipe may be there before, or the source itself (``own``), and nothing else.

    Raises:
        FileTakenError: Something else is there, or no folder for it.
    """
    if not path.parent.is_dir() or (path.exists() and not own and not _is_recipe(path)):
        raise FileTakenError(
            need="a new file, or a recipe that is written anew, in a folder that is there",
            found=str(path),
            remedy="choose another --out",
        )
    write_durably(path, data, mode=_MODE)


def _is_recipe(path: Path) -> bool:
    if not path.is_file():
        return False
    try:
        load(read_file(path))
    except IriaiError:
        return False
    return True
