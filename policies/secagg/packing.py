# SPDX-License-Identifier: Apache-2.0
"""Several byte strings as one, each behind its length in four bytes, big-endian.

unpack(pack([b"a", b""]))       # (b"a", b"")
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.secagg.errors import ContextMismatchError

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["pack", "unpack"]

_HEAD = 4


def pack(parts: Sequence[bytes]) -> bytes:
    """One byte string of several."""
    return b"".join(len(one).to_bytes(_HEAD, "big") + one for one in parts)


def unpack(data: bytes, count: int | None = None) -> tuple[bytes, ...]:
    """The byte strings, exactly ``count`` of them where it is given.

    Raises:
        ContextMismatchError: Bytes are missing or left over.
    """
    found, at = [], 0
    while at + _HEAD <= len(data):
        size = int.from_bytes(data[at : at + _HEAD], "big")
        found.append(data[at + _HEAD : at + _HEAD + size])
        at += _HEAD + size
    if at != len(data) or (count is not None and len(found) != count):
        raise ContextMismatchError(
            need="whole parts" if count is None else f"{count} whole parts",
            found=f"{len(found)} parts in {len(data)} bytes",
            remedy="update node or broker: they write this message differently",
        )
    return tuple(found)
