# SPDX-License-Identifier: Apache-2.0
"""Why somebody does not become a member, or an operator's word does not count.

MembershipError
  InviteUnknownError        membership.invite-unknown      no invitation has this secret
  InviteUsedError           membership.invite-used         single use, and it was used
  InviteExpiredError        membership.invite-expired      72 h are over
  InviteMismatchError       membership.invite-mismatch     made for another legal name, country or group
  AlreadyEnrolledError      membership.already-enrolled    organisation, node, node key or fleet key is taken
  FleetKeyError             membership.fleet-key           not a P-256 public key in PEM
  NotMemberError            membership.unknown             no such organisation
  NotWaitingError           membership.not-waiting         approved or revoked already
  SubjectChangedError       membership.subject-changed     the approval is for something else
  ApprovalTwiceError        membership.approval-twice      one key, two approvals
  NotActiveError            membership.not-active          waits for approval
  SuspendedError            membership.suspended           an operator stopped it for the time being
  OperatorUnknownError      membership.operator-unknown    no operator has this name
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AlreadyEnrolledError",
    "ApprovalTwiceError",
    "FleetKeyError",
    "InviteExpiredError",
    "InviteMismatchError",
    "InviteUnknownError",
    "InviteUsedError",
    "MembershipError",
    "NotActiveError",
    "NotMemberError",
    "NotWaitingError",
    "OperatorUnknownError",
    "SubjectChangedError",
    "SuspendedError",
]


class MembershipError(IriaiError):
    """Root of refusals about who is in."""

    code = "membership.error"
    exit_code = 3
    http_status = 409


class InviteUnknownError(MembershipError):
    """No invitation of this broker has that secret."""

    code = "membership.invite-unknown"
    exit_code = 6
    http_status = 403


class InviteUsedError(MembershipError):
    """The invitation was used before; the first use stands."""

    code = "membership.invite-used"
    exit_code = 6


class InviteExpiredError(MembershipError):
    """The invitation's time is over."""

    code = "membership.invite-expired"
    exit_code = 6
    http_status = 410


class InviteMismatchError(MembershipError):
    """The invitation was made for another organisation; it stays unused."""

    code = "membership.invite-mismatch"
    exit_code = 6
    http_status = 403


class AlreadyEnrolledError(MembershipError):
    """The organisation, node, node key or fleet key is enrolled already; each enrols once."""

    code = "membership.already-enrolled"


class FleetKeyError(MembershipError):
    """The fleet key is not a P-256 public key in PEM."""

    code = "membership.fleet-key"
    exit_code = 6
    http_status = 422


class NotMemberError(MembershipError):
    """No organisation of this name."""

    code = "membership.unknown"
    http_status = 404


class NotWaitingError(MembershipError):
    """The organisation does not wait for approval any more."""

    code = "membership.not-waiting"


class SubjectChangedError(MembershipError):
    """What the operator signed is not what waits for approval."""

    code = "membership.subject-changed"


class ApprovalTwiceError(MembershipError):
    """One operator key approved already; another operator has to."""

    code = "membership.approval-twice"
    exit_code = 7


class NotActiveError(MembershipError):
    """The organisation is not approved yet."""

    code = "membership.not-active"
    exit_code = 7
    http_status = 403


class SuspendedError(NotActiveError):
    """An operator stopped the organisation for the time being; its keys stay."""

    code = "membership.suspended"


class OperatorUnknownError(MembershipError):
    """No operator of this name or key."""

    code = "membership.operator-unknown"
    http_status = 404
