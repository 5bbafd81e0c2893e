# SPDX-License-Identifier: Apache-2.0
"""Why a word about a proposal does not count.

ProposalError
  ProposalUnknownError      proposal.unknown     no proposal has this id
  ProposalKindError         proposal.kind        nothing of this kind takes two people
  ProposalOpenError         proposal.open        the same is proposed already
  ProposalClosedError       proposal.closed      it was decided before
  ProposalExpiredError      proposal.expired     its time is over
  ProposalOwnError          proposal.own         who stands behind it already cannot be the second person
  ProposalDigestError       proposal.digest      the approval is of something else
  ProposalVoidError         proposal.void        the world changed since it was proposed
  ProposalRoleError         proposal.role        this person may not
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "ProposalClosedError",
    "ProposalDigestError",
    "ProposalError",
    "ProposalExpiredError",
    "ProposalKindError",
    "ProposalOpenError",
    "ProposalOwnError",
    "ProposalRoleError",
    "ProposalUnknownError",
    "ProposalVoidError",
]


class ProposalError(IriaiError):
    """Root of refusals about what takes two people."""

    code = "proposal.error"
    exit_code = 3
    http_status = 409


class ProposalUnknownError(ProposalError):
    """No proposal has this id."""

    code = "proposal.unknown"
    http_status = 404


class ProposalKindError(ProposalError):
    """Nothing of this kind takes two people, or it lacks what it is about."""

    code = "proposal.kind"
    exit_code = 2
    http_status = 422


class ProposalOpenError(ProposalError):
    """The same is proposed already: it waits for a second person."""

    code = "proposal.open"


class ProposalClosedError(ProposalError):
    """It was approved or refused before, or became void."""

    code = "proposal.closed"


class ProposalExpiredError(ProposalError):
    """Nobody approved it in its time."""

    code = "proposal.expired"
    http_status = 410


class ProposalOwnError(ProposalError):
    """Who proposed it, or approved it already, cannot be the second person."""

    code = "proposal.own"
    exit_code = 4
    http_status = 403


class ProposalDigestError(ProposalError):
    """The approval is of something else than what would happen."""

    code = "proposal.digest"


class ProposalVoidError(ProposalError):
    """What it was about is not so any more."""

    code = "proposal.void"


class ProposalRoleError(ProposalError):
    """This person's role allows neither to propose nor to approve it."""

    code = "proposal.role"
    exit_code = 4
    http_status = 403
