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
  PrecisionRefusedError    privacy.precision-refused   arithmetic in which a norm is no bound
  RngRefusedError          privacy.rng-refused         noise that could be predicted or repeated
  PrivateStatisticError    privacy.private-statistic   a constant learned from private data
  ReplyFieldError          privacy.reply-field         a reply that says more than update and step count
  EvalUnplannedError       privacy.eval-unplanned      evaluation without an EvalPlan, or on trained units
  SearchUnaccountedError   privacy.search-unaccounted  a sweep on private data without its accounting event
  AccountantRefusedError   privacy.accountant-refused  a figure that is no bound, or an unknown mechanism
  SiloClaimRefusedError    privacy.silo-claim-refused  a claim about whole silos with fewer than 50 of them
  InfeasibleError          privacy.infeasible          noise that leaves nothing of the signal
  CancelAfterTouchError    privacy.cancel-after-touch  a refund after data were read
  CanaryMissingError       privacy.canary-missing      canaries that were not committed, or not revealed
  AuditFailedError         privacy.audit-failed        a conformance, counter or leak test that failed
  StatementError           privacy.statement-invalid   a statement whose numbers do not follow from its plan
BudgetError
  BudgetExhaustedError     budget.exhausted            over one of the two caps, or no step left
  BudgetUnknownError       budget.unknown              ledger lost, cut, altered or not durable
  BudgetDivergedError      budget.diverged             node and mirror disagree about what was spent
  LineageUnknownError      budget.lineage-unknown      units without a lineage, or under a second one
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AccountantRefusedError",
    "AuditFailedError",
    "BudgetDivergedError",
    "BudgetError",
    "BudgetExhaustedError",
    "BudgetUnknownError",
    "CanaryMissingError",
    "CancelAfterTouchError",
    "DeltaTooLargeError",
    "EvalUnplannedError",
    "InfeasibleError",
    "LineageUnknownError",
    "ModelRefusedError",
    "OrderUnfitError",
    "PlanIncompleteError",
    "PlanMismatchError",
    "PrecisionRefusedError",
    "PrivacyError",
    "PrivateStatisticError",
    "ReplyFieldError",
    "RngRefusedError",
    "SamplerForeignError",
    "SearchUnaccountedError",
    "SharesUnfitError",
    "SiloClaimRefusedError",
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


class PrecisionRefusedError(PrivacyError):
    """Autocast, TF32 or a compiled graph inside the clipped sum: a norm there is not a bound."""

    code = "privacy.precision-refused"


class RngRefusedError(PrivacyError):
    """The noise generator could be predicted or repeated (seeded, or carried over a fork)."""

    code = "privacy.rng-refused"


class PrivateStatisticError(PrivacyError):
    """A normaliser, filter or weight that was learned from private data."""

    code = "privacy.private-statistic"


class ReplyFieldError(PrivacyError):
    """A reply holds a count, metric, loss or duration, or a field that nobody knows."""

    code = "privacy.reply-field"


class EvalUnplannedError(PrivacyError):
    """Evaluation without an EvalPlan, or on units that were trained on."""

    code = "privacy.eval-unplanned"


class SearchUnaccountedError(PrivacyError):
    """Settings were searched on private data without accounting for the search."""

    code = "privacy.search-unaccounted"


class AccountantRefusedError(PrivacyError):
    """A figure that is not an upper bound (GDP-CLT, summed epsilons), or an unknown mechanism."""

    code = "privacy.accountant-refused"


class SiloClaimRefusedError(PrivacyError):
    """A claim about whole silos where there are fewer than 50."""

    code = "privacy.silo-claim-refused"


class InfeasibleError(PrivacyError):
    """The noise that the plan asks for would bury the signal of the units that there are."""

    code = "privacy.infeasible"


class CancelAfterTouchError(PrivacyError):
    """A reservation whose data were read cannot be cancelled; it can only be committed."""

    code = "privacy.cancel-after-touch"
    http_status = 409


class CanaryMissingError(PrivacyError):
    """Canaries were not committed before the run, or not revealed after it."""

    code = "privacy.canary-missing"
    exit_code = 3
    http_status = 409


class AuditFailedError(PrivacyError):
    """A conformance test, a step counter or a leak test failed; its report is attached."""

    code = "privacy.audit-failed"
    exit_code = 3
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


class BudgetDivergedError(BudgetError):
    """The node's ledger and the broker's mirror of it disagree; the ledger decides, the mirror accuses."""

    code = "budget.diverged"
    exit_code = 7


class LineageUnknownError(BudgetError):
    """Units without a lineage, or known units under a second one: their budget could be spent twice."""

    code = "budget.lineage-unknown"
