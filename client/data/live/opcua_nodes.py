# SPDX-License-Identifier: Apache-2.0
"""Which node of an OPC UA server is which column of a signal map, and whether its unit is the map's.

- A column is a node id (``ns=2;s=Axis1.Position``), or a path of browse names from the base, with ``/``
  between them and without namespaces (``Axes/Axis_1/ParameterSet/ActualPosition``). A name that two children
  bear is refused; the node id then decides.
- What ``EngineeringUnits`` of a variable says must be the map's unit: its ``UnitId`` is the code of UN/ECE
  Recommendation 20 as OPC UA writes it (OPC 10000-8), or its display name spells it. Another unit is refused;
  a variable that says none, or one we do not know, is counted (``unit-not-said``).
- A variable holds one number, truth value or word. An array is refused.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from client.data.errors import CellInvalidError, LiveSourceError, MapInvalidError, MissingColumnError
from client.data.units import UNITS
from policies.limits import LIVE_REFERENCES, TEXT_ROW_BYTES

if TYPE_CHECKING:
    from client.data.live.rows import Value
    from client.data.signalmap import SignalMap

__all__ = ["Bound", "bind", "value_of"]

_NODE_ID: Final = re.compile(r"(ns=\d+;)?[isgb]=.+")
_UNECE: Final = "http://www.opcfoundation.org/UA/units/un/cefact"
_CODES: Final = {
    "1": "C62",
    "%": "P1",
    "m": "MTR",
    "cm": "CMT",
    "mm": "MMT",
    "rad": "C81",
    "deg": "DD",
    "rotvec": "C81",
    "euler-zyx": "C81",
    "euler-zyx-deg": "DD",
    "rad/s": "2A",
    "deg/s": "E96",
    "rpm": "RPM",
    "rad/s2": "2B",
    "deg/s2": "M45",
    "m/s": "MTS",
    "mm/s": "C16",
    "N": "NEW",
    "Nm": "NU",
    "A": "AMP",
    "mA": "4K",
    "K": "KEL",
    "degC": "CEL",
    "kg": "KGM",
    "g": "GRM",
}
_SPELLINGS: Final = {
    "": "1",
    "1": "1",
    "°": "deg",
    "degree": "deg",
    "degrees": "deg",
    "radian": "rad",
    "°/s": "deg/s",
    "°c": "degC",
    "r/min": "rpm",
    "1/min": "rpm",
    "metre": "m",
    "millimetre": "mm",
    "kilogram": "kg",
    "newton": "N",
    "n·m": "Nm",
    "n.m": "Nm",
    "ampere": "A",
    "kelvin": "K",
    "percent": "%",
    **{unit.lower(): unit for unit in UNITS if unit not in ("rotvec", "euler-zyx", "euler-zyx-deg")},
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bound:
    """A map that fits the server, a node per column in the order of the table, and columns without a unit."""

    signals: SignalMap
    nodes: tuple[Any, ...]
    unsaid: int

    @property
    def columns(self) -> tuple[str, ...]:
        """Names of the columns: numbers first, then words."""
        return _columns(self.signals)


def _columns(signals: SignalMap) -> tuple[str, ...]:
    return tuple(dict.fromkeys([*signals.number_columns, *signals.text_columns]))


async def bind(client: Any, signals: SignalMap, base: str) -> Bound:  # noqa: ANN401  of asyncua, untyped
    """Finds the node of every column and compares units.

    Args:
        client: A connected client.
        signals: The map; optional parts that the server lacks are left out.
        base: Node id or path from the folder Objects, from where paths of the map go on.

    Raises:
        MissingColumnError: A column without a node.
        MapInvalidError: A name that two nodes bear, or another unit than the map's.
        LiveSourceError: The server answered something else.
    """
    tree = _Tree(client)
    start = await tree.find(client.nodes.objects, base) if base else client.nodes.objects
    if start is None:
        raise MissingColumnError(need=f"node {base}", found="none", remedy="name another --base")
    found = {column: await tree.find(start, column) for column in _columns(signals)}
    there = {column: node for column, node in found.items() if node is not None}
    fitted = signals.fitted(there)
    clock = fitted.clock.column if fitted.clock else None
    fitted.require([*there, *([clock] if clock else [])], "the server")
    unsaid = 0
    for signal in fitted.signals:
        for column in signal.columns:
            unsaid += not await _unit_agrees(there[column], column, signal.unit)
    return Bound(signals=fitted, nodes=tuple(there[column] for column in _columns(fitted)), unsaid=unsaid)


class _Tree:
    """Looks up paths; children of a node are asked for once."""

    def __init__(self, client: Any) -> None:  # noqa: ANN401  of asyncua, untyped
        self._client = client
        self._children: dict[Any, dict[str, list[Any]]] = {}

    async def find(self, start: Any, column: str) -> Any:  # noqa: ANN401  a node, or None
        if _NODE_ID.fullmatch(column):
            return await self._by_id(column)
        node = start
        for name in column.split("/"):
            found = (await self._of(node)).get(name, [])
            if len(found) > 1:
                raise MapInvalidError(
                    need=f"one node {ascii(name)[:60]} on the way to {ascii(column)[:60]}",
                    found=str(len(found)),
                    remedy="name the variable by its node id (ns=...;s=...) in the signal map",
                )
            if not found:
                return None
            node = found[0]
        return node

    async def _by_id(self, column: str) -> Any:  # noqa: ANN401  a node, or None
        from asyncua.ua.uaerrors import UaError

        try:
            node = self._client.get_node(column)
            await node.read_node_class()
        except (UaError, ValueError):
            return None
        return node

    async def _of(self, node: Any) -> dict[str, list[Any]]:  # noqa: ANN401  of asyncua, untyped
        if node.nodeid not in self._children:
            names: dict[str, list[Any]] = {}
            references = await node.get_children_descriptions()
            if len(references) > LIVE_REFERENCES:
                raise LiveSourceError(
                    need=f"at most {LIVE_REFERENCES} children of a node",
                    found=str(len(references)),
                    remedy="name variables by their node ids in the signal map",
                )
            for one in references:
                known = names.setdefault(one.BrowseName.Name, [])
                child = self._client.get_node(one.NodeId)
                if child not in known:  # two references may lead to one node
                    known.append(child)
            self._children[node.nodeid] = names
        return self._children[node.nodeid]


async def _unit_agrees(node: Any, column: str, unit: str) -> bool:  # noqa: ANN401  of asyncua, untyped
    """Whether the variable says the unit, if it has one; False if it says none that we know."""
    from asyncua.ua.uaerrors import UaStatusCodeError

    try:
        said = await (await node.get_child("0:EngineeringUnits")).read_value()
    except UaStatusCodeError:
        return unit == "1"
    found = _unit_of(said)
    if found is None:
        return False
    if _CODES[unit] != _CODES[found]:
        raise MapInvalidError(
            need=f"{unit}, the map's unit of {ascii(column)[:80]}",
            found=f"{found} in its EngineeringUnits",
            remedy="correct the unit in the signal map",
        )
    return True


def _unit_of(said: Any) -> str | None:  # noqa: ANN401  whatever the server says
    """Our word for an ``EUInformation``; None if it is unknown."""
    identity = getattr(said, "UnitId", None)
    if getattr(said, "NamespaceUri", None) == _UNECE and isinstance(identity, int) and identity > 0:
        size = (identity.bit_length() + 7) // 8
        code = identity.to_bytes(size, "big").decode("latin-1")
        return next((unit for unit, one in _CODES.items() if one == code), None)
    text = getattr(getattr(said, "DisplayName", None), "Text", None)
    return _SPELLINGS.get(str(text).strip().lower()) if text else None


def value_of(value: Any, column: str, *, word: bool) -> Value:  # noqa: ANN401  whatever the server says
    """A reported value as a number or a word; None where there is none.

    Raises:
        CellInvalidError: An array, or text where a number is mapped.
    """
    if value is None:
        return None
    if word and isinstance(value, bool | int | float | str) and len(str(value)) <= TEXT_ROW_BYTES:
        return str(value)
    if not word and isinstance(value, bool | int | float):
        return float(value)
    raise CellInvalidError(
        need="one number" if not word else "one word or number",
        found=f"{ascii(column)[:80]}: {type(value).__name__}",
        remedy="map another variable",
    )
