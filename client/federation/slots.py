# SPDX-License-Identifier: Apache-2.0
"""When a reply may go out, where the contract asks for slots: the time of work says how much was worked on.

A reply leaves at a whole multiple of the slot after its request arrived, at the first one by which it is
ready, and never at once: a refusal and an empty batch look like any other. A slot should be a multiple of the
slowest honest step; work that takes longer goes out at the next boundary.

    wait_ms(arrived_ms=0, now_ms=90, slot_ms=250)     # 160
    wait_ms(arrived_ms=0, now_ms=250, slot_ms=250)    # 0
    wait_ms(arrived_ms=0, now_ms=0, slot_ms=250)      # 250
"""

from __future__ import annotations

__all__ = ["wait_ms"]


def wait_ms(*, arrived_ms: int, now_ms: int, slot_ms: int) -> int:
    """Milliseconds until the reply may go out; 0 without slots, at most one slot.

    A clock that was set back meanwhile makes it wait for a boundary of the same grid.
    """
    if slot_ms <= 0:
        return 0
    worked = now_ms - arrived_ms
    return slot_ms if worked == 0 else -worked % slot_ms
