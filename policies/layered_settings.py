# SPDX-License-Identifier: Apache-2.0
"""How a program's settings come together: option, else environment, else file, else default.

- Names are dotted: ``dsp.enabled`` is ``[dsp] enabled`` in the file and ``PREFIX__DSP__ENABLED`` in the
  environment. Tables are one level deep.
- A name that nobody knows is refused in every layer, so that a misspelt rule never goes unnoticed.
- A value of the environment is text; it is read as the kind of its setting: ``true`` or ``false``, a whole
  number, words with commas between. What cannot be read so is refused, and never shown.
- Each value remembers the layer that it came from.

Nothing here reads a file or the environment: the caller hands over what it read.

    known = {"listen_port": Kind.WHOLE, "dsp.enabled": Kind.FLAG}
    found = settle(known, [
        Layer("option", {"listen_port": 7443}),
        Layer("environment", of_environment("IRIAI_BROKER__", os.environ, known, refuse)),
        Layer("broker.toml", flat(tomllib.loads(text))),
    ], refuse)
    found["listen_port"]                      Found(value=7443, source="option"); absent: at its default

`refuse` makes the caller's own error out of (name, need, found).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Found", "Kind", "Layer", "Refuse", "flat", "of_environment", "settle", "variable"]

Value: TypeAlias = str | int | bool | list[str]
Refuse: TypeAlias = Callable[[str, str, str], Exception]
"""Makes an error of (name of the setting, what it needs, what was found)."""

_NEST: Final = "__"


class Kind(StrEnum):
    """What a setting holds; the value is what a refusal says that it needs."""

    TEXT = "text"
    WHOLE = "a whole number"
    FLAG = "true or false"
    WORDS = "a list of words"


@dataclass(frozen=True, slots=True)
class Layer:
    """What one place says, by dotted name; ``name`` is how a person would call the place."""

    name: str
    values: Mapping[str, object]


class Found(NamedTuple):
    """A value, and the layer that it came from."""

    value: Value
    source: str


def flat(table: Mapping[str, object]) -> dict[str, object]:
    """A file's tables by dotted names; an empty table says nothing."""
    found: dict[str, object] = {}
    for name, value in table.items():
        if isinstance(value, dict):
            found |= {f"{name}.{inner}": one for inner, one in value.items()}
        else:
            found[name] = value
    return found


def variable(prefix: str, name: str) -> str:
    """The variable of the environment that sets a name."""
    return prefix + name.replace(".", _NEST).upper()


def of_environment(
    prefix: str, environ: Mapping[str, str], known: Mapping[str, Kind], refuse: Refuse
) -> dict[str, object]:
    """What the variables that begin with a prefix say, read as the kinds of their settings."""
    names = {variable(prefix, name): name for name in known}
    found: dict[str, object] = {}
    for given in sorted(one for one in environ if one.startswith(prefix)):
        if given not in names:
            raise refuse(given, "only " + ", ".join(sorted(names)), "an unknown name")
        name = names[given]
        found[name] = _read(given, known[name], environ[given], refuse)
    return found


def settle(known: Mapping[str, Kind], layers: Iterable[Layer], refuse: Refuse) -> dict[str, Found]:
    """The value of each name that some layer sets, from the first layer that does; None sets nothing."""
    found: dict[str, Found] = {}
    for layer in layers:
        for name, value in sorted(layer.values.items()):
            if value is None:
                continue
            checked = _checked(name, known, value, refuse)
            found.setdefault(name, Found(checked, layer.name))
    return found


def _checked(name: str, known: Mapping[str, Kind], value: object, refuse: Refuse) -> Value:
    kind = known.get(name)
    if kind is None:
        tables = {one.partition(".")[0] for one in known if "." in one}
        if name in tables:
            raise refuse(name, f"a table, as in [{name}]", type(value).__name__)
        raise refuse(name, "only " + ", ".join(sorted(known)), "an unknown name")
    if kind is Kind.TEXT and isinstance(value, str) and value:
        return value
    if kind is Kind.FLAG and isinstance(value, bool):
        return value
    if kind is Kind.WHOLE and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind is Kind.WORDS and isinstance(value, list) and all(isinstance(one, str) for one in value):
        return list(value)
    raise refuse(name, kind.value, "an empty text" if value == "" else type(value).__name__)


def _read(name: str, kind: Kind, text: str, refuse: Refuse) -> Value:
    if kind is Kind.FLAG and text in {"true", "false"}:
        return text == "true"
    if kind is Kind.WHOLE and text.isascii() and text.removeprefix("-").isdecimal():
        return int(text)
    if kind is Kind.WORDS:
        return [one.strip() for one in text.split(",") if one.strip()]
    if kind is Kind.TEXT and text:
        return text
    raise refuse(name, kind.value, "another text" if text else "an empty text")
