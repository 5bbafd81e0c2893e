# SPDX-License-Identifier: Apache-2.0
"""A round is taken back because its members find its sum wrong: a member's tag, or the broker's sum.

With ``group_mac: on`` each node checks the newest opened sum before it trains on, and all honest ones find
the same. Who does not go on says ``secagg.sum-wrong``, and has spent nothing. Once more say so than may
collude, at least one of them is honest, and the sum is wrong:

1. the model of its round does not count any more (``sum.withdrawn``): the run goes on from the one before;
   what the round spent stays spent;
2. its setup is over (`broker.federation.secure.setups`): the next attempt has keys of its own;
3. the round counts as lost. As many in a row as `LOST_ROUNDS_MAX`, and the run has failed.

Nobody can be named: a tag is as hidden as its vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import select, update

from broker.runs.course import course_of
from broker.store.tables import log_entry, round_, run
from policies.log.entries import EntryType, Event
from policies.secagg.errors import SumWrongError

if TYPE_CHECKING:
    from broker.federation.progress import Progress
    from broker.federation.records import Opening
    from broker.federation.secure.rounds import WrongSum
    from broker.log import LogTx
    from broker.store import Session

__all__ = ["failed", "withdraw"]


def withdraw(session: Session, tx: LogTx, opening: Opening, wrong: WrongSum | None) -> bool:
    """Takes back the model of a wrong sum, if it is the newest that stands.

    Args:
        session: Of the database.
        tx: Takes the entry.
        opening: The attempt in which members said so.
        wrong: The sum; None where none is.

    Returns:
        Whether a model was taken back: another sum made none.
    """
    if wrong is None:
        return False
    back = course_of(session, opening.run).back
    models = session.execute(
        select(round_.c.round, round_.c.attempt, round_.c.base, round_.c.model)
        .where((round_.c.run_id == opening.run) & round_.c.model.is_not(None))
        .order_by(round_.c.round)
    ).all()
    standing = [one for one in models if one.round not in back]
    if not standing or (standing[-1].round, standing[-1].attempt) != (wrong.round, wrong.attempt):
        return False
    newest, before = standing[-1], standing[-2].model if len(standing) > 1 else None
    aggregate = session.scalar(
        select(log_entry.c.idx).where(
            (log_entry.c.run == opening.run)
            & (log_entry.c.round == newest.round)
            & (log_entry.c.type == EntryType.AGGREGATE_RELEASED.value)
        )
    )
    tx.add(
        Event(
            type=EntryType.SUM_WITHDRAWN,
            scope=opening.contract,
            run=opening.run,
            round=newest.round,
            refs=() if aggregate is None else (aggregate,),
            pub={
                "attempt": newest.attempt,
                "model": newest.model,
                "against": newest.base,
                "saying": wrong.saying,
            },
        )
    )
    session.execute(update(run).where(run.c.run_id == opening.run).values(model_digest=before))
    return True


def failed(at: Progress, suspects: tuple[str, ...]) -> SumWrongError:
    """Why a run ends whose sums are wrong one after the other.

    Args:
        at: Where it stands.
        suspects: Parties that are in all of them; none where no party is.
    """
    rounds = ", ".join(map(str, at.wrong))
    who = f"in all of them: {', '.join(suspects)}" if suspects else "no member is in all of them"
    return SumWrongError(
        need="sums that carry the tags of their members",
        found=f"none in rounds {rounds}: a member's tag is wrong, or the broker's sum; {who}",
        remedy="redo the sums from the masked vectors (iriai-broker audit vectors); if they are right, one "
        "of these members is to blame: a run without each of them in turn shows which",
    )
