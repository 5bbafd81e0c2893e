# SPDX-License-Identifier: Apache-2.0
"""Contract and decisions in plain words, English or Japanese. Each sentence has its clause id and its label.

- Software never obeys these sentences: it obeys the canonical bytes. Every field of the document is in some
  sentence of both languages (a test changes each).
- A clause is *enforced* (code refuses at the named points), *enforced in part* (the rest is for people and
  courts), or *law only*; law-only clauses come last and say so in every sentence. The label is derived from
  what was signed with the clause, ``enforced_by``.
- One party is shown its own duties first: its entry, its caps and secrets, then the clauses about its data.

    head_words(contract, lang="ja")            the document: id, version, until when it must be signed
    plain_words(contract, "nord", lang="ja")   pairs of clause id and sentence
    explain(decision, request, lang="ja")      a decision
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.contract.clauses import FieldsClause, PrivacyClause, RecipeClause, SeedClause
from policies.contract.coherence import owner_of
from policies.contract.registry import LAW
from policies.contract.words import english as words_en
from policies.contract.words import japanese as words_ja
from policies.contract.words.remedies import remedy_text
from policies.contract.words.sentences import Count, Named, Say, Term, about_the_contract, sentences
from policies.contract.words.values_japanese import in_japanese

if TYPE_CHECKING:
    from types import ModuleType

    from policies.contract.clauses import Clause, Contract
    from policies.contract.decision import Decision
    from policies.contract.requests import Request

__all__ = [
    "ENFORCED",
    "IN_PART",
    "LANGUAGES",
    "LAW_ONLY",
    "Enforcement",
    "enforcement_map",
    "explain",
    "head_words",
    "label_words",
    "plain_words",
    "remedy_text",
    "value_words",
]

LANGUAGES: Final = ("en", "ja")
ENFORCED: Final = "enforced"
IN_PART: Final = "enforced in part"
LAW_ONLY: Final = "law only"


@dataclass(frozen=True, slots=True, kw_only=True)
class Enforcement:
    """Where a clause is enforced.

    Attributes:
        clause: Its id.
        kind: Its kind.
        points: Points where code can refuse by it, sorted.
        label: ``enforced``, ``enforced in part`` or ``law only``, whatever the reader's language.
    """

    clause: str
    kind: str
    points: tuple[str, ...]
    label: str


def enforcement_map(contract: Contract) -> tuple[Enforcement, ...]:
    """For each clause, where code refuses by it and what is left to people, in document order."""
    return tuple(_enforcement(clause) for clause in contract.clauses())


def label_words(enforcement: Enforcement, lang: str = "en") -> str:
    """The label of a clause for people, with the points where code refuses."""
    words = _words(lang)
    points = words.JOINER.join(words.POINTS[one] for one in enforcement.points)
    label: str = words.LABELS[enforcement.label]
    return label.format(points=points)


def head_words(contract: Contract, lang: str = "en") -> list[str]:
    """What the document says outside all clauses: id, title, version, until when it must be signed."""
    return [_spoken(say, lang) for say in about_the_contract(contract)]


def plain_words(contract: Contract, party: str | None = None, lang: str = "en") -> list[tuple[str, str]]:
    """The clauses as sentences, each with its clause id.

    Args:
        contract: To describe.
        party: Short name; what belongs to this party comes first.
        lang: ``en`` or ``ja``.

    Returns:
        Pairs of clause id and sentence, law-only clauses last. A clause's last sentence ends in its label in
        square brackets; of a law-only clause, every sentence does.
    """
    clauses = sorted(contract.clauses(), key=lambda one: _place(contract, one, party))  # stable
    return [(clause.clause, line) for clause in clauses for line in _lines(contract, clause, lang)]


def explain(decision: Decision, request: Request, lang: str = "en") -> list[str]:
    """A decision for people: one line if allowed, one line per refusing finding if not."""
    words = _words(lang)
    what = f"{decision.request_type} {request.party or words.NOBODY}"
    if decision.allow:
        return [words.ALLOWED.format(what=what, count=len(decision.findings))]
    return [
        words.REFUSED.format(
            what=what,
            clause=one.clause,
            check=one.check,
            need=value_words(one.need, lang),
            found=value_words(one.found, lang),
            remedy=remedy_text(one.remedy, lang),
        )
        for one in decision.refusals
    ]


def value_words(text: str, lang: str = "en") -> str:
    """A finding's ``need`` or ``found`` for people; records keep the English one."""
    return in_japanese(text) if lang == "ja" else text


def _enforcement(clause: Clause) -> Enforcement:
    points = tuple(one for one in clause.enforced_by if one != LAW)
    label = LAW_ONLY if not points else IN_PART if LAW in clause.enforced_by else ENFORCED
    return Enforcement(clause=clause.clause, kind=clause.KIND, points=points, label=label)


def _place(contract: Contract, clause: Clause, party: str | None) -> tuple[bool, int]:
    return _enforcement(clause).label == LAW_ONLY, _distance(contract, clause, party)


def _distance(contract: Contract, clause: Clause, party: str | None) -> int:
    """0 for a party's own clauses, 1 for those that govern its data, 2 for the rest."""
    if party is None:
        return 0
    if owner_of(contract, clause.clause) == party:
        return 0
    if isinstance(clause, RecipeClause):
        return 1 if party in clause.participants else 2
    if isinstance(clause, SeedClause):
        return 1 if party in {one.party for one in clause.donations} else 2
    return 1 if isinstance(clause, FieldsClause | PrivacyClause) else 2


def _lines(contract: Contract, clause: Clause, lang: str) -> list[str]:
    lines = [_spoken(say, lang) for say in sentences(contract, clause)]
    enforcement = _enforcement(clause)
    label = f" [{label_words(enforcement, lang)}]"
    if enforcement.label == LAW_ONLY:
        return [line + label for line in lines]
    return [*lines[:-1], lines[-1] + label]


# --- a sentence in a language ---


def _words(lang: str) -> ModuleType:
    return words_ja if lang == "ja" else words_en


def _spoken(say: Say, lang: str) -> str:
    words = _words(lang)
    template: str = words.SENTENCES[say.key]
    return template.format(**{name: _value(value, words) for name, value in say.values.items()})


def _value(value: object, words: ModuleType) -> object:
    if isinstance(value, tuple):
        joiner: str = words.JOINER
        return joiner.join(str(_value(one, words)) for one in value)
    if isinstance(value, Term):
        return words.TERMS[f"{value.topic}.{value.word}"]
    if isinstance(value, Named):
        return _named(value, words)
    if isinstance(value, Count):
        one, many = words.COUNTS[value.noun]
        return (one if value.number == 1 else many).format(n=value.number)
    return value


def _named(value: Named, words: ModuleType) -> str:
    meaning = words.NAMED.get(f"{value.topic}.{value.word}")
    if meaning is None:
        return value.word
    shown: str = words.WITH_MEANING
    return shown.format(word=value.word, meaning=meaning)
