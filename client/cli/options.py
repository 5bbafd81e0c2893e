# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-node`` share: their options, how they ask and end, what they work on.

A command is a function that takes what it needs and returns an `Answer`; `command` puts it on the line:

    @command(receipts, "export")
    def receipts_export(*, out: Annotated[Path, typer.Option("--out", help="Folder.")], one: Open) -> Answer:
        '''Writes every receipt as a file.'''
        from client import releases

        return releases.receipts_export(one.outbox, out)

- Its own parameters are read as Typer reads any command's; the order of the options is theirs.
- A parameter ``one`` or ``home`` stands for ``--dir`` and ``--config``, in its place: the node that they mean
  (`client.layers`), opened for as long as the command runs, or where it would be, which may hold no node.
- A parameter ``lang`` is the language of the words: the option, else the setting ``lang``.
- A parameter ``yes`` brings ``--dry-run`` along: all up to the question is done, which changes nothing, the
  effect is shown, and the command ends there. A command that asks nothing has a parameter ``dry_run``; it
  plans by itself, works on a copy (`client.rehearsal`), or lets the broker's client look only: where that
  would have done more, the command ends, and what was not sent is shown.
- Every command ends with ``--json``.
- The function runs inside `finish`: what it returns is printed, and so is the refusal that it raises.
- A command line that a message proposes names the node as this line did (`as_typed`).
- Nothing here has colours; the progress bar of imports heeds ``NO_COLOR`` and ``FORCE_COLOR``.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum, StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
import typer.core

from client.answers import Answer, finish, plain, print_error
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.layers import locate
from client.settings import Home, load_settings
from client.transport import NotSentError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

    import click

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.lint import LintFinding

__all__ = [
    "All",
    "Clause",
    "Command",
    "Config",
    "Dir",
    "DryRun",
    "Every",
    "Lang",
    "Language",
    "Open",
    "Reader",
    "Text",
    "Yes",
    "accept",
    "as_typed",
    "ask",
    "command",
    "end",
    "group",
    "opened",
    "retype",
    "tell",
]

Dir = Annotated[
    Path | None,
    typer.Option(
        "--dir", envvar="IRIAI_NODE_DIR", show_default=False, help="The node's folder; else ./iriai-node."
    ),
]
Config = Annotated[
    Path | None,
    typer.Option(
        "--config",
        envvar="IRIAI_NODE_CONFIG",
        show_default=False,
        help="The settings file, where it is not the folder's own node.toml.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="One JSON envelope on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", help="The question was answered before: no prompt.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would follow, and change nothing.")]
Clause = Annotated[str | None, typer.Option("--clause", help="The clause that is the reason.")]
Text = Annotated[str | None, typer.Option("--text", help="One line for the other parties.")]
Every = Annotated[bool, typer.Option("--all", help="Satisfied findings too.")]
All = Annotated[bool, typer.Option("--all", help="Also those that are older than the newest 1000.")]
Reader = Annotated[str | None, typer.Option("--format", help="Reader, where two claim the path.")]

Body = TypeVar("Body", bound="Callable[..., Answer]")


class Language(StrEnum):
    """In which the contract is shown."""

    EN = "en"
    JA = "ja"


_NAMES_A_NODE = frozenset({"--dir", "--config"})
_LANG_HELP = "Language of the words; else the setting `lang`."
Lang = Annotated[Language, typer.Option("--lang", help=_LANG_HELP)]
_LangOrNone = Annotated[Language | None, typer.Option("--lang", show_default=False, help=_LANG_HELP)]


class Word(Enum):
    """What a person said on the line about the question to come; only `YES` is true."""

    ASK = "ask"
    YES = "yes"
    DRY = "dry-run"

    def __bool__(self) -> bool:
        return self is Word.YES


class _WouldAskError(Exception):
    """A dry run came to its question: everything before it held, and nothing was changed."""

    def __init__(self, question: str, shown: str) -> None:
        super().__init__(question)
        self.question, self.shown = question, shown


class Command(typer.core.TyperCommand):
    """A command whose help shows brackets as they are: Typer escapes them for a printer that is off here."""

    def get_help(self, ctx: click.Context) -> str:
        """Text of ``--help``."""
        return super().get_help(ctx).replace("\\[", "[")


class Program(typer.core.TyperGroup):
    """A whole program: with ``--json`` a line that cannot be read is answered by one envelope, too."""

    def main(  # its parent's parameters
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,  # noqa: FBT001, FBT002
        windows_expand_args: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,  # noqa: ANN401
    ) -> Any:  # noqa: ANN401
        """Runs the line, and ends the process with its exit code."""
        import click

        from client.errors import UsageError

        words = list(sys.argv[1:] if args is None else args)
        if not standalone_mode or "--json" not in words:
            return super().main(words, prog_name, complete_var, standalone_mode, windows_expand_args, **extra)
        try:
            code = super().main(
                words,
                prog_name,
                complete_var,
                standalone_mode=False,
                windows_expand_args=windows_expand_args,
                **extra,
            )
        except click.ClickException as error:
            refused = UsageError(
                need="a line that fits", found=error.format_message(), remedy="read the help of the command"
            )
            sys.exit(print_error(refused, as_json=True))
        except click.Abort:
            sys.exit(1)
        sys.exit(code if isinstance(code, int) else 0)


def group(words: str, *, completion: bool = False) -> typer.Typer:
    """A group of commands; the one of a whole program may complete words in a shell."""
    return typer.Typer(
        suggest_commands=False,  # click proposes already
        cls=Program if completion else None,
        help=words,
        no_args_is_help=True,
        add_completion=completion,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def end(work: Callable[[], Answer], *, as_json: bool, told_before: bool = False) -> NoReturn:
    """Runs a command to its exit code."""
    raise typer.Exit(finish(work, as_json=as_json, told_before=told_before, say=as_typed()))


def as_typed() -> Callable[[str], str]:
    """Completes command lines of this program in a text: by the node that the line in hand has named."""
    import click
    from click.core import ParameterSource

    from policies.command_lines import Given, Tree, typeable

    context = click.get_current_context(silent=True)
    if context is None:
        return str
    named = {
        option: str(context.params[name])
        for name, option in (("folder", "--dir"), ("config", "--config"))
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
    }
    root = context.find_root().command
    return lambda text: (
        typeable(text, Tree.of("iriai-node", root), [Given(values=named, enough=_NAMES_A_NODE)])
        if named and "iriai-node" in text
        else text
    )


def command(
    group: typer.Typer, name: str, *, takes_minus: bool = False, hidden: bool = False
) -> Callable[[Body], Body]:
    """Makes a function a command of a group, as the module says; the function itself stays as it is.

    With ``takes_minus`` an argument may begin with a minus, as numbers do: what is no option is an argument.
    A ``hidden`` one is an older name of another command, and is in no help.
    """

    def register(body: Body) -> Body:
        # these three are known here; a command's module may import them for the type checker alone
        known = {"Answer": Answer, "Home": Home, "Open": Open}
        own = inspect.signature(body, eval_str=True, locals=known).parameters

        def entry(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401  what the line says
            end(lambda: _in_its_place(body, own, given), as_json=as_json)

        vars(entry)["__signature__"] = _signature(own)  # what Typer reads instead
        settings = {"ignore_unknown_options": takes_minus}
        group.command(name, help=body.__doc__, cls=Command, context_settings=settings, hidden=hidden)(entry)
        return body

    return register


def _in_its_place(
    body: Callable[..., Answer], own: Mapping[str, inspect.Parameter], given: dict[str, Any]
) -> Answer:
    """Runs a command on the node, or the folder, that it asks for."""
    home = locate(given.pop("folder"), given.pop("config")) if {"one", "home"} & own.keys() else None
    if "lang" in own and given["lang"] is None:
        given["lang"] = Language.EN if home is None else Language(load_settings(home).lang)
    if "yes" in own:
        dry = given.pop("dry_run")
        given["yes"] = Word.DRY if dry else Word.YES if given["yes"] else Word.ASK
    try:
        if "one" in own and home is not None:
            with opened(home) as one:
                return body(one=one, **given)
        return body(**given) if home is None else body(home=home, **given)
    except NotSentError as unsent:
        return _not_sent(unsent)
    except _WouldAskError as would:
        return Answer(
            data={"dry_run": True, "question": would.question, "about": would.shown},
            text=("dry run: this is as far as it goes without a word from you; nothing was changed",),
        )


def _not_sent(unsent: NotSentError) -> Answer:
    """What a dry run says that came to its first request for more than reading."""
    does = "send" if unsent.method != "GET" else "fetch at most"
    return Answer(
        data={
            "dry_run": True,
            "request": {"method": unsent.method, "path": unsent.path, "size_bytes": unsent.size_bytes},
        },
        text=(
            f"would {does} {unsent.size_bytes} bytes: {unsent.method} {unsent.path}",
            "dry run: everything before it held; nothing was changed",
        ),
    )


def _signature(own: Mapping[str, inspect.Parameter]) -> inspect.Signature:
    """What the line takes for a function with these parameters; all by keyword, as Typer gives them."""
    by_name = inspect.Parameter.KEYWORD_ONLY

    def option(name: str, annotation: object, default: object) -> inspect.Parameter:
        return inspect.Parameter(name, by_name, default=default, annotation=annotation)

    taken: list[inspect.Parameter] = []
    for name, one in own.items():
        if name in {"one", "home"}:
            taken += [option("folder", Dir, None), option("config", Config, None)]
        elif name == "lang":
            taken.append(option("lang", _LangOrNone, None))
        else:
            taken.append(one.replace(kind=by_name))
    if "yes" in own:
        taken.append(option("dry_run", DryRun, default=False))
    return inspect.Signature([*taken, option("as_json", Json, default=False)])


def _put(question: str, shown: str, *, yes: Word | bool) -> None:
    """Shows a question; a dry run ends here."""
    print(f"{question}\n\n    {shown}\n", file=sys.stderr)  # noqa: T201  the question
    if yes is Word.DRY:
        raise _WouldAskError(question, shown)


def ask(question: str, *, yes: Word | bool, prompt: str = "Is it the same?") -> Callable[[str], bool]:
    """Shows something to a person and takes yes or no; without a terminal the answer is no."""

    def confirm(shown: str) -> bool:
        _put(question, shown, yes=yes)
        if yes:
            return True
        return sys.stdin.isatty() and typer.confirm(prompt, err=True)

    return confirm


def retype(question: str, *, yes: Word | bool, quiet: bool = False) -> Callable[[str], bool]:
    """Has a person type the first hex digits of a digest; without a terminal the answer is no.

    With ``quiet`` nothing is shown of a question that was answered before.
    """

    def confirm(shown: str) -> bool:
        if not (yes and quiet):
            _put(question, shown, yes=yes)
        if yes:
            return True
        if not sys.stdin.isatty():
            return False
        typed: str = typer.prompt(
            f"Type these {len(shown)} digits, or nothing to stop", default="", show_default=False, err=True
        )
        return typed.strip().lower() == shown

    return confirm


def accept(*, everything: bool, lang: str, quiet: bool = False) -> Callable[[LintFinding], bool]:
    """Shows a warning and takes whether a person accepts it; without a terminal only if all are.

    With ``quiet`` those that are accepted unseen are not shown.
    """

    def acknowledge(finding: LintFinding) -> bool:
        if everything and quiet:
            return True
        from policies.contract.lint import finding_words

        need, found, remedy = finding_words(finding, lang)
        tell((f"warning   {finding.id}", f"  need    {need}", f"  found   {found}", f"  remedy  {remedy}"))
        if everything:
            return True
        return sys.stdin.isatty() and typer.confirm("Do you accept this?", err=True)

    return acknowledge


def tell(lines: Iterable[str]) -> None:
    """Text for people, on standard error; what other parties wrote cannot move the cursor."""
    say = as_typed()
    for line in lines:
        print(plain(say(line)), file=sys.stderr)  # noqa: T201  the text of a question


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What most commands work on."""

    home: Home
    member: Member
    shelf: ContractShelf
    outbox: Outbox


@contextmanager
def opened(home: Home) -> Iterator[Open]:
    """Opens what most commands work on, and closes it."""
    from client.contract.shelf import ContractShelf
    from client.membership import open_member
    from client.outbox import Outbox

    clock, entropy = SystemClock(), SystemEntropy()
    member = open_member(home, clock=clock, entropy=entropy)
    kept = Outbox.of(home, member.identity, origin=member.broker.origin, clock=clock, entropy=entropy)
    try:
        with member.client:
            yield Open(
                home=home,
                member=member,
                shelf=ContractShelf(home, own_key=member.identity.key.public),
                outbox=kept,
            )
    finally:
        kept.close()
