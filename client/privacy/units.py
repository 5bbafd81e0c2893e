# SPDX-License-Identifier: Apache-2.0
"""The units that a run will read, as the budget sees them: a manifest, and fingerprints by block.

- Fingerprints are cut from unit ids, which are keyed by a secret of the node. Nothing of it leaves the site.
- A unit that has no block has no lineage, and one in two blocks has two budgets: both are refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.privacy.blocks import block_name
from policies.privacy.errors import LineageUnknownError
from policies.privacy.sampling import unit_manifest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["Units", "fingerprint"]

_FINGERPRINT_BYTES: Final = 16


def fingerprint(unit_id: bytes) -> str:
    """What a ledger knows a unit by, 32 hex digits."""
    return unit_id[:_FINGERPRINT_BYTES].hex()


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """The frozen units of one split.

    Attributes:
        split: ``train`` or ``held-out``.
        manifest: Digest over all of them (`policies.privacy.sampling.unit_manifest`).
        blocks: Name of each block that they are in, and their fingerprints there.
    """

    split: str
    manifest: str
    blocks: Mapping[str, tuple[str, ...]]

    @property
    def count(self) -> int:
        """How many there are."""
        return sum(map(len, self.blocks.values()))

    @property
    def fingerprints(self) -> frozenset[str]:
        """Of all of them."""
        return frozenset(one for block in self.blocks.values() for one in block)

    @classmethod
    def of(cls, split: str, found: Iterable[tuple[int, bytes]], *, beside: Iterable[bytes] = ()) -> Units:
        """The units of episodes, given the block number and the unit id of each episode.

        Args:
            split: Of all of them.
            found: Block and unit of each episode.
            beside: Made-up units trained on beside them: in the manifest, of no lineage, not counted.

        Raises:
            LineageUnknownError: An episode without a block, or a unit in two.
        """
        places: dict[bytes, int] = {}
        for number, unit_id in found:
            if number <= 0 or places.setdefault(unit_id, number) != number:
                raise LineageUnknownError(
                    need="each unit in one block of its lineage",
                    found="an episode without a block" if number <= 0 else "a unit in two blocks",
                    remedy="import the recording again, or restore the catalogue of the data",
                )
        blocks: dict[str, list[str]] = {}
        for unit_id, number in places.items():
            blocks.setdefault(block_name(split, number), []).append(fingerprint(unit_id))
        return cls(
            split=split,
            manifest=unit_manifest((*places, *beside)),
            blocks={name: tuple(sorted(blocks[name])) for name in sorted(blocks)},
        )
