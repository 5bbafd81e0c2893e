# SPDX-License-Identifier: Apache-2.0
"""``iriai-node contract`` for contracts in force: where one stands, stop, go on, leave, attest, new key."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from client.cli.contract import contract
from client.cli.options import FOLDER, Dir, Json, Yes, ask, end, opened, tell

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["contract"]

_Clause = Annotated[str | None, typer.Option("--clause", help="The clause that is the reason.")]
_Text = Annotated[str | None, typer.Option("--text", help="One line for the other parties.")]


class Unreleased(StrEnum):
    """What becomes of models that hold the leaver's updates and are not released."""

    RETRAIN = "retrain"
    DISCARD = "discard"


@contract.command("lifecycle")
def contract_lifecycle(
    digest: str,
    restore: Annotated[bool, typer.Option("--restore", help="Fetch all notices anew.")] = False,  # noqa: FBT002
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Where a contract stands, who halted it, who is waited for, who left. Every notice is verified here."""

    def work() -> Answer:
        from client.contract import stopping

        with opened(folder) as one:
            return stopping.lifecycle(one.member, one.shelf, one.outbox, digest, restore=restore)

    end(work, json)


@contract.command("halt")
def contract_halt(  # noqa: PLR0917  a command line
    digest: str,
    reason: Annotated[str, typer.Option("--reason", help="Reason code, like cell.incident.")],
    clause: _Clause = None,
    text: _Text = None,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Stops everything under a contract: here at once, also without a network; elsewhere as it is heard."""

    def work() -> Answer:
        from client.contract import stopping

        with opened(folder) as one:
            return stopping.halt(
                one.member, one.shelf, one.outbox, digest, code=reason, clause=clause, text=text
            )

    end(work, json)


@contract.command("resume")
def contract_resume(
    digest: str,
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "cause.removed",
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """Agrees that a halted contract goes on, naming each open halt. It does once every contributor has."""

    def work() -> Answer:
        from client.contract import stopping

        with opened(folder) as one:
            return stopping.resume(one.member, one.shelf, one.outbox, digest, code=reason)

    end(work, json)


@contract.command("exit")
def contract_exit(  # noqa: PLR0917  a command line
    digest: str,
    unreleased: Annotated[
        Unreleased, typer.Option("--unreleased", help="What becomes of unreleased models with your updates.")
    ],
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "party.leaves",
    absent: Annotated[
        str | None,
        typer.Option("--for", help="An absent contributor that is to leave, once all others say so."),
    ] = None,
    folder: Dir = FOLDER,
    yes: Yes = False,  # noqa: FBT002
    json: Json = False,  # noqa: FBT002
) -> None:
    """Shows what follows, clause by clause, asks, and leaves the contract. There is no way back in."""

    def work() -> Answer:
        from client.contract import stopping

        with opened(folder) as one:
            return stopping.leave(
                one.member,
                one.shelf,
                one.outbox,
                digest,
                choice=unreleased.value,
                code=reason,
                confirm=ask("You are about to leave the contract whose digest begins with:", yes=yes),
                tell=tell,
                absent=absent,
            )

    end(work, json)


@contract.command("rotate-key")
def contract_rotate_key(
    reason: Annotated[str, typer.Option("--reason", help="Reason code.")] = "key.age",
    folder: Dir = FOLDER,
    yes: Yes = False,  # noqa: FBT002
    json: Json = False,  # noqa: FBT002
) -> None:
    """Gives this node a new key in all its contracts. Stop the worker first; repeat it after a crash."""

    def work() -> Answer:
        from client import rotating
        from client.clock import SystemClock
        from client.entropy import SystemEntropy
        from client.settings import Home

        return rotating.rotate_key(
            Home(folder),
            clock=SystemClock(),
            entropy=SystemEntropy(),
            code=reason,
            confirm=ask("This node is about to be known by a new key, with the fingerprint:", yes=yes),
        )

    end(work, json)


@contract.command("attest")
def contract_attest(
    digest: str,
    use: Annotated[str, typer.Option("--use", help="What the models are used for: words joined by hyphens.")],
    country: Annotated[str, typer.Option("--country", help="Where: two capital letters.")],
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """States under signature what released models are used for here, where the contract asks for that."""

    def work() -> Answer:
        from client.contract import stopping

        with opened(folder) as one:
            return stopping.attest(one.member, one.shelf, one.outbox, digest, use=use, country=country)

    end(work, json)
