# SPDX-License-Identifier: Apache-2.0
"""What ``iriai-broker contract new`` does: a contract from a template, the members, recipes and answers.

1. the template, and a recipe for each of its slots (their bytes are read, nothing is typed);
2. the answers that were written down;
3. the parties: from a file, or the broker's active members and the broker itself;
4. what is still blank: asked at a terminal, named on standard error without one;
5. the text is filled in, loaded and linted: what has an error is not handed out. A recipe of which no whole
   run fits under the caps is named.

`contract_outline` tells the slots and the blanks of a template, without any of these.

Nothing is stored and nobody is told: the text is offered with ``iriai-broker contract offer``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from broker.answers import Result, plain, table
from broker.clock import SystemClock
from broker.commands.contract_files import finding_lines, read_text, room_lines, too_late_lines
from broker.commands.draft_sources import BROKER_BLANKS, enrolled, read_recipes, with_broker
from broker.contracts.errors import LintError
from broker.entropy import SystemEntropy
from broker.errors import UsageError
from policies.contract import load
from policies.contract.errors import UnansweredError
from policies.contract.lint import lint
from policies.contract.source import read_yaml
from policies.contract.templates import (
    TEMPLATES,
    Blank,
    Outline,
    Template,
    blanks_of,
    check_recipes,
    check_strangers,
    fill,
    outline,
    plain_answers,
    read_parties,
)
from policies.encoding import new_id
from policies.robustness.whole_runs import runs_without_room

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from pathlib import Path

    from broker.commands import Where
    from policies.ports import Clock, Entropy

__all__ = ["Ask", "Draft", "contract_new", "contract_outline"]

Ask = Callable[[Blank], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Draft:
    """What a contract is made from.

    Attributes:
        template: Its name.
        answers: A YAML file of answers.
        sets: ``NAME=VALUE``; they win over the file.
        parties: A YAML file of parties; without it, the broker's active members.
        members: Organisations or groups to take of the members; all if empty.
        recipes: ``SLOT=FILE``, or files in the order of the template's slots.
        prose: The text for people, whose hash is bound; there is none without it.
        out: Where the text goes; standard output without it.
    """

    template: str
    answers: Path | None
    sets: tuple[str, ...]
    parties: Path | None
    members: tuple[str, ...]
    recipes: tuple[str, ...]
    out: Path | None
    prose: Path | None = None


def contract_new(
    where: Where,
    draft: Draft,
    ask: Ask | None,
    *,
    entropy: Entropy | None = None,
    clock: Clock | None = None,
) -> Result:
    """Makes the text of a contract; the steps are those of the module.

    Args:
        where: The broker whose members are taken; not asked if the draft names a file of parties.
        draft: What it is made from.
        ask: Asks a person for a blank; None without a terminal.
        entropy: Makes the contract's id.
        clock: Tells whether anybody could still sign.

    Raises:
        UsageError: No such template, or a ``--set``, ``--recipe`` or ``--member`` that is not one; the file
            exists.
        AnswerError: A slot without a recipe, or an answer that its blank does not take; the blank is named.
        UnansweredError: Blanks without an answer; each is named.
        ContractError: What was filled in contradicts itself; the clause is named.
        LintError: A term that no pool should have.
    """
    # 1.
    template = _template(draft.template)
    if draft.out is not None and draft.out.exists():
        raise UsageError(need=f"no file at {draft.out}", found="one", remedy="name a new file")
    recipes = read_recipes(template, draft.recipes)
    check_recipes(template, recipes)
    prose = None if draft.prose is None else draft.prose.read_bytes()
    # 2.
    answers = _answers(draft)
    # 3.
    known: dict[str, Any] = {}
    if draft.parties is not None and draft.members:
        raise UsageError(
            need="--parties or --member",
            found="both",
            remedy="--member chooses of the broker's members: leave it out, or leave out --parties",
        )
    if draft.parties is not None:
        parties = read_parties(read_yaml(read_text(draft.parties)))
    else:
        parties, known = enrolled(where, draft.members)
    # 4.
    blanks = blanks_of(template.defaults, parties, recipes)
    own = () if draft.parties is not None else BROKER_BLANKS
    answers = _answered((*own, *blanks), known | answers, ask)
    broker = {one.name: one.read(answers.pop(one.name)) for one in own}
    if broker:
        parties = with_broker(parties, broker["broker_name"], broker["broker_country"])
    # 5.
    contract_id = new_id("ctr", (entropy or SystemEntropy()).token_bytes(10))
    filled = fill(
        template, contract_id=contract_id, answers=answers, parties=parties, recipes=recipes, prose=prose
    )
    contract = load(filled.text)
    findings = lint(contract)
    if any(one.severity == "error" for one in findings):
        raise _lint_error(findings)
    if draft.out is not None:
        draft.out.write_text(filled.text, "utf-8")
    without = runs_without_room(contract, {one.digest: one.plan for one in recipes.values()})
    text = (
        f"contract     {contract.contract_id} from {template.name}: {plain(contract.title)}",
        f"digest       {contract.digest} (it changes with every change of a term)",
        *_completed(blanks, answers),
        *(f"assumed      {name} = {plain(value) or 'nothing'}" for name, value in filled.assumed.items()),
        *finding_lines(findings),
        *room_lines(without),
        *too_late_lines(contract, clock or SystemClock()),
        "next: iriai-broker contract offer "
        + " --recipe ".join([str(draft.out or "FILE"), *["FILE"] * len(template.slots)])
        + ("" if draft.prose is None else f" --prose {draft.prose}"),
    )
    data = {
        "contract_id": contract.contract_id,
        "digest": contract.digest,
        "template": template.name,
        "text": filled.text,
        "file": None if draft.out is None else str(draft.out),
        "assumed": dict(filled.assumed),
        "findings": [one.to_json() for one in findings],
        "without_room": [asdict(one) for one in without],
    }
    return Result(data=data, text=text, plain_output=None if draft.out else filled.text.rstrip("\n"))


def contract_outline(name: str) -> Result:
    """The recipes that a template needs, and every blank that it has.

    Raises:
        UsageError: No such template.
    """
    template = _template(name)
    own = [Outline(name=one.name, asks=one.asks, default=one.default) for one in BROKER_BLANKS]
    blanks = [*own, *outline(template.defaults, template.slots)]
    rows = [
        (one.name, "must be answered" if one.default is None else one.default or "nothing", one.asks)
        for one in blanks
    ]
    text = (
        f"{template.name}: {template.about}",
        "recipes: " + " ".join(f"--recipe {slot}=FILE" for slot in template.slots),
        "",
        *table(("BLANK", "DEFAULT", "ASKS"), rows, empty="none"),
        "",
        "broker_name and broker_country stand in the file where --parties FILE is given; log_origin is taken",
        "from the broker where it is not. A default epsilon that is less than what a recipe spends is none.",
    )
    data = {
        "template": template.name,
        "about": template.about,
        "slots": list(template.slots),
        "blanks": [{"name": one.name, "asks": one.asks, "default": one.default} for one in blanks],
    }
    return Result(data=data, text=text)


def _completed(blanks: Iterable[Blank], answers: Mapping[str, Any]) -> Iterator[str]:
    """Dates that were given without a time: which second they became."""
    for one in blanks:
        whole = one.completed(answers[one.name]) if one.name in answers else None
        if whole is not None:
            yield f"taken        {one.name} = {whole}: a date alone is its first second, in UTC"


def _template(name: str) -> Template:
    if name not in TEMPLATES:
        raise UsageError(
            need="a template: " + "; ".join(f"{one.name} ({one.about})" for one in TEMPLATES.values()),
            found=name,
            remedy="name one of them with --template",
        )
    return TEMPLATES[name]


def _lint_error(findings: Iterable[Any]) -> LintError:
    first, *others = [one for one in findings if one.severity == "error"]
    also = f"; also {', '.join(one.id for one in others)}" if others else ""
    return LintError(
        clause=first.clause,
        need=f"{first.rule}: {first.need}",
        found=f"{first.found}{also}",
        remedy=first.remedy,
    )


# --- answers ---


def _answers(draft: Draft) -> dict[str, Any]:
    found = {} if draft.answers is None else plain_answers(read_yaml(read_text(draft.answers)))
    for one in draft.sets:
        name, equals, value = one.partition("=")
        if not equals or not name:
            raise UsageError(need="--set NAME=VALUE", found=one, remedy="write the name, =, and the value")
        found[name] = value
    return found


def _answered(blanks: Sequence[Blank], given: Mapping[str, Any], ask: Ask | None) -> dict[str, Any]:
    """The answers, with those that a person gave to blanks that had none.

    Raises:
        AnswerError: A given one is not an answer.
        UnansweredError: Nobody can be asked.
    """
    by_name = {one.name: one for one in blanks}
    check_strangers(given, by_name)
    for name, answer in given.items():
        by_name[name].read(answer)
    missing = [one for one in blanks if one.name not in given and one.default is None]
    if missing and ask is None:
        raise UnansweredError(
            need="answers: " + ", ".join(one.needed for one in missing),
            found="none",
            remedy="name each with --set NAME=VALUE or in --answers FILE, or run it at a terminal;"
            " --list tells every blank",
        )
    asked = {one.name: ask(one) for one in missing} if ask is not None else {}
    return dict(given) | asked
