# SPDX-License-Identifier: Apache-2.0
"""What the auditor's commands refuse before they look at a log.

VerifyError
  InputError            verify.input             a file, folder or option that cannot be used as given
  BrokenError           verify.broken            our bug: the program itself failed
  WorkerLostError       verify.worker-lost       a process that worked on a part of the log was killed
  UnreachableError      verify.unreachable       a log that the auditor's witness asks, and that does not
  answer
    UnknownWitnessError verify.witness-unknown   a log that does not know the auditor's witness, or no longer
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["BrokenError", "InputError", "UnreachableError", "VerifyError", "WorkerLostError"]


class VerifyError(IriaiError):
    """Root of what the auditor's commands refuse."""

    code = "verify.invalid"
    exit_code = 3
    http_status = 400


class InputError(VerifyError):
    """A file, folder or option that cannot be used as given."""

    code = "verify.input"
    exit_code = 2


class BrokenError(VerifyError):
    """The program failed over something that it should have told as a finding: our bug, and no verdict."""

    code = "verify.broken"
    exit_code = 1
    http_status = 500


class WorkerLostError(VerifyError):
    """A process that worked on a part of the log was killed; there is no verdict."""

    code = "verify.worker-lost"
    exit_code = 1
    http_status = 500


class UnreachableError(VerifyError):
    """The log that the auditor's witness asks does not answer, or answers something else."""

    code = "verify.unreachable"
    exit_code = 5
    http_status = 502


class UnknownWitnessError(UnreachableError):
    """The log takes no cosignature of this witness: it was not registered yet, or was removed."""

    code = "verify.witness-unknown"
    exit_code = 6
    http_status = 403
