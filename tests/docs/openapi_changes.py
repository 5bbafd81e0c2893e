# SPDX-License-Identifier: Apache-2.0
"""What changed between two OpenAPI documents, and whether a client that was written for the first one still works.

Breaking: a path, an answer, a parameter or a field that is gone; a field of an answer that may be missing now, or whose values are
others; a request that has to say more, or may say less; another role. Additive: everything new that nobody has to know.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "changes"]

LOWER = ("minLength", "minimum", "minItems", "exclusiveMinimum")
UPPER = ("maxLength", "maximum", "maxItems", "exclusiveMaximum")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """One difference."""

    breaking: bool
    where: str
    what: str

    def __str__(self) -> str:
        return f"{'BREAKING' if self.breaking else 'additive'} {self.where}: {self.what}"


def changes(old: dict[str, Any], new: dict[str, Any]) -> list[Change]:
    """Every difference that a client can meet, the breaking ones first."""
    found = list(_Pair(old, new).operations())
    return sorted(found, key=lambda one: (not one.breaking, one.where, one.what))


@dataclass(frozen=True)
class _Pair:
    old: dict[str, Any]
    new: dict[str, Any]

    def operations(self) -> Iterator[Change]:
        before, after = _operations(self.old), _operations(self.new)
        for where in before.keys() - after.keys():
            yield Change(breaking=True, where=where, what="is gone")
        for where in after.keys() - before.keys():
            yield Change(breaking=False, where=where, what="is new")
        for where in before.keys() & after.keys():
            yield from self._operation(where, before[where], after[where])

    def _operation(self, where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
        if old["x-iriai-role"] != new["x-iriai-role"]:
            what = f"role {old['x-iriai-role']} is now {new['x-iriai-role']}"
            yield Change(breaking=True, where=where, what=what)
        yield from self._parameters(where, old, new)
        yield from self._body(where, old.get("requestBody"), new.get("requestBody"))
        yield from self._answers(where, old["responses"], new["responses"])

    def _parameters(self, where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
        before = {(one["in"], one["name"]): one for one in old.get("parameters", ())}
        after = {(one["in"], one["name"]): one for one in new.get("parameters", ())}
        for kind, name in before.keys() - after.keys():
            yield Change(breaking=True, where=where, what=f"{kind} parameter {name} is gone")
        for kind, name in after.keys() - before.keys():
            needed = bool(after[kind, name].get("required"))
            yield Change(breaking=needed, where=where, what=f"{kind} parameter {name} is new")
        for key in before.keys() & after.keys():
            if after[key].get("required") and not before[key].get("required"):
                yield Change(breaking=True, where=where, what=f"parameter {key[1]} is required now")
            yield from self._schema(
                f"{where} ?{key[1]}", before[key]["schema"], after[key]["schema"], taken=True
            )

    def _body(self, where: str, old: dict[str, Any] | None, new: dict[str, Any] | None) -> Iterator[Change]:
        if old is None or new is None:
            if old is not new:
                yield Change(
                    breaking=True, where=where, what="has a body now" if old is None else "has no body now"
                )
            return
        yield from self._contents(f"{where} body", old["content"], new["content"], taken=True)

    def _answers(self, where: str, old: dict[str, Any], new: dict[str, Any]) -> Iterator[Change]:
        for status in old.keys() | new.keys():
            if status not in new or status not in old:
                what = f"status {status} is {'gone' if status not in new else 'new'}"
                yield Change(breaking=status < "400", where=where, what=what)
            elif status < "400":
                yield from self._contents(
                    f"{where} {status}", old[status]["content"], new[status]["content"], taken=False
                )

    def _contents(
        self, where: str, old: dict[str, Any], new: dict[str, Any], *, taken: bool
    ) -> Iterator[Change]:
        for media in old.keys() - new.keys():
            yield Change(breaking=True, where=where, what=f"kind {media} is gone")
        for media in new.keys() - old.keys():
            yield Change(breaking=not taken, where=where, what=f"kind {media} is new")
        for media in old.keys() & new.keys():
            yield from self._schema(where, old[media]["schema"], new[media]["schema"], taken=taken)

    def _schema(
        self, where: str, old: Any, new: Any, *, taken: bool, seen: frozenset[tuple[str, str]] = frozenset()
    ) -> Iterator[Change]:
        """Differences of two schemas; ``taken``: of what a client sends."""
        step = (str(old.get("$ref")), str(new.get("$ref")))
        if step != ("None", "None"):
            if step in seen:
                return
            seen |= {step}
        old, new = _resolved(self.old, old), _resolved(self.new, new)
        yield from _values(where, old, new, taken=taken)
        yield from self._fields(where, old, new, taken=taken, seen=seen)
        for part in ("items", "additionalProperties"):
            before, after = old.get(part), new.get(part)
            if isinstance(before, dict) and isinstance(after, dict):
                yield from self._schema(f"{where}[]", before, after, taken=taken, seen=seen)
        before, after = _branches(self.old, old), _branches(self.new, new)
        for kind in before.keys() & after.keys():
            yield from self._schema(where, before[kind], after[kind], taken=taken, seen=seen)

    def _fields(
        self, where: str, old: Any, new: Any, *, taken: bool, seen: frozenset[Any]
    ) -> Iterator[Change]:
        before, after = old.get("properties", {}), new.get("properties", {})
        needed = set(new.get("required", ()))
        for name in before.keys() - after.keys():
            yield Change(breaking=True, where=where, what=f"field {name} is gone")
        for name in after.keys() - before.keys():
            yield Change(breaking=taken and name in needed, where=where, what=f"field {name} is new")
        for name in before.keys() & after.keys():
            was, now = name in old.get("required", ()), name in needed
            if was != now:
                what = f"field {name} is {'required' if now else 'optional'} now"
                yield Change(breaking=now is taken, where=where, what=what)
            yield from self._schema(f"{where}.{name}", before[name], after[name], taken=taken, seen=seen)


def _operations(document: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{method.upper()} {path}": one
        for path, methods in document["paths"].items()
        for method, one in methods.items()
    }


def _resolved(document: dict[str, Any], schema: Any) -> Any:
    while "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    return schema


def _branches(document: dict[str, Any], schema: Any) -> dict[str, Any]:
    """Alternatives of a schema by their type."""
    found = [_resolved(document, one) for one in schema.get("anyOf", ())]
    return {str(one.get("type", one)): one for one in found}


def _types(schema: Any) -> frozenset[str]:
    if "anyOf" in schema:
        return frozenset().union(*(_types(one) for one in schema["anyOf"]))
    return frozenset({str(schema.get("type", schema.get("$ref", "anything")))})


def _allowed(schema: Any) -> frozenset[str] | None:
    """Values of a closed list, or None."""
    values = schema.get("enum", [schema["const"]] if "const" in schema else None)
    return None if values is None else frozenset(map(str, values))


def _values(where: str, old: Any, new: Any, *, taken: bool) -> Iterator[Change]:
    """Which values are allowed: a client that sends needs no fewer, one that reads no others."""
    before, after = _types(old), _types(new)
    if before != after:
        worse = bool(before - after) if taken else bool(after - before)
        yield Change(
            breaking=worse,
            where=where,
            what=f"type {' or '.join(sorted(before))} is now {' or '.join(sorted(after))}",
        )
    was, now = _allowed(old), _allowed(new)
    if was != now:
        narrower = now is not None and (was is None or bool(was - now))
        wider = was is not None and (now is None or bool(now - was))
        yield Change(
            breaking=narrower if taken else wider, where=where, what="the list of its values changed"
        )
    if old.get("pattern") != new.get("pattern"):
        dropped = new.get("pattern") is None
        yield Change(breaking=not dropped if taken else True, where=where, what="its pattern changed")
    for name in (*LOWER, *UPPER):
        if old.get(name) != new.get(name):
            tighter = _is_tighter(name, old.get(name), new.get(name))
            yield Change(
                breaking=tighter is taken, where=where, what=f"{name} {old.get(name)} is now {new.get(name)}"
            )


def _is_tighter(name: str, old: float | None, new: float | None) -> bool:
    if old is None or new is None:
        return old is None
    return new > old if name in LOWER else new < old
