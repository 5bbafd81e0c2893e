# SPDX-License-Identifier: Apache-2.0
"""What the broker refuses about a contract as a whole.

The language, its signatures, its clauses and the messages of a negotiation have errors of their own
(`policies.contract.errors`).

    ContractRoomError
      AnnexMismatchError     contract.annex-mismatch     bytes are not the ones that the contract names
      AnnexMissingError      contract.annex-missing      a recipe of the contract was not sent along
      PartyMismatchError     contract.party-mismatch     a pinned party or log is not the one known here
      OfferConflictError     contract.offer-conflict     this text does not fit what was offered before
      LintError              contract.lint-error         a term that no pool should have
      CounterpartyTakenError dsp.counterparty-taken      a name that somebody else has, or no more room
      CallbackInvalidError   dsp.callback-invalid        no address that may be called back
      CallbackRefusedError   dsp.callback-refused        a message names another address than the registered
      TooManyOpenError       dsp.too-many                one connector holds too many negotiations
    NotPartyError            request.not-found           for others, a contract does not exist
    TokenRefusedError        dsp.token-refused           nobody registered this token
"""

from __future__ import annotations

from broker.errors import NotFoundError
from policies.errors import IdentityError, IriaiError

__all__ = [
    "AnnexMismatchError",
    "AnnexMissingError",
    "CallbackInvalidError",
    "CallbackRefusedError",
    "ContractRoomError",
    "CounterpartyTakenError",
    "LintError",
    "NotPartyError",
    "OfferConflictError",
    "PartyMismatchError",
    "TokenRefusedError",
    "TooManyOpenError",
]


class ContractRoomError(IriaiError):
    """Root of the broker's refusals about contracts."""

    code = "contract.room"
    exit_code = 3
    http_status = 409


class AnnexMismatchError(ContractRoomError):
    """The bytes of an annex are not the ones that the contract names by digest."""

    code = "contract.annex-mismatch"
    http_status = 422


class AnnexMissingError(ContractRoomError):
    """A recipe that the contract names came without its bytes."""

    code = "contract.annex-missing"
    http_status = 422


class PartyMismatchError(ContractRoomError):
    """A party or a log that the contract pins is not the one that this broker has under that name."""

    code = "contract.party-mismatch"
    http_status = 422


class OfferConflictError(ContractRoomError):
    """The text does not fit what was offered before: its name, its version, or what it supersedes."""

    code = "contract.offer-conflict"


class LintError(ContractRoomError):
    """A term of the contract is unsafe or unfair; the clause is named, all rules are listed."""

    code = "contract.lint-error"
    http_status = 422


class CounterpartyTakenError(ContractRoomError):
    """A connector of that name is registered for another participant, or no more can be registered."""

    code = "dsp.counterparty-taken"


class CallbackInvalidError(ContractRoomError):
    """What was given as a callback address is none that the broker would call."""

    code = "dsp.callback-invalid"
    http_status = 422


class CallbackRefusedError(ContractRoomError):
    """A message names a callback address; only the one that operators registered is ever called."""

    code = "dsp.callback-refused"
    http_status = 400


class TooManyOpenError(ContractRoomError):
    """One connector has so many negotiations open that the next one is refused."""

    code = "dsp.too-many"
    exit_code = 75
    http_status = 429


class TokenRefusedError(IdentityError):
    """The bearer token is missing, or nobody registered it."""

    code = "dsp.token-refused"


class NotPartyError(NotFoundError):
    """Who is no party to a contract is told that there is none."""
