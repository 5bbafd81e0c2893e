# SPDX-License-Identifier: Apache-2.0
"""``iriai-broker operator``: operators' own keys, and the people who may log in to the console."""

from __future__ import annotations

from pathlib import Path  # noqa: TC003  typer reads the annotations
from typing import TYPE_CHECKING, Annotated

import typer

from broker.cli.options import command, typer_group

if TYPE_CHECKING:
    from broker.answers import Result
    from broker.commands import Where

__all__ = ["operator"]

operator = typer_group("Operators' own keys, and who may log in to the console.")


@command(operator, "new", effect="a new operator's key is written to {file}")
def operator_new(file: Path) -> Result:
    """Makes an operator's key file and prints its public key."""
    from broker import commands

    return commands.operator_new(file)


@command(operator, "list")
def operator_list(where: Where) -> Result:
    """Lists who may log in to the console, and how."""
    from broker.commands import people

    return people.operator_list(where)


@command(operator, "add", effect="{name} is added as {role}; all but an auditor once a second one approves")
def operator_add(
    name: Annotated[str, typer.Argument(help="As log entries name them: small letters, digits, hyphens.")],
    *,
    role: Annotated[str, typer.Option("--role", help="operator, approver, auditor or member.")],
    org: Annotated[str | None, typer.Option("--org", help="The organisation of a member: org_….")] = None,
    sub: Annotated[
        str | None,
        typer.Option(
            "--provider-name", help="Their name (sub) at the identity provider, if they log in there."
        ),
    ] = None,
    where: Where,
) -> Result:
    """Adds an auditor and prints a one-time link; everybody else is proposed to a second one first."""
    from broker.commands import people

    return people.operator_add(where, name, role=role, org=org, sub=sub)


@command(operator, "disable", effect="{name} may do nothing here any more, from now on", asks=True)
def operator_disable(name: str, where: Where) -> Result:
    """Ends what a person may do here, at once: logins, passkeys, key file."""
    from broker.commands import people

    return people.operator_disable(where, name)


@command(operator, "login", effect="you are logged out everywhere and get a new way to log in", asks=True)
def operator_login(where: Where) -> Result:
    """Prints a one-time link for yourself: the key says who you are. The same as reset-login YOUR-NAME."""
    from broker.commands import people

    return people.operator_login(where)


@command(
    operator, "reset-login", effect="{name} is logged out everywhere and gets a new way to log in", asks=True
)
def operator_reset_login(name: str, where: Where) -> Result:
    """Prints a one-time link; for somebody else, but an auditor, half of what two operators ask for."""
    from broker.commands import people

    return people.operator_reset_login(where, name)
