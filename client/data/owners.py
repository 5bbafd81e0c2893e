# SPDX-License-Identifier: Apache-2.0
"""Whose an episode is: the unit of protection, as a keyed hash that never leaves the site.

- ``episode``: each episode is a unit of its own; its value is the digest of its content, so that exact copies
  are one unit.
- ``work-piece``, ``order``: all episodes with one value of the map's column are one unit. The value is read,
  hashed under the node's key, and forgotten.
- One episode has one owner. Two values inside an episode, or none, are refused: whose budget would it be?
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal

from client.data.catalogue import keyed
from policies.privacy.errors import UnitRefusedError

if TYPE_CHECKING:
    from client.data.series import Series
    from client.data.signalmap import SignalMap, UnitKey

__all__ = ["EPISODE", "UnitKind", "owners", "unit_id", "unit_of"]

UnitKind = Literal["episode", "work-piece", "order"]
EPISODE: Final = "episode"


def unit_id(node_key: bytes, kind: str, value: bytes) -> bytes:
    """HMAC-SHA256 of a unit under the node's key, 32 bytes."""
    data = value if kind == EPISODE else kind.encode("ascii") + b"\0" + value
    return keyed(node_key, "iriai-unit/1", data)


def unit_of(signals: SignalMap) -> str:
    """The unit of protection that a map's episodes have."""
    return signals.unit.kind if signals.unit else EPISODE


def owners(
    series: Series, signals: SignalMap, first: int, last: int, *, node_key: bytes, content: str
) -> tuple[bytes, ...]:
    """Units that rows ``first`` to ``last`` belong to; this version has exactly one.

    Args:
        series: The rows, in the source's words.
        signals: The map, which may name a key.
        first: First row.
        last: One past the last.
        node_key: Secret of this node.
        content: Digest of the episode, 64 hex digits: the key of an episode that is its own unit.

    Raises:
        UnitRefusedError: The rows have no key value, or several.
    """
    if signals.unit is None:
        return (unit_id(node_key, EPISODE, bytes.fromhex(content)),)
    values = {word for word in series.texts[signals.unit.column][first:last] if word}
    if len(values) != 1:
        raise _refused(series, signals.unit, first, last, found=len(values))
    value = f"{signals.unit.space}\0{values.pop()}".encode()
    return (unit_id(node_key, signals.unit.kind, value),)


def _refused(series: Series, unit: UnitKey, first: int, last: int, *, found: int) -> UnitRefusedError:
    at, end = series.span(first, last)
    return UnitRefusedError(
        need=f"one {unit.kind} for each episode, by column {ascii(unit.column)[:80]}",
        found=f"{found} in {series.name}, rows {at} to {end}",
        remedy=f"cut episodes where the {unit.kind} changes: segment by that column; or repair the column",
    )
