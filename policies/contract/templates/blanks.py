# SPDX-License-Identifier: Apache-2.0
"""The blanks of a template: what each asks, by which rule its answer is read, how it is written into YAML.

- An answer is text (from a terminal or ``--set``) or a YAML value; both give the same value. A date without a
  time is its first second; a list may be written with blanks between its members.
- Some blanks exist once per recipe or party: ``max_rounds.weld``, ``dataset.weld.nord``, ``secret.nord``.
- An epsilon has a least value, what one whole run of the dearest recipe spends: a default below it is none,
  so the blank must be answered, and no answer below it is taken.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from policies.contract.clauses import DatasetRef, FieldsClause, TierClause
from policies.contract.errors import AnswerError, ContractInvalidError
from policies.contract.grammar import At, Decimals, Integer, Prose, Rule, Set, Time, Word, rules_of

if TYPE_CHECKING:
    from policies.contract.templates.blocks import PartyRow, RecipeFacts

__all__ = ["Blank", "Outline", "blanks_of", "outline", "plain_answers"]

_DATE: Final = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_RUNS: Final = (
    4  # so many whole runs of a recipe fit into its bound of rounds, unless somebody says otherwise
)
_NOTHING: Final = ""  # the default of a list that may be empty


@dataclass(frozen=True, slots=True, kw_only=True)
class Least:
    """The least number that makes sense in a blank: what a recipe's plan spends in one whole run."""

    figure: str
    recipe: str

    @property
    def words(self) -> str:
        """For people."""
        return f"at least {self.figure}, which the plan of recipe {self.recipe} spends"


@dataclass(frozen=True, slots=True, kw_only=True)
class Blank:
    """One place to fill in.

    Attributes:
        name: Of the place.
        asks: The question for people.
        rule: Of the answer.
        default: As text; None if it must be answered.
        least: The least answer, of a blank that has one.
    """

    name: str
    asks: str
    rule: Rule
    default: str | None
    least: Least | None = None

    @property
    def needed(self) -> str:
        """The name, with what an answer must at least be."""
        return self.name if self.least is None else f"{self.name} ({self.least.words})"

    @property
    def question(self) -> str:
        """What it asks, with what an answer must at least be."""
        return self.asks if self.least is None else f"{self.asks}, {self.least.words}"

    def read(self, answer: Any) -> Any:  # noqa: ANN401  text or a YAML value; the rule's own type comes out
        """The value behind an answer; an empty answer is nothing where the default is nothing.

        Raises:
            AnswerError: The rule does not take it; the blank is named.
        """
        if self.default == _NOTHING and answer in ("", [], None):
            return () if isinstance(self.rule, Set) else None
        try:
            value = self.rule.read(self.rule.normal(self._shaped(answer)), At(None, self.name))
        except ContractInvalidError as error:
            raise AnswerError(need=error.need, found=error.found, remedy="answer again") from error
        if self.least is not None and Decimal(value) < Decimal(self.least.figure):
            raise AnswerError(
                need=f"{self.name}: {self.least.words}",
                found=value,
                remedy=f"choose a recipe with a cheaper plan, or agree on a larger {self.name}",
            )
        return value

    def completed(self, answer: Any) -> str | None:  # noqa: ANN401  as in read
        """The whole time behind an answer that is a date alone; None for every other answer."""
        alone = isinstance(self.rule, Time) and isinstance(answer, str) and _DATE.fullmatch(answer.strip())
        return str(self.read(answer)) if alone else None

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
    common = tuple(_common(defaults, _least(recipes)))
    names = [one.party for one in parties if one.role == "contributor"]
    return (*common, *_of_recipes(names, recipes), *_of_parties(names))


def _least(recipes: Mapping[str, RecipeFacts]) -> Least | None:
    """What the dearest recipe spends."""
    if not recipes:
        return None
    slot, one = max(recipes.items(), key=lambda item: Decimal(item[1].epsilon))
    return Least(figure=one.epsilon, recipe=slot)


def _common(defaults: Mapping[str, str], least: Least | None) -> Iterator[Blank]:
    """The blanks that each template has once."""
    for name, asks, rule in _COMMON:
        default = defaults.get(name)
        if least is None or name not in _EPSILONS:
            yield Blank(name=name, asks=asks, rule=rule, default=default)
            continue
        enough = default is not None and Decimal(default) >= Decimal(least.figure)
        yield Blank(name=name, asks=asks, rule=rule, default=default if enough else None, least=least)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A blank as it can be told before parties and recipes are known."""

    name: str
    asks: str
    default: str | None


def outline(defaults: Mapping[str, str], slots: Sequence[str]) -> tuple[Outline, ...]:
    """Every blank of a template, ``PARTY`` in the place of each contributor's short name."""
    found = [Outline(name=one.name, asks=one.asks, default=one.default) for one in _common(defaults, None)]
    for slot in slots:
        found += [
            Outline(name=f"max_rounds.{slot}", asks=_ROUNDS.format(slot=slot), default=f"{_RUNS} whole runs"),
            Outline(
                name=f"dataset.{slot}.PARTY",
                asks=_DATASET.format(party="PARTY", slot=slot),
                default=f"PARTY/{slot}",
            ),
        ]
    return (
        *found,
        *(Outline(name=one.name, asks=one.asks, default=one.default) for one in _of_parties(["PARTY"])),
    )


def _of_recipes(names: Sequence[str], recipes: Mapping[str, RecipeFacts]) -> list[Blank]:
    found = []
    for slot, one in recipes.items():
        found.append(
            Blank(
                name=f"max_rounds.{slot}",
                asks=_ROUNDS.format(slot=slot),
                rule=Integer(1),
                default=str(_RUNS * one.rounds),
            )
        )
        found += [
            Blank(
                name=f"dataset.{slot}.{party}",
                asks=_DATASET.format(party=party, slot=slot),
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


_EPSILONS: Final = frozenset({"epsilon_per_release", "epsilon_total"})
_ROUNDS: Final = "How many rounds may {slot} run, all runs together?"
_DATASET: Final = "Which data set of {party} does {slot} read?"
_LINE: Final = Prose(200)
_COUNTRY: Final = Word(r"[A-Z]{2}")
_COMMON: Final[tuple[tuple[str, str, Rule], ...]] = (
    ("title", "Title of the contract", _LINE),
    ("language", "Language of the contract (two letters)", Word(r"[a-z]{2}")),
    ("purpose", "What are the models trained for?", Prose()),
    ("sign_by", "Until when must everybody have signed? (YYYY-MM-DDTHH:MM:SSZ, UTC)", Time()),
    ("effective", "From when does it hold? (YYYY-MM-DDTHH:MM:SSZ, UTC)", Time()),
    ("expires", "Until when does it hold? (YYYY-MM-DDTHH:MM:SSZ, UTC)", Time()),
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
