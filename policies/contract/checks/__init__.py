# SPDX-License-Identifier: Apache-2.0
"""The checks of each kind of clause. `CHECKS` says which of them run; the registry says for which requests.

- Which checks run follows from the request's type, party and tier and from the contract alone, never from a
  fact that may be missing: leaving a fact out makes a check unknown, it cannot remove it.
- A clause about some requests only is an implication ("if it is this recipe, then ..."): it is evaluated for
  every request of its type and satisfied by those that it is not about (`case.only_if`).
- **One fact, one clause.** Where a special clause judges a fact, the general one leaves it: a trade secret is
  refused by its own clause and not by the allow-list, a measured leak by the use that is forbidden and not by
  the release clause, an unlisted recipe by ``train-outside-recipes`` where that is forbidden. So a refusal
  names the clause that was signed about it.
- Kinds without a row here are for people and courts only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from policies.contract.checks.changes import check_amendment, check_exit
from policies.contract.checks.evidence import check_audit, check_validation
from policies.contract.checks.outputs import check_export, check_queries
from policies.contract.checks.parties import check_halt, check_party, check_term
from policies.contract.checks.pooling import check_aggregation
from policies.contract.checks.privacy import check_privacy, check_privacy_cap
from policies.contract.checks.release import check_release, check_tier
from policies.contract.checks.training import (
    check_fields,
    check_purpose,
    check_recipe,
    check_secret,
    check_seed,
)
from policies.contract.checks.uses import check_forbidden

if TYPE_CHECKING:
    from policies.contract.case import Check

__all__ = ["CHECKS"]

CHECKS: dict[str, Check] = {
    "party": check_party,
    "term": check_term,
    "purpose": check_purpose,
    "forbidden": check_forbidden,
    "recipe": check_recipe,
    "seed": check_seed,
    "fields": check_fields,
    "secret": check_secret,
    "privacy": check_privacy,
    "privacy-cap": check_privacy_cap,
    "aggregation": check_aggregation,
    "validation": check_validation,
    "queries": check_queries,
    "tier": check_tier,
    "release": check_release,
    "exit": check_exit,
    "audit": check_audit,
    "export": check_export,
    "amendment": check_amendment,
    "halt": check_halt,
}
