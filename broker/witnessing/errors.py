# SPDX-License-Identifier: Apache-2.0
"""What the broker refuses of witnesses.

LogError (policies)
  WitnessKeyError        witness.key             a statement about a witness key that cannot be taken
  UnknownWitnessError    witness.unknown         a cosignature by nobody who is registered
  UnknownHeadError       witness.head-unknown    a cosignature on a head that was not offered
  CosignatureError       witness.cosignature     a cosignature that does not verify, or is there twice
  StaleCosignatureError  witness.stale           an older size or time than this witness has signed already
  ComplaintError         witness.complaint       a complaint that proves nothing
"""

from __future__ import annotations

from policies.log.errors import LogError

__all__ = [
    "ComplaintError",
    "CosignatureError",
    "StaleCosignatureError",
    "UnknownHeadError",
    "UnknownWitnessError",
    "WitnessKeyError",
]


class WitnessKeyError(LogError):
    """A statement about a witness key that cannot be taken: another owner, name or log, or a key in use."""

    code = "witness.key"
    http_status = 422


class UnknownWitnessError(LogError):
    """A cosignature by a key that no statement in force names."""

    code = "witness.unknown"
    exit_code = 6
    http_status = 403


class UnknownHeadError(LogError):
    """A cosignature on a size at which this log offers no checkpoint."""

    code = "witness.head-unknown"
    http_status = 404


class CosignatureError(LogError):
    """A cosignature that does not verify, or two of one witness in one request."""

    code = "witness.cosignature"
    http_status = 422


class StaleCosignatureError(LogError):
    """A cosignature that goes back behind another of this witness, or whose time is not the broker's."""

    code = "witness.stale"
    http_status = 409


class ComplaintError(LogError):
    """A complaint whose notes are all part of this log's one history, or are not this log's."""

    code = "witness.complaint"
    http_status = 422
