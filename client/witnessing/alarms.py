# SPDX-License-Identifier: Apache-2.0
"""Alarms about the log: said once when they begin and once when they end.

- ``witness-alarm``: the newest checkpoint with a contract's quorum is older than `WITNESS_MAX_AGE_MIN`, or
  there was none for so long since this process began; no new round begins under that contract.
- ``receipts-late``: for envelopes of this node nobody vouched in time.

    for event, facts in alarms.look(): say(event, facts)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from policies.limits import WITNESS_MAX_AGE_MIN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.witnessing.trust import Trust
    from client.witnessing.vouching import Standing, Vouching
    from policies.ports import Clock

__all__ = ["Alarms"]

_MAX_AGE_MS: Final = WITNESS_MAX_AGE_MIN * 60_000
Facts = dict[str, object]


class Alarms:
    """Remembers which alarms were said."""

    def __init__(self, vouching: Vouching, trust: Trust, clock: Clock) -> None:
        self._vouching = vouching
        self._trust = trust
        self._clock = clock
        self._since_ms = clock.now_ms()
        self._on: set[tuple[str, str]] = set()

    def look(self) -> Iterator[tuple[str, Facts]]:
        """What began or ended since the last look."""
        for held in self._trust.contracts():
            one = self._vouching.standing(held)
            facts: Facts = {"contract": one.contract, "k": one.k, "n": one.n, "size": one.size}
            yield from self._said("witness-alarm", one.contract, facts, now=self._old(one))
            late: Facts = {"contract": one.contract, "envelopes": one.late}
            yield from self._said("receipts-late", one.contract, late, now=one.late > 0)

    def _old(self, one: Standing) -> bool:
        if one.age_ms is None:
            return bool(one.k) and self._clock.now_ms() - self._since_ms > _MAX_AGE_MS
        return not one.fresh

    def _said(self, alarm: str, contract: str, facts: Facts, *, now: bool) -> Iterator[tuple[str, Facts]]:
        place = (alarm, contract)
        if now and place not in self._on:
            self._on.add(place)
            yield alarm, facts
        elif not now and place in self._on:
            self._on.remove(place)
            yield f"{alarm}-over", facts
