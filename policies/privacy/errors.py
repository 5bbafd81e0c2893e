# SPDX-License-Identifier: Apache-2.0
"""What differential privacy and its budget refuse. Budgets fail closed: an unknown budget is a spent one.

PrivacyError
  PlanIncompleteError      privacy.plan-incomplete     a number is missing, not finite or out of range
  PlanMismatchError        privacy.plan-mismatch       another plan than the one that was reserved or signed
  UnitRefusedError         privacy.unit-refused        a unit that protects nobody (frame), several owners
  DeltaTooLargeError       privacy.delta-too-large
  OrderUnfitError          privacy.order-unfit         the filter's order holds no single release
  SharesUnfitError         privacy.shares-unfit        noise shares without what they rest on
  ModelRefusedError        privacy.model-refused       a model whose units are not independent
  SamplerForeignError      privacy.sampler-foreign     data that did not come through the plan's sampler
  RngRefusedError          privacy.rng-refused         noise that could be predicted or repeated
  EvalUnplannedError       privacy.eval-unplanned      evaluation without an EvalPlan, or on trained units
  CancelAfterTouchError    privacy.cancel-after-touch  a refund after data were read
  StatementError           privacy.statement-invalid   a statement whose numbers do not follow from its plan
BudgetError
  BudgetExhaustedError     budget.exhausted            over one of the two caps, or no step left
  BudgetUnknownError       budget.unknown              ledger lost, cut, altered or not durable
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "BudgetError",
    "BudgetExhaustedError",
    "BudgetUnknownError",
    "CancelAfterTouchError",
    "DeltaTooLargeError",
    "EvalUnplannedError",
    "ModelRefusedError",
    "OrderUnfitError",
    "PlanIncompleteError",
    "PlanMismatchError",
    "PrivacyError",
    "RngRefusedError",
    "SamplerForeignError",
    "SharesUnfitError",
    "StatementError",
    "UnitRefusedError",
]


class PrivacyError(IriaiError):
    """Root of everything that the privacy rules refuse."""

    code = "privacy.refused"
    exit_code = 4
    http_status = 422


class PlanIncompleteError(PrivacyError):
    """A plan lacks a number, or a number is not finite or out of its range."""

    code = "privacy.plan-incomplete"
    exit_code = 3


class PlanMismatchError(PrivacyError):
    """The plan at hand is not the one that was signed or reserved."""

    code = "privacy.plan-mismatch"
    http_status = 409


class UnitRefusedError(PrivacyError):
    """The unit of protection would protect nobody."""

    code = "privacy.unit-refused"


class DeltaTooLargeError(PrivacyError):
    """Delta is above a tenth of one over the number of units."""

    code = "privacy.delta-too-large"


class OrderUnfitError(PrivacyError):
    """The filter's order does not hold a single release under the cap."""

    code = "privacy.order-unfit"


class SharesUnfitError(PrivacyError):
    """Noise shares are asked for where their conditions do not hold."""

    code = "privacy.shares-unfit"


class ModelRefusedError(PrivacyError):
    """The model mixes units, keeps state, or has a layer without a per-unit gradient rule."""

    code = "privacy.model-refused"


class SamplerForeignError(PrivacyError):
    """Training data came by another way than the plan's sampler."""

    code = "privacy.sampler-foreign"


class RngRefusedError(PrivacyError):
    """The noise generator could be predicted or repeated (seeded, or carried over a fork)."""

    code = "privacy.rng-refused"


class EvalUnplannedError(PrivacyError):
    """Evaluation without an EvalPlan, or on units that were trained on."""

    code = "privacy.eval-unplanned"


class CancelAfterTouchError(PrivacyError):
    """A reservation whose data were read cannot be cancelled; it can only be committed."""

    code = "privacy.cancel-after-touch"
    http_status = 409


class StatementError(PrivacyError):
    """A privacy statement whose figures do not follow from its own plan."""

    code = "privacy.statement-invalid"
    exit_code = 3


class BudgetError(IriaiError):
    """Root of what the budget ledger refuses."""

    code = "budget.refused"
    exit_code = 4
    http_status = 409


class BudgetExhaustedError(BudgetError):
    """The lineage's cap, the contract's cap or the plan's steps do not hold this."""

    code = "budget.exhausted"


class BudgetUnknownError(BudgetError):
    """What was spent cannot be proven: ledger lost, cut, altered or not written durably."""

    code = "budget.unknown"
    exit_code = 7
    http_status = 503
