# SPDX-License-Identifier: Apache-2.0
"""Into which block of its lineage each new episode goes.

- An episode that was seen before, by its content or its rows, is of the block that it was in.
- One of a known unit joins the unit's block: what was spent on the unit was spent there.
- All others open one block per split.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from client.data.catalogue import Catalogue, EpisodeKey, Index
    from client.data.series import Split

__all__ = ["with_episodes"]


def with_episodes(
    catalogue: Catalogue,
    index: Index,
    episodes: Iterable[tuple[Split, EpisodeKey]],
    *,
    lineage: str,
    opened: str,
) -> tuple[Catalogue, dict[str, int]]:
    """The catalogue with new episodes, and content digest to block for each of them.

    Args:
        catalogue: As it was.
        index: Of that catalogue.
        episodes: Split and key of each.
        lineage: Of the data set.
        opened: Date of blocks that are new.
    """
    new: dict[Split, list[EpisodeKey]] = {"train": [], "held-out": []}
    joining: dict[int, list[EpisodeKey]] = {}
    blocks: dict[str, int] = {}
    for split, key in episodes:
        content, place, unit, _ = key
        known = index.by_content.get(content) or index.by_place.get(place)
        home = known or index.by_unit.get(unit)
        if home is None:
            new[split].append(key)
            continue
        blocks[content] = home.block
        if known is None:
            joining.setdefault(home.block, []).append(key)
    found = catalogue.with_blocks(lineage, new, opened, joining=joining)
    for block in found.lineages.get(lineage, ()):
        blocks |= {content: block.block for content, *_ in block.episodes if content not in blocks}
    return found, blocks
