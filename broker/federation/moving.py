# SPDX-License-Identifier: Apache-2.0
"""A run goes on under the successor of its contract, from its next round on (docs/adr/0009).

- A round keeps the contract that it was opened with. Between two rounds the run's row is changed in one
  transaction; its next entry is under the successor.
- An attempt that was open when the broker was killed is ended as abandoned first, under its own contract:
  nodes that answered it may have spent, and are asked again in the next attempt; in the next round, if they
  were asked to unmask.
- A successor that does not list the recipe ends the run (`broker.federation.standing`).

    await move(tools, run_id)             # nothing to do, nothing written
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from sqlalchemy import select, update

from broker.federation.books import Books
from broker.federation.envelopes import opened_attempt
from broker.federation.participants import participants
from broker.federation.progress import progress
from broker.federation.records import SILENT, Opening, Outcome, Received, close_attempt
from broker.federation.secure.files import Files
from broker.store.tables import decision, log_entry, run
from policies.log.entries import EntryType
from policies.recipe import load as load_recipe
from policies.rounds import need_of

if TYPE_CHECKING:
    from broker.federation.participants import Participant
    from broker.federation.progress import Progress
    from broker.federation.tools import Tools
    from broker.log import LogTx
    from broker.store import Session
    from policies.contract import Contract

__all__ = ["move", "ruling"]


def ruling(tools: Tools, session: Session, contract: Contract, recipe: str) -> Contract:
    """The contract under which a run goes on: the newest one in effect, as long as each lists its recipe."""
    while True:
        named = tools.contracts.life(contract, session).superseded_by
        successor = None if named is None else tools.contracts.read_in(session, named)
        if successor is None or successor.recipe(recipe) is None:
            return contract
        contract = successor


async def move(tools: Tools, run_id: str) -> None:
    """Moves a run that is not closed to the contract that rules; ends its open attempt first."""
    with tools.store.read() as session:
        at = progress(session, run_id, tools.contracts)
        new = ruling(tools, session, tools.contracts.get(at.contract), at.recipe)
    if new.digest == at.contract:
        return
    books = Books(tools.contracts, tools.writer, tools.store)

    def work(session: Session, tx: LogTx) -> None:
        now = progress(session, run_id, tools.contracts)
        outcome = session.scalar(select(run.c.outcome).where(run.c.run_id == run_id))
        if now.contract != at.contract or outcome is not None:
            return
        _abandon(tools, session, tx, now, books)
        session.execute(update(run).where(run.c.run_id == run_id).values(contract=new.digest))

    await tools.writer.run(work)
    tools.journal.note("run.moved", run=run_id, contract=new.digest)


def _abandon(tools: Tools, session: Session, tx: LogTx, at: Progress, books: Books) -> None:
    """Ends the attempt that is open, if one is: nobody's update of it counts."""
    opened = opened_attempt(session, at.run, at.round, at.attempt)
    if opened is None:
        return
    contract = tools.contracts.get(at.contract)
    recipe = load_recipe(tools.contracts.annex(session, contract, at.recipe))
    names = _asked(session, at)
    everybody = participants(tools.contracts, contract, recipe, active=False)
    asked: tuple[Participant, ...] = tuple(one for one in everybody if one.party in names)
    need = need_of(contract, recipe.digest)
    opening = Opening(
        run=at.run,
        contract=contract.digest,
        recipe=recipe,
        round=at.round,
        attempt=at.attempt,
        base=opened["pub"]["base_model"],
        deadline_ms=tx.now_ms,
        judged=(),
        groups_needed=need.groups,
        members_needed=need.members,
        asked=asked,
    )
    silent = {one.party: Received(verdict=SILENT, reason="engine.late") for one in asked}
    unmasked = Files(tools.settings.dir, at.run).unmasking((at.round, at.attempt)) is not None
    close_attempt(session, tx, Outcome(opening=opening, received=silent, unmasked=unmasked), books)


def _asked(session: Session, at: Progress) -> set[str]:
    """Parties that the broker was let ask in a round, by its decisions on record."""
    of = (log_entry.c.run == at.run) & (log_entry.c.round == at.round)
    kind = log_entry.c.type == EntryType.DECISION_RECORDED.value
    pubs = [json.loads(body)["pub"] for body in session.scalars(select(log_entry.c.body).where(of & kind))]
    named = [one["decision"] for one in pubs if (one["point"], one["outcome"]) == ("broker", "allow")]
    asked = session.scalars(select(decision.c.request).where(decision.c.digest.in_(named)))
    return {str(one["party"]) for one in map(json.loads, asked) if one["type"] == "TrainRound"}
