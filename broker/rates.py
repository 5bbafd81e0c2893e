# SPDX-License-Identifier: Apache-2.0
"""How much anybody may ask: buckets of allowances that refill, one for each name, in bounded memory.

    buckets = Buckets(Rate(per_s=100, burst=2_000), clock)
    wait_ms = buckets.take(name)     0: one is taken; else nothing is, and so long it takes until one is there
    buckets.give_back(name)

- In any time of t seconds a name takes at most ``burst + per_s * t``. What was refused costs nothing.
- One number is kept for each name: how much it still owes, as the moment when it will owe nothing (the
  generic cell rate algorithm). All of it is whole numbers: nothing drifts.
- At most `most` names are kept. The one that was asked for longest ago makes room and begins anew, with a
  full bucket: who has that many names can forget nobody's allowance but give some back, and a flood of names
  is never turned against a name that floods nothing.
- A clock that is set back only stands still for a moment here: nobody waits longer for it.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.limits import RATE_NAMES

if TYPE_CHECKING:
    from policies.ports import Clock

__all__ = ["Buckets", "Rate"]

_MS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """So many in a second in the long run, and so many at once."""

    per_s: int
    burst: int


class Buckets:
    """See the module. Not for several threads."""

    def __init__(self, rate: Rate, clock: Clock, *, most: int = RATE_NAMES) -> None:
        self._rate = rate
        self._clock = clock
        self._most = most
        self._last_ms = self._behind_ms = 0  # the clock was set back by so much
        self._free_at: OrderedDict[str, int] = OrderedDict()  # milliseconds times `per_s`

    def __len__(self) -> int:
        return len(self._free_at)

    def take(self, name: str) -> int:
        """Takes one; else says in how many milliseconds there is one."""
        now = self._now()
        owed = self._owed(name, now)
        over = owed + _MS - self._rate.burst * _MS
        self._keep(name, now + owed + (0 if over > 0 else _MS))
        return max(0, -(-over // self._rate.per_s))

    def wait_ms(self, name: str) -> int:
        """What `take` would say; takes nothing."""
        over = self._owed(name, self._now()) + _MS - self._rate.burst * _MS
        return max(0, -(-over // self._rate.per_s))

    def give_back(self, name: str) -> None:
        """Undoes one `take`; a name that is not kept any more has everything already."""
        if name in self._free_at:
            self._free_at[name] -= _MS

    def _now(self) -> int:
        now_ms = self._clock.now_ms()
        self._behind_ms = max(self._behind_ms, self._last_ms - now_ms)
        self._last_ms = now_ms + self._behind_ms
        return self._last_ms * self._rate.per_s

    def _owed(self, name: str, now: int) -> int:
        """What is not refilled yet."""
        return max(0, self._free_at.get(name, now) - now)

    def _keep(self, name: str, free_at: int) -> None:
        self._free_at[name] = free_at
        self._free_at.move_to_end(name)
        if len(self._free_at) > self._most:
            self._free_at.popitem(last=False)
