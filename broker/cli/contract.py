# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker contract``: draft, check, offer, watch and end contracts."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import Clause, Lang, Text, command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where
    from policies.contract.templates import Blank

__all__ = ["contract"]

contract = typer_group("Contracts: draft, check, offer, watch.")

_TEMPLATES = "weld-pick (recipes weld, pick), anomaly (anomaly) or open-research (common)."


@command(contract, "new")
def contract_new(
    *,
    template: Annotated[str, typer.Option("--template", help=_TEMPLATES)],
    outline: Annotated[
        bool, typer.Option("--list", help="Only tell the template's recipes and blanks; nothing is made.")
    ] = False,
    recipes: Annotated[
        list[str] | None,
        typer.Option("--recipe", help="SLOT=FILE, bytes of a recipe; one for each slot of the template."),
    ] = None,
    parties: Annotated[
        Path | None, typer.Option("--parties", help="YAML list of parties; else the broker's members.")
    ] = None,
    members: Annotated[
        list[str] | None,
        typer.Option("--member", help="Organisation or group of a member, repeatable; else all active ones."),
    ] = None,
    answers: Annotated[Path | None, typer.Option("--answers", help="YAML file of answers.")] = None,
    sets: Annotated[
        list[str] | None, typer.Option("--set", help="NAME=VALUE, an answer; repeatable.")
    ] = None,
    prose: Annotated[
        Path | None, typer.Option("--prose", help="The text for people (PDF or text); its hash is bound.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", help="New file for the text; else stdout.")] = None,
    where: Where,
    as_json: bool,
) -> Result:
    """Drafts a contract from a template; asks for what is still blank."""
    from broker.commands.drafting import Draft, contract_outline
    from broker.commands.drafting import contract_new as work

    if outline:
        return contract_outline(template)
    draft = Draft(
        template=template,
        answers=answers,
        sets=tuple(sets or ()),
        parties=parties,
        members=tuple(members or ()),
        recipes=tuple(recipes or ()),
        out=out,
        prose=prose,
    )
    at_terminal = sys.stdin.isatty() and not as_json
    return work(where, draft, _ask if at_terminal else None)


def _ask(blank: Blank) -> str:
    """The answer of a person; asked again until the blank takes it."""
    from policies.contract.errors import AnswerError

    def checked(text: str) -> str:
        try:
            blank.read(text)
        except AnswerError as error:
            raise typer.BadParameter(f"needs {error.need}") from error
        return text

    answer: str = typer.prompt(f"{blank.question} [{blank.name}]", err=True, value_proc=checked)
    return answer


@command(contract, "lint")
def contract_lint(
    file: Path,
    *,
    recipes: Annotated[
        list[Path] | None,
        typer.Option("--recipe", help="Bytes of a recipe, repeatable: does one whole run fit?"),
    ] = None,
    lang: Lang = "en",
) -> Result:
    """Checks the text of a contract: what no pool should sign, and what its signers should know."""
    from broker.commands.contract_files import contract_lint as work

    return work(file, recipes=recipes or (), lang=lang)


@command(contract, "schema")
def contract_schema() -> Result:
    """Prints the JSON Schema of the contract language."""
    from broker.commands.contract_files import contract_schema as work

    return work()


@command(
    contract, "offer", effect="the text in {file} is offered to its parties, who may sign it from then on"
)
def contract_offer(
    file: Path,
    recipes: Annotated[
        list[Path] | None, typer.Option("--recipe", help="Bytes of a recipe, repeatable.")
    ] = None,
    *,
    annexes: Annotated[
        list[Path] | None,
        typer.Option("--annex", help="A seed set, consent or start model that it names; repeatable."),
    ] = None,
    prose: Annotated[
        Path | None, typer.Option("--prose", help="The text for people, as the contract's hash binds it.")
    ] = None,
    where: Where,
) -> Result:
    """Offers a contract (YAML or canonical JSON) with its recipes to its parties."""
    from broker.commands import contract as commands_contract

    return commands_contract.contract_offer(where, file, recipes or [], annexes=annexes or (), prose=prose)


@command(contract, "withdraw", effect="the round of negotiation {name} ends for all its parties", asks=True)
def contract_withdraw(
    name: Annotated[
        str, typer.Argument(help="Id of the negotiation, or the digest of its open text (12 hex digits do).")
    ],
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code, like text.mistaken.")],
    clause: Clause = None,
    text: Text = None,
    where: Where,
) -> Result:
    """Ends the round of a negotiation for all, with a reason; what is final stays final."""
    from broker.commands import contract as commands_contract

    return commands_contract.contract_withdraw(where, name, reason=reason, clause=clause, text=text)


@command(contract, "list")
def contract_list(where: Where) -> Result:
    """Lists contracts, where each stands, every lane of what is open, and who is waited for."""
    from broker.commands import contract as commands_contract

    return commands_contract.contract_list(where)


@command(contract, "show")
def contract_show(
    contract: Annotated[
        str, typer.Argument(help="Digest of a contract (12 hex digits do), or a file (no broker is asked).")
    ],
    *,
    lang: Lang = "en",
    where: Where,
) -> Result:
    """Shows a contract in plain words, in English or Japanese; its lanes, and where it stands."""
    from broker.commands import contract as commands_contract
    from broker.commands.contract_files import contract_show_file

    if not contract.startswith("sha256:") and Path(contract).is_file():
        return contract_show_file(Path(contract), lang=lang)
    return commands_contract.contract_show(where, contract, lang=lang)
