# SPDX-License-Identifier: Apache-2.0
"""``iriai-node statement``: what a model's privacy claim says, what it rests on, and what it leaves open."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import Lang, Language, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["statement"]

statement = group("Privacy statements: the claim of a model, and what it does not protect.")


_Own = Annotated[
    bool, typer.Option("--own", help="This node's own part, signed by it, with its ledger's figures.")
]


@statement.callback()
def _statement() -> None:
    """Keeps `show` a command of its own, although it is the only one."""


@command(statement, "show")
def statement_show(
    model: Annotated[str | None, typer.Argument(help="Digest; the newest pulled one if left out.")] = None,
    *,
    own: _Own = False,
    html: Annotated[Path | None, typer.Option("--html", help="Write a page for a browser.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="Write the signed JSON (DSSE).")] = None,
    lang: Lang = Language.EN,
    one: Open,
) -> Answer:
    """Checks signature and figures again, offline, and says in sentences what they mean."""
    from client import statements

    return statements.statement_show(
        one.member, one.shelf, one.outbox, model, own=own, lang=lang, html=html, out=out
    )
