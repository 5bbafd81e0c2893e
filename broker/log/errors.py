# SPDX-License-Identifier: Apache-2.0
"""What the log refuses because of its storage or its signer; `policies.log.errors` has the rest.

    LogError (policies)
      LogConflictError       log.conflict       the same event id with other content
      LogUnavailableError    log.unavailable    the commit failed; nothing was stored
      LogFrozenError         log.frozen         the signer found two histories and signs nothing more
        LogRolledBackError   log.rolled-back    ... because the database is older than what was signed
      NotInLogError          log.unknown-entry  no such index or event
      LogApprovalError       log.approval       two operators have not signed what is to be done
      LogKeyError            log.key            a key file of the log that its entries name is missing
      LogRepairError         log.repair         a bundle or a database from which nothing can be repaired

A frozen log still answers reads.
"""

from __future__ import annotations

from policies.log.errors import LogError

__all__ = [
    "LogApprovalError",
    "LogConflictError",
    "LogError",
    "LogFrozenError",
    "LogKeyError",
    "LogRepairError",
    "LogRolledBackError",
    "LogUnavailableError",
    "NotInLogError",
]


class LogConflictError(LogError):
    """An event id that is in the log already, with other content: two parties, or two programs, disagree."""

    code = "log.conflict"
    exit_code = 7
    http_status = 409


class LogUnavailableError(LogError):
    """The commit failed (disk full, read-only, queue full, shutting down): send the same again."""

    code = "log.unavailable"
    exit_code = 75
    http_status = 503


class LogFrozenError(LogError):
    """Nothing is signed and every change is refused, until two people decide which history is true."""

    code = "log.frozen"
    exit_code = 7
    http_status = 503


class LogRolledBackError(LogFrozenError):
    """The database holds less than the signer signed: it was restored from an older copy."""

    code = "log.rolled-back"


class NotInLogError(LogError):
    """No entry has this index or event id, or no checkpoint covers it yet."""

    code = "log.unknown-entry"
    http_status = 404


class LogApprovalError(LogError):
    """What two operators have to sign is not signed by two, or not by operators."""

    code = "log.approval"
    exit_code = 7
    http_status = 403


class LogRepairError(LogError):
    """A repair or a succession that cannot be done with these files; nothing was changed."""

    code = "log.repair"
    exit_code = 3
    http_status = 409


class LogKeyError(LogError):
    """The key with which the log signs, by its own entries, is not there."""

    code = "log.key"
    exit_code = 6
    http_status = 503
