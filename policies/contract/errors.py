# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a contract, all on one screen.

IriaiError
  ContractError                    contract.*                        the root of this package
    YamlRefusedError               contract.yaml-refused             YAML that two readers read differently
    ContractInvalidError           contract.invalid                  breaks the language or contradicts itself
      UnknownSchemaError           contract.unknown-schema           a schema id that we do not read
      EnforcementOverclaimedError  contract.enforcement-overclaimed  a point that no code serves
    NotCanonicalError              contract.not-canonical            bytes other than the canonical form
    RequestMalformedError          contract.request-malformed        a recorded request of another shape
    RefusedError                   contract.refused                  the evaluator's answer is no
      HaltedError                  contract.halted                   ... because a halt is in force
      ExpiredError                 contract.expired                  ... because the term does not hold
      NotExecutedError             contract.not-executed             ... because a party has not signed
    ContractSignatureError         contract.signature-invalid        not an envelope of this contract
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "ContractError",
    "ContractInvalidError",
    "ContractSignatureError",
    "EnforcementOverclaimedError",
    "ExpiredError",
    "HaltedError",
    "NotCanonicalError",
    "NotExecutedError",
    "RefusedError",
    "RequestMalformedError",
    "UnknownSchemaError",
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


class ExpiredError(RefusedError):
    """The time is outside the term."""

    code = "contract.expired"


class NotExecutedError(RefusedError):
    """A contributor or the broker has not signed."""

    code = "contract.not-executed"


class ContractSignatureError(ContractError):
    """The envelope does not hold this contract, or is not an envelope of contracts at all."""

    code = "contract.signature-invalid"
    exit_code = 6
