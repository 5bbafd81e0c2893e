# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-sandbox`` share: their options, and the envelope on standard output."""

from __future__ import annotations

import json
from typing import Annotated, Any, Literal

import typer

__all__ = ["Json", "NoiseKind", "print_envelope"]

NoiseKind = Annotated[
    Literal["local-full", "shares"],
    typer.Option(
        help="`local-full`: each node adds all of it; `shares`: a part each, and sums have the whole."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One envelope on standard output.")]


def print_envelope(data: dict[str, Any], *, as_json: bool) -> None:
    """The one envelope of a command that succeeded, where it was asked for."""
    if as_json:
        typer.echo(json.dumps({"schema": "1", "status": "ok", "data": data}, ensure_ascii=False))
