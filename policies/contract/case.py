# SPDX-License-Identifier: Apache-2.0
"""What every check may look at, and how a clause about one recipe is judged."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from policies.contract.findings import Finding, Outcome, unknown
from policies.contract.requests import Aggregate, ContractState, Deliver, Request

if TYPE_CHECKING:
    from policies.contract.clauses import Contract

__all__ = ["Case", "Check", "only_under"]


@dataclass(frozen=True, slots=True)
class Case:
    """What a check may look at."""

    contract: Contract
    state: ContractState
    request: Request

    def under(self, recipe_digest: str) -> bool | None:
        """Whether the request is under this recipe; None if it does not say."""
        asked = self.request.recipe_digest
        return None if asked is None else asked == recipe_digest

    @property
    def members(self) -> tuple[str, ...] | None:
        """Parties whose updates the request is about, and nothing for a delivery."""
        if isinstance(self.request, Aggregate):
            return self.request.survivors
        return None if isinstance(self.request, Deliver) else self.request.cohort

    @property
    def members_fact(self) -> str:
        """The name of that fact."""
        return "survivors" if isinstance(self.request, Aggregate) else "cohort"


Check = Callable[[Case, Any], Iterator[Finding]]


def only_under(findings: Iterable[Finding], *, applies: bool | None) -> Iterator[Finding]:
    """An implication's findings: as they are under the recipe, satisfied under another, else unknown."""
    for one in findings:
        if applies is None:
            yield unknown(one.clause, one.check, "recipe_digest", need=one.need)
        elif applies:
            yield one
        else:
            yield replace(one, outcome=Outcome.SATISFIED, found="another recipe")
