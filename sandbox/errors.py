# SPDX-License-Identifier: Apache-2.0
"""Errors of the sandbox.

SandboxError        sandbox.failed          a step of the federation did not do what it must
  CommandError      sandbox.command         a command of broker or node ended with an error
  StartError        sandbox.start           a process did not come up
  UsageError        sandbox.usage           options that do not fit
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["CommandError", "SandboxError", "StartError", "UsageError"]


class SandboxError(IriaiError):
    """A step of the federation did not do what it must."""

    code = "sandbox.failed"
    exit_code = 3


class CommandError(SandboxError):
    """A command of broker or node ended with an error; its own words are in ``found``."""

    code = "sandbox.command"


class StartError(SandboxError):
    """A process did not come up."""

    code = "sandbox.start"


class UsageError(SandboxError):
    """Options that do not fit each other, or a folder that is in use."""

    code = "sandbox.usage"
    exit_code = 2
