# SPDX-License-Identifier: Apache-2.0
"""Names of the moments between the steps of a batch, for tests that end the process there.

`Writer` tells whoever it was given as ``reached`` of each of them, in this order. A broker gives it nobody:
there is no setting, variable or command that does.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum

__all__ = ["Moment", "Reached", "nobody"]


class Moment(StrEnum):
    """What has just been done; the numbers are the steps of `broker.log.append`."""

    TAKEN = "1-taken"  # units of work wait in memory
    LOCKED = "1-locked"  # the head is locked
    RAN = "2-ran"  # every unit has run in its savepoint
    WRITTEN = "3-written"  # entries, envelopes, tiles and head are written, nothing is committed
    SALTED = "3-salted"  # the private salts are committed
    COMMITTED = "3-committed"  # the batch is committed
    COMPARED = "4-compared"  # it was read back and hashed again
    NOTED = "4-noted"  # the checkpoint is signed in memory
    SWAPPED = "4-swapped"  # the signer's memory has it
    SHOWN = "4-shown"  # readers see it
    ANSWERED = "5-answered"  # the first caller has an answer


Reached = Callable[[Moment], None]


def nobody(_: Moment) -> None:
    """Does nothing."""
