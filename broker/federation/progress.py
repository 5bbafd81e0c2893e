# SPDX-License-Identifier: Apache-2.0
"""Where a run stands, read from the database: what a restarted broker goes on from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sqlalchemy import BigInteger, cast, func, select

from broker.contracts.lineage import versions
from broker.federation.errors import RunUnknownError
from broker.runs.course import course_of
from broker.runs.verdicts import declined_of, in_a_row
from broker.store.tables import round_, run
from policies.limits import ATTEMPTS_PER_ROUND
from policies.rounds import sums_masked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sqlalchemy import ColumnElement, Row

    from broker.contracts.service import Contracts
    from broker.store import Session

__all__ = ["Progress", "progress", "rounds_before"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """State of one run after its last settled attempt.

    Attributes:
        state: ``running``, ``judging``, ``completed``, ``stopped`` or ``failed``.
        round: Number of the round to be asked next.
        attempt: Number of the attempt to be asked next.
        attempts_used: Settled attempts in which somebody may have trained; each is one step of a privacy
            plan.
        settled: Settled attempts, over all rounds.
        aggregated: Rounds that gave a model which stands: votes take some back (`broker.runs.course`).
        last_model_round: The newest of them, 0 before the first.
        before_model_round: The one before it, which the run goes back to if the newest is withdrawn.
        model: Digest of the newest model that stands, None before the first.
        rejections: Models in a row that were taken back, up to now.
        lost_in_a_row: Rounds lost since the last model that nobody took back because its sum was wrong; those
            that members held up in every attempt do not count.
        wrong: Of these, the rounds whose sums were wrong.
        declined: Party → code of those that said no, for each settled attempt since the last model, oldest
            first.
        settled_ms: When the last attempt was settled; None before the first.
        refused_ms: When the first of the attempts was settled that somebody refused, in a row up to the last.
        start: Why the run could not begin yet, as `broker.runs.verdicts.pause_of` reads it.
        stop_asked: An operator ends the run.
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
    before_model_round: int
    model: str | None
    rejections: int
    lost_in_a_row: int
    wrong: tuple[int, ...]
    settled: int
    declined: tuple[dict[str, str], ...]
    settled_ms: int | None
    refused_ms: int | None
    start: str | None
    stop_asked: bool
    before: int


def progress(session: Session, run_id: str, contracts: Contracts) -> Progress:
    """Reads where a run stands.

    Args:
        session: Of the database.
        run_id: The run.
        contracts: Say whether its sums are masked.

    Raises:
        RunUnknownError: Nobody opened it.
    """
    row = session.execute(select(run).where(run.c.run_id == run_id)).one_or_none()
    if row is None:
        raise RunUnknownError(need="a run of this broker", found=run_id[:60], remedy="iriai-broker run list")
    settled = session.execute(
        select(round_).where(round_.c.run_id == run_id).order_by(round_.c.round, round_.c.attempt)
    ).all()
    course = course_of(session, run_id)
    models = [one.round for one in settled if one.model is not None]
    standing = [one for one in models if one not in course.back]
    masked = sums_masked(contracts.read_in(session, row.contract))
    number, attempt = _next(settled, masked=masked)
    newest = models[-1] if models else 0
    since = max((one for one in models if one not in course.wrong), default=0)
    declined = tuple(declined_of(one.verdicts, one.reasons) for one in settled if one.round > newest)
    refused = in_a_row(declined)
    others = (run.c.run_id != run_id) & (run.c.opened_ms <= row.opened_ms)
    return Progress(
        run=run_id,
        contract=row.contract,
        recipe=row.recipe_digest,
        state=row.state,
        round=number,
        attempt=attempt,
        attempts_used=sum(one.trained != 0 for one in settled),
        settled=len(settled),
        aggregated=len(standing),
        last_model_round=standing[-1] if standing else 0,
        before_model_round=standing[-2] if len(standing) > 1 else 0,
        model=row.model_digest,
        rejections=course.rejections,
        lost_in_a_row=_lost([one for one in settled if since < one.round < number]),
        wrong=tuple(one for one in course.wrong if one > since),
        declined=declined,
        settled_ms=settled[-1].at_ms if settled else None,
        refused_ms=settled[-refused].at_ms if refused else None,
        start=row.start,
        stop_asked=row.stop_ms is not None,
        before=rounds_before(session, row.contract, row.recipe_digest, others),
    )


def rounds_before(
    session: Session, contract: str, recipe: str, others: ColumnElement[bool] | None = None
) -> int:
    """Rounds of a recipe under a contract, in all its versions: of all runs, or of those that are meant."""
    query = select(cast(func.coalesce(func.sum(run.c.round), 0), BigInteger)).where(
        run.c.contract.in_(versions(session, contract)) & (run.c.recipe_digest == recipe)
    )
    return int(session.scalar(query if others is None else query.where(others)) or 0)


def _next(settled: Sequence[Row[Any]], *, masked: bool) -> tuple[int, int]:
    """Round and attempt to be asked next: a round that members held up is asked again, and is not lost.

    One whose sum may have been opened is not asked again. Masked sums have keys for so many attempts of a
    round and no more: what was held up goes on under the next number.
    """
    if not settled:
        return 1, 1
    last = settled[-1]
    used = last.attempt
    if not masked:
        used = sum(one.round == last.round and not one.held_up for one in settled)
    if last.model is None and not last.unmasked and used < ATTEMPTS_PER_ROUND:
        return last.round, last.attempt + 1
    return last.round + 1, 1


def _lost(settled: Sequence[Row[Any]]) -> int:
    """How many rounds came to nothing by more than members that said no."""
    return len({one.round for one in settled if not one.held_up})
