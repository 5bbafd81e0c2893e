# SPDX-License-Identifier: Apache-2.0
"""Errors of the node's side of the engine. Only their codes ever leave the site.

FleetError
FlowerVersionError      engine.flower-version     the installed flwr is not the one that the node was written
for
EngineEnvironmentError  engine.environment        flwr was loaded with other settings
RunHasCodeError         engine.run-has-code       the broker named an app bundle: no iriai broker does that
RunRefusedError         engine.run-refused        contract or recipe of the run are not known or not in force
here
UnknownTypeError        engine.unknown-type       a request that is not in the closed table
RequestInvalidError     engine.request-invalid    header, signature, slot or tensor do not hold
TooLargeError           engine.too-large          more than this run's tensors may have
DeadlinePassedError     engine.deadline           the request came too late to be started
RequestDiffersError     engine.request-differs    another request was answered in this slot
WorkInterruptedError    engine.interrupted        the work was begun here and the process died in it
RoundClosedError        engine.round-closed       a later round was seen
HandlerFailedError      engine.handler-failed     the handler raised; details are in the local log only
KeyUnknownError         engine.key-unknown        the broker does not know the fleet key, or has revoked it
UnreachableError        engine.unreachable        no connection to the broker
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = [
    "DeadlinePassedError",
    "EngineEnvironmentError",
    "FleetError",
    "FlowerVersionError",
    "HandlerFailedError",
    "KeyUnknownError",
    "RequestDiffersError",
    "RequestInvalidError",
    "RoundClosedError",
    "RunHasCodeError",
    "RunRefusedError",
    "TooLargeError",
    "UnknownTypeError",
    "UnreachableError",
    "WorkInterruptedError",
]


class FleetError(IriaiError):
    """Root of the node's engine errors."""

    code = "engine.error"
    exit_code = 4


class FlowerVersionError(FleetError):
    """The installed flwr is another version, or one of its inner names has moved."""

    code = "engine.flower-version"
    exit_code = 3


class EngineEnvironmentError(FleetError):
    """flwr was imported with other settings than ours."""

    code = "engine.environment"
    exit_code = 3


class RunHasCodeError(FleetError):
    """The run names an app bundle. The broker is not ours, or somebody broke into it."""

    code = "engine.run-has-code"


class RunRefusedError(FleetError):
    """The run's contract or recipe is not known here, not executed, or not in force."""

    code = "engine.run-refused"


class UnknownTypeError(FleetError):
    """The request's type is not in the table of handlers."""

    code = "engine.unknown-type"


class RequestInvalidError(FleetError):
    """The request's header does not verify, belongs to another run or node, or its tensor is another one."""

    code = "engine.request-invalid"
    exit_code = 3


class TooLargeError(FleetError):
    """The request carries more than this run's tensors may have."""

    code = "engine.too-large"
    exit_code = 3


class DeadlinePassedError(FleetError):
    """The request's deadline had passed before it was started; nothing was touched."""

    code = "engine.deadline"
    exit_code = 75


class RequestDiffersError(FleetError):
    """The slot was used for another request."""

    code = "engine.request-differs"


class WorkInterruptedError(FleetError):
    """The work was begun and the process died in it; only a new attempt may do it again."""

    code = "engine.interrupted"


class RoundClosedError(FleetError):
    """A later round of this run was seen here."""

    code = "engine.round-closed"


class HandlerFailedError(FleetError):
    """The handler raised. What it said stays here."""

    code = "engine.handler-failed"


class KeyUnknownError(FleetError):
    """The broker does not know the fleet key, or has revoked it."""

    code = "engine.key-unknown"
    exit_code = 6


class UnreachableError(FleetError):
    """The broker cannot be reached."""

    code = "engine.unreachable"
    exit_code = 5
