# SPDX-License-Identifier: Apache-2.0
"""The shape of the entries of one type, as one expression: what fits it is read without parsing JSON.

    read_shape(data)        # the body as `policies.encoding.parse` gives it, or None

- What is read so is canonical, has exactly the fields of frame and type, and each value is of its kind:
  steps 2 to 4 of `policies.log.entries.check_entry` hold. That the maker fits the type is not looked at.
- None says nothing: the text may still be an entry, of larger integers for example, and the steps decide one
  by one. So a shape never refuses anything, and words of refusals come from one place.
- A shape knows only ASCII texts without escapes. Of these the expression states every byte: order and number
  of the keys, no white space, integers in their one spelling.
- Types with a field that no expression states (an object by aliases, for example) have no shape.
"""

from __future__ import annotations

import functools
import json
import re
from typing import TYPE_CHECKING, Any, Final

from policies.limits import STRING_CHARS
from policies.log.kinds import (
    ALIAS,
    DIGEST,
    ID,
    INTEGER,
    MINUTE,
    ORIGIN,
    REFS_MAX,
    Kind,
    Spelling,
    many,
    nullable,
)
from policies.log.schema import SCHEMA

if TYPE_CHECKING:
    from collections.abc import Iterator

    from policies.log.schema import EntryType, Schema

__all__ = ["read_shape"]

Json = Any
_ACTOR: Final = Spelling('"', rf"broker|auditor|{ALIAS.spelled.inner if ALIAS.spelled else ''}", '"')
_COMMITMENT: Final = '"([0-9a-f]{64})"'
_REFS: Final = many(INTEGER, REFS_MAX)
_HEAD: Final = 3  # actor, env, log
_MIDDLE: Final = 4  # refs, round, run, scope

_minute_holds = functools.lru_cache(maxsize=64)(MINUTE.holds)  # entries follow each other in time


def _group(spelled: Spelling | None) -> str:
    if spelled is None:
        raise TypeError("a kind without a spelling")
    return f"{spelled.before}({spelled.inner}){spelled.after}"


class Shape:
    """See the module.

    Args:
        kind: Type of the entries.
        schema: Its fields, all of kinds that are spelled.
    """

    def __init__(self, kind: EntryType, schema: Schema) -> None:
        self._kind = kind
        self._pub = sorted(schema.pub)
        self._sd = sorted({"at", *schema.sd, *schema.sd_optional})
        self._gaps = bool(schema.sd_optional)
        self._made = [(name, one) for name in self._pub if _needs_more(one := schema.pub[name])]
        self._pattern = re.compile(_expression(kind, schema, self._pub, self._sd), re.ASCII)
        self._sd_from = _HEAD + len(self._pub) + _MIDDLE
        if self._pattern.groups != self._sd_from + len(self._sd) + 1:
            raise TypeError(f"{kind}: a kind is spelled with groups of its own")

    def read(self, text: str) -> dict[str, Json] | None:
        """The body behind a text, or None; see the module."""
        found = self._pattern.fullmatch(text)
        if found is None:
            return None
        values = found.groups()
        pub = dict(zip(self._pub, values[_HEAD:], strict=False))
        refs, round_, run, scope = values[self._sd_from - _MIDDLE : self._sd_from]
        ts = values[-1]
        listed = [] if refs == "[]" else json.loads(refs)
        if not _minute_holds(ts) or not (refs == "[]" or _REFS.holds(listed)) or not self._make(pub):
            return None
        sd = dict(zip(self._sd, values[self._sd_from :], strict=False))
        return {
            "actor": values[0],
            "env": values[1],
            "log": values[2],
            "pub": pub,
            "refs": listed,
            "round": None if round_ is None else int(round_),
            "run": run,
            "scope": scope,
            "sd": {name: value for name, value in sd.items() if value is not None} if self._gaps else sd,
            "ts": ts,
            "type": self._kind,
        }

    def _make(self, pub: dict[str, Json]) -> bool:
        """Makes values of their texts where these differ; False if one is not of its kind."""
        for name, kind in self._made:
            value, spelled = pub[name], kind.spelled
            if value is not None and spelled is not None and spelled.read is not None:
                value = pub[name] = spelled.read(value)
            if spelled is None or not (spelled.exact or kind.holds(value)):
                return False
        return True


def _needs_more(kind: Kind) -> bool:
    return kind.spelled is None or kind.spelled.read is not None or not kind.spelled.exact


def _expression(kind: EntryType, schema: Schema, pub: list[str], sd: list[str]) -> str:
    fields = ",".join(f'"{name}":{_group(schema.pub[name].spelled)}' for name in pub)
    frame = {
        "actor": _group(_ACTOR),
        "env": _group(nullable(DIGEST).spelled),
        "log": _group(ORIGIN.spelled),
        "pub": rf"\{{{fields}\}}",
        "refs": _group(_REFS.spelled),
        "round": _group(nullable(INTEGER).spelled),
        "run": _group(nullable(ID).spelled),
        "scope": _group(nullable(DIGEST).spelled),
        "sd": rf"\{{{''.join(_commitments(schema, sd))}\}}",
        "ts": _group(MINUTE.spelled),
        "type": f'"{re.escape(kind)}"',
        "v": "1",
    }
    return r"\{" + ",".join(f'"{name}":{value}' for name, value in frame.items()) + r"\}"


def _commitments(schema: Schema, names: list[str]) -> Iterator[str]:
    """``at`` is always there: names before it end with a comma, those after it begin with one."""
    for name in names:
        one = f'"{name}":{_COMMITMENT}'
        if name != "at":
            one = f"{one}," if name < "at" else f",{one}"
        yield f"(?:{one})?" if name in schema.sd_optional else one


class _Shapes(dict[str, Shape | None]):
    """Shapes by the name of their type, each made when an entry asks for it."""

    def __missing__(self, name: str) -> Shape | None:
        if name not in _KINDS:
            return None  # not kept: names come from anybody
        schema = SCHEMA[_KINDS[name]]
        spelled = all(one.spelled for one in schema.pub.values())
        made = self[name] = Shape(_KINDS[name], schema) if spelled else None
        return made


_KINDS: Final = {kind.value: kind for kind in SCHEMA}
_SHAPES: Final = _Shapes()
_TYPE: Final = '"type":"'
_REST: Final = len('","v":1}')


def read_shape(data: bytes) -> dict[str, Json] | None:
    """The body behind the bytes of an entry, without ``v``; None where the steps have to decide."""
    if len(data) > STRING_CHARS or not data.isascii():
        return None
    text = data.decode("ascii")
    shape = _SHAPES[text[text.rfind(_TYPE) + len(_TYPE) : -_REST]]
    return None if shape is None else shape.read(text)
