# SPDX-License-Identifier: Apache-2.0
"""The blanks of a template: what each asks, by which rule its answer is read, how it is written into YAML.

- An answer is text (from a terminal or ``--set``) or a YAML value; both give the same value. A date without a
  time is its first second; a list may be written with blanks between its members.
- Some blanks exist once per recipe or party: ``max_rounds.weld``, ``dataset.weld.nord``, ``secret.nord``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from policies.contract.clauses import DatasetRef, FieldsClause, TierClause
from policies.contract.errors import AnswerError, ContractInvalidError
from policies.contract.grammar import At, Decimals, Integer, Prose, Rule, Set, Time, Word, rules_of

if TYPE_CHECKING:
    from policies.contract.templates.blocks import PartyRow, RecipeFacts

__all__ = ["Blank", "blanks_of", "plain_answers"]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_RUNS: Final = (
    4  # so many whole runs of a recipe fit into its bound of rounds, unless somebody says otherwise
)
_NOTHING: Final = ""  # the default of a list that may be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """One place to fill in.

    Attributes:
        name: Of the place.
        asks: The question for people.
        rule: Of the answer.
        default: As text; None if it must be answered.
    """

    name: str
    asks: str
    rule: Rule
    default: str | None

    def read(self, answer: Any) -> Any:  # noqa: ANN401  text or a YAML value; the rule's own type comes out
        """The value behind an answer; an empty answer is nothing where the default is nothing.

        Raises:
            AnswerError: The rule does not take it; the blank is named.
        """
        if self.default == _NOTHING and answer in ("", [], None):
            return () if isinstance(self.rule, Set) else None
        try:
            return self.rule.read(self.rule.normal(self._shaped(answer)), At(None, self.name))
        except ContractInvalidError as error:
            raise AnswerError(need=error.need, found=error.found, remedy="answer again") from error

    def _shaped(self, answer: Any) -> Any:  # noqa: ANN401  as in read
        if not isinstance(answer, str):
            return answer
        text = answer.strip()
        if isinstance(self.rule, Integer) and text.isascii() and text.isdigit():
            return int(text)
        if isinstance(self.rule, Set):
            return sorted(set(text.replace(",", " ").split()))
        if isinstance(self.rule, Time) and _DATE.fullmatch(text):
            return f"{text}T00:00:00Z"
        return text

    def written(self, value: Any) -> str:  # noqa: ANN401  what read returned
        """The value as YAML: text quoted, so that no reader takes it for something else."""
        if isinstance(value, tuple):
            return "[" + ", ".join(json.dumps(one) for one in value) + "]"
        return json.dumps(value, ensure_ascii=False)


def plain_answers(tree: Any) -> dict[str, Any]:  # noqa: ANN401  a YAML value
    """Answers by the name of their blank: ``{dataset: {weld: {nord: x}}}`` is ``dataset.weld.nord``.

    Raises:
        AnswerError: No mapping.
    """
    if not isinstance(tree, Mapping):
        raise AnswerError(
            need="a mapping of blanks to answers", found=type(tree).__name__, remedy="write NAME: VALUE lines"
        )
    found: dict[str, Any] = {}
    for name, value in tree.items():
        if isinstance(value, Mapping):
            found |= {f"{name}.{below}": one for below, one in plain_answers(value).items()}
        else:
            found[str(name)] = value
    return found


def blanks_of(
    defaults: Mapping[str, str], parties: Sequence[PartyRow], recipes: Mapping[str, RecipeFacts]
) -> tuple[Blank, ...]:
    """Every blank of a template for these parties and recipes, in the order in which they are asked."""
    common = tuple(
        Blank(name=name, asks=asks, rule=rule, default=defaults.get(name)) for name, asks, rule in _COMMON
    )
    names = [one.party for one in parties if one.role == "contributor"]
    return (*common, *_of_recipes(names, recipes), *_of_parties(names))


def _of_recipes(names: Sequence[str], recipes: Mapping[str, RecipeFacts]) -> list[Blank]:
    found = []
    for slot, one in recipes.items():
        found.append(
            Blank(
                name=f"max_rounds.{slot}",
                asks=f"How many rounds may {slot} run, all runs together?",
                rule=Integer(1),
                default=str(_RUNS * one.rounds),
            )
        )
        found += [
            Blank(
                name=f"dataset.{slot}.{party}",
                asks=f"Which data set of {party} does {slot} read?",
                rule=rules_of(DatasetRef)["dataset"],
                default=f"{party}/{slot}",
            )
            for party in names
        ]
    return found


def _of_parties(names: Sequence[str]) -> list[Blank]:
    found = []
    for party in names:
        secret = Blank(
            name=f"secret.{party}",
            asks=f"Trade secrets of {party}: names of fields, blanks between them",
            rule=rules_of(FieldsClause)["allow"],
            default=_NOTHING,
        )
        basis = Blank(
            name=f"basis.{party}",
            asks=f"On which basis are they secrets of {party}?",
            rule=_LINE,
            default=f"declared a trade secret by {party}",
        )
        cap = Blank(
            name=f"cap.{party}",
            asks=f"A tighter epsilon_total of {party}, if it wants one",
            rule=Decimals(),
            default=_NOTHING,
        )
        found += [secret, basis, cap]
    return found


_LINE: Final = Prose(200)
_COUNTRY: Final = Word(r"[A-Z]{2}")
_COMMON: Final[tuple[tuple[str, str, Rule], ...]] = (
    ("title", "Title of the contract", _LINE),
    ("language", "Language of the contract (two letters)", Word(r"[a-z]{2}")),
    ("purpose", "What are the models trained for?", Prose()),
    ("sign_by", "Until when must everybody have signed? (a date)", Time()),
    ("effective", "From when does it hold? (a date)", Time()),
    ("expires", "Until when does it hold? (a date)", Time()),
    ("epsilon_per_release", "epsilon for each release", Decimals()),
    ("epsilon_total", "epsilon over the whole term, for each contributor", Decimals()),
    ("min_parties", "How many independent groups at least?", Integer(2, 64)),
    ("update_norm_max", "Largest norm of an update", Decimals()),
    ("approvals", "How many groups must approve a release?", Integer(1, 64)),
    ("licence", "Licence inside the pool", rules_of(TierClause)["licence"]),
    ("open_licence", "Licence of open models", rules_of(TierClause)["licence"]),
    ("fee_eur_per_quarter", "What does each group pay the broker, EUR a quarter?", Integer(0)),
    ("liability_cap_eur", "Up to which sum does each party answer, EUR?", Integer(0)),
    ("embargoed", "Countries that no model is delivered to (two letters each)", Set(_COUNTRY)),
    ("governing", "Which country's law governs? (two letters)", _COUNTRY),
    ("forum", "Where are disputes settled?", _LINE),
    (
        "log_origin",
        "Origin of the broker's log",
        Word(r"[A-Za-z0-9._:\[\]-]{1,128}(/[A-Za-z0-9._-]{1,64}){0,8}"),
    ),
)
