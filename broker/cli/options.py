# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-broker`` share: their options, how they end, which broker they mean."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Callable

    from broker.answers import Result
    from broker.commands import Where

__all__ = ["Dir", "Home", "Json", "Key", "Lang", "Pin", "Url", "Yes", "finish", "typer_group", "where_of"]

Json = Annotated[bool, typer.Option("--json", help="One JSON envelope on standard output.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The broker's folder (on its host).")]
Home = Annotated[Path, typer.Option("--dir", help="The broker's folder.")]
Url = Annotated[str | None, typer.Option("--url", help="The broker's URL (from elsewhere).")]
Pin = Annotated[str | None, typer.Option("--tls-sha256", help="SHA-256 of its certificate, with --url.")]
Key = Annotated[Path | None, typer.Option("--key", help="Your operator key file.")]
Lang = Annotated[str, typer.Option("--lang", help="Language of the words: en or ja.")]
Yes = Annotated[bool, typer.Option("--yes", help="I compared the fingerprint by another way.")]


def finish(work: Callable[[], Result], *, as_json: bool) -> None:
    """Runs a command to its exit code."""
    from broker import answers

    raise typer.Exit(answers.finish(work, as_json=as_json))


def where_of(directory: Path | None, url: str | None, pin: str | None, key: Path | None) -> Where:
    """The broker that a command talks to."""
    from broker.commands import Where

    return Where(directory=directory, url=url, tls_sha256=pin, key=key)


def typer_group(text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
