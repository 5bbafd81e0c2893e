# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-broker`` share: their options, how they run and end, which broker they mean.

A command is a function that takes what it needs and returns a `broker.answers.Result`; `command` puts it on
the line:

    @command(run, "stop", effect="run {run_id} ends once its open round is closed", asks=True)
    def run_stop(run_id: str, where: Where) -> Result:
        '''Ends a run once its open round is closed.'''
        from broker.commands import run as commands_run

        return commands_run.run_stop(where, run_id)

- Its own parameters are read as Typer reads any command's; the order of the options is theirs.
- A parameter ``where`` stands for the options of `where_of` (which broker, and as whom), in its place. A
  parameter ``directory`` is the broker's place (`broker.settings`): ``--dir``, else ``--config``, else the
  default one.
- Every command takes ``--lang`` and ``--json``; one that has a parameter ``lang`` or ``as_json`` is told.
- ``effect`` makes it a change: it takes ``--dry-run`` and ``--yes``. The effect is told in the words of its
  parameters. With ``--dry-run`` nothing that changes anything is sent or done: the first request that would
  have been is shown instead, without signatures; a command that works on files is not run at all, unless it
  has a parameter ``dry_run`` and plans by itself.
- ``asks``: at a terminal a person is asked first; ``--yes`` is the answer. It stands for this one person and
  never for a second one.
- A command line that a message proposes names broker and key as this line did (`as_typed`).
- The function runs inside `finish`: what it returns is printed, and so is the refusal that it raises. With
  ``--json`` a line that Typer cannot read is an envelope too (`broker.cli.program`).
"""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from broker.cli.changes import Change, confirm, undone, unless_dry
from broker.cli.program import Command, program, typer_group

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from broker.answers import Result
    from broker.commands import Where

__all__ = [
    "Clause",
    "Config",
    "Dir",
    "Home",
    "Json",
    "Lang",
    "Reason",
    "RunId",
    "Text",
    "Yes",
    "as_typed",
    "command",
    "finish",
    "needed_place",
    "place_of",
    "program",
    "typer_group",
]

Json = Annotated[bool, typer.Option("--json", help="One JSON envelope on standard output.")]
Dir = Annotated[Path | None, typer.Option("--dir", help="The broker's folder (on its host).")]
Home = Annotated[Path, typer.Option("--dir", help="The broker's folder.")]
Config = Annotated[Path | None, typer.Option("--config", help="Its settings file, instead of --dir.")]
Url = Annotated[str | None, typer.Option("--url", help="The broker's URL (from elsewhere).")]
Pin = Annotated[str | None, typer.Option("--tls-sha256", help="SHA-256 of its certificate, with --url.")]
Key = Annotated[Path | None, typer.Option("--key", help="Your operator key file.")]
Lang = Annotated[str, typer.Option("--lang", help="Language of the words: en or ja.")]
Yes = Annotated[bool, typer.Option("--yes", help="I compared the fingerprint by another way.")]
Sure = Annotated[bool, typer.Option("--yes", help="Do not ask; never stands for a second person.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Show what would be sent and to what effect; send nothing.")
]
RunId = Annotated[str, typer.Argument(metavar="RUN")]
Clause = Annotated[str | None, typer.Option("--clause", help="The clause that is the reason.")]
Text = Annotated[str | None, typer.Option("--text", help="One line for the parties.")]
Reason = Annotated[str, typer.Option("--reason", help="A reason code, such as operator-decision.")]

_ON_ITS_HOST = frozenset({"--dir", "--config"})
_WHICH = _ON_ITS_HOST | {"--url", "--tls-sha256"}
_ASKS = frozenset({"--dir", "--url", "--key"})  # what every command takes that talks to a broker

_A_SECOND_PERSONS = frozenset({("proposal", "approve")})  # never with the key of who proposed

_LANGUAGES = ("en", "ja")
Body = TypeVar("Body", bound="Callable[..., Result]")

# Imported for the type checker alone, because their modules are heavy; Typer never sees these annotations.
_UNLOADED = {"Result": object, "Where": object}


def finish(work: Callable[[], Result], *, as_json: bool) -> None:
    """Runs a command to its exit code."""
    from broker import answers

    raise typer.Exit(answers.finish(work, as_json=as_json, say=as_typed()))


def as_typed() -> Callable[[str], str]:
    """Completes command lines of this program in a text: with the broker and the key that were named."""
    import click
    from click.core import ParameterSource

    from policies.command_lines import Given, Tree, typeable

    context = click.get_current_context(silent=True)
    if context is None:
        return str
    named = {
        option.opts[0]: str(context.params[option.name])
        for option in context.command.params
        if option.name is not None
        and context.get_parameter_source(option.name) is ParameterSource.COMMANDLINE
    }
    talks = "--key" in {name for option in context.command.params for name in option.opts}
    which = {name: value for name, value in named.items() if name in (_WHICH if talks else _ON_ITS_HOST)}
    root, key = context.find_root().command, named.get("--key", "FILE") if talks else "FILE"
    given = [
        Given(values=which or ({} if place_of(None, None) else {"--dir": "DIR"}), enough=_WHICH, takes=_ASKS),
        Given(values=which, enough=_WHICH),
        Given(values={"--key": key}, takes=_ASKS, unless=_A_SECOND_PERSONS),
        Given(values={"--key": "FILE"}, takes=_ASKS),
    ]

    def say(text: str) -> str:
        if "iriai-broker" not in text:
            return text
        text = text.replace(" --dir DIR", "") if which else text  # who wrote it did not know which
        return typeable(text, Tree.of("iriai-broker", root), given)

    return say


def place_of(directory: Path | None, config: Path | None) -> Path | None:
    """The place of a broker that the line names, else the default one; None if there is none.

    Raises:
        UsageError: Folder and file.
    """
    if directory is not None and config is not None:
        from broker.errors import UsageError

        raise UsageError(
            need="--dir DIR or --config FILE",
            found="both",
            remedy="name one; the file says where the folder is",
        )
    if directory is not None or config is not None:
        return directory or config
    from broker.settings import default_place

    return default_place()


def needed_place(directory: Path | None, config: Path | None) -> Path:
    """`place_of`, of a command that works on files.

    Raises:
        UsageError: As from `place_of`, or there is none.
    """
    found = place_of(directory, config)
    if found is None:
        from broker.errors import UsageError

        raise UsageError(
            need="--dir DIR or --config FILE",
            found="neither, and no broker.toml where one is looked for",
            remedy="on the broker's host, name its folder or its settings file",
        )
    return found


def where_of(
    *,
    directory: Dir = None,
    config: Config = None,
    url: Url = None,
    pin: Pin = None,
    key: Key = None,
) -> Where:
    """The broker that a command talks to."""
    from broker.commands import Where

    place = directory or config if url is not None else place_of(directory, config)
    return Where(directory=place, url=url, tls_sha256=pin, key=key)


def command(
    group: typer.Typer, name: str, *, effect: str | None = None, asks: bool = False, hidden: bool = False
) -> Callable[[Body], Body]:
    """Makes a function a command of a group, as the module says; the function itself stays as it is.

    Args:
        group: Where it stands.
        name: How it is typed.
        effect: Of a change: what happens, as a sentence with names of parameters in braces.
        asks: Whether a person at a terminal is asked first.
        hidden: An older name of another command: it works and is not listed.
    """

    def register(body: Body) -> Body:
        own = _parameters(body)

        def entry(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401  what the line says
            finish(lambda: _work(body, own, given, Change(effect, asks), as_json=as_json), as_json=as_json)

        taken = list(_options(own, change=effect is not None))
        vars(entry)["__signature__"] = inspect.Signature(taken)  # what Typer reads instead
        group.command(name, cls=Command, help=body.__doc__, hidden=hidden)(entry)
        return body

    return register


def _work(
    body: Callable[..., Result],
    own: dict[str, inspect.Parameter],
    given: dict[str, Any],
    change: Change,
    *,
    as_json: bool,
) -> Result:
    """Runs a command: what the line says is made into what the function takes."""
    from dataclasses import replace

    dry, sure = given.pop("dry_run", False), given.pop("yes", False)
    lang = given.pop("lang", "en")
    _check_language(lang)
    told = change.told(given)
    if "where" in own:
        where = where_of(**{one: given.pop(one) for one in _WHERE})
        given["where"] = replace(where, dry_run=dry)
    elif "directory" in own and "config" not in own:
        given["directory"] = _resolved(own["directory"], given["directory"], given.pop("config"))
    given |= {n: v for n, v in (("as_json", as_json), ("lang", lang), ("yes", sure)) if n in own}
    if "dry_run" in own:
        return body(**given, dry_run=dry)
    if dry and "where" not in own:
        return undone(told, None)
    if change.asks and not sure and not dry:
        confirm(told)
    return unless_dry(lambda: body(**given), told) if dry else body(**given)


def _resolved(one: inspect.Parameter, directory: Path | None, config: Path | None) -> Path | None:
    """The place of a command that needs one, or that only takes it where it is named."""
    optional = one.default is not inspect.Parameter.empty
    return place_of(directory, config) if optional else needed_place(directory, config)


def _check_language(lang: str) -> None:
    if lang in _LANGUAGES:
        return
    from broker.errors import UsageError

    raise UsageError(need="--lang en or ja", found=ascii(lang)[1:-1][:40], remedy="name one of them")


def _parameters(function: Callable[..., object]) -> dict[str, inspect.Parameter]:
    """Parameters by name, their annotations resolved; all by keyword, as Typer gives them."""
    signature = inspect.signature(function, eval_str=True, locals=_UNLOADED)
    return {
        one.name: one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in signature.parameters.values()
    }


def _more(name: str, annotation: object, default: object = False) -> inspect.Parameter:  # noqa: FBT002
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation)


_WHERE = _parameters(where_of)
_PLACE = (
    _more("directory", Dir, None),
    _more("config", Config, None),
)
_INNER = frozenset({"as_json", "dry_run"})


def _options(own: dict[str, inspect.Parameter], *, change: bool) -> Iterator[inspect.Parameter]:
    """What the line takes for a function with these parameters."""
    for name, one in own.items():
        if name == "where":
            yield from _WHERE.values()
        elif name == "directory" and "config" not in own:
            yield from _PLACE
        elif name not in _INNER:
            yield one
    if "lang" not in own:
        yield _more("lang", Lang, "en")
    if change and "yes" not in own:
        yield _more("yes", Sure)
    if change:
        yield _more("dry_run", DryRun)
    yield _more("as_json", Json)
