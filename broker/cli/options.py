# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-broker`` share: their options, how they run and end, which broker they mean.

A command is a function that takes what it needs and returns a `broker.answers.Result`; `command` puts it on
the line:

    @command(run, "show")
    def run_show(run_id: str, where: Where) -> Result:
        '''Shows one run and its rounds.'''
        from broker.commands import run as commands_run

        return commands_run.run_show(where, run_id)

- Its own parameters are read as Typer reads any command's; the order of the options is theirs.
- A parameter ``where`` stands for the options of `where_of` (which broker, and as whom), in its place.
- Every command ends with ``--json``; one that has a parameter ``as_json`` is told of it.
- The function runs inside `finish`: what it returns is printed, and so is the refusal that it raises.
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.answers import Result
    from broker.commands import Where

__all__ = [
    "Clause",
    "Home",
    "Json",
    "Lang",
    "RunId",
    "Text",
    "Yes",
    "command",
    "finish",
    "typer_group",
]

Json = Annotated[bool, typer.Option("--json", help="One JSON envelope on standard output.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The broker's folder (on its host).")]
Home = Annotated[Path, typer.Option("--dir", help="The broker's folder.")]
Url = Annotated[str | None, typer.Option("--url", help="The broker's URL (from elsewhere).")]
Pin = Annotated[str | None, typer.Option("--tls-sha256", help="SHA-256 of its certificate, with --url.")]
Key = Annotated[Path | None, typer.Option("--key", help="Your operator key file.")]
Lang = Annotated[str, typer.Option("--lang", help="Language of the words: en or ja.")]
Yes = Annotated[bool, typer.Option("--yes", help="I compared the fingerprint by another way.")]
RunId = Annotated[str, typer.Argument(metavar="RUN")]
Clause = Annotated[str | None, typer.Option("--clause", help="The clause that is the reason.")]
Text = Annotated[str | None, typer.Option("--text", help="One line for the parties.")]

Body = TypeVar("Body", bound="Callable[..., Result]")

# Imported for the type checker alone, because their modules are heavy; Typer never sees these annotations.
_UNLOADED = {"Result": object, "Where": object}


def finish(work: Callable[[], Result], *, as_json: bool) -> None:
    """Runs a command to its exit code."""
    from broker import answers

    raise typer.Exit(answers.finish(work, as_json=as_json))


def where_of(*, directory: Dir = None, url: Url = None, pin: Pin = None, key: Key = None) -> Where:
    """The broker that a command talks to."""
    from broker.commands import Where

    return Where(directory=directory, url=url, tls_sha256=pin, key=key)


def command(group: typer.Typer, name: str) -> Callable[[Body], Body]:
    """Makes a function a command of a group, as the module says; the function itself stays as it is."""

    def register(body: Body) -> Body:
        own = _parameters(body)

        def entry(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401  what the line says
            def work() -> Result:
                if "where" in own:
                    given["where"] = where_of(**{one: given.pop(one) for one in _WHERE})
                if "as_json" in own:
                    given["as_json"] = as_json
                return body(**given)

            finish(work, as_json=as_json)

        vars(entry)["__signature__"] = inspect.Signature(list(_options(own)))  # what Typer reads instead
        group.command(name, help=body.__doc__)(entry)
        return body

    return register


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Parameters by name, their annotations resolved; all by keyword, as Typer gives them."""
    signature = inspect.signature(function, eval_str=True, locals=_UNLOADED)
    return {
        one.name: one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()
    }


_WHERE = _parameters(where_of)
_AS_JSON = inspect.Parameter("as_json", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Json)


def _options(own: dict[str, inspect.Parameter]) -> Iterator[inspect.Parameter]:
    """What the line takes for a function with these parameters."""
    for name, one in own.items():
        if name == "where":
            yield from _WHERE.values()
        elif name != "as_json":
            yield one
    yield _AS_JSON


def typer_group(text: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        help=text,
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode=None,
        pretty_exceptions_enable=False,
    )
