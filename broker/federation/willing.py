# SPDX-License-Identifier: Apache-2.0
"""Whether a run may ask again after members said no: attempts that come to nothing cost the others budget.

- Who said no in the last attempt is taken to say it again, and is asked first the next time
  (`broker.federation.collecting`). Enough other groups online: the next attempt is
  asked at once. Too few: the run pauses (`policies.rounds.wait_s`), gives its place among the active runs
  back, and is shown as ``suspended`` (`broker.runs.service`).
- What an owner can mend is waited for, with growing pauses, up to `REFUSED_PATIENCE_S`. What nobody can mend
  within the run (`policies.rounds.FOR_GOOD`), said twice in a row by the same members, ends it.
- A run that could not begin, because members said no, pauses likewise (`broker.federation.starting`).
- A run whose models were rejected too often waits for an operator's ``run resume``, for as long as it takes.
- One that an operator paused waits likewise (`broker.runs.holding`), whatever its state.
- An operator's ``run stop`` ends a pause.
- Everything is read from settled attempts: a broker that is started in a pause goes on waiting.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from broker.federation.errors import RunDeclinedError
from broker.federation.participants import participants
from broker.federation.progress import progress
from broker.federation.standing import Standing
from broker.runs.course import course_of
from broker.runs.holding import held_since
from broker.runs.remedies import remedy_of
from broker.runs.verdicts import pause_of, who_said
from policies.limits import HALT_POLL_S, REFUSED_LOOK_S
from policies.recipe import load as load_recipe
from policies.rounds import need_of, refused_for_good, wait_s

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
        self._need = need_of(contract, recipe.digest)

    def wait_ms(self, now: Progress, barred: frozenset[str] = frozenset()) -> int:
        """Milliseconds until the next attempt may be asked; 0 if it may be now."""
        online = self._groups(barred, online=True)
        pause_s = wait_s(now.declined, online, *self._need)
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
                need=f"{self._need.groups} groups that take part",
                found="too few without " + who_said(now.declined[-1]),
                remedy=f"{remedy_of(now.declined[-1].values(), self._run)}; "
                f"asked again in {-(-left_ms // 1000)} s",
                clause=self._contract.aggregation.clause,
            )

    def over(self, now: Progress, barred: frozenset[str]) -> bool:
        """Whether the run ends because members say no: for good, or for too long."""
        everybody = self._groups(barred, online=False)
        waited_ms = 0
        if now.refused_ms is not None and now.settled_ms is not None:
            waited_ms = now.settled_ms - now.refused_ms
        return refused_for_good(now.declined, everybody, *self._need, waited_s=waited_ms // 1000)

    def _groups(self, barred: frozenset[str], *, online: bool) -> dict[str, str]:
        there = self._tools.engine.online() if online else None
        return {
            one.party: one.group
            for one in participants(self._tools.contracts, self._contract, self._recipe)
            if one.node not in barred and (there is None or one.node in there)
        }


async def waited_out(tools: Tools, run_id: str) -> None:
    """Returns once the pause of a run is over, or it waits for nothing: stopped, halted or ended."""
    while True:
        left_ms = _left_ms(tools, run_id)
        if not left_ms:
            return
        await asyncio.sleep(min(max(HALT_POLL_S, left_ms / 6000), REFUSED_LOOK_S))


def _left_ms(tools: Tools, run_id: str) -> int:
    with tools.store.read() as session:
        now = progress(session, run_id, tools.contracts)
        start = pause_of(now.start) if not now.settled else None
        contract = tools.contracts.get(now.contract)
        standing = Standing(tools, run_id)
        if now.stop_asked or standing.halted(contract, session) or standing.ended(contract, session):
            return 0
        if held_since(session, run_id) is not None:
            return REFUSED_LOOK_S * 1000  # until an operator's word, however long that takes
        if course_of(session, run_id).paused(contract):
            return REFUSED_LOOK_S * 1000
        if not now.declined and start is None:
            return 0
        recipe = load_recipe(tools.contracts.annex(session, contract, now.recipe))
    if start is not None:
        return max(0, start.until_ms - tools.clock.now_ms())
    return Willing(tools, run_id, contract, recipe).wait_ms(now)
