# SPDX-License-Identifier: Apache-2.0
"""``iriai-node statement``: what a model's privacy claim says, what it rests on, and what it leaves open."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.options import Lang, Language, Open, command, group

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["statement"]

statement = group("Privacy statements: the claim of a model, and what it does not protect.")


_Own = Annotated[
    bool, typer.Option("--own", help="This node's own part, signed by it, with its ledger's figures.")
]


@command(statement, "list")
def statement_list(home: Home) -> Answer:
    """Statements of the models that are here, with the verdict of each; works offline."""
    from client.statements.listing import statement_list as listed

    return listed(home.need())


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
