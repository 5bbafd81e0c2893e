# SPDX-License-Identifier: Apache-2.0
"""``iriai-node release``: candidates at the release gate, and the owner's vote."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import DryRun, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["release"]

release = group("Candidates at the release gate, and your vote.")


@command(release, "list")
def release_list(one: Open) -> Answer:
    """Candidates at the release gate, and your own vote."""
    from client import releases

    return releases.release_list(one.member)


@command(release, "show")
@command(release, "report", hidden=True)
def release_report(candidate: str, one: Open) -> Answer:
    """Who judged a candidate, and what the tests for leaks found, before you vote."""
    from client import candidate_report

    return candidate_report.release_report(one.member, candidate)


def _vote(one: Open, candidate: str, *, verdict: str, clause: str | None, dry_run: bool) -> Answer:
    from client import releases

    if dry_run:
        return releases.vote_preview(one.member, candidate, verdict=verdict)
    return releases.vote(one.member, one.shelf, one.outbox, candidate, verdict=verdict, clause=clause)


@command(release, "approve")
def release_approve(candidate: str, *, dry_run: DryRun = False, one: Open) -> Answer:
    """Votes for a candidate."""
    return _vote(one, candidate, verdict="approve", clause=None, dry_run=dry_run)


@command(release, "veto")
def release_veto(
    candidate: str,
    *,
    clause: Annotated[str | None, typer.Option(help="In the name of which clause.")] = None,
    dry_run: DryRun = False,
    one: Open,
) -> Answer:
    """Votes against a candidate; a vetoed one cannot be pulled by anybody."""
    return _vote(one, candidate, verdict="veto", clause=clause, dry_run=dry_run)
