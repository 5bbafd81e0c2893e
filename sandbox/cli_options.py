# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-sandbox`` share: their options, and the envelope on standard output."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

__all__ = ["DryRun", "Json", "NoiseKind", "print_envelope", "tell", "told_dry"]

NoiseKind = Annotated[
    Literal["local-full", "shares"],
    typer.Option(
        help="`local-full`: each node adds all of it; `shares`: a part each, and sums have the whole."
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check the options, say what would follow, and change nothing.")
]
Json = Annotated[bool, typer.Option("--json", help="One envelope on standard output.")]


def tell(found: dict[str, Any], lines: Callable[[dict[str, Any]], Iterable[str]], *, as_json: bool) -> None:
    """Figures as lines for people, or as the envelope."""
    if as_json:
        print_envelope(found, as_json=True)
        return
    for line in lines(found):
        typer.echo(line)


def print_envelope(data: dict[str, Any], *, as_json: bool) -> None:
    """The one envelope of a command that succeeded, where it was asked for."""
    if as_json:
        typer.echo(json.dumps({"schema": "1", "status": "ok", "data": data}, ensure_ascii=False))


def told_dry(facts: dict[str, Any], words: str, *, as_json: bool) -> None:
    """What a dry run says: figures, and that nothing was changed."""
    typer.echo(f"would {words}; nothing was changed", err=as_json)
    print_envelope({"dry_run": True, **facts}, as_json=as_json)
