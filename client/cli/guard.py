# SPDX-License-Identifier: Apache-2.0
"""``iriai-node guard``: what this node's own gate decided, and why."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import All, Every, Lang, Language, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["guard"]

guard = group("What this node's own gate decided.")


@command(guard, "log")
def guard_log(
    *,
    run_id: Annotated[str | None, typer.Option("--run", help="Only decisions of this run.")] = None,
    every: All = False,
    one: Open,
) -> Answer:
    """Every decision of this node's gate, newest first."""
    from client import ledgers

    return ledgers.guard_log(one.outbox, run_id, every=every)


@command(guard, "explain")
def guard_explain(
    run_id: str,
    *,
    every: Every = False,
    lang: Lang = Language.EN,
    one: Open,
) -> Answer:
    """Why a run's rounds were refused, or that they were allowed: clause, need, found, remedy, by whom."""
    from client.contract import explaining

    return explaining.explain_run(one.outbox, one.shelf, run_id, every=every, lang=lang)
