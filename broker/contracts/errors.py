# SPDX-License-Identifier: Apache-2.0
"""What the broker refuses about a contract as a whole.

The language, its signatures and its clauses have errors of their own (`policies.contract.errors`).

    ContractRoomError
      AnnexMismatchError     contract.annex-mismatch     recipe bytes are not the ones that the contract names
      AnnexMissingError      contract.annex-missing      a recipe of the contract was not sent along
      PartyMismatchError     contract.party-mismatch     a pinned party is not the member of that key
      OfferConflictError     contract.offer-conflict     this version was offered with another text
      DeadlineError          negotiation.deadline        ``sign_by`` is over
    NotPartyError            request.not-found           for others, a contract does not exist
"""

from __future__ import annotations

from broker.errors import NotFoundError
from policies.errors import IriaiError

__all__ = [
    "AnnexMismatchError",
    "AnnexMissingError",
    "ContractRoomError",
    "DeadlineError",
    "NotPartyError",
    "OfferConflictError",
    "PartyMismatchError",
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
    """A party that the contract pins is not the active member of that key, name and group."""

    code = "contract.party-mismatch"
    http_status = 422


class OfferConflictError(ContractRoomError):
    """Another text was offered under the same contract id and version."""

    code = "contract.offer-conflict"


class DeadlineError(ContractRoomError):
    """The time to sign is over; signatures after it are worthless."""

    code = "negotiation.deadline"
    exit_code = 7


class NotPartyError(NotFoundError):
    """Who is no party to a contract is told that there is none."""
