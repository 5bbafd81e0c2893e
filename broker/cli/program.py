# SPDX-License-Identifier: Apache-2.0
"""The command line as a whole: its groups, completion for shells, and lines that cannot be read.

With ``--json`` a line that Typer cannot read is refused by an envelope too (``broker.usage``, exit 2).
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

import click
import typer
import typer.core

if TYPE_CHECKING:
    from collections.abc import Sequence

    from broker.answers import Result

__all__ = ["Command", "Program", "program", "typer_group"]


class Command(typer.core.TyperCommand):
    """A command whose help shows brackets as they are: Typer escapes them for a printer that is off here."""

    def get_help(self, ctx: click.Context) -> str:
        """Text of ``--help``."""
        return super().get_help(ctx).replace("\\[", "[")


class Program(typer.core.TyperGroup):
    """The whole command line."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Runs the line that was given, or the process's own."""
        words = sys.argv[1:] if args is None else list(args)
        more = {"complete_var": complete_var, "windows_expand_args": windows_expand_args, **extra}
        if not standalone_mode or "--json" not in words:
            return super().main(words, prog_name, standalone_mode=standalone_mode, **more)
        try:
            code = super().main(words, prog_name, standalone_mode=False, **more)
        except click.ClickException as error:
            sys.exit(_unread(error.format_message()))
        except click.Abort:
            sys.exit(_unread("no answer"))
        sys.exit(code if isinstance(code, int) else 0)


def _unread(said: str) -> int:
    from broker import answers
    from broker.errors import UsageError

    def refuse() -> Result:
        raise UsageError(
            need="a command line that can be read", found=said, remedy="ask the command for its help"
        )

    return answers.finish(refuse, as_json=True)


def program(text: str) -> typer.Typer:
    """The root of all groups, with completion for shells."""
    return typer_group(text, cls=Program, add_completion=True)


def typer_group(text: str, **more: Any) -> typer.Typer:  # noqa: ANN401  of Typer's own
    """A group of commands."""
    return typer.Typer(
        suggest_commands=False,  # click proposes already
        help=text,
        no_args_is_help=True,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
        **({"add_completion": False} | more),
    )
