# SPDX-License-Identifier: Apache-2.0
"""Why a run is not opened.

RunError
  RecipeUnknownError    run.recipe-unknown    the contract has no recipe of this id
  TooFewSeatsError      run.too-few           fewer independent groups than the contract asks for are
  members now
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["RecipeUnknownError", "RunError", "TooFewSeatsError"]


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
