# SPDX-License-Identifier: Apache-2.0
"""Whether a run may go on, by what the parties of its contract have said.

- **Halt**: an exchange that is under way is cut short, its attempt is settled without a model, and the run
  pauses: it gives its place among the active runs back, looks every `HALT_POLL_S` whether everybody has
  resumed, and goes on from its last settled attempt. Budget that nodes reserved or spent stays so.
- **Pause** by an operator: the open attempt is settled as ever, then nobody is asked until ``run resume``.
- **End** (terminated, or the term is over) and **exit** of a party whose update is in the run's model: the
  run is over, and its model is no candidate. Without that party another run gives another model.
- **Successor**: a round ends under the contract that it was opened with, yet a halt or an exit under the
  successor binds it too. Then the run moves (`broker.federation.moving`), or ends, if its recipe is not
  listed.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, TypeVar

from broker.contracts.lineage import final_successor, trained
from broker.federation.errors import RunHaltedError, RunPausedError, RunSupersededError
from broker.runs.holding import held_since
from policies.contract.lifecycle import HALTED, run_over
from policies.limits import HALT_POLL_S
from policies.ports import iso_s

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterable

    from broker.federation.tools import Tools
    from broker.store import Session
    from policies.contract import Contract

__all__ = ["Standing"]

T = TypeVar("T")


class Standing:
    """What one run asks about the life of its contract."""

    def __init__(self, tools: Tools, run: str) -> None:
        self._tools = tools
        self._run = run

    def halted(self, contract: Contract, session: Session | None = None) -> bool:
        """Whether a halt is in force; as a transaction sees it, if its session is given."""
        return self._tools.contracts.standing(self._newest(contract, session), session) == HALTED

    def _newest(self, contract: Contract, session: Session | None) -> Contract:
        """The newest successor in effect; the contract itself without one."""
        contracts = self._tools.contracts
        while (named := contracts.life(contract, session).superseded_by) is not None:
            contract = contracts.get(named)
        return contract

    def may_not_count(self, contract: Contract, parties: Iterable[str], session: Session) -> bool:
        """Whether an open round may give no model because of what was said under a successor."""
        newest = self._newest(contract, session)
        if newest is contract:
            return False
        gone = self._tools.contracts.life(newest, session).exited
        return self.halted(newest, session) or any(one in gone for one in parties)

    def superseded(self, contract: Contract, session: Session | None = None) -> bool:
        """Whether a successor rules, or is about to: its term has begun, and its entry is on its way."""
        tools = self._tools
        if session is None:
            with tools.store.read() as own:
                return self.superseded(contract, own)
        if tools.contracts.life(contract, session).superseded_by is not None:
            return True
        named = final_successor(session, contract.digest)
        now = iso_s(tools.clock.now_ms())
        return named is not None and tools.contracts.read_in(session, named).term.effective <= now

    def require_current(self, contract: Contract, recipe: str, session: Session | None = None) -> None:
        """Returns unless a successor rules under which the run is to go on.

        Raises:
            RunSupersededError: One does; the runner moves the run.
        """
        if self.superseded(contract, session) and not self._unlisted(contract, recipe, session):
            raise RunSupersededError(
                need="the contract that rules",
                found=f"{contract.digest}, which was superseded",
                remedy="nothing: the run goes on under its successor",
                clause=contract.amendment.clause,
            )

    def _unlisted(self, contract: Contract, recipe: str, session: Session | None) -> bool:
        """Whether the successor in effect does not list the recipe."""
        named = self._tools.contracts.life(contract, session).superseded_by
        return named is not None and self._tools.contracts.get(named).recipe(recipe) is None

    def require_running(self, contract: Contract, session: Session | None = None) -> None:
        """Returns unless a halt is in force, or an operator paused the run.

        Raises:
            RunHaltedError, RunPausedError: It is so; the runner tries again once it is not.
        """
        if self.halted(contract, session):
            raise RunHaltedError(
                need="no halt in force",
                found="a halted contract",
                remedy=f"every contributor resumes; iriai-broker contract status {contract.digest}",
                clause=contract.halt.clause,
            )

        if self._paused(session):
            raise RunPausedError(
                need="a run that nobody paused",
                found="one that an operator paused",
                remedy=f"iriai-broker run resume {self._run}",
            )

    def _paused(self, session: Session | None) -> bool:
        if session is not None:
            return held_since(session, self._run) is not None
        with self._tools.store.read() as own:
            return self._paused(own)

    def stopped(self, contract: Contract, session: Session) -> bool:
        """Whether no further attempt may be opened: a halt, a pause, or the end of the run."""
        return self.halted(contract, session) or self._paused(session) or self.ended(contract, session)

    def ended(self, contract: Contract, session: Session) -> bool:
        """Whether nothing of the run may go on, ever."""
        return self._why_over(contract, session) is not None

    def over(self, contract: Contract) -> bool:
        """Whether nothing of the run may go on, ever; says why."""
        with self._tools.store.read() as session:
            found = self._why_over(contract, session)
        if found is not None:
            self._tools.journal.note("run.over", run=self._run, clause=found[0], why=found[1])
        return found is not None

    def _why_over(self, contract: Contract, session: Session) -> tuple[str, str] | None:
        tools = self._tools
        life = tools.contracts.life(contract, session)
        return run_over(contract, life, iso_s(tools.clock.now_ms()), trained(session, self._run))

    async def resumed(self, contract: Contract) -> None:
        """Returns once no halt is in force."""
        if not self.halted(contract):
            return
        self._tools.journal.note("run.halted", run=self._run, clause=contract.halt.clause)
        while True:
            await asyncio.sleep(HALT_POLL_S)
            if not self.halted(contract):
                break
        self._tools.journal.note("run.resumed", run=self._run)

    async def until_halted(self, contract: Contract, outcomes: AsyncIterator[T]) -> AsyncIterator[T]:
        """The outcomes of an exchange, until they end or a halt comes."""
        while True:
            coming = asyncio.ensure_future(anext(outcomes))
            try:
                while not (await asyncio.wait({coming}, timeout=HALT_POLL_S))[0]:
                    if self.halted(contract):
                        return
                yield coming.result()
            except StopAsyncIteration:
                return
            finally:
                if not coming.done():
                    coming.cancel()
                    await asyncio.gather(coming, return_exceptions=True)
