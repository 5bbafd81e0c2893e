# SPDX-License-Identifier: Apache-2.0
"""The people of a sandbox, and their one-time logins, by the commands that an operator types.

An operator asks for their own login with their own key file, which needs nobody else. The auditor is added by
alice, has a key file and a grant for every confidential field, and gets later logins from both: two have to
ask for the login of an auditor with a key.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

from sandbox.processes import command

if TYPE_CHECKING:
    from sandbox.federation import Federation

__all__ = ["AUDITOR", "CONSOLE", "console_of", "enrol_auditor", "login_of"]

AUDITOR: Final = "carol"


CONSOLE: Final = "https://localhost:{port}"
"""Where the console of a sandbox is opened: a domain name, because passkeys belong to one."""


def console_of(federation: Federation) -> str:
    """The first page of the console."""
    return CONSOLE.format(port=urlsplit(federation.url).port) + "/console"


def enrol_auditor(federation: Federation) -> str:
    """Makes the auditor's key file, and lets alice enrol it and grant every confidential field.

    The person comes first: a name that only has a key is nobody's login.

    Returns:
        Path of the key file.

    Raises:
        CommandError: The broker refuses.
    """
    path = federation.folder / "operators" / f"{AUDITOR}.key"
    key = str(command("iriai-verify", "key", str(path))["key"])
    federation.broker("auditor", "add", AUDITOR, "--auditor-key", key, "--yes")
    federation.broker("audit", "grant", AUDITOR, "--fields", "*", "--yes")
    return str(path)


def login_of(federation: Federation, name: str, *, role: str, first: bool) -> dict[str, Any]:
    """Name, role and a one-time login of a person.

    Args:
        federation: Whose broker runs.
        name: Of the person.
        role: As it is, or is to be.
        first: Whether somebody without a key file is still to be added.

    Raises:
        CommandError: The broker refuses.
    """
    if name in federation.operators:
        number = federation.operators.index(name)
        made = federation.broker("operator", "reset-login", name, operator=number)
    elif first:
        made = federation.broker("operator", "add", name, "--role", role)
    else:
        made = federation.broker("operator", "reset-login", name)
    found = {"name": name, "role": role}
    if "code" in made:  # an auditor whose name has a key by now: two have to ask
        found["code"] = made["code"]
        made = federation.broker("operator", "reset-login", name, operator=1)
    return {**found, "login": made["link"], "until": made["until"]}
