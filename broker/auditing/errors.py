# SPDX-License-Identifier: Apache-2.0
"""What is refused about audits.

AuditingError
  AuditorUnknownError      audit.auditor-unknown      no auditor of this name or key is in force
  AuditorTakenError        audit.auditor-taken        the name or the key is somebody's already
  GrantUnknownError        audit.grant-unknown        no such grant is in force
  FieldUnknownError        audit.field-unknown        no entry type, or not this entry, has such a field
  InEnvelopeError          audit.in-envelope          the member's own envelope says it too
  AlreadyErasedError       audit.already-erased       nothing of it is left
  ErasureUnfinishedError   audit.erasure-unfinished   it is on record, yet bytes of it may still be in a file
  TimestampsMissingError   audit.timestamps-missing   the library for time stamps is not installed
  TimestampInvalidError    audit.timestamp-invalid    what the authority answered is no stamp of this log
  AuthorityError           audit.authority            no usable authority for time stamps
  ExportRefusedError       audit.export-refused       the disk or the folder takes no bundle
  ExportBusyError          audit.export-busy          another bundle of this key is being made
  ConcludedAlreadyError    audit.concluded            the auditor concluded on this bundle, or a newer one
  IncidentUnknownError     audit.incident-unknown     no entry declares such an incident
  IncidentClosedError      audit.incident-closed      it is closed already
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "AlreadyErasedError",
    "AuditingError",
    "AuditorTakenError",
    "AuditorUnknownError",
    "AuthorityError",
    "ConcludedAlreadyError",
    "ErasureUnfinishedError",
    "ExportBusyError",
    "ExportRefusedError",
    "FieldUnknownError",
    "GrantUnknownError",
    "InEnvelopeError",
    "IncidentClosedError",
    "IncidentUnknownError",
    "TimestampInvalidError",
    "TimestampsMissingError",
]


class AuditingError(IriaiError):
    """Root of refusals about audits."""

    code = "audit.error"
    exit_code = 3
    http_status = 409


class AuditorUnknownError(AuditingError):
    """No auditor of this name or key is in force."""

    code = "audit.auditor-unknown"
    http_status = 404


class AuditorTakenError(AuditingError):
    """The name or the key belongs to somebody; each is enrolled once, for ever."""

    code = "audit.auditor-taken"


class GrantUnknownError(AuditingError):
    """No grant with this id is in force."""

    code = "audit.grant-unknown"
    http_status = 404


class FieldUnknownError(AuditingError):
    """A confidential field that no entry type has, or that this entry does not have."""

    code = "audit.field-unknown"
    exit_code = 2
    http_status = 422


class InEnvelopeError(AuditingError):
    """A value that the member's signed envelope repeats: erasing the broker's copy would erase nothing."""

    code = "audit.in-envelope"
    exit_code = 7


class AlreadyErasedError(AuditingError):
    """Every value that was named is erased already."""

    code = "audit.already-erased"


class ConcludedAlreadyError(AuditingError):
    """The bundle has a conclusion of this auditor already, which another one cannot take the place of."""

    code = "audit.concluded"


class ErasureUnfinishedError(AuditingError):
    """The erasure stands in the log; the private database could not be cleaned yet."""

    code = "audit.erasure-unfinished"
    exit_code = 75
    http_status = 503


class TimestampsMissingError(AuditingError):
    """The optional library for RFC 3161 is not installed."""

    code = "audit.timestamps-missing"
    exit_code = 2
    http_status = 501


class TimestampInvalidError(AuditingError):
    """An answer that is no time stamp of what was sent, or not by an authority that is trusted."""

    code = "audit.timestamp-invalid"
    http_status = 422


class AuthorityError(AuditingError):
    """No time-stamping authority answers at the address, or its certificates cannot be read."""

    code = "audit.authority"
    exit_code = 5
    http_status = 502


class ExportRefusedError(AuditingError):
    """A bundle could not be written; nothing of it is left."""

    code = "audit.export-refused"
    exit_code = 75
    http_status = 507


class ExportBusyError(AuditingError):
    """Another bundle of the same key is being made or sent, or all places for bundles are taken."""

    code = "audit.export-busy"
    exit_code = 75
    http_status = 429


class IncidentUnknownError(AuditingError):
    """The entry declares no incident."""

    code = "audit.incident-unknown"
    http_status = 404


class IncidentClosedError(AuditingError):
    """Somebody closed it before."""

    code = "audit.incident-closed"
