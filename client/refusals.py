# SPDX-License-Identifier: Apache-2.0
"""What this node refused before its gate decided, or after: kept beside the gate's own decisions.

A request may be refused by more than the guard: data were not imported under this contract, too many
envelopes wait for a receipt, a ledger does not verify, the plan is another one. The broker hears the code and
nothing else. The owner hears everything: each such refusal is a row of ``guard log``, with need, found and
remedy for ``guard explain``.

- A row holds the guard's decision where one was made, else this site's finding alone.
- The same refusal of the same slot is kept once, however often it is asked again.
- It decides nothing. What cannot be kept (the outbox is stopped) leaves the refusal as it is.

    with refusals_kept(outbox, header, clock):
        ...                                     # an IriaiError goes on, once it is kept
"""

from __future__ import annotations

import contextlib
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from client.errors import EquivocationError
from client.outbox.rows import Decided
from policies.contract import Finding, Outcome
from policies.errors import IriaiError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from client.federation.handlers import RunConfig
    from client.judged import Judged
    from client.outbox import Letters, Outbox
    from policies.exchange import RequestHeader
    from policies.ports import Clock

__all__ = ["ADMIT", "keep_refusal", "keep_unadmitted", "refusals_kept"]

ADMIT: Final = "run.admit"
"""Kind of a row about a run that was not joined: no round of it was looked at."""


@contextlib.contextmanager
def refusals_kept(
    outbox: Outbox, header: RequestHeader, clock: Clock, judged: Judged | None = None
) -> Iterator[None]:
    """Lets a refusal of this request go on, once it is kept.

    Args:
        outbox: Keeps the rows.
        header: The request.
        clock: Time of the row.
        judged: The guard's decision about it, if it was made.

    Raises:
        IriaiError: As it was raised inside.
    """
    try:
        yield
    except EquivocationError:  # the outbox is stopped and says why itself
        raise
    except IriaiError as error:
        with contextlib.suppress(IriaiError), outbox.writing() as letters:
            keep_refusal(letters, outbox, header, error, at_ms=clock.now_ms(), judged=judged)
        raise


def keep_refusal(
    letters: Letters,
    outbox: Outbox,
    header: RequestHeader,
    error: IriaiError,
    *,
    at_ms: int,
    judged: Judged | None = None,
) -> None:
    """Keeps one refusal in an open transaction, unless the newest row of its run says the same."""
    _keep(letters, outbox, _row(header, _finding(error), at_ms, judged))


def keep_unadmitted(outbox: Outbox, config: RunConfig, error: IriaiError, *, at_ms: int) -> None:
    """Keeps that a run was not joined, and why."""
    found = _finding(error)
    row = Decided(
        at_ms=at_ms,
        contract=config.contract,
        recipe=config.recipe,
        run=config.run,
        round=0,
        attempt=0,
        kind=ADMIT,
        allow=False,
        clauses=(found.clause,),
        document={"local": [found.to_json()]},
    )
    with contextlib.suppress(IriaiError), outbox.writing() as letters:
        _keep(letters, outbox, row)


def _keep(letters: Letters, outbox: Outbox, row: Decided) -> None:
    newest = next(iter(outbox.left.decisions(run=row.run, limit=1)), None)
    if newest is None or replace(newest, at_ms=row.at_ms, document=row.document) != row:
        letters.decided(row)


def _finding(error: IriaiError) -> Finding:
    """A refusal by a clause names it; any other is this site's own, by its code."""
    return Finding(
        clause=error.clause or f"local:{error.code}",
        check="local",
        outcome=Outcome.VIOLATED,
        need=error.need,
        found=error.found,
        remedy=error.remedy,
    )


def _row(header: RequestHeader, found: Finding, at_ms: int, judged: Judged | None) -> Decided:
    if judged is not None:
        kept = replace(judged, local=(*judged.local, found))
        return replace(kept.kept(header, at_ms), allow=False)
    return Decided.of(
        header, at_ms, allow=False, clauses=(found.clause,), document={"local": [found.to_json()]}
    )
