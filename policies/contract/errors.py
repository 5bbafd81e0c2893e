# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a contract, all on one screen.

IriaiError
  ContractError                    contract.*                        the root of this package
    YamlRefusedError               contract.yaml-refused             YAML that two readers read differently
    ContractInvalidError           contract.invalid                  breaks the language or contradicts itself
      UnknownSchemaError           contract.unknown-schema           a schema id that we do not read
      EnforcementOverclaimedError  contract.enforcement-overclaimed  a point that no code serves
      ColludersTooManyError        contract.colluders-too-many       more colluders than any sum can bear
      FormulaUnknownError          contract.formula-unknown          shares by a formula that we do not have
    NotCanonicalError              contract.not-canonical            bytes other than the canonical form
    RequestMalformedError          contract.request-malformed        a recorded request of another shape
    RefusedError                   contract.refused                  the evaluator's answer is no
      HaltedError                  contract.halted                   ... because a halt is in force
      NotBegunError                contract.not-begun                ... because the term has not begun yet
      ExpiredError                 contract.expired                  ... because the term is over
      NotExecutedError             contract.not-executed             ... because a party has not signed
    ContractSignatureError         contract.signature-invalid        not an envelope of this contract
    AnswerError                    contract.answer-invalid           not an answer to a blank of a template
      UnansweredError              contract.unanswered               a blank that nobody filled in
    LifecycleError                 contract.notice-void              a notice that can change nothing here
      NoticeMalformedError         contract.notice-malformed         not a notice about this contract
      NoticeOrderError             contract.notice-order             used, dated back, or one is missing
      NoticeEntitlementError       contract.notice-entitlement       this party may not say this
    AmendmentError                   contract.amendment-refused        the root of amendments
      NotASuccessorError             contract.not-a-successor          another pool, version or predecessor
      ProofMissingError              contract.proof-missing            only z3 could show it, and it is absent
      VerdictMalformedError          contract.verdict-malformed        not a verdict about an amendment
      VerdictDisagreesError          contract.verdict-disagrees        a verdict that does not hold here
    DspMessageError                  contract.dsp-malformed            not a message of the Dataspace Protocol
    OdrlRefusedError                 contract.odrl-refused             an ODRL term that our profile lacks
    ViewDisagreesError               contract.view-disagrees           an ODRL view of another contract
    NegotiationError                 negotiation.refused               the root of negotiations
      LaneMessageError               negotiation.message-malformed     not a message of a lane
      BadTransitionError             negotiation.bad-transition        not what may follow in this lane
      DigestMismatchError            negotiation.digest-mismatch       about another text than the lane holds
      MessageConflictError           negotiation.message-conflict      a used message id with other bytes
      UnacknowledgedError            negotiation.unacknowledged        a lint warning that nobody acknowledged
      OvertakenError                 negotiation.superseded            a counter-offer took the lane's place
      DeadlineError                  negotiation.deadline              the time for it is over
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AmendmentError",
    "AnswerError",
    "BadTransitionError",
    "ColludersTooManyError",
    "ContractError",
    "ContractInvalidError",
    "ContractSignatureError",
    "DeadlineError",
    "DigestMismatchError",
    "DspMessageError",
    "EnforcementOverclaimedError",
    "ExpiredError",
    "FormulaUnknownError",
    "HaltedError",
    "LaneMessageError",
    "LifecycleError",
    "MessageConflictError",
    "NegotiationError",
    "NotASuccessorError",
    "NotBegunError",
    "NotCanonicalError",
    "NotExecutedError",
    "NoticeEntitlementError",
    "NoticeMalformedError",
    "NoticeOrderError",
    "OdrlRefusedError",
    "OvertakenError",
    "ProofMissingError",
    "RefusedError",
    "RequestMalformedError",
    "UnacknowledgedError",
    "UnansweredError",
    "UnknownSchemaError",
    "VerdictDisagreesError",
    "VerdictMalformedError",
    "ViewDisagreesError",
    "YamlRefusedError",
]


class ContractError(IriaiError):
    """Root of the errors of `policies.contract`."""

    code = "contract.error"
    exit_code = 3
    http_status = 422


class YamlRefusedError(ContractError):
    """The text uses a part of YAML that readers understand differently; the line is named."""

    code = "contract.yaml-refused"


class ContractInvalidError(ContractError):
    """A clause breaks the language, or contradicts another clause."""

    code = "contract.invalid"


class UnknownSchemaError(ContractInvalidError):
    """The document names a schema that this version does not read."""

    code = "contract.unknown-schema"


class EnforcementOverclaimedError(ContractInvalidError):
    """``enforced_by`` promises more than the code does."""

    code = "contract.enforcement-overclaimed"


class ColludersTooManyError(ContractInvalidError):
    """``max_colluders`` is so high that a sum over the fewest parties would show single updates."""

    code = "contract.colluders-too-many"


class FormulaUnknownError(ContractInvalidError):
    """``incentives`` shares out by a method or formula that this version does not have."""

    code = "contract.formula-unknown"


class NotCanonicalError(ContractError):
    """Bytes of a contract are not the ones that its digest and its signatures are over."""

    code = "contract.not-canonical"


class RequestMalformedError(ContractError):
    """A recorded request or state has another shape than the evaluator's."""

    code = "contract.request-malformed"
    http_status = 400


class RefusedError(ContractError):
    """The contract does not allow what was asked; ``clause`` says which clause refused first."""

    code = "contract.refused"
    exit_code = 4
    http_status = 403


class HaltedError(RefusedError):
    """A halt is in force, or nobody knows whether one is."""

    code = "contract.halted"


class NotBegunError(RefusedError):
    """The term has not begun yet."""

    code = "contract.not-begun"


class ExpiredError(RefusedError):
    """The term is over."""

    code = "contract.expired"


class NotExecutedError(RefusedError):
    """A contributor or the broker has not signed."""

    code = "contract.not-executed"


class ContractSignatureError(ContractError):
    """The envelope does not hold this contract, or is not an envelope of contracts at all."""

    code = "contract.signature-invalid"
    exit_code = 6


class AnswerError(ContractError):
    """An answer that its blank of a template does not take; the blank is named."""

    code = "contract.answer-invalid"
    exit_code = 2


class UnansweredError(AnswerError):
    """Blanks of a template that nobody filled in; each is named."""

    code = "contract.unanswered"


class LifecycleError(ContractError):
    """A notice that can change nothing: its halt is not open, its party has left, the contract has ended."""

    code = "contract.notice-void"
    exit_code = 4
    http_status = 409


class NoticeMalformedError(LifecycleError):
    """Not a notice, or not one about this contract and a party of it."""

    code = "contract.notice-malformed"
    exit_code = 3
    http_status = 422


class NoticeOrderError(LifecycleError):
    """A notice whose number was used, that is dated before the last one, or before which one is missing."""

    code = "contract.notice-order"
    exit_code = 7


class NoticeEntitlementError(LifecycleError):
    """The contract does not let this party say this; the clause is named."""

    code = "contract.notice-entitlement"
    http_status = 403


class AmendmentError(ContractError):
    """Root of what keeps an amendment out."""

    code = "contract.amendment-refused"
    http_status = 409


class NotASuccessorError(AmendmentError):
    """The document does not follow the contract that it is to replace."""

    code = "contract.not-a-successor"


class ProofMissingError(AmendmentError):
    """The order table does not show that the successor is no looser, and the prover is not installed."""

    code = "contract.proof-missing"


class VerdictMalformedError(AmendmentError):
    """Bytes that are no verdict about an amendment."""

    code = "contract.verdict-malformed"
    http_status = 422


class VerdictDisagreesError(AmendmentError):
    """A verdict about other contracts, or one that this site cannot confirm."""

    code = "contract.verdict-disagrees"
    exit_code = 7


class NegotiationError(ContractError):
    """Root of what a negotiation refuses; a refused message leaves its lane as it was."""

    code = "negotiation.refused"
    http_status = 409


class LaneMessageError(NegotiationError):
    """Bytes that are no message of a lane."""

    code = "negotiation.message-malformed"
    http_status = 422


class BadTransitionError(NegotiationError):
    """A message that may not follow in its lane: wrong state, sender, round, or not the next one."""

    code = "negotiation.bad-transition"


class DigestMismatchError(NegotiationError):
    """A message about another contract than the one that the lane holds."""

    code = "negotiation.digest-mismatch"


class MessageConflictError(NegotiationError):
    """A message id that was used for other bytes."""

    code = "negotiation.message-conflict"


class UnacknowledgedError(NegotiationError):
    """A signature that leaves a lint warning unacknowledged; the warnings are named."""

    code = "negotiation.unacknowledged"
    exit_code = 7


class OvertakenError(NegotiationError):
    """A counter-offer came first: this lane has ended, another holds the new text."""

    code = "negotiation.superseded"
    exit_code = 7


class DeadlineError(NegotiationError):
    """The time is over; signatures after it are worthless."""

    code = "negotiation.deadline"
    exit_code = 7


class OdrlRefusedError(ContractError):
    """A policy that is not of our profile, or says what the profile has no word for; every place is named."""

    code = "contract.odrl-refused"


class ViewDisagreesError(ContractError):
    """A policy names a contract that says something else."""

    code = "contract.view-disagrees"
    exit_code = 7


class DspMessageError(ContractError):
    """Bytes that are no message of the Dataspace Protocol 2025-1; the place is named."""

    code = "contract.dsp-malformed"
    http_status = 400
