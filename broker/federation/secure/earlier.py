# SPDX-License-Identifier: Apache-2.0
"""The newest sum that was opened under a setup, as the next attempts show it to its members.

earlier = Earlier(setup=opened.setup, said=opened.previous(), z=z.tobytes())
Earlier.read(earlier.to_bytes(terms), terms) == earlier
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from policies.encoding import digest
from policies.secagg.asks import Previous
from policies.secagg.errors import SecaggError
from policies.secagg.packing import pack, unpack

if TYPE_CHECKING:
    from policies.secagg.terms import Terms

__all__ = ["Earlier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An opened sum.

    Attributes:
        setup: Number of its setup.
        said: What an ask says of it.
        z: Its bytes, little-endian uint32.
    """

    setup: int
    said: Previous
    z: bytes = field(repr=False)

    def previous(self) -> Previous:
        """What the next attempts say of it."""
        return self.said

    def checked(self) -> dict[str, object]:
        """What members say once its tag held: `policies.log.schema.CHECKED_SUM`."""
        return {"round": self.said.round, "attempt": self.said.attempt, "sum": digest(self.z)}

    def to_bytes(self, terms: Terms) -> bytes:
        """As a file has it."""
        return pack([str(self.setup).encode(), self.said.to_bytes(terms), self.z])

    @classmethod
    def read(cls, data: bytes | None, terms: Terms) -> Earlier | None:
        """Of a file; None where there is none, or it is no such sum."""
        if data is None:
            return None
        try:
            setup, said, z = unpack(data, 3)
            return cls(setup=int(setup), said=Previous.from_bytes(said, terms), z=z)
        except (SecaggError, ValueError):
            return None
