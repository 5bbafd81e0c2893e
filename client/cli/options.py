# SPDX-License-Identifier: Apache-2.0
"""What the commands of ``iriai-node`` share: their options, how they ask and end, what they work on.

A command is a function that takes what it needs and returns an `Answer`; `command` puts it on the line:

    @command(receipts, "export")
    def receipts_export(*, out: Annotated[Path, typer.Option("--out", help="Folder.")], one: Open) -> Answer:
        '''Writes every receipt as a file.'''
        from client import releases

        return releases.receipts_export(one.outbox, out)

- Its own parameters are read as Typer reads any command's; the order of the options is theirs.
- A parameter ``one`` or ``home`` stands for ``--dir``, in its place: the node of that folder, opened for as
  long as the command runs, or the folder alone, which may hold no node.
- Every command ends with ``--json``.
- The function runs inside `finish`: what it returns is printed, and so is the refusal that it raises.
"""

from __future__ import annotations

import inspect
import sys
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer
import typer.core

from client.answers import Answer, finish, plain
from client.clock import SystemClock
from client.entropy import SystemEntropy
from client.settings import Home

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    import click

    from client.contract.shelf import ContractShelf
    from client.membership import Member
    from client.outbox import Outbox
    from policies.contract.lint import LintFinding

__all__ = [
    "FOLDER",
    "All",
    "Clause",
    "Dir",
    "Every",
    "Lang",
    "Language",
    "Open",
    "Reader",
    "Text",
    "Yes",
    "accept",
    "ask",
    "command",
    "end",
    "group",
    "opened",
    "retype",
    "tell",
]

FOLDER = Path("iriai-node")

Dir = Annotated[Path, typer.Option("--dir", envvar="IRIAI_NODE_DIR", help="The node's folder.")]
Json = Annotated[bool, typer.Option("--json", help="One JSON envelope on standard output.")]
Yes = Annotated[bool, typer.Option("--yes", help="The question was answered before: no prompt.")]
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


Lang = Annotated[Language, typer.Option("--lang", help="Language of the words.")]


class _Command(typer.core.TyperCommand):
    """A command whose help shows brackets as they are: Typer escapes them for a printer that is off here."""

    def get_help(self, ctx: click.Context) -> str:
        """Text of ``--help``."""
        return super().get_help(ctx).replace("\\[", "[")


def group(words: str) -> typer.Typer:
    """A group of commands."""
    return typer.Typer(
        help=words,
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
    )


def end(work: Callable[[], Answer], *, as_json: bool) -> NoReturn:
    """Runs a command to its exit code."""
    raise typer.Exit(finish(work, as_json=as_json))


def command(group: typer.Typer, name: str, *, takes_minus: bool = False) -> Callable[[Body], Body]:
    """Makes a function a command of a group, as the module says; the function itself stays as it is.

    With ``takes_minus`` an argument may begin with a minus, as numbers do: what is no option is an argument.
    """

    def register(body: Body) -> Body:
        # these three are known here; a command's module may import them for the type checker alone
        known = {"Answer": Answer, "Home": Home, "Open": Open}
        own = inspect.signature(body, eval_str=True, locals=known).parameters

        def entry(*, as_json: bool, **given: Any) -> None:  # noqa: ANN401  what the line says
            end(lambda: _in_its_place(body, own, given), as_json=as_json)

        vars(entry)["__signature__"] = _signature(own)  # what Typer reads instead
        settings = {"ignore_unknown_options": takes_minus}
        group.command(name, help=body.__doc__, cls=_Command, context_settings=settings)(entry)
        return body

    return register


def _in_its_place(
    body: Callable[..., Answer], own: Mapping[str, inspect.Parameter], given: dict[str, Any]
) -> Answer:
    """Runs a command on the node, or the folder, that it asks for."""
    if "one" in own:
        with opened(given.pop("folder")) as one:
            return body(one=one, **given)
    if "home" in own:
        return body(home=Home(given.pop("folder")), **given)
    return body(**given)


def _signature(own: Mapping[str, inspect.Parameter]) -> inspect.Signature:
    """What the line takes for a function with these parameters; all by keyword, as Typer gives them."""
    by_name = inspect.Parameter.KEYWORD_ONLY
    folder = inspect.Parameter("folder", by_name, default=FOLDER, annotation=Dir)
    as_json = inspect.Parameter("as_json", by_name, default=False, annotation=Json)
    taken = [folder if name in {"one", "home"} else one.replace(kind=by_name) for name, one in own.items()]
    return inspect.Signature([*taken, as_json])


def ask(question: str, *, yes: bool, prompt: str = "Is it the same?") -> Callable[[str], bool]:
    """Shows something to a person and takes yes or no; without a terminal the answer is no."""

    def confirm(shown: str) -> bool:
        print(f"{question}\n\n    {shown}\n", file=sys.stderr)  # noqa: T201  the question
        if yes:
            return True
        return sys.stdin.isatty() and typer.confirm(prompt, err=True)

    return confirm


def retype(question: str, *, yes: bool) -> Callable[[str], bool]:
    """Has a person type the first hex digits of a digest; without a terminal the answer is no."""

    def confirm(shown: str) -> bool:
        print(f"{question}\n\n    {shown}\n", file=sys.stderr)  # noqa: T201  the question
        if yes:
            return True
        if not sys.stdin.isatty():
            return False
        typed: str = typer.prompt(
            f"Type these {len(shown)} digits, or nothing to stop", default="", show_default=False, err=True
        )
        return typed.strip().lower() == shown

    return confirm


def accept(*, everything: bool, lang: str) -> Callable[[LintFinding], bool]:
    """Shows a warning and takes whether a person accepts it; without a terminal only if all are."""

    def acknowledge(finding: LintFinding) -> bool:
        from policies.contract.lint import finding_words

        need, found, remedy = finding_words(finding, lang)
        tell((f"warning   {finding.id}", f"  need    {need}", f"  found   {found}", f"  remedy  {remedy}"))
        if everything:
            return True
        return sys.stdin.isatty() and typer.confirm("Do you accept this?", err=True)

    return acknowledge


def tell(lines: Iterable[str]) -> None:
    """Text for people, on standard error; what other parties wrote cannot move the cursor."""
    for line in lines:
        print(plain(line), file=sys.stderr)  # noqa: T201  the text of a question


@dataclass(frozen=True, slots=True, kw_only=True)
class Open:
    """What most commands work on."""

    home: Home
    member: Member
    shelf: ContractShelf
    outbox: Outbox


@contextmanager
def opened(folder: Path) -> Iterator[Open]:
    """Opens what most commands work on, and closes it."""
    from client.contract.shelf import ContractShelf
    from client.membership import open_member
    from client.outbox import Outbox

    home, clock, entropy = Home(folder), SystemClock(), SystemEntropy()
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
