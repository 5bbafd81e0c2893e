# SPDX-License-Identifier: Apache-2.0
"""``iriai-node contract`` for contracts in force: where one stands, stop, go on, leave, attest, new key."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.contract import contract
from client.cli.key import key_rotate
from client.cli.options import Clause, DryRun, Open, Text, Yes, ask, command, tell

if TYPE_CHECKING:
    from client.answers import Answer
    from client.settings import Home

__all__ = ["LEAVES", "Unreleased", "contract"]

LEAVES = "You are about to leave the contract whose digest begins with:"


class Unreleased(StrEnum):
    """What becomes of models that hold the leaver's updates and are not released."""

    RETRAIN = "retrain"
    DISCARD = "discard"


@command(contract, "status")
@command(contract, "lifecycle", hidden=True)
def contract_lifecycle(
    digest: str,
    *,
    restore: Annotated[bool, typer.Option("--restore", help="Fetch all notices anew.")] = False,
    one: Open,
) -> Answer:
    """Where a contract stands, who halted it, who is waited for, who left. Every notice is verified here."""
    from client.contract import stopping

    return stopping.lifecycle(one.member, one.shelf, one.outbox, digest, restore=restore)


def _preview(one: Open, contract: str) -> Answer:
    from client import withdrawing

    return withdrawing.preview_contract(one.member, one.shelf, one.outbox, contract)


@command(contract, "halt")
def contract_halt(
    digest: str,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code, like cell.incident.")],
    clause: Clause = None,
    text: Text = None,
    dry_run: DryRun = False,
    one: Open,
) -> Answer:
    """Stops everything under a contract: here at once, also without a network; elsewhere as it is heard."""
    from client.contract import stopping

    if dry_run:
        return _preview(one, digest)
    return stopping.halt(one.member, one.shelf, one.outbox, digest, code=reason, clause=clause, text=text)


@command(contract, "resume")
def contract_resume(
    digest: str,
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "cause.removed",
    dry_run: DryRun = False,
    one: Open,
) -> Answer:
    """Agrees that a halted contract goes on, naming each open halt. It does once every contributor has."""
    from client.contract import stopping

    if dry_run:
        return _preview(one, digest)
    return stopping.resume(one.member, one.shelf, one.outbox, digest, code=reason)


@command(contract, "exit")
def contract_exit(
    digest: str,
    *,
    unreleased: Annotated[
        Unreleased, typer.Option("--unreleased", help="What becomes of unreleased models with your updates.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "party.leaves",
    absent: Annotated[
        str | None,
        typer.Option("--for", help="An absent contributor that is to leave, once all others say so."),
    ] = None,
    one: Open,
    yes: Yes = False,
) -> Answer:
    """Shows what follows, clause by clause, asks, and leaves the contract. There is no way back in."""
    from client.contract import stopping

    return stopping.leave(
        one.member,
        one.shelf,
        one.outbox,
        digest,
        choice=unreleased.value,
        code=reason,
        confirm=ask(LEAVES, yes=yes),
        tell=tell,
        absent=absent,
    )


@command(contract, "rotate-key", hidden=True)
def contract_rotate_key(
    *,
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "key.age",
    home: Home,
    yes: Yes = False,
) -> Answer:
    """The same as key rotate."""
    return key_rotate(reason=reason, home=home, yes=yes)


@command(contract, "attest")
def contract_attest(
    digest: str,
    *,
    use: Annotated[str, typer.Option("--use", help="What the models are used for: words joined by hyphens.")],
    country: Annotated[str, typer.Option("--country", help="Where: two capital letters.")],
    dry_run: DryRun = False,
    one: Open,
) -> Answer:
    """States under signature what released models are used for here, where the contract asks for that."""
    from client.contract import stopping

    if dry_run:
        return _preview(one, digest)
    return stopping.attest(one.member, one.shelf, one.outbox, digest, use=use, country=country)
