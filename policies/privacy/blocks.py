# SPDX-License-Identifier: Apache-2.0
"""Blocks of units: what a budget is counted for. Standard library only.

- A block is the units that came in together, of one split, by the number that the data catalogue gave it:
  ``train-1``, ``held-out-2``. Blocks are disjoint, so a unit's loss is its block's.
- New units open a new block, with nothing spent. A unit stays in its first block for life.
- Training charges blocks of ``train``, evaluation blocks of ``held-out``; neither reads the other's units.

>>> block_name("train", 3), split_of("held-out-2"), block_number("held-out-2")
('train-3', 'held-out', 2)
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from policies.limits import LEDGER_BLOCKS
from policies.privacy.errors import BudgetError, EvalUnplannedError

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

__all__ = ["HELD_OUT", "TRAIN", "block_name", "block_number", "blocks_of", "split_charged", "split_of"]

TRAIN: Final = "train"  # units that a plan of training reads and charges
HELD_OUT: Final = "held-out"  # units that a plan of evaluation reads and charges; never trained on
_BLOCK: Final = re.compile(r"(train|held-out)-(0|[1-9]\d{0,6})", re.ASCII)
_CHARGES: Final = {"iriai-dp-plan/1": TRAIN, "iriai-eval-plan/1": HELD_OUT}


def block_name(split: str, number: int) -> str:
    """Name of a block in ledgers."""
    return f"{split}-{number}"


def _parts(block: str) -> tuple[str, int]:
    found = _BLOCK.fullmatch(block)
    if found is None:
        raise BudgetError(
            need="a block like train-1 or held-out-2",
            found=ascii(block)[:40],
            remedy="restore the ledger, or the catalogue of the data, from the newest copy",
        )
    return found[1], int(found[2])


def split_of(block: str) -> str:
    """Split of a block's units.

    Raises:
        BudgetError: No block has such a name.
    """
    return _parts(block)[0]


def block_number(block: str) -> int:
    """Number of a block in the data catalogue.

    Raises:
        BudgetError: No block has such a name.
    """
    return _parts(block)[1]


def split_charged(plan: Mapping[str, Any]) -> str:
    """Split whose units a plan's document reads.

    Raises:
        BudgetError: An unknown kind of plan.
    """
    schema = str(plan.get("schema"))
    if schema not in _CHARGES:
        raise BudgetError(need="a known plan", found=schema[:60], remedy="update the verifier or the node")
    return _CHARGES[schema]


def blocks_of(split: str, blocks: Iterable[str]) -> tuple[str, ...]:
    """The blocks that a reservation covers, once there is one, each once, sorted, and all of a split.

    Raises:
        EvalUnplannedError: Held-out units would be trained on, or trained ones judged on.
        BudgetError: No block, too many, one twice, or no block's name.
    """
    found = tuple(blocks)
    strange = [one for one in found if split_of(one) != split]
    if strange:
        raise EvalUnplannedError(
            need=f"units of {split} blocks",
            found=strange[0],
            remedy="held-out units are never trained on, and trained ones never judged on",
        )
    if not 0 < len(found) <= LEDGER_BLOCKS or list(found) != sorted(set(found)):
        raise BudgetError(
            need=f"1 to {LEDGER_BLOCKS} blocks of the units that are read, each once",
            found=f"{len(found)}: " + " ".join(found)[:60],
            remedy="a data set with fewer imports in it",
        )
    return found
