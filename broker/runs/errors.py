# SPDX-License-Identifier: Apache-2.0
"""Why a run is not opened, not stopped, or not resumed.

RunError
  RecipeUnknownError    run.recipe-unknown    the contract has no recipe of this id
  RunClosedError        run.closed            the run is over: there is nothing to stop
  RunNotPausedError     run.not-paused        neither an operator nor rejected models keep the run waiting
  TooFewSeatsError      run.too-few           fewer independent groups than the contract asks for are
  members now
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["RecipeUnknownError", "RunClosedError", "RunError", "RunNotPausedError", "TooFewSeatsError"]


class RunError(IriaiError):
    """Root of refusals about runs."""

    code = "run.error"
    exit_code = 3
    http_status = 409


class RecipeUnknownError(RunError):
    """The contract has no recipe of this id."""

    code = "run.recipe-unknown"
    http_status = 404


class TooFewSeatsError(RunError):
    """Fewer independent groups than the contract asks for are active members now."""

    code = "run.too-few"
    exit_code = 4
    http_status = 403


class RunNotPausedError(RunError):
    """The run does not wait for an operator's word: nobody paused it, its models stand, or it is over."""

    code = "run.not-paused"


class RunClosedError(RunError):
    """The run is over, or its candidate is judged already: there is nothing to stop."""

    code = "run.closed"
