# SPDX-License-Identifier: Apache-2.0
"""The linter: terms that no pool should sign, and terms that people should know that they sign.

- An ``error`` blocks an offer. A ``warning`` is shown to every contributor, who acknowledges it by its id
  (``<rule>:<clause>``) with the signature; the acknowledgement is logged.
- A rule is a row: what it needs and what to do, in English and Japanese, and a small function that yields the
  clauses that break it, each with the value that was found. The rows are in `policies.contract.lint.terms`
  (unfair and unsafe terms), in `policies.contract.lint.votes` (votes on rounds that protect nobody) and in
  `policies.contract.lint.not_made` (terms that this version cannot keep, so that everything which they govern
  would be refused).
- ``found`` is made of the contract's own values, so it is the same in every language.
- What the language itself refuses at load has no rule here: a unit below an episode, a broker whose group
  contributes, a tier that does not require the privacy, aggregation and release clauses, a change without all
  contributors, a view or a statement of another party's number.

    for one in lint(contract):
        print(one.severity, one.id, one.need, one.found, one.remedy)
    # error lint.k-too-small:k-1 at least 3 independent groups 2 raise min_parties to 3 or more
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from policies.contract.lint.not_made import NOT_MADE
from policies.contract.lint.terms import TERMS
from policies.contract.lint.votes import VOTES

if TYPE_CHECKING:
    from policies.contract.clauses import Contract
    from policies.contract.lint.rows import LintRule

__all__ = ["RULES", "LintFinding", "finding_words", "lint"]

RULES: Final[dict[str, LintRule]] = {f"lint.{row.name}": row for row in (*TERMS, *VOTES, *NOT_MADE)}


@dataclass(frozen=True, slots=True, kw_only=True)
class LintFinding:
    """One clause that breaks one rule.

    Attributes:
        rule: ``lint.k-too-small``.
        severity: ``error`` or ``warning``.
        clause: Id of the clause; ``@document`` for the contract as a whole.
        need: What the rule wants, in English.
        found: What the clause says, in the contract's own values.
        remedy: What to change, in English.
    """

    rule: str
    severity: str
    clause: str
    need: str
    found: str
    remedy: str

    @property
    def id(self) -> str:
        """What an acknowledgement names: ``<rule>:<clause>``."""
        return f"{self.rule}:{self.clause}"

    def to_json(self) -> dict[str, str]:
        """The finding as answers and envelopes hold it."""
        return {
            "id": self.id,
            "rule": self.rule,
            "severity": self.severity,
            "clause": self.clause,
            "need": self.need,
            "found": self.found,
            "remedy": self.remedy,
        }


def lint(contract: Contract) -> tuple[LintFinding, ...]:
    """Every finding, errors first, then by clause and rule; each id once."""
    found: dict[str, LintFinding] = {}
    for name, row in RULES.items():
        for clause, value in row.find(contract):
            one = LintFinding(
                rule=name,
                severity=row.severity,
                clause=clause,
                need=row.need[0],
                found=value,
                remedy=row.remedy[0],
            )
            found.setdefault(one.id, one)
    return tuple(sorted(found.values(), key=lambda one: (one.severity, one.clause, one.rule)))


def finding_words(finding: LintFinding, lang: str = "en") -> tuple[str, str, str]:
    """What a finding needs, what was found, and the remedy, in ``en`` or ``ja``."""
    row, at = RULES[finding.rule], 1 if lang == "ja" else 0
    return row.need[at], finding.found, row.remedy[at]
