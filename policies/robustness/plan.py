# SPDX-License-Identifier: Apache-2.0
"""What votes on rounds cost, and how they are named: from the contract's validation clause alone.

- One vote is one Gaussian query on the held-out units: the mean over ``judge_episodes`` of the fall of a
  unit's loss, clipped to ±D. One unit moves it by at most ``D / judge_episodes``; the noise is calibrated so
  that ``max_judgings`` queries together cost the clause's epsilon at the delta of the recipe's evaluation.
- It is a plan of evaluation (``iriai-eval-plan/1``) with a *loss of gain* in place of a loss: bound D,
  threshold a fifth of it. Ledgers, books and audits account for it like for any other.
- A clause that leaves one of its four numbers out asks for no vote on rounds.
- The mechanism's subject is a hash of run, round, model and reference: one name per question.

Standard library only: broker, nodes and verifier compute the same.

    plan = votes_plan(contract.validation, recipe_evaluation_document)       # None: no votes on rounds
"""

from __future__ import annotations

import hashlib
from decimal import Decimal
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from policies.encoding import decimal_text
from policies.privacy.accounting import calibrate

if TYPE_CHECKING:
    from collections.abc import Mapping

    from policies.contract.clauses import ValidationClause

__all__ = ["votes_plan", "votes_subject"]

_MARGIN = Decimal("0.2")  # of D, as in `policies.robustness.votes`


def votes_plan(clause: ValidationClause | None, evaluation: Mapping[str, Any]) -> dict[str, Any] | None:
    """Document of the plan of votes on rounds; None where the contract asks for none.

    Args:
        clause: Of the contract.
        evaluation: The recipe's evaluation plan: unit, adjacency and delta are its own.

    Raises:
        PlanIncompleteError: No noise reaches the clause's epsilon.
    """
    if clause is None or clause.gain_clip is None or clause.epsilon is None:
        return None
    if clause.judge_episodes is None or clause.max_judgings is None:
        return None
    return {
        "schema": "iriai-eval-plan/1",
        "unit": evaluation["unit"],
        "adjacency": evaluation["adjacency"],
        "delta": evaluation["delta"],
        "loss_bound": clause.gain_clip,
        "noise_multiplier": _multiplier(clause.epsilon, evaluation["delta"], clause.max_judgings),
        "normalizer": str(clause.judge_episodes),
        "threshold": decimal_text(format(Decimal(clause.gain_clip) * _MARGIN, "f")),
        "steps": clause.max_judgings,
    }


@lru_cache(maxsize=64)
def _multiplier(epsilon: str, delta: str, judgings: int) -> str:
    return decimal_text(calibrate(float(epsilon), float(delta), 1.0, judgings))


def votes_subject(*, run: str, number: int, model: str, against: str) -> str:
    """``sha256:…`` that names one question in budget entries.

    Args:
        run: The run.
        number: Of the round whose model is judged.
        model: Its digest.
        against: Digest of the last accepted model.
    """
    text = f"iriai/round-vote/1|{run}|{number}|{model}|{against}"
    return "sha256:" + hashlib.sha256(text.encode()).hexdigest()
