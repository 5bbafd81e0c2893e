# SPDX-License-Identifier: Apache-2.0
"""Why a vote is not taken.

Whether a model is handed out is the contract's decision (`policies.contract.errors.RefusedError`).

DeliveryError
  VoteClosedError        release.closed         the candidate was decided already
  VoteInvalidError       release.vote-invalid   not a vote on this candidate
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["DeliveryError", "VoteClosedError", "VoteInvalidError"]


class DeliveryError(IriaiError):
    """Root of refusals about candidates and released models."""

    code = "release.error"
    exit_code = 3
    http_status = 409


class VoteClosedError(DeliveryError):
    """The candidate was released or refused already."""

    code = "release.closed"


class VoteInvalidError(DeliveryError):
    """The envelope is not a vote of this party on this candidate."""

    code = "release.vote-invalid"
    http_status = 422
