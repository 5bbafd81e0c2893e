# SPDX-License-Identifier: Apache-2.0
"""Contracts to start from: three texts with blanks, and how they are filled in.

- A template is a YAML text in this folder, written for people: each comment says why the term stands there,
  and what to raise later. Every term that it has runs in this version.
- Blanks are filled from three sides: parties (as enrolled), recipes (digest, fields and sampling are read
  from their bytes, so that nobody types them) and answers. Each blank has a rule of the contract language.
- `fill` takes answers by name and refuses what it does not know, in this order:
    1. a recipe for each place of the template, and no other; all with the same kind of privacy plan
    2. no answer without a blank
    3. every answer by the rule of its blank; the blank is named
    4. no blank without an answer, unless the template has a default; all that are missing are named
- The text that comes out is only text: whoever asked for it loads and lints it.

    filled = fill(
        TEMPLATES["anomaly"], contract_id=..., answers={"sign_by": "2026-11-30"}, parties=..., recipes=...
    )
    contract = load(filled.text)
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib.resources import files
from string import Template as Form
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from policies.contract.errors import AnswerError, UnansweredError
from policies.contract.templates.blanks import Blank, Outline, blanks_of, outline, plain_answers
from policies.contract.templates.blocks import (
    PartyRow,
    RecipeFacts,
    blocks,
    broker_org,
    prose_block,
    read_parties,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

__all__ = [
    "TEMPLATES",
    "Blank",
    "Filled",
    "Outline",
    "PartyRow",
    "RecipeFacts",
    "Template",
    "blanks_of",
    "broker_org",
    "check_recipes",
    "check_strangers",
    "fill",
    "outline",
    "plain_answers",
    "read_parties",
    "template_text",
]

_PLAN: Final = ("unit", "adjacency", "delta", "noise", "honest_min")


@dataclass(frozen=True, slots=True, kw_only=True)
class Template:
    """A text with blanks.

    Attributes:
        name: Of its file.
        about: For whom it is, in one line.
        purpose: Id of its one purpose.
        slots: Ids of its recipes.
        defaults: What a blank holds if nobody says otherwise; blanks that are not here must be answered.
    """

    name: str
    about: str
    purpose: str
    slots: tuple[str, ...]
    defaults: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Filled:
    """A filled template.

    Attributes:
        text: YAML.
        assumed: Blanks that nobody answered, with the default that they hold, as text.
    """

    text: str
    assumed: Mapping[str, str]


_COMMON: Final = {
    "language": "en",
    "update_norm_max": "10",
    "licence": "pool-internal-1",
    "open_licence": "Apache-2.0",
    "fee_eur_per_quarter": "0",
    "embargoed": "BY IR KP RU SY",
}


def _template(
    name: str, about: str, purpose: str, slots: tuple[str, ...], defaults: dict[str, str]
) -> Template:
    whole = MappingProxyType(_COMMON | defaults)
    return Template(name=name, about=about, purpose=purpose, slots=slots, defaults=whole)


TEMPLATES: Final[Mapping[str, Template]] = MappingProxyType(
    {
        one.name: one
        for one in (
            _template(
                "weld-pick",
                "four or more makers, two recipes: weld and pick",
                "improve-common-model",
                ("weld", "pick"),
                {
                    "title": "Weld & Pick common-model pool",
                    "purpose": "Train and evaluate the models named in recipes.",
                    "epsilon_per_release": "2",
                    "epsilon_total": "8",
                    "min_parties": "3",
                    "approvals": "3",
                },
            ),
            _template(
                "anomaly",
                "one recipe that detects anomalies, shared widely",
                "detect-anomalies",
                ("anomaly",),
                {
                    "title": "Anomaly detection pool",
                    "purpose": "Train and evaluate a model that detects anomalies and failures.",
                    "epsilon_per_release": "1",
                    "epsilon_total": "4",
                    "min_parties": "3",
                    "approvals": "3",
                },
            ),
            _template(
                "open-research",
                "makers together with universities, five groups or more",
                "open-research",
                ("common",),
                {
                    "title": "Open research pool",
                    "purpose": (
                        "Train and evaluate the model named in recipes and publish what was learned;"
                        " a publication is announced to all contributors 30 days before."
                    ),
                    "epsilon_per_release": "1",
                    "epsilon_total": "3",
                    "min_parties": "5",
                    "approvals": "5",
                },
            ),
        )
    }
)


def template_text(template: Template) -> str:
    """The template as it lies in the package, blanks and comments included."""
    return files("policies.contract.templates").joinpath(f"{template.name}.yaml").read_text("utf-8")


def fill(
    template: Template,
    *,
    contract_id: str,
    answers: Mapping[str, Any],
    parties: Sequence[PartyRow],
    recipes: Mapping[str, RecipeFacts],
    prose: bytes | None = None,
) -> Filled:
    """The template with all blanks filled in; the steps are those of the module.

    Args:
        template: One of `TEMPLATES`.
        contract_id: A fresh ``ctr_…``.
        answers: By name of the blank: text, or the YAML value. `plain_answers` flattens nested ones.
        parties: Everybody, the broker too.
        recipes: By the template's slot.
        prose: Bytes of the text for people, whose hash is bound; None if there is none.

    Raises:
        AnswerError: Steps 1 to 3; the blank is named.
        UnansweredError: Step 4.
    """
    # 1.
    check_recipes(template, recipes)
    # 2.
    blanks = {one.name: one for one in blanks_of(template.defaults, parties, recipes)}
    check_strangers(answers, blanks)
    # 3.
    given = {name: blanks[name].read(value) for name, value in answers.items()}
    # 4.
    missing = [one for one in blanks.values() if one.name not in given and one.default is None]
    if missing:
        raise UnansweredError(
            need="answers: " + ", ".join(one.needed for one in missing),
            found="none",
            remedy="name each with --set NAME=VALUE or in --answers FILE, or run it at a terminal",
        )
    assumed = {
        name: one.default for name, one in blanks.items() if name not in given and one.default is not None
    }
    values = given | {name: blanks[name].read(text) for name, text in assumed.items()}
    written = {name: blanks[name].written(value) for name, value in values.items() if "." not in name}
    text = Form(template_text(template)).substitute(
        written
        | blocks(values, parties, recipes, purpose=template.purpose)
        | {"contract_id": contract_id, "prose": prose_block(prose)}
    )
    return Filled(
        text=text, assumed={name: one for name, one in assumed.items() if _counts(name, one, values)}
    )


def _counts(name: str, default: str, values: Mapping[str, Any]) -> bool:
    """Whether a default says something: an empty list does not, nor the basis of secrets that nobody has."""
    kind, _, party = name.partition(".")
    return bool(default) and (kind != "basis" or bool(values[f"secret.{party}"]))


def check_strangers(answers: Iterable[str], blanks: Iterable[str]) -> None:
    """Returns if every answer has a blank.

    Raises:
        AnswerError: One has none; all are named, and all blanks.
    """
    strangers = sorted(set(answers) - set(blanks))
    if strangers:
        raise AnswerError(
            need="answers to blanks of the template: " + " ".join(blanks),
            found=" ".join(strangers),
            remedy="correct the name, or leave the answer out",
        )


def check_recipes(template: Template, recipes: Mapping[str, RecipeFacts]) -> None:
    """Returns if there is a recipe for each slot, all with the same kind of plan.

    Raises:
        AnswerError: A slot has none, or a term of two plans differs.
    """
    if set(recipes) != set(template.slots):
        raise AnswerError(
            need="one recipe for each of " + " ".join(template.slots),
            found=" ".join(recipes) or "none",
            remedy="name each with --recipe " + " --recipe ".join(f"{one}=FILE" for one in template.slots),
        )
    first = recipes[template.slots[0]]
    for slot, one in recipes.items():
        for term in _PLAN:
            want, found = getattr(first, term), getattr(one, term)
            if want != found:
                raise AnswerError(
                    need=f"recipe {slot}: {term} {want}, as recipe {template.slots[0]} has it",
                    found=str(found),
                    remedy="take recipes with the same kind of plan: the contract has one privacy clause",
                )
