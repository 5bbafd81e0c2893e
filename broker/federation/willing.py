# SPDX-License-Identifier: Apache-2.0
"""Whether a run may ask again after members said no: attempts that come to nothing cost the others budget.

- Who said no in the last attempt is taken to say it again. Enough other groups online: the next attempt is
  asked at once. Too few: the run pauses (`policies.rounds.wait_s`), gives its place among the active runs
  back, and is shown as ``suspended`` (`broker.runs.service`).
- The same refusal twice in a row ends the run: it is somebody's to mend first (``guard explain`` at the
  node), and a new run costs nothing that this one would not.
- Everything is read from settled attempts: a broker that is started in a pause goes on waiting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.federation.errors import RunDeclinedError
from broker.federation.participants import participants
from broker.federation.progress import progress
from broker.federation.standing import Standing
from policies.limits import HALT_POLL_S
from policies.recipe import load as load_recipe
from policies.rounds import refused_for_good, wait_s

if TYPE_CHECKING:
    from broker.federation.progress import Progress
    from broker.federation.tools import Tools
    from policies.contract import Contract
    from policies.recipe import Recipe

__all__ = ["Willing", "waited_out"]


class Willing:
    """What one run asks about those who said no."""

    def __init__(self, tools: Tools, run: str, contract: Contract, recipe: Recipe) -> None:
        self._tools = tools
        self._run = run
        self._contract = contract
        self._recipe = recipe

    def wait_ms(self, now: Progress, barred: frozenset[str] = frozenset()) -> int:
        """Milliseconds until the next attempt may be asked; 0 if it may be now."""
        online = self._groups(barred, online=True)
        pause_s = wait_s(now.declined, online, self._contract.aggregation.min_parties)
        if not pause_s or now.settled_ms is None:
            return 0
        return max(0, now.settled_ms + pause_s * 1000 - self._tools.clock.now_ms())

    def require(self, now: Progress, barred: frozenset[str]) -> None:
        """Returns if the next attempt may be asked now.

        Raises:
            RunDeclinedError: Too few are willing; the runner tries again after the pause.
        """
        left_ms = self.wait_ms(now, barred)
        if left_ms:
            raise RunDeclinedError(
                need=f"{self._contract.aggregation.min_parties} groups that take part",
                found="too few without " + ", ".join(sorted(now.declined[-1])),
                remedy=f"iriai-node guard explain {self._run} there says why; "
                f"asked again in {-(-left_ms // 1000)} s",
                clause=self._contract.aggregation.clause,
            )

    def over(self, now: Progress, barred: frozenset[str]) -> bool:
        """Whether the same members said no so often in a row that the run ends."""
        everybody = self._groups(barred, online=False)
        return refused_for_good(now.declined, everybody, self._contract.aggregation.min_parties)

    def _groups(self, barred: frozenset[str], *, online: bool) -> dict[str, str]:
        there = self._tools.engine.online() if online else None
        return {
            one.party: one.group
            for one in participants(self._tools.contracts, self._contract, self._recipe)
            if one.node not in barred and (there is None or one.node in there)
        }


async def waited_out(tools: Tools, run_id: str) -> None:
    """Returns once the pause of a run is over; at once where it has none, is closed, halted or has ended."""
    while True:
        if not _waits(tools, run_id):
            return
        await asyncio.sleep(HALT_POLL_S)


def _waits(tools: Tools, run_id: str) -> bool:
    with tools.store.read() as session:
        now = progress(session, run_id)
        if not now.declined:
            return False
        contract = tools.contracts.get(now.contract)
        if Standing(tools, run_id).stopped(contract, session):
            return False
        recipe = load_recipe(tools.contracts.annex(session, contract, now.recipe))
    return Willing(tools, run_id, contract, recipe).wait_ms(now) > 0
