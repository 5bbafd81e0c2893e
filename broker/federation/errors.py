# SPDX-License-Identifier: Apache-2.0
"""Errors of engine and runs, and the closed list of codes with which one node fails one exchange.

    EngineError
      FlowerVersionError      engine.flower-version     another flwr is installed
      EngineEnvironmentError  engine.environment        flwr was loaded with other settings
      AlreadyRunningError     engine.already-running    another process serves this folder
      NotRunningError         engine.not-running        the engine was not started, or is stopped
      RunLimitError           engine.run-limit          as many runs as may be active are
      FleetKeyError           engine.fleet-key          not a P-256 public key
      FleetKeyTakenError      engine.key-taken          the fleet key is enrolled already
      StoreFullError          engine.store-full         objects on disk reached their bound
    RunError
      CheckpointError         run.checkpoint-damaged    a stored model is missing or has other bytes
      RunUnknownError         run.unknown               nobody opened this run
      RunNotAllowedError      run.refused               the contract does not allow the run
      RunHaltedError          run.halted                a party stopped the contract; the run waits
      RunSupersededError      run.superseded            a successor rules; the run goes on under it
      RunDeclinedError        run.declined              members said no, too few are left; the run waits
      RunRejectedError        run.rejected              silos rejected models in a row; the run waits
      RunPausedError          run.paused                an operator paused the run; it waits

`FAILURES` are not exceptions: nothing that one node does raises in a round. `ABSENCES` are those of them in
which nothing came.
"""

from __future__ import annotations

from typing import Final

from policies.errors import IriaiError

__all__ = [
    "ABSENCES",
    "FAILURES",
    "AlreadyRunningError",
    "CheckpointError",
    "EngineEnvironmentError",
    "EngineError",
    "FleetKeyError",
    "FleetKeyTakenError",
    "FlowerVersionError",
    "NotRunningError",
    "RunDeclinedError",
    "RunError",
    "RunHaltedError",
    "RunLimitError",
    "RunNotAllowedError",
    "RunPausedError",
    "RunRejectedError",
    "RunSupersededError",
    "RunUnknownError",
    "StoreFullError",
]

FAILURES: Final = {
    "engine.late": "no complete reply before the exchange ended",
    "engine.unreachable": "the node was never online since this broker started",
    "engine.revoked": "the node was revoked during the exchange",
    "engine.not-yours": "the node reached for what belongs to another",
    "engine.too-large": "more bytes than the reply may have",
    "engine.too-many-objects": "more objects than the reply may have",
    "engine.reply-malformed": "header, signature, slot, dtype, shape or digest are not the ones asked for",
    "engine.store-full": "the broker's object store is full",
    "engine.refused": "the node refused before it could sign an answer; its code is not one of ours",
}
ABSENCES: Final = frozenset({"engine.late", "engine.unreachable", "engine.revoked", "engine.store-full"})


class EngineError(IriaiError):
    """Root of the engine's errors."""

    code = "engine.error"
    exit_code = 3


class FlowerVersionError(EngineError):
    """The installed flwr is another version, or one of its inner names has moved."""

    code = "engine.flower-version"


class EngineEnvironmentError(EngineError):
    """flwr was imported with other settings than ours, or a variable is set that opens another door."""

    code = "engine.environment"


class AlreadyRunningError(EngineError):
    """Another process serves the fleet from this folder."""

    code = "engine.already-running"
    exit_code = 75
    http_status = 503


class NotRunningError(EngineError):
    """The engine is not started."""

    code = "engine.not-running"
    exit_code = 75
    http_status = 503


class RunLimitError(EngineError):
    """As many runs are active as the bound allows."""

    code = "engine.run-limit"
    exit_code = 75
    http_status = 503


class FleetKeyError(EngineError):
    """The fleet key is not the PEM of a P-256 public key."""

    code = "engine.fleet-key"
    http_status = 422


class FleetKeyTakenError(EngineError):
    """The fleet key, or the node, is enrolled already with another partner."""

    code = "engine.key-taken"
    http_status = 409


class StoreFullError(EngineError):
    """The objects of all runs reached their bound on disk."""

    code = "engine.store-full"
    exit_code = 75
    http_status = 507


class RunError(IriaiError):
    """Root of the errors of runs."""

    code = "run.session"


class CheckpointError(RunError):
    """A stored model or checkpoint is missing or has other bytes than its name says."""

    code = "run.checkpoint-damaged"
    exit_code = 7


class RunUnknownError(RunError):
    """Nobody opened this run."""

    code = "run.unknown"
    exit_code = 2
    http_status = 404


class RunNotAllowedError(RunError):
    """The contract does not allow the run that was asked for."""

    code = "run.refused"
    exit_code = 4
    http_status = 403


class RunHaltedError(RunError):
    """The run's contract is halted: the run waits, and goes on when every contributor has resumed."""

    code = "run.halted"
    exit_code = 75
    http_status = 409


class RunDeclinedError(RunError):
    """Members said no, and too few groups are left without them: the run waits before it asks again."""

    code = "run.declined"
    exit_code = 75
    http_status = 409


class RunRejectedError(RunError):
    """Silos rejected as many models in a row as the contract allows: the run waits for an operator."""

    code = "run.rejected"
    exit_code = 75
    http_status = 409


class RunPausedError(RunError):
    """An operator paused the run: it waits until one resumes it."""

    code = "run.paused"
    exit_code = 75
    http_status = 409


class RunSupersededError(RunError):
    """A successor of the run's contract rules: the run goes on under it from its next round."""

    code = "run.superseded"
    exit_code = 75
    http_status = 409
