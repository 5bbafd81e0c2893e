# SPDX-License-Identifier: Apache-2.0
"""``iriai-node contract``: read it in plain words, negotiate it, sign it, stop it, leave it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from client.cli_options import FOLDER, Dir, Json, Yes, ask, end, group, opened

if TYPE_CHECKING:
    from client.answers import Answer

__all__ = ["contract"]

contract = group("The contract: read it, negotiate it, sign it, stop it, leave it.")


@contract.command("list")
def contract_list(folder: Dir = FOLDER, json: Json = False) -> None:  # noqa: FBT002
    """This node's contracts, and who is waited for."""

    def work() -> Answer:
        from client import contracts

        with opened(folder) as one:
            return contracts.contract_list(one.member)

    end(work, json)


@contract.command("show")
def contract_show(
    digest: Annotated[str | None, typer.Argument(help="Digest; the newest if left out.")] = None,
    folder: Dir = FOLDER,
    json: Json = False,  # noqa: FBT002
) -> None:
    """The contract in plain words, your own duties first, each sentence with its clause id."""

    def work() -> Answer:
        from client import contracts

        with opened(folder) as one:
            return contracts.contract_show(one.member, one.shelf, digest)

    end(work, json)


@contract.command("sign")
def contract_sign(
    digest: str,
    folder: Dir = FOLDER,
    yes: Yes = False,  # noqa: FBT002
    json: Json = False,  # noqa: FBT002
) -> None:
    """Checks pins, recipes and dates, then signs and sends the signature."""

    def work() -> Answer:
        from client import contracts

        confirm = ask("You are about to sign the contract whose digest begins with:", yes=yes)
        with opened(folder) as one:
            return contracts.sign(one.member, one.shelf, one.outbox, digest, confirm=confirm)

    end(work, json)
