# SPDX-License-Identifier: Apache-2.0
"""The terms of a run by the bytes that everybody signed: contract and recipe. Both ends use it.

    terms = agreed_terms(contract, recipe.canonical, run="run_1")

Standard library only: the recipe is read as JSON, which whoever holds it has checked before.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from policies.encoding import digest, digest_of, parse
from policies.secagg.terms import terms_of

if TYPE_CHECKING:
    from policies.contract.clauses import Contract
    from policies.secagg.terms import Terms

__all__ = ["agreed_terms"]


def agreed_terms(contract: Contract, recipe: bytes, *, run: str) -> Terms:
    """The terms of a run.

    Args:
        contract: That everybody signed.
        recipe: Its canonical bytes.
        run: The run.

    Raises:
        ThresholdError, SharesUnfitError: As `policies.secagg.terms.terms_of`.
    """
    tree = parse(recipe)
    tensors, plan = tree["tensors"], tree["plan"]
    return terms_of(
        contract,
        recipe=digest(recipe),
        run=run,
        manifest=digest_of(tensors),
        dimension=sum(math.prod(one["shape"]) for one in tensors),
        honest_min=None if plan is None else plan["honest_min"],
    )
