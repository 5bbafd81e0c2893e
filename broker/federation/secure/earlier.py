# SPDX-License-Identifier: Apache-2.0
"""A sum that was opened, as later attempts show it to members.

earlier = Earlier(said=opened.previous(), z=b"".join(sums))
Earlier.read(earlier.to_bytes()) == earlier
"""

from __future__ import annotations

from dataclasses import dataclass, field

from policies.encoding import digest
from policies.secagg.asks import Previous
from policies.secagg.errors import SecaggError
from policies.secagg.packing import pack, unpack

__all__ = ["Earlier"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Earlier:
    """An opened sum.

    Attributes:
        said: What an ask says of it.
        z: Bytes of each opened team's sum, little-endian uint32, one behind the other.
    """

    said: Previous
    z: bytes = field(repr=False)

    def previous(self) -> Previous:
        """What the next attempts say of it."""
        return self.said

    def checked(self) -> dict[str, object]:
        """What members say once its tag held: `policies.log.schema.CHECKED_SUM`."""
        size = len(self.z) // len(self.said.opened)
        sums = [digest(self.z[at : at + size]) for at in range(0, len(self.z), size)]
        return {"round": self.said.round, "attempt": self.said.attempt, "sums": sums}

    def to_bytes(self) -> bytes:
        """As a file has it."""
        return pack([self.said.to_bytes(), self.z])

    @classmethod
    def read(cls, data: bytes | None) -> Earlier | None:
        """Of a file; None where there is none, or it is no such sum."""
        if data is None:
            return None
        try:
            said, z = unpack(data, 2)
            return cls(said=Previous.from_bytes(said), z=z)
        except (SecaggError, ValueError):
            return None
