# SPDX-License-Identifier: Apache-2.0
"""What the console refuses by itself, before any service is asked.

ConsoleError
  LoginNeededError      console.login-needed   nobody is signed in, or the login has ended
  CrossSiteError        console.cross-site     a form that did not come from a page of this console
  RoleError             console.role           a screen or an act for people with another role
  FormError             console.form           a form or query in another form
"""

from __future__ import annotations

from policies.errors import IriaiError

__all__ = ["ConsoleError", "CrossSiteError", "FormError", "LoginNeededError", "RoleError"]


class ConsoleError(IriaiError):
    """Root of what the console refuses by itself."""

    code = "console.error"
    exit_code = 6


class LoginNeededError(ConsoleError):
    """Nobody is signed in, or the login has ended."""

    code = "console.login-needed"
    http_status = 401


class CrossSiteError(ConsoleError):
    """A form that did not come from a page of this console; nothing was done."""

    code = "console.cross-site"
    http_status = 403


class RoleError(ConsoleError):
    """A screen or an act for people with another role; it is on record that it was asked for."""

    code = "console.role"
    exit_code = 4
    http_status = 403


class FormError(ConsoleError):
    """A form or query in another form."""

    code = "console.form"
    exit_code = 2
    http_status = 422
