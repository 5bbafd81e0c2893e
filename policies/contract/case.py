# SPDX-License-Identifier: Apache-2.0
"""What every check may look at, and how a clause about some requests only is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from policies.contract.findings import Finding, Outcome, unknown
from policies.contract.registry import OWN_VIEWS
from policies.contract.requests import (
    Aggregate,
    ContractState,
    Deliver,
    Query,
    Release,
    Request,
    TrainRound,
)

if TYPE_CHECKING:
    from policies.contract.clauses import Contract

__all__ = ["Case", "Check", "only_if", "only_under"]


@dataclass(frozen=True, slots=True)
class Case:
    """What a check may look at."""

    contract: Contract
    state: ContractState
    request: Request

    @property
    def recipe_digest(self) -> str | None:
        """The recipe that the request is under; None if it does not say."""
        request = self.request
        if isinstance(request, TrainRound | Aggregate | Release | Deliver):
            return request.recipe_digest
        return None

    def under(self, recipe_digest: str) -> bool | None:
        """Whether the request is under this recipe; None if it does not say."""
        asked = self.recipe_digest
        return None if asked is None else asked == recipe_digest

    @property
    def members(self) -> tuple[str, ...] | None:
        """Parties whose updates, or whose data, the request is about; None if it does not say."""
        request = self.request
        if isinstance(request, Aggregate):
            return request.survivors
        return request.cohort if isinstance(request, TrainRound | Release | Query) else None

    @property
    def members_fact(self) -> str:
        """The name of that fact."""
        return "survivors" if isinstance(self.request, Aggregate) else "cohort"

    @property
    def groups(self) -> int | None:
        """How many independent groups those are."""
        members = self.members
        return None if members is None else len(self.contract.groups(members))

    @property
    def about_the_pool(self) -> bool | None:
        """Whether a query is for a number about the pool, not about who asks; None if it does not say."""
        request = self.request
        if not isinstance(request, Query) or request.view is None:
            return None
        return request.view not in OWN_VIEWS


Check = Callable[[Case, Any], Iterator[Finding]]


def only_under(findings: Iterable[Finding], *, applies: bool | None) -> Iterator[Finding]:
    """An implication's findings: as they are under the recipe, satisfied under another, else unknown."""
    return only_if(findings, applies=applies, fact="recipe_digest", otherwise="another recipe")


def only_if(
    findings: Iterable[Finding], *, applies: bool | None, fact: str, otherwise: str
) -> Iterator[Finding]:
    """An implication's findings: as they are where it applies, satisfied elsewhere, unknown if nobody knows.

    Args:
        findings: As they are where it applies.
        applies: None if the fact that says so is missing.
        fact: Name of that fact.
        otherwise: What was found where it does not apply.
    """
    for one in findings:
        if applies is None:
            yield unknown(one.clause, one.check, fact, need=one.need)
        elif applies:
            yield one
        else:
            yield Finding(
                clause=one.clause,
                check=one.check,
                outcome=Outcome.SATISFIED,
                need=one.need,
                found=otherwise,
                remedy=one.remedy,
            )
