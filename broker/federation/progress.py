# SPDX-License-Identifier: Apache-2.0
"""Where a run stands, read from the database: what a restarted broker goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from sqlalchemy import func, select

from broker.contracts.lineage import versions
from broker.federation.errors import RunUnknownError
from broker.runs.verdicts import declined_of
from broker.store.tables import round_, run
from policies.limits import ATTEMPTS_PER_ROUND

if TYPE_CHECKING:
    from broker.store import Session

__all__ = ["Progress", "progress"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """State of one run after its last settled attempt.

    Attributes:
        state: ``running``, ``judging``, ``completed``, ``stopped`` or ``failed``.
        round: Number of the round to be asked next.
        attempt: Number of the attempt to be asked next.
        attempts_used: Settled attempts over all rounds; each is one step of a privacy plan.
        aggregated: Rounds that gave a model.
        last_model_round: The newest of them, 0 before the first.
        model: Digest of the newest model, None before the first.
        lost_in_a_row: Rounds lost since the last model.
        declined: Parties that said no, for each settled attempt since the last model, oldest first.
        settled_ms: When the last attempt was settled; None before the first.
        before: Rounds of earlier runs of the same recipe under the same contract, in all its versions: an
            amendment does not begin the count anew.
    """

    run: str
    contract: str
    recipe: str
    state: str
    round: int
    attempt: int
    attempts_used: int
    aggregated: int
    last_model_round: int
    model: str | None
    lost_in_a_row: int
    declined: tuple[frozenset[str], ...]
    settled_ms: int | None
    before: int


def progress(session: Session, run_id: str) -> Progress:
    """Reads where a run stands.

    Raises:
        RunUnknownError: Nobody opened it.
    """
    row = session.execute(select(run).where(run.c.run_id == run_id)).one_or_none()
    if row is None:
        raise RunUnknownError(need="a run of this broker", found=run_id[:60], remedy="iriai-broker run list")
    settled = session.execute(
        select(round_.c.round, round_.c.attempt, round_.c.model, round_.c.verdicts, round_.c.at_ms)
        .where(round_.c.run_id == run_id)
        .order_by(round_.c.round, round_.c.attempt)
    ).all()
    models = [one.round for one in settled if one.model is not None]
    number, attempt = _next(settled[-1].round, settled[-1].attempt, settled[-1].model) if settled else (1, 1)
    newest = models[-1] if models else 0
    earlier = session.scalar(
        select(func.coalesce(func.sum(run.c.round), 0)).where(
            run.c.contract.in_(versions(session, row.contract))
            & (run.c.recipe_digest == row.recipe_digest)
            & (run.c.run_id != run_id)
            & (run.c.opened_ms <= row.opened_ms)
        )
    )
    return Progress(
        run=run_id,
        contract=row.contract,
        recipe=row.recipe_digest,
        state=row.state,
        round=number,
        attempt=attempt,
        attempts_used=len(settled),
        aggregated=len(models),
        last_model_round=newest,
        model=row.model_digest,
        lost_in_a_row=len(
            {one.round for one in settled if one.round > newest and one.attempt == ATTEMPTS_PER_ROUND}
        ),
        declined=tuple(declined_of(one.verdicts) for one in settled if one.round > newest),
        settled_ms=settled[-1].at_ms if settled else None,
        before=int(earlier or 0),
    )


def _next(number: int, attempt: int, model: str | None) -> tuple[int, int]:
    if model is None and attempt < ATTEMPTS_PER_ROUND:
        return number, attempt + 1
    return number + 1, 1
